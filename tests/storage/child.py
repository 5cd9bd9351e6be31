"""A server in small, for tests that need real threads or a real death: ``python -m tests.storage.child MODE FILE``.

``write``: writes groups for ever and prints the last timestamp of each durable one. ``hold``: opens, prints ``open``, waits.
``read``: as-of reads in worker threads beside a writer, then a close with reads under way; prints ``done``.
"""

import sys

from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.task import deferLater, react

from convex_backend.interfaces import Commit, DocumentWrite, IndexWrite
from convex_backend.storage.sqlite_persistence import SqlitePersistence
from convex_backend.storage.sqlite_pool import SqlitePool


def commit(ts):
    """Three rows: a document at its timestamp's id, its entry, and a counter that every commit replaces."""
    id = ts.to_bytes(16, "big")
    counter = DocumentWrite(2, b"c" * 16, b"%d" % ts, ts > 1)
    return Commit(ts, (DocumentWrite(1, id, b"%d" % ts, False), counter), (IndexWrite(1, id, 1, id, True),))


async def write(store):
    ts = store.last_ts
    while True:
        await store.write([commit(ts + n) for n in range(1, 8)])
        ts += 7
        assert store.last_ts == ts
        sys.stdout.write(f"{ts}\n")
        sys.stdout.flush()


async def hold(store):
    sys.stdout.write("open\n")
    sys.stdout.flush()
    await deferLater(reactor, 60)


async def read(store):
    await store.write([commit(ts) for ts in range(1, 301)])
    writing = ensureDeferred(_write_some(store))
    for ts in (1, 150, 300):
        rows = await gatherResults([store.scan_index_at(1, b"", None, False, 1000, ts) for _ in range(6)])
        assert all(len(found) == ts for found in rows), [len(found) for found in rows]
        assert (await store.get_at(2, b"c" * 16, ts)).json == b"%d" % ts
    await writing
    under_way = gatherResults([store.scan_index_at(1, b"", None, False, 1000, 300) for _ in range(9)])
    await store.close()
    assert [len(found) for found in await under_way] == [300] * 9
    print("done")


async def _write_some(store):
    for ts in range(301, 400):
        await store.write([commit(ts)])


async def main(_, mode, path):
    store = SqlitePersistence(SqlitePool(path, reactor))
    await store.open()
    await {"write": write, "hold": hold, "read": read}[mode](store)


if __name__ == "__main__":
    react(lambda *args: ensureDeferred(main(*args)), sys.argv[1:])
