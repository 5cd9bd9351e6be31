"""Pushes evaluated by a real child (``push.md`` sections 5 to 7)."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from convex_backend.application.environment import EnvironmentVariables
from convex_backend.errors import BadRequest
from convex_backend.functions.analyze import Analyzer
from convex_backend.functions.runner_process import RunnerProcess, runner_command
from convex_backend.values.paths import FunctionPath
from tests.application.push_support import Deployment

DIST = Path(__file__).parents[2] / "resources" / "runner" / "dist"
pytestmark = pytest.mark.skipif(not (DIST / "main.mjs").exists(), reason="the runner is not built: node build.mjs")

CHUNK = """
export function registered(kind, visibility, args, handler) {
  const f = () => {};
  f[`is${kind}`] = true;
  f[`is${visibility}`] = true;
  f[`invoke${kind}`] = async () => "null";
  f.exportArgs = () => JSON.stringify(args);
  f.exportReturns = () => "null";
  f._handler = handler;
  return f;
}
"""
MODULES = {
    "_deps/C.js": CHUNK,
    "messages.js": """
import { registered } from "./_deps/C.js";
export const list = registered("Query", "Public", { type: "object", value: {} }, async () => []);
export const purge = registered("Mutation", "Internal", { type: "any" }, async () => null);
export const limit = 5;
""",
    "http.js": """
export default { isRouter: true, getRoutes: () => [["/ping", "GET", { isHttp: true }], ["/f/*", "POST", { isHttp: true }]] };
""",
    "crons.js": """
export default { isCrons: true, export: () => JSON.stringify({
  nightly: { name: "messages:purge", args: [{ n: 1 }], schedule: { type: "daily", hourUTC: 3, minuteUTC: 5 } },
}) };
""",
    "auth.config.js": """
export default { providers: [{ domain: process.env.DOMAIN, applicationID: "convex" }] };
""",
    "clock.js": """
import { registered } from "./_deps/C.js";
const started = Date.now();
export const at = registered("Query", "Public", { type: "any" }, async () => started);
""",
}
SCHEMA = """
export default { export: () => JSON.stringify({ tables: [{ tableName: "t", indexes: [{ indexDescriptor: "i", fields: ["a"] }],
  documentType: { type: "any" } }], schemaValidation: true }) };
"""
DEFINITION = """
export default { export: () => ({ definitionType: { type: "app" }, childComponents: [], httpMounts: {},
  exports: { type: "branch", branch: [] },
  envVars: [["DOMAIN", { type: "value", value: JSON.stringify({ type: "string" }) }]] }) };
