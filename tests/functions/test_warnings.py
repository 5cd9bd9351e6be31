"""The warnings of ``runtime.md`` 7.4 that look at single documents."""

from __future__ import annotations

from typing import Any

import pytest

from tests.functions.test_syscalls import Rig, value


def nested(levels: int) -> Any:
    """A value of *levels* objects."""
    found: Any = 1
    for _ in range(levels):
        found = {"a": found}
    return found


def warnings(rig: Rig) -> list[tuple[str | None, str]]:
    return [(line.code, line.messages[0]) for line in rig.context.complete(value(b"null")).log_lines]


@pytest.mark.parametrize(
    ("levels", "warned"), [(11, False), (12, True), (15, True)], ids=["12 levels", "13 levels", "16 levels"]
)
def test_deeply_nested_documents_are_named(levels: int, warned: bool) -> None:
    """From 13 of 16 levels on (statement 44), the document's own level included."""
    rig = Rig()
    id = rig.call("1.0/insert", {"table": "t", "value": {"v": nested(levels)}})["_id"]
    text = f'Deeply nested document written with ID "{id}" (actual: {levels + 1} levels, limit: 16 levels).'
    assert warnings(rig) == ([("warning:TooNested", text)] if warned else [])


def test_large_documents_are_named() -> None:
    """Over 80 % of 1 MiB; a document that is changed twice is named once, with its last size, and one that went is not."""
    rig = Rig()
    insert = [
        rig.call("1.0/insert", {"table": "t", "value": {"v": "x" * size}})["_id"]
        for size in (900_000, 900_000, 700_000)
    ]
    rig.call("1.0/shallowMerge", {"id": insert[0], "value": {"v": "x" * 1_000_000}})
    rig.call("1.0/remove", {"id": insert[1]})
    [(code, text)] = warnings(rig)
    assert code == "warning:ValueTooLargeError"
    assert text.startswith(f'Large document written with ID "{insert[0]}" (actual: 10000')
    assert text.endswith(" bytes, limit: 1048576 bytes).")


def test_many_brackets_are_not_depth() -> None:
    """A wide document is measured, not guessed at."""
    rig = Rig()
    rig.call("1.0/insert", {"table": "t", "value": {"v": [[1], [2], [3]] * 20}})
    assert warnings(rig) == []


def test_reads_alone_warn_of_nothing() -> None:
    """A query has written nothing."""
    assert warnings(Rig("query")) == []
