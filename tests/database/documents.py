"""A database over memory for the tests of documents, queries and indexes. No reactor runs: every coroutine here ends at once."""

from __future__ import annotations

import random
from collections.abc import Coroutine
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from convex_backend.database.catalog import ENABLED
from convex_backend.database.database import Database
from convex_backend.database.tables import add_index, create_table, set_index_state
from convex_backend.database.transaction import Transaction
from convex_backend.storage.memory_persistence import MemoryPersistence

T = TypeVar("T")

START_NS = 1_700_000_000_123_456_789


class WallClock:
    """Wall time that moves by one millisecond whenever it is looked at."""

    def __init__(self) -> None:
        self.ns = START_NS

    def now_ns(self) -> int:
        self.ns += 1_000_000
        return self.ns


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for; raises what it raised."""
    results: list[Any] = []
    failures: list[Any] = []
    deferred: Deferred[T] = Deferred.fromCoroutine(coroutine)
    deferred.addCallbacks(results.append, failures.append)
    if failures:
        failures[0].raiseException()
    assert results, "the coroutine is still waiting"
    return results[0]


class Store:
    """A started database, and shortcuts."""

    def __init__(self, persistence: MemoryPersistence | None = None, seed: int = 1) -> None:
        self.persistence = persistence if persistence is not None else MemoryPersistence()
        self.timers = Clock()
        self.clock = WallClock()
        self.db = Database(
            self.persistence, self.timers, self.clock, random.Random(seed).randbytes, CollectorRegistry()
        )
        run(self.db.start())

    def mutation(self, **options: Any) -> Transaction:
        return self.db.begin("mutation", **options)

    def query(self, **options: Any) -> Transaction:
        return self.db.begin("query", **options)

    def system(self) -> Transaction:
        return self.db.begin("system")

    def commit(self, transaction: Transaction) -> int:
        return run(self.db.commit(transaction))

    def insert(self, table: str, *values: dict[str, Any], component: int = 0) -> list[str]:
        """Insert in one commit; the new ids."""
        transaction = self.mutation()
        transaction.component = component
        ids = [run(transaction.insert(table, value)) for value in values]
        self.commit(transaction)
        return ids

    def make_index(self, table: str, name: str, *fields: str) -> None:
        """A queryable index over *fields* of a table that is made if need be and is empty."""
        transaction = self.system()
        run(transaction.ensure_begun())
        info = transaction.catalog.table(0, table) or run(create_table(transaction, 0, table))
        index = run(add_index(transaction, info, name, fields=(*fields, "_creationTime")))
        run(set_index_state(transaction, index, ENABLED))
        self.commit(transaction)

    def settle(self, seconds: float = 5.0) -> None:
        """Let background work run."""
        for _ in range(int(seconds / 0.01)):
            self.timers.advance(0.01)


def scan(table: str, order: str | None = None, *operators: dict[str, Any]) -> dict[str, Any]:
    """A full table scan."""
    return {
        "source": {"type": "FullTableScan", "tableName": table, "order": order},
        "operators": list(operators),
    }


def index_query(
    name: str, *expressions: tuple[str, str, Any], order: str | None = None, operators: tuple[Any, ...] = ()
) -> dict[str, Any]:
    """A query of an index; expressions are (type, field path, JSON value)."""
    return {
        "source": {
            "type": "IndexRange",
            "indexName": name,
            "range": [{"type": kind, "fieldPath": field, "value": value} for kind, field, value in expressions],
            "order": order,
        },
        "operators": list(operators),
    }


def collect(transaction: Transaction, query: dict[str, Any], page: int = 7) -> list[bytes]:
    """All rows of a query, consumed as a function consumes them."""
    stream = transaction.open_stream(query)
    found: list[bytes] = []
    while True:
        rows, done = run(stream.fetch(page))
        stream.consume(len(rows) + done)
        found.extend(rows)
        if done:
            transaction.close_stream(stream)
            return found
