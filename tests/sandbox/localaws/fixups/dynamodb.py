"""DynamoDB: what DescribeTable says about encryption and deletion."""

from __future__ import annotations

from typing import Any

from moto.core.exceptions import JsonRESTError
from moto.core.responses import ActionResult
from moto.dynamodb.models.table import Table
from moto.dynamodb.responses import DynamoHandler
from moto.kms.models import kms_backends

from .kms import find_key
from .patching import fixup, wrap


@fixup
def tables_name_their_key_by_its_arn() -> None:
    """SSEDescription has the ARN of the key, however the request named it.

    moto repeats the request: an id, or an alias.
    """

    @wrap(Table, "describe")
    def describe(
        original: Any, self: Table, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        document = original(self, *args, **kwargs)
        for part in document.values():
            sse = part.get("SSEDescription") if isinstance(part, dict) else None
            if sse:
                key = find_key(
                    kms_backends[self.account_id][self.region_name],
                    sse.get("KMSMasterKeyArn"),
                )
                if key is not None:
                    sse["KMSMasterKeyArn"] = key.arn
        return document


@fixup
def deleted_tables_are_deleting() -> None:
    """DeleteTable answers the table as DELETING; moto as ACTIVE."""

    @wrap(DynamoHandler, "delete_table")
    def delete_table(original: Any, self: DynamoHandler) -> ActionResult:
        result = original(self)
        for part in result.result.values():
            if isinstance(part, dict) and "TableStatus" in part:
                part["TableStatus"] = "DELETING"
        return result


@fixup
def tables_need_a_key_that_works() -> None:
    """CreateTable refuses a key that is not there, or is to be deleted.

    AWS: ValidationException.  moto takes any text.
    """
    from moto.dynamodb.models import DynamoDBBackend

    @wrap(DynamoDBBackend, "create_table")
    def create_table(
        original: Any, self: DynamoDBBackend, name: str, *args: Any, **kwargs: Any
    ) -> Table:
        specification = kwargs.get("sse_specification") or {}
        reference = specification.get("KMSMasterKeyId")
        if reference and not reference.startswith("alias/aws/"):
            backend = kms_backends[self.account_id][self.region_name]
            key = find_key(backend, reference)
            if key is None or not key.enabled:
                raise JsonRESTError(
                    "ValidationException",
                    "One or more parameter values were invalid: KMS key "
                    f"{reference} does not exist or is not enabled",
                )
        return original(self, name, *args, **kwargs)
