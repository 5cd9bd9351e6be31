"""Deploying plain ES modules without CLI and bundler: ``POST /api/deploy``.

::

    {"functions": {"messages.js": source, "lib/dates.ts": source, …}, "schema": {…} | source, "message"?}

        TypeScript ─► types blanked ─┐
        JavaScript ──────────────────┼─► the request of a push, with npm's library and ``_generated/*`` added ─► whole_push.py
        schema ─► a module ──────────┘

The modules import each other by relative paths, ``convex/server``, ``convex/values`` and ``_generated/server|api|dataModel``; the runner links
them (``resources/runner/src/specifiers.mjs``). Everything else (evaluation, schema, indexes, races) is that of a push.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs
import orjson

from convex_backend.application.env_declarations import PUSH_PREFIX
from convex_backend.application.operations import check_operation
from convex_backend.application.push_analysis import AnalysisPool
from convex_backend.application.push_faults import PushRefused
from convex_backend.application.whole_push import push_whole
from convex_backend.application.word_map import word_map
from convex_backend.errors import BadRequest
from convex_backend.functions.analyze import AnalysisFailed, AnalysisSpec
from convex_backend.functions.modules import module_text
from convex_backend.values.paths import InvalidPath, parse_module_path

if TYPE_CHECKING:
    from convex_backend.application.deploy import Deploy
    from convex_backend.application.types import Caller, Identity

GENERATED: Final = {
    "_generated/server.js": """\
import {
  actionGeneric, httpActionGeneric, internalActionGeneric, internalMutationGeneric, internalQueryGeneric, mutationGeneric, queryGeneric,
} from "convex/server";
export const query = queryGeneric;
export const internalQuery = internalQueryGeneric;
export const mutation = mutationGeneric;
export const internalMutation = internalMutationGeneric;
export const action = actionGeneric;
export const internalAction = internalActionGeneric;
export const httpAction = httpActionGeneric;
export const env = process.env;
""",
    "_generated/api.js": """\
import { anyApi, componentsGeneric } from "convex/server";
export const api = anyApi;
export const internal = anyApi;
export const components = componentsGeneric();
""",
    "_generated/dataModel.js": "export {};\n",
}
#: Of more text than this, frames have lines only: mapping each word would keep everybody waiting.
_MAX_MAPPED_CHARACTERS: Final = 1 << 20
_SCHEMA: Final = "schema.js"
_DEFINITION: Final = "convex.config.js"
_KNOWN_MEMBERS: Final = {"functions", "schema", "message", "adminKey"}
_INDEX_LISTS: Final = (
    "indexes",
    "stagedDbIndexes",
    "searchIndexes",
    "stagedSearchIndexes",
    "vectorIndexes",
    "stagedVectorIndexes",
)
#: Possessive: with a second way to read the comments at the top, many of them would be tried in exponentially many ways.
_USE_NODE: Final = re.compile(r"(?>\s|//[^\n]*\n|/\*.*?\*/)*+([\"'])use node\1", re.DOTALL)
_PLACE: Final = re.compile(r"^convex:/\S+?:\d+:\d+: ")
_FRAME: Final = re.compile(r"\n    at (?:.*? \()?([\w./]+):(\d+):\d+\)?")
_PREFIXES: Final = re.compile(r"^Failed to analyze \S+: ")
_ONLY_THESE: Final = (
    ' Only "convex/server", "convex/values" and relative paths can be imported here; other packages need a bundler: '
    "deploy with `npx convex deploy`."
)


@attrs.frozen(slots=True)
class Library:
    """npm's ``convex`` as plain modules. :param version: of the package. :param modules: texts by module path."""

    version: str
    modules: Mapping[str, str]


@attrs.frozen(slots=True)
class _Source:
    """One module as it was given. :param name: as it was called, for error texts. :param path: canonical."""

    name: str
    path: str
    text: str

    @property
    def is_typescript(self) -> bool:
        return self.name.endswith(".ts")


@attrs.frozen(slots=True)
class _Sources:
    functions: tuple[_Source, ...]
    schema: _Source | None
    definition: _Source | None
    message: str | None
    warnings: tuple[str, ...]

    def all(self) -> list[_Source]:
        return [*self.functions, *(one for one in (self.schema, self.definition) if one is not None)]


