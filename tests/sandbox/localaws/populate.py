"""Resources that have nothing to do with the cluster under test.

``{"functions": 200, "keys": 200, ...}`` fills the account, so that a tool
that reads whole lists is seen to.  ``{"confusing": "C"}`` puts things around
a cluster named C that a careless tool would take for the cluster's own.
"""

from __future__ import annotations

import functools
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import clients
from .inprocess import client
from .stack import find_image

Tags = dict[str, str]
Maker = Callable[[str, int], None]

OTHER_REGION = "us-east-1"
FUNCTION_TYPES = ("join", "fetch", "scale", "terminate", "transient")
PREFIX = "wekactl.io/"

makers: dict[str, Maker] = {}


def create(spec: dict[str, Any]) -> dict[str, Any]:
    """Make what the spec asks for; the answer says how many of each."""
    spec = dict(spec)
    region = spec.pop("region", None) or clients.default_region()
    confused = spec.pop("confusing", None)
    if unknown := sorted(set(spec) - set(makers)):
        raise ValueError(
            f"nothing is called {', '.join(unknown)}; there are "
            f"{', '.join(sorted(makers))}, confusing and region"
        )
    for kind, count in spec.items():
        for number in range(int(count)):
            makers[kind](region, number)
    if confused:
        spec["confusing"] = confusing(str(confused), region)
    return spec


def maker(kind: str) -> Callable[[Maker], Maker]:
    """Register how the n-th unrelated resource of a kind is made."""

    def register(function: Maker) -> Maker:
        makers[kind] = function
        return function

    return register


def elf_hash(text: str) -> int:
    """The hash in shortened names."""
    value = 0
    for byte in text.encode():
        value = (value << 4) + byte
        if high := value & 0xF0000000:
            value ^= high >> 24
        value &= 0x0FFFFFFF
    return value


def limited(name: str, limit: int, at_limit: bool = False) -> str:
    """A name cut to its kind's limit, by wekactl's rule.

    ``at_limit``: a name just as long as the limit is cut as well.
    """
    if len(name) < limit or (len(name) == limit and not at_limit):
        return name
    suffix = f"-{elf_hash(name)}"
    return name[: limit - len(suffix)] + suffix


def upper(tags: Tags) -> list[dict[str, str]]:
    """Tags as most services want them."""
    return [{"Key": k, "Value": v} for k, v in tags.items()]


def other_cluster(number: int) -> tuple[str, Tags]:
    """The name and tags of a cluster that is none of the caller's business.

    Every second one is not even managed, only tagged by somebody.
    """
    name = f"other{number:03}"
    if number % 2:
        return f"{name}-tool", {"team": name, "environment": "prod"}
    return f"wekactl-{name}", cluster_tags(name)


def cluster_tags(name: str) -> Tags:
    """The common tags of a managed cluster."""
    return {
        f"{PREFIX}managed": "true",
        f"{PREFIX}api_version": "v1",
        f"{PREFIX}version": "sandbox",
        f"{PREFIX}cluster_name": name,
    }


