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

import orjson

from convex_backend.errors import BadRequest
from convex_backend.functions.addresses import Address, resolve_address
from convex_backend.functions.directory import KIND_NAMES, check_kind, not_found
from convex_backend.functions.invocation import check_args, make_spec, normalise_args
from convex_backend.functions.limits import DEPTH_TEXT, MAX_NESTED_DEPTH
from convex_backend.functions.outcome import FunctionFailed
from convex_backend.functions.syscalls import (
    A_H,
    ALL,
    Q_M,
    Syscall,
    invalid_argument,
    parse,
    syscall,
)
from convex_backend.functions.syscalls.unavailable import unavailable
from convex_backend.interfaces import SyscallReply
from convex_backend.values.paths import HANDLE_PREFIX

if TYPE_CHECKING:
    from convex_backend.functions.context import CallContext

_UDF_NAMES = {"query": "Query", "mutation": "Mutation", "snapshotQuery": "SnapshotQuery"}


def _args_text(tree: dict[str, Any]) -> bytes:
    return orjson.dumps(tree.get("args", {}))


def _numbers(limits: dict[str, Any]) -> dict[str, float]:
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
    if udf_type == "snapshotQuery":
        raise unavailable("Snapshot queries are")
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
    check_kind(function, udf_type)
    text = normalise_args(_args_text(tree))
    check_args(function, text, context.tree.names(function.component))
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
        ahead=context.tree.ahead,
    )
    child = Context(
        context.tree, function, environment, context.syscalls, args_bytes=len(text), depth=context.depth + 1
    )
    assert context.link is not None
    mark = documents.savepoint() if udf_type == "mutation" else None
    component, ceilings = documents.component, documents.counters.limits
    # Each function may have one paginated query; only that of the root leaves a journal.
    paginated, journal_end_cursor = documents.paginated, documents.journal_end_cursor
    documents.component, documents.paginated = function.component, False
    limits = tree.get("transactionLimits")
    if isinstance(limits, dict):
        documents.counters.lower(_numbers(limits))
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

__all__ = ["SYSCALLS", "Address", "resolve_address"]
