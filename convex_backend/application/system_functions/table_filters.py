"""The filters of a dashboard's table view, as a query (``system_functions.md`` section 7).

Mistakes do not fail: they are :class:`FilterMistakes`, which the page shows in place of documents.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any, Final

import attrs
import orjson

from convex_backend.database.catalog import IndexInfo, TableInfo
from convex_backend.errors import BadRequest
from convex_backend.values.ids import decode_id
from convex_backend.values.json_codec import from_json
from convex_backend.values.kinds import InvalidValue, Value

PLACEHOLDER: Final = (
    "__CONVEX_PLACEHOLDER_undefined_I23atX0jcndVbFgXoQZffsih7eAqktCyFjgUuAeNBtfr3ySOljPSPSEOPFgprkdBO3zXNiGEJxmJ5ZFPc5C5q"
    "KesG80QRPvlJe8vgSxAt9feLTwxTg4PHfVwUaTEJU67FDwldWmTxp1guMPwxQ2jOuhEryTBf3mQ"
)
_UNDEFINED: Final = {"$undefined": None}
_COMPARISONS: Final = ("eq", "neq", "gt", "gte", "lt", "lte")
_MISSING: Final = object()

Check = Callable[[dict[str, Any]], bool]


class FilterMistakes(Exception):
    """What is wrong: ``[{filter, error}]``, the number of the clause or −1 for the index part."""

    def __init__(self, mistakes: list[Value]) -> None:
        super().__init__("filter mistakes")
        self.mistakes = mistakes


@attrs.frozen(slots=True)
class TableQuery:
    """What the filters ask for.

    :param query: JSON of the query. :param checks: applied to the documents of a page after it was read.
    :param point: the id of the only document that is asked for, if the filter is a single ``_id eq``.
    """

    query: dict[str, Any]
    checks: tuple[Check, ...]
    point: str | None


def _mistake(number: int, error: str) -> FilterMistakes:
    entry: dict[str, Value] = {"filter": float(number), "error": error}
    return FilterMistakes([entry])


def read_filters(text: str, table: TableInfo) -> TableQuery:
    """Turn *text* (base64 of JSON) into a query of *table*.

    :raises BadRequest: it is not base64 of a JSON object. :raises FilterMistakes: for what the user got wrong.
    """
    try:
        tree = orjson.loads(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise BadRequest("InvalidFilters", "The filters are not base64 of JSON.") from None
    if not isinstance(tree, dict) or not isinstance(tree.get("clauses", []), list):
        raise BadRequest("InvalidFilters", "The filters must be an object with clauses.")
    clauses = [
        (number, clause)
        for number, clause in enumerate(tree.get("clauses", []))
        if isinstance(clause, dict) and clause.get("enabled", True) and clause.get("field")
    ]
    expressions, checks, mistakes = [], [], []
    for number, clause in clauses:
        try:
            expression, check = _clause(number, clause)
        except FilterMistakes as error:
            mistakes.extend(error.mistakes)
            continue
        if expression is not None:
            expressions.append(expression)
        if check is not None:
            checks.append(check)
    if mistakes:
        raise FilterMistakes(mistakes)
    order = tree.get("order") or "desc"
    index = tree.get("index")
    source: dict[str, Any] = {"type": "FullTableScan", "tableName": table.name, "order": order}
    if index is not None:
        source = _index_source(table, index, order)
    operators = [{"filter": {"$and": expressions}}] if expressions else []
    point = _point(clauses) if index is None else None
    return TableQuery({"source": source, "operators": operators}, tuple(checks), point)


def _point(clauses: list[tuple[int, dict[str, Any]]]) -> str | None:
    if len(clauses) != 1 or clauses[0][1].get("field") != "_id" or clauses[0][1].get("op") != "eq":
        return None
    value = clauses[0][1].get("value")
    try:
        decode_id(value if isinstance(value, str) else "")
    except InvalidValue:
        return None
    return str(value)


def _literal(number: int, value: Any) -> Any:
    """A value of a clause as the query language writes it."""
    if value == PLACEHOLDER:
        return _UNDEFINED
    try:
        from_json(orjson.loads(orjson.dumps(value)))
    except InvalidValue:
        raise _mistake(number, f"Invalid value: {orjson.dumps(value).decode()}.") from None
    return value


def _clause(number: int, clause: dict[str, Any]) -> tuple[dict[str, Any] | None, Check | None]:
    op, field, value = clause.get("op"), str(clause["field"]), clause.get("value")
    operand = {"$field": field}
    if op in _COMPARISONS:
        return {f"${op}": [operand, {"$literal": _literal(number, value)}]}, None
    if op in ("anyOf", "noneOf"):
        if not isinstance(value, list):
            raise _mistake(number, f"Invalid value: {orjson.dumps(value).decode()}.")
        if not value:
            return None, None
        compare, join = ("$eq", "$or") if op == "anyOf" else ("$neq", "$and")
        return {join: [{compare: [operand, {"$literal": _literal(number, one)}]} for one in value]}, None
    if op in ("type", "notype"):
        wanted, names = str(value), field.split(".")
        return None, lambda document: (_type_of(document, names, wanted) == wanted) == (op == "type")
    raise _mistake(number, f"Invalid value: {orjson.dumps(op).decode()}.")


def _type_of(document: dict[str, Any], names: list[str], wanted: str) -> str:
    """The type's name in filters; a string that is an id is either."""
    value: Any = document
    for name in names:
        value = value.get(name, _MISSING) if isinstance(value, dict) else _MISSING
    if value is _MISSING:
        return "unset"
    if isinstance(value, str) and wanted == "id":
        try:
            decode_id(value)
        except InvalidValue:
            return "string"
        return "id"
    if isinstance(value, bool):
        return "boolean"
    kinds = {
        type(None): "null",
        str: "string",
        float: "number",
        int: "bigint",
        list: "array",
        dict: "object",
        bytes: "bytes",
    }
    return kinds.get(type(value), "unset")


