"""Positions in a query's result: opaque, deterministic, and good for one query only.

::

    u8 version (1) | u8 kind (0: after the key that follows, 1: end) | fingerprint (32 bytes) | index key

The sealed form is the same string for the same cursor, because clients compare them. Source: ``runtime.md`` sections 3.4 and 3.5.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

import attrs
import orjson

from convex_backend.errors import BadRequest, ConvexError

_VERSION: Final = 1
_AFTER: Final = 0
_END: Final = 1
_FINGERPRINT_BYTES: Final = 32
_HEAD_BYTES: Final = 2 + _FINGERPRINT_BYTES

#: Turns bytes into opaque text, the same text for the same bytes.
Seal = Callable[[bytes], str]
#: The way back; raises ``ConvexError`` or ``ValueError`` for text that was not made here.
Unseal = Callable[[str], bytes]


class InvalidCursor(BadRequest):
    """A cursor or journal that does not fit; clients look for its data and start again.

    :ivar data: the ConvexError's data, a JSON tree.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("InvalidCursor", f"InvalidCursor: {reason}")
        self.data: dict[str, Any] = {"isConvexSystemError": True, "paginationError": "InvalidCursor"}


@attrs.frozen(slots=True)
class Cursor:
    """A position.

    :param key: the index key of the last row before it; ``None`` for the end.
    """

    key: bytes | None
    fingerprint: bytes

    @property
    def is_end(self) -> bool:
        """Whether nothing comes after it."""
        return self.key is None


def fingerprint(normalised_query: dict[str, Any], fields: tuple[str, ...]) -> bytes:
    """:returns: SHA-256 over the query and the fields of its index."""
    text = orjson.dumps({"query": normalised_query, "indexed_fields": list(fields)}, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).digest()


def seal_cursor(cursor: Cursor, seal: Seal) -> str:
    """:returns: the cursor as clients see it."""
    kind = _END if cursor.key is None else _AFTER
    return seal(bytes((_VERSION, kind)) + cursor.fingerprint + (cursor.key or b""))


def unseal_cursor(text: str, expected: bytes, unseal: Unseal) -> Cursor:
    """:param expected: the fingerprint of the query that it is used with.
    :raises InvalidCursor: it cannot be read, or belongs to another query.
    """
    try:
        data = unseal(text)
    except (ConvexError, ValueError):
        raise InvalidCursor("Failed to parse cursor") from None
    if len(data) < _HEAD_BYTES or data[0] != _VERSION or data[1] not in (_AFTER, _END):
        raise InvalidCursor("Failed to parse cursor")
    if data[2:_HEAD_BYTES] != expected:
        raise InvalidCursor(
            "Tried to run a query starting from a cursor, but it looks like this cursor is from a different query."
        )
    return Cursor(data[_HEAD_BYTES:] if data[1] == _AFTER else None, expected)
