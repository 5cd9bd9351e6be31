"""What systemd wants to hear: readiness, stopping, and a sign of life. Without systemd all of it does nothing.

::

    ──► NOTIFY_SOCKET   READY=1        once, when the listeners are open
    ──► NOTIFY_SOCKET   WATCHDOG=1     at half of WATCHDOG_USEC, only after the committer has answered
    ──► NOTIFY_SOCKET   STOPPING=1     at the begin of a stop
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from convex_backend.deferreds import from_coroutine
from convex_backend.service.sequence import within


class Notifier:
    """Sends states to systemd.

    :param environment: where ``NOTIFY_SOCKET`` is looked up.
    """

    _log = Logger()

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # "@" stands for the zero byte of an abstract socket.
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def notify(self, state: str) -> bool:
        """Send *state*, for instance ``READY=1``.

        :returns: whether there was somebody to tell.
        """
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                # A datagram to a full socket must not hold the reactor.
                sender.setblocking(False)
                sender.sendto(state.encode(), self._address)
        except OSError as error:
            self._log.warn("could not tell systemd {state}: {error}", state=state, error=error)
            return False
        return True


def watchdog_interval_seconds(environment: Mapping[str, str], pid: int) -> float | None:
    """Half of what systemd allows between two signs of life, or ``None`` when it expects none from process *pid*."""
    try:
        microseconds = int(environment.get("WATCHDOG_USEC", ""))
        expected = int(environment.get("WATCHDOG_PID", str(pid)))
    except ValueError:
        return None
    return microseconds / 2e6 if microseconds > 0 and expected == pid else None


class Watchdog:
    """Tells systemd that the server lives, as long as :attr:`alive` says so within one interval.

    :param alive: answers when the server can still do its work; a failure or silence withholds the sign.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        notifier: Notifier,
        interval_seconds: float,
        alive: Callable[[], Awaitable[None]],
    ) -> None:
        self._clock = clock
        self._notifier = notifier
        self._interval_seconds = interval_seconds
        self._alive = alive
        self._loop = LoopingCall(lambda: from_coroutine(self._feed()))
        self._loop.clock = clock

    def start(self) -> None:
        """Send the first sign at once."""
        self._loop.start(self._interval_seconds).addErrback(
            lambda failure: self._log.failure("the watchdog loop ended", failure=failure)
        )

    def stop(self) -> None:
        """Send no more."""
        if self._loop.running:
            self._loop.stop()

    async def _feed(self) -> None:
        try:
            answered = await within(self._clock, self._interval_seconds, self._alive)
        except Exception:  # noqa: BLE001 - no sign is the answer; the cause is logged
            self._log.failure("the server does not answer its own watchdog")
            return
        if answered:
            self._notifier.notify("WATCHDOG=1")
        else:
            self._log.warn("no commit was answered within {seconds:.1f}s", seconds=self._interval_seconds)
