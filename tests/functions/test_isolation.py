# ruff: noqa: E501 - JavaScript texts
"""Hostile functions in a pool of real children: loops in every place where user code can run, memory, floods.

Each ends with its specified text in bounded time, and the neighbours' calls in the same child succeed.
"""

from __future__ import annotations

import time

import attrs
import pytest
import pytest_twisted
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, gatherResults

from convex_backend.functions.fleet import PoolOptions
from convex_backend.functions.limits import MEMORY_TEXT, SYSCALL_TIMEOUT_TEXT, USER_TIMEOUT_TEXT
from convex_backend.functions.module_text import ModuleText
from convex_backend.functions.pool_metrics import PoolMetrics
from convex_backend.functions.runner_pool import RunnerPool
from convex_backend.functions.runner_process import RunnerProcess, runner_command
from convex_backend.interfaces import Outcome
from tests.functions.fakes import FakeHost, spec
from tests.functions.test_real_child import DIST, SOURCE, number

pytestmark = pytest.mark.skipif(not (DIST / "main.mjs").exists(), reason="the runner is not built: node build.mjs")

SPINS = {
    "atOnce": "() => { for (;;); }",
    "afterAwait": "async () => { await call('1.0/get'); for (;;); }",
    "inGetter": "() => { console.log({ get a() { for (;;); } }); }",
    "inPromiseJob": "() => { const again = () => { Promise.resolve().then(again); }; again(); return new Promise(() => 1); }",
    "inToJson": "() => ({ toJSON() { for (;;); } })",
    "inRegularExpression": "() => /^(a+)+$/.test('a'.repeat(40) + 'b')",
    "inInspect": "() => console.log({ inspect() { for (;;); } })",
    "inPrepareStackTrace": "() => { Error.prepareStackTrace = () => { for (;;); }; return new Error('x').stack; }",
    "whileErrorIsRendered": "() => { const e = new Error('x'); Object.defineProperty(e, 'message', { get() { for (;;); } }); throw e; }",
    "inUnhandledRejection": "async () => { Promise.reject(new Proxy(new Error('p'), { get(t, k) { for (;;); } })); }",
    "inThenable": "() => ({ then() { for (;;); } })",
    "inSyscallArgument": "() => Convex.asyncSyscall({ toString() { for (;;); } }, '{}')",
    "inSort": "() => [3, 1, 2].sort(() => { for (;;); })",
    "inBigInt": "() => { let a = 3n; for (;;) a *= a; }",
    "inManyEntries": "async () => { for (;;) { await call('1.0/get'); for (let i = 0; i < 3e6; i++); } }",
    "inText": "() => { for (;;) JSON.parse(JSON.stringify(new Array(1e5).fill('x'))); }",
    "inWebAssembly": "() => new WebAssembly.Instance(new WebAssembly.Module(new Uint8Array([0,97,115,109,1,0,0,0,1,4,1,96,0,0,3,2,1,0,7,5,1,1,99,0,0,10,9,1,7,0,3,64,12,0,11,11]))).exports.c()",
}
DEFAULT_SPINS = ("inPromiseJob", "inRegularExpression")

HOSTILE = {
    "heap": "() => { const all = []; for (;;) all.push(new Array(1000).fill(Math.random())); }",
    "filledBuffers": "() => { const all = []; for (;;) all.push(new Uint8Array(1 << 20).fill(1)); }",
    "emptyBuffers": "() => { const all = []; for (;;) all.push(new Uint8Array(1 << 22)); }",
    "texts": "() => { const all = []; for (let i = 0;; i++) all.push(('x' + i).repeat(100000).replaceAll('1', '22')); }",
    "largestText": "() => 'x'.repeat(2 ** 29 - 24)",
    "largeResult": "() => 'x'.repeat(70 * 1024 * 1024)",
    "syscallFlood": "async () => { for (;;) Convex.asyncSyscall('1.0/get', '{}').catch(() => 1); }",
    "boundedFlood": "async () => { const all = []; for (let i = 0; i < 200000; i++) all.push(call('1.0/get')); await Promise.all(all); }",
    "webAssemblyMemory": "() => { const m = new WebAssembly.Memory({ initial: 1, maximum: 65536 }); try { for (;;) { m.grow(1600); new Uint8Array(m.buffer).fill(1); } } catch (e) { return e.name; } }",
    "badArguments": "() => Convex.asyncSyscall('1.0/get', '\\ud800{').then(() => 'answered', (e) => e.message)",
    "hugeMessage": "() => { throw new Error('x'.repeat(2 ** 28)); }",
    "hugeLogs": "() => { for (;;) console.log('x'.repeat(1e6)); }",
    "deepRecursion": "() => { const f = () => f() + 1; return f(); }",
}

MODULE = (
    SOURCE
    + "".join(f"export const {name} = registered('Query', {body});\n" for name, body in {**SPINS, **HOSTILE}.items())
    + "globalThis.count = (globalThis.count ?? 0) + 1; export const fresh = registered('Query', () => [globalThis.count, globalThis.late ?? null]);\n"
)
IN_BODY = "for (;;);" + SOURCE


