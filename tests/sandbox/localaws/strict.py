"""Eventual consistency: on AWS, what was just made is not everywhere at once.

    a role can not be assumed, and its first policy does not work, for
    ROLE_SECONDS
    a table is CREATING for the setting table_seconds
    a function is Pending for FUNCTION_SECONDS, and InProgress as long after
    an update
    the tagging API does not show a resource for TAGGING_SECONDS

Whatever the settings, a role that does not trust the service that shall use
it is refused, as on AWS.
"""

import functools
from collections.abc import Iterator
from typing import Any

from . import ACCOUNT, roles
from .naming import Call
from .settings import now, settings
from .wire import Refusal

ROLE_SECONDS = 7.0
FUNCTION_SECONDS = 2.0
TAGGING_SECONDS = 5.0

LAMBDA = "lambda.amazonaws.com"
STEP_FUNCTIONS = "states.amazonaws.com"
NETWORK_INTERFACE = "ec2:CreateNetworkInterface"

TABLE_DATA = (
    "GetItem",
    "PutItem",
    "UpdateItem",
    "DeleteItem",
    "Query",
    "Scan",
    "BatchGetItem",
    "BatchWriteItem",
)
TABLE_CHANGES = (
    "DeleteTable",
    "UpdateTable",
    "UpdateContinuousBackups",
    "UpdateTimeToLive",
)
FUNCTION_CHANGES = (
    "UpdateFunctionCode",
    "UpdateFunctionConfiguration",
    "PublishVersion",
)

# When it was made, or last updated: the name, with the region where that
# counts -> seconds since the start.
_roles: dict[str, float] = {}
_policies: dict[str, float] = {}
_tables: dict[tuple[str, str], float] = {}
_functions: dict[tuple[str, str], float] = {}
_updates: dict[tuple[str, str], float] = {}
_tagged: dict[tuple[str, str], float] = {}


def forget() -> None:
    """Everything there is has been there for ever."""
    for known in (_roles, _policies, _tables, _functions, _updates, _tagged):
        known.clear()  # type: ignore[attr-defined]


def age(seconds: float) -> None:
    """Everything was made so much earlier."""
    for known in (_roles, _policies, _tables, _functions, _updates, _tagged):
        for key in known:
            known[key] -= seconds  # type: ignore[index]


def young(known: dict[Any, float], key: Any, seconds: float) -> bool:
    """Is it too new to be seen?"""
    return settings.strict and key in known and now() - known[key] < seconds


def apply() -> None:
    """Patch moto: what it shows of tables, functions and tags. After every
    other patch, to see their results.
    """
    from moto.awslambda.models import LambdaFunction
    from moto.dynamodb.models.table import Table
    from moto.resourcegroupstaggingapi.models import (
        ResourceGroupsTaggingAPIBackend,
    )

    _show_table_status(Table)
    _show_function_state(LambdaFunction)
    _hide_new_tags(ResourceGroupsTaggingAPIBackend)


def check(call: Call) -> None:
    """Refuse what AWS would refuse now, and may take later."""
    match call.service, call.operation:
        case "lambda", "CreateFunction" | "UpdateFunctionConfiguration" if (
            "Role" in call.params
        ):
            _check_function_role(call)
        case "stepfunctions", "CreateStateMachine" | "UpdateStateMachine" if (
            "roleArn" in call.params
        ):
            _check_machine_role(call)
        case "dynamodb", operation if operation in (
            *TABLE_DATA,
            *TABLE_CHANGES,
        ):
            _check_table(call)
        case _:
            pass
    if call.is_one_of("lambda", "Invoke", *FUNCTION_CHANGES):
        _check_function(call)


def observe(call: Call) -> None:
    """Remember when things were made. Called after the call has succeeded."""
    match call.service, call.operation:
        case "iam", "CreateRole":
            _roles[call.params["RoleName"]] = now()
            _policies.pop(call.params["RoleName"], None)
        case "iam", "PutRolePolicy" | "AttachRolePolicy":
            _policies.setdefault(call.params["RoleName"], now())
        case "dynamodb", "CreateTable":
            _tables[call.region, call.params["TableName"]] = now()
        case "dynamodb", "DeleteTable":
            _tables.pop((call.region, call.params["TableName"]), None)
        case "lambda", "CreateFunction":
            _functions[call.region, function_name(call)] = now()
            _updates.pop((call.region, function_name(call)), None)
        case _:
            pass
    if settings.strict and not call.reads:
        _notice_tags(call.region)


def function_name(call: Call) -> str:
    """The name, however the function is referred to."""
    given: str = call.params.get("FunctionName", "")
    return (
        given.split(":")[6]
        if given.startswith("arn:")
        else given.split(":")[0]
    )


