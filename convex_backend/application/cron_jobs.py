"""The rows behind cron jobs: when each runs next, whether it runs now, and how its last runs ended.

The only reader and writer of ``_cron_next_run`` and ``_cron_job_logs``; what the jobs are lies in ``_cron_jobs`` (``push_store``). Each function
is part of the caller's transaction. Source: ``runtime.md`` section 9.5, ``system_functions.md`` section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs
import orjson

from convex_backend.application.cron_schedule import Schedule, parse_schedule
from convex_backend.application.scheduled_jobs import PENDING, RUNNING, JobGone
from convex_backend.database.system_tables import CRON_JOB_LOGS, CRON_JOBS, CRON_NEXT_RUN
from convex_backend.functions.log_lines import pretty
from convex_backend.interfaces import LogLine
from convex_backend.values.json_codec import loads
from convex_backend.values.kinds import Value
from convex_backend.values.paths import FunctionPath

if TYPE_CHECKING:
    from convex_backend.database.system_rows import SystemRow
    from convex_backend.database.transaction import Transaction

#: Runs of each job that are remembered, skipped ones included.
KEPT_RUNS: Final = 20
#: A result, an error, and all log lines of a run are remembered up to so many bytes.
KEPT_BYTES: Final = 1000


async def sync(transaction: Transaction, component: int, specs: Mapping[str, str]) -> None:
    """Make a push's cron jobs the ones that run: part of the commit that finishes it, for each component (an unmounted one has no *specs*).

    A new job gets its first run, one with another schedule too; one with the same schedule keeps its next run, whatever else changed; one that
    is gone does not run any more.

    :param specs: JSON text of each job's spec (``push.md`` section 5.3) by identifier.
    """
    system = transaction.system
    rows = await system.scan(CRON_NEXT_RUN.name, "by_name", (component,))
    present = {row["name"]: (row_id, row) for row_id, row in rows}
    now_ns = transaction.begin_time_ms * 1_000_000
    for name, spec in specs.items():
        schedule = schedule_text(orjson.loads(spec)["cronSchedule"])
        known = present.pop(name, None)
        if known is None:
            first = read_schedule(schedule).first(now_ns)
            await system.insert(
                CRON_NEXT_RUN.name,
                {
                    "component": component,
                    "name": name,
                    "schedule": schedule,
                    "at": first,
                    "previous": None,
                    "state": PENDING,
                },
            )
        elif known[1]["schedule"] != schedule:
            # A run under way goes on to its end, and the first run of the new schedule waits for that.
            fields = {"schedule": schedule, "at": read_schedule(schedule).first(now_ns)}
            await system.patch(CRON_NEXT_RUN.name, known[0], fields)
    for name, (row_id, _) in present.items():
        await system.delete(CRON_NEXT_RUN.name, row_id)
        for log, _ in await system.scan(CRON_JOB_LOGS.name, "by_name", (component, name)):
            await system.delete(CRON_JOB_LOGS.name, log)


def schedule_text(schedule: Mapping[str, Any]) -> str:
    """Equal for equal schedules."""
    return orjson.dumps(schedule, option=orjson.OPT_SORT_KEYS).decode()


def read_schedule(text: str) -> Schedule:
    """See :func:`convex_backend.application.cron_schedule.parse_schedule`."""
    return parse_schedule(orjson.loads(text))


@attrs.frozen(slots=True)
class CronRun:
    """One run of a cron job, due at ``at_ns``. ``schedule`` is that by which it is due."""

    row: bytes
    component: int
    name: str
    schedule: str
    at_ns: int


def run_of_row(found: SystemRow) -> CronRun:
    """:param found: a row of ``_cron_next_run``."""
    row_id, row = found
    return CronRun(row_id, row["component"], row["name"], row["schedule"], row["at"])


@attrs.frozen(slots=True)
class CronTarget:
    """What a cron job calls. ``args`` is JSON text of the array of arguments."""

    path: FunctionPath
    args: bytes


async def target(transaction: Transaction, run: CronRun) -> CronTarget | None:
    """What the job calls, ``None`` when there is no such job any more."""
    found = await transaction.system.lookup(CRON_JOBS.name, "by_name", (run.component, run.name))
    if found is None:
        return None
    spec = orjson.loads(found[1]["spec"])
    return CronTarget(FunctionPath.parse(spec["udfPath"]), spec["udfArgs"].encode())


async def begin(transaction: Transaction, run: CronRun) -> None:
    """At the start of a mutation's transaction. :raises JobGone: this run is no longer the next one."""
    row = await _row(transaction, run)
    if row is None or row[1]["state"] != PENDING or (row[1]["at"], row[1]["schedule"]) != (run.at_ns, run.schedule):
        raise JobGone


