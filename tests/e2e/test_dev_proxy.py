"""``--site-url``: one origin for the backend and the front end's dev server."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator

import pytest

from tests.e2e.harness import Server, free_port, running
from tests.e2e.raw_http import RawClient
from tests.e2e.upstream import TEXT, Upstream

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture(scope="module")
def server(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("server"), "--site-url", upstream.url) as started:
        yield started


def test_what_is_whose(server: Server) -> None:
    """Paths of the backend stay here, known or not; every other path is the page's, ``/`` too."""
    assert server.request("GET", "/instance_name")[2] == b"convex-self-hosted"
    assert server.request("GET", "/version")[0] == 200
    assert server.request("GET", "/http/x")[2] == b"This Convex deployment does not have HTTP actions enabled."
    assert server.request("POST", "/api/query", b"{")[0] == 400
    status, _, body = server.request("GET", "/api/nope")
    assert (status, body) == (404, b"")
    for path in ("/", "/src/main.tsx", "/apis/x"):
        assert server.request("GET", path)[::2] == (404, b"not here")
    assert server.request("GET", "/show")[2].startswith(b"GET /show\n")


def test_request_and_response(server: Server, upstream: Upstream) -> None:
    """Method, path, headers and body arrive with what names the client; the answer comes back, unpacked, with its cookies and redirects."""
    with RawClient(server.port) as client:
        client.request(
            "POST",
            "/show?a=%20b",
            "X-Mine: 1",
            "Origin: http://h",
            "Content-Length: 4",
            "Cookie: c=1",
            "Connection: close",
            body=b"body",
        )
        status, headers = client.head()
        shown = client.read_all().decode()
    assert status == 200
    assert ("x-upstream", "yes") in headers
    assert not [name for name, _ in headers if name.startswith("access-control")]
    assert "POST /show?a=%20b\n" in shown
    for line in (
        "x-mine: 1",
        "cookie: c=1",
        "x-forwarded-host: h",
        "x-forwarded-proto: http",
        "x-forwarded-for: 127.0.0.1",
        "content-length: 4",
    ):
        assert f"\n{line}\n" in shown
    assert f"host: {upstream.url[7:]}\n" in shown
    assert shown.endswith("\n\nbody")
    status, got, body = server.request("GET", "/gzip")
    assert (status, body.decode()) == (200, TEXT)
    assert "Content-Encoding" not in got
    with RawClient(server.port) as client:
        client.request("GET", "/redirect/302")
        status, headers = client.head()
        assert (status, dict(headers)["location"]) == (302, "/show")
        client.until(b"moved")
        client.request("OPTIONS", "/show")
        client.until(b"Unsupported method ('OPTIONS')")


def test_bodies_stream(server: Server) -> None:
    """Both bodies pass at the same time, and nobody holds them whole."""
    body = bytes(range(256)) * (8 * MIB // 256)
    with RawClient(server.port) as client:
        client.request("POST", "/echo", f"Content-Length: {len(body)}", "Connection: close")
        sender = threading.Thread(target=client.send, args=(body,))
        sender.start()
        received = client.read_all()
        sender.join()
    assert len(received) > len(body)
    assert received.count(bytes(range(256))) >= 8 * MIB // 256 - len(received) // 1000


def test_client_leaves(server: Server, upstream: Upstream) -> None:
    """When the browser goes away, so does the request to the dev server."""
    upstream.cut_off.clear()
    with RawClient(server.port) as client:
        client.request("GET", "/drip")
        client.until(b"\r\n1\r\nx\r\n")
        client.reset()
    assert upstream.cut_off.wait(10)


def test_websockets_pass(server: Server, upstream: Upstream) -> None:
    """An upgrade that is not for the sync socket goes through, and then every byte; the end of one side is the end of the other."""
    upstream.cut_off.clear()
    with RawClient(server.port) as client:
        client.request(
            "GET", "/socket?token=x", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Protocol: vite-hmr"
        )
        assert client.head()[0] == 101
        shown = client.until(b"\n\n").decode()
        assert "sec-websocket-protocol: vite-hmr" in shown
        assert "upgrade: websocket" in shown
        client.data = b""
        sent = bytes(range(256)) * 4000
        sender = threading.Thread(target=client.send, args=(sent,))
        sender.start()
        while len(client.data) < len(sent):
            client.data += client.socket.recv(65536)
        sender.join()
        assert client.data == sent
        client.reset()
    assert upstream.cut_off.wait(10)


def test_no_other_host_is_asked(server: Server) -> None:
    """A target that is no path would become a part of the dev server's host or port: it goes nowhere."""
    for target in ("@127.0.0.1:1/", ".example.com/", "1/x", "http://example.com/x"):
        with RawClient(server.port) as client:
            client.request("GET", target, "Connection: close")
            assert client.read_all().startswith(b"HTTP/1.1 400 ")


def test_refused_upgrade(server: Server) -> None:
    """When the dev server opens no WebSocket, the connection is ours as before: what comes next on it is not for the dev server."""
    with RawClient(server.port) as client:
        client.request("GET", "/nope", "Connection: Upgrade", "Upgrade: websocket")
        assert client.head()[0] == 404
        client.until(b"opened no WebSocket.\n")
        client.data = b""
        client.request("GET", "/instance_name", "Authorization: Convex secret")
        client.until(b"convex-self-hosted")


def test_headers_of_the_connection_stay(server: Server) -> None:
    """What ``Connection`` names is between the browser and us."""
    with RawClient(server.port) as client:
        client.request("GET", "/show", "Connection: X-Hop, close", "X-Hop: 1", "X-Mine: 2")
        shown = client.read_all()
    assert b"x-mine: 2" in shown
    assert b"x-hop" not in shown


def test_stop_with_an_endless_answer(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A stream of events from the dev server does not hold up the end of the server."""
    with running(tmp_path_factory.mktemp("server"), "--site-url", upstream.url) as server:
        with RawClient(server.port) as client:
            client.request("GET", "/drip")
            client.until(b"\r\n1\r\nx\r\n")
            assert server.stop(seconds=4) == -signal.SIGTERM
        assert "Traceback" not in server.text()


def test_no_dev_server(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A dev server that does not run is 502 with its URL, for requests and WebSockets; the backend works, and stops at once."""
    url = f"http://127.0.0.1:{free_port()}"
    with running(tmp_path_factory.mktemp("server"), "--site-url", url) as server:
        status, _, body = server.request("GET", "/")
        assert (status, body.decode()) == (
            502,
            f"The front end's dev server at {url} does not answer. Is it running?\n",
        )
        assert server.request("GET", "/x", None, {"Upgrade": "websocket", "Connection": "Upgrade"})[0] == 502
        status, _, body = server.request("POST", "/api/query", {"path": "a:b", "args": {}})
        assert (status, json.loads(body)["status"]) == (200, "error")
        assert server.stop(seconds=10) == -signal.SIGTERM
