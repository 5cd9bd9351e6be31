"""A query's result, read in pages ahead of the function that takes it row by row (A3).

::

    fetch ─► rows are *outstanding* (the child has them) ─► consume(n) ─► they count: read set, counters
                       │
                       └─ a write to the table, or a moved snapshot: dropped, and read again after the last consumed row

What the source yields goes through the operators from left to right; a row that a filter dropped is consumed with the next one that came
through, or with the end. Source: ``runtime.md`` sections 3.1 and 8.6, ``docs/internals.md`` section 8.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from convex_backend.database.catalog import IndexInfo, TableInfo
from convex_backend.database.counters import document_size
from convex_backend.database.query.expressions import as_boolean
from convex_backend.database.query.plan import QueryPlan, parse_query, resolve_index, resolve_range
from convex_backend.database.writes import WriteSet
from convex_backend.errors import ConvexError

if TYPE_CHECKING:
    from convex_backend.database.snapshot import Snapshot
    from convex_backend.database.transaction import Transaction

#: A row as a walk yields it: index key, JSON text.
Found = tuple[bytes, bytes]

_MAX_CHUNK = 512


async def walk(
    snapshot: Snapshot,
    writes: WriteSet,
    index: int,
    tablet: int,
    lower: bytes,
    upper: bytes | None,
    reverse: bool,
    limit: int,
) -> tuple[list[Found], bool]:
    """Rows of an index as a transaction sees them: the snapshot's, corrected by its own writes.

    :returns: at most *limit* rows in order, and whether the interval has no more. Without rows it has no more.
    """
    own = writes.tablets.get(tablet)
    if not own:
        rows = await snapshot.scan(index, tablet, lower, upper, reverse, limit)
        return [(row.key, row.json) for row in rows], len(rows) < limit
    entries = writes.entries(tablet, index)
    wanted = limit + min(len(own), 32)
    while True:
        rows = await snapshot.scan(index, tablet, lower, upper, reverse, wanted)
        full = len(rows) == wanted
        found = [(row.key, row.json) for row in rows if row.id not in own]
        # Own rows beyond a full chunk's last key wait for the next chunk.
        own_lower = rows[-1].key if full and reverse else lower
        own_upper = rows[-1].key + b"\x00" if full and not reverse else upper
        first = bisect_left(entries, (own_lower,))
        last = len(entries) if own_upper is None else bisect_left(entries, (own_upper,))
        if first < last:
            for key, document_id in entries[first:last]:
                json = own[document_id].json
                if json is not None:
                    found.append((key, json))
            found.sort(reverse=reverse)
        if found or not full:
            return found[:limit], not full and len(found) <= limit
        if reverse:
            upper = rows[-1].key
        else:
            lower = rows[-1].key + b"\x00"


class _Emitted(NamedTuple):
    """A row that came through the operators: with what was dropped before it, and what the limits are after it."""

    key: bytes
    json: bytes
    dropped: tuple[bytes, ...]
    limits: tuple[int, ...]


class Pipeline:
    """The operators of one run of a query."""

    __slots__ = ("_operators", "filters", "remaining")

    def __init__(self, plan: QueryPlan) -> None:
        self._operators = plan.operators
        #: what each limit still lets through
        self.remaining: list[int] = [operator.limit for operator in plan.operators if operator.filter is None]
        #: whether rows may be dropped
        self.filters = len(self.remaining) < len(plan.operators)

    @property
    def closed(self) -> bool:
        """A limit is used up: nothing more is pulled from the source."""
        return 0 in self.remaining

    def admits(self, json: bytes) -> bool:
        """Let one document run through.

        :returns: whether it comes out.
        :raises BadRequest: ``EvalError``.
        """
        document: dict[str, Any] | None = None
        position = 0
        for operator in self._operators:
            if operator.filter is None:
                self.remaining[position] -= 1
                position += 1
                continue
            if document is None:
                document = orjson.loads(json)
            if not as_boolean(operator.filter(document)):
                return False
        return True


class QueryStream:
    """One ``1.0/queryStream`` of a transaction. Plan errors surface at the first :meth:`fetch`.

    A row that was fetched counts only when it is consumed; :meth:`consume` must be told before the next :meth:`fetch` and before the
    transaction commits.
    """

    __slots__ = (
        "_chunk",
        "_dropped",
        "_ended",
        "_error",
        "_exhausted",
        "_generation",
        "_index",
        "_limits",
        "_lower",
        "_moves",
        "_outstanding",
        "_pipeline",
        "_plan",
        "_query",
        "_range",
        "_recorded",
        "_table",
        "_transaction",
        "_upper",
    )

    def __init__(self, transaction: Transaction, query: Any) -> None:
        self._transaction = transaction
        self._query = query
        self._plan: QueryPlan | None = None
        self._error: ConvexError | None = None
        self._table: TableInfo | None = None
        self._index: IndexInfo | None = None
        self._range: tuple[bytes, bytes | None] = (b"", b"")
        # what of the range has not been walked yet
        self._lower: bytes = b""
        self._upper: bytes | None = b""
        self._pipeline: Pipeline | None = None
        # limits as of the last consumed row
        self._limits: tuple[int, ...] = ()
        self._outstanding: deque[_Emitted] = deque()
        # rows that were dropped since the last one that came through
        self._dropped: list[Found] = []
        # rows walked, but not yet given to the operators
        self._chunk: deque[Found] = deque()
        self._exhausted = False
        self._ended = False
        self._recorded = False
        self._generation = 0
        self._moves = 0

    async def fetch(self, max_rows: int) -> tuple[list[bytes], bool]:
        """The next rows, at most *max_rows* (at least 1), and whether they are the last ones.

        Rows that are still outstanding come again. Fewer rows than asked for without the end mean only that the caller must ask again; there
        is at least one. An answer without rows counts as the end consumed.

        :raises BadRequest: the query is wrong, or a filter failed; again at every call.
        :raises PaginationLimit: the row that would be next is over a limit.
        """
        if self._error is not None:
            raise self._error
        if self._plan is None:
            try:
                await self._resolve()
            except ConvexError as error:
                self._error = error
                raise
        if self._table is None or self._index is None or self._pipeline is None:
            return [], True
        self._drop_stale()
        if not self._recorded:
            # The first read here will be one more interval; what it costs is told before it, not after it.
            self._transaction.check_queries(1)
        await self._fill(self._table, self._index, self._pipeline, max_rows)
        rows = [emitted.json for emitted in self._outstanding]
        if len(rows) > max_rows:
            return rows[:max_rows], False
        done = self._at_end(self._pipeline)
        if done and not rows:
            self.consume(1)
        return rows, done

    def consume(self, count: int) -> None:
        """The function took *count* more rows; after the last row of a ``done`` page, one more is the end.

        Widens the read set and the counters to them. Never raises: what went over a limit shows at the next read.
        """
        if count <= 0 or self._table is None or self._index is None or self._pipeline is None:
            return
        transaction, outstanding = self._transaction, self._outstanding
        counters = transaction.counters
        last: _Emitted | None = None
        while count and outstanding:
            last = outstanding.popleft()
            count -= 1
            if last.dropped:
                counters.read_all(last.dropped)
            counters.read(last.json)
        if last is not None:
            self._limits = last.limits
            self._record(last.key)
        if count and not self._ended:
            # The end; or rows that are no longer known here, which is answered by the widest read.
            if not self._pipeline.closed:
                self._record(None)
            elif self._dropped:
                self._record(self._dropped[-1][0])
            counters.read_all([json for _, json in self._dropped])
            self._dropped.clear()
            self._ended = True
        transaction.count_queries()

    def pin(self) -> None:
        """Record what is outstanding as read, without counting it: the snapshot is about to move, and the child keeps these rows."""
        if self._outstanding and self._index is not None and self._plan is not None:
            lower, upper = self._range
            key = self._outstanding[-1].key
            if self._pipeline is None or not self._at_end(self._pipeline):
                lower, upper = (key, upper) if self._plan.reverse else (lower, key + b"\x00")
            self._transaction.reads.add_interval(self._index.id, lower, upper)

    def _at_end(self, pipeline: Pipeline) -> bool:
        return pipeline.closed or (self._exhausted and not self._chunk)

    async def _resolve(self) -> None:
        transaction = self._transaction
        plan = parse_query(self._query)
        table = await transaction.table_of_query(plan.table)
        if table is not None:
            index = table.index(plan.index)
            transaction.note_index(table, plan.index, index)
            index = resolve_index(plan, table)
            self._range = self._lower, self._upper = resolve_range(plan, table, index)
            self._table, self._index, self._pipeline = table, index, Pipeline(plan)
            self._limits = tuple(self._pipeline.remaining)
            self._generation = transaction.writes.generation.get(table.tablet, 0)
            self._moves = transaction.moves
        self._plan = plan

    def _record(self, key: bytes | None) -> None:
        """The walk has been taken up to and including *key* (``None``: to the end)."""
        assert self._index is not None and self._plan is not None
        self._recorded = True
        lower, upper = self._range
        if key is not None:
            if self._plan.reverse:
                lower = key
            else:
                upper = key + b"\x00"
        self._transaction.reads.add_interval(self._index.id, lower, upper)
        # the read set merges, so that the next record may start where this one ended
        if key is not None:
            self._range = (self._range[0], key) if self._plan.reverse else (key + b"\x00", self._range[1])

    def _drop_stale(self) -> None:
        assert self._table is not None and self._pipeline is not None
        transaction = self._transaction
        generation = transaction.writes.generation.get(self._table.tablet, 0)
        if generation == self._generation and self._moves == transaction.moves:
            return
        self._generation, self._moves = generation, transaction.moves
        self._outstanding.clear()
        self._dropped.clear()
        self._chunk.clear()
        self._pipeline.remaining[:] = self._limits
        self._lower, self._upper = self._range
        self._exhausted = self._ended = False

    async def _fill(self, table: TableInfo, index: IndexInfo, pipeline: Pipeline, max_rows: int) -> None:
        transaction, outstanding, chunk = self._transaction, self._outstanding, self._chunk
        counters = transaction.counters
        assert self._plan is not None
        if transaction.is_hot_interval(index.id, self._lower, self._upper):
            await transaction.claim(((index.id, self._lower, self._upper),))
            self._drop_stale()
        reverse = self._plan.reverse
        ahead = len(outstanding) + sum(len(emitted.dropped) for emitted in outstanding) + len(self._dropped)
        documents_left = counters.limits.documents_read - counters.documents_read - ahead
        json_left = counters.left()[1]
        if ahead:
            json_left -= sum(len(emitted.json) + sum(map(len, emitted.dropped)) for emitted in outstanding)
            json_left -= sum(len(json) for _, json in self._dropped)
        step = max_rows - len(outstanding)
        began = transaction.clock()
        while len(outstanding) < max_rows and not pipeline.closed:
            if not chunk:
                if self._exhausted:
                    return
                began = await transaction.give_way(began)
                wanted = min([step, _MAX_CHUNK, *pipeline.remaining])
                if pipeline.filters:
                    wanted = max(32, wanted)
                    step = min(step * 2, _MAX_CHUNK)
                found, self._exhausted = await walk(
                    transaction.snapshot,
                    transaction.writes,
                    index.id,
                    table.tablet,
                    self._lower,
                    self._upper,
                    reverse,
                    max(1, min(wanted, documents_left + 1)),
                )
                if not found:
                    self._exhausted = True
                    return
                if reverse:
                    self._upper = found[-1][0]
                else:
                    self._lower = found[-1][0] + b"\x00"
                chunk.extend(found)
                if not pipeline.filters and len(found) <= documents_left and not self._dropped:
                    json_bytes = sum([len(json) for _, json in found])
                    if json_bytes <= json_left:
                        documents_left -= len(found)
                        json_left -= json_bytes
                        self._emit_all(found, pipeline)
                        chunk.clear()
                        continue
            key, json = chunk[0]
            documents_left -= 1
            json_left -= len(json)
            if documents_left < 0 or json_left < 0:
                if outstanding:
                    return
                self._count_dropped()
                self._check_next(key, json)
                documents_left = counters.limits.documents_read - counters.documents_read - 1
                json_left = max(0, counters.left()[1] - len(json))
            before = tuple(pipeline.remaining)
            try:
                admitted = pipeline.admits(json)
            except ConvexError as error:
                # The function sees the error when it has taken what came before it.
                pipeline.remaining[:] = before
                if outstanding:
                    return
                chunk.popleft()
                self._dropped.append((key, json))
                self._count_dropped()
                self._error = error
                raise
            chunk.popleft()
            if admitted:
                outstanding.append(
                    _Emitted(key, json, tuple([dropped for _, dropped in self._dropped]), tuple(pipeline.remaining))
                )
                self._dropped.clear()
            else:
                self._dropped.append((key, json))

    def _emit_all(self, found: list[Found], pipeline: Pipeline) -> None:
        """Rows that only limits pass over, no more than they let through: all of them come out."""
        remaining = pipeline.remaining
        if not remaining:
            self._outstanding.extend([_Emitted(key, json, (), ()) for key, json in found])
            return
        for key, json in found:
            for position in range(len(remaining)):
                remaining[position] -= 1
            self._outstanding.append(_Emitted(key, json, (), tuple(remaining)))

    def _count_dropped(self) -> None:
        """Rows that a filter dropped are taken for good, because the walk cannot go on otherwise."""
        counters = self._transaction.counters
        if self._dropped:
            counters.read_all([json for _, json in self._dropped])
            self._record(self._dropped[-1][0])
            self._dropped.clear()
            if self._pipeline is not None:
                self._limits = tuple(self._pipeline.remaining)
        counters.check_read()

    def _check_next(self, key: bytes, json: bytes) -> None:
        counters = self._transaction.counters
        if (
            counters.documents_read + 1 > counters.limits.documents_read
            or counters.bytes_read + document_size(json) > counters.limits.bytes_read
        ):
            counters.read(json)
            self._record(key)
            counters.check_read()
