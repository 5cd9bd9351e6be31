"""Items of the checklist of ``sync.md`` section 10 that are about the whole of a server: 20, 22, 29, 41, 49, 52."""

from __future__ import annotations

import json
import math
import struct
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.harness import Server
from tests.sync_live.frames import CLOSE, PING, TEXT, FrameSocket
from tests.sync_live.sync_client import ZERO, decode_ts

MESSAGES = {"Transition", "MutationResponse", "ActionResponse", "Ping"}
MODIFICATIONS = {"QueryUpdated", "QueryFailed", "QueryRemoved"}
PAGE = {"numItems": 3, "cursor": None, "id": -1}


class Talk:
    """A socket whose messages are written by hand.

    :ivar transitions: all that have come, in order.
    """

    def __init__(self, port: int) -> None:
        self.socket = FrameSocket(port)
        self.socket.handshake()
        self.transitions: list[dict[str, Any]] = []
        self.version = 0

    def send(self, message: dict[str, Any]) -> None:
        self.socket.send(TEXT, json.dumps(message).encode())

    def receive(self) -> dict[str, Any]:
        """The next message; it must be one of section 4."""
        frame = self.socket.frame_of(TEXT, CLOSE)
        assert frame.opcode == TEXT, frame
        message: dict[str, Any] = json.loads(frame.payload)
        assert message["type"] in MESSAGES, message
        if message["type"] == "Transition":
            assert {one["type"] for one in message["modifications"]} <= MODIFICATIONS
            self.transitions.append(message)
        return message

    def modify(self, *modifications: dict[str, Any]) -> dict[int, dict[str, Any]]:
        """Change the query set. :returns: the modifications of the Transition that covers it, by query id."""
        self.version += 1
        versions = {"baseVersion": self.version - 1, "newVersion": self.version}
        self.send({"type": "ModifyQuerySet", **versions, "modifications": list(modifications)})
        while (message := self.receive())["type"] != "Transition" or message["endVersion"]["querySet"] < self.version:
            pass
        return {one["queryId"]: one for one in message["modifications"]}

    def call(self, kind: str, request_id: int, path: str, args: Any) -> dict[str, Any]:
        """Call a function. :returns: its response."""
        self.send({"type": kind, "requestId": request_id, "udfPath": path, "args": [args]})
        while (message := self.receive())["type"] != f"{kind}Response":
            pass
        assert message["requestId"] == request_id
        return message

    def alive(self) -> None:
        """The socket is open."""
        self.socket.send(PING, b"?")
        while self.socket.frame().payload != b"?":
            pass


def add(query_id: int, path: str, args: Any, **more: Any) -> dict[str, Any]:
    """An ``Add``."""
    return {"type": "Add", "queryId": query_id, "udfPath": path, "args": [args], **more}


@pytest.fixture
def talk(bank: Server) -> Iterator[Talk]:
    """An open socket without a session."""
    one = Talk(bank.port)
    yield one
    one.socket.close()


def transfer(number: int, amount: int = 1) -> dict[str, Any]:
    """Arguments of a transfer."""
    return {"client": "checklist", "tag": f"checklist.{number}", "from": 0, "to": 1, "amount": amount}


def test_versions_follow_each_other_and_never_go_back(talk: Talk) -> None:
    """20: each Transition starts where the last one ended, each part of the version is at least as large, and the query set and identity are
    never ahead of what was received. 29: nothing but the messages and modifications of section 4 comes."""
    talk.modify(add(0, "bank:counter", {}), add(1, "bank:balance", {"n": 0}))
    talk.send({"type": "Authenticate", "baseVersion": 0, "tokenType": "None"})
    for number in range(4):
        talk.call("Mutation", number, "bank:transfer", transfer(number, 1 if number % 2 else -1))
    talk.call("Action", 4, "bank:echo", {"value": 1, "fail": True})
    talk.modify({"type": "Remove", "queryId": 0}, add(2, "bank:nothing", {}))
    talk.modify()
    end = ZERO
    for transition in talk.transitions:
        assert transition["startVersion"] == end
        end = transition["endVersion"]
        for part in ("querySet", "identity"):
            assert transition["startVersion"][part] <= end[part]
        assert decode_ts(transition["startVersion"]["ts"]) <= decode_ts(end["ts"])
        assert end["querySet"] <= talk.version
        assert end["identity"] <= 1
    assert (end["querySet"], end["identity"]) == (3, 1)
    assert len(talk.transitions) >= 4


