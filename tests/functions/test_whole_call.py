"""A bundled function folder, real children and a real transaction together."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import orjson
import pytest
import pytest_twisted
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, gatherResults

from convex_backend.functions.context import CallContext, CallTree
from convex_backend.functions.directory import Environment, ResolvedFunction
from convex_backend.functions.fleet import PoolOptions
from convex_backend.functions.invocation import make_spec
from convex_backend.functions.module_text import ModuleText
from convex_backend.functions.modules import closure_refs, module_text
from convex_backend.functions.pool_metrics import PoolMetrics
from convex_backend.functions.runner_pool import RunnerPool
from convex_backend.functions.runner_process import RunnerProcess, runner_command
from convex_backend.interfaces import Outcome
from tests.database.documents import Store
from tests.functions.test_real_child import DIST
from tests.functions.test_syscalls import TABLE, Rig, function
from tests.runner.bundles import bundle

pytestmark = pytest.mark.skipif(not (DIST / "main.mjs").exists(), reason="the runner is not built: node build.mjs")

FILES = {
    "things.ts": """
import { makeFunctionReference, mutationGeneric, queryGeneric } from "convex/server";
import { ConvexError } from "convex/values";
export const add = mutationGeneric(async ({ db }, { n }) => db.insert("things", { n, tags: ["a"] }));
export const get = queryGeneric(async ({ db }, { id }) => db.get(id));
export const sum = queryGeneric(async ({ db }) => (await db.query("things").collect()).reduce((t, d) => t + d.n, 0));
export const firstTwo = queryGeneric(async ({ db }) => {
  const found = [];
  for await (const one of db.query("things")) { found.push(one.n); if (found.length === 2) break; }
  return found;
});
export const patchAll = mutationGeneric(async ({ db }) => {
  for await (const one of db.query("things")) await db.patch(one._id, { n: one.n + 1 });
  return (await db.query("things").collect()).map((one) => one.n);
});
export const nested = mutationGeneric(async (ctx, { fail }) => {
  await ctx.db.insert("things", { n: 1 });
  try {
    await ctx.runMutation(makeFunctionReference("things:inner"), { fail });
  } catch (error) {
    return { caught: error instanceof ConvexError, data: error.data, left: (await ctx.db.query("things").collect()).length };
  }
  return (await ctx.db.query("things").collect()).length;
});
export const inner = mutationGeneric(async ({ db }, { fail }) => {
  console.log("inner");
  await db.insert("things", { n: 2 });
  if (fail) throw new ConvexError({ code: 7n });
});
export const who = queryGeneric(async ({ auth }) => (await auth.getUserIdentity())?.subject ?? "nobody");
""",
}
KINDS = {"get": "query", "sum": "query", "firstTwo": "query", "who": "query"}


@attrs.define(eq=False)
class World:
    """A pool, a store, and the functions of ``FILES``."""

    pool: RunnerPool
    rig: Rig
    functions: dict[str, ResolvedFunction]
    last: CallTree | None = None

    async def call(self, name: str, *, commit: bool = False, **args: Any) -> Outcome:
        """Run ``things:<name>`` in a transaction of its own."""
        store = self.rig.store
        resolved = self.functions[name]
        text = orjson.dumps([args])
        environment = Environment({}, "0")
        trees: list[CallTree] = []

        def make_host() -> CallContext:
            transaction = store.db.begin(resolved.kind)
            tree = attrs.evolve(self.rig.tree, transaction=transaction, on_abandon=transaction.close)
            trees.append(tree)
            return CallContext(tree, resolved, environment, TABLE, args_bytes=len(text))

        spec = make_spec(
            resolved,
            text,
            seed=os.urandom(32),
            now_ms=1,
            request_id="ab" * 8,
            environment=environment,
            tables={},
            timeout_seconds=0.0,
        )
        outcome = await self.pool.run(spec, make_host)
        self.last = trees[-1]
        transaction: Any = trees[-1].transaction
        if commit and outcome.error is None:
            await store.db.commit(transaction)
        else:
            transaction.close()
        return outcome

    async def value(self, name: str, **options: Any) -> Any:
        outcome = await self.call(name, **options)
        assert outcome.error is None, outcome.error
        return orjson.loads(outcome.value or b"")

    @property
    def used(self) -> dict[str, int]:
        """What the last transaction counted."""
        assert self.last is not None
        assert self.last.transaction is not None
        return {name: figures["used"] for name, figures in self.last.transaction.metrics().items()}


async def in_world(
    test: Callable[[World], Awaitable[None]],
    files: dict[str, str] = FILES,
    kinds: dict[str, str] = KINDS,
) -> None:
    """Run *test* over a fresh store and a started pool.

    :param files: sources; the functions are those of ``things.ts``. :param kinds: of functions that are not mutations.
    """
    from twisted.internet import reactor

    texts = [module_text(path, *parts) for path, parts in bundle(files).items()]
    by_hash = {text.hash: text for text in texts}
    hashes = {text.path: text.hash for text in texts}

    async def source(hash: str) -> ModuleText:
        return by_hash[hash]

    pool = RunnerPool(
        reactor,
        PoolOptions("isolate", 1),
        lambda: RunnerProcess(reactor, runner_command(DIST, memory_megabytes=128)),
        source,
        PoolMetrics(CollectorRegistry()),
    )
    rig = Rig("query", Store())
    closure = closure_refs(hashes, hashes)
    functions = {
        name: attrs.evolve(function(f"things:{name}", kinds.get(name, "mutation")), closure=closure)
        for name in re.findall(r"^export const (\w+) = (?:query|mutation)Generic", files["things.ts"], re.MULTILINE)
    }
    rig.directory.add(*functions.values())
    await pool.start()
    try:
        await test(World(pool, rig, functions))
    finally:
        await pool.stop()


@pytest_twisted.ensureDeferred
async def test_documents_through_the_npm_package() -> None:
    """Inserts, gets and scans through ``convex/server`` see what was committed."""

    async def check(world: World) -> None:
        ids = [await world.value("add", n=n, commit=True) for n in range(5)]
        found = await world.value("get", id=ids[3])
        assert (found["n"], found["tags"], found["_id"]) == (3, ["a"], ids[3])
        assert await world.value("sum") == 10
        assert await gatherResults([Deferred.fromCoroutine(world.value("sum")) for _ in range(10)]) == [10] * 10

    await in_world(check)


@pytest_twisted.ensureDeferred
async def test_a_loop_that_breaks_reads_what_it_took() -> None:
    """A page is fetched ahead, but a ``for await`` that breaks after two rows has read two (A3)."""

    async def check(world: World) -> None:
        for n in range(20):
            await world.value("add", n=n, commit=True)
        assert await world.value("firstTwo") == [0, 1]
        assert world.used["documentsRead"] == 2
        assert await world.value("sum") == 190
        assert world.used["documentsRead"] == 20

    await in_world(check)


@pytest_twisted.ensureDeferred
async def test_writes_inside_a_scan() -> None:
    """A scan that patches each row it gets sees every row once, and a later scan sees the patches."""

    async def check(world: World) -> None:
        for n in range(40):
            await world.value("add", n=n, commit=True)
        assert await world.value("patchAll") == [n + 1 for n in range(40)]

    await in_world(check)


@pytest_twisted.ensureDeferred
async def test_nested_mutations() -> None:
    """A nested mutation shares the transaction; its failure is caught with its data and rolls back its own writes."""

    async def check(world: World) -> None:
        outcome = await world.call("nested", fail=False)
        assert outcome.value == b"2"
        assert [(line.messages, line.udf_path) for line in outcome.log_lines] == [(("'inner'",), "things.js:inner")]
        caught = await world.value("nested", fail=True)
        assert caught == {"caught": True, "data": {"code": {"$integer": "BwAAAAAAAAA="}}, "left": 1}

    await in_world(check)


@pytest_twisted.ensureDeferred
async def test_identity() -> None:
    """Asking for the identity marks the tree."""

    async def check(world: World) -> None:
        assert await world.value("sum") == 0
        assert world.last is not None
        assert not world.last.identity_observed
        assert await world.value("who") == "nobody"
        assert world.last.identity_observed

    await in_world(check)
