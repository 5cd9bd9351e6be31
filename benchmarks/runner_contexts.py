"""What a run costs in a runner child, by its context: fresh; a checked realm, where the module is evaluated anew after other runs; one used again.

A child alone, without the server: this script plays Python's side of the frames, and a call is a query of one document through the npm package.
Run it as ``python -m benchmarks.runner_contexts``; it takes about 45 seconds.
"""

from __future__ import annotations

import statistics
import time

import attrs

from benchmarks.processes import cpu_seconds
from tests.runner.bundles import bundle
from tests.runner.harness import RESULT, SYSRESULT, Child

ROUNDS = 3
ROUND_SECONDS = 1.5
WARM_UP_SECONDS = 0.5
QUIET_SECONDS = 3.5
"""Longer than an idle child waits before it gives memory back."""
WIDTHS = (1, 8)
DOCUMENT = '{"_id":"j57000820c20a1g7104gm2rc1m70ynr8","_creationTime":1,"body":"hello"}'
MODULE = """
import { queryGeneric as query } from "convex/server";
import { v } from "convex/values";
export const get = query({ args: { id: v.string() }, handler: (ctx, { id }) => ctx.db.get(id as any) });
"""
CONTEXTS: dict[str, dict[str, bool]] = {"fresh": {}, "realm": {"realm": True}, "reused": {"reuse": True}}
"""What START says, by name."""


@attrs.frozen
class Sample:
    """One round. Times in microseconds per run.

    :param cpu: of the whole process, collection of garbage and making of contexts included.
    :param entry: CPU time of the thread inside the context, as RESULT reports it.
    :param peak: resident memory, MB.
    """

    per_second: float
    cpu: float
    entry: float
    peak: float


def resident_megabytes(pid: int) -> float:
    """Resident memory of a process."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6


def sample(child: Child, seconds: float, width: int, context: str) -> Sample:
    """Keep *width* calls in flight for some time."""
    pid = child.process.pid
    live: set[int] = set()
    runs = entry = 0
    peak = 0.0
    started, used = time.monotonic(), cpu_seconds(pid)
    while True:
        while len(live) < width and time.monotonic() - started < seconds:
            live.add(child.start("query", "messages.js", "get", [{"id": "x"}], **CONTEXTS[context]))
        if not live:
            break
        kind, call, seq, meta, _ = child.receive()
        if kind == RESULT:
            assert meta["ok"], meta
            live.discard(call)
            runs += 1
            entry += meta["cpu_us"]
            if runs % 64 == 0:
                peak = max(peak, resident_megabytes(pid))
        else:
            child.send(SYSRESULT, call, seq, None, DOCUMENT)
    elapsed = time.monotonic() - started
    return Sample(runs / elapsed, (cpu_seconds(pid) - used) * 1e6 / runs, entry / runs, peak)


def main() -> None:
    """Measure in turns, so that a slow phase of the machine hits all alike; print medians."""
    modules = bundle({"messages.ts": MODULE})
    print(
        f"one read, bundle of {sum(len(source) for source, _ in modules.values()) / 1000:.0f} KB; medians of {ROUNDS}"
    )
    print("context  in flight   runs/s   CPU us/run   entry us/run   peak MB   quiet MB")
    children = {}
    try:
        for context in CONTEXTS:
            children[context] = Child()
            for path, (source, source_map) in modules.items():
                children[context].add_module(path, source, source_map)
        for width in WIDTHS:
            samples: dict[str, list[Sample]] = {context: [] for context in CONTEXTS}
            for context, child in children.items():
                sample(child, WARM_UP_SECONDS, width, context)
            for _ in range(ROUNDS):
                for context, child in children.items():
                    samples[context].append(sample(child, ROUND_SECONDS, width, context))
            time.sleep(QUIET_SECONDS)
            for context, ones in samples.items():
                median = [
                    statistics.median(getattr(one, name) for one in ones) for name in ("per_second", "cpu", "entry")
                ]
                quiet = resident_megabytes(children[context].process.pid)
                print(
                    f"{context:<7} {width:>10} {median[0]:>8.0f} {median[1]:>12.0f} {median[2]:>14.0f}"
                    f" {max(one.peak for one in ones):>9.0f} {quiet:>10.0f}"
                )
    finally:
        for child in children.values():
            child.close()


if __name__ == "__main__":
    main()
