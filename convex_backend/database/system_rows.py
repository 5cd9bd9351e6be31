"""Reading and writing system tables inside a transaction: rows in, rows out, no schema and no limits.

What the models of the application (modules, environment, …) are built on. Reads are recorded like any other, so whoever depends on a system row
is told when it changes (A8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convex_backend.database.index_keys import system_keys
from convex_backend.database.query.stream import walk
from convex_backend.database.system_tables import CATALOG_TABLETS, SYSTEM_TABLES, SystemTable
from convex_backend.database.writes import Write
from convex_backend.errors import Conflict
from convex_backend.values.ids import decode_id, encode_id
from convex_backend.values.json_codec import dumps, loads
from convex_backend.values.sort_key import encode_key, successor

if TYPE_CHECKING:
    from convex_backend.database.transaction import Transaction

#: Internal id, and the document with its system fields.
SystemRow = tuple[bytes, dict[str, Any]]

_PAGE = 256


class SystemRows:
    """The system tables as one transaction sees them."""

    __slots__ = ("_transaction",)

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def get(self, table: str, id: bytes) -> SystemRow | None:
        """The row with internal id *id*."""
        transaction = self._transaction
        await transaction.ensure_begun()
        tablet = SYSTEM_TABLES[table].tablet
        transaction.add_system_point(-tablet, id)
        own = transaction.writes.tablets.get(tablet, {}).get(id)
        if own is not None:
            return (id, loads(own.json)) if own.json is not None else None
        row = await transaction.snapshot.get(tablet, id)
        return (id, loads(row.json)) if row is not None else None

    async def lookup(self, table: str, index: str, values: Sequence[Any]) -> SystemRow | None:
        """The row whose fields of a **unique** index equal *values*; one point read, made whether it exists or not.

        :param values: one for each field of the index.
        """
        transaction = self._transaction
        await transaction.ensure_begun()
        definition = SYSTEM_TABLES[table]
        found = definition.index(index)
        if not found.unique or len(values) != len(found.fields):
            raise ValueError(f"{table}.{index} cannot be looked up by {len(values)} values")
        key = encode_key(values)
        if transaction.is_hot_point(found.id, key):
            await transaction.claim(((found.id, key),))
        transaction.add_system_point(found.id, key)
        rows, _ = await walk(
            transaction.snapshot, transaction.writes, found.id, definition.tablet, key, key + b"\x00", False, 1
        )
        if not rows:
            return None
        document = loads(rows[0][1])
        return _internal_id(document), document

    async def scan(
        self, table: str, index: str | None = None, prefix: Sequence[Any] = (), limit: int | None = None
    ) -> list[SystemRow]:
        """Rows in index order whose first fields equal *prefix*; without *index* all rows by id. The read is the whole interval.

        :param limit: at most so many; the read is the whole interval all the same.
        """
        transaction = self._transaction
        await transaction.ensure_begun()
        definition = SYSTEM_TABLES[table]
        index_id = definition.index(index).id if index is not None else -definition.tablet
        lower = encode_key(prefix)
        upper = successor(lower) if prefix else None
        if transaction.is_hot_interval(index_id, lower, upper):
            await transaction.claim(((index_id, lower, upper),))
        transaction.add_system_interval(index_id, lower, upper)
        found: list[SystemRow] = []
        while limit is None or len(found) < limit:
            wanted = _PAGE if limit is None else min(_PAGE, limit - len(found))
            rows, done = await walk(
                transaction.snapshot,
                transaction.writes,
                index_id,
                definition.tablet,
                lower,
                upper,
                False,
                wanted,
            )
            for _, json in rows:
                document = loads(json)
                found.append((_internal_id(document), document))
            if done:
                break
            lower = rows[-1][0] + b"\x00"
        return found

    async def insert(self, table: str, value: Mapping[str, Any]) -> bytes:
        """Add a row.

        :param value: without system fields.
        :returns: its internal id.
        :raises Conflict: ``SystemRowExists``: a unique index has such a row.
        """
        transaction = self._transaction
        await transaction.ensure_begun()
        definition = SYSTEM_TABLES[table]
        row_id = transaction.new_internal_id()
        document = {
            **value,
            "_id": encode_id(definition.number, row_id),
            "_creationTime": transaction.next_creation_time(),
        }
        keys = system_keys(definition, document)
        await self._check_unique(definition, document, {})
        self._put(Write(definition.tablet, row_id, None, None, {}, dumps(document), keys))
        return row_id

    async def patch(self, table: str, id: bytes, fields: Mapping[str, Any]) -> None:
        """Set *fields* of a row. :raises KeyError: there is no such row."""
        row = await self.get(table, id)
        if row is None:
            raise KeyError(f"{table} has no row {id.hex()}")
        await self._store(table, id, {**row[1], **fields})

    async def replace(self, table: str, id: bytes, value: Mapping[str, Any]) -> None:
        """Replace a row but for its system fields. :raises KeyError: there is no such row."""
        row = await self.get(table, id)
        if row is None:
            raise KeyError(f"{table} has no row {id.hex()}")
        await self._store(table, id, {**value, "_id": row[1]["_id"], "_creationTime": row[1]["_creationTime"]})

    async def delete(self, table: str, id: bytes) -> None:
        """Delete a row. :raises KeyError: there is no such row."""
        if await self.get(table, id) is None:
            raise KeyError(f"{table} has no row {id.hex()}")
        await self._store(table, id, None)

    async def _store(self, table: str, id: bytes, document: dict[str, Any] | None) -> None:
        transaction = self._transaction
        definition = SYSTEM_TABLES[table]
        tablet = definition.tablet
        own = transaction.writes.tablets.get(tablet, {}).get(id)
        if own is not None:
            old_ts, old_json, old_keys, current = own.old_ts, own.old_json, own.old_keys, own.keys
        else:
            row = await transaction.snapshot.get(tablet, id)
            if row is None:
                raise KeyError(f"{table} has no row {id.hex()}")
            old_ts, old_json = row.ts, row.json
            old_keys = current = system_keys(definition, loads(row.json))
        if document is None:
            self._put(Write(tablet, id, old_ts, old_json, old_keys, None, {}))
            return
        keys = system_keys(definition, document)
        await self._check_unique(definition, document, current)
        self._put(Write(tablet, id, old_ts, old_json, old_keys, dumps(document), keys))

    async def _check_unique(self, table: SystemTable, document: dict[str, Any], current: dict[int, bytes]) -> None:
        """Look before writing: the look is also what makes two writers of one key conflict."""
        for index in table.indexes:
            values = [document[field] for field in index.fields]
            if not index.unique or current.get(index.id) == encode_key(values):
                continue
            if await self.lookup(table.name, index.name, values) is not None:
                raise Conflict("SystemRowExists", f"{table.name}.{index.name} already has such a row.")

    def _put(self, write: Write) -> None:
        self._transaction.writes.put(write)
        if write.tablet in CATALOG_TABLETS:
            self._transaction.catalog_changed()


def _internal_id(document: dict[str, Any]) -> bytes:
    return decode_id(document["_id"])[1]
