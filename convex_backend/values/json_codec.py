"""The JSON form of values ("Convex JSON"): strict in, canonical out.

========================  ===========================================
``{"$integer": b64}``     int64, 8 bytes little endian
``{"$float": b64}``       NaN, ±Infinity, -0 (8 bytes little endian)
``{"$bytes": b64}``       bytes, standard base64 with padding
any JSON number           float64
``{"$undefined": null}``  :data:`UNDEFINED`, only where allowed
``{"$commitTs": null}``   :data:`COMMIT_TS`, only where allowed
========================  ===========================================

Canonical text: keys sorted by their bytes, no whitespace. This is a hot path: a function per container, no other calls for plain members.
Source: ``runtime.md`` sections 4.2 and 4.3, ``sync.md`` section 7, ``http_api.md`` sections 2.5 and 8.
"""

from __future__ import annotations

import json
import re
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from math import copysign, isinf
from struct import Struct
from typing import Any, Final

import orjson

from convex_backend.errors import BadRequest
from convex_backend.values.kinds import COMMIT_TS, UNDEFINED, CommitTimestamp, InvalidValue, Undefined, Value
from convex_backend.values.limits import (
    MAX_ARRAY_LENGTH,
    MAX_OBJECT_FIELDS,
    MAX_VALUE_NESTING,
    array_too_long,
    field_name_error,
    too_many_fields,
    too_nested,
)
from convex_backend.values.text import float_text

__all__ = ["InvalidValue", "check_format", "dumps", "encode", "from_json", "loads", "reencode", "to_json"]

_INT64: Final = Struct("<q")
_FLOAT64: Final = Struct("<d")
_MINUS_ZERO_TOKEN: Final = re.compile(rb"-0[\s,\]}]|-0\Z")
_SORTED: Final = orjson.OPT_SORT_KEYS
_parse_json: Final = orjson.loads
_print_json: Final = orjson.dumps

# Field names that were checked before; programs use few, and the check is most of the cost of a short field.
_KNOWN_NAMES_LIMIT: Final = 20_000
_known_names: Final[set[str]] = set()


def _learn_name(name: str) -> None:
    error = field_name_error(name)
    if error:
        raise InvalidValue(error, "InvalidFieldName")
    if len(name) <= 64:
        if len(_known_names) >= _KNOWN_NAMES_LIMIT:
            _known_names.clear()
        _known_names.add(name)


def _from_base64(name: str, text: object) -> bytes:
    if type(text) is not str:
        raise InvalidValue(f"{name} must be a base64-encoded string")
    try:
        return a2b_base64(text, strict_mode=True)
    except (Base64Error, ValueError) as error:
        raise InvalidValue(f"{name} must be a base64-encoded string: {error}") from None


def _wrapper(name: str, content: object, commit_ts: bool) -> Value:
    """The value of an object whose only key starts with ``$``."""
    if name == "$integer":
        data = _from_base64(name, content)
        if len(data) != 8:
            raise InvalidValue(f"$integer must be 8 bytes, got {len(data)}")
        return _INT64.unpack(data)[0]  # type: ignore[no-any-return]
    if name == "$bytes":
        return _from_base64(name, content)
    if name == "$float":
        data = _from_base64(name, content)
        if len(data) != 8:
            raise InvalidValue(f"$float must be 8 bytes, got {len(data)}")
        number: float = _FLOAT64.unpack(data)[0]
        if number and number - number == 0.0:  # finite and not zero
            raise InvalidValue(f"Float64 {float_text(number)} should be encoded as a number")
        return number
    if name == "$commitTs" and commit_ts and content is None:
        return COMMIT_TS
    raise InvalidValue(f"Field name {name} starts with '$', which is reserved.", "InvalidFieldName")


def _decode_object(tree: dict[str, Any], depth: int, commit_ts: bool) -> Any:
    if depth >= MAX_VALUE_NESTING:
        raise too_nested()
    size = len(tree)
    if size > MAX_OBJECT_FIELDS:
        raise too_many_fields(size)
    if size == 1:
        for name, member in tree.items():
            if name[:1] == "$":
                return _wrapper(name, member, commit_ts)
    known = _known_names
    for name, member in tree.items():
        if name not in known:
            _learn_name(name)
        kind = type(member)
        if kind is str or kind is float or kind is bool or member is None:
            continue
        if kind is int:
            tree[name] = float(member)
        elif kind is dict:
            tree[name] = _decode_object(member, depth + 1, commit_ts)
        else:
            _decode_array(member, depth + 1, commit_ts)
    return tree


