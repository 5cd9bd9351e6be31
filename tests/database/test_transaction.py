"""Documents in one transaction: gets, writes, their texts, savepoints and limits."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import orjson
import pytest

from convex_backend.database.counters import TransactionLimits
from convex_backend.errors import ConvexError, OccConflict, PaginationLimit
from convex_backend.values.ids import decode_id, encode_id
from convex_backend.values.kinds import UNDEFINED
from tests.database.documents import START_NS, Store, collect, run, scan


@pytest.fixture
def store():
    store = Store()
    yield store
    run(store.db.stop())


def text_of(coroutine) -> str:
    with pytest.raises(ConvexError) as caught:
        run(coroutine)
    return caught.value.message


def missing_id(store: Store, table: str = "messages") -> str:
    number = store.db.catalogs.newest.by_name[(0, table)].number
    return encode_id(number, bytes(16))


def test_insert_makes_the_table_and_the_document_is_read_back(store):
    """The first insert creates the table with number 10001; the stored JSON is canonical and has the system fields."""
    transaction = store.mutation()
    document_id = run(transaction.insert("messages", {"b": 1.0, "a": 5}))
    number, internal = decode_id(document_id)
    assert number == 10_001
    assert len(internal) == 16
    store.commit(transaction)
    json = run(store.query().get(document_id))
    assert json.startswith(b'{"_creationTime":')
    assert orjson.loads(json) == {
        "_id": document_id,
        "_creationTime": orjson.loads(json)["_creationTime"],
        "a": {"$integer": "BQAAAAAAAAA="},
        "b": 1.0,
    }


def test_table_numbers_are_the_first_free_ones(store):
    """Each new table of a component gets the first free number; another component starts again at 10001."""
    store.insert("one", {})
    store.insert("two", {})
    other = store.db.begin("mutation", component=7)
    assert decode_id(run(other.insert("one", {})))[0] == 10_001
    store.commit(other)
    catalog = store.db.catalogs.newest
    assert (catalog.by_name[(0, "one")].number, catalog.by_name[(0, "two")].number) == (10_001, 10_002)
    assert catalog.by_name[(0, "one")].tablet != catalog.by_name[(7, "one")].tablet


def test_components_do_not_see_each_others_rows(store):
    """An id of another component's row is not found."""
    (document_id,) = store.insert("messages", {})
    other = store.db.begin("query", component=7)
    assert run(other.get(document_id)) is None
    assert collect(other, scan("messages")) == []


def test_two_first_inserts_conflict_and_leave_one_table(store):
    """Two transactions that both create the same table cannot both commit."""
    first, second = store.mutation(), store.mutation()
    run(first.insert("messages", {"n": 1.0}))
    run(second.insert("messages", {"n": 2.0}))
    store.commit(first)
    with pytest.raises(OccConflict):
        store.commit(second)
    assert len(store.db.catalogs.newest.by_tablet) == 1


def test_inserts_into_an_existing_table_do_not_conflict(store):
    """Blind inserts never conflict with each other."""
    store.insert("messages", {})
    first, second = store.mutation(), store.mutation()
    run(first.insert("messages", {"n": 1.0}))
    run(second.insert("messages", {"n": 2.0}))
    store.commit(first)
    store.commit(second)
    assert len(collect(store.query(), scan("messages"))) == 3


def test_creation_time_is_the_next_float_each_time(store):
    """Within one transaction creation times are consecutive doubles, starting at its begin in milliseconds."""
    transaction = store.mutation()
    ids = [run(transaction.insert("messages", {})) for _ in range(4)]
    times = [orjson.loads(run(transaction.get(each)))["_creationTime"] for each in ids]
    assert times[0] >= START_NS / 1e6
    for before, after in pairwise(times):
        assert after == math.nextafter(before, math.inf)
    transaction.close()


def test_ids_end_with_the_day(store):
    """An internal id is 14 random bytes and the number of the day."""
    ids = store.insert("messages", {}, {})
    internal = [decode_id(each)[1] for each in ids]
    day = START_NS // (86_400 * 10**9)
    assert all(each[14:] == day.to_bytes(2, "big") for each in internal)
    assert internal[0][:14] != internal[1][:14]


