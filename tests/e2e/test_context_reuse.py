"""The setting ``--context-reuse realm`` on a server with an app pushed by the official CLI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.e2e.harness import Server, convex, running


def metric(server: Server, name: str, label: str) -> float:
    """A metric of one label value, of all pools together."""
    lines = server.request("GET", "/metrics")[2].decode().splitlines()
    return sum(float(one.rsplit(" ", 1)[1]) for one in lines if one.startswith(f"{name}{{") and f'"{label}"' in one)


def call_everything(server: Server) -> list[Any]:
    """Mutations, queries over what they wrote, and errors; each of them often."""
    channel = server.value("mutation", "channels:create", {"name": "general"})
    author = server.value("mutation", "users:join", {"name": "Ada"})
    ids = [
        server.value("mutation", "messages:send", {"channel": channel, "author": author, "body": f"number {i}"})
        for i in range(20)
    ]
    likes = [server.value("mutation", "messages:like", {"id": ids[0]}) for _ in range(5)]
    bodies = [
        [message["body"] for message in server.value("query", "messages:list", {"channel": channel, "limit": limit})]
        for limit in range(1, 21)
    ]
    empty = {"channel": channel, "author": author, "body": ""}
    errors = [server.call("mutation", "messages:send", empty)["errorData"] for _ in range(3)]
    return [likes, bodies, errors]


def test_an_app_runs_in_shared_contexts(chat_app: Path, tmp_path: Path) -> None:
    """The push finds the app's modules fit, and functions give what they should in contexts that served other runs."""
    with running(tmp_path, "--context-reuse", "realm", "--runners", "1") as server:
        convex(chat_app, server, "dev", "--once")
        listed = server.call("query", "_system/frontend/modules:list", admin=True)["value"]
        refusals = {path: module["contextReuseRefusal"] for path, module in listed}
        assert refusals["messages.js"] == refusals["channels.js"] == ""
        likes, bodies, errors = call_everything(server)
        assert likes == [1, 2, 3, 4, 5]
        assert bodies == [[f"number {i}" for i in range(20 - limit, 20)] for limit in range(1, 21)]
        assert errors == [{"code": "EMPTY"}] * 3
        assert metric(server, "convex_functions_realm_runs_total", "reused") >= 40
        assert metric(server, "convex_functions_realm_runs_total", "mismatch") == 0
        assert metric(server, "convex_functions_realm_discards_total", "changed") == 0
        assert metric(server, "convex_functions_realm_modules", "realm") >= 1
        assert metric(server, "convex_functions_realm_modules", "fresh_only") == 0
