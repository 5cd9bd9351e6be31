"""A whole socket in memory: Site, SyncResource and SyncProtocol over a transport whose kernel buffer the test controls."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs
import orjson
from prometheus_client import CollectorRegistry
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.web.server import Site

from convex_backend.application.keys import Keys
from convex_backend.application.settings import Settings
from convex_backend.application.types import (
    Caller,
    CallResult,
    Identity,
    LiveUpdate,
    MutationKey,
    QueryResult,
    QuerySpec,
)
from convex_backend.interfaces import FunctionError, LogLine
from convex_backend.sync.endpoint import SyncResource, make_sync_resource

T0 = 1_786_000_000_000_000_000
SESSION = "0a1b2c3d-0000-4000-8000-00000000000a"
ADMIN_KEY = "prod:x|y"


def result(value: bytes = b"null", *, journal: str | None = None, logs: list[str] | None = None) -> QueryResult:
    """A successful query result."""
    tail = b',"logLines":%s,"journal":%s}'
    journal_text = orjson.dumps(journal)
    return QueryResult(
        False,
        value,
        journal,
        b',"value":' + value + tail % (orjson.dumps(logs or []), journal_text),
        b',"value":' + value + tail % (b"[]", journal_text),
    )


def success(value: bytes = b"null", ts: int = T0, logs: tuple[LogLine, ...] = ()) -> CallResult:
    """The answer of a function that returned."""
    return CallResult(value, None, logs, ts, "0123456789abcdef")


def failure(message: str, data: bytes | None = None, *, redacted: bool = False) -> CallResult:
    """The answer of a function that threw."""
    return CallResult(None, FunctionError(message, data), (), T0, "0123456789abcdef", redacted)


@attrs.define(eq=False, slots=False)
class FakeLiveClient:
    """Hands out the updates that the test has put in; keeps the contract of ``LiveClient``."""

    identity: Identity
    on_ready: Callable[[], None]
    queries: dict[int, QuerySpec] = attrs.field(factory=dict)
    updates: deque[LiveUpdate] = attrs.field(factory=deque)
    takes: list[int] = attrs.field(factory=list)
    closed: bool = False
    fault: Exception | None = None
    automatic: bool = False
    ts: int = T0
    fresh: dict[int, QueryResult] = attrs.field(factory=dict)

    def add(self, query_id: int, query: QuerySpec) -> None:
        assert query_id not in self.queries
        self.queries[query_id] = query
        self.fresh[query_id] = result(b'"first"')

    def remove(self, query_id: int) -> None:
        del self.queries[query_id]
        self.fresh.pop(query_id, None)

    def set_identity(self, identity: Identity) -> None:
        self.identity = identity

    def take(self, at_least: int) -> LiveUpdate | None:
        assert not self.closed
        self.takes.append(at_least)
        if self.fault is not None:
            raise self.fault
        if self.automatic:
            self.ts = max(self.ts, at_least)
            changed, self.fresh = tuple(sorted(self.fresh.items(), key=lambda pair: pair[0])), {}
            return LiveUpdate(self.ts, changed)
        if not self.updates or self.updates[0].ts < at_least:
            return None
        return self.updates.popleft()

    def close(self) -> None:
        self.closed = True

    def push(self, ts: int, *changed: tuple[int, QueryResult]) -> None:
        """An update is ready."""
        self.updates.append(LiveUpdate(ts, changed))
        self.on_ready()


class FakeLive:
    """See ``Live``."""

    def __init__(self, automatic: bool) -> None:
        self.clients: list[FakeLiveClient] = []
        self._automatic = automatic

    def connect(self, identity: Identity, on_ready: Callable[[], None]) -> FakeLiveClient:
        client = FakeLiveClient(identity, on_ready, automatic=self._automatic)
        self.clients.append(client)
        return client


@attrs.define(eq=False)
class Call:
    """A function call that waits for the test's answer."""

    path: str
    args: bytes
    identity: Identity
    caller: Caller
    component_path: str | None
    key: MutationKey | None
    answer: Deferred[CallResult] = attrs.field(factory=Deferred)


