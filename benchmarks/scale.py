"""(h) a large table against a small one: reads, start-up, and the push of a new index on it."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import threading
import time

from benchmarks.calls import subject
from benchmarks.deployment import Bench, deployed
from benchmarks.processes import ROOT, memory
from benchmarks.report import Subject, heading, measure, row, table, target
from tests.e2e.harness import convex

_TIMES = 20
_SCHEMA_INDEX = '.index("by_text", ["text"]);'


def run(seconds: float, large: int, small: int) -> None:
    """(h)"""
    with deployed() as bench:
        for name in ("rows_small", "rows_large"):
            bench.server.value("mutation", "scale:start", {"table": name})
        bench.server.stop()
        empty = _start(bench)
        bench.server.stop()
        file = bench.server.folder / "convex_local_backend.sqlite3"
        samples = bench.folder / "samples.json"
        began = time.monotonic()
        command = [sys.executable, "-m", "benchmarks.fill", str(file), str(samples)]
        command += [f"rows_small={small}", f"rows_large={large}"]
        subprocess.run(command, check=True, cwd=ROOT, timeout=1800)
        heading("(h) one table of many rows")
        row(f"file of {file.stat().st_size / 1e6:.0f} MB, made in", f"{time.monotonic() - began:.0f} s")
        started = _start(bench)
        row("start-up, and on the file before it was filled", f"{started:.2f} s", f"{empty:.2f} s")
        target(f"start-up in {started:.2f} s, to reach 2 s", started <= 2)
        _read(bench, seconds, json.loads(samples.read_text()), large, small)
        row("resident memory after the reads", f"{_resident(bench) / 1e6:.0f} MB")
        _push_index(bench, large)


def _resident(bench: Bench) -> float:
    """Resident memory of the Python process, bytes."""
    return memory(bench.pid)[0] * 1e3


def _start(bench: Bench) -> float:
    """Seconds from the start of the server to its first answer."""
    began = time.monotonic()
    bench.server.start()
    return time.monotonic() - began


def _read(bench: Bench, seconds: float, samples: dict[str, list[str]], large: int, small: int) -> None:
    draw = random.Random(2)
    kinds = {"point read": "scale:get", "50-row page": "scale:page"}
    subjects: list[Subject] = []
    for title, function in kinds.items():
        for count in (1, _TIMES):
            for name, size in (("rows_small", small), ("rows_large", large)):
                args = []
                for _ in range(300):
                    where: dict[str, object] = {"nonce": "@N@"}
                    if function == "scale:get":
                        where["ids"] = draw.sample(samples[name], count)
                    else:
                        where |= {"table": name, "starts": [draw.random() * 0.9 for _ in range(count)]}
                    args.append(where)
                label = f"{title}, {size} rows, {count} in a query"
                bench.http(label, "query", function, args, 4)
                against = None if name == "rows_small" else f"{title}, {small} rows, {count} in a query"
                subjects.append(subject(bench, label, label, against))
    found = measure(subjects, seconds)
    table(f"(h) reads of {large} rows against {small}", found)
    heading("    Python CPU of one more in the same query")
    for title in kinds:
        one = {
            size: (
                found[f"{title}, {size} rows, {_TIMES} in a query"].median("python_us")
                - found[f"{title}, {size} rows, 1 in a query"].median("python_us")
            )
            / (_TIMES - 1)
            for size in (small, large)
        }
        ratio = one[large] / one[small] if one[small] > 0 else float("inf")
        row(title, f"{one[small]:.0f} µs", f"{one[large]:.0f} µs", "", f"{ratio:.2f}x")
        times = [found[f"{title}, {size} rows, 1 in a query"].median("p50_ms") for size in (small, large)]
        target(f"{title}: {times[1] / times[0]:.2f}x the time, to reach 1.5x", times[1] / times[0] <= 1.5)


def _push_index(bench: Bench, large: int) -> None:
    """Deploy the app with one index more while a client goes on reading."""
    schema = bench.folder / "app" / "convex" / "schema.ts"
    schema.write_text(schema.read_text().replace(_SCHEMA_INDEX, _SCHEMA_INDEX[:-1] + '.index("by_c", ["c"]);'))
    before, most = _resident(bench), [0.0]
    slowest, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            began = time.monotonic()
            bench.server.value("query", "scale:page", {"table": "rows_large", "starts": [0.5], "nonce": began})
            slowest[0] = max(slowest[0], time.monotonic() - began)
            most[0] = max(most[0], _resident(bench))

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.monotonic()
    try:
        arguments = ("deploy", "-y", "--typecheck", "disable", "--skip-large-indexes-check", "--verbose")
        output = convex(bench.folder / "app", bench.server, *arguments, timeout=1200)
    finally:
        done.set()
        watcher.join()
    took = time.monotonic() - began
    heading("    push of an index on the large table")
    row("time", f"{took:.0f} s", f"{large / took:.0f}/s")
    shown = re.findall(r"\d+(?:[,.]\d+)*\s*/\s*\d+[^\n]*", output)
    row("progress that the CLI showed", shown[-1][:40] if shown else "none")
    row("most memory, before it", f"{most[0] / 1e6:.0f} MB", f"{before / 1e6:.0f} MB")
    row("slowest page read meanwhile", f"{slowest[0] * 1000:.0f} ms")
    found = bench.server.value("query", "scale:fresh", {})
    target(f"the new index gives {found:.0f} of 50 rows", found == 50)
    target(f"memory grew by {(most[0] - before) / 1e6:.0f} MB, to stay under 100 MB", most[0] - before < 100e6)
