"""Runs cron jobs: one run of a job at a time, missed runs are skipped.

A mutation's run is remembered, and the next one set, in the mutation's own transaction; an action's run is committed as under way before it
begins, and found so at start it counts as failed. Source: ``runtime.md`` section 9.5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from convex_backend.application import calls, cron_jobs
from convex_backend.application.cron_jobs import CronRun, CronTarget, Ending
from convex_backend.application.due_loop import DueLoop
from convex_backend.application.run_action import run_action
from convex_backend.application.scheduled_jobs import JobGone
from convex_backend.application.scheduler import TRANSIENT_TEXT
from convex_backend.application.scheduler_options import SchedulerOptions
from convex_backend.application.scheduling import runnable
from convex_backend.application.system_commit import insist, system_commit
from convex_backend.application.types import ANONYMOUS, Caller
from convex_backend.database.system_tables import CRON_NEXT_RUN
from convex_backend.deferreds import InFlight, run_detached
from convex_backend.errors import ConvexError, Overloaded, ServerFault, Transient
from convex_backend.functions.directory import ResolvedFunction
from convex_backend.interfaces import Outcome

if TYPE_CHECKING:
    from convex_backend.application.application import Application
    from convex_backend.database.system_rows import SystemRow
    from convex_backend.database.transaction import Transaction

_WRITER: Final = "cron jobs"
_GONE_HOLD_SECONDS: Final = 0.05


class _RunBracket:
    """Makes a mutation's transaction that of its run too."""

    def __init__(self, loop: CronLoop, run: CronRun, what: CronTarget, started_ns: int) -> None:
        self._loop = loop
        self._run = run
        self._what = what
        self._started_ns = started_ns
        self.missed = 0

    async def before(self, transaction: Transaction) -> None:
        """See ``run_mutation.Bracket``."""
        await cron_jobs.begin(transaction, self._run)

    async def after(self, transaction: Transaction, outcome: Outcome) -> None:
        """See ``run_mutation.Bracket``."""
        now_ns = self._loop.now_ns()
        seconds = (now_ns - self._started_ns) / 1e9
        ending = Ending(outcome.value, None, outcome.log_lines, seconds)
        self.missed = await cron_jobs.finish(transaction, self._run, self._what, ending, now_ns)


