"""Coroutine helpers: where a coroutine meets a Deferred, and what cancellation means.

House rules: ``async def`` everywhere; a coroutine becomes a Deferred only at a framework border; whatever commits is shielded.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

T = TypeVar("T")
K = TypeVar("K")
_log = Logger()


def from_coroutine(coroutine: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    """Start *coroutine* now and return its Deferred."""
    return Deferred.fromCoroutine(coroutine)


def run_detached(what: str, coroutine: Coroutine[Deferred[Any], Any, Any]) -> Deferred[None]:
    """Start *coroutine* with nobody waiting: a failure is logged under the name *what*.

    :returns: fires with ``None`` when it has ended, however it ended.
    """

    def report(failure: Failure) -> None:
        if not failure.check(CancelledError):
            _log.failure("{what} failed", failure=failure, what=what)

    started: Deferred[Any] = Deferred.fromCoroutine(coroutine)
    started.addErrback(report)
    return started.addCallback(lambda _: None)


async def next_turn(reactor: IReactorTime) -> None:
    """Return in the reactor's next turn, when others have had theirs."""
    waiting: Deferred[None] = Deferred(lambda _: call.cancel())
    call = reactor.callLater(0, waiting.callback, None)
    await waiting


async def shield(coroutine: Coroutine[Deferred[Any], Any, T]) -> T:
    """Run *coroutine* to its end even if the caller is cancelled.

    Cancelling the caller raises ``CancelledError`` there at once; the work goes on and its later failure is logged.
    """
    outer: Deferred[T] = Deferred()
    inner: Deferred[T] = Deferred.fromCoroutine(coroutine)

    def forward(result: T | Failure) -> None:
        if not outer.called:
            if isinstance(result, Failure):
                outer.errback(result)
            else:
                outer.callback(result)
        elif isinstance(result, Failure):
            _log.failure("work failed after its caller was cancelled", failure=result)

    inner.addBoth(forward)
    return await outer


class Waiters(Generic[T]):
    """A one-shot event with any number of waiters, each with a Deferred of its own."""

    def __init__(self) -> None:
        self._waiting: list[Deferred[T]] = []

    def wait(self) -> Deferred[T]:
        """:returns: a Deferred that fires at the next :meth:`fire`; cancelling it leaves the others alone."""
        waiter: Deferred[T] = Deferred(self._forget)
        self._waiting.append(waiter)
        return waiter

    def _forget(self, waiter: Deferred[T]) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    def fire(self, value: T) -> None:
        """Wake everyone who waits now with *value*."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.called:  # else one that was woken before it has cancelled it
                waiter.callback(value)

    def fail(self, error: Exception) -> None:
        """Wake everyone who waits now with *error*."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.called:
                waiter.errback(Failure(error))

    def __len__(self) -> int:
        return len(self._waiting)


class Coalescer(Generic[K, T]):
    """Equal requests in flight share one run; each caller has a Deferred of its own."""

    def __init__(self) -> None:
        self._running: dict[K, Waiters[T]] = {}

    async def run(self, key: K, make: Callable[[], Awaitable[T]]) -> T:
        """Run ``make()`` unless a run for *key* is under way; then wait for that one.

        The first caller's cancellation does not end the shared run.
        """
        waiters = self._running.get(key)
        if waiters is None:
            waiters = self._running[key] = Waiters()
            waiter = waiters.wait()
            run_detached("coalesced run", self._run(key, waiters, make))
            return await waiter
        return await waiters.wait()

    async def _run(self, key: K, waiters: Waiters[T], make: Callable[[], Awaitable[T]]) -> None:
        try:
            result = await make()
        except Exception as error:  # noqa: BLE001 - handed to every waiter
            del self._running[key]
            waiters.fail(error)
        else:
            del self._running[key]
            waiters.fire(result)


class InFlight:
    """Counts work under way, so that a stop can wait for it."""

    def __init__(self) -> None:
        self.count = 0
        self._idle: Waiters[None] = Waiters()

    def __enter__(self) -> InFlight:
        self.count += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.count -= 1
        if self.count == 0:
            self._idle.fire(None)

    async def idle(self) -> None:
        """Return when nothing is under way."""
        while self.count:
            await self._idle.wait()
