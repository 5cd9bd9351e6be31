"""Deploying without the CLI, the history of pushes and the way back, against a real server (``docs/deploy_api.md``)."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import ADMIN_KEY, ROOT, Server, convex, make_app, running

MESSAGES = """\
import { mutation, query, action, internalQuery } from "./_generated/server";
import { api, internal } from "./_generated/api";
import { ConvexError, v } from "convex/values";
import { shout } from "./lib/text";

export const list = query({ args: {}, handler: async (ctx) => await ctx.db.query("messages").withIndex("by_body").collect() });
export const send = mutation({
  args: { body: v.string() },
  handler: async (ctx, { body }: { body: string }): Promise<string> => {
    if (body === "") throw new ConvexError({ code: "EMPTY" });
    return await ctx.db.insert("messages", { body: shout(body) });
  },
});
export const count = internalQuery({ args: {}, handler: async (ctx) => (await ctx.db.query("messages").collect()).length });
export const twice = action({
  args: { body: v.string() },
  handler: async (ctx, { body }) => {
    await ctx.runMutation(api.messages.send, { body });
    await ctx.runMutation(api.messages.send, { body });
    return await ctx.runQuery(internal.messages.count, {});
  },
});
export const fail = query({
  args: {},
  handler: async () => {
    throw new Error("on line 26");
  },
});
"""
TEXT = "export const shout = (text) => `${text.toUpperCase()}!`;\n"
SCHEMA = """\
import { defineSchema, defineTable } from "convex/server";
import { body } from "./fields";

export default defineSchema({ messages: defineTable({ body }).index("by_body", ["body"]) });
"""
FUNCTIONS = {
    "messages.ts": MESSAGES,
    "lib/text.js": TEXT,
    "schema.ts": SCHEMA,
    "fields.ts": 'import { v } from "convex/values";\nexport const body = v.string();\n',
    "_generated/api.js": "this is left out",
}
MUTATION = 'import { mutation } from "./_generated/server";\nimport { v } from "convex/values";\n'
QUERY = 'import { query } from "./_generated/server";\nimport { v } from "convex/values";\n'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the tests of this file."""
    with running(tmp_path_factory.mktemp("deploy")) as server:
        yield server


def deploy(server: Server, functions: Any, **more: Any) -> tuple[int, Any]:
    """``POST /api/deploy``. :returns: status and answer."""
    status, _, answer = server.request("POST", "/api/deploy", {"adminKey": ADMIN_KEY, "functions": functions, **more})
    return status, json.loads(answer)


def console(server: Server, *arguments: str) -> tuple[int, str]:
    """Run the console script beside *server*, with the credentials in its folder. :returns: exit code and what it printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CONVEX")}
    environment |= {"PYTHONPATH": str(ROOT), "CONVEX_SELF_HOSTED_URL": server.url}
    command = [sys.executable, "-m", "convex_backend.cli", *arguments]
    done = subprocess.run(command, cwd=server.folder, env=environment, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_deploys_modules_that_import_each_other(server: Server) -> None:
    """JavaScript and TypeScript, with npm's library and ``_generated``, are an app; errors have the lines of what was sent."""
    assert deploy(server, FUNCTIONS) == (
        200,
        {"success": True, "warnings": ["_generated/api.js was ignored: the server makes _generated itself."]},
    )
    assert server.value("mutation", "messages:send", {"body": "hi"})
    assert server.value("action", "messages:twice", {"body": "yo"}) == 3
    assert [message["body"] for message in server.value("query", "messages:list")] == ["HI!", "YO!", "YO!"]
    answer = server.call("mutation", "messages:send", {"body": ""})
    assert answer["errorData"] == {"code": "EMPTY"}
    message = server.call("query", "messages:fail")["errorMessage"]
    assert "Uncaught Error: on line 26\n    at handler (messages.ts:26:" in message
    answer = server.call("mutation", "messages:send", {"body": 3})
    assert "ArgumentValidationError" in answer["errorMessage"]
    assert "Could not find public function" in server.call("query", "messages:count")["errorMessage"]


