"""HTTP actions on their sockets: what they see of a request, and both bodies with back-pressure (``http_api.md`` section 4)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from convex_backend.application.run_http_action import NOT_ENABLED, HttpAnswer
from convex_backend.errors import Overloaded
from convex_backend.web.http_exchange import STALL_SECONDS
from convex_backend.web.limits import HTTP_ACTION_BYTES
from convex_backend.web.site_port import make_site_port
from convex_backend.web.streamed_body import LINGER_SECONDS
from tests.web.support import GOOD_TOKEN, USER, Bench, Connection, FakeHttpAction

NOTHING = HttpAnswer(404, "text/plain; charset=utf-8", NOT_ENABLED.encode())
EVERY_METHOD = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def begin(target: str = "/http/x", head: str = "", body: bytes = b"", bench: Bench | None = None) -> Any:
    """A POST whose body is not complete unless *head* says so. :returns: bench, connection, action."""
    bench = bench or Bench()
    connection = bench.connect()
    connection.send(f"POST {target} HTTP/1.1\r\nHost: h\r\n{head}\r\n".encode() + body)
    bench.clock.advance(0)
    actions = bench.application.http_actions
    return bench, connection, actions[-1] if actions else None


def get(target: str = "/http/x", method: str = "GET", bench: Bench | None = None) -> Any:
    """A request without a body."""
    bench = bench or Bench()
    connection = bench.begin(method, target)
    return bench, connection, bench.application.http_actions[-1]


def sent(connection: Connection) -> bytes:
    """Everything on the wire so far."""
    return bytes(connection.transport.value())


@pytest.mark.parametrize("method", EVERY_METHOD)
@pytest.mark.parametrize(
    ("site_port", "target", "path"),
    [
        (False, "/http/a//b", "/a//b"),
        (False, "/http/", "/"),
        (False, "/http", "/"),
        (False, "//http/a", "/a"),
        (False, "/http/http/a", "/http/a"),
        (False, "/http/a%2Fb?x=/y%20z", "/a%2Fb"),
        (True, "http://h/http/a", "/http/a"),
        (True, "/", "/"),
        (True, "/version", "/version"),
        (True, "/http/a", "/http/a"),
        (True, "/api/query?a=1", "/api/query"),
    ],
)
def test_path(method: str, site_port: bool, target: str, path: str) -> None:
    """The main port takes ``/http`` off the raw path, the site port leaves it as it is; what answers is not ours to say."""
    bench = Bench(make_site_port) if site_port else Bench()
    bench.application.http_answer = NOTHING
    answer = bench.ask(method, target)
    assert (answer.status, answer.body) == (404, NOT_ENABLED.encode())
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "access-control-allow-origin" not in answer.headers
    request = bench.application.http_actions[-1].request
    assert (request.method, request.path) == (method, path)
    assert request.has_body == (method not in ("GET", "OPTIONS"))
    query = target.partition("?")[2]
    assert request.url == f"http://tests.example{path}" + (f"?{query}" if query else "")


@pytest.mark.parametrize(
    ("headers", "scheme"),
    [
        ({}, "http"),
        ({"X-Forwarded-Proto": "https"}, "https"),
        ({"X-Forwarded-Proto": "HTTPS, http"}, "https"),
        ({"X-Forwarded-Proto": "javascript"}, "http"),
        ({"Forwarded": "for=1.2.3.4;proto=https;by=x"}, "https"),
        ({"Forwarded": 'proto="https"'}, "https"),
        ({"Forwarded": "for=proto"}, "http"),
    ],
)
def test_scheme(headers: dict[str, str], scheme: str) -> None:
    """The scheme of ``request.url`` is what the nearest proxy says, else http."""
    bench = Bench()
    bench.application.http_answer = NOTHING
    bench.ask("GET", "/http/x", headers=headers)
    assert bench.application.http_actions[-1].request.url == f"{scheme}://tests.example/x"


def test_headers_in() -> None:
    """Every header reaches the action, in Latin-1, duplicates apart."""
    bench = Bench()
    bench.application.http_answer = NOTHING
    connection = bench.connect()
    connection.send(
        b"GET /http/x HTTP/1.1\r\nHost: h\r\nX-A: caf\xe9\r\nX-B: 1\r\nX-B: 2\r\nAuthorization: Basic x\r\n\r\n"
    )
    headers = bench.application.http_actions[-1].request.headers
    assert ("x-a", "caf\u00e9") in headers
    assert [value for name, value in headers if name == "x-b"] == ["1", "2"]
    assert ("authorization", "Basic x") in headers


@pytest.mark.parametrize("site_port", [False, True])
@pytest.mark.parametrize("method", ["TRACE", "PROPFIND", "get"])
def test_method_not_allowed(site_port: bool, method: str) -> None:
    """Methods that HTTP actions cannot have are 405, and nothing runs."""
    bench = Bench(make_site_port) if site_port else Bench()
    answer = bench.ask(method, "/http/x")
    assert (answer.status, answer.headers["allow"]) == (405, "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT")
    assert bench.application.http_actions == []


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("Basic eHl6Og==", "InvalidAdminKey"),
        ("short", "InvalidHeaderFailure"),
        ("Bearer a.b.c", "NoAuthProvider"),
        ("Convex nonsense", "BadAdminKey"),
    ],
)
def test_unusable_credentials(value: str, code: str) -> None:
    """The action runs whatever ``Authorization`` holds; the error waits until somebody asks who calls."""
    bench = Bench()
    bench.application.http_answer = NOTHING
    bench.ask("GET", "/http/x", headers={"Authorization": value})
    identity = bench.application.http_actions[-1].identity
    assert identity.kind == "anonymous"
    assert identity.error is not None
    assert identity.error.code == code


def test_credentials() -> None:
    """A user's token gives the user, a key the admin, no header nobody; a query parameter ``adminKey`` is the action's own."""
    bench = Bench()
    bench.application.http_answer = NOTHING
    for headers in ({"Authorization": f"Bearer {GOOD_TOKEN}"}, {"Authorization": f"Convex {bench.key}"}, {}):
        bench.ask("GET", f"/http/x?adminKey={bench.key}", headers=headers)
    user, admin, nobody = [one.identity for one in bench.application.http_actions]
    assert user == USER
    assert admin.is_admin
    assert (nobody.kind, nobody.error) == ("anonymous", None)


def test_overloaded() -> None:
    """What was not run because too much runs is 503 with the code."""
    bench = Bench()
    bench.application.http_answer = Overloaded("TooManyConcurrentRequests", "Too many.")
    answer = bench.ask("GET", "/http/x")
    assert answer.error == (503, "TooManyConcurrentRequests")
    assert bench.in_flight == 0


# -- the request's body -------------------------------------------------------------------------------------------------------


def test_body_streams_in() -> None:
    """The action begins before the body is there, and gets each part as it comes."""
    _, connection, action = begin(head="Content-Length: 9\r\n", body=b"abc")
    assert (action.body, action.ended) == (b"abc", False)
    connection.send(b"def")
    assert (action.body, action.ended) == (b"abcdef", False)
    connection.send(b"ghi")
    assert (action.body, action.ended) == (b"abcdefghi", True)


def test_chunked_body() -> None:
    """Likewise for a body without a declared length."""
    _, connection, action = begin(head="Transfer-Encoding: chunked\r\n")
    assert action.body == b""
    connection.send(b"3\r\nabc\r\n")
    assert (action.body, action.ended) == (b"abc", False)
    connection.send(b"2\r\nde\r\n0\r\n\r\n")
    assert (action.body, action.ended) == (b"abcde", True)


def test_continue_comes_first() -> None:
    """``100 Continue`` is on the wire before any answer."""
    bench = Bench()
    bench.application.http_answer = HttpAnswer(500, "application/json", b"{}")
    _, connection, _ = begin(head="Expect: 100-continue\r\nContent-Length: 3\r\n", bench=bench)
    assert sent(connection).startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 ")


def test_back_pressure_in() -> None:
    """While the action has no room the socket is not read, and the connection does not time out for it."""
    bench, connection, action = begin(head="Content-Length: 100000\r\n")
    action.has_room = False
    connection.send(b"x" * 1000)
    assert connection.transport.producerState == "paused"
    bench.clock.advance(1000)
    assert not connection.transport.disconnecting
    action.has_room = True
    action.on_room()
    assert connection.transport.producerState == "producing"
    bench.clock.advance(301)
    assert connection.transport.disconnecting


def test_pause_lasts_while_the_socket_empties() -> None:
    """A send buffer that empties makes Twisted read again; the next part that comes stops it once more."""
    _, connection, action = begin(head="Content-Length: 100000\r\n")
    action.has_room = False
    connection.send(b"x")
    connection.protocol.resumeProducing()
    assert connection.transport.producerState == "producing"
    connection.send(b"y")
    assert connection.transport.producerState == "paused"


def test_declared_too_large() -> None:
    """A body that says it is over 20 MiB is 413 at once, and nothing runs."""
    bench, connection, action = begin(head=f"Content-Length: {HTTP_ACTION_BYTES + 1}\r\n")
    assert action is None
    answer = connection.answer()
    assert answer is not None
    assert answer.status == 413
    bench.clock.advance(LINGER_SECONDS)
    assert connection.transport.disconnecting


def test_grows_too_large() -> None:
    """A body that turns out to be over 20 MiB breaks off; an action that fails for it is 413."""
    _, connection, action = begin(head="Transfer-Encoding: chunked\r\n")
    part = b"100000\r\n" + bytes(0x100000) + b"\r\n"
    for _ in range(20):
        connection.send(part)
    assert action.failure is None
    connection.send(part)
    assert action.failure == f"The request body is over the limit of {HTTP_ACTION_BYTES} bytes."
    assert len(action.body) == HTTP_ACTION_BYTES
    action.over.callback(HttpAnswer(500, "application/json", b"{}"))
    answer = connection.answer()
    assert answer is not None
    assert answer.status == 413


def test_early_answer_keeps_the_connection() -> None:
    """An answer that does not wait for the body reaches the client; the rest of the body is no request, and the next request is answered."""
    bench = Bench()
    bench.application.http_answer = HttpAnswer(404, "text/plain", b"no")
    bench, connection, _ = begin(head="Content-Length: 10\r\n", body=b"GET /", bench=bench)
    first = connection.answer()
    assert first is not None
    assert (first.status, first.body) == (404, b"no")
    connection.send(b"hello")
    connection.send(b"GET /http/next HTTP/1.1\r\nHost: h\r\n\r\n")
    second = connection.answer()
    assert second is not None
    assert second.status == 404
    assert [one.request.path for one in bench.application.http_actions] == ["/x", "/next"]


def test_body_that_never_ends_after_the_answer() -> None:
    """A client that goes on and on after its answer loses the connection."""
    bench = Bench()
    bench.application.http_answer = HttpAnswer(404, "text/plain", b"no")
    bench, connection, _ = begin(head="Content-Length: 1000\r\n", bench=bench)
    bench.clock.advance(LINGER_SECONDS - 0.1)
    assert not connection.transport.disconnecting
    bench.clock.advance(0.2)
    assert connection.transport.disconnecting


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_bodies_of_get(method: str) -> None:
    """GET, HEAD and OPTIONS have no body, whatever the client sends."""
    bench = Bench()
    connection = bench.connect()
    connection.send(f"{method} /http/x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc".encode())
    bench.clock.advance(0)
    action = bench.application.http_actions[-1]
    assert (action.request.has_body, action.body, action.ended) == (False, b"", True)


# -- the response --------------------------------------------------------------------------------------------------------------


def respond(action: FakeHttpAction, *headers: tuple[str, str], status: int = 200) -> None:
    action.listener.response_head(status, headers)


def test_response_streams_out() -> None:
    """The head goes out at once and each part when it is made, in chunks without a declared length."""
    bench, connection, action = get()
    respond(action, ("content-type", "text/event-stream"))
    head = sent(connection)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nTransfer-Encoding: chunked\r\n" in head
    assert b"\r\nContent-Type: text/event-stream\r\n" in head
    action.listener.response_data(b"one")
    assert sent(connection) == head + b"3\r\none\r\n"
    assert action.taken_bytes == 3
    action.listener.response_end()
    assert sent(connection) == head + b"3\r\none\r\n0\r\n\r\n"
    assert bench.in_flight == 1, "the action may run on"
    action.over.callback(None)
    assert bench.in_flight == 0


def test_headers_out() -> None:
    """Duplicates stay apart; what belongs to the connection is dropped; ours with the same name give way."""
    _, connection, action = get()
    respond(
        action,
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("server", "mine"),
        ("x-latin", "caf\u00e9"),
        ("connection", "close"),
        ("transfer-encoding", "gzip"),
        ("bad name", "x"),
        ("access-control-allow-origin", "*"),
        status=201,
    )
    head = sent(connection)
    assert head.startswith(b"HTTP/1.1 201 ")
    assert b"\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n" in head
    assert head.count(b"Server:") == 1
    assert b"Server: mine" in head
    assert b"X-Latin: caf\xe9\r\n" in head
    assert b"Connection:" not in head
    assert head.count(b"ransfer-") == 1
    assert b"bad name" not in head
    assert b"Access-Control-Allow-Origin: *\r\n" in head


def test_content_length_is_honoured() -> None:
    """A declared length is kept: more is cut off, and the connection goes on."""
    bench, connection, action = get()
    respond(action, ("content-length", "4"))
    action.listener.response_data(b"fives")
    action.listener.response_end()
    assert sent(connection).endswith(b"\r\n\r\nfive")
    assert b"chunked" not in sent(connection)
    assert action.taken_bytes == 5
    action.over.callback(None)
    connection.transport.clear()
    bench.application.http_answer = NOTHING
    connection.send(b"GET /http/next HTTP/1.1\r\nHost: h\r\n\r\n")
    assert sent(connection).startswith(b"HTTP/1.1 404 ")


def test_too_short_for_its_length() -> None:
    """Less than was declared ends the connection: the client must not take it for everything."""
    _, connection, action = get()
    respond(action, ("content-length", "8"))
    action.listener.response_data(b"half")
    action.listener.response_end()
    assert connection.transport.disconnecting


def test_head_request() -> None:
    """HEAD gets the head of GET, its length included, and no byte of the body."""
    _, connection, action = get(method="HEAD")
    assert action.request.method == "HEAD"
    respond(action, ("content-length", "5"))
    action.listener.response_data(b"hello")
    action.listener.response_end()
    assert sent(connection).endswith(b"\r\n\r\n")
    assert b"Content-Length: 5\r\n" in sent(connection)
    assert not connection.transport.disconnecting


def test_back_pressure_out() -> None:
    """A full socket holds the response: nothing more is taken from the action until the client has read."""
    _, connection, action = get()
    respond(action)
    connection.protocol.pauseProducing()
    written = len(sent(connection))
    action.listener.response_data(b"x" * 1000)
    action.listener.response_data(b"y" * 1000)
    assert (len(sent(connection)), action.taken_bytes) == (written, 0)
    action.listener.response_end()
    connection.protocol.resumeProducing()
    assert action.taken_bytes == 2000
    assert sent(connection).endswith(b"\r\n0\r\n\r\n")


def test_stalled_client_is_cut_off() -> None:
    """A client that takes nothing for a minute loses its connection, and the action hears of it."""
    bench, connection, action = get()
    respond(action)
    connection.protocol.pauseProducing()
    bench.clock.advance(STALL_SECONDS - 1)
    connection.protocol.resumeProducing()
    bench.clock.advance(STALL_SECONDS)
    assert not connection.transport.disconnected
    connection.protocol.pauseProducing()
    action.listener.response_data(b"x" * 1000)
    bench.clock.advance(STALL_SECONDS)
    assert connection.transport.disconnected
    connection.lose()
    assert action.gone
    assert action.taken_bytes == 1000
    assert b"convex_http_action_stalled_total 1.0" in bench.ask("GET", "/metrics").body


def test_disconnect_before_the_head() -> None:
    """The action hears that the client is gone and runs on; what it says then goes nowhere."""
    bench, connection, action = get()
    connection.lose()
    assert action.gone
    assert bench.in_flight == 1
    action.over.callback(HttpAnswer(500, "application/json", b"{}"))
    assert bench.in_flight == 0


def test_disconnect_before_it_begins() -> None:
    """What waits for a place is not begun for a client that is gone."""
    bench, connection, action = get()
    action.has_begun = False
    connection.lose()
    assert bench.in_flight == 0


def test_disconnect_while_sending() -> None:
    """A body whose client goes away breaks off, and the signal aborts."""
    _, connection, action = begin(head="Content-Length: 100\r\n", body=b"abc")
    connection.lose()
    assert action.gone
    assert action.failure == "Client disconnected"


def test_stop_ends_what_runs() -> None:
    """A server that gives up waiting answers 503, and cuts a response that has begun."""
    bench = Bench()
    _, waiting, _ = get(bench=bench)
    _, streaming, action = get(bench=bench)
    respond(action)
    action.listener.response_data(b"x")
    bench.cloud.front.give_up()
    answer = waiting.answer()
    assert answer is not None
    assert answer.error == (503, "ServerStopping")
    assert streaming.transport.disconnecting
    assert not sent(streaming).endswith(b"0\r\n\r\n")
    assert bench.in_flight == 0


def test_metrics() -> None:
    """Bodies, disconnects and what is open are counted."""
    bench = Bench()
    _, _, action = begin(head="Content-Length: 3\r\n", body=b"abc", bench=bench)
    respond(action)
    action.listener.response_data(b"12345")
    text = bench.ask("GET", "/metrics").body.decode()
    assert "convex_http_actions_open 1.0" in text
    action.listener.response_end()
    action.over.callback(None)
    text = bench.ask("GET", "/metrics").body.decode()
    assert "convex_http_actions_open 0.0" in text
    assert 'convex_http_action_bytes_total{direction="in"} 3.0' in text
    assert 'convex_http_action_bytes_total{direction="out"} 5.0' in text
    assert 'convex_http_request_seconds_count{route="http_action"} 1.0' in text


def test_answers_are_json_as_specified() -> None:
    """A failure's JSON is passed on unchanged."""
    bench = Bench()
    body = json.dumps({"code": "[Request ID: x] Server Error: boom", "trace": "boom\n"}).encode()
    bench.application.http_answer = HttpAnswer(500, "application/json", body)
    answer = bench.ask("GET", "/http/x")
    assert (answer.status, answer.headers["content-type"], answer.body) == (500, "application/json", body)
