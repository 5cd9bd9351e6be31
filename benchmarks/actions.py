"""Actions of the default runtime and HTTP actions: how soon they begin, how many a second, how fast bodies stream.

Run it as ``python -m benchmarks.actions [seconds]``.
"""

from __future__ import annotations

import http.client
import statistics
import sys
import threading
import time

from benchmarks.calls import subject
from benchmarks.deployment import Bench, deployed
from benchmarks.processes import descendants, memory, settle
from benchmarks.report import heading, measure, row, table
from tests.e2e.raw_http import RawClient

CONNECTIONS = 16
MIB = 1024 * 1024
BODY_MIB = 19
STREAMS = 100


def _timed(bench: Bench) -> float:
    began = time.perf_counter()
    bench.server.value("action", "actions:nothing", {"n": 1})
    return (time.perf_counter() - began) * 1000


def _start_up(bench: Bench) -> None:
    heading("Start of an action")
    row("first action, its process not started", f"{_timed(bench):.0f} ms")
    settle(1.0)
    row("one after the other", f"p50 {statistics.median(_timed(bench) for _ in range(50)):.1f} ms")


def _rates(bench: Bench, seconds: float) -> None:
    bench.http("action", "action", "actions:nothing", [{"n": "@N@"}], CONNECTIONS)
    bench.http(
        "query",
        "query",
        "calls:read",
        [{"id": bench.server.value("mutation", "calls:addItem", {"key": 1, "text": "x"}), "nonce": "@N@"}],
        CONNECTIONS,
    )
    bodies = bench.load.file(["x" * 100])
    bench.load("http", name="http", port=bench.port, connections=CONNECTIONS, path="/http/small", bodies=bodies)
    found = measure(
        [
            subject(bench, "query, fresh context", "query"),
            subject(bench, "action", "action", "query, fresh context"),
            subject(bench, "HTTP action", "http", "query, fresh context"),
        ],
        seconds,
    )
    table(f"Rate, {CONNECTIONS} connections", found)


def _transfer(bench: Bench, path: str, body: bytes) -> int:
    """:returns: bytes received."""
    with RawClient(bench.port) as client:
        client.request("POST", path, f"Content-Length: {len(body)}", "Connection: close")
        sender = threading.Thread(target=client.send, args=(body,))
        sender.start()
        received = 0
        while got := client.socket.recv(1 << 18):
            received += len(got)
        sender.join()
    return received


def _streams(bench: Bench) -> None:
    heading(f"Bodies of {BODY_MIB} MiB")
    for name, path, body, moved in (
        ("made by the action", "/http/made", str(BODY_MIB).encode(), BODY_MIB),
        ("echo, in and out", "/http/echo", bytes(BODY_MIB * MIB), 2 * BODY_MIB),
    ):
        settle(0.5)
        before, began = bench.cpu(), time.perf_counter()
        for _ in range(3):
            assert _transfer(bench, path, body) > BODY_MIB * MIB
        took, used = time.perf_counter() - began, bench.cpu() - before
        row(
            name,
            f"{3 * moved / took:.0f} MB/s",
            f"  {used.python * 1000 / moved / 3:.1f} ms Python, {used.node * 1000 / moved / 3:.1f} ms Node a MB",
        )


def _resident(bench: Bench) -> tuple[float, float]:
    """MB of the server's own process and of its JavaScript processes."""
    return memory(bench.pid)[0] / 1024, sum(memory(child)[0] for child in descendants(bench.pid)) / 1024


def _stalled(bench: Bench) -> None:
    heading(f"{STREAMS} clients that ask for {BODY_MIB} MiB each and read nothing")
    settle(1.0)
    before = _resident(bench)
    clients = [RawClient(bench.port, receive_bytes=4096) for _ in range(STREAMS)]
    try:
        body = str(BODY_MIB).encode()
        for client in clients:
            client.request("POST", "/http/made", f"Content-Length: {len(body)}", body=body)
        for client in clients:
            client.until(b"\r\n\r\n")
        settle(2.0)
        now = _resident(bench)
        row("server's process", f"{now[0]:.0f} MB", f"  {before[0]:.0f} MB before")
        row("JavaScript processes", f"{now[1]:.0f} MB", f"  {before[1]:.0f} MB before")
        connection = http.client.HTTPConnection("127.0.0.1", bench.port)
        began = time.perf_counter()
        connection.request("POST", "/http/small", b"x")
        assert connection.getresponse().status == 200
        row("another HTTP action meanwhile", f"{(time.perf_counter() - began) * 1000:.0f} ms")
        connection.close()
    finally:
        for client in clients:
            client.reset()


def main(seconds: float) -> None:
    """Measure and print."""
    with deployed() as bench:
        _start_up(bench)
        _rates(bench, seconds)
        _streams(bench)
        _stalled(bench)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 30.0)
