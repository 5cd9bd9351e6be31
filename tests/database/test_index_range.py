"""Ranges: texts, and what they select against a brute-force model."""

from __future__ import annotations

from itertools import pairwise

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convex_backend.errors import BadRequest
from convex_backend.values.ids import encode_id
from convex_backend.values.json_codec import from_json, to_json
from convex_backend.values.kinds import UNDEFINED
from convex_backend.values.sort_key import compare
from tests.database.documents import Store, collect, index_query, run

SEE = "For more information see https://docs.convex.dev/using/indexes."


@pytest.fixture(scope="module")
def store():
    store = Store()
    store.make_index("t", "by_ab", "a", "b")
    store.make_index("t", "by_nested", "o.x")
    store.insert("t", {"a": 1.0, "b": 2.0})
    yield store
    run(store.db.stop())


@pytest.mark.parametrize(
    ("name", "expressions", "code", "text"),
    [
        (
            "t.by_ab",
            [("Eq", "a", 1), ("Eq", "a", "x")],
            "AlreadyDefinedBound",
            'Already defined equality bound in index range. Can\'t add "a" == "x".',
        ),
        (
            "t.by_ab",
            [("Gt", "a", 1), ("Gte", "a", 2)],
            "AlreadyDefinedBound",
            'Already defined lower bound in index range. Can\'t add "a" >= 2.0.',
        ),
        (
            "t.by_ab",
            [("Lt", "a", 1), ("Lte", "a", None)],
            "AlreadyDefinedBound",
            'Already defined upper bound in index range. Can\'t add "a" <= null.',
        ),
        (
            "t.by_ab",
            [("Eq", "a", 1), ("Lt", "a", 2)],
            "AlreadyDefinedBound",
            'Already defined equality bound in index range. Can\'t add "a" < 2.0.',
        ),
        (
            "t.by_ab",
            [("Gt", "a", 1), ("Eq", "a", 2)],
            "AlreadyDefinedBound",
            'Already defined inequality bound in index range. Can\'t add "a" == 2.0.',
        ),
        (
            "t.by_ab",
            [("Gt", "a", 1), ("Lt", "b", 2)],
            "BoundsOnMultipleFields",
            "Upper and lower bounds in `range` can only be applied to a single index field. This query against index t.by_ab "
            'attempted to set a range bound on both "a" and "b". Consider using `filter` instead. See '
            "https://docs.convex.dev/using/indexes for more info.",
        ),
        (
            "t.by_ab",
            [("Eq", "c", 1)],
            "FieldNotInIndex",
            'The index range included a comparison with "c", but t.by_ab with fields ["a", "b", "_creationTime"] doesn\'t '
            f"index this field. {SEE}",
        ),
        (
            "t.by_ab",
            [("Eq", "b", 1)],
            "InvalidIndexRange",
            "Tried to query index t.by_ab but the query didn't use the index fields in order.\n"
            'Index fields: ["a", "b", "_creationTime"]\nQuery fields: ["b"]\nFirst incorrect field: "b"\n' + SEE,
        ),
        (
            "t.by_ab",
            [("Eq", "a", 1), ("Gt", "_creationTime", 1)],
            "InvalidIndexRange",
            "Tried to query index t.by_ab but the query didn't use the index fields in order.\n"
            'Index fields: ["a", "b", "_creationTime"]\nQuery fields: ["a", "_creationTime"]\n'
            'First incorrect field: "_creationTime"\n' + SEE,
        ),
        ("t.nothing", [], "IndexNotFoundError", "Index t.nothing not found."),
    ],
)
def test_texts(store, name, expressions, code, text):
    """Each wrong range has its code and text, at the first fetch and again at the next."""
    query = store.query()
    stream = query.open_stream(index_query(name, *expressions))
    for _ in range(2):
        with pytest.raises(BadRequest) as caught:
            run(stream.fetch(1))
        assert (caught.value.code, caught.value.message) == (code, text)
    query.close()


def test_order_of_expressions_is_free_and_dots_are_trimmed(store):
    """Equalities may come in any order; leading and trailing dots of a path do not count."""
    query = store.query()
    assert len(collect(query, index_query("t.by_ab", ("Eq", "b", 2), ("Eq", ".a.", 1)))) == 1


def test_a_complete_key_is_a_single_point(store):
    """Fixing all fields, ``_creationTime`` and ``_id`` selects exactly that entry."""
    query = store.query()
    document = orjson.loads(collect(query, index_query("t.by_ab"))[0])
    full = index_query(
        "t.by_ab",
        ("Eq", "a", 1),
        ("Eq", "b", 2),
        ("Eq", "_creationTime", document["_creationTime"]),
        ("Eq", "_id", document["_id"]),
    )
    assert [orjson.loads(row) for row in collect(query, full)] == [document]


def test_a_query_of_a_missing_table_is_empty_whatever_its_index(store):
    """Without the table there is no index to miss."""
    assert collect(store.query(), index_query("nothing.by_x", ("Eq", "x", 1))) == []


