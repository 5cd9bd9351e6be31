"""Client messages are parsed strictly; server messages are the texts that the clients expect."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convex_backend.sync import messages
from convex_backend.sync.messages import InvalidMessage, decode_ts, encode_ts, parse
from tests.sync.support import SESSION, T0, action, add, authenticate, connect, failure, modify, mutation, success


@pytest.mark.parametrize(
    ("ts", "text"), [(0, b"AAAAAAAAAAA="), (1, b"AQAAAAAAAAA="), (1786000000000000000, b"AADZkIklyRg=")]
)
def test_timestamps_of_the_specification(ts: int, text: bytes) -> None:
    """Timestamps are base64 of 8 little-endian bytes (section 3.1)."""
    assert encode_ts(ts) == text
    assert decode_ts(text.decode()) == ts


@given(st.integers(0, 2**63 - 1))
@settings(max_examples=200, deadline=None)
def test_timestamps_round_trip(ts: int) -> None:
    """Every timestamp survives its text."""
    assert decode_ts(encode_ts(ts).decode()) == ts


@pytest.mark.parametrize(
    "text", ["", "AAAAAAAAAAA", "AAAAAAAAAA==", "AAAA AAAAAAA=", "////////////", "//////////8=", "é", "AAAAAAAAAAAA"]
)
def test_bad_timestamps(text: str) -> None:
    """Anything else is refused, also what is over 2^63 - 1."""
    with pytest.raises(InvalidMessage):
        decode_ts(text)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"Connect"',
        b"{}",
        b'{"type":1}',
        b'{"type":"Nope"}',
        b'{"type":"Ping"}',
        b'{"type":"Event"',
        b'{"type":"Mutation","requestId":0,"udfPath":"m:f","args":[{"a":NaN}]}',
        b'{"type":"Mutation","requestId":0,"udfPath":"m:f","args":[{"a":Infinity}]}',
        b'{"type":"Mutation","requestId":0,"udfPath":"m:f","args":[{"a":"\\ud800"}]}',
    ],
)
def test_what_is_no_message(payload: bytes) -> None:
    """11: what is not JSON, not an object or of no known type is refused with the text of the official server."""
    with pytest.raises(InvalidMessage, match=r"^Received Invalid JSON on websocket: "):
        parse(payload)


GOOD = [
    connect(),
    modify(0, add(0), {"type": "Remove", "queryId": 0}),
    mutation(0),
    action(0),
    authenticate(0),
    authenticate(0, "Admin", "k"),
    authenticate(0, "None", None),
]


@pytest.mark.parametrize("tree", GOOD, ids=lambda tree: tree["type"])
def test_missing_or_wrong_fields(tree: dict[str, object]) -> None:
    """11: each required field, left out, null or of another type, is refused; the whole is accepted."""
    assert type(parse(orjson.dumps(tree))).__name__ == tree["type"]
    for name in tree:
        with pytest.raises(InvalidMessage):
            parse(orjson.dumps({key: value for key, value in tree.items() if key != name}))
        for wrong in (None, True, -1, 2**32, 1.5, {"a": 1}, "\x00"):
            if type(wrong) is str and name in ("value",):
                continue
            with pytest.raises(InvalidMessage):
                parse(orjson.dumps({**tree, name: wrong}))


@pytest.mark.parametrize("tree", GOOD, ids=lambda tree: tree["type"])
def test_unknown_fields_are_ignored(tree: dict[str, object]) -> None:
    """11: fields that we do not know change nothing."""
    assert parse(orjson.dumps({"later": [1], **tree})) == parse(orjson.dumps(tree))


@pytest.mark.parametrize(
    "modification", [1, {}, {"type": "Replace"}, {"type": "Add", "queryId": 0}, {"type": "Remove"}]
)
def test_bad_modifications(modification: object) -> None:
    """11: so is a modification that is none."""
    with pytest.raises(InvalidMessage):
        parse(
            orjson.dumps({"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1, "modifications": [modification]})
        )


def test_optional_fields_of_connect() -> None:
    """12: what may be absent or null may be; the session is lower case."""
    full = parse(
        orjson.dumps(
            connect(
                sessionId=SESSION.upper(), lastCloseReason=None, maxObservedTimestamp="AADZkIklyRg=", clientTs=-5, x=1
            )
        )
    )
    assert full == messages.Connect(SESSION, T0, -5)
    assert parse(orjson.dumps(connect(clientTs=0))) == messages.Connect(SESSION, None, 0)
    assert parse(orjson.dumps(connect())) == messages.Connect(SESSION, None, None)


@pytest.mark.parametrize("session", ["", "x", SESSION + "0", SESSION.replace("-", ""), "{" + SESSION + "}"])
def test_sessions_are_uuids(session: str) -> None:
    """A session that is no hyphenated UUID is refused."""
    with pytest.raises(InvalidMessage):
        parse(orjson.dumps(connect(sessionId=session)))


@pytest.mark.parametrize("journal", [None, "j"])
def test_journals(journal: str | None) -> None:
    """12: a journal may be absent, null or a text."""
    message = parse(orjson.dumps(modify(0, add(0, journal=journal))))
    assert isinstance(message, messages.ModifyQuerySet)
    assert message.modifications[0].query.journal == journal  # type: ignore[union-attr]


@pytest.mark.parametrize("path", ["m", "m:default", "m.js:default", "dir/m:f", "m.js:f"])
def test_paths(path: str) -> None:
    """15: every spelling of a path is handed on; the application makes them equal."""
    assert parse(orjson.dumps(mutation(0, path))).path == path  # type: ignore[union-attr]


@pytest.mark.parametrize("path", ["", "/m", "../m", "m.py:f", "m:1f", "m:___", "m:" + "f" * 65])
def test_bad_paths(path: str) -> None:
    """A path that cannot be parsed is a fault of the message (section 2.2)."""
    for tree in (mutation(0, path), action(0, path), modify(0, add(0, path))):
        with pytest.raises(InvalidMessage, match="not a valid path"):
            parse(orjson.dumps(tree))


def test_arguments_are_handed_on_as_text() -> None:
    """48: arguments keep their values: wrappers, floats, the number -0, texts that look like it."""
    raw = b'[{"a":{"$integer":"AQAAAAAAAAA="},"b":[-0,-0.0,1.0,1e300],"c":"-0]","d":-1}]'
    message = parse(b'{"type":"Mutation","requestId":0,"udfPath":"m:f","args":' + raw + b"}")
    args = orjson.loads(message.args)  # type: ignore[union-attr]
    assert orjson.loads(raw.replace(b"[-0,", b"[-0.0,")) == args
    assert str(args[0]["b"][:2]) == "[-0.0, -0.0]"


def test_arguments_that_nest_deep_are_no_fault_of_the_message() -> None:
    """50: too deep a value is for the function call to refuse, not for the connection."""
    deep = b"[" * 400 + b"]" * 400
    message = parse(b'{"type":"Action","requestId":0,"udfPath":"m:f","args":[' + deep + b"]}")
    assert message.args == b"[" + deep + b"]"  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["impersonating", "acting_as"])
def test_acting_as_a_user(name: str) -> None:
    """46: both names are taken; known attributes must have their type, others are claims; null ones are left out."""
    attributes = {"tokenIdentifier": "t", "emailVerified": True, "nickname": None, "claim": {"a": [1]}}
    message = parse(orjson.dumps(authenticate(0, "Admin", "k", **{name: attributes})))
    assert message.acting_as == {"tokenIdentifier": "t", "emailVerified": True, "claim": {"a": [1]}}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "attributes",
    [
        1,
        {},
        {"issuer": "i"},
        {"subject": "s"},
        {"tokenIdentifier": 1},
        {"tokenIdentifier": "t", "emailVerified": "yes"},
    ],
)
def test_acting_as_nobody(attributes: object) -> None:
    """46: who the user is must be said."""
    with pytest.raises(InvalidMessage):
        parse(orjson.dumps(authenticate(0, "Admin", "k", impersonating=attributes)))


@pytest.mark.parametrize("event", [{}, {"eventType": 5}, {"eventType": "X", "event": {"a": [None]}}])
def test_events_of_any_kind(event: dict[str, object]) -> None:
    """17: no event fails."""
    assert parse(orjson.dumps({"type": "Event", **event})) == messages.Event()


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=200), st.integers(4, 50))
@settings(max_examples=100, deadline=None)
def test_chunks_join_to_the_whole(text: str, size: int) -> None:
    """28: chunks are cut between characters and join to the message."""
    whole = text.encode()
    parts = [orjson.loads(part) for part in messages.transition_chunks(whole, size)]
    assert "".join(part["chunk"] for part in parts).encode() == whole
    assert all(0 < len(part["chunk"].encode()) <= size for part in parts)
    assert [part["partNumber"] for part in parts] == list(range(len(parts)))
    assert {part["totalParts"] for part in parts} == {len(parts)}


def test_responses() -> None:
    """38, 39, 40: a response has a value and a base64 ts, or a text, null and perhaps errorData; redacted ones say nothing more."""
    assert orjson.loads(messages.mutation_response(7, success(b"[1]"))) == {
        "type": "MutationResponse",
        "requestId": 7,
        "success": True,
        "result": [1],
        "ts": "AADZkIklyRg=",
        "logLines": [],
    }
    head = "[Request ID: 0123456789abcdef] Server Error"
    assert orjson.loads(messages.mutation_response(7, failure("é", b"null"))) == {
        "type": "MutationResponse",
        "requestId": 7,
        "success": False,
        "result": head + "\né",
        "ts": None,
        "logLines": [],
        "errorData": None,
    }
    assert orjson.loads(messages.action_response(7, failure("x", redacted=True))) == {
        "type": "ActionResponse",
        "requestId": 7,
        "success": False,
        "result": head,
        "logLines": [],
    }
    assert "ts" not in orjson.loads(messages.action_response(7, success()))
