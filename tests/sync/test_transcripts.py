"""The worked transcripts T1 to T8, which the npm client has been checked against, replayed against the whole socket."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from convex_backend.application.types import CallResult, Identity, LiveUpdate, QueryResult
from convex_backend.errors import Overloaded, ServerFault, Unauthenticated
from convex_backend.interfaces import FunctionError, LogLine
from convex_backend.sync import closing, messages
from convex_backend.sync.messages import decode_ts
from convex_backend.sync.worker import FIRST_QUERY_SET_SECONDS
from tests.sync.support import SESSION, T0, Server, Socket

TRANSCRIPTS = dict(
    re.findall(
        r"^== transcript (T\d)\n(.*?)(?=^== transcript|\Z)",
        Path(__file__).with_name("transcripts.txt").read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )
)


def log_lines(texts: list[str]) -> tuple[LogLine, ...]:
    """Lines that print as *texts*."""
    return tuple(LogLine(tuple(text.partition("] ")[2].split(" ")), text.partition("]")[0][1:], 0.0) for text in texts)


def call_result(tree: dict[str, Any]) -> CallResult:
    """The application's answer behind a response message."""
    lines = log_lines(tree["logLines"])
    if tree["success"]:
        ts = decode_ts(tree["ts"]) if "ts" in tree else T0
        return CallResult(orjson.dumps(tree["result"]), None, lines, ts, "0" * 16)
    head, _, message = tree["result"].partition("\n")
    data = orjson.dumps(tree["errorData"]) if "errorData" in tree else None
    request_id = re.fullmatch(r"\[Request ID: ([0-9a-f]{16})\] Server Error", head)
    assert request_id is not None
    return CallResult(None, FunctionError(message, data), lines, T0, request_id[1], redacted=not message)


def query_result(tree: dict[str, Any]) -> QueryResult:
    """The shared result behind a modification."""
    rest = {name: value for name, value in tree.items() if name not in ("type", "queryId")}
    body = b"," + orjson.dumps(rest)[1:]
    return QueryResult(tree["type"] == "QueryFailed", body, tree["journal"], body, body)


