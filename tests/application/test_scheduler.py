"""Scheduled functions: what users see of them, when they run, and how often."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from convex_backend.application import deployment_state
from convex_backend.application.deployment_state import PAUSED_TEXT
from convex_backend.application.scheduler import TRANSIENT_TEXT
from convex_backend.application.scheduler_options import Backoff, SchedulerOptions
from convex_backend.application.types import ANONYMOUS, Caller, Identity, QuerySpec
from convex_backend.database.system_tables import SCHEDULED_JOBS
from convex_backend.deferreds import from_coroutine
from convex_backend.errors import BadRequest, OccConflict, StorageFailed
from tests.application.job_support import START_MS, JobWorld
from tests.application.support import CALLER, Function, ScriptError
from tests.database.documents import run


def later(seconds: float) -> float:
    """``ts`` of a job that many seconds after the start of the world."""
    return START_MS / 1000 + seconds


async def note(function: Function, args: Any) -> None:
    """A function that leaves a document."""
    await function.call("1.0/insert", table="notes", value={"text": args.get("text", "")})


def schedule(name: str, seconds: float = 0.0, **args: Any) -> Any:
    """A script that schedules *name* and returns the id."""

    async def script(function: Function, given: Any) -> Any:
        op = "1.0/schedule" if function.host.kind == "mutation" else "1.0/actions/schedule"
        return await function.call(op, name=name, ts=later(seconds), args=args)

    return script


@pytest.fixture
def world() -> JobWorld:
    """A world with a mutation ``app:note``."""
    made = JobWorld()
    made.define("app:note", "mutation", note)
    return made


def texts(world: JobWorld) -> list[str]:
    """What has been noted, in order."""
    return [one["text"] for one in sorted(world.documents("notes"), key=lambda one: one["_creationTime"])]


def test_life_of_a_mutation(world: JobWorld) -> None:
    """A job is pending until it is due and success afterwards; its document has exactly the members that users see."""
    world.define("app:start", "mutation", schedule("app:note", 5, text="hello"))
    job = world.value(world.mutate("app:start"))
    (pending,) = world.jobs()
    assert pending == {
        "_id": job,
        "_creationTime": pending["_creationTime"],
        "name": "app.js:note",
        "args": [{"text": "hello"}],
        "scheduledTime": round(later(5) * 1_000_000) / 1000,
        "state": {"kind": "pending"},
    }
    world.advance(4.9)
    assert texts(world) == []
    world.advance(0.2, step=0.05)
    assert texts(world) == ["hello"]
    (done,) = world.jobs()
    completed = done.pop("completedTime")
    assert done == {**pending, "state": {"kind": "success"}}
    assert START_MS + 4999 <= completed <= START_MS + 5201


def test_scheduled_time_is_the_one_asked_for(world: JobWorld) -> None:
    """``runAt(t)`` in whole milliseconds gives ``scheduledTime === t``, although seconds as floats are not exact."""
    asked = 1_700_000_123_457.0

    async def start(function: Function, args: Any) -> Any:
        return await function.call("1.0/schedule", name="app:note", ts=asked / 1000, args={})

    world.define("app:start", "mutation", start)
    world.mutate("app:start")
    assert world.jobs()[0]["scheduledTime"] == asked


def test_a_failed_mutation_schedules_nothing(world: JobWorld) -> None:
    """What a mutation schedules is rolled back with it."""

    async def start(function: Function, args: Any) -> Any:
        await function.call("1.0/schedule", name="app:note", ts=later(0), args={})
        raise ScriptError("no")

    world.define("app:start", "mutation", start)
    assert world.mutate("app:start").error is not None
    world.advance(1)
    assert world.jobs() == [] and texts(world) == []


def test_a_failed_nested_mutation_schedules_nothing(world: JobWorld) -> None:
    """The jobs of a nested mutation are rolled back with its writes, those of the parent stay."""

    async def inner(function: Function, args: Any) -> Any:
        await function.call("1.0/schedule", name="app:note", ts=later(0), args={"text": "inner"})
        raise ScriptError("no")

    async def outer(function: Function, args: Any) -> Any:
        await function.call("1.0/schedule", name="app:note", ts=later(0), args={"text": "outer"})
        with pytest.raises(Exception, match="no"):
            await function.call("1.0/runUdf", udfType="mutation", name="app:inner", args={})

    world.define("app:inner", "mutation", inner)
    world.define("app:outer", "mutation", outer)
    world.value(world.mutate("app:outer"))
    world.advance(1)
    assert texts(world) == ["outer"]


def test_a_job_sees_itself_in_progress(world: JobWorld) -> None:
    """The running mutation sees its job as in progress, everybody else as pending."""
    seen: dict[str, Any] = {}

    async def look(function: Function, args: Any) -> Any:
        id = seen["id"] = (await function.call("1.0/getRequestMetadata"))["scheduledFunctionId"]
        seen["inside"] = (await function.call("1.0/get", id=id, isSystem=True))["state"]
        seen["outside"] = world.states()

    world.define("app:look", "mutation", look)
    world.define("app:start", "mutation", schedule("app:look"))
    job = world.value(world.mutate("app:start"))
    world.advance(0.1)
    assert seen == {"id": job, "inside": {"kind": "inProgress"}, "outside": ["pending"]}
    assert world.states() == ["success"]


def test_order_is_by_time_then_by_insertion() -> None:
    """One after the other, jobs start in the order of their times, and of their insertion when these are equal."""
    world = JobWorld(SchedulerOptions(parallelism=1))
    world.define("app:note", "mutation", note)

    async def start(function: Function, args: Any) -> Any:
        for seconds, text in ((2, "d"), (1, "a"), (1, "b"), (1, "c"), (3, "e")):
            await function.call("1.0/schedule", name="app:note", ts=later(seconds), args={"text": text})

    world.define("app:start", "mutation", start)
    world.mutate("app:start")
    world.advance(10, step=10)
    assert texts(world) == ["a", "b", "c", "d", "e"]


def test_own_error_fails_the_job(world: JobWorld) -> None:
    """A mutation that throws leaves no writes; its job is failed with the rendered text, and is not tried again."""
    runs = []

    async def bad(function: Function, args: Any) -> Any:
        runs.append(1)
        await note(function, {"text": "lost"})
        raise ScriptError("boom")

    world.define("app:bad", "mutation", bad)
    world.define("app:start", "mutation", schedule("app:bad"))
    world.mutate("app:start")
    world.advance(100, step=10)
    (job,) = world.jobs()
    assert job["state"] == {"kind": "failed", "error": "Uncaught Error: boom\n"}
    assert "completedTime" in job and runs == [1] and texts(world) == []


def test_arguments_are_checked_when_it_runs(world: JobWorld) -> None:
    """Arguments are not validated at schedule time: the job fails with the validator's text."""
    world.define("app:strict", "mutation", note, args='{"type":"object","value":{}}')
    world.define("app:start", "mutation", schedule("app:strict", extra=1))
    world.value(world.mutate("app:start"))
    world.advance(0.1)
    error = world.jobs()[0]["state"]["error"]
    assert error.startswith("ArgumentValidationError: Object contains extra field `extra`")


