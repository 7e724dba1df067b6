"""What the job reads: files, folders, compressions, encodings, line ends."""

from __future__ import annotations

import bz2
import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import movielens_pipeline as job
from movielens import contract
from movielens.formats.plain import Plain
from movielens.inputs import find_release
from movielens.reading import find_rejects
from tests.support.inputs import MOVIES, RATINGS, movie_lines, rating_lines, write_input
from tests.support.jobs import Publish
from tests.support.results import assert_equal_by_check

RATING_BYTES = rating_lines(RATINGS)
MOVIE_BYTES = movie_lines(MOVIES)


def ratings_in(spark: Any, folder: Path) -> list[tuple[Any, ...]]:
    """The rows, which are the same whichever way they are read."""
    release = find_release(spark, str(folder))
    plain = replace(release, plain=Plain(release.format, ""))
    rows, *others = (
        sorted(tuple(row) for row in job.load_ratings(spark, way).collect())
        for way in (release, plain, replace(release, odd_bytes=True))
    )
    assert others == [rows, rows]
    return rows


def movies_in(spark: Any, folder: Path) -> list[tuple[Any, ...]]:
    return sorted(tuple(row) for row in job.load_movies(spark, str(folder)).collect())


def test_ratings_come_with_the_contract_s_columns_and_types(spark: Any, input_path: Path) -> None:
    frame = job.load_ratings(spark, str(input_path))
    assert ", ".join(f"{name} {kind.upper()}" for name, kind in frame.dtypes) == contract.SCHEMAS["ratings"]
    assert sorted(tuple(row) for row in frame.collect()) == sorted(RATINGS)


def test_movies_come_with_the_contract_s_columns_and_types(spark: Any, input_path: Path) -> None:
    frame = job.load_movies(spark, str(input_path))
    assert ", ".join(f"{name} {kind.upper()}" for name, kind in frame.dtypes) == contract.SCHEMAS["movies"]
    assert sorted(tuple(row) for row in frame.collect()) == MOVIES


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("CRLF line ends", lambda data: data.replace(b"\n", b"\r\n")),
        ("a missing final newline", lambda data: data.removesuffix(b"\n")),
        ("lone CR line ends", lambda data: data.replace(b"\n", b"\r")),
        (
            "line ends of every kind in one file",
            lambda data: data.replace(b"\n", b"\r\r\n").replace(b"\r\r\n", b"\r", 1).replace(b"\r\r\n", b"\n", 1),
        ),
        ("blank lines", lambda data: b"\n\r\n" + data.replace(b"\n", b"\n\n", 2) + b"\n\n"),
        ("a byte-order mark", lambda data: b"\xef\xbb\xbf" + data),
        ("a byte-order mark and CRLF", lambda data: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n")),
    ],
)
def test_line_ends_and_marks_change_nothing(spark: Any, tmp_path: Path, what: str, change: Any) -> None:
    # given both files with a harmless peculiarity
    folder = write_input(tmp_path / what, change(RATING_BYTES), change(MOVIE_BYTES))
    # then every row is there, and only those
    assert ratings_in(spark, folder) == sorted(RATINGS), what
    assert movies_in(spark, folder) == MOVIES, what


@pytest.mark.parametrize("blank", [b"\n", b" \t\r\n\n"])
def test_a_byte_order_mark_before_blank_lines_is_no_line(
    engine: str, publish: Publish, tmp_path: Path, output_path: Path, blank: bytes
) -> None:
    mark = b"\xef\xbb\xbf" + blank
    publish(engine, write_input(tmp_path / "in", mark + RATING_BYTES, mark + MOVIE_BYTES), output_path)
    assert_equal_by_check(tmp_path / "in", output_path)


def test_encoding_is_found_line_by_line(spark: Any, tmp_path: Path) -> None:
    # given a file in which one line is UTF-8 and the next ISO-8859-1
    movies = "1::Café (1990)::Drama\n".encode() + "2::Misérables, Les (1995)::Drama\n".encode("iso-8859-1")
    folder = write_input(tmp_path, RATING_BYTES, movies)
    # then both titles are right
    assert movies_in(spark, folder) == [(1, "Café (1990)", "Drama"), (2, "Misérables, Les (1995)", "Drama")]


def test_a_line_of_spaces_and_tabs_is_blank(spark: Any, tmp_path: Path) -> None:
    lines = b"\t\n \t \n" + RATING_BYTES, MOVIE_BYTES + b"\t\t"
    release = find_release(spark, str(write_input(tmp_path, *lines)))
    assert job.load_ratings(spark, release).count() == len(RATINGS)
    assert movies_in(spark, tmp_path) == MOVIES
    assert find_rejects(spark, release).count() == 0


