"""Single facts about the deployment: rows of ``_backend_state``, one for each key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convex_backend.database.system_tables import BACKEND_STATE

if TYPE_CHECKING:
    from convex_backend.database.transaction import Transaction


async def read_state(transaction: Transaction, key: str) -> dict[str, Any] | None:
    """What is kept under *key*, with the row's own fields; ``None`` when there is nothing."""
    found = await transaction.system.lookup(BACKEND_STATE.name, "by_key", (key,))
    return None if found is None else found[1]


async def write_state(transaction: Transaction, key: str, **members: Any) -> None:
    """Keep *members* under *key*. Others that are there stay; what is equal is not written again."""
    found = await transaction.system.lookup(BACKEND_STATE.name, "by_key", (key,))
    if found is None:
        await transaction.system.insert(BACKEND_STATE.name, {"key": key, **members})
    elif any(found[1].get(name) != value for name, value in members.items()):
        await transaction.system.patch(BACKEND_STATE.name, found[0], members)
