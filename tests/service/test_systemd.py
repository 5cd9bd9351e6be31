"""Notifications, watchdog and the JSON log."""

from __future__ import annotations

import io
import json
import socket
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, Logger
from zope.interface.verify import verifyObject

from convex_backend.service.logging import JsonLineObserver
from convex_backend.service.systemd import Notifier, Watchdog, watchdog_interval_seconds


@pytest.mark.parametrize("abstract", [False, True])
def test_notify_sends_a_datagram(tmp_path: Path, abstract: bool) -> None:
    """The state arrives at the socket that ``NOTIFY_SOCKET`` names, in the file system or abstract."""
    name = f"@convex-backend-test-{tmp_path.name}-{id(tmp_path)}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name[1:] if abstract else name)
        assert Notifier({"NOTIFY_SOCKET": name}).notify("READY=1")
        assert systemd.recv(100) == b"READY=1"


def test_notify_without_systemd_does_nothing(tmp_path: Path) -> None:
    """No variable, or a socket that is gone, is no failure."""
    assert not Notifier({}).notify("READY=1")
    assert not Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).notify("READY=1")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "77"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "78"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "x"}, None),
    ],
)
def test_watchdog_interval(environment: dict[str, str], expected: float | None) -> None:
    """Half of what systemd allows, if it watches this process."""
    assert watchdog_interval_seconds(environment, 77) == expected


class RecordingNotifier(Notifier):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        super().__init__({})
        self.sent: list[str] = []

    def notify(self, state: str) -> bool:
        """Record *state*."""
        self.sent.append(state)
        return True


def test_watchdog_is_fed_only_while_the_server_answers() -> None:
    """Each interval has one sign; silence withholds it, an answer brings it back, a stop ends it."""
    clock, notifier = Clock(), RecordingNotifier()
    answers: list[Deferred[None]] = []
    silent = False

    async def alive() -> None:
        if silent:
            answers.append(Deferred())
            await answers[-1]

    watchdog = Watchdog(clock, notifier, 10.0, alive)
    watchdog.start()
    clock.advance(10.0)
    assert notifier.sent == ["WATCHDOG=1"] * 2
    silent = True
    clock.pump([10.0] * 3)
    assert notifier.sent == ["WATCHDOG=1"] * 2
    silent = False
    clock.pump([10.0] * 2)
    assert notifier.sent[2:]
    watchdog.stop()
    sent = len(notifier.sent)
    clock.pump([10.0] * 3)
    assert len(notifier.sent) == sent
    assert clock.getDelayedCalls() == []


def test_log_lines_are_json_objects() -> None:
    """Each event is one line with time, level, logger and message; a failure adds its trace; no field of the event leaks."""
    output = io.StringIO()
    observer = JsonLineObserver(output)
    verifyObject(ILogObserver, observer)
    log = Logger("convex_backend.test", observer=observer)
    log.info("committed {ts}\nin two lines", ts=7, secret="hunter2")
    try:
        raise ValueError("broken")
    except ValueError:
        log.failure("it broke")
    first, second = [json.loads(line) for line in output.getvalue().splitlines()]
    assert first["time"].endswith("Z")
    assert {key: first[key] for key in ("level", "logger", "message")} == {
        "level": "info",
        "logger": "convex_backend.test",
        "message": "committed 7\nin two lines",
    }
    assert "hunter2" not in output.getvalue()
    assert second["level"] == "critical"
    assert "ValueError: broken" in second["traceback"]
