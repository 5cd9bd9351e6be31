"""The function directory: from (component, path) to what a run needs, at any timestamp (A8).

A :class:`CodeState` is immutable. Each commit that touches modules, udf configs, environment variables or components makes a new one, which
shares the records of all modules that did not change: the *same object* for the same deployed version. States of the write log's window are kept,
so that a run at an older snapshot sees the code of its own time.

What a run depends on is one point read: the row of its module. That row holds the hashes of the module's whole closure and what analysis found,
and a push rewrites it only if any of these changed. Source: ``runtime.md`` sections 1.4, 2.6, 6.3.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs
import orjson

from convex_backend.application.components import (
    ACTIVE,
    ROOT,
    ComponentTree,
    HttpMount,
    HttpSite,
    child_path,
    component_point,
)
from convex_backend.application.push_store import StoredModule, UdfConfig
from convex_backend.database.catalog import current_rows, table_name_point
from convex_backend.database.system_tables import (
    COMPONENTS,
    ENVIRONMENT_VARIABLES,
    FUNCTION_HANDLES,
    MODULES,
    TABLES,
    UDF_CONFIG,
)
from convex_backend.errors import NotFound, OutOfRetention, Rerun
from convex_backend.functions.directory import Environment, ResolvedFunction
from convex_backend.functions.outcome import UNKNOWN
from convex_backend.interfaces import ModuleRef, Row
from convex_backend.values.ids import decode_id
from convex_backend.values.json_codec import loads
from convex_backend.values.kinds import InvalidValue
from convex_backend.values.paths import FunctionPath
from convex_backend.values.sort_key import encode_key
from convex_backend.values.validators import parse_args, parse_returns

if TYPE_CHECKING:
    from convex_backend.database.committer import CommitEvent
    from convex_backend.database.database import Database
    from convex_backend.database.system_rows import SystemRow

CODE_TABLETS: Final = frozenset((MODULES.tablet, UDF_CONFIG.tablet, ENVIRONMENT_VARIABLES.tablet, COMPONENTS.tablet))

_MODULES_BY_PATH: Final = MODULES.index("by_path").id
_UDF_CONFIG_BY_COMPONENT: Final = UDF_CONFIG.index("by_component").id
_VARIABLES_BY_NAME: Final = ENVIRONMENT_VARIABLES.index("by_name").id
_NO_CONFIG: Final = UdfConfig("", bytes(32), 0)
_UNNAMED: Final = frozenset(("time", "random"))
#: Indexes of all that a run can observe without a syscall.
_OBSERVABLE: Final = (
    _VARIABLES_BY_NAME,
    _UDF_CONFIG_BY_COMPONENT,
    COMPONENTS.index("by_path").id,
    TABLES.index("by_name").id,
)


@attrs.frozen(slots=True, eq=False)
class ModuleRecord:
    """One deployed module. ``functions`` are by export name; ``point`` is the read that depending on it makes.

    :param config: the udf config that its functions carry; matters only with ``uses_config`` (its import phase looks at clock or seed).
    """

    component: int
    component_path: str
    stored: StoredModule
    functions: Mapping[str, ResolvedFunction]
    config: UdfConfig
    uses_config: bool
    point: tuple[int, bytes]


@attrs.frozen(slots=True, eq=False)
class CodeState:
    """All deployed code and variables as of ``ts``. Never changed.

    :param modules: by component and canonical path. :param variables: the user's, by component and name.
    :param environments: what components see: the user's variables, or what a component was given, over built-in ones.
    :param components: the tree of components.
    :param module_rows: component and path by internal row id, ``variable_rows`` component and name, ``config_rows`` component: a
        deletion names the row only.
    """

    ts: int
    modules: dict[tuple[int, str], ModuleRecord]
    configs: dict[int, UdfConfig]
    variables: dict[int, dict[str, str]]
    environments: dict[int, Environment]
    module_rows: dict[bytes, tuple[int, str]]
    config_rows: dict[bytes, int]
    variable_rows: dict[bytes, tuple[int, str]]
    components: ComponentTree

    def http_site(self, component: int) -> HttpSite | None:
        """The HTTP routes and mounts of a mounted component, for routing; ``None`` when there is no such component.

        :param component: internal id; 0 is the app, where every request begins.
        """
        found = self.components.by_id.get(component)
        if found is None or found.state != ACTIVE:
            return None
        module = self.modules.get((component, "http.js"))
        routes = [
            one["route"] for one in (module.stored.tree().get("httpRoutes") if module is not None else None) or ()
        ]
        mounts = []
        for prefix, name in found.mounts:
            child = self.components.child(component, name)
            if child is not None:
                mounts.append(HttpMount(prefix, child.id))
        own = (found.http_prefix or "/") if component == ROOT else "/"
        pairs = tuple((route["method"], route["path"]) for route in routes)
        return HttpSite(component, found.path, own, pairs, tuple(mounts))


def module_point(component: int, path: str) -> tuple[int, bytes]:
    """The read that "what is the module at *path*" makes, whether it exists or not."""
    return _MODULES_BY_PATH, encode_key((component, path))


def variable_point(component: int, name: str) -> tuple[int, bytes]:
    """The read of one environment variable, whether it is set or not."""
    return _VARIABLES_BY_NAME, encode_key((component, name))


class Directory:
    """Implements ``functions.directory.FunctionDirectory``.

    :param database: started.
    :param cloud_origin: value of ``CONVEX_CLOUD_URL``. :param site_origin: of ``CONVEX_SITE_URL``.
    """

    def __init__(self, *, database: Database, cloud_origin: str, site_origin: str) -> None:
        self._database = database
        self._built_in = {"CONVEX_CLOUD_URL": cloud_origin, "CONVEX_SITE_URL": site_origin}
        self.newest = self._empty()
        self._states: list[CodeState] = [self.newest]
        self._timestamps: list[int] = [self.newest.ts]
        #: the last state read from history: a query asks several times
        self._historic: CodeState | None = None

    @property
    def built_in_variables(self) -> Mapping[str, str]:
        """The variables that every deployment has."""
        return self._built_in

    def start(self) -> None:
        """Read the deployed code, and follow the commits from here on. Call it in the turn after the database has started."""
        committer = self._database.committer
        state = self._apply(self._empty(), committer.durable_ts, current_rows(self._database.persistence, CODE_TABLETS))
        self.newest, self._states, self._timestamps = state, [state], [state.ts]
        committer.on_pending.append(self._on_pending)
        committer.on_durable.append(self._on_durable)
        committer.on_failed.append(self._drop_after)

    def stop(self) -> None:
        """Stop following commits."""
        committer = self._database.committer
        if self._on_pending in committer.on_pending:
            committer.on_pending.remove(self._on_pending)
            committer.on_durable.remove(self._on_durable)
            committer.on_failed.remove(self._drop_after)

    # -- FunctionDirectory --------------------------------------------------------------------------

    async def resolve(self, transaction: Any, component: int, path: FunctionPath) -> ResolvedFunction | None:
        """See ``FunctionDirectory``.

        :param transaction: begun: the state at its snapshot, recorded as read; ``None``: the newest durable state.
        :returns: the same object for the same deployed version.
        """
        state = await self._state(transaction)
        module = state.modules.get((component, path.module))
        if transaction is not None:
            point = module.point if module is not None else module_point(component, path.module)
            transaction.add_system_point(*point)
        if module is None:
            return None
        function = module.functions.get(path.name)
        if function is None and module.stored.environment == "node":
            return _node_action(module, path)
        return function

    def has_module(self, component: int, module: str) -> bool:
        """Whether the newest deployment has the module at this canonical path."""
        return (component, module) in self.newest.modules

    def server_version(self, component: int) -> str:
        """The npm package's version of the last push, ``""`` before the first."""
        return self.newest.configs.get(component, _NO_CONFIG).server_version

    async def environment(self, transaction: Any, component: int) -> Environment:
        """See ``FunctionDirectory``."""
        state = await self._state(transaction)
        return state.environments.get(component) or _environment({})

    async def _state(self, transaction: Any) -> CodeState:
        """The state that *transaction* sees; the newest durable one without a transaction."""
        if transaction is None:
            return await self._durable()
        if transaction.snapshot.ts < self.newest.ts:
            return await self.at(transaction.snapshot.ts)
        return self.newest

    async def child_component(self, transaction: Any, component: int, name: str) -> int | None:
        """See ``FunctionDirectory``."""
        state = await self._state(transaction)
        parent = state.components.by_id.get(component)
        if parent is None:
            return None
        return self._mounted(state, transaction, child_path(parent.path, name))

    async def component_at(self, transaction: Any, path: str) -> int | None:
        """The mounted component at *path*, an instance's path; see :meth:`resolve` for *transaction*."""
        if not path:
            return ROOT
        return self._mounted(await self._state(transaction), transaction, path)

    @staticmethod
    def _mounted(state: CodeState, transaction: Any, path: str) -> int | None:
        if transaction is not None:
            transaction.add_system_point(*component_point(path))
        found = state.components.by_path.get(path)
        return found.id if found is not None and found.state == ACTIVE else None

    def component_path(self, component: int) -> str:
        """See ``FunctionDirectory``."""
        return self.newest.components.path_of(component)

    async def http_site(self, component: int) -> HttpSite | None:
        """The HTTP routes and mounts of a mounted component as durably deployed, see :class:`components.HttpSite`."""
        return (await self._durable()).http_site(component)

    async def function_handle(self, transaction: Any, component: int, path: FunctionPath) -> str:
        """See ``FunctionDirectory``."""
        row = await self._look(
            transaction,
            lambda one: one.system.lookup(FUNCTION_HANDLES.name, "by_function", (component, path.canonical)),
        )
        if row is None:
            raise NotFound("FunctionHandleNotFound", "Function handle not found")
        handle: str = row[1]["_id"]
        return handle

    async def function_of_handle(self, transaction: Any, identifier: str) -> tuple[int, FunctionPath] | None:
        """See ``FunctionDirectory``."""
        try:
            number, row_id = decode_id(identifier)
        except InvalidValue:
            return None
        if number != FUNCTION_HANDLES.number:
            return None
        row = await self._look(transaction, lambda one: one.system.get(FUNCTION_HANDLES.name, row_id))
        return None if row is None else (row[1]["component"], FunctionPath.parse(row[1]["path"]))

    async def _look(self, transaction: Any, read: Callable[[Any], Awaitable[SystemRow | None]]) -> SystemRow | None:
        """A system row, read in *transaction* or, when that is ``None``, at the newest durable state."""
        if transaction is not None:
            return await read(transaction)
        own = self._database.begin("query")
        try:
            return await read(own)
        finally:
            own.close()

    def observed(self, transaction: Any, function: ResolvedFunction, observed: frozenset[str]) -> None:
        """See ``FunctionDirectory``; *transaction* may be ``None``."""
        if transaction is None or observed <= _UNNAMED:
            return
        if UNKNOWN in observed:
            for index in _OBSERVABLE:
                transaction.add_system_interval(index, b"", None)
            return
        for name in observed:
            if name.startswith("env:table:"):
                # ``db.normalizeId`` is answered in the child; it depends on what the table's name means.
                transaction.add_system_point(*table_name_point(function.component, name[10:]))
            elif name.startswith("env:"):
                self._variable_observed(transaction, function.component, name[4:])
        if "import_time" in observed or "import_random" in observed:
            transaction.add_system_point(_UDF_CONFIG_BY_COMPONENT, encode_key((function.component,)))

    def _variable_observed(self, transaction: Any, component: int, name: str) -> None:
        """Record the variable, and in a component the bindings that lead to it."""
        ts = transaction.snapshot_ts
        try:
            # A mutation that has not begun yet will find out at its snapshot whether the code is still this.
            tree = self.newest.components if ts is None else self.recent(ts).components
        except OutOfRetention:
            return  # An answer this old is kept by nobody.
        paths, variable = tree.source_of_variable(component, name)
        for path in paths:
            transaction.add_system_point(*component_point(path))
        if variable is not None:
            transaction.add_system_point(*variable_point(ROOT, variable))

    async def _durable(self) -> CodeState:
        """The newest state, once it is durable: a push under way may still fail, and is soon over."""
        committer = self._database.committer
        while self.newest.ts > committer.durable_ts:
            try:
                await committer.wait_durable(self.newest.ts)
            except Rerun:
                continue  # it has failed: the state before it is the newest again
        return self.newest

    # -- states by timestamp ------------------------------------------------------------------------

    def recent(self, ts: int) -> CodeState:
        """The state at *ts*, which the window holds.

        :raises OutOfRetention: it does not; use :meth:`at`.
        """
        position = bisect_right(self._timestamps, ts)
        if not position:
            raise OutOfRetention
        return self._states[position - 1]

    async def at(self, ts: int) -> CodeState:
        """The state that a snapshot at *ts* sees; from history when it is older than the window."""
        if ts >= self._timestamps[0]:
            return self.recent(ts)
        if self._historic is not None and self._historic.ts == ts:
            return self._historic
        changes: list[tuple[int, bytes, bytes | None]] = []
        persistence = self._database.persistence
        for tablet in sorted(CODE_TABLETS):
            lower = b""
            while True:
                rows: list[Row] = await persistence.scan_documents_at(tablet, lower, None, False, 1000, ts)
                changes.extend((tablet, row.id, row.json) for row in rows)
                if len(rows) < 1000:
                    break
                lower = rows[-1].key + b"\x00"
        self._historic = self._apply(self._empty(), ts, changes)
        return self._historic

    def _on_pending(self, event: CommitEvent) -> None:
        changes = [
            (change.tablet, change.id, change.new_json) for change in event.changes if change.tablet in CODE_TABLETS
        ]
        if changes:
            self.newest = self._apply(self.newest, event.ts, changes)
            self._states.append(self.newest)
            self._timestamps.append(event.ts)

    def _drop_after(self, ts: int) -> None:
        position = bisect_right(self._timestamps, ts)
        del self._states[position:], self._timestamps[position:]
        self.newest = self._states[-1]

    def _on_durable(self, events: list[CommitEvent]) -> None:
        if len(self._states) == 1:
            return
        committer = self._database.committer
        floor = min(committer.write_log.floor_ts, committer.durable_ts)
        position = bisect_right(self._timestamps, floor) - 1
        if position > 0:
            del self._states[:position], self._timestamps[:position]

    def _empty(self) -> CodeState:
        return CodeState(0, {}, {}, {}, {ROOT: _environment(self._built_in)}, {}, {}, {}, ComponentTree.empty())

    def _apply(self, state: CodeState, ts: int, changes: Iterable[tuple[int, bytes, bytes | None]]) -> CodeState:
        modules = dict(state.modules)
        configs = dict(state.configs)
        variables = {component: dict(values) for component, values in state.variables.items()}
        module_rows, config_rows, variable_rows = (
            dict(state.module_rows),
            dict(state.config_rows),
            dict(state.variable_rows),
        )
        changed: dict[tuple[int, str], StoredModule] = {}
        component_changes: list[tuple[bytes, Any]] = []
        environment_changed = False
        for tablet, row_id, json in changes:
            row: Any = loads(json) if json is not None else None
            if tablet == MODULES.tablet:
                old = module_rows.pop(row_id, None)
                if old is not None and old not in changed:
                    modules.pop(old, None)
                if row is not None:
                    key = row["component"], row["path"]
                    module_rows[row_id] = key
                    changed[key] = StoredModule.from_row(row)
            elif tablet == UDF_CONFIG.tablet:
                component = config_rows.pop(row_id, None)
                if component is not None:
                    configs.pop(component, None)
                if row is not None:
                    config_rows[row_id] = row["component"]
                    configs[row["component"]] = UdfConfig.from_row(row)
            elif tablet == ENVIRONMENT_VARIABLES.tablet:
                environment_changed = True
                name = variable_rows.pop(row_id, None)
                if name is not None:
                    variables.get(name[0], {}).pop(name[1], None)
                if row is not None:
                    variable_rows[row_id] = row["component"], row["name"]
                    variables.setdefault(row["component"], {})[row["name"]] = row["value"]
            elif tablet == COMPONENTS.tablet:
                component_changes.append((row_id, row))
        components = state.components.apply(component_changes) if component_changes else state.components
        for (component, path), stored in changed.items():
            where = components.path_of(component)
            modules[component, path] = _record(component, where, stored, configs.get(component, _NO_CONFIG))
        for key, module in modules.items():
            config = configs.get(key[0], _NO_CONFIG)
            if module.uses_config and module.config != config:
                modules[key] = _record(key[0], components.path_of(key[0]), module.stored, config)
        environments = state.environments
        if environment_changed or component_changes:
            user = variables.get(ROOT, {})
            environments = {}
            for component in components.by_id:
                seen = components.variables_of(component, user, self._built_in)
                fresh = _environment(seen, components.by_id[component].args)
                known = state.environments.get(component)
                environments[component] = known if known is not None and known.version == fresh.version else fresh
        return CodeState(
            ts, modules, configs, variables, environments, module_rows, config_rows, variable_rows, components
        )


