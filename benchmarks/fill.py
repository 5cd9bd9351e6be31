"""Fill two tables through the server's own write path: ``python -m benchmarks.fill FILE OUT TABLE=COUNT …``; the server must not be running.

OUT gets a JSON object: by table, a thousand ids of documents all over it.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import sys
from collections.abc import Iterator

from benchmarks.seed import catalog_of, write
from convex_backend.database.catalog import TableInfo
from convex_backend.database.index_keys import document_keys
from convex_backend.interfaces import Commit, DocumentWrite, IndexWrite
from convex_backend.storage.group_write import read_last_ts
from convex_backend.values.ids import encode_id
from convex_backend.values.json_codec import dumps

_DOCUMENTS_PER_COMMIT = 1000
_SAMPLES = 1000


def filled(table: TableInfo, ts: int, count: int, ids: list[str]) -> Iterator[Commit]:
    """Commits that insert *count* documents; *ids* gets some of their ids."""
    draw = random.Random(1)
    made = 0
    while made < count:
        ts += 1_000_000
        documents, entries = [], []
        for number in range(made, min(made + _DOCUMENTS_PER_COMMIT, count)):
            internal = os.urandom(16)
            document = {
                "_id": encode_id(table.number, internal),
                "_creationTime": ts / 1e6,
                "a": float(number % 10),
                "b": draw.random(),
                "c": draw.random(),
                "text": f"{draw.getrandbits(64):016x}" + "x" * 100,
            }
            if number % max(count // _SAMPLES, 1) == 0:
                ids.append(document["_id"])
            documents.append(DocumentWrite(table.tablet, internal, dumps(document), False))
            entries += [
                IndexWrite(index, key, table.tablet, internal, True)
                for index, key in document_keys(table.maintained, document).items()
            ]
        yield Commit(ts, tuple(documents), tuple(entries))
        made += len(documents)


def main() -> None:
    """See the top of the file."""
    file, out, *wanted = sys.argv[1:]
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL").fetchone()
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -1048576")
    connection.execute("PRAGMA wal_autocheckpoint = 50000")
    catalog = catalog_of(connection)
    samples: dict[str, list[str]] = {}
    for one in wanted:
        name, count = one.split("=")
        table = catalog.table(0, name)
        assert table is not None, name
        samples[name] = []
        write(connection, filled(table, read_last_ts(connection), int(count), samples[name]))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    connection.close()
    with open(out, "w", encoding="utf-8") as target:
        json.dump(samples, target)


if __name__ == "__main__":
    main()
