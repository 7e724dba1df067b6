"""ECS Fargate: the scripts against a control plane that really runs the image of the registry."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import awsserver, s3server
from tests.support.awsscripts import AwsScripts, permissions, wait_until
from tests.support.containers import Docker, one_build_at_a_time
from tests.support.inputs import generate
from tests.support.project import copy_project
from tests.support.results import assert_equal_by_check

pytestmark = pytest.mark.thorough

SCRIPT = "run_docker_fargate.sh"


@pytest.fixture(scope="module")
def registry(
    control_plane: awsserver.ControlPlane,
    docker: Docker,  # noqa: ARG001  # skips the tests where there is none
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[awsserver.Registry]:
    if shutil.which("docker-registry") is None:
        pytest.skip("no registry of container images; on Debian or Ubuntu: apt-get install docker-registry")
    registry = awsserver.Registry(tmp_path_factory.mktemp("registry"))
    control_plane.registry = registry.address
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTAINERS_REGISTRIES_CONF", str(registry.conf))
        yield registry
    registry.stop()


@pytest.fixture(scope="module")
def scripts(
    control_plane: awsserver.ControlPlane,
    registry: awsserver.Registry,  # noqa: ARG001  # where the image goes
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[AwsScripts]:
    """A fresh clone, with what its set-up makes."""
    clone = copy_project(tmp_path_factory.mktemp("fargate") / "a clone")
    scripts = AwsScripts(clone, control_plane, f"fargate-{secrets.token_hex(4)}")
    with one_build_at_a_time():
        made = scripts.run("create_docker_resources.sh", FARGATE_TIME_LIMIT="20s")
    assert made.returncode == 0, made.stderr
    yield scripts
    removed = scripts.run("delete_docker_resources.sh")
    assert removed.returncode == 0, removed.stderr


def left_of(plane: awsserver.ControlPlane, name: str) -> list[str]:
    """What is there of the set-up but the bucket, as far as moto removes it; test_infrastructure looks for the rest."""
    found = [stack["StackName"] for stack in plane.client("cloudformation").describe_stacks()["Stacks"]]
    found += [role["RoleName"] for role in plane.client("iam").list_roles()["Roles"]]
    found += [
        repository["repositoryName"] for repository in plane.client("ecr").describe_repositories()["repositories"]
    ]
    found += [group["logGroupName"] for group in plane.client("logs").describe_log_groups()["logGroups"]]
    return [found_name for found_name in found if name in found_name]


def test_the_set_up_can_be_run_again_updated_and_removed_but_for_the_bucket(
    scripts: AwsScripts, plane: awsserver.ControlPlane
) -> None:
    # given the set-up of the fixture, when it is run again with another time limit
    again = scripts.run("create_docker_resources.sh", FARGATE_TIME_LIMIT="25s")
    # then the image is not pushed again, and only the task is changed
    assert again.returncode == 0, again.stderr
    assert "pushing" not in again.stderr
    changed = re.findall(r"stack \S+:\n((?:  .*\n)+)", again.stderr)
    assert [line.split("\t")[:2] for line in "".join(changed).splitlines()] == [
        ["  Modify", "AWS::ECS::TaskDefinition"]
    ]
    # and the task runs the image by its digest
    cluster = plane.client("ecs")
    (newest, *_) = cluster.list_task_definitions(familyPrefix=scripts.bucket, sort="DESC")["taskDefinitionArns"]
    task = cluster.describe_task_definition(taskDefinition=newest)["taskDefinition"]
    assert re.search(r"@sha256:[0-9a-f]{64}$", task["containerDefinitions"][0]["image"])
    # and no password of the registry is left
    logged_in = subprocess.run(["docker", "login", "--get-login", plane.registry], capture_output=True, check=False)
    assert logged_in.returncode != 0
    # when another set-up is removed, twice, of which a task runs
    other = AwsScripts(scripts.clone, plane, f"gone-{secrets.token_hex(4)}")
    assert other.run("create_docker_resources.sh").returncode == 0
    plane.fate = "stuck"
    running = other.start(SCRIPT)
    wait_until(lambda: "DescribeTasks" in plane.calls)
    removed = [other.run("delete_docker_resources.sh") for _ in range(2)]
    # then the task is stopped, and nothing is left but the bucket
    assert [done.returncode for done in removed] == [0, 0], removed
    assert re.search(r"task \S+ is stopped", removed[0].stderr)
    assert running.wait(60) == 1
    assert f"kept, with all that is in it: bucket {other.bucket}" in removed[0].stderr
    assert left_of(plane, other.bucket) == []
    assert left_of(plane, scripts.bucket) != []
    plane.s3.client.head_bucket(Bucket=other.bucket)


def test_a_run_ends_with_a_right_result_its_log_and_what_it_used(
    scripts: AwsScripts, plane: awsserver.ControlPlane, tmp_path: Path
) -> None:
    # given the bundled dataset in the form of another release
    output, release = f"s3://{scripts.bucket}/output", f"s3://{scripts.bucket}/csv"
    for file in generate(tmp_path, "--format", "csv").iterdir():
        plane.s3.client.upload_file(str(file), scripts.bucket, f"csv/{file.name}")
    # when the job runs
    done = scripts.run(SCRIPT, "--upload_dataset", "--input_path", release)
    called = set(plane.calls)
    # then
    assert done.returncode == 0, done.stderr
    for name in ("movies.dat", "ratings.dat"):
        uploaded = plane.s3.client.get_object(Bucket=scripts.bucket, Key=f"dataset/{name}")["Body"].read()
        assert uploaded == (scripts.clone / "dataset" / name).read_bytes()
    assert plane.is_anything_running() == []
    assert_equal_by_check(scripts.clone / "dataset", output)
    assert {call for call in called if call[0].isupper()} - {"CreateLogStream", "PutLogEvents"} <= permissions(
        "Fargate"
    )
    assert done.stdout == ""
    assert "2 vCPU and 8 GB at 0.11652 USD an hour: 0.0019 USD for a minute" in done.stderr
    assert len(re.findall(rf"^4 datasets in {output} ", done.stderr, re.MULTILINE)) == 1
    assert re.search(r"used: 0\.\d{4} vCPU-hours and 0\.\d{4} GB-hours, some 0\.0019 USD", done.stderr)
    assert s3server.KEYS["AWS_SECRET_ACCESS_KEY"] not in done.stderr


def test_a_job_that_fails_ends_with_its_own_status_and_its_log(
    scripts: AwsScripts, plane: awsserver.ControlPlane
) -> None:
    nowhere = f"s3://{scripts.bucket}/nowhere"
    done = scripts.run(SCRIPT, "--input_path", nowhere)
    assert done.returncode == 3, done.stderr
    said = rf"^movielens_pipeline: error: {nowhere} should hold .*: there is no {nowhere}$"
    assert re.search(said, done.stderr, re.MULTILINE), done.stderr
    assert plane.is_anything_running() == []


def test_a_dry_run_prints_the_calls_and_changes_nothing(scripts: AwsScripts, plane: awsserver.ControlPlane) -> None:
    done = scripts.run(SCRIPT, "--dry_run", "--max_rejects", "3")
    assert done.returncode == 0, done.stderr
    assert set(plane.calls) == {"DescribeStacks"}
    run, describe, log = done.stdout.splitlines()
    assert run.startswith(f"aws ecs run-task --cluster {scripts.bucket} ")
    assert '"--max_rejects","3"' in run
    assert describe.startswith("aws ecs describe-tasks ")
    assert log.startswith("aws logs get-log-events ")


@pytest.mark.parametrize(
    ("fate", "message"),
    [
        ("dies", r"error: the container did not run to its end: CannotPullContainerError: \S+@sha256:\w+$"),
        ("no exit code", "error: the container did not run to its end: Essential container in task exited$"),
        ("no capacity", "error: the task could not be started: RESOURCE:MEMORY$"),
    ],
)
def test_a_task_without_an_exit_code_is_a_failure_with_its_reason(
    scripts: AwsScripts, plane: awsserver.ControlPlane, fate: str, message: str
) -> None:
    plane.fate = fate
    done = scripts.run(SCRIPT)
    assert done.returncode == 1
    assert re.search(message, done.stderr, re.MULTILINE), done.stderr
    assert plane.is_anything_running() == []


def test_a_task_that_does_not_start_is_stopped_at_the_time_limit(
    scripts: AwsScripts, plane: awsserver.ControlPlane
) -> None:
    plane.fate = "stuck"
    done = scripts.run(SCRIPT, FARGATE_TIME_LIMIT="8s")
    assert done.returncode == 124
    assert re.search(r"task \S+ has not stopped in \d+ seconds; it is stopped", done.stderr)
    assert plane.is_anything_running() == []


def test_a_set_up_a_bucket_or_a_right_that_is_not_there_is_one_line(
    scripts: AwsScripts, plane: awsserver.ControlPlane
) -> None:
    done = scripts.run(SCRIPT, STACK_NAME="another")
    assert (done.returncode, done.stderr) == (
        1,
        f"{SCRIPT}: error: the ECS cluster is not there; create_docker_resources.sh makes it\n",
    )
    done = scripts.run(SCRIPT, S3_BUCKET_NAME="no-such-bucket")
    assert done.returncode == 1
    assert done.stderr.startswith(f"{SCRIPT}: error: bucket no-such-bucket does not exist")
    plane.denied = {"RunTask"}
    done = scripts.run(SCRIPT)
    assert done.returncode == 1
    assert re.fullmatch(f"{SCRIPT}: error: aws ecs run-task: .* RunTask", done.stderr.splitlines()[-1])
    done = scripts.run(SCRIPT, FARGATE_TIME_LIMIT="two hours")
    assert (done.returncode, done.stderr) == (
        2,
        f'{SCRIPT}: error: FARGATE_TIME_LIMIT must be a duration such as 90s, 30m or 2h, not "two hours"\n',
    )


@pytest.mark.parametrize(("operation", "number"), [("RunTask", 1), ("DescribeTasks", 1), ("GetLogEvents", 3)])
def test_an_interrupted_script_stops_its_task(
    scripts: AwsScripts, plane: awsserver.ControlPlane, operation: str, number: int
) -> None:
    process: list[subprocess.Popen[str]] = []

    def interrupt(called: str) -> None:
        if called == operation and plane.calls.count(operation) == number:
            os.killpg(process[0].pid, signal.SIGINT)

    plane.on_call, plane.fate = interrupt, "stuck"
    process.append(scripts.start(SCRIPT))
    _, said = process[0].communicate(timeout=60)
    assert process[0].returncode == 130, said
    assert plane.is_anything_running() == []
    assert re.search(r"task \S+ is stopped", said)


def test_after_kill_9_at_any_moment_the_task_ends_by_itself(scripts: AwsScripts, plane: awsserver.ControlPlane) -> None:
    def kill_after(seconds: float) -> None:
        process = scripts.start(SCRIPT, "--output_path", f"s3://{scripts.bucket}/killed-{seconds}")
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(kill_after, [2.0 * moment for moment in range(1, 11)]))
    wait_until(lambda: plane.is_anything_running() == [])


def test_a_set_up_or_its_removal_that_was_killed_at_any_moment_is_mended_by_running_it_again(
    scripts: AwsScripts, plane: awsserver.ControlPlane
) -> None:
    # given scripts that are killed at ten moments of their work
    own = AwsScripts(scripts.clone, plane, f"killed-{secrets.token_hex(4)}")
    for script, moments in (("create_docker_resources.sh", range(3, 24, 3)), ("delete_docker_resources.sh", (2, 4, 6))):
        for moment in moments:
            process = own.start(script)
            time.sleep(moment)
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        # when they are run again, then they come to their end
        done = own.run(script)
        assert done.returncode == 0, done.stderr
    assert left_of(plane, own.bucket) == []


def test_a_container_beyond_its_time_limit_ends_by_itself(scripts: AwsScripts) -> None:
    # given the entry point of the task, as its template has it, and a time limit that is over at once
    template = (scripts.clone / "infrastructure" / "fargate.yaml").read_text()
    entry_point = re.findall(r"^            - (?:!Ref )?(\S+)$", template, re.MULTILINE)[-4:]
    assert entry_point == ["timeout", "--kill-after=60", "TimeLimit", "/opt/movielens/scripts/entrypoint.sh"]
    # when a container runs it
    done = subprocess.run(
        ["docker", "run", "--rm", "--entrypoint", "timeout", "movielens_pipeline:fargate", "--kill-after=60", "0.01s",
         "/opt/movielens/scripts/entrypoint.sh", "--input_path", "/opt", "--output_path", "/tmp/out"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    # then it is ended
    assert done.returncode == 124, done.stderr
