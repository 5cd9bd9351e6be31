"""Gets and writes that a child answers itself: the same as strictly answered ones, for the function and for the database."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convex_backend.database.hints import named_documents
from convex_backend.errors import Rerun
from convex_backend.functions.context import CallContext, CallServices, CallTree, DeploymentInfo, RequestInfo
from convex_backend.functions.directory import Environment
from convex_backend.functions.outcome import error_reply, is_user_error
from tests.database.documents import Store, run
from tests.functions.test_syscalls import TABLE, Directory, function
from tests.runner.harness import CANCEL, DIST, RESULT, SYSRESULT, Child
from tests.runner.samples import HEAD, REGISTER

pytestmark = pytest.mark.skipif(not (DIST / "main.mjs").exists(), reason="the runner is not built: node build.mjs")

FUNCTIONS = (
    HEAD
    + """
/** Steps in the order of their calls; `wait`: until it and all before it are answered. What each gave, in the order in which it was seen. */
export const program = mutation(async ({ steps, end }) => {
  const seen = [];
  let waiting = [];
  let at = 0;
  for (const { op, args, wait } of steps) {
    const number = at++;
    const one = Convex.asyncSyscall(op, JSON.stringify(args)).then(
      (text) => seen.push([number, JSON.parse(text)]),
      (error) => seen.push([number, "failed", error.message]),
    );
    waiting.push(one);
    if (wait) {
      await Promise.all(waiting);
      waiting = [];
    }
  }
  if (end === "throw") throw new Error(JSON.stringify(seen));
  if (end === "wait") await Promise.all(waiting);
  return seen;
});
"""
)


class Refused(Exception):
    """A write that the child had answered."""


class Run:
    """One mutation of a store in a child, played by hand as ``serving.py`` does it.

    :ivar frames: what the child sent, ``(op, answered, consumed)``.
    """

    def __init__(self, store: Store, child: Child, args: Any, *, ahead: bool) -> None:
        self.store = store
        self.frames: list[tuple[str, bool, Any]] = []
        text = orjson.dumps([args])
        ticket = store.db.committer.lanes.ticket(named=named_documents(text) if ahead else ())
        self.transaction = store.db.begin("mutation", ticket=ticket)
        services = CallServices(
            directory=Directory(),
            deployment=DeploymentInfo("test"),
            random_bytes=bytes,
            now_ms=lambda: 1234,
            seal=lambda data: base64.b64encode(data).decode(),
            unseal=lambda sealed: base64.b64decode(sealed),
        )
        tree = CallTree(
            services,
            self.transaction,
            RequestInfo("ab" * 8),
            lambda component: store.db.catalogs.newest.names(component),
            lambda component: {},
        )
        tree.ahead = ahead
        self.context = CallContext(tree, function(), Environment({}, "0"), TABLE)
        self.child = child
        self.call = child.start("mutation", "m.js", "program", [args], ahead=ahead)

    def step(self) -> Any:
        """Serve one frame. :returns: the result's meta and body when it is there.

        :raises Refused: an answered write was refused; the call is cancelled.
        """
        kind, call, seq, meta, body = self.child.receive()
        while call != self.call:  # one that was cancelled
            kind, call, seq, meta, body = self.child.receive()
        if kind == RESULT:
            if meta.get("consumed"):
                self.context.consumed(meta["consumed"])
            return meta, body
        op, answered = meta["op"], meta.get("answered", False)
        self.frames.append((op, answered, meta.get("consumed")))
        try:
            reply = run(self.context.syscall(op, body.encode(), meta.get("consumed")))
        except Exception as error:
            if answered or not is_user_error(error):
                self.child.send(CANCEL, call)
                self.transaction.close()
                if answered and is_user_error(error):
                    raise Refused from error
                raise
            error_meta, data = error_reply(error)
            self.child.send(SYSRESULT, call, seq, json.loads(error_meta), data.decode())
        else:
            if not answered:
                self.child.send(SYSRESULT, call, seq, reply.meta or None, reply.body.decode())
        return None

    def finish(self) -> tuple[bool, str]:
        """:returns: whether it succeeded, and its value or error text."""
        while True:
            ended = self.step()
            if ended is not None:
                meta, body = ended
                return meta["ok"], body if meta["ok"] else meta["error"]["message"]

    def effect(self) -> tuple[Any, ...]:
        """All that the transaction knows: reads, writes, figures."""
        metrics = self.transaction.metrics()
        changes = sorted(
            (change.tablet, change.id, change.new_json or b"") for change in self.transaction.writes.changes()
        )
        return self.transaction.read_token(), changes, metrics


def play(
    child: Child, args: Any, documents: list[Any], *, ahead: bool
) -> tuple[tuple[bool, str], tuple[Any, ...], list[Any]]:
    """A program over a fresh store; after a late refusal it is played again strictly, as ``run_mutation`` does."""
    for allowed in (ahead, False):
        store = Store(seed=7)
        store.insert("t", *documents)
        one = Run(store, child, args, ahead=allowed)
        try:
            return one.finish(), one.effect(), one.frames
        except Refused:
            assert allowed
        finally:
            one.transaction.close()
            run(store.db.stop())
    raise AssertionError("a strict run has no late refusals")


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    """A child with the interpreter."""
    with Child() as one:
        one.add_module("register.js", REGISTER)
        one.add_module("m.js", FUNCTIONS)
        yield one


def fresh_ids() -> list[str]:
    store = Store(seed=7)
    ids = store.insert("t", *DOCUMENTS)
    run(store.db.stop())
    return ids


DOCUMENTS: list[dict[str, Any]] = [
    {"n": float(n), "text": 'quote " back \\ {[,:]}', "list": [1.0, {"a b": None}]} for n in range(3)
]
IDS = fresh_ids()
MISSING = "j5700000000000000000000000001qv0"  # of the same table
OTHER_TABLE = "0400000000000000000000000000248"

values = st.one_of(
    st.integers(-5, 5),
    st.sampled_from(
        ["x", 'a"b\\', "é", " , } ", True, None, 1e21, {"a": [2], "b": {"c": 1}}, [], {}, {"$integer": "AQAAAAAAAAA="}]
    ),
    st.sampled_from([{"$bad": 1}, {"$integer": "no"}]),
)
fields = st.dictionaries(st.sampled_from(["n", "m", "text", "a b", "10", "9"]), values, max_size=3)
patches = st.one_of(
    fields,
    st.dictionaries(st.sampled_from(["n", "text", "zz"]), st.just({"$undefined": None}), min_size=1, max_size=2),
    st.just({"_id": "other"}),
    st.just({"_id": {"$undefined": None}}),
    st.just({"_bad": 1}),
)
ids = st.sampled_from([*[IDS[0]] * 6, *[IDS[1]] * 3, IDS[2], MISSING, OTHER_TABLE, "nonsense"])
tables = st.sampled_from([{}, {}, {}, {"table": "t"}, {"table": "u"}, {"table": None}])


def operation(name: str, *parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """A step of a program."""
    merged = st.tuples(*parts).map(lambda found: {key: value for part in found for key, value in part.items()})
    return st.builds(lambda args, wait: {"op": name, "args": args, "wait": wait}, merged, st.booleans())


identified = ids.map(lambda one: {"id": one})
known_get = operation("1.0/get", st.just({"id": IDS[0], "isSystem": False}))
steps = st.one_of(
    known_get,
    operation(
        "1.0/get",
        identified,
        st.sampled_from([{}, {"isSystem": False}, {"isSystem": False, "version": "1.48.0"}, {"isSystem": True}]),
        tables,
    ),
    operation("1.0/get", identified, st.just({"isSystem": False})),
    operation("1.0/shallowMerge", identified, patches.map(lambda value: {"value": value}), tables),
    operation("1.0/shallowMerge", st.just({"id": IDS[0]}), fields.map(lambda value: {"value": value})),
    operation("1.0/shallowMerge", identified, fields.map(lambda value: {"value": value})),
    operation("1.0/replace", identified, st.one_of(fields, patches).map(lambda value: {"value": value}), tables),
    operation("1.0/remove", identified, tables),
    operation("1.0/insert", st.just({"table": "t"}), fields.map(lambda value: {"value": value})),
    operation("1.0/getTransactionMetrics"),
    operation("1.0/count", st.just({"table": "t"})),
)
programs = st.tuples(
    st.lists(known_get.map(lambda step: {**step, "wait": True}), max_size=1), st.lists(steps, min_size=1, max_size=9)
).map(lambda parts: [*parts[0], *parts[1]])


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(programs, st.sampled_from(["wait", "wait", "leave", "throw"]), st.sets(st.sampled_from(IDS)))
def test_random_programs_are_as_strict_ones(child: Child, program: list[Any], end: str, hints: set[str]) -> None:
    """What the function sees, in which order, and what the transaction read, wrote and counted do not tell who has answered."""
    args = {"steps": program, "end": end, "hints": sorted(hints)}
    strict, strict_effect, frames = play(child, args, DOCUMENTS, ahead=False)
    assert not any(answered for _, answered, _ in frames)
    told, effect, _ = play(child, args, DOCUMENTS, ahead=True)
    assert told == strict
    if strict[0]:
        assert effect == strict_effect


def get(id: str, **more: Any) -> dict[str, Any]:
    return {"op": "1.0/get", "args": {"id": id, "isSystem": False, **more}, "wait": True}


def patch(id: str, value: Any) -> dict[str, Any]:
    return {"op": "1.0/shallowMerge", "args": {"id": id, "value": value}, "wait": True}


def test_a_transfer_asks_once(child: Child) -> None:
    """Two gets and two patches of documents that the arguments name: one question; the second get and both patches are told with the writes."""
    args = {"steps": [get(IDS[0]), get(IDS[1]), patch(IDS[0], {"n": 5}), patch(IDS[1], {"n": 6})], "end": "wait"}
    (ok, _), (_, changes, metrics), frames = play(child, args, DOCUMENTS, ahead=True)
    assert ok
    assert frames == [
        ("1.0/get", False, None),
        ("1.0/shallowMerge", True, {IDS[1]: 1}),
        ("1.0/shallowMerge", True, None),
    ]
    assert len(changes) == metrics["documentsWritten"]["used"] == metrics["documentsRead"]["used"] == 2


def test_what_was_sent_and_not_taken_is_not_read(child: Child) -> None:
    """Documents that were sent along are no reads and count nothing until the function gets them."""
    args = {"steps": [get(IDS[0])], "end": "wait", "others": IDS[1:]}
    _, (token, _, metrics), _ = play(child, args, DOCUMENTS, ahead=True)
    assert metrics["documentsRead"]["used"] == 1
    assert {key for index, key in token.points if index < -100_000 or len(key) == 16} >= {
        named_documents(json.dumps(IDS[0]).encode())[0].id
    }
    assert not {one.id for one in named_documents(json.dumps(IDS[1:]).encode())} & {key for _, key in token.points}


def test_writes_that_were_answered_are_bounded(child: Child) -> None:
    """After 256 of one run the child asks again."""
    args = {"steps": [get(IDS[0]), *[patch(IDS[0], {"n": n}) for n in range(300)]], "end": "wait"}
    (ok, value), _, frames = play(child, args, DOCUMENTS, ahead=True)
    assert ok
    assert json.loads(value)[-1][1]["n"] == 299
    assert [answered for _, answered, _ in frames] == [False, *[True] * 256, *[False] * 44]


@pytest.mark.parametrize("overtaken", [True, False])
def test_a_document_sent_ahead_that_changes_before_it_is_taken(child: Child, overtaken: bool) -> None:
    """The snapshot moves for a hot key between the sending and the taking: the run ends if the document has changed, else it goes on."""
    store = Store(seed=7)
    store.insert("t", *DOCUMENTS)
    steps = [
        get(IDS[0]),
        {"op": "1.0/get", "args": {"id": IDS[2], "isSystem": True}, "wait": True},
        get(IDS[1]),
        get(IDS[2]),
    ]
    one = Run(store, child, {"steps": steps, "end": "wait"}, ahead=True)
    one.step()
    one.step()  # a failed operation, between sending and taking
    other = store.mutation()
    run(other.patch(IDS[1] if overtaken else IDS[0], {"n": 77.0}) if overtaken else other.insert("t", {"n": 1.0}))
    store.commit(other)
    tablet = store.db.catalogs.newest.table(0, "t").tablet  # type: ignore[union-attr]
    hot = (-tablet, named_documents(json.dumps(MISSING).encode())[0].id)
    store.db.committer.lanes.lane(hot)
    run(one.transaction.claim((hot,)))
    assert one.transaction.moves == 1
    if overtaken:
        with pytest.raises(Rerun):
            one.finish()
    else:
        assert one.finish()[0]
    one.transaction.ticket.release_all()  # type: ignore[union-attr]
    one.transaction.close()
    run(store.db.stop())
