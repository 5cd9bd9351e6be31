"""Evaluating what was pushed: definition, auth config, schema and modules, in a child of its own.

Modules whose whole closure is deployed already keep the analysis that they have, unless their evaluation looked at something that may differ now.
Source: ``push.md`` sections 5 to 7, ``runtime.md`` sections 1.5 to 1.10.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

import attrs
import orjson

from convex_backend.application.auth.providers import parse_config
from convex_backend.application.env_declarations import declarations
from convex_backend.application.node_dependencies import dependencies_id
from convex_backend.application.node_packages import NodeCode, ReadText
from convex_backend.application.push_checks import (
    check_crons,
    check_functions,
    check_node_functions,
    cron_spec,
    http_routes,
    is_unchanged,
)
from convex_backend.application.push_components import (
    DEFAULT_DEFINITION,
    Instance,
    Instantiation,
    check_definition,
    dependency_module,
    evaluation_order,
    file_exports,
)
from convex_backend.application.push_faults import auth_code, module_error, push_error, schema_code
from convex_backend.application.push_request import (
    AUTH_CONFIG,
    ISOLATE,
    NODE,
    PushedDefinition,
    PushedModule,
    PushRequest,
)
from convex_backend.application.push_store import StoredModule, UdfConfig
from convex_backend.errors import BadRequest
from convex_backend.functions.analyze import AnalysisSpec
from convex_backend.functions.module_text import ModuleText
from convex_backend.values.schema import EVALUATION_PREFIX, SchemaDefinition

_NO_ANALYSIS: Final[dict[str, Any]] = {
    "functions": [],
    "httpRoutes": None,
    "cronSpecs": None,
    "closure": [],
    "dynamicClosure": [],
    "importTime": False,
    "importRandom": False,
    "env": [],
    "reuseContext": False,
    "realmRefusal": "not judged",
}


class OpenAnalysis(Protocol):
    """A child that analyses (``functions.analyze.Analysis``)."""

    async def run(self, spec: AnalysisSpec) -> Any:
        """:raises BadRequest: the code's own fault."""

    def add_modules(self, modules: Iterable[ModuleText]) -> None:
        """Let the child know further modules, for analyses that are asked for afterwards."""

    def close(self) -> Awaitable[None]:
        """End the child."""


class AnalysisPool(Protocol):
    """Where children that analyse come from (``functions.analyze.Analyzer``)."""

    async def open_analysis(self, modules: Iterable[ModuleText]) -> Any:
        """A started child that knows *modules*, an :class:`OpenAnalysis`."""


class NodeAnalysis(Protocol):
    """What puts pushed ``"use node"`` code on disk and analyses it (``node_actions.NodeActions``)."""

    def analysis(self, code: NodeCode, read_text: ReadText) -> AbstractAsyncContextManager[tuple[Any, str]]:
        """A child that analyses modules of *code*, an :class:`OpenAnalysis`, and the directory where they are."""


@attrs.frozen(slots=True, eq=False)
class EvaluatedDefinition:
    """The app, or a definition of a component, that was found good.

    :param definition: ``analysis[path].definition`` (``push.md`` section 7.2).
    :param modules: rows to be, by path.
    """

    path: str
    definition: dict[str, Any]
    schema: SchemaDefinition | None
    modules: dict[str, StoredModule]
    udf_config: UdfConfig


@attrs.frozen(slots=True, eq=False)
class Evaluated:
    """A push that was found good.

    :param definitions: by path; the app's path is empty. :param tree: the instances of them.
    :param auth: ``appAuth``. :param texts: of the modules that were sent, those of all definitions.
    :param external_deps_id: of the external packages of ``"use node"`` modules; ``None`` without any.
    """

    definitions: dict[str, EvaluatedDefinition]
    tree: Instance
    auth: list[dict[str, Any]]
    texts: tuple[ModuleText, ...]
    external_deps_id: str | None = None

    @property
    def app(self) -> EvaluatedDefinition:
        """The app."""
        return self.definitions[""]

    @property
    def definition(self) -> dict[str, Any]:
        """The app's definition."""
        return self.app.definition

    @property
    def modules(self) -> dict[str, StoredModule]:
        """The app's modules."""
        return self.app.modules

    @property
    def env_declarations(self) -> list[tuple[str, dict[str, Any]]]:
        """Names and declarations of the environment variables that the app declares."""
        return declarations(self.definition)


