"""Actions of the default runtime in a real server: fetch, timers, imports, what runs at once, what is left behind (``runtime.md`` 6.2, 9.3)."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.e2e.harness import ADMIN_KEY, Server
from tests.e2e.raw_http import eventually
from tests.e2e.upstream import TEXT, Upstream


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


def fetched(server: Server, url: str, **init: Any) -> Any:
    """What came of ``fetch(url, init)``: ``{value}``, or ``{name, message}`` of the error."""
    return server.value("action", "actions:get", {"url": url, "init": init} if init else {"url": url})


def log_of(server: Server, identifier: str) -> list[dict[str, Any]]:
    _, _, body = server.request(
        "GET",
        "/api/stream_function_logs?cursor=1",
        None,
        {"Authorization": f"Convex {ADMIN_KEY}", "Convex-Client": "npm-cli-1.48.0"},
    )
    return [one for one in json.loads(body)["entries"] if one["identifier"] == identifier]


def test_fetch_sends_what_it_was_given(actions: Server, upstream: Upstream) -> None:
    """Method, headers and body arrive; status, headers, URL and body of the response come back."""
    answer = fetched(
        actions, f"{upstream.url}/show?a=1#part", method="PUT", headers={"X-Mine": "yes"}, body="some \u20ac"
    )["value"]
    head, _, body = answer["text"].partition("\n\n")
    assert head.startswith("PUT /show?a=1\n")
    assert "\nx-mine: yes" in head
    assert "\ncontent-type: text/plain;charset=UTF-8" in head
    assert "\ncontent-length: 8" in head
    assert body == "some \u20ac"
    assert answer["headers"]["x-upstream"] == "yes"
    assert (answer["status"], answer["type"], answer["redirected"]) == (200, "basic", False)
    assert answer["url"] == f"{upstream.url}/show?a=1"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_fetch_unpacks(actions: Server, upstream: Upstream, coding: str) -> None:
    """A packed body arrives unpacked, without the headers that described the packed one."""
    answer = fetched(actions, f"{upstream.url}/{coding}")["value"]
    assert answer["text"] == TEXT
    assert not {"content-encoding", "content-length"} & set(answer["headers"])


@pytest.mark.parametrize(
    ("status", "method", "arrives"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "PUT", "GET"),
        (301, "PUT", "PUT"),
        (307, "POST", "POST"),
        (308, "POST", "POST"),
    ],
)
def test_fetch_follows_redirects(actions: Server, upstream: Upstream, status: int, method: str, arrives: str) -> None:
    """303, and 301 and 302 of a POST, become GET without a body; the others are sent again as they were."""
    answer = fetched(actions, f"{upstream.url}/redirect/{status}", method=method, body="again")["value"]
    assert answer["text"].startswith(f"{arrives} /show\n")
    assert answer["text"].endswith("\n\n" + ("again" if arrives != "GET" else ""))
    assert (answer["redirected"], answer["url"]) == (True, f"{upstream.url}/show")


def test_fetch_redirect_modes(actions: Server, upstream: Upstream) -> None:
    """``manual`` gives the redirect as it is, ``error`` fails, 20 redirects are followed and a 21st is not."""
    manual = fetched(actions, f"{upstream.url}/redirect/302", redirect="manual")["value"]
    assert (manual["status"], manual["headers"]["location"], manual["text"]) == (302, "/show", "moved")
    assert fetched(actions, f"{upstream.url}/redirect/302", redirect="error") == {
        "name": "Error",
        "message": "fetch attempted redirect",
    }
    assert fetched(actions, f"{upstream.url}/many/20")["value"]["status"] == 200
    assert fetched(actions, f"{upstream.url}/many/21") == {"name": "Error", "message": "fetch too many redirects"}
    assert "message" in fetched(actions, f"{upstream.url}/nowhere")


def test_fetch_keeps_credentials_at_home(actions: Server, upstream: Upstream) -> None:
    """``Authorization`` does not follow a redirect to another origin; other headers do."""
    sent = {"Authorization": "Bearer secret", "X-Mine": "yes"}
    near = fetched(actions, f"{upstream.url}/redirect/307", headers=sent)["value"]["text"]
    assert "authorization: Bearer secret" in near
    far = fetched(actions, f"{upstream.url}/away", headers=sent)["value"]["text"]
    assert "authorization" not in far
    assert "x-mine: yes" in far


def test_fetch_failures(actions: Server, upstream: Upstream) -> None:
    """Texts of what cannot be fetched."""
    assert fetched(actions, "ftp://example.com/") == {"name": "TypeError", "message": "Unsupported URL scheme"}
    assert fetched(actions, "/relative") == {"name": "TypeError", "message": "Invalid URL"}
    closed = fetched(actions, "http://127.0.0.1:1/")
    assert closed["name"] == "Error"
    assert "ECONNREFUSED" in closed["message"]
    unknown = fetched(actions, "http://name.invalid/")
    assert unknown["message"].startswith("dns error: failed to lookup address information")
    assert fetched(actions, f"{upstream.url}/broken")["name"] == "Error"
    assert fetched(actions, f"{upstream.url}/missing")["value"]["status"] == 404
    assert fetched(actions, f"{upstream.url}/empty")["value"] | {"headers": {}} == {
        "status": 204,
        "url": f"{upstream.url}/empty",
        "redirected": False,
        "type": "basic",
        "headers": {},
        "text": "",
    }


def test_fetch_streams_both_ways(actions: Server, upstream: Upstream) -> None:
    """8 MiB go out in parts and come back while they go: the head is there before the body has been sent."""
    answer = actions.value("action", "actions:duplex", {"url": f"{upstream.url}/echo", "chunks": 128, "size": 65536})
    assert answer["status"] == 200
    assert answer["madeAtHead"] < 128
    assert (answer["made"], answer["received"]) == (128, 128 * 65536)


def test_streamed_body_is_not_redirected(actions: Server, upstream: Upstream) -> None:
    """A body that has been streamed cannot be sent again."""
    answer = actions.value("action", "actions:redirectedStream", {"url": f"{upstream.url}/redirect/307"})
    assert answer == {"name": "Error", "message": "fetch cannot redirect with streamed body"}


def test_aborts(actions: Server, upstream: Upstream) -> None:
    """A signal ends a fetch before, while and after its head; the other end sees the connection close."""
    upstream.cut_off.clear()
    answer = actions.value("action", "actions:aborts", {"url": upstream.url})
    assert answer["before"]["name"] == "AbortError"
    assert answer["during"]["name"] == "AbortError"
    assert answer["timeout"]["name"] == "TimeoutError"
    assert answer["body"] == {"name": "Error", "message": "enough"}
    assert upstream.cut_off.wait(5)


def test_timers(actions: Server) -> None:
    """Timers fire in the order in which they are due, intervals repeat, cleared ones do not fire, and those left over do not delay the end."""
    answer = actions.value("action", "actions:timers")
    assert answer["waited"]
    assert answer["fired"] == ["a", "b1", "c", "b2"]


def test_error_in_a_timer(actions: Server) -> None:
    """What a timer's callback throws ends the action."""
    answer = actions.call("action", "actions:timerThrows")
    assert re.search(r"Server Error\nUncaught TypeError: from a timer\n    at ", answer["errorMessage"])


