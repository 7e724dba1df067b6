"""Every release gives the same datasets: how the lines of each format are cut and judged, and what is said of them."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import movielens_pipeline as job
from movielens import contract, rejects
from movielens.inputs import find_release
from movielens.reading import find_rejects
from tests.support.golden import assert_golden
from tests.support.inputs import MOVIES, RATINGS, generate, real_data, write_input
from tests.support.jobs import Main, Publish
from tests.support.results import DATASETS, assert_equal_by_check, rows_of, visible_names

RATINGS_HEADER = b"userId,movieId,rating,timestamp\r\n"
MOVIES_HEADER = b"movieId,title,genres\r\n"
CSV_RATINGS = RATINGS_HEADER + b"".join(b"%d,%d,%.1f,%d\r\n" % row for row in RATINGS)
CSV_MOVIES = (
    MOVIES_HEADER
    + (
        '10,First (2001),Drama\r\n11,Second:: Two (2002),Comedy|Drama\r\n12,"""Third"" (2003)",War\r\n'
        "13,Café: Noir (1954),Film-Noir\r\n14,Unrated (2010),Western\r\n"
    ).encode()
)


def write_csv(folder: Path, ratings: bytes = CSV_RATINGS, movies: bytes = CSV_MOVIES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ratings.csv").write_bytes(ratings)
    (folder / "movies.csv").write_bytes(movies)
    return folder


def item(movie: str, title: str, *genres: int, rest: str = "01-Jan-1995||http://us.imdb.com/") -> str:
    flags = "|".join(str(int(place in genres)) for place in range(19))
    return f"{movie}|{title}|{rest}|{flags}"


U_ITEM = "".join(
    f"{line}\n"
    for line in (
        item("10", "First (2001)", 8),
        item("11", "Second:: Two (2002)", 5, 8),
        item("12", '"Third" (2003)', 17),
        item("13", "Café: Noir (1954)", 10),
        item("14", "Unrated (2010)", 18, rest="||"),
    )
).encode("iso-8859-1")
U_DATA = b"".join(b"%d\t%d\t%g\t%d\n" % row for row in RATINGS)


def write_100k(folder: Path, data: bytes = U_DATA, items: bytes = U_ITEM) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "u.data").write_bytes(data)
    (folder / "u.item").write_bytes(items)
    return folder


def movies_in(spark: Any, folder: Path) -> list[tuple[Any, ...]]:
    return sorted(tuple(row) for row in job.load_movies(spark, str(folder)).collect())


def ratings_in(spark: Any, folder: Path) -> list[tuple[Any, ...]]:
    return sorted(tuple(row) for row in job.load_ratings(spark, str(folder)).collect())


def rejects_in(spark: Any, folder: Path) -> set[tuple[str, str]]:
    return {(row["reason"], row["line"]) for row in find_rejects(spark, str(folder)).collect()}


# --------------------------------------------------------------------------------------------------------------------
# All of them


@pytest.mark.parametrize("write", [write_input, write_csv, write_100k], ids=["dat", "csv", "100k"])
def test_each_format_has_the_same_rows(spark: Any, tmp_path: Path, write: Any) -> None:
    folder = write(tmp_path)
    assert ratings_in(spark, folder) == sorted(RATINGS)
    assert movies_in(spark, folder) == MOVIES
    assert not rejects_in(spark, folder)


def test_the_same_release_in_each_format_gives_the_same_datasets(publish: Publish, tmp_path: Path, engine: str) -> None:
    # given releases with the difficulties of each format
    for form in ("dat", "csv", "100k"):
        generate(tmp_path / form, "--ratings", 9000, "--format", form)
        first, *_ = publish(engine, tmp_path / form, tmp_path / f"out-{form}").splitlines()
        # then the first line names the format
        assert first.endswith(f", format: {form}")
        assert_equal_by_check(tmp_path / form, tmp_path / f"out-{form}")
    for dataset in DATASETS:
        rows = rows_of(tmp_path / "out-dat", dataset)
        assert rows_of(tmp_path / "out-csv", dataset) == rows
        assert rows_of(tmp_path / "out-100k", dataset) == rows


