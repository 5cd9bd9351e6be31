"""Routes about the server itself, without credentials (``http_api.md`` section 1)."""

from __future__ import annotations

import orjson

from convex_backend.web.route_table import RouteTable
from convex_backend.web.routing import ApiCall, Auth, Front, api_route

_TEXT = b"text/plain; charset=utf-8"
BANNER = b"This convex-backend deployment is running. See README.rst for how to push an app to it.\n"


class MetaApi:
    """See the top of the file."""

    app = RouteTable()

    def __init__(self, front: Front) -> None:
        self.front = front

    @api_route(app, "/", method="GET", auth=Auth.NONE, content_type=_TEXT)
    async def banner(self, call: ApiCall) -> bytes:
        """For people and health checks."""
        return BANNER

    @api_route(app, "/version", method="GET", auth=Auth.NONE, content_type=_TEXT)
    async def version(self, call: ApiCall) -> bytes:
        """The server's version."""
        return self.front.application.settings.version.encode()

    @api_route(app, "/instance_version", method="GET", auth=Auth.NONE, content_type=_TEXT)
    async def instance_version(self, call: ApiCall) -> bytes:
        """The server's version."""
        return self.front.application.settings.version.encode()

    @api_route(app, "/instance_name", method="GET", auth=Auth.NONE, content_type=_TEXT)
    async def instance_name(self, call: ApiCall) -> bytes:
        """The deployment's name."""
        return self.front.application.settings.instance_name.encode()

    @api_route(app, "/.well-known/jwks.json", method="GET", auth=Auth.NONE)
    async def key_set(self, call: ApiCall) -> bytes:
        """The public keys behind ``ctx.auth.signJwt``."""
        call.request.responseHeaders.setRawHeaders(b"cache-control", (b"public, max-age=300",))
        return orjson.dumps(await self.front.application.signing_keys.key_set())

    @api_route(app, "/echo", json_body=False, auth=Auth.NONE, content_type=b"application/octet-stream")
    async def echo(self, call: ApiCall) -> bytes:
        """The body, for ``convex network-test``."""
        return call.raw

    @api_route(app, "/metrics", method="GET", auth=Auth.NONE, content_type=b"text/plain; version=0.0.4; charset=utf-8")
    async def metrics(self, call: ApiCall) -> bytes:
        """Prometheus text."""
        return self.front.metrics.exposition()
