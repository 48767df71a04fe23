"""EC2 apart from instances: launch templates, interfaces, placement groups."""

from __future__ import annotations

import copy
from typing import Any

from moto.core.common_models import CloudFormationModel
from moto.core.responses import ActionResult, EmptyResult
from moto.core.types import Base64EncodedString
from moto.ec2.exceptions import (
    EC2ClientError,
    InvalidLaunchTemplateIdNotFound,
    InvalidLaunchTemplateNameNotFoundWithNameError,
)
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.launch_templates import (
    LaunchTemplate,
    LaunchTemplateBackend,
    LaunchTemplateVersion,
)
from moto.ec2.models.tags import TagBackend
from moto.ec2.responses import EC2Response
from moto.ec2.responses.elastic_network_interfaces import (
    ElasticNetworkInterfaces,
)
from moto.ec2.responses.launch_templates import LaunchTemplates
from moto.moto_api._internal import mock_random

from .patching import fixup, page, wrap


@fixup
def launch_template_tags_are_not_its_data() -> None:
    """The template's own tags are not part of what it launches.

    moto adds the ``launch-template`` tags of the creating call to the stored
    launch data, where DescribeLaunchTemplateVersions then shows them.
    """

    @wrap(LaunchTemplateVersion, "__init__")
    def init(
        original: Any,
        self: LaunchTemplateVersion,
        template: LaunchTemplate,
        number: int,
        data: dict[str, Any],
        description: str,
    ) -> None:
        data = dict(data)
        specifications = [
            tags
            for tags in data.pop("TagSpecifications", None) or []
            if tags["ResourceType"] != "launch-template"
        ]
        if specifications:
            data["TagSpecifications"] = specifications
        if data.get("UserData") is None:
            data.pop("UserData", None)
        original(self, template, number, data, description)


@fixup
def launch_template_tags_can_change() -> None:
    """DescribeLaunchTemplates shows the tags a template has now.

    moto shows those that it was created with.
    """

    @wrap(LaunchTemplate, "__init__")
    def init(original: Any, self: LaunchTemplate, *args: Any) -> None:
        original(self, *args)
        self.__dict__.pop("tags", None)

    LaunchTemplate.tags = property(
        lambda self: self.get_tags(),
        lambda self, value: self.__dict__.update(tags=value),
    )


@fixup
def launch_template_calls_can_be_repeated() -> None:
    """A create call with the client token of an earlier one answers alike.

    With other parameters it is refused (IdempotentParameterMismatch).  moto
    ignores the token of CreateLaunchTemplate and CreateLaunchTemplateVersion.
    """

    def once(name: str) -> None:
        @wrap(LaunchTemplates, name)
        def create(original: Any, self: LaunchTemplates) -> ActionResult:
            params = copy.deepcopy(self._get_params())
            token = params.get("ClientToken")
            if token is None:
                return original(self)
            answers = self.ec2_backend.__dict__.setdefault("_by_token", {})
            asked, answer, template_id = answers.get(
                (name, token), (None, None, None)
            )
            if template_id in self.ec2_backend.launch_templates:
                if asked != params:
                    raise EC2ClientError(
                        "IdempotentParameterMismatch",
                        "The request uses the same client token as a "
                        "previous, but non-identical request.",
                    )
                return answer
            result = original(self)
            (document,) = result.result.values()
            answers[(name, token)] = params, result, document["LaunchTemplateId"]
            return result

    once("create_launch_template")
    once("create_launch_template_version")


@fixup
def launch_template_versions_keep_user_data() -> None:
    """A new version takes user data, and what it leaves out from its source.

    moto stores the user data of a second version as plain text, which then
    fails the launch, and ignores SourceVersion.
    """

    @wrap(LaunchTemplate, "create_version")
    def create_version(
        original: Any, self: LaunchTemplate, data: dict[str, Any], description: str
    ) -> LaunchTemplateVersion:
        data = dict(data)
        if isinstance(data.get("UserData"), str):
            data["UserData"] = Base64EncodedString(data["UserData"])
        return original(self, data, description)

    @wrap(LaunchTemplates, "create_launch_template_version")
    def create(original: Any, self: LaunchTemplates) -> ActionResult:
        if source := self._get_param("SourceVersion"):
            name = self._get_param("LaunchTemplateName")
            template = (
                self.ec2_backend.get_launch_template_by_name(name)
                if name
                else self.ec2_backend.get_launch_template(
                    self._get_param("LaunchTemplateId")
                )
            )
            data = copy.deepcopy(template.get_version(source).data)
            data.update(self._get_param("LaunchTemplateData", {}))
            self._get_params()["LaunchTemplateData"] = data
        return original(self)


