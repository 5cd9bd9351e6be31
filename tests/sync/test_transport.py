"""Frames, keep-alive, limits, backpressure and closes (checklist 3 to 9, 11, 30)."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from convex_backend.deferreds import from_coroutine
from convex_backend.errors import (
    BadRequest,
    Forbidden,
    OccConflict,
    Overloaded,
    PaginationLimit,
    RateLimited,
    ServerFault,
)
from convex_backend.sync.closing import Close
from convex_backend.sync.protocol import CONGESTED_BYTES, FRAME_BYTES
from convex_backend.sync.worker import INBOX_MESSAGES
from tests.sync.support import (
    T0,
    Server,
    action,
    add,
    client_frame,
    connect,
    modify,
    mutation,
    result,
    success,
)

INTERNAL = {"close": 1011, "reason": "InternalServerError"}


def big(size: int) -> bytes:
    """JSON text of a string of *size* characters."""
    return b'"' + b"x" * size + b'"'


def test_deflate_is_declined_by_default() -> None:
    """3: a client that offers compression is served without."""
    offer = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
    socket = Server().open(headers=offer)
    assert socket.status == 101
    assert "extensions" not in socket.head.lower()


def test_deflate_as_an_option() -> None:
    """3: with the option it is accepted, what is sent is compressed, and messages are still fragmented."""
    offer = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
    socket = Server(automatic=True, compression=True).open(headers=offer)
    assert "permessage-deflate" in socket.head
    socket.read_frames()
    socket.send(modify(0, add(0)))
    frames = socket.read_frames()
    assert [frame.rsv for frame in frames] == [4]


def test_deflate_bombs_are_refused() -> None:
    """5: the limit counts inflated bytes."""
    import zlib

    offer = {"Sec-WebSocket-Extensions": "permessage-deflate"}
    socket = Server(compression=True, max_message_bytes=10_000).open(headers=offer)
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(b" " * 1_000_000) + packer.flush(zlib.Z_SYNC_FLUSH)
    frame = bytearray(client_frame(packed[:-4]))
    frame[0] |= 0x40
    socket.send_bytes(bytes(frame))
    assert socket.read()[-1]["close"] == 1009


@pytest.mark.parametrize("target", ["/api/sync", "/api/1.27.0/sync"])
def test_long_messages_are_fragmented(target: str) -> None:
    """4, 28: a message of 17 MiB goes in frames of at most 1 MiB to clients that do not take chunks."""
    socket = Server().open(target)
    socket.send(modify(0, add(0)))
    socket.read()
    assert socket.live is not None
    socket.live.push(T0, (0, result(big(17 << 20))))
    frames = socket.read_frames()
    assert max(len(frame.payload) for frame in frames) == FRAME_BYTES
    assert [frame.opcode for frame in frames] == [1] + [0] * (len(frames) - 1)
    tree = orjson.loads(b"".join(frame.payload for frame in frames))
    assert len(tree["modifications"][0]["value"]) == 17 << 20


def test_chunks_for_npm() -> None:
    """28: npm from 1.28.0 on gets chunks of at most 5,000,000 bytes, with no other message between."""
    socket = Server().open("/api/1.28.0/sync")
    socket.send(modify(0, add(0)))
    socket.read()
    assert socket.live is not None
    socket.live.push(T0, (0, result(big(11_000_000))))
    messages = socket.read()
    assert [message["type"] for message in messages] == ["TransitionChunk"] * 3
    assert max(len(message["chunk"]) for message in messages) == 5_000_000
    tree = orjson.loads("".join(message["chunk"] for message in messages))
    assert len(tree["modifications"][0]["value"]) == 11_000_000


@pytest.mark.parametrize("size", [0, 1, 30, 300, 65_000, 70_000, 1 << 20])
def test_frame_lengths(size: int) -> None:
    """4: frames of every form of length are whole."""
    socket = Server().open("/api/sync")
    socket.send(modify(0, add(0)))
    assert socket.live is not None
    socket.live.push(T0, (0, result(big(size))))
    assert socket.read()[0]["modifications"][0]["value"] == "x" * size


def masked_frame(payload: bytes, mask: bytes, opcode: int = 1, fin: bool = True) -> bytes:
    """A client's frame under any mask."""
    plain = client_frame(payload, opcode, fin)
    head = plain[: len(plain) - len(payload) - 4]
    return head + mask + bytes(octet ^ mask[at % 4] for at, octet in enumerate(payload))


