"""Every command of the official CLI for developers, unmodified, each as a process of its own: the newest version, and two old ones.

On a network that knows no other host (``clients/offline.cjs``) and with ``CI=1``. Source: ``http_api.md`` section 15.
"""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests import npm_cache
from tests.e2e.harness import ADMIN_KEY, Server, cli_command, cli_environment, convex, make_app, running
from tests.e2e.watched import Watched, watched

ADMIN = {"Authorization": f"Convex {ADMIN_KEY}"}
NEWEST = "1.48.0"
OLD = Path(__file__).parents[1] / "cli_versions"
OFFLINE = Path(__file__).parent / "clients" / "offline.cjs"
#: The type check costs seconds and says nothing about the server.
UNTYPED = ("--typecheck", "disable")
READY = r"Convex functions ready!"


@attrs.frozen
class Tour:
    """One version of the CLI with an app and a server.

    :param asked: the file of the names of other hosts that a command looked up.
    """

    version: str
    app: Path
    server: Server
    asked: Path

    @property
    def environment(self) -> dict[str, str]:
        """What commands get besides the usual."""
        return {"NODE_OPTIONS": f"--require {shlex.quote(str(OFFLINE))}", "OFFLINE_LOG": str(self.asked)}

    def run(self, *arguments: str, fails: bool = False, stdin: str = "", **environment: str) -> str:
        """One command. :returns: what it printed. :raises AssertionError: it failed, or did not although *fails*."""
        variables = {**self.environment, **environment}
        output = convex(self.app, self.server, *arguments, check=not fails, stdin=stdin, environment=variables)
        if fails:
            assert output.endswith("[exit 1]"), output
        return output

    def each(self, *commands: Sequence[str], fails: bool = False, **environment: str) -> list[str]:
        """What commands print that may run side by side."""
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda command: self.run(*command, fails=fails, **environment), commands))

    def watch(self, *arguments: str, **environment: str) -> AbstractContextManager[Watched]:
        """A command that goes on."""
        variables = {**cli_environment(self.server), **self.environment, **environment}
        return watched(cli_command(self.app, *arguments), self.app, variables)

    def get(self, path: str) -> Any:
        """The JSON that a route gives an admin."""
        status, _, body = self.server.request("GET", path, headers=ADMIN)
        assert status == 200, body
        return json.loads(body)

    def variables(self) -> dict[str, str]:
        """The user's variables."""
        found: dict[str, str] = self.get("/api/list_environment_variables")["environmentVariables"]
        return found

    def pushes(self) -> list[Any]:
        """The history of pushes, newest first."""
        found: list[Any] = self.get("/api/push_history")["pushes"]
        return found


@pytest.fixture(
    scope="module",
    params=[NEWEST, *(pytest.param(version, marks=pytest.mark.slow) for version in ("1.35.0", "1.31.5"))],
)
def tour(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tour]:
    """The app, deployed by a first ``dev --once`` of the version."""
    version = request.param
    app = make_app(tmp_path_factory.mktemp("tour"), "tour")
    if version != NEWEST:
        (app / "node_modules").unlink()
        (app / "node_modules").symlink_to(npm_cache.installed(OLD / version) / "node_modules")
    assert json.loads((app / "node_modules" / "convex" / "package.json").read_text())["version"] == version
    asked = app / "asked.txt"
    with running(tmp_path_factory.mktemp("tour_server")) as server:
        tour = Tour(version, app, server, asked)
        output = tour.run("dev", "--once", "--run", "notes:list", *UNTYPED)
        assert re.search(READY, output)
        assert 'Finished running function "notes:list"' in output
        assert f"CONVEX_URL={server.url}" in (app / ".env.local").read_text()
        yield tour


