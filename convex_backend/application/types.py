"""What crosses the border between the front ends and the use cases. Frozen, without transport.

The front ends (``web/``, ``sync/``) see ``Application`` and these types only.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Protocol

import attrs

from convex_backend.errors import ConvexError
from convex_backend.functions.log_lines import pretty
from convex_backend.interfaces import FunctionError, LogLine


@attrs.frozen(slots=True)
class Identity:
    """Who calls.

    :param kind: ``anonymous``, ``user``, ``admin``, ``acting_user`` (an admin as a user) or ``system`` (scheduler, internal).
    :param attributes: the user identity object (``tokenIdentifier``, ``issuer``, ``subject``, …) of ``user`` and ``acting_user``.
    :param expires_at: unix seconds after which a user token is no longer valid, or ``None``.
    :param read_only: an admin key that may not write.
    :param inside: the call comes from server code on behalf of this caller: internal functions are open.
    :param error: of an HTTP action whose ``Authorization`` header cannot be used: asking for the identity raises it.
    :param token: the JWT of a ``user``; two identities that differ in it alone are one to functions.
    """

    kind: str
    attributes: tuple[tuple[str, object], ...] | None = None
    expires_at: float | None = None
    read_only: bool = False
    inside: bool = False
    error: ConvexError | None = None
    token: str | None = attrs.field(default=None, repr=False)

    @property
    def is_admin(self) -> bool:
        """Whether components and ``_system`` functions are open to this caller, and nothing is redacted for it."""
        return self.kind in ("admin", "acting_user", "system")

    @property
    def sees_internal(self) -> bool:
        """Whether internal functions are open to this caller."""
        return self.inside or self.is_admin

    @functools.cached_property
    def key(self) -> str:
        """Equal for identities that functions cannot tell apart."""
        if self.error is not None:
            return json.dumps([self.kind, self.error.code, self.error.message])
        if self.attributes is None:
            return self.kind
        return json.dumps([self.kind, dict(self.attributes)], sort_keys=True)

    @property
    def log_name(self) -> str:
        """The ``identityType`` of the log stream (``http_api.md`` section 6.1)."""
        return {"admin": "instance_admin", "acting_user": "member_acting_user", "user": "user", "system": "system"}.get(
            self.kind, "unknown"
        )


ANONYMOUS = Identity("anonymous")
SYSTEM = Identity("system")


@attrs.frozen(slots=True)
class Caller:
    """Where a call came from.

    :param source: ``HttpApi``, ``SyncWorker``, ``Action``, ``Scheduler``, ``Cron``, ``HttpEndpoint`` or ``Tester``.
    :param client: lower-case client name, ``npm``, ``npm-cli``, ``python``, …, or ``unknown``.
    :param version: the client's semver as given, or ``None``.
    :param request_id: 16 hex digits.
    :param scheduled_function_id: the scheduled function that the call is, or is part of.
    :param parent_execution_id: of the action that calls, or ``None``.
    """

    source: str
    client: str
    version: str | None
    request_id: str
    ip: str | None = None
    user_agent: str | None = None
    scheduled_function_id: str | None = None
    parent_execution_id: str | None = None


@attrs.frozen(slots=True)
class CallResult:
    """The answer of one function call. Exactly one of ``value`` and ``error`` is set.

    :param value: canonical Convex JSON text.
    :param ts: commit timestamp of a mutation, snapshot of a query (ns).
    :param log_lines: what may be shown to the caller (already emptied when redacted).
    """

    value: bytes | None
    error: FunctionError | None
    log_lines: tuple[LogLine, ...]
    ts: int
    request_id: str
    redacted: bool = False

    def error_message(self) -> str:
        """``[Request ID: …] Server Error`` with the rendered text unless redacted (``runtime.md`` section 8.4)."""
        assert self.error is not None
        head = f"[Request ID: {self.request_id}] Server Error"
        return head if self.redacted else f"{head}\n{self.error.message}"

    def log_texts(self) -> list[str]:
        """The log lines as text, ``[LOG] 'hi' 42`` (``sync.md`` section 4.6)."""
        return [pretty(line) for line in self.log_lines]


@attrs.frozen(slots=True)
class QuerySpec:
    """A subscribed query as the client named it. ``args`` is the JSON text of the argument array."""

    path: str
    args: bytes
    journal: str | None
    component_path: str | None


@attrs.define(slots=True, eq=False)
class QueryResult:
    """One result of a shared live query; shared by every subscriber, never changed.

    :param digest: equal for results that a client cannot tell apart (value or error text without request id, log lines).
    :param body: the modification's JSON text after its ``queryId``, for an unredacted client: ``,"value":…,"logLines":[…],"journal":…}``
        with the leading ``{"type":…`` made by :meth:`modification`.
    """

    failed: bool
    digest: bytes
    journal: str | None
    body: bytes
    redacted_body: bytes

    def modification(self, query_id: int, redacted: bool) -> bytes:
        """The JSON text of ``QueryUpdated`` or ``QueryFailed`` for *query_id* (``sync.md`` section 4.1)."""
        kind = b"QueryFailed" if self.failed else b"QueryUpdated"
        body = self.redacted_body if redacted else self.body
        return b'{"type":"%s","queryId":%d%s' % (kind, query_id, body)


@attrs.frozen(slots=True)
class LiveUpdate:
    """All of one client's queries, valid together at ``ts``; ``changed`` lists those whose result differs from the last update."""

    ts: int
    changed: tuple[tuple[int, QueryResult], ...]


class LiveClient(Protocol):
    """One connection's set of live queries (A7). Not shared; every method is synchronous and cheap."""

    def add(self, query_id: int, query: QuerySpec) -> None:
        """Subscribe. A path that cannot be parsed raises ``BadRequest``; everything else is a failed query later."""

    def remove(self, query_id: int) -> None:
        """Unsubscribe; unknown ids raise ``KeyError``."""

    def set_identity(self, identity: Identity) -> None:
        """Every query is evaluated under *identity* before the next update; a result equal to the last one is not repeated."""

    def take(self, at_least: int) -> LiveUpdate | None:
        """The next consistent update, if all queries are valid at one timestamp that is not below *at_least*.

        :param at_least: a commit that the client must see (0 = none). The update's ``ts`` is never below that of the one before.
        :returns: ``None`` while results are still being computed; then ``on_ready`` is called when it is worth asking again. An
            update may be empty. Each change is handed out once: the caller must send what it took.
        """

    def close(self) -> None:
        """Drop every subscription; ``on_ready`` is not called any more."""


class Live(Protocol):
    """Where connections get their :class:`LiveClient`."""

    def connect(self, identity: Identity, on_ready: Callable[[], None]) -> LiveClient:
        """:param on_ready: called from the reactor when a subscribed query has a new result, or when a :meth:`LiveClient.take`
        that gave ``None`` is worth repeating. Spurious calls are possible; a call is never missing."""


@attrs.frozen(slots=True)
class MutationKey:
    """Exactly-once key of a mutation (A9): lower-case hyphenated session UUID and the client's request id."""

    session: str
    request: int
