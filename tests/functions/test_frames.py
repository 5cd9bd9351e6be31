"""The frame codec."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convex_backend.functions import frames
from convex_backend.functions.frames import Frame, FrameDecoder, FrameError, encode

u32 = st.integers(0, 2**32 - 1)
any_frame = st.builds(
    Frame,
    st.integers(frames.HELLO, frames.FORGET),
    u32,
    u32,
    st.binary(max_size=60),
    st.binary(max_size=200),
)


@settings(max_examples=150)
@given(st.lists(any_frame, max_size=12), st.lists(st.integers(1, 90), min_size=1, max_size=30))
def test_any_chunking_gives_the_same_frames(sent: list[Frame], sizes: list[int]) -> None:
    """However the bytes are chopped, the frames come out as they were sent and nothing stays behind."""
    stream = b"".join(encode(*frame) for frame in sent)
    decoder = FrameDecoder()
    received: list[Frame] = []
    position = 0
    turn = 0
    while position < len(stream):
        size = sizes[turn % len(sizes)]
        received += decoder.feed(stream[position : position + size])
        position += size
        turn += 1
    assert received == sent
    assert decoder.buffered_bytes == 0


def test_layout_of_the_head() -> None:
    """The head is little endian, 20 bytes, with three zero bytes after the kind."""
    data = encode(frames.SYSCALL, 0x01020304, 5, b"{}", b"[1]")
    assert data == bytes([4, 0, 0, 0, 4, 3, 2, 1, 5, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]) + b"{}[1]"


def test_incomplete_frame_is_kept() -> None:
    """Bytes of an incomplete frame wait for the rest."""
    data = encode(frames.RESULT, 1, 0, b"", b"x" * 50)
    decoder = FrameDecoder()
    assert decoder.feed(data[:-1]) == []
    assert decoder.buffered_bytes == len(data) - 1
    assert decoder.feed(data[-1:]) == [Frame(frames.RESULT, 1, 0, b"", b"x" * 50)]


@pytest.mark.parametrize("kind", [0, 15, 255])
def test_unknown_kind_is_refused(kind: int) -> None:
    """A kind outside the table breaks the connection."""
    with pytest.raises(FrameError):
        FrameDecoder().feed(bytes([kind]) + bytes(19))


def test_lengths_are_bounded() -> None:
    """A head that announces more than the bound is refused before any of it is buffered, and is never sent."""
    head = bytearray(encode(frames.RESULT, 1))
    head[16:20] = (frames.MAX_BODY_BYTES + 1).to_bytes(4, "little")
    with pytest.raises(FrameError):
        FrameDecoder().feed(bytes(head))
    with pytest.raises(FrameError):
        encode(frames.RESULT, 1, 0, b"", bytes(frames.MAX_BODY_BYTES + 1))


def test_large_frame_in_small_chunks_is_linear() -> None:
    """Joining happens once per frame: 4 MiB in 4 KiB chunks passes through the buffer without repeated copies."""
    body = bytes(4 * 1024 * 1024)
    data = encode(frames.RESULT, 1, 0, b"", body)
    decoder = FrameDecoder()
    out: list[Frame] = []
    for start in range(0, len(data), 4096):
        out += decoder.feed(data[start : start + 4096])
        assert out or len(decoder._chunks) <= start // 4096 + 1
    assert out == [Frame(frames.RESULT, 1, 0, b"", body)]