def table(field: str) -> dict[str, Any]:
    members = {"body": {"fieldType": {"type": field}, "optional": False}}
    return {"tableName": "messages", "documentType": {"type": "object", "value": members}}


@pytest.mark.parametrize(
    ("functions", "schema", "code", "message"),
    [
        (
            {"a.js": "const a = 1;\nlet x = ;\n"},
            None,
            "InvalidModules",
            "a.js, line 2: Uncaught SyntaxError: Unexpected token ';'",
        ),
        (
            {"a.ts": "const a: number = 1;\nlet x: = ;\n"},
            None,
            "InvalidModules",
            "a.ts, line 2: Uncaught SyntaxError: ",
        ),
        (
            {"a.ts": "\nenum X { A }"},
            None,
            "InvalidModules",
            "a.ts, line 2: Uncaught SyntaxError: TypeScript enum is not",
        ),
        (
            {"a.js": "\nimport './b.js';"},
            None,
            "InvalidModules",
            "a.js, line 2: Couldn't find JavaScript module 'b.js'.",
        ),
        (
            {"a.js": "import x from 'lodash';"},
            None,
            "InvalidModules",
            'a.js, line 1: Relative import path "lodash" not pre',
        ),
        (
            {"a.js": "import './b';", "b.js": "\n\nnope.x;"},
            None,
            "InvalidModules",
            "a.js: in b.js, line 3: Uncaught ReferenceError: nope is not defined",
        ),
        (
            {"a.ts": '\nimport { Doc } from "./_generated/dataModel";\nexport const f = (d: Doc) => d;'},
            None,
            "InvalidModules",
            "a.ts, line 2: Uncaught SyntaxError: The requested module './_generated/dataModel' does not provide",
        ),
        (
            {"a.js": f"{QUERY}export const f = query({{\n  args: {{ x: 3 }}, handler: () => 1 }});"},
            None,
            "InvalidModules",
            "a.js: Uncaught Error: v.object() entries must be validators",
        ),
        ({"a.js": "throw new Error('no');"}, None, "InvalidModules", "a.js, line 1: Uncaught Error: no"),
        (
            {"http.js": "export default 3;"},
            None,
            "InvalidModules",
            "http.js: `convex/http.js` must have a default export",
        ),
        (
            {},
            "export default 3;",
            "InvalidSchemaExport",
            "schema.js: Default export from schema file isn't a Convex schema",
        ),
        ({}, "import './nope';", "InvalidSchema", "schema.js, line 1: Couldn't find JavaScript module 'nope.js'."),
        ({}, {"tables": [{"tableName": "a b"}]}, "InvalidTableName", 'schema: Invalid table name: "a b".'),
        (
            {},
            {"tables": [table("number")]},
            "SchemaValidationFailed",
            'Schema validation failed: Document with ID "',
        ),
        (
            {"auth.config.js": "export default 1;"},
            None,
            "AuthConfigNotMatchingSchemaError",
            "auth.config.js: auth config file ",
        ),
        (
            {"auth.config.js": "\nexport default { providers: [{ domain: process.env.D, applicationID: 'x' }] };"},
            None,
            "AuthConfigMissingEnvironmentVariable",
            "auth.config.js, line 2: Uncaught Error: Environment variable D is used in auth config file",
        ),
    ],
)
def test_what_is_wrong_is_named_and_the_old_deployment_serves(
    server: Server, functions: dict[str, str], schema: Any, code: str, message: str
) -> None:
    """A bad module or schema is a 400 that names module, line and reason; what was deployed before goes on."""
    if server.call("query", "messages:list")["status"] == "error":
        assert deploy(server, FUNCTIONS)[0] == 200
    if not server.value("query", "messages:list"):
        server.value("mutation", "messages:send", {"body": "hi"})
    before = server.value("query", "messages:list")
    status, answer = deploy(server, functions, schema=schema)
    assert (status, answer["code"]) == (400, code), answer
    assert answer["message"].startswith(message), answer
    assert server.value("query", "messages:list") == before


