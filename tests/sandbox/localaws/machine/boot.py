"""First boots: a machine's user data as a process of its own.

Scripts are the machine's own, but for where it is on this host: `/var/log` in
user data, and in every script that it runs with bash the directories that are
assigned to variables (`devices=/dev`), are below the machine's directory
instead. Commands are the stand-ins first, then this host's.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import clients
from ..settings import now, settings
from . import hardware, tls
from .life import Machine

STANDINS = Path(__file__).parent / "standins"
HOST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LONGEST_LOG = 64_000
# A machine that is shut down gives its processes so long, an instance that
# is stopped from outside as well.
GRACE_SECONDS = 5.0
DIRECTORIES = (
    "dev",
    "etc",
    "opt",
    "proc",
    "root",
    "tmp",
    "var/log",
    "var/run",
)


@dataclass
class Boot:
    """One boot, and what became of it."""

    machine: Machine
    number: int
    state: str = "announced"
    """announced, waiting, running, ended or killed"""
    exit: int | None = None
    started: float | None = None
    ended: float | None = None
    process: subprocess.Popen[bytes] | None = None
    deadline: float | None = None
    """When the machine's power goes, on time.monotonic()."""
    failure: str = ""
    """Why the sandbox could not run it."""
    halted: bool = False
    """It shuts itself down."""
    directory: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """The boot with its log so far."""
        return {
            "n": self.number,
            "instance_id": self.machine.instance_id,
            "private_ip": self.machine.private_ip,
            "state": self.state,
            "exit": self.exit,
            "start": self.started,
            "end": self.ended,
            "failure": self.failure,
            "directory": self.directory and str(self.directory),
            "log": self.log(),
        }

    def log(self) -> str:
        """What the script wrote: to its log files, and beside them."""
        if self.directory is None:
            return ""
        files = [
            *sorted(self.directory.glob("var/log/*.log")),
            self.directory / "output",
        ]
        text = "".join(
            file.read_text(errors="replace")
            for file in files
            if file.is_file()
        )
        return text[-LONGEST_LOG:]


_boots: list[Boot] = []
_waiting: deque[Boot] = deque()
_changed = threading.Condition()
_workers = 0
_directory: Path | None = None


def boots(instance_id: str | None = None) -> list[dict[str, Any]]:
    """All boots, or those of one instance."""
    return [
        boot.as_dict()
        for boot in list(_boots)
        if instance_id in (None, boot.machine.instance_id)
    ]


def under_way() -> bool:
    """Does any machine boot, or shall?"""
    return any(
        boot.state in ("announced", "waiting", "running")
        for boot in list(_boots)
    )


def announce(machine: Machine) -> None:
    """The machine is going to boot."""
    with _changed:
        _boots.append(Boot(machine, len(_boots)))


def begin(machine: Machine) -> None:
    """Boot the machine as soon as few enough others do."""
    global _workers
    with _changed:
        for boot in _boots:
            if boot.machine is machine and boot.state == "announced":
                boot.state = "waiting"
                _waiting.append(boot)
        if _workers < settings.boots_at_once:
            _workers += 1
            threading.Thread(target=_work, daemon=True, name="boots").start()


def abandon(machine: Machine, reason: str) -> None:
    """The machine is not going to boot after all."""
    with _changed:
        for boot in _boots:
            if boot.machine is machine:
                boot.state, boot.failure = "ended", reason


def kill(instance_id: str) -> None:
    """The machine's power goes now."""
    _end(instance_id, 0.0)


def power_off(instance_id: str) -> None:
    """The machine is shut down: its processes are told to end, and have a
    moment for it.
    """
    boot = _end(instance_id, GRACE_SECONDS)
    if boot and boot.process and not boot.halted:
        _signal(boot.process.pid, signal.SIGTERM)


def halted(instance_id: str) -> None:
    """The machine is about to shut itself down."""
    for boot in list(_boots):
        if boot.machine.instance_id == instance_id:
            boot.halted = True


def pass_time(seconds: float) -> None:
    """Let the machines that boot have been up for longer."""
    for boot in list(_boots):
        if boot.state == "running":
            hardware.pass_time(boot.machine.instance_id, seconds)


def forget() -> None:
    """Kill and forget all boots."""
    with _changed:
        ended = list(_boots)
        _boots.clear()
        _waiting.clear()
    for boot in ended:
        _kill(boot)
        if boot.directory:
            shutil.rmtree(boot.directory, ignore_errors=True)


