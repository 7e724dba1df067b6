#!/usr/bin/env python3
"""Publishes four Parquet datasets made from MovieLens movies.dat and ratings.dat.

ratings, movies, movies with their highest, lowest and average rating, and each user's top three movies.
Nothing is read before `output_result`; nothing of an earlier result is touched before the new one is complete.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import json
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum
from functools import reduce
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

if TYPE_CHECKING:  # pyspark takes half a second to import; --help and usage errors answer without it
    from collections.abc import Callable, Iterable, Iterator

    import pyarrow as pa
    from pyspark.sql import Column, DataFrame, SparkSession

# --------------------------------------------------------------------------------------------------------------------
# The contract

__version__ = "0.3.0"

EXIT_DONE = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_BAD_INPUT = 3
EXIT_BUSY = 4

ENGINES = ("sail", "spark")

# The published columns in their order, as pyspark names their types
SCHEMAS = {
    "ratings": "userId INT, movieId INT, rating FLOAT, timestamp BIGINT",
    "movies": "movieId INT, title STRING, genres STRING",
    "movies_with_stats": (
        "movieId INT, title STRING, genres STRING, max_rating FLOAT, min_rating FLOAT, avg_rating DOUBLE"
    ),
    "top_movies_per_user": "userId INT, movieId INT, rating FLOAT, timestamp BIGINT, rank INT",
    "rejects": "dataset STRING, reason STRING, line STRING",
}
TOP_RANKS = 3


def positive_integer_up_to(limit: int) -> str:
    """A regular expression for 1..limit in plain digits: no sign, no leading zero, no space.

    Being exact, it spares a second check: what matches can be cast.
    """
    digits = str(limit)
    alternatives = [f"[1-9][0-9]{{0,{len(digits) - 2}}}"]
    for place, digit in enumerate(digits):
        lowest = 1 if place == 0 else 0
        if int(digit) > lowest:
            rest = len(digits) - place - 1
            alternatives.append(f"{digits[:place]}[{lowest}-{int(digit) - 1}][0-9]{{{rest}}}")
    return f"(?:{'|'.join([*alternatives, digits])})"


# What a valid field is. The same text is a valid regular expression of Java (spark) and of Rust (sail);
# \z and not $, which in Java also matches before a line end.
ID = positive_integer_up_to(2**31 - 1)
RATING = r"(?:0\.[5-9][0-9]*|[1-4](?:\.[0-9]+)?|5(?:\.0+)?)"
TIMESTAMP = f"(?:0|-?{positive_integer_up_to(2**63 - 1)}|-{2**63})"
VALID_RATING_LINE = rf"^{ID}::{ID}::{RATING}::{TIMESTAMP}\z"

# Why a line is rejected; README.md explains each
NUL_BYTE = "NUL byte"
FIELDS_MISSING = "fields missing"
TOO_MANY_FIELDS = "too many fields"
NOT_AN_ID = "{} not a positive integer"
ID_BEYOND_INT = "{} beyond INT"
RATING_NOT_A_NUMBER = "rating not a number"
RATING_OUT_OF_RANGE = "rating not in 0.5..5"
TIMESTAMP_NOT_AN_INTEGER = "timestamp not an integer"
TIMESTAMP_BEYOND_BIGINT = "timestamp beyond BIGINT"
TITLE_MISSING = "title missing"
GENRES_MISSING = "genres missing"
DUPLICATE_MOVIE = "duplicate movieId"

Answer = TypeVar("Answer")

NAMES_SHOWN = 5
REJECTS_SHOWN = 10
CHARACTERS_SHOWN = 120

log = logging.getLogger("movielens_pipeline")


class PipelineError(Exception):
    """An expected failure: one line for the person who reads it, and the exit status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


# --------------------------------------------------------------------------------------------------------------------
# The session


def default_engine() -> str:
    """Spark under spark-submit, which sets PYSPARK_GATEWAY_PORT for the script; sail otherwise."""
    return "spark" if "PYSPARK_GATEWAY_PORT" in os.environ else "sail"


def get_spark_session(engine: str) -> SparkSession:
    """Starts the engine, `sail` or `spark`, and returns a session on it.

    Raises PipelineError when what the engine needs is not installed.
    """
    return start_sail() if engine == "sail" else start_spark()


def start_sail() -> SparkSession:
    """Starts Sail inside this process on a free loopback port; its settings are environment variables."""
    os.environ.setdefault("RUST_LOG", "off")
    os.environ.setdefault("SAIL_RUNTIME__MEMORY_POOL__TYPE", "fair")
    os.environ.setdefault("SAIL_RUNTIME__MEMORY_POOL__FAIR__MAX_SIZE", str(memory_for_sail()))
    # Sail ends a session that has not begun a query for a quarter of an hour, also while one is still running
    os.environ.setdefault("SAIL_SPARK__SESSION_TIMEOUT_SECS", str(7 * 24 * 3600))
    # writes ratings a quarter faster than the defaults, zstd(3) and dictionaries, do; the files are 9 % larger
    os.environ.setdefault("SAIL_PARQUET__COMPRESSION", "zstd(1)")
    os.environ.setdefault("SAIL_PARQUET__DICTIONARY_ENABLED", "false")
    os.environ.update(s3_variables_of_sail())
    # pyspark.sql.functions makes Connect columns only when this is set, where classic pyspark is installed too
    os.environ["SPARK_CONNECT_MODE_ENABLED"] = "1"
    try:
        from pysail.spark import SparkConnectServer
        from pyspark.sql.connect.session import SparkSession as ConnectSession
    except ImportError as error:
        raise PipelineError(
            EXIT_FAILURE,
            f"the sail engine is not installed ({error.name} is missing): "
            "pip install -r requirements-embedded.txt, or use spark-submit",
        ) from error
    server = SparkConnectServer("127.0.0.1", 0)
    server.start(background=True)
    _, port = server.listening_address
    session: SparkSession = ConnectSession.builder.remote(f"sc://127.0.0.1:{port}").getOrCreate()  # type: ignore[assignment]
    session._sail_server = server  # type: ignore[attr-defined]  # lives as long as the session
    return session


def s3_variables_of_sail() -> dict[str, str]:
    """How Sail reaches a store that speaks S3: http:// only when it is allowed, and its region is not looked up."""
    endpoint = s3_endpoint()
    if endpoint is None:
        return {}
    allow_http = str(endpoint.startswith("http://")).lower()
    return {"AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": allow_http, "AWS_REGION": aws_region() or "us-east-1"}


def memory_for_sail() -> int:
    """Bytes for Sail's operators: a third of what the machine or the container allows; beyond that they spill.

    The rest is for decoding and encoding Parquet, the Python process and the page cache.
    """
    allowed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        if limit.is_file() and (text := limit.read_text().strip()).isdigit():
            allowed = min(allowed, int(text))
    return allowed // 3


def start_spark() -> SparkSession:
    """Starts Apache Spark, or joins the one that spark-submit started; --conf settings hold."""
    os.environ.pop("SPARK_CONNECT_MODE_ENABLED", None)
    try:
        from pyspark import SparkConf
        from pyspark.errors import PySparkRuntimeError
        from pyspark.sql import SparkSession as ClassicSession
    except ImportError as error:
        raise PipelineError(
            EXIT_FAILURE, f"the spark engine is not installed ({error}): pip install -r requirements.txt"
        ) from error
    try:
        logging.getLogger("py4j").setLevel(logging.CRITICAL)  # it would log what it raises
        settings = SparkConf()
        settings.setIfMissing("spark.app.name", "movielens_pipeline")
        settings.setIfMissing("spark.log.level", "OFF")  # what fails is raised; the rest is chatter
        settings.setIfMissing("spark.ui.showConsoleProgress", str(sys.stderr.isatty()).lower())
        # what is kept is read twice: compressing it takes longer than that
        settings.setIfMissing("spark.sql.inMemoryColumnarStorage.compressed", "false")
        for name, value in s3_settings_of_spark().items():
            settings.setIfMissing(f"spark.hadoop.fs.s3a.{name}", value)
        return ClassicSession.builder.config(conf=settings).getOrCreate()
    except PySparkRuntimeError as error:
        raise PipelineError(
            EXIT_FAILURE, f"Spark did not start ({error}): it needs Java 17 or 21 on PATH or in JAVA_HOME"
        ) from error


