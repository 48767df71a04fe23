"""Failures on demand: rules that make chosen calls fail, hang, lose answers.

A rule is a JSON object; the first that matches a call and is due decides.

    service      botocore's name of the service, e.g. "elbv2"; "execute-api"
                 for requests to REST APIs, with the operation "Invoke"
    operation    regular expression, whole name, e.g. "Create.*"
    match        text that the request's body or path contains
    caller       regular expression searched in the caller, e.g.
                 "^app:wekactl$", "^lambda:.*-fetch" or "^instance:i-"
    mutating     true: only calls that do not merely read
    nth, count   of the matching calls from the nth on (1), so many (1; 0: all)
    each         true: of calls that are alike to the last byte only the
                 first, instead of nth and count
    probability  with this chance instead, drawn from a generator that starts
                 at `seed` (0)
    action       error       answer with code, message, status, headers
                 delay       wait `seconds`, then go on as usual
                 drop        close the connection instead of executing
                 apply_drop  execute, then close it without an answer
                 hold        wait until the rules are replaced, then go on
                 hang        never answer, nor execute
                 apply_hang  execute, then never answer
                 kill        kill the function that calls, with its process
                 apply_kill  execute, then kill the function that calls
"""

import random
import re
import threading
from dataclasses import dataclass, field
from typing import Any

from .naming import Call

ACTIONS = (
    "error",
    "delay",
    "drop",
    "apply_drop",
    "hold",
    "hang",
    "apply_hang",
    "kill",
    "apply_kill",
)


@dataclass
class Rule:
    """See the module."""

    service: str | None = None
    operation: str = ".*"
    match: str = ""
    caller: str = ""
    mutating: bool = False
    nth: int = 1
    count: int = 1
    each: bool = False
    probability: float | None = None
    seed: int = 0
    action: str = "error"
    code: str = "InternalFailure"
    message: str = "injected by the sandbox"
    status: int = 400
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 1.0
    hits: int = 0
    """How many calls it matched, and below, on how many it acted."""
    fired: int = 0

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(
                f"unknown action {self.action!r}; "
                f"there are {', '.join(ACTIONS)}"
            )
        self.generator = random.Random(self.seed)
        self.seen: set[tuple[str, str, str, bytes]] = set()

    def matches(self, call: Call, text: str) -> bool:
        """Is the call one that the rule is about?"""
        if self.service is not None and self.service != call.service:
            return False
        if self.mutating and call.reads:
            return False
        if not re.fullmatch(self.operation, call.operation):
            return False
        return (
            re.search(self.caller, call.caller) is not None
            and self.match in text
        )

    def due(self, call: Call) -> bool:
        """Count a call that matches: does the rule act on it?"""
        self.hits += 1
        if self.each:
            acts = call.alike not in self.seen
            self.seen.add(call.alike)
        elif self.probability is not None:
            acts = self.generator.random() < self.probability
        else:
            acts = self.hits >= self.nth and (
                self.count == 0 or self.hits < self.nth + self.count
            )
        self.fired += acts
        return acts

    def as_dict(self) -> dict[str, Any]:
        """The rule with its counters."""
        return {
            name: value
            for name, value in vars(self).items()
            if name not in ("generator", "seen")
        }


class Faults:
    """The rules in force."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.lock = threading.Lock()
        self.released = threading.Event()

    def set(self, rules: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
        """Replace the rules. Calls that hang end, unanswered."""
        new = [Rule(**rule) for rule in rules or []]
        with self.lock:
            self.rules = new
            self.released.set()
            self.released = threading.Event()
        return self.list()

    def list(self) -> list[dict[str, Any]]:
        """The rules with their counters."""
        return [rule.as_dict() for rule in self.rules]

    def pick(self, call: Call, text: str) -> Rule | None:
        """The rule that acts on this call. Each rule counts every call that
        reaches it.
        """
        with self.lock:
            for rule in self.rules:
                if rule.matches(call, text) and rule.due(call):
                    return rule
        return None
