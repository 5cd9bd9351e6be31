"""Metrics of the runner pools; one object for all pools of a server, the pool's kind is a label."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_WAIT_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0)


class PoolMetrics:
    """What the pools count. Labels come from closed sets."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.runs = Counter(
            "convex_functions_runs_total", "Runs that ended, by result", ["pool", "kind", "result"], registry=registry
        )
        self.cpu = Counter("convex_functions_cpu_seconds_total", "JavaScript thread time", ["pool"], registry=registry)
        self.running = Gauge("convex_functions_running", "Runs under way", ["pool"], registry=registry)
        self.waiting = Gauge("convex_functions_waiting", "Runs waiting for a slot", ["pool"], registry=registry)
        self.waited = Histogram(
            "convex_functions_wait_seconds",
            "Time until a slot was free, of runs that had to wait for one",
            ["pool"],
            buckets=_WAIT_BUCKETS,
            registry=registry,
        )
        self.parked = Gauge(
            "convex_functions_parked",
            "Runs that wait for another transaction and hold no slot meanwhile",
            ["pool"],
            registry=registry,
        )
        self.limits = Counter(
            "convex_functions_limit_hits_total",
            "Bounds that were met: user_time, system_time, action_time, memory, resident, syscall_queue, log_lines, frame",
            ["pool", "limit"],
            registry=registry,
        )
        self.unsent = Gauge(
            "convex_functions_unsent_bytes", "Bytes that the children have not read yet", ["pool"], registry=registry
        )
        self.refused = Counter(
            "convex_functions_refused_total",
            "Runs refused by a full queue or after too long a wait",
            ["pool"],
            registry=registry,
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
        self.realm_runs = Counter(
            "convex_functions_realm_runs_total",
            "Runs whose context may serve others, by what it was: reused, new, or mismatch (a sample that a fresh context answered otherwise)",
            ["pool", "context"],
            registry=registry,
        )
        self.realm_discards = Counter(
            "convex_functions_realm_discards_total",
            "Contexts dropped after a run: changed (by what the run did to the realm) or ended_badly",
            ["pool", "reason"],
            registry=registry,
        )
        self.realm_modules = Gauge(
            "convex_functions_realm_modules",
            "Modules called so far whose contexts serve many runs (realm), or had to stop doing so (fresh_only)",
            ["pool", "verdict"],
            registry=registry,
        )
        self.resident = Gauge(
            "convex_functions_children_resident_bytes", "Resident memory of all children", ["pool"], registry=registry
        )

    def of(self, pool: str) -> OnePool:
        """The metrics of the pool of kind *pool*."""
        return OnePool(self, pool)


class OnePool:
    """The metrics of one pool, looked up once."""

    def __init__(self, metrics: PoolMetrics, pool: str) -> None:
        self._metrics = metrics
        self._pool = pool
        self.cpu = metrics.cpu.labels(pool)
        self.running = metrics.running.labels(pool)
        self.waiting = metrics.waiting.labels(pool)
        self.waited = metrics.waited.labels(pool)
        self.parked = metrics.parked.labels(pool)
        self.refused = metrics.refused.labels(pool)
        self.replayed = metrics.replayed.labels(pool)
        self.resident = metrics.resident.labels(pool)
        self.unsent = metrics.unsent.labels(pool)

    def runs(self, kind: str, result: str) -> Counter:
        """The count of runs of functions of *kind* that ended with *result*."""
        return self._metrics.runs.labels(self._pool, kind, result)

    def realm_runs(self, context: str) -> Counter:
        """The count of runs in a context that was ``reused``, ``new`` or gave a ``mismatch``."""
        return self._metrics.realm_runs.labels(self._pool, context)

    def realm_discards(self, reason: str) -> Counter:
        """The count of contexts dropped for *reason*."""
        return self._metrics.realm_discards.labels(self._pool, reason)

    def realm_modules(self, verdict: str) -> Gauge:
        """The number of modules of *verdict*."""
        return self._metrics.realm_modules.labels(self._pool, verdict)

    def limits(self, limit: str) -> Counter:
        """The count of times that the bound *limit* was met."""
        return self._metrics.limits.labels(self._pool, limit)
