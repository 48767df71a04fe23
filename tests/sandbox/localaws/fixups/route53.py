"""Route 53: names in their own form, and changes that are checked."""

from __future__ import annotations

import re
from typing import Any

from moto.core.responses import ActionResult
from moto.route53.exceptions import DnsNameInvalidForZone, Route53ClientError
from moto.route53.models import FakeZone, RecordSet, Route53Backend
from moto.route53.responses import Route53

from .patching import fixup, wrap

# Written as they are; everything else as a backslash and three octal digits.
PLAIN = re.compile(r"[a-z0-9_.-]")
ESCAPED = re.compile(r"\\([0-7]{3})")


def canonical(name: str) -> str:
    """The name as Route 53 stores it: lower case, escaped, with a dot."""
    name = ESCAPED.sub(lambda match: chr(int(match[1], 8)), name).lower()
    name = name if name.endswith(".") else name + "."
    return "".join(
        letter if PLAIN.match(letter) else f"\\{ord(letter):03o}"
        for letter in name
    )


class InvalidChangeBatch(Route53ClientError):
    """A change that can not be made; none of its batch is."""

    def __init__(self, message: str) -> None:
        super().__init__("InvalidChangeBatch", f"[{message}]")


@fixup
def names_are_in_their_own_form() -> None:
    """Names come back in lower case, escaped, and with a final dot.

    Alias targets too.  moto answers what was sent.
    """

    @wrap(FakeZone, "__init__")
    def zone(original: Any, self: FakeZone, name: str, *args: Any, **kwargs: Any) -> None:
        original(self, canonical(name), *args, **kwargs)

    @wrap(RecordSet, "__init__")
    def record_set(original: Any, self: RecordSet, kwargs: dict[str, Any]) -> None:
        original(self, kwargs)
        self.name = canonical(self.name)
        if self.alias_target:
            self.alias_target = {
                **self.alias_target,
                "DNSName": canonical(self.alias_target["DNSName"]),
            }

    @wrap(Route53Backend, "list_resource_record_sets")
    def list_record_sets(
        original: Any,
        self: Route53Backend,
        zone_id: str,
        start_type: str,
        start_name: str,
        max_items: int,
    ) -> Any:
        if start_name:
            zone = self.get_hosted_zone(zone_id)
            following = sorted_from(zone, canonical(start_name), start_type)
            more = following[max_items : max_items + 1]
            return (
                following[:max_items],
                more[0].name if more else None,
                more[0].type if more else None,
                bool(more),
            )
        return original(self, zone_id, start_type, start_name, max_items)


def sorted_from(
    zone: FakeZone, name: str, record_type: str | None
) -> list[RecordSet]:
    """The zone's record sets from a name on, in Route 53's order."""

    def key(record: str, kind: str | None) -> tuple[list[str], str]:
        return list(reversed(record.strip(".").split("."))), kind or ""

    start = key(name, record_type)
    records = sorted(zone.rrsets, key=lambda r: key(r.name, r.type))
    return [r for r in records if key(r.name, r.type) >= start]


@fixup
def changes_are_checked() -> None:
    """CREATE needs a free name, DELETE exactly what is there.

    A name has to lie in the zone, not only to end like it.  A batch with one
    wrong change is refused altogether.  moto deletes what was never there or
    is different, and creates a record twice.
    """

    @wrap(Route53Backend, "change_resource_record_sets")
    def change(
        _original: Any,
        self: Route53Backend,
        zoneid: str,
        change_list: list[dict[str, Any]],
    ) -> None:
        zone = self.get_hosted_zone(zoneid)
        for one in change_list:
            check(zone, one["Action"], one["ResourceRecordSet"])
        for one in change_list:
            make(zone, one["Action"], one["ResourceRecordSet"])

    @wrap(Route53, "change_resource_record_sets")
    def answer(original: Any, self: Route53) -> ActionResult:
        result = original(self)
        result.result["ChangeInfo"]["Status"] = "PENDING"
        return result


def as_record(data: dict[str, Any]) -> RecordSet:
    """The record set that a change describes."""
    values = [r["Value"] for r in data.get("ResourceRecords") or []]
    return RecordSet({**data, "ResourceRecords": values})


def found(zone: FakeZone, record: RecordSet) -> RecordSet | None:
    """The zone's record set of the same name, type and identifier."""
    for other in zone.rrsets:
        if (
            canonical(other.name) == record.name
            and other.type == record.type
            and other.set_identifier == record.set_identifier
        ):
            return other
    return None


def check(zone: FakeZone, action: str, data: dict[str, Any]) -> None:
    """Raise what Route 53 says about a change that it does not make."""
    record = as_record(data)
    name = canonical(zone.name)
    if record.name != name and not record.name.endswith("." + name):
        raise DnsNameInvalidForZone(name=record.name, zone_name=name)
    there = found(zone, record)
    described = f"[name='{record.name}', type='{record.type}']"
    if action == "CREATE" and there is not None:
        raise InvalidChangeBatch(
            f"Tried to create resource record set {described} but it already exists"
        )
    if action != "DELETE":
        return
    if there is None:
        raise InvalidChangeBatch(
            f"Tried to delete resource record set {described} but it was not found"
        )
    if contents(there) != contents(record):
        raise InvalidChangeBatch(
            f"Tried to delete resource record set {described} but the values "
            "provided do not match the current values"
        )


def contents(record: RecordSet) -> tuple[Any, ...]:
    """What has to be repeated to delete a record set."""
    target = record.alias_target
    alias = (
        (
            target["HostedZoneId"],
            canonical(target["DNSName"]),
            str(target.get("EvaluateTargetHealth", False)).lower(),
        )
        if target
        else None
    )
    ttl = None if record.ttl is None else int(record.ttl)
    return ttl, sorted(record.records or []), alias


def make(zone: FakeZone, action: str, data: dict[str, Any]) -> None:
    """Make one change that has been checked."""
    record = as_record(data)
    there = found(zone, record)
    if there is not None:
        zone.rrsets.remove(there)
    if action != "DELETE":
        zone.rrsets.append(record)
