"""The server as one service: boot in order, serve, drain in order.

::

    ports bound ─► file, children, database ─► credentials, application ─► sockets ─► listening ─► ready
    ◄─ checkpoint ◄─ children: EOF, TERM, KILL ◄─ drained ◄─ answers sent ◄─ requests finished ◄─ 1001 ◄─ closed ◄─ STOPPING=1

What cannot be started or goes on no longer ends the process with one line and exit code 1. A second signal ends it at once.
Source: house rules on a graceful stop; ``http_api.md`` section 1.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

import attrs
from prometheus_client import CollectorRegistry, ProcessCollector
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from convex_backend import __version__
from convex_backend.application.keys import Keys
from convex_backend.application.sealing import Sealer
from convex_backend.application.settings import Settings
from convex_backend.errors import ConvexError
from convex_backend.service import banner
from convex_backend.service.configuration import DEFAULT_INSTANCE_NAME, DEFAULT_LOCAL_STORAGE, BadOption, Configuration
from convex_backend.service.endpoints import CannotListen, EndpointListener, Listener, reserve
from convex_backend.service.instance import BadCredentials, Instance, prepare_instance
from convex_backend.service.preload import Preload
from convex_backend.service.sequence import Part, SequencedService
from convex_backend.service.systemd import Notifier, Watchdog, watchdog_interval_seconds

_REQUESTS_SECONDS = 10.0
_SOCKETS_SECONDS = 3.0
_JOBS_SECONDS = 5.0
_FLUSH_SECONDS = 2.0
_FLUSH_POLL_SECONDS = 0.01
#: Calls under way alone are some thousand objects that come and go: with the default of 700 they are looked at all the time. Cycles are rare here.
#: Measured in 1,700 transfers of 50 clients: 145 to 210 ms of CPU with the default, 75 to 80 ms with this; the longest pause 17 and 11 ms.
GC_THRESHOLDS = (3000, 10, 10)


@attrs.frozen(slots=True)
class Deployment:
    """What the application needs to know once ports and credentials are known."""

    settings: Settings
    keys: Keys
    sealer: Sealer


class Front(Protocol):
    """The application with its front ends, ready to be listened to."""

    @property
    def cloud(self) -> IProtocolFactory:
        """For the main port."""

    @property
    def site(self) -> IProtocolFactory:
        """For the port of HTTP actions."""

    def start_jobs(self) -> None:
        """Begin to run scheduled functions and cron jobs."""

    async def stop_jobs(self) -> None:
        """Start no more of them, and wait for those under way; when cancelled, cut off what is left."""

    async def close_sockets(self) -> None:
        """Close every WebSocket with 1001 and wait for their ends. Cancelled when the time is over."""

    async def finish_requests(self) -> None:
        """Wait until no HTTP request is under way; when cancelled, cancel what is left."""

    async def alive(self) -> None:
        """Return when the committer has answered."""

    async def start_demo(self) -> bool:
        """Deploy the demo if nothing is deployed. :returns: whether it is there; if not, nothing was touched."""

    def load_ahead(self) -> Iterator[None]:
        """Load what no answer has needed so far, a step of a few milliseconds for each item."""


class Engine(Protocol):
    """Everything behind the front: file, database, children. Builds the front at the end of the boot."""

    parts: Sequence[Part]

    async def build(self, deployment: Deployment) -> Front:
        """Make the application and its front ends; called once, when :attr:`parts` have started."""


EngineFactory = Callable[[Configuration, Any, CollectorRegistry, Callable[[str], None]], Engine]


class BackendService(SequencedService):
    """The whole server.

    :param reactor: the reactor.
    :param make_engine: given configuration, reactor, metrics registry and the function to call when the server cannot go on.
    :param output: where the banner goes.
    :param observer: takes the log in place of what twistd would use.
    :param die: ends the process by the signal's default action; replaced in tests.
    :ivar registry: metrics of this server.
    """

    _log = Logger()

    def __init__(
        self,
        configuration: Configuration,
        reactor: Any,
        make_engine: EngineFactory,
        *,
        output: TextIO | None = None,
        environment: Mapping[str, str] | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
        now_seconds: Callable[[], float] = time.time,
        die: Callable[[int], None] | None = None,
        observer: ILogObserver | None = None,
    ) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._configuration = configuration
        self._reactor = reactor
        self._output = output if output is not None else sys.__stdout__
        self._environment = os.environ if environment is None else environment
        self._random_bytes = random_bytes
        self._now_seconds = now_seconds
        self._die = die or _die_by
        self._observer = observer
        self._notifier = Notifier(self._environment)
        self._watchdog: Watchdog | None = None
        self._preload: Preload | None = None
        self._listeners: list[Listener] = []
        self._ports: list[IListeningPort] = []
        self._instance: Instance | None = None
        self._deployment: Deployment | None = None
        self._front: Front | None = None
        self._demo: str | None = None
        self._ending = False
        for option, listen in (("--port", configuration.cloud), ("--site-port", configuration.site)):
            if listen is not None and listen.endpoint is not None:
                # Only to find a mistake in the string before anything begins.
                EndpointListener(reactor, option, listen.endpoint)
        self._engine = make_engine(configuration, reactor, self.registry, self.fatal)
        super().__init__(reactor, self._make_parts(), self._boot_failed)

    def _make_parts(self) -> tuple[Part, ...]:
        return (
            Part("ports", self._reserve_ports, self._release_ports),
            *self._engine.parts,
            Part("answers", stop=self._flush, stop_seconds=_FLUSH_SECONDS),
            Part("requests", self._build_front, self._finish_requests, stop_seconds=_REQUESTS_SECONDS),
            Part("sockets", stop=self._close_sockets, stop_seconds=_SOCKETS_SECONDS),
            Part("jobs", self._start_jobs, self._stop_jobs, stop_seconds=_JOBS_SECONDS),
            Part("listeners", self._listen, self._stop_listening),
            Part("readiness", self._announce, self._withdraw),
        )

    # Boot

    async def _reserve_ports(self) -> None:
        main, site = reserve(self._reactor, self._configuration.cloud, self._configuration.site)
        self._listeners = [main] if site is None else [main, site]

    async def _release_ports(self) -> None:
        for listener in self._listeners:
            listener.close()

    async def _build_front(self) -> None:
        configuration = self._configuration
        # A few bytes in two files, once; after the database's lock, so that a second server never changes them.
        self._instance = prepare_instance(
            configuration.local_storage,
            configuration.instance_name,
            configuration.instance_secret,
            DEFAULT_INSTANCE_NAME,
            self._random_bytes,
        )
        credentials = self._instance.credentials
        if self._instance.secret_changed:
            self._log.warn("the instance secret is a new one: admin keys issued before are no longer valid")
        main, *site = self._listeners
        cloud_origin = configuration.cloud_origin or f"http://127.0.0.1:{main.port}"
        site_origin = configuration.site_origin
        if site_origin is None:
            site_origin = f"http://127.0.0.1:{site[0].port}" if site else f"{cloud_origin}/http"
        self._deployment = Deployment(
            Settings(
                instance_name=credentials.name,
                cloud_origin=cloud_origin,
                site_origin=site_origin,
                version=__version__,
                redact_logs_to_client=configuration.redact_logs_to_client,
                action_timeout_seconds=configuration.action_timeout_seconds,
            ),
            Keys(credentials.name, credentials.secret, self._random_bytes, self._now_seconds, configuration.admin_key),
            Sealer(credentials.secret, credentials.name),
        )
        self._front = await self._engine.build(self._deployment)

    async def _listen(self) -> None:
        assert self._front is not None
        if self._configuration.demo:
            self._demo = await self._start_demo()
        for listener, factory in zip(self._listeners, (self._front.cloud, self._front.site), strict=False):
            try:
                self._ports.append(await listener.listen(factory))
            except CannotListen:
                await self._stop_listening()
                raise

    async def _announce(self) -> None:
        assert self._deployment is not None and self._instance is not None and self._front is not None
        settings = self._deployment.settings
        local_storage = self._configuration.local_storage
        facts = banner.Facts(
            cloud=settings.cloud_origin,
            site=settings.site_origin,
            listening=tuple(listener.where for listener in self._listeners),
            database=self._configuration.database_path,
            local_storage=str(local_storage),
            admin_key=self._deployment.keys.issue() if self._instance.first_start else None,
            admin_key_command=banner.admin_key_command(local_storage, Path.cwd() / DEFAULT_LOCAL_STORAGE),
            demo=self._demo,
        )
        # Past the log, which twistd puts in place of standard output: a key does not belong into a log file.
        if self._output is not None:
            self._output.write(banner.render(facts))
            self._output.flush()
        self._log.info("listening on {where}", where=", ".join(facts.listening))
        self._notifier.notify("READY=1")
        # What has been loaded until now stays: full collections would stop everything for 80 ms just to look at it again.
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        gc.enable()
        self._preload = Preload(self._reactor, self._front.load_ahead(), gc.freeze)
        self._preload.start()
        interval = watchdog_interval_seconds(self._environment, os.getpid())
        if interval is not None:
            self._watchdog = Watchdog(self._reactor, self._notifier, interval, self._front.alive)
            self._watchdog.start()

    async def _start_demo(self) -> str:
        """What the banner says of the demo. A demo that fails is no reason not to serve."""
        assert self._front is not None and self._deployment is not None
        try:
            there = await self._front.start_demo()
        except Exception:  # noqa: BLE001 - the log gets the trace
            self._log.failure("the demo could not be deployed")
            return "could not be deployed, see the log"
        return f"{self._deployment.settings.cloud_origin}/demo" if there else banner.NO_DEMO

    def setServiceParent(self, parent: Any) -> None:
        """See ``IService``. twistd takes the observer from its application, before it starts any service."""
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def startService(self) -> None:
        """Boot as soon as the reactor runs, and with it the signals that can end the boot."""
        self._reactor.callWhenRunning(super().startService)

    # Stop

    def stopService(self) -> Deferred[None]:
        """See :class:`SequencedService`. From here on a second SIGTERM or SIGINT ends the process at once."""
        if not self._ending:
            self._ending = True
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda received, _frame: self._die(received))
        return super().stopService().addCallback(self._stopped_all)

    def _stopped_all(self, _: None) -> None:
        if self._preload is not None:
            self._log.info("stopped")

    async def _withdraw(self) -> None:
        self._log.info("stopping; what is under way is finished first")
        self._notifier.notify("STOPPING=1")
        if self._preload is not None:
            self._preload.stop()
        if self._watchdog is not None:
            self._watchdog.stop()

    async def _stop_listening(self) -> None:
        ports, self._ports = self._ports, []
        for port in ports:
            stopped = port.stopListening()
            if isinstance(stopped, Deferred):
                await stopped

    async def _start_jobs(self) -> None:
        assert self._front is not None
        self._front.start_jobs()

    async def _stop_jobs(self) -> None:
        await self._ask_front(lambda front: front.stop_jobs())

    async def _close_sockets(self) -> None:
        await self._ask_front(lambda front: front.close_sockets())

    async def _finish_requests(self) -> None:
        await self._ask_front(lambda front: front.finish_requests())

    async def _flush(self) -> None:
        # What has been answered may still be in this process: connections are cut, not closed, when the reactor stops.
        while True:
            await deferLater(self._reactor, _FLUSH_POLL_SECONDS)
            if not self._reactor.getWriters():
                return

    async def _ask_front(self, question: Callable[[Front], Awaitable[None]]) -> None:
        if self._front is not None:
            await question(self._front)

    # Failure

    def _boot_failed(self, error: Exception) -> None:
        if not isinstance(error, BadOption | BadCredentials | CannotListen | ConvexError):
            self._log.failure("the server could not start", failure=Failure(error))
            self._end(f"the server could not start, by a fault of its own: {type(error).__name__}: {error}")
            return
        self._end(str(error))

    def fatal(self, reason: str) -> None:
        """The server cannot go on: say *reason* in one line, stop what can be stopped, exit with code 1."""
        self._end(reason)

    def _end(self, reason: str) -> None:
        line = " ".join(reason.split())
        self._log.critical("{line}", line=line)
        print(f"convex-backend: {line}", file=sys.__stderr__, flush=True)
        # twistd knows exit code 0 and signals only. At exit it has removed its pid file already.
        atexit.register(_exit_with_failure)
        if not self._ending:
            self._reactor.stop()


def _exit_with_failure() -> None:
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()
    os._exit(1)


def _die_by(number: int) -> None:
    """End this process by signal *number*. The runners see the end of their sockets and go too."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def make_backend(configuration: Configuration, reactor: Any, observer: ILogObserver | None = None) -> BackendService:
    """The server that ``twistd convex-backend`` runs.

    :param observer: takes the log in place of what twistd would use.
    :raises BadOption: an endpoint string cannot be understood.
    """
    from convex_backend.service.engine import make_engine

    return BackendService(configuration, reactor, make_engine, observer=observer)
