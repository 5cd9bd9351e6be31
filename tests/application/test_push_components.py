"""Pushes of apps with components (``push.md`` section 7), over memory and a scripted analysis."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from convex_backend.application import push_components, push_request
from convex_backend.application.deletion import Deletion
from convex_backend.errors import BadRequest, ConvexError
from convex_backend.values.paths import FunctionPath
from tests.application.component_support import (
    app_config,
    component,
    component_config,
    literals,
    reference,
    text,
    use,
    variable,
)
from tests.application.push_support import ADMIN, SITE, Deployment, function, index, module, schema, table
from tests.database.documents import run

THINGS = module("things.js", functions=[function("add", "Mutation"), function("secret", visibility="internal")])
ROUTE = {"route": {"path": "/ping", "method": "GET"}, "pos": None}
HTTP = module("http.js", httpRoutes=[ROUTE])


@pytest.fixture
def app() -> Deployment:
    return Deployment()


def config(*uses: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An app's ``convex.config.js``."""
    return module("convex.config.js", value=app_config(*uses, **more))


def refusal(call: Callable[[], Any]) -> tuple[str, str]:
    """Code and text of the error that *call* ends with."""
    with pytest.raises(ConvexError) as caught:
        call()
    return caught.value.code, caught.value.message.removeprefix("Hit an error while pushing:\n")


def find(app: Deployment, path: str, name: str) -> Any:
    """The function *name* of the component mounted at *path*, or ``None``."""
    found = run(app.directory.component_at(None, path))
    return None if found is None else run(app.directory.resolve(None, found, FunctionPath.parse(name)))


def environment(app: Deployment, path: str) -> dict[str, str]:
    """What the component at *path* sees as ``process.env``."""
    component = run(app.directory.component_at(None, path))
    assert component is not None
    return dict(run(app.directory.environment(None, component)).variables)


def test_a_component_mounted_twice_and_nested(app: Deployment) -> None:
    """Each mount is an instance with functions and tables of its own; the answer shows the tree, the definitions and the index diffs."""
    tables = schema(table("items", indexes=[index("by_key", "key")]))
    inner = component("inner", module("deep.js", functions=[function("f")]))
    local = component(
        "local", THINGS, config=component_config("local", use("inner", "inner")), schema=tables, dependencies=["inner"]
    )
    started = app.start(
        definition=config(use("local", "local"), use("other", "local")),
        dependencies=["local"],
        components=[local, inner],
    )
    assert list(started["analysis"]) == ["", "local", "inner"]
    assert started["analysis"]["local"]["definition"]["exports"] == {
        "type": "branch",
        "branch": [
            [
                "things",
                {"type": "branch", "branch": [["add", {"type": "leaf", "leaf": "_reference/function/things:add"}]]},
            ]
        ],
    }
    children = started["app"]["childComponents"]
    assert {name: list(child["childComponents"]) for name, child in children.items()} == {
        "local": ["inner"],
        "other": ["inner"],
    }
    assert children["other"]["exports"]["things"]["children"]["add"]["resource"] == {
        "type": "function",
        "path": {"component": "other", "udfPath": "things.js:add"},
    }
    assert children["other"]["childComponents"]["inner"]["componentPath"] == "other/inner"
    change = started["schemaChange"]
    assert set(change["allocatedComponentIds"]) == {"local", "other", "local/inner", "other/inner"}
    assert [one["name"] for one in change["indexDiffs"]["other"]["added_indexes"]] == ["items.by_key"]
    assert set(change["schemaIds"]) == {"local", "other"}
    assert find(app, "local", "things:add") is None

    assert app.wait(started) == {"type": "complete"}
    diffs = app.finish(started)["componentDiffs"]
    created = ("", "local", "other", "local/inner", "other/inner")
    assert {path: diff["diffType"]["type"] for path, diff in diffs.items()} == dict.fromkeys(created, "create")
    first, second = find(app, "local", "things:add"), find(app, "other", "things:add")
    assert (first.component_path, second.component_path) == ("local", "other")
    assert first.component != second.component
    assert find(app, "local/inner", "deep:f").component_path == "local/inner"
    catalog = app.db.catalogs.newest
    mine, theirs = catalog.table(first.component, "items"), catalog.table(second.component, "items")
    assert mine is not None
    assert theirs is not None
    assert mine.tablet != theirs.tablet
    assert (mine.number, theirs.number) == (10001, 10001)
    assert catalog.table(0, "items") is None


