"""Schemas at work: the check of every write, and what a write does to a schema that waits to become active.

A write that the active schema refuses fails. One that only a pending schema, or a staged type, refuses succeeds and marks that failed, in the same
commit.
Source: ``runtime.md`` section 4.7, ``push.md`` section 10.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from convex_backend.database.catalog import TableInfo
from convex_backend.database.staged_validators import fail_staged
from convex_backend.database.system_tables import SCHEMAS
from convex_backend.values.schema import new_document_error, write_error

if TYPE_CHECKING:
    from convex_backend.database.transaction import Transaction

PENDING: Final = "pending"
VALIDATED: Final = "validated"
ACTIVE: Final = "active"
FAILED: Final = "failed"


async def enforce(transaction: Transaction, table: TableInfo, document: dict[str, Any]) -> None:
    """Check one new version of a document of *table* against the component's schemas.

    :param document: with its system fields.
    :raises InvalidValue: ``SchemaEnforcementError``.
    """
    catalog = transaction.catalog
    active = catalog.active.get(table.component)
    names = transaction.names(table.component)
    if active is not None:
        text = active.definition.check_document(table.name, document, names)
        if text is not None:
            raise write_error(table.name, text)
        staged = active.definition.staged_type(table.name)
        text = staged.check_document(document, names) if staged is not None else None
        if text is not None:
            await fail_staged(transaction, table.component, table.name, new_document_error(table.name, text))
    pending = catalog.pending.get(table.component)
    if pending is not None:
        text = pending.definition.check_document(table.name, document, names)
        if text is not None:
            await fail_schema(transaction, pending.row_id, new_document_error(table.name, text), table.name)


async def fail_schema(transaction: Transaction, row_id: bytes, error: str, table: str | None) -> None:
    """Mark the schema row failed. *error* is shown by the CLI, *table* is the table that it is about."""
    await transaction.system.patch(SCHEMAS.name, row_id, {"state": FAILED, "error": error, "table": table})
