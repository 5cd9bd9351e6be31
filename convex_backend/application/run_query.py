"""Queries: one run at a timestamp, shared with live queries and the result cache (A3, A4, A7).

Source: ``runtime.md`` sections 3.5 and 10, ``http_api.md`` section 3.
"""

from __future__ import annotations

from collections.abc import Callable

from convex_backend.application import calls
from convex_backend.application.live_queries import LiveQueries, QueryKey
from convex_backend.application.query_results import Evaluation
from convex_backend.application.sealing import Sealer
from convex_backend.application.services import Services
from convex_backend.application.types import Caller, CallResult, Identity, QuerySpec
from convex_backend.database.query.cursor import InvalidCursor
from convex_backend.database.transaction import Transaction
from convex_backend.errors import ConvexError
from convex_backend.functions.context import CallContext, CallTree
from convex_backend.functions.invocation import normalise_args
from convex_backend.interfaces import FunctionError, Outcome
from convex_backend.values.json_codec import dumps, loads
from convex_backend.values.kinds import InvalidValue
from convex_backend.values.paths import ROOT_COMPONENT, FunctionPath

JOURNAL = "journal"
#: Access levels of callers, part of a shared query's key: what one may see the other may not even find.
OUTSIDE, INSIDE, ADMIN = range(3)


class QueryRuns:
    """Runs queries: the evaluator behind :class:`LiveQueries`."""

    def __init__(self, services: Services, sealer: Sealer) -> None:
        self._services = services
        self._sealer = sealer

    def key(self, query: QuerySpec, identity: Identity) -> QueryKey:
        """See ``live_queries.QueryEvaluator``."""
        path = FunctionPath.parse(query.path)
        return (
            query.component_path or ROOT_COMPONENT,
            path.canonical,
            _canonical_args(query.args),
            query.journal,
            ADMIN if identity.is_admin else INSIDE if identity.inside else OUTSIDE,
        )

    async def evaluate(self, key: QueryKey, identity: Identity, ts: int | None) -> Evaluation:
        """See ``live_queries.QueryEvaluator``."""
        caller = Caller("SyncWorker", "unknown", None, calls.new_request_id())
        return await self.run(key, identity, caller, ts)

    async def run(self, key: QueryKey, identity: Identity, caller: Caller, ts: int | None) -> Evaluation:
        """One run, without any cache.

        :raises Transient, ServerFault: it gave nothing.
        """
        component_path, path_text, args, journal, _ = key
        wanted = calls.target(path_text, component_path, identity)
        database = self._services.database
        transaction = database.begin("query", ts=ts)
        run = _Run(transaction)
        try:
            try:
                end_cursor = None if journal is None else self._unseal(journal)
                if wanted.path.is_system:
                    value = await self._services.system_functions.run_query(
                        transaction, wanted, args, identity, end_cursor
                    )
                    return run.evaluation(dumps(value), None, caller, self._journal_of(transaction))
                return await self._run_user_query(run, wanted, args, identity, caller, end_cursor)
            except ConvexError as error:
                return run.evaluation(None, calls.function_error(error), caller, None)
        finally:
            run.transaction.close()

    async def _run_user_query(
        self,
        run: _Run,
        wanted: calls.Target,
        args: bytes,
        identity: Identity,
        caller: Caller,
        end_cursor: str | None,
    ) -> Evaluation:
        services = self._services
        first = run.transaction
        await first.ensure_begun()
        if not identity.inside:
            services.deployment_state.check(first)
        prepared = await calls.prepare(services, first, wanted, args, "query")
        component = first.component = prepared.function.component
        ts = first.snapshot.ts
        resolved = first.progress()

        def make_host() -> CallContext:
            # The first try goes on with what resolving has read; a later one starts from the same reads at the same timestamp.
            if run.tries:
                run.transaction.close()
                run.transaction = services.database.begin("query", ts=ts, component=component)
                run.transaction.begin_after(resolved)
            run.tries += 1
            transaction = run.transaction
            run.tree = calls.call_tree(
                services, transaction, identity, caller, transaction.names, transaction.table_numbers
            )
            run.tree.journal_end_cursor = end_cursor
            return CallContext(
                run.tree, prepared.function, prepared.environment, services.syscalls, args_bytes=len(prepared.args)
            )

        spec = calls.spec_of(
            services,
            prepared,
            first.table_numbers(prepared.function.component),
            caller,
            timeout_seconds=0.0,
        )
        outcome = await services.isolates.run(spec, make_host)
        evaluation = run.evaluation(outcome.value, outcome.error, caller, self._journal_of(run.transaction), outcome)
        calls.record_run(services, wanted, "query", identity, caller, outcome)
        return evaluation

    def _journal_of(self, transaction: Transaction) -> str | None:
        """What the run's paginated query leaves for the next run (``runtime.md`` section 3.5)."""
        end = transaction.journal_end_cursor
        return None if end is None else self._sealer.seal(JOURNAL, end.encode())

    def _unseal(self, journal: str) -> str:
        """:raises InvalidCursor: it was not sealed here."""
        try:
            return self._sealer.unseal(JOURNAL, journal).decode()
        except ValueError:
            raise InvalidCursor("Failed to parse cursor") from None