def test_failure_of_the_system_is_tried_again(world: JobWorld) -> None:
    """A commit that could not be written is tried again with the back-off, and is applied once."""
    world.define("app:start", "mutation", schedule("app:note", 1, text="once"))
    world.mutate("app:start")
    write = world.persistence.write
    refused = []

    def refuse(commits: Any) -> Any:
        if len(refused) < 2:
            refused.append(world.timers.seconds())
            raise StorageFailed
        return write(commits)

    world.persistence.write = refuse  # type: ignore[method-assign]
    world.advance(20, step=0.25)
    assert texts(world) == ["once"] and world.states() == ["success"]
    # The job's commit, then the one that would have put it off: held in memory for the first step of the back-off.
    assert len(refused) == 2


def test_back_off_when_the_wall_clock_is_set_back(world: JobWorld) -> None:
    """A job that waits because nothing can be written is tried again after its back-off, whatever has become of the wall clock."""
    world.define("app:start", "mutation", schedule("app:note", 60, text="late"))
    world.mutate("app:start")
    write = world.persistence.write

    def refuse(commits: Any) -> Any:
        raise StorageFailed

    world.persistence.write = refuse  # type: ignore[method-assign]
    # In one step: it starts two hours late.
    world.timers.advance(7200)
    world.persistence.write = write  # type: ignore[method-assign]
    assert world.states() == ["pending"]
    world.clock.set_by_seconds = -3600
    world.advance(20, step=0.25)
    assert world.states() == ["success"] and texts(world) == ["late"]


