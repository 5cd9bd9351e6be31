"""``api_route``: what every API route has in common, in one decorator, so that no route can forget it.

Size comes before (``web/site.py``); here: JSON, identity, request id, client, errors, metrics. A handler takes an :class:`ApiCall` and returns
the answer's bytes, or raises a ``ConvexError``. Source: ``http_api.md`` sections 2.1 to 2.4.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
import secrets
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any, TypeAlias, TypeVar

import attrs
import orjson
from klein import Klein
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.web.http import Request

from convex_backend.application.application import Application
from convex_backend.application.keys import acting_identity, split_acting_user
from convex_backend.application.types import ANONYMOUS, Caller, Identity
from convex_backend.deferreds import InFlight
from convex_backend.errors import BadRequest, ConvexError, Forbidden, ServerFault
from convex_backend.web import cors
from convex_backend.web.content_encoding import decoded
from convex_backend.web.errors import error_body, status_of
from convex_backend.web.limits import PUSH_BYTES
from convex_backend.web.metrics import RequestMetrics

_JSON = [b"application/json"]
_SEMVER = re.compile(r"\d+\.\d+\.\d+(?:[-+][0-9A-Za-z.+-]*)?")
_REQUEST_ID = re.compile(r"[0-9A-Za-z._-]{1,64}")
_MIN_AUTH_CHARACTERS = 7
#: The newest version of each client that is no longer served (``sync.md`` section 1.1).
_UNSUPPORTED = {"npm": (0, 19, 1), "npm-cli": (0, 19, 1), "python": (0, 0, 2), "rust": (0, 0, 1)}
_log = Logger()

Handler: TypeAlias = "Callable[[Any, ApiCall], Coroutine[Deferred[Any], Any, bytes]]"
H = TypeVar("H", bound=Callable[..., Any])


class Auth(Enum):
    """Who may call a route."""

    NONE = "none"
    """Credentials are not even looked at."""
    OPTIONAL = "optional"
    ADMIN = "admin"


@attrs.define(slots=True, eq=False)
class Front:
    """What every family of routes works with."""

    application: Application
    metrics: RequestMetrics
    in_flight: InFlight
    running: set[Deferred[Any]] = attrs.field(factory=set)


@attrs.define(slots=True, eq=False)
class ApiCall:
    """One request as a handler sees it.

    :param body: the decoded JSON body, or ``None`` for a route without one.
    :param raw: the body's bytes.
    :param path: variable parts of the path.
    """

    request: Request
    identity: Identity
    caller: Caller
    body: Any
    raw: bytes
    path: dict[str, str]

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
            raise BadRequest(
                "BadJsonBody", "Failed to deserialize the JSON body into the target type: expected an object"
            )
        return self.body

    def field(self, name: str, kind: type | tuple[type, ...], what: str) -> Any:
        """A required member of the body. :raises BadRequest: ``BadJsonBody``."""
        fields = self.fields()
        if name not in fields:
            raise BadRequest(
                "BadJsonBody", f"Failed to deserialize the JSON body into the target type: missing field `{name}`"
            )
        value = fields[name]
        if not isinstance(value, kind):
            raise BadRequest(
                "BadJsonBody",
                f"Failed to deserialize the JSON body into the target type: {name}: invalid type, expected {what}",
            )
        return value


def api_route(
    app: Klein,
    path: str,
    *,
    method: str = "POST",
    auth: Auth = Auth.OPTIONAL,
    json_body: bool | None = None,
    content_type: bytes = _JSON[0],
) -> Callable[[Handler], Handler]:
    """Register a handler method.

    :param json_body: whether the body must be JSON; by default for every method but GET.
    :param content_type: of the answer.
    """
    wants_json = method != "GET" if json_body is None else json_body

    def decorate(handler: Handler) -> Handler:
        def endpoint(self: Any, request: Request, **parts: str) -> Any:
            front: Front = self.front
            work = Deferred.fromCoroutine(
                _respond(front, self, handler, request, parts, auth, wants_json, content_type)
            )
            front.running.add(work)
            work.addBoth(_forget, front.running, work)
            return work

        endpoint.__name__ = getattr(handler, "__name__", path)
        methods = [method, "HEAD"] if method == "GET" else [method]
        app.route(path, methods=methods, strict_slashes=False)(functools.wraps(handler)(endpoint))
        return handler

    return decorate


def _forget(result: Any, running: set[Deferred[Any]], work: Deferred[Any]) -> Any:
    running.discard(work)
    return result


async def _respond(
    front: Front,
    family: Any,
    handler: Handler,
    request: Request,
    parts: dict[str, str],
    auth: Auth,
    wants_json: bool,
    content_type: bytes,
) -> bytes:
    headers = request.responseHeaders
    with front.in_flight, front.metrics.timed(handler.__name__) as outcome:
        try:
            cors.allow_origin(request)
            raw = _read(request) if request.method not in (b"GET", b"HEAD") else b""
            call = make_call(front.application, request, raw, parts, auth, wants_json)
            if isinstance(call, Coroutine):
                call = await call
            body = await handler(family, call)
            headers.setRawHeaders(b"content-type", [content_type])
        except ConvexError as error:
            if isinstance(error, ServerFault):
                _log.failure("a request failed: {uri}", uri=request.path.decode("ascii", "replace"))
            outcome.code = error.code
            body = _fail(request, status_of(error), error_body(error))
        except CancelledError:
            outcome.code = "ClientDisconnected"
            raise
        except Exception:  # noqa: BLE001 - the client gets the fixed text, the log the trace
            _log.failure("a request failed: {uri}", uri=request.path.decode("ascii", "replace"))
            outcome.code = "InternalServerError"
            body = _fail(request, 500, error_body(ServerFault()))
        headers.setRawHeaders(b"content-length", [b"%d" % len(body)])
        return body if request.method != b"HEAD" else b""


def _fail(request: Request, status: int, body: bytes) -> bytes:
    request.setResponseCode(status)
    request.responseHeaders.setRawHeaders(b"content-type", _JSON)
    return body


def _read(request: Request) -> bytes:
    assert request.content is not None
    raw: bytes = request.content.read()
    encoding = request.requestHeaders.getRawHeaders(b"content-encoding")
    if encoding and encoding[0] not in (b"identity", b""):
        return decoded(raw, encoding[0].decode("ascii", "replace"), PUSH_BYTES)
    return raw


def make_call(
    application: Application, request: Request, raw: bytes, parts: dict[str, str], auth: Auth, wants_json: bool
) -> ApiCall | Coroutine[Any, Any, ApiCall]:
    """Decode the request and find out who sent it. A coroutine only where a token has to be looked up.

    :raises ConvexError: whatever of section 2.3 is wrong with it.
    """
    caller = _caller(request)
    body: Any = None
    if wants_json:
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise BadRequest("BadJsonBody", f"Failed to parse the request body as JSON: {error}") from None
    call = ApiCall(request, ANONYMOUS, caller, body, raw, parts)
    if auth is Auth.NONE:
        return call
    header = request.requestHeaders.getRawHeaders(b"authorization")
    if header is not None:
        text = _header_text(header[0])
        scheme, _, credentials = text.partition(" ")
        scheme = scheme.lower()
        if scheme == "bearer":
            return _with_token(application, call, credentials.strip(), auth)
        if scheme != "convex":
            raise BadRequest("InvalidAdminKey", "Invalid admin key")
        call.identity = _admin(application, credentials.strip())
    else:
        key = _key_elsewhere(request, body)
        if key is not None:
            call.identity = application.keys.check_admin(key)
    return _allowed(application, call, auth)


async def _with_token(application: Application, call: ApiCall, token: str, auth: Auth) -> ApiCall:
    call.identity = await application.authenticate_user(token)
    return _allowed(application, call, auth)


def _allowed(application: Application, call: ApiCall, auth: Auth) -> ApiCall:
    if auth is Auth.ADMIN and not call.identity.is_admin:
        raise Forbidden(
            "BadDeployKey",
            f"The provided deploy key was invalid for deployment '{application.settings.instance_name}'. Double check that the "
            "environment this key was generated for matches the desired deployment.",
        )
    return call


def _header_text(value: bytes) -> str:
    if len(value) < _MIN_AUTH_CHARACTERS:
        raise BadRequest("InvalidHeaderFailure", "Invalid authentication header")
    text = value.decode("latin-1")
    if not text.isascii() or not text.isprintable():
        raise BadRequest("HeaderParseFailure", "Malformed Authorization header.")
    return text


def _admin(application: Application, credentials: str) -> Identity:
    key, acting = split_acting_user(credentials)
    identity = application.keys.check_admin(key)
    if acting is None:
        return identity
    try:
        attributes = orjson.loads(base64.b64decode(acting, validate=True))
    except (binascii.Error, ValueError):
        raise BadRequest("HeaderParseFailure", "Malformed Authorization header.") from None
    if not isinstance(attributes, dict):
        raise BadRequest("HeaderParseFailure", "Malformed Authorization header.")
    return acting_identity(identity, attributes)


def _key_elsewhere(request: Request, body: Any) -> str | None:
    """The admin key as a query parameter or a body field."""
    values = request.args.get(b"adminKey")
    if values:
        return str(values[0], "utf-8", "replace")
    key = body.get("adminKey") if isinstance(body, dict) else None
    return key if isinstance(key, str) else None


def _caller(request: Request) -> Caller:
    headers = request.requestHeaders
    wanted = headers.getRawHeaders(b"convex-request-id")
    request_id = wanted[0].decode("ascii", "replace") if wanted else ""
    if not _REQUEST_ID.fullmatch(request_id):
        request_id = secrets.token_hex(8)
    named = headers.getRawHeaders(b"convex-client")
    client, version = parse_client(named[0].decode("ascii", "replace")) if named else ("unknown", None)
    agent = headers.getRawHeaders(b"user-agent")
    peer = request.getClientAddress()
    return Caller(
        "HttpApi",
        client,
        version,
        request_id,
        getattr(peer, "host", None),
        agent[0].decode("utf-8", "replace") if agent else None,
    )


@functools.lru_cache(maxsize=256)
def parse_client(text: str) -> tuple[str, str | None]:
    """``npm-cli-1.48.0`` to ``("npm-cli", "1.48.0")``: split at the first ``-`` whose rest is a version.

    :raises BadRequest: ``InvalidClientVersion``; ``ClientVersionUnsupported`` for one that is too old.
    """
    if "-" not in text:
        raise BadRequest("InvalidClientVersion", f"Failed to parse client version: {text}")
    position = text.find("-")
    while position != -1:
        rest = text[position + 1 :]
        if _SEMVER.fullmatch(rest):
            name = text[:position].lower()
            name = "python" if name == "python-convex" else name
            refuse_old(name, rest)
            return name, rest
        position = text.find("-", position + 1)
    return text.lower(), None


def refuse_old(name: str, version: str) -> None:
    """:raises BadRequest: the client is at or below the newest unsupported version."""
    limit = _UNSUPPORTED.get(name)
    if limit is not None and tuple(int(part) for part in re.split(r"[-+]", version)[0].split(".")[:3]) <= limit:
        raise BadRequest(
            "ClientVersionUnsupported",
            f"The Convex {name} client at version {version} is no longer supported. Update it and try again.",
        )
