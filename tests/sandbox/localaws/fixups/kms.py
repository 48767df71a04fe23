"""KMS: keys that are to be deleted, aliases, pages."""

from __future__ import annotations

import json
from typing import Any

from moto.core.exceptions import JsonRESTError
from moto.kms import models
from moto.kms.models import Key, KmsBackend
from moto.kms.responses import KmsResponse

from .patching import fixup, page, wrap

PENDING = "PendingDeletion"


class KMSInvalidStateException(JsonRESTError):
    """The key's state does not allow the operation."""

    code = 400

    def __init__(self, key: Key) -> None:
        super().__init__(
            "KMSInvalidStateException", f"{key.arn} is pending deletion."
        )


@fixup
def keys_pending_deletion_are_not_usable() -> None:
    """A key that waits for its deletion can be described, and little else.

    AWS: KMSInvalidStateException.  moto tags it, points aliases at it,
    schedules its deletion again and encrypts with it.
    """

    def refuse(name: str, parameter: str = "KeyId") -> None:
        @wrap(KmsResponse, name)
        def call(original: Any, self: KmsResponse) -> Any:
            key = find_key(self.kms_backend, self._get_param(parameter))
            if key is not None and key.key_state == PENDING:
                raise KMSInvalidStateException(key)
            return original(self)

    for name in (
        "tag_resource",
        "untag_resource",
        "enable_key_rotation",
        "disable_key_rotation",
        "enable_key",
        "disable_key",
        "schedule_key_deletion",
        "encrypt",
        "generate_data_key",
        "create_grant",
    ):
        refuse(name)
    refuse("create_alias", "TargetKeyId")
    refuse("update_alias", "TargetKeyId")


def find_key(backend: KmsBackend, reference: str | None) -> Key | None:
    """The key behind an id, an ARN or an alias, if there is one."""
    if not reference:
        return None
    key_id = backend.get_key_id(reference)
    if key_id not in backend.keys:
        alias = backend.get_alias_name(reference)
        key_id = next(
            (key.id for key in backend.keys.values() if alias in key.aliases), ""
        )
    return backend.keys.get(key_id)


@fixup
def scheduled_deletions_are_described() -> None:
    """ScheduleKeyDeletion answers the key's ARN, its state and the window.

    moto answers what it was given as the key's id, and fails with an error
    page for a window that AWS does not allow.
    """

    @wrap(KmsResponse, "schedule_key_deletion")
    def schedule(original: Any, self: KmsResponse) -> str:
        window = self._get_param("PendingWindowInDays") or 30
        document = json.loads(original(self))
        key = find_key(self.kms_backend, self._get_param("KeyId"))
        document["KeyId"] = key.arn if key else document["KeyId"]
        document["KeyState"] = PENDING
        document["PendingWindowInDays"] = window
        return json.dumps(document)


@fixup
def key_lists_come_in_pages() -> None:
    """ListAliases gives 50 at a time, at most 100; ListKeys 100, at most 1000.

    moto gives everything at once, whatever the limit.
    """

    def paged(name: str, key: str, default: int, most: int) -> None:
        @wrap(KmsResponse, name)
        def list_them(original: Any, self: KmsResponse) -> str:
            document = json.loads(original(self))
            size = min(int(self._get_param("Limit") or default), most)
            shown, marker = page(document[key], self._get_param("Marker"), size)
            return json.dumps(
                {
                    key: shown,
                    "Truncated": marker is not None,
                    **({"NextMarker": marker} if marker else {}),
                }
            )

    paged("list_aliases", "Aliases", 50, 100)
    paged("list_keys", "Keys", 100, 1000)
    paged("list_resource_tags", "Tags", 50, 50)


@fixup
def symmetric_keys_are_made_at_once() -> None:
    """A symmetric key has no RSA key pair; moto makes one, in 40 ms.

    Not a difference that can be seen, but one that makes a full account slow.
    """

    @wrap(models, "generate_private_key")
    def generate(original: Any, key_spec: str) -> Any:
        return None if key_spec == "SYMMETRIC_DEFAULT" else original(key_spec)
