"""Metrics of the runner pools; one object for all pools of a server, the pool's kind is a label."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class PoolMetrics:
    """What the pools count. Labels come from closed sets."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.runs = Counter(
            "convex_functions_runs_total", "Runs that ended, by result", ["pool", "kind", "result"], registry=registry
        )
        self.cpu = Counter("convex_functions_cpu_seconds_total", "JavaScript thread time", ["pool"], registry=registry)
        self.running = Gauge("convex_functions_running", "Runs under way", ["pool"], registry=registry)
        self.waiting = Gauge("convex_functions_waiting", "Runs waiting for a slot", ["pool"], registry=registry)
        self.refused = Counter(
            "convex_functions_refused_total", "Runs refused by a full queue", ["pool"], registry=registry
        )
        self.replayed = Counter(
            "convex_functions_replayed_total", "Runs tried again after a lost child", ["pool"], registry=registry
        )
        self.children = Gauge("convex_functions_children", "Live child processes", ["pool"], registry=registry)
        self.lost = Counter(
            "convex_functions_children_lost_total",
            "Children that ended, by reason",
            ["pool", "reason"],
            registry=registry,
        )
        self.resident = Gauge(
            "convex_functions_children_resident_bytes", "Resident memory of all children", ["pool"], registry=registry
        )
