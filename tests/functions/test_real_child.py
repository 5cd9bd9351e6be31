"""The pool with real node children: runs, loops, stops and kills."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_twisted
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from convex_backend.errors import ServerFault
from convex_backend.functions.analyze import AnalysisFailed, AnalysisSpec, Analyzer
from convex_backend.functions.fleet import PoolOptions
from convex_backend.functions.limits import MEMORY_TEXT, USER_TIMEOUT_TEXT
from convex_backend.functions.modules import module_text
from convex_backend.functions.outcome import FunctionFailed
from convex_backend.functions.pool_metrics import PoolMetrics
from convex_backend.functions.runner_pool import ModuleText, RunnerPool
from convex_backend.functions.runner_process import RunnerProcess, runner_command
from convex_backend.interfaces import Outcome, SyscallReply
from tests.functions.fakes import FakeHost, spec

DIST = Path(__file__).parents[2] / "resources" / "runner" / "dist"

SOURCE = """
const call = async (op, args) => JSON.parse(await Convex.asyncSyscall(op, JSON.stringify(args)));
const registered = (kind, body) => {
  const invoke = async (...given) => JSON.stringify((await body(...JSON.parse(given.at(-1)))) ?? null);
  const f = () => {};
  f.isPublic = true;
  f[`is${kind}`] = true;
  f[`invoke${kind}`] = invoke;
  return f;
};
export const echo = registered("Query", async (args) => args);
export const read = registered("Query", async ({ n }) => {
  let total = 0;
  for (let i = 0; i < n; i++) total += (await call("1.0/get", { id: String(i) })).v;
  return total;
});
export const loop = registered("Query", async () => { for (;;); });
export const lateLoop = registered("Mutation", async () => { await call("1.0/get", { id: "0" }); for (;;); });
export const fail = registered("Query", async () => { console.log("before"); throw new Error("boom"); });
export const parent = registered("Mutation", async ({ depth }) => call("1.0/runUdf", { depth }));
export const hog = registered("Query", async () => { const all = []; for (;;) all.push(new Array(100000).fill(Math.random())); });
export const act = registered("Action", async () => { console.log("hi"); await call("1.0/actions/query", {}); return 1; });
"""


@attrs.define(eq=False)
class Rig:
    """A started pool and the children that it made."""

    pool: RunnerPool
    children: list[RunnerProcess]

    def run(
        self, export: str, args: Any = None, *, kind: str = "query", host: FakeHost | None = None
    ) -> Deferred[Outcome]:
        call = attrs.evolve(
            spec(kind, hash="src"),
            export=export,
            args=json.dumps([args or {}]).encode(),
            seed=os.urandom(32),
            now_ms=1000,
        )
        return Deferred.fromCoroutine(self.pool.run(call, lambda: host or FakeHost(number)))


def number(op: str, args: bytes) -> SyscallReply:
    return SyscallReply(b'{"v":1}')


async def source(hash: str) -> ModuleText:
    return ModuleText(hash, "m.js", SOURCE.encode())


async def with_rig(test: Callable[[Rig], Awaitable[None]], **options: Any) -> None:
    """Run *test* with a pool that is stopped afterwards, and check that every child is reaped."""
    from twisted.internet import reactor

    children: list[RunnerProcess] = []
    memory = options.pop("memory_megabytes", 128)

    def spawn() -> RunnerProcess:
        children.append(RunnerProcess(reactor, runner_command(DIST, memory_megabytes=memory)))
        return children[-1]

    settings = {"kind": "isolate", "size": 1, **options}
    pool = RunnerPool(reactor, PoolOptions(**settings), spawn, source, PoolMetrics(CollectorRegistry()))
    await pool.start()
    try:
        await test(Rig(pool, children))
    finally:
        await pool.stop()
    for child in children:
        assert not Path(f"/proc/{child.pid}").exists()


async def pause(seconds: float) -> None:
    from twisted.internet import reactor

    await deferLater(reactor, seconds, lambda: None)


pytestmark = pytest.mark.skipif(not (DIST / "main.mjs").exists(), reason="the runner is not built: node build.mjs")


@pytest_twisted.ensureDeferred
async def test_query_with_syscalls() -> None:
    """A query's syscalls reach the host and its value comes back."""

    async def check(rig: Rig) -> None:
        outcome = await rig.run("read", {"n": 5})
        assert (outcome.value, outcome.error) == (b"5", None)
        assert outcome.cpu_seconds < 0.5
        assert (await rig.run("echo", {"a": [1, "x"]})).value == b'{"a":[1,"x"]}'

    await with_rig(check)


