"""File storage.

===============================  ======  =======================================  ==================================================
name                             kinds   arguments                                answer
===============================  ======  =======================================  ==================================================
``1.0/storageGetUrl``            all     ``{storageId}``                          URL or ``null``
``1.0/storageGetMetadata``       all     ``{storageId}``                          ``{storageId, sha256, size, contentType}``, ``null``
``1.0/storageGenerateUploadUrl`` M A H   ``{}``                                   URL
``1.0/storageDelete``            M A H   ``{storageId}``                          ``null``
``1.0/storageStore``             M       ``{blob (base64), contentType, sha256?}`` id
``1.0/storageGet``               M       ``{storageId}``                          ``{blob (base64), contentType}`` or ``null``
``storage/store``                A H     ``{stream, contentType, sha256?}``       id; the content comes by *stream*
``storage/get``                  A H     ``{stream, storageId}``                  ``{size, contentType}`` or ``null``; content by *stream*
===============================  ======  =======================================  ==================================================

The last two are made by the runner's host side (``host_ops/storage.mjs``), with streams from :data:`FIRST_STREAM` on, so that blobs travel in
pieces with windows. They end with their call. Source: ``runtime.md`` sections 2.3 and 9.6; ``storageStore`` and ``storageGet`` as npm 1.48
makes them in mutations.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import orjson
from twisted.internet.defer import Deferred

from convex_backend.deferreds import Waiters, shield
from convex_backend.errors import BadRequest
from convex_backend.functions.syscalls import (
    A_H,
    ALL,
    NULL,
    M,
    Syscall,
    invalid_argument,
    missing,
    optional_text,
    parse,
    syscall,
    text_argument,
)
from convex_backend.functions.syscalls.unavailable import unavailable
from convex_backend.interfaces import SyscallReply

if TYPE_CHECKING:
    from convex_backend.functions.context import CallContext
    from convex_backend.functions.files import FileService
    from convex_backend.functions.streams import CallStreams

#: Streams of file contents have numbers from here on; those of HTTP bodies are below.
FIRST_STREAM: Final = 1 << 20
#: What an action may get at once: a run has 64 MiB of buffers (``runtime.md`` section 8.5).
MAX_GET_BYTES: Final = 64 << 20

_READ_BYTES: Final = 64 * 1024


def _files(context: CallContext) -> FileService:
    files = context.tree.services.files
    if files is None:
        raise unavailable("File storage is")
    return files


def _storage_id(tree: dict[str, Any], call: str) -> str:
    return text_argument(tree, "storageId", call)


@contextmanager
def _argument_of(call: str) -> Iterator[None]:
    """What is wrong with a storage id is wrong with an argument of *call*."""
    try:
        yield
    except BadRequest as error:
        if error.code != "InvalidStorageId":
            raise
        raise invalid_argument("storageId", call, error.message) from None


@syscall("1.0/storageGetUrl", ALL)
async def get_url(context: CallContext, args: bytes) -> SyscallReply:
    """Where a file can be fetched."""
    storage_id = _storage_id(parse(args), "storage.getUrl")
    with _argument_of("storage.getUrl"):
        url = await _files(context).url(context.transaction, context.function.component, storage_id)
    return SyscallReply(orjson.dumps(url))


@syscall("1.0/storageGetMetadata", ALL)
async def get_metadata(context: CallContext, args: bytes) -> SyscallReply:
    """A file's digest, size and type."""
    storage_id = _storage_id(parse(args), "storage.getMetadata")
    with _argument_of("storage.getMetadata"):
        found = await _files(context).metadata(context.transaction, context.function.component, storage_id)
    return SyscallReply(orjson.dumps(found))


@syscall("1.0/storageGenerateUploadUrl", M | A_H)
async def generate_upload_url(context: CallContext, args: bytes) -> SyscallReply:
    """Where a client may post a file."""
    parse(args)
    return SyscallReply(orjson.dumps(_files(context).upload_url(context.function.component)))


@syscall("1.0/storageDelete", M | A_H)
async def delete(context: CallContext, args: bytes) -> SyscallReply:
    """Delete a file."""
    storage_id = _storage_id(parse(args), "storage.delete")
    with _argument_of("storage.delete"):
        there = await _files(context).delete(context.transaction, context.function.component, storage_id)
    if not there:
        raise BadRequest("FileNotFound", f"storage id {storage_id} not found")
    return NULL


