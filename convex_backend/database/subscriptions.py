"""Read sets that are watched: a subscription hears once of the first durable commit that touches what was read (A4, A8).

Points are found by hash, intervals by an interval map per index, so a commit costs O(written keys × log n + hits), however many subscriptions
it does not touch. Subscriptions with equal read sets share one registration. Source: ``runtime.md`` section 10.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from prometheus_client import CollectorRegistry, Counter, Gauge
from twisted.logger import Logger

from convex_backend.database.committer import Committer
from convex_backend.database.interval_map import IntervalMap
from convex_backend.database.reads import Point, ReadToken
from convex_backend.database.write_log import CommitEvent


class _Watched:
    """One read set and everybody who watches it."""

    __slots__ = ("subscriptions", "token")

    def __init__(self, token: ReadToken) -> None:
        self.token = token
        self.subscriptions: dict[Subscription, None] = {}


class Subscription:
    """One watcher of one read set.

    :ivar invalid_ts: the commit that overtook the read set, or ``None`` while it holds.
    """

    __slots__ = ("_manager", "_watched", "invalid_ts", "on_invalid", "silent")

    def __init__(self, manager: SubscriptionManager, on_invalid: Callable[[int], None]) -> None:
        self._manager = manager
        self._watched: _Watched | None = None
        self.on_invalid = on_invalid
        self.invalid_ts: int | None = None
        self.silent = False

    @property
    def active(self) -> bool:
        """Whether it may still hear of a commit."""
        return self._watched is not None

    def unsubscribe(self) -> None:
        """Stop watching: ``on_invalid`` is not called any more. A second call does nothing."""
        self._manager.remove(self)


class SubscriptionManager:
    """All subscriptions of the deployment; hears of durable commits from *committer*.

    :param registry: where the metrics go.
    :param random: shapes the interval maps.
    """

    _log = Logger()

    def __init__(self, committer: Committer, registry: CollectorRegistry, *, random: Random | None = None) -> None:
        self._committer = committer
        self._random = random or Random(0)
        self._watched: dict[ReadToken, _Watched] = {}
        self._points: dict[Point, set[_Watched]] = {}
        self._intervals: dict[int, IntervalMap[_Watched]] = {}
        self._count = 0
        self._invalidated_total = Counter(
            "convex_database_subscriptions_invalidated_total", "Subscriptions ended by a commit.", registry=registry
        )
        Gauge("convex_database_subscriptions", "Active subscriptions.", registry=registry).set_function(
            lambda: self._count
        )
        Gauge("convex_database_watched_read_sets", "Different read sets watched.", registry=registry).set_function(
            lambda: len(self._watched)
        )
        committer.on_durable.append(self.advance)

    def __len__(self) -> int:
        """Active subscriptions."""
        return self._count

    def subscribe(self, token: ReadToken, since_ts: int, on_invalid: Callable[[int], None]) -> Subscription:
        """Watch *token*, which was read at *since_ts* (not above ``durable_ts``).

        Durable commits after *since_ts* are checked at once, so there is no gap: when one of them touches the read set, ``on_invalid`` is
        called before this returns, and the subscription is not active. So it is when *since_ts* is older than the write log: then
        nothing is known, and the timestamp given is ``since_ts + 1``.

        :param on_invalid: called once, with the timestamp of the first durable commit that touches *token*. Later calls come from inside the
            commit's publication: it marks and returns; it may subscribe and unsubscribe.
        """
        subscription = Subscription(self, on_invalid)
        invalid_ts = self._overtaken(token, since_ts)
        if invalid_ts is not None:
            subscription.invalid_ts = invalid_ts
            self._invalidated_total.inc()
            on_invalid(invalid_ts)
            return subscription
        watched = self._watched.get(token)
        if watched is None:
            watched = self._register(token)
        watched.subscriptions[subscription] = None
        subscription._watched = watched
        self._count += 1
        return subscription

    def _overtaken(self, token: ReadToken, since_ts: int) -> int | None:
        """Timestamp of the first durable commit after *since_ts* that touches *token*."""
        log, durable_ts = self._committer.write_log, self._committer.durable_ts
        conflict = log.conflict(token, since_ts, durable_ts)
        if conflict is None:
            return None
        if conflict.too_old:
            return since_ts + 1
        for event in log.events_between(since_ts, conflict.ts):
            if any(token.overlaps(index, key) for index, key in event.keys):
                return event.ts
        return conflict.ts

    def remove(self, subscription: Subscription) -> None:
        """Same as ``subscription.unsubscribe()``."""
        subscription.silent = True
        watched = subscription._watched
        if watched is None:
            return
        subscription._watched = None
        del watched.subscriptions[subscription]
        self._count -= 1
        if not watched.subscriptions:
            self._forget(watched)

    def advance(self, events: list[CommitEvent]) -> None:
        """Durable commits, ascending: end the subscriptions that they touch."""
        if not self._watched:
            return
        for event in events:
            hits = self._hits(event)
            if hits:
                self._invalidate(hits, event.ts)

    def _hits(self, event: CommitEvent) -> set[_Watched] | None:
        points, intervals = self._points, self._intervals
        hits: set[_Watched] | None = None
        for point in event.keys:
            watched = points.get(point)
            if watched:
                hits = set(watched) if hits is None else hits | watched
            tree = intervals.get(point[0])
            if tree is not None:
                stabbed = tree.stab(point[1])
                if stabbed:
                    hits = stabbed if hits is None else hits | stabbed
        return hits

    def _invalidate(self, hits: set[_Watched], ts: int) -> None:
        ended: list[Subscription] = []
        for watched in hits:
            for subscription in watched.subscriptions:
                subscription._watched = None
                subscription.invalid_ts = ts
                ended.append(subscription)
            watched.subscriptions.clear()
            self._forget(watched)
        self._count -= len(ended)
        self._invalidated_total.inc(len(ended))
        for subscription in ended:
            if subscription.silent:  # an earlier one of these unsubscribed it
                continue
            try:
                subscription.on_invalid(ts)
            except Exception:  # noqa: BLE001 - one subscriber's fault must not keep others from hearing
                self._log.failure("a subscriber failed on the commit {ts}", ts=ts)

    def _register(self, token: ReadToken) -> _Watched:
        watched = self._watched[token] = _Watched(token)
        points = self._points
        for point in token.points:
            at_point = points.get(point)
            if at_point is None:
                points[point] = {watched}
            else:
                at_point.add(watched)
        for index, lower, upper in token.each_interval():
            tree = self._intervals.get(index)
            if tree is None:
                tree = self._intervals[index] = IntervalMap(self._random)
            tree.insert(lower, upper, watched)
        return watched

    def _forget(self, watched: _Watched) -> None:
        token = watched.token
        del self._watched[token]
        points = self._points
        for point in token.points:
            at_point = points[point]
            at_point.discard(watched)
            if not at_point:
                del points[point]
        for index, lower, upper in token.each_interval():
            tree = self._intervals[index]
            tree.remove(lower, upper, watched)
            if not tree:
                del self._intervals[index]
