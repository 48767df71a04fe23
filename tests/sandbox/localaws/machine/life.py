"""What happens to machines: who is told, and what then runs on them.

Everything is told in the order in which it happened, by one thread, after
the AWS call in which it happened has ended.
"""

from __future__ import annotations

import contextlib
import json
import queue
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import ACCOUNT
from ..settings import settings

WEKA_SECONDS = 30.0
ATTEMPTS = 3

Work = Callable[[], None]

_work: queue.Queue[Work] = queue.Queue()
_lock: Any = threading.RLock()


@dataclass(frozen=True)
class Machine:
    """An instance, as it is when it starts to run."""

    instance_id: str
    region: str
    private_ip: str
    instance_type: str
    availability_zone: str
    role: str | None
    user_data: str | None
    """Base64, as DescribeInstanceAttribute has it."""


_running: dict[str, Machine] = {}
"""By private address."""


def apply(moto_lock: Any) -> None:
    """Patch moto: every way in which an instance's state changes. The lock is
    the one that AWS calls hold.
    """
    from moto.ec2.models.instances import Instance, InstanceBackend

    from . import boot

    global _lock
    _lock = moto_lock
    run, start = InstanceBackend.run_instances, Instance.start
    stop, terminate = Instance.stop, Instance.terminate
    reboot = Instance.reboot

    def run_instances(self: Any, *args: Any, **kwargs: Any) -> Any:
        reservation = run(self, *args, **kwargs)
        for instance in reservation.instances:
            _later(lambda instance=instance: _started(instance, first=True))
        return reservation

    def start_instance(self: Any) -> Any:
        before = self.state
        result = start(self)
        if before != "running":
            _later(lambda: _started(self, first=False))
        return result

    def stop_instance(self: Any) -> Any:
        before = self.state
        result = stop(self)
        if before == "running":
            boot.power_off(self.id)
            _later(lambda: _stopped(self.id))
        return result

    def terminate_instance(self: Any) -> Any:
        before = self.state
        result = terminate(self)
        if before != "terminated":
            gone(self.id)
        return result

    def reboot_instance(self: Any) -> None:
        # What has a boot script under way loses it; there is no second one.
        boot.kill(self.id)
        reboot(self)

    InstanceBackend.run_instances = run_instances
    Instance.start = start_instance
    Instance.stop = stop_instance
    Instance.terminate = terminate_instance
    Instance.reboot = reboot_instance
    threading.Thread(target=_loop, daemon=True, name="machines").start()


def forget() -> None:
    """Forget all machines; nobody is told."""
    from . import boot, commands, hardware

    with contextlib.suppress(queue.Empty):
        while True:
            _work.get_nowait()
    boot.forget()
    commands.forget()
    hardware.forget()
    _running.clear()


def happen(action: str, instance_id: str, region: str) -> None:
    """Let something happen to a machine, whatever protects it."""
    from moto.ec2.models import ec2_backends

    from ..fixups.instances import forget_terminated

    if action == "purge":
        purge(instance_id, region)
        return
    backend = ec2_backends[ACCOUNT][region]
    instance = backend.get_instance(instance_id)
    if action == "kill":
        instance.disable_api_termination = False
        backend.terminate_instances([instance_id])
        forget_terminated(backend, [instance_id])
    else:
        getattr(instance, action)()


HAPPENINGS = ("kill", "stop", "start", "reboot", "purge")


def purge(instance_id: str, region: str) -> None:
    """Let EC2 forget the instance: its id is unknown from now on."""
    from moto.ec2.models import ec2_backends

    backend = ec2_backends[ACCOUNT][region]
    instance = backend.get_instance(instance_id)
    if instance.state != "terminated":
        instance.disable_api_termination = False
        instance.terminate()
    for reservation in backend.reservations.values():
        if instance in reservation.instances:
            reservation.instances.remove(instance)
    backend.tags.pop(instance_id, None)


def gone(instance_id: str) -> None:
    """The machine is no more."""
    from . import boot

    boot.kill(instance_id)
    _later(lambda: _forgotten(instance_id))


