"""The placeholder of a commit's timestamp inside of values, and the value that takes its place.

Source: ``runtime.md`` section 10.
"""

from __future__ import annotations

from typing import Any, Final

from convex_backend.values.json_codec import dumps, loads
from convex_backend.values.kinds import COMMIT_TS

#: What the JSON text of a value that holds a placeholder contains; a string that says the same contains it too.
MARK: Final = b'"$commitTs"'


def holds_commit_ts(value: Any) -> bool:
    """:returns: whether an unresolved commit timestamp is somewhere in *value*."""
    if type(value) is dict:
        return any(map(holds_commit_ts, value.values()))
    if type(value) is list:
        return any(map(holds_commit_ts, value))
    return value is COMMIT_TS


def resolve(value: Any, ts: int) -> Any:
    """:returns: *value* with *ts* in the place of each placeholder; what holds none is shared with it."""
    if value is COMMIT_TS:
        return ts
    if type(value) is dict:
        return {name: resolve(member, ts) for name, member in value.items()}
    if type(value) is list:
        return [resolve(element, ts) for element in value]
    return value


def resolve_text(text: bytes, ts: int) -> bytes:
    """:param text: JSON text of a value. :returns: the same with *ts* in the place of each placeholder."""
    return dumps(resolve(loads(text, allow_commit_ts=True), ts)) if MARK in text else text
