"""(a) one-read queries and (b) durable inserts over HTTP; (c) transfers between accounts over HTTP and WebSocket."""

from __future__ import annotations

import bisect
import itertools
import random

from benchmarks.deployment import Bench, baseline, body, deployed
from benchmarks.processes import cpu_of
from benchmarks.report import Subject, heading, measure, row, table, target

CONNECTIONS = 16
TRANSFERRING = 50
BALANCE = 1000
ECHO = "bare Klein JSON echo"


def subject(bench: Bench, label: str, name: str, against: str | None = None) -> Subject:
    """The calls *name* of the load generator."""
    return Subject(label, lambda seconds: bench.load("run", name=name, seconds=seconds), bench.cpu, against)


def queries(seconds: float) -> None:
    """(a)"""
    with deployed() as bench, baseline("klein_echo") as (echo_pid, echo_port):
        item = bench.server.value("mutation", "calls:addItem", {"key": 1, "text": "x" * 100})
        request = [{"id": item, "nonce": 1}]
        bench.http("cached", "query", "calls:read", request, CONNECTIONS)
        fresh = [{"id": item, "nonce": "@N@"}]
        bench.http("fresh", "query", "calls:read", fresh, CONNECTIONS)
        bench.http("reused", "query", "reused:read", fresh, CONNECTIONS)
        bench.http("alone", "query", "calls:read", fresh, 1)
        bench.load(
            "http",
            name="echo",
            port=echo_port,
            connections=CONNECTIONS,
            path="/api/query",
            bodies=bench.load.file([body("calls:read", request[0])]),
        )
        echo = Subject(ECHO, lambda length: bench.load("run", name="echo", seconds=length), lambda: cpu_of(echo_pid))
        found = measure(
            [
                echo,
                subject(bench, "cached", "cached", ECHO),
                subject(bench, "uncached, fresh context", "fresh", ECHO),
                subject(bench, "uncached, module allows reuse", "reused", ECHO),
                subject(bench, "uncached, fresh context, 1 connection", "alone", ECHO),
            ],
            seconds,
        )
        table(f"(a) one-read query over HTTP, {CONNECTIONS} connections", found)
        ratio = found["cached"].median("rate") / found[ECHO].median("rate")
        target(f"cached query {ratio:.2f}x the echo, to reach 0.7x", ratio >= 0.7)


def inserts(seconds: float) -> None:
    """(b)"""
    with deployed() as bench, baseline("klein_echo") as (echo_pid, echo_port):
        args = [{"n": "@N@", "text": "x" * 100}]
        bench.http("insert", "mutation", "calls:insert", args, TRANSFERRING)
        bench.http("alone", "mutation", "calls:insert", args, 1)
        bench.sockets("socket", "calls:insert", args, TRANSFERRING)
        bench.load(
            "http",
            name="echo",
            port=echo_port,
            connections=TRANSFERRING,
            path="/api/query",
            bodies=bench.load.file([body("calls:insert", args[0])]),
        )
        echo = Subject(ECHO, lambda length: bench.load("run", name="echo", seconds=length), lambda: cpu_of(echo_pid))
        found = measure(
            [
                echo,
                subject(bench, f"HTTP, {TRANSFERRING} connections", "insert", ECHO),
                subject(bench, f"WebSocket, {TRANSFERRING} connections", "socket", ECHO),
                subject(bench, "HTTP, 1 connection", "alone", ECHO),
            ],
            seconds,
        )
        table("(b) durable insert, fresh context", found)


def pairs(ids: list[str], exponent: float, count: int) -> list[dict[str, object]]:
    """Arguments of *count* transfers between two accounts; the nth account is drawn in proportion to ``n ** -exponent``."""
    draw = random.Random(1)
    heights = list(itertools.accumulate((number + 1) ** -exponent for number in range(len(ids))))

    def one() -> str:
        return ids[bisect.bisect(heights, draw.random() * heights[-1])]

    found: list[dict[str, object]] = []
    while len(found) < count:
        source, sink = one(), one()
        if source != sink:
            found.append({"from": source, "to": sink, "amount": 1})
    return found


def transfers(seconds: float, accounts: int = 10_000) -> None:
    """(c)"""
    with deployed() as bench:
        ids: list[str] = []
        while len(ids) < accounts:
            some = {"first": len(ids), "count": min(1000, accounts - len(ids)), "balance": BALANCE}
            ids += bench.server.value("mutation", "calls:addAccounts", some)
        even, skewed = pairs(ids, 0.0, 20_000), pairs(ids, 1.5, 20_000)
        bench.http("http even", "mutation", "calls:transfer", even, TRANSFERRING)
        bench.http("http skewed", "mutation", "calls:transfer", skewed, TRANSFERRING)
        bench.sockets("socket even", "calls:transfer", even, TRANSFERRING)
        bench.sockets("socket skewed", "calls:transfer", skewed, TRANSFERRING)
        found = measure(
            [
                subject(bench, "HTTP, even", "http even"),
                subject(bench, "HTTP, Zipf 1.5", "http skewed", "HTTP, even"),
                subject(bench, "WebSocket, even", "socket even"),
                subject(bench, "WebSocket, Zipf 1.5", "socket skewed", "WebSocket, even"),
            ],
            seconds,
        )
        table(f"(c) transfer between two of {accounts} accounts, {TRANSFERRING} clients", found)
        total = bench.server.value("query", "calls:total")
        heading("    afterwards")
        row("sum of balances", f"{total:.0f}", "as before" if total == accounts * BALANCE else "WRONG")
        target("no failed call", sum(one.total("failed") for one in found.values()) == 0)
        for kind in ("HTTP", "WebSocket"):
            ratio = found[f"{kind}, Zipf 1.5"].median("rate") / found[f"{kind}, even"].median("rate")
            target(f"{kind}: skewed {ratio:.2f}x even, to reach 0.8x", ratio >= 0.8)
