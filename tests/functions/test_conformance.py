# ruff: noqa: E501 - JavaScript texts
"""Statements 43, 44, 48 and 49 of ``runtime.md`` section 12, with real children and real transactions.

Statement 48 in all its forms is ``test_isolation.py``; 46 belongs to the application (``tests/application``).
"""

from __future__ import annotations

import functools
from typing import Any

import attrs
import orjson
import pytest
import pytest_twisted
from prometheus_client import CollectorRegistry

from convex_backend.functions.fleet import PoolOptions
from convex_backend.functions.limits import HELP, USER_TIMEOUT_TEXT
from convex_backend.functions.log_lines import OVERFLOW_TEXT, pretty
from convex_backend.functions.module_text import ModuleText
from convex_backend.functions.modules import closure_refs, module_text
from convex_backend.functions.pool_metrics import PoolMetrics
from convex_backend.functions.runner_pool import RunnerPool
from convex_backend.functions.runner_process import RunnerProcess, runner_command
from convex_backend.interfaces import Outcome
from tests.database.documents import Store
from tests.functions.test_real_child import DIST
from tests.functions.test_syscalls import Rig, function
from tests.functions.test_whole_call import World
from tests.runner.bundles import bundle

pytestmark = pytest.mark.skipif(not (DIST / "main.mjs").exists(), reason="the runner is not built: node build.mjs")

SOURCE = """
import { makeFunctionReference, mutationGeneric as mutation, queryGeneric as query } from "convex/server";
const caught = async (f) => { try { await f(); } catch (e) { return e.message; } return "none"; };
const callee = makeFunctionReference("things:inner");
export const logs = mutation(async (ctx, { before, nested, after }) => {
  for (let i = 0; i < before; i++) console.log(i);
  if (nested) await ctx.runMutation(callee, { lines: nested });
  for (let i = 0; i < after; i++) console.log("after", i);
});
export const inner = mutation(async ({ db }, { lines, insert, spin }) => {
  for (let i = 0; i < lines; i++) console.log("inner", i);
  for (let i = 0; i < insert; i++) await db.insert("things", { n: i });
  if (spin) for (;;);
});
export const long = query(async () => { console.log("é".repeat(20000)); console.log("x".repeat(32766)); console.log("y".repeat(32767)); });
export const writes = mutation(async ({ db }, { n }) => { for (let i = 0; i < n; i++) await db.insert("things", { n: i }); });
export const sizes = mutation(async ({ db }) => [await db.insert("things", { v: "x".repeat(900000) }), await db.insert("things", { v: [[[[[[[[[[[[[1]]]]]]]]]]]]] })]);
export const limited = mutation(async (ctx) => {
  const lowered = await caught(() => ctx.runMutation(callee, { insert: 3 }, { transactionLimits: { documentsWritten: 2 } }));
  await ctx.db.insert("things", { n: 9 });
  return [lowered, (await ctx.db.query("things").collect()).length];
});
export const tooLarge = mutation(async ({ db }) => [await caught(async () => { for (let i = 0; i < 20; i++) await db.insert("things", { v: "x".repeat(1000000) }); }), (await db.query("things").first()) !== null]);
export const spinsInside = mutation(async (ctx) => caught(() => ctx.runMutation(callee, { spin: true })));
"""
NAMES = ("logs", "inner", "long", "writes", "sizes", "limited", "tooLarge", "spinsInside")


@functools.cache
def bundled() -> list[ModuleText]:
    """The modules of the function folder."""
    return [module_text(path, *parts) for path, parts in bundle({"things.js": SOURCE}).items()]


async def run(name: str, **args: Any) -> Outcome:
    """One call of ``things:<name>`` over a store of its own."""
    from twisted.internet import reactor

    texts = bundled()
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
    functions = {
        one: attrs.evolve(
            function(f"things:{one}", "query" if one == "long" else "mutation"), closure=closure_refs(hashes, hashes)
        )
        for one in NAMES
    }
    rig.directory.add(*functions.values())
    await pool.start()
    try:
        return await World(pool, rig, functions).call(name, **args)
    finally:
        await pool.stop()


@pytest.mark.parametrize(
    ("before", "nested", "after", "shown"),
    [(255, 0, 0, 255), (256, 0, 0, 256), (300, 0, 5, 256), (100, 100, 100, 256), (10, 300, 10, 256)],
)
@pytest_twisted.ensureDeferred
async def test_number_of_lines(before: int, nested: int, after: int, shown: int) -> None:
    """Statement 43: at most 256 lines, those of nested calls in their place; the 256th says that the rest is left out."""
    lines = (await run("logs", before=before, nested=nested, after=after)).log_lines
    assert len(lines) == shown
    expected = [f"[LOG] {i}" for i in range(before)] + [f"[LOG] 'inner' {i}" for i in range(nested)]
    expected += [f"[LOG] 'after' {i}" for i in range(after)]
    if shown == 256:
        expected = [*expected[:255], f"[ERROR] {OVERFLOW_TEXT}"]
    assert [pretty(line) for line in lines] == expected


@pytest_twisted.ensureDeferred
async def test_length_of_lines() -> None:
    """Statement 43: 32768 bytes at a character boundary, with the mark; one byte less is whole."""
    wide, whole, over = (await run("long")).log_lines
    assert pretty(wide) == "[LOG] '" + "é" * 16383 + " (truncated due to length)"
    assert pretty(whole) == "[LOG] '" + "x" * 32766 + "'"
    assert pretty(over) == "[LOG] '" + "y" * 32767 + " (truncated due to length)"


@pytest_twisted.ensureDeferred
async def test_warnings() -> None:
    """Statement 44: the documents that are near their limits are named, in the order of the table."""
    outcome = await run("sizes")
    large, deep = orjson.loads(outcome.value or b"")
    texts = [(line.level, line.code, line.messages[0]) for line in outcome.log_lines]
    assert [text[:2] for text in texts] == [("WARN", "warning:ValueTooLargeError"), ("WARN", "warning:TooNested")]
    assert texts[0][2].startswith(f'Large document written with ID "{large}" (actual: 900')
    assert texts[1][2] == f'Deeply nested document written with ID "{deep}" (actual: 14 levels, limit: 16 levels).'


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_warning_of_many_writes() -> None:
    """Statement 44: over 80 % of 16000 writes."""
    [line] = (await run("writes", n=12_801)).log_lines
    assert pretty(line) == "[WARN] Many writes in a single function execution (actual: 12801, limit: 16000)."
    assert HELP not in pretty(line)


@pytest_twisted.ensureDeferred
async def test_limits_can_be_caught() -> None:
    """Statement 49: a met limit is an error that code may catch and go on after; a nested call's lowered limit is its own."""
    outcome = await run("limited")
    [lowered, left] = orjson.loads(outcome.value or b"null")
    assert lowered.startswith("Uncaught Error: Too many writes in a single function execution (limit: 2)\n    at ")
    assert left == 1
    outcome = await run("tooLarge")
    assert outcome.value == b'["Too many bytes written in a single function execution (limit: 16 MiB)",true]'


@pytest_twisted.ensureDeferred
async def test_a_loop_in_a_nested_call_ends_the_tree() -> None:
    """Statement 48: the time limit of a callee cannot be caught by its caller."""
    outcome = await run("spinsInside")
    assert outcome.error is not None
    assert (outcome.error.message, outcome.error.system) == (USER_TIMEOUT_TEXT, True)
