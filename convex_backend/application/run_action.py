"""Actions: not transactional, at most once; what they call are executions of their own.

Source: ``runtime.md`` sections 9.2 and 9.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from convex_backend.application import calls
from convex_backend.application.action_lines import ActionLines
from convex_backend.application.services import Services
from convex_backend.application.types import ANONYMOUS, Caller, CallResult, Identity
from convex_backend.errors import ConvexError
from convex_backend.functions.context import CallContext, CallTree
from convex_backend.functions.limits import MAX_NODE_BYTES, NODE_ARGUMENTS_TEXT
from convex_backend.functions.outcome import FunctionFailed
from convex_backend.functions.streams import CallStreams
from convex_backend.interfaces import FunctionError
from convex_backend.values.paths import FunctionPath

if TYPE_CHECKING:
    from convex_backend.application.application import Application
    from convex_backend.database.catalog import Catalog

#: How deep actions may call actions: each level holds a place among the running ones.
MAX_ACTION_DEPTH = 8


class ActionCalls:
    """What one running action calls: a :class:`convex_backend.functions.context.NestedRunner`."""

    def __init__(
        self, application: Application, identity: Identity, caller: Caller, execution_id: str, depth: int
    ) -> None:
        self._application = application
        self._identity = identity
        self._inner = attrs.evolve(caller, source="Action", parent_execution_id=execution_id)
        self._depth = depth

    async def run_from_action(
        self, caller: CallContext, kind: str, component: int, path: FunctionPath, args: bytes, reference: str | None
    ) -> bytes:
        """See ``NestedRunner``."""
        application = self._application
        inner = self._inner
        component_path = caller.function.component_path
        if component != caller.function.component:
            component_path = application.services.directory.component_path(component)
        identity = self._identity
        if not identity.is_admin and (caller.function.component or component):
            # Who the user is stays in the app; admins are admins everywhere (section 9.2).
            identity = ANONYMOUS
        if kind == "query":
            result = await application.run_query(
                path.canonical, args, _inside(identity), inner, component_path=component_path
            )
        elif kind == "mutation":
            result = await application.mutations.run(
                path.canonical, args, identity, inner, component_path=component_path, internal=True
            )
        else:
            if self._depth + 1 >= MAX_ACTION_DEPTH:
                text = "Cross component call depth limit exceeded. Do you have an infinite loop in your app?"
                raise FunctionFailed(FunctionError(text))
            result = await run_action(
                application,
                path.canonical,
                args,
                identity,
                inner,
                component_path=component_path,
                internal=True,
                depth=self._depth + 1,
            )
        if result.error is not None:
            raise FunctionFailed(result.error)
        assert result.value is not None
        return result.value


def _inside(identity: Identity) -> Identity:
    """Server code may call internal functions; what functions see of the caller stays the same."""
    return identity if identity.is_admin else attrs.evolve(identity, inside=True)


def durable_catalog(services: Services) -> Catalog:
    """The tables as of the newest durable commit: what an action sees, which has no transaction of its own."""
    database = services.database
    return database.catalogs.at(database.committer.durable_ts)


def action_tree(
    services: Services,
    identity: Identity,
    caller: Caller,
    runner: ActionCalls,
    lines: ActionLines,
    streams: CallStreams,
) -> CallTree:
    """What the calls of one running action share."""
    tree = calls.call_tree(
        services,
        None,
        identity,
        caller,
        lambda component: durable_catalog(services).names(component),
        lambda component: durable_catalog(services).table_numbers(component),
    )
    tree.services = attrs.evolve(services.calls, nested_runner=runner)
    tree.on_lines = lines.running
    tree.streams = streams
    return tree


async def run_action(
    application: Application,
    path: str,
    args: bytes,
    identity: Identity,
    caller: Caller,
    *,
    component_path: str | None = None,
    internal: bool = False,
    depth: int = 0,
) -> CallResult:
    """Run an action, in the default runtime or in Node.

    :param args: JSON text of an object or of an array of one.
    :param internal: the call comes from server code: internal functions are open.
    :param depth: number of actions around this one.
    :raises BadRequest: the path cannot be parsed. :raises Overloaded: it was not started.
    Cancelling ends the action.
    """
    services: Services = application.services
    wanted = calls.target(path, component_path, identity)
    if internal:
        wanted = calls.Target(wanted.path, wanted.component_path, True)
    database = services.database
    try:
        if caller.source not in calls.INSIDE_SOURCES:
            services.deployment_state.check(None)
        prepared = await calls.prepare(services, None, wanted, args, "action")
        if prepared.function.node and len(prepared.args) > MAX_NODE_BYTES:
            raise FunctionFailed(FunctionError(NODE_ARGUMENTS_TEXT))
    except ConvexError as error:
        failure = calls.function_error(error)
        return calls.call_result(services, identity, caller, database.committer.durable_ts, None, failure, ())
    execution_id = calls.new_request_id()
    runner = ActionCalls(application, identity, caller, execution_id, depth)
    lines = ActionLines(
        services.function_log,
        "action",
        wanted.component_path,
        wanted.path.stripped,
        caller.request_id,
        execution_id,
    )

    def make_host() -> CallContext:
        tree = action_tree(services, identity, caller, runner, lines, CallStreams())
        return CallContext(
            tree, prepared.function, prepared.environment, services.syscalls, args_bytes=len(prepared.args)
        )

    spec = calls.spec_of(
        services,
        prepared,
        durable_catalog(services).table_numbers(prepared.function.component),
        caller,
        timeout_seconds=services.settings.action_timeout_seconds,
        admitted=depth > 0,
    )
    started = services.now_ns()
    if prepared.function.node:
        assert services.node is not None, "a push of Node actions has been accepted"
        outcome = await services.node.run(spec, make_host)
    else:
        outcome = await services.actions.run(spec, make_host)
    lines.ended(outcome.log_lines)
    services.function_log.record_completion(
        kind="action",
        component_path=wanted.component_path,
        path=wanted.path.stripped,
        log_lines=(),
        seconds=(services.now_ns() - started) / 1e9,
        error=None if outcome.error is None else outcome.error.message,
        request_id=caller.request_id,
        execution_id=execution_id,
        parent_execution_id=caller.parent_execution_id,
        source=caller.source,
        identity_type=identity.log_name,
        cached=False,
        return_bytes=None if outcome.value is None else len(outcome.value),
    )
    return calls.call_result(
        services,
        identity,
        caller,
        database.committer.durable_ts,
        outcome.value,
        outcome.error,
        outcome.log_lines,
    )
