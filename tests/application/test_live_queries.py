"""Shared live queries and rounds (A7) over a fake evaluator: no reactor, no runner."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from convex_backend.application.live_queries import CACHE_ENTRIES, LiveQueries, QueryKey
from convex_backend.application.query_results import Evaluation
from convex_backend.application.types import ANONYMOUS, Identity, LiveUpdate, QuerySpec
from convex_backend.deferreds import run_detached
from convex_backend.errors import Overloaded

ANN = Identity("user", (("subject", "ann"),))
BOB = Identity("user", (("subject", "bob"),))


class World:
    """A key-value history with commits, and an evaluator whose runs the test finishes when it likes.

    A query's path is ``KEYS[:flag]``: it reads the named keys (one letter each); flags: ``who`` observes the identity, ``time`` the clock,
    ``page`` returns a journal, ``fail`` raises ``Overloaded`` as long as the flag's name is in ``failing``.
    """

    def __init__(self, manual: bool = False) -> None:
        self.durable_ts = 100
        self.history: dict[str, list[tuple[int, int]]] = {}
        self.watchers: dict[int, tuple[Evaluation, Callable[[int], None]]] = {}
        self.manual = manual
        self.runs: list[tuple[QueryKey, int]] = []
        self.open: list[tuple[Deferred[None], QueryKey, int]] = []
        self.pins: list[int] = []
        self.failing = False
        self.clock = Clock()
        self.live = LiveQueries(self, self, self.clock, CollectorRegistry())

    # -- evaluator
    def key(self, query: QuerySpec, identity: Identity) -> QueryKey:
        return ("", query.path, query.args, query.journal, int(identity.is_admin))

    async def evaluate(self, key: QueryKey, identity: Identity, ts: int | None) -> Evaluation:
        at = self.durable_ts if ts is None else ts
        self.runs.append((key, at))
        if self.manual:
            gate: Deferred[None] = Deferred()
            self.open.append((gate, key, at))
            await gate
        if self.failing:
            raise Overloaded("Busy", "busy")
        keys, _, flag = key[1].partition(":")
        value: list[Any] = [self.value_at(k, at) for k in keys]
        if flag == "who":
            value.append(identity.key)
        journal = f"j{keys}" if flag == "page" else None
        return Evaluation(
            json.dumps(value).encode(), None, (), at, frozenset(keys), journal, flag == "who", flag == "time", "0" * 16
        )

    # -- database
    def pin(self, ts: int) -> Callable[[], None]:
        self.pins.append(ts)
        return lambda: self.pins.remove(ts)

    def watch(self, evaluation: Evaluation, on_invalid: Callable[[int], None]) -> Callable[[], None]:
        later = [
            ts
            for k in evaluation.reads
            for ts, _ in self.history.get(k, [])
            if ts > evaluation.ts  # type: ignore[attr-defined]
        ]
        if later:
            on_invalid(min(later))
            return lambda: None
        name = id(evaluation)
        self.watchers[name] = (evaluation, on_invalid)
        return lambda: self.watchers.pop(name, None) and None

    # -- the test's side
    def value_at(self, key: str, ts: int) -> int:
        return max((v for t, v in self.history.get(key, []) if t <= ts), default=0)

    def commit(self, keys: str) -> int:
        self.durable_ts += 1
        for key in keys:
            self.history.setdefault(key, []).append((self.durable_ts, self.durable_ts))
        for name, (evaluation, on_invalid) in list(self.watchers.items()):
            if set(keys) & evaluation.reads:  # type: ignore[operator]
                del self.watchers[name]
                on_invalid(self.durable_ts)
        return self.durable_ts

    def finish(self, index: int = 0) -> None:
        gate, _, _ = self.open.pop(index)
        gate.callback(None)

    def settle(self) -> None:
        """Run until nothing moves."""
        for _ in range(200):
            self.clock.advance(0)
            while self.open:
                self.finish()
            if not self.clock.getDelayedCalls():
                return
            if min(c.getTime() for c in self.clock.getDelayedCalls()) > self.clock.seconds():
                return


@attrs.define
class Tab:
    """A client that takes whatever it can, like the sync worker."""

    world: World
    identity: Identity = ANONYMOUS
    shown: dict[int, Any] = attrs.field(factory=dict)
    updates: list[LiveUpdate] = attrs.field(factory=list)
    client: Any = None

    def __attrs_post_init__(self) -> None:
        self.client = self.world.live.connect(self.identity, self.ready)

    def ready(self) -> None:
        self.take()

    def take(self, at_least: int = 0) -> LiveUpdate | None:
        update = self.client.take(at_least)
        if update is not None:
            for query_id, result in update.changed:
                text = result.modification(query_id, False).decode()
                self.shown[query_id] = json.loads(text)["value"]
            self.updates.append(update)
        return update

    def add(self, query_id: int, path: str, journal: str | None = None) -> None:
        """Subscribe and ask, as the worker does after each message."""
        self.client.add(query_id, QuerySpec(path, b"[{}]", journal, None))
        self.take()


def test_subscribers_share_one_run_and_one_result() -> None:
    """A hundred subscribers of one query cost one run per change and get the same bytes."""
    world = World()
    tabs = [Tab(world) for _ in range(100)]
    for tab in tabs:
        tab.add(0, "a")
    world.settle()
    assert len(world.runs) == 1
    ts = world.commit("a")
    world.settle()
    assert len(world.runs) == 2
    assert all(tab.shown == {0: [ts]} for tab in tabs)
    assert len({id(tab.updates[-1].changed[0][1]) for tab in tabs}) == 1


def test_a_commit_elsewhere_runs_nothing() -> None:
    """A commit that touches nothing a query read leaves it alone, and an update at that commit is empty at once."""
    world = World()
    tab = Tab(world)
    tab.add(0, "a")
    world.settle()
    ts = world.commit("b")
    world.settle()
    assert len(world.runs) == 1
    update = tab.take(ts)
    assert update is not None
    assert (update.ts, update.changed) == (ts, ())


def test_an_equal_result_is_not_repeated() -> None:
    """A re-run with the same value gives no modification, but lets the client pass the commit."""
    world = World()
    tab = Tab(world)
    tab.add(0, "ab")
    world.settle()
    first = world.commit("a")
    world.settle()
    count = len(tab.updates)
    world.history["a"].append((world.durable_ts + 1, first))
    ts = world.commit("")
    for name, (_, on_invalid) in list(world.watchers.items()):
        del world.watchers[name]
        on_invalid(ts)
    assert tab.take(ts) is None
    world.settle()
    assert [u.changed for u in tab.updates[count:]] == [()]
    assert tab.updates[-1].ts >= ts


def test_a_run_that_sees_the_identity_is_not_shown_to_another() -> None:
    """Two users of one path get their own results, also when the first run was begun for somebody else."""
    world = World(manual=True)
    ann, bob = Tab(world, ANN), Tab(world, BOB)
    ann.add(0, "a:who")
    bob.add(0, "a:who")
    world.settle()
    assert ann.shown == {0: [0, ANN.key]}
    assert bob.shown == {0: [0, BOB.key]}
    ts = world.commit("a")
    world.settle()
    assert ann.shown == {0: [ts, ANN.key]}
    assert bob.shown == {0: [ts, BOB.key]}


def test_changing_the_identity_changes_what_is_shown() -> None:
    """After ``set_identity`` a query that looks at the identity is shown for the new one; others are not run again."""
    world = World()
    tab = Tab(world, ANN)
    tab.add(0, "a:who")
    tab.add(1, "b")
    world.settle()
    runs = len(world.runs)
    tab.client.set_identity(BOB)
    tab.take()
    world.settle()
    assert tab.shown == {0: [0, BOB.key], 1: [0]}
    assert len(world.runs) == runs + 1


def test_a_slow_query_does_not_hold_up_other_clients() -> None:
    """A client without the slow query gets commits that come after the slow run began."""
    world = World(manual=True)
    slow, fast = Tab(world), Tab(world)
    slow.add(0, "s")
    fast.add(0, "a")
    world.clock.advance(0)
    world.finish(1)
    assert fast.shown == {0: [0]}
    ts = world.commit("a")
    world.clock.advance(0)
    world.finish(1)
    assert fast.shown == {0: [ts]}
    assert slow.shown == {}
    world.settle()
    assert slow.shown == {0: [0]}


def test_results_of_one_update_belong_to_one_timestamp() -> None:
    """A client with a fast and a slow query never sees the fast one's newer value beside the slow one's older value."""
    world = World(manual=True)
    tab = Tab(world)
    tab.add(0, "a")
    tab.add(1, "ab")
    world.settle()
    ts = world.commit("a")
    world.clock.advance(0)
    world.finish(0)
    assert tab.shown == {0: [0], 1: [0, 0]}
    world.finish(0)
    assert tab.shown == {0: [ts], 1: [ts, 0]}


def test_a_first_run_gives_its_journal_and_a_newcomer_runs_afresh() -> None:
    """An entry moves under its journal: a reconnecting client that sends it joins the entry, one without runs by itself."""
    world = World()
    one = Tab(world)
    one.add(0, "a:page")
    world.settle()
    again = Tab(world)
    again.add(0, "a:page", "ja")
    world.settle()
    assert len(world.runs) == 1
    assert again.shown == {0: [0]}
    new = Tab(world)
    new.add(0, "a:page")
    world.settle()
    assert len(world.runs) == 2


def test_one_shot_queries_share_runs_and_are_cached() -> None:
    """Equal HTTP queries in flight share a run; later ones are served from the cache until a commit touches what was read."""
    world = World(manual=True)
    key = world.key(QuerySpec("a", b"[{}]", None, None), ANONYMOUS)
    results: list[int] = []

    async def ask() -> None:
        results.append(json.loads((await world.live.query(key, ANONYMOUS)).evaluation.value or b"")[0])

    for _ in range(3):
        run_detached("ask", ask())
    world.settle()
    assert (results, len(world.runs)) == ([0, 0, 0], 1)
    run_detached("ask", ask())
    assert (len(results), len(world.runs)) == (4, 1)
    ts = world.commit("a")
    run_detached("ask", ask())
    world.settle()
    assert (results[-1], len(world.runs)) == (ts, 2)


def test_a_run_that_began_before_the_caller_came_does_not_answer_it() -> None:
    """A caller that has seen a commit is not answered by a run at an older timestamp."""
    world = World(manual=True)
    key = world.key(QuerySpec("a", b"[{}]", None, None), ANONYMOUS)
    results: list[int] = []

    async def ask() -> None:
        results.append(json.loads((await world.live.query(key, ANONYMOUS)).evaluation.value or b"")[0])

    run_detached("ask", ask())
    ts = world.commit("a")
    run_detached("ask", ask())
    world.settle()
    assert sorted(results) == [0, ts]


def test_time_dependent_results_age() -> None:
    """A result that looked at the clock is given to newcomers for 17 seconds."""
    world = World()
    key = world.key(QuerySpec("a:time", b"[{}]", None, None), ANONYMOUS)
    run_detached("ask", world.live.query(key, ANONYMOUS))
    assert world.live.cached(key, ANONYMOUS) is not None
    world.clock.advance(17.5)
    assert world.live.cached(key, ANONYMOUS) is None


def test_trouble_is_retried_for_subscribers_and_told_to_callers() -> None:
    """Overload reaches a one-shot caller as an error; a subscriber gets its result when a later try succeeds."""
    world = World()
    world.failing = True
    key = world.key(QuerySpec("b", b"[{}]", None, None), ANONYMOUS)
    caught: list[str] = []

    async def ask() -> None:
        try:
            await world.live.query(key, ANONYMOUS)
        except Overloaded as error:
            caught.append(error.code)

    run_detached("ask", ask())
    assert caught == ["Busy"]
    tab = Tab(world)
    tab.add(0, "a")
    world.settle()
    assert tab.shown == {}
    world.failing = False
    world.clock.advance(0.5)
    world.settle()
    assert tab.shown == {0: [0]}


def test_the_cache_is_bounded_and_forgets() -> None:
    """Entries that nobody subscribes to are dropped beyond the bound, with their watchers."""
    world = World()
    for number in range(CACHE_ENTRIES + 50):
        key = world.key(QuerySpec("a", b"[%d]" % number, None, None), ANONYMOUS)
        run_detached("ask", world.live.query(key, ANONYMOUS))
    assert len(world.watchers) == CACHE_ENTRIES
    world.commit("a")
    assert world.watchers == {}
    assert len(world.live._bases) == 0


def test_closing_a_client_leaves_no_trace() -> None:
    """A closed client is not told anything, and its entries do not run again."""
    world = World()
    tab = Tab(world)
    tab.add(0, "a")
    world.settle()
    tab.client.close()
    world.commit("a")
    world.settle()
    assert len(world.runs) == 1
    assert len(world.live._bases) == 0
    assert world.pins == []


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_update_is_a_consistent_snapshot(data: st.DataObject) -> None:
    """Whatever the order of commits, finishing runs, subscriptions and removals: what a client shows after an update at ts is the
    state at ts, timestamps do not go back, and in the end every client shows the newest state."""
    world = World(manual=True)
    paths = ["a", "b", "ab", "bc", "abc", "c:who"]
    tabs: list[Tab] = []
    subscribed: list[dict[int, str]] = []

    class Checked(Tab):
        def take(self, at_least: int = 0) -> LiveUpdate | None:
            before = self.updates[-1].ts if self.updates else 0
            update = super().take(at_least)
            if update is not None:
                assert update.ts >= max(before, at_least)
                mine = subscribed[tabs.index(self)]
                for query_id, path in mine.items():
                    keys = path.partition(":")[0]
                    assert self.shown[query_id][: len(keys)] == [world.value_at(k, update.ts) for k in keys]
                    if path.endswith("who"):
                        assert self.shown[query_id][-1] == self.identity.key
            return update

    for identity in (ANONYMOUS, ANN, BOB):
        tabs.append(Checked(world, identity))
        subscribed.append({})
    next_id = 0
    for _ in range(data.draw(st.integers(5, 40))):
        step = data.draw(
            st.sampled_from(["add", "commit", "commit", "finish", "finish", "turn", "turn", "remove", "own"])
        )
        which = data.draw(st.integers(0, 2))
        tab, mine = tabs[which], subscribed[which]
        if step == "add":
            path = data.draw(st.sampled_from(paths))
            mine[next_id] = path
            tab.add(next_id, path)
            next_id += 1
        elif step == "remove" and mine:
            gone = data.draw(st.sampled_from(sorted(mine)))
            tab.client.remove(gone)
            del mine[gone]
            tab.shown.pop(gone, None)
        elif step == "commit":
            world.commit(data.draw(st.sampled_from(["a", "b", "c", "ab", "x"])))
        elif step == "own":
            tab.take(world.commit("a"))
        elif step == "finish" and world.open:
            world.finish(data.draw(st.integers(0, len(world.open) - 1)))
        elif step == "turn":
            world.clock.advance(0)
    last = world.commit("abc")
    for tab in tabs:
        tab.take(last)
    world.settle()
    for tab, mine in zip(tabs, subscribed, strict=True):
        tab.take(last)
        for query_id, path in mine.items():
            keys = path.partition(":")[0]
            assert tab.shown[query_id][: len(keys)] == [last for _ in keys]
    assert world.pins == []
