"""Scheduled functions and cron jobs as dashboards and administrators see them, also in components."""

from __future__ import annotations

from typing import Any

import pytest

from convex_backend.application import scheduled_jobs
from convex_backend.application.calls import Target
from convex_backend.application.job_admin import JobAdmin, WantedJobs
from convex_backend.application.system_functions.jobs import FUNCTIONS
from convex_backend.application.system_functions.registry import SystemCall
from convex_backend.application.types import Identity
from convex_backend.database.query.cursor import InvalidCursor
from convex_backend.database.system_tables import COMPONENTS, SCHEDULED_JOBS
from convex_backend.errors import BadRequest, Forbidden
from convex_backend.values.paths import FunctionPath
from tests.application.job_support import JobWorld
from tests.application.test_scheduler import later, note, schedule
from tests.database.documents import run

ADMIN = Identity("admin")
VIEWER = Identity("admin", read_only=True)
BY_NAME = {function.name: function for function in FUNCTIONS}


@pytest.fixture
def world() -> JobWorld:
    """A world with a mutation ``app:note`` and one that schedules it."""
    made = JobWorld()
    made.define("app:note", "mutation", note)
    made.define("app:other", "mutation", note)
    return made


def plan(world: JobWorld, count: int, name: str = "app:note", start: float = 100.0) -> list[str]:
    """Jobs that are due one second after the other."""
    ids = []
    for n in range(count):
        world.define("app:start", "mutation", schedule(name, start + n, text=str(n)))
        ids.append(world.value(world.mutate("app:start")))
    return ids


class _Services:
    """What these functions need of ``SystemServices``."""

    def __init__(self, world: JobWorld) -> None:
        self.directory = world.directory
        self.seal = world.services.calls.seal
        self.unseal = world.services.calls.unseal


def ask(world: JobWorld, name: str, **args: Any) -> Any:
    """The value of a system query."""
    services: Any = _Services(world)
    transaction = world.db.begin("query")
    try:
        run(transaction.ensure_begun())
        call = SystemCall(transaction, services, ADMIN, args)
        return run(BY_NAME[f"_system/frontend/{name}"].run(call))
    finally:
        transaction.close()


def pages(world: JobWorld, size: int, **args: Any) -> list[list[str]]:
    """Ids by page."""
    found: list[list[str]] = []
    cursor: str | None = None
    while True:
        options = {"cursor": cursor, "numItems": float(size)}
        page = ask(world, "paginatedScheduledJobs", paginationOpts=options, **args)
        found.append([job["_id"] for job in page["page"]])
        cursor = page["continueCursor"]
        if page["isDone"]:
            assert (
                ask(world, "paginatedScheduledJobs", paginationOpts={**options, "cursor": cursor}, **args)["page"] == []
            )
            return found
        assert len(found) < 20


def test_pages_of_jobs(world: JobWorld) -> None:
    """Pending and running jobs come by due time, page by page; those that have ended do not."""
    ids = plan(world, 7)
    others = plan(world, 2, "app:other", start=50.0)
    done = plan(world, 1, start=0.0)
    world.advance(1)
    assert [id for page in pages(world, 3) for id in page] == [*others, *ids]
    assert [len(page) for page in pages(world, 3)][:3] == [3, 3, 3]
    assert pages(world, 100, udfPath="app.js:other") == [others]
    assert done[0] not in {id for page in pages(world, 100) for id in page}


def test_a_job_as_it_is_listed(world: JobWorld) -> None:
    """Its members: time in nanoseconds, arguments as bytes of their JSON text."""
    (id,) = plan(world, 1)
    (job,) = ask(world, "paginatedScheduledJobs", paginationOpts={"cursor": None, "numItems": 5.0})["page"]
    assert job.pop("_creationTime") == world.jobs()[0]["_creationTime"]
    assert job == {
        "_id": id,
        "nextTs": round(later(100) * 1_000_000) * 1000,
        "udfPath": "app.js:note",
        "state": {"type": "pending"},
        "udfArgs": b'[{"text":"0"}]',
        "argsId": None,
    }
    args = ask(world, "scheduler:getArgs", argsId=id)
    assert args["_id"] == id and args["args"] == b'[{"text":"0"}]'
    assert ask(world, "scheduler:getArgs", argsId="nothing") is None


def test_a_page_can_be_read_again(world: JobWorld) -> None:
    """With an end cursor a page is the whole interval, whatever has come into it since."""
    ids = plan(world, 4)
    first = ask(world, "paginatedScheduledJobs", paginationOpts={"cursor": None, "numItems": 2.0})
    early = plan(world, 1, start=10.0)
    again = {"cursor": None, "numItems": 2.0, "endCursor": first["continueCursor"]}
    assert [job["_id"] for job in ask(world, "paginatedScheduledJobs", paginationOpts=again)["page"]] == [
        *early,
        *ids[:2],
    ]
    with pytest.raises(InvalidCursor):
        ask(world, "paginatedScheduledJobs", paginationOpts={"cursor": "nonsense", "numItems": 2.0})


