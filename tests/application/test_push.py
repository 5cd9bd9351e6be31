"""Pushes over a fake analyzer (``push.md``)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from convex_backend.application.components import ROOT
from convex_backend.application.deploy import Deploy
from convex_backend.application.types import Identity
from convex_backend.errors import BadRequest, Conflict, Forbidden, OccConflict, Overloaded
from tests.application.push_support import Deployment, function, index, module, run, schema, sha256, table

DEPS = module("_deps/A.js")
MESSAGES = module("messages.js", functions=[function("list"), function("send", "Mutation")], imports=["_deps/A.js"])


@pytest.fixture
def app() -> Deployment:
    return Deployment()


def code_of(call: Any) -> tuple[str, str]:
    with pytest.raises((BadRequest, Conflict)) as caught:
        call()
    return caught.value.code, caught.value.message


def test_nothing_is_deployed_at_first(app: Deployment) -> None:
    """Before the first push there are no hashes and no functions."""
    assert run(app.deploy.get_config_hashes()) == {
        "config": {"functions": "convex/", "authInfo": []},
        "moduleHashes": [],
        "udfServerVersion": None,
    }
    assert app.resolve("messages:list") is None


def test_code_serves_after_finish_only(app: Deployment) -> None:
    """start_push leaves the old code serving; finish_push switches; the answer lists the modules."""
    started = app.start(MESSAGES, DEPS)
    assert app.resolve("messages:list") is None
    assert app.wait(started) == {"type": "complete"}
    diff = app.finish(started)["componentDiffs"][""]
    assert diff["diffType"] == {"type": "create"}
    assert diff["moduleDiff"] == {"added": ["_deps/A.js", "messages.js"], "removed": []}
    found = app.resolve("messages:send")
    assert found is not None
    assert (found.kind, found.visibility) == ("mutation", "public")
    assert [ref.path for ref in found.closure] == ["_deps/A.js", "messages.js"]


def test_start_answer_has_the_shape_of_the_cli(app: Deployment) -> None:
    """All members that the CLI requires are there; shared chunks have no entry among the functions."""
    started = app.start(MESSAGES, DEPS, schema=schema(table("messages", indexes=[index("by_author", "author")])))
    assert started["environmentVariables"] == {}
    assert (started["externalDepsId"], started["appAuth"]) == (None, [])
    assert list(started["componentDefinitionPackages"]) == [""]
    analysis = started["analysis"][""]
    assert list(analysis["functions"]) == ["messages.js"]
    assert analysis["functions"]["messages.js"]["functions"][0]["name"] == "list"
    assert analysis["definition"]["exports"] == {"type": "branch", "branch": []}
    assert analysis["schema"]["tables"][0]["indexes"] == [index("by_author", "author", "_creationTime")]
    assert set(analysis["udfConfig"]) == {"serverVersion", "importPhaseRngSeed", "importPhaseUnixTimestamp"}
    assert started["app"]["httpRoutes"] == {"httpModuleRoutes": None, "mounts": []}
    assert started["schemaChange"]["indexDiffs"][""]["added_indexes"] == [
        {"name": "messages.by_author", "type": "database", "fields": ["author", "_creationTime"]}
    ]


def test_hashes_are_those_of_the_cli(app: Deployment) -> None:
    """``hash`` is the hex SHA-256 of source and source map."""
    mapped = {**MESSAGES, "sourceMap": '{"version":3}'}
    app.push(mapped, DEPS)
    hashes = {one["path"]: one for one in run(app.deploy.get_config_hashes())["moduleHashes"]}
    assert hashes["messages.js"] == {"path": "messages.js", "hash": sha256(mapped), "environment": "isolate"}
    assert list(hashes) == ["_deps/A.js", "messages.js"]


def test_identical_push_changes_nothing(app: Deployment) -> None:
    """Modules sent as unchanged are taken from the deployment, not analysed again; functions stay the same objects."""
    app.push(MESSAGES, DEPS)
    before = app.resolve("messages:list")
    _, watched = app.resolve_recorded("messages:list")
    hits: list[int] = []
    app.db.subscribe(*watched, hits.append)
    app.analyzer.log.clear()
    diff = app.push(unchanged=[MESSAGES, DEPS])["componentDiffs"][""]
    assert diff["moduleDiff"] == {"added": [], "removed": []}
    assert diff["diffType"] == {"type": "modify"}
    assert app.analyzer.log == []
    assert app.resolve("messages:list") is before
    assert hits == []


def test_a_push_touches_only_what_changed(app: Deployment) -> None:
    """A8: functions whose closure did not change stay the same objects and their readers are not told."""
    users = module("users.js", functions=[function("count")])
    app.push(MESSAGES, DEPS, users)
    old_users, old_list = app.resolve("users:count"), app.resolve("messages:list")
    hits: dict[str, list[int]] = {"users:count": [], "messages:list": [], "gone:f": []}
    for path, calls in hits.items():
        _, watched = app.resolve_recorded(path)
        app.db.subscribe(*watched, calls.append)
    changed = module("_deps/A.js", comment="new")
    app.push(changed, unchanged=[MESSAGES, users])
    assert app.resolve("users:count") is old_users
    assert app.resolve("messages:list") is not old_list
    assert [bool(calls) for calls in hits.values()] == [False, True, False]
    app.push(module("gone.js", functions=[function("f")]), unchanged=[changed, MESSAGES, users])
    assert [len(calls) for calls in hits.values()] == [0, 1, 1]


def test_removed_modules_are_gone(app: Deployment) -> None:
    """Modules in neither list are deleted."""
    app.push(MESSAGES, DEPS)
    diff = app.push(module("users.js", functions=[function("count")]))["componentDiffs"][""]
    assert diff["moduleDiff"] == {"added": ["users.js"], "removed": ["_deps/A.js", "messages.js"]}
    assert app.resolve("messages:list") is None


def test_stale_unchanged_modules_are_conflicts(app: Deployment) -> None:
    """A wrong hash, path or environment of an unchanged module is a 409 with its code."""
    assert code_of(lambda: app.start(unchanged=[MESSAGES]))[0] == "MissingExistingModule"
    app.push(MESSAGES, DEPS)
    stale = module("messages.js", functions=[])
    assert code_of(lambda: app.start(unchanged=[stale]))[0] == "ExistingModuleHashConflict"
    request = app.request(unchanged=[MESSAGES])
    request["appDefinition"]["unchangedModuleHashes"][0]["environment"] = "node"
    assert code_of(lambda: run(app.deploy.start_push(request)))[0] == "ExistingModuleEnvConflict"


def test_old_code_serves_after_a_failed_push(app: Deployment) -> None:
    """A module that fails analysis refuses the push with the CLI's text; nothing changes and the child is closed."""
    app.push(MESSAGES, DEPS)
    before = app.resolve("messages:list")
    code, text = code_of(
        lambda: app.start(module("broken.js", fail="Uncaught Error: bad luck\n    at x"), MESSAGES, DEPS)
    )
    assert code == "InvalidModules"
    assert text == (
        "Hit an error while pushing:\nLoading the pushed modules encountered the following\n    error:\n"
        "Failed to analyze broken.js: Uncaught Error: bad luck\n    at x"
    )
    assert app.resolve("messages:list") is before
    assert all(child.closed for child in app.analyzer.children)


