"""The queue in front of the children: fair between functions and kinds, bounded, and slots that come back while a mutation waits in a lane."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from convex_backend.errors import Overloaded
from convex_backend.functions.admission import Admission


class AdmissionCase(SynchronousTestCase):
    """An admission with four slots and a queue of ten."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.waits: list[float] = []
        self.refusals = 0
        self.admission = Admission(self.clock, 10, 30.0, self.waits.append, self._refused)
        self.admission.set_slots(4, 2)
        self.let_in: list[tuple[bool, str]] = []
        self.refused_calls: list[str] = []

    def _refused(self) -> None:
        self.refusals += 1

    def ask(self, flow: str, mutation: bool = False, forced: bool = False) -> Deferred[None] | None:
        """Ask for a slot and note when it is given."""
        waiting = self.admission.enter(mutation, forced, flow)
        if waiting is None:
            self.let_in.append((mutation, flow))
        else:
            waiting.addCallbacks(
                lambda _: self.let_in.append((mutation, flow)), lambda _: self.refused_calls.append(flow)
            )
        return waiting

    def leave_first(self) -> None:
        """The one that was let in first ends."""
        self.admission.leave(*self.let_in.pop(0))


class FairnessTests(AdmissionCase):
    """Who gets a free slot."""

    def test_quiet_function_is_next_whatever_is_queued_before_it(self) -> None:
        """A function that holds no slot goes before another's calls, however many of those came first."""
        for _ in range(12):
            self.ask("noisy")
        self.ask("quiet")
        self.leave_first()
        self.assertEqual([flow for _, flow in self.let_in], ["noisy"] * 3 + ["quiet"])

    def test_slots_are_shared_evenly_while_all_want_them(self) -> None:
        """Of three functions with endless lines each comes to hold a share of the slots, and none more than one slot over it."""
        self.admission.set_slots(6, 0)
        for _ in range(6):
            self.ask("a")
        for turn in range(60):
            for flow in ("a", "b", "c"):
                if sum(1 for line in self.admission._others.lines.get(flow, ())) < 2:
                    self.ask(flow)
            self.leave_first()
            if turn > 12:
                held = [sum(1 for _, flow in self.let_in if flow == name) for name in ("a", "b", "c")]
                self.assertLessEqual(max(held) - min(held), 1, held)

    def test_long_calls_take_no_more_than_their_share(self) -> None:
        """A function whose calls never end cannot take the slots that another one leaves while that one has a line."""
        for _ in range(3):
            self.ask("slow")
        self.ask("quick")
        for _ in range(3):
            self.ask("slow")
            self.ask("quick")
        for _ in range(3):
            self.let_in.remove((False, "quick"))
            self.admission.leave(False, "quick")
        self.assertEqual(self.let_in.count((False, "quick")), 1)

    def test_order_within_a_function_is_kept(self) -> None:
        """Calls of one function are let in as they came."""
        order: list[int] = []
        for _ in range(4):
            self.ask("f")
        for number in range(3):
            waiting = self.admission.enter(False, False, "f")
            assert waiting is not None
            waiting.addCallback(lambda _, number=number: order.append(number))
        for _ in range(3):
            self.admission.leave(False, "f")
        self.assertEqual(order, [0, 1, 2])

    def test_mutations_keep_half(self) -> None:
        """With endless queries, mutations get slots until they hold half; the rest goes to queries."""
        for _ in range(8):
            self.ask("query")
        for _ in range(5):
            self.ask("mutate", mutation=True)
        for _ in range(4):
            self.leave_first()
        self.assertEqual(sorted(kind for kind, _ in self.let_in), [False, False, True, True])

    def test_forced_goes_beyond_the_slots(self) -> None:
        """Work that was admitted before never waits."""
        for _ in range(6):
            self.ask("f")
        self.assertIsNone(self.ask("f", mutation=True, forced=True))
        self.assertEqual(self.admission.running, 5)


class BoundTests(AdmissionCase):
    """The queue has an end in length and in time."""

    def test_full_queue_loses_the_newest_of_its_longest_line(self) -> None:
        """A function that fills the queue is refused itself, and makes room for another one."""
        for _ in range(14):
            self.ask("noisy")
        with self.assertRaises(Overloaded):
            self.ask("noisy")
        self.assertEqual((self.refusals, self.refused_calls), (1, []))
        self.ask("quiet", mutation=True)
        self.assertEqual((self.refusals, self.refused_calls, self.admission.waiting), (2, ["noisy"], 10))

    def test_wait_has_an_end(self) -> None:
        """Who waited for the limit is refused, each by its own time; who came later waits on."""
        for _ in range(4):
            self.ask("f")
        self.ask("f")
        self.clock.advance(10)
        self.ask("g")
        self.clock.advance(20)
        self.admission.expire()
        self.assertEqual((self.refused_calls, self.admission.waiting, self.refusals), (["f"], 1, 1))

    def test_waiting_time_is_told(self) -> None:
        """The seconds that a call waited for its slot are reported, those of calls that did not wait are not."""
        for _ in range(5):
            self.ask("f")
        self.clock.advance(0.25)
        self.leave_first()
        self.assertEqual(self.waits, [0.25])

    def test_cancelled_waiter_leaves_its_line(self) -> None:
        """A caller that goes away takes no slot, and its line goes with it."""
        for _ in range(4):
            self.ask("f")
        waiting = self.admission.enter(False, False, "gone")
        assert waiting is not None
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.leave_first()
        self.assertEqual((self.admission.running, self.admission.waiting), (3, 0))

    def test_close_refuses_everyone(self) -> None:
        """Who waits and who comes after a stop is refused."""
        for _ in range(5):
            self.ask("f")
        self.admission.close()
        self.assertEqual(self.refused_calls, ["f"])
        with self.assertRaises(Overloaded):
            self.ask("f", forced=True)


class ParkingTests(AdmissionCase):
    """Slots of mutations that wait for another transaction."""

    def test_parked_mutation_lets_another_in_and_goes_on_at_once(self) -> None:
        """A slot given back is used by who waits; who gave it back goes on beyond the slots; all counts end at zero."""
        for _ in range(4):
            self.ask("hot", mutation=True)
        self.ask("cold", mutation=True)
        self.assertTrue(self.admission.park("hot"))
        self.assertEqual(self.let_in[-1], (True, "cold"))
        self.assertEqual((self.admission.running, self.admission.parked), (4, 1))
        self.admission.resume("hot")
        self.assertEqual((self.admission.running, self.admission.parked), (5, 0))
        self.ask("cold", mutation=True)
        while self.let_in:
            self.leave_first()
        self.assertEqual((self.admission.running, self.admission.waiting), (0, 0))

    def test_parking_is_bounded(self) -> None:
        """Beyond the bound a waiting mutation keeps its slot."""
        for _ in range(4):
            self.ask("hot", mutation=True)
        self.assertEqual([self.admission.park("hot") for _ in range(3)], [True, True, False])
        self.assertEqual((self.admission.running, self.admission.parked), (2, 2))
