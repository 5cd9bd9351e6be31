"""The file under churn: documents that change without end take the room of a window of history, no more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock

from convex_backend.database.commit_request import CommitRequest
from convex_backend.database.committer import Committer, DocumentChange
from convex_backend.database.retention import RetentionLoop, RetentionSettings
from convex_backend.storage.compaction import compact
from tests.database.commit_support import SECOND, doc_id, reads_of, result_of
from tests.storage.faults import synchronous_store

WINDOW = 60.0
#: By then the window, and the time between two turns, have passed: the file has its steady size.
STEADY_ROUND = 100


class Churn:
    """A server in small over a real file; a second passes between two rounds of updates.

    :param documents: how many there are; each round updates all, with one index entry that moves.
    """

    def __init__(self, path: str, documents: int) -> None:
        self.path = path
        self.documents = documents
        self.clock = Clock()
        self.wall_ns = 1_700_000_000 * SECOND
        self.persistence = synchronous_store(path)
        result_of(self.persistence.open())
        registry = CollectorRegistry()
        self.committer = Committer(self.persistence, self, self.clock, registry)
        result_of(self.committer.start())
        self.retention = RetentionLoop(
            self.persistence, self.committer, self, self.clock, registry, RetentionSettings(history_seconds=WINDOW)
        )
        self.retention.start()
        self.versions: dict[int, tuple[int, bytes]] = {}
        self.sizes: list[int] = []

    def now_ns(self) -> int:
        self.wall_ns += 1000
        return self.wall_ns

    def round(self, number: int) -> None:
        """Update every document, let a second pass, note the size of the file and its log."""
        changes = []
        for document in range(self.documents):
            old = self.versions.get(document)
            json = b'{"document":%d,"round":%d,"text":"%s"}' % (document, number, b"x" * 100)
            key = number.to_bytes(4, "big") + doc_id(document)
            old_key = (number - 1).to_bytes(4, "big") + doc_id(document) if old else None
            changes.append(DocumentChange(1, doc_id(document), *(old or (None, None)), json, ((10, old_key, key),)))
        reads = reads_of(*((-1, change.id) for change in changes))
        ts = result_of(self.committer.commit(CommitRequest(self.committer.pending_ts, reads, tuple(changes))))
        for change in changes:
            assert change.new_json is not None
            self.versions[int.from_bytes(change.id, "big")] = (ts, change.new_json)
        self.wall_ns += SECOND
        self.clock.advance(1)
        self.sizes.append(sum(os.path.getsize(self.path + end) for end in ("", "-wal")))

    def stop(self) -> None:
        result_of(self.retention.stop())
        result_of(self.committer.stop())
        result_of(self.persistence.close())


def check(path: str, documents: int, rounds: int) -> None:
    """Run the churn; the file must stay within three times its steady size, and its history within the window."""
    churn = Churn(path, documents)
    for number in range(rounds):
        churn.round(number)
    size = result_of(churn.persistence.measure(churn.retention.watermark_ts))
    # Versions and entries of the window and of the time between two turns.
    assert size.history_rows <= 2 * documents * (WINDOW + 2 * churn.retention.settings.turn_seconds)
    assert size.prunable_rows == 0
    steady = churn.sizes[STEADY_ROUND]
    print(f"steady {steady / 1e6:.1f} MB, at most {max(churn.sizes) / 1e6:.1f} MB, {max(churn.sizes) / steady:.2f}x")
    assert max(churn.sizes) <= 3 * steady
    before = churn.persistence.scan_documents(1, b"", None, False, documents)
    assert [row.json for row in before] == [churn.versions[n][1] for n in range(documents)]
    churn.stop()
    assert compact(path).after_bytes <= steady


def test_churn(tmp_path: Path) -> None:
    """Forty documents updated 220 times each."""
    check(str(tmp_path / "db"), 40, 220)


@pytest.mark.slow
def test_churn_at_length(tmp_path: Path) -> None:
    """A thousand documents updated a thousand times each: a million superseded versions and as many entries."""
    check(str(tmp_path / "db"), 1000, 1000)
