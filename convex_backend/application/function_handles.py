"""Function handles: ``function://<id>#<path>``, where the id is that of a row of ``_function_handles``.

There is one for each (component, function path). Pushes make them (``push_store.write_handles``); they are never changed, so that a handle which was
stored somewhere means the same function for as long as the deployment lives. Source: ``runtime.md`` section 9.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convex_backend.application.system_commit import read_in, system_commit
from convex_backend.database.system_tables import FUNCTION_HANDLES
from convex_backend.values.ids import decode_id, encode_id
from convex_backend.values.kinds import InvalidValue
from convex_backend.values.paths import FunctionPath

if TYPE_CHECKING:
    from convex_backend.database.database import Database
    from convex_backend.database.transaction import Transaction


class FunctionHandles:
    """The handles of a deployment.

    :param database: started before the first question.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def identifier(self, transaction: Any, component: int, path: FunctionPath) -> str:
        """The id in the handle of a deployed function.

        :param transaction: records what was looked at; ``None`` looks at the newest durable state.
        """
        row = await read_in(
            self._database,
            transaction,
            lambda one: one.system.lookup(FUNCTION_HANDLES.name, "by_function", (component, path.canonical)),
        )
        if row is None:
            # Pushes make the handles; this one is of a deployment that was pushed before they did.
            return await self._add(component, path)
        handle: str = row[1]["_id"]
        return handle

    async def _add(self, component: int, path: FunctionPath) -> str:
        """Make the handle of a function, in a commit of its own, unless another one was faster."""

        async def work(transaction: Transaction) -> str:
            key = (component, path.canonical)
            found = await transaction.system.lookup(FUNCTION_HANDLES.name, "by_function", key)
            if found is not None:
                identifier: str = found[1]["_id"]
                return identifier
            row = {"component": component, "path": path.canonical}
            return encode_id(FUNCTION_HANDLES.number, await transaction.system.insert(FUNCTION_HANDLES.name, row))

        return await system_commit(self._database, "function handles", work)

    async def function(self, transaction: Any, identifier: str) -> tuple[int, FunctionPath] | None:
        """The component and path behind the id of a handle, deployed or not; ``None`` when there is no such handle."""
        try:
            number, row_id = decode_id(identifier)
        except InvalidValue:
            return None
        if number != FUNCTION_HANDLES.number:
            return None
        row = await read_in(self._database, transaction, lambda one: one.system.get(FUNCTION_HANDLES.name, row_id))
        return None if row is None else (row[1]["component"], FunctionPath.parse(row[1]["path"]))
