"""A server with the real service and listeners around a scripted engine, or the real one with a scripted front.

Run by ``twistd -n -y``; told what to do by ``FAKE_*`` variables.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.application import service
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from convex_backend.deferreds import InFlight, run_detached
from convex_backend.errors import ConvexError
from convex_backend.service import engine
from convex_backend.service.backend import BackendService, Deployment
from convex_backend.service.configuration import Configuration
from convex_backend.service.engine import Engine
from convex_backend.service.sequence import Part
from convex_backend.tap import Options


def say(line: str) -> None:
    """A line for the test, past the log."""
    print(f"fake: {line}", file=sys.__stdout__, flush=True)


class Answers(Resource):
    """``/slow`` answers after half a second, everything else at once."""

    isLeaf = True

    def __init__(self, in_flight: InFlight) -> None:
        super().__init__()
        self._in_flight = in_flight

    def render_GET(self, request: Request) -> bytes | int:
        """Answer with the path."""
        if request.path != b"/slow":
            return bytes(request.path)
        run_detached("slow answer", self._slow(request))
        return NOT_DONE_YET

    async def _slow(self, request: Request) -> None:
        with self._in_flight:
            say("slow request began")
            await deferLater(reactor, 0.5, lambda: None)
            request.write(b"slow")
            request.finish()


class FakeFront:
    """A front of plain HTTP."""

    def __init__(self, deployment: Deployment) -> None:
        self._in_flight = InFlight()
        self.cloud = Site(Answers(self._in_flight))
        self.site = Site(Answers(self._in_flight))
        say(f"origins {deployment.settings.cloud_origin} {deployment.settings.site_origin}")

    def start_jobs(self) -> None:
        """There are none."""

    async def stop_jobs(self) -> None:
        """Tell the test."""
        say("jobs stopped")

    async def close_sockets(self) -> None:
        """Tell the test."""
        say("sockets closed")

    async def finish_requests(self) -> None:
        """Wait for slow answers."""
        await self._in_flight.idle()
        say("requests finished")

    async def alive(self) -> None:
        """Always."""

    def load_ahead(self) -> Iterator[None]:
        """Nothing, but the test hears that it was asked for."""
        say("loading ahead")
        yield


class FakeEngine:
    """Parts that tell the test what they do, and fail or hang when told to."""

    def __init__(self, fatal: Callable[[str], None]) -> None:
        self._fatal = fatal
        self.parts: Sequence[Part] = (Part("file", self._open, self._close), Part("children", stop=self._stop_children))

    async def _open(self) -> None:
        if os.environ.get("FAKE_FAIL"):
            raise ConvexError("DatabaseInUse", os.environ["FAKE_FAIL"])
        say("file open")
        if os.environ.get("FAKE_BOOT_HANG"):
            await Deferred()

    async def _close(self) -> None:
        say("file closed")

    async def _stop_children(self) -> None:
        say("stopping children")
        if os.environ.get("FAKE_STOP_HANG"):
            await Deferred()

    async def build(self, deployment: Deployment) -> FakeFront:
        """The front; later the end, when told to."""
        if os.environ.get("FAKE_FATAL"):
            reactor.callLater(0.1, self._fatal, os.environ["FAKE_FATAL"])
        return FakeFront(deployment)


def make_engine(
    configuration: Configuration, reactor: Any, registry: CollectorRegistry, fatal: Callable[[str], None]
) -> FakeEngine:
    """The engine factory of these tests."""
    return FakeEngine(fatal)


class EngineWithFakeFront(Engine):
    """The real file, database and children behind the front of these tests."""

    async def build(self, deployment: Deployment) -> FakeFront:
        """The front, once a commit has gone through."""
        database = self._machinery.database
        await database.committer.advance_to(database.committer.durable_ts)
        say(f"durable at {database.committer.durable_ts}")
        return FakeFront(deployment)


options = Options()
options.parseOptions(os.environ.get("FAKE_OPTIONS", "").split())
application = service.Application("fake")
if os.environ.get("FAKE_NO_BUNDLE"):
    found = engine.resource

    def resource_without_bundle(*parts: str) -> Path:
        """As in a fresh clone."""
        if parts == ("runner", "dist"):
            raise FileNotFoundError(parts)
        return found(*parts)

    engine.resource = resource_without_bundle

factory = EngineWithFakeFront if os.environ.get("FAKE_REAL_ENGINE") else make_engine
BackendService(options.configuration, reactor, factory).setServiceParent(application)
