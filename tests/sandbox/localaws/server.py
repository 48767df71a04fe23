"""The HTTP server: moto, the execute-api front and the control API in one
process.
"""

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import ACCOUNT

# Read by moto when it is imported. Managed policies: the functions' roles
# refer to AWS's own. The account: without it, moto asks the IAM of every
# partition for each call's key, and fills each with those 1500 policies for
# that. The images: stacks are made of one or two, and moto would make a snapshot
# and a volume for each of 300 in every region after every reset.
os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
os.environ["MOTO_ACCOUNT_ID"] = ACCOUNT
os.environ["MOTO_AMIS_PATH"] = str(Path(__file__).parent / "images.json")

from moto.core.config import default_user_config  # noqa: E402
from moto.moto_server.werkzeug_app import (  # noqa: E402
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import BaseWSGIServer, make_server  # noqa: E402

from . import (
    clients,
    control,
    execapi,
    fixups,
    functions,
    machines,
    networks,
    regions,
    schedule,
    strict,
)  # noqa: E402
from .calls import Calls  # noqa: E402
from .machine import boot, commands, life, metadata, tls  # noqa: E402

# What wekactl calls. moto's first call to a service takes up to 200 ms, which
# would spoil a measurement.
WARM = {
    "apigateway": "get_rest_apis",
    "autoscaling": "describe_auto_scaling_groups",
    "cloudformation": "describe_stacks",
    "dynamodb": "list_tables",
    "ec2": "describe_instances",
    "elb": "describe_load_balancers",
    "elbv2": "describe_load_balancers",
    "events": "list_rules",
    "iam": "list_roles",
    "kms": "list_keys",
    "lambda": "list_functions",
    "logs": "describe_log_groups",
    "resourcegroupstaggingapi": "get_resources",
    "route53": "list_hosted_zones",
    "stepfunctions": "list_state_machines",
    "sts": "get_caller_identity",
}


@dataclass
class Options:
    """How the sandbox was started."""

    port: int
    network: str | None
    """None: one that no other sandbox has."""
    region: str
    warm: bool = True


class Handler(MotoRequestHandler):
    """Connections are kept, answers leave at once, and standard output stays
    the program's.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_request(self, *_: Any) -> None:
        """The journal has it."""

    def connection_dropped(self, *_: Any) -> None:
        """Faults do this on purpose, and so do clients that are killed."""


class Sandbox:
    """The WSGI application."""

    def __init__(self, options: Options, claimed: socket.socket) -> None:
        self.options = options
        self.claimed = claimed
        self.server: BaseWSGIServer | None = None
        self.calls = Calls(DomainDispatcherApplication(backend_application))
        self.ready = threading.Event()

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        if environ["PATH_INFO"].startswith("/sandbox/"):
            return control.serve(self, environ, start_response)
        if metadata.match(environ):
            return metadata.serve(environ, start_response)
        if environ["PATH_INFO"].startswith(commands.PREFIX):
            return commands.serve(environ, start_response)
        if target := execapi.match(environ):
            return execapi.serve(
                target, environ, start_response, self.calls.faults
            )
        return self.calls(environ, start_response)

    def stop(self) -> None:
        """End the server, from whatever thread."""
        if self.server:
            threading.Thread(target=self.server.shutdown, daemon=True).start()


def backend_application(service: Any) -> Any:
    """moto's application of one service, made to raise what it can not handle:
    Calls turns that into an answer.
    """
    application = create_backend_app(service)
    application.config["PROPAGATE_EXCEPTIONS"] = True
    return application


def start(options: Options) -> Sandbox:
    """Everything but serving: call `serve` with the result."""
    if options.region not in regions.known():
        raise ValueError(f"AWS has no region {options.region!r}")
    options.network, claimed = networks.claim(options.network)
    sandbox = Sandbox(options, claimed)
    listener = socket.create_server(("127.0.0.1", options.port), backlog=128)
    port = listener.getsockname()[1]
    os.environ["MOTO_PORT"] = str(port)
    # What the sandbox was started under must not reach boto3 in it, nor the
    # functions.
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    default_user_config["stepfunctions"]["execute_state_machine"] = True
    url = f"http://127.0.0.1:{port}"
    clients.configure(url, options.region)
    functions.apply()
    machines.apply()
    fixups.apply()
    strict.apply()
    life.apply(sandbox.calls.moto_lock)
    tls.configure(sandbox)
    sandbox.server = make_server(
        "127.0.0.1",
        port,
        sandbox,
        threaded=True,
        request_handler=Handler,
        fd=listener.detach(),
    )
    sandbox.server.daemon_threads = True
    return sandbox


def serve(
    sandbox: Sandbox, announce: Callable[[], None], tick_every: float = 0
) -> None:
    """Answer requests until stopped; announce once everything is warm."""
    assert sandbox.server is not None

    def get_ready() -> None:
        if sandbox.options.warm:
            warm_up()
            sandbox.calls.clear_journal()
        sandbox.ready.set()
        announce()
        if tick_every:
            schedule.tick_every(tick_every)

    threading.Thread(target=get_ready, daemon=True, name="warm-up").start()
    try:
        sandbox.server.serve_forever(poll_interval=0.05)
    finally:
        sandbox.server.server_close()
        functions.clean_up()
        boot.clean_up()
        tls.clean_up()
        # Executions under way have threads that would keep the process for as
        # long as their tasks may take.
        sys.stdout.flush()
        os._exit(0)


def warm_up() -> None:
    """Call every service once."""
    for service, operation in WARM.items():
        try:
            clients.call(service, operation, {}, None, paginate=False)
        except Exception as failure:
            print(f"sandbox: warming {service} up: {failure}", file=sys.stderr)
