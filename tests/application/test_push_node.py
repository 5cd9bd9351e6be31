"""Pushes of ``"use node"`` modules: what is analysed, what is refused, what stays (``push.md`` 5.4 and 15, ``runtime.md`` 11)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from convex_backend.application.node_dependencies import NodeDependency, dependencies_id, read_dependencies
from convex_backend.application.rollback import Rollbacks
from convex_backend.application.types import Caller
from convex_backend.errors import BadRequest
from tests.application.push_support import ADMIN, Deployment, function, module, sha256
from tests.database.documents import run

CALLER = Caller("HttpApi", "npm-cli", "1.48.0", "0" * 16)
SEND = function("send", "Action")


@pytest.fixture
def app() -> Iterator[Deployment]:
    yield Deployment()


def node_module(path: str, *functions: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**module(path, functions=list(functions), **more), "environment": "node"}


def test_node_modules_are_analysed_in_node(app: Deployment) -> None:
    """Actions of ``"use node"`` modules are found by the analysis in Node, and resolve as actions that run there."""
    app.push(
        node_module("email.js", SEND), node_module("_deps/node/A.js"), module("list.js", functions=[function("f")])
    )
    found = app.resolve("email:send")
    assert found is not None
    assert (found.kind, found.node, found.closure) == ("action", True, ())
    assert app.resolve("email:other") is None
    assert "module email.js" not in app.analyzer.log
    assert app.node.log == ["module email.js"]
    [code] = app.node.codes
    assert sorted(code.modules) == ["_deps/node/A.js", "email.js"]
    assert run(app.directory.node_code()).id == code.id


def test_unchanged_node_code_is_not_analysed_again(app: Deployment) -> None:
    """As long as no module and no dependency of Node's changes, the rows stay; a change of one has all of them analysed."""
    email, other = node_module("email.js", SEND), node_module("other.js", SEND)
    app.push(email, other)
    app.push(email, other, module("list.js"))
    assert len(app.node.codes) == 1
    app.push(email, node_module("other.js", function("go", "Action")))
    assert app.node.log == ["module email.js", "module other.js"] * 2


def test_dependencies_belong_to_the_code(app: Deployment) -> None:
    """``externalDepsId`` names the sorted list of packages; another list is other code, also for modules that were not sent again."""
    email = node_module("email.js", SEND)
    listed = [{"name": "nanoid", "version": "5.1.6"}, {"name": "ms", "version": "2.1.3"}]
    request = app.request(email)
    assert run(app.deploy.start_push(request))["externalDepsId"] is None
    response = run(app.deploy.start_push({**request, "nodeDependencies": listed}))
    assert response["externalDepsId"] == dependencies_id(read_dependencies(listed[::-1]))
    run(app.deploy.finish_push({"adminKey": "", "startPush": response, "dryRun": False}))
    expected = (NodeDependency("ms", "2.1.3"), NodeDependency("nanoid", "5.1.6"))
    assert run(app.directory.node_code()).dependencies == expected
    unchanged = {"path": "email.js", "environment": "node", "sha256": sha256(email)}
    again = app.request()
    again["appDefinition"]["unchangedModuleHashes"] = [unchanged]
    response = run(app.deploy.start_push(again))
    assert response["externalDepsId"] is None
    run(app.deploy.finish_push({"adminKey": "", "startPush": response, "dryRun": False}))
    assert run(app.directory.node_code()).dependencies == ()


@pytest.mark.parametrize("kind", ["Query", "Mutation"])
def test_only_actions(app: Deployment, kind: str) -> None:
    """Queries and mutations in ``"use node"`` modules are refused by name."""
    with pytest.raises(BadRequest) as caught:
        app.push(node_module("foo.js", function("f", kind)))
    assert caught.value.message.endswith(
        f"`f` defined in `foo.js` is a {kind} function. Only actions can be defined in Node.js. "
        "See https://docs.convex.dev/functions/actions for more details."
    )


@pytest.mark.parametrize("path", ["http.js", "crons.js", "auth.config.js"])
def test_modules_of_the_default_runtime(app: Deployment, path: str) -> None:
    """Routes, cron jobs and auth config are never in Node."""
    with pytest.raises(BadRequest) as caught:
        app.push(node_module(path))
    assert caught.value.code == "InvalidModules"
    assert caught.value.message.startswith(f'{path} cannot run in Node.js: remove the "use node" directive.')


def test_faults_of_evaluation(app: Deployment) -> None:
    """What evaluating a module in Node throws is shown as for any other module; nothing is deployed."""
    with pytest.raises(BadRequest) as caught:
        app.push(node_module("foo.js", fail="Failed to analyze foo.js: Uncaught Error: boom\n"))
    assert caught.value.message == (
        "Hit an error while pushing:\nLoading the pushed modules encountered the following\n    error:\n"
        "Failed to analyze foo.js: Uncaught Error: boom\n"
    )
    assert app.resolve("foo:send") is None


def test_cron_jobs_of_node_actions(app: Deployment) -> None:
    """A cron job may run an action of Node, and not one that it does not have."""
    spec = {
        "identifier": "mail",
        "name": "email:send",
        "args": [{}],
        "cronSchedule": {"type": "interval", "seconds": 60},
    }
    app.push(node_module("email.js", SEND), module("crons.js", cronSpecs=[spec]))
    with pytest.raises(BadRequest) as caught:
        app.push(node_module("email.js", function("other", "Action")), module("crons.js", cronSpecs=[spec]))
    assert "schedules a function that does not exist: email:send" in caught.value.message


@pytest.mark.parametrize("version", [None, "20", "22", "24"])
def test_versions(app: Deployment, version: str | None) -> None:
    """Any supported version may be asked for; its absence too."""
    assert run(app.deploy.start_push({**app.request(node_module("email.js", SEND)), "nodeVersion": version}))["pushId"]


def test_rollback(app: Deployment) -> None:
    """A rollback brings Node code back with its list of packages."""
    email, listed = node_module("email.js", SEND), [{"name": "ms", "version": "2.1.3"}]
    for push in (
        app.start(email, nodeDependencies=listed),
        app.start(node_module("email.js", function("go", "Action"))),
    ):
        run(app.deploy.finish_push({"startPush": push}, ADMIN, CALLER))
    assert (app.resolve("email:send"), run(app.directory.node_code()).dependencies) == (None, ())
    rollbacks = Rollbacks(database=app.db, history=app.history, deploy=app.deploy)
    app.eventually(lambda: rollbacks.roll_back(None, ADMIN, CALLER))
    assert app.resolve("email:send") is not None
    assert run(app.directory.node_code()).dependencies == (NodeDependency("ms", "2.1.3"),)
