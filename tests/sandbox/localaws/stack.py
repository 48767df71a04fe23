"""A Weka-like CloudFormation stack, made for real in the local AWS.

The template follows what Weka's own generator makes as far as discovery can
see it: the description, the logical ids ``InstanceProfileBackend`` and
``InstanceProfileClient``, two volumes an instance, a classic load balancer.
Unlike Weka's it brings its own network, so that one call makes all of it.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass, field, fields
from typing import Any

from . import ACCOUNT, clients, regions

DESCRIPTION = (
    "[WekaIO] To learn more about this template visit "
    "https://docs.weka.io/install/aws/cloudformation"
)
CLIENT_TYPE = "c5.2xlarge"
FIRST_BACKEND = 10
FIRST_CLIENT = 200
ARM_FAMILIES = ("i8ge", "i8g", "i7g", "c7g", "m7g", "r7g")

Template = dict[str, Any]
Properties = dict[str, Any]


@dataclass
class Spec:
    """What ``create`` is asked for; every field may be left out."""

    name: str = "weka"
    backends: int = 6
    clients: int = 0
    instance_type: str = "i3en.2xlarge"
    zones: int = 2
    """1: only the cluster's zone. 2: another subnet in another zone, with
    the same route table, as the load balancer needs it."""
    second_subnet: bool = True
    """False: no subnet in a second zone, whatever ``zones`` says."""
    classic_lb: bool = False
    network: str = "127.20"
    region: str | None = None
    description: str | None = DESCRIPTION
    placement_group: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    image: str | None = None
    key_name: str | None = "weka-key"
    http_tokens: str = "optional"
    volumes: list[dict[str, Any]] | None = None
    """Block device mappings of a backend, instead of Weka's."""
    mixed_types: str | None = None
    """The last backend is of this type."""
    mixed_subnets: bool = False
    """The last backend is in another subnet (of the same zone)."""
    private_subnet: bool = False
    """No public addresses at launch."""
    status: str | None = None
    """A state other than CREATE_COMPLETE, to pretend."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Properties of every backend, in CloudFormation's words."""
    backend_overrides: dict[str, Any] = field(default_factory=dict)
    """The same for single backends: {"3": {"IamInstanceProfile": null}}."""

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Spec:
        """Read a spec; an unknown field is an error, not a silent default."""
        known = {item.name for item in fields(cls)}
        if unknown := sorted(set(document) - known):
            raise ValueError(
                f"unknown fields of a stack: {', '.join(unknown)}; "
                f"there are {', '.join(sorted(known))}"
            )
        spec = cls(**document)
        try:
            ipaddress.IPv4Network(f"{spec.network}.0.0/16")
        except ValueError as failure:
            raise ValueError(
                f"the network {spec.network!r} is not the first two bytes of"
                " an address, as 127.20 is"
            ) from failure
        if spec.region and spec.region not in regions.known():
            raise ValueError(f"AWS has no region {spec.region!r}")
        if spec.zones not in (1, 2):
            raise ValueError(f"zones is {spec.zones}, not 1 or 2")
        return spec


def create(document: dict[str, Any]) -> dict[str, Any]:
    """Make a stack, and say what it consists of."""
    spec = Spec.parse(document)
    region = spec.region or clients.default_region()
    ec2 = clients.client("ec2", region)
    if spec.key_name:
        make_key_pair(ec2, spec.key_name)
    image = spec.image or find_image(ec2, spec.instance_type)
    body = template(spec, region, image)
    formation = clients.client("cloudformation", region)
    stack_id = formation.create_stack(
        StackName=spec.name,
        TemplateBody=json.dumps(body),
        Capabilities=["CAPABILITY_IAM"],
        Tags=[{"Key": k, "Value": v} for k, v in spec.tags.items()],
    )["StackId"]
    if spec.status:
        pretend(region, stack_id, spec.status)
    return describe(spec, region, stack_id, image)


def pretend(region: str, stack_id: str, status: str) -> None:
    """Put a stack into a state that moto never leaves it in."""
    from moto.cloudformation.models import cloudformation_backends

    cloudformation_backends[ACCOUNT][region].stacks[stack_id].status = status


def make_key_pair(ec2: Any, name: str) -> None:
    """Make the key pair, unless an earlier stack has."""
    filters = [{"Name": "key-name", "Values": [name]}]
    if not ec2.describe_key_pairs(Filters=filters)["KeyPairs"]:
        ec2.create_key_pair(KeyName=name)


def find_image(ec2: Any, instance_type: str) -> str:
    """The first Amazon Linux 2 image for the type's architecture."""
    arm = instance_type.split(".")[0] in ARM_FAMILIES
    architecture = "arm64" if arm else "x86_64"
    images = ec2.describe_images(
        Owners=["amazon"],
        Filters=[
            {"Name": "architecture", "Values": [architecture]},
            {"Name": "name", "Values": ["amzn2-ami-hvm-2.0.*"]},
        ],
    )["Images"]
    if not images:
        raise LookupError(f"no Amazon Linux 2 image for {architecture}")
    return min(images, key=lambda image: image["Name"])["ImageId"]


