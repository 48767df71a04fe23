"""What a machine of an instance type looks like to the commands that ask:
processors, memory nodes, drives, network interfaces.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from . import life

INSTANCE_STORE = "Amazon EC2 NVMe Instance Storage"
BLOCK_STORE = "Amazon Elastic Block Store"
DATA_VOLUME = "/dev/sdp"
AGENT = "opt/aws/amazon-cloudwatch-agent"
UPTIME_AT_BOOT = 20
# EC2 does not say it; these have two sockets.
TWO_NODES = (
    "i3.16xlarge",
    "i3en.24xlarge",
    "i8ge.48xlarge",
    "r3.8xlarge",
    "z1d.12xlarge",
)


class Result(NamedTuple):
    """How a command ended."""

    status: int = 0
    output: str = ""
    error: str = ""


@dataclass(frozen=True)
class Type:
    """What an instance type has."""

    processors: int
    threads: int
    nodes: int
    drives: int


@functools.cache
def type_of(name: str) -> Type:
    """What EC2 says of the type."""
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    known = INSTANCE_TYPES[name]
    storage = (known.get("InstanceStorageInfo") or {}).get("Disks") or []
    cpu = known["VCpuInfo"]
    return Type(
        processors=cpu["DefaultVCpus"],
        threads=cpu.get("DefaultThreadsPerCore", 1),
        nodes=2 if name in TWO_NODES else 1,
        drives=sum(disk["Count"] for disk in storage),
    )


@dataclass
class Disk:
    """A drive or volume, and what was done to it."""

    content: dict[str, str] = field(default_factory=dict)
    """What blkid says of it."""
    mounted: str = ""
    partitions: int = 0


@dataclass
class Hardware:
    """What a machine consists of."""

    root: Path
    type: Type
    disks: dict[str, Disk] = field(default_factory=dict)
    """By the kernel's name."""


_known: dict[str, Hardware] = {}


def forget() -> None:
    """Forget all machines."""
    _known.clear()


def lay_out(root: Path, machine: life.Machine) -> None:
    """Make the files by which a script sees the machine."""
    made = Hardware(root, type_of(machine.instance_type))
    with life.lock():
        volumes = list(life.instance_of(machine).block_device_mapping)
    # The root volume first, then the others, then the instance's own.
    made.disks["nvme0n1"] = Disk(mounted="/")
    _add_disk(made, "nvme0n1", BLOCK_STORE)
    if DATA_VOLUME in volumes:
        made.disks["nvme1n1"] = Disk()
        _add_disk(made, "nvme1n1", BLOCK_STORE)
        (root / "dev/sdp").symlink_to(root / "dev/nvme1n1")
    for _ in range(made.type.drives):
        name = f"nvme{len(made.disks)}n1"
        made.disks[name] = Disk()
        _add_disk(made, name, INSTANCE_STORE)
    for name in ("bin", "etc"):
        (root / AGENT / name).mkdir(parents=True)
    agent = root / AGENT / "bin/amazon-cloudwatch-agent-ctl"
    agent.write_text("#!/bin/bash\n")
    agent.chmod(0o755)
    (root / "etc/fstab").write_text("LABEL=/ / xfs defaults 0 0\n")
    (root / "proc/uptime").write_text(f"{UPTIME_AT_BOOT}.00 0.00\n")
    # Others look only at what is complete.
    _known[machine.instance_id] = made
    show_interfaces(machine)


def _add_disk(machine: Hardware, name: str, model: str) -> None:
    (machine.root / "dev" / name).touch()
    of = machine.root / "sys/block" / name
    (of / "device").mkdir(parents=True)
    (of / "queue").mkdir()
    # As wide as the kernel shows it.
    (of / "device/model").write_text(f"{model:<40}\n")
    (of / "queue/rotational").write_text("0\n")


