"""The datasets that are derived from ratings and movies: DataFrame to DataFrame, the same on both engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import Window
from pyspark.sql import functions as F

from movielens.contract import TOP_RANKS
from movielens.frames import INTEGERS, NUMBERS, require_columns

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

INFINITE = float("inf")
FLOATING = ("float", "double")


def movie_statistics(ratings: DataFrame, movies: DataFrame) -> DataFrame:
    """Describes movies with max_rating, min_rating and avg_rating, NULL where nobody rated; one row per row of movies.

    Takes movieId (any integer type) and rating (any number type) of ratings; movieId, title (STRING) and genres
    (STRING) of movies. Columns may stand in any order; further ones are ignored. max_rating and min_rating have the
    type of rating; avg_rating is DOUBLE. Ratings of a movie that movies lacks count nowhere.

    avg_rating is the exact mean, rounded once, if the ratings are FLOAT from 0.5 to 5 or integers: a DOUBLE adds up a
    hundred million of them without rounding. For DOUBLE, DECIMAL or other FLOAT ratings, it is the mean of their
    values as DOUBLE; its last digits may depend on the order of addition.

    Raises SchemaError at the call if a column is missing or has another type. The plan raises when it computes the
    statistics if a movieId of ratings is NULL, or a rating is NULL, NaN or infinite.
    """
    types = require_columns(ratings, "ratings", {"movieId": INTEGERS, "rating": NUMBERS})
    require_columns(movies, "movies", {"movieId": INTEGERS, "title": ("string",), "genres": ("string",)})
    error = raise_wrong_rating("movieId", "rating")
    rated = ratings.select(
        F.coalesce("movieId", error.cast(types["movieId"])).alias("movieId"),
        F.when(is_finite(types["rating"]), F.col("rating")).otherwise(error.cast(types["rating"])).alias("rating"),
    )
    rating = F.col("rating")
    statistics = rated.groupBy("movieId").agg(
        F.max(rating).alias("max_rating"),
        F.min(rating).alias("min_rating"),
        F.avg(rating.cast("double")).alias("avg_rating"),
    )
    return (
        movies.select("movieId", "title", "genres")
        .join(statistics, on="movieId", how="left")
        .select("movieId", "title", "genres", "max_rating", "min_rating", "avg_rating")
    )


def top_movies_per_user(ratings: DataFrame) -> DataFrame:
    """Describes each user's TOP_RANKS best ratings: userId, movieId, rating, timestamp, rank (INT, from 1).

    Takes userId, movieId and timestamp (any integer type) and rating (any number type), which keep their types.
    Columns may stand in any order; further ones are ignored.

    Best is the highest rating, of those the newest, of those the lowest movieId: a total order, so any two runs
    agree. Each row of ratings counts; a movie that a user rated twice may stand there twice.

    Raises SchemaError at the call if a column is missing or has another type. The plan raises when it runs if one of
    the four columns is NULL, or a rating is NaN or infinite.
    """
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
    """The ratings that can be among their user's best; the others, nineteen of twenty, need not be sorted.

    The movies fall into as many buckets as there are ranks. A user's best ratings in each bucket are different rows,
    so as many rows as there are ranks are at or above the lowest of them: what is below it cannot rank. A user without
    a rating in some bucket keeps all.
    """
    types = require_columns(
        ratings, "ratings", {"userId": INTEGERS, "movieId": INTEGERS, "rating": NUMBERS, "timestamp": INTEGERS}
    )
    error = raise_wrong_rating("userId", "movieId", "rating", "timestamp")
    is_right = is_finite(types["rating"]) & F.col("movieId").isNotNull() & F.col("timestamp").isNotNull()
    # the join needs userId, and the filter needs rating, of every row: so no engine can skip a check
    checked = ratings.select(
        F.coalesce("userId", error.cast(types["userId"])).alias("userId"),
        "movieId",
        F.when(is_right, one_zero(types["rating"])).otherwise(error.cast(types["rating"])).alias("rating"),
        "timestamp",
    )
    value = standing(types["rating"])
    buckets = ratings.groupBy(F.col("userId").alias("user"), F.pmod("movieId", F.lit(TOP_RANKS)).alias("bucket"))
    bound = F.when(F.count("*") == TOP_RANKS, F.min("best")).otherwise(F.lit(-INFINITE))
    bounds = buckets.agg(F.max(value).alias("best")).groupBy("user").agg(bound.alias("bound"))
    return (
        checked.join(bounds, on=F.col("userId") == F.col("user"), how="inner")
        .filter(value >= F.col("bound"))
        # without it Sail sorts before it filters
        .repartition("userId")
    )


def standing(rating_type: str) -> Column:
    """A number that is never lower for the better of two ratings: DOUBLE.

    That is the rating. If it is a FLOAT, time breaks ties: two FLOATs are at least 2^-24 of their size apart, and time,
    kept between 0 and 2^34 seconds (the year 2514), adds at most 2^-26 of it. Rounding can create ties but never
    reverses an order.
    """
    rating = F.col("rating").cast("double")
    if rating_type != "float":
        return rating
    time = F.least(F.greatest("timestamp", F.lit(0)), F.lit(2**34))
    return rating + F.abs(rating) * time * 2.0**-60


def is_finite(rating_type: str) -> Column:
    """Whether the rating is a number, and not NaN or infinite; NULL or false if it is not."""
    rating = F.col("rating")
    # NaN is greater than all on both engines
    return F.abs(rating) < INFINITE if rating_type in FLOATING else rating.isNotNull()


def one_zero(rating_type: str) -> Column:
    """The rating, with 0.0 for -0.0, which Sail sorts below 0.0."""
    rating = F.col("rating")
    return rating + F.lit(0).cast(rating_type) if rating_type in FLOATING else rating


def raise_wrong_rating(*columns: str) -> Column:
    """Raises an error that gives the values of a row of ratings, when the plan computes it."""
    values = [F.concat(F.lit(f"{name} "), F.coalesce(F.col(name).cast("string"), F.lit("NULL"))) for name in columns]
    return F.raise_error(
        F.concat(F.lit("ratings: no column may be NULL, and a rating must be finite: "), F.concat_ws(", ", *values))
    )
