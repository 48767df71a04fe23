"""AWS's request rates, for the calls whose rate is low enough to be met by one
cluster.

A bucket holds so many tokens and is refilled at the rate; a call finds one in
it or is throttled. API Gateway's four refill slowly and hold one. EC2's are
those of the calls that are made for every machine of a cluster, from its
developer guide, "Request throttling for the Amazon EC2 API": each operation
has its own bucket in each region, and TerminateInstances a second one, in
which each instance of a call is a token. AWS raises EC2's on request.
"""

import threading
from dataclasses import dataclass
from typing import Any

from .naming import Call
from .settings import now, settings
from .wire import Refusal


@dataclass(frozen=True)
class Rate:
    """How many at once, and how many a second after that."""

    burst: float
    per_second: float
    needs: str | None = None
    """Only calls with this parameter count."""
    counts: str | None = None
    """What is counted, by its parameter's name; calls if none is given."""


RATES: dict[tuple[str, str], tuple[Rate, ...]] = {
    ("apigateway", "DeleteRestApi"): (Rate(1, 1 / 30),),
    ("apigateway", "CreateDeployment"): (Rate(1, 1 / 5),),
    ("apigateway", "UpdateUsagePlan"): (Rate(1, 1 / 20),),
    ("apigateway", "PutRestApi"): (Rate(1, 1),),
    ("ec2", "ModifyInstanceAttribute"): (
        Rate(50, 5, needs="DisableApiTermination"),
    ),
    ("ec2", "ModifyNetworkInterfaceAttribute"): (Rate(100, 5),),
    ("ec2", "DescribeInstanceAttribute"): (Rate(100, 20),),
    ("ec2", "CreateTags"): (Rate(100, 10),),
    ("ec2", "DeleteTags"): (Rate(100, 10),),
    ("ec2", "TerminateInstances"): (
        Rate(100, 5),
        Rate(1000, 20, counts="InstanceIds"),
    ),
}

_lock = threading.Lock()
_buckets: dict[Any, tuple[float, float]] = {}


def forget() -> None:
    """Fill every bucket."""
    with _lock:
        _buckets.clear()


def check(call: Call) -> None:
    """Throttle the call if one of its buckets has too little in it."""
    factor = settings.rates or float(settings.strict)
    rates = RATES.get((call.service, call.operation), ())
    if not factor or not rates:
        return
    if call.service != "ec2":
        factor = 1
    with _lock:
        waits = [_wait(call, rate, factor) for rate in rates]
    if not any(waits):
        return
    if call.service == "ec2":
        raise Refusal("RequestLimitExceeded", "Request limit exceeded.", 503)
    raise Refusal(
        "TooManyRequestsException",
        "Too Many Requests",
        429,
        [("Retry-After", str(max(1, round(max(waits)))))],
    )


def _wait(call: Call, rate: Rate, factor: float) -> float:
    """Take what the call needs out of the bucket; or tell in how many seconds
    there will be enough.
    """
    if rate.needs and rate.needs not in call.params:
        return 0
    needed = len(call.params.get(rate.counts, ())) if rate.counts else 1
    burst, per_second = rate.burst * factor, rate.per_second * factor
    key = (call.service, call.operation, rate.counts, call.region)
    left, when = _buckets.get(key, (burst, now()))
    left = min(burst, left + (now() - when) * per_second)
    allowed = left >= needed
    _buckets[key] = (left - needed * allowed, now())
    return 0 if allowed else (needed - left) / per_second