def test_bad_validators_are_refused(app: Deployment) -> None:
    """An arguments validator that the server does not understand fails the push with its place."""
    code, text = code_of(
        lambda: app.start(
            module(
                "m.js",
                functions=[function("f", args={"type": "object", "value": {"a": {"fieldType": {"type": "nope"}}}})],
            )
        )
    )
    assert code == "InvalidModules"
    assert "Failed to analyze m.js: Error in args validator: unknown variant `nope`" in text


def test_schema_faults(app: Deployment) -> None:
    """Index faults carry their code and both prefixes."""
    bad = schema(table("t", indexes=[index("by_id2", "_id")]))
    code, text = code_of(lambda: app.start(schema=bad))
    assert code == "IndexFieldsContainId"
    assert text.startswith(
        "Hit an error while pushing:\nHit an error while evaluating your schema:\n`_id` is not a valid"
    )
    code, text = code_of(lambda: app.start(schema=module("schema.js", fail="Uncaught Error: x", code="InvalidSchema")))
    assert (code, text.splitlines()[-1]) == ("InvalidSchema", "Uncaught Error: x")


def test_index_is_built_before_it_is_used(app: Deployment) -> None:
    """Rows that exist are indexed between start and finish; the index becomes enabled at finish only."""
    ids = app.store.insert("messages", *({"author": f"a{n % 3}"} for n in range(450)))
    started = app.start(MESSAGES, DEPS, schema=schema(table("messages", indexes=[index("by_author", "author")])))
    first = run(app.deploy.wait_for_schema({"schemaChange": started["schemaChange"], "timeoutMs": 0}))
    assert first["type"] == "inProgress"
    assert first["components"][""]["indexesTotal"] == 1
    assert app.wait(started) == {"type": "complete"}
    assert app.db.catalogs.newest.table(0, "messages").index("by_author").state == "backfilled"
    app.finish(started)
    made = app.db.catalogs.newest.table(0, "messages").index("by_author")
    assert made.state == "enabled"
    assert len(app.store.persistence.scan_index(made.id, b"", None, False, 1000)) == len(ids)