def test_get_texts(store):
    """Every text of ``db.get`` and ``db.system.get``."""
    (message,) = store.insert("messages", {})
    store.insert("users", {})
    storage_id, tables_id = encode_id(540, bytes(16)), encode_id(513, bytes(16))
    query = store.query()
    assert text_of(query.get("x")) == "Invalid argument `id` for `db.get`: Unable to decode ID: Invalid ID length 1"
    assert text_of(query.get("x", None, True)) == (
        "Invalid argument `id` for `db.system.get`: Unable to decode ID: Invalid ID length 1"
    )
    assert text_of(query.get(message, "users")) == (
        'Invalid argument `id` for `db.get`: expected to be an Id<"users">, got Id<"messages"> instead.'
    )
    assert text_of(query.get(message, None, True)) == "User tables cannot be accessed with db.system."
    assert text_of(query.get(storage_id)) == "System tables can only be accessed with db.system."
    assert run(query.get(storage_id, None, True)) is None
    assert run(query.get(tables_id, None, True)) is None
    assert run(query.get(encode_id(20_000, bytes(16)))) is None
    assert run(query.get(missing_id(store))) is None
    assert run(query.get(message, "messages")) is not None


def test_write_texts(store):
    """Texts of writes to missing documents, wrong tables and system tables."""
    (message,) = store.insert("messages", {})
    missing, storage_id = missing_id(store), encode_id(540, bytes(16))
    tx = store.mutation()
    assert text_of(tx.patch(missing, {})) == f"Update on nonexistent document ID {missing}"
    assert text_of(tx.replace(missing, {})) == f"Replace on nonexistent document ID {missing}"
    assert text_of(tx.delete(missing)) == f"Delete on nonexistent document ID {missing}"
    other = encode_id(20_000, bytes(16))
    assert text_of(tx.delete(other)) == f"Delete on nonexistent document ID {other}"
    assert text_of(tx.patch(message, {}, "users")) == (
        'Invalid argument `id` for `db.patch`: expected to be an Id<"users">, got Id<"messages"> instead.'
    )
    assert text_of(tx.replace("x", {})).startswith("Invalid argument `id` for `db.replace`: Unable to decode ID: ")
    assert text_of(tx.delete("x")).startswith("Invalid argument `id` for `db.delete`: Unable to decode ID: ")
    for write in (tx.patch(storage_id, {}), tx.replace(storage_id, {}), tx.delete(storage_id)):
        assert text_of(write) == "System tables can only be accessed with db.system."
    assert text_of(tx.insert("_storage", {})) == "_storage is a read-only table"
    assert text_of(tx.insert("_tables", {})) == "System tables can only be accessed with db.system."
    assert text_of(tx.insert("messages", [])) == "Invalid argument `value` for `db.insert`: Value must be an Object"
    assert text_of(tx.insert("a-b", {})).startswith("Invalid argument `table` for `db.insert`: ")
    tx.close()


def test_system_fields_must_be_those_of_the_document(store):
    """A given ``_id`` or ``_creationTime`` must equal the stored one; both faults are listed."""
    (message,) = store.insert("messages", {"n": 1.0})
    other = missing_id(store)
    tx = store.mutation()
    created = orjson.loads(run(tx.get(message)))["_creationTime"]
    text = text_of(tx.replace(message, {"_id": other, "_creationTime": 5.0}))
    shown = f'{{_creationTime: 5.0, _id: "{other}"}}'
    assert text == (
        f"{shown} isn't a valid document: Provided document ID \"{message}\" doesn't match '_id' field \"{other}\"\n "
        f"Provided creation time {created} doesn't match '_creationTime' field in {shown}"
    )
    assert orjson.loads(run(tx.replace(message, {"_id": message, "_creationTime": created, "n": 2.0})))["n"] == 2.0
    assert "doesn't match '_id' field" in text_of(tx.insert("messages", {"_id": message}))
    tx.close()


def test_document_rules(store):
    """Underscore fields, nesting and size are checked with the texts of section 4.3."""
    tx = store.mutation()
    assert text_of(tx.insert("messages", {"_x": 1.0})).endswith(
        "isn't a valid document: Field '_x' starts with an underscore, which is only allowed for system fields like '_id'"
    )
    deep: object = 1.0
    for _ in range(16):
        deep = [deep]
    assert text_of(tx.insert("messages", {"a": deep})).endswith(
        "Document is too nested (nested 17 levels deep > maximum nesting 16)"
    )
    assert text_of(tx.insert("messages", {"a": "x" * (1 << 20)})) == ("Value is too large (1 MiB > maximum size 1 MiB)")
    assert orjson.loads(run(tx.get(run(tx.insert("messages", {"a": "$commitTs"})))))["a"] == "$commitTs"
    tx.close()


