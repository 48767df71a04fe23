"""The middleware that every AWS call passes: what happens to it, in order.

1. It is named and enters the journal.
2. It waits as long as the settings say.
3. A region that AWS does not have ends it.
4. A fault may decide it.
5. It may be throttled, refused for want of permission, or because it
   contradicts the API's model or limits.
6. What is not yet visible on AWS is not visible here.
7. moto executes it.
"""

import io
import re
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote

from . import (
    functions,
    limits,
    rates,
    regions,
    requests_check,
    roles,
    strict,
    wire,
)
from .clients import APPLICATION
from .faults import Faults, Rule
from .naming import Call, identify
from .settings import now, settings
from .wire import Refusal

Application = Callable[..., Iterable[bytes]]

LARGEST_RECORDED_BODY = 64 * 1024
LONGEST_HANG = 120.0
# These call back into the sandbox, or wait for someone else; every other call
# has moto for itself, because moto is not made for threads.
UNLOCKED = {
    ("lambda", "Invoke"),
    ("lambda", "InvokeAsync"),
    ("elbv2", "DescribeTargetHealth"),
}


class Calls:
    """The middleware and its journal."""

    def __init__(self, moto: Application) -> None:
        self.moto = moto
        self.faults = Faults()
        self.journal: list[dict[str, Any]] = []
        self.in_flight: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.moto_lock = threading.RLock()

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        body = read_body(environ)
        call = identify(environ, body)
        if call is None:
            return self._execute(environ, start_response)
        self._enter(call)
        try:
            status, headers, answer = self._answer(call)
        finally:
            self._leave(call)
        headers = [
            (name, value)
            for name, value in headers
            if name.lower() not in ("content-length", "connection")
        ]
        start_response(
            status, [*headers, ("Content-Length", str(len(answer)))]
        )
        return [answer]

    def read_journal(self, caller: str = "") -> list[dict[str, Any]]:
        """The calls of the callers that match the regular expression, oldest
        first.
        """
        return [
            entry
            for entry in list(self.journal)
            if re.search(caller, entry["caller"])
        ]

    def clear_journal(self) -> None:
        """Forget all calls so far."""
        with self.lock:
            self.journal.clear()

    def _enter(self, call: Call) -> None:
        with self.lock:
            self.in_flight[call.caller] += 1
            call.journal = {
                "n": len(self.journal),
                "start": round(now(), 4),
                "end": None,
                "service": call.service,
                "operation": call.operation,
                "region": call.region,
                "caller": call.caller,
                "role": call.role,
                "read": call.reads,
                "status": None,
                "fault": None,
                "error": None,
                "invalid": [],
                "bytes": len(call.body),
                "in_flight": self.in_flight[call.caller],
                "request": readable(call),
            }
            self.journal.append(call.journal)

    def _leave(self, call: Call) -> None:
        with self.lock:
            self.in_flight[call.caller] -= 1
            call.journal["end"] = round(now(), 4)

    def _answer(self, call: Call) -> tuple[str, list[tuple[str, str]], bytes]:
        if settings.delay_ms and call.caller != f"app:{APPLICATION}":
            time.sleep(settings.delay_ms / 1000)
        try:
            regions.check(call)
            released = self.faults.released
            if rule := self.faults.pick(call, call.journal["request"]):
                self._apply_fault(call, rule, released)
            rates.check(call)
            roles.check(call)
            requests_check.check(call)
            limits.check(call)
            strict.check(call)
            status, headers, answer = self._run(call)
        except Refusal as refusal:
            status, headers, answer = self._refuse(call, refusal)
        except ConnectionAbortedError:
            raise
        except Exception as failure:
            # Something that moto does not implement, or a mistake in the
            # sandbox.
            traceback.print_exc(file=sys.stderr)
            text = (
                f"the sandbox failed in {call.service}:{call.operation}: "
                f"{type(failure).__name__}: {failure}"
            )
            status, headers, answer = self._refuse(
                call, Refusal("InternalFailure", text, 500)
            )
        call.journal["status"] = int(status[:3])
        if call.journal["status"] >= 400 and call.journal["error"] is None:
            call.journal["error"] = error_code(headers, answer)
        return status, headers, answer

    def _refuse(
        self, call: Call, refusal: Refusal
    ) -> tuple[str, list[tuple[str, str]], bytes]:
        call.journal["error"] = refusal.code
        headers, answer = wire.error(call.service, refusal)
        return wire.status_line(refusal.status), headers, answer

    def _apply_fault(
        self, call: Call, rule: Rule, released: threading.Event
    ) -> None:
        call.journal["fault"] = rule.action
        if rule.action == "delay":
            time.sleep(rule.seconds)
            return
        if rule.action == "hold":
            released.wait(LONGEST_HANG)
            return
        if rule.action == "error":
            raise Refusal(
                rule.code,
                rule.message,
                rule.status,
                list(rule.headers.items()),
            )
        if rule.action.startswith("apply"):
            status, _, _ = self._run(call)
            call.journal["status"] = int(status[:3])
        if rule.action.endswith("hang"):
            released.wait(LONGEST_HANG)
        if rule.action.endswith("kill"):
            functions.kill(call.access_key)
        drop(call.environ)

    def _run(self, call: Call) -> tuple[str, list[tuple[str, str]], bytes]:
        """moto's answer."""
        if (call.service, call.operation) in UNLOCKED:
            return self._run_unlocked(call)
        with self.moto_lock:
            status, headers, answer = self._run_unlocked(call)
            if int(status[:3]) < 300:
                strict.observe(call)
        return status, headers, answer

    def _run_unlocked(
        self, call: Call
    ) -> tuple[str, list[tuple[str, str]], bytes]:
        got: dict[str, Any] = {}

        def start_response(
            status: str, headers: list[tuple[str, str]], _: Any = None
        ) -> Callable[[bytes], None]:
            got.update(status=status, headers=headers)
            return lambda _: None

        call.environ["wsgi.input"] = io.BytesIO(call.body)
        answer = b"".join(self.moto(call.environ, start_response))
        return got["status"], got["headers"], answer

    def _execute(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        with self.moto_lock:
            return list(self.moto(environ, start_response))


def read_body(environ: dict[str, Any]) -> bytes:
    """The whole body, which afterwards can be read again."""
    stream = environ["wsgi.input"]
    body = (
        stream.read()
        if environ.get("wsgi.input_terminated")
        else stream.read(content_length(environ))
    )
    environ["wsgi.input"] = io.BytesIO(body)
    environ["CONTENT_LENGTH"] = str(len(body))
    return body


def content_length(environ: dict[str, Any]) -> int:
    """The body's announced length."""
    return int(environ.get("CONTENT_LENGTH") or 0)


def readable(call: Call) -> str:
    """The request as text: path and query unless they say nothing, then the
    body.
    """
    raw = (
        call.environ.get("RAW_URI")
        or call.environ.get("REQUEST_URI")
        or call.environ["PATH_INFO"]
    )
    where = (
        ""
        if raw == "/"
        else f"{call.environ['REQUEST_METHOD']} {unquote(raw)}\n"
    )
    if len(call.body) > LARGEST_RECORDED_BODY:
        return f"{where}<{len(call.body)} bytes>"
    body = call.body.decode("utf-8", "replace")
    return where + (
        unquote(body.replace("+", " "))
        if call.protocol in ("query", "ec2")
        else body
    )


def error_code(headers: list[tuple[str, str]], answer: bytes) -> str | None:
    """The error's code, wherever the protocol has put it."""
    for name, value in headers:
        if name.lower() == "x-amzn-errortype":
            return value.split(":")[0]
    match = re.search(
        rb"<Code>([^<]+)</Code>|"
        rb'"(?:__type|code|Code)"\s*:\s*"(?:[^"#]*#)?([^"]+)"',
        answer,
    )
    return (match[1] or match[2]).decode() if match else None


def drop(environ: dict[str, Any]) -> None:
    """Close the connection without an answer."""
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError
