#!/usr/bin/env python3
"""Derives the datasets again with DuckDB from the raw files and compares them with what the job published.

Shares no code with the job, so that a fault of the one is not a fault of the other. Prints a line per dataset and
the first rows that differ. Exit status: 0 equal, 1 different, 2 nothing to compare.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import gzip
import io
import json
import re
import shutil
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import boto3
import duckdb
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROWS_SHOWN = 5
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
CHUNK = 16 * 2**20

COLUMNS = {
    "ratings": "userId INTEGER, movieId INTEGER, rating FLOAT, timestamp BIGINT",
    "movies": "movieId INTEGER, title VARCHAR, genres VARCHAR",
    "movies_with_stats": (
        "movieId INTEGER, title VARCHAR, genres VARCHAR, max_rating FLOAT, min_rating FLOAT, avg_rating DOUBLE"
    ),
    "top_movies_per_user": "userId INTEGER, movieId INTEGER, rating FLOAT, timestamp BIGINT, rank INTEGER",
}

# A number counts when it is written as DuckDB itself would write it, so without sign, space or leading zero.
RATINGS_FROM_LINES = r"""
    CREATE TABLE expected_ratings AS
    WITH cut AS (SELECT string_split(line, $separator) AS field FROM rating_lines),
    read AS (
        SELECT field, TRY_CAST(field[1] AS INTEGER) AS userId, TRY_CAST(field[2] AS INTEGER) AS movieId,
            TRY_CAST(field[4] AS BIGINT) AS "timestamp"
        FROM cut WHERE len(field) = 4
    )
    SELECT userId, movieId, field[3]::FLOAT AS rating, "timestamp" FROM read
    WHERE userId > 0 AND userId::VARCHAR = field[1]
        AND movieId > 0 AND movieId::VARCHAR = field[2]
        AND "timestamp"::VARCHAR = field[4]
        AND regexp_full_match(field[3], '0\.[5-9]\d*|[1-4](\.\d+)?|5(\.0+)?')
"""

DERIVED = """
    CREATE TABLE expected_movies_with_stats AS
    SELECT m.movieId, m.title, m.genres, s.max_rating, s.min_rating, s.avg_rating
    FROM expected_movies m LEFT JOIN (
        SELECT movieId, max(rating) AS max_rating, min(rating) AS min_rating, avg(rating::DOUBLE) AS avg_rating
        FROM expected_ratings GROUP BY movieId
    ) s USING (movieId);

    CREATE TABLE expected_top_movies_per_user AS
    SELECT userId, movieId, rating, "timestamp", rank::INTEGER AS rank FROM (
        SELECT *, row_number() OVER (
            PARTITION BY userId ORDER BY rating DESC, "timestamp" DESC, movieId ASC
        ) AS rank
        FROM expected_ratings
    ) WHERE rank <= 3;
