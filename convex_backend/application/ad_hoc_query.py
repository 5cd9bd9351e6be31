"""Queries that are not deployed: one module, sent with the call, whose default export is run once (``convex run --inline-query``, dashboards).

::

    import { query } from "convex:/_system/repl/wrappers.js";
    export default query({ handler: async (ctx) => … });

The module is analysed in a child of its own and run like any query: at the newest timestamp, in the component that is asked for, under all limits.
It may import the wrappers and npm's library and nothing else. Source: ``http_api.md`` section 6.3, ``system_functions.md`` section 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

from convex_backend.application import calls
from convex_backend.application.components import ROOT
from convex_backend.application.operations import check_operation
from convex_backend.application.push_analysis import AnalysisPool
from convex_backend.application.push_store import PushStore
from convex_backend.application.services import Services
from convex_backend.application.simple_deploy import Library
from convex_backend.application.system_functions.registry import component_of_id
from convex_backend.application.types import Caller, CallResult, Identity
from convex_backend.errors import BadRequest, ConvexError
from convex_backend.functions.analyze import AnalysisSpec
from convex_backend.functions.context import CallContext
from convex_backend.functions.directory import Environment, ResolvedFunction, check_kind
from convex_backend.functions.invocation import check_args, normalise_args
from convex_backend.functions.module_text import ModuleText
from convex_backend.functions.modules import module_text
from convex_backend.interfaces import ModuleRef, Outcome
from convex_backend.values.kinds import InvalidValue
from convex_backend.values.paths import FunctionPath, parse_module_path
from convex_backend.values.validators import InvalidValidator, parse_args, parse_returns

if TYPE_CHECKING:
    from convex_backend.database.transaction import Transaction

WRAPPERS: Final = "_system/repl/wrappers.js"
_WRAPPERS_TEXT: Final = """\
import { internalQueryGeneric, queryGeneric } from "convex/server";
export const query = queryGeneric;
export const internalQuery = internalQueryGeneric;
"""


class AdHocQueries:
    """The use case.

    :param analyzer: makes children that analyse. :param read_library: npm's library; called once.
    """

    def __init__(
        self, *, services: Services, store: PushStore, analyzer: AnalysisPool, read_library: Callable[[], Library]
    ) -> None:
        self._services = services
        self._store = store
        self._analyzer = analyzer
        self._read_library = read_library
        self._provided: list[ModuleText] | None = None

    async def run(
        self, bundle: Mapping[str, Any], args: bytes, component_id: str | None, identity: Identity, caller: Caller
    ) -> CallResult:
        """Run the default export of a module.

        :param bundle: ``{path, source, sourceMap?}``. :param args: JSON text of an object or of an array of one.
        :param component_id: document id of the component, ``None`` for the app.
        :returns: also failures of the module itself, as the function's error.
        :raises Forbidden: *identity* may not. :raises BadRequest: the bundle is malformed, or there is no such component.
        :raises Transient, ServerFault: it could not be computed.
        """
        check_operation(identity, "RunTestQuery")
        text = _bundle_text(bundle)
        caller = attrs.evolve(caller, source="Tester")
        services = self._services
        transaction = services.database.begin("query")
        try:
            await transaction.ensure_begun()
            component = ROOT if component_id is None else await component_of_id(transaction, component_id)
            transaction.component = component
            environment = await services.directory.environment(transaction, component)
            path = services.directory.component_path(component)
            try:
                services.deployment_state.check(transaction)
                function = await self._analysed(text, component, path, environment)
                arguments = normalise_args(args)
                check_args(function, arguments, transaction.names(component))
            except ConvexError as error:
                failure = calls.function_error(error)
                return calls.call_result(services, identity, caller, transaction.snapshot.ts, None, failure, ())
            prepared = calls.Prepared(function, arguments, environment)
            return await self._run(prepared, text, transaction, identity, caller)
        finally:
            transaction.close()

    def _texts(self, text: ModuleText) -> list[ModuleText]:
        if self._provided is None:
            modules = {**self._read_library().modules, WRAPPERS: _WRAPPERS_TEXT}
            self._provided = [module_text(path, source, None) for path, source in modules.items()]
        return [text, *self._provided]

    async def _analysed(
        self, text: ModuleText, component: int, component_path: str, environment: Environment
    ) -> ResolvedFunction:
        """The default export, found to be a query. :raises ConvexError: the module's fault."""
        texts = self._texts(text)
        hashes = {one.path: one.hash for one in texts}
        seed = self._services.random_bytes(32)
        now_ms = float(self._services.now_ns() // 1_000_000)
        child = await self._analyzer.open_analysis(texts)
        try:
            tree = await child.run(AnalysisSpec("module", text.path, hashes, environment.variables, seed, now_ms))
        finally:
            await child.close()
        found = next((one for one in tree["functions"] if one["name"] == "default"), None)
        if found is None:
            raise BadRequest("FunctionNotFound", f"Couldn't find a query in the default export of {text.path}.")
        try:
            function = ResolvedFunction(
                component=component,
                component_path=component_path,
                path=FunctionPath.of(text.path, "default"),
                kind=found["udfType"].lower(),
                visibility="public",
                args=parse_args(found["args"]) if found["args"] is not None else None,
                returns=parse_returns(found["returns"]) if found["returns"] is not None else None,
                closure=tuple(ModuleRef(path, hashes[path]) for path in tree["closure"]),
                import_seed=seed,
                import_ms=now_ms,
            )
        except (InvalidValidator, InvalidValue) as error:
            raise BadRequest("InvalidModules", f"A validator of {text.path} is malformed: {error.message}") from None
        check_kind(function, "query")
        return function

    async def _run(
        self, prepared: calls.Prepared, text: ModuleText, first: Transaction, identity: Identity, caller: Caller
    ) -> CallResult:
        services = self._services
        component = prepared.function.component
        ts = first.snapshot.ts
        tries: list[Transaction] = []

        def make_host() -> CallContext:
            transaction = first
            if tries:
                tries[-1].close()
                transaction = services.database.begin("query", ts=ts, component=component)
            tries.append(transaction)
            tree = calls.call_tree(
                services, transaction, identity, caller, transaction.names, transaction.table_numbers
            )
            return CallContext(
                tree, prepared.function, prepared.environment, services.syscalls, args_bytes=len(prepared.args)
            )

        spec = calls.spec_of(services, prepared, first.table_numbers(component), caller, timeout_seconds=0.0)
        try:
            with self._store.lent(self._texts(text)):
                outcome: Outcome = await services.isolates.run(spec, make_host)
        finally:
            for transaction in tries:
                transaction.close()
        wanted = calls.Target(prepared.function.path, prepared.function.component_path, internal=True)
        calls.record_run(services, wanted, "query", identity, caller, outcome)
        return calls.call_result(services, identity, caller, ts, outcome.value, outcome.error, outcome.log_lines)


def _bundle_text(bundle: Mapping[str, Any]) -> ModuleText:
    """:raises BadRequest: it is malformed."""
    path, source, source_map = bundle.get("path"), bundle.get("source"), bundle.get("sourceMap")
    if (
        not isinstance(path, str)
        or not isinstance(source, str)
        or not (source_map is None or isinstance(source_map, str))
    ):
        raise BadRequest("BadJsonBody", "bundle: expected an object with a `path` and a `source`, both strings")
    canonical = parse_module_path(path)
    if canonical.startswith(("_system/", "_deps/")):
        raise BadRequest("BadConvexModuleIdentifier", f"{path} is not a path for a test query.")
    return module_text(canonical, source, source_map)
