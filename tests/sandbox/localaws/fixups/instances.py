"""EC2 instances: everything a launch asks for is there afterwards.

moto has three ways to make an instance (RunInstances, a stack, an Auto
Scaling group) and each of them forgets other properties.  Here all three end
in ``launch()``, which takes what RunInstances and a launch template call a
launch, and honours all of it that this project reads back.
"""

from __future__ import annotations

import copy
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.instances import (
    Instance,
    InstanceBackend,
    MetadataOptions,
    Reservation,
)
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.utils import parse_user_data

from .patching import fixup, wrap

Launch = dict[str, Any]
Tags = dict[str, str]


def as_bool(value: Any) -> bool:
    """A boolean as templates write it: ``true``, ``"true"``, ``"True"``."""
    return str(value).lower() == "true"


def merged(template: Launch, request: Launch) -> Launch:
    """A launch template's data, overridden by what the request says."""
    result = copy.deepcopy(template)
    for key, value in request.items():
        if key == "TagSpecifications":
            result.setdefault(key, [])
            result[key] = [*result[key], *value]
        elif value not in (None, "", [], {}):
            result[key] = value
    return result


def launch(
    backend: EC2Backend,
    data: Launch,
    count: int = 1,
    instance_tags: Tags | None = None,
    template: dict[str, Any] | None = None,
) -> Reservation:
    """Start instances with every property that ``data`` names.

    ``template`` refers to the launch template they come from: instances then
    carry its id and version in two ``aws:ec2launchtemplate:`` tags.
    """
    nics = copy.deepcopy(data.get("NetworkInterfaces") or [])
    primary = next((n for n in nics if int(n.get("DeviceIndex", 0)) == 0), {})
    groups = primary.get("Groups") or data.get("SecurityGroupIds") or []
    kwargs: dict[str, Any] = {
        "instance_type": data.get("InstanceType") or "m1.small",
        "is_instance_type_default": False,
        "placement": (data.get("Placement") or {}).get("AvailabilityZone"),
        "region_name": backend.region_name,
        "subnet_id": primary.get("SubnetId") or data.get("SubnetId"),
        "key_name": data.get("KeyName"),
        "private_ip": primary.get("PrivateIpAddress")
        or data.get("PrivateIpAddress"),
        "associate_public_ip": primary.get("AssociatePublicIpAddress"),
        "ebs_optimized": as_bool(data.get("EbsOptimized", False)),
        "disable_api_stop": as_bool(data.get("DisableApiStop", False)),
        "instance_initiated_shutdown_behavior": data.get(
            "InstanceInitiatedShutdownBehavior"
        ),
        "monitoring_state": "enabled"
        if as_bool((data.get("Monitoring") or {}).get("Enabled"))
        else "disabled",
        "metadata_options": data.get("MetadataOptions") or {},
        "client_token": data.get("ClientToken"),
        # An empty list keeps moto from making volumes: make_volumes() does.
        "block_device_mappings": [],
    }
    reservation = backend.run_instances(
        data["ImageId"],
        count,
        data.get("UserData"),
        [] if groups else data.get("SecurityGroups") or [],
        **kwargs,
    )
    wanted = [backend.get_security_group_from_id(group) for group in groups]
    for instance in reservation.instances:
        finish(backend, instance, data, wanted or instance.security_groups)
        if template:
            instance.add_tags(
                {
                    "aws:ec2launchtemplate:id": template["id"],
                    "aws:ec2launchtemplate:version": str(template["version"]),
                }
            )
        instance.add_tags(tags_for(data, "instance"))
        instance.add_tags(instance_tags or {})
    return reservation


