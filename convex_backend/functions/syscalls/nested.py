"""Functions that call functions.

============================  =====  ================================================================================
name                          kinds  arguments
============================  =====  ================================================================================
``1.0/runUdf``                Q M    ``{udfType: query|mutation|snapshotQuery, args, name|reference|functionHandle, transactionLimits?}``
``1.0/actions/query``         A H    ``{args, name|reference|functionHandle}``
``1.0/actions/mutation``      A H    likewise
``1.0/actions/action``        A H    likewise
``1.0/createFunctionHandle``  all    ``{name|reference|functionHandle}``
============================  =====  ================================================================================

All but the last answer the value's JSON; that one the handle's text. In a query or mutation the callee runs in the same child and the same
transaction, as a subtransaction (section 9.1); in an action each call is an execution of its own (section 9.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import orjson

from convex_backend.errors import BadRequest
from convex_backend.functions.addresses import resolve_address
from convex_backend.functions.directory import KIND_NAMES, Environment, ResolvedFunction, check_kind, not_found
from convex_backend.functions.invocation import check_args, make_spec, normalise_args
from convex_backend.functions.limits import DEPTH_TEXT, MAX_NESTED_DEPTH
from convex_backend.functions.outcome import FunctionFailed
from convex_backend.functions.syscalls import A_H, ALL, Q_M, Syscall, invalid_argument, parse, syscall
from convex_backend.functions.syscalls.unavailable import unavailable
from convex_backend.interfaces import CallSpec, Outcome, SyscallReply
from convex_backend.values.paths import HANDLE_PREFIX

if TYPE_CHECKING:
    from convex_backend.functions.context import CallContext

_UDF_NAMES = {"query": "Query", "mutation": "Mutation", "snapshotQuery": "SnapshotQuery"}


def _args_text(tree: dict[str, Any]) -> bytes:
    return orjson.dumps(tree.get("args", {}))


def _numbers(limits: Any) -> dict[str, float]:
    if not isinstance(limits, dict):
        return {}
    return {name: limit for name, limit in limits.items() if type(limit) in (int, float) and limit >= 0}


@syscall("1.0/runUdf", Q_M)
async def run_udf(context: CallContext, args: bytes) -> SyscallReply:
    """Run a query or mutation inside this one's transaction."""
    from convex_backend.functions.context import CallContext as Context

    tree = parse(args)
    udf_type = tree.get("udfType")
    if udf_type not in _UDF_NAMES:
        raise invalid_argument("udfType", "runUdf", "expected query, mutation or snapshotQuery")
    if context.kind == "query" and udf_type != "query":
        raise BadRequest(
            "InvalidNestedCall",
            f"Cannot call a {_UDF_NAMES[udf_type]} function from a {KIND_NAMES[context.kind]} function",
        )
    call = "runMutation" if udf_type == "mutation" else "runQuery"
    documents = context.documents
    # The callee is looked up at the snapshot, so that must be taken, also when this is the first thing that a mutation does.
    await documents.ensure_begun()
    address = await resolve_address(context, tree, call)
    if context.depth >= MAX_NESTED_DEPTH:
        raise BadRequest("CallDepthExceeded", DEPTH_TEXT)
    services = context.tree.services
    function = await services.directory.resolve(context.transaction, address.component, address.path)
    if function is None:
        raise not_found(address.path, address.component_path)
    check_kind(function, "mutation" if udf_type == "mutation" else "query")
    text = normalise_args(_args_text(tree))
    check_args(
        function,
        text,
        context.tree.names(function.component),
        allow_commit_ts=documents.kind == "mutation",
    )
    environment = await services.directory.environment(context.transaction, function.component)
    spec = make_spec(
        function,
        text,
        seed=services.random_bytes(32),
        now_ms=services.now_ms(),
        request_id=context.tree.request.request_id,
        environment=environment,
        tables=context.tree.tables(function.component),
        timeout_seconds=0.0,
        admitted=True,
        ahead=context.tree.ahead and udf_type != "snapshotQuery",
    )
    limits = _numbers(tree.get("transactionLimits"))
    if udf_type == "snapshotQuery":
        outcome = await _run_snapshot_query(context, spec, function, environment, len(text), limits)
        if outcome.error is not None:
            raise FunctionFailed(outcome.error)
        assert outcome.value is not None
        return SyscallReply(outcome.value)
    child = Context(
        context.tree, function, environment, context.syscalls, args_bytes=len(text), depth=context.depth + 1
    )
    assert context.link is not None
    mark = documents.savepoint() if udf_type == "mutation" else None
    component, ceilings = documents.component, documents.counters.limits
    # Each function may have one paginated query; only that of the root leaves a journal.
    paginated, journal_end_cursor = documents.paginated, documents.journal_end_cursor
    documents.component, documents.paginated = function.component, False
    documents.counters.lower(limits)
    try:
        outcome = await context.link.run_nested(spec, child)
    finally:
        # Rows that it fetched ahead and did not take are nobody's: a moving snapshot need not keep them.
        for query in child.queries.values():
            documents.close_stream(query.stream)
        documents.component, documents.paginated = component, paginated
        documents.journal_end_cursor = journal_end_cursor
        documents.counters.limits = ceilings
    if udf_type == "mutation":
        if outcome.error is None:
            documents.release(mark)
        else:
            documents.rollback_to(mark)
    if outcome.error is not None:
        raise FunctionFailed(outcome.error)
    assert outcome.value is not None
    return SyscallReply(outcome.value)


