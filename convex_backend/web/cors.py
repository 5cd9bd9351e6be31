"""CORS of every route but ``/http/*``: any origin, credentials, mirrored headers (``http_api.md`` section 2.4)."""

from __future__ import annotations

from twisted.web.http import Request

_METHODS = b"GET, POST, OPTIONS, PATCH, DELETE, PUT"
_VARY = b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"


def allow_origin(request: Request) -> None:
    """Let the page that sent *request* read the answer. A request without ``Origin`` gets nothing."""
    origin = request.requestHeaders.getRawHeaders(b"origin")
    if origin:
        headers = request.responseHeaders
        headers.setRawHeaders(b"access-control-allow-origin", origin[:1])
        headers.setRawHeaders(b"access-control-allow-credentials", [b"true"])
        headers.setRawHeaders(b"vary", [_VARY])


def preflight(request: Request) -> None:
    """Answer an OPTIONS request: allowed, without looking at credentials."""
    allow_origin(request)
    headers = request.responseHeaders
    wanted = request.requestHeaders.getRawHeaders(b"access-control-request-headers")
    if wanted:
        headers.setRawHeaders(b"access-control-allow-headers", [b", ".join(wanted)])
    headers.setRawHeaders(b"access-control-allow-methods", [_METHODS])
    headers.setRawHeaders(b"access-control-max-age", [b"86400"])
    headers.setRawHeaders(b"content-length", [b"0"])
    request.setResponseCode(200)
    request.finish()
