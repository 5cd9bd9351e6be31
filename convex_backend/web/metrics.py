"""Metrics of HTTP requests, and ``/metrics`` itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)


@attrs.define(slots=True)
class Outcome:
    """How a request ended: ``ok`` or the code of its error."""

    code: str = "ok"


class RequestMetrics:
    """Counts and times requests by route. Children are looked up once per route, since labels are costly."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._seconds = Histogram(
            "convex_http_request_seconds", "Time to answer, by route", ["route"], registry=registry, buckets=_BUCKETS
        )
        self._errors = Counter(
            "convex_http_request_errors_total", "Requests that were not answered with 200", ["route"], registry=registry
        )
        self._timers: dict[str, Histogram] = {}

    @contextmanager
    def timed(self, route: str) -> Iterator[Outcome]:
        """Time what is done inside."""
        timer = self._timers.get(route)
        if timer is None:
            timer = self._timers[route] = self._seconds.labels(route)
        outcome = Outcome()
        started = time.perf_counter()
        try:
            yield outcome
        finally:
            timer.observe(time.perf_counter() - started)
            if outcome.code != "ok":
                self._errors.labels(route).inc()

    def exposition(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)
