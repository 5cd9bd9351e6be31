"""Pushes: ``/api/get_config_hashes`` and ``/api/deploy2/*`` (``push.md``); deploys without the CLI, the history of pushes and the way back."""

from __future__ import annotations

import orjson

from convex_backend.application.deploy import Deploy
from convex_backend.errors import BadRequest
from convex_backend.web.route_table import RouteTable
from convex_backend.web.routing import ApiCall, Auth, Front, api_route, bad_shape

_MAX_DIGITS = 9


class DeployApi:
    """Every route takes the admin key in the header or in the body. Bodies may be compressed."""

    app = RouteTable()

    def __init__(self, front: Front) -> None:
        self.front = front

    @property
    def _deploy(self) -> Deploy:
        return self.front.application.deploy

    @api_route(app, "/api/get_config_hashes", auth=Auth.ADMIN)
    async def get_config_hashes(self, call: ApiCall) -> bytes:
        """What is deployed, for incremental uploads (section 3)."""
        return orjson.dumps(await self._deploy.get_config_hashes())

    @api_route(app, "/api/deploy2/start_push", auth=Auth.ADMIN)
    async def start_push(self, call: ApiCall) -> bytes:
        """Evaluate a push (sections 4 to 9)."""
        return orjson.dumps(await self._deploy.start_push(call.fields(), call.identity))

    @api_route(app, "/api/deploy2/evaluate_push", auth=Auth.ADMIN)
    async def evaluate_push(self, call: ApiCall) -> bytes:
        """What a push would change (section 13)."""
        return orjson.dumps(await self._deploy.evaluate_push(call.fields(), call.identity))

    @api_route(app, "/api/deploy2/evaluate_schema", auth=Auth.ADMIN)
    async def evaluate_schema(self, call: ApiCall) -> bytes:
        """What a push's schema would mean for the data (section 13)."""
        return orjson.dumps(await self._deploy.evaluate_schema(call.fields(), call.identity))

    @api_route(app, "/api/deploy2/wait_for_schema", auth=Auth.ADMIN)
    async def wait_for_schema(self, call: ApiCall) -> bytes:
        """Long poll for validation and index builds (section 10)."""
        return orjson.dumps(await self._deploy.wait_for_schema(call.fields(), call.identity))

    @api_route(app, "/api/deploy2/finish_push", auth=Auth.ADMIN)
    async def finish_push(self, call: ApiCall) -> bytes:
        """Switch to the pushed code in one commit (section 11)."""
        return orjson.dumps(await self._deploy.finish_push(call.fields(), call.identity, call.caller))

    @api_route(app, "/api/deploy", auth=Auth.ADMIN)
    async def deploy(self, call: ApiCall) -> bytes:
        """Plain modules without the CLI (``docs/deploy_api.md``)."""
        answer = await self.front.application.simple_deploy.deploy(call.fields(), call.identity, call.caller)
        return orjson.dumps(answer)

    @api_route(app, "/api/push_history", method="GET", auth=Auth.ADMIN)
    async def push_history(self, call: ApiCall) -> bytes:
        """The last finished pushes, newest first: ``?limit=``."""
        limit = call.text_arg("limit", "50")
        if not limit.isdecimal() or len(limit) > _MAX_DIGITS:
            raise BadRequest("BadQueryArgs", "The query parameter `limit` must be a number.")
        entries = await self.front.application.rollbacks.entries(call.identity, int(limit))
        return orjson.dumps({"pushes": [entry.to_json() for entry in entries]})

    @api_route(app, "/api/deployed_app", method="GET", auth=Auth.ADMIN)
    async def deployed_app(self, call: ApiCall) -> bytes:
        """What is deployed: functions, schema, routes, crons, components, variables, versions."""
        deployed = await self.front.application.deployed_app.read(call.identity)
        return orjson.dumps(deployed.to_json())

    @api_route(app, "/api/rollback", auth=Auth.ADMIN)
    async def rollback(self, call: ApiCall) -> bytes:
        """Go back to push ``{"push": number}``, without one to the push before the current."""
        number = call.fields().get("push")
        if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
            raise bad_shape("push: invalid type, expected the number of a push")
        done = await self.front.application.rollbacks.roll_back(number, call.identity, call.caller)
        return orjson.dumps({"push": done.target, "current": done.entry.to_json()})

    @api_route(app, "/api/deploy2/report_push_completed", auth=Auth.ADMIN)
    async def report_push_completed(self, call: ApiCall) -> bytes:
        """The client's timings; nothing is kept of them."""
        return b"null"
