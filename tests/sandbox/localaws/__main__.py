"""The sandbox's command line: starts the local AWS, and talks to one that
runs.
"""

import argparse
import gc
import http.client
import json
import math
import os
import signal
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

DESCRIPTION = """\
A local AWS for wekactl: moto with what moto leaves out - functions that
really run, schedules, AWS's delays, rates and refusals, and a journal of
every call. Nothing leaves this machine.

  sandbox start &              prints the environment to export
  sandbox stack weka-prod      makes a Weka stack in it
  sandbox tick --wait          looks after its groups, fires its schedules once
  sandbox age 3600             makes everything in it an hour older
  sandbox machine kill i-...   lets something happen to a machine
  sandbox boots                shows how the groups' machines booted

Machines boot with the setting boot_machines=true; with weka_url they have a
Weka, which is told of each and answers their `weka`.
"""


def main() -> None:
    """Do what the arguments say."""
    try:
        try:
            options = arguments()
            options.run(options)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has seen enough, e.g. `head`. What is not written yet
        # goes nowhere, or it would fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def arguments() -> argparse.Namespace:
    """The parsed command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="sandbox", description=DESCRIPTION, formatter_class=raw
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    selftest = commands.add_parser(
        "selftest",
        help="tell which patches of moto are still needed, and whether they work",
        description=run_selftest.__doc__,
    )
    selftest.set_defaults(run=run_selftest)

    start = commands.add_parser(
        "start",
        help="run the local AWS, in the foreground",
        description=run_server.__doc__,
    )
    start.set_defaults(run=run_server)
    start.add_argument(
        "--port",
        type=port,
        default=0,
        help="port on 127.0.0.1 (default: any free one)",
    )
    start.add_argument(
        "--network",
        help="first two bytes of the stacks' addresses, loopback ones, "
        "so that a simulated Weka can listen there (default: such that no "
        "other sandbox has)",
    )
    start.add_argument(
        "--region", default="eu-central-1", help="default: %(default)s"
    )
    start.add_argument(
        "--strict",
        action="store_true",
        help="eventual consistency and request rates as on AWS",
    )
    start.add_argument(
        "--rates", action="store_true", help="request rates as on AWS"
    )
    start.add_argument(
        "--delay-ms",
        type=duration,
        default=0,
        metavar="N",
        help="each call takes N ms longer",
    )
    start.add_argument(
        "--tick-every",
        type=duration,
        default=0,
        metavar="SECONDS",
        help="fire the schedules regularly",
    )
    start.add_argument(
        "--cold",
        action="store_true",
        help="be ready sooner, with slower first calls",
    )
    start.add_argument(
        "--json",
        action="store_true",
        help="print one JSON line instead of the environment",
    )
    end = start.add_mutually_exclusive_group()
    end.add_argument(
        "--parent-pid",
        type=int,
        metavar="N",
        help="end when that process does",
    )
    end.add_argument(
        "--until-stdin-closes",
        action="store_true",
        help="end when standard input reaches its end",
    )

    stack = add_client(
        commands, "stack", make_stack, "make a Weka CloudFormation stack"
    )
    stack.add_argument("name", metavar="NAME")
    stack.add_argument(
        "--backends", type=int, default=6, help="default: %(default)s"
    )
    stack.add_argument(
        "--clients", type=int, default=0, help="default: %(default)s"
    )
    stack.add_argument(
        "--instance-type", default="i3en.2xlarge", help="default: %(default)s"
    )
    stack.add_argument(
        "--zones",
        type=int,
        choices=(1, 2),
        default=2,
        help="zones with a subnet (default: %(default)s)",
    )
    stack.add_argument(
        "--classic-lb",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="with a classic load balancer (default: yes)",
    )
    stack.add_argument(
        "--network",
        help="first two bytes of its addresses (default: the sandbox's)",
    )
    stack.add_argument("--region", help="default: the sandbox's")

    tick = add_client(
        commands,
        "tick",
        fire_schedules,
        "look after every Auto Scaling group, and fire every enabled"
        " schedule once",
    )
    tick.add_argument(
        "--wait",
        action="store_true",
        help="wait until the executions have ended",
    )
    tick.add_argument(
        "--timeout",
        type=duration,
        default=60,
        metavar="SECONDS",
        help="at most (default: %(default)s)",
    )
    age = add_client(
        commands, "age", move_time, "make everything so many seconds older"
    )
    age.add_argument("seconds", type=duration, metavar="SECONDS")
    machine = add_client(
        commands,
        "machine",
        happen,
        "let something happen to machines from outside, whatever protects"
        " them",
    )
    machine.add_argument(
        "action",
        choices=("kill", "stop", "start", "reboot", "purge"),
        help="purge: EC2 does not know it any more, its group still does",
    )
    machine.add_argument("ids", nargs="+", metavar="INSTANCE")
    boots = add_client(
        commands, "boots", show_boots, "print every boot with its log"
    )
    boots.add_argument(
        "--wait",
        type=duration,
        default=0,
        metavar="SECONDS",
        help="wait so long at most until no machine boots",
    )
    journal = add_client(
        commands, "journal", show_journal, "print every AWS call so far"
    )
    journal.add_argument(
        "--caller",
        default="",
        metavar="REGEX",
        help='only of these callers, e.g. "^app:", "^lambda:" or'
        ' "^instance:"',
    )
    journal.add_argument(
        "--json",
        action="store_true",
        help="with everything that is known of each call",
    )
    add_client(
        commands, "inventory", show_inventory, "print everything that exists"
    )
    settings = add_client(
        commands,
        "settings",
        change_settings,
        "print or change settings, e.g. delay_ms=80 strict=true",
    )
    settings.add_argument(
        "change", nargs="*", type=change, metavar="NAME=VALUE"
    )
    add_client(commands, "stop", stop, "end the sandbox")
    return parser.parse_args()


def port(text: str) -> int:
    """A port, or 0."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def duration(text: str) -> float:
    """A number that can be waited for."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return value


def change(text: str) -> tuple[str, Any]:
    """A setting and its new value; what is no JSON is text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def add_client(
    commands: Any, name: str, run: Any, text: str
) -> argparse.ArgumentParser:
    """A command that talks to a running sandbox."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text.capitalize()}."
    )
    parser.add_argument(
        "--url",
        default=os.environ.get("WEKACTL_SANDBOX"),
        help="the sandbox (default: $WEKACTL_SANDBOX)",
    )
    parser.set_defaults(run=run)
    return parser


def run_server(options: argparse.Namespace) -> None:
    """Run the local AWS until it is told to stop. Once it is ready it prints
    the environment that points programs to it; export that, e.g. with `source
    <(sandbox start ...)` in a script that keeps it running.
    """
    # Half a million objects are made on the way up, and hardly one of them
    # dies again.
    gc.disable()
    from . import server
    from .settings import settings

    settings.update(
        {
            "strict": options.strict,
            "rates": float(options.rates),
            "delay_ms": options.delay_ms,
        }
    )
    try:
        sandbox = server.start(
            server.Options(
                port=options.port,
                network=options.network,
                region=options.region,
                warm=not options.cold,
            )
        )
    except (OSError, ValueError) as failure:
        sys.exit(f"sandbox: it can not start: {failure}")
    options.network = sandbox.options.network
    if options.until_stdin_closes:
        threading.Thread(
            target=stop_after_stdin, args=(sandbox,), daemon=True
        ).start()
    if options.parent_pid:
        threading.Thread(
            target=stop_after_process,
            args=(sandbox, options.parent_pid),
            daemon=True,
        ).start()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sandbox.stop())
    server.serve(sandbox, lambda: announce(options), options.tick_every)


def run_selftest(options: argparse.Namespace) -> None:
    """Hold every fixup against moto as it is, where it has to be needed, and
    against the patched one, which has to be like AWS.
    """
    script = Path(__file__).parent.parent / "selftest.py"
    os.execv(sys.executable, [sys.executable, "-s", str(script)])


def announce(options: argparse.Namespace) -> None:
    """Say where the sandbox is."""
    from . import clients

    gc.freeze()
    gc.enable()
    url = clients.url()
    if options.json:
        port = int(url.rpartition(":")[2])
        document = {
            "url": url,
            "port": port,
            "pid": os.getpid(),
            "network": options.network,
            "python": sys.executable,
        }
        print(json.dumps(document), flush=True)
        return
    environment = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "AKIASANDBOXSANDBOX00",
        "AWS_SECRET_ACCESS_KEY": "sandbox",
        "AWS_REGION": options.region,
        # Where the first version of the AWS command line looks.
        "AWS_DEFAULT_REGION": options.region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "WEKACTL_SANDBOX": url,
    }
    print(
        "\n".join(
            f"export {name}={value}" for name, value in environment.items()
        ),
        flush=True,
    )


def stop_after_stdin(sandbox: Any) -> None:
    """Whoever started the sandbox holds its standard input: a killed test
    leaves no server behind.
    """
    while os.read(0, 4096):
        pass
    sandbox.stop()


def stop_after_process(sandbox: Any, process: int) -> None:
    """Stop when the process is gone."""
    import time

    while True:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            sandbox.stop()
            return
        except PermissionError:
            pass  # it exists, under another user
        time.sleep(0.5)


def request(
    options: argparse.Namespace, method: str, path: str, body: Any = None
) -> Any:
    """One call of the control API."""
    if not options.url:
        sys.exit(
            "sandbox: no sandbox: export what `sandbox start` prints,"
            " or give --url"
        )
    data = None if body is None else json.dumps(body).encode()
    # Never through a proxy: it is this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        target = urllib.request.Request(
            f"{options.url}/sandbox/{path}", data, method=method
        )
        with opener.open(target) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as failure:
        sys.exit(refusal(failure))
    except (OSError, http.client.HTTPException) as failure:
        sys.exit(f"sandbox: {options.url} does not answer: {failure}")
    except ValueError:
        sys.exit(f"sandbox: {options.url} is no sandbox")


def refusal(failure: urllib.error.HTTPError) -> str:
    """What to say of an answer that is none. Where the sandbox is to blame,
    how that came about is wanted too.
    """
    try:
        document = json.load(failure)
        error = document["error"]
    except (ValueError, TypeError, KeyError):
        return f"sandbox: no sandbox answers: {failure}"
    if failure.code >= 500:
        return f"sandbox: it failed: {error}\n{document.get('traceback', '')}"
    return f"sandbox: {error}"


def show(document: Any) -> None:
    """Print as JSON."""
    print(json.dumps(document, indent=2))


def make_stack(options: argparse.Namespace) -> None:
    """`sandbox stack`."""
    names = (
        "name",
        "backends",
        "clients",
        "instance_type",
        "zones",
        "classic_lb",
        "network",
        "region",
    )
    given = {name: getattr(options, name) for name in names}
    show(
        request(
            options,
            "POST",
            "stack",
            {
                name: value
                for name, value in given.items()
                if value is not None
            },
        )
    )


def fire_schedules(options: argparse.Namespace) -> None:
    """`sandbox tick`."""
    show(
        request(
            options,
            "POST",
            "tick",
            {"wait": options.wait, "timeout": options.timeout},
        )
    )


def move_time(options: argparse.Namespace) -> None:
    """`sandbox age`."""
    show(request(options, "POST", "age", {"seconds": options.seconds}))


def happen(options: argparse.Namespace) -> None:
    """`sandbox machine`."""
    body = {"instance_ids": options.ids}
    request(options, "POST", f"machines/{options.action}", body)


def show_boots(options: argparse.Namespace) -> None:
    """`sandbox boots`."""
    if options.wait:
        request(options, "POST", "settle", {"timeout": options.wait})
    for boot in request(options, "GET", "boots"):
        status = "" if boot["exit"] is None else f" with {boot['exit']}"
        print(
            f"{boot['instance_id']} {boot['private_ip']}: "
            f"{boot['state']}{status} {boot['failure']}\n{boot['log']}"
        )


def show_journal(options: argparse.Namespace) -> None:
    """`sandbox journal`."""
    from urllib.parse import quote

    entries = request(
        options, "GET", f"journal?caller={quote(options.caller)}"
    )
    if options.json:
        show(entries)
        return
    for entry in entries:
        took = (
            (entry["end"] - entry["start"]) * 1000
            if entry["end"] is not None
            else float("nan")
        )
        outcome = " ".join(
            str(entry[name])
            for name in ("status", "error", "fault")
            if entry[name] is not None
        )
        name = f"{entry['service']}:{entry['operation']}"
        print(
            f"{entry['start']:9.3f} {took:7.1f} ms  {name:45}"
            f" {entry['caller']:30} {outcome}"
        )


def show_inventory(options: argparse.Namespace) -> None:
    """`sandbox inventory`."""
    show(request(options, "GET", "inventory"))


def change_settings(options: argparse.Namespace) -> None:
    """`sandbox settings`."""
    show(
        request(options, "POST", "settings", dict(options.change))
        if options.change
        else request(options, "GET", "settings")
    )


def stop(options: argparse.Namespace) -> None:
    """`sandbox stop`."""
    request(options, "POST", "stop")


if __name__ == "__main__":
    main()
