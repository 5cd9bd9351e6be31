"""What is loaded after the server listens."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from convex_backend.service.preload import DELAY_SECONDS, PAUSE_SECONDS, Preload


def counted(done: list[str], count: int) -> Iterator[None]:
    """*count* steps that write themselves down."""
    for number in range(count):
        done.append(f"step {number}")
        yield


def test_steps_run_one_at_a_time_after_a_delay() -> None:
    """Nothing at once; then a step per turn; then the end is told, and no timer is left."""
    clock, done = Clock(), list[str]()
    Preload(clock, counted(done, 2), lambda: done.append("done")).start()
    clock.advance(DELAY_SECONDS * 0.9)
    assert done == []
    clock.advance(DELAY_SECONDS * 0.1)
    assert done == ["step 0"]
    clock.advance(PAUSE_SECONDS)
    assert done == ["step 0", "step 1"]
    clock.advance(PAUSE_SECONDS)
    assert done == ["step 0", "step 1", "done"]
    assert not clock.getDelayedCalls()


def test_a_stop_ends_it() -> None:
    """Stopped before or between steps it loads nothing more; a second stop, or one after the end, does no harm."""
    for advanced in (0.0, DELAY_SECONDS):
        clock, done = Clock(), list[str]()
        preload = Preload(clock, counted(done, 5), partial(done.append, "done"))
        preload.start()
        clock.advance(advanced)
        before = list(done)
        preload.stop()
        preload.stop()
        clock.pump([1.0] * 10)
        assert done == before
        assert not clock.getDelayedCalls()


def test_an_error_is_logged_and_ends_it() -> None:
    """The server goes on without it."""

    def broken() -> Iterator[None]:
        yield
        raise ImportError("gone")

    clock, done = Clock(), list[str]()
    with capturedLogs() as events:
        Preload(clock, broken(), lambda: done.append("done")).start()
        clock.pump([DELAY_SECONDS] * 5)
    assert [event["log_failure"].getErrorMessage() for event in events] == ["gone"]
    assert done == []
    assert not clock.getDelayedCalls()
