"""Bodies that are too large, as they arrive byte by byte (``http_api.md`` sections 2.1, 3 and 6)."""

from __future__ import annotations

import json

import pytest

from convex_backend.application.run_http_action import HttpAnswer
from convex_backend.web.limits import CALL_BYTES, ECHO_BYTES, HTTP_ACTION_BYTES, MIB, PUSH_BYTES, SMALL_BYTES, body_cap
from convex_backend.web.site_port import make_site_port
from tests.web.support import Answer, Bench, Connection

CHUNK = b"x" * 65536


@pytest.mark.parametrize(
    ("path", "cap"),
    [
        (b"/api/query", 16 * MIB + 2000),
        (b"/api/query?path=x", CALL_BYTES),
        (b"/api/mutation", CALL_BYTES),
        (b"/api/action", CALL_BYTES),
        (b"/api/function", CALL_BYTES),
        (b"/api/run/messages/list", CALL_BYTES),
        (b"/api/query_batch", CALL_BYTES),
        (b"/api/deploy2/start_push", PUSH_BYTES),
        (b"/echo", ECHO_BYTES),
        (b"/http/x", HTTP_ACTION_BYTES),
        (b"/api/update_environment_variables", SMALL_BYTES),
        (b"/nope", SMALL_BYTES),
        (b"/%61pi/query", SMALL_BYTES),
    ],
)
def test_caps(path: bytes, cap: int) -> None:
    """Each family has its own cap; what is not known has the small one."""
    assert body_cap(path) == cap


def pour(connection: Connection, size: int) -> Answer | None:
    """Send *size* bytes of body in chunks, as a network would."""
    while size:
        part = CHUNK[:size]
        connection.send(part)
        size -= len(part)
    return connection.answer()


@pytest.mark.parametrize(
    "target",
    ["/api/update_environment_variables", "/api/v1/get_canonical_urls", "/nope", "//nope"],
)
def test_too_large(target: str) -> None:
    """A body over the small cap is 413 JSON, whoever sends it; the connection goes on."""
    bench = Bench()
    connection = bench.connect()
    connection.send(bench.head("POST", target, {}, SMALL_BYTES + 1))
    answer = pour(connection, SMALL_BYTES + 1)
    assert answer is not None
    assert answer.error == (413, "RequestTooLarge")
    assert str(SMALL_BYTES) in answer.json["message"]
    connection.send(bench.head("GET", "/version", {}, None))
    after = connection.answer()
    assert after is not None
    assert after.body == b"1.2.3"


def test_call_too_large() -> None:
    """A call of one byte over 16 MiB + 2000 B is refused without being parsed; one of exactly that passes."""
    bench = Bench()
    start = b'{"path":"a:b","args":["'
    end = b'"]}'
    filler = CALL_BYTES - len(start) - len(end)
    for extra, status in ((0, 200), (1, 413)):
        connection = bench.connect()
        connection.send(bench.head("POST", "/api/mutation", {}, CALL_BYTES + extra) + start)
        assert pour(connection, filler + extra) is None
        connection.send(end)
        answer = connection.answer()
        assert answer is not None
        assert answer.status == status
    assert len(bench.application.calls) == 1


def test_nothing_is_kept_past_the_cap() -> None:
    """What comes after the cap is dropped as it arrives."""
    bench = Bench()
    connection = bench.connect()
    connection.send(bench.head("POST", "/nope", {}, 5 * SMALL_BYTES))
    for _ in range(4 * SMALL_BYTES // len(CHUNK)):
        connection.send(CHUNK)
    request = (
        connection.protocol._channel.requests[0]
        if hasattr(connection.protocol, "_channel")
        else connection.protocol.requests[0]
    )
    assert request.content.tell() <= SMALL_BYTES


def test_chunked_body_is_counted_too() -> None:
    """A body that does not announce its size is cut off all the same."""
    bench = Bench()
    connection = bench.connect()
    connection.send(bench.head("POST", "/api/check_admin_key", {"Transfer-Encoding": "chunked"}, None))
    for _ in range(SMALL_BYTES // len(CHUNK) + 1):
        connection.send(b"%x\r\n%s\r\n" % (len(CHUNK), CHUNK))
    connection.send(b"0\r\n\r\n")
    answer = connection.answer()
    assert answer is not None
    assert answer.error == (413, "RequestTooLarge")


def test_next_request_starts_anew() -> None:
    """Caps and counts belong to one request, not to its connection."""
    bench = Bench()
    connection = bench.connect()
    for _ in range(3):
        body = json.dumps({"path": "a:b", "args": ["x" * (SMALL_BYTES // 2)]}).encode()
        connection.send(bench.head("POST", "/api/query", {}, len(body)) + body)
        answer = connection.answer()
        assert answer is not None
        assert answer.status == 200


@pytest.mark.parametrize("site_port", [False, True])
def test_http_action_too_large(site_port: bool) -> None:
    """HTTP actions take 20 MiB on either port; a larger body is 413 without CORS headers of ours."""
    bench = Bench(make_site_port) if site_port else Bench()
    bench.application.http_answer = HttpAnswer(404, "text/plain; charset=utf-8", b"No matching routes found")
    target = "/upload" if site_port else "/http/upload"
    for size, status in ((HTTP_ACTION_BYTES, 404), (HTTP_ACTION_BYTES + 1, 413)):
        connection = bench.connect()
        connection.send(bench.head("POST", target, {"Origin": "http://app.test"}, size))
        answer = pour(connection, size)
        assert answer is not None
        assert answer.status == status
        assert "access-control-allow-origin" not in answer.headers