def s3_settings_of_spark() -> dict[str, str]:
    """How Hadoop's S3 client reaches a store that speaks S3; AWS itself it finds, and EMR has settings of its own."""
    endpoint = s3_endpoint()
    if endpoint is None:
        return {}
    return {"endpoint": endpoint, "path.style.access": "true", "endpoint.region": aws_region() or "us-east-1"}


def is_sail(spark: SparkSession) -> bool:
    """Whether the session is one on Sail, which is reached over Spark Connect."""
    return ".connect." in type(spark).__module__


def engine_version(spark: SparkSession) -> str:
    """The version of the engine behind the session."""
    if is_sail(spark):
        import pysail

        return str(pysail.__version__)
    return str(spark.version)


# --------------------------------------------------------------------------------------------------------------------
# Reading


class Reading(Enum):
    """How ratings.dat is read; on Spark all are the same, which is fast and survives any bytes."""

    COLUMNS = "typed columns: the fastest, for files of which every line is known to be valid"
    LINES = "lines, of which the valid ones are cut"
    BYTES = "lines, slower, whatever bytes they hold"


def load_ratings(spark: SparkSession, input_path: str, *, reading: Reading = Reading.LINES) -> DataFrame:
    """Describes the valid lines of ratings.dat below `input_path`: userId, movieId, rating, timestamp, in no order.

    Types as in SCHEMAS, timestamp in epoch seconds (UTC). Lines that are not valid are left out; `find_rejects`
    tells which and why. Raises PipelineError where there is no input.
    """
    from pyspark.sql import functions as F

    files = find_input(spark, input_path, "ratings.dat")
    if is_sail(spark) and reading is Reading.COLUMNS:
        # one character separates, so between two columns there is an empty one
        fields = "userId INT, a STRING, movieId INT, b STRING, rating FLOAT, c STRING, timestamp BIGINT"
        return read_csv_on_sail(spark, files, fields, ":").select("userId", "movieId", "rating", "timestamp")
    lines = read_lines(spark, files) if reading is Reading.BYTES else read_lines_fast(spark, files)
    # One regular expression says what is valid; checks of the pieces would be inlined into each use of them,
    # three times slower on spark.
    valid = lines.filter(F.col("line").rlike(VALID_RATING_LINE))
    # With three separators for sure, `substring_index` is right, and on spark takes half the time of `field`.
    first_two, last_two = F.substring_index("line", "::", 2), F.substring_index("line", "::", -2)
    return valid.select(
        F.substring_index(first_two, "::", 1).cast("int").alias("userId"),
        F.substring_index(first_two, "::", -1).cast("int").alias("movieId"),
        F.substring_index(last_two, "::", 1).cast("float").alias("rating"),
        F.substring_index(last_two, "::", -1).cast("bigint").alias("timestamp"),
    )


def load_movies(spark: SparkSession, input_path: str) -> DataFrame:
    """Describes the valid lines of movies.dat below `input_path`: movieId, title, genres, in no order.

    One row per movieId. Raises PipelineError where there is no input.
    """
    from pyspark.sql import functions as F

    return (
        checked_movie_lines(read_lines(spark, find_input(spark, input_path, "movies.dat")))
        .filter(F.col("reason").isNull())
        .select(F.col("movieId").cast("int").alias("movieId"), "title", "genres")
    )


def field(column: str, number: int) -> Column:
    """The number-th of the fields that `::` separates, counted from 1."""
    from pyspark.sql import functions as F

    return F.split_part(F.col(column), F.lit("::"), F.lit(number))


def checked_movie_lines(lines: DataFrame) -> DataFrame:
    """Cuts lines of movies.dat: file, line, movieId, title, genres (STRING) and reason, NULL for a valid line.

    The title is all between the first `::` and the last. Of lines with the same movieId the one that sorts first
    is valid, whatever their order.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    cut = lines.select(
        "file",
        "line",
        field("line", 1).alias("movieId"),
        F.regexp_extract("line", r"(?s)^.*?::(.*)::.*\z", 1).alias("title"),
        F.regexp_extract("line", r"(?s)^.*::(.*)\z", 1).alias("genres"),
    )
    reason = F.when(F.col("line").rlike(r"\x00"), NUL_BYTE).when(~F.col("line").rlike("(?s)::.*::"), FIELDS_MISSING)
    reason = (
        id_reason(reason, F.col("movieId"), "movieId")
        .when(F.col("title") == "", TITLE_MISSING)
        .when(F.col("genres") == "", GENRES_MISSING)
    )
    same_movie = Window.partitionBy("movieId").orderBy(F.col("reason").asc_nulls_first(), "line")
    return (
        cut.withColumn("reason", reason)
        .withColumn("occurrence", F.row_number().over(same_movie))
        .select(
            "file",
            "line",
            "movieId",
            "title",
            "genres",
            F.coalesce("reason", F.when(F.col("occurrence") > 1, DUPLICATE_MOVIE)).alias("reason"),
        )
    )


def rejected_rating_lines(lines: DataFrame) -> DataFrame:
    """The lines of ratings.dat that are not valid, with the first thing wrong in each: file, line, reason."""
    from pyspark.sql import functions as F

    rating, timestamp = field("line", 3), field("line", 4)
    # patterns and not split(), which takes all memory when a line of 50 MB is nothing but separators
    reason = (
        F.when(F.col("line").rlike(r"\x00"), NUL_BYTE)
        .when(~F.col("line").rlike("(?s)::.*::.*::"), FIELDS_MISSING)
        .when(F.col("line").rlike("(?s)::.*::.*::.*::"), TOO_MANY_FIELDS)
    )
    for number, name in ((1, "userId"), (2, "movieId")):
        reason = id_reason(reason, field("line", number), name)
    reason = (
        reason.when(~rating.rlike(r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?\z"), RATING_NOT_A_NUMBER)
        .when(~rating.rlike(rf"^{RATING}\z"), RATING_OUT_OF_RANGE)
        .when(~timestamp.rlike(r"^(?:0|-?[1-9][0-9]*)\z"), TIMESTAMP_NOT_AN_INTEGER)
        .otherwise(TIMESTAMP_BEYOND_BIGINT)
    )
    return lines.filter(~F.col("line").rlike(VALID_RATING_LINE)).select("file", "line", reason.alias("reason"))


def id_reason(reason: Column, value: Column, name: str) -> Column:
    """Adds to a chain of reasons what can be wrong with an id."""
    return reason.when(~value.rlike(r"^[1-9][0-9]*\z"), NOT_AN_ID.format(name)).when(
        ~value.rlike(rf"^{ID}\z"), ID_BEYOND_INT.format(name)
    )


def find_rejects(spark: SparkSession, input_path: str) -> DataFrame:
    """Describes the lines that are not valid: file, dataset (`movies` or `ratings`), reason, line; all STRING."""
    from pyspark.sql import functions as F

    def rejects(dataset: str, lines: DataFrame) -> DataFrame:
        return lines.select("file", F.lit(dataset).alias("dataset"), "reason", "line")

    movie_lines = checked_movie_lines(read_lines(spark, find_input(spark, input_path, "movies.dat")))
    rating_lines = read_lines(spark, find_input(spark, input_path, "ratings.dat"))
    return rejects("movies", movie_lines.filter(F.col("reason").isNotNull())).unionAll(
        rejects("ratings", rejected_rating_lines(rating_lines))
    )


def find_input(spark: SparkSession, input_path: str, name: str) -> list[Entry]:
    """The files that make up an input: `name`, or `name.gz` or `name.bz2`; a file or a folder of part files.

    Raises PipelineError, naming what was looked for and what was found there.
    """
    folder = absolute(input_path)
    storage = storage_for(spark, folder)
    found = {entry.name: entry for entry in storage.entries(folder)}
    names = [f"{name}{suffix}" for suffix in ("", *COMPRESSIONS) if f"{name}{suffix}" in found]
    wanted = join(folder, name)
    if not names:
        raise PipelineError(EXIT_BAD_INPUT, f"{wanted} not found: {what_is_there(storage, folder, sorted(found))}")
    if len(names) > 1:
        raise PipelineError(EXIT_BAD_INPUT, f"{wanted} is there more than once, as {', '.join(names)}: keep one")
    [entry] = (found[present] for present in names)
    parts = [entry]
    if entry.is_folder:
        parts = [part for part in storage.entries(entry.path) if not part.name.startswith(("_", "."))]
        for part in parts:
            if part.is_folder:
                raise PipelineError(
                    EXIT_BAD_INPUT, f"{entry.path} should hold part files only, but {part.name} is a folder"
                )
    for part in parts:
        if part.path.startswith("/") and not os.access(part.path, os.R_OK):
            raise PipelineError(EXIT_BAD_INPUT, f"{part.path} cannot be read: permission denied")
    if not sum(part.size for part in parts):
        raise PipelineError(EXIT_BAD_INPUT, f"{entry.path} is empty")
    return sorted(parts, key=lambda part: part.path)


def find_inputs(spark: SparkSession, input_path: str) -> list[Entry]:
    """The files of both inputs. Raises PipelineError as `find_input` does."""
    return find_input(spark, input_path, "movies.dat") + find_input(spark, input_path, "ratings.dat")


def what_is_there(storage: Storage, folder: str, names: list[str]) -> str:
    """Says what there is in place of what was looked for."""
    if names:
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        return f"{folder} holds {', '.join(names[:NAMES_SHOWN])}{more}"
    above = folder.rpartition("/")[0]
    if above.endswith(":/"):
        return f"the bucket {folder} is empty"
    parent = {entry.path: entry for entry in storage.entries(above)}
    if folder not in parent:
        return f"there is no {folder}"
    return (
        f"{folder} is an empty folder"
        if parent[folder].is_folder
        else f"{folder} is a file, not the folder that holds it"
    )


def read_lines_fast(spark: SparkSession, files: list[Entry]) -> DataFrame:
    r"""The lines of text files that are not empty: line STRING. A byte that is not UTF-8 comes as U+FFFD.

    On Sail a line that holds \\x03 fails the query.
    """
    from pyspark.sql import functions as F

    if is_sail(spark):  # its CSV reader is three times as fast as its text reader, and alone in taking any bytes
        return read_csv_on_sail(spark, files, "line STRING", "\x03")
    lines = spark.read.text([path_to_read(spark, file.path) for file in files])
    return lines.select(F.col("value").alias("line")).filter(F.col("line") != "")


def read_csv_on_sail(spark: SparkSession, files: list[Entry], schema: str, separator: str) -> DataFrame:
    """The lines that are not empty, cut into the columns of the schema. A line with more or fewer fails the query."""
    from pyspark.sql import DataFrame

    by_compression = groupby(sorted(files, key=compression), key=compression)
    return reduce(
        DataFrame.unionAll,
        (
            spark.read.csv(
                [path_to_read(spark, file.path) for file in group],
                schema=schema,
                sep=separator,
                quote="\n",  # disables quoting, for no field begins with a line end
                encoding="ISO-8859-1",
            )
            for _, group in by_compression
        ),
    )


COMPRESSIONS = (".gz", ".bz2")


def compression(file: Entry) -> str:
    """The suffix that tells how a file is compressed; empty for plain text."""
    suffix = PurePosixPath(file.path).suffix
    return suffix if suffix in COMPRESSIONS else ""


def read_lines(spark: SparkSession, files: list[Entry]) -> DataFrame:
    """The lines of text files that are not blank, to the letter: file STRING, line STRING.

    A line that is valid UTF-8 is UTF-8; any other is ISO-8859-1.
    """
    from pyspark.sql import functions as F

    if is_sail(spark):
        paths = spark.createDataFrame([(file.path,) for file in files], "file STRING")
        lines = paths.mapInArrow(split_lines, "file STRING, line STRING")
    else:
        text = spark.read.text([path_to_read(spark, file.path) for file in files])
        raw = F.col("value")  # Spark keeps the bytes as they are
        line = F.when(F.is_valid_utf8(raw), raw).otherwise(F.decode(raw.cast("binary"), "ISO-8859-1"))
        lines = text.select(F.col("_metadata.file_path").alias("file"), line.alias("line"))
    return lines.filter(F.col("line").rlike(r"[^ \t]"))


def split_lines(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Maps files (file STRING) to their lines (file STRING, line STRING), for mapInArrow."""
    import pyarrow as pa

    for batch in batches:
        for path in batch.column(0).to_pylist():
            with open_input(path) as file:
                for lines in decoded_chunks(file):
                    columns = [pa.array([path] * len(lines), pa.string()), pa.array(lines, pa.string())]
                    yield pa.RecordBatch.from_arrays(columns, ["file", "line"])


