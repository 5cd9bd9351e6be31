r"""Order-preserving bytes: comparing two encodings as bytes compares the values.

=================  ==========================================================================================
undefined, null    ``01``; ``03``
int64              zero ``08``; ``09 0A 0B 0C`` positive, ``07 06 05 04`` negative for 1, 2, 4, 8 bytes that follow
float64            ``0D`` + 8 bytes big endian, all bits flipped when negative, else the sign bit set
false, true        ``0E``; ``0F``
string, bytes      ``10``; ``11``; content with ``00`` as ``00 FF``, then ``00``
array              ``12``, elements, ``00``
object             ``15``, per key sorted: key and ``00`` (the empty key: ``00 FF``), value; then ``00``
=================  ==========================================================================================

A key of several values is their concatenation. An unresolved commit timestamp has the place of the largest int64. Source: ``runtime.md`` section 4.4.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Any, Final

from convex_backend.values.kinds import INT64_MAX, UNDEFINED, CommitTimestamp, Undefined, Value

_FLOAT: Final = Struct(">d")
_TAG_AND_BITS: Final = Struct(">BQ")
_BITS: Final = Struct(">Q")
_ALL_BITS: Final = 0xFFFFFFFFFFFFFFFF
_SIGN_BIT: Final = 0x8000000000000000
_INT_WIDTHS: Final = {0x09: 1, 0x0A: 2, 0x0B: 4, 0x0C: 8, 0x07: 1, 0x06: 2, 0x05: 4, 0x04: 8}


def _encode_int(value: int) -> bytes:
    if value == 0:
        return b"\x08"
    if -0x80 <= value <= 0x7F:
        width, step = 1, 0
    elif -0x8000 <= value <= 0x7FFF:
        width, step = 2, 1
    elif -0x80000000 <= value <= 0x7FFFFFFF:
        width, step = 4, 2
    else:
        width, step = 8, 3
    tag = 0x09 + step if value > 0 else 0x07 - step
    return tag.to_bytes(1, "big") + value.to_bytes(width, "big", signed=True)


def _encode_float(value: float) -> bytes:
    bits: int = _BITS.unpack(_FLOAT.pack(value))[0]
    return _TAG_AND_BITS.pack(0x0D, bits ^ _ALL_BITS if bits & _SIGN_BIT else bits | _SIGN_BIT)


def _encode_object(value: dict[str, Any]) -> bytes:
    parts = [b"\x15"]
    for name in sorted(value):
        parts.append(name.encode() + b"\x00" if name else b"\x00\xff")
        parts.append(encode_value(value[name]))
    parts.append(b"\x00")
    return b"".join(parts)


def encode_value(value: Any) -> bytes:
    """:param value: a value or :data:`UNDEFINED`. :returns: its bytes."""
    kind = type(value)
    if kind is str:
        data: bytes = value.encode()
        if b"\x00" in data:
            data = data.replace(b"\x00", b"\x00\xff")
        return b"\x10" + data + b"\x00"
    if kind is float:
        return _encode_float(value)
    if value is None:
        return b"\x03"
    if kind is bool:
        return b"\x0f" if value else b"\x0e"
    if kind is int:
        return _encode_int(value)
    if kind is Undefined:
        return b"\x01"
    if kind is bytes:
        data = value.replace(b"\x00", b"\x00\xff")
        return b"\x11" + data + b"\x00"
    if kind is list:
        return b"\x12" + b"".join(map(encode_value, value)) + b"\x00"
    if kind is dict:
        return _encode_object(value)
    if kind is CommitTimestamp:
        return _encode_int(INT64_MAX)
    raise TypeError(f"{value!r} has no place in the order of values")


def encode_key(values: Iterable[Value | Undefined]) -> bytes:
    """:returns: the index key of *values*: their encodings, concatenated."""
    return b"".join(map(encode_value, values))


def successor(prefix: bytes) -> bytes:
    """The exclusive upper bound of all keys that start with a **complete** encoded prefix (a key of the first n values).

    What follows a complete prefix is a type tag or ``00``, never ``FF``; adding one to the last byte instead would take in the
    strings and objects that go on with an escaped zero (``"a"`` and ``"a\\0b"``).
    """
    return prefix + b"\xff"


def compare(left: Value | Undefined, right: Value | Undefined) -> int:
    """:returns: -1, 0 or 1 by the total order of values."""
    first, second = encode_value(left), encode_value(right)
    return (first > second) - (first < second)


def _decode_escaped(data: bytes, start: int) -> tuple[bytes, int]:
    """Content up to the ``00`` that is not escaped, and the position after it."""
    end = start
    while True:
        end = data.index(0, end)
        if data[end + 1 : end + 2] != b"\xff":
            break
        end += 2
    return data[start:end].replace(b"\x00\xff", b"\x00"), end + 1


def _take(data: bytes, position: int, count: int) -> bytes:
    taken = data[position : position + count]
    if len(taken) != count:
        raise IndexError
    return taken


def _decode(data: bytes, position: int) -> tuple[Any, int]:
    tag = data[position]
    position += 1
    if tag == 0x10:
        content, position = _decode_escaped(data, position)
        return content.decode(), position
    if tag == 0x0D:
        bits = int.from_bytes(_take(data, position, 8), "big")
        bits = bits ^ _SIGN_BIT if bits & _SIGN_BIT else bits ^ _ALL_BITS
        return _FLOAT.unpack(bits.to_bytes(8, "big"))[0], position + 8
    if tag in _INT_WIDTHS:
        width = _INT_WIDTHS[tag]
        return int.from_bytes(_take(data, position, width), "big", signed=True), position + width
    if tag == 0x08:
        return 0, position
    if tag == 0x03:
        return None, position
    if tag == 0x01:
        return UNDEFINED, position
    if tag in (0x0E, 0x0F):
        return tag == 0x0F, position
    if tag == 0x11:
        return _decode_escaped(data, position)
    if tag == 0x12:
        elements = []
        while data[position] != 0:
            element, position = _decode(data, position)
            elements.append(element)
        return elements, position + 1
    if tag == 0x15:
        members = {}
        while data[position] != 0 or data[position + 1 : position + 2] == b"\xff":
            if data[position] == 0:
                name, position = b"", position + 2
            else:
                end = data.index(0, position)
                name, position = data[position:end], end + 1
            members[name.decode()], position = _decode(data, position)
        return members, position + 1
    raise ValueError(f"unknown sort-key tag {tag:#04x} at byte {position - 1}")


def decode_key(data: bytes) -> list[Value | Undefined]:
    """:returns: the values of a key. :raises ValueError: when *data* is not a sequence of complete encodings."""
    values = []
    position = 0
    try:
        while position < len(data):
            value, position = _decode(data, position)
            values.append(value)
    except IndexError:
        raise ValueError("sort key ends inside a value") from None
    return values
