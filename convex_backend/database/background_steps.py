"""What long background work over a table shares: steps of bounded size, and pauses between them that a stop cuts short."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from convex_backend.errors import OccConflict, Overloaded, Rerun, ServerFault
from convex_backend.interfaces import Row

#: Rows of one step at most; about 5 ms of the reactor's time if they are small.
STEP_ROWS = 200
#: JSON text that a step should read at most.
STEP_BYTES: Final = 256 * 1024
PAUSE_SECONDS: Final = 0.002
#: What a step is tried again after: a conflict, or a store that is busy or fails.
RETRIED: Final = (OccConflict, Rerun, Overloaded, ServerFault)
RETRY_SECONDS: Final = 1.0
_FIRST_ROWS: Final = 25


class StepSize:
    """How many rows the next step takes: few at first, then what is likely to stay within :data:`STEP_BYTES`."""

    __slots__ = ("rows",)

    def __init__(self) -> None:
        self.rows = min(_FIRST_ROWS, STEP_ROWS)

    def took(self, rows: Sequence[Row]) -> None:
        """A step has read these."""
        if rows:
            fitting = STEP_BYTES * len(rows) // max(1, sum(len(row.json) for row in rows))
            self.rows = max(1, min(STEP_ROWS, self.rows * 2, fitting))


class Stopped(Exception):
    """Background work was told to end."""


class Pauses:
    """Sleeps that a stop cuts short."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._timer: IDelayedCall | None = None
        self._sleeping: Deferred[None] | None = None
        self.stopped = False

    async def sleep(self, seconds: float) -> None:
        """:raises Stopped: when told to end."""
        if self.stopped:
            raise Stopped
        self._sleeping = Deferred()
        self._timer = self._reactor.callLater(seconds, self._wake)
        await self._sleeping
        if self.stopped:
            raise Stopped

    def _wake(self) -> None:
        sleeping, self._sleeping, self._timer = self._sleeping, None, None
        if sleeping is not None:
            sleeping.callback(None)

    def stop(self) -> None:
        """End the present sleep and refuse further ones."""
        self.stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._wake()