@settings(deadline=None, max_examples=60)
@given(st.randoms(use_true_random=False))
def test_messages_are_the_same_however_bytes_are_chopped(dice: random.Random) -> None:
    """13: messages of every length and mask, whole and in fragments, between pings and pongs, arrive in order, wherever TCP cuts."""
    stream, sent, pings = b"", [], 0
    for number in range(dice.randint(1, 12)):
        text = dice.choice(["", "x", "é€𝒳"]) * dice.choice([0, 1, 40, 41, 42, 43, 125, 126, 127, 5000, 70_000])
        message = orjson.dumps(action(number, args=[{"text": text}]))
        mask = dice.randbytes(4)
        if dice.random() < 0.3:
            cut = dice.randint(0, len(message))
            stream += masked_frame(message[:cut], mask, fin=False)
            stream += masked_frame(b"", mask, opcode=dice.choice([9, 10]))
            pings += stream[-6] == 0x89
            stream += masked_frame(message[cut:], mask, opcode=0)
        else:
            stream += masked_frame(message, mask)
        sent.append({"text": text})
        for _ in range(dice.randint(0, 2)):
            stream += masked_frame(b"late", mask, opcode=10)
    server = Server()
    socket = server.open()
    socket.read_frames()
    at = 0
    while at < len(stream):
        step = dice.choice([1, 2, 3, 6, 7, 100, 10_000, len(stream)])
        socket.send_bytes(stream[at : at + step])
        at += step
    assert [orjson.loads(call.args)[0] for call in server.application.actions] == sent
    assert [frame.opcode for frame in socket.read_frames()] == [10] * pings


def test_large_messages_from_the_client() -> None:
    """5: 16 MiB of arguments and their envelope are taken, in one frame or several."""
    server = Server(automatic=True)
    socket = server.open()
    message = orjson.dumps(mutation(0, args=[{"a": "x" * (16 << 20)}]))
    socket.send_bytes(client_frame(message))
    middle = len(message) // 2
    socket.send_bytes(client_frame(message[:middle], fin=False) + client_frame(message[middle:], opcode=0))
    server.application.mutations[0].answer.callback(success())
    assert [len(call.args) > 16 << 20 for call in server.application.mutations] == [True, True]


def test_messages_over_the_limit() -> None:
    """5: a longer message is refused with a close, at the head of its frame; what follows is ignored."""
    server = Server(max_message_bytes=1000)
    socket = server.open()
    socket.send_bytes(client_frame(orjson.dumps(mutation(0, args=[{"a": "x" * 1000}])))[:20])
    assert socket.read()[-1]["close"] == 1009
    socket.send(mutation(0))
    assert server.application.mutations == []


def test_fragments_over_the_limit() -> None:
    """5: the limit is of the message, not of a frame."""
    socket = Server(max_message_bytes=1000).open()
    socket.send_bytes(client_frame(b'{"type":"Event","x":"', fin=False))
    for _ in range(3):
        socket.send_bytes(client_frame(b"x" * 400, opcode=0, fin=False))
    assert socket.read()[-1]["close"] == 1009


def test_large_results_are_not_limited() -> None:
    """1.6: the inbound limit does not hold for what we send."""
    socket = Server(max_message_bytes=1000).open("/api/sync")
    socket.send(modify(0, add(0)))
    assert socket.live is not None
    socket.live.push(T0, (0, result(big(3 << 20))))
    assert len(socket.read()[0]["modifications"][0]["value"]) == 3 << 20


