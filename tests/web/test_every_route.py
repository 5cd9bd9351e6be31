"""What holds for every route of the route table, whoever adds one: bad JSON, no key, a wrong key, too large, gone in the middle, CORS.

Good input for each of them is in ``tests/e2e/test_every_route.py``, against a real server.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from convex_backend.web import limits
from convex_backend.web.limits import STREAMED
from convex_backend.web.route_table import TableRoute
from convex_backend.web.routes import FAMILIES
from convex_backend.web.routing import Auth
from tests.web.support import Bench, Connection

ORIGIN = {"Origin": "https://page.example"}
#: Two methods on one path are two cases; HEAD is GET.
ROUTES: dict[str, TableRoute] = {}
for _family in FAMILIES:
    for _route in _family.app.routes:
        ROUTES.setdefault(f"{_route.methods[0]} {_route.path}", _route)
WITH_BODY = {name: route for name, route in ROUTES.items() if route.methods[0] != "GET"}
WITH_JSON = [name for name, route in ROUTES.items() if route.json_body]
FOR_ADMINS = [name for name, route in ROUTES.items() if route.auth == Auth.ADMIN.value]
WITH_CREDENTIALS = [name for name, route in ROUTES.items() if route.auth != Auth.NONE.value]


def split(name: str) -> tuple[str, str]:
    """Method and a target of a route: variable parts are filled in."""
    method, path = name.split(" ")
    while "<" in path:
        head, _, rest = path.partition("<")
        path = f"{head}some/thing{rest.partition('>')[2]}"
    return method, path


def collected(name: str) -> bool:
    """Whether the body is collected before the route sees it."""
    return not split(name)[1].encode().startswith(STREAMED)


def reached(bench: Bench) -> list[Any]:
    """Everything that came through to the application."""
    application = bench.application
    return [
        *application.calls,
        *application.deploy.calls,
        *application.environment.updates,
        *application.rollbacks.calls,
    ]


def test_the_table_is_whole() -> None:
    """The lists below are not empty by mistake."""
    assert len(ROUTES) > 60
    assert {"POST /api/query", "POST /api/deploy", "GET /version"} <= set(ROUTES)
    assert len(WITH_JSON) > 15
    assert len(FOR_ADMINS) > 15


@pytest.mark.parametrize("name", WITH_JSON)
@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe\x00", b'{"a":1}x'])
def test_bad_json(name: str, body: bytes) -> None:
    """A body that is not JSON is 400 and reaches nothing."""
    bench = Bench()
    assert bench.admin(*split(name), body).error == (400, "BadJsonBody")
    assert reached(bench) == []


@pytest.mark.parametrize("name", FOR_ADMINS)
def test_no_key(name: str) -> None:
    """A route for admins is 403 for nobody and for a user, before its body means anything; both may read why from another origin."""
    bench = Bench()
    method, path = split(name)
    for more in ({}, {"Authorization": "Bearer good.user.token"}):
        answer = bench.ask(method, path, None if method == "GET" else b"{}", {**ORIGIN, **more})
        assert answer.error == (403, "BadDeployKey")
        assert answer.headers["access-control-allow-origin"] == ORIGIN["Origin"]
    assert reached(bench) == []


@pytest.mark.parametrize("name", WITH_CREDENTIALS)
def test_wrong_key(name: str) -> None:
    """A wrong key is 401 wherever it is shown, even where none is needed."""
    bench = Bench()
    method, path = split(name)
    body = None if method == "GET" else b"{}"
    for key in ("tests|00", f"other|{bench.key.partition('|')[2]}", bench.key[:-1]):
        assert bench.ask(method, path, body, {"Authorization": f"Convex {key}"}).error == (401, "BadAdminKey")
    assert bench.ask(method, f"{path}?adminKey=nope", body).error == (401, "BadAdminKey")
    if name in WITH_JSON:
        assert bench.ask(method, path, {"adminKey": "nope"}).error == (401, "BadAdminKey")
    assert reached(bench) == []


@pytest.mark.parametrize("name", [name for name in WITH_BODY if collected(name)])
def test_too_large(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body over the route's cap is 413 and reaches nothing, also one that does not say its size; the connection goes on."""
    monkeypatch.setattr(limits, "BODY_CAPS", ())
    monkeypatch.setattr(limits, "SMALL_BYTES", 1000)
    bench = Bench()
    method, path = split(name)
    connection = bench.connect()
    connection.send(bench.head(method, path, {"Authorization": f"Convex {bench.key}"}, 1001) + b"[" + b"1," * 500)
    check_too_large(connection)
    connection.send(
        bench.head(method, path, {**ORIGIN, "Transfer-Encoding": "chunked"}, None) + b"3e9\r\n" + b"x" * 1001
    )
    connection.send(b"\r\n0\r\n\r\n")
    check_too_large(connection)
    connection.send(bench.head("GET", "/version", {}, None))
    after = connection.answer()
    assert after is not None
    assert after.status == 200
    assert reached(bench) == []


