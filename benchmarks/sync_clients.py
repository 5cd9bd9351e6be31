"""Many clients with one query: connect, subscribe, be told of a change; against a bare Autobahn server that sends the same bytes.

``python -m benchmarks.sync_clients [--sockets 10000] [--distinct 1000]``. Each client opens a socket, names its session and subscribes. Then a
mutation changes the query: the time to the last of them. With ``--distinct``, clients whose queries have arguments of their own.
"""

from __future__ import annotations

import argparse
import resource
import statistics

from benchmarks.deployment import Bench, baseline, deployed, text
from benchmarks.processes import cpu_of, memory, settle
from benchmarks.report import heading, row, target

_ROUNDS = 5
_WINDOWS = 3


def shared(sizes: list[int]) -> None:
    """Clients of one query."""
    columns = ("connect s", "CPU µs each", "results s", "KB each", "last p50 ms", "last p99 ms", "CPU µs each")
    heading("clients of one query: open, subscribe, and a mutation to the last of them", *columns)
    with deployed() as bench, baseline("autobahn_broadcast") as (bare_pid, bare_port):
        load = bench.load
        ids = bench.server.value("mutation", "live:fill", {"count": 20, "bytes": 200})
        bench.sockets("like", "live:like", [{"id": ids[0]}], 1)
        load("subscribe", name="first", port=bench.port, sockets=10, path="live:list")
        load("subscribe", name="trigger", port=bare_port, sockets=1, plain=True)
        for size in sizes:
            length = load("broadcast", name="first", caller="like", rounds=1)["bytes"]
            cells: dict[str, list[float]] = {}
            for name, pid, port, extra, says in (
                ("bare", bare_pid, bare_port, {"plain": True}, {"caller": "trigger", "trigger": str(length)}),
                ("ours", bench.pid, bench.port, {"path": "live:list"}, {"caller": "like"}),
            ):
                settle(1.0)
                before, used = memory(pid)[0], cpu_of(pid)
                opened = load("subscribe", name=name, port=port, sockets=size, **extra)
                opening = (cpu_of(pid) - used).python / size * 1e6
                settle(2.0)
                kilobytes = (memory(pid)[0] - before) / size
                load("broadcast", name=name, rounds=2, **says)
                told, spent = [], []
                for _ in range(_WINDOWS):
                    settle(0.1)
                    used = cpu_of(pid)
                    told.append(load("broadcast", name=name, rounds=_ROUNDS, **says)["last"])
                    spent.append((cpu_of(pid) - used).python / (_ROUNDS * size) * 1e6)
                last = [statistics.median(one[f"{share}_ms"] for one in told) for share in ("p50", "p99")]
                cells[name] = [opened["connect_seconds"], opening, opened["results_seconds"], kilobytes]
                cells[name] += [*last, statistics.median(spent)]
                # The sockets of both at once would be more than a process may have open.
                load("close", name=name)
            for name, label in (("bare", "bare Autobahn"), ("ours", "ours")):
                row(f"{size} clients, {label}", *(f"{cell:.2f}" for cell in cells[name]))
            ratio = cells["ours"][4] / cells["bare"][4]
            target(f"a change to {size} clients {ratio:.2f}x the bare broadcast, to reach 1.5x", ratio <= 1.5)
            target(
                f"{cells['ours'][3]:.1f} KB for each client with its session, to reach 20 KB", cells["ours"][3] <= 20
            )


def distinct(count: int) -> None:
    """Clients with queries of their own: each has to be run again."""
    heading(f"{count} clients with distinct arguments", "results s", "last p50 ms", "Python µs each", "Node µs each")
    with deployed() as bench:
        ids = bench.server.value("mutation", "live:fill", {"count": 2, "bytes": 200})
        bench.sockets("like", "live:like", [{"id": ids[0]}], 1)
        args = text({"id": ids[0], "n": "@N@"})
        found = bench.load("subscribe", name="all", port=bench.port, sockets=count, path="live:likesFor", args=args)
        runs = [_round(bench, count) for _ in range(_WINDOWS)]
        figures = [statistics.median(column) for column in zip(*runs, strict=True)]
        row("a mutation that changes all", f"{found['results_seconds']:.2f}", *(f"{figure:.0f}" for figure in figures))


def _round(bench: Bench, count: int) -> tuple[float, float, float]:
    settle(0.3)
    before = bench.cpu()
    found = bench.load("broadcast", name="all", caller="like", rounds=1)
    used = bench.cpu() - before
    return found["last"]["p50_ms"], used.python / count * 1e6, used.node / count * 1e6


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sockets", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--distinct", type=int, default=1000)
    given = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    shared(given.sockets)
    if given.distinct:
        distinct(given.distinct)


if __name__ == "__main__":
    main()
