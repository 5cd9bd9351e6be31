"""Carries out what a session asks for, against the application: one worker for each connection.

::

    payload ─► inbox ─► SyncSession ─► live queries ──on_ready──► take ─► Transition ─► outlet
               (waits while a token                ─► mutation queue (one at a time) ─► MutationResponse, then a Transition
                is verified)                       ─► actions (side by side)         ─► ActionResponse, then a Transition

The path from ``on_ready`` to the outlet is plain synchronous code, because a broadcast takes it once for each subscriber. While the outlet
is blocked the worker only remembers that there is something to tell. Source: ``sync.md`` sections 5 and 6.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import attrs
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from convex_backend.application.keys import Keys, acting_identity
from convex_backend.application.settings import Settings
from convex_backend.application.types import ANONYMOUS, Caller, CallResult, Identity, Live, MutationKey
from convex_backend.deferreds import Waiters, run_detached
from convex_backend.errors import BadRequest, Unauthenticated
from convex_backend.sync import closing, messages
from convex_backend.sync.clients import Client
from convex_backend.sync.closing import Close
from convex_backend.sync.messages import Action, Authenticate, Request
from convex_backend.sync.metrics import SyncMetrics
from convex_backend.sync.session import (
    Effect,
    ObserveTs,
    RunAction,
    RunMutation,
    Subscribe,
    SyncSession,
    Unsubscribe,
    Verify,
)

#: Limits of one connection (``sync.md`` section 8.2).
MAX_QUEUED_MUTATIONS: Final = 1000
MAX_RUNNING_ACTIONS: Final = 1000
MUTATION_SECONDS: Final = 60.0
#: Messages and bytes that may wait before no more is read from the socket.
INBOX_MESSAGES: Final = 128
INBOX_BYTES: Final = 4 * 1024 * 1024
#: How long a new identity waits for the first query set to be announced with it. A client that reconnects sends both at once; a Transition
#: with the identity alone would tell npm that none of its queries has a result.
FIRST_QUERY_SET_SECONDS: Final = 0.05


class Application(Protocol):
    """What this room needs of :class:`convex_backend.application.application.Application`."""

    @property
    def settings(self) -> Settings: ...
    @property
    def live(self) -> Live: ...
    @property
    def keys(self) -> Keys: ...

    def latest_ts(self) -> int: ...
    async def observe_ts(self, ts: int) -> None: ...
    async def authenticate_user(self, token: str) -> Identity: ...
    async def run_mutation(
        self,
        path: str,
        args: bytes,
        identity: Identity,
        caller: Caller,
        *,
        component_path: str | None = None,
        key: MutationKey | None = None,
    ) -> CallResult: ...
    async def run_action(
        self, path: str, args: bytes, identity: Identity, caller: Caller, *, component_path: str | None = None
    ) -> CallResult: ...


class Outlet(Protocol):
    """The socket as the worker sees it."""

    @property
    def blocked(self) -> bool:
        """Whether as many Transitions wait unsent as may; :meth:`SyncWorker.writable` is called when that ends."""

    @property
    def congested(self) -> bool:
        """Whether so much waits unsent that no new work should be taken; likewise."""

    def send(self, message: bytes) -> None:
        """Send one text message."""

    def send_transition(self, message: bytes) -> None:
        """Send a Transition or its last chunk."""

    def end(self, close: Close) -> None:
        """Send the last message and the close frame."""

    def pause_reading(self) -> None:
        """Read no more from the peer for now."""

    def resume_reading(self) -> None:
        """Read again."""


@attrs.frozen(slots=True)
class Peer:
    """Who is connected, for the function log and for request metadata."""

    client: Client
    ip: str | None = None
    user_agent: str | None = None


class SyncWorker:
    """One connection's work.

    :param clock: monotonic seconds.
    :param now_ns: wall clock.
    """

    _log = Logger()

    def __init__(
        self,
        application: Application,
        outlet: Outlet,
        peer: Peer,
        clock: IReactorTime,
        now_ns: Callable[[], int],
        random_bytes: Callable[[int], bytes],
        metrics: SyncMetrics,
    ) -> None:
        self._application = application
        self._outlet = outlet
        self._peer = peer
        self._clock = clock
        self._now_ns = now_ns
        self._random_bytes = random_bytes
        self._metrics = metrics
        self.session = SyncSession(now_ns)
        self.ended = False
        self._takes_chunks = peer.client.takes_chunks
        self._redacts = application.settings.redact_logs_to_client
        self._inbox: deque[bytes] = deque()
        self._inbox_bytes = 0
        self._reading_paused = False
        self._waiting = False
        self._mutations: deque[tuple[RunMutation, Identity]] = deque()
        self._mutating = False
        self._mutation_started: float | None = None
        self._actions = 0
        self._dirty = False
        self._held: IDelayedCall | None = None
        self._writable: Waiters[None] = Waiters()
        self._use_identity(ANONYMOUS)
        self._live = application.live.connect(ANONYMOUS, self._on_ready)

    # -- called by the socket -----------------------------------------------------------------------------------------

    def received(self, payload: bytes) -> None:
        """A text message has arrived."""
        if self.ended:
            return
        if self._waiting or self._inbox or self._outlet.congested:
            self._inbox.append(payload)
            self._inbox_bytes += len(payload)
            self._check_inbox()
        else:
            self._handle(payload)

    def writable(self) -> None:
        """The outlet has sent what it had."""
        if self._dirty:
            self._on_ready()
        if self._inbox:
            self._drain_inbox()
        if len(self._writable):
            self._writable.fire(None)

    def tick(self, now: float) -> None:
        """Called about once a second: end a connection whose mutation takes too long.

        :param now: as ``clock.seconds()``.
        """
        started = self._mutation_started
        if started is not None and now - started >= MUTATION_SECONDS and not self.ended:
            self._log.warn("a mutation took longer than {seconds} s: its socket is closed", seconds=MUTATION_SECONDS)
            self._end(closing.INTERNAL)

    def closed(self) -> None:
        """The connection is gone, or going. A mutation or action under way runs to its end; its response is dropped."""
        if self.ended:
            return
        self.ended = True
        self._release()
        self._live.close()
        self._inbox.clear()
        self._metrics.queued_mutations -= len(self._mutations)
        self._mutations.clear()
        self._writable.fire(None)
        if self._reading_paused:
            # The peer's close frame has yet to come.
            self._outlet.resume_reading()

    # -- messages -----------------------------------------------------------------------------------------------------

    def _check_inbox(self) -> None:
        full = len(self._inbox) >= INBOX_MESSAGES or self._inbox_bytes >= INBOX_BYTES
        if full and not self._reading_paused:
            self._reading_paused = True
            self._outlet.pause_reading()
        elif self._reading_paused and not self._inbox:
            self._reading_paused = False
            self._outlet.resume_reading()

    def _drain_inbox(self) -> None:
        while self._inbox and not (self._waiting or self.ended or self._outlet.congested):
            payload = self._inbox.popleft()
            self._inbox_bytes -= len(payload)
            self._handle(payload)
        self._check_inbox()

    def _resume(self) -> None:
        """What held up the messages is over."""
        self._waiting = False
        self._drain_inbox()
        if self.session.owed:
            self._on_ready()

    def _handle(self, payload: bytes) -> None:
        try:
            message = messages.parse(payload)
        except BadRequest as error:
            self._metrics.messages["invalid"] += 1
            self._end(closing.fatal(error.message))
            return
        self._metrics.messages[type(message).__name__] += 1
        try:
            for effect in self.session.receive(message):
                self._perform(effect)
                if self.ended:
                    return
            if self.session.owed:
                self._update()
        except Exception as error:  # noqa: BLE001 - whatever it is, the socket must be closed with a code
            self._end_with(error)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case RunMutation():
                self._queue_mutation(effect)
            case Subscribe():
                self._live.add(effect.query_id, effect.query)
                # A result from before the subscription could lack what its user already knows to be committed.
                self.session.must_reach(self._application.latest_ts())
            case Unsubscribe():
                self._live.remove(effect.query_id)
            case RunAction():
                self._start_action(effect.request)
            case Close():
                self._end(effect)
            case ObserveTs():
                if effect.ts > self._application.latest_ts():
                    self._waiting = True
                    run_detached("observing a timestamp", self._observe(effect.ts))
            case Verify():
                self._verify(effect.message)

    async def _observe(self, ts: int) -> None:
        try:
            await self._application.observe_ts(ts)
        except Exception as error:  # noqa: BLE001 - see _end_with
            self._end_with(error)
        else:
            self._resume()

    # -- identity -----------------------------------------------------------------------------------------------------

    def _use_identity(self, identity: Identity) -> None:
        self._identity = identity
        self._expires_at = identity.expires_at
        self._redacted = self._redacts and not identity.is_admin

    def _verify(self, message: Authenticate) -> None:
        if message.token_type == "User":
            self._waiting = True
            run_detached("verifying a token", self._verify_user(message.value))
            return
        try:
            self._accept(ANONYMOUS if message.token_type == "None" else self._check_admin(message))
        except Unauthenticated as error:
            self._reject(error)

    def _check_admin(self, message: Authenticate) -> Identity:
        identity = self._application.keys.check_admin(message.value)
        return identity if message.acting_as is None else acting_identity(identity, message.acting_as)

    async def _verify_user(self, token: str) -> None:
        try:
            identity = await self._application.authenticate_user(token)
            if not self.ended:
                self._accept(identity)
        except Unauthenticated as error:
            self._reject(error)
        except Exception as error:  # noqa: BLE001 - the provider's trouble is not the token's fault (section 6.2)
            self._log_unexpected(error)
            self._end(closing.INTERNAL)
        else:
            self._resume()

    def _accept(self, identity: Identity) -> None:
        self._use_identity(identity)
        self._live.set_identity(identity)
        self.session.identity_accepted()
        if self.session.received_query_set == 0 and self._held is None:
            self._held = self._clock.callLater(FIRST_QUERY_SET_SECONDS, self._held_long_enough)

    def _held_long_enough(self) -> None:
        self._held = None
        self._on_ready()

    def _release(self) -> None:
        if self._held is not None:
            self._held.cancel()
            self._held = None

    def _reject(self, error: Unauthenticated) -> None:
        self._end(closing.unauthenticated(error.message, self.session.sent_identity, update_attempted=True))

    def _check_expiry(self, expires_at: float | None) -> bool:
        """End the connection if a user's token has run out (section 6.3). :returns: whether work may go on."""
        if expires_at is None or self._now_ns() < expires_at * 1e9:
            return True
        self._end(closing.unauthenticated(closing.TOKEN_EXPIRED, self.session.sent_identity, update_attempted=False))
        return False

    # -- Transitions --------------------------------------------------------------------------------------------------

    def _on_ready(self) -> None:
        if self.ended:
            return
        try:
            self._update()
        except Exception as error:  # noqa: BLE001 - one connection's fault must not end a broadcast
            self._end_with(error)

    def _update(self) -> None:
        """Announce the next consistent state of the client's queries, if there is one; ask for the next if more is awaited."""
        while self._announce() and self.session.awaited:
            pass

    def _announce(self) -> bool:
        """:returns: whether a Transition was sent."""
        if self._outlet.blocked:
            self._dirty = True
            return False
        self._dirty = False
        if self._held is not None:
            if self.session.received_query_set == 0:
                return False
            self._release()
        if self._expires_at is not None and not self._check_expiry(self._expires_at):
            return False
        session = self.session
        update = self._live.take(session.at_least)
        if update is None:
            return False
        message = session.transition(update, self._redacted)
        if message is None:
            return False
        self._metrics.transitions += 1
        self._metrics.transition_bytes += len(message)
        if self._takes_chunks and len(message) > messages.CHUNK_BYTES:
            *parts, message = messages.transition_chunks(message)
            for part in parts:
                self._outlet.send(part)
        self._outlet.send_transition(message)
        return True

    # -- functions ----------------------------------------------------------------------------------------------------

    def _caller(self, request: Request) -> Caller:
        session = self.session.session_id
        if session is None:
            request_id = self._random_bytes(8).hex()
        else:
            request_id = hashlib.sha256(b"%s|%d" % (session.encode(), request.request_id)).hexdigest()[:16]
        client = self._peer.client
        return Caller("SyncWorker", client.name, client.version, request_id, self._peer.ip, self._peer.user_agent)

    def _queue_mutation(self, effect: RunMutation) -> None:
        if len(self._mutations) >= MAX_QUEUED_MUTATIONS:
            self._end(closing.MUTATIONS_FULL)
            return
        self._mutations.append((effect, self._identity))
        self._metrics.queued_mutations += 1
        if not self._mutating:
            self._mutating = True
            run_detached("the mutations of a connection", self._run_mutations())

    async def _run_mutations(self) -> None:
        try:
            while self._mutations:
                if self._outlet.congested:
                    await self._writable.wait()
                    continue
                effect, identity = self._mutations.popleft()
                self._metrics.queued_mutations -= 1
                if not self._check_expiry(identity.expires_at):
                    return
                request = effect.request
                self._mutation_started = self._clock.seconds()
                result = await self._application.run_mutation(
                    request.path,
                    request.args,
                    identity,
                    self._caller(request),
                    component_path=request.component_path,
                    key=effect.key,
                )
                self._mutation_started = None
                if self.ended:
                    return
                ts = result.ts if result.error is None else 0
                self._respond(messages.mutation_response(request.request_id, result), ts)
        except Exception as error:  # noqa: BLE001 - see _end_with
            self._end_with(error)
        finally:
            self._mutating = False

    def _start_action(self, request: Action) -> None:
        if self._actions >= MAX_RUNNING_ACTIONS:
            self._end(closing.ACTIONS_FULL)
        elif self._check_expiry(self._expires_at):
            run_detached("an action of a connection", self._run_action(request, self._identity))

    async def _run_action(self, request: Action, identity: Identity) -> None:
        self._actions += 1
        self._metrics.running_actions += 1
        try:
            result = await self._application.run_action(
                request.path, request.args, identity, self._caller(request), component_path=request.component_path
            )
            if not self.ended:
                self._respond(messages.action_response(request.request_id, result), 0)
        except Exception as error:  # noqa: BLE001 - see _end_with
            self._end_with(error)
        finally:
            self._actions -= 1
            self._metrics.running_actions -= 1

    def _respond(self, message: bytes, ts: int) -> None:
        """Send a response, and the Transition that must follow it (section 5.4)."""
        self._outlet.send(message)
        self.session.responded(ts)
        self._update()

    # -- the end ------------------------------------------------------------------------------------------------------

    def _end(self, close: Close) -> None:
        if not self.ended:
            self.closed()
            self._outlet.end(close)

    def end(self, close: Close) -> None:
        """End the connection from outside: the server stops, the peer is silent."""
        self._end(close)

    def _end_with(self, error: Exception) -> None:
        """End the connection because of *error*; what has no name of its own is logged."""
        self._log_unexpected(error)
        self._end(closing.for_error(error, self.session.sent_identity))

    def _log_unexpected(self, error: Exception) -> None:
        if not closing.is_expected(error) and not isinstance(error, CancelledError):
            self._log.failure("a sync connection failed", failure=Failure(error))
