"""Going back to an earlier push: the same request again, through the same checks (``push_history.py``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from convex_backend.application.operations import check_operation
from convex_backend.application.push_history import KEPT_PUSHES, HistoryEntry, PushHistory
from convex_backend.application.whole_push import SchemaRefused, push_whole
from convex_backend.errors import BadRequest, Conflict, NotFound

if TYPE_CHECKING:
    from convex_backend.application.deploy import Deploy
    from convex_backend.application.types import Caller, Identity
    from convex_backend.database.database import Database


@attrs.frozen(slots=True)
class RolledBack:
    """:param target: the push that was gone back to. :param entry: the push that did so, the current one now."""

    target: int
    entry: HistoryEntry


class Rollbacks:
    """The history as operators see it, and the way back.

    :param history: of *deploy*.
    """

    def __init__(self, *, database: Database, history: PushHistory, deploy: Deploy) -> None:
        self._database = database
        self._history = history
        self._deploy = deploy

    async def entries(self, identity: Identity, limit: int = KEPT_PUSHES) -> list[HistoryEntry]:
        """The last finished pushes, newest first. :raises Forbidden: *identity* may not see it."""
        check_operation(identity, "ViewData")
        transaction = self._database.begin("query")
        try:
            return await self._history.entries(transaction, limit)
        finally:
            transaction.close()

    async def roll_back(self, number: int | None, identity: Identity, caller: Caller) -> RolledBack:
        """Make push *number* the deployed one again; without a number the one before the current.

        Environment variables and documents stay as they are. What is deployed serves until all is checked.

        :raises NotFound: ``PushNotFound``: there is no such push, or none before the current one.
        :raises Conflict: ``RollbackRefused``: stored documents do not fit the schema of that push; the text names table and document.
        :raises BadRequest: it is what is deployed, or its code cannot be deployed any more.
        """
        check_operation(identity, "Deploy")
        transaction = self._database.begin("query")
        try:
            newest = await self._history.entries(transaction, 2)
            if not newest or (number is None and len(newest) == 1):
                raise NotFound("PushNotFound", "There is no earlier push to go back to.")
            target = newest[1].id if number is None else number
            if target == newest[0].id:
                raise BadRequest("AlreadyDeployed", f"Push {target} is what is deployed.")
            request = await self._history.request(transaction, target)
        finally:
            transaction.close()
        try:
            await push_whole(self._deploy, request, identity, caller, f"Rollback to push {target}")
        except SchemaRefused as error:
            raise Conflict("RollbackRefused", f"Cannot go back to push {target}: {error.message}") from error
        entries = await self.entries(identity, 1)
        return RolledBack(target, entries[0])
