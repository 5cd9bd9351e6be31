"""A site over scripted use cases, and a client that talks to it in bytes: no socket, no reactor."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from prometheus_client import CollectorRegistry
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from convex_backend.application.function_log import FunctionLog
from convex_backend.application.keys import Keys
from convex_backend.application.push_history import HistoryEntry
from convex_backend.application.rollback import RolledBack
from convex_backend.application.run_http_action import HttpAnswer, HttpRequest
from convex_backend.application.settings import Settings
from convex_backend.application.types import Caller, CallResult, Identity
from convex_backend.errors import Unauthenticated
from convex_backend.interfaces import FunctionError, LogLine
from convex_backend.web.site import BackendSite, make_site

INSTANCE = "tests"
TS = 1_700_000_000_000_000_000
USER = Identity("user", attributes=(("tokenIdentifier", "issuer|ann"),))
GOOD_TOKEN = "good.user.token"


@attrs.frozen
class Call:
    """One call that reached the application."""

    what: str
    path: str
    args: bytes
    identity: Identity
    caller: Caller
    more: dict[str, Any]


def success(value: bytes = b"null", *lines: LogLine) -> CallResult:
    """A function's answer."""
    return CallResult(value, None, lines, TS, "id")


def failure(message: str, data: bytes | None = None, *lines: LogLine, redacted: bool = False) -> CallResult:
    """A function's failure."""
    return CallResult(None, FunctionError(message, data), lines, TS, "id", redacted)


class FakeDeploy:
    """Notes what it is asked and gives ``answer`` (a value, an error to raise, or a Deferred to wait for)."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.answer: Any = {}

    async def get_config_hashes(self) -> Any:
        return await self._give("get_config_hashes", None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in (
            "start_push",
            "evaluate_push",
            "evaluate_schema",
            "wait_for_schema",
            "finish_push",
        ):
            raise AttributeError(name)

        async def call(request: Any, identity: Identity, caller: Caller | None = None) -> Any:
            assert identity.is_admin
            return await self._give(name, request)

        return call

    async def _give(self, name: str, request: Any) -> Any:
        self.calls.append((name, request))
        if isinstance(self.answer, Exception):
            raise self.answer
        return await self.answer if isinstance(self.answer, Deferred) else self.answer


class FakeHttpAction:
    """An HTTP action whose part the test plays: what reaches it is noted, and ``listener`` takes its response."""

    def __init__(self, request: HttpRequest, identity: Identity, caller: Caller, listener: Any) -> None:
        self.request = request
        self.identity = identity
        self.caller = caller
        self.listener = listener
        self.on_room: Callable[[], None] = lambda: None
        self.has_room = True
        self.has_begun = True
        self.request_bytes = 0
        self.received: list[bytes] = []
        self.ended = False
        self.failure: str | None = None
        self.taken_bytes = 0
        self.gone = False
        self.over: Deferred[HttpAnswer | None] = Deferred()

    @property
    def body(self) -> bytes:
        return b"".join(self.received)

    def write(self, data: bytes) -> None:
        self.request_bytes += len(data)
        self.received.append(data)

    def end(self) -> None:
        self.ended = True

    def fail(self, text: str) -> None:
        self.failure = text

    def taken(self, size: int) -> None:
        self.taken_bytes += size

    def client_gone(self) -> None:
        self.gone = True

    async def run(self) -> HttpAnswer | None:
        return await self.over


class FakeSimpleDeploy:
    """Notes requests; ``answer`` is what a deploy gives, or the error that it raises."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Identity, Caller]] = []
        self.answer: Any = {"success": True, "warnings": []}

    async def deploy(self, tree: Any, identity: Identity, caller: Caller) -> Any:
        self.calls.append((tree, identity, caller))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class FakeRollbacks:
    """A history of ``pushes``, newest first."""

    def __init__(self) -> None:
        self.pushes = [
            HistoryEntry(2, 1.0, "npm-cli", "1.48.0", None, {}, True),
            HistoryEntry(1, 0.0, "npm-cli", "1.48.0", "first", {}, False),
        ]
        self.calls: list[tuple[int | None, Identity]] = []
        self.error: Exception | None = None

    async def entries(self, identity: Identity, limit: int) -> list[HistoryEntry]:
        return self.pushes[:limit]

    async def roll_back(self, number: int | None, identity: Identity, caller: Caller) -> RolledBack:
        self.calls.append((number, identity))
        if self.error is not None:
            raise self.error
        return RolledBack(number or 1, self.pushes[0])


class FakeDemo:
    """A demo's page, when there are ``pages``."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}

    def page(self, name: str) -> bytes | None:
        return self.pages.get(name)


class FakeEnvironment:
    """Variables in a dict."""

    def __init__(self) -> None:
        self.variables: dict[str, str] = {"FOO": "bar"}
        self.updates: list[list[tuple[str, str | None]]] = []
        self.error: Exception | None = None

    def list(self) -> dict[str, str]:
        return self.variables

    async def update(self, changes: list[tuple[str, str | None]]) -> None:
        if self.error is not None:
            raise self.error
        self.updates.append(changes)


class FakeSigningKeys:
    """The deployment's public keys."""

    async def key_set(self) -> dict[str, Any]:
        return {"keys": [{"kid": "k1"}]}


