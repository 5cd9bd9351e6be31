"""The executor of ``"use node"`` actions over scripted children: generations, replacement, idleness, limits."""

from __future__ import annotations

import json
from typing import Any

import attrs
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from convex_backend.errors import Overloaded
from convex_backend.functions import frames
from convex_backend.functions.node_executor import CALLS_PER_CHILD, CHILDREN, NodeExecutor, NodePackage
from convex_backend.functions.pool_metrics import PoolMetrics
from convex_backend.functions.runner_process import Announcement
from convex_backend.interfaces import Outcome
from tests.functions.fakes import FakeChild, FakeHost, advance, spec

OLD = NodePackage("a", "packages/a", None)
NEW = NodePackage("b", "packages/b", "dependencies/x")


class ExecutorCase(SynchronousTestCase):
    """An executor, and helpers."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.spawned: list[tuple[NodePackage, FakeChild]] = []
        self.executor = NodeExecutor(self.clock, self.spawn, PoolMetrics(CollectorRegistry()), idle_seconds=5)
        self.hosts: list[FakeHost] = []
        self.runs: list[Deferred[Outcome]] = []

    def tearDown(self) -> None:
        stopped = Deferred.fromCoroutine(self.executor.stop())
        for _, child in list(self.spawned):
            if not child.gone:
                child.die(code=0)
        self.successResultOf(stopped)
        for run in self.runs:
            run.addErrback(lambda failure: failure.trap(Overloaded))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def spawn(self, package: NodePackage) -> FakeChild:
        self.spawned.append((package, FakeChild()))
        return self.spawned[-1][1]

    def child(self, number: int = -1) -> FakeChild:
        """A child that has said hello."""
        child = self.spawned[number][1]
        return child if child.greeted else child.hello()

    def call(self, package: NodePackage = OLD, version: str = "0", **more: Any) -> Deferred[Outcome]:
        def make_host() -> FakeHost:
            self.hosts.append(FakeHost())
            return self.hosts[-1]

        wanted = attrs.evolve(spec("action", **more), env_version=version)
        run = Deferred.fromCoroutine(self.executor.run(package, wanted, make_host))
        self.runs.append(run)
        return run


class GenerationTests(ExecutorCase):
    def test_start(self) -> None:
        """A child starts with the first call; START names the package's directory, and no module is sent."""
        run = self.call()
        [(package, _)] = self.spawned
        self.assertIs(package, OLD)
        [start] = self.child().of_kind(frames.START)
        meta = json.loads(start.meta)
        self.assertEqual((meta["directory"], meta["closure"]), ("packages/a", {}))
        self.assertEqual(self.child().of_kind(frames.MODULE), [])
        self.child().result(start.call, b'"done"')
        self.assertEqual(self.successResultOf(run).value, b'"done"')

    def test_package_and_variables(self) -> None:
        """Another package or other variables have children of their own; those before end with their last call, and not earlier."""
        first = self.call()
        old = self.child()
        second = self.call(NEW)
        new = self.child()
        self.assertEqual([package for package, _ in self.spawned], [OLD, NEW])
        self.assertTrue(self.executor.is_live("a"))
        self.assertFalse(old.closed)
        old.result(old.starts[0])
        self.successResultOf(first)
        self.assertTrue(old.closed)
        self.assertFalse(self.executor.is_live("a"))
        new.result(new.starts[0])
        self.successResultOf(second)
        self.assertFalse(new.closed)
        self.call(NEW, "1")
        self.assertTrue(new.closed)
        self.assertIsNot(self.child(), new)

    def test_idle(self) -> None:
        """Children without calls for long are given back: all of a package, and those beyond the busy ones."""
        self.call()
        first = self.child()
        self.call()
        second = self.child()
        self.assertIsNot(first, second)
        # Both run in the first: the second came up too late.
        busy, free = first, second
        self.assertEqual((first.starts, second.starts), ([1, 2], []))
        advance(self.clock, 4)
        self.assertFalse(free.closed)
        advance(self.clock, 1.5)
        self.assertTrue(free.closed)
        free.die(code=0)
        self.assertFalse(busy.closed)
        for call in busy.unanswered:
            busy.result(call)
        advance(self.clock, 6)
        self.assertTrue(busy.closed)
        self.assertFalse(self.executor.is_live("a"))


