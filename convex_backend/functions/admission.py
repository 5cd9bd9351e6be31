"""Who may run now, who waits, who is refused: the bounded queue in front of the children (A7, E4).

Slots are what the ready children can take. Mutations keep at least half of them: while both kinds wait, a free slot goes to a mutation as long
as mutations hold less than half, else to the others; within a kind it is first come, first served.
"""

from __future__ import annotations

from collections import deque

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from convex_backend.errors import Overloaded

OVERLOADED_TEXT = "Too many concurrent requests, backoff and try again."
STOPPING_TEXT = "The server is stopping. Try again later."


@attrs.define(eq=False, slots=True)
class _Waiter:
    mutation: bool
    since: float
    admitted: Deferred[None]


class Admission:
    """The queue and the count of what runs.

    :param max_waiting: how many may wait.
    :param max_wait_seconds: how long one may wait; applied by :meth:`expire`.
    """

    def __init__(self, clock: IReactorTime, max_waiting: int, max_wait_seconds: float) -> None:
        self._clock = clock
        self._max_waiting = max_waiting
        self._max_wait_seconds = max_wait_seconds
        self._mutations: deque[_Waiter] = deque()
        self._others: deque[_Waiter] = deque()
        self._slots = 0
        self._closed = False
        self.running_mutations = 0
        self.running_others = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._mutations) + len(self._others)

    @property
    def running(self) -> int:
        """How many were let in and have not left."""
        return self.running_mutations + self.running_others

    def enter(self, mutation: bool, forced: bool) -> Deferred[None] | None:
        """Ask to run; :meth:`leave` must follow each admission.

        :param forced: part of work already admitted: let in at once, beyond the slots (else work that holds a slot could wait for itself).
        :returns: ``None`` when let in now, else a Deferred that fires then; cancelling it leaves the queue.
        :raises Overloaded: the queue is full, or closed.
        """
        if self._closed:
            raise Overloaded("BackendIsNotRunning", STOPPING_TEXT)
        if forced or (self.running < self._slots and not self.waiting):
            self._count(mutation, 1)
            return None
        if self.waiting >= self._max_waiting:
            raise Overloaded("TooManyConcurrentRequests", OVERLOADED_TEXT)
        queue = self._mutations if mutation else self._others

        def forget(_: Deferred[None]) -> None:
            if waiter in queue:
                queue.remove(waiter)

        admitted: Deferred[None] = Deferred(forget)
        waiter = _Waiter(mutation, self._clock.seconds(), admitted)
        queue.append(waiter)
        # A slot can be free here only if the other kind's queue is what made us wait.
        self._admit()
        return admitted

    def leave(self, mutation: bool) -> None:
        """One that was let in has ended."""
        self._count(mutation, -1)
        self._admit()

    def set_slots(self, slots: int) -> None:
        """The children can now take *slots* calls."""
        self._slots = slots
        self._admit()

    def expire(self) -> None:
        """Refuse those that have waited too long."""
        oldest = self._clock.seconds() - self._max_wait_seconds
        for queue in (self._mutations, self._others):
            while queue and queue[0].since <= oldest:
                queue.popleft().admitted.errback(Failure(Overloaded("TooManyConcurrentRequests", OVERLOADED_TEXT)))

    def fail_waiting(self, error: Exception) -> None:
        """Refuse all who wait now with *error*."""
        for queue in (self._mutations, self._others):
            while queue:
                queue.popleft().admitted.errback(Failure(error))

    def close(self) -> None:
        """Refuse everyone who waits or comes later."""
        self._closed = True
        self.fail_waiting(Overloaded("BackendIsNotRunning", STOPPING_TEXT))

    def _count(self, mutation: bool, by: int) -> None:
        if mutation:
            self.running_mutations += by
        else:
            self.running_others += by

    def _admit(self) -> None:
        while self.running < self._slots:
            if self._mutations and (not self._others or self.running_mutations * 2 < self._slots):
                waiter = self._mutations.popleft()
            elif self._others:
                waiter = self._others.popleft()
            else:
                return
            self._count(waiter.mutation, 1)
            waiter.admitted.callback(None)
