"""The ring of executions and its long polls (``http_api.md`` section 6.1)."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from convex_backend.application.function_log import MAX_ANSWER, FunctionLog
from convex_backend.deferreds import from_coroutine
from convex_backend.interfaces import LogLine

LINE = LogLine(("'hi'", "42"), "LOG", 1700000000000.0)


def make(**bounds: int) -> tuple[FunctionLog, Clock]:
    """A log whose wall clock stands still."""
    clock = Clock()
    return FunctionLog(clock, lambda: 1_700_000_000_000_000_000, CollectorRegistry(), **bounds), clock


def record(log: FunctionLog, path: str = "messages:list", **changes: Any) -> None:
    """One completed query."""
    facts: dict[str, Any] = {
        "kind": "query",
        "component_path": "",
        "path": path,
        "log_lines": (LINE,),
        "seconds": 0.012,
        "error": None,
        "request_id": "r" * 16,
        "execution_id": "e" * 16,
        "parent_execution_id": None,
        "source": "HttpApi",
        "identity_type": "unknown",
        "cached": False,
        "return_bytes": 10,
    }
    log.record_completion(**{**facts, **changes})


def read(log: FunctionLog, cursor: float, **options: Any) -> Any:
    """Start a read. :returns: a list that gets its result."""
    results: list[Any] = []
    deferred = from_coroutine(log.read(cursor, 60.0, **{"structured": True, **options}))
    deferred.addBoth(results.append)
    return deferred, results


def test_an_entry_has_the_fields_that_the_cli_prints() -> None:
    """A completion carries type, identifier, structured lines and times in seconds."""
    log, _ = make()
    record(log)
    _, [(entries, cursor)] = read(log, 0.0)
    [entry] = entries
    assert entry["kind"] == "Completion"
    assert (entry["udfType"], entry["identifier"], entry["componentPath"]) == ("Query", "messages:list", None)
    assert entry["logLines"] == [
        {"messages": ["'hi'", "42"], "level": "LOG", "timestamp": 1700000000000.0, "isTruncated": False}
    ]
    assert entry["timestamp"] == 1700000000.0
    assert entry["executionTime"] == 0.012
    assert cursor == 1700000000000.0
    _, [(plain, _)] = read(log, 0.0, structured=False)
    assert plain[0]["logLines"] == ["[LOG] 'hi' 42"]


def test_cursors_rise_even_when_the_clock_stands() -> None:
    """Every entry is read once, in order, also those of one moment."""
    log, _ = make()
    for number in range(5):
        record(log, f"m:f{number}")
    seen: list[str] = []
    cursor = 0.0
    for expected in (5, 0):
        deferred, results = read(log, cursor)
        if expected:
            entries, cursor = results[0]
            seen += [entry["identifier"] for entry in entries]
        else:
            assert results == []
            deferred.cancel()
            assert results[0].check(CancelledError)
    assert seen == [f"m:f{number}" for number in range(5)]


def test_a_poll_waits_for_the_next_entry_or_the_timeout() -> None:
    """A read from the newest cursor answers when an entry comes; after its time it answers nothing, same cursor."""
    log, clock = make()
    record(log)
    newest = log.newest_cursor()
    _, results = read(log, newest)
    assert results == []
    record(log, "m:g")
    assert results[0][0][0]["identifier"] == "m:g"
    _, late = read(log, log.newest_cursor())
    clock.advance(61)
    assert late == [([], log.newest_cursor())]
    record(log)
    assert clock.getDelayedCalls() == []


def test_an_empty_log_answers_cursor_zero_at_once() -> None:
    """The CLI's first poll gets a live head without waiting."""
    log, _ = make()
    assert read(log, 0.0)[1] == [([], 1700000000000.0)]


def test_progress_is_left_out_of_completions() -> None:
    """``stream_udf_execution`` sees completions only."""
    log, _ = make()
    log.record_progress(
        kind="action", component_path="", path="a:b", log_lines=(LINE,), request_id="r", execution_id="e"
    )
    record(log, "a:b", kind="action", log_lines=())
    assert [entry["kind"] for entry in read(log, 0.0)[1][0][0]] == ["Progress", "Completion"]
    assert [entry["kind"] for entry in read(log, 0.0, completions_only=True)[1][0][0]] == ["Completion"]


def test_the_ring_is_bounded_by_entries_and_bytes() -> None:
    """Old entries go when there are too many, or when they take too much."""
    log, _ = make(max_entries=3)
    for number in range(5):
        record(log, f"m:f{number}")
    assert [entry["identifier"] for entry in read(log, 0.0)[1][0][0]] == ["m:f2", "m:f3", "m:f4"]
    log, _ = make(max_bytes=5000)
    for number in range(100):
        record(log, f"m:f{number}")
    assert 1 <= len(read(log, 0.0)[1][0][0]) < 12


def test_stopping_answers_every_reader() -> None:
    """A stop does not wait for long polls."""
    log, clock = make()
    record(log)
    _, results = read(log, log.newest_cursor())
    log.stop()
    assert results == [([], log.newest_cursor())]
    assert clock.getDelayedCalls() == []


def test_the_first_answer_is_the_newest_of_the_past() -> None:
    """From cursor 0 a reader gets the newest entries and then only later ones: the CLI takes the first answer for the past and prints the rest as
    live; from any other cursor it gets each later entry, part by part."""
    log, _ = make()
    for number in range(MAX_ANSWER + 5):
        record(log, f"m:f{number}")
    _, [(entries, cursor)] = read(log, 0.0)
    assert (len(entries), entries[0]["identifier"]) == (MAX_ANSWER, "m:f5")
    assert cursor == log.newest_cursor()
    first = read(log, 1.0)[1][0]
    assert [entry["identifier"] for entry in first[0]] == [f"m:f{number}" for number in range(MAX_ANSWER)]
    assert [entry["identifier"] for entry in read(log, first[1])[1][0][0]] == [
        f"m:f{number}" for number in range(MAX_ANSWER, MAX_ANSWER + 5)
    ]
