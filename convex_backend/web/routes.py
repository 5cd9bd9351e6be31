"""All families of routes as one resource.

Routes without variable parts are also found by a plain look-up of (method, path): matching a URL against the whole map costs more
than answering a cached query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import attrs
import orjson
from klein import Klein
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from convex_backend.web import cors
from convex_backend.web.admin_api import AdminApi, NotYetApi
from convex_backend.web.deploy_api import DeployApi
from convex_backend.web.logs_api import LogsApi
from convex_backend.web.meta import MetaApi
from convex_backend.web.public_api import PublicApi
from convex_backend.web.routing import Front

FAMILIES: Final[tuple[type[Any], ...]] = (PublicApi, MetaApi, DeployApi, LogsApi, AdminApi, NotYetApi)


@attrs.frozen(slots=True, eq=False)
class Routes:
    """Where requests go.

    :param fixed: leaves by (method, path), of the routes that have no variable part.
    :param matched: finds the route of any other request.
    """

    fixed: Mapping[tuple[bytes, bytes], IResource]
    matched: IResource


def make_routes(front: Front, families: Iterable[type[Any]] = FAMILIES) -> Routes:
    """One Klein application with the routes of every family; of two that fit, the earlier family's goes first."""
    whole = Klein()
    # A doubled slash inside a path is an unknown route like any other, not a redirect.
    whole.url_map.merge_slashes = False
    fixed: dict[tuple[bytes, bytes], IResource] = {}
    taken: set[tuple[str, str]] = set()
    for kind in families:
        family = kind(front)
        for rule in family.app.url_map.iter_rules():
            methods = {method for method in rule.methods or () if (rule.rule, method) not in taken}
            taken |= {(rule.rule, method) for method in methods}
            if methods:
                endpoint = _bound(family, rule.endpoint)
                whole.route(
                    rule.rule,
                    methods=sorted(methods),
                    endpoint=f"{kind.__name__}.{rule.endpoint}",
                    strict_slashes=False,
                )(endpoint)
                if "<" not in rule.rule:
                    leaf = _Fixed(endpoint)
                    fixed.update({(method.encode(), rule.rule.encode()): leaf for method in methods})
    whole.handle_errors(NotFound)(_bare(404))
    whole.handle_errors(MethodNotAllowed)(_bare(405))
    return Routes(fixed, _Matched(whole.resource()))


def _bound(family: Any, endpoint: str) -> Callable[..., Any]:
    execute = family.app.execute_endpoint

    def run(request: Request, **parts: str) -> Any:
        return execute(endpoint, request, **parts)

    return run


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

    def __init__(self, endpoint: Callable[[Request], bytes | Deferred[bytes]]) -> None:
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


class _Matched(Resource):
    """The Klein resource, for requests whose head it can take."""

    isLeaf = True

    def __init__(self, klein: IResource) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._klein = klein

    def render(self, request: Any) -> Any:
        """See ``IResource``."""
        try:
            # Klein would write a trace into the log for each of these two.
            b"/".join(request.postpath).decode("utf-8")
            request.getRequestHostname().decode("ascii")
            return self._klein.render(request)
        except (HTTPException, UnicodeError):
            # The host or the method makes no sense, or the path is not UTF-8: nothing of ours to log.
            cors.allow_origin(request)
            request.setResponseCode(400)
            request.responseHeaders.setRawHeaders(b"content-type", (b"application/json",))
            return orjson.dumps({"code": "BadPathArgs", "message": "The request's path or host is malformed."})
