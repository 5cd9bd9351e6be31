"""A backfill beside writes whose versions are still in the overlay."""

from __future__ import annotations

import orjson
from twisted.internet.defer import Deferred

from convex_backend.database.catalog import ENABLED
from convex_backend.database.tables import add_index, set_index_state
from convex_backend.deferreds import from_coroutine
from tests.database.documents import Store, collect, index_query, run


def test_a_row_that_was_rewritten_in_place_gets_its_entry() -> None:
    """A write that leaves the key as it is adds no entry to the file, though it is in the overlay while it is pending: a backfill step that
    runs meanwhile adds the entry."""
    store = Store()
    (document,) = store.insert("t", {"n": 1.0, "x": 0.0})
    system = store.system()
    run(system.ensure_begun())
    index = run(add_index(system, system.catalog.table(0, "t"), "by_n", fields=("n", "_creationTime")))
    store.commit(system)
    held: list[Deferred[None]] = []

    def hold(_: object) -> Deferred[None]:
        held.append(Deferred())
        return held[-1]

    store.persistence.before_write = hold
    mutation = store.mutation()
    run(mutation.patch(document, {"x": 1.0}, "t"))
    from_coroutine(store.db.commit(mutation))
    store.settle(0.5)
    store.persistence.before_write = None
    held[0].callback(None)
    store.settle(0.5)
    system = store.system()
    run(system.ensure_begun())
    run(set_index_state(system, system.catalog.index_rows[index.row_id], ENABLED))
    store.commit(system)
    rows = collect(store.query(), index_query("t.by_n"))
    assert [orjson.loads(row)["x"] for row in rows] == [1]
    run(store.db.stop())
