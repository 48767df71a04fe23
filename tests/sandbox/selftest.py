"""The sandbox's own test: every fixup is needed, and does what it says.

Run it with the sandbox's Python: ``python selftest.py``.

For each fixup there is a check of the same name that says how AWS behaves.
It runs twice: against moto as it is, where it has to fail, and against moto
with all fixups, where it has to pass.  After an upgrade of moto the first
half tells which fixups can go.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading
import time
import unittest
import warnings
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# A thousand policies that no check needs, read at every reset.
os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "false"
os.environ["MOTO_AMIS_PATH"] = str(
    Path(__file__).parent / "localaws/images.json"
)
sys.path.insert(0, str(Path(__file__).parent))

from botocore.exceptions import ClientError  # noqa: E402

from localaws.inprocess import client, every  # noqa: E402
from localaws.populate import (  # noqa: E402
    image,
    make_function,
    make_key,
    make_machine,
    make_role,
    package,
    trust,
)

# `localaws.fixups` is imported only once moto has been seen without it.

REGION = "eu-central-1"
ACCOUNT = "123456789012"

Check = Callable[[], None]

checks: dict[str, Check] = {}
without_fixups: dict[str, BaseException | None] = {}


def check(function: Check) -> Check:
    """Register the check of the fixup with the same name."""
    checks[function.__name__] = function
    return function


def aws(service: str) -> Any:
    """A client of moto in this process."""
    return client(service, REGION)


def reset() -> None:
    """Empty the account."""
    from localaws.control import forget_backends

    forget_backends()


def run(function: Check) -> BaseException | None:
    """What a check ends with in an empty account: nothing, if it passes."""
    reset()
    try:
        function()
    except Exception as failure:
        return failure
    return None


def refused(code: str, method: Callable[..., Any], **params: Any) -> str:
    """The call has to fail with this code; the result is its message."""
    try:
        method(**params)
    except ClientError as failure:
        found = failure.response["Error"]["Code"]
        assert found == code, f"{found} instead of {code}: {failure}"
        return failure.response["Error"]["Message"]
    raise AssertionError(f"not refused with {code}")


def equal(found: Any, wanted: Any) -> None:
    """Both have to be equal."""
    assert found == wanted, f"{found!r} instead of {wanted!r}"


# What checks are made of.


def network(zones: str = "ab") -> tuple[str, list[str], str]:
    """VPC, one subnet in each zone, and a security group."""
    ec2 = aws("ec2")
    vpc = ec2.create_vpc(CidrBlock="127.20.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(
            VpcId=vpc,
            CidrBlock=f"127.20.{index}.0/24",
            AvailabilityZone=REGION + zone,
        )["Subnet"]["SubnetId"]
        for index, zone in enumerate(zones)
    ]
    group = ec2.create_security_group(
        GroupName="weka", Description="weka", VpcId=vpc
    )["GroupId"]
    return vpc, subnets, group


def start(subnet: str, count: int = 1, **params: Any) -> list[str]:
    """Ids of new instances."""
    started = aws("ec2").run_instances(
        ImageId=image(REGION),
        InstanceType="i3en.2xlarge",
        MinCount=count,
        MaxCount=count,
        **({} if "NetworkInterfaces" in params else {"SubnetId": subnet}),
        **params,
    )
    return [instance["InstanceId"] for instance in started["Instances"]]


def described(instance_id: str) -> dict[str, Any]:
    """One instance."""
    found = aws("ec2").describe_instances(InstanceIds=[instance_id])
    return found["Reservations"][0]["Instances"][0]


def template(name: str = "template", **data: Any) -> str:
    """The id of a new launch template."""
    return aws("ec2").create_launch_template(
        LaunchTemplateName=name,
        LaunchTemplateData={
            "ImageId": image(REGION),
            "InstanceType": "i3en.2xlarge",
            **data,
        },
    )["LaunchTemplate"]["LaunchTemplateId"]


def group(
    subnet: str, template_id: str, name: str = "group", size: int = 0, **params: Any
) -> dict[str, Any]:
    """Make an Auto Scaling group; the answer is its description."""
    aws("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName=name,
        VPCZoneIdentifier=subnet,
        LaunchTemplate={"LaunchTemplateId": template_id, "Version": "1"},
        **{"MinSize": 0, "MaxSize": 30, "DesiredCapacity": size, **params},
    )
    return described_group(name)


def described_group(name: str = "group") -> dict[str, Any]:
    """One Auto Scaling group."""
    found = aws("autoscaling").describe_auto_scaling_groups(
        AutoScalingGroupNames=[name]
    )
    return found["AutoScalingGroups"][0]


def members(name: str = "group") -> list[str]:
    """The instances of a group."""
    return [i["InstanceId"] for i in described_group(name)["Instances"]]


def simple_group(**params: Any) -> str:
    """A group called "group"; the answer is its subnet."""
    _, subnets, _ = network()
    group(subnets[0], template(), **params)
    return subnets[0]


def stack(resources: dict[str, Any], name: str = "weka-prod") -> dict[str, str]:
    """Make a stack; the answer is its physical ids by logical ones."""
    formation = aws("cloudformation")
    formation.create_stack(
        StackName=name, TemplateBody=json.dumps({"Resources": resources})
    )
    found = every(
        formation, "list_stack_resources", "StackResourceSummaries", StackName=name
    )
    return {r["LogicalResourceId"]: r["PhysicalResourceId"] for r in found}


def machine(subnet: str, **properties: Any) -> dict[str, Any]:
    """An instance in a stack."""
    return {
        "Type": "AWS::EC2::Instance",
        "Properties": {
            "ImageId": image(REGION),
            "InstanceType": "i3en.2xlarge",
            "SubnetId": subnet,
            **properties,
        },
    }


def api(name: str = "api") -> tuple[str, str]:
    """A REST API with one method, and its deployment."""
    gateway = aws("apigateway")
    made = gateway.create_rest_api(name=name)
    key = {"restApiId": made["id"], "resourceId": made["rootResourceId"]}
    gateway.put_method(**key, httpMethod="GET", authorizationType="NONE")
    gateway.put_integration(**key, httpMethod="GET", type="MOCK")
    return made["id"], gateway.create_deployment(restApiId=made["id"])["id"]


def staged_api() -> str:
    """A REST API with the stage "default"."""
    api_id, deployment = api()
    aws("apigateway").create_stage(
        restApiId=api_id, stageName="default", deploymentId=deployment
    )
    return api_id


def zone(name: str = "example.com") -> str:
    """The id of a new hosted zone."""
    return aws("route53").create_hosted_zone(Name=name, CallerReference=name)[
        "HostedZone"
    ]["Id"]


def change(zone_id: str, action: str, name: str, target: str = "Lb.example.org") -> None:
    """Change one alias record."""
    record = {
        "Name": name,
        "Type": "A",
        "AliasTarget": {
            "HostedZoneId": "Z215JYRZR1TBD5",
            "DNSName": target,
            "EvaluateTargetHealth": False,
        },
    }
    aws("route53").change_resource_record_sets(
        HostedZoneId=zone_id,
        ChangeBatch={"Changes": [{"Action": action, "ResourceRecordSet": record}]},
    )


def balancer(name: str = "lb", **params: Any) -> dict[str, Any]:
    """A new application load balancer."""
    _, subnets, security_group = network()
    return aws("elbv2").create_load_balancer(
        Name=name,
        Subnets=subnets,
        SecurityGroups=[security_group],
        Scheme="internal",
        **params,
    )["LoadBalancers"][0]


def classic(name: str = "classic") -> str:
    """A new classic load balancer; the answer is its subnet."""
    _, subnets, security_group = network()
    aws("elb").create_load_balancer(
        LoadBalancerName=name,
        Listeners=[
            {"Protocol": "HTTP", "LoadBalancerPort": 14000, "InstancePort": 14000}
        ],
        Subnets=subnets[:1],
        SecurityGroups=[security_group],
        Scheme="internal",
    )
    return subnets[0]


def classic_members(name: str = "classic") -> list[str]:
    """The members of a classic load balancer."""
    found = aws("elb").describe_load_balancers(LoadBalancerNames=[name])
    return [
        i["InstanceId"]
        for i in found["LoadBalancerDescriptions"][0]["Instances"]
    ]


def target_group(vpc: str, name: str = "targets", **params: Any) -> str:
    """The ARN of a new target group."""
    return aws("elbv2").create_target_group(
        Name=name, Protocol="HTTP", Port=14000, VpcId=vpc, **params
    )["TargetGroups"][0]["TargetGroupArn"]


# EC2 instances


@check
def run_instances_honours_the_request() -> None:
    _, subnets, security_group = network()
    (instance,) = start(
        subnets[0],
        NetworkInterfaces=[
            {"DeviceIndex": 0, "SubnetId": subnets[0], "Groups": [security_group]}
        ],
        DisableApiTermination=True,
        CpuOptions={"CoreCount": 4, "ThreadsPerCore": 1},
        Placement={"GroupName": "placement"},
        BlockDeviceMappings=[
            {
                "DeviceName": "/dev/sdp",
                "Ebs": {"VolumeSize": 10, "VolumeType": "io1", "Iops": 500},
            }
        ],
    )
    found = described(instance)
    equal(found["CpuOptions"], {"CoreCount": 4, "ThreadsPerCore": 1})
    equal(found["Placement"]["GroupName"], "placement")
    equal([g["GroupId"] for g in found["SecurityGroups"]], [security_group])
    assert "Platform" not in found, found["Platform"]
    protected = aws("ec2").describe_instance_attribute(
        InstanceId=instance, Attribute="disableApiTermination"
    )
    equal(protected["DisableApiTermination"], {"Value": True})
    # The image's own root volume is there as well.
    devices = [b["DeviceName"] for b in found["BlockDeviceMappings"]]
    equal(sorted(devices), ["/dev/sdp", "/dev/xvda"])


@check
def stack_instances_have_all_their_properties() -> None:
    _, subnets, security_group = network()
    ids = stack(
        {
            "Backend": machine(
                subnets[0],
                PrivateIpAddress="127.20.0.10",
                SecurityGroupIds=[security_group],
                MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
                DisableApiTermination=True,
                EbsOptimized=True,
                PlacementGroupName="placement",
                Tenancy="dedicated",
                CpuOptions={"CoreCount": 4, "ThreadsPerCore": 1},
                BlockDeviceMappings=[
                    {
                        "DeviceName": "/dev/sdp",
                        "Ebs": {
                            "VolumeSize": 78,
                            "VolumeType": "gp3",
                            "Iops": 4000,
                            "Throughput": 250,
                        },
                    }
                ],
            )
        }
    )
    found = described(ids["Backend"])
    equal([g["GroupId"] for g in found["SecurityGroups"]], [security_group])
    equal(found["MetadataOptions"]["HttpTokens"], "required")
    equal(found["MetadataOptions"]["HttpPutResponseHopLimit"], 2)
    equal(found["EbsOptimized"], True)
    equal(found["Placement"]["GroupName"], "placement")
    equal(found["Placement"]["Tenancy"], "dedicated")
    equal(found["CpuOptions"]["ThreadsPerCore"], 1)
    equal(found["PrivateIpAddress"], "127.20.0.10")
    volumes = aws("ec2").describe_volumes(
        Filters=[{"Name": "attachment.device", "Values": ["/dev/sdp"]}]
    )["Volumes"]
    equal([(v["Iops"], v["Throughput"]) for v in volumes], [(4000, 250)])


@check
def security_groups_are_those_of_the_first_interface() -> None:
    _, subnets, security_group = network()
    (instance,) = start(subnets[0])
    aws("ec2").modify_instance_attribute(InstanceId=instance, Groups=[security_group])
    found = described(instance)
    of_interface = found["NetworkInterfaces"][0]["Groups"]
    equal(of_interface, found["SecurityGroups"])
    equal([g["GroupId"] for g in of_interface], [security_group])


@check
def one_protected_instance_fails_its_zone() -> None:
    _, subnets, _ = network()
    same = start(subnets[0], 2)
    (other,) = start(subnets[1])
    ec2 = aws("ec2")
    ec2.modify_instance_attribute(
        InstanceId=same[1], DisableApiTermination={"Value": True}
    )
    refused(
        "OperationNotPermitted", ec2.terminate_instances, InstanceIds=[*same, other]
    )
    states = [described(i)["State"]["Name"] for i in (*same, other)]
    equal(states, ["running", "running", "terminated"])


@check
def terminated_instances_lose_what_they_had() -> None:
    _, subnets, _ = network()
    (instance,) = start(subnets[0])
    ec2 = aws("ec2")
    ec2.terminate_instances(InstanceIds=[instance])
    found = described(instance)
    equal(found.get("NetworkInterfaces"), [])
    assert "PrivateIpAddress" not in found, found["PrivateIpAddress"]
    assert "SubnetId" not in found, found["SubnetId"]
    equal(ec2.describe_network_interfaces()["NetworkInterfaces"], [])


@check
def volumes_say_when_they_go() -> None:
    _, subnets, _ = network()
    start(
        subnets[0],
        BlockDeviceMappings=[
            {
                "DeviceName": "/dev/xvda",
                "Ebs": {"VolumeSize": 10, "DeleteOnTermination": True},
            }
        ],
    )
    (volume,) = aws("ec2").describe_volumes()["Volumes"]
    equal(volume["Attachments"][0].get("DeleteOnTermination"), True)


@check
def terminated_instances_have_no_attributes_to_change() -> None:
    _, subnets, _ = network()
    (instance,) = start(subnets[0])
    aws("ec2").terminate_instances(InstanceIds=[instance])
    refused(
        "IncorrectInstanceState",
        aws("ec2").modify_instance_attribute,
        InstanceId=instance,
        DisableApiTermination={"Value": True},
    )


# EC2 apart from instances


@check
def launch_template_tags_are_not_its_data() -> None:
    ec2 = aws("ec2")
    ec2.create_launch_template(
        LaunchTemplateName="template",
        LaunchTemplateData={"ImageId": "ami-1"},
        TagSpecifications=[
            {"ResourceType": "launch-template", "Tags": [{"Key": "a", "Value": "b"}]}
        ],
    )
    (version,) = ec2.describe_launch_template_versions(
        LaunchTemplateName="template"
    )["LaunchTemplateVersions"]
    equal(version["LaunchTemplateData"], {"ImageId": "ami-1"})


@check
def launch_template_tags_can_change() -> None:
    ec2 = aws("ec2")
    template_id = template()
    ec2.create_tags(Resources=[template_id], Tags=[{"Key": "a", "Value": "b"}])
    (found,) = ec2.describe_launch_templates()["LaunchTemplates"]
    equal(found.get("Tags"), [{"Key": "a", "Value": "b"}])


@check
def launch_template_calls_can_be_repeated() -> None:
    request = {
        "LaunchTemplateName": "template",
        "ClientToken": "token",
        "LaunchTemplateData": {"ImageId": "ami-1"},
    }
    ec2 = aws("ec2")
    first, second = (ec2.create_launch_template(**request) for _ in range(2))
    equal(
        first["LaunchTemplate"]["LaunchTemplateId"],
        second["LaunchTemplate"]["LaunchTemplateId"],
    )
    request["LaunchTemplateName"] = "another"
    refused("IdempotentParameterMismatch", ec2.create_launch_template, **request)


@check
def launch_template_versions_keep_user_data() -> None:
    ec2 = aws("ec2")
    template_id = template(KeyName="key")
    ec2.create_launch_template_version(
        LaunchTemplateId=template_id,
        SourceVersion="1",
        LaunchTemplateData={"UserData": "IyEvYmluL3No"},
    )
    _, subnets, _ = network()
    (instance,) = start(
        subnets[0], LaunchTemplate={"LaunchTemplateId": template_id, "Version": "2"}
    )
    equal(described(instance).get("KeyName"), "key")
    found = ec2.describe_instance_attribute(InstanceId=instance, Attribute="userData")
    equal(found["UserData"], {"Value": "IyEvYmluL3No"})


@check
def deleting_a_missing_launch_template_says_so() -> None:
    delete = aws("ec2").delete_launch_template
    refused(
        "InvalidLaunchTemplateName.NotFoundException",
        delete,
        LaunchTemplateName="missing",
    )
    refused(
        "InvalidLaunchTemplateId.NotFound",
        delete,
        LaunchTemplateId="lt-00000000000000000",
    )


@check
def launch_templates_are_listed_in_pages() -> None:
    for number in range(20):
        template(f"template{number:02}")
    ec2 = aws("ec2")
    equal(len(ec2.describe_launch_templates()["LaunchTemplates"]), 20)
    first = ec2.describe_launch_templates(MaxResults=15)
    second = ec2.describe_launch_templates(MaxResults=15, NextToken=first["NextToken"])
    equal(len(second["LaunchTemplates"]), 5)


@check
def launch_template_versions_can_be_deleted() -> None:
    ec2 = aws("ec2")
    key = {"LaunchTemplateId": template()}
    for _ in range(2):
        ec2.create_launch_template_version(**key, LaunchTemplateData={"ImageId": "ami-2"})
    ec2.delete_launch_template_versions(**key, Versions=["2"])
    found = ec2.describe_launch_template_versions(**key)["LaunchTemplateVersions"]
    equal([v["VersionNumber"] for v in found], [1, 3])
    refused(
        "InvalidLaunchTemplateId.VersionNotFound",
        ec2.describe_launch_template_versions,
        **key,
        Versions=["2"],
    )


@check
def interfaces_can_be_told_to_go_with_their_instance() -> None:
    _, subnets, _ = network()
    (instance,) = start(subnets[0])
    ec2 = aws("ec2")
    eni = ec2.create_network_interface(SubnetId=subnets[0])["NetworkInterface"][
        "NetworkInterfaceId"
    ]
    attachment = ec2.attach_network_interface(
        NetworkInterfaceId=eni, InstanceId=instance, DeviceIndex=1
    )["AttachmentId"]
    ec2.modify_network_interface_attribute(
        NetworkInterfaceId=eni,
        Attachment={"AttachmentId": attachment, "DeleteOnTermination": True},
    )
    ec2.terminate_instances(InstanceIds=[instance])
    found = ec2.describe_network_interfaces()["NetworkInterfaces"]
    assert eni not in [n["NetworkInterfaceId"] for n in found]


@check
def without_a_tag_all_are_deleted() -> None:
    _, subnets, _ = network()
    (instance,) = start(subnets[0])
    tags = [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}]
    aws("ec2").create_tags(Resources=[instance], Tags=tags)
    aws("ec2").delete_tags(Resources=[instance], Tags=[{"Key": "a"}])
    equal(described(instance)["Tags"], tags[1:])
    aws("ec2").delete_tags(Resources=[instance])
    equal(described(instance).get("Tags", []), [])


@check
def interfaces_in_use_are_not_deleted() -> None:
    _, subnets, _ = network()
    (instance,) = start(subnets[0])
    (eni,) = described(instance)["NetworkInterfaces"]
    refused(
        "InvalidParameterValue",
        aws("ec2").delete_network_interface,
        NetworkInterfaceId=eni["NetworkInterfaceId"],
    )


@check
def placement_groups_exist() -> None:
    ids = stack(
        {
            "Place": {
                "Type": "AWS::EC2::PlacementGroup",
                "Properties": {"Strategy": "cluster"},
            }
        }
    )
    (found,) = aws("ec2").describe_placement_groups()["PlacementGroups"]
    equal((found["GroupName"], found["Strategy"]), (ids["Place"], "cluster"))


# CloudFormation


@check
def stack_resources_come_in_pages() -> None:
    groups = {f"Group{n}": {"Type": "AWS::Logs::LogGroup"} for n in range(110)}
    formation = aws("cloudformation")
    formation.create_stack(
        StackName="many", TemplateBody=json.dumps({"Resources": groups})
    )
    first = formation.list_stack_resources(StackName="many")
    equal(len(first["StackResourceSummaries"]), 100)
    second = formation.list_stack_resources(
        StackName="many", NextToken=first["NextToken"]
    )
    equal(len(second["StackResourceSummaries"]), 10)


@check
def stack_lists_come_in_pages() -> None:
    for number in range(105):
        aws("cloudformation").create_stack(
            StackName=f"stack{number}",
            TemplateBody='{"Resources": {"G": {"Type": "AWS::Logs::LogGroup"}}}',
        )
    first = aws("cloudformation").list_stacks()
    equal(len(first["StackSummaries"]), 100)
    assert first["NextToken"]


@check
def protected_instances_keep_their_stack() -> None:
    _, subnets, _ = network()
    ids = stack({"Backend": machine(subnets[0])}, name="weka")
    aws("ec2").modify_instance_attribute(
        InstanceId=ids["Backend"], DisableApiTermination={"Value": True}
    )
    formation = aws("cloudformation")
    formation.delete_stack(StackName="weka")
    (found,) = formation.describe_stacks(StackName="weka")["Stacks"]
    equal(found["StackStatus"], "DELETE_FAILED")
    equal(described(ids["Backend"])["State"]["Name"], "running")


@check
def stack_load_balancers_are_in_their_subnets() -> None:
    _, subnets, security_group = network()
    ids = stack(
        {
            "Backend": machine(subnets[0]),
            "LoadBalancer": {
                "Type": "AWS::ElasticLoadBalancing::LoadBalancer",
                "Properties": {
                    "Scheme": "internal",
                    "Subnets": subnets[:1],
                    "SecurityGroups": [security_group],
                    "Listeners": [
                        {
                            "LoadBalancerPort": "14000",
                            "InstancePort": "14000",
                            "Protocol": "HTTP",
                        }
                    ],
                    "Instances": [{"Ref": "Backend"}],
                },
            },
        },
        name="a-name-that-is-rather-long",
    )
    (found,) = aws("elb").describe_load_balancers()["LoadBalancerDescriptions"]
    equal(found["Subnets"], subnets[:1])
    equal(found["SecurityGroups"], [security_group])
    equal(found["Instances"], [{"InstanceId": ids["Backend"]}])
    assert len(found["LoadBalancerName"]) <= 32, found["LoadBalancerName"]


@check
def stack_names_are_cut_in_role_names() -> None:
    policy = json.loads(trust("ec2.amazonaws.com"))
    ids = stack(
        {
            "RoleBackend": {
                "Type": "AWS::IAM::Role",
                "Properties": {"AssumeRolePolicyDocument": policy},
            },
            "InstanceProfileBackend": {
                "Type": "AWS::IAM::InstanceProfile",
                "Properties": {"Roles": [{"Ref": "RoleBackend"}]},
            },
        },
        name="x" * 128,
    )
    assert len(ids["RoleBackend"]) <= 64, ids["RoleBackend"]
    assert len(ids["InstanceProfileBackend"]) <= 128
    assert "InstanceProfileBackend" in ids["InstanceProfileBackend"]


# Load balancers


@check
def load_balancer_names_are_unique() -> None:
    _, subnets, _ = network()
    create = aws("elbv2").create_load_balancer
    first, second = (
        create(Name="lb", Subnets=subnets)["LoadBalancers"][0]["LoadBalancerArn"]
        for _ in range(2)
    )
    equal(first, second)
    refused(
        "DuplicateLoadBalancerName",
        create,
        Name="lb",
        Subnets=subnets,
        Scheme="internal",
    )
    refused("ValidationError", create, Name="one", Subnets=subnets[:1])


@check
def load_balancers_have_addresses_of_their_region() -> None:
    made = balancer()
    assert made["DNSName"].startswith("internal-lb-"), made["DNSName"]
    assert made["DNSName"].endswith(f".{REGION}.elb.amazonaws.com")
    equal(made["CanonicalHostedZoneId"], "Z215JYRZR1TBD5")


@check
def listeners_do_not_share_a_port() -> None:
    made = balancer()
    arn = target_group(made["VpcId"])
    create = aws("elbv2").create_listener
    request: dict[str, Any] = {
        "LoadBalancerArn": made["LoadBalancerArn"],
        "Protocol": "HTTP",
        "Port": 14000,
        "DefaultActions": [{"Type": "forward", "TargetGroupArn": arn}],
    }
    first, second = (create(**request)["Listeners"][0] for _ in range(2))
    equal(first["ListenerArn"], second["ListenerArn"])
    other = target_group(made["VpcId"], "other")
    request["DefaultActions"] = [{"Type": "forward", "TargetGroupArn": other}]
    refused("DuplicateListener", create, **request)


@check
def target_groups_can_be_made_twice() -> None:
    vpc, _, _ = network()
    equal(target_group(vpc), target_group(vpc))
    refused(
        "DuplicateTargetGroupName",
        aws("elbv2").create_target_group,
        Name="targets",
        Protocol="HTTP",
        Port=80,
        VpcId=vpc,
    )


class Healthy(BaseHTTPRequestHandler):
    """A machine that is well."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@check
