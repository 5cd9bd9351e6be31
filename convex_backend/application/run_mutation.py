"""Mutations: run, commit, run again after a conflict; exactly once for clients with a session (A4, A5, A6, A9).

::

    key known? ── stored ─► the stored answer                  equal key under way? ── wait for its answer
        │
    run (a ticket among the lanes) ─► error ─► wait until what it read is durable ─► the error
        │ ok          ▲
     commit ── conflict, rerun (the ticket owns what was contended)
        │
     durable ─► answer

Source: ``runtime.md`` section 10, ``sync.md`` section 5.5.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import orjson

from convex_backend.application import calls
from convex_backend.application.services import Services
from convex_backend.application.types import Caller, CallResult, Identity, MutationKey
from convex_backend.database.hints import FunctionHabits, NamedDocument, named_documents, points_of
from convex_backend.database.lanes import LaneTicket
from convex_backend.database.reads import Point
from convex_backend.deferreds import Coalescer, shield
from convex_backend.errors import ConvexError, OccConflict, RefusedLate, Rerun, SnapshotMoved
from convex_backend.functions.context import CallContext
from convex_backend.functions.log_lines import parse_line
from convex_backend.interfaces import LedgerEntry, LogLine, Outcome
from convex_backend.values.commit_ts import MARK, resolve_text
from convex_backend.values.json_codec import dumps

if TYPE_CHECKING:
    from convex_backend.database.transaction import Transaction

#: Runs of one mutation that end in OCC errors of its own making (the fault hook) or in real conflicts, after which it fails.
MAX_CONFLICTS = 64
MAX_OWN_CONFLICTS = 5
#: Mutations remembered as looking at their snapshot's timestamp.
MAX_TELLING = 1000

_LENGTH = struct.Struct("<I")


class Bracket(Protocol):
    """What server code does in the transaction of a mutation, around the function: once for each try."""

    async def before(self, transaction: Transaction) -> None:
        """Before the function's first operation. Raising a ``Transient`` ends the run, and nothing happens."""

    async def after(self, transaction: Transaction, outcome: Outcome) -> None:
        """The function has succeeded; the commit follows."""


