"""Many mutations at once over one database, with a random scheduler between all their steps: lanes, streams and commits together."""

from __future__ import annotations

import random

import orjson
import pytest
from twisted.internet.defer import Deferred

from convex_backend.database.hints import named_documents
from convex_backend.errors import OccConflict, Rerun, StorageFailed
from convex_backend.values.ids import decode_id
from tests.database.documents import Store, index_query, run, scan


class Scheduler:
    """Wakes one of those who wait, at random."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.waiting: list[Deferred[None]] = []

    def pause(self, *_: object) -> Deferred[None]:
        waiter: Deferred[None] = Deferred()
        self.waiting.append(waiter)
        return waiter

    def step(self) -> None:
        position = self.random.randrange(len(self.waiting))
        self.waiting.pop(position).callback(None)


async def rows_of(transaction, query, scheduler):
    """All rows, read page by page with pauses."""
    stream = transaction.open_stream(query)
    found = []
    while True:
        rows, done = await stream.fetch(2)
        stream.consume(1)
        await scheduler.pause()
        stream.consume(len(rows) - 1 + done)
        found.extend(rows)
        if done:
            return found


async def until_committed(store, body, tries, hints=b""):
    """Run a mutation as the application does: one ticket, again after each conflict."""
    ticket = store.db.committer.lanes.ticket(named=named_documents(hints))
    try:
        while True:
            tries.append(1)
            transaction = store.mutation(ticket=ticket, writer="m.js:f")
            try:
                await body(transaction)
                return await store.db.commit(transaction)
            except (OccConflict, Rerun):
                ticket.keep_for_rerun()
            finally:
                transaction.close()
    finally:
        ticket.release_all()


@pytest.mark.parametrize("seed", range(25))
def test_every_mutation_ends_and_the_result_is_serial(seed):
    """Increments by get, by scan, and transfers between two rows in either order: nothing is lost, everybody ends."""
    store = Store(seed=seed)
    store.make_index("t", "by_n", "n")
    ids = store.insert("t", *[{"n": 0.0} for _ in range(3)])
    store.insert("log", {})
    scheduler = Scheduler(seed)
    store.persistence.before_write = scheduler.pause
    tries: list[int] = []
    finished: list[int] = []

    def increment(position):
        async def body(transaction):
            n = orjson.loads(await transaction.get(ids[position]))["n"]
            await scheduler.pause()
            await transaction.patch(ids[position], {"n": n + 1})

        return body

    def transfer(source, target):
        async def body(transaction):
            taken = orjson.loads(await transaction.get(ids[source]))["n"]
            await scheduler.pause()
            given = orjson.loads(await transaction.get(ids[target]))["n"]
            await transaction.patch(ids[source], {"n": taken - 1})
            await scheduler.pause()
            await transaction.patch(ids[target], {"n": given + 1})

        return body

    async def increment_largest(transaction):
        rows = await rows_of(transaction, index_query("t.by_n", order="desc"), scheduler)
        assert len(rows) == 3
        first = orjson.loads(rows[0])
        await transaction.patch(first["_id"], {"n": first["n"] + 1})

    async def note_total(transaction):
        rows = await rows_of(transaction, scan("t"), scheduler)
        await transaction.insert("log", {"total": sum(orjson.loads(row)["n"] for row in rows)})

    bodies = [increment(n % 3) for n in range(6)]
    bodies += [transfer(0, 1), transfer(1, 0), transfer(2, 0), transfer(0, 2)]
    bodies += [increment_largest] * 4 + [note_total] * 3
    scheduler.random.shuffle(bodies)
    for body in bodies:
        hints = orjson.dumps(scheduler.random.sample(ids, scheduler.random.randrange(4)))
        Deferred.fromCoroutine(until_committed(store, body, tries, hints)).addCallback(finished.append)
    for _ in range(20_000):
        if len(finished) == len(bodies):
            break
        assert scheduler.waiting, "everybody waits for somebody"
        scheduler.step()
    store.persistence.before_write = None
    while scheduler.waiting:
        scheduler.step()
    assert len(finished) == len(set(finished)) == len(bodies)
    query = store.query()
    stream = query.open_stream(scan("t"))
    rows, _ = run(stream.fetch(10))
    assert sum(orjson.loads(row)["n"] for row in rows) == 10
    query.close()
    totals = {orjson.loads(row).get("total") for row in run(store.query().open_stream(scan("log")).fetch(50))[0]}
    assert totals - {None} <= set(map(float, range(11)))
    assert store.db.committer.snapshots.open_count <= 1
    run(store.db.stop())


@pytest.mark.parametrize("seed", range(10))
def test_failing_groups_lose_only_what_was_not_acknowledged(seed):
    """With groups that fail at random, each acknowledged increment is there, each failed one is not."""
    store = Store(seed=seed)
    (counter,) = store.insert("t", {"n": 0.0})
    scheduler = Scheduler(seed)

    async def write(commits):
        await scheduler.pause()
        if scheduler.random.random() < 0.3:
            raise OSError("disk")

    store.persistence.before_write = lambda commits: Deferred.fromCoroutine(write(commits))
    outcomes: list[str] = []

    async def body(transaction):
        n = orjson.loads(await transaction.get(counter))["n"]
        await scheduler.pause()
        await transaction.patch(counter, {"n": n + 1})
        await transaction.insert(f"made_{scheduler.random.randrange(5)}", {})

    async def client():
        try:
            await until_committed(store, body, [])
        except StorageFailed:
            outcomes.append("failed")
        else:
            outcomes.append("committed")

    for _ in range(12):
        Deferred.fromCoroutine(client()).addErrback(lambda failure: outcomes.append(repr(failure)))
    for _ in range(20_000):
        if len(outcomes) == 12:
            break
        assert scheduler.waiting, "everybody waits for somebody"
        scheduler.step()
    store.persistence.before_write = None
    while scheduler.waiting:
        scheduler.step()
    assert set(outcomes) <= {"failed", "committed"}
    n = orjson.loads(run(store.query().get(counter)))["n"]
    assert n == outcomes.count("committed")
    made = [table for table in store.db.catalogs.newest.tables_of(0) if table.name.startswith("made_")]
    assert sum(run(store.query().count(table.name)) for table in made) == n
    run(store.db.stop())


def test_ids_in_arguments_are_expected_reads():
    """Transfers between two hot documents in opposite order: the arguments name both, so the second waits for the first and neither re-runs."""
    store = Store()
    ids = store.insert("t", {"n": 1.0}, {"n": 2.0})
    lanes = store.db.committer.lanes
    tablet = store.db.catalogs.newest.table(0, "t").tablet
    for one in ids:
        lanes.lane((-tablet, decode_id(one)[1]))
    order, tries = [], []

    async def transfer(name, source, sink):
        hints = orjson.dumps([{"from": source, "to": sink, "note": "0" * 32}])
        ticket = lanes.ticket(named=named_documents(hints))
        transaction = store.mutation(ticket=ticket, writer="m.js:f")
        tries.append(name)
        a = orjson.loads(await transaction.get(source))
        order.append(name)
        await gate
        b = orjson.loads(await transaction.get(sink))
        await transaction.patch(source, {"n": a["n"] - 1})
        await transaction.patch(sink, {"n": b["n"] + 1})
        await store.db.commit(transaction)
        ticket.release_all()

    gate: Deferred[None] = Deferred()
    done = [Deferred.fromCoroutine(transfer("one", *ids)), Deferred.fromCoroutine(transfer("two", *reversed(ids)))]
    assert order == ["one"]
    gate.callback(None)
    assert [one.result for one in done] == [None, None]
    assert order == tries == ["one", "two"]
    query = store.query()
    assert [orjson.loads(run(query.get(one)))["n"] for one in ids] == [1.0, 2.0]
    query.close()
    run(store.db.stop())
