"""Everything that exists in the account, as plain data that can be compared.

Two reads of an account that did not change are equal; what differs between
two others is found under region, kind and name.  Dates and other things that
change by themselves are left out, tags are objects, and lists are sorted.
A region or a kind with nothing in it is left out, as is what every region
has from the start (the default VPC and what belongs to it).
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from . import ACCOUNT
from .clients import plain
from .inprocess import client, every

Things = dict[str, Any]
Reader = Callable[[str], Things]

GLOBAL = "global"
# Global services are asked in this region.
HOME = "us-east-1"

SERVICES = (
    "apigateway",
    "autoscaling",
    "cloudformation",
    "dynamodb",
    "ec2",
    "elb",
    "elbv2",
    "events",
    "kms",
    "lambda",
    "logs",
    "stepfunctions",
)

VOLATILE = {
    "AttachTime",
    "CreateTime",
    "CreatedDate",
    "CreatedTime",
    "CreationDate",
    "CreationDateTime",
    "DeletionDate",
    "LastModified",
    "LastUpdatedTime",
    "LastUpdatedTimestamp",
    "LaunchTime",
    "ResponseMetadata",
    "RevisionId",
    "RoleLastUsed",
    "UsageOperationUpdateTime",
    "createdDate",
    "creationDate",
    "creationTime",
    "lastUpdatedDate",
    "storedBytes",
}

TAG_FORMS = (("Key", "Value"), ("TagKey", "TagValue"), ("key", "value"))

readers: dict[str, Reader] = {}
global_readers: dict[str, Callable[[], Things]] = {}


def read() -> Things:
    """The whole account: {region: {kind: {name: data}}}."""
    result: Things = {GLOBAL: {k: r() for k, r in global_readers.items()}}
    for region in regions():
        result[region] = {kind: r(region) for kind, r in readers.items()}
    return {
        region: kept
        for region, kinds in sorted(result.items())
        if (kept := {k: tidy(v) for k, v in sorted(kinds.items()) if v})
    }


def regions() -> list[str]:
    """The regions in which some service was ever used."""
    from moto.backends import get_backend

    found = {
        region
        for service in SERVICES
        for region in list(get_backend(service)[ACCOUNT])
    }
    return sorted(found)


def tidy(value: Any) -> Any:
    """The value without what is volatile, tags as objects, lists sorted."""
    if isinstance(value, dict):
        return {
            key: tidy(item)
            for key, item in sorted(value.items())
            if key not in VOLATILE and not isinstance(item, datetime.datetime)
        }
    if isinstance(value, (list, tuple)):
        for key, content in TAG_FORMS:
            if value and all(
                isinstance(item, dict) and set(item) == {key, content}
                for item in value
            ):
                return {item[key]: item[content] for item in sorted(value, key=lambda item: item[key])}
        return sorted(
            (tidy(item) for item in value),
            key=lambda item: json.dumps(item, sort_keys=True, default=str),
        )
    return plain(value)


def document(text: Any) -> Any:
    """A JSON document as data, also where its quotes are escaped."""
    if not isinstance(text, str):
        return text
    for candidate in (text, text.replace('\\"', '"')):
        try:
            return json.loads(candidate)
        except ValueError:
            continue
    return text


def maybe(call: Callable[..., Any], **params: Any) -> Any:
    """The answer of a call, or nothing if what it asks for is not there."""
    try:
        answer = call(**params)
    except ClientError:
        return None
    answer.pop("ResponseMetadata", None)
    return answer


def reader(kind: str) -> Callable[[Reader], Reader]:
    """Register how one kind of resource of a region is read."""

    def register(function: Reader) -> Reader:
        readers[kind] = function
        return function

    return register


def by(items: Any, key: str) -> Things:
    """The items by their name or id."""
    return {item[key]: item for item in items}


@reader("kms_keys")
def kms_keys(region: str) -> Things:
    """Keys with state, tags, rotation and policy."""
    kms = client("kms", region)
    result = {}
    for item in every(kms, "list_keys", "Keys"):
        key = {"KeyId": item["KeyId"]}
        result[item["KeyId"]] = {
            **kms.describe_key(**key)["KeyMetadata"],
            "Tags": list(every(kms, "list_resource_tags", "Tags", **key)),
            "Rotation": maybe(kms.get_key_rotation_status, **key),
            "Policy": document(
                kms.get_key_policy(**key, PolicyName="default")["Policy"]
            ),
        }
    return result


@reader("kms_aliases")
def kms_aliases(region: str) -> Things:
    """Aliases and the keys that they point at; AWS's own left out."""
    found = every(client("kms", region), "list_aliases", "Aliases")
    return {
        alias["AliasName"]: alias.get("TargetKeyId")
        for alias in found
        if not alias["AliasName"].startswith("alias/aws/")
    }


