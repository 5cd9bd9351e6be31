"""``_storage`` and ``_scheduled_functions``: tablets of their own in each component, which only server code writes."""

from __future__ import annotations

import orjson
import pytest

from convex_backend.application.system_functions.registry import full_scan
from convex_backend.database.tables import ensure_virtual_table
from convex_backend.errors import ConvexError, OccConflict
from convex_backend.values.ids import decode_id, encode_id
from convex_backend.values.kinds import UNDEFINED
from tests.database.documents import Store, collect, index_query, run, scan

FILE = {"sha256": "x", "size": 3.0, "contentType": None}


@pytest.fixture
def store():
    store = Store()
    yield store
    run(store.db.stop())


def text_of(coroutine) -> str:
    with pytest.raises(ConvexError) as caught:
        run(coroutine)
    return caught.value.message


def insert(store: Store, *values: dict, component: int = 0, name: str = "_storage") -> list[str]:
    transaction = store.system()
    ids = [run(transaction.virtual.insert(component, name, value)) for value in values]
    store.commit(transaction)
    return ids


def test_the_table_has_its_fixed_number_in_every_component(store):
    """Ids are of number 540 and 539; components have tablets of their own; a second call finds the first's tablet."""
    first = store.system()
    made = run(ensure_virtual_table(first, 0, "_storage"))
    assert run(ensure_virtual_table(first, 0, "_storage")) is made
    other = run(ensure_virtual_table(first, 7, "_storage"))
    jobs = run(ensure_virtual_table(first, 0, "_scheduled_functions"))
    store.commit(first)
    assert (made.number, other.number, jobs.number) == (540, 540, 539)
    assert len({made.tablet, other.tablet, jobs.tablet}) == 3
    with pytest.raises(KeyError):
        run(ensure_virtual_table(store.system(), 0, "_modules"))


def test_functions_read_documents_by_db_system_only(store):
    """``db.system.get`` gives the document; ``db.get`` is refused, also before the table exists; a user id the other way round."""
    absent = encode_id(540, bytes(16))
    assert run(store.query().get(absent, is_system=True)) is None
    refused = "System tables can only be accessed with db.system."
    assert text_of(store.query().get(absent)) == refused
    assert "expected to be an Id" in text_of(store.query().get(absent, "_scheduled_functions", is_system=True))
    (document_id,) = insert(store, FILE)
    assert decode_id(document_id)[0] == 540
    query = store.query()
    document = orjson.loads(run(query.get(document_id, "_storage", is_system=True)))
    assert document == {**FILE, "_id": document_id, "_creationTime": document["_creationTime"]}
    assert text_of(query.get(document_id)) == refused
    assert text_of(query.get(document_id, "_scheduled_functions", is_system=True)) == (
        'Invalid argument `id` for `db.system.get`: expected to be an Id<"_scheduled_functions">, got Id<"_storage"> instead.'
    )
    (user_id,) = store.insert("messages", {})
    assert text_of(store.query().get(user_id, is_system=True)) == "User tables cannot be accessed with db.system."
    assert run(store.query().get(encode_id(521, bytes(16)), is_system=True)) is None
    assert run(store.query(component=7).get(document_id, is_system=True)) is None


def test_functions_cannot_write_them(store):
    """Every write is refused with the same texts before the table exists and after."""
    document_id = encode_id(540, bytes(16))
    for _ in range(2):
        transaction = store.mutation()
        assert text_of(transaction.insert("_storage", {})) == "_storage is a read-only table"
        refused = "System tables can only be accessed with db.system."
        assert text_of(transaction.patch(document_id, {})) == refused
        assert text_of(transaction.replace(document_id, {})) == refused
        assert text_of(transaction.delete(document_id)) == refused
        assert text_of(transaction.insert("_modules", {})) == refused
        transaction.close()
        (document_id,) = insert(store, FILE)


def test_queries_ranges_and_pages(store):
    """Scans, index ranges over id and creation time, and pages work as on a user table; other indexes do not exist."""
    assert collect(store.query(), scan("_storage")) == []
    ids = insert(store, *[{**FILE, "size": float(size)} for size in range(5)])
    found = [orjson.loads(row)["_id"] for row in collect(store.query(), scan("_storage", "desc"))]
    assert found == ids[::-1]
    one = collect(store.query(), index_query("_storage.by_id", ("Eq", "_id", ids[2])))
    assert [orjson.loads(row)["size"] for row in one] == [2]
    time = orjson.loads(one[0])["_creationTime"]
    later = collect(store.query(), index_query("_storage.by_creation_time", ("Gt", "_creationTime", time)))
    assert [orjson.loads(row)["size"] for row in later] == [3, 4]
    with pytest.raises(ConvexError) as caught:
        collect(store.query(), index_query("_storage.by_size", ("Eq", "size", 1)))
    assert caught.value.message == "Index _storage.by_size not found."
    page = run(
        store.query().paginate(
            full_scan("_storage", "asc"), cursor=None, end_cursor=None, page_size=2, seal=_seal, unseal=_unseal
        )
    )
    assert len(page["page"]) == 2 and not page["isDone"]
    assert run(store.query().count("_storage")) == 5
    assert collect(store.query(), scan("_modules")) == []