@attrs.frozen(slots=True, eq=False)
class EvaluatedSchemas:
    """Definitions and schemas of a push, without its functions.

    :param definitions: by path. :param schemas: likewise; ``None`` where there is no schema file.
    """

    tree: Instance
    definitions: dict[str, dict[str, Any]]
    schemas: dict[str, SchemaDefinition | None]


async def evaluate_auth(
    child: OpenAnalysis, module_hash: str, env: Mapping[str, str], modules: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Evaluate ``auth.config.js``.

    :param module_hash: of its runnable form; *child* knows the module.
    :param modules: hashes by path of what it may import.
    :returns: the providers, checked.
    :raises BadRequest: with the codes of ``push.md`` section 7.1.
    """
    known = {**(modules or {}), AUTH_CONFIG: module_hash}
    try:
        config = await child.run(AnalysisSpec("auth", AUTH_CONFIG, known, env, b"", 0.0))
    except BadRequest as error:
        raise push_error(error, auth_code(error), module=AUTH_CONFIG) from None
    try:
        return [provider.to_json() for provider in parse_config(config)]
    except BadRequest as error:
        raise push_error(error, error.code, module=AUTH_CONFIG) from None


class Evaluation:
    """The evaluation of one push.

    :param deployed: modules that are deployed, by path, by path of their definition.
    :param env: variables of the app, built-in ones included. :param built_in: those alone, which is all that components see.
    :param configs: clock and seed of the import phase, by path of the definition.
    :param read_text: text of a deployed module by hash. :param node: for ``"use node"`` modules.
    """

    def __init__(
        self,
        request: PushRequest,
        deployed: Mapping[str, Mapping[str, StoredModule]],
        env: Mapping[str, str],
        built_in: Mapping[str, str],
        configs: Mapping[str, UdfConfig],
        read_text: Callable[[str], Awaitable[ModuleText]],
        node: NodeAnalysis | None = None,
    ) -> None:
        self._request = request
        self._node = node
        modules = request.modules.values()
        #: the pushed "use node" code, all of it in one package
        self._node_code = NodeCode(
            {one.path: one.hash for one in modules if one.environment == NODE}, request.node_dependencies
        )
        self._definitions = request.definitions
        self._deployed = deployed
        self._env = env
        self._built_in = built_in
        self._configs = configs
        self._read_text = read_text

    async def run(self, pool: AnalysisPool) -> Evaluated:
        """Evaluate everything. :raises BadRequest: the pushed code's fault. :raises ServerFault: ours."""
        request = self._request
        order = evaluation_order(self._definitions)
        reached = [self._definitions[path] for path in order]
        kept = {one.path: self._kept(one) for one in reached}
        node_modules = await self._node_modules(kept[""])
        child = await pool.open_analysis(await self._texts(reached, kept))
        evaluated: dict[str, EvaluatedDefinition] = {}
        try:
            definitions = await self._evaluate_definitions(child, order)
            auth_module = request.modules.get(AUTH_CONFIG)
            auth = []
            if auth_module is not None:
                reachable = self._reachable(self._definitions[""], auth_module)
                auth = await evaluate_auth(child, auth_module.hash, self._env, reachable)
            for one in reached:
                schema = await self._schema(child, one)
                modules = {}
                for path, module in one.modules.items():
                    row = kept[one.path].get(path) or (node_modules.get(path) if one.path == "" else None)
                    modules[path] = row or await self._module(child, one, module)
                check_crons(modules)
                definition = definitions[one.path]
                if one.path != "":
                    definition = {**definition, "exports": file_exports(modules)}
                config = self._configs[one.path]
                evaluated[one.path] = EvaluatedDefinition(one.path, definition, schema, modules, config)
        finally:
            await child.close()
        # The app first, as the CLI prints it.
        evaluated = {path: evaluated[path] for path in reversed(order)}
        routes = {path: found for path, one in evaluated.items() if (found := http_routes(one.modules)) is not None}
        tree = Instantiation(
            {path: one.definition for path, one in evaluated.items()}, routes, for_codegen=request.for_codegen
        ).app()
        texts = {module.text.hash: module.text for one in reached for module in one.modules.values() if module.text}
        return Evaluated(evaluated, tree, auth, tuple(texts.values()), dependencies_id(request.node_dependencies))

    async def run_schemas(self, pool: AnalysisPool) -> EvaluatedSchemas:
        """Evaluate definitions and schemas alone. :raises BadRequest: the pushed code's fault."""
        order = evaluation_order(self._definitions)
        reached = [self._definitions[path] for path in order]
        if not any(one.definition or one.schema for one in reached):
            return EvaluatedSchemas(
                Instantiation({"": DEFAULT_DEFINITION}, None).app(), {"": DEFAULT_DEFINITION}, {"": None}
            )
        child = await pool.open_analysis(await self._texts(reached, None))
        try:
            definitions = await self._evaluate_definitions(child, order)
            schemas = {one.path: await self._schema(child, one) for one in reached}
        finally:
            await child.close()
        tree = Instantiation(definitions, None, for_codegen=self._request.for_codegen).app()
        return EvaluatedSchemas(tree, definitions, schemas)

    def _kept(self, definition: PushedDefinition) -> dict[str, StoredModule]:
        """The deployed rows of modules of which evaluating them again could give nothing else."""
        deployed = self._deployed.get(definition.path, {})
        found: dict[str, StoredModule] = {}
        for path, module in definition.modules.items():
            stored = deployed.get(path)
            package = self._node_code.id if definition.path == "" else None
            if stored is not None and is_unchanged(module, stored, definition.modules, package):
                found[path] = stored
        return found

    async def _texts(
        self, reached: list[PushedDefinition], kept: Mapping[str, Mapping[str, StoredModule]] | None
    ) -> list[ModuleText]:
        """The texts that the child needs.

        :param kept: modules that need not be evaluated; ``None``: none is. Where some module must be, it may import any other.
        """
        linked = self._request.linked
        found: dict[str, ModuleText] = {}
        for one in reached:
            for special in (one.definition, one.schema):
                if special is not None and special.text is not None:
                    found[special.text.hash] = special.text
            everything = linked or (kept is not None and len(kept[one.path]) < len(one.modules))
            for module in one.modules.values():
                if module.environment == NODE:
                    continue
                if everything or (module.path == AUTH_CONFIG and kept is not None):
                    found[module.hash] = module.text or await self._read_text(module.hash)
        return list(found.values())

    def _reachable(self, definition: PushedDefinition, module: PushedModule) -> dict[str, str]:
        """Hashes by path of what definition, schema or auth config may import: only itself, if a bundler made it."""
        if not self._request.linked:
            return {module.path: module.hash}
        hashes = {one.path: one.hash for one in definition.modules.values() if one.environment == ISOLATE}
        return {**hashes, module.path: module.hash}

    def _spec(
        self, definition: str, what: str, path: str, modules: Mapping[str, str], env: Mapping[str, str]
    ) -> AnalysisSpec:
        config = self._configs[definition]
        return AnalysisSpec(what, path, modules, env, config.seed, float(config.time_ns // 1_000_000))

    async def _evaluate_definitions(self, child: OpenAnalysis, order: list[str]) -> dict[str, dict[str, Any]]:
        """All definitions by path, each given the finished ones that it imports."""
        found: dict[str, dict[str, Any]] = {}
        imports: dict[str, ModuleText] = {}
        for path in order:
            definition = await self._definition(child, self._definitions[path], imports)
            found[path] = definition
            if path != "":
                imports[path] = dependency_module(path, definition)
                child.add_modules([imports[path]])
        return found

    async def _definition(
        self, child: OpenAnalysis, pushed: PushedDefinition, imports: Mapping[str, ModuleText]
    ) -> dict[str, Any]:
        module = pushed.definition
        if module is None:
            return DEFAULT_DEFINITION
        modules = self._reachable(pushed, module)
        for dependency in pushed.dependencies:
            modules[imports[dependency].path] = imports[dependency].hash
        is_app = pushed.path == ""
        spec = attrs.evolve(
            self._spec(pushed.path, "app", module.path, modules, self._env if is_app else {}),
            extra=orjson.dumps({"component": pushed.path, "dependencies": list(pushed.dependencies)}),
            allow_env=is_app,
        )
        try:
            definition = await child.run(spec)
        except BadRequest as error:
            code = "InvalidConvexConfig" if error.code == "InvalidModules" else error.code
            raise push_error(error, code, module=module.path) from None
        return check_definition(pushed.path, definition)

    async def _schema(self, child: OpenAnalysis, pushed: PushedDefinition) -> SchemaDefinition | None:
        module = pushed.schema
        if module is None:
            return None
        try:
            exported = await child.run(
                self._spec(pushed.path, "schema", module.path, self._reachable(pushed, module), {})
            )
        except BadRequest as error:
            raise push_error(error, schema_code(error), EVALUATION_PREFIX, module=module.path) from None
        try:
            return SchemaDefinition.parse(exported)
        except BadRequest as error:
            raise push_error(error, error.code, EVALUATION_PREFIX, module=module.path) from None

    async def _node_modules(self, kept: Mapping[str, StoredModule]) -> dict[str, StoredModule]:
        """Rows of the app's ``"use node"`` modules; those of *kept* need no analysis.

        :raises BadRequest: the code's fault, or external packages cannot be installed.
        """
        pushed = [self._request.modules[path] for path in self._node_code.modules]
        wanted = [module for module in pushed if not module.is_deps and module.path not in kept]
        if not wanted:
            return {}
        if self._node is None:
            raise BadRequest("NodeActionsNotSupported", '"use node" actions are not supported by this server.')
        texts = {module.hash: module.text for module in pushed if module.text is not None}

        async def read_text(digest: str) -> ModuleText:
            return texts.get(digest) or await self._read_text(digest)

        found: dict[str, StoredModule] = {}
        code = self._node_code
        node = {"package": code.id, "dependencies": [[one.name, one.version] for one in code.dependencies]}
        async with self._node.analysis(code, read_text) as (child, directory):
            for module in wanted:
                spec = attrs.evolve(
                    self._spec("", "module", module.path, {}, self._env), extra=orjson.dumps({"directory": directory})
                )
                try:
                    answer = await child.run(spec)
                except BadRequest as error:
                    raise module_error(module.path, error) from None
                functions = answer["functions"]
                check_node_functions(module.path, functions)
                check_functions(module.path, functions)
                tree = {**_NO_ANALYSIS, "functions": functions, "node": node}
                analysis = orjson.dumps(tree, option=orjson.OPT_SORT_KEYS).decode()
                found[module.path] = StoredModule(module.path, NODE, module.sha256, module.hash, analysis)
        return found

    async def _module(self, child: OpenAnalysis, pushed: PushedDefinition, module: PushedModule) -> StoredModule:
        row = StoredModule(module.path, module.environment, module.sha256, module.hash, "")
        if module.is_deps:
            return row
        tree: dict[str, Any] = dict(_NO_ANALYSIS)
        if module.path != AUTH_CONFIG and module.environment == ISOLATE:
            hashes = {one.path: one.hash for one in pushed.modules.values() if one.environment == ISOLATE}
            env = self._env if pushed.path == "" else self._built_in
            try:
                found = await child.run(self._spec(pushed.path, "module", module.path, hashes, env))
            except BadRequest as error:
                raise module_error(module.path, error) from None
            tree = {name: found.get(name, default) for name, default in _NO_ANALYSIS.items()}
            check_functions(module.path, tree["functions"])
            for name in ("closure", "dynamicClosure"):
                tree[name] = [[path, hashes[path]] for path in tree[name]]
            if tree["cronSpecs"] is not None:
                tree["cronSpecs"] = [cron_spec(one) for one in tree["cronSpecs"]]
        return attrs.evolve(row, analysis=orjson.dumps(tree, option=orjson.OPT_SORT_KEYS).decode())
