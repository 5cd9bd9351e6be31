"""Waiters: each has a Deferred of its own."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from convex_backend.deferreds import Waiters


def test_a_waiter_that_another_one_cancels_holds_up_nobody() -> None:
    """When the first to be woken cancels the second, the third still wakes."""
    waiters: Waiters[int] = Waiters()
    woken: list[object] = []
    first, second, third = (waiters.wait() for _ in range(3))
    first.addCallback(lambda _: second.cancel())
    second.addErrback(lambda failure: woken.append(failure.type.__name__))
    third.addCallback(woken.append)
    waiters.fire(7)
    assert woken == ["CancelledError", 7]


def test_a_failure_reaches_everyone_who_still_waits() -> None:
    """Likewise for failures; who was cancelled before hears nothing."""
    waiters: Waiters[int] = Waiters()
    heard: list[str] = []
    gone: Deferred[int] = waiters.wait()
    gone.addErrback(lambda failure: heard.append(failure.type.__name__))
    rest = [waiters.wait() for _ in range(2)]
    for waiter in rest:
        waiter.addErrback(lambda failure: heard.append(failure.type.__name__))
    gone.cancel()
    waiters.fail(KeyError("x"))
    assert heard == ["CancelledError", "KeyError", "KeyError"]
    assert len(waiters) == 0
