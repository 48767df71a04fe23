"""The loopback addresses of a sandbox's machines, which no other sandbox has.

A simulated Weka listens on them, so two sandboxes with the same ones would
meet each other's machines. Whoever holds one port of a network has all of it;
the port is free again when its process ends, however it ends.
"""

import errno
import os
import re
import socket

FIRST, LAST = 16, 250
PORT = 12700


def claim(network: str | None) -> tuple[str, socket.socket]:
    """That network, or any free one, and what holds it."""
    if network is None:
        return claim_any()
    if not re.fullmatch(r"127\.([1-9]\d?|1\d\d|2[0-4]\d|25[0-4])", network):
        raise ValueError(
            f"the network {network!r} is not one of 127.1 to 127.254"
        )
    if holder := hold(network):
        return network, holder
    raise ValueError(f"the network {network} is another sandbox's")


def claim_any() -> tuple[str, socket.socket]:
    """A free one; where the search begins is each process's own, so that what
    was freed just now is not taken at once.
    """
    count = LAST - FIRST + 1
    for number in range(os.getpid(), os.getpid() + count):
        network = f"127.{FIRST + number % count}"
        if holder := hold(network):
            return network, holder
    raise ValueError(
        f"none of the networks 127.{FIRST} to 127.{LAST} is free: each has"
        " a sandbox"
    )


def hold(network: str) -> socket.socket | None:
    """What holds the network from now on; nothing, if another process does."""
    try:
        return socket.create_server((f"{network}.255.254", PORT))
    except OSError as failure:
        if failure.errno == errno.EADDRINUSE:
            return None
        raise
