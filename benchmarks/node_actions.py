"""``"use node"`` actions beside those of the default runtime: how soon they begin, how many a second, and what memory is left after a load.

Run it as ``python -m benchmarks.node_actions [seconds]``.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time

from benchmarks.calls import subject
from benchmarks.deployment import Bench, deployed
from benchmarks.processes import descendants, memory, settle
from benchmarks.report import heading, measure, row, table
from convex_backend.functions.node_executor import IDLE_SECONDS

CONNECTIONS = 16
LOAD = 24


def _timed(bench: Bench, path: str) -> float:
    began = time.perf_counter()
    bench.server.value("action", path, {"n": 1})
    return (time.perf_counter() - began) * 1000


def _start_up(bench: Bench) -> None:
    for name, path in (("default runtime", "actions:nothing"), ("Node", "node_actions:nothing")):
        heading(f"Start of an action, {name}")
        row("first action, its process not started", f"{_timed(bench, path):.0f} ms")
        settle(1.0)
        row("one after the other", f"p50 {statistics.median(_timed(bench, path) for _ in range(100)):.1f} ms")


def _rates(bench: Bench, seconds: float) -> None:
    bench.http("action", "action", "actions:nothing", [{"n": "@N@"}], CONNECTIONS)
    bench.http("node", "action", "node_actions:nothing", [{"n": "@N@"}], CONNECTIONS)
    found = measure(
        [
            subject(bench, "action, default runtime", "action"),
            subject(bench, "action, Node", "node", "action, default runtime"),
        ],
        seconds,
    )
    table(f"Rate, {CONNECTIONS} connections", found)


def _node_processes(bench: Bench) -> tuple[int, float]:
    """The JavaScript processes and their resident memory in MB."""
    children = descendants(bench.pid)
    return len(children), sum(memory(child)[0] for child in children) / 1024


def _memory(bench: Bench) -> None:
    heading(f"{LOAD} actions at once that take 40 MB each")
    before = _node_processes(bench)
    done: list[object] = []
    callers = [
        threading.Thread(target=lambda: done.append(bench.server.value("action", "node_actions:heavy")))
        for _ in range(LOAD)
    ]
    for one in callers:
        one.start()
    most = before
    while any(one.is_alive() for one in callers):
        most = max(most, _node_processes(bench), key=lambda found: found[1])
        time.sleep(0.1)
    row("succeeded", f"{len(done)} of {LOAD}")
    row("before", f"{before[1]:.0f} MB in {before[0]} processes")
    row("at most", f"{most[1]:.0f} MB in {most[0]} processes")
    time.sleep(IDLE_SECONDS + 5)
    after = _node_processes(bench)
    row(f"{IDLE_SECONDS:g} s after", f"{after[1]:.0f} MB in {after[0]} processes")


def main(seconds: float) -> None:
    """Measure and print."""
    with deployed() as bench:
        _start_up(bench)
        _rates(bench, seconds)
        _memory(bench)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 30.0)
