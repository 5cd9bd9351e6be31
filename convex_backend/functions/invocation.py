"""From a resolved function and the caller's arguments to a :class:`CallSpec`; the check of what comes back.

Used for root calls by the use cases and for nested calls here. Source: ``runtime.md`` sections 1.4, 2.3, 4.7, 9.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from convex_backend.errors import BadRequest, ConvexError
from convex_backend.functions.directory import Environment, ResolvedFunction
from convex_backend.functions.limits import MAX_ARGUMENT_BYTES, MAX_RESULT_BYTES, WARN_SHARE
from convex_backend.functions.outcome import FunctionFailed
from convex_backend.interfaces import CallSpec, FunctionError, Outcome
from convex_backend.values.commit_ts import MARK, holds_commit_ts
from convex_backend.values.json_codec import loads
from convex_backend.values.limits import arguments_size_error, result_size_error, size_of
from convex_backend.values.validators import TableNames, validate_args, validate_returns

SIZE_PER_TEXT = 5
"""A value's size is less than this many times the bytes of its JSON text (a number's 9 bytes may be ``1,``)."""


def normalise_args(args: bytes) -> bytes:
    """JSON text of the array of positional arguments: an object is the only argument, an array is taken as it is."""
    stripped = args.lstrip()
    if stripped[:1] == b"[":
        return args
    return b"[" + (stripped or b"{}") + b"]"


def check_args(function: ResolvedFunction, args: bytes, names: TableNames, *, allow_commit_ts: bool = False) -> None:
    """Check the normalised *args* of a call.

    :param names: table names of the function's component.
    :param allow_commit_ts: the call comes from within a mutation, whose unresolved commit timestamp may be part of them.
    :raises FunctionFailed: they are no values, too large, or do not match the validator; the text has no prefix and no frames.
    """
    try:
        values = loads(args, allow_commit_ts=allow_commit_ts)
    except BadRequest as error:
        raise FunctionFailed(FunctionError(f"Invalid arguments for {function.path.stripped}: {error}")) from None
    # A value's size is at most a few times that of its text: small texts need no count.
    text: str | None = None
    if len(args) * SIZE_PER_TEXT > MAX_ARGUMENT_BYTES:
        text = arguments_size_error(function.path.canonical, size_of(values))
    if text is None and function.args is not None:
        text = validate_args(function.args, values, names)
    if text is not None:
        raise FunctionFailed(FunctionError(text))


def check_returns(
    function: ResolvedFunction,
    outcome: Outcome,
    names: Callable[[int], TableNames],
    *,
    allow_commit_ts: bool = False,
) -> tuple[Outcome, int]:
    """Check the value of a successful run.

    :param names: table names of a component by its id; asked only when there is a validator.
    :param allow_commit_ts: the function is, or is called by, a mutation, at whose commit the placeholder is resolved.
    :returns: the outcome, a failed one when the value is too large or does not match, and the value's size when it may be near
        the limit, else 0.
    """
    text = outcome.value
    if text is None:
        return outcome, 0
    large = len(text) * SIZE_PER_TEXT > MAX_RESULT_BYTES * WARN_SHARE
    unresolved = MARK in text
    if function.returns is None and not large and not unresolved:
        return outcome, 0
    size = 0
    message: str | None = None
    try:
        value = loads(text, allow_commit_ts=allow_commit_ts or function.kind == "query")
        if unresolved and not allow_commit_ts and holds_commit_ts(value):
            raise BadRequest("FunctionReturnInvalid", "queries cannot return an unresolved commit timestamp")
    except ConvexError as error:
        message = f"Function {function.path.canonical} return value invalid: {error}"
    else:
        if large:
            size = size_of(value)
            message = result_size_error(function.path.canonical, size)
        if message is None and function.returns is not None:
            message = validate_returns(function.returns, value, names(function.component))
    if message is None:
        return outcome, size
    return attrs.evolve(outcome, value=None, error=FunctionError(message)), 0


def make_spec(
    function: ResolvedFunction,
    args: bytes,
    *,
    seed: bytes,
    now_ms: int,
    request_id: str,
    environment: Environment,
    tables: Mapping[str, int],
    timeout_seconds: float,
    admitted: bool = False,
    ahead: bool = False,
) -> CallSpec:
    """The call of *function* with checked, normalised *args*; see :class:`CallSpec` for the parameters."""
    return CallSpec(
        kind=function.kind,
        module=function.path.module,
        export=function.path.name,
        args=args,
        closure=function.closure,
        seed=seed,
        now_ms=now_ms,
        import_seed=function.import_seed,
        import_ms=function.import_ms,
        env=dict(environment.variables),
        env_version=environment.version,
        request_id=request_id,
        timeout_seconds=timeout_seconds,
        component=function.component_path,
        component_arguments=environment.arguments,
        tables=tables,
        admitted=admitted,
        reuse_context=function.reuse_context,
        realm=function.realm,
        ahead=ahead,
    )
