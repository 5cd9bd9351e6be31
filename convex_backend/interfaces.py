"""The seams, written as contracts: what each side may rely on.

One interface, one caller, and for each the rules of order and failure in prose. Source: ``docs/internals.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import attrs
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface


@attrs.frozen(slots=True)
class DocumentWrite:
    """One document version of a commit.

    :param tablet: internal table identity.
    :param id: 16 bytes, unique within the tablet.
    :param json: canonical JSON text of the new version, or ``None`` for a deletion.
    :param had_previous: whether a live version exists before this commit (it moves to history).
    """

    tablet: int
    id: bytes
    json: bytes | None
    had_previous: bool


@attrs.frozen(slots=True)
class IndexWrite:
    """One index entry added (``added``) or removed by a commit. ``key`` is sort-key bytes, unique within the index.

    :param ts: for an entry added by a backfill, the timestamp of the document version it belongs to; ``None`` means the commit's.
    """

    index: int
    key: bytes
    tablet: int
    id: bytes
    added: bool
    ts: int | None = None


@attrs.frozen(slots=True)
class LedgerEntry:
    """A mutation's stored answer (A9): ``result`` is opaque bytes, ``created_ms`` wall-clock milliseconds, for people only: age goes by the
    commit's timestamp."""

    session: str
    request: int
    result: bytes
    created_ms: int


@attrs.frozen(slots=True)
class StoredResult:
    """What the ledger holds for one (session, request)."""

    ts: int
    result: bytes


@attrs.frozen(slots=True)
class StoreSize:
    """How large a store is; all figures may be rough.

    :param history_rows: superseded versions and entries. :param prunable_rows: those of them that ended at or before a timestamp.
    :param file_bytes: the file without its log. :param free_bytes: the part of it that waits for reuse. Both 0 without a file.
    """

    history_rows: int
    prunable_rows: int
    file_bytes: int
    free_bytes: int


@attrs.frozen(slots=True)
class Commit:
    """All that one commit writes, at one timestamp (int64 ns)."""

    ts: int
    documents: tuple[DocumentWrite, ...] = ()
    indexes: tuple[IndexWrite, ...] = ()
    ledger: tuple[LedgerEntry, ...] = ()
    meta: tuple[tuple[str, bytes | None], ...] = ()


class Row(NamedTuple):
    """A document as an index yields it: a tuple, since scans make many.

    ``key`` is the entry's sort-key bytes; ``ts`` the commit that wrote this version; ``json`` its canonical text.
    """

    key: bytes
    id: bytes
    ts: int
    json: bytes


