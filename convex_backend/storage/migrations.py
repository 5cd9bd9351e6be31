"""The schema of the SQLite file: numbered scripts, applied once each, after a backup.

``PRAGMA user_version`` holds the number of the last script that ran; ``PRAGMA application_id`` marks the file as ours.
"""

from __future__ import annotations

import os
import re
import sqlite3
from pathlib import Path

import attrs

from convex_backend.errors import ConvexError
from convex_backend.resource_files import resource
from convex_backend.storage.durability import sync

APPLICATION_ID = 0x43564258
"""``CVBX``, in the header of each of our files."""


@attrs.frozen
class Migration:
    """One script: takes the schema from ``version - 1`` to ``version``."""

    version: int
    script: str


def load_migrations(folder: Path | None = None) -> list[Migration]:
    """:param folder: holds ``NNNN_name.sql`` files; the shipped ones when ``None``.

    :returns: all scripts in order.
    :raises ValueError: the numbers are not 1, 2, 3, …
    """
    found = []
    for path in (folder or resource("sql")).glob("*.sql"):
        match = re.match(r"(\d{4})_\w+\.sql$", path.name)
        if match is None:
            raise ValueError(f"{path.name} is not named NNNN_name.sql")
        found.append(Migration(int(match.group(1)), path.read_text("utf-8")))
    found.sort(key=lambda migration: migration.version)
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"migrations are not numbered without a gap: {[m.version for m in found]}")
    return found


def migrate(connection: sqlite3.Connection, path: str, migrations: list[Migration]) -> int:
    """Bring the schema up to date. An existing file is first copied to ``PATH.backup-vN``, N its old version.

    :param connection: in autocommit mode (``isolation_level=None``), no transaction open.
    :param path: the file's path, for the backup's name and for messages.
    :returns: the schema version now.
    :raises ConvexError: ``DatabaseTooNew``; ``NotADatabase`` when the file is another program's.
    """
    version, newest = check_ours(connection, path, migrations), migrations[-1].version
    if version == newest:
        return version
    if version > 0:
        _back_up(connection, f"{path}.backup-v{version}")
    for migration in migrations[version:]:
        _apply(connection, migration)
    return newest


def check_ours(connection: sqlite3.Connection, path: str, migrations: list[Migration]) -> int:
    """:returns: the schema version of the file, 0 for an empty one.

    :raises ConvexError: ``DatabaseTooNew``; ``NotADatabase`` when the file is another program's.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    newest = migrations[-1].version
    if version > newest:
        raise ConvexError(
            "DatabaseTooNew",
            f"{path} was written by a newer version of convex-backend (schema {version}; this version knows up to "
            f"{newest}); upgrade convex-backend, or choose another --persistence",
        )
    ours = connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if not ours and not empty:
        raise ConvexError(
            "NotADatabase", f"{path} is not a convex-backend database; move it away or choose another --persistence"
        )
    return version


def _apply(connection: sqlite3.Connection, migration: Migration) -> None:
    try:
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{migration.script}\n"
            f"PRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {migration.version};\nCOMMIT;"
        )
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _back_up(connection: sqlite3.Connection, target: str) -> None:
    """Copy the whole database (WAL included) to *target*; an interrupted copy never carries the final name."""
    partial = target + ".partial"
    if os.path.exists(partial):
        os.unlink(partial)
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    copy = sqlite3.connect(partial)
    try:
        connection.backup(copy)
    finally:
        copy.close()
    sync(partial)
    os.replace(partial, target)
