"""The use cases over a database file and real children, for tests and benchmarks that disturb the children under load."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
from prometheus_client import CollectorRegistry

from convex_backend.application.function_log import FunctionLog
from convex_backend.application.run_action import run_action
from convex_backend.application.run_mutation import Mutations
from convex_backend.application.run_query import QueryRuns
from convex_backend.application.scheduling import JobScheduling
from convex_backend.application.sealing import Sealer
from convex_backend.application.services import Services
from convex_backend.application.settings import Settings
from convex_backend.application.types import ANONYMOUS, Caller, CallResult
from convex_backend.database.database import Database
from convex_backend.functions.context import CallServices, DeploymentInfo
from convex_backend.functions.directory import ResolvedFunction
from convex_backend.functions.fleet import PoolOptions
from convex_backend.functions.module_text import ModuleText
from convex_backend.functions.modules import closure_refs, module_text
from convex_backend.functions.pool_metrics import PoolMetrics
from convex_backend.functions.runner_pool import RunnerPool
from convex_backend.functions.runner_process import RunnerProcess, runner_command
from convex_backend.functions.syscalls import full_table
from convex_backend.interfaces import CallHost, Outcome
from convex_backend.storage.sqlite_persistence import SqlitePersistence
from convex_backend.storage.sqlite_pool import SqlitePool
from convex_backend.values.paths import FunctionPath
from tests.application.support import ScriptedDirectory
from tests.functions.test_real_child import DIST
from tests.runner.bundles import bundle

CALLER = Caller("HttpApi", "npm", "1.48.0", "0123456789abcdef")
FILES = {
    "jobs.ts": """
