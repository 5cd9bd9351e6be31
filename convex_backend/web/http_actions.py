"""Everything under ``/http``: HTTP actions. Routed by raw path, since the user's router decides (``http_api.md`` section 4).

::

    GET http://cloud/http/X?q   or   GET http://site/X?q   ──►   the action sees   http://<Host>/X?q   and is routed by   /X
"""

from __future__ import annotations

import re
import secrets
from typing import Any, Final

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from convex_backend.application.run_http_action import HttpRequest
from convex_backend.application.types import Caller
from convex_backend.web.http_exchange import HttpExchange
from convex_backend.web.http_metrics import HttpActionMetrics
from convex_backend.web.routing import Front

_METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
_BODILESS: Final = frozenset((b"GET", b"HEAD", b"OPTIONS"))
_PREFIX: Final = b"/http"
_SCHEME: Final = re.compile(r"https?", re.IGNORECASE)
_FORWARDED_PROTO: Final = re.compile(r"(?:^|[;,])\s*proto\s*=\s*\"?([A-Za-z]+)", re.IGNORECASE)
#: What a URL may hold as it is; the rest of a raw target is escaped.
_UNSAFE: Final = re.compile(rb"[^\x21-\x7e]")
_MAX_AGENT_BYTES: Final = 1024


class HttpActionResource(Resource):
    """A leaf: the path below it is the user's."""

    isLeaf = True

    def __init__(self, front: Front, metrics: HttpActionMetrics) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._front = front
        self._metrics = metrics

    def render(self, request: Any) -> Any:
        """See ``IResource``."""
        if request.method not in _METHODS:
            request.setResponseCode(405)
            request.responseHeaders.setRawHeaders(b"allow", [b", ".join(sorted(_METHODS))])
            request.responseHeaders.setRawHeaders(b"content-length", [b"0"])
            return b""
        target = http_request(request, on_site=getattr(request, "on_site", False))
        HttpExchange(self._front, self._metrics, request, target, _caller(request)).start()
        return NOT_DONE_YET


def http_request(request: Any, *, on_site: bool) -> HttpRequest:
    """The request as its action sees it.

    :param on_site: it came to the site origin, where paths have no ``/http`` in front.
    """
    target = _target(request.uri)
    if not on_site:
        target = target[len(_PREFIX) :]
        if not target.startswith(b"/"):
            target = b"/" + target
    text = _UNSAFE.sub(lambda found: b"%%%02X" % found[0][0], target).decode("ascii")
    headers = [
        (name.decode("latin-1").lower(), value.decode("latin-1"))
        for name, values in request.requestHeaders.getAllRawHeaders()
        for value in values
    ]
    return HttpRequest(
        request.method.decode("ascii"),
        f"{_scheme(request)}://{_host(request)}{text}",
        text.partition("?")[0],
        headers,
        request.method not in _BODILESS,
    )


def _target(uri: bytes) -> bytes:
    """Path and query of a request target, which a proxy may send with scheme and host; a doubled slash at its start is one."""
    if uri[:7].lower() == b"http://" or uri[:8].lower() == b"https://":
        _, slash, rest = uri.partition(b"://")[2].partition(b"/")
        uri = slash + rest
    uri = uri.partition(b"#")[0]
    return b"/" + uri.lstrip(b"/") if uri[:1] in (b"/", b"") else b"/" + uri


def _scheme(request: Any) -> str:
    """As the nearest proxy says, else ``http``."""
    get = request.requestHeaders.getRawHeaders
    given = get(b"x-forwarded-proto")
    if given:
        first = given[0].decode("latin-1").partition(",")[0].strip()
    else:
        forwarded = _FORWARDED_PROTO.search((get(b"forwarded") or [b""])[0].decode("latin-1"))
        first = forwarded[1] if forwarded else ""
    return first.lower() if _SCHEME.fullmatch(first) else "http"


def _host(request: Any) -> str:
    given = request.requestHeaders.getRawHeaders(b"host")
    if given and given[0]:
        return str(given[0], "latin-1")
    address = request.getHost()
    return f"{address.host}:{address.port}"


def _caller(request: Any) -> Caller:
    agent = request.requestHeaders.getRawHeaders(b"user-agent")
    return Caller(
        "HttpEndpoint",
        "unknown",
        None,
        secrets.token_hex(8),
        getattr(request.getClientAddress(), "host", None),
        None if agent is None else agent[0][:_MAX_AGENT_BYTES].decode("utf-8", "replace"),
    )
