"""Runs of ``http.js`` in a real child: what its default export may be, and what the host hears of it (``runtime.md`` 1.6)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_twisted
from prometheus_client import CollectorRegistry

from convex_backend.functions import frames
from convex_backend.functions.fleet import PoolOptions
from convex_backend.functions.pool_metrics import PoolMetrics
from convex_backend.functions.runner_pool import ModuleText, RunnerPool
from convex_backend.functions.runner_process import RunnerProcess, runner_command
from convex_backend.functions.streams import CallStreams
from convex_backend.interfaces import CallLink, ModuleRef, Outcome
from tests.functions.fakes import FakeHost, spec

DIST = Path(__file__).parents[2] / "resources" / "runner" / "dist"
pytestmark = pytest.mark.skipif(not (DIST / "main.mjs").exists(), reason="the runner is not built: node build.mjs")

ROUTER = """
const handler = async (request) => HANDLER;
export default {
  isRouter: true,
  lookup: (path, method) => (path === "/x" ? [handler, method, "/x"] : null),
  runRequest: async (text, path) => {
    const request = Convex.jsSyscall("requestFromConvexJson", { convexJson: JSON.parse(text) });
    return JSON.stringify(Convex.jsSyscall("convexJsonFromResponse", { response: await handler(request) }));
  },
};
"""


class Host(FakeHost):
    """Takes an HTTP action's response."""

    def __init__(self) -> None:
        super().__init__()
        self.routes: list[str] = []
        self.head: Any = None
        self.body = b""
        self.streams = CallStreams(self._on_http)

    def begin(self, link: CallLink) -> None:
        super().begin(link)
        self.streams.begin(link)

    def stream_frame(self, kind: int, stream: int, meta: bytes, body: bytes) -> None:
        self.streams.receive(kind, stream, meta, body)
        if kind == frames.DATA:
            self.body += body

    def _on_http(self, meta: bytes, body: bytes) -> None:
        if meta:
            self.routes.append(json.loads(meta)["route"])
        else:
            self.head = json.loads(body)


async def run(*sources: str, path: str = "/x", method: str = "GET") -> list[tuple[Outcome, Host]]:
    """Ask the router that each source exports, in one child. :returns: the outcomes, and what came before them."""
    from twisted.internet import reactor

    async def text(digest: str) -> ModuleText:
        return ModuleText(digest, "http.js", sources[int(digest)].encode())

    pool = RunnerPool(
        reactor,
        PoolOptions("action", 1, eager=False),
        lambda: RunnerProcess(reactor, runner_command(DIST, memory_megabytes=128)),
        text,
        PoolMetrics(CollectorRegistry()),
    )
    await pool.start()
    request = {
        "headerPairs": [["x-a", "1"]],
        "url": f"http://h{path}",
        "method": method,
        "streamId": None,
        "signal": "c",
    }
    ended = []
    try:
        for number in range(len(sources)):
            host = Host()
            call = attrs.evolve(
                spec("httpAction", hash=str(number)),
                module="http.js",
                export="default",
                closure=(ModuleRef("http.js", str(number)),),
                args=json.dumps(request).encode(),
                http_route=(method, path),
            )
            ended.append((await pool.run(call, lambda host=host: host), host))
    finally:
        await pool.stop()
    return ended


@pytest_twisted.ensureDeferred
async def test_response() -> None:
    """The route is told first, then the head, then the body; with it the run ends."""
    source = ROUTER.replace(
        "HANDLER", 'new Response("hi " + request.headers.get("x-a"), { status: 201, headers: { "x-b": "2" } })'
    )
    ((outcome, host),) = await run(source)
    assert (outcome.error, host.routes) == (None, ["GET /x"])
    assert host.head["status"] == 201
    assert ["x-b", "2"] in host.head["headerPairs"]
    assert ["content-length", "4"] in host.head["headerPairs"]
    assert host.body == b"hi 1"


@pytest_twisted.ensureDeferred
async def test_no_route() -> None:
    """Nothing runs for a path that the router does not know."""
    ((outcome, host),) = await run(ROUTER.replace("HANDLER", "(() => { throw new Error('ran'); })()"), path="/y")
    assert (outcome.value, outcome.error, host.routes, host.head) == (b"false", None, [], None)


FAULTS = [
    ("export const other = 1;", 'Couldn\'t find default export in module "http.js".'),
    ("export default 1;", "The default export of `convex/http.js` is not a Router."),
    ("export default { isRouter: 1 };", "The default export of `convex/http.js` is not a Router."),
    ("throw new Error('at import');", "Uncaught Error: at import\n"),
    ("export default { isRouter: true };", "Uncaught TypeError: router.lookup is not a function\n"),
    (
        "export default { isRouter: true, lookup: () => { throw new RangeError('in lookup'); } };",
        "Uncaught RangeError: in lookup\n",
    ),
    (
        "export default { isRouter: true, lookup: () => [0, 'GET', '/x'], runRequest: async () => 5 };",
        "The router of `convex/http.js` returned a result that is not text.",
    ),
    (
        "export default { isRouter: true, lookup: () => [0, 'GET', '/x'], runRequest: async () => '{\"status\":99}' };",
        "The router of `convex/http.js` returned a result that is not a response.",
    ),
    (
        "export default { isRouter: true, lookup: () => [0, 'GET', '/x'],"
        ' runRequest: async () => \'{"status":200,"headerPairs":[[1,2]]}\' };',
        "The router of `convex/http.js` returned a result that is not a response.",
    ),
    (ROUTER.replace("HANDLER", "'text'"), "Uncaught Error: HTTP actions must return a Response\n"),
    (ROUTER.replace("HANDLER", "new Promise(() => {})"), "Returned promise will never resolve"),
]


@pytest_twisted.ensureDeferred
async def test_faults() -> None:
    """What is wrong with the default export, or with what it returns, is the action's error; the host is not harmed."""
    ended = await run(*(source for source, _ in FAULTS))
    for (source, message), (outcome, host) in zip(FAULTS, ended, strict=True):
        assert host.head is None, source
        assert outcome.error is not None, source
        assert outcome.error.message.startswith(message), source


@pytest_twisted.ensureDeferred
async def test_a_router_of_ones_own() -> None:
    """``lookup`` and ``runRequest`` decide, also of a router that npm did not make: a response without a body, under any route text."""
    ((outcome, host),) = await run(
        "export default { isRouter: true, lookup: (path, method) => [null, method, '/users/:id'],"
        " runRequest: async (text, path) => JSON.stringify({ status: 204, headerPairs: [['x-path', path]], streamId: null }) };",
        path="/users/7",
        method="HEAD",
    )
    assert (outcome.error, host.routes) == (None, ["HEAD /users/:id"])
    assert host.head == {"status": 204, "headerPairs": [["x-path", "/users/7"]], "streamId": None}


@pytest_twisted.ensureDeferred
async def test_error_after_the_head() -> None:
    """A rejection that nobody handles, after the head, is the outcome; what was sent stays sent."""
    source = ROUTER.replace(
        "HANDLER",
        "(setTimeout(() => Promise.reject(new Error('in the background')), 10), new Response(new ReadableStream({})))",
    )
    ((outcome, host),) = await run(source)
    assert host.head["status"] == 200
    assert outcome.error is not None
    assert outcome.error.message.startswith("Uncaught Error: in the background\n")
