"""The other end of an action's ``fetch``: an HTTP server of the test's own, with one path for each behaviour."""

from __future__ import annotations

import gzip
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import brotli

TEXT = "some text that is long enough to be packed, packed, packed. " * 20


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the console."""

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _redirect(self, status: int, location: str) -> None:
        self._body()
        self._answer(status, b"moved", Location=location)

    def _chunks(self) -> Any:
        """The request's body, part by part, as it comes."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        elif length := int(self.headers.get("Content-Length") or 0):
            yield self.rfile.read(length)

    def _body(self) -> bytes:
        return b"".join(self._chunks())

    def _show(self) -> None:
        body = self._body().decode()
        shown = [
            f"{self.command} {self.path}",
            *(f"{name.lower()}: {value}" for name, value in self.headers.items()),
            "",
            body,
        ]
        self._answer(200, "\n".join(shown).encode(), X_Upstream="yes")

    def _echo(self) -> None:
        """Head before body, each part of the body as it comes."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in self._chunks():
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def _drip(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for _ in range(500):
                self.wfile.write(b"1\r\nx\r\n")
                time.sleep(0.01)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.server.cut_off.set()
            self.close_connection = True

    def _slow(self) -> None:
        time.sleep(0.5)
        self._answer(200, b"late")

    def _wide(self) -> None:
        """How many requests are here at once."""
        with self.server.lock:
            self.server.here += 1
            seen = self.server.here
        time.sleep(0.15)
        with self.server.lock:
            seen = max(seen, self.server.here)
            self.server.here -= 1
        self._answer(200, str(seen).encode())

    def _socket(self) -> None:
        """Switch protocols, then echo whatever comes."""
        self.close_connection = True
        self.send_response_only(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.end_headers()
        shown = "\n".join(f"{name.lower()}: {value}" for name, value in self.headers.items())
        self.wfile.write(shown.encode() + b"\n\n")
        while data := self.connection.recv(65536):
            self.connection.sendall(data)
        self.server.cut_off.set()

    def _broken(self) -> None:
        """Less than was promised."""
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"half")
        self.close_connection = True

    def _serve(self) -> None:
        path = self.path.partition("?")[0]
        other = self.server.other
        if path == "/gzip":
            self._answer(200, gzip.compress(TEXT.encode()), Content_Encoding="gzip")
        elif path == "/br":
            self._answer(200, brotli.compress(TEXT.encode()), Content_Encoding="br")
        elif path == "/deflate":
            self._answer(200, zlib.compress(TEXT.encode()), Content_Encoding="deflate")
        elif path.startswith("/redirect/"):
            self._redirect(int(path[10:]), "/show")
        elif path == "/loop":
            self._redirect(302, "/loop")
        elif path.startswith("/many/"):
            left = int(path[6:])
            self._redirect(302, f"/many/{left - 1}" if left > 1 else "/show")
        elif path == "/away":
            self._redirect(307, f"{other}/show")
        elif path == "/nowhere":
            self._redirect(302, "ftp://example.invalid/")
        elif path == "/empty":
            self._answer(204)
        else:
            serve = {
                "/show": self._show,
                "/echo": self._echo,
                "/drip": self._drip,
                "/slow": self._slow,
                "/wide": self._wide,
                "/broken": self._broken,
                "/socket": self._socket,
            }.get(path)
            if serve is None:
                self._answer(404, b"not here")
            else:
                serve()

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _serve


class Upstream:
    """The server, on two ports: two origins. Use as a context manager.

    :ivar url: origin of the first port. :ivar cut_off: set when a client of ``/drip`` went away.
    """

    def __init__(self) -> None:
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), _Handler) for _ in range(2)]
        urls = [f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers]
        self.url = urls[0]
        self.cut_off = threading.Event()
        for server, other in zip(self._servers, reversed(urls), strict=True):
            server.daemon_threads = True
            server.lock = threading.Lock()  # type: ignore[attr-defined]
            server.here = 0  # type: ignore[attr-defined]
            server.other = other  # type: ignore[attr-defined]
            server.cut_off = self.cut_off  # type: ignore[attr-defined]

    def __enter__(self) -> Upstream:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