def test_what_is_lost_is_a_warning(server: Server) -> None:
    """Modules, the schema and indexes that a deploy leaves out are named."""
    assert deploy(server, FUNCTIONS)[0] == 200
    status, answer = deploy(server, {"other.js": ""})
    assert status == 200
    assert answer["warnings"] == [
        "Removed modules: fields.js, lib/text.js, messages.js.",
        "The deployment has no schema any more: documents are not checked.",
        "Deleted indexes: messages.by_body.",
    ]


def test_schema_as_json_is_enforced(server: Server) -> None:
    """The JSON that ``schema.js`` exports does the same as the module."""
    handler = 'handler: (ctx, { x }) => ctx.db.insert("strict", { x })'
    functions = {"t.js": f"{MUTATION}export const put = mutation({{ args: {{ x: v.any() }}, {handler} }});"}
    members = {"x": {"fieldType": {"type": "string"}, "optional": False}}
    schema = {"tables": [{"tableName": "strict", "documentType": {"type": "object", "value": members}}]}
    assert deploy(server, functions, schema=json.dumps(schema))[0] == 200
    server.value("mutation", "t:put", {"x": "a"})
    assert "does not match the schema" in server.call("mutation", "t:put", {"x": 1})["errorMessage"]


def test_app_definition_and_auth_config_in_typescript(server: Server) -> None:
    """Declared variables and auth providers are those of an app that the CLI pushes."""
    config = (
        'import { defineApp } from "convex/server";\nimport { v } from "convex/values";\n'
        "export default defineApp({ env: { NEEDED: v.string() } });\n"
    )
    auth = (
        'import type { AuthConfig } from "convex/server";\n'
        'export default { providers: [{ domain: "https://a.test", applicationID: "x" }] } satisfies AuthConfig;\n'
    )
    functions = {"convex.config.ts": config, "auth.config.ts": auth}
    status, answer = deploy(server, functions)
    assert (status, answer["code"]) == (400, "MissingEnvironmentVariables")
    assert "NEEDED" in answer["message"]
    changes = {"adminKey": ADMIN_KEY, "changes": [{"name": "NEEDED", "value": "yes"}]}
    assert server.request("POST", "/api/update_environment_variables", changes)[0] == 200
    assert deploy(server, functions)[0] == 200
    assert json.loads(console(server, "status", "--json")[1])["auth_providers"] == 1


def test_deploys_at_the_same_time(server: Server) -> None:
    """Of several deploys at once each is whole or refused; what serves in the end is one that was said to have succeeded."""
    source = 'import {{ query }} from "./_generated/server";\nexport const which = query({{ handler: () => {} }});\n'
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda number: deploy(server, {"v.js": source.format(number)}), range(4)))
    done = [number for number, (status, _) in enumerate(answers) if status == 200]
    refused = {(status, answer["code"]) for status, answer in answers if status != 200}
    assert refused <= {(409, "RaceDetected"), (400, "RaceDetected"), (400, "ConcurrentPush")}
    assert server.value("query", "v:which") in done


def test_clients_that_go_away(server: Server) -> None:
    """Whoever hangs up during a deploy leaves a deployment that is whole, and a server that has nothing to complain of."""
    source = 'import {{ query }} from "./_generated/server";\nexport const which = query({{ handler: () => {} }});\n'
    assert deploy(server, {"v.js": source.format(0)})[0] == 200
    for number, delay in enumerate((0.0, 0.05, 0.2, 0.5), 1):
        body = json.dumps({"adminKey": ADMIN_KEY, "functions": {"v.ts": source.format(number)}}).encode()
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            head = f"POST /api/deploy HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall(head.encode() + body)
            time.sleep(delay)
        assert server.value("query", "v:which") in range(number + 1)
    assert deploy(server, {"v.js": source.format(9)})[0] == 200
    assert server.value("query", "v:which") == 9
    assert "a request failed" not in server.text()
    assert "Traceback" not in server.text()


