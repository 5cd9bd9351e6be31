"""Console lines of functions: from the runner's meta to :class:`LogLine`, to text and to structured JSON.

Source: ``runtime.md`` sections 7.2 and 7.3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from convex_backend.interfaces import LogLine

MAX_LINES = 256
MAX_LINE_BYTES = 32768
LEVELS = frozenset({"DEBUG", "ERROR", "INFO", "LOG", "WARN"})
OVERFLOW_TEXT = f"Log overflow (maximum {MAX_LINES}). Remaining log lines omitted."
TRUNCATED_MARK = " (truncated due to length)"


def parse_line(raw: Mapping[str, object]) -> LogLine:
    """One line as the runner reports it (``docs/internals.md`` section 7).

    :raises ValueError: not a line.
    """
    messages = raw.get("messages")
    level = raw.get("level")
    timestamp = raw.get("timestamp")
    if not isinstance(messages, list) or level not in LEVELS or not isinstance(timestamp, int | float):
        raise ValueError("not a log line")
    code = raw.get("code")
    return limit_line(
        LogLine(
            tuple(str(message) for message in messages),
            str(level),
            float(timestamp),
            bool(raw.get("truncated", False)),
            str(code) if code is not None else None,
        )
    )


def limit_line(line: LogLine) -> LogLine:
    """Cut a line whose joined messages are over 32768 bytes at a character boundary; system lines are never cut."""
    if line.code is not None or sum(map(len, line.messages)) * 4 + len(line.messages) <= MAX_LINE_BYTES:
        return line
    encoded = " ".join(line.messages).encode("utf-8", "surrogatepass")
    if len(encoded) <= MAX_LINE_BYTES:
        return line
    text = encoded[:MAX_LINE_BYTES].decode("utf-8", "ignore")
    return attrs.evolve(line, messages=(text,), truncated=True)


def pretty(line: LogLine) -> str:
    """The text form, ``[LOG] 'text' 42``."""
    text = f"[{line.level}] {' '.join(line.messages)}"
    return text + TRUNCATED_MARK if line.truncated else text


def structured(line: LogLine) -> dict[str, object]:
    """The structured form (camelCase members) of newer clients and of the log stream."""
    tree: dict[str, object] = {
        "messages": list(line.messages),
        "isTruncated": line.truncated,
        "timestamp": line.timestamp,
        "level": line.level,
    }
    if line.code is not None:
        tree["systemMetadata"] = {"code": line.code}
    if line.udf_path is not None:
        tree["componentPath"] = line.component_path or ""
        tree["udfPath"] = line.udf_path
    return tree


def attribute(lines: Iterable[LogLine], component_path: str, udf_path: str) -> list[LogLine]:
    """Lines of a nested call, with its path; lines of its own nested calls keep theirs."""
    return [
        line if line.udf_path is not None else attrs.evolve(line, component_path=component_path, udf_path=udf_path)
        for line in lines
    ]


def flatten(raw: Sequence[Mapping[str, object]], nested: Mapping[int, Sequence[LogLine]]) -> list[LogLine]:
    """The lines of one run in order, those of nested calls in place of their ``{nested: seq}`` markers.

    :param nested: lines by the seq of the syscall that ran the nested call; groups without a marker (the parent never saw the
        answer) follow at the end.
    :raises ValueError: a member is not a line.
    """
    lines: list[LogLine] = []
    seen: set[int] = set()
    for entry in raw:
        seq = entry.get("nested")
        if isinstance(seq, int):
            if seq not in seen:
                seen.add(seq)
                lines.extend(nested.get(seq, ()))
        else:
            lines.append(parse_line(entry))
    for seq, group in nested.items():
        if seq not in seen:
            lines.extend(group)
    return lines


def cap(lines: Sequence[LogLine]) -> tuple[LogLine, ...]:
    """At most 256 lines of the functions; the 256th of a longer run says so. System lines do not count and follow.

    What runs ``"use node"`` actions has counted by itself, with the line that says so as the 257th.
    """
    if len(lines) < MAX_LINES:
        return tuple(lines)
    own = [line for line in lines if line.code is None]
    if len(own) < MAX_LINES or (len(own) <= MAX_LINES + 1 and own[-1].messages == (OVERFLOW_TEXT,)):
        return tuple(lines)
    overflow = LogLine((OVERFLOW_TEXT,), "ERROR", own[MAX_LINES - 1].timestamp)
    return (*own[: MAX_LINES - 1], overflow, *(line for line in lines if line.code is not None))
