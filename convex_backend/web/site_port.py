"""The second port, the origin of HTTP actions: ``/X`` there is ``/http/X`` here (``http_api.md`` section 1)."""

from __future__ import annotations

from typing import Any

from twisted.web.resource import IResource, Resource

from convex_backend.web.limits import HTTP_ACTION_BYTES
from convex_backend.web.site import BackendSite, LimitedRequest


class SitePort(Resource):
    """Everything goes to the leaf that serves ``/http``."""

    def __init__(self, http: IResource) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._http = http

    def getChild(self, path: bytes, request: Any) -> IResource:
        """See ``IResource``."""
        request.postpath.insert(0, request.prepath.pop())
        return self._http

    def render(self, request: Any) -> Any:
        """See ``IResource``: the empty path."""
        return self._http.render(request)


class SiteRequest(LimitedRequest):
    """A request to the site origin: every path and OPTIONS are the user's, there is no CORS of ours."""

    #: Paths have no ``/http`` in front.
    on_site = True

    def cap(self) -> int:
        """See :meth:`LimitedRequest.cap`: the same whatever the path."""
        return HTTP_ACTION_BYTES

    def streams_body(self) -> bool:
        """See :meth:`LimitedRequest.streams_body`: whatever the path."""
        return True

    def process(self) -> None:
        """Find the resource, whatever the method."""
        if self.too_large:
            self.refuse_size()
        else:
            super(LimitedRequest, self).process()  # type: ignore[no-untyped-call]


def make_site_port(cloud: BackendSite) -> BackendSite:
    """The protocol factory of the site port.

    :param cloud: the main port's: requests of both are counted together.
    """
    return BackendSite(SitePort(cloud.http), cloud.http, cloud.front, cloud.reactor, SiteRequest)