def test_changed_index_replaces_the_old_one(app: Deployment) -> None:
    """A changed definition is removed and added; the old index serves until finish."""
    app.push(schema=schema(table("t", indexes=[index("i", "a")])))
    old = app.db.catalogs.newest.table(0, "t").index("i")
    started = app.start(schema=schema(table("t", indexes=[index("i", "b")])))
    diff = started["schemaChange"]["indexDiffs"][""]
    assert [one["fields"] for one in diff["added_indexes"]] == [["b", "_creationTime"]]
    assert [one["fields"] for one in diff["removed_indexes"]] == [["a", "_creationTime"]]
    assert app.db.catalogs.newest.table(0, "t").index("i").id == old.id
    assert app.wait(started) == {"type": "complete"}
    app.finish(started)
    assert app.db.catalogs.newest.table(0, "t").index("i").fields == ("b", "_creationTime")
    app.push()
    assert app.db.catalogs.newest.table(0, "t").index("i") is None


def test_staged_indexes(app: Deployment) -> None:
    """A staged index is built but not enabled, does not hold up a push, and is enabled without a rebuild."""
    app.push(schema=schema(table("t", stagedDbIndexes=[index("i", "a")])))
    staged = app.db.catalogs.newest.table(0, "t").index("i")
    assert (staged.staged, staged.state == "enabled") == (True, False)
    app.store.settle()
    started = app.start(schema=schema(table("t", indexes=[index("i", "a")])))
    assert [one["name"] for one in started["schemaChange"]["indexDiffs"][""]["enabled_indexes"]] == ["t.i"]
    app.wait(started)
    app.finish(started)
    enabled = app.db.catalogs.newest.table(0, "t").index("i")
    assert (enabled.id, enabled.staged, enabled.state) == (staged.id, False, "enabled")
    started = app.start(schema=schema(table("t", stagedDbIndexes=[index("i", "a")])))
    assert [one["name"] for one in started["schemaChange"]["indexDiffs"][""]["disabled_indexes"]] == ["t.i"]
    app.wait(started)
    app.finish(started)
    disabled = app.db.catalogs.newest.table(0, "t").index("i")
    assert (disabled.id, disabled.staged, disabled.queryable) == (staged.id, True, False)