@syscall("1.0/storageStore", M)
async def store_in_mutation(context: CallContext, args: bytes) -> SyscallReply:
    """Store a file in the mutation's transaction."""
    tree = parse(args)
    text = text_argument(tree, "blob", "storage.store")
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise invalid_argument("blob", "storage.store", "expected base64") from None
    context.documents.counters.write_file(len(data))
    document_id = await _files(context).store(
        context.transaction,
        context.function.component,
        data,
        optional_text(tree, "contentType", "storage.store") or None,
        optional_text(tree, "sha256", "storage.store") or None,
    )
    return SyscallReply(orjson.dumps(document_id))


@syscall("1.0/storageGet", M)
async def get_in_mutation(context: CallContext, args: bytes) -> SyscallReply:
    """A file's content, as the mutation's transaction sees it."""
    storage_id = _storage_id(parse(args), "storage.get")
    counters = context.documents.counters
    with _argument_of("storage.get"):
        found = await _files(context).load(
            context.transaction, context.function.component, storage_id, counters.limits.file_read_bytes
        )
    if found is None:
        return NULL
    data, content_type = found
    counters.read_file(len(data))
    return SyscallReply(orjson.dumps({"blob": base64.b64encode(data).decode("ascii"), "contentType": content_type}))


def _stream_of(context: CallContext, tree: dict[str, Any], call: str) -> tuple[CallStreams, int]:
    number = tree.get("stream")
    if type(number) is not int or not FIRST_STREAM <= number < 1 << 32 or context.tree.streams is None:
        raise missing(tree, "stream", call, "the number of a stream")
    return context.tree.streams, number


@syscall("storage/store", A_H)
async def store_stream(context: CallContext, args: bytes) -> SyscallReply:
    """Store a blob of an action."""
    tree = parse(args)
    streams, number = _stream_of(context, tree, "storage.store")
    upload = _files(context).begin_store(
        context.function.component,
        optional_text(tree, "contentType", "storage.store") or None,
        optional_text(tree, "sha256", "storage.store") or None,
    )
    reader = streams.reader(number)
    ended: Deferred[str | None] = Deferred()
    held = False
    waiting = 0

    def on_data(data: bytes) -> None:
        nonlocal waiting
        upload.feed(data)
        waiting += len(data)
        grant()

    def grant() -> None:
        nonlocal waiting
        if not held and waiting:
            size, waiting = waiting, 0
            reader.taken(size)

    def hold(now: bool) -> None:
        nonlocal held
        held = now
        grant()

    upload.hold = hold
    try:
        reader.listen(on_data, ended.callback)
        broken = await ended
        if broken is not None:
            raise BadRequest("BlobUnreadable", broken)
        file = await shield(upload.finish())
    finally:
        # The call may have ended meanwhile, which cancels this.
        upload.abort()
        reader.close()
        streams.drop(number)
    return SyscallReply(orjson.dumps(file.document_id))


@syscall("storage/get", A_H)
async def get_stream(context: CallContext, args: bytes) -> SyscallReply:
    """A file's content for an action."""
    tree = parse(args)
    streams, number = _stream_of(context, tree, "storage.get")
    storage_id = _storage_id(tree, "storage.get")
    with _argument_of("storage.get"):
        download = await _files(context).open(context.function.component, storage_id)
    if download is None:
        return NULL
    writer = streams.writer(number)
    room: Waiters[None] = Waiters()
    writer.on_room = lambda: room.fire(None)
    try:
        size = download.file.size
        if size > MAX_GET_BYTES:
            raise BadRequest(
                "FileTooLarge",
                f"The file has {size} bytes: more than the memory of a function holds ({MAX_GET_BYTES} bytes). "
                "Give its URL (storage.getUrl) to fetch instead, and read the response's body as a stream.",
            )
        offset = 0
        while offset < size and not writer.closed:
            data = await download.read(offset, _READ_BYTES)
            offset += len(data)
            writer.write(data)
            if not writer.has_room:
                await room.wait()
        writer.end()
    finally:
        download.close()
    return SyscallReply(orjson.dumps({"size": size, "contentType": download.file.content_type}))


SYSCALLS: tuple[Syscall, ...] = (
    get_url,
    get_metadata,
    generate_upload_url,
    delete,
    store_in_mutation,
    get_in_mutation,
    store_stream,
    get_stream,
)
