"""Components with the official CLI: a local one, mounted twice and with one of its own below, and two from npm.

Source: ``push.md`` section 7, ``runtime.md`` section 9.2.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import ADMIN_KEY, Server, convex, make_app, node, running

#: The CLI generates a wrong path for the types of a component that is nested in a local one.
UNTYPED = ("--typecheck", "disable")
MAIN = "convex/convex.config.ts"


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Server]]:
    """The app with local components, deployed to a server of its own."""
    app = make_app(tmp_path_factory.mktemp("components"), "components")
    with running(tmp_path_factory.mktemp("components_server")) as server:
        convex(app, server, "env", "set", "GREETING", "hi there")
        output = convex(app, server, "dev", "--once", *UNTYPED)
        for path in ("counter", "counter/tally", "second", "second/tally"):
            assert f"Installed component {path}." in output
        yield app, server


def failure(server: Server, kind: str, path: str, args: Any = None) -> str:
    """The error text of a call that must fail, without its first line."""
    answer = server.call(kind, path, args)
    assert answer["status"] == "error", answer
    text: str = answer["errorMessage"]
    return text.partition("Server Error\n")[2]


def test_components_are_generated_both_ways(deployed: tuple[Path, Server]) -> None:
    """The CLI's generated code lists a component's public functions and no internal ones, for its author and for the app."""
    app, server = deployed
    component = (app / "convex" / "counter" / "_generated" / "component.ts").read_text()
    assert re.search(
        r"add: FunctionReference<\s*\"mutation\",\s*\"internal\",\s*{ name: string; by: number }", component
    )
    assert "secret" not in component
    assert "second: import(" in (app / "convex" / "_generated" / "api.d.ts").read_text()
    (app / "convex.json").write_text('{"codegen": {"staticApi": true, "staticDataModel": true}}')
    convex(app, server, "codegen", *UNTYPED)
    static = (app / "convex" / "_generated" / "api.d.ts").read_text()
    (app / "convex.json").unlink()
    assert "addCaught" in static


def test_instances_have_tables_of_their_own(deployed: tuple[Path, Server]) -> None:
    """Two mounts of one definition and the app keep equal names and numbers of tables apart; calls share the caller's transaction."""
    _, server = deployed
    assert server.value("mutation", "main:add", {"name": "own", "by": 2}) == [2, 10]
    assert server.value("mutation", "main:add", {"name": "own", "by": 3}) == [5, 20]
    assert server.value("query", "main:get", {"name": "own"}) == [5, 20]
    assert server.value("query", "main:owners") == 2
    assert {"own=2", "own=5"} <= set(server.value("query", "main:notes"))


def test_live_queries_follow_components(deployed: tuple[Path, Server]) -> None:
    """A subscribed query is updated by commits of the components that it reads from, both at once, and by no others."""
    app, server = deployed
    [found] = node(app, "components.mjs", server)
    assert found == {"seen": [[0, 0], [1, 10], [2, 20]], "places": ["second"]}


def test_a_failed_call_is_rolled_back_alone(deployed: tuple[Path, Server]) -> None:
    """What a component's mutation wrote, and what the components below it wrote, goes when it fails; the caller may go on."""
    _, server = deployed
    assert server.value("mutation", "main:addCaught").startswith("Uncaught Error: only upwards\n    at handler (")
    assert server.value("query", "main:get", {"name": "caught"}) == [0, 0]
    assert not any(note.startswith("caught") for note in server.value("query", "main:notes"))


def test_variables_of_components(deployed: tuple[Path, Server]) -> None:
    """``env`` and ``process.env`` show what was bound, also at import time, and the site's URL with the mount; nothing of the app's own."""
    app, server = deployed
    assert server.value("query", "main:greetings") == [
        ["hi there", "hi there", None, f"{server.url}/http/counter"],
        ["from the app", "from the app", None, f"{server.url}/http"],
    ]
    convex(app, server, "env", "set", "GREETING", "good evening")
    assert server.value("query", "main:greetings")[0][:2] == ["good evening", "good evening"]
    output = convex(app, server, "env", "remove", "GREETING", check=False)
    assert "GREETING" in output
    assert output.endswith("[exit 1]")
    convex(app, server, "env", "set", "GREETING", "hi there")


