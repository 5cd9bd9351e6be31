"""The tree of components that a push asks for: its definitions, checked and instantiated.

::

    definitions (one for each ``convex.config.js``)           instances (one for each mount)
      ""     use(local), use(local, {name: "other"})    ──►     ""  ──  local        (definition "local")
      local  use(limiter)                                        │       └─ local/limiter
      limiter                                                    └──  other  ──  other/limiter

A definition that is mounted twice has two instances with tables of their own. Source: ``push.md`` section 7.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs
import orjson

from convex_backend.application.components import child_path
from convex_backend.application.env_declarations import PUSH_PREFIX, declarations, parse_declaration, strings_of
from convex_backend.application.push_request import PushedDefinition
from convex_backend.application.push_store import StoredModule
from convex_backend.errors import BadRequest
from convex_backend.functions.module_text import ModuleText
from convex_backend.functions.modules import module_text
from convex_backend.values.limits import identifier_error
from convex_backend.values.paths import REFERENCE_PREFIX
from convex_backend.values.validators import Validator

#: Folder of the synthetic modules through which a definition imports another one.
DEPENDENCIES: Final = "_componentDeps"
#: How deep components may be nested. The tree is walked with one call for each level.
MAX_DEPTH: Final = 32
#: Instances of one deployment: each may have tables, functions and crons of its own.
MAX_INSTANCES: Final = 1024

_CHILD_PREFIX: Final = f"{REFERENCE_PREFIX}childComponent/"

#: What an app without ``convex.config.ts`` defines, in the form of ``analysis[""].definition``.
DEFAULT_DEFINITION: Final[dict[str, Any]] = {
    "path": "",
    "definitionType": {"type": "app"},
    "childComponents": [],
    "httpMounts": {},
    "exports": {"type": "branch", "branch": []},
    "envVars": [],
}


@attrs.frozen(slots=True, eq=False)
class Instance:
    """One mounted component, or the app.

    :param path: names joined by ``/``, ``""`` for the app. :param name: ``None`` for the app. :param definition: its definition's path.
    :param http_prefix: as ``components.Component.http_prefix``.
    :param mounts: (prefix in its own space, name of the child) pairs. :param env: bindings by variable.
    :param args: of older definitions, as JSON values by name.
    :param routes: ``{method, path}`` of its ``http.js``, ``None`` without one.
    :param exports: public functions by module and name, as the answer of start_push shows them.
    :param children: by name.
    """

    path: str
    name: str | None
    definition: str
    http_prefix: str | None
    mounts: tuple[tuple[str, str], ...]
    env: Mapping[str, Mapping[str, str]]
    args: Mapping[str, Any]
    routes: list[dict[str, str]] | None
    exports: Mapping[str, Any]
    children: Mapping[str, Instance]

    def walk(self) -> Iterator[Instance]:
        """This one and all below it, parents first."""
        yield self
        for child in self.children.values():
            yield from child.walk()

    def to_json(self) -> dict[str, Any]:
        """As ``app`` of the answer of start_push (``push.md`` section 7.4)."""
        return {
            "definitionPath": self.definition,
            "componentPath": self.path,
            "httpPrefix": self.http_prefix,
            "args": {name: {"type": "value", "value": _json(value)} for name, value in self.args.items()},
            "env": {name: dict(binding) for name, binding in self.env.items()},
            "childComponents": {name: child.to_json() for name, child in self.children.items()},
            "httpRoutes": {"httpModuleRoutes": self.routes, "mounts": [prefix for prefix, _ in self.mounts]},
            "exports": dict(self.exports),
        }


def dependency_path(definition: str) -> str:
    """The module path under which other definitions import *definition*."""
    encoded = base64.urlsafe_b64encode(definition.encode()).rstrip(b"=").decode()
    return f"{DEPENDENCIES}/{encoded}.js"


def dependency_module(path: str, definition: Mapping[str, Any]) -> ModuleText:
    """The synthetic module that a definition gets for ``import child from "./_componentDeps/…"``."""
    name = definition["definitionType"].get("name")
    source = (
        f"const definition = {_script_json(definition)};\n"
        f"export default {{ export: () => definition, componentDefinitionPath: {_script_json(path)}, "
        f"defaultName: {_script_json(name)} }};\n"
    )
    return module_text(dependency_path(path), source, None)


def _script_json(tree: Any) -> str:
    """JSON that is also a JavaScript expression: an own ``__proto__`` key would be a setter there."""
    return f"JSON.parse({orjson.dumps(orjson.dumps(tree).decode()).decode()})"


def evaluation_order(definitions: Mapping[str, PushedDefinition]) -> list[str]:
    """Paths of all definitions that the app reaches, dependencies first, the app last.

    :raises BadRequest: ``CyclicImport``; ``InvalidDefinition`` for a dependency that was not sent.
    """
    order: list[str] = []
    done: set[str] = set()
    # Each entry: a path and what is left of its dependencies. The paths on the stack are those whose evaluation waits.
    stack: list[tuple[str, list[str]]] = [("", list(definitions[""].dependencies))]
    while stack:
        path, left = stack[-1]
        if not left:
            stack.pop()
            done.add(path)
            order.append(path)
            continue
        child = left.pop(0)
        if child in done:
            continue
        if any(child == waiting for waiting, _ in stack):
            cycle = [*[waiting for waiting, _ in stack], child]
            shown = " -> ".join(one or "the app" for one in cycle[cycle.index(child) :])
            raise BadRequest(
                "CyclicImport", f"{PUSH_PREFIX}Component definitions import each other in a circle: {shown}"
            )
        if child not in definitions:
            raise BadRequest(
                "InvalidDefinition", f"{PUSH_PREFIX}{_shown(path)} depends on {child}, which is not part of the push."
            )
        stack.append((child, list(definitions[child].dependencies)))
    return order


def check_definition(path: str, definition: Any) -> dict[str, Any]:
    """What ``export()`` of a definition gave, completed with what may be left out.

    :raises BadRequest: ``InvalidDefinition``, ``InvalidEnvVarDeclaration``: it is not what ``defineApp`` and ``defineComponent`` make.
    """
    if not isinstance(definition, dict) or not isinstance(definition.get("definitionType"), dict):
        what = "an app" if path == "" else "a component"
        raise BadRequest("InvalidDefinition", f"{PUSH_PREFIX}{_shown(path)} does not export {what} definition.")
    kind = definition["definitionType"].get("type")
    if path == "" and kind != "app":
        raise BadRequest("InvalidDefinition", f"{PUSH_PREFIX}convex.config.ts must export `defineApp()`.")
    if path != "" and kind != "childComponent":
        raise BadRequest("InvalidDefinition", f"{PUSH_PREFIX}{_shown(path)} must export `defineComponent(…)`.")
    if path != "":
        name = definition["definitionType"].get("name")
        fault = identifier_error(name) if isinstance(name, str) else "it must be a string"
        if fault is not None:
            raise BadRequest("InvalidDefinition", f"{PUSH_PREFIX}The name of {_shown(path)} is not valid: {fault}")
    completed = {**DEFAULT_DEFINITION, **definition, "path": path}
    shapes = {"childComponents": list, "httpMounts": dict, "exports": dict, "envVars": list}
    for member, shape in shapes.items():
        if completed[member] is None and member == "envVars":
            completed[member] = []
        if not isinstance(completed[member], shape):
            raise BadRequest("InvalidDefinition", f"{PUSH_PREFIX}`{member}` of {_shown(path)} is malformed.")
    for name, declared in declarations(completed):
        parse_declaration(name, declared)
    return completed


def _shown(path: str) -> str:
    return "convex.config.ts" if path == "" else f"the component definition {path}"


def file_exports(modules: Mapping[str, StoredModule]) -> dict[str, Any]:
    """``definition.exports`` of a component: its public functions by file (``push.md`` section 7.3)."""
    root: dict[str, Any] = {}
    for path, module in modules.items():
        bare = path.removesuffix(".js")
        for function in module.tree().get("functions", ()):
            if function["visibility"] != {"kind": "public"}:
                continue
            node = root
            for part in bare.split("/"):
                if not isinstance(node.get(part), dict):
                    node[part] = {}
                node = node[part]
            node[function["name"]] = f"{REFERENCE_PREFIX}function/{bare}:{function['name']}"
    return _branch(root)


def _branch(tree: Mapping[str, Any]) -> dict[str, Any]:
    nodes = []
    for key, value in tree.items():
        nodes.append([key, {"type": "leaf", "leaf": value} if isinstance(value, str) else _branch(value)])
    return {"type": "branch", "branch": nodes}


def _resolved_exports(branch: Mapping[str, Any], component: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, node in branch["branch"]:
        if node["type"] == "branch":
            found[key] = {"type": "branch", "children": _resolved_exports(node, component)}
        else:
            module, _, name = node["leaf"].removeprefix(f"{REFERENCE_PREFIX}function/").rpartition(":")
            path = {"component": component, "udfPath": f"{module}.js:{name}"}
            found[key] = {"type": "leaf", "resource": {"type": "function", "path": path}}
    return found


# -- instances ------------------------------------------------------------------------------------------


class Instantiation:
    """Makes the tree of instances of checked definitions.

    :param definitions: by path. :param routes: (method, path) of each definition's ``http.js``, absent without one; ``None`` when
        modules have not been analysed: then nothing about HTTP is checked.
    :param for_codegen: required variables need not be bound.
    """

    def __init__(
        self,
        definitions: Mapping[str, Mapping[str, Any]],
        routes: Mapping[str, list[dict[str, str]]] | None,
        *,
        for_codegen: bool = False,
    ) -> None:
        self._definitions = definitions
        self._routes = routes
        self._for_codegen = for_codegen
        self._count = 0

    def app(self) -> Instance:
        """:raises BadRequest: ``TypecheckError`` (``push.md`` section 7.4)."""
        definition = self._definitions[""]
        prefix = definition.get("httpPrefix")
        return self._instance("", None, "", prefix, {}, {}, 0)

    def _instance(
        self,
        path: str,
        name: str | None,
        definition_path: str,
        http_prefix: str | None,
        env: Mapping[str, Mapping[str, str]],
        args: Mapping[str, Any],
        depth: int,
    ) -> Instance:
        self._count += 1
        if self._count > MAX_INSTANCES or depth > MAX_DEPTH:
            raise _fault(
                f"Too many components: at most {MAX_INSTANCES} may be mounted, at most {MAX_DEPTH} inside each other."
            )
        definition = self._definitions[definition_path]
        mounts = self._mounts(definition_path)
        prefixes = {child: prefix for prefix, child in mounts}
        space = "/" if definition_path == "" else http_prefix
        children: dict[str, Instance] = {}
        for entry in definition["childComponents"]:
            child_name, child_definition = self._child(definition_path, entry, children)
            bindings = self._bindings(definition_path, child_name, child_definition, entry.get("env"))
            prefix = prefixes.get(child_name)
            below = None if prefix is None or space is None else space.rstrip("/") + prefix
            arguments = _arguments(definition_path, entry)
            children[child_name] = self._instance(
                child_path(path, child_name), child_name, child_definition, below, bindings, arguments, depth + 1
            )
        return Instance(
            path=path,
            name=name,
            definition=definition_path,
            http_prefix=http_prefix,
            mounts=mounts,
            env=env,
            args=args,
            routes=None if self._routes is None else self._routes.get(definition_path),
            exports=_resolved_exports(definition["exports"], path),
            children=children,
        )

    def _child(self, parent: str, entry: Any, known: Mapping[str, Instance]) -> tuple[str, str]:
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("name"), str)
            or not isinstance(entry.get("path"), str)
        ):
            raise _fault(f"A child component of {_shown(parent)} is malformed.")
        name, definition = entry["name"], entry["path"]
        fault = identifier_error(name)
        if fault is not None:
            raise _fault(f'The name "{name}" of a child component of {_shown(parent)} is not valid: {fault}')
        if name in known:
            raise _fault(f'{_capital(_shown(parent))} uses two child components with the name "{name}".')
        if definition not in self._definitions or definition == "":
            raise _fault(f'The child component "{name}" of {_shown(parent)} has an unknown definition: {definition}')
        return name, definition

    def _bindings(self, parent: str, name: str, child: str, given: Any) -> dict[str, dict[str, str]]:
        """The variables that *parent* binds for the child *name*, checked against both declarations."""
        declared = dict(declarations(self._definitions[child]))
        above = dict(declarations(self._definitions[parent]))
        who = f'the child component "{name}" of {_shown(parent)}'
        bound: dict[str, dict[str, str]] = {}
        for entry in given or ():
            try:
                variable, binding = entry
                kind, value = binding["type"], binding["name" if binding["type"] == "envVar" else "value"]
            except (TypeError, ValueError, KeyError):
                raise _fault(f"The environment variables of {who} are malformed.") from None
            if variable not in declared:
                raise _fault(f'{_capital(who)} does not declare the environment variable "{variable}".')
            wanted = parse_declaration(variable, declared[variable])
            if kind == "envVar":
                _check_reference(who, variable, wanted, declared[variable], value, above)
                bound[variable] = {"type": "envVar", "name": value}
            else:
                admitted = strings_of(wanted)
                if not isinstance(value, str) or (admitted is not None and value not in admitted):
                    raise _fault(
                        f'The value of the environment variable "{variable}" of {who} does not match its declaration: '
                        f"expected {wanted.text}."
                    )
                bound[variable] = {"type": "value", "value": value}
        missing = [one for one, how in declared.items() if not how.get("optional") and one not in bound]
        if missing and not self._for_codegen:
            shown = ", ".join(f'"{one}"' for one in missing)
            raise _fault(f"{_capital(who)} requires environment variables that are not given: {shown}.")
        return bound

    def _mounts(self, path: str) -> tuple[tuple[str, str], ...]:
        definition = self._definitions[path]
        names = {
            entry.get("name"): entry.get("path") for entry in definition["childComponents"] if isinstance(entry, dict)
        }
        found: list[tuple[str, str]] = []
        for prefix, reference in definition["httpMounts"].items():
            child = reference.removeprefix(_CHILD_PREFIX) if isinstance(reference, str) else None
            if child is None or child not in names or not prefix.startswith("/") or not prefix.endswith("/"):
                raise _fault(f'The HTTP mount "{prefix}" of {_shown(path)} is malformed.')
            self._check_mount(path, prefix, child, names[child])
            found.append((prefix, child))
        return tuple(found)

    def _check_mount(self, path: str, prefix: str, child: str, child_definition: Any) -> None:
        if self._routes is None or child_definition not in self._definitions:
            return
        below = self._definitions[child_definition]
        if not self._routes.get(child_definition) and not below["httpMounts"]:
            raise _fault(
                f'The child component "{child}" of {_shown(path)} is mounted at "{prefix}", but it has no HTTP routes.'
            )
        for route in self._routes.get(path) or ():
            if route["path"] == f"{prefix}*":
                raise _fault(
                    f'The prefix "{prefix}" of {_shown(path)} is both a route of its http.ts and the mount of the child component '
                    f'"{child}".'
                )


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _arguments(parent: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that an older definition gives to a child; newer ones give none."""
    found: dict[str, Any] = {}
    try:
        for name, argument in entry.get("args") or ():
            found[name] = orjson.loads(argument["value"])
    except (TypeError, ValueError, KeyError):
        raise _fault(
            f'The arguments of the child component "{entry["name"]}" of {_shown(parent)} are malformed.'
        ) from None
    return found


def _check_reference(
    who: str,
    variable: str,
    wanted: Validator,
    how: Mapping[str, Any],
    source: Any,
    above: Mapping[str, Mapping[str, Any]],
) -> None:
    """The binding of *variable* to the parent's variable *source*."""
    if source not in above:
        raise _fault(
            f'The environment variable "{variable}" of {who} is bound to "{source}", which its parent does not declare.'
        )
    if above[source].get("optional") and not how.get("optional"):
        raise _fault(
            f'The environment variable "{variable}" of {who} is required, but it is bound to "{source}", which is optional.'
        )
    given, admitted = strings_of(parse_declaration(source, above[source])), strings_of(wanted)
    if admitted is not None and (given is None or not given <= admitted):
        raise _fault(
            f'The environment variable "{variable}" of {who} is bound to "{source}", which may have values that it does not '
            f"admit: expected {wanted.text}."
        )


def _fault(text: str) -> BadRequest:
    return BadRequest("TypecheckError", PUSH_PREFIX + text)


def _capital(text: str) -> str:
    return text if text.startswith("convex.config") else text[0].upper() + text[1:]
