"""The official npm clients, unmodified, against a real server."""

from __future__ import annotations

import re
from pathlib import Path

from convex_backend.values.ids import decode_id, encode_id
from tests.e2e.harness import Server, node

SENT_FROM = r"\n    at (async )?handler \(\.\./convex/messages\.ts:\d+:\d+\)\n"


def test_two_clients_stay_in_step(chat: Server, chat_app: Path) -> None:
    """Two ConvexClients see the same list after each other's mutations; errors, actions and nested calls arrive as officially."""
    lists, empty, boom, invalid, missing, shout, likes, edited, rest = node(chat_app, "two_clients.mjs", chat)
    assert lists == {"bodies": ["one", "two", "three"], "size": "3n", "same": True}
    assert empty["name"] == "ConvexError"
    assert empty["data"] == {"code": "EMPTY"}
    assert re.search(
        r"^\[CONVEX M\(messages:send\)\] \[Request ID: [0-9a-f]{16}\] Server Error\nUncaught ConvexError: "
        r'\{"code":"EMPTY"\}' + SENT_FROM,
        empty["message"],
    )
    assert boom["name"] == "Error"
    assert re.search(r"Server Error\nUncaught Error: no such mood" + SENT_FROM, boom["message"])
    assert "ArgumentValidationError: Object is missing the required field `body`." in invalid["message"]
    assert (
        "Could not find public function for 'nope:nothing'. Did you forget to run `npx convex dev`?"
        in missing["message"]
    )
    assert shout == {"shouted": "HEY"}
    assert likes == {"likes": 5}
    assert edited == {"edited": "one"}
    assert rest == {"count": 1, "whoami": None}


def test_react_hooks_render_live_results(chat: Server, chat_app: Path) -> None:
    """useQuery, useMutation and usePaginatedQuery of ConvexReactClient show every message, once, in order."""
    first, last = node(chat_app, "react_chat.mjs", chat)
    assert first.startswith("abcde")
    assert last == "abcdeExhausted:e,d,c,b,a"


def test_http_client_calls_everything(chat: Server, chat_app: Path) -> None:
    """ConvexHttpClient runs queries, consistent queries, mutations and actions, and raises ConvexErrors with their data."""
    message, consistent, shout, error, hidden = node(chat_app, "http_client.mjs", chat)
    assert message["message"]["body"] == "hello"
    assert message["message"]["size"] == "5n"
    assert consistent == {"consistent": 1}
    assert shout == {"shout": "LOUD"}
    assert error == {"data": {"code": "EMPTY"}}
    assert "Could not find public function for 'messages:bodyOf'" in hidden["message"]


def test_a_query_depends_on_a_table_that_is_not_there(chat: Server) -> None:
    """``normalizeId`` for a missing table gives null; the table's first document changes that cached result, for what is not there has
    been read too."""
    answers = []
    for made in (False, True):
        if made:
            number, _ = decode_id(chat.value("mutation", "tables:make"))
        else:
            number = decode_id(chat.value("mutation", "users:join", {"name": "Tess"}))[0]
        candidates = [encode_id(number + offset, bytes(16)) for offset in range(-4, 5)]
        answers.append([chat.value("query", "tables:normalize", {"id": id}) for id in candidates])
    assert answers[0] == [None] * 9
    assert answers[1][4] == encode_id(number, bytes(16))
    assert answers[1].count(None) == 8
