"""Pages: positions, page status, journals and the texts of wrong requests."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convex_backend.database.counters import TransactionLimits
from convex_backend.database.query.cursor import InvalidCursor
from convex_backend.errors import BadRequest, OccConflict, PaginationLimit
from tests.database.documents import Store, index_query, run, scan

QUERY = index_query("t.by_n")


def seal(data: bytes) -> str:
    return data.hex()


def unseal(text: str) -> bytes:
    return bytes.fromhex(text)


@pytest.fixture
def store():
    store = Store()
    store.make_index("t", "by_n", "n")
    store.insert("t", *[{"n": float(n)} for n in range(10)])
    store.insert("other", {})
    yield store
    run(store.db.stop())


def page_of(transaction, query=QUERY, cursor=None, size=3, end_cursor=None, **options):
    answer = run(
        transaction.paginate(
            query, cursor=cursor, end_cursor=end_cursor, page_size=size, seal=seal, unseal=unseal, **options
        )
    )
    return orjson.loads(orjson.dumps(answer))


def fresh(store, *arguments, **options):
    query = store.query()
    try:
        return page_of(query, *arguments, **options)
    finally:
        query.close()


def numbers(page):
    return [row["n"] for row in page["page"]]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("size", [1, 3, 5, 10, 11])
def test_pages_cover_everything_once(store, order, size):
    """Following ``continueCursor`` gives every row once, in order; a page that fills at the last row is not done."""
    query = index_query("t.by_n", order=order)
    found, cursor, pages = [], None, 0
    while True:
        page = fresh(store, query, cursor, size)
        found += numbers(page)
        pages += 1
        assert page["pageStatus"] is None
        cursor = page["continueCursor"]
        if page["isDone"]:
            break
    assert found == (list(range(10)) if order == "asc" else list(range(9, -1, -1)))
    assert pages == 10 // size + 1
    again = fresh(store, query, cursor, size)
    assert (again["page"], again["isDone"], again["continueCursor"]) == ([], True, cursor)


def test_cursors_are_deterministic(store):
    """The same position of the same query is the same string."""
    assert fresh(store)["continueCursor"] == fresh(store)["continueCursor"]


def test_an_end_cursor_fixes_the_range(store):
    """With an end cursor the whole interval comes back, end included, whatever the sizes say."""
    end = fresh(store, size=4)["continueCursor"]
    store.insert("t", {"n": 0.5}, {"n": 3.5})
    page = fresh(store, size=1, end_cursor=end, max_rows=1, max_bytes=1)
    assert numbers(page) == [0, 0.5, 1, 2, 3]
    assert (page["continueCursor"], page["isDone"], page["pageStatus"]) == (end, False, "SplitRecommended")


def test_a_journal_is_the_end_cursor_when_there_is_none(store):
    """A re-run with the journal of the first run covers the same range; an end cursor goes before it."""
    query = store.query()
    first = page_of(query, size=4)
    assert query.journal_end_cursor == first["continueCursor"]
    query.close()
    store.insert("t", {"n": 1.5})
    again = fresh(store, size=4, journal_end_cursor=first["continueCursor"])
    assert numbers(again) == [0, 1, 1.5, 2, 3]
    end = fresh(store, size=2)["continueCursor"]
    assert numbers(fresh(store, size=4, end_cursor=end, journal_end_cursor=first["continueCursor"])) == [0, 1, 1.5][:2]


def test_a_journal_at_the_end_reads_on_to_the_end(store):
    """A first run that was done re-runs to the end of the range, new rows included."""
    done = fresh(store, size=50)
    assert done["isDone"]
    store.insert("t", {"n": 50.0})
    again = fresh(store, size=50, journal_end_cursor=done["continueCursor"])
    assert numbers(again)[-1] == 50.0
    assert again["isDone"]


def test_only_the_page_is_read(store):
    """A write behind the page does not conflict; one inside it does, and so does one at the end of a done page."""
    for size, inserted, conflict in ((3, 2.5, False), (3, 1.5, True), (50, 90.0, True)):
        transaction = store.mutation()
        page_of(transaction, size=size)
        run(transaction.insert("other", {}))
        store.insert("t", {"n": inserted})
        if conflict:
            with pytest.raises(OccConflict):
                store.commit(transaction)
        else:
            store.commit(transaction)


def test_filtered_rows_move_the_position(store):
    """Rows that the filter drops are scanned: the cursor is behind the last scanned one."""
    query = index_query("t.by_n", operators=({"filter": {"$gte": [{"$field": "n"}, {"$literal": 4}]}},))
    page = fresh(store, query, size=2)
    assert numbers(page) == [4, 5]
    assert numbers(fresh(store, query, page["continueCursor"], 2)) == [6, 7]


def test_maximum_rows_read_splits(store):
    """A page that would need more rows ends there, and the split cursor is the middle row's."""
    query = index_query("t.by_n", operators=({"filter": {"$gte": [{"$field": "n"}, {"$literal": 8}]}},))
    page = fresh(store, query, size=2, max_rows=5)
    assert (page["page"], page["isDone"], page["pageStatus"]) == ([], False, "SplitRequired")
    middle = fresh(store, query, size=2, end_cursor=page["splitCursor"])
    assert middle["page"] == []
    assert numbers(fresh(store, query, page["continueCursor"], 2)) == [8, 9]


