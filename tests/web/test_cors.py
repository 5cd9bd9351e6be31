"""CORS: every answer but those under ``/http`` can be read by the page that asked (``http_api.md`` section 2.4)."""

from __future__ import annotations

import pytest

from convex_backend.application.run_http_action import HttpAnswer
from convex_backend.web.site_port import make_site_port
from tests.web.support import Bench

ORIGIN = "https://app.example:8443"


@pytest.mark.parametrize(
    ("method", "target", "body", "status"),
    [
        ("POST", "/api/query", b'{"path":"a:b"}', 200),
        ("GET", "/api/query?path=a:b", None, 200),
        ("GET", "/version", None, 200),
        ("POST", "/api/query", b"{", 400),
        ("POST", "/api/function", b"{}", 403),
        ("POST", "/nope", b"", 404),
        ("PUT", "/api/query", b"", 405),
        ("POST", "/api/storage/upload", b"", 400),
        ("GET", "/%ff", None, 400),
        ("POST", "/api/query", b"x" * 16_800_000, 413),
        ("GET", "/metrics", None, 200),
    ],
)
def test_answers(method: str, target: str, body: bytes | None, status: int) -> None:
    """Success, every kind of error and unknown routes mirror the origin."""
    answer = Bench().ask(method, target, body, {"Origin": ORIGIN})
    assert answer.status == status
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "Origin" in answer.headers["vary"]


def test_without_origin() -> None:
    """Nobody who is not a page gets an origin, but caches learn that the answer depends on it."""
    answer = Bench().ask("GET", "/version")
    assert "access-control-allow-origin" not in answer.headers
    assert "access-control-allow-credentials" not in answer.headers
    assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize("target", ["/api/query", "//api/query", "/api/deploy2/start_push", "/nope", "/"])
def test_preflight(target: str) -> None:
    """A preflight is answered without credentials: any origin, the headers that were asked for, all methods, one day."""
    headers = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,convex-client,x-mine",
    }
    answer = Bench().ask("OPTIONS", target, None, headers)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["access-control-allow-headers"] == "authorization,convex-client,x-mine"
    methods = set(answer.headers["access-control-allow-methods"].split(", "))
    assert methods == {"GET", "POST", "OPTIONS", "PATCH", "DELETE", "PUT"}
    assert answer.headers["access-control-max-age"] == "86400"
    assert "vary" in answer.headers


@pytest.mark.parametrize(
    ("site_port", "target"), [(False, "/http/x"), (False, "/http"), (True, "/x"), (True, "/api/query")]
)
@pytest.mark.parametrize("method", ["OPTIONS", "GET"])
def test_http_actions(site_port: bool, target: str, method: str) -> None:
    """Under ``/http`` and on the site port nothing is added, and OPTIONS reaches the user's router."""
    bench = Bench(make_site_port) if site_port else Bench()
    bench.application.http_answer = HttpAnswer(404, "text/plain; charset=utf-8", b"No matching routes found")
    answer = bench.ask(method, target, None, {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"})
    assert (answer.status, answer.body) == (404, b"No matching routes found")
    assert [action.request.method for action in bench.application.http_actions] == [method]
    assert not any(name.startswith("access-control") or name == "vary" for name in answer.headers)
