"""EMR and EMR Serverless: the scripts against a control plane that runs what it is asked to run."""

from __future__ import annotations

import json
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

from tests.support import awsserver, s3server
from tests.support.awsscripts import AwsScripts, have_under_way, on, permissions, wait_until
from tests.support.containers import network_of_this_machine, one_build_at_a_time
from tests.support.inputs import generate
from tests.support.ministack import Ministack
from tests.support.project import ROOT, copy_project
from tests.support.results import assert_equal_by_check

pytestmark = pytest.mark.thorough

SCRIPT = "exec_EMR_compute_s3_storage.sh"
WAYS = {"cluster": [], "serverless": ["--serverless"]}
NOWHERE = "s3://{bucket}/dataset/nowhere"
KEY = f"arn:aws:kms:{awsserver.REGION}:{awsserver.ACCOUNT}:key/of-the-tests"


@pytest.fixture(scope="module")
def scripts(control_plane: awsserver.ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsScripts]:
    """A fresh clone, with what its set-up makes, of which the bucket is encrypted with a key of the customer."""
    clone = copy_project(tmp_path_factory.mktemp("emr") / "a clone")
    scripts = AwsScripts(clone, control_plane, f"emr-{secrets.token_hex(4)}")
    made = scripts.run("create_role_emr_serverless.sh", S3_KMS_KEY_ARN=KEY)
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
    # and the key that was given once stays
    assert plane.key_of_bucket(name) == KEY
    # and there is the role that spot instances take
    plane.client("iam").get_role(RoleName="AWSServiceRoleForEC2Spot")


def test_a_set_up_that_is_refused_is_one_line(scripts: AwsScripts, plane: awsserver.ControlPlane) -> None:
    plane.fault = on("CreateChangeSet", "deny")
    refused = scripts.run("create_role_emr_serverless.sh", STACK_NAME="another", S3_KMS_KEY_ARN=KEY)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1] == (
        "create_role_emr_serverless.sh: error: aws cloudformation deploy: An error occurred (AccessDenied) "
        f"when calling the CreateChangeSet operation: User: arn:aws:iam::{awsserver.ACCOUNT}:user/tests is not "
        "authorized to perform: CreateChangeSet"
    )


def test_a_set_up_waits_for_one_that_is_under_way(scripts: AwsScripts, plane: awsserver.ControlPlane) -> None:
    # given a stack with which something is under way, as after a script that was killed
    have_under_way(plane, f"{scripts.bucket}-network", looks=6)
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


def test_a_first_run_and_a_second_end_with_a_right_result_under_the_policy_alone(
    scripts: AwsScripts, plane: awsserver.ControlPlane, tmp_path: Path
) -> None:
    output, release = f"s3://{scripts.bucket}/output", f"s3://{scripts.bucket}/dataset/csv"
    # given a bucket into which nobody has published, and, for one of the two ways, the form of another release
    plane.s3.delete_all(scripts.bucket)
    for file in generate(tmp_path, "--format", "csv").iterdir():
        plane.s3.client.upload_file(str(file), scripts.bucket, f"dataset/csv/{file.name}")
    for way in WAYS.values():
        # and whoever may do no more than docs/aws.md says, and a job that has the rights of its role alone
        plane.allowed = permissions("EMR Serverless" if way else "a cluster") | {"kms:GenerateDataKey", "kms:Decrypt"}
        # when the job runs, first on a cluster, then on EMR Serverless
        given = ["--input_path", release] if way else ["--upload_dataset"]
        done = scripts.run(SCRIPT, *way, *given)
        # then it succeeds, its result is right, and nothing is left running
        assert done.returncode == 0, done.stderr
        assert plane.store.denied == []
        assert plane.is_anything_running() == []
        assert applications(plane) == []
        assert_equal_by_check(scripts.clone / "dataset", output)
        # and it shows what it may cost, how it goes on, the driver's log
        assert done.stdout == ""
        assert re.search(r"at most \d+\.\d{4} USD, at the deadline of 9000 s", done.stderr)
        assert re.search(r"\d s  (cluster RUNNING, step RUNNING|job run RUNNING)", done.stderr)
        assert f"4 datasets in {output} (" in done.stderr
        assert s3server.KEYS["AWS_SECRET_ACCESS_KEY"] not in done.stderr
        # and what was used, and what that costs
        if way:
            used = re.search(r"used: (\S+) vCPU-hours and (\S+) GB-hours, some (0\.\d{4}) USD", done.stderr)
            assert used, done.stderr
            price = float(used[1]) * 0.042094 + float(used[2]) * 0.004628
        else:
            used = re.search(r"used: (0\.\d{4}) instance-(hours) by 3 instances, some (0\.\d{4}) USD", done.stderr)
            assert used, done.stderr
            price = float(used[1]) * 0.20
        assert float(used[3]) == pytest.approx(price, abs=0.0001)


