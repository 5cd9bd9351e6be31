"""Background work with components from npm: workpool, workflow, action-retrier, action-cache, crons."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.components.conftest import deployed, until
from tests.e2e.harness import Server, convex

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def background(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The app ``background``, deployed."""
    with deployed(tmp_path_factory, "background") as server:
        yield server


def events(server: Server, key: str, count: int) -> list[list[Any]]:
    """What happened to *key*, when *count* things have."""
    rows: list[list[Any]] = until(
        lambda: server.value("query", "events:of", {"key": key}), lambda found: len(found) >= count
    )
    return rows


# -- @convex-dev/workpool -------------------------------------------------------------------------------


def test_pool_retries_actions(background: Server) -> None:
    """A failing action is tried again with back-off until it succeeds, its completion runs once with the result, its status ends."""
    work = background.value("mutation", "pools:retried", {"key": "retried", "failures": 2.0, "retry": True})
    assert events(background, "retried", 4) == [
        ["attempt", None],
        ["attempt", None],
        ["attempt", None],
        ["success", "done at 3"],
    ]
    until(lambda: background.value("query", "pools:status", {"id": work})["state"], lambda state: state == "finished")


def test_pool_gives_up(background: Server) -> None:
    """Without retries, after too many, or after a ``NonRetryableError``, the completion gets the failure with its text."""
    background.value("mutation", "pools:retried", {"key": "once", "failures": 9.0, "retry": False})
    background.value("mutation", "pools:retried", {"key": "often", "failures": 9.0, "retry": True})
    background.value("mutation", "pools:notRetried", {"key": "hopeless"})
    assert [what for what, _ in events(background, "often", 5)] == ["attempt"] * 4 + ["failed"]
    once = events(background, "once", 2)
    assert [what for what, _ in once] == ["attempt", "failed"]
    assert "attempt 1 failed" in once[1][1]
    hopeless = events(background, "hopeless", 2)
    assert [what for what, _ in hopeless] == ["attempt", "failed"]
    assert "no use" in hopeless[1][1]


def test_pool_runs_queries_and_mutations(background: Server) -> None:
    """A query's value reaches its completion; a batch from an action in a pool of one runs one by one; a rolled back enqueue runs nothing."""
    assert background.call("mutation", "pools:rolledBack", {"key": "rolled"})["status"] == "error"
    background.value("mutation", "pools:asked", {"key": "asked"})
    assert events(background, "asked", 2)[1] == ["success", 1]
    assert background.value("action", "pools:many", {"key": "serial", "times": 20.0}) == 20
    assert [value for _, value in events(background, "serial", 20)] == list(range(1, 21))
    assert background.value("query", "events:of", {"key": "rolled"}) == []


def test_pool_cancels(background: Server) -> None:
    """Work that waits for its time is cancelled alone or with all others; its completion hears of it."""
    first = background.value("mutation", "pools:later", {"key": "later"})
    second = background.value("mutation", "pools:later", {"key": "later too"})
    assert background.value("query", "pools:status", {"id": first})["state"] == "pending"
    background.value("mutation", "pools:cancel", {"id": first})
    assert events(background, "later", 1) == [["canceled", None]]
    background.value("mutation", "pools:cancelAll")
    assert events(background, "later too", 1) == [["canceled", None]]
    until(lambda: background.value("query", "pools:status", {"id": second})["state"], lambda state: state == "finished")


# -- @convex-dev/workflow -------------------------------------------------------------------------------


def test_workflow_runs_to_its_end(background: Server) -> None:
    """Steps of all kinds, nested workflows in parallel, a sleep and an event: the handler's time and chance are the same in every replay."""
    flow = background.value("mutation", "flows:start", {"name": "order", "key": "bob"})
    status = until(
        lambda: background.value("query", "flows:status", {"id": flow}),
        lambda found: any(step["kind"] == "event" for step in found.get("running", [])),
    )
    assert status["type"] == "inProgress"
    background.value("mutation", "flows:approve", {"id": flow, "by": "alice"})
    status = until(
        lambda: background.value("query", "flows:status", {"id": flow}), lambda found: found["type"] != "inProgress"
    )
    assert status == {
        "type": "completed",
        "result": {"text": "HELLO BOB", "lengths": [1, 2, 3], "by": "alice", "same": True},
    }
    rows = events(background, "bob", 4)
    assert [what for what, _ in rows] == ["recorded", "inline", "recorded", "success"]
    assert rows[0][1] == rows[2][1]
    steps = background.value("query", "flows:steps", {"id": flow})
    assert [kind for _, kind in steps].count("workflow") == 3
    assert background.value("query", "flows:named", {"name": "flows:measure"}) == 3
    assert background.value("mutation", "flows:cleanup", {"id": flow}) is True
    assert background.value("mutation", "flows:cleanup", {"id": flow}) is False


