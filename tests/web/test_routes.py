"""Which request goes where: paths, methods, what is unknown and what is known but not there (``http_api.md`` sections 1, 2.2, 6)."""

from __future__ import annotations

import json

import pytest
from twisted.logger import capturedLogs

from convex_backend.web.admin_api import NOT_YET
from convex_backend.web.meta import BANNER
from convex_backend.web.routes import make_routes
from tests.web.support import Bench

GETS = {
    "/": BANNER,
    "/version": b"1.2.3",
    "/instance_version": b"1.2.3",
    "/instance_name": b"tests",
}


@pytest.mark.parametrize("path", GETS)
def test_meta(path: str) -> None:
    """Routes about the server answer text to anyone."""
    answer = Bench().ask("GET", path)
    assert (answer.status, answer.body) == (200, GETS[path])
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("path", [*GETS, "/api/check_admin_key", "/metrics"])
def test_head(path: str) -> None:
    """HEAD is GET without the body."""
    bench = Bench()
    head = bench.admin("HEAD", path)
    whole = bench.admin("GET", path)
    assert (head.status, head.body) == (200, b"")
    if path != "/metrics":
        assert head.headers["content-length"] == str(len(whole.body))
    assert head.headers["content-type"] == whole.headers["content-type"]


@pytest.mark.parametrize("size", [0, 128, 4 * 1024 * 1024])
def test_echo(size: int) -> None:
    """``/echo`` gives the body back, whatever it is."""
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert Bench().ask("POST", "/echo", body).body == body


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/nope"),
        ("POST", "/nope"),
        ("POST", "/api/nope"),
        ("POST", "/api//query"),
        ("POST", "/api"),
        ("GET", "/get_backend_info"),
        ("POST", "/api/deploy2"),
        ("POST", "/api/deploy2/nope"),
        ("GET", "/httpx"),
        ("GET", "/.well-known/openid-configuration"),
    ],
)
def test_unknown(method: str, target: str) -> None:
    """An unknown route is a bare 404: no body, no type, no redirect."""
    answer = Bench().admin(method, target, b"" if method == "POST" else None)
    assert (answer.status, answer.body) == (404, b"")
    assert "content-type" not in answer.headers
    assert "location" not in answer.headers


def test_the_key_set() -> None:
    """Section 1: the public keys behind `signJwt`, for anybody, and for a while from a cache."""
    answer = Bench().ask("GET", "/.well-known/jwks.json")
    assert (answer.status, answer.json) == (200, {"keys": [{"kid": "k1"}]})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "public, max-age=300"


@pytest.mark.parametrize(
    ("method", "target"), [("GET", "/api/mutation"), ("PUT", "/api/query"), ("DELETE", "/version"), ("POST", "/")]
)
def test_wrong_method(method: str, target: str) -> None:
    """A known route under another method is a bare 405, which clients do not retry."""
    answer = Bench().ask(method, target, None if method == "GET" else b"")
    assert (answer.status, answer.body) == (405, b"")


@pytest.mark.parametrize("target", ["//api/query", "///api/query", "/api/query/", "/api/query?x=1"])
def test_slashes(target: str) -> None:
    """Doubled slashes before the path, one after it, and a query string make no difference."""
    assert Bench().ask("POST", target, {"path": "a:b"}).status == 200


@pytest.mark.parametrize("target", ["/api/sync", "/api/1.48.0/sync", "//api/1.48.0/sync", "/api/1.48.0-alpha.1/sync"])
def test_sync(target: str) -> None:
    """Both addresses of the live socket go to its resource, with the target as it was sent."""
    assert Bench().ask("GET", target).body == b"sync " + target.encode()


@pytest.mark.parametrize("target", ["/api/1.48.0/x/sync", "/sync", "/api/sync/x"])
def test_not_sync(target: str) -> None:
    """Nothing else does."""
    assert Bench().ask("GET", target).status == 404


NOT_YET_ROUTES = [(service, *route) for service, routes in NOT_YET.items() for route in routes]


@pytest.mark.parametrize(("service", "method", "path"), NOT_YET_ROUTES)
def test_not_yet(service: str, method: str, path: str) -> None:
    """A known route without a service is 400 JSON that names the service: a 404 would make the CLI retry for half a minute."""
    bench = Bench()
    target = path.replace("<path:rest>", "some/thing")
    body = None if method == "GET" else json.dumps({"adminKey": bench.key}).encode()
    for answer in (bench.admin(method, target, body), bench.ask(method, target, body)):
        assert answer.error == (400, "NotAvailable")
        assert service in answer.json["message"]


def test_not_yet_with_a_wrong_key() -> None:
    """A wrong key is said to be wrong first, so that a user mends that first."""
    answer = Bench().ask("POST", "/api/import/start_upload", b"", {"Authorization": "Convex tests|00"})
    assert answer.error == (401, "BadAdminKey")


def test_unsupported_v1_route() -> None:
    """Any route below ``/api/v1`` that is not ours is 400 JSON."""
    bench = Bench()
    assert bench.admin("GET", "/api/v1/list_usage_limits").error == (400, "NotAvailable")
    assert bench.admin("POST", "/api/v1/create_log_stream", {}).error == (400, "NotAvailable")
    assert bench.admin("GET", "/api/v1/deployment_info").status == 200


def test_fixed_routes_are_the_routes_of_the_map() -> None:
    """The look-up by path holds every route without a variable part, and finds what the map would find."""
    bench = Bench()
    routes = make_routes(bench.cloud.front)
    rules = [rule for rule in routes.matched._klein._app.url_map.iter_rules() if "<" not in rule.rule]
    assert set(routes.fixed) == {(method.encode(), rule.rule.encode()) for rule in rules for method in rule.methods}
    # A slash at the end misses the look-up and goes through the map.
    for method, path in routes.fixed:
        if path != b"/" and method == b"GET":
            direct = bench.admin("GET", path.decode() + "?cursor=0")
            mapped = bench.admin("GET", path.decode() + "/?cursor=0")
            assert direct.status == mapped.status
            if path != b"/metrics":
                assert direct.body == mapped.body


def test_a_request_finishes_the_map_that_is_being_made() -> None:
    """The map is made a step at a time; whoever needs it earlier makes the rest, and then nothing is left to do."""
    bench = Bench()
    steps = bench.cloud.prepare()
    for _ in range(4):
        next(steps)
    assert bench.ask("POST", "/api/nope", b"").status == 404
    assert bench.ask("POST", "/api/query/", {"path": "a:b"}).status == 200
    assert list(steps) == []


@pytest.mark.parametrize(
    "head",
    [
        b"GET /%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /nope HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
        b"GET /nope HTTP/1.1\r\nHost: " + b"a" * 300 + b"\r\n\r\n",
        b"GET /nope HTTP/1.1\r\nHost: a..b\r\n\r\n",
        b"G\xffT /nope HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_malformed_head(head: bytes) -> None:
    """A head that makes no sense is 4xx and leaves nothing in the log."""
    connection = Bench().connect()
    with capturedLogs() as events:
        connection.send(head)
    status = int(connection.transport.value().split(b" ")[1])
    assert 400 <= status < 500
    assert not [event for event in events if "log_failure" in event or event.get("isError")]