def test_who_may_deploy(server: Server) -> None:
    """Without a key 403, with a wrong one 401, with a good one in header (``Convex`` or ``Bearer``) or body 200."""
    body = {"functions": {"a.js": ""}}
    for headers, status in (
        ({}, 403),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": f"Bearer {ADMIN_KEY}"}, 200),
        ({"Authorization": f"Convex {ADMIN_KEY}"}, 200),
    ):
        assert server.request("POST", "/api/deploy", body, headers)[0] == status
    reader = {"Authorization": f"Convex {console(server, 'admin-key', '--read-only')[1].strip()}"}
    for path, wanted in (("/api/deploy", body), ("/api/rollback", {})):
        status, _, answer = server.request("POST", path, wanted, reader)
        assert (status, json.loads(answer)["code"]) == (403, "OperationNotPermitted")
    assert server.request("GET", "/api/push_history", None, reader)[0] == 200


def test_the_cli_and_its_components(tmp_path: Path) -> None:
    """The CLI pushes over a simple deploy and the other way round; going back to its push mounts its components again, with their data."""
    app = make_app(tmp_path, "components")
    with running(tmp_path) as server:
        assert deploy(server, {"a.js": ""}, message="by hand")[0] == 200
        convex(app, server, "env", "set", "GREETING", "hi")
        convex(app, server, "dev", "--once", "--typecheck", "disable")
        code, listed = console(server, "history")
        assert code == 0
        newest, older, message = listed.splitlines()
        assert newest.startswith("*    2  ")
        assert "npm-cli 1.48.0  added " in newest
        assert "removed a.js" in newest
        assert "counter: create; counter: added " in newest
        assert older.startswith("     1  ")
        assert "deploy-api" in older
        assert message.strip() == "by hand"
        assert server.value("mutation", "main:add", {"name": "kept", "by": 2}) == [2, 10]
        _, answer = deploy(server, {"a.js": ""})
        assert any(warning.startswith("Removed modules: ") and "main.js" in warning for warning in answer["warnings"])
        assert "(unmounted)" in console(server, "status")[1]
        code, printed = console(server, "rollback")
        assert code == 0, printed
        assert printed.startswith("Went back to push 2; this is push 4: ")
        assert server.value("mutation", "main:add", {"name": "kept", "by": 1}) == [3, 20]
        status = json.loads(console(server, "status", "--json")[1])
        assert status["push"]["id"] == 4
        assert status["environment"] == ["GREETING"]
        components = {component["path"]: component for component in status["components"]}
        assert set(components) == {"", "counter", "counter/tally", "second", "second/tally"}
        assert {component["state"] for component in components.values()} == {"active"}
        assert {"path": "main.js:add", "kind": "Mutation", "visibility": "public"} in components[""]["functions"]
        assert components["counter"]["tables"] == components["second"]["tables"] != []


def test_status(server: Server) -> None:
    """What is deployed is told in a few lines, and completely as JSON: functions, schema, indexes, routes, crons, versions, the push."""
    http = (
        'import { httpRouter } from "convex/server";\nimport { httpAction } from "./_generated/server";\n'
        "const router = httpRouter();\n"
        'router.route({ path: "/ping", method: "GET", handler: httpAction(async () => new Response("pong")) });\n'
        "export default router;\n"
    )
    crons = (
        'import { cronJobs } from "convex/server";\nimport { internal } from "./_generated/api";\n'
        'const jobs = cronJobs();\njobs.daily("tidy", { hourUTC: 1, minuteUTC: 2 }, internal.jobs.tidy);\n'
        "export default jobs;\n"
    )
    jobs = (
        'import { internalMutation } from "./_generated/server";\n'
        "export const tidy = internalMutation({ handler: () => null });\n"
    )
    assert deploy(server, {**FUNCTIONS, "http.js": http, "crons.js": crons, "jobs.js": jobs})[0] == 200
    assert server.request("GET", "/http/ping")[2] == b"pong"
    code, printed = console(server, "status")
    assert code == 0
    lines = printed.splitlines()
    first, app = lines[:2]
    assert first == f"convex-backend 0.1.0 at {server.url}"
    assert app.startswith("app: 6 functions, 1 HTTP route, 1 cron job, ")
    assert app.endswith(" by a schema, 1 index, made with convex 1.48.0")
    assert any(line.startswith("last push: ") for line in lines[2:4])
    deployed = json.loads(console(server, "status", "--json")[1])
    (app_state,) = deployed["components"]
    assert {"path": "jobs.js:tidy", "kind": "Mutation", "visibility": "internal"} in app_state["functions"]
    assert app_state["http_routes"] == [["GET", "/ping"]]
    assert app_state["crons"]["tidy"]["cronSchedule"] == {"type": "daily", "hourUTC": 1, "minuteUTC": 2}
    assert app_state["schema"]["tables"][0]["tableName"] == "messages"
    assert {"table": "messages", "name": "by_body", "state": "enabled", "staged": False} in app_state["indexes"]
    assert deployed["push"]["current"] is True


