"""Schemas: both JSON forms, every code and text of index and name faults, document checks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from convex_backend.errors import BadRequest
from convex_backend.values.schema import (
    IndexDefinition,
    SchemaDefinition,
    existing_document_error,
    new_document_error,
    write_error,
)
from tests.values.names import NAMES, USER_ID
from tests.values.test_validators import STRING, array, obj, table_id, union


def index(name: str, *fields: str, **more: Any) -> dict[str, Any]:
    """JSON of a database index."""
    return {"indexDescriptor": name, "fields": list(fields), **more}


def search(name: str, field: str, *filters: str) -> dict[str, Any]:
    """JSON of a search index."""
    return {"indexDescriptor": name, "searchField": field, "filterFields": list(filters)}


def vector(name: str, field: str, dimensions: Any = 8, *filters: str) -> dict[str, Any]:
    """JSON of a vector index."""
    return {"indexDescriptor": name, "vectorField": field, "dimensions": dimensions, "filterFields": list(filters)}


def table(name: str = "t", document: Any = None, **lists: Any) -> dict[str, Any]:
    """JSON of a table."""
    return {"tableName": name, "documentType": document or {"type": "any"}, **lists}


def schema(*tables: Any, validated: bool = True) -> dict[str, Any]:
    """JSON of a schema."""
    return {"tables": list(tables), "schemaValidation": validated}


EXPORT = schema(
    table(
        "messages",
        obj(author=table_id("users"), body=STRING),
        indexes=[index("by_author", "author"), index("by_deep", "a.b", "author")],
        stagedDbIndexes=[index("by_body", "body")],
        searchIndexes=[search("search_body", "body", "author")],
        stagedSearchIndexes=[],
        vectorIndexes=[vector("by_embedding", "embedding", 8, "author")],
        stagedVectorIndexes=[vector("by_other", "other", 4096)],
    ),
    table("users", union(obj(name=STRING), obj(nick=STRING)), indexes=[]),
)


def test_server_form() -> None:
    """The server's form names ``_creationTime`` at the end of every database index, and all lists; it reads back."""
    parsed = SchemaDefinition.parse(json.dumps(EXPORT))
    tree = parsed.to_json()
    messages = tree["tables"][0]
    assert messages["indexes"] == [
        index("by_author", "author", "_creationTime"),
        index("by_deep", "a.b", "author", "_creationTime"),
    ]
    assert messages["stagedDbIndexes"] == [index("by_body", "body", "_creationTime")]
    for name in ("searchIndexes", "stagedSearchIndexes", "vectorIndexes", "stagedVectorIndexes", "documentType"):
        assert messages[name] == EXPORT["tables"][0][name]
    assert tree["tables"][1]["vectorIndexes"] == []
    assert [item["tableName"] for item in tree["tables"]] == ["messages", "users"]
    assert SchemaDefinition.from_stored(parsed.to_text()) == parsed
    assert SchemaDefinition.from_stored(tree).to_json() == tree


def test_definitions() -> None:
    """Indexes of all kinds are typed, staged ones marked."""
    indexes = SchemaDefinition.parse(EXPORT).tables["messages"].indexes
    assert indexes[0] == IndexDefinition("by_author", "database", ("author", "_creationTime"))
    assert [(item.name, item.kind, item.staged) for item in indexes[2:]] == [
        ("by_body", "database", True),
        ("search_body", "search", False),
        ("by_embedding", "vector", False),
        ("by_other", "vector", True),
    ]
    assert indexes[3].target_field == "body"
    assert indexes[3].filter_fields == ("author",)
    assert indexes[4].dimensions == 8


def test_unknown_members_are_kept() -> None:
    """Members that a newer client adds go through, at every level."""
    tree = schema(table(indexes=[index("by_a", "a", futureIndex=1)], future=[1], stagedDocumentType=obj(a=STRING)))
    tree["futureSchema"] = {"x": None}
    out = SchemaDefinition.parse(tree).to_json()
    assert out["futureSchema"] == {"x": None}
    assert out["tables"][0]["future"] == [1]
    assert out["tables"][0]["indexes"][0]["futureIndex"] == 1
    assert out["tables"][0]["stagedDocumentType"] == obj(a=STRING)


def test_validation_is_off_when_missing() -> None:
    """A schema without ``schemaValidation`` checks no documents."""
    parsed = SchemaDefinition.parse({"tables": [table("t", obj(a=STRING))]})
    assert parsed.validated is False
    assert parsed.check_document("t", {"b": 1.0}, NAMES) is None


