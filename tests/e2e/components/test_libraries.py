"""Libraries from npm: convex-helpers (with zod and hono) and convex-ents."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.components.conftest import deployed, until
from tests.e2e.harness import Server

pytestmark = pytest.mark.slow

APP = "https://app.example"


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The app ``libraries``, deployed."""
    with deployed(tmp_path_factory, "libraries") as server:
        yield server


@pytest.fixture(scope="module")
def authors(libraries: Server) -> list[str]:
    """Ids of the authors A (verified, three messages), B (not verified, two) and C (verified, two)."""
    people = [("A", True, ["a1", "a2", "a3"]), ("B", False, ["b1", "b2"]), ("C", True, ["c1", "c2"])]
    args = {"authors": [{"name": name, "verified": good, "texts": texts} for name, good, texts in people]}
    ids: list[str] = libraries.value("mutation", "helpers:seed", args)
    return ids


def site(server: Server, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, bytes]:
    """A request to the site port. :returns: status, headers, body."""
    request = urllib.request.Request(f"http://127.0.0.1:{server.site_port}{path}", data=body, method=method)
    for name, value in headers.items():
        request.add_header(name.replace("_", "-"), value)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


# -- convex-helpers -------------------------------------------------------------------------------------


def test_triggers_and_relationships(libraries: Server, authors: list[str]) -> None:
    """Triggers keep a count in the transaction of each change; relationship helpers follow indexes over join tables."""
    assert len(authors) == 3
    before = libraries.value("query", "helpers:total")
    libraries.value("mutation", "helpers:removeOne")
    assert (before, libraries.value("query", "helpers:total")) == (7, 6)
    assert libraries.value("query", "helpers:relations", {"name": "A"}) == {
        "author": {"name": "A", "verified": True},
        "texts": ["a2", "a3"],
        "followed": ["B"],
    }
    missing = libraries.call("query", "helpers:relations", {"name": "nobody"})
    assert missing["status"] == "error"


def test_paginator_and_filter(libraries: Server, authors: list[str]) -> None:
    """``paginator`` walks tables and index ranges page by page with cursors of its own; ``filter`` takes any JavaScript."""
    texts: list[str] = []
    cursor: str | None = None
    while True:
        page = libraries.value("query", "helpers:pages", {"opts": {"numItems": 4.0, "cursor": cursor}})
        texts += page["page"]
        if page["isDone"]:
            break
        cursor = page["continueCursor"]
    assert texts[:4] == ["c2", "c1", "b2", "b1"]
    one = libraries.value("query", "helpers:pages", {"opts": {"numItems": 1.0, "cursor": None}, "author": authors[1]})
    assert (one["page"], one["isDone"]) == (["b2"], False)
    assert libraries.value("query", "helpers:filtered", {"text": "2"}) == ["a2", "b2", "c2"]


def test_streams(libraries: Server, authors: list[str]) -> None:
    """Merged and filtered streams come in one order, in pages; a join gives what the other table adds."""
    opts: dict[str, Any] = {"numItems": 2.0, "cursor": None}
    first = libraries.value("query", "helpers:merged", {"authors": authors, "opts": opts})
    assert (first["page"], first["isDone"]) == (["c2", "c1"], False)
    opts["cursor"] = first["continueCursor"]
    second = libraries.value("query", "helpers:merged", {"authors": authors, "opts": opts})
    assert second["page"][0] == "a3"
    joined = libraries.value("query", "helpers:joined", {"name": "B"})
    assert joined == ["B: b2", "B: b1", "C: c2", "C: c1"]


def test_row_level_security_and_sessions(libraries: Server, authors: list[str]) -> None:
    """A wrapped reader hides what its rules forbid; a session id names the same visitor in each call."""
    assert libraries.value("query", "helpers:visible", {"id": authors[0]})[0] is True
    exists, count = libraries.value("query", "helpers:visible", {"id": authors[1]})
    assert exists is False
    assert count >= 2
    assert [libraries.value("mutation", "helpers:visit", {"sessionId": "one"}) for _ in range(2)] == [1, 2]
    assert libraries.value("mutation", "helpers:visit", {"sessionId": "two"}) == 1


def test_validation_by_zod(libraries: Server) -> None:
    """Arguments are checked and completed by zod; what does not fit is a ``ConvexError`` with zod's issues."""
    assert libraries.value("mutation", "helpers:zoddy", {"email": "X@Y.com"}) == {"email": "x@y.com", "count": 3}
    answer = libraries.call("mutation", "helpers:zoddy", {"email": "nope", "count": 0.0})
    assert answer["status"] == "error"
    assert [issue["path"] for issue in answer["errorData"]["ZodError"]] == [["email"], ["count"]]
    assert "ArgumentValidationError" in libraries.call("mutation", "helpers:zoddy", {"email": 3.0})["errorMessage"]


