"""Long polls over the function log (``http_api.md`` section 6.1)."""

from __future__ import annotations

import pytest

from convex_backend.interfaces import LogLine
from convex_backend.web.logs_api import POLL_SECONDS
from tests.web.support import TS, Answer, Bench, Connection

STREAM = "/api/stream_function_logs"
COMPLETIONS = "/api/stream_udf_execution"
LINE = LogLine(("'hi'",), "LOG", 5.0)


def complete(bench: Bench, path: str = "messages:list") -> None:
    """A query has ended."""
    bench.application.function_log.record_completion(
        kind="query",
        component_path="",
        path=path,
        log_lines=(LINE,),
        seconds=0.25,
        error=None,
        request_id="r",
        execution_id="e",
        parent_execution_id=None,
        source="HttpApi",
        identity_type="unknown",
        cached=False,
        return_bytes=4,
    )


def progress(bench: Bench) -> None:
    """A running action has printed a line."""
    bench.application.function_log.record_progress(
        kind="action", component_path="", path="a:b", log_lines=(LINE,), request_id="r", execution_id="e"
    )


def poll(bench: Bench, target: str, client: str = "npm-cli-1.48.0") -> Connection:
    return bench.begin("GET", target, None, {"Authorization": f"Convex {bench.key}", "Convex-Client": client})


def got(connection: Connection) -> Answer:
    answer = connection.answer()
    assert answer is not None, "no answer yet"
    return answer


def test_history() -> None:
    """Cursor 0 gives what is retained, at once, and a cursor from which nothing comes twice."""
    bench = Bench()
    complete(bench)
    progress(bench)
    answer = got(poll(bench, f"{STREAM}?cursor=0")).json
    assert [entry["kind"] for entry in answer["entries"]] == ["Completion", "Progress"]
    assert answer["entries"][0]["identifier"] == "messages:list"
    later = poll(bench, f"{STREAM}?cursor={answer['newCursor']}")
    assert later.answer() is None
    complete(bench, "later:one")
    assert [entry["identifier"] for entry in got(later).json["entries"]] == ["later:one"]


def test_empty_history() -> None:
    """Cursor 0 on an empty log is answered at once, with now as the cursor."""
    answer = got(poll(Bench(), f"{STREAM}?cursor=0")).json
    assert answer == {"entries": [], "newCursor": TS / 1e6}


@pytest.mark.parametrize(
    ("client", "structured"),
    [("npm-cli-1.48.0", True), ("dashboard-1.0.0", True), ("npm-1.48.0", False), ("fivetran-1.0.0", False)],
)
def test_lines(client: str, structured: bool) -> None:
    """The CLI and the dashboard get lines as objects, the others as text."""
    bench = Bench()
    complete(bench)
    (line,) = got(poll(bench, f"{STREAM}?cursor=0", client)).json["entries"][0]["logLines"]
    if structured:
        assert line["messages"] == ["'hi'"]
    else:
        assert line == "[LOG] 'hi'"


@pytest.mark.parametrize("path", [COMPLETIONS, "/api/app_metrics/stream_udf_execution"])
def test_completions_only(path: str) -> None:
    """The older route has completions only, with lines as text for every client."""
    bench = Bench()
    progress(bench)
    complete(bench)
    entries = got(poll(bench, f"{path}?cursor=0")).json["entries"]
    assert [(entry["kind"], entry["logLines"]) for entry in entries] == [("Completion", ["[LOG] 'hi'"])]


@pytest.mark.parametrize("path", [STREAM, COMPLETIONS])
def test_time_out(path: str) -> None:
    """A poll that nothing answers ends after a minute with its own cursor, and leaves no timer."""
    bench = Bench()
    cursor = TS / 1e6
    connection = poll(bench, f"{path}?cursor={cursor}&sessionId=x&clientRequestCounter=1")
    bench.clock.advance(POLL_SECONDS - 0.1)
    assert connection.answer() is None
    assert bench.in_flight == 1
    bench.clock.advance(0.2)
    assert got(connection).json == {"entries": [], "newCursor": cursor}
    assert bench.in_flight == 0


def test_client_gone() -> None:
    """A poller that goes away leaves no timer of its poll and nothing in flight."""
    bench = Bench()
    before = len(bench.clock.getDelayedCalls())
    connection = poll(bench, f"{STREAM}?cursor={TS / 1e6}")
    connection.lose()
    assert bench.in_flight == 0
    assert len(bench.clock.getDelayedCalls()) == before
    complete(bench)


@pytest.mark.parametrize("query", ["", "?cursor=", "?cursor=x", "?cursor=nan", "?cursor=inf", "?cursor=-1"])
@pytest.mark.parametrize("path", [STREAM, COMPLETIONS])
def test_bad_cursor(path: str, query: str) -> None:
    """A cursor is a finite number of milliseconds."""
    assert Bench().admin("GET", path + query).error == (400, "BadQueryArgs")
