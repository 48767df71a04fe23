"""Errors in the form that each service's protocol gives them."""

import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from moto.core.utils import get_service_model

from .naming import protocol

REASONS = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
    429: "Too Many Requests",
}
REASONS |= {500: "Internal Server Error", 503: "Service Unavailable"}


@dataclass
class Refusal(Exception):
    """A call that is answered with an error of the service."""

    code: str
    message: str
    status: int = 400
    headers: list[tuple[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def status_line(status: int) -> str:
    """`400 Bad Request`."""
    return f"{status} {REASONS.get(status, 'Unknown')}"


def error(
    service: str, refusal: Refusal
) -> tuple[list[tuple[str, str]], bytes]:
    """The refusal's headers and body."""
    request_id = str(uuid.uuid4())
    code, message = escape(refusal.code), escape(refusal.message)
    headers: Iterable[tuple[str, str]]
    match protocol(service):
        case "ec2":
            body = (
                '<?xml version="1.0"?><Response><Errors><Error>'
                f"<Code>{code}</Code><Message>{message}</Message>"
                "</Error></Errors>"
                f"<RequestID>{request_id}</RequestID></Response>"
            )
            headers = [("Content-Type", "text/xml;charset=UTF-8")]
        case "query" | "rest-xml":
            namespace = get_service_model(service).metadata.get(
                "xmlNamespace", ""
            )
            if isinstance(namespace, dict):
                namespace = namespace.get("uri", "")
            side = "Sender" if refusal.status < 500 else "Receiver"
            body = (
                f'<ErrorResponse xmlns="{namespace}"><Error>'
                f"<Type>{side}</Type><Code>{code}</Code>"
                f"<Message>{message}</Message></Error>"
                f"<RequestId>{request_id}</RequestId></ErrorResponse>"
            )
            headers = [
                ("Content-Type", "text/xml"),
                ("x-amzn-RequestId", request_id),
            ]
        case "rest-json":
            # Lambda's errors have "Message", API Gateway's "message": SDKs
            # read either.
            body = json.dumps(
                {
                    "Type": "User",
                    "message": refusal.message,
                    "Message": refusal.message,
                }
            )
            headers = [
                ("Content-Type", "application/json"),
                ("x-amzn-ErrorType", refusal.code),
            ]
            headers += [("x-amzn-RequestId", request_id)]
        case _:
            body = json.dumps(
                {"__type": refusal.code, "message": refusal.message}
            )
            headers = [
                ("Content-Type", "application/x-amz-json-1.1"),
                ("x-amzn-RequestId", request_id),
            ]
    return [*headers, *refusal.headers], body.encode()
