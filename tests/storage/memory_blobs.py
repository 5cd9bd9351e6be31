"""Blobs in a dict, with the contract of ``IBlobStore``: everything happens at once."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from convex_backend.interfaces import IBlobReader, IBlobStore, IBlobWriter, StoredBlob


@implementer(IBlobStore)
class MemoryBlobs:
    """:ivar blobs: the whole blobs. :ivar writing: keys of those that are not. :ivar failure: raised by the next writes."""

    shards = 2

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.writing: set[str] = set()
        self.failure: Exception | None = None
        self.open_readers = 0

    def start(self) -> Deferred[None]:
        self.writing.clear()
        return succeed(None)

    def stop(self) -> Deferred[None]:
        return succeed(None)

    def create(self) -> Deferred[IBlobWriter]:
        return succeed(MemoryWriter(self, str(uuid.uuid4())))

    def open(self, key: str) -> Deferred[IBlobReader | None]:
        data = self.blobs.get(key)
        return succeed(None if data is None else MemoryReader(self, data))

    def delete(self, key: str) -> Deferred[bool]:
        return succeed(self.blobs.pop(key, None) is not None)

    def keys(self, shard: int) -> Deferred[list[str]]:
        return succeed(sorted(key for key in self.blobs if int(key[0], 16) % self.shards == shard))


@implementer(IBlobWriter)
class MemoryWriter:
    """One blob on its way in."""

    def __init__(self, store: MemoryBlobs, key: str) -> None:
        self._store = store
        self._data = b""
        self.key = key
        store.writing.add(key)

    def write(self, chunks: Sequence[bytes]) -> Deferred[None]:
        if self._store.failure is not None:
            return fail(self._store.failure)
        self._data += b"".join(chunks)
        return succeed(None)

    def finish(self) -> Deferred[StoredBlob]:
        if self._store.failure is not None:
            return fail(self._store.failure)
        self._store.writing.discard(self.key)
        self._store.blobs[self.key] = self._data
        return succeed(StoredBlob(self.key, len(self._data), hashlib.sha256(self._data).digest()))

    def abort(self) -> Deferred[None]:
        self._store.writing.discard(self.key)
        return succeed(None)


@implementer(IBlobReader)
class MemoryReader:
    """One blob on its way out."""

    def __init__(self, store: MemoryBlobs, data: bytes) -> None:
        self._store = store
        self._data = data
        self._open = True
        self.size = len(data)
        store.open_readers += 1

    def read(self, offset: int, count: int) -> Deferred[bytes]:
        return succeed(self._data[offset : offset + count])

    def close(self) -> Deferred[None]:
        if self._open:
            self._open = False
            self._store.open_readers -= 1
        return succeed(None)
