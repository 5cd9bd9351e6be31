"""The contract, held by MemoryPersistence."""

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from convex_backend.interfaces import Commit
from convex_backend.storage.memory_persistence import MemoryPersistence
from tests.storage.contract import A, PersistenceContract, insert
from tests.storage.synchronous import result_of


class MemoryPersistenceTests(PersistenceContract, SynchronousTestCase):
    def setUp(self):
        self.store = MemoryPersistence()
        result_of(self.store.open())

    def reopen(self):
        result_of(self.store.close())
        result_of(self.store.open())

    def break_next_write(self, error, applied):
        def fail(commits):
            self.store.before_write = self.store.after_write = None
            raise error

        setattr(self.store, "after_write" if applied else "before_write", fail)

    def test_a_held_write(self):
        """A test may hold a write before and after it is applied: last_ts moves when it fires, rows when it is applied."""
        before, after = Deferred(), Deferred()
        self.store.before_write = lambda commits: before
        self.store.after_write = lambda commits: after
        done = self.store.write([insert(3, A, b"a"), Commit(4)])
        self.assertEqual(self.keys(), [])
        before.callback(None)
        self.assertEqual(self.keys(), [b"a"])
        self.assertEqual(self.store.last_ts, 0)
        self.assertNoResult(done)
        after.callback(None)
        self.successResultOf(done)
        self.assertEqual(self.store.last_ts, 4)
