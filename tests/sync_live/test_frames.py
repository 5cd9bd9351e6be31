"""RFC 6455 on the sync socket of a real server: framing, control frames, text, the closing handshake, limits.

Where an echo would tell that a message was understood, a Transition that answers a ``ModifyQuerySet`` does. ``test_autobahn_suite.py`` runs the
cases of that suite against an echo build of the same layer.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.harness import Server
from tests.sync_live.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Ended, FrameSocket, encode

PROTOCOL_ERROR, INVALID_TEXT, TOO_BIG = 1002, 1007, 1009
MAX_MESSAGE = 64 * 1024 * 1024


def modify(base: int, padding: str = "") -> bytes:
    """A ``ModifyQuerySet`` without modifications; the server answers it with a Transition."""
    message = {"type": "ModifyQuerySet", "baseVersion": base, "newVersion": base + 1, "modifications": []}
    return json.dumps({**message, "ignored": padding}, ensure_ascii=False).encode()


@pytest.fixture
def sock(bank: Server) -> Iterator[FrameSocket]:
    """A socket after its handshake, with the first ping taken off."""
    connection = FrameSocket(bank.port)
    connection.handshake()
    assert connection.frame().opcode == PING
    yield connection
    connection.close()


def understood(sock: FrameSocket, version: int = 1) -> None:
    """The server has read a ``ModifyQuerySet``."""
    answer = json.loads(sock.frame_of(TEXT, CLOSE).payload)
    assert answer["type"] == "Transition"
    assert answer["endVersion"]["querySet"] == version


def closed_with(sock: FrameSocket, code: int | None) -> None:
    """The server sends a close frame with *code*, and ends TCP once it is answered."""
    frame = sock.frame_of(CLOSE, TEXT)
    assert frame.opcode == CLOSE, frame
    assert frame.close_code == code
    try:
        sock.send(CLOSE, frame.payload)
    except Ended:
        return
    with pytest.raises(Ended):
        sock.frame(5)


# -- fragments and control frames ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 64])
def test_fragments_make_one_message(sock: FrameSocket, size: int) -> None:
    """A message may come in any number of fragments, empty ones among them."""
    message = modify(0)
    parts = [b"", *(message[at : at + size] for at in range(0, len(message), size)), b""]
    for number, part in enumerate(parts):
        sock.send(TEXT if number == 0 else CONTINUATION, part, fin=number == len(parts) - 1)
    understood(sock)


def test_control_frames_may_come_between_fragments(sock: FrameSocket) -> None:
    """A ping in the middle of a message is answered before the message ends; pongs nobody asked for are ignored."""
    message = modify(0)
    sock.send(TEXT, message[:5], fin=False)
    sock.send(PING, b"now")
    assert sock.frame_of(PONG).payload == b"now"
    sock.send(PONG, b"unasked")
    sock.send(CONTINUATION, message[5:9], fin=False)
    sock.send(PING)
    assert sock.frame_of(PONG).payload == b""
    sock.send(CONTINUATION, message[9:])
    understood(sock)


@pytest.mark.parametrize("payload", [b"", b"x", bytes(range(125)), b"\xff\xfe\x00"])
def test_pings_are_answered_with_their_payload(sock: FrameSocket, payload: bytes) -> None:
    """The pong carries the ping's bytes, text or not."""
    sock.send(PING, payload)
    assert sock.frame_of(PONG).payload == payload


def test_many_pings_at_once(sock: FrameSocket) -> None:
    """Every ping of a burst is answered, in order."""
    sock.send_raw(b"".join(encode(PING, b"%d" % n) for n in range(20)))
    assert [sock.frame_of(PONG).payload for _ in range(20)] == [b"%d" % n for n in range(20)]


def test_frames_may_come_octet_by_octet(sock: FrameSocket) -> None:
    """Nothing depends on how TCP chops the bytes."""
    for octet in encode(PING, b"slow") + encode(TEXT, modify(0)):
        sock.send_raw(bytes([octet]))
    assert sock.frame_of(PONG).payload == b"slow"
    understood(sock)


def test_many_frames_may_come_in_one_segment(sock: FrameSocket) -> None:
    """Messages of one segment are handled in order."""
    sock.send_raw(b"".join(encode(TEXT, modify(version)) for version in range(30)))
    versions = [0]
    while versions[-1] < 30:
        versions.append(json.loads(sock.frame_of(TEXT, CLOSE).payload)["endVersion"]["querySet"])
    assert versions == sorted(set(versions))


@pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x80\x00\x01\x7f"])
@pytest.mark.parametrize("padding", [0, 126, 65_536])
def test_masks_and_lengths(sock: FrameSocket, mask: bytes, padding: int) -> None:
    """Any mask is taken off, for each of the three forms of the length."""
    sock.send(TEXT, modify(0, "é" * padding), mask=mask)
    understood(sock)


