"""API Gateway's REST APIs: documents, tags by ARN, pages, what is missing."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

from moto.apigateway.exceptions import (
    BadRequestException,
    ConflictException,
    NotFoundException,
    RestAPINotFound,
    UsagePlanNotFoundException,
)
from moto.apigateway.models import APIGatewayBackend, Deployment, Method, RestAPI
from moto.apigateway.responses import APIGatewayResponse
from moto.apigateway.urls import url_paths

from .patching import fixup, page, wrap

DEFAULT_PAGE, LARGEST_PAGE = 25, 500

Document = dict[str, Any]


@fixup
def api_policies_come_back_escaped_and_expanded() -> None:
    """A resource policy is answered as the text of a JSON string.

    AWS compacts it, escapes every quote, and expands the short form
    ``execute-api:/*`` to the API's ARN.  moto answers what was sent.
    """

    @wrap(RestAPI, "to_dict")
    def to_dict(original: Any, self: RestAPI) -> Document:
        document = original(self)
        if document.get("policy"):
            document["policy"] = answered_policy(self, document["policy"])
        return document


def answered_policy(api: RestAPI, policy: str) -> str:
    """The policy as AWS answers it; text that is no JSON stays as it is."""
    try:
        document = json.loads(policy)
    except ValueError:
        return policy
    prefix = f"arn:aws:execute-api:{api.region_name}:{api.account_id}:{api.id}"

    def expanded(resource: str) -> str:
        if not resource.startswith("execute-api:"):
            return resource
        return f"{prefix}/{resource.removeprefix('execute-api:').lstrip('/')}"

    statements = document.get("Statement") or []
    for statement in statements if isinstance(statements, list) else [statements]:
        resource = statement.get("Resource")
        if isinstance(resource, str):
            statement["Resource"] = expanded(resource)
        elif isinstance(resource, list):
            statement["Resource"] = [expanded(one) for one in resource]
    return json.dumps(document, separators=(",", ":")).replace('"', '\\"')


@fixup
def api_documents_are_read_wholly() -> None:
    """PutRestApi takes API keys, policy, key source and title from the body.

    moto reads paths and integrations only, and fails with an error page for
    an API that does not exist.
    """

    @wrap(APIGatewayBackend, "put_rest_api")
    def put_rest_api(
        original: Any,
        self: APIGatewayBackend,
        function_id: str,
        api_doc: Document,
        fail_on_warnings: bool,
        mode: str = "merge",
    ) -> RestAPI:
        if function_id not in self.apis:
            raise RestAPINotFound()
        api = original(
            self, function_id, api_doc, mode=mode, fail_on_warnings=fail_on_warnings
        )
        overwrite = mode == "overwrite"
        # What the root resource is called is kept in two places.
        api.root_resource_id = api.get_resource_for_path("/").id
        info = api_doc.get("info") or {}
        if overwrite and info.get("title"):
            api.name = info["title"]
        if info.get("description"):
            api.description = info["description"]
        policy = api_doc.get("x-amazon-apigateway-policy")
        if policy is not None:
            api.policy = policy if isinstance(policy, str) else json.dumps(policy)
        elif overwrite:
            api.policy = None
        source = api_doc.get("x-amazon-apigateway-api-key-source")
        if source or overwrite:
            api.api_key_source = source or "HEADER"
        set_methods(api, api_doc)
        return api


def set_methods(api: RestAPI, document: Document) -> None:
    """Which methods of an API need an API key, and their authorization."""
    components = document.get("components") or {}
    key_schemes = {
        name
        for name, scheme in (components.get("securitySchemes") or {}).items()
        if scheme.get("type") == "apiKey"
        and scheme.get("name", "").lower() == "x-api-key"
    }
    for path, operations in document["paths"].items():
        resource = api.get_resource_for_path(path)
        for verb, operation in operations.items():
            if not isinstance(operation, dict):
                continue
            method: Method = resource.resource_methods[verb.upper()]
            security = operation.get("security", document.get("security")) or []
            method.api_key_required = any(
                scheme in key_schemes for entry in security for scheme in entry
            )
            if not method.authorization_type:
                method.authorization_type = "NONE"
            # AWS takes the type in any case and answers in capitals.
            if integration := method.method_integration:
                kind = integration.integration_type
                integration.integration_type = kind and kind.upper()


@fixup
def deleting_what_is_not_there_is_not_found() -> None:
    """A missing API or usage plan is NotFoundException (404).

    moto fails with an error page.
    """

    @wrap(APIGatewayBackend, "delete_rest_api")
    def delete_rest_api(
        original: Any, self: APIGatewayBackend, function_id: str
    ) -> RestAPI:
        if function_id not in self.apis:
            raise RestAPINotFound()
        return original(self, function_id)

    @wrap(APIGatewayBackend, "delete_usage_plan")
    def delete_usage_plan(
        original: Any, self: APIGatewayBackend, usage_plan_id: str
    ) -> None:
        if usage_plan_id not in self.usage_plans:
            raise UsagePlanNotFoundException()
        original(self, usage_plan_id)

    @wrap(APIGatewayBackend, "delete_usage_plan_key")
    def delete_usage_plan_key(
        original: Any, self: APIGatewayBackend, usage_plan_id: str, key_id: str
    ) -> None:
        if key_id not in self.usage_plan_keys.get(usage_plan_id, {}):
            raise UsagePlanNotFoundException()
        original(self, usage_plan_id, key_id)


@fixup
def deleting_answers_202_and_nothing() -> None:
    """DeleteRestApi answers 202 with an empty body; moto the API with 200."""

    @wrap(APIGatewayResponse, "delete_rest_api")
    def delete(original: Any, self: APIGatewayResponse) -> Any:
        original(self)
        return 202, {"status": 202}, ""


@fixup
def usage_plans_and_their_stages_belong_together() -> None:
    """A plan's stages exist, and a plan with stages can not be deleted.

    AWS: BadRequestException; an API that is deleted leaves its plans (K).
    moto checks nothing, and a plan keeps stages of deleted APIs.
    """

    def check(backend: APIGatewayBackend, stages: list[Document]) -> None:
        for stage in stages:
            api = backend.apis.get(stage.get("apiId") or "")
            if api is None or stage.get("stage") not in api.stages:
                raise BadRequestException(
                    f"API Stage not found: {stage.get('apiId')}:{stage.get('stage')}"
                )

    @wrap(APIGatewayBackend, "create_usage_plan")
    def create(original: Any, self: APIGatewayBackend, payload: Document) -> Any:
        check(self, payload.get("apiStages") or [])
        return original(self, payload)

    @wrap(APIGatewayBackend, "update_usage_plan")
    def update(
        original: Any,
        self: APIGatewayBackend,
        usage_plan_id: str,
        patch_operations: list[Document],
    ) -> Any:
        plan = self.usage_plans.get(usage_plan_id)
        for change in patch_operations if plan else ():
            if change["path"] != "/apiStages" or not change.get("value"):
                continue
            api, _, stage = change["value"].partition(":")
            known = {"apiId": api, "stage": stage}
            if change["op"] == "add":
                check(self, [known])
                if any(known.items() <= s.items() for s in plan.api_stages):
                    raise ConflictException(
                        f"Usage plan already includes API stage {change['value']}"
                    )
            if change["op"] == "remove" and not any(
                known.items() <= s.items() for s in plan.api_stages
            ):
                raise NotFoundException(f"API Stage not found: {change['value']}")
        return original(self, usage_plan_id, patch_operations)

    @wrap(APIGatewayBackend, "delete_usage_plan")
    def delete(
        original: Any, self: APIGatewayBackend, usage_plan_id: str
    ) -> None:
        plan = self.usage_plans.get(usage_plan_id)
        if plan is not None and plan.api_stages:
            raise BadRequestException(
                "Cannot delete usage plan because there are associated API stages."
            )
        original(self, usage_plan_id)
        self.usage_plan_keys.pop(usage_plan_id, None)

    @wrap(APIGatewayBackend, "delete_rest_api")
    def delete_api(
        original: Any, self: APIGatewayBackend, function_id: str
    ) -> RestAPI:
        api = original(self, function_id)
        for plan in self.usage_plans.values():
            plan.api_stages = [
                stage
                for stage in plan.api_stages
                if stage.get("apiId") != function_id
            ]
        return api

    @wrap(APIGatewayBackend, "delete_api_key")
    def delete_key(
        original: Any, self: APIGatewayBackend, api_key_id: str
    ) -> None:
        original(self, api_key_id)
        for keys in self.usage_plan_keys.values():
            keys.pop(api_key_id, None)


@fixup
def a_key_is_in_a_plan_once() -> None:
    """CreateUsagePlanKey refuses a key that the plan has, and a missing plan.

    AWS: ConflictException, NotFoundException.  moto takes both.
    """

    @wrap(APIGatewayBackend, "create_usage_plan_key")
    def create(
        original: Any,
        self: APIGatewayBackend,
        usage_plan_id: str,
        payload: Document,
    ) -> Any:
        if usage_plan_id not in self.usage_plans:
            raise UsagePlanNotFoundException()
        if payload["keyId"] in self.usage_plan_keys.get(usage_plan_id, {}):
            raise ConflictException(
                f"This Api Key is already part of the usage plan {usage_plan_id}"
            )
        return original(self, usage_plan_id, payload)


@fixup
def deployments_in_use_are_not_deleted() -> None:
    """DeleteDeployment refuses what a stage points at.

    moto looks at the stage that the deployment was made for instead.
    """

    @wrap(RestAPI, "delete_deployment")
    def delete(original: Any, self: RestAPI, deployment_id: str) -> Deployment:
        if any(s.deployment_id == deployment_id for s in self.stages.values()):
            raise BadRequestException(
                "Active stages pointing to this deployment must be moved or deleted"
            )
        if deployment_id in self.deployments:
            self.deployments[deployment_id].stage_name = None
        return original(self, deployment_id)


@fixup
def api_stages_need_their_deployment() -> None:
    """CreateStage and UpdateStage refuse an unknown deployment.

    AWS: BadRequestException / NotFoundException.  moto takes any text.
    """

    @wrap(APIGatewayBackend, "create_stage")
    def create(
        original: Any,
        self: APIGatewayBackend,
        function_id: str,
        stage_name: str,
        deployment_id: str,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        api = self.get_rest_api(function_id)
        if deployment_id not in api.deployments:
            raise BadRequestException(
                "Deployment id does not exist"
            )
        return original(
            self, function_id, stage_name, deployment_id, *args, **kwargs
        )

    @wrap(APIGatewayBackend, "update_stage")
    def update(
        original: Any,
        self: APIGatewayBackend,
        function_id: str,
        stage_name: str,
        patch_operations: list[Document],
    ) -> Any:
        api = self.get_rest_api(function_id)
        for change in patch_operations:
            if (
                change["path"] == "/deploymentId"
                and change.get("value") not in api.deployments
            ):
                raise NotFoundException("Invalid Deployment identifier specified")
        return original(self, function_id, stage_name, patch_operations)


@fixup
def everything_of_an_api_is_tagged_by_arn() -> None:
    """TagResource works for APIs, stages, API keys and usage plans.

    moto takes every ARN for that of a stage, and routes no other.
    """

    def tagged(response: APIGatewayResponse) -> Any:
        arn = unquote(response.path.split("/tags/")[1])
        kind, *ids = arn.partition("::/")[2].split("/")
        backend = response.backend
        if kind == "restapis" and len(ids) == 3 and ids[1] == "stages":
            return backend.get_stage(ids[0], ids[2])
        if kind == "restapis":
            return backend.get_rest_api(ids[0])
        if kind == "apikeys":
            return backend.get_api_key(ids[0])
        if kind == "usageplans":
            return backend.get_usage_plan(ids[0])
        raise NotFoundException(f"Invalid resource ARN specified: {arn}")

    def get_tags(self: APIGatewayResponse) -> str:
        return json.dumps({"tags": tagged(self).tags or {}})

    def tag_resource(self: APIGatewayResponse) -> Any:
        owner = tagged(self)
        owner.tags = {**(owner.tags or {}), **(self._get_param("tags") or {})}
        return 204, {"status": 204}, ""

    def untag_resource(self: APIGatewayResponse) -> Any:
        owner = tagged(self)
        gone = self.querystring.get("tagKeys") or []
        owner.tags = {k: v for k, v in (owner.tags or {}).items() if k not in gone}
        return 204, {"status": 204}, ""

    url_paths["{0}/tags/(?P<resourceArn>.+)$"] = APIGatewayResponse.dispatch
    APIGatewayResponse.get_tags = get_tags
    APIGatewayResponse.tag_resource = tag_resource
    APIGatewayResponse.untag_resource = untag_resource


@fixup
def api_lists_come_in_pages() -> None:
    """Every list gives 25 items, or up to ``limit`` 500, and a position.

    moto gives everything, whatever the limit.
    """

    def paged(name: str) -> None:
        @wrap(APIGatewayResponse, name)
        def get(original: Any, self: APIGatewayResponse) -> Any:
            answer = original(self)
            text = answer if isinstance(answer, str) else answer[2]
            document = json.loads(text)
            limit = int(self.querystring.get("limit", [DEFAULT_PAGE])[0])
            position = self.querystring.get("position", [None])[0]
            items, following = page(
                document["item"], position, min(limit, LARGEST_PAGE)
            )
            document["item"] = items
            if following:
                document["position"] = following
            return json.dumps(document)

    for name in (
        "get_rest_apis",
        "get_api_keys",
        "get_usage_plans",
        "get_usage_plan_keys",
        "get_resources",
        "get_deployments",
    ):
        paged(name)


@fixup
def methods_are_embedded_only_when_asked() -> None:
    """GetResources shows methods only with ``embed=methods``.

    Without it AWS answers the verbs, each with an empty description.
    """

    @wrap(APIGatewayResponse, "get_resources")
    def get_resources(original: Any, self: APIGatewayResponse) -> str:
        document = json.loads(original(self))
        if "methods" not in self.querystring.get("embed", []):
            for item in document["item"]:
                if item.get("resourceMethods"):
                    item["resourceMethods"] = dict.fromkeys(
                        item["resourceMethods"], {}
                    )
        return json.dumps(document)


@fixup
def api_endpoints_have_an_address_type() -> None:
    """An API says whether it is reached by ipv4 only or dualstack.

    moto answers the endpoint configuration without ``ipAddressType``; AWS
    answers ipv4, and dualstack for a private API.
    """

    @wrap(RestAPI, "to_dict")
    def to_dict(original: Any, self: RestAPI) -> Document:
        document = original(self)
        configuration = dict(document["endpointConfiguration"] or {})
        types = configuration.get("types") or ["EDGE"]
        private = "PRIVATE" in types
        configuration.setdefault("ipAddressType", "dualstack" if private else "ipv4")
        document["endpointConfiguration"] = configuration
        return document