class _Run:
    """The transaction of the try under way, and what the evaluation needs of it."""

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction
        self.tries = 0
        self.tree: CallTree | None = None

    def evaluation(
        self,
        value: bytes | None,
        error: FunctionError | None,
        caller: Caller,
        journal: str | None,
        outcome: Outcome | None = None,
    ) -> Evaluation:
        return Evaluation(
            value=value,
            error=error,
            log_lines=() if outcome is None else outcome.log_lines,
            ts=self.transaction.snapshot.ts,
            reads=self.transaction.read_token(),
            journal=journal,
            observed_identity=self.tree is not None and self.tree.identity_observed,
            observed_time=outcome is not None and "time" in outcome.observed,
            request_id=caller.request_id,
        )


def _canonical_args(args: bytes) -> bytes:
    """One text for equal arguments; what cannot be decoded stays as it is and fails in the run."""
    text = normalise_args(args)
    try:
        return dumps(loads(text))
    except InvalidValue:
        return text


async def run_query(
    services: Services,
    live: LiveQueries,
    runs: QueryRuns,
    path: str,
    args: bytes,
    identity: Identity,
    caller: Caller,
    *,
    component_path: str | None = None,
    ts: int | None = None,
) -> CallResult:
    """Answer a one-shot query, from the cache when it can be.

    :param args: JSON text of an object or of an array of one.
    :param ts: read at this timestamp instead of now.
    :raises BadRequest: the path cannot be parsed. :raises OutOfRetention: *ts* is too old.
    :raises Transient, ServerFault: it could not be computed.
    """
    key = runs.key(QuerySpec(path, args, None, component_path), identity)
    if ts is not None:
        evaluation = await runs.run(key, identity, caller, ts)
        return _result(services, identity, caller, evaluation, evaluation.ts)
    cached = live.cached(key, identity)
    if cached is not None:
        evaluation = cached.evaluation
        services.function_log.record_completion(
            kind="query",
            component_path=key[0],
            path=FunctionPath.parse(key[1]).stripped,
            log_lines=(),
            seconds=0.0,
            error=None,
            request_id=caller.request_id,
            execution_id=caller.request_id,
            parent_execution_id=caller.parent_execution_id,
            source=caller.source,
            identity_type=identity.log_name,
            cached=True,
            return_bytes=None if evaluation.value is None else len(evaluation.value),
        )
        return _result(services, identity, caller, evaluation, services.database.committer.durable_ts)
    version = await live.query(key, identity)
    return _result(services, identity, caller, version.evaluation, version.from_ts)


def _result(services: Services, identity: Identity, caller: Caller, evaluation: Evaluation, ts: int) -> CallResult:
    return calls.call_result(services, identity, caller, ts, evaluation.value, evaluation.error, evaluation.log_lines)


class LiveDatabase:
    """The database as :class:`LiveQueries` needs it."""

    def __init__(self, services: Services) -> None:
        self._database = services.database

    @property
    def durable_ts(self) -> int:
        """See ``live_queries.Database``."""
        return self._database.committer.durable_ts

    def pin(self, ts: int) -> Callable[[], None]:
        """See ``live_queries.Database``."""
        return self._database.committer.snapshots.open(ts).close

    def watch(self, evaluation: Evaluation, on_invalid: Callable[[int], None]) -> Callable[[], None]:
        """See ``live_queries.Database``."""
        return self._database.subscribe(evaluation.reads, evaluation.ts, on_invalid).unsubscribe  # type: ignore[arg-type]
