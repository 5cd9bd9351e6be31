"""One page of a query, from a position to a position.

Source: ``runtime.md`` sections 3.4 and 3.5.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import orjson

from convex_backend.database.catalog import IndexInfo, TableInfo
from convex_backend.database.counters import SIZE_PER_JSON_BYTE, document_size
from convex_backend.database.query.cursor import Cursor, Seal, Unseal, fingerprint, seal_cursor, unseal_cursor
from convex_backend.database.query.plan import QueryPlan, parse_query, resolve_index, resolve_range
from convex_backend.database.query.stream import Pipeline, walk
from convex_backend.database.system_tables import ROOT_COMPONENT
from convex_backend.errors import BadRequest, PaginationLimit

if TYPE_CHECKING:
    from convex_backend.database.transaction import Transaction

MAX_PAGE_SIZE: Final = 32_000
_MAX_ROWS: Final = 32_000
_MAX_BYTES: Final = 16 << 20
_MAX_PAGE_LENGTH: Final = 8192
_CHUNK: Final = 256


def _recommended(amount: int, limit: int) -> bool:
    return amount * 4 > limit * 3


def _integer(name: str, value: float) -> int:
    if type(value) is bool or value != math.floor(value):
        raise BadRequest("InvalidArgument", f"Invalid argument `{name}` for `queryPage`: expected an integer")
    return int(value)


class _Page:
    """A page while it is being read."""

    def __init__(self) -> None:
        self.documents: list[bytes] = []
        self.keys: list[bytes] = []
        self.json_bytes = 0
        self.measured = 0
        self.split_required = False
        self.exhausted = False
        self._measured_rows: list[bytes] = []

    def add_row(self, key: bytes, json: bytes, measure: bool) -> None:
        self.keys.append(key)
        self.json_bytes += len(json)
        if measure:
            self.measured += document_size(json)
        else:
            self._measured_rows.append(json)

    def bytes_over(self, limit: int) -> bool:
        """Whether the rows' size is over three quarters of *limit*."""
        if not _recommended(self.measured + self.json_bytes * SIZE_PER_JSON_BYTE, limit):
            return False
        self.measured += sum(map(document_size, self._measured_rows))
        self._measured_rows.clear()
        return _recommended(self.measured, limit)


