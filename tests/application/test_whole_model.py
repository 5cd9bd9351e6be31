"""Mutations, queries, live clients, failing groups, lost children and replays at random: everything at once must be serializable.

The model is a bank of counters in one table. Each committed mutation is replayed in order of its timestamp against a plain dictionary; whatever was
answered or shown must be what that history says.
"""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import attrs
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from convex_backend.application import live_queries
from convex_backend.application.types import ANONYMOUS, CallResult, Identity, MutationKey, QuerySpec
from convex_backend.database.catalog import ENABLED
from convex_backend.database.tables import add_index, create_table, set_index_state
from convex_backend.deferreds import from_coroutine
from convex_backend.errors import ServerFault, Transient
from tests.application.support import CALLER, Function, ScriptError, World
from tests.database.documents import run

SESSION = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
NAMES = ("a", "b", "c")
ANN = Identity("user", (("subject", "ann"),))
BOB = Identity("user", (("subject", "bob"),))


def equal(name: str) -> dict[str, Any]:
    """The query of one counter by its name, over the index."""
    return {
        "source": {
            "type": "IndexRange",
            "indexName": "counters.by_name",
            "range": [{"type": "Eq", "fieldPath": "name", "value": name}],
            "order": None,
        },
        "operators": [],
    }


async def rows(function: Function, query: dict[str, Any]) -> list[Any]:
    """All rows of *query*, page by page, consumed."""
    page = await function.call(
        "1.0/runUdf", udfType="query", name="m:rows", args={"query": orjson.dumps(query).decode()}
    )
    assert isinstance(page, list)
    return page


async def nested_rows(function: Function, args: Any) -> Any:
    """The nested query behind :func:`rows`."""
    number = function.streams
    function.streams += 1
    function.host.open_query(number, orjson.dumps({"query": orjson.loads(args["query"])}))
    found: list[Any] = []
    while True:
        reply = await function.host.syscall("1.0/queryStreamNext", orjson.dumps({"queryId": number}), None)
        page = [orjson.loads(row) for row in reply.body.split(b"\n") if row]
        function.host.consumed({str(number): max(0, len(page) - 1)})
        found += page
        if reply.meta.get("done"):
            if page:
                function.host.consumed({str(number): 1})
            return found


async def change(function: Function, args: Any) -> Any:
    """Add 1 to each named counter in turn (made when missing), with pauses. *fail*: throw in the end; *drop*: delete instead."""
    values: dict[str, float | None] = {}
    for name in args["names"]:
        found = await rows(function, equal(name))
        if args["pause"]:
            await function.pause()
        if not found:
            await function.call("1.0/insert", table="counters", value={"name": name, "n": 1.0})
            values[name] = 1.0
        elif args["drop"]:
            await function.call("1.0/remove", id=found[0]["_id"])
            values[name] = None
        else:
            values[name] = found[0]["n"] + 1
            await function.call("1.0/shallowMerge", id=found[0]["_id"], value={"n": values[name]})
    if args["fail"]:
        raise ScriptError(orjson.dumps(values).decode())
    return values


async def attempt(function: Function, args: Any) -> Any:
    """Call :func:`change` in a nested mutation whose failure is caught: only what it read remains."""
    try:
        return await function.call("1.0/runUdf", udfType="mutation", name="m:change", args=args)
    except Exception as error:
        if isinstance(error, Transient | ServerFault) or not hasattr(error, "message"):
            raise
        return {}


async def one(function: Function, args: Any) -> Any:
    """A query of one counter, which may pause."""
    found = await rows(function, equal(args["name"]))
    if args.get("pause"):
        await function.pause()
    return found[0]["n"] if found else None


async def everything(function: Function, args: Any) -> Any:
    """All counters, and who asks if *who*."""
    found = await rows(
        function, {"source": {"type": "FullTableScan", "tableName": "counters", "order": None}, "operators": []}
    )
    if args.get("pause"):
        await function.pause()
    state = {row["name"]: row["n"] for row in found}
    return [state, await function.call("1.0/getUserIdentity", requestId="")] if args["who"] else state


