"""Whatever happens to the server, a cron job's runs do not overlap, none is applied twice, and the next one always comes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convex_backend.application import cron_jobs
from convex_backend.application.scheduler_options import Backoff, SchedulerOptions
from convex_backend.errors import ConvexError
from tests.application.job_support import FailingWrites, JobWorld
from tests.application.support import Function
from tests.database.documents import START_NS

OPTIONS = SchedulerOptions(backoff=Backoff(0.5, 4.0), conflict_backoff=Backoff(0.1, 1.0))

STEP = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([0.3, 1.0, 2.5, 7.0])),
    st.tuples(st.just("go on"), st.just(0)),
    st.tuples(st.just("break"), st.integers(1, 4)),
    st.tuples(st.just("restart"), st.just(0)),
    st.tuples(st.just("push"), st.sampled_from([None, 2, 3])),
)


class Model:
    """Two jobs, a mutation and an action that waits until it may go on."""

    def __init__(self) -> None:
        self.world = JobWorld(OPTIONS)
        self.writes = FailingWrites(self.world.persistence)
        self.lives = 0
        self.running = 0
        self.began = 0
        self.removed = False
        self.world.define("app:tick", "mutation", self._tick)
        self.world.define("app:slow", "action", self._slow)

    async def _tick(self, function: Function, args: Any) -> Any:
        await function.call("1.0/insert", table="ticks", value={})

    async def _slow(self, function: Function, args: Any) -> Any:
        life = self.lives
        self.began += 1
        self.running += 1
        assert self.running == 1, "two runs of one job at once"
        try:
            await function.pause()
        finally:
            if life == self.lives:
                self.running -= 1

    def step(self, what: str, how: Any) -> None:
        """Do one thing."""
        world = self.world
        if what == "wait":
            world.advance(how, step=0.25)
        elif what == "go on" and world.pool.paused:
            world.go_on()
        elif what == "break":
            self.writes.failing = how
        elif what == "restart":
            self.writes.failing = 0
            self.lives += 1
            self.running = 0
            world.pool.paused.clear()
            self.world = world.restart(options=OPTIONS)
        elif what == "push":
            self.push(how)

    def push(self, seconds: int | None) -> None:
        """Deploy both jobs with this interval, or none; it may fail."""
        jobs: dict[str, Any] = {}
        if seconds is not None:
            for name in ("tick", "slow"):
                jobs[name] = {"path": f"app.js:{name}", "schedule": {"type": "interval", "seconds": seconds}}
        # A push takes a moment: its jobs' first runs are at another time than any run before it.
        self.world.advance(0.01)
        try:
            self.world.push_crons(jobs)
        except ConvexError:
            return

    def check(self) -> None:
        """Let it go on for a while undisturbed, and compare."""
        self.writes.failing = 0
        self.push(2)
        world = self.world
        before = self.began
        for _ in range(30):
            world.advance(1.0, step=0.25)
            while world.pool.paused:
                world.go_on()
        logs = world.rows("_cron_job_logs")
        runs = [log for log in logs if log["status"]["type"] != "canceled"]
        slots = Counter((log["name"], log["ts"]) for log in runs)
        assert max(slots.values()) == 1, "a run was remembered twice"
        assert self.began > before + 5
        now = START_NS + world.timers.seconds() * 1e9
        for row in world.rows("_cron_next_run"):
            assert row["state"] == "pending" and row["at"] > now - 1e9
        self.compare(runs)

    def compare(self, runs: list[dict[str, Any]]) -> None:
        """What was remembered against what was done, since the last time that the jobs were removed."""
        ticks = len(self.world.documents("ticks"))
        successes = sum(1 for run in runs if run["name"] == "tick" and run["status"]["type"] == "success")
        assert successes <= ticks
        if not self.removed:
            assert successes == ticks


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEP, min_size=5, max_size=25))
def test_no_overlap_and_no_doubles(monkeypatch: pytest.MonkeyPatch, steps: list[tuple[str, Any]]) -> None:
    """Over failing commits, restarts and pushes: one run of a job at a time, each remembered once, a mutation's writes exactly with its success."""
    monkeypatch.setattr(cron_jobs, "KEPT_RUNS", 100_000)
    model = Model()
    model.push(2)
    for what, how in steps:
        if what == "push" and how is None:
            # A removed job's runs are forgotten.
            model.removed = True
        model.step(what, how)
    model.check()
