"""Administration: keys, environment variables, origins; and the routes that are known and not offered yet.

A POST to an unknown route is a 404, which the CLI retries for half a minute (``http_api.md`` section 2.2): what is known but not there answers 400
at once, with the name of what is missing.
"""

from __future__ import annotations

from typing import Any

import orjson

from convex_backend.application.operations import allowed_operations, check_operation
from convex_backend.errors import BadRequest
from convex_backend.web.route_table import RouteTable
from convex_backend.web.routing import ApiCall, Auth, Front, api_route

#: Routes of the official API by the service that they belong to.
NOT_YET: dict[str, tuple[tuple[str, str], ...]] = {
    "Snapshot export": (
        ("POST", "/api/export/request/<path:rest>"),
        ("GET", "/api/export/zip/<path:rest>"),
        ("POST", "/api/export/set_expiration/<path:rest>"),
        ("POST", "/api/export/cancel/<path:rest>"),
    ),
    "Snapshot import": (
        ("POST", "/api/import/start_upload"),
        ("POST", "/api/import/upload_part"),
        ("POST", "/api/import/finish_upload"),
        ("POST", "/api/import"),
        ("POST", "/api/perform_import"),
        ("POST", "/api/cancel_import"),
    ),
    "Changing the canonical URL": (("POST", "/api/update_canonical_url"), ("POST", "/api/v1/update_canonical_url")),
    "Application metrics": (("GET", "/api/app_metrics/<path:rest>"),),
    "Streaming export": (
        ("GET", "/api/list_snapshot"),
        ("POST", "/api/list_snapshot"),
        ("GET", "/api/document_deltas"),
        ("POST", "/api/document_deltas"),
        ("GET", "/api/json_schemas"),
        ("GET", "/api/get_table_column_names"),
        ("GET", "/api/test_streaming_export_connection"),
        ("POST", "/api/data_sync_cursor_from_deltas"),
        ("POST", "/api/v1/data/sync"),
        ("GET", "/api/v1/data/list_active_syncs"),
    ),
    "Streaming import": (
        ("POST", "/api/streaming_import/<path:rest>"),
        ("GET", "/api/streaming_import/<path:rest>"),
        ("PUT", "/api/streaming_import/<path:rest>"),
    ),
    "The legacy push of old clients": (
        ("POST", "/api/push_config"),
        ("POST", "/api/prepare_schema"),
        ("POST", "/api/get_config"),
        ("GET", "/api/schema_state/<path:rest>"),
    ),
    "The OpenAPI description": (("GET", "/api/dashboard_openapi.json"), ("GET", "/api/public_openapi.json")),
    "Shapes": (("GET", "/api/shapes2"), ("GET", "/api/get_indexes")),
    "This part of the platform API": (("GET", "/api/v1/<path:rest>"), ("POST", "/api/v1/<path:rest>")),
}


class AdminApi:
    """See the top of the file."""

    app = RouteTable()

    def __init__(self, front: Front) -> None:
        self.front = front

    @api_route(app, "/api/check_admin_key", method="GET", auth=Auth.ADMIN)
    async def check_admin_key(self, call: ApiCall) -> bytes:
        """What the key of the request allows."""
        return orjson.dumps(
            {
                "success": True,
                "allowedOps": sorted(allowed_operations(call.identity)),
                "isReadOnly": call.identity.read_only,
            }
        )

    @api_route(app, "/api/v1/get_canonical_urls", method="GET", auth=Auth.ADMIN)
    async def get_canonical_urls(self, call: ApiCall) -> bytes:
        """The public origins."""
        settings = self.front.application.settings
        return orjson.dumps({"convexCloudUrl": settings.cloud_origin, "convexSiteUrl": settings.site_origin})

    @api_route(app, "/api/v1/deployment_info", method="GET", auth=Auth.ADMIN)
    async def deployment_info(self, call: ApiCall) -> bytes:
        """What kind of deployment this is."""
        return b'{"kind":"selfHosted"}'

    @api_route(app, "/api/list_environment_variables", method="GET", auth=Auth.ADMIN)
    async def list_environment_variables(self, call: ApiCall) -> bytes:
        """The user's environment variables."""
        check_operation(call.identity, "ViewEnvironmentVariables")
        return orjson.dumps({"environmentVariables": self.front.application.environment.list()})

    @api_route(app, "/api/v1/list_environment_variables", method="GET", auth=Auth.ADMIN)
    async def list_environment_variables_v1(self, call: ApiCall) -> bytes:
        """See :meth:`list_environment_variables`."""
        return await self.list_environment_variables(call)

    @api_route(app, "/api/update_environment_variables", auth=Auth.ADMIN)
    async def update_environment_variables(self, call: ApiCall) -> bytes:
        """Set and delete variables, all or none (``http_api.md`` section 6.2)."""
        check_operation(call.identity, "WriteEnvironmentVariables")
        changes: list[tuple[str, str | None]] = []
        for change in call.field("changes", list, "an array"):
            changes.append(_change(change))
        await self.front.application.environment.update(changes)
        return b""

    @api_route(app, "/api/v1/update_environment_variables", auth=Auth.ADMIN)
    async def update_environment_variables_v1(self, call: ApiCall) -> bytes:
        """See :meth:`update_environment_variables`."""
        return await self.update_environment_variables(call)

    @api_route(app, "/api/delete_tables", auth=Auth.ADMIN)
    async def delete_tables(self, call: ApiCall) -> bytes:
        """Delete tables with their documents, all or none."""
        names = call.field("tableNames", list, "an array")
        if not all(isinstance(name, str) for name in names):
            raise BadRequest("BadJsonBody", "tableNames: expected strings")
        component = call.fields().get("componentId")
        if component is not None and not isinstance(component, str):
            raise BadRequest("BadJsonBody", "componentId: expected a string or null")
        await self.front.application.deletion.delete_tables(names, component, call.identity)
        return b""

    @api_route(app, "/api/delete_component", auth=Auth.ADMIN)
    async def delete_component(self, call: ApiCall) -> bytes:
        """Delete a component that is not mounted."""
        component = call.field("componentId", str, "a string")
        await self.front.application.deletion.delete_component(component, call.identity)
        return b""


def _change(change: Any) -> tuple[str, str | None]:
    if isinstance(change, dict):
        name, value = change.get("name"), change.get("value")
        if isinstance(name, str) and (value is None or isinstance(value, str)):
            return name, value
    raise BadRequest("BadJsonBody", "changes: expected objects with a `name` and a `value` that is a string or null")


class NotYetApi:
    """Known routes whose service does not exist yet. Registered last: a route of ours goes before."""

    app = RouteTable()

    def __init__(self, front: Front) -> None:
        self.front = front


def _register(service: str, method: str, path: str) -> None:
    async def missing(self: Any, call: ApiCall) -> bytes:
        raise BadRequest("NotAvailable", f"{service} is not available in this version of convex-backend yet.")

    # The name of a route has to be unique; metrics count all of them as one.
    missing.__name__ = f"{method} {path}"
    # A wrong key is said to be wrong.
    api_route(NotYetApi.app, path, method=method, json_body=False, auth=Auth.OPTIONAL, name="not_available")(missing)


for _service, _routes in NOT_YET.items():
    for _method, _path in _routes:
        _register(_service, _method, _path)
