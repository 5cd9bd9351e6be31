"""Deletions in small steps: old history, dropped indexes, the ledger. Each step is a transaction and may be the last one."""

from __future__ import annotations

import sqlite3

from convex_backend.interfaces import StoreSize

# seq ascends with to_ts, so the oldest rows are at the front; the inner LIMIT bounds what one step looks at.
_PRUNE = (
    "DELETE FROM {table} WHERE seq IN "
    "(SELECT seq FROM (SELECT seq, to_ts FROM {table} ORDER BY seq LIMIT ?1) WHERE to_ts <= ?2)"
)
_HISTORY_TABLES = ("document_history", "index_history")
_PRUNE_STATEMENTS = tuple(_PRUNE.format(table=table) for table in _HISTORY_TABLES)


def prune_history(connection: sqlite3.Connection, before_ts: int, limit: int) -> int:
    """Delete at most *limit* history rows with ``to_ts <= before_ts``. :returns: how many."""
    connection.execute("BEGIN IMMEDIATE")
    deleted = 0
    for statement in _PRUNE_STATEMENTS:
        if deleted < limit:
            deleted += connection.execute(statement, (limit - deleted, before_ts)).rowcount
    connection.execute("COMMIT")
    return deleted


def delete_index(connection: sqlite3.Connection, index: int, limit: int) -> int:
    """Delete at most *limit* entries of *index*, current ones first, then history. :returns: how many."""
    connection.execute("BEGIN IMMEDIATE")
    deleted = connection.execute(
        "DELETE FROM index_entries WHERE index_id = ?1 AND key IN "
        "(SELECT key FROM index_entries WHERE index_id = ?1 ORDER BY key LIMIT ?2)",
        (index, limit),
    ).rowcount
    if deleted < limit:
        deleted += connection.execute(
            "DELETE FROM index_history WHERE seq IN (SELECT seq FROM index_history WHERE index_id = ? LIMIT ?)",
            (index, limit - deleted),
        ).rowcount
    connection.execute("COMMIT")
    return deleted


def newest_result(connection: sqlite3.Connection) -> int:
    """:returns: the number of the newest entry of the ledger, 0 when there is none."""
    return int(connection.execute("SELECT coalesce(max(seq), 0) FROM mutation_results").fetchone()[0])


def ledger_total(connection: sqlite3.Connection, up_to: int) -> int:
    """:returns: bytes of all entries up to the number *up_to* together."""
    found = connection.execute("SELECT coalesce(sum(bytes), 0) FROM mutation_results WHERE seq <= ?", (up_to,))
    return int(found.fetchone()[0])


def prune_ledger(
    connection: sqlite3.Connection, total: int, before_ts: int, max_bytes: int, keep_after_ts: int, limit: int
) -> tuple[int, int]:
    """Delete the oldest entries: those of commits up to *before_ts*, and more while *total* is over *max_bytes*.

    :param total: bytes of all entries now.
    :param keep_after_ts: entries of later commits stay, whatever they weigh.
    :returns: how many were deleted, and their bytes.
    """
    connection.execute("BEGIN IMMEDIATE")
    doomed: list[tuple[int]] = []
    freed = 0
    # seq ascends with ts: rows are appended in commit order.
    for seq, ts, size in connection.execute(
        "SELECT seq, ts, bytes FROM mutation_results ORDER BY seq LIMIT ?", (limit,)
    ):
        if not (ts <= before_ts or (total - freed > max_bytes and ts <= keep_after_ts)):
            break
        doomed.append((seq,))
        freed += size
    connection.executemany("DELETE FROM mutation_results WHERE seq = ?", doomed)
    connection.execute("COMMIT")
    return len(doomed), freed


def measure(connection: sqlite3.Connection, before_ts: int) -> StoreSize:
    """:returns: the store's size. History rows are counted by the range of their numbers, which dropped indexes leave gaps in."""
    rows = prunable = 0
    for table in _HISTORY_TABLES:
        # Two statements: SQLite walks the table for both in one.
        (first,), (last,) = (connection.execute(f"SELECT {end}(seq) FROM {table}").fetchone() for end in ("min", "max"))
        if first is not None:
            rows += last - first + 1
            prunable += _first_after(connection, table, first, last, before_ts) - first
    pages, free, page_bytes = page_counts(connection)
    return StoreSize(rows, prunable, pages * page_bytes, free * page_bytes)


def page_counts(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """:returns: pages of the file, how many of them are free, and bytes of each."""
    pages, free, page_bytes = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return pages, free, page_bytes


def _first_after(connection: sqlite3.Connection, table: str, low: int, high: int, ts: int) -> int:
    """The least number from which on no row ended at or before *ts*, by bisection: ``to_ts`` ascends with ``seq``."""
    above = high + 1
    while low < above:
        middle = (low + above) // 2
        found = connection.execute(
            f"SELECT seq, to_ts FROM {table} WHERE seq >= ? ORDER BY seq LIMIT 1", (middle,)
        ).fetchone()
        if found is not None and found[1] <= ts:
            low = int(found[0]) + 1
        else:
            above = middle
    return low
