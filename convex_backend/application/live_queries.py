"""Shared live queries, rounds and the result cache (A7).

One :class:`SharedQuery` per (component, path, canonical arguments, journal, access level) and, where the function looked at
it, identity. Any number of subscribers cost one run and one serialisation per change; the same entries answer HTTP queries.

An entry holds at most two versions, each valid for a span of timestamps ``[from_ts, until_ts)``::

    commits     ----a--------b-------c------->        a, b, c touch what the entry read
    version 1       [from....until)
    version 2                [from...until)           run at a round's timestamp T >= b
                             ^ T

A commit that touches an entry's read set ends its newest version's span and makes the entry *stale*. Stale entries that somebody
subscribes to are run again in *rounds*: a round pins one durable timestamp T and runs them all at T. Two rounds may overlap, so one slow
query does not hold up the rest; an entry that is invalidated while it runs is run once more, in a later round. A client's
update is taken at one timestamp that lies in a span of each of its entries; a client for which no such timestamp appears (its slow
entry is always two rounds behind its fast one) has its missing results evaluated privately at one timestamp.

Who may see a query is decided by each run from the access level in the key, and redaction by each reader: entries store neither.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Protocol

import attrs
from prometheus_client import CollectorRegistry, Counter, Gauge
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from convex_backend.application.query_results import Evaluation, query_result
from convex_backend.application.types import Identity, LiveUpdate, QueryResult, QuerySpec
from convex_backend.deferreds import Waiters, run_detached
from convex_backend.errors import ConvexError, ServerFault, Transient

#: Results that depend on the clock are given to newcomers for this long (``runtime.md`` section 10).
TIME_DEPENDENT_SECONDS = 17.0
#: Runs of rounds under way at once, beside one-shot queries. Two for each child keep it busy while Python serves the other one; more
#: would only stand in its queue, where the start of a mutation then waits behind them.
PARALLEL_RUNS = 4
#: Rounds under way at once.
PARALLEL_ROUNDS = 2
#: Clients told of new results in one turn of the reactor, so that a broadcast does not hold up everything else.
CLIENTS_PER_TURN = 100
#: A client whose entries do not meet at one timestamp is evaluated privately after this many rounds.
PRIVATE_AFTER = 4
#: Bounds of the cache of entries that nobody subscribes to.
CACHE_ENTRIES = 10_000
CACHE_BYTES = 64 * 1024 * 1024

#: Component path, canonical function path, canonical arguments, journal, access level of the caller.
QueryKey = tuple[str, str, bytes, str | None, int]


class QueryEvaluator(Protocol):
    """Runs queries for this room; implemented by ``application/run_query.py``."""

    def key(self, query: QuerySpec, identity: Identity) -> QueryKey:
        """Canonical key. :raises BadRequest: the path cannot be parsed."""

    async def evaluate(self, key: QueryKey, identity: Identity, ts: int | None) -> Evaluation:
        """Run at *ts* (``None`` = the newest durable timestamp). Function failures are results.

        :raises Transient, ServerFault: nothing could be computed now.
        """


class Database(Protocol):
    """What this room needs of the database."""

    @property
    def durable_ts(self) -> int: ...

    def pin(self, ts: int) -> Callable[[], None]:
        """Keep reads at *ts* cheap until the returned function is called."""

    def watch(self, evaluation: Evaluation, on_invalid: Callable[[int], None]) -> Callable[[], None]:
        """Call *on_invalid(commit ts)* once at the first durable commit after the evaluation that touches what it read; at once if there is
        one already. :returns: a function that stops watching."""


@attrs.define(eq=False, slots=True)
class Version:
    """One result and the span of timestamps ``[from_ts, until_ts)`` at which it is the truth (``until_ts`` ``None`` = still)."""

    evaluation: Evaluation
    result: QueryResult
    from_ts: int
    until_ts: int | None = None

    def covers(self, ts: int) -> bool:
        return self.from_ts <= ts and (self.until_ts is None or ts < self.until_ts)


def _nothing() -> None:
    """The stop function of a version that is no longer watched."""


@attrs.define(eq=False, slots=True)
class SharedQuery:
    """One entry: see the top of the file."""

    key: QueryKey
    identity: Identity
    slots: set[Slot] = attrs.field(factory=set)
    current: Version | None = None
    previous: Version | None = None
    running: bool = False
    registered: bool = True
    fresh_until: float = float("inf")
    stop_watching: Callable[[], None] = _nothing
    failures: int = 0
    waiters: Waiters[Version] = attrs.field(factory=Waiters)
    run_ts: int = 0

    @property
    def valid(self) -> bool:
        return self.current is not None and self.current.until_ts is None

    @property
    def cost_bytes(self) -> int:
        return 500 + len(self.key[2]) + (len(self.current.result.body) * 2 if self.current else 0)


@attrs.define(eq=False, slots=True)
class Base:
    """All entries of one key: one for everybody, or one for each identity once a run has looked at it."""

    observes_identity: bool = False
    entries: dict[str | None, SharedQuery] = attrs.field(factory=dict)


@attrs.define(eq=False, slots=True)
class Slot:
    """One client's subscription to one entry.

    :param delivered: digest of what the client was last given.
    :param waits: counted in the client's number of entries that are not valid; ``first``: and has never had a version.
    """

    client: ClientQueries
    query_id: int
    query: QuerySpec
    entry: SharedQuery
    delivered: bytes | None = None
    waits: bool = False
    first: bool = False
    private: Version | None = None


@attrs.define(eq=False, slots=True)
class Round:
    """Entries that are run at one timestamp."""

    ts: int
    left: int
    unpin: Callable[[], None]


class ClientQueries:
    """A connection's live queries: :class:`~convex_backend.application.types.LiveClient`."""

    def __init__(self, live: LiveQueries, identity: Identity, on_ready: Callable[[], None]) -> None:
        self._live = live
        self._identity = identity
        self._on_ready: Callable[[], None] | None = on_ready
        self._slots: dict[int, Slot] = {}
        self._changed: set[Slot] = set()
        self._waiting_slots = 0
        self._first_runs = 0
        self._ts = 0
        self._asked = False
        self._asked_at_round = 0
        self._private_running = False
        self.queued = False

    def add(self, query_id: int, query: QuerySpec) -> None:
        """Subscribe; see ``LiveClient``."""
        entry = self._live.entry(self._live.evaluator.key(query, self._identity), self._identity)
        slot = self._slots[query_id] = Slot(self, query_id, query, entry)
        self._attach(slot)

    def remove(self, query_id: int) -> None:
        """Unsubscribe; see ``LiveClient``."""
        slot = self._slots.pop(query_id)
        self._changed.discard(slot)
        self._detach(slot)

    def set_identity(self, identity: Identity) -> None:
        """Move every subscription to *identity*; see ``LiveClient``."""
        self._identity = identity
        for slot in self._slots.values():
            # The journal that the query has by now: the pages that the client shows must not shift.
            query = attrs.evolve(slot.query, journal=slot.entry.key[3])
            entry = self._live.entry(self._live.evaluator.key(query, identity), identity)
            if entry is not slot.entry:
                self.move(slot, entry)

    def move(self, slot: Slot, entry: SharedQuery) -> None:
        """Subscribe *slot* to another entry in place of its own."""
        self._detach(slot)
        slot.entry = entry
        slot.private = None
        self._attach(slot)

    def _attach(self, slot: Slot) -> None:
        entry = slot.entry
        entry.slots.add(slot)
        self._changed.add(slot)
        self._live.subscribed(entry)
        if not entry.valid:
            self.stale(slot)
        if entry.current is None:
            slot.first = True
            self._first_runs += 1

    def _detach(self, slot: Slot) -> None:
        if slot.waits:
            slot.waits = False
            self._waiting_slots -= 1
        if slot.first:
            slot.first = False
            self._first_runs -= 1
        slot.entry.slots.discard(slot)
        self._live.unsubscribed(slot.entry)

    @property
    def identity(self) -> Identity:
        """The identity that the client's queries run under."""
        return self._identity

    def stale(self, slot: Slot) -> None:
        """The slot's entry is no longer valid."""
        if not slot.waits:
            slot.waits = True
            self._waiting_slots += 1

    def fresh(self, slot: Slot, version: Version) -> bool:
        """The slot's entry has a new version. :returns: whether the client should be told."""
        if slot.first:
            slot.first = False
            self._first_runs -= 1
        if slot.waits and slot.entry.valid:
            slot.waits = False
            self._waiting_slots -= 1
        if version.result.digest != slot.delivered:
            self._changed.add(slot)
            return True
        return self._asked

    def take(self, at_least: int) -> LiveUpdate | None:
        """The next consistent update; see ``LiveClient``."""
        if self._waiting_slots == 0:
            ts = self._live.database.durable_ts
            if ts >= at_least:
                changed = self._changed_at_newest()
                return self._update(ts, changed)
        elif self._first_runs == 0:
            found = self._meeting_point(max(at_least, self._ts))
            if found is not None:
                return self._update(*found)
        if not self._asked:
            self._asked = True
            self._asked_at_round = self._live.rounds_done
        elif (
            self._first_runs == 0
            and not self._private_running
            and self._live.rounds_done - self._asked_at_round >= PRIVATE_AFTER
        ):
            self._private_running = True
            run_detached("private evaluation", self._evaluate_privately())
        return None

    def _update(self, ts: int, changed: list[tuple[int, QueryResult]]) -> LiveUpdate:
        self._asked = False
        self._ts = max(ts, self._ts)
        changed.sort(key=_first)
        return LiveUpdate(self._ts, tuple(changed))

    def _changed_at_newest(self) -> list[tuple[int, QueryResult]]:
        changed: list[tuple[int, QueryResult]] = []
        for slot in self._changed:
            assert slot.entry.current is not None
            result = slot.entry.current.result
            slot.private = None
            if result.digest != slot.delivered:
                slot.delivered = result.digest
                changed.append((slot.query_id, result))
        self._changed.clear()
        return changed

    def _meeting_point(self, lowest: int) -> tuple[int, list[tuple[int, QueryResult]]] | None:
        """The greatest timestamp at or above *lowest* that lies in a span of every entry, with what changed by then."""
        candidates: set[int] = {self._live.database.durable_ts}
        for slot in self._slots.values():
            for version in (slot.entry.current, slot.entry.previous, slot.private):
                if version is not None and version.until_ts is not None:
                    candidates.add(version.until_ts - 1)
        for ts in sorted(candidates, reverse=True):
            if ts < lowest:
                break
            versions = self._versions_at(ts)
            if versions is None:
                continue
            changed: list[tuple[int, QueryResult]] = []
            for slot, version in versions:
                slot.private = None
                if version.result.digest != slot.delivered:
                    slot.delivered = version.result.digest
                    changed.append((slot.query_id, version.result))
                newest = slot.entry.current
                if newest is None or newest.result.digest == slot.delivered:
                    self._changed.discard(slot)
                else:
                    self._changed.add(slot)
            return ts, changed
        return None

    def _versions_at(self, ts: int) -> list[tuple[Slot, Version]] | None:
        versions: list[tuple[Slot, Version]] = []
        for slot in self._slots.values():
            entry = slot.entry
            for version in (entry.current, entry.previous, slot.private):
                if version is not None and version.covers(ts):
                    versions.append((slot, version))
                    break
            else:
                return None
        return versions

    def notify(self) -> None:
        """Tell the connection that asking again is worth while."""
        self.queued = False
        if self._on_ready is not None:
            self._on_ready()

    async def _evaluate_privately(self) -> None:
        ts = self._live.database.durable_ts
        unpin = self._live.database.pin(ts)
        try:
            missing: list[Slot] = []
            for slot in self._slots.values():
                entry = slot.entry
                # What covers this timestamp now is kept: the entry may be two versions on when the others have been evaluated.
                slot.private = next(
                    (v for v in (entry.current, entry.previous) if v is not None and v.covers(ts)), None
                )
                if slot.private is None:
                    missing.append(slot)
            for slot in missing:
                if self._slots.get(slot.query_id) is not slot:
                    continue
                entry, identity = slot.entry, self._identity
                evaluation = await self._live.evaluator.evaluate(entry.key, identity, ts)
                same = not evaluation.observed_identity or self._identity.key == identity.key
                if slot.entry is entry and same:
                    # The span is one timestamp: nothing watches a private version.
                    slot.private = Version(evaluation, query_result(evaluation), ts, ts + 1)
        except (Transient, ServerFault) as error:
            self._live.log_failure(error)
        finally:
            unpin()
            self._private_running = False
            self._asked_at_round = self._live.rounds_done
            if self._on_ready is not None:
                self._on_ready()

    def close(self) -> None:
        """Drop every subscription."""
        self._on_ready = None
        for slot in self._slots.values():
            self._detach(slot)
        self._slots.clear()
        self._changed.clear()


