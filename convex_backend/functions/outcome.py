"""From a RESULT frame to an :class:`Outcome`; errors that a syscall gives to JavaScript.

Source: ``docs/internals.md`` section 7; ``runtime.md`` sections 2.2, 7.3 and 8.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import orjson

from convex_backend.database.query.cursor import InvalidCursor
from convex_backend.errors import BadRequest, ConvexError, OccConflict, Overloaded, ServerFault, Transient
from convex_backend.functions.log_lines import cap, flatten, parse_line
from convex_backend.interfaces import FunctionError, LogLine, Outcome

NOTHING_OBSERVED: frozenset[str] = frozenset()
#: What a run that was cut off may have looked at: it had no time to say.
UNKNOWN = "unknown"
CUT_OFF_OBSERVED: frozenset[str] = frozenset(("time", "random", UNKNOWN))
MAX_MESSAGE_BYTES = 65536


class FunctionFailed(BadRequest):
    """A called function failed with *error*; thrown into the JavaScript that called it, with its data."""

    def __init__(self, error: FunctionError) -> None:
        super().__init__("FunctionFailed", error.message)
        self.error = error


@attrs.frozen(slots=True)
class Result:
    """A RESULT frame, decoded.

    :param fault: why the run must not be believed, instead of an outcome.
    :param realm: what the child says of a context that may serve other runs.
    :param retire: the child must serve nobody else: its run may have broken the process.
    """

    outcome: Outcome
    consumed: dict[str, int] | None
    fault: ConvexError | None = None
    realm: dict[str, Any] | None = None
    retire: bool = False


def system_failure(message: str, logs: Sequence[LogLine] = (), cpu_seconds: float = 0.0) -> Outcome:
    """The outcome of a call that the host ended (time, memory, lost child)."""
    return Outcome(None, FunctionError(message, None, True), cap(logs), CUT_OFF_OBSERVED, cpu_seconds)


def read_result(
    meta: bytes, body: bytes, nested: Mapping[int, Sequence[LogLine]], streamed: Sequence[LogLine] = ()
) -> Result:
    """Decode a RESULT.

    :param nested: lines of nested calls by syscall seq.
    :param streamed: lines that came before, in LOG frames.
    :raises ValueError, KeyError, TypeError: the child broke the protocol.
    """
    tree = loads_lenient(meta)
    logs = tree.get("logs")
    lines = cap([*streamed, *flatten(logs or (), nested)]) if logs or nested or streamed else ()
    observed = _observed(tree.get("observed"))
    cpu_seconds = tree.get("cpu_us", 0) / 1e6
    consumed = tree.get("consumed") or None
    realm = tree.get("realm")
    retire = tree.get("retire") is True
    if tree["ok"]:
        return Result(Outcome(body, None, lines, observed, cpu_seconds), consumed, None, realm, retire)
    error = tree["error"]
    message = str(error["message"])
    kind = error.get("kind", "user")
    failure = FunctionError(message, body or None, kind == "system")
    outcome = Outcome(None, failure, lines, observed, cpu_seconds)
    fault: ConvexError | None = None
    if kind == "occ":
        fault = OccConflict()
    elif kind == "overloaded":
        fault = Overloaded("Busy", "I'm a bit busy.")
    elif kind == "fatal":
        fault = ServerFault()
    return Result(outcome, consumed, fault, realm, retire)


def _observed(tree: object) -> frozenset[str]:
    if not isinstance(tree, dict) or not tree:
        return NOTHING_OBSERVED
    names = [name for name, seen in tree.items() if seen is True]
    names.extend(f"env:{name}" for name in tree.get("env") or ())
    return frozenset(names) if names else NOTHING_OBSERVED


def read_lines(meta: bytes) -> list[LogLine]:
    """The lines of a LOG frame. :raises ValueError, KeyError, TypeError: not lines."""
    return [parse_line(line) for line in loads_lenient(meta)["lines"]]


def loads_lenient(text: bytes) -> Any:
    """Decode JSON made by the runner, where console text may hold lone surrogates (they become question marks)."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return orjson.loads(_replace_surrogates(json.loads(text)))


def _replace_surrogates(tree: object) -> bytes:
    return json.dumps(tree, ensure_ascii=False).encode("utf-8", "replace")


def dumps_lenient(tree: object) -> bytes:
    """JSON text; lone surrogates, which UTF-8 cannot hold, become question marks."""
    try:
        return orjson.dumps(tree)
    except TypeError:
        return _replace_surrogates(tree)


def error_reply(error: Exception) -> tuple[bytes, bytes]:
    """Meta and body of the SYSRESULT that throws *error* into JavaScript, catchable there."""
    body = b""
    if isinstance(error, FunctionFailed):
        body = error.error.data or b""
    elif isinstance(error, InvalidCursor):
        body = orjson.dumps(error.data)
    return dumps_lenient({"error": {"message": str(error)}}), body


def is_user_error(error: BaseException) -> bool:
    """Whether a query or mutation may catch *error* (``runtime.md`` 2.2); everything else ends its run."""
    return isinstance(error, ConvexError) and not isinstance(error, Transient | ServerFault)


def masked(error: Exception) -> Exception:
    """What an action sees of *error*: everything is catchable there, internal errors lose their text."""
    if isinstance(error, ConvexError) and not isinstance(error, ServerFault):
        return error
    return ServerFault()
