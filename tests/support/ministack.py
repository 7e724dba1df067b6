"""A second CloudFormation: ministack, which makes what a template says and removes it, and runs nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3

from tests.support import s3server
from tests.support.awscommand import AwsCommand
from tests.support.project import ROOT

# ministack with what it lacks: security configurations and applications, which it only notes down, and alarms on an
# expression, of which it notes down the metric
MINISTACK = '''
from ministack.app import main
from ministack.services.cloudformation import changesets, provisioners

resolve = changesets._resolve_props_for_diff


def resolve_what_is_made(template, parameters, *others):
    """A change set also has what comes and goes by a condition."""
    conditions = changesets._evaluate_conditions(template, parameters)
    resources = template.get("Resources", {}).items()
    made = {name: resource for name, resource in resources if conditions.get(resource.get("Condition"), True)}
    return resolve({**template, "Resources": made}, parameters, *others)


changesets._resolve_props_for_diff = resolve_what_is_made

provisioners._RESOURCE_HANDLERS["AWS::EMR::SecurityConfiguration"] = {
    "create": lambda logical_id, properties, stack: (f"{stack}-{logical_id}", {}),
    "delete": lambda physical_id, properties: None,
}

provisioners._RESOURCE_HANDLERS["AWS::EMRServerless::Application"] = {
    "create": lambda logical_id, properties, stack: (
        "00f1982r1uukb925",
        {"Arn": "arn:aws:emr-serverless:us-east-1:000000000000:/applications/00f1982r1uukb925"},
    ),
    "delete": lambda physical_id, properties: None,
}

record = provisioners._cw_metric_alarm_record


def record_metric(name, properties):
    """The record of an alarm, of whose expression the metric is kept."""
    properties = dict(properties)
    for found in properties.pop("Metrics", []):
        if "MetricStat" in found:
            properties |= found["MetricStat"]["Metric"]
            properties |= {"Period": found["MetricStat"]["Period"], "Statistic": found["MetricStat"]["Stat"]}
    return record(name, properties)


provisioners._cw_metric_alarm_record = record_metric
main()
'''


class Ministack:
    """The server, on a port of its own."""

    def __init__(self, folder: Path) -> None:
        (port,) = s3server.free_ports(1)
        self.command = AwsCommand()
        self.endpoint = f"http://127.0.0.1:{port}"
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(folder), "GATEWAY_PORT": str(port), "IOT_MTLS_ENABLED": "0"
        }  # fmt: skip
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", MINISTACK], stdout=log, stderr=log, cwd=folder, env=environment
            )
        for _ in range(300):
            with suppress(OSError), urllib.request.urlopen(f"{self.endpoint}/_ministack/health"):
                return
            time.sleep(0.1)
        raise AssertionError("ministack does not answer")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.command.stop()

    def client(self, service: str) -> Any:
        keys = {name.lower(): value for name, value in s3server.KEYS.items()}
        return boto3.client(service, endpoint_url=self.endpoint, region_name="us-east-1", **keys)


class Stacks:
    """The functions of the scripts that make and remove stacks, and the scripts themselves, on ministack."""

    def __init__(self, ministack: Ministack, bucket: str) -> None:
        self.environment = {
            "PATH": f"{ministack.command.folder}:{Path(sys.executable).parent}:{os.environ['PATH']}", **s3server.KEYS,
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": ministack.endpoint,
            "S3_BUCKET_NAME": bucket, "STACK_NAME": bucket, "POLL_SECONDS": "0.3",
        }  # fmt: skip
        self.client, self.bucket = ministack.client, bucket

    def call(self, command: str) -> str:
        """What a command of the scripts' library says, which must succeed."""
        parts = " ".join(f"source scripts/{part}.sh;" for part in ("common", "environments", "aws", "schedule"))
        source = f"set -euo pipefail; root=$1; {parts} use_aws_cli .; find_account; "
        done = self.run("bash", "-c", source + command, "test", ".")
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end, in the folder of the project."""
        return subprocess.run(
            command, cwd=ROOT, env={**self.environment, **variables}, capture_output=True, text=True, check=False,
            start_new_session=True,
        )  # fmt: skip

    def make(self, stack: str, template: str, **parameters: str) -> None:
        """Makes a stack at once, as the scripts would."""
        client = self.client("cloudformation")
        body = (ROOT / "infrastructure" / f"{template}.yaml").read_text()
        client.create_stack(
            StackName=stack, TemplateBody=body, Parameters=given(parameters), Capabilities=["CAPABILITY_IAM"]
        )
        client.get_waiter("stack_create_complete").wait(StackName=stack, WaiterConfig={"Delay": 1})

    def change(self, stack: str, **parameters: str) -> None:
        """Changes some parameters of a stack."""
        client = self.client("cloudformation")
        (found,) = client.describe_stacks(StackName=stack)["Stacks"]
        names = {parameter["ParameterKey"] for parameter in found["Parameters"]} - set(parameters)
        kept = [{"ParameterKey": name, "UsePreviousValue": True} for name in sorted(names)]
        client.update_stack(
            StackName=stack, UsePreviousTemplate=True, Parameters=given(parameters) + kept,
            Capabilities=["CAPABILITY_IAM"],
        )  # fmt: skip
        client.get_waiter("stack_update_complete").wait(StackName=stack, WaiterConfig={"Delay": 1})


def given(parameters: dict[str, str]) -> list[dict[str, Any]]:
    """Parameters as CloudFormation takes them."""
    return [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