def test_patch_merges_deletes_and_returns_the_document(store):
    """Top-level fields are replaced, ``UNDEFINED`` removes; nested objects are replaced whole."""
    (message,) = store.insert("messages", {"a": 1.0, "b": {"x": 1.0}, "c": True})
    tx = store.mutation()
    merged = orjson.loads(run(tx.patch(message, {"a": UNDEFINED, "b": {"y": 2.0}})))
    assert {name: merged[name] for name in merged if name[0] != "_"} == {"b": {"y": 2.0}, "c": True}
    assert run(tx.get(message)) == orjson.dumps(merged, option=orjson.OPT_SORT_KEYS)
    assert run(store.query().get(message)) != run(tx.get(message))
    store.commit(tx)
    assert orjson.loads(run(store.query().get(message))) == merged


def test_a_patch_that_changes_nothing_writes_nothing(store):
    """It counts as a write, but no change is committed and nobody conflicts with it."""
    (message,) = store.insert("messages", {"a": 1.0})
    reader, writer = store.mutation(), store.mutation()
    run(reader.get(message))
    run(reader.patch(message, {"a": 2.0}))
    run(writer.patch(message, {"a": 1.0}))
    assert not writer.writes
    assert writer.metrics()["documentsWritten"]["used"] == 1
    store.commit(writer)
    store.commit(reader)


def test_delete_returns_the_document_and_own_reads_see_it(store):
    """A deleted document is gone for its own transaction, and for others after the commit."""
    (message, kept) = store.insert("messages", {"a": 1.0}, {"a": 2.0})
    tx = store.mutation()
    assert orjson.loads(run(tx.delete(message)))["a"] == 1.0
    assert run(tx.get(message)) is None
    assert text_of(tx.delete(message)) == f"Delete on nonexistent document ID {message}"
    assert [orjson.loads(row)["_id"] for row in collect(tx, scan("messages"))] == [kept]
    store.commit(tx)
    assert run(store.query().get(message)) is None


def test_a_query_keeps_its_timestamp(store):
    """A query that began before a commit does not see it, also after more commits."""
    (message,) = store.insert("messages", {"a": 1.0})
    query = store.query()
    tx = store.mutation()
    run(tx.patch(message, {"a": 2.0}))
    run(tx.insert("later", {}))
    store.commit(tx)
    assert orjson.loads(run(query.get(message)))["a"] == 1.0
    assert collect(query, scan("later")) == []
    query.close()
    assert orjson.loads(run(store.query().get(message)))["a"] == 2.0


def test_a_query_at_an_older_timestamp_sees_tables_of_then(store):
    """``begin("query", ts=…)`` reads rows and names as of that commit."""
    store.insert("first", {"n": 1.0})
    ts = store.db.committer.durable_ts
    store.insert("second", {"n": 2.0})
    store.insert("first", {"n": 3.0})
    query = store.query(ts=ts)
    assert len(collect(query, scan("first"))) == 1
    assert collect(query, scan("second")) == []


def test_catalog_older_than_the_window_comes_from_history(store):
    """When the catalogs of an old timestamp are forgotten, they are read from history."""
    store.insert("first", {"n": 1.0})
    ts = store.db.committer.durable_ts
    store.insert("second", {})
    store.db.catalogs.trim(store.db.committer.durable_ts)
    assert store.db.catalogs.floor_ts > ts
    query = store.query(ts=ts)
    assert len(collect(query, scan("first"))) == 1
    assert (0, "second") not in query.catalog.by_name


def test_a_mutations_snapshot_is_taken_at_its_first_operation(store):
    """What commits before the first database operation is seen, whenever the transaction was made."""
    (message,) = store.insert("messages", {"a": 1.0})
    tx = store.mutation()
    assert tx.snapshot_ts is None
    other = store.mutation()
    run(other.patch(message, {"a": 2.0}))
    store.commit(other)
    assert orjson.loads(run(tx.get(message)))["a"] == 2.0
    assert tx.snapshot_ts == store.db.committer.pending_ts
    tx.close()


