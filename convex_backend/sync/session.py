"""The sync session as a state machine without I/O: client messages in, effects and server messages out.

::

    received:  querySet ──► ModifyQuerySet raises it        identity ──► an accepted Authenticate raises it
    sent:      {querySet, identity, ts} of the last Transition; starts at {0, 0, 0} on every connection

    Transition(start = sent, end = {received.querySet, received.identity, ts of the update})  ──►  sent = end

Subscriptions take effect when their message is received, so every update covers all that was received before it. A Transition is *owed*
after a ``ModifyQuerySet``, an accepted ``Authenticate`` and every response; otherwise an update without changes is not announced.
Source: ``sync.md`` sections 2, 5.1 to 5.4 and 6.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import attrs

from convex_backend.application.types import LiveUpdate, MutationKey, QuerySpec
from convex_backend.sync import closing, messages
from convex_backend.sync.closing import Close
from convex_backend.sync.messages import (
    Action,
    Add,
    Authenticate,
    ClientMessage,
    Connect,
    ModifyQuerySet,
    Mutation,
)


@attrs.frozen(slots=True)
class ObserveTs:
    """The client has seen *ts* (ns): the database must be there before anything else is handled (A10)."""

    ts: int


@attrs.frozen(slots=True)
class Subscribe:
    """Add a live query."""

    query_id: int
    query: QuerySpec


@attrs.frozen(slots=True)
class Unsubscribe:
    """Drop a live query."""

    query_id: int


@attrs.frozen(slots=True)
class Verify:
    """Check a token before anything else is handled; then :meth:`SyncSession.identity_accepted`."""

    message: Authenticate


@attrs.frozen(slots=True)
class RunMutation:
    """Append to the queue of mutations. Without a session there is no *key*, and no exactly-once replay."""

    request: Mutation
    key: MutationKey | None


@attrs.frozen(slots=True)
class RunAction:
    """Start at once."""

    request: Action


Effect = ObserveTs | Subscribe | Unsubscribe | Verify | RunMutation | RunAction | Close


class SyncSession:
    """State of one connection.

    :param now_ns: wall clock.
    :ivar session_id: of the last ``Connect``, or ``None``.
    :ivar awaited: commits that the client waits to see, oldest first; the next Transition must reach the oldest. Not the newest: a client
        that mutates faster than its slowest query runs would get no Transition until it pauses.
    :ivar floor: newest commit that the client may know of without having asked for it; no Transition may be older.
    :ivar owed: the next update must be announced even if it changes nothing.
    """

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self.session_id: str | None = None
        self.clock_skew_ms: int | None = None
        self.received_query_set = 0
        self.received_identity = 0
        self.sent_query_set = 0
        self.sent_identity = 0
        self.sent_ts = 0
        self.awaited: deque[int] = deque()
        self.floor = 0
        self.owed = False
        self._sent = messages.version(0, 0, 0)
        self._queries: set[int] = set()
        self._removed: set[int] = set()

    def receive(self, message: ClientMessage) -> Sequence[Effect]:
        """Take one client message, in order of arrival.

        :returns: what to do, in this order; nothing may follow a :class:`Close`.
        """
        match message:
            case Mutation():
                key = None if self.session_id is None else MutationKey(self.session_id, message.request_id)
                return (RunMutation(message, key),)
            case ModifyQuerySet():
                return self._modify_query_set(message)
            case Action():
                return (RunAction(message),)
            case Connect():
                return self._connect(message)
            case Authenticate():
                if message.base_version != self.received_identity:
                    return (closing.INTERNAL,)
                return (Verify(message),)
            case _:
                return ()

    def _connect(self, message: Connect) -> Sequence[Effect]:
        self.session_id = message.session_id
        if message.client_ts is None:
            self.clock_skew_ms = None
        else:
            self.clock_skew_ms = message.client_ts - self._now_ns() // 1_000_000
        if message.max_observed_ts is None:
            return ()
        # That the database is there is not enough: older results may still be at hand, and time would go back for the client.
        self.must_reach(message.max_observed_ts)
        return (ObserveTs(message.max_observed_ts),)

    def _modify_query_set(self, message: ModifyQuerySet) -> Sequence[Effect]:
        if message.base_version != self.received_query_set:
            return (
                closing.fatal(
                    f"Base version {message.base_version} passed up doesn't match the current version "
                    f"{self.received_query_set}"
                ),
            )
        if message.new_version <= message.base_version:
            return (closing.INTERNAL,)
        effects: list[Effect] = []
        for modification in message.modifications:
            query_id = modification.query_id
            if isinstance(modification, Add):
                if query_id in self._queries:
                    return (closing.INTERNAL,)
                self._queries.add(query_id)
                # Its own result will say that an earlier query of this id is gone.
                self._removed.discard(query_id)
                effects.append(Subscribe(query_id, modification.query))
            elif query_id in self._queries:
                self._queries.remove(query_id)
                self._removed.add(query_id)
                effects.append(Unsubscribe(query_id))
            else:
                return (closing.INTERNAL,)
        self.received_query_set = message.new_version
        self.owed = True
        return effects

    @property
    def at_least(self) -> int:
        """The timestamp that the next Transition must reach."""
        return max(self.floor, self.awaited[0]) if self.awaited else self.floor

    def must_reach(self, ts: int) -> None:
        """No later Transition may be older than *ts*: the client may know of that commit."""
        self.floor = max(self.floor, ts)

    def identity_accepted(self) -> None:
        """The token of the last :class:`Verify` is good and every query has been moved to its identity."""
        self.received_identity += 1
        self.owed = True

    def responded(self, ts: int) -> None:
        """A response has been sent: a Transition must follow it (``sync.md`` section 5.4).

        :param ts: commit timestamp of a mutation that succeeded, else 0.
        """
        if ts > self.sent_ts:
            self.awaited.append(ts)
        self.owed = True

    def transition(self, update: LiveUpdate, redacted: bool) -> bytes | None:
        """The Transition that announces *update*, which covers all that was received so far.

        :param redacted: the caller may not see log lines and texts of errors.
        :returns: JSON text, or ``None`` when there is nothing to announce.
        """
        changed = update.changed
        if not (changed or self.owed):
            return None
        if self._removed:
            pairs = [(query_id, messages.query_removed(query_id)) for query_id in self._removed]
            pairs += [(query_id, result.modification(query_id, redacted)) for query_id, result in changed]
            pairs.sort()
            modifications = [text for _, text in pairs]
            self._removed.clear()
        else:
            modifications = [result.modification(query_id, redacted) for query_id, result in changed]
        start = self._sent
        self.sent_query_set = self.received_query_set
        self.sent_identity = self.received_identity
        self.sent_ts = update.ts
        self._sent = messages.version(self.sent_query_set, self.sent_identity, self.sent_ts)
        while self.awaited and self.awaited[0] <= update.ts:
            self.awaited.popleft()
        self.owed = bool(self.awaited)
        return messages.transition(start, self._sent, modifications, self.clock_skew_ms, self._now_ns())