"""


class CannotCompareError(Exception):
    """There is nothing to compare; the message says what is missing."""


# --------------------------------------------------------------------------------------------------------------------
# Formats

Movie = tuple[str, str, str]  # movieId, title, genres, as they are written

# What the flags of MovieLens 100K mean where no u.genre tells
GENRES = [
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
]  # fmt: skip


def dat_movie(line: str, _: list[str]) -> Movie | None:
    """The title is all between the first separator and the last."""
    movie_id, first, rest = line.partition("::")
    title, last, genres = rest.rpartition("::")
    return (movie_id, title, genres) if first and last else None


def csv_movie(line: str, _: list[str]) -> Movie | None:
    """A line is a record of three fields; an id is not quoted, and genres hold no comma."""
    try:
        fields = next(csv.reader([line], strict=True))
    except csv.Error:
        return None
    if len(fields) != 3 or not line.startswith(f"{fields[0]},") or "," in fields[2]:  # noqa: PLR2004  # as said above
        return None
    movie_id, title, genres = fields
    return movie_id, title, genres


def item_movie(line: str, genres: list[str]) -> Movie | None:
    """Five fields, of which two are of use here, and a flag for each genre."""
    movie_id, *others = line.split("|")
    flags = others[4:]
    if len(flags) != len(genres) or not set(flags) <= {"0", "1"}:
        return None
    flagged = [genre for genre, flag in zip(genres, flags, strict=True) if flag == "1"]
    return movie_id, others[0], "|".join(flagged) or "(no genres listed)"


@dataclass(frozen=True)
class Format:
    """The files of a release, and how their lines are cut."""

    movies: str
    ratings: str
    separator: str
    movie: Callable[[str, list[str]], Movie | None]
    movies_header: str = ""
    ratings_header: str = ""


FORMATS = (
    Format("movies.dat", "ratings.dat", "::", dat_movie),
    Format(
        "movies.csv", "ratings.csv", ",", csv_movie, "movieId,title,genres", "userId,movieId,rating,timestamp"
    ),
    Format("u.item", "u.data", "\t", item_movie),
)  # fmt: skip
GENRE_FILE = "u.genre"
MEMBERS = {GENRE_FILE, *(name for form in FORMATS for name in (form.movies, form.ratings))}


def format_in(folder: Path) -> Format:
    """The format of the release in a folder."""
    for form in FORMATS:
        if any((folder / f"{form.ratings}{suffix}").exists() for suffix in ("", ".gz", ".bz2")):
            return form
    raise CannotCompareError(f"{folder} holds no {', '.join(form.ratings for form in FORMATS)}")


def genres_in(folder: Path) -> list[str]:
    """The genres that the flags stand for, in their order."""
    file = folder / GENRE_FILE
    if not file.is_file():
        return GENRES
    return [line.partition("|")[0] for line in file.read_text("iso-8859-1").splitlines() if line.strip()]


# --------------------------------------------------------------------------------------------------------------------
# Files


def release_folder(path: str | Path, scratch: Path) -> Path:
    """The folder of the raw files; of an archive one into which its members were unpacked."""
    if not str(path).endswith(".zip"):
        return local_folder(path, scratch)
    archive = local_file(str(path), scratch) if "://" in str(path) else Path(path)
    if archive.is_dir():
        return archive
    folder = scratch / "unpacked"
    folder.mkdir()
    try:
        with zipfile.ZipFile(archive) as packed:
            for member in packed.infolist():
                *folders, name = PurePosixPath(member.filename).parts
                if name in MEMBERS and len(folders) <= 1 and not member.is_dir():
                    with packed.open(member) as source, (folder / name).open("xb") as target:
                        shutil.copyfileobj(source, target)
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise CannotCompareError(f"{path} cannot be read: {error}") from error
    return folder


def local_file(address: str, scratch: Path) -> Path:
    """A copy of an object at s3://bucket/name."""
    bucket, _, name = address.partition("://")[2].partition("/")
    copy = scratch / PurePosixPath(name).name
    try:
        boto3.client("s3").download_file(bucket, name, str(copy))
    except (BotoCoreError, ClientError) as error:
        raise CannotCompareError(f"{address} cannot be read: {error}") from error
    return copy


def local_folder(path: str | Path, scratch: Path) -> Path:
    """The folder, or a copy of what a bucket holds below an address s3://bucket/folder."""
    scheme, separator, place = str(path).partition("://")
    if not separator:
        return Path(path)
    bucket, _, folder = place.rstrip("/").partition("/")
    if scheme == "hdfs":
        raise CannotCompareError(f"{path}: compare a copy on disk: hadoop fs -copyToLocal {path} FOLDER")
    if scheme not in ("s3", "s3a"):
        raise CannotCompareError(f"{path} is neither a folder nor s3://bucket/folder")
    copy = scratch / f"copy of {folder.replace('/', ' ')}"
    prefix = f"{folder}/" if folder else ""
    client = boto3.client("s3")
    try:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for found in page.get("Contents", []):
                name = found["Key"][len(prefix) :]
                if name and not name.endswith("/") and not name.startswith("_staging/"):
                    (copy / name).parent.mkdir(parents=True, exist_ok=True)
                    client.download_file(bucket, found["Key"], str(copy / name))
    except (BotoCoreError, ClientError) as error:
        raise CannotCompareError(f"{path} cannot be read: {error}") from error
    if not copy.exists():
        raise CannotCompareError(f"{path} not found")
    return copy


