"""The connections to one SQLite file, and the threads that they live in (A4).

One writer thread (``adbapi``, ``cp_min=cp_max=1``), one hop per *group* of commits; up to three threads for long reads; and one
connection in the reactor's thread for short reads, because a hop costs six times what the read does.

``:memory:`` (tests, trials) has no file to share: there one connection serves everything, in the caller's thread, at once.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from twisted.enterprise import adbapi
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from convex_backend.deferreds import InFlight
from convex_backend.errors import ConvexError
from convex_backend.storage.file_lock import FileLock
from convex_backend.storage.open_errors import explain

PARTIAL_SUFFIX = ".compacting"
"""What a compaction writes, before it takes the place of the file."""

T = TypeVar("T")
MEMORY = ":memory:"

_BUSY_TIMEOUT_SECONDS = 5.0
_READ_CACHE_KIB = 64 * 1024
_WRITE_CACHE_KIB = 32 * 1024
_WAL_PAGES = 8000
_OLDEST_SQLITE = (3, 33, 0)  # UPDATE … FROM


class _ConnectionPool(adbapi.ConnectionPool):
    """adbapi's pool over threads of our choice."""

    def __init__(self, make_thread_pool: Callable[[int, int], ThreadPool], *args: Any, **kwargs: Any) -> None:
        self._make_thread_pool = make_thread_pool
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call] # adbapi has no annotations

    def start(self) -> None:
        # Here and not after the constructor, which has already called start() when the reactor is running.
        if not self.running:
            self.threadpool = self._make_thread_pool(self.min, self.max)
        super().start()  # type: ignore[no-untyped-call] # adbapi has no annotations


