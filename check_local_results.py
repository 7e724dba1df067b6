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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NoReturn

import boto3
import duckdb
from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

TRIES = 10  # as often as a newer result may replace the one that is being compared
REFUSALS = (Boto3Error, BotoCoreError, ClientError)
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
    except REFUSALS as error:
        raise CannotCompareError(f"{address} cannot be read: {error}") from error
    return copy


def bucket_and_prefix(address: str) -> tuple[str, str]:
    """The bucket of s3://bucket/folder, and what the keys below the folder begin with."""
    scheme, _, place = address.partition("://")
    if scheme == "hdfs":
        raise CannotCompareError(f"{address}: compare a copy on disk: hadoop fs -copyToLocal {address} FOLDER")
    if scheme not in ("s3", "s3a"):
        raise CannotCompareError(f"{address} is neither a folder nor s3://bucket/folder")
    bucket, _, folder = place.rstrip("/").partition("/")
    return bucket, f"{folder}/" if folder else ""


def local_folder(path: str | Path, scratch: Path) -> Path:
    """The folder, or a copy of what a bucket holds below an address s3://bucket/folder."""
    if "://" not in str(path):
        return Path(path)
    bucket, prefix = bucket_and_prefix(str(path))
    copy = scratch / f"copy of {prefix.replace('/', ' ')}"
    client = boto3.client("s3")
    try:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for found in page.get("Contents", []):
                name = found["Key"][len(prefix) :]
                if name and not name.endswith("/"):
                    (copy / name).parent.mkdir(parents=True, exist_ok=True)
                    client.download_file(bucket, found["Key"], str(copy / name))
    except REFUSALS as error:
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


def parquet(files: list[Path]) -> str:
    """The rows of Parquet files as SQL; a folder `name=value` above them is no column."""
    return f"read_parquet({sql_list(files)}, hive_partitioning = false)"


def sql_list(files: Sequence[Path | str]) -> str:
    """The files as a list in SQL, with wildcards in their names escaped."""
    names = [re.sub(r"([*?\[])", r"[\1]", str(file)).replace("'", "''") for file in files]
    return "[" + ", ".join(f"'{name}'" for name in names) + "]"


def count(connection: duckdb.DuckDBPyConnection, relation: str, rows: str = "count(*)") -> int:
    """The rows of a table or view."""
    [found] = connection.execute(f"SELECT {rows} FROM {relation}").fetchone() or (0,)
    return int(found)


# --------------------------------------------------------------------------------------------------------------------
# What is published


@dataclass(frozen=True)
class Dataset:
    """A published dataset: its files as paths below the output, their bytes, and their rows.

    Without a manifest rows are None; manifests of early versions have no sizes.
    """

    files: list[str]
    sizes: list[int]
    rows: int | None


@dataclass(frozen=True)
class Published:
    """The result that stands: the name of its manifest, empty without one, and its datasets by name."""

    manifest: str
    datasets: dict[str, Dataset]


@dataclass(frozen=True)
class Folder:
    """An output on disk."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        """Whether it is there."""
        return self.path.is_dir()

    def names(self, folder: str) -> list[str]:
        """The names of the files in one of its folders; none if there is no such folder."""
        try:
            return [entry.name for entry in (self.path / folder).iterdir() if entry.is_file()]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if there is no such file."""
        try:
            return (self.path / name).read_bytes() if (self.path / name).is_file() else None
        except FileNotFoundError:
            return None

    def local(self, name: str, _: Path) -> Path:
        """Where the file is on this machine."""
        return self.path / name


