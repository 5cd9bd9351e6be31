"""The deployed auth config in memory: read when a token comes, dropped when a push or a changed variable has written it anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from convex_backend.application.auth.providers import Provider, provider_of_row
from convex_backend.application.push_store import PushStore
from convex_backend.database.system_tables import AUTH, ROOT_COMPONENT

if TYPE_CHECKING:
    from convex_backend.database.committer import CommitEvent
    from convex_backend.database.database import Database


class DeployedProviders:
    """The providers of the app, as durably deployed.

    :param database: started; its commits are followed from here on.
    """

    def __init__(self, *, database: Database, store: PushStore) -> None:
        self._database = database
        self._store = store
        self._known: Sequence[Provider] | None = None
        self._changes = 0
        database.committer.on_durable.append(self._on_durable)

    def _on_durable(self, events: list[CommitEvent]) -> None:
        if any(change.tablet == AUTH.tablet for event in events for change in event.changes):
            self._known = None
            self._changes += 1

    async def read(self) -> Sequence[Provider]:
        """The providers in the order of the config."""
        if self._known is not None:
            return self._known
        before = self._changes
        transaction = self._database.begin("query")
        try:
            rows = await self._store.auth_providers(transaction, ROOT_COMPONENT)
        finally:
            transaction.close()
        providers = tuple(provider_of_row(row) for row in rows)
        if self._changes == before:
            self._known = providers
        return providers
