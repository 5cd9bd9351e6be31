"""Everything under ``/http``: HTTP actions. Routed by raw path, since the user's router decides (``http_api.md`` section 4).

Running them is a piece of its own; until then the answers are those of a deployment without HTTP actions, or name what is missing.
"""

from __future__ import annotations

from typing import Any

import orjson
from twisted.web.resource import Resource

from convex_backend.application.application import Application

_METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS")
NO_HTTP_ACTIONS = b"This Convex deployment does not have HTTP actions enabled."
NOT_YET = "HTTP actions are not available in this version of convex-backend yet."


class HttpActionResource(Resource):
    """A leaf: the path below it is the user's."""

    isLeaf = True

    def __init__(self, application: Application) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._application = application

    def render(self, request: Any) -> bytes:
        """See ``IResource``."""
        if request.method not in _METHODS:
            request.setResponseCode(405)
            return b""
        body = self._answer(request)
        request.responseHeaders.setRawHeaders(b"content-length", (b"%d" % len(body),))
        return b"" if request.method == b"HEAD" else body

    def _answer(self, request: Any) -> bytes:
        if not self._application.has_http_routes():
            request.setResponseCode(404)
            request.responseHeaders.setRawHeaders(b"content-type", [b"text/plain; charset=utf-8"])
            return NO_HTTP_ACTIONS
        request.setResponseCode(500)
        request.responseHeaders.setRawHeaders(b"content-type", [b"application/json"])
        return orjson.dumps({"code": f"Server Error: {NOT_YET}", "trace": f"{NOT_YET}\n"})
