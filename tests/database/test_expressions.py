"""Filters: values, comparisons over all types, arithmetic and the texts of their errors."""

from __future__ import annotations

import math

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convex_backend.database.query.expressions import compile_expression
from convex_backend.errors import BadRequest
from convex_backend.values.json_codec import dumps
from convex_backend.values.kinds import UNDEFINED
from convex_backend.values.sort_key import compare


def literal(value):
    return {"$literal": orjson.loads(dumps(value))}


def evaluate(tree, document=None):
    return compile_expression(tree)(orjson.loads(dumps(document if document is not None else {})))


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(),
        st.text(max_size=3),
        st.binary(max_size=3),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2)
    ),
    max_leaves=5,
)
MODEL = {
    "$eq": lambda order: order == 0,
    "$neq": lambda order: order != 0,
    "$lt": lambda order: order < 0,
    "$lte": lambda order: order <= 0,
    "$gt": lambda order: order > 0,
    "$gte": lambda order: order >= 0,
}


@settings(max_examples=300, deadline=None)
@given(left=VALUES, right=st.one_of(VALUES, st.just(UNDEFINED)), operator=st.sampled_from(sorted(MODEL)))
def test_comparisons_follow_the_total_order(left, right, operator):
    """Every comparison of two values of any types equals the total order; a missing field is ``undefined``."""
    document = {"l": left} if right is UNDEFINED else {"l": left, "r": right}
    tree = {operator: [{"$field": "l"}, {"$field": "r"}]}
    assert evaluate(tree, document) is MODEL[operator](compare(left, right))


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [(1.0, 1, False), (math.nan, math.nan, True), (-0.0, 0.0, False), (None, None, True), ("a", "a", True)],
)
def test_equality_is_by_type(left, right, equal):
    """``1 == 1n`` and ``-0 == 0`` are false, ``NaN == NaN`` is true."""
    assert evaluate({"$eq": [literal(left), literal(right)]}) is equal


def test_field_paths():
    """Paths go into objects, not into arrays or encoded values; what is not there is undefined."""
    document = {"a": {"b": {"c": 5}}, "l": [{"b": 1.0}], "i": 7}
    assert evaluate({"$field": "a.b.c"}, document) == 5
    assert evaluate({"$field": ".a.b."}, document) == {"c": 5}
    assert evaluate({"$field": "l.b"}, document) is UNDEFINED
    assert evaluate({"$field": "i.x"}, document) is UNDEFINED
    assert evaluate({"$field": "i"}, document) == 7


def test_a_field_looked_at_twice_is_the_same():
    """Decoding a container for one operand leaves the document as it was for the next."""
    document = {"a": {"n": 1, "f": 2.0}}
    tree = {"$and": [{"$eq": [{"$field": "a"}, literal({"n": 1, "f": 2.0})]}] * 2}
    compiled = compile_expression(tree)
    parsed = orjson.loads(dumps(document))
    assert compiled(parsed) is True
    assert compiled(parsed) is True


@pytest.mark.parametrize(
    ("operator", "left", "right", "result"),
    [
        ("$add", 1, 2, 3),
        ("$sub", 1.5, 1.0, 0.5),
        ("$mul", -3, 4, -12),
        ("$div", -7, 2, -3),
        ("$mod", -7, 2, -1),
        ("$div", 1.0, 0.0, math.inf),
        ("$div", -1.0, 0.0, -math.inf),
        ("$div", 1.0, -0.0, -math.inf),
        ("$mod", -7.5, 2.0, -1.5),
        ("$mod", 5.0, math.inf, 5.0),
    ],
)
def test_arithmetic(operator, left, right, result):
    """Integers truncate like Rust, floats follow IEEE."""
    found = evaluate({operator: [literal(left), literal(right)]})
    assert found == result
    assert type(found) is type(result)


@pytest.mark.parametrize(
    ("operator", "left", "right"), [("$div", 0.0, 0.0), ("$mod", 1.0, 0.0), ("$mod", math.inf, 2.0)]
)
def test_undefined_float_results_are_nan(operator, left, right):
    """0/0, x mod 0 and Infinity mod x are NaN, not errors."""
    assert math.isnan(evaluate({operator: [literal(left), literal(right)]}))


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        ({"$add": [literal(1), literal(1.0)]}, "Cannot add 1 (type Int64) and 1.0 (type Float64)"),
        ({"$sub": [literal("a"), literal(None)]}, 'Cannot subtract "a" (type String) and null (type Null)'),
        ({"$mul": [{"$field": "x"}, literal(1)]}, "Cannot multiply undefined (type undefined) and 1 (type Int64)"),
        ({"$div": [literal(5), literal(0)]}, "Cannot divide 5 by zero"),
        ({"$mod": [literal(5), literal(0)]}, "Cannot mod 5 by zero"),
        (
            {"$add": [literal(2**63 - 1), literal(1)]},
            "Cannot add 9223372036854775807 and 1: the result is out of range for Int64",
        ),
        (
            {"$div": [literal(-(2**63)), literal(-1)]},
            "Cannot divide -9223372036854775808 and -1: the result is out of range for Int64",
        ),
        ({"$neg": literal("a")}, 'Cannot negate "a" (type String)'),
        ({"$neg": literal(-(2**63))}, "Cannot negate -9223372036854775808: the result is out of range for Int64"),
        ({"$not": literal(1.0)}, "Cannot use value 1.0 (type Float64) as a Boolean"),
        ({"$and": [literal(True), literal(None)]}, "Cannot use value null (type Null) as a Boolean"),
        ({"$or": [{"$field": "x"}]}, "Cannot use value undefined (type undefined) as a Boolean"),
    ],
)
def test_error_texts(tree, text):
    """Errors have code ``EvalError`` and the texts of section 3.3."""
    with pytest.raises(BadRequest) as caught:
        evaluate(tree)
    assert (caught.value.code, caught.value.message) == ("EvalError", text)


def test_logic_is_short_circuit():
    """An operand after the deciding one is not looked at."""
    broken = {"$neg": literal("a")}
    assert evaluate({"$and": [literal(False), broken]}) is False
    assert evaluate({"$or": [literal(True), broken]}) is True
    assert evaluate({"$and": []}) is True
    assert evaluate({"$or": []}) is False
    assert evaluate({"$not": literal(False)}) is True
    assert evaluate({"$neg": literal(2.5)}) == -2.5


@pytest.mark.parametrize(
    "tree", [None, [], {}, {"$a": 1, "$b": 2}, {"$what": [1, 2]}, {"$eq": [literal(1)]}, {"$field": 1}]
)
def test_malformed_expressions_are_refused(tree):
    """What is not an expression is a bad request, not a fault of ours."""
    with pytest.raises(BadRequest):
        compile_expression(tree)


def test_depth_is_bounded():
    """A deeply nested expression is refused instead of overflowing the stack."""
    tree = literal(True)
    for _ in range(1000):
        tree = {"$not": tree}
    with pytest.raises(BadRequest):
        compile_expression(tree)
