"""Lanes: conflicts wait, they don't race."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from convex_backend.database.committer import CommitRequest
from convex_backend.database.lanes import Lanes, LaneTicket, claim
from convex_backend.database.reads import Interval, Point, ReadSet
from convex_backend.errors import OccConflict, Rerun
from tests.database.commit_support import Outcome, Stack, change, doc_id, reads_of

KEY: Point = (1, b"k")
OTHER: Point = (1, b"o")


class Running:
    """A mutation under way: its snapshot and what it has read."""

    def __init__(self, stack: Stack, reads: ReadSet | None = None, ticket: LaneTicket | None = None) -> None:
        self.stack = stack
        self.snapshot = stack.committer.snapshots.open(stack.committer.pending_ts)
        self.reads = reads or ReadSet()
        self.fixed_ts: int | None = None
        self.ticket = ticket or stack.committer.lanes.ticket()

    def claim(self, *keys: Point | Interval, expected: tuple[Point, ...] = ()) -> Outcome:
        return Outcome(claim(self.ticket, self, self.stack.committer, keys, lambda: expected))

    def commit(self, *changes) -> Outcome:
        request = CommitRequest(self.snapshot.ts, self.reads, changes, lane=self.ticket)
        return Outcome(self.stack.committer.commit(request))


class QueueTests(SynchronousTestCase):
    """Owners and waiters."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.registry = CollectorRegistry()
        self.lanes = Lanes(self.clock, self.registry, max_hot_points=3, max_hot_intervals=2)

    def test_first_in_first_out(self) -> None:
        """Waiters become owners in the order of their arrival, one at a time, and nobody overtakes them."""
        owner, *waiters = [self.lanes.ticket() for _ in range(4)]
        self.assertTrue(Outcome(owner.enter(KEY)).done)
        waits = [Outcome(ticket.enter(KEY)) for ticket in waiters]
        tickets = [owner, *waiters]
        for number, wait in enumerate(waits):
            self.assertFalse(wait.done)
            tickets[number].release_all()
            self.assertEqual([w.done for w in waits], [True] * (number + 1) + [False] * (2 - number))
            late = self.lanes.ticket()
            self.assertFalse(Outcome(late.enter(KEY)).done)
            late.release_all()

    def test_waits_are_told(self) -> None:
        """Who asked is told when a wait begins and when it ends, also when it is cancelled or made way; not of lanes that are free."""
        told: list[bool] = []
        owner, waiter, gone = [self.lanes.ticket() for _ in range(3)]
        owner.on_wait = waiter.on_wait = gone.on_wait = told.append
        self.assertTrue(Outcome(owner.enter(KEY)).done)
        self.assertEqual(told, [])
        self.assertFalse(Outcome(waiter.enter(KEY)).done)
        self.assertEqual(told, [True])
        owner.release_all()
        self.assertEqual(told, [True, False])
        self.assertFalse(Outcome(gone.enter(KEY)).done)
        gone.keep_for_rerun()
        self.assertEqual(told, [True, False, True, False])

    def test_lane_that_becomes_free_while_a_wait_is_told(self) -> None:
        """The wait is in the queue before it is told: what is told may release the lane."""
        owner, waiter = self.lanes.ticket(), self.lanes.ticket()
        self.assertTrue(Outcome(owner.enter(KEY)).done)
        waiter.on_wait = lambda waits: owner.release_all() if waits else None
        self.assertTrue(Outcome(waiter.enter(KEY)).done)

    def test_entering_an_owned_lane_again(self) -> None:
        """An owner enters its own lane at once."""
        ticket = self.lanes.ticket()
        Outcome(ticket.enter(KEY))
        self.assertTrue(Outcome(ticket.enter(KEY)).done)

    def test_opposite_order(self) -> None:
        """Two tickets that take two lanes in opposite order: the younger gives up, the older goes on."""
        for first_waits in ("old", "young"):
            old, young = self.lanes.ticket(), self.lanes.ticket()
            Outcome(old.enter(KEY))
            Outcome(young.enter(OTHER))
            if first_waits == "old":
                old_wait, young_wait = Outcome(old.enter(OTHER)), Outcome(young.enter(KEY))
            else:
                young_wait, old_wait = Outcome(young.enter(KEY)), Outcome(old.enter(OTHER))
            self.assertTrue(old_wait.done and old_wait.error is None)
            self.assertIsInstance(young_wait.error, Rerun)
            self.assertIsInstance(Outcome(young.enter((1, b"free"))).error, Rerun)
            young.keep_for_rerun()
            retried = Outcome(young.enter(KEY))
            old.release_all()
            self.assertTrue(retried.done and retried.error is None)
            young.release_all()

    def test_a_cycle_of_three(self) -> None:
        """The youngest of a longer cycle gives up, even when it is not the one that closed it."""
        tickets = [self.lanes.ticket() for _ in range(3)]
        keys: list[Point] = [(1, b"a"), (1, b"b"), (1, b"c")]
        for ticket, key in zip(tickets, keys, strict=True):
            Outcome(ticket.enter(key))
        waits = [Outcome(tickets[n].enter(keys[(n + 1) % 3])) for n in (2, 1, 0)][::-1]
        self.assertIsInstance(waits[2].error, Rerun)
        self.assertTrue(waits[1].done and waits[1].error is None)
        self.assertFalse(waits[0].done)

    def test_waiting_behind_a_waiter_counts(self) -> None:
        """A cycle through a place in a queue, not through an owner, is seen: nobody waits for ever."""
        first, second, third = (self.lanes.ticket() for _ in range(3))
        Outcome(first.enter((1, b"a")))
        Outcome(second.enter((1, b"b")))
        waiting = Outcome(third.enter((1, b"a")))
        Outcome(third.enter((1, b"b")))  # one mutation, two reads at once
        behind = Outcome(second.enter((1, b"a")))
        self.assertIsInstance(waiting.error, Rerun)
        first.release_all()
        self.assertTrue(behind.done and behind.error is None)

    def test_cancelling_a_wait(self) -> None:
        """A waiter that goes away leaves the queue."""
        first, second, third = (self.lanes.ticket() for _ in range(3))
        Outcome(first.enter(KEY))
        gone, waits = Outcome(second.enter(KEY)), Outcome(third.enter(KEY))
        gone.deferred.cancel()
        self.assertIsNotNone(gone.error)
        first.release_all()
        self.assertTrue(waits.done)

    def test_release_fails_own_waits(self) -> None:
        """A ticket that ends while it waits does not keep its place."""
        first, second = self.lanes.ticket(), self.lanes.ticket()
        Outcome(first.enter(KEY))
        wait = Outcome(second.enter(KEY))
        second.release_all()
        self.assertIsInstance(wait.error, Rerun)
        first.release_all()
        self.assertTrue(Outcome(self.lanes.ticket().enter(KEY)).done)

    def test_a_long_queue_does_not_recurse(self) -> None:
        """Thousands of waiters that each release at once are served in a loop."""
        served: list[int] = []

        async def use(ticket: LaneTicket) -> None:
            await ticket.enter(KEY)
            served.append(ticket.age)
            ticket.release_all()

        first = self.lanes.ticket()
        Outcome(first.enter(KEY))
        outcomes = [Outcome(use(self.lanes.ticket())) for _ in range(3000)]
        first.release_all()
        self.assertTrue(all(outcome.done and outcome.error is None for outcome in outcomes))
        self.assertEqual(served, sorted(served))

    def test_who_owns_a_lane_misses_nothing(self) -> None:
        """A hot point is to be claimed by all but the owner of its lane, a cold one by nobody."""
        owner, other = self.lanes.ticket(), self.lanes.ticket()
        self.assertFalse(self.lanes.is_missing(owner, *KEY))
        self.lanes.lane(KEY)
        self.assertTrue(self.lanes.is_missing(owner, *KEY))
        Outcome(owner.enter(KEY))
        self.assertFalse(self.lanes.is_missing(owner, *KEY))
        self.assertTrue(self.lanes.is_missing(other, *KEY))
        owner.release_all()
        self.clock.advance(60)
        self.assertFalse(self.lanes.is_missing(other, *KEY))

    def test_keys_cool_down(self) -> None:
        """A key is hot for a while after its last conflict or wait, an interval too; an owned one does not cool."""
        self.lanes.lane(KEY)
        self.lanes.lane((2, b"a", b"c"))
        self.clock.advance(3)
        self.lanes.lane(KEY)
        self.clock.advance(3)
        self.assertTrue(self.lanes.is_hot_point(*KEY))
        self.assertFalse(self.lanes.is_hot_interval(2, b"a", None))
        ticket = self.lanes.ticket()
        Outcome(ticket.enter(KEY))
        self.clock.advance(60)
        self.assertTrue(self.lanes.is_hot_point(*KEY))
        ticket.release_all()
        self.assertFalse(self.lanes.is_hot_point(*KEY))

    def test_the_hot_set_is_bounded(self) -> None:
        """The point whose conflict is oldest makes room, unless it is owned; intervals beyond the bound are joined."""
        owner = self.lanes.ticket()
        Outcome(owner.enter((1, b"0")))
        for number in range(1, 6):
            self.lanes.lane((1, b"%d" % number))
        hot = [number for number in range(6) if self.lanes.is_hot_point(1, b"%d" % number)]
        self.assertEqual(hot, [0, 4, 5])
        for low, high in ((b"a", b"b"), (b"g", b"h"), (b"x", b"y")):
            self.lanes.lane((2, low, high))
        self.assertTrue(self.lanes.is_hot_interval(2, b"xx", b"xy"))
        self.assertEqual(len(self.lanes.hot_intervals(2, b"", None)), 2)
        self.assertEqual(self.registry.get_sample_value("convex_database_lane_hot_keys"), 5)

    def test_overlapping_intervals_share_a_lane(self) -> None:
        """A conflict in an interval that meets a hot one widens it."""
        first = self.lanes.lane((2, b"a", b"c"))
        self.assertIs(self.lanes.lane((2, b"b", None)), first)
        self.assertTrue(self.lanes.is_hot_interval(2, b"z", None))
        self.assertFalse(self.lanes.is_hot_interval(2, b"", b"a"))


