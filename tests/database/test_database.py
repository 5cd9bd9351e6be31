"""The facade: start, restart, failed groups, subscriptions, system rows and the catalog."""

from __future__ import annotations

from random import Random

import attrs
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail

from convex_backend.database import index_cleanup
from convex_backend.database.catalog import Catalog, CatalogManager, CatalogNames
from convex_backend.database.counters import SIZE_PER_JSON_BYTE, document_size
from convex_backend.database.retention import DAY_SECONDS
from convex_backend.database.system_tables import SYSTEM_TABLES
from convex_backend.database.tables import add_index, create_table, remove_index, set_index_state
from convex_backend.errors import Conflict, ConvexError, OccConflict, Rerun, StorageFailed
from convex_backend.interfaces import LedgerEntry
from convex_backend.storage.memory_persistence import MemoryPersistence
from convex_backend.values.json_codec import dumps
from convex_backend.values.sort_key import encode_key
from tests.database.documents import Store, collect, index_query, run, scan


@pytest.fixture
def store():
    store = Store()
    yield store
    run(store.db.stop())


class Outcome:
    """What became of a coroutine that has to wait."""

    def __init__(self, coroutine):
        self.value = None
        self.error = None
        self.done = False
        Deferred.fromCoroutine(coroutine).addCallbacks(self._succeeded, self._failed)

    def _succeeded(self, value):
        self.value, self.done = value, True

    def _failed(self, failure):
        self.error, self.done = failure.value, True


class HeldWrites:
    """Holds the groups of a memory store until they are let go, or failed."""

    def __init__(self, persistence: MemoryPersistence) -> None:
        self.waiting: list[Deferred[None]] = []
        persistence.before_write = self._hold

    def _hold(self, commits):
        waiter: Deferred[None] = Deferred()
        self.waiting.append(waiter)
        return waiter

    def release(self, error: Exception | None = None) -> None:
        waiter = self.waiting.pop(0)
        if error is None:
            waiter.callback(None)
        else:
            waiter.errback(error)


def test_fixed_ids_do_not_collide():
    """System tablets and indexes have distinct ids below those of users."""
    ids = [index.id for table in SYSTEM_TABLES.values() for index in table.indexes]
    assert len(set(ids)) == len(ids)
    assert max(ids) < 100_000
    assert len({table.number for table in SYSTEM_TABLES.values()}) == len(SYSTEM_TABLES)


def test_restart_finds_everything_again(store):
    """Tables, indexes, schemas and rows are read back from the file; numbers and timestamps go on."""
    store.make_index("t", "by_n", "n")
    store.insert("t", {"n": 2.0}, {"n": 1.0})
    before = store.db.catalogs.newest
    ts = store.db.committer.durable_ts
    run(store.db.stop())
    again = Store(store.persistence, seed=9)
    after = again.db.catalogs.newest
    assert {key: (info.tablet, info.number) for key, info in after.by_name.items()} == {
        key: (info.tablet, info.number) for key, info in before.by_name.items()
    }
    assert again.db.committer.durable_ts > ts
    assert [orjson.loads(row)["n"] for row in collect(again.query(), index_query("t.by_n"))] == [1.0, 2.0]
    again.insert("u", {})
    assert again.db.catalogs.newest.by_name[(0, "u")].number == 10_002
    assert run(again.system().system.lookup("_components", "by_path", ("",)))[1]["component"] == 0


def test_a_file_of_a_newer_format_is_refused(store):
    """A format above ours is a clear error, not a misreading."""
    transaction = store.system()
    row_id, _ = run(transaction.system.lookup("_backend_state", "by_key", ("format",)))
    run(transaction.system.patch("_backend_state", row_id, {"format": 99}))
    store.commit(transaction)
    run(store.db.stop())
    with pytest.raises(ConvexError) as caught:
        Store(store.persistence)
    assert caught.value.code == "DatabaseTooNew"