class IPersistence(Interface):
    """The durable store (E6). Knows rows, not what they mean. One suite, ``tests/storage/contract.py``, holds every implementation to what follows.

    *Contents.* Documents by (tablet, id) and index entries by (index, key), each in its current state; what they were before, each valid in
    ``[from, to)`` of timestamps; answers of mutations by (session, request); small values by name. An entry belongs to one document and
    shows that document's version. Keys are compared as unsigned bytes, intervals are half open, ``None`` is no upper bound.

    *Time.* A commit moves the state from just before its ``ts`` to ``ts``. A read "as of" a timestamp sees the commits up to and including
    it, whatever has been committed since, as long as ``prune_history`` was never told a later one; below that the answer is undefined, and
    the caller must not ask. Reads of the present cost the same however long the past is. Timestamps ascend and say nothing about the wall
    clock.

    *Order.* One ``write`` at a time (the committer waits for one before it starts the next); commits come in ascending ``ts``, all greater
    than ``last_ts``; otherwise ``ValueError`` and nothing is written. Prunings, deletions and reads may run beside a write, in any order.
    Reads in this process may see a group as soon as its transaction is in the file, which can be before the Deferred of ``write`` fires;
    callers correct for that (the overlay). They never see part of a group.

    *Durability.* When the Deferred of ``write`` has fired the group outlives the process and the machine. Prunings and deletions need not
    be durable when theirs fires; they are done in part or wholly after a crash, and may be asked for again.

    *Failure.* When ``write`` fails with anything, either all commits of the group are in the file or none; every later ``write`` is refused
    with ``StorageFailed`` until ``recover`` has been called, whose timestamp is to be believed. What ``recover`` did not find will not come
    back. When the reason goes away (space on the disk), writing works again without more. ``recover`` that fails means the store is lost to
    this process. A failed read or pruning changes nothing. Cancelling a Deferred drops the answer, never the work.

    *Exclusion.* While a store is open no other process can open it, and its owner's death frees it at once.

    *Limits.* A synchronous read takes a row limit, runs in the caller's thread and must be short. A pruning or deletion is one transaction
    of at most its limit of rows. The SQL of an implementation stays plain (joins, ``VALUES``, upserts; no triggers, no stored code), so
    that another engine can follow.
    """

    last_ts = Attribute("int: greatest timestamp known to be in the file (0 for a new one); valid after open()")

    def open() -> Deferred[None]:
        """Open or create the file, run migrations, read ``last_ts``. Raises ``ConvexError`` code ``DatabaseInUse`` when
        another process holds the file, ``DatabaseTooNew`` when the file's schema is newer than this code."""

    def close() -> Deferred[None]:
        """Finish what runs, checkpoint, close every connection."""

    def write(commits: Sequence[Commit]) -> Deferred[None]:
        """Write the group in one transaction; fires when it is durable (fsync done), then ``last_ts`` is the last commit's."""

    def recover() -> Deferred[int]:
        """After a failed write: drop and reopen the writing connection, return the last timestamp in the file."""

    def get(tablet: int, id: bytes) -> Row | None:
        """The current version of one document; ``key`` is the id."""

    def scan_documents(tablet: int, lower: bytes, upper: bytes | None, reverse: bool, limit: int) -> list[Row]:
        """Current documents of a tablet with ``lower <= id < upper`` in id order; ``key`` is the id."""

    def scan_index(index: int, lower: bytes, upper: bytes | None, reverse: bool, limit: int) -> list[Row]:
        """Current entries with ``lower <= key < upper`` in key order, joined to their current documents."""

    def get_at(tablet: int, id: bytes, ts: int) -> Deferred[Row | None]:
        """One document as of ``ts``, from current rows and history (a worker thread)."""

    def scan_documents_at(
        tablet: int, lower: bytes, upper: bytes | None, reverse: bool, limit: int, ts: int
    ) -> Deferred[list[Row]]:
        """``scan_documents`` as of ``ts`` (a worker thread)."""

    def scan_index_at(
        index: int, lower: bytes, upper: bytes | None, reverse: bool, limit: int, ts: int
    ) -> Deferred[list[Row]]:
        """``scan_index`` as of ``ts`` (a worker thread)."""

    def count_documents(tablet: int) -> Deferred[int]:
        """Number of current documents of a tablet (a worker thread)."""

    def ledger_get(session: str, request: int) -> StoredResult | None:
        """The stored answer of a mutation, if it is still kept."""

    def prune_ledger(before_ts: int, max_bytes: int, keep_after_ts: int, limit: int) -> Deferred[int]:
        """Delete at most ``limit`` entries, the oldest first: those of commits up to ``before_ts``, and more while all together are over
        ``max_bytes`` (never one of a commit after ``keep_after_ts``). Returns how many were deleted."""

    def prune_history(before_ts: int, limit: int) -> Deferred[int]:
        """Delete at most ``limit`` history rows whose ``to_ts <= before_ts``. Returns how many were deleted. Restartable at any point."""

    def measure(before_ts: int) -> Deferred[StoreSize]:
        """The size of the store, and how much of its history ended at or before ``before_ts`` (a worker thread). Its cost does not grow
        with the size."""

    def delete_index(index: int, limit: int) -> Deferred[int]:
        """Delete at most ``limit`` current and history entries of a dropped index. Returns how many."""

    def get_meta(key: str) -> bytes | None:
        """A meta value as last written."""


@attrs.frozen(slots=True)
class StoredBlob:
    """A blob that is whole and on the disk. ``sha256`` is 32 bytes, ``size`` in bytes."""

    key: str
    size: int
    sha256: bytes


class IBlobStore(Interface):
    """Contents of files, outside the database. Knows bytes, not whose they are (E3).

    A blob is written once, gets its key when it is begun, and can be read, whole and with the same bytes for ever, from the moment that
    ``finish`` has fired until ``delete``. A blob that was not finished when the process ended is gone after the next ``start``.
    Nothing here blocks the caller's thread. Cancelling a Deferred drops the result, not the work. Errors of the operating system are
    raised as they are.
    """

    shards = Attribute("int: number of groups that keys are listed by")

    def start() -> Deferred[None]:
        """Remove what an earlier process left unfinished."""

    def stop() -> Deferred[None]:
        """Fires when the work under way has ended; nothing may be begun after this call."""

    def create() -> Deferred[IBlobWriter]:
        """Begin a blob."""

    def open(key: str) -> Deferred[IBlobReader | None]:
        """Read a blob; ``None`` when there is none of this key."""

    def delete(key: str) -> Deferred[bool]:
        """Remove a blob; those who read it may go on. :returns: whether there was one."""

    def keys(shard: int) -> Deferred[list[str]]:
        """The keys of the whole blobs of one shard, ``0 <= shard < shards``."""


