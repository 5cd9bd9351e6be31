"""``IPersistence`` in dictionaries, for tests and for databases that need not outlive their process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TypeVar

import attrs
from sortedcontainers import SortedDict
from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface import implementer

from convex_backend.deferreds import from_coroutine, shield
from convex_backend.errors import StorageFailed
from convex_backend.interfaces import Commit, IPersistence, LedgerEntry, Row, StoredResult, StoreSize
from convex_backend.storage.group_write import LAST_TS, check_order, ledger_bytes

T = TypeVar("T")
_NOTHING = SortedDict()


@attrs.frozen(slots=True)
class _Entry:
    tablet: int
    id: bytes
    ts: int


@attrs.frozen(slots=True)
class _PastDocument:
    tablet: int
    id: bytes
    from_ts: int
    to_ts: int
    json: bytes


@attrs.frozen(slots=True)
class _PastEntry:
    index: int
    key: bytes
    from_ts: int
    to_ts: int
    tablet: int
    id: bytes


@attrs.frozen(slots=True)
class _Result:
    entry: LedgerEntry
    ts: int


@implementer(IPersistence)
class MemoryPersistence:
    """The same contract as the file, without durability: what is written outlives :meth:`close` but not the object.

    :ivar before_write: awaited before a group is applied; a failure leaves nothing of it.
    :ivar after_write: awaited after it is applied, before ``write`` fires; a failure leaves all of it, as a lost COMMIT reply does.
    """

    def __init__(self) -> None:
        self.last_ts = 0
        self.before_write: Callable[[Sequence[Commit]], Deferred[None] | None] | None = None
        self.after_write: Callable[[Sequence[Commit]], Deferred[None] | None] | None = None
        self._is_open = False
        self._failed = False
        self._applied_ts = 0
        self._documents: dict[int, SortedDict] = {}
        self._entries: dict[int, SortedDict] = {}
        self._past_documents: list[_PastDocument] = []
        self._past_entries: list[_PastEntry] = []
        self._results: dict[tuple[str, int], _Result] = {}
        self._meta: dict[str, bytes] = {}

    def open(self) -> Deferred[None]:
        """Make the store readable."""
        self._is_open = True
        self._failed = False
        self.last_ts = self._applied_ts
        return _done(lambda: None)

    def close(self) -> Deferred[None]:
        """Refuse further use until it is opened again."""
        self._is_open = False
        return _done(lambda: None)

    def write(self, commits: Sequence[Commit]) -> Deferred[None]:
        """Apply the group, all or nothing."""
        return from_coroutine(shield(self._write(commits)))

    async def _write(self, commits: Sequence[Commit]) -> None:
        self._check_open()
        if self._failed:
            raise StorageFailed("a write failed before; recover first")
        if not commits:
            return
        try:
            check_order(commits, self.last_ts)
            self._check(commits)
            if self.before_write is not None:
                await maybeDeferred(self.before_write, commits)
            for commit in commits:
                self._apply(commit)
            self._applied_ts = commits[-1].ts
            if self.after_write is not None:
                await maybeDeferred(self.after_write, commits)
        except BaseException:
            self._failed = True
            raise
        self.last_ts = self._applied_ts

    def recover(self) -> Deferred[int]:
        """Believe what was applied."""
        self._failed = False
        self.last_ts = self._applied_ts
        return _done(lambda: self.last_ts)

    def _check(self, commits: Sequence[Commit]) -> None:
        live: dict[tuple[int, bytes], bool] = {}
        results = set(self._results)

        def is_live(tablet: int, id: bytes) -> bool:
            known = live.get((tablet, id))
            return id in self._documents.get(tablet, ()) if known is None else known

        for commit in commits:
            for write in commit.documents:
                if write.had_previous != is_live(write.tablet, write.id):
                    said = "replaced or deleted is not" if write.had_previous else "inserted is already"
                    raise ValueError(f"a document to be {said} there")
            for write in commit.documents:
                live[write.tablet, write.id] = write.json is not None
            for entry in commit.indexes:
                if entry.added and not is_live(entry.tablet, entry.id):
                    raise ValueError("an index entry is added for a document that is not there")
            for result in commit.ledger:
                if (result.session, result.request) in results:
                    raise ValueError("a mutation's result is already in the ledger")
                results.add((result.session, result.request))

    def _apply(self, commit: Commit) -> None:
        ts = commit.ts
        for write in commit.documents:
            documents = self._documents.setdefault(write.tablet, SortedDict())
            if write.had_previous:
                from_ts, json = documents.pop(write.id)
                self._past_documents.append(_PastDocument(write.tablet, write.id, from_ts, ts, json))
            if write.json is not None:
                documents[write.id] = (ts, write.json)
        for index in sorted(commit.indexes, key=lambda write: write.added):
            entries = self._entries.setdefault(index.index, SortedDict())
            old: _Entry | None = entries.get(index.key)
            if index.added:
                from_ts = ts if index.ts is None else index.ts
                if old is not None:
                    from_ts = min(from_ts, old.ts)
                entries[index.key] = _Entry(index.tablet, index.id, from_ts)
            elif old is not None:
                del entries[index.key]
                if old.ts < ts:
                    past = _PastEntry(index.index, index.key, old.ts, ts, index.tablet, index.id)
                    self._past_entries.append(past)
        for entry in commit.ledger:
            self._results[entry.session, entry.request] = _Result(entry, ts)
        for key, value in commit.meta:
            if value is None:
                self._meta.pop(key, None)
            else:
                self._meta[key] = value

    def get(self, tablet: int, id: bytes) -> Row | None:
        """The current version of one document."""
        self._check_open()
        found = self._documents.get(tablet, _NOTHING).get(id)
        return None if found is None else Row(id, id, *found)

    def scan_documents(self, tablet: int, lower: bytes, upper: bytes | None, reverse: bool, limit: int) -> list[Row]:
        """Current documents in id order."""
        self._check_open()
        documents = self._documents.get(tablet, _NOTHING)
        ids = islice(documents.irange(lower, upper, (True, False), reverse), limit)
        return [Row(key, key, *documents[key]) for key in ids]

    def scan_index(self, index: int, lower: bytes, upper: bytes | None, reverse: bool, limit: int) -> list[Row]:
        """Current entries in key order, with their documents."""
        self._check_open()
        entries = self._entries.get(index, _NOTHING)
        rows: list[Row] = []
        for key in islice(entries.irange(lower, upper, (True, False), reverse), limit):
            entry = entries[key]
            rows.append(Row(key, entry.id, *self._documents[entry.tablet][entry.id]))
        return rows

    def get_at(self, tablet: int, id: bytes, ts: int) -> Deferred[Row | None]:
        """One document as of *ts*."""
        return _done(lambda: self._version_at(tablet, id, id, ts))

    def scan_documents_at(
        self, tablet: int, lower: bytes, upper: bytes | None, reverse: bool, limit: int, ts: int
    ) -> Deferred[list[Row]]:
        """Documents as of *ts*, in id order."""

        def scan() -> list[Row]:
            self._check_open()
            ids = set(self._documents.get(tablet, ()))
            ids.update(past.id for past in self._past_documents if past.tablet == tablet)
            found = (self._version_at(tablet, key, key, ts) for key in _within(ids, lower, upper, reverse))
            return list(islice((row for row in found if row is not None), limit))

        return _done(scan)

    def scan_index_at(
        self, index: int, lower: bytes, upper: bytes | None, reverse: bool, limit: int, ts: int
    ) -> Deferred[list[Row]]:
        """Entries as of *ts*, in key order, with their documents as of *ts*."""

        def scan() -> list[Row]:
            self._check_open()
            valid: dict[bytes, tuple[int, bytes]] = {
                key: (entry.tablet, entry.id)
                for key, entry in self._entries.get(index, _NOTHING).items()
                if entry.ts <= ts
            }
            for past in self._past_entries:
                if past.index == index and past.from_ts <= ts < past.to_ts:
                    valid[past.key] = (past.tablet, past.id)
            found = (self._version_at(*valid[key], key, ts) for key in _within(valid, lower, upper, reverse))
            return list(islice((row for row in found if row is not None), limit))

        return _done(scan)

    def _version_at(self, tablet: int, id: bytes, key: bytes, ts: int) -> Row | None:
        self._check_open()
        current = self._documents.get(tablet, _NOTHING).get(id)
        if current is not None and current[0] <= ts:
            return Row(key, id, *current)
        for past in self._past_documents:
            if past.tablet == tablet and past.id == id and past.from_ts <= ts < past.to_ts:
                return Row(key, id, past.from_ts, past.json)
        return None

    def count_documents(self, tablet: int) -> Deferred[int]:
        """Number of current documents of *tablet*."""
        self._check_open()
        return _done(lambda: len(self._documents.get(tablet, ())))

    def ledger_get(self, session: str, request: int) -> StoredResult | None:
        """The stored answer of a mutation, if it is still kept."""
        self._check_open()
        found = self._results.get((session, request))
        return None if found is None else StoredResult(found.ts, found.entry.result)

    def prune_ledger(self, before_ts: int, max_bytes: int, keep_after_ts: int, limit: int) -> Deferred[int]:
        """Delete at most *limit* of the oldest entries by age and bytes."""

        def prune() -> int:
            self._check_open()
            total = sum(ledger_bytes(result.entry) for result in self._results.values())
            deleted = 0
            # The dictionary is in commit order.
            for key, result in list(islice(self._results.items(), limit)):
                if not (result.ts <= before_ts or (total > max_bytes and result.ts <= keep_after_ts)):
                    break
                del self._results[key]
                total -= ledger_bytes(result.entry)
                deleted += 1
            return deleted

        return _done(prune)

    def prune_history(self, before_ts: int, limit: int) -> Deferred[int]:
        """Delete at most *limit* history rows that ended at or before *before_ts*."""

        def prune() -> int:
            self._check_open()
            documents = sum(past.to_ts <= before_ts for past in self._past_documents[:limit])
            del self._past_documents[:documents]
            entries = sum(past.to_ts <= before_ts for past in self._past_entries[: limit - documents])
            del self._past_entries[:entries]
            return documents + entries

        return _done(prune)

    def measure(self, before_ts: int) -> Deferred[StoreSize]:
        """How much history there is, and how much of it waits to be pruned."""

        def count() -> StoreSize:
            self._check_open()
            ends = [past.to_ts for past in self._past_documents] + [past.to_ts for past in self._past_entries]
            return StoreSize(len(ends), sum(end <= before_ts for end in ends), 0, 0)

        return _done(count)

    def delete_index(self, index: int, limit: int) -> Deferred[int]:
        """Delete at most *limit* entries of a dropped index."""

        def delete() -> int:
            self._check_open()
            entries = self._entries.get(index, _NOTHING)
            doomed = list(entries.islice(stop=limit))
            for key in doomed:
                del entries[key]
            past = [entry for entry in self._past_entries if entry.index == index][: limit - len(doomed)]
            for entry in past:
                self._past_entries.remove(entry)
            return len(doomed) + len(past)

        return _done(delete)

    def get_meta(self, key: str) -> bytes | None:
        """A meta value as last written."""
        self._check_open()
        return str(self._applied_ts).encode() if key == LAST_TS else self._meta.get(key)

    def _check_open(self) -> None:
        if not self._is_open:
            raise RuntimeError("the database is not open")


def _done(work: Callable[[], T]) -> Deferred[T]:
    return maybeDeferred(work)


def _within(keys: Iterable[bytes], lower: bytes, upper: bytes | None, reverse: bool) -> list[bytes]:
    return sorted((key for key in keys if lower <= key and (upper is None or key < upper)), reverse=reverse)
