"""Conflicts wait, they don't race: lanes for hot keys (A6).

A conflict makes the key (or the interval) that was overtaken *hot* for a while. A hot key has a lane: one owner and a FIFO of waiters, tickets
of running mutations. A run takes the lane before it reads there; the committer makes a run that *writes* there without having read (an
insert into a hot interval, a run that read before the key became hot) take it before its validation.

Why a mutation that conflicts never starves:

* While a ticket owns a lane, nobody else can commit a write to what the lane covers: a reader waits in the lane before its read, a
  writer waits in it before its validation. So a re-run that reads what it read before cannot be overtaken there.
* A re-run that reads something else each time may conflict somewhere else each time. After ``exclusive_after`` conflicts its ticket takes the
  *global* lane, which every commit with writes passes: while it runs, nobody commits.
* Tickets wait for each other through lanes only, every wait is checked for a cycle, and the youngest of a cycle gives up (releases its
  lanes and re-runs), so the oldest ticket alive never gives up and each lane it waits for is released after finitely many runs.
* This asks one thing of the caller: a re-run does not queue for admission behind runs that wait in its lanes (it keeps its slot).

Source: ``docs/internals.md`` section 6.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from convex_backend.database.hints import NamedDocument
from convex_backend.database.reads import Interval, Point, ReadSet
from convex_backend.database.snapshot import Snapshot
from convex_backend.database.write_log import ConflictInfo
from convex_backend.errors import Rerun

DEFAULT_HOT_SECONDS = 5.0
DEFAULT_MAX_HOT_POINTS = 4096
DEFAULT_MAX_HOT_INTERVALS = 32
DEFAULT_EXCLUSIVE_AFTER = 6
MAX_EXPECTED = 64
"""Keys that a ticket remembers when it gives up."""


class Lane:
    """One hot point, hot interval, or (index 0) the global lane.

    :ivar owner: the ticket that may read and write here; a lane with waiters has an owner.
    :ivar number: grows with each lane that is made; who takes several takes the newest first.
    """

    __slots__ = ("expires", "index", "lower", "number", "owner", "point", "upper", "waiters")

    def __init__(self, index: int, lower: bytes, upper: bytes | None, point: bool, number: int = 0) -> None:
        self.number = number
        self.index = index
        self.lower = lower
        self.upper = upper
        self.point = point
        self.expires = 0.0
        self.owner: LaneTicket | None = None
        self.waiters: deque[_Wait] = deque()

    def overlaps(self, lower: bytes, upper: bytes | None) -> bool:
        """Whether ``[lower, upper)`` meets this interval."""
        return (upper is None or self.lower < upper) and (self.upper is None or lower < self.upper)

    def covers(self, key: bytes) -> bool:
        """Whether *key* is in this interval."""
        return key >= self.lower and (self.upper is None or key < self.upper)


class _Wait:
    """One ticket's place in one lane's queue; ``ahead`` is the place before it."""

    __slots__ = ("ahead", "deferred", "lane", "ticket")

    def __init__(self, ticket: LaneTicket, lane: Lane) -> None:
        self.ticket = ticket
        self.lane = lane
        self.ahead: _Wait | None = None
        self.deferred: Deferred[None] = Deferred(self._cancelled)

    def _cancelled(self, _: Deferred[None]) -> None:
        self.forget()

    def forget(self) -> None:
        """Leave the queue."""
        if self not in self.ticket.waits:
            return
        self.ticket.waits.remove(self)
        waiters = self.lane.waiters
        if waiters[0] is self:
            waiters.popleft()
            if waiters:
                waiters[0].ahead = None
            return
        place = waiters.index(self)
        del waiters[place]
        if place < len(waiters):
            waiters[place].ahead = self.ahead


class LaneTicket:
    """One mutation's place among the lanes; the same object for all its re-runs, so that its age is kept.

    :ivar age: order of arrival; smaller is older.
    :ivar conflicts: how often a run of it was overtaken.
    :ivar named: documents that the mutation is likely to read.
    :ivar expected: keys that an earlier run of it came to need before it gave up.
    :ivar on_pending: told when the mutation's commit is pending, and its lanes are others'.
    :ivar on_wait: told when a wait begins and when it ends, however it ends.
    """

    __slots__ = ("age", "conflicts", "expected", "gave_up", "lanes", "named", "on_pending", "on_wait", "owned", "waits")

    def __init__(self, lanes: Lanes, age: int, named: Sequence[NamedDocument] = ()) -> None:
        self.lanes = lanes
        self.age = age
        self.named = named
        self.expected: dict[Point | Interval, None] = {}
        self.conflicts = 0
        self.gave_up = False
        self.on_pending: Callable[[], None] | None = None
        self.on_wait: Callable[[bool], None] | None = None
        self.owned: dict[Lane, None] = {}
        self.waits: list[_Wait] = []

    async def enter(self, key: Lane | Point | Interval) -> None:
        """Return when this ticket owns the lane of *key* (a point, an interval, or a lane).

        Waiters are served in order of arrival. A wait that would close a cycle makes the youngest ticket of the cycle give up.

        :raises Rerun: this ticket gave up, now or earlier in this run; its lanes are released.
        Cancelling leaves the queue.
        """
        lane = key if isinstance(key, Lane) else self.lanes.lane(key)
        if self.gave_up:
            raise Rerun("The mutation made way for an older one.")
        if lane.owner is self:
            return
        if lane.owner is None:
            self.lanes.own(self, lane)
            return
        wait = _Wait(self, lane)
        # In the queue before anybody is told, who may do what changes the lanes.
        self.lanes.enqueue(wait)
        on_wait = self.on_wait
        if on_wait is not None:
            on_wait(True)
        try:
            await wait.deferred
        finally:
            if on_wait is not None:
                on_wait(False)

    def is_waited_for(self) -> bool:
        """Whether another ticket waits in a lane that this one owns."""
        return any(lane.waiters for lane in self.owned)

    def owns(self, lane: Lane) -> bool:
        """Whether this ticket owns *lane*."""
        return lane.owner is self

    def keep_for_rerun(self) -> None:
        """The run ended without a commit and another follows: keep the lanes, forget what the run was waiting for."""
        self.lanes.drop_waits(self)
        self.gave_up = False

    def release_all(self) -> None:
        """The mutation's commit is pending, or it ended: hand every lane to its next waiter."""
        if self.owned or self.waits:
            self.lanes.release(self)
        self.gave_up = False