def test_conflicts_are_tried_again() -> None:
    """A mutation that keeps conflicting is put off, longer each time, and its job stays pending; in the end it is applied once."""
    options = SchedulerOptions(conflict_backoff=Backoff(1.0, 4.0))
    world = JobWorld(options)
    tries: list[float] = []

    async def contended(function: Function, args: Any) -> Any:
        tries.append(world.timers.seconds())
        if world.timers.seconds() < 6:
            raise OccConflict
        await note(function, {"text": "done"})

    world.define("app:contended", "mutation", contended)
    world.define("app:start", "mutation", schedule("app:contended"))
    world.mutate("app:start")
    world.advance(0.1, step=0.05)
    assert world.states() == ["pending"]
    world.advance(20, step=0.5)
    starts = sorted(set(tries))
    assert texts(world) == ["done"] and world.states() == ["success"]
    assert [round(later - sooner) for sooner, later in itertools.pairwise(starts)] == [1, 2, 4]


def test_backoff_doubles_between_its_bounds() -> None:
    """The wait doubles with each failure, has a random half, and stays between the bounds."""
    backoff = Backoff(0.5, 7200.0)
    assert [backoff.seconds(n, 1.0) for n in range(4)] == [0.5, 1.0, 2.0, 4.0]
    assert backoff.seconds(500, 1.0) == 7200.0
    assert backoff.seconds(3, 0.0) == 2.0
    assert backoff.seconds(0, 0.0) == 0.5


def start_waiting_actions(world: JobWorld, count: int) -> list[int]:
    """Schedule so many actions that wait until they may go on. :returns: an entry for each that has begun."""
    begun: list[int] = []

    async def slow(function: Function, args: Any) -> Any:
        begun.append(1)
        await function.pause()

    async def start(function: Function, args: Any) -> Any:
        for _ in range(count):
            await function.call("1.0/schedule", name="app:slow", ts=later(0), args={})

    world.define("app:slow", "action", slow)
    world.define("app:start", "mutation", start)
    world.mutate("app:start")
    return begun


def test_at_most_so_many_at_once() -> None:
    """Eight jobs run at once by default; the next one starts when one of them ends."""
    world = JobWorld()
    running = start_waiting_actions(world, 12)
    world.advance(1)
    assert len(running) == 8 and world.states().count("inProgress") == 8
    world.go_on()
    world.advance(0.1)
    assert len(running) == 9
    while world.pool.paused:
        world.go_on()
        world.advance(0.1)
    assert world.states() == ["success"] * 12
    world.stop()


def test_action_is_in_progress_while_it_runs(world: JobWorld) -> None:
    """An action's job is in progress, for everybody, from before it starts until it has ended."""
    seen: list[Any] = []

    async def act(function: Function, args: Any) -> Any:
        seen.append(world.states())
        await function.pause()
        return None

    world.define("app:act", "action", act)
    world.define("app:start", "action", schedule("app:act"))
    world.value(world.act("app:start"))
    world.advance(0.1)
    assert seen == [["inProgress"]] and world.states() == ["inProgress"]
    world.go_on()
    assert world.states() == ["success"]


def test_action_error_fails_the_job(world: JobWorld) -> None:
    """An action that throws is failed, once and for all."""
    runs = []

    async def act(function: Function, args: Any) -> Any:
        runs.append(1)
        raise ScriptError("nope")

    world.define("app:act", "action", act)
    world.define("app:start", "action", schedule("app:act"))
    world.act("app:start")
    world.advance(60)
    assert world.jobs()[0]["state"] == {"kind": "failed", "error": "Uncaught Error: nope\n"} and runs == [1]


