"""Query sets, mutations and actions (checklist 10 to 18, 21 to 27, 31 to 41), one rule at a time."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
import pytest

from convex_backend.application.types import Caller, MutationKey, QueryResult
from convex_backend.errors import Overloaded, ServerFault
from convex_backend.interfaces import LogLine
from convex_backend.sync import worker
from convex_backend.sync.messages import encode_ts
from tests.sync.support import (
    SESSION,
    T0,
    Server,
    Socket,
    action,
    add,
    authenticate,
    connect,
    failure,
    modify,
    mutation,
    result,
    success,
)

INTERNAL = {"close": 1011, "reason": "InternalServerError"}
EMPTY_CLOSE = {"close": None, "reason": ""}


def types(socket: Socket) -> list[str]:
    """The types of the messages that have come."""
    return [message.get("type", "close") for message in socket.read()]


def ts_text(ts: int) -> str:
    """Wire form of a timestamp."""
    return encode_ts(ts).decode()


@pytest.mark.parametrize(
    "message", [connect(), modify(0, add(0)), mutation(0), action(0), authenticate(0, "None", None), {"type": "Event"}]
)
def test_any_message_comes_first(message: dict[str, Any]) -> None:
    """10: every kind of message is served without a Connect before it."""
    server = Server(automatic=True)
    socket = server.open()
    socket.send(message)
    for call in server.application.mutations + server.application.actions:
        call.answer.callback(success())
    server.clock.advance(1)
    assert "close" not in types(socket)


def test_without_a_session_nothing_is_deduplicated() -> None:
    """10, 35: a mutation has a key only after a Connect; its request id is then made from it (section 8.1)."""
    server = Server()
    socket = server.open(headers={"User-Agent": "agent"})
    socket.send(mutation(0))
    server.application.mutations[0].answer.callback(success())
    socket.send(connect(sessionId=SESSION.upper()), mutation(1), action(2))
    first, second = server.application.mutations
    assert first.key is None
    assert first.caller == Caller("SyncWorker", "npm", "1.48.0", "ab" * 8, "192.0.2.1", "agent")
    assert second.key == MutationKey(SESSION, 1)
    assert second.caller.request_id == hashlib.sha256(f"{SESSION}|1".encode()).hexdigest()[:16]
    assert server.application.actions[0].caller.request_id == hashlib.sha256(f"{SESSION}|2".encode()).hexdigest()[:16]


def test_a_repeated_connect_overwrites() -> None:
    """2.1: the last session counts."""
    server = Server()
    socket = server.open()
    other = SESSION.replace("0a", "0b")
    socket.send(connect(), connect(sessionId=other), mutation(0))
    assert server.application.mutations[0].key == MutationKey(other, 0)


def test_base_versions() -> None:
    """14: the base must be the last received version."""
    socket = Server().open()
    socket.send(modify(0), modify(0))
    assert socket.read() == [
        {"type": "FatalError", "error": "Base version 0 passed up doesn't match the current version 1"},
        EMPTY_CLOSE,
    ]


@pytest.mark.parametrize(
    "messages",
    [
        [modify(0, add(0), add(0))],
        [modify(0, add(0)), modify(1, add(0))],
        [modify(0, {"type": "Remove", "queryId": 0})],
        [{**modify(0), "newVersion": 0}],
    ],
)
def test_impossible_query_sets(messages: list[dict[str, Any]]) -> None:
    """2.2: an id twice, an unknown id or a version that does not rise closes 1011."""
    socket = Server().open()
    socket.send(*messages)
    assert socket.read() == [INTERNAL]


def test_versions_may_skip() -> None:
    """2.2: a new version needs only be greater."""
    socket = Server(automatic=True).open()
    socket.send({**modify(0), "newVersion": 5})
    assert socket.read()[0]["endVersion"]["querySet"] == 5


def test_an_empty_query_set_is_announced() -> None:
    """16: an empty list of modifications is answered with a Transition that reaches its version."""
    socket = Server(automatic=True).open()
    socket.send(modify(0))
    (transition,) = socket.read()
    assert transition["modifications"] == []
    assert transition["endVersion"] == {"querySet": 1, "identity": 0, "ts": ts_text(T0)}


def test_queries_are_handed_on_as_sent() -> None:
    """12, 15, 51: path, arguments, journal and component reach the live queries."""
    socket = Server().open()
    socket.send(modify(0, add(3, "m.js:default", args=[{"a": 1}], journal="j", componentPath="c/d")))
    assert socket.live is not None
    query = socket.live.queries[3]
    assert (query.path, query.args, query.journal, query.component_path) == ("m.js:default", b'[{"a":1}]', "j", "c/d")


def test_one_transition_covers_several_query_sets() -> None:
    """21, 25: what was received while results were computed is covered at once; an id that came and went is removed."""
    socket = Server().open()
    socket.send(modify(0, add(0), add(1)), modify(1, {"type": "Remove", "queryId": 1}, add(2)))
    assert socket.live is not None
    socket.live.push(T0, (0, result()), (2, result()))
    (transition,) = socket.read()
    assert transition["endVersion"]["querySet"] == 2
    assert [(item["type"], item["queryId"]) for item in transition["modifications"]] == [
        ("QueryUpdated", 0),
        ("QueryRemoved", 1),
        ("QueryUpdated", 2),
    ]


def test_an_id_that_is_used_again() -> None:
    """25: removing and adding one id before a Transition gives one modification for it."""
    socket = Server(automatic=True).open()
    socket.send(modify(0, add(0)), modify(1, {"type": "Remove", "queryId": 0}, add(0)))
    last = socket.read()[-1]
    assert [(item["type"], item["queryId"]) for item in last["modifications"]] == [("QueryUpdated", 0)]


def test_updates_come_unprompted() -> None:
    """24, 19: a changed result is pushed, from the version that was sent last."""
    socket = Server().open()
    socket.send(connect(clientTs=T0 // 1_000_000 + 7), modify(0, add(0)))
    assert socket.live is not None
    socket.live.push(T0, (0, result(b"1")))
    socket.live.push(T0 + 1, (0, result(b"2")))
    first, second = socket.read()
    assert second["startVersion"] == first["endVersion"]
    assert second["modifications"] == [
        {"type": "QueryUpdated", "queryId": 0, "value": 2, "logLines": [], "journal": None}
    ]
    assert second["clientClockSkew"] == 7
    assert type(second["serverTs"]) is int


def test_an_update_without_news_is_not_sent() -> None:
    """23: when nothing has changed and nothing is owed there is no Transition."""
    socket = Server().open()
    socket.send(modify(0, add(0)))
    assert socket.live is not None
    socket.live.push(T0, (0, result()))
    socket.live.push(T0 + 1)
    assert len(socket.read()) == 1


@pytest.mark.parametrize("first", [[], [connect()]])
def test_no_clock_no_skew(first: list[dict[str, Any]]) -> None:
    """27: a client that did not tell its clock gets neither clientClockSkew nor serverTs."""
    socket = Server(automatic=True).open()
    socket.send(*first, modify(0))
    assert not {"clientClockSkew", "serverTs"} & set(socket.read()[0])


def test_failed_queries() -> None:
    """5.3: a failure is a modification; the query stays subscribed and the socket open."""
    socket = Server().open()
    socket.send(modify(0, add(0)))
    body = b',"errorMessage":"no","logLines":[],"journal":null,"errorData":null}'
    assert socket.live is not None
    socket.live.push(T0, (0, QueryResult(True, b"", None, body, body)))
    socket.live.push(T0, (0, result()))
    first, second = socket.read()
    assert first["modifications"][0]["type"] == "QueryFailed"
    assert second["modifications"][0]["type"] == "QueryUpdated"


@pytest.mark.parametrize(("admin", "shown"), [(False, "redacted"), (True, "plain")])
def test_redaction(admin: bool, shown: str) -> None:
    """40: with redaction on, only admins get the plain form."""
    from tests.sync.support import ADMIN_KEY

    socket = Server(redact=True).open()
    socket.send(authenticate(0, "Admin", ADMIN_KEY) if admin else {"type": "Event"}, modify(0, add(0)))
    assert socket.live is not None
    socket.live.push(T0, (0, QueryResult(False, b"", None, b',"value":"plain"}', b',"value":"redacted"}')))
    assert socket.read()[0]["modifications"][0]["value"] == shown


def test_mutations_run_in_order() -> None:
    """13, 31: one at a time in order of arrival; each is answered once, and then announced."""
    server = Server(automatic=True)
    socket = server.open()
    socket.send(mutation(5, "m:a", componentPath="c"), mutation(3, "m:b"), mutation(4, "m:c"))
    for number in range(3):
        assert [call.path for call in server.application.mutations] == ["m:a", "m:b", "m:c"][: number + 1]
        server.application.mutations[number].answer.callback(success(ts=T0 + number))
    assert server.application.mutations[0].component_path == "c"
    messages = socket.read()
    assert [message["type"] for message in messages] == ["MutationResponse", "Transition"] * 3
    assert [message["requestId"] for message in messages[::2]] == [5, 3, 4]


def test_a_transition_follows_a_success() -> None:
    """32, 34: the Transition after a response reaches its timestamp, comes after it, and may be empty."""
    server = Server()
    socket = server.open()
    socket.send(mutation(0))
    server.application.mutations[0].answer.callback(success(b'"id"', T0 + 50))
    assert types(socket) == ["MutationResponse"]
    assert socket.live is not None
    socket.live.push(T0 + 40)
    assert socket.read() == []
    socket.live.updates.clear()
    socket.live.push(T0 + 60)
    (transition,) = socket.read()
    assert transition["modifications"] == []
    assert transition["endVersion"]["ts"] == ts_text(T0 + 60)
    assert socket.live.takes[-1] == T0 + 50


def test_a_replay_gets_a_later_transition() -> None:
    """32, 35: a response with an old timestamp is followed by a Transition too, and time does not go back."""
    server = Server(automatic=True)
    socket = server.open()
    socket.send(modify(0), mutation(0))
    server.application.mutations[0].answer.callback(success(ts=T0 - 10**9))
    first, response, second = socket.read()
    assert response["ts"] == ts_text(T0 - 10**9)
    assert second["startVersion"] == second["endVersion"] == first["endVersion"]


@pytest.mark.parametrize("data", [None, b"null", b'{"a":1}'])
def test_a_transition_follows_a_failure(data: bytes | None) -> None:
    """33, 36, 38, 39: a failure has no ts, errorData only of a ConvexError, and a Transition after it."""
    server = Server(automatic=True)
    socket = server.open()
    socket.send(mutation(0), mutation(1))
    server.application.mutations[0].answer.callback(failure("Uncaught Error: x", data))
    response, transition = socket.read()
    assert response["ts"] is None
    assert response.get("errorData", "absent") == ("absent" if data is None else orjson.loads(data))
    assert transition["type"] == "Transition"
    assert len(server.application.mutations) == 2, "a failed mutation does not hold up the next"


def test_log_lines() -> None:
    """26: lines are texts with their level."""
    server = Server()
    socket = server.open()
    socket.send(mutation(0))
    lines = (LogLine(("'hi'", "42"), "LOG", 1.0), LogLine(("x",), "WARN", 1.0, truncated=True))
    server.application.mutations[0].answer.callback(success(logs=lines))
    assert socket.read()[0]["logLines"] == ["[LOG] 'hi' 42", "[WARN] x (truncated due to length)"]


def test_actions_do_not_wait() -> None:
    """37: actions run beside mutations and each other; answers come as they end, with a Transition after each."""
    server = Server(automatic=True)
    socket = server.open()
    socket.send(mutation(0), action(1), action(2), modify(0))
    assert types(socket) == ["Transition"]
    assert len(server.application.actions) == 2
    server.application.actions[1].answer.callback(success(b"2"))
    server.application.actions[0].answer.callback(failure("no"))
    messages = socket.read()
    assert [message.get("requestId") for message in messages] == [2, None, 1, None]
    assert "ts" not in messages[0]


@pytest.mark.parametrize("kind", ["mutation", "action"])
@pytest.mark.parametrize(
    ("error", "close"),
    [
        (ServerFault(), INTERNAL),
        (Overloaded("CommitterFullError", "full"), {"close": 1013, "reason": "CommitterFullError"}),
    ],
)
def test_server_trouble_is_no_response(kind: str, error: Exception, close: dict[str, Any]) -> None:
    """9, 2.3: trouble on our side closes the socket, so that the client tries again; nothing more is run."""
    server = Server()
    socket = server.open()
    socket.send(mutation(0), mutation(1), action(2))
    calls = server.application.mutations if kind == "mutation" else server.application.actions
    calls[0].answer.errback(error)
    assert socket.read() == [close]
    assert len(server.application.mutations) == 1


def test_too_many_mutations(monkeypatch: pytest.MonkeyPatch) -> None:
    """8.2: a full queue closes 1013."""
    monkeypatch.setattr(worker, "MAX_QUEUED_MUTATIONS", 3)
    socket = Server().open()
    socket.send(*(mutation(number) for number in range(4)))
    assert socket.read() == []
    socket.send(mutation(4))
    assert socket.read() == [{"close": 1013, "reason": "TooManyConcurrentMutations"}]


def test_too_many_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    """8.2: so do too many actions under way; ended ones do not count."""
    monkeypatch.setattr(worker, "MAX_RUNNING_ACTIONS", 3)
    server = Server()
    socket = server.open()
    socket.send(action(0))
    server.application.actions[0].answer.callback(success())
    socket.send(*(action(number) for number in range(1, 4)))
    assert types(socket) == ["ActionResponse"]
    socket.send(action(4))
    assert socket.read() == [{"close": 1013, "reason": "TooManyInflightActionsForSingleClient"}]


def test_slow_mutations() -> None:
    """2.3: a mutation that takes 60 s closes 1011; its late answer is dropped."""
    server = Server()
    socket = server.open()
    socket.send(mutation(0))
    server.pass_seconds(59)
    assert INTERNAL not in socket.read()
    server.pass_seconds(2)
    assert socket.read() == [INTERNAL]
    server.application.mutations[0].answer.callback(success())
    assert socket.read() == []


def test_events_are_ignored() -> None:
    """17: an event is never answered."""
    socket = Server(automatic=True).open()
    socket.send({"type": "Event", "eventType": "ClientConnect", "event": [{"name": "x", "startTime": 1}]})
    assert socket.read() == []


def test_a_timestamp_from_the_future() -> None:
    """18: a Connect that has seen more than we have waits until we are there; what we cannot reach closes 1011."""
    server = Server(automatic=True)
    socket = server.open()
    socket.send(connect(maxObservedTimestamp=ts_text(T0 + 5)), modify(0))
    assert socket.read() == []
    ((ts, waiter),) = server.application.observed
    assert ts == T0 + 5
    waiter.callback(None)
    assert types(socket) == ["Transition"]
    late = server.open()
    late.send(connect(maxObservedTimestamp=ts_text(T0 + 10**18)), modify(0))
    server.application.observed[1][1].errback(ServerFault("from the future"))
    assert late.read() == [INTERNAL]


def test_a_timestamp_that_we_know() -> None:
    """18: a Connect that has seen no more than we have does not wait."""
    server = Server(automatic=True)
    socket = server.open()
    socket.send(connect(maxObservedTimestamp=ts_text(T0)), modify(0))
    assert types(socket) == ["Transition"]
    assert server.application.observed == []


def test_a_reconnect_gets_nothing_older_than_what_was_seen() -> None:
    """2.1: results that are older than the client's newest timestamp are not shown, even when they agree with each other."""
    server = Server()
    socket = server.open()
    socket.send(connect(maxObservedTimestamp=ts_text(T0 - 5)), modify(0))
    assert socket.live is not None
    socket.live.push(T0 - 6)
    assert socket.read() == []
    socket.live.updates.clear()
    socket.live.push(T0 - 5)
    assert types(socket) == ["Transition"]