def test_a_job_that_fails_ends_with_its_own_status_and_its_log_though_every_call_is_throttled(
    scripts: AwsScripts, plane: awsserver.ControlPlane, way: list[str]
) -> None:
    # given a service that refuses each call until the command line has given it up once, after one try or two
    plane.fault = lambda operation, number: "throttle" if number <= 1 + (operation != "RunJobFlow") else None
    nowhere = NOWHERE.format(bucket=scripts.bucket)
    done = scripts.run(SCRIPT, *way, "--input_path", nowhere, PATIENCE_SECONDS="60")
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
        if cluster.startswith("j-"):
            plane.client("emr").terminate_job_flows(JobFlowIds=[cluster])
    serverless = plane.client("emr-serverless")
    for application in applications(plane):
        while serverless.get_application(applicationId=application["id"])["application"]["state"] == "CREATING":
            time.sleep(0.1)
        serverless.delete_application(applicationId=application["id"])


def test_an_application_that_is_kept_is_taken_again_grows_as_far_as_is_said_and_stops_by_itself(
    scripts: AwsScripts, plane: awsserver.ControlPlane
) -> None:
    plane.minute = 0.05  # so the jobs end by their time limit, and applications are idle soon
    serverless = plane.client("emr-serverless")
    runs = [scripts.run(SCRIPT, "--serverless", "--keep", EMR_TIME_LIMIT="5m")]
    (application,) = applications(plane)
    # given a second one of the same name, as two first runs at once make it
    second = serverless.create_application(
        name=application["name"], releaseLabel="emr-spark-8.1.0", type="SPARK", clientToken="another"
    )["applicationId"]
    # when the next run may take less
    runs.append(scripts.run(SCRIPT, "--serverless", "--keep", EMR_TIME_LIMIT="5m", EMR_MAX_VCPU="8"))
    # then it takes the first of the two, and tells of the other
    assert f"application {application['id']}, kept by an earlier run" in runs[1].stderr
    assert f"others of the name {application['name']} are not used: {second};" in runs[1].stderr
    # and that grows no further
    assert f"application {application['id']} may now grow to 8 vCPU, before to 16 vCPU" in runs[1].stderr
    capacity = serverless.get_application(applicationId=application["id"])["application"]["maximumCapacity"]
    assert capacity == {"cpu": "8 vCPU", "memory": "32 GB", "disk": "80 GB"}
    for run in runs:
        assert run.returncode == 124, run.stderr
        assert f"application {application['id']} is kept" in run.stderr
    wait_until(lambda: {found["state"] for found in applications(plane)} <= {"CREATED", "STOPPED"})
    for found in applications(plane):
        serverless.delete_application(applicationId=found["id"])


def test_a_check_tells_what_is_there_and_what_would_stop_a_run_and_changes_nothing(
    scripts: AwsScripts, plane: awsserver.ControlPlane, way: list[str]
) -> None:
    checked = scripts.run(SCRIPT, *way, "--check")
    marks = [line.split()[:2] for line in checked.stdout.splitlines()]
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert {mark for mark, _ in marks} == {"ok"}
    of_both = {"region", "credentials", "bucket", "stack", "role", "release", "permissions", "quota", "cost"}
    assert {subject for _, subject in marks} - {"instances"} == of_both
    # given all that can be wrong
    plane.allowed = {"s3:ListBucket", "cloudformation:DescribeStacks", "iam:SimulatePrincipalPolicy", "iam:GetRole",
                     "servicequotas:GetServiceQuota", "elasticmapreduce:DescribeReleaseLabel",
                     "ec2:DescribeInstanceTypes"}  # fmt: skip
    plane.quotas = {"L-1216C47A": 2.0, "L-D05C8A75": 8.0, "L-34B43A08": 64.0}
    bad = {"S3_BUCKET_NAME": "no-such-bucket", "EMR_RELEASE_LABEL": "emr-spark-8.9.0"}
    checked = scripts.run(SCRIPT, *way, "--check", **bad)
    # then each has its mark
    assert checked.returncode == 1
    found = {tuple(line.split()[:2]) for line in checked.stdout.splitlines()}
    assert found >= {("no", "bucket"), ("?", "stack"), ("no", "release"), ("no", "permissions"), ("no", "quota")}
    assert "denied:" in checked.stdout
    assert {re.match(r"Describe|List|Get|Simulate", call) is not None for call in plane.calls} == {True}


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
    assert plane.calls == ["GetCallerIdentity"]


