"""Bounds of the pool over scripted children: waits in lanes, syscall queues, children that do not read, and the metrics that count them."""

from __future__ import annotations

from unittest import mock

import attrs
import orjson
from twisted.internet.defer import Deferred

from convex_backend.errors import Overloaded
from convex_backend.functions import frames, serving
from convex_backend.functions.limits import SYSCALL_TIMEOUT_TEXT, USER_TIMEOUT_TEXT
from convex_backend.interfaces import SyscallReply
from tests.functions.fakes import advance, spec
from tests.functions.test_runner_pool import PoolCase


class BoundsCase(PoolCase):
    """A pool and its figures."""

    def figure(self, name: str, **labels: str) -> float:
        """A sample of the pool's metrics."""
        return self.registry.get_sample_value(f"convex_functions_{name}", {"pool": "isolate", **labels}) or 0.0

    def limit(self, name: str) -> float:
        """How often the bound *name* was met."""
        return self.figure("limit_hits_total", limit=name)


class LaneTests(BoundsCase):
    """A mutation that waits for another transaction (A6)."""

    def waiting_mutation(self) -> tuple[Deferred[object], Deferred[SyscallReply]]:
        """A mutation whose first syscall waits in a lane, and the Deferred that grants it."""
        granted: Deferred[SyscallReply] = Deferred()
        run = self.run_call(spec("mutation"), lambda op, args: granted)
        host, call = self.hosts[-1], self.child.starts[-1]
        self.child.syscall(call, 1)
        assert host.link is not None
        host.link.waits(True)
        return run, granted

    def test_slot_is_used_by_others_meanwhile(self) -> None:
        """With every slot held by mutations that wait in a lane, others run; the owner then goes on at once."""
        held = [self.waiting_mutation() for _ in range(2)]
        self.run_call()
        self.assertEqual(len(self.child.starts), 3)
        advance(self.clock, 0.1)
        self.assertEqual((self.figure("parked"), self.figure("running")), (2, 1))
        link = self.hosts[0].link
        assert link is not None
        link.waits(False)
        held[0][1].callback(SyscallReply(b"null"))
        self.assertEqual(len(self.child.of_kind(frames.SYSRESULT)), 1)
        advance(self.clock, 0.1)
        self.assertEqual((self.figure("parked"), self.figure("running")), (1, 2))

    def test_waiting_is_no_system_operation(self) -> None:
        """An hour in a lane does not count towards the fifteen seconds of system operations; what comes after it does."""
        run, _ = self.waiting_mutation()
        advance(self.clock, 20)
        self.clock.advance(3600)
        advance(self.clock, 0.2)
        self.assertNoResult(run)
        link = self.hosts[0].link
        assert link is not None
        link.waits(False)
        advance(self.clock, 14.8)
        self.assertNoResult(run)
        advance(self.clock, 0.5)
        self.assertEqual(self.error_of(run).message, SYSCALL_TIMEOUT_TEXT)
        self.assertEqual(self.limit("system_time"), 1)

    def test_end_while_waiting_keeps_the_count(self) -> None:
        """A mutation that is cancelled, or loses its child, while it waits leaves neither a slot nor a parked call behind."""
        run, _ = self.waiting_mutation()
        run.addErrback(lambda failure: None)
        run.cancel()
        lost, _ = self.waiting_mutation()
        old = self.child
        advance(self.clock, 0.6)
        self.child.hello()
        self.pool.kill_innocent(next(slot for slot in self.pool.watched_slots() if slot.child is old), "stopped")
        old.die(signal=9, code=None)
        again = self.child
        advance(self.clock, 0.1)
        self.assertEqual((self.figure("parked"), self.figure("running")), (0, 1))
        again.result(again.starts[-1])
        self.successResultOf(lost)
        advance(self.clock, 0.1)
        self.assertEqual((self.figure("parked"), self.figure("running")), (0, 0))

    def test_late_word_of_a_host_is_ignored(self) -> None:
        """What the host says of waits after its call has ended changes nothing."""
        self.run_call(spec("mutation"))
        link = self.hosts[0].link
        assert link is not None
        self.child.result(self.child.starts[0])
        link.waits(True)
        link.waits(False)
        advance(self.clock, 0.1)
        self.assertEqual((self.figure("parked"), self.figure("running")), (0, 0))


class ParkedBoundTests(BoundsCase):
    """Beyond the bound of parked calls a waiting mutation keeps its slot."""

    options = {"parked_per_child": 1}

    def test_bound(self) -> None:
        """One of two waiting mutations gives its slot back, the other keeps it; its wait still does not count as time."""
        for _ in range(2):
            self.run_call(spec("mutation"), lambda op, args: Deferred())
            self.child.syscall(self.child.starts[-1], 1)
            link = self.hosts[-1].link
            assert link is not None
            link.waits(True)
        for _ in range(2):
            self.run_call()
        self.assertEqual(len(self.child.starts), 3)
        advance(self.clock, 16)
        self.assertEqual(self.limit("system_time"), 0)
        self.assertEqual((self.figure("parked"), self.figure("waiting")), (1, 1))


