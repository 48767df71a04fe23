"""What AWS refuses though its models allow it, and moto takes: name lengths,
sizes, subnets.

Off together with the checks against the models (settings.check_requests).
"""

import base64
import binascii
import io
import json
import re
import zipfile
from collections.abc import Callable
from typing import Any

from . import ACCOUNT
from .naming import Call
from .settings import settings
from .wire import Refusal

KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE
LARGEST_USER_DATA = 16 * KIBIBYTE
LARGEST_ENVIRONMENT = 4 * KIBIBYTE
LARGEST_ZIP = 50 * MEBIBYTE
LARGEST_UNZIPPED = 250 * MEBIBYTE
MOST_LAYERS = 5
LONGEST_FUNCTION_NAME = 64
LONGEST_LAYER_NAME = 64
LONGEST_TRUST_POLICY = 2048
LONGEST_INLINE_POLICIES = 10_240

# Set by Lambda itself.
RESERVED_VARIABLES = re.compile(
    r"_HANDLER|_X_AMZN_TRACE_ID|LAMBDA_TASK_ROOT|LAMBDA_RUNTIME_DIR|"
    r"AWS_(ACCESS_KEY(_ID)?|SECRET_(ACCESS_)?KEY|SESSION_TOKEN|SECURITY_TOKEN|"
    r"REGION|DEFAULT_REGION|EXECUTION_ENV|LAMBDA_\w+)"
)

Check = Callable[[Call, dict[str, Any]], None]
_checks: dict[tuple[str, str], list[Check]] = {}


def on(service: str, *operations: str) -> Callable[[Check], Check]:
    """Register a check for these operations."""

    def register(check_function: Check) -> Check:
        for operation in operations:
            _checks.setdefault((service, operation), []).append(check_function)
        return check_function

    return register


def check(call: Call) -> None:
    """Refuse what breaks a limit."""
    if not settings.check_requests:
        return
    for check_function in _checks.get((call.service, call.operation), []):
        try:
            check_function(call, call.params)
        except Refusal as refusal:
            call.journal["invalid"] = [refusal.message]
            raise


@on("elbv2", "CreateLoadBalancer")
def load_balancer_name(_call: Call, params: dict[str, Any]) -> None:
    """32 characters, letters, digits and inner hyphens."""
    name = params["Name"]
    _balancer_name(name, "load balancer")
    if name.startswith("internal-"):
        raise Refusal(
            "ValidationError",
            "Load balancer name must not begin with 'internal-'",
        )


@on("elbv2", "CreateTargetGroup")
def target_group_name(_call: Call, params: dict[str, Any]) -> None:
    """As a load balancer's."""
    _balancer_name(params["Name"], "target group")


def _balancer_name(name: str, kind: str) -> None:
    if len(name) > 32:
        raise Refusal(
            "ValidationError",
            f"The {kind} name '{name}' cannot be longer than '32' characters",
        )
    if not re.fullmatch(r"[a-zA-Z0-9-]+", name):
        raise Refusal(
            "ValidationError",
            f"The {kind} name '{name}' can only contain characters that are "
            "alphanumeric characters and hyphens(-)",
        )
    if name.startswith("-") or name.endswith("-"):
        raise Refusal(
            "ValidationError",
            f"The {kind} name '{name}' cannot begin or end with '-'",
        )


@on("elbv2", "CreateLoadBalancer", "SetSubnets")
def load_balancer_subnets(call: Call, params: dict[str, Any]) -> None:
    """An application load balancer lies in two zones at least, with one subnet
    in each.
    """
    from moto.ec2.models import ec2_backends

    if params.get("Type", "application") != "application":
        return
    subnets = params.get("Subnets") or [
        mapping["SubnetId"] for mapping in params.get("SubnetMappings", [])
    ]
    ec2 = ec2_backends[ACCOUNT][call.region]
    zones = [
        subnet.availability_zone
        for subnet in ec2.describe_subnets()
        if subnet.id in subnets
    ]
    if len(subnets) < 2:
        raise Refusal(
            "ValidationError",
            "At least two subnets in two different Availability Zones must "
            "be specified",
        )
    if len(zones) > len(set(zones)):
        raise Refusal(
            "InvalidConfigurationRequest",
            "A load balancer cannot be attached to multiple subnets in the "
            "same Availability Zone",
        )


