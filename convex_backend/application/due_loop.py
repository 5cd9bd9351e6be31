"""Runs what is due: rows of a system table with a ``state`` and a time ``at``, in the order of time, so many at once.

::

    commit that adds a row ─┐
    timer of the next row ──┼─► turn: read what is due ─► start one for each free place ─► ended (or held for a while) ─┐
    a place became free ────┘                  ▲                                                                      │
                                               └──────────────────────────────────────────────────────────────────────┘

A row is pending until its own run changes it: while that is under way, and while it is held, it is passed over. The rows read ahead are bounded;
nothing is kept of those that are not due. Used for scheduled functions and for cron jobs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, Gauge, Histogram
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from convex_backend.deferreds import InFlight, from_coroutine, run_detached
from convex_backend.errors import ConvexError
from convex_backend.values.json_codec import loads

if TYPE_CHECKING:
    from convex_backend.database.committer import CommitEvent
    from convex_backend.database.database import Database
    from convex_backend.database.system_rows import SystemRow
    from convex_backend.database.system_tables import SystemTable

PENDING: Final = "pending"
_PENDING_TEXT: Final = b'"pending"'
_READ_AHEAD: Final = 64
#: The wall clock may be set: nobody sleeps for longer than this.
_LONGEST_SLEEP_SECONDS: Final = 60.0
#: After a failure of the loop itself (the database refuses to be read).
_RETRY_SECONDS: Final = 1.0
#: A timer may fire a rounding error before a hold ends: what is left is not waited for in turns of no length.
_SHORTEST_HOLD_SECONDS: Final = 0.001
_LAG_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

Run = Callable[["SystemRow"], Awaitable[None]]


class DueLoop:
    """See the top of the file.

    :param name: for metrics and the log: ``scheduler`` or ``cron``.
    :param table: has an index ``by_time`` over ``state`` and ``at`` (unix nanoseconds).
    :param run: runs one row; when it ends well the row is no longer pending, or is held.
    :param parallelism: rows that run at once.
    :param is_paused: whether nothing may be started now; call :meth:`wake` when that is over.
    :param reactor: clock of timers. :param now_ns: wall clock.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        *,
        database: Database,
        table: SystemTable,
        run: Run,
        parallelism: int,
        is_paused: Callable[[], bool],
        reactor: IReactorTime,
        now_ns: Callable[[], int],
        registry: CollectorRegistry,
    ) -> None:
        self._name = name
        self._database = database
        self._table = table
        self._run = run
        self._parallelism = parallelism
        self._is_paused = is_paused
        self._reactor = reactor
        self._now_ns = now_ns
        self._ready: deque[SystemRow] = deque()
        self._running: dict[bytes, Deferred[None]] = {}
        #: until when, by the reactor's clock: a back-off is not longer because the wall clock was set back
        self._held: dict[bytes, float] = {}
        self._in_flight = InFlight()
        self._timer: IDelayedCall | None = None
        #: when the timer fires, or when something known is due
        self._wake_ns: int | None = None
        self._following = False
        self._turning = False
        self._again = False
        self._stopping = False
        self._lag = Histogram(
            f"convex_{name}_start_lag_seconds",
            "From the time when a run was due to its start.",
            buckets=_LAG_BUCKETS,
            registry=registry,
        )
        Gauge(
            f"convex_{name}_lag_seconds", "Age of the oldest run that is due and has not started.", registry=registry
        ).set_function(self.lag_seconds)
        Gauge(f"convex_{name}_running", "Runs under way.", registry=registry).set_function(lambda: len(self._running))

    def lag_seconds(self) -> float:
        """For how long the oldest run that is due has waited."""
        if not self._ready:
            return 0.0
        waited: float = (self._now_ns() - self._ready[0][1]["at"]) / 1e9
        return max(0.0, waited)

    def start(self) -> None:
        """Begin. The database has been started."""
        self._database.committer.on_durable.append(self._on_durable)
        self._following = True
        self.wake()

    async def stop(self) -> None:
        """Start nothing more and return when the runs under way have ended. Cancelling cancels them."""
        self._stopping = True
        if self._following:
            self._following = False
            self._database.committer.on_durable.remove(self._on_durable)
        self._disarm()
        try:
            await self._in_flight.idle()
        except CancelledError:
            for running in list(self._running.values()):
                running.cancel()
            raise

    def hold(self, row: bytes, seconds: float) -> None:
        """Pass the row over for a while."""
        self._held[row] = self._reactor.seconds() + seconds

    def wake(self) -> None:
        """Something may be due, or may run again."""
        if self._stopping or not self._following:
            return
        if self._turning:
            self._again = True
            return
        self._turning = True
        run_detached(f"the {self._name} loop", self._turns())

    def _on_durable(self, events: list[CommitEvent]) -> None:
        tablet = self._table.tablet
        earliest: int | None = None
        for event in events:
            for change in event.changes:
                json = change.new_json
                if change.tablet == tablet and json is not None and _PENDING_TEXT in json:
                    row: Any = loads(json)
                    if row["state"] == PENDING and (earliest is None or row["at"] < earliest):
                        earliest = row["at"]
        if earliest is not None and (self._wake_ns is None or earliest < self._wake_ns):
            self._wake_at(earliest)

    # -- turns --------------------------------------------------------------------------------------

    async def _turns(self) -> None:
        with self._in_flight:
            try:
                while True:
                    self._again = False
                    await self._turn()
                    if not self._again or self._stopping:
                        return
            except ConvexError as error:
                if not self._stopping:
                    self._log.warn("the {name} could not look for what is due: {error}", name=self._name, error=error)
                self._wake_at(self._now_ns() + int(_RETRY_SECONDS * 1e9))
            except Exception:  # noqa: BLE001 - a fault of ours; the loop must go on
                self._log.failure("the {name} could not look for what is due", name=self._name)
                self._wake_at(self._now_ns() + int(_LONGEST_SLEEP_SECONDS * 1e9))
            finally:
                self._turning = False

    async def _turn(self) -> None:
        while not self._stopping and not self._is_paused() and len(self._running) < self._parallelism:
            if not self._ready and not await self._read():
                return
            row = self._ready.popleft()
            if row[0] not in self._running and not self._is_held(row[0]):
                self._launch(row)

    async def _read(self) -> bool:
        """Read what is due. :returns: whether there is something; else the timer is set to when there will be."""
        self._disarm()
        transaction = self._database.begin("query")
        try:
            limit = _READ_AHEAD + len(self._running) + len(self._held)
            rows = await transaction.system.scan(self._table.name, "by_time", (PENDING,), limit)
        finally:
            transaction.close()
        now = self._now_ns()
        seconds = self._reactor.seconds()
        self._held = {row_id: until for row_id, until in self._held.items() if until > seconds}
        for row in rows:
            row_id, due = row[0], row[1]["at"]
            if due > now:
                self._wake_at(due)
                break
            if row_id not in self._running and not self._is_held(row_id):
                self._ready.append(row)
        if self._held:
            left = max(min(self._held.values()) - seconds, _SHORTEST_HOLD_SECONDS)
            self._wake_at(now + int(left * 1e9))
        return bool(self._ready)

    def _is_held(self, row: bytes) -> bool:
        until = self._held.get(row)
        if until is None:
            return False
        if until > self._reactor.seconds():
            return True
        del self._held[row]
        return False

    def _launch(self, row: SystemRow) -> None:
        self._lag.observe(max(0, self._now_ns() - row[1]["at"]) / 1e9)
        row_id = row[0]
        running = self._running[row_id] = from_coroutine(self._run_one(row))
        if running.called:
            self._running.pop(row_id, None)
        running.addErrback(lambda failure: failure.trap(CancelledError) and None)

    async def _run_one(self, row: SystemRow) -> None:
        with self._in_flight:
            try:
                await self._run(row)
            except CancelledError:
                raise
            except Exception:  # noqa: BLE001 - a fault of ours; the others must go on
                self._log.failure("a run of the {name} failed", name=self._name)
                self.hold(row[0], _LONGEST_SLEEP_SECONDS)
            finally:
                self._running.pop(row[0], None)
                self.wake()

    # -- timer --------------------------------------------------------------------------------------

    def _wake_at(self, at_ns: int) -> None:
        if self._stopping or (self._wake_ns is not None and self._wake_ns <= at_ns):
            return
        self._disarm()
        self._wake_ns = at_ns
        seconds = min(max(0.0, (at_ns - self._now_ns()) / 1e9), _LONGEST_SLEEP_SECONDS)
        self._timer = self._reactor.callLater(seconds, self._fire)

    def _fire(self) -> None:
        self._timer = self._wake_ns = None
        self.wake()

    def _disarm(self) -> None:
        timer, self._timer, self._wake_ns = self._timer, None, None
        if timer is not None and timer.active():
            timer.cancel()
