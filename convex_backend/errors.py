"""The error tree: what can go wrong, without any word of HTTP or WebSocket.

Every error has a ``code`` (a CamelCase string that clients may match on) and a ``message`` for the developer. ``web/errors.py``
holds the only table from class to HTTP status; ``sync/protocol.py`` prints the same pair on the socket.
Source: ``http_api.md`` section 2.1, ``runtime.md`` section 2.2.
"""

from __future__ import annotations


class ConvexError(Exception):
    """Base of all errors that may reach a client.

    :param code: short CamelCase code, for instance ``BadJsonBody``.
    :param message: text for the developer, without a trace.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


class BadRequest(ConvexError):
    """The caller sent something wrong; the same request will fail again."""


class PaginationLimit(BadRequest):
    """A transaction limit was met (``runtime.md`` section 8.6); catchable in user code."""


class TooLarge(BadRequest):
    """A body or value is over its limit."""


class Unauthenticated(ConvexError):
    """The credentials are missing or not valid."""


class Forbidden(ConvexError):
    """The credentials are valid, but do not allow this."""


class NotFound(ConvexError):
    """The thing named does not exist."""


class Conflict(ConvexError):
    """The request contradicts the present state (HTTP 409)."""


class Transient(ConvexError):
    """Base of what may succeed when tried again: never a function's own error."""


class OccConflict(Transient):
    """A commit's read set was overtaken by another commit.

    :param table: name of the table of the first conflicting document, or ``None``.
    :param document_id: its id as text, or ``None``.
    :param writer: path of the function that wrote it, or ``None``.
    """

    def __init__(self, table: str | None = None, document_id: str | None = None, writer: str | None = None) -> None:
        self.table = table
        self.document_id = document_id
        self.writer = writer
        where = f'the "{table}" table' if table else "some table"
        who = f'{writer} changed the document with ID "{document_id}". ' if writer and document_id else ""
        super().__init__(
            "OptimisticConcurrencyControlFailure",
            f"Documents read from or written to {where} changed while this mutation was being run and on every "
            f"subsequent retry. {who}See https://docs.convex.dev/error#1",
        )


class Rerun(Transient):
    """Raised inside a running mutation whose snapshot can no longer be used; it is run again from the start.

    Never leaves ``application/run_mutation.py``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("Rerun", reason)


class SnapshotMoved(Rerun):
    """A mutation has told its snapshot's timestamp (``getSnapshotTs``) and then read at another one. Never leaves ``run_mutation.py`` either."""

    def __init__(self) -> None:
        super().__init__("The snapshot whose timestamp was told is not the one that was read.")


class RefusedLate(Rerun):
    """A write was answered before it was carried out, and then refused: the mutation is run again with each answer after its work."""

    def __init__(self) -> None:
        super().__init__("A write that had been answered was refused.")


class Overloaded(Transient):
    """A bounded queue is full or the server is stopping; ``code`` says which."""


class OutOfRetention(Transient):
    """A read at a timestamp older than the retained history."""

    def __init__(self, message: str = "Snapshot is too old: it is no longer retained.") -> None:
        super().__init__("OutOfRetention", message)


class RateLimited(ConvexError):
    """The caller asked too often."""


class ServerFault(ConvexError):
    """Something broke on our side; clients get a fixed text, the log gets the cause."""

    MESSAGE = "Your request couldn't be completed. Try again later."

    def __init__(self, message: str = MESSAGE) -> None:
        super().__init__("InternalServerError", message)


class StorageFailed(ServerFault):
    """A group of commits could not be written; nothing of it was acknowledged (A5)."""
