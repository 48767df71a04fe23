"""What can be changed while the sandbox runs (POST /sandbox/settings)."""

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import Any


def is_number(value: Any) -> bool:
    """Is it one that can be waited for?"""
    of_type = isinstance(value, (int, float)) and not isinstance(value, bool)
    return of_type and math.isfinite(value) and value >= 0


KINDS = {
    bool: ("true or false", lambda value: isinstance(value, bool)),
    float: ("a number from 0 on", is_number),
    int: (
        "a whole number from 1 on",
        lambda value: is_number(value) and value >= 1 and value % 1 == 0,
    ),
    str: ("text", lambda value: isinstance(value, str)),
}


@dataclass
class Settings:
    """Every field is a key of the settings document."""

    delay_ms: float = 0
    """Each call takes this much longer; calls in flight at once overlap. The
    test's own calls are exempt.
    """
    strict: bool = False
    """Eventual consistency: what was just made is not usable everywhere at
    once.
    """
    table_seconds: float = 8
    """Under `strict`: how long a table is CREATING."""
    rates: float = 0
    """AWS's request rates for the calls that have low ones, EC2's times this;
    0: none. `strict` includes them, times 1.
    """
    check_requests: bool = True
    """Refuse requests that contradict the API's model or its limits."""
    enforce_roles: bool = True
    """Functions and state machines may do only what their role allows."""
    largest_page: int = 10_000
    """No list that comes in pages has more items in one, whatever was asked
    for: AWS, too, may give less. The test's own calls see such pages as well.
    """
    eni_linger_seconds: float = 0
    """How long a VPC function's network interfaces outlive it."""
    boot_machines: bool = False
    """Run the user data of the instances that an Auto Scaling group launches.
    """
    weka_url: str = ""
    """Whom to tell of machines, and what their `weka` asks:
    POST {url}/machines when one starts to run, POST {url}/machines/{id}/stop,
    DELETE {url}/machines/{id}, POST {url}/weka. Nobody, if empty.
    """
    boots_at_once: int = 8
    """So many machines boot at once; the others wait."""
    machine_sleep_factor: float = 0.02
    """How much of a `sleep` on a machine is really waited."""

    def update(self, values: dict[str, Any]) -> None:
        """Set the given fields, all or none; an unknown one is an error,
        because a typo would silently test nothing.
        """
        known = {field.name: field.type for field in dataclasses.fields(self)}
        for name, value in values.items():
            if name not in known:
                raise ValueError(
                    f"unknown setting {name!r}; "
                    f"there are {', '.join(sorted(known))}"
                )
            kind, fits = KINDS[known[name]]
            if not fits(value):
                raise ValueError(f"{name} is {kind}, not {value!r}")
        for name, value in values.items():
            setattr(self, name, known[name](value))

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain data."""
        return dataclasses.asdict(self)


settings = Settings()

started = time.monotonic()


def now() -> float:
    """Seconds since the sandbox started: the clock of the journal and of
    everything that ages.
    """
    return time.monotonic() - started