def _decode_array(tree: list[Any], depth: int, commit_ts: bool) -> None:
    if depth >= MAX_VALUE_NESTING:
        raise too_nested()
    if len(tree) > MAX_ARRAY_LENGTH:
        raise array_too_long(len(tree))
    position = 0
    for element in tree:
        kind = type(element)
        if kind is int:
            tree[position] = float(element)
        elif kind is dict:
            tree[position] = _decode_object(element, depth + 1, commit_ts)
        elif kind is list:
            _decode_array(element, depth + 1, commit_ts)
        position += 1  # noqa: SIM113 - cheaper than enumerate's tuples


def from_json(tree: Any, *, allow_undefined: bool = False, allow_commit_ts: bool = False) -> Any:
    """Decode parsed JSON (``orjson.loads`` output). **The tree is consumed**: its containers become the value's.

    :param allow_undefined: ``{"$undefined": null}`` may stand for the value itself or a direct member of the object.
    :param allow_commit_ts: ``{"$commitTs": null}`` may stand anywhere.
    :returns: the value; with *allow_undefined* perhaps :data:`UNDEFINED`.
    :raises InvalidValue: for anything that is not a Convex value, or breaks a limit other than the size.
    """
    kind = type(tree)
    if kind is dict:
        if allow_undefined:
            marked = [name for name, member in tree.items() if type(member) is dict and _is_undefined(member)]
            if marked:
                tree = {name: None if name in marked else member for name, member in tree.items()}
                value = _decode_object(tree, 0, allow_commit_ts)
                for name in marked:
                    value[name] = UNDEFINED
                return value
            if _is_undefined(tree):
                return UNDEFINED
        return _decode_object(tree, 0, allow_commit_ts)
    if kind is list:
        _decode_array(tree, 0, allow_commit_ts)
        return tree
    return float(tree) if kind is int else tree


def _is_undefined(tree: dict[str, Any]) -> bool:
    return len(tree) == 1 and tree.get("$undefined", tree) is None


def _keep_minus_zero(text: bytes | str, tree: Any) -> Any:
    """Parse again, slowly, if *text* may hold the token ``-0``: orjson reads it as integer zero, which loses the sign."""
    data = text.encode() if isinstance(text, str) else text
    if not _MINUS_ZERO_TOKEN.search(data):
        return tree
    try:
        return json.loads(data, parse_int=float)
    except RecursionError:
        raise too_nested() from None


def loads(text: bytes | str, *, allow_undefined: bool = False, allow_commit_ts: bool = False) -> Any:
    """Parse and decode JSON text; see :func:`from_json`.

    :raises InvalidValue: also for text that is not JSON in UTF-8 (code ``InvalidJson``).
    """
    try:
        tree = _parse_json(text)
    except orjson.JSONDecodeError as error:
        raise InvalidValue(str(error), "InvalidJson") from None
    if (b"-0" in text) if type(text) is bytes else ("-0" in text):
        tree = _keep_minus_zero(text, tree)
    if not allow_undefined:
        # As from_json, without its call: this is the hottest function of the package.
        if type(tree) is dict:
            return _decode_object(tree, 0, allow_commit_ts)
        if type(tree) is list:
            _decode_array(tree, 0, allow_commit_ts)
            return tree
    return from_json(tree, allow_undefined=allow_undefined, allow_commit_ts=allow_commit_ts)


