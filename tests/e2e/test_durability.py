"""``kill -9`` and restarts under load: no acknowledged commit is lost, none is half there, none is applied twice."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.error
from pathlib import Path

import pytest

from tests import npm_cache
from tests.e2e.harness import Server, convex, make_app


class Load:
    """Threads that send numbered messages over HTTP and note each acknowledgement.

    Each mutation writes a message and is acknowledged with its id; a like touches the same document twice in a row.
    """

    def __init__(self, server: Server, channel: str, author: str) -> None:
        self._server = server
        self._args = {"channel": channel, "author": author}
        self._stopping = False
        self._lock = threading.Lock()
        self.acknowledged: dict[str, str] = {}
        self.likes: dict[str, int] = {}
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(8)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping = True
        for thread in self._threads:
            thread.join(30)

    def _send(self, thread: int) -> None:
        number = 0
        while not self._stopping:
            number += 1
            body = f"{thread}.{number}"
            try:
                sent = self._server.call("mutation", "messages:send", {**self._args, "body": body})
                if sent["status"] != "success":
                    continue
                with self._lock:
                    self.acknowledged[sent["value"]] = body
                liked = self._server.call("mutation", "messages:like", {"id": sent["value"]})
                if liked["status"] == "success":
                    with self._lock:
                        self.likes[sent["value"]] = 1
            except (OSError, urllib.error.URLError, AssertionError, json.JSONDecodeError, ValueError):
                time.sleep(0.05)


def _kill_loop(tmp_path: Path, kills: int) -> None:
    app = make_app(tmp_path)
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server")
    server.start()
    try:
        convex(app, server, "deploy", "-y", "--typecheck", "disable")
        channel = server.value("mutation", "channels:create", {"name": "c"})
        author = server.value("mutation", "users:join", {"name": "a"})
        load = Load(server, channel, author)
        load.start()
        for _ in range(kills):
            time.sleep(0.7)
            server.kill()
            server.start()
        time.sleep(0.5)
        load.stop()
        server.kill()
        server.start()
        assert len(load.acknowledged) > kills
        stored: dict[str, dict[str, object]] = {}
        cursor = None
        while True:
            opts = {"cursor": cursor, "numItems": 1000}
            page = server.value("query", "messages:page", {"channel": channel, "paginationOpts": opts})
            stored.update((m["_id"], m) for m in page["page"])
            if page["isDone"]:
                break
            cursor = page["continueCursor"]
        for id, body in load.acknowledged.items():
            assert id in stored, f"acknowledged message {body} is lost"
            assert stored[id]["body"] == body
        for id, likes in load.likes.items():
            assert stored[id]["likes"] == likes
        # An index that lost or kept an entry by itself would show here: both ways to the messages agree.
        popular = server.value("query", "messages:popular", {"channel": channel, "atLeast": 1})
        assert {m["_id"] for m in popular} == {id for id, m in stored.items() if m["likes"] == 1}
        bodies = [m["body"] for m in stored.values()]
        assert len(bodies) == len(set(bodies)), "a mutation was applied twice"
    finally:
        if server.process is not None:
            server.process.kill()


def test_three_kills_lose_nothing(tmp_path: Path) -> None:
    """Three kills under load: every acknowledgement holds."""
    _kill_loop(tmp_path, 3)


@pytest.mark.slow
def test_many_kills_lose_nothing(tmp_path: Path) -> None:
    """Forty kills under load: every acknowledgement holds."""
    _kill_loop(tmp_path, 40)


def test_a_client_rides_over_restarts_exactly_once(tmp_path: Path) -> None:
    """A ConvexClient whose server is killed again and again sees each of its mutations applied exactly once, in order."""
    app = make_app(tmp_path)
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server")
    server.start()
    try:
        convex(app, server, "deploy", "-y", "--typecheck", "disable")
        script = app / "reconnect.mjs"
        script.write_bytes((Path(__file__).parent / "clients" / "reconnect.mjs").read_bytes())
        client = subprocess.Popen(
            [npm_cache.NODE, script, server.url, "60"],
            cwd=app,
            env=npm_cache.node_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert client.stdout is not None
        kills = 0
        last = ""
        for line in client.stdout:
            if not line.startswith("{"):
                continue
            last = line
            if '"sent"' in line and kills < 3:
                kills += 1
                server.kill()
                server.start()
        assert client.wait(60) == 0, client.stderr.read() if client.stderr else ""
        assert kills == 3
        assert json.loads(last) == {"acknowledged": 60, "shown": 60, "equal": True}
    finally:
        if server.process is not None:
            server.process.kill()
