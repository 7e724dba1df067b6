"""The templates: every right as narrow as AWS can have it; made, changed and removed by a second CloudFormation."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from policy_sentry.querying.actions import get_action_data

from tests.support.awsscripts import permissions
from tests.support.ministack import Ministack, Stacks
from tests.support.project import ROOT

TEMPLATES = sorted((ROOT / "infrastructure").glob("*.yaml"))
pytestmark = pytest.mark.thorough


class CloudFormationLoader(yaml.SafeLoader):
    """Reads a template; what CloudFormation fills in stands as text."""


CloudFormationLoader.add_multi_constructor(
    "!", lambda _loader, tag, node: f"{tag} {node.value if isinstance(node, yaml.ScalarNode) else '...'}"
)


def read(template: Path) -> dict[str, Any]:
    return yaml.load(template.read_text(), CloudFormationLoader)  # it is a SafeLoader


def statements(template: Path) -> Iterator[dict[str, Any]]:
    """All statements of the policies of a template, but those that say who may take a role."""
    for resource in read(template)["Resources"].values():
        properties = resource.get("Properties", {})
        documents = [
            properties.get("PolicyDocument"),
            *(policy["PolicyDocument"] for policy in properties.get("Policies", [])),
        ]
        for document in filter(None, documents):
            yield from document["Statement"]


def as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_no_right_is_wider_than_aws_can_have_it(template: Path) -> None:
    for statement in statements(template):
        if statement["Effect"] == "Deny":
            continue
        for action in as_list(statement["Action"]):
            # given what AWS publishes of the action
            service, _, name = action.partition(":")
            known = get_action_data(service, name)
            assert known, f"{action} is no action of AWS"
            takes_arn = any(entry["resource_arn_format"] != "*" for entry in known[service])
            # then * stands only where no ARN can
            if takes_arn:
                assert "*" not in as_list(statement["Resource"]), f"{template.name}: {action} on *"
            assert "*" not in action
        assert "NotAction" not in statement
        assert "NotResource" not in statement


def test_every_statement_names_its_need_once() -> None:
    names = [statement["Sid"] for template in TEMPLATES for statement in statements(template)]
    assert len(names) == len(set(names))


def test_nobody_but_a_service_of_this_account_takes_a_role() -> None:
    for template in TEMPLATES:
        for name, resource in read(template)["Resources"].items():
            if resource["Type"] != "AWS::IAM::Role":
                continue
            (statement,) = resource["Properties"]["AssumeRolePolicyDocument"]["Statement"]
            assert set(statement["Principal"]) == {"Service"}
            # EC2 gives a role through its instance profile and knows no condition on the account
            if statement["Principal"]["Service"] != "ec2.amazonaws.com":
                assert statement["Condition"]["StringEquals"] == {"aws:SourceAccount": "Ref AWS::AccountId"}, name


def test_nothing_lets_anybody_in() -> None:
    groups = [
        resource["Properties"]
        for resource in read(ROOT / "infrastructure" / "network.yaml")["Resources"].values()
        if resource["Type"] == "AWS::EC2::SecurityGroup"
    ]
    assert len(groups) == 2
    assert not any("SecurityGroupIngress" in group for group in groups)


WAYS = {"emr_cluster": "a cluster", "emr_serverless": "EMR Serverless", "fargate": "Fargate"}


@pytest.mark.parametrize("way", WAYS)
def test_a_check_asks_for_the_permissions_of_the_documentation_each_on_what_it_is_for(way: str) -> None:
    # given the permissions that --check simulates
    source = (
        f"source scripts/{way}.sh; source scripts/check_aws.sh; PARTITION=aws REGION=us-east-1 ACCOUNT=123456789012 "
        "S3_BUCKET_NAME=bucket STACK_NAME=stack PASSED_ROLE=role/of-a-job; "
        'for action in "${PERMISSIONS[@]}"; do printf "%s %s\\n" "$action" "$(resource_of "$action")"; done'
    )
    asked = subprocess.run(["bash", "-euc", source], cwd=ROOT, capture_output=True, text=True, check=True)
    resources = dict(line.split() for line in asked.stdout.splitlines())
    # then they are those of docs/aws.md
    assert set(resources) == permissions(WAYS[way])
    # and * stands where no ARN can, and only there
    for action, resource in resources.items():
        service, _, name = action.partition(":")
        takes_arn = any(entry["resource_arn_format"] != "*" for entry in get_action_data(service, name)[service])
        if action != "ecs:ListTasks":  # whose ARN is of a container instance, which Fargate does not have
            assert (resource != "*") == takes_arn, action


def test_all_stacks_are_made_changed_and_removed(ministack: Ministack) -> None:
    # given all of them
    stacks = Stacks(ministack, f"mini-{secrets.token_hex(4)}")
    name = stacks.bucket
    stacks.call("deploy_storage .")
    stacks.call(f"deploy_stack {name}-network infrastructure/network.yaml")
    policy = f'$(value_of "$(stack_outputs {name}-storage)" JobPolicy)'
    stacks.call(f"deploy_stack {name}-emr infrastructure/emr.yaml BucketName={name} JobPolicy={policy}")
    stacks.call(f"deploy_stack {name}-registry infrastructure/registry.yaml RepositoryName={name}")
    fargate = (
        f"deploy_stack {name}-fargate infrastructure/fargate.yaml Name={name} Image=image@sha256:1 JobPolicy={policy} "
        f'RepositoryArn=$(value_of "$(stack_outputs {name}-registry)" RepositoryArn)'
    )
    stacks.call(fargate)
    # then each is complete, and a second time changes nothing
    found = stacks.client("cloudformation").describe_stacks()["Stacks"]
    assert {stack["StackName"]: stack["StackStatus"] for stack in found} == {
        f"{name}-{part}": "CREATE_COMPLETE" for part in ("storage", "network", "emr", "registry", "fargate")
    }
    assert stacks.call(fargate) == f"stack {name}-fargate is up to date\n"
    # when the bucket is removed by hand, then it is made anew, and the rights of jobs stay
    stacks.client("s3").delete_bucket(Bucket=name)
    assert f"bucket {name} was removed by hand and is made anew\n" in stacks.call("deploy_storage .")
    stacks.client("s3").head_bucket(Bucket=name)
    assert stacks.call(fargate) == f"stack {name}-fargate is up to date\n"
    # when one is changed, then that shows and happens
    assert "AWS::ECS::TaskDefinition" in stacks.call(f"{fargate} TimeLimit=5m")
    # when all are removed
    stacks.call(f"for part in fargate registry emr network storage; do delete_stack {name}-$part; done")
    # then nothing is left but the bucket
    assert stacks.client("cloudformation").describe_stacks()["Stacks"] == []
    assert [role["RoleName"] for role in stacks.client("iam").list_roles()["Roles"] if name in role["RoleName"]] == []
    policies = stacks.client("iam").list_policies(Scope="Local")["Policies"]
    assert [policy["PolicyName"] for policy in policies if name in policy["PolicyName"]] == []
    assert stacks.client("ecr").describe_repositories()["repositories"] == []
    assert stacks.client("ecs").list_clusters()["clusterArns"] == []
    assert stacks.client("logs").describe_log_groups(logGroupNamePrefix=f"/ecs/{name}")["logGroups"] == []
    vpcs = stacks.client("ec2").describe_vpcs(Filters=[{"Name": "cidr", "Values": ["10.76.0.0/20"]}])["Vpcs"]
    assert vpcs == []
    assert [bucket["Name"] for bucket in stacks.client("s3").list_buckets()["Buckets"]] == [name]


def test_a_stack_that_could_not_be_made_is_made_by_the_next_try(ministack: Ministack, tmp_path: Path) -> None:
    # given a stack whose creation fails
    stacks = Stacks(ministack, f"mini-{secrets.token_hex(4)}")
    broken = tmp_path / "broken.yaml"
    queue = "Resources:\n  One:\n    Type: AWS::SSM::Parameter\n    Properties: {Type: String, Value: a, Name: %s}\n"
    stacks.client("ssm").put_parameter(Name="/taken", Value="a", Type="String")
    broken.write_text(queue % "/taken")
    with pytest.raises(AssertionError, match=r"error: stack \S+: One") as failed:
        stacks.call(f"deploy_stack {stacks.bucket} {broken}")
    assert "Traceback" not in str(failed.value)
    # when what stood in its way is gone
    broken.write_text(queue % "/free")
    # then the next try removes the remains and makes it
    said = stacks.call(f"deploy_stack {stacks.bucket} {broken}")
    assert f"stack {stacks.bucket} is deleted" in said
    stacks.call(f"delete_stack {stacks.bucket}")