def test_a_subscription_gets_nothing_older_than_itself() -> None:
    """5.3: the first result of a query holds every commit that was acknowledged before the subscription, to whomever."""
    server = Server()
    socket = server.open()
    socket.send(modify(0, add(0)))
    assert socket.live is not None
    socket.live.push(T0 - 1, (0, result(b"1")))
    assert socket.read() == []
    socket.live.updates.clear()
    socket.live.push(T0, (0, result(b"2")))
    (transition,) = socket.read()
    assert transition["modifications"][0]["value"] == 2


def test_a_path_that_the_application_refuses() -> None:
    """2.2: if the live queries cannot parse a path the socket ends with FatalError."""
    from convex_backend.errors import BadRequest

    socket = Server().open()
    live: Any = socket.live

    def refuse(*_: object) -> None:
        raise BadRequest("BadConvexFunctionIdentifier", "no path")

    live.add = refuse
    socket.protocol.worker._live = live
    socket.send(modify(0, add(0)))
    assert socket.read() == [{"type": "FatalError", "error": "no path"}, EMPTY_CLOSE]


def test_a_client_that_keeps_mutating_still_sees_its_earlier_commits() -> None:
    """32, 34: each commit is covered by the first Transition that reaches it, also while newer ones are outstanding."""
    server = Server()
    socket = server.open()
    live = server.application.live.clients[0]
    for request_id in range(3):
        socket.send(mutation(request_id))
        server.application.mutations[request_id].answer.callback(success(ts=T0 + 10 * (request_id + 1)))
    assert live.takes[-1] == T0 + 10
    socket.read()
    live.push(T0 + 15)
    [first] = socket.read()
    assert first["endVersion"]["ts"] == ts_text(T0 + 15)
    assert live.takes[-1] == T0 + 20
    live.push(T0 + 35)
    [last] = socket.read()
    assert last["endVersion"]["ts"] == ts_text(T0 + 35)
    live.push(T0 + 40)
    assert socket.read() == []
