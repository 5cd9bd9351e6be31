"""The HTTP site: what every request passes before a route sees it.

::

    bytes ─► size cap of the route ─► OPTIONS answered ─► fixed route │ /http/* (raw leaf) │ */sync (WebSocket) │ Klein (everything else)

Bodies are counted while they arrive and dropped past the cap of their route, so that nothing large is held for a route that does not
take it. Source: ``http_api.md`` sections 2.1, 2.4 and 3 to 5.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site

from convex_backend.application.application import Application
from convex_backend.deferreds import InFlight
from convex_backend.errors import TooLarge
from convex_backend.web import cors
from convex_backend.web.channel import BackendChannel
from convex_backend.web.errors import error_body, status_of
from convex_backend.web.http_actions import HttpActionResource
from convex_backend.web.http_metrics import HttpActionMetrics
from convex_backend.web.limits import PUSH_BYTES, STREAMED, body_cap
from convex_backend.web.metrics import RequestMetrics
from convex_backend.web.routes import Routes, make_routes
from convex_backend.web.routing import Front, send
from convex_backend.web.streamed_body import StreamedBody

if TYPE_CHECKING:
    from convex_backend.web.dev_proxy import DevSiteProxy

CLIENT_GONE = "Client disconnected"
_IDLE_SECONDS = 300


class LimitedRequest(Request):
    """A request whose body is counted while it arrives."""

    # Twisted's default, text/html, is never what an answer without a type of its own is.
    defaultContentType = None
    _received = 0
    _cap: int | None = None
    #: What takes the body as it arrives; ``None`` when it is collected in ``content`` first.
    body: StreamedBody | None = None
    _begun = False

    def streams_body(self) -> bool:
        """Whether the route takes bodies as they arrive; asked when the head is there."""
        target = getattr(self.channel, "_path", None)
        if target is None:
            return False
        path = _single_slash(target)
        return path.startswith(STREAMED) or self._is_proxied(path)

    def _is_proxied(self, path: bytes) -> bool:
        """Whether the front end's dev server answers."""
        channel: Any = self.channel
        proxy: DevSiteProxy | None = channel.site.proxy
        return proxy is not None and proxy.takes(path)

    def gotLength(self, length: int | None) -> None:
        """The head is there. :param length: of the body, ``None`` if only its end will show it."""
        if length == 0 or not self.streams_body():
            super().gotLength(length)  # type: ignore[no-untyped-call]
            return
        self.content = BytesIO()
        self._cap = self.cap()
        if length is not None and length > self._cap:
            self._received = length
        channel: Any = self.channel
        reactor = channel.site.reactor
        self.body = StreamedBody(channel, reactor)
        # Not now: a client that waits for "100 Continue" must get that first.
        reactor.callLater(0, self._begin)

    def _begin(self) -> None:
        """Handle the request although its body is still to come."""
        if self._begun:
            return
        self._begun = True
        channel: Any = self.channel
        if channel is not None:
            super().requestReceived(channel._command, channel._path, channel._version)  # type: ignore[no-untyped-call]

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """See ``twisted.web.http.Request``: all is there."""
        if self.body is None:
            super().requestReceived(command, path, version)  # type: ignore[no-untyped-call]
            return
        if not self._begun:
            self._begun = True
            super().requestReceived(command, path, version)  # type: ignore[no-untyped-call]
        self.body.ended()

    def finish(self) -> None:
        """See ``IRequest``; a connection goes on with the next request only when this one's body has come."""
        if self.body is None or self.body.complete:
            super().finish()  # type: ignore[no-untyped-call]
        else:
            self.body.drain(super().finish)

    def connectionLost(self, reason: Failure) -> None:
        """See ``twisted.web.http.Request``."""
        if self.body is not None:
            self.body.lost(CLIENT_GONE)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def cap(self) -> int:
        """The most bytes that the body may have, asked when its first bytes arrive."""
        # The request line is known to the channel before the body; without that private name the largest cap counts.
        target = getattr(self.channel, "_path", None)
        return PUSH_BYTES if target is None or self._is_proxied(target) else body_cap(_single_slash(target))

    def handleContentChunk(self, data: bytes) -> None:
        """Keep *data* unless the body has outgrown its route's cap."""
        if self._cap is None:
            self._cap = self.cap()
        self._received += len(data)
        if self.body is not None:
            self._begin()
            if self._received <= self._cap:
                self.body.received(data)
            else:
                self.body.failed(f"The request body is over the limit of {self._cap} bytes.")
        elif self._received <= self._cap:
            super().handleContentChunk(data)  # type: ignore[no-untyped-call]

    @property
    def too_large(self) -> bool:
        """Whether the body was cut off."""
        return self._cap is not None and self._received > self._cap

    def process(self) -> None:
        """Answer what no route needs to see, else find the resource."""
        path = self.path = _single_slash(self.path)
        users = path.startswith(b"/http/") or path == b"/http" or self._is_proxied(path)
        if self.method == b"OPTIONS" and not users:
            cors.preflight(self)
        elif self.too_large:
            if not users:
                cors.allow_origin(self)
            self.refuse_size()
        else:
            super().process()  # type: ignore[no-untyped-call]

    def refuse_size(self) -> None:
        """Answer 413."""
        error = TooLarge("RequestTooLarge", f"The request body is over the limit of {self._cap} bytes.")
        send(self, status_of(error), b"application/json", error_body(error))


