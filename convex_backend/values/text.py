"""How values look inside messages.

The form is Rust's ``Debug`` output, because official clients, tests and users match on these texts. Source: ``runtime.md`` section 4.5.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from typing import Final
from unicodedata import category

from convex_backend.values.kinds import Undefined, Value

_SHORT_ESCAPES: Final = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"}
# Characters of Unicode's Grapheme_Extend that are not combining marks by category (Other_Grapheme_Extend).
_OTHER_EXTEND: Final = frozenset(
    map(
        chr,
        [
            *(0x09BE, 0x09D7, 0x0B3E, 0x0B57, 0x0BBE, 0x0BD7, 0x0CC2, 0x0CD5, 0x0CD6, 0x0D3E, 0x0D57, 0x0DCF, 0x0DDF),
            *(0x1B35, 0x302E, 0x302F, 0xFF9E, 0xFF9F, 0x1133E, 0x11357, 0x114B0, 0x114BD, 0x115AF, 0x11930, 0x1D165),
            *range(0x1D16E, 0x1D173),
        ],
    )
)
_PLAIN: Final = re.compile(r"[ !#-\[\]-~]*")


def _escape_char(char: str) -> str:
    short = _SHORT_ESCAPES.get(char)
    if short is not None:
        return short
    if not char.isprintable() or char in _OTHER_EXTEND or (char > "~" and category(char) in ("Mn", "Me")):
        return f"\\u{{{ord(char):x}}}"
    return char


def string_text(text: str) -> str:
    """:returns: *text* in double quotes, escaped (``"a\\u{200b}"``); single quotes stay."""
    if _PLAIN.fullmatch(text):
        return f'"{text}"'
    return '"' + "".join('\\"' if char == '"' else _escape_char(char) for char in text) + '"'


def char_text(char: str) -> str:
    """:returns: one character in single quotes, escaped."""
    return "'" + ("\\'" if char == "'" else _escape_char(char)) + "'"


def float_text(number: float) -> str:
    """:returns: the shortest text that reads back as *number*, with at least one decimal: ``1.0``, ``1e16``, ``9.9e-5``, ``NaN``, ``-inf``."""
    text = repr(number)  # the same digits and the same limits (1e-4, 1e16) for positional form
    if "e" in text:
        mantissa, _, exponent = text.partition("e")
        return f"{mantissa}e{int(exponent)}"
    return "NaN" if text == "nan" else text


def value_text(value: Value | Undefined) -> str:
    """:returns: the text form of *value*: ``null``, ``5``, ``1.0``, ``"a"``, ``b"AQ=="``, ``[1.0, "a"]``, ``{a: 1.0}``."""
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, str):
        return string_text(value)
    if isinstance(value, float):
        return float_text(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, bytes):
        return f'b"{b2a_base64(value, newline=False).decode("ascii")}"'
    if isinstance(value, list):
        return "[" + ", ".join(map(value_text, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {value_text(value[key])}" for key in sorted(value)) + "}"
    return "undefined" if isinstance(value, Undefined) else "<commit timestamp>"
