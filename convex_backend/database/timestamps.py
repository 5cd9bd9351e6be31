"""Commit timestamps: int64 nanoseconds, strictly increasing, never reused (A1)."""

from __future__ import annotations

NANOSECONDS_PER_SECOND = 1_000_000_000
MAX_TIMESTAMP = 2**63 - 1


def next_timestamp(last_assigned: int, now_ns: int) -> int:
    """The timestamp of the next commit: the present, or just after the last one when the clock stands or goes back.

    :raises OverflowError: int64 is used up (the year 2262).
    """
    ts = now_ns if now_ns > last_assigned else last_assigned + 1
    if ts > MAX_TIMESTAMP:
        raise OverflowError("commit timestamps do not fit into 64 bits")
    return ts


def seconds_to_ns(seconds: float) -> int:
    """A duration in nanoseconds."""
    return int(seconds * NANOSECONDS_PER_SECOND)
