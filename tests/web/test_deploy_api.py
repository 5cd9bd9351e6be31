"""Pushes over HTTP (``push.md`` sections 2, 3, 10 and 11)."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from convex_backend.errors import BadRequest, Conflict, Overloaded
from tests.web.support import Bench

STEPS = ["start_push", "evaluate_push", "evaluate_schema", "wait_for_schema", "finish_push"]


@pytest.mark.parametrize("step", STEPS)
def test_step(step: str) -> None:
    """Each step hands the body to its use case and sends the answer as JSON."""
    bench = Bench()
    bench.application.deploy.answer = {"type": "complete", "é": [1, None]}
    request = {"adminKey": bench.key, "schemaChange": {"x": 1.5}, "timeoutMs": 10000, "dryRun": True}
    answer = bench.admin("POST", f"/api/deploy2/{step}", request)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == {"type": "complete", "é": [1, None]}
    assert bench.application.deploy.calls == [(step, request)]


def test_config_hashes() -> None:
    """What is deployed is told to whoever holds a key."""
    bench = Bench()
    bench.application.deploy.answer = {"config": {"functions": "convex/"}, "moduleHashes": []}
    answer = bench.ask("POST", "/api/get_config_hashes", {"version": "1.48.0", "adminKey": bench.key})
    assert answer.json == {"config": {"functions": "convex/"}, "moduleHashes": []}


def test_report_push_completed() -> None:
    """The client's timings are answered with ``null``."""
    bench = Bench()
    assert bench.ask("POST", "/api/deploy2/report_push_completed", {"adminKey": bench.key, "spans": []}).body == b"null"


@pytest.mark.parametrize("step", [*STEPS, "report_push_completed"])
@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe"])
def test_bad_json(step: str, body: bytes) -> None:
    """What is not JSON never reaches a use case."""
    bench = Bench()
    assert bench.admin("POST", f"/api/deploy2/{step}", body).error == (400, "BadJsonBody")
    assert bench.application.deploy.calls == []


@pytest.mark.parametrize("step", STEPS)
def test_not_an_object(step: str) -> None:
    """A push is an object."""
    bench = Bench()
    assert bench.admin("POST", f"/api/deploy2/{step}", [1]).error == (400, "BadJsonBody")
    assert bench.application.deploy.calls == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BadRequest("InvalidModules", "Hit an error while pushing:\nx"), 400),
        (Conflict("ExistingModuleHashConflict", "x"), 409),
        (Overloaded("ExpiredInQueue", "x"), 503),
    ],
)
def test_refused(error: Any, status: int) -> None:
    """An error of a push is its code and message, line breaks included."""
    bench = Bench()
    bench.application.deploy.answer = error
    answer = bench.admin("POST", "/api/deploy2/start_push", {})
    assert answer.error == (status, error.code)
    assert answer.json["message"] == error.message


def test_long_poll() -> None:
    """``wait_for_schema`` is answered when its use case answers, not before."""
    bench = Bench()
    waiting: Deferred[Any] = Deferred()
    bench.application.deploy.answer = waiting
    connection = bench.begin(
        "POST", "/api/deploy2/wait_for_schema", {"timeoutMs": 10000}, {"Authorization": f"Convex {bench.key}"}
    )
    assert connection.answer() is None
    assert bench.in_flight == 1
    waiting.callback({"type": "raceDetected"})
    answer = connection.answer()
    assert answer is not None
    assert answer.json == {"type": "raceDetected"}
    assert bench.in_flight == 0


def test_simple_deploy() -> None:
    """The body goes to the use case with who asks; the answer is JSON."""
    bench = Bench()
    bench.application.simple_deploy.answer = {"success": True, "warnings": ["Removed modules: a.js."]}
    request = {"functions": {"a.js": "x"}, "adminKey": bench.key}
    answer = bench.ask("POST", "/api/deploy", request, {"Convex-Client": "mine-2.0.0"})
    assert (answer.status, answer.json) == (200, {"success": True, "warnings": ["Removed modules: a.js."]})
    ((tree, identity, caller),) = bench.application.simple_deploy.calls
    assert (tree, identity.is_admin, caller.client, caller.version) == (request, True, "mine", "2.0.0")


def test_simple_deploy_refused() -> None:
    """What is wrong with a module is a 400 with its text."""
    bench = Bench()
    bench.application.simple_deploy.answer = BadRequest("InvalidModules", "a.js, line 2: no")
    answer = bench.admin("POST", "/api/deploy", {"functions": {}})
    assert answer.error == (400, "InvalidModules")
    assert answer.json["message"] == "a.js, line 2: no"


def test_push_history() -> None:
    """The history is a list, newest first, at most as long as asked for."""
    bench = Bench()
    assert [push["id"] for push in bench.admin("GET", "/api/push_history").json["pushes"]] == [2, 1]
    (push,) = bench.admin("GET", "/api/push_history?limit=1").json["pushes"]
    assert push == {
        "id": 2,
        "time_ms": 1.0,
        "client": "npm-cli",
        "version": "1.48.0",
        "message": None,
        "changes": {},
        "current": True,
    }
    for limit in ("-1", "x", "1.5", "9" * 30, ""):
        assert bench.admin("GET", f"/api/push_history?limit={limit}").error == (400, "BadQueryArgs")


def test_rollback() -> None:
    """A rollback names a push or none; both are told what is deployed now."""
    bench = Bench()
    assert bench.admin("POST", "/api/rollback", {"push": 1}).json["push"] == 1
    assert bench.admin("POST", "/api/rollback", {}).json["current"]["id"] == 2
    assert [number for number, _ in bench.application.rollbacks.calls] == [1, None]
    for wrong in ("1", 1.5, True, [1]):
        assert bench.admin("POST", "/api/rollback", {"push": wrong}).error == (400, "BadJsonBody")
    bench.application.rollbacks.error = Conflict("RollbackRefused", "x")
    assert bench.admin("POST", "/api/rollback", {}).error == (409, "RollbackRefused")
