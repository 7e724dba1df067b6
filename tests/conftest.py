"""Fixtures for all tests: one session per engine, small inputs, the job as a process."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.retries.standard import ExponentialBackoff

import movielens_pipeline as job
from movielens import contract
from movielens.storage import Storage
from movielens.storage.disk import DiskStorage
from movielens.storage.hadoop import HadoopStorage
from movielens.storage.s3 import S3Storage
from tests.support import awsserver, s3server
from tests.support.containers import Docker
from tests.support.hdfs import SETTINGS as HDFS_SETTINGS
from tests.support.hdfs import Hdfs
from tests.support.inputs import RATINGS, rating_lines, write_input
from tests.support.jobs import JAVA_OPTIONS, LOG_CONFIGURATION, QUICK_JAVA_OPTIONS, S3_JARS, SPARK_CONF, Main, Publish
from tests.support.ministack import Ministack
from tests.support.places import Bucket, Disk, HdfsFolder, Place, Storages

start_session = job.get_spark_session

# The files that take longest, first of all, so that none of them is the last one that runs, alone; those that wait for
# others (a cluster, a store) beside those that work
LONGEST_FIRST = ["test_emr", "test_docker", "test_publishing", "test_shell", "test_fargate", "test_faults", "test_s3"]
LONGEST_FIRST += ["test_suspension", "test_engines", "test_setups", "test_docs", "test_infrastructure"]
LONGEST_FIRST += ["test_spark_session", "test_benchmark"]


def parameters_of(item: pytest.Item) -> set[str]:
    """Those parameters of a test that are words."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return {parameter for parameter in parameters if isinstance(parameter, str)}


def is_possible(item: pytest.Item) -> bool:
    """Whether there is what the parameters of a test ask for: HDFS is read and written by Spark alone."""
    return not {"sail", "hdfs"} <= parameters_of(item)


def is_in_a_store(item: pytest.Item) -> bool:
    """Whether the parameters of a test ask for a place that is no disk."""
    return bool(parameters_of(item) & {"bucket", "s3", "s3a", "hdfs"})


@pytest.hookimpl(tryfirst=True)  # before marks decide
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = filter(is_possible, items)
    for item in filter(is_in_a_store, items):
        item.add_marker(pytest.mark.thorough)
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture
def input_path(tmp_path: Path) -> Path:
    return write_input(tmp_path / "input")


@pytest.fixture
def two_inputs(tmp_path: Path) -> tuple[Path, Path]:
    return write_input(tmp_path / "old"), write_input(tmp_path / "new", rating_lines(RATINGS[:4]))


@pytest.fixture
def output_path(tmp_path: Path) -> Path:
    return tmp_path / "output"