async def paginate(
    transaction: Transaction,
    query: Any,
    *,
    cursor: str | None,
    end_cursor: str | None,
    page_size: float,
    max_rows: float | None,
    max_bytes: float | None,
    journal_end_cursor: str | None,
    seal: Seal,
    unseal: Unseal,
    in_components: bool = False,
) -> dict[str, Any]:
    """Read one page and record what was examined.

    :param query: parsed JSON of the query.
    :param cursor: start, exclusive; ``None`` for the first row. :param end_cursor: end, inclusive; then the sizes do not matter.
    :param in_components: the caller is a system function, which may do it in components too.
    :param journal_end_cursor: the end of an earlier run of the same query, used without *end_cursor*.
    :returns: ``{page, isDone, continueCursor, splitCursor, pageStatus}``; ``page`` is a list of ``orjson.Fragment``, for ``orjson.dumps``.
    :raises InvalidCursor: a cursor is not one of this query.
    :raises BadRequest: the arguments or the query are wrong.
    """
    size = _integer("pageSize", page_size)
    rows_limit = None if max_rows is None else _integer("maximumRowsRead", max_rows)
    bytes_limit = None if max_bytes is None else _integer("maximumBytesRead", max_bytes)
    if size <= 0:
        raise BadRequest("InvalidArgument", "Must request at least 1 document while paginating")
    if size > MAX_PAGE_SIZE:
        raise BadRequest("InvalidArgument", f"Requested too many items: {size}")
    if (rows_limit is not None and rows_limit <= 0) or (bytes_limit is not None and bytes_limit <= 0):
        raise BadRequest("InvalidArgument", "maximumRowsRead and maximumBytesRead must be greater than 0")
    if transaction.component != ROOT_COMPONENT and not in_components:
        raise BadRequest(
            "PaginationInComponent",
            "paginate() is only supported in the app. Learn more at "
            "https://docs.convex.dev/components/authoring#pagination",
        )
    if transaction.paginated:
        raise BadRequest(
            "MultiplePaginatedDatabaseQueries",
            "This query or mutation function ran multiple paginated queries. "
            "Convex only supports a single paginated query in each function.",
        )
    transaction.paginated = True

    plan = parse_query(query)
    table = await transaction.table_of_query(plan.table)
    index: IndexInfo | None = None
    if table is not None:
        found = table.index(plan.index)
        transaction.note_index(table, plan.index, found)
        index = resolve_index(plan, table)
    fields = index.fields if index is not None else ("_creationTime",)
    print_ = fingerprint(plan.normalised, fields)
    start = unseal_cursor(cursor, print_, unseal) if cursor is not None else None
    end_text = end_cursor if end_cursor is not None else journal_end_cursor
    end = unseal_cursor(end_text, print_, unseal) if end_text is not None else None

    page = _Page()
    if table is None or index is None or (start is not None and start.is_end):
        page.exhausted = True
    else:
        await _read(
            transaction,
            plan,
            table,
            index,
            start,
            end,
            page,
            None if end is not None else size,
            None if end is not None else rows_limit,
            None if end is not None else bytes_limit,
        )
    if end is not None:
        position = end
    elif page.exhausted or (not page.keys and start is None):
        position = Cursor(None, print_)
    else:
        position = Cursor(page.keys[-1], print_) if page.keys else start or Cursor(None, print_)
    continue_cursor = seal_cursor(position, seal)
    transaction.journal_end_cursor = continue_cursor
    split = seal_cursor(Cursor(page.keys[len(page.keys) // 2], print_), seal) if len(page.keys) > 2 else None
    return {
        "page": [orjson.Fragment(json) for json in page.documents],
        "isDone": position.is_end,
        "continueCursor": continue_cursor,
        "splitCursor": split,
        "pageStatus": _status(page, rows_limit, bytes_limit),
    }


def _status(page: _Page, rows_limit: int | None, bytes_limit: int | None) -> str | None:
    if page.split_required:
        return "SplitRequired"
    if (
        _recommended(len(page.keys), min(rows_limit or _MAX_ROWS, _MAX_ROWS))
        or _recommended(len(page.documents), _MAX_PAGE_LENGTH)
        or page.bytes_over(min(bytes_limit or _MAX_BYTES, _MAX_BYTES))
    ):
        return "SplitRecommended"
    return None


async def _read(
    transaction: Transaction,
    plan: QueryPlan,
    table: TableInfo,
    index: IndexInfo,
    start: Cursor | None,
    end: Cursor | None,
    page: _Page,
    size: int | None,
    rows_limit: int | None,
    bytes_limit: int | None,
) -> None:
    """Fill *page*, count and record its rows."""
    lower, upper = _between(resolve_range(plan, table, index), start, end, plan.reverse)
    if upper is not None and upper <= lower:
        page.exhausted = True
        return
    if transaction.is_hot_interval(index.id, lower, upper):
        await transaction.claim(((index.id, lower, upper),))
    try:
        await _rows(transaction, plan, table, index, lower, upper, page, size, rows_limit, bytes_limit)
    except PaginationLimit:
        if not page.keys:
            raise
        page.split_required = True
    finally:
        read_lower, read_upper = lower, upper
        if not page.exhausted and end is None:
            if not page.keys:
                read_upper = read_lower
            elif plan.reverse:
                read_lower = page.keys[-1]
            else:
                read_upper = page.keys[-1] + b"\x00"
        transaction.reads.add_interval(index.id, read_lower, read_upper)
        transaction.count_queries()


def _between(
    range: tuple[bytes, bytes | None], start: Cursor | None, end: Cursor | None, reverse: bool
) -> tuple[bytes, bytes | None]:
    lower, upper = range
    after = start.key if start is not None else None
    last = end.key if end is not None else None
    if reverse:
        if after is not None:
            upper = after if upper is None else min(upper, after)
        if last is not None:
            lower = max(lower, last)
    else:
        if after is not None:
            lower = max(lower, after + b"\x00")
        if last is not None:
            upper = last + b"\x00" if upper is None else min(upper, last + b"\x00")
    return lower, upper


async def _rows(
    transaction: Transaction,
    plan: QueryPlan,
    table: TableInfo,
    index: IndexInfo,
    lower: bytes,
    upper: bytes | None,
    page: _Page,
    size: int | None,
    rows_limit: int | None,
    bytes_limit: int | None,
) -> None:
    pipeline = Pipeline(plan)
    counters = transaction.counters
    began = transaction.clock()
    while True:
        began = await transaction.give_way(began)
        if pipeline.closed:
            page.exhausted = True
            return
        if size is not None and len(page.documents) >= size:
            return
        wanted = _CHUNK if size is None else min(_CHUNK, size - len(page.documents))
        rows, done = await walk(
            transaction.snapshot,
            transaction.writes,
            index.id,
            table.tablet,
            lower,
            upper,
            plan.reverse,
            max(32, wanted) if pipeline.filters else wanted,
        )
        for key, json in rows:
            if pipeline.closed:
                page.exhausted = True
                return
            if size is not None and len(page.documents) >= size:
                return
            if rows_limit is not None and len(page.keys) >= rows_limit:
                page.split_required = True
                return
            if bytes_limit is not None and page.keys and page.measured + document_size(json) > bytes_limit:
                page.split_required = True
                return
            counters.read(json)
            counters.check_read()
            page.add_row(key, json, bytes_limit is not None)
            if pipeline.admits(json):
                page.documents.append(json)
        if done:
            # A page that is full at the last row is not known to be the last one.
            page.exhausted = size is None or len(page.documents) < size or pipeline.closed
            return
        if plan.reverse:
            upper = rows[-1][0]
        else:
            lower = rows[-1][0] + b"\x00"