@pytest_twisted.ensureDeferred
async def test_many_at_once() -> None:
    """Many runs interleave in one child and each gets its own answer."""

    async def check(rig: Rig) -> None:
        outcomes = await gatherResults([rig.run("read", {"n": n % 7}) for n in range(60)])
        assert [outcome.value for outcome in outcomes] == [str(n % 7).encode() for n in range(60)]

    await with_rig(check)


@pytest_twisted.ensureDeferred
async def test_failure_and_logs() -> None:
    """A thrown error is rendered, and what was logged before it is kept."""

    async def check(rig: Rig) -> None:
        outcome = await rig.run("fail")
        assert outcome.error is not None
        assert outcome.error.message.startswith("Uncaught Error: boom")
        assert [line.messages for line in outcome.log_lines] == [("'before'",)]

    await with_rig(check)


@pytest_twisted.ensureDeferred
async def test_loops_are_killed_and_others_go_on() -> None:
    """A loop, at once or after an await, ends with the time limit's text; a query that shares its child succeeds."""

    async def check(rig: Rig) -> None:
        loop = rig.run("loop")
        late = rig.run("lateLoop", kind="mutation")
        other = rig.run("read", {"n": 3})
        assert (await other).value == b"3"
        for ended in (await loop, await late):
            assert ended.error is not None
            assert (ended.error.message, ended.error.system) == (USER_TIMEOUT_TEXT, True)
        assert (await rig.run("read", {"n": 2})).value == b"2"

    await with_rig(check)


@pytest_twisted.ensureDeferred
async def test_killed_and_stopped_children_cost_nobody_a_query() -> None:
    """SIGKILL and SIGSTOP from outside while queries wait for syscalls: every query succeeds in another child."""

    async def check(rig: Rig) -> None:
        struck: list[RunnerProcess] = []  # a killed child may still be there as a zombie
        for number_ in (signal.SIGKILL, signal.SIGSTOP):
            waiting: list[Deferred[SyscallReply]] = []

            def answer(op: str, args: bytes, waiting: list[Deferred[SyscallReply]] = waiting) -> Deferred[SyscallReply]:
                waiting.append(Deferred())
                return waiting[-1]

            hosts: list[FakeHost] = []

            def make_host(answer: Any = answer, hosts: list[FakeHost] = hosts) -> FakeHost:
                hosts.append(FakeHost(answer if len(hosts) < 3 else number))
                return hosts[-1]

            call = attrs.evolve(spec(hash="src"), export="read", args=b'[{"n":1}]')
            runs = [Deferred.fromCoroutine(rig.pool.run(call, make_host)) for _ in range(3)]
            while len(waiting) < 3:
                await pause(0.01)
            # Those that have run something: the three may be in more than one in the second round.
            there = [child for child in rig.children if Path(f"/proc/{child.pid}").exists() and child not in struck]
            busy = [child for child in there if child.modules]
            struck.extend(busy)
            for child in busy:
                os.kill(child.pid, number_)
            outcomes = await gatherResults(runs)
            assert [outcome.value for outcome in outcomes] == [b"1"] * 3
            assert len(hosts) == 6

    await with_rig(check)


