"""Where moto's answers differ from AWS's, and are put right.

``apply()`` patches moto once, for the life of the process.  moto's private
parts are what is patched: its version is pinned, and ``selftest.py`` tells
for every fixup whether another version of moto still needs it.
"""

from __future__ import annotations

from . import (
    apigateway,
    autoscaling,
    awslambda,
    cloudformation,
    dynamodb,
    ec2,
    elb,
    events,
    instances,
    kms,
    route53,
    stepfunctions,
    tagging,
)
from .patching import FIXUPS

__all__ = ["AREAS", "FIXUPS", "apply"]

AREAS = (
    apigateway,
    autoscaling,
    awslambda,
    cloudformation,
    dynamodb,
    ec2,
    elb,
    events,
    instances,
    kms,
    route53,
    stepfunctions,
    tagging,
)

_applied = False


def apply() -> None:
    """Patch moto; a second call does nothing."""
    global _applied
    if _applied:
        return
    _applied = True
    for function in FIXUPS.values():
        function()