async def _run_snapshot_query(
    context: CallContext,
    spec: CallSpec,
    function: ResolvedFunction,
    environment: Environment,
    args_bytes: int,
    limits: dict[str, float],
) -> Outcome:
    """Run a query beside the mutation's transaction, at its snapshot: neither sees or records anything of the other (section 9.1)."""
    from convex_backend.functions.context import CallContext as Context

    assert context.link is not None
    documents = context.documents.fork()
    try:
        documents.component = function.component
        documents.counters.lower(limits)
        tree = attrs.evolve(
            context.tree, transaction=documents, names=documents.names, tables=documents.table_numbers, ahead=False
        )
        child = Context(tree, function, environment, context.syscalls, args_bytes=args_bytes, depth=context.depth + 1)
        try:
            return await context.link.run_nested(spec, child)
        finally:
            context.tree.identity_observed |= tree.identity_observed
    finally:
        documents.close()


async def _from_action(context: CallContext, args: bytes, kind: str, call: str) -> SyscallReply:
    tree = parse(args)
    address = await resolve_address(context, tree, call)
    runner = context.tree.services.nested_runner
    if runner is None:
        raise unavailable("Calls from actions are")
    value = await runner.run_from_action(
        context, kind, address.component, address.path, _args_text(tree), address.reference
    )
    return SyscallReply(value)


@syscall("1.0/actions/query", A_H)
async def action_query(context: CallContext, args: bytes) -> SyscallReply:
    """Run a query for an action."""
    return await _from_action(context, args, "query", "runQuery")


@syscall("1.0/actions/mutation", A_H)
async def action_mutation(context: CallContext, args: bytes) -> SyscallReply:
    """Run a mutation for an action."""
    return await _from_action(context, args, "mutation", "runMutation")


@syscall("1.0/actions/action", A_H)
async def action_action(context: CallContext, args: bytes) -> SyscallReply:
    """Run an action for an action."""
    return await _from_action(context, args, "action", "runAction")


@syscall("1.0/createFunctionHandle", ALL)
async def create_function_handle(context: CallContext, args: bytes) -> SyscallReply:
    """The handle of a function, the same one for as long as the deployment lives; a handle is its own."""
    tree = parse(args)
    call = "createFunctionHandle"
    given = tree.get("functionHandle")
    if type(given) is str and given.startswith(HANDLE_PREFIX):
        return SyscallReply(orjson.dumps(given))
    if context.transaction is not None:
        await context.documents.ensure_begun()
    address = await resolve_address(context, tree, call)
    directory = context.tree.services.directory
    if await directory.resolve(context.transaction, address.component, address.path) is None:
        raise not_found(address.path, address.component_path)
    identifier = await directory.function_handle(context.transaction, address.component, address.path)
    return SyscallReply(orjson.dumps(f"{HANDLE_PREFIX}{identifier}#{address.path.stripped}"))


SYSCALLS: tuple[Syscall, ...] = (run_udf, action_query, action_mutation, action_action, create_function_handle)