@reader("tables")
def tables(region: str) -> Things:
    """Tables with tags, backups and every item."""
    dynamodb = client("dynamodb", region)
    result = {}
    for name in every(dynamodb, "list_tables", "TableNames"):
        table = dynamodb.describe_table(TableName=name)["Table"]
        arn = table["TableArn"]
        result[name] = {
            **table,
            "Tags": list(
                every(dynamodb, "list_tags_of_resource", "Tags", ResourceArn=arn)
            ),
            "Backups": maybe(
                dynamodb.describe_continuous_backups, TableName=name
            ),
            "Items": list(every(dynamodb, "scan", "Items", TableName=name)),
        }
    return result


@reader("functions")
def functions(region: str) -> Things:
    """Functions with tags, resource policy and concurrency."""
    aws = client("lambda", region)
    result = {}
    for item in every(aws, "list_functions", "Functions"):
        name = item["FunctionName"]
        function = aws.get_function(FunctionName=name)
        policy = maybe(aws.get_policy, FunctionName=name)
        result[name] = {
            **function["Configuration"],
            "Tags": function.get("Tags", {}),
            "Concurrency": function.get("Concurrency"),
            "Policy": document(policy["Policy"]) if policy else None,
            "Invocation": maybe(
                aws.get_function_event_invoke_config, FunctionName=name
            ),
        }
    return result


@reader("layers")
def layers(region: str) -> Things:
    """Layers with all their versions."""
    aws = client("lambda", region)
    result = {}
    for layer in every(aws, "list_layers", "Layers"):
        name = layer["LayerName"]
        versions = every(
            aws, "list_layer_versions", "LayerVersions", LayerName=name
        )
        result[name] = {
            str(version["Version"]): aws.get_layer_version(
                LayerName=name, VersionNumber=version["Version"]
            )
            for version in versions
        }
    return result


@reader("log_groups")
def log_groups(region: str) -> Things:
    """Log groups with retention and tags."""
    logs = client("logs", region)
    result = {}
    for group in every(logs, "describe_log_groups", "logGroups"):
        name = group["logGroupName"]
        result[name] = {
            **group,
            "Tags": logs.list_tags_log_group(logGroupName=name)["tags"],
        }
    return result


@reader("rest_apis")
def rest_apis(region: str) -> Things:
    """REST APIs with resources, methods, stages and deployments."""
    gateway = client("apigateway", region)
    result = {}
    for api in every(gateway, "get_rest_apis", "items"):
        key = {"restApiId": api["id"]}
        result[api["id"]] = {
            **api,
            "policy": document(api.get("policy")),
            "resources": list(
                every(gateway, "get_resources", "items", embed=["methods"], **key)
            ),
            "stages": gateway.get_stages(**key)["item"],
            "deployments": list(every(gateway, "get_deployments", "items", **key)),
        }
    return result


@reader("api_keys")
def api_keys(region: str) -> Things:
    """API keys with their values."""
    gateway = client("apigateway", region)
    return by(every(gateway, "get_api_keys", "items", includeValues=True), "id")


@reader("usage_plans")
def usage_plans(region: str) -> Things:
    """Usage plans with stages and keys."""
    gateway = client("apigateway", region)
    result = {}
    for plan in every(gateway, "get_usage_plans", "items"):
        keys = every(
            gateway, "get_usage_plan_keys", "items", usagePlanId=plan["id"]
        )
        result[plan["id"]] = {**plan, "keys": list(keys)}
    return result


@reader("launch_templates")
def launch_templates(region: str) -> Things:
    """Launch templates with the data of every version."""
    ec2 = client("ec2", region)
    result = {}
    for template in every(ec2, "describe_launch_templates", "LaunchTemplates"):
        versions = every(
            ec2,
            "describe_launch_template_versions",
            "LaunchTemplateVersions",
            LaunchTemplateId=template["LaunchTemplateId"],
        )
        result[template["LaunchTemplateName"]] = {
            **template,
            "Versions": {str(v["VersionNumber"]): v for v in versions},
        }
    return result


