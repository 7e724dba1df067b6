"""Each user's three best ratings, in an order that leaves nothing to chance."""

from __future__ import annotations

from typing import Any

import pytest
from chispa import assert_df_equality
from hypothesis import HealthCheck, given, settings

import movielens_pipeline as job
from movielens import contract, transforms
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
