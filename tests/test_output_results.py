"""output_result: the one function that runs anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest
from pyspark.sql import functions as F

import movielens_pipeline as job
from movielens import contract, frames, tables
from movielens.contract import SchemaError
from tests.support.inputs import MOVIES, RATINGS


def write(spark: Any, input_path: Path, target: Path) -> dict[str, int]:
    ratings, movies = job.load_ratings(spark, str(input_path)), job.load_movies(spark, str(input_path))
    with_stats, top_three = job.movie_statistics(ratings, movies), job.top_movies_per_user(ratings)
    return job.output_result(ratings, movies, with_stats, top_three, str(target))


def test_four_datasets_are_written_below_the_path_and_counted(spark: Any, input_path: Path, output_path: Path) -> None:
    rows = write(spark, input_path, output_path)
    assert rows == {"ratings": 6, "movies": 5, "movies_with_stats": 5, "top_movies_per_user": 5}
    assert {entry.name for entry in output_path.iterdir()} == rows.keys()
    for name, count in rows.items():
        [(found,)] = duckdb.connect().execute(f"SELECT count(*) FROM '{output_path / name}/*.parquet'").fetchall()
        assert found == count


def test_writing_again_replaces_what_was_there(spark: Any, input_path: Path, output_path: Path) -> None:
    first, second = write(spark, input_path, output_path), write(spark, input_path, output_path)
    assert first == second
    [(found,)] = duckdb.connect().execute(f"SELECT count(*) FROM '{output_path}/ratings/*.parquet'").fetchall()
    assert found == len(RATINGS)


def test_nothing_is_read_or_written_before_it(spark: Any, input_path: Path, output_path: Path) -> None:
    # given frames that are described, with all that main derives
    ratings, movies = job.load_ratings(spark, str(input_path)), job.load_movies(spark, str(input_path))
    with tables.parsed_once(ratings, str(output_path), "ratings") as parsed:
        with_stats, top_three = job.movie_statistics(parsed, movies), job.top_movies_per_user(parsed)
        assert not output_path.exists()
        # when the input changes before output_result runs
        with (input_path / "movies.dat").open("ab") as file:
            file.write(b"77::New::Drama\n")
        rows = job.output_result(ratings, movies, with_stats, top_three, str(output_path))
    # then the result is that of the changed input
    assert rows["movies"] == rows["movies_with_stats"] == len(MOVIES) + 1


def made(spark: Any) -> dict[str, Any]:
    """The four frames, as a notebook would make them."""
    ratings = spark.createDataFrame(RATINGS, contract.SCHEMAS["ratings"])
    movies = spark.createDataFrame(MOVIES, contract.SCHEMAS["movies"])
    with_stats, top_three = job.movie_statistics(ratings, movies), job.top_movies_per_user(ratings)
    return {"ratings": ratings, "movies": movies, "movies_with_stats": with_stats, "top_movies_per_user": top_three}


def columns_written(folder: Path) -> list[tuple[str, str]]:
    found = duckdb.connect().execute(f"DESCRIBE SELECT * FROM '{folder}/*.parquet'").fetchall()
    return [(name, kind) for name, kind, *_ in found]


RATING_TYPES = [("userId", "INTEGER"), ("movieId", "INTEGER"), ("rating", "FLOAT"), ("timestamp", "BIGINT")]


def test_other_orders_further_columns_and_narrow_types_are_made_to_fit(spark: Any, output_path: Path) -> None:
    given = made(spark)
    given["ratings"] = given["ratings"].select(
        F.lit("x").alias("note"),
        F.col("timestamp").cast("int").alias("timestamp"),
        F.col("rating"),
        F.col("movieId").cast("smallint").alias("movieId"),
        "userId",
    )
    stats = given["movies_with_stats"]
    given["movies_with_stats"] = stats.select("avg_rating", *stats.columns[:-1]).withColumn(
        "avg_rating", F.col("avg_rating").cast("float")
    )
    rows = job.output_result(*given.values(), str(output_path))
    assert rows == {"ratings": 6, "movies": 5, "movies_with_stats": 5, "top_movies_per_user": 5}
    assert columns_written(output_path / "ratings") == RATING_TYPES
    assert columns_written(output_path / "top_movies_per_user") == [*RATING_TYPES, ("rank", "INTEGER")]
    assert columns_written(output_path / "movies_with_stats")[-1] == ("avg_rating", "DOUBLE")
    found = duckdb.connect().execute(f"SELECT * FROM '{output_path}/ratings/*.parquet'").fetchall()
    assert sorted(found) == RATINGS


@pytest.mark.parametrize("kind", ["DOUBLE", "INT", "DECIMAL(3,1)", "STRING"])
@pytest.mark.parametrize("name", ["ratings", "top_movies_per_user"])
def test_a_type_that_could_lose_something_stops_it_early(spark: Any, output_path: Path, name: str, kind: str) -> None:
    given = made(spark)
    given[name] = given[name].withColumn("rating", F.col("rating").cast(kind))
    with pytest.raises(SchemaError, match=f"^{name}: column rating is ") as raised:
        job.output_result(*given.values(), str(output_path))
    assert str(raised.value) == (
        f"{name}: column rating is {kind}, expected FLOAT or TINYINT or SMALLINT; cast it first"
    )
    assert not output_path.exists()


def test_a_missing_column_of_the_last_frame_stops_it_early(spark: Any, output_path: Path) -> None:
    given = made(spark)
    given["top_movies_per_user"] = given["top_movies_per_user"].drop("rank")
    with pytest.raises(SchemaError, match="top_movies_per_user must have exactly one column rank"):
        job.output_result(*given.values(), str(output_path))
    assert not output_path.exists()


def test_the_job_s_own_frames_are_written_as_they_are(spark: Any) -> None:
    for name, frame in made(spark).items():
        assert frames.conform(frame, name) is frame
