"""The set-ups on AWS and their removal, where AWS throttles, refuses or is slow, and where they are interrupted."""

from __future__ import annotations

import re
import secrets
import signal
from collections.abc import Callable

import pytest

from tests.support import awsserver
from tests.support.awsscripts import AwsScripts, have_under_way, on
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


# at which call each of the scripts is sent which signal
INTERRUPTIONS = [
    [("GetCallerIdentity", signal.SIGINT), ("CreateChangeSet", signal.SIGINT), ("ExecuteChangeSet", signal.SIGINT),
     ("ExecuteChangeSet", signal.SIGTERM), ("DescribeChangeSet", signal.SIGHUP)],
    [("PutMetricData", signal.SIGTERM), ("ExecuteChangeSet", signal.SIGINT)],
    [("DeleteStack", signal.SIGINT)],
    [("DescribeStacks", signal.SIGHUP), ("DeleteStack", signal.SIGINT), ("DeleteStack", signal.SIGTERM)],
]  # fmt: skip


def test_a_set_up_or_its_removal_that_is_interrupted_ends_there_says_what_goes_on_and_can_be_run_again(
    scripts: AwsScripts, plane: awsserver.ControlPlane
) -> None:
    for (script, arguments), interruptions in zip(MAKING + REMOVING, INTERRUPTIONS, strict=True):
        for operation, number in interruptions:
            # when a script is interrupted at a call, by Ctrl-C or alone by a supervisor
            status, said = scripts.interrupt(operation, number, script, *arguments, **READER)
            # then it changes nothing more, and says so, and of a stack that AWS goes on with
            assert status == 128 + number, (operation, said)
            changes = [called for called in plane.calls if called in {"ExecuteChangeSet", "DeleteStack"}]
            assert changes == [operation] * len(changes)
            goes_on = rf"stack {scripts.bucket}-\w+ is still under way at AWS, and costs nothing; run the script again"
            assert len(re.findall(goes_on, said)) == len(changes) == (operation in {"ExecuteChangeSet", "DeleteStack"})
            assert "error" not in said
        # when it is run again, then it comes to its end
        plane.reset()
        done = scripts.run(script, *arguments, **READER)
        assert done.returncode == 0, done.stderr
    assert [stack["StackName"] for stack in plane.client("cloudformation").describe_stacks()["Stacks"]] == []


def test_slow_answers_and_ones_that_never_come_change_nothing(
    scripts: AwsScripts, plane: awsserver.ControlPlane
) -> None:
    # given a service that takes its time for each call, and of which some answers do not come
    faults = {("DescribeStacks", 3): "hang"}
    faults |= {(change, 1): "lose" for change in ("CreateChangeSet", "ExecuteChangeSet", "DeleteStack")}
    for script, arguments in MAKING + REMOVING:
        plane.reset()
        plane.lateness = 0.5
        plane.fault = lambda operation, number: faults.get((operation, number), "late")
        done = scripts.run(script, *arguments, **READER, ANSWER_SECONDS="5")
        assert done.returncode == 0, f"{script}: {done.stderr}"
    # given one that never answers a call, then that is one line
    plane.reset()
    plane.fault = on("DescribeStacks", "hang")
    done = scripts.run("delete_schedule.sh", ANSWER_SECONDS="1", PATIENCE_SECONDS="0")
    assert done.returncode == 1
    assert re.fullmatch(r"delete_schedule.sh: error: aws cloudformation describe-stacks: .*imeout.*\n", done.stderr)


def test_a_removal_waits_for_a_change_that_is_under_way(scripts: AwsScripts, plane: awsserver.ControlPlane) -> None:
    # given a set-up that was killed while AWS changes a stack
    name = f"{scripts.bucket}-schedule"
    body = "Resources: {Queue: {Type: 'AWS::SQS::Queue'}}"
    plane.client("cloudformation").create_stack(StackName=name, TemplateBody=body)
    have_under_way(plane, name, looks=4)
    # when what it made is removed, then that waits
    done = scripts.run("delete_schedule.sh")
    assert (done.returncode, done.stderr) == (0, f"stack {name} is deleted\n")
