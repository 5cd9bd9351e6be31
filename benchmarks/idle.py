"""(f) many idle sockets; (g) start-up time and memory of each process at idle."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.deployment import baseline, deploy, deployed
from benchmarks.processes import command_of, descendants, memory, settle
from benchmarks.report import heading, row, target
from tests.e2e.harness import Server

_LIMIT_KB = 90 * 1024
_STARTS = 3


def sockets(count: int) -> None:
    """(f)"""
    heading(f"(f) {count} idle sockets", "KB each", "connect s", "results s", "RSS MB", "CPU %")
    with deployed() as bench, baseline("autobahn_broadcast") as (bare_pid, bare_port):
        bench.server.value("mutation", "live:fill", {"count": 20, "bytes": 200})
        bench.load("subscribe", name="first", port=bench.port, sockets=10, path="live:list")
        bench.load("subscribe", name="first bare", port=bare_port, sockets=10, plain=True)
        for label, pid, port, extra in (
            ("bare Autobahn", bare_pid, bare_port, {"plain": True}),
            ("ours, each with one query", bench.pid, bench.port, {"path": "live:list"}),
        ):
            settle(1.0)
            before = memory(pid)[0]
            found = bench.load("subscribe", name=label, port=port, sockets=count, **extra)
            settle(2.0)
            after = memory(pid)[0]
            began, used = time.monotonic(), bench.cpu()
            settle(6.0)
            busy = (bench.cpu() - used).python / (time.monotonic() - began) * 100
            row(
                label,
                f"{(after - before) / count:.1f}",
                f"{found['connect_seconds']:.2f}",
                f"{found['results_seconds']:.2f}",
                f"{after / 1024:.0f}",
                f"{busy:.1f}" if pid == bench.pid else "",
            )
            bench.load("close", name=label)


def _until_answer(server: Server) -> float:
    began = time.monotonic()
    server.start()
    return time.monotonic() - began


def start_up() -> None:
    """(g)"""
    heading("(g) start-up: command to first answer", "s")
    fresh = []
    for _ in range(_STARTS):
        with tempfile.TemporaryDirectory(prefix="convex-backend-bench-") as name:
            server = Server(Path(name))
            fresh.append(_until_answer(server))
            server.stop()
    row("in an empty folder, best and median", f"{min(fresh):.2f}", f"{sorted(fresh)[_STARTS // 2]:.2f}")
    with tempfile.TemporaryDirectory(prefix="convex-backend-bench-") as name:
        folder = Path(name)
        (folder / "data").mkdir()
        server = Server(folder / "data")
        server.start()
        try:
            deploy(server, folder)
            server.stop()
            again, first = [], []
            for _ in range(_STARTS):
                began = time.monotonic()
                again.append(_until_answer(server))
                server.value("query", "calls:total")
                first.append(time.monotonic() - began)
                if len(first) < _STARTS:
                    server.stop()
            row("with an app deployed, best and median", f"{min(again):.2f}", f"{sorted(again)[_STARTS // 2]:.2f}")
            row("to the first result of a query", f"{min(first):.2f}", f"{sorted(first)[_STARTS // 2]:.2f}")
            _memory(server)
        finally:
            server.stop()


def _memory(server: Server) -> None:
    settle(4.0)
    assert server.process is not None
    heading("(g) memory at idle, after one query", "RSS MB", "PSS MB")
    rss, pss = memory(server.process.pid)
    row("Python", f"{rss / 1024:.0f}", f"{pss / 1024:.0f}")
    target("Python within 90 MB", rss <= _LIMIT_KB)
    for pid in descendants(server.process.pid):
        rss, pss = memory(pid)
        row(f"{command_of(pid).split()[0].rsplit('/', 1)[-1]} (child {pid})", f"{rss / 1024:.0f}", f"{pss / 1024:.0f}")
        target("a runner within 90 MB", rss <= _LIMIT_KB)