def test_workflow_fails_and_is_restarted(background: Server) -> None:
    """A caught step error goes on, an uncaught one fails the workflow; a restart from that step succeeds."""
    flow = background.value("action", "flows:startInAction", {"key": "ill", "failures": 1.0})
    rows = events(background, "ill", 3)
    assert [what for what, _ in rows] == ["caught", "attempt", "failed"]
    assert "attempt 1 failed" in rows[0][1]
    assert "attempt 1 failed" in rows[2][1]
    assert background.value("query", "flows:status", {"id": flow})["type"] == "failed"
    background.value("mutation", "flows:restart", {"id": flow})
    assert events(background, "ill", 5)[3:] == [["attempt", None], ["success", None]]


def test_workflow_survives_a_restart_of_the_server(background: Server) -> None:
    """``kill -9`` while a workflow waits: it goes on afterwards; cancelling one ends it."""
    waiting = background.value("mutation", "flows:start", {"name": "order", "key": "patient"})
    forever = background.value("mutation", "flows:start", {"name": "forever", "key": "forever"})
    events(background, "patient", 2)
    events(background, "forever", 1)
    background.kill()
    background.start()
    background.value("mutation", "flows:approve", {"id": waiting, "by": "carol"})
    assert [what for what, _ in events(background, "patient", 4)] == ["recorded", "inline", "recorded", "success"]
    background.value("mutation", "flows:cancel", {"id": forever})
    assert events(background, "forever", 2)[1] == ["canceled", None]
    assert background.value("query", "flows:status", {"id": forever}) == {"type": "canceled"}


# -- @convex-dev/action-retrier -------------------------------------------------------------------------


def test_retrier(background: Server) -> None:
    """Runs are tried until they succeed or fail too often, report once, are cancelled, and are cleaned up."""
    run = background.value("mutation", "retries:run", {"key": "retrier", "failures": 2.0})
    assert events(background, run, 1) == [["success", "done at 3"]]
    assert background.value("query", "retries:status", {"id": run})["type"] == "completed"
    background.value("mutation", "retries:cleanup", {"id": run})
    assert background.call("query", "retries:status", {"id": run})["status"] == "error"
    failing = background.value("mutation", "retries:run", {"key": "retrier fails", "failures": 9.0})
    assert events(background, failing, 1)[0][0] == "failed"
    assert len(events(background, "retrier fails", 4)) == 4
    assert background.value("action", "retries:runInAction", {"key": "retrier in action"}) == {
        "type": "success",
        "returnValue": "done at 1",
    }
    delayed = background.value("mutation", "retries:delayed", {"key": "delayed"})
    background.value("mutation", "retries:cancel", {"id": delayed})
    assert events(background, delayed, 1) == [["canceled", None]]
    assert background.value("query", "events:of", {"key": "delayed"}) == []


# -- @convex-dev/action-cache ---------------------------------------------------------------------------


def test_action_cache(background: Server) -> None:
    """An action runs once for equal arguments, again when forced, when removed or when its time is over."""

    def fetch(key: str, **options: bool) -> Any:
        return background.value("action", "caches:fetchIt", {"key": key, **options})

    assert [fetch("k"), fetch("k"), fetch("other")] == [1, 1, 1]
    assert [fetch("k", force=True), fetch("k")] == [2, 2]
    background.value("mutation", "caches:remove", {"key": "k"})
    assert fetch("k") == 3
    background.value("mutation", "caches:removeAll")
    until(lambda: fetch("other"), lambda runs: runs == 2)
    assert fetch("brief", brief=True) == 1
    time.sleep(0.3)
    assert fetch("brief", brief=True) == 2


# -- @convex-dev/crons ----------------------------------------------------------------------------------


def test_crons_made_at_run_time(background: Server) -> None:
    """Jobs are registered, listed, run again and again until they delete themselves, and deleted; the CLI sees them."""
    background.value("mutation", "dynamicCrons:every", {"key": "ticks", "ms": 1000.0, "times": 2.0})
    background.value("mutation", "dynamicCrons:nightly", {"key": "night"})
    assert background.value("query", "dynamicCrons:names") == ["night", "ticks"]
    assert background.value("query", "dynamicCrons:schedule", {"key": "night"})["cronspec"] == "0 3 * * *"
    assert "crons" in convex(background.app, background, "data", "--component", "crons").split()
    events(background, "ticks", 2)
    assert background.value("query", "dynamicCrons:names") == ["night"]
    background.value("mutation", "dynamicCrons:remove", {"key": "night"})
    assert background.value("query", "dynamicCrons:names") == []