def test_definitions_are_given_to_those_that_import_them(app: Deployment) -> None:
    """Definitions are evaluated dependencies first; each is handed on as a module below ``_componentDeps``."""
    inner = component("../inner", module("m.js"), config=component_config("inner"))
    outer = component("outer", config=component_config("outer", use("inner", "../inner")), dependencies=["../inner"])
    app.start(definition=config(use("outer", "outer")), dependencies=["outer"], components=[outer, inner])
    names = [base64.urlsafe_b64encode(path).rstrip(b"=").decode() for path in (b"../inner", b"outer")]
    assert app.analyzer.children[-1].imports == [f"_componentDeps/{name}.js" for name in names]


def test_circles_and_missing_definitions(app: Deployment) -> None:
    """Definitions that need each other, and those that were not sent, are refused."""
    one = component("one", dependencies=["two"])
    two = component("two", dependencies=["one"])
    code, reason = refusal(lambda: app.start(definition=config(), dependencies=["one"], components=[one, two]))
    assert (code, reason.endswith("one -> two -> one")) == ("CyclicImport", True)
    code, _ = refusal(lambda: app.start(definition=config(), dependencies=["one"]))
    assert code == "InvalidDefinition"


@pytest.mark.parametrize(
    ("uses", "declared", "reason"),
    [
        ([use("x", "nope")], [], "unknown definition"),
        ([use("x", "local"), use("x", "local")], [], 'two child components with the name "x"'),
        ([use("x", "local")], [variable("KEY")], 'requires environment variables that are not given: "KEY"'),
        ([use("x", "local", NOPE=text("v"))], [], 'does not declare the environment variable "NOPE"'),
        ([use("x", "local", KEY=text("c"))], [variable("KEY", literals("a", "b"))], "does not match its declaration"),
        ([use("x", "local", KEY=reference("NONE"))], [variable("KEY")], "which its parent does not declare"),
        ([use("x", "local", KEY=reference("MAYBE"))], [variable("KEY")], "which is optional"),
        (
            [use("x", "local", KEY=reference("ANY"))],
            [variable("KEY", literals("a"))],
            "may have values that it does not admit",
        ),
    ],
)
def test_what_does_not_fit_is_a_type_error(app: Deployment, uses: Any, declared: Any, reason: str) -> None:
    """Mounts and bindings are checked against the definitions; the text says what is wrong where."""
    local = component("local", THINGS, config=component_config("local", env=declared))
    definition = config(*uses, env=[variable("ANY"), variable("MAYBE", optional=True)])
    code, message = refusal(lambda: app.start(definition=definition, dependencies=["local"], components=[local]))
    assert code == "TypecheckError"
    assert reason in message


def test_codegen_does_not_need_variables(app: Deployment) -> None:
    """A push for code generation may leave required variables out, and writes nothing."""
    local = component("local", THINGS, config=component_config("local", env=[variable("KEY")]))
    started = app.start(
        definition=config(use("local", "local")), dependencies=["local"], components=[local], forCodegen=True
    )
    assert started["app"]["childComponents"]["local"]["env"] == {}
    assert started["schemaChange"]["allocatedComponentIds"] == {}
    assert app.wait(started) == {"type": "complete"}


def test_mounts_are_checked(app: Deployment) -> None:
    """A component without routes cannot be mounted; a mount must not be a prefix route of the same ``http.ts``."""
    silent = component("local", THINGS)
    definition = config(use("local", "local"), mounts={"/local/": "local"})
    code, message = refusal(lambda: app.start(definition=definition, dependencies=["local"], components=[silent]))
    assert (code, "has no HTTP routes" in message) == ("TypecheckError", True)
    local = component("local", HTTP)
    prefix = {"route": {"path": "/local/*", "method": "GET"}, "pos": None}
    routes = module("http.js", httpRoutes=[prefix])
    code, message = refusal(
        lambda: app.start(routes, definition=definition, dependencies=["local"], components=[local])
    )
    assert (code, "is both a route" in message) == ("TypecheckError", True)
    started = app.start(definition=definition, dependencies=["local"], components=[local])
    child = started["app"]["childComponents"]["local"]
    assert started["app"]["httpRoutes"] == {"httpModuleRoutes": None, "mounts": ["/local/"]}
    assert (child["httpPrefix"], child["httpRoutes"]["httpModuleRoutes"]) == (
        "/local/",
        [{"path": "/ping", "method": "GET"}],
    )


