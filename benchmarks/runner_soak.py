"""Many mixed calls with errors, timeouts and kills: what the memory of each process does, and how fast it went.

Run it as ``python -m benchmarks.runner_soak [calls [seconds]] [--usual-bounds]``: 200,000 calls by default, ended early after *seconds*. What the
server keeps for a time or up to a bound (SQLite's page caches, 96 MiB; the write log, 300 s; the function log, 10,000 entries) has small bounds
here, so that growth of anything else shows; with the usual ones Python's memory grows for as long as those fill.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from benchmarks.report import heading, row
from tests.functions.live_world import live_world
from tests.functions.soak import Soak

SAMPLES = 40


async def soak(reactor: Any, calls: int, seconds: float, small: bool) -> None:
    """Run and print."""
    with tempfile.TemporaryDirectory(prefix="convex-backend-soak-") as folder:
        async with live_world(Path(folder), reactor, small=small) as world:
            one = Soak(world, calls, SAMPLES)
            began = time.monotonic()
            timer = reactor.callLater(seconds, one.stop)
            await one.run()
            if timer.active():
                timer.cancel()
            elapsed = time.monotonic() - began
            heading(f"{one.ended} calls in {elapsed:.0f} s, {one.ended / elapsed:.0f} per second")
            row("calls", "Python MB", "children MB")
            for sample in one.samples:
                row(str(sample.calls), f"{sample.python:.0f}", "", " ".join(f"{size:.0f}" for size in sample.children))
            python, child = one.slopes()
            row("MB per 10,000 calls, second half", f"{python:+.2f}", f"{child:+.2f}")
            print("  ", dict(one.done))
            lost = {
                sample.labels["reason"]: int(sample.value)
                for metric in world.registry.collect()
                if metric.name == "convex_functions_children_lost"
                for sample in metric.samples
                if sample.name.endswith("_total") and sample.labels["pool"] == "isolate"
            }
            print("   children that ended:", lost)


if __name__ == "__main__":
    usual = "--usual-bounds" in sys.argv
    given = [one for one in sys.argv[1:] if not one.startswith("--")]
    wanted = int(given[0]) if given else 200_000
    limit = float(given[1]) if len(given) > 1 else 3600.0
    react(lambda reactor: Deferred.fromCoroutine(soak(reactor, wanted, limit, not usual)))
