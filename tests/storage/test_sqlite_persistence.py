"""The contract, held by SqlitePersistence over a file; and what only a file can do."""

import os
import sqlite3
import stat
import tempfile

import pytest
from twisted.trial.unittest import SynchronousTestCase

from convex_backend.deferreds import from_coroutine
from convex_backend.errors import ConvexError
from convex_backend.interfaces import Commit
from convex_backend.storage import sql_reads
from convex_backend.storage.bulk import BulkStatement
from convex_backend.storage.group_write import write_group
from convex_backend.storage.pruning import delete_index, measure, prune_history, prune_ledger
from tests.storage.contract import A, B, C, PersistenceContract, added, document, insert, removed
from tests.storage.faults import Faults, synchronous_store
from tests.storage.synchronous import result_of


class SqlitePersistenceTests(PersistenceContract, SynchronousTestCase):
    def mktemp(self):
        """A path in a directory that goes with the test, instead of one in the working directory that stays."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return os.path.join(folder.name, "file")

    def setUp(self):
        self.path = self.mktemp()
        self.faults = Faults()
        self.store = synchronous_store(self.path, self.faults)
        result_of(self.store.open())
        self.addCleanup(lambda: result_of(self.store.close()))

    def reopen(self):
        result_of(self.store.close())
        self.store = synchronous_store(self.path, self.faults)
        result_of(self.store.open())

    def break_next_write(self, error, applied):
        self.faults.statement = "COMMIT"
        self.faults.error, self.faults.applied = error, applied

    def test_failure_in_the_middle_of_a_group(self):
        """An I/O error after some statements leaves the file as before the group."""
        self.write(insert(1, A, b"a"))
        for statement in (
            "INSERT INTO documents",
            "INSERT INTO index_entries",
            "INSERT INTO document_history",
            "UPDATE meta",
        ):
            self.faults.statement, self.faults.error, self.faults.applied = (
                statement,
                sqlite3.OperationalError("io"),
                True,
            )
            with self.assertRaises(sqlite3.OperationalError):
                self.write(
                    insert(2, B, b"b"),
                    Commit(3, (document(A, b"3", True),), (removed(b"a", A), added(b"a3", A))),
                    Commit(4, (document(A, b"4", True),), (removed(b"a3", A), added(b"a4", A))),
                )
            self.assertEqual(result_of(self.store.recover()), 1)
            self.assertEqual(self.keys(), [b"a"])
            self.assertEqual(self.store.get(1, A).ts, 1)

    def test_recover_drops_a_stuck_transaction(self):
        """When even the rollback did nothing, recover gets rid of the transaction with its connection."""
        self.write(insert(1, A, b"a"))

        class NoRollback(sqlite3.Connection):
            def rollback(self):
                raise sqlite3.OperationalError("disk I/O error")

        result_of(self.store.close())
        self.store = synchronous_store(self.path)
        self.store._pool._connection_class = NoRollback
        result_of(self.store.open())

        def half_done(connection):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DELETE FROM documents")
            raise OSError("gone")

        with self.assertRaises(OSError):
            result_of(from_coroutine(self.store._pool.write(half_done)))
        self.assertEqual(len(self.flushLoggedErrors(sqlite3.OperationalError)), 1)
        self.assertEqual(result_of(self.store.recover()), 1)
        self.write(insert(2, B, b"b"))
        self.assertEqual(self.keys(), [b"a", b"b"])

    def test_large_groups(self):
        """Groups larger than any bulk size are written whole: inserts, updates, deletions, key changes."""
        ids = [n.to_bytes(16, "big") for n in range(501)]
        self.write(*(insert(n + 1, id, b"a" + id) for n, id in enumerate(ids)))
        self.assertEqual(len(self.keys(limit=1000)), 501)
        self.write(
            *(
                Commit(
                    1000 + n,
                    (document(id, b"new" if n % 3 else None, True),),
                    (removed(b"a" + id, id), *([added(b"b" + id, id)] if n % 3 else [])),
                )
                for n, id in enumerate(ids)
            )
        )
        self.assertEqual(self.keys(limit=1000), [b"b" + id for n, id in enumerate(ids) if n % 3])
        self.assertEqual(result_of(self.store.count_documents(1)), 334)
        self.assertEqual(self.keys_at(501, limit=1000), [b"a" + id for id in ids])
        self.assertEqual(len(self.keys_at(1250, limit=1000)), 501 - 84)
        self.assertEqual(result_of(self.store.prune_history(10**6, 10000)), 1002)

    def test_queries_use_the_keys(self):
        """No statement of a read or a write walks a whole table."""
        plans = []
        result_of(self.store.close())
        connection = sqlite3.connect(self.path, isolation_level=None)
        connection.set_trace_callback(lambda sql: plans.append(sql))
        ids = [n.to_bytes(16, "big") for n in range(20)]
        write_group(connection, [insert(n + 1, id, id) for n, id in enumerate(ids)])
        write_group(
            connection,
            [
                Commit(
                    50 + n,
                    (document(id, b"" if n % 2 else None, True),),
                    (removed(id, id), *([added(b"x" + id, id)] if n % 2 else [])),
                )
                for n, id in enumerate(ids)
            ],
        )
        prune_history(connection, 55, 3)
        prune_ledger(connection, 0, 10, 10, 10, 10)
        measure(connection, 60)
        for reverse in (False, True):
            sql_reads.scan_documents(connection, 1, b"", b"z", reverse, 10)
            sql_reads.scan_index(connection, 7, b"", None, reverse, 10)
            sql_reads.scan_documents_at(connection, 1, b"", b"z", reverse, 10, 9)
            sql_reads.scan_index_at(connection, 7, b"", None, reverse, 10, 9)
        delete_index(connection, 7, 3)
        connection.set_trace_callback(None)
        walked = []
        for sql in plans:
            if sql.split()[0] in ("BEGIN", "COMMIT"):
                continue
            for row in connection.execute("EXPLAIN QUERY PLAN " + sql):
                # What is walked on purpose: the rows given, and the fronts of the tables that are pruned in order.
                given = (
                    "CONSTANT ROW",
                    "moved",
                    "fresh",
                    "-ROW VALUES",
                    "(subquery",
                )
                front = row[3].startswith(("SCAN document_history", "SCAN index_history", "SCAN mutation_results"))
                if front and (sql.startswith("DELETE") or "ORDER BY seq LIMIT" in sql):
                    continue
                if row[3].startswith("SCAN") and not any(word in row[3] for word in given):
                    walked.append((row[3], sql))
                if "TEMP B-TREE" in row[3]:
                    walked.append((row[3], sql))
        connection.close()
        self.assertEqual(walked, [])
        self.assertGreater(len(plans), 10)

    def test_an_entry_never_points_at_another_document(self):
        """An entry that outlives its document (of a dropped index) stays invisible when new documents come."""
        self.write(insert(1, A, b"a"))
        self.write(Commit(2, (document(A, None, True),)))
        self.write(Commit(3, (document(B, b"{}"), document(C, b"{}"))))
        self.assertEqual(self.keys(), [])
        self.assertEqual(self.keys_at(3), [])

    def test_files_are_private(self):
        """Database, WAL and lock files can be read by their owner only, whatever the umask."""
        old = os.umask(0)
        self.addCleanup(os.umask, old)
        path = self.mktemp()
        store = synchronous_store(path)
        result_of(store.open())
        result_of(store.write([insert(1, A, b"a")]))
        for suffix in ("", "-wal", ".lock"):
            self.assertEqual(stat.S_IMODE(os.stat(path + suffix).st_mode), 0o600, suffix)
        result_of(store.close())

    def test_close_empties_the_log(self):
        """After close the file alone holds everything: the WAL has been copied into it."""
        self.write(insert(1, A, b"a"))
        result_of(self.store.close())
        self.assertFalse(os.path.exists(self.path + "-wal"))
        result_of(self.store.close())

    def test_missing_directory(self):
        """A path in a directory that does not exist is refused with the directory's name."""
        store = synchronous_store(os.path.join(self.mktemp(), "db.sqlite3"))
        with self.assertRaises(ConvexError) as caught:
            result_of(store.open())
        self.assertEqual(caught.exception.code, "DatabaseUnavailable")
        self.assertIn("does not exist", caught.exception.message)

    def test_old_sqlite(self):
        """A Python with a SQLite too old for our statements is told so at the start, not at the first commit."""
        self.patch(sqlite3, "sqlite_version_info", (3, 31, 1))
        with self.assertRaises(ConvexError) as caught:
            result_of(synchronous_store(self.mktemp()).open())
        self.assertIn("needs 3.33.0", caught.exception.message)

    def test_damaged_file(self):
        """A file that is no database is refused and left alone; its lock is released."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"hello" * 1000)
        for _ in range(2):
            with self.assertRaises(ConvexError) as caught:
                result_of(synchronous_store(path).open())
            self.assertEqual(caught.exception.code, "DatabaseUnavailable")
        with open(path, "rb") as file:
            self.assertEqual(file.read(), b"hello" * 1000)


class InMemorySqliteTests(PersistenceContract, SynchronousTestCase):
    """``:memory:`` keeps the contract too, as far as one process and one opening go."""

    def setUp(self):
        self.faults = Faults()
        self.store = synchronous_store(":memory:", self.faults)
        result_of(self.store.open())
        self.addCleanup(lambda: result_of(self.store.close()))

    def reopen(self):
        self.store._failed = False

    def break_next_write(self, error, applied):
        self.faults.statement = "COMMIT"
        self.faults.error, self.faults.applied = error, applied

    def test_gone_after_close(self):
        """Nothing of ``:memory:`` outlives its closing."""
        self.write(insert(1, A, b"a"))
        result_of(self.store.close())
        result_of(self.store.open())
        self.assertEqual(self.store.last_ts, 0)
        self.assertEqual(self.keys(), [])


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 31, 128, 300])
def test_bulk_sizes(rows):
    """A bulk statement runs every row once, in order, whatever their number."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, m INTEGER)")
    insert_rows = BulkStatement("INSERT INTO t (n, m) VALUES {rows}", "(?, ?)")
    assert insert_rows.run(connection, [(n, -n) for n in range(rows)]) == rows
    assert connection.execute("SELECT n, m FROM t").fetchall() == [(n, -n) for n in range(rows)]
    assert insert_rows.run(connection, []) == 0
    connection.close()
