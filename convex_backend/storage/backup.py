"""Copies of a database file and of stored files while a server uses them: the halves of ``convex-backend backup``.

::

    copy_blobs(root, target)          all contents that are there now
    copy_database(path, copy)         one moment T of the database
    copy_blobs(root, target)          contents that came meanwhile

In this order every file that the database has at T is in the copy, however long it takes: contents are in their place before their rows are
committed, never change, and go only some minutes after the rows have gone. Contents without a row do no harm; the server removes them.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path
from typing import Final

from convex_backend.errors import ConvexError
from convex_backend.storage.blob_store import SHARDS
from convex_backend.storage.durability import sync
from convex_backend.storage.migrations import check_ours, load_migrations

_PRIVATE: Final = 0o600
_PRIVATE_DIRECTORY: Final = 0o700


def copy_database(path: str, copy: Path) -> int:
    """Copy the database file *path* as it is at one moment, beside a running server or not. Blocks for as long as the copying takes.

    The server goes on reading and writing; its write-ahead log grows meanwhile by what it writes.

    :param copy: a file that does not exist yet; made with mode 0600.
    :returns: its size in bytes.
    :raises ConvexError: ``DatabaseTooNew``, ``NotADatabase``; ``DatabaseUnavailable`` when there is none, it is damaged, or there is no room.
    """
    if not Path(path).is_file():
        raise ConvexError("DatabaseUnavailable", f"there is no database {path}")
    try:
        os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _PRIVATE))
        source, target = sqlite3.connect(path, isolation_level=None), sqlite3.connect(copy, isolation_level=None)
        try:
            check_ours(source, path, load_migrations())
            # All pages in one step, which is one read transaction: in several, each commit between two would begin the copy anew.
            source.backup(target)
        finally:
            target.close()
            source.close()
        sync(copy)
        return copy.stat().st_size
    except (sqlite3.Error, OSError) as error:
        raise ConvexError("DatabaseUnavailable", f"cannot back up {path}: {error}") from error


def copy_blobs(root: Path, target: Path) -> tuple[int, int]:
    """Copy the contents of stored files below *root* that *target* does not have. Blocks.

    :param root: the directory of a ``LocalBlobStore``; it need not exist. :param target: made if there is anything to copy.
    :returns: how many were copied, and their bytes.
    :raises OSError: the disk is full, or something may not be read.
    """
    count = size = 0
    for shard in SHARDS:
        if not (root / shard).is_dir():
            continue
        (target / shard).mkdir(mode=_PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        for blob in sorted((root / shard).iterdir()):
            copy = target / shard / blob.name
            if copy.exists():
                continue
            try:
                shutil.copyfile(blob, copy)
            except FileNotFoundError:
                # Its file was deleted long before this moment of the database.
                continue
            copy.chmod(_PRIVATE)
            sync(copy)
            count, size = count + 1, size + copy.stat().st_size
    return count, size
