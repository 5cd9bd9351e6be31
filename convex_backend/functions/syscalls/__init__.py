"""Dispatch of asynchronous syscalls: name and kind of function to the coroutine that answers.

Each family has a file; each file starts with the names and JSON shapes that it answers. Source: ``runtime.md`` sections 2.2 and 2.3.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import orjson

from convex_backend.errors import BadRequest
from convex_backend.interfaces import SyscallReply

if TYPE_CHECKING:
    from convex_backend.functions.context import CallContext

Handler: TypeAlias = "Callable[[CallContext, bytes], Coroutine[Any, Any, SyscallReply]]"

QUERY = "query"
MUTATION = "mutation"
ACTION = "action"
HTTP_ACTION = "httpAction"
Q_M = frozenset({QUERY, MUTATION})
M = frozenset({MUTATION})
A_H = frozenset({ACTION, HTTP_ACTION})
ALL = Q_M | A_H
NULL = SyscallReply(b"null")


@attrs.frozen(slots=True, eq=False)
class Syscall:
    """One row of the table: ``name``, the ``kinds`` of functions that may call it, and its ``handler``."""

    name: str
    kinds: frozenset[str]
    handler: Handler


def syscall(name: str, kinds: frozenset[str]) -> Callable[[Handler], Syscall]:
    """Decorate the coroutine function ``(context, args JSON text) -> SyscallReply`` that answers *name*."""

    def decorate(handler: Handler) -> Syscall:
        return Syscall(name, kinds, handler)

    return decorate


class SyscallTable:
    """All syscalls, by kind of function and name. Immutable after it is built.

    :param opener: what makes an open query of ``1.0/queryStream``.
    """

    def __init__(self, rows: Iterable[Syscall], opener: Callable[[CallContext, int, bytes], None]) -> None:
        self._by_kind: dict[str, dict[str, Handler]] = {kind: {} for kind in sorted(ALL)}
        self.open_query = opener
        for row in rows:
            for kind in row.kinds:
                if row.name in self._by_kind[kind]:
                    raise ValueError(f"two handlers for {row.name} in {kind}")
                self._by_kind[kind][row.name] = row.handler

    def handler(self, name: str, kind: str) -> Handler:
        """:raises BadRequest: there is no such syscall for this kind of function."""
        found = self._by_kind[kind].get(name)
        if found is None:
            raise BadRequest("UnknownOperation", f"Unknown async operation {name}")
        return found

    def names(self, kind: str) -> frozenset[str]:
        """The names that functions of *kind* may call."""
        return frozenset(self._by_kind[kind])


def parse(args: bytes) -> dict[str, Any]:
    """The argument object of a syscall.

    :raises BadRequest: not JSON, or no object.
    """
    try:
        tree = orjson.loads(args)
    except orjson.JSONDecodeError as error:
        raise BadRequest("InvalidJson", f"Received invalid json: {error}") from None
    if type(tree) is not dict:
        raise BadRequest("InvalidJson", "Received invalid json: expected an object")
    return tree


def invalid_argument(name: str, call: str, cause: object) -> BadRequest:
    """The error of one bad argument of *call*."""
    return BadRequest("InvalidArgument", f"Invalid argument `{name}` for `{call}`: {cause}")


def invalid_arguments(call: str, cause: object) -> BadRequest:
    """The error of bad arguments of *call*."""
    return BadRequest("InvalidArgument", f"Invalid arguments for `{call}`: {cause}")


def text_argument(tree: dict[str, Any], name: str, call: str) -> str:
    """A required text. :raises BadRequest: it is missing or no text."""
    value = tree.get(name)
    if type(value) is not str:
        raise missing(tree, name, call, "a string")
    return value


def optional_text(tree: dict[str, Any], name: str, call: str) -> str | None:
    """A text that may be missing or null. :raises BadRequest: it is something else."""
    value = tree.get(name)
    if value is not None and type(value) is not str:
        raise invalid_argument(name, call, "expected a string")
    return value


def missing(tree: dict[str, Any], name: str, call: str, expected: str) -> BadRequest:
    """The error of a required argument that is absent or of the wrong type."""
    if name not in tree:
        return invalid_arguments(call, f"missing field `{name}`")
    return invalid_argument(name, call, f"expected {expected}")


def full_table() -> SyscallTable:
    """The table of this version."""
    from convex_backend.functions.syscalls import auth, db, metadata, nested, scheduler, storage, unavailable

    families = (db, nested, auth, metadata, scheduler, storage, unavailable)
    return SyscallTable([row for family in families for row in family.SYSCALLS], db.open_query)
