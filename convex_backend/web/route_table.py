"""The routes of one family, written down while its class is made.

A plain list: what is done for each route at start-up must be next to nothing, and matching rules of Werkzeug are made only when a
request needs them (``web/routes.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import attrs
from twisted.internet.defer import Deferred
from twisted.web.http import Request

Endpoint: TypeAlias = "Callable[..., bytes | Deferred[bytes]]"


@attrs.frozen(slots=True, eq=False, repr=False)
class TableRoute:
    """One route.

    :param path: in the notation of Werkzeug rules; ``<`` begins a variable part.
    :param methods: all that it answers, ``HEAD`` included.
    :param name: unique in its table.
    :param endpoint: called with the family, the request and the variable parts by name.
    :param auth: value of ``routing.Auth``: who may call it. :param json_body: whether its body is JSON.
    """

    path: str
    methods: Sequence[str]
    name: str
    endpoint: Endpoint
    auth: str
    json_body: bool

    @property
    def is_fixed(self) -> bool:
        """Whether the path has no variable part."""
        return "<" not in self.path

    def bound(self, family: Any) -> Endpoint:
        """The endpoint of one instance of the family."""
        endpoint = self.endpoint

        def run(request: Request, **parts: str) -> bytes | Deferred[bytes]:
            return endpoint(family, request, **parts)

        return run


class RouteTable:
    """The routes of a family, in the order in which they were added.

    :ivar routes: all of them.
    """

    def __init__(self) -> None:
        self.routes: list[TableRoute] = []

    def add(
        self, path: str, methods: Sequence[str], name: str, endpoint: Endpoint, *, auth: str, json_body: bool
    ) -> None:
        """Add a route."""
        self.routes.append(TableRoute(path, methods, name, endpoint, auth, json_body))
