"""Step Functions: moto really executes state machines once told to; here is
what it gets wrong around that.
"""

import functools
import json
import logging
import threading
import uuid
from typing import Any

import boto3
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError

from . import clients
from .functions import credentials

LONGEST_TASK = 900.0
LAMBDA_ERRORS = {
    "AccessDeniedException": "Lambda.AWSLambdaException",
    "InternalFailure": "Lambda.ServiceException",
}

_executing = threading.local()
_making = threading.Lock()


def apply() -> None:
    """Patch moto."""
    from moto.stepfunctions.parser.asl.component.state.exec.state_task import (
        lambda_eval_utils,
    )
    from moto.stepfunctions.parser.models import StepFunctionsParserBackend

    # It reports every state that fails, on purpose or not, as an error of its
    # own.
    logging.getLogger("moto.stepfunctions").setLevel(logging.CRITICAL)
    _name_executions(StepFunctionsParserBackend)
    failed = lambda_eval_utils.LambdaFunctionErrorException
    for name in (
        "exec_lambda_function",
        "execute_lambda_function_integration",
    ):
        setattr(
            lambda_eval_utils,
            name,
            _with_role(getattr(lambda_eval_utils, name), failed),
        )
    lambda_eval_utils.boto_client_for = client_for


def forget() -> None:
    """Forget the sessions of machines that are gone."""
    _client.cache_clear()


def _name_executions(backend_class: Any) -> None:
    """moto names every unnamed execution "None", and then refuses the second
    one.
    """
    start = backend_class.start_execution

    @functools.wraps(start)
    def start_execution(
        self: Any,
        state_machine_arn: str,
        name: str | None = None,
        *rest: Any,
        **more: Any,
    ) -> Any:
        return start(
            self, state_machine_arn, name or str(uuid.uuid4()), *rest, **more
        )

    backend_class.start_execution = start_execution


def _with_role(task: Any, failed: type[Exception]) -> Any:
    """Run a task with the role of the machine that it belongs to.

    What Lambda itself refuses fails the task as Lambda.<code>, where moto has
    "Exception".
    """

    @functools.wraps(task)
    def run(env: Any, *rest: Any, **more: Any) -> Any:
        machine = env.states.context_object.context_object_data[
            "StateMachine"
        ]["Name"]
        _executing.caller = (env.aws_execution_details.role_arn, machine)
        try:
            return task(env, *rest, **more)
        except ClientError as failure:
            code = failure.response["Error"]["Code"]
            kind = LAMBDA_ERRORS.get(code, f"Lambda.{code}")
            document = {
                "errorType": kind,
                "errorMessage": failure.response["Error"]["Message"],
            }
            raise failed(None, json.dumps(document)) from failure

    return run


def client_for(
    region: str, service: str, state_credentials: Any = None
) -> BaseClient:
    """A client with a session of the state machine's role.

    moto's own has made-up keys, and is made anew for each task. It never has
    credentials of a state's own either.
    """
    del state_credentials
    role, machine = _executing.caller
    with _making:
        return _client(service, region, role, machine)


@functools.cache
def _client(service: str, region: str, role: str, machine: str) -> BaseClient:
    keys = credentials(role, f"states:{machine}", machine, region)
    session = boto3.Session(
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=keys["AWS_SESSION_TOKEN"],
    )
    config = Config(
        parameter_validation=False,
        retries={"total_max_attempts": 1},
        read_timeout=LONGEST_TASK,
    )
    return session.client(
        service, region_name=region, endpoint_url=clients.url(), config=config
    )
