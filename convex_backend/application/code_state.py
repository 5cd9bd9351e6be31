"""The deployed code and variables as of one commit, in memory.

A :class:`CodeState` is immutable. Each commit that touches modules, udf configs, environment variables or components makes a new one, which
shares the records of all modules that did not change: the *same object* for the same deployed version. Source: ``runtime.md`` sections 1.4, 2.6, 6.3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs
import orjson

from convex_backend.application.components import ACTIVE, ROOT, ComponentTree, HttpMount, HttpSite
from convex_backend.application.node_dependencies import NodeDependency
from convex_backend.application.node_packages import NodeCode
from convex_backend.application.push_store import StoredModule, UdfConfig
from convex_backend.database.system_tables import COMPONENTS, ENVIRONMENT_VARIABLES, MODULES, UDF_CONFIG
from convex_backend.functions.directory import Environment, ResolvedFunction
from convex_backend.interfaces import ModuleRef
from convex_backend.values.json_codec import loads
from convex_backend.values.paths import FunctionPath
from convex_backend.values.sort_key import encode_key
from convex_backend.values.validators import parse_args, parse_returns

CODE_TABLETS: Final = frozenset((MODULES.tablet, UDF_CONFIG.tablet, ENVIRONMENT_VARIABLES.tablet, COMPONENTS.tablet))
NODE: Final = "node"
#: What import phases see before the first push.
NO_CONFIG: Final = UdfConfig("", bytes(32), 0)

_MODULES_BY_PATH: Final = MODULES.index("by_path").id
_VARIABLES_BY_NAME: Final = ENVIRONMENT_VARIABLES.index("by_name").id


def module_point(component: int, path: str) -> tuple[int, bytes]:
    """The read that "what is the module at *path*" makes, whether it exists or not."""
    return _MODULES_BY_PATH, encode_key((component, path))


def variable_point(component: int, name: str) -> tuple[int, bytes]:
    """The read of one environment variable, whether it is set or not."""
    return _VARIABLES_BY_NAME, encode_key((component, name))


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

    @classmethod
    def empty(cls, built_in: Mapping[str, str]) -> CodeState:
        """Before anything was pushed.

        :param built_in: the variables that every deployment has.
        """
        return cls(0, {}, {}, {}, {ROOT: environment(built_in)}, {}, {}, {}, ComponentTree.empty())

    def apply(
        self, ts: int, changes: Iterable[tuple[int, bytes, bytes | None]], built_in: Mapping[str, str]
    ) -> CodeState:
        """The state after a commit.

        :param changes: ``(tablet, internal id, new JSON or None)`` of :data:`CODE_TABLETS`. :param built_in: see :meth:`empty`.
        """
        modules = dict(self.modules)
        configs = dict(self.configs)
        variables = {component: dict(values) for component, values in self.variables.items()}
        module_rows, config_rows, variable_rows = (
            dict(self.module_rows),
            dict(self.config_rows),
            dict(self.variable_rows),
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
        components = self.components.apply(component_changes) if component_changes else self.components
        for (component, path), stored in changed.items():
            where = components.path_of(component)
            modules[component, path] = _record(component, where, stored, configs.get(component, NO_CONFIG))
        for key, module in modules.items():
            config = configs.get(key[0], NO_CONFIG)
            if module.uses_config and module.config != config:
                modules[key] = _record(key[0], components.path_of(key[0]), module.stored, config)
        environments = self.environments
        if environment_changed or component_changes:
            user = variables.get(ROOT, {})
            environments = {}
            for component in components.by_id:
                seen = components.variables_of(component, user, built_in)
                fresh = environment(seen, components.by_id[component].args)
                known = self.environments.get(component)
                environments[component] = known if known is not None and known.version == fresh.version else fresh
        return CodeState(
            ts, modules, configs, variables, environments, module_rows, config_rows, variable_rows, components
        )


def environment(merged: Mapping[str, str], arguments: Mapping[str, Any] | None = None) -> Environment:
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
            node=stored.environment == NODE,
            reuse_context=bool(tree.get("reuseContext")),
            realm=tree.get("realmRefusal") == "",
        )
    uses_config = bool(tree.get("importTime") or tree.get("importRandom"))
    return ModuleRecord(
        component, component_path, stored, functions, config, uses_config, module_point(component, stored.path)
    )


def node_code(state: CodeState) -> NodeCode:
    """The ``"use node"`` code of the app; components have none."""
    modules: dict[str, str] = {}
    dependencies: tuple[NodeDependency, ...] = ()
    for (component, path), module in sorted(state.modules.items(), key=lambda item: item[0]):
        if component == ROOT and module.stored.environment == NODE:
            modules[path] = module.stored.hash
            listed = module.stored.tree().get("node", {}).get("dependencies")
            if listed:
                dependencies = tuple(NodeDependency(*one) for one in listed)
    return NodeCode(modules, dependencies)