"""


def module(path: str, source: str) -> dict[str, Any]:
    return {"path": path, "source": source, "environment": "isolate"}


def modules(**changes: str) -> list[dict[str, Any]]:
    return [module(path, source) for path, source in {**MODULES, **changes}.items()]


async def with_deployment(test: Callable[[Deployment], Awaitable[None]]) -> None:
    from twisted.internet import reactor

    app = Deployment()
    analyzer = Analyzer(
        reactor, lambda: RunnerProcess(reactor, runner_command(DIST, memory_megabytes=128, analysis=True))
    )
    app.deploy._analyzer = analyzer
    app.environment = EnvironmentVariables(database=app.db, store=app.rows, directory=app.directory, analyzer=analyzer)
    await app.environment.update([("DOMAIN", "https://x.test")])
    try:
        await test(app)
    finally:
        await analyzer.stop()


@pytest_twisted.ensureDeferred
async def test_whole_app() -> None:
    """Functions, routes, crons, auth, schema and definition are found; the code resolves after finish."""

    async def check(app: Deployment) -> None:
        started = await app.deploy.start_push(
            app.request(
                *modules(), schema=module("schema.js", SCHEMA), definition=module("convex.config.js", DEFINITION)
            )
        )
        analysis = started["analysis"][""]
        messages = analysis["functions"]["messages.js"]["functions"]
        assert [(one["name"], one["udfType"], one["visibility"]["kind"]) for one in messages] == [
            ("list", "Query", "public"),
            ("purge", "Mutation", "internal"),
        ]
        assert messages[0]["args"] == '{"type":"object","value":{}}'
        assert started["app"]["httpRoutes"]["httpModuleRoutes"] == [
            {"path": "/ping", "method": "GET"},
            {"path": "/f/*", "method": "POST"},
        ]
        [cron] = analysis["functions"]["crons.js"]["cronSpecs"]
        assert cron["identifier"] == "nightly"
        assert cron["spec"]["udfPath"] == "messages.js:purge"
        assert cron["spec"]["cronSchedule"] == {"type": "daily", "hourUTC": 3, "minuteUTC": 5}
        assert started["appAuth"] == [{"applicationID": "convex", "domain": "https://x.test"}]
        assert analysis["schema"]["tables"][0]["indexes"][0]["fields"] == ["a", "_creationTime"]
        assert analysis["definition"]["envVars"][0][0] == "DOMAIN"
        app.wait(started)
        app.finish(started)
        found = app.resolve("messages:purge")
        assert found is not None
        assert [ref.path for ref in found.closure] == ["_deps/C.js", "messages.js"]
        before = app.resolve("messages:list")
        again = await app.deploy.start_push(app.request(*modules(**{"more.js": "export const x = 1;"})))
        app.finish(again)
        assert app.resolve("messages:list") is before
        assert app.resolve("clock:at") is not None

    await with_deployment(check)


@pytest_twisted.ensureDeferred
async def test_faults_have_their_texts() -> None:
    """Whatever is wrong with the code, the push is refused with the module's name and the engine's words."""
    cases = {
        "throws.js": ("throw new Error('bad luck');", "Failed to analyze throws.js: Uncaught Error: bad luck"),
        "syntax.js": ("export const x = ;", "Failed to analyze syntax.js: Uncaught SyntaxError: Unexpected token ';'"),
        "import.js": ("import './nope.js';", "nope.js"),
        "waits.js": ("await new Promise(() => {});", "Top-level awaits in source files are unsupported"),
        "http.js": ("export const x = 1;", 'Couldn\'t find default export in module "http.js".'),
        "crons.js": ("export default 1;", "must have a default export of a Crons object"),
    }

    async def check(app: Deployment) -> None:
        for path, (source, expected) in cases.items():
            with pytest.raises(BadRequest) as caught:
                await app.deploy.start_push(app.request(*modules(**{path: source})))
            assert caught.value.code == "InvalidModules"
            assert caught.value.message.startswith("Hit an error while pushing:\n")
            assert expected in caught.value.message
        with pytest.raises(BadRequest) as caught:
            await app.environment.update([("DOMAIN", None)])
            await app.deploy.start_push(app.request(*modules()))
        assert caught.value.code == "AuthConfigMissingEnvironmentVariable"
        with pytest.raises(BadRequest) as caught:
            await app.deploy.start_push(app.request(schema=module("schema.js", "export const x = 1;")))
        assert caught.value.code == "MissingSchemaExportError"
        assert app.resolve("messages:list") is None

    await with_deployment(check)


def defined(kind: str, extra: str = "", before: str = "") -> str:
    """A ``convex.config.js`` that exports a definition; *kind* is ``app`` or the name of a component."""
    what = '{ type: "app" }' if kind == "app" else f'{{ type: "childComponent", name: "{kind}", args: [] }}'
    return f"""{before}
export default {{ export: () => ({{ definitionType: {what}, childComponents: [], httpMounts: {{}},
  exports: {{ type: "branch", branch: [] }}, {extra} }}) }};
