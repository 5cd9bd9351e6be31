"""Building new indexes while writes go on, and checking existing rows against a new schema.

A new index starts ``backfilling``: every write from the index's commit on keeps it, and this job adds the entries of older rows in steps, each of
which is one commit. A step reads and commits within one turn of the reactor, so no write can come between. How far an index is built is a row of
``_backend_state``, written with the step, so a restart goes on where it ended.

Source: ``push.md`` sections 9 and 10.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from convex_backend.database.background_steps import PAUSE_SECONDS, RETRIED, RETRY_SECONDS, Pauses, StepSize, Stopped
from convex_backend.database.catalog import (
    BACKFILLED,
    BACKFILLING,
    Catalog,
    CatalogNames,
    IndexInfo,
    SchemaInfo,
    TableInfo,
)
from convex_backend.database.index_keys import document_keys
from convex_backend.database.schema_check import PENDING, VALIDATED, fail_schema
from convex_backend.database.staged_validators import VALID, staged_validators
from convex_backend.database.system_tables import BACKEND_STATE, SCHEMAS
from convex_backend.database.tables import set_index_state
from convex_backend.deferreds import Waiters, run_detached
from convex_backend.interfaces import IndexWrite
from convex_backend.values.coverage import covers
from convex_backend.values.json_codec import loads
from convex_backend.values.schema import existing_document_error

if TYPE_CHECKING:
    from convex_backend.database.committer import CommitEvent
    from convex_backend.database.database import Database
    from convex_backend.database.transaction import Transaction

_PROGRESS_PREFIX: Final = "backfill:"


class IndexBackfill:
    """Builds every index that is ``backfilling``, one after the other, in the background."""

    _log = Logger()

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pauses = Pauses(database.reactor)
        self._running: Deferred[None] | None = None
        self._changed: Waiters[None] = Waiters()
        self._seen: Catalog | None = None
        self._size = StepSize()
        #: documents of the table when the build, or this part of it, began
        self._total = 0

    def start(self) -> None:
        """Go on with what an earlier run of the server left, and listen for new indexes."""
        self._database.committer.on_durable.append(self._on_durable)
        self._wake()

    async def stop(self) -> None:
        """End after the present step."""
        if self._on_durable in self._database.committer.on_durable:
            self._database.committer.on_durable.remove(self._on_durable)
        self._pauses.stop()
        while self._running is not None:
            await self._changed.wait()

    def building(self) -> list[IndexInfo]:
        """Indexes that are not built yet, oldest first."""
        rows = self._database.catalogs.newest.index_rows.values()
        return sorted((index for index in rows if index.state == BACKFILLING), key=lambda index: index.id)

    async def wait(self) -> None:
        """Return when an index has been built, or the job has stopped or paused for another reason. Cancelling only stops the wait."""
        await self._changed.wait()

    def _on_durable(self, events: list[CommitEvent]) -> None:
        # Looking through all indexes at every commit would cost what there is, not what changed.
        newest = self._database.catalogs.newest
        if newest is not self._seen:
            self._seen = newest
            self._wake()

    def _wake(self) -> None:
        if self._running is None and not self._pauses.stopped and self.building():
            self._running = run_detached("index backfill", self._run())

    async def _run(self) -> None:
        try:
            # Leave the turn of whoever woke us: it may be inside the committer's publication.
            await self._pauses.sleep(0)
            while building := self.building():
                self._size = StepSize()
                try:
                    self._total = await self._database.persistence.count_documents(building[0].tablet)
                    while await self._step(building[0].row_id):
                        await self._pauses.sleep(PAUSE_SECONDS)
                except RETRIED as error:
                    self._log.warn("index backfill waits: {error}", error=error)
                    await self._pauses.sleep(RETRY_SECONDS)
        except Stopped:
            pass
        finally:
            self._running = None
            self._changed.fire(None)
            self._wake()

    async def _step(self, row_id: bytes) -> bool:
        """Add the entries of the next rows.

        :returns: whether there is more to do for this index.
        """
        database = self._database
        transaction = database.begin("system", writer="index backfill")
        try:
            await transaction.ensure_begun()
            index = transaction.catalog.index_rows.get(row_id)
            table = transaction.catalog.by_tablet.get(index.tablet) if index is not None else None
            if index is None or table is None or index.state != BACKFILLING:
                return False
            transaction.add_system_point(*index.point)
            progress = await transaction.system.lookup(BACKEND_STATE.name, "by_key", (_progress_key(index),))
            lower = progress[1]["after"] + b"\x00" if progress is not None else b""
            asked = self._size.rows
            rows = await transaction.snapshot.scan(-table.tablet, table.tablet, lower, None, False, asked)
            self._size.took(rows)
            done = len(rows) < asked
            transaction.reads.add_interval(-table.tablet, lower, None if done else rows[-1].key + b"\x00")
            writes = []
            for row in rows:
                # Also for rows written since the index began: the store keeps an entry that is there, and a write that left the key as it
                # was added none, though the overlay shows one while it is pending.
                entry = document_keys((index,), loads(row.json))[index.id]
                writes.append(IndexWrite(index.id, entry, table.tablet, row.id, True, row.ts))
            if done:
                await set_index_state(transaction, index, BACKFILLED)
                if progress is not None:
                    await transaction.system.delete(BACKEND_STATE.name, progress[0])
            else:
                indexed = float(len(rows))
                if progress is None:
                    await transaction.system.insert(
                        BACKEND_STATE.name,
                        {
                            "key": _progress_key(index),
                            "after": rows[-1].key,
                            "indexed": indexed,
                            "total": float(self._total),
                        },
                    )
                else:
                    indexed += progress[1].get("indexed", 0.0)
                    fields = {"after": rows[-1].key, "indexed": indexed}
                    await transaction.system.patch(BACKEND_STATE.name, progress[0], fields)
            await database.commit(transaction, extra_index_writes=tuple(writes))
        finally:
            transaction.close()
        if done:
            self._log.info("built index {table}.{index}", table=table.name, index=index.name)
            self._changed.fire(None)
        return not done


def _progress_key(index: IndexInfo) -> str:
    return f"{_PROGRESS_PREFIX}{index.id}"


async def build_progress(transaction: Transaction, index: IndexInfo) -> tuple[int, int | None]:
    """How far an index is that is being built; a read, so that whoever shows it is told when there is more.

    :returns: documents whose entries are there, and about how many there are in all, ``None`` before that is known.
    """
    progress = await transaction.system.lookup(BACKEND_STATE.name, "by_key", (_progress_key(index),))
    if progress is None:
        return 0, None
    total = progress[1].get("total")
    return int(progress[1].get("indexed", 0)), None if total is None else int(total)


@attrs.define(slots=True, eq=False)
class ValidationProgress:
    """How far the check of existing rows has come. ``done`` is true when it has ended, whatever the outcome."""

    tables_done: int = 0
    tables_total: int = 0
    documents_checked: int = 0
    done: bool = False


class SchemaValidation:
    """Checks the existing rows of the tables whose type a pending schema changes, then marks it ``validated`` or ``failed``.

    Rows that are written meanwhile are checked by their writers (``schema_check``).

    :param row_id: internal id of the ``_schemas`` row, in state ``pending``.
    """

    _log = Logger()

    def __init__(self, database: Database, row_id: bytes) -> None:
        self._database = database
        self._row_id = row_id
        self._pauses = Pauses(database.reactor)
        self._ended: Waiters[None] = Waiters()
        self.progress = ValidationProgress()

    def start(self) -> None:
        """Begin in the background."""
        run_detached("schema validation", self._run())

    async def stop(self) -> None:
        """End soon; the row stays ``pending``."""
        self._pauses.stop()
        await self.wait()

    async def wait(self) -> None:
        """Return when it has ended. Cancelling only stops the wait."""
        if not self.progress.done:
            await self._ended.wait()

    async def _run(self) -> None:
        try:
            await self._pauses.sleep(0)
            while True:
                try:
                    await self._check()
                    break
                except RETRIED as error:
                    self._log.warn("schema validation starts again: {error}", error=error)
                    await self._pauses.sleep(RETRY_SECONDS)
        except Stopped:
            pass
        finally:
            self.progress.done = True
            self._ended.fire(None)

    def _schema(self) -> SchemaInfo | None:
        info = self._database.catalogs.newest.schemas.get(self._row_id)
        return info if info is not None and info.state == PENDING else None

    async def _check(self) -> None:
        schema = self._schema()
        if schema is None:
            return
        tables = await self._changed_tables(schema)
        self.progress.tables_total, self.progress.tables_done = len(tables), 0
        for table in tables:
            error = await self._check_table(schema, table)
            if error is not None:
                await self._finish(error, table.name)
                return
            self.progress.tables_done += 1
        await self._finish(None, None)

    async def _changed_tables(self, schema: SchemaInfo) -> list[TableInfo]:
        """Tables with rows that neither the active schema nor a valid staged type vouches for."""
        if not schema.definition.validated:
            return []
        transaction = self._database.begin("query")
        try:
            staged = await staged_validators(transaction, schema.component)
        finally:
            transaction.close()
        catalog = self._database.catalogs.newest
        active = catalog.active.get(schema.component)
        vouched = active.definition.tables if active is not None and active.definition.validated else {}
        changed = []
        for table in catalog.tables_of(schema.component):
            wanted = schema.definition.tables.get(table.name)
            known = vouched.get(table.name)
            if wanted is None or (known is not None and covers(wanted.document_type, known.document_type)):
                continue
            proposed = staged.get(table.name)
            if proposed is None or proposed.state != VALID or not covers(wanted.document_type, proposed.type):
                changed.append(table)
        return changed

    async def _check_table(self, schema: SchemaInfo, table: TableInfo) -> str | None:
        """:returns: the text of the first row's fault."""
        database = self._database
        lower = b""
        size = StepSize()
        while True:
            if self._schema() is None:
                return None
            snapshot = database.committer.snapshots.open(database.committer.durable_ts)
            try:
                asked = size.rows
                rows = await snapshot.scan(-table.tablet, table.tablet, lower, None, False, asked)
                names = CatalogNames(database.catalogs.at(snapshot.ts), table.component)
            finally:
                snapshot.close()
            for row in rows:
                document = loads(row.json)
                text = schema.definition.check_document(table.name, document, names)
                self.progress.documents_checked += 1
                if text is not None:
                    return existing_document_error(document["_id"], table.name, text)
            size.took(rows)
            if len(rows) < asked:
                return None
            lower = rows[-1].key + b"\x00"
            await self._pauses.sleep(PAUSE_SECONDS)

    async def _finish(self, error: str | None, table: str | None) -> None:
        """Move the row on, unless somebody else has."""
        transaction = self._database.begin("system", writer="schema validation")
        try:
            row = await transaction.system.get(SCHEMAS.name, self._row_id)
            if row is None or row[1]["state"] != PENDING:
                return
            if error is not None:
                await fail_schema(transaction, self._row_id, error, table)
            else:
                await transaction.system.patch(SCHEMAS.name, self._row_id, {"state": VALIDATED})
            await self._database.commit(transaction)
        finally:
            transaction.close()
