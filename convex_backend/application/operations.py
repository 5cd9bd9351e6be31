"""What a key allows: the operations of a deployment and who may do them. Source: ``admin_keys.md`` section 5."""

from __future__ import annotations

from typing import Final

from convex_backend.application.types import Identity
from convex_backend.errors import Forbidden

OPERATIONS: Final = (
    "Deploy",
    "ViewEnvironmentVariables",
    "WriteEnvironmentVariables",
    "PauseDeployment",
    "UnpauseDeployment",
    "ViewLogs",
    "ViewMetrics",
    "ViewIntegrations",
    "WriteIntegrations",
    "ViewData",
    "WriteData",
    "ViewBackups",
    "CreateBackups",
    "DownloadBackups",
    "DeleteBackups",
    "ImportBackups",
    "ActAsUser",
    "RunInternalQueries",
    "RunInternalMutations",
    "RunInternalActions",
    "RunTestQuery",
    "ViewAuditLog",
    "ViewUsageLimits",
    "WriteUsageLimits",
    "ViewUsage",
)
"""Every operation that a key may allow (``admin_keys.md`` section 5)."""

READ_ONLY_OPERATIONS: Final = (
    "ViewEnvironmentVariables",
    "ViewLogs",
    "ViewMetrics",
    "ViewIntegrations",
    "ViewData",
    "ViewBackups",
    "DownloadBackups",
    "RunInternalQueries",
    "RunTestQuery",
    "ViewAuditLog",
    "ViewUsageLimits",
    "ViewUsage",
)
"""What a read-only admin key allows (``admin_keys.md`` section 5)."""


def allowed_operations(identity: Identity) -> tuple[str, ...]:
    """The operations that *identity* may do, in the order of :data:`OPERATIONS`."""
    if not identity.is_admin:
        return ()
    return READ_ONLY_OPERATIONS if identity.read_only else OPERATIONS


def check_operation(identity: Identity, operation: str) -> None:
    """Refuse what the key of *identity* does not allow (``http_api.md`` section 2.3).

    :param operation: one of :data:`OPERATIONS`.
    :raises Forbidden: ``OperationNotPermitted``.
    """
    if operation not in allowed_operations(identity):
        raise Forbidden("OperationNotPermitted", f"You do not have permission to perform this operation ({operation}).")
