"""What a start loads. Time is measured by the benchmarks; this keeps heavy modules from coming back unnoticed."""

from __future__ import annotations

import json
from pathlib import Path

from tests.service.child import Child

SERVER = str(Path(__file__).with_name("modules_server.py"))
# Each costs milliseconds, and no first answer needs it.
HEAVY = {
    "autobahn",
    "cbor2",
    "cffi.cparser",
    "flatbuffers",
    "klein",
    "pycparser",
    "treq",
    "twisted.internet.endpoints",
    "twisted.trial.unittest",
    "twisted.web.client",
    "werkzeug",
    "convex_backend.sync.protocol",
    "convex_backend.sync.worker",
}
# What clients will most likely need next.
AHEAD = {"autobahn.twisted.websocket", "klein", "werkzeug", "convex_backend.sync.protocol"}


def modules(line: str) -> set[str]:
    """The names in a line of ``modules_server``."""
    names: list[str] = json.loads(line[line.index("[") :])
    return set(names)


def test_a_start_loads_nothing_heavy_and_the_rest_comes_later(tmp_path: Path) -> None:
    """When the server listens no heavy module is loaded; soon after, those for sockets and rare routes are, without any request."""
    with Child(["--pidfile=", "-y", SERVER], tmp_path) as server:
        at_first = modules(server.wait_for("modules listening"))
        assert "convex_backend.web.site" in at_first
        assert sorted(HEAVY & at_first) == []
        assert sorted(AHEAD - modules(server.wait_for("modules ahead"))) == []
