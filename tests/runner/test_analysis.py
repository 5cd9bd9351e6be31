# ruff: noqa: E501 - JavaScript texts
"""Push-time analysis: functions, routes, crons, schema, auth config, app definition, and what goes wrong with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.runner.bundles import bundle
from tests.runner.harness import ANALYZE, ANALYZED, Child
from tests.runner.samples import HEAD, REGISTER

FILES = {
    "foo.ts": """import { queryGeneric as query, mutationGeneric as mutation, internalActionGeneric as internalAction, httpActionGeneric } from "convex/server";
import { v } from "convex/values";
import { two } from "./bar";
export const get = query({ args: { id: v.string() }, returns: v.null(), handler: async () => null });
export const act = internalAction(async () => { await import("./bar"); return two; });
export default mutation(async () => 1);
export const hook = httpActionGeneric(async () => new Response("x"));
export const constant = 3;
""",
    "bar.ts": "export const two = 2; export const env = process.env.FOO; export const t = Date.now();",
    "http.ts": """import { httpRouter, httpActionGeneric as httpAction } from "convex/server";
const http = httpRouter();
http.route({ path: "/a", method: "GET", handler: httpAction(async () => new Response("x")) });
http.route({ pathPrefix: "/p/", method: "POST", handler: httpAction(async () => new Response("x")) });
export default http;
""",
    "crons.ts": """import { cronJobs } from "convex/server";
const crons = cronJobs();
crons.interval("each minute", { minutes: 1 }, "foo:default" as any, { a: 1n } as any);
crons.weekly("weekly", { dayOfWeek: "monday", hourUTC: 3, minuteUTC: 2 }, "foo:default" as any);
crons.cron("spec", "*/5 * * * *", "foo:default" as any);
export default crons;
""",
    "schema.ts": """import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";
