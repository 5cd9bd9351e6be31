"""Order, deadlines and cancellation of the sequenced service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from convex_backend.service.sequence import Part, SequencedService, within


class Recorder:
    """Parts whose starts and stops wait for the test, and a record of what happened."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.waiting: dict[str, Deferred[None]] = {}
        self.errors: list[Exception] = []

    def step(self, name: str, *, wait: bool = False, error: Exception | None = None) -> Callable[[], Awaitable[None]]:
        """A start or stop function that records its begin, its end, and being cancelled."""

        async def run() -> None:
            self.events.append(name)
            if error is not None:
                raise error
            if wait:
                self.waiting[name] = Deferred()
                try:
                    await self.waiting[name]
                except CancelledError:
                    self.events.append(f"{name} cancelled")
                    raise
            self.events.append(f"{name} done")

        return run


class SequencedServiceTests(SynchronousTestCase):
    """What order a server may rely on."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.recorder = Recorder()

    def make(self, *parts: Part, stop_seconds: float = 20.0, grace_seconds: float = 2.0) -> SequencedService:
        """A service of *parts* that reports a failed start to the recorder."""
        return SequencedService(
            self.clock, parts, self.recorder.errors.append, stop_seconds=stop_seconds, grace_seconds=grace_seconds
        )

    def test_parts_start_one_after_the_other(self) -> None:
        """The second part begins when the first one is up, not before."""
        step = self.recorder.step
        service = self.make(Part("a", step("a", wait=True)), Part("b", step("b")))
        service.startService()
        self.assertEqual(self.recorder.events, ["a"])
        self.recorder.waiting["a"].callback(None)
        self.assertEqual(self.recorder.events, ["a", "a done", "b", "b done"])
        self.assertEqual(service.running, 1)

    def test_parts_stop_in_reverse_each_awaited(self) -> None:
        """The part that started last stops first, and the next one waits for it."""
        step = self.recorder.step
        service = self.make(Part("a", stop=step("a")), Part("b", stop=step("b", wait=True)), Part("c", stop=step("c")))
        service.startService()
        stopped = service.stopService()
        self.assertEqual(self.recorder.events, ["c", "c done", "b"])
        self.assertNoResult(stopped)
        self.recorder.waiting["b"].callback(None)
        self.assertIsNone(self.successResultOf(stopped))
        self.assertEqual(self.recorder.events[3:], ["b done", "a", "a done"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_part_that_does_not_start_stops_those_before_it(self) -> None:
        """The failure reaches the owner once, after the earlier parts have been stopped; later parts never begin."""
        step = self.recorder.step
        error = RuntimeError("no")
        service = self.make(
            Part("a", stop=step("stop a", wait=True)),
            Part("b", step("b", error=error), step("stop b")),
            Part("c", step("c"), step("stop c")),
        )
        service.startService()
        self.assertEqual(self.recorder.events, ["b", "stop a"])
        self.assertEqual(self.recorder.errors, [])
        self.recorder.waiting["stop a"].callback(None)
        self.assertEqual(self.recorder.errors, [error])
        self.assertIsNone(self.successResultOf(service.stopService()))
        self.assertEqual(self.recorder.events, ["b", "stop a", "stop a done"])

    def test_a_stop_during_a_failed_start_waits_for_the_same_stop(self) -> None:
        """No part is stopped twice when the signal comes while a failed start is cleaned up."""
        step = self.recorder.step
        service = self.make(Part("a", stop=step("stop a", wait=True)), Part("b", step("b", error=RuntimeError("no"))))
        service.startService()
        stopped = service.stopService()
        self.assertNoResult(stopped)
        self.recorder.waiting["stop a"].callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.recorder.events, ["b", "stop a", "stop a done"])

    def test_a_stop_cuts_off_a_start(self) -> None:
        """What is starting is cancelled, what had started stops, what had not never begins; it is no failure."""
        step = self.recorder.step
        service = self.make(
            Part("a", stop=step("stop a")), Part("b", step("b", wait=True), step("stop b")), Part("c", step("c"))
        )
        service.startService()
        self.successResultOf(service.stopService())
        self.assertEqual(self.recorder.events, ["b", "b cancelled", "stop a", "stop a done"])
        self.assertEqual(self.recorder.errors, [])

    def test_one_deadline_over_all_with_a_grace_for_each(self) -> None:
        """A part that hangs uses up the time of all; those after it still get their grace, and the stop ends."""
        step = self.recorder.step
        service = self.make(
            Part("file", stop=step("file")),
            Part("children", stop=step("children", wait=True)),
            Part("requests", stop=step("requests", wait=True)),
        )
        service.startService()
        stopped = service.stopService()
        self.clock.advance(19.9)
        self.assertEqual(self.recorder.events, ["requests"])
        self.clock.advance(0.1)
        self.assertEqual(self.recorder.events, ["requests", "requests cancelled", "children"])
        self.clock.advance(1.9)
        self.assertNoResult(stopped)
        self.clock.advance(0.2)
        self.successResultOf(stopped)
        self.assertEqual(self.recorder.events[3:], ["children cancelled", "file", "file done"])

    def test_a_part_may_have_a_shorter_time(self) -> None:
        """A limit of its own ends a part long before the deadline of all."""
        step = self.recorder.step
        service = self.make(Part("requests", stop=step("requests", wait=True), stop_seconds=10.0))
        service.startService()
        stopped = service.stopService()
        self.clock.advance(9.9)
        self.assertNoResult(stopped)
        self.clock.advance(0.2)
        self.successResultOf(stopped)

    def test_a_part_that_fails_to_stop_is_logged_and_the_others_stop(self) -> None:
        """An error in one stop does not keep the file open."""
        step = self.recorder.step
        service = self.make(Part("file", stop=step("file")), Part("bad", stop=step("bad", error=ZeroDivisionError())))
        service.startService()
        self.successResultOf(service.stopService())
        self.assertEqual(self.recorder.events, ["bad", "file", "file done"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_second_stop_changes_nothing(self) -> None:
        """Stopping a stopped service is over at once."""
        service = self.make(Part("a", stop=self.recorder.step("a")))
        service.startService()
        self.successResultOf(service.stopService())
        self.successResultOf(service.stopService())
        self.assertEqual(self.recorder.events, ["a", "a done"])


class WithinTests(SynchronousTestCase):
    """Bounded waiting."""

    def test_work_that_ignores_cancellation_does_not_hold_the_caller(self) -> None:
        """Time is over when it is over, even if the work goes on; its late failure is logged."""
        clock, hold = Clock(), Deferred[None]()

        async def stubborn() -> None:
            try:
                await Deferred()
            except CancelledError:
                await hold
                raise ValueError("late") from None

        def start() -> Deferred[bool]:
            return Deferred.fromCoroutine(within(clock, 5.0, stubborn))

        result = start()
        clock.advance(5.0)
        self.assertIs(self.successResultOf(result), False)
        hold.callback(None)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_cancelling_the_wait_cancels_the_work(self) -> None:
        """Nobody waits any more: the work is cancelled and no timer stays."""
        clock, work = Clock(), Deferred[None]()

        async def run() -> None:
            await work

        result = Deferred.fromCoroutine(within(clock, 5.0, run))
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertTrue(work.called)
        self.assertEqual(clock.getDelayedCalls(), [])
