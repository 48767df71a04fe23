"""Every request against the API's model, as botocore ships it: what AWS would
refuse is refused here.

moto checks little of it, and the SDK under test nothing but what its types can
not express.
"""

import datetime
import functools
import re
from collections.abc import Iterator
from typing import Any

from moto.core.utils import get_service_model

from .naming import Call
from .settings import settings
from .wire import Refusal

LONGEST_SHOWN_VALUE = 200

# The code of a request that contradicts the model; ValidationException where a
# service is not named.
CODE = {
    "apigateway": "BadRequestException",
    "autoscaling": "ValidationError",
    "cloudformation": "ValidationError",
    "ec2": "InvalidParameterValue",
    "elb": "ValidationError",
    "elbv2": "ValidationError",
    "iam": "ValidationError",
    "logs": "InvalidParameterException",
    "resourcegroupstaggingapi": "InvalidParameterException",
    "route53": "InvalidInput",
    "sts": "ValidationError",
}

# Where AWS takes what its model forbids: (service, name of the shape) -> the
# constraints that do not count, and why.
LAXER: dict[tuple[str, str], tuple[set[str], str]] = {}

# Python lacks Unicode's classes; within brackets these cover what the models
# mean closely enough.
UNICODE_CLASSES = {
    r"\p{L}": r"\w",
    r"\p{N}": r"\d",
    r"\p{Z}": r"\s",
    r"\p{Print}": r"[ -~]",
    r"\p{ASCII}": r"[\x00-\x7F]",
}
# Java's way to write everything beyond the basic plane.
SURROGATES = (r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF")

Finding = tuple[str, str]


def check(call: Call) -> None:
    """Refuse a request that contradicts its model."""
    if not settings.check_requests or not call.known:
        return
    operation = get_service_model(call.service).operation_model(call.operation)
    if operation.input_shape is None:
        return
    try:
        params = call.parsed
    except Exception as failure:
        finding = f"can not be read: {type(failure).__name__}: {failure}"
        call.journal["invalid"] = [finding]
        code = (
            "MalformedQueryString"
            if call.protocol in ("query", "ec2")
            else "SerializationException"
        )
        raise Refusal(code, finding) from failure
    findings = list(
        violations(call.service, operation.input_shape, params, "")
    )
    if not findings:
        return
    texts = [
        f"{shown} at '{path}' failed to satisfy constraint: {rule}"
        for path, shown, rule in findings
    ]
    call.journal["invalid"] = texts
    noun = "error" if len(texts) == 1 else "errors"
    code = CODE.get(call.service, "ValidationException")
    raise Refusal(
        code, f"{len(texts)} validation {noun} detected: {'; '.join(texts)}"
    )


def violations(
    service: str, shape: Any, value: Any, path: str
) -> Iterator[tuple[str, str, str]]:
    """(path, value as shown, broken constraint) of everything that is wrong
    with the value.
    """
    value = _from_text(shape, value)
    if not _has_type(shape, value):
        yield path, _shown(shape, value), f"Member must be a {shape.type_name}"
        return
    ignored = LAXER.get((service, shape.name), (set(), ""))[0]
    for kind, rule in _broken(shape, value):
        if kind not in ignored:
            yield path, _shown(shape, value), rule
    match shape.type_name:
        case "structure" if not shape.is_document_type:
            yield from _structure_violations(service, shape, value, path)
        case "list":
            for number, item in enumerate(value, 1):
                yield from violations(
                    service, shape.member, item, f"{path}.{number}.member"
                )
        case "map":
            for key, item in value.items():
                yield from violations(service, shape.key, key, f"{path}.key")
                yield from violations(
                    service, shape.value, item, f"{path}.{key}.member"
                )


def _structure_violations(
    service: str, shape: Any, value: dict[str, Any], path: str
) -> Iterator[tuple[str, str, str]]:
    for name in shape.required_members:
        if value.get(name) is None:
            yield _below(path, name), "Value null", "Member must not be null"
    given = [name for name, item in value.items() if item is not None]
    if shape.is_tagged_union and len(given) != 1:
        yield (
            path,
            f"Value with {len(given)} members",
            "exactly one member must be set",
        )
    for name in given:
        if name in shape.members:
            yield from violations(
                service, shape.members[name], value[name], _below(path, name)
            )


def _below(path: str, name: str) -> str:
    lowered = name[:1].lower() + name[1:]
    return f"{path}.{lowered}" if path else lowered


def _from_text(shape: Any, value: Any) -> Any:
    """Numbers in a path, query or header are text."""
    if (
        isinstance(value, str)
        and "location" in shape.serialization
        and shape.type_name in ("integer", "long")
    ):
        try:
            return int(value)
        except ValueError:
            return value
    return value


def _has_type(shape: Any, value: Any) -> bool:
    match shape.type_name:
        case "string" | "character":
            return isinstance(value, str)
        case "integer" | "long":
            return isinstance(value, int) and not isinstance(value, bool)
        case "float" | "double":
            return isinstance(value, (int, float)) and not isinstance(
                value, bool
            )
        case "boolean":
            return isinstance(value, bool)
        case "timestamp":
            return isinstance(value, (datetime.datetime, str, int, float))
        case "blob":
            return isinstance(value, (bytes, str))
        case "list":
            return isinstance(value, list)
        case "map":
            return isinstance(value, dict)
        case "structure":
            return isinstance(value, dict) or shape.is_document_type
        case _:
            return True


# What `min` and `max` count, by type.
MEASURED = {
    "string": "length",
    "blob": "length",
    "list": "size",
    "map": "size",
}
NUMBERS = ("integer", "long", "float", "double")


def _broken(shape: Any, value: Any) -> Iterator[Finding]:
    """(kind, rule) of the shape's own constraints that the value breaks."""
    kind = shape.type_name
    if kind in MEASURED or kind in NUMBERS:
        noun = MEASURED.get(kind, "value")
        measure = value if kind in NUMBERS else len(value)
        yield from _out_of_range(shape, noun, measure)
    if kind != "string":
        return
    if shape.enum and value not in shape.enum:
        values = ", ".join(shape.enum)
        yield "enum", f"Member must satisfy enum value set: [{values}]"
    pattern = shape.metadata.get("pattern")
    expression = compiled(pattern) if pattern else None
    if expression is not None and not expression.fullmatch(value):
        text = "Member must satisfy regular expression pattern"
        yield "pattern", f"{text}: {pattern}"


def _out_of_range(shape: Any, noun: str, measure: float) -> Iterator[Finding]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    rule = f"Member must have {noun}"
    if least is not None and measure < float(least):
        yield "min", f"{rule} greater than or equal to {least}"
    if most is not None and measure > float(most):
        yield "max", f"{rule} less than or equal to {most}"


@functools.cache
def compiled(pattern: str) -> re.Pattern[str] | None:
    """The pattern for Python, or None where it can not be said there."""
    pattern = pattern.replace(*SURROGATES)
    for name, replacement in UNICODE_CLASSES.items():
        pattern = pattern.replace(name, replacement)
    try:
        return re.compile(pattern)
    except re.error:
        return None


def _shown(shape: Any, value: Any) -> str:
    if shape.metadata.get("sensitive"):
        return "Value at a sensitive member"
    text = f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)
    return f"Value '{text[:LONGEST_SHOWN_VALUE]}'"