def test_savepoints_undo_writes_and_created_tables(store):
    """A rolled back nested mutation leaves neither rows nor tables; its reads stay."""
    (message,) = store.insert("messages", {"a": 1.0})
    tx = store.mutation()
    run(tx.patch(message, {"a": 2.0}))
    savepoint = tx.savepoint()
    run(tx.patch(message, {"a": 3.0}))
    run(tx.insert("fresh", {"n": 1.0}))
    run(tx.insert("messages", {"a": 9.0}))
    assert len(collect(tx, scan("fresh"))) == 1
    assert len(collect(tx, scan("messages"))) == 2
    reads = tx.reads.interval_count
    tx.rollback_to(savepoint)
    assert tx.reads.interval_count == reads
    assert orjson.loads(run(tx.get(message)))["a"] == 2.0
    assert collect(tx, scan("fresh")) == []
    assert len(collect(tx, scan("messages"))) == 1
    store.commit(tx)
    assert (0, "fresh") not in store.db.catalogs.newest.by_name
    assert orjson.loads(run(store.query().get(message)))["a"] == 2.0


def test_a_rolled_back_table_can_be_made_again(store):
    """After a rollback of its creation, inserting again creates the table anew, under the same number."""
    tx = store.mutation()
    savepoint = tx.savepoint()
    run(tx.insert("fresh", {}))
    tx.rollback_to(savepoint)
    document_id = run(tx.insert("fresh", {"n": 1.0}))
    assert decode_id(document_id)[0] == 10_001
    store.commit(tx)
    assert len(collect(store.query(), scan("fresh"))) == 1


def test_insert_and_delete_in_one_transaction_commit_nothing(store):
    """A document that came and went is not part of the commit."""
    store.insert("messages", {})
    tx = store.mutation()
    run(tx.delete(run(tx.insert("messages", {}))))
    assert tx.writes.changes() == ()
    store.commit(tx)


def test_normalize_id(store):
    """An id of the table in its canonical form, else null; odd strings never raise, a bad table name does."""
    (message,) = store.insert("messages", {})
    storage_id = encode_id(540, bytes(16))
    query = store.query()
    assert run(query.normalize_id("messages", message)) == message
    assert run(query.normalize_id("messages", storage_id)) is None
    assert run(query.normalize_id("_storage", storage_id)) == storage_id
    assert run(query.normalize_id("nothing", message)) is None
    assert run(query.normalize_id("_tables", encode_id(513, bytes(16)))) is None
    assert run(query.normalize_id("messages", "é\x00")) is None
    assert text_of(query.normalize_id("a b", message)).startswith("Invalid argument `table` for `db.normalizeId`: ")


def test_reading_an_absent_table_depends_on_its_name(store):
    """A mutation that saw no table conflicts with the commit that creates it."""
    store.insert("other", {})
    tx = store.mutation()
    assert collect(tx, scan("messages")) == []
    run(tx.insert("other", {}))
    store.insert("messages", {})
    with pytest.raises(OccConflict):
        store.commit(tx)


def test_count(store):
    """``count`` is the number of documents, own writes included; it reads the table."""
    ids = store.insert("messages", {}, {}, {})
    tx = store.mutation()
    run(tx.delete(ids[0]))
    run(tx.insert("messages", {}))
    run(tx.insert("messages", {}))
    assert run(tx.count("messages")) == 4
    assert run(tx.count("nothing")) == 0
    store.insert("messages", {})
    with pytest.raises(OccConflict):
        store.commit(tx)


def test_metrics_count_what_the_function_did(store):
    """Reads, writes and merged intervals are counted; system tables count nothing."""
    (first, second) = store.insert("messages", {"a": "x"}, {"a": "y"})
    tx = store.mutation()
    run(tx.get(first))
    run(tx.get(second))
    collect(tx, scan("messages"))
    run(tx.insert("messages", {"a": "z"}))
    metrics = tx.metrics()
    size = 2 + len("_id") + 1 + 2 + len(first) + len("_creationTime") + 1 + 9 + len("a") + 1 + 3
    assert metrics["documentsRead"] == {"used": 4, "remaining": 31_996}
    assert metrics["bytesRead"] == {"used": 4 * size, "remaining": (16 << 20) - 4 * size}
    assert metrics["databaseQueries"] == {"used": 3, "remaining": 4093}
    assert metrics["documentsWritten"] == {"used": 1, "remaining": 15_999}
    assert metrics["bytesWritten"]["used"] == size
    tx.close()


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (TransactionLimits(documents_written=1), "Too many writes in a single function execution (limit: 1)"),
        (
            TransactionLimits(bytes_written=100),
            "Too many bytes written in a single function execution (limit: 100 B)",
        ),
    ],
)
def test_write_limits(store, limits, text):
    """The write over a limit fails with its text, can be caught, and is counted."""
    store.insert("messages", {})
    tx = store.mutation()
    tx.counters.limits = limits
    run(tx.insert("messages", {}))
    with pytest.raises(PaginationLimit) as caught:
        run(tx.insert("messages", {}))
    assert caught.value.message == text
    assert tx.metrics()["documentsWritten"]["used"] == 2
    store.commit(tx)