@pytest_twisted.ensureDeferred
async def test_nested_calls_in_one_child() -> None:
    """Calls nested eight deep run in one child with room for one call."""

    async def check(rig: Rig) -> None:
        class Nesting(FakeHost):
            async def syscall(self, op: str, args: bytes, consumed: dict[str, int] | None) -> SyscallReply:
                depth = json.loads(args)["depth"]
                if depth == 0:
                    return SyscallReply(b'"bottom"')
                assert self.link is not None
                inner = attrs.evolve(
                    spec("mutation", hash="src"), export="parent", args=json.dumps([{"depth": depth - 1}]).encode()
                )
                outcome = await self.link.run_nested(inner, Nesting())
                if outcome.error is not None:
                    raise FunctionFailed(outcome.error)
                return SyscallReply(outcome.value or b"")

        outcome = await rig.run("parent", {"depth": 8}, kind="mutation", host=Nesting())
        assert (outcome.value, outcome.error) == (b'"bottom"', None)

    await with_rig(check, calls_per_child=1)


@pytest_twisted.ensureDeferred
async def test_memory_hog_is_named() -> None:
    """A call that fills the heap gets the memory text; one that waited in the same child succeeds."""

    async def check(rig: Rig) -> None:
        release: Deferred[SyscallReply] = Deferred()
        hosts: list[FakeHost] = []

        def make_host() -> FakeHost:
            hosts.append(FakeHost(number if hosts else lambda op, args: release))
            return hosts[-1]

        call = attrs.evolve(spec(hash="src"), export="read", args=b'[{"n":1}]')
        waiting = Deferred.fromCoroutine(rig.pool.run(call, make_host))
        outcome = await rig.run("hog")
        assert outcome.error is not None
        assert (outcome.error.message, outcome.error.system) in ((MEMORY_TEXT, True), (USER_TIMEOUT_TEXT, True))
        assert (await waiting).value == b"1"

    await with_rig(check, memory_megabytes=48)


@pytest_twisted.ensureDeferred
async def test_action_streams_its_lines() -> None:
    """An action's lines and calls work, and its value comes back."""

    async def check(rig: Rig) -> None:
        outcome = await rig.run("act", kind="action")
        assert (outcome.value, [line.messages for line in outcome.log_lines]) == (b"1", [("'hi'",)])

    await with_rig(check, kind="action", eager=False)


@pytest_twisted.ensureDeferred
async def test_wrong_protocol_is_a_start_up_error(tmp_path: Path) -> None:
    """A runner of another protocol version, and one that exits, make ``start`` fail with a clear text."""
    from twisted.internet import reactor

    hello = b'{"protocol":99}'
    head = bytes([1, 0, 0, 0]) + bytes(8) + len(hello).to_bytes(4, "little") + bytes(4)
    script = f"require('fs').writeSync(3, Buffer.from('{(head + hello).hex()}', 'hex')); setInterval(() => {{}}, 1000);"
    for text, expected in ((script, "speaks protocol 99"), ("process.exit(7);", "exit code 7")):
        (tmp_path / "main.mjs").write_text(
            "import { createRequire } from 'node:module'; const require = createRequire('/');" + text
        )
        command = runner_command(tmp_path, memory_megabytes=64)
        pool = RunnerPool(
            reactor,
            PoolOptions("isolate", 1),
            lambda command=command: RunnerProcess(reactor, command),
            source,
            PoolMetrics(CollectorRegistry()),
        )
        with pytest.raises(ServerFault, match=expected):
            await pool.start()
        await pool.stop()