@fixup
def deleting_a_missing_launch_template_says_so() -> None:
    """DeleteLaunchTemplate of what is gone names name or id, and its code.

    AWS: InvalidLaunchTemplateName.NotFoundException for a name,
    InvalidLaunchTemplateId.NotFound for an id.  moto: MissingParameter for a
    name, and the name's code for an id.
    """

    @wrap(LaunchTemplateBackend, "delete_launch_template")
    def delete(
        original: Any, self: EC2Backend, name: str | None, tid: str | None
    ) -> LaunchTemplate:
        if name and name not in self.launch_template_name_to_ids:
            raise InvalidLaunchTemplateNameNotFoundWithNameError(name)
        if tid and tid not in self.launch_templates:
            raise InvalidLaunchTemplateIdNotFound(tid)
        return original(self, name, tid)


@fixup
def launch_templates_are_listed_in_pages() -> None:
    """DescribeLaunchTemplates gives up to 200 at a time, and a token.

    moto gives the first 15 and nothing that says there are more; an unknown
    id among those asked for is ignored.
    """

    @wrap(LaunchTemplates, "describe_launch_templates")
    def describe(original: Any, self: LaunchTemplates) -> ActionResult:
        params = self._get_params()
        for template_id in params.get("LaunchTemplateIds") or []:
            self.ec2_backend.get_launch_template(template_id)
        size, token = params.get("MaxResults"), params.get("NextToken")
        params["MaxResults"] = 1_000_000
        result = original(self).result
        result["LaunchTemplates"], result["NextToken"] = page(
            result["LaunchTemplates"], token, int(size or 200)
        )
        return ActionResult(result)

    @wrap(LaunchTemplates, "describe_launch_template_versions")
    def describe_versions(
        original: Any, self: LaunchTemplates
    ) -> ActionResult:
        params = self._get_params()
        size, token = params.get("MaxResults"), params.get("NextToken")
        params["MaxResults"] = 1_000_000
        result = original(self).result
        result["LaunchTemplateVersions"], result["NextToken"] = page(
            result["LaunchTemplateVersions"], token, int(size or 200)
        )
        return ActionResult(result)


@fixup
def launch_template_versions_can_be_deleted() -> None:
    """DeleteLaunchTemplateVersions removes versions other than the default.

    moto does not know the call.  Numbers are never given twice.
    """

    @wrap(LaunchTemplate, "get_version")
    def get_version(
        original: Any, self: LaunchTemplate, num: Any
    ) -> LaunchTemplateVersion:
        if str(num).lower() in ("$latest", "$default"):
            return original(self, num)
        for version in self.versions:
            if str(version.number) == str(num):
                return version
        return original(self, 1_000_000)

    LaunchTemplate.default_version = lambda self: self.get_version(
        self.default_version_number
    )

    @wrap(LaunchTemplate, "create_version")
    def create_version(
        original: Any, self: LaunchTemplate, data: dict[str, Any], description: str
    ) -> LaunchTemplateVersion:
        version = original(self, data, description)
        self._last_number = getattr(self, "_last_number", 0) + 1
        version.number = self._last_number
        return version

    def delete(self: LaunchTemplates) -> ActionResult:
        name = self._get_param("LaunchTemplateName")
        template = (
            self.ec2_backend.get_launch_template_by_name(name)
            if name
            else self.ec2_backend.get_launch_template(
                self._get_param("LaunchTemplateId")
            )
        )
        done, failed = [], []
        for number in self._get_param("Versions", []):
            entry = {
                "LaunchTemplateId": template.id,
                "LaunchTemplateName": template.name,
                "VersionNumber": int(number),
            }
            known = [v for v in template.versions if str(v.number) == number]
            if known and int(number) != template.default_version_number:
                template.versions.remove(known[0])
                done.append(entry)
            else:
                code = "unexpectedError" if known else "launchTemplateVersionDoesNotExist"
                failed.append({**entry, "ResponseError": {"Code": code}})
        return ActionResult(
            {
                "SuccessfullyDeletedLaunchTemplateVersions": done,
                "UnsuccessfullyDeletedLaunchTemplateVersions": failed,
            }
        )

    EC2Response.delete_launch_template_versions = delete


@fixup
def interfaces_can_be_told_to_go_with_their_instance() -> None:
    """ModifyNetworkInterfaceAttribute sets DeleteOnTermination.

    moto accepts the call and ignores it.
    """

    @wrap(ElasticNetworkInterfaces, "modify_network_interface_attribute")
    def modify(
        original: Any, self: ElasticNetworkInterfaces
    ) -> EmptyResult:
        attachment = self._get_param("Attachment") or {}
        value = attachment.get("DeleteOnTermination")
        if value is None:
            return original(self)
        eni = self.ec2_backend.get_network_interface(
            self._get_param("NetworkInterfaceId")
        )
        if eni.attachment_id != attachment.get("AttachmentId"):
            raise EC2ClientError(
                "InvalidAttachmentID.NotFound",
                f"Attachment {attachment.get('AttachmentId')} not found.",
            )
        eni.delete_on_termination = str(value).lower() == "true"
        return EmptyResult()


