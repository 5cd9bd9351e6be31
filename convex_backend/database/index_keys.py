"""The index keys of a document: its values at the index's fields, then ``_creationTime``, then its id as text.

Source: ``runtime.md`` sections 3.1 and 4.4.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from convex_backend.database.catalog import IndexInfo
from convex_backend.database.system_tables import SystemTable
from convex_backend.values.kinds import UNDEFINED
from convex_backend.values.sort_key import encode_value


def field_value(document: dict[str, Any], path: tuple[str, ...]) -> Any:
    """The value at *path*, or ``UNDEFINED``; paths do not enter arrays."""
    current: Any = document
    for name in path:
        if type(current) is not dict:
            return UNDEFINED
        current = current.get(name, UNDEFINED)
    return current


def document_keys(indexes: Iterable[IndexInfo], document: dict[str, Any]) -> dict[int, bytes]:
    """The keys of a document with its system fields, by index id.

    :param indexes: database indexes; all but ``by_id`` end in ``_creationTime``.
    """
    tail = encode_value(document["_creationTime"]) + encode_value(document["_id"])
    keys = {}
    for index in indexes:
        paths = index.paths
        if len(paths) == 1:
            keys[index.id] = tail
        elif len(paths) == 2 and len(paths[0]) == 1:
            keys[index.id] = encode_value(document.get(paths[0][0], UNDEFINED)) + tail
        else:
            keys[index.id] = b"".join([encode_value(field_value(document, path)) for path in paths[:-1]]) + tail
    return keys


def system_keys(table: SystemTable, document: dict[str, Any]) -> dict[int, bytes]:
    """The keys of a system document, by index id."""
    keys = {}
    for index in table.indexes:
        key = b"".join([encode_value(document.get(field, UNDEFINED)) for field in index.fields])
        if not index.unique:
            key += encode_value(document["_creationTime"]) + encode_value(document["_id"])
        keys[index.id] = key
    return keys
