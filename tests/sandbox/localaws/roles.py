"""What a role may do: its trust, and its policies by action, resource and
condition.

Only what functions and state machines call is checked: whoever runs the tests
may do everything. moto's own enforcement refuses valid calls, hence this one.
A resource that is not easy to name counts as any of the statement's.
"""

import fnmatch
import json
from collections.abc import Callable, Iterable
from typing import Any

from . import ACCOUNT
from .naming import Call
from .settings import settings
from .wire import Refusal

# botocore's name of the service -> the prefix of its actions, where they
# differ.
ACTION_PREFIX = {
    "elb": "elasticloadbalancing",
    "elbv2": "elasticloadbalancing",
    "resourcegroupstaggingapi": "tag",
    "stepfunctions": "states",
}
ACTION_NAME = {"Invoke": "InvokeFunction", "InvokeAsync": "InvokeFunction"}


def name_of(role_arn: str) -> str:
    """The name at the end of the ARN."""
    return role_arn.rpartition("/")[2]


def _role(name: str) -> Any:
    from moto.iam.models import iam_backends

    # A copy: other calls make roles meanwhile.
    for role in list(iam_backends[ACCOUNT]["aws"].roles.values()):
        if role.name == name:
            return role
    return None


def exists(name: str) -> bool:
    """Is there such a role?"""
    return _role(name) is not None


def identity(role_arn: str) -> str | None:
    """The role's unique id: another one made under the same name is not the
    same role.
    """
    role = _role(name_of(role_arn))
    return None if role is None else role.id


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _statements(document: Any) -> list[dict[str, Any]]:
    parsed = json.loads(document) if isinstance(document, str) else document
    return _listed((parsed or {}).get("Statement", []))


def trusts(role_arn: str, service: str, source_arn: str = "") -> bool:
    """Does the role let the service assume it, on behalf of the resource?"""
    role = _role(name_of(role_arn))
    if role is None or role.arn != role_arn:
        return False
    context = {
        "aws:SourceAccount": [ACCOUNT],
        "aws:SourceArn": [source_arn] if source_arn else [],
    }
    for statement in _statements(role.assume_role_policy_document):
        principal = statement.get("Principal", {})
        services = (
            _listed(principal.get("Service", []))
            if isinstance(principal, dict)
            else []
        )
        if service not in services or "sts:AssumeRole" not in _listed(
            statement.get("Action", [])
        ):
            continue
        if statement.get("Effect") == "Allow" and conditions_hold(
            statement.get("Condition", {}), context
        ):
            return True
    return False


def may_be_assumed(
    role_arn: str | None, service: str, source_arn: str = ""
) -> None:
    """Refuse unless the service may assume the role."""
    if role_arn is None or not trusts(role_arn, service, source_arn):
        raise Refusal(
            "AccessDeniedException",
            f"{role_arn or 'no role'} can not be assumed by {service}",
            403,
        )


def policies(name: str) -> list[Any]:
    """Every policy document of the role."""
    role = _role(name)
    if role is None:
        return []
    attached = [
        version.document
        for policy in role.managed_policies.values()
        for version in _default(policy)
    ]
    return [*role.policies.values(), *attached]


def _default(policy: Any) -> Iterable[Any]:
    return (version for version in policy.versions if version.is_default)


def allows(
    name: str,
    action: str,
    resource: str | None,
    context: dict[str, list[str]] | None = None,
) -> bool:
    """May the role do this to the resource? With None for the resource, to any
    that its statements name.
    """
    allowed = False
    for document in policies(name):
        for statement in _statements(document):
            if not _names_action(statement, action) or not _names_resource(
                statement, resource
            ):
                continue
            if not conditions_hold(
                statement.get("Condition", {}), context or {}
            ):
                continue
            if statement.get("Effect") == "Deny":
                return False
            allowed = True
    return allowed


def _names_action(statement: dict[str, Any], action: str) -> bool:
    patterns = _listed(statement.get("Action", statement.get("NotAction", [])))
    named = any(
        fnmatch.fnmatchcase(action.lower(), pattern.lower())
        for pattern in patterns
    )
    return named if "Action" in statement else not named