def test_crud_limits_and_retries(libraries: Server) -> None:
    """Generated functions create, read, update and delete; ``rateLimit`` stops at its rate; ``runWithRetries`` tries until it works."""
    created = libraries.value("mutation", "helpers:create", {"name": "D", "verified": True})
    assert libraries.value("query", "helpers:whole", {"name": "D"}) == created
    libraries.value("mutation", "helpers:update", {"id": created["_id"], "patch": {"verified": False}})
    assert libraries.value("query", "helpers:read", {"id": created["_id"]})["verified"] is False
    libraries.value("mutation", "helpers:destroy", {"id": created["_id"]})
    assert libraries.value("query", "helpers:read", {"id": created["_id"]}) is None
    assert [libraries.value("mutation", "helpers:limited", {"key": "k"}) for _ in range(3)] == [True, True, False]
    libraries.value("action", "helpers:start", {"key": "retried"})
    until(lambda: libraries.value("query", "helpers:attempts", {"key": "retried"}), lambda count: count == 3)


def test_hono_and_cors(libraries: Server, authors: list[str]) -> None:
    """Requests are routed by hono, with parameters and calls of functions; the CORS router answers preflights and adds headers."""
    status, _, body = site(libraries, "GET", "/authors/A?q=1")
    assert (status, json.loads(body)) == (200, {"name": "A", "query": "1"})
    assert site(libraries, "GET", "/authors/nobody")[0] == 404
    status, headers, body = site(libraries, "POST", "/echo", b"hello")
    assert (status, headers["x-by"], body) == (201, "hono", b"HELLO")
    status, headers, _ = site(libraries, "OPTIONS", "/shared", Origin=APP, Access_Control_Request_Method="GET")
    assert (status, headers["access-control-allow-methods"]) == (204, "GET")
    status, headers, body = site(libraries, "GET", "/shared", Origin=APP)
    assert (status, headers["access-control-allow-origin"], body) == (200, APP, b"shared")
    assert site(libraries, "GET", "/shared", Origin="https://other.example")[1]["access-control-allow-origin"] is None


# -- convex-ents ----------------------------------------------------------------------------------------


def test_ents(libraries: Server) -> None:
    """Unique fields, edges one to one, one to many, many to many and to the same table are written and followed; pages; deletion."""
    for name in ("Ann", "Bob", "Cid"):
        args = {"name": name, "email": f"{name}@x", "bio": f"bio of {name}"}
        assert libraries.value("mutation", "ents:addUser", args) == "writer"
    again = libraries.call("mutation", "ents:addUser", {"name": "Bob", "email": "Bob@x", "bio": ""})
    assert 'cannot create a duplicate document with field "email" of value `Bob@x`' in again["errorMessage"]
    first = libraries.value("mutation", "ents:post", {"email": "Ann@x", "text": "first", "tags": ["t1", "t2"]})
    libraries.value("mutation", "ents:post", {"email": "Ann@x", "text": "second", "tags": ["t1"]})
    libraries.value("mutation", "ents:follow", {"from": "Bob@x", "to": "Ann@x"})
    assert libraries.value("query", "ents:show", {"email": "Ann@x"}) == {
        "bio": "bio of Ann",
        "posts": [["first", "t1", "t2"], ["second", "t1"]],
        "followers": ["Bob"],
        "followees": [],
        "deleted": False,
    }
    assert libraries.value("query", "ents:show", {"email": "Bob@x"})["followees"] == ["Ann"]
    libraries.value("mutation", "ents:retag", {"id": first, "remove": "t2"})
    assert libraries.value("query", "ents:tagged", {"name": "t1"}) == ["first!", "second"]
    assert libraries.value("query", "ents:tagged", {"name": "t2"}) == []
    page = libraries.value("query", "ents:page", {"cursor": None})
    assert (page["names"], page["isDone"]) == (["Cid", "Bob"], False)
    assert libraries.value("query", "ents:page", {"cursor": page["continueCursor"]})["names"] == ["Ann"]
    libraries.value("mutation", "ents:deleteUser", {"email": "Bob@x"})
    assert libraries.value("query", "ents:show", {"email": "Bob@x"})["deleted"] is True
    libraries.value("mutation", "ents:deletePost", {"id": first})
    until(lambda: libraries.value("query", "ents:countPosts"), lambda count: count == 1)
    assert libraries.value("query", "ents:tagged", {"name": "t1"}) == ["second"]
