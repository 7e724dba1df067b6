"""Starting an engine: the launcher decides, an option overrules it, and nothing of either clutters the terminal."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import movielens_pipeline as job
from movielens.engines import engine_of, sail
from tests.support.golden import assert_golden
from tests.support.inputs import write_input
from tests.support.jobs import job_command, job_environment, run_job
from tests.support.project import ROOT


def test_plain_python_means_sail_and_spark_submit_means_spark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYSPARK_GATEWAY_PORT", raising=False)
    assert job.parse_args(["--input_path", "a", "--output_path", "b"]).engine == "sail"
    monkeypatch.setenv("PYSPARK_GATEWAY_PORT", "4711")
    assert job.parse_args(["--input_path", "a", "--output_path", "b"]).engine == "spark"
    assert job.parse_args(["--input_path", "a", "--output_path", "b", "--engine", "sail"]).engine == "sail"


def test_the_session_is_one_on_the_engine_asked_for(engine: str, spark: Any) -> None:
    assert engine_of(spark).name == engine
    assert engine_of(spark).version
    assert spark.range(3).count() == 3


def test_the_embedded_engine_does_without_pandas(input_path: Path, output_path: Path) -> None:
    arguments = ["--input_path", str(input_path), "--output_path", str(output_path)]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / "movielens_pipeline.py"), *arguments],
        capture_output=True, text=True, check=False, env=job_environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not re.findall(r"\| +pandas\b.*", done.stderr)


FRAMES_OF_PANDAS = """
import movielens_pipeline as job
spark = job.get_spark_session("sail")
assert spark.createDataFrame([(1,)], "a INT").toPandas().a.tolist() == [1]
import pandas
from pandas.testing import assert_frame_equal
given = pandas.DataFrame({"a": [1], "b": [pandas.Timestamp("2026-01-01")], "c": [pandas.Timedelta("1h")]})
assert_frame_equal(spark.createDataFrame(given).toPandas(), given, check_dtype=False)
"""
LOOKED_FOR = """
import importlib.util
import movielens_pipeline as job
job.get_spark_session("sail")
assert importlib.util.find_spec("pandas").name == "pandas"
"""


@pytest.mark.parametrize(
    "code",
    [FRAMES_OF_PANDAS, f"import pandas\n{FRAMES_OF_PANDAS}", LOOKED_FOR],
    ids=["imported_later", "imported_before", "looked_for"],
)
def test_beside_a_session_of_the_embedded_engine_pandas_is_as_ever(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, cwd=ROOT, env=job_environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_user_without_a_home_and_a_current_folder_that_is_gone_are_no_tracebacks(
    input_path: Path, output_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # given a user id that the machine does not know, as containers have it
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    arguments = ["--input_path", str(input_path), "--output_path", str(output_path)]
    assert job.parse_args(arguments).output_path == str(output_path)
    (output_path / "gone").mkdir(parents=True)
    monkeypatch.chdir(output_path / "gone")
    (output_path / "gone").rmdir()
    assert job.parse_args(arguments).output_path == str(output_path)
    monkeypatch.setenv("HOME", str(output_path))
    with pytest.raises(SystemExit) as left:
        job.parse_args([*arguments, "--output_path", "below"])
    assert left.value.code == 2
    assert (
        capfd.readouterr()
        .err.splitlines()[-1]
        .endswith("--output_path 'below': below is below the current folder, which is gone: begin it with /")
    )


@pytest.mark.parametrize("home", ["{}", "{}/", "{}//.", "{}/below/.."])
def test_the_home_folder_takes_no_result_however_it_is_written(
    input_path: Path, output_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    monkeypatch.setenv("HOME", home.format(output_path))
    with pytest.raises(SystemExit) as left:
        job.parse_args(["--input_path", str(input_path), "--output_path", str(output_path)])
    assert left.value.code == 2


def test_files_that_are_damaged_or_gone_are_errors_whatever_the_cluster_says(
    sessions: Callable[[str], Any],
) -> None:
    # given a cluster whose settings would have Spark go on without them
    spark = sessions("spark")
    for name in ("spark.sql.files.ignoreCorruptFiles", "spark.sql.files.ignoreMissingFiles"):
        spark.conf.set(name, "true")
        # when the job asks for its session
        assert job.get_spark_session("spark").conf.get(name) == "false"


@pytest.mark.thorough
def test_what_spark_submit_is_told_holds(tmp_path: Path) -> None:
    # given settings that the job makes itself where nobody else does
    given = {"spark.app.name": "nightly", "spark.locality.wait": "1s", "spark.log.level": "ERROR"}
    script = tmp_path / "script.py"
    script.write_text(
        "import movielens_pipeline as job\n"
        "conf = job.get_spark_session('spark').sparkContext.getConf()\n"
        f"print(*[conf.get(name) for name in {[*given, 'spark.sql.inMemoryColumnarStorage.compressed']}])\n"
    )
    options = [word for name, value in given.items() for word in ("--conf", f"{name}={value}")]
    done = subprocess.run(
        ["spark-submit", "--master", "local[1]", *options, script],
        env={**job_environment(), "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [*given.values(), "false"]


def test_ansi_mode_stays_on(spark: Any) -> None:
    with pytest.raises(Exception, match=r"(?i)cast|convert|invalid"):
        spark.sql("SELECT CAST('five' AS INT)").collect()


def test_the_memory_of_sail_is_bounded_by_machine_and_container(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < sail.memory() <= machine / 3
    # given a container that may have two gigabytes
    monkeypatch.setattr(Path, "is_file", lambda self: str(self).endswith("memory.max"))
    monkeypatch.setattr(Path, "read_text", lambda _: "2000000000\n")
    assert sail.memory() == 2_000_000_000 // 3


@pytest.mark.parametrize(("given", "seconds"), [({}, 7 * 24 * 3600), ({"SAIL_SPARK__SESSION_TIMEOUT_SECS": "60"}, 60)])
def test_sail_does_not_end_a_session_whose_query_takes_long(given: dict[str, str], seconds: int) -> None:
    # it would after a quarter of an hour; with 2 s a dataset of 7 s was seen to fail
    code = (
        "import os, movielens_pipeline as job; session = job.get_spark_session('sail'); "
        "print(os.environ['SAIL_SPARK__SESSION_TIMEOUT_SECS'], session.range(3).count(), flush=True); os._exit(0)"
    )
    kept = {name: value for name, value in job_environment().items() if name != "SAIL_SPARK__SESSION_TIMEOUT_SECS"}
    environment = {**kept, **given}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(seconds), "3"]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["--input_path", "x"]])
def test_help_version_and_usage_errors_come_without_starting_or_importing_an_engine(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", ROOT / "movielens_pipeline.py", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time:" in line}
    assert not imported & {"pyspark", "pysail", "boto3", "pandas", "numpy", "pyarrow", "py4j"}


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        (["--input_path", "in"], 2),
        (["--input_path", "in", "--output_path", "/"], 2),
        (["--input_path", "in", "--output_path", "out", "--engine", "flink"], 2),
    ],
)
def test_where_nothing_is_installed_a_wrong_command_line_is_status_2_all_the_same(
    arguments: list[str], status: int
) -> None:
    # given a Python without any package of others
    done = subprocess.run(
        [sys.executable, "-S", ROOT / "movielens_pipeline.py", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr


def test_version_is_that_of_the_version_file() -> None:
    done = run_job("sail", "--version")
    assert done.stdout == f"movielens_pipeline {(ROOT / 'VERSION').read_text().strip()}\n"


def test_all_that_is_said_is_the_job_s_own_and_standard_output_stays_empty(
    engine: str, input_path: Path, output_path: Path
) -> None:
    done = run_job(engine, "--input_path", input_path, "--output_path", output_path)
    assert done.returncode == 0, done.stderr
    said = done.stderr
    if engine == "spark":  # spark-submit gives a script one stream, its own standard output
        said, chatter = done.stdout, done.stderr
        assert chatter in ("", "WARNING: Using incubator modules: jdk.incubator.vector\n")
    else:
        assert done.stdout == ""
    assert_golden("run", said, output=output_path)


@pytest.mark.thorough
def test_the_other_engine_can_be_started_by_either_launcher(input_path: Path, output_path: Path) -> None:
    # given spark-submit with --engine sail, and python with --engine spark
    for launcher, engine in (("spark", "sail"), ("sail", "spark")):
        done = run_job(launcher, "--input_path", input_path, "--output_path", output_path, "--engine", engine)
        assert done.returncode == 0, done.stderr
        assert f"engine: {engine} " in done.stdout + done.stderr


def test_missing_java_is_one_line(tmp_path: Path, input_path: Path, output_path: Path) -> None:
    # given a machine with the tools that Spark's scripts call, but without Java
    for tool in ("bash", "dirname", "env", "ps", "python3", "sed", "cat", "ls", "uname"):
        if found := shutil.which(tool):
            (tmp_path / tool).symlink_to(found)
    environment = {**job_environment(), "PATH": str(tmp_path)}
    environment.pop("JAVA_HOME", None)
    done = run_job(
        "sail", "--input_path", input_path, "--output_path", output_path, "--engine", "spark", env=environment
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith("it needs Java 17 or 21 on PATH or in JAVA_HOME")


def test_the_sail_engine_missing_is_one_line(tmp_path: Path, input_path: Path, output_path: Path) -> None:
    (tmp_path / "pysail").mkdir()
    (tmp_path / "pysail" / "__init__.py").write_text("raise ImportError('none here', name='pysail')\n")
    environment = {**job_environment(), "PYTHONPATH": str(tmp_path)}
    done = run_job("sail", "--input_path", input_path, "--output_path", output_path, env=environment)
    assert done.returncode == 1
    assert done.stderr == (
        "movielens_pipeline: error: the sail engine is not installed (pysail is missing): "
        "pip install -r requirements/embedded.txt, or use spark-submit\n"
    )


@pytest.mark.thorough
def test_java_that_the_job_starts_keeps_its_temporary_files_where_the_job_does(tmp_path: Path) -> None:
    # given a folder whose name has what Spark's launcher takes apart, and an option of the user's
    folder = tmp_path / "o'dd \"fold\\er"
    folder.mkdir()
    asked = """
