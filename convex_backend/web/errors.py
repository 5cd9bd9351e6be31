"""The only table from error class to HTTP status, and the body of every error (``http_api.md`` section 2.1)."""

from __future__ import annotations

import orjson

from convex_backend.errors import (
    BadRequest,
    Conflict,
    ConvexError,
    Forbidden,
    NotFound,
    RateLimited,
    ServerFault,
    TooLarge,
    Transient,
    Unauthenticated,
)

#: The first class that fits decides.
STATUS: tuple[tuple[type[ConvexError], int], ...] = (
    (TooLarge, 413),
    (BadRequest, 400),
    (Unauthenticated, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (RateLimited, 429),
    (Transient, 503),
    (ServerFault, 500),
)


def status_of(error: ConvexError) -> int:
    """The HTTP status of *error*."""
    for kind, status in STATUS:
        if isinstance(error, kind):
            return status
    return 500


def error_body(error: ConvexError) -> bytes:
    """``{"code":…,"message":…}``; an internal fault shows nothing of its cause."""
    message = ServerFault.MESSAGE if isinstance(error, ServerFault) else error.message
    return orjson.dumps({"code": error.code, "message": message})
