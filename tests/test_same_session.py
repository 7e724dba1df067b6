"""Several runs in one process and one session: none reads what another kept, and none drops what is not its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import movielens_pipeline as job
from tests.support.inputs import MOVIES, movie_lines, rating_lines, write_input
from tests.support.jobs import Main, Publish, job_environment
from tests.support.project import ROOT
from tests.support.results import rows_of

RATINGS = [(1, 10, 4.5, 100), (1, 11, 3.5, 101), (2, 12, 0.5, 50)]
TITLES = {title for _, title, _ in MOVIES}
# As many lines and bytes as before
OTHER_RATINGS = [(user, movie, 5.0 - rating, time) for user, movie, rating, time in RATINGS]
OTHER_MOVIES = [(movie, title.swapcase(), genres) for movie, title, genres in MOVIES]
OTHER_TITLES = {title for _, title, _ in OTHER_MOVIES}
# Lines that are valid and not plain, and one that is not valid
NOT_PLAIN, NOT_VALID = b"3::10::4.50::100\n", b"3::11::9::100\n"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return write_input(tmp_path / "release", rating_lines(RATINGS), movie_lines(MOVIES))


def change(release: Path) -> None:
    """Changes a release, but not the size of its files."""
    sizes = {file: file.stat().st_size for file in release.iterdir()}
    write_input(release, rating_lines(OTHER_RATINGS), movie_lines(OTHER_MOVIES))
    assert {file: file.stat().st_size for file in release.iterdir()} == sizes


def assert_published(output: Path, ratings: list[Any], titles: set[str]) -> None:
    assert set(rows_of(output, "ratings")) == set(ratings)
    assert {title for _, title, _ in rows_of(output, "movies")} == titles
    assert {row[1] for row in rows_of(output, "movies_with_stats")} == titles


def kept_by_spark(spark: Any) -> int:
    """How many tables the session keeps in memory or on disk."""
    return int(spark.sparkContext._jsc.getPersistentRDDs().size())


def test_a_run_after_a_change_publishes_the_new_rows(
    engine: str, publish: Publish, release: Path, output_path: Path
) -> None:
    publish(engine, release, output_path)
    assert_published(output_path, RATINGS, TITLES)
    change(release)
    publish(engine, release, output_path)
    assert_published(output_path, OTHER_RATINGS, OTHER_TITLES)


def test_loading_after_a_run_and_a_change_gives_new_rows(
    engine: str, spark: Any, publish: Publish, release: Path, output_path: Path
) -> None:
    publish(engine, release, output_path)
    change(release)
    assert {row.title for row in job.load_movies(spark, str(release)).collect()} == OTHER_TITLES
    assert {tuple(row) for row in job.load_ratings(spark, str(release)).collect()} == set(OTHER_RATINGS)


def test_what_the_user_cached_is_neither_reused_nor_dropped(
    engine: str, spark: Any, publish: Publish, release: Path, output_path: Path
) -> None:
    # given frames over the release that a user has cached: what the job derives its datasets from, and plain lines
    movies, ratings = job.load_movies(spark, str(release)), job.load_ratings(spark, str(release))
    lines = spark.read.text([f"{release}/movies.dat", f"{release}/ratings.dat"])
    cached = [frame.persist() for frame in (movies, ratings, lines)]
    before, levels = [frame.collect() for frame in cached], [frame.storageLevel for frame in cached]
    # when the release changes
    change(release)
    # then all that is loaded and published is new
    assert {row.title for row in job.load_movies(spark, str(release)).collect()} == OTHER_TITLES
    assert {tuple(row) for row in job.load_ratings(spark, str(release)).collect()} == set(OTHER_RATINGS)
    publish(engine, release, output_path)
    assert_published(output_path, OTHER_RATINGS, OTHER_TITLES)
    # and the user has what was cached; Sail itself keeps nothing
    assert [frame.storageLevel for frame in cached] == levels
    if engine == "spark":
        assert [frame.collect() for frame in cached] == before
    for frame in cached:
        frame.unpersist()


@pytest.mark.parametrize(("lines", "expected"), [(NOT_PLAIN, 0), (NOT_VALID, 3)], ids=["judged", "failed"])
def test_a_run_drops_what_it_cached_and_nothing_else(
    use_engine: Any, run_main: Main, release: Path, output_path: Path, lines: bytes, expected: int
) -> None:
    # given a frame of the user's, and lines for which the job reads the release a second time
    spark = use_engine("spark")
    user_frame = spark.range(3).persist()
    assert user_frame.count() == 3
    before = kept_by_spark(spark)
    with (release / "ratings.dat").open("ab") as file:
        file.write(lines)
    status, said = run_main("spark", "--input_path", release, "--output_path", output_path)
    assert (status, kept_by_spark(spark)) == (expected, before), said
    assert user_frame.storageLevel.useMemory
    user_frame.unpersist()


IN_A_THREAD = """
import signal, sys, threading
import movielens_pipeline as job
caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
before = [signal.getsignal(number) for number in caught]
statuses = []
thread = threading.Thread(target=lambda: statuses.append(job.main(sys.argv[1:])))
thread.start()
thread.join()
print(statuses, [signal.getsignal(number) for number in caught] == before)
"""


def test_a_run_works_in_a_thread_of_a_program(engine: str, release: Path, output_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_A_THREAD, "--engine", engine, "--input_path", release, "--output_path", output_path],
        cwd=ROOT, env=job_environment(), capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.stdout == "[0] True\n", done.stderr
    assert_published(output_path, RATINGS, TITLES)
