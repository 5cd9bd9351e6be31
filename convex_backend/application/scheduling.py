"""``ctx.scheduler``, and what an administrator may do to jobs. Implements ``functions.scheduling.Scheduling``.

Source: ``runtime.md`` section 9.4, ``http_api.md`` section 7.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from convex_backend.application import scheduled_jobs
from convex_backend.application.scheduled_jobs import Job
from convex_backend.application.system_commit import commit_in, system_commit
from convex_backend.errors import BadRequest
from convex_backend.functions.directory import FunctionDirectory, ResolvedFunction, not_found
from convex_backend.functions.scheduling import JobRequest
from convex_backend.values.json_codec import loads
from convex_backend.values.paths import FunctionPath

if TYPE_CHECKING:
    from convex_backend.database.database import Database
    from convex_backend.database.transaction import Transaction

_WRITER: Final = "scheduler"
#: Jobs that one transaction of :meth:`JobScheduling.cancel_all` or :meth:`JobScheduling.delete_all` changes.
_STEP: Final = 200
#: From this version of the npm package on a scheduled mutation that cancels itself gets an error.
_REFUSES_SELF_CANCEL: Final = (1, 50, 0)
_VERSION: Final = re.compile(r"(\d+)\.(\d+)\.(\d+)")


class Deployed(FunctionDirectory, Protocol):
    """What is asked of the deployed code; see ``directory.Directory``."""

    def has_module(self, component: int, module: str) -> bool:
        """Whether the newest deployment has the module (canonical path)."""

    def server_version(self, component: int) -> str:
        """The npm package's version of the last push, ``""`` before the first."""


@attrs.frozen(slots=True)
class JobFilter:
    """Which jobs an administrator means.

    :param component: internal id. :param path: of their function, ``None`` for all.
    :param from_ns: due then or later. :param before_ns: due before then; ``None`` for no bound.
    """

    component: int
    path: FunctionPath | None = None
    from_ns: int | None = None
    before_ns: int | None = None

    def takes(self, job: Job) -> bool:
        """Whether *job* is meant."""
        return (
            (self.path is None or job.path == self.path)
            and (self.from_ns is None or job.at_ns >= self.from_ns)
            and (self.before_ns is None or job.at_ns < self.before_ns)
        )


