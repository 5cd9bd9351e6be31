"""``_storage`` and ``_scheduled_functions`` as server code writes them: the documents that functions see through ``db.system``.

Each component has a tablet for each, made with its first document. Rows are ordinary documents to everybody who reads them (read sets, queries,
pages, subscriptions), but no schema is asked, nothing counts against the limits of a function, and only this class writes them. What users
may not see lies in a system table beside it, keyed by the document's id.

Source: ``runtime.md`` section 5.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from convex_backend.database.catalog import TableInfo, table_name_point
from convex_backend.database.index_keys import document_keys
from convex_backend.database.query.stream import walk
from convex_backend.database.system_tables import VIRTUAL_TABLES
from convex_backend.database.tables import ensure_virtual_table
from convex_backend.database.writes import Write
from convex_backend.values.ids import decode_id, encode_id
from convex_backend.values.json_codec import dumps, loads
from convex_backend.values.kinds import UNDEFINED, InvalidValue

if TYPE_CHECKING:
    from convex_backend.database.transaction import Transaction

_PAGE = 256


class VirtualRows:
    """The virtual tables as one transaction sees them; ``name`` is always ``_storage`` or ``_scheduled_functions``."""

    __slots__ = ("_transaction",)

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def _table(self, component: int, name: str) -> TableInfo | None:
        """The tablet, if there is one yet; that is recorded as read."""
        transaction = self._transaction
        await transaction.ensure_begun()
        table = transaction.catalog.table(component, name)
        if table is None:
            transaction.add_system_point(*table_name_point(component, name))
        else:
            transaction.note_table(table)
        return table

    @staticmethod
    def _internal_id(name: str, id: str) -> bytes | None:
        try:
            number, internal_id = decode_id(id)
        except InvalidValue:
            return None
        return internal_id if number == VIRTUAL_TABLES[name] else None

    async def get(self, component: int, name: str, id: str) -> dict[str, Any] | None:
        """The document with its system fields; ``None`` when there is none, or *id* is no id of this table."""
        internal_id = self._internal_id(name, id)
        if internal_id is None:
            return None
        table = await self._table(component, name)
        if table is None:
            return None
        found = await self._transaction.read_row(table.tablet, internal_id)
        document: dict[str, Any] | None = loads(found[1]) if found is not None else None
        return document

    async def scan(self, component: int, name: str, limit: int | None = None) -> list[dict[str, Any]]:
        """Documents in id order, at most *limit*; the read is the whole table."""
        transaction = self._transaction
        table = await self._table(component, name)
        if table is None:
            return []
        transaction.add_system_interval(-table.tablet, b"", None)
        found: list[dict[str, Any]] = []
        lower = b""
        while limit is None or len(found) < limit:
            wanted = _PAGE if limit is None else min(_PAGE, limit - len(found))
            rows, done = await walk(
                transaction.snapshot, transaction.writes, -table.tablet, table.tablet, lower, None, False, wanted
            )
            found.extend(loads(json) for _, json in rows)
            if done:
                break
            lower = rows[-1][0] + b"\x00"
        return found

    async def insert(self, component: int, name: str, value: Mapping[str, Any]) -> str:
        """Add a document; the table is made if this is its first.

        :param value: a Convex object without system fields.
        :returns: its id, which functions may use at once.
        """
        transaction = self._transaction
        table = await ensure_virtual_table(transaction, component, name)
        internal_id = transaction.new_internal_id()
        document_id = encode_id(table.number, internal_id)
        document = {**value, "_id": document_id, "_creationTime": transaction.next_creation_time()}
        self._note_writing(table)
        keys = document_keys(table.maintained, document)
        transaction.writes.put(Write(table.tablet, internal_id, None, None, {}, dumps(document), keys))
        return document_id

    async def patch(self, component: int, name: str, id: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Set top-level fields, or delete those that are ``UNDEFINED``.

        :returns: the new document.
        :raises KeyError: there is no such document.
        """
        table, internal_id, found = await self._existing(component, name, id)
        old = loads(found[1])
        document = {field: value for field, value in {**old, **fields}.items() if value is not UNDEFINED}
        self._put(table, internal_id, found, old, document)
        return document

    async def delete(self, component: int, name: str, id: str) -> dict[str, Any]:
        """Remove a document.

        :returns: what it was.
        :raises KeyError: there is no such document.
        """
        table, internal_id, found = await self._existing(component, name, id)
        old: dict[str, Any] = loads(found[1])
        self._put(table, internal_id, found, old, None)
        return old

    async def _existing(self, component: int, name: str, id: str) -> tuple[TableInfo, bytes, tuple[int | None, bytes]]:
        internal_id = self._internal_id(name, id)
        table = await self._table(component, name) if internal_id is not None else None
        found = None
        if table is not None and internal_id is not None:
            found = await self._transaction.read_row(table.tablet, internal_id)
        if table is None or internal_id is None or found is None:
            raise KeyError(f"{name} has no document {id}")
        self._note_writing(table)
        return table, internal_id, found

    def _note_writing(self, table: TableInfo) -> None:
        """A write depends on what the table's name means and on all its indexes; on no schema."""
        self._transaction.note_table(table)
        self._transaction.add_system_interval(*table.indexes_interval)

    def _put(
        self,
        table: TableInfo,
        internal_id: bytes,
        found: tuple[int | None, bytes],
        old: dict[str, Any],
        document: dict[str, Any] | None,
    ) -> None:
        old_ts, old_json, old_keys = self._transaction.stored(table, internal_id, found, old)
        json, keys = (None, {}) if document is None else (dumps(document), document_keys(table.maintained, document))
        self._transaction.writes.put(Write(table.tablet, internal_id, old_ts, old_json, old_keys, json, keys))
