"""Removes contents that no file has: of deleted files, of uploads whose commit failed, and what a killed process left.

::

    commit deletes a _file_storage row ─► waits GRACE_SECONDS (who reads an older snapshot may still open it) ─► no row? ─► gone
    start, and every SWEEP_SECONDS      ─► every blob of one shard after the other: no row, not in use ─► gone

A blob is *in use* from the moment its writer exists until its rows are durable or will never be. While that is uncertain (they are in a mutation
that still runs, or in a commit whose end is not known) it is for PROTECTED_SECONDS more. A blob has a row when it has one at the newest durable
or at the newest pending commit. Steps are small, with pauses in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import orjson
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from convex_backend.application import file_records
from convex_backend.database.committer import CommitEvent
from convex_backend.database.system_tables import FILE_STORAGE
from convex_backend.deferreds import InFlight, run_detached
from convex_backend.interfaces import IBlobStore

if TYPE_CHECKING:
    from convex_backend.database.database import Database

#: How long a content stays after its file is gone.
GRACE_SECONDS: Final = 600.0
#: How long a mutation may take from the store of a file to its commit: far longer than any does.
PROTECTED_SECONDS: Final = 300.0
#: From one look at everything to the next.
SWEEP_SECONDS: Final = 6 * 3600.0

_TICK_SECONDS: Final = 15.0
_STEP_SECONDS: Final = 0.05
_STEP_BLOBS: Final = 100
#: Deleted files that are remembered one by one; beyond that the next sweep finds them.
_MAX_WAITING: Final = 100_000


class FileCollector:
    """See the top of the file.

    :param clock: timers and time.
    :param collected: called for each content that was removed.
    """

    _log = Logger()

    def __init__(
        self, database: Database, blobs: IBlobStore, clock: IReactorTime, collected: Callable[[], None]
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock
        self._collected = collected
        self._writing: set[str] = set()
        # When the protection of ended uploads is over, and when contents whose file is gone may go, by key, oldest first.
        self._recent: dict[str, float] = {}
        self._waiting: dict[str, float] = {}
        self._next_sweep = 0.0
        self._stopping = False
        self._loop = LoopingCall(self._tick)
        self._loop.clock = clock
        self._in_flight = InFlight()

    def start(self) -> None:
        """Begin with a look at everything."""
        self._next_sweep = self._clock.seconds()
        self._database.committer.on_durable.append(self._on_durable)
        self._loop.start(_TICK_SECONDS)

    async def stop(self) -> None:
        """Return when the step under way has ended."""
        self._stopping = True
        if self._loop.running:
            self._loop.stop()
        if self._on_durable in self._database.committer.on_durable:
            self._database.committer.on_durable.remove(self._on_durable)
        await self._in_flight.idle()

    def protect(self, key: str) -> None:
        """A content is being written."""
        self._writing.add(key)

    def release(self, key: str, *, uncertain: bool) -> None:
        """Its upload has ended.

        :param uncertain: rows for it may still be committed.
        """
        self._writing.discard(key)
        if uncertain:
            self._recent[key] = self._clock.seconds() + PROTECTED_SECONDS

    def suspect(self, key: str) -> None:
        """A content has probably no file."""
        if len(self._waiting) >= _MAX_WAITING:
            self._next_sweep = min(self._next_sweep, self._clock.seconds() + GRACE_SECONDS)
            return
        self._waiting.setdefault(key, self._clock.seconds() + GRACE_SECONDS)

    def _on_durable(self, events: list[CommitEvent]) -> None:
        for event in events:
            for change in event.changes:
                if change.tablet == FILE_STORAGE.tablet and change.new_json is None and change.old_json is not None:
                    self.suspect(orjson.loads(change.old_json)["blob"])

    def _tick(self) -> Deferred[None]:
        return run_detached("removal of contents of deleted files", self._work())

    async def _work(self) -> None:
        with self._in_flight:
            await self._collect()

    async def _collect(self) -> None:
        now = self._clock.seconds()
        _expired(self._recent, now)
        await self._remove(_expired(self._waiting, now))
        if self._next_sweep <= now and not self._stopping:
            self._next_sweep = now + SWEEP_SECONDS
            await self._sweep()

    async def _sweep(self) -> None:
        for shard in range(self._blobs.shards):
            if self._stopping:
                return
            await self._remove([key for key in await self._blobs.keys(shard) if key not in self._waiting])

    async def _remove(self, keys: list[str]) -> None:
        for start in range(0, len(keys), _STEP_BLOBS):
            for key in await self._orphans(keys[start : start + _STEP_BLOBS]):
                if await self._blobs.delete(key):
                    self._collected()
            if start + _STEP_BLOBS < len(keys):
                await deferLater(self._clock, _STEP_SECONDS)
            if self._stopping:
                return

    async def _orphans(self, keys: list[str]) -> list[str]:
        found = [key for key in keys if key not in self._writing and key not in self._recent]
        for kind in ("query", "system"):
            transaction = self._database.begin(kind)
            try:
                found = [key for key in found if not await file_records.is_referenced(transaction, key)]
            finally:
                transaction.close()
        return found


def _expired(times: dict[str, float], now: float) -> list[str]:
    """Take the keys whose time has come out of *times*, which has the earliest first."""
    found: list[str] = []
    for key, time in times.items():
        if time > now:
            break
        found.append(key)
    for key in found:
        del times[key]
    return found
