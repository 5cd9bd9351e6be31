"""All families of routes as one resource."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from klein import Klein
from twisted.web.http import Request
from twisted.web.resource import IResource
from werkzeug.exceptions import MethodNotAllowed, NotFound

from convex_backend.web import cors
from convex_backend.web.admin_api import AdminApi, NotYetApi
from convex_backend.web.deploy_api import DeployApi
from convex_backend.web.logs_api import LogsApi
from convex_backend.web.meta import MetaApi
from convex_backend.web.public_api import PublicApi
from convex_backend.web.routing import Front

FAMILIES: tuple[type[Any], ...] = (PublicApi, MetaApi, DeployApi, LogsApi, AdminApi, NotYetApi)


def make_routes(front: Front, families: Iterable[type[Any]] = FAMILIES) -> IResource:
    """One Klein application with the routes of every family; of two that fit, the earlier family's goes first."""
    whole = Klein()
    taken: set[tuple[str, str]] = set()
    for kind in families:
        family = kind(front)
        for rule in family.app.url_map.iter_rules():
            methods = {method for method in rule.methods or () if (rule.rule, method) not in taken}
            taken |= {(rule.rule, method) for method in methods}
            if methods:
                name = f"{kind.__name__}.{rule.endpoint}"
                whole.route(rule.rule, methods=sorted(methods), endpoint=name, strict_slashes=False)(
                    _bound(family, rule.endpoint)
                )
    whole.handle_errors(NotFound)(_bare(404))
    whole.handle_errors(MethodNotAllowed)(_bare(405))
    return whole.resource()


def _bound(family: Any, endpoint: str) -> Callable[..., Any]:
    execute = family.app.execute_endpoint

    def run(request: Request, **parts: str) -> Any:
        return execute(endpoint, request, **parts)

    return run


def _bare(status: int) -> Any:
    def answer(request: Request, _: Any) -> bytes:
        cors.allow_origin(request)
        request.setResponseCode(status)
        request.responseHeaders.setRawHeaders(b"content-length", [b"0"])
        return b""

    return answer
