"""ECS Fargate: the scripts against a control plane that really runs the image of the registry."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from moto.ecs.models import ecs_backends

from tests.support import awsserver, s3server
from tests.support.awsscripts import PATH_OF_USERS, AwsScripts, on, permissions, wait_until
from tests.support.containers import Docker, one_build_at_a_time
from tests.support.inputs import generate
from tests.support.ministack import Ministack
from tests.support.project import ROOT, copy_project
from tests.support.results import assert_equal_by_check

pytestmark = pytest.mark.thorough

SCRIPT = "run_docker_fargate.sh"
SUCCESS = "{ $.exit_status = 0 }"  # what the alarm of a schedule goes by


@pytest.fixture(scope="module")
def registry(
    control_plane: awsserver.ControlPlane,
    docker: Docker,
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
    images = docker("images", "--format", "{{.Repository}}:{{.Tag}} {{.Repository}}@{{.Digest}}").stdout.split()
    docker("rmi", "--force", *(image for image in images if image.startswith(f"{registry.address}/")))


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
    assert not logged_in(plane)
    # when another set-up is removed, twice, of which a task runs
    other = AwsScripts(scripts.clone, plane, f"gone-{secrets.token_hex(4)}")
    assert other.run("create_docker_resources.sh").returncode == 0
    plane.stays = "PENDING"
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


def test_a_set_up_and_its_removal_come_to_their_end_though_every_call_is_throttled(
    scripts: AwsScripts, plane: awsserver.ControlPlane
) -> None:
    own = AwsScripts(scripts.clone, plane, f"busy-{secrets.token_hex(4)}")
    for script in ("create_docker_resources.sh", "delete_docker_resources.sh"):
        # given a service that refuses each call until the command line has given it up once
        plane.reset()
        plane.fault = lambda _, number: "throttle" if number <= 2 else None
        done = own.run(script, PATIENCE_SECONDS="30")
        assert done.returncode == 0, done.stderr
    assert left_of(plane, own.bucket) == []


def logged_in(plane: awsserver.ControlPlane) -> bool:
    """Whether docker has a password of the registry."""
    asked = subprocess.run(["docker", "login", "--get-login", plane.registry], capture_output=True, check=False)
    return asked.returncode == 0


@pytest.fixture
def docker_shim(tmp_path: Path) -> Callable[[str], str]:
    """Puts a docker before the real one that does a case of its own; returns the PATH with it."""

    def make(case: str) -> str:
        real = shutil.which("docker")
        shim = tmp_path / "docker"
        shim.write_text(f'#!/bin/sh\ncase "$*" in\n{case} ;;\n*) exec {real} "$@" ;;\nesac\n')
        shim.chmod(0o755)
        return f"{tmp_path}:{os.environ['PATH']}"

    return make


def test_an_image_of_another_architecture_or_base_is_another_image(
    scripts: AwsScripts, plane: awsserver.ControlPlane, docker_shim: Callable[[str], str]
) -> None:
    tags = {tag for image in plane.images_in_registry(scripts.bucket) for tag in image.image_tags}
    assert all(tag.endswith("-x86_64") for tag in tags)
    # given a machine whose docker makes images of another architecture of the very same files
    path = docker_shim("*inspect*Architecture*) echo arm64")
    made = scripts.run("create_docker_resources.sh", FARGATE_TIME_LIMIT="20s", PATH=path)
    # then that image is pushed, too
    assert made.returncode == 0, made.stderr
    (pushed,) = re.findall(r"^pushing \S+:(\S+)$", made.stderr, re.MULTILINE)
    assert pushed.endswith("-arm64")
    assert pushed not in tags
    # and as here its content is of this architecture all the same, the task that has the other does not start
    done = scripts.run(SCRIPT)
    assert done.returncode == 1
    platform = "image Manifest does not contain descriptor matching platform 'linux/arm64'"
    assert f"error: the container did not run to its end: CannotPullContainerError: {platform}" in done.stderr
    # given a base image in which something was mended, when the set-up is run again here
    path = docker_shim("*inspect*{{.Id}}*) echo sha256:another")
    with one_build_at_a_time():
        made = scripts.run("create_docker_resources.sh", FARGATE_TIME_LIMIT="20s", PATH=path)
    # then the image is built and pushed anew, and the task runs it
    assert made.returncode == 0, made.stderr
    (pushed,) = re.findall(r"^pushing \S+:(\S+)$", made.stderr, re.MULTILINE)
    assert pushed.endswith("-x86_64")
    assert pushed not in tags
    assert scripts.run(SCRIPT, "--check").returncode == 0


def test_the_login_to_the_registry_is_removed_where_the_push_fails_or_is_interrupted(
    scripts: AwsScripts, plane: awsserver.ControlPlane, docker_shim: Callable[[str], str]
) -> None:
    # given an image that is not in the registry, and a push that fails
    path = docker_shim("*inspect*Architecture*) echo arm64 ;;\npush*) exit 1")
    own = AwsScripts(scripts.clone, plane, f"push-{secrets.token_hex(4)}")
    made = own.run("create_docker_resources.sh", PATH=path)
    assert made.returncode == 1
    assert re.search(r"error: docker push \S+-arm64 failed, for the reason above$", made.stderr, re.MULTILINE)
    assert not logged_in(plane)
    # given a Ctrl-C in the middle of the push, or before it while the base image is looked for
    for command in ("push", "pull"):
        plane.reset()
        path = docker_shim(f"*inspect*Architecture*) echo arm64 ;;\n{command}*) kill -INT 0; sleep 60")
        made = own.run("create_docker_resources.sh", PATH=path)
        # then the script ends there, and calls it no failure
        assert made.returncode == 130, made.stderr
        assert "failed" not in made.stderr
        assert ("CreateChangeSet" in plane.calls) == (command == "push")
        assert "ready" not in made.stderr
        assert not logged_in(plane)
    # when the removal is interrupted, then it ends there, and goes on when it is run again
    status, said = own.interrupt("DeleteStack", signal.SIGINT, "delete_docker_resources.sh")
    assert status == 130, said
    assert f"stack {own.bucket}-registry is still under way at AWS" in said
    assert own.run("delete_docker_resources.sh").returncode == 0
    assert left_of(plane, own.bucket) == []


def test_a_first_run_and_a_second_end_with_a_right_result_under_the_policy_alone(
    scripts: AwsScripts, plane: awsserver.ControlPlane, tmp_path: Path
) -> None:
    output, release = f"s3://{scripts.bucket}/output", f"s3://{scripts.bucket}/dataset/csv"
    # given a bucket into which nobody has published, and, for the second run, the form of another release
    plane.s3.delete_all(scripts.bucket)
    for file in generate(tmp_path, "--format", "csv").iterdir():
        plane.s3.client.upload_file(str(file), scripts.bucket, f"dataset/csv/{file.name}")
    for given in (["--upload_dataset"], ["--input_path", release]):
        # and whoever may do no more than docs/aws.md says
        plane.allowed = permissions("Fargate")
        done = scripts.run(SCRIPT, *given, PATH=PATH_OF_USERS)
        assert done.returncode == 0, done.stderr
        assert plane.store.denied == []
        assert plane.is_anything_running() == []
        assert_equal_by_check(scripts.clone / "dataset", output)
        assert done.stdout == ""
        assert "2 vCPU and 8 GB at 0.11652 USD an hour: 0.0019 USD for a minute" in done.stderr
        assert len(re.findall(rf"^4 datasets in {output} ", done.stderr, re.MULTILINE)) == 1
        assert re.search(r"used: 0\.\d{4} vCPU-hours and 0\.\d{4} GB-hours, some 0\.\d{4} USD", done.stderr)
        assert s3server.KEYS["AWS_SECRET_ACCESS_KEY"] not in done.stderr


def test_a_check_tells_what_is_there_and_what_would_stop_a_run_and_changes_nothing(
    scripts: AwsScripts, plane: awsserver.ControlPlane
) -> None:
    checked = scripts.run(SCRIPT, "--check")
    marks = [line.split()[:2] for line in checked.stdout.splitlines()]
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert {mark for mark, _ in marks} == {"ok"}
    assert {subject for _, subject in marks} == {
        "region", "credentials", "bucket", "stack", "image", "role", "permissions", "quota", "cost"
    }  # fmt: skip
    # given a quota that is too small, and a set-up that is not there
    plane.quotas = {"L-3032A538": 1.0}
    checked = scripts.run(SCRIPT, "--check", STACK_NAME="another")
    assert checked.returncode == 1
    found = {tuple(line.split()[:2]) for line in checked.stdout.splitlines()}
    assert found >= {("ok", "bucket"), ("no", "stack"), ("no", "quota")}
    assert {re.match(r"Describe|List|Get|Simulate|BatchGet", call) is not None for call in plane.calls} == {True}


def test_a_job_that_fails_ends_with_its_own_status_and_its_log_though_every_call_is_throttled(
    scripts: AwsScripts, plane: awsserver.ControlPlane
) -> None:
    # given a service that refuses each call until the command line has given it up once
    plane.fault = lambda _, number: "throttle" if number <= 2 else None
    nowhere = f"s3://{scripts.bucket}/nowhere"
    done = scripts.run(SCRIPT, "--input_path", nowhere)
    assert done.returncode == 3, done.stderr
    said = rf"^movielens_pipeline: error: {nowhere} should hold .*: there is no {nowhere}$"
    assert re.search(said, done.stderr, re.MULTILINE), done.stderr
    assert plane.is_anything_running() == []


def test_a_dry_run_prints_the_calls_and_changes_nothing(scripts: AwsScripts, plane: awsserver.ControlPlane) -> None:
    done = scripts.run(SCRIPT, "--dry_run", "--max_rejects", "3")
    assert done.returncode == 0, done.stderr
    assert set(plane.calls) == {"GetCallerIdentity", "DescribeStacks"}
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
    plane.stays = "PENDING"
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
    plane.fault = on("RunTask", "deny")
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

    plane.on_call, plane.stays, plane.fault = interrupt, "RUNNING", on(operation, "late", number)
    process.append(scripts.start(SCRIPT))
    _, said = process[0].communicate(timeout=300)
    assert process[0].returncode == 130, said
    assert plane.is_anything_running() == []
    assert re.search(r"task \S+ is stopped", said)


@pytest.mark.parametrize(
    "state", ["PROVISIONING", "PENDING", "ACTIVATING", "RUNNING", "DEACTIVATING", "STOPPING", "DEPROVISIONING"]
)
def test_ctrl_c_in_any_state_of_a_task_ends_it(scripts: AwsScripts, plane: awsserver.ControlPlane, state: str) -> None:
    # given a task that is in a state, of itself that of its end for want of its image
    process: list[subprocess.Popen[str]] = []
    plane.stays, plane.fate = state, "dies" if state in {"DEACTIVATING", "STOPPING", "DEPROVISIONING"} else ""

    def interrupt(called: str) -> None:
        if called == "DescribeTasks" and "StopTask" not in plane.calls and state in states():
            os.killpg(process[0].pid, signal.SIGINT)

    plane.on_call = interrupt
    process.append(scripts.start(SCRIPT))
    # when the script that follows it is interrupted
    _, said = process[0].communicate(timeout=300)
    # then it says so, and the task stops
    assert process[0].returncode == 130, said
    assert re.search(r"^task \S+ is stopped$", said, re.MULTILINE), said
    wait_until(lambda: set(states()) == {"STOPPED"}, 10)
    assert plane.is_anything_running() == []


def states() -> list[str]:
    """Those of all tasks."""
    return [task.last_status for tasks in ecs_backends[awsserver.ACCOUNT][awsserver.REGION].tasks.values()
            for task in tasks.values()]  # fmt: skip


def test_slow_answers_change_nothing_and_a_start_that_is_not_answered_is_said(
    scripts: AwsScripts, plane: awsserver.ControlPlane
) -> None:
    # given a service that takes its time for each call
    plane.lateness, plane.fate, plane.fault = 0.5, "dies", lambda *_: "late"
    done = scripts.run(SCRIPT)
    assert done.returncode == 1, done.stderr
    assert "error: the container did not run to its end: CannotPullContainerError" in done.stderr
    # given one that does not answer the start at all, then something may still come
    plane.reset()
    plane.fault = on("RunTask", "hang")
    done = scripts.run(SCRIPT, ANSWER_SECONDS="2", PATIENCE_SECONDS="0")
    assert done.returncode == 5, done.stderr
    assert re.search("error: aws ecs run-task: .*timeout", done.stderr)
    left = LEFT.format(what=r"a task of cluster \S+, started by \S+", command="aws ecs list-tasks .* finds its id")
    assert re.search(left, done.stderr), done.stderr


LEFT = r"may still be running: {what}, at up to 0\.11652 USD an hour; to end it: {command}"
STOP = r"aws ecs stop-task --cluster \S+ --task \1\n"


@pytest.mark.parametrize(
    ("faults", "status", "left"),
    [
        ({"ListTasks": "throttle"}, 143, r"task \S+ is stopped"),
        ({"StopTask": "throttle"}, 5, LEFT.format(what=r"task (\S+)", command=STOP)),
        ({"DescribeTasks": "expire", "StopTask": "expire"}, 5, LEFT.format(what=r"task (\S+)", command=STOP)),
        ({"RunTask": "deny", "ListTasks": "throttle"}, 5,
         LEFT.format(what=r"a task of cluster \S+, started by \S+", command="aws ecs list-tasks .* finds its id")),
    ],
)  # fmt: skip
def test_what_cannot_be_ended_is_said_with_its_price_and_the_command_that_ends_it(
    scripts: AwsScripts, plane: awsserver.ControlPlane, faults: dict[str, str], status: int, left: str
) -> None:
    process: list[subprocess.Popen[str]] = []

    # given a script that is ended while its task is under way, and calls that fail for good
    def end(called: str) -> None:
        if called == "DescribeTasks" and plane.calls.count(called) == 2:
            process[0].terminate()

    plane.on_call, plane.stays, plane.fault = end, "PENDING", lambda operation, _: faults.get(operation)
    process.append(scripts.start(SCRIPT))
    _, said = process[0].communicate(timeout=300)
    # then what is known by its id is stopped without a list, and what cannot be stopped is said
    assert process[0].returncode == status, said
    assert re.search(left, said), said
    assert ("may still be running" in said) == (status == 5)
    plane.reset()
    for task in plane.client("ecs").list_tasks(cluster=scripts.bucket)["taskArns"]:
        plane.client("ecs").stop_task(cluster=scripts.bucket, task=task)


def test_after_kill_9_at_any_moment_the_task_ends_by_itself(scripts: AwsScripts, plane: awsserver.ControlPlane) -> None:
    def kill_after(seconds: float) -> None:
        process = scripts.start(SCRIPT, "--output_path", f"s3://{scripts.bucket}/output/killed-{seconds}")
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


def test_a_schedule_runs_the_task_and_a_run_that_fails_or_does_not_start_is_told(
    scripts: AwsScripts, plane: awsserver.ControlPlane, ministack: Ministack
) -> None:
    # given a schedule, whose target is what its template makes of it, and a bucket into which nobody has published
    name = scripts.bucket
    made = scripts.run("create_schedule.sh", "cron(0 3 * * ? *)", ALARM_EMAIL="nights@example.org")
    assert made.returncode == 0, made.stderr
    assert f'FilterPattern: "{SUCCESS}"' in (ROOT / "infrastructure" / "schedule.yaml").read_text()
    (rule,) = [rule for rule in plane.client("events").list_rules()["Rules"] if f"{name}-schedule" in rule["Name"]]
    plane.s3.delete_all(name)

    def night() -> tuple[int | None, bool, list[dict[str, Any]]]:
        """Exit status of the task, whether the rule tells of it, and what its log has that counts as a success."""
        task = plane.fire(name)
        ecs = plane.client("ecs")
        wait_until(lambda: ecs.describe_tasks(cluster=name, tasks=[task])["tasks"][0]["lastStatus"] == "STOPPED")
        event = plane.event_of(name, task)
        told = ministack.client("events").test_event_pattern(EventPattern=rule["EventPattern"], Event=json.dumps(event))
        (container,) = event["detail"]["containers"]
        counted = plane.counted(SUCCESS, f"/ecs/{name}", task.rpartition("/")[2])
        return container.get("exitCode"), told["Result"], counted

    # when there is nothing to read, then the run fails, and that is told
    assert night() == (3, True, [])
    # when the image cannot be had, then the task does not start, and that is told
    plane.fate = "dies"
    assert night() == (None, True, [])
    plane.reset()
    # when all is as it should be, then the result is published, and the next night has nothing to do
    for file in (ROOT / "dataset").glob("*.dat"):
        plane.s3.client.upload_file(str(file), name, f"dataset/{file.name}")
    for outcome in ("published", "unchanged"):
        status, told, (summary,) = night()
        assert (status, told, summary["outcome"]) == (0, False, outcome)
        assert_equal_by_check(ROOT / "dataset", f"s3://{name}/output")
    assert plane.store.denied == []
    # and when the schedule is removed, it is gone
    assert scripts.run("delete_schedule.sh").returncode == 0
    assert plane.client("scheduler").list_schedules()["Schedules"] == []


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
