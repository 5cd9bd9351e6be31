"""Who calls, and tokens of the deployment's own (``runtime.md`` section 9.7).

==========================  =====  ===================================================  =========================
name                        kinds  arguments                                            answer
==========================  =====  ===================================================  =========================
``1.0/getUserIdentity``     all    ``{requestId}``                                      identity object or ``null``
``1.0/signJwt``             M      ``{requestId, version, claims?, expiresInSeconds}``  the token, a string
``1.0/createServiceToken``  A H    ``{service, version}``                               an error
``1.0/getServiceUrl``       A H    ``{service, version}``                               an error
==========================  =====  ===================================================  =========================

The last two are for services that Convex runs beside its cloud (``ai-gateway``): a deployment of one's own has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from convex_backend.errors import BadRequest
from convex_backend.functions.syscalls import A_H, ALL, M, Syscall, parse, syscall, text_argument
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


@syscall("1.0/signJwt", M)
async def sign_jwt(context: CallContext, args: bytes) -> SyscallReply:
    """A JWT of this deployment, issued by the component whose function asks."""
    tree = parse(args)
    signer = context.tree.services.signer
    if signer is None:
        raise BadRequest("NotAvailable", "This server has no key to sign JWTs with.")
    token = await signer.sign(context.function.component_path, tree.get("claims"), tree.get("expiresInSeconds"))
    return SyscallReply(orjson.dumps(token))


async def _no_managed_service(context: CallContext, args: bytes) -> SyscallReply:
    service = text_argument(parse(args), "service", "getServiceToken")
    raise BadRequest(
        "ServiceNotAvailable",
        f"The Convex-managed service '{service}' is not available: this deployment is self-hosted.",
    )


SYSCALLS: tuple[Syscall, ...] = (
    get_user_identity,
    sign_jwt,
    Syscall("1.0/createServiceToken", A_H, _no_managed_service),
    Syscall("1.0/getServiceUrl", A_H, _no_managed_service),
)
