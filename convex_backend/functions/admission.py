"""Who may run now, who waits, who is refused: the bounded, fair queue in front of the children (A7, E4).

::

    enter ── a slot is free, nobody waits ─────────────► runs ── leave
      │                                                   ▲ │
      ├── queue full: the longest line loses its newest   │ └ park (waits in a lane) ── resume: at once, beyond the slots
      ▼                                                   │
    line of its flow ── its flow holds the fewest slots ──┘

Slots are what the ready children can take. Mutations keep at least half of them: while both kinds wait, a free slot goes to a mutation as long
as mutations hold less than half, else to the others. Within a kind the calls of each function (a *flow*) stand in a line of their own, and a
free slot goes to the flow that holds the fewest slots, in turn among equals: a function that is called much, or whose calls take long, has its
share and no more while others wait. A full queue refuses the newest of the longest line, so that it cannot be filled by one function.

A call that waits in a lane (A6) uses no child, so it gives its slot back meanwhile: else those that want one hot key would hold all slots, and
the others would queue behind them. What takes the slot back is owner of its lane and must not wait; so it goes beyond the slots.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from convex_backend.errors import Overloaded

OVERLOADED_TEXT = "Too many concurrent requests, backoff and try again."
STOPPING_TEXT = "The server is stopping. Try again later."

Flow = Hashable


@attrs.define(eq=False, slots=True)
class _Waiter:
    flow: Flow
    since: float
    admitted: Deferred[None]


class _Kind:
    """Mutations, or all others: lines by flow, in turn, and what runs of each flow."""

    __slots__ = ("lines", "running", "running_of", "waiting")

    def __init__(self) -> None:
        self.lines: dict[Flow, deque[_Waiter]] = {}
        self.running_of: dict[Flow, int] = {}
        self.running = 0
        self.waiting = 0

    def started(self, flow: Flow) -> None:
        """One of *flow* holds a slot."""
        self.running += 1
        self.running_of[flow] = self.running_of.get(flow, 0) + 1

    def ended(self, flow: Flow) -> None:
        """One of *flow* holds its slot no longer."""
        self.running -= 1
        left = self.running_of[flow] - 1
        if left:
            self.running_of[flow] = left
        else:
            del self.running_of[flow]

    def queue(self, waiter: _Waiter) -> None:
        """*waiter* stands at the end of its flow's line."""
        self.waiting += 1
        line = self.lines.get(waiter.flow)
        if line is None:
            line = self.lines[waiter.flow] = deque()
        line.append(waiter)

    def next(self) -> _Waiter:
        """Take the first of the flow that holds the fewest slots; the flow goes behind its equals."""
        running_of = self.running_of
        flow = (
            min(self.lines, key=lambda flow: running_of.get(flow, 0)) if len(self.lines) > 1 else next(iter(self.lines))
        )
        line = self.lines.pop(flow)
        waiter = line.popleft()
        if line:
            self.lines[flow] = line
        self.waiting -= 1
        return waiter

    def remove(self, waiter: _Waiter) -> bool:
        """Take *waiter* out of its line. :returns: whether it stood there."""
        line = self.lines.get(waiter.flow)
        if line is None or waiter not in line:
            return False
        line.remove(waiter)
        if not line:
            del self.lines[waiter.flow]
        self.waiting -= 1
        return True

    def longest(self) -> tuple[int, Flow]:
        """Length and flow of the longest line; 0 without any."""
        return max(((len(line), flow) for flow, line in self.lines.items()), key=lambda one: one[0], default=(0, None))

    def pop_newest(self, flow: Flow) -> _Waiter:
        """Take the last of *flow*'s line."""
        line = self.lines[flow]
        waiter = line.pop()
        if not line:
            del self.lines[flow]
        self.waiting -= 1
        return waiter

    def pop_older(self, since: float) -> list[_Waiter]:
        """Take those that wait since *since* or longer."""
        found = []
        for flow, line in list(self.lines.items()):
            while line and line[0].since <= since:
                found.append(line.popleft())
            if not line:
                del self.lines[flow]
        self.waiting -= len(found)
        return found