def clean_up() -> None:
    """Leave nothing behind."""
    forget()
    if _directory:
        shutil.rmtree(_directory, ignore_errors=True)


def _end(instance_id: str, seconds: float) -> Boot | None:
    found = None
    with _changed:
        for boot in _boots:
            if boot.machine.instance_id != instance_id:
                continue
            if boot.state in ("announced", "waiting"):
                boot.state = "killed"
            elif boot.state == "running":
                boot.deadline = min(
                    boot.deadline or float("inf"), time.monotonic() + seconds
                )
                found = boot
    if found and not seconds:
        _kill(found)
    return found


def _kill(boot: Boot) -> None:
    if boot.process and boot.process.returncode is None:
        _signal(boot.process.pid, signal.SIGKILL)


def _signal(session: int, number: int) -> None:
    """Signal every process of the session: `timeout` puts its child into a
    process group of its own.
    """
    if not Path("/proc/self/stat").exists():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(session, number)
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            if int(file.read_text().rpartition(")")[2].split()[3]) == session:
                os.kill(int(file.parent.name), number)


def _work() -> None:
    """Boot what waits, one machine after the other."""
    global _workers
    while True:
        with _changed:
            boot = next((b for b in _take() if b.state == "waiting"), None)
            if boot is None:
                _workers -= 1
                return
            boot.state = "running"
            boot.started = round(now(), 4)
        try:
            _run(boot)
        except Exception as failure:
            boot.failure = f"{type(failure).__name__}: {failure}"
        boot.ended = round(now(), 4)
        boot.state = "killed" if boot.exit == -signal.SIGKILL else "ended"


def _take() -> Any:
    while _waiting:
        yield _waiting.popleft()


def _run(boot: Boot) -> None:
    machine = boot.machine
    root = boot.directory = (
        _directories() / f"{boot.number}-{machine.instance_id}"
    )
    for name in DIRECTORIES:
        (root / name).mkdir(parents=True)
    hardware.lay_out(root, machine)
    _write_curlrc(root, machine)
    script = base64.b64decode(machine.user_data or "")
    file = root / "user-data"
    file.write_bytes(script.replace(b"/var/log/", f"{root}/var/log/".encode()))
    with open(root / "output", "wb") as output:
        boot.process = subprocess.Popen(
            [_interpreter(script), str(file)],
            cwd=root,
            env=_environment(root, machine),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        process = boot.process
        while process.poll() is None:
            if boot.deadline and time.monotonic() > boot.deadline:
                _kill(boot)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
        boot.exit = process.returncode
        # What it left running in the background goes on, as on a machine,
        # unless the machine has no power any more.
        if boot.deadline:
            _signal(process.pid, signal.SIGKILL)


def _interpreter(script: bytes) -> str:
    """As cloud-init runs it: by the first line."""
    first = script.split(b"\n", 1)[0].decode("utf-8", "replace")
    if not first.startswith("#!"):
        raise ValueError("user data without an interpreter is no script")
    program = first[2:].strip()
    # Not every host has bash in /bin.
    return shutil.which(os.path.basename(program)) or program


def _environment(root: Path, machine: Machine) -> dict[str, str]:
    host, _, port = clients.url().removeprefix("http://").rpartition(":")
    return {
        "PATH": f"{STANDINS}:{HOST_PATH}",
        "HOME": f"{root}/root",
        "TMPDIR": f"{root}/tmp",
        "LANG": "C",
        "CURL_HOME": str(root),
        "SANDBOX_HOST": host,
        "SANDBOX_PORT": port,
        "SANDBOX_INSTANCE": machine.instance_id,
        "SANDBOX_SLEEP": str(round(settings.machine_sleep_factor * 1000)),
        "SANDBOX_ROOT": str(root),
    }


def _write_curlrc(root: Path, machine: Machine) -> None:
    """Every request comes from the machine's own address; the metadata
    service and AWS are this sandbox.
    """
    host, _, port = clients.url().removeprefix("http://").rpartition(":")
    certificate, secure = tls.front()
    (root / ".curlrc").write_text(
        f'interface = "host!{machine.private_ip}"\n'
        f'cacert = "{certificate}"\n'
        f'connect-to = "169.254.169.254:80:{host}:{port}"\n'
        f'connect-to = ":443:{host}:{secure}"\n'
    )


def _directories() -> Path:
    global _directory
    with _changed:
        if _directory is None:
            _directory = Path(tempfile.mkdtemp(prefix="wekactl-machines-"))
        return _directory