export default defineSchema({ t: defineTable({ a: v.string() }).index("by_a", ["a"]) });
""",
    "auth.config.ts": 'export default { providers: [{ domain: process.env.DOMAIN, applicationID: "x" }] };',
    "convex.config.ts": 'import { defineApp } from "convex/server"; export default defineApp();',
    "bad.ts": 'console.log("hello");\nfunction f() {\n  throw new TypeError("boom");\n}\nf();\n',
}


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    modules = bundle(FILES)
    with Child() as one:
        for path, (source, source_map) in modules.items():
            one.add_module(path, source, source_map)
        one.add_module("register.js", REGISTER)
        yield one


def analyze(child: Child, what: str, module: str, source: str | None = None, **more: Any) -> Any:
    if source is not None:
        child.add_module(module, source)
    call = child.next_call
    child.next_call += 1
    meta = {
        "what": what,
        "module": module,
        "closure": child.closure,
        "import_seed": "09" * 32,
        "import_ms": 1_600_000_000_000,
        "env": {},
    } | more
    child.send(ANALYZE, call, meta=meta)
    kind, of, _, answer, body = child.receive(20)
    assert (kind, of) == (ANALYZED, call)
    if answer["ok"]:
        return json.loads(body)
    return {name: value for name, value in answer["error"].items() if name != "location"}


def test_functions(child: Child) -> None:
    """Registered exports with kinds, visibility, validators as text and positions; others are skipped."""
    found = analyze(child, "module", "foo.js", env={"FOO": "1"})
    by_name = {one["name"]: one for one in found["functions"]}
    assert list(by_name) == ["get", "act", "default"]
    assert [one["udfType"] for one in found["functions"]] == ["Query", "Action", "Mutation"]
    assert by_name["get"]["visibility"] == {"kind": "public"}
    assert by_name["act"]["visibility"] == {"kind": "internal"}
    assert json.loads(by_name["get"]["args"])["value"]["id"]["fieldType"] == {"type": "string"}
    assert (by_name["get"]["returns"], by_name["act"]["args"], by_name["act"]["returns"]) == (
        '{"type":"null"}',
        '{"type":"any"}',
        None,
    )
    assert [one["pos"]["start_lineno"] for one in found["functions"]] == [3, 4, 5]
    assert by_name["get"]["pos"]["path"] == "foo.js"
    assert found["dynamicImports"] == ["bar.js"]
    assert all(path.startswith("_deps/") for path in found["imports"])
    assert (found["importTime"], found["importRandom"], found["env"]) == (True, False, ["FOO"])
    assert (found["httpRoutes"], found["cronSpecs"], found["reuseContext"]) == (None, None, False)


def test_routes(child: Child) -> None:
    """Exact routes first, prefix routes with a star, with positions."""
    routes = analyze(child, "module", "http.js")["httpRoutes"]
    assert [one["route"] for one in routes] == [{"path": "/a", "method": "GET"}, {"path": "/p/*", "method": "POST"}]
    assert [one["pos"]["start_lineno"] for one in routes] == [2, 3]


def test_crons(child: Child) -> None:
    """Schedules in stored form; arguments keep their encoding."""
    specs = analyze(child, "module", "crons.js")["cronSpecs"]
    assert specs == [
        {
            "identifier": "each minute",
            "name": "foo:default",
            "args": [{"a": {"$integer": "AQAAAAAAAAA="}}],
            "cronSchedule": {"type": "interval", "seconds": 60},
        },
        {
            "identifier": "weekly",
            "name": "foo:default",
            "args": [{}],
            "cronSchedule": {"type": "weekly", "dayOfWeek": 1, "hourUTC": 3, "minuteUTC": 2},
        },
        {
            "identifier": "spec",
            "name": "foo:default",
            "args": [{}],
            "cronSchedule": {"type": "cron", "cronExpr": "*/5 * * * *"},
        },
    ]


def cron_module(schedule: str) -> str:
    return f"export default {{ isCrons: true, export: () => JSON.stringify({{ job: {{ name: 'a:b', args: [{{}}], schedule: {schedule} }} }}) }};"


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        ("{type:'interval',seconds:1,hours:2}", "Exactly one of (seconds, minutes, hours) should be specified"),
        ("{type:'interval'}", "Exactly one of (seconds, minutes, hours) should be specified"),
        ("{type:'interval',seconds:0}", "Interval must be an integer greater than 0"),
        ("{type:'hourly',minuteUTC:60}", "minuteUTC must be 0-59 in hourly schedule"),
    ],
)
def test_wrong_crons(child: Child, schedule: str, text: str) -> None:
    """Each fault has its text and code InvalidCron."""
    assert analyze(child, "module", "crons.js", cron_module(schedule)) == {
        "code": "InvalidCron",
        "message": f"Failed to analyze crons.js: {text}",
    }


def test_a_job_without_a_minute_gets_a_stable_one(child: Child) -> None:
    """The same identifier gets the same minute in every push."""
    first = analyze(child, "module", "crons.js", cron_module("{type:'hourly'}"))["cronSpecs"][0]["cronSchedule"]
    again = analyze(child, "module", "crons.js", cron_module("{type:'hourly'} "))["cronSpecs"][0]["cronSchedule"]
    assert first == again
    assert 0 <= first["minuteUTC"] < 60


def test_schema_auth_and_app(child: Child) -> None:
    """The exported JSON text comes back as it is."""
    schema = analyze(child, "schema", "schema.js")
    assert schema["tables"][0]["indexes"] == [{"indexDescriptor": "by_a", "fields": ["a"]}]
    assert schema["schemaValidation"] is True
    assert analyze(child, "auth", "auth.config.js", env={"DOMAIN": "d"}) == {
        "providers": [{"domain": "d", "applicationID": "x"}]
    }
    assert analyze(child, "app", "convex.config.js")["definitionType"] == {"type": "app"}


def test_a_variable_that_auth_config_needs(child: Child) -> None:
    """An unset variable has its own code and the text that the CLI looks for."""
    error = analyze(child, "auth", "auth.config.js")
    assert error["code"] == "AuthConfigMissingEnvironmentVariable"
    assert "Environment variable DOMAIN is used in auth config file but its value was not set" in error["message"]


def test_exceptions_have_frames_and_console_lines(child: Child) -> None:
    """Message, mapped frames, then after a blank line what was logged."""
    message = analyze(child, "module", "bad.js")["message"]
    head, log = message.split("\n\n")
    lines = head.split("\n")
    assert lines[0] == "Failed to analyze bad.js: Uncaught TypeError: boom"
    assert lines[1].startswith("    at f (../convex/bad.ts:3:")
    assert lines[2].startswith("    at <anonymous> (../convex/bad.ts:")
    assert log == "[LOG] 'hello'"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("export const a = 1;\nlet x = ;", "Uncaught SyntaxError: Unexpected token ';'\n"),
        (
            'import { nope } from "./bar.js";',
            "Uncaught SyntaxError: The requested module './bar.js' does not provide an export named 'nope'\n",
        ),
        (
            'export const x = 1;\nimport "https://a/b";',
            "convex:/x.js:1:7: Unsupported scheme (https) in https://a/b",
        ),
        ('import "./gone.js";', "Couldn't find JavaScript module 'gone.js'. Did you forget to run `npx convex dev`?"),
        ("await new Promise(() => {});", "Top-level awaits in source files are unsupported"),
        ("throw 'text';", "Uncaught text\n"),
        ("Promise.reject(new Error('lost'));", "Uncaught Error: lost\n"),
        ("Convex.syscall('1.0/queryStream', '{}');", "Uncaught Error: Can't use database at import time\n"),
        ("await Convex.asyncSyscall('1.0/get', '{}');", "Uncaught Error: Can't use database at import time\n"),
        (
            "await Convex.asyncSyscall('1.0/runUdf', '{}');",
            "Uncaught Error: Cannot call another function at import time\n",
        ),
        (
            "await Convex.asyncSyscall('1.0/schedule', '{}');",
            "Uncaught Error: Syscall 1.0/schedule unsupported at import time\n",
        ),
        ("setTimeout(() => {}, 1);", "Uncaught Error: setTimeout unsupported at import time\n"),
        ("await fetch('http://a/');", "Uncaught Error: fetch() unsupported at import time\n"),
        ("await import('./bar.js');", "Uncaught TypeError: dynamic module import unsupported\n"),
        (
            HEAD + "const f = query(() => 1); f.exportArgs = () => 1; export { f };",
            "Invalid exportArgs return value: x.js:f.exportArgs() didn't return a string.",
        ),
        (
            HEAD + 'const f = query(() => 1); f.exportArgs = () => \'{"type":"string"}\'; export { f };',
            "Args validator must be an object or any",
        ),
    ],
)
def test_failures(child: Child, source: str, message: str) -> None:
    """Each way a module can fail has its text, after the name of the module."""
    assert analyze(child, "module", "x.js", source) == {
        "code": "InvalidModules",
        "message": f"Failed to analyze x.js: {message}",
    }


def test_invalid_json_of_a_validator(child: Child) -> None:
    """Text that is no JSON is reported with its function."""
    source = HEAD + "const f = query(() => 1); f.exportReturns = () => '{'; export { f };"
    assert analyze(child, "module", "x.js", source)["message"].startswith(
        "Failed to analyze x.js: Invalid JSON returned from x.js:f.exportReturns(): "
    )


def test_classification(child: Child) -> None:
    """Presence of flags decides: two kinds or both visibilities skip the export; neither visibility is null; old packages have no validators."""
    source = """
