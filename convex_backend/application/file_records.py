"""The rows behind stored files: a ``_storage`` document, which functions see, and its ``_file_storage`` row, which they do not.

::

    _storage        {_id, _creationTime, sha256 (base64), size, contentType}     of its component
    _file_storage   {component, document, uuid, blob}                            uuid: the file's name in URLs; blob: where its content is

Both are written and deleted by one commit. Functions name a file by the document's id or by the UUID. Source: ``runtime.md`` section 9.6.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Final

import attrs

from convex_backend.database.system_tables import COMPONENTS, FILE_STORAGE, ROOT_COMPONENT, VIRTUAL_TABLES
from convex_backend.errors import BadRequest
from convex_backend.interfaces import StoredBlob
from convex_backend.values.ids import decode_id
from convex_backend.values.kinds import InvalidValue

if TYPE_CHECKING:
    from convex_backend.database.system_rows import SystemRow
    from convex_backend.database.transaction import Transaction

STORAGE: Final = "_storage"

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)


@attrs.frozen(slots=True)
class FileRecord:
    """A stored file.

    :param row: internal id of its ``_file_storage`` row.
    :param document_id: its ``_storage`` id. :param uuid: its name in URLs, lower case with hyphens.
    :param blob: key of the content in the blob store.
    :param sha256: base64 text of the content's SHA-256. :param size: bytes. :param content_type: as sent, ``None`` when unknown.
    """

    row: bytes
    component: int
    document_id: str
    uuid: str
    blob: str
    sha256: str
    size: int
    content_type: str | None


def parse_uuid(text: str) -> str | None:
    """*text* in the form of ``FileRecord.uuid``, or ``None`` when it is no UUID."""
    return text.lower() if _UUID.fullmatch(text) else None


async def find(transaction: Transaction, component: int, storage_id: str) -> FileRecord | None:
    """The file of a component that a function calls *storage_id*, recorded as read whether there is one or not.

    :raises BadRequest: neither a ``_storage`` id nor a UUID; the text is only the cause.
    """
    uuid = parse_uuid(storage_id)
    if uuid is not None:
        return await find_by_uuid(transaction, component, uuid)
    try:
        number, _ = decode_id(storage_id)
    except InvalidValue:
        raise BadRequest(
            "InvalidStorageId",
            f"Invalid storage ID: \"{storage_id}\". Storage ID should be an Id of '_storage' table, or a UUID string.",
        ) from None
    if number != VIRTUAL_TABLES[STORAGE]:
        raise BadRequest(
            "InvalidStorageId",
            "Invalid storage ID. Storage ID cannot be an ID on any table other than '_storage'.",
        )
    return await _record(
        transaction, await transaction.system.lookup(FILE_STORAGE.name, "by_document", (component, storage_id))
    )


async def find_by_uuid(transaction: Transaction, component: int, uuid: str) -> FileRecord | None:
    """The file of a component whose URL has *uuid*."""
    return await _record(transaction, await transaction.system.lookup(FILE_STORAGE.name, "by_uuid", (component, uuid)))


async def _record(transaction: Transaction, found: SystemRow | None) -> FileRecord | None:
    if found is None:
        return None
    row_id, row = found
    document = await transaction.virtual.get(row["component"], STORAGE, row["document"])
    if document is None:
        return None
    return FileRecord(
        row_id,
        row["component"],
        row["document"],
        row["uuid"],
        row["blob"],
        document["sha256"],
        int(document["size"]),
        document["contentType"],
    )


async def add(
    transaction: Transaction, component: int, blob: StoredBlob, uuid: str, content_type: str | None
) -> FileRecord:
    """Make the rows of a new file whose content is *blob*.

    :raises BadRequest: ``ComponentNotFound``, ``UnmountedComponentWrite``: an upload URL may outlive its component.
    """
    await transaction.ensure_begun()
    if component != ROOT_COMPONENT:
        if await transaction.system.lookup(COMPONENTS.name, "by_component", (component,)) is None:
            raise BadRequest("ComponentNotFound", "The component of this file does not exist any more.")
        transaction.require_mounted(component)
    sha256 = base64.b64encode(blob.sha256).decode("ascii")
    document = await transaction.virtual.insert(
        component, STORAGE, {"sha256": sha256, "size": float(blob.size), "contentType": content_type}
    )
    row = await transaction.system.insert(
        FILE_STORAGE.name, {"component": component, "document": document, "uuid": uuid, "blob": blob.key}
    )
    return FileRecord(row, component, document, uuid, blob.key, sha256, blob.size, content_type)


async def remove(transaction: Transaction, component: int, storage_id: str) -> bool:
    """Delete the rows of a file; its content goes some time after the commit.

    :returns: whether there was such a file.
    :raises BadRequest: see :func:`find`.
    """
    found = await find(transaction, component, storage_id)
    if found is None:
        return False
    await transaction.system.delete(FILE_STORAGE.name, found.row)
    await transaction.virtual.delete(component, STORAGE, found.document_id)
    return True


async def is_referenced(transaction: Transaction, blob: str) -> bool:
    """Whether any file has its content in *blob*."""
    return bool(await transaction.system.scan(FILE_STORAGE.name, "by_blob", (blob,), limit=1))


async def component_identifier(transaction: Transaction, component: int) -> str:
    """The public id of a component. :raises KeyError: there is no such component."""
    row = await transaction.system.lookup(COMPONENTS.name, "by_component", (component,))
    if row is None:
        raise KeyError(component)
    return str(row[1]["_id"])
