"""How runs end: killed before they read, nested, replayed, with the code directory of a deployment. Nothing may stay open or be shown too early."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from twisted.internet.defer import Deferred

from convex_backend.application.directory import Directory
from convex_backend.application.push_store import StoredModule
from convex_backend.application.types import ANONYMOUS, CallResult, QuerySpec
from convex_backend.database.system_tables import ENVIRONMENT_VARIABLES, MODULES
from convex_backend.deferreds import from_coroutine
from convex_backend.errors import BadRequest
from convex_backend.functions.outcome import system_failure
from tests.application.support import CALLER, Function, World
from tests.application.test_run_mutation import KEY, add, ok, start
from tests.database.documents import run

KILLED = "Function execution timed out (maximum duration: 1s)"


class Killing:
    """A pool that ends each call as the watchdog does: the host is abandoned, the outcome is the pool's own."""

    def __init__(self, world: World, make: bool = True, before: Any = None) -> None:
        self.world = world
        self.make = make
        self.before = before

    async def run(self, spec: Any, make_host: Any) -> Any:
        if self.make:
            host = make_host()
            if self.before is not None:
                await self.before(Function(host, self.world.pool))
            host.abandon()
        return system_failure(KILLED)


def killing(world: World, **more: Any) -> None:
    """Let *world*'s isolates be killed."""
    object.__setattr__(world.services, "isolates", Killing(world, **more))


@pytest.mark.parametrize("make", [True, False])
def test_a_mutation_that_is_killed_before_it_reads_leaves_nothing_open(make: bool) -> None:
    """The pool's word on a killed call is the answer, and no snapshot stays open; also when no try could begin."""
    world = World()
    world.define("notes:spin", "mutation", add)
    killing(world, make=make)
    [result] = start(world, "notes:spin")
    assert isinstance(result, CallResult)
    assert result.error is not None
    assert result.error.message == KILLED
    assert world.db.committer.snapshots.open_count == 0
    assert world.db.committer.lanes._owned == 0


def test_a_killed_mutation_whose_group_failed_does_not_wait_for_ever() -> None:
    """A killed run that read commits which were lost afterwards runs again."""
    world = World()
    world.define("notes:add", "mutation", add)
    world.define("notes:look", "mutation", add)
    gate: Deferred[None] = Deferred()
    world.persistence.before_write = lambda _: gate
    first = start(world, "notes:add", b'{"x":1}')

    async def look(function: Function) -> None:
        await function.all("notes")
        await function.pause()

    isolates = world.services.isolates
    killing(world, before=look)
    second = start(world, "notes:look", b'{"x":2}')
    object.__setattr__(world.services, "isolates", isolates)
    gate.errback(OSError("disk"))
    world.persistence.before_write = None
    assert len(first) == 1
    world.go_on()
    ok(second)
    assert [d["x"] for d in world.documents("notes")] == [2.0]
    assert world.db.committer.snapshots.open_count == 0


def test_a_killed_query_leaves_nothing_open() -> None:
    """Likewise for queries; the failure is the result."""
    world = World()
    world.define("notes:spin", "query", add)
    killing(world)
    version = run(world.live.query(world.queries.key(QuerySpec("notes:spin", b"{}", None, None), ANONYMOUS), ANONYMOUS))
    assert version.evaluation.error is not None
    assert world.db.committer.snapshots.open_count == 0


def test_a_replay_resolves_commit_timestamps_as_the_first_answer_did() -> None:
    """A returned placeholder is the commit's timestamp in the answer and in every replay of it."""

    async def stamp(function: Function, args: Any) -> Any:
        await function.call("1.0/insert", table="notes", value={})
        return {"at": {"$commitTs": None}}

    world = World()
    world.define("notes:stamp", "mutation", stamp)
    first = ok(start(world, "notes:stamp", key=KEY))
    again = ok(start(world, "notes:stamp", key=KEY))
    assert b"$integer" in (first.value or b"")
    assert again.value == first.value


def deployed(world: World) -> Directory:
    """*world* with the real code directory in place of the scripted one."""
    directory = Directory(database=world.db, cloud_origin="http://cloud", site_origin="http://site")
    directory.start()
    object.__setattr__(world.services, "directory", directory)
    object.__setattr__(world.services.calls, "directory", directory)
    return directory