def _fault(path: str, reason: str, code: str = "InvalidModules", line: int | None = None) -> BadRequest:
    where = path if line is None else f"{path}, line {line}"
    return BadRequest(code, f"{where}: {reason.strip()}")


def _source(name: str, text: Any) -> _Source:
    if not isinstance(text, str):
        raise _fault(name, "the source of a module is a string")
    if not name.isascii() or re.search(r"\.(tsx|jsx|mjs|cjs|mts|cts)$", name):
        raise _fault(name, "modules are JavaScript (.js) or TypeScript whose types can be erased (.ts)")
    try:
        path = parse_module_path(re.sub(r"\.ts$", ".js", name))
    except InvalidPath as error:
        raise _fault(name, error.message, error.code) from None
    if path.startswith("_deps/"):
        raise _fault(name, "paths below _deps/ are for the library")
    if _USE_NODE.match(text):
        raise _fault(name, '"use node" modules cannot be deployed without the CLI: use `npx convex deploy`')
    return _Source(name, path, text)


def _schema_source(schema: Any) -> _Source:
    """The schema as a module: *schema* is what ``schema.js`` exports, as a tree or its text, or the module's source."""
    if isinstance(schema, str) and not schema.lstrip().startswith("{"):
        return _Source(_SCHEMA, _SCHEMA, schema)
    if isinstance(schema, str):
        try:
            schema = orjson.loads(schema)
        except orjson.JSONDecodeError as error:
            raise _fault("schema", f"it begins like JSON but is none: {error}", "InvalidSchema") from None
    if not isinstance(schema, dict):
        raise _fault("schema", "expected the JSON that schema.js exports, or the source of a module", "InvalidSchema")
    tables = schema.get("tables")
    if isinstance(tables, list) and all(isinstance(table, dict) for table in tables):
        empty: dict[str, Any] = {**{name: [] for name in _INDEX_LISTS}, "documentType": {"type": "any"}}
        schema = {"schemaValidation": True, **schema, "tables": [{**empty, **table} for table in tables]}
    # JSON text is a JavaScript string literal, and its text again one of JSON.
    literal = orjson.dumps(orjson.dumps(schema).decode()).decode()
    return _Source("schema", _SCHEMA, f"export default {{ export: () => {literal} }};\n")


def read_sources(tree: Mapping[str, Any]) -> _Sources:
    """:raises BadRequest: the request is malformed, or names modules that cannot be deployed this way."""
    functions = tree.get("functions")
    if not isinstance(functions, dict):
        raise BadRequest("BadJsonBody", "`functions` must be an object of module sources by path")
    message = tree.get("message")
    if message is not None and not isinstance(message, str):
        raise BadRequest("BadJsonBody", "`message` must be a string")
    warnings = [f"The member `{name}` is unknown and was ignored." for name in tree if name not in _KNOWN_MEMBERS]
    found: dict[str, _Source] = {}
    for name, text in functions.items():
        if name.startswith("_generated/"):
            warnings.append(f"{name} was ignored: the server makes _generated itself.")
            continue
        source = _source(name, text)
        if source.path in found:
            raise _fault(name, f"{found[source.path].name} is the same module")
        found[source.path] = source
    schema = found.pop(_SCHEMA, None)
    if tree.get("schema") is not None:
        if schema is not None:
            raise _fault(schema.name, "the schema is given twice: as a module and as `schema`", "InvalidSchema")
        schema = _schema_source(tree["schema"])
    definition = found.pop(_DEFINITION, None)
    return _Sources(tuple(found.values()), schema, definition, message, tuple(warnings))


