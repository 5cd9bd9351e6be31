"""A short window on a real server: what is inside can be read, what left it is refused and gone from the file."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Server, convex, make_app, running


def metric(server: Server, name: str) -> float:
    """A sample of ``/metrics`` without labels."""
    _, _, body = server.request("GET", "/metrics")
    found = re.search(rf"^convex_database_{name} (\S+)$", body.decode(), re.MULTILINE)
    assert found, name
    return float(found[1])


def at(server: Server, ts: str, id: str) -> tuple[int, Any]:
    """A message at a timestamp. :returns: status and answer."""
    body = {"path": "messages:get", "format": "json", "args": {"id": id}, "ts": ts}
    status, _, answer = server.request("POST", "/api/query_at_ts", body)
    return status, json.loads(answer)


@pytest.mark.slow
def test_a_window_of_a_minute(tmp_path: Path) -> None:
    """With ``--retention 60s`` a state is readable for a minute; afterwards it is refused by code, and its rows are pruned without a restart."""
    app = make_app(tmp_path)
    (tmp_path / "server").mkdir()
    with running(tmp_path / "server", "--retention", "60s") as server:
        convex(app, server, "deploy", "-y", "--typecheck", "disable")
        channel = server.value("mutation", "channels:create", {"name": "c"})
        author = server.value("mutation", "users:join", {"name": "a"})
        id = server.value("mutation", "messages:send", {"channel": channel, "author": author, "body": "m"})
        ts = json.loads(server.request("POST", "/api/query_ts")[2])["ts"]
        for _ in range(20):
            server.value("mutation", "messages:like", {"id": id})
        began = time.monotonic()
        while time.monotonic() < began + 50:
            status, answer = at(server, ts, id)
            assert (status, answer["value"]["likes"]) == (200, 0)
            time.sleep(5)
        deadline = began + 150
        while metric(server, "history_rows") > 0 or metric(server, "retention_backlog_rows") > 0:
            assert time.monotonic() < deadline, "history stays"
            time.sleep(2)
        status, answer = at(server, ts, id)
        assert (status, answer["code"]) == (503, "OutOfRetention")
        assert server.value("query", "messages:get", {"id": id})["likes"] == 20
        assert server.stop() == -15
    file = sqlite3.connect(tmp_path / "server" / "convex_local_backend.sqlite3")
    assert file.execute("SELECT count(*) FROM document_history").fetchone() == (0,)
    file.close()
