"""When cron jobs run: intervals, and five-field patterns in UTC.

All instants are unix nanoseconds. A stored schedule (``push.md`` section 5.3) becomes an :class:`Interval` or a :class:`Pattern`.

The pattern's dialect is that of ``runtime.md`` section 9.5: it has ``L``, ``L-n``, ``LW``, ``nW``, ``nL``, ``n#k``, ranges that wrap, no
weekday 7, and "either day matches" whenever both day fields are restricted by anything but ``*``. No cron package has these rules together
(cronsim 2.8 knows neither ``nW`` nor ``L-n`` nor ranges that wrap, croniter 7 neither ``LW`` nor ``L-n`` nor ``nL``, both take 7 for Sunday), so
the little that it takes is here.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from calendar import monthrange
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import attrs

from convex_backend.errors import BadRequest

_SECOND: Final = 1_000_000_000
_MINUTE: Final = 60 * _SECOND
#: The calendar repeats after 400 years: what has not matched by then never will.
_HORIZON_MONTHS: Final = 400 * 12
_LAST_YEAR: Final = 9999

_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"), start=1
    )
}
_WEEKDAYS: Final = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"))}
_SATURDAY: Final = 6


class Schedule(Protocol):
    """When a job runs."""

    def first(self, now_ns: int) -> int:
        """The first run of a job that is new, or has a new schedule, at *now_ns*."""

    def following(self, previous_ns: int, now_ns: int) -> tuple[int, int]:
        """The run after the one that was due at *previous_ns* and has ended by *now_ns*.

        :returns: when it is due, not before *now_ns*, and how many runs between the two were missed.
        """


@attrs.frozen(slots=True)
class Interval:
    """Every so many seconds, at once for the first time."""

    seconds: int

    def first(self, now_ns: int) -> int:
        """See :class:`Schedule`."""
        return now_ns

    def following(self, previous_ns: int, now_ns: int) -> tuple[int, int]:
        """See :class:`Schedule`."""
        step = self.seconds * _SECOND
        due = previous_ns + step
        missed = max(0, -((due - now_ns) // step)) if due < now_ns else 0
        return due + missed * step, missed


@attrs.frozen(slots=True)
class Days:
    """The day-of-month field, or the day-of-week field.

    :param plain: numbers as written, weekdays with Sunday as 0.
    :param restricted: the field is something else than ``*``.
    :param from_last: of day of month: so many days before the last one (``L`` is 0).
    :param last_workday: ``LW``: the last Monday to Friday of the month.
    :param near: ``nW``: the Monday to Friday nearest to these days, within the month.
    :param last: of day of week: ``nL``, the last such weekday of the month.
    :param nth: ``n#k``: the k-th such weekday.
    """

    plain: frozenset[int]
    restricted: bool
    from_last: frozenset[int] = frozenset()
    last_workday: bool = False
    near: frozenset[int] = frozenset()
    last: frozenset[int] = frozenset()
    nth: frozenset[tuple[int, int]] = frozenset()


@attrs.frozen(slots=True)
class Pattern:
    """Minutes, in UTC, whose five fields match. ``minutes``, ``hours`` and ``months`` ascend; none is empty."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: Days
    months: tuple[int, ...]
    weekdays: Days

    def first(self, now_ns: int) -> int:
        """See :class:`Schedule`."""
        due = self.next_after(now_ns)
        assert due is not None, "a pattern that never matches is refused when it is parsed"
        return due

    def following(self, previous_ns: int, now_ns: int) -> tuple[int, int]:
        """See :class:`Schedule`."""
        due = self.first(previous_ns)
        if due >= now_ns:
            return due, 0
        return self.first(now_ns - 1), self.count(previous_ns, now_ns - 1)

    def next_after(self, after_ns: int) -> int | None:
        """The first match strictly after *after_ns*; ``None`` when there is none in 400 years."""
        start = datetime.fromtimestamp((after_ns // _MINUTE + 1) * 60, UTC)
        year, month, first_day = start.year, start.month, start.day
        for _ in range(_HORIZON_MONTHS + 1):
            if month in self.months:
                for day in self.days_of(year, month):
                    if day < first_day:
                        continue
                    today = start if (year, month, day) == (start.year, start.month, start.day) else None
                    time = self._first_time(today)
                    if time is not None:
                        found = datetime(year, month, day, *time, tzinfo=UTC)
                        return int(found.timestamp()) * _SECOND
            first_day = 1
            month += 1
            if month > 12:
                month, year = 1, year + 1
                if year > _LAST_YEAR:
                    return None
        return None

    def _first_time(self, today: datetime | None) -> tuple[int, int] | None:
        """The first hour and minute of a day, not before the time of *today*."""
        if today is None:
            return self.hours[0], self.minutes[0]
        at = bisect_left(self.hours, today.hour)
        if at < len(self.hours) and self.hours[at] == today.hour:
            minute = bisect_left(self.minutes, today.minute)
            if minute < len(self.minutes):
                return today.hour, self.minutes[minute]
            at += 1
        return (self.hours[at], self.minutes[0]) if at < len(self.hours) else None

    def count(self, after_ns: int, until_ns: int) -> int:
        """How many matches there are after *after_ns* and not after *until_ns*; the work is one step for each month between."""
        return self._count_until(until_ns, after_ns) if until_ns > after_ns else 0

    def _count_until(self, until_ns: int, after_ns: int) -> int:
        first = datetime.fromtimestamp(after_ns // _SECOND, UTC)
        last = datetime.fromtimestamp(until_ns // _SECOND, UTC)
        per_day = len(self.hours) * len(self.minutes)
        total = 0
        year, month = first.year, first.month
        while (year, month) <= (last.year, last.month):
            if month in self.months:
                days = self.days_of(year, month)
                total += per_day * len(days)
                if (year, month) == (first.year, first.month):
                    total -= self._matches_until(days, first)
                if (year, month) == (last.year, last.month):
                    total -= per_day * len(days) - self._matches_until(days, last)
            month, year = (1, year + 1) if month == 12 else (month + 1, year)
        return total

    def _matches_until(self, days: list[int], moment: datetime) -> int:
        """Matches of a month up to the minute of *moment*, itself included."""
        before = bisect_left(days, moment.day)
        total = before * len(self.hours) * len(self.minutes)
        if before < len(days) and days[before] == moment.day:
            hour = bisect_left(self.hours, moment.hour)
            total += hour * len(self.minutes)
            if hour < len(self.hours) and self.hours[hour] == moment.hour:
                total += bisect_right(self.minutes, moment.minute)
        return total

    def days_of(self, year: int, month: int) -> list[int]:
        """The matching days of a month whose number matches, ascending."""
        first_weekday, length = monthrange(year, month)
        sunday_first = (first_weekday + 1) % 7
        in_month = _days_of_month(self.days, sunday_first, length) if self.days.restricted else set()
        if self.weekdays.restricted:
            in_month |= _weekdays_of_month(self.weekdays, sunday_first, length)
        elif not self.days.restricted:
            return list(range(1, length + 1))
        return sorted(in_month)


def _days_of_month(days: Days, first_weekday: int, length: int) -> set[int]:
    found = {day for day in days.plain if day <= length}
    found |= {length - back for back in days.from_last if back < length}
    if days.last_workday:
        found.add(_nearest_workday(length, first_weekday, length))
    return found | {_nearest_workday(day, first_weekday, length) for day in days.near if day <= length}


def _nearest_workday(day: int, first_weekday: int, length: int) -> int:
    weekday = (first_weekday + day - 1) % 7
    if weekday == _SATURDAY:
        return day - 1 if day > 1 else day + 2
    if weekday == 0:
        return day + 1 if day < length else day - 2
    return day


def _weekdays_of_month(weekdays: Days, first_weekday: int, length: int) -> set[int]:
    found: set[int] = set()
    for day in range(1, length + 1):
        weekday = (first_weekday + day - 1) % 7
        if (
            weekday in weekdays.plain
            or (weekday in weekdays.last and day + 7 > length)
            or (weekday, (day + 6) // 7) in weekdays.nth
        ):
            found.add(day)
    return found


# -- parsing --------------------------------------------------------------------------------------------


class _Mistake(Exception):
    """What is wrong with a field; becomes part of the error's text."""


def parse_schedule(schedule: Mapping[str, Any]) -> Schedule:
    """The stored form of a schedule (``push.md`` section 5.3), with a minute wherever there can be one.

    :raises BadRequest: ``InvalidCron``: a pattern is malformed, or never matches.
    """
    kind = schedule["type"]
    if kind == "interval":
        return Interval(int(schedule["seconds"]))
    if kind == "cron":
        return parse_pattern(schedule["cronExpr"])
    minutes = (int(schedule["minuteUTC"]),)
    hours = tuple(range(24)) if kind == "hourly" else (int(schedule["hourUTC"]),)
    days = weekdays = _ANY_DAY
    if kind == "weekly":
        weekdays = Days(frozenset((int(schedule["dayOfWeek"]),)), True)
    elif kind == "monthly":
        days = Days(frozenset((int(schedule["day"]),)), True)
    elif kind not in ("hourly", "daily"):
        raise BadRequest("InvalidCron", f"Unknown cron schedule type: {kind}")
    return Pattern(minutes, hours, days, tuple(range(1, 13)), weekdays)


def parse_pattern(text: str) -> Pattern:
    """A five-field pattern.

    :raises BadRequest: ``InvalidCron``: it is malformed, or never matches.
    """
    fields = text.upper().split()
    try:
        if len(fields) != 5:
            raise _Mistake(f"expected 5 fields separated by spaces, found {len(fields)}")
        minute, hour, day, month, weekday = fields
        pattern = Pattern(
            _numbers("minute", minute, 0, 59),
            _numbers("hour", hour, 0, 23),
            _days(day),
            _numbers("month", month, 1, 12, _MONTHS),
            _weekdays(weekday),
        )
    except _Mistake as error:
        raise BadRequest("InvalidCron", f'The cron spec "{text}" is invalid: {error}') from None
    if pattern.next_after(0) is None:
        raise BadRequest("InvalidCron", f'The cron spec "{text}" will never match any time')
    return pattern


_ANY_DAY: Final = Days(frozenset(), restricted=False)
_NO_NAMES: Final[Mapping[str, int]] = {}
_ITEM: Final = re.compile(r"(?P<from>\*|[0-9A-Z]+)(?:-(?P<to>[0-9A-Z]+))?(?:/(?P<step>[0-9]+))?")
_BEFORE_LAST: Final = re.compile(r"L(?:-([0-9]{1,2}))?")
_NEAR: Final = re.compile(r"([0-9]{1,2})W")
_LAST_WEEKDAY: Final = re.compile(r"([0-6]|SUN|MON|TUE|WED|THU|FRI|SAT)L")
_NTH_WEEKDAY: Final = re.compile(r"([0-9A-Z]+)#([0-9]+)")


def _numbers(field: str, text: str, low: int, high: int, names: Mapping[str, int] = _NO_NAMES) -> tuple[int, ...]:
    found: set[int] = set()
    for item in text.split(","):
        found.update(_item(field, item, low, high, names))
    return tuple(sorted(found))


def _item(field: str, item: str, low: int, high: int, names: Mapping[str, int]) -> Iterable[int]:
    match = _ITEM.fullmatch(item)
    if match is None:
        raise _Mistake(f'cannot understand "{item}" in the {field} field')
    step = int(match["step"]) if match["step"] is not None else None
    if step is not None and not 1 <= step <= high:
        raise _Mistake(f"step {step} is out of range in the {field} field")
    if match["from"] == "*":
        if match["to"] is not None:
            raise _Mistake(f'cannot understand "{item}" in the {field} field')
        return range(low, high + 1, step or 1)
    first = _number(field, match["from"], low, high, names)
    if match["to"] is None:
        return (first,) if step is None else range(first, high + 1, step)
    last = _number(field, match["to"], low, high, names)
    if first <= last:
        return range(first, last + 1, step or 1)
    wrapped = (*range(first, high + 1), *range(low, last + 1))
    return wrapped[:: step or 1]


def _number(field: str, text: str, low: int, high: int, names: Mapping[str, int]) -> int:
    if text in names:
        return names[text]
    if not text.isdigit():
        raise _Mistake(f'cannot understand "{text}" in the {field} field')
    number = int(text) if len(text) <= 2 else high + 1
    if not low <= number <= high:
        raise _Mistake(f"{text} is out of range in the {field} field")
    return number


def _days(text: str) -> Days:
    if text == "*":
        return _ANY_DAY
    plain: set[int] = set()
    from_last: set[int] = set()
    near: set[int] = set()
    last_workday = False
    for item in text.split(","):
        if item == "LW":
            last_workday = True
        elif (match := _BEFORE_LAST.fullmatch(item)) is not None:
            from_last.add(_number("day of month", match[1], 1, 30, _NO_NAMES) if match[1] is not None else 0)
        elif (match := _NEAR.fullmatch(item)) is not None:
            near.add(_number("day of month", match[1], 1, 31, _NO_NAMES))
        else:
            plain.update(_item("day of month", item, 1, 31, _NO_NAMES))
    return Days(frozenset(plain), True, frozenset(from_last), last_workday, frozenset(near))


def _weekdays(text: str) -> Days:
    if text == "*":
        return _ANY_DAY
    plain: set[int] = set()
    last: set[int] = set()
    nth: set[tuple[int, int]] = set()
    for item in text.split(","):
        if item == "L":
            plain.add(_SATURDAY)
        elif (match := _LAST_WEEKDAY.fullmatch(item)) is not None:
            last.add(_number("day of week", match[1], 0, 6, _WEEKDAYS))
        elif (match := _NTH_WEEKDAY.fullmatch(item)) is not None:
            which = _number("day of week", match[1], 0, 6, _WEEKDAYS)
            nth.add((which, _number("day of week", match[2], 1, 5, _NO_NAMES)))
        else:
            plain.update(_item("day of week", item, 0, 6, _WEEKDAYS))
    return Days(frozenset(plain), True, last=frozenset(last), nth=frozenset(nth))
