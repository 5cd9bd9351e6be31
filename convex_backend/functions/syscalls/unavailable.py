"""Syscalls of services that this version does not have: a user error that names the service, so that nobody hunts a bug in their own code.

The names are those of ``runtime.md`` section 2.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from convex_backend.errors import BadRequest
from convex_backend.functions.syscalls import A_H, Q_M, Handler, Syscall
from convex_backend.interfaces import SyscallReply

if TYPE_CHECKING:
    from convex_backend.functions.context import CallContext

SERVICES: tuple[tuple[str, frozenset[str], str], ...] = (
    ("1.0/actions/vectorSearch", A_H, "Vector search is"),
    ("1.0/auditLog", Q_M, "Audit logging is"),
)


def unavailable(service: str) -> BadRequest:
    """The error of a call to *service* (with its verb: ``File storage is``)."""
    return BadRequest("NotAvailable", f"{service} not available in this version of convex-backend yet.")


def _refusal(service: str) -> Handler:
    async def refuse(context: CallContext, args: bytes) -> SyscallReply:
        raise unavailable(service)

    return refuse


async def _refuse_audit_log(context: CallContext, args: bytes) -> SyscallReply:
    raise BadRequest("AuditLogInAction", "Audit logging is not yet supported in actions")


SYSCALLS: tuple[Syscall, ...] = (
    *(Syscall(name, kinds, _refusal(service)) for name, kinds, service in SERVICES),
    Syscall("1.0/auditLog", A_H, _refuse_audit_log),
)