def test_a_bucket_of_another_account_is_one_line(scripts: AwsScripts, plane: awsserver.ControlPlane) -> None:
    # given a bucket that answers, of somebody else
    bucket = f"foreign-{secrets.token_hex(4)}"
    plane.s3.client.create_bucket(Bucket=bucket)
    plane.owners[bucket] = "999999999999"
    for script in (SCRIPT, "create_role_emr_serverless.sh"):
        done = scripts.run(script, S3_BUCKET_NAME=bucket, STACK_NAME="another")
        # then neither the set-up nor the job takes it
        assert (done.returncode, done.stdout, done.stderr) == (
            1,
            "",
            f"{script}: error: bucket {bucket} belongs to another account than {awsserver.ACCOUNT}, "
            "or you may not list it\n",
        )


def test_a_bucket_that_is_encrypted_with_a_key_that_was_not_given_is_one_line(
    scripts: AwsScripts, plane: awsserver.ControlPlane
) -> None:
    bucket = f"encrypted-{secrets.token_hex(4)}"
    plane.s3.client.create_bucket(Bucket=bucket)
    plane.keys[bucket] = KEY
    done = scripts.run("create_role_emr_serverless.sh", S3_BUCKET_NAME=bucket, STACK_NAME="another")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"create_role_emr_serverless.sh: error: bucket {bucket} is encrypted with the key {KEY}, "
        "on which jobs need rights: set S3_KMS_KEY_ARN to its ARN"
    )


