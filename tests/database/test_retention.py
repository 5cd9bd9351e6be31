"""Retention: the watermark, bounded steps, pins, the ledger."""

from __future__ import annotations

from twisted.internet.defer import fail
from twisted.trial.unittest import SynchronousTestCase

from convex_backend.database.retention import RetentionLoop, RetentionSettings
from convex_backend.errors import OutOfRetention
from convex_backend.interfaces import LedgerEntry
from tests.database.commit_support import SECOND, Outcome, Stack, change, doc_id, result_of


class RetentionTests(SynchronousTestCase):
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
        registry = type(stack.registry)()
        return RetentionLoop(stack.persistence, stack.committer, stack, stack.clock, registry, self.settings)

    def write(self, times: int, seconds: float = 0) -> None:
        """New versions of one document, *seconds* apart."""
        for _ in range(times):
            row = self.stack.persistence.get(1, doc_id(1))
            outcome = self.stack.commit(change(1, b"%d" % len(self.versions), old=(row.ts, row.json) if row else None))
            self.versions.append(outcome.value)
            self.stack.wall_ns += int(seconds * SECOND)

    def turn(self) -> None:
        self.stack.clock.advance(self.settings.interval_seconds)

    def read(self, ts: int) -> bytes | None:
        snapshot = self.stack.committer.snapshots.open(ts)
        try:
            row = result_of(snapshot.get(1, doc_id(1)))
            return row.json if row else None
        finally:
            snapshot.close()

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
        self.stack.wall_ns += 500 * SECOND
        self.write(1)
        limits: list[tuple[int, int]] = []
        prune = self.stack.persistence.prune_history

        def counting(before_ts: int, limit: int):
            deferred = prune(before_ts, limit)
            deferred.addCallback(lambda deleted: limits.append((limit, deleted)) or deleted)
            return deferred

        self.stack.persistence.prune_history = counting
        self.turn()
        self.assertEqual({limit for limit, _ in limits}, {3})
        self.assertGreater(len(limits), 2)
        self.assertTrue(all(deleted <= 3 for _, deleted in limits))

    def test_a_pin_holds_the_watermark(self) -> None:
        """A long read keeps its history, but for the window at most."""
        self.write(2, seconds=10)
        pinned_at = self.versions[0]
        pin = self.loop.pin(pinned_at)
        self.stack.wall_ns += 85 * SECOND
        self.write(1)
        self.turn()
        self.assertEqual(self.read(pinned_at), b"0")
        self.stack.wall_ns += 90 * SECOND
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
        self.stack.wall_ns += 105 * SECOND
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
        self.turn()
        groups = len(self.stack.groups)
        for _ in range(5):
            self.stack.wall_ns += 60 * SECOND
            self.turn()
        self.assertLessEqual(len(self.stack.groups), groups)

    def test_the_ledger(self) -> None:
        """Answers older than the ledger's age go, younger ones stay."""
        now_ms = self.stack.wall_ns // 1_000_000
        old = LedgerEntry("s", 1, b"r", now_ms - 20 * 86_400_000)
        young = LedgerEntry("s", 2, b"r", now_ms)
        for entry in (old, young):
            self.assertIsNone(self.stack.commit(ledger=entry).error)
        self.turn()
        self.assertIsNone(self.stack.persistence.ledger_get("s", 1))
        self.assertIsNotNone(self.stack.persistence.ledger_get("s", 2))

    def test_a_failing_turn(self) -> None:
        """A turn that fails is logged and the next one tries again."""
        self.write(12)
        self.stack.wall_ns += 500 * SECOND
        self.write(1)
        prune = self.stack.persistence.prune_history
        self.stack.persistence.prune_history = lambda before_ts, limit: fail(OSError("no"))
        self.turn()
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.stack.persistence.prune_history = prune
        self.turn()
        self.assertLess(len(self.stack.persistence._past_documents), 3)

    def test_stop_waits_for_the_step(self) -> None:
        """Stopping ends the loop and waits for a step under way."""
        self.write(5, seconds=60)
        self.stack.hold = True
        self.turn()
        stopped = Outcome(self.loop.stop())
        self.assertFalse(stopped.done)
        self.stack.finish_write()
        self.assertTrue(stopped.done)
        self.assertEqual(self.stack.clock.getDelayedCalls(), [])
