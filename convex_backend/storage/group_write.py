"""One group of commits into one SQLite transaction: current rows replaced, what they were moved to history."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import attrs

from convex_backend.interfaces import Commit, LedgerEntry
from convex_backend.storage.bulk import BulkStatement

LAST_TS = "last_ts"
"""The meta key of the newest timestamp in the file; decimal digits."""

_MOVE_DOCUMENTS = BulkStatement(
    "INSERT INTO document_history (tablet, id, from_ts, to_ts, json) "
    "WITH moved (tablet, id, to_ts) AS (VALUES {rows}) "
    "SELECT d.tablet, d.id, d.ts, moved.to_ts, d.json FROM moved CROSS JOIN documents AS d "
    "WHERE d.tablet = moved.tablet AND d.id = moved.id",
    "(?, ?, ?)",
)
_UPDATE_DOCUMENTS = BulkStatement(
    "UPDATE documents SET ts = fresh.column3, json = fresh.column4 FROM (VALUES {rows}) AS fresh "
    "WHERE documents.tablet = fresh.column1 AND documents.id = fresh.column2",
    "(?, ?, ?, ?)",
)
_INSERT_DOCUMENTS = BulkStatement("INSERT INTO documents (tablet, id, ts, json) VALUES {rows}", "(?, ?, ?, ?)")
# One tablet or index at a time: SQLite walks the whole table for (tablet, id) IN (VALUES …).
_DELETE_DOCUMENTS = BulkStatement("DELETE FROM documents WHERE tablet = ? AND id IN ({rows})", "?")
_MOVE_ENTRIES = BulkStatement(
    "INSERT INTO index_history (index_id, key, from_ts, to_ts, tablet, id) "
    "WITH moved (index_id, key, to_ts, tablet, id) AS (VALUES {rows}) "
    "SELECT e.index_id, e.key, e.ts, moved.to_ts, moved.tablet, moved.id FROM moved CROSS JOIN index_entries AS e "
    "WHERE e.index_id = moved.index_id AND e.key = moved.key AND e.ts < moved.to_ts",
    "(?, ?, ?, ?, ?)",
)
_DELETE_ENTRIES = BulkStatement("DELETE FROM index_entries WHERE index_id = ? AND key IN ({rows})", "?")
# An entry that is there already (a backfill that starts again) keeps the older timestamp: it has been valid since then.
_INSERT_ENTRIES = BulkStatement(
    "INSERT INTO index_entries (index_id, key, slot, ts) VALUES {rows} "
    "ON CONFLICT (index_id, key) DO UPDATE SET slot = excluded.slot, ts = min(index_entries.ts, excluded.ts)",
    "(?, ?, (SELECT slot FROM documents WHERE tablet = ? AND id = ?), ?)",
)
_INSERT_RESULTS = BulkStatement(
    "INSERT INTO mutation_results (session, request, ts, created, bytes, result) VALUES {rows}", "(?, ?, ?, ?, ?, ?)"
)


def check_order(commits: Sequence[Commit], last_ts: int) -> None:
    """:raises ValueError: timestamps do not ascend from above *last_ts*, or a commit writes a reserved meta key."""
    for commit in commits:
        if commit.ts <= last_ts:
            raise ValueError(f"commit at {commit.ts} is not newer than {last_ts}")
        last_ts = commit.ts
        for key, _ in commit.meta:
            if key == LAST_TS:
                raise ValueError(f"meta key {LAST_TS!r} is kept by the store itself")


def ledger_bytes(entry: LedgerEntry) -> int:
    """What *entry* counts against the ledger's bound, bytes: the variable part of its row."""
    return len(entry.session) + len(entry.result)


def read_last_ts(connection: sqlite3.Connection) -> int:
    """:returns: the newest timestamp in the file, 0 in a new one."""
    return int(connection.execute("SELECT value FROM meta WHERE key = ?", (LAST_TS,)).fetchone()[0])


