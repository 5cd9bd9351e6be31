"""System functions (``system_functions.md``)."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from convex_backend.application.calls import Target
from convex_backend.application.system_functions.table_filters import PLACEHOLDER
from convex_backend.application.types import ANONYMOUS, Identity
from convex_backend.errors import BadRequest, Forbidden, NotFound
from convex_backend.functions.outcome import FunctionFailed
from convex_backend.values.paths import FunctionPath
from tests.application.push_support import ADMIN, CLOUD, Deployment, function, index, module, schema, table
from tests.database.documents import run

ARGS = {
    "type": "object",
    "value": {"n": {"fieldType": {"type": "literal", "value": {"$integer": "BQAAAAAAAAA="}}, "optional": False}},
}
MODULES = (
    module("_deps/A.js"),
    module(
        "b.js",
        functions=[
            function("default", args=ARGS),
            function("hidden", "Action", "internal"),
            function("old", visibility=None),
        ],
    ),
    module("http.js", httpRoutes=[{"route": {"path": "/p", "method": "GET"}, "pos": None}]),
)
FIRST = {"cursor": None, "numItems": 2.0}


@pytest.fixture
def app() -> Deployment:
    return Deployment()


def test_outsiders_find_nothing(app: Deployment) -> None:
    """Anyone but an admin, and any unknown name, gets the not-found text."""
    for name, identity in (
        ("_system/cli/tables", ANONYMOUS),
        ("_system/cli/nope", ADMIN),
        ("_system/cli/tables:x", ADMIN),
    ):
        with pytest.raises(NotFound, match="Could not find public function for '_system/cli/"):
            app.ask(name, {"paginationOpts": FIRST}, identity)
    transaction = app.db.begin("query")
    with pytest.raises(BadRequest, match="no component with path 'child'"):
        wanted = Target(FunctionPath.parse("_system/cli/convexUrl:cloudUrl"), "child", True)
        run(app.system.run_query(transaction, wanted, b"{}", ADMIN))
    transaction.close()


def test_spellings_are_equal(app: Deployment) -> None:
    """``x``, ``x:default`` and ``x.js:default`` name one function; it is a query."""
    for name in ("_system/cli/convexUrl:cloudUrl", "_system/cli/convexUrl.js:cloudUrl"):
        assert app.ask(name) == CLOUD
    for name in ("_system/cli/queryEnvironmentVariables", "_system/cli/queryEnvironmentVariables.js:default"):
        assert app.ask(name) == []
    assert app.system.kind(Target(FunctionPath.parse("_system/cli/tables"), "", True), ADMIN) == "query"


def test_read_only_keys(app: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key without the operation gets the permission text; reading is allowed to read-only keys."""
    assert app.ask("_system/cli/queryEnvironmentVariables", identity=Identity("admin", read_only=True)) == []
    monkeypatch.setattr("convex_backend.application.operations.READ_ONLY_OPERATIONS", ())
    with pytest.raises(Forbidden, match=r"You do not have permission to perform this operation \(ViewData\)\."):
        app.ask("_system/cli/convexUrl:cloudUrl", identity=Identity("admin", read_only=True))


def test_arguments_are_checked(app: Deployment) -> None:
    """Arguments are closed objects."""
    with pytest.raises(FunctionFailed, match="ArgumentValidationError"):
        app.ask("_system/cli/tableSize")
    with pytest.raises(FunctionFailed, match="ArgumentValidationError"):
        app.ask("_system/cli/tableSize", {"tableName": "t", "x": 1.0})
    with pytest.raises(BadRequest, match="no component with ID"):
        app.ask("_system/cli/tableSize", {"tableName": "t", "componentId": "nope"})


