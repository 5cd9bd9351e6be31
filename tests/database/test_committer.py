"""Commits: order, groups, conflicts, failures."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from convex_backend.database.committer import CommitEvent, CommitterLimits
from convex_backend.errors import OccConflict, Overloaded, Rerun, ServerFault, StorageFailed
from convex_backend.interfaces import IndexWrite, LedgerEntry
from tests.database.commit_support import SECOND, Outcome, Stack, change, doc_id, reads_of, result_of

INDEX = 10


class GroupTests(SynchronousTestCase):
    """How commits become durable."""

    def test_start_commits_at_the_present(self) -> None:
        """Start-up writes an empty commit at max(last + 1, now), so that durable time is now (A10)."""
        stack = Stack()
        self.assertGreaterEqual(stack.committer.durable_ts, 1000 * SECOND)
        self.assertEqual(stack.persistence.last_ts, stack.committer.durable_ts)

    def test_start_after_a_clock_that_went_back(self) -> None:
        """The next timestamp is after the last one in the file even when wall time is before it."""
        stack = Stack()
        last = stack.committer.durable_ts
        stack.wall_ns = 5
        values = [stack.commit(change(number, b"1")).value for number in (1, 2)]
        self.assertEqual(values, [last + 1, last + 2])

    def test_commits_pile_up_behind_one_write(self) -> None:
        """The first commit is written at once; those that come meanwhile share the next group, in order; one write at a time."""
        stack = Stack(hold=True)
        outcomes = [stack.commit(change(number, b"x")) for number in range(4)]
        self.assertEqual([len(group) for group in stack.groups], [1])
        self.assertEqual(len(stack.held), 1)
        self.assertFalse(any(outcome.done for outcome in outcomes))
        stack.finish_write()
        self.assertEqual([outcome.done for outcome in outcomes], [True, False, False, False])
        self.assertEqual([len(group) for group in stack.groups], [1, 3])
        stack.finish_write()
        values = [outcome.value for outcome in outcomes]
        self.assertEqual(values, sorted(set(values)))
        self.assertEqual(stack.committer.durable_ts, values[-1])

    def test_group_bounds(self) -> None:
        """A group takes at most so many commits and bytes, but always one."""
        stack = Stack(hold=True, limits=CommitterLimits(group_commits=2, group_bytes=2000))
        for number in range(4):
            stack.commit(change(number, b"x"))
        stack.commit(change(5, b"x" * 5000))
        stack.commit(change(6, b"x"))
        while stack.held:
            stack.finish_write()
        self.assertEqual([len(group) for group in stack.groups], [1, 2, 1, 1, 1])

    def test_listeners_and_order(self) -> None:
        """``on_pending`` hears each commit at validation; ``on_durable`` the group, after ``durable_ts`` moved and before the answer."""
        stack = Stack(hold=True)
        heard: list[object] = []
        stack.committer.on_pending.append(lambda event: heard.append(("pending", event.writer)))
        stack.committer.on_durable.append(
            lambda events: heard.append(
                ("durable", [e.writer for e in events], stack.committer.durable_ts == events[-1].ts)
            )
        )
        first = stack.commit(change(1, b"1"), writer="a")
        first.deferred.addCallback(lambda _: heard.append("answer a"))
        stack.commit(change(2, b"1"), writer="b")
        self.assertEqual(heard, [("pending", "a"), ("pending", "b")])
        stack.finish_write()
        self.assertEqual(heard[2:], [("durable", ["a"], True), "answer a"])

    def test_a_failing_durable_listener(self) -> None:
        """The others still hear, the caller is still answered, the fault is logged."""
        stack = Stack()
        heard: list[int] = []

        def broken(events: list[CommitEvent]) -> None:
            raise ValueError("listener")

        stack.committer.on_durable.extend([broken, lambda events: heard.append(len(events))])
        self.assertIsNotNone(stack.commit(change(1, b"1")).value)
        self.assertEqual(heard, [1])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_a_refusing_pending_listener(self) -> None:
        """A commit that a pending listener refuses has not happened, and later ones go on with new timestamps."""
        stack = Stack()
        failed: list[int] = []

        def broken(event: CommitEvent) -> None:
            raise ValueError("listener")

        stack.committer.on_pending.append(broken)
        stack.committer.on_failed.append(failed.append)
        before = stack.committer.pending_ts
        outcome = stack.commit(change(1, b"1"))
        self.assertIsInstance(outcome.error, ServerFault)
        self.assertEqual((stack.committer.pending_ts, failed), (before, [before]))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        stack.committer.on_pending.clear()
        self.assertGreater(stack.commit(change(1, b"1")).value, before + 1)

    def test_the_queue_is_bounded(self) -> None:
        """Beyond the bound a commit is refused with ``CommitterFullError``; room comes back with the write."""
        stack = Stack(hold=True, limits=CommitterLimits(queue_commits=2))
        stack.commit(change(1, b"1"))
        stack.commit(change(2, b"1"))
        refused = stack.commit(change(3, b"1"))
        self.assertIsInstance(refused.error, Overloaded)
        self.assertEqual(refused.error.code, "CommitterFullError")
        stack.finish_write()
        self.assertIsNone(stack.commit(change(3, b"1")).error)

    def test_the_queue_is_bounded_in_bytes(self) -> None:
        """Bytes count too."""
        stack = Stack(hold=True, limits=CommitterLimits(queue_bytes=10_000))
        stack.commit(change(1, b"x" * 9000))
        self.assertIsInstance(stack.commit(change(2, b"x" * 3000)).error, Overloaded)

    def test_stop_drains(self) -> None:
        """Stopping waits for what is queued and refuses what comes later."""
        stack = Stack(hold=True)
        queued = [stack.commit(change(number, b"1")) for number in range(3)]
        stopped = Outcome(stack.committer.stop())
        self.assertEqual(stack.commit(change(9, b"1")).error.code, "ServerStopping")
        stack.finish_write()
        self.assertFalse(stopped.done)
        stack.finish_write()
        self.assertTrue(stopped.done and all(outcome.value for outcome in queued))

    def test_rows_written(self) -> None:
        """A moved index entry is removed and added, one that stays is not rewritten; the ledger, meta and backfill rows go along."""
        stack = Stack()
        first = stack.commit(change(1, b"1", keys=((INDEX, None, b"a1"), (11, None, b"k1"))))
        written: list[object] = []
        stack.persistence.before_write = lambda commits: written.extend(commits)
        entry = LedgerEntry("s", 1, b"r", 5)
        extra = IndexWrite(12, b"z1", 1, doc_id(1), True, first.value)
        stack.commit(
            change(1, b"2", old=(first.value, b"1"), keys=((INDEX, b"a1", b"b1"), (11, b"k1", b"k1"))),
            ledger=entry,
            extra_index_writes=(extra,),
            meta=(("m", b"1"),),
        )
        (commit,) = written
        self.assertEqual(
            commit.indexes,
            (
                IndexWrite(INDEX, b"a1", 1, doc_id(1), False),
                IndexWrite(INDEX, b"b1", 1, doc_id(1), True),
                extra,
            ),
        )
        self.assertTrue(commit.documents[0].had_previous)
        self.assertEqual(stack.persistence.ledger_get("s", 1).result, b"r")
        self.assertEqual(stack.persistence.get_meta("m"), b"1")

    def test_cancelling_the_caller(self) -> None:
        """A caller that goes away does not take its commit back."""
        stack = Stack(hold=True)
        outcome = stack.commit(change(1, b"1"))
        outcome.deferred.cancel()
        self.assertIsNotNone(outcome.error)
        stack.finish_write()
        self.assertIsNotNone(stack.persistence.get(1, doc_id(1)))


class ValidationTests(SynchronousTestCase):
    """When a commit conflicts."""

    def test_an_overtaken_point(self) -> None:
        """Reading a document that a later commit changed is a conflict, named after the table, the document and the writer."""
        stack = Stack()
        ts = stack.committer.pending_ts
        stack.commit(change(1, b"1"), writer="messages:send")
        outcome = stack.commit(change(2, b"1"), reads=reads_of((-1, doc_id(1))), ts=ts, writer="other:f")
        self.assertIsInstance(outcome.error, OccConflict)
        self.assertEqual(
            outcome.error.message,
            'Documents read from or written to the "t1" table changed while this mutation was being run and on every subsequent retry. '
            'A call to "messages:send" changed the document with ID "doc1". See https://docs.convex.dev/error#1',
        )
        again = stack.commit(change(2, b"1"), reads=reads_of((-1, doc_id(1))), ts=ts, writer="messages:send")
        self.assertIn("Another call to this mutation changed", again.error.message)

    def test_pending_commits_count(self) -> None:
        """A commit that is not durable yet conflicts as well."""
        stack = Stack(hold=True)
        ts = stack.committer.pending_ts
        stack.commit(change(1, b"1"))
        outcome = stack.commit(change(1, b"2"), ts=ts)
        self.assertIsInstance(outcome.error, OccConflict)

    def test_blind_writes_do_not_conflict(self) -> None:
        """Writes to different documents at one snapshot both commit."""
        stack = Stack()
        ts = stack.committer.pending_ts
        self.assertIsNone(stack.commit(change(1, b"1"), ts=ts).error)
        self.assertIsNone(stack.commit(change(2, b"1"), ts=ts).error)

    def test_old_and_new_index_keys_count(self) -> None:
        """A range is overtaken by a document that leaves it, enters it, or changes in place; not by one that moves elsewhere."""
        for old_key, new_key, conflicts in (
            (b"b", b"x", True),
            (b"x", b"b", True),
            (b"b", b"b", True),
            (b"x", b"y", False),
        ):
            stack = Stack()
            first = stack.commit(change(1, b"1", keys=((INDEX, None, old_key),)))
            ts = stack.committer.pending_ts
            stack.commit(change(1, b"2", old=(first.value, b"1"), keys=((INDEX, old_key, new_key),)))
            outcome = stack.commit(change(2, b"1"), reads=reads_of(intervals=[(INDEX, b"a", b"c")]), ts=ts)
            self.assertEqual(isinstance(outcome.error, OccConflict), conflicts, (old_key, new_key))

    def test_many_commits_since(self) -> None:
        """Whether few or many commits lie between, points and intervals are checked against all of them."""
        for commits in (1, 5, 40):
            stack = Stack()
            ts = stack.committer.pending_ts
            stack.commit(change(1, b"1", keys=((INDEX, None, b"k"),)))
            for number in range(2, commits + 2):
                stack.commit(change(number, b"1", keys=((INDEX, None, b"z%d" % number),)))
            for reads, conflicts in (
                (reads_of((-1, doc_id(1))), True),
                (reads_of((INDEX, b"k")), True),
                (reads_of((-1, doc_id(99))), False),
                (reads_of(intervals=[(INDEX, b"j", b"l")]), True),
                (reads_of(intervals=[(INDEX, b"l", b"z")]), False),
            ):
                self.assertEqual(stack.committer.validate(reads, ts) is not None, conflicts)

    def test_older_than_the_log(self) -> None:
        """Reads from before the log's window cannot be checked, so they conflict."""
        stack = Stack(log_max_keys=3)
        ts = stack.committer.pending_ts
        for number in range(6):
            stack.commit(change(number, b"1"))
        self.assertTrue(stack.committer.validate(reads_of((-1, doc_id(99))), ts).too_old)
        self.assertIsInstance(stack.commit(change(99, b"1"), ts=ts).error, OccConflict)
        self.assertLessEqual(stack.committer.write_log.key_count, 3)

    def test_read_only(self) -> None:
        """Without changes nothing is written and the snapshot's timestamp is the answer, once what it read is durable."""
        stack = Stack(hold=True)
        stack.commit(change(1, b"1"))
        ts = stack.committer.pending_ts
        outcome = stack.commit(reads=reads_of((-1, doc_id(1))))
        self.assertFalse(outcome.done)
        stack.finish_write()
        self.assertEqual(outcome.value, ts)
        self.assertEqual(len(stack.groups), 1)

    def test_advance_to(self) -> None:
        """``durable_ts`` follows a client's timestamp that is not in the future; one in the future is refused (A10)."""
        stack = Stack(hold=True)
        start = stack.committer.durable_ts
        stack.wall_ns += SECOND
        target = start + SECOND // 2
        outcome = Outcome(stack.committer.advance_to(target))
        stack.finish_write()
        self.assertTrue(outcome.done and outcome.error is None)
        self.assertGreaterEqual(stack.committer.durable_ts, target)
        self.assertIsNone(Outcome(stack.committer.advance_to(start)).error)
        self.assertIsInstance(Outcome(stack.committer.advance_to(stack.wall_ns + SECOND)).error, ServerFault)


