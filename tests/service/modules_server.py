"""The real server; it says which modules were loaded when it began to listen, and again when there was nothing more to load ahead.

Run by ``twistd -n -y``.
"""

from __future__ import annotations

import gc
import json
import sys

from twisted.application import service
from twisted.logger import LogEvent, globalLogPublisher

from convex_backend.tap import Options, makeService


def say(moment: str) -> None:
    """A line for the test, past the log."""
    print(f"modules {moment} {json.dumps(sorted(sys.modules))}", file=sys.__stdout__, flush=True)


def observe(event: LogEvent) -> None:
    """The first moment."""
    if event.get("log_format", "").startswith("listening on"):
        say("listening")


class Collector:
    """Stands in for the ``gc`` of the service, whose second freeze is the end of loading ahead."""

    def __init__(self) -> None:
        self._freezes = 0
        self.disable, self.enable, self.set_threshold = gc.disable, gc.enable, gc.set_threshold

    def freeze(self) -> None:
        """See ``gc``."""
        self._freezes += 1
        gc.freeze()
        if self._freezes == 2:
            say("ahead")


from convex_backend.service import backend  # noqa: E402 - what the server loads first comes first

backend.gc = Collector()  # type: ignore[assignment]
globalLogPublisher.addObserver(observe)
options = Options()
options.parseOptions(["--host", "127.0.0.1", "--port", "0"])
application = service.Application("convex-backend")
makeService(options).setServiceParent(service.IServiceCollection(application))