def test_pings() -> None:
    """6: a ping frame at once and every 5 s; a Ping message after 15 s without another message."""
    server = Server(automatic=True)
    socket = server.open()
    assert [frame.opcode for frame in socket.read_frames()] == [9]
    pinged = []
    for second in range(1, 15):
        server.pass_seconds(1)
        if second == 3:
            server.open()
        for frame in socket.read_frames():
            assert frame.opcode == 9
            pinged.append(second)
    assert pinged == [5, 10]
    server.pass_seconds(2)
    assert socket.read() == [{"type": "Ping"}]
    server.pass_seconds(10)
    socket.send(modify(0))
    assert socket.read()[0]["type"] == "Transition"
    server.pass_seconds(13)
    assert socket.read() == []
    server.pass_seconds(3)
    assert socket.read() == [{"type": "Ping"}]


def test_silent_peers() -> None:
    """7: a peer from which nothing comes for 120 s is closed; one that only answers pings, or never connects, is not."""
    server = Server()
    silent, alive = server.open(), server.open()
    for _ in range(13):
        server.pass_seconds(10)
        alive.send_bytes(client_frame(b"", opcode=10))
    assert silent.read()[-1] == {"close": 1000, "reason": "ClientDisconnected"}
    assert {message["type"] for message in alive.read()} == {"Ping"}
    server.pass_seconds(11)
    assert silent.transport.lost
    assert not alive.transport.lost


def test_the_close_frame_of_a_client_is_answered() -> None:
    """8: at once, with its code; then the server drops TCP."""
    server = Server()
    socket = server.open()
    socket.read_frames()
    socket.send_bytes(client_frame(b"\x03\xe8bye", opcode=8))
    assert [(frame.opcode, frame.payload) for frame in socket.read_frames()] == [(8, b"\x03\xe8bye")]
    assert socket.transport.lost
    assert socket.live is not None and socket.live.closed
    assert server.metric("convex_sync_connections") == 0
    assert not server.clock.getDelayedCalls()


def test_a_close_while_the_buffer_is_full() -> None:
    """8: what was written before the close frame is sent before TCP is dropped."""
    server = Server(automatic=True)
    socket = server.open()
    socket.transport.room = 0
    socket.send(modify(0, add(0)))
    socket.send_bytes(client_frame(b"", opcode=8))
    assert not socket.transport.lost
    socket.transport.room = 1 << 40
    assert [frame.opcode for frame in socket.read_frames()][-2:] == [1, 8]
    assert socket.transport.lost


def test_a_close_that_is_never_read() -> None:
    """8: a peer that closes but does not take what was written before is dropped after a while."""
    server = Server(automatic=True)
    socket = server.open()
    socket.transport.room = 0
    socket.send(modify(0, add(0)))
    socket.send_bytes(client_frame(b"", opcode=8))
    server.pass_seconds(9)
    assert not socket.transport.lost
    server.pass_seconds(3)
    assert socket.transport.lost
    assert not server.clock.getDelayedCalls()


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (client_frame(b"\x03", opcode=8), 1002),
        (client_frame(b"\x03\xed", opcode=8), 1002),
        (client_frame(b"\x03\xe8\xff", opcode=8), 1007),
        (client_frame(b"\x03\xe8", opcode=8, fin=False), 1002),
        (client_frame(b"\x03\xe8" + bytes(124), opcode=8), 1002),
    ],
)
def test_a_close_frame_that_is_a_violation(frame: bytes, code: int) -> None:
    """8: such a frame is answered with what is wrong before TCP ends."""
    server = Server()
    socket = server.open()
    socket.read_frames()
    socket.send_bytes(frame)
    assert [frame.payload[:2] for frame in socket.read_frames()] == [code.to_bytes(2)]
    assert socket.transport.lost
    server.pass_seconds(1)
    assert not server.clock.getDelayedCalls()


