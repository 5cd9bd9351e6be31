"""``ctx.meta.getSnapshotTs()``: every commit up to it is observable in the transaction, and no later one (npm convex 1.47.0)."""

from __future__ import annotations

from typing import Any

from convex_backend.application.run_query import run_query
from convex_backend.application.types import ANONYMOUS, CallResult
from convex_backend.deferreds import from_coroutine
from tests.application.support import CALLER, Function, World
from tests.database.documents import run


def write(world: World, n: float = 0.0) -> int:
    """Commit a document. :returns: its timestamp."""
    transaction = world.db.begin("mutation")
    run(transaction.insert("notes", {"n": n}))
    return run(world.db.commit(transaction))


def start(world: World, path: str) -> list[Any]:
    """Begin a mutation. :returns: a list that gets its result."""
    results: list[Any] = []
    from_coroutine(world.mutations.run(path, b"{}", ANONYMOUS, CALLER)).addBoth(results.append)
    return results


def value_of(results: list[Any]) -> Any:
    import json

    [result] = results
    assert isinstance(result, CallResult) and result.error is None, result
    assert result.value is not None
    return json.loads(result.value)


async def tell_then_read(function: Function, args: Any) -> Any:
    """Look at the timestamp, wait, and read."""
    ts = function.snapshot_ts()
    await function.pause()
    return [ts, len(await function.all("notes"))]


async def read_then_tell(function: Function, args: Any) -> Any:
    """Read, wait, and look at the timestamp."""
    found = len(await function.all("notes"))
    await function.pause()
    return [function.snapshot_ts(), found]


def test_a_mutation_reads_what_it_was_told() -> None:
    """Without commits in between the first run stands, and the timestamp is the newest commit's."""
    world = World()
    ts = write(world)
    for script in (tell_then_read, read_then_tell):
        world.define("notes:f", "mutation", script)
        results = start(world, "notes:f")
        world.pool.paused.pop().callback(None)
        assert value_of(results) == [ts, 1]
    assert len(world.pool.specs) == 2


def test_a_commit_between_telling_and_reading() -> None:
    """The run is repeated at a fixed snapshot, and later runs of the function begin at one: what it returns is true."""
    world = World()
    write(world)
    world.define("notes:f", "mutation", tell_then_read)
    results = start(world, "notes:f")
    second = write(world)
    world.pool.paused.pop().callback(None)
    assert results == [], "repeated"
    third = write(world)
    world.pool.paused.pop().callback(None)
    ts, found = value_of(results)
    assert (ts, found) == (second, 2), "the commit after it began is not observable"
    results = start(world, "notes:f")
    write(world)
    world.pool.paused.pop().callback(None)
    assert value_of(results) == [third, 3]
    assert len(world.pool.specs) == 3


def test_a_nested_query_sees_the_same() -> None:
    """The value is shared with nested calls; what a nested call was told counts for the whole mutation."""
    world = World()
    ts = write(world)

    async def inner(function: Function, args: Any) -> Any:
        return function.snapshot_ts()

    async def outer(function: Function, args: Any) -> Any:
        before = function.told
        nested = await function.call("1.0/runUdf", udfType="query", name="notes:inner", args={})
        return [before, nested, len(await function.all("notes"))]

    world.define("notes:inner", "query", inner)
    world.define("notes:outer", "mutation", outer)
    assert value_of(start(world, "notes:outer")) == [ts, ts, 1]


def test_a_query_is_told_its_snapshot() -> None:
    """A query's timestamp is the durable one that it reads at."""
    world = World()
    ts = write(world)

    async def look(function: Function, args: Any) -> Any:
        return [function.snapshot_ts(), len(await function.all("notes"))]

    world.define("notes:look", "query", look)
    result = run(run_query(world.services, world.live, world.queries, "notes:look", b"{}", ANONYMOUS, CALLER))
    assert result.value == f"[{ts}, 1]".encode()