@contextmanager
def open_input(path: str) -> Iterator[Any]:
    """Opens a file on disk or on S3 for its bytes, decompressed."""
    with raw_file(path) as file:
        if path.endswith(".gz"):
            yield gzip.GzipFile(fileobj=file)
        elif path.endswith(".bz2"):
            yield bz2.BZ2File(file)
        else:
            yield file


def raw_file(path: str) -> Any:
    """A file on disk; of one on S3 a copy that goes when it is closed, for a stream breaks with its connection."""
    if path.startswith("/"):
        return Path(path).open("rb")
    bucket, key = bucket_and_key(path)
    copy = tempfile.TemporaryFile()  # noqa: SIM115  # for the caller to close
    s3_client().download_fileobj(bucket, key, copy)
    copy.seek(0)
    return copy


def decoded_chunks(file: Any) -> Iterator[list[str]]:
    """Yields the lines of a binary file, some megabytes at a time."""
    rest = file.read(3).removeprefix(b"\xef\xbb\xbf")  # a byte-order mark
    while chunk := file.read(8 * 2**20):
        whole, end, tail = chunk.rpartition(b"\n")
        if end:
            yield decoded(rest + whole)
            rest = tail
        else:
            rest += tail
    yield decoded(rest)


def decoded(lines: bytes) -> list[str]:
    """Splits at line ends; each line is UTF-8 if that is valid, else ISO-8859-1."""
    lines = lines.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    try:
        return lines.decode().split("\n")
    except UnicodeDecodeError:
        return [decoded_line(line) for line in lines.split(b"\n")]


def decoded_line(line: bytes) -> str:
    """The line as UTF-8 if it is valid UTF-8, else as ISO-8859-1."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("iso-8859-1")


# --------------------------------------------------------------------------------------------------------------------
# Transforming


def movie_statistics(ratings: DataFrame, movies: DataFrame) -> DataFrame:
    """Describes movies with max_rating, min_rating and avg_rating, NULL where nobody rated; one row per movie.

    avg_rating is the exact mean, whatever the order of addition: a FLOAT from 0.5 to 5 is a multiple of 2^-24,
    so a DOUBLE adds up a hundred million of them without rounding.
    """
    from pyspark.sql import functions as F

    rating = F.col("rating")
    statistics = ratings.groupBy("movieId").agg(
        F.max(rating).alias("max_rating"),
        F.min(rating).alias("min_rating"),
        F.avg(rating.cast("double")).alias("avg_rating"),
    )
    return movies.join(statistics, on="movieId", how="left").select(
        "movieId", "title", "genres", "max_rating", "min_rating", "avg_rating"
    )


def top_movies_per_user(ratings: DataFrame) -> DataFrame:
    """Describes each user's three best ratings: userId, movieId, rating, timestamp, rank (1..3).

    Best is the highest rating, of those the newest, of those the lowest movieId: a total order, so any two runs
    agree. Each line of ratings.dat counts; a movie that a user rated twice may stand there twice.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    best_first = Window.partitionBy("userId").orderBy(
        F.col("rating").desc(), F.col("timestamp").desc(), F.col("movieId").asc()
    )
    return (
        possible_top_ratings(ratings)
        .withColumn("rank", F.row_number().over(best_first))
        .filter(F.col("rank") <= TOP_RANKS)
        .select("userId", "movieId", "rating", "timestamp", "rank")
    )


def possible_top_ratings(ratings: DataFrame) -> DataFrame:
    """The ratings that can be among their user's three best; the others, seven of eight, need not be sorted.

    The movies fall into four buckets. Of a user's highest ratings in each, three lines at least reach the third, so
    what is below that one is not among the three best. Who has ratings in fewer than three buckets keeps all.
    """
    from pyspark.sql import functions as F

    rating, bucket = F.col("rating"), F.col("movieId") % 4
    highest = F.array(*(F.max(F.when(bucket == number, rating)) for number in range(4)))
    third = F.coalesce(F.sort_array(highest, asc=False)[TOP_RANKS - 1], F.lit(0.0))
    bounds = ratings.groupBy("userId").agg(third.alias("bound"))
    return (
        ratings.join(bounds, on="userId", how="inner")
        .filter(rating >= F.col("bound"))
        # without it Sail sorts before it filters
        .repartition("userId")
    )


