"""The WebSocket layer under TLS, where TLS stays between the socket and the protocol that takes over from HTTP."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateResponseAccept
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ClientEndpoint, connectProtocol, serverFromString
from twisted.internet.ssl import CertificateOptions

from tests.sync.echo_server import echo_site


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = (
        made.serial_number(1).not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    )
    signed = made.sign(key, hashes.SHA256())
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    paths[1].write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    return paths


class Client(WebSocketClientProtocol):
    """Sends *messages* and collects as many."""

    def __init__(self, messages: list[tuple[bytes, bool]]) -> None:
        super().__init__()
        self.messages = messages
        self.received: list[tuple[bytes, bool]] = []
        self.done: Deferred[Any] = Deferred()

    def onOpen(self) -> None:
        for payload, binary in self.messages:
            self.sendMessage(payload, binary)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.received.append((payload, isBinary))
        if len(self.received) == len(self.messages):
            self.sendClose(1000)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.done.callback((wasClean, code))


@pytest.mark.parametrize("compression", [False, True])
@pytest_twisted.ensureDeferred
async def test_messages_and_the_closing_handshake_under_tls(tmp_path: Path, compression: bool) -> None:
    """Messages of every size come back, and the connection ends in order, whoever has done the opening handshake: we, or Autobahn."""
    from twisted.internet import reactor

    cert, key = certificate(tmp_path)
    site, resource = echo_site(reactor, compression=compression)
    endpoint = serverFromString(reactor, f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={cert}")
    port = await endpoint.listen(site)
    number = port.getHost().port
    factory = WebSocketClientFactory(f"wss://127.0.0.1:{number}/api/sync", reactor=reactor)
    if compression:
        factory.setProtocolOptions(
            perMessageCompressionOffers=[PerMessageDeflateOffer()],
            perMessageCompressionAccept=PerMessageDeflateResponseAccept,
        )
    sizes = (0, 1, 125, 126, 65_536, 3_000_000)
    client = Client([(b"x" * size, size % 2 == 1) for size in sizes])
    client.factory = factory
    try:
        options = CertificateOptions(verify=False)
        await connectProtocol(SSL4ClientEndpoint(reactor, "127.0.0.1", number, options), client)
        assert await client.done == (True, 1000)
        assert client.received == client.messages
    finally:
        await port.stopListening()
        await resource.close_all(timeout_seconds=1)