@pytest_twisted.ensureDeferred
async def test_analysis_of_a_real_module() -> None:
    """A module's functions and closure are found; a broken one fails with its text; the child is reaped."""
    from twisted.internet import reactor

    command = runner_command(DIST, memory_megabytes=128, analysis=True)
    children: list[RunnerProcess] = []

    def spawn() -> RunnerProcess:
        children.append(RunnerProcess(reactor, command))
        return children[-1]

    good = module_text("m.js", 'import "./dep.js";' + SOURCE, None)
    dep = module_text("dep.js", "export const x = 1;", None)
    bad = module_text("bad.js", 'throw new Error("boom");', None)
    loop = module_text("loop.js", "for (;;);", None)
    hashes = {text.path: text.hash for text in (good, dep, bad, loop)}
    analysis = await Analyzer(reactor, spawn).open_analysis([good, dep, bad, loop])

    def ask(path: str) -> AnalysisSpec:
        return AnalysisSpec("module", path, hashes, {}, bytes(32), 1.0)

    try:
        module = await analysis.module(ask("m.js"))
        kinds = {function.name: function.kind for function in module.functions}
        assert (kinds["echo"], kinds["parent"], kinds["act"]) == ("query", "mutation", "action")
        assert module.closure == ("dep.js", "m.js")
        with pytest.raises(AnalysisFailed, match=r"Failed to analyze bad\.js: Uncaught Error: boom"):
            await analysis.module(ask("bad.js"))
        with pytest.raises(AnalysisFailed, match=r"timed out \(maximum duration: 4s\)"):
            await analysis.module(ask("loop.js"))
    finally:
        await analysis.close()
    assert not Path(f"/proc/{children[0].pid}").exists()


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_chaos() -> None:
    """Loops, SIGKILL and SIGSTOP at random while queries and mutations run: every innocent call gets its own answer."""

    async def check(rig: Rig) -> None:
        dice = random.Random(7)
        ended = 0

        async def innocent(n: int) -> None:
            nonlocal ended
            for turn in range(25):
                count = dice.randrange(1, 5)
                outcome = await rig.run("read", {"n": count}, host=None)
                assert (outcome.value, outcome.error) == (str(count).encode(), None), (n, turn, outcome.error)
                ended += 1
                await pause(dice.random() * 0.2)

        async def guilty() -> None:
            for _ in range(3):
                outcome = await rig.run("loop")
                assert outcome.error is not None
                assert outcome.error.message == USER_TIMEOUT_TEXT
                await pause(0.5)

        async def killer() -> None:
            for _ in range(10):
                await pause(0.4)
                alive = [child for child in rig.children if child.modules and Path(f"/proc/{child.pid}").exists()]
                if alive:
                    os.kill(dice.choice(alive).pid, dice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP]))

        work = [innocent(n) for n in range(12)]
        await gatherResults([Deferred.fromCoroutine(one) for one in (*work, guilty(), killer())], consumeErrors=True)
        assert ended == 12 * 25

    await with_rig(check, size=2)


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_child_that_ignores_everything_is_killed(tmp_path: Path) -> None:
    """A child that ignores the end of its stream and SIGTERM is killed after five seconds, and stop waits for it."""
    from twisted.internet import reactor

    hello = b'{"protocol":1}'
    head = bytes([1, 0, 0, 0]) + bytes(8) + len(hello).to_bytes(4, "little") + bytes(4)
    (tmp_path / "main.mjs").write_text(
        "import { writeSync } from 'node:fs'; process.on('SIGTERM', () => {});"
        f"writeSync(3, Buffer.from('{(head + hello).hex()}', 'hex')); setInterval(() => {{}}, 1000);"
    )
    children: list[RunnerProcess] = []

    def spawn() -> RunnerProcess:
        children.append(RunnerProcess(reactor, runner_command(tmp_path, memory_megabytes=64)))
        return children[-1]

    pool = RunnerPool(reactor, PoolOptions("isolate", 1), spawn, source, PoolMetrics(CollectorRegistry()))
    await pool.start()
    started = reactor.seconds()
    await pool.stop()
    assert 4.5 < reactor.seconds() - started < 8
    assert not Path(f"/proc/{children[0].pid}").exists()