from movielens import engines
session = engines.start("spark")
for name in ("java.io.tmpdir", "of.the.user"):
    print(session._jvm.java.lang.System.getProperty(name))
"""
    variables = {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder), "SPARK_SUBMIT_OPTS": "-Dof.the.user=1"}
    done = subprocess.run(
        [sys.executable, "-c", asked],
        env={**job_environment(), **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{folder}\n1\n"


@pytest.mark.thorough
def test_an_interrupt_while_python_waits_for_java_is_said_by_the_job_alone() -> None:
    waiting = """
import os, signal
from movielens import engines
session = engines.start("spark")
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 0.5)
try:
    session._jvm.java.lang.Thread.sleep(60_000)
except KeyboardInterrupt:
    print("interrupted", flush=True)
os._exit(0)
"""
    done = subprocess.run(
        [sys.executable, "-c", waiting], env={**job_environment(), "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.stdout == "interrupted\n"
    assert "KeyboardInterrupt" not in done.stderr


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_ctrl_c_and_sigterm_end_at_once_with_nothing_published(
    engine: str, tmp_path: Path, output_path: Path, name: str, status: int
) -> None:
    # given a run in the middle of its work
    folder = write_input(tmp_path / "in", b"1::10::5::100\n" * 3_000_000)
    process = subprocess.Popen(
        job_command(engine, "--input_path", folder, "--output_path", output_path),
        env=job_environment(), stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(output_path.glob("_staging/*/ratings")) and time.monotonic() < deadline:
        time.sleep(0.05)
    # when the terminal's process group gets the signal
    os.killpg(process.pid, getattr(signal, name))
    sent = time.monotonic()
    _, said = process.communicate(timeout=30)
    # then it ends soon, says so in one line, and published nothing
    if engine == "sail":
        assert process.returncode == status
        assert said.splitlines()[-1] == "movielens_pipeline: interrupted"
    else:  # spark-submit is ended by the signal, too, before or after its script
        assert process.returncode in (status, -getattr(signal, name))
    assert time.monotonic() - sent < 10
    assert "Traceback" not in said
    assert not [entry for entry in output_path.glob("*") if entry.name != "_staging"]


def test_behind_a_proxy_sail_reaches_its_own_process_without_it(
    input_path: Path, output_path: Path, refusing_address: str
) -> None:
    # given a proxy that lets nothing through
    proxies = {"http_proxy": refusing_address, "https_proxy": refusing_address, "grpc_proxy": refusing_address}
    kept = {name: value for name, value in job_environment().items() if "proxy" not in name.lower()}
    done = run_job("sail", "--input_path", input_path, "--output_path", output_path, env={**kept, **proxies})
    assert done.returncode == 0, done.stderr


@pytest.fixture
def refusing_address() -> str:
    """An address of this machine at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize(
    ("given", "reached_without"),
    [
        ({}, "127.0.0.1"),
        ({"no_proxy": "localhost,10.0.0.0/8"}, "localhost,10.0.0.0/8,127.0.0.1"),
        ({"no_proxy": "localhost", "no_grpc_proxy": "db.example"}, "db.example,127.0.0.1"),
        ({"no_proxy": "127.0.0.1"}, "127.0.0.1"),
    ],
)
def test_what_is_reached_without_a_proxy_stays_so(
    given: dict[str, str], reached_without: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert sail.without_proxy() == reached_without


# With a copy of /etc in place of the machine's, in which nothing says the time zone
WITHOUT_TIME_ZONE = """
set -eu
cp -a /etc "$1/etc"
rm -f "$1/etc/localtime" "$1/etc/timezone"
mount --bind "$1/etc" /etc
shift
exec "$@"
"""


def test_a_machine_that_names_no_time_zone_is_said_with_what_to_do(input_path: Path, tmp_path: Path) -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("a time zone of its own takes root")
    command = job_command("sail", "--input_path", input_path, "--output_path", tmp_path / "out")
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", WITHOUT_TIME_ZONE, "test", tmp_path, *command],
        env=job_environment(), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stderr == (
        "movielens_pipeline: error: the sail engine does not start, for this machine names no time zone: "
        "write one into /etc/timezone (echo Etc/UTC > /etc/timezone), or use --engine spark\n"
    )
    assert done.returncode == 1
    # and what it says to do helps
    named = f"{WITHOUT_TIME_ZONE.replace('shift', 'echo Etc/UTC > /etc/timezone; shift')}"
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", named, "test", tmp_path, *command],
        env=job_environment(), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
