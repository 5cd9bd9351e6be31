"""The text form of values in messages (``runtime.md`` section 4.5)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convex_backend.values.kinds import UNDEFINED
from convex_backend.values.text import char_text, float_text, string_text, value_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (5, "5"),
        (-(2**63), "-9223372036854775808"),
        (1.0, "1.0"),
        (0.0001, "0.0001"),
        (9999999999999998.0, "9999999999999998.0"),
        (1e16, "1e16"),
        (1.2345678901234568e17, "1.2345678901234568e17"),
        (9.9e-5, "9.9e-5"),
        (1e-7, "1e-7"),
        (1.7976931348623157e308, "1.7976931348623157e308"),
        (5e-324, "5e-324"),
        (0.1, "0.1"),
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (float("nan"), "NaN"),
        (float("inf"), "inf"),
        (float("-inf"), "-inf"),
        ("a", '"a"'),
        ("\"\\\n\t\r\0'", '"\\"\\\\\\n\\t\\r\\0\'"'),
        ("\u200b\x7f\x01é世😀", '"\\u{200b}\\u{7f}\\u{1}é世😀"'),
        ("e\u0301", '"e\\u{301}"'),
        ("\ue000", '"\\u{e000}"'),
        (b"\x01", 'b"AQ=="'),
        ([1.0, "a"], '[1.0, "a"]'),
        ([], "[]"),
        ({"b": None, "a": 1.0}, "{a: 1.0, b: null}"),
        ({}, "{}"),
        (UNDEFINED, "undefined"),
    ],
)
def test_texts(value: Any, text: str) -> None:
    """Each kind of value has its text."""
    assert value_text(value) == text


@pytest.mark.parametrize(("char", "text"), [("a", "'a'"), ("'", "'\\''"), ('"', "'\"'"), ("\n", "'\\n'"), ("é", "'é'")])
def test_characters(char: str, text: str) -> None:
    """A single character is quoted singly."""
    assert char_text(char) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_float_text_reads_back(number: float) -> None:
    """The text is exact, has a decimal point or an exponent, and never Python's exponent form."""
    text = float_text(number)
    assert float(text) == number
    assert "." in text or "e" in text
    assert "e+" not in text
    assert "e-0" not in text


@given(st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20))
def test_ascii_strings(text: str) -> None:
    """Printable ASCII is kept, quotes and backslashes are escaped."""
    assert string_text(text) == '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
