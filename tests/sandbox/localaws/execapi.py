"""The data plane of API Gateway's REST APIs, which moto has not.

An API answers at
    https://{api}.execute-api.{region}.amazonaws.com/{stage}/{path}
told by the Host header, and for clients that can not set one at
    /execute-api/{api}/{region}/{stage}/{path}
What it does with a request can be made to fail by faults whose service is
`execute-api` and whose operation is `Invoke`, with the actions error, delay,
hang and drop; the caller of a machine's request is `instance:{id}`.

A private API needs to know the VPC that a request comes from, which loopback
has not: the header x-sandbox-source-vpc says it.
"""

import base64
import fnmatch
import json
import re
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from . import ACCOUNT, roles, wire
from .calls import LONGEST_HANG, drop, read_body
from .faults import Faults
from .machine import life
from .naming import Call

HOST = re.compile(
    r"^([a-z0-9]+)\.execute-api\.([a-z0-9-]+)\.amazonaws\.com(?::\d+)?$"
)
PATH = re.compile(r"^/execute-api/([a-z0-9]+)/([a-z0-9-]+)(/.*)$")
FUNCTION = re.compile(r"functions/(arn:aws[^/]*)/invocations")
SOURCE_VPC = "HTTP_X_SANDBOX_SOURCE_VPC"


class Target(NamedTuple):
    """What a request is for."""

    api: str
    region: str
    path: str


