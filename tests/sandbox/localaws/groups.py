"""What Auto Scaling does by itself once in a while: a tick does it once.

Members are examined, and those that are not healthy replaced; what is missing
is launched, what is too much terminated, unless it is protected; zones are
balanced; an instance refresh goes on by one member. Each only as long as its
process is not suspended.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from . import ACCOUNT


def look_after() -> None:
    """Look after every group."""
    from moto.autoscaling.models import autoscaling_backends

    for backend in list(autoscaling_backends[ACCOUNT].values()):
        for group in list(backend.autoscaling_groups.values()):
            examine(group)
            replace_unhealthy(group)
            group.set_desired_capacity(group.desired_capacity)
            balance(group)
            refresh(group)


def examine(group: Any) -> None:
    """A member that EC2 does not run, or does not know, is not healthy."""
    from .fixups.autoscaling import suspended

    if suspended(group, "HealthCheck"):
        return
    for state in group.instance_states:
        if state.lifecycle_state == "InService" and not runs(state):
            state.health_status = "Unhealthy"


def runs(state: Any) -> bool:
    """Does EC2 run the member?"""
    known = state.auto_scaling_group.ec2_backend.get_instance_by_id(
        state.instance.id
    )
    return known is not None and known.state == "running"


def replace_unhealthy(group: Any) -> None:
    """Protection does not save a member from this."""
    from .fixups.autoscaling import suspended, terminate_members

    if suspended(group, "ReplaceUnhealthy", "HealthCheck", "Terminate"):
        return
    terminate_members(
        group,
        [
            state
            for state in group.instance_states
            if state.health_status == "Unhealthy"
            and state.lifecycle_state == "InService"
        ],
    )


def balance(group: Any) -> None:
    """One member moves from the fullest zone to the emptiest, if they differ
    by two and one may be terminated.
    """
    from .fixups.autoscaling import suspended

    if suspended(group, "AZRebalance", "Launch", "Terminate"):
        return
    zones = Counter({zone: 0 for zone in group.availability_zones})
    for state in group.active_instances():
        zones[state.availability_zone] += 1
    if len(zones) < 2:
        return
    (full, most), *_, (empty, least) = zones.most_common()
    movable = [
        state
        for state in unprotected(group)
        if state.availability_zone == full
    ]
    if most - least >= 2 and movable:
        replace(group, movable[0], empty)


def refresh(group: Any) -> None:
    """Protected members keep a refresh waiting."""
    from .fixups.autoscaling import suspended

    left = group.__dict__.get("_to_refresh", set())
    if not left or suspended(group, "InstanceRefresh", "Launch", "Terminate"):
        return
    for state in unprotected(group):
        if state.instance.id in left:
            left.discard(state.instance.id)
            replace(group, state, state.availability_zone)
            return


def unprotected(group: Any) -> list[Any]:
    """The members that may be scaled in."""
    return [
        state
        for state in group.active_instances()
        if not state.protected_from_scale_in
    ]


def replace(group: Any, state: Any, zone: str) -> None:
    """Launch a member in the zone, then terminate the other."""
    from .fixups.autoscaling import launch_in, terminate_members

    launch_in(group, zone)
    terminate_members(group, [state])
