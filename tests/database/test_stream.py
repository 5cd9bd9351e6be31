"""Streams: pages ahead of the function, and a read set, counters and limits by what it took (A3)."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convex_backend.database.counters import TransactionLimits
from convex_backend.errors import BadRequest, OccConflict, PaginationLimit
from tests.database.documents import Store, collect, index_query, run, scan

ODD = {"filter": {"$eq": [{"$mod": [{"$field": "n"}, {"$literal": 2}]}, {"$literal": 1}]}}


def below(limit):
    return {"filter": {"$lt": [{"$field": "n"}, {"$literal": limit}]}}


@pytest.fixture
def store():
    store = Store()
    store.make_index("t", "by_n", "n")
    store.insert("t", *[{"n": float(n)} for n in range(10)])
    store.insert("other", {})
    yield store
    run(store.db.stop())


def numbers(rows):
    return [orjson.loads(row)["n"] for row in rows]


def conflicts(store, transaction, n):
    """Whether the transaction, which then writes elsewhere, is overtaken by an insert of *n*."""
    run(transaction.insert("other", {}))
    store.insert("t", {"n": n})
    try:
        store.commit(transaction)
    except OccConflict:
        return True
    return False


@pytest.mark.parametrize(
    ("order", "consumed", "inserted", "conflict"),
    [
        ("asc", 3, 1.5, True),
        ("asc", 3, 2.5, False),
        ("asc", 3, -1.0, True),
        ("asc", 3, 50.0, False),
        ("asc", 0, 0.5, False),
        ("asc", 10, 9.5, False),
        ("asc", 11, 9.5, True),
        ("desc", 3, 7.5, True),
        ("desc", 3, 6.5, False),
        ("desc", 3, 50.0, True),
        ("desc", 11, -5.0, True),
    ],
)
def test_only_consumed_rows_conflict(store, order, consumed, inserted, conflict):
    """A page was fetched ahead, but a later write conflicts only inside what was consumed; the end is one row more."""
    transaction = store.mutation()
    stream = transaction.open_stream(index_query("t.by_n", order=order))
    rows, done = run(stream.fetch(100))
    assert (len(rows), done) == (10, True)
    stream.consume(consumed)
    assert transaction.metrics()["documentsRead"]["used"] == min(consumed, 10)
    assert conflicts(store, transaction, inserted) is conflict


def test_consumption_in_steps_is_one_interval(store):
    """Rows consumed one by one leave one merged interval, and end where the last one ended."""
    transaction = store.mutation()
    stream = transaction.open_stream(index_query("t.by_n"))
    for _ in range(4):
        run(stream.fetch(2))
        stream.consume(1)
    assert transaction.metrics()["databaseQueries"]["used"] == 1
    assert conflicts(store, transaction, 3.5) is False


def test_a_limit_ends_before_the_end(store):
    """``take(3)`` reads up to its third row only, also when the function waits for the end of the stream."""
    transaction = store.mutation()
    stream = transaction.open_stream(index_query("t.by_n", operators=({"limit": 3},)))
    rows, done = run(stream.fetch(100))
    assert (numbers(rows), done) == ([0, 1, 2], True)
    stream.consume(4)
    assert conflicts(store, transaction, 2.5) is False


def test_an_empty_answer_is_the_end_consumed(store):
    """A fetch that gives nothing has read the whole interval."""
    transaction = store.mutation()
    stream = transaction.open_stream(index_query("t.by_n", ("Gt", "n", 100)))
    assert run(stream.fetch(5)) == ([], True)
    assert conflicts(store, transaction, 101.0) is True


def test_dropped_rows_are_consumed_with_the_next_one(store):
    """Rows that a filter drops count as read with the row that follows them, or with the end."""
    transaction = store.mutation()
    stream = transaction.open_stream(index_query("t.by_n", operators=(ODD,)))
    rows, done = run(stream.fetch(2))
    assert (numbers(rows), done) == ([1, 3], False)
    stream.consume(1)
    assert transaction.metrics()["documentsRead"]["used"] == 2
    stream.consume(1)
    assert transaction.metrics()["documentsRead"]["used"] == 4
    assert conflicts(store, transaction, 3.5) is False


def test_own_writes_drop_prefetched_rows(store):
    """After a write to the table the stream goes on after the last consumed row and sees the write."""
    transaction = store.mutation()
    stream = transaction.open_stream(index_query("t.by_n"))
    rows, _ = run(stream.fetch(4))
    stream.consume(2)
    run(transaction.insert("t", {"n": 1.5}))
    run(transaction.insert("t", {"n": 0.5}))
    run(transaction.delete(orjson.loads(rows[2])["_id"]))
    rows, done = run(stream.fetch(100))
    assert (numbers(rows), done) == ([1.5, 3, 4, 5, 6, 7, 8, 9], True)
    transaction.close()


def test_own_writes_restore_the_limit(store):
    """Prefetched rows that were dropped do not use up a limit."""
    transaction = store.mutation()
    stream = transaction.open_stream(index_query("t.by_n", operators=({"limit": 4},)))
    run(stream.fetch(3))
    stream.consume(1)
    run(transaction.insert("t", {"n": 0.5}))
    rows, done = run(stream.fetch(100))
    assert (numbers(rows), done) == ([0.5, 1, 2], True)
    transaction.close()


def test_a_write_to_another_table_keeps_the_page(store):
    """Outstanding rows come again as they were."""
    transaction = store.mutation()
    stream = transaction.open_stream(index_query("t.by_n"))
    first, _ = run(stream.fetch(3))
    run(transaction.insert("other", {}))
    assert run(stream.fetch(3))[0] == first
    transaction.close()


def test_rows_unknown_here_widen_the_read_to_everything(store):
    """A report of rows that were dropped by a write is answered by the widest read, never by a missing one."""
    transaction = store.mutation()
    stream = transaction.open_stream(index_query("t.by_n"))
    run(stream.fetch(3))
    run(transaction.insert("t", {"n": 0.5}))
    run(stream.fetch(1))
    stream.consume(3)
    assert conflicts(store, transaction, 50.0) is True


@pytest.mark.parametrize(
    ("operators", "expected"),
    [
        ([{"limit": 0}], []),
        ([ODD, {"limit": 2}], [1, 3]),
        ([{"limit": 4}, ODD], [1, 3]),
        ([{"limit": 5}, ODD, {"limit": 1}], [1]),
        ([below(3), ODD], [1]),
        ([ODD, below(3)], [1]),
    ],
)
@pytest.mark.parametrize("page", [1, 3, 50])
def test_operators_apply_from_left_to_right(store, operators, expected, page):
    """Filters and limits are a pipeline in the order given, whatever the page size."""
    query = store.query()
    assert numbers(collect(query, index_query("t.by_n", operators=tuple(operators)), page)) == expected
    query.close()


def test_a_failing_filter_comes_after_the_rows_before_it(store):
    """The error arrives when the rows that came through before it have been taken, and stays."""
    store.insert("t", {"n": "x"})
    query = store.query()
    stream = query.open_stream(index_query("t.by_n", operators=(ODD,)))
    rows, done = run(stream.fetch(100))
    assert (numbers(rows), done) == ([1, 3, 5, 7, 9], False)
    stream.consume(5)
    for _ in range(2):
        with pytest.raises(BadRequest, match="Cannot mod"):
            run(stream.fetch(100))
    assert query.metrics()["documentsRead"]["used"] == 11
    query.close()


def test_the_document_limit_arrives_at_its_row(store):
    """With a limit of five documents the first five are served, and the sixth is the error; it was counted."""
    query = store.query()
    query.counters.limits = TransactionLimits(documents_read=5)
    stream = query.open_stream(index_query("t.by_n"))
    rows, done = run(stream.fetch(100))
    assert (len(rows), done) == (5, False)
    stream.consume(5)
    with pytest.raises(PaginationLimit, match="Too many documents read"):
        run(stream.fetch(100))
    assert query.metrics()["documentsRead"] == {"used": 6, "remaining": -1}
    query.close()


def test_the_byte_limit_arrives_at_its_row(store):
    """Bytes are exact, although documents are measured late."""
    query = store.query()
    size = 2 + (3 + 1 + 2 + 32) + (13 + 1 + 9) + (1 + 1 + 9)
    query.counters.limits = TransactionLimits(bytes_read=size * 4)
    stream = query.open_stream(index_query("t.by_n"))
    taken = 0
    with pytest.raises(PaginationLimit, match="Too many bytes read"):
        while True:
            rows, done = run(stream.fetch(3))
            assert not done
            stream.consume(len(rows))
            taken += len(rows)
    assert taken == 4
    query.close()


def test_dropped_rows_meet_the_limit_too(store):
    """A filter that lets nothing through still stops at the document limit."""
    query = store.query()
    query.counters.limits = TransactionLimits(documents_read=5)
    stream = query.open_stream(index_query("t.by_n", operators=(below(-1),)))
    with pytest.raises(PaginationLimit, match="Too many documents read"):
        run(stream.fetch(100))
    query.close()


def test_the_interval_limit_arrives_at_its_query(store):
    """The query that would be one interval too many fails at its first row."""
    query = store.query()
    query.counters.limits = TransactionLimits(database_queries=3)
    for n in (1, 3, 5):
        assert len(collect(query, index_query("t.by_n", ("Eq", "n", n)))) == 1
    with pytest.raises(PaginationLimit, match="Too many reads in a single function execution"):
        collect(query, index_query("t.by_n", ("Eq", "n", 7)))
    query.close()


def test_left_says_what_may_be_served(store):
    """``left`` never promises more than the limits allow."""
    query = store.query()
    stream = query.open_stream(index_query("t.by_n"))
    rows, _ = run(stream.fetch(3))
    stream.consume(3)
    documents, json_bytes = query.left()
    assert documents == 31_997
    assert 0 < json_bytes * 5 <= (16 << 20) - 3 * len(rows[0])
    query.close()


@pytest.mark.parametrize(
    "query",
    [
        None,
        {"source": {}, "operators": []},
        {"source": {"type": "FullTableScan"}, "operators": []},
        {"source": {"type": "FullTableScan", "tableName": "t", "order": "up"}, "operators": []},
        {"source": {"type": "IndexRange", "indexName": "t", "range": []}, "operators": []},
        {"source": {"type": "IndexRange", "indexName": "t.by_n", "range": [1]}, "operators": []},
        {"source": {"type": "FullTableScan", "tableName": "t"}, "operators": [{"limit": -1}]},
        {"source": {"type": "FullTableScan", "tableName": "t"}, "operators": [{}]},
        {"source": {"type": "FullTableScan", "tableName": "t"}, "operators": [{"limit": 1}] * 257},
    ],
)
def test_malformed_queries_are_refused_at_the_first_fetch(store, query):
    """Opening never fails; the first fetch says what is wrong."""
    transaction = store.query()
    stream = transaction.open_stream(query)
    with pytest.raises(BadRequest):
        run(stream.fetch(1))
    transaction.close()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.integers(0, 30)),
        st.tuples(st.just("delete"), st.integers(0, 30)),
        st.tuples(st.just("move"), st.integers(0, 30), st.integers(0, 30)),
        st.tuples(st.just("rollback"), st.integers(0, 30)),
    ),
    max_size=12,
)


@settings(max_examples=80, deadline=None)
@given(
    committed=st.lists(st.integers(0, 30), max_size=12),
    steps=STEPS,
    descending=st.booleans(),
    lower=st.integers(0, 30),
    page=st.integers(1, 5),
    operators=st.lists(st.sampled_from([ODD, below(20), {"limit": 2}, {"limit": 7}]), max_size=2),
)
def test_scans_see_own_writes_like_a_model(committed, steps, descending, lower, page, operators):
    """After any own writes and rollbacks, a scan of any index equals a sorted list of what is alive."""
    store = Store()
    store.make_index("t", "by_n", "n")
    alive = dict(zip(store.insert("t", *[{"n": float(n)} for n in committed]), committed, strict=True))
    transaction = store.mutation()
    collect(transaction, scan("t"))

    def act(kind, *arguments):
        if kind == "insert":
            alive[run(transaction.insert("t", {"n": float(arguments[0])}))] = arguments[0]
        elif alive:
            target = sorted(alive)[arguments[0] % len(alive)]
            if kind == "delete":
                run(transaction.delete(target))
                del alive[target]
            else:
                run(transaction.patch(target, {"n": float(arguments[1])}))
                alive[target] = arguments[1]

    for kind, *arguments in steps:
        if kind == "rollback":
            before, savepoint = dict(alive), transaction.savepoint()
            act("insert", *arguments)
            act("delete", *arguments)
            act("move", *arguments, 3)
            transaction.rollback_to(savepoint)
            alive = before
        else:
            act(kind, *arguments)

    expected = sorted(n for n in alive.values() if n >= lower)
    if descending:
        expected.reverse()
    for operator in operators:
        if "limit" in operator:
            expected = expected[: operator["limit"]]
        elif operator is ODD:
            expected = [n for n in expected if n % 2]
        else:
            expected = [n for n in expected if n < 20]
    query = index_query(
        "t.by_n", ("Gte", "n", lower), order="desc" if descending else "asc", operators=tuple(operators)
    )
    assert numbers(collect(transaction, query, page)) == expected
    by_id = [orjson.loads(row)["_id"] for row in collect(transaction, index_query("t.by_id"), page)]
    assert by_id == sorted(alive)
    store.commit(transaction)
    assert numbers(collect(store.query(), query, page)) == expected
    run(store.db.stop())
