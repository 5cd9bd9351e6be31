"""What a transaction is going to write, and how its own reads see it.

One :class:`Write` per document, whatever number of calls made it: the version found before the transaction, and the version that the commit
will leave. Savepoints are positions in an undo log.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Final

import attrs

from convex_backend.database.counters import SIZE_PER_JSON_BYTE
from convex_backend.database.system_tables import LAST_FIXED_ID
from convex_backend.database.write_log import DocumentChange
from convex_backend.values.json_codec import loads
from convex_backend.values.limits import MAX_DOCUMENT_BYTES, MAX_DOCUMENT_NESTING, nesting, size_of

#: Index keys by index id.
Keys = dict[int, bytes]

_NO_KEYS: Final[Keys] = {}


@attrs.frozen(slots=True, eq=False)
class Write:
    """One document's change.

    :param old_ts: commit of the version that was there before the transaction, ``None`` for none.
    :param old_keys: its keys in the maintained indexes.
    :param json: the new version, ``None`` for a deletion.
    """

    tablet: int
    id: bytes
    old_ts: int | None
    old_json: bytes | None
    old_keys: Keys
    json: bytes | None
    keys: Keys


@attrs.frozen(slots=True)
class WrittenSize:
    """How large one written document is.

    :param id: its id as functions know it.
    :param size: bytes, as ``values.limits.size_of`` counts them.
    :param nesting: levels of objects and arrays, the document's own included.
    """

    id: str
    size: int
    nesting: int


def _is_kept(write: Write) -> bool:
    return write.json is not None


class WriteSet:
    """The writes of one transaction. Mutable."""

    __slots__ = ("_sorted", "_undo", "generation", "tablets")

    def __init__(self) -> None:
        #: tablet → id → write
        self.tablets: dict[int, dict[bytes, Write]] = {}
        #: grows with every change of a tablet; a stream compares it to know that its page is stale
        self.generation: dict[int, int] = {}
        self._undo: list[tuple[int, bytes, Write | None]] = []
        # (tablet, index) → ascending [(key, id)] of the live own versions; made when an index is first scanned
        self._sorted: dict[tuple[int, int], list[tuple[bytes, bytes]]] = {}

    def __bool__(self) -> bool:
        return any(self.tablets.values())

    def put(self, write: Write) -> None:
        """Set the write of its document."""
        writes = self.tablets.get(write.tablet)
        if writes is None:
            writes = self.tablets[write.tablet] = {}
        previous = writes.get(write.id)
        self._undo.append((write.tablet, write.id, previous))
        writes[write.id] = write
        self._changed(write.tablet, previous, write)

    def _changed(self, tablet: int, previous: Write | None, write: Write | None) -> None:
        self.generation[tablet] = self.generation.get(tablet, 0) + 1
        for (of_tablet, index), entries in self._sorted.items():
            if of_tablet != tablet:
                continue
            if previous is not None and previous.json is not None:
                key = previous.id if index < 0 else previous.keys.get(index)
                if key is not None:
                    position = bisect_left(entries, (key, previous.id))
                    del entries[position]
            if write is not None and write.json is not None:
                key = write.id if index < 0 else write.keys.get(index)
                if key is not None:
                    insort(entries, (key, write.id))

    def entries(self, tablet: int, index: int) -> list[tuple[bytes, bytes]]:
        """The own live versions of a tablet as ascending ``(key, id)`` of one index; not to be changed."""
        entries = self._sorted.get((tablet, index))
        if entries is None:
            entries = []
            for write in self.tablets.get(tablet, {}).values():
                if write.json is not None:
                    key = write.id if index < 0 else write.keys.get(index)
                    if key is not None:
                        entries.append((key, write.id))
            entries.sort()
            self._sorted[(tablet, index)] = entries
        return entries

    def savepoint(self) -> int:
        """A mark for :meth:`rollback_to`."""
        return len(self._undo)

    def rollback_to(self, mark: int) -> None:
        """Undo all writes since *mark*."""
        undo = self._undo
        while len(undo) > mark:
            tablet, document_id, previous = undo.pop()
            writes = self.tablets[tablet]
            current = writes[document_id]
            if previous is None:
                del writes[document_id]
            else:
                writes[document_id] = previous
            self._changed(tablet, current, previous)

    def sizes_above(self, share: float) -> Iterator[WrittenSize]:
        """Documents of users that are larger, or more deeply nested, than *share* of what is allowed; in the order of their writes.

        Few documents are measured: a text that is short and has few brackets cannot belong to one.
        """
        max_text = MAX_DOCUMENT_BYTES * share / SIZE_PER_JSON_BYTE
        max_brackets = MAX_DOCUMENT_NESTING * share
        for tablet, writes in self.tablets.items():
            if tablet <= LAST_FIXED_ID:
                continue
            for write in writes.values():
                json = write.json
                if json is None or (len(json) <= max_text and json.count(b"{") + json.count(b"[") <= max_brackets):
                    continue
                document = loads(json, allow_commit_ts=True)
                size, levels = size_of(document), nesting(document)
                if size > MAX_DOCUMENT_BYTES * share or levels > MAX_DOCUMENT_NESTING * share:
                    yield WrittenSize(document["_id"], size, levels)

    def changes(self) -> tuple[DocumentChange, ...]:
        """What to commit, in a fixed order; documents that came and went inside the transaction are left out.

        Deletions come first within a tablet, because the key of a unique index may pass from a deleted document to another one.
        """
        changes = []
        for writes in self.tablets.values():
            for write in sorted(writes.values(), key=_is_kept):
                if write.old_json is None and write.json is None:
                    continue
                old_keys, keys = write.old_keys, write.keys if write.json is not None else _NO_KEYS
                changes.append(
                    DocumentChange(
                        write.tablet,
                        write.id,
                        write.old_ts,
                        write.old_json,
                        write.json,
                        tuple(
                            [(index, key, keys.get(index)) for index, key in old_keys.items()]
                            + [(index, None, key) for index, key in keys.items() if index not in old_keys]
                        ),
                    )
                )
        return tuple(changes)