import { actionGeneric, makeFunctionReference as ref, mutationGeneric, queryGeneric } from "convex/server";
import { ConvexError } from "convex/values";
export const addCounter = mutationGeneric(async ({ db }) => db.insert("counters", { n: 0 }));
export const read = queryGeneric(async ({ db }, { counter }) => (await db.get(counter)).n);
export const count = mutationGeneric(async ({ db }, { counter, key }) => {
  const { n } = await db.get(counter);
  await db.insert("marks", { key });
  await db.patch(counter, { n: n + 1 });
  return key;
});
export const bump = mutationGeneric(async ({ db }, { counter }) => {
  const { n } = await db.get(counter);
  await db.patch(counter, { n: n + 1 });
});
export const countInside = mutationGeneric(async (ctx, args) => ctx.runMutation(ref("jobs:count"), args));
export const readInside = queryGeneric(async (ctx, args) => ctx.runQuery(ref("jobs:read"), args));
export const act = actionGeneric(async (ctx, { counter, keys }) => {
  await ctx.runQuery(ref("jobs:read"), { counter });
  for (const key of keys) await ctx.runMutation(ref("jobs:count"), { counter, key });
  return keys.length;
});
export const spin = queryGeneric(async ({ db }, { counter }) => { await db.get(counter); for (;;); });
export const writeAndSpin = mutationGeneric(async ({ db }, { key }) => { await db.insert("marks", { key }); for (;;); });
export const fail = mutationGeneric(async ({ db }, { key }) => {
  await db.insert("marks", { key });
  console.log("about to fail", key);
  throw new ConvexError({ key });
});
export const marks = queryGeneric(async ({ db }) => (await db.query("marks").collect()).map((mark) => mark.key));
export const counters = queryGeneric(async ({ db }) => (await db.query("counters").collect()).map((one) => one.n));
"""
}
SMALL_CACHES: Any = {"cache_kib": (512, 512)}
SMALL_LOG: Any = {"max_entries": 200}
SMALL_WINDOW_NS = 5 * 10**9
KINDS = {
    **dict.fromkeys(("read", "readInside", "spin", "marks", "counters"), "query"),
    **dict.fromkeys(("addCounter", "bump", "count", "countInside", "writeAndSpin", "fail"), "mutation"),
    "act": "action",
}


class LiveWorld:
    """Pools, database and use cases; see :func:`live_world`.

    :ivar children: every child that was made, by pool kind.
    """

    def __init__(self, folder: Path, reactor: Any, children: int, small: bool) -> None:
        self.children: dict[str, list[RunnerProcess]] = {"isolate": [], "action": []}
        self.registry = CollectorRegistry()
        self.database = Database(
            SqlitePersistence(SqlitePool(str(folder / "data.sqlite3"), reactor, **(SMALL_CACHES if small else {}))),
            reactor,
            SimpleNamespace(now_ns=time.time_ns),
            os.urandom,
            self.registry,
        )
        texts = [module_text(path, *parts) for path, parts in bundle(FILES).items()]
        self._texts = {text.hash: text for text in texts}
        hashes = {text.path: text.hash for text in texts}
        metrics = PoolMetrics(self.registry)
        self._reactor = reactor
        self.isolates = RunnerPool(
            reactor, PoolOptions("isolate", children), lambda: self._spawn("isolate"), self._source, metrics
        )
        self.actions = RunnerPool(
            reactor, PoolOptions("action", 1, 64, eager=False), lambda: self._spawn("action"), self._source, metrics
        )
        directory = ScriptedDirectory()
        closure = closure_refs(hashes, hashes)
        for name, kind in KINDS.items():
            path = FunctionPath.parse(f"jobs:{name}")
            directory.functions[path.canonical] = ResolvedFunction(
                0, "", path, kind, "public", None, None, closure, b"i" * 32, 0.0
            )
        sealer = Sealer(b"s" * 32, "test")
        self.services = Services(
            settings=Settings("test", "http://cloud", "http://site", "0", False),
            database=self.database,
            directory=directory,
            system_functions=None,  # type: ignore[arg-type]
            isolates=self.isolates,
            actions=self.actions,
            calls=CallServices(
                directory,
                DeploymentInfo("test"),
                os.urandom,
                lambda: time.time_ns() // 1_000_000,
                lambda data: sealer.seal("cursor", data),
                lambda text: sealer.unseal("cursor", text),
            ),
            syscalls=full_table(),
            function_log=FunctionLog(reactor, time.time_ns, self.registry, **(SMALL_LOG if small else {})),
            random_bytes=os.urandom,
            now_ns=time.time_ns,
            jobs=JobScheduling(database=self.database, directory=directory, now_ns=time.time_ns),
        )
        self.mutations = Mutations(self.services)
        self.queries = QueryRuns(self.services, sealer)

    def _spawn(self, kind: str) -> RunnerProcess:
        child = RunnerProcess(self._reactor, runner_command(DIST, memory_megabytes=256))
        self.children[kind].append(child)
        return child

    async def _source(self, hash: str) -> ModuleText:
        return self._texts[hash]

    def living(self) -> list[int]:
        """Process ids of the children that have not ended."""
        return [one.pid for ones in self.children.values() for one in ones if Path(f"/proc/{one.pid}").exists()]

    async def query(self, name: str, **args: Any) -> Outcome:
        """Run a query in a transaction of its own, with no cache in between."""
        from convex_backend.application import calls

        wanted = calls.target(f"jobs:{name}", None, ANONYMOUS)
        prepared = await calls.prepare(self.services, None, wanted, orjson.dumps(args), "query")
        current: list[Any] = []

        def make_host() -> CallHost:
            from convex_backend.functions.context import CallContext

            transaction = self.database.begin("query")
            current[:] = [transaction]
            tree = calls.call_tree(
                self.services,
                transaction,
                ANONYMOUS,
                CALLER,
                transaction.names,
                transaction.table_numbers,
                transaction.close,
            )
            return CallContext(
                tree, prepared.function, prepared.environment, self.services.syscalls, args_bytes=len(prepared.args)
            )

        tables = self.database.catalogs.newest.table_numbers(0)
        spec = calls.spec_of(self.services, prepared, tables, CALLER, timeout_seconds=0.0)
        outcome = await self.isolates.run(spec, make_host)
        for transaction in current:
            transaction.close()
        return outcome

    async def run_query(self, path: str, args: bytes, *_: Any, **__: Any) -> CallResult:
        """For actions: see ``Application.run_query``."""
        outcome = await self.query(path.partition(":")[2], **orjson.loads(args))
        return SimpleNamespace(value=outcome.value, error=outcome.error)  # type: ignore[return-value]

    async def mutation(self, name: str, **args: Any) -> CallResult:
        """Run a mutation."""
        return await self.mutations.run(f"jobs:{name}", orjson.dumps(args), ANONYMOUS, CALLER)

    async def action(self, **args: Any) -> CallResult:
        """Run the action."""
        return await run_action(self, "jobs:act", orjson.dumps(args), ANONYMOUS, CALLER)  # type: ignore[arg-type]

    def figure(self, name: str, **labels: str) -> float:
        """A sample of the metrics."""
        return self.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def live_world(folder: Path, reactor: Any, children: int = 2, *, small: bool = False) -> AsyncIterator[LiveWorld]:
    """A started world; at its end everything is stopped, and every child must have been reaped.

    :param small: what is kept for a time or up to a bound is kept for little, so that memory is soon as large as it gets.
    """
    world = LiveWorld(folder, reactor, children, small)
    await world.database.start()
    if small:
        world.database.committer.write_log._window_ns = SMALL_WINDOW_NS
    await world.isolates.start()
    await world.actions.start()
    try:
        yield world
    finally:
        await world.isolates.stop()
        await world.actions.stop()
        await world.database.drain()
        await world.database.persistence.close()
        world.services.function_log.stop()
    assert world.living() == []
