"""Makes the reactor's timers deaf to the setting of the wall clock.

Twisted's reactor takes its time from ``time.time``. When an administrator, NTP or a resumed virtual machine sets that back, every timer under way
is late by as much (commits that wait for company would hang for an hour); set forward, everything times out at once. What needs the wall clock
(commit timestamps, jobs, tokens) asks for it by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def use_steady_clock(
    reactor: Any, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic
) -> None:
    """Let *reactor* count seconds from now on as *steady* does, so that timers that are set already still fire when they should.

    :param reactor: a ``ReactorBase``. :param wall: what it has used so far, seconds. :param steady: seconds that only go forward.
    """
    offset = wall() - steady()
    reactor.seconds = lambda: steady() + offset
