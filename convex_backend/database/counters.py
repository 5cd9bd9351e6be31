"""What a transaction has read and written, against its limits.

Sizes are those of ``values.limits.size_of``. Measuring one costs a decode, so documents that were read are kept by reference and measured only
when the exact sum can matter: a document's size is never more than :data:`SIZE_PER_JSON_BYTE` times its JSON text (the worst is an array of
one-digit numbers: nine bytes for two characters).

Source: ``runtime.md`` section 8.6.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import attrs

from convex_backend.errors import PaginationLimit
from convex_backend.values.json_codec import loads
from convex_backend.values.limits import format_bytes, size_of

SIZE_PER_JSON_BYTE: Final = 5

_HELP: Final = (
    "Consider using smaller limits in your queries, paginating your queries, or using indexed queries with a selective "
    "index range expressions."
)


def document_size(json: bytes) -> int:
    """The size of a stored document."""
    return size_of(loads(json, allow_commit_ts=True))


@attrs.frozen(slots=True)
class TransactionLimits:
    """Ceilings of one call tree, or of a nested call inside it (absolute counts)."""

    documents_read: int = 32_000
    bytes_read: int = 16 << 20
    database_queries: int = 4096
    documents_written: int = 16_000
    bytes_written: int = 16 << 20
    functions_scheduled: int = 1000
    scheduled_bytes: int = 16 << 20
    files_written: int = 1000
    file_write_bytes: int = 16 << 20
    files_read: int = 1000
    file_read_bytes: int = 16 << 20


_METRICS: Final[dict[str, str]] = {
    "bytesRead": "bytes_read",
    "bytesWritten": "bytes_written",
    "databaseQueries": "database_queries",
    "documentsRead": "documents_read",
    "documentsWritten": "documents_written",
    "functionsScheduled": "functions_scheduled",
    "scheduledFunctionArgsBytes": "scheduled_bytes",
    # Named by npm 1.48; their ceilings are ours: a file of a mutation is held in memory.
    "filesWritten": "files_written",
    "fileWriteBytes": "file_write_bytes",
    "filesRead": "files_read",
    "fileReadBytes": "file_read_bytes",
}


class Counters:
    """The counters of one transaction and its present ceilings.

    Counting comes first and the check after it, so that a call that met a limit has been counted (``remaining`` may be negative).
    """

    __slots__ = (
        "_json_read",
        "_measured",
        "_unmeasured",
        "bytes_written",
        "database_queries",
        "documents_read",
        "documents_written",
        "file_read_bytes",
        "file_write_bytes",
        "files_read",
        "files_written",
        "functions_scheduled",
        "limits",
        "scheduled_bytes",
    )

    def __init__(self, limits: TransactionLimits | None = None) -> None:
        self.limits = limits if limits is not None else TransactionLimits()
        self.documents_read = 0
        self.database_queries = 0
        self.documents_written = 0
        self.bytes_written = 0
        self.functions_scheduled = 0
        self.scheduled_bytes = 0
        self.files_written = 0
        self.file_write_bytes = 0
        self.files_read = 0
        self.file_read_bytes = 0
        self._measured = 0
        self._json_read = 0
        self._unmeasured: list[bytes] = []

    def copy(self) -> Counters:
        """Counters that have come as far and go on by themselves."""
        made = Counters(self.limits)
        for name in self.__slots__:
            setattr(made, name, getattr(self, name))
        made._unmeasured = list(self._unmeasured)
        return made

    @property
    def bytes_read(self) -> int:
        """The exact size of all documents read so far."""
        if self._unmeasured:
            self._measured += sum(map(document_size, self._unmeasured))
            self._unmeasured.clear()
            self._json_read = 0
        return self._measured

    @property
    def bytes_read_bound(self) -> int:
        """Not less than :attr:`bytes_read`, and free."""
        return self._measured + self._json_read * SIZE_PER_JSON_BYTE

    def read(self, json: bytes) -> None:
        """Count one document that an index walk or a get gave."""
        self.documents_read += 1
        self._json_read += len(json)
        self._unmeasured.append(json)

    def read_all(self, documents: Collection[bytes]) -> None:
        """Count several documents."""
        self.documents_read += len(documents)
        self._json_read += sum(map(len, documents))
        self._unmeasured.extend(documents)

    def check_read(self) -> None:
        """:raises PaginationLimit: when more documents or bytes were read than allowed."""
        limits = self.limits
        if self.documents_read > limits.documents_read:
            raise PaginationLimit(
                "TooManyDocumentsRead",
                f"Too many documents read in a single function execution (limit: {limits.documents_read}). {_HELP}",
            )
        if self.bytes_read_bound > limits.bytes_read and self.bytes_read > limits.bytes_read:
            raise PaginationLimit(
                "TooManyBytesRead",
                f"Too many bytes read in a single function execution (limit: {limits.bytes_read} bytes). {_HELP}",
            )

    def set_queries(self, count: int) -> None:
        """Take over the number of merged intervals read.

        :raises PaginationLimit: when there are too many.
        """
        self.database_queries = count
        if count > self.limits.database_queries:
            raise PaginationLimit(
                "TooManyReads",
                f"Too many reads in a single function execution (limit: {self.limits.database_queries}). {_HELP}",
            )

    def write(self, size: int) -> None:
        """Count one write of *size* bytes.

        :raises PaginationLimit: when there are too many, or too large ones.
        """
        self.documents_written += 1
        self.bytes_written += size
        limits = self.limits
        if self.documents_written > limits.documents_written:
            raise PaginationLimit(
                "TooManyWrites",
                f"Too many writes in a single function execution (limit: {limits.documents_written})",
            )
        if self.bytes_written > limits.bytes_written:
            raise PaginationLimit(
                "TooManyBytesWritten",
                f"Too many bytes written in a single function execution (limit: {format_bytes(limits.bytes_written)})",
            )

    def schedule(self, args_bytes: int) -> None:
        """Count one scheduled function.

        :raises PaginationLimit: when there are too many, or their arguments are too large.
        """
        self.functions_scheduled += 1
        self.scheduled_bytes += args_bytes
        limits = self.limits
        if self.functions_scheduled > limits.functions_scheduled:
            raise PaginationLimit(
                "TooManyFunctionsScheduled",
                f"Too many functions scheduled by this mutation (limit: {limits.functions_scheduled})",
            )
        if self.scheduled_bytes > limits.scheduled_bytes:
            raise PaginationLimit(
                "ScheduledFunctionsArgumentsTooLarge",
                "Too large total size of the arguments of scheduled functions from this mutation "
                f"(limit: {limits.scheduled_bytes} bytes)",
            )

    def write_file(self, size: int) -> None:
        """Count one stored file of *size* bytes.

        :raises PaginationLimit: when there are too many, or too large ones.
        """
        self.files_written += 1
        self.file_write_bytes += size
        self._check_files("stored", self.files_written, "files_written", self.file_write_bytes, "file_write_bytes")

    def read_file(self, size: int) -> None:
        """Count one file of *size* bytes that was read. :raises PaginationLimit: likewise."""
        self.files_read += 1
        self.file_read_bytes += size
        self._check_files("read", self.files_read, "files_read", self.file_read_bytes, "file_read_bytes")

    def _check_files(self, verb: str, count: int, count_limit: str, size: int, size_limit: str) -> None:
        most = getattr(self.limits, count_limit)
        if count > most:
            raise PaginationLimit(
                "TooManyFiles", f"Too many files {verb} in a single function execution (limit: {most})"
            )
        most = getattr(self.limits, size_limit)
        if size > most:
            raise PaginationLimit(
                "TooManyFileBytes",
                f"Too many bytes of files {verb} in a single function execution (limit: {format_bytes(most)})",
            )

    def lower(self, limits: Mapping[str, float]) -> TransactionLimits:
        """Lower the ceilings for a nested call, by names of ``getTransactionMetrics``; what is unknown or higher changes nothing.

        :returns: the ceilings before, to be set again as :attr:`limits` afterwards.
        """
        previous = self.limits
        lowered: dict[str, int] = {}
        for name, ceiling in limits.items():
            attribute = _METRICS.get(name)
            if attribute is not None:
                lowered[attribute] = min(getattr(previous, attribute), int(ceiling))
        self.limits = attrs.evolve(previous, **lowered)
        return previous

    def metrics(self) -> dict[str, dict[str, int]]:
        """The answer of ``1.0/getTransactionMetrics``."""
        answer = {}
        for name, attribute in _METRICS.items():
            used: int = getattr(self, attribute)
            answer[name] = {"used": used, "remaining": getattr(self.limits, attribute) - used}
        return answer

    def left(self) -> tuple[int, int]:
        """How many more documents, and bytes of their JSON text, may surely be read."""
        documents = max(0, self.limits.documents_read - self.documents_read)
        return documents, max(0, (self.limits.bytes_read - self.bytes_read_bound) // SIZE_PER_JSON_BYTE)