def push_module(world: World, path: str, *functions: tuple[str, str]) -> None:
    """Deploy a module with public *functions* (name, kind)."""
    tree = {
        "functions": [
            {"name": name, "udfType": kind, "visibility": {"kind": "public"}, "args": None, "returns": None}
            for name, kind in functions
        ],
        "closure": [],
    }
    transaction = world.db.begin("system")
    row = StoredModule(path, "isolate", "0", "0", orjson.dumps(tree).decode()).to_row(0)
    run(transaction.system.insert(MODULES.name, row))
    from_coroutine(world.db.commit(transaction)).addErrback(lambda _: None)


async def value_of(function: Function, args: Any) -> Any:
    """Call another function first, and return what it gives."""
    return await function.call("1.0/runUdf", **args)


def nested_world() -> World:
    """A deployment where a call is answered by running the callee's script at once."""
    world = World()
    deployed(world)
    world.define("m:outer", "mutation", value_of)
    world.define("m:inner", "query", count)
    push_module(world, "m.js", ("outer", "Mutation"), ("inner", "Query"))
    return world


async def count(function: Function, args: Any) -> Any:
    """How many notes there are."""
    return len(await function.all("notes"))


def test_a_mutation_may_call_before_it_reads() -> None:
    """A nested call can be the first thing that a mutation does: its function is looked up at the snapshot."""
    world = nested_world()
    result = ok(start(world, "m:outer", b'{"udfType":"query","name":"m:inner"}'))
    assert result.value == b"0"
    assert world.db.committer.snapshots.open_count == 0


def test_code_that_is_not_durable_is_not_run() -> None:
    """A call during a push waits until the push is durable; when the push is lost the function does not exist."""
    world = World()
    deployed(world)
    world.define("m:add", "mutation", add)
    gate: Deferred[None] = Deferred()
    world.persistence.before_write = lambda _: gate
    push_module(world, "m.js", ("add", "Mutation"))
    results = start(world, "m:add")
    assert results == []
    world.persistence.before_write = None
    gate.errback(OSError("disk"))
    [result] = results
    assert result.error is not None
    assert "Could not find public function" in result.error.message


async def two_pages(function: Function, args: Any) -> Any:
    """Paginate here, and twice through a helper."""
    mine = await page(function, {"order": "asc", "size": 2})
    others = [
        await function.call("1.0/runUdf", udfType="query", name="notes:page", args={"order": "desc", "size": size})
        for size in (1, 3)
    ]
    return [len(found["page"]) for found in (mine, *others)]


async def page(function: Function, args: Any) -> Any:
    """One page of the notes."""
    query = {"source": {"type": "FullTableScan", "tableName": "notes", "order": args["order"]}, "operators": []}
    return await function.call("1.0/queryPage", query=query, cursor=None, pageSize=args["size"])


def test_each_function_of_a_tree_may_have_one_paginated_query() -> None:
    """Nested calls have a page of their own; the journal pins only the root's, in the first run and in the next one."""
    world = World()
    world.define("notes:add", "mutation", add)
    world.define("notes:page", "query", page)
    world.define("notes:pages", "query", two_pages)
    for _ in range(2):
        ok(start(world, "notes:add"))
    key = world.queries.key(QuerySpec("notes:pages", b"{}", None, None), ANONYMOUS)
    first = run(world.live.query(key, ANONYMOUS)).evaluation
    assert (first.error, first.value) == (None, b"[2, 1, 2]")
    assert first.journal is not None
    ok(start(world, "notes:add"))
    again = run(world.queries.run((*key[:3], first.journal, key[4]), ANONYMOUS, CALLER, None))
    assert (again.error, again.value) == (None, b"[2, 1, 3]")
    assert again.journal == first.journal


def test_a_second_paginated_query_of_one_function_is_refused() -> None:
    """A nested call in between does not allow the caller another page."""

    async def greedy(function: Function, args: Any) -> Any:
        await two_pages(function, args)
        return await page(function, {"order": "asc", "size": 1})

    world = World()
    world.define("notes:page", "query", page)
    world.define("notes:greedy", "query", greedy)
    key = world.queries.key(QuerySpec("notes:greedy", b"{}", None, None), ANONYMOUS)
    evaluation = run(world.live.query(key, ANONYMOUS)).evaluation
    assert evaluation.error is not None
    assert "ran multiple paginated queries" in evaluation.error.message


