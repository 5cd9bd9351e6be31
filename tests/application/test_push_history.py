"""The history of pushes and the way back (``docs/deploy_api.md``), over a fake analyzer."""

from __future__ import annotations

from typing import Any

import pytest

from convex_backend.application import push_history
from convex_backend.application.push_history import HistoryEntry
from convex_backend.application.push_store import GRACE_MS
from convex_backend.application.rollback import Rollbacks
from convex_backend.application.types import Caller, Identity
from convex_backend.database.system_tables import SOURCE_PACKAGES
from convex_backend.errors import BadRequest, Conflict, Forbidden, NotFound
from tests.application.push_support import ADMIN, Deployment, function, index, module, run, schema, table

CALLER = Caller("HttpApi", "npm-cli", "1.48.0", "0" * 16)
V1 = module("messages.js", functions=[function("list")])
V2 = module("messages.js", functions=[function("list"), function("send", "Mutation")])
STRING, NUMBER = {"type": "string"}, {"type": "number"}


@pytest.fixture
def app() -> Deployment:
    return Deployment()


def rollbacks(app: Deployment) -> Rollbacks:
    return Rollbacks(database=app.db, history=app.history, deploy=app.deploy)


def entries(app: Deployment) -> list[HistoryEntry]:
    return run(rollbacks(app).entries(ADMIN))


def push(app: Deployment, *modules: dict[str, Any], message: str | None = None, **more: Any) -> None:
    started = app.start(*modules, **more)
    assert app.wait(started) == {"type": "complete"}
    run(app.deploy.finish_push({"startPush": started, "message": message}, ADMIN, CALLER))


def roll_back(app: Deployment, number: int | None = None) -> int:
    return app.eventually(lambda: rollbacks(app).roll_back(number, ADMIN, CALLER)).entry.id  # type: ignore[no-any-return]


def texts(app: Deployment) -> set[str]:
    transaction = app.db.begin("query")
    rows = run(transaction.system.scan(SOURCE_PACKAGES.name, "by_sha256"))
    transaction.close()
    return {row["path"] for _, row in rows}


def test_a_push_is_recorded_with_who_and_what(app: Deployment) -> None:
    """Each finished push has its number, client, message and the names of what it changed; the last one is the current."""
    push(app, V1, module("old.js"), schema=schema(table("messages", indexes=[index("by_a", "a")])), message="first")
    push(app, V2, module("new.js"), schema=schema(table("messages")))
    second, first = entries(app)
    assert (first.id, first.client, first.version, first.message, first.current) == (
        1,
        "npm-cli",
        "1.48.0",
        "first",
        False,
    )
    assert (second.id, second.message, second.current) == (2, None, True)
    assert second.time_ms > first.time_ms
    change = first.changes["components"][""]
    assert change["type"] == "create"
    assert change["modules"] == {"added": ["messages.js", "old.js"], "changed": [], "removed": []}
    assert (change["schemaChanged"], change["indexes"]["added"]) == (True, ["messages.by_a"])
    change = second.changes["components"][""]
    assert change["type"] == "modify"
    assert change["modules"] == {"added": ["new.js"], "changed": ["messages.js"], "removed": ["old.js"]}
    assert change["indexes"] == {"added": [], "removed": ["messages.by_a"]}


def test_only_finished_pushes_count_and_each_once(app: Deployment) -> None:
    """A push that was only started, or a dry run, leaves nothing; a repeated finish adds nothing."""
    started = app.start(V1)
    app.wait(started)
    app.finish(started)
    app.finish(started)
    app.start(V2)
    dry = app.start(V2, dryRun=True)
    app.finish(dry, dryRun=True)
    assert [entry.id for entry in entries(app)] == [1]


def test_rollback_restores_code_and_schema(app: Deployment) -> None:
    """Going back makes the earlier modules and schema the deployed ones and is a push of its own; again without a number, it comes back."""
    push(app, V1, schema=schema(table("messages", {"body": STRING})))
    push(app, V2, schema=schema(table("messages", {"body": STRING}, indexes=[index("by_body", "body")])))
    assert roll_back(app) == 3
    assert app.resolve("messages:send") is None
    assert app.resolve("messages:list") is not None
    newest = entries(app)[0]
    assert (newest.message, newest.current) == ("Rollback to push 1", True)
    assert newest.changes["components"][""]["indexes"]["removed"] == ["messages.by_body"]
    assert roll_back(app) == 4
    assert app.resolve("messages:send") is not None


def test_hashes_after_a_rollback_are_those_that_the_cli_knew(app: Deployment) -> None:
    """The next push of the CLI finds its modules unchanged after a rollback."""
    push(app, V1)
    before = run(app.deploy.get_config_hashes())["moduleHashes"]
    push(app, V2)
    roll_back(app, 1)
    assert run(app.deploy.get_config_hashes())["moduleHashes"] == before


