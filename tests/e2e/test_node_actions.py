""" "use node" actions in a real server, pushed by the real CLI (``runtime.md`` section 11)."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.harness import ADMIN_KEY, Server, convex, make_app, running
from tests.e2e.raw_http import eventually

LIBRARY_NOTE = (
    "Operations should be awaited or they might not run. Not awaiting promises might result in unexpected failures. "
    "See https://docs.convex.dev/functions/actions#dangling-promises for more information."
)


def push(app: Path, server: Server, **options: Any) -> str:
    return convex(app, server, "dev", "--once", "--typecheck", "disable", **options)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the app of Node actions, which import an external package."""
    app = make_app(tmp_path_factory.mktemp("node"), "node_actions")
    with running(tmp_path_factory.mktemp("server")) as server:
        push(app, server)
        server.app = app
        yield server


def act(server: Server, name: str, **args: Any) -> Any:
    return server.value("action", f"node:{name}", args)


def failure(server: Server, name: str, **args: Any) -> str:
    """The text of an action's failure, behind the request's id."""
    answer = server.call("action", f"node:{name}", args)
    assert answer["status"] == "error", answer
    text: str = answer["errorMessage"]
    assert re.match(r"\[Request ID: [0-9a-f]{16}\] Server Error\n", text)
    return text.partition("\n")[2]


def children(server: Server) -> list[psutil.Process]:
    """The processes that run Node actions."""
    assert server.process is not None
    every = psutil.Process(server.process.pid).children(recursive=True)
    found = []
    for one in every:
        try:
            if any(part.endswith("node/main.mjs") for part in one.cmdline()):
                found.append(one)
        except psutil.NoSuchProcess:
            continue  # it has just ended
    return found


def test_node_libraries(node: Server) -> None:
    """Node's own modules and an external package work."""
    assert act(node, "hash", text="a") == hashlib.sha256(b"a").hexdigest()
    assert act(node, "parses", text="2d") == 172_800_000


def test_globals_and_environment(node: Server) -> None:
    """All of Node's globals and those of CommonJS are there; ``process.env`` has the user's variables and the listed ones, nothing of the server."""
    found = act(node, "globals")
    function, thing = "function", "object"
    assert found["types"] == [function, thing, thing, "string", "string", function, thing, thing, *[function] * 3]
    assert (found["sameRequire"], found["evaluated"], found["major"], found["uuid"]) == (True, 42, "24", 36)
    names = ["CONVEX_CLOUD_URL", "CONVEX_SITE_URL", "LANG", "NODE_PATH", "PATH", "PWD", "TMPDIR", "TZ"]
    assert [name for name in found["env"]["names"] if name != "MINE"] == names
    assert (found["env"]["cloud"], found["env"]["tz"]) == (node.url, "UTC")
    assert found["imported"] == "Cannot invoke syscall during module imports"


def test_module_state_and_variables(node: Server) -> None:
    """Module state outlives a run; a changed variable is seen by the next one, in modules that are evaluated again."""
    first = act(node, "counts")
    second = act(node, "counts")
    assert second == {"calls": first["calls"] + 1, "pid": first["pid"]}
    convex(node.app, node, "env", "set", "MINE", "yes")
    third = act(node, "counts")
    assert (third["calls"], third["pid"] != first["pid"]) == (1, True)
    assert act(node, "globals")["env"]["user"] == "yes"


def test_files(node: Server) -> None:
    """Actions may write their temporary directory and start programs; the server's data and the deployed code are out of reach."""
    act(node, "counts")
    if "files by list (Landlock)" not in node.text().rpartition("runner guards (node): ")[2].partition("; missing")[0]:
        pytest.skip("this kernel has no Landlock")
    secret = str(node.folder / "convex_local_backend.sqlite3")
    found = act(node, "files", secret=secret)
    assert (found["back"], found["program"]) == ("kept", "from a program\n")
    assert {found["read"], found["write"], found["ownCode"]} <= {"EACCES", "EPERM"}


def test_calls(node: Server) -> None:
    """Queries, mutations, actions and jobs are called from Node; errors keep their data; large arguments pass."""
    found = act(node, "calling")
    assert found["notes"][-2:] == ["from node", "again"]
    assert (found["identity"], found["nested"], found["size"]) == (None, "INNER", 6_000_000)
    code = {"$integer": "BwAAAAAAAAA="}
    assert found["caught"] == {"convex": True, "code": code, "message": 'Uncaught ConvexError: {"code":"7n"}'}