def parsed_once(ratings: DataFrame, staged_ratings: str) -> DataFrame:
    """The ratings for all that is derived from them, so that the text is parsed once and not for each dataset.

    Spark keeps what it parsed first; Sail, which cannot, reads it back from the Parquet that `output_result`
    writes first.
    """
    spark = ratings.sparkSession
    if is_sail(spark):
        return read_dataset(spark, staged_ratings, "ratings")
    return ratings.persist()


# --------------------------------------------------------------------------------------------------------------------
# Writing


def output_result(
    ratings_df: DataFrame,
    movies_df: DataFrame,
    movies_with_stats_df: DataFrame,
    top_movies_per_user_df: DataFrame,
    output_base_path: str,
) -> dict[str, int]:
    """Computes the four datasets and writes each into its folder below the path; replaces what is there.

    This is where the work is done: everything before only describes it. Returns the rows of each dataset, as read
    back from what was written.
    """
    frames = {
        "ratings": ratings_df,  # first: on Sail the others may be derived from it
        "movies": movies_df,
        "movies_with_stats": movies_with_stats_df,
        "top_movies_per_user": top_movies_per_user_df,
    }
    return {name: write_dataset(frame, absolute(output_base_path), name) for name, frame in frames.items()}


def write_dataset(frame: DataFrame, folder: str, name: str) -> int:
    """Writes one dataset below the folder and returns how many rows its Parquet footers count."""
    spark, path = frame.sparkSession, join(folder, name)
    with phase(name, timer=is_sail(spark)) as done:  # spark shows its own progress
        frame.write.mode("overwrite").parquet(path_to_write(spark, path))
        rows = read_dataset(spark, path, name).count()
        done(count_of(rows, "row"))
    return rows


def read_dataset(spark: SparkSession, path: str, name: str) -> DataFrame:
    """One of the datasets as it was written."""
    return spark.read.schema(SCHEMAS[name]).parquet(path_to_read(spark, path))


def count_of(number: int, noun: str) -> str:
    """`1 line`, `2,000 lines`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@contextmanager
def phase(name: str, *, timer: bool) -> Iterator[Callable[[str], None]]:
    """Logs what was done and the seconds it took; with `timer`, a terminal shows that it is under way."""
    started = time.monotonic()
    results: list[str] = []
    finished = threading.Event()

    def tick() -> None:
        while not finished.wait(0.5):
            sys.stderr.write(f"\r{name}: {time.monotonic() - started:.0f} s ")
            sys.stderr.flush()
        sys.stderr.write("\r\x1b[K")

    ticker = threading.Thread(target=tick, daemon=True)
    if timer and sys.stderr.isatty():
        ticker.start()
    try:
        yield results.append
    finally:
        finished.set()
        if ticker.is_alive():
            ticker.join()
    log.info("%s: %s in %.1f s", name, ", ".join(results), time.monotonic() - started)


# --------------------------------------------------------------------------------------------------------------------
# Storage: paths, and what publishing needs of disk, HDFS and S3


def absolute(path: str) -> str:
    """A local path as an absolute one, without `file:`; an address of a store without a slash at the end."""
    scheme, separator, _ = path.partition("://")
    if separator and scheme != "file":
        return path.rstrip("/")
    if path.startswith("file:"):
        path = urllib.parse.unquote(urllib.parse.urlsplit(path).path)
    return os.path.abspath(Path(path).expanduser())  # noqa: PTH100  # Path.resolve() would follow links


def same_place(path: str, other: str) -> bool:
    """Whether two paths name the same folder; s3:// and s3a:// do."""
    return re.sub("^s3a://", "s3://", path) == re.sub("^s3a://", "s3://", other)


def join(folder: str, *names: str) -> str:
    """The path of something below a folder."""
    return "/".join([folder.rstrip("/"), *names])


def path_to_write(spark: SparkSession, path: str) -> str:
    """The path as the engine takes it, to the letter and on the local disk where no store is named."""
    if is_sail(spark):
        return urllib.parse.quote(path if "://" in path else f"file://{path}", safe="/:")
    if path.startswith("s3://") and not spark._jsc.hadoopConfiguration().get("fs.s3.impl"):
        return f"s3a{path[2:]}"  # the name of Hadoop's own S3 client; EMR has one for s3://
    return path if "://" in path else f"file://{path}"


def path_to_read(spark: SparkSession, path: str) -> str:
    """As `path_to_write`, for reading, where spark takes wildcards unless they are escaped."""
    path = path_to_write(spark, path)
    return path if is_sail(spark) else re.sub(r"([\\*?\[\]{}])", r"\\\1", path)


@dataclass(frozen=True)
class Entry:
    """A file or folder: its size in bytes, and when it was last changed, in seconds or another unit of the store."""

    path: str
    size: int
    modified: float
    is_folder: bool

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


class Storage(Protocol):
    """What publishing needs of a file system or an object store. Each operation can be repeated."""

    def entries(self, folder: str) -> list[Entry]:
        """What is directly in the folder; nothing when it is missing or a file."""

    def uploads(self, folder: str) -> list[str]:
        """The names in the folder below which files were begun and not completed, as S3 keeps them unseen."""

    def read(self, path: str) -> bytes | None:
        """The content of a file; None when it is missing."""

    def create(self, path: str, content: bytes) -> bool:
        """Writes a file unless there is one; tells whether it did. Of several at once one succeeds."""

    def move(self, source: str, target: str) -> None:
        """Moves a file, replacing the target. A source that is missing was moved before."""

    def delete(self, *files: str) -> None:
        """Deletes files; one that is missing was deleted before."""

    def delete_folder(self, folder: str) -> None:
        """Deletes a folder with all in it, and what was begun and not completed below it."""


def storage_for(spark: SparkSession, path: str) -> Storage:
    """The storage that holds the path: the disk for both engines, a store by the means of the session's engine."""
    if path.startswith("/"):
        return DiskStorage()
    return S3Storage() if is_sail(spark) else HadoopStorage(spark, path)


class DiskStorage:
    """Storage on the local disk, by the operating system's own means, which exclude a second creator."""

    def entries(self, folder: str) -> list[Entry]:
        entries = []
        with suppress(FileNotFoundError, NotADirectoryError):
            for found in os.scandir(folder):
                with suppress(FileNotFoundError):  # gone meanwhile
                    status = found.stat()
                    entries.append(Entry(join(folder, found.name), status.st_size, status.st_mtime, found.is_dir()))
        return entries

    def uploads(self, folder: str) -> list[str]:  # noqa: ARG002  # the protocol's
        return []

    def read(self, path: str) -> bytes | None:
        try:
            return Path(path).read_bytes()
        except FileNotFoundError:
            return None

    def create(self, path: str, content: bytes) -> bool:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        try:
            with Path(path).open("xb") as file:
                file.write(content)
        except FileExistsError:
            return False
        return True

    def move(self, source: str, target: str) -> None:
        if os.path.lexists(source):
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(source, target)

    def delete(self, *files: str) -> None:
        for file in files:
            Path(file).unlink(missing_ok=True)

    def delete_folder(self, folder: str) -> None:
        while Path(folder).is_dir():
            with suppress(FileNotFoundError):  # another run deletes it, too
                shutil.rmtree(folder)


