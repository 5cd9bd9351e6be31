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
RAMP_SECONDS = 2.5
"""Until the hot clients, who come all at once, wait in the lane."""


def measure(seconds: float) -> dict[str, float]:
    """:returns: medians of calls per second by who called."""
    with deployed() as bench, load_generator(bench.folder) as load:
        ids: list[str] = []
        while len(ids) < ACCOUNTS:
            some = {"first": len(ids), "count": min(1000, ACCOUNTS - len(ids)), "balance": BALANCE}
            ids += bench.server.value("mutation", "calls:addAccounts", some)
        hot = {"from": ids[0], "to": ids[1], "amount": 1}
        bench.http("cold", "mutation", "calls:transfer", pairs(ids[2:], 0.0, 5000), COLD_CLIENTS)
        beside = Bench(bench.folder, bench.server, load)
        beside.http("hot", "mutation", "calls:transfer", [hot], HOT_CLIENTS)
        rates: dict[str, list[float]] = {
            "cold alone": [],
            "hot alone": [],
            "cold beside hot": [],
            "hot beside cold": [],
        }
        for _ in range(ROUNDS):
            settle(1.0)
            rates["cold alone"].append(bench.load("run", name="cold", seconds=seconds)["rate"])
            rates["hot alone"].append(beside.load("run", name="hot", seconds=seconds)["rate"])
            settle(1.0)
            found: dict[str, Any] = {}
            thread = threading.Thread(
                target=lambda found=found: found.update(beside.load("run", name="hot", seconds=seconds + RAMP_SECONDS))
            )
            thread.start()
            settle(RAMP_SECONDS)
            window = bench.load("run", name="cold", seconds=seconds)
            thread.join()
            for name, one in (("cold beside hot", window), ("hot beside cold", found)):
                rates[name].append(one["rate"])
                if one["failed"]:
                    row(f"{name}: failed calls", str(one["failed"]), str(one["failure"])[:60])
        return {name: statistics.median(ones) for name, ones in rates.items()}


def main(seconds: float) -> None:
    """Measure and print."""
    rates = measure(seconds)
    heading(
        f"{COLD_CLIENTS} cold clients beside {HOT_CLIENTS} of one hot key, transfers per second, medians of {ROUNDS}"
    )
    for name, rate in rates.items():
        row(name, f"{rate:.0f}")
    share = rates["cold beside hot"] / rates["cold alone"]
    target(f"cold keeps {share:.2f}, wanted {WANTED_SHARE}", share >= WANTED_SHARE)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 4.0)
