"""Compressed bodies: what unpacks, what is broken, and what would fill the memory (``push.md`` section 2)."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from convex_backend.errors import BadRequest, TooLarge
from convex_backend.web.content_encoding import decoded
from convex_backend.web.limits import CALL_BYTES
from tests.web.support import Bench


def _raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def _streamed_zstd(data: bytes) -> bytes:
    """A frame that does not say how large its content is."""
    packer = zstandard.ZstdCompressor().compressobj()
    return packer.compress(data) + packer.flush()


PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "br": ("br", lambda data: brotli.compress(data, quality=4)),
    "gzip": ("gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", _raw_deflate),
    "zstd": ("zstd", lambda data: zstandard.ZstdCompressor().compress(data)),
    "streamed zstd": ("zstd", _streamed_zstd),
}
packers = pytest.mark.parametrize("packer", PACKERS)


@settings(max_examples=100, deadline=None)
@given(packer=st.sampled_from(sorted(PACKERS)), data=st.binary(max_size=2000), repeated=st.integers(1, 50))
def test_round_trip(packer: str, data: bytes, repeated: int) -> None:
    """Whatever was packed comes out, up to exactly the limit."""
    encoding, pack = PACKERS[packer]
    content = data * repeated
    assert decoded(pack(content), encoding, len(content)) == content
    assert decoded(pack(content), f" {encoding.upper()} ", len(content) + 10) == content


@packers
@pytest.mark.parametrize("cut", [1, 2, 5])
def test_truncated(packer: str, cut: int) -> None:
    """A body that ends too early is 400, never a shorter body."""
    encoding, pack = PACKERS[packer]
    packed = pack(bytes(range(256)) * 40)
    with pytest.raises(BadRequest) as caught:
        decoded(packed[:-cut], encoding, 1_000_000)
    assert caught.value.code == "BadContentEncoding"


@packers
@pytest.mark.parametrize("junk", [b"", b"{}", b"\xff" * 40])
def test_junk(packer: str, junk: bytes) -> None:
    """What was never packed is 400."""
    encoding, _ = PACKERS[packer]
    with pytest.raises(BadRequest) as caught:
        decoded(junk, encoding, 1_000_000)
    assert caught.value.code == "BadContentEncoding"


@packers
def test_one_byte_too_many(packer: str) -> None:
    """The limit is exact."""
    encoding, pack = PACKERS[packer]
    with pytest.raises(TooLarge) as caught:
        decoded(pack(b"x" * 1001), encoding, 1000)
    assert caught.value.code == "RequestTooLarge"


@packers
def test_bomb(packer: str) -> None:
    """A small body that would unpack to very much stops at the limit, in bounded memory."""
    encoding, pack = PACKERS[packer]
    bomb = pack(b"\0" * 64_000_000)
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            decoded(bomb, encoding, 1_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000


@pytest.mark.parametrize("encoding", ["identity", "", " identity "])
def test_not_packed(encoding: str) -> None:
    """``identity`` is the body itself."""
    assert decoded(b"{}", encoding, 10) == b"{}"


@pytest.mark.parametrize("encoding", ["compress", "gzip,br", "gzip, br", "x"])
def test_unknown(encoding: str) -> None:
    """Other encodings, and several on top of each other, are refused."""
    with pytest.raises(BadRequest) as caught:
        decoded(b"{}", encoding, 10)
    assert caught.value.code == "BadContentEncoding"


@packers
def test_push_over_http(packer: str) -> None:
    """A compressed push reaches the use case as what it was."""
    bench = Bench()
    encoding, pack = PACKERS[packer]
    push = {"adminKey": bench.key, "functions": "convex/", "text": "é" * 3000}
    answer = bench.ask(
        "POST", "/api/deploy2/start_push", pack(json.dumps(push).encode()), {"Content-Encoding": encoding}
    )
    assert answer.status == 200
    assert bench.application.deploy.calls == [("start_push", push)]


@packers
def test_errors_over_http(packer: str) -> None:
    """A truncated body is 400, and one that outgrows its route 413, whatever it is on the wire."""
    bench = Bench()
    encoding, pack = PACKERS[packer]
    packed = pack(b'{"path":"a:b","args":["' + b"x" * CALL_BYTES + b'"]}')
    headers = {"Content-Encoding": encoding}
    assert bench.ask("POST", "/api/query", pack(b'{"path":"a:b"}')[:-1], headers).error == (400, "BadContentEncoding")
    assert bench.ask("POST", "/api/query", packed, headers).error == (413, "RequestTooLarge")
    assert bench.application.calls == []
