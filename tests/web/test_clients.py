"""``Convex-Client`` and ``Convex-Request-Id`` (``http_api.md`` section 2.3)."""

from __future__ import annotations

import re

import pytest

from convex_backend.application.types import Caller
from convex_backend.errors import BadRequest
from convex_backend.web.clients import parse_client
from convex_backend.web.public_api import default_format
from tests.web.support import Bench

QUERY = {"path": "messages:list", "args": [{}]}


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (b"npm-1.48.0", ("npm", "1.48.0")),
        (b"npm-cli-1.48.0", ("npm-cli", "1.48.0")),
        (b"python-0.7.0", ("python", "0.7.0")),
        (b"python-convex-0.7.0", ("python", "0.7.0")),
        (b"streaming-import-1.0.0", ("streaming-import", "1.0.0")),
        (b"Rust-0.10.4", ("rust", "0.10.4")),
        (b"npm-1.48.0-alpha.1", ("npm", "1.48.0-alpha.1")),
        (b"npm-1.48.0+build-1.2.3", ("npm", "1.48.0+build-1.2.3")),
        (b"my-own-thing-0.0.1", ("my-own-thing", "0.0.1")),
    ],
)
def test_client_names(header: bytes, client: tuple[str, str]) -> None:
    """The name is split off at the first ``-`` whose rest is a version; unknown names are fine."""
    assert parse_client(header) == client


@pytest.mark.parametrize(
    "header", [b"npm", b"npm-latest", b"", b"npm-1.2", b"\xff-1", b"x" * 200 + b"-1.0.0", b"a-" + b"9" * 20 + b".0.0"]
)
def test_bad_client(header: bytes) -> None:
    """What names no version is 400 ``InvalidClientVersion``."""
    with pytest.raises(BadRequest) as caught:
        parse_client(header)
    assert caught.value.code == "InvalidClientVersion"


def test_bad_client_over_http() -> None:
    """The error reaches the client as JSON, before anything runs."""
    bench = Bench()
    assert bench.ask("POST", "/api/query", QUERY, {"Convex-Client": "npm"}).error == (400, "InvalidClientVersion")
    assert bench.application.calls == []


@pytest.mark.parametrize(
    "header", ["npm-0.19.1", "npm-cli-0.19.1", "npm-cli-0.1.0", "python-0.0.2", "rust-0.0.1", "npm-0.19.1-beta"]
)
def test_old_client(header: str) -> None:
    """A client that is too old gets 400 with the headers that make it say so."""
    answer = Bench().ask("POST", "/api/query", QUERY, {"Convex-Client": header})
    assert answer.error == (400, "ClientVersionUnsupported")
    assert answer.headers["x-convex-deprecation-state"] == "Unsupported"
    assert answer.headers["x-convex-deprecation-message"] == answer.json["message"]


@pytest.mark.parametrize("header", ["npm-0.19.2", "npm-cli-1.48.0", "python-0.0.3", "swift-0.0.1"])
def test_newer_client(header: str) -> None:
    """Newer and unknown clients are served, and never see a deprecation header."""
    answer = Bench().ask("POST", "/api/query", QUERY, {"Convex-Client": header})
    assert answer.status == 200
    assert not any(name.startswith("x-convex") for name in answer.headers)


@pytest.mark.parametrize(
    ("client", "version", "form"),
    [
        ("npm", "1.4.0", "convex_encoded_json"),
        ("npm", "1.4.1-alpha", "convex_encoded_json"),
        ("npm", "1.4.1", "json"),
        ("npm-cli", "1.4.0", "convex_encoded_json"),
        ("npm-cli", "1.48.0", "json"),
        ("actions", "1.0.0", "convex_encoded_json"),
        ("python", "0.4.9", "convex_encoded_json"),
        ("python", "0.5.0", "json"),
        ("rust", "0.1.0", "json"),
        ("unknown", None, "json"),
    ],
)
def test_default_format(client: str, version: str | None, form: str) -> None:
    """Old clients expect the lossless form when they name none."""
    assert default_format(Caller("HttpApi", client, version, "id")) == form


def test_caller() -> None:
    """The application learns the client, its address and its request id."""
    bench = Bench()
    headers = {"Convex-Client": "npm-1.48.0", "Convex-Request-Id": "abc-1", "User-Agent": "node", "traceparent": "junk"}
    bench.ask("POST", "/api/query", QUERY, headers)
    assert bench.last_call.caller == Caller("HttpApi", "npm", "1.48.0", "abc-1", "192.0.2.7", "node")


@pytest.mark.parametrize("given", [None, "", "with space", "x" * 65, "\xe9"])
def test_request_id_is_made(given: str | None) -> None:
    """Without a usable request id one is made, another for each request."""
    bench = Bench()
    headers = {} if given is None else {"Convex-Request-Id": given}
    bench.ask("POST", "/api/query", QUERY, headers)
    first = bench.last_call.caller.request_id
    bench.ask("POST", "/api/query", QUERY, headers)
    assert re.fullmatch("[0-9a-f]{16}", first)
    assert bench.last_call.caller.request_id != first