def _index_source(table: TableInfo, tree: dict[str, Any], order: str) -> dict[str, Any]:
    name = str(tree.get("name"))
    index = table.index(name)
    if index is None or not index.queryable:
        raise _mistake(-1, f"Index {name} does not exist.")
    if "search" in tree:
        if index.kind != "search":
            raise _mistake(
                -1, f"Index {name} is not a search index, but the query is trying to use it as search index."
            )
        raise _mistake(-1, "Text search is not available in this version of convex-backend yet.")
    if index.kind != "database":
        raise _mistake(-1, f"Index {name} is a search index, but the query is trying to use it as a database index.")
    return {
        "type": "IndexRange",
        "indexName": f"{table.name}.{name}",
        "range": _range(index, tree.get("clauses") or []),
        "order": order,
    }


def _range(index: IndexInfo, clauses: list[Any]) -> list[dict[str, Any]]:
    fields = index.fields
    if len(clauses) > len(fields):
        raise _mistake(-1, f"Index {index.name} has {len(fields)} fields, but the query has {len(clauses)} clauses.")
    expressions: list[dict[str, Any]] = []
    ended = False
    for field, clause in zip(fields, clauses, strict=False):
        if not isinstance(clause, dict) or not clause.get("enabled", True):
            ended = True
            continue
        if ended:
            raise _mistake(-1, f"Invalid index filter selection: the fields before `{field}` must be filtered too.")
        if clause.get("type") == "indexEq":
            expressions.append({"type": "Eq", "fieldPath": field, "value": _literal(-1, clause.get("value"))})
            continue
        ended = True
        for end in ("lower", "upper"):
            op = clause.get(f"{end}Op")
            if op is not None:
                value = _literal(-1, clause.get(f"{end}Value"))
                expressions.append({"type": str(op).capitalize(), "fieldPath": field, "value": value})
    return expressions
