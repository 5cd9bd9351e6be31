"""Mutations: exactly once, re-runs, errors (A4, A5, A6, A9)."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from convex_backend.application.types import ANONYMOUS, CallResult, Identity, MutationKey
from convex_backend.database.committer import GATHER_SECONDS, GATHER_SHARE
from convex_backend.database.start_gate import BEGUN_PER_KEY
from convex_backend.deferreds import from_coroutine
from convex_backend.errors import BadRequest, OccConflict, RefusedLate, StorageFailed
from convex_backend.functions.directory import Environment
from tests.application.support import CALLER, Function, ScriptError, World
from tests.database.documents import run

KEY = MutationKey("6ba7b810-9dad-11d1-80b4-00c04fd430c8", 7)


async def add(function: Function, args: Any) -> Any:
    """Insert a document."""
    return (await function.call("1.0/insert", table="notes", value=args))["_id"]


async def increment(function: Function, args: Any) -> Any:
    """Read a counter, wait, write it back plus one."""
    counters = await function.all("counters")
    await function.pause()
    value = counters[0]["n"] + 1
    await function.call("1.0/shallowMerge", id=counters[0]["_id"], value={"n": value})
    return value


def start(world: World, path: str, args: bytes = b"{}", **options: Any) -> list[Any]:
    """Begin a mutation. :returns: a list that gets its result or failure."""
    results: list[Any] = []
    deferred = from_coroutine(world.mutations.run(path, args, ANONYMOUS, CALLER, **options))
    deferred.addBoth(results.append)
    return results


def ok(results: list[Any]) -> CallResult:
    """The one result, a success."""
    [result] = results
    assert isinstance(result, CallResult), result
    assert result.error is None, result.error
    return result


def counter_world() -> World:
    """A world with one counter at 0."""
    world = World()
    world.define("counters:increment", "mutation", increment)
    transaction = world.db.begin("mutation")
    run(transaction.insert("counters", {"n": 0.0}))
    run(world.db.commit(transaction))
    return world


def test_a_mutation_is_durable_when_it_is_answered() -> None:
    """The answer waits for the store; its timestamp is the commit's."""
    world = World()
    world.define("notes:add", "mutation", add)
    gate: Deferred[None] = Deferred()
    world.persistence.before_write = lambda _: gate
    results = start(world, "notes:add", b'{"x":1}')
    assert results == []
    assert world.db.committer.durable_ts < world.db.committer.pending_ts
    world.persistence.before_write = None
    gate.callback(None)
    result = ok(results)
    assert result.ts == world.db.committer.durable_ts
    assert [d["x"] for d in world.documents("notes")] == [1.0]


def test_equal_keys_are_applied_once() -> None:
    """A replay gives the first answer and timestamp without running; two at the same time share one run."""
    world = World()
    world.define("notes:add", "mutation", add)
    gate: Deferred[None] = Deferred()
    world.persistence.before_write = lambda _: gate
    first = start(world, "notes:add", b'{"x":1}', key=KEY)
    second = start(world, "notes:add", b'{"x":1}', key=KEY)
    assert (first, second) == ([], [])
    world.persistence.before_write = None
    gate.callback(None)
    third = start(world, "notes:add", b'{"x":2}', key=KEY)
    assert ok(first).value == ok(second).value == ok(third).value
    assert ok(first).ts == ok(third).ts
    assert len(world.documents("notes")) == 1
    other = start(world, "notes:add", b'{"x":2}', key=MutationKey(KEY.session, 8))
    assert ok(other).value != ok(first).value


def test_a_failed_mutation_leaves_nothing_and_runs_again_on_replay() -> None:
    """Errors write neither documents nor a ledger entry."""
    world = World()

    async def fail(function: Function, args: Any) -> Any:
        await add(function, {"x": 1})
        raise ScriptError("no")

    world.define("notes:fail", "mutation", fail)
    [result] = start(world, "notes:fail", key=KEY)
    assert result.error.message == "Uncaught Error: no\n"
    assert world.documents("notes") == []
    world.define("notes:fail", "mutation", add)
    ok(start(world, "notes:fail", key=KEY))
    assert len(world.documents("notes")) == 1