class JobScheduling:
    """See the top of the file.

    :param now_ns: wall clock.
    """

    def __init__(self, *, database: Database, directory: Deployed, now_ns: Callable[[], int]) -> None:
        self._database = database
        self._directory = directory
        self._now_ns = now_ns

    # -- functions ----------------------------------------------------------------------------------

    async def schedule(self, transaction: Transaction | None, request: JobRequest) -> str:
        """See ``Scheduling``."""
        await self._check_target(transaction, request)
        return await commit_in(self._database, transaction, _WRITER, lambda writing: self._add(writing, request))

    async def _check_target(self, transaction: Transaction | None, request: JobRequest) -> None:
        """:raises BadRequest: there is no such function."""
        target = request.target
        hidden = target.path.is_system or target.path.is_deps
        if not hidden and await self._directory.resolve(transaction, target.component, target.path) is not None:
            return
        if self._directory.has_module(target.component, target.path.module):
            raise BadRequest(
                "InvalidScheduledFunction",
                f"Attempted to schedule function, but no exported function {target.path.name} found in the file: "
                f"{target.path.module}. Did you forget to export it?",
            )
        where = f"{target.component_path} " if target.component_path else ""
        raise BadRequest(
            "InvalidScheduledFunction",
            f"Attempted to schedule function at nonexistent path: {where}{target.path.module.removesuffix('.js')}",
        )

    async def _add(self, transaction: Transaction, request: JobRequest) -> str:
        canceled = False
        if request.parent is not None:
            parent = await scheduled_jobs.find(transaction, request.parent)
            canceled = parent is not None and parent.orphaning
        return await scheduled_jobs.add(
            transaction,
            component=request.component,
            target=request.target.component,
            path=request.target.path,
            args=loads(request.args),
            due_ns=request.due_ns,
            now_ns=self._now_ns(),
            canceled=canceled,
        )

    async def cancel(self, transaction: Transaction | None, component: int, id: str) -> bool:
        """See ``Scheduling``."""
        return await commit_in(
            self._database, transaction, _WRITER, lambda writing: self._cancel(writing, component, id)
        )

    async def _cancel(self, transaction: Transaction, component: int, id: str) -> bool:
        job = await scheduled_jobs.find(transaction, id)
        if job is None or job.component != component:
            return False
        itself = await scheduled_jobs.is_running_mutation(transaction, job)
        if itself and _version(self._directory.server_version(component)) >= _REFUSES_SELF_CANCEL:
            raise BadRequest("ScheduledFunctionCancelingItself", "A mutation cannot cancel itself")
        await scheduled_jobs.cancel(transaction, job, self._now_ns())
        return itself

    # -- administrators -----------------------------------------------------------------------------

    async def cancel_by_admin(self, component: int, id: str) -> None:
        """Cancel one job; one that has ended is left alone.

        :raises BadRequest: ``ScheduledFunctionNotFound``: the component has no such job.
        """

        async def work(transaction: Transaction) -> None:
            job = await scheduled_jobs.find(transaction, id)
            if job is None or job.component != component:
                raise BadRequest("ScheduledFunctionNotFound", f"There is no scheduled function with ID {id}.")
            await scheduled_jobs.cancel(transaction, job, self._now_ns())

        await system_commit(self._database, _WRITER, work)

    async def cancel_all(self, wanted: JobFilter) -> int:
        """Cancel what is pending or running, a bounded number in each commit. :returns: how many."""
        return await self._in_steps(wanted.component, False, wanted.takes, self._cancel_step)

    async def _cancel_step(self, transaction: Transaction, job: Job) -> None:
        present = await scheduled_jobs.current(transaction, job)
        if present is not None:
            await scheduled_jobs.cancel(transaction, present, self._now_ns())

    async def delete_all(self, component: int) -> None:
        """Delete every job of a component with its document; what runs goes on to its end."""
        for ended in (False, True):
            await self._in_steps(component, ended, lambda job: True, scheduled_jobs.delete)

    async def _in_steps(
        self,
        component: int,
        ended: bool,
        takes: Callable[[Job], bool],
        step: Callable[[Transaction, Job], Awaitable[None]],
    ) -> int:
        """Do *step* to the jobs that there are now, in transactions that read them by points only."""
        after: bytes | None = None
        done = False
        total = 0
        while not done:
            query = self._database.begin("query")
            try:
                found, done = await scheduled_jobs.page(query, component, after=after, limit=_STEP, ended=ended)
            finally:
                query.close()
            if not found:
                break
            after = found[-1][0]
            wanted = [job for _, job in found if takes(job)]

            async def work(transaction: Transaction, wanted: list[Job] = wanted) -> None:
                for job in wanted:
                    await step(transaction, job)

            if wanted:
                await system_commit(self._database, _WRITER, work)
                total += len(wanted)
        return total


def _version(text: str) -> tuple[int, ...]:
    match = _VERSION.match(text)
    return tuple(map(int, match.groups())) if match is not None else ()


async def runnable(directory: FunctionDirectory, component: int, path: FunctionPath) -> ResolvedFunction | str:
    """The function that a job or a cron job runs, as it is deployed now, or the text of why it cannot run: only mutations and actions can."""
    function = await directory.resolve(None, component, path)
    if function is None:
        return not_found(path, directory.component_path(component), any_kind=True).message
    if function.kind in ("mutation", "action"):
        return function
    kinds: dict[str, Any] = {"query": "a query", "httpAction": "an HTTP action"}
    return (
        f"Unsupported function type. {function.path.canonical} is {kinds[function.kind]}: only mutations and actions "
        "can be scheduled."
    )
