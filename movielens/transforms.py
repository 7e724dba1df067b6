"""The datasets that are derived from ratings and movies: DataFrame to DataFrame, the same on both engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import Window
from pyspark.sql import functions as F

from movielens.contract import TOP_RANKS

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def movie_statistics(ratings: DataFrame, movies: DataFrame) -> DataFrame:
    """Describes movies with max_rating, min_rating and avg_rating, NULL where nobody rated; one row per movie.

    avg_rating is the exact mean, whatever the order of addition: a FLOAT from 0.5 to 5 is a multiple of 2^-24,
    so a DOUBLE adds up a hundred million of them without rounding.
    """
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
    """Describes each user's TOP_RANKS best ratings: userId, movieId, rating, timestamp, rank (from 1).

    Best is the highest rating, of those the newest, of those the lowest movieId: a total order, so any two runs
    agree. Each line of ratings.dat counts; a movie that a user rated twice may stand there twice.
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

    The movies fall into as many buckets as there are ranks. A user's best ratings in each bucket are different lines,
    so as many lines as there are ranks are at or above the last of them: what is below it cannot rank. Who has no
    rating in some bucket keeps all.
    """
    value, bucket = standing(), F.col("movieId") % TOP_RANKS
    best = (F.max(F.when(bucket == number, value)) for number in range(TOP_RANKS))
    bound = F.array_min(F.array(*(F.coalesce(value, F.lit(0.0)) for value in best)))
    bounds = ratings.groupBy("userId").agg(bound.alias("bound"))
    return (
        ratings.join(bounds, on="userId", how="inner")
        .filter(value >= F.col("bound"))
        # without it Sail sorts before it filters
        .repartition("userId")
    )


def standing() -> Column:
    """A number that is never lower for the better of two ratings, by rating and then by time: DOUBLE, positive.

    Two different FLOATs from 0.5 to 5 are at least 2^-24 apart, so 2^58 times as much is no less than times, kept
    between 0 and 2^34 seconds (the year 2514), can make up for. That the sum is rounded makes equals of some, and turns
    none.
    """
    time = F.least(F.greatest("timestamp", F.lit(0)), F.lit(2**34))
    return F.col("rating").cast("double") * 2.0**58 + time