def test_maximum_bytes_read_splits_but_reads_one_row(store):
    """At least one document is read, however small the byte limit is."""
    page = fresh(store, size=5, max_bytes=1)
    assert (numbers(page), page["pageStatus"], page["splitCursor"]) == ([0], "SplitRequired", None)
    page = fresh(store, size=5, max_bytes=300)
    assert page["pageStatus"] == "SplitRequired"
    assert 1 < len(page["page"]) < 5


def test_split_is_recommended_above_three_quarters(store):
    """Rows read above 3/4 of the maximum recommend a split; up to it they do not."""
    assert fresh(store, size=9, max_rows=12)["pageStatus"] is None
    assert fresh(store, size=10, max_rows=12)["pageStatus"] == "SplitRecommended"


def test_split_cursor_is_the_middle_row(store):
    """``splitCursor`` divides a page into two that together give it again; two rows have none."""
    page = fresh(store, size=7)
    left = fresh(store, size=1, end_cursor=page["splitCursor"])
    right = fresh(store, cursor=page["splitCursor"], size=1, end_cursor=page["continueCursor"])
    assert numbers(left) == [0, 1, 2, 3]
    assert numbers(left) + numbers(right) == numbers(page)
    assert fresh(store, size=2)["splitCursor"] is None


def test_transaction_limits_split(store):
    """A transaction's read limit met while paginating is a split, not an error; with nothing read it is the error."""
    query = store.query()
    query.counters.limits = TransactionLimits(documents_read=4)
    page = page_of(query, size=9)
    assert (numbers(page), page["pageStatus"]) == ([0, 1, 2, 3], "SplitRequired")
    query.paginated = False
    with pytest.raises(PaginationLimit):
        page_of(query, size=9)
    query.close()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 0}, "Must request at least 1 document while paginating"),
        ({"size": 32_001}, "Requested too many items: 32001"),
        ({"max_rows": 0}, "maximumRowsRead and maximumBytesRead must be greater than 0"),
        ({"max_bytes": 0}, "maximumRowsRead and maximumBytesRead must be greater than 0"),
    ],
)
def test_argument_texts(store, options, text):
    """Wrong sizes have the texts of section 3.4."""
    with pytest.raises(BadRequest) as caught:
        fresh(store, **options)
    assert caught.value.message == text


def test_one_paginated_query_and_not_in_components(store):
    """A second one in a function, and any in a child component, are refused."""
    query = store.query()
    page_of(query)
    with pytest.raises(BadRequest, match="ran multiple paginated queries") as caught:
        page_of(query)
    assert caught.value.message.endswith("Convex only supports a single paginated query in each function.")
    query.close()
    child = store.query(component=3)
    with pytest.raises(BadRequest, match="only supported in the app"):
        page_of(child)
    child.close()


@pytest.mark.parametrize("cursor", ["", "zz", "00", "01ff" + "00" * 32])
def test_unreadable_cursors(store, cursor):
    """A cursor that cannot be read carries the data that clients look for."""
    with pytest.raises(InvalidCursor) as caught:
        fresh(store, cursor=cursor)
    assert caught.value.message == "InvalidCursor: Failed to parse cursor"
    assert caught.value.data == {"isConvexSystemError": True, "paginationError": "InvalidCursor"}
    with pytest.raises(InvalidCursor):
        fresh(store, journal_end_cursor=cursor)


@pytest.mark.parametrize(
    "query",
    [index_query("t.by_n", order="desc"), index_query("t.by_n", ("Gt", "n", 1)), scan("t"), scan("other")],
)
def test_cursors_of_another_query(store, query):
    """A cursor fits the query it came from, and no other."""
    cursor = fresh(store)["continueCursor"]
    with pytest.raises(InvalidCursor) as caught:
        fresh(store, query, cursor)
    assert caught.value.message == (
        "InvalidCursor: Tried to run a query starting from a cursor, but it looks like this cursor is from a different query."
    )
    assert numbers(fresh(store, index_query("t.by_n", order="asc"), cursor)) == [3, 4, 5]


def test_a_missing_table_is_an_empty_done_page(store):
    """Paginating a table that does not exist yet is done at once."""
    page = fresh(store, scan("nothing"))
    assert (page["page"], page["isDone"], page["splitCursor"]) == ([], True, None)


@settings(max_examples=50, deadline=None)
@given(
    committed=st.lists(st.integers(0, 20), max_size=15),
    own=st.lists(st.integers(0, 20), max_size=6),
    size=st.integers(1, 6),
    descending=st.booleans(),
    threshold=st.integers(0, 21),
    cap=st.one_of(st.none(), st.integers(1, 4)),
)
def test_pages_with_own_writes_equal_the_list(committed, own, size, descending, threshold, cap):
    """Whatever the page size, the filter and the row cap: the pages together are the filtered list, own rows included."""
    store = Store()
    store.make_index("t", "by_n", "n")
    store.insert("t", *[{"n": float(n)} for n in committed])
    transaction = store.mutation()
    for n in own:
        run(transaction.insert("t", {"n": float(n)}))
    query = index_query(
        "t.by_n",
        order="desc" if descending else "asc",
        operators=({"filter": {"$lt": [{"$field": "n"}, {"$literal": threshold}]}},),
    )
    found, cursor = [], None
    for _ in range(200):
        transaction.paginated = False
        page = page_of(transaction, query, cursor, size, max_rows=cap)
        found += numbers(page)
        cursor = page["continueCursor"]
        if page["isDone"]:
            break
    else:
        raise AssertionError("the pages do not end")
    assert found == sorted((n for n in committed + own if n < threshold), reverse=descending)
    transaction.close()
    run(store.db.stop())
