"""Deleting what only an operator deletes: whole tables, and components that are no longer mounted.

Both are gone with one commit; the documents follow in the background, when no retained snapshot can ask for them (``database.index_cleanup``).
Source: ``http_api.md`` section 7, ``runtime.md`` section 9.2.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from twisted.logger import Logger

from convex_backend.application.component_push import erase_component
from convex_backend.application.components import ROOT, UNMOUNTED
from convex_backend.application.operations import check_operation
from convex_backend.application.system_commit import system_commit
from convex_backend.application.system_functions.registry import component_of_id
from convex_backend.database.system_tables import COMPONENTS, SCHEMAS, SYSTEM_TABLES, TABLES, SystemTable
from convex_backend.database.tables import drop_table
from convex_backend.deferreds import shield
from convex_backend.errors import BadRequest

if TYPE_CHECKING:
    from convex_backend.application.types import Identity
    from convex_backend.database.database import Database
    from convex_backend.database.transaction import Transaction

T = TypeVar("T")

#: Rows that go in one commit while a component is taken apart.
STEP_ROWS: Final = 500
#: What ``erase_component`` deletes itself.
_ERASED: Final = frozenset((TABLES.name, SCHEMAS.name, COMPONENTS.name))


class Deletion:
    """The use cases.

    :param database: started.
    """

    _log = Logger()

    def __init__(self, database: Database) -> None:
        self._database = database

    async def delete_tables(self, names: Sequence[str], component_id: str | None, identity: Identity) -> None:
        """Delete user tables with their documents; names that mean no table are passed over.

        :param component_id: document id of the component, ``None`` for the app.
        :raises Forbidden: *identity* may not. :raises BadRequest: ``TableInSchema``; no such component. Nothing is deleted then.
        Cancelling drops the answer; the deletion may still happen.
        """
        check_operation(identity, "WriteData")
        await self._commit(lambda transaction: self._drop(transaction, names, component_id))

    async def _drop(self, transaction: Transaction, names: Sequence[str], component_id: str | None) -> None:
        await transaction.ensure_begun()
        component = ROOT if component_id is None else await component_of_id(transaction, component_id)
        catalog = transaction.catalog
        schema = catalog.active.get(component)
        for name in names:
            fault = schema.definition.deletion_error(name) if schema is not None else None
            if fault is not None:
                raise BadRequest("TableInSchema", fault)
        for name in dict.fromkeys(names):
            table = catalog.table(component, name)
            if table is not None and not table.virtual:
                await drop_table(transaction, table)

    async def delete_component(self, component_id: str, identity: Identity) -> None:
        """Delete a component that is not mounted, and all below it, with tables, files, jobs and everything else that it has.

        :param component_id: document id of its row.
        :raises Forbidden: *identity* may not. :raises BadRequest: ``ComponentMustBeUnmounted``; there is no such component.
        Cancelling drops the answer; the deletion goes on. Should the server end in the middle, the component is still there, without some of
        its parts, and can be deleted again.
        """
        check_operation(identity, "WriteData")
        await shield(self._delete_component(component_id))

    async def _delete_component(self, component_id: str) -> None:
        numbers = await self._commit(lambda transaction: _unmounted_with_descendants(transaction, component_id))
        for number in numbers:
            for table in SYSTEM_TABLES.values():
                while await self._commit(lambda t, table=table, number=number: _delete_rows(t, table, number)):  # type: ignore[misc]
                    continue
        await self._commit(lambda transaction: self._erase(transaction, component_id))

    async def _erase(self, transaction: Transaction, component_id: str) -> None:
        # Looked at again: a push may have mounted it in between.
        for number in await _unmounted_with_descendants(transaction, component_id):
            await erase_component(transaction, number)
            self._log.info("deleted component {number}", number=number)

    async def _commit(self, body: Callable[[Transaction], Awaitable[T]]) -> T:
        return await system_commit(self._database, "deletion", body)


async def _unmounted_with_descendants(transaction: Transaction, component_id: str) -> list[int]:
    """Internal ids of the component and of all below it, the deepest first.

    :raises BadRequest: there is no such component, or it is mounted.
    """
    component = await component_of_id(transaction, component_id)
    rows = [row for _, row in await transaction.system.scan(COMPONENTS.name, "by_path")]
    path = next(row["path"] for row in rows if row["component"] == component)
    found = [row for row in rows if row["path"] == path or row["path"].startswith(f"{path}/")]
    if path == "" or any(row["state"] != UNMOUNTED for row in found):
        raise BadRequest("ComponentMustBeUnmounted", "Component must be unmounted before deletion")
    return [row["component"] for row in sorted(found, key=lambda row: -row["path"].count("/"))]


async def _delete_rows(transaction: Transaction, table: SystemTable, component: int) -> int:
    """Delete up to :data:`STEP_ROWS` rows that a system table has of a component. :returns: how many there were."""
    index = next((one for one in table.indexes if one.fields[0] == "component"), None)
    if index is None or table.name in _ERASED:
        return 0
    rows = await transaction.system.scan(table.name, index.name, (component,), STEP_ROWS)
    for row_id, _ in rows:
        await transaction.system.delete(table.name, row_id)
    return len(rows)