def test_only_public_functions_cross_the_border(deployed: tuple[Path, Server]) -> None:
    """Internal and unknown functions and unknown components are refused by name; actions are told the reference."""
    _, server = deployed
    assert server.value("query", "main:missingInQuery", {"inside": True}) == (
        'Child component ComponentName(Identifier("counter")) does not export '
        '[Identifier("counts"), Identifier("secret")]'
    )
    assert server.value("query", "main:missingInQuery", {"inside": False}) == (
        'Child component ComponentName(Identifier("nope")) not found'
    )
    assert server.value("action", "main:missing") == "Couldn't resolve counter.counts.nope"


def test_clients_reach_the_app_only(deployed: tuple[Path, Server]) -> None:
    """A client finds no function of a component, by its path or by a component path."""
    _, server = deployed
    assert failure(server, "query", "counts:get", {"name": "x"}).startswith(
        "Could not find public function for 'counts:get'"
    )
    body = {"componentPath": "counter", "path": "counts:get", "format": "json", "args": {"name": "x"}}
    status, _, _ = server.request("POST", "/api/function", body)
    assert status == 403


def test_pages_are_for_the_app(deployed: tuple[Path, Server]) -> None:
    """``paginate`` in a component fails with the text that names the helper for it."""
    _, server = deployed
    assert "paginate() is only supported in the app." in failure(server, "query", "main:page")


def test_actions_of_components(deployed: tuple[Path, Server]) -> None:
    """An action of a component calls its own and its child's functions, each in a transaction of its own; metadata names the component."""
    _, server = deployed
    [[secret, value, notes], count, identity, own] = server.value("action", "main:act", {"name": "act"})
    assert (secret, value, count, identity, own) == ("secret", 100, 100, None, [100, 0])
    assert isinstance(notes, list)
    assert server.value("query", "main:where") == "second"


def wait_for(look: Callable[[], Any], wanted: Any, seconds: float = 10.0) -> None:
    """Ask until the answer is *wanted*. :raises AssertionError: it does not come."""
    deadline = time.monotonic() + seconds
    while (found := look()) != wanted:
        assert time.monotonic() < deadline, f"{found} is not {wanted}"
        time.sleep(0.05)


def test_http_routes_of_a_component(deployed: tuple[Path, Server]) -> None:
    """Requests below a mount are routed by the component's ``http.ts``, without the prefix; one that is not mounted has no routes."""
    _, server = deployed
    status, _, body = server.request("GET", "/http/counter/hello")
    assert (status, body) == (200, b"hello: hi there")
    assert server.request("POST", "/http/counter/add", b"by http")[::2] == (200, b"1 /counter/add")
    assert server.value("query", "main:get", {"name": "by http"}) == [1, 0]
    assert server.request("GET", "/http/counter/nope")[0] == 404
    assert server.request("GET", "/http/hello")[0] == 404


def test_jobs_belong_to_the_component_that_schedules(deployed: tuple[Path, Server]) -> None:
    """A job may run a function of another component, by handle or reference; its document is where it was scheduled."""
    _, server = deployed
    server.value("mutation", "main:schedule", {"name": "job"})
    wait_for(lambda: server.value("query", "main:get", {"name": "job"}), [5, 7])
    wait_for(lambda: server.value("query", "main:get", {"name": "job later"}), [100, 0])
    done = "counts.js:add success"
    wait_for(lambda: server.value("query", "main:jobs"), [[done, done], ["counts.js:addInside success"], []])


