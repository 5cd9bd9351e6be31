"""Baseline of live queries: a bare Autobahn server. A message ``N`` is answered with N bytes to everybody else. Prints its port."""

from __future__ import annotations

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet import reactor


class Broadcast(WebSocketServerProtocol):
    """One client."""

    def onOpen(self) -> None:
        """A client is there."""
        self.factory.clients.add(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Send as many bytes as the message says."""
        message = b"x" * int(payload)
        for client in self.factory.clients:
            if client is not self:
                client.sendMessage(message)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """A client is gone."""
        self.factory.clients.discard(self)


if __name__ == "__main__":
    factory = WebSocketServerFactory()
    factory.protocol = Broadcast
    factory.clients = set()
    factory.setProtocolOptions(tcpNoDelay=True)
    port = reactor.listenTCP(0, factory, backlog=1024, interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    reactor.run()
