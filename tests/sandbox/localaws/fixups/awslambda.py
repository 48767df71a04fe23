"""Lambda's resources; that functions run is the business of ``functions``."""

from __future__ import annotations

import json
from typing import Any

from moto.awslambda.exceptions import LambdaClientError
from moto.awslambda.models import LambdaBackend, LambdaFunction, LayerStorage
from moto.awslambda.responses import LambdaResponse

from .patching import fixup, page, wrap

PAGE = 50


class ResourceConflictException(LambdaClientError):
    """What is to be made exists already."""

    code = 409

    def __init__(self, message: str) -> None:
        super().__init__("ResourceConflictException", message)


@fixup
def permission_statements_are_unique() -> None:
    """AddPermission refuses a statement id that the policy has.

    AWS: ResourceConflictException.  moto adds a second statement.
    """

    @wrap(LambdaBackend, "add_permission")
    def add_permission(
        original: Any,
        self: LambdaBackend,
        function_name: str,
        qualifier: str,
        raw: str,
    ) -> dict[str, Any]:
        function = self.get_function(function_name, qualifier)
        wanted = json.loads(raw).get("StatementId")
        if any(s.get("Sid") == wanted for s in function.policy.statements):
            raise ResourceConflictException(
                f"The statement id ({wanted}) provided already exists. Please "
                "provide a new statement id, or remove the existing statement."
            )
        return original(self, function_name, qualifier, raw)


@fixup
def function_lists_come_in_pages() -> None:
    """ListFunctions, ListLayers and ListLayerVersions give 50 at a time.

    moto gives everything at once.
    """

    def paged(name: str, key: str) -> None:
        @wrap(LambdaResponse, name)
        def list_them(original: Any, self: LambdaResponse) -> str:
            document = json.loads(original(self))
            size = int(self.querystring.get("MaxItems", [PAGE])[0])
            marker = self.querystring.get("Marker", [None])[0]
            items, following = page(document[key], marker, min(size, PAGE))
            document[key] = items
            document["NextMarker"] = following
            return json.dumps(document)

    paged("list_functions", "Functions")
    paged("list_layers", "Layers")
    paged("list_layer_versions", "LayerVersions")


@fixup
def functions_log_where_they_are_told() -> None:
    """LoggingConfig is kept and answered, with its defaults.

    moto does not know it.
    """

    @wrap(LambdaFunction, "__init__")
    def init(
        original: Any, self: LambdaFunction, *args: Any, **kwargs: Any
    ) -> None:
        original(self, *args, **kwargs)
        spec = kwargs.get("spec") or next(
            (a for a in args if isinstance(a, dict)), {}
        )
        self._logging = spec.get("LoggingConfig") or {}

    @wrap(LambdaFunction, "update_configuration")
    def update(
        original: Any, self: LambdaFunction, config_updates: dict[str, Any]
    ) -> dict[str, Any]:
        if config_updates.get("LoggingConfig"):
            self._logging = config_updates["LoggingConfig"]
        return original(self, config_updates)

    @wrap(LambdaFunction, "get_configuration")
    def get_configuration(
        original: Any, self: LambdaFunction, on_create: bool = False
    ) -> dict[str, Any]:
        document = original(self, on_create)
        document["LoggingConfig"] = {
            "LogFormat": "Text",
            "LogGroup": f"/aws/lambda/{self.function_name}",
            **getattr(self, "_logging", {}),
        }
        return document


@fixup
def missing_layer_versions_are_deleted_quietly() -> None:
    """DeleteLayerVersion of what is gone succeeds.

    moto answers an error for a layer that never existed.
    """

    @wrap(LayerStorage, "delete_layer_version")
    def delete(
        original: Any, self: LayerStorage, layer_name: str, layer_version: str
    ) -> None:
        if layer_name in self._layers:
            original(self, layer_name, layer_version)


@fixup
def layer_versions_exist_for_a_function() -> None:
    """CreateFunction with an unknown layer is InvalidParameterValueException.

    moto answers ResourceNotFoundException.
    """
    from moto.awslambda.exceptions import UnknownLayerVersionException

    @wrap(LambdaFunction, "_get_layers_data")
    def get_layers(
        original: Any, self: LambdaFunction, layers_versions_arns: list[str]
    ) -> Any:
        try:
            return original(self, layers_versions_arns)
        except UnknownLayerVersionException as error:
            missing = layers_versions_arns[0] if layers_versions_arns else ""
            raise LambdaClientError(
                "InvalidParameterValueException",
                f"Layer version {missing} does not exist.",
            ) from error
