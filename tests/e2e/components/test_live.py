"""``@convex-dev/presence`` and ``@convex-dev/persistent-text-streaming``, with their React hooks and with plain requests."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.components.conftest import deployed, until
from tests.e2e.harness import Server, node

WHOLE = "Once upon a time. There was a database. The end"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The app ``live``, deployed."""
    with deployed(tmp_path_factory, "live", typed=False) as server:
        yield server


def beat(server: Server, room: str, user: str, interval: float) -> Any:
    """One heartbeat of *user*, whose session ends two and a half intervals (ms) later. :returns: the tokens."""
    args = {"roomId": room, "userId": user, "sessionId": f"{room} {user}", "interval": interval}
    return server.value("mutation", "presence:heartbeat", args)


def write(server: Server, stream: str, fail: bool = False) -> tuple[int, list[bytes]]:
    """Let the HTTP action write the text. :returns: the status and the pieces as they came."""
    body = json.dumps({"streamId": stream, "fail": fail}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{server.site_port}/write", data=body)
    pieces = []
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            while piece := answer.read1(65536):
                pieces.append(piece)
            return answer.status, pieces
    except urllib.error.HTTPError as error:
        with error:
            return error.code, []


def test_react_hooks(live: Server) -> None:
    """``usePresence`` shows who comes and goes; ``useStream`` shows a text to its author piece by piece and to readers from the database."""
    together, alone, seen = node(live.app, "npm_live.mjs", live, f"http://127.0.0.1:{live.site_port}")
    assert (together, alone) == ("ann:on bob:on", "ann:on bob:off")
    assert seen["driver"] == ["", WHOLE[:17], WHOLE[:27], WHOLE[:39], WHOLE]
    assert seen["reader"][-1] == WHOLE
    assert set(seen["reader"]) <= {"", WHOLE[:17], WHOLE[:39], WHOLE}


def test_presence_ends_by_itself(live: Server) -> None:
    """Without heartbeats a session ends at its deadline; others go on; data, rooms of a user and removal of a room work."""
    tokens = beat(live, "hall", "ann", 200.0)
    beat(live, "hall", "bob", 60_000.0)
    assert live.value("query", "presence:people", {"roomId": "hall"}) == ["ann", "bob"]
    assert live.value("query", "presence:rooms", {"userId": "ann"}) == ["hall"]
    live.value("mutation", "presence:say", {"roomId": "hall", "userId": "bob", "data": {"typing": True}})
    until(lambda: live.value("query", "presence:people", {"roomId": "hall"}), lambda found: found == ["bob"])
    listed = live.value("query", "presence:list", {"roomToken": tokens["roomToken"]})
    by_user = {one["userId"]: one for one in listed}
    assert by_user["bob"]["data"] == {"typing": True}
    assert by_user["ann"]["online"] is False
    assert by_user["ann"]["lastDisconnected"] > 0
    live.value("mutation", "presence:removeRoom", {"roomId": "hall"})
    until(lambda: live.value("query", "presence:people", {"roomId": "hall"}), lambda found: found == [])


def test_beacon_of_a_closing_page(live: Server) -> None:
    """The body that ``navigator.sendBeacon`` posts when a page is closed, without ``format``, ends the session."""
    token = beat(live, "cellar", "ann", 60_000.0)["sessionToken"]
    assert live.value("query", "presence:people", {"roomId": "cellar"}) == ["ann"]
    status, _, _ = live.request(
        "POST", "/api/mutation", {"path": "presence:disconnect", "args": {"sessionToken": token}}
    )
    assert status == 200
    assert live.value("query", "presence:people", {"roomId": "cellar"}) == []


def test_texts_stream_and_stay(live: Server) -> None:
    """A text comes in pieces and is kept; it is written once; one that fails is marked; a removed one is gone."""
    stream = live.value("mutation", "texts:create")
    assert live.value("query", "texts:body", {"streamId": stream}) == {"text": "", "status": "pending"}
    status, pieces = write(live, stream)
    assert (status, b"".join(pieces)) == (200, WHOLE.encode())
    assert len(pieces) >= 3
    assert live.value("query", "texts:body", {"streamId": stream}) == {"text": WHOLE, "status": "done"}
    assert write(live, stream) == (205, [])
    failing = live.value("mutation", "texts:create")
    write(live, failing, fail=True)
    kept = live.value("query", "texts:body", {"streamId": failing})
    assert kept == {"text": WHOLE[:39], "status": "error"}
    live.value("mutation", "texts:remove", {"streamId": stream})
    until(lambda: live.call("query", "texts:body", {"streamId": stream})["status"], lambda found: found == "error")
