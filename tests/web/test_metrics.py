"""``/metrics`` and the counts of requests."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred

from convex_backend.web.metrics import RequestMetrics
from tests.web.support import Bench


def samples(text: bytes) -> dict[tuple[str, str, str], float]:
    """Value by (name, route, upper bound)."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found[sample.name, sample.labels.get("route", ""), sample.labels.get("le", "")] = sample.value
    return found


def test_exposition() -> None:
    """Answers are counted and timed by route, errors as such, requests under way as they are."""
    bench = Bench()
    Counter("others_total", "Of another room", registry=bench.registry).inc()
    for body in (b'{"path":"a:b"}', b'{"path":"a:b"}', b"{"):
        bench.ask("POST", "/api/query", body)
    bench.ask("POST", "/api/push_config", b"")
    bench.application.answer = Deferred()
    bench.begin("POST", "/api/mutation", {"path": "a:b"})
    answer = bench.ask("GET", "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = samples(answer.body)
    assert found["convex_http_request_seconds_count", "query", ""] == 3
    assert found["convex_http_request_errors_total", "query", ""] == 1
    assert found["convex_http_request_errors_total", "not_available", ""] == 1
    assert found["convex_http_requests_in_flight", "", ""] == 1
    assert found["others_total", "", ""] == 1
    assert ("convex_http_request_seconds_count", "mutation", "") not in found


@pytest.mark.parametrize(
    ("seconds", "bound"), [(0.0, "0.001"), (0.001, "0.001"), (0.0011, "0.0025"), (59.0, "60.0"), (61.0, "+Inf")]
)
def test_buckets(seconds: float, bound: str) -> None:
    """A time counts in the first bucket that is not below it and in every larger one."""
    registry = CollectorRegistry()
    metrics = RequestMetrics(registry, lambda: 0)
    metrics.series("x").observe(seconds)
    found = samples(metrics.exposition())
    buckets = {le: value for (name, _, le), value in found.items() if name.endswith("_bucket")}
    first = min((le for le, value in buckets.items() if value), key=float)
    assert first == bound
    assert buckets["+Inf"] == 1
    assert found["convex_http_request_seconds_sum", "x", ""] == seconds


def test_two_sites_do_not_collide() -> None:
    """Each site has the registry that it was given."""
    first, second = Bench(), Bench()
    first.ask("GET", "/version")
    assert ("convex_http_request_seconds_count", "version", "") not in samples(second.ask("GET", "/metrics").body)