def test_interrupted_action_is_failed_at_start(world: JobWorld) -> None:
    """An action that was in progress when the server ended is failed at the next start and does not run again; pending jobs run."""
    runs = []

    async def act(function: Function, args: Any) -> Any:
        runs.append(1)
        await function.pause()

    world.define("app:act", "action", act)
    world.define("app:start", "action", schedule("app:act"))
    world.define("app:more", "mutation", schedule("app:note", 10, text="later"))
    world.act("app:start")
    world.mutate("app:more")
    world.advance(1)
    after = world.restart()
    after.advance(20)
    assert [job["state"] for job in after.jobs()] == [
        {"kind": "failed", "error": TRANSIENT_TEXT},
        {"kind": "success"},
    ]
    assert runs == [1] and texts(after) == ["later"]


def test_end_of_an_action_is_written_down_whatever_happens(world: JobWorld) -> None:
    """An action has run once although its end could not be stored at first: it is not run again, and its end is stored later."""
    runs = []

    async def act(function: Function, args: Any) -> Any:
        runs.append(1)
        await function.pause()

    world.define("app:act", "action", act)
    world.define("app:start", "action", schedule("app:act"))
    world.act("app:start")
    world.advance(0.1)
    write = world.persistence.write

    def refuse(commits: Any) -> Any:
        raise StorageFailed

    world.persistence.write = refuse  # type: ignore[method-assign]
    world.go_on()
    world.advance(3)
    world.persistence.write = write  # type: ignore[method-assign]
    assert world.states() == ["inProgress"]
    world.advance(3)
    assert world.states() == ["success"] and runs == [1]


def cancel(op: str) -> Any:
    """A script that cancels ``args.id``."""

    async def script(function: Function, args: Any) -> Any:
        return await function.call(op, id=args["id"])

    return script


@pytest.mark.parametrize("kind", ["mutation", "action"])
def test_cancel_pending(world: JobWorld, kind: str) -> None:
    """A pending job that is cancelled, from a mutation or an action, never runs; a second cancel changes nothing."""
    world.define("app:start", "mutation", schedule("app:note", 5))
    op = "1.0/cancel_job" if kind == "mutation" else "1.0/actions/cancel_job"
    world.define("app:cancel", kind, cancel(op))
    job = world.value(world.mutate("app:start"))
    call = world.mutate if kind == "mutation" else world.act
    assert world.value(call("app:cancel", id=job)) is None
    world.advance(10)
    (canceled,) = world.jobs()
    assert canceled["state"] == {"kind": "canceled"} and "completedTime" in canceled and texts(world) == []
    assert world.value(call("app:cancel", id=job)) is None
    assert world.jobs() == [canceled]


def test_cancel_completed_has_no_effect(world: JobWorld) -> None:
    """A job that has ended stays as it is."""
    world.define("app:start", "mutation", schedule("app:note"))
    world.define("app:cancel", "mutation", cancel("1.0/cancel_job"))
    job = world.value(world.mutate("app:start"))
    world.advance(1)
    before = world.jobs()
    world.value(world.mutate("app:cancel", id=job))
    assert world.jobs() == before and world.states() == ["success"]


def test_cancel_with_other_ids(world: JobWorld) -> None:
    """What is no id, or one of another table, is refused with the texts of the client's calls."""
    world.define("app:cancel", "mutation", cancel("1.0/cancel_job"))
    world.mutate("app:note")
    other = world.documents("notes")[0]["_id"]
    error = world.mutate("app:cancel", id="xyz").error
    assert error is not None
    assert "Invalid argument `id` for `db.cancel_job`: Unable to decode ID: Invalid ID length 3" in error.message
    error = world.mutate("app:cancel", id=other).error
    assert error is not None
    assert 'expected to be an Id<"_scheduled_functions">, got Id<"notes"> instead.' in error.message