@functools.cache
def package() -> bytes:
    """A zip archive with a small file in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("marker", "made by the sandbox\n")
    return buffer.getvalue()


def trust(service: str) -> str:
    """A trust policy for one service."""
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": service},
                    "Action": "sts:AssumeRole",
                }
            ],
        }
    )


def make_role(
    name: str, path: str, tags: Tags, service: str = "lambda.amazonaws.com"
) -> str:
    """A role with one inline policy."""
    iam = client("iam", OTHER_REGION)
    arn = iam.create_role(
        RoleName=name,
        Path=path,
        AssumeRolePolicyDocument=trust(service),
        Tags=upper(tags),
    )["Role"]["Arn"]
    statement = {"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}
    iam.put_role_policy(
        RoleName=name,
        PolicyName="policy",
        PolicyDocument=json.dumps(
            {"Version": "2012-10-17", "Statement": [statement]}
        ),
    )
    return arn


def shared_role(service: str = "lambda.amazonaws.com") -> str:
    """The role of everything that only needs to have one."""
    name = f"sandbox-{service.split('.')[0]}"
    iam = client("iam", OTHER_REGION)
    try:
        return iam.get_role(RoleName=name)["Role"]["Arn"]
    except iam.exceptions.NoSuchEntityException:
        return make_role(name, "/sandbox/", {}, service)


def make_function(region: str, name: str, tags: Tags, role: str) -> str:
    """A function that is never called."""
    return client("lambda", region).create_function(
        FunctionName=name,
        Runtime="provided.al2023",
        Role=role,
        Handler="bootstrap",
        Code={"ZipFile": package()},
        Tags=tags,
    )["FunctionArn"]


def make_key(region: str, tags: Tags, alias: str | None = None) -> str:
    """A key, and an alias of it."""
    kms = client("kms", region)
    key = kms.create_key(
        Description="made by the sandbox",
        Tags=[{"TagKey": k, "TagValue": v} for k, v in tags.items()],
    )["KeyMetadata"]["KeyId"]
    if alias:
        kms.create_alias(AliasName=f"alias/{alias}", TargetKeyId=key)
    return key


def make_table(region: str, name: str, tags: Tags, key: str | None = None) -> None:
    """A table with one item."""
    dynamodb = client("dynamodb", region)
    encryption: dict[str, Any] = {}
    if key:
        encryption["SSESpecification"] = {
            "Enabled": True,
            "SSEType": "KMS",
            "KMSMasterKeyId": key,
        }
    dynamodb.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": "Key", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "Key", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
        Tags=upper(tags),
        **encryption,
    )
    dynamodb.put_item(
        TableName=name, Item={"Key": {"S": "cluster-settings"}}
    )


def make_api(region: str, name: str, tags: Tags) -> None:
    """A REST API with a stage, an API key and a usage plan."""
    gateway = client("apigateway", region)
    api = gateway.create_rest_api(
        name=name, endpointConfiguration={"types": ["REGIONAL"]}, tags=tags
    )
    key = {"restApiId": api["id"], "resourceId": api["rootResourceId"]}
    gateway.put_method(
        **key, httpMethod="GET", authorizationType="NONE", apiKeyRequired=True
    )
    gateway.put_integration(**key, httpMethod="GET", type="MOCK")
    deployment = gateway.create_deployment(restApiId=api["id"])["id"]
    gateway.create_stage(
        restApiId=api["id"],
        stageName="default",
        deploymentId=deployment,
        tags=tags,
    )
    api_key = gateway.create_api_key(name=name, enabled=True, tags=tags)["id"]
    plan = gateway.create_usage_plan(
        name=name,
        apiStages=[{"apiId": api["id"], "stage": "default"}],
        tags=tags,
    )["id"]
    gateway.create_usage_plan_key(
        usagePlanId=plan, keyId=api_key, keyType="API_KEY"
    )


def make_machine(region: str, name: str, tags: Tags) -> str:
    """A state machine that does nothing."""
    definition = {"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}
    return client("stepfunctions", region).create_state_machine(
        name=name,
        definition=json.dumps(definition),
        roleArn=shared_role("states.amazonaws.com"),
        tags=[{"key": k, "value": v} for k, v in tags.items()],
    )["stateMachineArn"]


def make_rule(
    region: str, name: str, tags: Tags, target: str | None = None
) -> None:
    """A schedule; one with a target is disabled, so that it never fires."""
    events = client("events", region)
    events.put_rule(
        Name=name,
        ScheduleExpression="rate(1 minute)",
        State="DISABLED" if target else "ENABLED",
        Tags=upper(tags),
    )
    if target:
        role = shared_role("events.amazonaws.com")
        events.put_targets(
            Rule=name, Targets=[{"Id": "1", "Arn": target, "RoleArn": role}]
        )


def make_log_group(region: str, name: str, tags: Tags) -> None:
    """A log group that keeps everything."""
    client("logs", region).create_log_group(logGroupName=name, tags=tags)


def make_layer(region: str, name: str, description: str) -> None:
    """A layer with one version."""
    client("lambda", region).publish_layer_version(
        LayerName=name, Description=description, Content={"ZipFile": package()}
    )


def make_template(region: str, name: str, tags: Tags) -> str:
    """A launch template."""
    ec2 = client("ec2", region)
    specification = [{"ResourceType": "launch-template", "Tags": upper(tags)}]
    instance = [{"ResourceType": "instance", "Tags": upper(tags)}]
    return ec2.create_launch_template(
        LaunchTemplateName=name,
        LaunchTemplateData={
            "ImageId": image(region),
            "InstanceType": "i3en.2xlarge",
            "TagSpecifications": instance,
        },
        TagSpecifications=specification,
    )["LaunchTemplate"]["LaunchTemplateId"]


def image(region: str) -> str:
    """An image to launch."""
    return find_image(client("ec2", region), "i3en.2xlarge")


@dataclass
class Network:
    """Where unrelated machines live."""

    vpc: str
    subnets: list[str]
    group: str


def make_network(region: str, net: str) -> Network:
    """A VPC with subnets in two zones."""
    ec2 = client("ec2", region)
    vpc = ec2.create_vpc(CidrBlock=f"{net}.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(
            VpcId=vpc,
            CidrBlock=f"{net}.{index}.0/24",
            AvailabilityZone=f"{region}{zone}",
        )["Subnet"]["SubnetId"]
        for index, zone in enumerate("ab")
    ]
    group = ec2.create_security_group(
        GroupName="other", Description="made by the sandbox", VpcId=vpc
    )["GroupId"]
    return Network(vpc, subnets, group)


def find_network(region: str) -> Network:
    """The network of unrelated machines, made when it is first needed."""
    ec2 = client("ec2", region)
    mark = {"Name": "tag:sandbox", "Values": ["unrelated"]}
    found = ec2.describe_vpcs(Filters=[mark])["Vpcs"]
    if not found:
        made = make_network(region, "10.77")
        ec2.create_tags(
            Resources=[made.vpc], Tags=[{"Key": "sandbox", "Value": "unrelated"}]
        )
        return made
    vpc = found[0]["VpcId"]
    inside = [{"Name": "vpc-id", "Values": [vpc]}]
    subnets = ec2.describe_subnets(Filters=inside)["Subnets"]
    groups = ec2.describe_security_groups(Filters=inside)["SecurityGroups"]
    return Network(
        vpc,
        [s["SubnetId"] for s in sorted(subnets, key=lambda s: s["CidrBlock"])],
        next(g["GroupId"] for g in groups if g["GroupName"] == "other"),
    )


def make_group(
    region: str, name: str, tags: Tags, net: Network, template: str, size: int = 0
) -> None:
    """An Auto Scaling group."""
    client("autoscaling", region).create_auto_scaling_group(
        AutoScalingGroupName=name,
        MinSize=0,
        MaxSize=10,
        DesiredCapacity=size,
        NewInstancesProtectedFromScaleIn=True,
        VPCZoneIdentifier=net.subnets[0],
        LaunchTemplate={"LaunchTemplateId": template, "Version": "1"},
        Tags=[
            {
                "Key": key,
                "Value": value,
                "PropagateAtLaunch": True,
                "ResourceId": name,
                "ResourceType": "auto-scaling-group",
            }
            for key, value in tags.items()
        ],
    )


def make_load_balancer(
    region: str, name: str, target_group: str, tags: Tags, net: Network
) -> None:
    """A load balancer with a listener and a target group."""
    aws = client("elbv2", region)
    balancer = aws.create_load_balancer(
        Name=name,
        Subnets=net.subnets,
        SecurityGroups=[net.group],
        Scheme="internal",
        Type="application",
        Tags=upper(tags),
    )["LoadBalancers"][0]["LoadBalancerArn"]
    target = aws.create_target_group(
        Name=target_group,
        Protocol="HTTP",
        Port=14000,
        VpcId=net.vpc,
        TargetType="instance",
        Tags=upper(tags),
    )["TargetGroups"][0]["TargetGroupArn"]
    aws.create_listener(
        LoadBalancerArn=balancer,
        Protocol="HTTP",
        Port=14000,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": target}],
        Tags=upper(tags),
    )


def make_classic_load_balancer(
    region: str, name: str, tags: Tags, net: Network, members: list[str]
) -> None:
    """A classic load balancer with members."""
    aws = client("elb", region)
    aws.create_load_balancer(
        LoadBalancerName=name,
        Listeners=[
            {"Protocol": "HTTP", "LoadBalancerPort": 14000, "InstancePort": 14000}
        ],
        Subnets=net.subnets[:1],
        SecurityGroups=[net.group],
        Scheme="internal",
        Tags=upper(tags),
    )
    if members:
        aws.register_instances_with_load_balancer(
            LoadBalancerName=name,
            Instances=[{"InstanceId": member} for member in members],
        )


def make_instance(region: str, tags: Tags, net: Network) -> str:
    """A machine."""
    started = client("ec2", region).run_instances(
        ImageId=image(region),
        InstanceType="i3en.2xlarge",
        MinCount=1,
        MaxCount=1,
        SubnetId=net.subnets[0],
        SecurityGroupIds=[net.group],
        TagSpecifications=[{"ResourceType": "instance", "Tags": upper(tags)}],
    )
    return started["Instances"][0]["InstanceId"]


def make_interface(region: str, description: str, tags: Tags, net: Network) -> None:
    """A network interface that is attached to nothing."""
    client("ec2", region).create_network_interface(
        SubnetId=net.subnets[0],
        Groups=[net.group],
        Description=description,
        TagSpecifications=[
            {"ResourceType": "network-interface", "Tags": upper(tags)}
        ],
    )


# The n-th unrelated resource of each kind.


@maker("functions")
def a_function(region: str, number: int) -> None:
    """A function of another cluster, or of nobody's."""
    name, tags = other_cluster(number)
    make_function(region, f"{name}-join-Backends", tags, shared_role())


