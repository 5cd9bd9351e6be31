"""Random commits, failures, restarts and prunings; every read at every kept timestamp must equal the brute-force model."""

import shutil
import tempfile

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from convex_backend.interfaces import Commit, DocumentWrite, IndexWrite
from convex_backend.storage.memory_persistence import MemoryPersistence
from tests.storage.faults import Faults, synchronous_store
from tests.storage.model import Model
from tests.storage.synchronous import result_of

IDS = st.sampled_from([bytes([n]) * 16 for n in range(1, 5)])
TABLETS = st.sampled_from([1, 2])
SORT = st.integers(0, 2)
# None deletes; a number is the new sort value of the document
CHANGES = st.dictionaries(st.tuples(TABLETS, IDS), st.none() | SORT, max_size=3)
BOUNDS = st.sampled_from([b"", b"\x00\x02", b"\x01", b"\x01\x03", b"\x02", b"\x03"])


def entry_key(sort, id):
    return bytes([sort]) + id


class HistoryMachine(RuleBasedStateMachine):
    """Drives one store and the model side by side. Index number = tablet; its key = sort value, then id."""

    def __init__(self):
        super().__init__()
        self.model = Model()
        self.live = {}
        self.floor = 0
        self.store = self.make()
        result_of(self.store.open())

    def make(self):
        raise NotImplementedError

    def reopen_store(self):
        raise NotImplementedError

    def break_write(self, applied):
        raise NotImplementedError

    def commits(self, group, gap):
        """Turn drawn changes into a group; returns it and what is live after it."""
        live, ts, commits = dict(self.live), self.model.last_ts, []
        for changes in group:
            ts += gap
            documents, indexes = [], []
            for (tablet, id), sort in changes.items():
                old = live.pop((tablet, id), None)
                if sort is None and old is None:
                    continue
                json = None if sort is None else b'{"ts":%d}' % ts
                documents.append(DocumentWrite(tablet, id, json, old is not None))
                if sort is not None:
                    live[tablet, id] = sort
                if old != sort:
                    if old is not None:
                        indexes.append(IndexWrite(tablet, entry_key(old, id), tablet, id, False))
                    if sort is not None:
                        indexes.append(IndexWrite(tablet, entry_key(sort, id), tablet, id, True))
            commits.append(Commit(ts, tuple(documents), tuple(indexes)))
        return commits, live

    @initialize(group=st.lists(CHANGES, min_size=1, max_size=5))
    def start(self, group):
        self.write(group, 1)

    @rule(group=st.lists(CHANGES, min_size=1, max_size=5), gap=st.integers(1, 3))
    def write(self, group, gap):
        commits, self.live = self.commits(group, gap)
        result_of(self.store.write(commits))
        self.model.commits.extend(commits)

    @rule(group=st.lists(CHANGES, min_size=1, max_size=3), applied=st.booleans())
    def failed_write(self, group, applied):
        commits, live = self.commits(group, 2)
        self.break_write(applied)
        try:
            result_of(self.store.write(commits))
        except OSError:
            pass
        else:
            raise AssertionError("the write should have failed")
        if applied:
            self.model.commits.extend(commits)
            self.live = live
        assert result_of(self.store.recover()) == self.model.last_ts

    @rule()
    def reopen(self):
        self.reopen_store()

    @rule(share=st.floats(0, 1), limit=st.integers(1, 6))
    def prune(self, share, limit):
        self.floor = max(self.floor, int(self.model.last_ts * share))
        assert result_of(self.store.prune_history(self.floor, limit)) <= limit

    @rule(
        share=st.floats(0, 1),
        lower=BOUNDS,
        upper=st.none() | BOUNDS,
        reverse=st.booleans(),
        limit=st.integers(0, 6),
        tablet=TABLETS,
        id=IDS,
    )
    def read_at(self, share, lower, upper, reverse, limit, tablet, id):
        ts = self.floor + int((self.model.last_ts + 2 - self.floor) * share)
        interval = (lower, upper, reverse, limit)
        assert result_of(self.store.get_at(tablet, id, ts)) == self.model.get(tablet, id, ts)
        found = result_of(self.store.scan_documents_at(tablet, *interval, ts))
        assert found == self.model.scan_documents(tablet, *interval, ts)
        found = result_of(self.store.scan_index_at(tablet, *interval, ts))
        assert found == self.model.scan_index(tablet, *interval, ts)

    @rule(
        lower=BOUNDS, upper=st.none() | BOUNDS, reverse=st.booleans(), limit=st.integers(0, 6), tablet=TABLETS, id=IDS
    )
    def read_now(self, lower, upper, reverse, limit, tablet, id):
        now = self.model.last_ts
        interval = (lower, upper, reverse, limit)
        assert self.store.get(tablet, id) == self.model.get(tablet, id, now)
        assert self.store.scan_documents(tablet, *interval) == self.model.scan_documents(tablet, *interval, now)
        assert self.store.scan_index(tablet, *interval) == self.model.scan_index(tablet, *interval, now)

    @invariant()
    def same_clock(self):
        assert self.store.last_ts == self.model.last_ts

    def teardown(self):
        for ts in range(self.floor, self.model.last_ts + 1):
            for tablet in (1, 2):
                whole = (b"", None, False, 99)
                found = result_of(self.store.scan_index_at(tablet, *whole, ts))
                assert found == self.model.scan_index(tablet, *whole, ts)
        result_of(self.store.close())


class MemoryMachine(HistoryMachine):
    def make(self):
        return MemoryPersistence()

    def reopen_store(self):
        result_of(self.store.close())
        result_of(self.store.open())

    def break_write(self, applied):
        def fail(commits):
            self.store.before_write = self.store.after_write = None
            raise OSError("broken")

        setattr(self.store, "after_write" if applied else "before_write", fail)


class SqliteMachine(HistoryMachine):
    def make(self):
        self.folder = tempfile.mkdtemp()
        self.faults = Faults()
        return synchronous_store(f"{self.folder}/db.sqlite3", self.faults)

    def reopen_store(self):
        result_of(self.store.close())
        self.store = synchronous_store(f"{self.folder}/db.sqlite3", self.faults)
        result_of(self.store.open())

    def break_write(self, applied):
        self.faults.applied, self.faults.error = applied, OSError("broken")

    def teardown(self):
        try:
            super().teardown()
        finally:
            shutil.rmtree(self.folder)


TestMemoryHistory = MemoryMachine.TestCase
TestMemoryHistory.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestSqliteHistory = SqliteMachine.TestCase
TestSqliteHistory.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
