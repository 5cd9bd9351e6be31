"""The rows behind scheduled functions: the documents that users see, and beside each what the scheduler needs.

The only reader and writer of ``_scheduled_functions`` and ``_scheduled_jobs``. Each function here is part of the caller's transaction and reads a
job by points only, so jobs do not conflict with each other. Source: ``runtime.md`` section 9.4.

::

    schedule ──► pending ──► (mutation: in its own transaction) ──► success │ failed
                    │  └───► inProgress (actions, committed) ─────► success │ failed
                    └── cancel ──► canceled ◄── cancel ──┘          (the action runs on; what it schedules is canceled from the start)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from convex_backend.database.query.stream import walk
from convex_backend.database.system_tables import SCHEDULED_JOBS
from convex_backend.errors import Transient
from convex_backend.values.ids import decode_id
from convex_backend.values.json_codec import dumps, loads
from convex_backend.values.kinds import Value
from convex_backend.values.paths import FunctionPath
from convex_backend.values.sort_key import encode_key, successor

if TYPE_CHECKING:
    from convex_backend.database.system_rows import SystemRow
    from convex_backend.database.transaction import Transaction

SCHEDULED_FUNCTIONS: Final = "_scheduled_functions"
#: ``state`` of a ``_scheduled_jobs`` row; ``done`` is success, failed and canceled.
PENDING: Final = "pending"
RUNNING: Final = "running"
DONE: Final = "done"

_SUCCESS: Final = {"kind": "success"}
_CANCELED: Final = {"kind": "canceled"}
_BY_COMPONENT: Final = SCHEDULED_JOBS.index("by_component").id


class JobGone(Transient):
    """The job has been cancelled, or has changed, since it was found due: it must not run now. Never leaves the scheduler."""

    def __init__(self) -> None:
        super().__init__("JobGone", "The scheduled function is no longer pending.")


@attrs.frozen(slots=True)
class Job:
    """A scheduled function.

    :param row: internal id of the ``_scheduled_jobs`` row. :param id: id of the document.
    :param component: internal id of the component that scheduled it, :param target: of the one that the function belongs to.
    :param path: of the function.
    :param at_ns: when to run it, later than its scheduled time after a failure of the system; once it is done, when that was.
    :param failures: failures of the system so far.
    :param orphaning: an action that was cancelled while it ran: what it schedules is cancelled too.
    """

    row: bytes
    id: str
    component: int
    target: int
    path: FunctionPath
    at_ns: int
    state: str
    failures: int
    orphaning: bool


def job_of_row(found: SystemRow) -> Job:
    """:param found: a row of ``_scheduled_jobs``."""
    row_id, row = found
    return Job(
        row_id,
        row["job"],
        row["component"],
        row["target"],
        FunctionPath.parse(row["path"]),
        row["at"],
        row["state"],
        row["failures"],
        row["orphaning"],
    )


async def find(transaction: Transaction, id: str) -> Job | None:
    """The job whose document has this id."""
    found = await transaction.system.lookup(SCHEDULED_JOBS.name, "by_job", (id,))
    return job_of_row(found) if found is not None else None


async def arguments(transaction: Transaction, job: Job) -> bytes:
    """JSON text of the array of arguments. :raises JobGone: the job has been deleted."""
    document = await transaction.virtual.get(job.component, SCHEDULED_FUNCTIONS, job.id)
    if document is None:
        raise JobGone
    return dumps(document["args"])


async def add(
    transaction: Transaction,
    *,
    component: int,
    target: int,
    path: FunctionPath,
    args: Value,
    due_ns: int,
    now_ns: int,
    canceled: bool,
) -> str:
    """Add a job.

    :param component: that schedules. :param target: of the function.
    :param args: the array of arguments. :param canceled: it shall never run.
    :returns: the id of its document.
    """
    document: dict[str, Value] = {
        "name": path.canonical,
        "args": args,
        "scheduledTime": due_ns / 1_000_000,
        "state": {"kind": "canceled" if canceled else "pending"},
    }
    if canceled:
        document["completedTime"] = now_ns / 1_000_000
    job = await transaction.virtual.insert(component, SCHEDULED_FUNCTIONS, document)
    await transaction.system.insert(
        SCHEDULED_JOBS.name,
        {
            "job": job,
            "component": component,
            "target": target,
            "path": path.canonical,
            "at": now_ns if canceled else due_ns,
            "state": DONE if canceled else PENDING,
            "open": not canceled,
            "failures": 0,
            "orphaning": False,
        },
    )
    return job


async def current(transaction: Transaction, job: Job) -> Job | None:
    """The job as *transaction* sees it: found by its row, which is cheaper than by its document's id."""
    found = await transaction.system.get(SCHEDULED_JOBS.name, job.row)
    return job_of_row(found) if found is not None else None


