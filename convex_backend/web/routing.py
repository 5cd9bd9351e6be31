"""``api_route``: what every API route has in common, in one decorator, so that no route can forget it.

::

    head ─► client, request id ─► credentials ─► body unpacked ─► JSON ─► key in the body ─► admin? ─► handler ─► bytes

Size comes before (``web/site.py``). A handler takes an :class:`ApiCall` and returns the answer's bytes, or raises a ``ConvexError``.
Source: ``http_api.md`` sections 2.1 to 2.4.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any, Final, TypeAlias

import attrs
import orjson
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import REQUEST_TIMEOUT, Request

from convex_backend.application.application import Application
from convex_backend.application.types import ANONYMOUS, Caller, Identity
from convex_backend.deferreds import InFlight
from convex_backend.errors import BadRequest, ConvexError, Overloaded, ServerFault, StorageFailed
from convex_backend.web import cors
from convex_backend.web.clients import ClientTooOld, parse_client
from convex_backend.web.content_encoding import decoded
from convex_backend.web.credentials import check_is_admin, identity_of_body, identity_of_head
from convex_backend.web.errors import error_body, status_of
from convex_backend.web.limits import body_cap
from convex_backend.web.metrics import RequestMetrics
from convex_backend.web.route_table import RouteTable

_JSON: Final = b"application/json"
_BAD_SHAPE: Final = "Failed to deserialize the JSON body into the target type: "
_REQUEST_ID: Final = re.compile(rb"[0-9A-Za-z._-]{1,64}")
_MINUS_ZERO: Final = re.compile(rb"(?<=[\[,:\s])-0(?![\d.eE])")
#: From this many characters on an integer may not fit in 64 bits and is read as a float.
_LONG_INTEGER: Final = 19
_MAX_AGENT_BYTES: Final = 1024
#: Then a request is answered with 408 and no body, and its work is cancelled (section 1).
REQUEST_SECONDS: Final = 300.0
_log = Logger()

Handler: TypeAlias = "Callable[[Any, ApiCall], Coroutine[Deferred[Any], Any, bytes]]"


class Auth(Enum):
    """Who may call a route."""

    NONE = "none"
    """Credentials are not even looked at."""
    OPTIONAL = "optional"
    """Anybody; credentials that are shown must be good."""
    ADMIN = "admin"


@attrs.define(slots=True, eq=False)
class Front:
    """What every family of routes works with.

    :param reactor: timers of requests that take too long; each ends with its request.
    :ivar in_flight: requests that wait for something; one that is answered at once is never seen here.
    :ivar running: the work of those, for giving it up.
    :ivar expired: those that have been cancelled for the time that they took, until their work has ended.
    :ivar stopping: new requests are refused.
    """

    application: Application
    metrics: RequestMetrics
    in_flight: InFlight
    reactor: IReactorTime
    running: set[Deferred[Any]] = attrs.field(factory=set)
    expired: set[Request] = attrs.field(factory=set)
    stopping: bool = False

    def enter(self, work: Deferred[Any]) -> None:
        """A request waits for *work* from now on."""
        self.in_flight.__enter__()
        self.running.add(work)

    def leave(self, work: Deferred[Any]) -> None:
        """*work* has ended."""
        self.running.discard(work)
        self.in_flight.__exit__()

    def give_up(self) -> None:
        """Cancel what is under way; each client gets 503."""
        self.stopping = True
        for work in list(self.running):
            work.cancel()


@attrs.define(slots=True, eq=False)
class ApiCall:
    """One request as a handler sees it.

    :param body: the decoded JSON body, or ``None`` for a route without one.
    :param raw: the body's bytes, unpacked.
    """

    request: Request
    identity: Identity
    caller: Caller
    body: Any
    raw: bytes

    def text_arg(self, name: str, default: str | None = None) -> str:
        """A query parameter. :raises BadRequest: ``BadQueryArgs``."""
        values = self.request.args.get(name.encode())
        if not values:
            if default is None:
                raise BadRequest("BadQueryArgs", f"Failed to deserialize query string: missing field `{name}`")
            return default
        try:
            return str(values[0], "utf-8")
        except UnicodeDecodeError:
            raise BadRequest("BadQueryArgs", f"Query parameter `{name}` is not valid UTF-8") from None

    def fields(self) -> dict[str, Any]:
        """The body as an object. :raises BadRequest: ``BadJsonBody``."""
        if not isinstance(self.body, dict):
            raise bad_shape("expected an object")
        return self.body

    def field(self, name: str, kind: type | tuple[type, ...], what: str) -> Any:
        """A required member of the body.

        :param what: the kind in words, ``an array``.
        :raises BadRequest: ``BadJsonBody``.
        """
        fields = self.fields()
        if name not in fields:
            raise bad_shape(f"missing field `{name}`")
        value = fields[name]
        if not isinstance(value, kind):
            raise bad_shape(f"{name}: invalid type, expected {what}")
        return value


def bad_shape(what: str) -> BadRequest:
    """The error of a JSON body that is not what the route takes."""
    return BadRequest("BadJsonBody", _BAD_SHAPE + what)


@attrs.frozen(slots=True, eq=False)
class _Route:
    """What :func:`api_route` was told."""

    name: str
    handler: Handler
    auth: Auth
    wants_json: bool
    content_type: bytes
    writes: bool


def api_route(
    table: RouteTable,
    path: str,
    *,
    method: str = "POST",
    auth: Auth = Auth.OPTIONAL,
    json_body: bool | None = None,
    content_type: bytes = _JSON,
    name: str | None = None,
    timed: bool = True,
    writes: bool = False,
) -> Callable[[Handler], Handler]:
    """Register a handler method. It is cancelled when the client goes away.

    :param json_body: whether the body must be JSON; by default for every method but GET.
    :param content_type: of the answer.
    :param name: of the route in metrics; by default the method's name.
    :param timed: a request may take :data:`REQUEST_SECONDS`; else as long as its bytes take.
    :param writes: the handler sends head and body itself and returns nothing; what it raises before the head is answered as ever.
    """
    wants_json = method != "GET" if json_body is None else json_body

    def decorate(handler: Handler) -> Handler:
        own_name: str = getattr(handler, "__name__", path)
        route = _Route(name or own_name, handler, auth, wants_json, content_type, writes)

        def endpoint(self: Any, request: Request, **_: str) -> bytes | Deferred[bytes]:
            front: Front = self.front
            work: Deferred[bytes] = Deferred.fromCoroutine(_respond(front, route, self, request))
            if work.called and type(answer := work.result) is bytes:
                return answer
            front.enter(work)
            timer = front.reactor.callLater(REQUEST_SECONDS, _expire, front, request, work) if timed else None
            work.addBoth(_ended, front, request, work, timer)
            return work

        methods = [method, "HEAD"] if method == "GET" else [method]
        table.add(path, methods, own_name, endpoint, auth=auth.value, json_body=wants_json)
        return handler

    return decorate


def _expire(front: Front, request: Request, work: Deferred[bytes]) -> None:
    front.expired.add(request)
    work.cancel()


def _ended(
    result: bytes | Failure, front: Front, request: Request, work: Deferred[bytes], timer: IDelayedCall | None
) -> bytes | Failure:
    if timer is not None and timer.active():
        timer.cancel()
    front.expired.discard(request)
    front.leave(work)
    return result


async def _respond(front: Front, route: _Route, family: Any, request: Request) -> bytes:
    started = time.perf_counter()
    series = front.metrics.series(route.name)
    headers = request.responseHeaders
    cors.allow_origin(request)
    call: ApiCall | None = None
    try:
        if front.stopping:
            raise stopping_error()
        call = ApiCall(request, ANONYMOUS, _caller(request), None, b"")
        if route.auth is Auth.NONE:
            _read_body(call, route)
        else:
            known = identity_of_head(front.application, request, admin_route=route.auth is Auth.ADMIN)
            if type(known) is str:
                known = await front.application.authenticate_user(known)
            if known is None:
                _read_body(call, route)
                known = identity_of_body(front.application, call.body) or ANONYMOUS
                if route.auth is Auth.ADMIN:
                    check_is_admin(front.application, known)
            else:
                if route.auth is Auth.ADMIN:
                    check_is_admin(front.application, known)  # type: ignore[arg-type]
                _read_body(call, route)
            call.identity = known  # type: ignore[assignment]
        body = await route.handler(family, call)
        if route.writes:
            series.observe(time.perf_counter() - started)
            return b""
        headers.setRawHeaders(b"content-type", (route.content_type,))
    except ConvexError as error:
        # Of a failed write the committer has told: a full disk must not fill with traces.
        if isinstance(error, ServerFault) and not isinstance(error, StorageFailed):
            _log_fault(request, call)
        series.errors += 1
        body = _fail(request, error)
    except CancelledError:
        if request.channel is None:
            # The client is gone.
            raise
        series.errors += 1
        if request in front.expired:
            request.setResponseCode(REQUEST_TIMEOUT)
            body = b""
        elif front.stopping:
            body = _fail(request, stopping_error())
        else:
            _log_fault(request, call)
            body = _fail(request, ServerFault())
    except Exception:  # noqa: BLE001 - the client gets the fixed text, the log the trace
        _log_fault(request, call)
        series.errors += 1
        body = _fail(request, ServerFault())
    if front.stopping:
        headers.setRawHeaders(b"connection", (b"close",))
    headers.setRawHeaders(b"content-length", (b"%d" % len(body),))
    series.observe(time.perf_counter() - started)
    return body if request.method != b"HEAD" else b""


def stopping_error() -> Overloaded:
    """What clients get whose request comes, or is given up, while the server stops."""
    return Overloaded("ServerStopping", "The server is stopping. Try again later.")


def send(request: Any, status: int, content_type: bytes, body: bytes) -> None:
    """Answer *request* outside of any route."""
    request.setResponseCode(status)
    headers = request.responseHeaders
    headers.setRawHeaders(b"content-type", (content_type,))
    headers.setRawHeaders(b"content-length", (b"%d" % len(body),))
    request.write(body)
    request.finish()


def _log_fault(request: Request, call: ApiCall | None) -> None:
    """Log the fault that is being handled, with the id by which whoever asked can name it."""
    request_id = secrets.token_hex(8) if call is None else call.caller.request_id
    request.responseHeaders.setRawHeaders(b"convex-request-id", (request_id.encode(),))
    _log.failure(
        "a request failed: {path} (request {request_id})",
        path=request.path.decode("ascii", "replace"),
        request_id=request_id,
    )


def _fail(request: Request, error: ConvexError) -> bytes:
    request.setResponseCode(status_of(error))
    headers = request.responseHeaders
    headers.setRawHeaders(b"content-type", (_JSON,))
    if isinstance(error, ClientTooOld):
        headers.setRawHeaders(b"x-convex-deprecation-state", (b"Unsupported",))
        headers.setRawHeaders(b"x-convex-deprecation-message", (error.message.encode("latin-1", "replace"),))
    return error_body(error)


def _read_body(call: ApiCall, route: _Route) -> None:
    """Fill in ``raw`` and ``body``. :raises BadRequest: ``BadContentEncoding``, ``BadJsonBody``. :raises TooLarge: unpacked."""
    request = call.request
    if request.method in (b"GET", b"HEAD"):
        return
    assert request.content is not None
    raw: bytes = request.content.read()
    encoding = request.requestHeaders.getRawHeaders(b"content-encoding")
    # A body that a route takes as it arrives is not here, and is nobody's to unpack.
    if encoding is not None and raw:
        raw = decoded(raw, b",".join(encoding).decode("ascii", "replace"), body_cap(request.path))
    call.raw = raw
    if route.wants_json:
        call.body = parse_json(raw)


def parse_json(raw: bytes) -> Any:
    """A JSON body as a tree that ``orjson.dumps`` prints with the same values.

    :raises BadRequest: ``BadJsonBody``.
    """
    try:
        tree = orjson.loads(raw)
        # orjson reads the token -0 as integer zero, which loses the sign.
        if b"-0" in raw and _MINUS_ZERO.search(raw):
            tree = json.loads(raw, parse_int=_integer)
    except (orjson.JSONDecodeError, RecursionError) as error:
        raise BadRequest("BadJsonBody", f"Failed to parse the request body as JSON: {error}") from None
    return tree


def _integer(text: str) -> int | float:
    return -0.0 if text == "-0" else int(text) if len(text) < _LONG_INTEGER else float(text)


def _caller(request: Request) -> Caller:
    get = request.requestHeaders.getRawHeaders
    wanted = get(b"convex-request-id")
    if wanted is not None and _REQUEST_ID.fullmatch(wanted[0]):
        request_id = wanted[0].decode("ascii")
    else:
        request_id = secrets.token_hex(8)
    named = get(b"convex-client")
    client, version = ("unknown", None) if named is None else parse_client(named[0])
    agent = get(b"user-agent")
    return Caller(
        "HttpApi",
        client,
        version,
        request_id,
        getattr(request.getClientAddress(), "host", None),
        None if agent is None else agent[0][:_MAX_AGENT_BYTES].decode("utf-8", "replace"),
    )