@maker("keys")
def a_key(region: str, number: int) -> None:
    """A key with an alias."""
    name, tags = other_cluster(number)
    make_key(region, tags, name)


@maker("tables")
def a_table(region: str, number: int) -> None:
    """A table."""
    make_table(region, *other_cluster(number))


@maker("apis")
def an_api(region: str, number: int) -> None:
    """A REST API with key and plan."""
    name, tags = other_cluster(number)
    make_api(region, f"{name}-Backends", tags)


@maker("rules")
def a_rule(region: str, number: int) -> None:
    """A schedule without a target."""
    name, tags = other_cluster(number)
    make_rule(region, f"{name}-Backends", tags)


@maker("state_machines")
def a_machine(region: str, number: int) -> None:
    """A state machine."""
    name, tags = other_cluster(number)
    make_machine(region, f"{name}-Backends", tags)


@maker("roles")
def a_role(_region: str, number: int) -> None:
    """A role in the path of another cluster."""
    name, tags = other_cluster(number)
    make_role(f"{name}-join", f"/wekactl/other{number:03}/", tags)


@maker("log_groups")
def a_log_group(region: str, number: int) -> None:
    """A log group of a function."""
    name, tags = other_cluster(number)
    make_log_group(region, f"/aws/lambda/{name}-join-Backends", tags)