class FailureTests(SynchronousTestCase):
    """A5: failed groups."""

    def test_a_failed_group(self) -> None:
        """All pending commits fail, pending data goes, nobody reuses the timestamps, and later commits work."""
        stack = Stack(hold=True)
        durable = stack.committer.durable_ts
        floors: list[int] = []
        stack.committer.on_failed.append(floors.append)
        first, second = stack.commit(change(1, b"1")), stack.commit(change(2, b"1"))
        used = stack.committer.pending_ts
        stack.fail_write()
        self.flushLoggedErrors(OSError)
        self.assertIsInstance(first.error, StorageFailed)
        self.assertIsInstance(second.error, StorageFailed)
        self.assertEqual(
            (stack.committer.pending_ts, stack.committer.durable_ts, floors), (durable, durable, [durable])
        )
        self.assertIsNone(stack.committer.snapshots.open(durable).get_now(1, doc_id(1)))
        third = stack.commit(change(1, b"3"))
        stack.finish_write()
        self.assertGreater(third.value, used)

    def test_running_mutations_above_it(self) -> None:
        """A mutation that began above ``durable_ts`` is told to re-run, at its reads and at its commit; one below goes on."""
        stack = Stack(hold=True)
        below = stack.committer.durable_ts
        stack.commit(change(1, b"1"))
        above = stack.committer.pending_ts
        snapshot = stack.committer.snapshots.open(above)
        waiting = stack.commit(reads=reads_of((-1, doc_id(1))))
        stack.fail_write()
        self.flushLoggedErrors(OSError)
        self.assertIsInstance(waiting.error, Rerun)
        with pytest.raises(Rerun):
            snapshot.get_now(1, doc_id(1))
        self.assertIsInstance(stack.commit(change(5, b"1"), ts=above).error, Rerun)
        self.assertIsInstance(stack.commit(ts=above).error, Rerun)
        good = stack.commit(change(5, b"1"), ts=below)
        stack.finish_write()
        self.assertIsNotNone(good.value)

    def test_what_is_in_the_file_is_acknowledged(self) -> None:
        """When the error came after the commit reached the file, its callers get their answer and queued commits go on."""
        stack = Stack()
        stack.hold = True
        first, second = stack.commit(change(1, b"1")), stack.commit(change(2, b"1"))
        stack.persistence.after_write = lambda commits: fail(OSError("lost reply"))
        stack.finish_write()
        stack.persistence.after_write = None
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertIsNotNone(first.value)
        self.assertFalse(second.done)
        stack.finish_write()
        self.assertIsNotNone(second.value)

    def test_commits_during_recovery_wait(self) -> None:
        """A commit that comes while the store is being reopened waits, then goes on or re-runs by its snapshot."""
        stack = Stack(hold=True)
        below = stack.committer.durable_ts
        lost = stack.commit(change(1, b"1"))
        above = stack.committer.pending_ts
        reopened: Deferred[int] = Deferred()
        recover = stack.persistence.recover
        stack.persistence.recover = lambda: reopened
        stack.fail_write()
        good, doomed = stack.commit(change(2, b"1"), ts=below), stack.commit(change(3, b"1"), ts=above)
        self.assertFalse(lost.done or good.done or doomed.done)
        recover().addCallback(reopened.callback)
        self.flushLoggedErrors(OSError)
        self.assertIsInstance(lost.error, StorageFailed)
        self.assertIsInstance(doomed.error, Rerun)
        stack.finish_write()
        self.assertIsNotNone(good.value)

    def test_a_store_that_is_lost(self) -> None:
        """If the store cannot be reopened the operator is told once and every commit fails."""
        stack = Stack(hold=True)
        stack.persistence.recover = lambda: fail(OSError("gone"))
        outcome = stack.commit(change(1, b"1"))
        stack.fail_write()
        self.flushLoggedErrors(OSError)
        self.assertIsInstance(outcome.error, StorageFailed)
        self.assertEqual(len(stack.fatal), 1)
        self.assertIsInstance(stack.commit(change(1, b"1")).error, StorageFailed)
        self.assertTrue(Outcome(stack.committer.stop()).done)

    def test_advance_to_across_a_failure(self) -> None:
        """A client's timestamp that waited for commits that failed is reached by an empty commit."""
        stack = Stack(hold=True)
        stack.commit(change(1, b"1"))
        outcome = Outcome(stack.committer.advance_to(stack.committer.pending_ts))
        stack.fail_write()
        self.flushLoggedErrors(OSError)
        stack.finish_write()
        self.assertTrue(outcome.done and outcome.error is None)

    def test_starting_twice(self) -> None:
        """A committer starts once."""
        stack = Stack()
        self.assertIsInstance(Outcome(stack.committer.start()).error, RuntimeError)


def test_waiting_for_what_has_failed_already_ends_at_once() -> None:
    """Who asks for a timestamp whose group has failed is told, not left waiting for later commits."""
    stack = Stack(hold=True)
    lost = stack.commit(change(1, b"{}"))
    ts = stack.committer.pending_ts
    stack.fail_write()
    assert isinstance(lost.error, StorageFailed)
    with pytest.raises(Rerun):
        result_of(stack.committer.wait_durable(ts))