async def begin_in_mutation(transaction: Transaction, job: Job) -> None:
    """At the start of the job's own transaction: the function sees its job as in progress, nobody else does.

    :raises JobGone: it is not pending.
    """
    present = await current(transaction, job)
    if present is None or present.state != PENDING:
        raise JobGone
    state = {"kind": "inProgress"}
    await transaction.virtual.patch(job.component, SCHEDULED_FUNCTIONS, job.id, {"state": state})


async def begin_action(transaction: Transaction, job: Job, now_ns: int) -> None:
    """From this commit on the action has had its one chance.

    :raises JobGone: it is not pending.
    """
    await begin_in_mutation(transaction, job)
    await transaction.system.patch(SCHEDULED_JOBS.name, job.row, {"state": RUNNING, "at": now_ns})


async def finish(transaction: Transaction, job: Job, now_ns: int, error: str | None = None) -> None:
    """The function has ended; a job that has been cancelled meanwhile stays so.

    :param error: rendered text of its failure.
    """
    present = await current(transaction, job)
    if present is not None and present.state != DONE:
        state = dict(_SUCCESS) if error is None else {"kind": "failed", "error": error}
        await _end(transaction, job, state, now_ns)


async def _end(
    transaction: Transaction, job: Job, state: dict[str, Any], now_ns: int, *, orphaning: bool = False
) -> None:
    fields = {"state": state, "completedTime": now_ns / 1_000_000}
    await transaction.virtual.patch(job.component, SCHEDULED_FUNCTIONS, job.id, fields)
    done = {"state": DONE, "open": False, "at": now_ns, "orphaning": orphaning}
    await transaction.system.patch(SCHEDULED_JOBS.name, job.row, done)


async def put_off(transaction: Transaction, job: Job, at_ns: int) -> None:
    """The system failed before the function had run: it is tried again at *at_ns*."""
    present = await current(transaction, job)
    if present is None or present.state == DONE:
        return
    if present.state == RUNNING:
        await transaction.virtual.patch(job.component, SCHEDULED_FUNCTIONS, job.id, {"state": {"kind": "pending"}})
    fields = {"state": PENDING, "at": at_ns, "failures": present.failures + 1}
    await transaction.system.patch(SCHEDULED_JOBS.name, job.row, fields)


async def is_running_mutation(transaction: Transaction, job: Job) -> bool:
    """Whether this is the transaction of *job* itself."""
    if job.state != PENDING:
        return False
    document = await transaction.virtual.get(job.component, SCHEDULED_FUNCTIONS, job.id)
    return document is not None and document["state"]["kind"] == "inProgress"


async def cancel(transaction: Transaction, job: Job, now_ns: int) -> None:
    """Cancel a job that has not ended."""
    if job.state != DONE:
        await _end(transaction, job, dict(_CANCELED), now_ns, orphaning=job.state == RUNNING)


async def delete(transaction: Transaction, job: Job) -> None:
    """Delete a job with its document; one that is not there any more is no error."""
    if await current(transaction, job) is not None:
        await transaction.virtual.delete(job.component, SCHEDULED_FUNCTIONS, job.id)
        await transaction.system.delete(SCHEDULED_JOBS.name, job.row)


async def in_state(transaction: Transaction, state: str, limit: int) -> list[Job]:
    """The first jobs in *state*, by time and then in the order of their insertion.

    The read is the whole interval: for transactions that write nothing.
    """
    rows = await transaction.system.scan(SCHEDULED_JOBS.name, "by_time", (state,), limit)
    return [job_of_row(row) for row in rows]


async def page(
    transaction: Transaction,
    component: int,
    *,
    after: bytes | None = None,
    until: bytes | None = None,
    limit: int | None = None,
    ended: bool = False,
) -> tuple[list[tuple[bytes, Job]], bool]:
    """Pending and running jobs of a component by time; the read is what was looked at.

    :param after: key of the last job of the page before. :param until: key of the last one wanted.
    :param ended: those that have ended instead.
    :returns: jobs with their keys, and whether there are no more.
    """
    await transaction.ensure_begun()
    prefix = encode_key((component, not ended))
    lower = prefix if after is None else after + b"\x00"
    end = successor(prefix)
    upper = end if until is None else until + b"\x00"
    found: list[tuple[bytes, Job]] = []
    done = False
    while not done and (limit is None or len(found) < limit):
        wanted = 256 if limit is None else min(256, limit - len(found))
        rows, done = await walk(
            transaction.snapshot,
            transaction.writes,
            _BY_COMPONENT,
            SCHEDULED_JOBS.tablet,
            lower,
            upper,
            False,
            wanted,
        )
        for key, json in rows:
            row = loads(json)
            found.append((key, job_of_row((decode_id(row["_id"])[1], row))))
            lower = key + b"\x00"
    transaction.add_system_interval(
        _BY_COMPONENT, prefix if after is None else after + b"\x00", upper if done else lower
    )
    return found, done and until is None