def test_children_of_a_cancelled_action(world: JobWorld) -> None:
    """A cancelled action runs on; what it schedules afterwards, itself or through what it calls, is cancelled from the start."""

    async def act(function: Function, args: Any) -> Any:
        await function.call("1.0/actions/schedule", name="app:note", ts=later(0), args={"text": "before"})
        await function.pause()
        await function.call("1.0/actions/schedule", name="app:note", ts=later(0), args={"text": "after"})
        await function.call("1.0/actions/mutation", name="app:child", args={})
        await function.call("1.0/actions/action", name="app:grandchild", args={})
        await function.call("1.0/actions/mutation", name="app:note", args={"text": "ran on"})

    world.define("app:act", "action", act)
    world.define("app:child", "mutation", schedule("app:note", text="by a mutation"))
    world.define("app:grandchild", "action", schedule("app:note", text="by an action"))
    world.define("app:start", "action", schedule("app:act"))
    world.define("app:cancel", "mutation", cancel("1.0/cancel_job"))
    job = world.value(world.act("app:start"))
    world.advance(0.1)
    world.mutate("app:cancel", id=job)
    world.go_on()
    world.advance(5)
    assert texts(world) == ["before", "ran on"]
    assert world.states() == ["canceled", "success", "canceled", "canceled", "canceled"]
    assert all("completedTime" in one for one in world.jobs())


async def cancel_itself(function: Function, args: Any) -> Any:
    """A scheduled mutation that cancels its own job, then schedules and writes."""
    me = (await function.call("1.0/getRequestMetadata"))["scheduledFunctionId"]
    await function.call("1.0/cancel_job", id=me)
    await function.call("1.0/schedule", name="app:note", ts=later(1), args={"text": "again"})
    await note(function, {"text": "kept"})


def test_self_cancel(world: JobWorld) -> None:
    """A mutation that cancels itself ends as canceled, keeps its writes and schedules, and a warning is logged."""
    world.define("app:self", "mutation", cancel_itself)
    world.define("app:start", "mutation", schedule("app:self"))
    world.mutate("app:start")
    world.advance(5)
    assert texts(world) == ["kept", "again"] and world.states() == ["canceled", "success"]
    entries, _ = run(world.log.read(0.0, 0.0, structured=False))
    lines = [entry["logLines"] for entry in entries if entry["identifier"] == "app:self"]
    assert len(lines) == 1 and lines[0][0].startswith("[WARN] A scheduled mutation has canceled itself.")


def test_self_cancel_is_refused_to_newer_packages(world: JobWorld) -> None:
    """From npm 1.50 on the call throws, and the job fails unless that is caught."""
    world.directory.npm_version = "1.50.0"
    world.define("app:self", "mutation", cancel_itself)
    world.define("app:start", "mutation", schedule("app:self"))
    world.mutate("app:start")
    world.advance(5)
    (job,) = world.jobs()
    assert job["state"]["kind"] == "failed" and texts(world) == []


def test_nobodys_identity(world: JobWorld) -> None:
    """A scheduled function has no user, whoever scheduled it, and internal functions may be scheduled."""
    seen: list[Any] = []

    async def who(function: Function, args: Any) -> Any:
        seen.append(await function.call("1.0/getUserIdentity", requestId=""))

    world.define("app:who", "mutation", who, visibility="internal")
    world.define("app:start", "mutation", schedule("app:who"))
    user = Identity("user", (("subject", "me"),))
    run(world.mutations.run("app:start", b"{}", user, CALLER))
    world.advance(0.1)
    assert seen == [None]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ({"name": "nowhere:f"}, "Attempted to schedule function at nonexistent path: nowhere"),
        (
            {"name": "app:gone"},
            "Attempted to schedule function, but no exported function gone found in the file: app.js. "
            "Did you forget to export it?",
        ),
        ({"name": "_system/cli/tables"}, "Attempted to schedule function at nonexistent path: _system/cli/tables"),
        ({"name": "app:note", "ts": later(6 * 366 * 86400)}, "is more than 5 years in the future"),
        ({"name": "app:note", "ts": later(-6 * 366 * 86400)}, "is more than 5 years in the past"),
        ({"name": "app:note", "ts": 1e300}, "is more than 5 years in the future"),
        ({"name": "app:note", "ts": "soon"}, "Invalid argument `ts` for `scheduler`: expected a number"),
        ({}, "Invalid arguments for `scheduler`: Missing required argument 'name'"),
        ({"name": "app:note", "args": {"a": {"$integer": 3}}}, "Invalid argument `args` for `scheduler`: "),
    ],
)
def test_what_cannot_be_scheduled(world: JobWorld, args: dict[str, Any], text: str) -> None:
    """A target that does not exist, a time too far away and malformed arguments are refused at once, in these words."""

    async def start(function: Function, _: Any) -> Any:
        await function.call("1.0/schedule", **{"ts": later(0), "args": {}, **args})

    with pytest.raises(BadRequest) as raised:
        run(_raising(world, start))
    assert text in str(raised.value)
    assert world.jobs() == []