def show_interfaces(machine: life.Machine) -> None:
    """Let the kernel see the interfaces that are attached. Their names are
    not in the order of their indexes.
    """
    made = _known.get(machine.instance_id)
    if made is None:
        return
    with life.lock():
        nics = dict(life.instance_of(machine).nics)
    for index, nic in nics.items():
        of = made.root / "sys/class/net" / f"ens{5 + index * 7 % 16}"
        if not of.exists():
            (of / "device").mkdir(parents=True)
            (of / "address").write_text(f"{nic.mac_address}\n")


def pass_time(instance_id: str, seconds: float) -> None:
    """Let the machine have been up for longer."""
    if made := _known.get(instance_id):
        file = made.root / "proc/uptime"
        text = ""
        while not text:  # `sleep` empties it before it writes
            text = file.read_text()
        later = file.with_name("later")
        later.write_text(f"{float(text.split()[0]) + seconds:.2f} 0.00\n")
        later.replace(file)


def sign(instance_id: str, words: list[str]) -> None:
    """Weka signed the drives that are named: each has partitions now."""
    made = _known[instance_id]
    for word in words:
        name = Path(word).name
        if (disk := made.disks.get(name)) and not disk.partitions:
            disk.partitions = 1
            disk.content = {"PTTYPE": "gpt"}
            (made.root / "sys/block" / name / f"{name}p1").mkdir()


def run(name: str, machine: life.Machine, words: list[str]) -> Result:
    """A command that looks at the hardware, or changes it."""
    made = _known.get(machine.instance_id)
    if made is None or name not in COMMANDS:
        return Result(127, "", f"{name}: command not found\n")
    return COMMANDS[name](made, words)


def _disk(made: Hardware, path: str) -> Disk | None:
    return made.disks.get(Path(path).name)


def _lsblk(made: Hardware, words: list[str]) -> Result:
    """`lsblk -n -r -o NAME,MOUNTPOINT DEVICE`."""
    disk = _disk(made, words[-1])
    if disk is None:
        return Result(32, "", f"lsblk: {words[-1]}: not a block device\n")
    name = Path(words[-1]).name
    lines = [f"{name} {disk.mounted}"]
    lines += [f"{name}p{number + 1} " for number in range(disk.partitions)]
    return Result(0, "".join(f"{line}\n" for line in lines))


def _blkid(made: Hardware, words: list[str]) -> Result:
    """`blkid -p -o export DEVICE`: 2 for a blank one."""
    disk = _disk(made, words[-1])
    if disk is None or not disk.content:
        return Result(2)
    content = {"DEVNAME": words[-1]} | disk.content
    return Result(0, "".join(f"{k}={v}\n" for k, v in content.items()))


def _mkfs(made: Hardware, words: list[str]) -> Result:
    """`mkfs.ext4 -q -L LABEL DEVICE`."""
    disk = _disk(made, words[-1])
    if disk is None or disk.mounted:
        return Result(1, "", f"{words[-1]} can not be formatted\n")
    label = words[words.index("-L") + 1] if "-L" in words else ""
    disk.content = {"LABEL": label, "TYPE": "ext4"}
    return Result()


def _mount(made: Hardware, words: list[str]) -> Result:
    """`mount DEVICE DIRECTORY`."""
    device, directory = words[-2:]
    disk = _disk(made, device)
    if disk is None or "TYPE" not in disk.content:
        return Result(32, "", f"mount: {device}: wrong fs type\n")
    disk.mounted = directory
    return Result()


def _lscpu(made: Hardware, words: list[str]) -> Result:
    """`lscpu -p=CPU,CORE,SOCKET,NODE`: siblings are half of all apart."""
    kind = made.type
    cores = kind.processors // kind.threads
    lines = ["# CPU,Core,Socket,Node"]
    for cpu in range(kind.processors):
        core = cpu % cores
        node = core * kind.nodes // cores
        lines.append(f"{cpu},{core},{node},{node}")
    return Result(0, "".join(f"{line}\n" for line in lines))


COMMANDS: dict[str, Callable[[Hardware, list[str]], Result]] = {
    "blkid": _blkid,
    "lsblk": _lsblk,
    "lscpu": _lscpu,
    "mkfs.ext4": _mkfs,
    "mount": _mount,
}