def test_our_side_of_tcp_ends_behind_a_close_frame_for_a_violation() -> None:
    """8: a peer that is in the middle of a frame cannot be heard to answer ours; what was sent before it is sent all the same."""
    server = Server(automatic=True)
    socket = server.open()
    socket.send(modify(0, add(0)))
    socket.send_bytes(client_frame(b'{"a":"' + bytes(100))[:-10] + b"\xff")
    assert [frame.opcode for frame in socket.read_frames()] == [9, 1, 8]
    assert socket.transport.half_closed
    assert not socket.transport.lost
    server.pass_seconds(12)
    assert socket.transport.lost
    assert not server.clock.getDelayedCalls()


def test_a_peer_that_does_not_answer_our_close() -> None:
    """8: TCP is dropped after a while, and nothing is left behind."""
    server = Server()
    socket = server.open()
    socket.send_bytes(client_frame(b"{"))
    server.pass_seconds(12)
    assert socket.transport.lost
    assert not server.clock.getDelayedCalls()


@pytest.mark.parametrize(
    ("error", "last", "code", "reason"),
    [
        (BadRequest("X", "bad"), "FatalError", None, ""),
        (PaginationLimit("TooMany", "bad"), "FatalError", 1000, "TooMany"),
        (Forbidden("OperationNotPermitted", "bad"), "FatalError", 1000, "OperationNotPermitted"),
        (Overloaded("CommitterFullError", "full"), None, 1013, "CommitterFullError"),
        (OccConflict(), None, 1013, "OptimisticConcurrencyControlFailure"),
        (RateLimited("Slow", "slow"), None, 1013, "Slow"),
        (Overloaded("é" * 100, "full"), None, 1013, "é" * 61),
    ],
)
def test_close_codes(error: Exception, last: str | None, code: int | None, reason: str) -> None:
    """8, 9: each kind of error has its last message, code and reason, which is at most 123 bytes."""
    server = Server()
    socket = server.open()
    socket.send(mutation(0))
    server.application.mutations[0].answer.errback(error)
    *before, end = socket.read()
    assert [message["type"] for message in before] == ([] if last is None else [last])
    assert end == {"close": code, "reason": reason}
    assert server.metric("convex_sync_server_closes_total", code=str(code or 1005)) == 1


@pytest.mark.parametrize("error", [ServerFault("disk"), ZeroDivisionError("x")])
def test_faults(error: Exception) -> None:
    """9: what was not foreseen closes 1011 with a fixed reason, whatever runs into it."""
    for provoke in ("mutation", "action", "take", "message"):
        server = Server()
        socket = server.open()
        socket.read_frames()
        assert socket.live is not None
        if provoke == "mutation":
            socket.send(mutation(0))
            server.application.mutations[0].answer.errback(error)
        elif provoke == "action":
            socket.send(action(0))
            server.application.actions[0].answer.errback(error)
        elif provoke == "take":
            socket.live.fault = error
            socket.live.on_ready()
        else:
            socket.live.fault = error
            socket.send(modify(0))
        assert socket.read() == [INTERNAL], provoke


def test_a_fault_at_the_opening() -> None:
    """9: a socket that cannot be set up is closed with 1011, not left open."""
    server = Server()

    def fail(*_: object) -> Any:
        raise ZeroDivisionError

    server.application.live.connect = fail  # type: ignore[method-assign]
    socket = server.open()
    assert socket.read() == [INTERNAL]
    socket.send_bytes(client_frame(b"", opcode=8))
    assert socket.transport.lost


def test_binary_messages() -> None:
    """1.2: a binary message closes 1011."""
    socket = Server().open()
    socket.send_bytes(client_frame(b"{}", opcode=2))
    assert socket.read() == [INTERNAL]


