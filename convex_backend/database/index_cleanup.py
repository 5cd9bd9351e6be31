"""Deleting the entries of dropped indexes and the documents of dropped tables, once no retained snapshot can ask for them.

What was dropped leaves a row in ``_backend_state`` (``tables.remove_index``, ``tables.drop_table``). Entries and documents stay until the retention
watermark has passed the drop, because a read at an older timestamp still knows the index or the table; then they go in bounded steps, and the row
last, so a restart goes on where it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from convex_backend.database.system_tables import BACKEND_STATE
from convex_backend.database.tables import DROPPED_INDEX_PREFIX, DROPPED_TABLE_PREFIX
from convex_backend.database.writes import Write
from convex_backend.deferreds import InFlight, from_coroutine
from convex_backend.errors import ConvexError

if TYPE_CHECKING:
    from convex_backend.database.database import Database
    from convex_backend.database.transaction import Transaction

STEP_ENTRIES: Final = 500
_INTERVAL_SECONDS: Final = 60.0


def _is_drop(row: dict[str, Any]) -> bool:
    return bool(row["key"].startswith((DROPPED_INDEX_PREFIX, DROPPED_TABLE_PREFIX)))


class DroppedIndexCleanup:
    """The loop. Owned by the database."""

    _log = Logger()

    def __init__(self, database: Database) -> None:
        self._database = database
        self._work = InFlight()
        self._stopping = False
        self._loop = LoopingCall(self._turn)
        self._loop.clock = database.reactor

    def start(self) -> None:
        """Begin; the first turn comes after one interval."""
        self._loop.start(_INTERVAL_SECONDS, now=False)

    async def stop(self) -> None:
        """Stop, and return when the step under way has ended."""
        self._stopping = True
        if self._loop.running:
            self._loop.stop()
        await self._work.idle()

    def _turn(self) -> Deferred[None]:
        return from_coroutine(self._guarded_turn())

    async def _guarded_turn(self) -> None:
        with self._work:
            try:
                await self.run_once()
            except ConvexError as error:
                self._log.warn("dropped indexes and tables could not be cleaned: {error}", error=error)
            except Exception:  # noqa: BLE001 - the next turn tries again
                self._log.failure("cleaning dropped indexes and tables failed")

    async def run_once(self) -> None:
        """Delete what is due."""
        database = self._database
        transaction = database.begin("query")
        try:
            rows = await transaction.system.scan(BACKEND_STATE.name, "by_key")
            due = [(row_id, row) for row_id, row in rows if _is_drop(row) and await self._is_due(transaction, row_id)]
        finally:
            transaction.close()
        for row_id, row in due:
            if row["key"].startswith(DROPPED_INDEX_PREFIX):
                await self._delete(row_id, row["index"])
            else:
                await self._delete_documents(row_id, row["tablet"])

    async def _is_due(self, transaction: Transaction, row_id: bytes) -> bool:
        """Whether the commit that dropped it is behind the watermark. Its timestamp, not the row's time: the wall clock may have gone back."""
        stored = await transaction.snapshot.get(BACKEND_STATE.tablet, row_id)
        return stored is not None and stored.ts <= self._database.retention.watermark_ts

    async def _delete(self, row_id: bytes, index: int) -> None:
        while True:
            if self._stopping:
                return
            deleted = await self._database.persistence.delete_index(index, STEP_ENTRIES)
            if deleted < STEP_ENTRIES:
                break
        await self._forget(row_id)
        self._log.info("deleted the entries of dropped index {index}", index=index)

    async def _delete_documents(self, row_id: bytes, tablet: int) -> None:
        while not self._stopping:
            transaction = self._database.begin("system", writer="table cleanup")
            try:
                await transaction.ensure_begun()
                rows = await transaction.snapshot.scan(-tablet, tablet, b"", None, False, STEP_ENTRIES)
                for row in rows:
                    # The entries of its indexes go with the indexes.
                    transaction.writes.put(Write(tablet, row.id, row.ts, row.json, {}, None, {}))
                if rows:
                    await self._database.commit(transaction)
            finally:
                transaction.close()
            if len(rows) < STEP_ENTRIES:
                await self._forget(row_id)
                self._log.info("deleted the documents of dropped table {tablet}", tablet=tablet)
                return

    async def _forget(self, row_id: bytes) -> None:
        transaction = self._database.begin("system", writer="index cleanup")
        try:
            await transaction.system.delete(BACKEND_STATE.name, row_id)
            await self._database.commit(transaction)
        finally:
            transaction.close()