def test_cron_jobs_are_listed(world: JobWorld) -> None:
    """Each cron job with its last and its next run; a running one is in progress."""

    async def slow(function: Any, args: Any) -> Any:
        await function.pause()

    world.define("app:slow", "action", slow)
    world.push_crons(
        {
            "a": {"path": "app.js:note", "schedule": {"type": "interval", "seconds": 60}, "args": {"text": "x"}},
            "b": {"path": "app.js:slow", "schedule": {"type": "interval", "seconds": 60}},
        }
    )
    world.advance(1)
    first, second = ask(world, "listCronJobs")
    assert first["name"] == "a" and first["cronSpec"]["udfArgs"] == b'[{"text": "x"}]'
    assert first["cronSpec"]["cronSchedule"] == {"type": "interval", "seconds": 60}
    assert first["lastRun"]["status"]["type"] == "success" and "component" not in first["lastRun"]
    coming = first["nextRun"]
    assert coming["cronJobId"] == first["_id"] and coming["state"] == {"type": "pending"}
    assert coming["nextTs"] - coming["prevTs"] == 60_000_000_000
    assert second["lastRun"] is None and second["nextRun"]["state"] == {"type": "inProgress"}
    assert [one["name"] for one in ask(world, "listCronJobRuns")] == ["a"]


def test_cancel_by_an_administrator(world: JobWorld) -> None:
    """One job is cancelled by its id; an unknown one is an error; a read-only key may not."""
    admin = JobAdmin(world.services)
    first, second = plan(world, 2)
    run(admin.cancel(first, None, ADMIN))
    assert world.states() == ["canceled", "pending"]
    with pytest.raises(BadRequest, match="There is no scheduled function with ID nope"):
        run(admin.cancel("nope", None, ADMIN))
    with pytest.raises(BadRequest, match="There is no component with ID nope"):
        run(admin.cancel(second, "nope", ADMIN))
    for refused in (admin.cancel(second, None, VIEWER), admin.cancel_all(WantedJobs(), VIEWER), admin.pause(VIEWER)):
        with pytest.raises(Forbidden):
            run(refused)
    assert world.states() == ["canceled", "pending"]


def test_cancel_all_in_steps(world: JobWorld) -> None:
    """All jobs of a function, or of a time, are cancelled, more than one transaction takes; the others stay."""
    admin = JobAdmin(world.services)

    async def many(function: Any, args: Any) -> Any:
        for n in range(450):
            await function.call("1.0/schedule", name="app:note", ts=later(100 + n), args={})

    world.define("app:many", "mutation", many)
    world.mutate("app:many")
    plan(world, 1, "app:other")
    due = round(later(0) * 1e9)
    wanted = WantedJobs(start_ns=due + 100_500_000_000, end_ns=due + 110_500_000_000)
    assert run(admin.cancel_all(wanted, ADMIN)) == 10
    assert run(admin.cancel_all(WantedJobs(path="app:note"), ADMIN)) == 440
    assert world.states().count("canceled") == 450 and world.states()[-1] == "pending"


def test_delete_all(world: JobWorld) -> None:
    """Every job of a component is deleted, whatever its state; a running action ends without a trace."""

    async def slow(function: Any, args: Any) -> Any:
        await function.pause()

    admin = JobAdmin(world.services)
    world.define("app:slow", "action", slow)
    plan(world, 1, "app:slow", start=0.0)
    plan(world, 3)
    world.advance(1)
    assert "inProgress" in world.states()
    run(admin.delete_all(None, ADMIN))
    assert world.jobs() == [] and world.rows(SCHEDULED_JOBS.name) == []
    world.go_on()
    world.advance(200, step=50)
    assert world.jobs() == []
    world.stop()


def test_jobs_belong_to_the_component_that_schedules(world: JobWorld) -> None:
    """A job's document is in its own component, which alone may cancel it; the function may be another component's."""
    transaction = world.db.begin("system")
    component = {"component": 7, "path": "child", "parent": 0, "name": "child", "state": "active"}
    run(transaction.system.insert(COMPONENTS.name, component))
    id = run(
        scheduled_jobs.add(
            transaction,
            component=7,
            target=0,
            path=FunctionPath.parse("app:note"),
            args=[{"text": "from the child"}],
            due_ns=round(later(5) * 1e9),
            now_ns=0,
            canceled=False,
        )
    )
    run(world.db.commit(transaction))
    assert world.jobs() == []
    transaction = world.db.begin("mutation")
    assert run(world.scheduling.cancel(transaction, 0, id)) is False
    transaction.close()
    admin = JobAdmin(world.services)
    assert run(admin.cancel_all(WantedJobs(), ADMIN)) == 0
    world.advance(6)
    assert [one["text"] for one in world.documents("notes")] == ["from the child"]
    transaction = world.db.begin("query")
    document = run(transaction.virtual.get(7, "_scheduled_functions", id))
    transaction.close()
    assert document is not None and document["state"] == {"kind": "success"}
    run(admin.cancel_all(WantedJobs(component_path="child"), ADMIN))


def test_targets_are_not_open_to_clients() -> None:
    """The names are those of the specification, and a target of one of them is a system function."""
    assert set(BY_NAME) == {
        "_system/frontend/deploymentState:deploymentState",
        "_system/frontend/backendState:backendState",
        "_system/frontend/paginatedScheduledJobs",
        "_system/frontend/scheduler:getArgs",
        "_system/frontend/listCronJobs",
        "_system/frontend/listCronJobRuns",
    }
    assert all(Target(FunctionPath.parse(name), "", True).path.is_system for name in BY_NAME)
