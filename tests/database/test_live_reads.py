"""Subscriptions against random data: a result that was not invalidated equals a fresh run, and a write elsewhere invalidates nothing."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.database.documents import Store, collect, index_query, run, scan

VALUES = st.integers(0, 6)
GROUPS = st.sampled_from(["a", "b"])
ORDERS = st.sampled_from(["asc", "desc"])


class Watch:
    """One live query: what it gave, and where it reads.

    :param covers: whether the document, as it was or will be, may be among what the query looks at, by its definition.
    """

    def __init__(self, store: Store, query: dict[str, Any], take: int | None, covers: Any) -> None:
        self.store, self.query, self.take, self.covers = store, query, take, covers
        self.invalid = False
        self.reasons: list[str] = []
        transaction = store.query()
        self.rows = self.read(transaction)
        self.subscription = store.db.subscribe(transaction.read_token(), transaction.snapshot.ts, self.on_invalid)
        transaction.close()

    def on_invalid(self, ts: int) -> None:
        self.invalid = True

    def read(self, transaction: Any) -> list[bytes]:
        if self.take is None:
            return collect(transaction, self.query, 2)
        stream = transaction.open_stream(self.query)
        found: list[bytes] = []
        while len(found) < self.take:
            # A page ahead is not a read: only what is taken counts.
            rows, done = run(stream.fetch(5))
            used = rows[: self.take - len(found)]
            found.extend(used)
            stream.consume(len(used) + (done and len(used) == len(rows) and len(found) < self.take))
            if done or len(used) < len(rows):
                break
        transaction.close_stream(stream)
        return found

    def is_disjoint(self, document: dict[str, Any]) -> bool:
        """Whether the query cannot have looked at *document*."""
        if not self.covers(document):
            return True
        if self.take is None or len(self.rows) < self.take:
            return False
        # A full take ends at its last row.
        last = orjson.loads(self.rows[-1])
        keys = [(one["group"], one["n"], one["_creationTime"], one["_id"]) for one in (document, last)]
        descending = self.query["source"]["order"] == "desc"
        if self.query["source"]["type"] != "IndexRange":
            keys = [key[2:] for key in keys]
        return keys[0] < keys[1] if descending else keys[0] > keys[1]


class LiveMachine(RuleBasedStateMachine):
    """Documents come, go and move between ranges while queries watch them."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.store.make_index("t", "by_group_n", "group", "n")
        self.store.insert("t", *({"group": "ab"[n % 2], "n": float(n % 7)} for n in range(6)))
        self.store.insert("other", {"n": 0.0})
        self.watches: list[Watch] = []

    def documents(self, table: str = "t") -> list[dict[str, Any]]:
        transaction = self.store.query()
        found = [orjson.loads(row) for row in collect(transaction, scan(table))]
        transaction.close()
        return found

    @rule(group=GROUPS, low=VALUES, high=VALUES, order=ORDERS, take=st.sampled_from([None, 1, 2, 3]))
    def watch_range(self, group: str, low: int, high: int, order: str, take: int | None) -> None:
        query = index_query(
            "t.by_group_n",
            ("Eq", "group", group),
            ("Gte", "n", float(low)),
            ("Lt", "n", float(high)),
            order=order,
        )
        self.watches.append(
            Watch(self.store, query, take, lambda one: one["group"] == group and low <= one["n"] < high)
        )

    @rule(order=ORDERS, take=st.sampled_from([None, 1, 2, 3]))
    def watch_table(self, order: str, take: int | None) -> None:
        self.watches.append(Watch(self.store, scan("t", order), take, lambda one: True))

    @rule(pick=st.integers(0, 99))
    def watch_document(self, pick: int) -> None:
        documents = self.documents()
        if documents:
            id = documents[pick % len(documents)]["_id"]
            self.watches.append(DocumentWatch(self.store, id))

    @rule(
        changes=st.lists(
            st.tuples(st.sampled_from(["insert", "patch", "delete", "other"]), st.integers(0, 99), GROUPS, VALUES),
            min_size=1,
            max_size=3,
        )
    )
    def commit(self, changes: list[tuple[str, int, str, int]]) -> None:
        transaction = self.store.mutation()
        documents = {one["_id"]: one for one in self.documents()}
        touched: list[dict[str, Any]] = []
        for kind, pick, group, n in changes:
            ids = sorted(documents)
            if kind == "other":
                run(transaction.insert("other", {"n": float(n)}))
            elif kind == "insert":
                id = run(transaction.insert("t", {"group": group, "n": float(n)}))
                documents[id] = orjson.loads(run(transaction.get(id)))
                touched.append(documents[id])
            elif ids:
                id = ids[pick % len(ids)]
                touched.append(documents.pop(id))
                if kind == "patch":
                    run(transaction.patch(id, {"group": group, "n": float(n)}))
                    documents[id] = orjson.loads(run(transaction.get(id)))
                    touched.append(documents[id])
                else:
                    run(transaction.delete(id))
        before = [watch for watch in self.watches if not watch.invalid]
        self.store.commit(transaction)
        for watch in before:
            if all(watch.is_disjoint(one) for one in touched):
                assert not watch.invalid, (watch.query, watch.take, touched)

    @rule(pick=st.integers(0, 99))
    def stop_watching(self, pick: int) -> None:
        if self.watches:
            self.watches.pop(pick % len(self.watches)).subscription.unsubscribe()

    @invariant()
    def live_results_are_fresh(self) -> None:
        transaction = self.store.query()
        for watch in self.watches:
            if not watch.invalid:
                assert watch.read(transaction) == watch.rows
        transaction.close()

    def teardown(self) -> None:
        run(self.store.db.stop())


class DocumentWatch(Watch):
    """A live ``get``."""

    def __init__(self, store: Store, id: str) -> None:
        self.id = id
        super().__init__(store, {}, None, lambda one: one["_id"] == id)

    def read(self, transaction: Any) -> list[bytes]:
        row = run(transaction.get(self.id))
        return [] if row is None else [bytes(row)]


TestLiveReads = LiveMachine.TestCase
TestLiveReads.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.mark.slow
def test_live_reads_at_length() -> None:
    """A longer search of the same property."""
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(LiveMachine, settings=settings(max_examples=600, stateful_step_count=50, deadline=None))
