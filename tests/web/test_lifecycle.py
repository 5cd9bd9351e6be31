"""Requests that take time: clients that go away, and the stop of the server (``architecture`` E2, graceful stop)."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import capturedLogs

from convex_backend.deferreds import from_coroutine
from convex_backend.web.routing import REQUEST_SECONDS
from convex_backend.web.site_port import make_site_port
from tests.web.support import Bench, Connection, success

CALL = {"path": "a:b", "args": [{}]}
#: One that is found by the look-up, one by the map.
TARGETS = ["/api/mutation", "/api/run/a/b"]


def waiting(bench: Bench, target: str) -> tuple[Connection, Deferred[Any], list[str]]:
    """A request under way: its connection, what it waits for, and a list that gets a word when that is cancelled."""
    cancelled: list[str] = []
    work: Deferred[Any] = Deferred(lambda _: cancelled.append("cancelled"))
    bench.application.answer = work
    connection = bench.begin("POST", target, CALL)
    assert connection.answer() is None
    return connection, work, cancelled


def failures(events: list[Any]) -> list[Any]:
    return [event for event in events if "log_failure" in event or event.get("isError")]


@pytest.mark.parametrize("target", TARGETS)
def test_answer_later(target: str) -> None:
    """A request is counted while it waits and answered when its work is done."""
    bench = Bench()
    connection, work, _ = waiting(bench, target)
    assert bench.in_flight == 1
    work.callback(success(b"1"))
    answer = connection.answer()
    assert answer is not None
    assert answer.json == {"status": "success", "value": 1}
    assert bench.in_flight == 0
    assert bench.cloud.front.running == set()


@pytest.mark.parametrize("target", TARGETS)
def test_client_gone(target: str) -> None:
    """A client that goes away cancels its handler: nothing stays in flight and nothing is logged."""
    bench = Bench()
    connection, _, cancelled = waiting(bench, target)
    with capturedLogs() as events:
        connection.lose()
    assert cancelled == ["cancelled"]
    assert bench.in_flight == 0
    assert bench.cloud.front.running == set()
    assert failures(events) == []


@pytest.mark.parametrize("target", TARGETS)
def test_handler_that_ends_although_cancelled(target: str) -> None:
    """A handler that gives an answer after its client has gone does no harm."""
    bench = Bench()
    bench.application.answer = Deferred(lambda work: work.callback(success()))
    connection = bench.begin("POST", target, CALL)
    with capturedLogs() as events:
        connection.lose()
    assert bench.in_flight == 0
    assert failures(events) == []


@pytest.mark.parametrize("target", TARGETS)
def test_failure_later(target: str) -> None:
    """An unforeseen fault after a wait is 500 JSON too, and logged once."""
    bench = Bench()
    connection, work, _ = waiting(bench, target)
    with capturedLogs() as events:
        work.errback(ZeroDivisionError())
    answer = connection.answer()
    assert answer is not None
    assert answer.error == (500, "InternalServerError")
    assert len(failures(events)) == 1
    assert bench.in_flight == 0


def test_cancelled_work_of_a_waiting_client() -> None:
    """Work that is cancelled for reasons of its own does not leave its client without an answer."""
    bench = Bench()
    connection, work, _ = waiting(bench, "/api/mutation")
    with capturedLogs() as events:
        work.errback(CancelledError())
    answer = connection.answer()
    assert answer is not None
    assert answer.error == (500, "InternalServerError")
    assert len(failures(events)) == 1
    assert bench.in_flight == 0


@pytest.mark.parametrize("target", TARGETS)
def test_request_that_takes_too_long(target: str) -> None:
    """After 300 s a request is answered with 408 and no body, and its work is cancelled."""
    bench = Bench()
    connection, _, cancelled = waiting(bench, target)
    bench.clock.advance(REQUEST_SECONDS - 1)
    assert connection.answer() is None
    with capturedLogs() as events:
        bench.clock.advance(2)
    answer = connection.answer()
    assert answer is not None
    assert (answer.status, answer.body) == (408, b"")
    assert "content-type" not in answer.headers
    assert cancelled == ["cancelled"]
    assert bench.in_flight == 0
    assert failures(events) == []


def test_answer_in_the_last_moment() -> None:
    """An answer that a handler still gives when its time is over is an answer."""
    bench = Bench()
    bench.application.answer = Deferred(lambda work: work.callback(success(b"1")))
    connection = bench.begin("POST", "/api/mutation", CALL)
    bench.clock.advance(REQUEST_SECONDS + 1)
    answer = connection.answer()
    assert answer is not None
    assert (answer.status, answer.json["value"]) == (200, 1)
    assert bench.cloud.front.expired == set()


def test_no_timer_stays() -> None:
    """The timer of a request ends with it, however it ends."""
    bench = Bench()
    for end in (lambda _, work: work.callback(success()), lambda connection, _: connection.lose()):
        connection, work, _ = waiting(bench, "/api/mutation")
        end(connection, work)
        connection.lose()
        assert bench.clock.getDelayedCalls() == []


def test_pipelined_requests() -> None:
    """Requests on one connection are answered in order; a slow one holds those behind it."""
    bench = Bench()
    connection, work, _ = waiting(bench, "/api/mutation")
    connection.send(bench.head("GET", "/version", {}, None))
    assert connection.answer() is None
    work.callback(success(b"1"))
    first, second = connection.answer(), connection.answer()
    assert first is not None
    assert second is not None
    assert (first.json["value"], second.body) == (1, b"1.2.3")


def test_idle_waits() -> None:
    """``idle`` returns when the last request has been answered, at once when there is none."""
    assert from_coroutine(Bench().cloud.idle()).called
    bench = Bench()
    connection, work, _ = waiting(bench, "/api/mutation")
    idle = from_coroutine(bench.cloud.idle())
    assert not idle.called
    work.callback(success(b"1"))
    answer = connection.answer()
    assert answer is not None
    assert answer.headers["connection"] == "close"
    assert idle.called


def test_idle_answers_long_polls() -> None:
    """A stop does not wait for long polls: they are answered now."""
    bench = Bench()
    connection = bench.begin(
        "GET", "/api/stream_function_logs?cursor=1e15", None, {"Authorization": f"Convex {bench.key}"}
    )
    assert bench.in_flight == 1
    assert from_coroutine(bench.cloud.idle()).called
    answer = connection.answer()
    assert answer is not None
    assert answer.json == {"entries": [], "newCursor": 1e15}


@pytest.mark.parametrize("target", TARGETS)
def test_new_requests_while_stopping(target: str) -> None:
    """On a connection that is still open, a new request is 503 and asked to close, so that a stop comes to its end."""
    bench = Bench()
    from_coroutine(bench.cloud.idle())
    answer = bench.ask("POST", target, CALL)
    assert answer.error == (503, "ServerStopping")
    assert answer.headers["connection"] == "close"
    assert bench.application.calls == []


@pytest.mark.parametrize("target", TARGETS)
def test_cancel_requests(target: str) -> None:
    """What is still under way is given up with 503, which clients may try again; ``idle`` then returns."""
    bench = Bench()
    connection, _, cancelled = waiting(bench, target)
    idle = from_coroutine(bench.cloud.idle())
    with capturedLogs() as events:
        bench.cloud.cancel_requests()
    assert cancelled == ["cancelled"]
    answer = connection.answer()
    assert answer is not None
    assert answer.error == (503, "ServerStopping")
    assert idle.called
    assert failures(events) == []


def test_site_port_counts_together() -> None:
    """Both ports share one count."""
    bench = Bench()
    site = make_site_port(bench.cloud)
    waiting(bench, "/api/mutation")
    assert site.front.in_flight.count == 1