class SqlitePool:
    """Opens, lends and closes the connections of one file.

    :param path: the file, or ``:memory:``.
    :param reactor: provides ``IReactorCore`` and ``IReactorFromThreads``; results of threads come back through it.
    :param connection_class: the writer's connection class; tests give one that fails on demand.
    :param make_thread_pool: ``(min, max)`` to a thread pool; tests give one that runs work at once in the caller's thread.
    :param max_readers: threads for long reads.
    :param cache_kib: page cache of each reading connection, and of the writer, in KiB: memory that grows with the file up to that.
    """

    _log = Logger()

    def __init__(
        self,
        path: str,
        reactor: Any,
        *,
        connection_class: type[sqlite3.Connection] = sqlite3.Connection,
        make_thread_pool: Callable[[int, int], ThreadPool] = ThreadPool,
        max_readers: int = 3,
        cache_kib: tuple[int, int] = (_READ_CACHE_KIB, _WRITE_CACHE_KIB),
    ) -> None:
        self.path = path
        self._reactor = reactor
        self._connection_class = connection_class
        self._make_thread_pool = make_thread_pool
        self._max_readers = max_readers
        self._read_cache_kib, self._write_cache_kib = cache_kib
        self._lock = FileLock(path)
        self._writer: adbapi.ConnectionPool | None = None
        self._readers: adbapi.ConnectionPool | None = None
        self._short: sqlite3.Connection | None = None
        self._in_flight = InFlight()

    @property
    def in_memory(self) -> bool:
        """Whether there is no file: everything runs in the caller's thread and is gone after :meth:`close`."""
        return self.path == MEMORY

    @property
    def short_reads(self) -> sqlite3.Connection:
        """The connection for short reads in the reactor's thread.

        :raises RuntimeError: the pool is not open.
        """
        if self._short is None:
            raise RuntimeError("the database is not open")
        return self._short

    async def open(self, prepare: Callable[[sqlite3.Connection], T]) -> T:
        """Lock and open the file, then run *prepare* on the writing connection (in its thread), then open the readers.

        :raises ConvexError: ``DatabaseInUse``; ``DatabaseUnavailable`` when the file cannot be opened or is damaged.
        """
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            oldest = ".".join(map(str, _OLDEST_SQLITE))
            raise ConvexError(
                "DatabaseUnavailable",
                f"this Python has SQLite {sqlite3.sqlite_version}; convex-backend needs {oldest} or newer",
            )
        if self.in_memory:
            self._short = sqlite3.connect(
                MEMORY, isolation_level=None, check_same_thread=False, factory=self._connection_class
            )
            return prepare(self._short)
        try:
            self._claim()
            self._writer = self._pool(1, 1, "writer", self._set_up_writer, self._connection_class)
            result = await self.write(prepare)
            self._short = self._connect_reader()
            self._readers = self._pool(0, self._max_readers, "reader", self._set_up_reader, sqlite3.Connection)
        except BaseException as error:
            await self._shut()
            if isinstance(error, sqlite3.Error | OSError):
                raise ConvexError("DatabaseUnavailable", explain(self.path, error)) from error
            raise
        return result

    def _claim(self) -> None:
        folder = Path(self.path).absolute().parent
        if not folder.is_dir():
            raise ConvexError(
                "DatabaseUnavailable",
                f"cannot open the database {self.path}: the directory {folder} does not exist; create it or choose "
                "another --persistence",
            )
        self._lock.acquire()
        # What a compaction that was killed left behind.
        Path(self.path + PARTIAL_SUFFIX).unlink(missing_ok=True)
        # SQLite would make the file with the umask's mode; the WAL file inherits the mode of this one.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def _pool(
        self, low: int, high: int, name: str, set_up: Callable[[sqlite3.Connection], None], factory: type[Any]
    ) -> adbapi.ConnectionPool:
        pool = _ConnectionPool(
            self._make_thread_pool,
            "sqlite3",
            self.path,
            cp_min=low,
            cp_max=high,
            cp_name=f"sqlite {name}",
            cp_openfun=set_up,
            cp_reactor=self._reactor,
            check_same_thread=False,  # the pool closes its connections from the reactor's thread
            isolation_level=None,  # transactions are begun by hand
            timeout=_BUSY_TIMEOUT_SECONDS,
            factory=factory,
        )
        pool.start()
        return pool

    def _connect_reader(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=_BUSY_TIMEOUT_SECONDS
        )
        self._set_up_reader(connection)
        return connection

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run *work* on the writing connection, after all earlier writes. *work* begins and commits its own transaction.

        Cancelling the caller does not stop *work*. A transaction that *work* leaves open is rolled back.
        """
        return await self._run(self._writer, work)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run *work* on a reading connection in one read transaction: all its statements see the same state."""

        def in_one_snapshot(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN")
            try:
                return work(connection)
            finally:
                connection.execute("ROLLBACK")

        return await self._run(self._readers, in_one_snapshot)

    async def _run(self, pool: adbapi.ConnectionPool | None, work: Callable[[sqlite3.Connection], T]) -> T:
        if pool is None:
            return await maybeDeferred(_run_in_place, self.short_reads, work)
        with self._in_flight:
            return cast(T, await cast("Deferred[Any]", pool.runWithConnection(work)))

    async def reopen_writer(self, check: Callable[[sqlite3.Connection], T]) -> T:
        """Drop the writing connection, with whatever transaction it holds, open a new one and run *check* on it."""
        writer = self._writer
        if writer is None:
            return await self.write(check)

        def drop(connection: Any) -> None:
            connection.reconnect()

        await self.write(cast("Callable[[sqlite3.Connection], None]", drop))
        return await self.write(check)

    async def close(self) -> None:
        """Wait for running work, copy the WAL into the file, close every connection, release the lock."""
        await self._in_flight.idle()
        if self._writer is not None:
            self._close_short()
            if self._readers is not None:
                self._readers.close()
                self._readers = None
            try:
                await self.write(_checkpoint)
            except sqlite3.Error as error:
                # Nothing is lost: the next start reads the WAL.
                self._log.warn("could not checkpoint {path}: {error}", path=self.path, error=str(error))
        await self._shut()

    async def _shut(self) -> None:
        self._close_short()
        for pool in (self._readers, self._writer):
            if pool is not None:
                pool.close()
        self._readers = self._writer = None
        self._lock.release()

    def _set_up_writer(self, connection: sqlite3.Connection) -> None:
        _set_up_writer(connection)
        connection.execute(f"PRAGMA cache_size = -{self._write_cache_kib}")

    def _set_up_reader(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA query_only = ON")
        connection.execute(f"PRAGMA cache_size = -{self._read_cache_kib}")

    def _close_short(self) -> None:
        if self._short is not None:
            self._short.close()
            self._short = None


def _run_in_place(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    try:
        return work(connection)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _set_up_writer(connection: sqlite3.Connection) -> None:
    # FULL: a group is on the disk before it is acknowledged (measured 4-11 % slower than NORMAL, which may lose it).
    connection.execute("PRAGMA journal_mode = WAL").fetchone()
    connection.execute("PRAGMA synchronous = FULL")
    # Inserts touch pages all over the file: the longer the WAL, the fewer times each is copied back (measured 10-20 % more
    # commits a second than with the default of 1000 pages).
    connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {2 * _WAL_PAGES * 4096}")


def _checkpoint(connection: sqlite3.Connection) -> None:
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise sqlite3.OperationalError("another connection is reading")