def test_http_sites(app: Deployment) -> None:
    """The directory tells the routes and mounts of each component, nested prefixes joined; the site's URL follows them."""
    inner = component("inner", HTTP)
    local = component(
        "local",
        HTTP,
        config=component_config("local", use("inner", "inner"), mounts={"/in/": "inner"}),
        dependencies=["inner"],
    )
    app.push(
        HTTP,
        definition=config(use("local", "local"), use("quiet", "local"), mounts={"/l/": "local"}, httpPrefix="/api/"),
        dependencies=["local"],
        components=[local, inner],
    )
    root = run(app.directory.http_site(0))
    assert (root.prefix, root.routes, [mount.prefix for mount in root.mounts]) == (
        "/api/",
        (("GET", "/ping"),),
        ["/l/"],
    )
    below = run(app.directory.http_site(root.mounts[0].component))
    assert (below.component_path, below.prefix, [mount.prefix for mount in below.mounts]) == ("local", "/", ["/in/"])
    assert environment(app, "local")["CONVEX_SITE_URL"] == f"{SITE}/l"
    assert environment(app, "local/inner")["CONVEX_SITE_URL"] == f"{SITE}/l/in"
    assert environment(app, "quiet/inner")["CONVEX_SITE_URL"] == SITE


def test_variables_reach_components_by_their_bindings(app: Deployment) -> None:
    """A component sees what it is given, literally or from its parent's variable, and nothing else; a change above changes it."""
    run(app.environment.update([("KEY", "k1"), ("OTHER", "o")]))
    inner = component("inner", THINGS, config=component_config("inner", env=[variable("DEEP", optional=True)]))
    local = component(
        "local",
        THINGS,
        config=component_config(
            "local",
            use("inner", "inner", DEEP=reference("PASSED")),
            env=[variable("PASSED"), variable("GREETING", literals("hey", "ho"))],
        ),
        dependencies=["inner"],
    )
    app.push(
        definition=config(use("local", "local", PASSED=reference("KEY"), GREETING=text("hey")), env=[variable("KEY")]),
        dependencies=["local"],
        components=[local, inner],
    )
    system = {"CONVEX_CLOUD_URL", "CONVEX_SITE_URL"}
    assert {key: value for key, value in environment(app, "local").items() if key not in system} == {
        "PASSED": "k1",
        "GREETING": "hey",
    }
    before = run(app.directory.environment(None, find(app, "local/inner", "things:add").component))
    assert before.variables["DEEP"] == "k1"
    run(app.environment.update([("OTHER", "o2")]))
    assert run(app.directory.environment(None, find(app, "local/inner", "things:add").component)) is before
    run(app.environment.update([("KEY", "k2")]))
    assert environment(app, "local/inner")["DEEP"] == "k2"


def test_reading_a_variable_depends_on_its_source(app: Deployment) -> None:
    """A run that read a component's variable runs again when the variable behind it changes, and not for another one."""
    run(app.environment.update([("KEY", "k"), ("OTHER", "o")]))
    local = component("local", THINGS, config=component_config("local", env=[variable("PASSED")]))
    uses = config(use("local", "local", PASSED=reference("KEY")), env=[variable("KEY")])
    app.push(definition=uses, dependencies=["local"], components=[local])
    add = find(app, "local", "things:add")
    transaction = app.db.begin("query")
    run(transaction.ensure_begun())
    app.directory.observed(transaction, add, frozenset(("env:PASSED",)))
    hits: list[int] = []
    app.db.subscribe(transaction.read_token(), transaction.snapshot.ts, hits.append)
    transaction.close()
    run(app.environment.update([("OTHER", "o2")]))
    assert hits == []
    run(app.environment.update([("KEY", "k2")]))
    assert len(hits) == 1


def with_local(app: Deployment, **more: Any) -> dict[str, Any]:
    """Push an app that mounts ``local``, with a table."""
    local = component("local", THINGS, schema=schema(table("items", {"n": {"type": "number"}})), **more)
    return app.push(definition=config(use("local", "local")), dependencies=["local"], components=[local])