async def _raising(world: JobWorld, script: Any) -> None:
    """Run a mutation whose syscall errors are raised here."""
    caught: list[Exception] = []

    async def guarded(function: Function, args: Any) -> Any:
        try:
            await script(function, args)
        except Exception as error:
            caught.append(error)

    world.define("app:guarded", "mutation", guarded)
    await world.mutations.run("app:guarded", b"{}", ANONYMOUS, CALLER)
    if caught:
        raise caught[0]


def test_a_query_is_accepted_and_then_fails(world: JobWorld) -> None:
    """Only mutations and actions can run; that is said when the time has come."""
    world.define("app:ask", "query", note)
    world.define("app:start", "mutation", schedule("app:ask"))
    world.value(world.mutate("app:start"))
    world.advance(0.1)
    assert world.jobs()[0]["state"]["error"].startswith("Unsupported function type. ")


def test_a_function_that_is_gone_fails_its_job(world: JobWorld) -> None:
    """What a push has removed meanwhile cannot run."""
    world.define("app:start", "mutation", schedule("app:note", 5))
    world.mutate("app:start")
    del world.directory.functions["app.js:note"]
    world.advance(6)
    assert world.jobs()[0]["state"]["error"].startswith("Could not find function for 'app:note'")


def test_limits_of_a_mutation(world: JobWorld) -> None:
    """A thousand jobs may be scheduled by one mutation, one more is refused in words; it counts in the metrics."""
    seen: list[Any] = []

    async def start(function: Function, args: Any) -> Any:
        for _ in range(1000):
            await function.call("1.0/schedule", name="app:note", ts=later(1000), args={"text": "x"})
        seen.append((await function.call("1.0/getTransactionMetrics"))["functionsScheduled"])
        await function.call("1.0/schedule", name="app:note", ts=later(1000), args={})

    with pytest.raises(Exception, match=r"Too many functions scheduled by this mutation \(limit: 1000\)"):
        run(_raising(world, start))
    assert seen == [{"used": 1000, "remaining": 0}]
    assert len(world.jobs()) == 1000


def test_paused_deployment(world: JobWorld) -> None:
    """While the deployment is paused no job starts and calls are refused; what became due meanwhile runs after it is resumed."""
    world.define("app:start", "mutation", schedule("app:note", 5, text="waited"))
    world.mutate("app:start")
    run(deployment_state.pause(world.db))
    world.advance(10)
    assert world.states() == ["pending"]
    refused = world.mutate("app:start")
    assert refused.error is not None and refused.error.message == PAUSED_TEXT
    run(deployment_state.resume(world.db))
    world.advance(1)
    assert world.states() == ["success"] and texts(world) == ["waited"]
    with pytest.raises(Exception, match="Deployment is not currently paused"):
        run(deployment_state.resume(world.db))


def test_paused_queries_recover(world: JobWorld) -> None:
    """A query is refused while the deployment is paused and gives its value again afterwards; the pause is part of what it read."""

    async def ask(function: Function, args: Any) -> Any:
        return 7

    world.define("app:ask", "query", ask)
    key = world.queries.key(_spec("app:ask"), ANONYMOUS)
    caller = Caller("HttpApi", "npm", None, "0" * 16)
    first = run(world.queries.run(key, ANONYMOUS, caller, None))
    stale: list[int] = []
    world.db.subscribe(first.reads, first.ts, stale.append)  # type: ignore[arg-type]
    run(deployment_state.pause(world.db))
    assert len(stale) == 1
    paused = run(world.queries.run(key, ANONYMOUS, caller, None))
    assert paused.error is not None and paused.error.message == PAUSED_TEXT
    world.db.subscribe(paused.reads, paused.ts, stale.append)  # type: ignore[arg-type]
    run(deployment_state.resume(world.db))
    assert len(stale) == 2
    assert run(world.queries.run(key, ANONYMOUS, caller, None)).value == b"7"