def _names_resource(statement: dict[str, Any], resource: str | None) -> bool:
    if resource is None:
        return True
    patterns = _listed(statement.get("Resource", []))
    return any(
        fnmatch.fnmatchcase(resource, pattern.replace("[", "[[]"))
        for pattern in patterns
    )


def conditions_hold(
    conditions: dict[str, dict[str, Any]], context: dict[str, list[str]]
) -> bool:
    """Do all conditions hold? A key that the context lacks fails its
    condition, as on AWS, unless the operator is a negation or has ForAllValues
    before it.
    """
    lowered = {key.lower(): values for key, values in context.items()}
    for operator, keys in conditions.items():
        for key, wanted in keys.items():
            given = lowered.get(key.lower(), [])
            if not _condition_holds(
                operator, given, [str(value) for value in _listed(wanted)]
            ):
                return False
    return True


def _condition_holds(
    operator: str, given: list[str], wanted: list[str]
) -> bool:
    if operator.startswith("ForAllValues:"):
        operator = operator.removeprefix("ForAllValues:")
        return all(
            _condition_holds(operator, [value], wanted) for value in given
        )
    if operator.startswith("ForAnyValue:"):
        operator = operator.removeprefix("ForAnyValue:")
        return any(
            _condition_holds(operator, [value], wanted) for value in given
        )
    if operator.endswith("IfExists"):
        if not given:
            return True
        operator = operator.removesuffix("IfExists")
    match operator:
        case "StringEquals" | "NumericEquals":
            return any(value == want for value in given for want in wanted)
        case "StringEqualsIgnoreCase" | "Bool":
            return any(
                value.lower() == want.lower()
                for value in given
                for want in wanted
            )
        case "StringNotEquals":
            return not any(value == want for value in given for want in wanted)
        case "StringLike" | "ArnLike" | "ArnEquals":
            return any(
                fnmatch.fnmatchcase(value, want)
                for value in given
                for want in wanted
            )
        case "StringNotLike" | "ArnNotLike":
            return not any(
                fnmatch.fnmatchcase(value, want)
                for value in given
                for want in wanted
            )
        case "Null":
            return (not given) == (wanted == ["true"])
        case _:
            raise NotImplementedError(
                f"the sandbox does not know the condition {operator}"
            )


def require(role_arn: str, action: str, resource: str) -> None:
    """Refuse unless the role may do it."""
    if not allows(name_of(role_arn), action, resource):
        raise denied("", role_arn, action, resource)


def denied(
    service: str, who: str, action: str, resource: str | None
) -> Refusal:
    """The refusal in the service's words."""
    text = f"User: {who} is not authorized to perform: {action}"
    if resource:
        text += f" on resource: {resource}"
    text += f" because no identity-based policy allows the {action} action"
    if service == "ec2":
        return Refusal(
            "UnauthorizedOperation",
            f"You are not authorized to perform this operation. {text}",
            403,
        )
    if service in (
        "autoscaling",
        "elb",
        "elbv2",
        "iam",
        "sts",
        "cloudformation",
        "route53",
    ):
        return Refusal("AccessDenied", text, 403)
    return Refusal(
        "AccessDeniedException",
        text,
        403 if service in ("lambda", "apigateway") else 400,
    )


def check(call: Call) -> None:
    """Refuse what the role of a function or state machine does not allow."""
    if call.role is None or not settings.enforce_roles:
        return
    if call.is_one_of("sts", "GetCallerIdentity"):
        return
    prefix = ACTION_PREFIX.get(call.service, call.service)
    action = f"{prefix}:{ACTION_NAME.get(call.operation, call.operation)}"
    session = call.caller.partition(":")[2]
    who = f"arn:aws:sts::{ACCOUNT}:assumed-role/{call.role}/{session}"
    for resource, context in targets(call):
        if not allows(call.role, action, resource, context):
            raise denied(call.service, who, action, resource)
    for action, resource, context in by_way_of(call):
        if not allows(call.role, action, resource, context):
            raise denied(call.service, who, action, resource)