def test_unmount_and_remount(app: Deployment) -> None:
    """A push without a component takes its functions away and keeps its data, which nobody may write; the same component comes back later."""
    with_local(app)
    local = find(app, "local", "things:add").component
    app.store.insert("items", {"n": 1.0}, component=local)
    diffs = app.push()["componentDiffs"]
    assert (diffs["local"]["diffType"], diffs["local"]["moduleDiff"]["removed"]) == ({"type": "unmount"}, ["things.js"])
    assert find(app, "local", "things:add") is None
    transaction = app.db.begin("mutation", component=local)
    with pytest.raises(BadRequest, match="Cannot perform write operations in an unmounted component"):
        run(transaction.insert("items", {"n": 2.0}))
    with pytest.raises(BadRequest, match="Cannot perform write operations in an unmounted component"):
        run(transaction.insert("fresh", {}))
    assert run(transaction.count("items")) == 1
    transaction.close()
    [row] = [one for one in app.ask("_system/frontend/components:list") if one["path"] == "local"]
    assert row["state"] == "unmounted"
    diffs = with_local(app)["componentDiffs"]
    assert diffs["local"]["diffType"] == {"type": "remount"}
    assert find(app, "local", "things:add").component == local
    app.store.insert("items", {"n": 2.0}, component=local)


def test_schemas_are_enforced_by_component(app: Deployment) -> None:
    """A component's rows are checked against its own schema at writes and at push; an id of another component is not found."""
    with_local(app)
    local = find(app, "local", "things:add").component
    [identifier] = app.store.insert("items", {"n": 1.0}, component=local)
    [ours] = app.store.insert("items", {"n": "free"})
    with pytest.raises(BadRequest, match="does not match validator"):
        app.store.insert("items", {"n": "free"}, component=local)
    transaction = app.db.begin("query", component=local)
    assert run(transaction.get(identifier)) is not None
    assert run(transaction.get(ours)) is None
    transaction.close()
    strict = component("local", THINGS, schema=schema(table("items", {"n": {"type": "string"}})))
    started = app.start(definition=config(use("local", "local")), dependencies=["local"], components=[strict])
    status = app.wait(started)
    assert (status["type"], status["componentPath"], status["tableName"]) == ("failed", "local", "items")
    assert identifier in status["error"]


def test_an_abandoned_component_leaves_nothing(app: Deployment) -> None:
    """Ids that an unfinished push took are taken up by the next one; a push without the component lets go of it."""
    tables = schema(table("items", indexes=[index("by_n", "n")]))
    local = component("local", THINGS, schema=tables)
    request: dict[str, Any] = {
        "definition": config(use("local", "local")),
        "dependencies": ["local"],
        "components": [local],
    }
    first = app.start(**request)
    second = app.start(**request)
    assert first["schemaChange"]["allocatedComponentIds"] == second["schemaChange"]["allocatedComponentIds"]
    assert [one["path"] for one in app.ask("_system/frontend/components:list")] == [""]
    app.push()
    assert all(info.component == 0 for info in app.db.catalogs.newest.by_tablet.values())
    assert refusal(lambda: app.finish(second))[0] == "RaceDetected"


def test_node_modules_are_refused_in_components(app: Deployment) -> None:
    """A component has no ``"use node"`` modules."""
    local = component("local", {**THINGS, "environment": "node"})
    code, _ = refusal(
        lambda: app.start(definition=config(use("local", "local")), dependencies=["local"], components=[local])
    )
    assert code == "NodeActionsNotSupported"


def test_evaluate_schema_tells_of_components(app: Deployment) -> None:
    """Each component has its own evaluation; definitions that are not deployed are listed. Nothing is written."""
    with_local(app)
    local = component("local", THINGS, schema=schema(table("items", indexes=[index("by_n", "n")])))
    fresh = component("fresh", THINGS)
    before = app.db.committer.pending_ts
    request = app.request(
        definition=config(use("local", "local"), use("fresh", "fresh")),
        dependencies=["local", "fresh"],
        components=[local, fresh],
    )
    answer = run(app.deploy.evaluate_schema(request))
    assert app.db.committer.pending_ts == before
    assert set(answer["componentSchemaEvaluations"]) == {"", "local", "fresh"}
    assert [one["name"] for one in answer["componentSchemaEvaluations"]["local"]["indexes"]] == ["items.by_n"]
    assert answer["newComponentDefinitions"] == ["fresh"]
    diffs = run(app.deploy.evaluate_push(request))["schemaChange"]["indexDiffs"]
    assert [one["name"] for one in diffs["local"]["added_indexes"]] == ["items.by_n"]


