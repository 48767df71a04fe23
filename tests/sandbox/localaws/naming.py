"""Which service and operation a request is for, and who sends it."""

import functools
import io
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from moto.core.parse import PROTOCOL_PARSERS
from moto.core.request import Request
from moto.core.routing import get_service_router
from moto.core.utils import get_service_model
from werkzeug.exceptions import NotFound

# The name in a signature's scope, where it is not botocore's name of the
# service.
SERVICE_OF_SIGNING_NAME = {
    "elasticloadbalancing": "elbv2",
    "eventbridge": "events",
    "monitoring": "cloudwatch",
    "states": "stepfunctions",
    "tagging": "resourcegroupstaggingapi",
}
CLASSIC_LOAD_BALANCER_VERSION = "2012-06-01"

CREDENTIAL = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/")
APPLICATION = re.compile(r"\bapp/(\S+)")
READING = re.compile(
    r"(Describe|Get|List|Head|Lookup|Search|Query|Scan|BatchGet|Assume|"
    r"Simulate)"
)


@dataclass
class Call:
    """One request to AWS."""

    environ: dict[str, Any]
    body: bytes
    service: str
    operation: str
    region: str
    access_key: str
    caller: str
    role: str | None = None
    path_parameters: dict[str, Any] = field(default_factory=dict)
    journal: dict[str, Any] = field(default_factory=dict)

    @property
    def protocol(self) -> str:
        """The wire protocol of the service."""
        return protocol(self.service)

    @property
    def reads(self) -> bool:
        """Does it only read? Told by its name, as AWS's own access levels
        largely are.
        """
        # Testing a rule's pattern and evaluating nothing are the exceptions
        # that no project here makes.
        return READING.match(self.operation) is not None

    @property
    def alike(self) -> tuple[str, str, str, bytes]:
        """What an attempt has in common with the ones before it."""
        target = self.environ["PATH_INFO"]
        query = self.environ.get("QUERY_STRING", "")
        return self.operation, target, query, self.body

    @property
    def params(self) -> dict[str, Any]:
        """The parameters; none, if they can not be read."""
        try:
            return self.parsed
        except Exception:
            return {}

    @functools.cached_property
    def parsed(self) -> dict[str, Any]:
        """The parameters, read as the service's model describes them; raises
        what the parser raises.
        """
        if not self.known:
            return {}
        request = Request(
            {**self.environ, "wsgi.input": io.BytesIO(self.body)}
        )
        operation = get_service_model(self.service).operation_model(
            self.operation
        )
        parsed = PROTOCOL_PARSERS[self.protocol](operation).parse(
            {
                "method": request.method,
                "values": request.values,
                "headers": request.headers,
                "body": self.body,
                "url_path": request.path,
                "url_params": self.path_parameters,
            }
        )
        return {
            name: value
            for name, value in (parsed or {}).items()
            if value is not None
        }

    @functools.cached_property
    def known(self) -> bool:
        """Is the operation one of the service's model?"""
        return (
            self.operation in get_service_model(self.service).operation_names
        )

    def is_one_of(self, service: str, *operations: str) -> bool:
        """Is it one of these operations of that service?"""
        return self.service == service and self.operation in operations


@functools.cache
def protocol(service: str) -> str:
    """The protocol that the SDKs used here speak to the service (never CBOR:
    requirements.in keeps it away).
    """
    return get_service_model(service).metadata["protocol"]


# Access keys of sessions that the sandbox itself handed out: key -> (caller,
# name of the role).
sessions: dict[str, tuple[str, str]] = {}


def identify(environ: dict[str, Any], body: bytes) -> Call | None:
    """The call that a request makes; None, if it is no signed AWS request."""
    match = CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
    if not match:
        return None
    access_key, region, signing_name = match.groups()
    service = SERVICE_OF_SIGNING_NAME.get(signing_name, signing_name)
    path_parameters: dict[str, Any] = {}
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        operation = target.rpartition(".")[2]
    elif protocol(service) in ("query", "ec2"):
        form = dict(parse_qsl(body.decode("utf-8", "replace")))
        if (
            service == "elbv2"
            and form.get("Version") == CLASSIC_LOAD_BALANCER_VERSION
        ):
            service = "elb"
        operation = form.get("Action", "")
    else:
        try:
            model, path_parameters = get_service_router(service).match(
                Request(environ)
            )
            operation = model.name
        except NotFound:
            operation = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
    caller, role = sessions.get(access_key, (None, None))
    if caller is None:
        names = ("HTTP_USER_AGENT", "HTTP_X_AMZ_USER_AGENT")
        agent = " ".join(environ.get(name, "") for name in names)
        application = APPLICATION.search(agent)
        caller = (
            f"app:{application[1]}" if application else f"key:{access_key}"
        )
    return Call(
        environ=environ,
        body=body,
        service=service,
        operation=operation,
        region=region,
        access_key=access_key,
        caller=caller,
        role=role,
        path_parameters=path_parameters,
    )