class Admission:
    """The queue and the count of what runs.

    :param max_waiting: how many may wait.
    :param max_wait_seconds: how long one may wait; applied by :meth:`expire`.
    :param waited: told the seconds that each one which had to wait has waited when it is let in.
    :param takes_starts: whether a child would begin one more soon; asked besides the slots, :meth:`admit` when that has become true.
    :param refused: told of each one that is refused for want of room or time.
    """

    def __init__(
        self,
        clock: IReactorTime,
        max_waiting: int,
        max_wait_seconds: float,
        waited: Callable[[float], None],
        refused: Callable[[], None],
        takes_starts: Callable[[], bool] = lambda: True,
    ) -> None:
        self._clock = clock
        self._max_waiting = max_waiting
        self._max_wait_seconds = max_wait_seconds
        self._waited = waited
        self._refused = refused
        self._takes_starts = takes_starts
        self._mutations = _Kind()
        self._others = _Kind()
        self._slots = 0
        self._max_parked = 0
        self._closed = False
        self.parked = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._mutations.waiting + self._others.waiting

    @property
    def running(self) -> int:
        """How many hold a slot."""
        return self._mutations.running + self._others.running

    def enter(self, mutation: bool, forced: bool, flow: Flow) -> Deferred[None] | None:
        """Ask to run; :meth:`leave` must follow each admission.

        :param forced: part of work already admitted: let in at once, beyond the slots (else work that holds a slot could wait for itself).
        :param flow: among whom the slots are shared out: the function.
        :returns: ``None`` when let in now, else a Deferred that fires then; cancelling it leaves the queue.
        :raises Overloaded: the queue is full and no line is longer than that of *flow*, or it is closed.
        """
        if self._closed:
            raise Overloaded("BackendIsNotRunning", STOPPING_TEXT)
        kind = self._mutations if mutation else self._others
        waiting = self._mutations.waiting + self._others.waiting
        if forced or (
            not waiting and self._mutations.running + self._others.running < self._slots and self._takes_starts()
        ):
            kind.started(flow)
            return None
        if waiting >= self._max_waiting:
            self._make_room(kind, flow)
        admitted: Deferred[None] = Deferred(lambda _: self._forget(kind, waiter))
        waiter = _Waiter(flow, self._clock.seconds(), admitted)
        kind.queue(waiter)
        # A slot can be free here only if the other kind's queue is what made us wait.
        self._admit()
        return admitted

    def leave(self, mutation: bool, flow: Flow) -> None:
        """One that was let in has ended."""
        (self._mutations if mutation else self._others).ended(flow)
        self.admit()

    def park(self, flow: Flow) -> bool:
        """A mutation of *flow* that was let in waits for another transaction: its slot is free.

        :returns: whether it is; not when too many do that already. :meth:`resume` must follow if so.
        """
        if self.parked >= self._max_parked:
            return False
        self.parked += 1
        self._mutations.ended(flow)
        self._admit()
        return True

    def resume(self, flow: Flow) -> None:
        """One that gave its slot back goes on."""
        self.parked -= 1
        self._mutations.started(flow)

    def set_slots(self, slots: int, max_parked: int) -> None:
        """The children can now take *slots* calls that run, and *max_parked* more that do not."""
        self._slots = slots
        self._max_parked = max_parked
        self._admit()

    def expire(self) -> None:
        """Refuse those that have waited too long."""
        if self.waiting:
            oldest = self._clock.seconds() - self._max_wait_seconds
            for kind in (self._mutations, self._others):
                for waiter in kind.pop_older(oldest):
                    self._refuse(waiter)

    def fail_waiting(self, error: Exception) -> None:
        """Refuse all who wait now with *error*."""
        for kind in (self._mutations, self._others):
            for waiter in kind.pop_older(self._clock.seconds()):
                waiter.admitted.errback(Failure(error))

    def close(self) -> None:
        """Refuse everyone who waits or comes later."""
        self._closed = True
        self.fail_waiting(Overloaded("BackendIsNotRunning", STOPPING_TEXT))

    def _forget(self, kind: _Kind, waiter: _Waiter) -> None:
        kind.remove(waiter)

    def _make_room(self, kind: _Kind, flow: Flow) -> None:
        """Refuse the newest of the longest line, which may be the one that is about to queue.

        :raises Overloaded: it is.
        """
        crowded = max((self._mutations, self._others), key=lambda one: one.longest()[0])
        length, longest = crowded.longest()
        if len(kind.lines.get(flow, ())) >= length:
            self._refused()
            raise Overloaded("TooManyConcurrentRequests", OVERLOADED_TEXT)
        self._refuse(crowded.pop_newest(longest))

    def _refuse(self, waiter: _Waiter) -> None:
        self._refused()
        waiter.admitted.errback(Failure(Overloaded("TooManyConcurrentRequests", OVERLOADED_TEXT)))

    def admit(self) -> None:
        """Let in who may run now."""
        if self._mutations.waiting or self._others.waiting:
            self._admit()

    def _admit(self) -> None:
        mutations, others = self._mutations, self._others
        while mutations.running + others.running < self._slots and self._takes_starts():
            if mutations.waiting and (not others.waiting or mutations.running * 2 < self._slots):
                kind = mutations
            elif others.waiting:
                kind = others
            else:
                return
            waiter = kind.next()
            kind.started(waiter.flow)
            self._waited(self._clock.seconds() - waiter.since)
            waiter.admitted.callback(None)
