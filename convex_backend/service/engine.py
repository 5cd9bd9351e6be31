"""The machinery behind the front: the file, the database, the JavaScript children. Started and stopped part by part.

::

    start   runners spawned (not waited for) ── file opened, committer and background work started; the front's modules loaded meanwhile
    stop    background work ended, committer drained ── children reaped ── file closed

Node takes longer to be ready than the database, on another core: nobody waits for it before the first call. A child that cannot be started
ends the server with a line that says why.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs
from prometheus_client import CollectorRegistry
from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater
from twisted.logger import Logger

from convex_backend.database.database import Database
from convex_backend.database.retention import RetentionSettings
from convex_backend.deferreds import from_coroutine, run_detached
from convex_backend.errors import ConvexError, Overloaded, ServerFault
from convex_backend.functions.analyze import Analyzer
from convex_backend.functions.fleet import PoolOptions
from convex_backend.functions.guards import GuardBoard
from convex_backend.functions.limits import NODE_MEMORY_MEGABYTES
from convex_backend.functions.module_text import ModuleText
from convex_backend.functions.node_executor import NodeExecutor, NodePackage
from convex_backend.functions.pool_metrics import PoolMetrics
from convex_backend.functions.runner_pool import RunnerPool
from convex_backend.functions.runner_process import RunnerProcess, node_command, runner_command
from convex_backend.interfaces import IBlobStore
from convex_backend.resource_files import resource
from convex_backend.service.backend import Deployment, Front
from convex_backend.service.configuration import Configuration
from convex_backend.service.sequence import Part
from convex_backend.storage.blob_store import LocalBlobStore

# V8 heap of one child, which many calls share; one call alone is held to 64 MB (``runtime.md`` section 8.6).
_ISOLATE_MEGABYTES = 256
_ACTION_MEGABYTES = 512
_ANALYSIS_MEGABYTES = 512
# An action waits most of its time: many share a child.
_ACTION_CHILDREN = 2
_ACTION_CALLS_PER_CHILD = 64
# What the front needs, from the bottom up: loaded while the file is being opened, which is mostly waiting.
_FRONT_MODULES = (
    "convex_backend.application.calls",
    "convex_backend.application.application",
    "convex_backend.application.deploy",
    "convex_backend.application.system_functions",
    "twisted.web.http",
    "twisted.web.server",
    "convex_backend.web.routes",
    "convex_backend.service.composition",
)


class SystemClock:
    """``IClock``'s wall time."""

    def now_ns(self) -> int:
        """Wall-clock nanoseconds since the epoch."""
        return time.time_ns()


@attrs.frozen(slots=True, eq=False)
class Machinery:
    """What the application is built upon. Everything in it has been started.

    :param modules: set :attr:`ModuleSource.read` before the first call runs.
    """

    configuration: Configuration
    reactor: Any
    clock: SystemClock
    registry: CollectorRegistry
    database: Database
    isolates: RunnerPool
    actions: RunnerPool
    node: NodeExecutor
    analyzer: Analyzer
    modules: ModuleSource
    blobs: IBlobStore


class ModuleSource:
    """Where the pools get module texts: known only once the application, which stores them, has been built.

    :ivar read: the text of a module by hash; raises ``KeyError`` when unknown.
    """

    def __init__(self) -> None:
        self.read: Callable[[str], Any] = _no_modules

    async def __call__(self, digest: str) -> ModuleText:
        """See :attr:`read`."""
        text: ModuleText = await self.read(digest)
        return text


async def _no_modules(digest: str) -> ModuleText:
    raise KeyError(digest)