class Lanes:
    """Which keys are hot, and who may use them.

    :param reactor: clock for the decay.
    :param registry: where the metrics go.
    :param hot_seconds: a key stays hot for this long after the last conflict or wait there.
    :param max_hot_points: bound on hot points; the oldest idle ones cool down first.
    :param max_hot_intervals: bound on hot intervals of one index; beyond it they are joined.
    :param exclusive_after: conflicts of one mutation after which it runs alone.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        registry: CollectorRegistry,
        *,
        hot_seconds: float = DEFAULT_HOT_SECONDS,
        max_hot_points: int = DEFAULT_MAX_HOT_POINTS,
        max_hot_intervals: int = DEFAULT_MAX_HOT_INTERVALS,
        exclusive_after: int = DEFAULT_EXCLUSIVE_AFTER,
    ) -> None:
        self._reactor = reactor
        self._hot_seconds = hot_seconds
        self._max_hot_points = max_hot_points
        self._max_hot_intervals = max_hot_intervals
        self._exclusive_after = exclusive_after
        self._ages = count(1)
        self._numbers = count(1)
        self._points: dict[Point, Lane] = {}
        self._intervals: dict[int, list[Lane]] = {}
        self._global = Lane(0, b"", None, False)
        self._owned = 0
        self._ready: deque[tuple[Deferred[None], Failure | None]] = deque()
        self._firing = False
        self._waits_total = Counter(
            "convex_database_lane_waits_total", "Waits of mutations for a hot key.", registry=registry
        )
        self._conflicts_total = Counter(
            "convex_database_conflicts_total", "Mutation runs overtaken by another commit.", registry=registry
        )
        self._gave_up_total = Counter(
            "convex_database_lane_give_ups_total",
            "Mutation runs that made way for an older one to break a cycle.",
            registry=registry,
        )
        self._exclusive_total = Counter(
            "convex_database_lane_exclusive_total", "Mutations that had to run alone.", registry=registry
        )
        hot = Gauge("convex_database_lane_hot_keys", "Hot points and intervals.", registry=registry)
        hot.set_function(self._hot_count)

    def ticket(self, age: int | None = None, named: Sequence[NamedDocument] = ()) -> LaneTicket:
        """A ticket for one mutation.

        :param age: smaller is older; by default younger than every ticket before it.
        :param named: see :class:`LaneTicket`.
        """
        return LaneTicket(self, next(self._ages) if age is None else age, named)

    # What is hot

    @property
    def any_hot(self) -> bool:
        """Whether any point may be hot."""
        return bool(self._points)

    def is_hot_point(self, index: int, key: bytes) -> bool:
        """Whether a mutation that is about to read this point has to ``claim`` it first."""
        return bool(self._points) and self.hot_point(index, key) is not None

    def is_missing(self, ticket: LaneTicket, index: int, key: bytes) -> bool:
        """Whether the point is hot and its lane not yet *ticket*'s: who owns it has no more to claim there."""
        if not self._points:
            return False
        lane = self.hot_point(index, key)
        return lane is not None and lane.owner is not ticket

    def hot_point(self, index: int, key: bytes) -> Lane | None:
        """The lane of a point, if it is hot."""
        lane = self._points.get((index, key))
        if lane is not None and self._is_cold(lane):
            del self._points[(index, key)]
            return None
        return lane

    def is_hot_interval(self, index: int, lower: bytes, upper: bytes | None) -> bool:
        """Whether a mutation that is about to read in ``[lower, upper)`` has to ``claim`` it first."""
        if not self._intervals or index not in self._intervals:
            return False
        return bool(self.hot_intervals(index, lower, upper))

    def hot_intervals(self, index: int, lower: bytes, upper: bytes | None) -> list[Lane]:
        """The hot intervals of *index* that meet ``[lower, upper)``."""
        lanes = self._intervals.get(index)
        if not lanes:
            return []
        warm = [lane for lane in lanes if not self._is_cold(lane)]
        if not warm:
            del self._intervals[index]
        elif len(warm) != len(lanes):
            self._intervals[index] = warm
        return [lane for lane in warm if lane.overlaps(lower, upper)]

    def hot(self, keys: Iterable[Point | Interval]) -> list[Lane]:
        """The lanes that a read of *keys* needs."""
        found: list[Lane] = []
        for key in keys:
            if len(key) == 2:
                lane = self.hot_point(key[0], key[1])
                if lane is not None:
                    found.append(lane)
            else:
                found += self.hot_intervals(key[0], key[1], key[2])
        return found

    def lane(self, key: Point | Interval) -> Lane:
        """The lane of a point or an interval, which becomes hot if it is not."""
        if len(key) == 2:
            point = (key[0], key[1])
            lane = self._points.get(point)
            if lane is None:
                self._make_room()
                lane = self._points[point] = Lane(key[0], key[1], None, True, next(self._numbers))
            else:  # the dict's order is the order of the last conflict
                del self._points[point]
                self._points[point] = lane
        else:
            lane = self._interval_lane(key[0], key[1], key[2])
        lane.expires = self._reactor.seconds() + self._hot_seconds
        return lane

    def mark(self, conflict: ConflictInfo) -> Lane | None:
        """A run was overtaken: make what it read hot. ``None`` when it is not known what (the run was too old)."""
        self._conflicts_total.inc()
        if conflict.interval is not None:
            return self.lane(conflict.interval)
        if conflict.key is not None:
            return self.lane(conflict.key)
        return None

    async def after_conflict(self, ticket: LaneTicket, conflict: ConflictInfo) -> None:
        """Mark the conflict and let *ticket* become owner of its lane, so that the re-run cannot be overtaken there.

        Returns when it owns the lane, or gave up to break a cycle (the re-run then waits at its read).
        Cancelling leaves the queue.
        """
        ticket.conflicts += 1
        lane = self.mark(conflict)
        try:
            if lane is not None:
                await ticket.enter(lane)
            if ticket.conflicts >= self._exclusive_after and not ticket.owns(self._global):
                self._exclusive_total.inc()
                await ticket.enter(self._global)
        except Rerun:
            return  # the caller re-runs in any case

    def blocking(self, ticket: LaneTicket, keys: Iterable[Point]) -> Lane | None:
        """A lane that another ticket owns and that a commit of *keys* by *ticket* has to take first."""
        if not self._owned:
            return None
        owner = self._global.owner
        if owner is not None and owner is not ticket:
            return self._global
        points, intervals = self._points, self._intervals
        for point in keys:
            lane = points.get(point)
            if lane is not None and lane.owner is not None and lane.owner is not ticket:
                return lane
            for lane in intervals.get(point[0], ()):
                if lane.owner is not None and lane.owner is not ticket and lane.covers(point[1]):
                    return lane
        return None

    def _is_cold(self, lane: Lane) -> bool:
        return lane.owner is None and lane.expires <= self._reactor.seconds()

    def _hot_count(self) -> float:
        return float(len(self._points) + sum(len(lanes) for lanes in self._intervals.values()))

    def _make_room(self) -> None:
        """Drop points that are cold; at the bound also the idle one whose last conflict is oldest."""
        points = self._points
        while points:
            oldest = next(iter(points))
            if not self._is_cold(points[oldest]):
                break
            del points[oldest]
        if len(points) >= self._max_hot_points:
            idle = next((point for point, lane in points.items() if lane.owner is None), None)
            if idle is not None:
                del points[idle]

    def _interval_lane(self, index: int, lower: bytes, upper: bytes | None) -> Lane:
        """The hot interval that meets ``[lower, upper)``, widened to hold it; a new one when there is none."""
        meeting = self.hot_intervals(index, lower, upper)
        lanes = self._intervals.setdefault(index, [])
        if meeting:
            lane = meeting[0]
        elif len(lanes) >= self._max_hot_intervals:
            lane = lanes[-1]
        else:
            lane = Lane(index, lower, upper, False, next(self._numbers))
            lanes.append(lane)
            return lane
        lane.lower = min(lane.lower, lower)
        lane.upper = None if lane.upper is None or upper is None else max(lane.upper, upper)
        return lane

    # Who owns what: called by tickets only

    def own(self, ticket: LaneTicket, lane: Lane) -> None:
        """Give a free lane to *ticket*."""
        lane.owner = ticket
        ticket.owned[lane] = None
        self._owned += 1

    def enqueue(self, wait: _Wait) -> None:
        """Queue for an owned lane and break the cycles that this closes."""
        self._waits_total.inc()
        lane, ticket = wait.lane, wait.ticket
        lane.expires = self._reactor.seconds() + self._hot_seconds
        wait.ahead = lane.waiters[-1] if lane.waiters else None
        lane.waiters.append(wait)
        ticket.waits.append(wait)
        while wait in ticket.waits and (len(ticket.waits) > 1 or any(owned.waiters for owned in ticket.owned)):
            # Otherwise nobody waits for this ticket, so it closes no cycle.
            cycle = self._cycle(ticket)
            if cycle is None:
                break
            self._give_up(max(cycle, key=lambda member: member.age))
        self._fire()

    def drop_waits(self, ticket: LaneTicket) -> None:
        """Fail what *ticket* still waits for."""
        for wait in list(ticket.waits):
            wait.forget()
            self._ready.append((wait.deferred, Failure(Rerun("The run has ended."))))
        self._fire()

    def release(self, ticket: LaneTicket) -> None:
        """Hand over all lanes of *ticket*."""
        self._release_owned(ticket)
        self.drop_waits(ticket)

    def _release_owned(self, ticket: LaneTicket) -> None:
        for lane in ticket.owned:
            lane.owner = None
            self._owned -= 1
            if lane.waiters:
                heir = lane.waiters[0].ticket
                self.own(heir, lane)
                for wait in [wait for wait in lane.waiters if wait.ticket is heir]:
                    wait.forget()
                    self._ready.append((wait.deferred, None))
        ticket.owned.clear()

    def _give_up(self, ticket: LaneTicket) -> None:
        self._gave_up_total.inc()
        ticket.gave_up = True
        for lane in (*ticket.owned, *[wait.lane for wait in ticket.waits]):
            if lane is not self._global and len(ticket.expected) < MAX_EXPECTED:
                ticket.expected[(lane.index, lane.lower) if lane.point else (lane.index, lane.lower, lane.upper)] = None
        for wait in list(ticket.waits):
            wait.forget()
            self._ready.append((wait.deferred, Failure(Rerun("The mutation made way for an older one."))))
        self._release_owned(ticket)

    def _fire(self) -> None:
        """Wake those who are due, in order. What they do may release further lanes; a loop, not recursion, serves these."""
        if self._firing:
            return
        self._firing = True
        try:
            while self._ready:
                deferred, failure = self._ready.popleft()
                if deferred.called:  # cancelled while it was due
                    continue
                if failure is None:
                    deferred.callback(None)
                else:
                    deferred.errback(failure)
        finally:
            self._firing = False

    @staticmethod
    def _blockers(ticket: LaneTicket) -> list[LaneTicket]:
        """Whom *ticket* waits for: the owner of each lane, and who is ahead in its queue (who in turn waits for those further ahead)."""
        found = []
        for wait in ticket.waits:
            if wait.lane.owner is not None:
                found.append(wait.lane.owner)
            ahead = wait.ahead
            while ahead is not None and ahead.ticket is ticket:
                ahead = ahead.ahead
            if ahead is not None:
                found.append(ahead.ticket)
        return found

    def _cycle(self, start: LaneTicket) -> list[LaneTicket] | None:
        """The tickets of a cycle of waits through *start*, or ``None``."""
        path = [start]
        branches = [iter(self._blockers(start))]
        seen = {start}
        while branches:
            blocker = next(branches[-1], None)
            if blocker is start:
                return path
            if blocker is None:
                branches.pop()
                path.pop()
            elif blocker not in seen:
                seen.add(blocker)
                path.append(blocker)
                branches.append(iter(self._blockers(blocker)))
        return None


