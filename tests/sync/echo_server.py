"""The WebSocket layer of the live socket with an echo in place of the sync machine.

Everything is the server's own but what is done with a message: the resource that upgrades, the factory with its options, the protocol with its
frames, limits, pings, backpressure and ends.
"""

from __future__ import annotations

import os
import time
from collections import deque
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.web.server import Site

from convex_backend.sync.closing import Close
from convex_backend.sync.endpoint import SyncResource
from convex_backend.sync.metrics import SyncMetrics
from convex_backend.sync.protocol import SyncFactory, SyncProtocol
from convex_backend.sync.worker import Peer


class EchoWorker:
    """Sends each message back, as :class:`~convex_backend.sync.worker.SyncWorker` sends a response; holds what cannot be sent yet."""

    def __init__(self, outlet: EchoProtocol) -> None:
        self.ended = False
        self._outlet = outlet
        self._waiting: deque[tuple[bytes, bool]] = deque()

    def message(self, payload: bytes, binary: bool) -> None:
        """A message has arrived."""
        self._waiting.append((payload, binary))
        self.writable()

    def writable(self) -> None:
        """The outlet has sent what it had."""
        while self._waiting and not self.ended and not self._outlet.congested:
            payload, binary = self._waiting.popleft()
            if binary:
                self._outlet.send_binary(payload)
            else:
                self._outlet.send(payload)

    def tick(self, now: float) -> None:
        """Nothing here takes time."""

    def closed(self) -> None:
        """The connection is gone, or going."""
        self.ended = True
        self._waiting.clear()

    def end(self, close: Close) -> None:
        """End the connection."""
        if not self.ended:
            self.closed()
            self._outlet.end(close)


class EchoProtocol(SyncProtocol):
    """One socket."""

    worker: Any

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """One message, of either kind."""
        if self.worker is not None:
            self.worker.message(payload, isBinary)

    def send_binary(self, message: bytes) -> None:
        """The sync protocol has text messages only, so its outlet cannot do this."""
        limit, self.maxMessagePayloadSize = self.maxMessagePayloadSize, 0
        try:
            self.sendMessage(message, isBinary=True)  # type: ignore[no-untyped-call]
        finally:
            self.maxMessagePayloadSize = limit


class EchoFactory(SyncFactory):
    """All sockets."""

    protocol = EchoProtocol

    def make_worker(self, protocol: SyncProtocol, peer: Peer) -> Any:
        """See :class:`SyncFactory`."""
        assert isinstance(protocol, EchoProtocol)
        return EchoWorker(protocol)


def echo_site(reactor: Any, *, compression: bool = False) -> tuple[Site, SyncResource]:
    """A site that upgrades every request at ``/api/sync``, and its resource."""
    factory = EchoFactory(
        None,  # type: ignore[arg-type]
        reactor,
        SyncMetrics(CollectorRegistry()),
        now_ns=time.time_ns,
        random_bytes=os.urandom,
        compression=compression,
    )
    resource = SyncResource(lambda: factory)
    return Site(resource, reactor=reactor), resource