class S3Storage:
    """Storage on S3, for the embedded engine."""

    def __init__(self) -> None:
        self.client = s3_client()

    def entries(self, folder: str) -> list[Entry]:
        bucket, prefix = self.bucket_and_prefix(folder)
        entries: list[Entry] = []
        for page in self.pages("list_objects_v2", Bucket=bucket, Prefix=prefix, Delimiter="/"):
            entries += (
                Entry(join(folder, found["Prefix"][len(prefix) : -1]), 0, 0.0, is_folder=True)
                for found in page.get("CommonPrefixes", [])
            )
            entries += (
                Entry(join(folder, name), found["Size"], found["LastModified"].timestamp(), is_folder=False)
                for found in page.get("Contents", [])
                if (name := found["Key"][len(prefix) :])  # without one it is the mark of the folder itself
            )
        return entries

    def uploads(self, folder: str) -> list[str]:
        bucket, prefix = self.bucket_and_prefix(folder)
        pages = self.pages("list_multipart_uploads", Bucket=bucket, Prefix=prefix)
        keys = [upload["Key"] for page in pages for upload in page.get("Uploads", [])]
        return sorted({key[len(prefix) :].partition("/")[0] for key in keys})

    def read(self, path: str) -> bytes | None:
        bucket, key = bucket_and_key(path)
        try:
            return bytes(self.client.get_object(Bucket=bucket, Key=key)["Body"].read())
        except self.client.exceptions.NoSuchKey:
            return None

    def create(self, path: str, content: bytes) -> bool:
        bucket, key = bucket_and_key(path)
        try:
            self.client.put_object(Bucket=bucket, Key=key, Body=content, IfNoneMatch="*")
        except self.client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict"):
                return False
            raise
        return True

    def move(self, source: str, target: str) -> None:
        from boto3.s3.transfer import TransferConfig

        (bucket, key), (target_bucket, target_key) = bucket_and_key(source), bucket_and_key(target)
        in_parts = TransferConfig(multipart_threshold=S3_COPY_BYTES, multipart_chunksize=S3_COPY_BYTES)
        try:
            self.client.copy({"Bucket": bucket, "Key": key}, target_bucket, target_key, Config=in_parts)
        except self.client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
                return
            raise
        self.client.delete_object(Bucket=bucket, Key=key)

    def delete(self, *files: str) -> None:
        keys = [{"Key": bucket_and_key(file)[1]} for file in files]
        for start in range(0, len(keys), S3_KEYS_AT_ONCE):
            bucket, _ = bucket_and_key(files[0])
            chunk = {"Objects": keys[start : start + S3_KEYS_AT_ONCE], "Quiet": True}
            for error in self.client.delete_objects(Bucket=bucket, Delete=chunk).get("Errors", []):
                raise OSError(f"could not delete s3://{bucket}/{error['Key']}: {error['Code']}: {error['Message']}")

    def delete_folder(self, folder: str) -> None:
        bucket, prefix = self.bucket_and_prefix(folder)
        for page in self.pages("list_objects_v2", Bucket=bucket, Prefix=prefix):
            self.delete(*(f"s3://{bucket}/{found['Key']}" for found in page.get("Contents", [])))
        for page in self.pages("list_multipart_uploads", Bucket=bucket, Prefix=prefix):
            for upload in page.get("Uploads", []):
                with suppress(self.client.exceptions.NoSuchUpload):  # completed or aborted meanwhile
                    self.client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    def pages(self, operation: str, **arguments: str) -> Any:
        """The pages of an operation that lists."""
        return self.client.get_paginator(operation).paginate(**arguments)

    @staticmethod
    def bucket_and_prefix(folder: str) -> tuple[str, str]:
        """The bucket, and what the keys below the folder begin with."""
        bucket, key = bucket_and_key(folder)
        return bucket, f"{key}/" if key else ""


def bucket_and_key(path: str) -> tuple[str, str]:
    """`bucket` and `a/b` of s3://bucket/a/b."""
    bucket, _, key = path.partition("://")[2].partition("/")
    return bucket, key


S3_COPY_BYTES = 256 * 2**20  # S3 copies at most 5 GB in one request, and these in parallel
S3_KEYS_AT_ONCE = 1000


def s3_client() -> Any:
    """A client of S3 with bounded patience; credentials come from wherever the AWS command line takes them."""
    import boto3
    from botocore.config import Config

    endpoint = s3_endpoint()
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=aws_region(),
        config=Config(
            connect_timeout=5,
            read_timeout=20,
            retries={"mode": "standard", "total_max_attempts": 5},
            s3={"addressing_style": "path" if endpoint else "auto"},
        ),
    )


def s3_endpoint() -> str | None:
    """The address of a store that speaks S3, as AWS's own tools take it; None for AWS."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def aws_region() -> str | None:
    """The region that the environment names."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")


class HadoopStorage:
    """Storage through Hadoop's FileSystem, for spark: HDFS, or S3 by what the session itself reads and writes with."""

    def __init__(self, spark: SparkSession, path: str) -> None:
        self.spark = spark
        self.jvm: Any = spark._jvm
        self.fs = self.path(path).getFileSystem(spark._jsc.hadoopConfiguration())

    def path(self, path: str) -> Any:
        """Hadoop's Path of a path of ours."""
        return self.jvm.org.apache.hadoop.fs.Path(path_to_write(self.spark, path))

    def entries(self, folder: str) -> list[Entry]:
        try:
            found = self.fs.listStatus(self.path(folder))
        except Exception as error:
            if is_java(error, "FileNotFoundException"):
                return []
            raise
        entries = [
            Entry(
                join(folder, status.getPath().getName()),
                status.getLen(),
                status.getModificationTime(),
                status.isDirectory(),
            )
            for status in found
        ]
        # of a file Hadoop lists the file itself
        return [] if len(found) == 1 and found[0].getPath().toString() == self.path(folder).toString() else entries

    def uploads(self, folder: str) -> list[str]:
        if not self.is_s3a():
            return []
        _, key = bucket_and_key(folder)
        found, names = self.fs.listUploads(f"{key}/"), set()
        while found.hasNext():
            names.add(found.next().key()[len(key) + 1 :].partition("/")[0])
        return sorted(names)

    def is_s3a(self) -> bool:
        """Whether this is Hadoop's own S3 client; EMR may have another."""
        return str(self.fs.getClass().getSimpleName()) == "S3AFileSystem"

    def read(self, path: str) -> bytes | None:
        try:
            stream = self.fs.open(self.path(path))
        except Exception as error:
            if is_java(error, "FileNotFoundException"):
                return None
            raise
        try:
            return bytes(self.jvm.org.apache.commons.io.IOUtils.toByteArray(stream))
        finally:
            stream.close()

    def create(self, path: str, content: bytes) -> bool:
        # The plain create() of S3A looks first and writes then, so that several at once would succeed; asked for a
        # conditional write it leaves the decision to the store. HDFS decides by itself.
        target, conditional = self.path(path), "fs.option.create.conditional.overwrite"
        creation = self.fs.createFile(target).overwrite(False).recursive()
        if self.fs.hasPathCapability(target, conditional):
            creation = creation.opt(conditional, True)
        elif str(self.fs.getUri().getScheme()).startswith("s3"):
            log.warning(
                "the S3 client of this Hadoop has no conditional writes: see to it that no other run publishes now"
            )
        try:
            stream = creation.build()
            stream.write(content)
            stream.close()
        except Exception as error:
            if is_java(error, "FileAlreadyExistsException", "RemoteFileChangedException"):
                return False
            raise
        return True

    def move(self, source: str, target: str) -> None:
        if self.renamed(source, target) or not self.fs.exists(self.path(source)):
            return
        # HDFS wants the folder to be there, and none of the two replaces a target
        self.fs.mkdirs(self.path(target.rpartition("/")[0]))
        self.fs.delete(self.path(target), False)
        if not self.renamed(source, target) and self.fs.exists(self.path(source)):
            raise PipelineError(EXIT_FAILURE, f"could not move {source} to {target}")

    def renamed(self, source: str, target: str) -> bool:
        """Renames a file; tells whether it did."""
        try:
            return bool(self.fs.rename(self.path(source), self.path(target)))
        except Exception as error:
            if is_java(error, "FileAlreadyExistsException", "FileNotFoundException"):
                return False
            raise

    def delete(self, *files: str) -> None:
        in_parallel(lambda file: self.fs.delete(self.path(file), False), files)

    def delete_folder(self, folder: str) -> None:
        self.fs.delete(self.path(folder), True)
        if self.is_s3a():
            uploader = self.fs.createMultipartUploader(self.path(folder)).build()
            uploader.abortUploadsUnderPath(self.path(folder)).get()
            uploader.close()


def is_java(error: Exception, *names: str) -> bool:
    """Whether an error is an exception of Java of one of these classes."""
    thrown = getattr(error, "java_exception", None)
    return thrown is not None and thrown.getClass().getSimpleName() in names


