"""The datasets as files: writing them, reading them back, describing them. The one room that knows Parquet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from movielens.contract import SCHEMAS
from movielens.engines import engine_of
from movielens.frames import conform
from movielens.storage.paths import absolute, join
from movielens.terminal import count_of, phase

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from pyspark.sql import DataFrame, SparkSession

    # of the name of a dataset and what was written; returns its rows, and what else there is to say of it
    Check = Callable[[str, DataFrame], tuple[int, str]]


def output_result(  # noqa: PLR0913  # the four datasets, each by its name
    ratings_df: DataFrame,
    movies_df: DataFrame,
    movies_with_stats_df: DataFrame,
    top_movies_per_user_df: DataFrame,
    output_base_path: str,
    *,
    check: Check | None = None,
) -> dict[str, int]:
    """Computes the four datasets and writes each into its folder below the path; replaces what is there.

    This is where the work is done: everything before only describes it. Each dataset is written with the columns of
    `contract.SCHEMAS`: the function reorders columns, drops further ones and widens types without loss (INT to
    BIGINT, FLOAT to DOUBLE). It looks at all four frames first, and raises SchemaError before it writes anything if
    a column is missing or has a type that could lose something (DOUBLE for FLOAT): cast it first.

    Each dataset is checked as soon as it is written, and what the check raises ends the work. Returns the rows of each
    dataset, as read back from what was written.
    """
    frames = {
        "ratings": ratings_df,  # first: the others may be derived from what is written of it
        "movies": movies_df,
        "movies_with_stats": movies_with_stats_df,
        "top_movies_per_user": top_movies_per_user_df,
    }
    conforming = {name: conform(frame, name) for name, frame in frames.items()}
    return {name: write_dataset(frame, absolute(output_base_path), name, check) for name, frame in conforming.items()}


def parsed_once(frame: DataFrame, output_base_path: str, name: str) -> AbstractContextManager[DataFrame]:
    """Ratings or movies to derive others from, whose text the engine parses once while the context lasts.

    Spark caches the rows and drops them at the end. Sail reads back what `output_result` writes below the path.
    """
    spark = frame.sparkSession
    path = join(absolute(output_base_path), name)
    return engine_of(spark).parsed_once(frame, lambda: read_dataset(spark, path, SCHEMAS[name]))


def write_dataset(frame: DataFrame, folder: str, name: str, check: Check | None = None) -> int:
    """Writes one dataset below the folder and returns how many rows are there, as read back."""
    spark, path = frame.sparkSession, join(folder, name)
    with phase(name, timer=not engine_of(spark).shows_progress) as done:
        write_files(frame, path)
        written = read_dataset(spark, path, SCHEMAS[name])
        rows, said = check(name, written) if check else (written.count(), "")
        done(count_of(rows, "row") + said)
    return rows


def write_files(frame: DataFrame, path: str) -> None:
    """Writes the rows of a frame as files in a folder; replaces what is there."""
    frame.write.mode("overwrite").parquet(engine_of(frame.sparkSession).path_to_write(path))


def read_dataset(spark: SparkSession, path: str, schema: str) -> DataFrame:
    """The rows of a folder of files, with the columns that were written."""
    return spark.read.schema(schema).parquet(engine_of(spark).path_to_read(path))
