"""The HTTP connection: how long it may be idle, and how long the head of a request may take.

::

    connected ──► head ──(blank line)──► body ──► request handled ──► between requests ──(a byte)──► head …
               30 s, whatever comes     300 s since the last byte    300 s (keep-alive)          30 s

Twisted's own limit starts anew with every byte, so a client that sends one now and then would keep its connection, and the server's file
descriptor, for ever. WebSocket handshakes are requests too: one that does not finish ends here.
"""

from __future__ import annotations

from typing import Final

from twisted.logger import Logger
from twisted.web.http import HTTPChannel

#: Seconds from a request's first byte, or from the connection, to the end of its head.
HEAD_SECONDS: Final = 30
_TWISTED: Final = Logger("twisted.web.http")


class BackendChannel(HTTPChannel):
    """One connection of HTTP/1.1, without the layer that would look for HTTP/2."""

    _idle_seconds: int | None = None
    _in_head = False
    _in_body = False

    @property
    def _log(self) -> Logger:  # type: ignore[override]
        """Twisted tells of each client that is cut off; under this class's name that would look like a matter of ours."""
        return _TWISTED

    def connectionMade(self) -> None:
        """See ``IProtocol``."""
        super().connectionMade()  # type: ignore[no-untyped-call]
        self._begin_head()

    def resetTimeout(self) -> None:
        """Bytes have come."""
        if self._in_body:
            super().resetTimeout()  # type: ignore[no-untyped-call]
        elif not self._in_head and not self._handlingRequest:
            self._begin_head()

    def _begin_head(self) -> None:
        self._in_head = True
        self._idle_seconds = self.setTimeout(HEAD_SECONDS)  # type: ignore[no-untyped-call]

    def allHeadersReceived(self) -> None:
        """See ``HTTPChannel``."""
        self._in_head, self._in_body = False, True
        self.setTimeout(self._idle_seconds)  # type: ignore[no-untyped-call]
        super().allHeadersReceived()  # type: ignore[no-untyped-call]

    def allContentReceived(self) -> None:
        """See ``HTTPChannel``; from here to the answer there is no limit of this kind."""
        self._in_body = False
        super().allContentReceived()  # type: ignore[no-untyped-call]

    def pauseProducing(self) -> None:
        """See ``IPushProducer``: the socket takes no more for now.

        Then Twisted does not read either, lest answers pile up. But the rest of a body may be what the client must be rid of before it reads.
        """
        super().pauseProducing()  # type: ignore[no-untyped-call]
        body = getattr(self.requests[-1], "body", None) if self.requests else None
        if body is not None:
            body.read_on()
