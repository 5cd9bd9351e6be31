"""The use cases over a real database in memory and a scripted runner: a "function" is a Python coroutine over its call host."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from convex_backend.application.function_log import FunctionLog
from convex_backend.application.live_queries import LiveQueries
from convex_backend.application.run_mutation import Mutations
from convex_backend.application.run_query import LiveDatabase, QueryRuns
from convex_backend.application.scheduling import JobScheduling
from convex_backend.application.sealing import Sealer
from convex_backend.application.services import Services
from convex_backend.application.settings import Settings
from convex_backend.application.types import Caller
from convex_backend.database.database import Database
from convex_backend.errors import BadRequest
from convex_backend.functions.context import CallContext, CallServices, DeploymentInfo
from convex_backend.functions.directory import Environment, ResolvedFunction
from convex_backend.functions.outcome import FunctionFailed
from convex_backend.functions.syscalls import full_table
from convex_backend.interfaces import CallHost, CallSpec, FunctionError, Outcome
from convex_backend.storage.memory_persistence import MemoryPersistence
from convex_backend.values.paths import FunctionPath
from convex_backend.values.validators import parse_args, parse_returns
from tests.database.documents import START_NS, WallClock, run

CALLER = Caller("HttpApi", "npm", "1.48.0", "0123456789abcdef")
Script = Callable[["Function", Any], Awaitable[Any]]


class Link:
    """The pool as a host sees it: a nested call runs its script."""

    def __init__(self, pool: ScriptedPool) -> None:
        self._pool = pool

    async def run_nested(self, spec: CallSpec, host: CallHost) -> Outcome:
        return host.complete(await self._pool.play(spec, host))

    def waits(self, waits: bool) -> None:
        """A scripted pool has no slots; it notes that it was told."""
        self._pool.waits.append(waits)


class Function:
    """What a script works with: its host's syscalls."""

    def __init__(self, host: CallContext, pool: ScriptedPool) -> None:
        self.host = host
        self.pool = pool
        self.streams = 0
        self.told = host.snapshot_ts()
        self.observed: frozenset[str] = frozenset()

    def snapshot_ts(self) -> int | None:
        """``getSnapshotTs``."""
        self.observed = frozenset(("time", "snapshot"))
        return self.told

    async def call(self, op: str, **args: Any) -> Any:
        """One asynchronous syscall; the decoded reply."""
        reply = await self.host.syscall(op, orjson.dumps(args), None)
        # Documents that come along with a get stand on lines of their own.
        text = reply.body.partition(b"\n")[0]
        return orjson.loads(text) if text else None

    async def all(self, table: str) -> list[Any]:
        """Every document of a table, all consumed."""
        number = self.streams
        self.streams += 1
        query = {"source": {"type": "FullTableScan", "tableName": table, "order": None}, "operators": []}
        self.host.open_query(number, orjson.dumps({"query": query}))
        rows: list[Any] = []
        while True:
            reply = await self.host.syscall("1.0/queryStreamNext", orjson.dumps({"queryId": number}), None)
            page = [orjson.loads(row) for row in reply.body.split(b"\n") if row]
            self.host.consumed({str(number): len(page)})
            rows += page
            if reply.meta.get("done"):
                self.host.consumed({str(number): 1})
                return rows

    async def pause(self) -> None:
        """Wait until the test lets the run go on."""
        gate: Deferred[None] = Deferred()
        self.pool.paused.append(gate)
        await gate


class ScriptedPool:
    """A ``RunnerPool`` without children. ``lose`` children: that many tries end without an outcome before one succeeds."""

    def __init__(self) -> None:
        self.scripts: dict[str, Script] = {}
        self.paused: list[Deferred[None]] = []
        self.specs: list[CallSpec] = []
        self.lose = 0
        self.waits: list[bool] = []
        self.hold_replays = False

    async def run(self, spec: CallSpec, make_host: Callable[[], CallHost]) -> Outcome:
        self.specs.append(spec)
        while True:
            host = make_host()
            try:
                outcome = await self.play(spec, host)
            except BaseException:
                host.abandon()
                raise
            if self.lose:
                self.lose -= 1
                host.lost()
                host.abandon()
                if self.hold_replays:
                    gate: Deferred[None] = Deferred()
                    self.paused.append(gate)
                    await gate
                continue
            return host.complete(outcome)

    async def play(self, spec: CallSpec, host: CallHost) -> Outcome:
        """Run the script of *spec* over *host*."""
        assert isinstance(host, CallContext)
        host.begin(Link(self))
        script = self.scripts[f"{spec.module.removesuffix('.js')}:{spec.export}"]
        try:
            function = Function(host, self)
            value = await script(function, orjson.loads(spec.args)[0])
        except FunctionFailed as error:
            return Outcome(None, error.error, (), frozenset(), 0.001)
        except (ScriptError, BadRequest) as error:
            return Outcome(None, FunctionError(f"Uncaught Error: {error}\n"), (), frozenset(), 0.001)
        return Outcome(json.dumps(value).encode(), None, (), function.observed, 0.001)


