"""Files over HTTP.

====================================================  =============================================================================
``POST /api/storage/upload?token=``                   body → ``{"storageId"}``; the token says whose file it becomes
``GET``, ``HEAD /api/storage/<uuid>[?component=]``    the file, whole or one range; ``ETag`` and ``If-None-Match`` besides
====================================================  =============================================================================

Bodies go through in pieces both ways: an upload waits for the disk, a download for its reader. Source: ``http_api.md`` section 5.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import orjson
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.logger import Logger
from twisted.web.http import Request
from zope.interface import implementer

from convex_backend.deferreds import Waiters, shield
from convex_backend.errors import BadRequest
from convex_backend.web.content_range import Part, RangeNotSatisfiable, has_tag, parse_range
from convex_backend.web.file_headers import content_type_of, digest_of
from convex_backend.web.route_table import RouteTable
from convex_backend.web.routing import ApiCall, Auth, Front, api_route

if TYPE_CHECKING:
    from convex_backend.application.file_storage import Download
    from convex_backend.application.file_uploads import Upload

_CHUNK_BYTES: Final = 256 * 1024
#: A reader that takes nothing for so long is given up.
STALL_SECONDS: Final = 300.0
_PREFIX: Final = "/api/storage/"
_CACHE: Final = b"private, max-age=2592000"
#: Documents that run scripts, and types for which browsers look whether the content is HTML: no file must run scripts as a page of this origin,
#: where a dashboard keeps its key.
_ACTIVE_TYPE: Final = re.compile(
    r"text/(html|xml|xsl)|application/xml|[^/]+/[^/]+\+xml|multipart/x-mixed-replace"
    r"|\*/\*|unknown/unknown|application/unknown|[^/]*"
)
_SANDBOX: Final = b"sandbox allow-downloads allow-forms allow-modals allow-popups allow-scripts"


class StorageApi:
    """See the top of the file."""

    app = RouteTable()
    _log = Logger()

    def __init__(self, front: Front) -> None:
        self.front = front

    @api_route(app, "/api/storage/upload", auth=Auth.NONE, json_body=False, timed=False)
    async def upload(self, call: ApiCall) -> bytes:
        """Store the body as a file."""
        request: Any = call.request
        token = call.text_arg("token")
        content_type, digest = content_type_of(request), digest_of(request)
        upload = self.front.application.files.begin_upload(token, content_type, digest)
        try:
            if request.body is not None:
                sink = _UploadSink(upload)
                request.body.deliver(sink)
                await sink.done
            file = await shield(upload.finish())
        except BaseException:
            upload.abort()
            raise
        return orjson.dumps({"storageId": file.document_id})

    @api_route(app, "/api/storage/<path:name>", method="GET", auth=Auth.NONE, timed=False, writes=True)
    async def download(self, call: ApiCall) -> bytes:
        """Send a file or a part of it."""
        request = call.request
        name = unquote(request.path.decode("utf-8", "replace").removeprefix(_PREFIX))
        component = call.text_arg("component", "") or None
        download = await self.front.application.files.open_download(name, component)
        try:
            await self._send(request, download)
        finally:
            download.close()
        return b""

    async def _send(self, request: Request, download: Download) -> None:
        file = download.file
        digest = base64.b64decode(file.sha256)
        tag = f'"{digest.hex()}"'
        get = request.requestHeaders.getRawHeaders
        headers = request.responseHeaders
        headers.setRawHeaders(b"etag", (tag.encode("ascii"),))
        headers.setRawHeaders(b"cache-control", (_CACHE,))
        if has_tag(_text(get(b"if-none-match")), tag):
            request.setResponseCode(304)
            _begin(request)
            return
        headers.setRawHeaders(b"accept-ranges", (b"bytes",))
        if file.content_type is not None:
            headers.setRawHeaders(b"content-type", (file.content_type.encode("latin-1", "replace"),))
        if _ACTIVE_TYPE.fullmatch((file.content_type or "").partition(";")[0].strip().lower()):
            headers.setRawHeaders(b"content-security-policy", (_SANDBOX,))
        condition = _text(get(b"if-range"))
        wanted = _text(get(b"range")) if condition is None or condition == tag else None
        try:
            part = parse_range(wanted, file.size)
        except RangeNotSatisfiable:
            request.setResponseCode(416)
            headers.removeHeader(b"content-type")
            headers.setRawHeaders(b"content-range", (b"bytes */%d" % file.size,))
            headers.setRawHeaders(b"content-length", (b"0",))
            _begin(request)
            return
        if part is None:
            part = Part(0, file.size)
            headers.setRawHeaders(b"digest", (b"sha-256=" + file.sha256.encode("ascii"),))
        else:
            request.setResponseCode(206)
            headers.setRawHeaders(b"content-range", (b"bytes %d-%d/%d" % (part.start, part.end - 1, file.size),))
        headers.setRawHeaders(b"content-length", (b"%d" % (part.end - part.start),))
        _begin(request)
        if request.method != b"HEAD":
            await self._pump(request, download, part)

    async def _pump(self, request: Request, download: Download, part: Part) -> None:
        reader = _Reader(request, self.front.reactor)
        try:
            position = part.start
            while position < part.end:
                data = await download.read(position, min(_CHUNK_BYTES, part.end - position))
                position += len(data)
                request.write(data)
                await reader.ready()
        except (CancelledError, OSError) as error:
            # The head has promised more: a cut connection is the only way to say that it will not come.
            if isinstance(error, OSError):
                self._log.failure("a file could not be read to its end")
            if request.channel is None:
                raise
            request.channel.forceAbortClient()
        finally:
            reader.close()


def _text(values: Any) -> str | None:
    return None if values is None else str(b",".join(values), "latin-1")


def _begin(request: Request) -> None:
    """Send the head."""
    request.write(b"")


class _UploadSink:
    """Hands a request's body to an upload; a ``streamed_body.BodySink``.

    :ivar done: fires when all has come, or when the rest is not wanted any more; fails when the body breaks off.
    """

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self._held = False
        self.on_room: Any = _nothing
        self.done: Deferred[None] = Deferred()
        upload.hold = self._hold
        upload.on_failure = self.end
        if upload.failed:
            self.end()

    @property
    def has_room(self) -> bool:
        """See ``BodySink``."""
        return not self._held

    def write(self, data: bytes) -> None:
        """See ``BodySink``."""
        self._upload.feed(data)

    def end(self) -> None:
        """See ``BodySink``."""
        if not self.done.called:
            self.done.callback(None)

    def fail(self, text: str) -> None:
        """See ``BodySink``."""
        if not self.done.called:
            self.done.errback(BadRequest("BodyIncomplete", text))

    def _hold(self, held: bool) -> None:
        self._held = held
        if not held:
            self.on_room()


def _nothing() -> None:
    """Nobody asked to be told."""


@implementer(IPushProducer)
class _Reader:
    """The client of a download: :meth:`ready` returns when it has taken what was written."""

    def __init__(self, request: Request, reactor: Any) -> None:
        self._request = request
        self._reactor = reactor
        self._paused = False
        self._stopped = False
        self._resumed: Waiters[None] = Waiters()
        self._timer: IDelayedCall | None = None
        request.registerProducer(self, True)

    async def ready(self) -> None:
        """:raises CancelledError: the client is gone, or takes nothing."""
        while self._paused and not self._stopped:
            self._timer = self._reactor.callLater(STALL_SECONDS, self.stopProducing)
            try:
                await self._resumed.wait()
            finally:
                if self._timer.active():
                    self._timer.cancel()
        if self._stopped:
            raise CancelledError

    def pauseProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = True

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = False
        self._resumed.fire(None)

    def stopProducing(self) -> None:
        """See ``IPushProducer``: the connection is lost."""
        self._stopped = True
        self._resumed.fire(None)

    def close(self) -> None:
        """Nothing more is written."""
        self._request.unregisterProducer()