def _spec(path: str) -> QuerySpec:
    return QuerySpec(path, b"[{}]", None, None)


def test_the_pause_outlives_a_restart(world: JobWorld) -> None:
    """A paused deployment is still paused after a restart."""
    world.define("app:start", "mutation", schedule("app:note", 1))
    world.mutate("app:start")
    run(deployment_state.pause(world.db))
    after = world.restart()
    after.advance(5)
    assert after.states() == ["pending"]
    run(deployment_state.resume(after.db))
    after.advance(1)
    assert after.states() == ["success"]


def test_ended_jobs_are_deleted_in_steps(world: JobWorld) -> None:
    """Jobs are kept for seven days after their end, then deleted with all that belongs to them; pending ones stay."""

    async def start(function: Function, args: Any) -> Any:
        for _ in range(450):
            await function.call("1.0/schedule", name="app:note", ts=later(0), args={})
        await function.call("1.0/schedule", name="app:note", ts=later(30 * 86400), args={})

    world.define("app:start", "mutation", start)
    world.mutate("app:start")
    world.advance(60)
    assert world.states().count("success") == 450
    world.advance(7 * 86400 - 120, step=3600)
    assert len(world.jobs()) == 451
    world.advance(300, step=60)
    assert world.states() == ["pending"]
    assert len(world.rows(SCHEDULED_JOBS.name)) == 1
    world.stop()


def test_lag_is_measured(world: JobWorld) -> None:
    """The lag is the age of the oldest job that is due and does not run; a start observes how late it was."""
    start_waiting_actions(world, 9)
    world.advance(10)
    lag = world.registry.get_sample_value("convex_scheduler_lag_seconds")
    assert lag is not None and 9.9 <= lag <= 10.1
    while world.pool.paused:
        world.go_on()
        world.advance(0.1)
    assert world.registry.get_sample_value("convex_scheduler_lag_seconds") == 0.0
    assert world.registry.get_sample_value("convex_scheduler_start_lag_seconds_count") == 9.0
    assert world.registry.get_sample_value("convex_scheduler_jobs_total", {"outcome": "success"}) == 9.0


def test_stop_waits_for_what_runs(world: JobWorld) -> None:
    """A stop starts nothing more and ends when the running job has; cut off, an action's job is failed at the next start."""

    async def slow(function: Function, args: Any) -> Any:
        await function.pause()

    world.define("app:slow", "action", slow)
    world.define("app:start", "mutation", schedule("app:slow"))
    world.define("app:more", "mutation", schedule("app:note", 2))
    world.mutate("app:start")
    world.mutate("app:more")
    world.advance(1)
    stopped = from_coroutine(world.scheduler.stop())
    world.advance(5)
    assert not stopped.called and world.states() == ["inProgress", "pending"]
    world.go_on()
    assert stopped.called and world.states() == ["success", "pending"]


def test_stop_that_is_cut_off(world: JobWorld) -> None:
    """When the time for the stop is over, running actions are cancelled; the next start fails them."""

    async def slow(function: Function, args: Any) -> Any:
        await function.pause()

    world.define("app:slow", "action", slow)
    world.define("app:start", "mutation", schedule("app:slow"))
    world.mutate("app:start")
    world.advance(1)
    stopped = from_coroutine(world.scheduler.stop())
    stopped.addErrback(lambda _: None)
    stopped.cancel()
    assert stopped.called and world.states() == ["inProgress"]
    after = world.restart()
    after.advance(1)
    assert after.jobs()[0]["state"] == {"kind": "failed", "error": TRANSIENT_TEXT}
