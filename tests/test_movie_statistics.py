"""Each movie with the highest, lowest and average of its ratings."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from chispa import assert_df_equality
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F

import movielens_pipeline as job
from movielens import contract
from movielens.contract import SchemaError
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


def of_type(spark: Any, ratings: list[Any], rating_type: str) -> Any:
    return spark.createDataFrame(ratings, f"userId INT, movieId INT, rating {rating_type}, timestamp BIGINT")


@pytest.mark.parametrize("rating_type", oracle.VALUES)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_ratings_of_any_type_equal_plain_python_s(spark: Any, rating_type: str, data: st.DataObject) -> None:
    values = oracle.VALUES[rating_type].filter(lambda value: abs(value) < 2**100)
    ratings = data.draw(oracle.ratings(values, st.integers(-2, 4)))
    movies = [(number, f"Movie {number}", "Drama") for number in range(-2, 9)]
    _, frame = frames(spark, [], movies)
    result = sorted(map(tuple, job.movie_statistics(of_type(spark, ratings, rating_type), frame).collect()))
    # then extremes are exact, and the mean is as near as a sum of DOUBLEs can be
    largest = max(abs(float(rating[2])) for rating in ratings)
    expected = oracle.statistics(ratings, movies)
    assert [row[:5] for row in result] == [row[:5] for row in expected]
    assert [row[5] for row in result] == [
        None if row[5] is None else pytest.approx(row[5], rel=1e-12, abs=len(ratings) * largest * 2**-52)
        for row in expected
    ]


def test_other_orders_and_further_columns_are_ignored(spark: Any) -> None:
    ratings, movies = frames(spark, RATINGS, MOVIES)
    further = [F.lit("x").alias(name) for name in ("avg_rating", "max_rating", "rating")]
    result = job.movie_statistics(
        ratings.select("rating", F.lit("x").alias("title"), F.lit(1).alias("avg_rating"), "movieId"),
        movies.select(*further, "genres", "title", "movieId"),
    )
    expected = job.movie_statistics(ratings, movies)
    assert result.columns == expected.columns
    assert sorted(map(tuple, result.collect())) == sorted(map(tuple, expected.collect()))


WRONG_ROWS = {
    "null movie": (1, None, 4.0, 1),
    "null rating": (1, 1, None, 1),
    "nan": (1, 1, float("nan"), 1),
    "infinity": (1, 1, float("inf"), 1),
}


@pytest.mark.parametrize("rating_type", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("wrong", WRONG_ROWS.values(), ids=WRONG_ROWS)
def test_a_wrong_value_raises_when_the_plan_runs(spark: Any, wrong: tuple[Any, ...], rating_type: str) -> None:
    _, movies = frames(spark, [], [(1, "A", "B")])
    result = job.movie_statistics(of_type(spark, [(1, 1, 4.0, 1), wrong], rating_type), movies)  # lazy: raises nothing
    for columns in (result.columns, ["max_rating"], ["avg_rating"]):
        with pytest.raises(Exception, match=r"a rating must be finite: movieId (1|NULL), rating"):
            result.select(*columns).collect()


def test_a_null_decimal_raises_when_the_plan_runs(spark: Any) -> None:
    _, movies = frames(spark, [], [(1, "A", "B")])
    ratings = of_type(spark, [(1, 1, Decimal(4), 1), (1, 1, None, 1)], "DECIMAL(3,1)")
    with pytest.raises(Exception, match="no column may be NULL"):
        job.movie_statistics(ratings, movies).collect()


def test_columns_that_it_does_not_need_may_be_missing_or_null(spark: Any) -> None:
    ratings, movies = frames(spark, [(None, 1, 4.0, None)], [(1, "A", None), (None, None, "B")])
    result = job.movie_statistics(ratings.drop("userId"), movies).collect()
    assert sorted(map(str, map(tuple, result))) == [
        "(1, 'A', None, 4.0, 4.0, 4.0)",
        "(None, None, 'B', None, None, None)",
    ]


@pytest.mark.parametrize(
    ("ratings", "movies", "said"),
    [
        ("movieId INT", contract.MOVIE_COLUMNS, "ratings must have exactly one column rating .*; it has: movieId"),
        ("movieId INT, rating STRING", contract.MOVIE_COLUMNS, "ratings: column rating is STRING, expected TINYINT"),
        (contract.RATING_COLUMNS, "movieId INT, title STRING", "movies must have exactly one column genres"),
        (contract.RATING_COLUMNS, "movieId STRING, title STRING, genres STRING", "movies: column movieId is STRING"),
    ],
)
def test_a_missing_or_mistyped_column_raises_at_the_call(spark: Any, ratings: str, movies: str, said: str) -> None:
    with pytest.raises(SchemaError, match=said):
        job.movie_statistics(spark.createDataFrame([], ratings), spark.createDataFrame([], movies))
