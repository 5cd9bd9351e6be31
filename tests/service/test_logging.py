"""The log on the console and as JSON lines: what is shown, and how (``docs/operating.md``)."""

from __future__ import annotations

import io
import json
import re

import pytest
from twisted.logger import ILogObserver, Logger, LogLevel
from zope.interface.verify import verifyObject

from convex_backend.service.logging import ConsoleObserver, JsonLineObserver, from_level, json_observer


def lines(level: str, namespace: str = "convex_backend.test") -> list[str]:
    """What the console shows at *level* of one event of each level."""
    output = io.StringIO()
    observer = ConsoleObserver(output, from_level(level))
    verifyObject(ILogObserver, observer)
    log = Logger(namespace, observer=observer)
    for each in LogLevel.iterconstants():
        log.emit(each, "at {name}", name=each.name)
    return output.getvalue().splitlines()


def test_a_line_for_people() -> None:
    """Date and time, level, message: no namespace, no address of an object."""
    line = lines("info")[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d info  at info", line)


@pytest.mark.parametrize(("level", "count"), [("debug", 5), ("info", 4), ("warn", 3), ("error", 2)])
def test_levels(level: str, count: int) -> None:
    """A level shows itself and what is worse; a critical error always."""
    shown = lines(level)
    assert len(shown) == count
    assert shown[-1].endswith("at critical")


@pytest.mark.parametrize("namespace", ["twisted.internet.base", "log_legacy", ""])
def test_others_are_heard_only_when_it_matters(namespace: str) -> None:
    """Twisted's news of itself are hidden, its warnings are not; ``debug`` shows all."""
    assert [line.split()[2] for line in lines("info", namespace)] == ["warn", "error", "critical"]
    assert len(lines("debug", namespace)) == 5


def test_warnings_of_autobahn_are_for_debugging() -> None:
    """It warns of each socket that ends in an unusual way, which is the client's business; its errors are shown."""
    assert [line.split()[2] for line in lines("info", "autobahn.websocket.protocol")] == ["error", "critical"]
    assert len(lines("debug", "autobahn.websocket.protocol")) == 5


def test_what_is_printed_is_shown() -> None:
    """``print`` somewhere in the process must not vanish."""
    assert len(lines("info", "stdout")) == 4


def test_a_failure_has_its_trace() -> None:
    """Below its line."""
    output = io.StringIO()
    log = Logger("convex_backend.test", observer=ConsoleObserver(output, from_level("info")))
    try:
        raise ValueError("broken")
    except ValueError:
        log.failure("it broke")
    first, *trace = output.getvalue().splitlines()
    assert first.endswith("critical it broke")
    assert trace[-1].endswith("ValueError: broken")


@pytest.mark.parametrize(("value", "count"), [(None, 1), ("debug", 2), ("DEBUG", 2), ("error", 0), ("nonsense", 1)])
def test_the_json_log_takes_its_level_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str | None, count: int
) -> None:
    """It exists before the options are read; a value that is no level is told by them."""
    if value is None:
        monkeypatch.delenv("CONVEX_LOG_LEVEL", raising=False)
    else:
        monkeypatch.setenv("CONVEX_LOG_LEVEL", value)
    log = Logger("convex_backend.test", observer=json_observer())
    log.debug("one")
    log.info("two")
    assert len(capsys.readouterr().out.splitlines()) == count


def test_the_json_log_hides_the_same() -> None:
    """One rule for both."""
    output = io.StringIO()
    log = Logger("twisted.internet.tcp", observer=JsonLineObserver(output))
    log.info("hidden")
    log.warn("shown")
    assert [json.loads(line)["message"] for line in output.getvalue().splitlines()] == ["shown"]