@attrs.define(eq=False)
class Sent:
    """A mutation that was sent: its arguments, its key, and the answers (results or failures) so far."""

    args: dict[str, Any]
    nested: bool
    key: MutationKey | None
    answers: list[Any] = attrs.field(factory=list)
    tries: int = 0


class Tab:
    """A live client that takes what it can, and remembers each update: (ts, what is shown)."""

    def __init__(self, model: Model, identity: Identity) -> None:
        self.model = model
        self.identity = identity
        self.specs: dict[int, dict[str, Any]] = {}
        self.shown: dict[int, Any] = {}
        self.history: list[tuple[int, dict[int, Any], dict[int, dict[str, Any]], Identity]] = []
        self.client = model.world.live.connect(identity, self.take)
        self.at_least = 0

    def take(self) -> None:
        update = self.client.take(self.at_least)
        if update is None:
            return
        assert update.ts >= max(self.at_least, self.history[-1][0] if self.history else 0)
        for query_id, result in update.changed:
            assert not result.failed, result.body
            self.shown[query_id] = orjson.loads(result.modification(query_id, False))["value"]
        self.history.append((update.ts, dict(self.shown), dict(self.specs), self.identity))

    def add(self, query_id: int, args: dict[str, Any]) -> None:
        self.specs[query_id] = args
        path = "m:one" if "name" in args else "m:all"
        self.client.add(query_id, QuerySpec(path, orjson.dumps(args), None, None))
        self.take()