def test_movielens_latest_small_equals_duckdb(publish: Publish, tmp_path: Path, engine: str) -> None:
    publish(engine, real_data("ml-latest-small"), tmp_path)
    assert_equal_by_check(real_data("ml-latest-small"), tmp_path)
    # the release's own figures, and a title that is broken where quotes are not doubled
    movies = rows_of(tmp_path, "movies")
    assert (len(movies), len(rows_of(tmp_path, "ratings"))) == (9742, 100_836)
    assert (7789, "11'09\"01 - September 11 (2002)", "Drama") in movies
    unrated = [row for row in rows_of(tmp_path, "movies_with_stats") if row[5] is None]
    assert len(unrated) == 18


# --------------------------------------------------------------------------------------------------------------------
# CSV


def test_titles_are_unquoted_and_else_kept_to_the_letter(spark: Any, tmp_path: Path) -> None:
    rows = [
        (1, "Plain (1990)", "Drama"),
        (2, "City, The (1990)", "Drama|War"),
        (3, '"Great Performances" Cats (1998)', "(no genres listed)"),
        (4, 'Ends with "quotes"', "Drama"),
        (5, " spaces ", "Drama"),
        (6, '"', "Drama"),
        (7, '","', "Drama"),
        (8, "back\\slash \\", "Drama"),
        (9, "Café:: 日本", "Drama"),
        (10, ",", "Drama"),
    ]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    # and what is not written so, but is read so by everybody
    others = '11,5" disk,Drama\n12,"quoted","Drama|War"\n'
    folder = write_csv(tmp_path, movies=MOVIES_HEADER + (text.getvalue() + others).encode())
    assert movies_in(spark, folder) == [*rows, (11, '5" disk', "Drama"), (12, "quoted", "Drama|War")]


def test_a_csv_may_be_in_another_encoding(spark: Any, tmp_path: Path) -> None:
    folder = write_csv(tmp_path, movies=MOVIES_HEADER + b'1,"Caf\xe9, Le (1990)",Drama\r\n2,Caf\xc3\xa9,War\r\n')
    assert movies_in(spark, folder) == [(1, "Café, Le (1990)", "Drama"), (2, "Café", "War")]


TEXT = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), min_size=1, max_size=9)
TITLES = TEXT | st.text('",ab ', min_size=1, max_size=7)
GENRES = st.text(st.sampled_from('|(abc)"'), min_size=1, max_size=5)
LINES = st.text('",a1 ', max_size=9)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TITLES, GENRES), min_size=20, max_size=40), st.lists(LINES, min_size=60, max_size=90))
def test_titles_are_read_as_python_s_csv_module_reads_them(
    spark: Any, tmp_path: Path, titles: list[tuple[str, str]], lines: list[str]
) -> None:
    # given any titles, as Python writes them, and lines with quotes and commas anywhere
    text = io.StringIO()
    rows = [(number, *fields) for number, fields in enumerate(titles, 1000)]
    csv.writer(text, lineterminator="\n").writerows(rows)
    lines = [*text.getvalue().split("\n")[:-1], *(f"{number},{line}" for number, line in enumerate(lines, 2000))]
    folder = write_csv(tmp_path, movies=MOVIES_HEADER + "\n".join(lines).encode())
    # then a line is a movie that Python reads as three fields, of which genres hold no comma
    expected = []
    for line in lines:
        try:
            [movie, title, genres] = next(csv.reader([line], strict=True))
        except (csv.Error, ValueError):
            continue
        if title and genres and "," not in genres:
            expected.append((int(movie), title, genres))
    assert movies_in(spark, folder) == sorted(expected)
    assert set(rows) <= set(expected)


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("LF line ends", lambda data: data.replace(b"\r\n", b"\n")),
        ("CR line ends", lambda data: data.replace(b"\r\n", b"\r")),
        ("a missing final newline", lambda data: data.removesuffix(b"\r\n")),
        ("blank lines, also before the header", lambda data: b"\r\n\n" + data.replace(b"\n", b"\n\n", 2) + b"\n\n"),
        ("a byte-order mark", lambda data: b"\xef\xbb\xbf" + data),
        ("a header with LF and lines with CRLF", lambda data: data.replace(b"\r\n", b"\n", 1)),
    ],
)
def test_line_ends_and_marks_change_nothing(spark: Any, tmp_path: Path, what: str, change: Any) -> None:
    folder = write_csv(tmp_path / what, change(CSV_RATINGS), change(CSV_MOVIES))
    assert ratings_in(spark, folder) == sorted(RATINGS), what
    assert movies_in(spark, folder) == MOVIES, what
    assert not rejects_in(spark, folder)