class Bucket:
    """An output in a bucket, with the methods of Folder."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.bucket, self.prefix = bucket_and_prefix(address)
        self.client = boto3.client("s3")

    def __str__(self) -> str:
        return self.address

    def exists(self) -> bool:
        """Whether any object is below the address."""
        with self.refusals():
            return bool(self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix, MaxKeys=1)["KeyCount"])

    def names(self, folder: str) -> list[str]:
        """As those of Folder."""
        prefix = f"{self.prefix}{folder}/"
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix, Delimiter="/")
        with self.refusals():
            return [found["Key"][len(prefix) :] for page in pages for found in page.get("Contents", [])]

    def read(self, name: str) -> bytes | None:
        """As that of Folder."""
        with self.refusals():
            try:
                return bytes(self.client.get_object(Bucket=self.bucket, Key=f"{self.prefix}{name}")["Body"].read())
            except self.client.exceptions.NoSuchKey:
                return None

    def local(self, name: str, scratch: Path) -> Path:
        """Where a copy of the object is; nothing is there if there is no such object."""
        copy = scratch / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        with self.refusals():
            try:
                self.client.download_file(self.bucket, f"{self.prefix}{name}", str(copy))
            except ClientError as error:
                if error.response["Error"]["Code"] not in ("404", "NoSuchKey"):
                    raise
        return copy

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Turns what boto3 raises into CannotCompareError."""
        try:
            yield
        except REFUSALS as error:
            raise CannotCompareError(f"{self} cannot be read: {error}") from error


def published_at(output: Folder | Bucket, tries: int = TRIES) -> Published:
    """The result of the manifest with the highest number, else of `_manifest.json`, else of all files in the folders.

    Skips a manifest that is cut off. Raises CannotCompareError if nothing is published.
    """
    numbers = [name for name in output.names("_manifests") if re.fullmatch(r"[1-9][0-9]*\.json", name)]
    numbered = [f"_manifests/{name}" for name in sorted(numbers, key=lambda name: int(name[:-5]), reverse=True)]
    damaged = ""
    for name in [*numbered, "_manifest.json"]:
        content = output.read(name)
        if content is None and name in numbered:  # a higher number came
            return published_at(output, tries - 1) if tries else replaced_too_often(output)
        try:
            if content is not None:
                return Published(name, datasets_of(json.loads(content), f"{output}/{name}"))
        except (ValueError, RecursionError):
            damaged = damaged or name
    if damaged:
        raise CannotCompareError(f"{output}/{damaged} is damaged; run the job again")
    if not output.exists():
        raise CannotCompareError(f"{output} not found")
    datasets = {}
    for dataset in [*COLUMNS, "rejects"]:
        names = sorted(name for name in output.names(dataset) if name.endswith(".parquet"))
        datasets[dataset] = Dataset([f"{dataset}/{name}" for name in names], [], None)
    return Published("", datasets)


def datasets_of(manifest: Any, name: str) -> dict[str, Dataset]:
    """The datasets of a manifest. Raises CannotCompareError if there are none, or if the job did not write it."""
    try:
        datasets = {
            dataset: Dataset(list(told["files"]), list(told.get("file_bytes", [])), told["rows"])
            for dataset, told in manifest["datasets"].items()
        }
        is_of_the_job = all(map(is_dataset, datasets.values()))
    except (AttributeError, KeyError, TypeError):
        is_of_the_job = False
    if not is_of_the_job:
        raise CannotCompareError(f"{name} is not a manifest of the job: remove it, or check another --output_path")
    if not datasets:
        raise CannotCompareError(f"{name} lists no dataset: run the job first")
    return datasets


def is_dataset(found: Dataset) -> bool:
    """Whether the job may have written this: each file lies directly in a folder of the output."""
    parts = [file.split("/") for file in found.files]
    return (
        all(len(names) == 2 and not {"", ".", ".."} & set(names) for names in parts)  # noqa: PLR2004  # folder and name
        and len(found.sizes) in (0, len(found.files))
        and all(isinstance(number, int) for number in [found.rows, *found.sizes])
    )


def replaced_too_often(output: Folder | Bucket) -> NoReturn:
    """Raises CannotCompareError."""
    raise CannotCompareError(f"{output} was published anew {TRIES} times while it was read; run the check again")


