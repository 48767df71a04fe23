"""The instance metadata service, version 2 as it is required of backends: a
token first, then everything by a path.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Iterable
from typing import Any

from .. import wire
from . import life

HOST = "169.254.169.254"
BELOW = "/latest/meta-data/"

_secret = secrets.token_hex(8)


def match(environ: dict[str, Any]) -> bool:
    """Is the request for the metadata service?"""
    return environ.get("HTTP_HOST", "").partition(":")[0] == HOST


def serve(
    environ: dict[str, Any], start_response: Callable[..., Any]
) -> Iterable[bytes]:
    """Answer one request."""
    status, text = _answer(environ)
    answer = text.encode()
    headers = [
        ("Content-Type", "text/plain"),
        ("Content-Length", str(len(answer))),
    ]
    line = "200 OK" if status == 200 else wire.status_line(status)
    start_response(line, headers)
    return [answer]


def _answer(environ: dict[str, Any]) -> tuple[int, str]:
    machine = life.by_address(environ.get("REMOTE_ADDR", ""))
    if machine is None:
        return 404, ""
    token = hashlib.sha256(
        f"{_secret}{machine.instance_id}".encode()
    ).hexdigest()
    path, verb = environ["PATH_INFO"], environ["REQUEST_METHOD"]
    if path == "/latest/api/token":
        seconds = environ.get("HTTP_X_AWS_EC2_METADATA_TOKEN_TTL_SECONDS", "")
        if verb != "PUT" or not seconds.isdigit():
            return 400 if verb == "PUT" else 405, ""
        return (200, token) if 1 <= int(seconds) <= 21600 else (400, "")
    if environ.get("HTTP_X_AWS_EC2_METADATA_TOKEN") != token:
        return 401, ""
    if verb != "GET" or not path.startswith(BELOW):
        return 404, ""
    return _look_up(documents(machine), path.removeprefix(BELOW))


def _look_up(known: dict[str, str], path: str) -> tuple[int, str]:
    """A value, or the names below a directory."""
    if path in known:
        return 200, known[path]
    folder = path.rstrip("/") + "/" if path else ""
    names = {}
    for name in known:
        if name.startswith(folder):
            first = re.match("[^/]+/?", name[len(folder) :])
            if first:
                names[first[0]] = None
    return (200, "\n".join(names)) if names else (404, "")


def documents(machine: life.Machine) -> dict[str, str]:
    """Everything that the service says of a machine, by its path."""
    instance = life.instance_of(machine)
    known = {
        "instance-id": machine.instance_id,
        "instance-type": machine.instance_type,
        "ami-id": instance.image_id,
        "local-ipv4": machine.private_ip,
        "local-hostname": str(instance.private_dns_name),
        "hostname": str(instance.private_dns_name),
        "mac": instance.nics[0].mac_address,
        "placement/region": machine.region,
        "placement/availability-zone": machine.availability_zone,
    }
    for index, nic in sorted(instance.nics.items()):
        of = f"network/interfaces/macs/{nic.mac_address}"
        known |= {
            f"{of}/device-number": str(index),
            f"{of}/interface-id": nic.id,
            f"{of}/local-ipv4s": str(nic.private_ip_address),
            f"{of}/mac": nic.mac_address,
            f"{of}/network-card": str(getattr(nic, "network_card_index", 0)),
            f"{of}/subnet-id": nic.subnet.id,
            f"{of}/subnet-ipv4-cidr-block": nic.subnet.cidr_block,
            f"{of}/vpc-id": nic.subnet.vpc_id,
        }
    return known