class MutationTests(SynchronousTestCase):
    """Lanes and the committer together."""

    def setUp(self) -> None:
        self.stack = Stack()
        self.committer = self.stack.committer

    def conflict_on(self, number: int) -> Running:
        """A mutation that read document *number* and was overtaken: it owns the lane now."""
        loser = Running(self.stack, reads_of((-1, doc_id(number))))
        row = self.stack.persistence.get(1, doc_id(number))
        outcome = self.stack.commit(change(number, b"w", old=(row.ts, row.json) if row else None))
        assert outcome.error is None
        assert isinstance(loser.commit(change(900, b"1")).error, OccConflict)
        loser.ticket.keep_for_rerun()
        return loser

    def test_the_loser_owns_the_lane(self) -> None:
        """After a conflict the key is hot, the ticket owns it, and its re-run reads without waiting."""
        loser = self.conflict_on(1)
        self.assertTrue(self.committer.lanes.is_hot_point(-1, doc_id(1)))
        again = Running(self.stack, ticket=loser.ticket)
        self.assertTrue(again.claim((-1, doc_id(1))).done)
        other = Running(self.stack)
        self.assertFalse(other.claim((-1, doc_id(1))).done)

    def test_a_waiter_moves_forward(self) -> None:
        """A waiter whose reads still hold continues at the newest pending commit and sees the owner's write; it does not re-run."""
        owner = self.conflict_on(1)
        row = self.stack.persistence.get(1, doc_id(1))
        waiter = Running(self.stack, reads_of((-1, doc_id(7))))
        before = waiter.snapshot.ts
        claimed = waiter.claim((-1, doc_id(1)))
        run = Running(self.stack, reads_of((-1, doc_id(1))), owner.ticket)
        self.stack.hold = True
        run.commit(change(1, b"owner", old=(row.ts, row.json)))
        self.assertTrue(claimed.done and claimed.error is None and claimed.value)
        self.assertEqual(waiter.snapshot.ts, self.committer.pending_ts)
        self.assertGreater(waiter.snapshot.ts, before)
        self.assertEqual(waiter.snapshot.get_now(1, doc_id(1)).json, b"owner")

    def test_opposite_order_with_expected_keys(self) -> None:
        """Two mutations that are known to read two hot keys take both at the first read, in one order: neither gives up."""
        hot = ((-1, doc_id(1)), (-1, doc_id(2)))
        for key in hot:
            self.committer.lanes.lane(key)
        one, two = Running(self.stack), Running(self.stack)
        self.assertTrue(one.claim(hot[0], expected=(hot[1], (-1, doc_id(3)))).done)
        self.assertEqual(len(one.ticket.owned), 2)
        waits = two.claim(hot[1], expected=(hot[0],))
        self.assertEqual((waits.done, len(two.ticket.owned)), (False, 0))
        self.assertTrue(one.claim(hot[1]).done)
        one.ticket.release_all()
        self.assertTrue(waits.done and waits.error is None)
        self.assertEqual(len(two.ticket.owned), 2)

    def test_who_gave_up_takes_all_lanes_at_once(self) -> None:
        """The re-run of a mutation that gave up takes every lane that it needed at its first read, and holds none while it waits."""
        lanes = self.committer.lanes
        hot = ((-1, doc_id(1)), (9, b"a", b"c"))
        for key in hot:
            lanes.lane(key)
        old, young = Running(self.stack), Running(self.stack)
        old.claim(hot[0])
        young.claim(hot[1])
        gave_up = young.claim(hot[0])
        waits = old.claim(hot[1])
        self.assertIsInstance(gave_up.error, Rerun)
        self.assertTrue(waits.done and waits.error is None)
        young.ticket.keep_for_rerun()
        again = Running(self.stack, ticket=young.ticket).claim(hot[1])
        self.assertEqual((again.done, len(young.ticket.owned)), (False, 0))
        old.ticket.release_all()
        self.assertTrue(again.done and again.error is None)
        self.assertEqual(len(young.ticket.owned), 2)

    def test_a_waiter_whose_reads_went_stale(self) -> None:
        """If what it read before waiting was overtaken, it re-runs, and keeps the lane it waited for."""
        owner = self.conflict_on(1)
        waiter = Running(self.stack, reads_of((-1, doc_id(2))))
        claimed = waiter.claim((-1, doc_id(1)))
        self.stack.commit(change(2, b"x"))
        owner.ticket.release_all()
        self.assertIsInstance(claimed.error, Rerun)
        waiter.ticket.keep_for_rerun()
        self.assertTrue(waiter.ticket.owns(self.committer.lanes.lane((-1, doc_id(1)))))

    def test_a_writer_that_did_not_wait_is_held_at_its_commit(self) -> None:
        """A mutation that had read the key before it was hot cannot overtake the owner: its commit waits, then conflicts."""
        self.stack.commit(change(1, b"0"))
        early = Running(self.stack, reads_of((-1, doc_id(1))))
        owner = self.conflict_on(1)
        row = self.stack.persistence.get(1, doc_id(1))
        held = early.commit(change(1, b"early", old=(row.ts, row.json)))
        self.assertFalse(held.done)
        run = Running(self.stack, reads_of((-1, doc_id(1))), owner.ticket)
        self.assertIsNone(run.commit(change(1, b"owner", old=(row.ts, row.json))).error)
        self.assertIsInstance(held.error, OccConflict)

    def test_a_blind_insert_into_a_hot_interval_waits(self) -> None:
        """An insert never reads the range that it falls into; it is still held while an owner of that range runs, then goes through."""
        lanes = self.committer.lanes
        owner = Running(self.stack)
        Outcome(owner.ticket.enter(lanes.lane((10, b"a", b"m"))))
        inside = self.stack.commit(change(1, b"1", keys=((10, None, b"c"),)))
        outside = self.stack.commit(change(2, b"1", keys=((10, None, b"x"),)))
        self.assertTrue(outside.done)
        self.assertFalse(inside.done)
        owner.ticket.release_all()
        self.assertTrue(inside.done and inside.error is None)

    def test_a_mutation_that_keeps_conflicting_runs_alone(self) -> None:
        """A mutation that conflicts somewhere else at each run takes the global lane in the end: other commits wait for it."""
        victim = self.committer.lanes.ticket()
        for number in range(6):
            run = Running(self.stack, reads_of((-1, doc_id(number))), victim)
            self.assertIsNone(self.stack.commit(change(number, b"w")).error)
            self.assertIsInstance(run.commit(change(100, b"1")).error, OccConflict)
            victim.keep_for_rerun()
        rival = self.stack.commit(change(50, b"w"))
        self.assertFalse(rival.done)
        run = Running(self.stack, reads_of((-1, doc_id(50))), victim)
        self.assertIsNone(run.commit(change(100, b"1")).error)
        self.assertTrue(rival.done and rival.error is None)

    def test_lanes_are_released_when_pending(self) -> None:
        """The next owner does not wait for the disk."""
        owner = self.conflict_on(1)
        waiter = Running(self.stack)
        claimed = waiter.claim((-1, doc_id(1)))
        self.stack.hold = True
        run = Running(self.stack, ticket=owner.ticket)
        committed = run.commit(change(55, b"1"))
        self.assertFalse(committed.done)
        self.assertTrue(claimed.done)

    def test_a_ticket_that_gave_up_cannot_commit(self) -> None:
        """After it gave up a run ends at its commit at the latest."""
        old, young = Running(self.stack), Running(self.stack)
        Outcome(old.ticket.enter(KEY))
        Outcome(young.ticket.enter(OTHER))
        Outcome(young.ticket.enter(KEY))
        Outcome(old.ticket.enter(OTHER))
        self.assertTrue(young.ticket.gave_up)
        self.assertIsInstance(young.commit(change(1, b"1")).error, Rerun)

    def test_a_commit_without_a_ticket_makes_way_and_waits_again(self) -> None:
        """A commit of our own (a push, a backfill) that is in the way of a mutation lets it pass and goes through afterwards."""
        lanes = self.committer.lanes
        first, second = lanes.ticket(), lanes.ticket()
        Outcome(first.enter((-1, doc_id(1))))
        Outcome(second.enter((-1, doc_id(2))))
        own = self.stack.commit(change(1, b"1"), change(2, b"1"))
        first.release_all()
        self.assertFalse(own.done)
        passed = Outcome(second.enter((-1, doc_id(1))))
        self.assertTrue(passed.done and passed.error is None)
        self.assertFalse(own.done)
        second.release_all()
        self.assertTrue(own.done and own.error is None)

    def test_cold_keys_need_no_claim(self) -> None:
        """With nothing hot a claim is immediate and moves nothing."""
        run = Running(self.stack)
        self.stack.commit(change(1, b"1"))
        before = run.snapshot.ts
        claimed = run.claim((-1, doc_id(1)), (10, b"", None))
        self.assertEqual((claimed.done, claimed.value, run.snapshot.ts), (True, False, before))

    def test_a_claim_after_a_failed_group(self) -> None:
        """A run whose snapshot died while it waited re-runs."""
        owner = self.conflict_on(1)
        self.stack.hold = True
        self.stack.commit(change(3, b"1"))
        waiter = Running(self.stack)
        claimed = waiter.claim((-1, doc_id(1)))
        self.stack.fail_write()
        self.flushLoggedErrors(OSError)
        owner.ticket.release_all()
        self.assertIsInstance(claimed.error, Rerun)
