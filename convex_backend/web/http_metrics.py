"""Metrics of HTTP actions."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class HttpActionMetrics:
    """What the streams of HTTP actions count.

    :ivar open: requests under way, those included whose client is gone.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.open = 0
        Gauge("convex_http_actions_open", "HTTP actions under way", registry=registry).set_function(lambda: self.open)
        total = Counter(
            "convex_http_action_bytes_total",
            "Bytes of bodies of HTTP actions: in (requests) and out (responses)",
            ["direction"],
            registry=registry,
        )
        self.bytes_in = total.labels("in")
        self.bytes_out = total.labels("out")
        self.disconnects = Counter(
            "convex_http_action_disconnects_total",
            "Clients that left before the answer was complete",
            registry=registry,
        )
        self.stalled = Counter(
            "convex_http_action_stalled_total", "Clients cut off because they did not read", registry=registry
        )
