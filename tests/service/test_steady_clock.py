"""The reactor's timers when the wall clock is set."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.selectreactor import SelectReactor

from convex_backend.service.steady_clock import use_steady_clock


class Clocks:
    """A wall clock that can be set, and one that cannot."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000.0
        self.steady = 50.0

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def reactor(clocks: Clocks) -> Iterator[SelectReactor]:
    made = SelectReactor()
    made.seconds = lambda: clocks.wall  # type: ignore[method-assign, assignment]
    yield made
    made.removeAll()
    made.waker.connectionLost(None)  # type: ignore[attr-defined]


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_timers_do_not_follow_the_wall_clock(clocks: Clocks, reactor: SelectReactor, step: float) -> None:
    """A timer fires after its seconds, whether the wall clock was set back or forward meanwhile; so does one that was set before the change."""
    fired: list[str] = []
    reactor.callLater(2, fired.append, "before")
    use_steady_clock(reactor, lambda: clocks.wall, lambda: clocks.steady)
    reactor.callLater(1, fired.append, "after")
    clocks.wall += step
    reactor.runUntilCurrent()
    assert fired == []
    clocks.pass_time(1.5)
    reactor.runUntilCurrent()
    assert fired == ["after"]
    clocks.pass_time(1)
    reactor.runUntilCurrent()
    assert fired == ["after", "before"]