def test_existing_rows_are_checked(app: Deployment) -> None:
    """A row that contradicts the schema fails the wait with its id and table; finish is refused; the old schema stays."""
    [id] = app.store.insert("t", {"a": "text"})
    started = app.start(schema=schema(table("t", {"a": {"type": "number"}})))
    status = app.wait(started)
    assert (status["type"], status["componentPath"], status["tableName"]) == ("failed", "", "t")
    assert status["error"].startswith(f'Document with ID "{id}" in table "t" does not match the schema: ')
    assert code_of(lambda: app.finish(started))[0] == "SchemaValidationFailed"
    assert app.db.catalogs.newest.active == {}
    app.push(schema=schema(table("t", {"a": {"type": "string"}})))
    assert 0 in app.db.catalogs.newest.active


def test_a_write_can_fail_a_pending_schema(app: Deployment) -> None:
    """A write that only the pending schema refuses succeeds and fails the push."""
    started = app.start(schema=schema(table("t", {"a": {"type": "number"}})))
    app.store.insert("t", {"a": "text"})
    status = app.wait(started)
    assert status["type"] == "failed"
    assert status["error"].startswith('New document in table "t" does not match the schema: ')


def test_waiting_holds_the_request(app: Deployment) -> None:
    """While work is under way the answer comes at the time limit, or at once when the work is done."""
    app.store.insert("t", *({"a": 1.0} for _ in range(1000)))
    started = app.start(schema=schema(table("t", {"a": {"type": "number"}})))
    answers: list[Any] = []
    request = {"schemaChange": started["schemaChange"], "timeoutMs": 1}
    Deferred.fromCoroutine(app.deploy.wait_for_schema(request)).addCallback(answers.append)
    assert answers == []
    app.store.timers.advance(0.001)
    assert [answer["type"] for answer in answers] == ["inProgress"]
    Deferred.fromCoroutine(app.deploy.wait_for_schema({**request, "timeoutMs": 10000})).addCallback(answers.append)
    before = app.store.timers.seconds()
    while len(answers) < 2:
        app.store.timers.advance(0.002)
    assert answers[1] == {"type": "complete"}
    assert app.store.timers.seconds() - before < 1


def test_a_newer_push_overtakes(app: Deployment) -> None:
    """The schema of an unfinished push is replaced: it learns of the race, and cannot finish."""
    first = app.start(schema=schema(table("t", {"a": {"type": "number"}})))
    second = app.start(schema=schema(table("t", {"b": {"type": "number"}})))
    assert app.wait(first) == {"type": "raceDetected"}
    assert code_of(lambda: app.finish(first))[0] == "RaceDetected"
    assert app.wait(second) == {"type": "complete"}
    app.finish(second)
    assert list(app.db.catalogs.newest.active[0].definition.tables["t"].document_type.fields) == ["b"]


def test_abandoned_indexes_are_dropped(app: Deployment) -> None:
    """Indexes of an unfinished push go when the next one does not have them, and serve it when it does."""
    app.start(schema=schema(table("t", indexes=[index("i", "a"), index("j", "b")])))
    app.store.settle()
    kept = app.db.catalogs.newest.table(0, "t").index("j")
    app.push(schema=schema(table("t", indexes=[index("j", "b")])))
    made = app.db.catalogs.newest.table(0, "t")
    assert made.index("i") is None
    assert (made.index("j").id, made.index("j").state) == (kept.id, "enabled")


def test_equal_schema_needs_no_check(app: Deployment) -> None:
    """A schema equal to the active one is complete at once."""
    kind = schema(table("t", {"a": {"type": "number"}}))
    app.push(schema=kind)
    active = app.db.catalogs.newest.active[0]
    app.store.insert("t", {"a": 1.0})
    started = app.start(schema=kind)
    assert run(app.deploy.wait_for_schema({"schemaChange": started["schemaChange"]})) == {"type": "complete"}
    assert app.finish(started)["componentDiffs"][""]["schemaDiff"] is None
    assert app.db.catalogs.newest.active[0].row_id == active.row_id