@on("elb", "CreateLoadBalancer")
def classic_load_balancer_name(_call: Call, params: dict[str, Any]) -> None:
    """The same rule, another message."""
    name = params["LoadBalancerName"]
    if len(name) > 32 or not re.fullmatch(
        r"[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?", name
    ):
        raise Refusal(
            "ValidationError",
            "LoadBalancer name cannot be longer than 32 characters, nor begin "
            "or end with a hyphen",
        )


@on("dynamodb", "CreateTable")
def table_name(_call: Call, params: dict[str, Any]) -> None:
    """The model's limit is that of an ARN."""
    if not re.fullmatch(r"[a-zA-Z0-9_.-]{3,255}", params["TableName"]):
        text = (
            "TableName must be at least 3 characters long and at most 255 "
            "characters long, of a-zA-Z0-9_.-"
        )
        raise Refusal(
            "ValidationException", f"Invalid table/index name.  {text}"
        )


@on("ec2", "CreateLaunchTemplate", "CreateLaunchTemplateVersion")
def launch_template_user_data(_call: Call, params: dict[str, Any]) -> None:
    """As of an instance."""
    _user_data(params.get("LaunchTemplateData", {}).get("UserData"))


@on("ec2", "RunInstances")
def user_data(_call: Call, params: dict[str, Any]) -> None:
    """16 KB before base64."""
    _user_data(params.get("UserData"))


def _user_data(text: str | None) -> None:
    if not text:
        return
    try:
        size = len(base64.b64decode(text, validate=True))
    except binascii.Error as failure:
        raise Refusal(
            "InvalidUserData.Malformed",
            "Invalid BASE64 encoding of user data.",
        ) from failure
    if size > LARGEST_USER_DATA:
        raise Refusal(
            "InvalidParameterValue",
            f"User data is limited to {LARGEST_USER_DATA} bytes",
        )


@on("lambda", "CreateFunction")
def function_name(_call: Call, params: dict[str, Any]) -> None:
    """The model's limit is that of an ARN."""
    name = params["FunctionName"].rpartition(":")[2]
    if len(name) > LONGEST_FUNCTION_NAME:
        text = (
            "1 validation error detected: Value at 'functionName' failed to "
            "satisfy constraint: "
        )
        raise Refusal(
            "ValidationException",
            f"{text}Member must have length less than or equal to 64",
        )


@on("lambda", "CreateFunction", "UpdateFunctionConfiguration")
def function_environment(_call: Call, params: dict[str, Any]) -> None:
    """4 KB for all variables together, and some names are Lambda's own."""
    variables = params.get("Environment", {}).get("Variables", {})
    measured = json.dumps(variables, separators=(",", ":"))
    begin = (
        "Lambda was unable to configure your environment variables because "
        "the environment variables you have provided"
    )
    if len(measured.encode()) > LARGEST_ENVIRONMENT:
        raise Refusal(
            "InvalidParameterValueException",
            f"{begin} exceeded the 4KB limit. String measured: {measured}",
        )
    if reserved := [
        name for name in variables if RESERVED_VARIABLES.fullmatch(name)
    ]:
        text = (
            f"{begin} contains reserved keys that are currently not supported "
            "for modification."
        )
        text += f" Reserved keys used in this request: {', '.join(reserved)}"
        raise Refusal("InvalidParameterValueException", text)


@on("lambda", "CreateFunction", "UpdateFunctionCode")
def function_code(call: Call, params: dict[str, Any]) -> None:
    """The zip itself, and with the layers."""
    archive = params.get("Code", params).get("ZipFile")
    if archive is None:
        return
    size = _check_zip(archive, call.operation)
    if call.operation == "CreateFunction":
        _check_with_layers(call, size, params.get("Layers", []))


