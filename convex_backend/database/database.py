"""The database as the rooms above see it: begin, commit, subscribe.

Source: ``docs/internals.md`` sections 2 to 6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from prometheus_client import CollectorRegistry
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from convex_backend.database.backfill import IndexBackfill
from convex_backend.database.bootstrap import bootstrap
from convex_backend.database.catalog import CatalogManager
from convex_backend.database.committer import CommitEvent, CommitRequest, Committer
from convex_backend.database.index_cleanup import DroppedIndexCleanup
from convex_backend.database.lanes import LaneTicket
from convex_backend.database.reads import ReadToken
from convex_backend.database.retention import RetentionLoop, RetentionSettings
from convex_backend.database.staged_validators import StagedValidation
from convex_backend.database.start_gate import StartGate
from convex_backend.database.subscriptions import Subscription, SubscriptionManager
from convex_backend.database.system_tables import CATALOG_TABLETS, SYSTEM_TABLETS
from convex_backend.database.transaction import Transaction
from convex_backend.interfaces import IndexWrite, LedgerEntry, StoredResult
from convex_backend.values.ids import encode_id

_NEXT_ID_KEY = "next_metadata_id"


def _only_refuse(reason: str) -> None:
    """Without an owner to tell, a lost store only refuses further commits."""


class Clock(Protocol):
    """The part of ``IClock`` that the database uses."""

    def now_ns(self) -> int:
        """Wall-clock nanoseconds since the epoch."""


class Database:
    """Everything stored of one deployment.

    :param persistence: an ``IPersistence``; opened by :meth:`start`, closed by :meth:`stop`.
    :param reactor: clock of timers.
    :param clock: wall time.
    :param random_bytes: source of document ids, ``os.urandom`` or a test's own.
    :param registry: where the metrics go.
    :param fatal: called once with a line for the operator when the store is lost (A5).
    :param retention: what is kept; by default two days of history.

    :ivar committer: valid after :meth:`start`. :ivar subscriptions: likewise. :ivar catalogs: catalogs by timestamp.
    :ivar backfill: the builder of new indexes; runs from :meth:`start` on. :ivar staged_validation: likewise, of staged validators.
    :ivar retention: prunes history (A11); pins are made there.
    """

    _log = Logger()

    committer: Committer
    subscriptions: SubscriptionManager
    start_gate: StartGate
    catalogs: CatalogManager
    backfill: IndexBackfill
    staged_validation: StagedValidation
    retention: RetentionLoop

    def __init__(
        self,
        persistence: Any,
        reactor: IReactorTime,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
        registry: CollectorRegistry,
        *,
        fatal: Callable[[str], None] = _only_refuse,
        retention: RetentionSettings | None = None,
    ) -> None:
        self.persistence = persistence
        self.reactor = reactor
        self.clock = clock
        self.random_bytes = random_bytes
        self._registry = registry
        self._fatal = fatal
        self._retention_settings = retention
        self._next_metadata_id = 0

    # -- life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the file, read the catalog, commit the start (A10), and go on with index builds that were under way.

        :raises ConvexError: ``DatabaseInUse``, ``DatabaseTooNew``.
        """
        await self.persistence.open()
        try:
            await self._start_opened()
        except BaseException:
            # A later start, of this process or another, must find the file closed.
            await self.persistence.close()
            raise

    async def _start_opened(self) -> None:
        self.committer = Committer(
            self.persistence,
            self.clock,
            self.reactor,
            self._registry,
            name_document=self._name_document,
            fatal=self._fatal,
        )
        self.subscriptions = SubscriptionManager(self.committer, self._registry)
        self.start_gate = StartGate(self.committer.lanes, self._registry)
        self.catalogs = CatalogManager(self.persistence)
        self.catalogs.start(self.committer.durable_ts)
        stored = self.persistence.get_meta(_NEXT_ID_KEY)
        self._next_metadata_id = max(
            self.catalogs.newest.largest_internal_id() + 1, int(stored) if stored is not None else 0
        )
        self.committer.on_pending.append(self._on_pending)
        self.committer.on_durable.append(self._on_durable)
        self.committer.on_failed.append(self.catalogs.drop_after)
        await self.committer.start()
        transaction = self.begin("system")
        if await bootstrap(transaction):
            await self.commit(transaction)
        transaction.close()
        self.backfill = IndexBackfill(self)
        self.backfill.start()
        self.staged_validation = StagedValidation(self)
        self.staged_validation.wake()
        self.retention = RetentionLoop(
            self.persistence, self.committer, self.clock, self.reactor, self._registry, self._retention_settings
        )
        self.retention.start()
        self._cleanup = DroppedIndexCleanup(self)
        self._cleanup.start()

    async def drain(self) -> None:
        """Stop background work, refuse new commits, and return when the queued ones have ended. The file stays open for reads."""
        await self.backfill.stop()
        await self.staged_validation.stop()
        await self._cleanup.stop()
        await self.retention.stop()
        await self.committer.stop()

    async def stop(self) -> None:
        """:meth:`drain`, then close the file."""
        await self.drain()
        await self.persistence.close()

    # -- transactions -------------------------------------------------------------------------------

    def begin(
        self,
        kind: str,
        *,
        ts: int | None = None,
        component: int = 0,
        ticket: LaneTicket | None = None,
        writer: str | None = None,
    ) -> Transaction:
        """Begin a transaction; end it with :meth:`commit` or ``close()``.

        :param kind: ``query`` (reads at ``durable_ts``, or at *ts*), ``mutation`` (snapshot at its first operation) or ``system`` (a mutation
            of our own, without limits).
        :param ts: of a query only; not above ``durable_ts``.
        :param ticket: a mutation's place among the lanes, kept across its re-runs.
        :param writer: path of the function, for the conflict text of others.
        :raises OutOfRetention: the history at *ts* is gone.
        """
        return Transaction(self, kind, ts=ts, component=component, ticket=ticket, writer=writer)

    async def commit(
        self,
        transaction: Transaction,
        ledger: LedgerEntry | None = None,
        *,
        extra_index_writes: tuple[IndexWrite, ...] = (),
    ) -> int:
        """Close the transaction, validate and commit.

        :param ledger: the mutation's answer to keep (A9), written in the same commit.
        :param extra_index_writes: of a backfill.
        :returns: the commit timestamp once it is durable; without writes and ledger the snapshot's, once that is durable.
        :raises OccConflict: run it again.
        :raises Rerun: likewise.
        :raises StorageFailed: it has not happened.
        :raises Overloaded: the commit queue is full.
        Cancelling drops the answer; the commit may still happen: shield it.
        """
        meta: tuple[tuple[str, bytes | None], ...] = ()
        if transaction.allocated_metadata_ids:
            # The counter itself, not what this transaction took: commits may overtake each other, the counter never goes back.
            meta = ((_NEXT_ID_KEY, b"%d" % self._next_metadata_id),)
        snapshot_ts = transaction.snapshot_ts
        resolve = transaction.resolver()
        # Before the wait: an open snapshot would keep the overlay's entries of its own group.
        transaction.close()
        return await self.committer.commit(
            CommitRequest(
                snapshot_ts=self.committer.pending_ts if snapshot_ts is None else snapshot_ts,
                reads=transaction.reads,
                changes=transaction.writes.changes(),
                ledger=ledger,
                writer=transaction.writer,
                extra_index_writes=extra_index_writes,
                meta=meta,
                lane=transaction.ticket,
                resolve=resolve,
            )
        )

    def subscribe(self, token: ReadToken, since_ts: int, on_invalid: Callable[[int], None]) -> Subscription:
        """See :meth:`SubscriptionManager.subscribe`."""
        return self.subscriptions.subscribe(token, since_ts, on_invalid)

    def ledger_get(self, session: str, request: int) -> StoredResult | None:
        """The stored answer of a mutation (A9)."""
        found: StoredResult | None = self.persistence.ledger_get(session, request)
        return found

    def new_metadata_id(self) -> int:
        """A tablet or index id that was never used and never will be again."""
        self._next_metadata_id += 1
        return self._next_metadata_id - 1

    # -- listeners ----------------------------------------------------------------------------------

    def _on_pending(self, event: CommitEvent) -> None:
        for change in event.changes:
            if change.tablet in CATALOG_TABLETS:
                self.catalogs.on_commit(
                    event.ts, [(change.tablet, change.id, change.new_json) for change in event.changes]
                )
                return

    def _on_durable(self, events: list[CommitEvent]) -> None:
        self.catalogs.trim(min(self.committer.write_log.floor_ts, self.committer.durable_ts))

    def _name_document(self, tablet: int, id: bytes) -> tuple[str | None, str | None]:
        table = self.catalogs.newest.by_tablet.get(tablet)
        if table is not None:
            return table.name, encode_id(table.number, id)
        system = SYSTEM_TABLETS.get(tablet)
        return (system.name, encode_id(system.number, id)) if system is not None else (None, None)