def in_parallel(operation: Callable[[str], object], paths: Iterable[str]) -> None:
    """Does independent operations of a storage several at once, for on S3 each is a few round trips."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(operation, paths))


def files_below(storage: Storage, folder: str) -> list[Entry]:
    """All files in a folder and its folders, in no order."""
    files = []
    for entry in storage.entries(folder):
        files += files_below(storage, entry.path) if entry.is_folder else [entry]
    return files


# --------------------------------------------------------------------------------------------------------------------
# Publishing
#
# A run writes below <output>/_staging/<run_id>. When all of it is there, <output>/_publishing.json, created
# exclusively, becomes journal and lock: whoever holds it, or finds it left behind, moves the files into place with
# `finish`, which can be repeated from any point. The last step renames it to <output>/_manifest.json. A reader who
# goes by the manifest therefore sees all of one result or waits.

STAGING = "_staging"
JOURNAL = "_publishing.json"
MANIFEST = "_manifest.json"
MANIFEST_SCHEMA_VERSION = 1

STALE_JOURNAL = timedelta(minutes=5)
STALE_STAGING = timedelta(days=1)
WAIT_FOR_OTHER_SECONDS = 60.0
SECONDS_TO_ANSWER = 30.0
UNREADABLE_JOURNAL_SECONDS = 5.0

Manifest = dict[str, Any]


def new_run_id() -> str:
    """`<start, UTC>-<host>-<process>-<token>`: unique, sorts by time, and tells who runs."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{host_name()}-{os.getpid()}-{secrets.token_hex(4)}"


def host_name() -> str:
    """Where process ids mean the same: the host, and the container on it."""
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        namespace = 0
    return f"{re.sub(r'[^A-Za-z0-9.]', '_', socket.gethostname())}.{namespace}"


def is_abandoned(run_id: str, own_run_id: str, since: datetime, patience: timedelta) -> bool:
    """Whether a run is over: its process is gone from this host, or, elsewhere, nothing was heard for too long."""
    try:
        _, rest = run_id.split("-", 1)
        host, process, _ = rest.rsplit("-", 2)
        pid = int(process)
    except ValueError:  # not an id of ours
        return False
    if host == host_name():
        return run_id != own_run_id and (pid == os.getpid() or not process_exists(pid))
    return datetime.now(timezone.utc) - since > patience


def process_exists(pid: int) -> bool:
    """Whether a process of this host is alive."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:  # one that is dead and that nobody has waited for, as in a container whose first process does not, is gone
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True


def utc(text: str) -> datetime:
    """A time as the manifest has it."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)


def utc_now() -> str:
    """The time as the manifest has it."""
    return f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def read_manifest(storage: Storage, path: str) -> Manifest | None:
    """A manifest or journal; None when there is none, empty when it is half written."""
    content = storage.read(path)
    if content is None:
        return None
    try:
        manifest: Manifest = json.loads(content)
    except ValueError:
        return {}
    return manifest


def holds_journal(storage: Storage, output: str, run_id: str) -> bool:
    """Whether the journal is that of the run."""
    return (read_manifest(storage, join(output, JOURNAL)) or {}).get("run_id") == run_id


def publish(storage: Storage, output: str, manifest: Manifest) -> None:
    """Makes what was staged the result at the output path.

    Raises PipelineError when another run is publishing there for longer than a minute.
    """
    claim(storage, output, manifest)
    finish(storage, output, manifest)


def claim(storage: Storage, output: str, manifest: Manifest) -> None:
    """Creates the journal; first finishes an abandoned publishing, or waits for one that goes on."""
    content = json.dumps(manifest, indent=1, ensure_ascii=False).encode() + b"\n"
    started = time.monotonic()
    unreadable_since: float | None = None
    while not storage.create(join(output, JOURNAL), content):
        if holds_journal(storage, output, manifest["run_id"]):  # created all the same, and the answer was lost
            return
        other = recover(storage, output, manifest["run_id"])
        if other is None:
            continue
        now = time.monotonic()
        unreadable_since = None if other else unreadable_since or now
        if unreadable_since and now - unreadable_since > UNREADABLE_JOURNAL_SECONDS:
            # Killed while it wrote the journal, so before it changed anything.
            storage.delete(join(output, JOURNAL))
        elif now - started > WAIT_FOR_OTHER_SECONDS:
            raise PipelineError(
                EXIT_BUSY, f"{output} is being published by another run ({other.get('run_id')}); try again later"
            )
        time.sleep(0.2)


def recover(storage: Storage, output: str, own_run_id: str) -> Manifest | None:
    """Finishes a publishing that was abandoned; returns the journal of one that goes on, if there is one."""
    journal = read_manifest(storage, join(output, JOURNAL))
    if not journal or not is_abandoned(journal["run_id"], own_run_id, utc(journal["finished"]), STALE_JOURNAL):
        return journal
    try:
        finish(storage, output, journal)
    except LostStagingError as error:
        log.warning("%s", error)
    else:
        log.info("finished the publishing that run %s left behind", journal["run_id"])
    return None


class LostStagingError(PipelineError):
    """Files that a journal lists are nowhere to be found."""


def finish(storage: Storage, output: str, manifest: Manifest) -> None:
    """Moves the files that the manifest lists into place, and away with all others; can be repeated from any point.

    Raises LostStagingError, with the earlier result as it was, when listed files are gone.
    """
    run_id, datasets = manifest["run_id"], manifest["datasets"]
    staging = join(output, STAGING, run_id)
    in_place = {entry.path for name in SCHEMAS for entry in files_below(storage, join(output, name))}
    listed = [file for dataset in datasets.values() for file in dataset["files"]]
    staged = {entry.path for name in datasets for entry in files_below(storage, join(staging, name))}
    # Asked again after the listing: while the journal stands no other run publishes, so no file of another is in it.
    if not holds_journal(storage, output, run_id):
        return
    lost = [file for file in listed if join(staging, file) not in staged and join(output, file) not in in_place]
    if lost:
        storage.delete(join(output, JOURNAL))
        raise LostStagingError(EXIT_FAILURE, f"{join(staging, lost[0])} is gone; run {run_id} was not published")
    storage.delete(join(output, MANIFEST))
    storage.delete(*(in_place - {join(output, file) for file in listed}))
    for name in SCHEMAS.keys() - datasets.keys():
        storage.delete_folder(join(output, name))
    in_parallel(lambda file: storage.move(join(staging, file), join(output, file)), listed)
    if holds_journal(storage, output, run_id):
        storage.move(join(output, JOURNAL), join(output, MANIFEST))
    storage.delete_folder(staging)


