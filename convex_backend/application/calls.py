"""What every use case that runs a function does first and last: resolve, check access and arguments, and name errors.

Source: ``runtime.md`` sections 1.4 and 8.4, ``http_api.md`` section 3.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import orjson

from convex_backend.application.operations import check_operation
from convex_backend.application.services import Services
from convex_backend.application.types import Caller, CallResult, Identity
from convex_backend.database.query.cursor import InvalidCursor
from convex_backend.errors import ConvexError, ServerFault, Transient
from convex_backend.functions.context import CallTree, RequestInfo
from convex_backend.functions.directory import Environment, ResolvedFunction, check_kind, not_found
from convex_backend.functions.invocation import check_args, make_spec, normalise_args
from convex_backend.functions.outcome import FunctionFailed
from convex_backend.interfaces import CallSpec, FunctionError, LogLine, Outcome
from convex_backend.values.paths import ROOT_COMPONENT, FunctionPath
from convex_backend.values.validators import TableNames

ROOT = 0
#: Calls of work that was let in before the deployment was paused, or that waits by itself while it is.
INSIDE_SOURCES = frozenset(("Action", "Scheduler", "Cron"))


def new_request_id() -> str:
    """16 hex digits for a call that nobody numbered."""
    return secrets.token_hex(8)


@attrs.frozen(slots=True, eq=False)
class Target:
    """The function that a caller named, before anything is known of it.

    :param internal: also internal functions are open (admins, and calls from server code).
    :param any_kind: the endpoint runs any kind of function; only a text differs.
    :param identity: whose key must allow the call; ``None`` for calls from server code.
    """

    path: FunctionPath
    component_path: str
    internal: bool
    any_kind: bool = False
    identity: Identity | None = None


@attrs.frozen(slots=True, eq=False)
class Prepared:
    """A call that may run: ``args`` are normalised and checked."""

    function: ResolvedFunction
    args: bytes
    environment: Environment


def target(path: str, component_path: str | None, identity: Identity, *, any_kind: bool = False) -> Target:
    """:raises BadRequest: code ``BadConvexFunctionIdentifier``: *path* cannot be parsed."""
    return Target(
        FunctionPath.parse(path), component_path or ROOT_COMPONENT, identity.sees_internal, any_kind, identity
    )


async def resolve(services: Services, transaction: Any, wanted: Target) -> ResolvedFunction:
    """The function, if it exists and is open to the caller. Components besides the app are open to admins and to server code only.

    :param transaction: its read set gets what was looked at; ``None`` records nothing.
    :raises NotFound: with the text that clients look for.
    """
    component: int | None = ROOT
    if wanted.component_path != ROOT_COMPONENT:
        component = (
            await services.directory.component_at(transaction, wanted.component_path) if wanted.internal else None
        )
    if component is None or wanted.path.is_deps:
        raise not_found(wanted.path, wanted.component_path, any_kind=wanted.any_kind)
    function = await services.directory.resolve(transaction, component, wanted.path)
    if function is None or (function.visibility == "internal" and not wanted.internal):
        raise not_found(wanted.path, wanted.component_path, any_kind=wanted.any_kind)
    return function


def _check_permission(function: ResolvedFunction, identity: Identity) -> None:
    """:raises Forbidden: the admin's key does not allow it (``admin_keys.md`` section 4). Public functions of the app are open to every key."""
    if function.visibility == "internal":
        kinds = {"query": "RunInternalQueries", "mutation": "RunInternalMutations"}
        check_operation(identity, kinds.get(function.kind, "RunInternalActions"))
    elif function.component != ROOT:
        check_operation(identity, "ViewData" if function.kind == "query" else "WriteData")


async def prepare(services: Services, transaction: Any, wanted: Target, args: bytes, kind: str) -> Prepared:
    """Resolve and check a call of *kind* with *args* (JSON text of an object or array).

    :raises FunctionFailed, NotFound, BadRequest, Forbidden: what the caller gets as the function's error.
    """
    function = await resolve(services, transaction, wanted)
    check_kind(function, kind)
    if wanted.identity is not None and wanted.identity.is_admin:
        _check_permission(function, wanted.identity)
    names = (
        services.database.catalogs.newest.names(function.component)
        if transaction is None
        else transaction.names(function.component)
    )
    text = normalise_args(args)
    check_args(function, text, names)
    environment = await services.directory.environment(transaction, function.component)
    return Prepared(function, text, environment)


def spec_of(services: Services, prepared: Prepared, tables: Mapping[str, int], caller: Caller, **more: Any) -> CallSpec:
    """A fresh run of *prepared*: its own seed and time."""
    return make_spec(
        prepared.function,
        prepared.args,
        seed=services.random_bytes(32),
        now_ms=services.now_ns() // 1_000_000,
        request_id=caller.request_id,
        environment=prepared.environment,
        tables=tables,
        **more,
    )


def call_tree(
    services: Services,
    transaction: Any,
    identity: Identity,
    caller: Caller,
    names: Callable[[int], TableNames],
    tables: Callable[[int], Mapping[str, int]],
    on_abandon: Callable[[], None] | None = None,
) -> CallTree:
    """What the calls of one tree share."""
    return CallTree(
        services.calls,
        transaction,
        RequestInfo(caller.request_id, caller.ip, caller.user_agent, caller.scheduled_function_id, identity.token),
        names,
        tables,
        identity=identity_json(identity),
        identity_error=identity.error,
        on_abandon=on_abandon,
    )


def identity_json(identity: Identity) -> bytes:
    """The object that ``ctx.auth.getUserIdentity()`` gives."""
    return b"null" if identity.attributes is None else orjson.dumps(dict(identity.attributes))


def function_error(error: ConvexError) -> FunctionError:
    """A failure before JavaScript ran, as the caller sees it.

    :raises ConvexError: *error* itself when it is not about the function or the request.
    """
    if isinstance(error, FunctionFailed):
        return error.error
    if isinstance(error, InvalidCursor):
        return FunctionError(f"Uncaught ConvexError: {error.message}", orjson.dumps(error.data))
    if isinstance(error, Transient | ServerFault):
        raise error
    return FunctionError(error.message)


def call_result(
    services: Services,
    identity: Identity,
    caller: Caller,
    ts: int,
    value: bytes | None,
    error: FunctionError | None,
    log_lines: tuple[LogLine, ...],
) -> CallResult:
    """The answer as *identity* may see it (``runtime.md`` section 8.4, redaction)."""
    redacted = services.settings.redact_logs_to_client and not identity.is_admin
    return CallResult(value, error, () if redacted else log_lines, ts, caller.request_id, redacted)


def record_run(
    services: Services, wanted: Target, kind: str, identity: Identity, caller: Caller, outcome: Outcome
) -> None:
    """Note in the function log that a query or mutation has run."""
    services.function_log.record_completion(
        kind=kind,
        component_path=wanted.component_path,
        path=wanted.path.stripped,
        log_lines=outcome.log_lines,
        seconds=outcome.cpu_seconds,
        error=None if outcome.error is None else outcome.error.message,
        request_id=caller.request_id,
        execution_id=new_request_id(),
        parent_execution_id=caller.parent_execution_id,
        source=caller.source,
        identity_type=identity.log_name,
        cached=False,
        return_bytes=None if outcome.value is None else len(outcome.value),
    )
