"""The history of the nights: what became of each, and that it agrees with the result whatever happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import report
from movielens.history import HISTORY, read_history, with_runs
from tests.support.inputs import RATINGS, movie_lines, rating_lines, write_input
from tests.support.jobs import GONE, Main, Publish
from tests.support.journals import standing_at, write_lease
from tests.support.pages import Parsed
from tests.support.places import Bucket, Disk
from tests.support.results import history_of
from tests.support.s3server import S3Server
from tests.test_summary import summary_in


@pytest.mark.thorough
@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_three_nights_are_published_left_alone_and_refused(
    engine: str, run_main: Main, tmp_path: Path, output_path: Path, where: str, request: pytest.FixtureRequest
) -> None:
    place: Disk | Bucket = Disk(output_path)
    folder = write_input(tmp_path / "release", rating_lines(RATINGS[:5]))

    def give() -> object:
        if where == "disk":
            return folder
        server: S3Server = request.getfixturevalue("s3_server")
        return server.upload(folder, f"{tmp_path.name}-{engine}-release")

    if where == "bucket":
        place = request.getfixturevalue("bucket_path")

    def night() -> dict[str, Any]:
        arguments = ("--if_changed", "--min_ratio", 0.9, "--summary", "json")
        status, said = run_main(engine, "--input_path", given, "--output_path", place.address, *arguments, out=True)
        summary = summary_in(said)
        assert summary["exit_status"] == status
        return summary

    # given a result, and a new input
    given = give()
    first = night()
    (folder / "ratings.dat").write_bytes(rating_lines(RATINGS))
    given = give()
    # then it is published, and left alone when the next night has the same
    second = night()
    assert (second["outcome"], second["datasets"]["ratings"]) == (
        "published", {"rows": 6, "bytes": second["datasets"]["ratings"]["bytes"], "rows_before": 5},
    )  # fmt: skip
    standing = standing_at(place)
    third = night()
    assert (third["outcome"], third["exit_status"], third["result_run_id"]) == ("unchanged", 0, second["run_id"])
    assert third["datasets"]["ratings"] == second["datasets"]["ratings"]
    # and half of it is refused
    (folder / "ratings.dat").write_bytes(rating_lines(RATINGS[:3]))
    given = give()
    fourth = night()
    assert (fourth["outcome"], fourth["exit_status"]) == ("failed", 3)
    assert fourth["error"].startswith("ratings has 3 rows, fewer than 0.9 times the 6 of the result before: ")
    assert standing_at(place) == standing
    # and the history has the two that were published, as their summaries said
    runs = read_history(place.read(HISTORY) or b"")
    assert [run["run_id"] for run in runs] == [first["run_id"], second["run_id"]]
    for run, summary in zip(runs, (first, second), strict=True):
        jsonless = {"finished", "seconds"}  # which end where publishing begins
        assert {name: value for name, value in run.items() if name not in jsonless} == {
            name: value for name, value in summary.items() if name not in jsonless
        }
        assert {**run["seconds"]["phases"], "publishing": 0}.keys() == summary["seconds"]["phases"].keys()
        summary_in(json.dumps(run))
    # and the page shows them
    html = tmp_path / "report.html"
    assert report.main(["--output_path", place.address, "--html", str(html)]) == 0
    page = Parsed(html.read_text())
    assert page.heading("The last") == "The last 2 runs: 5 to 6 ratings"
    assert [row[1] for row in page.table("The last")] == ["5", "6"]


def test_a_history_has_the_last_400_runs() -> None:
    content = b""
    for number in range(405):
        times = dict.fromkeys(("started", "finished"), "2026-11-25T03:00:00Z")
        content = with_runs(content, [{"run_id": str(number), **times, "datasets": {}}])
    assert [run["run_id"] for run in read_history(content)] == [str(number) for number in range(5, 405)]


@pytest.mark.parametrize("damage", [b'{"run_id": "half', b"[1]\n", b"\x00\xff\n", b"\n", b"[" * 100_000])
def test_a_damaged_line_is_left_out_and_the_others_are_kept(
    publish: Publish, input_path: Path, output_path: Path, damage: bytes
) -> None:
    publish("sail", input_path, output_path)
    first = history_of(output_path)
    with (output_path / HISTORY).open("ab") as file:
        file.write(damage)
    publish("sail", input_path, output_path)
    assert history_of(output_path) == [*first, history_of(output_path)[-1]]
    assert len((output_path / HISTORY).read_bytes().splitlines()) == 2


@pytest.mark.parametrize(
    "damage",
    [{"started": 5}, {"finished": "2026-13-45"}, {"run_id": None}, {"datasets": []}, {"datasets": {"ratings": None}},
     {"datasets": {"ratings": {"rows": "many"}}}],
)  # fmt: skip
def test_a_line_with_nonsense_in_it_is_left_out(damage: dict[str, Any]) -> None:
    times = dict.fromkeys(("started", "finished"), "2026-11-25T03:00:00Z")
    run = {"run_id": "1", **times, "datasets": {"ratings": {"rows": 6}}}
    assert read_history(with_runs(b"", [run])) == [run]
    assert read_history(json.dumps(run | damage).encode() + b"\n" + json.dumps(run).encode()) == [run]


@pytest.mark.parametrize("lines_lost", [1, 2, 3])
def test_lost_lines_are_written_again_from_the_manifests(
    publish: Publish, input_path: Path, output_path: Path, lines_lost: int
) -> None:
    # given a history that lost its last lines, as by a late write of another run
    for _ in range(3):
        publish("sail", input_path, output_path)
    whole = (output_path / HISTORY).read_bytes()
    (output_path / HISTORY).write_bytes(b"".join(whole.splitlines(keepends=True)[:-lines_lost]))
    # then the next run that publishes writes them again
    publish("sail", input_path, output_path)
    assert (output_path / HISTORY).read_bytes().startswith(whole)
    assert [run["number"] for run in history_of(output_path)] == [1, 2, 3, 4]


def test_settled_number_has_no_line(publish: Publish, input_path: Path, output_path: Path) -> None:
    # given a run that died while it published, so that its number was taken by the result before
    publish("sail", input_path, output_path)
    write_lease(Disk(output_path), GONE)
    publish("sail", input_path, output_path)
    assert [run["number"] for run in history_of(output_path)] == [1, 3]


def test_a_run_that_is_refused_or_fails_leaves_no_line(
    publish: Publish, run_main: Main, input_path: Path, output_path: Path
) -> None:
    publish("sail", input_path, output_path)
    before = history_of(output_path)
    write_input(input_path, rating_lines(RATINGS) + b"bad\n", movie_lines([(10, "First (2001)", "Drama")]))
    assert run_main("sail", "--input_path", input_path, "--output_path", output_path)[0] == 3
    assert history_of(output_path) == before
    assert before[0]["run_id"] != GONE