class Model:
    """The world, what was sent and asked, and the writes under way."""

    def __init__(self) -> None:
        self.world = world = World()
        world.define("m:change", "mutation", change)
        world.define("m:attempt", "mutation", attempt)
        world.define("m:rows", "query", nested_rows, visibility="internal")
        world.define("m:one", "query", one)
        world.define("m:all", "query", everything)
        self.make_index()
        self.sent: list[Sent] = []
        self.asked: list[tuple[dict[str, Any], int, list[Any]]] = []
        self.tabs = [Tab(self, identity) for identity in (ANONYMOUS, ANN, BOB)]
        self.held: list[Deferred[None]] = []
        self.holding = self.broken = False
        self.commits: list[tuple[int, tuple[Any, ...]]] = []
        world.persistence.before_write = self._before_write
        world.db.committer.on_durable.append(self._durable)
        self.next_query = 0
        self.next_request = 0

    def make_index(self) -> None:

        transaction = self.world.db.begin("system")
        run(transaction.ensure_begun())
        info = run(create_table(transaction, 0, "counters"))
        index = run(add_index(transaction, info, "by_name", fields=("name", "_creationTime")))
        run(set_index_state(transaction, index, ENABLED))
        run(self.world.db.commit(transaction))
        info = self.world.db.catalogs.newest.by_name[(0, "counters")]
        self.tablet = info.tablet

    def _before_write(self, commits: Any) -> Deferred[None] | None:
        if not self.holding:
            return None
        gate: Deferred[None] = Deferred()
        self.held.append(gate)
        return gate

    def _durable(self, events: list[Any]) -> None:
        self.commits += [(event.ts, event.changes) for event in events]

    # -- steps

    def send(self, sent: Sent) -> None:
        sent.tries += 1
        path = "m:attempt" if sent.nested else "m:change"
        coroutine = self.world.mutations.run(path, orjson.dumps(sent.args), ANONYMOUS, CALLER, key=sent.key)
        from_coroutine(coroutine).addBoth(sent.answers.append)

    def ask(self, args: dict[str, Any]) -> None:
        path = "m:one" if "name" in args else "m:all"
        key = self.world.queries.key(QuerySpec(path, orjson.dumps(args), None, None), ANONYMOUS)
        answers: list[Any] = []
        self.asked.append((args, self.world.db.committer.durable_ts, answers))
        from_coroutine(self.world.live.query(key, ANONYMOUS)).addBoth(answers.append)

    def settle(self) -> None:
        """Let everything end."""
        self.holding = False
        for _ in range(2000):
            if self.held:
                self.held.pop(0).callback(None)
            elif self.world.pool.paused:
                self.world.go_on()
            else:
                self.world.timers.advance(0)
                timers = self.world.timers.getDelayedCalls()
                due = [timer for timer in timers if timer.getTime() <= self.world.timers.seconds()]
                if not due and not self.held and not self.world.pool.paused:
                    return
        raise AssertionError("it does not come to rest")

    # -- what must hold

    def states(self) -> list[tuple[int, dict[str, float]]]:
        """(commit ts, all counters after it), ascending."""
        documents: dict[bytes, Any] = {}
        found: list[tuple[int, dict[str, float]]] = [(0, {})]
        for ts, changes in self.commits:
            for entry in changes:
                if entry.tablet == self.tablet:
                    if entry.new_json is None:
                        del documents[entry.id]
                    else:
                        documents[entry.id] = orjson.loads(entry.new_json)
            names = [row["name"] for row in documents.values()]
            assert len(set(names)) == len(names), "two counters of one name: two inserts did not conflict"
            found.append((ts, {row["name"]: row["n"] for row in documents.values()}))
        return found

    def check(self) -> None:
        states = self.states()

        def at(ts: int) -> dict[str, float]:
            return next(state for when, state in reversed(states) if when <= ts)

        def before(ts: int) -> dict[str, float]:
            return next(state for when, state in reversed(states) if when < ts)

        commits: set[int] = set()
        for sent in self.sent:
            assert len(sent.answers) == sent.tries, "a call was never answered"
            good = [a for a in sent.answers if isinstance(a, CallResult) and a.error is None]
            if sent.key is not None:
                assert len({(a.ts, a.value) for a in good}) <= 1, "one key was applied twice"
            for answer in sent.answers:
                if isinstance(answer, Failure):
                    assert self.broken, "a failure that no broken group explains"
                    assert answer.check(Transient, ServerFault), answer
                elif answer.error is not None:
                    assert sent.args["fail"]
                    self.check_values(sent, orjson.loads(answer.error.message.partition("Error: ")[2]), at(answer.ts))
                elif answer.value == b"{}" or answer.ts in commits:
                    continue
                else:
                    commits.add(answer.ts)
                    self.check_values(sent, orjson.loads(answer.value), before(answer.ts))
                    for name, value in orjson.loads(answer.value).items():
                        assert at(answer.ts).get(name) == value
        writing = {ts for ts, changes in self.commits if any(entry.tablet == self.tablet for entry in changes)}
        assert writing == commits, "a commit that nobody was told of, or an answer without a commit"
        for args, asked_at, answers in self.asked:
            [version] = answers
            # A cached result is older, but held when it was asked for.
            ts = max(version.from_ts, asked_at)
            self.check_query(args, orjson.loads(version.evaluation.value), at(ts), ANONYMOUS)
        for tab in self.tabs:
            for ts, shown, specs, identity in tab.history:
                for query_id, args in specs.items():
                    self.check_query(args, shown[query_id], at(ts), identity)

    def check_values(self, sent: Sent, values: dict[str, Any], state: dict[str, float]) -> None:
        """What a run computed follows from the state that it began with."""
        now: dict[str, float | None] = dict(state)
        for name in sent.args["names"]:
            found = now.get(name)
            now[name] = 1.0 if found is None else None if sent.args["drop"] else found + 1
        assert values == {name: now[name] for name in sent.args["names"]}

    @staticmethod
    def check_query(args: dict[str, Any], value: Any, state: dict[str, float], identity: Identity) -> None:
        if "name" in args:
            assert value == state.get(args["name"])
        elif args["who"]:
            attributes = None if identity.attributes is None else dict(identity.attributes)
            assert value == [state, attributes]
        else:
            assert value == state


STEPS = (
    "send", "send", "send", "again", "go_on", "go_on", "go_on", "ask", "add", "add", "remove", "identity",
    "hold", "write", "write", "break", "break", "lose", "turn", "turn", "after",
)  # fmt: skip


