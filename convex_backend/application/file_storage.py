"""File storage: upload URLs, files in and out, and what functions may do with them.

::

    generateUploadUrl ─► token {component, issued} ─► POST of bytes ─► blob on the disk ─► rows, one commit ─► _storage id
    getUrl ─► /api/storage/<uuid> ─► row at the newest durable timestamp ─► blob

A file exists when its rows are committed; the blob comes before the commit and goes some time after the rows (``file_collector.py``).
Every operation of a function takes its transaction, or ``None`` in an action, where each is a transaction of its own.
Source: ``runtime.md`` section 9.6, ``http_api.md`` section 5.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import attrs
from prometheus_client import CollectorRegistry, Counter, Gauge
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from convex_backend.application import file_records
from convex_backend.application.components import component_with_identifier
from convex_backend.application.file_collector import FileCollector
from convex_backend.application.file_records import FileRecord
from convex_backend.application.file_uploads import Upload
from convex_backend.application.sealing import BrokenSeal, Sealer
from convex_backend.application.system_commit import commit_in, read_in
from convex_backend.database.system_tables import ROOT_COMPONENT
from convex_backend.deferreds import shield
from convex_backend.errors import BadRequest, ConvexError, NotFound, Overloaded, Unauthenticated
from convex_backend.interfaces import IBlobReader, IBlobStore, IBlobWriter, StoredBlob

if TYPE_CHECKING:
    from convex_backend.database.database import Database
    from convex_backend.database.transaction import Transaction

#: How long an upload URL may be used, seconds; any number of times.
TOKEN_SECONDS: Final = 3600
#: Uploads of clients at once; each may have a megabyte before the disk.
MAX_UPLOADS: Final = 1000
#: An issue time further in the future than this is not ours.
_SKEW_SECONDS: Final = 300
_PURPOSE: Final = "storage-upload"
_WRITER: Final = "file storage"
_READ_BYTES: Final = 1024 * 1024


@attrs.define(slots=True, eq=False)
class FileMetrics:
    """What went in and out."""

    received_bytes: Counter
    sent_bytes: Counter
    stored: Counter
    deleted: Counter
    collected: Counter
    uploads: Gauge

    @classmethod
    def of(cls, registry: CollectorRegistry) -> FileMetrics:
        """Metrics of one server."""
        return cls(
            Counter("convex_files_received_bytes_total", "Bytes of files that came in.", registry=registry),
            Counter("convex_files_sent_bytes_total", "Bytes of files that went out.", registry=registry),
            Counter("convex_files_stored_total", "Files stored.", registry=registry),
            Counter("convex_files_deleted_total", "Files deleted by functions and by the API.", registry=registry),
            Counter("convex_files_collected_total", "Contents removed that no file has any more.", registry=registry),
            Gauge("convex_files_uploads", "Uploads under way.", registry=registry),
        )


@attrs.frozen(slots=True, eq=False)
class Download:
    """A file whose content may be read, whatever happens to its rows meanwhile; :meth:`close` it."""

    file: FileRecord
    _reader: IBlobReader
    _sent: Callable[[int], None]

    async def read(self, offset: int, count: int) -> bytes:
        """At most *count* bytes from *offset* on.

        :raises OSError: the content is shorter than it was, or cannot be read.
        """
        data: bytes = await self._reader.read(offset, count)
        if not data and count and offset < self.file.size:
            raise OSError(f"the content of {self.file.uuid} ends at {offset} of {self.file.size} bytes")
        self._sent(len(data))
        return data

    def close(self) -> None:
        """Let go of the content."""
        self._reader.close()


class FileStorage:
    """See the top of the file.

    :param blobs: started.
    :param cloud_origin: public origin of the API, asked for each URL.
    :param check_running: raises when the deployment is paused: clients then neither get nor store files.
    :param now_ms: wall clock.
    :ivar collector: removes contents that no file has; to be started and stopped by the owner.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        database: Database,
        blobs: IBlobStore,
        sealer: Sealer,
        cloud_origin: Callable[[], str],
        check_running: Callable[[], None],
        clock: IReactorTime,
        now_ms: Callable[[], int],
        random_bytes: Callable[[int], bytes],
        registry: CollectorRegistry,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._sealer = sealer
        self._cloud_origin = cloud_origin
        self._check_running = check_running
        self._now_ms = now_ms
        self._random_bytes = random_bytes
        self._uploads = 0
        self.metrics = FileMetrics.of(registry)
        self.collector = FileCollector(database, blobs, clock, self.metrics.collected.inc)

    # -- URLs ---------------------------------------------------------------------------------------

    def upload_url(self, component: int) -> str:
        """A URL to which anyone may post files of *component* for an hour."""
        token = {"component": component, "issued_ms": self._now_ms(), "nonce": self._random_bytes(8).hex()}
        sealed = self._sealer.seal(_PURPOSE, json.dumps(token, separators=(",", ":")).encode())
        return f"{self._cloud_origin()}/api/storage/upload?token={sealed}"

    def _component_of_token(self, token: str) -> int:
        try:
            parts = json.loads(self._sealer.unseal(_PURPOSE, token))
            component, issued_ms = int(parts["component"]), int(parts["issued_ms"])
        except (BrokenSeal, ValueError, KeyError, TypeError):
            raise Unauthenticated("StorageTokenInvalid", "Couldn't decode the StoreFileAuthorization token") from None
        age = (self._now_ms() - issued_ms) / 1000
        if age > TOKEN_SECONDS or age < -_SKEW_SECONDS:
            raise Unauthenticated("StorageTokenExpired", "Store File Authorization expired")
        return component

    async def url(self, transaction: Transaction | None, component: int, storage_id: str) -> str | None:
        """The URL of a file of *component*; ``None`` when there is no such file.

        :raises BadRequest: *storage_id* can be no file's name; the text is only the cause.
        """

        async def look(reading: Transaction) -> str | None:
            found = await file_records.find(reading, component, storage_id)
            return None if found is None else await self.url_of(reading, found)

        return await read_in(self._database, transaction, look)

    async def url_of(self, transaction: Transaction, file: FileRecord) -> str:
        """The URL of *file*."""
        url = f"{self._cloud_origin()}/api/storage/{file.uuid}"
        if file.component == ROOT_COMPONENT:
            return url
        return f"{url}?component={await file_records.component_identifier(transaction, file.component)}"

    # -- what functions do --------------------------------------------------------------------------

    async def metadata(self, transaction: Transaction | None, component: int, storage_id: str) -> dict[str, Any] | None:
        """``{storageId (a UUID), sha256 (hex), size, contentType}``; see :meth:`url`."""
        found = await self._find(transaction, component, storage_id)
        if found is None:
            return None
        return {
            "storageId": found.uuid,
            "sha256": base64.b64decode(found.sha256).hex(),
            "size": found.size,
            "contentType": found.content_type,
        }

    async def delete(self, transaction: Transaction | None, component: int, storage_id: str) -> bool:
        """Delete a file. :returns: whether there was one; see :meth:`url` for errors."""
        there = await commit_in(
            self._database,
            transaction,
            _WRITER,
            lambda writing: file_records.remove(writing, component, storage_id),
        )
        if there:
            self.metrics.deleted.inc()
        return there

    async def store(
        self,
        transaction: Transaction | None,
        component: int,
        data: bytes,
        content_type: str | None,
        sha256: str | None,
    ) -> str:
        """Store *data* as a file. :returns: its ``_storage`` id.

        :param sha256: base64 text that the digest must have.
        :raises BadRequest: ``Sha256Mismatch``.
        """
        upload = self.begin_store(component, content_type, sha256, transaction)
        await upload.write(data)
        return (await shield(upload.finish())).document_id

    def begin_store(
        self, component: int, content_type: str | None, sha256: str | None, transaction: Transaction | None = None
    ) -> Upload:
        """Begin a file of server code; see :meth:`store`."""
        return self._upload(lambda: _immediate(component), content_type, sha256, transaction)

    async def open(self, component: int, storage_id: str) -> Download | None:
        """The content of a file, for server code; see :meth:`url`."""
        return await self._open(await self._find(None, component, storage_id))

    async def load(
        self, transaction: Transaction | None, component: int, storage_id: str, max_bytes: int
    ) -> tuple[bytes, str | None] | None:
        """The whole content of a file and its content type; see :meth:`url`.

        :raises BadRequest: ``FileTooLarge``.
        """
        file = await self._find(transaction, component, storage_id)
        if file is not None and file.size > max_bytes:
            raise BadRequest("FileTooLarge", f"The file has {file.size} bytes (maximum: {max_bytes} bytes).")
        download = await self._open(file)
        if download is None:
            return None
        try:
            parts: list[bytes] = []
            offset = 0
            while offset < download.file.size:
                parts.append(await download.read(offset, _READ_BYTES))
                offset += len(parts[-1])
            return b"".join(parts), download.file.content_type
        finally:
            download.close()

    # -- over HTTP ----------------------------------------------------------------------------------

    def begin_upload(self, token: str, content_type: str | None, sha256: str | None) -> Upload:
        """A file that somebody posts; errors come with :meth:`Upload.finish`.

        :param token: of the URL. :param sha256: base64 text of the ``Digest`` header.
        :raises Unauthenticated: in ``finish``: ``StorageTokenInvalid``, ``StorageTokenExpired``.
        :raises BadRequest: in ``finish``: ``Sha256Mismatch``, ``BackendIsNotRunning``. :raises Overloaded: ``TooManyUploads``.
        """

        async def check() -> int:
            component = self._component_of_token(token)
            self._check_running()
            if self._uploads > MAX_UPLOADS:
                raise Overloaded("TooManyUploads", "Too many files are being uploaded. Try again later.")
            return component

        return self._upload(check, content_type, sha256, None)

    async def open_download(self, path: str, component: str | None) -> Download:
        """The file that a URL means.

        :param path: what follows ``/api/storage/``. :param component: public id of a component.
        :raises BadRequest: ``InvalidStoragePath``, ``BackendIsNotRunning``. :raises NotFound: ``FileNotFound``.
        """
        name = file_records.parse_uuid(path)
        if name is None:
            raise BadRequest(
                "InvalidStoragePath",
                f'Invalid storage path: "{path}". Please use `storage.getUrl` to obtain a valid file storage URL.',
            )
        self._check_running()

        async def look(reading: Transaction) -> FileRecord | None:
            owner = ROOT_COMPONENT if component is None else await component_with_identifier(reading, component)
            return None if owner is None else await file_records.find_by_uuid(reading, owner, name)

        download = await self._open(await read_in(self._database, None, look))
        if download is None:
            raise NotFound("FileNotFound", f"File {name} not found")
        return download

    # -- inside -------------------------------------------------------------------------------------

    async def _find(self, transaction: Transaction | None, component: int, storage_id: str) -> FileRecord | None:
        return await read_in(
            self._database, transaction, lambda reading: file_records.find(reading, component, storage_id)
        )

    async def _open(self, file: FileRecord | None) -> Download | None:
        if file is None:
            return None
        reader = await self._blobs.open(file.blob)
        if reader is None:
            self._log.error("the content of file {uuid} is missing", uuid=file.uuid)
            return None
        return Download(file, reader, self.metrics.sent_bytes.inc)

    def _upload(
        self,
        check: Callable[[], Awaitable[int]],
        content_type: str | None,
        sha256: str | None,
        transaction: Transaction | None,
    ) -> Upload:
        component = 0
        key = ""
        uncertain = False

        async def begin() -> IBlobWriter:
            nonlocal component, key
            component = await check()
            writer: IBlobWriter = await self._blobs.create()
            key = writer.key
            self.collector.protect(key)
            return writer

        async def keep(blob: StoredBlob) -> FileRecord:
            nonlocal uncertain
            actual = base64.b64encode(blob.sha256).decode("ascii")
            if sha256 is not None and sha256 != actual:
                await self._blobs.delete(blob.key)
                raise BadRequest("Sha256Mismatch", f"Sha256 mismatch. Expected: {sha256} Actual: {actual}")
            uncertain = True
            name = str(uuid.UUID(bytes=self._random_bytes(16), version=4))
            try:
                record = await commit_in(
                    self._database,
                    transaction,
                    _WRITER,
                    lambda writing: file_records.add(writing, component, blob, name, content_type),
                )
            except ConvexError:
                # Whether the commit has happened is not always known: a blob without rows goes by itself, one with rows must stay.
                self.collector.suspect(blob.key)
                raise
            # In a mutation the rows have yet to be committed.
            uncertain = transaction is not None
            self.metrics.stored.inc()
            return record

        def ended() -> None:
            self._uploads -= 1
            self.metrics.uploads.dec()
            if key:
                self.collector.release(key, uncertain=uncertain)

        self._uploads += 1
        self.metrics.uploads.inc()
        return Upload(begin, keep, self.metrics.received_bytes.inc, ended)


async def _immediate(component: int) -> int:
    return component