class ReplacementTests(ExecutorCase):
    def test_retired_by_its_run(self) -> None:
        """A child whose run says so gets no further calls and goes when the others have ended; a fresh one takes over."""
        ended, other = self.call(), self.call()
        child = self.spawned[0][1].hello()
        self.assertEqual(child.starts, [1, 2])
        child.result(1, retire=True)
        self.successResultOf(ended)
        self.assertFalse(child.closed)
        run = self.call()
        fresh = self.child()
        self.assertIsNot(fresh, child)
        child.result(2)
        self.successResultOf(other)
        self.assertTrue(child.closed)
        fresh.result(fresh.starts[0])
        self.successResultOf(run)

    def test_blocked_loop(self) -> None:
        """A child whose event loop does not go round gets no new calls while others can take them; when it goes on it is like any other."""
        for _ in range(3):
            self.call()
        blocked, other = self.spawned[0][1].hello(), self.spawned[1][1].hello()
        for call in blocked.starts:
            blocked.frame(frames.LOG, call, 0, {"lines": []})
        self.assertEqual((len(blocked.starts), len(other.starts)), (3, 0))
        for call in blocked.starts[1:]:
            blocked.result(call)
        self.call()
        self.assertEqual(len(other.starts), 1)
        other.frame(frames.LOG, other.starts[0], 0, {"lines": []})
        for beat in range(1, 20):
            other.now = Announcement(0, beat, 0)
            advance(self.clock, 0.1)
        for _ in range(2):
            self.call()
        self.assertEqual((len(blocked.starts), len(other.starts)), (3, 3))
        blocked.now = Announcement(0, 99, 0)
        other.now = Announcement(0, 99, 0)
        advance(self.clock, 0.1)
        self.call()
        self.assertEqual((len(blocked.starts), len(other.starts)), (4, 3))

    def test_only_child_is_blocked(self) -> None:
        """While the only child is blocked, a call waits for another one to start; if none can be started it goes to what there is."""
        self.call()
        blocked = self.child()
        blocked.frame(frames.LOG, 1, 0, {"lines": []})
        advance(self.clock, 1)
        self.call()
        other = self.spawned[1][1]
        self.assertEqual(blocked.starts, [1])
        other.die(stderr="cannot start")
        self.assertEqual(len(blocked.starts), 2)
        advance(self.clock, 1)
        self.call()
        self.assertEqual(len(blocked.starts), 2)
        self.assertEqual(len(self.child().starts), 1)

    def test_cancelled(self) -> None:
        """A call that nobody waits for any more is dropped, and its process with it: the code cannot be stopped otherwise."""
        run = self.call()
        child = self.child()
        run.addErrback(lambda _: None)
        run.cancel()
        self.assertEqual(len(child.of_kind(frames.CANCEL)), 1)
        self.assertTrue(child.closed)

    def test_time_limit(self) -> None:
        """The text names the action; the process goes."""
        run = self.call(timeout=2)
        child = self.child()
        advance(self.clock, 2.5)
        outcome = self.successResultOf(run)
        self.assertEqual(outcome.error.message, "Action `f` execution timed out (maximum duration 2s)")
        self.assertTrue(child.closed)

    def test_out_of_memory(self) -> None:
        """The text names the limit of these processes. The action is not tried again."""
        run = self.call()
        self.child().die(stderr="JavaScript heap out of memory")
        outcome = self.successResultOf(run)
        self.assertEqual(outcome.error.message, "JavaScript execution ran out of memory (maximum memory usage: 512 MB)")
        self.assertEqual(len(self.hosts), 1)

    def test_nested_calls_do_not_wait(self) -> None:
        """When all places are taken, calls of running actions go through, others wait."""
        for _ in range(CHILDREN * CALLS_PER_CHILD):
            self.call()
            for _, child in self.spawned:
                if not child.greeted:
                    child.hello()
                for call in child.starts:
                    child.frame(frames.LOG, call, 0, {"lines": []})
        started = sum(len(child.starts) for _, child in self.spawned)
        self.assertEqual(started, CHILDREN * CALLS_PER_CHILD)
        self.call()
        self.assertEqual(sum(len(child.starts) for _, child in self.spawned), started)
        self.call(admitted=True)
        self.assertEqual(sum(len(child.starts) for _, child in self.spawned), started + 1)

    def test_stop(self) -> None:
        """A stop ends what runs, closes the children and lets nothing new begin."""
        run = self.call()
        child = self.child()
        stopped = Deferred.fromCoroutine(self.executor.stop())
        self.failureResultOf(run, Overloaded)
        self.assertTrue(child.closed)
        self.assertNoResult(stopped)
        child.die(code=0)
        self.successResultOf(stopped)
        self.failureResultOf(self.call(), Overloaded)