def test_identity(node: Server) -> None:
    """The identity of who called arrives, also of an admin who acts as a user."""
    identity = {"subject": "me", "issuer": "https://example.com", "name": "Me"}
    acting = base64.b64encode(json.dumps(identity).encode()).decode()
    body = {"path": "node:calling", "format": "convex_encoded_json", "args": [{}]}
    headers = {"Authorization": f"Convex {ADMIN_KEY}:{acting}"}
    _, _, answer = node.request("POST", "/api/action", body, headers)
    assert json.loads(answer)["value"]["identity"] == {
        **identity,
        "tokenIdentifier": "https://example.com|me",
    }


def test_nesting(node: Server) -> None:
    """Actions of both runtimes call each other eight deep at the same time; the ninth is refused."""
    results: list[Any] = []
    callers = [threading.Thread(target=lambda: results.append(act(node, "nest", depth=5))) for _ in range(12)]
    for one in callers:
        one.start()
    for one in callers:
        one.join(60)
    assert results == ["5 4 3 2 1 bottom"] * 12
    assert "Cross component call depth limit exceeded. Do you have an infinite loop in your app?" in failure(
        node, "nest", depth=7
    )


def test_storage(node: Server) -> None:
    """A blob is stored, read back, fetched by its URL and deleted."""
    found = act(node, "keeps")
    assert found == {"type": "application/x-node", "same": True, "fetched": 300_000, "gone": None}


def test_lines(node: Server) -> None:
    """Arguments are printed as Node prints them; what Node builds on log, warn and error comes through, the rest is dropped."""
    assert node.call("action", "node:logs", {})["logLines"] == [
        '[LOG] "it\'s" { a: 1, b: [ 1, 2 ] } 42',
        "[DEBUG] Map(1) { 'k' => 1 }",
        "[WARN] 'Assertion failed: asserted'",
        "[LOG] 'default: 1'",
        "[WARN] \"Timer 'none' does not exist\"",
        "[ERROR] 'é'",
    ]
    assert len(node.call("action", "node:floods", {"lines": 256})["logLines"]) == 256
    lines = node.call("action", "node:floods", {"lines": 400})["logLines"]
    assert (len(lines), lines[255]) == (257, "[LOG] 255")
    assert lines[256] == "[ERROR] Log overflow (maximum 256). Remaining log lines omitted."


def log_of(server: Server, identifier: str) -> list[dict[str, Any]]:
    headers = {"Authorization": f"Convex {ADMIN_KEY}", "Convex-Client": "npm-cli-1.48.0"}
    _, _, body = server.request("GET", "/api/stream_function_logs?cursor=1", None, headers)
    return [one for one in json.loads(body)["entries"] if one["identifier"] == identifier]


def test_lines_are_live(node: Server) -> None:
    """Lines of a running action are in the log while it runs."""
    caller = threading.Thread(target=lambda: act(node, "talks"))
    caller.start()
    (first,) = eventually(lambda: log_of(node, "node:talks"), lambda found: len(found) == 1)
    assert (first["kind"], first["logLines"][0]["messages"], caller.is_alive()) == ("Progress", ["'first'"], True)
    caller.join(20)
    assert [one["kind"] for one in log_of(node, "node:talks")] == ["Progress", "Progress", "Completion"]


def test_errors(node: Server) -> None:
    """Errors leave with mapped frames and the data of a ConvexError; inside, a stack looks as Node's does."""
    assert re.fullmatch(
        r"Uncaught TypeError: from node\n    at thrower \(\.\./convex/node\.ts:\d+:\d+\)\n"
        r"    at handler \(\.\./convex/node\.ts:\d+:\d+\)\n",
        failure(node, "throws"),
    )
    answer = node.call("action", "node:throwsData", {})
    assert answer["errorData"] == {"code": {"$integer": "AQAAAAAAAAA="}, "text": "x"}
    head, frame = act(node, "stack")
    assert head == "Error: inside"
    assert re.fullmatch(r"    at handler \(convex:/user/node\.js:\d+:\d+\)", frame)


def test_what_escapes(node: Server) -> None:
    """An unhandled rejection ends the run; so do an uncaught exception and ``process.exit``, after which the process is another."""
    assert failure(node, "rejects").startswith("Uncaught unhandledRejection: Yikes\n    at handler (../convex/node.ts:")
    for name, text in (
        ("escapes", "uncaughtException: Yikes"),
        ("exits", "process.exit: The action called process.exit(3)"),
    ):
        before = act(node, "counts")
        assert failure(node, name).startswith(f"Uncaught {text}\n    at ")
        after = act(node, "counts")
        assert (after["calls"], after["pid"] != before["pid"]) == (1, True)


def test_late_exception(node: Server) -> None:
    """An exception out of what a run has left behind fails nobody; the process serves one more run at most."""
    before = act(node, "bomb")
    time.sleep(0.3)
    assert act(node, "counts")["pid"] == before
    assert act(node, "counts")["pid"] != before


