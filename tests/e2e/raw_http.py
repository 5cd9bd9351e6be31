"""HTTP clients that misbehave as a test wants: slow, stalled, gone."""

from __future__ import annotations

import socket
import time
from typing import Any


class RawClient:
    """One TCP connection; nothing is sent or read but what the test says.

    :param receive_bytes: size of the kernel's receive buffer, small for clients that do not read.
    """

    def __init__(self, port: int, receive_bytes: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(15)
        self.socket.connect(("127.0.0.1", port))
        self.data = b""

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def request(self, method: str, target: str, *headers: str, body: bytes = b"") -> None:
        """Send a head, and *body* behind it."""
        self.socket.sendall("\r\n".join([f"{method} {target} HTTP/1.1", "Host: h", *headers, "", ""]).encode() + body)

    def send(self, data: bytes) -> None:
        """Send some bytes."""
        self.socket.sendall(data)

    def until(self, what: bytes) -> bytes:
        """Read until *what* has come. :returns: everything so far. :raises AssertionError: the connection ended before."""
        while what not in self.data:
            got = self.socket.recv(65536)
            assert got, f"the connection ended; {what!r} is not in {self.data[-2000:]!r}"
            self.data += got
        return self.data

    def read_all(self) -> bytes:
        """Read to the end of the connection."""
        parts = [self.data]
        while got := self.socket.recv(1 << 18):
            parts.append(got)
        self.data = b"".join(parts)
        return self.data

    def head(self) -> tuple[int, list[tuple[str, str]]]:
        """Status and headers, names in lower case."""
        lines = self.until(b"\r\n\r\n").split(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        pairs = [line.split(": ", 1) for line in lines[1:]]
        return int(lines[0].split(" ")[1]), [(name.lower(), value) for name, value in pairs]

    def reset(self) -> None:
        """Go away at once, with an RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.socket.close()


def eventually(ask: Any, wanted: Any, seconds: float = 10.0) -> Any:
    """Ask until *wanted* (a value, or a test of one) is the answer. :raises AssertionError: it never was."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if (wanted(answer) if callable(wanted) else answer == wanted) or time.monotonic() > deadline:
            assert callable(wanted) or answer == wanted
            assert not callable(wanted) or wanted(answer), answer
            return answer
        time.sleep(0.02)