def test_environment_variables(app: Deployment) -> None:
    """``list`` has the user's variables with system fields, ``get`` also the built-in ones; both follow changes of what they show."""
    from tests.application.push_support import run

    run(app.environment.update([("B", "2"), ("A", "1")]))
    listed = app.ask("_system/cli/queryEnvironmentVariables")
    assert [(row["name"], row["value"]) for row in listed] == [("A", "1"), ("B", "2")]
    assert set(listed[0]) == {"_id", "_creationTime", "name", "value"}
    assert app.ask("_system/frontend/listEnvironmentVariables") == listed
    get = "_system/cli/queryEnvironmentVariables:get"
    assert app.ask(get, {"name": "A"}) == {"name": "A", "value": "1"}
    assert app.ask(get, {"name": "CONVEX_CLOUD_URL"}) == {"name": "CONVEX_CLOUD_URL", "value": CLOUD}
    assert app.ask(get, {"name": "C"}) is None
    everything, one, missing = (
        app.watch(listed and "_system/cli/queryEnvironmentVariables"),
        app.watch(get, {"name": "A"}),
        app.watch(get, {"name": "C"}),
    )
    run(app.environment.update([("B", "3")]))
    assert (len(everything), len(one), len(missing)) == (1, 0, 0)
    run(app.environment.update([("C", "3")]))
    assert len(missing) == 1


def test_tables_and_their_data(app: Deployment) -> None:
    """Tables come in one page; documents page by cursor in both orders; unknown and system tables are empty."""
    ids = app.store.insert("messages", {"n": 1.0}, {"n": 2.0}, {"n": 3.0})
    app.store.insert("users", {"name": "x"})
    assert app.ask("_system/cli/tables", {"paginationOpts": FIRST}) == {
        "page": [{"name": "messages"}, {"name": "users"}],
        "isDone": True,
        "continueCursor": "end",
    }
    first = app.ask("_system/cli/tableData", {"table": "messages", "order": "asc", "paginationOpts": FIRST})
    assert [row["_id"] for row in first["page"]] == ids[:2]
    assert not first["isDone"]
    rest = {"cursor": first["continueCursor"], "numItems": 2.0}
    second = app.ask("_system/cli/tableData", {"table": "messages", "order": "asc", "paginationOpts": rest})
    assert ([row["n"] for row in second["page"]], second["isDone"]) == ([3.0], True)
    newest = app.ask("_system/cli/tableData", {"table": "messages", "order": "desc", "paginationOpts": FIRST})
    assert [row["n"] for row in newest["page"]] == [3.0, 2.0]
    for name in ("nope", "_storage", "_scheduled_functions"):
        empty = app.ask("_system/cli/tableData", {"table": name, "order": "asc", "paginationOpts": FIRST})
        assert empty == {"page": [], "isDone": True, "continueCursor": "end"}
    assert app.ask("_system/cli/tableSize", {"tableName": "messages"}) == 3.0
    assert app.ask("_system/cli/tableSize", {"tableName": "nope"}) == 0.0
    assert app.ask("_system/frontend/tableSize:sizeOfAllTables") == 4.0
    scanned = app.ask("_system/frontend/listTableScan", {"table": "messages", "limit": 2.0})
    assert [row["n"] for row in scanned] == [3.0, 2.0]
    assert app.ask("_system/frontend/getById", {"id": ids[0]})["n"] == 1.0
    wanted = [
        {"id": id, "tableName": name}
        for id, name in ((ids[1], "messages"), (ids[1], "users"), ("x", "messages"), (ids[0], "nope"))
    ]
    assert [row and row["n"] for row in app.ask("_system/frontend/listById", {"ids": wanted})] == [
        2.0,
        None,
        None,
        None,
    ]
    with pytest.raises(BadRequest, match="Unable to decode ID"):
        app.ask("_system/frontend/getById", {"id": "x"})


def test_query_table_changes_with_the_table(app: Deployment) -> None:
    """``queryTable`` never fails, and hears of every change of its table, its creation included, and of no other."""
    first = app.ask("_system/cli/queryTable", {"tableName": "t"})
    hits = app.watch("_system/cli/queryTable", {"tableName": "t"})
    app.store.insert("other", {})
    assert hits == []
    app.store.insert("t", {})
    assert len(hits) == 1
    hits = app.watch("_system/cli/queryTable", {"tableName": "t"})
    app.store.insert("t", {})
    assert len(hits) == 1
    assert app.ask("_system/cli/queryTable", {"tableName": "t"}) != first