def test_dev_goes_on(tour: Tour) -> None:
    """``dev`` shows logs as they come, and pushes again when a file changes, when the data that a schema contradicted changes, and when a
    variable that the auth config needs is set; Ctrl-C ends it (checklist 9, 10)."""
    notes, schema, auth = (tour.app / "convex" / name for name in ("notes.ts", "schema.ts", "auth.config.ts"))
    good_notes, good_schema = notes.read_text(), schema.read_text()
    tour.server.value("mutation", "notes:add", {"body": "before"})
    with tour.watch("dev", *UNTYPED) as dev:
        dev.expect(READY)
        tour.server.value("mutation", "notes:add", {"body": "live"})
        shown = dev.expect(r"\[CONVEX M\(notes:add\)\] \[LOG\] 'adding' 'live'\n")
        assert "'before'" not in shown

        notes.write_text(good_notes + "export const more = query({ args: {}, handler: async () => 'more' });\n")
        dev.expect(READY)
        assert tour.server.value("query", "notes:more") == "more"

        schema.write_text(good_schema.replace("size: v.int64()", "size: v.string()"))
        dev.expect(r"Schema validation failed")
        dev.expect(r'in table "notes" does not match the schema')
        tour.run("run", "notes:clear")
        dev.expect(READY)

        auth.write_text(
            'export default { providers: [{ domain: process.env.AUTH_DOMAIN!, applicationID: "tour" }] };\n'
        )
        schema.write_text(good_schema)
        dev.expect(r"Environment variable AUTH_DOMAIN is used in auth config file but its value was not set")
        tour.run("env", "set", "AUTH_DOMAIN", "https://auth.example")
        dev.expect(READY)

        auth.unlink()
        notes.write_text(good_notes)
        dev.expect(READY)
        dev.stop(signal.SIGINT)
    tour.run("env", "remove", "AUTH_DOMAIN")
    assert tour.server.call("query", "notes:more")["status"] == "error"


def test_run(tour: Tour) -> None:
    """``run`` calls public and internal functions and those of a component, with arguments and an identity; logs go to the terminal, a failure
    ends it with 1, and an unknown function with a list (checklist 16, 17)."""
    added = tour.run("run", "notes:add", "{body: 'by run'}")
    assert re.search(r"\[LOG\] 'adding' 'by run'\n", added)
    commands = (
        ("run", "notes:hidden"),
        ("run", "notes:hidden", "--identity", '{"name": "Ada"}'),
        ("run", "books:titles", "--component", "shelf"),
        ("run", "notes:list", "--push", *UNTYPED),
    )
    nobody, ada, titles, listed = tour.each(*commands)
    assert nobody.strip() == '"nobody"'
    assert ada.strip() == '"Ada"'
    assert '"by run"' in titles
    assert re.search(READY, listed)
    assert '"by run"' in listed
    failing = (
        ("run", "notes:add", '{"body": ""}'),
        ("run", "notes:nope"),
        ("run", "--component", "shelf", "notes:list"),
    )
    empty, unknown, elsewhere = tour.each(*failing, fails=True)
    assert "Uncaught Error: an empty note" in empty
    assert "Could not find function for 'notes:nope'" in unknown
    assert "notes:hidden" in unknown
    assert "Could not find function" in elsewhere


def test_inline_queries(tour: Tour) -> None:
    """``run --inline-query`` evaluates a query that may only read, in the app or a component; versions that do not have it say so."""
    query = ("run", "--inline-query", 'return (await ctx.db.query("books").collect()).length')
    if tour.version != NEWEST:
        assert "unknown option '--inline-query'" in tour.run(*query, fails=True)
        return
    tour.server.value("mutation", "notes:add", {"body": "counted"})
    assert int(tour.run(*query, "--component", "shelf")) >= 1
    written = tour.run("run", "--inline-query", 'await ctx.db.insert("notes", {})', fails=True)
    assert "Uncaught TypeError: ctx.db.insert is not a function" in written


def test_run_and_watch(tour: Tour) -> None:
    """``run --watch`` prints a query's value whenever it changes, and each once."""
    with tour.watch("run", "--watch", "notes:list") as run:
        run.expect(r"Watching query notes:list")
        run.expect(r"\]\n")
        tour.server.value("mutation", "notes:add", {"body": "watched"})
        assert run.expect(r"\"watched\"\s*\]").count('"watched"') == 1
        run.stop(signal.SIGINT)


def test_variables(tour: Tour) -> None:
    """``env`` sets one variable by ``NAME=value`` or from the standard input, and many from a file or the standard input; gets, lists and
    removes; functions see what was set at once, without a push (checklist 18)."""
    commands = [("env", "set", "MOOD=so glad"), ("env", "rm", "NOT_SET")]
    expected = {"MOOD": "so glad", "LINES": "first\nsecond=2"}
    listing = ("env", "list")
    tour.run("env", "set", "LINES", stdin=expected["LINES"])
    if tour.version != "1.31.5":
        many = tour.app / "many.env"
        many.write_text("A='x=y z'\nB=\"line 1\nline 2\"\n")
        commands.append(("env", "set", "--from-file", str(many)))
        tour.run("env", "set", stdin="C=from stdin\n")
        expected.update(A="x=y z", B="line 1\nline 2", C="from stdin")
    if tour.version == NEWEST:
        # Without this option, an agent that runs the tests would be shown names only.
        listing = (*listing, "--include-values")
    tour.each(*commands)
    assert tour.variables() == expected
    assert tour.server.value("query", "notes:mood") == "so glad"
    lines, listed = tour.each(("env", "get", "LINES"), listing)
    assert lines == "first\nsecond=2\n"
    assert re.search(r"^MOOD=.?so glad.?$", listed, re.M)
    tour.each(*(("env", "remove", name) for name in expected))
    assert tour.variables() == {}
    assert tour.server.value("query", "notes:mood") == "none"
    assert 'Environment variable "MOOD" not found' in tour.run("env", "get", "MOOD")


