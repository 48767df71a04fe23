"""AWS's request rates, for the calls whose rate is low enough to be met by one
cluster.

A bucket holds so many calls and is refilled at the rate; a call finds one in
it or is throttled. API Gateway's four refill slowly and hold one call. EC2's
are those of the calls that are made for every machine of a cluster, from its
developer guide, "Request throttling for the Amazon EC2 API": each operation
has its own bucket in each region.
"""

import threading
from dataclasses import dataclass
from typing import Any

from .naming import Call
from .settings import now, settings
from .wire import Refusal


@dataclass(frozen=True)
class Rate:
    """How many calls at once, and how many a second after that."""

    burst: float
    per_second: float
    needs: str | None = None
    """Only calls with this parameter count."""


RATES = {
    ("apigateway", "DeleteRestApi"): Rate(1, 1 / 30),
    ("apigateway", "CreateDeployment"): Rate(1, 1 / 5),
    ("apigateway", "UpdateUsagePlan"): Rate(1, 1 / 20),
    ("apigateway", "PutRestApi"): Rate(1, 1),
    ("ec2", "ModifyInstanceAttribute"): Rate(
        50, 5, needs="DisableApiTermination"
    ),
    ("ec2", "ModifyNetworkInterfaceAttribute"): Rate(100, 5),
    ("ec2", "DescribeInstanceAttribute"): Rate(100, 20),
    ("ec2", "CreateTags"): Rate(100, 10),
    ("ec2", "DeleteTags"): Rate(100, 10),
    ("ec2", "TerminateInstances"): Rate(100, 5),
}

_lock = threading.Lock()
_buckets: dict[Any, tuple[float, float]] = {}


def forget() -> None:
    """Fill every bucket."""
    with _lock:
        _buckets.clear()


def check(call: Call) -> None:
    """Throttle the call if its bucket is empty."""
    rate = RATES.get((call.service, call.operation))
    if rate is None or not (settings.rates or settings.strict):
        return
    if rate.needs and rate.needs not in call.params:
        return
    key = (call.service, call.operation, call.region)
    with _lock:
        left, when = _buckets.get(key, (rate.burst, now()))
        left = min(rate.burst, left + (now() - when) * rate.per_second)
        allowed = left >= 1
        _buckets[key] = (left - allowed, now())
    if allowed:
        return
    if call.service == "ec2":
        raise Refusal("RequestLimitExceeded", "Request limit exceeded.", 503)
    wait = max(1, round((1 - left) / rate.per_second))
    raise Refusal(
        "TooManyRequestsException",
        "Too Many Requests",
        429,
        [("Retry-After", str(wait))],
    )
