"""(e) reads of tables with a long past against the same reads of fresh ones."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.calls import subject
from benchmarks.deployment import Bench, deployed
from benchmarks.processes import ROOT
from benchmarks.report import Subject, heading, measure, row, table, target

KEYS = 100
JOBS = 50
_TIMES = {"first": 50, "keys": 5}


def run(seconds: float, rows: int, updates: int) -> None:
    """(e)"""
    with deployed() as bench:
        bench.server.value("mutation", "history:fill", {"jobs": JOBS, "keys": KEYS})
        bench.server.stop()
        file = bench.server.folder / "convex_local_backend.sqlite3"
        began = time.monotonic()
        command = [sys.executable, "-m", "benchmarks.seed", str(file), str(rows), str(updates)]
        subprocess.run(command, check=True, cwd=ROOT, timeout=900)
        seeded = time.monotonic() - began
        bench.server.start()
        _read(bench, seconds, rows, updates)
        row(f"file of {file.stat().st_size / 1e6:.0f} MB, made in", f"{seeded:.0f} s")


def _read(bench: Bench, seconds: float, rows: int, updates: int) -> None:
    pairs = {
        "first": ("jobs_consumed", "jobs_fresh", f"take(1) after {rows} consumed rows"),
        "keys": ("keys_updated", "keys_fresh", f"{KEYS} keys updated {updates} times each"),
    }
    for function, (old, fresh, label) in pairs.items():
        times = _TIMES[function]
        subjects: list[Subject] = []
        for count in (1, times):
            for which in (fresh, old):
                name = f"{which} {count}"
                args = [{"table": which, "times": count, "nonce": "@N@"}]
                bench.http(name, "query", f"history:{function}", args, 4)
                title = f"{which}, {count} in a query"
                subjects.append(subject(bench, title, name, None if which == fresh else f"{fresh}, {count} in a query"))
        found = measure(subjects, seconds / len(pairs))
        table(f"(e) {label}, against a fresh table", found)
        one = {
            which: max(
                found[f"{which}, {times} in a query"].median("python_us")
                - found[f"{which}, 1 in a query"].median("python_us"),
                0.0,
            )
            / (times - 1)
            for which in (fresh, old)
        }
        heading("    Python CPU of one more in the same query")
        row(fresh, f"{one[fresh]:.0f} µs")
        row(old, f"{one[old]:.0f} µs", "", "", f"{one[old] / one[fresh]:.2f}x" if one[fresh] else "")
        slow = f"{old}, {times} in a query"
        ratio = found[f"{fresh}, {times} in a query"].median("p50_ms") / found[slow].median("p50_ms")
        target(f"{label}: {1 / ratio:.2f}x the time of a fresh table, to reach 2x", 1 / ratio <= 2)
