"""Runs one invocation of a custom runtime: the `bootstrap` as a process,
against a Runtime API of its own.

The process is started for the invocation and killed after it, so that every
start is a cold one.
"""

import contextlib
import errno
import functools
import hashlib
import io
import json
import os
import platform
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time
import uuid
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

INITIALISATION_SECONDS = 10.0
ELF_MACHINES = {62: "x86_64", 183: "arm64"}
HOST = {
    "x86_64": "x86_64",
    "AMD64": "x86_64",
    "aarch64": "arm64",
    "arm64": "arm64",
}.get(platform.machine(), "other")

_unpacking = threading.Lock()
_running: set["subprocess.Popen[bytes]"] = set()


@dataclass
class Invocation:
    """One run, and what became of it."""

    event: bytes
    arn: str
    timeout: float
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    started: float = field(default_factory=time.monotonic)
    initialised: float | None = None
    """When the function asked for its event."""
    ended: float = 0.0
    payload: bytes = b""
    error: str | None = None
    """`Unhandled`, if it failed."""
    log: str = ""
    process: "subprocess.Popen[bytes] | None" = None
    done: threading.Event = field(default_factory=threading.Event)
    killed: threading.Event = field(default_factory=threading.Event)

    def finish(self, payload: bytes, error: str | None) -> None:
        """Take the first result; a later one comes from a process that is
        being killed.
        """
        if not self.done.is_set():
            self.payload, self.error = payload, error
            self.done.set()

    def fail(self, kind: str, text: str) -> None:
        """Fail as Lambda itself fails an invocation."""
        document = {
            "errorType": kind,
            "errorMessage": f"RequestId: {self.id} {text}",
        }
        self.finish(
            json.dumps(document, separators=(",", ":")).encode(), "Unhandled"
        )


class RuntimeApi(ThreadingHTTPServer):
    """What AWS_LAMBDA_RUNTIME_API points to."""

    daemon_threads = True

    def __init__(self, invocation: Invocation) -> None:
        super().__init__(("127.0.0.1", 0), RuntimeHandler)
        self.invocation = invocation

    def handle_error(self, *_: object) -> None:
        """A killed process closes its connection: nothing to report."""