def test_data(tour: Tour) -> None:
    """``data`` lists tables, and documents in the order and number wanted in each format, integers and bytes as such, of components too
    (checklist 19)."""
    tour.run("run", "notes:clear")
    for body in ("a", "bb", "ccc"):
        tour.server.value("mutation", "notes:add", {"body": body})
    tables, pretty, lines, array, books, none = tour.each(
        ("data",),
        ("data", "notes"),
        ("data", "notes", "--limit", "2", "--order", "asc", "--format", "jsonLines"),
        ("data", "notes", "--limit", "1", "--format", "jsonArray"),
        ("data", "books", "--component", "shelf", "--limit", "1"),
        ("data", "nothing_here"),
    )
    assert tables.split() == ["notes"]
    assert re.findall(r'"(a|bb|ccc)" ', pretty) == ["ccc", "bb", "a"]
    assert re.findall(r'"body": "(\w+)", "raw": Bytes\("([^"]*)"\), "size": (\dn)', lines) == [
        ("a", "YQ==", "1n"),
        ("bb", "YmI=", "2n"),
    ]
    assert array.startswith("[\n")
    assert re.findall(r'"body": "(\w+)"', array) == ["ccc"]
    assert '"ccc"' in books
    assert "no documents" in none


def test_logs(tour: Tour) -> None:
    """``logs --history --success`` shows what was and then what comes, each once; ``--jsonl`` the entries as the server gives them
    (checklist 20)."""
    tour.server.value("mutation", "notes:add", {"body": "old"})
    tour.server.value("mutation", "notes:add", {"body": "past"})
    tour.server.call("mutation", "notes:add", {"body": ""})
    with tour.watch("logs", "--history", "2", "--success") as logs:
        shown = logs.expect(r"an empty note")
        assert "'adding' 'past'" in shown
        assert "'adding' 'old'" not in shown
        tour.server.value("mutation", "notes:add", {"body": "new"})
        shown = logs.expect(r"\[CONVEX M\(notes:add\)\] Function executed in [\d.]+ ms\n")
        assert shown.count("'adding' 'new'") == 1
        logs.stop(signal.SIGINT)
    with tour.watch("logs", "--history", "1", "--jsonl") as logs:
        found = json.loads(logs.expect(r"\{.*\}\n").splitlines()[-1])
        assert (found["kind"], found["identifier"], found["error"]) == ("Completion", "notes:add", None)
        logs.stop(signal.SIGINT)


def test_function_spec_and_codegen(tour: Tour) -> None:
    """``function-spec`` lists every function with validators and every route; ``codegen`` writes the same code again and deploys nothing
    (checklist 6, 22)."""
    generated = tour.app / "convex" / "_generated"
    before = {path.name: path.read_text() for path in generated.iterdir()}
    pushes = len(tour.pushes())
    (generated / "api.d.ts").unlink()
    shown, _ = tour.each(("function-spec",), ("codegen", *UNTYPED))
    assert {path.name: path.read_text() for path in generated.iterdir()} == before
    assert len(tour.pushes()) == pushes
    spec = json.loads(shown)
    assert spec["url"] == tour.server.url
    functions = {one["identifier"]: one for one in spec["functions"] if "identifier" in one}
    assert set(functions) == {f"notes.js:{name}" for name in ("add", "clear", "hidden", "list", "mood")}
    assert functions["notes.js:hidden"]["visibility"] == {"kind": "internal"}
    assert functions["notes.js:add"]["args"]["value"]["body"] == {"fieldType": {"type": "string"}, "optional": False}
    assert {"functionType": "HttpAction", "method": "GET", "path": "/hello"} in spec["functions"]


