"""What every ``IPersistence`` must do. A backend's test case inherits the suite and says how to make, break and reopen a store."""

from zope.interface.verify import verifyObject

from convex_backend.errors import StorageFailed
from convex_backend.interfaces import Commit, DocumentWrite, IndexWrite, IPersistence, LedgerEntry, Row, StoredResult
from tests.storage.synchronous import result_of

A, B, C = (bytes([letter]) * 16 for letter in b"abc")


def document(id, json, had_previous=False, tablet=1):
    return DocumentWrite(tablet, id, json, had_previous)


def added(key, id, index=7, tablet=1, ts=None):
    return IndexWrite(index, key, tablet, id, True, ts)


def removed(key, id, index=7, tablet=1):
    return IndexWrite(index, key, tablet, id, False)


def insert(ts, id, key, json=b"{}"):
    """A commit that inserts one document with one index entry."""
    return Commit(ts, (document(id, json),), (added(key, id),))


class PersistenceContract:
    """Mixin for ``SynchronousTestCase``; the backend sets ``self.store`` in ``setUp``, open and empty."""

    def reopen(self):
        """Close the store and open what it left as ``self.store``."""
        raise NotImplementedError

    def break_next_write(self, error, applied):
        """Make the next write fail with *error*: before anything is in the file, or after all of it is (*applied*)."""
        raise NotImplementedError

    def write(self, *commits):
        result_of(self.store.write(commits))

    def keys(self, lower=b"", upper=None, reverse=False, limit=100, index=7):
        return [row.key for row in self.store.scan_index(index, lower, upper, reverse, limit)]

    def keys_at(self, ts, lower=b"", upper=None, reverse=False, limit=100, index=7):
        return [row.key for row in result_of(self.store.scan_index_at(index, lower, upper, reverse, limit, ts))]

    def test_provides_the_interface(self):
        """The object has every member of IPersistence, with its signature."""
        verifyObject(IPersistence, self.store)

    def test_new_store_is_empty(self):
        """A new store holds nothing and its newest timestamp is 0."""
        self.assertEqual(self.store.last_ts, 0)
        self.assertIsNone(self.store.get(1, A))
        self.assertEqual(self.store.scan_documents(1, b"", None, False, 10), [])
        self.assertEqual(self.keys(), [])
        self.assertIsNone(self.store.ledger_get("s", 0))
        self.assertIsNone(self.store.get_meta("name"))
        self.assertEqual(result_of(self.store.count_documents(1)), 0)

    def test_written_document_is_read_back(self):
        """get gives id, timestamp and the very bytes; other tablets and ids are apart."""
        self.write(Commit(5, (document(A, b'{"n":1}'),)))
        self.assertEqual(self.store.get(1, A), Row(A, A, 5, b'{"n":1}'))
        self.assertIsNone(self.store.get(2, A))
        self.assertIsNone(self.store.get(1, B))
        self.assertEqual(self.store.last_ts, 5)

    def test_scan_documents_bounds_order_limit(self):
        """Document scans are half open, in id order both ways, and stop at the limit."""
        self.write(Commit(1, (*(document(id, b"{}") for id in (B, C, A)), document(A, b"{}", tablet=2))))
        scan = self.store.scan_documents
        self.assertEqual([row.id for row in scan(1, b"", None, False, 10)], [A, B, C])
        self.assertEqual([row.id for row in scan(1, b"", None, True, 2)], [C, B])
        self.assertEqual([row.id for row in scan(1, A, C, False, 10)], [A, B])
        self.assertEqual([row.id for row in scan(1, A, C, True, 1)], [B])
        self.assertEqual(scan(1, B, B, False, 10), [])
        self.assertEqual(scan(1, b"", None, False, 0), [])

    def test_scan_index_bounds_order_limit(self):
        """Index scans are half open, in unsigned byte order both ways, with the documents joined."""
        self.write(insert(1, A, b"\x01"), insert(2, B, b"\x7f\x00"), insert(3, C, b"\xff", b'{"c":3}'))
        self.assertEqual(self.keys(), [b"\x01", b"\x7f\x00", b"\xff"])
        self.assertEqual(self.keys(reverse=True, limit=2), [b"\xff", b"\x7f\x00"])
        self.assertEqual(self.keys(b"\x01", b"\x7f\x00"), [b"\x01"])
        self.assertEqual(self.keys(b"\x7f", None), [b"\x7f\x00", b"\xff"])
        self.assertEqual(self.keys(index=8), [])
        self.assertEqual(self.store.scan_index(7, b"\xff", None, False, 1), [Row(b"\xff", C, 3, b'{"c":3}')])

    def test_update_without_key_change(self):
        """An update that leaves the key alone shows through the entry; the past still shows the old version."""
        self.write(insert(1, A, b"k", b"old"))
        self.write(Commit(2, (document(A, b"new", True),)))
        self.assertEqual(self.store.scan_index(7, b"", None, False, 9), [Row(b"k", A, 2, b"new")])
        self.assertEqual(result_of(self.store.scan_index_at(7, b"", None, False, 9, 1)), [Row(b"k", A, 1, b"old")])
        self.assertEqual(result_of(self.store.get_at(1, A, 1)), Row(A, A, 1, b"old"))

    def test_update_with_key_change(self):
        """The old key is gone now and there in the past."""
        self.write(insert(1, A, b"k1", b"old"))
        self.write(Commit(2, (document(A, b"new", True),), (removed(b"k1", A), added(b"k2", A))))
        self.assertEqual(self.keys(), [b"k2"])
        self.assertEqual(self.keys_at(1), [b"k1"])
        self.assertEqual(self.keys_at(2), [b"k2"])
        self.assertEqual(self.keys_at(0), [])

    def test_delete_and_insert_again(self):
        """A deleted document is in the past only; the same id may come back."""
        self.write(insert(1, A, b"k", b"1"))
        self.write(Commit(2, (document(A, None, True),), (removed(b"k", A),)))
        self.assertIsNone(self.store.get(1, A))
        self.assertEqual(result_of(self.store.count_documents(1)), 0)
        self.write(insert(4, A, b"k", b"4"))
        for ts, expected in ((1, b"1"), (2, None), (3, None), (4, b"4"), (9, b"4")):
            row = result_of(self.store.get_at(1, A, ts))
            self.assertEqual(row and row.json, expected, ts)
            self.assertEqual(
                [r.json for r in result_of(self.store.scan_index_at(7, b"", None, False, 9, ts))],
                [expected] if expected else [],
            )

    def test_same_document_many_times_in_one_group(self):
        """Each version of a document that a group writes again and again has its place in history."""
        group = [insert(1, A, b"k1", b"1")]
        for ts in range(2, 7):
            moved = (removed(b"k%d" % (ts - 1), A), added(b"k%d" % ts, A))
            group.append(Commit(ts, (document(A, b"%d" % ts, True),), moved))
        group.append(Commit(7, (document(A, None, True),), (removed(b"k6", A),)))
        group.append(insert(8, A, b"k1", b"8"))
        self.write(*group)
        for ts in range(1, 9):
            row = result_of(self.store.get_at(1, A, ts))
            self.assertEqual(row and row.json, None if ts == 7 else b"%d" % ts)
            self.assertEqual(self.keys_at(ts), [] if ts == 7 else [b"k1" if ts == 8 else b"k%d" % ts])
        self.assertEqual(self.keys(), [b"k1"])

    def test_scan_documents_at(self):
        """As-of document scans merge current rows and history in id order, both ways, under the limit."""
        self.write(Commit(1, (document(A, b"a1"), document(C, b"c1"))))
        self.write(Commit(2, (document(A, None, True), document(B, b"b2"), document(C, b"c2", True))))

        def scan(ts, reverse=False, limit=9, lower=b"", upper=None):
            return [r.json for r in result_of(self.store.scan_documents_at(1, lower, upper, reverse, limit, ts))]

        self.assertEqual(scan(0), [])
        self.assertEqual(scan(1), [b"a1", b"c1"])
        self.assertEqual(scan(1, True, 1), [b"c1"])
        self.assertEqual(scan(1, upper=C), [b"a1"])
        self.assertEqual(scan(2), [b"b2", b"c2"])
        self.assertEqual(scan(2, lower=C, reverse=True), [b"c2"])

    def test_backfilled_entry_counts_from_its_document(self):
        """An entry that a backfill adds is valid from its document's timestamp; adding it again changes nothing."""
        self.write(Commit(3, (document(A, b"{}"),)))
        self.write(Commit(8, (), (added(b"k", A, ts=3),)))
        self.write(Commit(9, (), (added(b"k", A, ts=3),)))
        self.assertEqual(self.keys_at(2), [])
        self.assertEqual(self.keys_at(3), [b"k"])
        self.write(Commit(10, (document(A, None, True),), (removed(b"k", A),)))
        self.assertEqual(self.keys_at(9), [b"k"])
        self.assertEqual(self.keys_at(10), [])

    def test_removal_of_a_missing_entry(self):
        """A removal of an entry that was never filled in is no error and leaves no history."""
        self.write(Commit(1, (document(A, b"{}"),)))
        self.write(Commit(2, (document(A, b"2", True),), (removed(b"old", A), added(b"new", A))))
        self.assertEqual(self.keys(), [b"new"])
        self.assertEqual(self.keys_at(1), [])

    def test_timestamps_must_ascend(self):
        """A timestamp that is not newer than the last one is refused, and nothing of the group is kept."""
        self.write(insert(5, A, b"a"))
        for bad in ([insert(5, B, b"b")], [insert(6, B, b"b"), insert(6, C, b"c")], [insert(7, B, b"b"), Commit(6)]):
            with self.assertRaises(ValueError):
                self.write(*bad)
            self.assertEqual(result_of(self.store.recover()), 5)
            self.assertEqual(self.keys(), [b"a"])

    def test_wrong_previous_is_refused(self):
        """had_previous must tell the truth: else history would have holes. The whole group is refused."""
        self.write(insert(1, A, b"a"))
        wrong = (document(A, b"x"), document(B, b"x", True), document(B, None, True))
        for write in wrong:
            with self.assertRaises(ValueError):
                self.write(insert(2, C, b"c"), Commit(3, (write,)))
            self.assertEqual(result_of(self.store.recover()), 1)
            self.assertEqual(self.keys(), [b"a"])
            self.assertEqual(result_of(self.store.get_at(1, A, 9)), Row(A, A, 1, b"{}"))

    def test_insert_and_delete_in_one_commit(self):
        """A document that a commit makes and deletes leaves no trace."""
        self.write(Commit(1, (document(A, None),)))
        self.assertIsNone(self.store.get(1, A))
        self.assertIsNone(result_of(self.store.get_at(1, A, 1)))

    def test_last_ts_is_not_writable_as_meta(self):
        """The store's own meta key is refused."""
        with self.assertRaises(ValueError):
            self.write(Commit(1, meta=(("last_ts", b"99"),)))
        self.assertEqual(result_of(self.store.recover()), 0)

    def test_empty_commit_moves_the_clock(self):
        """A commit without writes is remembered as the newest timestamp (A10)."""
        self.write(Commit(77))
        self.reopen()
        self.assertEqual(self.store.last_ts, 77)

    def test_empty_group(self):
        """A group without commits is fine and changes nothing."""
        self.write()
        self.assertEqual(self.store.last_ts, 0)

    def test_failure_before_commit(self):
        """A write that failed left nothing; writing again is refused until recover, then works with newer timestamps."""
        self.write(insert(1, A, b"a"))
        self.break_next_write(OSError("disk I/O error"), applied=False)
        with self.assertRaises(OSError):
            self.write(insert(2, B, b"b"), insert(3, C, b"c"))
        self.assertEqual(self.keys(), [b"a"])
        self.assertEqual(self.store.last_ts, 1)
        with self.assertRaises(StorageFailed):
            self.write(insert(4, B, b"b"))
        self.assertEqual(result_of(self.store.recover()), 1)
        self.write(insert(4, B, b"b"))
        self.assertEqual(self.keys(), [b"a", b"b"])
        self.reopen()
        self.assertEqual(self.keys(), [b"a", b"b"])

    def test_failure_after_commit(self):
        """A write whose COMMIT reported an error may be in the file: recover tells, and all of the group is there."""
        self.write(insert(1, A, b"a"))
        self.break_next_write(OSError("disk I/O error"), applied=True)
        with self.assertRaises(OSError):
            self.write(insert(2, B, b"b"), insert(3, C, b"c"))
        self.assertEqual(result_of(self.store.recover()), 3)
        self.assertEqual(self.store.last_ts, 3)
        self.assertEqual(self.keys(), [b"a", b"b", b"c"])
        with self.assertRaises(ValueError):
            self.write(Commit(3))
        result_of(self.store.recover())
        self.write(Commit(4))

    def test_meta(self):
        """Meta values are replaced and deleted with their commit; the last one in a group wins."""
        self.write(Commit(1, meta=(("name", b"x"), ("other", b"\x00\xff"))))
        self.write(Commit(2, meta=(("name", b"y"),)), Commit(3, meta=(("name", b"z"), ("other", None))))
        self.assertEqual(self.store.get_meta("name"), b"z")
        self.assertIsNone(self.store.get_meta("other"))
        self.assertEqual(self.store.get_meta("last_ts"), b"3")

    def test_everything_outlives_a_restart(self):
        """After close and open all rows, history, ledger and meta are as before."""
        self.write(insert(1, A, b"a1", b"1"))
        self.write(
            Commit(
                2,
                (document(A, b"2", True),),
                (removed(b"a1", A), added(b"a2", A)),
                (LedgerEntry("s", 1, b"r", 10),),
                (("m", b"v"),),
            )
        )
        self.reopen()
        self.assertEqual(self.store.last_ts, 2)
        self.assertEqual(self.store.get(1, A), Row(A, A, 2, b"2"))
        self.assertEqual(self.keys(), [b"a2"])
        self.assertEqual(self.keys_at(1), [b"a1"])
        self.assertEqual(self.store.ledger_get("s", 1), StoredResult(2, b"r"))
        self.assertEqual(self.store.get_meta("m"), b"v")

    def test_closed_store_refuses(self):
        """A closed store raises at once instead of answering from nowhere."""
        result_of(self.store.close())
        with self.assertRaises(RuntimeError):
            self.store.get(1, A)
        with self.assertRaises(RuntimeError):
            self.store.scan_index(7, b"", None, False, 1)
        with self.assertRaises(RuntimeError):
            self.write(Commit(1))
        with self.assertRaises(RuntimeError):
            result_of(self.store.get_at(1, A, 1))

    # the ledger

    def test_ledger_keeps_sessions_apart(self):
        """(session, request) names one answer; a second answer for it is refused, the group with it."""
        self.write(Commit(1, ledger=(LedgerEntry("s", 1, b"one", 5), LedgerEntry("t", 1, b"two", 5))))
        self.assertEqual(self.store.ledger_get("s", 1), StoredResult(1, b"one"))
        self.assertEqual(self.store.ledger_get("t", 1), StoredResult(1, b"two"))
        self.assertIsNone(self.store.ledger_get("s", 2))
        with self.assertRaises(ValueError):
            self.write(insert(2, A, b"a"), Commit(3, ledger=(LedgerEntry("s", 1, b"again", 6),)))
        self.assertEqual(result_of(self.store.recover()), 1)
        self.assertEqual(self.keys(), [])

    def results(self):
        return [n for n in range(10) if self.store.ledger_get("s", n) is not None]

    def fill_ledger(self):
        """Ten answers of commits at 10, 20, … 100; each weighs 100 bytes. The wall clock goes back all the while."""
        for n in range(10):
            self.write(Commit(n * 10 + 10, ledger=(LedgerEntry("s", n, b"r" * 99, 1000 - n),)))

    def test_ledger_prune_by_age(self):
        """Entries of commits up to the limit go, oldest first, at most ``limit`` at a time."""
        self.fill_ledger()
        self.assertEqual(result_of(self.store.prune_ledger(50, 10**9, 0, 3)), 3)
        self.assertEqual(self.results(), [3, 4, 5, 6, 7, 8, 9])
        self.assertEqual(result_of(self.store.prune_ledger(50, 10**9, 0, 100)), 2)
        self.assertEqual(self.results(), [5, 6, 7, 8, 9])
        self.assertEqual(result_of(self.store.prune_ledger(50, 10**9, 0, 100)), 0)

    def test_ledger_prune_by_bytes(self):
        """While the sum is over the bound the oldest go, but none of a commit after ``keep_after_ts``."""
        self.fill_ledger()
        self.assertEqual(result_of(self.store.prune_ledger(0, 700, 100, 100)), 3)
        self.assertEqual(self.results(), [3, 4, 5, 6, 7, 8, 9])
        self.assertEqual(result_of(self.store.prune_ledger(0, 0, 50, 100)), 2)
        self.assertEqual(self.results(), [5, 6, 7, 8, 9])
        self.assertEqual(result_of(self.store.prune_ledger(0, 0, 50, 100)), 0)
        self.write(Commit(self.store.last_ts + 1, ledger=(LedgerEntry("s", 0, b"r" * 99, 100),)))
        self.assertEqual(result_of(self.store.prune_ledger(0, 500, 100, 100)), 1)
        self.assertEqual(self.results(), [0, 6, 7, 8, 9])

    def test_ledger_weight_survives_restart_and_recover(self):
        """The bound on bytes holds for what was there before a restart or a failed write."""
        self.fill_ledger()
        self.reopen()
        self.break_next_write(OSError("full"), applied=False)
        with self.assertRaises(OSError):
            self.write(Commit(199, ledger=(LedgerEntry("s", 99, b"r" * 999, 95),)))
        result_of(self.store.recover())
        self.assertEqual(result_of(self.store.prune_ledger(0, 800, 1000, 100)), 2)

    # pruning

    def make_history(self):
        """One document with versions at 1..6 and a key that changes at each: five superseded versions and entries."""
        self.write(insert(1, A, b"k1", b"1"))
        for ts in range(2, 7):
            moved = (removed(b"k%d" % (ts - 1), A), added(b"k%d" % ts, A))
            self.write(Commit(ts, (document(A, b"%d" % ts, True),), moved))

    def test_prune_history(self):
        """History that ended by the watermark goes; every timestamp from the watermark on still reads right."""
        self.make_history()
        self.assertEqual(result_of(self.store.prune_history(4, 100)), 6)
        self.assertEqual(result_of(self.store.prune_history(4, 100)), 0)
        for ts in (4, 5, 6):
            self.assertEqual(result_of(self.store.get_at(1, A, ts)).json, b"%d" % ts)
            self.assertEqual(self.keys_at(ts), [b"k%d" % ts])
        self.assertIsNone(result_of(self.store.get_at(1, A, 3)))

    def test_measure(self):
        """The size counts superseded rows and those of them that a pruning would delete."""
        size = result_of(self.store.measure(10**9))
        self.assertEqual((size.history_rows, size.prunable_rows), (0, 0))
        self.make_history()
        for before_ts, prunable in ((0, 0), (1, 0), (2, 2), (4, 6), (5, 8), (6, 10), (99, 10)):
            size = result_of(self.store.measure(before_ts))
            self.assertEqual((size.history_rows, size.prunable_rows), (10, prunable), before_ts)
        result_of(self.store.prune_history(4, 100))
        size = result_of(self.store.measure(5))
        self.assertEqual((size.history_rows, size.prunable_rows), (4, 2))

    def test_failed_prune_changes_nothing(self):
        """A pruning of a store that is closed is refused, and after opening all is as before."""
        self.make_history()
        result_of(self.store.close())
        with self.assertRaises(RuntimeError):
            result_of(self.store.prune_history(4, 100))
        with self.assertRaises(RuntimeError):
            result_of(self.store.measure(4))

    def test_prune_history_in_steps_with_restarts(self):
        """Pruning may stop after any step: what is left reads right and the next run goes on."""
        self.make_history()
        steps = 0
        while (deleted := result_of(self.store.prune_history(6, 1))) != 0:
            self.assertEqual(deleted, 1)
            steps += 1
            self.reopen()
            self.assertEqual(result_of(self.store.get_at(1, A, 6)).json, b"6")
            self.assertEqual(self.keys_at(6), [b"k6"])
        self.assertEqual(steps, 10)

    def test_prune_then_write(self):
        """History written after a pruning that emptied it is pruned in order too."""
        self.make_history()
        result_of(self.store.prune_history(100, 100))
        self.write(Commit(7, (document(A, b"7", True),)))
        self.write(Commit(8, (document(A, b"8", True),)))
        self.assertEqual(result_of(self.store.prune_history(7, 100)), 1)
        self.assertEqual(result_of(self.store.get_at(1, A, 7)).json, b"7")

    def test_delete_index(self):
        """A dropped index goes in steps, history too; other indexes and the documents stay."""
        self.make_history()
        self.write(Commit(7, (document(B, b"{}"),), (added(b"b", B), added(b"b", B, index=8))))
        self.assertEqual(result_of(self.store.delete_index(7, 3)), 3)
        self.assertEqual(self.keys(), [])
        self.assertEqual(result_of(self.store.delete_index(7, 100)), 4)
        self.assertEqual(result_of(self.store.delete_index(7, 100)), 0)
        self.assertEqual(self.keys_at(3), [])
        self.assertEqual(self.keys(index=8), [b"b"])
        self.assertEqual(result_of(self.store.count_documents(1)), 2)
