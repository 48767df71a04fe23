"""CloudFormation: what discovery reads."""

from __future__ import annotations

from typing import Any

from moto.cloudformation.models import CloudFormationBackend
from moto.cloudformation.responses import CloudFormationResponse
from moto.core.responses import ActionResult
from moto.ec2.models import ec2_backends
from moto.elb.models import LoadBalancer, elb_backends

from .patching import fixup, page, wrap

RESOURCES_IN_A_PAGE = 100


@fixup
def stack_resources_come_in_pages() -> None:
    """ListStackResources gives 100 resources and a token for the rest.

    moto gives all of them at once.
    """

    @wrap(CloudFormationResponse, "list_stack_resources")
    def list_stack_resources(
        original: Any, self: CloudFormationResponse
    ) -> ActionResult:
        result = dict(original(self).result)
        result["StackResourceSummaries"], result["NextToken"] = page(
            result["StackResourceSummaries"],
            self._get_param("NextToken"),
            RESOURCES_IN_A_PAGE,
        )
        return ActionResult(result)


@fixup
def stack_lists_come_in_pages() -> None:
    """ListStacks gives 100 stacks and a token for the rest.

    moto gives all of them at once.
    """

    @wrap(CloudFormationResponse, "list_stacks")
    def list_stacks(original: Any, self: CloudFormationResponse) -> ActionResult:
        result = dict(original(self).result)
        result["StackSummaries"], result["NextToken"] = page(
            list(result["StackSummaries"]),
            self._get_param("NextToken"),
            RESOURCES_IN_A_PAGE,
        )
        return ActionResult(result)


@fixup
def protected_instances_keep_their_stack() -> None:
    """A stack with a protected instance can not be deleted: DELETE_FAILED.

    moto terminates the instance all the same.
    """
    from moto.cloudformation.models import Stack
    from moto.ec2.models.instances import Instance

    @wrap(CloudFormationBackend, "delete_stack")
    def delete_stack(
        original: Any, self: CloudFormationBackend, name_or_stack_id: str
    ) -> None:
        for stack in list(self.stacks.values()):
            if name_or_stack_id not in (stack.name, stack.stack_id):
                continue
            if any(
                isinstance(resource, Instance)
                and resource.disable_api_termination
                and resource.state != "terminated"
                for resource in Stack.stack_resources.fget(stack)
            ):
                stack.status = "DELETE_FAILED"
                return
        original(self, name_or_stack_id)


@fixup
def stack_load_balancers_are_in_their_subnets() -> None:
    """A stack's classic load balancer has subnets, groups and a short name.

    moto ignores Subnets, SecurityGroups and Tags, and gives it a name longer
    than the 32 characters that AWS allows.
    """

    @classmethod
    def create(
        cls: type[LoadBalancer],
        resource_name: str,
        cloudformation_json: Any,
        account_id: str,
        region_name: str,
        **kwargs: Any,
    ) -> LoadBalancer:
        properties = cloudformation_json["Properties"]
        backend = elb_backends[account_id][region_name]
        ec2 = ec2_backends[account_id][region_name]
        subnets = properties.get("Subnets") or []
        zones = properties.get("AvailabilityZones") or [
            ec2.get_subnet(subnet).availability_zone for subnet in subnets
        ]
        balancer = backend.create_load_balancer(
            name=properties.get("LoadBalancerName") or shortened(resource_name),
            zones=zones,
            ports=[
                {
                    **port,
                    "LoadBalancerPort": int(port["LoadBalancerPort"]),
                    "InstancePort": int(port["InstancePort"]),
                }
                for port in properties["Listeners"]
            ],
            scheme=properties.get("Scheme") or "internet-facing",
            subnets=subnets,
            security_groups=properties.get("SecurityGroups"),
        )
        backend.register_instances(
            balancer.name, properties.get("Instances") or []
        )
        if check := properties.get("HealthCheck"):
            backend.configure_health_check(
                load_balancer_name=balancer.name,
                timeout=check["Timeout"],
                healthy_threshold=check["HealthyThreshold"],
                unhealthy_threshold=check["UnhealthyThreshold"],
                interval=check["Interval"],
                target=check["Target"],
            )
        for tag in properties.get("Tags") or []:
            balancer.tags[tag["Key"]] = tag["Value"]
        return balancer

    LoadBalancer.create_from_cloudformation_json = create


def shortened(name: str) -> str:
    """A generated name within 32 characters: the unique end is kept."""
    if len(name) <= 32:
        return name
    prefix, _, suffix = name.rpartition("-")
    return f"{prefix[: 31 - len(suffix)].rstrip('-')}-{suffix}"


@fixup
def stack_names_are_cut_in_role_names() -> None:
    """A role or profile of a stack keeps to its length, and its logical id.

    AWS cuts the stack's part of the generated name: 64 characters for a
    role, 128 for an instance profile.  moto does not cut.
    """
    from moto.cloudformation import parsing

    limits = {"AWS::IAM::Role": 64, "AWS::IAM::InstanceProfile": 128}

    @wrap(parsing, "generate_resource_name")
    def generate(
        original: Any, resource_type: str, stack_name: str, logical_id: str
    ) -> str:
        name = original(resource_type, stack_name, logical_id)
        limit = limits.get(resource_type, 255)
        if len(name) <= limit:
            return name
        rest = name[len(stack_name) :]
        return stack_name[: limit - len(rest)] + rest
