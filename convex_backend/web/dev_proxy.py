"""What is not ours goes to the front end's dev server (``--site-url``), so that page and backend have one origin while an app is being written.

::

    request ── path of ours? ──► routes, /http, sync socket
                 └─ no ──► treq ──► dev server          both bodies streamed, the slower side holds the other back
    WebSocket upgrade ── not ours ──► TCP ──► dev server ── 101 ──► bytes passed on as they are: hot module reload
                                                        └─ other status ──► that status, and the connection is HTTP as before

Headers of the connection are dropped, those that name the client are added; cookies and redirects are the browser's and the page's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http import NO_BODY_CODES, PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from convex_backend.web.errors import status_of
from convex_backend.web.routing import Front, send, stopping_error

CONNECT_SECONDS: Final = 5.0
#: Of the connection, not of the message; ``accept-encoding`` because what arrives packed is unpacked on the way.
_HOP: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
#: Of the dev server's answer to an upgrade.
_HEAD_BYTES: Final = 64 * 1024
_SWITCHED: Final = re.compile(rb"HTTP/1\.1 101[ \r]")
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([45]\d\d)[ \r]")
_NOT_UPSTREAM: Final = _HOP | {b"host", b"accept-encoding", b"content-length", b"expect"}


class DevSiteProxy(Resource):
    """The leaf for every path that is not ours.

    :param url: origin of the dev server, with or without a path in front of all others.
    :param ours: first segments of the paths that never go there.
    """

    isLeaf = True
    _log = Logger()

    def __init__(self, url: str, front: Front, ours: frozenset[bytes], reactor: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        parts = urlsplit(url)
        self._url = url.rstrip("/")
        self._netloc = parts.netloc.encode("ascii")
        self._prefix = parts.path.rstrip("/").encode("ascii")
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._secure else 80)
        self._front = front
        self._ours = ours
        self._reactor = reactor
        self._agent: Any = None
        self._tunnels: set[_Side] = set()
        self._forwarding: set[Deferred[None]] = set()

    def takes(self, path: bytes) -> bool:
        """Whether *path* is not ours."""
        return path[1:].partition(b"?")[0].partition(b"/")[0] not in self._ours

    def close(self) -> None:
        """The server stops: close the WebSockets that pass through, and give up what the dev server still sends, which may never end."""
        for side in list(self._tunnels):
            side.close()
        for work in list(self._forwarding):
            work.cancel()

    def render(self, request: Any) -> Any:
        """See ``IResource``."""
        front = self._front
        if not request.uri.startswith(b"/"):
            # Behind the dev server's address anything else would name another host or port.
            _answer(request, 400, "The target of a request must be a path.\n")
            return NOT_DONE_YET
        if front.stopping:
            _refuse_stopping(request)
            return NOT_DONE_YET
        upgrade = request.requestHeaders.getRawHeaders(b"upgrade") or [b""]
        upgrades = request.method == b"GET" and upgrade[0].lower() == b"websocket"
        serve = self._tunnel if upgrades else self._forward
        gone = False

        def lost(_: Failure) -> None:
            nonlocal gone
            gone = True
            work.cancel()

        def ended(result: Any) -> None:
            self._forwarding.discard(work)
            front.leave(work)
            if isinstance(result, Failure) and not gone:
                self._failed(request, result)

        work = Deferred.fromCoroutine(serve(request))
        front.enter(work)
        self._forwarding.add(work)
        request.notifyFinish().addErrback(lost)
        work.addBoth(ended)
        return NOT_DONE_YET

    def _failed(self, request: Any, failure: Failure) -> None:
        if request.startedWriting or request.channel is None:
            # Less than was promised.
            request.loseConnection()
            return
        if not failure.check(CancelledError):
            self._log.warn(
                "the front end's dev server at {url} failed: {error}", url=self._url, error=failure.getErrorMessage()
            )
        if self._front.stopping:
            _refuse_stopping(request)
            return
        _answer(request, 502, f"The front end's dev server at {self._url} does not answer. Is it running?\n")

    # -- requests ----------------------------------------------------------------------------------------------------------

    def _headers(self, request: Any, without: frozenset[bytes]) -> Headers:
        headers = Headers()
        if without is _NOT_UPSTREAM:
            without |= _named(request.requestHeaders)
        for name, values in request.requestHeaders.getAllRawHeaders():
            if name.lower() not in without:
                headers.setRawHeaders(name, values)
        given = request.requestHeaders.getRawHeaders
        headers.setRawHeaders(b"Host", [self._netloc])
        for name, value in (
            (b"X-Forwarded-Host", (given(b"host") or [self._netloc])[0]),
            (b"X-Forwarded-Proto", b"https" if request.isSecure() else b"http"),
            (b"X-Forwarded-For", str(getattr(request.getClientAddress(), "host", "")).encode("ascii")),
        ):
            if not headers.hasHeader(name):
                headers.setRawHeaders(name, [value])
        return headers

    async def _forward(self, request: Any) -> None:
        if self._agent is None:
            pool = HTTPConnectionPool(self._reactor, persistent=True)
            pool.maxPersistentPerHost = 16
            self._agent = Agent(self._reactor, connectTimeout=CONNECT_SECONDS, pool=pool)
        data: Any = None
        if request.body is not None:
            length = request.requestHeaders.getRawHeaders(b"content-length")
            data = _Upload(request.body, int(length[0]) if length else UNKNOWN_LENGTH)
        # A client of its own for each: treq keeps cookies, and these are the browsers'.
        response = await HTTPClient(self._agent).request(
            request.method.decode("ascii"),
            f"{self._url}{request.uri.decode('latin-1')}",
            headers=self._headers(request, _NOT_UPSTREAM),
            data=data,
            allow_redirects=False,
            unbuffered=True,
        )
        request.setResponseCode(response.code, response.phrase)
        hop = _HOP | _named(response.headers)
        for name, values in response.headers.getAllRawHeaders():
            if name.lower() not in hop:
                request.responseHeaders.setRawHeaders(name, values)
        # Twisted keeps the length for itself; what is unpacked on the way has none that is known.
        if response.length is not UNKNOWN_LENGTH and request.method != b"HEAD" and response.code not in NO_BODY_CODES:
            request.responseHeaders.setRawHeaders(b"content-length", [b"%d" % response.length])
        over: Deferred[None] = Deferred(lambda _: download.stop())
        download = _Download(request, over)
        response.deliverBody(download)
        await over
        request.finish()

    # -- WebSockets --------------------------------------------------------------------------------------------------------

    async def _tunnel(self, request: Any) -> None:
        from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS

        endpoint: Any = HostnameEndpoint(self._reactor, self._host, self._port, timeout=CONNECT_SECONDS)
        if self._secure:
            from twisted.internet.ssl import optionsForClientTLS

            endpoint = wrapClientTLS(optionsForClientTLS(self._host), endpoint)
        upstream: Any = await endpoint.connect(Factory.forProtocol(_Side))
        headers = self._headers(request, frozenset((b"host",)))
        head = [b"%s %s%s HTTP/1.1" % (request.method, self._prefix, request.uri)]
        head += [b"%s: %s" % (name, value) for name, values in headers.getAllRawHeaders() for value in values]
        upstream.transport.write(b"\r\n".join([*head, b"", b""]))
        try:
            answer = await upstream.head
        except CancelledError:
            upstream.close()
            raise
        if not _SWITCHED.match(answer):
            # What follows on the browser's connection is meant for us as well, keys included.
            upstream.close()
            status = _STATUS.match(answer)
            _answer(request, int(status[1]) if status else 502, "The front end's dev server opened no WebSocket.\n")
            return
        # From here on the connection is no longer HTTP; the channel knows nothing of it.
        channel = request.channel
        channel.setTimeout(None)
        transport, channel.transport = channel.transport, None
        transport.unregisterProducer()
        browser = _Side()
        transport.protocol = browser
        browser.makeConnection(transport)  # type: ignore[no-untyped-call]
        browser.join(upstream, self._tunnels)


@implementer(IBodyProducer)
class _Upload:
    """A request's body on its way to the dev server."""

    def __init__(self, body: Any, length: Any) -> None:
        self.length = length
        self.on_room: Callable[[], None] = lambda: None
        self.has_room = True
        self._body = body
        self._consumer: Any = None
        self._over: Deferred[None] = Deferred()

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IBodyProducer``."""
        self._consumer = consumer
        self._body.deliver(self)
        return self._over

    def write(self, data: bytes) -> None:
        """See ``BodySink``."""
        if self._consumer is not None:
            self._consumer.write(data)

    def end(self) -> None:
        """See ``BodySink``."""
        if self._consumer is not None:
            self._consumer = None
            self._over.callback(None)

    def fail(self, text: str) -> None:
        """See ``BodySink``."""
        if self._consumer is not None:
            self._consumer = None
            self._over.errback(Failure(ConnectionError(text)))

    def pauseProducing(self) -> None:
        """See ``IPushProducer``."""
        self.has_room = False

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        self.has_room = True
        self.on_room()

    def stopProducing(self) -> None:
        """See ``IPushProducer``: the dev server wants no more."""
        self._consumer = None
        self._body.discard()


class _Download(Protocol):
    """A response's body on its way to the browser."""

    def __init__(self, request: Any, over: Deferred[None]) -> None:
        self._request = request
        self._over = over

    def connectionMade(self) -> None:
        """The head is there."""
        self._request.registerProducer(self.transport, True)
        self._request.write(b"")

    def dataReceived(self, data: bytes) -> None:
        """Some of the body."""
        if not self._over.called:
            self._request.write(data)

    def stop(self) -> None:
        """The browser is gone."""
        transport: Any = self.transport
        if transport is not None:
            transport.loseConnection()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The end of the body, good or bad."""
        if self._over.called:
            return
        self._request.unregisterProducer()
        if reason is None or reason.check(ResponseDone, PotentialDataLoss):
            self._over.callback(None)
        else:
            self._over.errback(reason)


class _Side(Protocol):
    """One end of a WebSocket that passes through."""

    def __init__(self) -> None:
        self._other: _Side | None = None
        self._early: list[bytes] = []
        self._tunnels: set[_Side] = set()
        self._lost = False
        #: fires when the head of an HTTP answer is there, or as much of it as there will be
        self.head: Deferred[bytes] = Deferred()

    def join(self, other: _Side, tunnels: set[_Side]) -> None:
        """Pass on what comes from either side to the other.

        :param tunnels: gets one of the two while they are open.
        """
        self._other, other._other = other, self
        self._tunnels = other._tunnels = tunnels
        tunnels.add(self)
        ours: Any = self.transport
        theirs: Any = other.transport
        ours.registerProducer(theirs, True)
        theirs.registerProducer(ours, True)
        for side in (self, other):
            for data in side._early:
                side.dataReceived(data)
            if side._lost:
                side.connectionLost()

    def dataReceived(self, data: bytes) -> None:
        """Bytes of either direction."""
        if self._other is None:
            self._early.append(data)
            self._look(over=False)
            return
        transport: Any = self._other.transport
        transport.write(data)

    def _look(self, *, over: bool) -> None:
        if not self.head.called:
            so_far = b"".join(self._early)
            if over or b"\r\n\r\n" in so_far or len(so_far) > _HEAD_BYTES:
                self.head.callback(so_far)

    def close(self) -> None:
        """End both connections, once what has been written is out."""
        for side in (self, self._other):
            transport: Any = side.transport if side is not None else None
            if transport is not None:
                # With a producer it would wait for that.
                transport.unregisterProducer()
                transport.loseConnection()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """One end is gone, so is the other."""
        self._lost = True
        self._look(over=True)
        if self._other is not None:
            self._tunnels.discard(self)
            self._tunnels.discard(self._other)
            self.close()


def _named(headers: Headers) -> frozenset[bytes]:
    """The headers that ``Connection`` says are of the connection too."""
    values = headers.getRawHeaders(b"connection") or ()
    return frozenset(name.strip().lower() for value in values for name in value.split(b","))


def _answer(request: Any, status: int, text: str) -> None:
    """An answer of ours, to whoever looks at it."""
    send(request, status, b"text/plain; charset=utf-8", text.encode())


def _refuse_stopping(request: Any) -> None:
    error = stopping_error()
    request.responseHeaders.setRawHeaders(b"connection", [b"close"])
    _answer(request, status_of(error), f"{error.message}\n")
