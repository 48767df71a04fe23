"""Auto Scaling groups as on AWS: moto's weakest part for this project."""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from moto.autoscaling.exceptions import AutoscalingClientError, ValidationError
from moto.autoscaling.models import (
    ASG_NAME_TAG,
    AutoScalingBackend,
    FakeAutoScalingGroup,
    InstanceState,
)
from moto.autoscaling.responses import AutoScalingResponse
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import utcnow
from moto.ec2.models.instances import InstanceBackend

from .instances import launch
from .patching import fixup, page, wrap

MOST_ATTACHED_AT_ONCE = 20
MOST_PROTECTED_AT_ONCE = 50

_acting = threading.local()
# Parallel AttachInstances calls read and write the desired capacity.
_lock = threading.RLock()
_turn = itertools.count()

ADDITIONAL_ATTRIBUTES = {
    # Kept as sent and reported, with what AWS reports where nothing is sent.
    "MaxInstanceLifetime": ("max_instance_lifetime", None),
    "DefaultInstanceWarmup": ("default_instance_warmup", None),
    "InstanceMaintenancePolicy": ("instance_maintenance_policy", None),
    "DeletionProtection": ("deletion_protection", "none"),
    "PlacementGroup": ("placement_group", None),
    "DefaultCooldown": ("default_cooldown", 300),
    "CapacityRebalance": ("capacity_rebalance", None),
    "TerminationPolicies": ("termination_policies", ["Default"]),
}


def group_or_error(
    backend: AutoScalingBackend, name: str
) -> FakeAutoScalingGroup:
    """The group, or what AWS says when there is none."""
    if name not in backend.autoscaling_groups:
        raise ValidationError(
            "AutoScalingGroup name not found - "
            f"AutoScalingGroup '{name}' not found"
        )
    return backend.autoscaling_groups[name]


def record(group: FakeAutoScalingGroup, text: str) -> dict[str, Any]:
    """Write a finished activity into the group's log, newest first."""
    now = utcnow()
    activity = {
        "ActivityId": str(uuid.uuid4()),
        "AutoScalingGroupName": group.name,
        "AutoScalingGroupARN": group.arn,
        "Description": text,
        "Cause": f"At {now:%Y-%m-%dT%H:%M:%SZ} {text}.",
        "StartTime": now,
        "EndTime": now,
        "StatusCode": "Successful",
        "Progress": 100,
        "Details": "{}",
    }
    group.__dict__.setdefault("_activities", []).insert(0, activity)
    return activity


@contextmanager
def auto_scaling_acts() -> Iterator[None]:
    """While this is open, TerminateInstances is Auto Scaling's own call."""
    before = getattr(_acting, "on", False)
    _acting.on = True
    try:
        yield
    finally:
        _acting.on = before


def suspended(group: FakeAutoScalingGroup, *processes: str) -> bool:
    """Whether any of these processes is suspended in the group."""
    return bool(set(processes) & set(group._suspended_processes))


def refuse_sizes(group: FakeAutoScalingGroup, verb: str, count: int) -> None:
    """The error for a change that the group's sizes do not allow."""
    raise ValidationError(
        f"AutoScalingGroup {group.name} has min-size={group.min_size}, "
        f"max-size={group.max_size}, and "
        f"desired-size={group.desired_capacity}. To {verb} {count} "
        "instances, please update the AutoScalingGroup sizes appropriately."
    )


@fixup
def group_names_are_unique() -> None:
    """CreateAutoScalingGroup refuses a name that exists: AlreadyExists.

    moto replaces the group, and forgets its instances.
    """

    @wrap(AutoScalingBackend, "create_auto_scaling_group")
    def create(
        original: Any, self: AutoScalingBackend, name: str, *args: Any, **kwargs: Any
    ) -> FakeAutoScalingGroup:
        if name in self.autoscaling_groups:
            raise AutoscalingClientError(
                "AlreadyExists",
                "AutoScalingGroup by this name already exists - A group "
                f"with the name {name} already exists",
            )
        return original(self, name, *args, **kwargs)


