"""Deletions in small steps: old history, dropped indexes, the ledger. Each step is a transaction and may be the last one."""

from __future__ import annotations

import sqlite3

# seq ascends with to_ts, so the oldest rows are at the front; the inner LIMIT bounds what one step looks at.
_PRUNE = (
    "DELETE FROM {table} WHERE seq IN "
    "(SELECT seq FROM (SELECT seq, to_ts FROM {table} ORDER BY seq LIMIT ?1) WHERE to_ts <= ?2)"
)
_PRUNE_STATEMENTS = tuple(_PRUNE.format(table=table) for table in ("document_history", "index_history"))


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


def ledger_total(connection: sqlite3.Connection) -> int:
    """:returns: bytes of all entries together."""
    return int(connection.execute("SELECT coalesce(sum(bytes), 0) FROM mutation_results").fetchone()[0])


def prune_ledger(
    connection: sqlite3.Connection, total: int, older_than_ms: int, max_bytes: int, keep_after_ms: int, limit: int
) -> tuple[int, int]:
    """Delete the oldest entries: those before *older_than_ms*, and more while *total* is over *max_bytes*.

    :param total: bytes of all entries now.
    :param keep_after_ms: entries created after this stay, whatever they weigh.
    :returns: how many were deleted, and their bytes.
    """
    connection.execute("BEGIN IMMEDIATE")
    doomed: list[tuple[int]] = []
    freed = 0
    oldest = connection.execute(
        "SELECT seq, created, bytes FROM mutation_results ORDER BY created, seq LIMIT ?", (limit,)
    )
    for seq, created, size in oldest:
        if not (created < older_than_ms or (total - freed > max_bytes and created <= keep_after_ms)):
            break
        doomed.append((seq,))
        freed += size
    connection.executemany("DELETE FROM mutation_results WHERE seq = ?", doomed)
    connection.execute("COMMIT")
    return len(doomed), freed
