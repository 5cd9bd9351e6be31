"""Retention: the watermark, bounded steps, pins, the ledger."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.internet.defer import fail
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from convex_backend.database.retention import DAY_SECONDS, RetentionLoop, RetentionSettings
from convex_backend.errors import OutOfRetention, StorageFailed
from convex_backend.interfaces import LedgerEntry
from tests.database.commit_support import SECOND, Outcome, Stack, change, doc_id, result_of


class RetentionCase(SynchronousTestCase):
    """One loop over a memory store."""

    def setUp(self) -> None:
        self.stack = Stack()
        self.settings = RetentionSettings(history_seconds=100, interval_seconds=10, step_rows=3)
        self.loop = self.make()
        self.loop.start()
        self.versions: list[int] = []

    def tearDown(self) -> None:
        result_of(self.loop.stop())

    def make(self) -> RetentionLoop:
        stack = self.stack
        self.registry = type(stack.registry)()
        return RetentionLoop(stack.persistence, stack.committer, stack, stack.clock, self.registry, self.settings)

    def write(self, times: int, seconds: float = 0) -> None:
        """New versions of one document, *seconds* apart."""
        for _ in range(times):
            row = self.stack.persistence.get(1, doc_id(1))
            outcome = self.stack.commit(change(1, b"%d" % len(self.versions), old=(row.ts, row.json) if row else None))
            self.versions.append(outcome.value)
            if seconds:
                self.wait(seconds)

    def wait(self, seconds: float, wall_seconds: float | None = None) -> None:
        """Time passes, turn by turn; the wall clock may see more or less of it."""
        steps = max(int(seconds), 1)
        for _ in range(steps):
            self.stack.wall_ns += int((seconds if wall_seconds is None else wall_seconds) * SECOND / steps)
            self.stack.clock.advance(seconds / steps)

    def turn(self) -> None:
        self.wait(self.settings.interval_seconds)

    def read(self, ts: int) -> bytes | None:
        snapshot = self.stack.committer.snapshots.open(ts)
        try:
            row = result_of(snapshot.get(1, doc_id(1)))
            return row.json if row else None
        finally:
            snapshot.close()

    def restart(self, *, wall_seconds: float = 0, history_seconds: float = 100) -> None:
        """Another process takes up the file; the wall clock went on by *wall_seconds* meanwhile."""
        result_of(self.loop.stop())
        result_of(self.stack.committer.stop())
        self.stack.wall_ns += int(wall_seconds * SECOND)
        self.stack.restart()
        self.settings = RetentionSettings(history_seconds=history_seconds, interval_seconds=10, step_rows=3)
        self.loop = self.make()
        self.loop.start()

    def metric(self, name: str) -> float | None:
        return self.registry.get_sample_value(f"convex_database_{name}")


class RetentionTests(RetentionCase):
    """What is kept, what goes, and in which steps."""

    def test_history_within_the_window_stays(self) -> None:
        """What is younger than the window can be read, what is older is refused and pruned."""
        self.write(10, seconds=30)
        self.turn()
        newest = self.stack.committer.durable_ts
        for number, ts in enumerate(self.versions):
            if ts >= self.loop.watermark_ts:
                self.assertEqual(self.read(ts), b"%d" % number)
            else:
                self.assertGreaterEqual(newest - ts, 100 * SECOND)
                with self.assertRaises(OutOfRetention):
                    self.read(ts)
        self.assertLess(len(self.stack.persistence._past_documents), 6)
        self.assertEqual(self.read(newest), b"9")

    def test_steps_are_bounded(self) -> None:
        """Each storage transaction deletes at most ``step_rows``; a turn takes several."""
        self.write(12)
        limits: list[tuple[int, int]] = []
        prune = self.stack.persistence.prune_history

        def counting(before_ts: int, limit: int):
            deferred = prune(before_ts, limit)
            deferred.addCallback(lambda deleted: limits.append((limit, deleted)) or deleted)
            return deferred

        self.stack.persistence.prune_history = counting
        self.wait(150)
        limits[:] = [(limit, deleted) for limit, deleted in limits if deleted]
        self.assertEqual({limit for limit, _ in limits}, {3})
        self.assertGreater(len(limits), 2)
        self.assertTrue(all(deleted <= 3 for _, deleted in limits))

    def test_a_pin_holds_the_watermark(self) -> None:
        """A long read keeps its history, but for the window at most."""
        self.write(2, seconds=10)
        pinned_at = self.versions[0]
        pin = self.loop.pin(pinned_at)
        self.wait(85)
        self.write(1)
        self.turn()
        self.assertEqual(self.read(pinned_at), b"0")
        self.wait(90)
        self.write(1)
        self.turn()
        with self.assertRaises(OutOfRetention):
            self.read(pinned_at)
        pin.release()
        pin.release()

    def test_a_released_pin(self) -> None:
        """After its release nothing holds the watermark."""
        self.write(2, seconds=10)
        pin = self.loop.pin(self.versions[0])
        pin.release()
        self.wait(120)
        self.write(1)
        self.turn()
        self.assertGreater(self.loop.watermark_ts, self.versions[0])

    def test_the_watermark_survives_a_restart(self) -> None:
        """After a restart nobody reads below what was pruned."""
        self.write(5, seconds=60)
        self.turn()
        watermark = self.loop.watermark_ts
        self.assertGreater(watermark, 0)
        self.stack.committer.snapshots.watermark_ts = 0
        again = self.make()
        again.start()
        self.assertEqual(again.watermark_ts, watermark)
        result_of(again.stop())

    def test_an_idle_server_writes_nothing(self) -> None:
        """The watermark's own commit does not cause the next one."""
        self.write(3, seconds=100)
        self.wait(250)
        groups = len(self.stack.groups)
        self.wait(1000)
        self.assertEqual(len(self.stack.groups), groups)
        self.assertEqual(self.stack.persistence._past_documents, [])

    def test_the_ledger(self) -> None:
        """Answers older than the ledger's age go, younger ones stay, whatever wall time they were created at."""
        entry = LedgerEntry("s", 1, b"r", self.stack.wall_ns // 1_000_000 + 10**12)
        self.assertIsNone(self.stack.commit(ledger=entry).error)
        for _ in range(20):
            self.stack.clock.advance(DAY_SECONDS)
        self.assertIsNone(self.stack.commit(ledger=LedgerEntry("s", 2, b"r", 0)).error)
        self.turn()
        self.assertIsNone(self.stack.persistence.ledger_get("s", 1))
        self.assertIsNotNone(self.stack.persistence.ledger_get("s", 2))

    def test_the_ledger_keeps_an_hour(self) -> None:
        """The bound on bytes takes no answer younger than an hour, also when the wall clock jumps years ahead and back."""
        self.settings = RetentionSettings(history_seconds=100, interval_seconds=10, ledger_bytes=10)
        result_of(self.loop.stop())
        self.loop = self.make()
        self.loop.start()
        for number, jump in enumerate((0, 10**9, -(10**9), 0)):
            self.stack.wall_ns += jump * SECOND
            self.assertIsNone(self.stack.commit(ledger=LedgerEntry("s", number, b"r" * 9, 0)).error)
            self.stack.clock.advance(600)
        kept = [self.stack.persistence.ledger_get("s", number) is not None for number in range(4)]
        self.assertEqual(kept, [True] * 4)
        for _ in range(7):
            self.stack.clock.advance(600)
        kept = [self.stack.persistence.ledger_get("s", number) is not None for number in range(4)]
        self.assertEqual(kept, [False] * 3 + [True])

    def test_a_failing_turn(self) -> None:
        """A turn that fails is logged and the next one tries again."""
        self.write(12)
        self.wait(95)
        prune = self.stack.persistence.prune_history
        self.stack.persistence.prune_history = lambda before_ts, limit: fail(OSError("no"))
        self.turn()
        self.turn()
        self.assertGreaterEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual(len(self.stack.persistence._past_documents), 11)
        self.stack.persistence.prune_history = prune
        self.turn()
        self.assertLess(len(self.stack.persistence._past_documents), 3)

    def test_stop_waits_for_the_step(self) -> None:
        """Stopping ends the loop and waits for a step under way."""
        self.write(15, seconds=10)
        self.stack.hold = True
        self.turn()
        stopped = Outcome(self.loop.stop())
        self.assertFalse(stopped.done)
        self.stack.finish_write()
        self.assertTrue(stopped.done)
        self.assertEqual(self.stack.clock.getDelayedCalls(), [])

    def test_slow_steps_get_smaller_and_leave_room(self) -> None:
        """After a slow step the next one takes half as many rows; between two there is a pause as long as the step."""
        self.settings = RetentionSettings(history_seconds=100, interval_seconds=10, step_rows=8)
        result_of(self.loop.stop())
        self.loop = self.make()
        self.loop.start()
        self.write(40)
        steps: list[tuple[int, float]] = []
        prune, clock = self.stack.persistence.prune_history, self.stack.clock

        def slow(before_ts: int, limit: int):
            deleted = result_of(prune(before_ts, limit))
            steps.append((deleted, clock.seconds()))
            return deferLater(clock, 0.05 if deleted else 0, lambda: deleted)

        self.stack.persistence.prune_history = slow
        self.wait(250)
        steps = [step for step in steps if step[0]]
        self.assertEqual([deleted for deleted, _ in steps[:5]], [8, 4, 2, 1, 1])
        self.assertTrue(all(later[1] - earlier[1] >= 0.1 for earlier, later in pairwise(steps)))

    def test_a_backlog_is_worked_off_in_one_go(self) -> None:
        """However much is due, a turn goes on until it is gone; the metrics say what is left."""
        self.write(3000)
        self.assertEqual(self.metric("history_rows"), 0)
        self.turn()
        self.assertEqual((self.metric("history_rows"), self.metric("retention_backlog_rows")), (2999, 0))
        self.wait(110)
        self.assertEqual((self.metric("history_rows"), self.metric("retention_backlog_rows")), (0, 0))
        self.assertEqual(self.stack.persistence._past_documents, [])


class ClockTests(RetentionCase):
    """Windows and clocks that change. The wall clock of these tests jumps; time itself does not."""

    def test_ahead(self) -> None:
        """A clock that jumps ten years ahead takes no history with it."""
        self.write(3, seconds=5)
        self.stack.wall_ns += 10 * 365 * 86_400 * SECOND
        self.write(3, seconds=5)
        self.wait(40)
        self.assertEqual([self.read(ts) for ts in self.versions], [b"%d" % n for n in range(6)])
        self.wait(100)
        self.assertLess(len(self.stack.persistence._past_documents), 6)

    def test_ahead_and_back(self) -> None:
        """After a jump ahead and back timestamps creep for years: history is still pruned after the window, and not before."""
        self.write(3, seconds=5)
        self.stack.wall_ns += 10 * 365 * 86_400 * SECOND
        self.write(1)
        self.stack.wall_ns -= 10 * 365 * 86_400 * SECOND
        self.write(3, seconds=5)
        self.wait(40)
        self.assertEqual([self.read(ts) for ts in self.versions], [b"%d" % n for n in range(7)])
        self.wait(200)
        self.assertEqual(self.stack.persistence._past_documents, [])

    def test_back_across_a_restart(self) -> None:
        """A server that is started with a clock of ten years ago prunes what it writes, and stops counting for nothing only."""
        self.write(3, seconds=5)
        self.wait(20)
        self.restart(wall_seconds=-10 * 365 * 86_400)
        self.write(3, seconds=5)
        self.assertEqual([self.read(ts) for ts in self.versions], [b"%d" % n for n in range(6)])
        self.wait(250)
        self.assertEqual(self.stack.persistence._past_documents, [])

    def test_a_jump_just_before_a_restart(self) -> None:
        """A jump that no turn has seen is noted by the stop, so that the next start does not take it for time that has passed."""
        self.write(3, seconds=5)
        self.stack.wall_ns += 10 * 365 * 86_400 * SECOND
        self.restart(wall_seconds=1)
        self.wait(40)
        self.write(1)
        self.assertEqual([self.read(ts) for ts in self.versions], [b"%d" % n for n in range(4)])
        self.wait(200)
        self.assertEqual(self.stack.persistence._past_documents, [])

    def test_time_counts_while_stopped(self) -> None:
        """History grows old while no server runs."""
        self.write(3, seconds=5)
        self.wait(20)
        self.restart(wall_seconds=1000)
        self.turn()
        self.assertEqual(self.stack.persistence._past_documents, [])

    def test_many_restarts(self) -> None:
        """A server that never runs as long as the window prunes all the same, even when its clock stands."""
        self.write(5)
        for _ in range(10):
            self.wait(30)
            self.write(1)
            self.restart(wall_seconds=0)
        self.assertLess(len(self.stack.persistence._past_documents), 6)

    def test_a_shorter_window(self) -> None:
        """With a shorter window the next start works off what is too old now."""
        self.write(5, seconds=15)
        self.wait(20)
        self.restart(history_seconds=60)
        self.wait(25)
        self.assertLess(len(self.stack.persistence._past_documents), 3)
        self.assertEqual(self.read(self.stack.committer.durable_ts), b"4")

    def test_a_longer_window(self) -> None:
        """With a longer window nothing that is gone can be read, and what is there stays longer."""
        self.write(3, seconds=100)
        before = self.loop.watermark_ts
        self.assertGreater(before, 0)
        self.restart(history_seconds=1000)
        self.assertEqual(self.loop.watermark_ts, before)
        self.write(3, seconds=100)
        self.wait(400)
        self.assertEqual(self.loop.watermark_ts, before)
        with self.assertRaises(OutOfRetention):
            self.read(before - 1)
        self.assertEqual([self.read(ts) for ts in self.versions[3:]], [b"3", b"4", b"5"])
        self.wait(1100)
        self.assertEqual(self.stack.persistence._past_documents, [])


class RetentionMachine(RuleBasedStateMachine):
    """Random writes, clocks, windows, failures and kills. What the watermark allows can be read, it allows the window, and nothing stays for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.test = RetentionCase()
        self.test.setUp()
        self.watermark = 0
        self.shortest = self.test.settings.history_seconds
        self.stopped = 0.0
        #: (how much time has passed, newest timestamp then)
        self.newest = [(0.0, self.test.stack.committer.durable_ts)]

    @property
    def now(self) -> float:
        return self.test.stack.clock.seconds() + self.stopped

    @rule(times=st.integers(1, 6))
    def write(self, times: int) -> None:
        self.test.write(times)

    @rule(seconds=st.sampled_from([1, 15, 40, 130]))
    def wait(self, seconds: int) -> None:
        self.test.wait(seconds)

    @rule(seconds=st.sampled_from([15, 40, 130]), wall=st.sampled_from([0, 10**6, -(10**6)]))
    def jump(self, seconds: int, wall: float) -> None:
        self.test.wait(seconds, wall)

    @rule(window=st.sampled_from([60, 100, 300]), wall=st.sampled_from([0, 0, 50, -(10**6)]))
    def restart(self, window: int, wall: float) -> None:
        self.test.restart(wall_seconds=wall, history_seconds=window)
        self.stopped += max(wall, 0)
        self.shortest = min(self.shortest, window)

    @rule(step=st.integers(0, 4))
    def kill_while_pruning(self, step: int) -> None:
        """The process dies after some storage operation of a turn."""
        left = [step]
        persistence = self.test.stack.persistence
        prune = persistence.prune_history

        def dying(before_ts: int, limit: int) -> Any:
            left[0] -= 1
            return prune(before_ts, limit) if left[0] >= 0 else fail(StorageFailed())

        persistence.prune_history = dying
        self.test.wait(20)
        persistence.prune_history = prune
        self.test.restart(history_seconds=self.test.settings.history_seconds)

    @invariant()
    def reads_hold(self) -> None:
        watermark = self.test.loop.watermark_ts
        assert watermark >= self.watermark
        self.watermark = watermark
        for number, ts in enumerate(self.test.versions):
            if ts >= watermark:
                assert self.test.read(ts) == b"%d" % number
        then = [ts for passed, ts in self.newest if passed <= self.now - self.shortest]
        # The state of a window ago can be read: the watermark is behind whatever has changed since.
        since = (then or [self.newest[0][1]])[-1]
        assert not [ts for ts in self.test.versions if since < ts <= watermark]
        self.newest.append((self.now, self.test.stack.committer.durable_ts))

    def teardown(self) -> None:
        # Whatever has happened: two windows later all history is gone.
        self.test.wait(2 * self.test.settings.history_seconds + 60)
        assert self.test.stack.persistence._past_documents == []
        self.test.tearDown()


RetentionMachineTests = RetentionMachine.TestCase
RetentionMachineTests.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