def test_results_of_one_transition_are_of_one_snapshot(talk: Talk) -> None:
    """22: queries that change by the same commit change in the same Transition, also when one of them takes longer."""
    talk.modify(
        add(0, "bank:audit", {"spin": 300}),
        *(add(1 + n, "bank:balance", {"n": n}) for n in range(8)),
        add(9, "bank:counter", {}),
    )
    values: dict[int, Any] = {}
    for number in range(10):
        talk.send(
            {"type": "Mutation", "requestId": number, "udfPath": "bank:transfer", "args": [transfer(100 + number)]}
        )
    counters = set()
    for transition in iter(lambda: talk.transitions[-1], None):
        for one in transition["modifications"]:
            values[one["queryId"]] = one["value"]
        if 9 in values:
            balances = [values[1 + n] for n in range(8)]
            assert values[0]["counter"] == values[9]
            assert values[0]["balances"] == sum(one["balance"] for one in balances)
            assert values[0]["versions"] == sum(one["version"] for one in balances) == 2 * values[9]
            counters.add(values[9])
        if len(counters) > 1 and values[9] == min(counters) + 10:
            break
        seen = len(talk.transitions)
        while len(talk.transitions) == seen:
            talk.receive()


@pytest.mark.parametrize(
    ("path", "args", "text"),
    [
        ("bank:nope", {}, "Could not find public function for 'bank:nope'"),
        ("nope:nope", {}, "Could not find public function for 'nope:nope'"),
        ("bank:secret", {}, "Could not find public function for 'bank:secret'"),
        ("bank:balance", {"n": "x"}, "ArgumentValidationError"),
        ("bank:balance", {"n": {"$nope": 1}}, "$nope"),
        ("bank:note", {"client": 1, "tag": "x"}, None),
        ("bank:history", {"paginationOpts": {**PAGE, "cursor": "nonsense"}}, "InvalidCursor"),
    ],
)
def test_what_is_wrong_with_a_call_is_the_functions_error(talk: Talk, path: str, args: Any, text: str | None) -> None:
    """41: an unknown function, one of another kind, bad arguments and bad cursors fail the function, never the connection."""
    failed = talk.modify(add(0, path, args))[0]
    assert failed["type"] == "QueryFailed"
    if path == "bank:note":
        text = "Trying to execute bank.js:note as Query, but it is defined as Mutation."
    assert text is not None
    assert text in failed["errorMessage"]
    for number, kind in enumerate(("Mutation", "Action")):
        response = talk.call(kind, number, path, args)
        assert response["success"] is False
        assert response["result"].startswith("[Request ID: ")
        assert "errorData" not in response
    talk.alive()


def test_numbers_are_plain_but_for_what_json_cannot_say(talk: Talk) -> None:
    """49: every finite float but -0 goes out as a plain number, and 1 and 1.0 come in as the same value."""
    numbers = [0, 1, 1.0, -1, 0.1, 1e21, -1e-7, 5e-324, 1.7976931348623157e308, 2**53, 123456789012345680000]
    given = [*numbers, {"$float": "AAAAAAAAAIA="}, {"$float": "AAAAAAAA+H8="}]
    echoed = talk.call("Action", 0, "bank:echo", {"value": given})["result"]["value"]
    assert all(type(one) in (int, float) for one in echoed[:-2])
    assert [float(one) for one in echoed[:-2]] == [float(one) for one in numbers]
    special = [struct.unpack("<d", b64decode(one["$float"]))[0] for one in echoed[-2:]]
    assert math.copysign(1, special[0]) == -1
    assert special[0] == 0
    assert math.isnan(special[1])
    talk.socket.send(
        TEXT,
        b'{"type":"ModifyQuerySet","baseVersion":0,"newVersion":1,"modifications":['
        b'{"type":"Add","queryId":0,"udfPath":"bank:fixed","args":[{"n":1}]},'
        b'{"type":"Add","queryId":1,"udfPath":"bank:fixed","args":[{"n":1.0}]},'
        b'{"type":"Add","queryId":2,"udfPath":"bank:fixed","args":[{"n":-0}]}]}',
    )
    while not (changed := talk.receive()["modifications"]):
        pass  # what follows the action's response
    values = {one["queryId"]: one["value"] for one in changed}
    assert values == {0: 1, 1: 1, 2: {"$float": "AAAAAAAAAIA="}}


@pytest.mark.parametrize("journal", ["nonsense", "", "{}", "AAAA"])
def test_a_journal_that_nobody_made_fails_the_query(talk: Talk, journal: str) -> None:
    """52: with an error that tells React to begin its pages anew; the connection and its other queries are as before."""
    found = talk.modify(
        add(0, "bank:history", {"paginationOpts": PAGE}, journal=journal), add(1, "bank:fixed", {"n": 5})
    )
    assert found[0]["type"] == "QueryFailed"
    assert "InvalidCursor" in found[0]["errorMessage"]
    assert found[0]["errorData"] == {"isConvexSystemError": True, "paginationError": "InvalidCursor"}
    assert found[1]["value"] == 5
    talk.alive()


def test_the_server_saw_no_fault(bank: Server) -> None:
    """None of the above was a fault of ours in the log."""
    assert "Traceback" not in bank.text()
