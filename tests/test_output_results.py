"""output_result: the one function that runs anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

import movielens_pipeline as job
from movielens import tables
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