def _first(pair: tuple[int, QueryResult]) -> int:
    return pair[0]


class LiveQueries:
    """All shared queries of the deployment.

    :param reactor: timers; every delayed call is cancelled by :meth:`stop`.
    :param parallel_runs: runs of rounds under way at once.
    """

    _log = Logger()

    def __init__(
        self,
        evaluator: QueryEvaluator,
        database: Database,
        reactor: IReactorTime,
        registry: CollectorRegistry,
        *,
        parallel_runs: int = PARALLEL_RUNS,
    ) -> None:
        self.evaluator = evaluator
        self.database = database
        self._reactor = reactor
        self._parallel_runs = parallel_runs
        self._bases: dict[QueryKey, Base] = {}
        self._idle: OrderedDict[SharedQuery, int] = OrderedDict()
        self._idle_bytes = 0
        self._stale: dict[SharedQuery, None] = {}
        self._queue: deque[tuple[SharedQuery, Round]] = deque()
        self._rounds: set[Round] = set()
        #: Rounds that have ended since the start; clients measure their patience by it.
        self.rounds_done = 0
        self._runs = 0
        self._to_notify: deque[ClientQueries] = deque()
        self._timers: set[IDelayedCall] = set()
        self._pump_scheduled = False
        self._starting = False
        self._notify_scheduled = False
        self._stopped = False
        self._hits = Counter("convex_query_cache_hits_total", "Queries answered from a shared entry", registry=registry)
        self._misses = Counter("convex_query_cache_misses_total", "Queries that had to run", registry=registry)
        self._reruns = Counter(
            "convex_live_query_reruns_total", "Runs of subscribed queries in rounds", registry=registry
        )
        entries = Gauge("convex_live_query_entries", "Shared query entries, cached ones included", registry=registry)
        entries.set_function(lambda: len(self._bases))
        cached = Gauge("convex_query_cache_bytes", "Bytes of entries that nobody subscribes to", registry=registry)
        cached.set_function(lambda: self._idle_bytes)

    def connect(self, identity: Identity, on_ready: Callable[[], None]) -> ClientQueries:
        """See ``Live``."""
        return ClientQueries(self, identity, on_ready)

    def stop(self) -> None:
        """Cancel every timer; results that arrive later are dropped."""
        self._stopped = True
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    # -- one-shot queries ---------------------------------------------------------------------------------------------

    def cached(self, key: QueryKey, identity: Identity) -> Version | None:
        """A version that is valid now for this caller, without running anything."""
        base = self._bases.get(key)
        if base is None:
            return None
        entry = base.entries.get(identity.key if base.observes_identity else None)
        if entry is None or not entry.valid or self._reactor.seconds() > entry.fresh_until:
            return None
        assert entry.current is not None
        if entry.current.evaluation.failed:
            # A subscriber has it, but failures are not cached (``runtime.md`` section 10).
            return None
        if entry in self._idle:
            self._idle.move_to_end(entry)
        self._hits.inc()
        return entry.current

    async def query(self, key: QueryKey, identity: Identity) -> Version:
        """The result at a timestamp that is not before now: from the cache, from a run under way, or by running.

        :raises Transient, ServerFault: it could not be computed.
        """
        cached = self.cached(key, identity)
        if cached is not None:
            return cached
        self._misses.inc()
        entry = self.entry(key, identity)
        now = self.database.durable_ts
        if entry.running:
            # A run that began before what this caller may already have seen must not answer it.
            if entry.run_ts >= now and entry.identity.key == identity.key:
                return await entry.waiters.wait()
            evaluation = await self.evaluator.evaluate(key, identity, None)
            return Version(evaluation, query_result(evaluation), evaluation.ts)
        waiter = entry.waiters.wait()
        self._stale.pop(entry, None)
        self._start(entry, None, identity)
        return await waiter

    # -- entries ------------------------------------------------------------------------------------------------------

    def entry(self, key: QueryKey, identity: Identity) -> SharedQuery:
        """The entry of *key* for *identity*, made if there is none."""
        base = self._bases.get(key)
        if base is None:
            base = self._bases[key] = Base()
        name = identity.key if base.observes_identity else None
        entry = base.entries.get(name)
        if entry is None:
            entry = base.entries[name] = SharedQuery(key, identity)
        return entry

    def subscribed(self, entry: SharedQuery) -> None:
        """A slot was added to *entry*: it leaves the cache's order, and runs if it has nothing to show."""
        self._leave_idle(entry)
        if entry.valid and self._reactor.seconds() > entry.fresh_until:
            entry.stop_watching()
            self._invalidated(entry, self.database.durable_ts)
        if not entry.valid:
            self._mark_stale(entry)

    def unsubscribed(self, entry: SharedQuery) -> None:
        """A slot left *entry*: without any other it stays cached while it is valid, else it goes."""
        if entry.slots or entry.running:
            return
        self._stale.pop(entry, None)
        if entry.valid and entry.registered and not entry.current.evaluation.failed:  # type: ignore[union-attr]
            self._keep_idle(entry)
        else:
            self._drop(entry)

    def _leave_idle(self, entry: SharedQuery) -> None:
        self._idle_bytes -= self._idle.pop(entry, 0)

    def _keep_idle(self, entry: SharedQuery) -> None:
        self._leave_idle(entry)
        cost = entry.cost_bytes
        self._idle[entry] = cost
        self._idle_bytes += cost
        while len(self._idle) > CACHE_ENTRIES or self._idle_bytes > CACHE_BYTES:
            oldest, oldest_cost = self._idle.popitem(last=False)
            self._idle_bytes -= oldest_cost
            self._drop(oldest)

    def _drop(self, entry: SharedQuery) -> None:
        entry.stop_watching()
        entry.stop_watching = _nothing
        if not entry.registered:
            return
        entry.registered = False
        base = self._bases.get(entry.key)
        if base is None:
            return
        for name, other in list(base.entries.items()):
            if other is entry:
                del base.entries[name]
        if not base.entries:
            del self._bases[entry.key]

    # -- invalidation and rounds ----------------------------------------------------------------------------------------

    def _invalidated(self, entry: SharedQuery, ts: int) -> None:
        entry.stop_watching = _nothing
        current = entry.current
        if current is None or current.until_ts is not None:
            return
        # A version taken at ts itself keeps an empty span: it is never shown as valid afterwards.
        current.until_ts = max(ts, current.from_ts)
        if entry in self._idle:
            self._leave_idle(entry)
            self._drop(entry)
            return
        for slot in entry.slots:
            slot.client.stale(slot)
        self._mark_stale(entry)

    def _mark_stale(self, entry: SharedQuery) -> None:
        if entry.running or self._stopped:
            return
        self._stale[entry] = None
        if not self._pump_scheduled:
            self._pump_scheduled = True
            # In the next turn: commits that become durable together make one round.
            self._later(0, self._pump)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        if self._stopped:
            return

        def fire() -> None:
            self._timers.discard(timer)
            call()

        timer = self._reactor.callLater(seconds, fire)
        self._timers.add(timer)

    def _pump(self) -> None:
        self._pump_scheduled = False
        while self._stale and len(self._rounds) < PARALLEL_ROUNDS:
            ts = self.database.durable_ts
            entries = [entry for entry in self._stale if not entry.running]
            self._stale.clear()
            if not entries:
                break
            started = Round(ts, len(entries), self.database.pin(ts))
            self._rounds.add(started)
            for entry in entries:
                entry.running = True
                entry.run_ts = ts
                self._queue.append((entry, started))
        self._run_queued()

    def _run_queued(self) -> None:
        # A run that ends at once (its function is gone) comes back here: the loop that started it goes on, not one inside it.
        if self._starting:
            return
        self._starting = True
        try:
            while self._queue and self._runs < self._parallel_runs:
                entry, of_round = self._queue.popleft()
                if entry.slots or len(entry.waiters):
                    self._reruns.inc()
                    self._start(entry, of_round, entry.identity)
                else:
                    entry.running = False
                    self._drop(entry)
                    self._round_done(of_round)
        finally:
            self._starting = False

    def _start(self, entry: SharedQuery, of_round: Round | None, identity: Identity) -> None:
        # An entry that runs is nobody's to drop.
        self._leave_idle(entry)
        entry.running = True
        entry.identity = identity
        entry.run_ts = of_round.ts if of_round else self.database.durable_ts
        if of_round is not None:
            self._runs += 1
        run_detached("live query", self._run(entry, of_round))

    def _round_done(self, of_round: Round) -> None:
        of_round.left -= 1
        if of_round.left == 0:
            self._rounds.discard(of_round)
            self.rounds_done += 1
            of_round.unpin()
            if self._stale and not self._pump_scheduled:
                self._pump_scheduled = True
                self._later(0, self._pump)

    async def _run(self, entry: SharedQuery, of_round: Round | None) -> None:
        try:
            evaluation = await self.evaluator.evaluate(entry.key, entry.identity, entry.run_ts)
        except ConvexError as error:
            self._failed(entry, error)
        except Exception:  # noqa: BLE001 - an unforeseen fault of one query must not end the others
            self._log.failure("a live query could not be evaluated")
            self._failed(entry, ServerFault())
        else:
            self._finished(entry, evaluation)
        finally:
            if of_round is not None:
                self._runs -= 1
                self._round_done(of_round)
                self._run_queued()

    def _failed(self, entry: SharedQuery, error: ConvexError) -> None:
        """Nothing could be computed: one-shot callers get the error, subscribers wait for a retry (``sync.md`` section 5.3)."""
        entry.running = False
        entry.waiters.fail(error)
        if not entry.slots:
            self._drop(entry)
            return
        self.log_failure(error)
        entry.failures += 1
        self._later(min(600.0, 0.25 * 2**entry.failures), lambda: self._retry(entry))

    def _retry(self, entry: SharedQuery) -> None:
        if entry.slots and not entry.valid:
            self._mark_stale(entry)

    def log_failure(self, error: ConvexError) -> None:
        """Log that a query is tried again later."""
        self._log.warn("a live query is tried again later: {code} {message}", code=error.code, message=error.message)

    def _finished(self, entry: SharedQuery, evaluation: Evaluation) -> None:
        entry.running = False
        entry.failures = 0
        version = Version(evaluation, query_result(evaluation), evaluation.ts)
        old = entry.current
        if (
            old is not None
            and old.result.digest == version.result.digest
            and old.result.journal == version.result.journal
        ):
            # Equal: keep the bytes that subscribers already share.
            version.result = old.result
        entry.previous = old if len(self._rounds) > 1 else None
        entry.current = version
        entry.fresh_until = (
            self._reactor.seconds() + TIME_DEPENDENT_SECONDS if evaluation.observed_time else float("inf")
        )
        key = entry.key
        strangers = self._separate_identities(entry, evaluation)
        self._rekey_by_journal(entry, evaluation)
        entry.stop_watching()
        entry.stop_watching = _nothing
        stop = self.database.watch(evaluation, lambda ts: self._invalidated(entry, ts))
        if version.until_ts is None:
            entry.stop_watching = stop
        entry.waiters.fire(version)
        if strangers:
            # Under the key that they came with: the journal of this run is that of another identity.
            self._bases.setdefault(key, Base()).observes_identity = True
        for slot in strangers:
            slot.client.move(slot, self.entry(key, slot.client.identity))
        self._tell([slot.client for slot in entry.slots if slot.client.fresh(slot, version)])
        if not entry.slots:
            self.unsubscribed(entry)

    def _separate_identities(self, entry: SharedQuery, evaluation: Evaluation) -> list[Slot]:
        """A run that looked at the identity answers that identity only: the entry becomes its own, others get theirs."""
        if not evaluation.observed_identity:
            return []
        base = self._bases.get(entry.key)
        if base is not None and not base.observes_identity:
            base.observes_identity = True
            if base.entries.get(None) is entry:
                del base.entries[None]
                base.entries[entry.identity.key] = entry
        return [slot for slot in entry.slots if slot.client.identity.key != entry.identity.key]

    def _rekey_by_journal(self, entry: SharedQuery, evaluation: Evaluation) -> None:
        """An entry that ran without a journal moves under the one that came out; a newcomer without one makes its own first run."""
        journal = evaluation.journal
        if journal is None or entry.key[3] is not None or not entry.registered:
            return
        base = self._bases.get(entry.key)
        name = entry.identity.key if base is not None and base.observes_identity else None
        if base is not None and base.entries.get(name) is entry:
            del base.entries[name]
            if not base.entries:
                del self._bases[entry.key]
        entry.key = (*entry.key[:3], journal, entry.key[4])
        new_base = self._bases.setdefault(entry.key, Base(observes_identity=evaluation.observed_identity))
        if new_base.entries.setdefault(name, entry) is not entry:
            entry.registered = False

    def _tell(self, clients: Iterable[ClientQueries]) -> None:
        for client in clients:
            if not client.queued:
                client.queued = True
                self._to_notify.append(client)
        if not self._notify_scheduled:
            self._notify_some()

    def _notify_some(self) -> None:
        self._notify_scheduled = False
        for _ in range(min(CLIENTS_PER_TURN, len(self._to_notify))):
            self._to_notify.popleft().notify()
        if self._to_notify and not self._stopped:
            self._notify_scheduled = True
            self._later(0, self._notify_some)