@fixup
def group_sizes_are_limits() -> None:
    """The desired capacity stays between MinSize and MaxSize.

    moto accepts any capacity, at creation, in SetDesiredCapacity and in
    UpdateAutoScalingGroup.
    """

    @wrap(AutoScalingBackend, "create_auto_scaling_group")
    def create(
        original: Any, self: AutoScalingBackend, name: str, *args: Any, **kwargs: Any
    ) -> FakeAutoScalingGroup:
        low, high = kwargs["min_size"], kwargs["max_size"]
        desired = kwargs.get("desired_capacity")
        if low > high:
            raise ValidationError(
                f"Max bound, {high}, must be greater than or equal to "
                f"min bound, {low}"
            )
        if desired is not None and not low <= desired <= high:
            raise ValidationError(
                f"Desired capacity:{desired} must be between the specified "
                f"min size:{low} and max size:{high}"
            )
        return original(self, name, *args, **kwargs)

    @wrap(AutoScalingBackend, "set_desired_capacity")
    def set_desired_capacity(
        original: Any, self: AutoScalingBackend, group_name: str, desired_capacity: int
    ) -> None:
        group = group_or_error(self, group_name)
        desired = desired_capacity
        if desired > group.max_size:
            raise ValidationError(
                f"New SetDesiredCapacity value {desired} is above max value "
                f"{group.max_size} for the AutoScalingGroup."
            )
        # Deleting a group takes it to nothing, whatever its minimum.
        if desired < group.min_size and not getattr(_acting, "on", False):
            raise ValidationError(
                f"New SetDesiredCapacity value {desired} is below min value "
                f"{group.min_size} for the AutoScalingGroup."
            )
        original(self, group_name, desired)

    @wrap(AutoScalingBackend, "update_auto_scaling_group")
    def update(
        original: Any, self: AutoScalingBackend, name: str, *args: Any, **kwargs: Any
    ) -> FakeAutoScalingGroup:
        group = group_or_error(self, name)
        low = kwargs.get("min_size")
        high = kwargs.get("max_size")
        low = group.min_size if low is None else low
        high = group.max_size if high is None else high
        desired = kwargs.get("desired_capacity")
        if low > high:
            raise ValidationError(
                f"Max bound, {high}, must be greater than or equal to "
                f"min bound, {low}"
            )
        if desired is None:
            desired = min(max(group.desired_capacity, low), high)
            if desired != group.desired_capacity:
                kwargs["desired_capacity"] = desired
        elif not low <= desired <= high:
            raise ValidationError(
                f"Desired capacity:{desired} must be between the specified "
                f"min size:{low} and max size:{high}"
            )
        return original(self, name, *args, **kwargs)


@fixup
def group_attributes_are_kept() -> None:
    """What a group is created or updated with is described afterwards.

    moto drops DeletionProtection, MaxInstanceLifetime,
    DefaultInstanceWarmup and InstanceMaintenancePolicy, and at an update
    also DefaultCooldown, CapacityRebalance, PlacementGroup and
    TerminationPolicies.
    """

    def keep(name: str, created: bool) -> None:
        @wrap(AutoScalingResponse, name)
        def call(original: Any, self: AutoScalingResponse) -> ActionResult:
            result = original(self)
            params = self._get_params()
            group = self.autoscaling_backend.autoscaling_groups[
                params["AutoScalingGroupName"]
            ]
            for parameter, (attribute, default) in ADDITIONAL_ATTRIBUTES.items():
                value = params.get(parameter)
                if value is not None:
                    setattr(group, attribute, value)
                elif created:
                    setattr(group, attribute, default)
            return result

    keep("create_auto_scaling_group", created=True)
    keep("update_auto_scaling_group", created=False)


@fixup
def launch_templates_of_a_group_must_exist() -> None:
    """A group's launch template, its version and its image are checked.

    moto answers with EC2's own codes and not with a ValidationError, and not
    at all for a version or an image.
    """

    @wrap(FakeAutoScalingGroup, "_set_launch_configuration")
    def set_launch_configuration(
        original: Any,
        self: FakeAutoScalingGroup,
        name: str,
        template: dict[str, Any],
        mixed_instances_policy: dict[str, Any] | None,
    ) -> None:
        try:
            original(self, name, template, mixed_instances_policy)
            if template and self.ec2_launch_template:
                version = self.ec2_launch_template.get_version(
                    self.launch_template_version
                )
                image = version.image_id
                ec2 = self.autoscaling_backend.ec2_backend
                if image and image not in ec2.amis:
                    raise ValidationError(
                        "You must use a valid fully-formed launch template. "
                        f"The image id '[{image}]' does not exist"
                    )
        except AutoscalingClientError:
            raise
        except ServiceException as error:
            raise ValidationError(
                "You must use a valid fully-formed launch template. "
                f"{error.message}"
            ) from error


