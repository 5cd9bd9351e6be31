"""Commit timestamps in documents: the placeholders that a mutation wrote become its timestamp when that is known.

A transaction keeps such documents as they were written, with the placeholder, which sorts as the largest int64. The committer calls the
:class:`Resolver` between the choice of the timestamp and the commit's entry in the log, so nobody else ever sees a placeholder.

Source: ``runtime.md`` section 10.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from convex_backend.database.catalog import Catalog
from convex_backend.database.index_keys import document_keys
from convex_backend.database.write_log import DocumentChange
from convex_backend.values.commit_ts import MARK, resolve
from convex_backend.values.json_codec import dumps, loads


@attrs.frozen(slots=True, eq=False)
class Resolver:
    """:param catalog: the transaction's: it has read which indexes its tables have."""

    catalog: Catalog

    def __call__(self, changes: Sequence[DocumentChange], ts: int) -> tuple[DocumentChange, ...]:
        """:returns: *changes* as they are committed at *ts*, texts and index keys."""
        return tuple([self._resolved(change, ts) for change in changes])

    def _resolved(self, change: DocumentChange, ts: int) -> DocumentChange:
        json = change.new_json
        table = self.catalog.by_tablet.get(change.tablet)
        if json is None or table is None or MARK not in json:
            return change
        document = resolve(loads(json, allow_commit_ts=True), ts)
        keys = document_keys(table.maintained, document)
        return attrs.evolve(
            change,
            new_json=dumps(document),
            index_changes=tuple([(index, old, keys.get(index, new)) for index, old, new in change.index_changes]),
        )
