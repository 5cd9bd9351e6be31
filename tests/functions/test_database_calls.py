"""What npm's database API gives to real functions: commit timestamps, stale snapshots, lowered limits, early ends, several queries at once."""

from __future__ import annotations

import orjson
import pytest
import pytest_twisted

from convex_backend.database.transaction import Transaction
from convex_backend.values.json_codec import loads
from tests.functions.test_real_child import DIST
from tests.functions.test_whole_call import World, in_world

pytestmark = pytest.mark.skipif(not (DIST / "main.mjs").exists(), reason="the runner is not built: node build.mjs")

FILES = {
    "things.ts": """
import { makeFunctionReference as named, mutationGeneric, queryGeneric } from "convex/server";
import { CommitTsPlaceholder } from "convex/values";
const names = { all: named("things:all"), put: named("things:put"), echo: named("things:echo"), snapshotTs: named("things:snapshotTs") };
export const put = mutationGeneric(async ({ db }, fields) => db.insert("things", fields));
export const all = queryGeneric(async ({ db }) => (await db.query("things").collect()).map((one) => one.n));
export const echo = queryGeneric(async ({ db }, { value }) => value);
export const snapshotTs = queryGeneric(async ({ meta }) => meta.getSnapshotTs());
export const get = queryGeneric(async ({ db }, { id }) => db.get(id));

export const stamp = mutationGeneric(async ({ db }) => {
  const { commitTs } = db.vars;
  const id = await db.insert("things", { n: 1, at: commitTs, deep: { list: [commitTs] } });
  const back = await db.get(id);
  await db.patch(id, { n: 2 });
  const again = await db.get(id);
  let asNumber = "";
  try { asNumber = String(again.at + 1); } catch (error) { asNumber = error.message; }
  return { id, same: back.at === commitTs && again.at === commitTs && back.deep.list[0] === commitTs, asNumber, at: commitTs };
});
export const stampNested = mutationGeneric(async (ctx) => {
  const id = await ctx.runMutation(names.put, { n: 1, at: ctx.db.vars.commitTs });
  const value = await ctx.runQuery(names.echo, { value: ctx.db.vars.commitTs });
  return { id, same: value === ctx.db.vars.commitTs };
});
export const unresolved = queryGeneric(async () => [new CommitTsPlaceholder()]);

export const stale = mutationGeneric(async (ctx) => {
  await ctx.db.insert("things", { n: 100 });
  const seen = await ctx.runQuery(names.all, {}, { useStaleSnapshot: true });
  const fresh = await ctx.runQuery(names.all, {});
  return { seen, fresh };
});
export const staleThenWrite = mutationGeneric(async (ctx) => {
  const seen = await ctx.runQuery(names.all, {}, { useStaleSnapshot: true });
  await ctx.db.insert("others", { count: seen.length });
  return seen.length;
});
export const staleTs = mutationGeneric(async (ctx) => {
  const inner = await ctx.runQuery(names.snapshotTs, {}, { useStaleSnapshot: true });
  return inner <= ctx.meta.getSnapshotTs();
});
export const staleLimited = mutationGeneric(async (ctx) => {
  try {
    await ctx.runQuery(names.all, {}, { useStaleSnapshot: true, transactionLimits: { documentsRead: 2 } });
  } catch (error) {
    return error.message;
  }
});

export const limited = mutationGeneric(async (ctx, { limits }) => {
  const caught = [];
  try { await ctx.runQuery(names.all, {}, { transactionLimits: limits }); } catch (error) { caught.push(error.message.split("\\n")[0]); }
  const metrics = await ctx.meta.getTransactionMetrics();
  return { caught, read: metrics.documentsRead };
});
export const limitedWrites = mutationGeneric(async (ctx) => {
  const caught = [];
  try {
    await ctx.runMutation(named("things:putMany"), { count: 4 }, { transactionLimits: { documentsWritten: 3 } });
  } catch (error) { caught.push(error.message.split("\\n")[0]); }
  await ctx.runMutation(named("things:putMany"), { count: 4 });
  return { caught, left: (await ctx.runQuery(names.all, {})).length };
});
export const putMany = mutationGeneric(async ({ db }, { count }) => {
  for (let n = 0; n < count; n++) await db.insert("things", { n });
});

export const several = queryGeneric(async ({ db }) => {
  const up = db.query("things").order("asc")[Symbol.asyncIterator]();
  const down = db.query("things").order("desc")[Symbol.asyncIterator]();
  const pairs = [];
  for (let n = 0; n < 3; n++) pairs.push([(await up.next()).value.n, (await down.next()).value.n]);
  await up.return();
  await down.return();
  const [first, unique, take, none] = await Promise.all([
    db.query("things").first(),
    db.query("things").filter((q) => q.eq(q.field("n"), 4)).unique(),
    db.query("things").order("desc").take(2),
    db.query("nothing").collect(),
  ]);
  let twice = "";
  try { await db.query("things").unique(); } catch (error) { twice = error.message; }
  return { pairs, first: first.n, unique: unique.n, take: take.map((one) => one.n), none, twice, count: await db.query("things").count() };
});
export const badFilter = queryGeneric(async ({ db }) => {
  try {
    await db.query("things").filter((q) => q.add(q.field("n"), "x")).collect();
  } catch (error) {
    return error.message;
  }
});
""",
}
KINDS = dict.fromkeys(("all", "echo", "snapshotTs", "get", "unresolved", "several", "badFilter"), "query")


