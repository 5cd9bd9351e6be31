"""Counts of the live sockets, kept as plain integers: a broadcast to thousands of sockets must not take a lock for each."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_KINDS = ("Connect", "ModifyQuerySet", "Mutation", "Action", "Authenticate", "Event", "invalid")


class SyncMetrics(Collector):
    """What ``/metrics`` says of the sync sockets.

    :param registry: where this collector registers itself.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.connections = 0
        self.opened = 0
        self.transitions = 0
        self.transition_bytes = 0
        self.queued_mutations = 0
        self.running_actions = 0
        self.messages = dict.fromkeys(_KINDS, 0)
        self.closes: dict[int, int] = {}
        registry.register(self)

    def closed_by_server(self, code: int | None) -> None:
        """A close frame was sent; an empty one counts as 1005."""
        code = 1005 if code is None else code
        self.closes[code] = self.closes.get(code, 0) + 1

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        yield GaugeMetricFamily("convex_sync_connections", "Open sync sockets", self.connections)
        yield CounterMetricFamily("convex_sync_opened_total", "Sync sockets opened", self.opened)
        yield CounterMetricFamily("convex_sync_transitions_total", "Transitions sent", self.transitions)
        yield CounterMetricFamily(
            "convex_sync_transition_bytes_total", "Bytes of Transitions sent", self.transition_bytes
        )
        yield GaugeMetricFamily(
            "convex_sync_queued_mutations", "Mutations waiting on their sockets", self.queued_mutations
        )
        yield GaugeMetricFamily(
            "convex_sync_running_actions", "Actions of sync sockets under way", self.running_actions
        )
        messages = CounterMetricFamily("convex_sync_messages_total", "Messages from clients", labels=["type"])
        for kind, count in self.messages.items():
            messages.add_metric([kind], count)
        yield messages
        closes = CounterMetricFamily("convex_sync_server_closes_total", "Close frames begun here", labels=["code"])
        for code, count in self.closes.items():
            closes.add_metric([str(code)], count)
        yield closes
