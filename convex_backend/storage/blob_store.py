"""Contents of stored files: one file for each blob in a local directory, written and read in threads.

::

    <root>/incoming/<key>   while it is being written
    <root>/<k>/<key>        whole and synced: reached by a rename; <k> is the key's first two hex digits

A blob is whole or not there: it gets its place when all of it is on the disk. What a killed process left in ``incoming`` is removed at the
next start. Keys are UUIDs that never repeat, so a blob never changes. See ``interfaces.IBlobStore`` (E3).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from convex_backend.deferreds import InFlight, from_coroutine
from convex_backend.interfaces import IBlobReader, IBlobStore, IBlobWriter, StoredBlob
from convex_backend.storage.durability import sync

T = TypeVar("T")

#: Names of the directories that blobs are spread over.
SHARDS: Final = tuple(f"{number:02x}" for number in range(256))

_INCOMING: Final = "incoming"
_MAX_THREADS: Final = 4
_DIRECTORY_MODE: Final = 0o700
_FILE_MODE: Final = 0o600


@implementer(IBlobStore)
class LocalBlobStore:
    """Blobs below one directory, which is made when the first blob comes.

    :param root: the directory; nobody else may write in it.
    :param reactor: results of threads come back through it.
    :param random_uuid: makes keys.
    :param make_thread_pool: ``(min, max)`` to a thread pool; tests give one that runs work at once in the caller's thread.
    """

    _log = Logger()

    def __init__(
        self,
        root: Path,
        reactor: Any,
        random_uuid: Callable[[], uuid.UUID] = uuid.uuid4,
        make_thread_pool: Callable[[int, int], ThreadPool] = ThreadPool,
    ) -> None:
        self._root = root
        self._reactor = reactor
        self._random_uuid = random_uuid
        # A thread starts with the first work.
        self._threads = make_thread_pool(0, _MAX_THREADS)
        self._in_flight = InFlight()

    def start(self) -> Deferred[None]:
        """See :class:`IBlobStore`."""
        self._threads.start()
        return self.run(self._clear_incoming)

    def stop(self) -> Deferred[None]:
        """See :class:`IBlobStore`."""
        return from_coroutine(self._stop())

    async def _stop(self) -> None:
        await self._in_flight.idle()
        self._threads.stop()

    def create(self) -> Deferred[IBlobWriter]:
        """See :class:`IBlobStore`."""
        return self.run(self._create, str(self._random_uuid()), dropped=_abort_writer)

    def open(self, key: str) -> Deferred[IBlobReader | None]:
        """See :class:`IBlobStore`."""
        return self.run(self._open, key, dropped=_close_reader)

    def delete(self, key: str) -> Deferred[bool]:
        """See :class:`IBlobStore`."""
        return self.run(self._delete, key)

    def keys(self, shard: int) -> Deferred[list[str]]:
        """See :class:`IBlobStore`."""
        return self.run(self._keys, SHARDS[shard])

    @property
    def shards(self) -> int:
        """See :class:`IBlobStore`."""
        return len(SHARDS)

    def run(self, function: Callable[..., T], *args: Any, dropped: Callable[[T], object] | None = None) -> Deferred[T]:
        """Run *function* in a thread; :meth:`stop` waits for it. Cancelling drops the result, not the work.

        :param dropped: given a result that nobody waits for any more.
        """
        self._in_flight.__enter__()
        outer: Deferred[T] = Deferred()

        def ran(result: T | Failure) -> None:
            self._in_flight.__exit__()
            if not outer.called:
                if isinstance(result, Failure):
                    outer.errback(result)
                else:
                    outer.callback(result)
            elif isinstance(result, Failure):
                self._log.failure("work on a file failed after its caller had gone", failure=result)
            elif dropped is not None:
                dropped(result)

        inner: Deferred[T] = deferToThreadPool(self._reactor, self._threads, function, *args)
        inner.addBoth(ran)
        return outer

    # -- in threads ---------------------------------------------------------------------------------

    def place(self, key: str) -> Path:
        """Where the whole blob is, or will be."""
        return self._root / key[:2] / key

    def incoming(self, key: str) -> Path:
        """Where the blob is while it is written."""
        return self._root / _INCOMING / key

    def _clear_incoming(self) -> None:
        shutil.rmtree(self._root / _INCOMING, ignore_errors=True)

    def _create(self, key: str) -> IBlobWriter:
        path = self.incoming(key)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, _FILE_MODE)
        except FileNotFoundError:
            path.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
            fd = os.open(path, flags, _FILE_MODE)
        return LocalBlobWriter(self, key, fd)

    def _open(self, key: str) -> IBlobReader | None:
        try:
            fd = os.open(self.place(key), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        return LocalBlobReader(self, fd, os.fstat(fd).st_size)

    def _delete(self, key: str) -> bool:
        try:
            self.place(key).unlink()
        except FileNotFoundError:
            return False
        return True

    def _keys(self, shard: str) -> list[str]:
        try:
            return sorted(os.listdir(self._root / shard))
        except FileNotFoundError:
            return []


@implementer(IBlobWriter)
class LocalBlobWriter:
    """One blob on its way in; see :class:`IBlobWriter`."""

    def __init__(self, store: LocalBlobStore, key: str, fd: int) -> None:
        self._store = store
        self.key = key
        self._fd = fd
        self._size = 0
        self._hash = hashlib.sha256()
        self._lock = Lock()

    def write(self, chunks: Sequence[bytes]) -> Deferred[None]:
        """See :class:`IBlobWriter`."""
        return self._store.run(self._write, chunks)

    def finish(self) -> Deferred[StoredBlob]:
        """See :class:`IBlobWriter`."""
        return self._store.run(self._finish)

    def abort(self) -> Deferred[None]:
        """See :class:`IBlobWriter`."""
        return self._store.run(self._abort)

    def _write(self, chunks: Sequence[bytes]) -> None:
        with self._lock:
            for chunk in chunks:
                view = memoryview(chunk)
                self._hash.update(view)
                self._size += len(view)
                while view:
                    view = view[os.write(self._fd, view) :]

    def _finish(self) -> StoredBlob:
        with self._lock:
            os.fsync(self._fd)
            self._close()
        source, target = self._store.incoming(self.key), self._store.place(self.key)
        try:
            os.rename(source, target)
        except FileNotFoundError:
            target.parent.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)
            os.rename(source, target)
            sync(target.parent.parent)
        sync(target.parent)
        return StoredBlob(self.key, self._size, self._hash.digest())

    def _abort(self) -> None:
        with self._lock:
            self._close()
        self._store.incoming(self.key).unlink(missing_ok=True)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@implementer(IBlobReader)
class LocalBlobReader:
    """One blob on its way out; see :class:`IBlobReader`. The file's space is freed only when the last reader has closed it."""

    def __init__(self, store: LocalBlobStore, fd: int, size: int) -> None:
        self._store = store
        self._fd = fd
        self.size = size
        # A read that nobody waits for any more still uses the number of the file, which must not mean another one meanwhile.
        self._lock = Lock()

    def read(self, offset: int, count: int) -> Deferred[bytes]:
        """See :class:`IBlobReader`."""
        return self._store.run(self._read, offset, count)

    def close(self) -> Deferred[None]:
        """See :class:`IBlobReader`."""
        return self._store.run(self._close)

    def _read(self, offset: int, count: int) -> bytes:
        with self._lock:
            return os.pread(self._fd, count, offset)

    def _close(self) -> None:
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1


def _abort_writer(writer: IBlobWriter) -> None:
    writer.abort()


def _close_reader(reader: IBlobReader | None) -> None:
    if reader is not None:
        reader.close()