class FakeApplication:
    """The facade with scripted answers.

    :param automatic: every update is ready at once; else the test pushes them.
    """

    def __init__(self, automatic: bool = False, redact: bool = False) -> None:
        self.settings = Settings("prod", "http://cloud", "http://site", "1", redact_logs_to_client=redact)
        self.live = FakeLive(automatic)
        self.keys = Keys("prod", bytes(32), lambda size: bytes(size), lambda: 1.0, ADMIN_KEY)
        self.mutations: list[Call] = []
        self.actions: list[Call] = []
        self.tokens: list[tuple[str, Deferred[Identity]]] = []
        self.observed: list[tuple[int, Deferred[None]]] = []
        self.newest = T0

    def latest_ts(self) -> int:
        return self.newest

    async def observe_ts(self, ts: int) -> None:
        waiter: Deferred[None] = Deferred()
        self.observed.append((ts, waiter))
        await waiter

    async def authenticate_user(self, token: str) -> Identity:
        waiter: Deferred[Identity] = Deferred()
        self.tokens.append((token, waiter))
        return await waiter

    async def run_mutation(
        self,
        path: str,
        args: bytes,
        identity: Identity,
        caller: Caller,
        *,
        component_path: str | None = None,
        key: MutationKey | None = None,
    ) -> CallResult:
        call = Call(path, args, identity, caller, component_path, key)
        self.mutations.append(call)
        return await call.answer

    async def run_action(
        self, path: str, args: bytes, identity: Identity, caller: Caller, *, component_path: str | None = None
    ) -> CallResult:
        call = Call(path, args, identity, caller, component_path, None)
        self.actions.append(call)
        return await call.answer


class MemorySocket(FileDescriptor):
    """A TCP transport whose peer is the test.

    :ivar room: bytes that the kernel would still take.
    """

    disconnecting = False

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self.connected = 1
        self.received = bytearray()
        self.room = 1 << 40
        self.reading = True
        self.protocol: Any = None
        self.lost = False
        self.half_closed = False

    def writeSomeData(self, data: bytes) -> int:
        count = min(len(data), self.room)
        self.room -= count
        self.received += bytes(data[:count])
        return count

    def flush(self) -> None:
        """Let the reactor write as long as the kernel takes it."""
        while self in self.reactor.writers and not self.lost:
            before = self.room
            outcome = self.doWrite()
            if outcome is not None:
                self.lose(Failure(ConnectionDone()))
            elif self.room == 0 or (before == self.room and self in self.reactor.writers):
                return

    def lose(self, reason: Failure) -> None:
        """The connection is gone."""
        if not self.lost:
            self.lost = True
            self.connectionLost(reason)
            self.protocol.connectionLost(reason)

    def _closeWriteConnection(self) -> None:
        self.half_closed = True

    def abortConnection(self) -> None:
        self.lose(Failure(ConnectionAborted()))

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", 5000)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.2", 3210)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing to do."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Nothing to do."""


def client_frame(payload: bytes, opcode: int = 1, fin: bool = True) -> bytes:
    """A masked frame (with the mask zero)."""
    head = bytes(((0x80 if fin else 0) | opcode,))
    if len(payload) < 126:
        head += bytes((0x80 | len(payload),))
    elif len(payload) < 65536:
        head += struct.pack("!BH", 0x80 | 126, len(payload))
    else:
        head += struct.pack("!BQ", 0x80 | 127, len(payload))
    return head + bytes(4) + payload


@attrs.frozen
class Frame:
    """A frame from the server."""

    opcode: int
    fin: bool
    rsv: int
    payload: bytes


def take_frames(buffer: bytearray) -> list[Frame]:
    """Remove the whole frames from *buffer*."""
    frames = []
    while len(buffer) >= 2:
        length, at = buffer[1] & 0x7F, 2
        if length == 126:
            length, at = int.from_bytes(buffer[2:4], "big"), 4
        elif length == 127:
            length, at = int.from_bytes(buffer[2:10], "big"), 10
        if len(buffer) < at + length:
            break
        first = buffer[0]
        frames.append(Frame(first & 0x0F, bool(first & 0x80), first >> 4 & 7, bytes(buffer[at : at + length])))
        del buffer[: at + length]
    return frames


