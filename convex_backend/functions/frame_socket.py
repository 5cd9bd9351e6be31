"""Our end of the stream socket to a child: what is written leaves at once.

A transport of the reactor sends in the next turn of the event loop, after everything else of this turn, and tells the kernel twice what it waits for.
Whoever holds a contended lane waits for that, so here the kernel is tried first and the reactor only asked when it takes no more.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

READ_BYTES = 256 * 1024
HOLD_BYTES = 64 * 1024
"""Bytes that wait for the peer, above which :attr:`FrameSocket.held` is set until all of them have gone."""


@implementer(IReadWriteDescriptor)
class FrameSocket:
    """One end of a connected stream socket.

    :param end: not blocking; owned from now on.
    :param received: takes what was read.
    :param on_hold: told when too much waits for the peer, and when nothing does any more.
    :param on_lost: called once, when the connection has ended for whatever reason.
    """

    def __init__(
        self,
        reactor: Any,
        end: socket.socket,
        received: Callable[[bytes], None],
        on_hold: Callable[[bool], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._socket = end
        self._received = received
        self._on_hold = on_hold
        self._on_lost = on_lost
        self._unsent = bytearray()
        self._reading = True
        self._closing = False
        self._lost = False
        self.held = False
        reactor.addReader(self)

    def write(self, data: bytes) -> None:
        """Send *data*, what does not go at once later. Does nothing after the end."""
        if self._lost or self._closing:
            return
        if not self._unsent:
            try:
                sent = self._socket.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                # The peer has gone: the reactor says so too, but only while somebody reads or writes.
                self._reactor.callLater(0, self.abort)
                return
            if sent == len(data):
                return
            data = data[sent:]
            self._reactor.addWriter(self)
        self._unsent += data
        if len(self._unsent) > HOLD_BYTES and not self.held:
            self.held = True
            self._on_hold(True)

    def pause(self) -> None:
        """Read nothing for now."""
        if self._reading and not self._lost:
            self._reading = False
            self._reactor.removeReader(self)

    def resume(self) -> None:
        """Read again."""
        if not (self._reading or self._lost or self._closing):
            self._reading = True
            self._reactor.addReader(self)

    def close(self) -> None:
        """Send what waits, then end the connection. Nothing is read any more."""
        if not self._lost and not self._closing:
            self.pause()
            self._closing = True
            self._reactor.addWriter(self)

    def abort(self) -> None:
        """End the connection now."""
        if not self._lost:
            self.connectionLost(Failure(ConnectionLost()))

    # -- for the reactor -------------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Of the socket; -1 after the end."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """What the reactor calls it."""
        return "runner"

    def doRead(self) -> Exception | None:  # type: ignore[override]
        """The socket may be read. An exception ends the connection, as with the reactor's own transports."""
        try:
            data = self._socket.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return ConnectionLost()
        if not data:
            return ConnectionDone()
        self._received(data)
        return None

    def doWrite(self) -> Exception | None:  # type: ignore[override]
        """The socket may be written."""
        if self._unsent:
            try:
                with memoryview(self._unsent) as view:
                    sent = self._socket.send(view)
            except (BlockingIOError, InterruptedError):
                return None
            except OSError:
                return ConnectionLost()
            del self._unsent[:sent]
        if self._unsent:
            return None
        if self._closing:
            return ConnectionDone()
        self._reactor.removeWriter(self)
        if self.held:
            self.held = False
            self._on_hold(False)
        return None

    def connectionLost(self, reason: Failure) -> None:
        """The reactor found the connection ended, or is about to end itself."""
        if self._lost:
            return
        self._lost = True
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        self._unsent.clear()
        self._socket.close()
        self._on_lost()
