"""EMR and EMR Serverless: the scripts against a control plane that runs what it is asked to run."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from moto.cloudformation.models import cloudformation_backends

from tests.support import awsserver, s3server
from tests.support.awsscripts import AwsScripts, permissions, wait_until
from tests.support.containers import network_of_this_machine, one_build_at_a_time
from tests.support.inputs import generate
from tests.support.project import copy_project
from tests.support.results import assert_equal_by_check

pytestmark = pytest.mark.thorough

SCRIPT = "exec_EMR_compute_s3_storage.sh"
WAYS = {"cluster": [], "serverless": ["--serverless"]}
NOWHERE = "s3://{bucket}/nowhere"


@pytest.fixture(scope="module")
def scripts(control_plane: awsserver.ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsScripts]:
    """A fresh clone, with what its set-up makes."""
    clone = copy_project(tmp_path_factory.mktemp("emr") / "a clone")
    scripts = AwsScripts(clone, control_plane, f"emr-{secrets.token_hex(4)}")
    made = scripts.run("create_role_emr_serverless.sh")
    assert made.returncode == 0, made.stderr
    yield scripts
    removed = scripts.run("create_role_emr_serverless.sh", "--delete")
    assert removed.returncode == 0, removed.stderr


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> list[str]:
    return WAYS[request.param]


def applications(plane: awsserver.ControlPlane) -> list[dict[str, Any]]:
    """The applications that are not deleted."""
    found = plane.client("emr-serverless").list_applications()["applications"]
    return [application for application in found if application["state"] != "TERMINATED"]


# ---------------------------------------------------------------------------------------------------------------
# Set-up


def test_the_set_up_can_be_run_again_and_shows_what_it_changes(
    scripts: AwsScripts, plane: awsserver.ControlPlane
) -> None:
    # given the set-up of the fixture, when it is run again
    again = scripts.run("create_role_emr_serverless.sh")
    # then nothing is changed, and the role is told
    assert again.returncode == 0, again.stderr
    assert re.fullmatch(r"IAM_ROLE_ARN=arn:aws:iam::\d+:role/\S+\n", again.stdout)
    name = scripts.bucket
    assert [line for line in again.stderr.splitlines() if line.startswith("stack")] == [
        f"stack {name}-storage is up to date",
        f"stack {name}-network is up to date",
        f"stack {name}-emr is up to date",
    ]
    assert "CreateRole" not in plane.calls


def test_a_set_up_that_is_refused_is_one_line(scripts: AwsScripts, plane: awsserver.ControlPlane) -> None:
    plane.denied = {"CreateChangeSet"}
    refused = scripts.run("create_role_emr_serverless.sh", STACK_NAME="another")
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1] == (
        "create_role_emr_serverless.sh: error: aws cloudformation deploy: An error occurred (AccessDeniedException) "
        f"when calling the CreateChangeSet operation: User: arn:aws:iam::{awsserver.ACCOUNT}:user/tests is not "
        "authorized to perform: CreateChangeSet"
    )


def test_a_set_up_waits_for_one_that_is_under_way(scripts: AwsScripts, plane: awsserver.ControlPlane) -> None:
    # given a stack with which something is under way, as after a script that was killed
    backend = cloudformation_backends[awsserver.ACCOUNT][awsserver.REGION]
    (stack,) = [stack for stack in backend.stacks.values() if stack.name == f"{scripts.bucket}-network"]
    stack.status = "UPDATE_IN_PROGRESS"

    def come_to_rest(called: str) -> None:
        if called == "DescribeStacks" and plane.calls.count(called) == 6:
            stack.status = "UPDATE_COMPLETE"

    plane.on_call = come_to_rest
    # then the next one waits for it
    done = scripts.run("create_role_emr_serverless.sh")
    assert done.returncode == 0, done.stderr
    assert f"stack {scripts.bucket}-network is up to date" in done.stderr


def test_what_was_set_up_can_be_removed_but_the_bucket_and_what_is_in_it(
    scripts: AwsScripts, plane: awsserver.ControlPlane
) -> None:
    # given a set-up of its own, with something in its bucket
    bucket = f"gone-{secrets.token_hex(4)}"
    own = AwsScripts(scripts.clone, plane, bucket)
    assert own.run("create_role_emr_serverless.sh").returncode == 0
    plane.s3.client.put_object(Bucket=bucket, Key="output/kept", Body=b"kept")
    # when it is removed, twice
    for _ in range(2):
        removed = own.run("create_role_emr_serverless.sh", "--delete")
        assert removed.returncode == 0, removed.stderr
        assert removed.stderr.splitlines()[-1] == f"kept, with all that is in it: bucket {bucket}"
    # then nothing is left but the bucket
    stacks = plane.client("cloudformation").list_stacks(StackStatusFilter=["CREATE_COMPLETE"])["StackSummaries"]
    assert not [stack for stack in stacks if stack["StackName"].startswith(bucket)]
    roles = plane.client("iam").list_roles()["Roles"]
    assert not [role for role in roles if role["RoleName"].startswith(bucket)]
    assert plane.s3.client.get_object(Bucket=bucket, Key="output/kept")["Body"].read() == b"kept"
    # and the next set-up leaves that as it is
    again = own.run("create_role_emr_serverless.sh")
    assert f"bucket {bucket} is there already and is left as it is" in again.stderr
    assert own.run("create_role_emr_serverless.sh", "--delete").returncode == 0


# ---------------------------------------------------------------------------------------------------------------
# Runs


def test_a_run_ends_with_a_right_result_its_log_and_what_it_used(
    scripts: AwsScripts, plane: awsserver.ControlPlane, way: list[str], tmp_path: Path
) -> None:
    output = f"s3://{scripts.bucket}/output-{len(way)}"
    # given, for one of the two ways, the bundled dataset in the form of another release
    given = ["--upload_dataset"]
    if way:
        given = ["--input_path", f"s3://{scripts.bucket}/csv"]
        for file in generate(tmp_path, "--format", "csv").iterdir():
            plane.s3.client.upload_file(str(file), scripts.bucket, f"csv/{file.name}")
    # when the job runs
    done = scripts.run(SCRIPT, *way, *given, "--output_path", output)
    called = set(plane.calls)
    # then it succeeds, its result is right, and nothing is left running
    assert done.returncode == 0, done.stderr
    assert plane.is_anything_running() == []
    assert applications(plane) == []
    assert_equal_by_check(scripts.clone / "dataset", output)
    # and it needs no right but those that docs/aws.md names
    assert {call for call in called if call[0].isupper()} <= permissions("EMR Serverless" if way else "a cluster")
    # and it shows what it may cost, how it goes on, the driver's log, and what was used
    assert done.stdout == ""
    assert re.search(r"at most \d+\.\d{4} USD, at the deadline of 9000 s", done.stderr)
    assert re.search(r"\d s  (cluster RUNNING, step RUNNING|job run RUNNING)", done.stderr)
    assert f"4 datasets in {output} (" in done.stderr
    assert re.search(r"used: 0\.\d+ (instance-hours by 3 instances|vCPU-hours and 0\.\d+ GB-hours), some", done.stderr)
    assert s3server.KEYS["AWS_SECRET_ACCESS_KEY"] not in done.stderr


def test_a_job_that_fails_ends_with_its_own_status_and_its_log(
    scripts: AwsScripts, plane: awsserver.ControlPlane, way: list[str]
) -> None:
    nowhere = NOWHERE.format(bucket=scripts.bucket)
    done = scripts.run(SCRIPT, *way, "--input_path", nowhere)
    assert done.returncode == 3, done.stderr
    said = rf"^movielens_pipeline: error: {nowhere} should hold .*: there is no {nowhere}$"
    assert re.search(said, done.stderr, re.MULTILINE), done.stderr
    assert "FAILED" in done.stderr
    assert plane.is_anything_running() == []
    assert applications(plane) == []


def test_a_dry_run_prints_the_calls_and_changes_nothing(
    scripts: AwsScripts, plane: awsserver.ControlPlane, way: list[str]
) -> None:
    before = plane.s3.client.list_objects_v2(Bucket=scripts.bucket).get("Contents", [])
    done = scripts.run(SCRIPT, *way, "--dry_run", "--upload_dataset", "--max_rejects", "3")
    assert done.returncode == 0, done.stderr
    assert {re.match(r"Describe|List|Get", call) is not None for call in plane.calls} == {True}
    assert plane.s3.client.list_objects_v2(Bucket=scripts.bucket).get("Contents", []) == before
    calls = done.stdout.splitlines()
    assert all(call.startswith("aws ") for call in calls)
    assert any('"--max_rejects","3"' in call for call in calls)
    # the calls are ones that a shell and the command line of AWS take
    create = next(call for call in calls if " create-" in call)
    started = subprocess.run(
        ["bash", "-c", f"{create} --output json"],
        env=scripts.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert started.returncode == 0, started.stderr
    scripts.plane.fate = "stuck"
    for cluster in plane.is_anything_running():
        plane.client("emr").terminate_job_flows(JobFlowIds=[cluster])
    for application in applications(plane):
        plane.client("emr-serverless").delete_application(applicationId=application["id"])


def test_an_application_that_is_kept_is_taken_again_and_stops_by_itself(
    scripts: AwsScripts, plane: awsserver.ControlPlane
) -> None:
    plane.minute = 0.05  # so the jobs end by their time limit, and applications are idle soon
    runs = [scripts.run(SCRIPT, "--serverless", "--keep", EMR_TIME_LIMIT="5m") for _ in range(2)]
    (application,) = applications(plane)
    assert f"application {application['id']}, kept by an earlier run" in runs[1].stderr
    for run in runs:
        assert run.returncode == 124, run.stderr
        assert f"application {application['id']} is kept" in run.stderr
    wait_until(lambda: applications(plane)[0]["state"] == "STOPPED")
    plane.client("emr-serverless").delete_application(applicationId=application["id"])


# ---------------------------------------------------------------------------------------------------------------
# What goes wrong


def test_a_bucket_that_is_not_there_is_one_line(
    scripts: AwsScripts, plane: awsserver.ControlPlane, way: list[str]
) -> None:
    done = scripts.run(SCRIPT, *way, S3_BUCKET_NAME="no-such-bucket")
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        f"{SCRIPT}: error: bucket no-such-bucket does not exist; create_role_emr_serverless.sh makes it\n",
    )
    assert plane.calls == []


def test_a_role_that_is_not_there_is_one_line(
    scripts: AwsScripts, plane: awsserver.ControlPlane, way: list[str]
) -> None:
    done = scripts.run(SCRIPT, *way, STACK_NAME="another")
    assert done.returncode == 1
    assert re.match(rf"{SCRIPT}: error: the role.* not there; create_role_emr_serverless.sh makes.*\n$", done.stderr)
    assert plane.is_anything_running() == []


def test_a_role_that_aws_does_not_know_leaves_nothing_running(
    scripts: AwsScripts, plane: awsserver.ControlPlane
) -> None:
    role = f"arn:aws:iam::{awsserver.ACCOUNT}:role/nobody"
    done = scripts.run(SCRIPT, "--serverless", IAM_ROLE_ARN=role)
    assert done.returncode == 1
    assert f"Role {role} does not exist" in done.stderr
    assert applications(plane) == []


@pytest.mark.parametrize(
    ("way", "operation"),
    [("cluster", "RunJobFlow"), ("serverless", "CreateApplication"), ("serverless", "StartJobRun"),
     ("cluster", "DescribeCluster"), ("serverless", "GetJobRun")],
)  # fmt: skip
def test_a_call_that_is_denied_is_one_line_and_leaves_nothing_running(
    scripts: AwsScripts, plane: awsserver.ControlPlane, way: str, operation: str
) -> None:
    plane.denied = {operation}
    done = scripts.run(SCRIPT, *WAYS[way])
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert line.endswith(f"is not authorized to perform: {operation}")
    assert line.startswith(f"{SCRIPT}: error: aws emr")
    assert plane.is_anything_running() == []
    assert applications(plane) == []


def test_a_cluster_whose_id_got_lost_is_found_again_and_no_second_one_is_started(
    scripts: AwsScripts, plane: awsserver.ControlPlane
) -> None:
    before = len(plane.client("emr").list_clusters()["Clusters"])
    plane.lost = {"RunJobFlow"}
    done = scripts.run(SCRIPT, EMR_TIME_LIMIT="1s")
    assert done.returncode == 124, done.stderr
    assert len(plane.client("emr").list_clusters()["Clusters"]) == before + 1
    assert plane.is_anything_running() == []


@pytest.mark.parametrize(
    ("fate", "reason"),
    [("dies", "On the primary instance, bootstrap action 1 failed"), ("dies in the step", "All core nodes were lost")],
)
def test_a_cluster_that_dies_is_a_failure_with_its_reason(
    scripts: AwsScripts, plane: awsserver.ControlPlane, fate: str, reason: str
) -> None:
    plane.fate = fate
    done = scripts.run(SCRIPT)
    assert done.returncode == 1
    assert re.search(rf"cluster j-\w+ ended: {reason}", done.stderr)
    assert re.search(r"step s-\w+ CANCELLED", done.stderr)


def test_a_log_that_does_not_come_is_said(scripts: AwsScripts, plane: awsserver.ControlPlane) -> None:
    plane.fate = "no log"
    done = scripts.run(SCRIPT, EMR_TIME_LIMIT="1s", LOG_SECONDS="1")
    assert done.returncode == 1
    assert re.search(rf"no log at s3://{scripts.bucket}/logs/j-\w+/steps/s-\w+/stdout.gz", done.stderr)


def test_a_job_beyond_its_time_limit_is_ended_by_emr(
    scripts: AwsScripts, plane: awsserver.ControlPlane, way: list[str]
) -> None:
    plane.minute = 0.2
    done = scripts.run(SCRIPT, *way, EMR_TIME_LIMIT="5m" if way else "1s")
    assert done.returncode == 124, done.stderr
    assert plane.is_anything_running() == []


def test_a_cluster_that_does_not_start_is_terminated_at_the_deadline(
    scripts: AwsScripts, plane: awsserver.ControlPlane
) -> None:
    plane.fate = "stuck"
    done = scripts.run(SCRIPT, EMR_TIME_LIMIT="1s", EMR_START_LIMIT="15s")
    assert done.returncode == 124
    assert re.search(r"cluster j-\w+ has not ended in \d+ seconds; it is terminated", done.stderr)
    assert plane.is_anything_running() == []


@pytest.mark.parametrize(
    ("variables", "arguments", "message"),
    [
        ({}, ["--keep"], "--keep goes with --serverless; a cluster ends with its step"),
        ({"EMR_TIME_LIMIT": "120"}, [], 'EMR_TIME_LIMIT must be a duration such as 90s, 30m or 2h, not "120"'),
        ({"EMR_CORE_INSTANCES": "two"}, [], 'EMR_CORE_INSTANCES must be a whole number, not "two"'),
        ({"EMR_TIME_LIMIT": "4m"}, ["--serverless"], "EMR Serverless wants a time limit of at least 5m"),
        ({"S3_BUCKET_NAME": ""}, [], "S3_BUCKET_NAME is not set; set it, or: source set_env_vars.sh"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line_and_status_2(
    scripts: AwsScripts, plane: awsserver.ControlPlane, variables: dict[str, str], arguments: list[str], message: str
) -> None:
    done = scripts.run(SCRIPT, *arguments, **variables)
    assert (done.returncode, done.stderr) == (2, f"{SCRIPT}: error: {message}\n")
    assert plane.is_anything_running() == []


# ---------------------------------------------------------------------------------------------------------------
# Signals


@pytest.mark.parametrize(
    ("way", "operation", "number"),
    [
        ("cluster", "DescribeStacks", 1),
        ("cluster", "RunJobFlow", 1),
        ("cluster", "DescribeCluster", 1),
        ("cluster", "ListSteps", 3),
        ("serverless", "CreateApplication", 1),
        ("serverless", "GetApplication", 1),
        ("serverless", "StartJobRun", 1),
        ("serverless", "GetJobRun", 3),
        ("serverless", "StopApplication", 1),
    ],
)
def test_an_interrupted_script_leaves_nothing_running(
    scripts: AwsScripts, plane: awsserver.ControlPlane, way: str, operation: str, number: int
) -> None:
    if operation == "StopApplication":
        plane.minute = 0.2  # this phase comes after the job's end
    process: list[subprocess.Popen[str]] = []

    # given a script that is at a certain call, of the whole of its process group by Ctrl-C or alone by a supervisor
    def interrupt(called: str) -> None:
        if called == operation and plane.calls.count(operation) == number:
            if number == 1:
                os.killpg(process[0].pid, signal.SIGINT)
            else:
                process[0].terminate()

    plane.on_call = interrupt
    process.append(scripts.start(SCRIPT, *WAYS[way], EMR_TIME_LIMIT="5m"))
    # when it is interrupted there
    _, said = process[0].communicate(timeout=120)
    # then its status says so, and nothing of it runs
    expected = {130, -signal.SIGINT} if number == 1 else {143}  # a signal before there is anything to clean up is plain
    assert process[0].returncode in expected or operation == "StopApplication", said
    assert plane.is_anything_running() == []
    assert applications(plane) == []
    assert "Traceback" not in said


def test_after_kill_9_at_any_moment_aws_ends_by_itself_what_is_left(
    scripts: AwsScripts, plane: awsserver.ControlPlane, way: list[str]
) -> None:
    plane.minute = 0.2
    limit = "5m" if way else "2s"

    # when the script is killed at one of ten moments
    def kill_after(seconds: float) -> None:
        process = scripts.start(SCRIPT, *way, EMR_TIME_LIMIT=limit)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(kill_after, [3.0 * moment for moment in range(1, 11)]))
    # then every cluster ends with its step, every job by its time limit, and every application stops
    wait_until(lambda: plane.is_anything_running() == [])
    for application in applications(plane):
        assert application["state"] in {"CREATED", "STOPPED"}
        plane.client("emr-serverless").delete_application(applicationId=application["id"])


def test_a_set_up_or_its_removal_that_was_killed_is_mended_by_running_it_again(
    scripts: AwsScripts, plane: awsserver.ControlPlane
) -> None:
    own = AwsScripts(scripts.clone, plane, f"killed-{secrets.token_hex(4)}")
    moments = [
        ([], "CreateChangeSet"),
        ([], "ExecuteChangeSet"),
        ([], "DescribeChangeSet"),
        (["--delete"], "DeleteStack"),
    ]
    for arguments, operation in moments:
        # given a script that is killed at a certain call
        process = [own.start("create_role_emr_serverless.sh", *arguments)]

        def kill(called: str, operation: str = operation, process: list[Any] = process) -> None:
            if called == operation:
                os.killpg(process[0].pid, signal.SIGKILL)

        plane.on_call = kill
        process[0].communicate(timeout=60)
        plane.on_call = lambda _: None
        # when it is run again, then it comes to its end
        done = own.run("create_role_emr_serverless.sh", *arguments)
        assert done.returncode == 0, done.stderr
    roles = plane.client("iam").list_roles()["Roles"]
    assert not [role for role in roles if role["RoleName"].startswith(own.bucket)]


# ---------------------------------------------------------------------------------------------------------------
# In a container


@pytest.mark.usefixtures("docker")
def test_the_same_from_a_container(scripts: AwsScripts, plane: awsserver.ControlPlane) -> None:
    with one_build_at_a_time():
        built = scripts.run(
            "run_docker_EMR_compute_s3_storage.sh", "--dry_run", DOCKER_NETWORK=network_of_this_machine()
        )
    assert built.returncode == 0, built.stderr
    done = scripts.run(
        "run_docker_EMR_compute_s3_storage.sh", "--upload_dataset", "--output_path", f"s3://{scripts.bucket}/contained",
        DOCKER_NETWORK=network_of_this_machine(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_equal_by_check(scripts.clone / "dataset", f"s3://{scripts.bucket}/contained")
    # a signal reaches the script in the container
    plane.fate = "stuck"
    plane.calls.clear()
    process = scripts.start("run_docker_EMR_compute_s3_storage.sh", DOCKER_NETWORK=network_of_this_machine())
    wait_until(lambda: "DescribeCluster" in plane.calls)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    assert plane.is_anything_running() == []
