"""The control plane of AWS for the tests: moto's server, with clusters, serverless jobs and tasks that really run.

A step of an EMR cluster and a job of EMR Serverless is the given command with the suite's own spark-submit, configured
as EMR's is: s3:// is S3A, the store is known, the job need not be told. A task of ECS is the given image in docker.
All of them work on the suite's S3 server and report what became of them.

The rules it keeps, each with the page of AWS's documentation that has it (below https://docs.aws.amazon.com/):

S3 (tests/support/awsstore.py)
- What a request takes: AmazonS3/latest/userguide/using-with-s3-policy-actions.html
- An object that is not there is 404 for whoever may list the bucket, and 403 for others; whoever may not get a key is
  told 403 either way: AmazonS3/latest/API/API_HeadObject.html
- A bucket of another account than x-amz-expected-bucket-owner is 403:
  AmazonS3/latest/userguide/bucket-owner-condition.html
- aws:ResourceAccount is the account of the bucket: IAM/latest/UserGuide/reference_policies_condition-keys.html
- A bucket that is encrypted with a customer's key takes kms:GenerateDataKey and kms:Decrypt of whoever writes, and
  kms:Decrypt of whoever reads: AmazonS3/latest/userguide/UsingKMSEncryption.html and mpuoverview.html

IAM
- Something must allow an action and nothing may deny it: IAM/latest/UserGuide/reference_policies_evaluation-logic.html
- A job has the rights of its role, of that alone: emr/latest/EMR-Serverless-UserGuide/security-iam-runtime-role.html,
  emr/latest/ManagementGuide/emr-iam-role-for-ec2.html, AmazonECS/latest/developerguide/task-iam-roles.html
- A service-linked role that is there cannot be made again:
  IAM/latest/APIReference/API_CreateServiceLinkedRole.html; the first cluster with spot instances of an account takes
  that of spot.amazonaws.com: AWSEC2/latest/UserGuide/service-linked-roles-spot-instance-requests.html
- A simulation tells for each action whether the policies of a user allow it:
  IAM/latest/APIReference/API_SimulatePrincipalPolicy.html

All services
- Any call may be refused by ThrottlingException, for a token that has expired or for want of a right:
  emr/latest/APIReference/CommonErrors.html, and CommonErrors.html of each other service
- A role, a security configuration, a subnet that is not there is refused, by ValidationException; no page was found
  that says so of all of them.
- Where a client token is known, the same token is the same request:
  emr-serverless/latest/APIReference/API_CreateApplication.html, API_StartJobRun.html,
  AmazonECS/latest/APIReference/ECS_Idempotency.html

CloudFormation
- A change set is executed once; where a token is given again, the answer says so:
  AWSCloudFormation/latest/APIReference/API_ExecuteChangeSet.html
- A stack that is being changed cannot be removed: its own message says so, "cannot be deleted while in status
  UPDATE_IN_PROGRESS"; no page was found that does

EMR
- STARTING, BOOTSTRAPPING, RUNNING, TERMINATING, then TERMINATED or TERMINATED_WITH_ERRORS, and each takes time:
  emr/latest/ManagementGuide/emr-overview.html, emr/latest/APIReference/API_ClusterStatus.html
- RunJobFlow knows no client token, so each request that arrives starts a cluster:
  emr/latest/APIReference/API_RunJobFlow.html

EMR Serverless
- An application is CREATING, then CREATED; STARTING, STARTED; STOPPING, STOPPED; TERMINATED:
  emr/latest/EMR-Serverless-UserGuide/application-states.html
- StopApplication is for one that is STARTING or STARTED, and whose job runs have ended:
  emr-serverless/latest/APIReference/API_StopApplication.html
- UpdateApplication and DeleteApplication are for one that is CREATED or STOPPED:
  emr-serverless/latest/APIReference/API_UpdateApplication.html, API_DeleteApplication.html
- Names need not be unique: emr-serverless/latest/APIReference/API_CreateApplication.html
- A job starts an application that is CREATED or STOPPED; one that is idle stops by itself:
  emr/latest/EMR-Serverless-UserGuide/app-behavior.html
- A job run that exceeds its time limit is CANCELLING, then CANCELLED, and totalExecutionDurationSeconds tells that:
  emr/latest/EMR-Serverless-UserGuide/job-states.html
- A log goes to CloudWatch where a job run asks for that and its role may keep it there:
  emr/latest/EMR-Serverless-UserGuide/logging.html
- What becomes of a job run is an event: emr/latest/EMR-Serverless-UserGuide/using-eventbridge.html
- stateDetails and billedResourceUtilization may be empty: emr-serverless/latest/APIReference/API_JobRun.html

CloudWatch
- The ARN of a log group ends with :*, for its streams:
  AWSCloudFormation/latest/UserGuide/aws-resource-logs-loggroup.html
- A metric filter on JSON looks at events that are JSON: AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html

ECS
- PROVISIONING, PENDING, ACTIVATING, RUNNING, DEACTIVATING, STOPPING, DEPROVISIONING, STOPPED, and each takes time:
  AmazonECS/latest/developerguide/task-lifecycle-explanation.html
- A task whose image has another architecture than its definition says does not start:
  AmazonECS/latest/developerguide/task_cannot_pull_image.html, ecs-arm64.html
- A family without a revision is its newest, which is found before rights are looked at:
  AmazonECS/latest/APIReference/API_RunTask.html
- What becomes of a task is an event whose detail is what DescribeTasks tells of it, and what did not start has no exit
  code: AmazonECS/latest/developerguide/ecs_task_events.html, stopped-task-error-codes.html

EventBridge Scheduler
- It takes the role of the target, as a schedule group of the account, and calls RunTask with the parameters of the
  target, the input being the overrides: scheduler/latest/UserGuide/managing-targets-templated.html, setting-up.html,
  cross-service-confused-deputy-prevention.html
- RunTask takes the right on the definition in that cluster, and to pass both roles of the task:
  AmazonECS/latest/developerguide/CWE_IAM_role.html
- A universal target is an operation, whose parameters are the input, with the keywords of a schedule replaced:
  scheduler/latest/UserGuide/managing-targets-universal.html, managing-schedule-context-attributes.html

Quotas
- GetServiceQuota tells those that were applied for, by NoSuchResourceException else:
  servicequotas/2019-06-24/apireference/API_GetServiceQuota.html
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
from moto.cloudformation.exceptions import CloudFormationError, ValidationError
from moto.cloudformation.models import ChangeSet, CloudFormationBackend
from moto.cloudformation.responses import CloudFormationResponse
from moto.core.common_models import CloudFormationModel
from moto.core.exceptions import JsonRESTError
from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ec2.models import ec2_backends
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.route_tables import RouteTable
from moto.ecr.models import ECRBackend, Repository
from moto.ecs.models import EC2ContainerServiceBackend, Task, TaskDefinition
from moto.ecs.responses import EC2ContainerServiceResponse
from moto.emr.exceptions import ValidationException
from moto.emr.models import ElasticMapReduceBackend, Instance, InstanceGroup, emr_backends
from moto.emr.responses import ElasticMapReduceResponse
from moto.emrserverless.models import EMRServerlessBackend, emrserverless_backends
from moto.iam.exceptions import InvalidInput
from moto.iam.models import SERVICE_NAME_CONVERSION, IAMBackend, ManagedPolicy, PolicyVersion, Role, iam_backends
from moto.logs.models import LogGroup
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import S3Backend, s3_backends
from moto.scheduler.models import scheduler_backends
from werkzeug.serving import make_server

from tests.support import awsstore, s3server
from tests.support.awscommand import AwsCommand
from tests.support.jobs import QUICK_JAVA_OPTIONS, S3_JARS

ACCOUNT = "123456789012"
REGION = "us-east-1"
# what each state takes, so that there is a time to look at it and to interrupt it
SECONDS_OF_A_STATE = 1.0
# the access key of the control plane itself, whose calls neither count nor fail
ITS_OWN = "the-control-plane"

# What is wrong with a call, by the name that a test gives it: the code of JSON protocols, that of queries, the message
FAULTS = {
    "deny": ("AccessDeniedException", "AccessDenied", "User: {user} is not authorized to perform: {operation}"),
    "throttle": ("ThrottlingException", "Throttling", "Rate exceeded"),
    "expire": ("ExpiredTokenException", "ExpiredToken", "The security token included in the request is expired"),
}

NO_SPOT = "The provided credentials do not have permission to create the service-linked role for EC2 Spot Instances."

# The operations of EMR Serverless, which other than the rest has them in method and path
SERVERLESS = [
    ("POST", r"/applications", "CreateApplication"),
    ("PATCH", r"/applications/[^/]+", "UpdateApplication"),
    ("GET", r"/applications", "ListApplications"),
    ("GET", r"/applications/[^/]+", "GetApplication"),
    ("DELETE", r"/applications/[^/]+", "DeleteApplication"),
    ("POST", r"/applications/[^/]+/stop", "StopApplication"),
    ("POST", r"/applications/[^/]+/jobruns", "StartJobRun"),
    ("GET", r"/applications/[^/]+/jobruns", "ListJobRuns"),
    ("GET", r"/applications/[^/]+/jobruns/[^/]+", "GetJobRun"),
    ("DELETE", r"/applications/[^/]+/jobruns/[^/]+", "CancelJobRun"),
]


class Process:
    """A command that runs for real, in a session of its own, with its output in two files."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        folder.mkdir(parents=True)
        self.stdout, self.stderr = folder / "stdout", folder / "stderr"
        with self.stdout.open("wb") as stdout, self.stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=stdout, stderr=stderr, start_new_session=True
            )

    def wait(self, seconds: float | None = None) -> int | None:
        """The exit status; None where the time is over before."""
        started = time.monotonic()
        while seconds is None or time.monotonic() - started < seconds:
            try:
                # until `kill` it stays a zombie, for its id, by which that finds its session, would be another's soon
                ended = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            except ChildProcessError:
                return self.process.wait()
            if ended:
                return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
            time.sleep(0.1)
        return None

    def kill(self) -> None:
        """Ends it with all that it has started, as the end of its machine does."""
        if self.process.returncode is not None:
            return
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(ProcessLookupError):
                if os.getsid(int(entry.name)) == self.process.pid:
                    os.kill(int(entry.name), signal.SIGKILL)
        self.process.wait()