def lock() -> Any:
    """What AWS calls hold while they look at moto, or change it."""
    return _lock


def by_address(address: str) -> Machine | None:
    """The machine that has the address."""
    return _running.get(address)


def by_id(instance_id: str) -> Machine | None:
    """The machine of that id, while it runs."""
    for machine in list(_running.values()):
        if machine.instance_id == instance_id:
            return machine
    return None


def instance_of(machine: Machine) -> Any:
    """moto's instance."""
    from moto.ec2.models import ec2_backends

    return ec2_backends[ACCOUNT][machine.region].get_instance(
        machine.instance_id
    )


def settle(timeout: float) -> bool:
    """Wait until everyone was told everything and no boot is under way; False
    if that takes too long.
    """
    from . import boot

    deadline = time.monotonic() + timeout
    if not told(timeout):
        return False
    while boot.under_way():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return told(max(0.0, deadline - time.monotonic()))


def told(timeout: float) -> bool:
    """Wait until everyone was told everything so far."""
    done = threading.Event()
    _later(done.set)
    return done.wait(timeout)


def weka(method: str, path: str, body: Any = None, attempts: int = 1) -> Any:
    """One request to Weka, and its answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{settings.weka_url.rstrip('/')}/{path}",
        data,
        {"Content-Type": "application/json"},
        method=method,
    )
    # Never through a proxy: it is this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        attempts -= 1
        try:
            with opener.open(request, timeout=WEKA_SECONDS) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError:
            raise
        except OSError:
            if attempts <= 0:
                raise
            time.sleep(0.1)


def _later(work: Work) -> None:
    _work.put(work)


def _loop() -> None:
    while True:
        work = _work.get()
        try:
            work()
        except Exception as failure:
            print(f"sandbox: telling of a machine: {failure}", file=sys.stderr)


def _started(instance: Any, first: bool) -> None:
    from . import boot

    with _lock:
        if instance.state != "running" or not instance.nics:
            return  # it did not live long enough to be told of
        machine = Machine(
            instance_id=instance.id,
            region=instance.region_name,
            private_ip=str(instance.private_ip),
            instance_type=instance.instance_type,
            availability_zone=instance.placement.zone,
            role=_role(instance),
            user_data=instance.user_data and str(instance.user_data),
        )
        addresses = [
            str(nic.private_ip_address) for nic in instance.network_interfaces
        ]
        launched = hasattr(instance, "autoscaling_group")
        _running[machine.private_ip] = machine
    boots = first and launched and machine.user_data and settings.boot_machines
    if boots:
        boot.announce(machine)
    try:
        _introduce(machine, addresses)
    except OSError as failure:
        boot.abandon(machine, f"Weka does not take the machine: {failure}")
        raise
    if boots:
        boot.begin(machine)


def _introduce(machine: Machine, addresses: list[str]) -> None:
    if not settings.weka_url:
        return
    weka(
        "POST",
        "machines",
        {
            "instance_id": machine.instance_id,
            "private_ip": machine.private_ip,
            "ips": addresses,
            "instance_type": machine.instance_type,
            "availability_zone": machine.availability_zone,
        },
        ATTEMPTS,
    )


def _role(instance: Any) -> str | None:
    """The ARN of the role in the instance's profile."""
    from moto.iam.models import iam_backends

    profile = (instance.iam_instance_profile or {}).get("Arn")
    for known in iam_backends[ACCOUNT]["aws"].instance_profiles.values():
        if known.arn == profile and known.roles:
            return str(known.roles[0].arn)
    return None


def _stopped(instance_id: str) -> None:
    _take_out(instance_id)
    if settings.weka_url:
        weka("POST", f"machines/{instance_id}/stop", {}, ATTEMPTS)


def _forgotten(instance_id: str) -> None:
    _take_out(instance_id)
    if settings.weka_url:
        weka("DELETE", f"machines/{instance_id}", None, ATTEMPTS)


def _take_out(instance_id: str) -> None:
    for address, machine in list(_running.items()):
        if machine.instance_id == instance_id:
            _running.pop(address, None)
