"""``--demo``: one command, two tabs that stay in step, no Node or npm on the user's side; and a deployment with an app is left alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import chromium, npm_cache
from tests.e2e.harness import ADMIN_KEY, Server, node, running


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that was started with ``--demo`` in an empty folder."""
    with running(tmp_path_factory.mktemp("demo"), "--demo") as server:
        yield server


class Tab:
    """A tab of the demo's page (``clients/demo_tab.mjs``)."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def do(self, *words: str) -> dict[str, Any]:
        """Do something. :returns: what the page shows right afterwards."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the tab ended"
        shown: dict[str, Any] = json.loads(line)
        return shown

    def until(self, wanted: Callable[[dict[str, Any]], bool], seconds: float = 20) -> dict[str, Any]:
        """Look until the page shows what is wanted. :returns: what it shows."""
        deadline = time.monotonic() + seconds
        while not wanted(shown := self.do("state")):
            assert time.monotonic() < deadline, f"the page still shows {shown}"
            time.sleep(0.02)
        return shown


@contextmanager
def open_tab(server: Server, folder: Path) -> Iterator[Tab]:
    """The page of *server* in a DOM of its own process, live. *folder* has ``node_modules``."""
    script = folder / "demo_tab.mjs"
    shutil.copy(Path(__file__).parent / "clients" / script.name, script)
    process = subprocess.Popen(
        [npm_cache.NODE, script, server.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=npm_cache.node_environment(),
    )
    try:
        tab = Tab(process)
        tab.until(lambda shown: shown["status"] == "Live")
        yield tab
    finally:
        process.kill()
        process.wait(10)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def debugging_port(file: Path, seconds: float = 30) -> str:
    """The port on which a browser that has just been started can be driven; it writes it into *file*."""
    deadline = time.monotonic() + seconds
    while not file.exists() or not (lines := file.read_text().splitlines()):
        assert time.monotonic() < deadline, "the browser did not start"
        time.sleep(0.05)
    return lines[0]


def bodies(shown: dict[str, Any]) -> list[str]:
    return [message["body"] for message in shown["messages"] if not message["pending"]]


def test_two_tabs_stay_in_step(demo: Server, chat_app: Path) -> None:
    """What one tab sends, it shows at once as pending and both show soon; likes from both are all counted."""
    with ExitStack() as stack:
        one, two = (stack.enter_context(open_tab(demo, chat_app)) for _ in range(2))
        assert two.until(lambda shown: shown["empty"])["messages"] == []
        sent = one.do("say", "Ada", "hello <b>there</b>")
        assert sent["messages"] == [{"author": "Ada", "body": "hello <b>there</b>", "likes": "♥ 0", "pending": True}]
        for tab in (one, two):
            shown = tab.until(lambda shown: bodies(shown) == ["hello <b>there</b>"])
            assert not shown["empty"]
        two.do("say", "Alan", "hi")
        one.until(lambda shown: bodies(shown) == ["hello <b>there</b>", "hi"])
        one.do("like", "0")
        two.do("like", "0")
        for tab in (one, two):
            tab.until(lambda shown: [message["likes"] for message in shown["messages"]] == ["♥ 2", "♥ 0"])
        assert two.until(lambda shown: shown["status"] == "Live")["problem"] is None


def test_what_a_message_must_not_be_is_said(demo: Server, chat_app: Path) -> None:
    """The functions check what they get; the page shows their words and drops the pending message."""
    answer = demo.call("mutation", "messages:send", {"author": "a", "body": " "})
    assert answer["errorData"] == "A message needs a name and a text."
    with open_tab(demo, chat_app) as tab:
        before = bodies(tab.until(lambda shown: not any(message["pending"] for message in shown["messages"])))
        tab.do("say", "Ada", "x" * 501)
        shown = tab.until(lambda shown: shown["problem"] is not None)
        assert shown["problem"] == "A message may have up to 500 characters."
        assert bodies(shown) == before


@pytest.mark.skipif(
    not chromium.can_be_had(), reason="no Chromium on PATH, and none in an npm package for this machine"
)
def test_in_a_browser(demo: Server, chat_app: Path, tmp_path: Path) -> None:
    """A real browser shows the page, live, under its policy, and has nothing to complain of."""
    with chromium.showing("about:blank", tmp_path, "--remote-debugging-port=0"):
        port = debugging_port(tmp_path / "profile" / "DevToolsActivePort")
        before, after, last = node(chat_app, "demo_browser.mjs", demo, port)
    assert after["shown"] == [*before["shown"], "from the browser"]
    assert last == {"complaints": []}
    assert demo.value("query", "messages:list")[-1]["body"] == "from the browser"


def test_the_banner_tells_where_it_is(demo: Server) -> None:
    """The line of the demo stands among the addresses."""
    assert f"Demo          {demo.url}/demo\n" in demo.text()


def test_messages_and_page_are_there_after_a_restart(tmp_path: Path) -> None:
    """A second start with ``--demo`` deploys nothing and serves the page."""
    for _ in range(2):
        with running(tmp_path, "--demo") as server:
            assert server.request("GET", "/demo")[0] == 200
            server.value("mutation", "messages:send", {"author": "Ada", "body": "hello"})
            count = len(server.value("query", "messages:list"))
            _, _, answer = server.request("GET", "/api/push_history", None, {"Authorization": f"Convex {ADMIN_KEY}"})
            server.stop()
    assert count == 2
    assert [push["client"] for push in json.loads(answer)["pushes"]] == ["demo"]


def test_a_deployment_with_an_app_is_left_alone(tmp_path: Path) -> None:
    """Where anything is deployed ``--demo`` changes nothing, says so, and serves no page; the app serves."""
    with running(tmp_path) as server:
        source = 'import { query } from "./_generated/server"; export const f = query({ handler: () => 1 });'
        body = {"adminKey": ADMIN_KEY, "functions": {"mine.js": source}}
        assert server.request("POST", "/api/deploy", body)[0] == 200
        server.stop()
    with running(tmp_path, "--demo") as server:
        assert "Demo          not deployed: something is deployed already, and nothing was changed" in server.text()
        assert server.request("GET", "/demo")[0] == 404
        assert server.value("query", "mine:f") == 1
        assert "Could not find public function" in server.call("query", "messages:list")["errorMessage"]
