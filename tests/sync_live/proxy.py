"""A TCP proxy that stands for a bad network: it cuts, stalls and forgets connections; it never reorders or changes bytes."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time

_BUFFER = 256 * 1024
_CHUNK = 64 * 1024


def _reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Link:
    """One client's connection and the one that was made to the server for it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.to_server = bytearray()
        self.to_client = bytearray()
        self.stalled_until = 0.0
        self.command = ""
        self.gone = False

    def cut(self) -> None:
        """Reset both sides; what is in the proxy is lost."""
        self.command = "cut"

    def stall(self, seconds: float) -> None:
        """Carry nothing in either direction for a while."""
        self.stalled_until = time.monotonic() + seconds

    def half_open(self) -> None:
        """Reset the client's side; the server is told nothing, and nobody reads what it sends."""
        self.command = "half_open"


class Proxy:
    """Listens on a port of its own. All I/O is in one thread; commands are carried out within 20 ms.

    :param upstream: port of the server on the loopback interface.
    """

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self.links: list[Link] = []
        self.opened = 0
        self._abandoned: list[socket.socket] = []
        self._stopping = False
        self._refusing = False
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def refuse(self, refusing: bool) -> None:
        """Reset new connections (the network is down) until told otherwise."""
        self._refusing = refusing

    def cut_all(self) -> None:
        """:meth:`Link.cut` every link."""
        for link in list(self.links):
            link.cut()

    def heal(self) -> None:
        """Every stalled link goes on, new connections are taken."""
        self._refusing = False
        for link in list(self.links):
            link.stalled_until = 0.0

    def stop(self) -> None:
        """Reset everything and end the thread."""
        self._stopping = True
        self._thread.join(5)

    def _run(self) -> None:
        while not self._stopping:
            self._turn()
        self._listener.close()
        for link in self.links:
            _reset(link.client)
            _reset(link.server)
        for sock in self._abandoned:
            _reset(sock)

    def _turn(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        ends: dict[int, tuple[Link, bool]] = {}
        now = time.monotonic()
        for link in list(self.links):
            if link.command:
                self._obey(link)
                continue
            if link.stalled_until > now:
                continue
            for sock, incoming, outgoing in (
                (link.client, link.to_server, link.to_client),
                (link.server, link.to_client, link.to_server),
            ):
                events = (select.POLLIN if len(incoming) < _BUFFER else 0) | (select.POLLOUT if outgoing else 0)
                poll.register(sock, events)
                ends[sock.fileno()] = (link, sock is link.client)
        for fileno, events in poll.poll(20):
            if fileno == self._listener.fileno():
                self._accept()
                continue
            link, is_client = ends[fileno]
            if not link.gone:
                self._carry(link, is_client, events)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        if self._refusing:
            _reset(client)
            return
        try:
            server = socket.create_connection(("127.0.0.1", self._upstream), 5)
        except OSError:
            _reset(client)
            return
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.opened += 1
        self.links.append(Link(client, server))

    def _obey(self, link: Link) -> None:
        if link.command == "half_open":
            self.links.remove(link)
            link.gone = True
            _reset(link.client)
            self._abandoned.append(link.server)
        else:
            self._end(link, reset=True)

    def _end(self, link: Link, *, reset: bool) -> None:
        self.links.remove(link)
        link.gone = True
        for sock, left in ((link.client, link.to_client), (link.server, link.to_server)):
            if reset:
                _reset(sock)
                continue
            try:
                sock.send(left)
            except OSError:
                pass  # that side is gone as well
            sock.close()

    def _carry(self, link: Link, is_client: bool, events: int) -> None:
        sock = link.client if is_client else link.server
        incoming, outgoing = (link.to_server, link.to_client) if is_client else (link.to_client, link.to_server)
        try:
            if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                data = sock.recv(_CHUNK)
                if not data:
                    self._end(link, reset=False)
                    return
                incoming += data
            if events & select.POLLOUT and outgoing:
                sent = sock.send(outgoing)
                del outgoing[:sent]
        except BlockingIOError:
            return
        except OSError:
            self._end(link, reset=True)
