"""Messages of the sync protocol: client messages parsed strictly, server messages printed as JSON bytes.

::

    client ──► Connect | ModifyQuerySet | Mutation | Action | Authenticate | Event
    client ◄── Transition | TransitionChunk | MutationResponse | ActionResponse | AuthError | FatalError | Ping

Source: ``sync.md`` sections 2, 3 and 4.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import attrs
import orjson

from convex_backend.application.types import CallResult, QuerySpec
from convex_backend.errors import BadRequest
from convex_backend.values.json_codec import compact
from convex_backend.values.paths import FunctionPath

PING: Final = b'{"type":"Ping"}'
#: Larger Transitions go to npm >= 1.28.0 in chunks of at most as many UTF-8 bytes (``sync.md`` section 4.5).
CHUNK_BYTES: Final = 5_000_000

_MAX_U32: Final = 2**32 - 1
_MAX_TS: Final = 2**63 - 1
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# The integer token -0, which the fast parser reads as 0; it may also be in a text, where it does no harm.
_NEGATIVE_ZERO: Final = re.compile(rb"-0\s*[,\]}]")
_TEXT_ATTRIBUTES: Final = frozenset(
    (
        *("tokenIdentifier", "issuer", "subject", "name", "givenName", "familyName", "nickname", "preferredUsername"),
        *("profileUrl", "pictureUrl", "websiteUrl", "email", "gender", "birthday", "timezone", "language"),
        *("phoneNumber", "address", "updatedAt"),
    )
)
_FLAG_ATTRIBUTES: Final = frozenset(("emailVerified", "phoneNumberVerified"))


class InvalidMessage(BadRequest):
    """A message that is not one of the protocol; the connection ends with a ``FatalError``."""

    def __init__(self, detail: str) -> None:
        super().__init__("InvalidMessage", f"Received Invalid JSON on websocket: {detail}")


@attrs.frozen(slots=True)
class Connect:
    """``sync.md`` section 2.1.

    :param session_id: lower-case hyphenated UUID.
    :param max_observed_ts: newest timestamp (ns) that the client has seen, or ``None``.
    :param client_ts: the client's clock in ms, or ``None``.
    """

    session_id: str
    max_observed_ts: int | None
    client_ts: int | None


@attrs.frozen(slots=True)
class Add:
    """Subscribe to a query under an id that the client chose."""

    query_id: int
    query: QuerySpec


@attrs.frozen(slots=True)
class Remove:
    """Unsubscribe."""

    query_id: int


@attrs.frozen(slots=True)
class ModifyQuerySet:
    """``sync.md`` section 2.2."""

    base_version: int
    new_version: int
    modifications: tuple[Add | Remove, ...]


@attrs.frozen(slots=True)
class Request:
    """A ``Mutation`` or an ``Action`` (``sync.md`` sections 2.3, 2.4). ``args`` is JSON text of the argument array."""

    request_id: int
    path: str
    args: bytes
    component_path: str | None


@attrs.frozen(slots=True)
class Mutation(Request):
    """Run one at a time, in order."""


@attrs.frozen(slots=True)
class Action(Request):
    """Run at once, beside everything else."""


@attrs.frozen(slots=True)
class Authenticate:
    """``sync.md`` section 2.5.

    :param token_type: ``User``, ``Admin`` or ``None``.
    :param value: JWT or admin key; empty for ``None``.
    :param acting_as: attributes of the user that an admin acts as, or ``None``.
    """

    base_version: int
    token_type: str
    value: str = attrs.field(repr=False)
    acting_as: dict[str, object] | None = attrs.field(repr=False)


@attrs.frozen(slots=True)
class Event:
    """Telemetry; never answered."""


ClientMessage = Connect | ModifyQuerySet | Mutation | Action | Authenticate | Event


def parse(payload: bytes) -> ClientMessage:
    """Parse one client message.

    :raises InvalidMessage: not JSON, unknown type, a field missing, of the wrong type or out of range.
    """
    try:
        tree = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise InvalidMessage(str(error)) from None
    if b"-0" in payload and _NEGATIVE_ZERO.search(payload):
        tree = _reparse(payload)
    if type(tree) is not dict:
        raise InvalidMessage("expected an object")
    kind = tree.get("type")
    parser = _PARSERS.get(kind) if type(kind) is str else None
    if parser is None:
        if kind is None:
            raise InvalidMessage("missing field `type`")
        raise InvalidMessage(f"unknown variant `{kind}`, expected one of `{'`, `'.join(_PARSERS)}`")
    return parser(tree)  # type: ignore[no-any-return]


def _reparse(payload: bytes) -> Any:
    """Parse again, with the integer -0 as the float -0.0."""
    try:
        return json.loads(payload, parse_int=lambda token: -0.0 if token == "-0" else int(token))
    except (ValueError, RecursionError):
        raise InvalidMessage("numbers are too long or values nest too deep") from None


def _field(tree: dict[str, Any], name: str) -> Any:
    try:
        return tree[name]
    except KeyError:
        raise InvalidMessage(f"missing field `{name}`") from None


def _u32(tree: dict[str, Any], name: str) -> int:
    value = _field(tree, name)
    if type(value) is not int or not 0 <= value <= _MAX_U32:
        raise InvalidMessage(f"invalid value for `{name}`: expected u32")
    return value


def _text(tree: dict[str, Any], name: str) -> str:
    value = _field(tree, name)
    if type(value) is not str:
        raise InvalidMessage(f"invalid type for `{name}`: expected a string")
    return value


def _optional_text(tree: dict[str, Any], name: str) -> str | None:
    value = tree.get(name)
    if value is not None and type(value) is not str:
        raise InvalidMessage(f"invalid type for `{name}`: expected a string")
    return value


def _path(tree: dict[str, Any]) -> str:
    text = _text(tree, "udfPath")
    try:
        FunctionPath.parse(text)
    except BadRequest as error:
        raise InvalidMessage(error.message) from None
    return text


def _args(tree: dict[str, Any]) -> bytes:
    args = _field(tree, "args")
    if type(args) is not list:
        raise InvalidMessage("invalid type for `args`: expected a sequence")
    try:
        # Kept for as long as the subscription.
        return compact(orjson.dumps(args))
    except TypeError:
        # The fast printer stops at 254 levels; what is wrong with such arguments is said by the function call.
        return json.dumps(args, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _connect(tree: dict[str, Any]) -> Connect:
    session = _text(tree, "sessionId")
    if not _UUID.fullmatch(session):
        raise InvalidMessage("invalid value for `sessionId`: expected a UUID")
    _u32(tree, "connectionCount")
    _optional_text(tree, "lastCloseReason")
    client_ts = tree.get("clientTs")
    if client_ts is not None and (type(client_ts) is not int or not -(2**63) <= client_ts < 2**63):
        raise InvalidMessage("invalid value for `clientTs`: expected i64")
    observed = _optional_text(tree, "maxObservedTimestamp")
    return Connect(session.lower(), None if observed is None else decode_ts(observed), client_ts)


def _modify_query_set(tree: dict[str, Any]) -> ModifyQuerySet:
    base, new, modifications = _u32(tree, "baseVersion"), _u32(tree, "newVersion"), _field(tree, "modifications")
    if type(modifications) is not list:
        raise InvalidMessage("invalid type for `modifications`: expected a sequence")
    return ModifyQuerySet(base, new, tuple([_modification(item) for item in modifications]))


def _modification(tree: Any) -> Add | Remove:
    if type(tree) is not dict:
        raise InvalidMessage("invalid type in `modifications`: expected an object")
    kind = _text(tree, "type")
    if kind == "Add":
        query = QuerySpec(
            _path(tree), _args(tree), _optional_text(tree, "journal"), _optional_text(tree, "componentPath")
        )
        return Add(_u32(tree, "queryId"), query)
    if kind == "Remove":
        return Remove(_u32(tree, "queryId"))
    raise InvalidMessage(f"unknown variant `{kind}`, expected `Add` or `Remove`")


def _mutation(tree: dict[str, Any]) -> Mutation:
    return Mutation(_u32(tree, "requestId"), _path(tree), _args(tree), _optional_text(tree, "componentPath"))


def _action(tree: dict[str, Any]) -> Action:
    return Action(_u32(tree, "requestId"), _path(tree), _args(tree), _optional_text(tree, "componentPath"))


def _authenticate(tree: dict[str, Any]) -> Authenticate:
    base, token_type = _u32(tree, "baseVersion"), _text(tree, "tokenType")
    if token_type == "None":
        return Authenticate(base, token_type, "", None)
    if token_type == "User":
        return Authenticate(base, token_type, _text(tree, "value"), None)
    if token_type == "Admin":
        acting_as = tree.get("impersonating")
        if acting_as is None:
            acting_as = tree.get("acting_as")
        return Authenticate(base, token_type, _text(tree, "value"), _attributes(acting_as))
    raise InvalidMessage(f"unknown variant `{token_type}`, expected one of `Admin`, `User`, `None`")


def _attributes(tree: Any) -> dict[str, object] | None:
    """Attributes of an acted-as user; known ones that are null are left out."""
    if tree is None:
        return None
    if type(tree) is not dict:
        raise InvalidMessage("invalid type for `impersonating`: expected an object")
    attributes: dict[str, object] = {}
    for name, value in tree.items():
        known = str if name in _TEXT_ATTRIBUTES else bool if name in _FLAG_ATTRIBUTES else None
        if known is None:
            attributes[name] = value
        elif value is not None:
            if type(value) is not known:
                raise InvalidMessage(f"invalid type for `{name}`: expected a {known.__name__}")
            attributes[name] = value
    if "tokenIdentifier" not in attributes and not {"issuer", "subject"} <= attributes.keys():
        raise InvalidMessage('either "tokenIdentifier" or "issuer" and "subject" must be set')
    return attributes


def _event(tree: dict[str, Any]) -> Event:
    # Whatever it holds: an event never fails (checklist 17).
    return Event()


_PARSERS: Final[dict[str, Any]] = {
    "Connect": _connect,
    "ModifyQuerySet": _modify_query_set,
    "Mutation": _mutation,
    "Action": _action,
    "Authenticate": _authenticate,
    "Event": _event,
}


def decode_ts(text: str) -> int:
    """A timestamp (ns) from base64 of 8 little-endian bytes (``sync.md`` section 3.1).

    :raises InvalidMessage: not such a text, or over 2^63 - 1.
    """
    try:
        raw = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raw = b""
    ts = int.from_bytes(raw, "little")
    if len(raw) != 8 or len(text) != 12 or ts > _MAX_TS:
        raise InvalidMessage("invalid timestamp: expected base64 of 8 bytes")
    return ts


@lru_cache(maxsize=64)
def encode_ts(ts: int) -> bytes:
    """The base64 text of *ts* (ns). Cached, because one commit is announced to many connections."""
    return binascii.b2a_base64(ts.to_bytes(8, "little"), newline=False)


def version(query_set: int, identity: int, ts: int) -> bytes:
    """A state version (``sync.md`` section 3.2)."""
    return b'{"querySet":%d,"identity":%d,"ts":"%s"}' % (query_set, identity, encode_ts(ts))


def transition(
    start: bytes, end: bytes, modifications: Sequence[bytes], clock_skew_ms: int | None, server_ts: int
) -> bytes:
    """A ``Transition`` (``sync.md`` section 4.1).

    :param start: JSON text of the start version, *end* likewise.
    :param modifications: JSON texts in order of query id.
    :param clock_skew_ms: of a client that told its clock; else neither it nor *server_ts* (ns) is sent.
    """
    clock = b"" if clock_skew_ms is None else b',"clientClockSkew":%d,"serverTs":%d' % (clock_skew_ms, server_ts)
    return b'{"type":"Transition","startVersion":%s,"endVersion":%s,"modifications":[%s]%s}' % (
        start,
        end,
        b",".join(modifications),
        clock,
    )


def query_removed(query_id: int) -> bytes:
    """The modification that acknowledges a ``Remove``."""
    return b'{"type":"QueryRemoved","queryId":%d}' % query_id


def transition_chunks(message: bytes, chunk_bytes: int = CHUNK_BYTES) -> list[bytes]:
    """*message*, a Transition, as ``TransitionChunk`` messages (``sync.md`` section 4.5).

    :param chunk_bytes: at most so many UTF-8 bytes of it in each, cut between characters; at least 4.
    """
    pieces = []
    start = 0
    while start < len(message):
        end = min(start + chunk_bytes, len(message))
        while end < len(message) and message[end] & 0xC0 == 0x80:
            end -= 1
        pieces.append(message[start:end].decode())
        start = end
    return [
        b'{"type":"TransitionChunk","chunk":%s,"partNumber":%d,"totalParts":%d,"transitionId":"%d"}'
        % (orjson.dumps(piece), number, len(pieces), len(message))
        for number, piece in enumerate(pieces)
    ]


def mutation_response(request_id: int, result: CallResult) -> bytes:
    """A ``MutationResponse`` (``sync.md`` section 4.2)."""
    if result.error is not None:
        return b'{"type":"MutationResponse","requestId":%d,%s,"ts":null}' % (request_id, _failure(result))
    return b'{"type":"MutationResponse","requestId":%d,"success":true,"result":%s,"ts":"%s","logLines":%s}' % (
        request_id,
        result.value,
        encode_ts(result.ts),
        _log_lines(result),
    )


def action_response(request_id: int, result: CallResult) -> bytes:
    """An ``ActionResponse`` (``sync.md`` section 4.3)."""
    if result.error is not None:
        return b'{"type":"ActionResponse","requestId":%d,%s}' % (request_id, _failure(result))
    return b'{"type":"ActionResponse","requestId":%d,"success":true,"result":%s,"logLines":%s}' % (
        request_id,
        result.value,
        _log_lines(result),
    )


def _log_lines(result: CallResult) -> bytes:
    return orjson.dumps(result.log_texts()) if result.log_lines else b"[]"


def _failure(result: CallResult) -> bytes:
    assert result.error is not None
    data = result.error.data
    return b'"success":false,"result":%s,"logLines":%s%s' % (
        orjson.dumps(result.error_message()),
        _log_lines(result),
        b"" if data is None else b',"errorData":%s' % data,
    )


def auth_error(error: str, base_version: int, update_attempted: bool) -> bytes:
    """An ``AuthError`` (``sync.md`` section 4.4)."""
    return orjson.dumps(
        {"type": "AuthError", "error": error, "baseVersion": base_version, "authUpdateAttempted": update_attempted}
    )


def fatal_error(error: str) -> bytes:
    """A ``FatalError`` (``sync.md`` section 4.4)."""
    return orjson.dumps({"type": "FatalError", "error": error})
