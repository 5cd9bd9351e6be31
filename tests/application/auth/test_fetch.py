"""Asking providers over real connections: every bound of :class:`HttpFetcher`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from convex_backend.application.auth import fetch
from convex_backend.application.auth.fetch import Fetched, FetchFailed, HttpFetcher


class Provider(Resource):
    """Answers by path; :ivar open: requests that were never answered and whose connection is still there."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.asked: list[bytes] = []
        self.open = 0

    def render_GET(self, request: Any) -> Any:
        self.asked.append(request.path)
        if request.path == b"/hang":
            self.open += 1
            request.write(b"{")

            def gone(_: object) -> None:
                self.open -= 1

            request.notifyFinish().addErrback(gone)
            return NOT_DONE_YET
        if request.path == b"/big":
            return b"x" * (fetch.MAX_BODY_BYTES + 1)
        if request.path.startswith(b"/to/"):
            request.setResponseCode(302)
            request.setHeader(b"location", request.path[4:].replace(b"!", b":"))
            return b"a body that nobody reads"
        if request.path == b"/loop":
            request.redirect(b"/loop")
            return b""
        if request.path == b"/missing":
            request.setResponseCode(404)
            return b"no"
        request.setHeader(b"content-type", b"application/json; charset=utf-8")
        return b"{}"


@pytest_twisted.async_yield_fixture
async def provider() -> AsyncIterator[tuple[str, Provider]]:
    """The origin of a provider, and the provider."""
    root = Provider()
    port = reactor.listenTCP(0, Site(root), interface="127.0.0.1")  # type: ignore[attr-defined]
    yield f"http://127.0.0.1:{port.getHost().port}", root
    await port.stopListening()


async def get(url: str) -> Fetched:
    return await HttpFetcher(reactor).get(url)


async def cause(url: str) -> str:
    """Why a fetch fails."""
    with pytest.raises(FetchFailed) as caught:
        await get(url)
    return str(caught.value)


@pytest_twisted.ensureDeferred
async def test_an_answer(provider: tuple[str, Provider]) -> None:
    """Status, media type and body; a status that is no success is an answer too."""
    origin, _ = provider
    assert await get(f"{origin}/x") == Fetched(200, "OK", "application/json; charset=utf-8", b"{}", f"{origin}/x")
    missing = await get(f"{origin}/missing")
    assert (missing.status, missing.reason) == (404, "Not Found")


@pytest_twisted.ensureDeferred
async def test_redirects(provider: tuple[str, Provider]) -> None:
    """Followed a few times, to the web only."""
    origin, root = provider
    assert (await get(f"{origin}/to//x")).url == f"{origin}/x"
    assert await cause(f"{origin}/loop") == "too many redirects"
    assert root.asked.count(b"/loop") == fetch.MAX_REDIRECTS + 1
    assert await cause(f"{origin}/to/file!///etc/passwd") == "unsupported URL scheme 'file'"


@pytest_twisted.ensureDeferred
async def test_large_answers(provider: tuple[str, Provider]) -> None:
    """E4: what is larger than a megabyte is not taken in."""
    origin, _ = provider
    assert await cause(f"{origin}/big") == f"the answer is larger than {fetch.MAX_BODY_BYTES} bytes"


@pytest_twisted.ensureDeferred
async def test_slow_answers(provider: tuple[str, Provider], monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that does not end in time fails, and its connection is closed."""
    origin, root = provider
    monkeypatch.setattr(fetch, "TIMEOUT_SECONDS", 0.3)
    assert await cause(f"{origin}/hang") == "no answer within 10 seconds"
    for _ in range(200):
        if not root.open:
            break
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    assert (root.asked, root.open) == ([b"/hang"], 0)


@pytest_twisted.ensureDeferred
async def test_nobody_there() -> None:
    """A refused connection says so, in one line; other schemes are not even tried."""
    port = reactor.listenTCP(0, Site(Resource()), interface="127.0.0.1")  # type: ignore[attr-defined, no-untyped-call]
    number = port.getHost().port
    await port.stopListening()
    text = await cause(f"http://127.0.0.1:{number}/")
    assert "refused" in text and "\n" not in text
    assert "unsupported URL scheme" in await cause("ftp://127.0.0.1/")
