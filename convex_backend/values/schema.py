"""Schemas: the tables, indexes and document types that ``schema.js`` exports.

Two JSON forms: the module's export, where database indexes do not name the trailing ``_creationTime``, and the server's form,
where they do; all that is stored or sent is the server's form. Keys that we do not know are kept.
Source: ``runtime.md`` sections 1.8, 4.3 and 4.7, ``push.md`` section 6.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any, Final, NoReturn

import attrs
import orjson

from convex_backend.errors import BadRequest
from convex_backend.values.kinds import InvalidValue, Value
from convex_backend.values.limits import SYSTEM_FIELDS, is_identifier
from convex_backend.values.validators import (
    AnyValidator,
    InvalidValidator,
    ObjectValidator,
    TableNames,
    UnionValidator,
    Validator,
    parse,
)

MAX_TABLES: Final = 10_000
MAX_INDEXES_PER_TABLE: Final = 64
MAX_INDEX_FIELDS: Final = 16
MAX_FILTER_FIELDS: Final = 16
MIN_DIMENSIONS: Final = 2
MAX_DIMENSIONS: Final = 4096
#: What the deployment puts in front of index and name faults found while it evaluates ``schema.js``.
EVALUATION_PREFIX: Final = "Hit an error while evaluating your schema:\n"

DATABASE: Final = "database"
SEARCH: Final = "search"
VECTOR: Final = "vector"

_TABLE_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_RESERVED_INDEXES: Final = frozenset(("by_id", "by_creation_time"))
_SEE_DOCS: Final = "To learn more, see the schema documentation at https://docs.convex.dev/database/schemas."
# JSON member of a table -> (kind, staged), in the order of the export.
_INDEX_LISTS: Final = {
    "indexes": (DATABASE, False),
    "stagedDbIndexes": (DATABASE, True),
    "searchIndexes": (SEARCH, False),
    "stagedSearchIndexes": (SEARCH, True),
    "vectorIndexes": (VECTOR, False),
    "stagedVectorIndexes": (VECTOR, True),
}


def _fail(code: str, message: str) -> NoReturn:
    raise BadRequest(code, message)


def table_name_error(name: str) -> tuple[str, str] | None:
    """:returns: (code, text) of why *name* may not be a user table, or ``None``."""
    if name.startswith("_"):
        return "TableNameReserved", f"{name} is a reserved table name."
    if not _TABLE_NAME.fullmatch(name):
        return "InvalidTableName", (
            f'Invalid table name: "{name}". Identifiers must start with a letter and can only contain letters, digits, '
            "and underscores."
        )
    return None


@attrs.frozen(slots=True)
class IndexDefinition:
    """One index of a table.

    :param kind: ``database``, ``search`` or ``vector``.
    :param fields: field paths of a database index, ``_creationTime`` last; empty for the other kinds.
    :param target_field: ``searchField`` or ``vectorField``; empty for a database index.
    :param filter_fields: of a search or vector index.
    :param dimensions: of a vector index, else 0.
    :param staged: built, but not yet to be used by queries.
    :param extra: members of its JSON that we do not know.
    """

    name: str
    kind: str
    fields: tuple[str, ...] = ()
    target_field: str = ""
    filter_fields: tuple[str, ...] = ()
    dimensions: int = 0
    staged: bool = False
    extra: tuple[tuple[str, Any], ...] = attrs.field(default=(), eq=False)

    def to_json(self) -> dict[str, Any]:
        """:returns: the server form."""
        tree: dict[str, Any] = {"indexDescriptor": self.name}
        if self.kind == DATABASE:
            tree["fields"] = list(self.fields)
        elif self.kind == SEARCH:
            tree["searchField"] = self.target_field
            tree["filterFields"] = list(self.filter_fields)
        else:
            tree["vectorField"] = self.target_field
            tree["dimensions"] = self.dimensions
            tree["filterFields"] = list(self.filter_fields)
        return tree | dict(self.extra)


@attrs.frozen(slots=False)
class TableDefinition:
    """One table of a schema.

    :param indexes: of all kinds, in the order of the export.
    :param document_type: object, union of objects, or any.
    :param staged_document_type: a type that is not enforced yet, or ``None``.
    :param extra: members of its JSON that we do not know.
    """

    name: str
    indexes: tuple[IndexDefinition, ...]
    document_type: Validator
    staged_document_type: Validator | None = None
    extra: tuple[tuple[str, Any], ...] = attrs.field(default=(), eq=False)

    def to_json(self) -> dict[str, Any]:
        """:returns: the server form."""
        tree: dict[str, Any] = {"tableName": self.name}
        for member, (kind, staged) in _INDEX_LISTS.items():
            tree[member] = [index.to_json() for index in self.indexes if index.kind == kind and index.staged == staged]
        tree["documentType"] = self.document_type.to_json()
        if self.staged_document_type is not None:
            tree["stagedDocumentType"] = self.staged_document_type.to_json()
        return tree | dict(self.extra)

    @cached_property
    def staged(self) -> TableDefinition | None:
        """The table with its staged type in the place of the enforced one."""
        return None if self.staged_document_type is None else TableDefinition(self.name, (), self.staged_document_type)

    @cached_property
    def _object_types(self) -> tuple[ObjectValidator, ...]:
        """The object types a document may have; empty for ``any``."""
        kind = self.document_type
        members = kind.members if isinstance(kind, UnionValidator) else (kind,)
        return tuple(member for member in members if isinstance(member, ObjectValidator))

    def check_document(self, document: dict[str, Value], names: TableNames) -> str | None:
        """Check a document against the table's type; system fields count only where the type declares them.

        :returns: the text of the first fault, without the prefix that names the table, or ``None``.
        """
        types = self._object_types
        for member in types:
            if member.matches_document(document, names):
                return None
        if isinstance(self.document_type, AnyValidator):
            return None
        if len(types) == 1:
            return types[0].explain(types[0].without_ignored(document), names, "")
        declared = frozenset().union(*(member.fields for member in types))
        shown = {name: value for name, value in document.items() if name not in SYSTEM_FIELDS or name in declared}
        return self.document_type.explain(shown, names, "")


@attrs.frozen(slots=False)
class SchemaDefinition:
    """A whole schema: ``tables`` in the order of the export, ``validated`` whether documents are checked."""

    tables: dict[str, TableDefinition]
    validated: bool
    extra: tuple[tuple[str, Any], ...] = attrs.field(default=(), eq=False)

    @classmethod
    def parse(cls, source: str | bytes | dict[str, Any]) -> SchemaDefinition:
        """Parse the export of ``schema.js`` (JSON text, or its tree).

        :raises BadRequest: with the codes and texts of ``push.md`` section 6, without :data:`EVALUATION_PREFIX`.
        """
        return _parse_schema(source, stored=False)

    @classmethod
    def from_stored(cls, source: str | bytes | dict[str, Any]) -> SchemaDefinition:
        """Parse the server form, as :meth:`to_json` makes it."""
        return _parse_schema(source, stored=True)

    def to_json(self) -> dict[str, Any]:
        """:returns: the server form."""
        tree = {"tables": [table.to_json() for table in self.tables.values()], "schemaValidation": self.validated}
        return tree | dict(self.extra)

    def to_text(self) -> str:
        """:returns: the server form as JSON text."""
        return orjson.dumps(self.to_json()).decode()

    def check_document(self, table: str, document: dict[str, Value], names: TableNames) -> str | None:
        """:returns: the text of why *document* may not be in *table*, or ``None``; tables that are not in the schema, and schemas
        without validation, take every document."""
        if not self.validated:
            return None
        definition = self.tables.get(table)
        return None if definition is None else definition.check_document(document, names)

    def staged_type(self, table: str) -> TableDefinition | None:
        """What writes to *table* are checked against besides its type, without being refused; ``None`` when nothing is."""
        definition = self.tables.get(table) if self.validated else None
        return None if definition is None else definition.staged

    def deletion_error(self, table: str) -> str | None:
        """:returns: the text of why *table* may not be deleted while this schema is active, or ``None``."""
        if table in self.tables:
            return f'Failed to delete table "{table}" because it appears in the schema'
        for other in self.tables.values():
            if table in other.document_type.referenced_tables():
                return (
                    f'Failed to delete table "{table}" because `v.id("{table}")` appears in the schema of '
                    f'table "{other.name}"'
                )
        return None


def write_error(table: str, text: str) -> InvalidValue:
    """:returns: the error of a write of a document that the schema refuses with *text* (code ``SchemaEnforcementError``)."""
    return InvalidValue(
        f'Failed to insert or update a document in table "{table}" because it does not match the schema: {text}',
        "SchemaEnforcementError",
    )


def existing_document_error(document_id: str, table: str, text: str) -> str:
    """:returns: the text of a push whose schema refuses a document that exists."""
    return f'Document with ID "{document_id}" in table "{table}" does not match the schema: {text}'


def new_document_error(table: str, text: str) -> str:
    """:returns: the text of a push whose schema refuses a document that was written while it was being checked."""
    return f'New document in table "{table}" does not match the schema: {text}'


# --- parsing ---------------------------------------------------------------------------------------------------------


def _malformed(what: str) -> NoReturn:
    _fail("InvalidSchema", f"Default export from schema file isn't a Convex schema: {what}. {_SEE_DOCS}")


def _get(tree: dict[str, Any], name: str, kind: type, default: Any = None) -> Any:
    value = tree.get(name, default)
    if type(value) is not kind:
        _malformed(f"`{name}` is missing or of the wrong type")
    return value


def _strings(tree: dict[str, Any], name: str) -> tuple[str, ...]:
    items = _get(tree, name, list, [])
    if not all(type(item) is str for item in items):
        _malformed(f"`{name}` must be an array of strings")
    return tuple(items)


def _extra(tree: dict[str, Any], known: frozenset[str]) -> tuple[tuple[str, Any], ...]:
    return tuple((name, value) for name, value in tree.items() if name not in known)


def _check_field_path(index: str, path: str) -> None:
    if not all(map(is_identifier, path.split("."))):
        _fail("InvalidIndexField", f'In index "{index}": Invalid index field: "{path}"')


def _check_unique(fields: tuple[str, ...]) -> None:
    seen: set[str] = set()
    for field in fields:
        if field in seen:
            _fail(
                "FieldsNotUniqueWithinIndex",
                f"Duplicate field {field}. Index fields must be unique within an index.",
            )
        seen.add(field)


def _check_index_name(table: str, name: str) -> None:
    if name.startswith("_") or name in _RESERVED_INDEXES:
        _fail(
            "IndexNameReserved",
            f'In table "{table}" cannot name an index "{name}" because the name is reserved. Indexes may not start with '
            'an underscore or be named "by_id" or "by_creation_time".',
        )
    if not _TABLE_NAME.fullmatch(name):
        _fail(
            "InvalidIndexName",
            f'Invalid index name: "{name}". Identifiers must be 64 characters or less, start with a letter, and only '
            "contain letters, digits, underscores.",
        )


def _database_fields(table: str, name: str, staged: bool, fields: tuple[str, ...], stored: bool) -> tuple[str, ...]:
    if stored and fields[-1:] == ("_creationTime",):
        fields = fields[:-1]
    if not fields:
        kind = "staged index" if staged else "index"
        _fail("EmptyIndex", f'In table "{table}" {kind} "{name}" must have at least one field.')
    for field in fields:
        if field == "_id":
            _fail(
                "IndexFieldsContainId",
                "`_id` is not a valid index field. To load documents by ID, use `db.get(id)`.",
            )
        if field == "_creationTime":
            _fail(
                "IndexFieldsContainCreationTime",
                "`_creationTime` is automatically added to the end of each index. It should not be added explicitly in "
                "the index definition. See https://docs.convex.dev/using/indexes for more details.",
            )
        if field.startswith("_"):
            _fail("IndexFieldNameReserved", "Reserved fields (starting with `_`) are not allowed in indexes.")
        _check_field_path(name, field)
    _check_unique(fields)
    if len(fields) > MAX_INDEX_FIELDS:
        _fail("IndexTooManyFields", f"Indexes may have up to {MAX_INDEX_FIELDS} fields.")
    return (*fields, "_creationTime")


def _filter_fields(name: str, kind: str, tree: dict[str, Any]) -> tuple[str, ...]:
    fields = _strings(tree, "filterFields")
    for field in fields:
        _check_field_path(name, field)
    _check_unique(fields)
    if len(fields) > MAX_FILTER_FIELDS:
        _fail(
            "IndexTooManyFilterFields",
            f"{kind.capitalize()} indexes may have up to {MAX_FILTER_FIELDS} filter fields.",
        )
    return fields


def _parse_index(table: str, tree: Any, kind: str, staged: bool, stored: bool) -> IndexDefinition:
    if type(tree) is not dict:
        _malformed("an index must be an object")
    name = _get(tree, "indexDescriptor", str)
    _check_index_name(table, name)
    if kind == DATABASE:
        fields = _database_fields(table, name, staged, _strings(tree, "fields"), stored)
        return IndexDefinition(
            name, kind, fields, staged=staged, extra=_extra(tree, frozenset(("indexDescriptor", "fields")))
        )
    target_member = "searchField" if kind == SEARCH else "vectorField"
    target = _get(tree, target_member, str)
    _check_field_path(name, target)
    dimensions = 0
    if kind == VECTOR:
        given = tree.get("dimensions")
        if isinstance(given, bool) or not isinstance(given, (int, float)) or given != int(given):
            _malformed("`dimensions` must be an integer")
        dimensions = int(given)
        if not MIN_DIMENSIONS <= dimensions <= MAX_DIMENSIONS:
            _fail(
                "InvalidVectorDimensions",
                f"Dimensions {dimensions} must be between {MIN_DIMENSIONS} and {MAX_DIMENSIONS}.",
            )
    known = frozenset(("indexDescriptor", target_member, "filterFields", *(("dimensions",) if kind == VECTOR else ())))
    return IndexDefinition(
        name,
        kind,
        target_field=target,
        filter_fields=_filter_fields(name, kind, tree),
        dimensions=dimensions,
        staged=staged,
        extra=_extra(tree, known),
    )


def _check_indexes(table: str, indexes: tuple[IndexDefinition, ...]) -> None:
    names: set[str] = set()
    targets: dict[tuple[str, tuple[str, ...]], str] = {}
    for index in indexes:
        if index.name in names:
            _fail("IndexNamesNotUnique", f'Table "{table}" has two or more definitions of index "{index.name}".')
        names.add(index.name)
    for index in indexes:
        first = targets.setdefault((index.kind, index.fields or (index.target_field,)), index.name)
        if first == index.name:
            continue
        if index.kind == DATABASE:
            _fail(
                "IndexNotUnique",
                f'In table "{table}" index "{first}" and index "{index.name}" have the same fields. Indexes must be '
                "unique within a table.",
            )
        kind = index.kind
        _fail(
            f"{kind.capitalize()}IndexFieldNotUnique",
            f'In table "{table}" {kind} index "{first}" and {kind} index "{index.name}" have the same `{kind}Field`. '
            f"{kind.capitalize()} index fields must be unique within a table.",
        )
    if len(indexes) > MAX_INDEXES_PER_TABLE:
        _fail("TooManyIndexes", f'Table "{table}" cannot have more than {MAX_INDEXES_PER_TABLE} indexes.')


def _parse_document_type(tree: dict[str, Any]) -> Validator:
    try:
        validator = parse(tree)
    except (InvalidValidator, InvalidValue) as error:
        raise BadRequest("InvalidSchema", error.message) from None
    members = validator.members if isinstance(validator, UnionValidator) else (validator,)
    if not isinstance(validator, AnyValidator) and not all(isinstance(member, ObjectValidator) for member in members):
        _fail(
            "InvalidTopLevelTypeInSchemaError",
            "The document validator in a schema must be an object, a union of objects, or `v.any()`. "
            f"Found {validator.text}. {_SEE_DOCS}",
        )
    return validator


_TABLE_MEMBERS: Final = frozenset(("tableName", *_INDEX_LISTS, "documentType", "stagedDocumentType"))


def _parse_table(tree: Any, stored: bool) -> TableDefinition:
    if type(tree) is not dict:
        _malformed("a table must be an object")
    name = _get(tree, "tableName", str)
    fault = table_name_error(name)
    if fault:
        _fail(*fault)
    indexes = tuple(
        _parse_index(name, index, kind, staged, stored)
        for member, (kind, staged) in _INDEX_LISTS.items()
        for index in _get(tree, member, list, [])
    )
    _check_indexes(name, indexes)
    staged_type = tree.get("stagedDocumentType")
    return TableDefinition(
        name,
        indexes,
        _parse_document_type(_get(tree, "documentType", dict, {"type": "any"})),
        None if staged_type is None else _parse_document_type(_get(tree, "stagedDocumentType", dict)),
        _extra(tree, _TABLE_MEMBERS),
    )


def _parse_schema(source: str | bytes | dict[str, Any], stored: bool) -> SchemaDefinition:
    if isinstance(source, dict):
        tree = source
    else:
        try:
            tree = orjson.loads(source)
        except orjson.JSONDecodeError as error:
            _malformed(str(error))
        if type(tree) is not dict:
            _malformed("it must be an object")
    listed = _get(tree, "tables", list)
    if len(listed) > MAX_TABLES:
        _fail("TooManyTables", f"Number of tables cannot exceed {MAX_TABLES}.")
    tables: dict[str, TableDefinition] = {}
    for item in listed:
        table = _parse_table(item, stored)
        if table.name in tables:
            _malformed(f'table "{table.name}" is defined twice')
        tables[table.name] = table
    validated = tree.get("schemaValidation", False)
    if type(validated) is not bool:
        _malformed("`schemaValidation` must be a boolean")
    return SchemaDefinition(tables, validated, _extra(tree, frozenset(("tables", "schemaValidation"))))
