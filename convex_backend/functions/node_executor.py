"""Runs ``"use node"`` actions: children for each deployed package and set of environment variables (``runtime.md`` section 11).

::

    run(package, spec) ──► generation (package, variables) ──► RunnerPool of at most four children, many actions in each
                               │ a newer one has come, or nobody called for a minute: its pool is stopped when its last action has ended

Modules are imported from the package's directory and stay imported, and ``process.env`` is the process's: so a child never sees a second package or
a second set of variables. Children that are not needed are given back one by one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from convex_backend.deferreds import InFlight, run_detached
from convex_backend.errors import Overloaded
from convex_backend.functions.admission import STOPPING_TEXT
from convex_backend.functions.analyze import Analysis, Analyzer
from convex_backend.functions.fleet import PoolOptions
from convex_backend.functions.limits import NODE_MEMORY_MEGABYTES, memory_text
from convex_backend.functions.module_text import ModuleText
from convex_backend.functions.pool_metrics import PoolMetrics
from convex_backend.functions.runner_pool import RunnerPool
from convex_backend.functions.runner_process import Child
from convex_backend.interfaces import CallHost, CallSpec, Outcome

if TYPE_CHECKING:
    Spawn = Callable[["NodePackage"], Child]

CHILDREN: Final = 4
CALLS_PER_CHILD: Final = 32
STARTS_PER_CHILD: Final = 4
IDLE_SECONDS: Final = 60.0
#: A child that has grown over this between calls is replaced: its heap may have 512 MB, and buffers are not in it.
RESIDENT_BYTES: Final = 768 << 20


@attrs.frozen(slots=True)
class NodePackage:
    """The code of one deployment on disk.

    :param id: of its content. :param directory: with ``modules``, ``node_modules`` and ``tmp``.
    :param dependencies: real directory of its npm packages, if it has any.
    """

    id: str
    directory: str
    dependencies: str | None


@attrs.define(eq=False, slots=True)
class _Generation:
    key: tuple[str, str]
    pool: RunnerPool
    running: int = 0
    timer: IDelayedCall | None = None


class NodeExecutor:
    """See the top of the file.

    :param spawn: makes a child for a package, not started.
    :param idle_seconds: how long children without calls are kept.
    """

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, spawn: Spawn, metrics: PoolMetrics, *, idle_seconds: float = IDLE_SECONDS
    ) -> None:
        self._clock = clock
        self._spawn = spawn
        self._metrics = metrics
        self._idle_seconds = idle_seconds
        self._generations: dict[tuple[str, str], _Generation] = {}
        self._newest: _Generation | None = None
        self._ending = InFlight()
        self._analyzers: set[Analyzer] = set()
        self._stopping = False

    async def run(self, package: NodePackage, spec: CallSpec, make_host: Callable[[], CallHost]) -> Outcome:
        """Run one action; see ``RunnerPool.run``.

        :param package: on disk for as long as this lasts.
        """
        if self._stopping:
            raise Overloaded("BackendIsNotRunning", STOPPING_TEXT)
        generation = await self._generation(package, spec.env_version)
        generation.running += 1
        if generation.timer is not None:
            generation.timer.cancel()
            generation.timer = None
        try:
            return await generation.pool.run(attrs.evolve(spec, package=package.directory, closure=()), make_host)
        finally:
            generation.running -= 1
            if not generation.running and not self._stopping:
                if generation is self._newest:
                    generation.timer = self._clock.callLater(self._idle_seconds, self._retire, generation)
                else:
                    self._retire(generation)

    async def _generation(self, package: NodePackage, env_version: str) -> _Generation:
        key = package.id, env_version
        found = self._generations.get(key)
        if found is None:
            options = PoolOptions(
                "node",
                CHILDREN,
                CALLS_PER_CHILD,
                starts_per_child=STARTS_PER_CHILD,
                resident_bytes=RESIDENT_BYTES,
                eager=False,
                avoid_stalled=True,
                idle_seconds=self._idle_seconds,
                memory_text=memory_text(NODE_MEMORY_MEGABYTES),
            )
            pool = RunnerPool(self._clock, options, lambda: self._spawn(package), _no_module, self._metrics)
            found = self._generations[key] = _Generation(key, pool)
            await pool.start()
        if found is not self._newest:
            before, self._newest = self._newest, found
            if before is not None and not before.running:
                self._retire(before)
        return found

    def _retire(self, generation: _Generation) -> None:
        """Nobody needs *generation* any more: end its children."""
        if generation.timer is not None and generation.timer.active():
            generation.timer.cancel()
        generation.timer = None
        if generation is self._newest:
            self._newest = None
        if self._generations.get(generation.key) is generation:
            del self._generations[generation.key]
            run_detached("end of children for Node actions", self._end(generation.pool))

    async def _end(self, pool: RunnerPool) -> None:
        with self._ending:
            await pool.stop()

    def is_live(self, package_id: str) -> bool:
        """Whether children of a package may run: its files must stay."""
        return any(key[0] == package_id for key in self._generations)

    async def open_analysis(self, package: NodePackage) -> Analysis:
        """A started child that analyses modules of *package*; the caller closes it.

        :raises ServerFault: it does not start.
        """
        if self._stopping:
            raise Overloaded("BackendIsNotRunning", STOPPING_TEXT)
        analyzer = Analyzer(self._clock, lambda: self._spawn(package))
        self._analyzers.add(analyzer)
        try:
            return await analyzer.open_analysis(())
        finally:
            self._analyzers = {one for one in self._analyzers if one.is_open}

    async def stop(self) -> None:
        """End everything; returns when all children are reaped."""
        self._stopping = True
        for generation in list(self._generations.values()):
            self._retire(generation)
        for analyzer in self._analyzers:
            await analyzer.stop()
        await self._ending.idle()


def _no_module(digest: str) -> Awaitable[ModuleText]:
    """Children read their modules from disk."""
    raise KeyError(digest)
