"""How a connection ends: the last message, the close code and the reason (``sync.md`` section 1.4).

The only table from error class to close frame.
"""

from __future__ import annotations

from typing import Final

import attrs

from convex_backend.errors import (
    BadRequest,
    ConvexError,
    Forbidden,
    PaginationLimit,
    RateLimited,
    ServerFault,
    StorageFailed,
    Transient,
    Unauthenticated,
)
from convex_backend.sync import messages

#: A close frame's payload is at most 125 bytes, two of which are the code.
MAX_REASON_BYTES: Final = 123
TOKEN_EXPIRED: Final = "Convex token identity expired"


@attrs.frozen(slots=True)
class Close:
    """End the connection.

    :param message: sent before the close frame, or ``None``.
    :param code: close code, or ``None`` for an empty close frame.
    :param reason: short error code; cut to 123 bytes.
    """

    message: bytes | None = None
    code: int | None = None
    reason: str = ""

    @property
    def reason_bytes(self) -> bytes:
        """The reason as it fits into a close frame."""
        return self.reason.encode()[:MAX_REASON_BYTES].decode("utf-8", "ignore").encode()


INTERNAL: Final = Close(code=1011, reason=ServerFault().code)
SILENT_PEER: Final = Close(code=1000, reason="ClientDisconnected")
MUTATIONS_FULL: Final = Close(code=1013, reason="TooManyConcurrentMutations")
ACTIONS_FULL: Final = Close(code=1013, reason="TooManyInflightActionsForSingleClient")
TOO_BIG: Final = Close(code=1009, reason="MessageTooBig")


def fatal(text: str) -> Close:
    """The client broke the protocol: ``FatalError`` and an empty close frame."""
    return Close(messages.fatal_error(text))


def unauthenticated(text: str, base_version: int, *, update_attempted: bool) -> Close:
    """``AuthError`` and an empty close frame (``sync.md`` sections 6.2, 6.3).

    :param base_version: identity version of the last Transition sent.
    :param update_attempted: the token came with the ``Authenticate`` that is being answered.
    """
    return Close(messages.auth_error(text, base_version, update_attempted))


def for_error(error: Exception, base_version: int) -> Close:
    """How *error* ends a connection; what is not listed is :data:`INTERNAL`.

    :param base_version: see :func:`unauthenticated`.
    """
    match error:
        case PaginationLimit() | Forbidden():
            return Close(messages.fatal_error(error.message), 1000, error.code)
        case BadRequest():
            return fatal(error.message)
        case Unauthenticated():
            return unauthenticated(error.message, base_version, update_attempted=False)
        case Transient() | RateLimited():
            return Close(code=1013, reason=error.code)
        case _:
            return INTERNAL


def is_expected(error: Exception) -> bool:
    """Whether *error* is a condition that has a name, not a fault to be logged; of a failed write the committer has told."""
    return isinstance(error, StorageFailed) or (isinstance(error, ConvexError) and not isinstance(error, ServerFault))