def test_conflicting_mutations_all_succeed() -> None:
    """Ten increments that read the same counter at the same time count to ten, whatever the order in which they go on."""
    world = counter_world()
    results = [start(world, "counters:increment") for _ in range(10)]
    turns = 0
    while any(not r for r in results):
        # With this many mutations under way, a commit waits a little for others to share its group.
        world.timers.advance(GATHER_SECONDS)
        if world.pool.paused:
            world.go_on(turns % len(world.pool.paused))
            turns += 1
        assert turns < 200
    assert sorted(float(ok(r).value or b"") for r in results) == [float(n) for n in range(1, 11)]
    assert world.documents("counters")[0]["n"] == 10.0
    # A6: those that conflicted waited instead of racing: not one more run than each needs.
    assert turns <= 20


def test_reruns_are_not_queued_for_admission() -> None:
    """A re-run may be what others in its lanes wait for."""
    world = counter_world()
    results = [start(world, "counters:increment") for _ in range(3)]
    while any(not r for r in results):
        world.go_on()
    assert [spec.admitted for spec in world.pool.specs[:3]] == [False, False, False]
    assert all(spec.admitted for spec in world.pool.specs[3:])
    assert len(world.pool.specs) > 3


def test_the_pool_is_told_of_waits_in_lanes() -> None:
    """While a mutation waits in a lane its slot is free: the pool hears when each wait begins and when it ends."""
    world = counter_world()
    results = [start(world, "counters:increment") for _ in range(5)]
    while any(not r for r in results):
        world.go_on()
    assert world.pool.waits.count(True) == world.pool.waits.count(False) > 0


def test_an_error_computed_from_pending_data_waits_until_that_is_durable() -> None:
    """Nobody learns of data that may still be lost, not even through an error."""
    world = World()

    async def tell(function: Function, args: Any) -> Any:
        raise ScriptError(f"{len(await function.all('notes'))} notes")

    world.define("notes:add", "mutation", add)
    world.define("notes:tell", "mutation", tell)
    gate: Deferred[None] = Deferred()
    world.persistence.before_write = lambda _: gate
    start(world, "notes:add", b'{"x":1}')
    told = start(world, "notes:tell")
    assert told == []
    world.persistence.before_write = None
    gate.callback(None)
    assert told[0].error.message == "Uncaught Error: 1 notes\n"


def test_a_lost_group_fails_its_mutations_and_reruns_those_that_saw_it() -> None:
    """A5: the mutation of the lost group fails retriably; one that read its pending data runs again without it."""
    world = World()

    async def count(function: Function, args: Any) -> Any:
        number = len(await function.all("notes"))
        await function.pause()
        await add(function, {"x": number})
        return number

    world.define("notes:add", "mutation", add)
    world.define("notes:count", "mutation", count)
    gate: Deferred[None] = Deferred()
    world.persistence.before_write = lambda _: gate
    lost = start(world, "notes:add", b'{"x":1}')
    counted = start(world, "notes:count")
    world.persistence.before_write = None
    gate.errback(OSError("disk"))
    assert lost[0].check(StorageFailed)
    while world.pool.paused:
        world.go_on()
    assert ok(counted).value == b"0"
    assert [d["x"] for d in world.documents("notes")] == [0.0]


def test_a_child_that_is_lost_costs_nothing() -> None:
    """A replayed try begins with a fresh transaction; the mutation is applied once."""
    world = World()
    world.define("notes:add", "mutation", add)
    world.pool.lose = 2
    ok(start(world, "notes:add", b'{"x":1}'))
    assert len(world.documents("notes")) == 1
    assert world.db.committer.snapshots.open_count == 0


def test_a_lost_child_does_not_keep_lanes() -> None:
    """While a mutation whose child was lost waits for its next try, those that wanted its hot key go on; then it is applied, once."""
    world = counter_world()
    [counter] = world.documents("counters")

    async def bump(function: Function, args: Any) -> Any:
        number = (await function.call("1.0/get", id=counter["_id"]))["n"]
        await function.pause()
        await function.call("1.0/shallowMerge", id=counter["_id"], value={"n": number + 1})
        return number + 1

    world.define("counters:bump", "mutation", bump)
    first = [start(world, "counters:bump") for _ in range(2)]
    while any(not r for r in first):
        world.go_on()
    owner = start(world, "counters:bump")
    waiting = start(world, "counters:bump")
    assert len(world.pool.paused) == 1
    world.pool.lose = 1
    world.pool.hold_replays = True
    world.go_on()
    assert len(world.pool.paused) == 2
    # The one that got the lane stopped before the lost one did.
    world.go_on(0)
    assert (ok(waiting).value, owner) == (b"3.0", [])
    world.go_on(0)
    world.go_on(0)
    assert ok(owner).value == b"4.0"
    assert world.documents("counters")[0]["n"] == 4.0


