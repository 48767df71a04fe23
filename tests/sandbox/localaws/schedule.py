"""EventBridge's scheduler, which moto has not: a tick fires every enabled
scheduled rule once.
"""

import json
import threading
import time
import uuid
from typing import Any

from . import ACCOUNT, roles

TERMINAL = ("SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED")


def tick(wait: bool = False, timeout: float = 60.0) -> list[dict[str, Any]]:
    """Fire the rules; what was started, and with `wait` how it ended."""
    from moto.events.models import events_backends

    fired: list[tuple[dict[str, Any], Any]] = []
    for region, backend in list(events_backends[ACCOUNT].items()):
        for bus in list(backend.event_buses.values()):
            for rule in list(bus.rules.values()):
                if rule.state == "ENABLED" and rule.scheduled_expression:
                    fired += [
                        _deliver(region, rule, target)
                        for target in list(rule.targets)
                    ]
    if wait:
        deadline = time.monotonic() + timeout
        for result, execution in fired:
            if execution:
                result.update(_outcome(execution, deadline))
    return [result for result, _ in fired]


def tick_every(seconds: float) -> None:
    """Tick for ever, in the background."""

    def loop() -> None:
        while True:
            time.sleep(seconds)
            tick()

    threading.Thread(target=loop, daemon=True, name="tick").start()


def _deliver(
    region: str, rule: Any, target: dict[str, Any]
) -> tuple[dict[str, Any], Any]:
    """Start one target; the second of the two is the execution, if that is
    what was started. What EventBridge may not or can not deliver it drops:
    `failed` says why.
    """
    execution = None
    result = {"rule": rule.name, "region": region, "target": target["Arn"]}
    event = target.get("Input") or json.dumps(
        {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": "Scheduled Event",
            "source": "aws.events",
            "account": ACCOUNT,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "region": region,
            "resources": [rule.arn],
            "detail": {},
        }
    )
    try:
        kind = target["Arn"].split(":")[2]
        if kind == "states":
            execution = _start_execution(region, rule, target, event)
            result["execution"] = execution.execution_arn
        elif kind == "lambda":
            _invoke_function(region, rule, target, event)
        else:
            raise NotImplementedError(
                f"the sandbox has no targets of kind {kind}"
            )
    except Exception as failure:
        result["failed"] = f"{type(failure).__name__}: {failure}"
    return result, execution


def _start_execution(
    region: str, rule: Any, target: dict[str, Any], event: str
) -> Any:
    from moto.stepfunctions.responses import get_backend

    roles.may_be_assumed(
        target.get("RoleArn"), "events.amazonaws.com", rule.arn
    )
    roles.require(target["RoleArn"], "states:StartExecution", target["Arn"])
    return get_backend(ACCOUNT, region).start_execution(
        target["Arn"], str(uuid.uuid4()), event
    )


def _invoke_function(
    region: str, rule: Any, target: dict[str, Any], event: str
) -> None:
    from moto.awslambda.utils import get_backend

    from .execapi import function_policy_allows

    backend = get_backend(ACCOUNT, region)
    function = backend.get_function(target["Arn"])
    if not function_policy_allows(function, "events.amazonaws.com", rule.arn):
        raise PermissionError(
            "the function's policy does not let EventBridge invoke it"
        )
    backend.invoke(
        target["Arn"], None, event, {"x-amz-invocation-type": "Event"}, {}
    )


def _outcome(execution: Any, deadline: float) -> dict[str, Any]:
    """How the execution ended, or its state at the deadline. The execution
    itself is asked, because its state machine may be deleted meanwhile; and
    for its status once, before all else, because it may end meanwhile.
    """
    while (status := execution.status) not in TERMINAL:
        if time.monotonic() >= deadline:
            break
        time.sleep(0.01)
    events = execution.to_history_output()["events"]
    entered = [
        event["stateEnteredEventDetails"]["name"]
        for event in events
        if "stateEnteredEventDetails" in event
    ]
    ended = status in TERMINAL
    return {
        "status": status,
        "error": execution.error if ended else None,
        "cause": execution.cause if ended else None,
        "states": entered,
        "output": execution.output if status == "SUCCEEDED" else None,
    }
