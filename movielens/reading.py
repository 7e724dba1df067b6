"""Reading a release: the rows of its valid lines, and the lines that are not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pyspark.sql import Window
from pyspark.sql import functions as F

from movielens.contract import DUPLICATE_MOVIE, MOVIE_FIELDS
from movielens.engines import engine_of
from movielens.inputs import found_release

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from movielens.inputs import Release


# --------------------------------------------------------------------------------------------------------------------
# Rows


def load_ratings(spark: SparkSession, release: str | Release) -> DataFrame:
    """Describes the valid lines of ratings.dat: userId INT, movieId INT, rating FLOAT, timestamp BIGINT, in no order.

    The release is the path of its folder, or what `find_release` found there. Timestamps are epoch seconds (UTC).
    Lines that are not valid are left out; `find_rejects` tells which and why. Raises BadInputError where there is
    no input.
    """
    engine, found = engine_of(spark), found_release(spark, release)
    if found.look.all_valid:
        columns = engine.columns(found.ratings, found.format.rating_columns, found.format.column_separator)
        if columns is not None:
            return columns.select("userId", "movieId", "rating", "timestamp")
    lines = engine.lines(found.ratings) if found.look.odd_bytes else engine.quick_lines(found.ratings)
    return found.format.cut_ratings(lines)


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


def find_rejects(spark: SparkSession, release: str | Release) -> DataFrame:
    """Describes the lines that are not valid: file, dataset (`movies` or `ratings`), reason, line; all STRING."""
    found = found_release(spark, release)
    rejected = {
        "movies": movie_lines(spark, found).filter(F.col("reason").isNotNull()),
        "ratings": found.format.rejected_ratings(engine_of(spark).lines(found.ratings)),
    }
    movies, ratings = (
        without_headers(lines, found.format.headers[name]).select(
            "file", F.lit(name).alias("dataset"), "reason", "line"
        )
        for name, lines in rejected.items()
    )
    return movies.unionAll(ratings)


def without_headers(rejected: DataFrame, header: str) -> DataFrame:
    """Rejected lines without the one of each file that is its header; one more in the middle is a line like others."""
    if not header:
        return rejected
    of_file = Window.partitionBy("file", F.col("line") == header).orderBy("line")
    numbered = rejected.withColumn("occurrence", F.row_number().over(of_file))
    return numbered.filter((F.col("line") != header) | (F.col("occurrence") > 1)).drop("occurrence")


# --------------------------------------------------------------------------------------------------------------------
# Lines


def looked_at(spark: SparkSession, release: Release) -> Release:
    """The release with what a look at all lines of its ratings found, so that they can be read the fastest way."""
    look = engine_of(spark).look(release.ratings, release.format.valid_rating_line)
    return replace(release, look=replace(look, lines=look.lines - len(release.headed("ratings"))))


def count_lines(spark: SparkSession, release: Release, name: str) -> int:
    """How many lines of a text, `ratings` or `movies`, there are that are neither blank nor a header."""
    files = {"ratings": release.ratings, "movies": release.movies}[name]
    return engine_of(spark).lines(files).count() - len(release.headed(name))
