"""Giving free space in a database file back to the file system: ``convex-backend compact``.

A server reuses what pruning frees and never makes its file smaller. This writes what is alive into a new file beside it and puts that in its
place, under the lock that a server would hold. A death at any point leaves the old file or the new one, both whole.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import attrs

from convex_backend.errors import ConvexError
from convex_backend.storage.durability import sync
from convex_backend.storage.file_lock import FileLock
from convex_backend.storage.migrations import check_ours, load_migrations
from convex_backend.storage.pruning import page_counts
from convex_backend.storage.sqlite_pool import PARTIAL_SUFFIX


@attrs.frozen(slots=True)
class Compaction:
    """What came of it, bytes of the file before and after."""

    before_bytes: int
    after_bytes: int


def compact(path: str) -> Compaction:
    """Compact the database file *path*. Blocks for as long as it takes: about a second for each 100 MB that is alive.

    :raises ConvexError: ``DatabaseInUse`` while a server runs on it; ``DatabaseTooNew``, ``NotADatabase``; ``DatabaseUnavailable`` when it is not
        there, is damaged, or the disk has no room for the copy. The file is then as it was.
    """
    if not Path(path).is_file():
        raise ConvexError("DatabaseUnavailable", f"there is no database {path}")
    lock = FileLock(path)
    try:
        lock.acquire()
        try:
            return _compact(path)
        finally:
            lock.release()
    except (sqlite3.Error, OSError) as error:
        raise ConvexError("DatabaseUnavailable", f"cannot compact {path}: {error}; it is as it was") from error


def _compact(path: str) -> Compaction:
    partial = path + PARTIAL_SUFFIX
    Path(partial).unlink(missing_ok=True)
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        check_ours(connection, path, load_migrations())
        # What a killed server left in its log belongs to the file.
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise ConvexError("DatabaseInUse", f"another program is using {path}; stop it first")
        before = os.path.getsize(path)
        _check_room(connection, path)
        # VACUUM INTO takes an existing file if it is empty: so the copy has its mode from the first byte on.
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, os.stat(path).st_mode & 0o777))
        connection.execute("VACUUM INTO ?", (partial,))
    except BaseException:
        connection.close()
        Path(partial).unlink(missing_ok=True)
        raise
    # The last connection takes the log with it: a log of the old file beside the new one would be another file's.
    connection.close()
    sync(partial)
    os.replace(partial, path)
    sync(Path(path).absolute().parent)
    return Compaction(before, os.path.getsize(path))


def _check_room(connection: sqlite3.Connection, path: str) -> None:
    pages, free, page_bytes = page_counts(connection)
    needed, room = (pages - free) * page_bytes, shutil.disk_usage(Path(path).absolute().parent).free
    if room < needed:
        raise ConvexError(
            "DatabaseUnavailable",
            f"cannot compact {path}: the copy takes up to {needed / 1e6:.0f} MB and the disk has {room / 1e6:.0f} MB left; it is as it was",
        )