def template(spec: Spec, region: str, image: str) -> Template:
    """The stack's template."""
    resources: dict[str, Any] = {}
    resources.update(network(spec, region))
    resources.update(roles())
    if spec.placement_group:
        resources["PlacementGroup"] = {
            "Type": "AWS::EC2::PlacementGroup",
            "Properties": {"Strategy": "cluster"},
        }
    for index in range(spec.backends):
        resources[f"Backend{index}"] = backend(spec, index, image)
    for index in range(spec.clients):
        resources[f"Client{index}"] = weka_client(spec, index, image)
    if spec.classic_lb:
        resources["LoadBalancer"] = load_balancer(spec)
    body: Template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Resources": resources,
    }
    if spec.description is not None:
        body["Description"] = spec.description
    return body


def network(spec: Spec, region: str) -> dict[str, Any]:
    """VPC, subnets, security groups. No route table of its own: both
    subnets use the VPC's main one."""
    net = spec.network
    resources: dict[str, Any] = {
        "VPC": {
            "Type": "AWS::EC2::VPC",
            "Properties": {
                "CidrBlock": f"{net}.0.0/16",
                "EnableDnsSupport": True,
                "EnableDnsHostnames": True,
            },
        },
        "SubnetA": subnet(spec, f"{net}.0.0/24", f"{region}a"),
        "SecurityGroup": {
            "Type": "AWS::EC2::SecurityGroup",
            "Properties": {
                "GroupDescription": "Weka",
                "VpcId": {"Ref": "VPC"},
                "SecurityGroupIngress": [
                    {
                        "IpProtocol": "tcp",
                        "FromPort": 14000,
                        "ToPort": 14100,
                        "CidrIp": f"{net}.0.0/16",
                    }
                ],
            },
        },
    }
    if spec.zones == 2 and spec.second_subnet:
        resources["SubnetB"] = subnet(spec, f"{net}.1.0/24", f"{region}b")
    if spec.mixed_subnets:
        resources["SubnetOther"] = subnet(spec, f"{net}.2.0/24", f"{region}a")
    return resources


def subnet(spec: Spec, block: str, zone: str) -> dict[str, Any]:
    """One subnet of the VPC."""
    return {
        "Type": "AWS::EC2::Subnet",
        "Properties": {
            "VpcId": {"Ref": "VPC"},
            "CidrBlock": block,
            "AvailabilityZone": zone,
            "MapPublicIpOnLaunch": not spec.private_subnet,
        },
    }


def roles() -> dict[str, Any]:
    """The roles and instance profiles of backends and clients."""
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": ["ec2.amazonaws.com"]},
                "Action": ["sts:AssumeRole"],
            }
        ],
    }
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": [
                    "ec2:DescribeInstances",
                    "ec2:DescribeNetworkInterfaces",
                    "ec2:AttachNetworkInterface",
                    "ec2:CreateNetworkInterface",
                    "ec2:ModifyNetworkInterfaceAttribute",
                    "ec2:DeleteNetworkInterface",
                ],
                "Resource": "*",
            }
        ],
    }
    resources: dict[str, Any] = {}
    for kind in ("Backend", "Client"):
        resources[f"Role{kind}"] = {
            "Type": "AWS::IAM::Role",
            "Properties": {
                "Path": "/",
                "AssumeRolePolicyDocument": trust,
                "Policies": [
                    {"PolicyName": "weka", "PolicyDocument": policy}
                ],
            },
        }
        resources[f"InstanceProfile{kind}"] = {
            "Type": "AWS::IAM::InstanceProfile",
            "Properties": {"Path": "/", "Roles": [{"Ref": f"Role{kind}"}]},
        }
    return resources


def instance(
    spec: Spec, name: str, address: str, properties: Properties
) -> dict[str, Any]:
    """What backends and clients have in common."""
    common: Properties = {
        "SubnetId": {"Ref": "SubnetA"},
        "PrivateIpAddress": address,
        "SecurityGroupIds": [{"Ref": "SecurityGroup"}],
        "MetadataOptions": {
            "HttpTokens": spec.http_tokens,
            "HttpPutResponseHopLimit": 1,
            "HttpEndpoint": "enabled",
        },
        "Tags": [
            {"Key": "Name", "Value": {"Fn::Sub": f"${{AWS::StackName}}-{name}"}}
        ],
        "UserData": {"Fn::Base64": "#!/bin/bash\n# made by the sandbox\n"},
    }
    if spec.key_name:
        common["KeyName"] = spec.key_name
    if spec.placement_group:
        common["PlacementGroupName"] = {"Ref": "PlacementGroup"}
    chosen = {**common, **properties}
    return {
        "Type": "AWS::EC2::Instance",
        "Properties": {k: v for k, v in chosen.items() if v is not None},
    }


