"""A WebSocket client of bare sockets (RFC 6455): every bit of a frame is the caller's choice, and nothing is answered unasked."""

from __future__ import annotations

import base64
import os
import socket
import struct
import time
from dataclasses import dataclass

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class Ended(Exception):
    """The peer has closed or reset the TCP connection."""


@dataclass
class Frame:
    """One frame as it came."""

    fin: bool
    rsv: int
    opcode: int
    masked: bool
    payload: bytes

    @property
    def close_code(self) -> int | None:
        """Of a close frame; ``None`` for an empty one."""
        assert self.opcode == CLOSE
        return int.from_bytes(self.payload[:2]) if self.payload else None

    @property
    def close_reason(self) -> str:
        """Of a close frame."""
        return self.payload[2:].decode()


def encode(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = b"\x11\x22\x33\x44"
) -> bytes:
    """A frame. *mask* ``None`` leaves it unmasked."""
    head = bytearray([(0x80 if fin else 0) | rsv << 4 | opcode])
    masked = 0x80 if mask is not None else 0
    if len(payload) < 126:
        head.append(masked | len(payload))
    elif len(payload) < 65536:
        head += bytes([masked | 126]) + struct.pack("!H", len(payload))
    else:
        head += bytes([masked | 127]) + struct.pack("!Q", len(payload))
    if mask is None:
        return bytes(head) + payload
    key = int.from_bytes((mask * (len(payload) // 4 + 1))[: len(payload)])
    body = (int.from_bytes(payload) ^ key).to_bytes(len(payload)) if payload else b""
    return bytes(head) + mask + body


class FrameSocket:
    """One connection.

    :param port: on the loopback interface.
    :param receive_buffer: bytes of the kernel's receive buffer; small for a reader that is to fall behind.
    """

    def __init__(self, port: int, *, receive_buffer: int | None = None, timeout: float = 10) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()

    def handshake(self, target: str = "/api/1.48.0/sync", headers: dict[str, str] | None = None) -> str:
        """Upgrade. :returns: the response's head. :raises AssertionError: it was refused."""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {target} HTTP/1.1",
            "Host: 127.0.0.1",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            *(f"{name}: {value}" for name, value in (headers or {}).items()),
        ]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        while b"\r\n\r\n" not in self._buffer:
            self._receive()
        head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        self._buffer = bytearray(rest)
        assert head.startswith(b"HTTP/1.1 101"), head
        return head.decode()

    def _receive(self) -> None:
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionError as error:
            raise Ended(str(error)) from None
        if not data:
            raise Ended("end of stream")
        self._buffer += data

    def send(self, opcode: int, payload: bytes = b"", **options: object) -> None:
        """Send one frame; options as of :func:`encode`."""
        self.send_raw(encode(opcode, payload, **options))  # type: ignore[arg-type]

    def send_raw(self, data: bytes) -> None:
        """Send any bytes."""
        self.socket.settimeout(10)
        try:
            self.socket.sendall(data)
        except ConnectionError as error:
            raise Ended(str(error)) from None

    def _decoded(self) -> Frame | None:
        data = self._buffer
        if len(data) < 2:
            return None
        length, start = data[1] & 0x7F, 2
        if length == 126:
            if len(data) < 4:
                return None
            length, start = struct.unpack_from("!H", data, 2)[0], 4
        elif length == 127:
            if len(data) < 10:
                return None
            length, start = struct.unpack_from("!Q", data, 2)[0], 10
        if len(data) < start + length:
            return None
        frame = Frame(
            bool(data[0] & 0x80),
            data[0] >> 4 & 7,
            data[0] & 15,
            bool(data[1] & 0x80),
            bytes(data[start : start + length]),
        )
        del data[: start + length]
        return frame

    def frame(self, timeout: float = 10) -> Frame:
        """The next frame. :raises TimeoutError, Ended: there is none."""
        deadline = time.monotonic() + timeout
        while (frame := self._decoded()) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.socket.settimeout(left)
            self._receive()
        return frame

    def frame_of(self, *opcodes: int, timeout: float = 10) -> Frame:
        """The next frame with one of *opcodes*; others are dropped."""
        deadline = time.monotonic() + timeout
        while True:
            frame = self.frame(max(0.0, deadline - time.monotonic()))
            if frame.opcode in opcodes:
                return frame

    def reset(self) -> None:
        """Close with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        """Close TCP."""
        self.socket.close()
