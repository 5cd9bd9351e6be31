"""A push's schema at work: submitted as pending, checked against what is stored, made active; its indexes built and switched on.

States of a ``_schemas`` row: pending → validated → active, or failed. A row that another push replaces is deleted: whoever waits for it has lost
the race. Source: ``push.md`` sections 9, 10 and 13.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from convex_backend.application.push_diff import IndexChange, index_changes, matching, spec_of
from convex_backend.database.catalog import BACKFILLED, BACKFILLING, ENABLED, Catalog, SchemaInfo, TableInfo
from convex_backend.database.schema_check import ACTIVE, FAILED, PENDING, VALIDATED
from convex_backend.database.staged_validators import FAILED as FAILED_STAGED
from convex_backend.database.staged_validators import PENDING as PENDING_STAGED
from convex_backend.database.staged_validators import VALID, StagedValidator, stage, staged_validators
from convex_backend.database.system_tables import SCHEMAS
from convex_backend.database.tables import add_index, create_table, remove_index, set_index_state
from convex_backend.errors import BadRequest
from convex_backend.values.coverage import covers
from convex_backend.values.schema import IndexDefinition, SchemaDefinition, TableDefinition

if TYPE_CHECKING:
    from convex_backend.database.database import Database
    from convex_backend.database.transaction import Transaction

#: Stands for a component that has no tables because it does not exist yet.
NO_COMPONENT: Final = -1
#: Documents looked at for the estimate of a table's size.
_SAMPLE: Final = 100


async def submit_schema(
    transaction: Transaction, component: int, schema: SchemaDefinition | None, *, empty: bool = False
) -> bytes | None:
    """Make *schema* the one that waits to become active; an earlier one that waits is replaced.

    :param empty: the component has never had a document: there is nothing to check.
    :returns: internal id of its row, the active one's if that is equal; ``None`` without a schema.
    """
    await transaction.ensure_begun()
    catalog = transaction.catalog
    for info in list(catalog.schemas.values()):
        if info.component == component and info.state != ACTIVE:
            await transaction.system.delete(SCHEMAS.name, info.row_id)
    if schema is None:
        return None
    text = schema.to_text()
    active = catalog.active.get(component)
    if active is not None and active.text == text:
        return active.row_id
    state = PENDING if schema.validated and not empty else VALIDATED
    row = {"component": component, "state": state, "schema": text, "error": None, "table": None}
    return await transaction.system.insert(SCHEMAS.name, row)


async def activate_schema(
    transaction: Transaction, component: int, row_id: bytes | None
) -> tuple[str | None, str | None]:
    """Make the submitted schema the active one; without one there is none afterwards.

    :returns: JSON texts of the one before and of the new one.
    :raises BadRequest: ``RaceDetected`` when another push has replaced it, or it is not validated.
    """
    await transaction.ensure_begun()
    active = transaction.catalog.active.get(component)
    previous = active.text if active is not None else None
    wanted = transaction.catalog.schemas.get(row_id) if row_id is not None else None
    await stage(transaction, component, wanted.definition if wanted is not None else None)
    if active is not None and active.row_id != row_id:
        await transaction.system.delete(SCHEMAS.name, active.row_id)
    if row_id is None:
        return previous, None
    row = await transaction.system.get(SCHEMAS.name, row_id)
    if row is None:
        raise BadRequest("RaceDetected", "The schema was overwritten by another push.")
    state = row[1]["state"]
    if state == FAILED:
        raise BadRequest("SchemaValidationFailed", f"Schema validation failed: {row[1]['error']}")
    if state not in (VALIDATED, ACTIVE):
        raise BadRequest("SchemaNotValidated", "The schema has not been validated yet: wait_for_schema comes first.")
    if state == VALIDATED:
        await transaction.system.patch(SCHEMAS.name, row_id, {"state": ACTIVE})
    text: str = row[1]["schema"]
    return previous, text


async def prepare_indexes(transaction: Transaction, component: int, schema: SchemaDefinition | None) -> None:
    """Begin to build what *schema* adds, and drop unfinished indexes that it does not have. Enabled indexes stay as they are."""
    await transaction.ensure_begun()
    for change in index_changes(transaction.catalog, component, schema):
        if change.change == "removed" and change.index is not None and change.index.state != ENABLED:
            await remove_index(transaction, change.index)
    for change in index_changes(transaction.catalog, component, schema):
        if change.change == "added" and change.definition is not None:
            await _add(transaction, await _table(transaction, component, change.table), change.definition)


async def _table(transaction: Transaction, component: int, name: str) -> TableInfo:
    return transaction.catalog.table(component, name) or await create_table(transaction, component, name)


async def _add(transaction: Transaction, table: TableInfo, definition: IndexDefinition) -> None:
    await add_index(
        transaction,
        table,
        definition.name,
        kind=definition.kind,
        fields=definition.fields,
        spec=spec_of(definition),
        staged=definition.staged,
    )


async def switch_indexes(transaction: Transaction, component: int, schema: SchemaDefinition | None) -> None:
    """Enable, stage and drop indexes so that they are those of *schema*; make its tables.

    :raises BadRequest: an index is not built yet, or was dropped by another push.
    """
    await transaction.ensure_begun()
    for name in schema.tables if schema is not None else ():
        await _table(transaction, component, name)
    changes = index_changes(transaction.catalog, component, schema)
    for change in changes:
        if change.change == "removed" and change.index is not None:
            await remove_index(transaction, change.index)
    for change in changes:
        definition, index = change.definition, change.index
        if definition is None:
            continue
        if index is None:
            raise BadRequest("RaceDetected", f"The index {change.table}.{definition.name} was dropped by another push.")
        if definition.staged:
            if index.state == ENABLED:
                await set_index_state(transaction, index, BACKFILLED, staged=True)
            elif not index.staged:
                await set_index_state(transaction, index, index.state, staged=True)
            continue
        if index.state == BACKFILLING:
            raise BadRequest(
                "IndexNotReady",
                f"The index {change.table}.{definition.name} is still being built: wait_for_schema comes first.",
            )
        if index.state != ENABLED or index.staged:
            await set_index_state(transaction, index, ENABLED, staged=False)


def index_progress(catalog: Catalog, component: int, schema: SchemaDefinition | None) -> tuple[int, int]:
    """How many of the schema's indexes are built, and how many it has; staged ones do not count."""
    complete = total = 0
    for table in schema.tables.values() if schema is not None else ():
        present = catalog.table(component, table.name)
        for definition in table.indexes:
            if not definition.staged:
                total += 1
                index = matching(present, definition)
                complete += index is not None and index.state != BACKFILLING
    return complete, total


