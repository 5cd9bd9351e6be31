"""What a push changes: indexes by name and definition.

At most two indexes of a table share a name: an *enabled* one, which queries use, and a *pending* one, which is being built or is staged.
Source: ``push.md`` section 9.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import attrs

from convex_backend.database.catalog import ENABLED, Catalog, IndexInfo, TableInfo
from convex_backend.values.schema import DATABASE, SEARCH, IndexDefinition, SchemaDefinition

_BUILT_IN: Final = "by_creation_time"


def spec_of(definition: IndexDefinition) -> dict[str, Any] | None:
    """What is stored of a search or vector index as ``IndexInfo.spec``."""
    if definition.kind == DATABASE:
        return None
    if definition.kind == SEARCH:
        return {"searchField": definition.target_field, "filterFields": list(definition.filter_fields)}
    return {
        "vectorField": definition.target_field,
        "dimensions": definition.dimensions,
        "filterFields": list(definition.filter_fields),
    }


def same_index(index: IndexInfo, definition: IndexDefinition) -> bool:
    """Whether *index* is what *definition* asks for, staged or not."""
    return (
        index.kind == definition.kind
        and index.fields == definition.fields
        and (index.kind == DATABASE or index.spec == spec_of(definition))
    )


def index_json(table: str, name: str, kind: str, fields: tuple[str, ...], spec: Any, *, staged: bool) -> dict[str, Any]:
    """An index as the CLI prints it."""
    tree: dict[str, Any] = {"name": f"{table}.{name}", "type": kind}
    if staged:
        tree["staged"] = True
    return tree | ({"fields": list(fields)} if kind == DATABASE else spec)


@attrs.frozen(slots=True)
class IndexChange:
    """One index that a push touches or keeps.

    :param change: ``added``, ``removed``, ``enabled``, ``disabled`` or ``identical``.
    :param definition: ``None`` for a removed one. :param index: the present one, ``None`` for an added one.
    """

    change: str
    table: str
    definition: IndexDefinition | None
    index: IndexInfo | None

    def to_json(self) -> dict[str, Any]:
        """See :func:`index_json`."""
        definition, index = self.definition, self.index
        if definition is not None:
            return index_json(
                self.table,
                definition.name,
                definition.kind,
                definition.fields,
                spec_of(definition),
                staged=definition.staged,
            )
        assert index is not None
        return index_json(self.table, index.name, index.kind, index.fields, index.spec, staged=index.staged)


def present_indexes(table: TableInfo) -> list[IndexInfo]:
    """The indexes of *table* that schemas define."""
    return [index for index in table.indexes if index.name != _BUILT_IN]


def matching(table: TableInfo | None, definition: IndexDefinition) -> IndexInfo | None:
    """The present index that *definition* asks for: a pending one first, since it is the newer."""
    found = None
    for index in present_indexes(table) if table is not None else ():
        if index.name == definition.name and same_index(index, definition):
            if index.state != ENABLED:
                return index
            found = index
    return found


def index_changes(catalog: Catalog, component: int, schema: SchemaDefinition | None) -> list[IndexChange]:
    """All indexes of the component, present and wanted; without a schema all are removed."""
    wanted = schema.tables if schema is not None else {}
    changes: list[IndexChange] = []
    for name, definition in wanted.items():
        table = catalog.table(component, name)
        for index in definition.indexes:
            present = matching(table, index)
            changes.append(IndexChange(_change(present, index), name, index, present))
    kept = {change.index.row_id for change in changes if change.index is not None}
    for table in catalog.tables_of(component):
        for present in present_indexes(table):
            if present.row_id not in kept:
                changes.append(IndexChange("removed", table.name, None, present))
    return changes


def _change(present: IndexInfo | None, definition: IndexDefinition) -> str:
    if present is None:
        return "added"
    was_staged = present.staged
    if was_staged == definition.staged:
        return "identical"
    return "enabled" if was_staged else "disabled"


def diff_json(changes: list[IndexChange]) -> dict[str, list[dict[str, Any]]]:
    """``{added_indexes, removed_indexes, enabled_indexes, disabled_indexes}``."""

    def of(kind: str) -> Iterator[dict[str, Any]]:
        return (change.to_json() for change in changes if change.change == kind)

    return {f"{kind}_indexes": list(of(kind)) for kind in ("added", "removed", "enabled", "disabled")}
