"""The HTTP side of the socket (checklist 1 and 2; section 1.1)."""

from __future__ import annotations

import orjson
import pytest

from convex_backend.errors import BadRequest
from convex_backend.sync.clients import Client, identify
from tests.sync.support import Server, mutation


@pytest.mark.parametrize(
    ("target", "name", "version"),
    [
        ("/api/sync", "unknown", None),
        ("/api/1.48.0/sync", "npm", "1.48.0"),
        ("//api/1.48.0/sync", "npm", "1.48.0"),
        ("//api/sync", "unknown", None),
        ("/pre/api/1.48.0/sync", "npm", "1.48.0"),
        ("/api/1.48.0-alpha.1+build/sync?x=/a/b", "npm", "1.48.0-alpha.1+build"),
    ],
)
def test_targets(target: str, name: str, version: str | None) -> None:
    """1, 2: both addresses are served, with doubled slashes and without any header of Convex."""
    server = Server()
    socket = server.open(target)
    assert socket.status == 101
    assert "Sec-WebSocket-Protocol" not in socket.head
    socket.send(mutation(0))
    caller = server.application.mutations[0].caller
    assert (caller.client, caller.version) == (name, version)


@pytest.mark.parametrize(
    ("header", "client"),
    [
        ("rust-0.10.4", Client("rust", "0.10.4")),
        ("python-0.8.1", Client("python", "0.8.1")),
        ("Python-Convex-0.8.1", Client("python", "0.8.1")),
        ("npm-cli-1.48.0", Client("npm-cli", "1.48.0")),
        ("npm-1.28.0-alpha-1.0", Client("npm", "1.28.0-alpha-1.0")),
    ],
)
def test_the_header_wins(header: str, client: Client) -> None:
    """1.1: the Convex-Client header is cut at the first dash from the left after which a semver follows."""
    assert identify("/api/1.30.0/sync", header) == client


@pytest.mark.parametrize("header", ["", "npm", "npm-", "npm-1", "npm-1.2", "-", "npm-v1.2.3"])
def test_bad_headers(header: str) -> None:
    """1.1: a header without a version is refused."""
    with pytest.raises(BadRequest) as caught:
        identify("/api/sync", header)
    assert caught.value.code == "InvalidClientVersion"


@pytest.mark.parametrize(
    ("client", "takes"),
    [
        (Client("npm", "1.28.0"), True),
        (Client("npm", "2.0.0"), True),
        (Client("npm", "1.28.0-alpha.0"), False),
        (Client("npm", "1.27.9"), False),
        (Client("rust", "1.48.0"), False),
        (Client(), False),
    ],
)
def test_who_takes_chunks(client: Client, takes: bool) -> None:
    """28: npm from 1.28.0 on, nobody else."""
    assert client.takes_chunks is takes


@pytest.mark.parametrize("segment", ["x", "1", "1.2", "v1.2.3", "01.2.3", "1.2.3.4", "1.2.3-"])
def test_a_segment_that_is_no_version(segment: str) -> None:
    """1: anything but semver in the version's place is a 400."""
    socket = Server().open(f"/api/{segment}/sync")
    assert socket.status == 400
    assert orjson.loads(socket.body)["code"] == "InvalidClientVersion"


@pytest.mark.parametrize(
    ("target", "header", "served"),
    [
        ("/api/0.19.1/sync", None, False),
        ("/api/0.19.0/sync", None, False),
        ("/api/0.19.2/sync", None, True),
        ("/api/sync", "python-0.0.2", False),
        ("/api/sync", "python-convex-0.0.2", False),
        ("/api/sync", "rust-0.0.1", False),
        ("/api/sync", "rust-0.0.2", True),
        ("/api/sync", "other-0.0.1", True),
    ],
)
def test_clients_that_are_too_old(target: str, header: str | None, served: bool) -> None:
    """1.1: they are told so, in JSON and in headers."""
    socket = Server().open(target, headers={} if header is None else {"Convex-Client": header})
    if served:
        assert socket.status == 101
        return
    assert socket.status == 400
    assert orjson.loads(socket.body)["code"] == "ClientVersionUnsupported"
    assert "x-convex-deprecation-state: unsupported" in socket.head.lower()
    assert "x-convex-deprecation-message: " in socket.head.lower()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"method": "POST"}, "MethodNotGet"),
        ({"drop": ("Connection", "Upgrade")}, "InvalidConnectionHeader"),
        ({"drop": ("Upgrade",)}, "InvalidUpgradeHeader"),
        ({"headers": {"Upgrade": "h2c"}}, "InvalidUpgradeHeader"),
        ({"drop": ("Sec-WebSocket-Version",)}, "InvalidWebSocketVersionHeader"),
        ({"headers": {"Sec-WebSocket-Version": "8"}}, "InvalidWebSocketVersionHeader"),
        ({"drop": ("Sec-WebSocket-Key",)}, "WebSocketKeyHeaderMissing"),
    ],
)
def test_defects_of_the_handshake(options: dict[str, object], code: str) -> None:
    """1.1: each is a 400 with its code in JSON."""
    socket = Server().open(**options)
    assert socket.status == 400
    assert "application/json" in socket.head
    body = orjson.loads(socket.body)
    assert body["code"] == code
    assert body["message"]


@pytest.mark.parametrize(
    "key", ["dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25j*Q==", "==", " "]
)
def test_keys_that_are_not_sixteen_octets(key: str) -> None:
    """1.1: a key of another form is refused."""
    assert Server().open(headers={"Sec-WebSocket-Key": key}).status == 400


def test_the_answer_to_the_key() -> None:
    """1.1: the example of RFC 6455 section 1.3, with nothing chosen."""
    head = Server().open(headers={"Sec-WebSocket-Protocol": "chat"}).head
    assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
    assert len(head.splitlines()) == 4


@pytest.mark.parametrize("drop", ["Host"])
def test_a_request_without_a_host(drop: str) -> None:
    """1.1: what HTTP/1.1 asks of every request."""
    assert Server().open(drop=(drop,)).status == 400


def test_a_key_that_is_none() -> None:
    """A handshake that Autobahn refuses leaves nothing behind."""
    server = Server()
    socket = server.open(headers={"Sec-WebSocket-Key": "short"})
    assert socket.status == 400
    server.pass_seconds(12)
    assert server.metric("convex_sync_opened_total") == 0
    assert not server.clock.getDelayedCalls()


def test_any_origin_is_served() -> None:
    """2: Origin is not checked, and a subprotocol is not needed."""
    assert Server().open(headers={"Origin": "https://elsewhere.example"}).status == 101


def test_the_resource_is_a_leaf() -> None:
    """Mounted anywhere, the rest of the path is its own."""
    server = Server()
    assert server.resource.isLeaf
    assert server.resource.getChildWithDefault(b"x", None) is server.resource  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        server.resource.putChild(b"x", server.resource)
