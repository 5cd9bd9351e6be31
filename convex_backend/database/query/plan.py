"""A query as the function built it, parsed once.

::

    Query  = {"source": Source, "operators": [{"filter": Expr} | {"limit": int}]}
    Source = {"type": "FullTableScan", "tableName": T, "order": "asc" | "desc" | null}
           | {"type": "IndexRange", "indexName": "T.index", "range": [Range], "order": …}
           | {"type": "Search", "indexName": "T.index", "filters": […]}

Source: ``runtime.md`` section 3.1.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from convex_backend.database.catalog import BACKFILLED, IndexInfo, TableInfo
from convex_backend.database.index_range import KeyRange, plan_range
from convex_backend.database.query.expressions import Evaluator, compile_expression
from convex_backend.errors import BadRequest

MAX_OPERATORS: Final = 256

_RANGE_TYPES: Final = frozenset(("Eq", "Gt", "Gte", "Lt", "Lte"))


@attrs.frozen(slots=True)
class Operator:
    """One step of the pipeline: a filter, or (``filter is None``) a limit of *limit* results."""

    filter: Evaluator | None
    limit: int = 0


@attrs.frozen(slots=True, eq=False)
class QueryPlan:
    """A parsed query.

    :param index: index name; ``by_creation_time`` for a full table scan.
    :param reverse: descending.
    :param range: range expressions, checked for shape only.
    :param search: it is a text search.
    :param normalised: JSON tree that is equal for queries that mean the same; part of the cursor's fingerprint.
    """

    table: str
    index: str
    reverse: bool
    range: list[Any]
    operators: tuple[Operator, ...]
    search: bool
    normalised: dict[str, Any]


def _invalid(reason: str) -> BadRequest:
    return BadRequest("InvalidArgument", f"Invalid argument `query` for `queryStream`: {reason}")


def _text(source: dict[str, Any], name: str) -> str:
    value = source.get(name)
    if type(value) is not str:
        raise _invalid(f"`{name}` must be a string")
    return value


def _order(source: dict[str, Any]) -> bool:
    order = source.get("order")
    if order not in (None, "asc", "desc"):
        raise _invalid(f"invalid order {order!r}")
    return bool(order == "desc")


def _index_name(source: dict[str, Any]) -> tuple[str, str]:
    name = _text(source, "indexName")
    table, dot, index = name.partition(".")
    if not dot:
        raise _invalid(f"`indexName` must be of the form table.index, got {name}")
    return table, index


def _operator(tree: Any) -> Operator:
    if type(tree) is dict and len(tree) == 1:
        if "filter" in tree:
            return Operator(compile_expression(tree["filter"]))
        limit = tree.get("limit")
        if type(limit) is float and limit.is_integer():
            limit = int(limit)
        if type(limit) is int and limit >= 0:
            return Operator(None, limit)
    raise _invalid("an operator must be a filter or a limit")


def parse_query(tree: Any) -> QueryPlan:
    """Parse a query's JSON tree (as ``orjson.loads`` gives it; it is kept, not changed).

    :raises BadRequest: its shape is wrong.
    """
    if type(tree) is not dict or type(tree.get("source")) is not dict or type(tree.get("operators")) is not list:
        raise _invalid("expected an object with a source and operators")
    source, operators = tree["source"], tree["operators"]
    if len(operators) > MAX_OPERATORS:
        raise _invalid(f"too many operators ({len(operators)} > maximum number {MAX_OPERATORS})")
    kind = source.get("type")
    reverse = False
    expressions: list[Any] = []
    if kind == "FullTableScan":
        table, index = _text(source, "tableName"), "by_creation_time"
        reverse = _order(source)
    elif kind == "IndexRange":
        table, index = _index_name(source)
        reverse = _order(source)
        expressions = source.get("range", [])
        if type(expressions) is not list:
            raise _invalid("`range` must be an array")
        for expression in expressions:
            if (
                type(expression) is not dict
                or expression.get("type") not in _RANGE_TYPES
                or type(expression.get("fieldPath")) is not str
                or "value" not in expression
            ):
                raise _invalid("a range expression must have a type, a fieldPath and a value")
    elif kind == "Search":
        table, index = _index_name(source)
    else:
        raise _invalid(f"unknown source type {kind!r}")
    if not table:
        raise _invalid("the table name is empty")
    return QueryPlan(
        table=table,
        index=index,
        reverse=reverse,
        range=expressions,
        operators=tuple(map(_operator, operators)),
        search=kind == "Search",
        normalised={
            "operators": operators,
            "source": {
                "index": f"{table}.{index}",
                "filters": source.get("filters") if kind == "Search" else None,
                "order": "desc" if reverse else "asc",
                "range": expressions,
                "type": kind,
            },
        },
    )


def resolve_index(plan: QueryPlan, table: TableInfo) -> IndexInfo:
    """The index that the plan walks.

    :raises BadRequest: ``IndexNotFoundError``, ``IndexBackfillingError`` or ``IndexStagedError``, or text search is asked for.
    """
    name = f"{plan.table}.{plan.index}"
    index = table.index(plan.index)
    if index is None:
        raise BadRequest("IndexNotFoundError", f"Index {name} not found.")
    if index.kind != "database" or plan.search:
        if index.kind == "search" and plan.search:
            raise BadRequest(
                "SearchIndexUnavailable",
                f"Search index {name}: text search is not available in this version of convex-backend yet.",
            )
        raise BadRequest("IndexNotFoundError", f"Index {name} not found.")
    if not index.queryable:
        if index.staged and index.state == BACKFILLED:
            raise BadRequest(
                "IndexStagedError",
                f"Index {name} is currently staged and not available to query until it is enabled.",
            )
        raise BadRequest(
            "IndexBackfillingError", f"Index {name} is currently backfilling and not available to query yet."
        )
    return index


def resolve_range(plan: QueryPlan, table: TableInfo, index: IndexInfo) -> KeyRange:
    """The interval of *index* that the plan walks.

    :raises BadRequest: with the codes and texts of section 3.2.
    """
    return plan_range(plan.table, table.number, index, plan.range)
