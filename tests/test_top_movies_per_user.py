"""Each user's three best ratings, in an order that leaves nothing to chance."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from chispa import assert_df_equality
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F

import movielens_pipeline as job
from movielens import contract, transforms
from movielens.contract import PipelineError, SchemaError
from tests.support import oracle
from tests.support.inputs import RATINGS


def top(spark: Any, ratings: list[Any], partitions: int = 2) -> list[tuple[Any, ...]]:
    frame = spark.createDataFrame(ratings, contract.SCHEMAS["ratings"]).repartition(partitions)
    return sorted(tuple(row) for row in job.top_movies_per_user(frame).collect())


def test_the_best_three_are_ranked_by_rating_then_newness_then_movie(spark: Any) -> None:
    # given a user with three fives, of which one is newer, and a user with two ratings
    result = job.top_movies_per_user(spark.createDataFrame(RATINGS, contract.SCHEMAS["ratings"]))
    expected = spark.createDataFrame(
        [(1, 12, 5.0, 101, 1), (1, 10, 5.0, 100, 2), (1, 11, 5.0, 100, 3), (2, 99, 3.0, 51, 1), (2, 10, 0.5, 50, 2)],
        contract.SCHEMAS["top_movies_per_user"],
    )
    assert_df_equality(result, expected, ignore_row_order=True, ignore_nullable=True)


@pytest.mark.parametrize("partitions", [1, 5])
def test_ties_at_the_third_place_are_decided_the_same_way_every_time(spark: Any, partitions: int) -> None:
    # given fifty movies with the same rating at the same second, in two orders
    tied = [(1, movie, 4.0, 7) for movie in range(50, 0, -1)]
    expected = [(1, movie, 4.0, 7, movie) for movie in (1, 2, 3)]
    assert top(spark, tied, partitions) == expected
    assert top(spark, tied[::-1], partitions) == expected


def test_a_movie_that_a_user_rated_twice_counts_twice(spark: Any) -> None:
    # given a repeated line and a changed mind
    ratings = [(1, 1, 5.0, 9), (1, 1, 5.0, 9), (1, 2, 3.0, 1), (1, 2, 4.0, 2)]
    # then each line is a rating, as it is in the ratings dataset
    assert top(spark, ratings) == [(1, 1, 5.0, 9, 1), (1, 1, 5.0, 9, 2), (1, 2, 4.0, 2, 3)]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(oracle.ratings())
def test_the_top_three_equal_plain_python_s(spark: Any, ratings: list[oracle.Rating]) -> None:
    assert top(spark, ratings, 3) == oracle.top(ratings)


RANKS = [3, *(pytest.param(ranks, marks=pytest.mark.thorough) for ranks in (1, 5))]


@pytest.mark.parametrize("ranks", RANKS)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(oracle.ratings())
def test_any_number_of_ranks_equals_plain_python_s(
    spark: Any, monkeypatch: pytest.MonkeyPatch, ranks: int, ratings: list[oracle.Rating]
) -> None:
    monkeypatch.setattr(transforms, "TOP_RANKS", ranks)
    assert top(spark, ratings) == oracle.top(ratings, ranks)


@pytest.mark.parametrize("ranks", RANKS)
def test_buckets_of_movies_that_are_empty_or_hold_all_leave_the_best_in(
    spark: Any, monkeypatch: pytest.MonkeyPatch, ranks: int
) -> None:
    # given users whose movies all fall into one bucket, into two, and one less than there are ranks
    monkeypatch.setattr(transforms, "TOP_RANKS", ranks)
    ratings = [
        (user, movie * ranks + place, stars / 2, movie)
        for user, places in enumerate(([0], [1, 2], list(range(ranks - 1)) or [0]), 1)
        for place in places
        for movie, stars in enumerate([2, 4, 6, 8, 10, 10, 9, 7, 5], 1)
    ]
    assert top(spark, ratings) == oracle.top(ratings, ranks)


def test_of_many_ratings_few_are_sorted(spark: Any) -> None:
    # given users with a hundred ratings of all heights, and of one, some minutes and centuries after the first of all
    # times, and one with less than three
    varied = [(1, movie, 0.5 + movie % 10 / 2, 1000 * movie) for movie in range(100)]
    equal = [(2, movie, 4.0, 2**33 + 260 * movie) for movie in range(100)]
    few = [(3, movie, 4.0, movie) for movie in range(2)]
    frame = spark.createDataFrame([*varied, *equal, *few], contract.SCHEMAS["ratings"])
    left = transforms.possible_top_ratings(frame).collect()
    # then what the rating, or the time, keeps from the first three places is left out before
    expected = {1: [79, 89, 99], 2: [97, 98, 99], 3: [0, 1]}
    assert sorted((row.userId, row.movieId) for row in left) == [
        (user, movie) for user, movies in expected.items() for movie in movies
    ]


def test_the_last_rank_s_own_rating_is_within_the_bound(spark: Any) -> None:
    # given a user whose three ratings are in three buckets, each lower than the one before
    ratings = [(1, 1, 5.0, 10), (1, 2, 4.5, 10), (1, 3, 4.0, 10)]
    assert top(spark, ratings) == [(*rating, rank) for rank, rating in enumerate(ratings, 1)]


def test_a_rating_that_is_higher_by_the_least_there_is_goes_before_the_newest_one(spark: Any) -> None:
    # given in each bucket a rating that is higher by the last bit of a FLOAT, and one made at the end of time
    least, most = -(2**63), 2**63 - 1
    higher = [(1, movie, 0.5 + 2**-24, least) for movie in (1, 2, 3)]
    newer = [(1, movie, 0.5, most) for movie in (4, 5, 6)]
    # then the higher ones are the best
    assert top(spark, higher + newer) == [(*rating, rank) for rank, rating in enumerate(higher, 1)]


def test_ratings_below_zero_are_ranked_like_others(spark: Any) -> None:
    ratings = [(1, 1, 5.0, 10), (1, 4, -1.0, 10), (1, 7, -2.0, 10)]
    assert top(spark, ratings) == [(*rating, rank) for rank, rating in enumerate(ratings, 1)]


def test_negative_movie_ids_keep_their_best_ratings(spark: Any) -> None:
    # given ids whose remainders by three are 0, -1 and -2
    ratings = [(1, -movie, stars / 2, movie) for movie, stars in enumerate([2, 10, 9, 8, 10, 1, 10], 1)]
    assert top(spark, ratings) == oracle.top(ratings)


def of_type(spark: Any, ratings: list[Any], rating_type: str) -> Any:
    return spark.createDataFrame(ratings, f"userId INT, movieId INT, rating {rating_type}, timestamp BIGINT")


@pytest.mark.parametrize("rating_type", oracle.VALUES)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_ratings_of_any_type_equal_plain_python_s(spark: Any, rating_type: str, data: st.DataObject) -> None:
    ratings = data.draw(oracle.ratings(oracle.VALUES[rating_type], st.integers(-5, 5) | st.just(-(2**31))))
    result = job.top_movies_per_user(of_type(spark, ratings, rating_type).repartition(3))
    assert sorted(tuple(row) for row in result.collect()) == oracle.top(ratings)


def test_doubles_nearer_than_any_float_keep_their_order(spark: Any) -> None:
    # given in each bucket a rating that is higher by the last bit of a DOUBLE, and a newer one
    higher = [(1, movie, 4.0 + 2**-50, 0) for movie in (1, 2, 3)]
    newer = [(1, movie, 4.0, 2**34) for movie in (4, 5, 6)]
    result = job.top_movies_per_user(of_type(spark, higher + newer, "DOUBLE")).collect()
    assert sorted(tuple(row) for row in result) == [(*rating, rank) for rank, rating in enumerate(higher, 1)]


def test_other_orders_and_further_columns_are_ignored(spark: Any) -> None:
    names = ["bound", "rank", "timestamp", "user", "rating", "bucket", "best", "movieId", "userId", "avg_rating"]
    frame = spark.createDataFrame(RATINGS, contract.SCHEMAS["ratings"])
    columns = [name if name in frame.columns else F.lit("x").alias(name) for name in names]
    result, expected = (job.top_movies_per_user(each) for each in (frame.select(*columns), frame))
    assert result.columns == ["userId", "movieId", "rating", "timestamp", "rank"]
    assert sorted(map(tuple, result.collect())) == sorted(map(tuple, expected.collect()))


WRONG_ROWS = {
    "null user": (None, 9, 0.5, 1),
    "null movie": (1, None, 0.5, 1),
    "null rating": (1, 9, None, 1),
    "null timestamp": (1, 9, 0.5, None),
    "nan": (1, 9, float("nan"), 1),
    "infinity": (1, 9, float("-inf"), 1),
}


@pytest.mark.parametrize("rating_type", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("wrong", WRONG_ROWS.values(), ids=WRONG_ROWS)
def test_a_wrong_value_raises_when_the_plan_runs(spark: Any, wrong: tuple[Any, ...], rating_type: str) -> None:
    # given a row that could not be among the best either way
    better = [(1, movie, 5.0, 10) for movie in range(1, 9)]
    result = job.top_movies_per_user(of_type(spark, [*better, wrong], rating_type))  # lazy: raises nothing
    with pytest.raises(
        Exception, match=r"no column may be NULL, and a rating must be finite: userId (1|NULL), movieId"
    ):
        result.collect()
    with pytest.raises(Exception, match="no column may be NULL"):
        result.count()


@pytest.mark.parametrize("wrong", [(1, 9, None, 1), (None, 9, Decimal(4), 1)])
def test_a_null_beside_a_decimal_raises_when_the_plan_runs(spark: Any, wrong: tuple[Any, ...]) -> None:
    frame = of_type(spark, [(1, 1, Decimal(5), 10), wrong], "DECIMAL(3,1)")
    with pytest.raises(Exception, match="no column may be NULL"):
        job.top_movies_per_user(frame).collect()


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("userId INT, movieId INT, timestamp BIGINT", "one column rating .*; it has: userId, movieId, timestamp"),
        ("userId STRING, movieId INT, rating FLOAT, timestamp BIGINT", "userId is STRING, expected TINYINT or "),
        ("userId INT, movieId INT, rating STRING, timestamp BIGINT", "rating is STRING, expected .*DECIMAL; cast it"),
        ("userId INT, movieId INT, rating FLOAT, timestamp TIMESTAMP", "timestamp is TIMESTAMP, expected"),
        ("userId INT, movieId INT, rating FLOAT, Rating FLOAT, timestamp INT", "one column rating .*rating, Rating"),
    ],
)
def test_a_missing_or_mistyped_column_raises_at_the_call(spark: Any, schema: str, said: str) -> None:
    with pytest.raises(SchemaError, match=f"ratings.*{said}") as raised:
        job.top_movies_per_user(spark.createDataFrame([], schema))
    assert isinstance(raised.value, PipelineError)
    assert isinstance(raised.value, ValueError)