class Engine:
    """See the top of the file.

    :param fatal: called with one line when the server cannot go on.
    """

    _log = Logger()

    def __init__(
        self,
        configuration: Configuration,
        reactor: Any,
        registry: CollectorRegistry,
        fatal: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._fatal = fatal
        clock = SystemClock()
        database = Database(
            _persistence(configuration.database_path, reactor),
            reactor,
            clock,
            os.urandom,
            registry,
            fatal=fatal,
            retention=RetentionSettings(history_seconds=configuration.retention_seconds),
        )
        dist = _runner_dist()
        metrics = PoolMetrics(registry)
        modules = ModuleSource()
        guards = GuardBoard(registry)
        isolate_command = runner_command(dist, memory_megabytes=_ISOLATE_MEGABYTES)
        action_command = runner_command(dist, memory_megabytes=_ACTION_MEGABYTES, network=True)
        isolates = RunnerPool(
            reactor,
            PoolOptions("isolate", configuration.runners, reuse_realms=configuration.context_reuse == "realm"),
            lambda: RunnerProcess(reactor, isolate_command, guards.listener("isolate")),
            modules,
            metrics,
        )
        actions = RunnerPool(
            reactor,
            PoolOptions("action", _ACTION_CHILDREN, _ACTION_CALLS_PER_CHILD, eager=False),
            lambda: RunnerProcess(reactor, action_command, guards.listener("action")),
            modules,
            metrics,
        )

        def spawn_node(package: NodePackage) -> RunnerProcess:
            command = node_command(
                dist,
                package.directory,
                package.dependencies,
                memory_megabytes=NODE_MEMORY_MEGABYTES,
                write=_shared_scratch(configuration),
            )
            return RunnerProcess(reactor, command, guards.listener("node"))

        node = NodeExecutor(reactor, spawn_node, metrics)
        # A push is analysed in a child of its own, which ends with it.
        analysis_command = runner_command(dist, memory_megabytes=_ANALYSIS_MEGABYTES, analysis=True)
        analyzer = Analyzer(reactor, lambda: RunnerProcess(reactor, analysis_command, guards.listener("analysis")))
        blobs = LocalBlobStore(configuration.local_storage / "files", reactor)
        self._machinery = Machinery(
            configuration, reactor, clock, registry, database, isolates, actions, node, analyzer, modules, blobs
        )
        self._stopping = False
        self.parts: Sequence[Part] = (
            Part("file", stop=self._close_file),
            Part("contents of files", self._start_blobs, self._stop_blobs),
            Part("children", self._start_children, self._stop_children),
            Part("database", self._start_database, self._drain_database),
        )

    async def build(self, deployment: Deployment) -> Front:
        """See ``backend.Engine``."""
        from convex_backend.service.composition import compose

        return await compose(self._machinery, deployment)

    async def _start_blobs(self) -> None:
        await self._machinery.blobs.start()

    async def _stop_blobs(self) -> None:
        await self._machinery.blobs.stop()

    async def _start_children(self) -> None:
        # Spawned now; the pool's start goes on until the first child has said hello.
        for pool in (self._machinery.isolates, self._machinery.actions):
            run_detached("start of the JavaScript runners", self._start_pool(pool))

    async def _start_pool(self, pool: RunnerPool) -> None:
        try:
            await pool.start()
        except (Overloaded, CancelledError):
            # A stop came first.
            if not self._stopping:
                raise
        except ConvexError as error:
            if not self._stopping:
                self._fatal(f"the JavaScript runners do not start: {error}")

    async def _stop_children(self) -> None:
        self._stopping = True
        machinery = self._machinery
        owners = (machinery.isolates, machinery.actions, machinery.node, machinery.analyzer)
        # All at once: each waits for children that take their time to end.
        for stopping in [from_coroutine(owner.stop()) for owner in owners]:
            await stopping

    async def _start_database(self) -> None:
        opening = from_coroutine(self._machinery.database.start())
        try:
            for name in _FRONT_MODULES:
                if opening.called:
                    break
                import_module(name)
                # A turn of the reactor, for what the file has answered meanwhile.
                await deferLater(self._reactor, 0)
        except CancelledError:
            opening.cancel()
        await opening

    async def _drain_database(self) -> None:
        await self._machinery.database.drain()

    async def _close_file(self) -> None:
        await self._machinery.database.persistence.close()


def _shared_scratch(configuration: Configuration) -> tuple[str, ...]:
    """What Node actions may write besides a directory of their own: the system's directory for temporary files, which many packages
    name, unless data of this server is in it."""
    scratch = Path(tempfile.gettempdir()).resolve()
    ours = (Path(configuration.database_path), configuration.local_storage)
    return () if any(scratch in one.absolute().resolve().parents for one in ours) else (str(scratch),)


def _persistence(path: str, reactor: Any) -> Any:
    """The store for *path*; nothing is opened yet."""
    from convex_backend.storage.sqlite_persistence import SqlitePersistence
    from convex_backend.storage.sqlite_pool import SqlitePool

    return SqlitePersistence(SqlitePool(path, reactor))


def _runner_dist() -> Path:
    """The directory of the built runner.

    :raises ServerFault: it is missing; the text names the command that makes it.
    """
    try:
        return resource("runner", "dist")
    except FileNotFoundError as error:
        try:
            source = resource("runner", "package.json").parent
        except FileNotFoundError:
            command = "pip install --force-reinstall --no-deps ."
        else:
            command = f"cd {source} && npm ci --ignore-scripts && node build.mjs"
        raise ServerFault(f"the JavaScript runner has not been built. Run: {command}") from error


def make_engine(
    configuration: Configuration, reactor: Any, registry: CollectorRegistry, fatal: Callable[[str], None]
) -> Engine:
    """The engine of a real server."""
    return Engine(configuration, reactor, registry, fatal)
