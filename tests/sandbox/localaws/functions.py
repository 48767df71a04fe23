"""Lambda as it matters here: functions really run, in place of moto's
containers, and have network interfaces.

Replacing `LambdaFunction.invoke` covers every way into a function: Invoke,
Step Functions, API Gateway, schedules.
"""

import base64
import os
import re
import threading
import uuid
from typing import Any

from . import ACCOUNT, clients, roles, runtime
from .naming import sessions
from .settings import now, settings
from .wire import Refusal

ASYNCHRONOUS_ATTEMPTS = 3
LONGEST_RECORDED_TEXT = 16_000
LONGEST_LOG_RESULT = 4096
INTERFACE_PREFIX = "AWS Lambda VPC ENI-"

invocations: list[dict[str, Any]] = []
# What runs now, by the access key of its session: name, invocation.
_running: dict[str, tuple[str, runtime.Invocation]] = {}


def forget() -> None:
    """Forget the invocations."""
    invocations.clear()


def clean_up() -> None:
    """End what runs, and remove what it left on disk."""
    runtime.clean_up()


def apply() -> None:
    """Patch moto."""
    from moto.awslambda.models import LambdaBackend, LambdaFunction

    LambdaFunction.invoke = invoke
    LambdaFunction.vpc_config = property(vpc_config)
    _extend_updates(LambdaFunction)
    _extend_life(LambdaBackend)


def invoke(
    function: Any, body: Any, request_headers: Any, response_headers: Any
) -> bytes:
    """The Invoke API."""
    kind = request_headers.get("x-amz-invocation-type") or "RequestResponse"
    if kind == "DryRun":
        return b""
    if kind == "Event":
        threading.Thread(
            target=_invoke_until_it_works, args=(function, body), daemon=True
        ).start()
        return b""
    invocation = execute(function, body)
    if invocation.error:
        response_headers["x-amz-function-error"] = invocation.error
    tail = base64.b64encode(invocation.log.encode()[-LONGEST_LOG_RESULT:])
    response_headers["x-amz-log-result"] = tail.decode()
    response_headers["X-Amz-Executed-Version"] = str(function.version)
    return invocation.payload


def _invoke_until_it_works(function: Any, body: Any) -> None:
    """An asynchronous invocation that fails is tried again (on AWS after one
    and two minutes).
    """
    for _ in range(ASYNCHRONOUS_ATTEMPTS):
        try:
            if execute(function, body).error is None:
                return
        except Refusal:
            pass  # nobody is there to be told


def execute(function: Any, body: Any) -> runtime.Invocation:
    """Run the function once."""
    if not str(function.run_time).startswith("provided"):
        raise NotImplementedError(
            f"the sandbox runs custom runtimes only, not {function.run_time}"
        )
    event = body if isinstance(body, bytes) else (body or "{}").encode()
    roles.may_be_assumed(
        function.role, "lambda.amazonaws.com", function.function_arn
    )
    if function.__dict__.get("sandbox_role") != roles.identity(function.role):
        # Lambda refers to the role that there was, not to its name.
        raise Refusal(
            "AccessDeniedException",
            "The role defined for the function cannot be assumed by Lambda.",
            403,
        )
    task, layers = (
        runtime.unpack([function.code_bytes]),
        runtime.unpack(_layer_archives(function)),
    )
    invocation = runtime.Invocation(
        event, function.function_arn, float(function.timeout)
    )
    began = now()
    environment = _environment(function)
    access_key = environment["AWS_ACCESS_KEY_ID"]
    _running[access_key] = function.function_name, invocation
    try:
        runtime.run(
            invocation,
            task,
            layers,
            function.architectures[0],
            environment,
        )
    finally:
        _running.pop(access_key, None)
    _save_log(function, invocation)
    initialised = invocation.initialised
    invocations.append(
        {
            "n": len(invocations),
            "function": function.function_name,
            "region": function.region,
            "role": roles.name_of(function.role),
            "request_id": invocation.id,
            "start": round(began, 4),
            "ms": round((invocation.ended - invocation.started) * 1000, 1),
            "init_ms": None
            if initialised is None
            else round((initialised - invocation.started) * 1000, 1),
            "error": invocation.error,
            "event": _shortened(event),
            "payload": _shortened(invocation.payload),
            "log": invocation.log[-LONGEST_RECORDED_TEXT:],
        }
    )
    return invocation