class RuntimeHandler(BaseHTTPRequestHandler):
    """The four requests of the Runtime API."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: RuntimeApi

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """The next event, once; a second request waits, as in a frozen
        environment.
        """
        invocation = self.server.invocation
        if not self.path.endswith("/runtime/invocation/next"):
            self._send(404, b"{}")
            return
        if invocation.initialised is not None:
            invocation.killed.wait()
            return
        invocation.initialised = time.monotonic()
        deadline = int((time.time() + invocation.timeout) * 1000)
        trace_id = invocation.id.replace("-", "")[:24]
        trace = f"Root=1-{int(time.time()):08x}-{trace_id};Sampled=0"
        headers = {
            "Lambda-Runtime-Aws-Request-Id": invocation.id,
            "Lambda-Runtime-Invoked-Function-Arn": invocation.arn,
            "Lambda-Runtime-Deadline-Ms": str(deadline),
            "Lambda-Runtime-Trace-Id": trace,
        }
        self._send(200, invocation.event, headers)

    def do_POST(self) -> None:
        """The result: of the invocation, or of the initialisation if that
        failed.
        """
        body = self._body()
        if self.path.endswith("/response"):
            error = None
        elif self.path.endswith("/error"):
            error = "Unhandled"
        else:
            self._send(404, b"{}")
            return
        self._send(202, b'{"status":"OK"}')
        self.server.invocation.finish(body, error)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(
                int(self.headers.get("Content-Length") or 0)
            )
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline() not in (b"\r\n", b"\n", b""):
            pass  # trailers
        return body

    def _send(
        self, status: int, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@functools.cache
def unpacked() -> Path:
    """The directory of all unpacked archives."""
    return Path(tempfile.mkdtemp(prefix="wekactl-sandbox-"))


def unpack(archives: list[bytes]) -> Path:
    """A directory with the archives' files, later ones over earlier ones, as
    layers are merged.
    """
    digest = hashlib.sha256(
        b"".join(hashlib.sha256(archive).digest() for archive in archives)
    )
    with _unpacking:
        directory = unpacked() / digest.hexdigest()[:32]
        if not directory.is_dir():
            work = directory.with_suffix(".part")
            work.mkdir(parents=True)
            for archive in archives:
                with zipfile.ZipFile(io.BytesIO(archive)) as source:
                    for member in source.infolist():
                        path = source.extract(member, work)
                        if mode := (member.external_attr >> 16) & 0o777:
                            os.chmod(path, mode)
            work.rename(directory)
    return directory


def clean_up() -> None:
    """Kill every function, remove every unpacked archive."""
    for process in list(_running):
        kill(process)
    shutil.rmtree(unpacked(), ignore_errors=True)


def run(
    invocation: Invocation,
    task: Path,
    layers: Path,
    architecture: str,
    environment: dict[str, str],
) -> None:
    """Run the invocation to its end."""
    candidates = {
        "/var/task/bootstrap": task / "bootstrap",
        "/opt/bootstrap": layers / "bootstrap",
    }
    found = [
        (shown, path) for shown, path in candidates.items() if path.is_file()
    ]
    if not found:
        names = " ".join(candidates)
        text = f"Error: Couldn't find valid bootstrap(s): [{names}]"
        invocation.fail("Runtime.InvalidEntrypoint", text)
        invocation.ended = time.monotonic()
        return
    shown, program = found[0]
    if problem := architecture_problem(program, architecture):
        invocation.fail(
            "Runtime.InvalidEntrypoint", f"Error: fork/exec {shown}: {problem}"
        )
        invocation.ended = time.monotonic()
        return
    api = RuntimeApi(invocation)
    threading.Thread(
        target=api.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    ).start()
    environment = environment | {
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{api.server_address[1]}",
        "LAMBDA_TASK_ROOT": str(task),
    }
    with tempfile.TemporaryFile() as log:
        process = None
        try:
            process = spawn(program, task, environment, log)
            invocation.process = process
            _running.add(process)
            wait_for_end(invocation, process)
        except OSError as failure:
            reason = os.strerror(failure.errno or 0).lower()
            invocation.fail(
                "Runtime.InvalidEntrypoint",
                f"Error: fork/exec {shown}: {reason}",
            )
        finally:
            if process:
                kill(process)
                _running.discard(process)
            invocation.killed.set()
            api.shutdown()
            api.server_close()
        log.seek(0)
        invocation.log = log.read().decode("utf-8", "replace")
    invocation.ended = time.monotonic()


def architecture_problem(program: Path, wanted: str) -> str | None:
    """Why the kernel could not execute the program in the function, if so.
    Scripts run everywhere.
    """
    with open(program, "rb") as file:
        header = file.read(20)
    if not header.startswith(b"\x7fELF"):
        return None
    machine = ELF_MACHINES.get(
        struct.unpack_from("<H", header, 18)[0], "other"
    )
    if machine != wanted:
        return "exec format error"
    if machine != HOST:
        return f"exec format error (the sandbox runs {HOST}, emulates nothing)"
    return None


def spawn(
    program: Path, directory: Path, environment: dict[str, str], log: object
) -> "subprocess.Popen[bytes]":
    """Start the process in a session of its own."""
    for _ in range(50):
        try:
            return subprocess.Popen(
                [str(program)],
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,  # type: ignore[call-overload]
                stderr=log,
                start_new_session=True,
            )
        except OSError as failure:
            # A child that another thread just forked still holds the freshly
            # written file open.
            if failure.errno != errno.ETXTBSY:
                raise
            time.sleep(0.02)
    raise OSError(errno.ETXTBSY, os.strerror(errno.ETXTBSY))


def wait_for_end(
    invocation: Invocation, process: "subprocess.Popen[bytes]"
) -> None:
    """Wait for the result, the process's death, or the time limit."""
    while not invocation.done.wait(0.005):
        if process.poll() is not None:
            if invocation.done.wait(
                0.05
            ):  # its last word may still be on its way
                return
            invocation.fail(
                "Runtime.ExitError",
                f"Error: Runtime exited {how(process.returncode)}",
            )
        elif invocation.initialised is None:
            if time.monotonic() > invocation.started + max(
                INITIALISATION_SECONDS, invocation.timeout
            ):
                time_out(invocation)
        elif time.monotonic() > invocation.initialised + invocation.timeout:
            time_out(invocation)


def time_out(invocation: Invocation) -> None:
    """Fail for want of time."""
    invocation.fail(
        "Sandbox.Timedout",
        f"Error: Task timed out after {invocation.timeout:.2f} seconds",
    )


def how(status: int) -> str:
    """A process's end in Lambda's words."""
    if status == 0:
        return "without providing a reason"
    if status < 0:
        name = str(signal.strsignal(-status) or -status).lower()
        return f"with error: signal: {name}"
    return f"with error: exit status {status}"


def kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill the process with everything that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