def test_dry_run_changes_nothing(app: Deployment) -> None:
    """A dry run shows the index diff and checks rows, but builds and deploys nothing."""
    app.store.insert("t", {"a": 1.0})
    wanted = schema(table("t", {"a": {"type": "number"}}, indexes=[index("i", "a")]))
    started = app.start(MESSAGES, DEPS, schema=wanted, dryRun=True)
    assert [one["name"] for one in started["schemaChange"]["indexDiffs"][""]["added_indexes"]] == ["t.i"]
    request = {"schemaChange": started["schemaChange"], "dryRun": True}
    assert app.eventually(lambda: app.deploy.wait_for_schema(request)) == {"type": "complete"}
    answer = app.finish(started, dryRun=True)
    assert answer == {"authDiff": {"added": [], "removed": []}, "definitionDiffs": {}, "componentDiffs": {}}
    assert app.resolve("messages:list") is None
    assert app.db.catalogs.newest.schemas == {}
    assert app.db.catalogs.newest.table(0, "t").index("i") is None


def test_code_generation_does_not_overtake_a_push(app: Deployment) -> None:
    """``npx convex codegen`` submits no schema: a push that is under way finishes, and no schema is left for writes to be checked against."""
    app.store.insert("t", {"a": 1.0})
    started = app.start(MESSAGES, DEPS, schema=schema(table("t", {"a": {"type": "number"}}, indexes=[index("i", "a")])))
    before = app.db.committer.pending_ts
    generated = app.start(MESSAGES, DEPS, schema=schema(table("t", {"a": {"type": "string"}})), forCodegen=True)
    assert generated["analysis"][""]["schema"]["tables"][0]["tableName"] == "t"
    assert app.db.committer.pending_ts == before
    assert app.wait(started) == {"type": "complete"}
    app.finish(started)
    assert [info.state for info in app.db.catalogs.newest.schemas.values()] == ["active"]


def test_a_repeated_finish_gives_the_same_deployment(app: Deployment) -> None:
    """A CLI that lost the answer may ask again: nothing changes any more."""
    started = app.start(MESSAGES, DEPS, schema=schema(table("t", indexes=[index("i", "a")])))
    app.wait(started)
    app.finish(started)
    before = app.resolve("messages:list")
    again = app.finish(started)["componentDiffs"][""]
    assert again["moduleDiff"] == {"added": [], "removed": []}
    assert app.resolve("messages:list") is before


def test_old_pushes_are_forgotten(app: Deployment) -> None:
    """A bounded number of unfinished pushes is kept, the newest ones."""
    pushes = [app.start(module(f"m{n}.js")) for n in range(6)]
    assert [app.wait(push)["type"] for push in pushes] == ["raceDetected"] * 2 + ["complete"] * 4


def test_finish_after_a_restart_is_a_race(app: Deployment) -> None:
    """What was evaluated is gone with the process: the CLI is told to push again; the deployed code serves from the file."""
    app.push(MESSAGES, DEPS)
    started = app.start(module("users.js", functions=[function("count")]))
    run(app.deploy.stop())
    app.directory.stop()
    run(app.db.stop())
    again = Deployment(app.store.persistence)
    assert code_of(lambda: again.finish(started))[0] == "RaceDetected"
    assert again.wait(started) == {"type": "raceDetected"}
    found = again.resolve("messages:send")
    assert found is not None
    text = run(again.rows.module_text(found.closure[1].hash))
    assert (text.path, json.loads(text.source)) == ("messages.js", json.loads(MESSAGES["source"]))


