"""One request to the HTTP actions on its socket: body in, head and body out, as fast as the slower side allows.

::

    socket ─► StreamedBody ─► HttpActionRun      not read while the action has no room
    socket ◄─ this ◄────────── HttpActionRun     while the socket is full the rest waits here, at most one window (128 KiB), and the action waits

A client that takes nothing for :data:`STALL_SECONDS` is cut off, so that it cannot hold an action's place for longer. Source: ``http_api.md``
section 4, ``runtime.md`` section 9.10.
"""

from __future__ import annotations

import re
import socket
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from convex_backend.application.run_http_action import HttpAnswer, HttpRequest
from convex_backend.application.types import ANONYMOUS, Caller, Identity
from convex_backend.errors import ConvexError, ServerFault
from convex_backend.web.credentials import identity_of_head
from convex_backend.web.errors import error_body, status_of
from convex_backend.web.http_metrics import HttpActionMetrics
from convex_backend.web.routing import Front, send, stopping_error

STALL_SECONDS: Final = 60.0
UNSENT_BYTES: Final = 128 * 1024
#: Of the connection or of the framing, which are ours.
_CONNECTION_HEADERS: Final = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")
)
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def _error_answer(error: ConvexError) -> HttpAnswer:
    return HttpAnswer(status_of(error), "application/json", error_body(error))


def _bound_unsent(transport: Any) -> None:
    """Let the kernel keep little of what the client has not asked for yet: it would take megabytes for each client that does not read.

    Not of what is under way: a fast connection stays as fast. Where the system has no such option, its own buffers are the bound.
    """
    handle = transport.getHandle() if hasattr(transport, "getHandle") else None
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if option is not None and isinstance(handle, socket.socket) and handle.family in (socket.AF_INET, socket.AF_INET6):
        handle.setsockopt(socket.IPPROTO_TCP, option, UNSENT_BYTES)


