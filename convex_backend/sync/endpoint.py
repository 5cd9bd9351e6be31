"""``/api/sync`` and ``/api/<version>/sync``: the HTTP side of the live socket (``sync.md`` section 1.1).

A leaf resource. It reads the version from the raw request target, so it may be mounted at either address, and a doubled leading slash
(an npm address that ends with one) does no harm.

Autobahn takes as long to load as all the rest of the server: it is loaded for the first socket, or before, when there is nothing else to do.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, cast

import orjson
from prometheus_client import CollectorRegistry
from twisted.internet.interfaces import IReactorTime
from twisted.protocols.policies import ProtocolWrapper
from twisted.web.http import Request
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from convex_backend.errors import BadRequest, ConvexError, Overloaded
from convex_backend.sync.clients import Client, identify
from convex_backend.sync.metrics import SyncMetrics

if TYPE_CHECKING:
    from autobahn.twisted.resource import WebSocketResource

    from convex_backend.sync.protocol import SyncFactory
    from convex_backend.sync.worker import Application

#: 16 octets in base64 (RFC 6455 section 4.1).
_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{22}==")


@implementer(IResource)
class SyncResource:
    """Upgrades a request to the sync protocol, or says in JSON why not.

    :param make_factory: called once, for the first socket.
    """

    isLeaf = True

    def __init__(self, make_factory: Callable[[], SyncFactory]) -> None:
        self._make_factory = make_factory
        self._closing = False

    @cached_property
    def factory(self) -> SyncFactory:
        """All open sockets."""
        return self._make_factory()

    @cached_property
    def _upgrade(self) -> WebSocketResource:
        from autobahn.twisted.resource import WebSocketResource

        return WebSocketResource(self.factory)

    def prepare(self) -> None:
        """Load what the first socket would else wait for."""
        _ = self._upgrade

    async def close_all(self, code: int = 1001, timeout_seconds: float = 3.0) -> None:
        """See :meth:`SyncFactory.close_all`."""
        self._closing = True
        if "factory" in self.__dict__:
            await self.factory.close_all(code, timeout_seconds=timeout_seconds)

    def getChildWithDefault(self, name: bytes, request: IRequest) -> IResource:
        """A leaf has no children."""
        return self

    def putChild(self, path: bytes, child: IResource) -> None:
        """A leaf has no children."""
        raise TypeError("the sync resource is a leaf")

    def render(self, request: IRequest) -> bytes | int:
        """See twisted.web: the body of an error, or ``NOT_DONE_YET``."""
        http = cast(Request, request)
        try:
            client = self._check(http)
        except ConvexError as error:
            return _refuse(http, error)
        keys = http.requestHeaders.getRawHeaders(b"sec-websocket-key") or []
        plain = not self.factory.negotiates or not http.requestHeaders.hasHeader(b"sec-websocket-extensions")
        usual = http.clientproto == b"HTTP/1.1" and http.requestHeaders.hasHeader(b"host")
        if plain and usual and len(keys) == 1 and _KEY.fullmatch(keys[0]):
            return self._open(http, keys[0], client)
        # Autobahn negotiates, or says what is wrong.
        return cast(int, self._upgrade.render(http))

    def _open(self, request: Request, key: bytes, client: Client) -> int:
        """Hand the connection of *request* over to a protocol of its own."""
        protocol = self.factory.protocol()
        protocol.factory = self.factory
        channel: Any = request.channel
        transport, channel.transport = channel.transport, None
        # TLS is a transport, or stays between.
        below = transport if isinstance(transport, ProtocolWrapper) else transport.protocol
        if isinstance(below, ProtocolWrapper):
            below.wrappedProtocol = protocol
        else:
            transport.protocol = protocol
        address = transport.getPeer()
        user_agent = request.getHeader(b"user-agent")
        protocol.open_upgraded(
            transport,
            key,
            client,
            getattr(address, "host", None),
            None if user_agent is None else user_agent.decode("latin-1"),
        )
        # It was paused while the request was handled.
        transport.resumeProducing()
        return NOT_DONE_YET

    def _check(self, request: Request) -> Client:
        """:raises ConvexError: why the request cannot become a socket."""
        if request.method != b"GET":
            raise BadRequest("MethodNotGet", "Request method must be `GET`")
        if b"upgrade" not in _tokens(request, b"connection"):
            raise BadRequest("InvalidConnectionHeader", "Connection header did not include 'upgrade'")
        if b"websocket" not in _tokens(request, b"upgrade"):
            raise BadRequest("InvalidUpgradeHeader", "`Upgrade` header did not include 'websocket'")
        if _tokens(request, b"sec-websocket-version") != [b"13"]:
            raise BadRequest("InvalidWebSocketVersionHeader", "`Sec-WebSocket-Version` header did not include '13'")
        if not request.getHeader(b"sec-websocket-key"):
            raise BadRequest("WebSocketKeyHeaderMissing", "`Sec-WebSocket-Key` header missing")
        header = request.getHeader(b"convex-client")
        client = identify(request.uri.decode("latin-1"), None if header is None else header.decode("latin-1"))
        if self._closing:
            raise Overloaded("ServerStopping", "The server is stopping. Try again later.")
        return client


def _tokens(request: Request, name: bytes) -> list[bytes]:
    """The comma-separated values of a header, in lower case."""
    values = request.requestHeaders.getRawHeaders(name) or []
    return [token.strip().lower() for value in values for token in value.split(b",")]


def _refuse(request: Request, error: ConvexError) -> bytes:
    request.setResponseCode(503 if isinstance(error, Overloaded) else 400)
    request.setHeader(b"content-type", b"application/json")
    if error.code == "ClientVersionUnsupported":
        request.setHeader(b"x-convex-deprecation-state", b"Unsupported")
        request.setHeader(b"x-convex-deprecation-message", error.message.encode("latin-1", "replace"))
    return orjson.dumps({"code": error.code, "message": error.message})


def native_validation() -> bool:
    """Whether Autobahn checks and unmasks messages with its native code (E1). Loads Autobahn."""
    from autobahn.websocket import USES_NVX

    return bool(USES_NVX)


def make_sync_resource(
    application: Application,
    reactor: IReactorTime,
    registry: CollectorRegistry,
    *,
    now_ns: Callable[[], int] = time.time_ns,
    random_bytes: Callable[[int], bytes] = os.urandom,
    compression: bool = False,
    max_message_bytes: int | None = None,
) -> SyncResource:
    """The resource for both addresses; the service layer hands it to ``web/``.

    :param registry: where the metrics of this room are registered.
    :param now_ns: wall clock.
    :param compression: accept ``permessage-deflate`` from clients that offer it.
    :param max_message_bytes: a client that sends a longer message is closed with 1009; by default the official server's limit.
    """
    metrics = SyncMetrics(registry)

    def make_factory() -> SyncFactory:
        from convex_backend.sync.protocol import MAX_MESSAGE_BYTES, SyncFactory

        return SyncFactory(
            application,
            reactor,
            metrics,
            now_ns=now_ns,
            random_bytes=random_bytes,
            compression=compression,
            max_message_bytes=MAX_MESSAGE_BYTES if max_message_bytes is None else max_message_bytes,
        )

    return SyncResource(make_factory)
