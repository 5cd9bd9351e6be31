"""Sans-I/O codec of the stream socket between this process and a runner child (F1, ``docs/internals.md`` section 7).

::

     0      1           4        8        12           16           20
    +------+-----------+--------+--------+------------+------------+----------------+---------------+
    | kind | 3 x zero  | call   | seq    | meta bytes | body bytes | meta (JSON)    | body (raw)    |
    | u8   |           | u32 LE | u32 LE | u32 LE     | u32 LE     |                |               |
    +------+-----------+--------+--------+------------+------------+----------------+---------------+

    child                                  parent
      | -- HELLO {protocol, node, pid} ------> |
      | <------------- MODULE {hash, path} --- |   once for each child and hash
      | <------------- START {...} args ------ |
      | -- SYSCALL {op, consumed?} args -----> |   any number, all of one turn in one write
      | <------------- SYSRESULT {...} value - |   in the order of the syscalls
      | -- LOG {lines} ----------------------> |   actions only
      | -- RESULT {ok, ...} value -----------> |   exactly one for each START that was not cancelled
      | <== DATA {end?, error?} bytes =======> |   byte streams of a call, as far as the receiver has granted room
      | <== WINDOW {bytes | closed} =========> |   the receiver of a stream has read so much, or reads no more
      | <== HTTP {route | closed} head ======> |   HTTP actions only

The body is never JSON inside JSON. Meta of zero bytes means the empty object.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

HELLO = 1
MODULE = 2
START = 3
SYSCALL = 4
SYSRESULT = 5
RESULT = 6
LOG = 7
CANCEL = 8
ANALYZE = 9
ANALYZED = 10
FORGET = 11
DATA = 12
WINDOW = 13
HTTP = 14

PROTOCOL_VERSION = 1
"""What HELLO must carry; another version is a start-up error (F1)."""

HEAD_BYTES = 20
MAX_META_BYTES = 16 * 1024 * 1024
"""Log lines travel in meta: 256 lines of 32 KiB with escapes stay below this."""
MAX_BODY_BYTES = 64 * 1024 * 1024
"""The largest legal body (arguments, a result or one document: 16 MiB of value size) with JSON escapes stays below this."""

_HEAD = Struct("<B3xIIII")


class FrameError(Exception):
    """The peer broke the framing; the connection cannot be used any more."""


class Frame(NamedTuple):
    """One frame as received. ``meta`` is JSON text of an object (empty for ``{}``), ``body`` raw bytes."""

    kind: int
    call: int
    seq: int
    meta: bytes
    body: bytes


def encode(kind: int, call: int = 0, seq: int = 0, meta: bytes = b"", body: bytes = b"") -> bytes:
    """One frame's bytes.

    :raises FrameError: meta or body is over its bound (the caller checks user-visible limits before).
    """
    if len(meta) > MAX_META_BYTES or len(body) > MAX_BODY_BYTES:
        raise FrameError(f"frame {kind} is too large: {len(meta)} bytes of meta, {len(body)} bytes of body")
    return b"".join((_HEAD.pack(kind, call, seq, len(meta), len(body)), meta, body))


class FrameDecoder:
    """Cuts a byte stream into frames; chunk borders may fall anywhere.

    Memory is bounded by one frame plus one chunk. After a :class:`FrameError` the decoder must not be fed again.
    """

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._needed = HEAD_BYTES

    @property
    def buffered_bytes(self) -> int:
        """Bytes of an incomplete frame held here."""
        return self._buffered

    def feed(self, data: bytes) -> list[Frame]:
        """Take *data*; return every frame that is now complete, in order.

        :raises FrameError: unknown kind or a length over its bound.
        """
        if self._buffered:
            self._chunks.append(data)
            self._buffered += len(data)
            if self._buffered < self._needed:
                # A large frame arrives in many chunks: joining once, when it is complete, keeps this linear.
                return []
            data = b"".join(self._chunks)
            self._chunks.clear()
        frames: list[Frame] = []
        position = 0
        end = len(data)
        needed = HEAD_BYTES
        unpack_from = _HEAD.unpack_from
        while end - position >= HEAD_BYTES:
            kind, call, seq, meta_bytes, body_bytes = unpack_from(data, position)
            if not HELLO <= kind <= HTTP or meta_bytes > MAX_META_BYTES or body_bytes > MAX_BODY_BYTES:
                raise FrameError(f"bad frame head: kind {kind}, {meta_bytes} bytes of meta, {body_bytes} bytes of body")
            needed = HEAD_BYTES + meta_bytes + body_bytes
            if end - position < needed:
                break
            meta_start = position + HEAD_BYTES
            body_start = meta_start + meta_bytes
            position += needed
            frames.append(Frame(kind, call, seq, data[meta_start:body_start], data[body_start:position]))
            needed = HEAD_BYTES
        self._buffered = end - position
        self._needed = needed
        if self._buffered:
            self._chunks.append(data[position:] if position else data)
        return frames