class SyscallQueueTests(BoundsCase):
    """What a call may have outstanding."""

    def test_argument_bytes(self) -> None:
        """A call whose queued arguments are over the bound ends with the text; its neighbour goes on in the same child."""
        with mock.patch.object(serving, "MAX_QUEUED_BYTES", 1000):
            run = self.run_call(answer=lambda op, args: Deferred())
            neighbour = self.run_call()
            call = self.child.starts[0]
            for seq in range(1, 12):
                self.child.syscall(call, seq, body=b"x" * 100)
            self.assertNoResult(run)
            self.child.syscall(call, 12, body=b"x")
            self.assertNoResult(run)
            self.child.syscall(call, 13, body=b"x")
        self.assertEqual(self.error_of(run).message, SYSCALL_TIMEOUT_TEXT)
        self.assertEqual([f.call for f in self.child.of_kind(frames.CANCEL)], [call])
        self.assertEqual(self.limit("syscall_queue"), 1)
        self.child.result(self.child.starts[1])
        self.assertIsNone(self.successResultOf(neighbour).error)
        self.assertIsNone(self.child.killed)

    def test_answered_arguments_do_not_count(self) -> None:
        """Any amount of arguments is fine as long as the queue is worked off."""
        with mock.patch.object(serving, "MAX_QUEUED_BYTES", 1000):
            run = self.run_call()
            for seq in range(1, 100):
                self.child.syscall(self.child.starts[0], seq, body=b"x" * 100)
            self.assertNoResult(run)
        self.assertEqual(len(self.child.of_kind(frames.SYSRESULT)), 99)

    def test_count(self) -> None:
        """So does a call with too many outstanding."""
        with mock.patch.object(serving, "MAX_QUEUED_SYSCALLS", 5):
            run = self.run_call(answer=lambda op, args: Deferred())
            for seq in range(1, 8):
                self.child.syscall(self.child.starts[0], seq)
        self.assertEqual(self.error_of(run).message, SYSCALL_TIMEOUT_TEXT)


class CongestionTests(BoundsCase):
    """A child that does not read."""

    options = {"size": 2, "calls_per_child": 4}

    def test_no_answers_are_made_until_it_reads(self) -> None:
        """Syscalls of a congested child wait unserved, without using up its calls' system time, and are served when it reads."""
        run = self.run_call()
        self.child.congested, self.child.unsent_bytes = True, 5_000_000
        self.child.syscall(self.child.starts[0], 1)
        self.assertEqual(self.hosts[0].calls, [])
        advance(self.clock, 16)
        self.assertNoResult(run)
        self.assertEqual(self.figure("unsent_bytes"), 5_000_000)
        self.spawner.children[0].congested = False
        self.spawner.children[0].reading.callback(None)
        self.assertEqual(len(self.spawner.children[0].of_kind(frames.SYSRESULT)), 1)

    def test_new_calls_go_elsewhere(self) -> None:
        """While one child is congested, new calls go to another, even a busier one."""
        first = self.child
        self.run_call()
        advance(self.clock, 0.6)
        second = self.child.hello()
        for _ in range(3):
            self.run_call()
        first.congested = True
        before = len(first.starts)
        for _ in range(2):
            self.run_call()
        self.assertEqual(len(first.starts), before)
        self.assertGreaterEqual(len(second.starts), 2)


class StartTests(BoundsCase):
    """Starts that a child has not come to: most wait here, where they are served fairly."""

    options = {"calls_per_child": 8, "starts_per_child": 2, "max_waiting": 20}

    def test_starts_wait_until_the_child_speaks(self) -> None:
        """A third call is started when the child has said something of an earlier one, and a quiet function's goes first."""
        for _ in range(4):
            self.run_call()
        quiet = spec("query")
        self.run_call(attrs.evolve(quiet, export="quiet"))
        self.assertEqual(len(self.child.starts), 2)
        self.child.syscall(self.child.starts[0], 1)
        exports = [orjson.loads(frame.meta)["export"] for frame in self.child.of_kind(frames.START)]
        self.assertEqual(exports, ["f", "f", "quiet"])
        self.child.syscall(self.child.starts[0], 2)
        self.assertEqual(len(self.child.starts), 3)
        self.child.result(self.child.starts[1])
        self.assertEqual(len(self.child.starts), 4)

    def test_calls_that_end_unheard_make_room(self) -> None:
        """A call that is cancelled before the child has begun it is counted no longer."""
        runs = [self.run_call() for _ in range(3)]
        runs[0].addErrback(lambda failure: None)
        runs[0].cancel()
        self.assertEqual(len(self.child.starts), 3)
        for call in self.child.starts[1:]:
            self.child.result(call)
        for _ in range(2):
            self.run_call()
        self.assertEqual(len(self.child.starts), 5)

    def test_admitted_work_is_started_all_the_same(self) -> None:
        """A re-run does not wait for starts before it."""
        for _ in range(3):
            self.run_call()
        self.run_call(spec("mutation", admitted=True))
        self.assertEqual(len(self.child.starts), 3)


class MetricTests(BoundsCase):
    """Bounds that are met are counted."""

    def test_javascript_time(self) -> None:
        """The limit of JavaScript time."""
        run = self.run_call()
        call = self.child.starts[0]
        self.child.running(call)
        advance(self.clock, 0.2)
        self.child.cpu = 1.5
        advance(self.clock, 0.1)
        self.child.die(signal=9, code=None)
        self.assertEqual(self.error_of(run).message, USER_TIMEOUT_TEXT)
        self.assertEqual(self.limit("user_time"), 1)

    def test_memory_of_a_child(self) -> None:
        """The memory of a child."""
        self.child.rss = 10**10
        advance(self.clock, 1.1)
        self.assertEqual(self.limit("resident"), 1)

    def test_refusals_and_waits(self) -> None:
        """Refused runs are counted, and those that waited are measured."""
        for _ in range(5):
            self.run_call()
        self.failureResultOf(self.run_call(), Overloaded)
        self.assertEqual(self.figure("refused_total"), 1)
        self.child.result(self.child.starts[0])
        self.assertEqual(self.figure("wait_seconds_count"), 1)
