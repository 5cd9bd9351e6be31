"""Every limit of a transaction and every warning near one, at its exact figure (``runtime.md`` sections 7.4 and 8.6, statements 44 and 49)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from convex_backend.database.counters import Counters
from convex_backend.errors import PaginationLimit
from convex_backend.functions.limits import (
    ACTION_ARGUMENTS_WARNING,
    ACTION_RESULT_WARNING,
    ARGUMENTS_WARNING,
    HTTP_RESPONSE_WARNING,
    RESULT_WARNING,
    TRANSACTION_WARNINGS,
    LimitWarning,
    time_warning,
)
from convex_backend.values.json_codec import dumps
from convex_backend.values.limits import size_of
from tests.functions.test_syscalls import Rig, value

HELP = (
    "Consider using smaller limits in your queries, paginating your queries, or using indexed queries with a selective "
    "index range expressions."
)
MIB_16 = 16 * 1024 * 1024
#: A stored document of exactly 64 KiB.
BLOCK = {"v": "x" * (64 * 1024 - 6)}
BLOCK_JSON = dumps(BLOCK)


def read(counters: Counters, documents: int, json: bytes = b"{}") -> None:
    counters.read_all([json] * documents)
    counters.check_read()


def write(counters: Counters, count: int, size: int = 10) -> None:
    for _ in range(count):
        counters.write(size)


def schedule(counters: Counters, count: int, size: int = 0) -> None:
    for _ in range(count):
        counters.schedule(size)


LIMITS: list[tuple[str, Callable[[Counters], None], Callable[[Counters], None], str, str]] = [
    (
        "documents read",
        lambda c: read(c, 32_000),
        lambda c: read(c, 1),
        "TooManyDocumentsRead",
        f"Too many documents read in a single function execution (limit: 32000). {HELP}",
    ),
    (
        "bytes read",
        lambda c: read(c, 256, BLOCK_JSON),
        lambda c: read(c, 1),
        "TooManyBytesRead",
        f"Too many bytes read in a single function execution (limit: 16777216 bytes). {HELP}",
    ),
    (
        "intervals read",
        lambda c: c.set_queries(4096),
        lambda c: c.set_queries(4097),
        "TooManyReads",
        f"Too many reads in a single function execution (limit: 4096). {HELP}",
    ),
    (
        "documents written",
        lambda c: write(c, 16_000),
        lambda c: write(c, 1),
        "TooManyWrites",
        "Too many writes in a single function execution (limit: 16000)",
    ),
    (
        "bytes written",
        lambda c: write(c, 16, 1024 * 1024),
        lambda c: write(c, 1, 1),
        "TooManyBytesWritten",
        "Too many bytes written in a single function execution (limit: 16 MiB)",
    ),
    (
        "functions scheduled",
        lambda c: schedule(c, 1000),
        lambda c: schedule(c, 1),
        "TooManyFunctionsScheduled",
        "Too many functions scheduled by this mutation (limit: 1000)",
    ),
    (
        "bytes scheduled",
        lambda c: schedule(c, 16, 1024 * 1024),
        lambda c: schedule(c, 1, 1),
        "ScheduledFunctionsArgumentsTooLarge",
        "Too large total size of the arguments of scheduled functions from this mutation (limit: 16777216 bytes)",
    ),
]


@pytest.mark.parametrize(("up_to", "one_more", "code", "text"), [row[1:] for row in LIMITS], ids=[r[0] for r in LIMITS])
def test_limits(up_to: Callable[[Counters], None], one_more: Callable[[Counters], None], code: str, text: str) -> None:
    """The limit itself passes, one more fails with the code and the text; the failed one is counted, so ``remaining`` goes negative."""
    counters = Counters()
    up_to(counters)
    remaining = {name: figures["remaining"] for name, figures in counters.metrics().items()}
    assert min(remaining.values()) == 0
    with pytest.raises(PaginationLimit) as caught:
        one_more(counters)
    assert (caught.value.code, caught.value.message) == (code, text)
    assert min(figures["remaining"] for figures in counters.metrics().values()) < 0


def test_the_block_is_what_it_says() -> None:
    """256 of them are exactly 16 MiB."""
    assert size_of(BLOCK) * 256 == MIB_16


def form(message: str, limit: int, unit: str = "", hint: str = "") -> tuple[str, int, str, str]:
    return message, limit, f" {unit}" if unit else "", f" {hint}" if hint else ""


WARNINGS = {
    "TooManyDocumentsRead": form("Many documents read in a single function execution", 32_000, hint=HELP),
    "TooManyReads": form("Many reads in a single function execution", 4096, hint=HELP),
    "TooManyBytesRead": form("Many bytes read in a single function execution", MIB_16, "bytes", HELP),
    "TooManyWrites": form("Many writes in a single function execution", 16_000),
    "TooManyBytesWritten": form("Many bytes written in a single function execution", MIB_16, "bytes"),
    "TooManyFunctionsScheduled": form("Many functions scheduled by this mutation", 1000),
    "ScheduledFunctionsArgumentsTooLarge": form(
        "Large total size of the arguments of scheduled functions from this mutation", MIB_16, "bytes"
    ),
    "TooLargeFunctionArguments": form("Large size of the function arguments", MIB_16, "bytes"),
    "TooLargeFunctionResult": form("Large size of the function return value", MIB_16, "bytes"),
    "FunctionArgumentsTooLarge": form("Large size of the action arguments", MIB_16, "bytes"),
    "HttpResponseTooLarge": form("Large response returned from an HTTP action", 20 * 1024 * 1024, "bytes"),
}
ROWS = [*TRANSACTION_WARNINGS, ARGUMENTS_WARNING, RESULT_WARNING, ACTION_ARGUMENTS_WARNING, HTTP_RESPONSE_WARNING]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.code)
def test_warnings(row: LimitWarning) -> None:
    """Above 80 % and up to the limit the line is written, with code and text; at 80 % and over the limit it is not."""
    message, limit, unit, hint = WARNINGS[row.code]
    edge = limit * 4 // 5
    assert row.line(edge, 1.0) is None
    assert row.line(limit + 1, 1.0) is None
    for actual in (edge + 1, limit):
        line = row.line(actual, 1.0)
        assert line is not None
        assert (line.level, line.code) == ("WARN", f"warning:{row.code}")
        assert line.messages == (f"{message} (actual: {actual}{unit}, limit: {limit}{unit}).{hint}",)


def test_every_row_is_tried() -> None:
    """No warning of the table is left out; the action's result has the code of the function's."""
    assert {row.code for row in ROWS} == set(WARNINGS)
    line = ACTION_RESULT_WARNING.line(MIB_16, 1.0)
    assert line is not None
    assert line.messages == ("Large size of the action return value (actual: 16777216 bytes, limit: 16777216 bytes).",)


def test_the_time_warning() -> None:
    """From 0.8 s of JavaScript on, with four decimals."""
    assert time_warning(0.8, 1.0) is None
    line = time_warning(0.9123456, 1.0)
    assert line is not None
    assert (line.code, line.messages[0]) == (
        "warning:UserTimeout",
        "Function execution took a long time. (maximum duration: 1s, actual duration: 912.3456ms).",
    )


COUNTED: list[tuple[str, Callable[[Counters], None], Callable[[Counters], None]]] = [
    ("TooManyDocumentsRead", lambda c: read(c, 25_600), lambda c: read(c, 1)),
    ("TooManyBytesRead", lambda c: read(c, 204, BLOCK_JSON), lambda c: read(c, 1, BLOCK_JSON)),
    ("TooManyWrites", lambda c: write(c, 12_800), lambda c: write(c, 1)),
    ("TooManyBytesWritten", lambda c: write(c, 12, 1024 * 1024), lambda c: write(c, 1, 1024 * 1024)),
    ("TooManyFunctionsScheduled", lambda c: schedule(c, 800), lambda c: schedule(c, 1)),
    (
        "ScheduledFunctionsArgumentsTooLarge",
        lambda c: schedule(c, 12, 1024 * 1024),
        lambda c: schedule(c, 1, 1024 * 1024),
    ),
]


@pytest.mark.parametrize(("code", "below", "above"), COUNTED, ids=[row[0] for row in COUNTED])
def test_calls_are_warned(code: str, below: Callable[[Counters], None], above: Callable[[Counters], None]) -> None:
    """A call ends with the line of what it has used above 80 %, and without one below."""
    rig = Rig()
    assert rig.transaction is not None
    below(rig.transaction.counters)
    assert rig.context.complete(value(b"null")).log_lines == ()
    above(rig.transaction.counters)
    assert [line.code for line in rig.context.complete(value(b"null")).log_lines] == [f"warning:{code}"]


def test_many_reads_are_warned_of() -> None:
    """Intervals are counted as they are read: 3276 gets are silent, one more is not; the 4097th read fails."""
    rig = Rig()
    transaction = rig.transaction
    assert transaction is not None
    insert = [rig.call("1.0/insert", {"table": "t", "value": {}})["_id"] for _ in range(4097)]
    for document_id in insert[:3276]:
        rig.reply("1.0/get", {"id": document_id, "isSystem": False})
    assert rig.context.complete(value(b"null")).log_lines == ()
    rig.reply("1.0/get", {"id": insert[3276], "isSystem": False})
    [line] = rig.context.complete(value(b"null")).log_lines
    assert line.messages == (f"Many reads in a single function execution (actual: 3277, limit: 4096). {HELP}",)
    for document_id in insert[3277:4096]:
        rig.reply("1.0/get", {"id": document_id, "isSystem": False})
    with pytest.raises(PaginationLimit, match=r"Too many reads in a single function execution \(limit: 4096\)\. "):
        rig.reply("1.0/get", {"id": insert[4096], "isSystem": False})
