"""The body of a push, read and checked: modules, definitions, what is not offered.

Source: ``push.md`` sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from convex_backend.application.node_dependencies import NodeDependency, read_dependencies
from convex_backend.application.push_store import StoredModule
from convex_backend.errors import BadRequest, Conflict
from convex_backend.functions.module_text import ModuleText
from convex_backend.functions.modules import module_text, upload_hash
from convex_backend.values.paths import parse_module_path

MAX_MODULES: Final = 4096
MAX_MODULE_BYTES: Final = 230_000_000
ISOLATE: Final = "isolate"
NODE: Final = "node"
NODE_VERSIONS: Final = ("20", "22", "24")
NEVER_NODE: Final = ("schema.js", "http.js", "crons.js", "auth.config.js", "convex.config.js")
DEPS: Final = ("_deps/", "actions/_deps/")
AUTH_CONFIG: Final = "auth.config.js"


@attrs.frozen(slots=True)
class PushedModule:
    """One module of a push.

    :param hash: of its runnable form; ``sha256`` the CLI's.
    :param text: ``None`` for one that was not sent because the deployment has it.
    """

    path: str
    environment: str
    sha256: str
    hash: str
    text: ModuleText | None

    @property
    def is_deps(self) -> bool:
        """Whether it is a shared chunk, which has no functions of its own."""
        return self.path.startswith(DEPS)


@attrs.frozen(slots=True)
class PushedDefinition:
    """What was pushed of the app or of one definition of a component.

    :param path: of the definition, ``""`` for the app; opaque.
    :param modules: all runtime modules by path, those included that did not change.
    :param definition: ``convex.config.js``; only the app may be without one. :param schema: ``schema.js``, if there is one.
    :param dependencies: paths of the definitions that it imports. :param server_version: of the npm package.
    """

    path: str
    modules: Mapping[str, PushedModule]
    definition: PushedModule | None
    schema: PushedModule | None
    dependencies: tuple[str, ...]
    server_version: str


@attrs.frozen(slots=True)
class PushRequest:
    """A push.

    :param modules: all runtime modules of the app by path, those included that did not change.
    :param definition: the app's ``convex.config.js``, if it has one. :param schema: its ``schema.js``, likewise.
    :param server_version: of the npm package.
    :param dependencies: paths of the component definitions that the app imports.
    :param components: definitions of components by path.
    :param node_dependencies: external packages of ``"use node"`` modules, sorted. :param node_version: that the app asks for, if it does.
    :param linked: no bundler was at work: definition, schema and auth config may import the modules (simple deploys).
    """

    modules: dict[str, PushedModule]
    definition: PushedModule | None
    schema: PushedModule | None
    server_version: str
    dry_run: bool
    for_codegen: bool
    linked: bool = False
    dependencies: tuple[str, ...] = ()
    components: Mapping[str, PushedDefinition] = attrs.field(factory=dict)
    node_dependencies: tuple[NodeDependency, ...] = ()
    node_version: str | None = None

    @property
    def definitions(self) -> dict[str, PushedDefinition]:
        """The app's, whose path is empty, and those of components."""
        app = PushedDefinition("", self.modules, self.definition, self.schema, self.dependencies, self.server_version)
        return {"": app, **self.components}


def _malformed(what: str) -> BadRequest:
    return BadRequest("BadJsonBody", f"Invalid push request: {what}")


def _get(tree: Mapping[str, Any], name: str, kind: type, default: Any = ...) -> Any:
    value = tree.get(name, default)
    if value is ... or not isinstance(value, kind):
        raise _malformed(f"`{name}` is missing or of the wrong type")
    return value


def _module(tree: Any, *, fixed_path: str | None = None) -> PushedModule:
    if not isinstance(tree, dict):
        raise _malformed("a module must be an object")
    path = fixed_path or parse_module_path(_get(tree, "path", str))
    source = _get(tree, "source", str)
    source_map = tree.get("sourceMap")
    if source_map is not None and not isinstance(source_map, str):
        raise _malformed("`sourceMap` must be a string")
    environment = tree.get("environment") or ISOLATE
    if environment not in (ISOLATE, NODE):
        raise _malformed(f"unknown environment {environment!r}")
    text = module_text(path, source, source_map)
    return PushedModule(path, environment, upload_hash(source, source_map), text.hash, text)


def _unchanged(tree: Any, deployed: Mapping[str, StoredModule]) -> PushedModule:
    """:raises Conflict: the deployment does not have that module."""
    if not isinstance(tree, dict):
        raise _malformed("an unchanged module must be an object")
    path = parse_module_path(_get(tree, "path", str))
    stored = deployed.get(path)
    if stored is None:
        raise Conflict("MissingExistingModule", f"The module {path} was said to be unchanged, but it is not deployed.")
    environment = tree.get("environment") or ISOLATE
    if environment != stored.environment:
        raise Conflict(
            "ExistingModuleEnvConflict",
            f"The module {path} was said to be unchanged in environment {environment}, "
            f"but is deployed in {stored.environment}.",
        )
    if _get(tree, "sha256", str) != stored.sha256:
        raise Conflict("ExistingModuleHashConflict", f"The module {path} was said to be unchanged, but it has changed.")
    return PushedModule(path, stored.environment, stored.sha256, stored.hash, None)


