"""Edges of shared live queries: accounting of the cache, fairness, identities, ends (A7). Over the fake evaluator."""

from __future__ import annotations

import json
from typing import Any

from convex_backend.application.live_queries import PARALLEL_RUNS, QueryKey
from convex_backend.application.query_results import Evaluation
from convex_backend.application.types import ANONYMOUS, Identity, QuerySpec
from convex_backend.deferreds import run_detached
from convex_backend.interfaces import FunctionError
from tests.application.test_live_queries import ANN, BOB, Tab, World


def ask(world: World, path: str, identity: Identity = ANONYMOUS, results: list[Any] | None = None) -> QueryKey:
    """Begin a one-shot query. :returns: its key."""
    key = world.key(QuerySpec(path, b"[{}]", None, None), identity)

    async def wait() -> None:
        version = await world.live.query(key, identity)
        if results is not None:
            results.append(json.loads(version.evaluation.value or b"null"))

    run_detached("ask", wait())
    return key


def test_a_cached_result_that_aged_is_counted_once() -> None:
    """Asking again for a result that looked at the clock leaves one entry with one entry's bytes in the cache."""
    world = World()
    ask(world, "a:time")
    once = world.live._idle_bytes
    for _ in range(5):
        world.clock.advance(18)
        ask(world, "a:time")
    assert len(world.runs) == 6
    assert len(world.live._idle) == 1
    assert world.live._idle_bytes == once
    world.commit("a")
    assert (world.live._idle_bytes, len(world.live._bases)) == (0, 0)


def test_the_last_subscriber_that_moves_away_leaves_the_entry_counted_once() -> None:
    """A first run for an identity whose client has left, found to depend on the identity, is cached once."""
    world = World(manual=True)
    one, two = Tab(world, ANN), Tab(world, BOB)
    one.add(0, "a:who")
    two.add(0, "a:who")
    world.clock.advance(0)
    one.client.remove(0)
    world.settle()
    assert two.shown == {0: [0, BOB.key]}
    two.client.close()
    assert world.live._idle_bytes == sum(entry.cost_bytes for entry in world.live._idle)
    world.commit("a")
    assert (world.live._idle_bytes, len(world.live._bases), world.watchers) == (0, 0, {})


def test_a_result_that_aged_leaves_no_watcher_behind() -> None:
    """A newcomer to an aged result makes it run again; what watched the old result stops."""
    world = World()
    tab = Tab(world)
    tab.add(0, "a:time")
    world.settle()
    world.clock.advance(18)
    late = Tab(world)
    late.add(0, "a:time")
    world.settle()
    assert len(world.runs) == 2
    assert len(world.watchers) == 1
    assert late.shown == tab.shown == {0: [0]}
    assert late.client._waiting_slots == tab.client._waiting_slots == 0


def test_one_shot_queries_do_not_hold_up_live_queries() -> None:
    """However many one-shot queries run, the rounds of live queries go on."""
    world = World(manual=True)
    tab = Tab(world)
    tab.add(0, "a")
    world.settle()
    for number in range(2 * PARALLEL_RUNS):
        key = world.key(QuerySpec("z", b"[%d]" % number, None, None), ANONYMOUS)
        run_detached("ask", world.live.query(key, ANONYMOUS))
    ts = world.commit("a")
    world.clock.advance(0)
    [index] = [i for i, (_, key, _) in enumerate(world.open) if key[1] == "a"]
    world.finish(index)
    assert tab.shown == {0: [ts]}
    world.settle()


def test_many_runs_that_end_at_once() -> None:
    """A thousand stale queries whose runs end without waiting for anything are run one after the other, not one inside another."""
    world = World()
    tab = Tab(world)
    for number in range(1000):
        tab.add(number, f"a:{number}")
    world.settle()
    assert sorted(tab.shown) == list(range(1000))
    world.commit("a")
    world.settle()
    assert len(world.runs) == 2000
    assert world.live._runs == 0


def test_a_new_token_of_the_same_user_changes_nothing() -> None:
    """A refreshed identity keeps a paginated query on its journal: nothing runs."""
    world = World()
    tab = Tab(world, ANN)
    tab.add(0, "a:page")
    world.settle()
    tab.client.set_identity(Identity("user", ANN.attributes, expires_at=5.0))
    update = tab.take()
    world.settle()
    assert len(world.runs) == 1
    assert update is not None


def test_another_identity_runs_with_the_journal_of_the_query() -> None:
    """The server keeps a query's journal: pages do not shift when the client logs in."""
    world = World()
    tab = Tab(world)
    tab.add(0, "a:page")
    world.settle()
    tab.client.set_identity(ANN)
    world.commit("a")
    world.settle()
    assert [key[3] for key, _ in world.runs] == [None, "ja"]