@fixup
def attaching_has_its_rules() -> None:
    """AttachInstances takes 20 running instances of the group's zones.

    They may be in no other group, and must fit below MaxSize; the desired
    capacity rises by their number.  moto attaches whatever it is given,
    twice if asked, and computes the capacity from the members.
    """

    @wrap(AutoScalingBackend, "attach_instances")
    def attach(
        original: Any,
        self: AutoScalingBackend,
        group_name: str,
        instance_ids: list[str],
    ) -> None:
        with _lock:
            group = group_or_error(self, group_name)
            check_attached(self, group, instance_ids)
            desired = group.desired_capacity or 0
            original(self, group_name, instance_ids)
            group.desired_capacity = desired + len(instance_ids)
            for instance_id in instance_ids:
                record(group, f"Attaching an existing EC2 instance: {instance_id}")


def check_attached(
    backend: AutoScalingBackend,
    group: FakeAutoScalingGroup,
    instance_ids: list[str],
) -> None:
    """Raise what AWS raises for instances that can not be attached."""
    if len(instance_ids) > MOST_ATTACHED_AT_ONCE:
        raise ValidationError(
            f"You may not attach more than {MOST_ATTACHED_AT_ONCE} instances "
            "at a time."
        )
    if (group.desired_capacity or 0) + len(instance_ids) > group.max_size:
        refuse_sizes(group, "attach", len(instance_ids))
    groups = backend.autoscaling_groups.values()
    member_of = {
        state.instance.id: other.name
        for other in groups
        for state in other.instance_states
    }
    for instance_id in instance_ids:
        instance = backend.ec2_backend.get_instance_by_id(instance_id)
        if instance is None:
            raise ValidationError(
                f"Invalid Instance ID(s): [{instance_id}] specified"
            )
        if instance_id in member_of:
            raise ValidationError(
                f"Instance {instance_id} is already part of "
                f"AutoScalingGroup:{member_of[instance_id]}"
            )
        if instance.state != "running":
            raise ValidationError(
                f"Instance {instance_id} is not in correct state. "
                "Instance(s) must be in 'running' state"
            )
        if instance.availability_zone not in group.availability_zones:
            raise ValidationError(
                f"Instance {instance_id} is not in any of the "
                "AutoScalingGroup's Availability Zones"
            )


@fixup
def detaching_has_its_rules() -> None:
    """DetachInstances takes 20 members and frees them altogether.

    moto ignores what is no member, goes below MinSize, leaves the targets
    registered, and never lets the instance join another group.
    """

    @wrap(AutoScalingBackend, "detach_instances")
    def detach(
        original: Any,
        self: AutoScalingBackend,
        group_name: str,
        instance_ids: list[str],
        should_decrement: bool,
    ) -> list[Any]:
        with _lock:
            group = group_or_error(self, group_name)
            if len(instance_ids) > MOST_ATTACHED_AT_ONCE:
                raise ValidationError(
                    "You may not detach more than "
                    f"{MOST_ATTACHED_AT_ONCE} instances at a time."
                )
            members = {s.instance.id for s in group.instance_states}
            for instance_id in instance_ids:
                if instance_id not in members:
                    raise ValidationError(
                        f"The instance {instance_id} is not part of Auto "
                        f"Scaling group {group_name}."
                    )
            left = (group.desired_capacity or 0) - len(instance_ids)
            if should_decrement and left < group.min_size:
                refuse_sizes(group, "detach", len(instance_ids))
            activities = [
                record(group, f"Detaching EC2 instance: {i}")
                for i in instance_ids
            ]
            # Targets are deregistered before the group looks for them again.
            leave_target_groups(self, group, instance_ids)
            left_behind = [
                state.instance
                for state in group.instance_states
                if state.instance.id in instance_ids
            ]
            original(self, group_name, instance_ids, should_decrement)
            for instance in left_behind:
                instance.__dict__.pop("autoscaling_group", None)
            return activities