def targets_are_as_healthy_as_they_answer() -> None:
    vpc, subnets, _ = network()
    server = HTTPServer(("127.20.0.77", 0), Healthy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with socket.create_server(("127.20.0.78", 0)) as unused:
        silent = unused.getsockname()[1]
    arn = target_group(vpc, HealthCheckPath="/")
    (alive,) = start(subnets[0], PrivateIpAddress="127.20.0.77")
    (dead,) = start(subnets[0], PrivateIpAddress="127.20.0.78")
    elb = aws("elbv2")
    made = elb.create_load_balancer(Name="lb", Subnets=subnets)["LoadBalancers"][0]
    elb.create_listener(
        LoadBalancerArn=made["LoadBalancerArn"],
        Protocol="HTTP",
        Port=14000,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": arn}],
    )
    elb.register_targets(
        TargetGroupArn=arn,
        Targets=[
            {"Id": alive, "Port": server.server_port},
            {"Id": dead, "Port": silent},
        ],
    )
    found = {
        health["Target"]["Id"]: health["TargetHealth"]["State"]
        for health in elb.describe_target_health(TargetGroupArn=arn)[
            "TargetHealthDescriptions"
        ]
    }
    server.shutdown()
    server.server_close()
    equal(found, {alive: "healthy", dead: "unhealthy"})


@check
def tags_of_missing_load_balancers_are_an_error() -> None:
    arn = balancer()["LoadBalancerArn"]
    refused("LoadBalancerNotFound", aws("elbv2").describe_tags, ResourceArns=[arn + "0"])


@check
def classic_registration_answers_with_the_members() -> None:
    ids = start(classic(), 2)
    elb = aws("elb")
    request = {
        "LoadBalancerName": "classic",
        "Instances": [{"InstanceId": i} for i in ids],
    }
    elb.register_instances_with_load_balancer(**request)
    answer = elb.register_instances_with_load_balancer(**request)["Instances"]
    equal([i["InstanceId"] for i in answer], ids)
    answer = elb.deregister_instances_from_load_balancer(
        LoadBalancerName="classic", Instances=[{"InstanceId": ids[0]}]
    )["Instances"]
    equal(answer, [{"InstanceId": ids[1]}])


@check
def terminated_instances_leave_classic_load_balancers() -> None:
    ids = start(classic())
    aws("elb").register_instances_with_load_balancer(
        LoadBalancerName="classic", Instances=[{"InstanceId": i} for i in ids]
    )
    aws("ec2").terminate_instances(InstanceIds=ids)
    equal(classic_members(), [])


@check
def classic_load_balancers_come_in_pages() -> None:
    _, subnets, security_group = network()
    for number in range(60):
        aws("elb").create_load_balancer(
            LoadBalancerName=f"classic{number}",
            Listeners=[
                {"Protocol": "HTTP", "LoadBalancerPort": 80, "InstancePort": 80}
            ],
            Subnets=subnets[:1],
            SecurityGroups=[security_group],
        )
    found = aws("elb").describe_load_balancers()
    equal(len(found["LoadBalancerDescriptions"]), 60)


# Auto Scaling


@check
def group_names_are_unique() -> None:
    subnet = simple_group()
    refused(
        "AlreadyExists",
        aws("autoscaling").create_auto_scaling_group,
        AutoScalingGroupName="group",
        MinSize=0,
        MaxSize=1,
        VPCZoneIdentifier=subnet,
        LaunchTemplate={"LaunchTemplateName": "template", "Version": "1"},
    )


@check
def group_sizes_are_limits() -> None:
    simple_group(MinSize=1, MaxSize=3, size=1)
    scaling = aws("autoscaling")
    key = {"AutoScalingGroupName": "group"}
    for wrong in (0, 4):
        refused(
            "ValidationError", scaling.set_desired_capacity, **key, DesiredCapacity=wrong
        )
    refused("ValidationError", scaling.update_auto_scaling_group, **key, MinSize=4)
    scaling.update_auto_scaling_group(**key, MinSize=2)
    equal(described_group()["DesiredCapacity"], 2)


@check
def group_attributes_are_kept() -> None:
    simple_group(DeletionProtection="prevent-force-deletion", DefaultCooldown=10)
    found = described_group()
    equal(found.get("DeletionProtection"), "prevent-force-deletion")
    aws("autoscaling").update_auto_scaling_group(
        AutoScalingGroupName="group", DeletionProtection="none", DefaultCooldown=20
    )
    found = described_group()
    equal((found["DeletionProtection"], found["DefaultCooldown"]), ("none", 20))


@check
def launch_templates_of_a_group_must_exist() -> None:
    _, subnets, _ = network()
    create = aws("autoscaling").create_auto_scaling_group
    request = {
        "AutoScalingGroupName": "group",
        "MinSize": 0,
        "MaxSize": 1,
        "VPCZoneIdentifier": subnets[0],
    }
    refused(
        "ValidationError",
        create,
        **request,
        LaunchTemplate={"LaunchTemplateId": "lt-00000000000000000", "Version": "1"},
    )
    refused(
        "ValidationError",
        create,
        **request,
        LaunchTemplate={"LaunchTemplateId": template(), "Version": "7"},
    )
    known = template("known")
    aws("ec2").deregister_image(ImageId=image(REGION))
    refused(
        "ValidationError",
        create,
        **request,
        LaunchTemplate={"LaunchTemplateId": known, "Version": "1"},
    )


@check
def attaching_has_its_rules() -> None:
    subnet = simple_group(MaxSize=25)
    group(subnet, template("second"), name="second")
    attach = aws("autoscaling").attach_instances
    ids = start(subnet, 26)
    key = {"AutoScalingGroupName": "group"}
    refused("ValidationError", attach, **key, InstanceIds=ids[:21])
    attach(**key, InstanceIds=ids[:20])
    equal(described_group()["DesiredCapacity"], 20)
    refused("ValidationError", attach, **key, InstanceIds=ids[:1])
    refused("ValidationError", attach, **key, InstanceIds=ids[20:26])
    refused(
        "ValidationError",
        attach,
        AutoScalingGroupName="second",
        InstanceIds=ids[:1],
    )
    aws("ec2").stop_instances(InstanceIds=ids[20:21])
    refused("ValidationError", attach, **key, InstanceIds=ids[20:21])
    refused("ValidationError", attach, **key, InstanceIds=["i-00000000000000000"])


@check
def detaching_has_its_rules() -> None:
    subnet = simple_group(MinSize=1, size=1)
    group(subnet, template("second"), name="second")
    scaling = aws("autoscaling")
    ids = start(subnet, 2)
    scaling.attach_instances(AutoScalingGroupName="group", InstanceIds=ids)
    request = {
        "AutoScalingGroupName": "group",
        "ShouldDecrementDesiredCapacity": True,
    }
    refused(
        "ValidationError",
        scaling.detach_instances,
        **request,
        InstanceIds=["i-00000000000000000"],
    )
    refused(
        "ValidationError", scaling.detach_instances, **request, InstanceIds=members()
    )
    scaling.detach_instances(**request, InstanceIds=ids)
    equal(described_group()["DesiredCapacity"], 1)
    scaling.attach_instances(AutoScalingGroupName="second", InstanceIds=ids)
    tags = {t["Key"]: t["Value"] for t in described(ids[0])["Tags"]}
    equal(tags["aws:autoscaling:groupName"], "second")
    equal(
        scaling.describe_auto_scaling_instances(InstanceIds=ids[:1])[
            "AutoScalingInstances"
        ][0]["AutoScalingGroupName"],
        "second",
    )


@check
def members_know_their_own_launch_template() -> None:
    subnet = simple_group(size=1)
    (attached,) = start(subnet)
    aws("autoscaling").attach_instances(
        AutoScalingGroupName="group", InstanceIds=[attached]
    )
    found = {
        i["InstanceId"]: i.get("LaunchTemplate") for i in described_group()["Instances"]
    }
    equal(found.pop(attached), None)
    (launched,) = found.values()
    equal((launched or {}).get("Version"), "1")


@check
def groups_launch_what_their_template_says() -> None:
    _, subnets, security_group = network()
    template_id = template(
        DisableApiTermination=True,
        MetadataOptions={"HttpTokens": "required"},
        CpuOptions={"CoreCount": 4, "ThreadsPerCore": 1},
        NetworkInterfaces=[
            {
                "DeviceIndex": 0,
                "Groups": [security_group],
                "AssociatePublicIpAddress": True,
            }
        ],
        BlockDeviceMappings=[
            {
                "DeviceName": "/dev/xvda",
                "Ebs": {"VolumeSize": 20, "VolumeType": "io2", "Iops": 1000},
            }
        ],
        TagSpecifications=[
            {"ResourceType": kind, "Tags": [{"Key": "a", "Value": kind}]}
            for kind in ("instance", "volume")
        ],
    )
    group(",".join(subnets), template_id, size=2)
    found = [described(member) for member in members()]
    equal(sorted(i["SubnetId"] for i in found), sorted(subnets))
    for instance in found:
        equal([g["GroupId"] for g in instance["SecurityGroups"]], [security_group])
        equal(instance["MetadataOptions"]["HttpTokens"], "required")
        assert instance.get("PublicIpAddress")
        tags = {t["Key"]: t["Value"] for t in instance["Tags"]}
        equal((tags["a"], tags["aws:ec2launchtemplate:version"]), ("instance", "1"))
    volumes = aws("ec2").describe_volumes()["Volumes"]
    equal([(v["Size"], v["VolumeType"], v["Iops"]) for v in volumes], [(20, "io2", 1000)] * 2)
    equal([v["Tags"] for v in volumes], [[{"Key": "a", "Value": "volume"}]] * 2)


@check
def scaling_keeps_its_order() -> None:
    _, subnets, _ = network()
    group(subnets[0], template(DisableApiTermination=True), size=6)
    before = members()
    aws("autoscaling").set_desired_capacity(
        AutoScalingGroupName="group", DesiredCapacity=4
    )
    after = members()
    equal(after, [i for i in before if i in after])
    gone = [i for i in before if i not in after]
    equal([described(i)["State"]["Name"] for i in gone], ["terminated"] * 2)
    aws("autoscaling").suspend_processes(
        AutoScalingGroupName="group", ScalingProcesses=["Launch"]
    )
    aws("autoscaling").set_desired_capacity(
        AutoScalingGroupName="group", DesiredCapacity=6
    )
    equal(members(), after)


@check
def members_can_be_terminated_through_the_group() -> None:
    simple_group(MinSize=1, size=2)
    terminate = aws("autoscaling").terminate_instance_in_auto_scaling_group
    first, second = members()
    aws("ec2").modify_instance_attribute(
        InstanceId=first, DisableApiTermination={"Value": True}
    )
    terminate(InstanceId=first, ShouldDecrementDesiredCapacity=True)
    equal((members(), described_group()["DesiredCapacity"]), ([second], 1))
    refused(
        "ValidationError",
        terminate,
        InstanceId=second,
        ShouldDecrementDesiredCapacity=True,
    )
    refused(
        "ValidationError",
        terminate,
        InstanceId="i-00000000000000000",
        ShouldDecrementDesiredCapacity=True,
    )


@check
def deleting_a_group_needs_it_empty_or_force() -> None:
    simple_group(
        size=2,
        MinSize=1,
        NewInstancesProtectedFromScaleIn=True,
        DeletionProtection="prevent-force-deletion",
    )
    ids = members()
    scaling = aws("autoscaling")
    key = {"AutoScalingGroupName": "group"}
    refused("ResourceInUse", scaling.delete_auto_scaling_group, **key)
    refused(
        "ValidationError", scaling.delete_auto_scaling_group, **key, ForceDelete=True
    )
    scaling.update_auto_scaling_group(**key, DeletionProtection="none")
    scaling.delete_auto_scaling_group(**key, ForceDelete=True)
    equal(scaling.describe_auto_scaling_groups()["AutoScalingGroups"], [])
    equal([described(i)["State"]["Name"] for i in ids], ["terminated"] * 2)


@check
def dead_members_wait_for_their_process() -> None:
    simple_group(size=2)
    aws("autoscaling").suspend_processes(
        AutoScalingGroupName="group", ScalingProcesses=["ReplaceUnhealthy"]
    )
    before = members()
    aws("ec2").terminate_instances(InstanceIds=before[:1])
    equal(members(), before)
    found = described_group()["Instances"]
    equal([i["HealthStatus"] for i in found], ["Unhealthy", "Healthy"])


@check
def standby_has_its_rules() -> None:
    simple_group(MinSize=1, MaxSize=3, size=3)
    scaling = aws("autoscaling")
    first, second, third = members()
    key = {"AutoScalingGroupName": "group"}
    enter = {**key, "ShouldDecrementDesiredCapacity": True}
    refused(
        "ValidationError",
        scaling.enter_standby,
        **enter,
        InstanceIds=["i-00000000000000000"],
    )
    refused("ValidationError", scaling.enter_standby, **enter, InstanceIds=members())
    scaling.enter_standby(**enter, InstanceIds=[first])
    refused("ValidationError", scaling.enter_standby, **enter, InstanceIds=[first])
    refused("ValidationError", scaling.exit_standby, **key, InstanceIds=[second])
    # Only members in service count and can go.
    scaling.set_desired_capacity(**key, DesiredCapacity=1)
    states = {i["InstanceId"]: i["LifecycleState"] for i in described_group()["Instances"]}
    equal(states, {first: "Standby", third: "InService"})
    scaling.exit_standby(**key, InstanceIds=[first])
    equal(described_group()["DesiredCapacity"], 2)


@check
def groups_are_made_in_universal_time() -> None:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    try:
        simple_group()
        made = described_group()["CreatedTime"].timestamp()
    finally:
        os.environ.pop("TZ")
        if before is not None:
            os.environ["TZ"] = before
        time.tzset()
    assert abs(made - time.time()) < 60, made


@check
def instances_can_be_refreshed() -> None:
    simple_group(size=2)
    scaling = aws("autoscaling")
    key = {"AutoScalingGroupName": "group"}
    before = members()
    scaling.set_instance_protection(
        **key, InstanceIds=before[:1], ProtectedFromScaleIn=True
    )
    assert scaling.start_instance_refresh(**key)["InstanceRefreshId"]
    from localaws import groups

    for _ in range(3):
        groups.look_after()
    equal(members()[:1], before[:1])
    equal((len(members()), before[1] in members()), (2, False))


@check
def protection_is_set_for_fifty_members() -> None:
    simple_group(size=1)
    protect = aws("autoscaling").set_instance_protection
    key = {"AutoScalingGroupName": "group", "ProtectedFromScaleIn": True}
    refused("ValidationError", protect, **key, InstanceIds=members() * 51)
    refused("ValidationError", protect, **key, InstanceIds=["i-00000000000000000"])
    protect(**key, InstanceIds=members())
    equal(described_group()["Instances"][0]["ProtectedFromScaleIn"], True)


@check
def activities_are_recorded() -> None:
    subnet = simple_group(size=1)
    ids = start(subnet)
    scaling = aws("autoscaling")
    scaling.attach_instances(AutoScalingGroupName="group", InstanceIds=ids)
    found = scaling.describe_scaling_activities(AutoScalingGroupName="group")
    texts = [activity["Description"].split(":")[0] for activity in found["Activities"]]
    equal(texts, ["Attaching an existing EC2 instance", "Launching a new EC2 instance"])


@check
def missing_groups_are_validation_errors() -> None:
    scaling = aws("autoscaling")
    key = {"AutoScalingGroupName": "missing"}
    refused("ValidationError", scaling.suspend_processes, **key)
    refused("ValidationError", scaling.resume_processes, **key)
    refused("ValidationError", scaling.describe_load_balancers, **key)
    refused(
        "ValidationError",
        scaling.create_or_update_tags,
        Tags=[{"ResourceId": "missing", "Key": "a", "Value": "b"}],
    )


@check
def suspended_processes_are_in_order() -> None:
    simple_group()
    names = ["Terminate", "Launch", "ReplaceUnhealthy", "AZRebalance", "InstanceRefresh"]
    for name in names:
        aws("autoscaling").suspend_processes(
            AutoScalingGroupName="group", ScalingProcesses=[name]
        )
    found = described_group()["SuspendedProcesses"]
    equal([p["ProcessName"] for p in found], sorted(names))


@check
def classic_load_balancers_of_a_group_exist() -> None:
    subnet = classic("one")
    group(subnet, template(), size=1)
    scaling = aws("autoscaling")
    key = {"AutoScalingGroupName": "group"}
    refused(
        "ValidationError",
        scaling.attach_load_balancers,
        **key,
        LoadBalancerNames=["missing"],
    )
    scaling.attach_load_balancers(**key, LoadBalancerNames=["one"])
    equal(classic_members("one"), members())
    refused(
        "ValidationError",
        scaling.attach_load_balancer_target_groups,
        **key,
        TargetGroupARNs=[
            f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:targetgroup/x/0"
        ],
    )
    scaling.detach_load_balancers(**key, LoadBalancerNames=["one"])
    equal(classic_members("one"), [])


@check
def members_are_registered_once() -> None:
    subnet = classic()
    group(subnet, template(), LoadBalancerNames=["classic"])
    ids = start(subnet, 2)
    aws("elb").register_instances_with_load_balancer(
        LoadBalancerName="classic", Instances=[{"InstanceId": i} for i in ids]
    )
    scaling = aws("autoscaling")
    scaling.attach_instances(AutoScalingGroupName="group", InstanceIds=ids)
    equal(classic_members(), ids)
    scaling.detach_instances(
        AutoScalingGroupName="group",
        InstanceIds=ids[:1],
        ShouldDecrementDesiredCapacity=True,
    )
    equal(classic_members(), ids[1:])


@check
def group_lists_come_in_pages() -> None:
    simple_group(MaxSize=60, size=60)
    scaling = aws("autoscaling")
    first = scaling.describe_auto_scaling_instances()
    equal(len(first["AutoScalingInstances"]), 50)
    second = scaling.describe_auto_scaling_instances(NextToken=first["NextToken"])
    equal(len(second["AutoScalingInstances"]), 10)


# API Gateway

PRIVATE_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": "*",
            "Action": "execute-api:Invoke",
            "Resource": "execute-api:/*",
        }
    ],
}


