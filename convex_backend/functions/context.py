"""The state of one call while it runs, and where its syscalls arrive (:class:`CallHost`).

One :class:`CallContext` for each try of each call; the contexts of one call tree share a :class:`CallTree`.
Source: ``runtime.md`` sections 2, 8.6, 9.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import attrs

from convex_backend.database.counters import Counters
from convex_backend.database.hints import NamedDocument
from convex_backend.database.query.cursor import Seal, Unseal
from convex_backend.database.writes import WrittenSize
from convex_backend.errors import BadRequest, ConvexError, SnapshotMoved
from convex_backend.functions.directory import Environment, FunctionDirectory, ResolvedFunction
from convex_backend.functions.files import FileService
from convex_backend.functions.invocation import check_returns
from convex_backend.functions.limits import (
    ACTION_ARGUMENTS_WARNING,
    ACTION_RESULT_WARNING,
    ARGUMENTS_WARNING,
    RESULT_WARNING,
    TRANSACTION_WARNINGS,
    WARN_SHARE,
    document_warnings,
    time_warning,
)
from convex_backend.functions.log_lines import cap
from convex_backend.functions.outcome import CUT_OFF_OBSERVED
from convex_backend.functions.scheduling import Scheduling
from convex_backend.functions.streams import CallStreams
from convex_backend.functions.syscalls import SyscallTable
from convex_backend.interfaces import CallLink, LogLine, Outcome, SyscallReply
from convex_backend.values.ids import SHORTEST_ID
from convex_backend.values.paths import FunctionPath
from convex_backend.values.validators import TableNames

_ALL_ROWS: Final = 1 << 40


class Stream(Protocol):
    """A ``database.query.stream.QueryStream``, as far as syscalls use it."""

    async def fetch(self, max_rows: int) -> tuple[list[bytes], bool]:
        """The next rows, and whether they are the last ones."""

    def consume(self, count: int) -> None:
        """The function took *count* more."""


class Documents(Protocol):
    """A ``database.transaction.Transaction``, as far as syscalls use it; all texts of section 2.3 are its own.

    :ivar kind: ``query``, ``mutation`` or ``system``. :ivar component: the component whose tables names mean.
    :ivar counters: what the call tree has used.
    :ivar snapshot_ts: the timestamp (ns) that it reads at, ``None`` before it has begun; ``visible_ts``: or would, if it began now.
    :ivar paginated: whether the function that runs now has had its paginated query; ``journal_end_cursor``: where that ended.
    """

    kind: str
    component: int
    counters: Counters
    snapshot_ts: int | None
    visible_ts: int
    paginated: bool
    journal_end_cursor: str | None

    async def ensure_begun(self) -> None:
        """Take the snapshot if that has not happened yet."""

    async def get(self, id: str, table: str | None, is_system: bool) -> bytes | None:
        """A document's JSON text."""

    def send_ahead(self) -> Sequence[tuple[NamedDocument, str, bytes | None]]:
        """Documents that are likely to be read next: with the table's name, and the JSON text if there is one."""

    def gets_left(self) -> tuple[int, int]:
        """Gets, and bytes of what they give, that may still follow."""

    def got(self, id: str, count: int) -> None:
        """The child has answered *count* gets of a document that it holds."""

    async def insert(self, table: str, value: Any) -> str:
        """:returns: the new document's id."""

    async def patch(self, id: str, fields: Any, table: str | None) -> bytes:
        """:returns: the merged document."""

    async def replace(self, id: str, value: Any, table: str | None) -> bytes:
        """:returns: the new document."""

    async def delete(self, id: str, table: str | None) -> bytes:
        """:returns: the removed document."""

    def open_stream(self, query: Any) -> Stream:
        """:param query: the query's JSON tree; its errors come with the first fetch."""

    def close_stream(self, stream: Any) -> None:
        """The function is done with *stream*."""

    async def paginate(
        self,
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
    ) -> dict[str, Any]:
        """:returns: the page object, for ``orjson.dumps``."""

    async def count(self, table: str) -> int:
        """Number of documents of a table."""

    def left(self) -> tuple[int, int]:
        """Documents and bytes that may still be read."""

    def sizes_above(self, share: float) -> Iterable[WrittenSize]:
        """Written documents larger or more nested than *share* of what is allowed."""

    def metrics(self) -> dict[str, dict[str, int]]:
        """``{name: {used, remaining}}``."""

    def fork(self) -> Documents:
        """:returns: a query at the same snapshot that has nothing to do with this transaction's reads and writes; to be closed."""

    def close(self) -> None:
        """Let go of the snapshot."""

    def names(self, component: int, /) -> TableNames:
        """Table names by number, for validators."""

    def table_numbers(self, component: int, /) -> Mapping[str, int]:
        """Numbers of user tables by name."""

    def savepoint(self) -> Any:
        """A mark to roll back to."""

    def rollback_to(self, mark: Any) -> None:
        """Undo the writes since *mark*; reads are kept."""

    def release(self, mark: Any) -> None:
        """Keep the writes since *mark*."""