def volume(device: str, size: int) -> dict[str, Any]:
    """A gp3 volume that goes with its instance."""
    return {
        "DeviceName": device,
        "Ebs": {
            "VolumeSize": size,
            "VolumeType": "gp3",
            "DeleteOnTermination": True,
        },
    }


def backend(spec: Spec, index: int, image: str) -> dict[str, Any]:
    """One backend."""
    last = index == spec.backends - 1
    properties: Properties = {
        "ImageId": image,
        "InstanceType": spec.mixed_types
        if last and spec.mixed_types
        else spec.instance_type,
        "IamInstanceProfile": {"Ref": "InstanceProfileBackend"},
        "BlockDeviceMappings": spec.volumes
        or [volume("/dev/xvda", 16), volume("/dev/sdp", 78)],
        **spec.overrides,
    }
    address = address_in(spec, FIRST_BACKEND + index)
    if last and spec.mixed_subnets:
        properties["SubnetId"] = {"Ref": "SubnetOther"}
        address = f"{spec.network}.2.{FIRST_BACKEND}"
    properties.update(spec.backend_overrides.get(str(index), {}))
    return instance(spec, f"Backend{index}", address, properties)


def weka_client(spec: Spec, index: int, image: str) -> dict[str, Any]:
    """One client machine."""
    properties: Properties = {
        "ImageId": image,
        "InstanceType": CLIENT_TYPE,
        "IamInstanceProfile": {"Ref": "InstanceProfileClient"},
        "BlockDeviceMappings": [
            volume("/dev/xvda", 16),
            volume("/dev/sdp", 58),
        ],
    }
    address = address_in(spec, FIRST_CLIENT + index)
    return instance(spec, f"Client{index}", address, properties)


def address_in(spec: Spec, number: int) -> str:
    """The ``number``-th address of the cluster's subnet."""
    if not 4 <= number <= 254:
        raise ValueError(f"{spec.network}.0.{number} is not in the subnet")
    return f"{spec.network}.0.{number}"


def load_balancer(spec: Spec) -> dict[str, Any]:
    """The classic load balancer that Weka's stacks may have."""
    return {
        "Type": "AWS::ElasticLoadBalancing::LoadBalancer",
        "Properties": {
            "Scheme": "internal",
            "Subnets": [{"Ref": "SubnetA"}],
            "SecurityGroups": [{"Ref": "SecurityGroup"}],
            "Listeners": [
                {
                    "LoadBalancerPort": "14000",
                    "InstancePort": "14000",
                    "Protocol": "HTTP",
                }
            ],
            "HealthCheck": {
                "Target": "HTTP:14000/",
                "HealthyThreshold": "10",
                "UnhealthyThreshold": "2",
                "Interval": "10",
                "Timeout": "3",
            },
            "Instances": [
                {"Ref": f"Backend{i}"} for i in range(spec.backends)
            ],
        },
    }


def describe(
    spec: Spec, region: str, stack_id: str, image: str
) -> dict[str, Any]:
    """What was made, in the words of the tests."""
    formation = clients.client("cloudformation", region)
    pages = formation.get_paginator("list_stack_resources").paginate(
        StackName=stack_id
    )
    physical = {
        resource["LogicalResourceId"]: resource["PhysicalResourceId"]
        for one in pages
        for resource in one["StackResourceSummaries"]
    }
    ec2 = clients.client("ec2", region)
    vpc = physical["VPC"]
    addresses = {
        found["InstanceId"]: found["PrivateIpAddress"]
        for one in ec2.get_paginator("describe_instances").paginate(
            Filters=[{"Name": "vpc-id", "Values": [vpc]}]
        )
        for reservation in one["Reservations"]
        for found in reservation["Instances"]
    }

    def machines(kind: str, count: int) -> list[dict[str, str]]:
        ids = [physical[f"{kind}{index}"] for index in range(count)]
        return [{"id": i, "private_ip": addresses[i]} for i in ids]

    return {
        "name": spec.name,
        "stack_id": stack_id,
        "region": region,
        "backends": machines("Backend", spec.backends),
        "clients": machines("Client", spec.clients),
        "vpc": vpc,
        "subnets": [
            physical[name]
            for name in ("SubnetA", "SubnetB", "SubnetOther")
            if name in physical
        ],
        "security_groups": [physical["SecurityGroup"]],
        "classic_lb": physical.get("LoadBalancer"),
        "placement_group": physical.get("PlacementGroup"),
        "instance_profile": physical["InstanceProfileBackend"],
        "image": image,
        "key_name": spec.key_name,
    }
