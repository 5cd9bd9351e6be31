"""The committer: validates, orders and publishes every commit of the deployment (A1, A4, A5, A6).

::

    commit() -> pass lanes -> validate -> assign ts -> write log, overlay, on_pending     (pending: running mutations may read it)
                                                          |
                        queue -> one persistence.write per group, one at a time          (durable: durable_ts moves, on_durable, answers)
                                                          | error
                                                  recover -> drop what is not in the file, on_failed(durable_ts)

While a group is written, commits pile up (within bounds) and the next group takes them all. Source: ``docs/internals.md`` section 5,
``runtime.md`` section 10.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import attrs
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from convex_backend.database.commit_request import CommitRequest, CommitterLimits, commit_rows, request_bytes
from convex_backend.database.lanes import Lanes, LaneTicket
from convex_backend.database.overlay import Overlay
from convex_backend.database.reads import Point, ReadSet
from convex_backend.database.snapshot import SnapshotManager
from convex_backend.database.timestamps import next_timestamp
from convex_backend.database.write_log import CommitEvent, ConflictInfo, DocumentChange, WriteLog, written_keys
from convex_backend.deferreds import Waiters, from_coroutine, run_detached
from convex_backend.errors import OccConflict, Overloaded, Rerun, ServerFault, StorageFailed
from convex_backend.interfaces import Commit, IPersistence

__all__ = ["CommitEvent", "CommitRequest", "Committer", "CommitterLimits", "ConflictInfo", "DocumentChange"]

#: A group waits this long for company while fewer than one in ``GATHER_SHARE`` of the mutations that run have come to their commit: each group costs
#: a hop to the writer thread and a sync of the file, and commits that come one after the other out of one lane would each pay for one.
GATHER_SHARE = 8
GATHER_SECONDS = 0.015

_FAILED_RANGES = 64
_SIZE_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_TIME_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Clock(Protocol):
    """The part of ``IClock`` that the committer uses."""

    def now_ns(self) -> int:
        """Wall-clock nanoseconds since the epoch."""


class _Pending:
    """A commit that is validated and not yet durable."""

    __slots__ = ("bytes", "commit", "event", "waiter")

    def __init__(self, commit: Commit, event: CommitEvent, bytes: int) -> None:
        self.commit = commit
        self.event = event
        self.bytes = bytes
        self.waiter: Deferred[int] = Deferred(_ignore_cancel)


def _ignore_cancel(_: Deferred[int]) -> None:
    """A caller that goes away leaves its commit in the queue; ``Deferred.cancel`` then raises in the caller only."""


def _unknown_name(tablet: int, id: bytes) -> tuple[str | None, str | None]:
    return None, None


def _do_nothing_fatal(reason: str) -> None:
    """Without an owner to tell, the committer only refuses further commits."""


class Committer:
    """The single order of commits.

    :param persistence: an opened ``IPersistence``.
    :param clock: wall time for timestamps.
    :param reactor: clock for lanes and measured durations.
    :param registry: where the metrics go.
    :param fatal: called once, with a line for the operator, when the store is lost (A5); nothing is committed any more.
    :param name_document: (tablet, internal id) to (table name, document id text) for conflict texts; may be set later.

    :ivar durable_ts: everything up to here is in the file and was published.
    :ivar pending_ts: the newest validated commit; running mutations read here.
    :ivar on_pending: called synchronously with each ``CommitEvent`` at validation, after the log and the overlay have it. One that raises
        fails this commit only, and ``on_failed`` follows.
    :ivar on_durable: called with the group's ``list[CommitEvent]``, ascending, after ``durable_ts`` moved and before anybody is answered.
    :ivar on_failed: called with a timestamp: every pending commit above it is gone; transactions that began above it get ``Rerun``.
    """

    _log = Logger()

    def __init__(
        self,
        persistence: IPersistence,
        clock: Clock,
        reactor: IReactorTime,
        registry: CollectorRegistry,
        *,
        fatal: Callable[[str], None] = _do_nothing_fatal,
        name_document: Callable[[int, bytes], tuple[str | None, str | None]] = _unknown_name,
        limits: CommitterLimits | None = None,
        lanes: Lanes | None = None,
        log_window_seconds: float = 300.0,
        log_max_keys: int = 200_000,
    ) -> None:
        self.persistence = persistence
        self.limits = limits or CommitterLimits()
        self.lanes = lanes or Lanes(reactor, registry)
        self.name_document = name_document
        self.on_pending: list[Callable[[CommitEvent], None]] = []
        self.on_durable: list[Callable[[list[CommitEvent]], None]] = []
        self.on_failed: list[Callable[[int], None]] = []
        self._clock = clock
        self._reactor = reactor
        self._fatal = fatal
        last = persistence.last_ts
        self.durable_ts: int = last
        self.pending_ts: int = last
        self.write_log = WriteLog(last, window_seconds=log_window_seconds, max_keys=log_max_keys)
        self.snapshots = SnapshotManager(persistence, Overlay(last))
        self._last_assigned: int = last
        self._queue: deque[_Pending] = deque()
        self._queued_bytes = 0
        self._in_write = 0
        self._writing = False
        #: Mutations that run now, or wait to begin; kept by whoever runs them.
        self.siblings = 0
        self._company: Deferred[None] | None = None
        self._recovering = False
        self._failing = False
        self._recovered: Waiters[None] = Waiters()
        self._drained: Waiters[None] = Waiters()
        self._durable_waits: deque[tuple[int, Deferred[None]]] = deque()
        self._failed_ranges: deque[tuple[int, int]] = deque(maxlen=_FAILED_RANGES)
        self._state = "new"
        self._make_metrics(registry)

    def _make_metrics(self, registry: CollectorRegistry) -> None:
        self._commits_total = Counter("convex_database_commits_total", "Commits made durable.", registry=registry)
        self._group_size = Histogram(
            "convex_database_group_commits", "Commits in one group.", buckets=_SIZE_BUCKETS, registry=registry
        )
        self._group_seconds = Histogram(
            "convex_database_group_seconds", "Time to write one group.", buckets=_TIME_BUCKETS, registry=registry
        )
        self._failures_total = Counter(
            "convex_database_group_failures_total", "Groups that could not be written.", registry=registry
        )
        self._refused_total = Counter(
            "convex_database_commits_refused_total", "Commits refused because the queue was full.", registry=registry
        )
        for name, text, read in (
            ("convex_database_pending_commits", "Commits that are not durable yet.", self._waiting_commits),
            ("convex_database_pending_bytes", "Bytes of commits that are queued.", lambda: self._queued_bytes),
            ("convex_database_write_log_keys", "Keys in the write log.", lambda: self.write_log.key_count),
            ("convex_database_overlay_keys", "Index entries in the overlay.", lambda: self.snapshots.overlay.size),
            ("convex_database_open_snapshots", "Open snapshots.", lambda: self.snapshots.open_count),
        ):
            Gauge(name, text, registry=registry).set_function(read)

    def _waiting_commits(self) -> int:
        return len(self._queue) + self._in_write

    # Life

    async def start(self) -> None:
        """Commit an empty transaction at the present, so that no timestamp of an earlier run is used again (A10)."""
        if self._state != "new":
            raise RuntimeError("the committer was started before")
        self._state = "running"
        await self._append(CommitRequest(self.pending_ts, ReadSet()), (), None)

    async def stop(self) -> None:
        """Refuse new commits and return when the queued ones are durable or have failed."""
        if self._state == "running":
            self._state = "stopping"
        while self._writing:
            await self._drained.wait()

    # Commits

    async def commit(self, request: CommitRequest) -> int:
        """Validate, order and store *request*.

        Without changes it is valid at its snapshot: nothing is validated, and without a ledger entry nothing is written; the answer still waits
        until what it may have read is durable.

        :returns: the commit timestamp, once durable; for a read-only request its snapshot timestamp.
        :raises OccConflict: what it read was overtaken. A given ticket then owns the lane of the conflict, for the re-run.
        :raises Rerun: its snapshot saw commits that failed, or its ticket gave up to break a cycle; run it again.
        :raises StorageFailed: its group could not be written; it has not happened.
        :raises Overloaded: ``CommitterFullError``: the queue is full; ``ServerStopping``.
        Cancelling drops the answer; once pending, the commit still happens. Callers shield it.
        """
        self._check_open()
        ticket = request.lane
        if not (request.changes or request.extra_index_writes or request.meta):
            self._check_alive(request.snapshot_ts)
            if request.ledger is None:
                if ticket is not None:
                    ticket.release_all()
                if request.snapshot_ts > self.durable_ts:
                    await self.wait_durable(request.snapshot_ts)
                return request.snapshot_ts
            while self._recovering:
                await self._recovered.wait()
            self._check_open()
            self._check_alive(request.snapshot_ts)
            return await self._append(request, (), ticket)
        keys = written_keys(request.changes)
        if ticket is not None:
            await self._pass_lanes(request, keys, ticket)
            await self._validate_request(request)
            return await self._append(request, keys, ticket)
        ticket = self.lanes.ticket()
        try:
            await self._pass_lanes(request, keys, ticket)
            await self._validate_request(request)
            return await self._append(request, keys, ticket)
        finally:
            ticket.release_all()

    async def _pass_lanes(self, request: CommitRequest, keys: tuple[Point, ...], ticket: LaneTicket) -> None:
        """Wait until no other ticket owns a lane that this commit writes into, and no recovery is under way."""
        while True:
            if self._recovering:
                await self._recovered.wait()
                continue
            if ticket.gave_up:
                raise Rerun("The mutation made way for an older one.")
            lane = self.lanes.blocking(ticket, keys)
            if lane is None:
                break
            try:
                await ticket.enter(lane)
            except Rerun:
                if request.lane is not None:
                    raise
                # No run depends on the lanes of a ticket of ours, which are released: wait again, behind the others.
                ticket.keep_for_rerun()
        self._check_open()
        self._check_alive(request.snapshot_ts)

    async def _validate_request(self, request: CommitRequest) -> None:
        conflict = self.write_log.conflict(request.reads, request.snapshot_ts, self.pending_ts)
        if conflict is None:
            return
        if request.lane is None:
            self.lanes.mark(conflict)
        else:
            await self.lanes.after_conflict(request.lane, conflict)
        raise self._occ_conflict(conflict, request.writer)

    def _occ_conflict(self, conflict: ConflictInfo, own_path: str | None) -> OccConflict:
        table = document = writer = None
        if conflict.tablet is not None and conflict.id is not None:
            table, document = self.name_document(conflict.tablet, conflict.id)
        if conflict.writer is not None:
            writer = (
                "Another call to this mutation" if conflict.writer == own_path else f'A call to "{conflict.writer}"'
            )
        return OccConflict(table, document, writer)

    def validate(self, reads: ReadSet, since_ts: int) -> ConflictInfo | None:
        """The first overlap of *reads* with a commit in ``(since_ts, pending_ts]``, or ``None`` when they still hold."""
        return self.write_log.conflict(reads, since_ts, self.pending_ts)

    async def advance_to(self, ts: int) -> None:
        """Make ``durable_ts`` at least *ts*, by an empty commit if needed (A10).

        :raises ServerFault: *ts* is in the future.
        """
        while ts > self.durable_ts:
            if self._recovering:
                await self._recovered.wait()
                continue
            if ts > self.pending_ts and ts > self._clock.now_ns():
                raise ServerFault(f"Timestamp {ts} is in the future.")
            self._check_open()
            if ts <= self.pending_ts:
                try:
                    await self.wait_durable(ts)
                except Rerun:
                    continue  # those commits failed; an empty one takes their place
            else:
                await self._append(CommitRequest(self.pending_ts, ReadSet()), (), None, at_least=ts)

    async def wait_durable(self, ts: int) -> None:
        """Return when ``durable_ts`` has reached *ts*, which is not above ``pending_ts``.

        :raises Rerun: the pending commits up to *ts* have failed, now or before.
        Cancelling only stops the wait.
        """
        if ts > self.durable_ts:
            self._check_alive(ts)
            waiter: Deferred[None] = Deferred(_ignore_cancel)
            self._durable_waits.append((ts, waiter))
            await waiter

    def _check_open(self) -> None:
        if self._state == "running":
            return
        if self._state == "lost":
            raise StorageFailed
        raise Overloaded("ServerStopping", "The server is stopping. Try again later.")

    def _check_alive(self, snapshot_ts: int) -> None:
        for low, high in self._failed_ranges:
            if low < snapshot_ts <= high:
                raise Rerun("The snapshot saw commits that could not be made durable.")

    async def _append(
        self, request: CommitRequest, keys: tuple[Point, ...], ticket: LaneTicket | None, *, at_least: int = 0
    ) -> int:
        """Give the validated request its timestamp, publish it as pending, queue it, release the lanes of *ticket*.

        Nothing is awaited between validation and the queue: waking others earlier would let them commit in between.
        """
        size = request_bytes(request)
        limits = self.limits
        if self._waiting_commits() >= limits.queue_commits or (
            self._queued_bytes and self._queued_bytes + size > limits.queue_bytes
        ):
            self._refused_total.inc()
            raise Overloaded(
                "CommitterFullError",
                "Too many concurrent commits in a short period of time. Spread your writes out over time or throttle them "
                "to avoid errors.",
            )
        ts = max(next_timestamp(self._last_assigned, self._clock.now_ns()), at_least)
        before = self.pending_ts
        if request.resolve is not None:
            request = attrs.evolve(request, changes=request.resolve(request.changes, ts), resolve=None)
            keys = written_keys(request.changes)
        changes = request.changes
        event = CommitEvent(ts, changes, request.writer, keys)
        self._last_assigned = self.pending_ts = ts
        self.write_log.append(event)
        self.snapshots.append(event)
        try:
            for listener in self.on_pending:
                listener(event)
        except Exception as error:
            self._log.failure("a listener refused commit {ts}", ts=ts)
            self._drop_above(before, ts)
            raise ServerFault from error
        pending = _Pending(commit_rows(ts, request), event, size)
        self._queue.append(pending)
        self._queued_bytes += size
        if ticket is not None:
            ticket.release_all()
            if ticket.on_pending is not None:
                ticket.on_pending()
        if not self._writing:
            self._writing = True
            run_detached("the commit writer", self._write_groups())
        elif self._company is not None and self._has_company():
            self._company.callback(None)
        return await pending.waiter

    # Groups

    def _has_company(self) -> bool:
        return len(self._queue) >= self.siblings // GATHER_SHARE

    async def _gather(self) -> None:
        """Wait for more commits to share a group, if they are likely to come soon."""
        if not self._queue or self._has_company():
            return
        company: Deferred[None] = Deferred()
        self._company = company
        timer = self._reactor.callLater(GATHER_SECONDS, company.callback, None)
        await company
        self._company = None
        if timer.active():
            timer.cancel()

    def _take_group(self) -> list[_Pending]:
        queue, limits = self._queue, self.limits
        group: list[_Pending] = []
        size = 0
        while queue and len(group) < limits.group_commits:
            size += queue[0].bytes
            if group and size > limits.group_bytes:
                break
            group.append(queue.popleft())
        self._in_write = len(group)
        return group

    def _start_write(self, group: list[_Pending]) -> Deferred[None]:
        return from_coroutine(self._write(group))

    async def _write(self, group: list[_Pending]) -> None:
        started = self._reactor.seconds()
        await self.persistence.write([pending.commit for pending in group])
        if self._failing:
            self._failing = False
            self._log.info("commits can be written again")
        self._group_seconds.observe(self._reactor.seconds() - started)
        self._group_size.observe(len(group))

    async def _write_groups(self) -> None:
        """Write until the queue is empty. The next group is handed to the writer thread before the last one is published."""
        try:
            await self._gather()
            group = self._take_group()
            write = self._start_write(group)
            while group:
                try:
                    await write
                except Exception as error:  # noqa: BLE001 - any failure of the store takes the way of A5
                    group = await self._recover(group, error)
                    following: list[_Pending] = []
                else:
                    following = self._take_group() if self._has_company() else []
                    if following:
                        write = self._start_write(following)
                self._publish(group)
                if not following:
                    await self._gather()
                    following = self._take_group()
                    if following:
                        write = self._start_write(following)
                group = following
        except Exception as error:  # noqa: BLE001 - what the store holds was not published: nothing may follow
            self._log.failure("the commit writer failed", failure=Failure(error))
            self._lose(group, f"The committer failed ({error}); stopping.")
        finally:
            self._writing = False
            self._drained.fire(None)

    def _publish(self, group: list[_Pending]) -> None:
        """The group is in the file: tell the listeners, then answer."""
        if not group:
            return
        events = [pending.event for pending in group]
        self._queued_bytes -= sum(pending.bytes for pending in group)
        self._commits_total.inc(len(group))
        self.durable_ts = durable_ts = events[-1].ts
        self.snapshots.advance(durable_ts)
        self.write_log.prune(durable_ts)
        for listener in self.on_durable:
            try:
                listener(events)
            except Exception:  # noqa: BLE001 - the commits are durable; one listener's fault must not keep others from hearing
                self._log.failure("a listener failed on durable commits up to {ts}", ts=durable_ts)
        waits, self._durable_waits = self._durable_waits, deque()
        for pending in group:
            _answer(pending.waiter, pending.event.ts)
        for ts, waiter in waits:
            if ts <= durable_ts:
                _answer(waiter, None)
            else:
                self._durable_waits.append((ts, waiter))

    async def _recover(self, group: list[_Pending], error: Exception) -> list[_Pending]:
        """A group failed (A5): learn what is in the file, drop the rest.

        Until the store has answered, pending data stays readable, because the file may hold it; new commits wait.

        :returns: the commits of *group* that are in the file after all.
        """
        self._failures_total.inc()
        if self._failing:
            # One trace is enough: a full disk must not fill with them.
            self._log.error(
                "a group of {n} commits could not be written either: {error}", n=len(group), error=str(error)
            )
        else:
            self._failing = True
            self._log.failure("a group of {n} commits could not be written", failure=Failure(error), n=len(group))
        self._recovering = True
        try:
            last = await self.persistence.recover()
        except Exception as lost:  # noqa: BLE001 - whatever it is, the store is gone for this process
            self._log.failure("the store could not be reopened", failure=Failure(lost))
            self._lose(group, f"The database could not be reopened after a failed write ({lost}); stopping.")
            return []
        stored = [pending for pending in group if pending.event.ts <= last]
        if len(stored) < len(group):
            floor = stored[-1].event.ts if stored else self.durable_ts
            self._fail_pending(group[len(stored) :], floor)
        else:
            self._end_recovery()
        return stored

    def _lose(self, group: list[_Pending], reason: str) -> None:
        self._state = "lost"
        self._fail_pending(group, self.durable_ts)
        self._fatal(reason)

    def _fail_pending(self, lost: list[_Pending], floor: int) -> None:
        """Everything pending above *floor* is gone: the rest of the group, and all that was queued behind it."""
        lost = lost + list(self._queue)
        self._queue.clear()
        self._in_write = 0
        self._queued_bytes -= sum(pending.bytes for pending in lost)
        self._drop_above(floor, self._last_assigned)
        waits, self._durable_waits = self._durable_waits, deque()
        self._end_recovery()
        for pending in lost:
            _fail(pending.waiter, StorageFailed())
        for ts, waiter in waits:
            if ts > floor:
                _fail(waiter, Rerun("The snapshot saw commits that could not be made durable."))
            else:
                self._durable_waits.append((ts, waiter))

    def _end_recovery(self) -> None:
        self._recovering = False
        self._recovered.fire(None)

    def _drop_above(self, floor: int, highest: int) -> None:
        """Take back the pending commits in ``(floor, highest]``; their timestamps are not used again."""
        self._failed_ranges.append((floor, highest))
        self.pending_ts = floor
        self.write_log.drop_above(floor)
        self.snapshots.drop_above(floor)
        for listener in self.on_failed:
            try:
                listener(floor)
            except Exception:  # noqa: BLE001 - every listener must hear of it
                self._log.failure("a listener failed on dropped commits above {ts}", ts=floor)


def _answer(waiter: Deferred[Any], value: object) -> None:
    if not waiter.called:
        waiter.callback(value)


def _fail(waiter: Deferred[Any], error: Exception) -> None:
    if not waiter.called:
        waiter.errback(Failure(error))
