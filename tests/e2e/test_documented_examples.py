"""The examples of the README and of docs/components.md, taken from the text and tried as a reader would."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import npm_cache
from tests.e2e.harness import ADMIN_KEY, ROOT, Server, convex, free_port, running

README = (ROOT / "README.rst").read_text("utf-8")
COMPONENTS = (ROOT / "docs" / "components.md").read_text("utf-8")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all, with a port for HTTP actions."""
    site = free_port()
    with running(tmp_path_factory.mktemp("server"), "--site-port", str(site)) as server:
        server.site_port = site
        yield server


def empty_app(folder: Path) -> Path:
    """What ``npm init -y && npm install convex && mkdir convex`` leaves."""
    (folder / "convex").mkdir()
    (folder / "package.json").write_text('{"name": "my-app", "dependencies": {"convex": "*"}}')
    (folder / "node_modules").symlink_to(npm_cache.installed(npm_cache.APPS) / "node_modules")
    return folder


def test_deploy_with_curl(server: Server) -> None:
    """The body of the README's deploy is taken, and its query answers as it says."""
    found = re.search(r"<<'JSON'\n(.*?)\n +JSON\n", README, re.DOTALL)
    assert found is not None
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    status, _, answer = server.request("POST", "/api/deploy", textwrap.dedent(found[1]).encode(), headers)
    assert (status, json.loads(answer)["success"]) == (200, True)
    call = re.search(r"curl http://127\.0\.0\.1:3210/api/query -d '(.*)'", README)
    assert call is not None
    _, _, answer = server.request("POST", "/api/query", call[1].encode())
    assert json.loads(answer) == {"status": "success", "value": "hello"}


def test_from_an_empty_folder_to_a_live_app(server: Server, tmp_path: Path) -> None:
    """The README's module is pushed and called by the commands that stand there, and its page names what the npm package has."""
    app = empty_app(tmp_path)
    module = re.search(r"code:: typescript\n\n(.*?)\n4\. ", README, re.DOTALL)
    assert module is not None
    (app / "convex" / "messages.ts").write_text(textwrap.dedent(module[1]))
    commands = re.search(r"^4\. .*?::\n\n(.*?)\n\n", README, re.DOTALL | re.MULTILINE)
    assert commands is not None
    push, send, listing = (line.strip().removeprefix("npx convex ") for line in commands[1].splitlines())
    assert (push, listing) == ("dev --once", "run messages:list")
    convex(app, server, *push.split())
    convex(app, server, "run", *re.fullmatch(r"run (\S+) '(.*)'", send).groups())  # type: ignore[union-attr]
    assert '"body": "hello"' in convex(app, server, *listing.split())
    script = re.search(r'<script src="(.*?)">', README)
    assert script is not None
    bundle = (app / script[1]).read_text("utf-8")
    assert all(name in bundle for name in ("ConvexClient", "anyApi", "onUpdate"))


def test_components(server: Server, tmp_path: Path) -> None:
    """The example of docs/components.md is pushed, and each command below it works."""
    app = empty_app(tmp_path)
    files = re.findall(r"`(convex/[\w./]+)`:\n\n```typescript\n(.*?)```", COMPONENTS, re.DOTALL)
    assert len(files) == 6
    for name, source in files:
        (app / name).parent.mkdir(exist_ok=True)
        (app / name).write_text(source)
    convex(app, server, "env", "set", "GREETING", "hello")
    convex(app, server, "dev", "--once")
    assert convex(app, server, "run", "main:add", "{}").strip() == "1"
    convex(app, server, "run", "--component", "second", "counts:add", '{"name": "a", "by": 10}')
    assert re.search(r'"a" +\| 10', convex(app, server, "data", "--component", "second", "counts"))
    status, _, answer = server.request("GET", "/http/counter/greeting")
    assert (status, answer) == (200, b"hello")