def test_table_list_hears_of_new_tables(app: Deployment) -> None:
    """The list of tables is live, and documents do not disturb it."""
    app.store.insert("t", {})
    hits = app.watch("_system/cli/tables", {"paginationOpts": FIRST})
    app.store.insert("t", {})
    assert hits == []
    app.store.insert("u", {})
    assert len(hits) == 1


def test_api_spec(app: Deployment) -> None:
    """Functions in module order with validators as values (a bigint literal is an int64), then HTTP routes; it follows pushes."""
    hits = app.watch("_system/cli/modules:apiSpec")
    app.push(*MODULES)
    assert len(hits) == 1
    spec = app.ask("_system/cli/modules:apiSpec")
    assert [one.get("identifier", one.get("path")) for one in spec] == ["b.js:default", "b.js:hidden", "b.js:old", "/p"]
    assert spec[0]["args"]["value"]["n"]["fieldType"]["value"] == 5
    assert spec[0]["returns"] == {"type": "any"}
    assert [one["visibility"]["kind"] for one in spec[:3]] == ["public", "internal", "public"]
    assert spec[3] == {"functionType": "HttpAction", "method": "GET", "path": "/p"}
    assert app.ask("_system/frontend/modules:argsValidator", {"function": "b"}) == json.dumps(ARGS)
    assert app.ask("_system/frontend/modules:argsValidator", {"function": "b:old"}) == '{"type":"any"}'
    assert app.ask("_system/frontend/modules:argsValidator", {"function": "b:nope"}) is None


def test_module_list(app: Deployment) -> None:
    """Modules without shared chunks; routes appear as functions; positions as line numbers."""
    app.push(*MODULES)
    [[component, listed]] = app.ask("_system/frontend/modules:listForAllComponents")
    assert component is None
    assert listed == app.ask("_system/frontend/modules:list")
    assert [path for path, _ in listed] == ["b.js", "http.js"]
    assert listed[0][1]["functions"][0] == {
        "name": "default",
        "udfType": "Query",
        "visibility": {"kind": "public"},
        "lineno": 3.0,
    }
    assert listed[1][1]["functions"] == [{"name": "GET /p", "udfType": "HttpAction", "visibility": {"kind": "public"}}]


def test_schemas_and_indexes(app: Deployment) -> None:
    """Schema texts carry ``_creationTime``; indexes tell how far they are; the mapping names table numbers."""
    assert app.ask("_system/frontend/getSchemas") == {}
    wanted = schema(
        table(
            "t",
            indexes=[index("i", "a")],
            searchIndexes=[{"indexDescriptor": "s", "searchField": "b", "filterFields": []}],
        )
    )
    started = app.start(schema=wanted)
    assert list(app.ask("_system/frontend/getSchemas")) == ["inProgress"]
    hits = app.watch("_system/frontend/getSchemas")
    app.wait(started)
    app.finish(started)
    assert hits
    [(name, text)] = app.ask("_system/frontend/getSchemas").items()
    assert name == "active"
    assert json.loads(text)["tables"][0]["indexes"][0]["fields"] == ["a", "_creationTime"]
    asked = {"tableName": "t", "tableNamespace": None}
    assert app.ask("_system/frontend/indexes", asked) == [
        {"name": "i", "staged": False, "fields": ["a", "_creationTime"], "backfill": {"state": "done"}},
        {
            "name": "s",
            "staged": False,
            "fields": {"searchField": "b", "filterFields": []},
            "backfill": {"state": "done"},
        },
    ]
    assert app.ask("_system/frontend/indexes", {**asked, "tableName": "nope"}) is None
    assert app.ask("_system/frontend/getTableMapping") == {
        "10001": "t",
        "539": "_scheduled_jobs",
        "540": "_file_storage",
    }


def test_the_deployment_itself(app: Deployment) -> None:
    """Version of the last push, origins, state, and the app as the only component."""
    assert app.ask("_system/frontend/getVersion") is None
    app.push()
    assert app.ask("_system/frontend/getVersion") == "1.48.0"
    assert app.ask("_system/frontend/convexCloudUrl") == CLOUD
    assert app.ask("_system/frontend/deploymentState:deploymentState") == {"state": "running"}
    [component] = app.ask("_system/frontend/components:list")
    assert (component["name"], component["path"], component["state"]) == (None, "", "active")
    assert app.ask("_system/cli/tableSize", {"tableName": "t", "componentId": component["id"]}) == 0.0