RESERVED = (
    'In table "t" cannot name an index "{}" because the name is reserved. Indexes may not start with an underscore or be '
    'named "by_id" or "by_creation_time".'
)
BAD_NAME = (
    'Invalid index name: "{}". Identifiers must be 64 characters or less, start with a letter, and only contain letters, '
    "digits, underscores."
)
FAULTS = [
    (table(indexes=[index("i")]), "EmptyIndex", 'In table "t" index "i" must have at least one field.'),
    (table(stagedDbIndexes=[index("i")]), "EmptyIndex", 'In table "t" staged index "i" must have at least one field.'),
    (
        table(indexes=[index("i", "a", "a")]),
        "FieldsNotUniqueWithinIndex",
        "Duplicate field a. Index fields must be unique within an index.",
    ),
    (
        table(indexes=[index("i", "a", "b"), index("j", "a", "b")]),
        "IndexNotUnique",
        'In table "t" index "i" and index "j" have the same fields. Indexes must be unique within a table.',
    ),
    (
        table(indexes=[index("i", "_id")]),
        "IndexFieldsContainId",
        "`_id` is not a valid index field. To load documents by ID, use `db.get(id)`.",
    ),
    (
        table(indexes=[index("i", "a", "_creationTime")]),
        "IndexFieldsContainCreationTime",
        "`_creationTime` is automatically added to the end of each index. It should not be added explicitly in the index "
        "definition. See https://docs.convex.dev/using/indexes for more details.",
    ),
    (
        table(indexes=[index("i", "_x")]),
        "IndexFieldNameReserved",
        "Reserved fields (starting with `_`) are not allowed in indexes.",
    ),
    (table(indexes=[index("by_id", "a")]), "IndexNameReserved", RESERVED.format("by_id")),
    (table(searchIndexes=[search("by_creation_time", "a")]), "IndexNameReserved", RESERVED.format("by_creation_time")),
    (table(indexes=[index("_i", "a")]), "IndexNameReserved", RESERVED.format("_i")),
    (
        table(indexes=[index("i", "a")], searchIndexes=[search("i", "b")]),
        "IndexNamesNotUnique",
        'Table "t" has two or more definitions of index "i".',
    ),
    (table(indexes=[index("1i", "a")]), "InvalidIndexName", BAD_NAME.format("1i")),
    (table(vectorIndexes=[vector("i" * 65, "a")]), "InvalidIndexName", BAD_NAME.format("i" * 65)),
    (table(indexes=[index("i", "a..b")]), "InvalidIndexField", 'In index "i": Invalid index field: "a..b"'),
    (table(indexes=[index("i", "")]), "InvalidIndexField", 'In index "i": Invalid index field: ""'),
    (table(searchIndexes=[search("i", "a-b")]), "InvalidIndexField", 'In index "i": Invalid index field: "a-b"'),
    (table(searchIndexes=[search("i", "a", "é")]), "InvalidIndexField", 'In index "i": Invalid index field: "é"'),
    (
        table("1t"),
        "InvalidTableName",
        'Invalid table name: "1t". Identifiers must start with a letter and can only contain letters, digits, and '
        "underscores.",
    ),
    (table("_t"), "TableNameReserved", "_t is a reserved table name."),
    (
        table(searchIndexes=[search("i", "a"), search("j", "a", "b")]),
        "SearchIndexFieldNotUnique",
        'In table "t" search index "i" and search index "j" have the same `searchField`. Search index fields must be '
        "unique within a table.",
    ),
    (
        table(vectorIndexes=[vector("i", "a")], stagedVectorIndexes=[vector("j", "a")]),
        "VectorIndexFieldNotUnique",
        'In table "t" vector index "i" and vector index "j" have the same `vectorField`. Vector index fields must be '
        "unique within a table.",
    ),
    (
        table(indexes=[index("i", *(f"f{n}" for n in range(17)))]),
        "IndexTooManyFields",
        "Indexes may have up to 16 fields.",
    ),
    (
        table(searchIndexes=[search("i", "a", *(f"f{n}" for n in range(17)))]),
        "IndexTooManyFilterFields",
        "Search indexes may have up to 16 filter fields.",
    ),
    (
        table(indexes=[index(f"i{n}", f"f{n}") for n in range(65)]),
        "TooManyIndexes",
        'Table "t" cannot have more than 64 indexes.',
    ),
    (
        table(vectorIndexes=[vector("i", "a", 1)]),
        "InvalidVectorDimensions",
        "Dimensions 1 must be between 2 and 4096.",
    ),
    (
        table(document=union(obj(a=STRING), STRING)),
        "InvalidTopLevelTypeInSchemaError",
        "The document validator in a schema must be an object, a union of objects, or `v.any()`. Found "
        "v.union(v.object({a: v.string()}), v.string()). To learn more, see the schema documentation at "
        "https://docs.convex.dev/database/schemas.",
    ),
]


