"""Step Functions: creating what exists."""

from __future__ import annotations

import json
from typing import Any

from moto.core.exceptions import AWSError
from moto.stepfunctions.models import StateMachine, StepFunctionBackend

from .patching import fixup, wrap


class StateMachineAlreadyExists(AWSError):
    """There is a state machine of this name that differs."""

    TYPE = "StateMachineAlreadyExists"
    STATUS = 400


@fixup
def state_machines_are_not_made_twice() -> None:
    """CreateStateMachine with another definition is refused.

    AWS compares definition, type, logging, tracing and encryption (role and
    tags it ignores).  moto gives the existing machine back, whatever was
    asked for.
    """

    @wrap(StepFunctionBackend, "create_state_machine")
    def create(
        original: Any,
        self: StepFunctionBackend,
        name: str,
        definition: str,
        *args: Any,
        **kwargs: Any,
    ) -> StateMachine:
        for machine in self.state_machines:
            if machine.name != name:
                continue
            if (
                parsed(machine.definition) != parsed(definition)
                or (kwargs.get("sm_type") or "STANDARD")
                != (getattr(machine, "sm_type", None) or "STANDARD")
            ):
                raise StateMachineAlreadyExists(
                    f"State Machine Already Exists: '{machine.arn}'"
                )
        return original(self, name, definition, *args, **kwargs)


def parsed(definition: str) -> Any:
    """The definition as data; what is no JSON stays text."""
    try:
        return json.loads(definition)
    except ValueError:
        return definition