def test_files_belong_to_the_component_that_stores(deployed: tuple[Path, Server]) -> None:
    """A component's file has a URL that names the component, and is none of the app's."""
    _, server = deployed
    url, ours = server.value("action", "main:store", {"text": "from inside"})
    assert ours is False
    assert "?component=" in url
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.read() == b"from inside"


def test_crons_of_components(deployed: tuple[Path, Server]) -> None:
    """Each instance has the cron jobs of its definition; an interval begins at once."""
    _, server = deployed
    wait_for(lambda: server.value("query", "main:ticks"), [1, 1])


def test_function_handles(deployed: tuple[Path, Server]) -> None:
    """Handles name functions of any component, whatever their visibility, in mutations and actions."""
    _, server = deployed
    handles = server.value("query", "main:handles")
    assert [handle.partition("#")[2] for handle in handles] == ["counts:add", "counts:add", "main:own"]
    assert len(set(handles)) == 3
    before = server.value("query", "main:get", {"name": "handle"})
    assert server.value("mutation", "main:useHandle", {"handle": handles[1]}) == before[1] + 3
    assert server.value("action", "main:useHandleInAction", {"handle": handles[0]}) == before[0] + 4
    assert server.value("mutation", "main:useHandle", {"handle": handles[2]}) == "own"
    identifier = handles[0].partition("#")[0]
    assert "Function handle not found" in failure(
        server, "mutation", "main:useHandle", {"handle": identifier[:-1] + "0"}
    )


def test_the_cli_looks_into_components(deployed: tuple[Path, Server]) -> None:
    """``run --component`` runs public and internal functions, ``data --component`` lists tables and documents, ``function-spec`` the app's."""
    app, server = deployed
    server.value("mutation", "main:add", {"name": "cli", "by": 1})
    assert convex(app, server, "run", "--component", "counter", "counts:get", '{"name": "cli"}').strip().endswith("1")
    assert '"hidden"' in convex(app, server, "run", "--component", "counter/tally", "notes:hidden")
    output = convex(app, server, "run", "--component", "counter", "counts:nope", check=False)
    assert "Could not find function for 'counts:nope' in 'counter'" in output
    assert convex(app, server, "data", "--component", "second").split() == ["counts", "ticks"]
    shown = convex(app, server, "data", "counts", "--component", "second", "--format", "jsonLines")
    assert {"cli", "own"} & {json.loads(line)["name"] for line in shown.splitlines() if line.startswith("{")}
    assert "main.js:addCaught" in convex(app, server, "function-spec")


TEST_QUERY = """
import { query } from "convex:/_system/repl/wrappers.js";
export default query({ handler: async (ctx, args) => { console.log("asked"); return BODY; } });
"""


def inline(server: Server, body: str, component: str | None = None, **more: Any) -> Any:
    """The answer to a query that is sent along."""
    key = {"Authorization": f"Convex {ADMIN_KEY}"}
    request = {
        "bundle": {"path": "testQuery.js", "source": more.pop("source", TEST_QUERY.replace("BODY", body))},
        "args": more.pop("args", {}),
        "format": "convex_encoded_json",
        "componentId": component,
    }
    status, _, answer = server.request("POST", "/api/run_test_function", request, key)
    assert status == 200, answer
    return json.loads(answer)


def component_ids(server: Server) -> dict[str, str]:
    """Document ids of all components by path."""
    key = {"Authorization": f"Convex {ADMIN_KEY}"}
    query = {"path": "_system/frontend/components:list", "format": "json", "args": {}}
    _, _, listed = server.request("POST", "/api/query", query, key)
    return {one["path"]: one["id"] for one in json.loads(listed)["value"]}