SCALARS = st.one_of(
    st.just(UNDEFINED),
    st.none(),
    st.integers(-3, 3),
    st.sampled_from([-1.5, -0.0, 0.0, 1.0, float("nan"), float("inf")]),
    st.booleans(),
    st.sampled_from(["", "a", "a\0b", "b", "\uffff", "\U00010000"]),
    st.sampled_from([b"", b"\0", b"a"]),
    st.sampled_from([[], [1.0], {}, {"k": 1.0}]),
)
COMPARISONS = {
    "Eq": lambda order: order == 0,
    "Gt": lambda order: order > 0,
    "Gte": lambda order: order >= 0,
    "Lt": lambda order: order < 0,
    "Lte": lambda order: order <= 0,
}


def as_range_json(value):
    return {"$undefined": None} if value is UNDEFINED else orjson.loads(orjson.dumps(to_json(value)))


@settings(max_examples=60, deadline=None)
@given(
    documents=st.lists(st.tuples(SCALARS, SCALARS), max_size=12),
    equal=st.one_of(st.none(), SCALARS),
    lower=st.one_of(st.none(), st.tuples(st.sampled_from(["Gt", "Gte"]), SCALARS)),
    upper=st.one_of(st.none(), st.tuples(st.sampled_from(["Lt", "Lte"]), SCALARS)),
    use_equal=st.booleans(),
    descending=st.booleans(),
    own=st.integers(0, 12),
)
def test_ranges_select_what_the_total_order_says(documents, equal, lower, upper, use_equal, descending, own):
    """A range over any types equals a filter by the total order, sorted by key; some rows are own writes of the reader."""
    store = Store()
    store.make_index("t", "by_ab", "a", "b")
    rows = []
    values = [
        {name: value for name, value in zip("ab", pair, strict=True) if value is not UNDEFINED} for pair in documents
    ]
    stored, mine = values[own:], values[:own]
    for value in stored:
        rows.append((store.insert("t", value)[0], value))
    reader = store.mutation()
    for value in mine:
        rows.append((run(reader.insert("t", value)), value))
    expressions = []
    if use_equal:
        expressions.append(("Eq", "a", equal))
    field = "b" if use_equal else "a"
    for bound in (lower, upper):
        if bound is not None:
            expressions.append((bound[0], field, bound[1]))

    def matches(value):
        return all(
            COMPARISONS[kind](compare(value.get(name, UNDEFINED), operand)) for kind, name, operand in expressions
        )

    query = index_query(
        "t.by_ab",
        *[(kind, name, as_range_json(operand)) for kind, name, operand in expressions],
        order="desc" if descending else None,
    )
    found = [orjson.loads(row)["_id"] for row in collect(reader, query, page=3)]
    assert sorted(found) == sorted(document_id for document_id, value in rows if matches(value))
    by_id = dict(rows)
    for first, second in pairwise(found):
        pair = [[by_id[each].get("a", UNDEFINED), by_id[each].get("b", UNDEFINED)] for each in (first, second)]
        order = compare(pair[0][0], pair[1][0]) or compare(pair[0][1], pair[1][1])
        assert order >= 0 if descending else order <= 0
    reader.close()
    run(store.db.stop())


@settings(max_examples=40, deadline=None)
@given(
    bound=st.one_of(
        st.none(),
        st.integers(0, 5),
        st.text("0123456789abcdefghjkmnpqrstvwxyz~", max_size=34),
        st.integers(0, 4).map(lambda position: f"#{position}"),
    ),
    kind=st.sampled_from(sorted(COMPARISONS)),
)
def test_ranges_over_ids_compare_texts(bound, kind):
    """A range over ``by_id`` compares id texts, also with strings that are no ids and with other types."""
    store = Store()
    ids = sorted(store.insert("t", *[{} for _ in range(5)]))
    if isinstance(bound, str) and bound.startswith("#"):
        bound = ids[int(bound[1:])]
    query = index_query("t.by_id", (kind, "_id", as_range_json(bound)))
    found = [orjson.loads(row)["_id"] for row in collect(store.query(), query)]
    assert found == [each for each in ids if COMPARISONS[kind](compare(each, bound))]
    run(store.db.stop())


def test_commit_timestamp_in_a_range_is_the_largest_int64(store):
    """``{"$commitTs": null}`` sorts as the maximum int64: floats come after it, int64 before."""
    query = store.query()
    assert len(collect(query, index_query("t.by_ab", ("Gt", "a", {"$commitTs": None})))) == 1
    assert collect(query, index_query("t.by_ab", ("Lt", "a", {"$commitTs": None}))) == []
    assert from_json({"$integer": "//////////8="}) == -1


def test_planning_leaves_the_query_as_it_was(store):
    """The same parsed query can be planned twice, also with containers as values."""
    query = index_query("t.by_ab", ("Eq", "a", [1, {"x": {"$integer": "AQAAAAAAAAA="}}]))
    before = orjson.dumps(query)
    assert collect(store.query(), query) == []
    assert orjson.dumps(query) == before


def test_id_of_another_table_selects_nothing(store):
    """``eq("_id", …)`` with another table's id is empty."""
    assert collect(store.query(), index_query("t.by_id", ("Eq", "_id", encode_id(20_000, bytes(16))))) == []
