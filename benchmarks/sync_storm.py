"""Reconnect storms: all clients of a server come back at once, after a cut of the network and after ``kill -9`` with a restart.

``python -m benchmarks.sync_storm --sockets 5000``. Every client subscribes to the same query. The target is 10 s for 5,000 clients,
from the first connect to the last result. With ``--sign-in`` each client authenticates in between.
"""

from __future__ import annotations

import argparse
import resource
import statistics

from benchmarks.deployment import Bench, deployed
from benchmarks.processes import memory, settle
from benchmarks.report import heading, row, target
from tests.e2e.harness import ADMIN_KEY

_RUNS = 3


def _return_of_all(bench: Bench, sockets: int, token: str | None) -> tuple[float, float]:
    """:returns: seconds until all are connected, and from then until all have their result."""
    found = bench.load("subscribe", name="storm", port=bench.port, sockets=sockets, path="live:list", token=token)
    return found["connect_seconds"], found["results_seconds"]


def storm(sockets: int, sign_in: bool) -> None:
    """Both storms, and the memory of a client with its session and one subscription."""
    heading(
        f"reconnect storm of {sockets} clients of one query",
        "connect s",
        "results s",
        "all s",
        "Python CPU s",
        "KB each",
    )
    with deployed() as bench:
        bench.server.value("mutation", "live:fill", {"count": 20, "bytes": 200})
        bench.load("subscribe", name="first", port=bench.port, sockets=10, path="live:list")
        for label, restarts in (("after a cut", False), ("after kill -9 and a restart", True)):
            runs = []
            for _ in range(_RUNS):
                if restarts:
                    bench.server.kill()
                    bench.server.start()
                settle(0.5)
                before, used = memory(bench.pid)[0], bench.cpu()
                connect, results = _return_of_all(bench, sockets, ADMIN_KEY if sign_in else None)
                cpu = (bench.cpu() - used).python
                settle(1.0)
                runs.append((connect, results, connect + results, cpu, (memory(bench.pid)[0] - before) / sockets))
                bench.load("close", name="storm")
                settle(1.0)
            # Memory of the first storm: later ones take what the one before has left.
            figures = [statistics.median(column) for column in zip(*runs, strict=True)]
            row(label, *(f"{figure:.2f}" for figure in figures[:4]), f"{runs[0][4]:.1f}")
            target(f"{sockets} clients served in {figures[2]:.1f} s, to reach 10 s for 5000", figures[2] <= 10)


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sockets", type=int, default=5000)
    parser.add_argument("--sign-in", action="store_true")
    given = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    storm(given.sockets, given.sign_in)


if __name__ == "__main__":
    main()
