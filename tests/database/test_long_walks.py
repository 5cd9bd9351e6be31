"""Walks over many rows leave the reactor to others now and then, and give the same answer as one that need not."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from twisted.internet.defer import CancelledError, Deferred

from tests.database.documents import Store, run, scan
from tests.database.test_pagination import seal, unseal

NOTHING = scan("t", None, {"filter": {"$eq": [{"$field": "n"}, {"$literal": -1}]}})
EVEN = scan("t", None, {"filter": {"$eq": [{"$mod": [{"$field": "n"}, {"$literal": 2}]}, {"$literal": 0}]}})


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch):
    """3000 rows, and a clock by which every look takes 6 ms."""
    store = Store()
    store.insert("t", *[{"n": float(n)} for n in range(3000)])
    seconds = store.timers.seconds
    looks = [0]

    def slow() -> float:
        looks[0] += 1
        return seconds() + looks[0] * 0.006

    monkeypatch.setattr(store.timers, "seconds", slow)
    yield store
    monkeypatch.undo()
    run(store.db.stop())


def turns(store: Store, monkeypatch: pytest.MonkeyPatch, coroutine: Any) -> tuple[Any, int]:
    """The result of a coroutine, and how many turns of the reactor it asked for."""
    results: list[Any] = []
    asked: list[float] = []
    call_later = store.timers.callLater

    def counted(seconds: float, *call: Any) -> Any:
        asked.append(seconds)
        return call_later(seconds, *call)

    with monkeypatch.context() as patch:
        patch.setattr(store.timers, "callLater", counted)
        Deferred.fromCoroutine(coroutine).addBoth(results.append)
        while not results:
            store.timers.advance(0)
    return results[0], len(asked)


def test_a_filter_that_finds_nothing(store):
    """A filter over all rows takes several turns, in which others write; its result is that of its snapshot."""
    query = store.query()
    stream = query.open_stream(EVEN)
    results: list[Any] = []
    found: list[bytes] = []
    writes = 0
    while True:
        results.clear()
        Deferred.fromCoroutine(stream.fetch(256)).addBoth(results.append)
        while not results:
            store.insert("t", {"n": 2.0})
            writes += 1
            store.timers.advance(0)
        rows, done = results[0]
        stream.consume(len(rows) + done)
        found += rows
        if done:
            break
    assert writes > 3
    assert [orjson.loads(row)["n"] for row in found] == list(range(0, 3000, 2))
    assert query.metrics()["documentsRead"]["used"] == 3000
    query.close()


def test_counts_and_pages(store, monkeypatch):
    """``count`` and a large page give way too."""
    query = store.query()
    found, count = turns(store, monkeypatch, query.count("t"))
    assert (found, count) == (3000, 3)
    page, count = turns(
        store,
        monkeypatch,
        query.paginate(NOTHING, cursor=None, end_cursor=None, page_size=100, seal=seal, unseal=unseal),
    )
    assert (page["page"], page["isDone"]) == ([], True)
    assert count > 3
    query.close()


def test_a_walk_that_is_given_up(store):
    """Cancelling between two turns ends the walk; no timer is left."""
    query = store.query()
    results: list[Any] = []
    walk = Deferred.fromCoroutine(query.open_stream(NOTHING).fetch(32))
    walk.addErrback(results.append)
    assert not results
    before = len(store.timers.getDelayedCalls())
    walk.cancel()
    assert results[0].check(CancelledError)
    assert len(store.timers.getDelayedCalls()) == before - 1
    query.close()
