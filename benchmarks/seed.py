"""Give two tables a long past, through the server's own write path: ``python -m benchmarks.seed FILE JOBS UPDATES``.

The server must not be running. So many jobs are inserted and deleted before those that are there, and each key is updated so many times.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator

from convex_backend.database.catalog import Catalog, TableInfo
from convex_backend.database.index_keys import document_keys
from convex_backend.database.system_tables import CATALOG_TABLETS
from convex_backend.interfaces import Commit, DocumentWrite, IndexWrite
from convex_backend.storage.group_write import read_last_ts, write_group
from convex_backend.values.ids import encode_id
from convex_backend.values.json_codec import dumps, loads

_DOCUMENTS_PER_COMMIT = 1000
_COMMITS_PER_GROUP = 20
_MILLISECOND = 1_000_000


def catalog_of(connection: sqlite3.Connection) -> Catalog:
    """The tables of the file."""
    marks = ",".join(str(tablet) for tablet in CATALOG_TABLETS)
    rows = connection.execute(f"SELECT tablet, id, json FROM documents WHERE tablet IN ({marks})").fetchall()
    return Catalog.empty().apply(1, rows)


def consumed_jobs(table: TableInfo, ts: int, count: int) -> Iterator[Commit]:
    """Commits that insert jobs and others that delete them, oldest first."""
    made = 0
    while made < count:
        documents, entries = [], []
        ts += _MILLISECOND
        for number in range(made, min(made + _DOCUMENTS_PER_COMMIT, count)):
            # Ascending ids: neighbours in the file are written together. Reads of current rows do not meet them.
            internal = number.to_bytes(8, "big") + os.urandom(8)
            # Older than what is in the table: a queue's reader meets the place of these first.
            document = {
                "_id": encode_id(table.number, internal),
                "_creationTime": 1.0 + number,
                "n": float(number),
                "text": "x" * 100,
            }
            documents.append(DocumentWrite(table.tablet, internal, dumps(document), False))
            entries += [
                IndexWrite(index, key, table.tablet, internal, True)
                for index, key in document_keys(table.maintained, document).items()
            ]
        yield Commit(ts, tuple(documents), tuple(entries))
        ts += _MILLISECOND
        yield Commit(
            ts,
            tuple([DocumentWrite(one.tablet, one.id, None, True) for one in documents]),
            tuple([IndexWrite(one.index, one.key, one.tablet, one.id, False) for one in entries]),
        )
        made += len(documents)


def updated_keys(table: TableInfo, rows: list[tuple[bytes, bytes]], ts: int, updates: int) -> Iterator[Commit]:
    """Commits that each update every key; index keys stay as they are."""
    texts = [(internal, loads(json)) for internal, json in rows]
    for number in range(1, updates + 1):
        ts += _MILLISECOND
        yield Commit(
            ts,
            tuple(
                [
                    DocumentWrite(table.tablet, internal, dumps({**document, "value": float(number)}), True)
                    for internal, document in texts
                ]
            ),
        )


def write(connection: sqlite3.Connection, commits: Iterator[Commit]) -> None:
    """Write *commits*, some in a group."""
    group: list[Commit] = []
    for commit in commits:
        group.append(commit)
        if len(group) == _COMMITS_PER_GROUP:
            write_group(connection, group)
            group = []
    if group:
        write_group(connection, group)


def main() -> None:
    """See the top of the file."""
    file, jobs, updates = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL").fetchone()
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -262144")
    connection.execute("PRAGMA wal_autocheckpoint = 50000")
    catalog = catalog_of(connection)
    queue, keys = catalog.table(0, "jobs_consumed"), catalog.table(0, "keys_updated")
    assert queue is not None and keys is not None
    write(connection, consumed_jobs(queue, read_last_ts(connection), jobs))
    rows = connection.execute("SELECT id, json FROM documents WHERE tablet = ?", (keys.tablet,)).fetchall()
    write(connection, updated_keys(keys, rows, read_last_ts(connection), updates))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    connection.close()


if __name__ == "__main__":
    main()
