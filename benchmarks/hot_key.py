"""What mutations of other keys keep of their throughput while many clients want one very hot key (A6, A7).

Run it as ``python -m benchmarks.hot_key [seconds]``; a window of the cold clients alone and one with the hot ones beside them, in turn.
"""

from __future__ import annotations

import statistics
import sys
import threading
from typing import Any

from benchmarks.calls import BALANCE, pairs
from benchmarks.deployment import Bench, deployed
from benchmarks.processes import load_generator, settle
from benchmarks.report import heading, row, target

HOT_CLIENTS = 200
COLD_CLIENTS = 20
ACCOUNTS = 2000
ROUNDS = 3
WANTED_SHARE = 0.5


def measure(seconds: float) -> tuple[float, float, float]:
    """:returns: medians per second of the cold clients alone, of them beside the hot ones, and of the hot ones."""
    with deployed() as bench, load_generator(bench.folder) as load:
        ids: list[str] = []
        while len(ids) < ACCOUNTS:
            some = {"first": len(ids), "count": min(1000, ACCOUNTS - len(ids)), "balance": BALANCE}
            ids += bench.server.value("mutation", "calls:addAccounts", some)
        hot = {"from": ids[0], "to": ids[1], "amount": 1}
        bench.http("cold", "mutation", "calls:transfer", pairs(ids[2:], 0.0, 5000), COLD_CLIENTS)
        beside = Bench(bench.folder, bench.server, load)
        beside.http("hot", "mutation", "calls:transfer", [hot], HOT_CLIENTS)
        alone: list[float] = []
        cold_rates: list[float] = []
        hot_rates: list[float] = []
        for _ in range(ROUNDS):
            settle(1.0)
            alone.append(bench.load("run", name="cold", seconds=seconds)["rate"])
            found: dict[str, Any] = {}
            thread = threading.Thread(
                target=lambda found=found: found.update(beside.load("run", name="hot", seconds=seconds + 1.0))
            )
            thread.start()
            settle(0.8)
            window = bench.load("run", name="cold", seconds=seconds)
            thread.join()
            for name, one in (("cold", window), ("hot", found)):
                if one["failed"]:
                    row(f"{name} calls that failed", str(one["failed"]), str(one["failure"])[:60])
            cold_rates.append(window["rate"])
            hot_rates.append(found["rate"])
        return statistics.median(alone), statistics.median(cold_rates), statistics.median(hot_rates)


def main(seconds: float) -> None:
    """Measure and print."""
    alone, cold, hot = measure(seconds)
    heading(
        f"{COLD_CLIENTS} cold clients beside {HOT_CLIENTS} of one hot key, transfers per second, medians of {ROUNDS}"
    )
    row("cold alone", f"{alone:.0f}")
    row("cold beside hot", f"{cold:.0f}", f"{cold / alone:.2f}x")
    row("hot", f"{hot:.0f}")
    target(f"cold keeps {cold / alone:.2f}, wanted {WANTED_SHARE}", cold >= WANTED_SHARE * alone)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 4.0)
