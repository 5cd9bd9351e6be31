"""Consistent views of the database at one timestamp (A1, A4, A5).

A snapshot near the newest time reads the file's current rows, corrected by the overlay, without leaving the reactor thread; an older one
reads history in a worker thread. Source: ``docs/internals.md`` section 3.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from convex_backend.database.overlay import IndexOverlay, Overlay
from convex_backend.database.timestamps import seconds_to_ns
from convex_backend.database.write_log import CommitEvent
from convex_backend.errors import OutOfRetention, Rerun
from convex_backend.interfaces import IPersistence, Row

_SPARE_ROWS = 32
DEFAULT_MAX_PINNED_SECONDS = 10.0
DEFAULT_MAX_OVERLAY_KEYS = 500_000


class BelowFloor(Exception):
    """The snapshot is older than the overlay: only the asynchronous reads can serve it."""


class Snapshot:
    """The database at ``ts``. Made by :meth:`SnapshotManager.open`; close it when done.

    Reads at or above the overlay's floor never wait; the ``async`` forms then have no ``await`` on their way.
    Cancelling an older read drops the result.

    :ivar ts: the timestamp (ns); changes only through :meth:`move_to`.
    """

    __slots__ = ("_closed", "_dead", "_manager", "_overlay", "_persistence", "ts")

    def __init__(self, manager: SnapshotManager, ts: int) -> None:
        self.ts = ts
        self._manager = manager
        self._overlay = manager.overlay
        self._persistence = manager.persistence
        self._dead = False
        self._closed = False

    @property
    def dead(self) -> bool:
        """Its timestamp was never made durable (A5): every read raises ``Rerun``."""
        return self._dead

    def get_now(self, tablet: int, id: bytes) -> Row | None:
        """The document *id* of *tablet* at ``ts``; the row's ``key`` is the id.

        :raises BelowFloor: only :meth:`get` can serve this snapshot.
        :raises Rerun: the snapshot saw commits that failed.
        """
        overlay = self._overlay
        if self._dead or self.ts < overlay.floor_ts:
            self._refuse()
        entries = overlay.indexes.get(-tablet)
        if entries is not None:
            chain = entries.chains.get(id)
            if chain is not None:
                _, doc_ts, json, _ = chain.at(self.ts)
                return None if json is None else Row(id, id, doc_ts, json)
        row: Row | None = self._persistence.get(tablet, id)
        return row

    async def get(self, tablet: int, id: bytes) -> Row | None:
        """Like :meth:`get_now` at any age.

        :raises OutOfRetention: the history at ``ts`` has been pruned.
        """
        if self._dead or self.ts < self._overlay.floor_ts:
            self._check_history()
            row: Row | None = await self._persistence.get_at(tablet, id, self.ts)
            self._check_history()
            return row
        return self.get_now(tablet, id)

    def scan_now(
        self, index: int, tablet: int, lower: bytes, upper: bytes | None, reverse: bool, limit: int
    ) -> list[Row]:
        """At most *limit* rows of *index* with ``lower <= key < upper`` in key order (descending when *reverse*).

        Fewer than *limit* rows mean that the interval is exhausted. A negative *index* is the by-id index of *tablet*.

        :raises BelowFloor: only :meth:`scan` can serve this snapshot.
        :raises Rerun: the snapshot saw commits that failed.
        """
        overlay = self._overlay
        if self._dead or self.ts < overlay.floor_ts:
            self._refuse()
        entries = overlay.indexes.get(index)
        if entries is None:
            return self._file_rows(index, tablet, lower, upper, reverse, limit)
        pinned = self.ts < overlay.durable_ts
        if not pinned and not entries.fresh:
            return self._file_rows(index, tablet, lower, upper, reverse, limit)
        return self._merged_rows(entries, pinned, index, tablet, lower, upper, reverse, limit)

    async def scan(
        self, index: int, tablet: int, lower: bytes, upper: bytes | None, reverse: bool, limit: int
    ) -> list[Row]:
        """Like :meth:`scan_now` at any age.

        :raises OutOfRetention: the history at ``ts`` has been pruned.
        """
        if self._dead or self.ts < self._overlay.floor_ts:
            self._check_history()
            rows: list[Row]
            if index < 0:
                rows = await self._persistence.scan_documents_at(tablet, lower, upper, reverse, limit, self.ts)
            else:
                rows = await self._persistence.scan_index_at(index, lower, upper, reverse, limit, self.ts)
            self._check_history()
            return rows
        return self.scan_now(index, tablet, lower, upper, reverse, limit)

    def move_to(self, newer_ts: int) -> None:
        """Move forward (A6). The caller has checked that what was read is still valid at *newer_ts*, and drops rows it prefetched."""
        if newer_ts < self.ts:
            raise ValueError(f"a snapshot moves forward only: {newer_ts} is before {self.ts}")
        if newer_ts != self.ts:
            self._manager.moved(self, newer_ts)

    def close(self) -> None:
        """Let the overlay forget this timestamp; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._manager.closed(self)

    def _refuse(self) -> None:
        if self._dead:
            raise Rerun("The snapshot saw commits that could not be made durable.")
        raise BelowFloor

    def _check_history(self) -> None:
        if self._dead:
            self._refuse()
        if self.ts < self._manager.watermark_ts:
            raise OutOfRetention

    def _file_rows(
        self, index: int, tablet: int, lower: bytes, upper: bytes | None, reverse: bool, limit: int
    ) -> list[Row]:
        rows: list[Row]
        if index < 0:
            rows = self._persistence.scan_documents(tablet, lower, upper, reverse, limit)
        else:
            rows = self._persistence.scan_index(index, lower, upper, reverse, limit)
        return rows

    def _merged_rows(
        self,
        entries: IndexOverlay,
        pinned: bool,
        index: int,
        tablet: int,
        lower: bytes,
        upper: bytes | None,
        reverse: bool,
        limit: int,
    ) -> list[Row]:
        """Rows of the file that have no chain, merged with what the chains hold at ``ts``.

        The file is read in chunks. Within a chunk the overlay's rows up to the chunk's last key are merged in; a chunk that came up short ends the
        interval, and then the overlay's remaining rows follow.
        """
        chains = entries.chains
        overlay_rows = self._overlay_rows(entries, lower, upper, reverse, pinned)
        head = next(overlay_rows, None)
        found: list[Row] = []
        while True:
            wanted = limit - len(found) + _SPARE_ROWS
            chunk = self._file_rows(index, tablet, lower, upper, reverse, wanted)
            for row in chunk:
                key = row.key
                while head is not None and (head.key > key if reverse else head.key < key):
                    found.append(head)
                    if len(found) == limit:
                        return found
                    head = next(overlay_rows, None)
                chain = chains.get(key)
                # At the newest time a pinned chain says what the file says, and its key is not among the overlay's rows.
                if chain is None or not (chain.fresh or pinned):
                    found.append(row)
                    if len(found) == limit:
                        return found
            if len(chunk) < wanted:
                break
            if reverse:
                upper = chunk[-1].key
            else:
                lower = chunk[-1].key + b"\x00"
        while head is not None and len(found) < limit:
            found.append(head)
            head = next(overlay_rows, None)
        return found

    def _overlay_rows(
        self, entries: IndexOverlay, lower: bytes, upper: bytes | None, reverse: bool, pinned: bool
    ) -> Iterator[Row]:
        ts, chains = self.ts, entries.chains
        for key in entries.keys(lower, upper, reverse, pinned):
            _, doc_ts, json, document = chains[key].at(ts)
            if json is not None:
                yield Row(key, document, doc_ts, json)