def kill(access_key: str) -> bool:
    """Kill the function that the session belongs to, as if it ran out of
    memory; False, if none of it runs.
    """
    _, invocation = _running.get(access_key, ("", None))
    if invocation is None or invocation.process is None:
        return False
    runtime.kill(invocation.process)
    return True


def kill_by_name(pattern: str) -> list[str]:
    """Kill every run of the functions whose names match; the answer is whom
    that was.
    """
    return [
        name
        for key, (name, _) in list(_running.items())
        if re.search(pattern, name) and kill(key)
    ]


def _shortened(text: bytes) -> str:
    return text[:LONGEST_RECORDED_TEXT].decode("utf-8", "replace")


def _layer_archives(function: Any) -> list[bytes]:
    """The layers' code. A version that was deleted lives on in the functions
    that use it.
    """
    kept: dict[str, bytes] = function.__dict__.setdefault("sandbox_layers", {})
    return [kept[layer["Arn"]] for layer in function.layers]


def _environment(function: Any) -> dict[str, str]:
    """What the process sees: nothing of the sandbox's own environment but
    PATH.
    """
    return {
        "PATH": os.environ["PATH"],
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "_HANDLER": function.handler or "",
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{function.run_time}",
        "AWS_REGION": function.region,
        "AWS_DEFAULT_REGION": function.region,
        "AWS_LAMBDA_FUNCTION_NAME": function.function_name,
        "AWS_LAMBDA_FUNCTION_VERSION": str(function.version),
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_size),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": function.logs_group_name,
        "AWS_LAMBDA_LOG_STREAM_NAME": "sandbox",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": clients.url(),
        **credentials(
            function.role,
            f"lambda:{function.function_name}",
            function.function_name,
            function.region,
        ),
        **function.environment_vars,
    }


def credentials(
    role_arn: str, caller: str, session: str, region: str
) -> dict[str, str]:
    """A session of the role, known to moto's STS and, as `caller`, to the
    journal.
    """
    from moto.sts.models import sts_backends

    assumed = sts_backends[ACCOUNT]["aws"].assume_role(
        region_name=region,
        role_session_name=session[:64],
        role_arn=role_arn,
        policy=None,
        duration=3600,
        external_id=None,
    )
    sessions[assumed.access_key_id] = (caller, roles.name_of(role_arn))
    return {
        "AWS_ACCESS_KEY_ID": assumed.access_key_id,
        "AWS_SECRET_ACCESS_KEY": assumed.secret_access_key,
        "AWS_SESSION_TOKEN": assumed.session_token,
    }


def _save_log(function: Any, invocation: runtime.Invocation) -> None:
    """Write the log. A function that may not write it fails in nothing: AWS
    just drops the text.
    """
    from moto.logs.models import logs_backends

    group, role = function.logs_group_name, roles.name_of(function.role)
    arn = f"arn:aws:logs:{function.region}:{ACCOUNT}:log-group:{group}"
    logs = logs_backends[ACCOUNT][function.region]
    if not all(
        roles.allows(role, f"logs:{action}", f"{arn}:*")
        for action in ("CreateLogStream", "PutLogEvents")
    ):
        return
    if group not in logs.groups:
        if not roles.allows(role, "logs:CreateLogGroup", arn):
            return
        logs.ensure_log_group(group)
    duration = (
        invocation.ended - (invocation.initialised or invocation.started)
    ) * 1000
    lines = [
        f"START RequestId: {invocation.id} Version: {function.version}",
        *invocation.log.splitlines(),
    ]
    lines += [
        f"END RequestId: {invocation.id}",
        f"REPORT RequestId: {invocation.id} Duration: {duration:.2f} ms",
    ]
    function.save_logs("\n".join(lines))


def vpc_config(function: Any) -> dict[str, Any] | None:
    """The function's place in the network, with the VPC that its subnets are
    in (moto names a fixed one).
    """
    from moto.ec2.models import ec2_backends

    config = getattr(function, "_vpc_config", None)
    if not config or not config.get("SubnetIds"):
        return None
    subnet = ec2_backends[ACCOUNT][function.region].get_subnet(
        config["SubnetIds"][0]
    )
    return {"Ipv6AllowedForDualStack": False, **config, "VpcId": subnet.vpc_id}