async def begin_action(transaction: Transaction, run: CronRun) -> None:
    """From this commit on the action has had its chance. :raises JobGone: this run is no longer the next one."""
    await begin(transaction, run)
    await transaction.system.patch(CRON_NEXT_RUN.name, run.row, {"state": RUNNING})


async def _row(transaction: Transaction, run: CronRun) -> SystemRow | None:
    return await transaction.system.get(CRON_NEXT_RUN.name, run.row)


async def put_back(transaction: Transaction, run: CronRun) -> None:
    """The action was not started after all: the run is still the next one."""
    if await _row(transaction, run) is not None:
        await transaction.system.patch(CRON_NEXT_RUN.name, run.row, {"state": PENDING})


@attrs.frozen(slots=True)
class Ending:
    """How a run ended.

    :param result: JSON text of the value, or :param error: the rendered text of its failure.
    :param seconds: how long it took.
    """

    result: bytes | None
    error: str | None
    log_lines: Sequence[LogLine]
    seconds: float


async def finish(transaction: Transaction, run: CronRun, what: CronTarget, ending: Ending, now_ns: int) -> int:
    """The run has ended: remember how, and set the next one.

    :returns: how many runs were missed meanwhile, and are skipped.
    """
    found = await _row(transaction, run)
    if found is None:
        return 0  # a push has removed the job
    fields: dict[str, Value] = {"state": PENDING, "previous": run.at_ns}
    missed = 0
    if (found[1]["at"], found[1]["schedule"]) == (run.at_ns, run.schedule):
        fields["at"], missed = read_schedule(run.schedule).following(run.at_ns, now_ns)
    await transaction.system.patch(CRON_NEXT_RUN.name, run.row, fields)
    await _log(transaction, run, what, run.at_ns, _status(ending), _lines(ending.log_lines), ending.seconds)
    if missed:
        text = skip_text(missed, run.name)
        lines: Value = {"logLines": [text], "isTruncated": False}
        status: Value = {"type": "canceled", "num_canceled": missed}
        await _log(transaction, run, what, now_ns, status, lines, 0.0)
    await _forget_old_runs(transaction, run)
    return missed


def skip_text(missed: int, name: str) -> str:
    """What is said of runs that are skipped."""
    return f"Skipping {missed} run(s) of job {name} because multiple scheduled runs are in the past"


async def _log(
    transaction: Transaction, run: CronRun, what: CronTarget, ts: int, status: Value, lines: Value, seconds: float
) -> None:
    await transaction.system.insert(
        CRON_JOB_LOGS.name,
        {
            "component": run.component,
            "name": run.name,
            "ts": ts,
            "udfPath": what.path.canonical,
            "udfArgs": what.args,
            "status": status,
            "logLines": lines,
            "executionTime": seconds,
        },
    )


async def _forget_old_runs(transaction: Transaction, run: CronRun) -> None:
    rows = await transaction.system.scan(CRON_JOB_LOGS.name, "by_name", (run.component, run.name))
    for row_id, _ in rows[:-KEPT_RUNS]:
        await transaction.system.delete(CRON_JOB_LOGS.name, row_id)


def _status(ending: Ending) -> Value:
    if ending.error is not None:
        return {"type": "err", "error": _bounded(ending.error, ending.error.encode())}
    assert ending.result is not None
    return {"type": "success", "result": _bounded(loads(ending.result), ending.result)}


def _bounded(value: Value, text: bytes) -> Value:
    if len(text) <= KEPT_BYTES:
        return {"type": "default", "value": value}
    return {"type": "truncated", "truncated_log": text[:KEPT_BYTES].decode("utf-8", "ignore")}


def _lines(lines: Sequence[LogLine]) -> Value:
    kept: list[Value] = []
    left = KEPT_BYTES
    for line in lines:
        text = pretty(line)
        size = len(text.encode())
        if size > left:
            return {"logLines": kept, "isTruncated": True}
        left -= size
        kept.append(text)
    return {"logLines": kept, "isTruncated": False}


async def runs_of(transaction: Transaction, component: int, name: str | None = None) -> list[dict[str, Any]]:
    """The remembered runs of a component's jobs, or of one job, by job and time; shaped as ``CronRun`` of the dashboard's functions."""
    prefix = (component,) if name is None else (component, name)
    rows = await transaction.system.scan(CRON_JOB_LOGS.name, "by_name", prefix)
    return [{field: value for field, value in row.items() if field != "component"} for _, row in rows]


async def next_run(transaction: Transaction, component: int, name: str) -> dict[str, Any] | None:
    """The row of a job's next run."""
    found = await transaction.system.lookup(CRON_NEXT_RUN.name, "by_name", (component, name))
    return found[1] if found is not None else None


async def running(transaction: Transaction) -> list[CronRun]:
    """Runs of actions that a commit says are under way; for transactions that write nothing."""
    return [run_of_row(row) for row in await transaction.system.scan(CRON_NEXT_RUN.name, "by_time", (RUNNING,))]
