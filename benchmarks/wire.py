"""Clients as lean as they can be: epoll, raw bytes, answers parsed no further than needed. Linux only."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable

_READ_BYTES = 1 << 18
_CONNECTING = 32
_HEAD_END = b"\r\n\r\n"
_UPGRADE = (
    b"GET /api/1.48.0/sync HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Loop:
    """Readiness of many sockets, by epoll."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}

    def add(self, fd: int, reader: Callable[[], None]) -> None:
        """Call *reader* whenever *fd* is readable."""
        self._readers[fd] = reader
        self._poll.register(fd, select.EPOLLIN)

    def remove(self, fd: int) -> None:
        """Forget *fd*."""
        if self._readers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def run(self, done: Callable[[], bool], seconds: float) -> bool:
        """Serve readers until *done*. :returns: whether it was done within so many *seconds*."""
        poll, readers, clock = self._poll.poll, self._readers, time.perf_counter
        deadline = clock() + seconds
        while not done():
            left = deadline - clock()
            if left <= 0:
                return False
            for fd, _ in poll(min(left, 0.1)):
                reader = readers.get(fd)
                if reader is not None:
                    reader()
        return True


class Connection:
    """A TCP connection to a port of this machine."""

    def __init__(self, loop: Loop, port: int) -> None:
        self.loop = loop
        self.alive = True
        self.buffer = b""
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        loop.add(self.sock.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            data = self.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.received(data)
        else:
            self.close()
            self.lost()

    def send(self, data: bytes) -> None:
        """Send all of *data*, waiting if need be."""
        while data:
            try:
                data = data[self.sock.send(data) :]
            except BlockingIOError:
                select.select([], [self.sock], [], 1.0)

    def received(self, data: bytes) -> None:
        """Bytes have come."""
        raise NotImplementedError

    def lost(self) -> None:
        """The server has closed the connection."""

    def close(self) -> None:
        """Close it."""
        if self.alive:
            self.alive = False
            self.loop.remove(self.sock.fileno())
            self.sock.close()


class HttpConnection(Connection):
    """One request at a time. :ivar answered: called with the whole answer."""

    answered: Callable[[bytes, bytes], None]

    def received(self, data: bytes) -> None:
        """See :class:`Connection`."""
        data = self.buffer = self.buffer + data
        end = data.find(_HEAD_END)
        if end < 0:
            return
        at = data.find(b"ontent-Length: ", 0, end)
        if at < 0:
            at = data.find(b"ontent-length: ", 0, end)
        if at < 0:
            raise ValueError(f"an answer without a length: {data[:end]!r}")
        length = int(data[at + 15 : data.index(b"\r\n", at)])
        if len(data) >= end + 4 + length:
            self.buffer = b""
            self.answered(data[:end], data[end + 4 :])


def http_request(path: str, body: bytes) -> bytes:
    """A POST of JSON."""
    return b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        path.encode(),
        len(body),
        body,
    )


def frame(message: bytes, opcode: int = 1) -> bytes:
    """A client's frame, masked with zeros: the bytes of *message* as they are."""
    length = len(message)
    if length < 126:
        return b"%c%c\0\0\0\0%s" % (0x80 | opcode, 0x80 | length, message)
    if length < 65536:
        return b"%c\xfe%s\0\0\0\0%s" % (0x80 | opcode, length.to_bytes(2, "big"), message)
    return b"%c\xff%s\0\0\0\0%s" % (0x80 | opcode, length.to_bytes(8, "big"), message)


class WebSocket(Connection):
    """A WebSocket. :ivar message: called with each text message. :ivar open: the handshake is over."""

    message: Callable[[bytes], None]

    def __init__(self, loop: Loop, port: int) -> None:
        super().__init__(loop, port)
        self.open = False
        self.send(_UPGRADE)

    def received(self, data: bytes) -> None:
        """See :class:`Connection`."""
        if self.buffer:
            data = self.buffer + data
        at, end = 0, len(data)
        if not self.open:
            at = data.find(_HEAD_END) + 4
            if at < 4:
                self.buffer = data
                return
            if not data.startswith(b"HTTP/1.1 101"):
                raise ValueError(f"no upgrade: {data!r}")
            self.open = True
        while end - at >= 2:
            first, length = data[at], data[at + 1]
            start = at + 2
            if length == 126:
                start, length = at + 4, int.from_bytes(data[at + 2 : at + 4], "big")
            elif length == 127:
                start, length = at + 10, int.from_bytes(data[at + 2 : at + 10], "big")
            if start + length > end:
                break
            at = start + length
            if first == 0x81:
                self.message(data[start:at])
            elif first == 0x89:
                self.send(frame(data[start:at], 10))
            elif first == 0x88:
                self.close()
                self.lost()
                return
            else:
                raise ValueError(f"a frame that begins with {first:#x}")
        self.buffer = data[at:]


def open_sockets(loop: Loop, port: int, count: int, make: Callable[[Loop, int], WebSocket]) -> list[WebSocket]:
    """*count* WebSockets, some at a time. :raises TimeoutError: the server does not answer."""
    sockets: list[WebSocket] = []
    while len(sockets) < count:
        fresh = [make(loop, port) for _ in range(min(_CONNECTING, count - len(sockets)))]
        if not loop.run(lambda fresh=fresh: all(one.open for one in fresh), 10.0):
            raise TimeoutError("a WebSocket handshake was not answered")
        sockets += fresh
    return sockets