def test_each_part_has_the_header(engine: str, publish: Publish, tmp_path: Path) -> None:
    # given parts, plain, compressed and empty
    for name, lines in (("ratings.csv", CSV_RATINGS), ("movies.csv", CSV_MOVIES)):
        folder = tmp_path / "in" / name
        folder.mkdir(parents=True)
        header, first, second, *rest = lines.splitlines(keepends=True)
        (folder / "part-0.csv").write_bytes(header + first)
        (folder / "part-1.csv").write_bytes(header)
        (folder / "part-2.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + header + second))
        (folder / "part-3.bz2").write_bytes(bz2.compress(header + b"".join(rest)))
        (folder / "part-4").touch()
        (folder / "_SUCCESS").touch()
    publish(engine, tmp_path / "in", tmp_path / "out")
    assert rows_of(tmp_path / "out", "ratings") == sorted(RATINGS)
    assert rows_of(tmp_path / "out", "movies") == MOVIES
    assert_equal_by_check(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_compressed_csv_is_read(spark: Any, tmp_path: Path, suffix: str, compress: Any) -> None:
    for name, data in (("ratings.csv", CSV_RATINGS), ("movies.csv", CSV_MOVIES)):
        (tmp_path / f"{name}{suffix}").write_bytes(compress(data))
    assert ratings_in(spark, tmp_path) == sorted(RATINGS)
    assert movies_in(spark, tmp_path) == MOVIES


HEADERS = {
    "missing": b"",
    "in_another_order": b"movieId,userId,rating,timestamp\n",
    "in_capitals": b"USERID,MOVIEID,RATING,TIMESTAMP\n",
    "quoted": b'"userId","movieId","rating","timestamp"\n',
    "longer": b"userId,movieId,rating,timestamp,comment\n",
    "utf_16": "\ufeffuserId,movieId,rating,timestamp\n".encode("utf-16-le"),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_another_header_is_refused(engine: str, run_main: Main, tmp_path: Path, output_path: Path, kind: str) -> None:
    folder = write_csv(tmp_path / "in", CSV_RATINGS.replace(RATINGS_HEADER, HEADERS[kind]))
    status, said = run_main(engine, "--input_path", folder, "--output_path", output_path, "--max_rejects", 99)
    assert_golden(f"header_{kind}", said, input=folder)
    assert status == 3
    assert not visible_names(output_path)


def test_a_part_without_the_header_is_refused(spark: Any, tmp_path: Path) -> None:
    folder = write_csv(tmp_path)
    (folder / "movies.csv").rename(folder / "part-0")
    (folder / "movies.csv").mkdir()
    (folder / "part-0").rename(folder / "movies.csv" / "part-0")
    (folder / "movies.csv" / "part-1.gz").write_bytes(gzip.compress(b"15,Another (1990),War\n"))
    with pytest.raises(
        contract.BadInputError, match=r"movies.csv/part-1.gz: header not as expected: it is '15,Another"
    ):
        find_release(spark, str(folder))


def test_a_header_in_the_middle_is_a_line_that_is_not_valid(
    engine: str, publish: Publish, tmp_path: Path, output_path: Path
) -> None:
    # given files put together with their headers
    folder = write_csv(tmp_path / "in", CSV_RATINGS + CSV_RATINGS + RATINGS_HEADER, CSV_MOVIES + MOVIES_HEADER)
    said = publish(engine, folder, output_path, "--max_rejects", 3)
    assert "ratings.csv: header not as expected: 2 lines" in said
    assert rows_of(output_path, "rejects") == [
        ("movies", "header not as expected", "movieId,title,genres"),
        ("ratings", "header not as expected", "userId,movieId,rating,timestamp"),
        ("ratings", "header not as expected", "userId,movieId,rating,timestamp"),
    ]
    assert_equal_by_check(folder, output_path)


def test_a_line_break_inside_quotes_spoils_no_other_line(
    engine: str, publish: Publish, tmp_path: Path, output_path: Path
) -> None:
    # given lines of an even and of an odd number of characters
    broken = b'15,"Broken\r\nTitle, The (1990)",War\r\n17,"Torn up\r\n'
    movies = CSV_MOVIES + broken + b"16,Whole (1991),War\r\n"
    folder = write_csv(tmp_path / "in", movies=movies)
    publish(engine, folder, output_path, "--max_rejects", 3)
    assert rows_of(output_path, "rejects") == [
        ("movies", "quotes not balanced", '15,"Broken'),
        ("movies", "quotes not balanced", '17,"Torn up'),
        ("movies", "quotes not balanced", 'Title, The (1990)",War'),
    ]
    assert rows_of(output_path, "movies") == [*MOVIES, (16, "Whole (1991)", "War")]
    assert_equal_by_check(folder, output_path)


BAD_CSV_RATINGS = [
    b"garbage", b"1,2", b"1,2,3", b"2.0,4.0,978300760", b"1,2,3.0,4,5", b"1,2,3.0,4,", b"1::2::3::4", b"1\t2\t3\t4",
    b"userId,movieId,rating,timestamp", b"UserID,MovieID,Rating,Timestamp",
    b"0,2,3,4", b"-1,2,3,4", b",2,3,4", b"zero,2,3,4", b" 1,2,3,4", b"+1,2,3,4", b"01,2,3,4", b"1.0,2,3,4",
    b"2147483648,2,3,4", b'"1",2,3,4', b"1,two,3,4", b"1,9999999999,3,4", b"1, 2,3,4",
    b"1,2,0.0,4", b"1,2,9,4", b"1,2,0.49,4", b"1,2,5.01,4", b"1,2,-3,4", b"1,2,good,4", b"1,2,NaN,4", b"1,2,1e0,4",
    b"1,2,,4", b'1,2,"3.0",4', b'1,2,"3,5",4', b"1,2,3.0,yesterday", b"1,2,3.0,4.5", b"1,2,3.0,",
    b"1,2,3.0,9223372036854775808", b"1,2,3.0,4 ", b"1,2,3.0\x00,4", b"1,2,3.0,4\x03", b"1,caf\xe9,3.0,4",
]  # fmt: skip
BAD_CSV_MOVIES = [
    b"garbage", b"77,Title", b"77,Title (1990),The,Drama", b'77,"Title (1990)",The,Drama', b"x,Title,Drama",
    b"0,Title,Drama", b"4294967296,Title,Drama", b'"77",Title,Drama', b"77,,Drama", b'77,"",Drama', b"77,Title,",
    b'77,Title,""', b'77,"Title,Drama', b'77,"Title"s,Drama', b'77,"Ti"tle",Drama', b'77,Title,"Drama',
    b'77,Title,"Dra,ma"', b'77,"""Title",Drama', b'77,",Drama', b"77,Ti\x00tle,Drama", b"10,Other,Drama",
    b"movieId,title,genres", b"77::Title::Drama", b"77\tTitle\tDrama", b"x,Caf\xe9,Drama",
]  # fmt: skip
BAD_U_DATA = [b"garbage", b"1\t2\t3", b"1\t2\t3\t4\t5", b"1 2 3 4", b"x\t2\t3\t4", b"1\t2\t6\t4", b"1\t2\t3\t4 "]
BAD_U_ITEM = [
    b"garbage", item("77", "Title", 1).removesuffix("|0").encode(), item("77", "Title", 1).encode() + b"|0",
    item("77", "Ti|tle", 1).encode(), item("x", "Title", 1).encode(), item("77", "", 1).encode(),
    item("77", "Title", 1).replace("|1|", "|2|").encode(), item("77", "Title", 1).replace("|1|", "||").encode(),
    item("10", "Other", 1).encode(), item("77", "Title", 1).replace("|", "\t").encode(),
]  # fmt: skip


def with_lines(good: bytes, bad: list[bytes]) -> bytes:
    return good + b"\n".join(bad) + b"\n"


BAD_LINES = {
    "csv": lambda folder: write_csv(
        folder, with_lines(CSV_RATINGS, BAD_CSV_RATINGS), with_lines(CSV_MOVIES, BAD_CSV_MOVIES)
    ),
    "100k": lambda folder: write_100k(folder, with_lines(U_DATA, BAD_U_DATA), with_lines(U_ITEM, BAD_U_ITEM)),
}


@pytest.mark.parametrize("form", BAD_LINES)
def test_all_kinds_of_bad_line_have_the_same_reasons_on_each_engine(
    engine: str, run_main: Main, tmp_path: Path, output_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(rejects, "REJECTS_SHOWN", 100)
    folder = BAD_LINES[form](tmp_path / "in")
    status, said = run_main(engine, "--input_path", folder, "--output_path", output_path)
    assert_golden(f"rejects_of_{form}", said, input=folder)
    assert status == 3
    assert not visible_names(output_path)


@pytest.mark.parametrize("end", [0, 7])
def test_the_first_of_several_archives_may_end_before_the_header_does(spark: Any, tmp_path: Path, end: int) -> None:
    folder = write_csv(tmp_path)
    for name, suffix, compress in (("movies.csv", "gz", gzip.compress), ("ratings.csv", "bz2", bz2.compress)):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        (folder / f"{name}.{suffix}").write_bytes(compress(content[:end]) + compress(content[end:]))
    assert ratings_in(spark, folder) == sorted(RATINGS)
    assert movies_in(spark, folder) == MOVIES


@pytest.mark.thorough
@pytest.mark.parametrize("form", BAD_LINES)
def test_bad_lines_that_may_pass_are_counted_by_the_check(
    engine: str, publish: Publish, tmp_path: Path, output_path: Path, form: str
) -> None:
    folder = BAD_LINES[form](tmp_path / "in")
    publish(engine, folder, output_path, "--max_rejects", 100)
    assert rows_of(output_path, "ratings") == sorted(RATINGS)
    assert_equal_by_check(folder, output_path)


@pytest.mark.parametrize("line", [b'"' * 5_000_000, b'1,"' + b'""' * 5_000_000 + b'",Drama', b"," * 5_000_000])
def test_long_lines_of_quotes_and_commas_are_judged(spark: Any, tmp_path: Path, line: bytes) -> None:
    folder = write_csv(tmp_path, movies=CSV_MOVIES + line + b"\n")
    assert len(movies_in(spark, folder)) in (len(MOVIES), len(MOVIES) + 1)


# --------------------------------------------------------------------------------------------------------------------
# 100K


def test_genres_are_named_by_their_flags(spark: Any, tmp_path: Path) -> None:
    items = [
        item("1", "Toy Story (1995)", 3, 4, 5),
        item("2", "unknown", 0, rest="||"),
        item("3", "No flag (1990)"),
        item("4", "All (1990)", *range(19)),
        item("5", "Misérables, Les (1995)", 12),
    ]
    folder = write_100k(tmp_path, items="\n".join(items).encode("iso-8859-1"))
    assert movies_in(spark, folder) == [
        (1, "Toy Story (1995)", "Animation|Children's|Comedy"),
        (2, "unknown", "unknown"),
        (3, "No flag (1990)", "(no genres listed)"),
        (
            4, "All (1990)",
            "unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|Fantasy|Film-Noir|Horror|"
            "Musical|Mystery|Romance|Sci-Fi|Thriller|War|Western",
        ),
        (5, "Misérables, Les (1995)", "Musical"),
    ]  # fmt: skip
