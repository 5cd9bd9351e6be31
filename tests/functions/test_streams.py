"""Byte streams of a call: windows both ways, ends, errors; no child (``docs/internals.md`` section 7)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convex_backend.functions import frames
from convex_backend.functions.streams import CHUNK_BYTES, WINDOW_BYTES, CallStreams, StreamWriter


class Link:
    """Notes what is sent to the child."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int, Any, bytes]] = []

    def send_stream(self, kind: int, stream: int, meta: bytes, body: bytes) -> None:
        self.sent.append((kind, stream, json.loads(meta or b"{}"), body))

    @property
    def data(self) -> bytes:
        return b"".join(body for kind, _, _, body in self.sent if kind == frames.DATA)

    @property
    def windows(self) -> list[Any]:
        return [meta for kind, _, meta, _ in self.sent if kind == frames.WINDOW]


def begun() -> tuple[CallStreams, Link]:
    streams, link = CallStreams(), Link()
    streams.begin(link)  # type: ignore[arg-type]
    return streams, link


def grant(streams: CallStreams, size: int, stream: int = 1) -> None:
    streams.receive(frames.WINDOW, stream, json.dumps({"bytes": size}).encode(), b"")


def test_writer_keeps_to_the_window() -> None:
    """No more than a window goes out before the child says that it has read; then as much more as it says."""
    streams, link = begun()
    writer = streams.writer(1)
    rooms: list[bool] = []
    writer.on_room = lambda: rooms.append(True)
    writer.write(bytes(WINDOW_BYTES + 1000))
    assert len(link.data) == WINDOW_BYTES
    assert max(len(body) for _, _, _, body in link.sent) == CHUNK_BYTES
    assert (writer.has_room, writer.queued_bytes) == (False, 1000)
    grant(streams, 400)
    assert (len(link.data), rooms) == (WINDOW_BYTES + 400, [])
    grant(streams, 700)
    assert (len(link.data), rooms, writer.has_room) == (WINDOW_BYTES + 1000, [True], True)


def test_writer_before_the_call_begins() -> None:
    """What is written before the child runs the call waits, and so does the end."""
    streams, link = CallStreams(), Link()
    writer = streams.writer(1)
    writer.write(b"early")
    writer.end()
    assert not writer.has_room
    streams.begin(link)  # type: ignore[arg-type]
    assert link.sent == [(frames.DATA, 1, {}, b"early"), (frames.DATA, 1, {"end": True}, b"")]


def test_writer_ends_after_its_data() -> None:
    """The end, or the error, comes last, and nothing after it."""
    streams, link = begun()
    writer = streams.writer(1)
    writer.write(bytes(WINDOW_BYTES + 1))
    writer.fail("broke \ud800")
    writer.write(b"late")
    writer.end()
    assert link.sent[-1][2] == {}
    grant(streams, 1)
    assert link.sent[-1] == (frames.DATA, 1, {"error": "broke ?"}, b"")
    assert len(link.data) == WINDOW_BYTES + 1


@pytest.mark.parametrize("how", ["closed", "ended"])
def test_writer_that_nobody_reads(how: str) -> None:
    """When the child wants no more, or the call is over, what waits is dropped and there is room for all that comes."""
    streams, link = begun()
    writer = streams.writer(1)
    rooms: list[bool] = []
    writer.on_room = lambda: rooms.append(True)
    writer.write(bytes(WINDOW_BYTES * 2))
    if how == "closed":
        streams.receive(frames.WINDOW, 1, b'{"closed":true}', b"")
    else:
        streams.end()
    assert (rooms, writer.has_room, writer.queued_bytes) == ([True], True, 0)
    count = len(link.sent)
    writer.write(b"more")
    writer.end()
    assert len(link.sent) == count


def test_reader_reports_what_has_gone_on() -> None:
    """The child may go on as far as bytes have been taken; small amounts are told together."""
    streams, link = begun()
    reader = streams.reader(7)
    got: list[bytes] = []
    reader.listen(got.append, lambda _: None)
    streams.receive(frames.DATA, 7, b"", b"x" * 1000)
    assert got == [b"x" * 1000]
    reader.taken(1000)
    assert link.windows == []
    reader.taken(WINDOW_BYTES // 4 - 1000)
    assert link.windows == [{"bytes": WINDOW_BYTES // 4}]


def test_reader_that_listens_late() -> None:
    """What came before is handed over in order, the end or error after it."""
    streams, _ = begun()
    for part in (b"a", b"b"):
        streams.receive(frames.DATA, 7, b"", part)
    streams.receive(frames.DATA, 7, b'{"error":"broke"}', b"")
    events: list[Any] = []
    streams.reader(7).listen(events.append, lambda error: events.append(("end", error)))
    assert events == [b"a", b"b", ("end", "broke")]


def test_reader_after_the_end() -> None:
    """Nothing is told to a child whose stream, or call, is over."""
    streams, link = begun()
    reader = streams.reader(7)
    streams.receive(frames.DATA, 7, b'{"end":true}', b"x")
    reader.taken(WINDOW_BYTES)
    reader.close()
    assert link.sent == []
    other = streams.reader(8)
    streams.end()
    other.taken(WINDOW_BYTES)
    streams.send_http(b"{}")
    assert link.sent == []


def test_reader_closes() -> None:
    """Who wants no more says so."""
    streams, link = begun()
    streams.reader(7).close()
    assert link.windows == [{"closed": True}]


def test_frames_of_an_http_action() -> None:
    """They go to whoever runs it; any other call has none."""
    seen: list[tuple[bytes, bytes]] = []
    streams = CallStreams(lambda meta, body: seen.append((meta, body)))
    streams.receive(frames.HTTP, 0, b'{"route":"GET /x"}', b"")
    assert seen == [(b'{"route":"GET /x"}', b"")]
    with pytest.raises(ValueError, match="not an HTTP action"):
        CallStreams().receive(frames.HTTP, 0, b"", b"{}")


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=70_000).map(lambda data: ("write", data)),
            st.integers(1, 200_000).map(lambda n: ("grant", n)),
        ),
        max_size=30,
    )
)
def test_bytes_arrive_whole_and_in_order(steps: list[tuple[str, Any]]) -> None:
    """However writes and grants alternate: what has arrived is a prefix of what was written, as long as the window allows, and all of it
    once there is room."""
    link = Link()
    writer = StreamWriter(link, 1)  # type: ignore[arg-type]
    written, granted = b"", WINDOW_BYTES
    for what, value in steps:
        if what == "write":
            written += value
            writer.write(value)
        else:
            granted += value
            writer.granted(json.dumps({"bytes": value}).encode())
        assert link.data == written[:granted]
        assert writer.queued_bytes == max(0, len(written) - granted)
    writer.granted(json.dumps({"bytes": len(written)}).encode())
    assert link.data == written