@on("lambda", "UpdateFunctionConfiguration")
def function_layers(call: Call, params: dict[str, Any]) -> None:
    """The layers that are to come, with the code that is there."""
    from moto.awslambda.exceptions import UnknownFunctionException
    from moto.awslambda.utils import get_backend

    try:
        function = get_backend(ACCOUNT, call.region).get_function(
            params["FunctionName"]
        )
    except UnknownFunctionException:
        return
    _check_with_layers(
        call, _unzipped(function.code_bytes), params.get("Layers", [])
    )


@on("lambda", "PublishLayerVersion")
def layer(call: Call, params: dict[str, Any]) -> None:
    """Name and code."""
    if len(params["LayerName"].rpartition(":")[2]) > LONGEST_LAYER_NAME:
        text = (
            "1 validation error detected: Value at 'layerName' failed to "
            "satisfy constraint: "
        )
        raise Refusal(
            "ValidationException",
            f"{text}Member must have length less than or equal to 64",
        )
    if archive := params["Content"].get("ZipFile"):
        _check_zip(archive, call.operation)


def _check_zip(archive: bytes, operation: str) -> int:
    """The unzipped size of an archive that is not too large."""
    if len(archive) > LARGEST_ZIP:
        most = LARGEST_ZIP * 4 // 3 + 1
        text = (
            f"Request must be smaller than {most} bytes for the {operation} "
            "operation"
        )
        raise Refusal("RequestEntityTooLargeException", text, 413)
    try:
        size = _unzipped(archive)
    except zipfile.BadZipFile as failure:
        text = (
            "Could not unzip uploaded file. Please check your file, then try "
            "to upload again."
        )
        raise Refusal("InvalidParameterValueException", text) from failure
    if size > LARGEST_UNZIPPED:
        text = f"Unzipped size must be smaller than {LARGEST_UNZIPPED} bytes"
        raise Refusal("InvalidParameterValueException", text)
    return size


def _unzipped(archive: bytes) -> int:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return sum(member.file_size for member in opened.infolist())


def _check_with_layers(call: Call, size: int, arns: list[str]) -> None:
    from moto.awslambda.utils import get_backend

    if len(arns) > MOST_LAYERS:
        raise Refusal(
            "InvalidParameterValueException",
            f"Cannot reference more than {MOST_LAYERS} layers.",
        )
    backend = get_backend(ACCOUNT, call.region)
    versions = [backend.layers_versions_by_arn(arn) for arn in arns]
    size += sum(
        _unzipped(version.code_bytes) for version in versions if version
    )
    if size > LARGEST_UNZIPPED:
        text = (
            "Function code combined with layers exceeds the maximum allowed "
            f"size of {LARGEST_UNZIPPED} bytes."
        )
        raise Refusal(
            "InvalidParameterValueException",
            f"{text} The actual size is {size} bytes.",
        )


@on("iam", "CreateRole", "UpdateAssumeRolePolicy")
def trust_policy(_call: Call, params: dict[str, Any]) -> None:
    """Whitespace does not count."""
    document = params.get("AssumeRolePolicyDocument") or params.get(
        "PolicyDocument", ""
    )
    if len(re.sub(r"\s", "", document)) > LONGEST_TRUST_POLICY:
        text = (
            f"Cannot exceed quota for ACLSizePerRole: {LONGEST_TRUST_POLICY}"
        )
        raise Refusal("LimitExceeded", text, 409)


@on("iam", "PutRolePolicy")
def inline_policies(_call: Call, params: dict[str, Any]) -> None:
    """All inline policies of a role together."""
    from moto.iam.models import iam_backends

    # A copy: other calls make roles meanwhile.
    roles = list(iam_backends[ACCOUNT]["aws"].roles.values())
    documents = {params["PolicyName"]: params["PolicyDocument"]}
    for role in roles:
        if role.name == params["RoleName"]:
            documents = role.policies | documents
    if (
        sum(
            len(re.sub(r"\s", "", document)) for document in documents.values()
        )
        > LONGEST_INLINE_POLICIES
    ):
        text = (
            f"Maximum policy size of {LONGEST_INLINE_POLICIES} bytes exceeded "
            f"for role {params['RoleName']}"
        )
        raise Refusal("LimitExceeded", text, 409)
