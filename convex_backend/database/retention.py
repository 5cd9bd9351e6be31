"""Retention: history behind the window is pruned in small steps behind a watermark (A11).

The watermark is stored before anything is pruned, so that after a restart, with whatever window, nobody reads below it. The step is idempotent:
a crash at any point leaves rows that the next pass prunes. The exactly-once ledger is pruned by age and bytes (A9).
"""

from __future__ import annotations

from typing import Any

import attrs
from prometheus_client import CollectorRegistry, Counter, Gauge
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from convex_backend.database.committer import Clock, CommitRequest, Committer
from convex_backend.database.reads import ReadSet
from convex_backend.database.timestamps import NANOSECONDS_PER_MILLISECOND, seconds_to_ns
from convex_backend.deferreds import InFlight, from_coroutine
from convex_backend.errors import ConvexError
from convex_backend.interfaces import IPersistence

_WATERMARK = "retention_watermark"
DAY_SECONDS = 86_400.0
_STEPS_PER_TURN = 20


@attrs.frozen(slots=True)
class RetentionSettings:
    """What is kept.

    :param history_seconds: reads at a timestamp reach back this far.
    :param ledger_seconds: a mutation's answer is kept this long (A9), :param ledger_bytes: or until all take more than this,
        :param ledger_min_seconds: but never shorter than this.
    :param interval_seconds: time between turns.
    :param step_rows: rows deleted in one storage transaction.
    """

    history_seconds: float = 2 * DAY_SECONDS
    ledger_seconds: float = 14 * DAY_SECONDS
    ledger_bytes: int = 256 * 1024 * 1024
    ledger_min_seconds: float = 3600.0
    interval_seconds: float = 30.0
    step_rows: int = 500


class Pin:
    """Keeps the history from ``ts`` on, for at most the window. Release it when done."""

    __slots__ = ("_loop", "expires_ts", "ts")

    def __init__(self, loop: RetentionLoop, ts: int, expires_ts: int) -> None:
        self._loop = loop
        self.ts = ts
        self.expires_ts = expires_ts

    def release(self) -> None:
        """Let go; a second call does nothing."""
        self._loop.unpin(self)


class RetentionLoop:
    """Prunes history and the ledger while the server runs.

    :param reactor: clock of the loop.
    :param clock: wall time.
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
        self._pins: set[Pin] = set()
        self._work = InFlight()
        self._stopping = False
        self._own_ts = 0
        self._loop = LoopingCall(self._turn)
        self._loop.clock = reactor
        self._pruned_total = Counter(
            "convex_database_retention_pruned_total", "Rows pruned.", ["what"], registry=registry
        )
        Gauge(
            "convex_database_retention_watermark_seconds", "Unix time of the oldest readable state.", registry=registry
        ).set_function(lambda: self.watermark_ts / 1e9)

    @property
    def watermark_ts(self) -> int:
        """Reads below this fail with ``OutOfRetention``."""
        return self._committer.snapshots.watermark_ts

    def start(self) -> None:
        """Take up the stored watermark and begin. The committer has been started."""
        stored = self._persistence.get_meta(_WATERMARK)
        if stored is not None:
            self._committer.snapshots.watermark_ts = int(stored)
        self._loop.start(self.settings.interval_seconds, now=False)

    async def stop(self) -> None:
        """Stop, and return when the step under way has ended."""
        self._stopping = True
        if self._loop.running:
            self._loop.stop()
        await self._work.idle()

    def pin(self, ts: int) -> Pin:
        """Keep what a long read (an export) at *ts* needs. The pin lapses after the window; the read then fails with ``OutOfRetention``."""
        pin = Pin(self, ts, self._committer.durable_ts + seconds_to_ns(self.settings.history_seconds))
        self._pins.add(pin)
        return pin

    def unpin(self, pin: Pin) -> None:
        """Same as ``pin.release()``."""
        self._pins.discard(pin)

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
        """One turn: move the watermark, then prune in bounded steps until nothing is left or the turn is used up."""
        await self._move_watermark()
        await self._prune(
            "history", lambda: self._persistence.prune_history(self.watermark_ts, self.settings.step_rows)
        )
        settings = self.settings
        now_ms = self._clock.now_ns() // NANOSECONDS_PER_MILLISECOND
        older_than_ms = now_ms - int(settings.ledger_seconds * 1000)
        keep_after_ms = now_ms - int(settings.ledger_min_seconds * 1000)
        await self._prune(
            "ledger",
            lambda: self._persistence.prune_ledger(
                older_than_ms, settings.ledger_bytes, keep_after_ms, settings.step_rows
            ),
        )

    async def _move_watermark(self) -> None:
        durable_ts = self._committer.durable_ts
        target = durable_ts - seconds_to_ns(self.settings.history_seconds)
        for pin in list(self._pins):
            if pin.expires_ts <= durable_ts:
                self._pins.discard(pin)
            else:
                target = min(target, pin.ts)
        # A move is a commit: only one that pays is made, and none because of the last one (an idle server stays idle).
        if durable_ts == self._own_ts or target - self.watermark_ts < seconds_to_ns(self.settings.interval_seconds):
            return
        meta = ((_WATERMARK, b"%d" % target),)
        self._own_ts = await self._committer.commit(CommitRequest(durable_ts, ReadSet(), meta=meta))
        self._committer.snapshots.watermark_ts = target

    async def _prune(self, what: str, step: Any) -> None:
        for _ in range(_STEPS_PER_TURN):
            if self._stopping:
                return
            deleted = await step()
            self._pruned_total.labels(what).inc(deleted)
            if deleted < self.settings.step_rows:
                return
