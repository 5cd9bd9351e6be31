"""The load generator: a process of its own. Commands come as JSON lines on stdin, answers go as JSON lines to stdout.

=============  ===================================================================================================
``http``       ``{name, port, connections, path, bodies}``: clients that POST one of *bodies* after the other
``callers``    ``{name, port, connections, path, args}``: WebSockets that run a mutation with one of *args* after the other
``subscribe``  ``{name, port, sockets, path, args, each, plain}`` → seconds until all have their first results
``run``        ``{name, seconds}`` → a window of calls of *name*, each client with one at a time
``broadcast``  ``{name, caller, rounds, trigger?, beside?}``: a call, and the time until the last subscriber has been told
``close``      ``{name}``
=============  ===================================================================================================

``@N@`` in a body or in args becomes a number that was not used before. *bodies* and *args* are names of files with a JSON text a line.
"""

from __future__ import annotations

import gc
import itertools
import json
import resource
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.wire import HttpConnection, Loop, WebSocket, frame, http_request, open_sockets

clock = time.perf_counter
_numbers = itertools.count(1_000_000_000)


def lines_of(file: str) -> list[bytes]:
    """The texts of a file, one a line."""
    return Path(file).read_bytes().splitlines()


def _numbered(text: bytes) -> bytes:
    return text.replace(b"@N@", b"%d" % next(_numbers))


