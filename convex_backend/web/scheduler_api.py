"""Administration of scheduled functions, and pausing. Source: ``http_api.md`` sections 7 and 12."""

from __future__ import annotations

from typing import Any

from convex_backend.application.job_admin import WantedJobs
from convex_backend.web.route_table import RouteTable
from convex_backend.web.routing import ApiCall, Auth, Front, api_route, bad_shape


class SchedulerApi:
    """See the top of the file. Answers of success are empty."""

    app = RouteTable()

    def __init__(self, front: Front) -> None:
        self.front = front

    @api_route(app, "/api/cancel_job", auth=Auth.ADMIN)
    async def cancel_job(self, call: ApiCall) -> bytes:
        """Cancel one scheduled function."""
        job = call.field("id", str, "a string")
        await self.front.application.job_admin.cancel(job, _text(call, "componentId"), call.identity)
        return b""

    @api_route(app, "/api/cancel_all_jobs", auth=Auth.ADMIN)
    async def cancel_all_jobs(self, call: ApiCall) -> bytes:
        """Cancel all scheduled functions, or those of one function, or of some time."""
        wanted = WantedJobs(
            _text(call, "componentId"),
            _text(call, "componentPath"),
            _text(call, "udfPath"),
            _nanoseconds(call, "startNextTs"),
            _nanoseconds(call, "endNextTs"),
        )
        await self.front.application.job_admin.cancel_all(wanted, call.identity)
        return b""

    @api_route(app, "/api/delete_scheduled_functions_table", auth=Auth.ADMIN)
    async def delete_scheduled_functions_table(self, call: ApiCall) -> bytes:
        """Delete all scheduled functions of a component."""
        await self.front.application.job_admin.delete_all(_text(call, "componentId"), call.identity)
        return b""

    @api_route(app, "/api/v1/pause_deployment", auth=Auth.ADMIN, json_body=False)
    async def pause_deployment(self, call: ApiCall) -> bytes:
        """Refuse users' functions from here on."""
        await self.front.application.job_admin.pause(call.identity)
        return b""

    @api_route(app, "/api/v1/unpause_deployment", auth=Auth.ADMIN, json_body=False)
    async def unpause_deployment(self, call: ApiCall) -> bytes:
        """Let users' functions run again."""
        await self.front.application.job_admin.resume(call.identity)
        return b""


def _text(call: ApiCall, name: str) -> str | None:
    value: Any = call.fields().get(name)
    if value is not None and type(value) is not str:
        raise bad_shape(f"{name}: invalid type, expected a string")
    return value


def _nanoseconds(call: ApiCall, name: str) -> int | None:
    value: Any = call.fields().get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or not abs(value) < 2**63:
        raise bad_shape(f"{name}: invalid type, expected a number of nanoseconds")
    return int(value)