def test_a_second_push_keeps_what_is_known(app: Deployment) -> None:
    """Modules of components that have not changed are not evaluated again, and their rows stay."""
    with_local(app)
    known = find(app, "local", "things:add")
    app.analyzer.log.clear()
    diffs = with_local(app)["componentDiffs"]
    assert "module things.js" not in app.analyzer.log
    assert diffs["local"]["moduleDiff"] == {"added": [], "removed": []}
    assert find(app, "local", "things:add") is known


def test_handles_are_stable(app: Deployment) -> None:
    """A function's handle is the same one after further pushes, also when the function was away."""
    with_local(app)
    local = find(app, "local", "things:add")
    handle = run(app.directory.function_handle(None, local.component, local.path))
    assert run(app.directory.function_of_handle(None, handle)) == (local.component, local.path)
    app.push()
    with_local(app)
    assert run(app.directory.function_handle(None, local.component, local.path)) == handle
    assert run(app.directory.function_of_handle(None, "nope")) is None


def test_functions_from_before_handles_get_theirs(app: Deployment) -> None:
    """A function that was deployed without a handle gets one when somebody asks, also inside a query, and keeps it."""
    with_local(app)
    local = find(app, "local", "things:add")
    transaction = app.store.system()
    for row_id, _ in run(transaction.system.scan("_function_handles")):
        run(transaction.system.delete("_function_handles", row_id))
    app.store.commit(transaction)
    query = app.db.begin("query")
    run(query.ensure_begun())
    handle = run(app.directory.function_handle(query, local.component, local.path))
    query.close()
    assert run(app.directory.function_handle(None, local.component, local.path)) == handle
    with_local(app)
    assert run(app.directory.function_handle(None, local.component, local.path)) == handle


def test_texts_shared_by_components_are_kept(app: Deployment) -> None:
    """A text that one component no longer uses stays while another one does."""
    pair = component("pair", THINGS)
    app.push(definition=config(use("a", "pair"), use("b", "pair")), dependencies=["pair"], components=[pair])
    digest = find(app, "a", "things:add").closure[0].hash
    app.push(definition=config(use("b", "pair")), dependencies=["pair"], components=[pair])
    app.store.clock.ns += 4 * 86_400 * 10**9
    app.push(definition=config(use("b", "pair")), dependencies=["pair"], components=[pair])
    assert run(app.rows.module_text(digest)).path == "things.js"


def test_system_functions_look_into_components(app: Deployment) -> None:
    """``componentId`` names the component whose modules and tables are meant; pages work there too."""
    with_local(app)
    local = find(app, "local", "things:add").component
    app.store.insert("items", {"n": 1.0}, component=local)
    [identifier] = [one["id"] for one in app.ask("_system/frontend/components:list") if one["path"] == "local"]
    spec = app.ask("_system/cli/modules:apiSpec", {"componentId": identifier})
    assert {one["identifier"] for one in spec} == {"things.js:add", "things.js:secret"}
    page = app.ask(
        "_system/cli/tableData",
        {
            "componentId": identifier,
            "table": "items",
            "order": "asc",
            "paginationOpts": {"cursor": None, "numItems": 5.0},
        },
    )
    assert [one["n"] for one in page["page"]] == [1.0]
    everywhere = app.ask("_system/frontend/modules:listForAllComponents")
    assert [one[0] for one in everywhere] == [None, identifier]
    code, _ = refusal(lambda: app.ask("_system/cli/modules:apiSpec", {"componentId": "nope"}))
    assert code == "ComponentNotFound"


def test_arguments_of_older_definitions(app: Deployment) -> None:
    """What an older definition gives to a child is kept, shown and handed to its runs; another value makes another environment."""
    mounted = {**use("local", "local"), "args": [["size", {"type": "value", "value": "3"}]]}
    local = component("local", THINGS)
    started = app.start(definition=config(mounted), dependencies=["local"], components=[local])
    assert started["app"]["childComponents"]["local"]["args"] == {"size": {"type": "value", "value": "3"}}
    app.finish(started)
    found = find(app, "local", "things:add")
    first = run(app.directory.environment(None, found.component))
    assert first.arguments == {"size": 3}
    mounted["args"] = [["size", {"type": "value", "value": "4"}]]
    app.push(definition=config(mounted), dependencies=["local"], components=[local])
    second = run(app.directory.environment(None, found.component))
    assert (second.arguments, second.version == first.version) == ({"size": 4}, False)


