"""Scheduled functions, cron jobs and the state of the deployment, as dashboards see them.

Source: ``system_functions.md`` section 3.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from convex_backend.application import cron_jobs, scheduled_jobs
from convex_backend.application.deployment_state import is_paused
from convex_backend.application.scheduled_jobs import PENDING, SCHEDULED_FUNCTIONS, Job
from convex_backend.application.system_functions.modules import cron_value
from convex_backend.application.system_functions.registry import (
    MAX_ROWS_READ,
    PAGINATION,
    STRING,
    SystemCall,
    SystemFunction,
    field,
    system_query,
)
from convex_backend.database.query.cursor import InvalidCursor
from convex_backend.database.system_tables import CRON_JOBS
from convex_backend.values.json_codec import dumps
from convex_backend.values.kinds import Value
from convex_backend.values.paths import FunctionPath

_END: Final = b"end"


@system_query("frontend/deploymentState:deploymentState", None)
async def deployment_state(call: SystemCall) -> Value:
    """Whether functions run."""
    return {"state": "paused" if await is_paused(call.transaction) else "running"}


@system_query("frontend/backendState:backendState", None)
async def backend_state(call: SystemCall) -> Value:
    """Why functions would not run."""
    user = "paused" if await is_paused(call.transaction) else "none"
    return {"system": "none", "usage_limit": "none", "user": user}


@system_query(
    "frontend/paginatedScheduledJobs",
    "ViewData",
    in_component=True,
    paginationOpts=PAGINATION,
    udfPath=field(STRING, optional=True),
)
async def paginated_scheduled_jobs(call: SystemCall) -> Value:
    """A page of pending and running jobs, by due time."""
    component = await call.component()
    options = call.args["paginationOpts"]
    wanted = _path(call.args.get("udfPath"))
    after, until = _position(call, options["cursor"]), _position(call, options.get("endCursor"))
    if after == _END:
        return {"page": [], "isDone": True, "continueCursor": options["cursor"]}
    if until == _END:
        until = None
        limit: int | None = None
    else:
        limit = None if until is not None else max(1, int(options["numItems"]))
    page: list[Value] = []
    seen = 0
    done = False
    position = after
    while not done and (limit is None or len(page) < limit) and seen < MAX_ROWS_READ:
        chunk = 100 if limit is None else min(100, limit - len(page))
        found, done = await scheduled_jobs.page(call.transaction, component, after=position, until=until, limit=chunk)
        if not found:
            break
        seen += len(found)
        position = found[-1][0]
        page.extend([await _shown(call, job) for _, job in found if wanted is None or job.path == wanted])
    if until is not None:
        return {"page": page, "isDone": False, "continueCursor": options["endCursor"]}
    cursor = call.services.seal(_END if done or position is None else b"at" + position)
    return {"page": page, "isDone": done, "continueCursor": cursor}


def _path(text: str | None) -> FunctionPath | None:
    return None if text is None else FunctionPath.parse(text)


def _position(call: SystemCall, cursor: str | None) -> bytes | None:
    """The key that a cursor stands for. :raises InvalidCursor: it is not one of these."""
    if cursor is None:
        return None
    try:
        found = call.services.unseal(cursor)
    except ValueError:
        raise InvalidCursor("Failed to parse cursor") from None
    if found == _END:
        return _END
    if not found.startswith(b"at"):
        raise InvalidCursor("Failed to parse cursor")
    return found[2:]


async def _shown(call: SystemCall, job: Job) -> Value:
    document = await call.transaction.virtual.get(job.component, SCHEDULED_FUNCTIONS, job.id)
    assert document is not None, "a job and its document are one"
    shown: dict[str, Value] = {
        "_id": job.id,
        "_creationTime": document["_creationTime"],
        "nextTs": job.at_ns,
        "udfPath": job.path.canonical,
        "state": {"type": "pending" if job.state == PENDING else "inProgress"},
        "udfArgs": dumps(document["args"]),
        "argsId": None,
    }
    if job.target != job.component:
        shown["component"] = call.services.directory.component_path(job.target)
    return shown


@system_query("frontend/scheduler:getArgs", "ViewData", in_component=True, argsId=STRING)
async def get_args(call: SystemCall) -> Value:
    """The arguments of a job, whose id is that of its arguments too."""
    component = await call.component()
    document = await call.transaction.virtual.get(component, SCHEDULED_FUNCTIONS, call.args["argsId"])
    if document is None:
        return None
    return {"_id": document["_id"], "_creationTime": document["_creationTime"], "args": dumps(document["args"])}


@system_query("frontend/listCronJobs", "ViewData", in_component=True)
async def list_cron_jobs(call: SystemCall) -> Value:
    """The cron jobs of a component with their last and next runs."""
    component = await call.component()
    transaction = call.transaction
    found: list[Value] = []
    for _, row in await transaction.system.scan(CRON_JOBS.name, "by_name", (component,)):
        runs = await cron_jobs.runs_of(transaction, component, row["name"])
        coming = await cron_jobs.next_run(transaction, component, row["name"])
        if coming is None:
            continue  # the commit of a push makes both
        found.append(
            {
                "_id": row["_id"],
                "_creationTime": row["_creationTime"],
                "name": row["name"],
                "cronSpec": _spec(row["spec"]),
                "lastRun": runs[-1] if runs else None,
                "nextRun": _next(coming, row["_id"]),
            }
        )
    return found


def _spec(text: str) -> Value:
    return cron_value(orjson.loads(text))


def _next(row: dict[str, Any], job: str) -> Value:
    return {
        "_id": row["_id"],
        "_creationTime": row["_creationTime"],
        "cronJobId": job,
        "state": {"type": "pending" if row["state"] == PENDING else "inProgress"},
        "prevTs": row["previous"],
        "nextTs": row["at"],
    }


@system_query("frontend/listCronJobRuns", "ViewData", in_component=True)
async def list_cron_job_runs(call: SystemCall) -> Value:
    """The remembered runs of a component's cron jobs."""
    runs: list[Value] = []
    runs.extend(await cron_jobs.runs_of(call.transaction, await call.component()))
    return runs


FUNCTIONS: tuple[SystemFunction, ...] = (
    deployment_state,
    backend_state,
    paginated_scheduled_jobs,
    get_args,
    list_cron_jobs,
    list_cron_job_runs,
)