def test_queries_that_are_not_deployed(deployed: tuple[Path, Server]) -> None:
    """A query that is sent along runs in the app or in a component, with arguments, lines and errors; it cannot write, and is for admins."""
    app, server = deployed
    server.value("mutation", "main:add", {"name": "inline", "by": 4})
    find = 'await ctx.db.query("counts").filter((q) => q.eq(q.field("name"), args.name)).collect()'
    answer = inline(server, find, component_ids(server)["second"], args={"name": "inline"})
    assert [one["value"] for one in answer["value"]] == [10]
    assert answer["logLines"] == ["[LOG] 'asked'"]
    assert inline(server, "(await ctx.db.query('counts').first()) !== null")["value"] is True
    assert inline(server, "process.env.GREETING", component_ids(server)["second"])["value"] == "from the app"
    assert "no such thing" in inline(server, "(() => { throw new Error('no such thing'); })()")["errorMessage"]
    assert "ctx.db.insert is not a function" in inline(server, "ctx.db.insert('counts', {})")["errorMessage"]
    for source, text in (
        ("export default 1 +;", "SyntaxError"),
        ("export const x = 1;", "Couldn't find a query in the default export"),
        ('import "./main.js";', "Couldn't find JavaScript module 'main.js'"),
        (
            'import { mutationGeneric } from "convex/server"; export default mutationGeneric(async () => 1);',
            "defined as Mutation",
        ),
    ):
        assert text in inline(server, "", source=source)["errorMessage"]
    request = {"bundle": {"path": "testQuery.js", "source": TEST_QUERY.replace("BODY", "1")}, "args": {}}
    assert server.request("POST", "/api/run_test_function", request)[0] == 403
    output = convex(app, server, "run", "--component", "counter", "--inline-query", "return 6 * 7")
    assert output.strip().endswith("42")


def test_unmount_remount_and_delete(deployed: tuple[Path, Server]) -> None:
    """A push without a mount keeps its data and handles for a later one; what is mounted cannot be deleted."""
    app, server = deployed
    handles = server.value("query", "main:handles")
    key = {"Authorization": f"Convex {ADMIN_KEY}"}
    identifier = component_ids(server)["second"]
    status, _, answer = server.request("POST", "/api/delete_component", {"componentId": identifier}, key)
    assert (status, json.loads(answer)["code"]) == (400, "ComponentMustBeUnmounted")
    server.value("mutation", "main:add", {"name": "kept", "by": 1})
    config = app / MAIN
    main = app / "convex" / "main.ts"
    good, code = config.read_text(), main.read_text()
    config.write_text(re.sub(r"app\.use\(counter, { name: \"second\".*\n", "", good))
    main.unlink()
    output = convex(app, server, "deploy", "-y", *UNTYPED)
    assert "Unmounted component second." in output
    assert "Unmounted component second/tally." in output
    output = convex(app, server, "run", "--component", "second", "counts:get", '{"name": "kept"}', check=False)
    assert "Could not find function for 'counts:get' in 'second'" in output
    assert "kept" in convex(app, server, "data", "counts", "--component", "second")
    config.write_text(good)
    main.write_text(code)
    output = convex(app, server, "deploy", "-y", *UNTYPED)
    assert "Remounted component second." in output
    assert server.value("query", "main:get", {"name": "kept"}) == [1, 10]
    assert server.value("query", "main:handles") == handles


def test_a_binding_that_does_not_fit_is_refused(deployed: tuple[Path, Server]) -> None:
    """A push that leaves a required variable out fails with a text that names it; the old deployment goes on serving."""
    app, server = deployed
    config = app / MAIN
    good = config.read_text()
    config.write_text(good.replace(', env: { GREETING: "from the app" }', ""))
    output = convex(app, server, "deploy", "-y", *UNTYPED, check=False)
    config.write_text(good)
    assert 'requires environment variables that are not given: "GREETING"' in output
    assert output.endswith("[exit 1]")
    assert server.value("query", "main:where") == "second"


