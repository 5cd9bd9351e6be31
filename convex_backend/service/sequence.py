"""A service whose parts start one after the other and stop in reverse, each awaited.

Twisted's ``MultiService`` awaits nothing at start and stops all children at once; a server that has to drain needs order.

::

    startService   a ──► b ──► c          a part that fails stops those before it, in reverse, and the failure is the result
    stopService    c ──► b ──► a          one deadline over all; a part that overruns is cancelled and the next one begins
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import attrs
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from convex_backend.deferreds import Waiters, from_coroutine

_log = Logger()
_SLOW_STOP_SECONDS = 1.0


async def nothing() -> None:
    """For a part that has nothing to do at start or at stop."""


@attrs.frozen(slots=True)
class Part:
    """One part of a sequence.

    :param name: for the log.
    :param start: run once; may be cancelled when the server is stopped while it starts.
    :param stop: run once, only if ``start`` ended well; cancelled when its time is over, and must then give up at once.
    :param stop_seconds: the most that ``stop`` gets, however much of the whole is left; ``None`` for no limit of its own.
    """

    name: str
    start: Callable[[], Awaitable[None]] = nothing
    stop: Callable[[], Awaitable[None]] = nothing
    stop_seconds: float | None = None


class SequencedService(Service):
    """Starts *parts* in order, stops them in reverse.

    :param clock: for the deadline.
    :param parts: in the order of their start.
    :param stop_seconds: for the whole stop.
    :param grace_seconds: what each part gets even when the deadline has passed, so that the last ones (children, the file) still end well.
    :param failed: called with the error when a part does not start, after the parts before it have been stopped.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        parts: Sequence[Part],
        failed: Callable[[Exception], None],
        *,
        stop_seconds: float = 20.0,
        grace_seconds: float = 6.0,
    ) -> None:
        self._clock = clock
        self._parts = tuple(parts)
        self._stop_seconds = stop_seconds
        self._grace_seconds = grace_seconds
        self._failed = failed
        self._started: list[Part] = []
        self._booting: Deferred[Exception | None] | None = None
        self._stopping = False
        self._stopped: Waiters[None] = Waiters()

    def startService(self) -> None:
        """Begin to start the parts; returns at once, as Twisted wants it."""
        super().startService()  # type: ignore[no-untyped-call]
        self._booting = from_coroutine(self._boot())
        self._booting.addCallback(self._booted)

    async def _boot(self) -> Exception | None:
        for part in self._parts:
            try:
                await part.start()
            except CancelledError:
                self._log.info("the start of {part} was cut off by a stop", part=part.name)
                return None
            except Exception as error:  # noqa: BLE001 - whatever it is, the owner decides what to say
                return error
            self._started.append(part)
        return None

    def _booted(self, error: Exception | None) -> None:
        self._booting = None
        if error is not None:
            stopped = from_coroutine(self._stop())
            stopped.addCallback(lambda _: self._failed(error))
            stopped.addErrback(lambda failure: self._log.failure("could not report a failed start", failure=failure))

    def stopService(self) -> Deferred[None]:
        """:returns: fires when every part that was started has stopped or has used up its time; never fails."""
        super().stopService()  # type: ignore[no-untyped-call]
        return from_coroutine(self._stop())

    async def _stop(self) -> None:
        if self._stopping:
            if self._started:
                await self._stopped.wait()
            return
        self._stopping = True
        if self._booting is not None:
            self._booting.cancel()
        deadline = self._clock.seconds() + self._stop_seconds
        while self._started:
            await self._stop_part(self._started[-1], deadline)
            self._started.pop()
        self._stopped.fire(None)

    async def _stop_part(self, part: Part, deadline: float) -> None:
        began = self._clock.seconds()
        seconds = max(deadline - began, self._grace_seconds)
        if part.stop_seconds is not None:
            seconds = min(seconds, part.stop_seconds)
        try:
            in_time = await within(self._clock, seconds, part.stop)
        except Exception:  # noqa: BLE001 - logged; the other parts must still stop
            self._log.failure("{part} failed to stop", part=part.name)
            return
        seconds = self._clock.seconds() - began
        if not in_time:
            self._log.warn("{part} did not stop within {seconds:.1f}s", part=part.name, seconds=seconds)
        elif seconds > _SLOW_STOP_SECONDS:
            self._log.info("{part} took {seconds:.1f}s to stop", part=part.name, seconds=seconds)


async def within(clock: IReactorTime, seconds: float, function: Callable[[], Awaitable[None]]) -> bool:
    """Run ``function()`` for at most *seconds*, then cancel it and go on, whether it heeds that or not.

    :returns: whether it ended in time.
    :raises Exception: what it raised in time; what it raises after that is logged.
    """
    outcome: Deferred[bool] = Deferred()
    over = False

    async def run() -> None:
        await function()

    def ended(result: object) -> None:
        if over:
            if isinstance(result, Failure) and not result.check(CancelledError):
                _log.failure("failed after its time was over", failure=result)
        elif isinstance(result, Failure):
            outcome.errback(result)
        else:
            outcome.callback(True)

    def give_up() -> None:
        nonlocal over
        over = True
        running.cancel()

    def expire() -> None:
        give_up()
        outcome.callback(False)

    running: Deferred[None] = from_coroutine(run())
    running.addBoth(ended)
    if outcome.called:
        return await outcome
    timer = clock.callLater(seconds, expire)
    try:
        return await outcome
    except CancelledError:
        # Nobody waits any more. Our own work cannot be the reason: it would have ended.
        if not running.called:
            give_up()
        raise
    finally:
        if timer.active():
            timer.cancel()
