"""(d) a mutation to the last of N subscribers of one query; (d2) distinct queries invalidated at once, and unrelated subscriptions."""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks.calls import subject
from benchmarks.deployment import Bench, baseline, deployed, text
from benchmarks.processes import cpu_of, settle
from benchmarks.report import heading, measure, row, table, target

DOCUMENTS, DOCUMENT_BYTES = 20, 200
_RUNS = 3
_FEW = 10


def broadcast(seconds: float, sizes: tuple[int, ...]) -> None:
    """(d)"""
    columns = ("p50 ms", "p99 ms", "bytes", "Python µs", "Node µs", "ratio")
    with deployed() as bench, baseline("autobahn_broadcast") as (bare_pid, bare_port):
        load = bench.load
        ids = bench.server.value("mutation", "live:fill", {"count": DOCUMENTS, "bytes": DOCUMENT_BYTES})
        bench.sockets("like", "live:like", [{"id": ids[0]}], 1)
        load("subscribe", name="trigger", port=bare_port, sockets=1, plain=True)
        heading("(d) mutation to the last of N subscribers of one query; CPU per subscriber and update", *columns)
        ratios = {}
        for size in sizes:
            load("subscribe", name="ours", port=bench.port, sockets=size, path="live:list")
            load("subscribe", name="bare", port=bare_port, sockets=size, plain=True)
            length = load("broadcast", name="ours", caller="like", rounds=5)["bytes"]
            load("broadcast", name="bare", caller="trigger", rounds=5, trigger=str(length))
            windows: dict[str, list[dict[str, Any]]] = {"ours": [], "bare": []}
            rounds = 5
            deadline = time.monotonic() + seconds / len(sizes)
            while time.monotonic() < deadline or len(windows["bare"]) < _RUNS:
                for name in ("bare", "ours"):
                    settle(0.05)
                    pid = bench.pid if name == "ours" else bare_pid
                    before = cpu_of(pid)
                    if name == "ours":
                        found = load("broadcast", name=name, caller="like", rounds=rounds)
                    else:
                        found = load("broadcast", name=name, caller="trigger", rounds=rounds, trigger=str(length))
                    used = cpu_of(pid) - before
                    if found["failed"]:
                        raise RuntimeError(f"{found['failed']} mutations failed")
                    updates = rounds * size
                    windows[name].append(
                        {**found, "python": used.python / updates * 1e6, "node": used.node / updates * 1e6}
                    )
            p50 = {name: statistics.median(one["last"]["p50_ms"] for one in found) for name, found in windows.items()}
            ratios[size] = p50["ours"] / p50["bare"]
            for name, label in (("bare", "bare Autobahn broadcast"), ("ours", "mutation to last")):
                row(
                    f"{size} subscribers, {label}",
                    f"{p50[name]:.2f}",
                    f"{statistics.median(one['last']['p99_ms'] for one in windows[name]):.2f}",
                    str(length),
                    f"{statistics.median(one['python'] for one in windows[name]):.0f}",
                    f"{statistics.median(one['node'] for one in windows[name]):.0f}",
                    f"{ratios[size]:.2f}x" if name == "ours" else "",
                )
            answer = statistics.median(one["answer"]["p50_ms"] for one in windows["ours"])
            row("    answer of the mutation", f"{answer:.2f}")
            load("close", name="ours")
            load("close", name="bare")
        largest = sizes[-1]
        target(f"{largest} subscribers {ratios[largest]:.2f}x the bare broadcast, to reach 2x", ratios[largest] <= 2)


def distinct(seconds: float, subscribers: int, unrelated: int) -> None:
    """(d2)"""
    with deployed() as bench:
        ids = bench.server.value("mutation", "live:fill", {"count": 2, "bytes": DOCUMENT_BYTES})
        bench.sockets("like", "live:like", [{"id": ids[0]}], 1)
        bench.sockets("beside", "live:like", [{"id": ids[1]}], 1)
        _storm(bench, seconds / 2, subscribers, ids[0])
        _unrelated(bench, seconds / 2, unrelated)


def _storm(bench: Bench, seconds: float, subscribers: int, message: str) -> None:
    load = bench.load
    args = text({"id": message, "n": "@N@"})
    first = load("subscribe", name="distinct", port=bench.port, sockets=subscribers, path="live:likesFor", args=args)
    load("run", name="beside", seconds=0.5)
    quiet, storms = [], []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline or len(storms) < _RUNS:
        settle()
        quiet.append(load("run", name="beside", seconds=0.5))
        before = bench.cpu()
        storms.append(load("broadcast", name="distinct", caller="like", rounds=1, beside="beside"))
        used = bench.cpu() - before
        storms[-1]["python"], storms[-1]["node"] = used.python / subscribers * 1e6, used.node / subscribers * 1e6
    load("close", name="distinct")
    failed = sum(one["failed"] for one in (*quiet, *storms))
    heading(
        f"(d2) one commit invalidates {subscribers} subscribers with distinct arguments",
        *("p50 ms", "p99 ms", "per s", "Python µs", "Node µs", "failed"),
    )
    last = sorted(one["last"]["p50_ms"] for one in storms)
    middle = statistics.median(last)
    row(
        "commit to last subscriber; CPU per subscriber",
        f"{middle:.0f}",
        f"{last[-1]:.0f}",
        f"{subscribers / middle * 1000:.0f}",
        f"{statistics.median(one['python'] for one in storms):.0f}",
        f"{statistics.median(one['node'] for one in storms):.0f}",
        str(failed),
    )
    row("first results of all", f"{first['results_seconds'] * 1000:.0f}")
    for label, found in (("a mutation, quiet", quiet), ("a mutation meanwhile", [one["beside"] for one in storms])):
        row(
            label,
            f"{statistics.median(one['p50_ms'] for one in found):.2f}",
            f"{statistics.median(one['p99_ms'] for one in found):.2f}",
            f"{statistics.median(one['rate'] for one in found):.0f}",
        )


def _unrelated(bench: Bench, seconds: float, many: int) -> None:
    """Two servers with the same app in turn, one beside few and one beside many subscriptions."""
    label = "commits beside {} unrelated subscriptions"
    with deployed() as other:
        subjects = []
        for one, count, sockets in ((bench, _FEW, 1), (other, many, 100)):
            one.load(
                "subscribe",
                name="unrelated",
                port=one.port,
                sockets=sockets,
                path="live:unrelated",
                args='{"n":@N@}',
                each=count // sockets,
                seconds=120.0,
            )
            one.sockets("commits", "calls:insert", [{"n": "@N@", "text": "x" * 100}], 16)
            subjects.append(subject(one, label.format(count), "commits"))
        subjects[1].against = subjects[0].name
        settle(1.0)
        found = measure(subjects, seconds, rounds=5)
        table("(d2) cost of a commit beside subscriptions that it does not touch", found)
        few, lots = (found[label.format(count)].median("python_us") for count in (_FEW, many))
        target(
            f"Python CPU of a commit beside {many}: {lots / few:.2f}x of beside {_FEW}, to be flat", lots / few <= 1.2
        )