def sweep(storage: Storage, output: str, own_run_id: str) -> None:
    """Deletes what runs that are over left below the staging folder; not while one of them is publishing."""
    staging = join(output, STAGING)
    for name in {*(entry.name for entry in storage.entries(staging)), *storage.uploads(staging)}:
        try:
            started = datetime.strptime(name[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
        except ValueError:  # not a run of ours
            continue
        if is_abandoned(name, own_run_id, started, STALE_STAGING):
            storage.delete_folder(join(staging, name))


def usable_storage(spark: SparkSession, output: str) -> Storage:
    """The storage of the output path.

    Raises PipelineError when a folder that publishing would clear holds anything but Parquet datasets.
    """
    storage = storage_for(spark, output)
    for entry in storage.entries(output):
        if entry.name not in SCHEMAS:
            continue
        files = files_below(storage, entry.path) if entry.is_folder else [entry]
        for file in files:
            if not file.name.endswith(".parquet") and not file.name.startswith(("_", ".")):
                raise PipelineError(
                    EXIT_USAGE,
                    f"{file.path} is not of this job, and publishing would delete it: choose another --output_path",
                )
    return storage


# --------------------------------------------------------------------------------------------------------------------
# The run


def run(spark: SparkSession, arguments: argparse.Namespace) -> None:
    """Makes and publishes the datasets as the command line says. Raises PipelineError."""
    run_id, started = new_run_id(), time.monotonic()
    input_path, output = arguments.input_path, arguments.output_path
    manifest: Manifest = {
        "schema_version": MANIFEST_SCHEMA_VERSION,
        "run_id": run_id,
        "job_version": __version__,
        "engine": {"name": arguments.engine, "version": engine_version(spark)},
        "started": utc_now(),
    }
    inputs = in_time(input_path, EXIT_BAD_INPUT, lambda: find_inputs(spark, input_path))
    storage = in_time(output, EXIT_FAILURE, lambda: usable_storage(spark, output))
    if not recover(storage, output, run_id):
        sweep(storage, output, run_id)
    staging = join(output, STAGING, run_id)
    try:
        rows = make_datasets(spark, input_path, staging, arguments.max_rejects)
        if find_inputs(spark, input_path) != inputs:
            raise PipelineError(EXIT_BAD_INPUT, f"{input_path} changed while it was read; nothing was published")
        manifest["finished"] = utc_now()
        manifest["input_files"] = [{"path": file.path, "bytes": file.size} for file in inputs]
        manifest["rejects"] = rows.get("rejects", 0)
        manifest["datasets"] = {
            name: describe_dataset(spark, storage, staging, name, count) for name, count in rows.items()
        }
        with phase("publishing", timer=False) as done:
            publish(storage, output, manifest)
            done("complete")
    except BaseException:
        discard(storage, output, run_id)
        raise
    total = sum(dataset["bytes"] for dataset in manifest["datasets"].values())
    log.info(
        "%d datasets in %s (%.1f MB, %s), %.1f s in all",
        len(rows), output, total / 1e6, count_of(rows.get("rejects", 0), "reject"), time.monotonic() - started,
    )  # fmt: skip


def in_time(path: str, status: int, look: Callable[[], Answer]) -> Answer:
    """The answer of the first look at a path; raises PipelineError when its store refuses, or does not answer."""
    if path.startswith("/"):
        return look()
    answers: list[Answer] = []
    errors: list[Exception] = []

    def ask() -> None:
        try:
            answers.append(look())
        except Exception as error:  # noqa: BLE001  # raised again below, in the thread that waits
            errors.append(error)

    # in a thread of its own: clients try again for minutes, and some calls into Java cannot be given a limit
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(SECONDS_TO_ANSWER)
    if answers:
        return answers[0]
    if not errors:
        raise PipelineError(status, f"{path}: no answer in {SECONDS_TO_ANSWER:.0f} seconds; {CHECK_THE_NETWORK}")
    refusal = None if isinstance(errors[0], PipelineError) else refusal_of_store(errors[0])
    raise PipelineError(status, f"{path}: {refusal}") if refusal else errors[0]


def make_datasets(spark: SparkSession, input_path: str, staging: str, max_rejects: int) -> dict[str, int]:
    """Writes all datasets below the staging folder and proves that no line was lost; returns their rows."""
    with phase("lines", timer=is_sail(spark)) as done:
        lines, reading = look_at_lines(spark, input_path)
        done(f"{lines['ratings']:,} of ratings.dat, {lines['movies']:,} of movies.dat")
    rows = describe_and_write(spark, input_path, staging, reading)
    if lines != {name: rows[name] for name in lines}:
        rejects = write_rejects(spark, input_path, staging, max_rejects)
        if lines["ratings"] != rows["ratings"] + rejects["ratings"]:  # blank lines may be among those counted
            lines["ratings"] = read_lines(spark, find_input(spark, input_path, "ratings.dat")).count()
        if any(rejects.values()):
            rows["rejects"] = sum(rejects.values())
        prove_that_none_is_lost(lines, rows, rejects)
    for name in lines:
        if not rows[name]:
            path = join(input_path, f"{name}.dat")
            raise PipelineError(EXIT_BAD_INPUT, f"{path} has no valid line; nothing was published")
    if rows["movies_with_stats"] != rows["movies"]:
        raise PipelineError(
            EXIT_FAILURE,
            f"movies_with_stats has {rows['movies_with_stats']:,} rows, but movies {rows['movies']:,}; "
            "nothing was published",
        )
    return rows


def look_at_lines(spark: SparkSession, input_path: str) -> tuple[dict[str, int], Reading]:
    """Counts the lines of `movies` and `ratings`, and tells how ratings.dat can be read.

    Of ratings.dat, lines that are blank but not empty may count.
    """
    from pyspark.sql import functions as F

    movies = read_lines(spark, find_input(spark, input_path, "movies.dat")).count()
    ratings_files = find_input(spark, input_path, "ratings.dat")
    lines = read_lines_fast(spark, ratings_files)
    if not is_sail(spark):
        return {"movies": movies, "ratings": lines.count()}, Reading.LINES
    valid = F.count_if(F.col("line").rlike(VALID_RATING_LINE))
    try:
        [(ratings, valid_ratings)] = lines.agg(F.count("*"), valid).collect()
    except Exception as error:
        if "incorrect number of fields" not in str(error):
            raise
        return {"movies": movies, "ratings": read_lines(spark, ratings_files).count()}, Reading.BYTES
    reading = Reading.COLUMNS if ratings == valid_ratings else Reading.LINES
    return {"movies": movies, "ratings": ratings}, reading


def prove_that_none_is_lost(lines: dict[str, int], rows: dict[str, int], rejects: dict[str, int]) -> None:
    """Raises PipelineError unless each line of each input is a row or a reject."""
    for name, count in lines.items():
        if count != rows[name] + rejects[name]:
            raise PipelineError(
                EXIT_FAILURE,
                f"{name}.dat has {count:,} lines, but {rows[name]:,} rows and {rejects[name]:,} rejects "
                "came of them; nothing was published",
            )


def describe_and_write(spark: SparkSession, input_path: str, staging: str, reading: Reading) -> dict[str, int]:
    """Describes the four datasets, then has them written: the job in short."""
    ratings = load_ratings(spark, input_path, reading=reading)
    movies = load_movies(spark, input_path)
    parsed = parsed_once(ratings, join(staging, "ratings"))
    movies_with_stats = movie_statistics(parsed, movies)
    top_movies = top_movies_per_user(parsed)
    return output_result(ratings, movies, movies_with_stats, top_movies, staging)


def write_rejects(spark: SparkSession, input_path: str, staging: str, max_rejects: int) -> dict[str, int]:
    """Stages the rejects, shows the first, and returns how many there are of `ratings` and of `movies`.

    Raises PipelineError when there are more than allowed.
    """
    from pyspark.sql import functions as F

    path = join(staging, "_found")
    find_rejects(spark, input_path).write.mode("overwrite").parquet(path_to_write(spark, path))
    columns = "file STRING, dataset STRING, reason STRING, line STRING"
    found = spark.read.schema(columns).parquet(path_to_read(spark, path))
    reasons = found.groupBy("dataset", "reason").agg(F.count("*").alias("lines")).orderBy("dataset", "reason").collect()
    counts = {"ratings": 0, "movies": 0}
    for row in reasons:
        counts[row["dataset"]] += row["lines"]
        log.warning("%s.dat: %s: %s", row["dataset"], row["reason"], count_of(row["lines"], "line"))
    shown = found.withColumn("line", F.substring("line", 1, CHARACTERS_SHOWN + 1))
    for row in shown.orderBy("file", "reason", "line").limit(REJECTS_SHOWN).collect():
        log.warning("%s: %s: %s", absolute(row["file"]), row["reason"], shortened(row["line"]))
    total = sum(counts.values())
    if total > max_rejects:
        raise PipelineError(
            EXIT_BAD_INPUT,
            f"{count_of(total, 'line')} not valid, more than --max_rejects {max_rejects} allows; nothing was published",
        )
    if total:
        write_dataset(found.select("dataset", "reason", "line"), staging, "rejects")
    return counts


def shortened(line: str) -> str:
    """A line for the terminal: control characters escaped, cut where it gets long."""
    return repr(line[:CHARACTERS_SHOWN]) + ("..." if len(line) > CHARACTERS_SHOWN else "")


def describe_dataset(spark: SparkSession, storage: Storage, staging: str, name: str, rows: int) -> dict[str, Any]:
    """What the manifest says of a staged dataset: rows, bytes, columns with types, files."""
    files = sorted(
        (file for file in storage.entries(join(staging, name)) if not file.name.startswith(("_", "."))),
        key=lambda file: file.name,
    )
    columns = spark.read.parquet(path_to_read(spark, join(staging, name))).schema
    return {
        "rows": rows,
        "bytes": sum(file.size for file in files),
        "columns": [{"name": column.name, "type": column.dataType.simpleString()} for column in columns],
        "files": [join(name, file.name) for file in files],
    }


def discard(storage: Storage, output: str, run_id: str) -> None:
    """Deletes what a failed run staged, unless it is being published. The next run deletes what this cannot."""
    try:
        journal = read_manifest(storage, join(output, JOURNAL))
        if journal is None or journal.get("run_id", run_id) != run_id:
            storage.delete_folder(join(output, STAGING, run_id))
    except Exception as error:  # noqa: BLE001  # the failure that led here is the one to report
        log.debug("could not delete what was staged: %s", error)


# --------------------------------------------------------------------------------------------------------------------
# The command line


def parse_args(argv: list[str]) -> argparse.Namespace:
    """The command line: input_path and output_path (made absolute), engine, max_rejects. Exits 2 when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="movielens_pipeline",
        description="Publishes four Parquet datasets made from MovieLens movies.dat and ratings.dat.",
        epilog="Exit status: 0 done, 1 unexpected failure, 2 usage, 3 bad input, 4 the output is being published by "
        "another run, 130 interrupted.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--input_path",
        "--input-path",
        required=True,
        metavar="PATH",
        help="where movies.dat and ratings.dat are: a folder, file://, s3:// or s3a:// or, on spark, hdfs://",
    )
    parser.add_argument(
        "--output_path", "--output-path", required=True, metavar="PATH", help="where to publish; the same kinds of path"
    )
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default=default_engine(),
        help="sail runs in this process; spark is Apache Spark (default: spark under spark-submit, otherwise sail)",
    )
    parser.add_argument(
        "--max_rejects",
        "--max-rejects",
        type=int,
        default=0,
        metavar="N",
        help="let up to N lines that are not valid pass, into the dataset rejects (default: %(default)s)",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    arguments = parser.parse_args(argv)
    if arguments.max_rejects < 0:
        parser.error("--max_rejects must not be negative")
    for option in ("input_path", "output_path"):
        path = getattr(arguments, option)
        scheme, separator, place = path.partition("://")
        allowed = ["file", "s3", "s3a", *(["hdfs"] if arguments.engine == "spark" else [])]
        if not path or (separator and (scheme not in allowed or not place.strip("/"))):
            kinds = ", ".join(f"{kind}://" for kind in allowed)
            parser.error(f"--{option} {path!r}: the {arguments.engine} engine takes a folder, or one at {kinds}")
        setattr(arguments, option, absolute(path))
    if arguments.output_path in ("/", absolute("~")) or same_place(arguments.output_path, arguments.input_path):
        parser.error(f"--output_path {arguments.output_path}: choose a folder of its own for the results")
    return arguments


def main(argv: list[str]) -> int:
    """Runs the job as the command line says and returns the exit status; messages go to standard error."""
    arguments = parse_args(argv)
    log.handlers = [logging.StreamHandler(sys.stderr)]
    log.setLevel(logging.INFO)
    log.propagate = False
    other = {"sail": "Apache Spark: --engine spark, or spark-submit", "spark": "in process, no Java: --engine sail"}
    handlers = [(number, signal.getsignal(number)) for number in STOP_SIGNALS]
    try:
        catch_signals()
        spark = get_spark_session(arguments.engine)
        catch_signals()  # again: Spark puts a handler of its own in place
        log.info("engine: %s %s (the other: %s)", arguments.engine, engine_version(spark), other[arguments.engine])
        run(spark, arguments)
    except PipelineError as error:
        log.error("movielens_pipeline: error: %s", error)
        return error.status
    except Exception as error:
        expected = explained(error, arguments.input_path, arguments.output_path)
        if expected is None:
            raise
        log.error("movielens_pipeline: error: %s", expected)
        return expected.status
    except KeyboardInterrupt as stop:
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)
    return EXIT_DONE


# What engines and file systems say, and what that means for the user
EXPECTED_FAILURES = (
    (
        "No space left on device|Disk quota exceeded",
        EXIT_FAILURE,
        "no space left on the disk of {output} or of the temporary files; the earlier result is as it was",
    ),
    (
        "OutOfMemoryError|Resources exhausted|Failed to allocate|Cannot allocate memory",
        EXIT_FAILURE,
        "out of memory; for the sail engine SAIL_RUNTIME__MEMORY_POOL__FAIR__MAX_SIZE sets more bytes, "
        "for spark --driver-memory; the earlier result is as it was",
    ),
    (
        "Unable to create dir|Mkdirs failed|{output}/_",
        EXIT_FAILURE,
        "{output} cannot be written: {detail}; the earlier result is as it was",
    ),
    (
        "gzip|deflate|bzip2?|BZip2|unexpected end of file|Unexpected end of input|FAILED_READ_FILE|{input}",
        EXIT_BAD_INPUT,
        "{input} cannot be read: {detail}; nothing was published",
    ),
    (
        "Permission denied|Read-only file system|Not a directory|File exists",
        EXIT_FAILURE,
        "{output} cannot be written: {detail}; the earlier result is as it was",
    ),
)


CHECK_THE_NETWORK = "check the network, and AWS_ENDPOINT_URL where it is set"

# What S3 and its clients say, and what that means for the user
REFUSALS_OF_STORES = (
    (
        "InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|ExpiredToken|TokenRefreshRequired|InvalidClientTokenId",
        "the store does not accept these credentials; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
        "AWS_SESSION_TOKEN, or AWS_PROFILE",
    ),
    (
        "Unable to locate credentials|loading credentials|NoAuthWithAWSException|Unable to load credentials"
        "|config profile|Partial credentials|Error when retrieving (?:credentials|token)|Profile file",
        "no AWS credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the "
        "machine a role",
    ),
    (
        "NoSuchBucket|UnknownStoreException",
        "there is no such bucket; check its name, and AWS_ENDPOINT_URL where it is set",
    ),
    (
        "PermanentRedirect|AuthorizationHeaderMalformed|without LOCATION|AWSRedirectException",
        "the bucket is in another region; check AWS_DEFAULT_REGION",
    ),
    ("AccessDenied|Forbidden", "access denied; check what these credentials are allowed to do there"),
    (
        "No FileSystem for scheme|S3AFileSystem not found",
        "this Spark lacks the S3 connector; README.md tells how to add it",
    ),
    (
        "Could not connect to the endpoint|Connect timeout|Read timeout|Connection refused|UnknownHost"
        "|Connection (?:was closed|reset|broken)|error sending request|Unable to execute HTTP request|timed out",
        f"the store cannot be reached; {CHECK_THE_NETWORK}",
    ),
    (
        "SlowDown|Service ?Unavailable|InternalError|[Cc]ode: 50[0-4]",
        "the store is overloaded or out of order; try again later",
    ),
)


def refusal_of_store(error: Exception) -> str | None:
    """What a store's refusal means; None where it is none."""
    said = f"{type(error).__name__}: {error}"
    return next((meaning for sign, meaning in REFUSALS_OF_STORES if re.search(sign, said)), None)


def explained(error: Exception, input_path: str, output: str) -> PipelineError | None:
    """The expected failure behind what an engine, a store or a file system raised; None where it is not expected."""
    said = str(error)
    stores = [path for path in (input_path, output) if not path.startswith("/")]
    if stores and (refusal := refusal_of_store(error)):
        place = output if f"{bucket_and_key(output)[1]}/_" in said else stores[0]
        status = EXIT_FAILURE if place == output else EXIT_BAD_INPUT
        return PipelineError(status, f"{place}: {refusal}; the earlier result is as it was")
    causes = (
        re.findall(r"^(?:Caused by|:) ?:? ?[\w.$]+(?:Exception|Error): (.+)$", said, re.MULTILINE) or said.splitlines()
    )
    detail = re.sub(r"\s+", " ", causes[-1] if causes else type(error).__name__)[:200]
    for sign, status, message in EXPECTED_FAILURES:
        pattern = sign.replace("{input}", re.escape(input_path)).replace("{output}", re.escape(output))
        if re.search(pattern, said):
            return PipelineError(status, message.format(input=input_path, output=output, detail=detail))
    return None


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
SECONDS_TO_STOP = 1.0


def catch_signals() -> None:
    """Has Ctrl-C and SIGTERM end the run: at the next chance tidily, after a second in any case."""

    def stop(number: int, _frame: object) -> None:
        for caught in STOP_SIGNALS:
            signal.signal(caught, signal.SIG_IGN)
        log.error("movielens_pipeline: interrupted")
        deadline = threading.Timer(SECONDS_TO_STOP, os._exit, [128 + number])
        deadline.daemon = True
        deadline.start()
        raise KeyboardInterrupt(number)

    for number in STOP_SIGNALS:
        signal.signal(number, stop)


def leave(status: int) -> NoReturn:
    """Ends the process at once: after an interrupt an idle thread of the Connect client would keep it for good."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    try:
        leave(main(sys.argv[1:]))
    except SystemExit as usage:
        leave(int(usage.code or 0))
    except BaseException:  # noqa: BLE001  # a fault of the job's own keeps its traceback
        traceback.print_exc()
        leave(EXIT_FAILURE)
