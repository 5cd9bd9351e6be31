"""The server's own tables do not exist for functions (``runtime.md`` sections 2.3, 5.4 and 5.5)."""

from __future__ import annotations

import pytest

from convex_backend.database.system_tables import SYSTEM_TABLES
from convex_backend.errors import BadRequest
from convex_backend.values.ids import encode_id
from tests.database.documents import Store, collect, index_query, run, scan
from tests.database.test_pagination import page_of

SYSTEM_ONLY = "System tables can only be accessed with db.system."


@pytest.fixture
def store():
    store = Store()
    store.insert("t", {})
    yield store
    run(store.db.stop())


def private_row(store: Store) -> tuple[str, str]:
    """Name and id of a row that is there: that of table ``t``."""
    transaction = store.system()
    [(row_id, _)] = run(transaction.system.scan("_tables", "by_name", (0, "t")))
    transaction.close()
    return "_tables", encode_id(SYSTEM_TABLES["_tables"].number, row_id)


@pytest.mark.parametrize("is_system", [False, True])
def test_documents_are_not_found(store, is_system):
    """A get by the id of a row gives null, by ``db`` and by ``db.system``; ``normalizeId`` gives null."""
    table, document_id = private_row(store)
    query = store.query()
    assert run(query.get(document_id, None, is_system)) is None
    assert run(query.get(document_id, table, is_system)) is None
    assert run(query.normalize_id(table, document_id)) is None
    query.close()


@pytest.mark.parametrize("name", sorted(SYSTEM_TABLES))
def test_queries_find_nothing(store, name):
    """Scans, index ranges, pages and counts of every private table are empty, whatever the index is called."""
    query = store.query()
    assert collect(query, scan(name)) == []
    assert collect(query, index_query(f"{name}.by_name", ("Eq", "component", 0.0))) == []
    assert collect(query, index_query(f"{name}.by_id")) == []
    assert run(query.count(name)) == 0
    page = page_of(query, scan(name))
    assert (page["page"], page["isDone"]) == ([], True)
    query.close()


def test_writes_do_not_find_them(store):
    """Writes by id fail as for any document that is not there, and inserts are refused by name."""
    table, document_id = private_row(store)
    transaction = store.mutation()
    for verb, write in (
        ("Update", transaction.patch(document_id, {"name": "u"})),
        ("Replace", transaction.replace(document_id, {}, table)),
        ("Delete", transaction.delete(document_id)),
    ):
        with pytest.raises(BadRequest) as caught:
            run(write)
        assert caught.value.message == f"{verb} on nonexistent document ID {document_id}"
    with pytest.raises(BadRequest) as caught:
        run(transaction.insert(table, {}))
    assert caught.value.message == SYSTEM_ONLY
    store.commit(transaction)
    assert len(store.db.catalogs.newest.tables_of(0)) == 1