def test_auth_providers(app: Deployment) -> None:
    """Providers are listed with system fields; the algorithm is in quotes."""
    provider = {
        "type": "customJwt",
        "applicationID": None,
        "issuer": "https://i.test",
        "jwks": "data:,",
        "algorithm": "RS256",
    }
    app.push(module("auth.config.js", value={"providers": [provider]}))
    [listed] = app.ask("_system/frontend/listAuthProviders")
    assert (listed["issuer"], listed["algorithm"]) == ("https://i.test", '"RS256"')
    assert listed["applicationID"] is None


def filtered(app: Deployment, *clauses: dict[str, Any], **more: Any) -> list[Any]:
    """What a filtered table view shows: values of ``n``, or error texts."""
    text = base64.b64encode(json.dumps({"clauses": list(clauses), **more}).encode()).decode()
    asked = {"table": "t", "filters": text, "paginationOpts": {"cursor": None, "numItems": 50.0}}
    page = app.ask("_system/frontend/paginatedTableDocuments", asked)
    return [row["n"] if "_id" in row else (row["filter"], row["error"]) for row in page["page"]]


def clause(op: str, value: Any, field: str = "n", **more: Any) -> dict[str, Any]:
    """A clause of a filter."""
    return {"op": op, "field": field, "value": value, **more}


def test_table_filters(app: Deployment) -> None:
    """Comparisons, lists, types, order and single ids; disabled clauses are ignored; the placeholder means undefined."""
    ids = app.store.insert("t", {"n": 1.0}, {"n": 2.0, "s": "x"}, {"n": 3.0, "s": None}, {"n": 4.0, "s": [1.0]})
    assert filtered(app) == [4.0, 3.0, 2.0, 1.0]
    assert filtered(app, clause("gt", 1), clause("lte", 3), order="asc") == [2.0, 3.0]
    assert filtered(app, clause("neq", 1), clause("eq", 9, enabled=False)) == [4.0, 3.0, 2.0]
    assert filtered(app, clause("anyOf", [1, 4])) == [4.0, 1.0]
    assert filtered(app, clause("noneOf", [1, 4])) == [3.0, 2.0]
    assert filtered(app, clause("anyOf", [])) == [4.0, 3.0, 2.0, 1.0]
    assert filtered(app, clause("eq", PLACEHOLDER, "s")) == [1.0]
    assert filtered(app, clause("type", "string", "s")) == [2.0]
    assert filtered(app, clause("notype", "unset", "s")) == [4.0, 3.0, 2.0]
    assert filtered(app, clause("type", "id", "_id"), clause("type", "null", "s")) == [3.0]
    assert filtered(app, clause("eq", ids[1], "_id")) == [2.0]
    assert filtered(app, clause("eq", {"$integer": "x"})) == [(0.0, 'Invalid value: {"$integer":"x"}.')]


def test_table_filters_by_index(app: Deployment) -> None:
    """Index clauses form a prefix; mistakes are shown in the page."""
    app.store.make_index("t", "i", "a", "n")
    app.store.insert("t", *({"a": float(n % 2), "n": float(n)} for n in range(6)))
    one = {"type": "indexEq", "enabled": True, "value": 1}
    between = {
        "type": "indexRange",
        "enabled": True,
        "lowerOp": "gte",
        "lowerValue": 3,
        "upperOp": "lt",
        "upperValue": 5,
    }
    assert filtered(app, index={"name": "i", "clauses": [one]}, order="asc") == [1.0, 3.0, 5.0]
    assert filtered(app, index={"name": "i", "clauses": [one, between]}) == [3.0]
    assert filtered(app, index={"name": "nope", "clauses": []}) == [(-1.0, "Index nope does not exist.")]
    four = {"name": "i", "clauses": [one] * 4}
    assert filtered(app, index=four) == [(-1.0, "Index i has 3 fields, but the query has 4 clauses.")]
    [(_, text)] = filtered(app, index={"name": "i", "clauses": [{**one, "enabled": False}, one]})
    assert text.startswith("Invalid index filter selection: ")