def input_files(folder: Path, name: str) -> list[Path]:
    """The files of an input: one file or a folder of part files, plain or with .gz or .bz2 behind the name."""
    for candidate in (folder / name, folder / f"{name}.gz", folder / f"{name}.bz2"):
        if candidate.is_dir():
            return sorted(part for part in candidate.iterdir() if not part.name.startswith(("_", ".")))
        if candidate.is_file():
            return [candidate]
    raise CannotCompareError(f"{folder / name} not found")


def plain_files(files: list[Path], scratch: Path) -> list[Path]:
    """The files, those that are compressed as plain copies in the scratch folder."""
    plain = []
    for number, file in enumerate(files):
        if file.suffix not in (".gz", ".bz2"):
            plain.append(file)
            continue
        plain.append(scratch / f"{file.parent.name}-{number}-{file.stem}")
        compressed = gzip.GzipFile if file.suffix == ".gz" else bz2.BZ2File
        with compressed(file) as source, plain[-1].open("wb") as target:
            shutil.copyfileobj(source, target)
    return plain


def plain_text(file: Path, scratch: Path) -> Path:
    """The file, or a copy as DuckDB needs it.

    It takes lines apart at LF and CRLF; at a CR that stands by itself only where no other line ends so. In a copy each
    line ends with LF, and each byte that is not ASCII, which no valid rating has, is a question mark.
    """
    with file.open("rb") as source:
        if all(is_plain(chunk) for chunk in iter(lambda: source.read(CHUNK), b"")):
            return file
        source.seek(0)
        if source.read(len(BYTE_ORDER_MARK)) != BYTE_ORDER_MARK:
            source.seek(0)
        copy = scratch / f"{file.name}-plain"
        text = io.TextIOWrapper(source, "ascii", errors="replace", newline=None)
        with copy.open("x", encoding="ascii", errors="replace", newline="\n") as target:
            shutil.copyfileobj(text, target, CHUNK)
    return copy


def is_plain(data: bytes) -> bool:
    """Whether all is ASCII, and each CR has its LF behind it."""
    return data.isascii() and data.count(b"\r") == data.count(b"\r\n")


def lines_of(files: list[Path]) -> Iterator[str]:
    """The lines that are not blank: UTF-8 where that is valid, else ISO-8859-1."""
    for file in files:
        for line in file.read_bytes().removeprefix(BYTE_ORDER_MARK).splitlines():
            if line.strip(b" \t"):
                try:
                    yield line.decode("utf-8")
                except UnicodeDecodeError:
                    yield line.decode("iso-8859-1")


def movie_rows(lines: list[str], form: Format, genres: list[str]) -> list[tuple[int, str, str]]:
    """The movies: those with a proper id, title and genres; of several with the same id that on the smallest line."""
    movies: dict[int, tuple[int, str, str]] = {}
    for line in sorted(lines):
        movie = form.movie(line, genres) if "\0" not in line else None
        if movie is not None and all(movie) and proper_id(movie[0]):
            movies.setdefault(int(movie[0]), (int(movie[0]), *movie[1:]))
    return list(movies.values())


def proper_id(text: str) -> bool:
    """Whether this is how an id is written: plain digits, without leading zero, within 32 bits."""
    return text.isascii() and text.isdigit() and text[0] != "0" and int(text) < 2**31