def test_history_and_rollback_by_the_console(server: Server) -> None:
    """A rollback makes the earlier code serve again, is a push of its own, and is refused with the table and document in its way."""
    one = 'import { query, mutation } from "./_generated/server";\nexport const which = query({ handler: () => %d });\n'
    put = 'export const put = mutation({ handler: (ctx) => ctx.db.insert("rows", { n: 1 }) });\n'
    strict = {"tables": [{"tableName": "rows", "documentType": {"type": "object", "value": {}}}]}
    assert deploy(server, {"v.js": one % 1}, schema=strict, message="the first")[0] == 200
    assert deploy(server, {"v.js": one % 2 + put})[0] == 200
    pushes = [json.loads(line) for line in console(server, "history", "--json", "--limit", "2")[1].splitlines()]
    assert [(push["current"], push["message"]) for push in pushes] == [(True, None), (False, "the first")]
    first = pushes[1]["id"]
    assert server.value("query", "v:which") == 2
    code, printed = console(server, "rollback", str(first))
    assert code == 0
    assert printed.startswith(f"Went back to push {first}; this is push {first + 2}: changed v.js; schema changed")
    assert server.value("query", "v:which") == 1
    assert console(server, "rollback")[0] == 0
    assert server.value("query", "v:which") == 2
    document = server.value("mutation", "v:put")
    code, printed = console(server, "rollback", str(first))
    assert code == 1
    assert (
        f'Cannot go back to push {first}: Schema validation failed: Document with ID "{document}" in table "rows"'
        in printed
    )
    assert printed.count("\n") == 1
    assert server.value("query", "v:which") == 2
    assert console(server, "rollback", "9999") == (
        1,
        "convex-backend: There is no push 9999 in the history of this deployment.\n",
    )
    assert console(server, "history", "--admin-key", "nope")[0] == 1


def shell(server: Server, script: str, folder: Path) -> list[Any]:
    """Run commands of the documentation against *server* instead of port 3210. :returns: the JSON answers that they printed."""
    script = script.replace("http://127.0.0.1:3210", server.url)
    script = re.sub(r"\$\(\S*convex-backend admin-key\)", f"'{ADMIN_KEY}'", script)
    environment = {**os.environ, "KEY": ADMIN_KEY}
    done = subprocess.run(
        ["sh", "-eu", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in re.findall(r"\{.*?\}(?=\{|\n|$)", done.stdout)]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_commands_of_the_documentation(server: Server, tmp_path: Path) -> None:
    """What the README and docs/deploy_api.md tell people to type works as it stands there."""
    guide = (ROOT / "docs" / "deploy_api.md").read_text("utf-8")
    with_curl, with_folder = re.findall(r"```sh\n(.*?)```", guide, re.DOTALL)
    deployed, sent, listed = shell(server, with_curl, tmp_path)
    assert deployed["success"] is True
    assert sent["status"] == "success"
    assert listed["value"][-1]["body"] == "hello"
    (tmp_path / "convex" / "_generated").mkdir(parents=True)
    (tmp_path / "convex" / "_generated" / "api.js").write_text("not sent")
    (tmp_path / "convex" / "typed.ts").write_text(f"{QUERY}export const n = query({{ handler: (): number => 5 }});")
    assert shell(server, with_folder, tmp_path)[0]["success"] is True
    assert server.value("query", "typed:n") == 5
    readme = (ROOT / "README.rst").read_text("utf-8")
    section = readme.split("deploy with curl\n=")[1].split("::\n\n")[1].split("\n\nPlain")[0]
    deployed, answer = shell(server, textwrap.dedent(section), tmp_path)
    assert deployed["success"] is True
    assert answer["value"] == "hello"