def finish(
    backend: EC2Backend, instance: Instance, data: Launch, groups: list[Any]
) -> None:
    """Give a new instance what moto's RunInstances leaves out."""
    instance.disable_api_termination = as_bool(
        data.get("DisableApiTermination", False)
    )
    if options := data.get("MetadataOptions"):
        # moto keeps the hop limit of a request as text.
        instance.metadata_options = MetadataOptions(options)
    placement = data.get("Placement") or {}
    instance.placement.group_name = placement.get("GroupName") or ""
    instance.placement.tenancy = placement.get("Tenancy") or "default"
    if placement.get("PartitionNumber"):
        instance.placement.partition_number = placement["PartitionNumber"]
    if options := data.get("CpuOptions"):
        instance.cpu_options = {
            "CoreCount": int(options["CoreCount"]),
            "ThreadsPerCore": int(options["ThreadsPerCore"]),
        }
    if instance.platform and instance.platform.lower() != "windows":
        # AWS names no platform but Windows.
        instance.platform = None
    for nic in instance.nics.values():
        nic.delete_on_termination = True
        if groups:
            nic._group_set = list(groups)
    instance.security_groups = list(
        groups or (instance.nics[0]._group_set if instance.nics else [])
    )
    if profile := data.get("IamInstanceProfile"):
        backend.associate_iam_instance_profile(
            instance.id,
            iam_instance_profile_name=profile.get("Name"),
            iam_instance_profile_arn=profile.get("Arn"),
        )
    make_volumes(backend, instance, data)


def make_volumes(
    backend: EC2Backend, instance: Instance, data: Launch
) -> None:
    """The image's volumes, changed and added to by the request's mappings."""
    images = backend.describe_images(filters={"image-id": instance.image_id})
    mappings: dict[str, dict[str, Any]] = {}
    root = instance.root_device_name or "/dev/sda1"
    if images:
        size = 8
        snapshot = getattr(images[0], "ebs_snapshot", None)
        if snapshot is not None:
            size = snapshot.volume.size
        mappings[root] = {
            "VolumeSize": size,
            "VolumeType": "gp2",
            "DeleteOnTermination": True,
        }
    for mapping in data.get("BlockDeviceMappings") or []:
        device = mapping["DeviceName"]
        if mapping.get("NoDevice") is not None:
            mappings.pop(device, None)
        elif ebs := mapping.get("Ebs"):
            given = {k: v for k, v in ebs.items() if v is not None}
            mappings[device] = {**mappings.get(device, {}), **given}
    for device, ebs in mappings.items():
        volume = backend.create_volume(
            size=int(ebs["VolumeSize"]),
            zone_name=instance.placement.zone,
            snapshot_id=ebs.get("SnapshotId"),
            encrypted=as_bool(ebs.get("Encrypted", False)),
            kms_key_id=ebs.get("KmsKeyId"),
            volume_type=ebs.get("VolumeType") or "gp2",
            iops=int(ebs["Iops"]) if ebs.get("Iops") else None,
            throughput=int(ebs["Throughput"])
            if ebs.get("Throughput")
            else (125 if ebs.get("VolumeType") == "gp3" else None),
        )
        backend.attach_volume(
            volume.id,
            instance.id,
            device,
            # The root volume goes with its instance unless told otherwise.
            as_bool(ebs.get("DeleteOnTermination", device == root)),
        )
        volume.add_tags(tags_for(data, "volume"))


def tags_for(data: Launch, resource_type: str) -> Tags:
    """The tags that a launch asks for on one type of resource."""
    return {
        tag["Key"]: tag["Value"]
        for specification in data.get("TagSpecifications") or []
        if specification["ResourceType"] == resource_type
        for tag in specification["Tags"]
    }


