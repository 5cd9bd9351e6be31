"""The log of function executions: a bounded ring in memory, read by long polls.

An entry is kept as the small tuple that the use case handed over; its JSON form is made when somebody reads it. Cursors are unix milliseconds with
a fraction, strictly increasing, so that a reader that asks from a cursor gets each later entry once. Source: ``http_api.md`` section 6.1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from prometheus_client import CollectorRegistry, Gauge
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime

from convex_backend.deferreds import Waiters
from convex_backend.functions.log_lines import pretty, structured
from convex_backend.interfaces import LogLine

MAX_ENTRIES = 10_000
MAX_BYTES = 16 * 1024 * 1024
#: Entries in one answer; a reader that is behind asks again.
MAX_ANSWER = 1_000
_ENTRY_BYTES = 400
_KINDS = {"query": "Query", "mutation": "Mutation", "action": "Action", "httpAction": "HttpAction"}


@attrs.frozen(slots=True)
class _Entry:
    """One execution that ended (``seconds`` set), or lines of one that runs."""

    cursor: float
    kind: str
    component_path: str
    path: str
    log_lines: Sequence[LogLine]
    request_id: str
    execution_id: str
    seconds: float | None = None
    error: str | None = None
    parent_execution_id: str | None = None
    source: str = ""
    identity_type: str = ""
    cached: bool = False
    return_bytes: int | None = None
    environment: str = "isolate"
    status: int | None = None

    def size(self) -> int:
        """Approximate bytes held."""
        lines = sum(100 + sum(map(len, line.messages)) for line in self.log_lines)
        return _ENTRY_BYTES + lines + len(self.error or "")

    def to_json(self, lines_structured: bool) -> dict[str, Any]:
        """The entry as clients read it. :param lines_structured: objects instead of ``[LEVEL] text`` strings."""
        make = structured if lines_structured else pretty
        common: dict[str, Any] = {
            "udfType": _KINDS[self.kind],
            "componentPath": self.component_path or None,
            "identifier": self.path,
            "timestamp": self.cursor / 1000,
            "logLines": [make(line) for line in self.log_lines],
            "requestId": self.request_id,
            "executionId": self.execution_id,
        }
        if self.seconds is None:
            return {"kind": "Progress", **common}
        return {
            "kind": "Completion",
            **common,
            "cachedResult": self.cached,
            "executionTime": self.seconds,
            "userExecutionTime": None,
            "success": None if self.status is None else {"status": str(self.status)},
            "error": self.error,
            "caller": self.source,
            "parentExecutionId": self.parent_execution_id,
            "usageStats": {},
            "returnBytes": self.return_bytes,
            "occInfo": None,
            "willRetry": False,
            "executionTimestamp": self.cursor / 1000 - self.seconds,
            "identityType": self.identity_type,
            "environment": self.environment,
        }


class FunctionLog:
    """What functions printed and how they ended, newest last.

    :param reactor: timers of the long polls.
    :param now_ns: wall clock.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        now_ns: Callable[[], int],
        registry: CollectorRegistry,
        *,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._reactor = reactor
        self._now_ns = now_ns
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: deque[tuple[_Entry, int]] = deque()
        self._bytes = 0
        self._last = 0.0
        self._readers: Waiters[None] = Waiters()
        self._stopped = False
        Gauge("convex_function_log_bytes", "Bytes of the function log", registry=registry).set_function(
            lambda: self._bytes
        )

    def _next_cursor(self) -> float:
        # Half a microsecond apart at least: what a float of milliseconds since 1970 can still tell apart.
        self._last = max(self._now_ns() / 1e6, self._last + 0.0005)
        return self._last

    def _append(self, entry: _Entry) -> None:
        size = entry.size()
        self._entries.append((entry, size))
        self._bytes += size
        while len(self._entries) > self._max_entries or (self._bytes > self._max_bytes and len(self._entries) > 1):
            self._bytes -= self._entries.popleft()[1]
        if len(self._readers):
            self._readers.fire(None)

    def record_completion(
        self,
        *,
        kind: str,
        component_path: str,
        path: str,
        log_lines: Sequence[LogLine],
        seconds: float,
        error: str | None,
        request_id: str,
        execution_id: str,
        parent_execution_id: str | None,
        source: str,
        identity_type: str,
        cached: bool,
        return_bytes: int | None,
        environment: str = "isolate",
        status: int | None = None,
    ) -> None:
        """Note that an execution ended.

        :param kind: ``query``, ``mutation``, ``action`` or ``httpAction``.
        :param path: stripped function path, ``messages:list``; of an HTTP action its route, ``GET /path``.
        :param status: of an HTTP action's response.
        :param seconds: JS time of a query or mutation, wall time of an action.
        """
        self._append(
            _Entry(
                self._next_cursor(),
                kind,
                component_path,
                path,
                log_lines,
                request_id,
                execution_id,
                seconds,
                error,
                parent_execution_id,
                source,
                identity_type,
                cached,
                return_bytes,
                environment,
                status,
            )
        )

    def record_progress(
        self,
        *,
        kind: str,
        component_path: str,
        path: str,
        log_lines: Sequence[LogLine],
        request_id: str,
        execution_id: str,
    ) -> None:
        """Note lines of an action that still runs."""
        self._append(_Entry(self._next_cursor(), kind, component_path, path, log_lines, request_id, execution_id))

    def newest_cursor(self) -> float:
        """A cursor from which only what comes later is read."""
        return self._entries[-1][0].cursor if self._entries else self._now_ns() / 1e6

    def _after(self, cursor: float, completions_only: bool) -> list[_Entry]:
        found: list[_Entry] = []
        for entry, _ in reversed(self._entries):
            if entry.cursor <= cursor:
                break
            if not completions_only or entry.seconds is not None:
                found.append(entry)
        found.reverse()
        return found

    async def read(
        self, cursor: float, timeout_seconds: float, *, structured: bool, completions_only: bool = False
    ) -> tuple[list[dict[str, Any]], float]:
        """Entries after *cursor*, at once if there are any or if *cursor* is 0, else when one comes or the time is over.

        Cursor 0 asks for the past: its newest part, for readers take the first answer for all of the past and what follows for live.

        :param structured: log lines as objects instead of strings.
        :returns: at most ``MAX_ANSWER`` entries, oldest first, and the cursor to go on from.
        Cancelling stops the wait.
        """
        entries = self._after(cursor, completions_only)
        if not entries and cursor > 0 and not self._stopped:
            waiter = self._readers.wait()
            timer = self._reactor.callLater(timeout_seconds, waiter.cancel)
            try:
                await waiter
            except CancelledError:
                if timer.active():
                    raise
                return [], cursor
            finally:
                if timer.active():
                    timer.cancel()
            entries = self._after(cursor, completions_only)
        if not entries:
            return [], cursor if cursor > 0 else self.newest_cursor()
        entries = entries[:MAX_ANSWER] if cursor > 0 else entries[-MAX_ANSWER:]
        return [entry.to_json(structured) for entry in entries], entries[-1].cursor

    def stop(self) -> None:
        """Answer every waiting reader now."""
        self._stopped = True
        self._readers.fire(None)
