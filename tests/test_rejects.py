"""No line is lost in silence: what is not valid stops the run, or is kept with its reason."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import movielens_pipeline as job
from movielens import contract, reading, rejects
from tests.support.golden import FOLDER, assert_golden
from tests.support.inputs import MOVIES, RATINGS, movie_lines, rating_lines, write_input
from tests.support.jobs import Main, Publish
from tests.support.results import assert_equal_by_check, manifest_of, rows_of, visible_names

BAD_RATING_LINES = {
    "one_field": b"garbage",
    "two_fields": b"1::2",
    "three_fields": b"1::2::3",
    "shifted": b"2:3::4::978300760",
    "five_fields": b"1::2::3::4::5",
    "trailing_separator": b"1::2::3::4::",
    "header": b"UserID::MovieID::Rating::Timestamp",
    "commas": b"1,2,3,4",
    "tabs": b"1\t2\t3\t4",
    "user_zero": b"0::2::3::4",
    "user_negative": b"-1::2::3::4",
    "user_empty": b"::2::3::4",
    "user_word": b"one::2::3::4",
    "user_with_space": b" 1::2::3::4",
    "user_with_plus": b"+1::2::3::4",
    "user_with_leading_zero": b"01::2::3::4",
    "user_decimal": b"1.0::2::3::4",
    "user_beyond_int": b"2147483648::2::3::4",
    "user_far_beyond_int": b"1" * 40 + b"::2::3::4",
    "movie_word": b"1::two::3::4",
    "movie_beyond_int": b"1::9999999999::3::4",
    "movie_other_digits": "1::٢::3::4".encode(),
    "rating_zero": b"1::2::0::4",
    "rating_nine": b"1::2::9::4",
    "rating_too_small": b"1::2::0.49::4",
    "rating_too_large": b"1::2::5.01::4",
    "rating_negative": b"1::2::-3::4",
    "rating_word": b"1::2::good::4",
    "rating_nan": b"1::2::NaN::4",
    "rating_exponent": b"1::2::1e0::4",
    "rating_comma": b"1::2::3,5::4",
    "rating_empty": b"1::2::::4",
    "timestamp_word": b"1::2::3::yesterday",
    "timestamp_decimal": b"1::2::3::4.5",
    "timestamp_empty": b"1::2::3::",
    "timestamp_beyond_bigint": b"1::2::3::9223372036854775808",
    "timestamp_with_space": b"1::2::3::4 ",
    "nul": b"1::2::3\x00::4",
    "control_character": b"1::2::3::4\x03",
    "quote_character": b"\x021::2::3::4\x02",
    "latin_1": b"1::caf\xe9::3::4",
}
BAD_MOVIE_LINES = {
    "movie_one_field": b"garbage",
    "movie_two_fields": b"77::Title",
    "movie_overlapping_separators": b"77:::Drama",
    "movie_id_word": b"x::Title::Drama",
    "movie_id_zero": b"0::Title::Drama",
    "movie_id_beyond_int": b"4294967296::Title::Drama",
    "movie_title_empty": b"77::::Drama",
    "movie_all_empty": b"77::::",
    "movie_genres_empty": b"77::Title::",
    "movie_nul": b"77::Ti\x00tle::Drama",
    "movie_duplicate": b"10::Other::Drama",
    "movie_exact_duplicate": b"10::First (2001)::Drama",
    "movie_latin_1": b"x::Caf\xe9::Drama",
}


def in_the_middle(good: bytes, *bad: bytes) -> bytes:
    lines = good.splitlines()
    middle = len(lines) // 2
    return b"\n".join([*lines[:middle], *bad, *lines[middle:], b""])


def ratings_with(*bad: bytes) -> bytes:
    return in_the_middle(rating_lines(RATINGS), *bad)


def movies_with(*bad: bytes) -> bytes:
    return in_the_middle(movie_lines(MOVIES), *bad)


CASES = {
    **{name: (ratings_with(line), movie_lines(MOVIES)) for name, line in BAD_RATING_LINES.items()},
    **{name: (rating_lines(RATINGS), movies_with(line)) for name, line in BAD_MOVIE_LINES.items()},
}


@pytest.mark.parametrize("case", CASES)
def test_one_bad_line_stops_the_run_and_is_shown_with_its_reason(
    run_main: Main, tmp_path: Path, output_path: Path, case: str
) -> None:
    folder = write_input(tmp_path / "in", *CASES[case])
    status, said = run_main("sail", "--input_path", folder, "--output_path", output_path)
    *_, count, shown, last = said.splitlines()
    # its message is one of those that stand in the golden file, with those of all other kinds
    assert shown.replace(str(folder), "<input>") in (FOLDER / "rejects_of_all_kinds.txt").read_text().splitlines()
    assert count.startswith(shown.removeprefix(f"{folder}/").rpartition(": '")[0])
    assert count.endswith(": 1 line")
    assert (
        last == "movielens_pipeline: error: 1 line not valid, more than --max_rejects 0 allows; nothing was published"
    )
    assert status == 3
    assert not visible_names(output_path)


def test_all_kinds_at_once_have_the_same_reasons_on_each_engine(
    engine: str, run_main: Main, tmp_path: Path, output_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejects, "REJECTS_SHOWN", 100)
    ratings, movies = ratings_with(*BAD_RATING_LINES.values()), movies_with(*BAD_MOVIE_LINES.values())
    folder = write_input(tmp_path / "in", ratings, movies)
    status, said = run_main(engine, "--input_path", folder, "--output_path", output_path)
    assert_golden("rejects_of_all_kinds", said, input=folder)
    assert status == 3
    assert not visible_names(output_path)


def test_a_few_of_many_are_shown(run_main: Main, tmp_path: Path, output_path: Path) -> None:
    folder = write_input(tmp_path, ratings_with(*(b"bad %04d" % number for number in range(2500))))
    _, said = run_main("sail", "--input_path", folder, "--output_path", output_path)
    *_, count, last = (line for line in said.splitlines() if "bad" not in line)
    assert count == "ratings.dat: fields missing: 2,500 lines"
    assert last == (
        "movielens_pipeline: error: 2,500 lines not valid, more than --max_rejects 0 allows; nothing was published"
    )
    assert [line for line in said.splitlines() if "bad" in line] == [
        f"{folder}/ratings.dat: fields missing: 'bad {number:04d}'" for number in range(10)
    ]


def test_up_to_n_rejects_pass_into_a_dataset_of_their_own(
    engine: str, publish: Publish, run_main: Main, tmp_path: Path, output_path: Path
) -> None:
    # given three lines that are not valid, in two files
    folder = write_input(tmp_path, ratings_with(b"1::2", b"1::caf\xe9::3::4"), movies_with(b"10::Other::Drama"))
    # when two may pass, nothing is published
    assert run_main(engine, "--input_path", folder, "--output_path", output_path, "--max_rejects", 2)[0] == 3
    assert not visible_names(output_path)
    # when three may pass, they stand in the dataset, to the letter, and the good rows are right
    said = publish(engine, folder, output_path, "--max_rejects", 3)
    assert "5 datasets in " in said
    assert rows_of(output_path, "rejects") == [
        ("movies", "duplicate movieId", "10::Other::Drama"),
        ("ratings", "fields missing", "1::2"),
        ("ratings", "movieId not a positive integer", "1::café::3::4"),
    ]
    manifest = manifest_of(output_path)
    assert manifest["rejects"] == manifest["datasets"]["rejects"]["rows"] == 3
    assert_equal_by_check(folder, output_path)


def test_a_later_clean_run_removes_the_rejects(
    engine: str, publish: Publish, tmp_path: Path, input_path: Path, output_path: Path
) -> None:
    publish("sail", write_input(tmp_path / "bad", ratings_with(b"x")), output_path, "--max_rejects", 1)
    assert (output_path / "rejects").is_dir()
    publish(engine, input_path, output_path, "--max_rejects", 1)
    assert not (output_path / "rejects").exists()
    manifest = manifest_of(output_path)
    assert manifest["rejects"] == 0
    assert "rejects" not in manifest["datasets"]


def test_of_movies_with_the_same_id_the_one_that_sorts_first_is_kept_in_any_order(
    spark: object, tmp_path: Path
) -> None:
    lines = [b"10::B::War\n", b"10::A::War\n", b"10::C::War\n", b"10::A::War\n"]
    for order in (lines, lines[::-1]):
        folder = write_input(tmp_path, movies=b"".join(order))
        assert [tuple(row) for row in job.load_movies(spark, str(folder)).collect()] == [(10, "A", "War")]  # type: ignore[arg-type]
        found = reading.find_rejects(spark, str(folder)).collect()  # type: ignore[arg-type]
        assert sorted(row["line"] for row in found) == ["10::A::War", "10::B::War", "10::C::War"]


def test_a_bad_line_does_not_take_the_place_of_the_good_one_of_the_same_movie(
    engine: str, publish: Publish, tmp_path: Path, output_path: Path
) -> None:
    # given a line that sorts before the good one, and is none
    folder = write_input(tmp_path / "in", movies=b"10::::Drama\n10::First (2001)::Drama\n")
    publish(engine, folder, output_path, "--max_rejects", 1)
    assert rows_of(output_path, "movies") == [(10, "First (2001)", "Drama")]
    assert rows_of(output_path, "rejects") == [("movies", "title missing", "10::::Drama")]


@pytest.mark.thorough
def test_rejects_and_titles_of_many_megabytes_keep_their_text(
    engine: str, publish: Publish, tmp_path: Path, output_path: Path
) -> None:
    # given lines that are longer than what is read at a time
    title, rubbish = "é" * 5_000_000, "x" * 9_000_000
    folder = write_input(tmp_path / "in", ratings_with(rubbish.encode()), f"10::{title}::Drama\n".encode())
    publish(engine, folder, output_path, "--max_rejects", 1)
    assert rows_of(output_path, "movies") == [(10, title, "Drama")]
    assert rows_of(output_path, "rejects") == [("ratings", "fields missing", rubbish)]


HTML = b"""<!DOCTYPE html>
<html><head><title>503 Service Unavailable</title></head>
<body><h1>Service Unavailable</h1>
<p>Please try again later.</p></body></html>
"""
RUBBISH = {
    "nul_block": ratings_with(bytes(4096)),
    "truncated_last_line": rating_lines(RATINGS)[:-8],
    "binary": random.Random(1).randbytes(20_000),
    "utf_16": rating_lines(RATINGS).decode().encode("utf-16"),
    "html_page": HTML,
    "long_line": ratings_with(b"x" * 50_000_000),
    "long_line_of_fields": ratings_with(b"1::2" * 12_000_000),
}


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.thorough] if len(data) > 2**20 else []) for kind, data in RUBBISH.items()],
)
def test_rubbish_in_the_place_of_ratings_is_refused_in_one_line(
    engine: str, run_main: Main, tmp_path: Path, output_path: Path, kind: str
) -> None:
    folder = write_input(tmp_path / "in", RUBBISH[kind])
    status, said = run_main(engine, "--input_path", folder, "--output_path", output_path)
    *_, last = said.splitlines()
    assert_golden(f"rubbish_{kind}", last + "\n", input=folder)
    assert len(said) < 5000
    assert status == 3
    assert not visible_names(output_path)


@pytest.mark.parametrize(
    "kind", ["nul_block", "truncated_last_line", "binary", pytest.param("long_line", marks=pytest.mark.thorough)]
)
def test_the_good_rows_around_rubbish_are_right_when_it_may_pass(
    engine: str, publish: Publish, tmp_path: Path, output_path: Path, kind: str
) -> None:
    folder = write_input(tmp_path / "in", rating_lines(RATINGS) + RUBBISH[kind])
    publish(engine, folder, output_path, "--max_rejects", 1000)
    assert_equal_by_check(folder, output_path)


def test_rubbish_has_the_same_rejects_on_both_engines(publish: Publish, tmp_path: Path) -> None:
    folder = write_input(
        tmp_path / "in", rating_lines(RATINGS) + RUBBISH["binary"], movie_lines(MOVIES) + RUBBISH["utf_16"]
    )
    for engine in contract.ENGINES:
        publish(engine, folder, tmp_path / engine, "--max_rejects", 1000)
    assert rows_of(tmp_path / "sail", "rejects") == rows_of(tmp_path / "spark", "rejects")


def test_rubbish_in_the_place_of_movies_is_refused(
    engine: str, run_main: Main, tmp_path: Path, output_path: Path
) -> None:
    folder = write_input(tmp_path / "in", movies=HTML)
    status, said = run_main(engine, "--input_path", folder, "--output_path", output_path)
    assert_golden("rubbish_movies", said.splitlines()[-1] + "\n", input=folder)
    assert status == 3


def test_no_valid_line_at_all_is_bad_input_however_many_rejects_may_pass(
    engine: str, run_main: Main, tmp_path: Path, output_path: Path
) -> None:
    folder = write_input(tmp_path / "in", HTML)
    status, said = run_main(engine, "--input_path", folder, "--output_path", output_path, "--max_rejects", 99)
    assert said.splitlines()[-1] == (
        f"movielens_pipeline: error: {folder}/ratings.dat has no valid line; nothing was published"
    )
    assert status == 3
    assert not visible_names(output_path)


def test_exact_duplicates_and_repeated_ratings_each_count(
    engine: str, publish: Publish, tmp_path: Path, output_path: Path
) -> None:
    # given a line twice, a user with two opinions of a movie, and a movie that movies.dat does not have
    ratings = b"1::10::5::9\n1::10::5::9\n1::11::2::1\n1::11::4::2\n2::99::3::1\n"
    folder = write_input(tmp_path / "in", ratings)
    publish(engine, folder, output_path)
    assert len(rows_of(output_path, "ratings")) == 5
    assert rows_of(output_path, "top_movies_per_user") == [
        (1, 10, 5.0, 9, 1), (1, 10, 5.0, 9, 2), (1, 11, 4.0, 2, 3), (2, 99, 3.0, 1, 1),
    ]  # fmt: skip
    statistics = {row[0]: row[3:] for row in rows_of(output_path, "movies_with_stats")}
    assert statistics[11] == (4.0, 2.0, 3.0)
    assert 99 not in statistics
    assert_equal_by_check(folder, output_path)