class Rig:
    """A started pool of one child that runs the hostile module beside the ordinary one."""

    def __init__(self) -> None:
        from twisted.internet import reactor

        async def source(hash: str) -> ModuleText:
            return ModuleText(hash, "m.js", {"src": MODULE, "body": IN_BODY}[hash].encode())

        self.pool = RunnerPool(
            reactor,
            PoolOptions("isolate", 1),
            lambda: RunnerProcess(reactor, runner_command(DIST, memory_megabytes=256)),
            source,
            PoolMetrics(CollectorRegistry()),
        )

    async def __aenter__(self) -> Rig:
        await self.pool.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.pool.stop()

    def run(self, export: str, args: bytes = b"[{}]", *, hash: str = "src") -> Deferred[Outcome]:
        call = attrs.evolve(spec(hash=hash), export=export, args=args)
        return Deferred.fromCoroutine(self.pool.run(call, lambda: FakeHost(number)))

    async def beside_neighbours(self, *names: str, hash: str = "src") -> list[Outcome]:
        """Run *names* at once among queries of others, which must all succeed; then see that a later run finds nothing."""
        before = [self.run("read", b'[{"n":3}]') for _ in range(6)]
        hostile = [self.run(name, hash=hash) for name in names]
        after = [self.run("read", b'[{"n":4}]') for _ in range(6)]
        for expected, runs in ((b"3", before), (b"4", after)):
            for outcome in await gatherResults(runs):
                assert (outcome.value, outcome.error) == (expected, None)
        outcomes = list(await gatherResults(hostile))
        fresh = await self.run("fresh")
        assert (fresh.value, fresh.error) == (b"[1,null]", None)
        return outcomes


def text(outcome: Outcome) -> str:
    assert outcome.error is not None, (outcome.value or b"")[:200]
    return outcome.error.message


@pytest_twisted.ensureDeferred
async def test_loops_end_wherever_they_are() -> None:
    """Loops in promise jobs and in a regular expression end with the time limit's text."""
    async with Rig() as rig:
        started = time.monotonic()
        for outcome in await rig.beside_neighbours(*DEFAULT_SPINS):
            assert outcome.error is not None
            assert (text(outcome), outcome.error.system) == (USER_TIMEOUT_TEXT, True)
        assert time.monotonic() - started < 60


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SPINS if name not in DEFAULT_SPINS])
@pytest_twisted.ensureDeferred
async def test_every_loop(name: str) -> None:
    """The same for every other place in which user code can run."""
    async with Rig() as rig:
        [outcome] = await rig.beside_neighbours(name)
        expected = {USER_TIMEOUT_TEXT} | (
            {MEMORY_TEXT, "Uncaught RangeError: Maximum BigInt size exceeded\n"} if name == "inBigInt" else set()
        )
        assert text(outcome) in expected


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_loop_in_the_body_of_a_module() -> None:
    """A module that does not end loading costs its own callers only."""
    async with Rig() as rig:
        [outcome] = await rig.beside_neighbours("read", hash="body")
        assert text(outcome) == USER_TIMEOUT_TEXT


MEMORY = {MEMORY_TEXT}
ENDS: dict[str, set[str]] = {
    "heap": MEMORY,
    "filledBuffers": MEMORY | {"Uncaught RangeError: Array buffer allocation failed\n"},
    "emptyBuffers": MEMORY | {"Uncaught RangeError: Array buffer allocation failed\n"},
    "texts": MEMORY,
    "largestText": MEMORY | {"Uncaught RangeError: Invalid string length\n"},
    "largeResult": MEMORY,
    "hugeLogs": {USER_TIMEOUT_TEXT},
    "deepRecursion": {"Uncaught RangeError: Maximum call stack size exceeded\n"},
}


async def check_end(name: str) -> None:
    async with Rig() as rig:
        started = time.monotonic()
        [outcome] = await rig.beside_neighbours(name)
        assert text(outcome) in ENDS[name]
        assert time.monotonic() - started < 15


@pytest.mark.parametrize("name", ["heap", "filledBuffers", "largeResult"])
@pytest_twisted.ensureDeferred
async def test_memory_that_runs_out(name: str) -> None:
    """One entry that fills the heap, buffers or its result ends with the memory text."""
    await check_end(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ENDS if name not in ("heap", "filledBuffers", "largeResult")])
@pytest_twisted.ensureDeferred
async def test_other_floods(name: str) -> None:
    """The same for texts, empty buffers, logs and the stack."""
    await check_end(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["syscallFlood", "boundedFlood"])
@pytest_twisted.ensureDeferred
async def test_floods_of_syscalls(name: str) -> None:
    """Calls without end fail or end by a limit; they are never answered without bound."""
    async with Rig() as rig:
        calls = [rig.run("read", b'[{"n":3}]') for _ in range(3)]
        try:
            outcome = await rig.run(name)
        except Exception as error:
            assert type(error).__name__ == "ServerFault"
        else:
            assert text(outcome) in {USER_TIMEOUT_TEXT, MEMORY_TEXT, SYSCALL_TIMEOUT_TEXT}
        assert [one.value for one in await gatherResults(calls)] == [b"3"] * 3
        assert (await rig.run("read", b'[{"n":3}]')).value == b"3"


@pytest_twisted.ensureDeferred
async def test_what_is_harmless_is_answered() -> None:
    """WebAssembly memory meets the child's bound as an error that can be caught; huge messages are cut; odd arguments reach the host as text."""
    async with Rig() as rig:
        [message] = await rig.beside_neighbours("hugeMessage")
        assert len(text(message)) < 66000
        [memory] = await rig.beside_neighbours("webAssemblyMemory")
        assert memory.value == b'"RangeError"' or text(memory) == MEMORY_TEXT
        [odd] = await rig.beside_neighbours("badArguments")
        assert odd.value == b'"answered"'
