"""How long a connection may take over a request's head, its body, and nothing at all (``docs/sync.md`` section 4)."""

from __future__ import annotations

from twisted.logger import LogEvent, globalLogPublisher

from convex_backend.web.channel import HEAD_SECONDS
from tests.web.support import Bench, Connection, success

REQUEST = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"


def ended(connection: Connection) -> bool:
    """Whether the server has given the connection up."""
    return bool(connection.transport.disconnecting)


def test_a_connection_that_sends_nothing_ends_soon() -> None:
    """A client has 30 s for its first request."""
    bench = Bench()
    connection = bench.connect()
    bench.clock.advance(HEAD_SECONDS - 1)
    assert not ended(connection)
    bench.clock.advance(1)
    assert ended(connection)


def test_a_client_that_is_cut_off_is_twisteds_business() -> None:
    """What Twisted says of it bears Twisted's name, so that the console does not show a line for each such client."""
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    try:
        bench = Bench()
        bench.connect()
        bench.clock.advance(HEAD_SECONDS)
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert [event["log_namespace"] for event in events if "peer" in event] == ["twisted.web.http"]


def test_a_head_that_trickles_in_ends_all_the_same() -> None:
    """A byte every ten seconds gains nothing: the limit is from the beginning of the head to its end."""
    bench = Bench()
    connection = bench.connect()
    upgrade = b"GET /api/sync HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
    sent = 0
    while not ended(connection):
        connection.send(upgrade[sent : sent + 1])
        sent += 1
        bench.clock.advance(10)
    assert sent * 10 == HEAD_SECONDS


def test_the_same_for_a_later_request_of_a_connection() -> None:
    """Between requests a connection may be idle for 300 s; a head that has begun has 30 s."""
    bench = Bench()
    connection = bench.connect()
    connection.send(REQUEST)
    assert connection.answer() is not None
    bench.clock.advance(299)
    assert not ended(connection)
    connection.send(REQUEST[:7])
    for _ in range(2):
        bench.clock.advance(14)
        connection.send(b"x")
    assert not ended(connection)
    bench.clock.advance(2)
    assert ended(connection)


def test_a_connection_that_is_kept_alive_ends_after_300_idle_seconds() -> None:
    """Every answered request starts the time anew."""
    bench = Bench()
    connection = bench.connect()
    for _ in range(3):
        connection.send(REQUEST)
        assert connection.answer() is not None
        bench.clock.advance(290)
        assert not ended(connection)
    bench.clock.advance(10)
    assert ended(connection)


def test_a_body_may_take_its_time() -> None:
    """Each byte of a body starts 300 s anew, and an answer that takes long has no limit of this kind."""
    bench = Bench()
    connection = bench.connect()
    body = b'{"path":"m:q","args":[{}]}'
    connection.send(Bench.head("POST", "/api/query", {"Content-Type": "application/json"}, len(body)))
    for octet in body:
        bench.clock.advance(200)
        assert not ended(connection)
        bench.application.answer = success(b"1")
        connection.send(bytes([octet]))
    answer = connection.answer()
    assert answer is not None
    assert answer.json["value"] == 1
