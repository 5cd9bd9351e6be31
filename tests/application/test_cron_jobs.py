"""Cron jobs: when they run, one at a time, and what is remembered of them."""

from __future__ import annotations

from typing import Any

import pytest

from convex_backend.application import deployment_state
from convex_backend.application.cron_jobs import KEPT_RUNS
from convex_backend.application.scheduler import TRANSIENT_TEXT
from convex_backend.errors import BadRequest, StorageFailed
from tests.application.job_support import JobWorld
from tests.application.support import Function, ScriptError
from tests.database.documents import START_NS, run


def every(seconds: int, path: str = "app.js:tick", **args: Any) -> dict[str, Any]:
    """An interval job."""
    return {"path": path, "schedule": {"type": "interval", "seconds": seconds}, "args": args}


def by(pattern: str, path: str = "app.js:tick") -> dict[str, Any]:
    """A job with a five-field pattern."""
    return {"path": path, "schedule": {"type": "cron", "cronExpr": pattern}}


@pytest.fixture
def world() -> JobWorld:
    """A world with a mutation ``app:tick`` that writes down when it ran."""
    made = JobWorld()

    async def tick(function: Function, args: Any) -> Any:
        await function.call("1.0/insert", table="ticks", value={"at": round(made.timers.seconds(), 3), **args})
        return len(made.documents("ticks"))

    made.define("app:tick", "mutation", tick)
    return made


def ticks(world: JobWorld) -> list[float]:
    """When it ran, in seconds of the test's clock."""
    return sorted(one["at"] for one in world.documents("ticks"))


def logs(world: JobWorld) -> list[dict[str, Any]]:
    """The remembered runs, oldest first."""
    return sorted(world.rows("_cron_job_logs"), key=lambda row: row["_creationTime"])


def next_runs(world: JobWorld) -> dict[str, float]:
    """When each job is due next, in seconds of the test's clock."""
    return {row["name"]: round((row["at"] - START_NS) / 1e9, 3) for row in world.rows("_cron_next_run")}


def test_an_interval_runs_at_once_and_then_in_steps(world: JobWorld) -> None:
    """The first run is at the deploy, the following ones are each an interval after the scheduled time of the one before."""
    world.push_crons({"job": every(10, note="x")})
    world.advance(35)
    assert [round(at) for at in ticks(world)] == [0, 10, 20, 30]
    first = logs(world)[0]
    assert first["name"] == "job" and first["udfPath"] == "app.js:tick" and first["udfArgs"] == b'[{"note": "x"}]'
    assert first["status"] == {"type": "success", "result": {"type": "default", "value": 0.0}}
    assert first["logLines"] == {"logLines": [], "isTruncated": False}
    world.stop()


def test_a_pattern_runs_at_its_matches(world: JobWorld) -> None:
    """A pattern's first run is its first match after the deploy; the start of the world is 22:13:20 UTC."""
    world.push_crons({"job": by("15,17 22 * * *")})
    world.advance(600)
    assert [round(at) for at in ticks(world)] == [100, 220]
    assert round(next_runs(world)["job"]) == 100 + 86400


def test_own_error_is_remembered_and_the_next_run_comes(world: JobWorld) -> None:
    """A failing run leaves no writes and its text in the history; the next run is as due."""

    async def bad(function: Function, args: Any) -> Any:
        await function.call("1.0/insert", table="ticks", value={"at": 0})
        raise ScriptError("boom " + "x" * 2000)

    world.define("app:bad", "mutation", bad)
    world.push_crons({"job": every(10, "app.js:bad")})
    world.advance(11)
    assert ticks(world) == [] and len(logs(world)) == 2
    status = logs(world)[0]["status"]
    assert status["type"] == "err" and status["error"]["type"] == "truncated"
    assert status["error"]["truncated_log"].startswith("Uncaught Error: boom xxx")


def slow(world: JobWorld, started: list[float]) -> Any:
    """An action that goes on when the test says so."""

    async def script(function: Function, args: Any) -> Any:
        started.append(round(world.timers.seconds()))
        await function.pause()
        return "done"

    return script


def test_runs_never_overlap_and_missed_ones_are_skipped(world: JobWorld) -> None:
    """While a run goes on no other begins; those that it missed are skipped and reported in the history."""
    started: list[float] = []
    world.define("app:slow", "action", slow(world, started))
    world.push_crons({"job": every(10, "app.js:slow")})
    world.advance(35)
    assert started == [0]
    world.go_on()
    assert round(next_runs(world)["job"]) == 40
    world.advance(6)
    assert started == [0, 40]
    success, skipped = logs(world)
    assert success["status"]["type"] == "success" and round(success["executionTime"]) == 35
    assert skipped["status"] == {"type": "canceled", "num_canceled": 3}
    text = "Skipping 3 run(s) of job job because multiple scheduled runs are in the past"
    assert skipped["logLines"] == {"logLines": [text], "isTruncated": False}
    assert world.registry.get_sample_value("convex_cron_runs_total", {"outcome": "skipped"}) == 3.0


