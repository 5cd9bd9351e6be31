"""File storage as running functions reach it. Implemented in layer 4. Source: ``runtime.md`` section 9.6."""

from __future__ import annotations

from typing import Any, Protocol


class IncomingFile(Protocol):
    """A file on its way in.

    :ivar hold: called with ``True`` when too much waits for the disk, with ``False`` when more may come.
    """

    hold: Any

    def feed(self, data: bytes) -> None:
        """More bytes; after a failure they are dropped, and :meth:`finish` tells."""

    async def finish(self) -> Any:
        """All bytes have come; shield it. :returns: the file, with its ``document_id``.

        :raises ConvexError: what was wrong with it.
        """

    def abort(self) -> None:
        """Leave nothing behind; does nothing once :meth:`finish` has been called."""


class OutgoingFile(Protocol):
    """A file on its way out.

    :ivar file: ``size`` in bytes, ``content_type`` or ``None``.
    """

    @property
    def file(self) -> Any:
        """See the class."""

    async def read(self, offset: int, count: int) -> bytes:
        """At most *count* bytes from *offset* on."""

    def close(self) -> None:
        """Let go of it."""


class FileService(Protocol):
    """What functions may do with files of their component.

    *transaction* is that of the call tree, or ``None`` in an action: then each operation is a transaction of its own. *storage_id* is what the
    function gave; one that can be no file's name raises ``BadRequest`` with the cause as its text.
    """

    def upload_url(self, component: int) -> str:
        """A URL for one hour of uploads."""

    async def url(self, transaction: Any, component: int, storage_id: str) -> str | None:
        """The URL of a file."""

    async def metadata(self, transaction: Any, component: int, storage_id: str) -> dict[str, Any] | None:
        """``{storageId, sha256, size, contentType}``."""

    async def delete(self, transaction: Any, component: int, storage_id: str) -> bool:
        """:returns: whether there was such a file."""

    async def store(
        self, transaction: Any, component: int, data: bytes, content_type: str | None, sha256: str | None
    ) -> str:
        """:returns: the new file's id."""

    async def load(
        self, transaction: Any, component: int, storage_id: str, max_bytes: int
    ) -> tuple[bytes, str | None] | None:
        """Content and content type."""

    def begin_store(self, component: int, content_type: str | None, sha256: str | None) -> IncomingFile:
        """A new file that comes in pieces."""

    async def open(self, component: int, storage_id: str) -> OutgoingFile | None:
        """A file that goes out in pieces."""
