"""The scripts for AWS, led to the control plane of the tests."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.support import awsserver
from tests.support.jobs import job_environment
from tests.support.project import ROOT


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


def permissions(way: str) -> set[str]:
    """The actions that docs/aws.md names for a way to run, without their services."""
    marked = (ROOT / "docs" / "aws.md").read_text().partition("<!-- permissions -->")[2]
    (item,) = re.findall(rf"^- {way}: (.*?)(?=^- |^$)", marked, re.MULTILINE | re.DOTALL)
    return {action.partition(":")[2] for action in re.findall(r"`([a-z-]+:\w+)`", item)}


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.2)