VIOLATIONS: dict[str, Callable[[], bytes]] = {
    **{f"reserved bits {rsv:03b}": lambda rsv=rsv: encode(TEXT, modify(0), rsv=rsv) for rsv in range(1, 8)},
    **{f"reserved bit on a ping {rsv}": lambda rsv=rsv: encode(PING, b"", rsv=rsv) for rsv in (1, 2, 4)},
    **{f"opcode {op}": lambda op=op: encode(op, b"") for op in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "no mask": lambda: encode(TEXT, modify(0), mask=None),
    "a ping without mask": lambda: encode(PING, b"", mask=None),
    "nothing to continue": lambda: encode(CONTINUATION, b"x"),
    "nothing to continue any more": lambda: encode(TEXT, modify(0)) + encode(CONTINUATION, b"x"),
    "text in a message": lambda: encode(TEXT, b"{", fin=False) + encode(TEXT, b"}"),
    "binary in a message": lambda: encode(TEXT, b"{", fin=False) + encode(BINARY, b"}"),
    "a fragmented ping": lambda: encode(PING, b"x", fin=False),
    "a fragmented close": lambda: encode(CLOSE, b"\x03\xe8", fin=False),
    "a long ping": lambda: encode(PING, bytes(126)),
    "a long pong": lambda: encode(PONG, bytes(126)),
    "a long close": lambda: encode(CLOSE, b"\x03\xe8" + bytes(124)),
    "a length of 16 bits that needs 7": lambda: b"\x81\xfe\x00\x02" + bytes(4) + b"{}",
    "a length of 64 bits that needs 16": lambda: b"\x81\xff" + struct.pack("!Q", 300) + bytes(4) + bytes(300),
    "a length with the highest bit set": lambda: b"\x81\xff" + struct.pack("!Q", 1 << 63) + bytes(4),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_violations_end_with_1002(sock: FrameSocket, name: str) -> None:
    """A frame that breaks the framing is a protocol error; what was whole before it is still answered or dropped."""
    sock.send_raw(VIOLATIONS[name]())
    if name == "nothing to continue any more":
        understood(sock)
    closed_with(sock, PROTOCOL_ERROR)


# -- text ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["κόσμε", "\U00010000\U0010ffff", "\ufffd\ufffe\uffff", "\ud7ff\ue000", "a\u0300"])
def test_any_text_is_read(sock: FrameSocket, text: str) -> None:
    """Valid UTF-8 is read, cut at any octet."""
    message = modify(0, text)
    for at in range(len(message)):
        sock.send(TEXT if at == 0 else CONTINUATION, message[at : at + 1], fin=at == len(message) - 1)
    understood(sock)


@pytest.mark.parametrize(
    "octets",
    [
        b"\x80",
        b"\xbf\xbf",
        b"\xc0\xaf",
        b"\xc1\x80",
        b"\xe0\x80\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xfe",
        b"\xff",
        b"\xc3(",
        b"\xe2\x82(",
    ],
    ids=lambda octets: octets.hex(),
)
@pytest.mark.parametrize("split", [False, True], ids=["whole", "fragments"])
def test_text_that_is_no_text_ends_with_1007(sock: FrameSocket, octets: bytes, split: bool) -> None:
    """Over-long forms, surrogates, values over U+10FFFF and stray octets are refused, also when a fragment's border hides them."""
    message = b'{"type":"' + octets + b'"}'
    if split:
        for at in range(len(message)):
            sock.send_raw(encode(TEXT if at == 0 else CONTINUATION, message[at : at + 1], fin=at == len(message) - 1))
    else:
        sock.send(TEXT, message)
    closed_with(sock, INVALID_TEXT)


def test_a_character_that_never_ends(sock: FrameSocket) -> None:
    """A message must not end inside a character."""
    sock.send(TEXT, b'{"a":"\xe2\x82')
    closed_with(sock, INVALID_TEXT)


@pytest.mark.parametrize("whole_frame", [True, False], ids=["first fragment", "half a frame"])
def test_bad_text_is_refused_before_the_message_ends(sock: FrameSocket, whole_frame: bool) -> None:
    """The rest of a message whose beginning is no text is not waited for."""
    frame = encode(TEXT, b'{"a":"\xff', fin=False) if whole_frame else encode(TEXT, b'{"a":"\xff' + bytes(100))[:20]
    sock.send_raw(frame)
    frame_ = sock.frame_of(CLOSE)
    assert frame_.close_code == INVALID_TEXT
    # A close frame of ours could not be told from the rest of the message: TCP ends without one.
    with pytest.raises(Ended):
        sock.frame(2)


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'{"type":"Nope"}'])
def test_text_that_is_no_message(sock: FrameSocket, payload: bytes) -> None:
    """What is valid for WebSocket but not for the protocol is told in a FatalError before an empty close frame."""
    sock.send(TEXT, payload)
    fatal = json.loads(sock.frame_of(TEXT, CLOSE).payload)
    assert fatal["type"] == "FatalError"
    assert fatal["error"].startswith("Received Invalid JSON on websocket: ")
    closed_with(sock, None)


