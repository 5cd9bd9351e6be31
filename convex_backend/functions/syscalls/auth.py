"""``1.0/getUserIdentity`` ``{requestId}`` -> identity object or ``null`` (all kinds): who calls (``runtime.md`` section 9.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convex_backend.functions.syscalls import ALL, Syscall, parse, syscall
from convex_backend.interfaces import SyscallReply

if TYPE_CHECKING:
    from convex_backend.functions.context import CallContext


@syscall("1.0/getUserIdentity", ALL)
async def get_user_identity(context: CallContext, args: bytes) -> SyscallReply:
    """The caller's identity; the result now depends on it."""
    parse(args)
    tree = context.tree
    tree.identity_observed = True
    if tree.identity_error is not None:
        raise tree.identity_error
    return SyscallReply(tree.identity)


SYSCALLS: tuple[Syscall, ...] = (get_user_identity,)