@fixup
def run_instances_honours_the_request() -> None:
    """RunInstances launches what the request and its template ask for.

    moto ignores termination protection, placement group, tenancy and CPU
    options of a request, IOPS and throughput of a volume, and of a launch
    template also interfaces, profile, metadata options and volume tags.
    """

    @wrap(InstanceResponse, "run_instances")
    def run_instances(_original: Any, self: InstanceResponse) -> ActionResult:
        self.error_on_dryrun()
        request = dict(self._get_params())
        if request.get("UserData"):
            request["UserData"] = parse_user_data(request["UserData"])
        template = None
        data = request
        if specification := request.get("LaunchTemplate"):
            version = self.ec2_backend._get_template_from_args(specification)
            template = {"id": version.template.id, "version": version.number}
            data = merged(version.data, request)
        reservation = launch(
            self.ec2_backend,
            data,
            count=int(request.get("MinCount", 1)),
            template=template,
        )
        return ActionResult(reservation)


@fixup
def stack_instances_have_all_their_properties() -> None:
    """An ``AWS::EC2::Instance`` is launched as its template says.

    moto ignores SecurityGroupIds, MetadataOptions, DisableApiTermination,
    PlacementGroupName, Tenancy, EbsOptimized, CpuOptions, interfaces, and
    the IOPS, throughput and encryption of volumes.
    """

    @classmethod
    def create(
        cls: type[Instance],
        resource_name: str,
        cloudformation_json: Any,
        account_id: str,
        region_name: str,
        **kwargs: Any,
    ) -> Instance:
        properties = cloudformation_json["Properties"]
        backend = ec2_backends[account_id][region_name]
        data = dict(properties)
        data["NetworkInterfaces"] = [
            {"Groups": nic.get("GroupSet"), **nic}
            for nic in properties.get("NetworkInterfaces") or []
        ]
        data["Placement"] = {
            "GroupName": properties.get("PlacementGroupName"),
            "Tenancy": properties.get("Tenancy"),
            "AvailabilityZone": properties.get("AvailabilityZone"),
        }
        if name := properties.get("IamInstanceProfile"):
            data["IamInstanceProfile"] = {"Name": name}
        tags = {t["Key"]: t["Value"] for t in properties.get("Tags") or []}
        return launch(backend, data, instance_tags=tags).instances[0]

    Instance.create_from_cloudformation_json = create


@fixup
def security_groups_are_those_of_the_first_interface() -> None:
    """An instance's groups are those of its first interface, in one order.

    moto keeps two lists, reports the union of both on the interface, in the
    random order of a set, and none on an instance launched with interfaces.
    """

    NetworkInterface.group_set = property(lambda self: self._group_set)

    @wrap(InstanceBackend, "modify_instance_security_groups")
    def modify(
        original: Any, self: EC2Backend, instance_id: str, groups: list[str]
    ) -> Instance:
        instance = original(self, instance_id, groups)
        if 0 in instance.nics:
            instance.nics[0]._group_set = list(instance.security_groups)
        return instance


class OperationNotPermitted(EC2ClientError):
    """TerminateInstances named an instance that is protected against it."""

    def __init__(self, instance_id: str) -> None:
        super().__init__(
            "OperationNotPermitted",
            f"The instance '{instance_id}' may not be terminated. Modify its "
            "'disableApiTermination' instance attribute and try again.",
        )


@fixup
def one_protected_instance_fails_its_zone() -> None:
    """A protected instance saves the others of its zone, and only these.

    AWS: "If you specify multiple instances and the request fails [...] none
    of the instances are terminated" holds for each Availability Zone; those
    of other zones are terminated, and the call fails all the same.  moto
    terminates whatever comes before the protected one.  An instance that is
    terminated already is no obstacle.
    """

    @wrap(InstanceBackend, "terminate_instances")
    def terminate(
        original: Any, self: EC2Backend, instance_ids: list[str]
    ) -> list[Any]:
        instances = self.get_multi_instances_by_id(list(instance_ids))
        protected = [
            instance
            for instance in instances
            if instance.disable_api_termination
            and instance.state != "terminated"
        ]
        if not protected:
            for instance in instances:
                instance.disable_api_termination = False
            return original(self, instance_ids)
        zones = {instance.placement.zone for instance in protected}
        others = [
            instance.id
            for instance in instances
            if instance.placement.zone not in zones
        ]
        if others:
            original(self, others)
            forget_terminated(self, others)
        raise OperationNotPermitted(protected[0].id)


