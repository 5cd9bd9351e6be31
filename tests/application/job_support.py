"""Scheduler and cron jobs over a database in memory, scripted functions, and a clock that only the test moves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from convex_backend.application.cron_loop import CronLoop
from convex_backend.application.run_action import run_action
from convex_backend.application.scheduler import Scheduler
from convex_backend.application.scheduler_options import SchedulerOptions
from convex_backend.application.types import ANONYMOUS, Caller, CallResult
from convex_backend.database.system_tables import CRON_JOBS
from convex_backend.deferreds import from_coroutine
from convex_backend.errors import StorageFailed
from convex_backend.interfaces import Commit
from convex_backend.storage.memory_persistence import MemoryPersistence
from tests.application.support import CALLER, World
from tests.database.documents import START_NS, run

START_MS = START_NS / 1_000_000


class JobWorld(World):
    """A server without sockets and children.

    :param persistence: of an earlier world: a restart.
    """

    def __init__(
        self,
        options: SchedulerOptions | None = None,
        persistence: MemoryPersistence | None = None,
        start: bool = True,
        seed: int = 1,
    ) -> None:
        super().__init__(seed=seed, persistence=persistence, steady=True)
        self.seed = seed
        run(self.services.deployment_state.follow(self.db))
        facade: Any = self
        self.scheduler = Scheduler(
            facade, reactor=self.timers, registry=self.registry, random=lambda: 1.0, options=options
        )
        self.crons = CronLoop(facade, reactor=self.timers, registry=self.registry, random=lambda: 1.0, options=options)
        if start:
            self.scheduler.start()
            self.crons.start()

    async def run_query(self, path: str, args: bytes, identity: Any, caller: Caller, **more: Any) -> CallResult:
        """As ``Application.run_query``, for actions."""
        raise NotImplementedError

    def mutate(self, name: str, **args: Any) -> CallResult:
        """Call a mutation from outside."""
        return run(self.mutations.run(name, json.dumps(args).encode(), ANONYMOUS, CALLER))

    def act(self, name: str, **args: Any) -> CallResult:
        """Call an action from outside."""
        facade: Any = self
        return run(run_action(facade, name, json.dumps(args).encode(), ANONYMOUS, CALLER))

    def value(self, result: CallResult) -> Any:
        """The value of a call that succeeded."""
        assert result.error is None, result.error
        assert result.value is not None
        return json.loads(result.value)

    def jobs(self) -> list[dict[str, Any]]:
        """The committed documents of ``_scheduled_functions`` in the order of their creation."""
        return sorted(self.documents("_scheduled_functions"), key=lambda document: document["_creationTime"])

    def states(self) -> list[str]:
        """The states of all jobs, in the order of their creation."""
        return [job["state"]["kind"] for job in self.jobs()]

    def restart(self, **options: Any) -> JobWorld:
        """What a new process finds: nothing of this one but the file. Scripts stay deployed."""
        # Another seed: ids never repeat.
        world = JobWorld(persistence=self.persistence, start=False, seed=self.seed + 1, **options)
        # Kept, or the garbage collector would end what still waits here, and its loops would write beside the new ones.
        world.killed = self
        world.pool.scripts, world.directory.functions = self.pool.scripts, self.directory.functions
        world.timers.advance(self.timers.seconds())
        world.scheduler.start()
        world.crons.start()
        return world

    def push_crons(self, crons: Mapping[str, Mapping[str, Any]], component: int = 0) -> None:
        """Deploy cron jobs: name → ``{path, schedule, args?}``."""
        from convex_backend.application.push_store import PushStore

        store = PushStore(database=self.db)
        specs = {
            name: json.dumps(
                {
                    "udfPath": job["path"],
                    "udfArgs": json.dumps([job.get("args", {})]),
                    "cronSchedule": job["schedule"],
                },
                sort_keys=True,
            )
            for name, job in crons.items()
        }
        transaction = self.db.begin("system")
        run(store.write_crons(transaction, component, specs))
        run(self.db.commit(transaction))

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The rows of a system table."""
        transaction = self.db.begin("query")
        found = run(transaction.system.scan(table))
        transaction.close()
        return [row for _, row in found]

    def cron_rows(self) -> list[dict[str, Any]]:
        """The cron jobs as deployed."""
        return self.rows(CRON_JOBS.name)

    def advance(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass, *step* seconds at once; what is due now comes first."""
        self.timers.advance(0)
        while seconds > 1e-9:
            self.timers.advance(min(step, seconds))
            seconds -= step

    def stop(self) -> None:
        """Stop the loops; what runs must have ended."""
        for loop in (self.scheduler, self.crons):
            stopped = from_coroutine(loop.stop())
            assert stopped.called


class FailingWrites:
    """A store whose next writes fail.

    :ivar failing: how many still do.
    """

    def __init__(self, persistence: MemoryPersistence) -> None:
        self.failing = 0
        self._write = persistence.write
        persistence.write = self._guarded  # type: ignore[method-assign]

    def _guarded(self, commits: Sequence[Commit]) -> Deferred[None]:
        if self.failing:
            self.failing -= 1
            raise StorageFailed
        return self._write(commits)
