"""The SELECT statements: current rows, and rows as of a timestamp.

Each interval ``[lower, upper)`` has four forms (bounded above or not, ascending or descending), built once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from convex_backend.interfaces import Row

GET = "SELECT ts, json FROM documents WHERE tablet = ? AND id = ?"
_GET_HISTORY = (
    "SELECT from_ts, to_ts, json FROM document_history WHERE tablet = ? AND id = ? AND from_ts <= ? "
    "ORDER BY from_ts DESC LIMIT 1"
)


class IntervalQuery:
    """A SELECT over an interval of a key column.

    :param sql: holds ``{interval}`` where the condition on the key goes and ``{order}`` for the direction.
    :param column: the key column, as in ``documents.id``.
    """

    def __init__(self, sql: str, column: str) -> None:
        self._forms = {
            (bounded, reverse): sql.format(
                interval=f"{column} >= ?1" + (f" AND {column} < ?2" if bounded else " AND ?2 IS NULL"),
                order="DESC" if reverse else "ASC",
            )
            for bounded in (False, True)
            for reverse in (False, True)
        }

    def run(
        self, connection: sqlite3.Connection, lower: bytes, upper: bytes | None, reverse: bool, *rest: int
    ) -> sqlite3.Cursor:
        """:param rest: the parameters from ``?3`` on. :returns: a cursor over the rows in key order."""
        return connection.execute(self._forms[upper is not None, reverse], (lower, upper, *rest))


# ?3 tablet or index, ?4 limit
_SCAN_DOCUMENTS = IntervalQuery(
    "SELECT id, id, ts, json FROM documents WHERE tablet = ?3 AND {interval} ORDER BY id {order} LIMIT ?4", "id"
)
# CROSS JOIN: SQLite then keeps the order of the tables, whatever its statistics say.
_SCAN_INDEX = IntervalQuery(
    "SELECT e.key, d.id, d.ts, d.json FROM index_entries AS e CROSS JOIN documents AS d ON d.slot = e.slot "
    "WHERE e.index_id = ?3 AND {interval} ORDER BY e.key {order} LIMIT ?4",
    "e.key",
)
# ?3 tablet or index, ?4 timestamp, ?5 limit (of documents). At one timestamp a key is in one of the halves only; SQLite merges the two in key order.
_SCAN_DOCUMENTS_AT = IntervalQuery(
    "SELECT id, ts, json FROM documents WHERE tablet = ?3 AND {interval} AND ts <= ?4 "
    "UNION ALL "
    "SELECT id, from_ts, json FROM document_history "
    "WHERE tablet = ?3 AND {interval} AND from_ts <= ?4 AND to_ts > ?4 ORDER BY 1 {order} LIMIT ?5",
    "id",
)
_SCAN_INDEX_AT = IntervalQuery(
    "SELECT e.key, d.tablet, d.id FROM index_entries AS e CROSS JOIN documents AS d ON d.slot = e.slot "
    "WHERE e.index_id = ?3 AND {interval} AND e.ts <= ?4 "
    "UNION ALL "
    "SELECT e.key, e.tablet, e.id FROM index_history AS e "
    "WHERE e.index_id = ?3 AND {interval} AND e.from_ts <= ?4 AND e.to_ts > ?4 ORDER BY 1 {order}",
    "e.key",
)


def scan_documents(
    connection: sqlite3.Connection, tablet: int, lower: bytes, upper: bytes | None, reverse: bool, limit: int
) -> list[Row]:
    """:returns: current documents in id order; ``key`` is the id."""
    return _rows(_SCAN_DOCUMENTS.run(connection, lower, upper, reverse, tablet, limit))


def scan_index(
    connection: sqlite3.Connection, index: int, lower: bytes, upper: bytes | None, reverse: bool, limit: int
) -> list[Row]:
    """:returns: current entries in key order, with their documents."""
    return _rows(_SCAN_INDEX.run(connection, lower, upper, reverse, index, limit))


def get_at(connection: sqlite3.Connection, tablet: int, id: bytes, ts: int) -> Row | None:
    """:returns: the version of a document that was current at *ts*."""
    version = _version_at(connection, tablet, id, ts)
    return None if version is None else Row(id, id, *version)


def scan_documents_at(
    connection: sqlite3.Connection, tablet: int, lower: bytes, upper: bytes | None, reverse: bool, limit: int, ts: int
) -> list[Row]:
    """:func:`scan_documents` as of *ts*."""
    cursor = _SCAN_DOCUMENTS_AT.run(connection, lower, upper, reverse, tablet, ts, limit)
    return [Row(key, key, from_ts, json) for key, from_ts, json in cursor]


def scan_index_at(
    connection: sqlite3.Connection, index: int, lower: bytes, upper: bytes | None, reverse: bool, limit: int, ts: int
) -> list[Row]:
    """:func:`scan_index` as of *ts*: an entry may be current while its document's version is history."""
    rows: list[Row] = []
    entries: Iterator[tuple[bytes, int, bytes]] = _SCAN_INDEX_AT.run(connection, lower, upper, reverse, index, ts)
    while len(rows) < limit:
        entry = next(entries, None)
        if entry is None:
            break
        key, tablet, document = entry
        version = _version_at(connection, tablet, document, ts)
        if version is not None:
            rows.append(Row(key, document, *version))
    return rows


def _version_at(connection: sqlite3.Connection, tablet: int, id: bytes, ts: int) -> tuple[int, bytes] | None:
    current: tuple[int, bytes] | None = connection.execute(GET, (tablet, id)).fetchone()
    if current is not None and current[0] <= ts:
        return current
    past = connection.execute(_GET_HISTORY, (tablet, id, ts)).fetchone()
    if past is None or past[1] <= ts:
        return None
    return past[0], past[2]


def _rows(cursor: sqlite3.Cursor) -> list[Row]:
    return [Row(*row) for row in cursor.fetchall()]