class ControlPlane:
    """Moto's server on a port of its own; what its clusters, applications and tasks run, runs."""

    def __init__(self, folder: Path, s3: s3server.S3Server) -> None:
        self.folder, self.s3 = folder, s3
        self.store = awsstore.Store(s3.endpoint, self.statements_of, self.owner_of, self.key_of_bucket)
        self.command = AwsCommand()
        self.spark_submit = self.make_spark_submit()
        self.patches: list[tuple[Any, str, Any]] = []
        self.processes: list[Process] = []
        self.answers: dict[Any, Any] = {}  # to requests that bear a client token
        self.registry = ""
        self.reset()
        self.patch_moto()
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.app = DomainDispatcherApplication(create_backend_app)
        self.server = make_server("127.0.0.1", 0, self.answer, threaded=True)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reset(self) -> None:
        """As it is without faults."""
        self.fate = ""  # what becomes of what is started: dies, stuck, no capacity, no log
        self.lateness = 3 * SECONDS_OF_A_STATE  # the while after which a call is answered that is late
        self.stays = ""  # the state in which a task stays until somebody stops it
        self.minute = 60.0  # how long a minute of a time limit of EMR Serverless is
        # what happens to a call, by its operation and how often that was called: one of FAULTS, "lose" (it is carried
        # out, and the answer gets lost), "late" (it is carried out and answered after a while), "hang" (never)
        self.fault: Callable[[str, int], str | None] = lambda *_: None
        self.allowed: set[str] | None = None  # the actions that the caller may do; None is an administrator
        self.owners: dict[str, str] = {}  # of buckets of other accounts
        self.keys: dict[str, str] = {}  # of buckets that somebody encrypts with a key of theirs
        self.quotas: dict[str, float] = {}
        self.calls: list[str] = []
        self.on_call: Callable[[str], None] = lambda _: None
        self.store.expired.clear()
        self.store.denied.clear()
        # what an earlier test has left
        for cluster in list(emr_backends[ACCOUNT][REGION].clusters.values()):
            self.end_cluster(cluster, "TERMINATED", "Terminated by user request")
        for application in applications_of_emr_serverless():
            remove_application(application.id)

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
        self.server.shutdown()
        self.store.stop()
        self.command.stop()
        for owner, name, original in self.patches:
            setattr(owner, name, original)

    def client(self, service: str) -> Any:
        keys = {"aws_access_key_id": ITS_OWN, "aws_secret_access_key": ITS_OWN}
        return boto3.client(service, endpoint_url=self.endpoint, region_name=REGION, **keys)

    def environment(self) -> dict[str, str]:
        """What the command line of AWS goes by."""
        return {
            **s3server.KEYS,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ENDPOINT_URL_S3": self.store.endpoint,
            "AWS_MAX_ATTEMPTS": "2",
            "POLL_SECONDS": "1",
            "PATIENCE_SECONDS": "3",
            "LOG_SECONDS": "5",
        }

    def is_anything_running(self) -> list[str]:
        """What the API says is there and costs something."""
        active = ["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING"]  # TERMINATING ends by itself
        running = [found["Id"] for found in self.client("emr").list_clusters(ClusterStates=active)["Clusters"]]
        serverless = self.client("emr-serverless")
        busy = ["STARTED", "STARTING", "CREATING", "STOPPING"]
        running += [found["id"] for found in serverless.list_applications(states=busy)["applications"]]
        ecs = self.client("ecs")
        for cluster in ecs.list_clusters()["clusterArns"]:
            running += ecs.list_tasks(cluster=cluster)["taskArns"]
        return running

    def describe_running(self) -> str:
        """The states of all clusters and job runs, with the last that their processes said."""
        owners = {
            f"{cluster.id} {cluster.state}": cluster.steps[0]
            for cluster in emr_backends[ACCOUNT][REGION].clusters.values()
        }
        for application in applications_of_emr_serverless():
            for job_run in emrserverless_backends[ACCOUNT][REGION].job_runs.get(application.id, []):
                owners[f"{application.id} {application.state} {job_run.id} {job_run.state}"] = job_run
        return "\n".join(
            f"{name}: {owner.process.stderr.read_text()[-2000:] if hasattr(owner, 'process') else 'not started'}"
            for name, owner in owners.items()
        )

    # -----------------------------------------------------------------------------------------------------------
    # Requests

    def answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = BytesIO(body)
        operation = operation_of(environ, body)
        if f"Credential={ITS_OWN}/" not in environ.get("HTTP_AUTHORIZATION", ""):
            self.calls.append(operation)
            self.on_call(operation)
            what = self.fault_of(operation)
            if what in FAULTS:
                return refuse(environ, start_response, what, operation)
            if what == "late":
                time.sleep(self.lateness)
            if what == "hang":
                environ["werkzeug.socket"].recv(1)  # until the client has given it up
                return []
            if what == "lose":
                b"".join(self.app(environ, lambda *_: None))
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)  # nothing comes back
                return []
        if operation in OWN_OPERATIONS:
            return OWN_OPERATIONS[operation](self, environ, start_response, body)
        answer: Iterable[bytes] = self.app(environ, start_response)
        return answer

    def fault_of(self, operation: str) -> str | None:
        """What happens to a call of the caller."""
        if s3server.KEYS["AWS_ACCESS_KEY_ID"] in self.store.expired:
            return "expire"
        free = {"GetCallerIdentity"}  # which takes no right
        if self.allowed is not None and operation not in {action.partition(":")[2] for action in self.allowed} | free:
            return "deny"
        return self.fault(operation, self.calls.count(operation))

    def expire(self) -> None:
        """The caller's token has expired."""
        self.store.expired.add(s3server.KEYS["AWS_ACCESS_KEY_ID"])

    # -----------------------------------------------------------------------------------------------------------
    # What the store asks

    def statements_of(self, key: str) -> list[awsstore.Statement]:
        """What whoever has an access key may do."""
        if key == s3server.KEYS["AWS_ACCESS_KEY_ID"]:
            actions = ["*"] if self.allowed is None else sorted(self.allowed)
            return [{"Effect": "Allow", "Action": actions, "Resource": "*"}]
        roles = iam_backends[ACCOUNT]["aws"].roles.values()
        found = [role for role in roles if awsstore.key_of_role(role.name) == key]
        documents = [document for role in found for document in role.policies.values()]
        attached = [policy for role in found for policy in role.managed_policies.values()]
        documents += [
            version.document
            for policy in attached
            for version in policy.versions
            if version.version_id == policy.default_version_id
        ]
        return [statement for document in documents for statement in as_json(document)["Statement"]]

    def owner_of(self, bucket: str) -> str:
        return self.owners.get(bucket, ACCOUNT)

    def key_of_bucket(self, bucket: str) -> str:
        """The key that a bucket is encrypted with by its template, or by the test; nothing where it is S3's own."""
        known = s3_backends[ACCOUNT]["aws"].buckets.get(bucket)
        rule = known.encryption["Rule"]["ApplyServerSideEncryptionByDefault"] if known and known.encryption else {}
        return str(rule.get("KMSMasterKeyID", self.keys.get(bucket, "")))

    def patch_moto(self) -> None:
        NetworkInterface.private_dns_name = None  # moto's ECS asks for it
        RouteTable.delete = delete_route_table  # moto's CloudFormation does not
        for owner, name, function in REPLACEMENTS:
            original = getattr(owner, name)
            self.patches.append((owner, name, original))
            setattr(owner, name, self.replacement(function, original))

    def replacement(self, function: Any, original: Any) -> Any:
        return lambda *arguments, **named: function(self, original, *arguments, **named)

    def require_role(self, name_or_arn: str) -> str:
        """The access key of whoever takes a role; refuses one that IAM does not know."""
        for role in iam_backends[ACCOUNT]["aws"].roles.values():
            if name_or_arn in {role.arn, role.name}:
                return awsstore.key_of_role(role.name)
        raise JsonRESTError("ValidationException", f"Role {name_or_arn} does not exist")

    def require_profile(self, name: str) -> str:
        """The access key of the nodes of an instance profile; refuses one that IAM does not know."""
        for profile in iam_backends[ACCOUNT]["aws"].instance_profiles.values():
            if name == profile.name:
                return awsstore.key_of_role(profile.roles[0].name)
        raise ValidationException(f"Invalid InstanceProfile: {name}")

    # -----------------------------------------------------------------------------------------------------------
    # Spark

    def make_spark_submit(self) -> Path:
        """Makes a folder with the spark-submit of EMR, which knows s3://."""
        folder = self.folder / "bin"
        folder.mkdir()
        settings = {
            "spark.master": "local[2]",
            "spark.ui.enabled": "false",
            "spark.driver.extraClassPath": f"{S3_JARS}/*",
            "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
            "spark.hadoop.fs.s3a.endpoint": self.store.endpoint,
            "spark.hadoop.fs.s3a.endpoint.region": REGION,
            "spark.hadoop.fs.s3a.path.style.access": "true",
        }
        file, script = folder / "spark-defaults.conf", folder / "spark-submit"
        file.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        own = Path(sys.executable).parent / "spark-submit"
        # not by SPARK_CONF_DIR, for with a folder on the class path Java takes no archive of classes
        script.write_text(f"#!/bin/sh\nexec '{own}' --properties-file '{file}' \"$@\"\n")
        script.chmod(0o755)
        return folder

    def spark_environment(self, key: str) -> dict[str, str]:
        """Where a node of EMR runs its commands: with a role that gives rights."""
        kept = {"HOME", "LANG", "JAVA_HOME", "TMPDIR"}
        return {
            **{name: value for name, value in os.environ.items() if name in kept},
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": "of-a-role",
            "PATH": f"{self.spark_submit}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_SUBMIT_OPTS": QUICK_JAVA_OPTIONS,
        }

    def start(self, owner: Any, command: list[str]) -> Process:
        process = Process(command, self.folder / owner.id, self.spark_environment(owner.key))
        owner.process = process
        self.processes.append(process)
        return process

    def kill_process(self, owner: Any) -> None:
        process = getattr(owner, "process", None)
        if process is not None:
            process.kill()

    def keep_log(self, log_uri: str, folder: str, process: Process) -> None:
        """Brings the output to the bucket, compressed."""
        if self.fate == "no log":
            return
        bucket, _, prefix = log_uri.removeprefix("s3://").partition("/")
        for path in (process.stdout, process.stderr):
            content = gzip.compress(path.read_bytes())
            self.s3.client.put_object(Bucket=bucket, Key=f"{prefix}{folder}/{path.name}.gz", Body=content)

    # -----------------------------------------------------------------------------------------------------------
    # EMR

    def run_cluster(self, cluster: Any) -> None:
        """The life of a cluster: it starts, runs its step, ends."""
        step = cluster.steps[0]
        time.sleep(SECONDS_OF_A_STATE)
        while self.fate == "stuck" and cluster.state == "STARTING":
            time.sleep(0.1)
        if cluster.state == "STARTING":
            cluster.state = "BOOTSTRAPPING"
            time.sleep(SECONDS_OF_A_STATE)
        if not self.may_use_spot():
            self.end_cluster(cluster, "TERMINATED_WITH_ERRORS", NO_SPOT)
        if self.fate == "dies":
            self.end_cluster(cluster, "TERMINATED_WITH_ERRORS", "On the primary instance, bootstrap action 1 failed")
        if cluster.state != "BOOTSTRAPPING":
            return
        cluster.state, step.state = "RUNNING", "RUNNING"
        step.start()
        assert step.jar == "command-runner.jar"
        process = self.start(step, step.args)
        if self.fate == "dies in the step":
            time.sleep(3 * SECONDS_OF_A_STATE)
            process.kill()
            self.end_cluster(cluster, "TERMINATED_WITH_ERRORS", "All core nodes were lost")
        status = process.wait()
        if cluster.state != "RUNNING":
            return
        step.state = "COMPLETED" if status == 0 else "FAILED"
        # as --auto-terminate and the step's action on failure say
        ended = ("TERMINATED", "Steps completed") if status == 0 else ("TERMINATED_WITH_ERRORS", "Step failed")
        self.end_cluster(cluster, *ended)
        self.keep_log(cluster.log_uri, f"{cluster.id}/steps/{step.id}", process)

    def may_use_spot(self) -> bool:
        """Whether the account has the service-linked role without which there are no spot instances."""
        return "AWSServiceRoleForEC2Spot" in {role.name for role in iam_backends[ACCOUNT]["aws"].roles.values()}

    def end_cluster(self, cluster: Any, state: str, reason: str) -> None:
        """Begins the end of a cluster, which takes a while."""
        step = cluster.steps[0]
        if cluster.state.startswith("TERMINAT"):
            return
        cluster.state, cluster.last_state_change_reason = "TERMINATING", reason
        if step.state in {"PENDING", "RUNNING"}:
            step.state = "CANCELLED"
        self.kill_process(step)

        def end() -> None:
            for instance in cluster.ec2_instances:
                instance.instance_group.end_date_time = utcnow()
            cluster.state = state

        threading.Timer(2 * SECONDS_OF_A_STATE, end).start()

    # -----------------------------------------------------------------------------------------------------------
    # EMR Serverless

    def run_job_run(self, job_run: Any) -> None:
        """The life of a job run, and with it that of its application."""
        begun = time.monotonic()
        application = emrserverless_backends[ACCOUNT][REGION].get_application(job_run.application_id)
        if application.state != "STARTED":
            application.state = "STARTING"
            time.sleep(SECONDS_OF_A_STATE)
            if application.state == "STARTING":
                application.state = "STARTED"
        time.sleep(SECONDS_OF_A_STATE)
        while self.fate == "stuck" and job_run.state == "SUBMITTED":
            time.sleep(0.1)
        if job_run.state != "SUBMITTED":
            return
        job_run.state = "RUNNING"
        submit = job_run.job_driver["sparkSubmit"]
        parameters = shlex.split(submit.get("sparkSubmitParameters", ""))
        command = ["spark-submit", *parameters, submit["entryPoint"], *submit["entryPointArguments"]]
        process = self.start(job_run, command)
        running = time.monotonic()
        status = process.wait(job_run.execution_timeout_minutes * self.minute)
        job_run.total_execution_duration_seconds = int((time.monotonic() - running) / self.minute * 60)
        if job_run.state != "RUNNING":
            return
        process.kill()
        if status is None:
            job_run.state = "CANCELLING"
        self.keep_logs(job_run, process)
        hours = (time.monotonic() - begun) / 3600
        job_run.billed_resource_utilization = {"vCPUHour": 8 * hours, "memoryGBHour": 32 * hours, "storageGBHour": 0.0}
        if status and self.fate != "no details":
            job_run.state_details = f"Job failed, please check complete logs. ExitCode: {status}. Last few exceptions: "
        job_run.state = "CANCELLED" if status is None else "SUCCESS" if status == 0 else "FAILED"
        idle = application.auto_stop_configuration
        if idle["enabled"]:
            time.sleep(idle["idleTimeoutMinutes"] * self.minute)
            if application.state == "STARTED" and not self.unfinished_runs(application.id):
                application.state = "STOPPING"
                later(application, "STOPPED")

    def keep_logs(self, job_run: Any, process: Process) -> None:
        """Brings what the driver printed to where the job run wants it."""
        keeping = job_run.configuration_overrides["monitoringConfiguration"]
        folder = f"applications/{job_run.application_id}/jobs/{job_run.id}/SPARK_DRIVER"
        if "s3MonitoringConfiguration" in keeping:
            self.keep_log(keeping["s3MonitoringConfiguration"]["logUri"], folder, process)
        if keeping.get("cloudWatchLoggingConfiguration", {}).get("enabled"):
            self.keep_log_in_cloudwatch(keeping["cloudWatchLoggingConfiguration"]["logGroupName"], folder, job_run)

    def keep_log_in_cloudwatch(self, group: str, folder: str, job_run: Any) -> None:
        """Brings the output to a log group, a line an event, where the role of the job may do so."""
        arn, logs = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{group}", self.client("logs")
        self.require_right(job_run.key, "logs:DescribeLogGroups", f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:a", {})
        for path in (job_run.process.stdout, job_run.process.stderr):
            stream = f"/{folder}/{path.name}"
            self.require_right(job_run.key, "logs:DescribeLogStreams", f"{arn}:*", {})
            self.require_right(job_run.key, "logs:CreateLogStream", f"{arn}:*", {})
            self.require_right(job_run.key, "logs:PutLogEvents", f"{arn}:log-stream:{stream}", {})
            logs.create_log_stream(logGroupName=group, logStreamName=stream)
            now, lines = int(time.time() * 1000), path.read_text().splitlines()
            events = [{"timestamp": now, "message": line or " "} for line in lines]
            if events:
                logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)

    def event_of_job_run(self, application: str, job_run: str) -> dict[str, Any]:
        """The event by which EMR Serverless tells what became of a job run."""
        found = self.client("emr-serverless").get_job_run(applicationId=application, jobRunId=job_run)["jobRun"]
        told = {name: found[name] for name in ("jobRunId", "applicationId", "arn", "releaseLabel", "state")}
        return event("aws.emr-serverless", "EMR Serverless Job Run State Change", [], told)

    def unfinished_runs(self, application_id: str) -> list[Any]:
        runs = emrserverless_backends[ACCOUNT][REGION].job_runs.get(application_id, [])
        return [run for run in runs if run.state in {"SUBMITTED", "RUNNING", "CANCELLING"}]

    # -----------------------------------------------------------------------------------------------------------
    # CloudWatch

    def counted(self, pattern: str, group: str, of_stream: str) -> list[dict[str, Any]]:
        """The lines that a metric filter counts in streams of a log group: JSON in which a field is a number."""
        ((field, number),) = re.findall(r"^\{ \$\.(\w+) = (\d+) \}$", pattern)
        logs = self.client("logs")
        streams = logs.describe_log_streams(logGroupName=group)["logStreams"]
        names = [stream["logStreamName"] for stream in streams if of_stream in stream["logStreamName"]]
        found = []
        for name in names:
            events = logs.get_log_events(logGroupName=group, logStreamName=name, startFromHead=True)["events"]
            for message in (event["message"] for event in events):
                with suppress(ValueError):
                    line = json.loads(message)
                    found += [line] if isinstance(line, dict) and line.get(field) == int(number) else []
        return found

    # -----------------------------------------------------------------------------------------------------------
    # EventBridge Scheduler

    def fire(self, name: str) -> str:
        """What a schedule does when its time has come; returns the task, or the job run, that it starts."""
        target = self.client("scheduler").get_schedule(Name=name)["Target"]
        (role,) = [role for role in iam_backends[ACCOUNT]["aws"].roles.values() if role.arn == target["RoleArn"]]
        group = f"arn:aws:scheduler:{REGION}:{ACCOUNT}:schedule-group/default"
        of_schedule = {"aws:SourceAccount": ACCOUNT, "aws:SourceArn": group}
        (trust,) = as_json(role.assume_role_policy_document)["Statement"]
        assert trust["Principal"] == {"Service": "scheduler.amazonaws.com"}
        assert awsstore.allows([{**trust, "Resource": role.arn}], "sts:AssumeRole", role.arn, of_schedule)
        if target["Arn"] == "arn:aws:scheduler:::aws-sdk:emrserverless:startJobRun":
            return self.fire_job_run(awsstore.key_of_role(role.name), target)
        return self.fire_task(awsstore.key_of_role(role.name), target, f"chronos-schedule/{name}"[:36])

    def require_right(self, who: str, action: str, resource: str, context: dict[str, str]) -> None:
        allowed = awsstore.allows(self.statements_of(who), action, resource, context)
        assert allowed, f"{who} may not {action} {resource}"

    def fire_task(self, who: str, target: dict[str, Any], started_by: str) -> str:
        ecs, parameters = self.client("ecs"), target["EcsParameters"]
        definition = ecs.describe_task_definition(taskDefinition=parameters["TaskDefinitionArn"])["taskDefinition"]
        self.require_right(who, "ecs:RunTask", definition["taskDefinitionArn"], {"ecs:cluster": target["Arn"]})
        for role in ("taskRoleArn", "executionRoleArn"):
            self.require_right(
                who, "iam:PassRole", definition[role], {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
            )
        network = parameters["NetworkConfiguration"]["awsvpcConfiguration"]
        (task,) = ecs.run_task(
            cluster=target["Arn"],
            taskDefinition=parameters["TaskDefinitionArn"],
            launchType=parameters["LaunchType"],
            count=parameters["TaskCount"],
            networkConfiguration={"awsvpcConfiguration": with_small_names(network)},
            overrides=json.loads(target["Input"]),
            startedBy=started_by,
        )["tasks"]
        arn: str = task["taskArn"]
        return arn

    def fire_job_run(self, who: str, target: dict[str, Any]) -> str:
        given = target["Input"].replace("<aws.scheduler.execution-id>", secrets.token_hex(8))
        parameters = with_small_names(json.loads(given))
        application = f"arn:aws:emr-serverless:{REGION}:{ACCOUNT}:/applications/{parameters['applicationId']}"
        self.require_right(who, "emr-serverless:StartJobRun", application, {})
        passed = {"iam:PassedToService": "emr-serverless.amazonaws.com"}
        self.require_right(who, "iam:PassRole", parameters["executionRoleArn"], passed)
        job_run: str = self.client("emr-serverless").start_job_run(**parameters)["jobRunId"]
        return job_run

    # -----------------------------------------------------------------------------------------------------------
    # ECS

    def run_task(self, task: Any, definition: Any) -> None:
        """The life of a task: the image is got by its digest, and run with the command of the overrides."""
        container, described = task.containers[0], definition.container_definitions[0]
        for state in ("PROVISIONING", "PENDING", "ACTIVATING"):
            self.pass_state(task, state)
            if task.desired_status == "STOPPED":
                return
        task.pull_started_at = utcnow()
        wanted, found = definition.runtime_platform["cpuArchitecture"], self.architecture_of(described["image"])
        if wanted != found:
            platform = {"X86_64": "linux/amd64", "ARM64": "linux/arm64"}[wanted]
            why = f"image Manifest does not contain descriptor matching platform '{platform}'"
            self.end_task(task, None, f"CannotPullContainerError: {why}")
            return
        pull = ["true" if self.fate == "dies" else "docker", "pull", described["image"]]
        if subprocess.run(pull, capture_output=True, check=False).returncode or self.fate == "dies":
            self.end_task(task, None, f"CannotPullContainerError: {described['image']}")
        if task.desired_status != "STOPPED":
            task.last_status = "RUNNING"
        while self.stays == "RUNNING" and task.desired_status != "STOPPED":
            time.sleep(0.1)
        if task.desired_status == "STOPPED":
            return
        entry, *rest = described["entryPoint"]
        environment = {pair["name"]: pair["value"] for pair in described["environment"]}
        environment |= {
            "AWS_ACCESS_KEY_ID": self.require_role(definition.task_role_arn),
            "AWS_SECRET_ACCESS_KEY": "of-a-role",
            "AWS_ENDPOINT_URL_S3": self.store.endpoint,
        }
        options = [part for name, value in environment.items() for part in ("--env", f"{name}={value}")]
        command = [*rest, *task.overrides["containerOverrides"][0]["command"]]
        process = subprocess.Popen(
            ["docker", "run", "--rm", "--name", task.id, *options, "--entrypoint", entry, described["image"], *command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        task.docker = process
        log = described["logConfiguration"]["options"]
        self.follow(process, log["awslogs-group"], f"{log['awslogs-stream-prefix']}/{container.name}/{task.id}")
        status = process.wait()
        if task.desired_status != "STOPPED":
            self.end_task(task, None if self.fate == "no exit code" else status, "Essential container in task exited")

    def pass_state(self, task: Any, state: str) -> None:
        """Brings a task into a state and lets it be there for a while."""
        task.last_status = state
        time.sleep(SECONDS_OF_A_STATE / 3)
        while self.stays == state and not task.stop_is_asked:
            time.sleep(0.1)

    def follow(self, process: subprocess.Popen[str], group: str, stream: str) -> None:
        """Brings what a container prints to the log, line by line."""
        logs = self.client("logs")
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
        assert process.stdout
        for line in process.stdout:
            event = {"timestamp": int(time.time() * 1000), "message": line.rstrip("\n") or " "}
            logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=[event])

    def end_task(self, task: Any, status: int | None, reason: str) -> None:
        task.containers[0].exitCode, task.stopped_reason = status, reason
        by_itself = "EssentialContainerExited" if task.last_status == "RUNNING" else "TaskFailedToStart"
        task.stop_code = "UserInitiated" if task.stop_is_asked else by_itself
        task.desired_status = "STOPPED"
        for state in ("DEACTIVATING", "STOPPING", "DEPROVISIONING"):
            self.pass_state(task, state)
        self.remove_interface(task)
        task.stopped_at, task.last_status = utcnow(), "STOPPED"

    def event_of(self, cluster: str, task: str) -> dict[str, Any]:
        """The event by which ECS tells what became of a task."""
        (found,) = self.client("ecs").describe_tasks(cluster=cluster, tasks=[task])["tasks"]
        detail = json.loads(json.dumps(found, default=lambda time: time.isoformat()))
        return event("aws.ecs", "ECS Task State Change", [task], detail)

    def remove_interface(self, task: Any) -> None:
        """Gives back the address of a task, without which its network could not be removed."""
        ec2 = ec2_backends[ACCOUNT][REGION]
        for attachment in task.attachments:
            for detail in attachment["details"]:
                if detail["name"] == "networkInterfaceId" and detail["value"] in ec2.enis:
                    ec2.delete_network_interface(detail["value"])

    def architecture_of(self, image: str) -> str:
        """The architecture of an image in the registry of the tests, as ECS calls it."""
        repository, _, digest = image.removeprefix(f"{self.registry}/").partition("@")
        manifest = json.loads(self.from_registry(f"{repository}/manifests/{digest}").read())
        config = json.loads(self.from_registry(f"{repository}/blobs/{manifest['config']['digest']}").read())
        return {"amd64": "X86_64", "arm64": "ARM64"}[config["architecture"]]

    def from_registry(self, path: str, method: str = "GET") -> Any:
        kinds = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
        request = urllib.request.Request(f"http://{self.registry}/v2/{path}", method=method, headers={"Accept": kinds})
        return urllib.request.urlopen(request)

    def images_in_registry(self, repository: str) -> list[Any]:
        """What lies in the registry of the tests."""
        try:
            with self.from_registry(f"{repository}/tags/list") as answer:
                tags = json.load(answer)["tags"] or []
        except urllib.error.HTTPError:
            return []
        images = []
        for tag in tags:
            with self.from_registry(f"{repository}/manifests/{tag}", "HEAD") as answer:
                images.append(SimpleNamespace(image_tags=[tag], image_digest=answer.headers["Docker-Content-Digest"]))
        return images


def event(source: str, kind: str, resources: list[str], detail: dict[str, Any]) -> dict[str, Any]:
    """An event of EventBridge."""
    return {
        "version": "0", "id": "3317b2af-7005-947d-b652-f55e762e571a", "detail-type": kind, "source": source,
        "account": ACCOUNT, "time": utcnow().strftime("%Y-%m-%dT%H:%M:%SZ"), "region": REGION, "resources": resources,
        "detail": detail,
    }  # fmt: skip


def first_small(name: str) -> str:
    """A name of CloudFormation as the API of the service has it; a word in capitals is no such name."""
    return name if name.isupper() else name[0].lower() + name[1:]


def with_small_names(value: Any) -> Any:
    """What a template says, as the API of the service has it."""
    if isinstance(value, dict):
        return {first_small(name): with_small_names(entry) for name, entry in value.items()}
    return [with_small_names(entry) for entry in value] if isinstance(value, list) else value


# ---------------------------------------------------------------------------------------------------------------
# What moto only notes down, or leaves out


class ScheduleOfStack(CloudFormationModel):
    """A schedule that a template makes."""

    def __init__(self, name: str, arn: str) -> None:
        self.name, self.arn = name, arn

    @property
    def physical_resource_id(self) -> str:
        return self.name

    @staticmethod
    def cloudformation_name_type() -> str:
        return "Name"

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::Scheduler::Schedule"

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return attr == "Arn"

    def get_cfn_attribute(self, _name: str) -> str:
        return self.arn

    @classmethod
    def create_from_cloudformation_json(
        cls, name: str, template: Any, account: str, region: str, **_: Any
    ) -> ScheduleOfStack:
        given = template["Properties"]
        network = given["Target"].get("EcsParameters", {}).get("NetworkConfiguration", {})
        if network:  # which the API has with a small letter
            network["awsvpcConfiguration"] = network.pop("AwsvpcConfiguration")
        schedule = scheduler_backends[account][region].create_schedule(
            name=name, group_name="default", description=given["Description"], target=given["Target"],
            schedule_expression=given["ScheduleExpression"], flexible_time_window=given["FlexibleTimeWindow"],
            **dict.fromkeys(["schedule_expression_timezone", "state", "kms_key_arn", "start_date", "end_date"]),
            action_after_completion="NONE",
        )  # fmt: skip
        return cls(name, schedule.arn)

    @classmethod
    def update_from_cloudformation_json(
        cls, original: Any, name: str, template: Any, account: str, region: str
    ) -> ScheduleOfStack:
        cls.delete_from_cloudformation_json(original.name, template, account, region)
        return cls.create_from_cloudformation_json(name, template, account, region)

    @classmethod
    def delete_from_cloudformation_json(cls, name: str, _template: Any, account: str, region: str) -> None:
        scheduler_backends[account][region].delete_schedule("default", name)


REPLACEMENTS: list[tuple[Any, str, Any]] = []


def replaces(owner: Any, name: str) -> Any:
    """Puts a function in the place of one of moto's; it gets the control plane and moto's own function first."""

    def note(function: Any) -> Any:
        REPLACEMENTS.append((owner, name, function))
        return function

    return note


def require_release(label: str) -> None:
    """Refuses a release of EMR that there is not."""
    if not re.fullmatch(r"emr-(spark-8\.\d+\.\d+|7\.\d+\.\d+)", label):
        raise ValidationException(f"Release label {label} is not supported")


class ApplicationOfStack(CloudFormationModel):
    """An application of EMR Serverless that a template makes."""

    def __init__(self, identifier: str) -> None:
        self.arn = f"arn:aws:emr-serverless:{REGION}:{ACCOUNT}:/applications/{identifier}"
        self.identifier = identifier

    @property
    def physical_resource_id(self) -> str:
        return self.identifier

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""  # its name is not its own

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::EMRServerless::Application"

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return attr == "Arn"

    def get_cfn_attribute(self, _name: str) -> str:
        return self.arn

    @classmethod
    def create_from_cloudformation_json(
        cls, name: str, template: Any, account: str, region: str, **_: Any
    ) -> ApplicationOfStack:
        given = with_small_names(template["Properties"])
        auto_stop = given["autoStopConfiguration"]
        application = emrserverless_backends[account][region].create_application(
            name=given["name"], release_label=given["releaseLabel"], application_type=given["type"], client_token=name,
            initial_capacity=None, maximum_capacity=given["maximumCapacity"], tags={},
            auto_start_configuration=given["autoStartConfiguration"], auto_stop_configuration=auto_stop,
            network_configuration=None,
        )  # fmt: skip
        while application.state == "CREATING":  # CloudFormation goes on when it is made
            time.sleep(0.05)
        return cls(application.id)

    @classmethod
    def update_from_cloudformation_json(cls, original: Any, *_: Any) -> Any:
        return original

    @classmethod
    def delete_from_cloudformation_json(cls, identifier: str, *_: Any) -> None:
        remove_application(identifier)


@replaces(ElasticMapReduceResponse, "run_job_flow")
def run_job_flow(plane: ControlPlane, original: Any, response: Any) -> Any:
    plane.require_role(response._get_param("ServiceRole"))
    key = plane.require_profile(response._get_param("JobFlowRole"))
    for subnet in response._get_param("Instances.Ec2SubnetIds"):
        ec2_backends[ACCOUNT][REGION].get_subnet(subnet)
    response.backend.get_security_configuration(response._get_param("SecurityConfiguration"))
    require_release(response._get_param("ReleaseLabel"))
    answer = original(response)
    cluster = response.backend.clusters[answer.result["JobFlowId"]]
    cluster.state, cluster.steps[0].state, cluster.steps[0].key = "STARTING", "PENDING", key
    for fleet in response._get_param("Instances.InstanceFleets"):
        add_instances(cluster, fleet)
    threading.Thread(target=plane.run_cluster, args=[cluster], daemon=True).start()
    return answer


@replaces(ElasticMapReduceBackend, "terminate_job_flows")
def terminate_job_flows(plane: ControlPlane, _original: Any, backend: Any, job_flow_ids: list[str]) -> list[Any]:
    for identifier in job_flow_ids:
        plane.end_cluster(backend.clusters[identifier], "TERMINATED", "Terminated by user request")
    return []


@replaces(EMRServerlessBackend, "create_application")
def create_application(_plane: ControlPlane, original: Any, backend: Any, **arguments: Any) -> Any:
    require_release(arguments["release_label"])
    for known in backend.applications.values():
        if known.client_token == arguments["client_token"] and known.state != "TERMINATED":
            return known
    label, arguments["release_label"] = arguments["release_label"], "emr-7.9.0"  # which moto knows
    application = original(backend, **arguments)
    application.release_label, application.state, application.created_at = label, "CREATING", utcnow()
    later(application, "CREATED")
    return application


@replaces(EMRServerlessBackend, "start_job_run")
def start_job_run(plane: ControlPlane, original: Any, backend: Any, **arguments: Any) -> Any:
    key = plane.require_role(arguments["execution_role_arn"])
    for known in backend.job_runs.get(arguments["application_id"], []):
        if known.client_token == arguments["client_token"]:
            return known
    require_state(backend.get_application(arguments["application_id"]), "CREATED", "STARTING", "STARTED", "STOPPED")
    job_run = original(backend, **arguments)
    job_run.state, job_run.state_details, job_run.key = "SUBMITTED", "", key
    threading.Thread(target=plane.run_job_run, args=[job_run], daemon=True).start()
    return job_run


@replaces(EMRServerlessBackend, "cancel_job_run")
def cancel_job_run(plane: ControlPlane, original: Any, backend: Any, application_id: str, job_run_id: str) -> Any:
    answer = original(backend, application_id, job_run_id)
    job_run = backend.get_job_run(application_id, job_run_id)
    job_run.state = "CANCELLING"
    plane.kill_process(job_run)
    later(job_run, "CANCELLED")
    return answer


@replaces(EMRServerlessBackend, "stop_application")
def stop_application(plane: ControlPlane, _original: Any, backend: Any, application_id: str) -> None:
    if plane.unfinished_runs(application_id):
        raise JsonRESTError("ValidationException", "Application has job runs that have not ended")
    application = backend.get_application(application_id)
    require_state(application, "STARTING", "STARTED")
    application.state = "STOPPING"
    later(application, "STOPPED")


def require_state(application: Any, *states: str) -> None:
    """Refuses what an application cannot have in the state that it is in."""
    if application.state not in states:
        among = f"must be in one of the following statuses [{', '.join(states)}]. Current status: {application.state}"
        raise JsonRESTError("ValidationException", f"Application {application.id} {among}")


def applications_of_emr_serverless() -> list[Any]:
    """All of them, as moto has them."""
    return list(emrserverless_backends[ACCOUNT][REGION].applications.values())


def remove_application(identifier: str) -> None:
    """Ends an application at once, with what runs on it."""
    backend = emrserverless_backends[ACCOUNT][REGION]
    for job_run in backend.job_runs.get(identifier, []):
        job_run.state = "CANCELLED"
    backend.get_application(identifier).state = "TERMINATED"


def later(owner: Any, state: str) -> None:
    """Brings something into a state, after the time that a state takes, if it is not ended by then."""

    def change() -> None:
        if owner.state != "TERMINATED":
            owner.state = state

    threading.Timer(SECONDS_OF_A_STATE * 2, change).start()


@replaces(EMRServerlessBackend, "list_job_runs")
def list_job_runs(_plane: ControlPlane, original: Any, backend: Any, application_id: str, **arguments: Any) -> Any:
    backend.job_runs.setdefault(application_id, [])  # an application without any is no error
    return original(backend, application_id, **arguments)


@replaces(EC2ContainerServiceBackend, "run_task")
def run_task(plane: ControlPlane, original: Any, backend: Any, *arguments: Any, **named: Any) -> list[Any]:
    tasks: list[Any] = original(backend, *arguments, **named)
    for task in tasks:
        definition = backend.describe_task_definition(task.task_definition_arn)
        plane.require_role(definition.task_role_arn)
        plane.require_role(definition.execution_role_arn)
        task.last_status, task.containers[0].exitCode, task.stop_is_asked = "PROVISIONING", None, False
        threading.Thread(target=plane.run_task, args=[task, definition], daemon=True).start()
    return tasks


@replaces(EC2ContainerServiceResponse, "run_task")
def run_task_request(plane: ControlPlane, original: Any, response: Any) -> Any:
    if plane.fate == "no capacity":  # an answer, not an error
        return ActionResult({"tasks": [], "failures": [{"reason": "RESOURCE:MEMORY"}]})
    token = response._get_param("clientToken")
    if token not in plane.answers:
        plane.answers[token] = original(response)
    return plane.answers[token]


@replaces(EC2ContainerServiceBackend, "stop_task")
def stop_task(plane: ControlPlane, original: Any, backend: Any, cluster: str, task: str, reason: str) -> Any:
    (found,) = backend.describe_tasks(cluster, [task])
    state, is_ending, found.stop_is_asked = found.last_status, found.desired_status == "STOPPED", True
    if is_ending:
        return found
    stopped = original(backend, cluster, task, reason)
    stopped.last_status = state
    if state != "STOPPED":
        subprocess.run(["docker", "kill", stopped.id], capture_output=True, check=False)
        threading.Thread(target=plane.end_task, args=[stopped, None, stopped.stopped_reason], daemon=True).start()
    return stopped


@replaces(EC2ContainerServiceBackend, "list_tasks")
def list_tasks(_plane: ControlPlane, original: Any, backend: Any, *arguments: Any, **named: Any) -> list[Any]:
    return [task for task in original(backend, *arguments, **named) if task.desired_status == "RUNNING"]


@replaces(Task, "advance")
def advance(_plane: ControlPlane, _original: Any, _task: Any) -> None:
    """A task advances by what it does, not by being looked at."""


@replaces(TaskDefinition, "create_from_cloudformation_json")
def create_task_definition(
    _plane: ControlPlane, original: Any, name: str, template: Any, account: str, region: str, **named: Any
) -> Any:
    definition = original(name, template, account, region, **named)
    definition.task_role_arn = template["Properties"]["TaskRoleArn"]
    definition.execution_role_arn = template["Properties"]["ExecutionRoleArn"]
    definition.network_mode = template["Properties"]["NetworkMode"]
    platform = template["Properties"]["RuntimePlatform"]
    definition.runtime_platform = {first_small(name): value for name, value in platform.items()}
    return definition


@replaces(TaskDefinition, "update_from_cloudformation_json")
def update_task_definition(_plane: ControlPlane, _original: Any, **named: Any) -> Any:
    arguments = (named[name] for name in ("new_resource_name", "cloudformation_json", "account_id", "region_name"))
    return TaskDefinition.create_from_cloudformation_json(*arguments)


@replaces(CloudFormationResponse, "_validate_different_update")
def validate_different_update(_plane: ControlPlane, _original: Any, *_: Any) -> None:
    """A change set without changes is one that fails, not a refusal."""


@replaces(ChangeSet, "diff")
def diff(_plane: ControlPlane, original: Any, change_set: Any) -> Any:
    """What a change set changes; moto alone overlooks what follows from a parameter."""
    resources = change_set.stack.resource_map
    build = resources.build_resource_diff
    resources.build_resource_diff = lambda template: build(template, change_set.parameters)
    try:
        return original(change_set)
    finally:
        del resources.build_resource_diff


@replaces(CloudFormationBackend, "create_change_set")
def create_change_set(_plane: ControlPlane, original: Any, backend: Any, **named: Any) -> Any:
    for change_set in backend.change_sets.values():
        if (change_set.stack.name, change_set.change_set_name) == (named["stack_name"], named["change_set_name"]):
            raise ExistsError(f"ChangeSet [{named['change_set_name']}] already exists")
    # a stack whose first change set was never carried out is taken over by the next; moto would have two
    for identifier, stack in list(backend.stacks.items()):
        if stack.name == named["stack_name"] and stack.status == "REVIEW_IN_PROGRESS":
            del backend.stacks[identifier]
    return original(backend, **named)


@replaces(CloudFormationBackend, "execute_change_set")
def execute_change_set(
    _plane: ControlPlane, original: Any, backend: Any, change_set_name: str, stack_name: str | None = None
) -> None:
    original(backend, change_set_name, stack_name)
    stack = backend.describe_change_set(change_set_name).stack
    stack._parse_template()
    stack.parameters = dict(stack.stack_parameters)
    stack.output_map = stack._create_output_map()


@replaces(CloudFormationResponse, "execute_change_set")
def execute_change_set_request(plane: ControlPlane, original: Any, response: Any) -> Any:
    name, token = response._get_param("ChangeSetName"), response._get_param("ClientRequestToken")
    if (name, token) in plane.answers:
        raise TokenExistsError(f"Token {token} already exists")
    if name in plane.answers:
        status = "cannot be executed in its current execution status [EXECUTE_COMPLETE]"
        raise ValidationError(message=f"ChangeSet [{name}] {status}")
    plane.answers[name] = plane.answers[name, token] = original(response)
    return plane.answers[name]


class TokenExistsError(CloudFormationError):
    code = "TokenAlreadyExistsException"


class ExistsError(CloudFormationError):
    code = "AlreadyExistsException"


@replaces(CloudFormationBackend, "delete_stack")
def delete_stack(_plane: ControlPlane, original: Any, backend: Any, name_or_stack_id: str) -> None:
    for stack in backend.stacks.values():
        if name_or_stack_id in {stack.name, stack.stack_id} and stack.status == "UPDATE_IN_PROGRESS":
            raise ValidationError(message=f"Stack [{stack.stack_id}] cannot be deleted while in status {stack.status}")
    original(backend, name_or_stack_id)


@replaces(LogGroup, "get_cfn_attribute")
def arn_of_log_group(_plane: ControlPlane, original: Any, group: Any, name: str) -> Any:
    return original(group, name) + ":*"


@replaces(Role, "create_from_cloudformation_json")
def create_role(_plane: ControlPlane, original: Any, name: str, template: Any, *arguments: Any, **named: Any) -> Any:
    role = original(name, template, *arguments, **named)
    policies = iam_backends[ACCOUNT]["aws"].managed_policies
    for arn in template["Properties"].get("ManagedPolicyArns", []):
        if arn in policies:  # those of AWS are not the jobs'
            policies[arn].attach_to(role)
    return role


@replaces(IAMBackend, "delete_role")
def delete_role(_plane: ControlPlane, original: Any, backend: Any, role_name: str) -> None:
    role = backend.get_role(role_name)
    for policy in list(role.managed_policies.values()):
        policy.detach_from(role)  # as CloudFormation does
    original(backend, role_name)


@replaces(ManagedPolicy, "update_from_cloudformation_json")
def update_policy(_plane: ControlPlane, _original: Any, policy: Any, _name: str, template: Any, *_: Any) -> Any:
    document = json.dumps(template["Properties"]["PolicyDocument"])
    version = PolicyVersion(policy.arn, document, True, f"v{policy.next_version_num}")
    policy.versions.append(version)
    policy.next_version_num += 1
    policy.update_default_version(version.version_id)
    return policy


@replaces(IAMBackend, "create_service_linked_role")
def create_service_linked_role(
    _plane: ControlPlane, original: Any, backend: Any, service_name: str, *arguments: Any, **named: Any
) -> Any:
    SERVICE_NAME_CONVERSION["spot"] = "EC2Spot"
    if any(service_name in role.path for role in backend.roles.values()):
        name = "AWSServiceRoleForEC2Spot"
        raise InvalidInput(f"Service role name {name} has been taken in this account, please try a different suffix.")
    return original(backend, service_name, *arguments, **named)


@replaces(S3Backend, "create_bucket")
def create_bucket(plane: ControlPlane, original: Any, backend: Any, bucket_name: str, region_name: str) -> Any:
    with suppress(plane.s3.client.exceptions.BucketAlreadyOwnedByYou):
        plane.s3.client.create_bucket(Bucket=bucket_name)
    return original(backend, bucket_name, region_name)


@replaces(Repository, "__init__")
def create_repository(plane: ControlPlane, original: Any, repository: Any, *arguments: Any, **named: Any) -> None:
    original(repository, *arguments, **named)
    repository.uri = f"{plane.registry}/{repository.name}"


@replaces(ECRBackend, "list_images")
def list_images(plane: ControlPlane, _original: Any, backend: Any, name: str, *_: Any, **__: Any) -> list[Any]:
    backend.describe_repositories(repository_names=[name])
    return plane.images_in_registry(name)


@replaces(ECRBackend, "describe_images")
def describe_images(
    plane: ControlPlane, _original: Any, _backend: Any, repository_name: str, _registry: Any, image_ids: Any
) -> list[Any]:
    digests = {asked["imageDigest"] for asked in image_ids}
    found = [image for image in plane.images_in_registry(repository_name) if image.image_digest in digests]
    if not found:
        raise JsonRESTError("ImageNotFoundException", f"no image of {repository_name} is {sorted(digests)}")
    tags = [tag for image in found for tag in image.image_tags]
    return [SimpleNamespace(image_tags=tags, image_digest=found[0].image_digest)]


def add_instances(cluster: Any, fleet: dict[str, Any]) -> None:
    """What a fleet of instances is made of."""
    number = fleet.get("TargetOnDemandCapacity", 0) + fleet.get("TargetSpotCapacity", 0)
    kind = fleet["InstanceTypeConfigs"][0]["InstanceType"]
    for _ in range(number):
        group = InstanceGroup(cluster.id, 1, fleet["InstanceFleetType"], kind)

        class Machine:
            id, instance_type, block_device_mapping = "i-0", kind, {}
            public_dns_name = public_ip = private_ip = private_dns_name = None

        cluster.ec2_instances.append(Instance(Machine, group))


def delete_route_table(table: Any, _account: str, _region: str) -> None:
    """Removes a route table with its associations."""
    table._associations.clear()
    table.ec2_backend.delete_route_table(table.id)


# ---------------------------------------------------------------------------------------------------------------
# Operations that moto lacks

Answer = Callable[[ControlPlane, dict[str, Any], Any, bytes], Iterable[bytes]]
# what an account has where nobody asked for more: the documents name those of EC2 and Fargate, and EMR Serverless
DEFAULT_QUOTAS = {"L-1216C47A": 32.0, "L-34B43A08": 32.0, "L-D05C8A75": 16.0, "L-3032A538": 6.0}


def describe_release_label(_plane: ControlPlane, _environ: Any, start_response: Any, body: bytes) -> list[bytes]:
    label = json.loads(body)["ReleaseLabel"]
    if not re.fullmatch(r"emr-(spark-8\.[01]\.0|7\.\d\.0)", label):
        start_response("400 Bad Request", [("Content-Type", "application/x-amz-json-1.1")])
        return [json.dumps({"__type": "InvalidRequestException", "Message": f"no release label {label}"}).encode()]
    spark = {"Name": "Spark", "Version": "4.1.1" if "spark-8" in label else "3.5.6"}
    start_response("200 OK", [("Content-Type", "application/x-amz-json-1.1")])
    return [json.dumps({"ReleaseLabel": label, "Applications": [spark]}).encode()]


def get_service_quota(plane: ControlPlane, _environ: Any, start_response: Any, body: bytes) -> list[bytes]:
    code = json.loads(body)["QuotaCode"]
    if code not in plane.quotas:
        start_response("400 Bad Request", [("Content-Type", "application/x-amz-json-1.1")])
        return [json.dumps({"__type": "NoSuchResourceException", "Message": code}).encode()]
    start_response("200 OK", [("Content-Type", "application/x-amz-json-1.1")])
    return [json.dumps({"Quota": {"QuotaCode": code, "Value": plane.quotas[code]}}).encode()]


def get_default_quota(_plane: ControlPlane, _environ: Any, start_response: Any, body: bytes) -> list[bytes]:
    code = json.loads(body)["QuotaCode"]
    start_response("200 OK", [("Content-Type", "application/x-amz-json-1.1")])
    return [json.dumps({"Quota": {"QuotaCode": code, "Value": DEFAULT_QUOTAS[code]}}).encode()]


def simulate_principal_policy(plane: ControlPlane, _environ: Any, start_response: Any, body: bytes) -> list[bytes]:
    asked = urllib.parse.parse_qs(body.decode())
    actions = [value for name, (value,) in asked.items() if name.startswith("ActionNames.")]
    members = "".join(
        f"<member><EvalActionName>{action}</EvalActionName><EvalDecision>"
        f"{'allowed' if plane.allowed is None or action in plane.allowed else 'implicitDeny'}</EvalDecision></member>"
        for action in actions
    )
    start_response("200 OK", [("Content-Type", "text/xml")])
    result = f"<EvaluationResults>{members}</EvaluationResults><IsTruncated>false</IsTruncated>"
    name = "SimulatePrincipalPolicy"
    return [f"<{name}Response><{name}Result>{result}</{name}Result></{name}Response>".encode()]


OWN_OPERATIONS: dict[str, Answer] = {
    "DescribeReleaseLabel": describe_release_label,
    "GetServiceQuota": get_service_quota,
    "GetAWSDefaultServiceQuota": get_default_quota,
    "SimulatePrincipalPolicy": simulate_principal_policy,
}


def operation_of(environ: dict[str, Any], body: bytes) -> str:
    """The name of the operation that a request asks for."""
    if "HTTP_X_AMZ_TARGET" in environ:
        return str(environ["HTTP_X_AMZ_TARGET"]).rpartition(".")[2]
    for method, path, operation in SERVERLESS:
        if environ["REQUEST_METHOD"] == method and re.fullmatch(path, environ["PATH_INFO"]):
            return operation
    return urllib.parse.parse_qs(body.decode("utf-8", "replace")).get("Action", [environ["PATH_INFO"]])[0]


def refuse(environ: dict[str, Any], start_response: Any, what: str, operation: str) -> list[bytes]:
    """One of FAULTS as the protocol of the request has it."""
    code, code_of_queries, message = FAULTS[what]
    message = message.format(user=f"arn:aws:iam::{ACCOUNT}:user/tests", operation=operation)
    if "HTTP_X_AMZ_TARGET" in environ or "emr-serverless" in environ.get("HTTP_AUTHORIZATION", ""):
        start_response("400 Bad Request", [("Content-Type", "application/json"), ("x-amzn-errortype", code)])
        return [json.dumps({"__type": code, "message": message}).encode()]
    start_response("403 Forbidden", [("Content-Type", "text/xml")])
    error = f"<Error><Type>Sender</Type><Code>{code_of_queries}</Code><Message>{message}</Message></Error>"
    return [f"<ErrorResponse>{error}<RequestId>0</RequestId></ErrorResponse>".encode()]


def as_json(document: Any) -> dict[str, Any]:
    """A policy, which moto keeps as text or as what its text says."""
    found: dict[str, Any] = json.loads(document) if isinstance(document, str) else document
    return found


class Registry:
    """A registry of container images, Debian's docker-registry, and a docker that trusts it without TLS."""

    def __init__(self, folder: Path) -> None:
        (port,) = s3server.free_ports(1)
        self.address = f"localhost:{port}"
        config = folder / "registry.yml"
        config.write_text(
            f"version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {folder}/images}}}}\n"
            f"http: {{addr: '127.0.0.1:{port}'}}\n"
        )
        self.conf = folder / "registries.conf"
        self.conf.write_text(f'[[registry]]\nlocation = "{self.address}"\ninsecure = true\n')
        binary = shutil.which("docker-registry")
        assert binary
        self.process = subprocess.Popen(
            [binary, "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(100):
            with suppress(OSError), urllib.request.urlopen(f"http://{self.address}/v2/"):
                return
            time.sleep(0.1)
        raise AssertionError("docker-registry does not answer")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
