"""boto3 clients that reach moto without HTTP.

For what the sandbox does for itself, thousands of calls at a time: reading
the whole account, and filling it.  Such calls pass by everything that the
server puts in front of moto, the journal, faults and delays included.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from typing import Any

import boto3
from botocore.client import BaseClient
from botocore.config import Config
from moto.core.botocore_stubber import BotocoreStubber

_lock = threading.Lock()
_stubber = BotocoreStubber()
_stubber.enabled = True


@functools.cache
def _session() -> boto3.Session:
    # One for all: a session reads a service's model once, which is slow.
    return boto3.Session(
        aws_access_key_id="AKIATESTTESTTESTTEST", aws_secret_access_key="test"
    )


@functools.cache
def _client(service: str, region: str) -> BaseClient:
    made = _session().client(
        service,
        region_name=region,
        config=Config(
            retries={"total_max_attempts": 1}, parameter_validation=False
        ),
    )
    made.meta.events.register("before-send", _stubber)
    return made


def client(service: str, region: str) -> BaseClient:
    """A client, made once for each service and region."""
    with _lock:
        return _client(service, region)


def every(
    made: BaseClient, operation: str, key: str, **params: Any
) -> Iterator[Any]:
    """The items of a list, from its first page to its last."""
    if not made.can_paginate(operation):
        yield from getattr(made, operation)(**params).get(key) or []
        return
    for one in made.get_paginator(operation).paginate(**params):
        yield from one.get(key) or []