async def evaluate_changes(
    database: Database, component: int, definition: str, schema: SchemaDefinition | None
) -> dict[str, Any]:
    """What a push of *schema* would have to do, one entry of ``componentSchemaEvaluations`` (``push.md`` section 13). Reads only.

    :param component: :data:`NO_COMPONENT` for one that does not exist yet. :param definition: path of its definition.
    """
    catalog = database.catalogs.newest
    counts: dict[str, int] = {}
    for table in catalog.tables_of(component):
        counts[table.name] = await database.persistence.count_documents(table.tablet)
    transaction = database.begin("query")
    try:
        staged = await staged_validators(transaction, component)
    finally:
        transaction.close()
    tables = (
        []
        if schema is None
        else [
            _table_outcome(database, component, schema, table, counts, staged.get(table.name))
            for table in schema.tables.values()
        ]
    )
    indexes = [_index_outcome(change, counts) for change in index_changes(catalog, component, schema)]
    return {
        "definitionPath": definition,
        "schemaValidation": schema is not None and schema.validated,
        "tables": tables,
        "indexes": indexes,
        "discardedStagedValidators": _discarded(schema, counts, staged, catalog.active.get(component)),
    }


def _discarded(
    schema: SchemaDefinition | None,
    counts: dict[str, int],
    staged: dict[str, StagedValidator],
    active: SchemaInfo | None,
) -> list[dict[str, Any]]:
    """Staged validators whose walk a push would throw away: neither staged any longer nor promoted. A failed one has nothing to lose."""
    found = []
    for one in staged.values():
        table = schema.tables.get(one.table) if schema is not None and schema.validated else None
        proposed = table.staged_document_type if table is not None else None
        enforced = active.definition.tables.get(one.table) if active is not None else None
        promoted = table is not None and _promotes(table, one, enforced)
        if one.state != FAILED_STAGED and proposed != one.type and not promoted:
            state = _staged_state(one, counts.get(one.table, 0))
            found.append({"tableName": one.table, "state": state, "replaced": proposed is not None})
    return found


def _promotes(table: TableDefinition, one: StagedValidator, enforced: TableDefinition | None) -> bool:
    """Whether the new type is the staged one, or makes use of it: takes all that it takes, but not all that is taken now."""
    if table.document_type == one.type:
        return True
    wider = enforced is not None and covers(table.document_type, enforced.document_type)
    return not wider and covers(table.document_type, one.type)


def _staged_state(one: StagedValidator, count: int) -> dict[str, Any]:
    if one.state == PENDING_STAGED:
        return {"state": "pending", "numDocsValidated": one.checked, "totalDocs": count}
    return {"state": "valid"} if one.state == VALID else {"state": "failed", "error": one.error}


def _table_outcome(
    database: Database,
    component: int,
    schema: SchemaDefinition,
    table: TableDefinition,
    counts: dict[str, int],
    staged: StagedValidator | None,
) -> dict[str, Any]:
    count = counts.get(table.name, 0)
    promoted = staged is not None and covers(table.document_type, staged.type)
    catalog = database.catalogs.newest
    active = catalog.active.get(component)
    enforced = active.definition.tables.get(table.name) if active is not None and active.definition.validated else None
    if not schema.validated:
        outcome = "notValidated"
    elif enforced is not None and covers(table.document_type, enforced.document_type):
        outcome = "supersetOfEnforced"
    elif promoted and staged is not None and staged.state == VALID:
        outcome = "supersetOfStagedValidated"
    elif count == 0:
        outcome = "supersetOfShape"
    else:
        outcome = "mustWalk"
    tree: dict[str, Any] = {
        "name": table.name,
        "outcome": outcome,
        "numDocs": count,
        "sizeBytes": _estimated_bytes(database, catalog.table(component, table.name), count),
    }
    if staged is not None:
        tree["staged"] = _staged_state(staged, count)
        if outcome == "mustWalk":
            tree["canSkipAfterStagedValidation"] = promoted and staged.state == PENDING_STAGED
    return tree


def _estimated_bytes(database: Database, table: TableInfo | None, count: int) -> int:
    """Size of a table's texts, from the first documents."""
    if table is None or not count:
        return 0
    rows = database.persistence.scan_documents(table.tablet, b"", None, False, _SAMPLE)
    return sum(len(row.json) for row in rows) * count // max(1, len(rows))


def _index_outcome(change: IndexChange, counts: dict[str, int]) -> dict[str, Any]:
    index = change.index
    return {
        **change.to_json(),
        "change": "dropped" if change.change == "removed" else change.change,
        "needsBackfill": change.change == "added" or (index is not None and index.state == BACKFILLING),
        "numDocs": counts.get(change.table, 0),
    }