class IBlobWriter(Interface):
    """A blob while it is written. One operation at a time; ``finish`` or ``abort`` must be the last."""

    key = Attribute("str: its key, a lower-case hyphenated UUID")

    def write(chunks: Sequence[bytes]) -> Deferred[None]:
        """Append."""

    def finish() -> Deferred[StoredBlob]:
        """Fires when all of it is durable and it can be read."""

    def abort() -> Deferred[None]:
        """Leave nothing behind."""


class IBlobReader(Interface):
    """A blob while it is read; a deletion does not disturb it. ``close`` must be the last."""

    size = Attribute("int: bytes")

    def read(offset: int, count: int) -> Deferred[bytes]:
        """At most *count* bytes from *offset* on; fewer only at the end."""

    def close() -> Deferred[None]:
        """Let go of it; a second call does nothing."""


class IClock(Interface):
    """Wall time and timers. The reactor plus ``time.time_ns``; a test clock in tests."""

    def now_ns() -> int:
        """Wall-clock nanoseconds since the epoch."""


class CallHost(Protocol):
    """What a running function's syscalls reach. One per try of one call; made by the application, used by ``functions``."""

    async def syscall(self, op: str, args: bytes, consumed: dict[str, int] | None) -> SyscallReply:
        """Answer one asynchronous syscall.

        :param args: JSON text as the npm package made it.
        :param consumed: since the last report, rows of prefetched pages by query id, and gets answered in the child by document id (A3).
        :raises ConvexError: a user error; thrown into JavaScript as ``Error(message)`` and catchable there.
        :raises Transient: ends the run uncatchably.
        """

    def consumed(self, consumed: dict[str, int]) -> None:
        """The last report of what was consumed, which comes with the result.

        :raises Transient: ends the run uncatchably.
        """

    def open_query(self, query_id: int, query: bytes) -> None:
        """``1.0/queryStream``, a notice without an answer: *query* is the query's JSON text. Its errors come with the first next."""

    def snapshot_ts(self) -> int | None:
        """Called once, after :meth:`begin`: the timestamp (ns) that ``getSnapshotTs`` gives; ``None`` in an action."""

    def close_query(self, query_id: int) -> None:
        """``1.0/queryCleanup``, a notice too; harmless for an id that is not open."""

    def log(self, lines: Sequence[LogLine]) -> None:
        """Console lines of a running action, as they come; its outcome has them all again."""

    def begin(self, link: CallLink) -> None:
        """Called once, before the first syscall: *link* reaches the child that runs this try."""

    def stream_frame(self, kind: int, stream: int, meta: bytes, body: bytes) -> None:
        """A frame of kind DATA, WINDOW or HTTP of a running action (``docs/internals.md`` section 7).

        :raises ValueError, KeyError, TypeError: the child broke the protocol.
        """

    def complete(self, outcome: Outcome) -> Outcome:
        """Called once when the function has ended by itself: the last word on its value (returns validator, warnings).

        :raises Transient: the run must not be believed; raised to the caller of ``run``.
        """

    def lost(self) -> None:
        """Called before :meth:`abandon` when the child of this try, a root, went away. Another try may follow, after any time: nobody must have
        to wait for it."""

    def is_waited_for(self) -> bool:
        """Whether other transactions wait until this one ends: its child shall not be kept busy with new calls if another child can take them."""

    def abandon(self) -> None:
        """Called instead of :meth:`complete` when this try will give nothing (cancelled, child lost, fatal error)."""