def test_a_push_during_the_run_means_another_run() -> None:
    """A mutation whose code changed between its start and its snapshot runs again with the new code."""
    world = World()
    runs: list[str] = []

    async def old(function: Function, args: Any) -> Any:
        runs.append("old")
        await function.pause()
        return "old"

    async def new(function: Function, args: Any) -> Any:
        runs.append("new")
        return "new"

    world.define("m:f", "mutation", old)
    results = start(world, "m:f")
    world.define("m:f", "mutation", new)
    world.go_on()
    assert ok(results).value == b'"new"'
    world.define("m:f", "mutation", old)
    results = start(world, "m:f")
    world.directory.variables = Environment({"A": "1"}, "v2")
    world.go_on()
    world.go_on()
    assert ok(results).value == b'"old"'
    assert runs == ["old", "new", "old", "old"]


def test_a_run_that_always_raises_occ_gives_up() -> None:
    """The fault hook ends in the official error after a few tries."""
    world = World()

    async def always(function: Function, args: Any) -> Any:
        raise OccConflict()

    world.define("m:f", "mutation", always)
    [failure] = start(world, "m:f")
    assert failure.check(OccConflict)
    assert len(world.pool.specs) == 5


@pytest.mark.parametrize(
    ("path", "args", "text"),
    [
        ("nope:f", b"{}", "Could not find public function for 'nope:f'. Did you forget to run `npx convex dev`?"),
        ("m:hidden", b"{}", "Could not find public function for 'm:hidden'. Did you forget to run `npx convex dev`?"),
        ("m:q", b"{}", "Trying to execute m.js:q as Mutation, but it is defined as Query."),
        ("m:f", b'{"x":"a"}', "ArgumentValidationError: Value does not match validator."),
        ("m:f", b'{"$x":1}', "Field name $x starts with '$', which is reserved."),
        ("m:f", b"[1,2]", "ArgumentValidationError: Expected to receive a single object"),
    ],
)
def test_what_cannot_run_is_the_functions_error(path: str, args: bytes, text: str) -> None:
    """Unknown, hidden and wrong functions and bad arguments are results, not failures of the request."""
    world = World()
    number = '{"type":"object","value":{"x":{"fieldType":{"type":"number"},"optional":false}}}'
    world.define("m:f", "mutation", add, args=number)
    world.define("m:hidden", "mutation", add, visibility="internal")
    world.define("m:q", "query", add)
    [result] = start(world, path, args)
    assert text in result.error.message
    assert world.pool.specs == []


def test_admins_may_run_internal_functions() -> None:
    """An admin key opens internal functions."""
    world = World()
    world.define("m:hidden", "mutation", add, visibility="internal")
    result = run(world.mutations.run("m:hidden", b"{}", Identity("admin"), CALLER))
    assert result.error is None


def test_a_read_only_key_does_not_open_internal_mutations() -> None:
    """A key without the operation gets the permission text, and nothing runs; public functions are open to it, and to server code all are."""
    world = World()
    world.define("m:hidden", "mutation", add, visibility="internal")
    world.define("m:open", "mutation", add)
    reader = Identity("admin", read_only=True)
    result = run(world.mutations.run("m:hidden", b"{}", reader, CALLER))
    assert result.error.message == "You do not have permission to perform this operation (RunInternalMutations)."
    assert world.documents("notes") == []
    assert run(world.mutations.run("m:open", b"{}", reader, CALLER)).error is None
    assert run(world.mutations.run("m:hidden", b"{}", reader, CALLER, internal=True)).error is None


def test_a_path_that_cannot_be_parsed_is_a_bad_request() -> None:
    """The request itself is wrong."""
    world = World()
    [failure] = start(world, "a b:c")
    assert failure.check(BadRequest)
    assert failure.value.code == "BadConvexFunctionIdentifier"


def test_a_wrong_return_value_rolls_back() -> None:
    """Return validation after the run: an error, and nothing written."""
    world = World()
    world.define("m:f", "mutation", add, returns='{"type":"number"}')
    [result] = start(world, "m:f")
    assert result.error.message.startswith("ReturnsValidationError: ")
    assert world.documents("notes") == []


