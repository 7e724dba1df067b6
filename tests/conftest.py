"""Fixtures for all tests: one session per engine, small inputs, the job as a process."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import awsserver
import duckdb
import pytest
import s3server
from places import Bucket, Disk, Place

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import check_local_results  # noqa: E402  # found through the line above
import movielens_pipeline as job  # noqa: E402

start_session = job.get_spark_session
S3_JARS = Path(sys.prefix) / "s3-jars"
REAL_DATA = Path(os.environ.get("MOVIELENS_DATA", ROOT.parent / "shared" / "data"))

DATASETS = set(check_local_results.COLUMNS)

# A few ratings with ties, an unrated movie and a rating of an unknown movie
RATINGS = [
    (1, 10, 5.0, 100),
    (1, 11, 5.0, 100),
    (1, 12, 5.0, 101),
    (1, 13, 4.5, 999),
    (2, 10, 0.5, 50),
    (2, 99, 3.0, 51),
]
MOVIES = [
    (10, "First (2001)", "Drama"),
    (11, "Second:: Two (2002)", "Comedy|Drama"),
    (12, '"Third" (2003)', "War"),
    (13, "Café: Noir (1954)", "Film-Noir"),
    (14, "Unrated (2010)", "Western"),
]


def rating_lines(rows: list[tuple[int, int, float, int]]) -> bytes:
    return b"".join(f"{user}::{movie}::{rating:g}::{time}\n".encode() for user, movie, rating, time in rows)


def movie_lines(rows: list[tuple[int, str, str]], encoding: str = "utf-8") -> bytes:
    return b"".join(f"{movie}::{title}::{genres}\n".encode(encoding) for movie, title, genres in rows)


def write_input(folder: Path, ratings: bytes = rating_lines(RATINGS), movies: bytes = movie_lines(MOVIES)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ratings.dat").write_bytes(ratings)
    (folder / "movies.dat").write_bytes(movies)
    return folder


@pytest.fixture
def input_path(tmp_path: Path) -> Path:
    return write_input(tmp_path / "input")


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
    with pytest.MonkeyPatch.context() as patch:
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
        # for the suite's one Spark; the job itself sets none of these
        settings = {
            "spark.ui.enabled": "false",
            "spark.sql.shuffle.partitions": "2",
            "spark.default.parallelism": "2",
            # a store that stays away is given up sooner
            "spark.hadoop.fs.s3a.retry.limit": "2",
            "spark.hadoop.fs.s3a.retry.throttle.limit": "2",
            "spark.hadoop.fs.s3a.attempts.maximum": "3",
            "spark.hadoop.fs.s3a.retry.interval": "50ms",
            "spark.hadoop.fs.s3a.retry.throttle.interval": "50ms",
        }
        options = " ".join(f"--conf {name}={value}" for name, value in settings.items())
        patch.setenv(
            "PYSPARK_SUBMIT_ARGS", f"--master local[2] --driver-class-path '{S3_JARS}/*' {options} pyspark-shell"
        )
        patch.setenv("SPARK_CONF_DIR", str(ROOT / "scripts" / "spark-conf"))
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


@pytest.fixture(params=job.ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def spark(engine: str, use_engine: Callable[[str], Any]) -> Any:
    return use_engine(engine)


@pytest.fixture
def storages(sessions: Callable[[str], Any], s3_server: s3server.S3Server) -> Callable[..., tuple[job.Storage, Place]]:
    """The implementations of Storage by name, each with a place on it: disk, hadoop (on disk), s3, s3a."""

    def storage(kind: str, folder: Path) -> tuple[job.Storage, Place]:
        if kind == "disk":
            return job.DiskStorage(), Disk(folder / "output")
        if kind == "hadoop":
            place = Disk(folder / "output")
            place.address = f"file://{place.address}"
            hadoop = job.HadoopStorage(sessions("spark"), place.address)
            hadoop.fs = hadoop.fs.getRaw()  # without a checksum file beside each file
            return hadoop, place
        place = Bucket(s3_server, f"{folder.name}-{secrets.token_hex(4)}", folder, kind)
        return job.S3Storage() if kind == "s3" else job.HadoopStorage(sessions("spark"), place.address), place

    return storage


@pytest.fixture
def bucket_path(s3_server: s3server.S3Server, proxy: s3server.FaultyProxy, tmp_path: Path) -> Bucket:  # noqa: ARG001
    """A folder of its own in the bucket."""
    return Bucket(s3_server, f"{tmp_path.name}-{secrets.token_hex(4)}", tmp_path)


# ---------------------------------------------------------------------------------------------------------------
# Containers

Docker = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def docker() -> Docker:
    """Calls docker; skips the test where no engine answers."""

    def call(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=1200, **options
        )

    if shutil.which("docker") is None or call("info").returncode:
        pytest.skip("no container engine answers to docker")
    return call


@contextmanager
def one_build_at_a_time() -> Iterator[None]:
    """Keeps builds of images apart that several processes of the suite would do at once; podman may fail over them."""
    with (Path(tempfile.gettempdir()) / "movielens_pipeline-builds.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def network_of_this_machine() -> str:
    """The option by which a container reaches this machine's servers; podman behind the name of docker has it set."""
    version = subprocess.run(["docker", "--version"], capture_output=True, text=True, check=False).stdout
    return "" if "podman" in version else "host"


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


