"""The official CLI, unmodified and offline, against a real server (``push.md``, ``http_api.md`` section 15)."""

from __future__ import annotations

import json
import signal
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import npm_cache
from tests.e2e.harness import ROOT, Server, convex, make_app, running


def test_dev_once_pushes_a_fresh_app(chat: Server, chat_app: Path) -> None:
    """``convex dev --once`` ends well, generates code and writes the deployment's URLs (checklist 1)."""
    assert (chat_app / "convex" / "_generated" / "api.d.ts").exists()
    written = (chat_app / ".env.local").read_text()
    assert f"CONVEX_URL={chat.url}" in written
    assert "CONVEX_SITE_URL=" in written


def test_deploy_again_uploads_nothing(chat: Server, chat_app: Path) -> None:
    """A second, identical deploy finds every module unchanged and succeeds (checklist 2)."""
    output = convex(chat_app, chat, "deploy", "-y")
    assert "Deployed Convex functions" in output
    key = {"Authorization": "Convex " + "convex-self-hosted|0011223344556677"}
    status, _, body = chat.request(
        "POST", "/api/get_config_hashes", {"version": "1.48.0", "adminKey": key["Authorization"][7:]}, key
    )
    assert status == 200
    paths = {module["path"] for module in json.loads(body)["moduleHashes"]}
    assert {"messages.js", "channels.js", "users.js"} <= paths
    assert any(path.startswith("_deps/") for path in paths)


def test_run_calls_public_and_internal_functions(chat: Server, chat_app: Path) -> None:
    """``convex run`` prints values of public and internal functions (checklist 16)."""
    channel = json.loads(convex(chat_app, chat, "run", "channels:create", '{"name": "cli"}').splitlines()[-1])
    assert convex(chat_app, chat, "run", "channels:clear", json.dumps({"channel": channel})).strip().endswith("0")


def test_run_of_an_unknown_function_lists_the_known_ones(chat: Server, chat_app: Path) -> None:
    """``convex run nope:fn`` fails with the text and the list of functions (checklist 17)."""
    output = convex(chat_app, chat, "run", "nope:fn", check=False)
    assert "Could not find function for 'nope:fn'" in output
    assert "messages:list" in output
    assert output.endswith("[exit 1]")


def test_a_wrong_admin_key_is_refused_at_once(chat: Server, chat_app: Path) -> None:
    """A wrong key fails with 401 on the first call (checklist 23)."""
    output = convex(
        chat_app, chat, "run", "users:count", "--url", chat.url, "--admin-key", "convex-self-hosted|00ff", check=False
    )
    assert "BadAdminKey" in output or "401" in output
    assert output.endswith("[exit 1]")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Server]]:
    """An app of this file's own, deployed to a server of its own; each test leaves the app as it was."""
    app = make_app(tmp_path_factory.mktemp("own"))
    with running(tmp_path_factory.mktemp("own_server")) as server:
        _deploy(app, server)
        yield app, server


def _deploy(app: Path, server: Server, *options: str, check: bool = True) -> str:
    """``convex deploy`` without the type check, which costs seconds and says nothing about the server."""
    return convex(app, server, "deploy", "-y", "--typecheck", "disable", *options, check=check)


def test_a_failing_push_leaves_the_old_code_serving(own: tuple[Path, Server]) -> None:
    """A module that throws at import and a contradicting schema are refused with their place; the old deployment serves on
    (checklist 8, 10)."""
    app, server = own
    channel = server.value("mutation", "channels:create", {"name": "x"})
    broken = app / "convex" / "broken.ts"
    broken.write_text("export const x = 1;\nthrow new Error('bad luck');\n")
    output = _deploy(app, server, check=False)
    assert "Failed to analyze broken.js: Uncaught Error: bad luck" in output
    assert output.endswith("[exit 1]")
    broken.unlink()
    schema = app / "convex" / "schema.ts"
    good = schema.read_text()
    schema.write_text(good.replace("topic: v.union(v.string(), v.null()),", "topic: v.string(),"))
    output = _deploy(app, server, check=False)
    schema.write_text(good)
    assert "Schema validation failed" in output
    assert f'Document with ID "{channel}" in table "channels" does not match the schema' in output
    assert output.endswith("[exit 1]")
    assert server.value("query", "channels:list")[0]["_id"] == channel
    assert server.value("mutation", "channels:create", {"name": "y"}) != channel


def test_dry_run_shows_the_index_diff_and_changes_nothing(own: tuple[Path, Server]) -> None:
    """``deploy --dry-run`` prints added and removed indexes and leaves the deployment as it was (checklist 13)."""
    app, server = own
    schema = app / "convex" / "schema.ts"
    good = schema.read_text()
    schema.write_text(good.replace('.index("by_author", ["author"])', '.index("by_body", ["body"])'))
    first = _deploy(app, server, "--dry-run")
    second = _deploy(app, server, "--dry-run")
    schema.write_text(good)
    for output in (first, second):
        assert "by_body" in output
        assert "by_author" in output


def test_a_push_survives_a_restart(own: tuple[Path, Server]) -> None:
    """After a stop and a start the pushed functions and the data are there, without a new push."""
    _, server = own
    channel = server.value("mutation", "channels:create", {"name": "kept"})
    assert server.stop() == -signal.SIGTERM
    server.start()
    assert channel in [c["_id"] for c in server.value("query", "channels:list")]
    assert server.value("mutation", "channels:create", {"name": "kept"}) == channel


def test_the_quick_start_of_the_readme(tmp_path: Path) -> None:
    """The module that the README shows is pushed from an otherwise empty folder, and the commands that it shows print the message."""
    module = (ROOT / "README.rst").read_text("utf-8").split(".. code:: typescript\n\n")[1].split("\n\n4. ")[0]
    app = tmp_path / "my-app"
    (app / "convex").mkdir(parents=True)
    (app / "package.json").write_text('{"name": "my-app", "dependencies": {"convex": "*"}}')
    (app / "node_modules").symlink_to(npm_cache.installed() / "node_modules")
    (app / "convex" / "messages.ts").write_text(textwrap.dedent(module))
    (tmp_path / "server").mkdir()
    with running(tmp_path / "server") as server:
        assert "Convex functions ready!" in convex(app, server, "dev", "--once")
        convex(app, server, "run", "messages:send", '{"body": "hello"}')
        assert '"body": "hello"' in convex(app, server, "run", "messages:list")
