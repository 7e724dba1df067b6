"""The same rows from both engines, and both equal to what DuckDB derives."""

from __future__ import annotations

import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from check_local_results import COLUMNS
from movielens import contract
from tests.support.inputs import generate, movie_lines, rating_lines, real_data, write_input
from tests.support.jobs import JAVA_OPTIONS, Publish, job_environment
from tests.support.project import ROOT
from tests.support.results import assert_equal_by_check, rows_of


def test_the_bundled_dataset_gives_the_same_rows_on_both_engines(publish: Publish, tmp_path: Path) -> None:
    for engine in contract.ENGINES:
        publish(engine, ROOT / "dataset", tmp_path / engine)
        assert_equal_by_check(ROOT / "dataset", tmp_path / engine)
    for dataset in COLUMNS:
        assert rows_of(tmp_path / "sail", dataset) == rows_of(tmp_path / "spark", dataset)


def test_the_order_and_the_parts_of_the_input_do_not_matter(publish: Publish, tmp_path: Path, engine: str) -> None:
    # given the lines of the bundled dataset shuffled into several parts
    for name in ("ratings.dat", "movies.dat"):
        shuffled = (ROOT / "dataset" / name).read_bytes().splitlines(keepends=True)
        random.Random(7).shuffle(shuffled)
        (tmp_path / "shuffled" / name).mkdir(parents=True)
        for part in range(5):
            (tmp_path / "shuffled" / name / f"part-{part}").write_bytes(b"".join(shuffled[part::5]))
    publish(engine, tmp_path / "shuffled", tmp_path / "out")
    assert_equal_by_check(ROOT / "dataset", tmp_path / "out")


@pytest.mark.thorough
def test_each_dataset_is_a_handful_of_files(
    engine: str, use_engine: Callable[[str], Any], publish: Publish, tmp_path: Path
) -> None:
    # given Spark's own setting, by which each shuffle ends in 200 parts
    session, setting = use_engine(engine), "spark.sql.shuffle.partitions"
    before = session.conf.get(setting, None)
    session.conf.set(setting, "200")
    try:
        publish(engine, ROOT / "dataset", tmp_path)
    finally:
        session.conf.set(setting, before) if before else session.conf.unset(setting)
    # then none of them is a file
    files = {name: len(list((tmp_path / name).glob("*.parquet"))) for name in COLUMNS}
    assert all(1 <= number <= 8 for number in files.values()), files


@pytest.mark.thorough
def test_a_movies_file_of_over_4_mb_is_read_once(publish: Publish, tmp_path: Path, engine: str) -> None:
    # given a file so large that an engine may split it
    movies = [(number, f"Movie {number} " + "x" * 60, "Drama") for number in range(1, 70_001)]
    folder = write_input(tmp_path / "in", rating_lines([(1, 1, 5.0, 1)]), movie_lines(movies))
    assert (folder / "movies.dat").stat().st_size > 4 * 2**20
    said = publish(engine, folder, tmp_path / "out")
    assert "movies: 70,000 rows" in said
    assert_equal_by_check(folder, tmp_path / "out")


def test_movielens_1m_equals_duckdb(publish: Publish, tmp_path: Path, engine: str) -> None:
    publish(engine, real_data("ml-1m"), tmp_path)
    assert_equal_by_check(real_data("ml-1m"), tmp_path)
    # the releases' own figures, and a title that is broken when encodings are ignored
    movies = rows_of(tmp_path, "movies")
    assert (len(movies), len(rows_of(tmp_path, "top_movies_per_user"))) == (3883, 3 * 6040)
    assert (73, "Misérables, Les (1995)", "Drama|Musical") in movies


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Cluster(NamedTuple):
    """A standalone cluster of Spark."""

    url: str
    log: Path
    work: Path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Spark master and two workers, each a process of its own."""
    folder, port = tmp_path_factory.mktemp("cluster"), free_port()
    url, log, work = f"spark://127.0.0.1:{port}", folder / "cluster.log", folder / "work"
    environment = {
        **job_environment(), "SPARK_WORKER_DIR": str(work), "SPARK_CONF_DIR": str(folder),
        "SPARK_DAEMON_JAVA_OPTS": JAVA_OPTIONS, "LC_ALL": "C",
    }  # fmt: skip
    logs = log.open("w")

    def start(*arguments: object) -> subprocess.Popen[bytes]:
        command = [Path(sys.executable).parent / "spark-class", *map(str, arguments)]
        # without the quiet configuration, so that the log says who is there
        return subprocess.Popen(command, env=environment, stdout=logs, stderr=logs)

    deploy = "org.apache.spark.deploy"
    ports = ["--webui-port", free_port()]
    processes = [start(f"{deploy}.master.Master", "--host", "127.0.0.1", "--port", port, *ports)]
    processes += [
        start(f"{deploy}.worker.Worker", "--host", "127.0.0.1", "--webui-port", free_port(), "-c", 1, "-m", "1g", url)
        for _ in range(2)
    ]
    deadline = time.monotonic() + 120
    while len(re.findall("Registering worker", log.read_text())) < 2:
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.2)
    yield Cluster(url, log, work)
    for process in reversed(processes):
        process.terminate()
        process.wait(timeout=30)
    logs.close()


def run_on(cluster: Cluster, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs the job on a cluster to its end."""
    return subprocess.run(
        ["spark-submit", "--master", cluster.url, "--conf", "spark.driver.host=127.0.0.1",
         "--conf", "spark.executor.memory=600m", "--conf", f"spark.executor.defaultJavaOptions={JAVA_OPTIONS}",
         ROOT / "movielens_pipeline.py", *arguments],
        env=job_environment(), capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.mark.thorough
def test_a_standalone_cluster_gives_the_same_rows(cluster: Cluster, tmp_path: Path) -> None:
    # given workers in a locale that is not UTF-8, and an output path that is not ASCII
    done = run_on(cluster, "--input_path", ROOT / "dataset", "--output_path", tmp_path / "öut")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_equal_by_check(ROOT / "dataset", tmp_path / "öut")
    # both workers ran an executor
    application = max(folder.name for folder in cluster.work.iterdir())
    executors = re.findall(rf"Launching executor {application}/(\d+) on worker (\S+)", cluster.log.read_text())
    assert len(set(executors)) == 2


@pytest.mark.thorough
def test_a_cluster_that_does_not_see_this_machine_s_files_takes_no_archive(cluster: Cluster, tmp_path: Path) -> None:
    archive = generate(tmp_path, "--ratings", 9000, "--zip") / "movielens.zip"
    done = run_on(cluster, "--input_path", archive, "--output_path", tmp_path / "out")
    assert done.returncode == 2, done.stderr
    assert done.stdout.splitlines()[-1] == (
        f"movielens_pipeline: error: {archive} would be unpacked on this machine, whose files the workers of the "
        "cluster do not see: unpack it where they do, and give its folder"
    )
    assert not (tmp_path / "out").exists()