def test_blocked_process(node: Server) -> None:
    """While one action does not give up control, calls that come go to other processes."""
    caller = threading.Thread(target=lambda: act(node, "blocks", ms=4000))
    caller.start()
    time.sleep(1.5)
    began = time.monotonic()
    for _ in range(10):
        act(node, "hash", text="a")
    assert time.monotonic() - began < 2
    assert caller.is_alive()
    caller.join(20)


def test_innocent_neighbours(node: Server) -> None:
    """Runs beside one that ends its process go on to their own end."""
    results: list[int] = []
    waiting = [threading.Thread(target=lambda: results.append(act(node, "waits", ms=1500))) for _ in range(8)]
    for one in waiting:
        one.start()
    time.sleep(0.5)
    failure(node, "exits")
    failure(node, "escapes")
    for one in waiting:
        one.join(30)
    assert len(results) == 8


def test_leftovers(node: Server) -> None:
    """What was not awaited is named by a warning; what a run has left behind cannot call anything afterwards."""
    answer = node.call("action", "node:leaves", {})
    assert answer["logLines"] == [f"[WARN] You have an outstanding query call. {LIBRARY_NOTE}"]
    assert act(node, "leftover") == "first"
    assert act(node, "leftover") == (
        "Leftover state detected. This typically happens if there are dangling promises from a previous request. "
        "Did you forget to await your promises?"
    )


def test_syscalls(node: Server) -> None:
    """The database is refused with its text, and calls past the library too."""
    leftover = (
        "Leftover state detected. This typically happens if there are dangling promises from a previous request. "
    )
    assert act(node, "syscalls") == [
        "The Convex database object is being used outside of a Convex query or mutation. "
        "Didyou mean to use `ctx.query` or `ctx.mutation` to access the database?",
        "Unknown operation 1.0/nothing",
        "Invalid syscall. The Convex syscalls are for internal Convex use and should not be called directly.",
        f"{leftover}Did you forget to await your promises?",
        "Unknown async operation 1.0/getTransactionMetrics",
        "Unknown async operation 1.0/insert",
    ]
    assert act(node, "crowds") == [
        "Too many concurrent operations. See https://docs.convex.dev/functions/actions#limits for more information."
    ]


def test_sizes(node: Server) -> None:
    """Arguments and results of 5 MiB at most."""
    text = "Node actions {} size is too large. The maximum size is 5 MiB. Reduce the size of the {} or consider using Convex runtime "
    assert failure(node, "takes", text="x" * 5_300_000).startswith(text.format("arguments", "arguments"))
    assert failure(node, "large", size=5_300_000).startswith(text.format("return value", "return value"))
    assert len(act(node, "large", size=5_000_000)) == 5_000_000


def test_missing_functions(node: Server) -> None:
    """An export that is no action is not found, like in any other module."""
    for name in ("notAnAction", "inner", "nothing"):
        assert failure(node, name).startswith(f"Could not find public function for 'node:{name}'.")


def test_lost_child(node: Server) -> None:
    """An action whose process is killed fails once, is not tried again, and the next one runs."""
    act(node, "counts")
    answers: list[str] = []
    caller = threading.Thread(target=lambda: answers.append(failure(node, "waits", ms=20_000)))
    caller.start()
    time.sleep(0.5)
    program = act(node, "starts")
    assert psutil.pid_exists(program)
    for child in children(node):
        child.kill()
    caller.join(20)
    # What it has started goes with it.
    eventually(lambda: not psutil.pid_exists(program) or psutil.Process(program).status() == psutil.STATUS_ZOMBIE, True)
    assert answers == ["Your request couldn't be completed. Try again later."]
    assert act(node, "hash", text="a") == hashlib.sha256(b"a").hexdigest()


def test_push_errors(node: Server, tmp_path: Path) -> None:
    """What the CLI prints of a query in Node, of a module that throws, and of a package that does not exist; the deployment stays as it was."""
    app = make_app(tmp_path, "node_actions")
    convex_folder = app / "convex"
    (app / "convex.json").unlink()
    (convex_folder / "node.ts").unlink()
    (convex_folder / "notes.ts").unlink()
    bad = convex_folder / "bad.ts"
    bad.write_text(
        '"use node";\nimport { query } from "./_generated/server";\nexport const f = query({ handler: async () => 1 });\n'
    )
    output = push(app, node, check=False)
    assert (
        "`f` defined in `bad.js` is a Query function. Only actions can be defined in Node.js. "
        "See https://docs.convex.dev/functions/actions for more details." in output
    )
    bad.write_text(
        '"use node";\nconsole.log("before");\nfunction broken() {\n  throw new RangeError("at import");\n}\nbroken();\nexport const x = 1;\n'
    )
    output = push(app, node, check=False)
    assert "Failed to analyze bad.js: Uncaught RangeError: at import\n    at broken (../convex/bad.ts:" in output
    assert "[LOG] 'before'" in output
    assert str(node.folder) not in output
    assert act(node, "hash", text="a") == hashlib.sha256(b"a").hexdigest()