class CallLink(Protocol):
    """What a :class:`CallHost` may ask of the child that runs it (F6)."""

    async def run_nested(self, spec: CallSpec, host: CallHost) -> Outcome:
        """Run *spec* in the same child, in a context of its own, while the caller is suspended. Never waits for admission.

        :returns: the child's outcome; never one whose error is ``system``: such an error ends the whole tree, and this call never returns.
        """

    def send_stream(self, kind: int, stream: int, meta: bytes, body: bytes) -> None:
        """Send a frame of kind DATA, WINDOW or HTTP to the call. Does nothing once it has ended."""

    def waits(self, waits: bool) -> None:
        """The call begins, or ceases, to wait for another transaction (a lane): meanwhile it needs no admission slot, and the time is not
        its own. Does nothing once the call has ended."""


@attrs.frozen(slots=True)
class SyscallReply:
    """A syscall's answer. ``body`` is raw JSON, or page rows joined by newlines; ``meta`` as in ``docs/internals.md`` section 7."""

    body: bytes
    meta: dict[str, object] = attrs.field(factory=dict)


@attrs.frozen(slots=True)
class ModuleRef:
    """One module of a call's closure: canonical path and the hash of its runnable form."""

    path: str
    hash: str


@attrs.frozen(slots=True)
class CallSpec:
    """All that a child needs to run one exported function.

    :param kind: ``query``, ``mutation``, ``action`` or ``httpAction``.
    :param module: canonical module path, ``dir/mod.js``.
    :param export: export name.
    :param args: JSON text of the array of arguments.
    :param closure: every module that a static import may reach, the module itself included.
    :param seed: 32 bytes; the run's random seed.
    :param now_ms: the run's frozen time (queries, mutations), integer ms.
    :param import_seed: 32 bytes, fixed at push; import-phase randomness.
    :param import_ms: fixed at push; import-phase time in ms.
    :param env: environment variables visible to the component.
    :param request_id: 16 hex digits, for error texts.
    :param env_version: changes whenever ``env`` does.
    :param timeout_seconds: wall limit for actions.
    :param component: path of the component (``""`` for the app).
    :param component_arguments: its arguments as JSON values by name (``1.0/componentArgument``).
    :param tables: numbers of the component's user tables by name, for ``normalizeId``.
    :param admitted: part of work that was admitted before (a re-run of a mutation, a call made by a running action): never queued.
    :param reuse_context: the module exports ``experimental_reuseContext``: the run may share its context with earlier runs of the module.
    :param ahead: the child may answer gets and writes of documents that it knows before their work is done (``docs/internals.md`` section 8).
    :param realm: the push has found that the module may be evaluated anew in a context that served other runs.
    :param package: of a ``"use node"`` action, the directory of its deployment's package.
    :param http_route: of an HTTP action, method and path by which its router looks up the handler; ``args`` is then the request's JSON text.
    """

    kind: str
    module: str
    export: str
    args: bytes
    closure: tuple[ModuleRef, ...]
    seed: bytes
    now_ms: int
    import_seed: bytes
    import_ms: float
    env: dict[str, str]
    env_version: str
    request_id: str
    timeout_seconds: float
    component: str = ""
    component_arguments: Mapping[str, object] = attrs.field(factory=dict)
    tables: Mapping[str, int] = attrs.field(factory=dict)
    admitted: bool = False
    reuse_context: bool = False
    realm: bool = False
    http_route: tuple[str, str] | None = None
    ahead: bool = False
    package: str = ""


@attrs.frozen(slots=True)
class LogLine:
    """One console line (``runtime.md`` section 7.2). ``timestamp`` in ms.

    :param component_path: of the nested call that wrote the line; ``None`` for the called function's own lines.
    :param udf_path: likewise, canonical (``dir/mod.js:f``).
    """

    messages: tuple[str, ...]
    level: str
    timestamp: float
    truncated: bool = False
    code: str | None = None
    component_path: str | None = None
    udf_path: str | None = None


@attrs.frozen(slots=True)
class FunctionError:
    """A function's own failure.

    :param message: rendered text with mapped frames, as ``runtime.md`` section 8.1, without a request id.
    :param data: JSON text of a ConvexError's data, or ``None``.
    :param system: ends the whole call tree (time, memory); a parent cannot catch it.
    """

    message: str
    data: bytes | None = None
    system: bool = False


@attrs.frozen(slots=True)
class Outcome:
    """What one run gave. Exactly one of ``value`` (JSON text) and ``error`` is set.

    :param cpu_seconds: JS thread time.
    :param observed: of ``time``, ``random``, ``import_time``, ``import_random`` and ``env:NAME``.
    """

    value: bytes | None
    error: FunctionError | None
    log_lines: tuple[LogLine, ...]
    observed: frozenset[str]
    cpu_seconds: float
