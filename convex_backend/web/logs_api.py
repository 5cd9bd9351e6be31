"""Long polls over the function log (``http_api.md`` section 6.1)."""

from __future__ import annotations

import math

import orjson

from convex_backend.application.operations import check_operation
from convex_backend.errors import BadRequest
from convex_backend.web.route_table import RouteTable
from convex_backend.web.routing import ApiCall, Auth, Front, api_route

POLL_SECONDS = 60.0
#: Clients that print structured lines; the others get ``[LEVEL] text``.
_STRUCTURED = frozenset({"npm-cli", "dashboard"})


class LogsApi:
    """Admin only (ViewLogs)."""

    app = RouteTable()

    def __init__(self, front: Front) -> None:
        self.front = front

    @api_route(app, "/api/stream_function_logs", method="GET", auth=Auth.ADMIN)
    async def stream_function_logs(self, call: ApiCall) -> bytes:
        """Entries after ``cursor``, completions and progress."""
        return await self._read(call, call.caller.client in _STRUCTURED, completions_only=False)

    @api_route(app, "/api/app_metrics/stream_function_logs", method="GET", auth=Auth.ADMIN)
    async def dashboard_function_logs(self, call: ApiCall) -> bytes:
        """See :meth:`stream_function_logs` (section 7.1)."""
        return await self.stream_function_logs(call)

    @api_route(app, "/api/stream_udf_execution", method="GET", auth=Auth.ADMIN)
    async def stream_udf_execution(self, call: ApiCall) -> bytes:
        """Completions after ``cursor``, with lines as text."""
        return await self._read(call, structured=False, completions_only=True)

    @api_route(app, "/api/app_metrics/stream_udf_execution", method="GET", auth=Auth.ADMIN)
    async def dashboard_udf_execution(self, call: ApiCall) -> bytes:
        """See :meth:`stream_udf_execution` (section 7.1)."""
        return await self.stream_udf_execution(call)

    async def _read(self, call: ApiCall, structured: bool, *, completions_only: bool) -> bytes:
        check_operation(call.identity, "ViewLogs")
        try:
            cursor = float(call.text_arg("cursor"))
        except ValueError:
            cursor = math.nan
        if not math.isfinite(cursor) or cursor < 0:
            raise BadRequest("BadQueryArgs", "The query parameter `cursor` must be a number of milliseconds.")
        entries, newest = await self.front.application.function_log.read(
            cursor, POLL_SECONDS, structured=structured, completions_only=completions_only
        )
        return orjson.dumps({"entries": entries, "newCursor": newest})
