"""``python -m benchmarks.run a|b|c|d|d2|e|f|g|load|all [--seconds S] [--quick]``. See ``README.md``."""

from __future__ import annotations

import argparse
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import calls, history, idle, live, load_check, scale


def _limits() -> None:
    """As many open files as the system allows; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description="Measures a server on this machine. See benchmarks/README.md.")
    parser.add_argument("which", nargs="+", choices=["a", "b", "c", "d", "d2", "e", "f", "g", "h", "load", "all"])
    parser.add_argument("--seconds", type=float, help="time to measure in each benchmark (default 30, quick 6)")
    parser.add_argument("--quick", action="store_true", help="less of everything: shows that it works")
    parser.add_argument("--rows", type=int, help="consumed rows in e, rows in h (default 1,000,000, quick 20,000)")
    parser.add_argument("--updates", type=int, help="updates of each key in e (default 10,000, quick 500)")
    given = parser.parse_args()
    quick = given.quick
    seconds = given.seconds or (6.0 if quick else 30.0)
    rows = given.rows or (20_000 if quick else 1_000_000)
    updates = given.updates or (500 if quick else 10_000)
    known: dict[str, Callable[[], None]] = {
        "load": lambda: load_check.run(min(seconds, 10.0)),
        "a": lambda: calls.queries(seconds),
        "b": lambda: calls.inserts(seconds),
        "c": lambda: calls.transfers(seconds, 1_000 if quick else 10_000),
        "d": lambda: live.broadcast(seconds, (1, 100) if quick else (1, 100, 1000)),
        "d2": lambda: live.distinct(seconds, 100 if quick else 1000, 500 if quick else 10_000),
        "e": lambda: history.run(seconds, rows, updates),
        "f": lambda: idle.sockets(500 if quick else 5000),
        "g": idle.start_up,
        "h": lambda: scale.run(seconds, rows, 2_000 if quick else 10_000),
    }
    _limits()
    # So that children are stopped and folders removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    names = list(known) if "all" in given.which else given.which
    for name in names:
        began = time.monotonic()
        known[name]()
        print(f"  ({time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