class AwsScripts:
    """The scripts of a fresh clone, in an environment that leads them to the control plane and to nothing else."""

    def __init__(self, clone: Path, plane: awsserver.ControlPlane, bucket: str) -> None:
        self.clone, self.plane, self.bucket = clone, plane, bucket

    def environment(self, **variables: str) -> dict[str, str]:
        kept = {"HOME", "LANG", "PATH", "CONTAINERS_REGISTRIES_CONF"}
        return {
            **{name: value for name, value in job_environment().items() if name in kept},
            **self.plane.environment(),
            "S3_BUCKET_NAME": self.bucket,
            "STACK_NAME": self.bucket,
            **variables,
        }

    def start(self, script: str, *arguments: object, **variables: str) -> subprocess.Popen[str]:
        """Starts a script in a process group of its own, as a shell does."""
        return subprocess.Popen(
            [self.clone / script, *map(str, arguments)], cwd=self.clone.parent, env=self.environment(**variables),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def run(self, script: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs a script to its end."""
        process = self.start(script, *arguments, **variables)
        out, err = process.communicate(timeout=900)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def plane(control_plane: awsserver.ControlPlane) -> Iterator[awsserver.ControlPlane]:
    """The same for one test, which may have it fail."""
    control_plane.reset()
    yield control_plane
    control_plane.reset()


# ---------------------------------------------------------------------------------------------------------------
# The job, in this process and in one of its own


@pytest.fixture
def run_main(
    use_engine: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Runs main with the session of the suite; returns exit status and what went to standard error."""

    def run(engine: str, *arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(job, "get_spark_session", use_engine)
        use_engine(engine)
        capfd.readouterr()  # what the engine says when it starts is not the job's
        status = job.main(["--engine", engine, *map(str, arguments)])
        return status, capfd.readouterr().err

    return run


@pytest.fixture
def publish(run_main: Callable[..., tuple[int, str]]) -> Callable[..., str]:
    """Runs main, which must succeed, and returns what it said."""

    def run(engine: str, input_path: Path | str, output_path: Path | str, *arguments: object) -> str:
        status, said = run_main(engine, "--input_path", input_path, "--output_path", output_path, *arguments)
        assert status == 0, said
        return said

    return run


def job_command(engine: str, *arguments: object) -> list[str]:
    """The command that starts the job in a process of its own, as its users start it."""
    spark_submit = ["spark-submit", "--master", "local[2]", "--driver-class-path", f"{S3_JARS}/*"]
    launcher = {"sail": [sys.executable], "spark": spark_submit}[engine]
    return [*launcher, str(ROOT / "movielens_pipeline.py"), *map(str, arguments)]


def job_environment() -> dict[str, str]:
    """The environment of a process of its own: this one's, without what the suite set for itself."""
    own = {"SPARK_CONNECT_MODE_ENABLED", "PYSPARK_SUBMIT_ARGS", "PYSPARK_GATEWAY_PORT", "PYSPARK_GATEWAY_SECRET"}
    environment = {name: value for name, value in os.environ.items() if name not in own}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment["SPARK_CONF_DIR"] = str(ROOT / "scripts" / "spark-conf")
    return environment


def run_job(engine: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs the job in a process of its own to its end."""
    return subprocess.run(
        job_command(engine, *arguments),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **{"env": job_environment(), **options},
    )


# ---------------------------------------------------------------------------------------------------------------
# Looking at results


def rows_of(output_path: Path, dataset: str) -> list[tuple[Any, ...]]:
    """The rows of a published dataset, sorted, read with DuckDB from the files that the manifest lists."""
    files = check_local_results.published_files(output_path, dataset)
    listed = check_local_results.sql_list(files)
    return duckdb.connect().execute(f"SELECT * FROM read_parquet({listed}) ORDER BY ALL").fetchall()


def assert_equal_by_check(input_path: Path | str, output_path: Path | str) -> None:
    """The independent check finds all datasets equal."""
    assert check_local_results.check(input_path, output_path)


def real_data(name: str) -> Path:
    """A real MovieLens release; skips the test where it is not at hand, for it may not be redistributed."""
    folder = REAL_DATA / name
    if not folder.is_dir():
        pytest.skip(f"the real MovieLens release {name} is not at hand; set MOVIELENS_DATA to the folder that holds it")
    return folder


def visible_names(folder: Path) -> set[str]:
    """What a folder holds, without an empty staging folder."""
    if not folder.is_dir():
        return set()
    return {entry.name for entry in folder.iterdir() if entry.name != "_staging" or any(entry.iterdir())}


def copy_project(target: Path) -> Path:
    """The project's files as git knows them, as a fresh clone would have them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target
