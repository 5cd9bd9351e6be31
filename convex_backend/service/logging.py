"""The log: for people, on the console of ``twistd -n``, and for machines, one JSON object per line.

::

    2026-11-24 11:00:00 info  listening on 0.0.0.0:3210, 0.0.0.0:3211
    {"time":"2026-11-24T11:00:00.123456Z","level":"info","logger":"convex_backend.database.committer","message":"…","traceback":"…"}

Both leave out what Twisted says about itself (reactor classes, factories, addresses of objects) unless it is a warning or ``debug`` was
asked for. The second is chosen by ``twistd --logger=convex_backend.service.logging.json_observer``: Twisted's own JSON observer writes
every field of an event, its format string and a flattened copy; this one writes what a reader uses.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, TextIO, TypeAlias

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from zope.interface import implementer

from convex_backend.service.option_values import LOG_LEVELS

Wanted: TypeAlias = "Callable[[LogEvent], bool]"
#: The environment variable of ``--log-level``; the JSON log, which exists before options are read, knows only this.
LOG_LEVEL_VARIABLE: Final = "CONVEX_LOG_LEVEL"
# What functions and libraries print goes into the log under these names.
_PRINTED: Final = ("stdout", "stderr")


def from_level(name: str) -> Wanted:
    """Whether an event belongs into the log of level *name*, one of ``LOG_LEVELS``."""
    least = LogLevel.lookupByName(name)

    def wanted(event: LogEvent) -> bool:
        level = event.get("log_level") or LogLevel.info
        if level < least:
            return False
        namespace = event.get("log_namespace", "")
        if level is LogLevel.warn and namespace.startswith("autobahn"):
            # It warns of each client that leaves without a close frame.
            return least is LogLevel.debug
        if least is LogLevel.debug or level >= LogLevel.warn:
            return True
        return namespace.startswith("convex_backend") or namespace in _PRINTED

    return wanted


@implementer(ILogObserver)
class ConsoleObserver:
    """Writes each event as a line for people, a trace below it when there is one.

    :param output: text stream.
    :param wanted: which events.
    """

    def __init__(self, output: TextIO, wanted: Wanted) -> None:
        self._output = output
        self._wanted = wanted

    def __call__(self, event: LogEvent) -> None:
        """Write *event*."""
        if not self._wanted(event):
            return
        level = event.get("log_level") or LogLevel.info
        # Local time: this is read where it is written.
        time = datetime.fromtimestamp(event.get("log_time", 0.0)).strftime("%Y-%m-%d %H:%M:%S")
        text = f"{time} {level.name:<5} {formatEvent(event)}\n"
        failure = event.get("log_failure")
        if failure is not None:
            text += failure.getTraceback().rstrip("\n") + "\n"
        self._output.write(text)
        self._output.flush()


@implementer(ILogObserver)
class JsonLineObserver:
    """Writes each event as one line.

    :param output: text stream; a write that fails ends nothing but that line.
    :param wanted: which events, by default those of level ``info``.
    """

    def __init__(self, output: TextIO, wanted: Wanted | None = None) -> None:
        self._output = output
        self._wanted = wanted or from_level("info")

    def __call__(self, event: LogEvent) -> None:
        """Write *event*."""
        if not self._wanted(event):
            return
        level = event.get("log_level")
        record = {
            "time": datetime.fromtimestamp(event.get("log_time", 0.0), UTC).isoformat().replace("+00:00", "Z"),
            "level": level.name if level is not None else "info",
            "logger": event.get("log_namespace", ""),
            "message": formatEvent(event),
        }
        failure = event.get("log_failure")
        if failure is not None:
            record["traceback"] = failure.getTraceback()
        self._output.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._output.flush()


def json_observer() -> ILogObserver:
    """An observer for ``twistd --logger``: JSON lines on standard output."""
    level = os.environ.get(LOG_LEVEL_VARIABLE, "").strip().lower()
    # What is not a level is told when the options are checked.
    return JsonLineObserver(sys.stdout, from_level(level if level in LOG_LEVELS else "info"))