def test_get_limits(store):
    """Gets stop at the document, byte and interval limits."""
    ids = store.insert("messages", *[{"a": "x" * 100} for _ in range(5)])
    for limits, text in (
        (
            TransactionLimits(documents_read=3),
            r"Too many documents read in a single function execution \(limit: 3\)\. ",
        ),
        (
            TransactionLimits(bytes_read=600),
            r"Too many bytes read in a single function execution \(limit: 600 bytes\)\. ",
        ),
        (TransactionLimits(database_queries=3), r"Too many reads in a single function execution \(limit: 3\)\. "),
    ):
        query = store.query()
        query.counters.limits = limits
        for each in ids[:3]:
            run(query.get(each))
        with pytest.raises(PaginationLimit) as caught:
            run(query.get(ids[3]))
        assert re.match(text, caught.value.message)
        query.close()


def test_lowered_limits_only_lower(store):
    """``transactionLimits`` of a nested call lower the ceilings for that call."""
    query = store.query()
    before = query.counters.lower({"documentsRead": 10, "bytesRead": 1 << 40, "unknown": 1})
    assert query.counters.limits == TransactionLimits(documents_read=10)
    query.counters.limits = before
    assert query.counters.limits == TransactionLimits()
    query.close()


def test_writes_on_a_key_that_another_overtook_conflict(store):
    """Two patches of one document: the second fails naming table, document and writer."""
    (message,) = store.insert("messages", {"n": 0.0})
    first = store.mutation(writer="m.js:a")
    second = store.mutation(writer="m.js:b")
    for tx in (first, second):
        run(tx.patch(message, {"n": orjson.loads(run(tx.get(message)))["n"] + 1}))
    store.commit(first)
    with pytest.raises(OccConflict) as caught:
        store.commit(second)
    assert (caught.value.table, caught.value.document_id) == ("messages", message)
    assert 'A call to "m.js:a" changed the document' in caught.value.message


def test_a_ticket_makes_the_rerun_wait_and_move(store):
    """After a conflict the key is hot: the re-run owns its lane, and another mutation's read waits until it has committed (A6)."""
    (message,) = store.insert("messages", {"n": 0.0})
    lanes = store.db.committer.lanes
    old, young = lanes.ticket(), lanes.ticket()
    tx = store.mutation(ticket=old)
    run(tx.patch(message, {"n": 1.0}))
    rival = store.mutation()
    run(rival.patch(message, {"n": 2.0}))
    store.commit(rival)
    with pytest.raises(OccConflict):
        store.commit(tx)
    old.keep_for_rerun()
    again = store.mutation(ticket=old)
    assert orjson.loads(run(again.get(message)))["n"] == 2.0
    from twisted.internet.defer import Deferred

    waiting = store.mutation(ticket=young)
    found: list[bytes] = []
    Deferred.fromCoroutine(waiting.get(message)).addCallback(found.append)
    assert found == []
    run(again.patch(message, {"n": 3.0}))
    store.commit(again)
    assert orjson.loads(found[0])["n"] == 3.0
    run(waiting.patch(message, {"n": 4.0}))
    store.commit(waiting)
    assert orjson.loads(run(store.query().get(message)))["n"] == 4.0


def test_metadata_ids_are_not_used_again_after_a_restart(store):
    """The counter of tablets and indexes survives restarts, also when nothing that used its last values is left."""
    tx = store.system()
    run(tx.ensure_begun())
    highest = tx.new_metadata_id()
    run(tx.system.insert("_backend_state", {"key": "x"}))
    store.commit(tx)
    store.persistence.close()
    again = Store(store.persistence, seed=2)
    again_tx = again.system()
    assert again_tx.new_metadata_id() > highest
    again_tx.close()