def leave_target_groups(
    backend: AutoScalingBackend,
    group: FakeAutoScalingGroup,
    instance_ids: list[str],
) -> None:
    """Deregister instances from the group's target groups that exist.

    One that was terminated has left them already.
    """
    for arn in group.target_group_arns:
        target_group = backend.elbv2_backend.target_groups.get(arn)
        if target_group is None:
            continue
        targets = [{"Id": i} for i in instance_ids if i in target_group.targets]
        if targets:
            target_group.deregister(targets)


@fixup
def members_know_their_own_launch_template() -> None:
    """A member names the template version it was launched from, if any.

    An attached instance has none on AWS.  moto reports the group's template
    with its default version for every member.
    """
    InstanceState.launch_template = property(
        lambda self: getattr(self, "_launched_from", None)
    )


@fixup
def groups_launch_what_their_template_says() -> None:
    """A launched member has everything that the launch template names.

    The group's subnets are used in turn, and their groups and public
    addresses are the template's.  moto ignores the template's interfaces,
    profile, metadata options, protection and volumes, launches into the
    first subnet only, and from the template's default version.
    """

    @wrap(FakeAutoScalingGroup, "replace_autoscaling_group_instances")
    def start(
        original: Any,
        self: FakeAutoScalingGroup,
        count_needed: int,
        propagated_tags: dict[str, str],
    ) -> None:
        if not self.ec2_launch_template:
            original(self, count_needed, propagated_tags)
            return
        subnets = (self.vpc_zone_identifier or "").split(",")
        for _ in range(count_needed):
            launch_member(
                self, subnets[next(_turn) % len(subnets)], propagated_tags
            )


def launch_member(
    group: FakeAutoScalingGroup, subnet: str, propagated_tags: dict[str, str]
) -> None:
    """Launch one member into the subnet."""
    version = group.ec2_launch_template.get_version(
        group.launch_template_version
    )
    template = {"id": version.template.id, "version": version.number}
    data = dict(version.data)
    if subnet:
        data["SubnetId"] = subnet
        data["NetworkInterfaces"] = [
            {**nic, "SubnetId": subnet}
            for nic in data.get("NetworkInterfaces") or []
        ]
    tags = {**propagated_tags, ASG_NAME_TAG: group.name}
    instance = launch(
        group.ec2_backend, data, instance_tags=tags, template=template
    ).instances[0]
    instance.autoscaling_group = group
    state = InstanceState(
        instance,
        protected_from_scale_in=group.new_instances_protected_from_scale_in,
    )
    state._launched_from = {
        "LaunchTemplateId": version.template.id,
        "LaunchTemplateName": version.template.name,
        "Version": str(version.number),
    }
    group.instance_states.append(state)
    record(group, f"Launching a new EC2 instance: {instance.id}")


def launch_in(group: FakeAutoScalingGroup, zone: str) -> None:
    """Launch one member into the group's subnet in the zone."""
    for subnet in (group.vpc_zone_identifier or "").split(","):
        found = group.ec2_backend.get_subnet(subnet)
        if found.availability_zone == zone:
            launch_member(group, subnet, group.get_propagated_tags())
            return


@fixup
def scaling_keeps_its_order() -> None:
    """Scaling in takes unprotected members, and nothing else moves.

    moto terminates members in whatever order, keeps the rest in the random
    order of a set, ignores that Launch or Terminate is suspended, and fails
    at a member with termination protection, which Auto Scaling overrides.
    """

    @wrap(FakeAutoScalingGroup, "set_desired_capacity")
    def set_desired_capacity(
        original: Any, self: FakeAutoScalingGroup, new_capacity: int | None
    ) -> None:
        with _lock:
            wanted = self.min_size if new_capacity is None else new_capacity
            difference = (wanted or 0) - len(self.active_instances())
            if (difference > 0 and suspended(self, "Launch")) or (
                difference < 0 and suspended(self, "Terminate") and not getattr(_acting, "on", False)
            ):
                self.desired_capacity = wanted
                return
            if difference >= 0:
                original(self, new_capacity)
                return
            self.desired_capacity = wanted
            chosen = [
                state
                for state in self.active_instances()
                if not state.protected_from_scale_in
            ]
            terminate_members(self, chosen[:-difference])

    @wrap(InstanceBackend, "terminate_instances")
    def terminate(original: Any, self: Any, instance_ids: list[str]) -> Any:
        if getattr(_acting, "on", False):
            for instance_id in instance_ids:
                instance = self.get_instance(instance_id)
                instance.disable_api_termination = False
        return original(self, instance_ids)