@pytest.mark.parametrize("seed", range(6))
def test_the_catalog_kept_is_the_catalog_read(seed):
    """After random changes, failures and rollbacks included, the catalog in memory is the one that a restart reads from the file."""
    store = Store(seed=seed)
    random = Random(seed)
    for _ in range(25):
        transaction = store.system()
        run(transaction.ensure_begun())
        tables = transaction.catalog.tables_of(0)
        kind = random.choice(["table", "index", "state", "remove", "schema"])
        savepoint = transaction.savepoint()
        if kind == "table" or not tables:
            run(create_table(transaction, 0, f"t{len(tables)}"))
        elif kind == "schema":
            row = {"component": 0, "state": random.choice(["active", "pending"]), "error": None, "table": None}
            for row_id, _ in run(transaction.system.scan("_schemas", "by_state", (0, row["state"]))):
                run(transaction.system.delete("_schemas", row_id))
            run(transaction.system.insert("_schemas", {**row, "schema": '{"tables":[],"schemaValidation":true}'}))
        else:
            table = random.choice(tables)
            own = [index for index in table.indexes if index.name != "by_creation_time"]
            if kind == "index" or not own:
                name = f"by_{table.indexes[-1].id}"
                run(add_index(transaction, table, name, fields=("n", "_creationTime")))
            elif kind == "state":
                run(set_index_state(transaction, random.choice(own), random.choice(["backfilling", "enabled"])))
            else:
                run(remove_index(transaction, random.choice(own)))
        if random.random() < 0.2:
            transaction.rollback_to(savepoint)
        if transaction.writes and random.random() < 0.2:
            store.persistence.before_write = lambda commits: fail(OSError("disk"))
            with pytest.raises(ConvexError):
                store.commit(transaction)
            store.persistence.before_write = None
        else:
            store.commit(transaction)
        store.settle(0.05)
    kept = store.db.catalogs.newest
    read = CatalogManager(store.persistence)
    read.start(store.db.committer.durable_ts)
    assert described(read.newest) == described(kept)
    run(store.db.stop())


def described(catalog):
    return (
        {
            key: (info.tablet, info.number, [attrs.astuple(each) for each in info.indexes], info.maintained and True)
            for key, info in catalog.by_name.items()
        },
        {key: (info.row_id, info.text) for key, info in catalog.active.items()},
        {key: (info.row_id, info.text) for key, info in catalog.pending.items()},
        set(catalog.by_tablet),
    )


def test_mutations_see_pending_commits_and_queries_do_not(store):
    """While a group is being written, a mutation reads it and a query does not; nothing is answered before it is durable."""
    (message,) = store.insert("t", {"n": 1.0})
    held = HeldWrites(store.persistence)
    first = store.mutation()
    run(first.patch(message, {"n": 2.0}))
    committed = Outcome(store.db.commit(first))
    second = store.mutation()
    assert orjson.loads(run(second.get(message)))["n"] == 2.0
    assert [orjson.loads(row)["n"] for row in collect(second, scan("t"))] == [2.0]
    query = store.query()
    assert orjson.loads(run(query.get(message)))["n"] == 1.0
    assert [orjson.loads(row)["n"] for row in collect(query, scan("t"))] == [1.0]
    read_only = Outcome(store.db.commit(second))
    assert not committed.done
    assert not read_only.done
    held.release()
    assert committed.value == read_only.value == store.db.committer.durable_ts


def test_a_failed_group_takes_its_tables_back(store):
    """After a failed group the catalog is that of before, a running mutation that saw it must run again, and all goes on (A5)."""
    store.insert("t", {"n": 1.0})
    held = HeldWrites(store.persistence)
    first = store.mutation()
    run(first.insert("fresh", {"n": 1.0}))
    committed = Outcome(store.db.commit(first))
    second = store.mutation()
    assert len(collect(second, scan("fresh"))) == 1
    assert (0, "fresh") in store.db.catalogs.newest.by_name
    held.release(OSError("disk"))
    assert isinstance(committed.error, StorageFailed)
    assert (0, "fresh") not in store.db.catalogs.newest.by_name
    with pytest.raises(Rerun):
        run(second.insert("t", {})) and store.commit(second)
    second.close()
    store.persistence.before_write = None
    store.insert("fresh", {"n": 2.0})
    assert [orjson.loads(row)["n"] for row in collect(store.query(), scan("fresh"))] == [2.0]


def test_subscription_hears_only_what_was_consumed(store):
    """A live query over the first two rows is told of a change there, and not of one behind them."""
    store.make_index("t", "by_n", "n")
    ids = store.insert("t", *[{"n": float(n)} for n in range(5)])
    query = store.query()
    stream = query.open_stream(index_query("t.by_n"))
    run(stream.fetch(100))
    stream.consume(2)
    told: list[int] = []
    store.db.subscribe(query.read_token(), query.snapshot_ts, told.append)
    query.close()
    behind = store.mutation()
    run(behind.patch(ids[3], {"n": 3.5}))
    store.commit(behind)
    assert told == []
    inside = store.mutation()
    run(inside.patch(ids[4], {"n": 0.5}))
    assert told == []
    assert [store.commit(inside)] == told