def test_deploy(tour: Tour) -> None:
    """``deploy`` pushes; its ``--cmd`` gets the deployment's URL; ``--dry-run`` shows what would change and changes nothing; a message is
    kept with the push where the version has one (checklist 2, 13)."""
    built = tour.app / "built.txt"
    script = f"require('fs').writeFileSync({json.dumps(str(built))}, process.env.APP_URL)"
    command = shlex.join([str(npm_cache.NODE), "-e", script])
    options = ["--message", "the tour"] if tour.version == NEWEST else []
    output = tour.run("deploy", "-y", *UNTYPED, "--cmd", command, "--cmd-url-env-var-name", "APP_URL", *options)
    assert "Deployed Convex functions" in output
    assert built.read_text() == tour.server.url
    newest = tour.pushes()[0]
    assert newest["version"] == tour.version
    assert newest["message"] == (options[1] if options else None)
    schema = tour.app / "convex" / "schema.ts"
    good = schema.read_text()
    schema.write_text(good.replace('.index("by_body", ["body"])', '.index("by_size", ["size"])'))
    output = tour.run("deploy", "-y", *UNTYPED, "--dry-run")
    schema.write_text(good)
    assert re.search(r"\[\+\] notes\.by_size", output)
    assert re.search(r"\[-\] notes\.by_body", output)
    assert tour.pushes()[0]["id"] == newest["id"]


def test_network_test(tour: Tour) -> None:
    """``network-test`` finds the HTTP API, the socket, and echoes of 4 MiB (checklist 26)."""
    output = tour.run("network-test")
    assert "OK: WebSocket connection established." in output
    assert "OK: echo 4" in output
    assert "Network test passed." in output


WRONG_KEY = "convex-self-hosted|00ff"
REFUSED = r"BadAdminKey|401 Unauthorized|admin key was invalid"


def refused(tour: Tour, *commands: tuple[str, ...]) -> None:
    """Each command ends at once with the reason."""
    started = time.monotonic()
    outputs = tour.each(*commands, fails=True, CONVEX_SELF_HOSTED_ADMIN_KEY=WRONG_KEY)
    assert time.monotonic() - started < 4 * len(commands)
    for command, output in zip(commands, outputs, strict=True):
        assert re.search(REFUSED, output), (command, output)


def test_a_wrong_key_ends_a_command(tour: Tour) -> None:
    """With a key of another deployment a command fails within seconds and says why; one that watches over the socket says so and shows
    nothing that is not public (checklist 23)."""
    refused(tour, ("deploy", "-y", *UNTYPED), ("run", "notes:list"), ("data",))
    with tour.watch("run", "--watch", "notes:hidden", CONVEX_SELF_HOSTED_ADMIN_KEY=WRONG_KEY) as run:
        shown = run.expect(REFUSED)
        assert "nobody" not in shown


@pytest.mark.slow
def test_a_wrong_key_ends_every_other_command(tour: Tour) -> None:
    """As above, for the rest of the commands."""
    if tour.version != "1.31.5":
        # That version ends with 0 after a push that failed for good.
        refused(tour, ("dev", "--once", *UNTYPED))
    refused(
        tour,
        ("codegen", *UNTYPED),
        ("env", "list"),
        ("env", "set", "A", "1"),
        ("function-spec",),
        ("export", "--path", "never.zip"),
    )


def test_what_the_server_does_not_offer_ends_at_once(tour: Tour) -> None:
    """Commands that need what is not there are told so by the server, by name and without a retry."""
    rows = tour.app / "rows.jsonl"
    rows.write_text('{"title": "x"}\n')
    started = time.monotonic()
    exported, imported = tour.each(
        ("export", "--path", str(tour.app / "all.zip")), ("import", "--table", "books", str(rows), "-y"), fails=True
    )
    assert time.monotonic() - started < 15
    assert "400 Bad Request: NotAvailable: Snapshot export is not available" in exported
    assert "400 Bad Request: NotAvailable: Snapshot import is not available" in imported


def test_commands_for_the_cloud_say_so(tour: Tour) -> None:
    """Commands that only the cloud has end at once with a text of the CLI's own."""
    assert "not supported for self-hosted deployments" in tour.run("dashboard", "--no-open")
    if tour.version == NEWEST:
        assert "only available for cloud deployments" in tour.run("insights", fails=True)


def test_nobody_else_was_asked(tour: Tour) -> None:
    """No command of this file has tried to reach another host; one that does would have been noted."""
    assert not tour.asked.exists() or tour.asked.read_text().split() == []
    witness = tour.app / "witness.txt"
    environment = {**npm_cache.node_environment(), **tour.environment, "OFFLINE_LOG": str(witness)}
    script = "fetch('https://elsewhere.example').catch((error) => console.log(error.cause.code))"
    shown = subprocess.run([npm_cache.NODE, "-e", script], env=environment, capture_output=True, text=True, timeout=20)
    assert shown.stdout.strip() == "ENOTFOUND"
    assert witness.read_text() == "elsewhere.example\n"