class CronLoop:
    """See the top of the file.

    :param reactor: clock of timers. :param random: from 0 to 1, for the back-off.
    """

    _log = Logger()

    def __init__(
        self,
        application: Application,
        *,
        reactor: IReactorTime,
        registry: CollectorRegistry,
        random: Callable[[], float],
        options: SchedulerOptions | None = None,
    ) -> None:
        self._application = application
        self._services = application.services
        self._database = application.services.database
        self.now_ns = application.services.now_ns
        self._random = random
        self._reactor = reactor
        self._options = options or SchedulerOptions()
        self._busy: set[tuple[int, str]] = set()
        self._failures: dict[tuple[int, str], int] = {}
        self._work = InFlight()
        self._stopping = False
        state = self._services.deployment_state
        self._loop = DueLoop(
            "cron",
            database=self._database,
            table=CRON_NEXT_RUN,
            run=self._run,
            parallelism=self._options.parallelism,
            is_paused=lambda: state.paused,
            reactor=reactor,
            now_ns=self.now_ns,
            registry=registry,
        )
        state.on_resume.append(self._loop.wake)
        self._ended = Counter(
            "convex_cron_runs_total",
            "Runs of cron jobs that have ended, tries that are to be repeated, and runs that were skipped.",
            ["outcome"],
            registry=registry,
        )

    def start(self) -> None:
        """Begin; what a crash interrupted is dealt with first."""
        run_detached("start of the cron jobs", self._start())

    async def _start(self) -> None:
        with self._work:
            await self._fail_interrupted()
        if not self._stopping:
            self._loop.start()

    async def stop(self) -> None:
        """Start nothing more, and return when what runs has ended. Cancelling cuts actions off; a mutation still commits or does not."""
        self._stopping = True
        await self._loop.stop()
        await self._work.idle()

    async def _fail_interrupted(self) -> None:
        query = self._database.begin("query")
        try:
            interrupted = await cron_jobs.running(query)
        finally:
            query.close()
        for run in interrupted:
            if self._stopping:
                return
            what = await self._target(run)
            if what is not None:
                await self._remember(run, what, Ending(None, TRANSIENT_TEXT, (), 0.0))

    async def _target(self, run: CronRun) -> CronTarget | None:
        query = self._database.begin("query")
        try:
            return await cron_jobs.target(query, run)
        finally:
            query.close()

    # -- one run ------------------------------------------------------------------------------------

    async def _run(self, row: SystemRow) -> None:
        run = cron_jobs.run_of_row(row)
        key = (run.component, run.name)
        if key in self._busy:
            # A push has removed the job and another has brought it back while it runs.
            self._loop.hold(run.row, 1.0)
            return
        self._busy.add(key)
        try:
            outcome = await self._run_job(run)
            self._failures.pop(key, None)
        except JobGone:
            self._loop.hold(run.row, _GONE_HOLD_SECONDS)
            outcome = "canceled"
        except (Transient, ServerFault) as error:
            self._put_off(run, key, error)
            outcome = "retried"
        finally:
            self._busy.discard(key)
        self._ended.labels(outcome).inc()

    def _put_off(self, run: CronRun, key: tuple[int, str], error: ConvexError) -> None:
        failures = self._failures[key] = self._failures.get(key, -1) + 1
        seconds = self._options.seconds_after(error, failures, self._random())
        self._log.warn(
            "the cron job {name} could not be run and will be tried again in {seconds:.1f}s: {error}",
            name=run.name,
            seconds=seconds,
            error=error,
        )
        self._loop.hold(run.row, seconds)

    async def _run_job(self, run: CronRun) -> str:
        """Run the job's function to its end. :returns: ``success`` or ``failed``.

        :raises JobGone: it must not run. :raises Transient, ServerFault: it has not run, or all it did was undone.
        """
        what = await self._target(run)
        if what is None:
            raise JobGone
        function = await runnable(self._services.directory, run.component, what.path)
        if isinstance(function, str):
            return await self._remember(run, what, Ending(None, function, (), 0.0))
        started_ns = self.now_ns()
        caller = Caller("Cron", "unknown", None, calls.new_request_id())
        if function.kind == "action":
            return await self._run_action(run, what, function, caller, started_ns)
        bracket = _RunBracket(self, run, what, started_ns)
        result = await self._application.mutations.run(
            what.path.canonical,
            what.args,
            ANONYMOUS,
            caller,
            component_path=function.component_path,
            internal=True,
            bracket=bracket,
        )
        if result.error is None:
            self._report_missed(run, bracket.missed)
            return "success"
        seconds = (self.now_ns() - started_ns) / 1e9
        return await self._remember(run, what, Ending(None, result.error.message, result.log_lines, seconds))

    async def _run_action(
        self, run: CronRun, what: CronTarget, function: ResolvedFunction, caller: Caller, started_ns: int
    ) -> str:
        await system_commit(self._database, _WRITER, lambda transaction: cron_jobs.begin_action(transaction, run))
        try:
            result = await run_action(
                self._application,
                what.path.canonical,
                what.args,
                ANONYMOUS,
                caller,
                component_path=function.component_path,
                internal=True,
            )
        except Overloaded:
            # It was not started.
            await insist(
                self._database, _WRITER, lambda transaction: cron_jobs.put_back(transaction, run), self._reactor
            )
            raise
        except ConvexError as error:
            ending = Ending(None, error.message, (), (self.now_ns() - started_ns) / 1e9)
        else:
            failed = result.error
            ending = Ending(
                result.value,
                None if failed is None else failed.message,
                result.log_lines,
                (self.now_ns() - started_ns) / 1e9,
            )
        return await self._remember(run, what, ending)

    async def _remember(self, run: CronRun, what: CronTarget, ending: Ending) -> str:
        now_ns = self.now_ns()
        missed = await insist(
            self._database,
            _WRITER,
            lambda transaction: cron_jobs.finish(transaction, run, what, ending, now_ns),
            self._reactor,
        )
        self._report_missed(run, missed)
        return "success" if ending.error is None else "failed"

    def _report_missed(self, run: CronRun, missed: int) -> None:
        if missed:
            self._ended.labels("skipped").inc(missed)
            self._log.warn("{text}", text=cron_jobs.skip_text(missed, run.name))
