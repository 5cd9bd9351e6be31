"""When cron patterns match, and which are refused."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from convex_backend.application.cron_schedule import Interval, Pattern, parse_pattern, parse_schedule
from convex_backend.errors import BadRequest

SECOND = 1_000_000_000


def ns(text: str) -> int:
    """Unix nanoseconds of an ISO time in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND


def shown(instant: int | None) -> str:
    """The reverse, to the minute."""
    assert instant is not None
    return datetime.fromtimestamp(instant // SECOND, UTC).isoformat(timespec="minutes").removesuffix("+00:00")


def following(pattern: str, start: str, count: int) -> list[str]:
    """The first matches after *start*."""
    parsed = parse_pattern(pattern)
    found = []
    at: int | None = ns(start)
    for _ in range(count):
        assert at is not None
        at = parsed.next_after(at)
        found.append(shown(at))
    return found


@pytest.mark.parametrize(
    ("pattern", "start", "expected"),
    [
        ("* * * * *", "2024-02-28T23:58", ["2024-02-28T23:59", "2024-02-29T00:00"]),
        ("*/20 * * * *", "2024-01-01T00:00", ["2024-01-01T00:20", "2024-01-01T00:40", "2024-01-01T01:00"]),
        ("50/4 0 * * *", "2024-01-01T00:00", ["2024-01-01T00:50", "2024-01-01T00:54", "2024-01-01T00:58"]),
        ("0 22-1 * * *", "2024-01-01T00:30", ["2024-01-01T01:00", "2024-01-01T22:00", "2024-01-01T23:00"]),
        ("0 22-4/3 * * *", "2024-01-01T00:00", ["2024-01-01T01:00", "2024-01-01T04:00", "2024-01-01T22:00"]),
        ("0 0 * * SUN", "2024-01-01T00:00", ["2024-01-07T00:00"]),
        ("0 0 * * 0", "2024-01-01T00:00", ["2024-01-07T00:00"]),
        ("0 0 * * 6", "2024-01-01T00:00", ["2024-01-06T00:00"]),
        ("0 0 * * fri-Sun", "2024-01-01T00:00", ["2024-01-05T00:00", "2024-01-06T00:00", "2024-01-07T00:00", "2024-01-12T00:00"]),
        ("0 0 1 NOV-feb *", "2024-03-05T00:00", ["2024-11-01T00:00", "2024-12-01T00:00", "2025-01-01T00:00", "2025-02-01T00:00", "2025-11-01T00:00"]),
        ("0 0 31 * *", "2024-01-31T00:00", ["2024-03-31T00:00", "2024-05-31T00:00"]),
        ("0 0 29 2 *", "2096-03-01T00:00", ["2104-02-29T00:00"]),
        ("0 0 L * *", "2024-02-01T00:00", ["2024-02-29T00:00", "2024-03-31T00:00"]),
        ("0 0 L-3 * *", "2024-02-01T00:00", ["2024-02-26T00:00", "2024-03-28T00:00"]),
        ("0 0 LW * *", "2024-03-01T00:00", ["2024-03-29T00:00", "2024-04-30T00:00"]),
        ("0 0 15W * *", "2024-06-01T00:00", ["2024-06-14T00:00", "2024-07-15T00:00"]),
        ("0 0 1W * *", "2024-06-01T00:00", ["2024-06-03T00:00"]),
        ("0 0 30W * *", "2024-06-01T00:00", ["2024-06-28T00:00"]),
        ("0 0 31W * *", "2024-06-01T00:00", ["2024-07-31T00:00", "2024-08-30T00:00"]),
        ("0 0 * * L", "2024-01-01T00:00", ["2024-01-06T00:00", "2024-01-13T00:00"]),
        ("0 0 * * 5L", "2024-01-01T00:00", ["2024-01-26T00:00", "2024-02-23T00:00"]),
        ("0 0 * * friL", "2024-01-01T00:00", ["2024-01-26T00:00"]),
        ("0 0 * * MON#1", "2024-01-01T00:00", ["2024-02-05T00:00"]),
        ("0 0 * * 4#5", "2024-01-01T00:00", ["2024-02-29T00:00", "2024-05-30T00:00"]),
        ("0 0 13 * 5", "2024-01-01T00:00", ["2024-01-05T00:00", "2024-01-12T00:00", "2024-01-13T00:00"]),
        ("0 0 */10 * MON", "2024-01-01T00:00", ["2024-01-08T00:00", "2024-01-11T00:00", "2024-01-15T00:00"]),
        ("0 0 1,15,L-1 2 *", "2024-01-01T00:00", ["2024-02-01T00:00", "2024-02-15T00:00", "2024-02-28T00:00"]),
    ],
)  # fmt: skip
def test_matches(pattern: str, start: str, expected: list[str]) -> None:
    """Each form of the dialect matches these times, in UTC, strictly after the start."""
    assert following(pattern, start, len(expected)) == expected


@pytest.mark.parametrize(
    "pattern",
    [
        "* * * * 7",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * 0 *",
        "*/0 * * * *",
        "* * *",
        "* * * * * *",
        "",
        "@daily",
        "a * * * *",
        "1-2-3 * * * *",
        "*-5 * * * *",
        "1, * * * *",
        "* * * * MON#6",
        "* * * * MON#0",
        "* * L-31 * *",
        "* * W * *",
        "* * * * ?",
        "L * * * *",
        "* * * * 1W",
        "-1 * * * *",
        "1.5 * * * *",
        "٣ * * * *",
    ],
)
def test_malformed(pattern: str) -> None:
    """What is not in the dialect is refused with the pattern as it was written."""
    with pytest.raises(BadRequest) as raised:
        parse_pattern(pattern)
    assert raised.value.code == "InvalidCron"
    assert raised.value.message.startswith(f'The cron spec "{pattern}" is invalid: ')


@pytest.mark.parametrize("pattern", ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 31W 2 *", "0 0 L-30 feb *"])
def test_never(pattern: str) -> None:
    """A pattern that never matches is refused."""
    with pytest.raises(BadRequest) as raised:
        parse_pattern(pattern)
    assert raised.value.code == "InvalidCron"
    assert raised.value.message == f'The cron spec "{pattern}" will never match any time'


@pytest.mark.parametrize(
    ("schedule", "pattern"),
    [
        ({"type": "hourly", "minuteUTC": 7}, "7 * * * *"),
        ({"type": "daily", "hourUTC": 4, "minuteUTC": 7}, "7 4 * * *"),
        ({"type": "weekly", "dayOfWeek": 0, "hourUTC": 4, "minuteUTC": 7}, "7 4 * * SUN"),
        ({"type": "monthly", "day": 31, "hourUTC": 4, "minuteUTC": 7}, "7 4 31 * *"),
        ({"type": "cron", "cronExpr": "1 2 3 4 5"}, "1 2 3 4 5"),
    ],
)
def test_named_schedules(schedule: dict[str, object], pattern: str) -> None:
    """Hourly, daily, weekly and monthly jobs are patterns."""
    assert parse_schedule(schedule) == parse_pattern(pattern)


def test_interval() -> None:
    """An interval runs at once, then each step after the run before; what is over is missed."""
    every = parse_schedule({"type": "interval", "seconds": 10})
    assert every == Interval(10)
    assert every.first(5 * SECOND) == 5 * SECOND
    assert every.following(5 * SECOND, 6 * SECOND) == (15 * SECOND, 0)
    assert every.following(5 * SECOND, 15 * SECOND) == (15 * SECOND, 0)
    assert every.following(5 * SECOND, 15 * SECOND + 1) == (25 * SECOND, 1)
    assert every.following(5 * SECOND, 47 * SECOND) == (55 * SECOND, 4)


def test_missed_runs_of_a_pattern() -> None:
    """After a long run the next match from now on is due; those between were missed."""
    pattern = parse_pattern("*/10 * * * *")
    assert pattern.following(ns("2024-01-01T00:00"), ns("2024-01-01T00:05")) == (ns("2024-01-01T00:10"), 0)
    assert pattern.following(ns("2024-01-01T00:00"), ns("2024-01-01T00:35")) == (ns("2024-01-01T00:40"), 3)
    assert pattern.following(ns("2024-01-01T00:00"), ns("2024-01-01T00:30")) == (ns("2024-01-01T00:30"), 2)


_ITEM = st.sampled_from(["*", "*/7", "5", "3-9", "9-3", "2/5", "1,4,8"])
_PATTERN = st.tuples(
    _ITEM,
    _ITEM,
    st.sampled_from(["*", "*/9", "13", "L", "L-2", "LW", "1W", "28W", "30-2", "31"]),
    st.sampled_from(["*", "2", "FEB-APR", "11-2", "*/5"]),
    st.sampled_from(["*", "0", "FRI-SUN", "L", "3L", "TUE#2", "*/2", "4#5"]),
).map(" ".join)
_START = st.integers(ns("2023-12-20T00:00") // 60 // SECOND, ns("2028-03-10T00:00") // 60 // SECOND)


def matches(pattern: Pattern, at: datetime) -> bool:
    """Whether one minute matches: written down without any of the shortcuts."""
    return (
        at.minute in pattern.minutes
        and at.hour in pattern.hours
        and at.month in pattern.months
        and at.day in days_of(pattern, at.year, at.month)
    )


@functools.cache
def days_of(pattern: Pattern, year: int, month: int) -> list[int]:
    """As the method, remembered: it is asked for every minute."""
    return pattern.days_of(year, month)


@settings(max_examples=60, deadline=None)
@given(_PATTERN, _START, st.integers(1, 3000))
def test_next_and_count_agree_with_minute_by_minute(text: str, start: int, minutes: int) -> None:
    """The next match and the number of matches are those found by looking at every minute."""
    try:
        pattern = parse_pattern(text)
    except BadRequest:
        assume(False)
    begin = datetime.fromtimestamp(start * 60, UTC)
    found = [at for n in range(1, minutes + 1) if matches(pattern, at := begin + timedelta(minutes=n))]
    end = start + minutes
    assert pattern.count(start * 60 * SECOND, end * 60 * SECOND) == len(found)
    upcoming = pattern.next_after(start * 60 * SECOND)
    if found:
        assert upcoming == int(found[0].timestamp()) * SECOND
    else:
        assert upcoming is not None and upcoming > end * 60 * SECOND