def test_binary_messages_end_with_1011(sock: FrameSocket) -> None:
    """The protocol has text messages only."""
    sock.send(BINARY, modify(0))
    closed_with(sock, 1011)


# -- closing handshake --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999])
def test_close_frames_are_answered_in_kind(sock: FrameSocket, code: int) -> None:
    """A client's code and reason come back, and the server ends TCP."""
    sock.send(CLOSE, code.to_bytes(2) + "schön".encode())
    frame = sock.frame_of(CLOSE)
    assert (frame.close_code, frame.close_reason) == (code, "schön")
    with pytest.raises(Ended):
        sock.frame(5)


def test_an_empty_close_frame_is_answered(sock: FrameSocket) -> None:
    """So is a close frame without a code, with 1000 or none."""
    sock.send(CLOSE)
    assert sock.frame_of(CLOSE).close_code in (None, 1000)
    with pytest.raises(Ended):
        sock.frame(5)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_close_codes_that_may_not_be_sent(sock: FrameSocket, code: int) -> None:
    """Codes that are reserved or out of range are a protocol error."""
    sock.send(CLOSE, code.to_bytes(2))
    assert sock.frame_of(CLOSE).close_code == PROTOCOL_ERROR


@pytest.mark.parametrize(("payload", "code"), [(b"\x03", 1002), (b"\x03\xe8\xff\xfe", 1007)])
def test_close_frames_with_a_bad_payload(sock: FrameSocket, payload: bytes, code: int) -> None:
    """Half a code, or a reason that is no text."""
    sock.send(CLOSE, payload)
    assert sock.frame_of(CLOSE).close_code == code


def test_nothing_is_read_after_a_close_frame(sock: FrameSocket) -> None:
    """Frames that follow a close frame are neither answered nor an error."""
    sock.send_raw(encode(CLOSE, b"\x03\xe8") + encode(PING, b"late") + encode(TEXT, modify(0)))
    assert sock.frame_of(CLOSE, PONG, TEXT).close_code == 1000
    with pytest.raises(Ended):
        sock.frame(5)


def test_a_client_that_drops_tcp_in_the_middle_of_a_frame(bank: Server, sock: FrameSocket) -> None:
    """Half a frame and a reset leave the server as it was."""
    sock.send_raw(encode(TEXT, modify(0, "x" * 1000))[:500])
    sock.reset()
    other = FrameSocket(bank.port)
    other.handshake()
    other.send(TEXT, modify(0))
    understood(other)
    other.close()


# -- limits -------------------------------------------------------------------------------------------------------------


def test_a_frame_over_the_limit_is_refused_at_its_head(sock: FrameSocket) -> None:
    """A frame that says it is over 64 MiB is refused before a byte of it has come."""
    sock.send_raw(b"\x81\xff" + struct.pack("!Q", MAX_MESSAGE + 1) + os.urandom(4))
    assert sock.frame_of(CLOSE).close_code == TOO_BIG


def test_fragments_over_the_limit_together(sock: FrameSocket) -> None:
    """Fragments that are within the limit each, but not together."""
    sock.send(TEXT, b"{", fin=False)
    sock.send_raw(b"\x80\xff" + struct.pack("!Q", MAX_MESSAGE) + os.urandom(4))
    assert sock.frame_of(CLOSE).close_code == TOO_BIG


def test_arguments_of_sixteen_mebibytes(sock: FrameSocket) -> None:
    """Arguments at the limit of a function are no matter of the socket: the function is called, or refuses them."""
    args = [{"value": "x" * (16 * 1024 * 1024 - 100)}]
    message = {"type": "Action", "requestId": 0, "udfPath": "bank:echo", "args": args}
    sock.send(TEXT, json.dumps(message).encode())
    first = sock.frame_of(TEXT, CLOSE, timeout=60)
    assert first.opcode == TEXT
    assert first.payload.startswith(b'{"type":"ActionResponse","requestId":0,"success":')


# -- the opening handshake ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/api/sync", "/api/1.48.0/sync", "//api/1.48.0/sync", "/api/1.48.0-alpha.1/sync"])
def test_targets(bank: Server, target: str) -> None:
    """Both forms of the address are served, with a doubled slash too; no subprotocol and no extension is chosen (checklist 1 to 3)."""
    connection = FrameSocket(bank.port)
    offered = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits", "Origin": "https://x.example"}
    head = connection.handshake(target, offered).lower()
    assert "sec-websocket-protocol" not in head
    assert "sec-websocket-extensions" not in head
    connection.send(TEXT, modify(0))
    understood(connection)
    connection.close()


def test_the_server_saw_no_fault(bank: Server) -> None:
    """None of the above was a fault of ours in the log."""
    assert "Traceback" not in bank.text()
