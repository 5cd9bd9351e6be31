"""All families of routes as one resource.

Routes without variable parts are also found by a plain look-up of (method, path): matching a URL against the whole map costs more
than answering a cached query. Any other request goes to Klein, which is loaded and given its map when the first of them comes, or when
the server has nothing else to do: it makes up a sixth of what a start would cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs
from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from convex_backend.errors import BadRequest
from convex_backend.web import cors
from convex_backend.web.admin_api import AdminApi, NotYetApi
from convex_backend.web.demo import DemoApi
from convex_backend.web.deploy_api import DeployApi
from convex_backend.web.errors import error_body, status_of
from convex_backend.web.logs_api import LogsApi
from convex_backend.web.meta import MetaApi
from convex_backend.web.public_api import PublicApi
from convex_backend.web.route_table import Endpoint, RouteTable
from convex_backend.web.routing import Front
from convex_backend.web.scheduler_api import SchedulerApi
from convex_backend.web.storage_api import StorageApi

FAMILIES: Final[tuple[type[Any], ...]] = (
    PublicApi,
    MetaApi,
    DeployApi,
    DemoApi,
    LogsApi,
    StorageApi,
    SchedulerApi,
    AdminApi,
    NotYetApi,
)
# Werkzeug compiles a function for each.
_RULES_AT_ONCE: Final = 8


@attrs.frozen(slots=True, eq=False)
class Routes:
    """Where requests go.

    :param fixed: leaves by (method, path), of the routes that have no variable part.
    :param matched: finds the route of any other request.
    :param names: first segments of all paths.
    """

    fixed: Mapping[tuple[bytes, bytes], IResource]
    matched: Matched
    names: frozenset[bytes]


@attrs.frozen(slots=True, eq=False, repr=False)
class _Rule:
    """A route with the endpoint of its family's instance.

    :param name: unique among all families.
    """

    path: str
    methods: Sequence[str]
    name: str
    endpoint: Endpoint


def make_routes(front: Front, families: Iterable[type[Any]] = FAMILIES) -> Routes:
    """The routes of every family; of two that fit, the earlier family's goes first."""
    fixed: dict[tuple[bytes, bytes], IResource] = {}
    rules: list[_Rule] = []
    taken: set[tuple[str, str]] = set()
    for kind in families:
        family = kind(front)
        table: RouteTable = family.app
        for route in table.routes:
            methods = [method for method in route.methods if (route.path, method) not in taken]
            taken.update([(route.path, method) for method in methods])
            if methods:
                endpoint = route.bound(family)
                rules.append(_Rule(route.path, methods, f"{kind.__name__}.{route.name}", endpoint))
                if route.is_fixed:
                    leaf = _Fixed(endpoint)
                    fixed.update({(method.encode(), route.path.encode()): leaf for method in methods})
    names = frozenset(rule.path.split("/")[1].encode() for rule in rules)
    return Routes(fixed, Matched(rules), names)


def _bare(status: int) -> Any:
    def answer(request: Request, _: Any) -> bytes:
        cors.allow_origin(request)
        request.setResponseCode(status)
        request.responseHeaders.setRawHeaders(b"content-length", (b"0",))
        return b""

    return answer


class _Fixed(Resource):
    """One route without variable parts."""

    isLeaf = True
    _log = Logger()

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._endpoint = endpoint

    def render(self, request: Any) -> Any:
        """See ``IResource``. As in Klein, the work is cancelled when the client goes away."""
        work = self._endpoint(request)
        if isinstance(work, bytes):
            return work
        there = True

        def give_up(_: Failure) -> None:
            nonlocal there
            there = False
            work.cancel()

        def write(body: bytes) -> None:
            if there:
                request.write(body)
                request.finish()

        request.notifyFinish().addErrback(give_up)
        work.addCallback(write).addErrback(self._failed)
        return NOT_DONE_YET

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("an answer could not be written", failure=failure)


class Matched(Resource):
    """What is not a fixed route: the Klein resource, for requests whose head it can take."""

    isLeaf = True

    def __init__(self, rules: Sequence[_Rule]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._rules = rules
        self._making = self._make()
        self._made: IResource | None = None

    def prepare(self) -> Iterator[None]:
        """Make the map, a few milliseconds for each item; a request that comes in between makes the rest of it."""
        return self._making

    def _make(self) -> Iterator[None]:
        import werkzeug.exceptions

        yield
        from klein import Klein

        yield
        whole = Klein()
        # A doubled slash inside a path is an unknown route like any other, not a redirect.
        whole.url_map.merge_slashes = False
        for number, rule in enumerate(self._rules, 1):
            whole.route(rule.path, methods=rule.methods, endpoint=rule.name, strict_slashes=False)(rule.endpoint)
            if number % _RULES_AT_ONCE == 0:
                yield
        whole.handle_errors(werkzeug.exceptions.NotFound)(_bare(404))
        whole.handle_errors(werkzeug.exceptions.MethodNotAllowed)(_bare(405))
        self._made = whole.resource()

    @property
    def _klein(self) -> IResource:
        for _ in self._making:
            pass
        assert self._made is not None
        return self._made

    def render(self, request: Any) -> Any:
        """See ``IResource``."""
        from werkzeug.exceptions import HTTPException

        try:
            # Klein would write a trace into the log for each of these two.
            b"/".join(request.postpath).decode("utf-8")
            request.getRequestHostname().decode("ascii")
            return self._klein.render(request)
        except (HTTPException, UnicodeError):
            # The host or the method makes no sense, or the path is not UTF-8: nothing of ours to log.
            cors.allow_origin(request)
            error = BadRequest("BadPathArgs", "The request's path or host is malformed.")
            request.setResponseCode(status_of(error))
            request.responseHeaders.setRawHeaders(b"content-type", (b"application/json",))
            return error_body(error)