def play(data: st.DataObject, steps: int) -> None:
    """:func:`walk`, with clients that are evaluated privately at once or late."""
    with patch.object(live_queries, "PRIVATE_AFTER", data.draw(st.sampled_from([0, live_queries.PRIVATE_AFTER]))):
        walk(data, steps)


def walk(data: st.DataObject, steps: int) -> None:
    """Take random steps, let everything end, and check the whole history."""
    model = Model()
    world = model.world
    model.holding = data.draw(st.booleans())
    for _ in range(steps):
        step = data.draw(st.sampled_from(STEPS))
        tab = model.tabs[data.draw(st.integers(0, 2))]
        if step == "send":
            args = {
                "names": data.draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)),
                "pause": data.draw(st.booleans()),
                "drop": data.draw(st.integers(0, 5)) == 0,
                "fail": data.draw(st.integers(0, 3)) == 0,
            }
            model.next_request += 1
            key = MutationKey(SESSION, model.next_request) if data.draw(st.booleans()) else None
            model.sent.append(Sent(args, data.draw(st.integers(0, 3)) == 0, key))
            model.send(model.sent[-1])
        elif step == "again":
            keyed = [sent for sent in model.sent if sent.key is not None]
            if keyed:
                model.send(data.draw(st.sampled_from(keyed)))
        elif step == "go_on" and world.pool.paused:
            world.go_on(data.draw(st.integers(0, len(world.pool.paused) - 1)))
        elif step in ("ask", "add"):
            args = data.draw(
                st.sampled_from(
                    [{"name": "a"}, {"name": "b", "pause": True}, {"who": False, "pause": True}, {"who": True}]
                )
            )
            if step == "ask":
                model.ask(args)
            else:
                model.next_query += 1
                tab.add(model.next_query, args)
        elif step == "remove" and tab.specs:
            query_id = data.draw(st.sampled_from(sorted(tab.specs)))
            tab.client.remove(query_id)
            del tab.specs[query_id]
            tab.shown.pop(query_id, None)
        elif step == "identity":
            tab.identity = data.draw(st.sampled_from([ANONYMOUS, ANN, BOB]))
            tab.client.set_identity(tab.identity)
            tab.take()
        elif step == "hold":
            model.holding = not model.holding
        elif step == "write" and model.held:
            model.held.pop(0).callback(None)
        elif step == "break" and model.held:
            model.broken = True
            model.held.pop(0).errback(OSError("disk"))
        elif step == "lose":
            world.pool.lose += 1
        elif step == "turn":
            world.timers.advance(data.draw(st.sampled_from([0, 0, 0, 0.3, 6])))
        elif step == "after":
            done = [a.ts for sent in model.sent for a in sent.answers if isinstance(a, CallResult) and a.error is None]
            tab.at_least = max(done, default=0)
            tab.take()
    model.settle()
    world.timers.advance(1)
    model.settle()
    newest = world.db.committer.durable_ts
    for tab in model.tabs:
        tab.at_least = newest
        tab.take()
    model.settle()
    for tab in model.tabs:
        tab.take()
        assert tab.history, "a client that never heard"
        assert tab.history[-1][0] >= newest
    model.check()
    for tab in model.tabs:
        tab.client.close()
    assert world.live._rounds == set()
    assert world.live._idle_bytes == sum(entry.cost_bytes for entry in world.live._idle)
    assert len(world.db.subscriptions) == len(world.live._idle)
    assert world.db.committer.snapshots.open_count == 0
    assert world.db.committer.lanes._owned == 0
    assert world.mutations._under_way._running == {}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_everything_at_once_is_serializable(data: st.DataObject) -> None:
    """Each answer follows from the commits before it, each key is applied once, each update of a client is the state at its timestamp, and in
    the end nothing is open, owned, running or watched but the cache."""
    play(data, data.draw(st.integers(5, 40)))


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(st.data())
def test_long_histories_are_serializable(data: st.DataObject) -> None:
    """The same, with more going on at once."""
    play(data, 80)