@pytest.mark.parametrize("payload", [b"", b"{", b"[1]", b'{"type":"Nope"}', b'{"type":"Mutation"}', b'{"a":NaN}'])
def test_malformed_messages(payload: bytes) -> None:
    """11: FatalError, then an empty close frame; what follows is ignored."""
    server = Server()
    socket = server.open()
    socket.send_bytes(client_frame(payload) + client_frame(orjson.dumps(mutation(0))))
    fatal, end = socket.read()
    assert fatal["type"] == "FatalError"
    assert fatal["error"].startswith("Received Invalid JSON on websocket: ")
    assert end == {"close": None, "reason": ""}
    assert server.application.mutations == []
    assert server.metric("convex_sync_messages_total", type="invalid") == 1


def test_a_slow_reader_gets_merged_transitions() -> None:
    """30: at most two Transitions wait unsent; later changes wait in the live queries and come as one."""
    server = Server()
    socket = server.open()
    socket.send(modify(0, add(0)))
    socket.read()
    live = socket.live
    assert live is not None
    live.automatic = True
    socket.transport.room = 0
    takes = len(live.takes)
    for number in range(50):
        live.ts += 1
        live.fresh = {0: result(b"%d" % number)}
        live.on_ready()
    assert len(live.takes) - takes == 2
    socket.transport.room = 1 << 40
    assert [message["modifications"][0]["value"] for message in socket.read()] == [0, 1, 49]


def test_a_mutation_on_a_stalled_socket() -> None:
    """30, 32: the Transition that is owed comes when the socket can be written to again."""
    server = Server(automatic=True)
    socket = server.open()
    socket.transport.room = 0
    for request_id in range(4):
        socket.send(mutation(request_id))
        server.application.live.clients[0].ts = T0 + request_id
        server.application.mutations[-1].answer.callback(success(ts=T0 + request_id))
    socket.transport.room = 1 << 40
    messages = socket.read()
    assert [message["type"] for message in messages].count("Transition") == 3
    assert messages[-1]["endVersion"]["ts"] == messages[-2]["ts"] if messages[-2]["type"] != "Transition" else True
    assert messages[-1]["type"] == "Transition"


def test_a_peer_that_never_reads() -> None:
    """E4: while a megabyte waits unsent no further mutation starts and messages stay in the kernel; all is done in order later."""
    server = Server(automatic=True)
    socket = server.open()
    socket.transport.room = 0
    socket.send(mutation(0), mutation(1))
    server.application.mutations[0].answer.callback(success(big(CONGESTED_BYTES)))
    assert len(server.application.mutations) == 1
    for number in range(INBOX_MESSAGES):
        assert socket.transport.reading
        socket.send(mutation(2 + number))
    assert not socket.transport.reading
    # Pings of such a peer are not answered either.
    before = socket.transport._tempDataLen
    socket.send_bytes(client_frame(b"x" * 100, opcode=9))
    assert socket.transport._tempDataLen == before
    socket.transport.room = 1 << 40
    socket.read()
    assert socket.transport.reading
    for number in range(1, 2 + INBOX_MESSAGES):
        server.application.mutations[number].answer.callback(success(b"%d" % number))
    answers = [message for message in socket.read() if message["type"] == "MutationResponse"]
    assert [message["result"] for message in answers] == list(range(1, 2 + INBOX_MESSAGES))
    assert server.metric("convex_sync_queued_mutations") == 0


def test_push_mode() -> None:
    """30: over a transport that is not plain TCP, a pause makes the worker wait, and resuming sends one merged Transition."""
    server = Server(automatic=True)
    socket = server.open()
    socket.send(modify(0, add(0)))
    protocol, live = socket.protocol, socket.live
    assert live is not None
    tls = StringTransport()
    protocol.transport.unregisterProducer()
    protocol.transport = tls
    protocol._counted = False
    tls.registerProducer(protocol, True)
    assert tls.streaming
    for pause in (True, True, False):
        if pause:
            protocol.pauseProducing()
        live.fresh = {0: result()}
        live.on_ready()
        assert tls.value() == b""
        if not pause:
            protocol.resumeProducing()
    assert tls.value().count(b'"type":"Transition"') == 1
    for _ in range(5):
        live.fresh = {0: result()}
        live.on_ready()
    assert tls.value().count(b'"type":"Transition"') == 6