def test_environment_race_and_missing_variables(app: Deployment) -> None:
    """Variables that changed during a push, that are required and unset, or that break their declaration refuse the finish."""
    declared = [
        ["KEY", {"type": "value", "value": '{"type":"string"}'}],
        ["MODE", {"type": "value", "value": '{"type":"literal","value":"on"}', "optional": True}],
    ]
    definition = module(
        "convex.config.js",
        value={
            "definitionType": {"type": "app"},
            "childComponents": [],
            "httpMounts": {},
            "exports": {"type": "branch", "branch": []},
            "envVars": declared,
        },
    )
    started = app.start(definition=definition)
    code, text = code_of(lambda: app.finish(started))
    assert code == "MissingEnvironmentVariables"
    assert "are not set: KEY." in text
    run(app.environment.update([("KEY", "x"), ("MODE", "off")]))
    assert code_of(lambda: app.finish(started))[0] == "RaceDetected"
    started = app.start(definition=definition)
    assert started["environmentVariables"] == {"KEY": "x", "MODE": "off"}
    assert code_of(lambda: app.finish(started))[0] == "InvalidEnvironmentVariable"
    run(app.environment.update([("MODE", "on")]))
    app.push(definition=definition)
    assert code_of(lambda: run(app.environment.update([("KEY", None)])))[0] == "RequiredEnvironmentVariable"
    assert code_of(lambda: run(app.environment.update([("MODE", "off")])))[0] == "InvalidEnvironmentVariable"
    assert app.environment.list() == {"KEY": "x", "MODE": "on"}


def test_auth_config(app: Deployment) -> None:
    """Providers are evaluated and stored; an unset variable fails the push with the text the CLI parses; a variable change evaluates them again."""
    config = module(
        "auth.config.js",
        needs=["DOMAIN"],
        value={"providers": [{"domain": "https://x.test", "applicationID": "convex"}]},
    )
    code, text = code_of(lambda: app.start(config))
    assert code == "AuthConfigMissingEnvironmentVariable"
    assert "Environment variable DOMAIN is used in auth config file but its value was not set" in text
    run(app.environment.update([("DOMAIN", "x")]))
    started = app.start(config)
    assert started["appAuth"] == [{"applicationID": "convex", "domain": "https://x.test"}]
    assert started["analysis"][""]["functions"]["auth.config.js"]["functions"] == []
    assert len(app.finish(started)["authDiff"]["added"]) == 1
    assert code_of(lambda: run(app.environment.update([("DOMAIN", None)])))[0] == "AuthConfigMissingEnvironmentVariable"
    assert app.environment.list() == {"DOMAIN": "x"}
    bad = module("auth.config.js", value={"providers": [{"domain": 1}]})
    assert code_of(lambda: app.start(bad))[0] == "AuthConfigNotMatchingSchemaError"


def test_crons(app: Deployment) -> None:
    """Cron jobs are stored and compared by identifier; each must name a mutation or action."""

    def crons(*jobs: tuple[str, str, int]) -> dict[str, Any]:
        specs = [
            {"identifier": name, "name": path, "args": [{}], "cronSchedule": {"type": "interval", "seconds": seconds}}
            for name, path, seconds in jobs
        ]
        return module("crons.js", cronSpecs=specs)

    code, text = code_of(lambda: app.start(MESSAGES, DEPS, crons(("tidy", "messages:nope", 5))))
    assert code == "InvalidModules"
    assert "The cron job 'tidy' schedules a function that does not exist: messages:nope" in text
    assert code_of(lambda: app.start(MESSAGES, DEPS, crons(("tidy", "messages:list", 5))))[0] == "InvalidModules"
    diff = app.push(MESSAGES, DEPS, crons(("a", "messages:send", 5), ("b", "messages:send", 5)))["componentDiffs"][""]
    assert diff["cronDiff"] == {"added": ["a", "b"], "updated": [], "deleted": []}
    diff = app.push(MESSAGES, DEPS, crons(("b", "messages:send", 6), ("c", "messages:send", 5)))["componentDiffs"][""]
    assert diff["cronDiff"] == {"added": ["c"], "updated": ["b"], "deleted": ["a"]}