def test_rows_that_a_nested_query_left_are_not_read() -> None:
    """What a nested query fetched ahead and did not take does not count as read when the snapshot moves; its stream ends with it."""

    async def first(function: Function, args: Any) -> Any:
        query = {"source": {"type": "FullTableScan", "tableName": "notes", "order": None}, "operators": []}
        function.host.open_query(0, orjson.dumps({"query": query}))
        reply = await function.host.syscall("1.0/queryStreamNext", b'{"queryId":0}', None)
        return reply.meta["rows"]

    async def outer(function: Function, args: Any) -> Any:
        rows = await function.call("1.0/runUdf", udfType="query", name="notes:first", args={})
        transaction = function.host.documents
        return [rows, len(transaction._streams)]  # type: ignore[attr-defined]

    world = World()
    world.define("notes:add", "mutation", add)
    world.define("notes:first", "query", first)
    world.define("notes:outer", "mutation", outer)
    for _ in range(3):
        ok(start(world, "notes:add"))
    assert ok(start(world, "notes:outer")).value == b"[3, 0]"


def test_an_error_of_a_system_mutation_waits_for_what_it_read() -> None:
    """Like a user's mutation: an error that tells of pending data is not answered before that is durable."""

    class Failing:
        async def run_mutation(self, transaction: Any, *_: Any) -> Any:
            rows = await transaction.count("notes")
            raise BadRequest("No", f"{rows} notes")

    world = World()
    object.__setattr__(world.services, "system_functions", Failing())
    world.define("notes:add", "mutation", add)
    gate: Deferred[None] = Deferred()
    world.persistence.before_write = lambda _: gate
    start(world, "notes:add")
    results = start(world, "_system/frontend/any")
    assert results == []
    world.persistence.before_write = None
    gate.errback(OSError("disk"))
    [result] = results
    assert isinstance(result, CallResult)
    assert result.error is not None
    assert result.error.message == "0 notes"
    assert world.db.committer.snapshots.open_count == 0


async def row_after_row(function: Function) -> None:
    """Have a page of notes in the child, of which nothing is reported as taken but the first row."""
    query = {"source": {"type": "FullTableScan", "tableName": "notes", "order": None}, "operators": []}
    function.host.open_query(0, orjson.dumps({"query": query}))
    await function.host.syscall("1.0/queryStreamNext", orjson.dumps({"queryId": 0}), None)


def insert_notes(world: World, *numbers: int) -> None:
    """Commit some notes."""
    transaction = world.db.begin("mutation")
    for number in numbers:
        run(transaction.insert("notes", {"n": number}))
    run(world.db.commit(transaction))


def set_variable(world: World, name: str) -> None:
    """Commit an environment variable of the app."""
    transaction = world.db.begin("system")
    run(transaction.system.insert(ENVIRONMENT_VARIABLES.name, {"component": 0, "name": name, "value": "x"}))
    run(world.db.commit(transaction))


def test_a_query_that_is_cut_off_depends_on_all_that_it_may_have_looked_at() -> None:
    """A run that is ended by a limit cannot say which variables it looked at, whether it looked at the clock, and how many of the rows that
    it was given it has taken: its failure is computed again after a change to any of them, and after none other."""
    world = World()
    deployed(world)
    world.define("m:spin", "query", count)
    push_module(world, "m.js", ("spin", "Query"))
    insert_notes(world, 1, 2, 3)
    killing(world, before=row_after_row)
    key = world.queries.key(QuerySpec("m:spin", b"{}", None, None), ANONYMOUS)

    def changed_by(change: Any) -> bool:
        version = run(world.live.query(key, ANONYMOUS))
        evaluation = version.evaluation
        assert evaluation.error is not None
        assert evaluation.error.message == KILLED
        assert evaluation.observed_time
        calls: list[int] = []
        world.db.subscribe(evaluation.reads, evaluation.ts, calls.append)  # type: ignore[arg-type]
        change()
        return bool(calls)

    def write_elsewhere() -> None:
        transaction = world.db.begin("mutation")
        run(transaction.insert("others", {}))
        run(world.db.commit(transaction))

    assert changed_by(lambda: set_variable(world, "SPIN"))
    assert changed_by(lambda: insert_notes(world, 4))
    assert changed_by(write_elsewhere)  # makes a table, which normalizeId might have asked for
    assert not changed_by(write_elsewhere)
    assert world.db.committer.snapshots.open_count == 0
