"""The Autobahn side of the live socket: frames, keep-alive, limits, backpressure, close codes.

Backpressure. On a plain TCP transport the protocol is a *pull* producer: the transport calls ``resumeProducing`` each time all that was
written has gone to the kernel, so the number of unsent Transitions is known exactly. TLS transports would poll a pull producer in a
loop; there it is a *push* producer, which is paused once 64 KiB wait.

Source: ``sync.md`` sections 1.2 to 1.6 and 8.2; house rules on WebSockets.
"""

from __future__ import annotations

import binascii
import hashlib
import struct
from collections.abc import Callable
from typing import Any, ClassVar, Final

import txaio
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept
from autobahn.websocket.protocol import WebSocketProtocol
from autobahn.websocket.types import ConnectionRequest
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from convex_backend.deferreds import Waiters, run_detached
from convex_backend.sync import closing, messages
from convex_backend.sync.clients import Client, identify
from convex_backend.sync.closing import Close
from convex_backend.sync.metrics import SyncMetrics
from convex_backend.sync.worker import Application, Peer, SyncWorker

#: Seconds (``sync.md`` section 1.3).
PING_SECONDS: Final = 5
APPLICATION_PING_SECONDS: Final = 15.0
SILENCE_SECONDS: Final = 120.0
HANDSHAKE_SECONDS: Final = 10.0
#: Largest message from a client, as of the official server; and the largest frame sent.
MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
FRAME_BYTES: Final = 1024 * 1024
#: Transitions that may wait unsent, and bytes beyond which no new work is taken.
MAX_UNSENT_TRANSITIONS: Final = 2
CONGESTED_BYTES: Final = 1024 * 1024

#: RFC 6455 section 1.3.
_HANDSHAKE_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_SWITCHING: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n"
)
_TEXT_FRAME: Final = 0x81
_PONG_FRAME: Final = 0x8A
_PING: Final = b"\x89\x00"
_SHORT_HEADS: Final = tuple(bytes((_TEXT_FRAME, length)) for length in range(126))
_pack_medium: Final = struct.Struct("!BBH").pack
_pack_long: Final = struct.Struct("!BBQ").pack


