"""Runs scheduled functions: mutations exactly once, actions at most once.

::

    mutation   one transaction: pending? ─► the function ─► success         conflict, failure of ours: again, later
               its own error ─► failed, in another transaction
    action     commit inProgress ─► run ─► success │ failed                 found inProgress at start: failed

Nobody's identity, and functions of any visibility. Source: ``runtime.md`` section 9.4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, Counter
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from convex_backend.application import calls, scheduled_jobs
from convex_backend.application.due_loop import DueLoop
from convex_backend.application.run_action import run_action
from convex_backend.application.scheduled_jobs import DONE, RUNNING, Job, JobGone, job_of_row
from convex_backend.application.scheduler_options import SchedulerOptions
from convex_backend.application.scheduling import runnable
from convex_backend.application.system_commit import insist, system_commit
from convex_backend.application.types import ANONYMOUS, Caller, CallResult
from convex_backend.database.system_tables import SCHEDULED_JOBS
from convex_backend.deferreds import InFlight, from_coroutine, run_detached
from convex_backend.errors import ConvexError, Overloaded, ServerFault, Transient
from convex_backend.functions.directory import ResolvedFunction
from convex_backend.interfaces import Outcome

if TYPE_CHECKING:
    from convex_backend.application.application import Application
    from convex_backend.database.system_rows import SystemRow
    from convex_backend.database.transaction import Transaction

TRANSIENT_TEXT: Final = "Transient error while executing action"
_WRITER: Final = "scheduler"
_GONE_HOLD_SECONDS: Final = 0.05
#: What one transaction of the clean-up, and of the recovery at start, changes at most.
_STEP: Final = 200
_STEPS_PER_TURN: Final = 20


class _JobBracket:
    """Makes a mutation's transaction that of its job too."""

    def __init__(self, job: Job, now_ns: Callable[[], int]) -> None:
        self._job = job
        self._now_ns = now_ns

    async def before(self, transaction: Transaction) -> None:
        """See ``run_mutation.Bracket``."""
        await scheduled_jobs.begin_in_mutation(transaction, self._job)

    async def after(self, transaction: Transaction, outcome: Outcome) -> None:
        """See ``run_mutation.Bracket``."""
        await scheduled_jobs.finish(transaction, self._job, self._now_ns())


