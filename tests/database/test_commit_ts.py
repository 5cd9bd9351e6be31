"""``db.vars.commitTs`` in documents: a placeholder until the commit, the commit's timestamp afterwards (``runtime.md`` section 10)."""

from __future__ import annotations

import orjson
import pytest

from convex_backend.values.commit_ts import resolve_text
from convex_backend.values.json_codec import loads, to_json
from convex_backend.values.kinds import COMMIT_TS, INT64_MAX, UNDEFINED
from tests.database.documents import Store, collect, index_query, run, scan

HELD = {"$commitTs": None}


@pytest.fixture
def store():
    store = Store()
    store.make_index("jobs", "by_at", "at")
    store.make_index("jobs", "by_nested", "deep.at")
    yield store
    run(store.db.stop())


def read(store: Store, document_id: str) -> dict:
    return loads(run(store.query().get(document_id)))


def test_the_placeholder_resolves_at_commit_wherever_it_stands(store):
    """In a field, nested in an object and in an array: all become the commit's timestamp, an int64."""
    transaction = store.mutation()
    document_id = run(
        transaction.insert("jobs", {"at": COMMIT_TS, "deep": {"at": COMMIT_TS, "list": [1.0, COMMIT_TS]}})
    )
    ts = store.commit(transaction)
    document = read(store, document_id)
    assert document["at"] == ts
    assert document["deep"] == {"at": ts, "list": [1.0, ts]}


def test_before_the_commit_it_reads_back_as_the_placeholder(store):
    """Gets, patches and deletes of the own document work on the placeholder."""
    transaction = store.mutation()
    document_id = run(transaction.insert("jobs", {"at": COMMIT_TS}))
    assert orjson.loads(run(transaction.get(document_id)))["at"] == HELD
    merged = orjson.loads(run(transaction.patch(document_id, {"n": 1.0})))
    assert (merged["at"], merged["n"]) == (HELD, 1.0)
    replaced = orjson.loads(run(transaction.replace(document_id, {"at": 5, "other": COMMIT_TS})))
    assert replaced["other"] == HELD
    ts = store.commit(transaction)
    document = read(store, document_id)
    assert (document["at"], document["other"]) == (5, ts)

    transaction = store.mutation()
    run(transaction.patch(document_id, {"at": COMMIT_TS, "other": UNDEFINED}))
    removed = orjson.loads(run(transaction.delete(document_id)))
    assert removed["at"] == HELD
    store.commit(transaction)
    assert run(store.query().get(document_id)) is None


def test_before_the_commit_it_sorts_as_the_largest_int64(store):
    """In an index, and in a filter: behind every timestamp that is known, before every float."""
    store.insert("jobs", {"at": 7}, {"at": INT64_MAX - 1}, {"at": 0.5})
    transaction = store.mutation()
    run(transaction.insert("jobs", {"at": COMMIT_TS}))
    rows = [orjson.loads(row)["at"] for row in collect(transaction, index_query("jobs.by_at"))]
    assert rows == [to_json(7), to_json(INT64_MAX - 1), HELD, 0.5]
    own = collect(transaction, index_query("jobs.by_at", ("Gte", "at", HELD), ("Lt", "at", 0.0)))
    assert [orjson.loads(row)["at"] for row in own] == [HELD]
    above = {"filter": {"$gt": [{"$field": "at"}, {"$literal": to_json(INT64_MAX - 1)}]}}
    assert [orjson.loads(row)["at"] for row in collect(transaction, scan("jobs", None, above))] == [0.5, HELD]


def test_after_the_commit_the_index_knows_the_timestamp(store):
    """A range around the timestamp finds the document, in an index of the field and in one of a nested field; one at the largest int64 does not."""
    transaction = store.mutation()
    document_id = run(transaction.insert("jobs", {"at": COMMIT_TS, "deep": {"at": COMMIT_TS}}))
    ts = store.commit(transaction)
    for name, field in (("jobs.by_at", "at"), ("jobs.by_nested", "deep.at")):
        found = collect(store.query(), index_query(name, ("Eq", field, to_json(ts))))
        assert [orjson.loads(row)["_id"] for row in found] == [document_id]
        assert collect(store.query(), index_query(name, ("Eq", field, HELD))) == []
    transaction = store.mutation()
    run(transaction.patch(document_id, {"at": COMMIT_TS}))
    later = store.commit(transaction)
    assert later > ts
    assert collect(store.query(), index_query("jobs.by_at", ("Eq", "at", to_json(ts)))) == []
    assert len(collect(store.query(), index_query("jobs.by_at", ("Eq", "at", to_json(later))))) == 1


def test_timestamps_follow_the_order_of_commits(store):
    """A queue by commit timestamp gives the jobs in commit order, whatever order they were begun in."""
    first, second = store.mutation(), store.mutation()
    run(first.insert("jobs", {"name": "begun first", "at": COMMIT_TS}))
    run(second.insert("jobs", {"name": "begun second", "at": COMMIT_TS}))
    store.commit(second)
    store.commit(first)
    rows = collect(store.query(), index_query("jobs.by_at", ("Gt", "at", None)))
    assert [orjson.loads(row)["name"] for row in rows] == ["begun second", "begun first"]


def test_readers_of_the_range_are_told(store):
    """A subscription on the keys that the commit really wrote is invalidated; so is a mutation that read them."""
    told = []
    reader = store.query()
    collect(reader, index_query("jobs.by_at", ("Gt", "at", to_json(1)), ("Lt", "at", to_json(INT64_MAX - 1))))
    store.db.subscribe(reader.read_token(), reader.snapshot_ts, told.append)
    transaction = store.mutation()
    run(transaction.insert("jobs", {"at": COMMIT_TS}))
    ts = store.commit(transaction)
    assert told == [ts]


def test_a_rolled_back_placeholder_leaves_nothing(store):
    """A nested mutation that wrote one and failed leaves the parent's documents as they were."""
    transaction = store.mutation()
    kept = run(transaction.insert("jobs", {"at": 1}))
    mark = transaction.savepoint()
    run(transaction.patch(kept, {"at": COMMIT_TS}))
    transaction.rollback_to(mark)
    store.commit(transaction)
    assert read(store, kept)["at"] == 1


def test_it_counts_as_an_int64(store):
    """The metrics measure a document with a placeholder like one with an int64."""
    sizes = []
    for value in (COMMIT_TS, 5):
        transaction = store.mutation()
        document_id = run(transaction.insert("jobs", {"at": value}))
        run(transaction.get(document_id))
        metrics = transaction.metrics()
        sizes.append((metrics["bytesWritten"]["used"], metrics["bytesRead"]["used"]))
    assert sizes[0] == sizes[1]


def test_values_that_only_look_like_one():
    """A string that spells the mark stays a string."""
    assert resolve_text(b'{"a":"$commitTs"}', 5) == b'{"a":"$commitTs"}'
    assert loads(resolve_text(b'[{"$commitTs":null},"$commitTs"]', 5)) == [5, "$commitTs"]
