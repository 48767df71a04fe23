"""Step Functions: creating what exists, and how executions end."""

from __future__ import annotations

import copy
import json
from typing import Any

from moto.core.exceptions import AWSError
from moto.stepfunctions.models import StateMachine, StepFunctionBackend
from moto.stepfunctions.parser.backend.execution import (
    BaseExecutionWorkerCommunication,
)

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


@fixup
def executions_end_at_once() -> None:
    """An execution that has ended has its output, or its error and cause.

    moto sets the status first and these after it, in the execution's own
    thread: who asks in between sees a failure without a reason.
    """

    @wrap(BaseExecutionWorkerCommunication, "_reflect_execution_status")
    def reflect(
        original: Any, self: BaseExecutionWorkerCommunication
    ) -> None:
        execution = self.execution
        self.execution = ended = copy.copy(execution)
        try:
            original(self)
        finally:
            self.execution = execution
        for name in ("stop_date", "output", "error", "cause", "exec_status"):
            setattr(execution, name, getattr(ended, name))


def parsed(definition: str) -> Any:
    """The definition as data; what is no JSON stays text."""
    try:
        return json.loads(definition)
    except ValueError:
        return definition
