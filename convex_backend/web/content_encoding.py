"""Compressed request bodies: Brotli, gzip, deflate, Zstandard, bounded while they are unpacked (``push.md`` section 2)."""

from __future__ import annotations

import io
import zlib

import brotli  # type: ignore[import-untyped]
import zstandard

from convex_backend.errors import BadRequest, TooLarge

#: Memory that a frame may ask for; ``zstd --long=27`` and below.
_MAX_ZSTD_WINDOW = 1 << 27


def decoded(raw: bytes, encoding: str, limit: int) -> bytes:
    """Unpack a body.

    :param encoding: the ``Content-Encoding``: ``br``, ``gzip``, ``deflate``, ``zstd`` or ``identity``.
    :param limit: the most bytes that may come out.
    :raises TooLarge: more would come out. :raises BadRequest: ``BadContentEncoding``.
    """
    encoding = encoding.strip().lower()
    if encoding in ("identity", ""):
        return raw
    try:
        if encoding == "br":
            return _brotli(raw, limit)
        if encoding in ("gzip", "x-gzip"):
            return _zlib(raw, limit, 16 + zlib.MAX_WBITS)
        if encoding == "deflate":
            return _zlib(raw, limit, zlib.MAX_WBITS if raw[:1] == b"\x78" else -zlib.MAX_WBITS)
        if encoding == "zstd":
            return _zstd(raw, limit)
    except TooLarge:
        raise
    except Exception as error:  # noqa: BLE001 - each library has error classes of its own
        raise BadRequest("BadContentEncoding", f"The request body is not valid {encoding}: {error}") from None
    raise BadRequest("BadContentEncoding", f"Unsupported Content-Encoding: {encoding}")


def _over(limit: int) -> TooLarge:
    return TooLarge("RequestTooLarge", f"The unpacked request body is over the limit of {limit} bytes.")


def _zlib(raw: bytes, limit: int, window_bits: int) -> bytes:
    unpacker = zlib.decompressobj(window_bits)
    out = unpacker.decompress(raw, limit + 1)
    if len(out) > limit:
        raise _over(limit)
    if not unpacker.eof:
        raise ValueError("it ends too early")
    return out


def _brotli(raw: bytes, limit: int) -> bytes:
    unpacker = brotli.Decompressor()
    parts: list[bytes] = []
    left = limit + 1
    data = raw
    while True:
        part = unpacker.process(data, output_buffer_limit=left)
        data = b""
        left -= len(part)
        parts.append(part)
        if left <= 0:
            raise _over(limit)
        if unpacker.is_finished():
            return b"".join(parts)
        if unpacker.can_accept_more_data():
            raise ValueError("it ends too early")


class _Source(io.BytesIO):
    """Tells whether somebody wanted more than there is: the reader below does not complain of a frame without an end."""

    exhausted = False

    def read(self, size: int | None = -1, /) -> bytes:
        """See ``io.BytesIO``."""
        data = super().read(size)
        self.exhausted = self.exhausted or not data
        return data


def _zstd(raw: bytes, limit: int) -> bytes:
    source = _Source(raw)
    with zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW).stream_reader(source) as reader:
        out: bytes = reader.read(limit + 1)
    if len(out) > limit:
        raise _over(limit)
    # The reader does not stop at the end of a frame without content either; then nothing comes out a second time.
    if source.exhausted and (out or not _is_whole_frame(raw)):
        raise ValueError("it ends too early")
    return out


def _is_whole_frame(raw: bytes) -> bool:
    unpacker = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW).decompressobj()
    unpacker.decompress(raw)
    return unpacker.eof
