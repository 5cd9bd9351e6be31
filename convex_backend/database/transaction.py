"""One function call tree's view of the database: reads with a read set, writes that its own reads see.

A query reads at a durable timestamp that is fixed when it begins. A mutation's snapshot is taken at its first database operation, at the newest
pending commit (A4, A6). Every method that may wait is a coroutine; on the usual path nothing is awaited.

Source: ``runtime.md`` sections 2.3, 4.6, 5.5, 8.6 and 9.1.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import attrs

from convex_backend.database.catalog import (
    Catalog,
    CatalogNames,
    IndexInfo,
    TableInfo,
    component_state_point,
    index_point,
    schemas_interval,
    table_name_point,
    table_number_point,
)
from convex_backend.database.commit_ts import Resolver
from convex_backend.database.counters import Counters, TransactionLimits
from convex_backend.database.document_errors import (
    bad_id,
    check_system_fields,
    no_document,
    wrong_table,
)
from convex_backend.database.hints import NamedDocument, points_of
from convex_backend.database.index_keys import document_keys
from convex_backend.database.lanes import LaneTicket, claim
from convex_backend.database.query.cursor import Seal, Unseal
from convex_backend.database.query.pagination import paginate
from convex_backend.database.query.stream import QueryStream
from convex_backend.database.reads import Interval, Point, ReadSet, ReadToken
from convex_backend.database.schema_check import enforce
from convex_backend.database.snapshot import BelowFloor, Snapshot
from convex_backend.database.system_rows import SystemRows
from convex_backend.database.system_tables import CATALOG_TABLETS, ROOT_COMPONENT, VIRTUAL_NUMBERS, VIRTUAL_TABLES
from convex_backend.database.tables import create_table
from convex_backend.database.virtual_rows import VirtualRows
from convex_backend.database.writes import Keys, Write, WriteSet, WrittenSize
from convex_backend.deferreds import next_turn
from convex_backend.errors import BadRequest, Rerun
from convex_backend.interfaces import Row
from convex_backend.values.commit_ts import MARK, holds_commit_ts
from convex_backend.values.ids import decode_id, encode_id
from convex_backend.values.json_codec import dumps, loads
from convex_backend.values.kinds import UNDEFINED, InvalidValue
from convex_backend.values.limits import check_document, identifier_error, size_of

if TYPE_CHECKING:
    from convex_backend.database.database import Database

#: What a ``system`` transaction may do.
UNLIMITED: Final = TransactionLimits(*([1 << 62] * len(attrs.fields(TransactionLimits))))

_SYSTEM_ONLY: Final = "System tables can only be accessed with db.system."
_USER_ONLY: Final = "User tables cannot be accessed with db.system."
_DETACHED: Final = "Cannot perform write operations in an unmounted component. Make sure your component is installed in your `convex.config.ts` file."
_NANOSECONDS_PER_DAY: Final = 86_400_000_000_000
#: How long a walk over many rows keeps the reactor at a time.
WALK_SECONDS: Final = 0.005
#: JSON text of documents that are sent ahead: a larger one costs more than a round trip.
_MAX_AHEAD_BYTES: Final = 8192


class Savepoint:
    """Where a nested mutation began; see :meth:`Transaction.savepoint`."""

    __slots__ = ("catalog", "mark")

    def __init__(self, mark: int, catalog: Catalog | None) -> None:
        self.mark = mark
        self.catalog = catalog


class Progress(NamedTuple):
    """How far a query had come; see :meth:`Transaction.progress`."""

    catalog: Catalog
    reads: ReadSet
    free_reads: int


class RecordedNames:
    """Table names by number for validators of ids; each look is a read, because the verdict depends on it."""

    __slots__ = ("_component", "_looked_at", "_names", "_transaction")

    def __init__(self, transaction: Transaction, catalog: Catalog, component: int) -> None:
        self._transaction = transaction
        self._component = component
        self._names = CatalogNames(catalog, component)
        self._looked_at: set[int] = set()

    def table_of_number(self, number: int, /) -> tuple[str, bool] | None:
        """:returns: the name and whether it is a private system table, or ``None``."""
        if number not in self._looked_at:
            self._looked_at.add(number)
            self._transaction.add_system_point(*table_number_point(self._component, number))
        return self._names.table_of_number(number)


class Transaction:
    """Made by :meth:`Database.begin`; ends with :meth:`Database.commit` or :meth:`close`.

    Not shared between call trees; one operation at a time.

    :ivar kind: ``query``, ``mutation`` or ``system`` (a mutation of our own, without limits).
    :ivar component: the component whose tables names mean; the caller sets it around a call that crosses into another one.
    :ivar snapshot: valid once begun.
    :ivar catalog: tables as this transaction sees them, its own changes included; valid once begun.
    :ivar moves: how often the snapshot moved (A6).
    """

    snapshot: Snapshot
    catalog: Catalog

    def __init__(
        self,
        database: Database,
        kind: str,
        *,
        ts: int | None,
        component: int,
        ticket: LaneTicket | None,
        writer: str | None,
    ) -> None:
        self.kind = kind
        self.component = component
        self.ticket = ticket
        self.writer = writer
        self.reads = ReadSet()
        self.writes = WriteSet()
        self.counters = Counters(UNLIMITED if kind == "system" else None)
        self.moves = 0
        self.allocated_metadata_ids = False
        #: the paginated query's end, to be returned as the run's journal; ``None`` without one
        self.journal_end_cursor: str | None = None
        self.paginated = False
        #: the timestamp at which a mutation begins when it is not the newest, and from which it must not move
        self.fixed_ts: int | None = None
        #: what server code does in this transaction before anything else, once it has begun; see :meth:`ensure_begun`
        self.prologue: Callable[[Transaction], Awaitable[None]] | None = None
        now_ns = max(database.clock.now_ns(), database.committer.durable_ts)
        #: wall clock at the start, integer ms: what the function sees as its frozen time
        self.begin_time_ms: int = now_ns // 1_000_000
        self._creation_time = now_ns / 1_000_000
        self._day = (now_ns // _NANOSECONDS_PER_DAY & 0xFFFF).to_bytes(2, "big")
        self._database = database
        self._committer = database.committer
        self._lanes = database.committer.lanes if ticket is not None else None
        self._base_catalog: Catalog | None = None
        self._begun = False
        self._closed = False
        self._noted: set[TableInfo] = set()
        self._written: set[TableInfo] = set()
        self._free_reads = 0
        #: whether a document was written with the placeholder of the commit's timestamp
        self._unresolved = False
        self._names: dict[int, tuple[Catalog, RecordedNames]] = {}
        self._streams: list[QueryStream] = []
        #: id text → point, and snapshot, of documents that were sent ahead and not read yet (``None``: changed since); ``None`` before that
        self._ahead: dict[str, tuple[Point, int] | None] | None = None
        #: documents of a mutation that were read or sent ahead, as stored
        self._rows: dict[tuple[int, bytes], Row | None] = {}
        if kind == "query":
            self.snapshot = database.committer.snapshots.open(database.committer.durable_ts if ts is None else ts)

    # -- life ---------------------------------------------------------------------------------------

    @property
    def system(self) -> SystemRows:
        """The system tables. Made on demand: a transaction that refers to nothing that refers to it needs no garbage collector."""
        return SystemRows(self)

    @property
    def virtual(self) -> VirtualRows:
        """``_storage`` and ``_scheduled_functions`` as server code reads and writes them."""
        return VirtualRows(self)

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._closed

    @property
    def snapshot_ts(self) -> int | None:
        """The timestamp it reads at; ``None`` for a mutation that has not touched the database yet."""
        return self.snapshot.ts if self._begun or self.kind == "query" else None

    @property
    def visible_ts(self) -> int:
        """The timestamp it reads at, or would if it began now."""
        known = self.snapshot_ts if self.snapshot_ts is not None else self.fixed_ts
        return self._committer.pending_ts if known is None else known

    def fix_snapshot(self) -> None:
        """A mutation that tells its snapshot's timestamp: it is the newest one now, and cannot move any more."""
        self.fixed_ts = self._committer.pending_ts

    async def ensure_begun(self) -> None:
        """Take the snapshot if that has not happened yet; every operation does it first. The prologue, if there is one, follows at once.

        :raises OutOfRetention: the history at the timestamp asked for is gone.
        """
        if self._begun:
            return
        if self._closed:
            raise RuntimeError("the transaction has ended")
        if self.kind == "query":
            catalogs = self._database.catalogs
            ts = self.snapshot.ts
            self.catalog = catalogs.at(ts) if ts >= catalogs.floor_ts else await catalogs.load(ts)
        else:
            ts = self._committer.pending_ts if self.fixed_ts is None else self.fixed_ts
            self.snapshot = self._committer.snapshots.open(ts)
            self.catalog = self._database.catalogs.at(ts)
        self._base_catalog = self.catalog
        self._begun = True
        if self.prologue is not None:
            prologue, self.prologue = self.prologue, None
            await prologue(self)

    def progress(self) -> Progress:
        """What it knows and has read by now, for a further try at the same timestamp. It must have begun."""
        return Progress(self.catalog, self.reads.copy(), self._free_reads)

    def begin_after(self, progress: Progress) -> None:
        """Begin a query that goes on from *progress* of another one at the same timestamp."""
        self.catalog = self._base_catalog = progress.catalog
        self.reads = progress.reads.copy()
        self._free_reads = progress.free_reads
        self._begun = True

    def close(self) -> None:
        """Let go of the snapshot. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._streams.clear()
            if self._begun or self.kind == "query":
                self.snapshot.close()

    def fork(self) -> Transaction:
        """A query at the same snapshot, for a ``snapshotQuery``: it does not see this transaction's writes, and what it reads is not recorded here.

        It counts on from what was used so far, against the same ceilings; its own use is forgotten with it. The caller closes it. This
        transaction must have begun.
        """
        forked = Transaction(
            self._database, "query", ts=self.snapshot.ts, component=self.component, ticket=None, writer=None
        )
        forked.counters = self.counters.copy()
        forked._free_reads = self._free_reads - self.reads.interval_count
        return forked

    def read_token(self) -> ReadToken:
        """All that was read, for a subscription or the result cache."""
        return self.reads.freeze()

    # -- lanes (A6) ---------------------------------------------------------------------------------

    def is_hot_point(self, index: int, key: bytes) -> bool:
        """Whether a read of the point must :meth:`claim` it first."""
        return self.ticket is not None and self._committer.lanes.is_missing(self.ticket, index, key)

    def is_hot_interval(self, index: int, lower: bytes, upper: bytes | None) -> bool:
        """Whether a read in the interval must :meth:`claim` it first."""
        return self._lanes is not None and self._lanes.is_hot_interval(index, lower, upper)

    async def claim(self, keys: tuple[Point | Interval, ...]) -> None:
        """Take the lanes of hot *keys*; the snapshot may move forward.

        :raises Rerun: the mutation must run again.
        """
        if self.ticket is None:
            return
        # Rows that the child holds already were read at the old snapshot: what is about to be validated has to cover them.
        for stream in self._streams:
            stream.pin()
        if await claim(self.ticket, self, self._committer, keys, self._hinted):
            self.moves += 1
            self._base_catalog = self._database.catalogs.at(self.snapshot.ts)
            self._refresh_catalog()
            if self._ahead:
                self._check_ahead(self._ahead)

    def _hinted(self) -> list[Point]:
        """Point reads of the documents that the mutation is likely to read."""
        assert self.ticket is not None
        return points_of(self.ticket.named, self.catalog, self.component)

    async def _claim_named(self) -> None:
        """Before the first read: take the lanes of all documents that are likely to be read, while there is nothing that could be overtaken."""
        hot = [point for point in self._hinted() if self._committer.lanes.is_hot_point(*point)]
        if hot:
            await self.claim(tuple(hot))

    # -- documents that the child holds (``docs/internals.md`` section 8) ------------------------------

    def send_ahead(self) -> list[tuple[NamedDocument, str, bytes | None]]:
        """Documents that the function is likely to get next, with their table's name and JSON text. Nothing of them is recorded before :meth:`got`.

        Gives them once for each transaction; nothing of what a read would have to wait for.
        """
        ticket = self.ticket
        if ticket is None or self._ahead is not None:
            return []
        self._ahead = {}
        found: list[tuple[NamedDocument, str, bytes | None]] = []
        for document in ticket.named:
            table = self.catalog.by_number.get((self.component, document.number))
            if table is None or document.number in VIRTUAL_NUMBERS or document.text in self._ahead:
                continue
            point = (-table.tablet, document.id)
            if point in self.reads.points or document.id in self.writes.tablets.get(table.tablet, ()):
                continue
            lane = self._committer.lanes.hot_point(*point)
            if lane is not None and not ticket.owns(lane):
                continue
            try:
                row = self.snapshot.get_now(table.tablet, document.id)
            except BelowFloor:
                break
            json = None if row is None else row.json
            if json is not None and len(json) > _MAX_AHEAD_BYTES:
                continue
            self._ahead[document.text] = (point, self.snapshot.ts)
            self._rows[(table.tablet, document.id)] = row
            found.append((document, table.name, json))
        return found

    def _check_ahead(self, ahead: dict[str, tuple[Point, int] | None]) -> None:
        """The snapshot has moved: what was sent ahead and has changed since must not be taken any more."""
        for text, sent in ahead.items():
            if sent is not None:
                point, ts = sent
                read = ReadSet()
                read.add_point(*point)
                if self._committer.validate(read, ts) is None:
                    ahead[text] = (point, self.snapshot.ts)
                else:
                    ahead[text] = None
                    self._rows.pop((-point[0], point[1]), None)

    def gets_left(self) -> tuple[int, int]:
        """How many more gets, and bytes of JSON text that they give, may surely follow before a limit is met."""
        documents, size = self.counters.left()
        queries = self.counters.limits.database_queries - (self.reads.interval_count - self._free_reads)
        return max(0, min(documents, queries)), size

    def got(self, id: str, count: int) -> None:
        """The function was given a document that the child held, *count* times: records what as many gets would have. Never raises for a limit.

        :raises Rerun: it was sent ahead, and has changed since.
        """
        number, internal_id = decode_id(id)
        info = self.catalog.by_number.get((self.component, number))
        if info is None:
            self.add_system_point(*table_number_point(self.component, number))
            return
        if info not in self._noted:
            self.note_table(info)
        if self._ahead and self._ahead.pop(id, ()) is None:
            raise Rerun("A document that was sent ahead has changed.")
        self.reads.add_point(-info.tablet, internal_id)
        own = self.writes.tablets.get(info.tablet, {}).get(internal_id)
        row = self._rows.get((info.tablet, internal_id))
        json = own.json if own is not None else row.json if row is not None else None
        if json is not None:
            for _ in range(count):
                self.counters.read(json)
        self.count_queries()

    # -- catalog ------------------------------------------------------------------------------------

    def catalog_changed(self) -> None:
        """A write of this transaction touched a catalog table."""
        self._refresh_catalog()

    def _refresh_catalog(self) -> None:
        assert self._base_catalog is not None
        changes = [
            (tablet, write.id, write.json)
            for tablet in CATALOG_TABLETS
            for write in self.writes.tablets.get(tablet, {}).values()
        ]
        base = self._base_catalog
        self.catalog = base.apply(base.ts, changes) if changes else base
        self._noted.clear()
        self._written.clear()

    def names(self, component: int) -> CatalogNames | RecordedNames:
        """Table names by number, as validators of ids need them; the newest ones before the snapshot is taken."""
        if not self._begun:
            return CatalogNames(self._database.catalogs.newest, component)
        catalog = self.catalog
        known = self._names.get(component)
        if known is None or known[0] is not catalog:
            known = catalog, RecordedNames(self, catalog, component)
            self._names[component] = known
        return known[1]

    def table_numbers(self, component: int) -> Mapping[str, int]:
        """Numbers of the component's tables by name, as ``normalizeId`` in the runner needs them."""
        catalog = self.catalog if self._begun else self._database.catalogs.newest
        return catalog.table_numbers(component)

    def add_system_point(self, index: int, key: bytes) -> None:
        """Record a read of a system table; it does not count as a query of the function."""
        before = self.reads.interval_count
        self.reads.add_point(index, key)
        self._free_reads += self.reads.interval_count - before

    def add_system_interval(self, index: int, lower: bytes, upper: bytes | None) -> None:
        """Likewise for an interval."""
        before = self.reads.interval_count
        self.reads.add_interval(index, lower, upper)
        self._free_reads += self.reads.interval_count - before

    def count_queries(self) -> None:
        """Bring the number of intervals read into the counters; a limit shows at the next read."""
        self.counters.database_queries = self.reads.interval_count - self._free_reads

    def check_queries(self, more: int = 0) -> None:
        """Count the intervals read so far, and *more* that are about to be.

        :raises PaginationLimit: when there are too many.
        """
        self.counters.set_queries(self.reads.interval_count - self._free_reads + more)

    def note_table(self, table: TableInfo) -> None:
        """What follows depends on this table being what its name and its number mean."""
        if table not in self._noted:
            self._noted.add(table)
            reads = self.reads
            before = reads.interval_count
            reads.add_point(*table.name_point)
            reads.add_point(*table.number_point)
            self._free_reads += reads.interval_count - before

    def note_index(self, table: TableInfo, name: str, index: IndexInfo | None) -> None:
        """What follows depends on which index *name* means."""
        if name in ("by_id", "by_creation_time"):
            return
        if index is not None and index.queryable:
            self.add_system_point(*index.point)
            return
        for slot in ("enabled", "pending"):
            self.add_system_point(*index_point(table.tablet, name, slot))

    def _note_writing(self, table: TableInfo) -> None:
        """A write depends on all indexes of its table and on the schemas of its component."""
        if table not in self._written:
            self._written.add(table)
            self.note_table(table)
            reads = self.reads
            before = reads.interval_count
            reads.add_interval(*table.indexes_interval)
            reads.add_interval(*schemas_interval(table.component))
            self._free_reads += reads.interval_count - before
            self._check_mounted(table.component)

    def _check_mounted(self, component: int) -> None:
        """:raises BadRequest: functions may not write to the component."""
        if component != ROOT_COMPONENT and self.kind != "system":
            self.require_mounted(component)

    def require_mounted(self, component: int) -> None:
        """What server code writes for a client belongs to a component that is mounted.

        :raises BadRequest: ``UnmountedComponentWrite``.
        """
        self.add_system_point(*component_state_point(component))
        if not self.catalog.is_mounted(component):
            raise BadRequest("UnmountedComponentWrite", _DETACHED)

    async def table_of_query(self, name: str) -> TableInfo | None:
        """The table that a query of *name* reads; ``None`` (which reads as empty) when there is none."""
        await self.ensure_begun()
        table = self.catalog.by_name.get((self.component, name))
        if table is None:
            self.add_system_point(*table_name_point(self.component, name))
        else:
            self.note_table(table)
        return table

    # -- reads --------------------------------------------------------------------------------------

    async def get(self, id: str, table: str | None = None, is_system: bool = False) -> bytes | None:
        """``db.get`` (or ``db.system.get``).

        :param table: the table the caller expects.
        :returns: the document's JSON text, or ``None``.
        :raises BadRequest: not an id, or one of another table, or of the wrong side of ``db.system``.
        :raises PaginationLimit: a read limit is met.
        """
        call = "db.system.get" if is_system else "db.get"
        try:
            number, internal_id = decode_id(id)
        except InvalidValue as error:
            raise bad_id(call, error.message) from None
        if not self._begun:
            await self.ensure_begun()
            if self._lanes is not None and self._lanes.any_hot:
                await self._claim_named()
        info = self.catalog.by_number.get((self.component, number))
        if info is None:
            self._get_without_table(call, number, table, is_system)
            return None
        if is_system is not (number in VIRTUAL_NUMBERS):
            if is_system:
                raise BadRequest("UserTableAccess", _USER_ONLY)
            raise BadRequest("SystemTableAccess", _SYSTEM_ONLY)
        if info not in self._noted:
            self.note_table(info)
        if table is not None and table != info.name:
            raise wrong_table(call, table, info.name)
        row = await self._read(info.tablet, internal_id)
        self.check_queries()
        if row is None:
            return None
        json = row[1]
        self.counters.read(json)
        self.counters.check_read()
        return json

    def _get_without_table(self, call: str, number: int, table: str | None, is_system: bool) -> None:
        self.add_system_point(*table_number_point(self.component, number))
        virtual = VIRTUAL_NUMBERS.get(number)
        if virtual is None:
            return
        if not is_system:
            raise BadRequest("SystemTableAccess", _SYSTEM_ONLY)
        if table is not None and table != virtual:
            raise wrong_table(call, table, virtual)

    async def read_row(self, tablet: int, id: bytes) -> tuple[int | None, bytes] | None:
        """One document of a tablet, without limits: for the models of server code.

        :returns: commit of the stored version and JSON text, recorded as read whether it exists or not.
        """
        await self.ensure_begun()
        before = self.reads.interval_count
        found = await self._read(tablet, id)
        self._free_reads += self.reads.interval_count - before
        return found

    async def _read(self, tablet: int, id: bytes) -> tuple[int | None, bytes] | None:
        """One document as this transaction sees it, recorded as read: (commit of the stored version, JSON)."""
        lanes = self._lanes
        if lanes is not None and self.is_hot_point(-tablet, id):
            await self.claim(((-tablet, id),))
        self.reads.add_point(-tablet, id)
        own = self.writes.tablets.get(tablet)
        if own is not None:
            write = own.get(id)
            if write is not None:
                return None if write.json is None else (write.old_ts, write.json)
        rows = self._rows
        if (tablet, id) in rows:
            # It is recorded as read: a snapshot that moved since has the same.
            row = rows[(tablet, id)]
        else:
            try:
                row = self.snapshot.get_now(tablet, id)
            except BelowFloor:
                row = await self.snapshot.get(tablet, id)
            if lanes is not None:
                rows[(tablet, id)] = row
        return None if row is None else (row.ts, row.json)

    async def normalize_id(self, table: str, id_string: str) -> str | None:
        """``db.normalizeId``: the id in its canonical form if it is one of *table*, else ``None``.

        :raises BadRequest: *table* is not a table name.
        """
        error = identifier_error(table)
        if error is not None:
            raise BadRequest("InvalidArgument", f"Invalid argument `table` for `db.normalizeId`: {error}")
        await self.ensure_begun()
        info = self.catalog.by_name.get((self.component, table))
        number = info.number if info is not None else VIRTUAL_TABLES.get(table)
        if info is not None:
            self.note_table(info)
        else:
            self.add_system_point(*table_name_point(self.component, table))
        if number is None:
            return None
        try:
            found, internal_id = decode_id(id_string)
        except InvalidValue:
            return None
        return encode_id(found, internal_id) if found == number else None

    def open_stream(self, query: Any) -> QueryStream:
        """``1.0/queryStream``.

        :param query: parsed JSON of the query; its errors come at the first ``fetch``.
        """
        stream = QueryStream(self, query)
        self._streams.append(stream)
        return stream

    def close_stream(self, stream: QueryStream) -> None:
        """``1.0/queryCleanup``; a second call does nothing."""
        if stream in self._streams:
            self._streams.remove(stream)

    async def paginate(
        self,
        query: Any,
        *,
        cursor: str | None,
        end_cursor: str | None,
        page_size: float,
        max_rows: float | None = None,
        max_bytes: float | None = None,
        journal_end_cursor: str | None = None,
        seal: Seal,
        unseal: Unseal,
        in_components: bool = False,
    ) -> dict[str, Any]:
        """``1.0/queryPage``; see ``query.pagination.paginate``."""
        return await paginate(
            self,
            query,
            cursor=cursor,
            end_cursor=end_cursor,
            page_size=page_size,
            max_rows=max_rows,
            max_bytes=max_bytes,
            journal_end_cursor=journal_end_cursor,
            seal=seal,
            unseal=unseal,
            in_components=in_components,
        )

    def clock(self) -> float:
        """The reactor's time in seconds, for :meth:`give_way`."""
        return self._database.reactor.seconds()

    async def give_way(self, since: float) -> float:
        """A walk has kept the reactor since *since*: if that is long, others have their turn before it goes on.

        :returns: from when to count on.
        """
        reactor = self._database.reactor
        now = reactor.seconds()
        if now - since < WALK_SECONDS:
            return since
        await next_turn(reactor)
        return reactor.seconds()

    async def count(self, table: str) -> int:
        """``db.count``: how many documents *table* has; reads all of it, counts none of it against the limits."""
        info = await self.table_of_query(table)
        if info is None:
            return 0
        self.reads.add_interval(-info.tablet, b"", None)
        own = self.writes.tablets.get(info.tablet, {})
        total = sum((write.json is not None) - (write.old_json is not None) for write in own.values())
        lower, began = b"", self.clock()
        while True:
            rows = await self.snapshot.scan(-info.tablet, info.tablet, lower, None, False, 1000)
            total += len(rows)
            if len(rows) < 1000:
                return total
            lower = rows[-1].key + b"\x00"
            began = await self.give_way(began)

    # -- writes -------------------------------------------------------------------------------------

    def new_internal_id(self) -> bytes:
        """14 random bytes and the day (``runtime.md`` section 5.3)."""
        return self._database.random_bytes(14) + self._day

    def new_metadata_id(self) -> int:
        """A tablet or index id that was never used."""
        self.allocated_metadata_ids = True
        return self._database.new_metadata_id()

    def next_creation_time(self) -> float:
        """The ``_creationTime`` of the next insert: milliseconds, the next representable number each time."""
        time = self._creation_time
        self._creation_time = math.nextafter(time, math.inf)
        return time

    async def insert(self, table: str, value: Any) -> str:
        """``db.insert``. The table is made if this is its first document.

        :param value: an object (a Convex value).
        :returns: the new document's id.
        :raises BadRequest: see ``runtime.md`` sections 2.3, 4.3, 4.6 and 4.7.
        :raises PaginationLimit: a write limit is met.
        """
        if type(value) is not dict:
            raise BadRequest("InvalidArgument", "Invalid argument `value` for `db.insert`: Value must be an Object")
        if not self._begun:
            await self.ensure_begun()
        info = self.catalog.by_name.get((self.component, table))
        if info is None or info.number in VIRTUAL_NUMBERS:
            info = await self._make_table(table)
        internal_id = self.new_internal_id()
        document_id = encode_id(info.number, internal_id)
        creation_time = self.next_creation_time()
        document = {**value, "_id": document_id, "_creationTime": creation_time}
        size = size_of(document)
        self.counters.write(size)
        if "_id" in value or "_creationTime" in value:
            check_system_fields(value, document_id, creation_time)
        check_document(document, size)
        if info not in self._written:
            self._note_writing(info)
        if self.catalog.schemas:
            await enforce(self, info, document)
        json = self._encode(document)
        self.writes.put(Write(info.tablet, internal_id, None, None, {}, json, document_keys(info.maintained, document)))
        return document_id

    async def _make_table(self, table: str) -> TableInfo:
        if table in VIRTUAL_TABLES:
            raise BadRequest("ReadOnlyTable", f"{table} is a read-only table")
        if table.startswith("_"):
            raise BadRequest("SystemTableAccess", _SYSTEM_ONLY)
        error = identifier_error(table)
        if error is not None:
            raise BadRequest("InvalidArgument", f"Invalid argument `table` for `db.insert`: {error}")
        self._check_mounted(self.component)
        return await create_table(self, self.component, table)

    async def patch(self, id: str, fields: Any, table: str | None = None) -> bytes:
        """``db.patch``: set top-level fields, or delete those that are ``UNDEFINED``.

        :returns: the merged document's JSON text.
        :raises BadRequest: also when there is no such document.
        """
        if type(fields) is not dict:
            raise BadRequest("InvalidArgument", "Invalid argument `value` for `db.patch`: Value must be an Object")
        info, internal_id = await self._written_table("db.patch", "Update", id, table)
        found = await self._read(info.tablet, internal_id)
        if found is None:
            no_document("Update", id)
        old = loads(found[1], allow_commit_ts=True)
        document = {name: value for name, value in {**old, **fields}.items() if value is not UNDEFINED}
        document.setdefault("_id", old["_id"])
        document.setdefault("_creationTime", old["_creationTime"])
        return await self._update(info, internal_id, found, old, document)

    async def replace(self, id: str, value: Any, table: str | None = None) -> bytes:
        """``db.replace``.

        :returns: the new document's JSON text.
        :raises BadRequest: also when there is no such document.
        """
        if type(value) is not dict:
            raise BadRequest("InvalidArgument", "Invalid argument `value` for `db.replace`: Value must be an Object")
        info, internal_id = await self._written_table("db.replace", "Replace", id, table)
        found = await self._read(info.tablet, internal_id)
        if found is None:
            no_document("Replace", id)
        old = loads(found[1], allow_commit_ts=True)
        document = {"_id": old["_id"], "_creationTime": old["_creationTime"], **value}
        return await self._update(info, internal_id, found, old, document)

    async def delete(self, id: str, table: str | None = None) -> bytes:
        """``db.delete``.

        :returns: the removed document's JSON text.
        :raises BadRequest: also when there is no such document.
        """
        info, internal_id = await self._written_table("db.delete", "Delete", id, table)
        found = await self._read(info.tablet, internal_id)
        if found is None:
            no_document("Delete", id)
        old = loads(found[1], allow_commit_ts=True)
        self.counters.write(size_of(old))
        old_ts, old_json, old_keys = self.stored(info, internal_id, found, old)
        self.writes.put(Write(info.tablet, internal_id, old_ts, old_json, old_keys, None, {}))
        return found[1]

    async def _written_table(self, call: str, verb: str, id: str, table: str | None) -> tuple[TableInfo, bytes]:
        try:
            number, internal_id = decode_id(id)
        except InvalidValue as error:
            raise bad_id(call, error.message) from None
        if not self._begun:
            await self.ensure_begun()
        if number in VIRTUAL_NUMBERS:
            raise BadRequest("SystemTableAccess", _SYSTEM_ONLY)
        info = self.catalog.by_number.get((self.component, number))
        if info is None:
            self.add_system_point(*table_number_point(self.component, number))
            no_document(verb, id)
        if info not in self._written:
            self._note_writing(info)
        if table is not None and table != info.name:
            raise wrong_table(call, table, info.name)
        return info, internal_id

    async def _update(
        self,
        info: TableInfo,
        internal_id: bytes,
        found: tuple[int | None, bytes],
        old: dict[str, Any],
        document: dict[str, Any],
    ) -> bytes:
        size = size_of(document)
        self.counters.write(size)
        if document["_id"] != old["_id"] or document["_creationTime"] != old["_creationTime"]:
            check_system_fields(document, old["_id"], old["_creationTime"])
        check_document(document, size)
        if self.catalog.schemas:
            await enforce(self, info, document)
        json = self._encode(document)
        if json == found[1]:
            return json
        old_ts, old_json, old_keys = self.stored(info, internal_id, found, old)
        self.writes.put(
            Write(
                info.tablet,
                internal_id,
                old_ts,
                old_json,
                old_keys,
                json,
                document_keys(info.maintained, document),
            )
        )
        return json

    def stored(
        self, info: TableInfo, internal_id: bytes, found: tuple[int | None, bytes], old: dict[str, Any]
    ) -> tuple[int | None, bytes | None, Keys]:
        """The version before the transaction: its commit, text and keys."""
        write = self.writes.tablets.get(info.tablet, {}).get(internal_id)
        if write is not None:
            return write.old_ts, write.old_json, write.old_keys
        return found[0], found[1], document_keys(info.maintained, old)

    def _encode(self, document: dict[str, Any]) -> bytes:
        json = dumps(document)
        if MARK in json and holds_commit_ts(document):
            self._unresolved = True
        return json

    def resolver(self) -> Resolver | None:
        """What puts the commit's timestamp into the documents that ask for it; ``None`` when there are none."""
        return Resolver(self.catalog) if self._unresolved else None

    # -- nested calls and measures ------------------------------------------------------------------

    def savepoint(self) -> Savepoint:
        """Where a nested mutation begins."""
        return Savepoint(self.writes.savepoint(), self.catalog if self._begun else None)

    def rollback_to(self, savepoint: Savepoint) -> None:
        """Undo the writes since *savepoint*, tables made by them included. Reads and counters are kept."""
        self.writes.rollback_to(savepoint.mark)
        if self._begun and self.catalog is not savepoint.catalog:
            self._refresh_catalog()

    def release(self, savepoint: Savepoint) -> None:
        """The nested mutation succeeded: its writes are now the parent's."""

    def metrics(self) -> dict[str, dict[str, int]]:
        """The answer of ``1.0/getTransactionMetrics``."""
        self.count_queries()
        return self.counters.metrics()

    def sizes_above(self, share: float) -> Iterator[WrittenSize]:
        """Documents written so far that are larger, or more nested, than *share* of what is allowed."""
        return self.writes.sizes_above(share)

    def left(self) -> tuple[int, int]:
        """How many more documents, and bytes of JSON text, may surely be read before a limit is met."""
        return self.counters.left()