class NestedRunner(Protocol):
    """How an action calls functions: each call is an execution of its own (``runtime.md`` 9.3). Implemented in layer 4."""

    async def run_from_action(
        self, caller: CallContext, kind: str, component: int, path: FunctionPath, args: bytes, reference: str | None
    ) -> bytes:
        """Run a query, mutation or action for an action.

        :param caller: the calling action: its tree has the identity and the request.
        :param args: JSON text as the action gave it, object or array.
        :param reference: text of the ``_reference/…`` that named the function, if one did.
        :returns: JSON text of the value.
        :raises FunctionFailed: the function failed.
        :raises ConvexError: it could not be run.
        """


class JwtSigner(Protocol):
    """Signs the JWTs of ``ctx.auth.signJwt``. Implemented in layer 4."""

    async def sign(self, component_path: str, claims: object, expires_in_seconds: object) -> str:
        """:raises BadRequest: the claims or the life time are not allowed."""


@attrs.frozen(slots=True)
class RequestInfo:
    """What ``getRequestMetadata`` tells; see ``runtime.md`` 2.3."""

    request_id: str
    ip: str | None = None
    user_agent: str | None = None
    scheduled_function_id: str | None = None
    auth_token: str | None = None


@attrs.frozen(slots=True)
class DeploymentInfo:
    """What ``getDeploymentMetadata`` tells."""

    name: str
    region: str | None = None
    deployment_class: str = "s256"


@attrs.frozen(slots=True, eq=False)
class CallServices:
    """What every call of a server shares.

    :param seal: makes cursor text of cursor bytes; ``unseal`` takes it apart again.
    """

    directory: FunctionDirectory
    deployment: DeploymentInfo
    random_bytes: Callable[[int], bytes]
    now_ms: Callable[[], int]
    seal: Seal
    unseal: Unseal
    nested_runner: NestedRunner | None = None
    signer: JwtSigner | None = None
    scheduling: Scheduling | None = None
    files: FileService | None = None


@attrs.define(slots=True, eq=False)
class CallTree:
    """What the calls of one tree share.

    :param identity: JSON text of the user identity object, or ``null``.
    :param identity_error: raised instead of giving the identity (an HTTP action with an unusable header).
    :param identity_observed: whether any call of the tree has asked for the identity.
    :param names: resolves table numbers for validators, by component id; must work before the transaction has begun.
    :param tables: numbers of user tables by name, by component id; likewise.
    :param journal_end_cursor: end of the root's page in an earlier run of the same live query (``runtime.md`` 3.5).
    :param on_lines: gets the console lines of a running action as they come.
    :param on_abandon: called when the try of the root gives nothing.
    :param on_lost: called before, when that is for want of its child.
    :param ahead: children may answer gets and writes of documents that they hold (``docs/internals.md`` section 8).
    :param is_waited_for: whether other transactions wait for this one.
    :param streams: the byte streams of an action.
    :param notices: lines of ours that follow the function's own.
    :param told: transactions whose functions have looked at the snapshot's timestamp, with what they were told.
    """

    services: CallServices
    transaction: Documents | None
    request: RequestInfo
    names: Callable[[int], TableNames]
    tables: Callable[[int], Mapping[str, int]]
    identity: bytes = b"null"
    identity_error: ConvexError | None = None
    identity_observed: bool = False
    journal_end_cursor: str | None = None
    on_abandon: Callable[[], None] | None = None
    on_lost: Callable[[], None] | None = None
    is_waited_for: Callable[[], bool] | None = None
    ahead: bool = False
    on_lines: Callable[[Sequence[LogLine]], None] | None = None
    streams: CallStreams | None = None
    notices: list[LogLine] = attrs.field(factory=list)
    told: list[tuple[Documents, int]] = attrs.field(factory=list)