def derive(connection: duckdb.DuckDBPyConnection, folder: Path, scratch: Path) -> int:
    """Makes the tables expected_<dataset> and returns how many lines of the input are in none of them."""
    form = format_in(folder)
    movie_files = plain_files(input_files(folder, form.movies), scratch)
    lines = list(lines_of(movie_files))
    movies = movie_rows(lines, form, genres_in(folder))
    connection.execute(f"CREATE TABLE expected_movies ({COLUMNS['movies']})")
    columns = [list(column) for column in zip(*movies, strict=True)] or [[], [], []]
    connection.execute("INSERT INTO expected_movies SELECT unnest(?), unnest(?), unnest(?)", columns)

    rating_files = plain_files(input_files(folder, form.ratings), scratch)
    headers = headers_of(movie_files, form.movies_header) + headers_of(rating_files, form.ratings_header)
    files = [str(plain_text(file, scratch)) for file in rating_files]
    # one column a line: a delimiter that no file holds
    connection.execute(
        f"""CREATE VIEW rating_lines AS SELECT line FROM read_csv(
               {sql_list(files)}, columns = {{'line': 'VARCHAR'}}, header = false, auto_detect = false,
               hive_partitioning = false, delim = '\x01\x02\x03\x04', quote = '', escape = '', strict_mode = false,
               max_line_size = 100000000
           ) WHERE trim(line, ' \t') <> ''"""
    )
    connection.execute(RATINGS_FROM_LINES, {"separator": form.separator})
    connection.execute(DERIVED)
    ratings = count(connection, "expected_ratings")
    return len(lines) + count(connection, "rating_lines") - headers - len(movies) - ratings


def headers_of(files: list[Path], header: str) -> int:
    """How many of the files begin with the header; all that hold a line must, where the format has one."""
    first_lines = [line for file in files if header and (line := first_line(file))]
    if any(line != header for line in first_lines):
        raise CannotCompareError(f"{', '.join(file.name for file in files)} should begin with the line {header}")
    return len(first_lines)


def first_line(file: Path) -> str:
    """The first line that is not blank; empty where there is none."""
    with file.open("rb") as source:
        lines = source.read(CHUNK).removeprefix(BYTE_ORDER_MARK).splitlines()
    return next((line.decode("iso-8859-1") for line in lines if line.strip(b" \t")), "")


def parquet(files: list[str]) -> str:
    """The rows of Parquet files as SQL; a folder `name=value` above them is no column."""
    return f"read_parquet({sql_list(files)}, hive_partitioning = false)"


def sql_list(files: list[str]) -> str:
    """The files as a list in SQL, with wildcards in their names escaped."""
    names = [re.sub(r"([*?\[])", r"[\1]", file).replace("'", "''") for file in files]
    return "[" + ", ".join(f"'{name}'" for name in names) + "]"


def count(connection: duckdb.DuckDBPyConnection, relation: str) -> int:
    """The rows of a table or view."""
    [rows] = connection.execute(f"SELECT count(*) FROM {relation}").fetchone() or (0,)
    return int(rows)


def datasets_in_manifest(output_path: Path) -> dict[str, dict[str, list[str]]] | None:
    """What the manifest says of each dataset; None where there is no manifest."""
    manifest = output_path / "_manifest.json"
    if not manifest.is_file():
        return None
    try:
        return dict(json.loads(manifest.read_bytes())["datasets"])
    except (ValueError, TypeError, KeyError) as error:
        raise CannotCompareError(f"{manifest} is damaged") from error


def published_files(output_path: Path, dataset: str) -> list[str]:
    """The files of a published dataset: those that the manifest lists, or all where there is no manifest."""
    datasets = datasets_in_manifest(output_path)
    if datasets is not None:
        return [str(output_path / file) for file in datasets.get(dataset, {"files": []})["files"]]
    return sorted(str(file) for file in (output_path / dataset).glob("*.parquet"))


