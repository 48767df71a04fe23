"""Regions that AWS does not have.

AWS has no address for them, and nobody who answers. The sandbox has one for
all, so it answers as AWS does in a region that the account may not use: the
credentials are unknown there. That is no error to be tried again.
"""

import functools

import boto3

from .naming import Call
from .wire import Refusal

TOKEN = "The security token included in the request is invalid."


@functools.cache
def known() -> frozenset[str]:
    """The regions of every partition."""
    session = boto3.Session()
    return frozenset(
        region
        for partition in session.get_available_partitions()
        for region in session.get_available_regions("ec2", partition)
    )


def check(call: Call) -> None:
    """Refuse a call to a region that does not exist."""
    if call.region in known():
        return
    match call.protocol:
        case "ec2":
            text = (
                "AWS was not able to validate the provided access credentials"
            )
            raise Refusal("AuthFailure", text, 401)
        case "query" | "rest-xml":
            raise Refusal("InvalidClientTokenId", TOKEN, 403)
        case "rest-json":
            raise Refusal("UnrecognizedClientException", TOKEN, 403)
        case _:
            raise Refusal("UnrecognizedClientException", TOKEN, 400)