async def committed(world: World, name: str, **args: object) -> dict:
    """The value of a mutation that commits."""
    return await world.value(name, commit=True, **args)


@pytest_twisted.ensureDeferred
async def test_commit_timestamps_in_documents() -> None:
    """``db.vars.commitTs`` reads back as the very placeholder, is no number, and is an int64 in the document after the commit."""

    async def check(world: World) -> None:
        answer = await committed(world, "stamp")
        assert answer["same"] is True
        assert "unresolved" in answer["asNumber"]
        assert answer["at"] == {"$commitTs": None}  # the use case resolves the answer, of which this world has none
        document = loads(orjson.dumps(await world.value("get", id=answer["id"])))
        assert isinstance(document["at"], int)
        assert document["deep"] == {"list": [document["at"]]}
        assert document["at"] == world.rig.store.db.committer.durable_ts
        assert document["n"] == 2

    await in_world(check, FILES, KINDS)


@pytest_twisted.ensureDeferred
async def test_commit_timestamps_cross_nested_calls() -> None:
    """Arguments and results of nested calls inside a mutation may hold the placeholder; a query's own result may not."""

    async def check(world: World) -> None:
        answer = await committed(world, "stampNested")
        assert answer["same"] is True
        document = loads(orjson.dumps(await world.value("get", id=answer["id"])))
        assert isinstance(document["at"], int)
        outcome = await world.call("unresolved")
        assert outcome.error is not None
        assert outcome.error.message == (
            "Function things.js:unresolved return value invalid: queries cannot return an unresolved commit timestamp"
        )

    await in_world(check, FILES, KINDS)


@pytest_twisted.ensureDeferred
async def test_stale_snapshot_queries() -> None:
    """A query with ``useStaleSnapshot`` does not see the mutation's writes, and a concurrent write to what it read is no conflict."""

    async def check(world: World) -> None:
        await committed(world, "put", n=1)
        assert await world.value("stale") == {"seen": [1], "fresh": [1, 100]}
        assert await world.value("staleTs") is True
        assert await world.value("staleThenWrite") == 1
        assert world.used["documentsRead"] == 0
        assert world.last is not None
        transaction = world.last.transaction
        assert isinstance(transaction, Transaction)
        table = world.rig.store.db.catalogs.newest.table(0, "things")
        assert table is not None
        walked = {-table.tablet, *[index.id for index in table.indexes]}
        assert walked.isdisjoint(transaction.reads.interval_indexes)

    await in_world(check, FILES, KINDS)


@pytest_twisted.ensureDeferred
async def test_stale_snapshot_queries_have_limits() -> None:
    """A lowered limit ends a stale query as it ends any other nested one."""

    async def check(world: World) -> None:
        await committed(world, "putMany", count=3)
        message = await world.value("staleLimited")
        assert "Too many documents read in a single function execution (limit: 2)." in message

    await in_world(check, FILES, KINDS)


@pytest_twisted.ensureDeferred
async def test_transaction_limits_of_nested_calls() -> None:
    """A nested call meets its own lower ceiling, the parent catches it and goes on under the full ones; a higher ceiling changes nothing."""

    async def check(world: World) -> None:
        await committed(world, "putMany", count=5)
        assert (await world.value("limited", limits={"documentsRead": 5}))["caught"] == []
        answer = await world.value("limited", limits={"documentsRead": 4})
        assert "Too many documents read in a single function execution (limit: 4)." in answer["caught"][0]
        assert answer["read"]["used"] == 5
        assert answer["read"]["remaining"] == 32_000 - 5
        assert (await world.value("limited", limits={"documentsRead": 1e9}))["caught"] == []
        assert "(limit: 0)" in (await world.value("limited", limits={"databaseQueries": 0}))["caught"][0]
        answer = await world.value("limitedWrites")
        assert "Too many writes in a single function execution (limit: 3)" in answer["caught"][0]
        assert answer["left"] == 9

    await in_world(check, FILES, KINDS)


@pytest_twisted.ensureDeferred
async def test_several_queries_in_one_function() -> None:
    """Interleaved iterators that end early, first, unique, take, count and an absent table, some at once."""

    async def check(world: World) -> None:
        await committed(world, "putMany", count=6)
        answer = await world.value("several")
        assert answer["pairs"] == [[0, 5], [1, 4], [2, 3]]
        assert (answer["first"], answer["unique"], answer["take"], answer["none"]) == (0, 4, [5, 4], [])
        assert "unique() query returned more than one result" in answer["twice"]
        assert answer["count"] == 6
        assert await world.value("badFilter") == 'Cannot add 0.0 (type Float64) and "x" (type String)'

    await in_world(check, FILES, KINDS)