def _check_function_role(call: Call) -> None:
    if not settings.enforce_roles and not settings.strict:
        return
    role_arn = call.params["Role"]
    name = roles.name_of(role_arn)
    if not roles.trusts(role_arn, LAMBDA) or young(_roles, name, ROLE_SECONDS):
        text = "The role defined for the function cannot be assumed by Lambda."
        raise Refusal("InvalidParameterValueException", text)
    if not call.params.get("VpcConfig", {}).get("SubnetIds"):
        return
    if not roles.allows(name, NETWORK_INTERFACE, "*") or young(
        _policies, name, ROLE_SECONDS
    ):
        text = (
            "The provided execution role does not have permissions to call "
            "CreateNetworkInterface on EC2"
        )
        raise Refusal("InvalidParameterValueException", text)


def _check_machine_role(call: Call) -> None:
    if not settings.enforce_roles and not settings.strict:
        return
    role_arn = call.params["roleArn"]
    if not roles.trusts(role_arn, STEP_FUNCTIONS) or young(
        _roles, roles.name_of(role_arn), ROLE_SECONDS
    ):
        text = (
            "Neither the global service principal states.amazonaws.com, nor "
            "the regional one is authorized"
        )
        raise Refusal(
            "AccessDeniedException", f"{text} to assume the provided role."
        )


def _check_table(call: Call) -> None:
    name = roles.name_of(call.params.get("TableName", ""))
    if not young(_tables, (call.region, name), settings.table_seconds):
        return
    if call.operation in TABLE_DATA:
        raise Refusal(
            "ResourceNotFoundException", "Requested resource not found"
        )
    text = (
        "Attempt to change a resource which is still in use: Table is being "
        f"created: {name}"
    )
    raise Refusal("ResourceInUseException", text)


def _check_function(call: Call) -> None:
    key = (call.region, function_name(call))
    if young(_functions, key, FUNCTION_SECONDS):
        text = (
            "The operation cannot be performed at this time. The function is "
            "currently in the following state: Pending"
        )
        raise Refusal("ResourceConflictException", text, 409)
    if call.operation != "Invoke" and young(_updates, key, FUNCTION_SECONDS):
        arn = f"arn:aws:lambda:{call.region}:{ACCOUNT}:function:{key[1]}"
        text = (
            "The operation cannot be performed at this time. An update is in "
            f"progress for resource: {arn}"
        )
        raise Refusal("ResourceConflictException", text, 409)


def _show_table_status(table_class: Any) -> None:
    describe = table_class.describe

    def describe_with_status(
        self: Any, base_key: str = "TableDescription"
    ) -> dict[str, Any]:
        result = describe(self, base_key=base_key)
        # It is described while it is made, before anybody could note when that
        # was.
        if (
            settings.strict
            and _tables.setdefault((self.region_name, self.name), now())
            + settings.table_seconds
            > now()
        ):
            result[base_key]["TableStatus"] = "CREATING"
        return result

    table_class.describe = describe_with_status


def _show_function_state(function_class: Any) -> None:
    configuration = function_class.get_configuration

    def configuration_with_state(
        self: Any, on_create: bool = False
    ) -> dict[str, Any]:
        result = configuration(self, on_create)
        key = (self.region, self.function_name)
        if settings.strict and (
            on_create or young(_functions, key, FUNCTION_SECONDS)
        ):
            reason = "The function is being created."
            result.update(
                State="Pending", StateReason=reason, StateReasonCode="Creating"
            )
        if young(_updates, key, FUNCTION_SECONDS):
            reason = "The function is being updated."
            result.update(
                LastUpdateStatus="InProgress", LastUpdateStatusReason=reason
            )
            result["LastUpdateStatusReasonCode"] = "Creating"
        return result

    function_class.get_configuration = configuration_with_state
    for name in ("update_configuration", "update_function_code"):
        setattr(
            function_class, name, _noting_update(getattr(function_class, name))
        )


def _noting_update(update: Any) -> Any:
    """The answer to an update already says that it is under way."""

    @functools.wraps(update)
    def noting(self: Any, *rest: Any, **more: Any) -> Any:
        _updates[self.region, self.function_name] = now()
        return update(self, *rest, **more)

    return noting


_all_tagged: Any = None


def _notice_tags(region: str) -> None:
    """Note when each tagged resource was first there."""
    from moto.resourcegroupstaggingapi.models import (
        resourcegroupstaggingapi_backends,
    )

    backend = resourcegroupstaggingapi_backends[ACCOUNT][region]
    present = {(region, resource.arn) for resource in _all_tagged(backend)}
    for gone in [
        key for key in _tagged if key[0] == region and key not in present
    ]:
        del _tagged[gone]
    for key in present:
        _tagged.setdefault(key, now())


def _hide_new_tags(backend_class: Any) -> None:
    global _all_tagged
    _all_tagged = backend_class._get_resources_generator

    def seen_resources(self: Any, *rest: Any, **more: Any) -> Iterator[Any]:
        for resource in _all_tagged(self, *rest, **more):
            if not young(
                _tagged, (self.region_name, resource.arn), TAGGING_SECONDS
            ):
                yield resource

    backend_class._get_resources_generator = seen_resources
