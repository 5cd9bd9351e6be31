"""The byte streams of one call, between this process and its child: bodies of HTTP requests and responses (``docs/internals.md`` section 7).

::

    writer   write ─► [queue] ── DATA, while the child grants room ──► child      ◄── WINDOW {bytes | closed} ── as it is read there
    reader   sink ◄── DATA ─────────────────────────────────────────── child      ── WINDOW {bytes} ──► as taken() says

A sender may be :data:`WINDOW_BYTES` ahead of what the receiver says it has read, so neither side holds more than that of one stream. Streams to the
child and from it are numbered apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import orjson

from convex_backend.functions import frames
from convex_backend.functions.outcome import dumps_lenient, loads_lenient
from convex_backend.interfaces import CallLink

WINDOW_BYTES = 128 * 1024
CHUNK_BYTES = 32 * 1024
"""The most bytes of one DATA frame: the streams of many calls share the socket."""
_REPORT_BYTES = WINDOW_BYTES // 4
"""Read bytes are told to the child in portions of this size."""


def _nothing() -> None:
    """Nobody asked to be told."""


class StreamWriter:
    """A stream to the child.

    :ivar on_room: called when :attr:`has_room` becomes true again.
    :ivar closed: the child reads no more, or the call has ended: what is written is dropped.
    """

    def __init__(self, link: CallLink | None, number: int) -> None:
        self._link = link
        self._number = number
        self._queue: deque[bytes] = deque()
        self._room = WINDOW_BYTES
        self._end: bytes | None = None
        self._ended = False
        self.queued_bytes = 0
        self.closed = False
        self.on_room: Callable[[], None] = _nothing

    @property
    def has_room(self) -> bool:
        """Whether nothing waits here. A producer that goes on only then makes the queue no longer than one of its writes."""
        return self.closed or not self.queued_bytes

    def open(self, link: CallLink) -> None:
        """The call runs: *link* reaches its child."""
        self._link = link
        self._pump()

    def write(self, data: bytes) -> None:
        """Send *data*, now or when there is room."""
        if data and not self.closed and self._end is None:
            self._queue.append(data)
            self.queued_bytes += len(data)
            self._pump()

    def end(self) -> None:
        """That was all."""
        self._finish(b'{"end":true}')

    def fail(self, text: str) -> None:
        """The stream breaks off; reading it fails with *text*."""
        self._finish(dumps_lenient({"error": text}))

    def _finish(self, meta: bytes) -> None:
        if not self.closed and self._end is None:
            self._end = meta
            self._pump()

    def _pump(self) -> None:
        link = self._link
        if link is None or self._ended:
            return
        queue = self._queue
        while queue and self._room > 0:
            data = queue.popleft()
            size = min(len(data), self._room, CHUNK_BYTES)
            if size < len(data):
                queue.appendleft(data[size:])
                data = data[:size]
            self._room -= size
            self.queued_bytes -= size
            link.send_stream(frames.DATA, self._number, b"", data)
        if not queue and self._end is not None:
            self._ended = True
            link.send_stream(frames.DATA, self._number, self._end, b"")

    def granted(self, meta: bytes) -> None:
        """A WINDOW frame. :raises ValueError, KeyError, TypeError: the child broke the protocol."""
        tree = loads_lenient(meta)
        if tree.get("closed") is True:
            self.close()
            return
        had_room = self.has_room
        self._room += int(tree["bytes"])
        self._pump()
        if self.has_room and not had_room:
            self.on_room()

    def close(self) -> None:
        """Drop what waits, and all that still comes."""
        if not self.closed:
            had_room = self.has_room
            self.closed = True
            self._queue.clear()
            self.queued_bytes = 0
            if not had_room:
                self.on_room()


class StreamReader:
    """A stream from the child. What comes before somebody listens is kept, which is at most a window."""

    def __init__(self, link: CallLink, number: int) -> None:
        self._link: CallLink | None = link
        self._number = number
        self._kept: list[bytes] = []
        self._unreported = 0
        self._on_data: Callable[[bytes], None] | None = None
        self._on_end: Callable[[str | None], None] | None = None
        self._end: tuple[str | None] | None = None

    def listen(self, on_data: Callable[[bytes], None], on_end: Callable[[str | None], None]) -> None:
        """Hand over what has come and what comes.

        :param on_end: called once, with the text of the sender's error or ``None``. Not called when the call ends before its stream.
        """
        self._on_data, self._on_end = on_data, on_end
        kept, self._kept = self._kept, []
        for data in kept:
            on_data(data)
        if self._end is not None:
            on_end(self._end[0])

    def receive(self, meta: bytes, data: bytes) -> None:
        """A DATA frame. :raises ValueError, KeyError, TypeError: the child broke the protocol."""
        if data:
            if self._on_data is None:
                self._kept.append(data)
            else:
                self._on_data(data)
        if meta and self._end is None:
            error = loads_lenient(meta).get("error")
            self._end = (None if error is None else str(error),)
            if self._on_end is not None:
                self._on_end(self._end[0])

    def taken(self, size: int) -> None:
        """*size* bytes have gone on: the child may send as many more."""
        self._unreported += size
        if self._unreported >= _REPORT_BYTES and self._link is not None and self._end is None:
            size, self._unreported = self._unreported, 0
            self._link.send_stream(frames.WINDOW, self._number, orjson.dumps({"bytes": size}), b"")

    def close(self) -> None:
        """Tell the child that nobody reads any more."""
        if self._link is not None and self._end is None:
            self._link.send_stream(frames.WINDOW, self._number, b'{"closed":true}', b"")

    def detach(self) -> None:
        """The call has ended."""
        self._link = None


class CallStreams:
    """All streams of one call, and what its child says of an HTTP action.

    :param on_http: a frame of kind HTTP: its meta and body.
    """

    def __init__(self, on_http: Callable[[bytes, bytes], None] | None = None) -> None:
        self._link: CallLink | None = None
        self._writers: dict[int, StreamWriter] = {}
        self._readers: dict[int, StreamReader] = {}
        self._on_http = on_http

    @property
    def begun(self) -> bool:
        """Whether a child runs the call."""
        return self._link is not None

    def begin(self, link: CallLink) -> None:
        """The call runs: *link* reaches its child."""
        self._link = link
        for writer in self._writers.values():
            writer.open(link)

    def writer(self, number: int) -> StreamWriter:
        """The stream *number* to the child; may be asked for before the call runs."""
        found = self._writers.get(number)
        if found is None:
            found = self._writers[number] = StreamWriter(self._link, number)
        return found

    def reader(self, number: int) -> StreamReader:
        """The stream *number* from the child."""
        found = self._readers.get(number)
        if found is None:
            assert self._link is not None, "the call has not begun"
            found = self._readers[number] = StreamReader(self._link, number)
        return found

    def drop(self, number: int) -> None:
        """The stream *number* from the child is over: forget it."""
        self._readers.pop(number, None)

    def send_http(self, meta: bytes) -> None:
        """Tell the child of an HTTP action something; nothing once it has ended."""
        if self._link is not None:
            self._link.send_stream(frames.HTTP, 0, meta, b"")

    def receive(self, kind: int, number: int, meta: bytes, body: bytes) -> None:
        """A frame of the call.

        :raises ValueError, KeyError, TypeError: the child broke the protocol.
        """
        if kind == frames.DATA:
            self.reader(number).receive(meta, body)
        elif kind == frames.WINDOW:
            self.writer(number).granted(meta)
        elif self._on_http is not None:
            self._on_http(meta, body)
        else:
            raise ValueError("not an HTTP action")

    def end(self) -> None:
        """The call has ended."""
        self._link = None
        for writer in self._writers.values():
            writer.close()
        for reader in self._readers.values():
            reader.detach()