def body(**more: Any) -> bytes:
    """An OpenAPI document with one method that needs an API key."""
    return json.dumps(
        {
            "openapi": "3.0.1",
            "info": {"title": "titled", "version": "1"},
            "paths": {
                "/join": {
                    "get": {
                        "security": [{"api_key": []}],
                        "responses": {"200": {"description": "ok"}},
                        "x-amazon-apigateway-integration": {
                            "type": "aws_proxy",
                            "httpMethod": "POST",
                            "uri": f"arn:aws:apigateway:{REGION}:lambda:path/2015-03-31/functions/arn:aws:lambda:{REGION}:{ACCOUNT}:function:join/invocations",
                        },
                    }
                }
            },
            "components": {
                "securitySchemes": {
                    "api_key": {"type": "apiKey", "name": "x-api-key", "in": "header"}
                }
            },
            **more,
        }
    ).encode()


@check
def api_policies_come_back_escaped_and_expanded() -> None:
    gateway = aws("apigateway")
    made = gateway.create_rest_api(name="api", policy=json.dumps(PRIVATE_POLICY))
    policy = gateway.get_rest_api(restApiId=made["id"])["policy"]
    assert policy.startswith('{\\"Version\\":'), policy
    read = json.loads(policy.replace('\\"', '"'))
    arn = f"arn:aws:execute-api:{REGION}:{ACCOUNT}:{made['id']}/*"
    equal(read["Statement"][0]["Resource"], arn)