class Socket:
    """One client connection, from the HTTP request on."""

    def __init__(
        self,
        server: Server,
        target: str = "/api/1.48.0/sync",
        headers: dict[str, str] | None = None,
        *,
        method: str = "GET",
        drop: tuple[str, ...] = (),
    ) -> None:
        self.transport = MemorySocket(server.clock)
        channel = server.site.buildProtocol(self.transport.getPeer())
        self.transport.protocol = channel
        channel.makeConnection(self.transport)
        fields = {
            "Host": "x",
            "Connection": "keep-alive, Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        for name in drop:
            del fields[name]
        fields.update(headers or {})
        request = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.frames: list[Frame] = []
        self._feed(request.encode() + b"\r\n")
        self.transport.flush()
        head, _, rest = bytes(self.transport.received).partition(b"\r\n\r\n")
        self.status = int(head.split()[1])
        self.head = head.decode()
        self.transport.received[:] = rest
        self.body = rest
        known = len(server.application.live.clients)
        self.live = server.application.live.clients[-1] if self.status == 101 and known else None

    @property
    def protocol(self) -> Any:
        """The server's side."""
        return self.transport.protocol

    def _feed(self, data: bytes) -> None:
        self.transport.protocol.dataReceived(data)

    def send(self, *trees: dict[str, Any]) -> None:
        """Messages as JSON."""
        self.send_bytes(b"".join(client_frame(orjson.dumps(tree)) for tree in trees))

    def send_bytes(self, data: bytes) -> None:
        """Raw bytes of frames."""
        if not self.transport.lost:
            self._feed(data)
        self.transport.flush()

    def read_frames(self) -> list[Frame]:
        """All frames that have come since the last reading."""
        self.transport.flush()
        return take_frames(self.transport.received)

    def read(self) -> list[dict[str, Any]]:
        """All text messages that have come, joined from their frames; a close frame is ``{"close": code, "reason": …}``."""
        trees: list[dict[str, Any]] = []
        for frame in self.read_frames():
            if frame.opcode in (0, 1):
                self.frames.append(frame)
                if frame.fin:
                    trees.append(orjson.loads(b"".join(part.payload for part in self.frames)))
                    self.frames.clear()
            elif frame.opcode == 8:
                code = int.from_bytes(frame.payload[:2], "big") if frame.payload else None
                trees.append({"close": code, "reason": frame.payload[2:].decode()})
        return trees


class Server:
    """The sync resource on a Site, with a clock that the test turns."""

    def __init__(self, automatic: bool = False, redact: bool = False, **options: Any) -> None:
        self.clock = MemoryReactorClock()
        self.now_ns = T0
        self.application = FakeApplication(automatic, redact)
        self.registry = CollectorRegistry()
        self.resource: SyncResource = make_sync_resource(
            self.application,
            self.clock,
            self.registry,
            now_ns=lambda: self.now_ns,
            random_bytes=lambda size: b"\xab" * size,
            **options,
        )
        self.site = Site(self.resource, reactor=self.clock)

    def open(self, target: str = "/api/1.48.0/sync", **options: Any) -> Socket:
        """A client connects."""
        return Socket(self, target, **options)

    def pass_seconds(self, seconds: float) -> None:
        """Let time pass, a second at a time."""
        for _ in range(int(seconds)):
            self.now_ns += 1_000_000_000
            self.clock.advance(1)

    def metric(self, name: str, **labels: str) -> float | None:
        """A metric's value."""
        return self.registry.get_sample_value(name, labels)


def connect(**fields: Any) -> dict[str, Any]:
    """A ``Connect``."""
    return {"type": "Connect", "sessionId": SESSION, "connectionCount": 0, **fields}


def add(query_id: int, path: str = "m:q", **fields: Any) -> dict[str, Any]:
    """An ``Add``."""
    return {"type": "Add", "queryId": query_id, "udfPath": path, "args": [{}], **fields}


def modify(base: int, *modifications: dict[str, Any]) -> dict[str, Any]:
    """A ``ModifyQuerySet`` from *base* to the next version."""
    return {
        "type": "ModifyQuerySet",
        "baseVersion": base,
        "newVersion": base + 1,
        "modifications": list(modifications),
    }


def mutation(request_id: int, path: str = "m:send", **fields: Any) -> dict[str, Any]:
    """A ``Mutation``."""
    return {"type": "Mutation", "requestId": request_id, "udfPath": path, "args": [{}], **fields}


def action(request_id: int, path: str = "m:act", **fields: Any) -> dict[str, Any]:
    """An ``Action``."""
    return {"type": "Action", "requestId": request_id, "udfPath": path, "args": [{}], **fields}


def authenticate(base: int, kind: str = "User", value: str | None = "a.b.c", **fields: Any) -> dict[str, Any]:
    """An ``Authenticate``."""
    tree = {"type": "Authenticate", "baseVersion": base, "tokenType": kind, **fields}
    return tree if value is None else {**tree, "value": value}
