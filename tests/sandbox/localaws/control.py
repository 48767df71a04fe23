"""The control API: JSON over HTTP under /sandbox/.

GET  ready          wait until everything is warm
POST call           one AWS call, by boto3: {"service", "operation",
                    "params", "region", "paginate"}
GET  journal        every AWS call so far; ?caller=regex; DELETE forgets
GET  faults         the rules with counters
POST faults         replace them: [rule, ...], see faults.py
GET  settings       see settings.py
POST settings       change some: {"delay_ms": 80}
POST tick           let Auto Scaling look after its groups (groups.py), and
                    fire every enabled schedule once: {"wait", "timeout"}
POST age            move everything's time back: {"seconds": 3600}
POST machines/kill, stop, start, reboot or purge
                    what happens to machines from outside, whatever protects
                    them: {"instance_ids": [...], "region"}; one that is
                    purged is unknown to EC2, and still in its group
POST members        change what a group says of a member: {"group",
                    "instance_id", "lifecycle_state", "health_status",
                    "region"}
GET  boots          every boot with its log; ?instance_id=...
POST settle         wait until no machine boots and Weka was told of all:
                    {"timeout": 60}
POST functions/kill kill the functions that run: {"name": regex}
POST stack          make a stack, see stack.py
POST populate       make unrelated resources, see populate.py
GET  inventory      everything that exists
GET  invocations    every run of a function; DELETE forgets
POST reset          empty the account; ids repeat with {"seed": 42}
POST stop           end

The answer to a mistake of whoever asks is 400, that to a mistake of the
sandbox 500: {"error": one line, "traceback": text}.
"""

import functools
import importlib
import json
import re
import traceback
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from botocore.exceptions import ClientError
from moto.core.exceptions import ServiceException, _RESTError

from . import (
    ACCOUNT,
    aging,
    clients,
    functions,
    groups,
    machines,
    rates,
    schedule,
    strict,
    wire,
)
from .calls import read_body
from .machine import boot, life
from .naming import sessions
from .settings import settings

if TYPE_CHECKING:
    from .server import Sandbox

# What is raised where the request is to blame.
MISTAKES = (ValueError, re.error, ClientError, ServiceException, _RESTError)

Handler = Callable[["Sandbox", Any, dict[str, str]], Any]
routes: dict[tuple[str, str], Handler] = {}


class Problem(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, document: Any) -> None:
        super().__init__(status)
        self.status, self.document = status, document


def route(method: str, path: str) -> Callable[[Handler], Handler]:
    """Register the function for a method and path."""

    def register(handler: Handler) -> Handler:
        routes[method, path] = handler
        return handler

    return register


def serve(
    sandbox: "Sandbox",
    environ: dict[str, Any],
    start_response: Callable[..., Any],
) -> Iterable[bytes]:
    """Answer one request."""
    path = environ["PATH_INFO"].removeprefix("/sandbox/").rstrip("/")
    query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
    body = read_body(environ)
    status = 200
    try:
        handler = routes.get((environ["REQUEST_METHOD"], path))
        if handler is None:
            text = f"no {environ['REQUEST_METHOD']} {path}, see control.py"
            raise Problem(404, {"error": text})
        document = handler(sandbox, json.loads(body or b"null"), query)
    except Problem as problem:
        status, document = problem.status, problem.document
    except MISTAKES as failure:
        status, document = 400, described(failure, said(failure))
    except Exception as failure:
        text = f"{type(failure).__name__}: {failure}"
        status, document = 500, described(failure, text)
    answer = json.dumps(document, default=str).encode()
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(answer))),
    ]
    start_response(
        wire.status_line(status) if status != 200 else "200 OK", headers
    )
    return [answer]


def said(failure: Exception) -> str:
    """What an error says; moto's are no text by themselves."""
    if isinstance(failure, ClientError):
        error = failure.response["Error"]
        return f"{error.get('Message')} ({error.get('Code')})"
    return getattr(failure, "message", None) or str(failure)


def described(failure: Exception, text: str) -> dict[str, str]:
    """An error as a document."""
    lines = traceback.format_exception(failure)
    return {"error": " ".join(text.split()), "traceback": "".join(lines)}


@route("GET", "ready")
def ready(sandbox: "Sandbox", _body: Any, _query: dict[str, str]) -> Any:
    """Wait until the sandbox is warm."""
    return {
        "ready": sandbox.ready.wait(60),
        "url": clients.url(),
        "network": sandbox.options.network,
    }


@route("POST", "call")
def call(_sandbox: "Sandbox", body: Any, _query: dict[str, str]) -> Any:
    """One AWS call."""
    arguments = {"params": {}, "region": None, "paginate": False} | body
    try:
        return clients.call(**arguments)
    except ClientError as failure:
        raise Problem(
            400,
            {
                "code": failure.response["Error"].get("Code"),
                "message": failure.response["Error"].get("Message"),
                "status": failure.response["ResponseMetadata"][
                    "HTTPStatusCode"
                ],
            },
        ) from failure


@route("GET", "journal")
def journal(sandbox: "Sandbox", _body: Any, query: dict[str, str]) -> Any:
    """The calls so far."""
    return sandbox.calls.read_journal(query.get("caller", ""))


@route("DELETE", "journal")
def clear_journal(
    sandbox: "Sandbox", _body: Any, _query: dict[str, str]
) -> Any:
    """Forget the calls."""
    sandbox.calls.clear_journal()
    return {}


@route("GET", "faults")
def faults(sandbox: "Sandbox", _body: Any, _query: dict[str, str]) -> Any:
    """The rules."""
    return sandbox.calls.faults.list()