@reader("auto_scaling_groups")
def auto_scaling_groups(region: str) -> Things:
    """Auto Scaling groups, members and suspended processes included."""
    found = every(
        client("autoscaling", region),
        "describe_auto_scaling_groups",
        "AutoScalingGroups",
    )
    return {
        group["AutoScalingGroupName"]: {
            **group,
            "Instances": by(group.get("Instances") or [], "InstanceId"),
            "Tags": by(group.get("Tags") or [], "Key"),
        }
        for group in found
    }


@reader("instances")
def instances(region: str) -> Things:
    """Instances with protection, shutdown behaviour and user data."""
    ec2 = client("ec2", region)
    result = {}
    for reservation in every(ec2, "describe_instances", "Reservations"):
        for instance in reservation["Instances"]:
            key = instance["InstanceId"]
            result[key] = dict(instance)
            for attribute in (
                "disableApiTermination",
                "instanceInitiatedShutdownBehavior",
                "userData",
            ):
                answer = ec2.describe_instance_attribute(
                    InstanceId=key, Attribute=attribute
                )
                name = attribute[0].upper() + attribute[1:]
                result[key][name] = answer.get(name, {}).get("Value")
    return result


def simple(kind: str, service: str, operation: str, key: str, name: str) -> None:
    """Register a kind for which one list says everything."""

    @reader(kind)
    def read_them(region: str) -> Things:
        return by(every(client(service, region), operation, key), name)


simple("volumes", "ec2", "describe_volumes", "Volumes", "VolumeId")
simple("network_interfaces", "ec2", "describe_network_interfaces", "NetworkInterfaces", "NetworkInterfaceId")
simple("vpc_endpoints", "ec2", "describe_vpc_endpoints", "VpcEndpoints", "VpcEndpointId")
simple("placement_groups", "ec2", "describe_placement_groups", "PlacementGroups", "GroupName")
simple("key_pairs", "ec2", "describe_key_pairs", "KeyPairs", "KeyName")


@reader("network")
def network(region: str) -> Things:
    """VPCs, subnets, security groups and route tables but the default ones."""
    ec2 = client("ec2", region)
    vpcs = {
        vpc["VpcId"]: vpc
        for vpc in every(ec2, "describe_vpcs", "Vpcs")
        if not vpc.get("IsDefault")
    }
    result: Things = dict(vpcs)
    for operation, key, name in (
        ("describe_subnets", "Subnets", "SubnetId"),
        ("describe_security_groups", "SecurityGroups", "GroupId"),
        ("describe_route_tables", "RouteTables", "RouteTableId"),
    ):
        for item in every(ec2, operation, key):
            if item.get("VpcId") in vpcs:
                # Its use by machines is theirs to tell.
                item.pop("AvailableIpAddressCount", None)
                result[item[name]] = item
    return result


@reader("load_balancers")
def load_balancers(region: str) -> Things:
    """Load balancers with attributes, tags, listeners and their tags."""
    aws = client("elbv2", region)
    result = {}
    for balancer in every(aws, "describe_load_balancers", "LoadBalancers"):
        arn = balancer["LoadBalancerArn"]
        balancer.pop("State", None)
        listeners = {
            listener["ListenerArn"]: {
                **listener,
                "Tags": tags_of(aws, listener["ListenerArn"]),
            }
            for listener in every(
                aws, "describe_listeners", "Listeners", LoadBalancerArn=arn
            )
        }
        attributes = aws.describe_load_balancer_attributes(LoadBalancerArn=arn)
        result[balancer["LoadBalancerName"]] = {
            **balancer,
            "Attributes": attributes["Attributes"],
            "Tags": tags_of(aws, arn),
            "Listeners": listeners,
        }
    return result


@reader("target_groups")
def target_groups(region: str) -> Things:
    """Target groups with attributes, tags and targets, whatever their health."""
    aws = client("elbv2", region)
    from moto.elbv2.models import elbv2_backends

    registered = elbv2_backends[ACCOUNT][region].target_groups
    result = {}
    for group in every(aws, "describe_target_groups", "TargetGroups"):
        arn = group["TargetGroupArn"]
        attributes = aws.describe_target_group_attributes(TargetGroupArn=arn)
        result[group["TargetGroupName"]] = {
            **group,
            "Attributes": attributes["Attributes"],
            "Tags": tags_of(aws, arn),
            # Asking for their health would try to connect to each of them.
            "Targets": sorted(registered[arn].targets),
        }
    return result


