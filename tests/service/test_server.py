"""The whole server as ``twistd convex-backend`` starts it: answers, keys, both ports, sockets at a stop."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.child import Child

OPTIONS = ["--pidfile=", "convex-backend", "--host", "127.0.0.1", "--port", "0", "--runners", "1"]


class Server:
    """A running server with the facts of its banner."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.port = self._port("API ")
        self.site_port = self._port("HTTP actions")
        self.url = child.wait_for("CONVEX_SELF_HOSTED_URL=").partition("=")[2].strip("'")
        self.admin_key = child.wait_for("CONVEX_SELF_HOSTED_ADMIN_KEY=").partition("=")[2].strip("'")
        child.wait_for("listening on")

    def _port(self, label: str) -> int:
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.child.wait_for(label))
        assert found is not None
        return int(found[1])

    def request(
        self, method: str, path: str, body: object = None, key: str | None = None, port: int | None = None
    ) -> tuple[int, bytes]:
        """Status and body of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=20)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if key is not None:
            headers["Authorization"] = f"Convex {key}"
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests that do not stop it."""
    with Child(OPTIONS, tmp_path_factory.mktemp("server")) as child:
        yield Server(child)
        child.signal(signal.SIGTERM)
        assert child.wait() == -signal.SIGTERM


def test_meta_routes_answer(server: Server) -> None:
    """Name and version are served as plain text; the banner's URL is the one that answers."""
    assert server.url == f"http://127.0.0.1:{server.port}"
    assert server.request("GET", "/instance_name") == (200, b"convex-self-hosted")
    assert server.request("GET", "/version")[0] == 200


def test_the_printed_key_opens_the_admin_routes(server: Server) -> None:
    """The key of the banner is accepted in every form that the CLI may send, an altered one is not."""
    name, text = server.admin_key.split("|")
    for key in (server.admin_key, f"prod:{name}|{text}", text):
        assert server.request("GET", "/api/v1/get_canonical_urls", key=key)[0] == 200
    status, body = server.request("GET", "/api/v1/get_canonical_urls", key=server.admin_key[:-1] + "x")
    assert (status, json.loads(body)["code"]) == (401, "BadAdminKey")


def test_canonical_urls_are_the_banners(server: Server) -> None:
    """The deployment tells the origins that it printed."""
    urls = json.loads(server.request("GET", "/api/v1/get_canonical_urls", key=server.admin_key)[1])
    assert urls["convexCloudUrl"] == f"http://127.0.0.1:{server.port}"
    assert urls["convexSiteUrl"] == f"http://127.0.0.1:{server.site_port}"


def test_the_site_port_is_below_http(server: Server) -> None:
    """Both ports give one answer for an HTTP action."""
    assert server.request("GET", "/x", port=server.site_port) == server.request("GET", "/http/x")


def test_metrics_are_of_this_server(server: Server) -> None:
    """``/metrics`` has what the rooms registered, process figures included."""
    status, body = server.request("GET", "/metrics")
    assert status == 200
    assert b"process_resident_memory_bytes" in body
    assert b"convex_" in body


def test_the_documentation_lists_the_metrics(server: Server) -> None:
    """``docs/metrics.md`` has exactly the metrics that a server has, each with its kind."""
    text = server.request("GET", "/metrics")[1].decode()
    kinds = dict(re.findall(r"^# TYPE (convex_\w+) (\w+)$", text, re.MULTILINE))
    there = {name: kind for name, kind in kinds.items() if not name.endswith("_created")}
    documented = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text("utf-8")
    assert dict(re.findall(r"^\| `(convex_\w+)` \| (\w+) \| \w", documented, re.MULTILINE)) == there


def test_a_query_reaches_the_runners_directory(server: Server) -> None:
    """Without an app a function call gets the text that tells what to do."""
    status, body = server.request("POST", "/api/query", {"path": "a:b", "args": {}})
    assert status == 200
    assert "Could not find public function for 'a:b'" in json.loads(body)["errorMessage"]


def open_socket(port: int) -> socket.socket:
    """A WebSocket to ``/api/sync`` after its handshake."""
    client = socket.create_connection(("127.0.0.1", port), timeout=20)
    key = base64.b64encode(os.urandom(16)).decode()
    client.sendall(
        (
            f"GET /api/sync HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        received = client.recv(1)
        assert received, head
        head += received
    assert head.startswith(b"HTTP/1.1 101"), head
    return client


def close_code(client: socket.socket) -> int:
    """Read frames up to the close frame, answer it, and return its code."""

    def exactly(size: int) -> bytes:
        data = b""
        while len(data) < size:
            received = client.recv(size - len(data))
            assert received, "the connection was cut without a close frame"
            data += received
        return data

    while True:
        first, second = exactly(2)
        length = second & 0x7F
        if length >= 126:
            length = int.from_bytes(exactly(2 if length == 126 else 8), "big")
        payload = exactly(length)
        if first & 0x0F == 8:
            client.sendall(bytes((0x88, 0x82, 0, 0, 0, 0)) + payload[:2])
            return int.from_bytes(payload[:2], "big")


def test_a_stop_closes_sockets_with_1001_and_is_quick(tmp_path: Path) -> None:
    """Clients are told to come back, idle keep-alive connections and open sockets do not hold the stop."""
    with Child(OPTIONS, tmp_path) as child:
        server = Server(child)
        sockets = [open_socket(server.port) for _ in range(3)]
        idle = socket.create_connection(("127.0.0.1", server.port))
        began = time.monotonic()
        child.signal(signal.SIGTERM)
        assert [close_code(client) for client in sockets] == [1001] * 3
        assert child.wait() == -signal.SIGTERM
        assert time.monotonic() - began < 10
        for client in (*sockets, idle):
            client.close()
        assert "Traceback" not in child.output