def forget_terminated(backend: EC2Backend, instance_ids: list[str]) -> None:
    """What TerminateInstances' response handler does in moto afterwards."""
    from moto.autoscaling import autoscaling_backends
    from moto.elbv2 import elbv2_backends

    account, region = backend.account_id, backend.region_name
    autoscaling_backends[account][region].notify_terminate_instances(
        instance_ids
    )
    elbv2_backends[account][region].notify_terminate_instances(instance_ids)


@fixup
def terminated_instances_lose_what_they_had() -> None:
    """A terminated instance is described, but as an empty shell.

    On AWS its interfaces go (those that are to go), the others become
    available again, and DescribeInstances shows neither network, addresses,
    groups nor volumes.  moto leaves every interface "in-use" for ever, and
    its address taken.
    """

    @wrap(Instance, "terminate")
    def terminate(original: Any, self: Instance) -> Any:
        if self.state == "terminated":
            return copy.copy(self._state)
        nics = list(self.nics.values())
        gone = [nic for nic in nics if nic.delete_on_termination]
        for nic in nics:
            nic.delete_on_termination = False
        previous = original(self)
        for nic in nics:
            nic.instance = None
            nic.attachment_id = None
            nic.attach_time = None
            nic.status = "available"
            nic.device_index = None
            if nic in gone:
                self.ec2_backend.enis.pop(nic.id, None)
                for address in nic.private_ip_addresses:
                    nic.subnet.del_subnet_ip(address["PrivateIpAddress"])
        self.nics = {}
        self._subnet_id = None
        self.security_groups = []
        self.iam_instance_profile = None
        return previous

    def without_network(name: str) -> None:
        original = getattr(Instance, name)

        def value(self: Instance) -> Any:
            return original.fget(self) if self.nics else None

        setattr(Instance, name, property(value))

    for name in (
        "private_ip",
        "private_ip_address",
        "private_dns_name",
        "public_ip",
        "public_ip_address",
        "public_dns_name",
    ):
        without_network(name)

    Instance.network_interfaces = property(
        lambda self: [self.nics[index] for index in sorted(self.nics)]
    )
    for name in ("subnet_id", "vpc_id"):
        without_subnet(name)


def without_subnet(name: str) -> None:
    """Let an instance that has no interface have no subnet and no VPC."""
    original = getattr(Instance, name)

    def value(self: Instance) -> Any:
        if self.state == "terminated":
            return None
        return original.fget(self)

    setattr(Instance, name, property(value))


@fixup
def volumes_say_when_they_go() -> None:
    """DescribeVolumes reports DeleteOnTermination of an attachment.

    moto leaves it out, although DescribeInstances has it.
    """
    from moto.ec2.models.elastic_block_store import VolumeAttachment

    def delete_on_termination(self: VolumeAttachment) -> bool:
        block = self.instance.block_device_mapping.get(self.device)
        return bool(block and block.delete_on_termination)

    VolumeAttachment.delete_on_termination = property(delete_on_termination)


@fixup
def terminated_instances_have_no_attributes_to_change() -> None:
    """ModifyInstanceAttribute refuses a terminated instance.

    AWS: IncorrectInstanceState.  moto changes it.
    """

    @wrap(InstanceBackend, "modify_instance_attribute")
    def modify(
        original: Any, self: EC2Backend, instance_id: str, key: str, value: Any
    ) -> Instance:
        # moto itself clears the profile of an instance that it terminates.
        if (
            self.get_instance(instance_id).state == "terminated"
            and key != "iam_instance_profile"
        ):
            raise EC2ClientError(
                "IncorrectInstanceState",
                f"The instance '{instance_id}' is not in a state from which "
                "its attributes can be modified.",
            )
        return original(self, instance_id, key, value)
