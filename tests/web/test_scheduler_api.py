"""Cancelling scheduled functions, and pausing (``http_api.md`` sections 7 and 12)."""

from __future__ import annotations

from typing import Any

import pytest

from convex_backend.application.job_admin import WantedJobs
from convex_backend.errors import BadRequest
from tests.web.support import Bench


class FakeJobAdmin:
    """Notes what it is asked for; ``error`` is raised if there is one."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.error: Exception | None = None

    def _note(self, *what: Any) -> None:
        self.asked.append(what)
        if self.error is not None:
            raise self.error

    async def cancel(self, job: str, component_id: str | None, identity: Any) -> None:
        self._note("cancel", job, component_id, identity.kind)

    async def cancel_all(self, wanted: WantedJobs, identity: Any) -> int:
        self._note("cancel_all", wanted)
        return 1

    async def delete_all(self, component_id: str | None, identity: Any) -> None:
        self._note("delete_all", component_id)

    async def pause(self, identity: Any) -> None:
        self._note("pause")

    async def resume(self, identity: Any) -> None:
        self._note("resume")


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.application.job_admin = FakeJobAdmin()
    return made


@pytest.mark.parametrize(
    ("path", "body", "asked"),
    [
        ("/api/cancel_job", {"id": "abc", "componentId": None}, ("cancel", "abc", None, "admin")),
        ("/api/cancel_job", {"id": "abc", "componentId": "c"}, ("cancel", "abc", "c", "admin")),
        ("/api/cancel_all_jobs", {}, ("cancel_all", WantedJobs())),
        (
            "/api/cancel_all_jobs",
            {"componentPath": "a/b", "udfPath": "m.js:f", "startNextTs": 5, "endNextTs": 1e18},
            ("cancel_all", WantedJobs(None, "a/b", "m.js:f", 5, 10**18)),
        ),
        ("/api/delete_scheduled_functions_table", {"componentId": None}, ("delete_all", None)),
        ("/api/v1/pause_deployment", None, ("pause",)),
        ("/api/v1/pause_deployment", {}, ("pause",)),
        ("/api/v1/unpause_deployment", None, ("resume",)),
    ],
)
def test_good(bench: Bench, path: str, body: Any, asked: tuple[Any, ...]) -> None:
    """A good request reaches its use case with typed values, and is answered with nothing."""
    answer = bench.admin("POST", path, b"" if body is None else body)
    assert (answer.status, answer.body) == (200, b"")
    assert bench.application.job_admin.asked == [asked]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/cancel_job", {}),
        ("/api/cancel_job", {"id": 1}),
        ("/api/cancel_job", {"id": "a", "componentId": 1}),
        ("/api/cancel_all_jobs", []),
        ("/api/cancel_all_jobs", {"startNextTs": "now"}),
        ("/api/cancel_all_jobs", {"endNextTs": 1e300}),
        ("/api/cancel_all_jobs", {"startNextTs": True}),
        ("/api/delete_scheduled_functions_table", {"componentId": []}),
    ],
)
def test_bad_shapes(bench: Bench, path: str, body: Any) -> None:
    """A body of another shape is a 400 and reaches nobody."""
    answer = bench.admin("POST", path, body)
    assert answer.status == 400 and answer.json["code"] == "BadJsonBody"
    assert bench.application.job_admin.asked == []


@pytest.mark.parametrize(
    "path",
    [
        "/api/cancel_job",
        "/api/cancel_all_jobs",
        "/api/delete_scheduled_functions_table",
        "/api/v1/pause_deployment",
        "/api/v1/unpause_deployment",
    ],
)
def test_admins_only(bench: Bench, path: str) -> None:
    """Without a key these routes are closed."""
    answer = bench.ask("POST", path, {"id": "a", "componentId": None}, {})
    assert answer.status in (401, 403)
    assert bench.application.job_admin.asked == []


def test_not_paused(bench: Bench) -> None:
    """Resuming what is not paused is a 400 with its own code."""
    text = "Deployment is not currently paused."
    bench.application.job_admin.error = BadRequest("UnpauseDeploymentFailed", text)
    answer = bench.admin("POST", "/api/v1/unpause_deployment", b"")
    assert answer.status == 400 and answer.json == {"code": "UnpauseDeploymentFailed", "message": text}