def test_nothing_is_left_behind() -> None:
    """After successes, errors and conflicts no snapshot is open and no lane is owned."""
    world = counter_world()
    results = [start(world, "counters:increment") for _ in range(4)]
    while any(not r for r in results):
        world.go_on()
    assert world.db.committer.snapshots.open_count == 0
    assert not world.db.committer.lanes._owned


def test_a_commit_among_many_waits_for_company() -> None:
    """With many mutations under way several commits share a group; one alone is written at once."""
    world = World()
    world.define("notes:add", "mutation", add)
    groups: list[int] = []
    world.persistence.before_write = lambda commits: groups.append(len(commits))
    ok(start(world, "notes:add"))
    assert groups == [1]
    world.db.committer.siblings += GATHER_SHARE * 4
    results = [start(world, "notes:add") for _ in range(3)]
    assert results == [[], [], []]
    world.timers.advance(GATHER_SECONDS)
    for result in results:
        ok(result)
    assert groups == [1, 3]
    results = [start(world, "notes:add") for _ in range(4)]
    for result in results:
        ok(result)
    assert groups == [1, 3, 4]


def test_only_a_few_mutations_of_a_hot_key_are_begun() -> None:
    """Mutations whose arguments name a hot document wait before they are begun, in order; all of them succeed."""
    world = World()

    async def bump(function: Function, args: Any) -> Any:
        document = await function.call("1.0/get", id=args["id"], isSystem=False)
        await function.pause()
        await function.call("1.0/shallowMerge", id=args["id"], value={"n": document["n"] + 1})
        return document["n"] + 1

    world.define("counters:bump", "mutation", bump)
    transaction = world.db.begin("mutation")
    name = run(transaction.insert("counters", {"n": 0.0}))
    run(world.db.commit(transaction))
    args = b'{"id":"%s"}' % name.encode()
    first = [start(world, "counters:bump", args) for _ in range(2)]
    while any(not r for r in first):
        world.go_on()
    begun = len(world.pool.specs)
    later = [start(world, "counters:bump", args) for _ in range(BEGUN_PER_KEY + 20)]
    assert len(world.pool.specs) - begun == BEGUN_PER_KEY
    while any(not r for r in later):
        world.timers.advance(GATHER_SECONDS)
        if world.pool.paused:
            world.go_on()
    assert [float(ok(r).value or b"") for r in later] == [3.0 + n for n in range(BEGUN_PER_KEY + 20)]
    assert not world.db.start_gate._doors


def test_a_late_refusal_makes_the_next_runs_strict() -> None:
    """A write that was answered and then refused: the mutation runs again strictly, at once, and so do its next runs; nobody else's."""
    world = World()
    seen: list[bool] = []

    async def refused(function: Function, args: Any) -> Any:
        seen.append(function.host.tree.ahead)
        await function.call("1.0/insert", table="notes", value={})
        if function.host.tree.ahead:
            raise RefusedLate
        return "strict"

    world.define("m:refused", "mutation", refused)
    world.define("m:add", "mutation", add)
    assert [ok(start(world, "m:refused")).value for _ in range(3)] == [b'"strict"'] * 3
    assert seen == [True, False, False, False]
    ok(start(world, "m:add"))
    assert [spec.ahead for spec in world.pool.specs] == [*seen, True]
    transaction = world.db.begin("query")
    assert run(transaction.count("notes")) == 4
    transaction.close()


def test_documents_that_arguments_name_come_with_the_first_get() -> None:
    """The first get brings what the function has read in earlier runs, not what it never reads; a query gets its own answer only."""
    world = World()
    transaction = world.db.begin("mutation")
    ids = [run(transaction.insert("notes", {"n": float(n)})) for n in range(3)]
    run(world.db.commit(transaction))
    sent: list[list[str]] = []

    async def reads(function: Function, args: Any) -> Any:
        reply = await function.host.syscall("1.0/get", b'{"id":"%s","isSystem":false}' % ids[0].encode(), None)
        sent.append([id for id, _ in reply.meta.get("ahead", [])])
        assert len(reply.body.split(b"\n")) == 1 + len(sent[-1])
        function.host.consumed({ids[2]: 1})

    world.define("m:reads", "mutation", reads)
    args = b'{"a":"%s","b":"%s","c":"%s"}' % tuple(id.encode() for id in ids)
    for _ in range(8):
        ok(start(world, "m:reads", args))
    assert sent[0] == ids[1:]
    assert sent[-1] == ids[2:]