"""


def dependency(path: str) -> str:
    return "./_componentDeps/" + base64.urlsafe_b64encode(path.encode()).rstrip(b"=").decode()


def pushed_component(path: str, definition: str, *functions: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "definitionPath": path,
        "definition": module("convex.config.js", definition),
        "dependencies": more.get("dependencies", []),
        "schema": more.get("schema"),
        "functions": list(functions),
        "udfServerVersion": "1.48.0",
    }


@pytest_twisted.ensureDeferred
async def test_definitions_import_each_other() -> None:
    """What a definition imports tells its path, its name and what it exports; modules of components are analysed in a space of their own."""
    inner = pushed_component("../deep/inner", defined("inner"), module("m.js", "export const x = 1;"))
    use = f"""
import inner from "{dependency("../deep/inner")}";
const children = [{{ name: inner.defaultName, path: inner.componentDefinitionPath, args: [], env: [] }}];
if (inner.export().definitionType.name !== "inner") throw new Error("not handed on");
"""
    outer = pushed_component(
        "outer",
        defined("outer", "childComponents: children", use),
        module("_deps/C.js", CHUNK),
        module("messages.js", MODULES["messages.js"].replace("limit = 5", "limit = process.env.DOMAIN ?? 'none'")),
        dependencies=["../deep/inner"],
        schema=module("schema.js", SCHEMA),
    )
    mount = f"""
import outer from "{dependency("outer")}";
const children = [{{ name: "first", path: outer.componentDefinitionPath, args: [], env: null }}];
"""
    definition = module("convex.config.js", defined("app", "childComponents: children", mount))

    async def check(app: Deployment) -> None:
        started = await app.deploy.start_push(
            app.request(*modules(), definition=definition, dependencies=["outer"], components=[outer, inner])
        )
        assert list(started["app"]["childComponents"]["first"]["childComponents"]) == ["inner"]
        assert [one["name"] for one in started["analysis"]["outer"]["functions"]["messages.js"]["functions"]] == [
            "list",
            "purge",
        ]
        app.wait(started)
        app.finish(started)
        number = await app.directory.component_at(None, "first")
        assert number is not None
        assert await app.directory.resolve(None, number, FunctionPath.parse("messages:purge")) is not None

    await with_deployment(check)


@pytest_twisted.ensureDeferred
async def test_faults_of_definitions() -> None:
    """A definition may not look at variables unless it is the app's, at the clock, or import anything but what it depends on."""
    cases = {
        "throws": ("throw new Error('no such thing');", "InvalidConvexConfig", "Uncaught Error: no such thing"),
        "env": ("process.env.DOMAIN;", "InvalidConvexConfig", "Environment variables unsupported when evaluating app"),
        "clock": ("Date.now();", "InvalidConvexConfig", "unsupported when evaluating app definition"),
        "random": ("Math.random();", "InvalidConvexConfig", "unsupported when evaluating app definition"),
        "import": (f'import x from "{dependency("other")}";', "InvalidConvexConfig", "Couldn't find JavaScript module"),
        "more": ("export const more = 1;", "InvalidConvexConfig", "no other export"),
    }

    async def check(app: Deployment) -> None:
        for before, code, expected in cases.values():
            request = app.request(
                definition=module("convex.config.js", defined("app")),
                dependencies=["local"],
                components=[pushed_component("local", defined("local", before=before))],
            )
            with pytest.raises(BadRequest) as caught:
                await app.deploy.start_push(request)
            assert (caught.value.code, expected in caught.value.message) == (code, True), caught.value.message
        allowed = defined("app", before="if (process.env.DOMAIN !== 'https://x.test') throw new Error('not seen');")
        await app.deploy.start_push(app.request(definition=module("convex.config.js", allowed)))
        for wrong in (defined("local"), "export default 1;"):
            with pytest.raises(BadRequest) as caught:
                await app.deploy.start_push(app.request(definition=module("convex.config.js", wrong)))
            assert caught.value.code in ("InvalidDefinition", "InvalidConvexConfig")

    await with_deployment(check)
