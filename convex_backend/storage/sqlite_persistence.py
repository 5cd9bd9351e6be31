"""``IPersistence`` over one SQLite file (A1, A4, A5, A9)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from convex_backend.deferreds import from_coroutine, shield
from convex_backend.errors import StorageFailed
from convex_backend.interfaces import Commit, IPersistence, Row, StoredResult, StoreSize
from convex_backend.storage import pruning, sql_reads
from convex_backend.storage.group_write import check_order, ledger_bytes, read_last_ts, write_group
from convex_backend.storage.migrations import load_migrations, migrate
from convex_backend.storage.sqlite_pool import SqlitePool

T = TypeVar("T")


@implementer(IPersistence)
class SqlitePersistence:
    """The store in one file. See :class:`~convex_backend.interfaces.IPersistence` for the contract.

    A group whose order or ``had_previous`` is wrong fails with ``ValueError``, and like any failed write asks for ``recover``.
    Writes and prunings go on when their caller is cancelled.

    :param pool: not yet open; this object owns it.
    """

    _log = Logger()

    def __init__(self, pool: SqlitePool) -> None:
        self._pool = pool
        # Bytes of the ledger's entries that have been counted; those up to the number, if there is one, have yet to be.
        self._ledger_total = 0
        self._uncounted: int | None = None
        self._failed = False
        self._get = _not_open
        self.last_ts = 0

    def open(self) -> Deferred[None]:
        """Lock, open and migrate the file; read the newest timestamp."""
        return from_coroutine(self._open())

    async def _open(self) -> None:
        def prepare(connection: sqlite3.Connection) -> tuple[int, int]:
            migrate(connection, self._pool.path, load_migrations())
            return _state(connection)

        self._take_up(*await self._pool.open(prepare))
        self._get = self._pool.short_reads.execute
        self._log.info("opened {path} at timestamp {ts}", path=self._pool.path, ts=self.last_ts)

    def close(self) -> Deferred[None]:
        """Finish what runs, checkpoint, close, release the lock. Closing twice is harmless."""
        self._get = _not_open
        return from_coroutine(self._pool.close())

    def write(self, commits: Sequence[Commit]) -> Deferred[None]:
        """Write the group in one durable transaction."""
        return from_coroutine(shield(self._write(commits)))

    async def _write(self, commits: Sequence[Commit]) -> None:
        if self._failed:
            raise StorageFailed("a write failed before; recover first")
        if not commits:
            return
        try:
            check_order(commits, self.last_ts)
            await self._pool.write(lambda connection: write_group(connection, commits))
        except BaseException:
            self._failed = True
            raise
        self.last_ts = commits[-1].ts
        self._ledger_total += sum(ledger_bytes(entry) for commit in commits for entry in commit.ledger)

    def recover(self) -> Deferred[int]:
        """Reopen the writing connection; :returns: the newest timestamp that the file holds."""
        return from_coroutine(shield(self._recover()))

    async def _recover(self) -> int:
        self._take_up(*await self._pool.reopen_writer(_state))
        return self.last_ts

    def _take_up(self, last_ts: int, newest_result: int) -> None:
        self.last_ts = last_ts
        self._ledger_total, self._uncounted = 0, newest_result
        self._failed = False

    def get(self, tablet: int, id: bytes) -> Row | None:
        """The current version of one document."""
        found = self._get(sql_reads.GET, (tablet, id)).fetchone()
        return None if found is None else Row(id, id, found[0], found[1])

    def scan_documents(self, tablet: int, lower: bytes, upper: bytes | None, reverse: bool, limit: int) -> list[Row]:
        """Current documents in id order."""
        return sql_reads.scan_documents(self._pool.short_reads, tablet, lower, upper, reverse, limit)

    def scan_index(self, index: int, lower: bytes, upper: bytes | None, reverse: bool, limit: int) -> list[Row]:
        """Current entries in key order, with their documents."""
        return sql_reads.scan_index(self._pool.short_reads, index, lower, upper, reverse, limit)

    def get_at(self, tablet: int, id: bytes, ts: int) -> Deferred[Row | None]:
        """One document as of *ts*."""
        return self._read(lambda connection: sql_reads.get_at(connection, tablet, id, ts))

    def scan_documents_at(
        self, tablet: int, lower: bytes, upper: bytes | None, reverse: bool, limit: int, ts: int
    ) -> Deferred[list[Row]]:
        """Documents as of *ts*, in id order."""
        return self._read(
            lambda connection: sql_reads.scan_documents_at(connection, tablet, lower, upper, reverse, limit, ts)
        )

    def scan_index_at(
        self, index: int, lower: bytes, upper: bytes | None, reverse: bool, limit: int, ts: int
    ) -> Deferred[list[Row]]:
        """Entries as of *ts*, in key order, with their documents as of *ts*."""
        return self._read(
            lambda connection: sql_reads.scan_index_at(connection, index, lower, upper, reverse, limit, ts)
        )

    def count_documents(self, tablet: int) -> Deferred[int]:
        """Number of current documents of *tablet*."""

        def count(connection: sqlite3.Connection) -> int:
            found = connection.execute("SELECT count(*) FROM documents WHERE tablet = ?", (tablet,)).fetchone()
            return int(found[0])

        return self._read(count)

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> Deferred[T]:
        return from_coroutine(self._pool.read(work))

    def ledger_get(self, session: str, request: int) -> StoredResult | None:
        """The stored answer of a mutation, if it is still kept."""
        found = self._get(
            "SELECT ts, result FROM mutation_results WHERE session = ? AND request = ?", (session, request)
        ).fetchone()
        return None if found is None else StoredResult(found[0], found[1])

    def prune_ledger(self, before_ts: int, max_bytes: int, keep_after_ts: int, limit: int) -> Deferred[int]:
        """Delete at most *limit* of the oldest entries by age and bytes."""
        return from_coroutine(shield(self._prune_ledger(before_ts, max_bytes, keep_after_ts, limit)))

    async def _prune_ledger(self, before_ts: int, max_bytes: int, keep_after_ts: int, limit: int) -> int:
        # Not at the start: with hundreds of megabytes of answers that would be the longest part of it.
        while (up_to := self._uncounted) is not None:
            counted = await self._pool.read(lambda connection: pruning.ledger_total(connection, up_to))
            if self._uncounted == up_to:
                self._uncounted = None
                self._ledger_total += counted
        total = self._ledger_total
        deleted, freed = await self._pool.write(
            lambda connection: pruning.prune_ledger(connection, total, before_ts, max_bytes, keep_after_ts, limit)
        )
        self._ledger_total -= freed
        return deleted

    def prune_history(self, before_ts: int, limit: int) -> Deferred[int]:
        """Delete at most *limit* history rows that ended at or before *before_ts*."""
        return from_coroutine(
            shield(self._pool.write(lambda connection: pruning.prune_history(connection, before_ts, limit)))
        )

    def measure(self, before_ts: int) -> Deferred[StoreSize]:
        """How large the file is, and how much of it waits to be pruned."""
        return self._read(lambda connection: pruning.measure(connection, before_ts))

    def delete_index(self, index: int, limit: int) -> Deferred[int]:
        """Delete at most *limit* entries of a dropped index."""
        return from_coroutine(
            shield(self._pool.write(lambda connection: pruning.delete_index(connection, index, limit)))
        )

    def get_meta(self, key: str) -> bytes | None:
        """A meta value as last written."""
        found = self._get("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if found is None else bytes(found[0])


def _state(connection: sqlite3.Connection) -> tuple[int, int]:
    return read_last_ts(connection), pruning.newest_result(connection)


def _not_open(*_: Any) -> Any:
    raise RuntimeError("the database is not open")
