"""A result that stands: it makes a run needless, or refuses one that has far fewer rows."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import movielens_pipeline as job
from movielens.contract import BadInputError
from movielens.earlier import DERIVED, require_ratio
from movielens.publishing.publication import Publication
from movielens.storage.s3 import S3Storage
from tests.support.inputs import RATINGS, generate, rating_lines, write_input
from tests.support.jobs import GONE, Main, Publish
from tests.support.journals import generations, write_lease
from tests.support.places import Bucket, Disk
from tests.support.results import assert_equal_by_check, manifest_of
from tests.support.s3server import S3Server


def is_unchanged(said: str) -> bool:
    """Whether a run said that there was nothing to do."""
    return "unchanged: " in said


@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_nothing_is_done_where_the_result_is_of_this_very_input(
    engine: str, publish: Publish, input_path: Path, output_path: Path, where: str, request: pytest.FixtureRequest
) -> None:
    given: Any = input_path
    place: Disk | Bucket = Disk(output_path)
    if where == "bucket":
        place = request.getfixturevalue("bucket_path")
        server: S3Server = request.getfixturevalue("s3_server")
        given = server.upload(input_path, f"{input_path.parent.name}-given")
    publish(engine, given, place.address)
    earlier = {name: place.read(name) for name in place.files()}
    # when the next night has the same input, then nothing is touched
    said = publish(engine, given, place.address, "--if_changed")
    [line] = said.splitlines()
    run_id = json.loads(earlier["_manifests/1.json"] or b"")["run_id"]
    assert line == f"unchanged: {place.address} is of this very input already (run {run_id})"
    assert {name: place.read(name) for name in place.files()} == earlier


@pytest.mark.parametrize("on", ["sail", pytest.param("spark", marks=pytest.mark.thorough)])
def test_in_a_bucket_the_same_bytes_are_the_same_input_whenever_they_were_put_there(
    publish: Publish, input_path: Path, bucket_path: Bucket, s3_server: S3Server, on: str
) -> None:
    given = s3_server.upload(input_path, f"{input_path.parent.name}-again")
    publish(on, given, bucket_path.address)

    def put_again(since: float) -> float:
        s3_server.upload(input_path, f"{input_path.parent.name}-again")
        return max(entry.modified for entry in S3Storage().entries(given)) - since

    before = put_again(0.0)
    while not put_again(before):  # the time of an object has whole seconds
        time.sleep(0.1)
    assert is_unchanged(publish(on, given, bucket_path.address, "--if_changed"))
    # and as many other bytes are another one
    (input_path / "ratings.dat").write_bytes(rating_lines([(9, *rest) for _, *rest in RATINGS]))
    put_again(0.0)
    assert not is_unchanged(publish(on, given, bucket_path.address, "--if_changed"))


def test_no_engine_is_started_in_vain(
    engine: str, publish: Publish, input_path: Path, output_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(engine, input_path, output_path)
    monkeypatch.setattr(job, "get_spark_session", lambda _: pytest.fail("it was started"))
    arguments = ["--engine", engine, "--input_path", str(input_path), "--output_path", str(output_path)]
    assert job.main([*arguments, "--if_changed"]) == 0


@pytest.mark.thorough
def test_of_an_archive_it_is_the_archive_that_counts(
    engine: str, publish: Publish, tmp_path: Path, output_path: Path
) -> None:
    generate(tmp_path / "release", "--zip")
    [archive] = tmp_path.rglob("*.zip")
    publish(engine, archive, output_path)
    assert is_unchanged(publish(engine, archive, output_path, "--if_changed"))
    archive.touch()
    assert not is_unchanged(publish(engine, archive, output_path, "--if_changed"))


def changed(name: str) -> Callable[[Path, Path], object]:
    """One of the doubts: given the input and the output it makes the one or the other another."""

    def change_manifest(output: Path, **fields: object) -> None:
        (output / "_manifests" / "1.json").write_text(json.dumps({**manifest_of(output), **fields}))

    def first_file(output: Path) -> Path:
        return output / manifest_of(output)["datasets"]["ratings"]["files"][0]

    def overwrite(given: Path, _: Path) -> None:
        # as many bytes, at the same time of change
        file = given / "ratings.dat"
        before = file.stat()
        file.write_bytes(rating_lines([(9, *rest) for _, *rest in RATINGS]))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    def lengthen(_: Path, output: Path) -> None:
        with first_file(output).open("ab") as file:
            file.write(b"more")

    doubts: dict[str, Callable[[Path, Path], object]] = {
        "a_longer_input": lambda given, _: (given / "ratings.dat").write_bytes(rating_lines(RATINGS) * 2),
        "as_many_other_bytes": overwrite,
        "another_time": lambda given, _: (given / "movies.dat").touch(),
        "a_file_is_missing": lambda _, output: first_file(output).unlink(),
        "a_file_of_another_size": lengthen,
        "another_version": lambda _, output: change_manifest(output, job_version="0.0.1"),
        "an_older_schema": lambda _, output: change_manifest(output, schema_version=0),
        "a_manifest_of_before": lambda _, output: change_manifest(output, input_files=[], max_rejects=None),
        "no_manifests": lambda _, output: shutil.rmtree(output / "_manifests"),
        "half_a_manifest": lambda _, output: (output / "_manifests" / "2.json").write_bytes(b'{"run'),
        "a_file_beside": lambda _, output: shutil.copy(first_file(output), output / "ratings/1-0badcafe-again.parquet"),
        "a_lease": lambda _, output: write_lease(Disk(output), GONE),
        "half_a_journal": lambda _, output: (output / "_journal" / "7.json").write_bytes(b'{"gen'),
    }
    return doubts[name]


DOUBTS = [
    "a_longer_input", "as_many_other_bytes", "another_time", "a_file_is_missing", "a_file_of_another_size",
    "another_version", "an_older_schema", "a_manifest_of_before", "no_manifests", "half_a_manifest", "a_file_beside",
    "a_lease", "half_a_journal",
]  # fmt: skip


@pytest.mark.parametrize("doubt", DOUBTS)
def test_at_any_doubt_all_is_done_anew(publish: Publish, input_path: Path, output_path: Path, doubt: str) -> None:
    publish("sail", input_path, output_path)
    changed(doubt)(input_path, output_path)
    assert not is_unchanged(publish("sail", input_path, output_path, "--if_changed"))
    assert_equal_by_check(input_path, output_path)


def test_another_option_or_engine_means_a_full_run(publish: Publish, input_path: Path, output_path: Path) -> None:
    publish("sail", input_path, output_path)
    assert not is_unchanged(publish("sail", input_path, output_path, "--if_changed", "--max_rejects", 1))
    assert is_unchanged(publish("sail", input_path, output_path, "--if_changed", "--max_rejects", 1))
    assert not is_unchanged(publish("spark", input_path, output_path, "--if_changed", "--max_rejects", 1))


def test_a_first_run_and_a_wrong_input_are_what_they_are_without_the_option(
    run_main: Main, input_path: Path, output_path: Path, tmp_path: Path
) -> None:
    arguments = ("--output_path", output_path, "--if_changed")
    assert run_main("sail", "--input_path", input_path, *arguments)[0] == 0
    status, said = run_main("sail", "--input_path", tmp_path / "nowhere", *arguments)
    assert (status, f"there is no {tmp_path}/nowhere" in said) == (3, True)
    assert_equal_by_check(input_path, output_path)


def test_what_is_not_this_job_s_is_refused_as_ever(
    run_main: Main, publish: Publish, input_path: Path, output_path: Path
) -> None:
    publish("sail", input_path, output_path)
    (output_path / "movies" / "theirs.parquet").write_bytes(b"precious")
    status, said = run_main("sail", "--input_path", input_path, "--output_path", output_path, "--if_changed")
    assert (status, "theirs.parquet is not of this job" in said) == (2, True)


# ---------------------------------------------------------------------------------------------------------------
# Far fewer rows


@pytest.mark.parametrize(
    ("ratio", "ratings", "line"),
    [
        ("0.9", RATINGS[:5], "ratings has 5 rows, fewer than 0.9 times the 6 of the result before"),
        ("0.8", RATINGS[:5], None),
        ("1", RATINGS[:5], "ratings has 5 rows, fewer than 1.0 times the 6 of the result before"),
        ("1", RATINGS, None),
        ("0.5", [*RATINGS[:4], *RATINGS[:4]], "top_movies_per_user has 3 rows, fewer than 0.5 times"),
    ],
)
def test_a_result_that_is_far_smaller_is_not_published(
    engine: str, publish: Publish, run_main: Main, tmp_path: Path, output_path: Path, ratio: str,
    ratings: list[tuple[int, int, float, int]], line: str | None,
) -> None:  # fmt: skip
    more_users = [(user, 10, 3.0, 1) for user in (3, 4)] if "top" in (line or "") else []
    first = write_input(tmp_path / "first", rating_lines([*RATINGS, *more_users]))
    publish("sail", first, output_path)
    earlier = {path: path.read_bytes() for path in output_path.rglob("*") if path.is_file()}
    # given an input that is valid line by line, and shorter
    second = write_input(tmp_path / "second", rating_lines(ratings))
    status, said = run_main(engine, "--input_path", second, "--output_path", output_path, "--min_ratio", ratio)
    assert status == (3 if line else 0), said
    if line:
        *_, last = said.splitlines()
        assert f"error: {line}" in last
        assert last.endswith("run without --min_ratio; nothing was published")
        assert {path: path.read_bytes() for path in output_path.rglob("*") if path.is_file()} == earlier
    else:
        assert_equal_by_check(second, output_path)


def test_exactly_the_ratio_is_enough_also_where_floats_say_otherwise() -> None:
    before = dict.fromkeys(DERIVED, 100)
    for percent in range(1, 101):
        require_ratio(percent / 100, dict.fromkeys(DERIVED, percent), before)
        with pytest.raises(BadInputError, match=f"{percent - 1} rows?, fewer than"):
            require_ratio(percent / 100, dict.fromkeys(DERIVED, percent - 1), before)


def test_fewer_rejects_are_no_loss_and_a_first_result_has_nothing_to_be_smaller_than(
    publish: Publish, tmp_path: Path, output_path: Path
) -> None:
    first = write_input(tmp_path / "first", rating_lines(RATINGS) + b"bad\n")
    publish("sail", first, output_path, "--max_rejects", 1, "--min_ratio", 1)
    publish("sail", write_input(tmp_path / "second"), output_path, "--min_ratio", 1)
    assert "rejects" not in manifest_of(output_path)["datasets"]


def test_what_another_run_published_meanwhile_is_the_result_before(
    publish: Publish, run_main: Main, tmp_path: Path, output_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given an output without a result, where another run publishes six ratings while this one computes five
    other = tmp_path / "other"
    publish("sail", write_input(tmp_path / "six"), other)
    publish_as_ever = Publication.publish

    def publish_late(publication: Publication, *arguments: Any) -> Any:
        monkeypatch.setattr(Publication, "publish", publish_as_ever)
        publish("sail", tmp_path / "six", output_path)
        return publish_as_ever(publication, *arguments)

    monkeypatch.setattr(Publication, "publish", publish_late)
    five = write_input(tmp_path / "five", rating_lines(RATINGS[:5]))
    status, said = run_main("sail", "--input_path", five, "--output_path", output_path, "--min_ratio", 0.9)
    # then it is held against that
    assert (status, "5 rows, fewer than 0.9 times the 6" in said) == (3, True)
    assert_equal_by_check(tmp_path / "six", output_path)
    assert len(generations(Disk(output_path))) == 1


@pytest.mark.parametrize("ratio", ["0", "-1", "1.1", "nan", "few"])
def test_a_ratio_that_is_none_is_a_usage_error(run_main: Main, input_path: Path, output_path: Path, ratio: str) -> None:
    with pytest.raises(SystemExit) as left:
        run_main("sail", "--input_path", input_path, "--output_path", output_path, f"--min_ratio={ratio}")
    assert left.value.code == 2