def terminate_members(
    group: FakeAutoScalingGroup, states: list[InstanceState]
) -> None:
    """Let Auto Scaling terminate members, whatever protects them."""
    ids = [state.instance.id for state in states]
    if not ids:
        return
    with _lock, auto_scaling_acts():
        leave_target_groups(group.autoscaling_backend, group, ids)
        group.instance_states = [
            state
            for state in group.instance_states
            if state.instance.id not in ids
        ]
        # EC2 may have forgotten some.
        known = [i for i in ids if group.ec2_backend.get_instance_by_id(i)]
        group.ec2_backend.terminate_instances(known)
        for instance_id in ids:
            record(group, f"Terminating EC2 instance: {instance_id}")
        if group.name in group.autoscaling_backend.autoscaling_groups:
            group.autoscaling_backend.update_attached_elbs(group.name)


@fixup
def members_can_be_terminated_through_the_group() -> None:
    """TerminateInstanceInAutoScalingGroup keeps to MinSize, and replaces.

    moto goes below MinSize, fails at termination protection, and answers a
    StopIteration for an instance that is in no group.
    """

    @wrap(AutoScalingBackend, "terminate_instance")
    def terminate(
        original: Any,
        self: AutoScalingBackend,
        instance_id: str,
        should_decrement: bool,
    ) -> Any:
        states = {
            state.instance.id: group
            for group in self.autoscaling_groups.values()
            for state in group.instance_states
        }
        if instance_id not in states:
            raise ValidationError(f"Instance Id not found - No managed instance found for instance ID: {instance_id}")
        group = states[instance_id]
        if should_decrement and group.desired_capacity <= group.min_size:
            raise ValidationError(
                "Currently, desiredSize equals minSize "
                f"({group.min_size}). Terminating instance without "
                "replacement will violate group's min size constraint. "
                "Either set shouldDecrementDesiredCapacity flag to false or "
                "lower group's min size."
            )
        with _lock, auto_scaling_acts():
            group.instance_states = [
                s for s in group.instance_states if s.instance.id != instance_id
            ]
            leave_target_groups(self, group, [instance_id])
            if should_decrement:
                group.desired_capacity -= 1
            self.ec2_backend.terminate_instances([instance_id])
            activity = record(group, f"Terminating EC2 instance: {instance_id}")
            activity = {**activity, "StatusCode": "InProgress", "Progress": 0}
            if not suspended(group, "Launch"):
                group.set_desired_capacity(group.desired_capacity)
            self.update_attached_elbs(group.name)
        return activity


@fixup
def deleting_a_group_needs_it_empty_or_force() -> None:
    """DeleteAutoScalingGroup without force refuses a group with instances.

    With force it terminates them, protected or not, unless the group's
    deletion protection forbids it (code K, not in AWS's documents).  moto
    deletes any group, and keeps the members that are protected.
    """

    def delete(self: AutoScalingResponse) -> EmptyResult:
        params = self._get_params()
        name = params["AutoScalingGroupName"]
        force = bool(self._get_bool_param("ForceDelete", False))
        backend = self.autoscaling_backend
        group = group_or_error(backend, name)
        level = getattr(group, "deletion_protection", None) or "none"
        if level == "prevent-all-deletion" or (
            level == "prevent-force-deletion" and force
        ):
            raise ValidationError(
                f"AutoScalingGroup {name} can not be deleted because its "
                f"deletion protection is {level}."
            )
        if group.instance_states and not force:
            raise AutoscalingClientError(
                "ResourceInUse",
                "You cannot delete an AutoScalingGroup while there are "
                "instances or pending Spot instance request(s) still in the "
                "group.",
            )
        for state in group.instance_states:
            state.protected_from_scale_in = False
            state.lifecycle_state = "InService"
        with _lock, auto_scaling_acts():
            leave_target_groups(
                backend, group, [s.instance.id for s in group.instance_states]
            )
            backend.delete_auto_scaling_group(name)
        return EmptyResult()

    AutoScalingResponse.delete_auto_scaling_group = delete


