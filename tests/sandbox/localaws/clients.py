"""boto3 clients against the sandbox itself, for the control API, the stack
generator and the tests.

Their calls carry the application id `test`, so that the journal tells them
from those of the program under test.
"""

import base64
import datetime
import functools
import threading
from typing import Any

import boto3
from botocore.client import BaseClient
from botocore.config import Config

APPLICATION = "test"

_lock = threading.Lock()
_where = {"url": "", "region": ""}


def configure(url: str, region: str) -> None:
    """Say where the sandbox is, once it is known."""
    _where.update(url=url, region=region)


def url() -> str:
    """The sandbox's address."""
    return _where["url"]


def default_region() -> str:
    """The region that the sandbox was started with."""
    return _where["region"]


@functools.cache
def _session() -> boto3.Session:
    return boto3.Session(
        aws_access_key_id="AKIATESTTESTTESTTEST", aws_secret_access_key="test"
    )


@functools.cache
def _client(service: str, region: str) -> BaseClient:
    config = Config(
        user_agent_appid=APPLICATION,
        max_pool_connections=20,
        retries={"total_max_attempts": 1},
    )
    # Checked by the sandbox, as AWS would, not by botocore before anything is
    # sent.
    config = config.merge(Config(parameter_validation=False, read_timeout=120))
    return _session().client(
        service, region_name=region, endpoint_url=url(), config=config
    )


def client(service: str, region: str | None = None) -> BaseClient:
    """A client, made once for each service and region: making one is slow, and
    not safe in several threads.
    """
    with _lock:
        return _client(service, region or default_region())


def call(
    service: str,
    operation: str,
    params: dict[str, Any],
    region: str | None,
    paginate: bool,
) -> Any:
    """The result of one call as plain data, with all pages merged if asked."""
    method = client(service, region)
    arguments = _from_json(params)
    if paginate and method.can_paginate(operation):
        result = (
            method.get_paginator(operation)
            .paginate(**arguments)
            .build_full_result()
        )
    else:
        result = getattr(method, operation)(**arguments)
        result.pop("ResponseMetadata", None)
    return plain(result)


def _from_json(value: Any) -> Any:
    """JSON has no bytes: {"__bytes__": "<base64>"} stands for them."""
    if isinstance(value, dict):
        if set(value) == {"__bytes__"}:
            return base64.b64decode(value["__bytes__"])
        return {key: _from_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    return value


def plain(value: Any) -> Any:
    """The value with dates as ISO text and bytes as base64."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if hasattr(value, "read"):
        value = value.read()
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    return value
