"""What a transaction asks of the committer, and the rows that this becomes in the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from convex_backend.database.lanes import LaneTicket
from convex_backend.database.reads import ReadSet
from convex_backend.database.write_log import DocumentChange
from convex_backend.interfaces import Commit, DocumentWrite, IndexWrite, LedgerEntry

_OVERHEAD_BYTES = 200


@attrs.frozen(slots=True)
class CommitRequest:
    """What a transaction wants to commit.

    :param snapshot_ts: the timestamp that it read at.
    :param reads: all that it read; every document that it changes is read as a point first.
    :param changes: at most one for each document.
    :param ledger: a mutation's answer to keep (A9).
    :param writer: path of the function, for the conflict text of others.
    :param extra_index_writes: entries added by a backfill: not conflict-checked against readers, not seen before they are durable.
    :param meta: persistence meta values to set, by key; ``None`` deletes.
    :param lane: the mutation's ticket; its lanes are released once the commit is pending.
    :param resolve: makes of the changes and the commit's timestamp what is committed; ``None``: the changes as they are.
    """

    snapshot_ts: int
    reads: ReadSet
    changes: tuple[DocumentChange, ...] = ()
    ledger: LedgerEntry | None = None
    writer: str | None = None
    extra_index_writes: tuple[IndexWrite, ...] = ()
    meta: tuple[tuple[str, bytes | None], ...] = ()
    lane: LaneTicket | None = None
    resolve: Callable[[Sequence[DocumentChange], int], tuple[DocumentChange, ...]] | None = None


@attrs.frozen(slots=True)
class CommitterLimits:
    """Bounds of the commit queue.

    :param queue_commits: commits that may wait for their group, the one being written included.
    :param queue_bytes: the same in bytes of documents, keys and answers.
    :param group_commits: commits in one group. :param group_bytes: their bytes (at least one commit is taken).
    """

    queue_commits: int = 8192
    queue_bytes: int = 64 * 1024 * 1024
    group_commits: int = 512
    group_bytes: int = 16 * 1024 * 1024


def request_bytes(request: CommitRequest) -> int:
    """Bytes that a request holds while it is queued, roughly."""
    size = _OVERHEAD_BYTES
    for change in request.changes:
        size += _OVERHEAD_BYTES + len(change.new_json or b"") + len(change.old_json or b"")
        for _, old_key, new_key in change.index_changes:
            size += len(old_key or b"") + len(new_key or b"")
    for write in request.extra_index_writes:
        size += len(write.key)
    if request.ledger is not None:
        size += len(request.ledger.result)
    return size


def commit_rows(ts: int, request: CommitRequest) -> Commit:
    """The rows that the store writes. An index entry whose key stays the same is not rewritten."""
    documents = []
    indexes: list[IndexWrite] = []
    for change in request.changes:
        tablet, document = change.tablet, change.id
        documents.append(DocumentWrite(tablet, document, change.new_json, change.old_json is not None))
        for index, old_key, new_key in change.index_changes:
            if old_key == new_key:
                continue
            if old_key is not None:
                indexes.append(IndexWrite(index, old_key, tablet, document, False))
            if new_key is not None:
                indexes.append(IndexWrite(index, new_key, tablet, document, True))
    indexes.extend(request.extra_index_writes)
    ledger = (request.ledger,) if request.ledger is not None else ()
    return Commit(ts, tuple(documents), tuple(indexes), ledger, request.meta)