def check_too_large(connection: Connection) -> None:
    answer = connection.answer()
    assert answer is not None
    assert answer.error == (413, "RequestTooLarge")


@pytest.mark.parametrize("name", ROUTES)
def test_gone_in_the_middle(name: str) -> None:
    """A client that goes away within head or body leaves no request behind and nothing in the log."""
    bench = Bench()
    method, path = split(name)
    head = bench.head(method, path, {"Authorization": f"Convex {bench.key}"}, None if method == "GET" else 100)
    with capturedLogs() as events:
        for sent in (head[: len(head) // 2], head[:-1], *((head + b'{"a":', head) if name in WITH_BODY else ())):
            connection = bench.connect()
            connection.send(sent)
            connection.lose()
            bench.clock.advance(1)
    assert bench.in_flight == 0
    assert reached(bench) == []
    assert [event for event in events if "log_failure" in event] == []


@pytest.mark.parametrize("name", ROUTES)
def test_gone_while_it_is_answered(name: str) -> None:
    """A client that goes away while its request is being worked on ends the work; nothing is logged or counted on."""
    bench = Bench()
    waiting: Deferred[Any] = Deferred()
    application = bench.application
    application.answer = application.deploy.answer = waiting
    connection = bench.begin(
        *split(name),
        None if name.startswith("GET") else {"args": {}, "path": "a:b"},
        {"Authorization": f"Convex {bench.key}"},
    )
    with capturedLogs() as events:
        connection.lose()
    bench.clock.advance(1)
    assert bench.in_flight == 0
    assert [event for event in events if "log_failure" in event] == []


@pytest.mark.parametrize("name", ROUTES)
def test_preflight(name: str) -> None:
    """A page of any origin may ask any of our routes; the question is answered without looking at credentials."""
    bench = Bench()
    method, path = split(name)
    wanted = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization, convex-client"}
    answer = bench.ask("OPTIONS", path, None, {**ORIGIN, **wanted, "Authorization": "Convex wrong|00"})
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["access-control-allow-origin"] == ORIGIN["Origin"]
    assert answer.headers["access-control-allow-headers"] == "authorization, convex-client"
    assert method in answer.headers["access-control-allow-methods"]
    assert reached(bench) == []


def test_a_fault_of_ours_has_an_id() -> None:
    """The fixed text tells nothing, the header names the request, and so does the log."""
    bench = Bench()
    bench.application.answer = RuntimeError("secret")
    with capturedLogs() as events:
        answer = bench.ask("POST", "/api/query", {"path": "a:b"}, {"Convex-Request-Id": "abc123"})
    assert answer.error == (500, "InternalServerError")
    assert b"secret" not in answer.body
    assert answer.headers["convex-request-id"] == "abc123"
    (event,) = [event for event in events if "log_failure" in event]
    assert event["request_id"] == "abc123"
