"""Queries: access, snapshot, journals, cache, redaction (``runtime.md`` sections 1.4, 3.5, 8.4, 10)."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from twisted.internet.defer import Deferred

from convex_backend.application.run_query import run_query
from convex_backend.application.types import ANONYMOUS, CallResult, Identity, QuerySpec
from convex_backend.deferreds import from_coroutine
from convex_backend.values.ids import encode_id
from tests.application.support import CALLER, Function, ScriptError, World
from tests.database.documents import run

ADMIN = Identity("admin")
ANN = Identity("user", (("issuer", "https://i"), ("subject", "ann"), ("tokenIdentifier", "https://i|ann")))


def notes_world(count: int = 0) -> World:
    """Some notes, and queries over them."""
    world = World()

    async def all_notes(function: Function, args: Any) -> Any:
        return [d["n"] for d in await function.all("notes")]

    async def who(function: Function, args: Any) -> Any:
        return await function.call("1.0/getUserIdentity", requestId="")

    async def page(function: Function, args: Any) -> Any:
        options = args["paginationOpts"]
        query = {"source": {"type": "FullTableScan", "tableName": "notes", "order": "asc"}, "operators": []}
        return await function.call(
            "1.0/queryPage", query=query, cursor=options["cursor"], endCursor=None, pageSize=options["numItems"]
        )

    world.define("notes:all", "query", all_notes)
    world.define("notes:who", "query", who)
    world.define("notes:page", "query", page)
    world.define("notes:hidden", "query", all_notes, visibility="internal")
    insert(world, *range(count))
    return world


def insert(world: World, *numbers: float) -> None:
    """Commit notes."""
    transaction = world.db.begin("mutation")
    for number in numbers:
        run(transaction.insert("notes", {"n": float(number)}))
    run(world.db.commit(transaction))


def ask(world: World, path: str, args: bytes = b"{}", identity: Identity = ANONYMOUS, **options: Any) -> CallResult:
    """Run a query over HTTP."""
    return run(run_query(world.services, world.live, world.queries, path, args, identity, CALLER, **options))


def value(result: CallResult) -> Any:
    """The decoded value of a success."""
    assert result.error is None, result.error
    return orjson.loads(result.value or b"")


def test_results_are_cached_until_a_commit_touches_them() -> None:
    """Equal queries run once; after a commit in what they read they run again."""
    world = notes_world(2)
    assert value(ask(world, "notes:all")) == [0.0, 1.0]
    assert value(ask(world, "notes.js:all", b"[{}]")) == [0.0, 1.0]
    assert len(world.pool.specs) == 1
    insert(world, 5)
    assert value(ask(world, "notes:all")) == [0.0, 1.0, 5.0]
    assert len(world.pool.specs) == 2


def test_spelling_of_equal_arguments_does_not_matter() -> None:
    """Key order, whitespace and number spelling give one cache entry."""
    world = notes_world()
    ask(world, "notes:all", b'{"a": 1, "b": 2}')
    ask(world, "notes:all", b'[{"b":2.0,"a":1.0}]')
    assert len(world.pool.specs) == 1


def test_a_query_of_a_missing_table_is_invalidated_by_its_first_document() -> None:
    """Reading what does not exist is recorded too."""
    world = notes_world()
    assert value(ask(world, "notes:all")) == []
    insert(world, 1)
    assert value(ask(world, "notes:all")) == [1.0]


def test_failures_are_not_cached() -> None:
    """A failed query runs again."""
    world = notes_world()

    async def fail(function: Function, args: Any) -> Any:
        raise ScriptError("no")

    world.define("notes:fail", "query", fail)
    for _ in range(2):
        assert ask(world, "notes:fail").error_message().endswith("Server Error\nUncaught Error: no\n")
    assert len(world.pool.specs) == 2


def test_identity_decides_only_where_it_is_looked_at() -> None:
    """A query that reads the identity is kept per user; one that does not is shared."""
    world = notes_world()
    assert value(ask(world, "notes:who")) is None
    assert value(ask(world, "notes:who", identity=ANN))["subject"] == "ann"
    assert value(ask(world, "notes:who")) is None
    assert len(world.pool.specs) == 2
    ask(world, "notes:all")
    ask(world, "notes:all", identity=ANN)
    assert len(world.pool.specs) == 3


def test_internal_functions_are_hidden_from_all_but_admins() -> None:
    """The same text as for a function that does not exist; an admin's result does not leak through the cache."""
    world = notes_world(1)
    assert value(ask(world, "notes:hidden", identity=ADMIN)) == [0.0]
    denied = ask(world, "notes:hidden")
    assert denied.error is not None
    assert denied.error.message == (
        "Could not find public function for 'notes:hidden'. Did you forget to run `npx convex dev`?"
    )


def test_reads_at_a_timestamp_see_that_moment() -> None:
    """``query_at_ts`` reads the past, beside the cache."""
    world = notes_world(1)
    before = world.db.committer.durable_ts
    insert(world, 2)
    assert value(ask(world, "notes:all", ts=before)) == [0.0]
    assert value(ask(world, "notes:all")) == [0.0, 2.0]


def test_a_lost_child_does_not_lose_what_was_read() -> None:
    """After a replay the read set still holds everything: the result is invalidated as it should be."""
    world = notes_world(1)
    world.pool.lose = 1
    assert value(ask(world, "notes:all")) == [0.0]
    insert(world, 2)
    assert value(ask(world, "notes:all")) == [0.0, 2.0]
    assert world.db.committer.snapshots.open_count == 0