def _single_slash(path: bytes) -> bytes:
    """An address with a trailing slash makes npm clients ask for ``//api/…`` (``sync.md`` section 1.1)."""
    return b"/" + path.lstrip(b"/") if path.startswith(b"//") else path


class Root(Resource):
    """Hands each request to its route, to the leaf that reads raw paths, or to the sync socket.

    :param sync: for ``/api/sync`` and ``/api/<version>/sync``.
    :param http: for everything under ``/http``.
    :param proxy: for every path that is nobody's here.
    """

    def __init__(self, routes: Routes, sync: IResource, http: IResource, proxy: DevSiteProxy | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._proxy = proxy
        self._fixed = routes.fixed
        self._matched = routes.matched
        self._sync = sync
        self._http = http

    def getChild(self, path: bytes, request: Any) -> IResource:
        """See ``IResource``."""
        if self._proxy is not None and self._proxy.takes(request.path):
            return self._proxy
        fixed = self._fixed.get((request.method, request.path))
        if fixed is not None:
            return fixed
        if path == b"http":
            return self._http
        rest = request.postpath
        if path == b"api" and rest and rest[-1] == b"sync" and len(rest) <= 2 and rest[0] != b"run":
            return self._sync
        # Klein wants the whole path.
        request.postpath.insert(0, request.prepath.pop())
        return self._matched

    def prepare(self) -> Iterator[None]:
        """See :meth:`BackendSite.prepare`."""
        return self._matched.prepare()

    def render(self, request: Any) -> Any:
        """See ``IResource``: the empty path."""
        return self._matched.render(request)


class BackendSite(Site):
    """A site without an access log, and without parsing of forms that no route wants.

    :param front: the requests under way.
    :param proxy: what answers on paths that are nobody's here.
    :ivar http: what serves ``/http``, for the site port.
    """

    # No lines with addresses of objects when it starts and stops.
    noisy = False
    protocol = BackendChannel  # type: ignore[assignment]

    def __init__(
        self,
        root: IResource,
        http: IResource,
        front: Front,
        reactor: Any,
        request: type[Request] = LimitedRequest,
        proxy: DevSiteProxy | None = None,
    ) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            root, request, timeout=_IDLE_SECONDS, reactor=reactor, parsePOSTFormSubmission=False
        )
        self.http = http
        self.front = front
        self.proxy = proxy

    def log(self, request: Any) -> None:
        """No line for each request: metrics count them."""

    def prepare(self) -> Iterator[None]:
        """Make, item by item, the map of routes that the first request without a fixed route would else wait for."""
        return self.resource.prepare() if isinstance(self.resource, Root) else iter(())

    async def idle(self) -> None:
        """Refuse new requests, answer long polls, and return when no request is under way."""
        self.front.stopping = True
        self.front.application.function_log.stop()
        if self.proxy is not None:
            self.proxy.close()
        await self.front.in_flight.idle()

    def cancel_requests(self) -> None:
        """Give up what is still under way: clients get 503; commits that have begun still happen."""
        self.front.give_up()


def make_site(
    application: Application,
    sync: IResource,
    registry: CollectorRegistry,
    reactor: Any,
    site_url: str | None = None,
) -> BackendSite:
    """The protocol factory of the main port.

    :param site_url: of the front end's dev server, which gets every path that is not ours.
    :param sync: serves ``/api/sync`` and ``/api/<version>/sync``; given from outside, since front ends do not know each other.
    """
    in_flight = InFlight()
    front = Front(application, RequestMetrics(registry, lambda: in_flight.count), in_flight, reactor)
    http = HttpActionResource(front, HttpActionMetrics(registry))
    routes = make_routes(front)
    proxy: DevSiteProxy | None = None
    if site_url is not None:
        # Large modules, which most servers have no use for.
        from convex_backend.web.dev_proxy import DevSiteProxy

        # "/" is the page's: our own is only for those who look whether somebody is there.
        proxy = DevSiteProxy(site_url, front, (routes.names | {b"http"}) - {b""}, reactor)
    return BackendSite(Root(routes, sync, http, proxy), http, front, reactor, proxy=proxy)
