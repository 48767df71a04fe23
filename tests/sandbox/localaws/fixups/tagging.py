"""The tagging API: which resources it knows, and its pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moto.apigateway.models import apigateway_backends
from moto.core.resource_tagging import (
    TaggedResource,
    make_tag_matcher,
    match_resource_type,
)
from moto.core.responses import ActionResult
from moto.ec2.models import ec2_backends
from moto.elbv2.models import elbv2_backends
from moto.events.models import events_backends
from moto.resourcegroupstaggingapi.models import ResourceGroupsTaggingAPIBackend
from moto.resourcegroupstaggingapi.responses import (
    ResourceGroupsTaggingAPIResponse,
)

from .patching import fixup, page, wrap

DEFAULT_PAGE = 50

# moto's name of a resource type, and AWS's.
RENAMED = {
    "elb:loadbalancer": "elasticloadbalancing:loadbalancer",
    "logs:loggroup": "logs:log-group",
}


def missing(
    account: str, region: str
) -> Iterator[TaggedResource]:
    """The tagged resources that moto's tagging API leaves out."""
    events = events_backends[account][region]
    for bus in events.event_buses.values():
        for rule in bus.rules.values():
            tags = events.tagger.get_tag_dict_for_resource(rule.arn)
            yield TaggedResource(rule.arn, tags, "events:rule")
    gateway = apigateway_backends[account][region]
    prefix = f"arn:aws:apigateway:{region}::"
    for api in gateway.apis.values():
        arn = f"{prefix}/restapis/{api.id}"
        yield TaggedResource(arn, dict(api.tags or {}), "apigateway:restapis")
        for stage in api.stages.values():
            yield TaggedResource(
                f"{arn}/stages/{stage.name}",
                dict(stage.tags or {}),
                "apigateway:stages",
            )
    for key in gateway.keys.values():
        yield TaggedResource(
            f"{prefix}/apikeys/{key.id}",
            dict(key.tags or {}),
            "apigateway:apikeys",
        )
    for plan in gateway.usage_plans.values():
        yield TaggedResource(
            f"{prefix}/usageplans/{plan.id}",
            dict(plan.tags or {}),
            "apigateway:usageplans",
        )
    ec2 = ec2_backends[account][region]
    for template in ec2.launch_templates.values():
        yield TaggedResource(
            f"arn:aws:ec2:{region}:{account}:launch-template/{template.id}",
            dict(ec2.tags.get(template.id, {})),
            "ec2:launch-template",
        )
    balancers = elbv2_backends[account][region]
    for balancer in balancers.load_balancers.values():
        for listener in balancer.listeners.values():
            yield TaggedResource(
                listener.arn,
                balancers.tagging_service.get_tag_dict_for_resource(listener.arn),
                "elasticloadbalancing:listener",
            )


@fixup
def tagged_resources_are_complete() -> None:
    """GetResources knows rules, APIs, keys, plans, templates and listeners.

    moto does not, and calls log groups and classic load balancers by names
    of its own.  Roles and Auto Scaling groups are missing on AWS too.
    """

    @wrap(ResourceGroupsTaggingAPIBackend, "_get_resources_generator")
    def resources(
        original: Any,
        self: ResourceGroupsTaggingAPIBackend,
        tag_filters: list[dict[str, Any]] | None = None,
        resource_type_filters: list[str] | None = None,
        resource_arn_list: list[str] | None = None,
    ) -> Iterator[TaggedResource]:
        matches = make_tag_matcher(tag_filters)
        known = original(self, tag_filters, None, resource_arn_list)
        for resource in [*known, *missing(self.account_id, self.region_name)]:
            kind = RENAMED.get(resource.resource_type, resource.resource_type)
            if (
                resource.tags
                and matches(resource.tags)
                and match_resource_type(kind, resource_type_filters)
                and resource.arn in (resource_arn_list or [resource.arn])
            ):
                yield resource


@fixup
def tagged_resources_come_in_pages_of_resources() -> None:
    """A page of GetResources has ResourcesPerPage resources, 50 by default.

    TagsPerPage counts only where it is given, and the last page has an empty
    token.  moto always limits a page to 100 tags as well.
    """

    @wrap(ResourceGroupsTaggingAPIResponse, "get_resources")
    def get_resources(
        original: Any, self: ResourceGroupsTaggingAPIResponse
    ) -> ActionResult:
        params = self._get_params()
        if params.get("TagsPerPage"):
            return original(self)
        found = list(
            self.backend._get_resources_generator(
                params.get("TagFilters"),
                params.get("ResourceTypeFilters"),
                params.get("ResourceARNList"),
            )
        )
        shown, token = page(
            found,
            params.get("PaginationToken"),
            int(params.get("ResourcesPerPage") or DEFAULT_PAGE),
        )
        return ActionResult(
            {
                "PaginationToken": token or "",
                "ResourceTagMappingList": [
                    {
                        "ResourceARN": resource.arn,
                        "Tags": [
                            {"Key": key, "Value": value}
                            for key, value in resource.tags.items()
                        ],
                    }
                    for resource in shown
                ],
            }
        )