def test_a_push_of_another_table_does_not_disturb_a_query(store):
    """New tables and indexes elsewhere do not invalidate a query (A8)."""
    store.make_index("t", "by_n", "n")
    query = store.query()
    collect(query, index_query("t.by_n"))
    told: list[int] = []
    store.db.subscribe(query.read_token(), query.snapshot_ts, told.append)
    query.close()
    store.make_index("u", "by_n", "n")
    store.make_index("t", "by_m", "m")
    assert told == []
    store.insert("t", {"n": 1.0})
    assert len(told) == 1


def test_ledger_entries_commit_with_their_mutation(store):
    """A mutation's answer is stored in its commit, also when it wrote nothing."""
    transaction = store.mutation()
    ts = run(store.db.commit(transaction, LedgerEntry("session", 1, b"answer", 5)))
    found = store.db.ledger_get("session", 1)
    assert (found.ts, found.result) == (ts, b"answer")
    assert store.db.ledger_get("session", 2) is None


def test_system_rows_round_trip(store):
    """Insert, look up, scan by prefix, patch, replace and delete; own writes are seen before the commit."""
    transaction = store.system()
    rows = transaction.system
    first = run(rows.insert("_environment_variables", {"component": 0, "name": "A", "value": "1"}))
    run(rows.insert("_environment_variables", {"component": 0, "name": "B", "value": "2"}))
    run(rows.insert("_environment_variables", {"component": 1, "name": "A", "value": "3"}))
    found = run(rows.lookup("_environment_variables", "by_name", (0, "A")))
    assert (found[0], found[1]["value"]) == (first, "1")
    run(rows.patch("_environment_variables", first, {"name": "Z"}))
    assert run(rows.lookup("_environment_variables", "by_name", (0, "A"))) is None
    assert [row["name"] for _, row in run(rows.scan("_environment_variables", "by_name", (0,)))] == ["B", "Z"]
    assert len(run(rows.scan("_environment_variables", "by_name", (0,), limit=1))) == 1
    store.commit(transaction)
    later = store.system()
    run(later.system.replace("_environment_variables", first, {"component": 0, "name": "Z", "value": "9"}))
    assert run(later.system.get("_environment_variables", first))[1]["value"] == "9"
    run(later.system.delete("_environment_variables", first))
    assert run(later.system.get("_environment_variables", first)) is None
    with pytest.raises(KeyError):
        run(later.system.patch("_environment_variables", first, {}))
    store.commit(later)
    assert len(run(store.system().system.scan("_environment_variables"))) == 2


def test_unique_system_indexes_are_unique(store):
    """A second row of one key is refused, and two transactions that add it at once conflict."""
    one, two = store.system(), store.system()
    value = {"component": 0, "name": "A", "value": "1"}
    run(one.system.insert("_environment_variables", value))
    with pytest.raises(Conflict):
        run(one.system.insert("_environment_variables", value))
    run(two.system.insert("_environment_variables", value))
    store.commit(one)
    with pytest.raises(OccConflict):
        store.commit(two)


def test_a_lookup_of_nothing_is_a_read(store):
    """A query that found no environment variable is told when it is set, and not when another is."""
    query = store.query()
    assert run(query.system.lookup("_environment_variables", "by_name", (0, "A"))) is None
    told: list[int] = []
    store.db.subscribe(query.read_token(), query.snapshot_ts, told.append)
    assert query.metrics()["databaseQueries"]["used"] == 0
    query.close()
    for name, expected in (("B", 0), ("A", 1)):
        transaction = store.system()
        run(transaction.system.insert("_environment_variables", {"component": 0, "name": name, "value": "1"}))
        store.commit(transaction)
        assert len(told) == expected


def test_a_hot_system_row_is_claimed_before_it_is_read(store):
    """The first read of a run at a hot system row moves the snapshot; it does not make the run start again."""
    transaction = store.system()
    row_id = run(transaction.system.insert("_environment_variables", {"component": 0, "name": "A", "value": "1"}))
    store.commit(transaction)
    index = SYSTEM_TABLES["_environment_variables"].index("by_name").id
    lanes = store.db.committer.lanes
    lanes.lane((index, encode_key((0, "A"))))
    mutation = store.mutation(ticket=lanes.ticket())
    run(mutation.ensure_begun())
    other = store.system()
    run(other.system.patch("_environment_variables", row_id, {"value": "2"}))
    store.commit(other)
    assert run(mutation.system.lookup("_environment_variables", "by_name", (0, "A")))[1]["value"] == "2"
    assert mutation.moves == 1
    mutation.ticket.release_all()
    mutation.close()


