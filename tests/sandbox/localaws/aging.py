"""Time moves: everything that the sandbox reports happened so many seconds
earlier than it said before.

What a program under test has stored itself, such as a time in a table's item,
is its own business.
"""

from __future__ import annotations

import datetime
import re
from typing import Any

from . import ACCOUNT, strict
from .machine import boot

SERVICES = (
    "apigateway",
    "autoscaling",
    "cloudformation",
    "dynamodb",
    "ec2",
    "elbv2",
    "events",
    "iam",
    "kms",
    "lambda",
    "logs",
)
# moto keeps some times as text, or as milliseconds.
TEXT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+0000|\+00:00)")
MILLISECONDS = {
    "creation_time",
    "creationTime",
    "ingestion_time",
    "first_event_timestamp",
    "last_event_timestamp",
    "last_ingestion_time",
    "timestamp",
}
# Facts of the world, not of the account.
SKIPPED = {
    "amis",
    "_instance_types",
    "managed_policies",
    "aws_managed_policies",
}


def age(seconds: float) -> int:
    """Move every time back; the answer is how many there were."""
    from moto.backends import get_backend
    from moto.stepfunctions.parser.models import stepfunctions_parser_backends

    strict.age(seconds)
    boot.pass_time(seconds)
    mover = Mover(datetime.timedelta(seconds=seconds))
    accounts = [get_backend(service)[ACCOUNT] for service in SERVICES]
    # Those that really execute are kept elsewhere.
    for backends in (*accounts, stepfunctions_parser_backends[ACCOUNT]):
        for backend in list(backends.values()):
            mover.walk(backend)
    return mover.moved


class Mover:
    """Walks through moto's objects; each is seen once."""

    def __init__(self, by: datetime.timedelta) -> None:
        self.by = by
        self.seen: set[int] = set()
        self.moved = 0

    def walk(self, start: Any) -> None:
        """Move every time that is found from here."""
        waiting = [start]
        while waiting:
            value = waiting.pop()
            if id(value) in self.seen:
                continue
            self.seen.add(id(value))
            if isinstance(value, dict):
                waiting += self._items(value, value.items())
            elif isinstance(value, list):
                waiting += self._items(value, enumerate(value))
            elif isinstance(value, (tuple, set, frozenset)):
                waiting += value
            elif type(value).__module__.startswith(("moto.", "localaws.")):
                fields = getattr(value, "__dict__", None)
                if fields:
                    waiting += self._items(fields, fields.items())

    def _items(self, holder: Any, items: Any) -> list[Any]:
        found = []
        for key, value in list(items):
            if key in SKIPPED:
                continue
            earlier = self._earlier(key, value)
            if earlier is not None:
                holder[key] = earlier
                self.moved += 1
            elif not isinstance(value, (str, bytes, int, float, type(None))):
                found.append(value)
        return found

    def _earlier(self, key: Any, value: Any) -> Any:
        """The time that much earlier, in its own form; None, if it is none."""
        if isinstance(value, datetime.datetime):
            return value - self.by
        if isinstance(value, str) and (found := TEXT.fullmatch(value)):
            text = value.removesuffix(found[2])
            time = datetime.datetime.fromisoformat(text) - self.by
            unit = "milliseconds" if found[1] else "seconds"
            return time.isoformat(timespec=unit) + found[2]
        if (
            isinstance(value, int)
            and not isinstance(value, bool)
            and key in MILLISECONDS
        ):
            return value - round(self.by.total_seconds() * 1000)
        return None