class SimpleDeploy:
    """The use case.

    :param analyzer: makes children that erase types. :param read_library: npm's library; called once.
    """

    def __init__(self, *, deploy: Deploy, analyzer: AnalysisPool, read_library: Callable[[], Library]) -> None:
        self._deploy = deploy
        self._analyzer = analyzer
        self._read_library = read_library
        self._library: Library | None = None

    async def deploy(self, tree: Mapping[str, Any], identity: Identity, caller: Caller) -> dict[str, Any]:
        """Deploy what *tree* has, in place of all that is deployed.

        :returns: ``{"success": True, "warnings": [text]}``.
        :raises BadRequest: naming module, line where it is known, and reason; what was deployed still is.
        Cancelling drops the answer; the deployment may still happen.
        """
        check_operation(identity, "Deploy")
        sources = read_sources(tree)
        if self._library is None:
            self._library = self._read_library()
        erased = await self._erase_types(sources.all())
        names = {source.path: source.name for source in sources.all()}
        if caller.client == "unknown":
            caller = attrs.evolve(caller, client="deploy-api")
        try:
            request = _push_request(sources, erased, self._library)
            diff = await push_whole(self._deploy, request, identity, caller, sources.message)
        except PushRefused as error:
            raise _module_fault(error, names) from None
        except BadRequest as error:
            if not error.message.startswith(PUSH_PREFIX):
                raise
            raise BadRequest(error.code, error.message.removeprefix(PUSH_PREFIX)) from None
        return {"success": True, "warnings": [*sources.warnings, *_diff_warnings(diff)]}

    async def _erase_types(self, sources: list[_Source]) -> dict[str, str]:
        """Texts by path, those of TypeScript without their types: blanks stand where they were."""
        texts = {source.path: source.text for source in sources}
        typed = [source for source in sources if source.is_typescript]
        if not typed:
            return texts
        modules = [module_text(source.path, source.text, None) for source in typed]
        child = await self._analyzer.open_analysis(modules)
        try:
            for source, module in zip(typed, modules, strict=True):
                spec = AnalysisSpec("typescript", source.path, {source.path: module.hash}, {}, b"", 0.0)
                try:
                    texts[source.path] = await child.run(spec)
                except AnalysisFailed as error:
                    raise _fault(
                        source.name, error.message, line=error.location[1] if error.location is not None else None
                    ) from None
        finally:
            await child.close()
        return texts


def _module(path: str, text: str, source_map: str | None = None) -> dict[str, Any]:
    return {"path": path, "source": text, "sourceMap": source_map, "environment": "isolate"}


def _push_request(sources: _Sources, texts: Mapping[str, str], library: Library) -> dict[str, Any]:
    """The request of ``start_push`` (``push.md`` section 4)."""
    words = sum(map(len, texts.values())) <= _MAX_MAPPED_CHARACTERS

    def module(source: _Source) -> dict[str, Any]:
        text = texts[source.path]
        return _module(source.path, text, word_map(source.name, text, words=words))

    added = [_module(path, text) for path, text in {**GENERATED, **library.modules}.items()]
    return {
        "linked": True,
        "functions": "convex/",
        "appDefinition": {
            "definition": module(sources.definition) if sources.definition is not None else None,
            "dependencies": [],
            "schema": module(sources.schema) if sources.schema is not None else None,
            "changedModules": [*map(module, sources.functions), *added],
            "unchangedModuleHashes": [],
            "udfServerVersion": library.version,
        },
        "componentDefinitions": [],
    }


def _module_fault(error: PushRefused, names: Mapping[str, str]) -> BadRequest:
    """*error* with the module as the developer calls it, and the line."""
    reason = _PREFIXES.sub("", error.reason)
    place = error.location
    frame = _FRAME.search(reason)
    if place is None and frame is not None:
        place = (frame[1], int(frame[2]))
    if "Relative import path" in reason:
        reason = _PLACE.sub("", reason).rstrip() + "." + _ONLY_THESE
    name = names.get(error.module, error.module)
    line = None
    if place is not None:
        other = names.get(place[0], place[0])
        if other == name:
            line = place[1]
        else:
            reason = f"in {other}, line {place[1]}: {reason}"
    return _fault(name, reason, error.code, line)


def _diff_warnings(diff: Mapping[str, Any]) -> list[str]:
    """What the developer may not have meant to lose."""
    change = diff["componentDiffs"][""]
    warnings = []
    removed = [one for one in change["moduleDiff"]["removed"] if not one.startswith(("_deps/", "_generated/"))]
    if removed:
        warnings.append(f"Removed modules: {', '.join(removed)}.")
    schema = change["schemaDiff"]
    if schema is not None and schema["next_schema"] is None:
        warnings.append("The deployment has no schema any more: documents are not checked.")
    indexes = [one["name"] for one in change["indexDiff"]["removed_indexes"]]
    if indexes:
        warnings.append(f"Deleted indexes: {', '.join(indexes)}.")
    return warnings
