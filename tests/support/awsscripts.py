"""The scripts for AWS, led to the control plane of the tests."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from moto.cloudformation.models import cloudformation_backends

from tests.support import awsserver
from tests.support.jobs import job_environment
from tests.support.project import ROOT

# without the quick start of aws
PATH_OF_USERS = job_environment()["PATH"]


class AwsScripts:
    """The scripts of a fresh clone, in an environment that leads them to the control plane and to nothing else."""

    def __init__(self, clone: Path, plane: awsserver.ControlPlane, bucket: str) -> None:
        self.clone, self.plane, self.bucket = clone, plane, bucket

    def environment(self, **variables: str) -> dict[str, str]:
        kept = {"HOME", "LANG", "CONTAINERS_REGISTRIES_CONF"}
        return {
            **{name: value for name, value in job_environment().items() if name in kept},
            **self.plane.environment(),
            "PATH": f"{self.plane.command.folder}:{PATH_OF_USERS}",
            "S3_BUCKET_NAME": self.bucket,
            "STACK_NAME": self.bucket,
            **variables,
        }

    def start(self, script: str, *arguments: object, **variables: str) -> subprocess.Popen[str]:
        """Starts a script in a process group of its own, as a shell does; it heeds SIGHUP also where nohup is above."""
        return subprocess.Popen(
            ["env", "--default-signal=HUP", self.clone / script, *map(str, arguments)],
            cwd=self.clone.parent, env=self.environment(**variables),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def run(self, script: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs a script to its end."""
        process = self.start(script, *arguments, **variables)
        out, err = process.communicate(timeout=900)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def interrupt(
        self, operation: str, number: signal.Signals, script: str, *arguments: str, **variables: str
    ) -> tuple[int, str]:
        """How a script ends, and what it says, that gets a signal while its first call of an operation is answered: by
        Ctrl-C the whole of its process group, else it alone, as of a supervisor."""
        process: list[subprocess.Popen[str]] = []
        self.plane.reset()

        def interrupt(called: str) -> None:
            if called == operation and self.plane.calls.count(called) == 1:
                if number == signal.SIGINT:
                    os.killpg(process[0].pid, number)
                else:
                    process[0].send_signal(number)

        self.plane.on_call, self.plane.lateness, self.plane.fault = interrupt, 1, on(operation, "late", 1)
        process.append(self.start(script, *arguments, **variables))
        _, said = process[0].communicate(timeout=300)
        return process[0].returncode, said


def have_under_way(plane: awsserver.ControlPlane, name: str, looks: int) -> None:
    """Has something be under way with a stack, until stacks were looked at so often."""
    stacks = cloudformation_backends[awsserver.ACCOUNT][awsserver.REGION].stacks.values()
    (stack,) = [stack for stack in stacks if stack.name == name]
    stack.status = "UPDATE_IN_PROGRESS"

    def come_to_rest(called: str) -> None:
        if called == "DescribeStacks" and plane.calls.count(called) == looks:
            stack.status = "UPDATE_COMPLETE"

    plane.on_call = come_to_rest


def on(operation: str, what: str, *numbers: int) -> Callable[[str, int], str | None]:
    """A fault of the control plane: of these calls of an operation, counted from 1, or of each."""
    return lambda called, number: what if called == operation and (not numbers or number in numbers) else None


def permissions(way: str) -> set[str]:
    """The actions that docs/aws.md names for a way to run, with those that all ways need."""
    section = (ROOT / "docs" / "aws.md").read_text().partition("## Permissions")[2].partition("\n## ")[0]
    of_all, _, of_ways = section.partition("<!-- permissions -->")
    (item,) = re.findall(rf"^- {way}: (.*?)(?=^- |^$)", of_ways, re.MULTILINE | re.DOTALL)
    of_all = of_all.partition("Who runs jobs")[2]
    return set(re.findall(r"`([a-z0-9-]+:\w+)`", of_all + item))


def wait_until(holds: Callable[[], bool], seconds: float = 180, said: Callable[[], str] = str) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, said()
        time.sleep(0.2)
