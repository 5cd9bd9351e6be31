"""Metrics of HTTP requests, and the text of ``/metrics``.

A request costs one list increment here; the families that Prometheus wants are made when it asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
_BOUNDS = (*map(str, _BUCKETS), "+Inf")


class RouteSeries:
    """Counts of one route: answers by time, seconds in all, errors."""

    __slots__ = ("counts", "errors", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * len(_BOUNDS)
        self.errors = 0
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Count an answer that took *seconds*."""
        self.counts[bisect_left(_BUCKETS, seconds)] += 1
        self.seconds += seconds


class RequestMetrics(Collector):
    """Counts and times requests by route.

    ``convex_http_request_seconds`` (histogram), ``convex_http_request_errors_total`` and ``convex_http_requests_in_flight``.

    :param in_flight: how many requests are under way.
    """

    def __init__(self, registry: CollectorRegistry, in_flight: Callable[[], int]) -> None:
        self._registry = registry
        self._in_flight = in_flight
        self._series: dict[str, RouteSeries] = {}
        registry.register(self)

    def series(self, route: str) -> RouteSeries:
        """The counts of *route*, a name from the closed set of route names; routes of one name share them."""
        return self._series.setdefault(route, RouteSeries())

    def describe(self) -> Iterable[Metric]:
        """See ``prometheus_client.registry.Collector``: the names, without values."""
        return self._families()

    def collect(self) -> Iterable[Metric]:
        """See ``prometheus_client.registry.Collector``. Routes that nobody has asked for yet are left out."""
        seconds, errors, in_flight = self._families()
        for route, series in self._series.items():
            if any(series.counts):
                cumulative = map(float, accumulate(series.counts))
                seconds.add_metric([route], list(zip(_BOUNDS, cumulative, strict=True)), series.seconds)
                errors.add_metric([route], series.errors)
        in_flight.add_metric([], self._in_flight())
        return seconds, errors, in_flight

    @staticmethod
    def _families() -> tuple[HistogramMetricFamily, CounterMetricFamily, GaugeMetricFamily]:
        return (
            HistogramMetricFamily("convex_http_request_seconds", "Time to answer, by route", labels=["route"]),
            CounterMetricFamily(
                "convex_http_request_errors", "Requests that were answered with an error, by route", labels=["route"]
            ),
            GaugeMetricFamily("convex_http_requests_in_flight", "Requests under way", labels=[]),
        )

    def exposition(self) -> bytes:
        """The Prometheus text format of everything in the registry."""
        return generate_latest(self._registry)