@check
def api_documents_are_read_wholly() -> None:
    gateway = aws("apigateway")
    key = {"restApiId": gateway.create_rest_api(name="api")["id"]}
    gateway.put_rest_api(
        **key,
        mode="overwrite",
        failOnWarnings=True,
        body=body(**{"x-amazon-apigateway-policy": PRIVATE_POLICY}),
    )
    found = gateway.get_rest_api(**key)
    equal(found["name"], "titled")
    assert "policy" in found
    items = gateway.get_resources(**key, embed=["methods"])["items"]
    (resource,) = (i for i in items if i["path"] == "/join")
    method = resource["resourceMethods"]["GET"]
    equal((method["apiKeyRequired"], method["authorizationType"]), (True, "NONE"))
    refused("NotFoundException", gateway.put_rest_api, restApiId="missing", body=body())


@check
def deleting_what_is_not_there_is_not_found() -> None:
    gateway = aws("apigateway")
    refused("NotFoundException", gateway.delete_rest_api, restApiId="missing")
    refused("NotFoundException", gateway.delete_usage_plan, usagePlanId="missing")


@check
def deleting_answers_202_and_nothing() -> None:
    gateway = aws("apigateway")
    made = gateway.create_rest_api(name="api")
    answer = gateway.delete_rest_api(restApiId=made["id"])
    equal(answer["ResponseMetadata"]["HTTPStatusCode"], 202)


