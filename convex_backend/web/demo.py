"""The demo's page and its files, when the server was started with ``--demo``: everything from here, no other host is asked for anything."""

from __future__ import annotations

from typing import Final

from convex_backend.errors import NotFound
from convex_backend.web.route_table import RouteTable
from convex_backend.web.routing import ApiCall, Auth, Front, api_route

_HTML: Final = b"text/html; charset=utf-8"
_SCRIPT: Final = b"text/javascript; charset=utf-8"
_STYLE: Final = b"text/css; charset=utf-8"
#: Nothing but our own files, and the live socket of the same origin.
_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class DemoApi:
    """See the top of the file."""

    app = RouteTable()

    def __init__(self, front: Front) -> None:
        self.front = front

    @api_route(app, "/demo", method="GET", auth=Auth.NONE, content_type=_HTML)
    async def page(self, call: ApiCall) -> bytes:
        """The page."""
        return self._file(call, "")

    @api_route(app, "/demo/page.js", method="GET", auth=Auth.NONE, content_type=_SCRIPT)
    async def script(self, call: ApiCall) -> bytes:
        """The page's own script."""
        return self._file(call, "page.js")

    @api_route(app, "/demo/convex.js", method="GET", auth=Auth.NONE, content_type=_SCRIPT)
    async def client(self, call: ApiCall) -> bytes:
        """npm's client, bundled when this package was built."""
        return self._file(call, "convex.js")

    @api_route(app, "/demo/style.css", method="GET", auth=Auth.NONE, content_type=_STYLE)
    async def style(self, call: ApiCall) -> bytes:
        """How it looks."""
        return self._file(call, "style.css")

    def _file(self, call: ApiCall, name: str) -> bytes:
        content = self.front.application.demo.page(name)
        if content is None:
            raise NotFound(
                "DemoNotRunning", "There is no demo here: start the server with --demo, with nothing deployed."
            )
        headers = call.request.responseHeaders
        headers.setRawHeaders(b"content-security-policy", (_POLICY,))
        headers.setRawHeaders(b"cache-control", (b"no-cache",))
        headers.setRawHeaders(b"x-content-type-options", (b"nosniff",))
        headers.setRawHeaders(b"referrer-policy", (b"no-referrer",))
        return content