@maker("layers")
def a_layer(region: str, number: int) -> None:
    """A layer."""
    name, _ = other_cluster(number)
    make_layer(region, name, f"cluster other{number:03}")


@maker("launch_templates")
def a_template(region: str, number: int) -> None:
    """A launch template."""
    name, tags = other_cluster(number)
    make_template(region, f"{name}-Backends", tags)


@maker("groups")
def a_group(region: str, number: int) -> None:
    """An empty Auto Scaling group with a launch template."""
    name, tags = other_cluster(number)
    template = make_template(region, f"{name}-group", tags)
    make_group(region, f"{name}-group", tags, find_network(region), template)


@maker("load_balancers")
def a_load_balancer(region: str, number: int) -> None:
    """A load balancer with listener and target group."""
    name, tags = other_cluster(number)
    make_load_balancer(region, name, f"{name}-api", tags, find_network(region))


@maker("instances")
def an_instance(region: str, number: int) -> None:
    """A machine."""
    _, tags = other_cluster(number)
    make_instance(region, tags, find_network(region))


@maker("stacks")
def a_stack(region: str, number: int) -> None:
    """A stack that has nothing of Weka's."""
    body = {"Resources": {"Group": {"Type": "AWS::Logs::LogGroup"}}}
    client("cloudformation", region).create_stack(
        StackName=f"other{number:03}", TemplateBody=json.dumps(body)
    )


def confusing(cluster: str, region: str) -> list[str]:
    """Three neighbours of a cluster, none of which is the cluster.

    A longer name with the cluster's as its beginning; things of nobody's
    that say the cluster's name in other tags; and in another region the
    whole of a cluster of the same name.
    """
    neighbour = cluster + "2" if len(cluster) < 128 else cluster[:-1] + "2"
    make_cluster(neighbour, region, "10.78")
    make_lookalikes(cluster, region)
    make_cluster(cluster, OTHER_REGION, "10.79")
    make_foreign_role(cluster)
    return [neighbour, f"{cluster} in {OTHER_REGION}"]