class SnapshotManager:
    """Opens snapshots and knows the oldest one that is open.

    :param persistence: the opened ``IPersistence``.
    :param max_pinned_seconds: an open snapshot keeps the overlay for at most this long behind ``durable_ts``; then its reads go to history.
    :param max_overlay_keys: above this many overlay entries, open snapshots keep nothing.
    """

    def __init__(
        self,
        persistence: IPersistence,
        overlay: Overlay,
        *,
        max_pinned_seconds: float = DEFAULT_MAX_PINNED_SECONDS,
        max_overlay_keys: int = DEFAULT_MAX_OVERLAY_KEYS,
    ) -> None:
        self.persistence = persistence
        self.overlay = overlay
        self.watermark_ts = 0
        self._max_pinned_ns = seconds_to_ns(max_pinned_seconds)
        self._max_overlay_keys = max_overlay_keys
        self._open: set[Snapshot] = set()
        self._counts: dict[int, int] = {}
        self._heap: list[int] = []

    @property
    def open_count(self) -> int:
        """Snapshots that are open."""
        return len(self._open)

    def open(self, ts: int) -> Snapshot:
        """A snapshot at *ts*, which is not above the newest pending commit.

        :raises OutOfRetention: the history at *ts* has been pruned.
        """
        if ts < self.watermark_ts:
            raise OutOfRetention
        snapshot = Snapshot(self, ts)
        self._open.add(snapshot)
        self._count(ts)
        return snapshot

    def close(self, snapshot: Snapshot) -> None:
        """Same as ``snapshot.close()``."""
        snapshot.close()

    def closed(self, snapshot: Snapshot) -> None:
        """Called by :meth:`Snapshot.close`."""
        self._open.discard(snapshot)
        self._uncount(snapshot.ts)

    def moved(self, snapshot: Snapshot, newer_ts: int) -> None:
        """Called by :meth:`Snapshot.move_to`."""
        self._count(newer_ts)
        self._uncount(snapshot.ts)
        snapshot.ts = newer_ts

    def oldest(self) -> int | None:
        """Timestamp of the oldest open snapshot."""
        heap, counts = self._heap, self._counts
        while heap and heap[0] not in counts:
            heapq.heappop(heap)
        return heap[0] if heap else None

    def append(self, event: CommitEvent) -> None:
        """A commit became pending."""
        self.overlay.append(event)

    def advance(self, durable_ts: int) -> None:
        """Commits up to *durable_ts* are in the file."""
        floor = durable_ts
        if self.overlay.size <= self._max_overlay_keys:
            oldest = self.oldest()
            if oldest is not None:
                floor = max(min(oldest, durable_ts), durable_ts - self._max_pinned_ns)
        self.overlay.advance(durable_ts, floor)

    def drop_above(self, ts: int) -> None:
        """Commits above *ts* failed: forget them, and fail the snapshots that may have seen them."""
        self.overlay.drop_above(ts)
        for snapshot in self._open:
            if snapshot.ts > ts:
                snapshot._dead = True

    def _count(self, ts: int) -> None:
        count = self._counts.get(ts)
        if count is None:
            self._counts[ts] = 1
            heapq.heappush(self._heap, ts)
        else:
            self._counts[ts] = count + 1

    def _uncount(self, ts: int) -> None:
        count = self._counts[ts] - 1
        if count:
            self._counts[ts] = count
        else:
            del self._counts[ts]