# --------------------------------------------------------------------------------------------------------------------
# Comparison


def compare_all(
    connection: duckdb.DuckDBPyConnection, output: Folder | Bucket, published: Published, rejected: int, scratch: Path
) -> list[list[str]]:
    """Compares all datasets with their expected tables; the lines of the report for each, one if they are equal."""
    reports = []
    for dataset in [*COLUMNS, "rejects"]:
        told = published.datasets.get(dataset, Dataset([], [], None))
        files = [output.local(file, scratch) for file in told.files]
        try:
            difference = damage(connection, published, dataset, files)
            if difference:
                reports.append([f"{dataset}: DIFFERENT: {difference}"])
            elif dataset == "rejects":
                reports.append(compare_rejects(connection, files, rejected))
            elif files:
                reports.append(compare(connection, files, dataset))
            else:
                reports.append([f"{dataset}: DIFFERENT: {output}/{dataset} has no Parquet file"])
        except duckdb.Error as error:
            reports.append([f"{dataset}: DIFFERENT: {str(error).splitlines()[0]}"])
    unknown = published.datasets.keys() - {*COLUMNS, "rejects"}
    return reports + [[f"{dataset}: DIFFERENT: this check does not know it"] for dataset in sorted(unknown)]


def damage(connection: duckdb.DuckDBPyConnection, published: Published, dataset: str, files: list[Path]) -> str:
    """How the files of a dataset differ from what the manifest says of them; empty if they do not."""
    told = published.datasets.get(dataset)
    if told is None or not published.manifest:
        return ""
    if not files:
        return f"{published.manifest} lists no file of it"
    sizes = [size_of(file) for file in files]
    for name, size, expected in zip(told.files, sizes, told.sizes or sizes, strict=True):
        if size is None:
            return f"{name} is missing"
        if size != expected:
            return f"{name} has {size:,} bytes; {published.manifest} says {expected:,}"
    rows = count(connection, f"parquet_file_metadata({sql_list(files)})", "sum(num_rows)")
    return "" if rows == told.rows else f"its files have {rows:,} rows; {published.manifest} says {told.rows:,}"


def size_of(file: Path) -> int | None:
    """The bytes of a file; None if there is no such file."""
    try:
        return file.stat().st_size if file.is_file() else None
    except FileNotFoundError:
        return None


def compare(connection: duckdb.DuckDBPyConnection, files: list[Path], dataset: str) -> list[str]:
    """Compares the rows of a dataset with its expected table; the report's lines, one when they are equal."""
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


def compare_rejects(connection: duckdb.DuckDBPyConnection, files: list[Path], expected: int) -> list[str]:
    """Compares the number of published rejects with the expected one; the report's line."""
    rejects = count(connection, parquet(files)) if files else 0
    verdict = "equal" if rejects == expected else f"DIFFERENT: expected {expected:,}"
    return [f"rejects: {verdict}: {rejects:,} rows"]


def check(input_path: str | Path, output_path: str | Path) -> bool:
    """Prints the comparison of all datasets and tells whether all are equal."""
    output = Bucket(str(output_path)) if "://" in str(output_path) else Folder(Path(output_path))
    published_at(output)  # raises before the work begins
    with tempfile.TemporaryDirectory() as scratch:
        connection = duckdb.connect(config={"temp_directory": scratch, "preserve_insertion_order": False})
        rejected = derive(connection, release_folder(input_path, Path(scratch)), Path(scratch))
        for _ in range(TRIES):
            published = published_at(output)
            with tempfile.TemporaryDirectory(dir=scratch) as copies:
                reports = compare_all(connection, output, published, rejected, Path(copies))
            is_equal = all(": equal: " in report[0] for report in reports)
            # a newer result deletes the files of the one before it
            if is_equal or published_at(output) == published:
                print("\n".join(line for report in reports for line in report))
                return is_equal
    replaced_too_often(output)


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
