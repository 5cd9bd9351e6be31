"""Staged validators: types that a schema proposes for its tables, checked in the background while the types in force stay.

A row of ``_staged_validators`` is the verdict on one: ``pending`` while existing documents are read, then ``valid``, or ``failed`` with the text of
the first document that does not fit. Writes are checked against it for as long as it is staged (``schema_check``); one that does not fit makes it
failed. How far the walk is stands in the row, so that a restart goes on where it was. A type that takes all that a valid staged one takes needs no
walk when it comes into force.

Source: ``push.md`` section 13; the semantics are those that npm 1.47 documents for ``defineTable(…).staged(…)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs
import orjson
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from convex_backend.database.background_steps import PAUSE_SECONDS, RETRIED, RETRY_SECONDS, Pauses, StepSize, Stopped
from convex_backend.database.system_tables import STAGED_VALIDATORS
from convex_backend.deferreds import Waiters, run_detached
from convex_backend.values.json_codec import loads
from convex_backend.values.schema import SchemaDefinition, TableDefinition, existing_document_error
from convex_backend.values.validators import Validator, parse

if TYPE_CHECKING:
    from convex_backend.database.database import Database
    from convex_backend.database.transaction import Transaction

PENDING: Final = "pending"
VALID: Final = "valid"
FAILED: Final = "failed"


@attrs.frozen(slots=True)
class StagedValidator:
    """One row.

    :param state: ``pending``, ``valid`` or ``failed``. :param error: of a failed one. :param checked: documents read so far.
    """

    row_id: bytes
    table: str
    type: Validator
    state: str
    error: str | None
    checked: int


async def staged_validators(transaction: Transaction, component: int) -> dict[str, StagedValidator]:
    """Those of a component, by table."""
    rows = await transaction.system.scan(STAGED_VALIDATORS.name, "by_table", (component,))
    return {
        row["table"]: StagedValidator(
            row_id, row["table"], parse(orjson.loads(row["type"])), row["state"], row["error"], int(row["checked"])
        )
        for row_id, row in rows
    }


async def stage(transaction: Transaction, component: int, schema: SchemaDefinition | None) -> None:
    """The component has a new schema: begin to check what it stages and forget what it does not; what failed is tried again."""
    present = await staged_validators(transaction, component)
    wanted: dict[str, Validator] = {}
    if schema is not None and schema.validated:
        for table in schema.tables.values():
            if table.staged_document_type is not None:
                wanted[table.name] = table.staged_document_type
    for name, one in present.items():
        if one.state != FAILED and wanted.get(name) == one.type:
            del wanted[name]
        else:
            await transaction.system.delete(STAGED_VALIDATORS.name, one.row_id)
    for name, kind in wanted.items():
        await transaction.system.insert(
            STAGED_VALIDATORS.name,
            {
                "component": component,
                "table": name,
                "type": orjson.dumps(kind.to_json()).decode(),
                "state": PENDING,
                "error": None,
                "checked": 0.0,
                "after": None,
            },
        )


async def fail_staged(transaction: Transaction, component: int, table: str, error: str) -> None:
    """A document that is written does not fit the staged type of its table."""
    found = await transaction.system.lookup(STAGED_VALIDATORS.name, "by_table", (component, table))
    if found is not None and found[1]["state"] != FAILED:
        await transaction.system.patch(STAGED_VALIDATORS.name, found[0], {"state": FAILED, "error": error})


class StagedValidation:
    """The walk over existing documents, one staged validator after the other, in bounded steps. Owned by the database."""

    _log = Logger()

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pauses = Pauses(database.reactor)
        self._running: Deferred[None] | None = None
        self._again = False
        self._ended: Waiters[None] = Waiters()

    def wake(self) -> None:
        """Look for work: at the start, and after a push."""
        if self._pauses.stopped:
            return
        if self._running is None:
            self._running = run_detached("staged validation", self._run())
        else:
            self._again = True

    async def stop(self) -> None:
        """End after the present step."""
        self._pauses.stop()
        while self._running is not None:
            await self._ended.wait()

    async def _run(self) -> None:
        try:
            await self._pauses.sleep(0)
            while True:
                self._again = False
                row_id = await self._next()
                if row_id is None:
                    if self._again:
                        continue
                    break
                size = StepSize()
                try:
                    while await self._step(row_id, size):
                        await self._pauses.sleep(PAUSE_SECONDS)
                except RETRIED as error:
                    self._log.warn("staged validation waits: {error}", error=error)
                    await self._pauses.sleep(RETRY_SECONDS)
        except Stopped:
            pass
        finally:
            self._running = None
            self._ended.fire(None)

    async def _next(self) -> bytes | None:
        transaction = self._database.begin("query")
        try:
            rows = await transaction.system.scan(STAGED_VALIDATORS.name, "by_state", (PENDING,), 1)
        finally:
            transaction.close()
        return rows[0][0] if rows else None

    async def _step(self, row_id: bytes, size: StepSize) -> bool:
        """Check the next documents. :returns: whether there is more to do for this row."""
        transaction = self._database.begin("system", writer="staged validation")
        try:
            found = await transaction.system.get(STAGED_VALIDATORS.name, row_id)
            if found is None or found[1]["state"] != PENDING:
                return False
            row = found[1]
            changes = await self._walk(transaction, row, size)
            await transaction.system.patch(STAGED_VALIDATORS.name, row_id, changes)
            await self._database.commit(transaction)
        finally:
            transaction.close()
        return "state" not in changes

    async def _walk(self, transaction: Transaction, row: dict[str, Any], size: StepSize) -> dict[str, Any]:
        """:returns: what changes in the row. Reads no document into the read set: whatever is written meanwhile is checked by its writer."""
        component, name = row["component"], row["table"]
        table = transaction.catalog.table(component, name)
        if table is None:
            return {"state": VALID}
        kind = TableDefinition(name, (), parse(orjson.loads(row["type"])))
        names = transaction.names(component)
        asked = size.rows
        lower = row["after"] + b"\x00" if row["after"] is not None else b""
        rows = await transaction.snapshot.scan(-table.tablet, table.tablet, lower, None, False, asked)
        size.took(rows)
        for one in rows:
            document = loads(one.json)
            text = kind.check_document(document, names)
            if text is not None:
                return {"state": FAILED, "error": existing_document_error(document["_id"], name, text)}
        checked = row["checked"] + len(rows)
        if len(rows) < asked:
            return {"state": VALID, "checked": checked}
        return {"after": rows[-1].key, "checked": checked}