@pytest.mark.parametrize(("item", "code", "text"), FAULTS)
def test_faults(item: Any, code: str, text: str) -> None:
    """Every fault of a schema has its code and text."""
    with pytest.raises(BadRequest) as caught:
        SchemaDefinition.parse(schema(item))
    assert (caught.value.code, caught.value.message) == (code, text)


def test_too_many_tables() -> None:
    """A schema has at most 10000 tables."""
    with pytest.raises(BadRequest, match=r"Number of tables cannot exceed 10000\.") as caught:
        SchemaDefinition.parse(schema(*(table(f"t{n}") for n in range(10001))))
    assert caught.value.code == "TooManyTables"


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"tables": {}},
        schema([]),
        schema({"tableName": 1}),
        schema(table(indexes={})),
        schema(table(indexes=[{"indexDescriptor": "i", "fields": [1]}])),
        schema(table(vectorIndexes=[vector("i", "a", "8")])),
        schema(table(), table()),
        schema(table(document={"type": "date"})),
        {"tables": [], "schemaValidation": 1},
        "{",
        "[]",
    ],
)
def test_malformed(tree: Any) -> None:
    """What is not the export of a schema is ``InvalidSchema``."""
    with pytest.raises(BadRequest) as caught:
        SchemaDefinition.parse(tree)
    assert caught.value.code == "InvalidSchema"


def test_limits_are_inclusive() -> None:
    """16 fields, 64 indexes and the extreme dimensions are fine."""
    SchemaDefinition.parse(
        schema(
            table(
                indexes=[index("i", *(f"f{n}" for n in range(16))), *(index(f"i{n}", f"f{n}") for n in range(61))],
                vectorIndexes=[vector("v", "a", 2), vector("w", "b", 4096.0)],
            )
        )
    )


def test_system_fields_count_only_when_declared() -> None:
    """A document is checked without its system fields, unless the type declares them."""
    system = {"_id": USER_ID, "_creationTime": 1.0}
    parsed = SchemaDefinition.parse(
        schema(
            table("plain", obj(a=STRING)),
            table("declared", obj(a=STRING, _id=table_id("posts"))),
            table("either", union(obj(a=STRING), obj(b=STRING, _creationTime=STRING))),
            table("empty", union()),
            table("free"),
        )
    )

    def check(name: str, **fields: Any) -> str | None:
        return parsed.check_document(name, {**system, **fields}, NAMES)

    assert check("plain", a="") is None
    assert parsed.check_document("plain", {"a": ""}, NAMES) is None
    assert check("free", a=1) is None
    assert check("unknown", a=1) is None
    assert check("either", a="") is None
    assert check("plain", a=1.0) == "Value does not match validator.\nPath: .a\nValue: 1.0\nValidator: v.string()"
    assert check("plain", a="", b=1.0) == (
        "Object contains extra field `b` that is not in the validator.\n\n"
        'Object: {a: "", b: 1.0}\nValidator: v.object({a: v.string()})'
    )
    assert "from table `users`" in (check("declared", a="") or "")
    assert check("either", c="") == (
        'Value does not match validator.\n\nValue: {_creationTime: 1.0, c: ""}\nValidator: '
        "v.union(v.object({a: v.string()}), v.object({_creationTime: v.string(), b: v.string()}))"
    )
    assert check("empty") == "Value does not match validator.\n\nValue: {}\nValidator: v.union()"


def test_deletion_texts() -> None:
    """A table that the schema names, or an id of it, cannot be deleted."""
    parsed = SchemaDefinition.parse(schema(table("a", obj(x=array(table_id("b"))))))
    assert parsed.deletion_error("a") == 'Failed to delete table "a" because it appears in the schema'
    assert parsed.deletion_error("b") == (
        'Failed to delete table "b" because `v.id("b")` appears in the schema of table "a"'
    )
    assert parsed.deletion_error("c") is None


def test_prefixes() -> None:
    """The database's texts around a schema fault."""
    error = write_error("t", "X")
    assert error.code == "SchemaEnforcementError"
    assert error.message == (
        'Failed to insert or update a document in table "t" because it does not match the schema: X'
    )
    assert existing_document_error("i", "t", "X") == 'Document with ID "i" in table "t" does not match the schema: X'
    assert new_document_error("t", "X") == 'New document in table "t" does not match the schema: X'
