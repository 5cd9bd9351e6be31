"""CORS of every route but ``/http/*``: any origin, credentials, mirrored headers (``http_api.md`` section 2.4)."""

from __future__ import annotations

from typing import Final

from twisted.web.http import Request

_METHODS: Final = b"GET, POST, OPTIONS, PATCH, DELETE, PUT"
_VARY: Final = (b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers",)


def allow_origin(request: Request) -> None:
    """Let the page that sent *request* read the answer. Caches are told even when no page did."""
    headers = request.responseHeaders
    headers.setRawHeaders(b"vary", _VARY)
    origin = request.requestHeaders.getRawHeaders(b"origin")
    if origin is not None:
        headers.setRawHeaders(b"access-control-allow-origin", origin[:1])
        headers.setRawHeaders(b"access-control-allow-credentials", (b"true",))


def preflight(request: Request) -> None:
    """Answer an OPTIONS request: allowed, without looking at credentials."""
    allow_origin(request)
    headers = request.responseHeaders
    wanted = request.requestHeaders.getRawHeaders(b"access-control-request-headers")
    if wanted is not None:
        headers.setRawHeaders(b"access-control-allow-headers", (b", ".join(wanted),))
    headers.setRawHeaders(b"access-control-allow-methods", (_METHODS,))
    headers.setRawHeaders(b"access-control-max-age", (b"86400",))
    headers.setRawHeaders(b"content-length", (b"0",))
    request.setResponseCode(200)
    request.finish()