# ---------------------------------------------------------------------------------------------------------------
# Engines. Columns belong to Connect or to classic Spark, and one variable of the process tells which functions make;
# the fixtures set it for each test, as a process of its own has it.


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3server.S3Server]:
    server = s3server.S3Server(tmp_path_factory.mktemp("s3"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def s3_proxy(s3_server: s3server.S3Server) -> Iterator[s3server.FaultyProxy]:
    """The way by which this process reaches S3, as its environment says while the suite runs."""
    proxy = s3server.FaultyProxy(s3_server.endpoint)
    pause = ExponentialBackoff.delay_amount
    with pytest.MonkeyPatch.context() as patch:
        # as many tries as ever, with shorter pauses between them
        patch.setattr(ExponentialBackoff, "delay_amount", lambda *context: pause(*context) / 20)
        for name, value in s3_server.environment(proxy.endpoint).items():
            patch.setenv(name, value)
        yield proxy
    proxy.stop()


@pytest.fixture
def proxy(s3_proxy: s3server.FaultyProxy) -> Iterator[s3server.FaultyProxy]:
    """The same for one test, which may have requests fail; it hands on all others."""
    s3_proxy.reset()
    yield s3_proxy
    s3_proxy.reset()


@pytest.fixture(scope="session")
def sessions(s3_proxy: s3server.FaultyProxy) -> Iterator[Callable[[str], Any]]:  # noqa: ARG001  # engines take its variables
    started: dict[str, Any] = {}

    def session(engine: str) -> Any:
        if engine not in started:
            started[engine] = start_session(engine)
        return started[engine]

    with pytest.MonkeyPatch.context() as patch:
        # as it is here, and not where a test that happens to start Spark has its own temporary files
        temporary = tempfile.gettempdir()
        # for the suite's one Spark; the job itself sets none of these but the folder
        settings = {
            "spark.local.dir": temporary,
            "spark.ui.enabled": "false",
            # what a terminal would show is none of what the tests compare
            "spark.ui.showConsoleProgress": "false",
            # it does the work of hundreds of processes, and is asked for none of their histories
            "spark.driver.memory": "2g",
            "spark.ui.retainedJobs": "10",
            "spark.ui.retainedStages": "10",
            "spark.ui.retainedTasks": "100",
            "spark.sql.ui.retainedExecutions": "10",
            "spark.sql.shuffle.partitions": "2",
            "spark.default.parallelism": "2",
            # a store that stays away is given up sooner
            "spark.hadoop.fs.s3a.retry.limit": "2",
            "spark.hadoop.fs.s3a.retry.throttle.limit": "2",
            "spark.hadoop.fs.s3a.attempts.maximum": "3",
            "spark.hadoop.fs.s3a.retry.interval": "50ms",
            "spark.hadoop.fs.s3a.retry.throttle.interval": "50ms",
            **{f"spark.hadoop.{name}": value for name, value in HDFS_SETTINGS.items()},
        }
        options = " ".join(f"--conf {name}={value}" for name, value in settings.items())
        patch.setenv(
            "PYSPARK_SUBMIT_ARGS",
            f"--properties-file '{SPARK_CONF}/spark-defaults.conf' --master local[2] --driver-class-path '{S3_JARS}/*' "
            f"{options} pyspark-shell",
        )
        patch.setenv("SPARK_SUBMIT_OPTS", f"{QUICK_JAVA_OPTIONS} {LOG_CONFIGURATION} -Djava.io.tmpdir={temporary}")
        patch.delenv("SPARK_CONF_DIR", raising=False)
        yield session
    for started_session in started.values():
        started_session.stop()


@pytest.fixture
def use_engine(sessions: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Makes an engine the current one and returns its session."""

    def use(engine: str) -> Any:
        session = sessions(engine)
        if engine == "sail":
            monkeypatch.setenv("SPARK_CONNECT_MODE_ENABLED", "1")
        else:
            monkeypatch.delenv("SPARK_CONNECT_MODE_ENABLED", raising=False)
        return session

    return use


@pytest.fixture(params=contract.ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def spark(engine: str, use_engine: Callable[[str], Any]) -> Any:
    return use_engine(engine)


@pytest.fixture(scope="session")
def hdfs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hdfs]:
    server = Hdfs(tmp_path_factory.mktemp("hdfs"))
    yield server
    server.stop()


@pytest.fixture
def hdfs_path(hdfs_server: Hdfs, tmp_path: Path) -> HdfsFolder:
    """A folder of its own on HDFS."""
    return HdfsFolder(hdfs_server, f"{tmp_path.name}-{secrets.token_hex(4)}", tmp_path)


@pytest.fixture
def storages(sessions: Callable[[str], Any], s3_server: s3server.S3Server, request: pytest.FixtureRequest) -> Storages:
    """The implementations of Storage by name, each with a place on it: disk, s3, s3a, hdfs."""

    def storage(kind: str, folder: Path) -> tuple[Storage, Place]:
        if kind == "disk":
            return DiskStorage(), Disk(folder / "output")
        if kind == "hdfs":
            on_hdfs: HdfsFolder = request.getfixturevalue("hdfs_path")
            return HadoopStorage(sessions("spark"), on_hdfs.address), on_hdfs
        place = Bucket(s3_server, f"{folder.name}-{secrets.token_hex(4)}", folder, kind)
        return S3Storage() if kind == "s3" else HadoopStorage(sessions("spark"), place.address), place

    return storage


@pytest.fixture
def bucket_path(s3_server: s3server.S3Server, proxy: s3server.FaultyProxy, tmp_path: Path) -> Bucket:  # noqa: ARG001
    """A folder of its own in the bucket."""
    return Bucket(s3_server, f"{tmp_path.name}-{secrets.token_hex(4)}", tmp_path)


# ---------------------------------------------------------------------------------------------------------------
# Containers


@pytest.fixture(scope="session")
def docker() -> Docker:
    """Calls docker; skips the test where no engine answers."""

    def call(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        if arguments[0] == "run":
            arguments = ("run", "--env", f"SPARK_SUBMIT_OPTS={JAVA_OPTIONS}", *arguments[1:])
        return subprocess.run(
            ["docker", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=1200, **options
        )

    if shutil.which("docker") is None or call("info").returncode:
        pytest.skip("no container engine answers to docker")
    return call


# ---------------------------------------------------------------------------------------------------------------
# AWS


@pytest.fixture(scope="session")
def control_plane(
    s3_server: s3server.S3Server,
    s3_proxy: s3server.FaultyProxy,  # noqa: ARG001  # sets the variables by which the check reaches the bucket
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[awsserver.ControlPlane]:
    """The control plane of AWS, which runs what it is asked to run on the data of s3_server."""
    plane = awsserver.ControlPlane(tmp_path_factory.mktemp("aws"), s3_server)
    yield plane
    plane.stop()


@pytest.fixture
def plane(control_plane: awsserver.ControlPlane) -> Iterator[awsserver.ControlPlane]:
    """The same for one test, which may have it fail."""
    control_plane.reset()
    yield control_plane
    control_plane.reset()


@pytest.fixture(scope="module")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ministack]:
    """A second CloudFormation."""
    server = Ministack(tmp_path_factory.mktemp("ministack"))
    yield server
    server.stop()


# ---------------------------------------------------------------------------------------------------------------
# The job, in this process and in one of its own


@pytest.fixture
def run_main(
    use_engine: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Main:
    """Runs main with the session of the suite; returns exit status and what went to standard error, or output."""

    def run(engine: str, *arguments: object, out: bool = False) -> tuple[int, str]:
        monkeypatch.setattr(job, "get_spark_session", use_engine)
        use_engine(engine)
        capfd.readouterr()  # what the engine says when it starts is not the job's
        status = job.main(["--engine", engine, *map(str, arguments)])
        said = capfd.readouterr()
        return status, said.out if out else said.err

    return run


@pytest.fixture
def publish(run_main: Main) -> Publish:
    """Runs main, which must succeed, and returns what it said."""

    def run(engine: str, input_path: Path | str, output_path: Path | str, *arguments: object) -> str:
        status, said = run_main(engine, "--input_path", input_path, "--output_path", output_path, *arguments)
        assert status == 0, said
        return said

    return run