Context = dict[str, list[str]]
Target = tuple[str | None, Context]


def targets(call: Call) -> list[Target]:
    """The resources of a call, each with its condition keys."""
    context = _everywhere(call)
    find = TARGETS.get(call.service)
    found = find(call, context) if find else []
    return found or [(None, context)]


def _everywhere(call: Call) -> Context:
    """The condition keys that every call has."""
    context = {
        "aws:RequestedRegion": [call.region],
        "aws:PrincipalAccount": [ACCOUNT],
        "aws:SourceAccount": [ACCOUNT],
    }
    caller, _, name = call.caller.partition(":")
    if caller == "lambda":
        # Of a function's own calls, and not of Lambda's on its behalf.
        arn = _arn("lambda", call.region, f"function:{name}")
        context["lambda:SourceFunctionArn"] = [arn]
    return context


READS_ITEMS = ("GetItem", "BatchGetItem", "Query", "Scan")
WRITES_ITEMS = ("PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem")


def by_way_of(call: Call) -> list[tuple[str, str, Context]]:
    """What a service does with the caller's own rights: DynamoDB uses the key
    of a table that a customer's key encrypts.
    """
    if not call.is_one_of("dynamodb", *READS_ITEMS, *WRITES_ITEMS):
        return []
    name = name_of(call.params.get("TableName") or "")
    key = _key_of_table(call.region, name)
    if key is None:
        return []
    context = _everywhere(call) | {
        "kms:ViaService": [f"dynamodb.{call.region}.amazonaws.com"],
        "kms:CallerAccount": [ACCOUNT],
        "kms:EncryptionContext:aws:dynamodb:tableName": [name],
        "kms:EncryptionContext:aws:dynamodb:subscriberId": [ACCOUNT],
    }
    actions = ["kms:Decrypt"]
    if call.operation in WRITES_ITEMS:
        actions.append("kms:GenerateDataKey")
    return [(action, key, context) for action in actions]


def _key_of_table(region: str, name: str) -> str | None:
    """The ARN of the customer's key that encrypts the table, if one does."""
    from moto.dynamodb.models import dynamodb_backends
    from moto.kms.models import kms_backends

    from .fixups.kms import find_key

    table = dynamodb_backends[ACCOUNT][region].tables.get(name)
    sse = (table and table.sse_specification) or {}
    reference = sse.get("KMSMasterKeyId")
    if not reference or reference.startswith("alias/aws/"):
        return None
    key = find_key(kms_backends[ACCOUNT][region], reference)
    return None if key is None else str(key.arn)


def _table(call: Call, context: Context) -> list[Target]:
    params = call.params
    name = name_of(params.get("TableName") or "")
    if not name:
        return []
    more = _leading_keys(call, name)
    arn = _arn("dynamodb", call.region, f"table/{name}")
    return [(arn, context | more)]


def _leading_keys(call: Call, name: str) -> Context:
    """dynamodb:LeadingKeys and dynamodb:Attributes of one item's call."""
    from moto.dynamodb.models import dynamodb_backends

    table = dynamodb_backends[ACCOUNT][call.region].tables.get(name)
    # The parser renames nothing below "Key" and "Item".
    item = call.params.get("Key") or call.params.get("Item")
    if table is None or not item:
        return {}
    value = item.get(table.hash_key_attr) or {}
    return {
        "dynamodb:LeadingKeys": [str(v) for v in value.values()],
        "dynamodb:Attributes": list(item),
    }


def _function(call: Call, context: Context) -> list[Target]:
    given = call.params.get("FunctionName")
    if not given:
        return []
    name = (
        given.split(":")[6]
        if given.startswith("arn:")
        else given.split(":")[0]
    )
    return [(_arn("lambda", call.region, f"function:{name}"), context)]