def test_bytes_that_are_not_utf_8_are_iso_8859_1_and_not_windows_1252(spark: Any, tmp_path: Path) -> None:
    # given bytes that stand for control characters in the one, and for quotes or nothing in the other
    title = bytes(range(0x80, 0x100))
    folder = write_input(tmp_path, RATING_BYTES, b"1::" + title + b"::Drama\n")
    assert movies_in(spark, folder) == [(1, "".join(map(chr, range(0x80, 0x100))), "Drama")]


def test_a_title_is_all_between_the_first_and_the_last_separator(spark: Any, tmp_path: Path) -> None:
    titles = [
        "Tomcat:: Dangerous Desires (1983)",
        '"Great Performances" Cats (1998)',
        "8 1/2: Eight",
        "Colon at the end:",
        ":Colon at the start",
        " spaces ",
        "back\\slash \\",
        "comma, 'quote' \"",
        "::",
        "#",
    ]
    rows = [(number, title, "Drama|War") for number, title in enumerate(titles, 1)]
    assert movies_in(spark, write_input(tmp_path, RATING_BYTES, movie_lines(rows))) == rows


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_compressed_files_are_read(spark: Any, tmp_path: Path, suffix: str, compress: Any) -> None:
    # given archives of two members, as `cat a.gz b.gz` and parallel compressors make them
    for name, data in (("ratings.dat", RATING_BYTES), ("movies.dat", MOVIE_BYTES)):
        (tmp_path / f"{name}{suffix}").write_bytes(compress(data[:30]) + compress(data[30:]))
    assert ratings_in(spark, tmp_path) == sorted(RATINGS)
    assert movies_in(spark, tmp_path) == MOVIES


def test_a_folder_of_part_files_is_one_input(spark: Any, tmp_path: Path) -> None:
    # given parts, plain and compressed, between files that are not data
    for name, lines in (("ratings.dat", RATING_BYTES), ("movies.dat", MOVIE_BYTES)):
        folder = tmp_path / name
        folder.mkdir()
        first, second, *rest = lines.splitlines(keepends=True)
        (folder / "part-0").write_bytes(first)
        (folder / "part-1.txt").write_bytes(second)
        (folder / "part-2.gz").write_bytes(gzip.compress(rest[0]))
        (folder / "part-3.bz2").write_bytes(bz2.compress(b"".join(rest[1:])))
        (folder / "_SUCCESS").write_bytes(b"")
        (folder / ".part-0.crc").write_bytes(b"1::1::1::1\n")
    assert ratings_in(spark, tmp_path) == sorted(RATINGS)
    assert movies_in(spark, tmp_path) == MOVIES


@pytest.mark.parametrize("name", ["with space", "a[1]", "a*b?", "{a,b}", "50%20off", "é#+='"])
def test_any_folder_name_is_taken_to_the_letter(spark: Any, tmp_path: Path, name: str) -> None:
    folder = write_input(tmp_path / name)
    assert len(ratings_in(spark, folder)) == len(RATINGS)
    assert len(movies_in(spark, folder)) == len(MOVIES)


def test_a_file_url_is_a_local_path(spark: Any, tmp_path: Path) -> None:
    folder = write_input(tmp_path / "with space")
    frame = job.load_ratings(spark, folder.as_uri())
    assert frame.count() == len(RATINGS)


def test_loading_is_lazy(spark: Any, tmp_path: Path) -> None:
    # given files that no reader survives
    (tmp_path / "ratings.dat.gz").write_bytes(b"no gzip")
    (tmp_path / "movies.dat.gz").write_bytes(b"no gzip")
    # when they are loaded and transformed
    ratings, movies = job.load_ratings(spark, str(tmp_path)), job.load_movies(spark, str(tmp_path))
    frames = [ratings, movies, job.movie_statistics(ratings, movies), job.top_movies_per_user(ratings)]
    # then nothing was read; the first action finds out
    for frame in frames:
        with pytest.raises(Exception, match=r"(?i)gzip|end of (file|input)|FAILED_READ_FILE"):
            frame.count()


def test_an_input_that_is_there_twice_is_refused(spark: Any, input_path: Path) -> None:
    (input_path / "ratings.dat.gz").write_bytes(gzip.compress(RATING_BYTES))
    with pytest.raises(contract.PipelineError, match=r"there more than once, as ratings.dat, ratings.dat.gz: keep one"):
        job.load_ratings(spark, str(input_path))


@pytest.mark.thorough
def test_a_long_path_beside_each_of_many_lines_is_not_too_much(spark: Any, tmp_path: Path) -> None:
    # given lines that with their paths are more than an array of Arrow can hold
    folder = tmp_path / ("long" * 60)
    write_input(folder, movies=MOVIE_BYTES + b"\n" * 2**23)
    assert movies_in(spark, folder) == MOVIES