@fixup
def dead_members_wait_for_their_process() -> None:
    """A member that died is replaced only if no process for it is suspended.

    Until then it stays in the group, unhealthy, and counts.  moto replaces
    it at once.
    """

    @wrap(AutoScalingBackend, "notify_terminate_instances")
    def notify(
        original: Any, self: AutoScalingBackend, instance_ids: list[str]
    ) -> None:
        if getattr(_acting, "on", False):
            return
        left = set(instance_ids)
        for group in self.autoscaling_groups.values():
            if not suspended(
                group, "ReplaceUnhealthy", "HealthCheck", "Launch", "Terminate"
            ):
                continue
            for state in group.instance_states:
                if state.instance.id in left:
                    left.discard(state.instance.id)
                    if not suspended(group, "HealthCheck"):
                        state.health_status = "Unhealthy"
        with auto_scaling_acts():
            original(self, [i for i in instance_ids if i in left])


@fixup
def standby_has_its_rules() -> None:
    """EnterStandby and ExitStandby take members in the state for it.

    The group's sizes allow it or not, and a member in standby is not scaled
    in.  moto ignores what is no member, takes any state, leaves MinSize and
    MaxSize alone, and terminates members in standby.
    """

    def find(
        group: FakeAutoScalingGroup, instance_ids: list[str], wanted: str
    ) -> list[InstanceState]:
        states = {s.instance.id: s for s in group.instance_states}
        for instance_id in instance_ids:
            if instance_id not in states:
                raise ValidationError(
                    f"The instance {instance_id} is not part of Auto Scaling "
                    f"group {group.name}."
                )
            if states[instance_id].lifecycle_state != wanted:
                raise ValidationError(
                    f"The instance {instance_id} is not in {wanted}."
                )
        return [states[i] for i in instance_ids]

    @wrap(AutoScalingBackend, "enter_standby_instances")
    def enter(
        original: Any,
        self: AutoScalingBackend,
        group_name: str,
        instance_ids: list[str],
        should_decrement: bool,
    ) -> list[Any]:
        with _lock:
            group = group_or_error(self, group_name)
            states = find(group, instance_ids, "InService")
            left = (group.desired_capacity or 0) - len(states)
            if should_decrement and left < group.min_size:
                refuse_sizes(group, "move to standby", len(states))
            leave_target_groups(self, group, instance_ids)
            result = original(self, group_name, instance_ids, should_decrement)
            for instance_id in instance_ids:
                record(group, f"Moving EC2 instance to Standby: {instance_id}")
            return result

    @wrap(AutoScalingBackend, "exit_standby_instances")
    def leave(
        original: Any,
        self: AutoScalingBackend,
        group_name: str,
        instance_ids: list[str],
    ) -> list[Any]:
        with _lock:
            group = group_or_error(self, group_name)
            states = find(group, instance_ids, "Standby")
            wanted = (group.desired_capacity or 0) + len(states)
            if wanted > group.max_size:
                refuse_sizes(group, "move out of standby", len(states))
            result = original(self, group_name, instance_ids)
            for instance_id in instance_ids:
                text = "Moving EC2 instance out of Standby"
                record(group, f"{text}: {instance_id}")
            return result


@fixup
def groups_are_made_in_universal_time() -> None:
    """CreatedTime has a time zone; moto's is local time without one."""

    @wrap(FakeAutoScalingGroup, "__init__")
    def init(
        original: Any, self: FakeAutoScalingGroup, *args: Any, **kwargs: Any
    ) -> None:
        original(self, *args, **kwargs)
        self.created_time = utcnow()


@fixup
def instances_can_be_refreshed() -> None:
    """StartInstanceRefresh replaces the members, one after the other.

    moto does not know the call.
    """

    def start(self: AutoScalingResponse) -> ActionResult:
        name = self._get_params()["AutoScalingGroupName"]
        group = group_or_error(self.autoscaling_backend, name)
        group._to_refresh = {s.instance.id for s in group.instance_states}
        return ActionResult({"InstanceRefreshId": str(uuid.uuid4())})

    AutoScalingResponse.start_instance_refresh = start


