"""What a machine's stand-ins ask the sandbox for: POST /machine/{command}
with the arguments, each ended by a NUL, and after as many as X-Arguments says
the variables that begin with WEKA_.

The answer is what the command would print, with the number of its bytes on
standard output, the rest being standard error, and its status in headers.
"""

from __future__ import annotations

import functools
import json
import re
import threading
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import boto3
import jmespath
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from .. import clients
from ..calls import read_body
from . import boot, hardware, life
from .hardware import Result

PREFIX = "/machine/"
FAILED = 254
"""The AWS CLI's status for a call that AWS refused."""
USAGE = 252
SIGN = "weka_sign_drive"


_making = threading.Lock()


def serve(
    environ: dict[str, Any], start_response: Callable[..., Any]
) -> Iterable[bytes]:
    """Answer one request."""
    name = environ["PATH_INFO"].removeprefix(PREFIX)
    machine = life.by_id(environ.get("HTTP_X_MACHINE", ""))
    given = read_body(environ).decode("utf-8", "replace").split("\0")[:-1]
    count = int(environ.get("HTTP_X_ARGUMENTS") or 0)
    words, variables = given[:count], given[count:]
    try:
        if machine is None:
            result = Result(FAILED, "", "the machine has no power\n")
        elif run := COMMANDS.get(name):
            pairs = dict(pair.split("=", 1) for pair in variables)
            result = run(machine, words, pairs)
        else:
            result = hardware.run(name, machine, words)
    except Exception:
        result = Result(FAILED, "", traceback.format_exc())
    output, error = result.output.encode(), result.error.encode()
    headers = [
        ("Content-Type", "application/octet-stream"),
        ("Content-Length", str(len(output) + len(error))),
        ("X-Status", str(result.status)),
        ("X-Output", str(len(output))),
        ("Connection", "close"),
    ]
    start_response("200 OK", headers)
    return [output + error]


def shut_down(
    machine: life.Machine, _words: list[str], _variables: dict[str, str]
) -> Result:
    """`shutdown`: EC2 does what the instance's shutdown behaviour says."""
    from moto.ec2.models import ec2_backends

    from .. import ACCOUNT

    boot.halted(machine.instance_id)
    with life.lock():
        backend = ec2_backends[ACCOUNT][machine.region]
        instance = backend.get_instance(machine.instance_id)
        if instance.instance_initiated_shutdown_behavior == "terminate":
            backend.terminate_instances([machine.instance_id])
        else:
            instance.stop()
    return Result()


def weka(
    machine: life.Machine, words: list[str], variables: dict[str, str]
) -> Result:
    """`weka`: Weka answers. Drives that it signs have partitions then."""
    answer = life.weka(
        "POST",
        "weka",
        {
            "instance_id": machine.instance_id,
            "argv": words,
            "env": variables,
        },
    )
    if not answer.get("exit") and any(SIGN in word for word in words):
        hardware.sign(machine.instance_id, words)
    return Result(
        int(answer.get("exit") or 0),
        answer.get("stdout") or "",
        answer.get("stderr") or "",
    )


def aws(
    machine: life.Machine, words: list[str], _variables: dict[str, str]
) -> Result:
    """`aws`: one call, as the instance's role, printed as the AWS CLI does."""
    plain, options = _options(words)
    if len(plain) != 2:
        return Result(USAGE, "", f"aws: two words expected, not {plain}\n")
    service, operation = plain
    if machine.role is None:
        return Result(
            253,
            "",
            "Unable to locate credentials. You can configure "
            'credentials by running "aws configure".\n',
        )
    client = _client(
        service,
        first(options, "region") or machine.region,
        machine.role,
        machine.instance_id,
    )
    method = operation.replace("-", "_")
    try:
        model = client.meta.service_model.operation_model(
            client.meta.method_to_api_mapping[method]
        )
        arguments = _arguments(model.input_shape, options)
    except (KeyError, ValueError) as failure:
        return Result(USAGE, "", f"aws: {operation}: {failure}\n")
    try:
        answer = getattr(client, method)(**arguments)
    except ClientError as failure:
        return Result(FAILED, "", f"\n{failure}\n")
    except BotoCoreError as failure:
        return Result(255, "", f"\n{failure}\n")
    answer.pop("ResponseMetadata", None)
    hardware.show_interfaces(machine)
    if not answer:
        return Result()  # such a call prints nothing
    if query := first(options, "query"):
        answer = jmespath.search(query, answer)
    return Result(0, _printed(answer, first(options, "output")))


COMMANDS = {"aws": aws, "shutdown": shut_down, "weka": weka}
GLOBAL = ("region", "query", "output")


def _options(words: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The words before all options, and each option's words."""
    plain: list[str] = []
    options: dict[str, list[str]] = {}
    into = plain
    for word in words:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            into = options.setdefault(name, [])
            if value:
                into.append(value)
        else:
            into.append(word)
    return plain, options


def first(options: dict[str, list[str]], name: str) -> str | None:
    """An option that has one word."""
    return (options.get(name) or [None])[0]


def _arguments(shape: Any, options: dict[str, list[str]]) -> dict[str, Any]:
    members = {_dashed(name): name for name in shape.members}
    result = {}
    for option, words in options.items():
        if option in GLOBAL or option.startswith("no-cli"):
            continue
        denied = option.startswith("no-") and option not in members
        name = members.get(option.removeprefix("no-") if denied else option)
        if name is None:
            raise ValueError(f"Unknown options: --{option}")
        result[name] = (
            not denied
            if shape.members[name].type_name == "boolean" and not words
            else _value(shape.members[name], words)
        )
    return result


def _dashed(name: str) -> str:
    """`NetworkInterfaceId` -> `network-interface-id`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def _value(shape: Any, words: list[str]) -> Any:
    """The CLI's shorthand, as far as user data may use it."""
    if len(words) == 1 and words[0][:1] in ("{", "["):
        return json.loads(words[0])
    if shape.type_name == "list":
        return [_value(shape.member, [word]) for word in words]
    (word,) = words
    match shape.type_name:
        case "structure":
            pairs = dict(pair.split("=", 1) for pair in word.split(","))
            return {
                name: _value(shape.members[name], [value])
                for name, value in pairs.items()
            }
        case "boolean":
            return word.lower() == "true"
        case "integer" | "long":
            return int(word)
        case _:
            return word


def _printed(answer: Any, form: str | None) -> str:
    if form != "text":
        return json.dumps(answer, indent=4, default=str) + "\n"
    if answer is None:
        return "None\n"
    if isinstance(answer, list):
        return "\t".join(str(item) for item in answer) + "\n"
    return f"{answer}\n"


def _client(service: str, region: str, role: str, instance: str) -> Any:
    with _making:
        return _made(service, region, role, instance)


@functools.cache
def _session() -> boto3.Session:
    return boto3.Session(
        aws_access_key_id="unused", aws_secret_access_key="unused"
    )


@functools.lru_cache(maxsize=256)
def _made(service: str, region: str, role: str, instance: str) -> Any:
    """A client with a session of the instance's role."""
    from ..functions import credentials

    keys = credentials(role, f"instance:{instance}", instance, region)
    # One session for all: it reads a service's model once, which is slow.
    return _session().client(
        service,
        region_name=region,
        endpoint_url=clients.url(),
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=keys["AWS_SESSION_TOKEN"],
        config=Config(
            parameter_validation=False,
            retries={"total_max_attempts": 8, "mode": "standard"},
        ),
    )


def forget() -> None:
    """Forget the sessions of machines that are gone."""
    _made.cache_clear()
