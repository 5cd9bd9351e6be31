"""Loads, while the server has nothing else to do, what no answer has needed so far.

A start loads only what the first answer needs. The rest follows a little after "listening", in steps of a few milliseconds with room for
requests between them. Whoever needs a part earlier loads it there and then; its step has nothing left to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

#: Seconds. Clients that have waited for the server come in the first moments.
DELAY_SECONDS = 0.5
PAUSE_SECONDS = 0.01


class Preload:
    """Runs *steps* one by one.

    :param clock: timers.
    :param steps: each item is one step; an error ends the loading and is logged, since who needs the part will meet it again.
    :param done: called after the last step.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, steps: Iterator[None], done: Callable[[], None]) -> None:
        self._clock = clock
        self._steps = steps
        self._done = done
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """Begin after :data:`DELAY_SECONDS`."""
        self._timer = self._clock.callLater(DELAY_SECONDS, self._step)

    def stop(self) -> None:
        """Load nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _step(self) -> None:
        self._timer = None
        try:
            next(self._steps)
        except StopIteration:
            self._done()
        except Exception:  # noqa: BLE001 - the server goes on; the cause is logged
            self._log.failure("a part of the server could not be loaded ahead of its use")
        else:
            self._timer = self._clock.callLater(PAUSE_SECONDS, self._step)
