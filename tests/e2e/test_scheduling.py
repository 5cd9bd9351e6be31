"""Scheduled functions and cron jobs with the official CLI and clients."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import ADMIN_KEY, Server, convex, make_app, node, running

ADMIN = {"Authorization": f"Convex {ADMIN_KEY}"}
PAUSED = "Cannot run functions while this deployment is paused."


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server to which the app of jobs has been pushed."""
    app = make_app(tmp_path_factory.mktemp("jobs"), "jobs")
    with running(tmp_path_factory.mktemp("server")) as server:
        convex(app, server, "dev", "--once")
        server.app = app
        yield server


def until(check: Callable[[], Any], seconds: float = 10) -> Any:
    """The first true answer of *check*."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come to that")


def job_of(server: Server, job: str) -> Any:
    """The document of a job."""
    return server.value("query", "jobs:get", {"id": job})


def ended(server: Server, job: str) -> Any:
    """The document of a job once it has ended."""
    return until(lambda: (found := job_of(server, job))["state"]["kind"] not in ("pending", "inProgress") and found)


def test_from_a_mutation(jobs: Server) -> None:
    """``runAfter`` and ``runAt`` from a mutation: the document's members, the run, and the time asked for."""
    job = jobs.value("mutation", "jobs:later", {"ms": 400, "text": "one"})
    pending = job_of(jobs, job)
    assert pending["state"] == {"kind": "pending"} and pending["name"] == "jobs.js:note"
    assert pending["args"] == [{"text": "one"}] and "completedTime" not in pending
    done = ended(jobs, job)
    assert done["state"] == {"kind": "success"}
    assert 0 <= done["completedTime"] - done["scheduledTime"] < 2000
    assert "one" in jobs.value("query", "jobs:notes")
    wanted = float(int(time.time() * 1000) + 200)
    job = jobs.value("mutation", "jobs:at", {"time": wanted, "text": "two"})
    assert job_of(jobs, job)["scheduledTime"] == wanted
    assert ended(jobs, job)["state"]["kind"] == "success"


def test_by_handle_and_by_the_name_of_a_row(jobs: Server) -> None:
    """A function handle, and the ``name`` of a job's document, may be scheduled like any reference."""
    job = jobs.value("mutation", "jobs:byHandle", {"text": "by handle"})
    done = ended(jobs, job)
    assert done["state"] == {"kind": "success"} and done["name"] == "jobs.js:note"
    again = ended(jobs, jobs.value("mutation", "jobs:again", {"job": job}))
    assert again["state"] == {"kind": "success"} and again["args"] == done["args"]
    assert jobs.value("query", "jobs:notes").count("by handle") == 2


def test_from_an_action(jobs: Server) -> None:
    """An action's jobs exist at once; it can cancel them again."""
    job = jobs.value("action", "jobs:laterFromAction", {"ms": 0, "text": "by action", "cancel": False})
    assert ended(jobs, job)["state"] == {"kind": "success"}
    job = jobs.value("action", "jobs:laterFromAction", {"ms": 60000, "text": "cancelled", "cancel": True})
    assert job_of(jobs, job)["state"] == {"kind": "canceled"}


def test_cancel_and_failure(jobs: Server) -> None:
    """A cancelled job does not run; a failing one has its error's text and left nothing."""
    job = jobs.value("mutation", "jobs:later", {"ms": 300, "text": "not this one"})
    jobs.value("mutation", "jobs:cancel", {"id": job})
    failing = jobs.value("mutation", "jobs:scheduleFailing")
    state = ended(jobs, failing)["state"]
    assert state["kind"] == "failed" and state["error"].startswith(
        "Uncaught Error: boom\n    at handler (../convex/jobs.ts:"
    )
    time.sleep(0.4)
    notes = jobs.value("query", "jobs:notes")
    assert "not this one" not in notes and "never" not in notes
    assert job_of(jobs, job)["state"] == {"kind": "canceled"}


def test_a_live_client_sees_jobs_and_cron_runs(jobs: Server) -> None:
    """A ConvexClient is pushed a job's states, the effect of a cron job of every second, and a pause and its end."""
    states, ticks, paused = node(jobs.app, "jobs.mjs", jobs, ADMIN_KEY)
    assert states["states"] == ["pending", "success"] and 250 <= states["took"] < 5000
    assert states["members"] == ["_creationTime", "_id", "args", "completedTime", "name", "scheduledTime", "state"]
    assert ticks["ticks"] >= 3 and 1.5 < ticks["seconds"] < 10
    assert paused == {"heard": ["value", "paused", "value"]}


