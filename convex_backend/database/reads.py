"""What a transaction has read: index points and key intervals, the unit of conflicts, subscriptions and caching (A3).

Every document is also an entry of its tablet's by-id index: index id ``-tablet``, key = the 16-byte internal id. A ``get`` records
a point there; scans record half-open intervals ``[lower, upper)`` of sort-key bytes, ``upper`` ``None`` = to the end of the index.
Source: ``runtime.md`` section 10, ``docs/internals.md`` section 4.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

Point = tuple[int, bytes]
"""(index id, key)."""

Interval = tuple[int, bytes, bytes | None]
"""(index id, lower inclusive, upper exclusive or ``None`` = unbounded)."""


class _IntervalSet:
    """Disjoint, non-adjacent intervals of one index in key order. Only the last upper bound may be ``None``."""

    __slots__ = ("lowers", "uppers")

    def __init__(self) -> None:
        self.lowers: list[bytes] = []
        self.uppers: list[bytes | None] = []

    def add(self, lower: bytes, upper: bytes | None) -> None:
        lowers, uppers = self.lowers, self.uppers
        first = bisect_right(lowers, lower)
        if first:
            before = uppers[first - 1]
            if before is None:
                return
            if before >= lower:  # touches or overlaps the interval on its left
                first -= 1
                lower = lowers[first]
                if upper is not None and before > upper:
                    return
        last = len(lowers) if upper is None else bisect_right(lowers, upper)
        if last > first:
            end = uppers[last - 1]
            if upper is not None and (end is None or end > upper):
                upper = end
        lowers[first:last] = (lower,)
        uppers[first:last] = (upper,)

    def covers(self, key: bytes) -> bool:
        position = bisect_right(self.lowers, key)
        if not position:
            return False
        upper = self.uppers[position - 1]
        return upper is None or key < upper

    def find(self, key: bytes) -> tuple[bytes, bytes | None] | None:
        """The interval that holds *key*."""
        position = bisect_right(self.lowers, key)
        if position:
            upper = self.uppers[position - 1]
            if upper is None or key < upper:
                return self.lowers[position - 1], upper
        return None

    def copy(self) -> _IntervalSet:
        other = _IntervalSet()
        other.lowers = self.lowers[:]
        other.uppers = self.uppers[:]
        return other


class ReadSet:
    """The reads of one transaction. Mutable; grows only."""

    __slots__ = ("_intervals", "_points")

    def __init__(self) -> None:
        self._points: set[Point] = set()
        self._intervals: dict[int, _IntervalSet] = {}

    def add_point(self, index: int, key: bytes) -> None:
        """Record that the entry *key* of *index* was looked at, whether it exists or not."""
        self._points.add((index, key))

    def add_interval(self, index: int, lower: bytes, upper: bytes | None) -> None:
        """Record that all of ``[lower, upper)`` was examined. Overlapping and touching intervals merge; an empty one is ignored."""
        if upper is not None and upper <= lower:
            return
        intervals = self._intervals.get(index)
        if intervals is None:
            intervals = self._intervals[index] = _IntervalSet()
        intervals.add(lower, upper)

    def union(self, other: ReadSet) -> None:
        """Add all that *other* read."""
        self._points |= other._points
        for index, intervals in other._intervals.items():
            mine = self._intervals.get(index)
            if mine is None:
                self._intervals[index] = intervals.copy()
            else:
                for lower, upper in zip(intervals.lowers, intervals.uppers, strict=True):
                    mine.add(lower, upper)

    def copy(self) -> ReadSet:
        """An independent read set with the same content."""
        other = ReadSet()
        other._points = set(self._points)
        other._intervals = {index: intervals.copy() for index, intervals in self._intervals.items()}
        return other

    def overlaps(self, index: int, key: bytes) -> bool:
        """Whether a write of *key* in *index* touches what was read."""
        if (index, key) in self._points:
            return True
        intervals = self._intervals.get(index)
        return intervals is not None and intervals.covers(key)

    def interval_of(self, index: int, key: bytes) -> Interval | None:
        """The recorded interval that holds *key*, or ``None``."""
        intervals = self._intervals.get(index)
        found = intervals.find(key) if intervals is not None else None
        return (index, *found) if found else None

    @property
    def interval_count(self) -> int:
        """Merged intervals and points (the "database queries" limit, ``runtime.md`` section 8.6)."""
        return len(self._points) + sum(len(intervals.lowers) for intervals in self._intervals.values())

    @property
    def points(self) -> set[Point]:
        """The points; not to be changed by the caller."""
        return self._points

    @property
    def interval_indexes(self) -> Iterator[int]:
        """Ids of the indexes in which intervals were read."""
        return iter(self._intervals)

    def freeze(self) -> ReadToken:
        """An immutable copy for subscriptions and the result cache."""
        return ReadToken(
            frozenset(self._points),
            tuple(
                (index, tuple(intervals.lowers), tuple(intervals.uppers))
                for index, intervals in sorted(self._intervals.items())
            ),
        )


class ReadToken:
    """An immutable read set; equal tokens read the same. The hash is computed once.

    :ivar points: ``frozenset`` of (index, key).
    :ivar intervals: per index id, ascending: ``(index, lowers, uppers)``, disjoint intervals in key order.
    """

    __slots__ = ("_hash", "intervals", "points")

    def __init__(
        self,
        points: frozenset[Point] = frozenset(),
        intervals: tuple[tuple[int, tuple[bytes, ...], tuple[bytes | None, ...]], ...] = (),
    ) -> None:
        self.points = points
        self.intervals = intervals
        self._hash = hash((points, intervals))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, ReadToken):
            return NotImplemented
        return self._hash == other._hash and self.points == other.points and self.intervals == other.intervals

    def overlaps(self, index: int, key: bytes) -> bool:
        """Whether a write of *key* in *index* touches what was read."""
        if (index, key) in self.points:
            return True
        for own_index, lowers, uppers in self.intervals:
            if own_index == index:
                position = bisect_right(lowers, key)
                if position:
                    upper = uppers[position - 1]
                    return upper is None or key < upper
        return False

    @property
    def interval_indexes(self) -> Iterator[int]:
        """Ids of the indexes in which intervals were read."""
        return (index for index, _, _ in self.intervals)

    def each_interval(self) -> Iterator[Interval]:
        """Every interval."""
        for index, lowers, uppers in self.intervals:
            for lower, upper in zip(lowers, uppers, strict=True):
                yield index, lower, upper

    def thaw(self) -> ReadSet:
        """A mutable copy."""
        reads = ReadSet()
        reads._points = set(self.points)
        for index, lowers, uppers in self.intervals:
            intervals = reads._intervals[index] = _IntervalSet()
            intervals.lowers = list(lowers)
            intervals.uppers = list(uppers)
        return reads