@fixup
def protection_is_set_for_fifty_members() -> None:
    """SetInstanceProtection takes at most 50 ids, all of them members.

    moto takes any number and ignores what is no member.
    """

    @wrap(AutoScalingBackend, "set_instance_protection")
    def protect(
        original: Any,
        self: AutoScalingBackend,
        group_name: str,
        instance_ids: list[str],
        protected_from_scale_in: bool | None,
    ) -> None:
        group = group_or_error(self, group_name)
        if len(instance_ids) > MOST_PROTECTED_AT_ONCE:
            raise ValidationError(
                f"Only {MOST_PROTECTED_AT_ONCE} instances can be specified "
                "at a time."
            )
        members = {state.instance.id for state in group.instance_states}
        for instance_id in instance_ids:
            if instance_id not in members:
                raise ValidationError(
                    f"The instance {instance_id} is not part of Auto Scaling "
                    f"group {group_name}."
                )
        original(self, group_name, instance_ids, protected_from_scale_in)


@fixup
def activities_are_recorded() -> None:
    """DescribeScalingActivities tells what happened, newest first.

    moto always answers with an empty list.
    """

    def describe(self: AutoScalingResponse) -> ActionResult:
        params = self._get_params()
        name = params.get("AutoScalingGroupName")
        groups = self.autoscaling_backend.autoscaling_groups
        if name is not None:
            group_or_error(self.autoscaling_backend, name)
        activities = [
            activity
            for group in groups.values()
            if name in (None, group.name)
            for activity in group.__dict__.get("_activities", [])
        ]
        shown, token = page(
            activities,
            params.get("NextToken"),
            int(params.get("MaxRecords") or 100),
        )
        return ActionResult({"Activities": shown, "NextToken": token})

    AutoScalingResponse.describe_scaling_activities = describe


@fixup
def missing_groups_are_validation_errors() -> None:
    """A call for a group that does not exist is a ValidationError.

    moto answers some of them with a KeyError, that is an error page.
    """

    def check(name: str) -> None:
        @wrap(AutoScalingBackend, name)
        def call(
            original: Any, self: AutoScalingBackend, *args: Any, **kwargs: Any
        ) -> Any:
            group = kwargs.get("group_name", args[0] if args else None)
            group_or_error(self, group)
            return original(self, *args, **kwargs)

    for name in (
        "suspend_processes",
        "resume_processes",
        "attach_load_balancers",
        "detach_load_balancers",
        "describe_load_balancers",
        "attach_load_balancer_target_groups",
        "detach_load_balancer_target_groups",
        "describe_load_balancer_target_groups",
    ):
        check(name)

    @wrap(AutoScalingBackend, "create_or_update_tags")
    def tag(
        original: Any, self: AutoScalingBackend, tags: list[dict[str, str]]
    ) -> None:
        for item in tags:
            group_or_error(self, item["ResourceId"])
        original(self, tags)

    @wrap(AutoScalingBackend, "delete_tags")
    def untag(
        original: Any, self: AutoScalingBackend, tags: list[dict[str, str]]
    ) -> None:
        for item in tags:
            group_or_error(self, item["ResourceId"])
        original(self, tags)


@fixup
def suspended_processes_are_in_order() -> None:
    """SuspendedProcesses is the same list at every read, with a reason.

    moto keeps the random order of a set.
    """

    @wrap(AutoScalingBackend, "suspend_processes")
    def suspend(
        original: Any, self: AutoScalingBackend, group_name: str, scaling_processes: list[str]
    ) -> None:
        original(self, group_name, scaling_processes)
        group = self.autoscaling_groups[group_name]
        group.suspended_processes = sorted(set(group._suspended_processes))

    @wrap(AutoScalingBackend, "resume_processes")
    def resume(
        original: Any, self: AutoScalingBackend, group_name: str, scaling_processes: list[str]
    ) -> None:
        original(self, group_name, scaling_processes)
        group = self.autoscaling_groups[group_name]
        group.suspended_processes = sorted(set(group._suspended_processes))


