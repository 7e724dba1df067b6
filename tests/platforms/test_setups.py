"""The set-ups on AWS and their removal, where AWS is throttled, refuses, or takes a token for expired."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

import pytest

from tests.support import awsserver
from tests.support.awsscripts import AwsScripts, on
from tests.support.project import ROOT

pytestmark = pytest.mark.thorough

# what makes and what removes, in this order; that of the container is test_fargate's
MAKING = [("create_role_emr_serverless.sh", []), ("create_schedule.sh", ["--serverless", "cron(0 3 * * ? *)"])]
REMOVING = [("delete_schedule.sh", []), ("create_role_emr_serverless.sh", ["--delete"])]
READER = {"ALARM_EMAIL": "nights@example.org"}


@pytest.fixture
def scripts(plane: awsserver.ControlPlane) -> AwsScripts:
    return AwsScripts(ROOT, plane, f"setup-{secrets.token_hex(4)}")


def test_a_set_up_and_its_removal_come_to_their_end_though_every_call_is_throttled(
    scripts: AwsScripts, plane: awsserver.ControlPlane
) -> None:
    for script, arguments in MAKING + REMOVING:
        # given a service that refuses each call until the command line has given it up once
        plane.reset()
        plane.fault = lambda _, number: "throttle" if number <= 2 else None
        done = scripts.run(script, *arguments, **READER, PATIENCE_SECONDS="30")
        assert done.returncode == 0, f"{script}: {done.stderr}"
    assert [stack["StackName"] for stack in plane.client("cloudformation").describe_stacks()["Stacks"]] == []


def expired_from(operation: str, first: int) -> Callable[[str, int], str | None]:
    """The token expires with the n-th call of an operation."""
    return lambda called, number: "expire" if called == operation and number >= first else None


# what happens to calls of a script, and the call of the command line that the message names
REFUSALS = [
    (on("CreateChangeSet", "deny"), "cloudformation deploy"),
    (on("DescribeChangeSet", "deny"), "cloudformation deploy"),
    (on("ExecuteChangeSet", "deny"), "cloudformation execute-change-set"),
    (expired_from("DescribeStacks", 2), "cloudformation describe-stacks"),
    (expired_from("DescribeStacks", 4), "cloudformation (deploy|describe-stacks|wait)"),
]


def test_a_set_up_or_its_removal_that_is_refused_is_one_line_and_is_mended_by_running_it_again(
    scripts: AwsScripts, plane: awsserver.ControlPlane
) -> None:
    # all of them with the first script, of those that are the same in both one with the second
    for (script, arguments), refusals in zip(MAKING, (REFUSALS, REFUSALS[2:3]), strict=True):
        for fault, call in refusals:
            plane.reset()
            plane.fault = fault
            # when a call is refused, then the last line says which, and why
            done = scripts.run(script, *arguments, **READER)
            assert done.returncode == 1, done.stderr
            assert re.match(rf"{script}: error: aws {call}: \S.*", done.stderr.splitlines()[-1]), done.stderr
            assert "Traceback" not in done.stderr
        # when it is run again, then it comes to its end
        plane.reset()
        done = scripts.run(script, *arguments, **READER)
        assert done.returncode == 0, done.stderr
    for script, arguments in REMOVING:
        plane.fault = on("DeleteStack", "deny")
        done = scripts.run(script, *arguments)
        assert done.returncode == 1
        assert re.search(r"error: aws cloudformation delete-stack: .*DeleteStack$", done.stderr.splitlines()[-1])
        plane.reset()
        assert scripts.run(script, *arguments).returncode == 0
    assert [stack["StackName"] for stack in plane.client("cloudformation").describe_stacks()["Stacks"]] == []