class Calls:
    """Clients that call in a closed loop, and what they measured."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.clients: list[Client] = []
        self.running = False
        self.busy = 0
        self.begin(0.0)

    def begin(self, now: float) -> None:
        """Forget what was measured."""
        self.began = now
        self.times: list[float] = []
        self.failed = 0
        self.failure = ""

    def start(self) -> None:
        """Let each client call, again and again."""
        self.begin(clock())
        self.running = True
        for client in self.clients:
            client.next()

    def stop(self) -> dict[str, Any]:
        """Wait for the last answers. :returns: figures of the window."""
        self.running = False
        ended = clock()
        self.loop.run(lambda: self.busy == 0, 30.0)
        lost = self.busy
        self.busy = 0
        return {**figures(self.times, ended - self.began), "failed": self.failed + lost, "failure": self.failure}

    def ended(self, seconds: float, good: bool, answer: bytes) -> None:
        """A call has ended."""
        self.busy -= 1
        self.times.append(seconds)
        if not good:
            self.failed += 1
            self.failure = answer[:500].decode(errors="replace")


class Client:
    """One caller."""

    def __init__(self, calls: Calls, make: Callable[[], bytes]) -> None:
        self.calls = calls
        self.make = make
        self.sent = 0.0

    def next(self) -> None:
        """Send a call."""
        self.calls.busy += 1
        self.sent = clock()
        self.transmit()

    def transmit(self) -> None:
        """Put the call on the wire."""
        raise NotImplementedError

    def done(self, good: bool, answer: bytes) -> None:
        """The answer is there."""
        self.calls.ended(clock() - self.sent, good, answer)
        if self.calls.running:
            self.next()


class HttpClient(Client):
    """Calls by HTTP."""

    def __init__(self, calls: Calls, make: Callable[[], bytes], port: int) -> None:
        super().__init__(calls, make)
        self.connection = HttpConnection(calls.loop, port)
        self.connection.answered = self.answered
        self.connection.lost = self.lost

    def transmit(self) -> None:
        """See :class:`Client`."""
        self.connection.send(self.make())

    def answered(self, head: bytes, body: bytes) -> None:
        """The answer of :attr:`connection`."""
        good = head.startswith(b"HTTP/1.1 200") and body.startswith(b'{"status":"success"')
        self.done(good, body if good else head + body)

    def lost(self) -> None:
        """The server hung up."""
        self.calls.running = False
        self.done(False, b"the connection was lost")


class SocketClient(Client):
    """Mutations by WebSocket."""

    def __init__(self, calls: Calls, make: Callable[[], bytes], socket: WebSocket, path: str) -> None:
        super().__init__(calls, make)
        self.socket = socket
        socket.message = self.message
        socket.lost = self.lost
        self._head = b'{"type":"Mutation","udfPath":"%s","requestId":' % path.encode()
        self._request = -1
        connect = {"type": "Connect", "sessionId": str(uuid.uuid4()), "connectionCount": 0, "lastCloseReason": None}
        socket.send(frame(json.dumps(connect).encode()))
        socket.send(frame(b'{"type":"ModifyQuerySet","baseVersion":0,"newVersion":1,"modifications":[]}'))

    def transmit(self) -> None:
        """See :class:`Client`."""
        self._request += 1
        self.socket.send(frame(b'%s%d,"args":[%s]}' % (self._head, self._request, self.make())))

    def message(self, text: bytes) -> None:
        """A message of the server."""
        if text.startswith(b'{"type":"MutationResponse"'):
            if b'"requestId":%d,' % self._request not in text:
                raise ValueError(f"an answer to another request than {self._request}: {text[:200]!r}")
            self.done(b'"success":true' in text, text)

    def lost(self) -> None:
        """The server hung up."""
        self.calls.running = False
        self.done(False, b"the WebSocket was lost")


class Subscribers:
    """Sockets that only listen. :ivar count: updates since it was set to 0."""

    def __init__(self) -> None:
        self.sockets: list[WebSocket] = []
        self.count = 0
        self.bytes = 0
        self.lost = 0

    def updated(self, text: bytes) -> None:
        """A message of a sync socket: a Transition may hold several new results."""
        found = text.count(b'"QueryUpdated"')
        if found:
            self.count += found
            self.bytes = len(text)
        elif b'"QueryFailed"' in text or b"Error" in text:
            raise ValueError(text[:500].decode(errors="replace"))

    def plain(self, text: bytes) -> None:
        """A message of the bare broadcast."""
        self.count += 1
        self.bytes = len(text)

    def gone(self) -> None:
        """A socket was closed."""
        self.lost += 1


def figures(times: list[float], seconds: float) -> dict[str, Any]:
    """Throughput and percentiles of *times* (s) measured within so many *seconds*."""
    ordered = sorted(times)
    count = len(ordered)

    def percentile(share: float) -> float:
        return ordered[min(count - 1, int(count * share))] * 1000 if count else 0.0

    return {
        "count": count,
        "seconds": seconds,
        "rate": count / seconds if seconds else 0.0,
        "p50_ms": percentile(0.5),
        "p99_ms": percentile(0.99),
    }


class Generator:
    """The commands at the top of the file."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.calls: dict[str, Calls] = {}
        self.subscribers: dict[str, Subscribers] = {}

    def http(self, name: str, port: int, connections: int, path: str, bodies: str) -> None:
        """See the top of the file."""
        requests = itertools.cycle([http_request(path, body) for body in lines_of(bodies)])
        texts = itertools.cycle(lines_of(bodies))
        if b"@N@" in next(texts):
            make: Callable[[], bytes] = lambda: http_request(path, _numbered(next(texts)))  # noqa: E731
        else:
            make = requests.__next__
        calls = self.calls[name] = Calls(self.loop)
        calls.clients = [HttpClient(calls, make, port) for _ in range(connections)]

    def callers(self, name: str, port: int, connections: int, path: str, args: str) -> None:
        """See the top of the file."""
        texts = itertools.cycle(lines_of(args))
        calls = self.calls[name] = Calls(self.loop)
        sockets = open_sockets(self.loop, port, connections, WebSocket)
        calls.clients = [SocketClient(calls, lambda: _numbered(next(texts)), one, path) for one in sockets]

    def subscribe(
        self,
        name: str,
        port: int,
        sockets: int,
        path: str = "",
        args: str = "{}",
        each: int = 1,
        plain: bool = False,
        seconds: float = 120.0,
        token: str | None = None,
    ) -> dict[str, Any]:
        """See the top of the file. *args* is the text itself here; *each* queries on every socket. With an admin key as *token*, each client
        signs in before it subscribes, as one that reconnects does."""
        group = self.subscribers[name] = Subscribers()

        def make(loop: Loop, port: int) -> WebSocket:
            one = WebSocket(loop, port)
            one.message = group.plain if plain else group.updated
            one.lost = group.gone
            return one

        began = clock()
        group.sockets = open_sockets(self.loop, port, sockets, make)
        connected = clock()
        if not plain:
            for one in group.sockets:
                hello = {"type": "Connect", "sessionId": str(uuid.uuid4()), "connectionCount": 0, "clientTs": 0}
                adds = b",".join(
                    b'{"type":"Add","queryId":%d,"udfPath":"%s","args":[%s]}'
                    % (number, path.encode(), _numbered(args.encode()))
                    for number in range(each)
                )
                one.send(frame(json.dumps({**hello, "lastCloseReason": "InitialConnect"}).encode()))
                if token is not None:
                    sign_in = {"type": "Authenticate", "baseVersion": 0, "tokenType": "Admin", "value": token}
                    one.send(frame(json.dumps(sign_in).encode()))
                one.send(frame(b'{"type":"ModifyQuerySet","baseVersion":0,"newVersion":1,"modifications":[%s]}' % adds))
            if not self.loop.run(lambda: group.count >= sockets * each, seconds):
                raise TimeoutError(f"{group.count} of {sockets * each} first results")
        return {"connect_seconds": connected - began, "results_seconds": clock() - connected, "bytes": group.bytes}

    def run(self, name: str, seconds: float) -> dict[str, Any]:
        """See the top of the file."""
        calls = self.calls[name]
        before = resource.getrusage(resource.RUSAGE_SELF)
        calls.start()
        self.loop.run(lambda: not calls.running, seconds)
        result = calls.stop()
        after = resource.getrusage(resource.RUSAGE_SELF)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {**result, "own_cpu": used / result["seconds"]}

    def broadcast(
        self, name: str, caller: str, rounds: int, trigger: str | None = None, beside: str | None = None
    ) -> dict[str, Any]:
        """See the top of the file. *trigger* is a plain message of a subscriber that is not counted; *beside* calls meanwhile."""
        group = self.subscribers[name]
        calls = self.calls[caller] if trigger is None else None
        talker = self.subscribers[caller].sockets[0] if trigger is not None else None
        other = self.calls[beside] if beside is not None else None
        wanted = sum(one.alive for one in group.sockets)
        last: list[float] = []
        answers: list[float] = []
        others: list[float] = []
        failed = 0
        for _ in range(rounds):
            group.count = 0
            if other is not None:
                other.start()
            began = clock()
            if calls is not None:
                calls.begin(began)
                calls.clients[0].next()
            else:
                assert talker is not None and trigger is not None
                talker.send(frame(trigger.encode()))
            if not self.loop.run(lambda: group.count >= wanted, 60.0):
                raise TimeoutError(f"{group.count} of {wanted} subscribers were told")
            last.append(clock() - began)
            if calls is not None:
                self.loop.run(lambda: calls.busy == 0, 30.0)
                answers += calls.times
                failed += calls.failed
            if other is not None:
                failed += other.stop()["failed"]
                others += other.times
        return {
            "last": figures(last, sum(last)),
            "answer": figures(answers, sum(last)),
            "beside": figures(others, sum(last)),
            "bytes": group.bytes,
            "failed": failed,
        }

    def close(self, name: str) -> None:
        """See the top of the file."""
        calls = self.calls.pop(name, None)
        if calls is not None:
            for client in calls.clients:
                (client.connection if isinstance(client, HttpClient) else client.socket).close()  # type: ignore[attr-defined]
        group = self.subscribers.pop(name, None)
        if group is not None:
            for one in group.sockets:
                one.close()


def main() -> None:
    """Obey commands until stdin ends."""
    gc.disable()
    generator = Generator()
    commands = {
        name: getattr(generator, name) for name in ("http", "callers", "subscribe", "run", "broadcast", "close")
    }
    for line in sys.stdin:
        command = json.loads(line)
        try:
            result = commands[command.pop("do")](**command)
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