@implementer(IPushProducer)
class HttpExchange:
    """See the top of the file; a ``ResponseListener``.

    :param target: the request as the action is to see it.
    """

    _log = Logger()

    def __init__(
        self, front: Front, metrics: HttpActionMetrics, request: Any, target: HttpRequest, caller: Caller
    ) -> None:
        self._front = front
        self._metrics = metrics
        self._request = request
        self._target = target
        self._caller = caller
        self._run: Any = None
        self._queue: deque[bytes] = deque()
        self._paused = False
        self._there = True
        self._head_sent = False
        self._body_over = False
        self._left: int | None = None
        self._stall: IDelayedCall | None = None
        self._work: Deferred[None] | None = None
        self._started = time.perf_counter()

    def start(self) -> None:
        """Serve the request."""
        front = self._front
        self._request.notifyFinish().addErrback(self._gone)
        self._metrics.open += 1
        work = self._work = Deferred.fromCoroutine(self._serve())
        front.enter(work)
        work.addBoth(self._ended, work)

    def _ended(self, result: Any, work: Deferred[None]) -> None:
        self._front.leave(work)
        self._metrics.open -= 1
        if self._run is not None:
            self._metrics.bytes_in.inc(self._run.request_bytes)
        if isinstance(result, Failure) and not result.check(CancelledError):
            self._log.failure("an HTTP action failed", failure=result)

    async def _serve(self) -> None:
        front = self._front
        try:
            if front.stopping:
                raise stopping_error()
            identity = await self._identity()
            self._run = front.application.http_action(self._target, identity, self._caller, self)
            if not self._there:
                return
            self._deliver_body()
            answer = await self._run.run()
        except ConvexError as error:
            if isinstance(error, ServerFault):
                self._log.failure("an HTTP action failed")
            answer = _error_answer(error)
        except CancelledError:
            if not front.stopping:
                # The client went before the action began.
                return
            answer = _error_answer(stopping_error())
        except Exception:  # noqa: BLE001 - the client gets the fixed text, the log the trace
            self._log.failure("an HTTP action failed")
            answer = _error_answer(ServerFault())
        if answer is not None:
            self._answer(answer)

    async def _identity(self) -> Identity:
        """Who calls; credentials that cannot be used are the action's to notice."""
        application = self._front.application
        if self._request.requestHeaders.getRawHeaders(b"authorization") is None:
            return ANONYMOUS
        try:
            known = identity_of_head(application, self._request)
            if isinstance(known, str):
                known = await application.authenticate_user(known)
        except ConvexError as error:
            return Identity("anonymous", error=error)
        return ANONYMOUS if known is None else known

    def _deliver_body(self) -> None:
        request, run = self._request, self._run
        if request.body is not None:
            if self._target.has_body:
                request.body.deliver(run)
                return
            request.body.discard()
        elif self._target.has_body and request.content is not None:
            run.write(request.content.read())
        run.end()

    # -- the response ------------------------------------------------------------------------------------------------------

    def response_head(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """See ``ResponseListener``."""
        request = self._request
        self._head_sent = True
        request.setResponseCode(status)
        response_headers = request.responseHeaders
        lengths = {value.strip() for name, value in headers if name == "content-length"}
        set_here: set[str] = set()
        for name, value in headers:
            name = name.lower()
            if name in _CONNECTION_HEADERS or name == "content-length" or not _TOKEN.fullmatch(name):
                continue
            raw_name, raw_value = name.encode("ascii"), value.encode("latin-1", "replace")
            if name in set_here:
                response_headers.addRawHeader(raw_name, raw_value)
            else:
                # Ours with that name (date, server) gives way.
                set_here.add(name)
                response_headers.setRawHeaders(raw_name, [raw_value])
        length = lengths.pop() if len(lengths) == 1 else ""
        if length.isascii() and length.isdigit():
            response_headers.setRawHeaders(b"content-length", [length.encode("ascii")])
            self._left = int(length)
        if request.method == b"HEAD" or status in (204, 304):
            self._left = None
        if self._front.stopping:
            response_headers.setRawHeaders(b"connection", [b"close"])
        _bound_unsent(request.channel.transport)
        # Registered first: what is written may fill the socket.
        request.registerProducer(self, True)
        request.write(b"")

    def response_data(self, data: bytes) -> None:
        """See ``ResponseListener``."""
        if not self._there:
            self._run.taken(len(data))
        elif self._paused or self._queue:
            self._queue.append(data)
        else:
            self._write(data)

    def response_end(self) -> None:
        """See ``ResponseListener``."""
        self._body_over = True
        self._finish_if_over()

    def _write(self, data: bytes) -> None:
        size = len(data)
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        self._metrics.bytes_out.inc(len(data))
        self._request.write(data)
        self._run.taken(size)

    def _finish_if_over(self) -> None:
        if not self._body_over or self._queue or not self._there:
            return
        self._there = False
        self._stop_stall()
        request = self._request
        request.unregisterProducer()
        self._front.metrics.series("http_action").observe(time.perf_counter() - self._started)
        if self._left:
            # Less than was promised: only the end of the connection can say so.
            request.loseConnection()
        else:
            request.finish()

    def _answer(self, answer: HttpAnswer) -> None:
        """Send an answer of ours, or end a response that will not go on."""
        if not self._there:
            return
        if self._head_sent:
            self._queue.clear()
            self._left = 1
            self.response_end()
            return
        self._there = False
        request = self._request
        if request.body is not None and request.too_large:
            # More and more came, and the action did not take it well.
            request.refuse_size()
            return
        series = self._front.metrics.series("http_action")
        series.errors += answer.status >= 500
        series.observe(time.perf_counter() - self._started)
        if self._front.stopping:
            request.responseHeaders.setRawHeaders(b"connection", [b"close"])
        send(request, answer.status, answer.content_type.encode("ascii"), answer.body)

    # -- the client --------------------------------------------------------------------------------------------------------

    def _gone(self, _: Failure) -> None:
        if not self._there:
            return
        self._there = False
        self._stop_stall()
        self._metrics.disconnects.inc()
        if self._run is not None:
            self._run.client_gone()
            queue, self._queue = self._queue, deque()
            for data in queue:
                self._run.taken(len(data))
        # What has not begun is not begun for nobody; what runs goes on to its end.
        if self._work is not None and not (self._run is not None and self._run.has_begun):
            self._work.cancel()

    def pauseProducing(self) -> None:
        """See ``IPushProducer``: the socket is full."""
        self._paused = True
        if self._stall is None and self._there:
            self._stall = self._front.reactor.callLater(STALL_SECONDS, self._stalled)

    def resumeProducing(self) -> None:
        """See ``IPushProducer``: the socket has taken everything."""
        self._paused = False
        self._stop_stall()
        while self._queue and not self._paused and self._there:
            self._write(self._queue.popleft())
        self._finish_if_over()

    def stopProducing(self) -> None:
        """See ``IPushProducer``: the connection ends, as ``notifyFinish`` says too."""

    def _stop_stall(self) -> None:
        if self._stall is not None and self._stall.active():
            self._stall.cancel()
        self._stall = None

    def _stalled(self) -> None:
        self._stall = None
        self._metrics.stalled.inc()
        channel = self._request.channel
        if channel is not None:
            channel.forceAbortClient()