def test_rollback_to_a_push_that_sent_only_what_had_changed(app: Deployment) -> None:
    """Modules that a push named as unchanged are part of it."""
    push(app, V1, module("kept.js", functions=[function("f")]))
    push(app, V2, unchanged=[module("kept.js", functions=[function("f")])])
    push(app, V1)
    roll_back(app, 2)
    assert app.resolve("kept:f") is not None
    assert app.resolve("messages:send") is not None


def test_paths_may_lack_their_ending(app: Deployment) -> None:
    """Whoever leaves ``.js`` out of a path, for changed and unchanged modules, gets an entry like any other."""
    push(app, {**V1, "path": "messages"}, module("kept.js"))
    push(app, {**V2, "path": "messages"}, unchanged=[{**module("kept"), "path": "kept"}])
    assert [entry.changes["components"][""]["modules"] for entry in entries(app)] == [
        {"added": [], "changed": ["messages.js"], "removed": []},
        {"added": ["kept.js", "messages.js"], "changed": [], "removed": []},
    ]
    roll_back(app)
    assert app.resolve("messages:send") is None


def test_a_schema_may_be_called_anything(app: Deployment) -> None:
    """The place in the request says that it is the schema; going back finds it again."""
    push(app, V1, schema={**schema(table("messages", {"body": STRING})), "path": "../some where/schema.js"})
    push(app, V2)
    roll_back(app)
    assert app.db.catalogs.newest.active[0].definition.tables.keys() == {"messages"}


def test_rollback_is_refused_when_documents_do_not_fit(app: Deployment) -> None:
    """Stored documents are checked against the earlier schema; the text names table and document, and nothing changes."""
    push(app, V1, schema=schema(table("messages", {"body": NUMBER})))
    push(app, V2, schema=schema(table("messages", {"body": STRING})))
    (document,) = app.store.insert("messages", {"body": "text"})
    with pytest.raises(Conflict) as caught:
        roll_back(app, 1)
    assert caught.value.code == "RollbackRefused"
    assert caught.value.message.startswith("Cannot go back to push 1: Schema validation failed: Document with ID ")
    assert document in caught.value.message
    assert 'in table "messages" does not match the schema' in caught.value.message
    assert app.resolve("messages:send") is not None
    assert [entry.id for entry in entries(app)] == [2, 1]


def test_what_cannot_be_gone_back_to(app: Deployment) -> None:
    """No push before the current one, an unknown number, and the current one each have an error of their own."""
    for number in (None, 1):
        with pytest.raises(NotFound, match="no earlier push"):
            roll_back(app, number)
    push(app, V1)
    with pytest.raises(NotFound, match="no earlier push"):
        roll_back(app)
    with pytest.raises(NotFound, match="There is no push 7"):
        roll_back(app, 7)
    with pytest.raises(BadRequest, match="Push 1 is what is deployed"):
        roll_back(app, 1)


def test_who_may(app: Deployment) -> None:
    """A read-only key sees the history and cannot go back; anonymous callers do neither."""
    push(app, V1)
    push(app, V2)
    reader, nobody = Identity("admin", read_only=True), Identity("anonymous")
    assert len(run(rollbacks(app).entries(reader))) == 2
    with pytest.raises(Forbidden):
        run(rollbacks(app).roll_back(1, reader, CALLER))
    with pytest.raises(Forbidden):
        run(rollbacks(app).entries(nobody))


def test_old_entries_go_and_their_texts_with_them(app: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the last pushes are kept; a text lives as long as an entry or the grace needs it, and no longer."""
    monkeypatch.setattr(push_history, "KEPT_PUSHES", 3)
    push(app, module("first.js"), schema=schema(table("one")))
    for number in range(2):
        push(app, module(f"m{number}.js"))
        app.store.clock.ns += int((GRACE_MS + 1) * 1e6)
    push(app, V1)
    assert [entry.id for entry in entries(app)] == [4, 3, 2]
    # The first push's texts went when the fourth was applied, or go at the next one.
    push(app, V2)
    assert {"m1.js", "messages.js"} <= texts(app)
    assert not {"first.js", "schema.js"} & texts(app)
    roll_back(app, 3)
    assert [ref["path"] for ref in run(app.deploy.get_config_hashes())["moduleHashes"]] == ["m1.js"]


def test_large_texts_shorten_the_history(app: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries keep alive only so many bytes of texts that are not deployed; the push before the current one stays in any case."""
    monkeypatch.setattr(push_history, "MAX_TEXT_BYTES", 3000)
    for number in range(4):
        push(app, module("big.js", padding=str(number) * 1200))
    assert [entry.id for entry in entries(app)] == [4, 3, 2]
    push(app, module("big.js", padding="x" * 9000))
    push(app, V1)
    assert [entry.id for entry in entries(app)] == [6, 5]
    assert roll_back(app) == 7


def test_the_history_outlives_a_restart(app: Deployment) -> None:
    """Entries are rows: a new process lists them and goes back."""
    push(app, V1)
    push(app, V2)
    again = Deployment(app.store.persistence)
    assert [entry.id for entry in entries(again)] == [2, 1]
    assert roll_back(again) == 3
    assert again.resolve("messages:send") is None
