"""Keys of unique system indexes that pass from one row to another, seen through the overlay."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from convex_backend.database.system_tables import ENVIRONMENT_VARIABLES
from convex_backend.database.transaction import Transaction
from convex_backend.deferreds import from_coroutine
from tests.database.documents import Store, run

TABLE = ENVIRONMENT_VARIABLES.name
NAME = (0, "A")


def row(value: str) -> dict[str, Any]:
    """A variable *A*."""
    return {"component": 0, "name": "A", "value": value}


def value_in(transaction: Transaction) -> str | None:
    """What *A* is there."""
    found = run(transaction.system.lookup(TABLE, "by_name", NAME))
    return None if found is None else found[1]["value"]


def test_a_key_that_passed_to_another_row_belongs_to_that_row() -> None:
    """While the rows are in the overlay, own writes to the second row hide its stored version, and older snapshots see the first row."""
    store = Store()
    first = store.system()
    run(first.system.insert(TABLE, row("a0")))
    store.commit(first)
    before = store.query()
    gate: Deferred[None] = Deferred()
    store.persistence.before_write = lambda _: gate
    pending = []
    remove = store.system()
    [(gone, _)] = run(remove.system.scan(TABLE))
    run(remove.system.delete(TABLE, gone))
    pending.append(from_coroutine(store.db.commit(remove)))
    again = store.system()
    id = run(again.system.insert(TABLE, row("a1")))
    pending.append(from_coroutine(store.db.commit(again)))
    change = store.system()
    run(change.system.patch(TABLE, id, {"value": "b"}))
    assert value_in(change) == "b"
    assert [found[1]["value"] for found in run(change.system.scan(TABLE, "by_name", (0,)))] == ["b"]
    assert value_in(before) == "a0"
    change.close()
    before.close()
    gate.callback(None)
    assert all(commit.called for commit in pending)


def test_a_key_given_away_in_one_commit_is_kept_whatever_the_order_of_the_calls() -> None:
    """A row that takes the key of one that is deleted in the same commit keeps it, also when it was written first; now and after a restart."""
    store = Store()
    both = store.system()
    old = run(both.system.insert(TABLE, row("old")))
    new = run(both.system.insert(TABLE, {**row("new"), "name": "B"}))
    store.commit(both)
    before = store.query()
    swap = store.system()
    run(swap.system.patch(TABLE, new, {"value": "newer"}))
    run(swap.system.delete(TABLE, old))
    run(swap.system.patch(TABLE, new, {"name": "A"}))
    gate: Deferred[None] = Deferred()
    store.persistence.before_write = lambda _: gate
    committed = from_coroutine(store.db.commit(swap))
    after = store.system()
    assert value_in(after) == "newer"
    assert value_in(before) == "old"
    store.persistence.before_write = None
    gate.callback(None)
    assert committed.called
    before.close()
    after.close()
    latest = store.query()
    assert value_in(latest) == "newer"
    latest.close()
