"""The datasets that are derived from ratings and movies: DataFrame to DataFrame, the same on both engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import Window
from pyspark.sql import functions as F

from movielens.contract import TOP_RANKS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


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
    """The ratings that can be among their user's best; the others, seven of eight, need not be sorted.

    The movies fall into more buckets than there are ranks. A user's highest ratings in each bucket are ratings of
    different lines, so as many lines as there are ranks reach the one of them that has the last rank. What is below
    that one has at least so many lines before it, and who has ratings in fewer buckets keeps all.
    """
    buckets = TOP_RANKS + 1
    rating, bucket = F.col("rating"), F.col("movieId") % buckets
    highest = F.array(*(F.max(F.when(bucket == number, rating)) for number in range(buckets)))
    last_rank = F.coalesce(F.sort_array(highest, asc=False)[TOP_RANKS - 1], F.lit(0.0))
    bounds = ratings.groupBy("userId").agg(last_rank.alias("bound"))
    return (
        ratings.join(bounds, on="userId", how="inner")
        .filter(rating >= F.col("bound"))
        # without it Sail sorts before it filters
        .repartition("userId")
    )