def test_runs_missed_while_the_server_was_down(world: JobWorld) -> None:
    """After a restart the overdue run comes once, at once; the others are skipped."""
    world.push_crons({"job": every(10)})
    world.advance(1)
    world.stop()
    final = JobWorld(persistence=world.persistence, start=False, seed=3)
    final.pool.scripts, final.directory.functions = world.pool.scripts, world.directory.functions
    final.timers.advance(47)
    final.crons.start()
    final.advance(1)
    assert len(final.documents("ticks")) == 2
    assert logs(final)[-1]["status"] == {"type": "canceled", "num_canceled": 3}
    assert round(next_runs(final)["job"]) == 50


def test_paused_deployment(world: JobWorld) -> None:
    """While the deployment is paused nothing runs; afterwards there is one run, and the rest is skipped."""
    world.push_crons({"job": every(10)})
    world.advance(1)
    run(deployment_state.pause(world.db))
    world.advance(50)
    assert [round(at) for at in ticks(world)] == [0]
    run(deployment_state.resume(world.db))
    world.advance(5)
    assert [round(at) for at in ticks(world)] == [0, 51]
    assert logs(world)[-1]["status"] == {"type": "canceled", "num_canceled": 4}


def test_a_redeploy_keeps_the_next_run(world: JobWorld) -> None:
    """A push that leaves the schedule alone leaves the next run alone, also when function or arguments changed; another schedule begins anew."""
    world.push_crons({"same": every(100), "other": every(100)})
    world.advance(30)
    before = next_runs(world)
    world.push_crons({"same": every(100, note="new"), "other": every(50)})
    after = next_runs(world)
    assert after["same"] == before["same"] and round(after["other"]) == 30
    world.advance(71)
    assert {one.get("note") for one in world.documents("ticks")} == {None, "new"}


def test_removed_and_added_again(world: JobWorld) -> None:
    """A job that a push removes does not run any more and is forgotten; one that comes back begins anew."""
    world.push_crons({"job": every(10)})
    world.advance(5)
    world.push_crons({})
    world.advance(30)
    assert len(ticks(world)) == 1 and logs(world) == [] and world.rows("_cron_next_run") == []
    world.push_crons({"job": every(10)})
    world.advance(1)
    assert len(ticks(world)) == 2


def test_a_job_that_comes_back_while_it_runs(world: JobWorld) -> None:
    """A job that is removed and brought back while its run goes on waits for the end of that."""
    started: list[float] = []
    world.define("app:slow", "action", slow(world, started))
    world.push_crons({"job": every(10, "app.js:slow")})
    world.advance(1)
    world.push_crons({})
    world.push_crons({"job": every(10, "app.js:slow")})
    world.advance(5)
    assert started == [0]
    world.go_on()
    world.advance(2)
    assert len(started) == 2


def test_another_schedule_while_it_runs(world: JobWorld) -> None:
    """A run under way ends undisturbed; the first run of the new schedule follows."""
    started: list[float] = []
    world.define("app:slow", "action", slow(world, started))
    world.push_crons({"job": every(1000, "app.js:slow")})
    world.advance(1)
    world.push_crons({"job": every(500, "app.js:slow")})
    world.advance(5)
    assert started == [0]
    world.go_on()
    world.advance(1)
    assert started == [0, 6]


def test_interrupted_action(world: JobWorld) -> None:
    """An action's run that was under way when the server ended counts as failed; the next one comes when it is due."""
    started: list[float] = []
    world.define("app:slow", "action", slow(world, started))
    world.push_crons({"job": every(100, "app.js:slow")})
    world.advance(10)
    after = world.restart()
    after.advance(5)
    (failed,) = logs(after)
    assert failed["status"] == {"type": "err", "error": {"type": "default", "value": TRANSIENT_TEXT}}
    assert started == [0] and round(next_runs(after)["job"]) == 100


def test_failure_of_the_system_is_tried_again(world: JobWorld) -> None:
    """A mutation whose commit could not be written runs again, with the back-off, and counts once."""
    world.push_crons({"job": every(1000)})
    write = world.persistence.write
    refused: list[int] = []

    def refuse(commits: Any) -> Any:
        if len(refused) < 3:
            refused.append(1)
            raise StorageFailed
        return write(commits)

    world.persistence.write = refuse  # type: ignore[method-assign]
    world.advance(10, step=0.25)
    assert len(refused) == 3 and len(ticks(world)) == 1 and len(logs(world)) == 1


def test_history_is_bounded(world: JobWorld) -> None:
    """Of each job so many runs are remembered, the newest."""
    world.push_crons({"job": every(1)})
    world.advance(KEPT_RUNS + 15)
    assert len(logs(world)) == KEPT_RUNS
    assert logs(world)[-1]["status"]["result"]["value"] >= KEPT_RUNS + 13


def test_a_function_that_is_gone(world: JobWorld) -> None:
    """A job whose function cannot be found fails each time, with the text that names it."""
    world.push_crons({"job": every(10)})
    del world.directory.functions["app.js:tick"]
    world.advance(1)
    assert logs(world)[0]["status"]["error"]["value"].startswith("Could not find function for 'app:tick'")


def test_a_pattern_that_is_refused_stops_the_push(world: JobWorld) -> None:
    """A malformed pattern never gets into the rows."""
    with pytest.raises(BadRequest, match="will never match any time"):
        world.push_crons({"job": by("0 0 30 2 *")})
    assert world.cron_rows() == []