def test_lookup_needs_a_unique_index_and_all_its_fields(store):
    """Misuse of a lookup is a fault of ours, told at once."""
    transaction = store.system()
    for index, values in (("by_name", (0,)), ("by_state", (0, "active"))):
        with pytest.raises((ValueError, KeyError)):
            run(transaction.system.lookup("_schemas" if index == "by_state" else "_tables", index, values))
    transaction.close()


def test_rows_held_by_the_child_are_validated_when_the_snapshot_moves(store):
    """Rows fetched ahead were read at the old snapshot: when a lane moves it and they have changed, the mutation runs again."""
    (hot,) = store.insert("hot", {"n": 0.0})
    (row,) = store.insert("t", {"n": 1.0})
    lanes = store.db.committer.lanes
    lanes.lane((-store.db.catalogs.newest.by_name[(0, "hot")].tablet, _internal(hot)))
    for changed in (False, True):
        ticket = lanes.ticket()
        transaction = store.mutation(ticket=ticket)
        stream = transaction.open_stream(scan("t"))
        assert len(run(stream.fetch(10))[0]) == 1
        other = store.mutation()
        if changed:
            run(other.patch(row, {"n": 2.0}))
        else:
            run(other.insert("elsewhere", {}))
        store.commit(other)
        if changed:
            with pytest.raises(Rerun):
                run(transaction.get(hot))
        else:
            run(transaction.get(hot))
            assert transaction.moves == 1
            assert transaction.snapshot_ts == store.db.committer.pending_ts
            assert collect(transaction, scan("elsewhere")) != []
        transaction.close()
        ticket.release_all()


def _internal(document_id: str) -> bytes:
    from convex_backend.values.ids import decode_id

    return decode_id(document_id)[1]


def test_names_for_validators(store):
    """User tables by number, virtual tables under their names, private ones as system tables."""
    store.insert("t", {})
    names = CatalogNames(store.db.catalogs.newest, 0)
    assert names.table_of_number(10_001) == ("t", False)
    assert names.table_of_number(540) == ("_storage", False)
    assert names.table_of_number(513) == ("_tables", True)
    assert names.table_of_number(77) is None
    assert CatalogNames(Catalog.empty(), 0).table_of_number(10_001) is None


VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.sampled_from([0.0, 1.0, -0.5]), st.floats(), st.integers(0, 9), st.text(max_size=3)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=30), st.dictionaries(st.sampled_from(["", "a", "bb"]), inner, max_size=3)
    ),
    max_leaves=40,
)


@settings(max_examples=200, deadline=None)
@given(document=st.dictionaries(st.sampled_from(["", "a", "bb"]), VALUES, max_size=3))
@example({"": [1.0] * 500})
@example({"": [[]] * 500})
def test_the_size_bound_holds(document):
    """A document's size is never above the bound that stands for it until it is measured."""
    json = dumps(document)
    assert document_size(json) <= SIZE_PER_JSON_BYTE * len(json)


def test_dropped_index_entries_are_deleted_behind_the_watermark(store):
    """Entries of a dropped index stay while an older snapshot may ask for them, and go afterwards, in steps."""
    previous, index_cleanup.STEP_ENTRIES = index_cleanup.STEP_ENTRIES, 2
    try:
        store.insert("t", *[{"n": float(n)} for n in range(5)])
        transaction = store.system()
        run(transaction.ensure_begun())
        index = run(add_index(transaction, transaction.catalog.table(0, "t"), "by_n", fields=("n", "_creationTime")))
        store.commit(transaction)
        store.settle(0.5)
        transaction = store.system()
        run(transaction.ensure_begun())
        run(remove_index(transaction, transaction.catalog.index_rows[index.row_id]))
        store.commit(transaction)
        store.timers.advance(61)
        assert len(store.persistence.scan_index(index.id, b"", None, False, 10)) == 5
        store.clock.ns += int(3 * DAY_SECONDS * 1e9)
        for days in (0.1, 3):
            store.timers.advance(days * DAY_SECONDS)
        store.insert("t", {"n": 9.0})
        run(store.db.retention.run_once())
        store.timers.advance(61)
        assert store.persistence.scan_index(index.id, b"", None, False, 10) == []
        assert run(store.system().system.lookup("_backend_state", "by_key", (f"dropped_index:{index.id}",))) is None
    finally:
        index_cleanup.STEP_ENTRIES = previous
