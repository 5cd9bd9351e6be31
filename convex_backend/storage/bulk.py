"""Statements over many rows at once.

``executemany`` makes one step a row, and gives up the interpreter lock at each step: while the reactor is busy, the writer
thread then waits for the lock hundreds of times a group. One statement with many rows makes one step. Rows are cut
into a few fixed sizes, so that SQLite's statement cache holds every form.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any

_SIZES = (128, 32, 8, 2, 1)


class BulkStatement:
    """SQL with ``{rows}`` where the comma-separated row tuples go.

    :param sql: the statement, for instance ``INSERT INTO t (a, b) VALUES {rows}``; sqlite3 counts the rows of statements that
        begin with INSERT, UPDATE or DELETE only.
    :param row: one row's SQL, for instance ``(?, ?)``.
    """

    def __init__(self, sql: str, row: str) -> None:
        self._forms = [(size, sql.format(rows=", ".join([row] * size))) for size in _SIZES]

    def run(self, connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]], first: tuple[Any, ...] = ()) -> int:
        """Run the statement for all *rows*, in order.

        :param first: values of the parameters that come before the rows.
        :returns: how many rows changed.
        """
        changed = 0
        start = 0
        left = len(rows)
        for size, sql in self._forms:
            while left >= size:
                part = rows[start : start + size]
                changed += connection.execute(sql, (*first, *chain.from_iterable(part))).rowcount
                start += size
                left -= size
        return changed