class Scheduler:
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
        self._now_ns = application.services.now_ns
        self._random = random
        self._reactor = reactor
        self.options = options or SchedulerOptions()
        state = self._services.deployment_state
        self._loop = DueLoop(
            "scheduler",
            database=self._database,
            table=SCHEDULED_JOBS,
            run=self._run,
            parallelism=self.options.parallelism,
            is_paused=lambda: state.paused,
            reactor=reactor,
            now_ns=self._now_ns,
            registry=registry,
        )
        state.on_resume.append(self._loop.wake)
        self._cleanup = LoopingCall(self._clean_up)
        self._cleanup.clock = reactor
        self._work = InFlight()
        self._stopping = False
        self._ended = Counter(
            "convex_scheduler_jobs_total",
            "Scheduled functions that have ended, and tries that are to be repeated.",
            ["outcome"],
            registry=registry,
        )

    def start(self) -> None:
        """Begin; what a crash interrupted is dealt with first."""
        run_detached("start of the scheduler", self._start())

    async def _start(self) -> None:
        with self._work:
            await self._fail_interrupted()
        if not self._stopping:
            self._loop.start()
            self._cleanup.start(self.options.cleanup_seconds, now=False)

    async def stop(self) -> None:
        """Start nothing more, and return when what runs has ended. Cancelling cuts actions off; a mutation still commits or does not."""
        self._stopping = True
        if self._cleanup.running:
            self._cleanup.stop()
        await self._loop.stop()
        await self._work.idle()

    async def _fail_interrupted(self) -> None:
        """Actions that were running when the server ended: nobody knows what they have done, so they are not run again."""
        while not self._stopping:
            jobs = await self._in_state(RUNNING)
            if not jobs:
                return
            self._log.info("{n} scheduled actions were interrupted by the end of the server", n=len(jobs))

            async def work(transaction: Transaction, jobs: list[Job] = jobs) -> None:
                for job in jobs:
                    await scheduled_jobs.finish(transaction, job, self._now_ns(), TRANSIENT_TEXT)

            await insist(self._database, _WRITER, work, self._reactor)
            self._ended.labels("failed").inc(len(jobs))

    async def _in_state(self, state: str) -> list[Job]:
        transaction = self._database.begin("query")
        try:
            return await scheduled_jobs.in_state(transaction, state, _STEP)
        finally:
            transaction.close()

    # -- one job ------------------------------------------------------------------------------------

    async def _run(self, row: SystemRow) -> None:
        job = job_of_row(row)
        try:
            outcome = await self._run_job(job)
        except JobGone:
            # Cancelled; the snapshot that showed it as pending is soon a thing of the past.
            self._loop.hold(job.row, _GONE_HOLD_SECONDS)
            outcome = "canceled"
        except (Transient, ServerFault) as error:
            await self._put_off(job, error)
            outcome = "retried"
        self._ended.labels(outcome).inc()

    async def _run_job(self, job: Job) -> str:
        """Run the job's function to its end. :returns: ``success`` or ``failed``.

        :raises JobGone: it must not run. :raises Transient, ServerFault: it has not run, or all it did was undone.
        """
        function = await runnable(self._services.directory, job.target, job.path)
        if isinstance(function, str):
            return await self._finish(job, function)
        args = await self._arguments(job)
        caller = Caller("Scheduler", "unknown", None, calls.new_request_id(), scheduled_function_id=job.id)
        if function.kind == "action":
            return await self._run_action(job, function, args, caller)
        result = await self._application.mutations.run(
            job.path.canonical,
            args,
            ANONYMOUS,
            caller,
            component_path=function.component_path,
            internal=True,
            bracket=_JobBracket(job, self._now_ns),
        )
        if result.error is None:
            return "success"
        return await self._finish(job, result.error.message)

    async def _arguments(self, job: Job) -> bytes:
        transaction = self._database.begin("query")
        try:
            return await scheduled_jobs.arguments(transaction, job)
        finally:
            transaction.close()

    async def _run_action(self, job: Job, function: ResolvedFunction, args: bytes, caller: Caller) -> str:
        await system_commit(
            self._database,
            _WRITER,
            lambda transaction: scheduled_jobs.begin_action(transaction, job, self._now_ns()),
        )
        try:
            result: CallResult = await run_action(
                self._application,
                job.path.canonical,
                args,
                ANONYMOUS,
                caller,
                component_path=function.component_path,
                internal=True,
            )
        except Overloaded:
            raise  # it was not started
        except ConvexError as error:
            outcome: str | None = error.message
        else:
            outcome = None if result.error is None else result.error.message
        # It has run: whatever happens now, it must not be tried again.
        now_ns = self._now_ns()
        await insist(
            self._database,
            _WRITER,
            lambda transaction: scheduled_jobs.finish(transaction, job, now_ns, outcome),
            self._reactor,
        )
        return "success" if outcome is None else "failed"

    async def _finish(self, job: Job, error: str | None) -> str:
        now_ns = self._now_ns()
        await system_commit(
            self._database, _WRITER, lambda transaction: scheduled_jobs.finish(transaction, job, now_ns, error)
        )
        return "success" if error is None else "failed"

    async def _put_off(self, job: Job, error: ConvexError) -> None:
        """The system failed: the job is tried again, later and later."""
        seconds = self.options.seconds_after(error, job.failures, self._random())
        self._log.warn(
            "the scheduled function {path} could not be run and will be tried again in {seconds:.1f}s: {error}",
            path=job.path.stripped,
            seconds=seconds,
            error=error,
        )
        at_ns = self._now_ns() + int(seconds * 1e9)
        try:
            await system_commit(
                self._database, _WRITER, lambda transaction: scheduled_jobs.put_off(transaction, job, at_ns)
            )
        except (Transient, ServerFault):
            # Nothing can be written now either.
            self._loop.hold(job.row, seconds)

    # -- clean-up -----------------------------------------------------------------------------------

    def _clean_up(self) -> Any:
        return from_coroutine(self._guarded_clean_up())

    async def _guarded_clean_up(self) -> None:
        with self._work:
            try:
                await self.clean_up()
            except ConvexError as error:
                self._log.warn("ended jobs could not be deleted: {error}", error=error)
            except Exception:  # noqa: BLE001 - the next turn tries again
                self._log.failure("the clean-up of jobs failed")

    async def clean_up(self) -> int:
        """Delete jobs that ended long enough ago, in bounded steps. :returns: how many."""
        total = 0
        before_ns = self._now_ns() - int(self.options.keep_seconds * 1e9)
        for _ in range(_STEPS_PER_TURN):
            jobs = [job for job in await self._in_state(DONE) if job.at_ns <= before_ns]
            if not jobs or self._stopping:
                break

            async def work(transaction: Transaction, jobs: list[Job] = jobs) -> None:
                for job in jobs:
                    await scheduled_jobs.delete(transaction, job)

            await system_commit(self._database, _WRITER, work)
            total += len(jobs)
            if len(jobs) < _STEP:
                break
        return total