@fixup
def classic_load_balancers_of_a_group_exist() -> None:
    """Attaching an unknown load balancer or target group is refused.

    AWS: ValidationError.  moto takes the first and fails later, and answers
    with a code of another service for the second.  Detaching takes only
    those out that are named: moto takes the members out of all.
    """

    @wrap(AutoScalingBackend, "attach_load_balancers")
    def attach(
        original: Any,
        self: AutoScalingBackend,
        group_name: str,
        load_balancer_names: list[str],
    ) -> None:
        for name in load_balancer_names:
            if name not in self.elb_backend.load_balancers:
                raise ValidationError(
                    "Provided Load Balancers may not be valid. Please ensure "
                    "they exist and try again."
                )
        original(self, group_name, load_balancer_names)

    @wrap(AutoScalingBackend, "detach_load_balancers")
    def detach(
        original: Any,
        self: AutoScalingBackend,
        group_name: str,
        load_balancer_names: list[str],
    ) -> None:
        group = group_or_error(self, group_name)
        for name in load_balancer_names:
            if name not in group.load_balancer_names:
                raise ValidationError(
                    "Trying to remove Load Balancers that are not part of "
                    "the group"
                )
        members = {s.instance.id for s in group.instance_states}
        for name in load_balancer_names:
            if name in self.elb_backend.load_balancers:
                self.elb_backend.deregister_instances(name, members)
                self.elb_backend.deregister_instances(
                    name, members, from_autoscaling=True
                )
        group.load_balancer_names = [
            name for name in group.load_balancer_names if name not in load_balancer_names
        ]

    @wrap(AutoScalingBackend, "attach_load_balancer_target_groups")
    def attach_target_groups(
        original: Any, self: AutoScalingBackend, group_name: str, target_group_arns: list[str]
    ) -> None:
        for arn in target_group_arns:
            if arn not in self.elbv2_backend.target_groups:
                raise ValidationError(
                    "Provided Target Groups may not be valid. Please ensure "
                    "they exist and try again."
                )
        original(self, group_name, target_group_arns)


@fixup
def members_are_registered_once() -> None:
    """A member is in its group's load balancers once, and leaves with it.

    An instance that was registered by hand and becomes a member is taken out
    when it leaves the group.  moto registers it a second time, and keeps the
    first registration for ever.
    """

    @wrap(AutoScalingBackend, "update_attached_elbs")
    def update(original: Any, self: AutoScalingBackend, group_name: str) -> None:
        group = self.autoscaling_groups[group_name]
        members = [s.instance.id for s in group.active_instances()]
        for name in group.load_balancer_names:
            balancer = self.elb_backend.load_balancers.get(name)
            if balancer is None:
                continue
            balancer.instance_sparse_ids = [
                i for i in balancer.instance_sparse_ids if i not in members
            ]
            balancer.instance_autoscaling_ids = list(members)

    @wrap(AutoScalingBackend, "update_attached_target_groups")
    def update_targets(
        original: Any, self: AutoScalingBackend, group_name: str
    ) -> None:
        group = self.autoscaling_groups[group_name]
        for arn in group.target_group_arns:
            target_group = self.elbv2_backend.target_groups.get(arn)
            if target_group is None:
                continue
            targets = [
                {"Id": s.instance.id, "Port": target_group.port}
                for s in group.instance_states
                if s.instance.state == "running"
            ]
            if targets:
                self.elbv2_backend.register_targets(arn, targets)


@fixup
def group_lists_come_in_pages() -> None:
    """DescribeAutoScalingInstances and DescribeTags give 50 at a time.

    moto gives everything at once.  More than the service's maximum is a
    ValidationError, not an error page.
    """

    def paged(name: str, key: str, most: int) -> None:
        @wrap(AutoScalingResponse, name)
        def describe(original: Any, self: AutoScalingResponse) -> ActionResult:
            params = self._get_params()
            size = int(params.get("MaxRecords") or 50)
            if size > most:
                raise ValidationError(
                    f"Max records must be at most {most}, got {size}"
                )
            if key == "AutoScalingGroups":
                return original(self)
            result = dict(original(self).result)
            result[key], result["NextToken"] = page(
                list(result[key]), params.get("NextToken"), size
            )
            return ActionResult(result)

    paged("describe_auto_scaling_instances", "AutoScalingInstances", 50)
    paged("describe_tags", "Tags", 100)
    paged("describe_auto_scaling_groups", "AutoScalingGroups", 100)