def test_a_stranger_of_a_first_run_gets_no_journal_of_it() -> None:
    """When a shared first run turns out to be one user's own, the others make first runs of their own, side by side."""
    world = World(manual=True)
    evaluate = world.evaluate

    async def mine(key: QueryKey, identity: Identity, ts: int | None) -> Evaluation:
        found = await evaluate(key, identity, ts)
        value = json.dumps([identity.key, key[3]]).encode()
        return Evaluation(
            value, None, (), found.ts, found.reads, key[3] or f"j-{identity.key}", True, False, found.request_id
        )

    world.evaluate = mine  # type: ignore[method-assign]
    carl = Identity("user", (("subject", "carl"),))
    tabs = [Tab(world, identity) for identity in (ANN, BOB, carl)]
    for tab in tabs:
        tab.add(0, "a")
    world.clock.advance(0)
    world.finish()
    world.clock.advance(0)
    assert [key[3] for _, key, _ in world.open] == [None, None]
    world.settle()
    assert [tab.shown[0] for tab in tabs] == [[tab.identity.key, None] for tab in tabs]


def test_failures_of_subscribed_queries_are_not_given_to_others() -> None:
    """A failed result is never an answer from the cache, even while somebody subscribes to it."""
    world = World()
    evaluate = world.evaluate
    failing = [True]

    async def sometimes(key: QueryKey, identity: Identity, ts: int | None) -> Evaluation:
        found = await evaluate(key, identity, ts)
        if not failing:
            return found
        return Evaluation(None, FunctionError("no"), (), found.ts, found.reads, None, False, False, "0" * 16)

    world.evaluate = sometimes  # type: ignore[method-assign]
    client = world.live.connect(ANONYMOUS, lambda: None)
    client.add(0, QuerySpec("a", b"[{}]", None, None))
    world.settle()
    update = client.take(0)
    assert update is not None
    assert update.changed[0][1].failed
    failing.clear()
    results: list[Any] = []
    ask(world, "a", results=results)
    assert results == [[0]]
    update = client.take(0)
    assert update is not None
    assert [result.failed for _, result in update.changed] == [False]


def test_a_private_evaluation_keeps_what_was_valid_when_it_began() -> None:
    """The other queries may change as often as they like while a slow one is evaluated: the update is of the moment it began."""
    world = World(manual=True)
    client = world.live.connect(ANONYMOUS, lambda: None)
    client.add(0, QuerySpec("a", b"[{}]", None, None))
    client.add(1, QuerySpec("b", b"[{}]", None, None))
    world.settle()
    client.take(0)
    first = world.commit("a")
    world.settle()
    ts = world.commit("b")
    world.clock.advance(0)
    run_detached("private", client._evaluate_privately())
    for _ in range(3):
        world.commit("a")
        world.clock.advance(0)
        world.finish(next(i for i, (_, key, _) in enumerate(world.open) if key[1] == "a"))
        world.commit("a")
    world.finish(next(i for i, (_, key, at) in reversed(list(enumerate(world.open))) if key[1] == "b" and at == ts))
    update = client.take(0)
    assert update is not None
    assert update.ts == ts
    assert [json.loads(result.modification(n, False))["value"] for n, result in update.changed] == [[first], [ts]]
    world.settle()
    assert world.pins == []


def test_a_private_run_of_an_earlier_identity_is_not_shown() -> None:
    """An identity that changes while a private evaluation runs gets nothing that looked at the one before."""
    world = World(manual=True)
    evaluate = world.evaluate
    looks: list[bool] = []

    async def later_looks(key: QueryKey, identity: Identity, ts: int | None) -> Evaluation:
        found = await evaluate(key, identity, ts)
        if not looks or key[1] != "b":
            return found
        value = json.dumps([identity.key]).encode()
        return Evaluation(value, None, (), found.ts, found.reads, None, True, False, found.request_id)

    world.evaluate = later_looks  # type: ignore[method-assign]
    client = world.live.connect(ANN, lambda: None)
    client.add(0, QuerySpec("a", b"[{}]", None, None))
    client.add(1, QuerySpec("b", b"[{}]", None, None))
    world.settle()
    client.take(0)
    world.commit("b")
    world.clock.advance(0)
    looks.append(True)
    run_detached("private", client._evaluate_privately())
    client.set_identity(BOB)
    world.finish(1)
    slot = client._slots[1]
    assert slot.private is None
    world.settle()


def test_nothing_is_left_after_a_stop() -> None:
    """Runs that end after the stop set no timers."""
    world = World(manual=True)
    tabs = [Tab(world) for _ in range(3)]
    for tab, path in zip(tabs, "abc", strict=True):
        tab.add(0, path)
    world.clock.advance(0)
    world.live.stop()
    world.failing = True
    while world.open:
        world.finish()
    assert world.clock.getDelayedCalls() == []


def test_a_closed_client_ends_its_private_evaluation() -> None:
    """After the close the private evaluation starts no further run and lets go of its pin."""
    world = World(manual=True)
    client = world.live.connect(ANONYMOUS, lambda: None)
    for number, path in enumerate("abc"):
        client.add(number, QuerySpec(path, b"[{}]", None, None))
    world.settle()
    client.take(0)
    world.commit("abc")
    run_detached("private", client._evaluate_privately())
    runs = len(world.runs)
    client.close()
    world.finish()
    assert len(world.runs) == runs
    assert world.pins == []
