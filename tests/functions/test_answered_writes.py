"""Writes that a child has answered before RESULT, on Python's side: order, refusals, and what becomes of the result."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from convex_backend.errors import BadRequest, RefusedLate, Rerun
from convex_backend.functions import frames
from convex_backend.interfaces import SyscallReply
from tests.functions.fakes import spec
from tests.functions.test_runner_pool import PoolCase

WRITE = "1.0/shallowMerge"


class AnsweredWriteTests(PoolCase):
    """One call whose child answers its writes itself."""

    def setUp(self) -> None:
        super().setUp()
        self.gates: dict[bytes, Deferred[SyscallReply]] = {}

        def answer(op: str, args: bytes) -> Any:
            if args.startswith(b"slow"):
                return self.gates.setdefault(args, Deferred())
            return BadRequest("Refused", "no") if args == b"bad" else SyscallReply(args)

        self.call_run = self.run_call(spec("mutation"), answer)
        self.call = self.child.starts[0]
        self.host = self.hosts[0]

    def write(self, args: bytes, **more: Any) -> None:
        self.child.syscall(self.call, 0, WRITE, args, answered=True, **more)

    def test_carried_out_without_an_answer(self) -> None:
        """They are served in order with what is asked; only what is asked gets a SYSRESULT."""
        self.write(b"one", consumed={"0": 3})
        self.child.syscall(self.call, 1, "1.0/get", b"two")
        self.child.result(self.call)
        self.successResultOf(self.call_run)
        self.assertEqual([args for _, args in self.host.calls], [b"one", b"two"])
        self.assertEqual(self.host.reports, [{"0": 3}])
        self.assertEqual([(f.seq, f.body) for f in self.child.of_kind(frames.SYSRESULT)], [(1, b"two")])

    def test_an_answer_that_others_wait_for_leaves_at_once(self) -> None:
        """What the owner of a contended lane is sent does not wait for the end of the turn; what others are sent does."""
        self.child.syscall(self.call, 1, "1.0/get", b"one")
        self.assertEqual(self.child.flushed, [])
        self.host.waited_for = True
        self.child.syscall(self.call, 2, "1.0/get", b"two")
        answered = [frame.seq for frame in self.child.sent if frame.kind == frames.SYSRESULT]
        self.assertEqual((answered, self.child.flushed), ([1, 2], [len(self.child.sent)]))

    def test_a_refusal_ends_the_try(self) -> None:
        """An error that the function would have caught comes too late: the run is over, and is to be made again."""
        self.write(b"bad")
        self.failureResultOf(self.call_run, RefusedLate)
        self.assertEqual(self.host.abandoned, 1)
        self.assertEqual(len(self.child.of_kind(frames.CANCEL)), 1)

    def test_the_result_waits_for_them(self) -> None:
        """RESULT is believed when all of them are done, and not when one of them is refused."""
        self.write(b"slow")
        self.write(b"two")
        self.child.result(self.call, b'"v"')
        self.assertNoResult(self.call_run)
        self.assertEqual(self.host.completed, 0)
        self.gates[b"slow"].callback(SyscallReply(b""))
        self.assertEqual(self.successResultOf(self.call_run).value, b'"v"')
        self.assertEqual([args for _, args in self.host.calls], [b"slow", b"two"])

    def test_a_late_refusal_behind_the_result(self) -> None:
        """The same with a refusal: nobody gets the result, not even an error of the function's own."""
        self.write(b"slow")
        self.write(b"bad")
        self.child.failure(self.call, "Uncaught Error: own\n")
        self.assertNoResult(self.call_run)
        self.gates[b"slow"].callback(SyscallReply(b""))
        self.failureResultOf(self.call_run, RefusedLate)
        self.assertEqual(self.host.completed, 0)

    def test_what_was_asked_and_left_behind_is_dropped(self) -> None:
        """A function that fails while something it asked for is queued behind its writes waits for the writes only."""
        self.write(b"slow")
        self.child.syscall(self.call, 1, "1.0/get", b"left")
        self.write(b"bad")
        self.child.failure(self.call, "Uncaught Error: own\n")
        self.gates[b"slow"].callback(SyscallReply(b""))
        self.assertEqual(self.error_of(self.call_run).message, "Uncaught Error: own\n")
        self.assertEqual([args for _, args in self.host.calls], [b"slow"])

    def test_a_failure_while_something_asked_is_served(self) -> None:
        """What the child asked for is being served when its function fails: it ends at once, writes behind are dropped."""
        self.child.syscall(self.call, 1, "1.0/get", b"slow")
        self.write(b"bad")
        self.child.failure(self.call, "Uncaught Error: own\n")
        self.assertEqual(self.error_of(self.call_run).message, "Uncaught Error: own\n")
        self.assertEqual(len(self.host.calls), 1)

    def test_a_report_may_end_the_try(self) -> None:
        """A document that was sent ahead and is out of date: ``Rerun`` out of the report, with a notice as well as with RESULT."""
        for with_result in (False, True):
            run = self.run_call(spec("mutation"))
            call = self.child.starts[-1]

            def consumed(_: dict[str, int]) -> None:
                raise Rerun("changed")

            self.hosts[-1].consumed = consumed  # type: ignore[method-assign]
            if with_result:
                self.child.result(call, consumed={"id": 1})
            else:
                self.child.syscall(call, 0, "1.0/queryCleanup", b'{"queryId":0}', consumed={"id": 1})
            self.failureResultOf(run, Rerun)