def _seal(data: bytes) -> str:
    return data.hex()


def _unseal(text: str) -> bytes:
    return bytes.fromhex(text)


def test_server_code_patches_deletes_and_scans(store):
    """Patches set and delete fields, own reads see them, a deleted document is gone; what is missing raises KeyError."""
    ids = insert(store, FILE, FILE)
    transaction = store.system()
    patched = run(transaction.virtual.patch(0, "_storage", ids[0], {"size": 9.0, "contentType": UNDEFINED}))
    assert patched["size"] == 9.0 and "contentType" not in patched
    assert run(transaction.virtual.get(0, "_storage", ids[0])) == patched
    assert run(transaction.virtual.delete(0, "_storage", ids[1]))["_id"] == ids[1]
    assert [row["_id"] for row in run(transaction.virtual.scan(0, "_storage"))] == [ids[0]]
    with pytest.raises(KeyError):
        run(transaction.virtual.delete(0, "_storage", ids[1]))
    with pytest.raises(KeyError):
        run(transaction.virtual.patch(0, "_scheduled_functions", ids[0], {}))
    store.commit(transaction)
    after = store.query()
    assert run(after.virtual.get(0, "_storage", ids[1])) is None
    assert run(after.virtual.get(0, "_storage", "nonsense")) is None
    assert [orjson.loads(row)["size"] for row in collect(store.query(), scan("_storage"))] == [9]


def test_reads_depend_on_documents_and_on_the_table_coming_to_be(store):
    """A query that found no table, and one that read a document, are both invalidated by the writes that concern them."""
    empty = store.query()
    collect(empty, scan("_storage"))
    missing = store.query()
    run(missing.virtual.get(0, "_storage", encode_id(540, bytes(16))))
    before = store.db.committer.durable_ts
    ids = insert(store, FILE, FILE)

    def conflict(transaction, since):
        return store.db.committer.write_log.conflict(transaction.read_token(), since, store.db.committer.durable_ts)

    assert conflict(empty, before) is not None
    assert conflict(missing, before) is not None
    one = store.query()
    run(one.get(ids[0], is_system=True))
    middle = store.db.committer.durable_ts
    for position, conflicts in ((1, False), (0, True)):
        transaction = store.system()
        run(transaction.virtual.patch(0, "_storage", ids[position], {"size": 4.0}))
        store.commit(transaction)
        assert (conflict(one, middle) is not None) is conflicts


def test_two_first_documents_conflict_and_later_ones_do_not(store):
    """Two transactions that make the table conflict; once it is there, inserts go side by side."""
    first, second = store.system(), store.system()
    for transaction in (first, second):
        run(transaction.virtual.insert(0, "_storage", FILE))
    store.commit(first)
    with pytest.raises(OccConflict):
        store.commit(second)
    third, fourth = store.system(), store.system()
    for transaction in (third, fourth):
        run(transaction.virtual.insert(0, "_storage", FILE))
    store.commit(third)
    store.commit(fourth)
    assert run(store.query().count("_storage")) == 3


def test_they_are_no_user_tables(store):
    """They are not listed, have no entry among the numbers of user tables, and take no number from these."""
    insert(store, FILE)
    insert(store, {"name": "f"}, name="_scheduled_functions")
    catalog = store.db.catalogs.newest
    assert catalog.tables_of(0) == []
    assert catalog.table_numbers(0) == {}
    (user_id,) = store.insert("messages", {})
    assert decode_id(user_id)[0] == 10_001
    assert store.db.catalogs.newest.names(0).table_of_number(540) == ("_storage", False)


def test_a_users_mutation_may_hold_server_writes_and_savepoints_undo_them(store):
    """Server writes inside a user's mutation count nothing against its limits, and go when the nested call that made them fails."""
    transaction = store.mutation()
    run(transaction.insert("messages", {}))
    counted = transaction.metrics()
    mark = transaction.savepoint()
    document_id = run(transaction.virtual.insert(0, "_storage", FILE))
    assert run(transaction.virtual.get(0, "_storage", document_id)) is not None
    transaction.rollback_to(mark)
    assert run(transaction.virtual.get(0, "_storage", document_id)) is None
    assert transaction.metrics() == counted
    again = run(transaction.virtual.insert(0, "_storage", FILE))
    store.commit(transaction)
    assert run(store.query().get(again, is_system=True)) is not None
