"""Document ids: a table number and 16 bytes as text.

::

    VInt(table number) | internal id (16 bytes) | footer (u16 LE: Fletcher-16 of the rest, XOR version 0)
    -> Crockford base32, lower case, most significant bit first, no padding: 31 to 37 characters

Source: ``runtime.md`` section 5.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate
from typing import Final

from convex_backend.values.kinds import InvalidValue

INTERNAL_ID_BYTES: Final = 16
SHORTEST_ID: Final = 31
"""Characters of the text of an id with a table number below 128."""
MAX_TABLE_NUMBER: Final = 2**32 - 1
FIRST_USER_TABLE_NUMBER: Final = 10001

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS: Final = [high + low for high in _ALPHABET for low in _ALPHABET]
# int(text, 32) reads 0-9a-v; whatever is not in our alphabet becomes a character that it refuses.
_TO_PYTHON_DIGITS: Final = bytes(
    ord("0123456789abcdefghijklmnopqrstuv"[_ALPHABET.index(chr(code))]) if chr(code) in _ALPHABET else ord("!")
    for code in range(256)
)
_PREFIX: Final = "Unable to decode ID: "


class InvalidId(InvalidValue):
    """A text that is no document id. The message starts with ``Unable to decode ID: ``."""

    def __init__(self, reason: str) -> None:
        super().__init__(_PREFIX + reason, "InvalidId")


def _fletcher16(data: bytes) -> int:
    """Fletcher-16 with modulus 256: the sum in the low byte, the sum of the running sums in the high byte."""
    return (sum(data) & 0xFF) | (sum(accumulate(data)) & 0xFF) << 8


def _vint(number: int) -> bytes:
    if number < 0x80:
        return number.to_bytes(1, "little")
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    data = bytearray()
    while number >= 0x80:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)
    return bytes(data)


def encode_id(table_number: int, internal_id: bytes) -> str:
    """:param table_number: 1 to 2**32 - 1.
    :param internal_id: 16 bytes.
    :returns: the id's text.
    :raises ValueError: when an argument is out of its range.
    """
    if len(internal_id) != INTERNAL_ID_BYTES or not 0 < table_number <= MAX_TABLE_NUMBER:
        raise ValueError(f"not a document id: table {table_number}, {len(internal_id)} bytes")
    data = _vint(table_number) + internal_id
    data += _fletcher16(data).to_bytes(2, "little")
    length = (len(data) * 8 + 4) // 5
    pairs = (length + 1) // 2
    number = int.from_bytes(data, "big") << (pairs * 10 - len(data) * 8)
    table = _PAIRS
    text = "".join([table[number >> shift & 1023] for shift in range((pairs - 1) * 10, -1, -10)])
    return text[:length]


@lru_cache(maxsize=8192)
def decode_id(text: str) -> tuple[int, bytes]:
    """A transaction decodes the ids that it works with several times, and those of hot documents come again and again: the last ones are kept.

    :returns: the table number and the 16 bytes of the internal id.
    :raises InvalidId: when *text* is not an id in its one canonical spelling.
    """
    length = len(text)
    if not SHORTEST_ID <= length <= 37:
        raise InvalidId(f"Invalid ID length {length}")
    try:
        number = int(text.encode("latin-1").translate(_TO_PYTHON_DIGITS), 32)
    except ValueError:  # UnicodeEncodeError is one
        raise InvalidId("ID wasn't valid base32") from None
    size = length * 5 // 8
    spare_bits = length * 5 - size * 8
    data = (number >> spare_bits).to_bytes(size, "big")
    table_number = 0
    for position in range(5):
        byte = data[position]
        table_number |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            break
    width = position + 1
    if data[position] >= 0x80 or (position and not data[position]) or not 0 < table_number <= MAX_TABLE_NUMBER:
        raise InvalidId("Invalid table number")
    version = _fletcher16(data[:-2]) ^ (data[-2] | data[-1] << 8)
    if version:
        raise InvalidId(f"Invalid ID version {version} (expected 0)")
    if size != width + INTERNAL_ID_BYTES + 2 or number & ((1 << spare_bits) - 1) or length != (size * 8 + 4) // 5:
        raise InvalidId(f"Invalid ID length {length}")
    return table_number, data[width:-2]
