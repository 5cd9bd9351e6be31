"""What arguments tell about the documents that a mutation will read."""

from __future__ import annotations

import orjson

from convex_backend.database.hints import FunctionHabits, named_documents, points_of
from tests.database.documents import Store, run


def rig():
    """A store with three documents, their names, and the points of all."""
    store = Store()
    ids = store.insert("t", {}, {}, {})
    return store, ids, store.db.catalogs.newest


def test_ids_in_order_without_what_is_none():
    """Texts of an id's length that are none, and ids of unknown tables, are left out."""
    store, ids, catalog = rig()
    text = orjson.dumps([{"b": ids[1], "a": [ids[0], "0" * 32], "other": "0400000000000000000000000000248"}])
    named = named_documents(text)
    assert [one.text for one in named] == [ids[1], ids[0], "0400000000000000000000000000248"]
    assert [key for _, key in points_of(named, catalog, 0)] == [named[0].id, named[1].id]
    assert points_of(named, catalog, 5) == []
    run(store.db.stop())


def test_a_function_that_does_not_read_what_it_names():
    """At first all that is named counts as likely; a place that runs do not read stops being likely, and is again when they do."""
    store, ids, catalog = rig()
    habits = FunctionHabits()
    named = named_documents(orjson.dumps(ids))
    assert habits.likely("f", named) == named
    for _ in range(10):
        transaction = store.query()
        run(transaction.get(ids[0]))
        habits.learn("f", named, transaction.reads, catalog, 0)
        transaction.close()
    assert habits.likely("f", named) == named[:1]
    assert habits.likely("g", named) == named
    for _ in range(10):
        transaction = store.query()
        run(transaction.get(ids[1]))
        habits.learn("f", named, transaction.reads, catalog, 0)
        transaction.close()
    assert habits.likely("f", named) == named[1:2]
    run(store.db.stop())


def test_strict_for_a_while_after_a_refusal():
    """A refusal makes the next runs of that function strict, not those of others, and not for ever."""
    habits = FunctionHabits()
    assert not habits.is_strict("f")
    habits.refused("f")
    assert [habits.is_strict("f") for _ in range(600)].count(True) == 500
    assert not habits.is_strict("g")


def test_functions_are_forgotten_at_a_bound():
    """No more than so many functions are kept, the oldest go."""
    store, ids, catalog = rig()
    habits = FunctionHabits()
    transaction = store.query()
    run(transaction.ensure_begun())
    for n in range(5000):
        habits.learn(f"f{n}", named_documents(orjson.dumps(ids)), transaction.reads, catalog, 0)
    assert len(habits._functions) == 2048
    transaction.close()
    run(store.db.stop())
