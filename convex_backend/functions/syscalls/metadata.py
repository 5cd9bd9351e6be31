"""What a function may ask about itself and its surroundings.

===============================  ======  ==========================================================================
name                             kinds   answer
===============================  ======  ==========================================================================
``1.0/getFunctionMetadata``      all     ``{name, componentPath}``
``1.0/getTransactionMetrics``    Q M     ``{bytesRead: {used, remaining}, …}``
``1.0/getDeploymentMetadata``    all     ``{name, region, class}``
``1.0/getRequestMetadata``       M A H   ``{ip, userAgent, requestId, scheduledFunctionId, authToken}``
===============================  ======  ==========================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from convex_backend.errors import BadRequest
from convex_backend.functions.syscalls import A_H, ALL, Q_M, QUERY, M, Syscall, syscall
from convex_backend.interfaces import SyscallReply

if TYPE_CHECKING:
    from convex_backend.functions.context import CallContext


@syscall("1.0/getFunctionMetadata", ALL)
async def get_function_metadata(context: CallContext, args: bytes) -> SyscallReply:
    """Name and component of the running function."""
    function = context.function
    return SyscallReply(orjson.dumps({"name": function.path.stripped, "componentPath": function.component_path}))


@syscall("1.0/getTransactionMetrics", Q_M)
async def get_transaction_metrics(context: CallContext, args: bytes) -> SyscallReply:
    """What the call tree has used of its transaction's limits."""
    return SyscallReply(orjson.dumps(context.documents.metrics()))


@syscall("1.0/getDeploymentMetadata", ALL)
async def get_deployment_metadata(context: CallContext, args: bytes) -> SyscallReply:
    """The deployment."""
    info = context.tree.services.deployment
    return SyscallReply(orjson.dumps({"name": info.name, "region": info.region, "class": info.deployment_class}))


@syscall("1.0/getRequestMetadata", M | A_H)
async def get_request_metadata(context: CallContext, args: bytes) -> SyscallReply:
    """The request that led to this call."""
    info = context.tree.request
    return SyscallReply(
        orjson.dumps(
            {
                "ip": info.ip,
                "userAgent": info.user_agent,
                "requestId": info.request_id,
                "scheduledFunctionId": info.scheduled_function_id,
                "authToken": info.auth_token,
            }
        )
    )


@syscall("1.0/getRequestMetadata", frozenset({QUERY}))
async def refuse_request_metadata(context: CallContext, args: bytes) -> SyscallReply:
    """A query's result must not depend on the request."""
    raise BadRequest("RequestMetadataInQuery", "Cannot get request metadata in a Query")


SYSCALLS: tuple[Syscall, ...] = (
    get_function_metadata,
    get_transaction_metrics,
    get_deployment_metadata,
    get_request_metadata,
    refuse_request_metadata,
)
