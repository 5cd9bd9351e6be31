"""HTTP actions: one request to its router in the child, the response's head and body as they are made.

::

    front end                       here                                child
    request head ────────────────► route, run ── START, request ──────► lookup, runRequest
    body ── has_room / write ─────► StreamWriter 1 ── DATA ────────────► request.body
    response_head ◄──────────────── status and headers ◄── HTTP ──────── the Response
    response_data ◄── taken ──────► StreamReader ◄── DATA ───────────── response.body
    client_gone ──────────────────► HTTP {closed} ────────────────────► request.signal aborts; the action runs on

What fails before the head is an answer of its own; what fails after it is logged, and the body just ends. Source: ``runtime.md`` sections 1.6,
2.5, 8.4, 8.5, 9.10; ``http_api.md`` section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs
import orjson
from twisted.internet.defer import CancelledError

from convex_backend.application import calls
from convex_backend.application.action_lines import ActionLines
from convex_backend.application.deployment_state import PAUSED_TEXT
from convex_backend.application.http_routing import NoTarget
from convex_backend.application.run_action import ActionCalls, action_tree, durable_catalog
from convex_backend.application.types import Caller, Identity
from convex_backend.errors import ConvexError
from convex_backend.functions.admission import STOPPING_TEXT
from convex_backend.functions.context import CallContext
from convex_backend.functions.limits import HTTP_RESPONSE_WARNING, MAX_HTTP_RESPONSE_BYTES, MEMORY_TEXT
from convex_backend.functions.outcome import loads_lenient
from convex_backend.functions.streams import CallStreams, StreamReader
from convex_backend.interfaces import FunctionError, LogLine, Outcome

if TYPE_CHECKING:
    from convex_backend.application.application import Application

REQUEST_STREAM: Final = 1
CLIENT_GONE: Final = "Client disconnected"
NOT_ENABLED: Final = "This Convex deployment does not have HTTP actions enabled."
NO_ROUTE: Final = "No matching routes found"
TOO_LARGE: Final = "HttpResponseTooLarge: HTTP actions support responses up to 20 MiB"


@attrs.frozen(slots=True)
class HttpRequest:
    """A request without its body.

    :param url: absolute, as ``request.url`` shows it. :param path: raw, without the query, by which it is routed.
    :param headers: names in lower case and values as Latin-1 text, in order, duplicates apart.
    :param has_body: whether the action gets a body, which may be empty.
    """

    method: str
    url: str
    path: str
    headers: Sequence[tuple[str, str]]
    has_body: bool


@attrs.frozen(slots=True)
class HttpAnswer:
    """An answer that did not come from the action. :param content_type: without parameters for JSON."""

    status: int
    content_type: str
    body: bytes


class ResponseListener(Protocol):
    """Who passes the response on. Told nothing after :meth:`HttpActionRun.client_gone`."""

    def response_head(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """The head, once. :param headers: as in :class:`HttpRequest`."""

    def response_data(self, data: bytes) -> None:
        """Some bytes of the body; :meth:`HttpActionRun.taken` must be called for them when they have gone on."""

    def response_end(self) -> None:
        """The body is over, however the run goes on."""


class HttpActionRun:
    """One request. Use :meth:`run` once; everything else while it runs.

    :ivar on_room: called when :attr:`has_room` becomes true again.
    :ivar request_bytes: of the request's body, as far as it has come.
    """

    def __init__(
        self,
        application: Application,
        request: HttpRequest,
        identity: Identity,
        caller: Caller,
        listener: ResponseListener,
    ) -> None:
        self._application = application
        self._request = request
        self._identity = identity
        self._caller = caller
        self._listener = listener
        self._streams = CallStreams(self._on_http)
        self._body = self._streams.writer(REQUEST_STREAM)
        self._reader: StreamReader | None = None
        self._lines: ActionLines | None = None
        self._route: str | None = None
        self._status: int | None = None
        self.request_bytes = 0
        self._response_bytes = 0
        self._client_there = True
        self._left_early = False
        self._body_over = False
        self._too_large = False

    # -- what the front end does ---------------------------------------------------------------------------------------

    @property
    def on_room(self) -> Callable[[], None]:
        """See the class."""
        return self._body.on_room

    @on_room.setter
    def on_room(self, on_room: Callable[[], None]) -> None:
        self._body.on_room = on_room

    @property
    def has_room(self) -> bool:
        """Whether the action takes more of the request's body now."""
        return self._body.has_room

    @property
    def has_begun(self) -> bool:
        """Whether the action has been started: from then on only :meth:`client_gone` may end the wait for it."""
        return self._streams.begun

    def write(self, data: bytes) -> None:
        """Some bytes of the request's body."""
        self.request_bytes += len(data)
        self._body.write(data)

    def end(self) -> None:
        """The request's body is complete."""
        self._body.end()

    def fail(self, text: str) -> None:
        """The request's body breaks off; reading it fails with *text*."""
        self._body.fail(text)

    def taken(self, size: int) -> None:
        """*size* bytes of the response's body have gone on."""
        if self._reader is not None:
            self._reader.taken(size)

    def client_gone(self) -> None:
        """The client went away: the request's signal aborts, and the action runs on."""
        if not self._client_there:
            return
        self._client_there = False
        self.fail(CLIENT_GONE)
        self._streams.send_http(b'{"closed":true}')
        if self._status is None:
            self._left_early = True
        elif not self._body_over:
            self._note("INFO", CLIENT_GONE)

    # -- the run -------------------------------------------------------------------------------------------------------

    async def run(self) -> HttpAnswer | None:
        """Run the action to its end.

        :returns: the answer when there was no response from the action, else ``None``.
        :raises ConvexError: it was not run.
        Cancelling ends the action.
        """
        request, services = self._request, self._application.services
        found = await self._application.http_routing.find(request.method, request.path)
        if isinstance(found, NoTarget):
            return HttpAnswer(404, "text/plain; charset=utf-8", (NO_ROUTE if found.enabled else NOT_ENABLED).encode())
        if services.deployment_state.paused:
            return self._answer(FunctionError(PAUSED_TEXT))
        target, function = found
        environment = await services.directory.environment(None, function.component)
        execution_id = calls.new_request_id()
        lines = self._lines = ActionLines(
            services.function_log, "httpAction", target.component_path, None, self._caller.request_id, execution_id
        )
        runner = ActionCalls(self._application, self._identity, self._caller, execution_id, 0)

        def make_host() -> CallContext:
            tree = action_tree(services, self._identity, self._caller, runner, lines, self._streams)
            return CallContext(tree, function, environment, services.syscalls)

        spec = calls.spec_of(
            services,
            calls.Prepared(function, self._request_text(), environment),
            durable_catalog(services).table_numbers(function.component),
            self._caller,
            timeout_seconds=services.settings.action_timeout_seconds,
        )
        spec = attrs.evolve(spec, http_route=(request.method, target.path))
        started = services.now_ns()
        outcome: Outcome | None = None
        try:
            outcome = await services.actions.run(spec, make_host)
        except CancelledError:
            if self.has_begun:
                self._record(None, FunctionError(STOPPING_TEXT), target.component_path, execution_id, started)
            raise
        finally:
            self._streams.end()
        error = self._error_of(outcome)
        answer = None if self._status is not None else self._answer(error)
        if answer is None or answer.status != 404:
            self._record(outcome, error, target.component_path, execution_id, started)
        self._end_body()
        return answer

    def _request_text(self) -> bytes:
        request = self._request
        return orjson.dumps(
            {
                "headerPairs": request.headers,
                "url": request.url,
                "method": request.method,
                "streamId": str(REQUEST_STREAM) if request.has_body else None,
                "signal": "client",
            }
        )

    # -- what the child says ---------------------------------------------------------------------------------------------

    def _on_http(self, meta: bytes, body: bytes) -> None:
        """A frame of kind HTTP: the route, or the head of the response. :raises ValueError, KeyError, TypeError: neither."""
        assert self._lines is not None
        if meta:
            self._route = str(loads_lenient(meta)["route"])
            self._lines.named(self._route)
            return
        head: Any = loads_lenient(body)
        self._status = int(head["status"])
        headers = [(str(name), str(value)) for name, value in head["headerPairs"]]
        if self._client_there:
            self._listener.response_head(self._status, headers)
        stream = head.get("streamId")
        if stream is None:
            self._end_body()
            return
        self._reader = self._streams.reader(int(stream))
        self._reader.listen(self._response_data, lambda _: self._end_body())

    def _response_data(self, data: bytes) -> None:
        assert self._reader is not None
        if not self._too_large:
            self._response_bytes += len(data)
            if self._response_bytes > MAX_HTTP_RESPONSE_BYTES:
                self._too_large = True
                self._note("ERROR", TOO_LARGE)
                self._end_body()
        if self._too_large or not self._client_there:
            # The action runs on; nobody wants what it still says.
            self._reader.taken(len(data))
        else:
            self._listener.response_data(data)

    def _end_body(self) -> None:
        if not self._body_over:
            self._body_over = True
            if self._client_there and self._status is not None:
                self._listener.response_end()

    # -- the end -----------------------------------------------------------------------------------------------------------

    def _error_of(self, outcome: Outcome) -> FunctionError | None:
        error = outcome.error
        if error is not None and error.message == MEMORY_TEXT:
            error = attrs.evolve(error, message=f"{MEMORY_TEXT}: request stream size was {self.request_bytes} bytes")
        return error

    def _answer(self, error: FunctionError | None) -> HttpAnswer:
        """The answer to a request whose action gave no response (``runtime.md`` section 8.4)."""
        if error is None:
            return HttpAnswer(404, "text/plain; charset=utf-8", NO_ROUTE.encode())
        redacted = self._application.settings.redact_logs_to_client and not self._identity.is_admin
        return HttpAnswer(500, "application/json", failure_body(error, self._caller.request_id, redacted))

    def _note(self, level: str, text: str) -> None:
        if self._lines is not None:
            self._lines.add(LogLine((text,), level, self._application.services.now_ns() // 1_000_000))

    def _record(
        self,
        outcome: Outcome | None,
        error: FunctionError | None,
        component_path: str,
        execution_id: str,
        started: int,
    ) -> None:
        services, lines = self._application.services, self._lines
        assert lines is not None
        route = self._route
        if route is None:
            # It failed before its router had been asked.
            route = f"{self._request.method} {self._request.path}"
            lines.named(route)
        if outcome is not None:
            lines.ended(outcome.log_lines)
            warning = HTTP_RESPONSE_WARNING.line(self._response_bytes, services.now_ns() // 1_000_000)
            if warning is not None:
                lines.add(warning)
        status = self._status
        text = None if error is None else error.message
        if self._left_early:
            text = CLIENT_GONE
        elif status is None:
            status = 500
        elif text is not None:
            # The client has its status already.
            self._note("ERROR", text)
            text = None
        services.function_log.record_completion(
            kind="httpAction",
            component_path=component_path,
            path=route,
            log_lines=(),
            seconds=(services.now_ns() - started) / 1e9,
            error=text,
            request_id=self._caller.request_id,
            execution_id=execution_id,
            parent_execution_id=None,
            source=self._caller.source,
            identity_type=self._identity.log_name,
            cached=False,
            return_bytes=self._response_bytes,
            status=status,
        )


def failure_body(error: FunctionError | ConvexError, request_id: str, redacted: bool) -> bytes:
    """The JSON of a failed HTTP action: what it threw, with and without frames, and the data of a ConvexError."""
    head = f"[Request ID: {request_id}] Server Error"
    tree: dict[str, Any] = {"code": head}
    text = error.message
    if not redacted:
        tree["code"] = f"{head}: {_without_frames(text)}"
        tree["trace"] = text
    data = error.data if isinstance(error, FunctionError) else None
    if data is not None:
        tree["data"] = orjson.Fragment(data)
    return orjson.dumps(tree)


def _without_frames(text: str) -> str:
    """The message of a rendered error: its last lines are frames, each indented by four blanks."""
    lines = text.rstrip("\n").split("\n")
    while len(lines) > 1 and lines[-1].startswith("    at "):
        lines.pop()
    return "\n".join(lines)