def compare(connection: duckdb.DuckDBPyConnection, output_path: Path, dataset: str) -> list[str]:
    """Compares a published dataset with its expected table; the report's lines, one when they are equal."""
    files = published_files(output_path, dataset)
    if not files:
        return [f"{dataset}: DIFFERENT: {output_path / dataset} has no Parquet file"]
    connection.execute(f"CREATE OR REPLACE VIEW published AS FROM {parquet(files)}")
    described = connection.execute("SELECT column_name, column_type FROM (DESCRIBE published)").fetchall()
    columns = ", ".join(f"{name} {kind}" for name, kind in described)
    if columns != COLUMNS[dataset]:
        return [f"{dataset}: DIFFERENT: its columns are {columns}; expected {COLUMNS[dataset]}"]
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE difference AS
            SELECT * EXCLUDE (times), sum(times) AS times
            FROM (SELECT *, 1 AS times FROM published UNION ALL SELECT *, -1 FROM expected_{dataset})
            GROUP BY ALL HAVING sum(times) <> 0"""
    )
    missing, extra = connection.execute(
        "SELECT coalesce(sum(-times) FILTER (times < 0), 0), coalesce(sum(times) FILTER (times > 0), 0) FROM difference"
    ).fetchone() or (0, 0)
    verdict = "DIFFERENT" if missing or extra else "equal"
    report = [f"{dataset}: {verdict}: {count(connection, 'published'):,} rows, {missing:,} missing, {extra:,} extra"]
    connection.execute(f"SELECT * FROM difference ORDER BY ALL LIMIT {ROWS_SHOWN}")
    return report + [f"  {'missing' if row[-1] < 0 else 'extra'} {row[:-1]}" for row in connection.fetchall()]


def compare_rejects(connection: duckdb.DuckDBPyConnection, output_path: Path, expected: int) -> list[str]:
    """Compares the number of published rejects with the expected one; the report's line."""
    files = published_files(output_path, "rejects")
    rejects = count(connection, parquet(files)) if files else 0
    verdict = "equal" if rejects == expected else f"DIFFERENT: expected {expected:,}"
    return [f"rejects: {verdict}: {rejects:,} rows"]


def compared(dataset: str, comparison: Callable[[], list[str]]) -> list[str]:
    """The report of a comparison, also where a published file cannot be read."""
    try:
        return comparison()
    except duckdb.Error as error:
        return [f"{dataset}: DIFFERENT: {str(error).splitlines()[0]}"]


def check(input_path: str | Path, output_path: str | Path) -> bool:
    """Prints the comparison of all datasets and tells whether all are equal."""
    with tempfile.TemporaryDirectory() as scratch:
        output = local_folder(output_path, Path(scratch))
        if not output.is_dir():
            raise CannotCompareError(f"{output} not found")
        connection = duckdb.connect(config={"temp_directory": scratch, "preserve_insertion_order": False})
        rejected = derive(connection, release_folder(input_path, Path(scratch)), Path(scratch))
        reports = [compared(dataset, partial(compare, connection, output, dataset)) for dataset in COLUMNS]
        reports.append(compared("rejects", partial(compare_rejects, connection, output, rejected)))
        unknown = {*(datasets_in_manifest(output) or ())} - {*COLUMNS, "rejects"}
        reports += [[f"{dataset}: DIFFERENT: this check does not know it"] for dataset in sorted(unknown)]
    print("\n".join(line for report in reports for line in report))
    return all(": equal: " in report[0] for report in reports)


def parse_args(argv: list[str]) -> argparse.Namespace:
    """The command line: where the raw files are and where the job published."""
    parser = argparse.ArgumentParser(
        description="Derives the datasets again with DuckDB and compares them with what the job published.",
        epilog="Exit status: 0 equal, 1 different, 2 nothing to compare.",
        allow_abbrev=False,
    )
    here = Path(__file__).parent
    for name in ("input", "output"):
        folder = {"input": "dataset", "output": "output"}[name]
        kinds = {"input": "a folder or a .zip, here or at s3://bucket", "output": "a folder, or s3://bucket/folder"}[
            name
        ]
        parser.add_argument(
            f"--{name}_path",
            f"--{name}-path",
            default=here / folder,
            metavar="PATH",
            help=f"{kinds} (default: {folder})",
        )
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Checks as the command line says."""
    arguments = parse_args(argv)
    try:
        return 0 if check(arguments.input_path, arguments.output_path) else 1
    except (CannotCompareError, OSError, EOFError, ValueError, duckdb.Error, zlib.error) as error:
        print(f"check_local_results: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
