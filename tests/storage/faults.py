"""A writing connection that fails on demand, and stores built over it."""

import sqlite3

from convex_backend.storage.sqlite_persistence import SqlitePersistence
from convex_backend.storage.sqlite_pool import SqlitePool
from tests.storage.synchronous import SynchronousReactor, SynchronousThreadPool


class Faults:
    """What the next COMMIT or the next statement with a given start does."""

    def __init__(self):
        self.error = None
        self.statement = "COMMIT"
        self.applied = False

    def connection_class(self):
        faults = self

        class FaultyConnection(sqlite3.Connection):
            def execute(self, sql, parameters=()):
                if faults.error is None or not sql.startswith(faults.statement):
                    return super().execute(sql, parameters)
                error, faults.error = faults.error, None
                if faults.applied:
                    super().execute(sql, parameters)
                raise error

        return FaultyConnection


def synchronous_pool(path, faults=None):
    """A pool that runs everything at once in this thread."""
    return SqlitePool(
        path,
        SynchronousReactor(),
        connection_class=faults.connection_class() if faults else sqlite3.Connection,
        make_thread_pool=SynchronousThreadPool,
    )


def synchronous_store(path, faults=None):
    return SqlitePersistence(synchronous_pool(path, faults))