@check
def usage_plans_and_their_stages_belong_together() -> None:
    gateway = aws("apigateway")
    stages = [{"apiId": staged_api(), "stage": "default"}]
    refused(
        "BadRequestException",
        gateway.create_usage_plan,
        name="plan",
        apiStages=[{"apiId": stages[0]["apiId"], "stage": "missing"}],
    )
    plan = gateway.create_usage_plan(name="plan", apiStages=stages)["id"]
    refused("BadRequestException", gateway.delete_usage_plan, usagePlanId=plan)
    gateway.delete_rest_api(restApiId=stages[0]["apiId"])
    equal(gateway.get_usage_plan(usagePlanId=plan)["apiStages"], [])
    gateway.delete_usage_plan(usagePlanId=plan)


@check
def a_key_is_in_a_plan_once() -> None:
    gateway = aws("apigateway")
    request = {
        "usagePlanId": gateway.create_usage_plan(name="plan")["id"],
        "keyId": gateway.create_api_key(name="key")["id"],
        "keyType": "API_KEY",
    }
    gateway.create_usage_plan_key(**request)
    refused("ConflictException", gateway.create_usage_plan_key, **request)


@check
def deployments_in_use_are_not_deleted() -> None:
    gateway = aws("apigateway")
    api_id, deployment = api()
    key = {"restApiId": api_id, "deploymentId": deployment}
    gateway.create_stage(**key, stageName="default")
    refused("BadRequestException", gateway.delete_deployment, **key)