def test_dynamic_import(actions: Server) -> None:
    """``import()`` loads a module once and gives the same namespace."""
    assert actions.value("action", "actions:imports") == {"answer": 42, "same": True, "loads": 1}


def test_eight_at_once(actions: Server, upstream: Upstream) -> None:
    """Of twenty fetches at most eight are under way at a time; all are answered."""
    assert actions.value("action", "actions:wide", {"url": f"{upstream.url}/wide", "count": 20}) == 8


def test_unawaited_operations(actions: Server, upstream: Upstream) -> None:
    """What an action has not waited for is named by a warning."""
    assert actions.value("action", "actions:leaves", {"url": f"{upstream.url}/slow", "run": "left"}) is None
    found = [line for one in log_of(actions, "actions:leaves") for line in one["logLines"]]
    assert [(line["level"], line["messages"]) for line in found] == [
        ("LOG", ["'leaving'"]),
        (
            "WARN",
            [
                "2 unawaited operations: [fetch, query]. Async operations should be awaited or they might not run. "
                "See https://docs.convex.dev/functions/actions#dangling-promises for more information."
            ],
        ),
    ]
    assert found[1]["systemMetadata"] == {"code": "warning:UnawaitedOperations"}


def test_lines_are_live(actions: Server) -> None:
    """Lines of a running action are in the log while it runs."""
    answers: list[Any] = []
    caller = threading.Thread(target=lambda: answers.append(actions.call("action", "actions:talks", {"run": "talks"})))
    caller.start()
    try:
        (first,) = eventually(lambda: log_of(actions, "actions:talks"), lambda found: len(found) == 1)
        assert (first["kind"], first["logLines"][0]["messages"]) == ("Progress", ["'first'", "'talks'"])
        assert not answers
    finally:
        actions.value("mutation", "events:add", {"run": "talks", "what": "heard"})
        caller.join(20)
    assert answers[0]["logLines"] == ["[LOG] 'first' 'talks'", "[WARN] 'second'"]
    found = log_of(actions, "actions:talks")
    assert [one["kind"] for one in found] == ["Progress", "Progress", "Completion"]
    assert found[-1]["logLines"] == []


def test_lost_child(actions: Server) -> None:
    """An action whose process dies fails with the text of an internal error, once; it is not tried again, and the next one runs."""
    answers: list[Any] = []
    caller = threading.Thread(target=lambda: answers.append(actions.call("action", "actions:sleeps", {"run": "lost"})))
    caller.start()
    eventually(lambda: actions.value("query", "events:list", {"run": "lost"}), ["asleep"])
    assert actions.process is not None
    before = {child.pid for child in psutil.Process(actions.process.pid).children(recursive=True)}
    network = [pid for pid in before if "--max-old-space-size=512" in " ".join(psutil.Process(pid).cmdline())]
    for pid in network:
        psutil.Process(pid).send_signal(signal.SIGKILL)
    caller.join(20)
    assert re.fullmatch(
        r"\[Request ID: [0-9a-f]{16}\] Server Error\nYour request couldn't be completed\. Try again later\.",
        answers[0]["errorMessage"],
    )
    assert actions.value("action", "actions:shout", {"text": "again"}) == "AGAIN"
    assert actions.value("query", "events:list", {"run": "lost"}) == ["asleep"]
