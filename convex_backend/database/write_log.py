"""The write log: what recent commits wrote, for conflict checks, subscriptions without gaps and cache validity.

Commits in timestamp order, pending ones included, each with the index keys that it wrote (old and new). Bounded by age and by number
of keys; below ``floor_ts`` nothing is known, and whoever asks about a time before it is told that it is too old.
Source: ``docs/internals.md`` sections 3 and 5, ``runtime.md`` section 10.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import attrs

from convex_backend.database.reads import Interval, Point, ReadSet, ReadToken
from convex_backend.database.timestamps import seconds_to_ns

DEFAULT_WINDOW_SECONDS = 300.0
DEFAULT_MAX_KEYS = 200_000
_WALK_COMMITS = 8


@attrs.frozen(slots=True)
class DocumentChange:
    """One document that a commit writes; at most one per document and commit.

    :param tablet: internal table identity (positive).
    :param id: 16-byte internal id.
    :param old_ts: timestamp of the version replaced, ``None`` for an insert.
    :param old_json: stored JSON text of the version replaced, ``None`` for an insert.
    :param new_json: stored JSON text of the new version, ``None`` for a deletion.
    :param index_changes: ``(index, old_key, new_key)`` for **every** index of the tablet, also when the key stays the same (the content under
        it changed, which conflicts with its readers); ``None`` = no entry. The by-id index is implied and not listed.
    """

    tablet: int
    id: bytes
    old_ts: int | None
    old_json: bytes | None
    new_json: bytes | None
    index_changes: tuple[tuple[int, bytes | None, bytes | None], ...] = ()


@attrs.frozen(slots=True, eq=False)
class CommitEvent:
    """A validated commit as listeners see it.

    :param ts: its timestamp.
    :param changes: the documents written.
    :param writer: function path, or ``None``.
    :param keys: every (index, key) written, old and new, by-id entries included.
    """

    ts: int
    changes: tuple[DocumentChange, ...]
    writer: str | None
    keys: tuple[Point, ...]


def written_keys(changes: Sequence[DocumentChange]) -> tuple[Point, ...]:
    """Every (index, key) that *changes* touch, by-id entries included."""
    keys: list[Point] = []
    for change in changes:
        keys.append((-change.tablet, change.id))
        for index, old_key, new_key in change.index_changes:
            if old_key is not None:
                keys.append((index, old_key))
            if new_key is not None and new_key != old_key:
                keys.append((index, new_key))
    return tuple(keys)


@attrs.frozen(slots=True)
class ConflictInfo:
    """Why a read set is no longer valid.

    :param ts: the commit that overtook it; for ``too_old`` the log's floor.
    :param key: the (index, key) written, ``None`` when ``too_old``.
    :param interval: the recorded interval that holds the key, ``None`` when it was read as a point.
    :param tablet: table of the document written. :param id: its internal id.
    :param too_old: the reads are older than the log; whether they are valid is not known.
    """

    ts: int
    key: Point | None = None
    interval: Interval | None = None
    tablet: int | None = None
    id: bytes | None = None
    writer: str | None = None
    too_old: bool = False


class WriteLog:
    """Recent commits by time, and by key.

    :param floor_ts: nothing at or before this is in the log.
    """

    def __init__(
        self, floor_ts: int, *, window_seconds: float = DEFAULT_WINDOW_SECONDS, max_keys: int = DEFAULT_MAX_KEYS
    ) -> None:
        self.floor_ts = floor_ts
        self.last_ts = floor_ts
        self.key_count = 0
        self._window_ns = seconds_to_ns(window_seconds)
        self._max_keys = max_keys
        self._events: deque[CommitEvent] = deque()
        self._by_key: dict[Point, CommitEvent] = {}
        self._by_index: dict[int, deque[tuple[int, bytes, CommitEvent]]] = {}

    def __len__(self) -> int:
        return len(self._events)

    def append(self, event: CommitEvent) -> None:
        """Add a commit; its timestamp is greater than every earlier one."""
        if event.ts <= self.last_ts:
            raise ValueError(f"commit {event.ts} is not after {self.last_ts}")
        self.last_ts = event.ts
        self._events.append(event)
        self._index_event(event)

    def _index_event(self, event: CommitEvent) -> None:
        ts, by_key, by_index = event.ts, self._by_key, self._by_index
        for point in event.keys:
            by_key[point] = event
            log = by_index.get(point[0])
            if log is None:
                log = by_index[point[0]] = deque()
            log.append((ts, point[1], event))
        self.key_count += len(event.keys)

    def prune(self, durable_ts: int) -> None:
        """Forget commits that are older than the window or over the bound; never one above *durable_ts*."""
        oldest = durable_ts - self._window_ns
        events = self._events
        while events:
            event = events[0]
            if event.ts > durable_ts or (event.ts > oldest and self.key_count <= self._max_keys):
                return
            events.popleft()
            self.floor_ts = event.ts
            self.key_count -= len(event.keys)
            for point in event.keys:
                if self._by_key.get(point) is event:
                    del self._by_key[point]
                log = self._by_index[point[0]]
                log.popleft()
                if not log:
                    del self._by_index[point[0]]

    def drop_above(self, ts: int) -> None:
        """Forget the commits above *ts*: their group failed (A5). Their timestamps stay used."""
        while self._events and self._events[-1].ts > ts:
            self._events.pop()
        self._by_key.clear()
        self._by_index.clear()
        self.key_count = 0
        for event in self._events:
            self._index_event(event)

    def events_between(self, after_ts: int, until_ts: int) -> list[CommitEvent]:
        """Commits with ``after_ts < ts <= until_ts``, ascending. The caller checks ``floor_ts``."""
        found = []
        for event in reversed(self._events):
            if event.ts <= after_ts:
                break
            if event.ts <= until_ts:
                found.append(event)
        found.reverse()
        return found

    def conflict(self, reads: ReadSet | ReadToken, since_ts: int, until_ts: int) -> ConflictInfo | None:
        """The first overlap found between *reads* and the commits in ``(since_ts, until_ts]``, or ``None``.

        The cost is the smaller of (keys written since) and (points read + keys written in the indexes whose intervals were read).
        """
        if since_ts >= until_ts:
            return None
        if since_ts < self.floor_ts:
            return ConflictInfo(self.floor_ts, too_old=True)
        walked = 0
        overlaps = reads.overlaps
        for event in reversed(self._events):
            if event.ts <= since_ts:
                return None
            if event.ts > until_ts:
                continue
            walked += 1
            if walked > _WALK_COMMITS:
                break
            for point in event.keys:
                if overlaps(point[0], point[1]):
                    return self._describe(event, point, reads)
        else:
            return None
        return self._conflict_by_key(reads, since_ts, until_ts)

    def _conflict_by_key(self, reads: ReadSet | ReadToken, since_ts: int, until_ts: int) -> ConflictInfo | None:
        by_key = self._by_key
        for point in reads.points:
            event = by_key.get(point)
            if event is not None and event.ts > since_ts:
                if event.ts <= until_ts:
                    return self._describe(event, point, reads)
                for ts, key, earlier in reversed(self._by_index[point[0]]):
                    if ts <= since_ts:
                        break
                    if ts <= until_ts and key == point[1]:
                        return self._describe(earlier, point, reads)
        for index in reads.interval_indexes:
            for ts, key, event in reversed(self._by_index.get(index, ())):
                if ts <= since_ts:
                    break
                if ts <= until_ts and reads.overlaps(index, key):
                    return self._describe(event, (index, key), reads)
        return None

    @staticmethod
    def _describe(event: CommitEvent, point: Point, reads: ReadSet | ReadToken) -> ConflictInfo:
        index, key = point
        interval = None
        if point not in reads.points:
            source = reads if isinstance(reads, ReadSet) else reads.thaw()
            interval = source.interval_of(index, key)
        for change in event.changes:
            if (index < 0 and change.tablet == -index and change.id == key) or any(
                entry[0] == index and key in entry[1:] for entry in change.index_changes
            ):
                return ConflictInfo(event.ts, point, interval, change.tablet, change.id, event.writer)
        return ConflictInfo(event.ts, point, interval, writer=event.writer)
