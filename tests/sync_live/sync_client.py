"""A client of the sync protocol that believes nothing: every server message is checked against ``sync.md`` before it is used.

It keeps its session over reconnects as the npm client does: the session id, the timestamps that it has seen, the journals of its
queries, and every mutation until a Transition that was received after its response covers it.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.sync_live.frames import CLOSE, CONTINUATION, PING, PONG, TEXT, Ended, FrameSocket

ZERO = {"querySet": 0, "identity": 0, "ts": "AAAAAAAAAAA="}


def decode_ts(text: str) -> int:
    """Nanoseconds of a timestamp (``sync.md`` section 3.1)."""
    raw = base64.b64decode(text, validate=True)
    assert len(raw) == 8, text
    return int.from_bytes(raw, "little")


def encode_ts(ts: int) -> str:
    """The text of a timestamp."""
    return base64.b64encode(ts.to_bytes(8, "little")).decode()


@dataclass
class Query:
    """One subscription; its id stays over reconnects."""

    id: int
    name: str
    path: str
    args: dict[str, Any]
    journal: str | None = None
    journal_known: bool = False


@dataclass
class Request:
    """A mutation that is not settled yet."""

    id: int
    message: dict[str, Any]
    tag: str
    response: dict[str, Any] | None = None
    answered_here: bool = False


class ProtocolError(AssertionError):
    """The server broke a rule of ``sync.md``."""


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise ProtocolError(text)


class SyncClient:
    """One client object with at most one connection.

    :param on_transition: called with (timestamp, results by query name) after each Transition; failed queries are left out.
    :param on_response: called with (request, response) once per connection that answers.
    """

    def __init__(
        self,
        port: int,
        *,
        on_transition: Callable[[int, dict[str, Any]], None] = lambda _ts, _values: None,
        on_response: Callable[[Request, dict[str, Any]], None] = lambda _request, _response: None,
        receive_buffer: int | None = None,
    ) -> None:
        self._port = port
        self._on_transition = on_transition
        self._on_response = on_response
        self._receive_buffer = receive_buffer
        self._session = str(uuid.uuid4())
        self._next_query = 0
        self._next_request = 0
        self.socket: FrameSocket | None = None
        self.connections = 0
        self.max_observed: int | None = None
        self.queries: dict[int, Query] = {}
        self.requests: OrderedDict[int, Request] = OrderedDict()
        self.results: dict[int, dict[str, Any]] = {}
        self.transitions = 0
        self.close_reason: str | None = "InitialConnect"
        self._reset_connection()

    def _reset_connection(self) -> None:
        self.socket = None
        self.version = ZERO
        self._sent_query_set = 0
        #: Newest timestamp that the server was told of when this connection began.
        self._told = 0
        #: Query set version to ids that were added, removed by it.
        self._unconfirmed: list[tuple[int, set[int], set[int]]] = []
        self._shown: dict[int, str] = {}
        self._last_answered = -1
        self._parts: list[str] = []
        self._message = b""

    # -- connection ---------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Open a socket and send all that an npm client would. :raises OSError, Ended, AssertionError: it did not open."""
        self._reset_connection()
        sock = FrameSocket(self._port, receive_buffer=self._receive_buffer)
        try:
            sock.handshake()
        except BaseException:
            sock.close()
            raise
        self.socket = sock
        hello: dict[str, Any] = {
            "type": "Connect",
            "sessionId": self._session,
            "connectionCount": self.connections,
            "lastCloseReason": self.close_reason,
            "clientTs": time.time_ns() // 1_000_000,
        }
        self._told = self.max_observed or 0
        if self.max_observed is not None:
            hello["maxObservedTimestamp"] = encode_ts(self.max_observed)
        self.connections += 1
        self.send(hello)
        self._modify(list(self.queries.values()), [])
        for request in self.requests.values():
            request.answered_here = False
            self.send(request.message)

    @property
    def connected(self) -> bool:
        """Whether there is a socket."""
        return self.socket is not None

    def drop(self, *, reset: bool = False) -> None:
        """Close TCP without a word."""
        if self.socket is not None:
            if reset:
                self.socket.reset()
            else:
                self.socket.close()
        self.close_reason = "closed with code 1006"
        self._reset_connection()

    def send(self, message: dict[str, Any]) -> None:
        """Send one message of any kind."""
        assert self.socket is not None
        self.socket.send(TEXT, json.dumps(message).encode())

    # -- queries and requests -----------------------------------------------------------------------------------------

    def subscribe(self, name: str, path: str, args: dict[str, Any]) -> int:
        """Add one query. :returns: its id."""
        return self.modify([(name, path, args)], [])[0]

    def modify(self, added: list[tuple[str, str, dict[str, Any]]], removed: list[int]) -> list[int]:
        """Add and remove queries with one message. :returns: the ids of those added."""
        queries = []
        for name, path, args in added:
            queries.append(Query(self._next_query, name, path, args))
            self._next_query += 1
        for query in queries:
            self.queries[query.id] = query
        for query_id in removed:
            del self.queries[query_id]
            self.results.pop(query_id, None)
        if self.socket is not None:
            self._modify(queries, removed)
        return [query.id for query in queries]

    def _modify(self, added: list[Query], removed: list[int]) -> None:
        modifications: list[dict[str, Any]] = []
        for query in added:
            add = {"type": "Add", "queryId": query.id, "udfPath": query.path, "args": [query.args]}
            if query.journal_known:
                add["journal"] = query.journal
            modifications.append(add)
        modifications += [{"type": "Remove", "queryId": query_id} for query_id in removed]
        base = self._sent_query_set
        self._sent_query_set += 1
        self._unconfirmed.append((self._sent_query_set, {query.id for query in added}, set(removed)))
        self.send(
            {
                "type": "ModifyQuerySet",
                "baseVersion": base,
                "newVersion": self._sent_query_set,
                "modifications": modifications,
            }
        )

    def mutate(self, path: str, args: dict[str, Any], tag: str) -> Request:
        """Send a mutation now, or at the next connection."""
        number = self._next_request
        self._next_request += 1
        message = {"type": "Mutation", "requestId": number, "udfPath": path, "args": [args]}
        request = self.requests[number] = Request(number, message, tag)
        if self.socket is not None:
            self.send(message)
        return request

    def values(self) -> dict[str, Any]:
        """Results by query name, of those that did not fail."""
        found = {}
        for query_id, result in self.results.items():
            if result["type"] == "QueryUpdated" and query_id in self.queries:
                found[self.queries[query_id].name] = result["value"]
        return found

    @property
    def settled(self) -> bool:
        """Whether every query has a result here and no mutation is open."""
        return self.connected and not (self.requests or self._unconfirmed)

    # -- messages from the server -------------------------------------------------------------------------------------

    def step(self, timeout: float) -> bool:
        """Handle one frame. :returns: whether there was one. :raises Ended: the connection is over; :raises ProtocolError: see there."""
        assert self.socket is not None
        try:
            frame = self.socket.frame(timeout)
        except TimeoutError:
            return False
        _require(frame.rsv == 0 and not frame.masked, f"a frame with rsv {frame.rsv}, masked {frame.masked}")
        if frame.opcode == PING:
            self.socket.send(PONG, frame.payload)
        elif frame.opcode == CLOSE:
            self.close_reason = frame.close_reason or f"closed with code {frame.close_code or 1005}"
            raise Ended(f"{frame.close_code} {frame.close_reason}")
        elif frame.opcode in (TEXT, CONTINUATION):
            _require((frame.opcode == CONTINUATION) == bool(self._message), "a fragment out of order")
            self._message += frame.payload
            if frame.fin:
                message, self._message = self._message, b""
                self._receive(json.loads(message, parse_constant=_no_constant))
        else:
            raise ProtocolError(f"a frame with opcode {frame.opcode}")
        return True

    def _receive(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "TransitionChunk":
            _require(message["partNumber"] == len(self._parts), "a chunk out of order")
            self._parts.append(message["chunk"])
            if len(self._parts) < message["totalParts"]:
                return
            message, self._parts = json.loads("".join(self._parts)), []
            kind = message["type"]
        elif kind != "Ping":
            _require(not self._parts, f"{kind} between chunks")
        if kind == "Transition":
            self._transition(message)
        elif kind == "MutationResponse":
            self._response(message)
        elif kind != "Ping":
            raise ProtocolError(f"unexpected {message}")

    def _transition(self, message: dict[str, Any]) -> None:
        start, end = message["startVersion"], message["endVersion"]
        _require(start == self.version, f"the Transition starts at {start}, not at {self.version}")
        before, ts = decode_ts(start["ts"]), decode_ts(end["ts"])
        _require(ts >= before, f"time goes back from {before} to {ts}")
        _require(end["querySet"] >= start["querySet"], "the query set goes back")
        _require(end["querySet"] <= self._sent_query_set, "a query set that was never sent")
        _require(end["identity"] >= start["identity"], "the identity goes back")
        if self.version is ZERO:
            _require(ts >= self._told, f"after a reconnect time goes back from {self._told} to {ts}")
        self._apply(message["modifications"], end["querySet"])
        self.version = end
        self.transitions += 1
        self.max_observed = max(ts, self.max_observed or 0)
        self._settle(ts)
        self._on_transition(ts, self.values())

    def _apply(self, modifications: list[dict[str, Any]], query_set: int) -> None:
        ids = [modification["queryId"] for modification in modifications]
        _require(ids == sorted(set(ids)), f"query ids {ids}")
        confirmed = [entry for entry in self._unconfirmed if entry[0] <= query_set]
        self._unconfirmed = [entry for entry in self._unconfirmed if entry[0] > query_set]
        added = {query_id for _, ids, _ in confirmed for query_id in ids}
        removed = {query_id for _, _, ids in confirmed for query_id in ids}
        to_come = {query_id for _, ids, _ in self._unconfirmed for query_id in ids}
        leaving = {query_id for _, _, ids in self._unconfirmed for query_id in ids}
        for modification in modifications:
            query_id = modification["queryId"]
            if modification["type"] == "QueryRemoved":
                _require(query_id in removed, f"query {query_id} was not removed")
                removed.discard(query_id)
                self._shown.pop(query_id, None)
                continue
            _require(modification["type"] in ("QueryUpdated", "QueryFailed"), f"unknown {modification}")
            _require(query_id not in to_come, f"query {query_id} is of a later query set")
            _require(query_id in self.queries or query_id in leaving, f"query {query_id} is not there")
            _require(isinstance(modification["logLines"], list), "log lines are no list")
            shown = json.dumps([modification.get("value"), modification.get("errorData"), modification["logLines"]])
            _require(self._shown.get(query_id) != shown, f"query {query_id} did not change: {modification}")
            self._shown[query_id] = shown
            added.discard(query_id)
            if query_id in self.queries:
                self.results[query_id] = modification
                self.queries[query_id].journal = modification["journal"]
                self.queries[query_id].journal_known = True
        _require(not (removed - added), f"removals of {removed} are not acknowledged")
        missing = added & self.queries.keys()
        _require(not missing, f"queries {missing} have no result in query set {query_set}")

    def _response(self, message: dict[str, Any]) -> None:
        number = message["requestId"]
        request = self.requests.get(number)
        if request is None:
            raise ProtocolError(f"a response to request {number}, which is not open")
        _require(not request.answered_here, f"request {number} is answered twice")
        _require(number > self._last_answered, f"request {number} is answered after {self._last_answered}")
        self._last_answered = number
        if request.response is not None and request.response["success"]:
            same = all(request.response[name] == message[name] for name in ("success", "result", "ts", "logLines"))
            _require(same, f"request {number} was answered {request.response}, then {message}")
        request.response = message
        request.answered_here = True
        self._on_response(request, message)
        if message["success"]:
            self.max_observed = max(decode_ts(message["ts"]), self.max_observed or 0)
        else:
            # A failure is final for the client; a Transition follows all the same.
            del self.requests[number]

    def _settle(self, ts: int) -> None:
        for request in list(self.requests.values()):
            if request.answered_here and request.response is not None and decode_ts(request.response["ts"]) <= ts:
                del self.requests[request.id]


def _no_constant(token: str) -> Any:
    raise ProtocolError(f"{token} is no JSON")
