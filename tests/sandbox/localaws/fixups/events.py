"""EventBridge: rules that exist already."""

from __future__ import annotations

from typing import Any

from moto.events.models import EventsBackend, Rule

from .patching import fixup, wrap


@fixup
def rules_keep_their_tags() -> None:
    """PutRule for a rule that exists ignores the tags it is given.

    moto changes them.
    """

    @wrap(EventsBackend, "put_rule")
    def put_rule(
        original: Any, self: EventsBackend, name: str, *args: Any, **kwargs: Any
    ) -> Rule:
        bus = self._get_event_bus(
            self._normalize_event_bus_arn(kwargs.get("event_bus_arn"))
        )
        if name in bus.rules and "tags" in kwargs:
            kwargs["tags"] = None
        return original(self, name, *args, **kwargs)
