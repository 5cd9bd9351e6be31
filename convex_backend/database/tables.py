"""Making and changing tables and indexes, as rows of ``_tables`` and ``_index``.

Each call is part of the caller's transaction. Source: ``runtime.md`` sections 3.1 and 5.4, ``push.md`` section 9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convex_backend.database.catalog import BACKFILLED, BACKFILLING, ENABLED, IndexInfo, TableInfo
from convex_backend.database.system_tables import BACKEND_STATE, INDEX, TABLES, VIRTUAL_TABLES
from convex_backend.errors import BadRequest
from convex_backend.values.schema import MAX_TABLES

if TYPE_CHECKING:
    from convex_backend.database.transaction import Transaction

#: ``_backend_state`` key of a dropped index whose entries are still stored.
DROPPED_INDEX_PREFIX = "dropped_index:"
#: ``_backend_state`` key of a dropped table whose documents are still stored.
DROPPED_TABLE_PREFIX = "dropped_table:"


async def create_table(transaction: Transaction, component: int, name: str) -> TableInfo:
    """Add an empty table that nobody has called by this name yet.

    :returns: its entry in the transaction's catalog.
    :raises Conflict: the component has such a table.
    :raises BadRequest: ``TooManyTables``.
    """
    await transaction.ensure_begun()
    if len(transaction.catalog.tables_of(component)) >= MAX_TABLES:
        raise BadRequest("TooManyTables", f"Number of tables cannot exceed {MAX_TABLES}.")
    return await _add_table(transaction, component, name, transaction.catalog.first_free_number(component))


async def ensure_virtual_table(transaction: Transaction, component: int, name: str) -> TableInfo:
    """The tablet behind ``_storage`` or ``_scheduled_functions`` of a component, made if this is its first document.

    It has the fixed number of its name, the same in every component, and is no user table: not listed, not counted, without a schema.

    :raises KeyError: *name* is no virtual table.
    """
    number = VIRTUAL_TABLES[name]
    await transaction.ensure_begun()
    found = transaction.catalog.table(component, name)
    return found if found is not None else await _add_table(transaction, component, name, number)


async def _add_table(transaction: Transaction, component: int, name: str, number: int) -> TableInfo:
    tablet = transaction.new_metadata_id()
    await transaction.system.insert(
        TABLES.name, {"component": component, "name": name, "number": number, "tablet": tablet, "hidden": None}
    )
    await _insert_index(
        transaction, tablet, "by_creation_time", "database", ("_creationTime",), None, ENABLED, staged=False
    )
    return transaction.catalog.by_tablet[tablet]


async def add_index(
    transaction: Transaction,
    table: TableInfo,
    name: str,
    *,
    kind: str = "database",
    fields: tuple[str, ...] = (),
    spec: Any = None,
    staged: bool = False,
) -> IndexInfo:
    """Add an index to a table; writes keep it from this commit on, a backfill adds the older rows.

    :param fields: of a database index, ``_creationTime`` included, as in ``IndexDefinition.fields``.
    :param spec: JSON value that describes a search or vector index; recorded only. Such an index counts as built at once.
    :raises Conflict: an index of that name is pending already.
    """
    state = BACKFILLING if kind == "database" else BACKFILLED
    row_id = await _insert_index(transaction, table.tablet, name, kind, fields, spec, state, staged=staged)
    return transaction.catalog.index_rows[row_id]


async def _insert_index(
    transaction: Transaction,
    tablet: int,
    name: str,
    kind: str,
    fields: tuple[str, ...],
    spec: Any,
    state: str,
    *,
    staged: bool,
) -> bytes:
    return await transaction.system.insert(
        INDEX.name,
        {
            "tablet": tablet,
            "index": transaction.new_metadata_id(),
            "name": name,
            "kind": kind,
            "fields": list(fields),
            "spec": spec,
            "state": state,
            "staged": staged,
            "slot": "enabled" if state == ENABLED else "pending",
        },
    )


async def set_index_state(
    transaction: Transaction, index: IndexInfo, state: str, *, staged: bool | None = None
) -> None:
    """Move an index to *state* (``backfilling``, ``backfilled``, ``enabled``); *staged* is set too when given.

    Enabling an index whose name is taken by another enabled one needs that one removed first.

    :raises Conflict: the slot is taken.
    """
    fields: dict[str, Any] = {"state": state, "slot": "enabled" if state == ENABLED else "pending"}
    if staged is not None:
        fields["staged"] = staged
    await transaction.system.patch(INDEX.name, index.row_id, fields)


async def remove_index(transaction: Transaction, index: IndexInfo) -> None:
    """Drop an index. Its entries are deleted later, when no retained snapshot can ask for them."""
    await transaction.system.delete(INDEX.name, index.row_id)
    await transaction.system.insert(
        BACKEND_STATE.name,
        {"key": f"{DROPPED_INDEX_PREFIX}{index.id}", "index": index.id},
    )


async def drop_table(transaction: Transaction, table: TableInfo) -> None:
    """Drop a table with its indexes: from this commit on nobody finds it. Its documents are deleted later (``index_cleanup``)."""
    for index in table.indexes:
        await remove_index(transaction, index)
    await transaction.system.delete(TABLES.name, table.row_id)
    await transaction.system.insert(
        BACKEND_STATE.name,
        {"key": f"{DROPPED_TABLE_PREFIX}{table.tablet}", "tablet": table.tablet},
    )