class ScriptError(Exception):
    """What a script throws as its function's own error."""


class ScriptedDirectory:
    """The deployed functions of a test."""

    def __init__(self) -> None:
        self.functions: dict[str, ResolvedFunction] = {}
        self.variables = Environment({}, "v1")
        self.npm_version = "1.48.0"

    async def resolve(self, transaction: Any, component: int, path: FunctionPath) -> ResolvedFunction | None:
        return self.functions.get(path.canonical)

    async def environment(self, transaction: Any, component: int) -> Environment:
        return self.variables

    async def child_component(self, transaction: Any, component: int, name: str) -> int | None:
        return None

    async def component_at(self, transaction: Any, path: str) -> int | None:
        return None if path else 0

    def component_path(self, component: int) -> str:
        return ""

    def has_module(self, component: int, module: str) -> bool:
        return any(function.path.module == module for function in self.functions.values())

    def server_version(self, component: int) -> str:
        return self.npm_version

    def observed(self, transaction: Any, function: ResolvedFunction, observed: frozenset[str]) -> None:
        return None


class SteadyClock:
    """Wall time that moves with the timers of a test, and by a microsecond whenever it is looked at."""

    def __init__(self, timers: Clock) -> None:
        self._timers = timers
        self._looks = 0
        #: by how much somebody has set it
        self.set_by_seconds = 0

    def now_ns(self) -> int:
        self._looks += 1
        return (
            START_NS
            + self.set_by_seconds * 1_000_000_000
            + (round(self._timers.seconds() * 1_000_000) + self._looks) * 1000
        )


class World:
    """Everything that the use cases need, in one process and one turn."""

    def __init__(
        self, seed: int = 1, redact: bool = False, persistence: MemoryPersistence | None = None, steady: bool = False
    ) -> None:
        """:param steady: wall time moves with ``timers`` only."""
        self.persistence = persistence if persistence is not None else MemoryPersistence()
        self.timers = Clock()
        self.clock: WallClock | SteadyClock = SteadyClock(self.timers) if steady else WallClock()
        randbytes = random.Random(seed).randbytes
        self.registry = CollectorRegistry()
        self.db = Database(self.persistence, self.timers, self.clock, randbytes, self.registry)
        run(self.db.start())
        self.pool = ScriptedPool()
        self.directory = ScriptedDirectory()
        self.sealer = Sealer(b"s" * 32, "test")
        self.scheduling = JobScheduling(database=self.db, directory=self.directory, now_ns=self.clock.now_ns)
        calls = CallServices(
            self.directory,
            DeploymentInfo("test"),
            randbytes,
            lambda: self.clock.now_ns() // 1_000_000,
            lambda data: self.sealer.seal("cursor", data),
            lambda text: self.sealer.unseal("cursor", text),
            scheduling=self.scheduling,
        )
        self.log = FunctionLog(self.timers, self.clock.now_ns, self.registry)
        self.services = Services(
            settings=Settings("test", "http://cloud", "http://site", "0", redact),
            database=self.db,
            directory=self.directory,
            system_functions=None,  # type: ignore[arg-type]
            isolates=self.pool,  # type: ignore[arg-type]
            actions=self.pool,  # type: ignore[arg-type]
            calls=calls,
            syscalls=full_table(),
            function_log=self.log,
            random_bytes=randbytes,
            now_ns=self.clock.now_ns,
            jobs=self.scheduling,
        )
        self.queries = QueryRuns(self.services, self.sealer)
        self.live = LiveQueries(self.queries, LiveDatabase(self.services), self.timers, self.registry)
        self.mutations = Mutations(self.services)

    def define(
        self,
        name: str,
        kind: str,
        script: Script,
        *,
        visibility: str = "public",
        args: str | None = None,
        returns: str | None = None,
    ) -> None:
        """Deploy a function."""
        path = FunctionPath.parse(name)
        self.pool.scripts[name] = script
        self.directory.functions[path.canonical] = ResolvedFunction(
            0,
            "",
            path,
            kind,
            visibility,
            parse_args(args) if args else None,
            parse_returns(returns) if returns else None,
            (),
            b"i" * 32,
            0.0,
        )

    def go_on(self, index: int = 0) -> None:
        """Let a paused run go on."""
        self.pool.paused.pop(index).callback(None)

    def documents(self, table: str) -> list[Any]:
        """The committed documents of a table."""
        transaction = self.db.begin("query")
        run(transaction.ensure_begun())
        info = transaction.catalog.table(0, table)
        rows = [] if info is None else run(transaction.snapshot.scan(-info.tablet, info.tablet, b"", None, False, 1000))
        transaction.close()
        return [orjson.loads(row.json) for row in rows]