def _modules(listed: list[PushedModule]) -> dict[str, PushedModule]:
    """Modules by path, in path order. :raises BadRequest: over a limit, or a path is listed twice."""
    modules: dict[str, PushedModule] = {}
    for module in sorted(listed, key=lambda one: one.path):
        if module.path in modules:
            raise BadRequest("InvalidModules", f"The module {module.path} is listed twice.")
        modules[module.path] = module
    if sum(not module.is_deps for module in listed) > MAX_MODULES:
        raise BadRequest("InvalidModules", f"Too many function files. Maximum: {MAX_MODULES}.")
    return modules


def _dependencies(tree: Mapping[str, Any]) -> tuple[str, ...]:
    paths = _get(tree, "dependencies", list, [])
    if not all(isinstance(path, str) for path in paths):
        raise _malformed("`dependencies` must be an array of strings")
    return tuple(paths)


def _definition(tree: Any) -> PushedDefinition:
    if not isinstance(tree, dict):
        raise _malformed("a component definition must be an object")
    path = _get(tree, "definitionPath", str)
    if not path:
        raise _malformed("the path of a component definition must not be empty")
    modules = _modules([_module(one) for one in _get(tree, "functions", list, [])])
    node = [module.path for module in modules.values() if module.environment == NODE]
    if node:
        raise BadRequest(
            "NodeActionsNotSupported",
            f'"use node" actions are not supported in components: {path} has {", ".join(node)}.',
        )
    schema = tree.get("schema")
    return PushedDefinition(
        path,
        modules,
        _module(_get(tree, "definition", dict), fixed_path="convex.config.js"),
        _module(schema, fixed_path="schema.js") if schema is not None else None,
        _dependencies(tree),
        _get(tree, "udfServerVersion", str),
    )


def _check_size(definitions: Mapping[str, PushedDefinition]) -> None:
    size = 0
    for one in definitions.values():
        for module in (*one.modules.values(), one.definition, one.schema):
            if module is not None and module.text is not None:
                size += len(module.text.source) + len(module.text.source_map or b"")
    if size > MAX_MODULE_BYTES:
        raise BadRequest("ModulesTooLarge", f"Total module size exceeded: {size} > maximum {MAX_MODULE_BYTES} bytes.")


def _node_version(tree: Mapping[str, Any]) -> str | None:
    """:raises BadRequest: it is not supported. All that are run by the Node.js that comes with the server."""
    version = tree.get("nodeVersion")
    if version is not None and version not in NODE_VERSIONS:
        raise BadRequest(
            "NodeVersionNotSupported",
            f"Node.js {version} is not supported: choose one of {', '.join(NODE_VERSIONS)} in convex.json.",
        )
    return version


def _check_environments(modules: list[PushedModule]) -> None:
    """:raises BadRequest: a module that belongs to the default runtime says ``"use node"``."""
    for module in modules:
        if module.environment == NODE and module.path in NEVER_NODE:
            raise BadRequest(
                "InvalidModules",
                f'{module.path} cannot run in Node.js: remove the "use node" directive. Only actions can be defined in '
                "Node.js. See https://docs.convex.dev/functions/actions for more details.",
            )


def read_push(tree: Mapping[str, Any], deployed: Mapping[str, StoredModule]) -> PushRequest:
    """Read the body of start_push, evaluate_push or evaluate_schema.

    :param deployed: the modules of the app that are deployed now, by path.
    :raises BadRequest: malformed, over a limit, or not offered. :raises Conflict: an unchanged module is not what the CLI thinks.
    """
    app = _get(tree, "appDefinition", dict)
    components: dict[str, PushedDefinition] = {}
    for given in _get(tree, "componentDefinitions", list, []):
        one = _definition(given)
        if one.path in components:
            raise BadRequest("InvalidDefinition", f"The component definition {one.path} is listed twice.")
        components[one.path] = one
    changed = app.get("changedModules", app.get("functions", []))
    if not isinstance(changed, list):
        raise _malformed("`changedModules` must be an array")
    listed = [_module(one) for one in changed]
    listed += [_unchanged(one, deployed) for one in _get(app, "unchangedModuleHashes", list, [])]
    modules = _modules(listed)
    definition, schema = app.get("definition"), app.get("schema")
    request = PushRequest(
        modules,
        _module(definition, fixed_path="convex.config.js") if definition is not None else None,
        _module(schema, fixed_path="schema.js") if schema is not None else None,
        _get(app, "udfServerVersion", str),
        bool(tree.get("dryRun", False)),
        bool(tree.get("forCodegen", False)),
        bool(tree.get("linked", False)),
        _dependencies(app),
        components,
        read_dependencies(tree.get("nodeDependencies") or []),
        _node_version(tree),
    )
    special = [one for one in (request.definition, request.schema) if one is not None]
    _check_environments([*modules.values(), *special])
    _check_size(request.definitions)
    return request