def test_http_routes_are_listed(app: Deployment) -> None:
    """Routes of ``http.js`` are in the answer and make the app one with HTTP routes."""
    route = {"route": {"path": "/ping", "method": "GET"}, "pos": None}

    def routes() -> tuple[tuple[str, str], ...]:
        site = run(app.directory.http_site(ROOT))
        assert site is not None
        return site.routes

    assert routes() == ()
    started = app.start(module("http.js", httpRoutes=[route]))
    assert started["app"]["httpRoutes"]["httpModuleRoutes"] == [{"path": "/ping", "method": "GET"}]
    app.finish(started)
    assert routes() == (("GET", "/ping"),)


def test_evaluate_schema_tells_of_the_work(app: Deployment) -> None:
    """Dropped and added indexes come with the number of documents; tables with what a check would have to walk. Nothing is written."""
    app.push(schema=schema(table("t", {"a": {"type": "number"}}, indexes=[index("i", "a")])))
    app.store.insert("t", {"a": 1.0}, {"a": 2.0})
    wanted = schema(table("t", {"a": {"type": "string"}}, indexes=[index("j", "a")]), table("u", {}))
    before = app.db.committer.pending_ts
    [evaluation] = run(app.deploy.evaluate_schema(app.request(schema=wanted)))["componentSchemaEvaluations"].values()
    assert app.db.committer.pending_ts == before
    assert [(one["name"], one["outcome"], one["numDocs"]) for one in evaluation["tables"]] == [
        ("t", "mustWalk", 2),
        ("u", "supersetOfShape", 0),
    ]
    assert evaluation["tables"][0]["sizeBytes"] > 50
    assert [(one["name"], one["change"], one["needsBackfill"], one["numDocs"]) for one in evaluation["indexes"]] == [
        ("t.j", "added", True, 2),
        ("t.i", "dropped", False, 2),
    ]
    wider = schema(table("t", {"a": {"type": "any"}}))
    [evaluation] = run(app.deploy.evaluate_schema(app.request(schema=wider)))["componentSchemaEvaluations"].values()
    assert [one["outcome"] for one in evaluation["tables"]] == ["supersetOfEnforced"]
    change = run(app.deploy.evaluate_push(app.request(schema=wanted)))["schemaChange"]
    assert [one["name"] for one in change["indexDiffs"][""]["removed_indexes"]] == ["t.i"]


def test_what_has_not_changed_needs_no_child(app: Deployment) -> None:
    """A push of an unchanged app starts no child, and neither does the estimate for an unchanged schema beside a changed module; the push of
    that module starts one."""
    wanted = schema(table("t", {}))
    app.push(module("a.js"), schema=wanted)
    before = len(app.analyzer.children)
    app.push(unchanged=[module("a.js")], schema=wanted)
    changed = module("a.js", functions=[function("f")])
    run(app.deploy.evaluate_schema(app.request(changed, schema=wanted)))
    assert len(app.analyzer.children) == before
    app.push(changed, schema=wanted)
    assert len(app.analyzer.children) == before + 1
    app.push(unchanged=[changed], schema=schema(table("t", {"a": {"type": "any"}})))
    assert len(app.analyzer.children) == before + 2


def test_read_only_keys_may_not_push(app: Deployment) -> None:
    """A read-only admin key is refused."""
    reader = Identity("admin", read_only=True)
    for call in (app.deploy.start_push, app.deploy.finish_push, app.deploy.wait_for_schema, app.deploy.evaluate_schema):
        with pytest.raises(Forbidden):
            run(call(app.request(), reader))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"nodeVersion": "18"}, "NodeVersionNotSupported"),
        ({"nodeVersion": "21"}, "NodeVersionNotSupported"),
        ({"nodeDependencies": 1}, "BadJsonBody"),
        ({"nodeDependencies": [{"name": "ms"}]}, "BadJsonBody"),
        ({"nodeDependencies": [{"name": "ms", "version": "file:../x"}]}, "InvalidNodeDependency"),
        ({"nodeDependencies": [{"name": "--global", "version": "1.0.0"}]}, "InvalidNodeDependency"),
        ({"appDefinition": None}, "BadJsonBody"),
        ({"componentDefinitions": 1}, "BadJsonBody"),
    ],
)
def test_malformed_requests(app: Deployment, change: dict[str, Any], code: str) -> None:
    """A request of the wrong shape is refused before anything is evaluated."""
    assert code_of(lambda: run(app.deploy.start_push({**app.request(MESSAGES), **change})))[0] == code
    assert app.analyzer.log == []


