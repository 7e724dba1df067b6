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

import sys
from contextlib import nullcontext
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from movielens.arguments import asks_for_summary, parse_args
from movielens.storage.paths import resolved

if TYPE_CHECKING:  # pyspark takes half a second to import; --help and usage errors answer without it
    from pyspark.sql import SparkSession

    from movielens.inputs import Release
    from movielens.summary import Summary
    from movielens.tables import Check


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
    with (
        parsed_once(ratings, folder, "ratings") as parsed_ratings,
        parsed_once(movies, folder, "movies") as parsed_movies,
    ):
        movies_with_stats = movie_statistics(parsed_ratings, parsed_movies)
        top_movies = top_movies_per_user(parsed_ratings)
        return output_result(ratings, movies, movies_with_stats, top_movies, folder, check=check)


def work(argv: list[str], summary: Summary, *, own_process: bool) -> None:
    """Runs the job as the command line says. Raises PipelineError, and SystemExit where the command line is wrong."""
    arguments = parse_args(argv)
    summary.input["path"], summary.output_path = arguments.input_path, arguments.output_path
    summary.engine["name"] = arguments.engine
    arguments.output_path = resolved(arguments.output_path)  # a link may be switched while the job works
    from movielens import engines
    from movielens.scratch import scratch_folder
    from movielens.terminal import handlers_kept

    paths = (arguments.input_path, arguments.output_path)
    if own_process:
        engines.seclude(arguments.engine, *paths)
    with scratch_folder() if own_process else nullcontext():
        unstarted = engines.unstarted(arguments.engine, *paths) if arguments.if_changed else None
        if unstarted:
            from movielens.run import is_unchanged

            if is_unchanged(unstarted, arguments, summary):
                return
        with handlers_kept():
            spark = get_spark_session(arguments.engine)
        from movielens.run import is_unchanged, run

        engine = engines.engine_of(spark)
        if arguments.if_changed and not unstarted and is_unchanged(engine, arguments, summary):
            return
        run(spark, arguments, make_datasets, summary)


def main(argv: list[str], *, own_process: bool = False) -> int:
    """Runs the job as the command line says and returns the exit status; messages go to standard error.

    With `own_process` nothing but the job is in this process, which then leaves the network where it needs none, and
    keeps temporary files in a folder of its own.
    """
    from movielens.ending import ended

    job = partial(work, argv, own_process=own_process)
    return ended(job, own_process=own_process, summarized=asks_for_summary(argv))


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
    from movielens.terminal import leave, open_standard_streams, use_utf8

    use_utf8()
    open_standard_streams()
    try:
        leave(main(sys.argv[1:], own_process=True))
    except SystemExit as left:
        leave(int(left.code or 0))