def test_the_default_name_of_the_bucket_has_account_and_region_in_it(scripts: AwsScripts) -> None:
    environment = {**scripts.environment(), "S3_BUCKET_NAME": "", "AWS_ENDPOINT_URL": ""}
    environment["AWS_ENDPOINT_URL_STS"] = scripts.plane.endpoint
    source = "source ./set_env_vars.sh && printf %s $S3_BUCKET_NAME"
    done = subprocess.run(
        ["bash", "-c", source], cwd=scripts.clone, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"movielens-pipeline-{awsserver.ACCOUNT}-{awsserver.REGION}"


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
    plane.fault = on(operation, "deny")
    done = scripts.run(SCRIPT, *WAYS[way])
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert line.endswith(f"is not authorized to perform: {operation}")
    assert line.startswith(f"{SCRIPT}: error: aws emr")
    assert plane.is_anything_running() == []
    assert applications(plane) == []


@pytest.mark.parametrize("what", ["lose", "late"])
def test_a_cluster_whose_id_got_lost_or_comes_too_late_is_found_again_and_no_second_one_is_started(
    scripts: AwsScripts, plane: awsserver.ControlPlane, what: str
) -> None:
    before = len(plane.client("emr").list_clusters()["Clusters"])
    plane.lateness, plane.fault = 8, on("RunJobFlow", what, 1)
    done = scripts.run(SCRIPT, EMR_TIME_LIMIT="1s", ANSWER_SECONDS="4", PATIENCE_SECONDS="30")
    assert done.returncode == 124, done.stderr
    assert len(plane.client("emr").list_clusters()["Clusters"]) == before + 1
    assert plane.is_anything_running() == []


@pytest.mark.parametrize(
    ("arguments", "operation", "what", "command"),
    [
        ([], "RunJobFlow", r"a cluster named \S+", "aws emr list-clusters --active finds its id .*"),
        (["--serverless", "--keep"], "StartJobRun", r"job run of the name \S+",
         r"aws emr-serverless cancel-job-run --application-id \w+ --job-run-id ID"),
    ],
)  # fmt: skip
def test_what_may_still_come_for_its_start_was_not_answered_is_said(
    scripts: AwsScripts, plane: awsserver.ControlPlane, arguments: list[str], operation: str, what: str, command: str
) -> None:
    plane.fault = on(operation, "hang")
    done = scripts.run(SCRIPT, *arguments, ANSWER_SECONDS="2", PATIENCE_SECONDS="1")
    assert done.returncode == 5, done.stderr
    assert re.search("error: aws emr.*: .*timeout", done.stderr)
    assert re.search(LEFT.format(what=what, command=command), done.stderr), done.stderr


def test_a_job_keeps_its_status_where_what_it_used_is_not_told_though_every_answer_is_slow(
    scripts: AwsScripts, plane: awsserver.ControlPlane
) -> None:
    plane.lateness = 0.5
    plane.fault = lambda operation, _: "deny" if operation == "ListInstances" else "late"
    done = scripts.run(SCRIPT, EMR_TIME_LIMIT="1s")
    assert done.returncode == 124, done.stderr
    assert "what it used is not known\n" in done.stderr
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
        (
            {"EMR_RELEASE_LABEL": "emr-7.9.0"},
            [],
            "EMR_RELEASE_LABEL is emr-7.9.0, which has Spark 3; the job needs Spark 4: emr-spark-8.1.0",
        ),
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
    plane.fault = on(operation, "late", number)
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
    _, said = process[0].communicate(timeout=300)
    # then its status says so, and nothing of it runs
    expected = {130, -signal.SIGINT} if number == 1 else {143}  # a signal before there is anything to clean up is plain
    assert process[0].returncode in expected or operation == "StopApplication", said
    assert plane.is_anything_running() == []
    assert applications(plane) == []
    assert "Traceback" not in said


def test_an_application_that_is_stopping_when_the_script_ends_is_deleted_after_it(
    scripts: AwsScripts, plane: awsserver.ControlPlane
) -> None:
    plane.fate = "stuck"
    process: list[subprocess.Popen[str]] = []

    # given an application that begins to stop by itself while the script that is interrupted cancels its job
    def interrupt(called: str) -> None:
        if called == "GetJobRun" and plane.calls.count(called) == 1:
            process[0].terminate()
        if called == "GetApplication" and "CancelJobRun" in plane.calls:
            found = awsserver.applications_of_emr_serverless()[-1]
            if found.state == "STARTED":
                found.state = "STOPPING"
                awsserver.later(found, "STOPPED")

    plane.on_call = interrupt
    process.append(scripts.start(SCRIPT, "--serverless"))
    _, said = process[0].communicate(timeout=300)
    # then it is not asked to stop, which AWS would refuse, and is deleted
    assert process[0].returncode == 143, said
    assert "StopApplication" not in plane.calls
    assert applications(plane) == []


LEFT = r"may still be running: {what}, at up to \d+\.\d+ USD an hour; to end it: {command}\n"


@pytest.mark.parametrize(
    ("way", "faults", "status", "left"),
    [
        ("cluster", {"ListClusters": "throttle"}, 143, ""),
        ("cluster", {"TerminateJobFlows": "throttle"}, 5,
         LEFT.format(what=r"cluster (j-\w+)", command=r"aws emr terminate-clusters --cluster-ids \1")),
        ("cluster", {"RunJobFlow": "lose", "ListClusters": "throttle"}, 5,
         LEFT.format(what=r"a cluster named \S+", command=r"aws emr list-clusters --active finds its id .*")),
        ("cluster", {"DescribeCluster": "expire", "TerminateJobFlows": "expire"}, 5,
         LEFT.format(what=r"cluster (j-\w+)", command=r"aws emr terminate-clusters --cluster-ids \1")),
        ("serverless", {"ListJobRuns": "throttle"}, 143, ""),
        ("serverless", {"StopApplication": "throttle"}, 5,
         LEFT.format(what=r"application (\w+), idle for .*",
                     command=r"aws emr-serverless stop-application --application-id \1")),
        ("serverless", {"GetJobRun": "expire", "CancelJobRun": "expire"}, 5,
         LEFT.format(what=r"job run (\w+)",
                     command=r"aws emr-serverless cancel-job-run --application-id \w+ --job-run-id \1")),
    ],
)  # fmt: skip
def test_what_cannot_be_ended_is_said_with_its_price_and_the_command_that_ends_it(
    scripts: AwsScripts, plane: awsserver.ControlPlane, way: str, faults: dict[str, str], status: int, left: str
) -> None:
    plane.fate = "stuck"
    process: list[subprocess.Popen[str]] = []

    # given a script that is ended while its job is under way, and calls that fail for good
    def end(called: str) -> None:
        if called in {"DescribeCluster", "GetJobRun"} and plane.calls.count(called) == 2:
            process[0].terminate()

    plane.on_call, plane.fault = end, lambda operation, _: faults.get(operation)
    process.append(scripts.start(SCRIPT, *WAYS[way]))
    _, said = process[0].communicate(timeout=300)
    # then what is known by its id is ended without a list, and what cannot be ended is said
    assert process[0].returncode == status, said
    assert re.search(left, said), said
    assert ("may still be running" in said) == (status == 5)
    assert bool(plane.is_anything_running()) == (status == 5)


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
    wait_until(lambda: plane.is_anything_running() == [], said=plane.describe_running)
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
        process[0].communicate(timeout=300)
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
    output = f"s3://{scripts.bucket}/output/contained"  # below the folder that the role of the job may write to
    done = scripts.run(
        "run_docker_EMR_compute_s3_storage.sh", "--upload_dataset", "--output_path", output,
        DOCKER_NETWORK=network_of_this_machine(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_equal_by_check(scripts.clone / "dataset", output)
    # a signal reaches the script in the container
    plane.fate = "stuck"
    plane.calls.clear()
    process = scripts.start("run_docker_EMR_compute_s3_storage.sh", DOCKER_NETWORK=network_of_this_machine())
    wait_until(lambda: "DescribeCluster" in plane.calls)
    process.terminate()
    _, said = process.communicate(timeout=300)
    assert process.returncode == 143, said
    assert plane.is_anything_running() == []


# ---------------------------------------------------------------------------------------------------------------
# By a schedule


def test_a_schedule_runs_the_job_on_emr_serverless_and_a_run_that_fails_is_told(
    scripts: AwsScripts, plane: awsserver.ControlPlane, ministack: Ministack
) -> None:
    # given a bucket with nothing in it, and a schedule, whose target is what its template makes of it
    name = scripts.bucket
    plane.s3.delete_all(name)
    given = {"ALARM_EMAIL": "nights@example.org", "EMR_TIME_LIMIT": "10m"}
    made = scripts.run("create_schedule.sh", "--serverless", "cron(0 3 * * ? *)", **given)
    assert made.returncode == 0, made.stderr
    (rule,) = [rule for rule in plane.client("events").list_rules()["Rules"] if f"{name}-schedule" in rule["Name"]]
    (application,) = [one["id"] for one in applications(plane) if one["name"] == f"{name}-schedule"]

    def night() -> tuple[str, bool, list[dict[str, Any]]]:
        """The state of the job run, whether the rule tells of it, and what its log has that counts as a success."""
        job_run = plane.fire(name)
        serverless, known = plane.client("emr-serverless"), {"applicationId": application, "jobRunId": job_run}
        wait_until(lambda: serverless.get_job_run(**known)["jobRun"]["state"] in {"SUCCESS", "FAILED", "CANCELLED"})
        event = plane.event_of_job_run(application, job_run)
        told = ministack.client("events").test_event_pattern(EventPattern=rule["EventPattern"], Event=json.dumps(event))
        counted = plane.counted("{ $.exit_status = 0 }", f"/emr-serverless/{name}", job_run)
        return event["detail"]["state"], told["Result"], counted

    # when there is nothing to read, then the run fails, and that is told
    assert night() == ("FAILED", True, [])
    # when there is, then it is published
    for file in (ROOT / "dataset").glob("*.dat"):
        plane.s3.client.upload_file(str(file), name, f"dataset/{file.name}")
    state, told, (summary,) = night()
    assert (state, told, summary["outcome"]) == ("SUCCESS", False, "published")
    assert_equal_by_check(ROOT / "dataset", f"s3://{name}/output")
    assert plane.store.denied == []
    # when what it needs is to be removed, then that is refused
    refused = scripts.run("create_role_emr_serverless.sh", "--delete")
    assert (refused.returncode, refused.stderr) == (
        1,
        f"create_role_emr_serverless.sh: error: stack {name}-schedule needs this; delete_schedule.sh removes it\n",
    )
    # and when the schedule is removed, it is gone, and its application, too
    assert scripts.run("delete_schedule.sh").returncode == 0
    assert plane.client("scheduler").list_schedules()["Schedules"] == []
    assert applications(plane) == []
