"""The page to look at: its numbers are those of plain Python, and a real browser shows it to everybody."""

from __future__ import annotations

import io
import json
import math
import os
import random
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, expect

import report
from page import figures
from page.published import TRIES
from page.text import NOTHING
from tests.support.inputs import MOVIES, generate, movie_lines, rating_lines, real_data, write_input
from tests.support.jobs import Publish
from tests.support.numbered import commit, manifest_at, newest, number_result, unnumber_result, write_manifest
from tests.support.pages import Opened, Parsed, chromium
from tests.support.places import Bucket, Disk, Place
from tests.support.project import ROOT, copy_project
from tests.support.results import manifest_of
from tests.support.s3server import FaultyProxy

pytestmark = pytest.mark.thorough

Rating = tuple[int, int, float, int]
Make = Callable[..., Parsed]

Y2000 = 946_684_800
HOSTILE = [
    "<script>alert('title')</script>",
    '"><img src="http://example.invalid/x" onerror="alert(1)">',
    "{{ 7 * 7 }} {% raw %} </table></script>",
    "\u202egnp.eivom &amp; \u0007 bell",
    "A" * 5000,
]


@pytest.fixture
def make(output_path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Make:
    """Makes the page of what is at the output path, and reads it."""

    def run(output: Path | str = output_path) -> Parsed:
        html = tmp_path / "page.html"
        assert report.main(["--output_path", str(output), "--html", str(html)]) == 0
        assert capfd.readouterr().out.splitlines()[-1] == str(html)
        return Parsed(html.read_text())

    return run


@pytest.fixture
def refused(output_path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Exit status and message where no page can be made."""

    def run(*arguments: object) -> tuple[int, str]:
        capfd.readouterr()
        given = arguments or ("--output_path", output_path, "--html", tmp_path / "page.html")
        status = report.main([str(argument) for argument in given])
        assert not (tmp_path / "page.html").exists()
        said = capfd.readouterr()
        assert said.out == ""
        return status, said.err

    return run


def percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 or not share else f"{100 * share:.1f} %"


def marks(page: Parsed) -> dict[str, tuple[str, str]]:
    """Of each check its mark and what was found."""
    rows = page.table("checks")
    return {what.partition(" fine:")[0].strip(): (mark.split()[1], found) for mark, what, found in rows}


# ---------------------------------------------------------------------------------------------------------------
# Numbers


def odd_ratings() -> list[Rating]:
    """Ratings with all that a check looks for: unknown movies, repetitions, odd times and stars, users with few."""
    chance = random.Random(1)
    users = [chance.choice((1, 2, 3, 5, 8, 13)) for _ in range(120)]
    rows = [
        (user, chance.randint(1, 30) ** 2 // 12 + 1, chance.choice((1.0, 2.5, 3.0, 4.0, 4.0, 5.0)),
         Y2000 + chance.randint(0, 5 * 365 * 86_400))
        for user, many in enumerate(users, 1) for _ in range(many)
    ]  # fmt: skip
    return [*rows, *rows[:4], (1, 1, 3.25, Y2000), (2, 1, 4.0, 5), (3, 1, 4.0, -5), (4, 2, 4.0, 2**62)]


ODD = odd_ratings()
ODD_MOVIES = [
    (movie, f"Movie {movie}", "|".join(("Drama", "War", "Comedy")[: movie % 3 + 1])) for movie in range(1, 71)
]
KNOWN = {movie for movie, *_ in ODD_MOVIES}
MEAN = fmean(stars for _, _, stars, _ in ODD)
OF_USER: dict[int, list[Rating]] = defaultdict(list)
OF_MOVIE: dict[int, list[float]] = defaultdict(list)
for odd in ODD:
    OF_USER[odd[0]].append(odd)
    OF_MOVIE[odd[1]].append(odd[2])


def title_of(movie: int) -> str:
    return f"Movie {movie}" if movie in KNOWN else f"movie {movie}, not in movies"


@pytest.fixture
def odd_page(publish: Publish, tmp_path: Path, make: Make) -> Parsed:
    """The page of the odd ratings, and of a line that is rejected."""
    folder = write_input(tmp_path / "in", rating_lines(ODD) + b"1::2\n", movie_lines(ODD_MOVIES))
    publish("sail", folder, tmp_path / "output", "--max_rejects", 1)
    return make()


def test_sizes_and_marks_are_those_of_plain_python(odd_page: Parsed) -> None:
    def found(count: int, total: int) -> str:
        return f"{count} ({percent(count / total)})"

    size, users = len(ODD), len(OF_USER)
    tops = sum(min(3, len(rows)) for rows in OF_USER.values())
    assert odd_page.headings[0] == f"{size} ratings of 70 movies by {users} users"
    assert [row[:2] for row in odd_page.table("What was published")] == [
        ["ratings", str(size)], ["movies", "70"], ["movies_with_stats", "70"], ["top_movies_per_user", str(tops)],
        ["rejects", "1"],
    ]  # fmt: skip
    unknown = sum(movie not in KNOWN for _, movie, *_ in ODD)
    repeated = size - len({(user, movie) for user, movie, *_ in ODD})
    few = sum(len(rows) < 3 for rows in OF_USER.values())
    assert marks(odd_page) == {
        "Rows in the files": ("fine", f"{size + 140 + tops + 1:,}"),
        "Datasets fit each other": ("fine", "yes"),
        "Ratings": ("fine", str(size)),
        "Movies": ("fine", "70"),
        "Users": ("fine", str(users)),
        "Density: ratings of all that could be": ("fine", percent(size / users / 70)),
        "Movies nobody rated": ("wrong", found(len(KNOWN - OF_MOVIE.keys()), 70)),
        "Ratings of unknown movies": ("wrong", found(unknown, size)),
        "Ratings by a user who rated the movie before": ("wrong", found(repeated, size)),
        "Users with fewer than three ratings": ("look", found(few, users)),
        "Ratings before 1995 or later than today": ("look", found(3, size)),
        "Ratings that are not half or whole stars": ("look", found(1, size)),
        "Rejected lines": ("look", found(1, size + 71)),
    }
    assert odd_page.heading("checks") == "Of 13 checks 3 are wrong and 4 deserve a look"


def test_stars_and_times_are_those_of_plain_python(odd_page: Parsed) -> None:
    given = Counter(math.floor(2 * stars + 0.5) for _, _, stars, _ in ODD)
    high = sum(stars >= 4 for _, _, stars, _ in ODD)
    assert odd_page.table("stars are given most") == [
        [f"{half / 2:g}", str(given[half]), percent(given[half] / len(ODD))] for half in range(1, 11)
    ]
    assert odd_page.heading("four stars") == (
        f"{percent(high / len(ODD))} of the ratings are four stars or more; the mean is {MEAN:.2f}"
    )
    years, week = defaultdict(list), Counter[tuple[int, int]]()
    for *_, stars, time in ODD:
        if Y2000 <= time < 2**40:
            at = datetime.fromtimestamp(time, timezone.utc)
            years[at.year].append(stars)
            week[at.hour, at.weekday()] += 1
    assert odd_page.table("saw the most ratings") == [
        [str(year), str(len(years[year])), f"{fmean(years[year]):.2f}"] for year in sorted(years)
    ]
    assert odd_page.table("The mean") == odd_page.table("saw the most ratings")
    assert odd_page.table("busiest hour") == [
        [f"{hour:02}:00", *(str(week[hour, day]) for day in range(7))] for hour in range(24)
    ]


def test_how_ratings_are_spread_is_as_plain_python_says(odd_page: Parsed) -> None:
    shares = []
    for noun, counts in (("user", [*map(len, OF_USER.values())]), ("movie", [*map(len, OF_MOVIE.values())])):
        doublings = Counter(count.bit_length() - 1 for count in counts)
        expected = [str(doublings[place]) for place in range(min(doublings), max(doublings) + 1)]
        assert [row[1] for row in odd_page.table(f"Half of the {noun}s")] == expected
        shares.append(percent(sum(sorted(counts, reverse=True)[: -(-len(counts) // 100)]) / len(ODD)))
    assert odd_page.heading("of users gave") == (
        f"1 % of users gave {shares[0]} of the ratings; one movie got {shares[1]}"
    )
    genres: dict[str, list[float]] = defaultdict(list)
    movies = Counter[str]()
    for movie, _, names in ODD_MOVIES:
        for name in names.split("|"):
            genres[name] += OF_MOVIE.get(movie, [])
            movies[name] += 1
    most = max(genres, key=lambda name: len(genres[name]))
    best = max(genres, key=lambda name: fmean(genres[name]))
    assert odd_page.table(f"{most} is rated most, {best} best") == [
        [name, str(movies[name]), str(len(genres[name])), f"{fmean(genres[name]):.2f}"]
        for name in sorted(genres, key=lambda name: -len(genres[name]))
    ]


def test_the_lists_of_movies_are_those_of_plain_python(odd_page: Parsed) -> None:
    enough = min(50, sorted(map(len, OF_MOVIE.values()))[-(-3 * len(OF_MOVIE) // 4) - 1])

    def ranked(value: Callable[[list[float]], float], *, least: int = 1) -> list[list[str]]:
        rows = sorted(
            ((value(of), len(of), -movie) for movie, of in OF_MOVIE.items() if len(of) >= least), reverse=True
        )
        return [
            [title_of(-movie), str(size), f"{fmean(OF_MOVIE[-movie]):.2f}", f"{found:.2f}"]
            for found, size, movie in rows[:10]
        ]

    assert odd_page.table("Rated most") == [row[:3] for row in ranked(len)]
    assert odd_page.table("Best by weighted mean") == ranked(lambda of: (sum(of) + enough * MEAN) / (len(of) + enough))
    assert odd_page.table("Most disputed") == ranked(pstdev, least=enough)


def test_the_top_three_are_those_of_plain_python(odd_page: Parsed) -> None:
    best = {user: sorted(rows, key=lambda row: (-row[2], -row[3], row[1]))[:3] for user, rows in OF_USER.items()}
    users = Counter(movie for rows in best.values() for movie in {row[1] for row in rows})
    expected = sorted(users, key=lambda movie: (-users[movie], -len(OF_MOVIE[movie]), movie))[:10]
    assert [row[:2] for row in odd_page.table("Most often in a top three")] == [
        [title_of(movie), str(users[movie])] for movie in expected
    ]
    assert odd_page.heading("are in somebody").startswith(f"{len(users)} movies, {percent(len(users) / 70)} of all")
    # given users from the busiest to the quietest
    order = sorted(OF_USER, key=lambda user: (-len(OF_USER[user]), user))
    rows = []
    for user in (order[step * (len(order) - 1) // 4] for step in range(5)):
        many = len(OF_USER[user])
        rows.append([f"user {user}, {many} rating{'s' if many > 1 else ''}"])
        rows += [[str(rank), title_of(movie), f"{stars:g}"] for rank, (_, movie, stars, _) in enumerate(best[user], 1)]
    assert [row[:3] for row in odd_page.table("The top three of 5 users")] == rows


def test_the_page_of_a_real_release_says_what_its_readme_says(publish: Publish, output_path: Path, make: Make) -> None:
    publish("sail", real_data("ml-1m"), output_path)
    page = make()
    assert page.headings[0] == "1,000,209 ratings of 3,883 movies by 6,040 users"
    assert page.heading("checks") == "All 13 checks are fine"
    assert page.table("Rated most")[0] == ["American Beauty (1999)", "3,428", "4.32"]


def test_both_engines_have_one_page(publish: Publish, input_path: Path, tmp_path: Path, make: Make) -> None:
    for engine in ("spark", "sail"):
        publish(engine, input_path, tmp_path / engine)
    one, other = make(tmp_path / "spark"), make(tmp_path / "sail")
    assert one.headings == other.headings
    different = [name for name in one.tables if one.tables[name] != other.tables[name]]
    assert set(different) <= {"What was published"}  # sizes and files


def test_rejects_are_shown_by_reason_with_examples(publish: Publish, tmp_path: Path, make: Make) -> None:
    ratings = rating_lines([(1, 10, 5.0, 100)]) + b"<b>::x\n1::10::9::1\n1::11::9::1\n"
    publish("sail", write_input(tmp_path / "in", ratings), tmp_path / "output", "--max_rejects", 3)
    page = make()
    assert "3 lines were rejected" in page.headings
    assert page.table("Why lines were rejected") == [
        ["rating not in 0.5..5", "ratings", "2", "1::10::9::1\n1::11::9::1"],
        ["fields missing", "ratings", "1", "<b>::x"],
    ]


@pytest.mark.parametrize(
    ("ratings", "movies", "headings"),
    [
        ([(7, 10, 5.0, Y2000)], MOVIES, ["1 rating of 5 movies by 1 user", "One user gave 100 % of the ratings"]),
        ([(1, 99, 3.0, 5)], MOVIES[:1], ["1 rating of 1 movie by 1 user", "No genre is rated"]),
        ([(1, 10, 4.0, Y2000), (2, 10, 3.0, Y2000)], MOVIES, ["First (2001) is rated most and best"]),
    ],
    ids=["one user", "no rating of a known movie nor of a possible time", "whole stars within one hour"],
)
def test_a_small_or_strange_result_has_a_page(
    publish: Publish, tmp_path: Path, make: Make, ratings: list[Rating], movies: list[Any], headings: list[str]
) -> None:
    folder = write_input(tmp_path / "in", rating_lines(ratings), movie_lines(movies))
    publish("sail", folder, tmp_path / "output")
    page = make()
    for heading in headings:
        assert any(heading in found for found in page.headings), page.headings


def test_what_a_later_manifest_and_a_history_know_is_shown(
    publish: Publish, input_path: Path, output_path: Path, make: Make
) -> None:
    publish("sail", input_path, output_path)
    unnumber_result(Disk(output_path))
    # given a manifest of a first result, as earlier versions wrote it, then nothing is said of such
    manifest = manifest_of(output_path)
    manifest.pop("previous")
    for file in manifest["input_files"]:
        file.pop("accounted", None)
    (output_path / "_manifest.json").write_text(json.dumps(manifest))
    page = make()
    assert "No line of the input was rejected" in page.headings
    assert [len(row) for row in page.table("What was read")] == [2, 2]
    assert [len(row) for row in page.table("What was published")] == [4] * 4
    # given what later versions write, and lines of a history, one of them damaged
    for file in manifest["input_files"]:
        file["accounted"] = True
    (output_path / "_manifest.json").write_text(json.dumps(manifest))
    runs = [
        {"run_id": str(day), "started": f"2026-11-0{day}T03:00:00Z", "finished": f"2026-11-0{day}T03:00:0{day}Z",
         "datasets": {"ratings": {"rows": day}, "movies": {"rows": 5}}}
        for day in (1, 2, 4)
    ]  # fmt: skip
    lines = [*(json.dumps(run) for run in runs), '{"half a line', json.dumps({**manifest})]
    (output_path / "_history.jsonl").write_text("\n".join(lines))
    page = make()
    assert "Every byte of the input is accounted for" in page.headings
    assert [row[2] for row in page.table("What was read")] == ["all", "all"]
    assert [row[:4] for row in page.table("What was published")][:3] == [
        ["ratings", "6", "4", "+2 (+50 %)"], ["movies", "5", "5", "none"], ["movies_with_stats", "5", NOTHING, NOTHING],
    ]  # fmt: skip
    assert page.heading("The last") == "The last 4 runs: 1 to 6 ratings"
    assert [row[1] for row in page.table("The last")] == ["1", "2", "4", "6"]
    assert page.table("They took")[2] == ["2026-11-04T03:00:04Z", "4", "4"]
    # given a line of a later run, too, which is none of a result before
    (output_path / "_history.jsonl").write_text("\n".join([*lines, json.dumps({**runs[0], "run_id": "later"})]))
    assert make().table("What was published")[0][2] == "4"


def test_the_change_from_the_result_before_is_shown(
    publish: Publish, input_path: Path, output_path: Path, make: Make
) -> None:
    publish("sail", input_path, output_path)
    (input_path / "ratings.dat").write_bytes(rating_lines([(1, 10, 5.0, 100), (2, 10, 4.0, 100), (2, 11, 4.0, 100)]))
    publish("sail", input_path, output_path)
    assert [row[:4] for row in make().table("What was published")] == [
        ["ratings", "3", "6", "\u22123 (\u221250 %)"], ["movies", "5", "5", "none"],
        ["movies_with_stats", "5", "5", "none"], ["top_movies_per_user", "3", "5", "\u22122 (\u221240 %)"],
    ]  # fmt: skip


def test_a_result_in_a_bucket_has_the_same_page(
    publish: Publish, input_path: Path, output_path: Path, bucket_path: Bucket, make: Make
) -> None:
    publish("sail", input_path, output_path)
    bucket_path.copy_of(output_path)
    here, there = make(), make(bucket_path.address)
    assert here.tables == there.tables


# ---------------------------------------------------------------------------------------------------------------
# Where there is no page


def test_no_result_is_one_line_and_status_3(
    output_path: Path, bucket_path: Bucket, refused: Callable[..., tuple[int, str]]
) -> None:
    line = f"report: error: {output_path} holds no result; run the job first\n"
    assert refused() == (3, line)
    output_path.mkdir()
    assert refused() == (3, line)
    (output_path / "_manifests").mkdir()
    assert refused() == (3, line)
    there = bucket_path.address
    assert refused("--output_path", there) == (3, f"report: error: {there} holds no result; run the job first\n")


def test_a_damaged_result_is_one_line_and_status_3(
    publish: Publish, input_path: Path, output_path: Path, refused: Callable[..., tuple[int, str]]
) -> None:
    publish("sail", input_path, output_path)
    number_result(Disk(output_path))
    file = output_path / manifest_of(output_path)["datasets"]["movies"]["files"][0]
    content = file.read_bytes()
    for damaged in (b"no Parquet", None):
        file.write_bytes(damaged) if damaged else file.unlink()
        status, said = refused()
        assert status == 3
        assert said.startswith(f"report: error: {output_path} cannot be read: ")
        assert str(file) in said
        assert said.count("\n") == 1
    file.write_bytes(content)
    for manifest in (newest(Disk(output_path)), "_manifest.json"):
        (output_path / manifest).write_text('{"run_id')
    line = f"report: error: {output_path}/{newest(Disk(output_path))} is damaged; run the job again\n"
    assert refused() == (3, line)


def test_page_names_the_format_of_the_input(publish: Publish, tmp_path: Path, output_path: Path, make: Make) -> None:
    generate(tmp_path / "release", "--format", "csv")
    publish("sail", tmp_path / "release", output_path)
    assert ", format csv" in make().text


def test_a_first_result_that_is_being_published_is_one_line_and_status_4(
    publish: Publish, input_path: Path, output_path: Path, refused: Callable[..., tuple[int, str]]
) -> None:
    publish("sail", input_path, output_path)
    unnumber_result(Disk(output_path))
    line = (
        f"report: error: {output_path} holds no result yet: a run is publishing the first one, or was killed; "
        "try again, or run the job\n"
    )
    (output_path / "_manifest.json").unlink()
    assert refused() == (4, line)


# ---------------------------------------------------------------------------------------------------------------
# Which result has the page


@pytest.fixture
def published(publish: Publish, input_path: Path, output_path: Path) -> Path:
    publish("sail", input_path, output_path)
    number_result(Disk(output_path))
    return output_path


@pytest.fixture
def newer(publish: Publish, tmp_path: Path) -> Path:
    """A result of one rating."""
    publish("sail", write_input(tmp_path / "newer", rating_lines([(1, 10, 4.0, 60)])), tmp_path / "of newer")
    return tmp_path / "of newer"


@pytest.fixture(params=["disk", "bucket"])
def place(request: pytest.FixtureRequest, published: Path) -> Place:
    """A published result with a numbered manifest."""
    if request.param == "disk":
        return Disk(published)
    bucket: Bucket = request.getfixturevalue("bucket_path")
    bucket.copy_of(published)
    return bucket


OLD, NEW = "6 ratings of 5 movies by 2 users", "1 rating of 5 movies by 1 user"


@pytest.mark.parametrize("copy", [b"{", b"[]", b"of the result before", None])
def test_a_copy_of_the_manifest_is_not_looked_at(place: Place, newer: Path, make: Make, copy: bytes | None) -> None:
    before = place.read("_manifest.json")
    commit(place, newer)
    place.delete("_manifest.json")
    if copy is not None:
        place.write("_manifest.json", before or b"" if b"before" in copy else copy)
    assert make(place.address).headings[0] == NEW


def test_a_result_of_version_0_6_6_has_a_page(place: Place, make: Make) -> None:
    unnumber_result(place)
    assert make(place.address).headings[0] == OLD


@pytest.mark.parametrize("content", [b"", b'{"datasets": ', b"\xff", b"[" * 100_000])
def test_a_manifest_that_is_cut_off_is_skipped(place: Place, make: Make, content: bytes) -> None:
    place.write("_manifests/2000.json", content)
    assert make(place.address).headings[0] == OLD


def test_a_manifest_of_another_program_is_one_line(place: Place, refused: Callable[..., tuple[int, str]]) -> None:
    place.write("_manifests/2000.json", b"[]")
    line = "is not of this job, and is left alone: remove it, or choose another --output_path"
    found = f"report: error: {place.address}/_manifests/2000.json {line}\n"
    assert refused("--output_path", place.address) == (2, found)


def test_a_manifest_without_datasets_is_no_result(place: Place, refused: Callable[..., tuple[int, str]]) -> None:
    name = write_manifest(place, 2000, {**manifest_at(place), "datasets": {}})
    line = f"{place.address} holds no result: {place.address}/{name} lists no dataset; run the job first"
    assert refused("--output_path", place.address) == (3, f"report: error: {line}\n")


def test_what_only_has_the_name_of_a_manifest_is_left_alone(published: Path, make: Make) -> None:
    folder = published / "_manifests"
    os.mkfifo(folder / "2007.json")
    (folder / "2008.json").mkdir()
    (folder / "2009.json").symlink_to(folder / "none")
    (folder / "2010.json").symlink_to("2010.json")
    for name in ("0.json", "02011.json", "2012.json.part", ".2013.json", "2016.json\n"):
        (folder / name).write_bytes(b"[]")
    assert make().headings[0] == OLD


def test_objects_below_the_name_of_a_manifest_are_left_alone(published: Path, bucket_path: Bucket, make: Make) -> None:
    bucket_path.copy_of(published)
    for name in ("2007.json/a", "2008.json/2009.json"):
        bucket_path.write(f"_manifests/{name}", b"[]")
    assert make(bucket_path.address).headings[0] == OLD


def test_the_highest_of_thousands_of_numbers_has_the_page(published: Path, newer: Path, make: Make) -> None:
    place = Disk(published)
    manifest = manifest_at(place)
    for number in range(2, 3000):
        write_manifest(place, number, manifest)
    commit(place, newer)
    assert make().headings[0] == NEW


# ---------------------------------------------------------------------------------------------------------------
# While others publish


def before_measuring(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object], times: int) -> None:
    """Has something happen when files were found, and before they are read."""
    measure, left = figures.measure, iter(range(times))

    def measured(*arguments: Any) -> figures.Figures:
        if next(left, None) is not None:
            happens()
        return measure(*arguments)

    monkeypatch.setattr(figures, "measure", measured)


def test_a_result_that_is_replaced_while_it_is_read_is_read_anew(
    published: Path, newer: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_measuring(monkeypatch, lambda: commit(Disk(published), newer), TRIES - 1)
    assert make().headings[0] == NEW


def test_a_result_that_is_replaced_again_and_again_is_status_4(
    published: Path, newer: Path, refused: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before_measuring(monkeypatch, lambda: commit(Disk(published), newer), 10_000)
    line = f"report: error: {published} was published anew again and again while it was read; try again\n"
    assert refused() == (4, line)


def test_a_result_of_which_all_was_read_is_not_read_anew(
    published: Path, newer: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = figures.measure

    def measured(*arguments: Any) -> figures.Figures:
        found = measure(*arguments)
        commit(Disk(published), newer)
        return found

    monkeypatch.setattr(figures, "measure", measured)
    assert make().headings[0] == OLD


def test_a_run_of_the_job_while_the_page_is_made_does_no_harm(
    publish: Publish, published: Path, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    unnumber_result(Disk(published))
    folder = write_input(tmp_path / "newer", rating_lines([(1, 10, 4.0, 60)]))
    before_measuring(monkeypatch, lambda: publish("sail", folder, published), 1)
    assert make().headings[0] == NEW


def test_a_result_in_a_bucket_may_be_replaced_at_any_request(
    published: Path, newer: Path, bucket_path: Bucket, make: Make, proxy: FaultyProxy
) -> None:
    def commit_before(moment: int) -> None:
        def fault(number: int, *_: object) -> None:
            if number == moment:
                commit(bucket_path, newer)

        proxy.reset(fault)

    moment, headings = 0, []
    while len(proxy.requests) > moment or not moment:
        bucket_path.copy_of(published)
        commit_before(moment)
        headings.append(make(bucket_path.address).headings[0])
        moment += 1
    assert headings == sorted(headings)  # the new one, then the one that was read before
    assert set(headings) == {NEW, OLD}


def test_what_cannot_be_is_one_line(
    publish: Publish, input_path: Path, output_path: Path, tmp_path: Path, refused: Callable[..., tuple[int, str]]
) -> None:
    assert refused("--output_path", "hdfs://host/folder") == (
        2, "report: error: hdfs://host/folder is neither a folder nor s3://bucket/folder\n"
    )  # fmt: skip
    publish("sail", input_path, output_path)
    assert refused("--output_path", output_path, "--html", input_path / "movies.dat" / "page.html") == (
        1, f"report: error: {input_path}/movies.dat/page.html cannot be written: not a directory\n"
    )  # fmt: skip
    os.mkfifo(tmp_path / "pipe.html")
    assert refused("--output_path", output_path, "--html", tmp_path / "pipe.html") == (
        1, f"report: error: {tmp_path}/pipe.html cannot be written: it is no file\n"
    )  # fmt: skip
    (tmp_path / "folder.html").mkdir()
    status, said = refused("--output_path", output_path, "--html", tmp_path / "folder.html")
    assert (status, said) == (1, f"report: error: {tmp_path}/folder.html cannot be written: is a directory\n")
    assert not list(tmp_path.glob("*.part"))


def test_the_script_finds_the_environment_of_the_wrappers(
    publish: Publish, input_path: Path, output_path: Path, tmp_path: Path
) -> None:
    # given a Python that has none of the packages
    publish("sail", input_path, output_path)
    clone = copy_project(tmp_path / "a clone")

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-S", clone / "report.py", "--output-path", output_path]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = run()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("report: error: this Python has no boto3, duckdb and jinja2; ")
    assert done.stderr.count("\n") == 1
    # when the environment is there, then it is used
    (clone / ".venv").symlink_to(sys.prefix)
    done = run()
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path}/report.html\n", "")


# ---------------------------------------------------------------------------------------------------------------
# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def bundled(publish: Publish, output_path: Path, make: Make, tmp_path: Path) -> Path:
    """The page of the bundled dataset."""
    publish("sail", ROOT / "dataset", output_path)
    make()
    return tmp_path / "page.html"


@pytest.fixture
def hostile(publish: Publish, tmp_path: Path, make: Make) -> Path:
    """The page of movies with titles, genres and paths that would be markup, and of rejected lines that would, too."""
    movies = [(number, title, f"<i>{number}</i>|Drama") for number, title in enumerate(HOSTILE, 10)]
    ratings = [(user, movie, 1.0 + user, Y2000 + user) for movie, *_ in movies for user in range(1, 4)]
    lines = rating_lines(ratings) + b"<script>alert('line')</script>\n"
    folder = write_input(tmp_path / "<b>in", lines, movie_lines(movies))
    publish("sail", folder, tmp_path / "output", "--max_rejects", 1)
    make()
    return tmp_path / "page.html"


def test_foreign_text_is_text(browser: Browser, hostile: Path) -> None:
    # given a browser that would show a dialog, ask for a picture, or complain
    opened = Opened(browser, hostile)
    assert opened.page.title() == "15 ratings of 5 movies by 3 users"
    assert opened.requests == [hostile.as_uri()]
    assert opened.complaints == []
    assert opened.page.evaluate("document.querySelectorAll('script, img, b, i:not(.note i)').length") == 2
    # then titles are shown as they are, but for what is no character and what is too long
    shown = opened.page.locator("#movies .title").all_inner_texts()
    assert {HOSTILE[0], HOSTILE[1], HOSTILE[2], "\u202egnp.eivom &amp; \u2407 bell", "A" * 89 + "…"} <= set(shown)
    assert "<script>alert('line')</script>" in opened.page.locator("#run code").all_inner_texts()
    # also those that the search finds
    opened.page.fill("#query", "onerror")
    expect(opened.page.locator("#found th.title")).to_have_text([HOSTILE[1]])
    opened.page.fill("#query", "alert script")
    expect(opened.page.locator("#found th.title")).to_have_text([HOSTILE[0]])
    assert opened.requests == [hostile.as_uri()]
    assert opened.complaints == []
    opened.close()


def test_nothing_leaves_the_page_and_nothing_is_complained_of(browser: Browser, bundled: Path) -> None:
    opened = Opened(browser, bundled)
    # its own file, and the icon that is in it
    assert {url for url in opened.requests if not url.startswith("data:")} == {bundled.as_uri()}
    assert opened.complaints == []
    # not even what somebody would put into it
    opened.page.evaluate("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}))")
    opened.page.wait_for_event("console", timeout=5000) if not opened.complaints else None
    assert "Content Security Policy" in opened.complaints[0]
    opened.close()


def test_the_page_is_small(bundled: Path) -> None:
    assert bundled.stat().st_size < 150_000


@pytest.mark.parametrize(("width", "scheme"), [(1180, "light"), (1180, "dark"), (390, "light"), (320, "dark")])
def test_the_page_fits_screens_in_light_and_dark(browser: Browser, bundled: Path, width: int, scheme: str) -> None:
    opened = Opened(browser, bundled, width=width, scheme=scheme)
    # then nothing is wider than the screen
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width
    taken = Image.open(io.BytesIO(opened.page.screenshot(full_page=True))).convert("RGB")
    assert taken.width == width
    assert 3000 < taken.height < 15_000
    # and every piece of it shows something, on the ground that was asked for
    ground = taken.getpixel((2, 2))
    assert isinstance(ground, tuple)
    assert sum(ground) < 150 if scheme == "dark" else sum(ground) > 600
    for top in range(0, taken.height - 400, 400):
        colours = taken.crop((0, top, width, top + 400)).getcolors(maxcolors=2**24) or []
        assert len(colours) > 10, f"blank from {top} on"
    # and nothing that is written in a chart overlaps, or leaves it
    assert opened.page.evaluate(OVERLAPS) == []
    opened.close()


OVERLAPS = """() => [...document.querySelectorAll("figure > svg")].flatMap((svg) => {
  const frame = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
  const outside = texts.filter(([, box]) => box.left < frame.left - 8 || box.right > frame.right + 8
    || box.top < frame.top - 1 || box.bottom > frame.bottom + 1);
  const over = texts.filter(([, box], at) => texts.slice(at + 1).some(([, other]) => box.left < other.right
    && other.left < box.right && box.top + 2 < other.bottom && other.top + 2 < box.bottom));
  return [...outside, ...over].map(([text]) => text);
})"""


AXE_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.mark.parametrize(("name", "scheme"), [("hostile", "light"), ("hostile", "dark"), ("bundled", "light")])
def test_people_who_do_not_see_it_or_use_no_mouse_can_read_it(
    browser: Browser, request: pytest.FixtureRequest, name: str, scheme: str
) -> None:
    opened = Opened(browser, request.getfixturevalue(name), scheme=scheme)
    opened.page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    opened.page.fill("#query", "a")
    expect(opened.page.locator("#found")).to_be_visible()
    found = Axe().run(opened.page, options={"runOnly": AXE_RULES})
    assert found.violations_count == 0, found.generate_report()
    opened.close()


def test_a_keyboard_is_enough(browser: Browser, bundled: Path) -> None:
    opened = Opened(browser, bundled)
    reached, focus = [], "document.activeElement"
    for _ in range(60):
        opened.page.keyboard.press("Tab")
        reached.append(opened.page.evaluate(f"{focus}.tagName + ' ' + {focus}.textContent.trim()"))
        if reached[-1].startswith("INPUT"):
            break
    assert reached[:2] == ["A The run", "A Health"]
    assert any(name.startswith("SUMMARY As a table") for name in reached)
    opened.page.keyboard.type("island lighthouse")
    expect(opened.page.locator("#matches")).to_have_text(re.compile(r"^\d of 1,700 movies$"))
    # and a fold opens
    opened.page.locator("summary").first.focus()
    opened.page.keyboard.press("Enter")
    assert opened.page.locator("details[open] table").first.is_visible()
    opened.close()


def test_the_search_finds_words_whatever_their_accents_and_ids(browser: Browser, bundled: Path) -> None:
    lines = (ROOT / "dataset" / "movies.dat").read_text(encoding="iso-8859-1").splitlines()
    titles = {line.split("::")[0]: line.partition("::")[2].rpartition("::")[0] for line in lines}
    opened = Opened(browser, bundled)
    opened.page.fill("#query", "CAFE manana")
    wanted = [title for title in titles.values() if "Café" in title and "Mañana" in title]
    expect(opened.page.locator("#matches")).to_have_text(f"{len(wanted)} of 1,700 movies")
    assert sorted(opened.page.locator("#found th.title").all_inner_texts()) == sorted(wanted)
    movie, title = list(titles.items())[1000]
    opened.page.fill("#query", movie)
    expect(opened.page.locator("#found tbody tr").filter(has_text=title).locator("td").first).to_have_text(movie)
    opened.page.fill("#query", "no such movie")
    expect(opened.page.locator("#matches")).to_have_text("0 of 1,700 movies")
    opened.page.fill("#query", "")
    expect(opened.page.locator("#found")).to_be_hidden()
    opened.close()


def test_it_prints_on_white_paper(browser: Browser, bundled: Path) -> None:
    opened = Opened(browser, bundled, scheme="dark")
    opened.page.emulate_media(media="print")
    assert opened.page.locator("nav").is_hidden()
    assert opened.page.locator("#query").is_hidden()
    colours = "getComputedStyle(document.body).backgroundColor + getComputedStyle(document.body).color"
    assert opened.page.evaluate(colours) == "rgb(255, 255, 255)rgb(0, 0, 0)"
    assert opened.page.pdf().startswith(b"%PDF")
    opened.close()


def test_it_says_so_where_scripts_do_not_run(browser: Browser, bundled: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(bundled.as_uri())
    assert "This needs JavaScript; nothing else on the page does." in page.inner_text("search")
    context.close()


@pytest.mark.usefixtures("browser")
def test_the_picture_in_its_docs_is_made_by_a_command(tmp_path: Path) -> None:
    taken, shown = tmp_path / "taken.png", ROOT / "docs" / "report.png"
    subprocess.run([sys.executable, "-m", "tests.picture", "--to", taken], cwd=ROOT, check=True)
    for file in (taken, shown):
        assert file.stat().st_size < 300_000
    assert Image.open(taken).size == Image.open(shown).size
