"""Deleting tables and unmounted components (``http_api.md`` section 7, ``runtime.md`` section 9.2)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from convex_backend.application.deletion import Deletion
from convex_backend.application.types import ANONYMOUS, Identity
from convex_backend.database.tables import ensure_virtual_table
from convex_backend.errors import BadRequest, Forbidden
from convex_backend.values.paths import FunctionPath
from tests.application.component_support import app_config, component, component_config, use
from tests.application.push_support import ADMIN, Deployment, function, index, module, schema, table
from tests.database.documents import run

THINGS = module("things.js", functions=[function("add", "Mutation")])
ITEMS = schema(table("items", indexes=[index("by_n", "n")]))


@pytest.fixture
def app() -> Deployment:
    return Deployment()


def mount(app: Deployment) -> None:
    """Push an app that mounts ``local``, which mounts ``inner``."""
    inner = component("inner", THINGS, schema=ITEMS)
    local = component(
        "local",
        THINGS,
        schema=ITEMS,
        config=component_config("local", use("inner", "inner")),
        dependencies=["inner"],
    )
    config = module("convex.config.js", value=app_config(use("local", "local"), use("localized", "inner")))
    app.push(definition=config, dependencies=["local", "inner"], components=[local, inner])


def ids(app: Deployment) -> dict[str, str]:
    """Document ids of the components by path."""
    return {one["path"]: one["id"] for one in app.ask("_system/frontend/components:list")}


def number(app: Deployment, path: str) -> int:
    """Internal id of a mounted component."""
    found = run(app.directory.component_at(None, path))
    assert found is not None
    return found


def refusal(app: Deployment, call: Any) -> str:
    with pytest.raises(BadRequest) as caught:
        run(call)
    return caught.value.code


def test_a_mounted_component_is_not_deleted(app: Deployment) -> None:
    """Only components that are not mounted can be deleted; neither the app nor what does not exist can."""
    mount(app)
    deletion = Deletion(app.db)
    with pytest.raises(BadRequest, match="Component must be unmounted before deletion"):
        run(deletion.delete_component(ids(app)["local"], ADMIN))
    assert refusal(app, deletion.delete_component(ids(app)[""], ADMIN)) == "ComponentMustBeUnmounted"
    assert refusal(app, deletion.delete_component("nope", ADMIN)) == "ComponentNotFound"
    for identity in (ANONYMOUS, Identity("admin", read_only=True)):
        with pytest.raises(Forbidden):
            run(deletion.delete_component(ids(app)["local"], identity))


def test_an_unmounted_component_goes_with_everything(app: Deployment) -> None:
    """Row, descendants, tables, virtual tables, rows of services and handles go at once; others stay; its path begins anew afterwards."""
    mount(app)
    local, inner, other = number(app, "local"), number(app, "local/inner"), number(app, "localized")
    for one in (local, inner, other):
        app.store.insert("items", *({"n": float(n)} for n in range(3)), component=one)
    transaction = app.store.system()
    run(ensure_virtual_table(transaction, local, "_storage"))
    for position in range(3):
        row = {"component": local, "document": f"d{position}", "uuid": f"u{position}", "blob": "b"}
        run(transaction.system.insert("_file_storage", row))
    app.store.commit(transaction)
    handle = run(app.directory.function_handle(None, local, FunctionPath.parse("things:add")))
    config = module("convex.config.js", value=app_config(use("localized", "inner")))
    app.push(definition=config, dependencies=["inner"], components=[component("inner", THINGS, schema=ITEMS)])

    run(Deletion(app.db).delete_component(ids(app)["local"], ADMIN))
    assert set(ids(app)) == {"", "localized"}
    catalog = app.db.catalogs.newest
    assert {info.component for info in catalog.by_tablet.values()} == {other}
    assert {info.component for info in catalog.schemas.values()} == {other}
    left = app.store.system()
    for name in ("_file_storage", "_function_handles", "_udf_config", "_modules"):
        assert all(row["component"] not in (local, inner) for _, row in run(left.system.scan(name)))
    left.close()
    assert run(app.directory.function_of_handle(None, handle)) is None

    mount(app)
    assert number(app, "local") not in (local, inner)
    fresh = app.db.begin("query", component=number(app, "local"))
    assert run(fresh.count("items")) == 0
    fresh.close()


def test_documents_of_dropped_tables_are_deleted_behind_the_watermark(app: Deployment) -> None:
    """Documents stay for older snapshots, and go in the background when none can ask for them any more."""
    app.store.insert("t", *({"n": float(n)} for n in range(1100)))
    tablet = app.db.catalogs.newest.by_name[0, "t"].tablet
    before = app.db.begin("query", ts=app.db.committer.durable_ts)
    run(Deletion(app.db).delete_tables(["t", "never"], None, ADMIN))
    assert run(before.count("t")) == 1100
    before.close()
    after = app.db.begin("query")
    assert run(after.count("t")) == 0
    after.close()
    app.store.timers.advance(61)
    assert len(app.store.persistence.scan_documents(tablet, b"", None, False, 2000)) == 1100
    app.store.clock.ns += 3 * 86_400 * 10**9
    for days in (0.1, 3):
        app.store.timers.advance(days * 86_400)
    app.store.insert("other", {})
    run(app.db.retention.run_once())
    app.store.timers.advance(61)
    assert app.store.persistence.scan_documents(tablet, b"", None, False, 2000) == []
    left = app.store.system()
    assert run(left.system.lookup("_backend_state", "by_key", (f"dropped_table:{tablet}",))) is None
    left.close()


def test_tables_of_the_schema_are_not_deleted(app: Deployment) -> None:
    """A table that the schema names is refused, and nothing of the same request is deleted; in a component its own schema counts."""
    mount(app)
    app.store.insert("items", {"n": 1.0})
    local = number(app, "local")
    app.store.insert("extra", {}, component=local)
    deletion = Deletion(app.db)
    assert refusal(app, deletion.delete_tables(["extra", "items"], ids(app)["local"], ADMIN)) == "TableInSchema"
    with pytest.raises(BadRequest) as caught:
        run(deletion.delete_tables(["items"], ids(app)["local"], ADMIN))
    assert caught.value.message == 'Failed to delete table "items" because it appears in the schema'
    assert app.db.catalogs.newest.table(local, "extra") is not None
    run(deletion.delete_tables(["extra"], ids(app)["local"], ADMIN))
    assert app.db.catalogs.newest.table(local, "extra") is None
    run(deletion.delete_tables(["items"], None, ADMIN))
    assert app.db.catalogs.newest.table(0, "items") is None
    assert app.db.catalogs.newest.table(local, "items") is not None


def test_live_queries_see_a_deletion(app: Deployment) -> None:
    """Whoever has read a table is told when it is deleted."""
    app.store.insert("t", {"n": 1.0})
    transaction = app.db.begin("query")
    run(transaction.count("t"))
    hits: list[int] = []
    app.db.subscribe(transaction.read_token(), transaction.snapshot.ts, hits.append)
    transaction.close()
    run(Deletion(app.db).delete_tables(["t"], None, ADMIN))
    assert len(hits) == 1
    assert (
        json.dumps(app.ask("_system/cli/tables", {"paginationOpts": {"cursor": None, "numItems": 5.0}})["page"]) == "[]"
    )