@fixup
def without_a_tag_all_are_deleted() -> None:
    """DeleteTags that names no tag removes all that are a user's.

    moto removes none.
    """

    @wrap(TagBackend, "delete_tags")
    def delete(
        original: Any,
        self: EC2Backend,
        resource_ids: list[str],
        tags: dict[str, str | None],
    ) -> bool:
        for resource_id in resource_ids if not tags else []:
            for key in list(self.tags[resource_id]):
                if not key.startswith("aws:"):
                    del self.tags[resource_id][key]
        return original(self, resource_ids, tags)


@fixup
def interfaces_in_use_are_not_deleted() -> None:
    """DeleteNetworkInterface refuses an interface that is attached.

    AWS: InvalidParameterValue.  moto deletes it.
    """
    from moto.ec2.models.elastic_network_interfaces import (
        NetworkInterfaceBackend,
    )

    @wrap(NetworkInterfaceBackend, "delete_network_interface")
    def delete(original: Any, self: EC2Backend, eni_id: str) -> None:
        eni = self.enis.get(eni_id)
        if eni is not None and eni.attachment_id:
            raise EC2ClientError(
                "InvalidParameterValue",
                f"Network interface '{eni_id}' is currently in use.",
            )
        original(self, eni_id)


class PlacementGroup(CloudFormationModel):
    """``AWS::EC2::PlacementGroup``, which moto does not have."""

    def __init__(self, backend: EC2Backend, name: str, strategy: str) -> None:
        self.ec2_backend = backend
        self.id = f"pg-{mock_random.get_random_hex(17)}"
        self.group_id = self.id
        self.group_name = name
        self.strategy = strategy
        self.state = "available"

    @property
    def group_arn(self) -> str:
        """The ARN, as DescribePlacementGroups has it."""
        backend = self.ec2_backend
        return (
            f"arn:{backend.partition}:ec2:{backend.region_name}:"
            f"{backend.account_id}:placement-group/{self.group_name}"
        )

    @property
    def physical_resource_id(self) -> str:
        """CloudFormation refers to a placement group by its name."""
        return self.group_name

    @staticmethod
    def cloudformation_name_type() -> str:
        """The property that would set the name."""
        return "GroupName"

    @staticmethod
    def cloudformation_type() -> str:
        """The type's name in a template."""
        return "AWS::EC2::PlacementGroup"

    @classmethod
    def create_from_cloudformation_json(
        cls,
        resource_name: str,
        cloudformation_json: Any,
        account_id: str,
        region_name: str,
        **kwargs: Any,
    ) -> PlacementGroup:
        """Make the group of a stack."""
        backend = ec2_backends[account_id][region_name]
        properties = cloudformation_json["Properties"]
        group = cls(
            backend, resource_name, properties.get("Strategy", "cluster")
        )
        placement_groups(backend)[group.group_name] = group
        return group

    @classmethod
    def delete_from_cloudformation_json(
        cls,
        resource_name: str,
        cloudformation_json: Any,
        account_id: str,
        region_name: str,
    ) -> None:
        """Remove the group with its stack."""
        backend = ec2_backends[account_id][region_name]
        placement_groups(backend).pop(resource_name, None)


def placement_groups(backend: EC2Backend) -> dict[str, PlacementGroup]:
    """The placement groups of one region, by name."""
    return backend.__dict__.setdefault("_placement_groups", {})


@fixup
def placement_groups_exist() -> None:
    """Stacks make placement groups and DescribePlacementGroups lists them.

    moto has neither; the class above serves as soon as it is defined.
    """
    from moto.cloudformation import parsing

    for name in ("get_model_list", "get_model_map", "get_name_type_map"):
        cached = getattr(parsing, name, None)
        if hasattr(cached, "cache_clear"):
            cached.cache_clear()

    def describe(self: EC2Response) -> ActionResult:
        groups = placement_groups(self.ec2_backend)
        names = self._get_param("GroupNames", [])
        for name in names:
            if name not in groups:
                raise EC2ClientError(
                    "InvalidPlacementGroup.Unknown",
                    f"The Placement Group '{name}' is unknown.",
                )
        return ActionResult(
            {
                "PlacementGroups": [
                    group
                    for name, group in groups.items()
                    if not names or name in names
                ]
            }
        )

    EC2Response.describe_placement_groups = describe