class ClaimingState(Protocol):
    """What :func:`claim` needs of a transaction. ``fixed_ts``: not ``None`` for one whose snapshot must not move."""

    snapshot: Snapshot
    reads: ReadSet
    fixed_ts: int | None


class Validator(Protocol):
    """What :func:`claim` needs of the committer."""

    lanes: Lanes
    pending_ts: int

    def validate(self, reads: ReadSet, since_ts: int) -> ConflictInfo | None:
        """See :meth:`Committer.validate`."""


async def claim(
    ticket: LaneTicket,
    transaction: ClaimingState,
    committer: Validator,
    keys: tuple[Point | Interval, ...],
    expected: Callable[[], Iterable[Point]] = tuple,
) -> bool:
    """Before a mutation reads hot *keys*: take their lanes and make its snapshot fit.

    The lanes of all that it is likely to read besides are taken too, so that mutations which read the same keys in different order seldom
    meet in a cycle: newest lane first, because the oldest is mostly the one that most wait for, and shall be held for the shortest time.

    When a lane is new to the ticket and all that the run has read is still valid, its snapshot moves to the newest pending commit; reads so
    far then hold there too.

    :param expected: gives what the mutation is likely to read besides, which needs no lane when it is not hot; called when a lane is missing.
    :returns: whether the snapshot moved; the transaction then drops prefetched rows that nobody consumed, and looks at its catalog again.
    :raises Rerun: what the run has read was overtaken, or it gave up to break a cycle. In the first case the ticket keeps its lanes.
    Cancelling leaves the queue.
    """
    lanes = committer.lanes
    if all(ticket.owns(lane) for lane in lanes.hot(keys)):
        return False
    wanted = (*keys, *ticket.expected, *expected())
    # Looked up again after each wait: lanes cool down and are joined meanwhile.
    while missing := [lane for lane in lanes.hot(wanted) if not ticket.owns(lane)]:
        await ticket.enter(max(missing, key=_number_of))
    snapshot = transaction.snapshot
    if snapshot.dead:
        raise Rerun("The snapshot saw commits that could not be made durable.")
    conflict = committer.validate(transaction.reads, snapshot.ts)
    if conflict is not None:
        await lanes.after_conflict(ticket, conflict)
        raise Rerun("What the mutation had read changed while it waited.")
    if snapshot.ts >= committer.pending_ts:
        return False
    if transaction.fixed_ts is not None:
        raise Rerun("The mutation has told its snapshot's timestamp, so that it cannot move.")
    snapshot.move_to(committer.pending_ts)
    return True


def _number_of(lane: Lane) -> int:
    return lane.number