def test_admin_functions_and_data(jobs: Server) -> None:
    """What dashboards ask for, ``convex data _scheduled_functions``, and cancelling by an administrator."""
    job = jobs.value("mutation", "jobs:later", {"ms": 3_000_000, "text": "far"})
    options = {"cursor": None, "numItems": 10}
    path = "_system/frontend/paginatedScheduledJobs"
    page = jobs.call("query", path, {"paginationOpts": options}, admin=True)["value"]
    (shown,) = [one for one in page["page"] if one["_id"] == job]
    assert shown["udfPath"] == "jobs.js:note" and shown["state"] == {"type": "pending"} and page["isDone"]
    crons = jobs.call("query", "_system/frontend/listCronJobs", admin=True)["value"]
    by_name = {one["name"]: one for one in crons}
    assert set(by_name) == {"last friday", "nightly", "tick"}
    assert by_name["tick"]["lastRun"]["status"]["type"] == "success"
    assert by_name["nightly"]["lastRun"] is None and by_name["nightly"]["nextRun"]["prevTs"] is None
    runs = jobs.call("query", "_system/frontend/listCronJobRuns", admin=True)["value"]
    assert runs and {run["name"] for run in runs} == {"tick"}
    assert job in convex(jobs.app, jobs, "data", "_scheduled_functions", "--limit", "1000")
    status, _, _ = jobs.request("POST", "/api/cancel_job", {"id": job, "componentId": None}, ADMIN)
    assert status == 200 and job_of(jobs, job)["state"] == {"kind": "canceled"}
    others = [jobs.value("mutation", "jobs:later", {"ms": 3_000_000, "text": "far"}) for _ in range(3)]
    assert jobs.request("POST", "/api/cancel_all_jobs", {"udfPath": "jobs:apply"}, ADMIN)[0] == 200
    assert {job_of(jobs, one)["state"]["kind"] for one in others} == {"pending"}
    assert jobs.request("POST", "/api/cancel_all_jobs", {"udfPath": "jobs:note"}, ADMIN)[0] == 200
    assert {job_of(jobs, one)["state"]["kind"] for one in others} == {"canceled"}


def test_pause_and_resume(jobs: Server) -> None:
    """While the deployment is paused calls fail with the text, jobs wait and pushes go on; afterwards everything runs."""
    job = jobs.value("mutation", "jobs:later", {"ms": 200, "text": "waited"})
    try:
        assert jobs.request("POST", "/api/v1/pause_deployment", b"", ADMIN)[0] == 200
        for kind, path in (
            ("query", "jobs:notes"),
            ("mutation", "jobs:scheduleFailing"),
            ("action", "jobs:laterFromAction"),
        ):
            answer = jobs.call(kind, path, {"ms": 1, "text": "", "cancel": False} if kind == "action" else {})
            assert answer["status"] == "error" and PAUSED in answer["errorMessage"]
        state = jobs.call("query", "_system/frontend/deploymentState:deploymentState", admin=True)
        assert state["value"] == {"state": "paused"}
        time.sleep(0.5)
        convex(jobs.app, jobs, "dev", "--once", "--typecheck", "disable")
    finally:
        assert jobs.request("POST", "/api/v1/unpause_deployment", b"", ADMIN)[0] == 200
    assert ended(jobs, job)["state"] == {"kind": "success"}
    status, _, body = jobs.request("POST", "/api/v1/unpause_deployment", b"", ADMIN)
    assert status == 400 and json.loads(body)["code"] == "UnpauseDeploymentFailed"


def test_a_pattern_that_never_matches_is_refused(jobs: Server, tmp_path: Path) -> None:
    """A push with a cron pattern that can never match fails and says so; the deployed jobs stay."""
    app = make_app(tmp_path, "jobs")
    crons = app / "convex" / "crons.ts"
    crons.write_text(crons.read_text().replace("0 18 * * FRIL", "0 0 30 2 *"))
    output = convex(app, jobs, "dev", "--once", "--typecheck", "disable", check=False)
    assert 'The cron spec "0 0 30 2 *" will never match any time' in output and "[exit 0]" not in output
    crons = jobs.call("query", "_system/frontend/listCronJobs", admin=True)["value"]
    assert len(crons) == 3