def test_bad_module_paths(app: Deployment) -> None:
    """Module paths follow the path rules; a path is listed once."""
    assert code_of(lambda: app.start(module("../x.js")))[0] == "BadConvexModuleIdentifier"
    assert code_of(lambda: app.start(MESSAGES, MESSAGES))[0] == "InvalidModules"


def test_pushes_give_way_to_writes(app: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that is overtaken runs again; one that is always overtaken ends as ``ConcurrentPush`` and nothing is deployed."""
    started = app.start(MESSAGES, DEPS)
    commit = app.db.commit
    left = [3]

    async def overtaken(transaction: Any, *more: Any, **options: Any) -> int:
        if left[0]:
            left[0] -= 1
            transaction.close()
            raise OccConflict("_modules")
        return await commit(transaction, *more, **options)

    monkeypatch.setattr(app.db, "commit", overtaken)
    app.finish(started)
    assert app.resolve("messages:list") is not None
    left[0] = 100
    other = module("other.js", functions=[function("f")])
    assert code_of(lambda: app.start(other))[0] == "ConcurrentPush"
    assert app.resolve("other:f") is None


def test_a_stop_ends_waits(app: Deployment) -> None:
    """A server that stops answers those who wait for a schema, and leaves no timer behind."""
    app.store.insert("t", *({"a": 1.0} for _ in range(1000)))
    started = app.start(schema=schema(table("t", {"a": {"type": "number"}})))
    failures: list[Any] = []
    request = {"schemaChange": started["schemaChange"], "timeoutMs": 10000}
    Deferred.fromCoroutine(app.deploy.wait_for_schema(request)).addErrback(failures.append)
    run(app.deploy.stop())
    assert [type(failure.value) for failure in failures] == [Overloaded]
    app.directory.stop()
    run(app.db.stop())
    assert app.store.timers.getDelayedCalls() == []


def test_the_push_that_began_last_wins(app: Deployment) -> None:
    """Of two overlapping pushes, without any schema, the older one cannot finish after the newer one has; in the order of their
    beginnings both can, and a finish may be asked for again (checklist 11)."""
    app.push(MESSAGES, DEPS)
    older, newer = app.start(module("a.js", functions=[function("f")])), app.start(module("b.js"))
    assert app.wait(older) == {"type": "complete"}
    app.finish(newer)
    assert app.wait(older) == {"type": "raceDetected"}
    assert code_of(lambda: app.finish(older))[0] == "RaceDetected"
    assert app.resolve("a:f") is None
    first, second = app.start(module("a.js", functions=[function("f")])), app.start(module("c.js"))
    app.finish(first)
    assert app.resolve("a:f") is not None
    app.finish(second)
    app.finish(second)
    assert app.resolve("a:f") is None
    trial = app.start(module("d.js"), dryRun=True)
    assert app.wait(trial) == {"type": "complete"}


def test_numbers_of_pushes_go_on_after_a_restart(app: Deployment) -> None:
    """A server that starts anew numbers its pushes after those of before."""
    for _ in range(3):
        app.push(MESSAGES, DEPS)
    again = Deploy(
        database=app.db,
        store=app.rows,
        directory=app.directory,
        analyzer=app.analyzer,
        clock=app.store.timers,
        random_bytes=app.db.random_bytes,
        now_ns=app.store.clock.now_ns,
    )
    started = run(again.start_push(app.request(module("e.js", functions=[function("f")]))))
    run(again.finish_push({"startPush": started}))
    assert app.resolve("e:f") is not None