@check
def api_stages_need_their_deployment() -> None:
    gateway = aws("apigateway")
    api_id, deployment = api()
    refused(
        "BadRequestException",
        gateway.create_stage,
        restApiId=api_id,
        stageName="default",
        deploymentId="missing",
    )
    gateway.create_stage(
        restApiId=api_id, stageName="default", deploymentId=deployment
    )
    refused(
        "NotFoundException",
        gateway.update_stage,
        restApiId=api_id,
        stageName="default",
        patchOperations=[
            {"op": "replace", "path": "/deploymentId", "value": "missing"}
        ],
    )


@check
def everything_of_an_api_is_tagged_by_arn() -> None:
    gateway = aws("apigateway")
    prefix = f"arn:aws:apigateway:{REGION}::"
    api_id = staged_api()
    key = gateway.create_api_key(name="key")["id"]
    plan = gateway.create_usage_plan(name="plan")["id"]
    for arn in (
        f"{prefix}/restapis/{api_id}",
        f"{prefix}/restapis/{api_id}/stages/default",
        f"{prefix}/apikeys/{key}",
        f"{prefix}/usageplans/{plan}",
    ):
        gateway.tag_resource(resourceArn=arn, tags={"a": "b", "c": "d"})
        gateway.untag_resource(resourceArn=arn, tagKeys=["c"])
        equal(gateway.get_tags(resourceArn=arn)["tags"], {"a": "b"})