class CallContext:
    """One try of one call: implements :class:`convex_backend.interfaces.CallHost`.

    :param table: the syscalls.
    :param args_bytes: size of the argument text, for the warning.
    :param depth: 0 for a root call.
    """

    __slots__ = (
        "_table",
        "_told_ts",
        "args_bytes",
        "depth",
        "environment",
        "function",
        "kind",
        "link",
        "queries",
        "sends_ahead",
        "transaction",
        "tree",
    )

    def __init__(
        self,
        tree: CallTree,
        function: ResolvedFunction,
        environment: Environment,
        table: SyscallTable,
        *,
        args_bytes: int = 0,
        depth: int = 0,
    ) -> None:
        self.tree = tree
        self.function = function
        self.environment = environment
        self.kind = function.kind
        self.transaction = tree.transaction
        self.args_bytes = args_bytes
        self.depth = depth
        self.link: CallLink | None = None
        self.queries: dict[str, OpenQuery] = {}
        #: the answer of the next get may bring other documents along: those that the arguments of the root name
        self.sends_ahead = tree.ahead and not depth
        self._table = table
        self._told_ts: int | None = None

    @property
    def syscalls(self) -> SyscallTable:
        """The table, for contexts of nested calls."""
        return self._table

    @property
    def documents(self) -> Documents:
        """The transaction. :raises BadRequest: in an action."""
        if self.transaction is None:
            raise BadRequest("NoTransaction", "There is no transaction in an action.")
        return self.transaction

    def begin(self, link: CallLink) -> None:
        """See :class:`CallHost`."""
        self.link = link
        if self.tree.streams is not None:
            self.tree.streams.begin(link)

    def waits(self, waits: bool) -> None:
        """The transaction begins, or ceases, to wait for another one (A6)."""
        if self.link is not None:
            self.link.waits(waits)

    async def syscall(self, op: str, args: bytes, consumed: dict[str, int] | None) -> SyscallReply:
        """See :class:`CallHost`."""
        if consumed:
            self.consumed(consumed)
        return await self._table.handler(op, self.kind)(self, args)

    def consumed(self, consumed: dict[str, int]) -> None:
        """See :class:`CallHost`."""
        for query_id, count in consumed.items():  # or a document's id
            query = self.queries.get(query_id)
            if query is not None:
                query.stream.consume(count)
            elif len(query_id) >= SHORTEST_ID:
                self.documents.got(query_id, count)

    def open_query(self, query_id: int, query: bytes) -> None:
        """See :class:`CallHost`."""
        self._table.open_query(self, query_id, query)

    def close_query(self, query_id: int) -> None:
        """See :class:`CallHost`."""
        query = self.queries.pop(str(query_id), None)
        if query is not None:
            self.documents.close_stream(query.stream)

    def log(self, lines: Sequence[LogLine]) -> None:
        """See :class:`CallHost`."""
        if self.tree.on_lines is not None:
            self.tree.on_lines(lines)

    def stream_frame(self, kind: int, stream: int, meta: bytes, body: bytes) -> None:
        """See :class:`CallHost`."""
        if self.tree.streams is None:
            raise ValueError("the call has no streams")
        self.tree.streams.receive(kind, stream, meta, body)

    def snapshot_ts(self) -> int | None:
        """See :class:`CallHost`. A mutation that has not begun is told the newest timestamp; :meth:`complete` looks whether that was true."""
        self._told_ts = None if self.transaction is None else self.transaction.visible_ts
        return self._told_ts

    def complete(self, outcome: Outcome) -> Outcome:
        """See :class:`CallHost`: records what was observed, checks the value, adds the warnings of a root call.

        :raises SnapshotMoved: the mutation was told another snapshot's timestamp.
        """
        if "snapshot" in outcome.observed and self._told_ts is not None and self.transaction is not None:
            self.tree.told.append((self.transaction, self._told_ts))
        if not self.depth:
            for transaction, ts in self.tree.told:
                # One that has not begun has read nothing that could contradict.
                if transaction.snapshot_ts not in (None, ts):
                    raise SnapshotMoved
        if outcome.observed:
            self.tree.services.directory.observed(self.transaction, self.function, outcome.observed)
        result_bytes = 0
        if outcome.value is not None:
            outcome, result_bytes = check_returns(
                self.function, outcome, self.tree.names, allow_commit_ts=self.depth > 0 or self.kind == "mutation"
            )
        if self.depth:
            return outcome
        warnings = [*self.tree.notices, *self._warnings(outcome, result_bytes)]
        if warnings:
            outcome = attrs.evolve(outcome, log_lines=(*cap(outcome.log_lines), *warnings))
        return outcome

    def lost(self) -> None:
        """See :class:`CallHost`."""
        if self.tree.on_lost is not None:
            self.tree.on_lost()

    def is_waited_for(self) -> bool:
        """See :class:`CallHost`."""
        asked = self.tree.is_waited_for
        return asked is not None and asked()

    def abandon(self) -> None:
        """See :class:`CallHost`. What the try has looked at is recorded as widely as it may have: a query that met a limit has a result
        like any other, which must be computed again when something that it depends on changes."""
        if self.transaction is not None:
            for query in self.queries.values():
                query.stream.consume(_ALL_ROWS)
            self.tree.services.directory.observed(self.transaction, self.function, CUT_OFF_OBSERVED)
        self.queries.clear()
        if not self.depth and self.tree.on_abandon is not None:
            self.tree.on_abandon()

    def _warnings(self, outcome: Outcome, result_bytes: int) -> list[LogLine]:
        """``runtime.md`` 7.4, in the order of the table. Cheap when nothing is near its limit."""
        now: float = self.tree.services.now_ms()
        found: list[LogLine | None] = []
        action = self.transaction is None
        if self.args_bytes > ARGUMENTS_WARNING.limit * WARN_SHARE:
            warning = ACTION_ARGUMENTS_WARNING if action else ARGUMENTS_WARNING
            found.append(warning.line(self.args_bytes, now))
        if self.transaction is not None and _near_a_limit(self.transaction.counters):
            metrics = self.transaction.metrics()
            found.extend(
                row.line(metrics[row.metric]["used"], now)
                for row in TRANSACTION_WARNINGS
                if row.metric in metrics and metrics[row.metric]["used"] > row.limit * WARN_SHARE
            )
        if self.transaction is not None and self.transaction.counters.documents_written:
            for written in self.transaction.sizes_above(WARN_SHARE):
                found.extend(document_warnings(written.id, written.size, written.nesting, now))
        if result_bytes:
            found.append((ACTION_RESULT_WARNING if action else RESULT_WARNING).line(result_bytes, now))
        if not action and outcome.error is None:
            found.append(time_warning(outcome.cpu_seconds, now))
        return [line for line in found if line is not None]


def _near_a_limit(counters: Counters) -> bool:
    """Whether a warning may be due; never misses one, and does not measure the documents read as the metrics do."""
    return (
        counters.documents_read > 25_600
        or counters.bytes_read_bound > 13_421_772
        or counters.database_queries > 3276
        or counters.documents_written > 12_800
        or counters.bytes_written > 13_421_772
        or counters.functions_scheduled > 800
        or counters.scheduled_bytes > 13_421_772
    )


class OpenQuery:
    """One ``1.0/queryStream`` of a call; its pages grow as it is read."""

    __slots__ = ("page", "stream")

    FIRST_PAGE = 32
    MAX_PAGE = 256

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.page = self.FIRST_PAGE