def test_a_push_that_was_overtaken_does_not_finish(app: Deployment) -> None:
    """Of two pushes that change a component's schema, the one that began first finds its schema gone; the other is deployed."""
    with_local(app)

    def start(*fields: str) -> dict[str, Any]:
        tables = schema(table("items", {field: {"type": "number"} for field in fields}))
        return app.start(
            definition=config(use("local", "local")),
            dependencies=["local"],
            components=[component("local", THINGS, schema=tables)],
        )

    first, second = start("a"), start("b")
    assert app.wait(first) == {"type": "raceDetected"}
    assert refusal(lambda: app.finish(first))[0] == "RaceDetected"
    assert app.wait(second) == {"type": "complete"}
    app.finish(second)
    active = app.db.catalogs.newest.active[find(app, "local", "things:add").component]
    assert '"b"' in active.text


def test_a_component_that_was_deleted_meanwhile(app: Deployment) -> None:
    """A push that remounts a component which is deleted before it finishes is refused, and succeeds when it begins again."""
    with_local(app)
    app.push()
    local = component("local", THINGS, schema=schema(table("items", {"n": {"type": "number"}})))
    request: dict[str, Any] = {
        "definition": config(use("local", "local")),
        "dependencies": ["local"],
        "components": [local],
    }
    started = app.start(**request)
    [identifier] = [one["id"] for one in app.ask("_system/frontend/components:list") if one["path"] == "local"]
    run(Deletion(app.db).delete_component(identifier, ADMIN))
    assert refusal(lambda: app.finish(started))[0] == "RaceDetected"
    assert app.push(**request)["componentDiffs"]["local"]["diffType"] == {"type": "create"}


def test_a_dry_run_mounts_nothing(app: Deployment) -> None:
    """A trial push is checked and shown, and leaves no component, table or schema behind."""
    local = component("local", THINGS, schema=schema(table("items", indexes=[index("by_n", "n")])))
    request: dict[str, Any] = {
        "definition": config(use("local", "local")),
        "dependencies": ["local"],
        "components": [local],
        "dryRun": True,
    }
    started = app.start(**request)
    assert [one["name"] for one in started["schemaChange"]["indexDiffs"]["local"]["added_indexes"]] == ["items.by_n"]
    assert app.wait(started) == {"type": "complete"}
    assert app.finish(started, dryRun=True)["componentDiffs"] == {}
    rows = app.store.system()
    assert [row["path"] for _, row in run(rows.system.scan("_components"))] == [""]
    assert run(rows.system.scan("_tables")) == []
    rows.close()


def test_a_restart_finds_the_components(app: Deployment) -> None:
    """After a restart the tree, its functions and its variables are those that were deployed."""
    local = component("local", THINGS, config=component_config("local", env=[variable("KEY")]))
    app.push(definition=config(use("local", "local", KEY=text("v"))), dependencies=["local"], components=[local])
    app.directory.stop()
    app.directory.start()
    assert find(app, "local", "things:add").component_path == "local"
    assert environment(app, "local")["KEY"] == "v"


def test_older_snapshots_see_the_tree_of_their_time(app: Deployment) -> None:
    """A query at a timestamp before an unmount still finds the component's functions, by its path and from its parent."""
    with_local(app)
    before = app.db.begin("query", ts=app.db.committer.durable_ts)
    app.push()
    run(before.ensure_begun())
    number = run(app.directory.component_at(before, "local"))
    assert number is not None
    assert run(app.directory.child_component(before, 0, "local")) == number
    assert run(app.directory.resolve(before, number, FunctionPath.parse("things:add"))) is not None
    before.close()
    assert run(app.directory.component_at(None, "local")) is None


def test_a_caller_is_told_when_a_component_goes(app: Deployment) -> None:
    """A query that called into a component runs again when the component is unmounted, and when a missing one is mounted."""
    for wanted in (True, False):
        transaction = app.db.begin("query")
        run(transaction.ensure_begun())
        run(app.directory.child_component(transaction, 0, "local"))
        hits: list[int] = []
        app.db.subscribe(transaction.read_token(), transaction.snapshot.ts, hits.append)
        transaction.close()
        app.push()
        assert hits == [] if wanted else len(hits) == 1
        if wanted:
            with_local(app)
            assert len(hits) == 1