@route("POST", "faults")
def set_faults(sandbox: "Sandbox", body: Any, _query: dict[str, str]) -> Any:
    """Replace the rules."""
    return sandbox.calls.faults.set(body)


@route("GET", "settings")
def get_settings(
    _sandbox: "Sandbox", _body: Any, _query: dict[str, str]
) -> Any:
    """The settings."""
    return settings.as_dict()


@route("POST", "settings")
def set_settings(
    _sandbox: "Sandbox", body: Any, _query: dict[str, str]
) -> Any:
    """Change settings."""
    settings.update(body)
    return settings.as_dict()


@route("POST", "tick")
def tick(sandbox: "Sandbox", body: Any, _query: dict[str, str]) -> Any:
    """Look after the groups, fire the schedules."""
    options = {"wait": False, "timeout": 60} | (body or {})
    with sandbox.calls.moto_lock:
        groups.look_after()
    life.told(float(options["timeout"]))
    return schedule.tick(bool(options["wait"]), float(options["timeout"]))


@route("POST", "age")
def age(sandbox: "Sandbox", body: Any, _query: dict[str, str]) -> Any:
    """Move time."""
    with sandbox.calls.moto_lock:
        return {"moved": aging.age(float(body["seconds"]))}


def machines_route(action: str) -> None:
    """One thing that happens to machines."""

    @route("POST", f"machines/{action}")
    def happen(sandbox: "Sandbox", body: Any, _query: dict[str, str]) -> Any:
        region = body.get("region") or clients.default_region()
        with sandbox.calls.moto_lock:
            for instance_id in body["instance_ids"]:
                life.happen(action, instance_id, region)
        life.told(life.WEKA_SECONDS)
        return {}


for _action in life.HAPPENINGS:
    machines_route(_action)


@route("POST", "members")
def members(sandbox: "Sandbox", body: Any, _query: dict[str, str]) -> Any:
    """Change what a group says of a member."""
    from moto.autoscaling.models import autoscaling_backends

    region = body.get("region") or clients.default_region()
    backend = autoscaling_backends[ACCOUNT][region]
    with sandbox.calls.moto_lock:
        for state in backend.autoscaling_groups[body["group"]].instance_states:
            if state.instance.id == body["instance_id"]:
                for name in ("lifecycle_state", "health_status"):
                    if name in body:
                        setattr(state, name, body[name])
                return {}
    raise Problem(404, {"error": f"{body['instance_id']} is no member"})


@route("GET", "boots")
def boots(_sandbox: "Sandbox", _body: Any, query: dict[str, str]) -> Any:
    """Every boot."""
    return boot.boots(query.get("instance_id"))


@route("POST", "settle")
def settle(_sandbox: "Sandbox", body: Any, _query: dict[str, str]) -> Any:
    """Wait for the machines."""
    return {"settled": life.settle(float((body or {}).get("timeout", 60)))}


@route("POST", "functions/kill")
def kill_functions(
    _sandbox: "Sandbox", body: Any, _query: dict[str, str]
) -> Any:
    """Kill what runs."""
    return {"killed": functions.kill_by_name(body["name"])}


@functools.cache
def _module(name: str) -> Any:
    return importlib.import_module(f".{name}", __package__)


@route("POST", "stack")
def stack(sandbox: "Sandbox", body: Any, _query: dict[str, str]) -> Any:
    """Make a stack."""
    return clients.plain(
        _module("stack").create({"network": sandbox.options.network} | body)
    )


@route("POST", "populate")
def populate(_sandbox: "Sandbox", body: Any, _query: dict[str, str]) -> Any:
    """Make unrelated resources."""
    return clients.plain(_module("populate").create(body or {}))


@route("GET", "inventory")
def inventory(sandbox: "Sandbox", _body: Any, _query: dict[str, str]) -> Any:
    """Everything that exists, at one moment."""
    with sandbox.calls.moto_lock:
        return clients.plain(_module("inventory").read())


@route("GET", "invocations")
def invocations(
    _sandbox: "Sandbox", _body: Any, _query: dict[str, str]
) -> Any:
    """Every run of a function."""
    return functions.invocations


@route("DELETE", "invocations")
def clear_invocations(
    _sandbox: "Sandbox", _body: Any, _query: dict[str, str]
) -> Any:
    """Forget the runs."""
    functions.invocations.clear()
    return {}


def forget_backends() -> None:
    """Let every backend be made anew when it is next asked for.

    moto's own reset makes each of them twice: before it forgets them, too.
    """
    from moto.core.base_backend import BackendDict, backend_lock
    from moto.core.model_instances import reset_model_data

    with backend_lock:
        for backends in BackendDict._instances:
            backends.clear()
        BackendDict._instances.clear()
    reset_model_data()


@route("POST", "reset")
def reset(sandbox: "Sandbox", body: Any, _query: dict[str, str]) -> Any:
    """Empty the account, the journal and the rules; the settings stay."""
    from moto.moto_api._internal import mock_random

    functions.forget()
    machines.forget()
    life.forget()
    with sandbox.calls.moto_lock:
        forget_backends()
        seed = (body or {}).get("seed")
        if seed is not None:
            mock_random.seed(int(seed))
    sandbox.calls.clear_journal()
    sandbox.calls.faults.set([])
    sessions.clear()
    strict.forget()
    rates.forget()
    return {}


@route("POST", "stop")
def stop(sandbox: "Sandbox", _body: Any, _query: dict[str, str]) -> Any:
    """End the server."""
    sandbox.stop()
    return {}