def _extend_updates(function_class: Any) -> None:
    """Fields that moto takes at creation, and ignores in an update; layers,
    whose code a function keeps.
    """
    update_configuration = function_class.update_configuration
    update_code = function_class.update_function_code
    layers_data = function_class._get_layers_data

    def update_configuration_wholly(
        self: Any, updates: dict[str, Any]
    ) -> dict[str, Any]:
        if "TracingConfig" in updates:
            self.tracing_config = updates["TracingConfig"]
        if "KMSKeyArn" in updates:
            self.kms_key_arn = updates["KMSKeyArn"]
        if "EphemeralStorage" in updates:
            self.ephemeral_storage = updates["EphemeralStorage"]["Size"]
        had_interfaces = _wanted_interfaces(self)
        result = update_configuration(self, updates)
        if "Role" in updates:
            self.sandbox_role = roles.identity(self.role)
        if _wanted_interfaces(self) != had_interfaces:
            _remove_interfaces(self)
            _make_interfaces(self)
        return result

    def update_code_wholly(
        self: Any, updates: dict[str, Any]
    ) -> dict[str, Any]:
        if updates.get("Architectures") and not updates.get("DryRun"):
            self.architectures = updates["Architectures"]
        return update_code(self, updates)

    def layers_data_with_code(self: Any, arns: list[str]) -> Any:
        from moto.awslambda.utils import get_backend

        result = layers_data(self, arns)
        backend = get_backend(ACCOUNT, self.region)
        kept = {
            arn: backend.layers_versions_by_arn(arn).code_bytes for arn in arns
        }
        self.__dict__["sandbox_layers"] = kept
        return result

    function_class.update_configuration = update_configuration_wholly
    function_class.update_function_code = update_code_wholly
    function_class._get_layers_data = layers_data_with_code


def _extend_life(backend_class: Any) -> None:
    """Functions refer to the one role that they were made with, and have
    network interfaces in their VPC.
    """
    create, delete = (
        backend_class.create_function,
        backend_class.delete_function,
    )

    def create_function(self: Any, spec: dict[str, Any]) -> Any:
        function = create(self, spec)
        function.sandbox_role = roles.identity(function.role)
        _make_interfaces(function)
        return function

    def delete_function(
        self: Any, function_name: str, qualifier: str | None = None
    ) -> None:
        function = (
            self._lambdas.get_function_by_name_or_arn_forbid_qualifier(
                function_name
            )
            if not qualifier
            else None
        )
        delete(self, function_name, qualifier)
        if function is not None:
            _remove_interfaces(function)

    backend_class.create_function = create_function
    backend_class.delete_function = delete_function


def _wanted_interfaces(function: Any) -> tuple[list[str], list[str]]:
    config = getattr(function, "_vpc_config", None) or {}
    return sorted(config.get("SubnetIds") or []), sorted(
        config.get("SecurityGroupIds") or []
    )


def _make_interfaces(function: Any) -> None:
    from moto.ec2.models import ec2_backends

    subnets, groups = _wanted_interfaces(function)
    name = function.function_name
    ec2 = ec2_backends[ACCOUNT][function.region]
    for subnet in subnets:
        interface = ec2.create_network_interface(
            ec2.get_subnet(subnet),
            None,
            group_ids=groups,
            description=f"{INTERFACE_PREFIX}{name}-{uuid.uuid4()}",
        )
        interface.requester_managed = True
        interface.interface_type = "lambda"
        interface.status = "in-use"
        function.__dict__.setdefault("sandbox_interfaces", []).append(
            interface.id
        )


def _remove_interfaces(function: Any) -> None:
    """Remove the interfaces some time later, if the role that Lambda needs for
    it is still there then.
    """
    interfaces = function.__dict__.pop("sandbox_interfaces", [])
    if not interfaces:
        return

    def remove() -> None:
        from moto.ec2.models import ec2_backends

        role = roles.name_of(function.role)
        if not roles.exists(role) or not roles.allows(
            role, "ec2:DeleteNetworkInterface", "*"
        ):
            return  # for ever, as on AWS
        ec2 = ec2_backends[ACCOUNT][function.region]
        for interface in interfaces:
            ec2.enis.pop(interface, None)

    if settings.eni_linger_seconds <= 0:
        remove()
        return
    timer = threading.Timer(settings.eni_linger_seconds, remove)
    timer.daemon = True
    timer.start()