def test_failed_installation(node: Server) -> None:
    """A package that npm cannot install fails the push with 400 and npm's words."""
    module = {"path": "foo.js", "source": "export {};", "sourceMap": None, "environment": "node"}
    app = {
        "definition": None,
        "dependencies": [],
        "schema": None,
        "changedModules": [module],
        "udfServerVersion": "1.48.0",
    }
    wanted = [{"name": "convex-backend-test-package-that-is-not-there", "version": "0.0.0"}]
    body = {
        "adminKey": ADMIN_KEY,
        "dryRun": True,
        "functions": "convex/",
        "appDefinition": app,
        "componentDefinitions": [],
        "nodeDependencies": wanted,
    }
    status, _, answer = node.request("POST", "/api/deploy2/start_push", body)
    error = json.loads(answer)
    assert (status, error["code"]) == (400, "NodeDependenciesFailed")
    assert "npm error" in error["message"]
    installed = node.folder / "convex_local_storage" / "node" / "dependencies"
    assert not list(installed.glob(".new-*"))
    assert len([one for one in installed.iterdir() if not one.name.startswith(".")]) == 1


def test_restart_offline(node: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart the packages on disk are made again from the database, and the installation of the dependencies is used without a network."""
    node.stop()
    with monkeypatch.context() as offline:
        offline.setenv("npm_config_registry", "http://127.0.0.1:9")
        node.start()
    assert act(node, "parses", text="1d") == 86_400_000
    push(node.app, node)
    assert act(node, "parses", text="1h") == 3_600_000


def test_time_limit(node: Server) -> None:
    """An action that waits for ever or never lets go ends at the time limit with its text; the next one has another process."""
    node.stop()
    node.options = ("--action-timeout", "2")
    node.start()
    expected = "Action `{}` execution timed out (maximum duration 2s)"
    answers: list[str] = []
    spinning = threading.Thread(target=lambda: answers.append(failure(node, "spins")))
    spinning.start()
    assert failure(node, "waits", ms=60_000).rstrip() == expected.format("waits")
    spinning.join(20)
    assert [one.rstrip() for one in answers] == [expected.format("spins")]
    assert act(node, "hash", text="a") == hashlib.sha256(b"a").hexdigest()
    # Neither process is left: one ends by itself, the one that never lets go is killed.
    eventually(lambda: len(children(node)), 1)


@pytest.mark.slow
def test_memory_limit(node: Server) -> None:
    """512 MB of heap; an action that wants more ends with the text, and the next one runs."""
    node.stop()
    node.options = ()
    node.start()
    assert failure(node, "grows").rstrip() == "JavaScript execution ran out of memory (maximum memory usage: 512 MB)"
    assert act(node, "hash", text="a") == hashlib.sha256(b"a").hexdigest()


@pytest.mark.slow
def test_deploys_under_load(node: Server) -> None:
    """200 calls at a time over ten deploys, each with other code, all succeed; what the deploys have left on disk goes."""
    assert node.process is not None
    if node.process.poll() is not None:
        node.start()
    source = node.app / "convex" / "node.ts"
    original = source.read_text()
    failed: list[Any] = []
    seen: list[str] = []
    stop = threading.Event()

    def caller() -> None:
        while not stop.is_set():
            answer = node.call("action", "node:version", {})
            if answer["status"] == "success":
                seen.append(answer["value"])
            else:
                failed.append(answer)

    def deploy(number: int) -> None:
        extra = (
            f"\nexport const version = action({{ args: {{}}, handler: async () => {{ "
            f'await new Promise((resolve) => setTimeout(resolve, 300)); return "{number}" + ms("1d"); }} }});\n'
        )
        source.write_text(original + extra)
        push(node.app, node)

    deploy(0)
    callers = [threading.Thread(target=caller) for _ in range(200)]
    for one in callers:
        one.start()
    try:
        for number in range(1, 11):
            deploy(number)
    finally:
        stop.set()
        for one in callers:
            one.join(60)
    assert not failed, failed[:3]
    assert {f"{number}86400000" for number in range(11)} <= set(seen)
    packages = node.folder / "convex_local_storage" / "node" / "packages"
    eventually(lambda: len([one for one in packages.iterdir() if not one.name.startswith(".")]) <= 4, True)
    eventually(lambda: len(children(node)) <= 4, True)
    print(f"{len(seen)} calls over 10 deploys, none failed")