class Mutations:
    """Runs mutations. One for each server: it knows which keys are under way."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._under_way: Coalescer[tuple[str, int], CallResult] = Coalescer()
        #: Component path and path of mutations that have looked at their snapshot's timestamp (``getSnapshotTs``).
        self._tells_snapshot: set[tuple[str, str]] = set()
        self._habits = FunctionHabits()

    async def run(
        self,
        path: str,
        args: bytes,
        identity: Identity,
        caller: Caller,
        *,
        component_path: str | None = None,
        key: MutationKey | None = None,
        internal: bool = False,
        bracket: Bracket | None = None,
    ) -> CallResult:
        """Run a mutation and answer once its commit is durable.

        :param args: JSON text of an object or of an array of one.
        :param key: with one, an equal key is applied once and answered with the first answer.
        :param internal: the call comes from server code: internal functions are open.
        :param bracket: what server code does in the same transaction; not together with *key*. What it raises is raised here.
        :raises BadRequest: the path cannot be parsed.
        :raises OccConflict, Overloaded, StorageFailed: it has not happened; a function's own failure is a result.
        Cancelling drops the answer; a commit under way still happens.
        """
        wanted = calls.target(path, component_path, identity)
        if internal:
            wanted = calls.Target(wanted.path, wanted.component_path, True)
        if key is None:
            return await shield(self._run(wanted, args, identity, caller, None, bracket))
        name = (key.session, key.request)
        return await self._under_way.run(name, lambda: self._run_once(wanted, args, identity, caller, key))

    async def _run_once(
        self, wanted: calls.Target, args: bytes, identity: Identity, caller: Caller, key: MutationKey
    ) -> CallResult:
        stored = self._services.database.ledger_get(key.session, key.request)
        if stored is not None:
            value, lines = _decode_answer(stored.result)
            value = resolve_text(value, stored.ts)
            return calls.call_result(self._services, identity, caller, stored.ts, value, None, lines)
        return await self._run(wanted, args, identity, caller, key)

    async def _run(
        self,
        wanted: calls.Target,
        args: bytes,
        identity: Identity,
        caller: Caller,
        key: MutationKey | None,
        bracket: Bracket | None = None,
    ) -> CallResult:
        committer = self._services.database.committer
        committer.siblings += 1
        try:
            return await self._run_counted(wanted, args, identity, caller, key, bracket)
        finally:
            committer.siblings -= 1

    async def _run_counted(
        self,
        wanted: calls.Target,
        args: bytes,
        identity: Identity,
        caller: Caller,
        key: MutationKey | None,
        bracket: Bracket | None,
    ) -> CallResult:
        database = self._services.database
        lanes = database.committer.lanes
        key_waited_for: Point | None = None
        habits, function = self._habits, _name_of(wanted)
        named = named_documents(args)
        likely = habits.likely(function, named)
        if likely and lanes.any_hot:
            expected = points_of(likely, database.catalogs.newest, calls.ROOT)
            key_waited_for = await database.start_gate.enter(expected)
        ticket = lanes.ticket(named=likely)

        def leave() -> None:
            nonlocal key_waited_for
            left, key_waited_for = key_waited_for, None
            database.start_gate.leave(left)

        ticket.on_pending = leave
        ahead = not habits.is_strict(function)
        conflicts = 0
        tries = 0
        name = (wanted.component_path, wanted.path.canonical)
        try:
            while True:
                tries += 1
                ticket.keep_for_rerun()
                try:
                    return await self._attempt(
                        wanted,
                        args,
                        identity,
                        caller,
                        key,
                        ticket,
                        tries,
                        bracket,
                        name in self._tells_snapshot,
                        ahead,
                        named,
                    )
                except SnapshotMoved:
                    # From now on its runs begin at a fixed snapshot: they seldom have to be repeated for this.
                    self._note_tells_snapshot(name)
                except RefusedLate:
                    ahead = False
                    habits.refused(function)
                except Rerun:
                    continue
                except OccConflict:
                    conflicts += 1
                    own = ticket.conflicts == 0
                    if conflicts >= (MAX_OWN_CONFLICTS if own else MAX_CONFLICTS):
                        raise
        finally:
            ticket.on_wait = ticket.on_pending = None
            ticket.release_all()
            leave()

    def _note_tells_snapshot(self, name: tuple[str, str]) -> None:
        if len(self._tells_snapshot) >= MAX_TELLING:
            self._tells_snapshot.clear()
        self._tells_snapshot.add(name)

    async def _attempt(
        self,
        wanted: calls.Target,
        args: bytes,
        identity: Identity,
        caller: Caller,
        key: MutationKey | None,
        ticket: LaneTicket,
        tries: int,
        bracket: Bracket | None,
        fixed: bool,
        ahead: bool,
        named: Sequence[NamedDocument],
    ) -> CallResult:
        services = self._services
        database = services.database
        if wanted.path.is_system:
            return await self._attempt_system(wanted, args, identity, caller, key, ticket)
        try:
            if caller.source not in calls.INSIDE_SOURCES:
                services.deployment_state.check(None)
            prepared = await calls.prepare(services, None, wanted, args, "mutation")
        except ConvexError as error:
            failure = calls.function_error(error)
            return calls.call_result(services, identity, caller, database.committer.durable_ts, None, failure, ())
        current: list[Any] = []
        component = prepared.function.component

        def make_host() -> CallContext:
            transaction = database.begin("mutation", component=component, ticket=ticket, writer=wanted.path.stripped)
            if bracket is not None:
                transaction.prologue = bracket.before
            if fixed:
                transaction.fix_snapshot()
            current[:] = [transaction]
            tree = calls.call_tree(
                services, transaction, identity, caller, transaction.names, transaction.table_numbers, transaction.close
            )
            # Lanes that a try held must not wait for the next one, which may have to wait for those that want them.
            tree.on_lost = ticket.release_all
            tree.is_waited_for = ticket.is_waited_for
            tree.ahead = ahead
            context = CallContext(
                tree, prepared.function, prepared.environment, services.syscalls, args_bytes=len(prepared.args)
            )
            ticket.on_wait = context.waits
            return context

        tables = database.catalogs.newest.table_numbers(component)
        spec = calls.spec_of(services, prepared, tables, caller, timeout_seconds=0.0, admitted=tries > 1, ahead=ahead)
        outcome = await services.isolates.run(spec, make_host)
        transaction = current[0] if current else None
        if transaction is None or (transaction.closed and transaction.snapshot_ts is None):
            # The pool ended it before it read anything, or before it could begin.
            assert outcome.error is not None
            ts = database.committer.durable_ts
        else:
            try:
                await self._check_code(transaction, wanted, prepared)
                component = prepared.function.component
                self._habits.learn(_name_of(wanted), named, transaction.reads, database.catalogs.newest, component)
                if outcome.error is not None:
                    ts = await self._settle(transaction, ticket)
                else:
                    if bracket is not None:
                        await bracket.after(transaction, outcome)
                    ledger = None if key is None else _ledger_entry(key, outcome, services.now_ns() // 1_000_000)
                    ts = await database.commit(transaction, ledger)
            finally:
                transaction.close()
        if outcome.value is not None and MARK in outcome.value:
            outcome = attrs.evolve(outcome, value=resolve_text(outcome.value, ts))
        calls.record_run(services, wanted, "mutation", identity, caller, outcome)
        return calls.call_result(services, identity, caller, ts, outcome.value, outcome.error, outcome.log_lines)

    async def _check_code(self, transaction: Any, wanted: calls.Target, prepared: calls.Prepared) -> None:
        """Record what the run depended on besides documents, at its own snapshot.

        The function was resolved before the snapshot was taken (A6): a push in between means another run.

        :raises Rerun: the code or the environment is another one there.
        """
        await transaction.ensure_begun()
        directory = self._services.directory
        function = await directory.resolve(transaction, prepared.function.component, wanted.path)
        environment = await directory.environment(transaction, prepared.function.component)
        if function is not prepared.function or environment.version != prepared.environment.version:
            raise Rerun("The code changed while the mutation began.")

    async def _settle(self, transaction: Any, ticket: LaneTicket) -> int:
        """A failed run writes nothing; its error may tell of what it read, so that must be durable first.

        :returns: the snapshot's timestamp.
        :raises Rerun: what it read has been lost.
        """
        ts: int = transaction.snapshot.ts
        ticket.release_all()
        if transaction.snapshot.dead:
            raise Rerun("The snapshot saw commits that could not be made durable.")
        await self._services.database.committer.wait_durable(ts)
        return ts

    async def _attempt_system(
        self,
        wanted: calls.Target,
        args: bytes,
        identity: Identity,
        caller: Caller,
        key: MutationKey | None,
        ticket: LaneTicket,
    ) -> CallResult:
        services = self._services
        transaction = services.database.begin("mutation", ticket=ticket, writer=wanted.path.stripped)
        try:
            result = await services.system_functions.run_mutation(transaction, wanted, args, identity)
            value = dumps(result)
            ledger = None
            if key is not None:
                ledger = LedgerEntry(
                    key.session, key.request, _encode_answer(value, ()), services.now_ns() // 1_000_000
                )
            ts = await services.database.commit(transaction, ledger)
        except ConvexError as error:
            failure = calls.function_error(error)
            ts = services.database.committer.durable_ts
            if transaction.snapshot_ts is not None:
                ts = await self._settle(transaction, ticket)
            return calls.call_result(services, identity, caller, ts, None, failure, ())
        finally:
            transaction.close()
        return calls.call_result(services, identity, caller, ts, value, None, ())


def _name_of(wanted: calls.Target) -> str:
    """What the habits of a function are kept under."""
    return f"{wanted.component_path}/{wanted.path.stripped}"


def _ledger_entry(key: MutationKey, outcome: Outcome, now_ms: int) -> LedgerEntry:
    assert outcome.value is not None
    return LedgerEntry(key.session, key.request, _encode_answer(outcome.value, outcome.log_lines), now_ms)


def _encode_answer(value: bytes, lines: tuple[LogLine, ...]) -> bytes:
    """``u32 bytes of the lines | lines, JSON | value, JSON``."""
    logs = orjson.dumps([_stored_line(line) for line in lines]) if lines else b"[]"
    return _LENGTH.pack(len(logs)) + logs + value


def _stored_line(line: LogLine) -> dict[str, object]:
    """The form that ``log_lines.parse_line`` reads."""
    return {
        "messages": line.messages,
        "level": line.level,
        "timestamp": line.timestamp,
        "truncated": line.truncated,
        "code": line.code,
    }


def _decode_answer(answer: bytes) -> tuple[bytes, tuple[LogLine, ...]]:
    (length,) = _LENGTH.unpack_from(answer)
    logs = answer[_LENGTH.size : _LENGTH.size + length]
    lines = tuple(parse_line(line) for line in orjson.loads(logs))
    return answer[_LENGTH.size + length :], lines
