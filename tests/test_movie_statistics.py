"""Each movie with the highest, lowest and average of its ratings."""

from __future__ import annotations

from typing import Any

import pytest
from chispa import assert_df_equality
from hypothesis import HealthCheck, given, settings

import movielens_pipeline as job
from movielens import contract
from tests.support import oracle
from tests.support.inputs import MOVIES, RATINGS


def frames(spark: Any, ratings: list[Any], movies: list[Any], partitions: int = 2) -> tuple[Any, Any]:
    return (
        spark.createDataFrame(ratings, contract.SCHEMAS["ratings"]).repartition(partitions),
        spark.createDataFrame(movies, contract.SCHEMAS["movies"]),
    )


def test_every_movie_has_its_extremes_and_its_exact_mean(spark: Any) -> None:
    # given ratings 5 and 0.5 of movie 10, one each of three others, none of movie 14
    result = job.movie_statistics(*frames(spark, RATINGS, MOVIES))
    # then an unrated movie has NULLs and a rating of an unknown movie counts nowhere
    expected = spark.createDataFrame(
        [
            (10, "First (2001)", "Drama", 5.0, 0.5, 2.75),
            (11, "Second:: Two (2002)", "Comedy|Drama", 5.0, 5.0, 5.0),
            (12, '"Third" (2003)', "War", 5.0, 5.0, 5.0),
            (13, "Café: Noir (1954)", "Film-Noir", 4.5, 4.5, 4.5),
            (14, "Unrated (2010)", "Western", None, None, None),
        ],
        contract.SCHEMAS["movies_with_stats"],
    )
    assert_df_equality(result, expected, ignore_row_order=True, ignore_nullable=True)


def test_the_mean_is_a_double_that_nobody_rounded(spark: Any) -> None:
    ratings = [(user, 1, rating, 0) for user, rating in enumerate([5.0, 4.0, 4.0], 1)]
    [row] = job.movie_statistics(*frames(spark, ratings, [(1, "A", "B")])).collect()
    assert row["avg_rating"] == 13 / 3


@pytest.mark.thorough
def test_the_mean_of_any_decimals_does_not_depend_on_the_order_of_addition(spark: Any) -> None:
    # given ratings that no binary fraction hits
    values = [0.5 + (number * 0.0037) % 4.5 for number in range(2000)]
    rows = [(number + 1, 1, value, 0) for number, value in enumerate(values)]
    means = set()
    for order in (rows, rows[::-1], sorted(rows, key=lambda row: row[2])):
        for partitions in (1, 7):
            means |= {
                row["avg_rating"]
                for row in job.movie_statistics(*frames(spark, order, [(1, "A", "B")], partitions)).collect()
            }
    # then there is one mean, to the last bit
    assert len(means) == 1


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(oracle.ratings())
def test_statistics_equal_plain_python_s(spark: Any, ratings: list[oracle.Rating]) -> None:
    result = job.movie_statistics(*frames(spark, ratings, oracle.MOVIES, 3)).collect()
    assert sorted(tuple(row) for row in result) == oracle.statistics(ratings, oracle.MOVIES)
