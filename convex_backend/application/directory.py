"""The function directory: from (component, path) to what a run needs, at any timestamp (A8).

It keeps the :class:`CodeState` of each commit in the write log's window, so that a run at an older snapshot sees the code of its own time.

What a run depends on is one point read: the row of its module. That row holds the hashes of the module's whole closure and what analysis found,
and a push rewrites it only if any of these changed. Source: ``runtime.md`` sections 1.4, 2.6, 6.3.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from convex_backend.application.code_state import (
    CODE_TABLETS,
    NO_CONFIG,
    CodeState,
    environment,
    module_point,
    node_code,
    variable_point,
)
from convex_backend.application.components import (
    ACTIVE,
    ROOT,
    HttpSite,
    child_path,
    component_point,
)
from convex_backend.application.function_handles import FunctionHandles
from convex_backend.application.node_packages import NodeCode
from convex_backend.database.catalog import current_rows, table_name_point
from convex_backend.database.system_tables import (
    COMPONENTS,
    ENVIRONMENT_VARIABLES,
    TABLES,
    UDF_CONFIG,
)
from convex_backend.errors import OutOfRetention, Rerun
from convex_backend.functions.directory import Environment, ResolvedFunction
from convex_backend.functions.outcome import UNKNOWN
from convex_backend.interfaces import Row
from convex_backend.values.paths import FunctionPath
from convex_backend.values.sort_key import encode_key

if TYPE_CHECKING:
    from convex_backend.database.committer import CommitEvent
    from convex_backend.database.database import Database


_UDF_CONFIG_BY_COMPONENT: Final = UDF_CONFIG.index("by_component").id
_VARIABLES_BY_NAME: Final = ENVIRONMENT_VARIABLES.index("by_name").id
_UNNAMED: Final = frozenset(("time", "random"))
#: Indexes of all that a run can observe without a syscall.
_OBSERVABLE: Final = (
    _VARIABLES_BY_NAME,
    _UDF_CONFIG_BY_COMPONENT,
    COMPONENTS.index("by_path").id,
    TABLES.index("by_name").id,
)


class Directory:
    """Implements ``functions.directory.FunctionDirectory``.

    :param database: started.
    :param cloud_origin: value of ``CONVEX_CLOUD_URL``. :param site_origin: of ``CONVEX_SITE_URL``.
    """

    def __init__(self, *, database: Database, cloud_origin: str, site_origin: str) -> None:
        self._database = database
        self._handles = FunctionHandles(database)
        self._built_in = {"CONVEX_CLOUD_URL": cloud_origin, "CONVEX_SITE_URL": site_origin}
        self.newest = CodeState.empty(self._built_in)
        self._states: list[CodeState] = [self.newest]
        self._timestamps: list[int] = [self.newest.ts]
        self._node_code: tuple[CodeState, NodeCode] | None = None
        #: the last state read from history: a query asks several times
        self._historic: CodeState | None = None

    @property
    def built_in_variables(self) -> Mapping[str, str]:
        """The variables that every deployment has."""
        return self._built_in

    def start(self) -> None:
        """Read the deployed code, and follow the commits from here on. Call it in the turn after the database has started."""
        committer = self._database.committer
        state = self._applied(committer.durable_ts, current_rows(self._database.persistence, CODE_TABLETS))
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
        state = self.newest
        if transaction is None or transaction.snapshot.ts < state.ts:
            state = await self._state(transaction)
        module = state.modules.get((component, path.module))
        if transaction is not None:
            point = module.point if module is not None else module_point(component, path.module)
            transaction.add_system_point(*point)
        if module is None:
            return None
        return module.functions.get(path.name)

    def has_module(self, component: int, module: str) -> bool:
        """Whether the newest deployment has the module at this canonical path."""
        return (component, module) in self.newest.modules

    def server_version(self, component: int) -> str:
        """The npm package's version of the last push, ``""`` before the first."""
        return self.newest.configs.get(component, NO_CONFIG).server_version

    async def node_code(self) -> NodeCode:
        """The deployed ``"use node"`` code: the same object while nothing that is deployed has changed."""
        state = await self._durable()
        if self._node_code is None or self._node_code[0] is not state:
            self._node_code = state, node_code(state)
        return self._node_code[1]

    async def environment(self, transaction: Any, component: int) -> Environment:
        """See ``FunctionDirectory``."""
        state = self.newest
        if transaction is None or transaction.snapshot.ts < state.ts:
            state = await self._state(transaction)
        return state.environments.get(component) or environment({})

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
        return await self._handles.identifier(transaction, component, path)

    async def function_of_handle(self, transaction: Any, identifier: str) -> tuple[int, FunctionPath] | None:
        """See ``FunctionDirectory``."""
        return await self._handles.function(transaction, identifier)

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
        self._historic = self._applied(ts, changes)
        return self._historic

    def _on_pending(self, event: CommitEvent) -> None:
        changes = [
            (change.tablet, change.id, change.new_json) for change in event.changes if change.tablet in CODE_TABLETS
        ]
        if changes:
            self.newest = self.newest.apply(event.ts, changes, self._built_in)
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

    def _applied(self, ts: int, rows: Iterable[tuple[int, bytes, bytes | None]]) -> CodeState:
        return CodeState.empty(self._built_in).apply(ts, rows, self._built_in)