class Replay:
    """Plays the client and, behind the socket, the application."""

    def __init__(self) -> None:
        self.server = Server()
        self.socket: Socket | None = None
        self.skew = 0
        self.paths: dict[int, str] = {}

    @property
    def application(self) -> Any:
        return self.server.application

    def run(self, text: str) -> None:
        """Every line of a transcript."""
        lines = [line for line in text.splitlines() if line]
        self.delay_query_sets(lines)
        skews = [orjson.loads(line[3:]).get("clientClockSkew") for line in lines if line.startswith("S>")]
        self.skew = next((skew for skew in skews if skew is not None), 0)
        for line in lines:
            if line.startswith("== open"):
                self.socket = self.server.open(line.split()[3])
                assert self.socket.status == 101
                assert self.socket.read() == []
            elif line.startswith("C> "):
                self.client(orjson.loads(line[3:]))
            elif line.startswith("S> "):
                self.expect(orjson.loads(line[3:]))
            elif line.startswith("== close-empty"):
                assert self.socket is not None
                assert self.socket.read() == [{"close": None, "reason": ""}]
            elif line.startswith("== close"):
                _, _, code, reason = line.split()
                self.close(int(code), reason)
            else:
                assert line.startswith((">>", "#")), line

    def delay_query_sets(self, lines: list[str]) -> None:
        """A query set that the next Transition does not cover has arrived after it."""
        for place in range(len(lines) - 1):
            sent, answer = lines[place : place + 2]
            if "ModifyQuerySet" in sent and answer.startswith("S>"):
                end = orjson.loads(answer[3:]).get("endVersion")
                if end is not None and end["querySet"] < orjson.loads(sent[3:])["newVersion"]:
                    lines[place : place + 2] = answer, sent

    def client(self, tree: dict[str, Any]) -> None:
        """A client message."""
        assert self.socket is not None
        if tree["type"] == "Connect":
            tree["sessionId"] = SESSION
            tree["clientTs"] = self.server.now_ns // 1_000_000 + self.skew
        if "requestId" in tree:
            self.paths[tree["requestId"]] = tree["udfPath"]
        self.socket.send(tree)

    def close(self, code: int, reason: str) -> None:
        """What makes the server close with *code* and *reason*."""
        assert self.socket is not None and self.socket.live is not None
        if code == 1011:
            self.application.mutations[-1].answer.errback(ServerFault())
        elif code == 1012:
            self.socket.protocol.worker.end(closing.Close(code=code, reason=reason))
        else:
            self.socket.live.fault = Overloaded(reason, "too much to do")
            self.socket.live.on_ready()
        assert self.socket.read() == [{"close": code, "reason": reason}]

    def expect(self, tree: dict[str, Any]) -> None:
        """Make the server's message due, and see that it comes exactly so, alone."""
        assert self.socket is not None and self.socket.live is not None
        match tree["type"]:
            case "Transition":
                self.transition(tree)
            case "Ping":
                self.server.pass_seconds(16)
            case "MutationResponse":
                calls = [call for call in self.application.mutations if not call.answer.called]
                calls[0].answer.callback(call_result(tree))
            case "ActionResponse":
                path = self.paths[tree["requestId"]]
                call = next(call for call in self.application.actions if call.path == path)
                call.answer.callback(call_result(tree))
            case "AuthError" if tree["authUpdateAttempted"]:
                self.application.tokens.pop()[1].errback(Unauthenticated("InvalidAuthHeader", tree["error"]))
            case "AuthError":
                self.server.now_ns = T0 + 10**15
                self.socket.live.on_ready()
            case "FatalError":
                self.socket.protocol.worker.end(closing.fatal(tree["error"]))
        # A close frame that follows at once is the next line's.
        frames = self.socket.read_frames()
        texts = [frame for frame in frames if frame.opcode == 1]
        assert [orjson.loads(frame.payload) for frame in texts] == [tree]
        for frame in frames:
            if frame.opcode == 8:
                self.socket.transport.received += bytes((0x88, len(frame.payload))) + frame.payload

    def transition(self, tree: dict[str, Any]) -> None:
        """The live queries, or a token that is found good, behind a Transition."""
        live = self.socket.live  # type: ignore[union-attr]
        assert live is not None
        self.server.now_ns = tree["serverTs"]
        changed = tuple(
            (item["queryId"], query_result(item)) for item in tree["modifications"] if item["type"] != "QueryRemoved"
        )
        self.application.newest = decode_ts(tree["endVersion"]["ts"])
        live.updates.append(LiveUpdate(self.application.newest, changed))
        if self.application.tokens:
            token, waiter = self.application.tokens.pop()
            expires_at = T0 / 1e9 + 1000
            waiter.callback(Identity("user", (("tokenIdentifier", token),), expires_at))
            self.server.clock.advance(FIRST_QUERY_SET_SECONDS)
        else:
            live.on_ready()


@pytest.mark.parametrize("name", ["T1", "T2", "T3", "T4", "T5", "T6", "T8"])
def test_transcript(name: str) -> None:
    """Each server message of the transcript comes when it is due, exactly as written, and nothing else comes."""
    Replay().run(TRANSCRIPTS[name])


def test_all_transcripts_are_here() -> None:
    """The file holds T1 to T8."""
    assert sorted(TRANSCRIPTS) == [f"T{number}" for number in range(1, 9)]


def test_transcript_t7_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """28: T7: a large Transition comes in contiguous chunks whose texts join to the one that the transcript cuts."""
    lines = TRANSCRIPTS["T7"].splitlines()
    parts = [orjson.loads(line[3:]) for line in lines if line.startswith("S>") and "TransitionChunk" in line]
    whole = "".join(part["chunk"] for part in parts)
    tree = orjson.loads(whole)
    assert parts[0]["transitionId"] == str(len(whole.encode()))
    monkeypatch.setattr(messages, "CHUNK_BYTES", 130)
    monkeypatch.setattr(messages.transition_chunks, "__defaults__", (130,))
    replay = Replay()
    replay.run("\n".join(line for line in lines if not line.startswith("S>")))
    replay.server.application.live.clients[0].updates.clear()
    socket = replay.socket
    assert socket is not None and socket.live is not None
    replay.server.now_ns = tree["serverTs"]
    socket.live.push(decode_ts(tree["endVersion"]["ts"]), (0, query_result(tree["modifications"][0])))
    sent = socket.read()
    joined = "".join(part["chunk"] for part in sent)
    assert {**orjson.loads(joined), "clientClockSkew": 1} == tree
    assert [part["partNumber"] for part in sent] == list(range(len(sent)))
    assert {(part["type"], part["totalParts"], part["transitionId"]) for part in sent} == {
        ("TransitionChunk", len(sent), str(len(joined.encode())))
    }
    assert len(sent) > 1
    assert all(len(part["chunk"].encode()) <= 130 for part in sent)