@pytest.mark.slow
def test_authors_and_trials(deployed: tuple[Path, Server]) -> None:
    """``codegen --component-dir`` works for a component that nobody mounts, without its variables; a dry run changes nothing; rows of a component
    that do not match its new schema fail the push with the component's name."""
    app, server = deployed
    source = app / "src" / "component"
    shutil.copytree(app / "convex" / "tally", source, ignore=shutil.ignore_patterns("_generated"))
    (source / "convex.config.ts").write_text(
        'import { defineComponent } from "convex/server";\nimport { v } from "convex/values";\n'
        'export default defineComponent("alone", { env: { KEY: v.string() } });\n'
    )
    convex(app, server, "codegen", "--component-dir", "./src/component", *UNTYPED)
    shown = (source / "_generated" / "component.ts").read_text()
    assert "note: FunctionReference<" in shown
    assert "hidden" not in shown

    config = app / MAIN
    good = config.read_text()
    config.write_text(good.replace('name: "second"', 'name: "third"'))
    output = convex(app, server, "deploy", "-y", "--dry-run", *UNTYPED)
    config.write_text(good)
    assert "exit" not in output
    assert server.value("query", "main:where") == "second"

    server.value("mutation", "main:add", {"name": "strict", "by": 1})
    schema = app / "convex" / "counter" / "schema.ts"
    good = schema.read_text()
    schema.write_text(good.replace("value: v.number()", "value: v.string()"))
    output = convex(app, server, "deploy", "-y", *UNTYPED, check=False)
    schema.write_text(good)
    assert 'Schema validation failed in component "' in output
    assert 'in table "counts" does not match the schema' in output
    assert server.value("mutation", "main:add", {"name": "strict", "by": 1}) == [2, 20]


# -- from npm -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def from_npm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An app with ``@convex-dev/rate-limiter`` and ``@convex-dev/sharded-counter``, deployed with the type check on."""
    app = make_app(tmp_path_factory.mktemp("npm_components"), "npm_components")
    with running(tmp_path_factory.mktemp("npm_server")) as server:
        output = convex(app, server, "dev", "--once", timeout=120)
        assert "Installed component rateLimiter." in output
        assert "Installed component shardedCounter." in output
        yield server


def test_rate_limiter(from_npm: Server) -> None:
    """``@convex-dev/rate-limiter``: buckets by key, checks, values, a reset, an error with data, shards from an action."""
    sent = [from_npm.value("mutation", "limits:send", {"user": "a"}) for _ in range(4)]
    assert [one["ok"] for one in sent] == [True, True, True, False]
    assert sent[3]["later"] is True
    assert from_npm.value("query", "limits:check", {"user": "a"}) is False
    assert from_npm.value("query", "limits:check", {"user": "b"}) is True
    assert from_npm.value("query", "limits:value", {"user": "a"}) == [3, 0]
    from_npm.value("mutation", "limits:reset", {"user": "a"})
    assert from_npm.value("mutation", "limits:send", {"user": "a"})["ok"] is True
    from_npm.value("mutation", "limits:tryOrThrow")
    answer = from_npm.call("mutation", "limits:tryOrThrow")
    assert (answer["status"], answer["errorData"]["kind"], answer["errorData"]["name"]) == (
        "error",
        "RateLimited",
        "trials",
    )
    assert from_npm.value("action", "limits:manyInAction") == 5


def test_sharded_counter(from_npm: Server) -> None:
    """``@convex-dev/sharded-counter``: adds in parallel, rolls back with its caller, rebalances, resets, works from actions."""
    threads = [
        threading.Thread(target=from_npm.value, args=("mutation", "counters:check", {"by": 1.0})) for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert from_npm.value("query", "counters:count") == 12
    assert "rolled back" in failure(from_npm, "mutation", "counters:checkAndFail")
    assert from_npm.value("query", "counters:count") == 12
    from_npm.value("mutation", "counters:rebalance")
    assert from_npm.value("query", "counters:estimate") == 12
    assert from_npm.value("action", "counters:byAction") == 10
    from_npm.value("mutation", "counters:reset")
    assert from_npm.value("query", "counters:count") == 0