def _environment(merged: Mapping[str, str], arguments: Mapping[str, Any] | None = None) -> Environment:
    tree = [merged, dict(arguments)] if arguments else merged
    version = hashlib.sha256(orjson.dumps(tree, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return Environment(merged, version, arguments or {})


def _record(component: int, component_path: str, stored: StoredModule, config: UdfConfig) -> ModuleRecord:
    tree = stored.tree()
    closure = tuple(ModuleRef(name, digest) for name, digest in tree.get("closure", ()))
    # Only actions may import dynamically.
    action_closure = tuple(ModuleRef(name, digest) for name, digest in tree.get("dynamicClosure", ()))
    functions: dict[str, ResolvedFunction] = {}
    for function in tree.get("functions", ()):
        visibility, args, returns = function["visibility"], function["args"], function["returns"]
        functions[function["name"]] = ResolvedFunction(
            component=component,
            component_path=component_path,
            path=FunctionPath.of(stored.path, function["name"]),
            kind=function["udfType"].lower(),
            visibility=visibility["kind"] if visibility is not None else None,
            args=parse_args(args) if args is not None else None,
            returns=parse_returns(returns) if returns is not None else None,
            closure=action_closure if function["udfType"] == "Action" else closure,
            import_seed=config.seed,
            import_ms=float(config.time_ns // 1_000_000),
            node=stored.environment == "node",
            reuse_context=bool(tree.get("reuseContext")),
            realm=tree.get("realmRefusal") == "",
        )
    uses_config = bool(tree.get("importTime") or tree.get("importRandom"))
    return ModuleRecord(
        component, component_path, stored, functions, config, uses_config, module_point(component, stored.path)
    )


def _node_action(module: ModuleRecord, path: FunctionPath) -> ResolvedFunction:
    """Modules of the Node executor are not analysed: whatever they export is an action, which says itself that it cannot run."""
    return ResolvedFunction(
        module.component,
        module.component_path,
        path,
        "action",
        "public",
        None,
        None,
        (),
        module.config.seed,
        0.0,
        node=True,
    )