const f = (flags) => Object.assign(() => {}, flags);
export const two = f({ isQuery: true, isMutation: true }), both = f({ isQuery: true, isPublic: true, isInternal: true });
export const present = f({ isQuery: false }), plain = () => 1, nothing = null, number = 4, object = { isAction: true, _handler: () => 1 };
export const experimental_reuseContext = true;
"""
    found = analyze(child, "module", "x.js", source)
    assert [
        (one["name"], one["udfType"], one["visibility"], one["args"], one["returns"]) for one in found["functions"]
    ] == [
        ("object", "Action", None, None, None),
        ("present", "Query", None, None, None),
    ]
    assert found["reuseContext"] is True


def test_names_of_functions(child: Child) -> None:
    """An export that is no identifier of ours is refused with a code of its own."""
    error = analyze(child, "module", "x.js", HEAD + "const $f = query(() => 1); export { $f };")
    assert error["code"] == "InvalidFunctionName"
    assert (
        "Invalid first character '$' in $f: Identifiers must start with an alphabetic character or underscore"
        in error["message"]
    )


@pytest.mark.parametrize(
    ("module", "source", "text"),
    [
        ("http.js", "export const a = 1;", 'Couldn\'t find default export in module "http.js".'),
        ("http.js", "export default 5;", "`convex/http.js` must have a default export of a Router."),
        ("http.js", "export default {};", "The default export of `convex/http.js` is not a Router."),
        (
            "http.js",
            "export default { isRouter: true, getRoutes: () => 1 };",
            "The `getRoutes()` method of Router did not return the expected type.",
        ),
        ("crons.js", "export const a = 1;", "`convex/crons.js` must have a default export of a Crons object."),
        ("crons.js", "export default {};", "The default export of `convex/crons.js` is not a Crons object."),
    ],
)
def test_special_modules(child: Child, module: str, source: str, text: str) -> None:
    """Routers and crons that are none."""
    assert analyze(child, "module", module, source)["message"].startswith(f"Failed to analyze {module}: {text}")


@pytest.mark.parametrize(
    ("what", "source", "code", "text"),
    [
        ("schema", "export const a = 1;", "MissingSchemaExportError", "Schema file missing default export."),
        (
            "schema",
            "export default {};",
            "InvalidSchemaExport",
            "Default export from schema file isn't a Convex schema.",
        ),
        (
            "schema",
            "process.env.A; export default {};",
            "InvalidSchema",
            "Uncaught Error: Environment variables unsupported when evaluating schema",
        ),
        (
            "schema",
            "Convex.syscall('1.0/queryStream', '{}');",
            "InvalidSchema",
            "Uncaught Error: Syscall 1.0/queryStream unsupported when evaluating schema",
        ),
        ("auth", "export const a = 1;", "AuthConfigMissingExportError", "auth config file is missing default export."),
        (
            "auth",
            "Date.now();",
            "InvalidAuthConfig",
            "Uncaught Error: Date unsupported when evaluating auth config file",
        ),
        (
            "auth",
            "Math.random();",
            "InvalidAuthConfig",
            "Uncaught Error: Math.random unsupported when evaluating auth config file",
        ),
        (
            "app",
            "new Date(); export default {};",
            "InvalidConvexConfig",
            "Uncaught Error: Date unsupported when evaluating app definition",
        ),
        (
            "app",
            "export default {}; export const a = 1;",
            "InvalidConvexConfig",
            "convex.config.js must have a default export and no other export.",
        ),
    ],
)
def test_definition_failures(child: Child, what: str, source: str, code: str, text: str) -> None:
    """What schema, auth config and app definitions may not do."""
    error = analyze(child, what, "x.js", source)
    assert error["code"] == code
    assert error["message"].startswith(text)


def test_schema_may_use_time_and_randomness(child: Child) -> None:
    """Both are fixed by the push."""
    source = "const t = Date.now(), r = Math.random(); export default { export: () => JSON.stringify({ tables: [], t, r }) };"
    first = analyze(child, "schema", "x.js", source)
    assert first["t"] == 1_600_000_000_000
    assert analyze(child, "schema", "x.js", source + " ")["r"] == first["r"]


@pytest.mark.slow
def test_analysis_is_limited_in_time(child: Child) -> None:
    """Four seconds of JavaScript."""
    error = analyze(
        child, "module", "x.js", "const end = performance.now; let x = 0; for (let i = 0; i < 6.5e9; i++) x += i;"
    )
    assert error["message"] == "Failed to analyze x.js: Function execution timed out (maximum duration: 4s)"
