"""Pushes evaluated by a real child (``push.md`` sections 5 to 7)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from convex_backend.application.environment import EnvironmentVariables
from convex_backend.errors import BadRequest
from convex_backend.functions.analyze import Analyzer
from convex_backend.functions.runner_process import RunnerProcess, runner_command
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
