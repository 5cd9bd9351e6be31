"""What is deployed, as one picture of one moment: components with their functions, schema, HTTP routes and crons, variables, versions, the push.

Read in one transaction, so that its parts belong together. Source: ``docs/deploy_api.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import orjson

from convex_backend.application.environment import read_rows
from convex_backend.application.operations import allowed_operations, check_operation

if TYPE_CHECKING:
    from convex_backend.application.components import Component
    from convex_backend.application.push_history import HistoryEntry, PushHistory
    from convex_backend.application.push_store import PushStore
    from convex_backend.application.types import Identity
    from convex_backend.database.database import Database
    from convex_backend.database.transaction import Transaction


@attrs.frozen(slots=True)
class DeployedFunction:
    """:param path: ``dir/mod.js:name``. :param kind: ``Query``, ``Mutation`` or ``Action``. :param visibility: ``public`` or ``internal``."""

    path: str
    kind: str
    visibility: str


@attrs.frozen(slots=True)
class DeployedIndex:
    """:param table: its table. :param state: ``enabled``, ``backfilling``, …; *staged* ones are kept and not used."""

    table: str
    name: str
    state: str
    staged: bool


@attrs.frozen(slots=True)
class DeployedComponent:
    """One component instance, the app (path ``""``) first.

    :param state: ``active`` or ``unmounted``. :param definition: path of its definition.
    :param version: of the npm package whose CLI or library made its code; ``None`` if nothing is deployed.
    :param schema: the active schema as ``schema.js`` exports it, or ``None``. :param tables: that exist, with or without a schema.
    :param http_routes: (method, path) pairs of its ``http.js``. :param crons: specs by identifier.
    """

    path: str
    state: str
    definition: str
    version: str | None
    modules: tuple[str, ...]
    functions: tuple[DeployedFunction, ...]
    schema: dict[str, Any] | None
    tables: tuple[str, ...]
    indexes: tuple[DeployedIndex, ...]
    http_routes: tuple[tuple[str, str], ...]
    crons: dict[str, Any]


@attrs.frozen(slots=True)
class DeployedApp:
    """:param push: the push that made it so, if the history has it. :param environment: names of the variables; ``None``: not to be seen.
    :param ts: the moment, a commit timestamp (ns)."""

    ts: int
    server_version: str
    push: HistoryEntry | None
    environment: tuple[str, ...] | None
    auth_providers: int
    components: tuple[DeployedComponent, ...]

    def to_json(self) -> dict[str, Any]:
        """As ``/api/deployed_app`` shows it; ``ts`` as text, since it may be more than JavaScript's numbers hold."""
        return {**attrs.asdict(self), "ts": str(self.ts)}


class DeployedAppReader:
    """The use case.

    :param server_version: of this server.
    """

    def __init__(self, *, database: Database, store: PushStore, history: PushHistory, server_version: str) -> None:
        self._database = database
        self._store = store
        self._history = history
        self._server_version = server_version

    async def read(self, identity: Identity) -> DeployedApp:
        """What is deployed now. :raises Forbidden: *identity* may not see it."""
        check_operation(identity, "ViewData")
        transaction = self._database.begin("query")
        try:
            await transaction.ensure_begun()
            newest = await self._history.entries(transaction, 1)
            known = await self._store.components(transaction)
            components = [await self._component(transaction, known[path]) for path in sorted(known)]
            providers = await self._store.auth_providers(transaction, 0)
            names = None
            if "ViewEnvironmentVariables" in allowed_operations(identity):
                names = tuple(sorted(await read_rows(transaction)))
            return DeployedApp(
                transaction.snapshot.ts,
                self._server_version,
                newest[0] if newest else None,
                names,
                len(providers),
                tuple(components),
            )
        finally:
            transaction.close()

    async def _component(self, transaction: Transaction, component: Component) -> DeployedComponent:
        modules = await self._store.modules(transaction, component.id)
        config = await self._store.udf_config(transaction, component.id)
        crons = await self._store.cron_jobs(transaction, component.id)
        trees = {path: module.tree() for path, module in modules.items()}
        catalog = transaction.catalog
        active = catalog.active.get(component.id)
        tables = sorted(catalog.tables_of(component.id), key=lambda table: table.name)
        routes = [one["route"] for tree in trees.values() for one in tree.get("httpRoutes") or ()]
        return DeployedComponent(
            component.path,
            component.state,
            component.definition,
            config.server_version if config is not None else None,
            tuple(modules),
            tuple(_function(path, one) for path, tree in trees.items() for one in tree.get("functions", ())),
            active.definition.to_json() if active is not None else None,
            tuple(table.name for table in tables),
            tuple(
                DeployedIndex(table.name, index.name, index.state, index.staged)
                for table in tables
                for index in table.indexes
            ),
            tuple((route["method"], route["path"]) for route in routes),
            {name: orjson.loads(spec) for name, spec in crons.items()},
        )


def _function(path: str, tree: dict[str, Any]) -> DeployedFunction:
    visibility = tree["visibility"]
    return DeployedFunction(
        f"{path}:{tree['name']}", tree["udfType"], visibility["kind"] if visibility is not None else "public"
    )
