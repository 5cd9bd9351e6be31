"""``ctx.scheduler``.

============================  =====  ============================================================================  ============
name                          kinds  arguments                                                                     answer
============================  =====  ============================================================================  ============
``1.0/schedule``              M      ``{name|reference|functionHandle, ts: unix seconds, args}``                   the job's id
``1.0/actions/schedule``      A H    likewise                                                                      likewise
``1.0/cancel_job``            M      ``{id}``                                                                      ``null``
``1.0/actions/cancel_job``    A H    likewise                                                                      ``null``
============================  =====  ============================================================================  ============

From a mutation a job exists when the mutation commits; from an action at once. Source: ``runtime.md`` sections 2.3 and 9.4.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from convex_backend.database.document_errors import bad_id, wrong_table
from convex_backend.database.system_tables import VIRTUAL_NUMBERS, VIRTUAL_TABLES
from convex_backend.errors import BadRequest
from convex_backend.functions.addresses import resolve_address
from convex_backend.functions.invocation import SIZE_PER_TEXT, normalise_args
from convex_backend.functions.limits import MAX_ARGUMENT_BYTES
from convex_backend.functions.scheduling import JobRequest, Scheduling
from convex_backend.functions.syscalls import (
    A_H,
    NULL,
    M,
    Syscall,
    invalid_argument,
    missing,
    parse,
    text_argument,
)
from convex_backend.functions.syscalls.unavailable import unavailable
from convex_backend.interfaces import LogLine, SyscallReply
from convex_backend.values.ids import decode_id
from convex_backend.values.json_codec import loads
from convex_backend.values.kinds import InvalidValue, Value
from convex_backend.values.limits import arguments_size_error, size_of

if TYPE_CHECKING:
    from convex_backend.functions.context import CallContext

CALL = "scheduler"
CANCEL = "db.cancel_job"
#: How far from now a function may be scheduled, either way.
MAX_DISTANCE_SECONDS = 5 * 366 * 86_400
SELF_CANCEL_TEXT = "A scheduled mutation has canceled itself. This is deprecated and will be an error: its writes are kept all the same."
SCHEDULED_FUNCTIONS = "_scheduled_functions"


def _service(context: CallContext) -> Scheduling:
    service = context.tree.services.scheduling
    if service is None:
        raise unavailable("Scheduled functions are")
    return service


def due_time_ns(tree: dict[str, Any], now_ms: int) -> int:
    """The instant that ``ts`` means.

    Rounded to the microsecond, which is finer than a float of seconds can say: ``scheduledTime`` is then the very number that was asked for.

    :raises BadRequest: it is no number, or ``InvalidScheduledFunctionDelay``: more than five years from now.
    """
    seconds = tree.get("ts")
    if type(seconds) not in (int, float):
        raise missing(tree, "ts", CALL, "a number")
    assert isinstance(seconds, int | float)
    if not math.isfinite(seconds):
        raise invalid_argument("ts", CALL, "expected a finite number")
    distance = seconds - now_ms / 1000
    if abs(distance) > MAX_DISTANCE_SECONDS:
        where = "in the future" if distance > 0 else "in the past"
        raise BadRequest("InvalidScheduledFunctionDelay", f"{_shown(seconds)} is more than 5 years {where}")
    return round(seconds * 1_000_000) * 1000


def _shown(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return f"{seconds} seconds"


async def _schedule(context: CallContext, args: bytes) -> SyscallReply:
    """Run a function later: after the mutation has committed, or whatever becomes of the action."""
    service = _service(context)
    tree = parse(args)
    services = context.tree.services
    if context.transaction is not None:
        # What is looked up from here on is looked up at the snapshot.
        await context.documents.ensure_begun()
    target = await resolve_address(context, tree, CALL)
    due_ns = due_time_ns(tree, services.now_ms())
    text = normalise_args(orjson.dumps(tree.get("args", {})))
    try:
        values = loads(text)
    except InvalidValue as error:
        raise invalid_argument("args", CALL, error) from None
    _count(context, target.path.canonical, text, values)
    parent = context.tree.request.scheduled_function_id
    request = JobRequest(context.function.component, target, text, due_ns, parent)
    job = await service.schedule(context.transaction, request)
    return SyscallReply(orjson.dumps(job))


def _count(context: CallContext, path: str, text: bytes, values: Value) -> None:
    """:raises BadRequest: the arguments are too large. :raises PaginationLimit: a limit of the mutation is met."""
    size = None
    if len(text) * SIZE_PER_TEXT > MAX_ARGUMENT_BYTES:
        size = size_of(values)
        error = arguments_size_error(path, size)
        if error is not None:
            raise invalid_argument("args", CALL, error)
    if context.transaction is not None:
        context.documents.counters.schedule(size_of(values) if size is None else size)


async def _cancel(context: CallContext, args: bytes) -> SyscallReply:
    """Cancel a scheduled function: if the mutation commits, or, in an action, at once."""
    service = _service(context)
    job = text_argument(parse(args), "id", CANCEL)
    try:
        number, _ = decode_id(job)
    except InvalidValue as error:
        raise bad_id(CANCEL, error.message) from None
    if number != VIRTUAL_TABLES[SCHEDULED_FUNCTIONS]:
        tables = context.tree.tables(context.function.component)
        found = VIRTUAL_NUMBERS.get(number) or next((name for name, own in tables.items() if own == number), None)
        if found is not None:
            raise wrong_table(CANCEL, SCHEDULED_FUNCTIONS, found)
        return NULL
    if await service.cancel(context.transaction, context.function.component, job):
        now_ms = float(context.tree.services.now_ms())
        context.tree.notices.append(LogLine((SELF_CANCEL_TEXT,), "WARN", now_ms))
    return NULL


SYSCALLS: tuple[Syscall, ...] = (
    Syscall("1.0/schedule", M, _schedule),
    Syscall("1.0/actions/schedule", A_H, _schedule),
    Syscall("1.0/cancel_job", M, _cancel),
    Syscall("1.0/actions/cancel_job", A_H, _cancel),
)