def make_cluster(cluster: str, region: str, net: str) -> None:
    """All of a managed cluster, by wekactl's names and tags."""
    base, host_group = f"wekactl-{cluster}", f"wekactl-{cluster}-Backends"
    common = cluster_tags(cluster)
    backends = {
        **common,
        f"{PREFIX}hostgroup_name": "Backends",
        f"{PREFIX}hostgroup_type": "backend",
    }
    network = make_network(region, net)
    key = make_key(region, common, base)
    make_table(region, base, {**common, f"{PREFIX}stack_id": "none"}, key)
    for kind in FUNCTION_TYPES:
        name = limited(f"wekactl-{cluster}-{kind}-Backends", 64, at_limit=True)
        # IAM is global: two clusters of one name have roles in one path.
        role = make_role(
            limited(f"{cluster}-{kind}-{region}", 64, at_limit=True),
            f"/wekactl/{cluster}/",
            {**backends, f"{PREFIX}region": region},
        )
        make_log_group(region, f"/aws/lambda/{name}", backends)
        make_function(region, name, backends, role)
    make_layer(region, limited(base, 64), f"cluster {cluster}")
    make_api(region, host_group, backends)
    machine = make_machine(region, limited(host_group, 80), backends)
    make_rule(region, limited(host_group, 64), backends, machine)
    balancer = limited(base, 32, at_limit=True)
    targets = limited(f"{base}-api", 32, at_limit=True)
    make_load_balancer(region, balancer, targets, common, network)
    template = make_template(region, limited(host_group, 128), backends)
    name_tag = {"Name": f"{cluster}-Backends"}
    make_group(
        region, host_group, {**backends, **name_tag}, network, template, size=1
    )
    make_instance(region, {**backends, **name_tag}, network)


def make_lookalikes(cluster: str, region: str) -> None:
    """Things of nobody's that mention the cluster everywhere but in its tag."""
    network = find_network(region)
    tags = {
        "Name": cluster,
        "environment": cluster,
        "cluster": cluster,
        "cluster_name": cluster,
        "owner": f"wekactl-{cluster}",
    }
    named = f"{cluster}-unrelated"
    short = limited(named, 64)
    make_key(region, tags)
    make_key(region, {"wekactl": cluster}, named)
    make_table(region, named, tags)
    role = make_role(limited(named, 60), "/", tags)
    make_role(limited(f"x-{named}", 60), f"/other/wekactl/{cluster}/", tags)
    make_function(region, short, tags, role)
    make_function(region, limited(f"my-wekactl-{cluster}-join-Backends", 64), tags, role)
    make_log_group(region, f"/aws/lambda/{short}", tags)
    make_log_group(region, f"/other/wekactl-{cluster}", tags)
    # A name that starts like the cluster's, and goes on after a hyphen.
    make_api(region, f"wekactl-{cluster}-Backends-old", tags)
    machine = make_machine(region, limited(named, 80), tags)
    make_rule(region, short, tags, machine)
    make_load_balancer(
        region, limited(f"lb-{cluster}", 31), limited(f"tg-{cluster}", 31), tags, network
    )
    template = make_template(region, limited(named, 128), tags)
    make_group(region, named, tags, network, template, size=1)
    machine_id = make_instance(region, tags, network)
    make_classic_load_balancer(
        region, limited(f"classic-{cluster}", 31), tags, network, [machine_id]
    )
    make_interface(
        region, f"AWS Lambda VPC ENI-other-wekactl-{cluster}", tags, network
    )
    make_layer(region, limited(f"layer-{cluster}", 64), f"not {cluster}'s")
    make_zone(cluster, network, region)


def make_foreign_role(cluster: str) -> None:
    """A role in the cluster's own path, tagged with a third region."""
    make_role(
        limited(f"{cluster}-join-elsewhere", 64, at_limit=True),
        f"/wekactl/{cluster}/",
        {**cluster_tags(cluster), f"{PREFIX}region": "ap-southeast-2"},
    )


def make_zone(cluster: str, network: Network, region: str) -> None:
    """A private zone with a record that is named like the cluster."""
    route53 = client("route53", OTHER_REGION)
    zone = route53.create_hosted_zone(
        Name="unrelated.example.net",
        CallerReference=f"sandbox-{cluster}",
        HostedZoneConfig={"PrivateZone": True},
        VPC={"VPCRegion": region, "VPCId": network.vpc},
    )["HostedZone"]["Id"]
    record = {
        "Name": "wekactl.unrelated.example.net",
        "Type": "A",
        "TTL": 60,
        "ResourceRecords": [{"Value": "10.77.0.1"}],
    }
    route53.change_resource_record_sets(
        HostedZoneId=zone,
        ChangeBatch={"Changes": [{"Action": "CREATE", "ResourceRecordSet": record}]},
    )
