"""The job, in this process and as one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from movielens import runs, tables
from tests.support.project import ROOT

# What the fixtures of these names give: run_main, publish
Main = Callable[..., tuple[int, str]]
Publish = Callable[..., str]

# Ids of runs that others started long ago: here, by a process whose number none has, and on another machine
GONE = f"20200101T000000Z-here-{runs.boot()}-999999999.1-0000"
ELSEWHERE = "20200101T000000Z-elsewhere-0123456789ab-77.1-0000"

ENVIRONMENT = Path(sys.prefix).resolve()  # as the wrappers name it
S3_JARS = ENVIRONMENT / "s3-jars"
SPARK_CONF = ROOT / "scripts" / "spark-conf"
LOG_CONFIGURATION = f'"-Dlog4j2.configurationFile={SPARK_CONF}/log4j2.properties"'
# Java that compiles each method once and quickly: on little data Spark takes half the time. What it compiled it keeps,
# of which the suite's own Spark has several times the 48 MB that it would keep by itself. Nor does it collect all
# garbage four times because classes are loaded.
JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:MetaspaceSize=256m"
# The classes of a run on Spark, which run_tests.sh has made once: with them a run takes two thirds of the time. Java
# goes without, and says nothing, where the archive is not there, or where a folder is on the class path.
CLASS_ARCHIVE = next(ENVIRONMENT.glob("classes-s3-*.jsa"), ENVIRONMENT / "classes-s3.jsa")
QUICK_JAVA_OPTIONS = f'{JAVA_OPTIONS} "-XX:SharedArchiveFile={CLASS_ARCHIVE}" -Xlog:cds=off -Xlog:cds+dynamic=off'


def job_command(engine: str, *arguments: object, java_options: str = QUICK_JAVA_OPTIONS) -> list[str]:
    """The command that starts the job in a process of its own, as its users start it."""
    # what is configured is given by files, for the folder SPARK_CONF_DIR would be on the class path
    spark_submit = [
        "env", "-u", "SPARK_CONF_DIR", f"SPARK_SUBMIT_OPTS={java_options} {LOG_CONFIGURATION}",
        "spark-submit", "--properties-file", str(SPARK_CONF / "spark-defaults.conf"),
        "--master", "local[2]", "--driver-class-path", f"{S3_JARS}/*",
    ]  # fmt: skip
    launcher = {"sail": [sys.executable], "spark": spark_submit}[engine]
    return [*launcher, str(ROOT / "movielens_pipeline.py"), *map(str, arguments)]


def job_environment() -> dict[str, str]:
    """The environment of a process of its own: this one's, without what the suite set for itself."""
    own = {
        "SPARK_CONNECT_MODE_ENABLED", "PYSPARK_SUBMIT_ARGS", "PYSPARK_GATEWAY_PORT", "PYSPARK_GATEWAY_SECRET",
        "GRPC_ENABLE_FORK_SUPPORT",
    }  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name not in own}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment["SPARK_CONF_DIR"] = str(SPARK_CONF)
    environment["SPARK_SUBMIT_OPTS"] = JAVA_OPTIONS
    return environment


def run_job(engine: str, *arguments: object, ulimit: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs the job in a process of its own to its end, within a limit of the shell's where one is given."""
    limited = ["bash", "-c", f'ulimit {ulimit} && exec "$@"', "bash"] if ulimit else []
    return subprocess.run(
        [*limited, *job_command(engine, *arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **{"env": job_environment(), **options},
    )


def disturb_when_all_is_written(patch: pytest.MonkeyPatch, disturb: Callable[[], object]) -> None:
    """Has something done when a run in this process has written its last dataset, and before it publishes."""
    write = tables.write_dataset

    def write_and_disturb(frame: Any, folder: str, name: str, *check: Any) -> int:
        rows = write(frame, folder, name, *check)
        if name == "top_movies_per_user":
            disturb()
        return rows

    patch.setattr(tables, "write_dataset", write_and_disturb)