@implementer(IPushProducer)
class SyncProtocol(WebSocketServerProtocol):
    """One socket. An :class:`~convex_backend.sync.worker.Outlet` for its worker."""

    _log = Logger()

    # Autobahn copies these from the factory to each protocol and prints them all for a log that nobody reads: a third of what a handshake costs.
    # They are attributes of the class instead (:func:`_configured`).
    CONFIG_ATTRS: ClassVar[list[str]] = []  # type: ignore[misc]
    websocket_version = 13

    factory: SyncFactory
    # A TCP or TLS transport; no one interface names all that is used of it.
    transport: Any
    maxMessagePayloadSize: int

    def __init__(self) -> None:
        super().__init__()
        self.worker: SyncWorker | None = None
        #: In which second of every five it is pinged.
        self.ping_turn = 0
        self._peer_info = Peer(Client())
        self._counted = False
        self._transport_paused = False
        self._unsent_transitions = 0
        self._unsent_bytes = 0
        self._heard = True
        self._heard_at = 0.0
        self._spoke = True
        self._spoke_at = 0.0
        self._reading = True
        #: When TCP was told to end once all is sent; ``None`` before.
        self._dropped_at: float | None = None

    # -- the handshake ------------------------------------------------------------------------------------------------

    def open_upgraded(self, transport: Any, key: bytes, client: Client, ip: str | None, user_agent: str | None) -> None:
        """Begin as an open socket: the response to a handshake that :class:`~convex_backend.sync.endpoint.SyncResource` has checked, and in
        which there is nothing to negotiate. Autobahn's own way would print the request and parse it once more.

        :param transport: taken over from HTTP.
        :param key: of the request, well formed.
        """
        self._peer_info = Peer(client, ip, user_agent)
        self.transport = transport
        self.connected = 1
        self.factory.countConnections += 1
        WebSocketProtocol._connectionMade(self)
        self.websocket_protocol_in_use = None
        self.websocket_extensions_in_use = []
        self.inside_message = False
        self.current_frame = None  # type: ignore[assignment]
        accept = binascii.b2a_base64(hashlib.sha1(key + _HANDSHAKE_GUID, usedforsecurity=False).digest(), newline=False)
        transport.write(_SWITCHING % accept)
        self.state = self.STATE_OPEN
        self.onOpen()

    # -- Autobahn's callbacks -----------------------------------------------------------------------------------------

    def onConnect(self, request: ConnectionRequest) -> None:
        """The handshake's request; :class:`~convex_backend.sync.endpoint.SyncResource` has checked it."""
        headers: dict[str, str] = request.headers
        client = identify(self.http_request_uri, headers.get("convex-client"))
        address = self.transport.getPeer()
        self._peer_info = Peer(client, getattr(address, "host", None), headers.get("user-agent"))

    def onOpen(self) -> None:
        """The handshake is done. Nothing is sent but a ping (``sync.md`` section 1.5)."""
        try:
            self._open()
        except Exception:  # noqa: BLE001 - Autobahn would swallow it and leave the socket open
            self._log.failure("a sync socket could not be opened")
            self.end(closing.INTERNAL)

    def _open(self) -> None:
        self._heard_at = self._spoke_at = self.factory.clock.seconds()
        self.worker = self.factory.make_worker(self, self._peer_info)
        # The HTTP channel is still registered.
        self.transport.unregisterProducer()
        self._counted = isinstance(self.transport, FileDescriptor) and not getattr(self.transport, "TLS", False)
        self.transport.registerProducer(self, not self._counted)
        self.transport.write(_PING)
        self.factory.opened(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """One message; an exception here would drop TCP without a close frame, so the worker raises none."""
        if self.worker is None:
            return
        if isBinary:
            self.worker.end(closing.INTERNAL)
        else:
            self.worker.received(payload)

    def onPing(self, payload: bytes) -> None:
        """Answer, unless so much waits unsent that a peer which only writes would fill our memory."""
        if not self.congested:
            self._unsent_bytes += len(payload) + 2
            super().onPing(payload)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """The connection is gone; also called for a handshake that failed."""
        if self.closeHandshakeTimeoutCall is not None:
            # Autobahn leaves it running when the peer drops TCP instead of answering.
            self.closeHandshakeTimeoutCall.cancel()
            self.closeHandshakeTimeoutCall = None
        if self.worker is not None:
            self.worker.closed()
            self.worker = None
            self.factory.gone(self)
            self._log.debug("sync socket closed: {code} {reason}", code=code, reason=reason)

    def dropConnection(self, abort: bool = False) -> None:
        """End TCP. Where both close frames have been exchanged Autobahn would abort, and throw away ours if it is not sent yet: it may be
        the answer to a close frame that is itself a violation. A peer that takes nothing is aborted by :meth:`tick`."""
        if self.wasClean and self._dropped_at is None:
            abort = False
        self._dropped_at = self.factory.clock.seconds()
        super().dropConnection(abort=abort)

    def _fail_connection(self, code: int = 1001, reason: str = "going away") -> None:
        """Autobahn's way to fail the connection. What the peer sends now need not be frames any more, so its own close frame may never be
        seen: TCP is ended behind ours, on our side, and the closing handshake may end by that of the peer."""
        super()._fail_connection(code, reason)
        if self._counted and self.state == self.STATE_CLOSING and self._dropped_at is None:
            # A producer would be asked for more instead.
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the peer: it is alive. Autobahn's own method would format a line of debugging first."""
        self._heard = True
        if self.state == self.STATE_OPEN and not (self.data or self.inside_message) and self.current_frame is None:
            data = self._take_messages(data)
        if data:
            self._dataReceived(data)

    def _take_messages(self, data: bytes) -> bytes:
        """Handle what nearly all bytes are: text messages of one whole frame, and pongs. It must be called between messages.

        :returns: the rest, beginning with anything else: it is Autobahn's to read, or to refuse.
        """
        at, end, limit = 0, len(data), self.maxMessagePayloadSize
        while end - at >= 6:
            first, length, start = data[at], data[at + 1] - 0x80, at + 6
            if length == 126 and first == _TEXT_FRAME and end - at >= 8:
                length, start = data[at + 2] << 8 | data[at + 3], at + 8
                if length < 126:
                    break
            elif not 0 <= length < 126:
                break
            stop = start + length
            if stop > end:
                break
            if first == _TEXT_FRAME:
                if self._perMessageCompress is not None or 0 < limit < length:
                    break
                payload = _unmasked(data[start - 4 : start], data[start:stop])
                if payload is None:
                    break
                at = stop
                self.onMessage(payload, False)
                if self.state != self.STATE_OPEN:
                    break
            elif first == _PONG_FRAME:
                at = stop
            else:
                break
        return data[at:] if at else data

    def onMessageEnd(self) -> None:
        """A whole message. Autobahn's own method would also look for event listeners, which costs more than the parsing."""
        if not self.failedByMe:
            self.onMessage(b"".join(self.message_data), self.message_is_binary)
        self.message_data = []

    # -- Outlet -------------------------------------------------------------------------------------------------------

    @property
    def blocked(self) -> bool:
        """See ``Outlet``."""
        return self._transport_paused or self._unsent_transitions >= MAX_UNSENT_TRANSITIONS

    @property
    def congested(self) -> bool:
        """See ``Outlet``."""
        return self._transport_paused or self._unsent_bytes >= CONGESTED_BYTES

    def send(self, message: bytes) -> None:
        """See ``Outlet``. Whole frames are written past Autobahn's layers, which cost more than the rest of a broadcast."""
        if self.state != self.STATE_OPEN:
            return
        self._spoke = True
        length = len(message)
        if self._counted:
            self._unsent_bytes += length
        if length > FRAME_BYTES or self._perMessageCompress is not None:
            self._send_long(message)
        elif length < 126:
            self.transport.write(_SHORT_HEADS[length] + message)
        elif length < 65536:
            self.transport.write(_pack_medium(_TEXT_FRAME, 126, length) + message)
        else:
            self.transport.writeSequence((_pack_long(_TEXT_FRAME, 127, length), message))

    def _send_long(self, message: bytes) -> None:
        # Autobahn's limit holds in both directions, ours for the inbound one only.
        limit, self.maxMessagePayloadSize = self.maxMessagePayloadSize, 0
        try:
            self.sendMessage(message)  # type: ignore[no-untyped-call]
        finally:
            self.maxMessagePayloadSize = limit

    def send_transition(self, message: bytes) -> None:
        """See ``Outlet``."""
        if self._counted:
            self._unsent_transitions += 1
        self.send(message)

    def end(self, close: Close) -> None:
        """See ``Outlet``. Autobahn's ``sendClose`` refuses most of the codes."""
        if self.state != self.STATE_OPEN:
            return
        if close.message is not None:
            self.send(close.message)
        self.factory.metrics.closed_by_server(close.code)
        self.sendCloseFrame(code=close.code, reasonUtf8=close.reason_bytes or None)

    def pause_reading(self) -> None:
        """See ``Outlet``."""
        self._reading = False
        self.transport.pauseProducing()

    def resume_reading(self) -> None:
        """See ``Outlet``."""
        self._reading = True
        self.transport.resumeProducing()

    # -- IPushProducer ------------------------------------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """The transport's buffer is full (push mode)."""
        self._transport_paused = True

    def resumeProducing(self) -> None:
        """The transport's buffer is empty."""
        self._transport_paused = False
        self._unsent_transitions = self._unsent_bytes = 0
        if self.worker is not None:
            self.worker.writable()

    def stopProducing(self) -> None:
        """The transport is gone; ``onClose`` follows."""

    # -- keep-alive ---------------------------------------------------------------------------------------------------

    def tick(self, now: float, ping: bool) -> None:
        """About once a second.

        :param ping: it is this connection's turn for a ping frame.
        """
        if self._heard or not self._reading:
            self._heard = False
            self._heard_at = now
        if self._spoke:
            self._spoke = False
            self._spoke_at = now
        if self._dropped_at is not None and now - self._dropped_at >= HANDSHAKE_SECONDS:
            self.transport.abortConnection()
            return
        worker = self.worker
        if worker is None or worker.ended:
            return
        if now - self._heard_at >= SILENCE_SECONDS:
            worker.end(closing.SILENT_PEER)
            return
        worker.tick(now)
        if ping:
            self.transport.write(_PING)
        if now - self._spoke_at >= APPLICATION_PING_SECONDS:
            self.send(messages.PING)


class SyncFactory(WebSocketServerFactory):
    """All sockets of the server: their keep-alive and their end.

    :param reactor: timers.
    :param now_ns: wall clock.
    :param compression: accept ``permessage-deflate``; it costs a zlib state for each socket (E1).
    """

    protocol: type[SyncProtocol] = SyncProtocol  # type: ignore[assignment]
    _log = Logger()

    def __init__(
        self,
        application: Application,
        reactor: IReactorTime,
        metrics: SyncMetrics,
        *,
        now_ns: Callable[[], int],
        random_bytes: Callable[[int], bytes],
        compression: bool = False,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        # Autobahn's timers come from here, not from the factory's reactor.
        txaio.config.loop = reactor  # type: ignore[attr-defined]
        super().__init__(reactor=reactor, server="")  # type: ignore[no-untyped-call]
        self.setProtocolOptions(  # type: ignore[no-untyped-call]
            versions=[13],
            webStatus=False,
            failByDrop=False,
            echoCloseCodeReason=True,
            # The request is complete before a protocol is made; how long that takes is bounded by the HTTP channel.
            openHandshakeTimeout=0,
            closeHandshakeTimeout=HANDSHAKE_SECONDS,
            autoFragmentSize=FRAME_BYTES,
            maxMessagePayloadSize=max_message_bytes,
            tcpNoDelay=True,
            perMessageCompressionAccept=_accept_deflate if compression else _decline,
        )
        self.protocol = _configured(self.protocol, self)
        self.negotiates = compression
        self.metrics = metrics
        self.clock = reactor
        self.closing = False
        self.connections: set[SyncProtocol] = set()
        self._application = application
        self._now_ns = now_ns
        self._random_bytes = random_bytes
        self._gone: Waiters[None] = Waiters()
        self._ticks = 0
        self._heartbeat = LoopingCall(self._tick)
        self._heartbeat.clock = reactor

    def make_worker(self, protocol: SyncProtocol, peer: Peer) -> SyncWorker:
        """The worker of a socket that has just opened."""
        return SyncWorker(self._application, protocol, peer, self.clock, self._now_ns, self._random_bytes, self.metrics)

    def opened(self, protocol: SyncProtocol) -> None:
        """A socket is open."""
        self.connections.add(protocol)
        protocol.ping_turn = self._ticks % PING_SECONDS
        self.metrics.connections += 1
        self.metrics.opened += 1
        if not self._heartbeat.running:
            run_detached("the heartbeat of sync sockets", _forever(self._heartbeat))
        if self.closing and protocol.worker is not None:
            protocol.worker.end(Close(code=1001, reason="ServerStopping"))

    def gone(self, protocol: SyncProtocol) -> None:
        """A socket is closed."""
        if protocol not in self.connections:
            return
        self.connections.remove(protocol)
        self.metrics.connections -= 1
        if not self.connections:
            if self._heartbeat.running:
                self._heartbeat.stop()
            self._gone.fire(None)

    def _tick(self) -> None:
        now = self.clock.seconds()
        self._ticks += 1
        turn = self._ticks % PING_SECONDS
        for protocol in tuple(self.connections):
            try:
                protocol.tick(now, protocol.ping_turn == turn)
            except Exception:  # noqa: BLE001 - one socket's fault must not end the heartbeat of the others
                self._log.failure("the heartbeat of a sync socket failed")

    async def close_all(self, code: int = 1001, reason: str = "ServerStopping", timeout_seconds: float = 3.0) -> None:
        """Close every socket, now and from now on, and wait for their ends; what has not ended in time is dropped.

        Cancelling this drops them at once.
        """
        self.closing = True
        for protocol in tuple(self.connections):
            if protocol.worker is not None:
                protocol.worker.end(Close(code=code, reason=reason))
        if not self.connections:
            return
        waiter: Deferred[None] = self._gone.wait()
        timer: IDelayedCall = self.clock.callLater(timeout_seconds, self._gone.fire, None)
        try:
            await waiter
        finally:
            if timer.active():
                timer.cancel()
            for protocol in tuple(self.connections):
                protocol.dropConnection(abort=True)


def _unmasked(mask: bytes, payload: bytes) -> bytes | None:
    """The text under *mask*; ``None`` if it is not UTF-8."""
    length = len(payload)
    key = (mask * (length // 4 + 1))[:length]
    text = (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(length, "little")
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError:
            return None
    return text


def _configured(protocol: type[SyncProtocol], factory: SyncFactory) -> type[SyncProtocol]:
    """A subclass that has the options of *factory*."""
    options: dict[str, object] = {}
    for name in WebSocketServerProtocol.CONFIG_ATTRS:
        value = getattr(factory, name)
        options[name] = staticmethod(value) if callable(value) else value
    return type(protocol.__name__, (protocol,), options)


async def _forever(loop: LoopingCall) -> None:
    await loop.start(1.0, now=False)


def _accept_deflate(offers: list[Any]) -> PerMessageDeflateOfferAccept | None:
    for offer in offers:
        if isinstance(offer, PerMessageDeflateOffer):
            return PerMessageDeflateOfferAccept(offer)
    return None


def _decline(offers: list[Any]) -> None:
    """No compression: what many sockets get is then the same bytes."""