def _named_by_arn(*parameters: str) -> Callable[[Call, Context], list[Target]]:
    def find(call: Call, context: Context) -> list[Target]:
        return [
            (call.params[name], context)
            for name in parameters
            if name in call.params
        ][:1]

    return find


def _group(call: Call, context: Context) -> list[Target]:
    from moto.autoscaling.models import autoscaling_backends

    if call.reads:
        return [("*", context)]
    groups = autoscaling_backends[ACCOUNT][call.region].autoscaling_groups
    name = call.params.get("AutoScalingGroupName")
    if name is None:
        # TerminateInstanceInAutoScalingGroup names only the member.
        member = call.params.get("InstanceId")
        name = next(
            (
                group.name
                for group in list(groups.values())
                for state in group.instance_states
                if state.instance.id == member
            ),
            None,
        )
    if name is None:
        return []
    group = groups.get(name)
    if group is None:
        return [
            (
                _arn(
                    "autoscaling",
                    call.region,
                    f"autoScalingGroup:none:autoScalingGroupName/{name}",
                ),
                context,
            )
        ]
    tags = {
        f"{prefix}:ResourceTag/{tag['Key']}": [tag["Value"]]
        for tag in group.tags or []
        for prefix in ("aws", "autoscaling")
    }
    return [(group.arn, context | tags)]


def _ec2_resources(call: Call, context: Context) -> list[Target]:
    if call.reads:
        return [("*", context)]
    params = call.params
    if call.operation == "CreateNetworkInterface":
        # The new interface itself has no id yet, and its subnet and groups
        # have one.
        named = [params.get("SubnetId"), *params.get("Groups", [])]
        new = _arn("ec2", call.region, "network-interface/*")
        found = [(new, context)]
    elif call.operation == "RunInstances":
        return []
    else:
        named = [
            *(params.get("InstanceIds") or []),
            *(params.get("Resources") or []),
            params.get("InstanceId"),
            params.get("NetworkInterfaceId"),
        ]
        found = []
    more = _ec2_request(call)
    for identifier in filter(None, named):
        found.append(_ec2_resource(call, identifier, context | more))
    return found


def _ec2_request(call: Call) -> Context:
    """The condition keys that the request itself has."""
    params = call.params
    if call.operation in ("CreateTags", "DeleteTags"):
        tags = params.get("Tags") or []
        return {"aws:TagKeys": [tag["Key"] for tag in tags]} | {
            f"aws:RequestTag/{tag['Key']}": [tag.get("Value") or ""]
            for tag in tags
        }
    if call.operation == "ModifyInstanceAttribute":
        changed = [
            name
            for name in params
            if name not in ("InstanceId", "DryRun", "Attribute", "Value")
        ]
        return {"ec2:Attribute": changed}
    return {}


def _ec2_resource(call: Call, identifier: str, context: Context) -> Target:
    from moto.ec2.models import ec2_backends

    kind = EC2_KINDS.get(identifier.split("-")[0], "*")
    tags = ec2_backends[ACCOUNT][call.region].tags.get(identifier, {})
    more = {
        f"{prefix}:ResourceTag/{key}": [value]
        for prefix in ("aws", "ec2")
        for key, value in tags.items()
    }
    arn = _arn("ec2", call.region, f"{kind}/{identifier}")
    return arn, context | more


EC2_KINDS = {
    "i": "instance",
    "eni": "network-interface",
    "vol": "volume",
    "lt": "launch-template",
    "sg": "security-group",
    "subnet": "subnet",
}

TARGETS: dict[str, Callable[[Call, Context], list[Target]]] = {
    "autoscaling": _group,
    "dynamodb": _table,
    "ec2": _ec2_resources,
    "elbv2": _named_by_arn("TargetGroupArn", "LoadBalancerArn", "ListenerArn"),
    "lambda": _function,
    "stepfunctions": _named_by_arn("stateMachineArn", "executionArn"),
}


def _arn(service: str, region: str, resource: str) -> str:
    return f"arn:aws:{service}:{region}:{ACCOUNT}:{resource}"