@check
def api_lists_come_in_pages() -> None:
    gateway = aws("apigateway")
    for number in range(30):
        gateway.create_api_key(name=f"key{number}")
        gateway.create_rest_api(name=f"api{number}")
    for method in (gateway.get_api_keys, gateway.get_rest_apis):
        first = method()
        equal(len(first["items"]), 25)
        equal(len(method(position=first["position"])["items"]), 5)
        equal(len(method(limit=500)["items"]), 30)


@check
def methods_are_embedded_only_when_asked() -> None:
    gateway = aws("apigateway")
    api_id, _ = api()
    (root,) = gateway.get_resources(restApiId=api_id)["items"]
    equal(root["resourceMethods"], {"GET": {}})


@check
def api_endpoints_have_an_address_type() -> None:
    made = aws("apigateway").create_rest_api(
        name="api", endpointConfiguration={"types": ["REGIONAL"]}
    )
    equal(
        made["endpointConfiguration"], {"types": ["REGIONAL"], "ipAddressType": "ipv4"}
    )


# Lambda


def function(name: str = "function", **params: Any) -> dict[str, Any]:
    """A new function."""
    role = make_role(f"role-{name}", "/", {})
    return aws("lambda").create_function(
        FunctionName=name,
        Runtime="provided.al2023",
        Role=role,
        Handler="bootstrap",
        Code={"ZipFile": package()},
        **params,
    )


@check
def permission_statements_are_unique() -> None:
    function()
    request = {
        "FunctionName": "function",
        "StatementId": "api",
        "Action": "lambda:InvokeFunction",
        "Principal": "apigateway.amazonaws.com",
    }
    aws("lambda").add_permission(**request)
    refused("ResourceConflictException", aws("lambda").add_permission, **request)


@check
def function_lists_come_in_pages() -> None:
    role = make_role("role", "/", {})
    for number in range(60):
        make_function(REGION, f"function{number}", {}, role)
    first = aws("lambda").list_functions()
    equal(len(first["Functions"]), 50)
    second = aws("lambda").list_functions(Marker=first["NextMarker"])
    equal(len(second["Functions"]), 10)


@check
def functions_log_where_they_are_told() -> None:
    made = function(LoggingConfig={"LogGroup": "/elsewhere"})
    equal(made["LoggingConfig"], {"LogFormat": "Text", "LogGroup": "/elsewhere"})
    aws("lambda").update_function_configuration(
        FunctionName="function", LoggingConfig={"LogFormat": "JSON"}
    )
    found = aws("lambda").get_function_configuration(FunctionName="function")
    equal(found["LoggingConfig"]["LogFormat"], "JSON")


@check
def missing_layer_versions_are_deleted_quietly() -> None:
    aws("lambda").delete_layer_version(LayerName="missing", VersionNumber=1)