def test_limits_count_components_too(app: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of modules is bounded for each definition, their size for all together, instances and their nesting for the tree."""
    local = component("local", *(module(f"m{number}.js") for number in range(5)))
    request: dict[str, Any] = {
        "definition": config(use("a", "local"), use("b", "local")),
        "dependencies": ["local"],
        "components": [local],
    }
    app.start(**request)
    with monkeypatch.context() as patch:
        patch.setattr(push_request, "MAX_MODULES", 4)
        assert refusal(lambda: app.start(**request)) == ("InvalidModules", "Too many function files. Maximum: 4.")
        patch.setattr(push_request, "MAX_MODULES", 5)
        app.start(**request)
    with monkeypatch.context() as patch:
        patch.setattr(push_request, "MAX_MODULE_BYTES", 100)
        code, text = refusal(lambda: app.start(**request))
        assert (code, text.startswith("Total module size exceeded: ")) == ("ModulesTooLarge", True)
    with monkeypatch.context() as patch:
        patch.setattr(push_components, "MAX_INSTANCES", 3)
        app.start(**request)
        patch.setattr(push_components, "MAX_INSTANCES", 2)
        assert refusal(lambda: app.start(**request))[0] == "TypecheckError"
    nested = [
        component(
            f"c{level}", config=component_config(f"c{level}", use("x", f"c{level + 1}")), dependencies=[f"c{level + 1}"]
        )
        for level in range(3)
    ]
    deep: dict[str, Any] = {
        "definition": config(use("x", "c0")),
        "dependencies": ["c0"],
        "components": [*nested, component("c3")],
    }
    app.start(**deep)
    monkeypatch.setattr(push_components, "MAX_DEPTH", 3)
    assert "at most 3 inside each other" in refusal(lambda: app.start(**deep))[1]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"definitionPath": ""}, "BadJsonBody"),
        ({"definitionPath": 1}, "BadJsonBody"),
        ({"definition": None}, "BadJsonBody"),
        ({"dependencies": [1]}, "BadJsonBody"),
        ({"functions": {}}, "BadJsonBody"),
        ({"udfServerVersion": None}, "BadJsonBody"),
        ({"functions": [module("../x.js")]}, "BadConvexModuleIdentifier"),
        ({"functions": [THINGS, THINGS]}, "InvalidModules"),
    ],
)
def test_malformed_definitions(app: Deployment, change: dict[str, Any], code: str) -> None:
    """A component definition of the wrong shape is refused before anything is evaluated."""
    request = app.request(definition=config(), components=[{**component("local", THINGS), **change}])
    assert refusal(lambda: run(app.deploy.start_push(request)))[0] == code
    assert app.analyzer.log == []


@pytest.mark.parametrize(
    ("definition", "code"),
    [
        ({"definitionType": {"type": "app"}}, "InvalidDefinition"),
        ({"definitionType": {"type": "childComponent", "name": "not a name", "args": []}}, "InvalidDefinition"),
        ({"definitionType": "childComponent"}, "InvalidDefinition"),
        ({**component_config("x"), "childComponents": {}}, "InvalidDefinition"),
        ({**component_config("x"), "envVars": [["A"]]}, "InvalidDefinition"),
        (
            {**component_config("x"), "envVars": [["A", {"type": "value", "value": '{"type":"number"}'}]]},
            "InvalidEnvVarDeclaration",
        ),
        ({**component_config("x"), "childComponents": [{"name": "y"}]}, "TypecheckError"),
        ({**component_config("x"), "httpMounts": {"/a": "nonsense"}}, "TypecheckError"),
        ({**component_config("x"), "childComponents": [{**use("y", "x"), "args": [1]}]}, "TypecheckError"),
    ],
)
def test_definitions_that_are_none(app: Deployment, definition: Any, code: str) -> None:
    """What a definition exports is checked, whoever made it."""
    local = component("x", THINGS, config=definition)
    assert (
        refusal(lambda: app.start(definition=config(use("x", "x")), dependencies=["x"], components=[local]))[0] == code
    )