class Reply(Exception):
    """An answer of API Gateway itself."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def match(environ: dict[str, Any]) -> Target | None:
    """The API that the request is for, if any."""
    if found := HOST.match(environ.get("HTTP_HOST", "")):
        return Target(found[1], found[2], environ["PATH_INFO"])
    if found := PATH.match(environ["PATH_INFO"]):
        return Target(found[1], found[2], found[3])
    return None


def serve(
    target: Target,
    environ: dict[str, Any],
    start_response: Callable[..., Any],
    faults: Faults,
) -> Iterable[bytes]:
    """Answer one request."""
    body = read_body(environ)
    try:
        _apply_fault(target, environ, body, faults)
        status, headers, answer = _handle(target, environ, body)
    except Reply as reply:
        status, headers, answer = (
            reply.status,
            {},
            json.dumps({"message": reply.message}).encode(),
        )
    headers = {
        "Content-Type": "application/json",
        "x-amzn-RequestId": str(uuid.uuid4()),
    } | headers
    headers["Content-Length"] = str(len(answer))
    start_response(
        wire.status_line(status) if status != 200 else "200 OK",
        list(headers.items()),
    )
    return [answer]


def _apply_fault(
    target: Target, environ: dict[str, Any], body: bytes, faults: Faults
) -> None:
    machine = life.by_address(environ.get("REMOTE_ADDR", ""))
    call = Call(
        environ=environ,
        body=body,
        service="execute-api",
        operation="Invoke",
        region=target.region,
        access_key="",
        caller=f"instance:{machine.instance_id}" if machine else "anonymous",
    )
    released = faults.released
    asked = f"{environ['REQUEST_METHOD']} {target.path}"
    rule = faults.pick(call, f"{asked}?{environ.get('QUERY_STRING', '')}")
    if rule is None:
        return
    match rule.action:
        case "error":
            raise Reply(rule.status, rule.message)
        case "delay":
            time.sleep(rule.seconds)
        case "hang" | "drop":
            if rule.action == "hang":
                released.wait(LONGEST_HANG)
            drop(environ)
        case _:
            raise Reply(500, f"no {rule.action} for execute-api")


def _handle(
    target: Target, environ: dict[str, Any], body: bytes
) -> tuple[int, dict[str, str], bytes]:
    from moto.apigateway.models import apigateway_backends

    backend = apigateway_backends[ACCOUNT][target.region]
    api = backend.apis.get(target.api)
    _, stage_name, *parts = target.path.split("/")
    if (
        api is None
        or stage_name not in api.stages
        or not api.stages[stage_name].deployment_id
    ):
        raise Reply(403, "Forbidden")
    verb, path = environ["REQUEST_METHOD"], "/" + "/".join(parts).rstrip("/")
    _check_network(api, target, environ, f"{stage_name}/{verb}{path}")
    resource = _resource(api, path)
    method = resource and (
        resource.resource_methods.get(verb)
        or resource.resource_methods.get("ANY")
    )
    if not method:
        raise Reply(403, "Missing Authentication Token")
    if str(method.api_key_required).lower() == "true":
        _check_key(
            backend, target.api, stage_name, environ.get("HTTP_X_API_KEY")
        )
    integration = method.method_integration
    arn = FUNCTION.search(integration.uri or "") if integration else None
    if not arn or integration.integration_type.upper() != "AWS_PROXY":
        raise Reply(500, "Internal server error")
    event = _event(
        target,
        environ,
        body,
        stage_name,
        verb,
        path,
        api.stages[stage_name].variables,
        resource,
    )
    source = f"{_arn(target)}/{stage_name}/{verb}{path}"
    return _invoke(target.region, arn[1], event, source)


def _arn(target: Target) -> str:
    return f"arn:aws:execute-api:{target.region}:{ACCOUNT}:{target.api}"


def _check_network(
    api: Any, target: Target, environ: dict[str, Any], path: str
) -> None:
    """A private API is not reachable from outside, and its policy decides from
    where inside.
    """
    types = (api.endpoint_configuration or {}).get("types", [])
    source = environ.get(SOURCE_VPC)
    if "PRIVATE" not in types:
        return
    # The private name resolves only in a VPC that has an endpoint.
    if source is None or not _policy_allows(api.policy, target, path, source):
        raise Reply(403, "Forbidden")


def _policy_allows(
    policy: str | None, target: Target, path: str, source_vpc: str
) -> bool:
    """The resource policy's verdict. Without a policy nobody may call a
    private API.
    """
    if not policy:
        return False
    # As DescribeRestApi gives it, the text is escaped.
    text = (
        policy
        if policy.lstrip().startswith("{") and '\\"' not in policy
        else policy.replace('\\"', '"')
    )
    arn = f"{_arn(target)}/{path}"
    allowed = False
    for statement in json.loads(text)["Statement"]:
        resources = statement.get("Resource", [])
        patterns = [
            pattern.replace(
                "execute-api:/",
                f"{_arn(target)}/",
                1,
            )
            if pattern.startswith("execute-api:/")
            else pattern
            for pattern in (
                resources if isinstance(resources, list) else [resources]
            )
        ]
        if not any(fnmatch.fnmatchcase(arn, pattern) for pattern in patterns):
            continue
        if not roles.conditions_hold(
            statement.get("Condition", {}), {"aws:SourceVpc": [source_vpc]}
        ):
            continue
        if statement["Effect"] == "Deny":
            return False
        allowed = True
    return allowed


def _resource(api: Any, path: str) -> Any:
    for resource in api.resources.values():
        pattern = re.sub(
            r"\\{[^}]*\\\+\\}", ".+", re.escape(resource.get_path())
        )
        pattern = re.sub(r"\\{[^}+]*\\}", "[^/]+", pattern)
        if re.fullmatch(pattern, path):
            return resource
    return None


def _check_key(backend: Any, api: str, stage: str, given: str | None) -> None:
    """The key has to be enabled, and in a usage plan that has this stage."""
    keys = [
        key
        for key in backend.keys.values()
        if key.value == given and str(key.enabled).lower() == "true"
    ]
    for key in keys:
        for plan in backend.usage_plans.values():
            stages = [
                (entry["apiId"], entry["stage"]) for entry in plan.api_stages
            ]
            if (
                api,
                stage,
            ) in stages and key.id in backend.usage_plan_keys.get(plan.id, {}):
                return
    raise Reply(403, "Forbidden")


def _event(
    target: Target,
    environ: dict[str, Any],
    body: bytes,
    stage: str,
    verb: str,
    path: str,
    variables: Any,
    resource: Any,
) -> dict[str, Any]:
    """The event of a proxy integration."""
    headers = {
        key[5:].replace("_", "-").title(): value
        for key, value in environ.items()
        if key.startswith("HTTP_")
    }
    if environ.get("CONTENT_TYPE"):
        headers["Content-Type"] = environ["CONTENT_TYPE"]
    query = parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    return {
        "resource": resource.get_path(),
        "path": path,
        "httpMethod": verb,
        "headers": headers,
        "multiValueHeaders": {
            name: [value] for name, value in headers.items()
        },
        "queryStringParameters": dict(query) or None,
        "multiValueQueryStringParameters": {
            name: [value for other, value in query if other == name]
            for name, _ in query
        }
        or None,
        "pathParameters": None,
        "stageVariables": variables or None,
        "requestContext": {
            "resourceId": resource.id,
            "resourcePath": resource.get_path(),
            "httpMethod": verb,
            "path": target.path,
            "accountId": ACCOUNT,
            "protocol": "HTTP/1.1",
            "stage": stage,
            "requestId": str(uuid.uuid4()),
            "requestTimeEpoch": int(time.time() * 1000),
            "apiId": target.api,
            "identity": {
                "sourceIp": environ.get("REMOTE_ADDR"),
                "userAgent": environ.get("HTTP_USER_AGENT"),
            },
        },
        "body": body.decode() if body else None,
        "isBase64Encoded": False,
    }


def _invoke(
    region: str, arn: str, event: dict[str, Any], source: str
) -> tuple[int, dict[str, str], bytes]:
    from moto.awslambda.exceptions import UnknownFunctionException
    from moto.awslambda.utils import get_backend

    backend = get_backend(ACCOUNT, region)
    try:
        function = backend.get_function(arn)
    except UnknownFunctionException as failure:
        raise Reply(500, "Internal server error") from failure
    if not function_policy_allows(
        function, "apigateway.amazonaws.com", source
    ):
        raise Reply(
            500, "Internal server error"
        )  # "Invalid permissions on Lambda function", in its log only
    headers: dict[str, str] = {}
    try:
        payload = backend.invoke(arn, None, json.dumps(event), {}, headers)
    except wire.Refusal as failure:
        raise Reply(500, "Internal server error") from failure
    if "x-amz-function-error" in headers:
        raise Reply(502, "Internal server error")
    try:
        answer = json.loads(payload)
        text = answer.get("body") or ""
        body = (
            base64.b64decode(text)
            if answer.get("isBase64Encoded")
            else text.encode()
        )
        given = {
            name: str(value)
            for name, value in (answer.get("headers") or {}).items()
        }
        return int(answer["statusCode"]), given, body
    except (ValueError, KeyError, TypeError, AttributeError) as failure:
        raise Reply(502, "Internal server error") from failure


def function_policy_allows(function: Any, service: str, source: str) -> bool:
    """Does the function's resource policy let the service invoke it, from this
    source?
    """
    context = {"AWS:SourceArn": [source], "AWS:SourceAccount": [ACCOUNT]}
    for statement in function.policy.statements:
        if statement["Principal"] != {"Service": service}:
            continue
        if statement["Action"] not in ("lambda:InvokeFunction", "lambda:*"):
            continue
        if roles.conditions_hold(statement.get("Condition", {}), context):
            return True
    return False
