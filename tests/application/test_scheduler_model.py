"""Whatever happens to the server, each scheduled mutation is applied exactly once and each action runs at most once."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from convex_backend.application.run_action import run_action
from convex_backend.application.scheduled_jobs import PENDING, RUNNING
from convex_backend.application.scheduler_options import Backoff, SchedulerOptions
from convex_backend.application.types import ANONYMOUS
from convex_backend.database.system_tables import SCHEDULED_JOBS
from convex_backend.errors import ConvexError
from tests.application.job_support import START_MS, FailingWrites, JobWorld
from tests.application.support import CALLER, Function, ScriptError
from tests.database.documents import run

OPTIONS = SchedulerOptions(parallelism=3, backoff=Backoff(0.5, 4.0), conflict_backoff=Backoff(0.1, 1.0))

STEP = st.one_of(
    st.tuples(st.just("mutation"), st.sampled_from([0.0, 0.3, 2.0])),
    st.tuples(st.just("action"), st.sampled_from([0.0, 0.3, 2.0])),
    st.tuples(st.just("slow action"), st.sampled_from([0.0, 0.3, 2.0])),
    st.tuples(st.just("failing"), st.just(0.0)),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("wait"), st.sampled_from([0.05, 0.5, 1.5])),
    st.tuples(st.just("go on"), st.just(0)),
    st.tuples(st.just("break"), st.integers(1, 4)),
    st.tuples(st.just("restart"), st.just(0)),
)


class Model:
    """A world, and what must be true of it."""

    def __init__(self) -> None:
        self.world = JobWorld(OPTIONS)
        self.writes = FailingWrites(self.world.persistence)
        self.keys = 0
        #: what was acknowledged: kind of job by id, its key, and those whose cancelling was
        self.kinds: dict[str, str] = {}
        self.key_of: dict[str, int] = {}
        self.cancelled_first: set[str] = set()
        self.began: Counter[int] = Counter()
        define = self.world.define
        define("app:apply", "mutation", self._apply)
        define("app:failing", "mutation", self._failing)
        define("app:act", "action", self._act)
        define("app:slow", "action", self._slow)
        define("app:schedule", "mutation", self._schedule)
        define("app:cancel", "mutation", self._cancel)

    async def _apply(self, function: Function, args: Any) -> Any:
        await function.call("1.0/insert", table="applied", value={"key": args["key"]})

    async def _failing(self, function: Function, args: Any) -> Any:
        await self._apply(function, args)
        raise ScriptError("no")

    async def _act(self, function: Function, args: Any) -> Any:
        self.began[args["key"]] += 1
        await function.call("1.0/actions/mutation", name="app:apply", args=args)

    async def _slow(self, function: Function, args: Any) -> Any:
        self.began[args["key"]] += 1
        await function.pause()
        await function.call("1.0/actions/mutation", name="app:apply", args=args)

    async def _schedule(self, function: Function, args: Any) -> Any:
        ts = args["now"] + args["delay"]
        return await function.call("1.0/schedule", name=args["name"], ts=ts, args={"key": args["key"]})

    async def _cancel(self, function: Function, args: Any) -> Any:
        before = await function.call("1.0/get", id=args["id"], isSystem=True)
        await function.call("1.0/cancel_job", id=args["id"])
        return before["state"]["kind"]

    def _call(self, path: str, **args: Any) -> Any:
        """The value of a mutation that was acknowledged; ``None`` for one that was not."""
        world = self.world
        try:
            result = run(world.mutations.run(path, json.dumps(args).encode(), ANONYMOUS, CALLER))
        except ConvexError:
            return None
        return world.value(result)

    def step(self, what: str, how: Any) -> None:
        """Do one thing."""
        world = self.world
        names = {"mutation": "app:apply", "action": "app:act", "slow action": "app:slow", "failing": "app:failing"}
        if what in names:
            self.keys += 1
            now = START_MS / 1000 + world.timers.seconds()
            job = self._call("app:schedule", name=names[what], key=self.keys, delay=how, now=now)
            if job is not None:
                self.kinds[job], self.key_of[job] = what, self.keys
        elif what == "cancel" and self.kinds:
            job = sorted(self.kinds, key=self.key_of.__getitem__)[how % len(self.kinds)]
            if self._call("app:cancel", id=job) == "pending":
                self.cancelled_first.add(job)
        elif what == "wait":
            world.advance(how, step=0.1)
        elif what == "go on" and world.pool.paused:
            world.go_on()
        elif what == "break":
            self.writes.failing = how
        elif what == "restart":
            # The store answers again; what ran is gone.
            self.writes.failing = 0
            world.pool.paused.clear()
            self.world = world.restart(options=OPTIONS)

    def check(self) -> None:
        """Let everything come to its end, and compare."""
        self.writes.failing = 0
        world = self.world
        for _ in range(40):
            world.advance(1.0, step=0.25)
            while world.pool.paused:
                world.go_on()
        applied = Counter(one["key"] for one in world.documents("applied"))
        jobs = {job["_id"]: job for job in world.jobs()}
        assert {row["state"] for row in world.rows(SCHEDULED_JOBS.name)}.isdisjoint((PENDING, RUNNING))
        assert set(self.kinds) <= set(jobs)
        for id, kind in self.kinds.items():
            key, state = self.key_of[id], jobs[id]["state"]["kind"]
            if kind == "mutation":
                assert state in ("success", "canceled")
                assert applied[key] == (1 if state == "success" else 0), (state, applied[key])
            elif kind == "failing":
                assert state in ("failed", "canceled") and applied[key] == 0
            else:
                assert state in ("success", "failed", "canceled")
                assert self.began[key] <= 1 and applied[key] <= 1
                if state == "success":
                    assert self.began[key] == applied[key] == 1
            if id in self.cancelled_first:
                assert state == "canceled" and applied[key] == 0 and self.began[key] == 0


@settings(max_examples=40, deadline=None)
@given(st.lists(STEP, min_size=5, max_size=30))
@example(
    [
        ("cancel", 17),
        ("mutation", 2.0),
        ("mutation", 2.0),
        ("failing", 0.0),
        ("slow action", 0.3),
        ("wait", 1.5),
        ("restart", 0),
        ("action", 0.0),
        ("action", 2.0),
        ("break", 4),
        ("cancel", 27),
        ("break", 4),
        ("restart", 0),
        ("wait", 0.5),
    ]
)
# Held from 0.3 s to 0.8 s, which eight steps of a tenth do not quite reach.
@example([("mutation", 0.3), ("break", 4), ("wait", 1.5)])
def test_exactly_once_and_at_most_once(steps: list[tuple[str, Any]]) -> None:
    """Jobs that are added, cancelled and run while commits fail and the server restarts: the counts hold, and nothing is left behind."""
    model = Model()
    for what, how in steps:
        model.step(what, how)
    model.check()


def test_a_call_of_an_action_is_no_job() -> None:
    """An action that a client calls schedules on nobody's behalf: its jobs run."""
    model = Model()
    world = model.world

    async def act(function: Function, args: Any) -> Any:
        ts = START_MS / 1000
        return await function.call("1.0/actions/schedule", name="app:apply", ts=ts, args={"key": 1})

    world.define("app:direct", "action", act)
    facade: Any = world
    run(run_action(facade, "app:direct", b"{}", ANONYMOUS, CALLER))
    world.advance(1)
    assert world.states() == ["success"]