def _special(value: Any) -> Any:
    """The JSON of a value that is not a string, boolean, null or plain float."""
    kind = type(value)
    if kind is float:
        if value - value == 0.0 and (value or copysign(1.0, value) > 0):
            return value
        return {"$float": b2a_base64(_FLOAT64.pack(value), newline=False).decode("ascii")}
    if kind is dict:
        return _encode_object(value)
    if kind is list:
        return _encode_array(value)
    if kind is int:
        return {"$integer": b2a_base64(_INT64.pack(value), newline=False).decode("ascii")}
    if kind is bytes:
        return {"$bytes": b2a_base64(value, newline=False).decode("ascii")}
    if kind is CommitTimestamp:
        return {"$commitTs": None}
    if kind is Undefined:
        return {"$undefined": None}
    if value is None or kind is bool or kind is str:
        return value
    raise TypeError(f"not a Convex value: {kind.__name__}")


def _encode_object(value: dict[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] | None = None
    for name, member in value.items():
        kind = type(member)
        if kind is str or kind is bool or member is None:
            continue
        if kind is float and member and member - member == 0.0:
            continue
        encoded = _special(member)
        if encoded is not member:
            if changed is None:
                changed = value.copy()
            changed[name] = encoded
    return value if changed is None else changed


def _encode_array(value: list[Any]) -> list[Any]:
    changed: list[Any] | None = None
    position = 0
    for element in value:
        kind = type(element)
        if not (kind is str or (kind is float and element and element - element == 0.0)):
            encoded = _special(element)
            if encoded is not element:
                if changed is None:
                    changed = value.copy()
                changed[position] = encoded
        position += 1  # noqa: SIM113 - cheaper than enumerate's tuples
    return value if changed is None else changed


def to_json(value: Value | Undefined) -> Any:
    """Encode a value as a tree that ``orjson.dumps`` prints. Unchanged containers are shared with *value*: do not mutate the result.

    :raises TypeError: when something in it is not a value: a fault of ours, values are checked when they come in.
    """
    return _special(value)


def dumps(value: Value | Undefined) -> bytes:
    """:returns: the canonical JSON text of *value* in UTF-8, which takes no more memory than its length."""
    return compact(_print_json(_special(value), option=_SORTED))


def compact(printed: bytes) -> bytes:
    """A copy of what orjson printed, to be kept: the original holds on to the room that it was printed into, which is at least 4 KB and up to
    sixteen times its length."""
    return b"%s" % printed


def _clean(value: Value) -> Any:
    if isinstance(value, dict):
        return {name: _clean(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_clean(element) for element in value]
    if isinstance(value, bytes):
        return b2a_base64(value, newline=False).decode("ascii")
    if type(value) is int:
        return str(value)
    if isinstance(value, float) and value - value != 0.0:
        return ("Infinity" if value > 0 else "-Infinity") if isinf(value) else "NaN"
    return value


def _export(value: Value) -> Any:
    if isinstance(value, dict):
        return {name: _export(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_export(element) for element in value]
    if isinstance(value, bytes) or (isinstance(value, float) and value - value != 0.0):
        return _special(value)
    return value


_FORMATS: Final[dict[str, Callable[[Value], Any]]] = {
    "convex_encoded_json": _special,
    "convex_json": _special,
    "json": _clean,
    "convex_clean_json": _clean,
    "export_json": _export,
}


def check_format(name: str) -> str:
    """:returns: *name*. :raises BadRequest: ``BadFormat`` when it is not the name of a value format."""
    if name not in _FORMATS:
        raise BadRequest("BadFormat", f"Unknown format {name!r}: expected one of {', '.join(_FORMATS)}.")
    return name


def encode(value: Value, format: str) -> Any:
    """Encode *value* for the HTTP API as a JSON tree.

    :param format: ``convex_encoded_json`` or ``convex_json`` (lossless), ``json`` or ``convex_clean_json`` (int64 as decimal string,
        bytes as base64 string, NaN and infinities as strings), ``export_json`` (int64 as bare integer).
    :raises BadRequest: ``BadFormat``.
    """
    return _FORMATS[check_format(format)](value)


def reencode(text: bytes, format: str) -> bytes:
    """Turn canonical JSON text into the text of *format*, without a decode when they are the same.

    :raises BadRequest: ``BadFormat``.
    """
    convert = _FORMATS[check_format(format)]
    # Without any string that starts with "$" there are no wrappers, and all formats agree.
    if convert is _special or b'"$' not in text:
        return text
    return orjson.dumps(convert(loads(text)), option=_SORTED)
