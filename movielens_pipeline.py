#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["pysail==0.7.2", "pyspark-client==4.1.2", "boto3==1.44.5", "pandas==2.3.3"]
# ///
"""Publishes four Parquet datasets made from a release of MovieLens.

ratings, movies, movies with their highest, lowest and average rating, and each user's top three movies.
Nothing is read before `output_result`; nothing of an earlier result is touched before the new one is complete.
"""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from contextlib import nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any

from movielens import contract
from movielens.storage.paths import absolute, checked, same_place

if TYPE_CHECKING:  # pyspark takes half a second to import; --help and usage errors answer without it
    from pyspark.sql import SparkSession

    from movielens.inputs import Release
    from movielens.tables import Check


def parse_args(argv: list[str]) -> argparse.Namespace:
    """The command line: input_path and output_path (made absolute), engine, max_rejects. Exits 2 when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="movielens_pipeline",
        description="Publishes four Parquet datasets made from a release of MovieLens.",
        epilog="Exit status: 0 done, 1 unexpected failure, 2 usage, 3 bad input, 4 the output is being published by "
        "another run, 130 interrupted.",
        allow_abbrev=False,
    )
    where_from = (
        "a release of MovieLens, its folder or its .zip: here, at file://, s3:// or s3a:// or, on spark, hdfs://"
    )
    where_to = "where to publish; the same kinds of path"
    which = "sail runs in this process; spark is Apache Spark (default: spark under spark-submit, otherwise sail)"
    how_many = "let up to N lines that are not valid pass, into the dataset rejects (default: %(default)s)"
    parser.add_argument("--input_path", "--input-path", required=True, metavar="PATH", help=where_from)
    parser.add_argument("--output_path", "--output-path", required=True, metavar="PATH", help=where_to)
    parser.add_argument("--engine", choices=contract.ENGINES, default=contract.default_engine(), help=which)
    parser.add_argument("--max_rejects", "--max-rejects", type=int, default=0, metavar="N", help=how_many)
    parser.add_argument("--version", action="version", version=f"%(prog)s {contract.VERSION}")
    arguments = parser.parse_args(argv)
    if arguments.max_rejects < 0:
        parser.error("--max_rejects must not be negative")
    for option in ("input_path", "output_path"):
        path = getattr(arguments, option)
        try:
            setattr(arguments, option, checked(path, arguments.engine))
        except contract.UsageError as error:
            parser.error(f"--{option} {path!r}: {error}")
    if arguments.output_path in ("/", absolute("~")) or same_place(arguments.output_path, arguments.input_path):
        parser.error(f"--output_path {arguments.output_path}: choose a folder of its own for the results")
    return arguments


def get_spark_session(engine: str) -> SparkSession:
    """Starts the engine, `sail` or `spark`, and returns a session on it.

    Raises PipelineError when what the engine needs is not installed.
    """
    from movielens import engines

    return engines.start(engine)


def make_datasets(spark: SparkSession, release: Release, folder: str, check: Check) -> dict[str, int]:
    """The job: describes the four datasets, then has them written below the folder and checked; returns their rows."""
    from movielens.reading import load_movies, load_ratings
    from movielens.tables import output_result, parsed_once
    from movielens.transforms import movie_statistics, top_movies_per_user

    ratings = load_ratings(spark, release)
    movies = load_movies(spark, release)
    parsed_ratings = parsed_once(ratings, folder, "ratings")
    movies_with_stats = movie_statistics(parsed_ratings, parsed_once(movies, folder, "movies"))
    top_movies = top_movies_per_user(parsed_ratings)
    return output_result(ratings, movies, movies_with_stats, top_movies, folder, check=check)


def main(argv: list[str], *, own_process: bool = False) -> int:
    """Runs the job as the command line says and returns the exit status; messages go to standard error.

    With `own_process` nothing but the job is in this process, which then leaves the network where it needs none, and
    keeps temporary files in a folder of its own.
    """
    arguments = parse_args(argv)
    from movielens import engines, terminal
    from movielens.scratch import scratch_folder

    terminal.log_to_standard_error()
    if own_process:
        engines.seclude(arguments.engine, arguments.input_path, arguments.output_path)
    with terminal.signals_restored(), scratch_folder() if own_process else nullcontext():
        try:
            terminal.catch_signals()
            spark = get_spark_session(arguments.engine)
            terminal.catch_signals()  # again: Spark puts a handler of its own in place
            from movielens.run import run

            run(spark, arguments, make_datasets)
        except contract.PipelineError as error:
            terminal.log.error("movielens_pipeline: error: %s", error)
            return error.status
        except KeyboardInterrupt as stop:
            return 128 + int(stop.args[0] if stop.args else signal.SIGINT)
    return contract.EXIT_DONE


# What else can be imported from here, and where it is at home
HOMES = {
    "load_ratings": "movielens.reading",
    "load_movies": "movielens.reading",
    "movie_statistics": "movielens.transforms",
    "top_movies_per_user": "movielens.transforms",
    "output_result": "movielens.tables",
}


def __getattr__(name: str) -> Any:
    if name in HOMES:
        return getattr(import_module(HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    from movielens.terminal import leave

    try:
        leave(main(sys.argv[1:], own_process=True))
    except SystemExit as usage:
        leave(int(usage.code or 0))
    except BaseException:  # noqa: BLE001  # a fault of the job's own keeps its traceback
        traceback.print_exc()
        leave(contract.EXIT_FAILURE)
