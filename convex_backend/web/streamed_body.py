"""A request body that a route takes while it arrives, instead of when all of it is here.

::

    socket ─► received() ─► sink.write()          a sink without room: the socket is not read until it has some
                        └─► dropped               after the sink is done, or past the size cap

The request is handled when its head is there (:class:`convex_backend.web.site.LimitedRequest`). An answer may be complete before the body is:
the rest is then read and dropped for a while, because a client that still sends would not see an answer on a connection that is closed under it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IDelayedCall

#: How long, and how much, an answered request's body may go on.
LINGER_SECONDS: Final = 5.0
LINGER_BYTES: Final = 32 * 1024 * 1024
#: What may wait for a sink that is not there yet.
_KEPT_BYTES: Final = 64 * 1024


class BodySink(Protocol):
    """Where a body goes.

    :ivar on_room: set by the body; to be called when ``has_room`` becomes true again.
    """

    on_room: Callable[[], None]

    @property
    def has_room(self) -> bool:
        """Whether more may be written now. One more write is always taken."""

    def write(self, data: bytes) -> None:
        """Some bytes."""

    def end(self) -> None:
        """That was all."""

    def fail(self, text: str) -> None:
        """It breaks off."""


class StreamedBody:
    """One request's body on its way.

    :param channel: the connection; paused while nobody has room.
    :param reactor: keeps the time of what lingers.
    :ivar complete: all of it has arrived, or the client is gone.
    """

    def __init__(self, channel: Any, reactor: Any) -> None:
        self._channel = channel
        self._reactor = reactor
        self._sink: BodySink | None = None
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._failure: str | None = None
        self._discarding = False
        self._paused = False
        self._idle_seconds: int | None = None
        self._lingered = 0
        self._timer: IDelayedCall | None = None
        self._done: Callable[[], None] | None = None
        self.complete = False

    def deliver(self, sink: BodySink) -> None:
        """Hand what has come and what comes to *sink*."""
        self._sink = sink
        sink.on_room = self._resume
        kept, self._kept = self._kept, []
        for data in kept:
            sink.write(data)
        if self._failure is not None:
            sink.fail(self._failure)
        elif self.complete:
            sink.end()
        self._look()

    def discard(self) -> None:
        """Nobody wants it (any more)."""
        self._discarding = True
        self._sink = None
        self._kept = []
        self._resume()

    def received(self, data: bytes) -> None:
        """Some bytes have come."""
        if self._discarding:
            self._lingered += len(data)
            if self._done is not None and self._lingered > LINGER_BYTES:
                self._finish(close=True)
        elif self._failure is None:
            if self._sink is None:
                self._kept.append(data)
                self._kept_bytes += len(data)
            else:
                self._sink.write(data)
            self._look()

    def ended(self) -> None:
        """All of it has come."""
        self.complete = True
        if self._done is not None:
            self._finish(close=False)
        elif self._sink is not None and self._failure is None:
            self._sink.end()

    def failed(self, text: str) -> None:
        """It is too large, or the client is gone: nothing of what follows goes to the sink."""
        if self._failure is None and not self.complete:
            self._failure = text
            if self._sink is not None:
                self._sink.fail(text)
            self._resume()

    def lost(self, text: str) -> None:
        """The connection is gone."""
        self.failed(text)
        self.complete = True
        self._paused = False
        self._done = None
        self._stop_timer()

    def drain(self, done: Callable[[], None]) -> None:
        """The request has been answered: drop the rest, then call *done*. A client that never ends loses its connection."""
        self._done = done
        self.discard()
        self._timer = self._reactor.callLater(LINGER_SECONDS, self._finish, close=True)

    def _finish(self, *, close: bool) -> None:
        done, self._done = self._done, None
        self._stop_timer()
        if close:
            # What comes next on this connection would be taken for a request.
            self._channel.persistent = False
        self.complete = True
        if done is not None:
            done()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _look(self) -> None:
        full = self._kept_bytes > _KEPT_BYTES if self._sink is None else not self._sink.has_room
        if full and not self.complete and not self._paused:
            self._paused = True
            # It is we who let the client wait.
            self._idle_seconds = self._channel.setTimeout(None)
        if self._paused:
            # Each time: an emptied send buffer makes the channel read again, whatever we think of it.
            self._channel.transport.pauseProducing()

    def _resume(self) -> None:
        if not self._paused or self.complete:
            return
        self._paused = False
        self._channel.setTimeout(self._idle_seconds)
        self.read_on()

    def read_on(self) -> None:
        """Read the socket, unless nobody has room for what comes."""
        if not self._paused and not self.complete:
            self._channel.transport.resumeProducing()
