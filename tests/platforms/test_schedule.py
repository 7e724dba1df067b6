"""A run by a schedule: its stack on a second CloudFormation, and its target, run by the control plane of the tests."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.ministack import Ministack, Stacks
from tests.support.project import ROOT

pytestmark = pytest.mark.thorough

EACH_NIGHT = "cron(0 3 * * ? *)"
READER = {"ALARM_EMAIL": "nights@example.org"}


@pytest.fixture(scope="module")
def stacks(ministack: Ministack) -> Stacks:
    """What a schedule needs: the task and its network, as their templates have them."""
    stacks = Stacks(ministack, f"nights-{secrets.token_hex(4)}")
    name = stacks.bucket
    stacks.make(f"{name}-network", "network")
    policy, repository = "arn:aws:iam::000000000000:policy/job", "arn:aws:ecr:us-east-1:000000000000:repository/a"
    fargate = {"Name": name, "Image": "image@sha256:1", "JobPolicy": policy, "RepositoryArn": repository}
    stacks.make(f"{name}-fargate", "fargate", **fargate)
    return stacks


def made_by(stacks: Stacks) -> dict[str, list[str]]:
    """What there is of a schedule, by service."""
    name = stacks.bucket
    roles = stacks.client("iam").list_roles()["Roles"]
    found = {
        "stack": [stack["StackName"] for stack in stacks.client("cloudformation").describe_stacks()["Stacks"]],
        "schedule": [schedule["Name"] for schedule in stacks.client("scheduler").list_schedules()["Schedules"]],
        "rule": [rule["Name"] for rule in stacks.client("events").list_rules()["Rules"]],
        "alarm": [alarm["AlarmName"] for alarm in stacks.client("cloudwatch").describe_alarms()["MetricAlarms"]],
        "filter": [kept["filterName"] for kept in stacks.client("logs").describe_metric_filters()["metricFilters"]],
        "topic": [topic["TopicArn"] for topic in stacks.client("sns").list_topics()["Topics"]],
        "reader": [kept["Endpoint"] for kept in stacks.client("sns").list_subscriptions()["Subscriptions"]],
        "queue": stacks.client("sqs").list_queues().get("QueueUrls", []),
        "role": [role["RoleName"] for role in roles],
    }
    others = {f"{name}-network", f"{name}-fargate"}
    return {
        service: [one for one in ones if one not in others and f"{name}-fargate-" not in one]
        for service, ones in found.items()
    }


ONE_OF_EACH = dict.fromkeys(
    ["stack", "schedule", "rule", "alarm", "filter", "topic", "reader", "queue", "role"], 1
)  # fmt: skip


def count(made: dict[str, list[str]]) -> dict[str, int]:
    return {service: len(ones) for service, ones in made.items()}


def test_a_schedule_is_made_changed_and_removed_with_nothing_left(stacks: Stacks) -> None:
    name = stacks.bucket
    # given a schedule
    made = stacks.run("./create_schedule.sh", EACH_NIGHT, **READER)
    assert made.returncode == 0, made.stderr
    assert count(made_by(stacks)) == ONE_OF_EACH
    assert made_by(stacks)["reader"] == [READER["ALARM_EMAIL"]]
    schedule = stacks.client("scheduler").get_schedule(Name=name)
    target = schedule["Target"]
    # then it starts the newest revision of the task each night, with what is the job's
    assert schedule["ScheduleExpression"] == EACH_NIGHT
    assert target["EcsParameters"]["TaskDefinitionArn"].endswith(f":task-definition/{name}")
    (override,) = json.loads(target["Input"])["containerOverrides"]
    assert override["command"] == [
        "--input_path", f"s3://{name}/dataset", "--output_path", f"s3://{name}/output", "--if_changed",
        "--summary", "json",
    ]  # fmt: skip
    assert int(target["RetryPolicy"]["MaximumRetryAttempts"]) <= 3
    # and its alarm counts from now on
    counted = stacks.client("cloudwatch").list_metrics(Namespace=name)["Metrics"]
    assert [metric["MetricName"] for metric in counted] == ["SuccessfulRuns"]
    (alarm,) = stacks.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert (alarm["MetricName"], alarm["Period"] * alarm["EvaluationPeriods"]) == ("SuccessfulRuns", 26 * 3600)
    # when it is made once more, then nothing changes
    again = stacks.run("./create_schedule.sh", EACH_NIGHT, **READER)
    assert f"stack {name}-schedule is up to date\n" in again.stderr
    # when its time, its arguments and its reader are changed, then that is what there is
    changed = stacks.run(
        "./create_schedule.sh", "rate(12 hours)", "--min_ratio", "0.9", ALARM_EMAIL="others@example.org",
        ALARM_HOURS="14",
    )  # fmt: skip
    assert changed.returncode == 0, changed.stderr
    schedule = stacks.client("scheduler").get_schedule(Name=name)
    assert schedule["ScheduleExpression"] == "rate(12 hours)"
    assert json.loads(schedule["Target"]["Input"])["containerOverrides"][0]["command"][-2:] == ["--min_ratio", "0.9"]
    assert count(made_by(stacks)) == ONE_OF_EACH
    assert made_by(stacks)["reader"] == ["others@example.org"]
    # when the set-up of the task is run again, then the schedule stays, and starts what was made last
    stacks.change(f"{name}-fargate", Image="image@sha256:2")
    assert stacks.call("deploy_fargate_schedule .") == f"stack {name}-schedule is up to date\n"
    started = stacks.client("ecs").describe_task_definition(taskDefinition=target["EcsParameters"]["TaskDefinitionArn"])
    assert started["taskDefinition"]["containerDefinitions"][0]["image"] == "image@sha256:2"
    # when what it needs is to be removed, then that is refused
    refused = stacks.run("./delete_docker_resources.sh")
    assert (refused.returncode, refused.stderr) == (
        1,
        f"delete_docker_resources.sh: error: stack {name}-schedule needs this; delete_schedule.sh removes it\n",
    )
    # when it is removed, twice, then nothing of it is left
    assert stacks.run("./delete_schedule.sh").returncode == 0
    removed = stacks.run("./delete_schedule.sh")
    assert (removed.returncode, removed.stderr) == (0, f"stack {name}-schedule is not there\n")
    assert count(made_by(stacks)) == dict.fromkeys(ONE_OF_EACH, 0)


A_TASK = {
    "clusterArn": "arn:aws:ecs:us-east-1:000000000000:cluster/NAME",
    "containers": [{"name": "movielens_pipeline", "lastStatus": "STOPPED", "exitCode": 0}],
    "desiredStatus": "STOPPED",
    "group": "family:NAME",
    "lastStatus": "STOPPED",
    "launchType": "FARGATE",
    "stopCode": "EssentialContainerExited",
    "stoppedReason": "Essential container in task exited",
    "taskArn": "arn:aws:ecs:us-east-1:000000000000:task/NAME/c13b4cb40f1f4fe4a2971f76ae5a47ad",
    "taskDefinitionArn": "arn:aws:ecs:us-east-1:000000000000:task-definition/NAME:7",
}
NO_EXIT_CODE = [{"name": "movielens_pipeline", "lastStatus": "STOPPED", "reason": "CannotPullContainerError"}]
# what becomes of a task, as ECS words it, and whether somebody is to be told
EVENTS: list[tuple[str, dict[str, Any], bool]] = [
    ("published", {}, False),
    ("bad input", {"containers": [{"exitCode": 3}]}, True),
    ("ended by its time limit", {"containers": [{"exitCode": 124}]}, True),
    ("not started", {"containers": NO_EXIT_CODE, "stopCode": "TaskFailedToStart"}, True),
    ("ended without an exit code", {"containers": NO_EXIT_CODE}, True),
    ("never had a container", {"containers": [], "stopCode": "TaskFailedToStart"}, True),
    ("running", {"lastStatus": "RUNNING", "containers": NO_EXIT_CODE}, False),
    ("of another cluster", {"clusterArn": A_TASK["clusterArn"] + "-2", "containers": [{"exitCode": 3}]}, False),
    ("of another family", {"taskDefinitionArn": "arn:aws:ecs:us-east-1:000000000000:task-definition/NAME-2:7",
                           "containers": [{"exitCode": 3}]}, False),
]  # fmt: skip


def test_a_run_that_fails_or_does_not_start_is_told_and_no_other(stacks: Stacks) -> None:
    # given the rule of the stack
    name = stacks.bucket
    of_serverless = ["JobRole", "Script", "Package", "ReleaseLabel", "VCpu", "Memory", "Disk", "TimeLimit"]
    stacks.make(f"{name}-schedule", "schedule", **dict.fromkeys(of_serverless, ""),
                Name=name, Expression=EACH_NIGHT, Arguments="[]", Email="a@example.org",
                Subnets="subnet-1", SecurityGroup="sg-1", TaskRole="arn:aws:iam::000000000000:role/a",
                ExecutionRole="arn:aws:iam::000000000000:role/b", LogGroup=f"/ecs/{name}")  # fmt: skip
    events = stacks.client("events")
    (rule,) = events.list_rules()["Rules"]
    (target,) = events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
    assert [topic["TopicArn"] for topic in stacks.client("sns").list_topics()["Topics"]] == [target["Arn"]]
    for outcome, of_task, told in EVENTS:
        # when ECS says what became of a task
        event = {
            "version": "0", "id": "3317b2af-7005-947d-b652-f55e762e571a", "detail-type": "ECS Task State Change",
            "source": "aws.ecs", "account": "000000000000", "time": "2026-11-25T03:01:00Z", "region": "us-east-1",
            "resources": [A_TASK["taskArn"]], "detail": A_TASK | of_task,
        }  # fmt: skip
        event_text = json.dumps(event).replace("NAME", name)
        # then the rule tells it where it is to be told
        answer = events.test_event_pattern(EventPattern=rule["EventPattern"], Event=event_text)
        assert answer["Result"] == told, outcome
    stacks.client("cloudformation").delete_stack(StackName=f"{name}-schedule")


# the calls of aws after which a script is killed, each on what the one before has left
KILLS = [("./create_schedule.sh", (1, 2, 5, 6, 7, 8, 6, 7)), ("./delete_schedule.sh", (1, 2))]


def test_a_schedule_or_its_removal_that_was_killed_at_any_moment_is_mended_by_running_it_again(
    stacks: Stacks, tmp_path: Path
) -> None:
    # given an aws that kills whoever calls it, after so many calls
    aws, calls = shutil.which("aws", path=stacks.environment["PATH"]), tmp_path / "calls"
    shim = tmp_path / "aws"
    shim.write_text(
        f'#!/bin/sh\necho >>{calls}\n{aws} "$@"\nstatus=$?\n'
        f'[ "$(wc -l <{calls})" != "$KILL_AFTER" ] || kill -9 0\nexit $status\n'
    )
    shim.chmod(0o755)
    killing = {**READER, "PATH": f"{tmp_path}:{stacks.environment['PATH']}"}
    for script, moments in KILLS:
        arguments = [EACH_NIGHT] if "create" in script else []
        for moment in moments:
            calls.write_text("")
            killed = stacks.run(script, *arguments, **killing, KILL_AFTER=str(moment))
            assert killed.returncode == -signal.SIGKILL, (moment, killed.stderr)
        # when it is run again, then it comes to its end, and all is there, or nothing
        done = stacks.run(script, *arguments, **READER)
        assert done.returncode == 0, done.stderr
        assert count(made_by(stacks)) == (ONE_OF_EACH if arguments else dict.fromkeys(ONE_OF_EACH, 0))


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        ([], READER, '"" is no schedule; "cron(0 3 * * ? *)" is one (minute, hour, day, month, weekday, year; in UTC)'),
        (["0 3 * * *"], READER,
         '"0 3 * * *" is no schedule; "cron(0 3 * * ? *)" is one (minute, hour, day, month, weekday, year; in UTC)'),
        (["cron(0 3 * * * *)"], READER, '"cron(0 3 * * * *)" has both a day and a weekday; one of them must be ?'),
        ([EACH_NIGHT], {}, "ALARM_EMAIL is not set; set it to the address that is told where a run fails"),
        ([EACH_NIGHT], {"ALARM_EMAIL": "me"}, 'ALARM_EMAIL must be an address of e-mail, not "me"'),
        ([EACH_NIGHT], {**READER, "ALARM_HOURS": "200"}, 'ALARM_HOURS must be 1 to 168, not "200"'),
        (["--serverless", EACH_NIGHT], {**READER, "EMR_TIME_LIMIT": "90s"},
         "EMR Serverless wants a time limit of at least 5m"),
        ([EACH_NIGHT], {**READER, "S3_BUCKET_NAME": ""},
         "S3_BUCKET_NAME is not set; set it, or: source set_env_vars.sh"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line_before_aws_is_asked(
    arguments: list[str], variables: dict[str, str], message: str
) -> None:
    environment = {"PATH": os.environ["PATH"], "S3_BUCKET_NAME": "bucket", **variables}
    command = [ROOT / "create_schedule.sh", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"create_schedule.sh: error: {message}\n")


def test_what_is_not_set_up_is_one_line(stacks: Stacks) -> None:
    done = stacks.run("./create_schedule.sh", EACH_NIGHT, **READER, STACK_NAME="another")
    message = "the task is not there, or is of an earlier version; create_docker_resources.sh makes it"
    assert (done.returncode, done.stderr) == (1, f"create_schedule.sh: error: {message}\n")
