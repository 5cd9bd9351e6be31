"""Bounds between this process and real children: who reads slowly is not written to without end, and who grows is replaced."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import termios
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
import pytest
import pytest_twisted
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, gatherResults

from convex_backend.functions import frames, runner_process
from convex_backend.functions.fleet import PoolOptions
from convex_backend.functions.frames import Frame
from convex_backend.functions.module_text import ModuleText
from convex_backend.functions.pool_metrics import PoolMetrics
from convex_backend.functions.runner_pool import RunnerPool
from convex_backend.functions.runner_process import Child, ProcessExit, RunnerProcess, runner_command
from convex_backend.interfaces import Outcome, SyscallReply
from tests.functions.fakes import FakeHost, spec
from tests.functions.test_real_child import DIST, pause

BUILT = pytest.mark.skipif(not (DIST / "main.mjs").exists(), reason="the runner is not built: node build.mjs")
PIECE = b"x" * 65536

# Says hello, reads nothing until it gets a signal, then reads everything and answers with the number of bytes as one LOG frame's call.
DEAF = """
import { writeSync } from "node:fs";
import { Socket } from "node:net";
const frame = (kind, call, meta) => {
  const text = Buffer.from(meta);
  const head = Buffer.alloc(20);
  head.writeUInt32LE(kind, 0);
  head.writeUInt32LE(call, 4);
  head.writeUInt32LE(text.length, 12);
  return Buffer.concat([head, text]);
};
setInterval(() => {}, 1000);
let bytes = 0;
process.on("SIGUSR2", () => {
  const socket = new Socket({ fd: 3, readable: true, writable: true });
  socket.on("data", (chunk) => { bytes += chunk.length; socket.write(frame(7, bytes, "{}")); });
  socket.on("end", () => process.exit(0));
});
writeSync(3, frame(1, 0, '{"protocol":1}'));
"""
LEAKY = """
const registered = (body) => {
  const invokeQuery = async (args) => JSON.stringify(await body(...JSON.parse(args)));
  return Object.assign(() => {}, { isPublic: true, isQuery: true, invokeQuery });
};
const leak = [];
export const grow = registered(async () => { leak.push(new Array(131072).fill(leak.length + 0.5)); return leak.length; });
export const burn = registered(async () => { for (let i = 0; i < 1.5e8; i++); return null; });
export const quick = registered(async () => 1);
export const large = registered(async ({ n }) => {
  await Convex.asyncSyscall("1.0/get", JSON.stringify({ text: "x".repeat(1000000) }));
  return n;
});
"""


class Listener:
    """What a child told."""

    def __init__(self) -> None:
        self.ready: Deferred[None] = Deferred()
        self.lost: Deferred[ProcessExit] = Deferred()
        self.heard = 0

    def child_ready(self, child: Child) -> None:
        self.ready.callback(None)

    def frame_received(self, child: Child, frame: Frame) -> None:
        self.heard = max(self.heard, frame.call)

    def child_lost(self, child: Child, exit: ProcessExit) -> None:
        self.lost.callback(exit)


def deaf_child(folder: Path) -> RunnerProcess:
    """A child that does not read until SIGUSR2."""
    from twisted.internet import reactor

    (folder / "main.mjs").write_text(DEAF)
    return RunnerProcess(reactor, runner_command(folder, memory_megabytes=64))


@pytest_twisted.ensureDeferred
async def test_child_that_does_not_read_is_held_and_goes_on_when_it_does(tmp_path: Path) -> None:
    """Beyond a bound the child counts as congested and is not read; once it reads it gets everything, and is read again."""
    child, listener = deaf_child(tmp_path), Listener()
    child.start(listener)
    await listener.ready
    sent = 0
    for _ in range(40):
        child.send(frames.SYSRESULT, 1, 1, b"", PIECE)
        sent += len(PIECE) + frames.HEAD_BYTES
        await pause(0)
    assert child.congested
    assert sent - 1_500_000 < child.unsent_bytes <= sent
    drained = child.drained()
    assert not drained.called
    os.kill(child.pid, signal.SIGUSR2)
    await drained
    assert not child.congested
    while listener.heard < sent and not listener.lost.called:
        await pause(0.01)
    assert (listener.heard, child.unsent_bytes) == (sent, 0)
    child.close()
    await listener.lost


@pytest_twisted.ensureDeferred
async def test_flush_does_not_wait_for_the_turn(tmp_path: Path) -> None:
    """What is flushed is with the kernel at once, with all that was queued before it; without that it waits for the reactor."""
    child, listener = deaf_child(tmp_path), Listener()
    child.start(listener)
    await listener.ready
    assert child._socket is not None
    end = child._socket.fileno()

    def unread() -> int:
        return int.from_bytes(fcntl.ioctl(end, termios.TIOCOUTQ, b"\0" * 4), sys.byteorder)

    child.send(frames.SYSRESULT, 1, 1)
    child.send(frames.SYSRESULT, 1, 2)
    assert unread() == 0
    child.flush()
    assert unread() > 0
    os.kill(child.pid, signal.SIGUSR2)
    while listener.heard < 2 * frames.HEAD_BYTES and not listener.lost.called:
        await pause(0.01)
    assert listener.heard == 2 * frames.HEAD_BYTES
    child.close()
    await listener.lost


@pytest_twisted.ensureDeferred
async def test_child_that_never_reads_is_killed(tmp_path: Path) -> None:
    """What waits for a child is bounded: over that it is killed, and what waited is dropped."""
    child, listener = deaf_child(tmp_path), Listener()
    child.start(listener)
    await listener.ready
    with mock.patch.object(runner_process, "MAX_UNSENT_BYTES", 3_000_000):
        for _ in range(80):
            child.send(frames.SYSRESULT, 1, 1, b"", PIECE)
            assert child.unsent_bytes <= 3_000_000
            await pause(0)
    exit = await listener.lost
    assert exit.reason == "does not read what it is sent"
    assert (child.unsent_bytes, child.congested) == (0, False)


@pytest_twisted.ensureDeferred
async def test_held_child_can_be_closed(tmp_path: Path) -> None:
    """A congested child is closed like any other; whoever waits for it to read is told."""
    child, listener = deaf_child(tmp_path), Listener()
    child.start(listener)
    await listener.ready
    for _ in range(40):
        child.send(frames.SYSRESULT, 1, 1, b"", PIECE)
        await pause(0)
    drained = child.drained()
    child.close()
    await listener.lost
    await drained


@attrs.define(eq=False)
class Rig:
    """A pool over real children that run ``LEAKY``."""

    pool: RunnerPool
    registry: CollectorRegistry
    children: list[RunnerProcess]

    def run(self, export: str, args: bytes = b"[{}]", **options: Any) -> Deferred[Outcome]:
        call = attrs.evolve(spec(hash="leaky"), export=export, args=args, reuse_context=export == "grow")
        return Deferred.fromCoroutine(self.pool.run(call, lambda: FakeHost(lambda op, args: SyscallReply(b"null"))))


async def leaky_source(hash: str) -> ModuleText:
    return ModuleText(hash, "m.js", LEAKY.encode())


async def make_rig(**options: Any) -> Rig:
    """A started pool."""
    from twisted.internet import reactor

    children: list[RunnerProcess] = []

    def spawn() -> RunnerProcess:
        children.append(RunnerProcess(reactor, runner_command(DIST, memory_megabytes=256)))
        return children[-1]

    registry = CollectorRegistry()
    pool = RunnerPool(reactor, PoolOptions("isolate", 1, **options), spawn, leaky_source, PoolMetrics(registry))
    await pool.start()
    return Rig(pool, registry, children)


@BUILT
@pytest_twisted.ensureDeferred
async def test_growing_child_is_replaced_without_a_failed_call() -> None:
    """A module that keeps a megabyte of each call, in a context that it lets be used again, costs children but no calls."""
    rig = await make_rig(resident_bytes=130_000_000)
    try:
        counts = []
        while len(counts) < 400 and len({child.pid for child in rig.children if child.modules}) < 3:
            outcome = await rig.run("grow")
            assert outcome.error is None, outcome.error
            counts.append(int(outcome.value or b""))
            await pause(0.015)
        assert max(counts) > 3, "the module keeps nothing between calls"
        assert len({child.pid for child in rig.children if child.modules}) == 3
        labels = {"pool": "isolate", "limit": "resident"}
        assert rig.registry.get_sample_value("convex_functions_limit_hits_total", labels) >= 2
        labels = {"pool": "isolate", "reason": "closed"}
        assert rig.registry.get_sample_value("convex_functions_children_lost_total", labels) >= 1
    finally:
        await rig.pool.stop()


@BUILT
@pytest_twisted.ensureDeferred
async def test_child_enters_nothing_while_its_parent_does_not_read() -> None:
    """With 48 calls that each send a megabyte, a child whose parent does not read stops at a few megabytes, and goes on afterwards."""
    rig = await make_rig(calls_per_child=48, starts_per_child=48)
    try:
        assert (await rig.run("large", b'[{"n":0}]')).value == b"0"
        [child] = [child for child in rig.children if child.modules]
        end: Any = child._socket
        before = child.announced().entry
        end.pause()
        calls = [rig.run("large", b'[{"n":%d}]' % n) for n in range(48)]
        await pause(1.0)
        entered = child.announced().entry - before
        assert 4 <= entered <= 16, entered
        assert child.announced().call == 0
        end.resume()
        outcomes = await gatherResults(calls)
        assert [outcome.value for outcome in outcomes] == [b"%d" % n for n in range(48)]
    finally:
        await rig.pool.stop()


@BUILT
@pytest_twisted.ensureDeferred
async def test_function_that_burns_time_does_not_starve_another() -> None:
    """Beside forty calls at a time of a function that computes, a quick one waits for a few of them and not for all that were there first."""
    from twisted.internet import reactor

    rig = await make_rig()
    try:
        assert (await rig.run("burn")).error is None
        began = reactor.seconds()
        assert (await rig.run("burn")).error is None
        one = reactor.seconds() - began
        ended = 0

        def count(outcome: Outcome) -> None:
            nonlocal ended
            assert outcome.error is None, outcome.error
            ended += 1

        noisy = [rig.run("burn").addCallback(count) for _ in range(40)]
        await pause(one / 2)
        assert (await rig.run("quick")).value == b"1"
        assert ended <= 8, "it waited for calls that could have waited for it"
        await gatherResults(noisy)
    finally:
        await rig.pool.stop()