def test_redaction_hides_texts_and_lines_but_not_from_admins() -> None:
    """Statement 46: errors begin with the request id; with redaction on, clients get nothing else, and admins everything."""
    world = World(redact=True)

    async def fail(function: Function, args: Any) -> Any:
        raise ScriptError("secret")

    world.define("m:f", "query", fail)
    assert ask(world, "m:f").error_message() == "[Request ID: 0123456789abcdef] Server Error"
    assert "secret" in ask(world, "m:f", identity=ADMIN).error_message()


def page_args(cursor: str | None, count: int) -> bytes:
    """Arguments of ``notes:page``."""
    return orjson.dumps([{"paginationOpts": {"cursor": cursor, "numItems": count}}])


def test_a_journal_pins_the_page_that_was_shown() -> None:
    """With its journal a page grows instead of shifting; without one it starts afresh; equal journals have equal text."""
    world = notes_world(4)
    key = world.queries.key(QuerySpec("notes:page", page_args(None, 2), None, None), ANONYMOUS)
    first = run(world.queries.run(key, ANONYMOUS, CALLER, None))
    again = run(world.queries.run(key, ANONYMOUS, CALLER, None))
    assert first.journal is not None
    assert first.journal == again.journal
    assert [d["n"] for d in orjson.loads(first.value or b"")["page"]] == [0.0, 1.0]
    transaction = world.db.begin("mutation")
    run(transaction.delete(orjson.loads(first.value or b"")["page"][0]["_id"]))
    run(world.db.commit(transaction))
    pinned = run(world.queries.run((*key[:3], first.journal, key[4]), ANONYMOUS, CALLER, None))
    assert [d["n"] for d in orjson.loads(pinned.value or b"")["page"]] == [1.0]
    assert pinned.journal == first.journal
    fresh = run(world.queries.run(key, ANONYMOUS, CALLER, None))
    assert [d["n"] for d in orjson.loads(fresh.value or b"")["page"]] == [1.0, 2.0]


def test_a_foreign_journal_fails_the_query_with_invalid_cursor() -> None:
    """Clients look for the data and the word, and start over."""
    world = notes_world(1)
    key = world.queries.key(QuerySpec("notes:page", page_args(None, 2), "nonsense", None), ANONYMOUS)
    evaluation = run(world.queries.run(key, ANONYMOUS, CALLER, None))
    assert evaluation.error is not None
    assert "InvalidCursor" in evaluation.error.message
    assert orjson.loads(evaluation.error.data or b"") == {
        "isConvexSystemError": True,
        "paginationError": "InvalidCursor",
    }


def test_live_queries_follow_commits() -> None:
    """A subscriber gets the new result at the commit's timestamp."""
    world = notes_world(1)
    shown: list[Any] = []

    def ready() -> None:
        update = client.take(0)
        if update is not None:
            shown.extend(orjson.loads(result.modification(query_id, False)) for query_id, result in update.changed)

    client = world.live.connect(ANONYMOUS, ready)
    client.add(3, QuerySpec("notes:all", b"[{}]", None, None))
    world.timers.advance(0)
    insert(world, 7)
    world.timers.advance(0)
    assert [(m["type"], m["queryId"], m["value"]) for m in shown] == [
        ("QueryUpdated", 3, [0.0]),
        ("QueryUpdated", 3, [0.0, 7.0]),
    ]
    client.close()
    assert world.db.committer.snapshots.open_count == 0


USER = encode_id(10001, bytes(14) + b"\x4d\x00")
USER_ID = '{"type":"id","tableName":"users"}'
OF_USER = f'{{"type":"object","value":{{"id":{{"fieldType":{USER_ID},"optional":false}}}}}}'


@pytest.mark.parametrize(("args", "returns"), [(OF_USER, None), (None, USER_ID)])
def test_what_a_validator_knew_of_tables_is_read(args: str | None, returns: str | None) -> None:
    """A live query that failed because an id's table did not exist succeeds as soon as it does."""

    async def same(function: Function, args: Any) -> Any:
        return args["id"]

    world = World()
    world.define("users:same", "query", same, args=args, returns=returns)
    client = world.live.connect(ANONYMOUS, lambda: None)
    client.add(0, QuerySpec("users:same", b'{"id":"%s"}' % USER.encode(), None, None))
    world.timers.advance(0)
    first = client.take(0)
    assert first is not None
    assert first.changed[0][1].failed
    transaction = world.db.begin("mutation")
    run(transaction.insert("users", {}))
    run(world.db.commit(transaction))
    world.timers.advance(0)
    second = client.take(0)
    assert second is not None
    assert [result.failed for _, result in second.changed] == [False]


def test_a_retried_query_knows_the_tables_of_its_timestamp() -> None:
    """A query that lost its child before it read anything does not see tables of commits that are not durable."""
    world = World()
    seen: list[dict[str, int]] = []

    async def look(function: Function, args: Any) -> Any:
        tree = function.host.tree
        seen.append(dict(tree.tables(0)))
        return None

    world.define("users:look", "query", look)
    gate: Deferred[None] = Deferred()
    world.persistence.before_write = lambda _: gate
    transaction = world.db.begin("mutation")
    run(transaction.insert("users", {}))
    committed = from_coroutine(world.db.commit(transaction))
    world.pool.lose = 1
    key = world.queries.key(QuerySpec("users:look", b"{}", None, None), ANONYMOUS)
    run(world.live.query(key, ANONYMOUS))
    assert seen == [{}, {}]
    gate.callback(None)
    assert committed.called
