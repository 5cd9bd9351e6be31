"""What a new file holds, and what every start makes sure of.

System tables need no rows of their own: they are fixed in ``system_tables``. A new file gets its root component and a format number; a file of an
older format is brought up here, one step at a time, in one transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from convex_backend.database.system_tables import BACKEND_STATE, COMPONENTS, ROOT_COMPONENT
from convex_backend.errors import ConvexError

if TYPE_CHECKING:
    from convex_backend.database.transaction import Transaction

#: The present format of the system tables' rows.
FORMAT: Final = 1

_FORMAT_KEY: Final = "format"


async def bootstrap(transaction: Transaction) -> bool:
    """Bring the file to the present format.

    :returns: whether there is something to commit.
    :raises ConvexError: ``DatabaseTooNew``.
    """
    found = await transaction.system.lookup(BACKEND_STATE.name, "by_key", (_FORMAT_KEY,))
    if found is not None:
        if found[1]["format"] > FORMAT:
            raise ConvexError(
                "DatabaseTooNew",
                f"The database was written by a newer version (format {found[1]['format']}, this version knows {FORMAT}).",
            )
        return False
    await transaction.system.insert(BACKEND_STATE.name, {"key": _FORMAT_KEY, "format": FORMAT})
    await transaction.system.insert(
        COMPONENTS.name,
        {"component": ROOT_COMPONENT, "path": "", "parent": None, "name": None, "state": "active"},
    )
    return True
