"""How many scheduled functions a second are run, and how late, at default options.

Run it as ``python -m benchmarks.scheduler [jobs]``. A backlog measures throughput: everything is due at once. Jobs that are due one after the
other, far below that rate, measure lag: from the scheduled time to the end of the run.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

from benchmarks.deployment import Bench, deployed
from benchmarks.processes import settle
from benchmarks.report import heading, row

BACKLOG = 3000
#: What one mutation may schedule.
PART = 1000
PACED = 300
PACED_SECONDS = 10.0
DELAY_MS = 500


def _plan(bench: Bench, count: int, *, spread_seconds: float = 0.0, action: bool = False, delay_ms: int = 0) -> None:
    for first in range(0, count, PART):
        some = min(PART, count - first)
        args = {"count": some, "spreadMs": spread_seconds * 1000, "action": action, "delayMs": delay_ms}
        bench.server.value("mutation", "jobs:plan", args)


def _ended(bench: Bench, count: int) -> list[Any]:
    """The newest *count* jobs, once they have all ended."""
    deadline = time.monotonic() + 300
    while True:
        jobs: list[Any] = bench.server.value("query", "jobs:last", {"count": count})
        if all(job["ended"] is not None for job in jobs):
            assert {job["state"] for job in jobs} == {"success"}
            return jobs
        assert time.monotonic() < deadline, "the jobs do not end"
        time.sleep(0.5)


def _backlog(bench: Bench, name: str, count: int, action: bool) -> None:
    settle(1.0)
    before = bench.cpu()
    _plan(bench, count, action=action)
    jobs = _ended(bench, count)
    used = bench.cpu() - before
    ends = sorted(job["ended"] for job in jobs)
    # The first tenth overlaps with the planning.
    counted = ends[count // 10 :]
    rate = (len(counted) - 1) / ((counted[-1] - counted[0]) / 1000)
    row(
        f"{name}: backlog of {count}",
        f"{rate:.0f} jobs/s",
        f"  {used.python * 1e6 / count:.0f} µs Python, {used.node * 1e6 / count:.0f} µs Node a job",
    )


def _paced(bench: Bench, name: str, action: bool) -> None:
    settle(1.0)
    _plan(bench, PACED, spread_seconds=PACED_SECONDS, action=action, delay_ms=DELAY_MS)
    lags = sorted(job["ended"] - job["due"] for job in _ended(bench, PACED))
    rate = PACED / PACED_SECONDS
    middle, late = statistics.median(lags), lags[int(len(lags) * 0.99)]
    row(f"{name}: {rate:.0f} a second", f"p50 {middle:.1f} ms", f"  p99 {late:.1f} ms from due to ended")


def main(count: int) -> None:
    """Measure and print."""
    with deployed() as bench:
        heading("Scheduled functions, eight at once")
        for name, action in (("mutations", False), ("actions", True)):
            _backlog(bench, name, count if not action else max(1, count // 3), action)
            _paced(bench, name, action)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else BACKLOG)
