"""Getting small documents from providers: discovery and key sets.

Only ``http`` and ``https``; a redirect may go up from ``http`` to ``https`` but not down, and to no other scheme. Time, size and the
number of redirects are bounded. Private addresses are allowed, because in development the issuer is usually on this machine; only URLs that
``auth.config.ts`` names, or that the document of a provider named there does, are ever asked for.
"""

from __future__ import annotations

import typing
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.http import PotentialDataLoss

from convex_backend import __version__
from convex_backend.deferreds import from_coroutine

MAX_BODY_BYTES: Final = 1024 * 1024
MAX_REDIRECTS: Final = 5
TIMEOUT_SECONDS: Final = 10.0
_TOO_LATE: Final = f"no answer within {TIMEOUT_SECONDS:.0f} seconds"
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))


class FetchFailed(Exception):
    """There is no answer; the text says why."""


@attrs.frozen(slots=True)
class Fetched:
    """An answer.

    :param content_type: the media type with its parameters, or ``""``.
    :param reason: the words after the status code.
    :param url: where it came from in the end.
    """

    status: int
    reason: str
    content_type: str
    body: bytes
    url: str


class Fetcher(typing.Protocol):
    """Gets a document by URL."""

    async def get(self, url: str) -> Fetched:
        """:raises FetchFailed: there is no answer, or not within the bounds."""


class HttpFetcher:
    """A :class:`Fetcher` over treq.

    :param reactor: for connections and timeouts.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._agent: Any = None

    def _client(self) -> Any:
        # Not needed before the first token of a user: kept out of the start-up path.
        from treq.client import HTTPClient
        from twisted.web.client import Agent

        if self._agent is None:
            # Without a pool: answers are cached, so a connection is seldom used twice.
            self._agent = Agent(self._reactor, connectTimeout=TIMEOUT_SECONDS)
        # A client of its own for each document: nobody's cookies are kept.
        return HTTPClient(self._agent)

    async def get(self, url: str) -> Fetched:
        """See :class:`Fetcher`."""
        clock: IReactorTime = self._reactor
        work: Deferred[Fetched] = from_coroutine(self._get(url))
        # Whatever a cancelled connection says of itself: the time is what was over.
        work.addTimeout(TIMEOUT_SECONDS, clock, onTimeoutCancel=lambda _, __: Failure(FetchFailed(_TOO_LATE)))
        return await work

    async def _get(self, url: str) -> Fetched:
        client = self._client()
        for _ in range(MAX_REDIRECTS + 1):
            check_scheme(url)
            try:
                response = await client.get(
                    url,
                    headers={"Accept": "application/json", "User-Agent": f"convex-backend/{__version__}"},
                    allow_redirects=False,
                    unbuffered=True,
                    reactor=self._reactor,
                )
                location = response.headers.getRawHeaders("location")
                redirects = response.code in _REDIRECTS and location
                body = await _Body.of(response, 0 if redirects else MAX_BODY_BYTES)
            except (FetchFailed, CancelledError):
                raise
            except Exception as error:  # every kind of network trouble has a class of its own
                raise FetchFailed(_cause(error)) from error
            if not redirects:
                types = response.headers.getRawHeaders("content-type", [""])
                return Fetched(response.code, str(response.phrase, "latin-1"), types[0], body, url)
            url = redirected(url, location[0])
        raise FetchFailed("too many redirects")


def _cause(error: Exception) -> str:
    """The first failure inside *error*, in one line."""
    reasons = getattr(error, "reasons", None)
    if reasons:
        return _cause(reasons[0].value)
    return str(error).rstrip(".") or type(error).__name__


def check_scheme(url: str) -> None:
    """:raises FetchFailed: *url* is not one of the web, or has no host."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise FetchFailed(f"not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FetchFailed(f"unsupported URL scheme '{parts.scheme}'")


def redirected(url: str, location: str) -> str:
    """Where a redirect from *url* leads. :raises FetchFailed: it may not go there."""
    target = urljoin(url, location)
    if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
        raise FetchFailed("a redirect leads away from https")
    return target


class _Body(Protocol):
    """Collects an answer's body. Cancelling :attr:`whole` closes the connection.

    :param limit: most bytes; with 0 the body is not wanted and the connection is closed at once.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._chunks: list[bytes] = []
        self._size = 0
        self.whole: Deferred[bytes] = Deferred(lambda _: self._close())

    @classmethod
    def of(cls, response: Any, limit: int) -> Deferred[bytes]:
        """The body of *response*. Errs with :class:`FetchFailed` when it is cut or too large."""
        collector = cls(limit)
        response.deliverBody(collector)
        return collector.whole

    def connectionMade(self) -> None:
        """See ``IProtocol``."""
        if not self._limit:
            self.whole.callback(b"")
            self._close()

    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol``."""
        self._size += len(data)
        if self._size <= self._limit:
            self._chunks.append(data)
        elif not self.whole.called:
            self.whole.errback(Failure(FetchFailed(f"the answer is larger than {self._limit} bytes")))
            self._close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See ``IProtocol``."""
        # The client brings TLS along: a third of a second of a start that it would lengthen.
        from twisted.web.client import ResponseDone

        if self.whole.called:
            return
        # An answer without a length ends with its connection.
        if reason.check(ResponseDone, PotentialDataLoss):
            self.whole.callback(b"".join(self._chunks))
        else:
            self.whole.errback(Failure(FetchFailed("the connection was lost")))

    def _close(self) -> None:
        transport: Any = self.transport
        if transport is not None:
            getattr(transport, "abortConnection", transport.loseConnection)()
