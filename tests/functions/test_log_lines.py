"""Log lines: parse, limits, order, text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convex_backend.functions.log_lines import (
    MAX_LINE_BYTES,
    OVERFLOW_TEXT,
    attribute,
    cap,
    flatten,
    limit_line,
    parse_line,
    pretty,
    structured,
)
from convex_backend.functions.outcome import loads_lenient
from convex_backend.interfaces import LogLine


def raw(text: str, level: str = "LOG") -> dict[str, Any]:
    """A line as a child reports it."""
    return {"messages": [text], "level": level, "timestamp": 1.5}


def test_forms() -> None:
    """A line has a text form and a structured form; the path shows only on lines of nested calls."""
    line = parse_line({"messages": ["'text'", "42"], "level": "LOG", "timestamp": 12.5})
    assert pretty(line) == "[LOG] 'text' 42"
    assert structured(line) == {"messages": ["'text'", "42"], "isTruncated": False, "timestamp": 12.5, "level": "LOG"}
    [inner] = attribute([line], "", "m.js:f")
    assert (structured(inner)["udfPath"], structured(inner)["componentPath"]) == ("m.js:f", "")
    assert attribute([inner], "c", "n.js:g") == [inner]
    warning = LogLine(("w",), "WARN", 1.0, code="warning:X")
    assert structured(warning)["systemMetadata"] == {"code": "warning:X"}


@pytest.mark.parametrize("line", [{}, {"messages": "x", "level": "LOG", "timestamp": 1}, raw("x", "NOISE")])
def test_what_is_no_line(line: dict[str, Any]) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match="not a log line"):
        parse_line(line)


@settings(max_examples=60)
@given(st.lists(st.text(alphabet="aé😀", max_size=9000), max_size=4))
def test_long_lines_are_cut_at_a_character(messages: list[str]) -> None:
    """No line is over 32768 bytes, and what is left of a cut one begins the joined text."""
    line = limit_line(LogLine(tuple(messages), "LOG", 1.0))
    joined = " ".join(messages)
    text = " ".join(line.messages)
    assert len(text.encode()) <= MAX_LINE_BYTES
    assert joined.startswith(text)
    assert line.truncated == (len(joined.encode()) > MAX_LINE_BYTES)
    if line.truncated:
        assert len(text.encode()) > MAX_LINE_BYTES - 4
        assert pretty(line).endswith(" (truncated due to length)")


def test_system_lines_are_never_cut() -> None:
    """A warning of the host stays whole."""
    line = LogLine(("x" * 40000,), "WARN", 1.0, code="warning:X")
    assert limit_line(line) is line


def test_nested_lines_stand_where_the_answer_arrived() -> None:
    """Groups replace their markers; a group whose answer never arrived comes last; a marker without lines is nothing."""
    groups = {4: [LogLine(("in",), "LOG", 1.0)], 9: [LogLine(("lost",), "LOG", 1.0)]}
    lines = flatten([raw("a"), {"nested": 4}, raw("b"), {"nested": 5}, {"nested": 4}], groups)
    assert [line.messages[0] for line in lines] == ["a", "in", "b", "lost"]


@pytest.mark.parametrize(("count", "kept"), [(0, 0), (255, 255), (256, 256), (400, 256)])
def test_at_most_256_lines(count: int, kept: int) -> None:
    """The 256th line of a longer run says that the rest is missing."""
    lines = cap([LogLine((str(n),), "LOG", float(n)) for n in range(count)])
    assert len(lines) == kept
    if count >= 256:
        assert (lines[-1].level, lines[-1].messages) == ("ERROR", (OVERFLOW_TEXT,))
        assert cap(lines) == lines
    else:
        assert all(line.level == "LOG" for line in lines)


def test_lone_surrogates_do_not_break_the_frame() -> None:
    """Console text with half a surrogate pair is shown with a question mark."""
    meta = json.dumps({"logs": ["a\ud800b", "ok"]}).encode()
    assert loads_lenient(meta) == {"logs": ["a?b", "ok"]}


def test_system_lines_survive_the_cap() -> None:
    """A warning that comes after too many lines is neither counted nor dropped (``runtime.md`` 7.3)."""
    lines = [LogLine((str(number),), "LOG", 1.0) for number in range(300)]
    warning = LogLine(("slow",), "WARN", 2.0, code="warning:X")
    capped = cap([*lines, warning])
    assert [line.messages[0] for line in capped[:255]] == [str(number) for number in range(255)]
    assert (capped[255].messages, capped[256:]) == ((OVERFLOW_TEXT,), (warning,))
    assert cap(capped) == capped
    assert len(cap([*lines[:255], warning])) == 256
    assert cap([*lines[:255], warning])[-1] is warning