@check
def layer_versions_exist_for_a_function() -> None:
    refused(
        "InvalidParameterValueException",
        function,
        Layers=[f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:missing:1"],
    )


# KMS and DynamoDB


@check
def keys_pending_deletion_are_not_usable() -> None:
    kms = aws("kms")
    key = make_key(REGION, {}, "alias")
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    state = "KMSInvalidStateException"
    refused(state, kms.schedule_key_deletion, KeyId=key)
    refused(state, kms.enable_key_rotation, KeyId=key)
    refused(state, kms.create_alias, AliasName="alias/new", TargetKeyId=key)
    refused(state, kms.encrypt, KeyId="alias/alias", Plaintext=b"text")
    refused(
        state, kms.tag_resource, KeyId=key, Tags=[{"TagKey": "a", "TagValue": "b"}]
    )
    kms.update_alias(AliasName="alias/alias", TargetKeyId=make_key(REGION, {}))


@check
def scheduled_deletions_are_described() -> None:
    key = make_key(REGION, {})
    answer = aws("kms").schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    equal(answer["KeyId"], f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{key}")
    equal(answer["KeyState"], "PendingDeletion")


@check
def key_lists_come_in_pages() -> None:
    key = make_key(REGION, {})
    for number in range(60):
        aws("kms").create_alias(AliasName=f"alias/a{number}", TargetKeyId=key)
    first = aws("kms").list_aliases(KeyId=key)
    equal((len(first["Aliases"]), first["Truncated"]), (50, True))
    second = aws("kms").list_aliases(KeyId=key, Marker=first["NextMarker"])
    equal((len(second["Aliases"]), second["Truncated"]), (10, False))


@check
def symmetric_keys_are_made_at_once() -> None:
    from moto.kms.models import kms_backends

    key = make_key(REGION, {})
    equal(kms_backends[ACCOUNT][REGION].keys[key].private_key, None)


def table(name: str, key: str) -> dict[str, Any]:
    """A new table under a key."""
    return aws("dynamodb").create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": "Key", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "Key", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
        SSESpecification={"Enabled": True, "SSEType": "KMS", "KMSMasterKeyId": key},
    )["TableDescription"]


@check
def tables_name_their_key_by_its_arn() -> None:
    key = make_key(REGION, {}, "alias")
    arn = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{key}"
    equal(table("by-id", key)["SSEDescription"]["KMSMasterKeyArn"], arn)
    table("by-alias", "alias/alias")
    found = aws("dynamodb").describe_table(TableName="by-alias")["Table"]
    equal(found["SSEDescription"]["KMSMasterKeyArn"], arn)


@check
def deleted_tables_are_deleting() -> None:
    table("table", make_key(REGION, {}))
    answer = aws("dynamodb").delete_table(TableName="table")
    equal(answer["TableDescription"]["TableStatus"], "DELETING")


@check
def tables_need_a_key_that_works() -> None:
    key = make_key(REGION, {})
    aws("kms").schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    refused("ValidationException", table, name="table", key=key)


# Route 53


@check
def names_are_in_their_own_form() -> None:
    zone_id = zone("Example.com")
    change(zone_id, "CREATE", "*.Weka.Example.com", "Lb.Example.org")
    found = aws("route53").list_resource_record_sets(HostedZoneId=zone_id)
    (record,) = (r for r in found["ResourceRecordSets"] if r["Type"] == "A")
    equal(record["Name"], "\\052.weka.example.com.")
    equal(record["AliasTarget"]["DNSName"], "lb.example.org.")
    found = aws("route53").get_hosted_zone(Id=zone_id)
    equal(found["HostedZone"]["Name"], "example.com.")


@check
def changes_are_checked() -> None:
    zone_id = zone()
    change(zone_id, "CREATE", "weka.example.com")
    code = "InvalidChangeBatch"
    for action, name, target in (
        ("CREATE", "Weka.example.com.", "other.example.org"),
        ("CREATE", "weka.notexample.com", "lb.example.org"),
        ("DELETE", "weka.example.com", "other.example.org"),
        ("DELETE", "missing.example.com", "lb.example.org"),
    ):
        refused(
            code, change, zone_id=zone_id, action=action, name=name, target=target
        )
    change(zone_id, "DELETE", "weka.example.com", "lb.example.org.")


# Step Functions and EventBridge


@check
def state_machines_are_not_made_twice() -> None:
    arn = make_machine(REGION, "machine", {})
    equal(make_machine(REGION, "machine", {}), arn)
    refused(
        "StateMachineAlreadyExists",
        aws("stepfunctions").create_state_machine,
        name="machine",
        definition='{"StartAt": "A", "States": {"A": {"Type": "Fail"}}}',
        roleArn=make_role("other", "/", {}),
    )


@check
def executions_end_at_once() -> None:
    from moto.stepfunctions.parser.api import ExecutionStatus
    from moto.stepfunctions.parser.asl.eval.program_state import ProgramError
    from moto.stepfunctions.parser.backend.execution import (
        BaseExecutionWorkerCommunication,
    )

    seen = []

    class Execution:
        """Notes what can be seen of it when its status changes."""

        error = cause = output = stop_date = None
        exec_status = ExecutionStatus.RUNNING

        def __setattr__(self, name: str, value: Any) -> None:
            if name == "exec_status" and self is execution:
                seen.append((value.value, self.error, self.cause))
            super().__setattr__(name, value)

    execution = Execution()
    state = ProgramError({"error": "Why", "cause": "Because"})
    env = SimpleNamespace(program_state=lambda: state)
    execution.exec_worker = SimpleNamespace(env=env)
    BaseExecutionWorkerCommunication(execution).terminated()
    equal(seen, [("FAILED", "Why", "Because")])


@check
def rules_keep_their_tags() -> None:
    events = aws("events")
    for value in ("first", "second"):
        rule = events.put_rule(
            Name="rule",
            ScheduleExpression="rate(1 minute)",
            Tags=[{"Key": "a", "Value": value}],
        )["RuleArn"]
    tags = events.list_tags_for_resource(ResourceARN=rule)["Tags"]
    equal(tags, [{"Key": "a", "Value": "first"}])


# The tagging API


@check
def tagged_resources_are_complete() -> None:
    tags = [{"Key": "cluster", "Value": "C"}]
    aws("events").put_rule(
        Name="rule", ScheduleExpression="rate(1 minute)", Tags=tags
    )
    aws("apigateway").create_rest_api(name="api", tags={"cluster": "C"})
    aws("apigateway").create_api_key(name="key", tags={"cluster": "C"})
    aws("apigateway").create_usage_plan(name="plan", tags={"cluster": "C"})
    aws("ec2").create_launch_template(
        LaunchTemplateName="template",
        LaunchTemplateData={"ImageId": "ami-1"},
        TagSpecifications=[{"ResourceType": "launch-template", "Tags": tags}],
    )
    made = balancer()
    aws("elbv2").create_listener(
        LoadBalancerArn=made["LoadBalancerArn"],
        Protocol="HTTP",
        Port=80,
        DefaultActions=[
            {"Type": "forward", "TargetGroupArn": target_group(made["VpcId"])}
        ],
        Tags=tags,
    )
    aws("logs").create_log_group(logGroupName="group", tags={"cluster": "C"})
    # Not known to AWS's tagging API either.
    aws("iam").create_role(
        RoleName="role",
        AssumeRolePolicyDocument=trust("lambda.amazonaws.com"),
        Tags=tags,
    )
    tagging = aws("resourcegroupstaggingapi")
    found = tagging.get_resources(TagFilters=[{"Key": "cluster", "Values": ["C"]}])
    kinds = sorted(
        r["ResourceARN"].split(":")[2] + ":" + r["ResourceARN"].split(":", 5)[5].lstrip("/").split("/")[0]
        for r in found["ResourceTagMappingList"]
    )
    equal(
        kinds,
        [
            "apigateway:apikeys",
            "apigateway:restapis",
            "apigateway:usageplans",
            "ec2:launch-template",
            "elasticloadbalancing:listener",
            "events:rule",
            "logs:log-group:group",
        ],
    )
    found = tagging.get_resources(ResourceTypeFilters=["logs:log-group"])
    equal(len(found["ResourceTagMappingList"]), 1)


@check
def tagged_resources_come_in_pages_of_resources() -> None:
    tags = {f"key{number}": "value" for number in range(10)}
    for number in range(30):
        aws("logs").create_log_group(logGroupName=f"group{number}", tags=tags)
    found = aws("resourcegroupstaggingapi").get_resources(ResourcesPerPage=100)
    equal(len(found["ResourceTagMappingList"]), 30)
    equal(found["PaginationToken"], "")


# The test itself


def setUpModule() -> None:
    """See moto as it is, then with all fixups."""
    # What unpatched moto complains about is what the checks are for.
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for name, function_ in checks.items():
        without_fixups[name] = run(function_)
    from localaws import fixups

    fixups.apply()


class Fixups(unittest.TestCase):
    """One test for every fixup, made below."""

    def test_every_fixup_has_a_check(self) -> None:
        """A fixup without a check can not be told to be needed."""
        from localaws import fixups

        self.assertEqual(sorted(checks), sorted(fixups.FIXUPS))

    def one(self, name: str) -> None:
        """The check fails without fixups and passes with them."""
        failure = run(checks[name])
        if failure is not None:
            raise failure
        if without_fixups[name] is None:
            self.fail(
                f"moto behaves like AWS by itself: drop the fixup {name}() in "
                "localaws/fixups/, and its check here"
            )


class Rates(unittest.TestCase):
    """Buckets of calls, and of what is in them."""

    def setUp(self) -> None:
        """Start with full buckets."""
        from localaws import rates
        from localaws.settings import settings

        rates.forget()
        settings.rates = 1
        self.addCleanup(setattr, settings, "rates", 0)

    def taken(self, operation: str, **params: Any) -> int:
        """How often AWS takes such a call before it throttles."""
        from localaws import rates
        from localaws.wire import Refusal

        call = SimpleNamespace(
            service="ec2", operation=operation, region=REGION, params=params
        )
        for taken in range(10_000):
            try:
                rates.check(call)
            except Refusal as refusal:
                self.assertEqual(refusal.code, "RequestLimitExceeded")
                return taken
        return -1

    def test_termination_counts_calls_and_instances(self) -> None:
        """Two buckets, and the one that is empty first decides."""
        from localaws import rates
        from localaws.settings import settings

        self.assertEqual(self.taken("TerminateInstances", InstanceIds=["i"]), 100)
        rates.forget()
        many = ["i"] * 400
        self.assertEqual(self.taken("TerminateInstances", InstanceIds=many), 2)
        rates.forget()
        settings.rates = 2
        self.assertEqual(self.taken("TerminateInstances", InstanceIds=many), 5)

    def test_others_count_calls(self) -> None:
        """Whatever is in them; what has no low rate is never throttled."""
        self.assertEqual(self.taken("CreateTags", Resources=["i"] * 9), 100)
        self.assertEqual(self.taken("DescribeInstances"), -1)


class Stack(unittest.TestCase):
    """The inventory, on what populate makes."""

    def setUp(self) -> None:
        """Start with an empty account."""
        reset()

    def test_inventory_of_an_unchanged_account_is_the_same(self) -> None:
        """Two reads are equal, to the order of everything in them."""
        from localaws import inventory, populate

        populate.create({"region": REGION, "confusing": "C", "functions": 2})
        first, second = inventory.read(), inventory.read()
        self.assertEqual(json.dumps(first), json.dumps(second))
        self.assertIn("wekactl-C2-join-Backends", first[REGION]["functions"])
        self.assertIn("wekactl-C-join-Backends", first["us-east-1"]["functions"])
        self.assertNotIn("wekactl-C-join-Backends", first[REGION]["functions"])

    def test_inventory_sees_a_small_change(self) -> None:
        """One tag is a difference, and reading is none."""
        from localaws import inventory

        self.assertEqual(inventory.read(), {})
        key = make_key(REGION, {})
        before = inventory.read()
        aws("kms").tag_resource(KeyId=key, Tags=[{"TagKey": "a", "TagValue": "b"}])
        self.assertNotEqual(inventory.read(), before)


def _make_tests() -> None:
    for name in checks:
        setattr(Fixups, f"test_{name}", lambda self, name=name: self.one(name))


_make_tests()

# A sandbox of their own, with machines that boot and functions that run.
from machinetest import *  # noqa: E402, F403

if __name__ == "__main__":
    unittest.main()