class FakeApplication:
    """The facade, scripted: ``answer`` is what each function call gives (a result, an error, a Deferred)."""

    def __init__(self, clock: Clock) -> None:
        self.settings = Settings(INSTANCE, "http://cloud.test", "http://site.test", "1.2.3")
        self.keys = Keys(INSTANCE, b"s" * 32, lambda count: b"r" * count, lambda: 1_700_000_000.0)
        self.function_log = FunctionLog(clock, lambda: TS + int(clock.seconds() * 1e9), CollectorRegistry())
        self.deploy = FakeDeploy()
        self.simple_deploy = FakeSimpleDeploy()
        self.rollbacks = FakeRollbacks()
        self.demo = FakeDemo()
        self.environment = FakeEnvironment()
        self.signing_keys = FakeSigningKeys()
        self.calls: list[Call] = []
        self.answer: Any = success()
        self.http_actions: list[FakeHttpAction] = []
        self.http_answer: Any = None

    def http_action(self, request: HttpRequest, identity: Identity, caller: Caller, listener: Any) -> FakeHttpAction:
        """A new one; it ends at once when ``http_answer`` is set."""
        made = FakeHttpAction(request, identity, caller, listener)
        if self.http_answer is not None:
            made.over = fail(self.http_answer) if isinstance(self.http_answer, Exception) else succeed(self.http_answer)
        self.http_actions.append(made)
        return made

    def latest_ts(self) -> int:
        return TS

    async def authenticate_user(self, token: str) -> Identity:
        if token != GOOD_TOKEN:
            raise Unauthenticated("NoAuthProvider", "No auth provider found")
        return USER

    async def _call(self, what: str, path: str, args: bytes, identity: Identity, caller: Caller, more: Any) -> Any:
        self.calls.append(Call(what, path, args, identity, caller, more))
        if isinstance(self.answer, Exception):
            raise self.answer
        return await self.answer if isinstance(self.answer, Deferred) else self.answer

    async def run_query(self, path: str, args: bytes, identity: Identity, caller: Caller, **more: Any) -> Any:
        return await self._call("query", path, args, identity, caller, more)

    async def run_queries(self, queries: Sequence[tuple[str, bytes]], identity: Identity, caller: Caller) -> Any:
        return [await self._call("query", path, args, identity, caller, {}) for path, args in queries]

    async def run_mutation(self, path: str, args: bytes, identity: Identity, caller: Caller, **more: Any) -> Any:
        return await self._call("mutation", path, args, identity, caller, more)

    async def run_action(self, path: str, args: bytes, identity: Identity, caller: Caller, **more: Any) -> Any:
        return await self._call("action", path, args, identity, caller, more)

    async def run_function(self, path: str, args: bytes, identity: Identity, caller: Caller, **more: Any) -> Any:
        return await self._call("function", path, args, identity, caller, more)


class SyncStub(Resource):
    """Stands where the sync socket is."""

    isLeaf = True

    def render(self, request: Any) -> bytes:
        return b"sync " + request.uri


@attrs.frozen
class Answer:
    """One response as it came over the wire; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        """Status and code of an error, which is JSON."""
        assert self.headers["content-type"] == "application/json", self
        tree = self.json
        assert set(tree) == {"code", "message"}
        return self.status, tree["code"]


class Connection:
    """One TCP connection to a site."""

    def __init__(self, site: BackendSite) -> None:
        self.transport = StringTransport(peerAddress=IPv4Address("TCP", "192.0.2.7", 4000))
        self.protocol = site.buildProtocol(self.transport.getPeer())
        # The timers of Twisted's HTTP go through the site's own clock.
        self.protocol.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        self.protocol.dataReceived(data)

    def lose(self) -> None:
        """The client goes away."""
        self.protocol.connectionLost(Failure(ConnectionDone()))

    def answer(self, method: str = "GET") -> Answer | None:
        """The first response that is complete, taken off the wire; ``None`` while there is none."""
        data = self.transport.value()
        head, found, rest = data.partition(b"\r\n\r\n")
        if not found:
            return None
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(": ")
            assert name.lower() not in headers, f"two headers {name}"
            headers[name.lower()] = value
        size = 0 if method == "HEAD" else int(headers["content-length"])
        if len(rest) < size:
            return None
        self.transport.clear()
        self.transport.write(rest[size:])
        return Answer(int(status.split(" ")[1]), headers, rest[:size])


class Bench:
    """A site, its application, its clock, and requests to it."""

    def __init__(self, of: Callable[[BackendSite], BackendSite] = lambda site: site) -> None:
        self.clock = Clock()
        self.registry = CollectorRegistry()
        self.application = FakeApplication(self.clock)
        self.cloud = make_site(self.application, SyncStub(), self.registry, self.clock)  # type: ignore[arg-type]
        self.site = of(self.cloud)
        self.key = self.application.keys.issue()
        self.read_only_key = self.application.keys.issue(read_only=True)

    def connect(self) -> Connection:
        return Connection(self.site)

    @staticmethod
    def head(method: str, target: str, headers: Mapping[str, str], size: int | None) -> bytes:
        lines = [f"{method} {target} HTTP/1.1", "Host: tests.example", *(f"{n}: {v}" for n, v in headers.items())]
        if size is not None:
            lines.append(f"Content-Length: {size}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def begin(self, method: str, target: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Connection:
        """Send a request and leave it at that. *body* is bytes, or a tree to be sent as JSON."""
        connection = self.connect()
        raw = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        connection.send(self.head(method, target, headers or {}, None if raw is None else len(raw)) + (raw or b""))
        return connection

    def ask(self, method: str, target: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Send a request that is answered at once."""
        answer = self.begin(method, target, body, headers).answer(method)
        assert answer is not None, "no answer yet"
        return answer

    def admin(self, method: str, target: str, body: Any = None, **headers: str) -> Answer:
        """:meth:`ask` with the admin key in the header."""
        return self.ask(method, target, body, {"Authorization": f"Convex {self.key}", **headers})

    @property
    def in_flight(self) -> int:
        return self.cloud.front.in_flight.count

    @property
    def last_call(self) -> Call:
        return self.application.calls[-1]
