"""How much the load generator can drive: as much as a server that does nothing, and far more than a bare Klein."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.deployment import body
from benchmarks.processes import baseline, cpu_of, load_generator
from benchmarks.report import heading, row


def run(seconds: float) -> None:
    """Requests a second against a trivial server and against the Klein echo, and how busy the load generator was."""
    heading("load generator", "per s", "p50 ms", "its CPU µs", "server µs")
    with tempfile.TemporaryDirectory() as folder, load_generator(Path(folder)) as load:
        for module in ("raw_echo", "klein_echo"):
            with baseline(module) as (pid, port):
                bodies = load.file([body("calls:read", {"id": "k" * 32})])
                load("http", name=module, port=port, connections=16, path="/api/query", bodies=bodies)
                load("run", name=module, seconds=0.3)
                before = cpu_of(pid)
                found = load("run", name=module, seconds=seconds / 2)
                used = (cpu_of(pid) - before).python
                row(
                    module,
                    f"{found['rate']:.0f}",
                    f"{found['p50_ms']:.2f}",
                    f"{found['own_cpu'] / found['rate'] * 1e6:.0f}",
                    f"{used / found['count'] * 1e6:.0f}",
                )
                load("close", name=module)