def tags_of(aws: Any, arn: str) -> Things:
    """The tags of a load balancer, target group or listener."""
    found = aws.describe_tags(ResourceArns=[arn])["TagDescriptions"]
    return {tag["Key"]: tag["Value"] for tag in found[0]["Tags"]} if found else {}


@reader("classic_load_balancers")
def classic_load_balancers(region: str) -> Things:
    """Classic load balancers with members, health check and tags."""
    aws = client("elb", region)
    result = {}
    for balancer in every(
        aws, "describe_load_balancers", "LoadBalancerDescriptions"
    ):
        name = balancer["LoadBalancerName"]
        tags = aws.describe_tags(LoadBalancerNames=[name])["TagDescriptions"]
        attributes = aws.describe_load_balancer_attributes(LoadBalancerName=name)
        result[name] = {
            **balancer,
            "Tags": tags[0]["Tags"] if tags else [],
            "Attributes": attributes["LoadBalancerAttributes"],
        }
    return result


@reader("state_machines")
def state_machines(region: str) -> Things:
    """State machines with definition, tags and the number of executions."""
    aws = client("stepfunctions", region)
    result = {}
    for item in every(aws, "list_state_machines", "stateMachines"):
        arn = item["stateMachineArn"]
        machine = aws.describe_state_machine(stateMachineArn=arn)
        executions = every(
            aws, "list_executions", "executions", stateMachineArn=arn
        )
        result[item["name"]] = {
            **machine,
            "definition": document(machine["definition"]),
            "Tags": aws.list_tags_for_resource(resourceArn=arn)["tags"],
            "Executions": sum(1 for _ in executions),
        }
    return result


@reader("rules")
def rules(region: str) -> Things:
    """Event rules with targets and tags."""
    aws = client("events", region)
    result = {}
    for item in every(aws, "list_rules", "Rules"):
        name = item["Name"]
        result[name] = {
            **aws.describe_rule(Name=name),
            "Targets": list(
                every(aws, "list_targets_by_rule", "Targets", Rule=name)
            ),
            "Tags": aws.list_tags_for_resource(ResourceARN=item["Arn"])["Tags"],
        }
    return result


@reader("stacks")
def stacks(region: str) -> Things:
    """CloudFormation stacks and what they consist of."""
    aws = client("cloudformation", region)
    result = {}
    for stack in every(aws, "describe_stacks", "Stacks"):
        name = stack["StackName"]
        resources = every(
            aws, "list_stack_resources", "StackResourceSummaries", StackName=name
        )
        result[name] = {
            **stack,
            "Resources": {
                r["LogicalResourceId"]: r["PhysicalResourceId"] for r in resources
            },
        }
    return result


def roles() -> Things:
    """IAM roles with policies and tags."""
    iam = client("iam", HOME)
    result = {}
    for item in every(iam, "list_roles", "Roles"):
        key = {"RoleName": item["RoleName"]}
        inline = every(iam, "list_role_policies", "PolicyNames", **key)
        result[item["RoleName"]] = {
            **iam.get_role(**key)["Role"],
            "Policies": {
                name: iam.get_role_policy(**key, PolicyName=name)["PolicyDocument"]
                for name in inline
            },
            "Attached": [
                policy["PolicyArn"]
                for policy in every(
                    iam, "list_attached_role_policies", "AttachedPolicies", **key
                )
            ],
        }
    return result


def instance_profiles() -> Things:
    """IAM instance profiles and the roles in them."""
    iam = client("iam", HOME)
    return {
        profile["InstanceProfileName"]: {
            "Arn": profile["Arn"],
            "Roles": [role["RoleName"] for role in profile["Roles"]],
        }
        for profile in every(iam, "list_instance_profiles", "InstanceProfiles")
    }


def hosted_zones() -> Things:
    """Route 53 zones with their records."""
    route53 = client("route53", HOME)
    result = {}
    for zone in every(route53, "list_hosted_zones", "HostedZones"):
        records = every(
            route53,
            "list_resource_record_sets",
            "ResourceRecordSets",
            HostedZoneId=zone["Id"],
        )
        result[zone["Id"]] = {
            **zone,
            "Records": {f"{r['Name']} {r['Type']}": r for r in records},
        }
    return result


global_readers.update(
    roles=roles,
    instance_profiles=instance_profiles,
    hosted_zones=hosted_zones,
)