def write_group(connection: sqlite3.Connection, commits: Sequence[Commit]) -> None:
    """Write *commits* in one transaction and return when it is durable.

    A removal of an index entry that is not there is no error (the index may still be filling). In one commit, a key's removals
    come before its additions.

    :raises ValueError: order is broken, or ``had_previous`` does not say what the file holds.
    :raises sqlite3.Error: as SQLite reports; after an error at COMMIT the outcome is unknown.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        check_order(commits, read_last_ts(connection))
        for batch in _batches(commits):
            batch.write(connection)
        _write_meta(connection, commits)
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@attrs.define(eq=False)
class _Batch:
    """Writes of consecutive commits that touch each key at most once, as rows of the bulk statements."""

    document_keys: set[tuple[int, bytes]] = attrs.field(factory=set)
    entry_keys: set[tuple[int, bytes]] = attrs.field(factory=set)
    moved_documents: list[tuple[int, bytes, int]] = attrs.field(factory=list)
    updated: list[tuple[int, bytes, int, bytes]] = attrs.field(factory=list)
    inserted: list[tuple[int, bytes, int, bytes]] = attrs.field(factory=list)
    deleted: dict[int, list[tuple[bytes]]] = attrs.field(factory=dict)
    moved_entries: list[tuple[int, bytes, int, int, bytes]] = attrs.field(factory=list)
    removed_entries: dict[int, list[tuple[bytes]]] = attrs.field(factory=dict)
    added_entries: list[tuple[int, bytes, int, bytes, int]] = attrs.field(factory=list)
    results: list[tuple[str, int, int, int, int, bytes]] = attrs.field(factory=list)

    def touches(self, commit: Commit) -> bool:
        """Whether *commit* writes a key that is already in the batch."""
        if any((write.tablet, write.id) in self.document_keys for write in commit.documents):
            return True
        return any((write.index, write.key) in self.entry_keys for write in commit.indexes)

    def add(self, commit: Commit) -> None:
        ts = commit.ts
        for write in commit.documents:
            document = (write.tablet, write.id)
            self.document_keys.add(document)
            if write.had_previous:
                self.moved_documents.append((*document, ts))
                if write.json is None:
                    self.deleted.setdefault(write.tablet, []).append((write.id,))
                else:
                    self.updated.append((*document, ts, write.json))
            elif write.json is not None:
                self.inserted.append((*document, ts, write.json))
        for entry in commit.indexes:
            index, key = entry.index, entry.key
            self.entry_keys.add((index, key))
            if entry.added:
                added_ts = ts if entry.ts is None else entry.ts
                self.added_entries.append((index, key, entry.tablet, entry.id, added_ts))
            else:
                self.moved_entries.append((index, key, ts, entry.tablet, entry.id))
                self.removed_entries.setdefault(index, []).append((key,))
        for result in commit.ledger:
            size = ledger_bytes(result)
            self.results.append((result.session, result.request, ts, result.created_ms, size, result.result))

    def write(self, connection: sqlite3.Connection) -> None:
        if self.moved_documents:
            moved = _MOVE_DOCUMENTS.run(connection, self.moved_documents)
            _UPDATE_DOCUMENTS.run(connection, self.updated)
            for tablet, ids in self.deleted.items():
                _DELETE_DOCUMENTS.run(connection, ids, (tablet,))
            if moved != len(self.moved_documents):
                raise ValueError("a document to be replaced or deleted is not there")
        try:
            _INSERT_DOCUMENTS.run(connection, self.inserted)
        except sqlite3.IntegrityError as error:
            raise ValueError(f"a document to be inserted is already there: {error}") from error
        if self.moved_entries:
            _MOVE_ENTRIES.run(connection, self.moved_entries)
            for index, keys in self.removed_entries.items():
                _DELETE_ENTRIES.run(connection, keys, (index,))
        try:
            _INSERT_ENTRIES.run(connection, self.added_entries)
        except sqlite3.IntegrityError as error:
            raise ValueError(f"an index entry is added for a document that is not there: {error}") from error
        try:
            _INSERT_RESULTS.run(connection, self.results)
        except sqlite3.IntegrityError as error:
            raise ValueError(f"a mutation's result is already in the ledger: {error}") from error


def _batches(commits: Sequence[Commit]) -> list[_Batch]:
    """Cut the group where a key comes again, so that each version passes through the current rows in order."""
    batch = _Batch()
    batches = [batch]
    for commit in commits:
        if batch.touches(commit):
            batch = _Batch()
            batches.append(batch)
        batch.add(commit)
    return batches


def _write_meta(connection: sqlite3.Connection, commits: Sequence[Commit]) -> None:
    values: dict[str, bytes | None] = {}
    for commit in commits:
        values.update(commit.meta)
    for key, value in values.items():
        if value is None:
            connection.execute("DELETE FROM meta WHERE key = ?", (key,))
        else:
            connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))
    connection.execute("UPDATE meta SET value = ? WHERE key = ?", (b"%d" % commits[-1].ts, LAST_TS))
