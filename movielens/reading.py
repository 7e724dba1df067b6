"""Reading a release: the rows of its valid lines, and the lines that are not."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

from pyspark.sql import Window
from pyspark.sql import functions as F

from movielens.contract import DUPLICATE_MOVIE, MOVIE_FIELDS
from movielens.engines import engine_of
from movielens.inputs import found_release

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyspark.sql import DataFrame, SparkSession

    from movielens.inputs import Release

TEXTS = ("movies", "ratings")


def load_ratings(spark: SparkSession, release: str | Release) -> DataFrame:
    """Describes the valid lines of ratings.dat: userId INT, movieId INT, rating FLOAT, timestamp BIGINT, in no order.

    The release is the path of its folder, or what `find_release` found there. Timestamps are epoch seconds (UTC).
    Lines that are not valid are left out; `find_rejects` tells which and why. Of a release that is taken to be plain
    other lines may be read as well, as `proof` says. Raises BadInputError where there is no input.
    """
    engine, found = engine_of(spark), found_release(spark, release)
    if not found.plain:
        lines = engine.lines(found.ratings) if found.odd_bytes else engine.quick_lines(found.ratings)
        return found.format.cut_ratings(lines)
    header = bool(found.format.ratings_header)
    columns = engine.columns(found.ratings, found.plain.columns, found.format.column_separator, header=header)
    if columns is None:
        return found.plain.cut_lines(engine.quick_lines(found.ratings))
    return found.plain.cut(columns)


def load_movies(spark: SparkSession, release: str | Release) -> DataFrame:
    """Describes the valid lines of movies.dat: movieId INT, title STRING, genres STRING, in no order.

    The release is the path of its folder, or what `find_release` found there. One row per movieId. Raises
    BadInputError where there is no input.
    """
    typed = (F.col(field.name).cast(field.type).alias(field.name) for field in MOVIE_FIELDS)
    return movie_lines(spark, found_release(spark, release)).filter(F.col("reason").isNull()).select(*typed)


def movie_lines(spark: SparkSession, release: Release) -> DataFrame:
    """All lines of movies.dat: file, line, movieId, title, genres (STRING) and reason, NULL for a valid line."""
    lines = engine_of(spark).lines(release.movies)
    return without_doubles(release.format.judged_movies(lines))


def without_doubles(judged: DataFrame) -> DataFrame:
    """Of valid lines with the same movieId lets the one be valid that sorts first, whatever their order."""
    same_movie = Window.partitionBy("movieId").orderBy(F.col("reason").asc_nulls_first(), "line")
    double = F.when(F.col("occurrence") > 1, DUPLICATE_MOVIE)
    return (
        judged.withColumn("occurrence", F.row_number().over(same_movie))
        .withColumn("reason", F.coalesce("reason", double))
        .drop("occurrence")
    )


def find_rejects(spark: SparkSession, release: str | Release, texts: Iterable[str] = TEXTS) -> DataFrame:
    """Describes the lines of texts that are not valid: file, dataset (the text), reason, line; all STRING."""
    found = found_release(spark, release)
    rejected = {
        "movies": lambda: movie_lines(spark, found).filter(F.col("reason").isNotNull()),
        "ratings": lambda: found.format.rejected_ratings(engine_of(spark).lines(found.ratings)),
    }
    frames = (
        without_headers(rejected[name](), found.format.headers[name]).select(
            "file", F.lit(name).alias("dataset"), "reason", "line"
        )
        for name in texts
    )
    return reduce(lambda above, below: above.unionAll(below), frames)


def without_headers(rejected: DataFrame, header: str) -> DataFrame:
    """Rejected lines without the one of each file that is its header; one more in the middle is a line like others."""
    if not header:
        return rejected
    of_file = Window.partitionBy("file", F.col("line") == header).orderBy("line")
    numbered = rejected.withColumn("occurrence", F.row_number().over(of_file))
    return numbered.filter((F.col("line") != header) | (F.col("occurrence") > 1)).drop("occurrence")
