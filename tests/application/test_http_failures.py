"""The JSON of a failed HTTP action (``runtime.md`` 8.4)."""

from __future__ import annotations

import json

import pytest

from convex_backend.application.run_http_action import failure_body
from convex_backend.interfaces import FunctionError

HEAD = "[Request ID: 0123456789abcdef] Server Error"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "Uncaught Error: boom\n    at f (../convex/a.ts:1:2)\n    at g (../convex/a.ts:3:4)\n",
            "Uncaught Error: boom",
        ),
        ("Uncaught Error: boom\n", "Uncaught Error: boom"),
        ("Plain text", "Plain text"),
        ("Uncaught Error: two\nlines\n    at f (../convex/a.ts:1:2)\n", "Uncaught Error: two\nlines"),
        (
            "Uncaught Error: Uncaught Error: inner\n    at f (../convex/a.ts:1:2)\n\n    at async g (../convex/b.ts:1:2)\n",
            "Uncaught Error: Uncaught Error: inner\n    at f (../convex/a.ts:1:2)\n",
        ),
    ],
)
def test_code_is_the_message_without_frames(text: str, message: str) -> None:
    """``code`` ends with the message, ``trace`` is the whole text; the frames of an inner error are part of its message."""
    assert json.loads(failure_body(FunctionError(text), "0123456789abcdef", False)) == {
        "code": f"{HEAD}: {message}",
        "trace": text,
    }


def test_data_of_a_convex_error() -> None:
    """Data is passed on as encoded JSON."""
    error = FunctionError("Uncaught ConvexError: x\n", b'{"n":{"$integer":"BwAAAAAAAAA="}}')
    assert json.loads(failure_body(error, "0123456789abcdef", False))["data"] == {"n": {"$integer": "BwAAAAAAAAA="}}


def test_redacted() -> None:
    """With redaction only the request id and the data are left."""
    error = FunctionError("Uncaught ConvexError: secret\n", b'"shown"')
    assert json.loads(failure_body(error, "0123456789abcdef", True)) == {"code": HEAD, "data": "shown"}
