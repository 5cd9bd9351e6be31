"""The log as one JSON object per line, for machines: ``twistd --logger=convex_backend.service.logging.json_observer``.

::

    {"time":"2026-11-24T11:00:00.123456Z","level":"info","logger":"convex_backend.database.committer","message":"…","traceback":"…"}

Twisted's own JSON observer writes every field of an event, its format string and a flattened copy; this one writes what a reader uses.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TextIO

from twisted.logger import ILogObserver, LogEvent, formatEvent
from zope.interface import implementer


@implementer(ILogObserver)
class JsonLineObserver:
    """Writes each event as one line.

    :param output: text stream; a write that fails ends nothing but that line.
    """

    def __init__(self, output: TextIO) -> None:
        self._output = output

    def __call__(self, event: LogEvent) -> None:
        """Write *event*."""
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
    return JsonLineObserver(sys.stdout)
