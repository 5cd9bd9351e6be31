"""Retention: history behind the window is pruned in small steps behind a watermark (A11); so is the exactly-once ledger (A9).

::

    newest timestamp a window ago (age_marks) ─► watermark, stored first ─► steps, each a small transaction, with pauses as long as the steps

The watermark is stored before anything is pruned and never goes back, so nobody reads what may be gone, after a restart or with another
window either. A step is idempotent: a crash at any point leaves rows that the next step prunes. A longer window fills up from now on; a
shorter one leaves a backlog, which the same steps work off. The wall clock is believed only for the time that passes while no server runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from convex_backend.database.age_marks import AgeMarks
from convex_backend.database.background_steps import Pauses, Stopped
from convex_backend.database.committer import Clock, CommitRequest, Committer
from convex_backend.database.reads import ReadSet
from convex_backend.deferreds import InFlight, from_coroutine
from convex_backend.errors import ConvexError
from convex_backend.interfaces import IPersistence, StoreSize

_WATERMARK = "retention_watermark"
_MARKS = "retention_marks"
DAY_SECONDS = 86_400.0
#: A shorter window would prune under reads that are under way.
MIN_HISTORY_SECONDS = 60.0
_JUMP_SECONDS = 60.0
_FIRST_STEP_ROWS = 100
# A step longer than the second figure holds up commits: the next one is half as large. Documents may weigh from 100 bytes to 1 MB.
_STEP_SECONDS = (0.01, 0.03)


@attrs.frozen(slots=True)
class RetentionSettings:
    """What is kept.

    :param history_seconds: reads at a timestamp reach back this far.
    :param ledger_seconds: a mutation's answer is kept this long (A9), :param ledger_bytes: or until all take more than this,
        :param ledger_min_seconds: but never shorter than this.
    :param interval_seconds: time between turns; a short window has more.
    :param step_rows: rows deleted in one storage transaction, at most.
    """

    history_seconds: float = 2 * DAY_SECONDS
    ledger_seconds: float = 14 * DAY_SECONDS
    ledger_bytes: int = 256 * 1024 * 1024
    ledger_min_seconds: float = 3600.0
    interval_seconds: float = 30.0
    step_rows: int = 2000

    @property
    def turn_seconds(self) -> float:
        """Time between turns."""
        return min(self.interval_seconds, self.history_seconds / 6)


class Pin:
    """Keeps the history from ``ts`` on, for at most the window. Release it when done."""

    __slots__ = ("_loop", "expires_seconds", "ts")

    def __init__(self, loop: RetentionLoop, ts: int, expires_seconds: float) -> None:
        self._loop = loop
        self.ts = ts
        self.expires_seconds = expires_seconds

    def release(self) -> None:
        """Let go; a second call does nothing."""
        self._loop.unpin(self)


class _StepSize:
    """Rows of the next step: more after a quick one, fewer after a slow one."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.rows = min(_FIRST_STEP_ROWS, most)

    def took(self, seconds: float) -> None:
        if seconds < _STEP_SECONDS[0]:
            self.rows = min(self.rows * 2, self._most)
        elif seconds > _STEP_SECONDS[1]:
            self.rows = max(self.rows // 2, 1)


class RetentionLoop:
    """Prunes history and the ledger while the server runs.

    :param reactor: clock of the loop; it must not go back, and not jump (``service/steady_clock.py``).
    :param clock: wall time, looked at for the time that passed while no server ran.
    :param registry: where the metrics go.
    """

    _log = Logger()

    def __init__(
        self,
        persistence: IPersistence,
        committer: Committer,
        clock: Clock,
        reactor: IReactorTime,
        registry: CollectorRegistry,
        settings: RetentionSettings | None = None,
    ) -> None:
        self.settings = settings or RetentionSettings()
        self._persistence = persistence
        self._committer = committer
        self._clock = clock
        self._reactor = reactor
        self._pins: set[Pin] = set()
        self._work = InFlight()
        self._pauses = Pauses(reactor)
        self._own_ts = 0
        self._busy_ts = 0
        self._steady_start = 0.0
        self._started_seconds = 0.0
        self._ages: dict[str, AgeMarks] = {}
        self._dirty = False
        self._stored_at = (0.0, 0.0)
        self._step_sizes = {what: _StepSize(self.settings.step_rows) for what in ("history", "ledger")}
        self._loop = LoopingCall(self._turn)
        self._loop.clock = reactor
        self._make_metrics(registry)

    def _make_metrics(self, registry: CollectorRegistry) -> None:
        self._pruned_total = Counter(
            "convex_database_retention_pruned_total", "Rows pruned.", ["what"], registry=registry
        )
        Gauge(
            "convex_database_retention_watermark_seconds", "Unix time of the oldest readable state.", registry=registry
        ).set_function(lambda: self.watermark_ts / 1e9)
        self._sizes = {
            name: Gauge(f"convex_database_{name}", text, registry=registry)
            for name, text in (
                ("history_rows", "Rows of history in the file, about."),
                ("retention_backlog_rows", "Rows of history that are behind the watermark and not yet pruned, about."),
                ("file_bytes", "Size of the database file, without its write-ahead log."),
                ("file_free_bytes", "Part of the database file that is free for reuse."),
            )
        }

    @property
    def watermark_ts(self) -> int:
        """Reads below this fail with ``OutOfRetention``."""
        return self._committer.snapshots.watermark_ts

    @property
    def _steady_seconds(self) -> float:
        return self._steady_start + self._reactor.seconds() - self._started_seconds

    # Life

    def start(self) -> None:
        """Take up what was stored and begin. The committer has been started."""
        stored = self._persistence.get_meta(_WATERMARK)
        if stored is not None:
            self._committer.snapshots.watermark_ts = int(stored)
        self._started_seconds = self._reactor.seconds()
        self._take_up_marks(self._persistence.get_meta(_MARKS))
        self._loop.start(self.settings.turn_seconds, now=False)

    def _take_up_marks(self, stored: bytes | None) -> None:
        settings = self.settings
        ages = {
            "history": settings.history_seconds,
            "ledger": settings.ledger_seconds,
            "ledger_min": settings.ledger_min_seconds,
        }
        newest = self._committer.durable_ts
        self._stored_at = (0.0, self._clock.now_ns() / 1e9)
        if stored is None:
            self._ages = {name: AgeMarks.assumed(age, 0.0, newest) for name, age in ages.items()}
        else:
            state = orjson.loads(stored)
            # How long no server ran only the wall clock knows. One that went back has let no time pass.
            stopped = max(self._clock.now_ns() - state["wall_ns"], 0) / 1e9
            self._steady_start = state["steady_seconds"] + stopped
            # What was stored is of before the stop: unless the clock went back, it agrees with the present.
            self._stored_at = (state["steady_seconds"], state["wall_ns"] / 1e9)
            self._ages = {
                name: AgeMarks(age, [(seconds, ts) for seconds, ts in state["marks"].get(name, ()) if ts <= newest])
                for name, age in ages.items()
            }
        for marks in self._ages.values():
            marks.add(self._steady_start, newest)

    async def stop(self) -> None:
        """Stop, and return when the step under way has ended."""
        if self._loop.running:
            self._loop.stop()
        self._pauses.stop()
        await self._work.idle()
        if self._ages and self._clock_has_jumped(self._steady_seconds):
            # Since the last turn: the next start would take the jump for time in which no server ran.
            try:
                await self._move_watermark()
            except ConvexError as error:
                self._log.warn("retention could not store a jump of the clock: {error}", error=error)

    # Pins

    def pin(self, ts: int) -> Pin:
        """Keep what a long read (an export) at *ts* needs. The pin lapses after the window; the read then fails with ``OutOfRetention``."""
        pin = Pin(self, ts, self._steady_seconds + self.settings.history_seconds)
        self._pins.add(pin)
        return pin

    def unpin(self, pin: Pin) -> None:
        """Same as ``pin.release()``."""
        self._pins.discard(pin)

    # Turns

    def _turn(self) -> Any:
        return from_coroutine(self._guarded_turn())

    async def _guarded_turn(self) -> None:
        with self._work:
            try:
                await self.run_once()
            except ConvexError as error:
                self._log.warn("retention could not prune: {error}", error=error)
            except Exception:  # noqa: BLE001 - the next turn tries again
                self._log.failure("retention failed")

    async def run_once(self) -> None:
        """One turn: move the watermark, then prune in bounded steps until nothing is left, however long that takes."""
        more = True
        while more and not self._pauses.stopped:
            await self._move_watermark()
            await self._measure()
            settings, steady = self.settings, self._steady_seconds
            ledger_ts, keep_ts = self._ages["ledger"].at_age(steady), self._ages["ledger_min"].at_age(steady)
            until = self._reactor.seconds() + settings.turn_seconds
            more = await self._prune(
                "ledger",
                until,
                lambda rows: self._persistence.prune_ledger(ledger_ts, settings.ledger_bytes, keep_ts, rows),  # noqa: B023
            )
            more |= await self._prune(
                "history", until, lambda rows: self._persistence.prune_history(self.watermark_ts, rows)
            )
        await self._measure()

    async def _move_watermark(self) -> None:
        """Note the newest timestamp, and raise the watermark to what was the newest a window ago."""
        durable_ts, steady = self._committer.durable_ts, self._steady_seconds
        # The commit of an earlier move is no reason for another: an idle server stays idle.
        if durable_ts != self._own_ts:
            self._busy_ts = durable_ts
        for marks in self._ages.values():
            self._dirty |= marks.add(steady, self._busy_ts)
        self._dirty |= self._clock_has_jumped(steady)
        target = self._ages["history"].at_age(steady)
        for pin in list(self._pins):
            if pin.expires_seconds <= steady:
                self._pins.discard(pin)
            else:
                target = min(target, pin.ts)
        if target <= self.watermark_ts and not self._dirty:
            return
        target = max(target, self.watermark_ts)
        wall_ns = self._clock.now_ns()
        meta = ((_WATERMARK, b"%d" % target), (_MARKS, self._stored_marks(steady, wall_ns)))
        alone = self._committer.pending_ts == durable_ts
        self._own_ts = await self._committer.commit(CommitRequest(durable_ts, ReadSet(), meta=meta))
        if not alone:
            self._busy_ts = self._own_ts
        self._dirty = False
        self._stored_at = (steady, wall_ns / 1e9)
        self._committer.snapshots.watermark_ts = target

    def _clock_has_jumped(self, steady: float) -> bool:
        """Whether the wall clock has been set since the state was stored: a restart would take the jump for time that has passed."""
        passed = self._clock.now_ns() / 1e9 - self._stored_at[1]
        return abs(passed - (steady - self._stored_at[0])) > _JUMP_SECONDS

    def _stored_marks(self, steady: float, wall_ns: int) -> bytes:
        marks = {name: marks.rows for name, marks in self._ages.items()}
        return orjson.dumps({"steady_seconds": steady, "wall_ns": wall_ns, "marks": marks})

    async def _prune(self, what: str, until: float, step: Callable[[int], Awaitable[int]]) -> bool:
        """Take steps until nothing is left or it is *until*. :returns: whether something is left."""
        size = self._step_sizes[what]
        while not self._pauses.stopped:
            rows, began = size.rows, self._reactor.seconds()
            deleted = await step(rows)
            took = self._reactor.seconds() - began
            self._pruned_total.labels(what).inc(deleted)
            if deleted < rows:
                return False
            size.took(took)
            if took:
                # Leave the writer to the commits for as long as the step took: pruning takes at most half of its time.
                try:
                    await self._pauses.sleep(took)
                except Stopped:
                    break
            if self._reactor.seconds() > until:
                break
        return not self._pauses.stopped

    async def _measure(self) -> None:
        size: StoreSize = await self._persistence.measure(self.watermark_ts)
        for name, value in (
            ("history_rows", size.history_rows),
            ("retention_backlog_rows", size.prunable_rows),
            ("file_bytes", size.file_bytes),
            ("file_free_bytes", size.free_bytes),
        ):
            self._sizes[name].set(value)
