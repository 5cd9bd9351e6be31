"""The catalog: which tables, indexes and schemas exist at a timestamp.

A :class:`Catalog` is immutable. Each commit that touched a catalog table makes a new one; the :class:`CatalogManager` keeps those of the
write log's window, so that a run at an older snapshot sees the names of its own time (A2). Reading the catalog records reads of the system
rows behind it: the keys are made once, with the entry.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from convex_backend.database.system_tables import (
    CATALOG_TABLETS,
    COMPONENTS,
    FIRST_USER_TABLE_NUMBER,
    INDEX,
    LAST_FIXED_ID,
    SCHEMAS,
    SYSTEM_TABLETS,
    TABLES,
    VIRTUAL_NUMBERS,
)
from convex_backend.errors import OutOfRetention
from convex_backend.interfaces import IPersistence, Row
from convex_backend.values.json_codec import loads
from convex_backend.values.schema import SchemaDefinition
from convex_backend.values.sort_key import encode_key, encode_value, successor

BACKFILLING: Final = "backfilling"
BACKFILLED: Final = "backfilled"
ENABLED: Final = "enabled"

_TABLES_BY_NAME: Final = TABLES.index("by_name").id
_TABLES_BY_NUMBER: Final = TABLES.index("by_number").id
_INDEX_BY_NAME: Final = INDEX.index("by_name").id
_SCHEMAS_BY_STATE: Final = SCHEMAS.index("by_state").id
_COMPONENTS_BY_ID: Final = COMPONENTS.index("by_component").id

Point = tuple[int, bytes]
Interval = tuple[int, bytes, bytes | None]


def table_name_point(component: int, name: str) -> Point:
    """The read that "which table is called *name*" makes, whether it exists or not."""
    return _TABLES_BY_NAME, encode_key((component, name, None))


def table_number_point(component: int, number: int) -> Point:
    """The read that "which table has *number*" makes."""
    return _TABLES_BY_NUMBER, encode_key((component, number, None))


def index_point(tablet: int, name: str, slot: str) -> Point:
    """The read that "which index of the tablet is called *name*" makes; *slot* is ``enabled`` or ``pending``."""
    return _INDEX_BY_NAME, encode_key((tablet, name, slot))


def indexes_interval(tablet: int) -> Interval:
    """The read that "which indexes must a write to the tablet keep" makes."""
    prefix = encode_value(tablet)
    return _INDEX_BY_NAME, prefix, successor(prefix)


def schemas_interval(component: int) -> Interval:
    """The read that "which schemas must a write satisfy" makes."""
    prefix = encode_value(component)
    return _SCHEMAS_BY_STATE, prefix, successor(prefix)


def component_state_point(component: int) -> Point:
    """The read that "is the component mounted" makes."""
    return _COMPONENTS_BY_ID, encode_key((component,))


@attrs.frozen(slots=True, eq=False)
class IndexInfo:
    """One index of a tablet.

    :param id: internal index id; ``-tablet`` for ``by_id``.
    :param row_id: internal id of its ``_index`` row, empty for ``by_id``.
    :param kind: ``database``, ``search`` or ``vector``.
    :param fields: for a database index the fields in the server's form, ``_creationTime`` included; ``("_id",)`` for ``by_id``.
    :param spec: the definition as the push showed it, JSON object (search and vector indexes), or ``None``.
    :param state: ``backfilling``, ``backfilled`` or ``enabled``.
    :param staged: never enabled by a push while it is set.
    """

    id: int
    row_id: bytes
    tablet: int
    name: str
    kind: str
    fields: tuple[str, ...]
    spec: Any
    state: str
    staged: bool
    point: Point
    paths: tuple[tuple[str, ...], ...]

    @property
    def queryable(self) -> bool:
        """Whether functions may query it."""
        return self.state == ENABLED

    @property
    def slot(self) -> str:
        """``enabled`` or ``pending``: at most one index of each slot has one name."""
        return "enabled" if self.state == ENABLED else "pending"


def _index_info(row_id: bytes, row: Mapping[str, Any]) -> IndexInfo:
    fields = tuple(row["fields"])
    return IndexInfo(
        id=row["index"],
        row_id=row_id,
        tablet=row["tablet"],
        name=row["name"],
        kind=row["kind"],
        fields=fields,
        spec=row["spec"],
        state=row["state"],
        staged=row["staged"],
        point=index_point(row["tablet"], row["name"], row["slot"]),
        paths=tuple(tuple(field.split(".")) for field in fields),
    )


@attrs.frozen(slots=True, eq=False)
class TableInfo:
    """One tablet.

    :param row_id: internal id of its ``_tables`` row.
    :param indexes: all of its indexes but ``by_id``.
    :param maintained: its database indexes, which every write keeps.
    :param by_id: the implicit index over ids.
    """

    row_id: bytes
    tablet: int
    component: int
    name: str
    number: int
    hidden: bool
    indexes: tuple[IndexInfo, ...]
    maintained: tuple[IndexInfo, ...]
    by_id: IndexInfo
    name_point: Point
    number_point: Point
    indexes_interval: Interval

    @property
    def virtual(self) -> bool:
        """Whether it is a table that functions read by ``db.system`` and only the server writes."""
        return self.number in VIRTUAL_NUMBERS

    def index(self, name: str) -> IndexInfo | None:
        """The index that a query of *name* uses: the enabled one if there is one, else the pending one."""
        if name == "by_id":
            return self.by_id
        found = None
        for index in self.indexes:
            if index.name == name:
                if index.state == ENABLED:
                    return index
                found = index
        return found


def _table_info(row_id: bytes, row: Mapping[str, Any], indexes: tuple[IndexInfo, ...]) -> TableInfo:
    tablet: int = row["tablet"]
    by_id = IndexInfo(
        -tablet, b"", tablet, "by_id", "database", ("_id",), None, ENABLED, False, (-tablet, b""), (("_id",),)
    )
    return TableInfo(
        row_id=row_id,
        tablet=tablet,
        component=row["component"],
        name=row["name"],
        number=row["number"],
        hidden=row["hidden"] is not None,
        indexes=indexes,
        maintained=tuple(index for index in indexes if index.kind == "database"),
        by_id=by_id,
        name_point=table_name_point(row["component"], row["name"]),
        number_point=table_number_point(row["component"], row["number"]),
        indexes_interval=indexes_interval(tablet),
    )


@attrs.frozen(slots=True, eq=False)
class SchemaInfo:
    """One row of ``_schemas``. ``definition`` is parsed once, here."""

    row_id: bytes
    component: int
    state: str
    definition: SchemaDefinition
    text: str


class CatalogNames:
    """Table names of one component by number, for validators of ids (``validators.TableNames``)."""

    __slots__ = ("_catalog", "_component")

    def __init__(self, catalog: Catalog, component: int) -> None:
        self._catalog = catalog
        self._component = component

    def table_of_number(self, number: int, /) -> tuple[str, bool] | None:
        """:returns: the name and whether it is a private system table, or ``None``."""
        table = self._catalog.by_number.get((self._component, number))
        if table is not None:
            return table.name, False
        virtual = VIRTUAL_NUMBERS.get(number)
        if virtual is not None:
            return virtual, False
        system = SYSTEM_TABLETS.get(number)
        return (system.name, True) if system is not None else None


@attrs.frozen(slots=True, eq=False)
class Catalog:
    """All tables, indexes and schemas, as of ``ts``. Never changed.

    :param component_rows: component by internal row id, of those that are not mounted; their data may be read but not written.
    """

    ts: int
    by_tablet: dict[int, TableInfo]
    by_name: dict[tuple[int, str], TableInfo]
    by_number: dict[tuple[int, int], TableInfo]
    index_rows: dict[bytes, IndexInfo]
    table_rows: dict[bytes, int]
    schemas: dict[bytes, SchemaInfo]
    active: dict[int, SchemaInfo]
    pending: dict[int, SchemaInfo]
    component_rows: dict[bytes, int] = attrs.field(factory=dict)
    _numbers: dict[int, dict[str, int]] = attrs.field(factory=dict, init=False)

    @classmethod
    def empty(cls, ts: int = 0) -> Catalog:
        """The catalog of a new file."""
        return cls(ts, {}, {}, {}, {}, {}, {}, {}, {})

    def table(self, component: int, name: str) -> TableInfo | None:
        """The table that *name* means in a component."""
        return self.by_name.get((component, name))

    def tables_of(self, component: int) -> list[TableInfo]:
        """The visible user tables of a component, by name; virtual tables are not among them."""
        found = [
            table
            for table in self.by_tablet.values()
            if table.component == component and not table.hidden and not table.virtual
        ]
        return sorted(found, key=lambda table: table.name)

    def is_mounted(self, component: int) -> bool:
        """Whether functions may write to the component."""
        return not self.component_rows or component not in self.component_rows.values()

    def names(self, component: int) -> CatalogNames:
        """Table names by number, as validators of ids need them."""
        return CatalogNames(self, component)

    def table_numbers(self, component: int) -> Mapping[str, int]:
        """Numbers of the visible user tables of a component, by name; made once and shared."""
        numbers = self._numbers.get(component)
        if numbers is None:
            numbers = self._numbers[component] = {table.name: table.number for table in self.tables_of(component)}
        return numbers

    def first_free_number(self, component: int) -> int:
        """The number that a new table of the component gets (``runtime.md`` section 5.4)."""
        number = FIRST_USER_TABLE_NUMBER
        taken = {table.number for table in self.by_tablet.values() if table.component == component}
        while number in taken:
            number += 1
        return number

    def largest_internal_id(self) -> int:
        """The greatest tablet or index id in use."""
        largest = LAST_FIXED_ID
        for table in self.by_tablet.values():
            largest = max(largest, table.tablet, *(index.id for index in table.indexes))
        return largest

    def apply(self, ts: int, changes: Iterable[tuple[int, bytes, bytes | None]]) -> Catalog:
        """The catalog after a commit.

        :param changes: ``(tablet, internal id, new JSON or None)``; tablets that are not part of the catalog are skipped.
        """
        tables: dict[bytes, Mapping[str, Any] | None] = {}
        index_rows = dict(self.index_rows)
        schemas = dict(self.schemas)
        component_rows = self.component_rows
        touched: set[int] = set()
        for tablet, row_id, json in changes:
            if tablet not in CATALOG_TABLETS:
                continue
            row = loads(json) if json is not None else None
            if tablet == TABLES.tablet:
                tables[row_id] = row
            elif tablet == INDEX.tablet:
                previous = index_rows.pop(row_id, None)
                if previous is not None:
                    touched.add(previous.tablet)
                if row is not None:
                    index_rows[row_id] = _index_info(row_id, row)
                    touched.add(row["tablet"])
            elif tablet == COMPONENTS.tablet:
                component_rows = {key: one for key, one in component_rows.items() if key != row_id}
                if row is not None and row["state"] != "active":
                    component_rows[row_id] = row["component"]
            else:
                known = schemas.pop(row_id, None)
                if row is not None:
                    text = row["schema"]
                    definition = (
                        known.definition
                        if known is not None and known.text == text
                        else SchemaDefinition.from_stored(text)
                    )
                    schemas[row_id] = SchemaInfo(row_id, row["component"], row["state"], definition, text)
        return self._rebuilt(ts, tables, index_rows, schemas, touched, component_rows)

    def _rebuilt(
        self,
        ts: int,
        tables: Mapping[bytes, Mapping[str, Any] | None],
        index_rows: dict[bytes, IndexInfo],
        schemas: dict[bytes, SchemaInfo],
        touched: set[int],
        component_rows: dict[bytes, int],
    ) -> Catalog:
        by_tablet = dict(self.by_tablet)
        table_rows = dict(self.table_rows)
        of_tablet: dict[int, list[IndexInfo]] = {}
        interesting = touched | {row["tablet"] for row in tables.values() if row is not None}
        for index in index_rows.values():
            if index.tablet in interesting:
                of_tablet.setdefault(index.tablet, []).append(index)

        for row_id, row in tables.items():
            tablet = table_rows.pop(row_id, None)
            if tablet is not None:
                by_tablet.pop(tablet, None)
            if row is not None:
                table_rows[row_id] = row["tablet"]
                by_tablet[row["tablet"]] = _table_info(row_id, row, _ordered(of_tablet.get(row["tablet"], ())))
        for tablet in touched:
            table = by_tablet.get(tablet)
            if table is not None:
                indexes = _ordered(of_tablet.get(tablet, ()))
                maintained = tuple(index for index in indexes if index.kind == "database")
                by_tablet[tablet] = attrs.evolve(table, indexes=indexes, maintained=maintained)

        visible = [table for table in by_tablet.values() if not table.hidden]
        return Catalog(
            ts=ts,
            by_tablet=by_tablet,
            by_name={(table.component, table.name): table for table in visible},
            by_number={(table.component, table.number): table for table in visible},
            index_rows=index_rows,
            table_rows=table_rows,
            schemas=schemas,
            active={info.component: info for info in schemas.values() if info.state == "active"},
            pending={info.component: info for info in schemas.values() if info.state in ("pending", "validated")},
            component_rows=component_rows,
        )


def _ordered(indexes: Iterable[IndexInfo]) -> tuple[IndexInfo, ...]:
    return tuple(sorted(indexes, key=lambda index: index.id))


class CatalogManager:
    """The catalogs of the write log's window, by commit timestamp.

    Told of every commit when it becomes pending (:meth:`on_commit`), of a failed group (:meth:`drop_after`) and of the window's floor
    (:meth:`trim`). An older catalog is read from history (:meth:`load`).
    """

    def __init__(self, persistence: IPersistence) -> None:
        self._persistence = persistence
        self._versions: list[Catalog] = [Catalog.empty()]
        self._timestamps: list[int] = [0]
        self.newest: Catalog = self._versions[0]

    def start(self, ts: int) -> None:
        """Read the current catalog rows; they are those of *ts*, the last commit in the file."""
        self._reset(Catalog.empty().apply(ts, current_rows(self._persistence, CATALOG_TABLETS)))

    def _reset(self, catalog: Catalog) -> None:
        self._versions, self._timestamps, self.newest = [catalog], [catalog.ts], catalog

    @property
    def floor_ts(self) -> int:
        """The oldest timestamp that :meth:`at` serves."""
        return self._timestamps[0]

    def at(self, ts: int) -> Catalog:
        """The catalog that a snapshot at *ts* sees.

        :raises OutOfRetention: *ts* is older than the window; use :meth:`load`.
        """
        if ts >= self.newest.ts:
            return self.newest
        position = bisect_right(self._timestamps, ts)
        if position == 0:
            raise OutOfRetention
        return self._versions[position - 1]

    async def load(self, ts: int) -> Catalog:
        """The catalog as of *ts*, from history when it is older than the window."""
        if ts >= self.floor_ts:
            return self.at(ts)
        changes: list[tuple[int, bytes, bytes | None]] = []
        for tablet in sorted(CATALOG_TABLETS):
            lower = b""
            while True:
                rows: list[Row] = await self._persistence.scan_documents_at(tablet, lower, None, False, 1000, ts)
                changes.extend((tablet, row.id, row.json) for row in rows)
                if len(rows) < 1000:
                    break
                lower = rows[-1].key + b"\x00"
        return Catalog.empty().apply(ts, changes)

    def on_commit(self, ts: int, changes: Iterable[tuple[int, bytes, bytes | None]]) -> None:
        """Take in a commit that has just become pending; cheap when it touched no catalog table."""
        relevant = [change for change in changes if change[0] in CATALOG_TABLETS]
        if not relevant:
            return
        self.newest = self.newest.apply(ts, relevant)
        self._versions.append(self.newest)
        self._timestamps.append(ts)

    def drop_after(self, ts: int) -> None:
        """Forget what commits above *ts* did: their group failed (A5)."""
        position = bisect_right(self._timestamps, ts)
        if position == 0:
            raise AssertionError("the catalog window starts above a durable timestamp")
        del self._versions[position:], self._timestamps[position:]
        self.newest = self._versions[-1]

    def trim(self, floor_ts: int) -> None:
        """Forget versions that no snapshot at or above *floor_ts* needs."""
        position = bisect_right(self._timestamps, floor_ts) - 1
        if position > 0:
            del self._versions[:position], self._timestamps[:position]


def current_rows(persistence: IPersistence, tablets: Iterable[int]) -> Iterable[tuple[int, bytes, bytes | None]]:
    """Every current row of *tablets*, as ``(tablet, internal id, JSON)``: what a state in memory is made of at start."""
    for tablet in sorted(tablets):
        lower = b""
        while True:
            rows: list[Row] = persistence.scan_documents(tablet, lower, None, False, 1000)
            for row in rows:
                yield tablet, row.id, row.json
            if len(rows) < 1000:
                break
            lower = rows[-1].key + b"\x00"
