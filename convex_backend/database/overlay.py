"""The overlay: document versions newer than what every reader may take from the file (A1, A4).

Per index (by-id included, id ``-tablet``) a map from key to the *chain* of what stood there: a base (valid since before) and one version
for each commit. **A key with a chain is served by its chain, any other by the file**, so it does not matter whether the writer thread has
committed a group that the reactor has not heard of.

* A chain with a version above ``durable_ts`` is *fresh*: its key is in the sorted list that reads at or above ``durable_ts`` merge with
  the file's rows.
* A chain whose versions are all durable, but newer than ``floor_ts`` (the oldest open snapshot), is *pinned*: reads at or above ``durable_ts``
  may as well take the file's row, so they don't step over it. A scan at the newest time therefore never pays for rows that were deleted long ago.
* A chain with nothing newer than ``floor_ts`` is dropped. Reads below ``floor_ts`` go to history.

Source: ``docs/internals.md`` section 3.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Iterator

from sortedcontainers import SortedList

from convex_backend.database.reads import Point
from convex_backend.database.write_log import CommitEvent, DocumentChange

Version = tuple[int, int, bytes | None, bytes]
"""(valid from this commit, timestamp of the document version, stored JSON or ``None`` = no entry, the document's id)."""


class Chain:
    """The versions of one index entry, oldest first; the first is the base, whose start is 0.

    The key of a unique system index may pass from one document to another: each version knows whose it is.
    """

    __slots__ = ("fresh", "versions")

    def __init__(self, base: Version, version: Version) -> None:
        self.versions: list[Version] = [base, version]
        self.fresh = True

    def at(self, ts: int) -> Version:
        """What stands there at *ts* (not below the overlay's floor)."""
        versions = self.versions
        newest = versions[-1]
        if newest[0] <= ts:
            return newest
        for version in reversed(versions):
            if version[0] <= ts:
                return version
        return versions[0]


class IndexOverlay:
    """The chains of one index."""

    __slots__ = ("chains", "fresh", "pinned")

    def __init__(self) -> None:
        self.chains: dict[bytes, Chain] = {}
        self.fresh: list[bytes] = []
        self.pinned: SortedList = SortedList()

    def keys(self, lower: bytes, upper: bytes | None, reverse: bool, pinned: bool) -> Iterable[bytes]:
        """Keys of ``[lower, upper)`` in order; with *pinned* also those that only older snapshots need."""
        first = bisect_left(self.fresh, lower)
        last = len(self.fresh) if upper is None else bisect_left(self.fresh, upper)
        found: Iterable[bytes]
        if reverse:
            found = self.fresh[first:last][::-1]
        else:
            found = self.fresh[first:last]
        if pinned and self.pinned:
            older: Iterator[bytes] = self.pinned.irange(lower, upper, (True, False), reverse)
            return heapq.merge(found, older, reverse=reverse)
        return found


class Overlay:
    """All chains, and the two marks that decide which are needed.

    :param durable_ts: newest durable commit; nothing below it is fresh.
    """

    def __init__(self, durable_ts: int) -> None:
        self.durable_ts = durable_ts
        self.floor_ts = durable_ts
        self.indexes: dict[int, IndexOverlay] = {}
        self.size = 0
        self._pending: deque[tuple[int, tuple[Point, ...]]] = deque()
        self._retained: deque[tuple[int, tuple[Point, ...]]] = deque()

    def append(self, event: CommitEvent) -> None:
        """Add a pending commit."""
        ts = event.ts
        for change in event.changes:
            self._append_change(ts, change)
        if event.keys:
            self._pending.append((ts, event.keys))

    def _append_change(self, ts: int, change: DocumentChange) -> None:
        document, new_json = change.id, change.new_json
        old: Version = (0, change.old_ts or 0, change.old_json, document)
        nothing: Version = (0, 0, None, document)
        new: Version = (ts, ts, new_json, document)
        self._put(-change.tablet, document, old, new)
        for index, old_key, new_key in change.index_changes:
            if old_key is not None:
                self._put(index, old_key, old, new if new_key == old_key else (ts, ts, None, document))
            if new_key is not None and new_key != old_key:
                self._put(index, new_key, nothing, new)

    def _put(self, index: int, key: bytes, base: Version, version: Version) -> None:
        entries = self.indexes.get(index)
        if entries is None:
            entries = self.indexes[index] = IndexOverlay()
        chain = entries.chains.get(key)
        if chain is None:
            entries.chains[key] = Chain(base, version)
            insort(entries.fresh, key)
            self.size += 1
            return
        chain.versions.append(version)
        if not chain.fresh:
            chain.fresh = True
            entries.pinned.discard(key)
            insort(entries.fresh, key)

    def advance(self, durable_ts: int, floor_ts: int) -> None:
        """Everything up to *durable_ts* is in the file; no reader needs the overlay below *floor_ts* (not above *durable_ts*)."""
        self.durable_ts = durable_ts
        self.floor_ts = floor_ts = max(self.floor_ts, min(floor_ts, durable_ts))
        pending, retained = self._pending, self._retained
        while pending and pending[0][0] <= durable_ts:
            entry = pending.popleft()
            self._settle(entry[1])
            if entry[0] > floor_ts:
                retained.append(entry)
        while retained and retained[0][0] <= floor_ts:
            self._settle(retained.popleft()[1])

    def drop_above(self, ts: int) -> None:
        """Forget pending versions above *ts* (A5)."""
        while self._pending and self._pending[-1][0] > ts:
            keys = self._pending.pop()[1]
            for index, key in keys:
                entries = self.indexes.get(index)
                chain = entries.chains.get(key) if entries is not None else None
                if chain is not None:
                    while len(chain.versions) > 1 and chain.versions[-1][0] > ts:
                        chain.versions.pop()
            self._settle(keys)

    def _settle(self, keys: Iterable[Point]) -> None:
        """Put the chains of *keys* where their newest version belongs."""
        durable_ts, floor_ts = self.durable_ts, self.floor_ts
        for index, key in keys:
            entries = self.indexes.get(index)
            if entries is None:
                continue
            chain = entries.chains.get(key)
            if chain is None:
                continue
            newest = chain.versions[-1][0]
            if newest <= durable_ts and chain.fresh:
                chain.fresh = False
                del entries.fresh[bisect_left(entries.fresh, key)]
                if newest > floor_ts:
                    entries.pinned.add(key)
                    self._trim(chain)
                    continue
            elif newest > floor_ts:
                self._trim(chain)
                continue
            else:
                entries.pinned.discard(key)
            del entries.chains[key]
            self.size -= 1
            if not entries.chains:
                del self.indexes[index]

    def _trim(self, chain: Chain) -> None:
        versions, floor_ts = chain.versions, self.floor_ts
        keep = 0
        while keep + 1 < len(versions) and versions[keep + 1][0] <= floor_ts:
            keep += 1
        if keep:
            _, doc_ts, json, document = versions[keep]
            versions[: keep + 1] = ((0, doc_ts, json, document),)