def test_a_broken_connection() -> None:
    """A connection that breaks ends its subscriptions; a mutation under way runs on and its answer is dropped."""
    server = Server()
    socket = server.open()
    socket.send(connect(), mutation(0), mutation(1))
    socket.transport.lose(Failure(ConnectionLost()))
    assert socket.live is not None and socket.live.closed
    server.application.mutations[0].answer.callback(success())
    assert len(server.application.mutations) == 1
    assert server.metric("convex_sync_queued_mutations") == 0
    assert server.metric("convex_sync_connections") == 0
    assert not server.clock.getDelayedCalls()


def closed(server: Server) -> Deferred[None]:
    """Stop the sockets."""
    return from_coroutine(server.resource.close_all())


def test_stop() -> None:
    """Every socket is closed with 1001; the stop waits for their ends, and later sockets are refused."""
    server = Server()
    first, second = server.open(), server.open()
    done: list[object] = []
    closed(server).addBoth(done.append)
    for socket in (first, second):
        assert socket.read() == [{"close": 1001, "reason": "ServerStopping"}]
        assert done == []
        socket.send_bytes(client_frame(b"\x03\xe9", opcode=8))
    assert done == [None]
    assert not server.clock.getDelayedCalls()
    late = server.open()
    assert late.status == 503
    assert orjson.loads(late.body)["code"] == "ServerStopping"


def test_stop_with_a_deaf_peer() -> None:
    """A socket that does not answer is dropped at the deadline."""
    server = Server()
    socket = server.open()
    done: list[object] = []
    closed(server).addBoth(done.append)
    server.pass_seconds(2)
    assert done == []
    server.pass_seconds(2)
    assert done == [None]
    assert socket.transport.lost
    assert not server.clock.getDelayedCalls()


def test_stop_without_sockets() -> None:
    """With no socket open the stop is immediate."""
    done: list[object] = []
    closed(Server()).addBoth(done.append)
    assert done == [None]


def test_stop_with_another_code() -> None:
    """A planned restart may use 1012."""
    server = Server()
    socket = server.open()
    from_coroutine(server.resource.factory.close_all(1012, "ServiceRestart"))
    assert socket.read() == [{"close": 1012, "reason": "ServiceRestart"}]
    socket.send_bytes(client_frame(b"\x03\xf4", opcode=8))
    assert socket.transport.lost


def test_close_reasons_are_cut() -> None:
    """8: a reason is at most 123 bytes and ends with a whole character."""
    assert Close(code=1013, reason="é" * 62).reason_bytes == ("é" * 61).encode()


def test_heartbeat_survives_a_faulty_socket() -> None:
    """One socket's fault does not end the pings of the others."""
    server = Server()
    socket, other = server.open(), server.open()

    def fail(now: float, ping: bool) -> None:
        raise ZeroDivisionError

    socket.protocol.tick = fail
    server.pass_seconds(20)
    assert other.read() == [{"type": "Ping"}]


def test_metrics() -> None:
    """Connections, messages, transitions and queues can be read."""
    server = Server(automatic=True)
    socket = server.open()
    socket.send(connect(), modify(0, add(0)), mutation(0), mutation(1), action(2))
    assert server.metric("convex_sync_connections") == server.metric("convex_sync_opened_total") == 1
    assert server.metric("convex_sync_transitions_total") == 1
    assert server.metric("convex_sync_transition_bytes_total") == len(orjson.dumps(socket.read()[0]))
    assert server.metric("convex_sync_messages_total", type="Mutation") == 2
    assert server.metric("convex_sync_queued_mutations") == 1
    assert server.metric("convex_sync_running_actions") == 1
