"""Functions over HTTP (``http_api.md`` sections 2.5 and 3)."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any
from urllib.parse import quote

import pytest
from twisted.logger import capturedLogs

from convex_backend.application.types import CallResult
from convex_backend.errors import BadRequest, NotFound, OccConflict, OutOfRetention, Overloaded, ServerFault
from convex_backend.interfaces import LogLine
from tests.web.support import TS, Bench, failure, success

CALLS = ["/api/query", "/api/mutation", "/api/action"]
BIG = 2**40
ENCODED = json.dumps(
    {"i": {"$integer": base64.b64encode(struct.pack("<q", BIG)).decode()}}, separators=(",", ":")
).encode()
LINE = LogLine(("'hi'", "42"), "LOG", 1.0)


@pytest.mark.parametrize("path", CALLS)
def test_call(path: str) -> None:
    """A call reaches its use case with path and arguments, and its value comes back."""
    bench = Bench()
    bench.application.answer = success(b'{"a":1}')
    answer = bench.ask("POST", path, {"path": "messages:list", "format": "convex_encoded_json", "args": [{"x": 1}]})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.body == b'{"status":"success","value":{"a":1}}'
    call = bench.last_call
    assert (f"/api/{call.what}", call.path, call.args) == (path, "messages:list", b'[{"x":1}]')


@pytest.mark.parametrize("path", [*CALLS, "/api/run/a/b", "/api/query_at_ts", "/api/query_batch"])
@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]", b"1", b'"x"', b"NaN"])
def test_bad_json(path: str, body: bytes) -> None:
    """What is not a JSON object is 400 ``BadJsonBody``, and nothing runs."""
    bench = Bench()
    assert bench.ask("POST", path, body).error == (400, "BadJsonBody")
    assert bench.application.calls == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"args": [{}]}, "missing field `path`"),
        ({"path": 7, "args": [{}]}, "path: invalid type"),
        ({"path": "a:b", "args": "x"}, "args: invalid type"),
    ],
)
def test_wrong_shape(body: Any, says: str) -> None:
    """A body of another shape is told which field is wrong."""
    answer = Bench().ask("POST", "/api/query", body)
    assert answer.error == (400, "BadJsonBody")
    assert says in answer.json["message"]


def test_arguments_nested_beyond_reason() -> None:
    """JSON that is nested deeper than any value may be is the sender's fault, not ours."""
    body = b'{"path":"a:b","args":[' + b"[" * 600 + b"]" * 600 + b"]}"
    assert Bench().ask("POST", "/api/query", body).error == (400, "BadJsonBody")


def test_arguments_as_an_object() -> None:
    """Arguments may be an object as well as an array; without any they are empty."""
    bench = Bench()
    bench.ask("POST", "/api/mutation", {"path": "a:b", "args": {"x": [1, -0.0, 9007199254740993]}})
    assert bench.last_call.args == b'{"x":[1,-0.0,9007199254740993]}'
    bench.ask("POST", "/api/mutation", {"path": "a:b"})
    assert bench.last_call.args == b"{}"


@pytest.mark.parametrize(
    ("text", "args"),
    [
        (b"[-0]", b"[-0.0]"),
        (b'[{"x": -0,"y":-0.0,"z":12}]', b'[{"x":-0.0,"y":-0.0,"z":12}]'),
        (
            b'["2024-01-01 -0",[-0,9007199254740993,99999999999999999999]]',
            b'["2024-01-01 -0",[-0.0,9007199254740993,1e+20]]',
        ),
        (b"[-1,-05]", None),
        (b"[-1,0]", b"[-1,0]"),
        (b"[1e400]", None),
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_numbers_survive(method: str, text: bytes, args: bytes | None) -> None:
    """Numbers reach the use case as they were meant: the sign of zero, large integers; what is no number is 400."""
    bench = Bench()
    if method == "POST":
        answer = bench.ask("POST", "/api/query", b'{"path":"a:b","args":' + text + b"}")
    else:
        answer = bench.ask("GET", f"/api/query?path=a:b&args={quote(text)}")
    if args is None:
        assert answer.error == (400, "BadJsonBody" if method == "POST" else "BadQueryArgs")
    else:
        assert bench.last_call.args == args


@pytest.mark.parametrize(
    ("form", "value"),
    [
        ("convex_encoded_json", json.loads(ENCODED)),
        ("convex_json", json.loads(ENCODED)),
        ("json", {"i": str(BIG)}),
        ("convex_clean_json", {"i": str(BIG)}),
        ("export_json", {"i": BIG}),
        (None, {"i": str(BIG)}),
    ],
)
@pytest.mark.parametrize("path", [*CALLS, "/api/run/a/b"])
def test_formats(path: str, form: str | None, value: Any) -> None:
    """The value comes in the format that was asked for; ``json`` is the default."""
    bench = Bench()
    bench.application.answer = success(ENCODED)
    body = {"path": "a:b", "args": {}} if form is None else {"path": "a:b", "args": {}, "format": form}
    assert bench.ask("POST", path, body).json == {"status": "success", "value": value}


def test_default_format_of_an_old_client() -> None:
    """A client that is older than plain JSON gets the encoded form, but not from ``/api/run``."""
    bench = Bench()
    bench.application.answer = success(ENCODED)
    old = {"Convex-Client": "npm-1.4.0"}
    assert bench.ask("POST", "/api/query", {"path": "a:b"}, old).json["value"] == json.loads(ENCODED)
    assert bench.ask("POST", "/api/run/a/b", {"args": {}}, old).json["value"] == {"i": str(BIG)}


@pytest.mark.parametrize("path", [*CALLS, "/api/run/a/b"])
@pytest.mark.parametrize("form", ["xml", 7])
def test_bad_format(path: str, form: Any) -> None:
    """An unknown format is found before the function has run."""
    bench = Bench()
    assert bench.ask("POST", path, {"path": "a:b", "format": form}).error == (400, "BadFormat")
    assert bench.application.calls == []


def test_log_lines() -> None:
    """Log lines are strings ``[LEVEL] text``, left out when there are none."""
    bench = Bench()
    bench.application.answer = success(b"1", LINE, LogLine(("'careful'",), "WARN", 2.0))
    answer = bench.ask("POST", "/api/query", {"path": "a:b"})
    assert answer.json == {"status": "success", "value": 1, "logLines": ["[LOG] 'hi' 42", "[WARN] 'careful'"]}


def test_failure() -> None:
    """A function's failure is 200 with the rendered text, and always has log lines."""
    bench = Bench()
    bench.application.answer = failure("Uncaught Error: no", None, LINE)
    answer = bench.ask("POST", "/api/mutation", {"path": "a:b"})
    assert answer.status == 200
    assert answer.json == {
        "status": "error",
        "errorMessage": "[Request ID: id] Server Error\nUncaught Error: no",
        "logLines": ["[LOG] 'hi' 42"],
    }


@pytest.mark.parametrize(("form", "data"), [("json", {"i": str(BIG)}), ("convex_encoded_json", json.loads(ENCODED))])
def test_failure_data(form: str, data: Any) -> None:
    """``errorData`` comes in the format of the value, also when the text is redacted."""
    bench = Bench()
    bench.application.answer = failure("Uncaught ConvexError: x", ENCODED, redacted=True)
    answer = bench.ask("POST", "/api/action", {"path": "a:b", "format": form})
    assert answer.json == {
        "status": "error",
        "errorMessage": "[Request ID: id] Server Error",
        "errorData": data,
        "logLines": [],
    }


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (BadRequest("BadConvexFunctionIdentifier", "x"), 400, "BadConvexFunctionIdentifier"),
        (OccConflict("messages"), 503, "OptimisticConcurrencyControlFailure"),
        (Overloaded("ExpiredInQueue", "x"), 503, "ExpiredInQueue"),
        (OutOfRetention(), 503, "OutOfRetention"),
        (NotFound("Gone", "x"), 404, "Gone"),
    ],
)
def test_errors_of_the_application(path: str, error: Exception, status: int, code: str) -> None:
    """What the application raises is mapped by class; code and message are the body."""
    bench = Bench()
    bench.application.answer = error
    answer = bench.ask("POST", path, {"path": "a:b"})
    assert answer.error == (status, code)
    assert answer.json["message"] == str(error)


@pytest.mark.parametrize("error", [ServerFault("the disk is gone"), ZeroDivisionError("the disk is gone")])
def test_faults_show_nothing(error: Exception) -> None:
    """A fault of ours is a fixed text; its cause is in the log, once."""
    bench = Bench()
    bench.application.answer = error
    with capturedLogs() as events:
        answer = bench.ask("POST", "/api/query", {"path": "a:b"})
    assert answer.error == (500, "InternalServerError")
    assert answer.json["message"] == "Your request couldn't be completed. Try again later."
    assert [event["log_failure"].value for event in events if "log_failure" in event] == [error]


def test_get_query() -> None:
    """A query may be named in the URL; HEAD gives the same head without the body."""
    bench = Bench()
    bench.application.answer = success(ENCODED)
    target = "/api/query?path=messages%3Alist&args=%7B%22x%22%3A1%7D&format=convex_encoded_json"
    answer = bench.ask("GET", target)
    assert answer.json == {"status": "success", "value": json.loads(ENCODED)}
    assert (bench.last_call.path, bench.last_call.args) == ("messages:list", b'{"x":1}')
    head = bench.ask("HEAD", target)
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(answer.body)), b"")


@pytest.mark.parametrize("query", ["", "?path=a:b&args=%7B", "?args=%7B%7D", "?path=%ff"])
def test_bad_get_query(query: str) -> None:
    """A missing path and arguments that are not JSON are 400 ``BadQueryArgs``."""
    assert Bench().ask("GET", f"/api/query{query}").error == (400, "BadQueryArgs")


def test_function() -> None:
    """``/api/function`` runs any kind, in the component that is named."""
    bench = Bench()
    bench.admin("POST", "/api/function", {"path": "a:b", "args": {}, "componentPath": "local"})
    assert (bench.last_call.what, bench.last_call.more) == ("function", {"component_path": "local"})
    assert bench.admin("POST", "/api/function", {"path": "a:b", "componentPath": 7}).error == (400, "BadJsonBody")


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/api/run/messages/list", "messages:list"),
        ("/api/run/dir/sub/messages/list", "dir/sub/messages:list"),
        ("/api/run/a%5Fb/c", "a_b:c"),
        ("//api/run/messages/list", "messages:list"),
        ("/api/run/messages/sync", "messages:sync"),
    ],
)
def test_run(target: str, path: str) -> None:
    """``/api/run`` takes the function from the URL: the last segment is the export."""
    bench = Bench()
    assert bench.ask("POST", target, {"args": {"x": 1}}).status == 200
    assert (bench.last_call.what, bench.last_call.path, bench.last_call.args) == ("function", path, b'{"x":1}')


@pytest.mark.parametrize("target", ["/api/run/messages", "/api/run/sync", "/api/run/x/"])
def test_run_without_a_function(target: str) -> None:
    """Fewer than two segments name no function."""
    assert Bench().ask("POST", target, {"args": {}}).error == (400, "MissingIdentifier")


def test_query_at_ts() -> None:
    """``query_ts`` gives a timestamp that ``query_at_ts`` takes."""
    bench = Bench()
    ts = bench.ask("POST", "/api/query_ts", b"").json["ts"]
    assert base64.b64decode(ts) == struct.pack("<Q", TS)
    assert bench.ask("POST", "/api/query_at_ts", {"path": "a:b", "args": [{}], "ts": ts}).status == 200
    assert bench.last_call.more == {"ts": TS}


@pytest.mark.parametrize("ts", ["", "AAAA", "!", base64.b64encode(struct.pack("<Q", TS + 1)).decode()])
def test_bad_ts(ts: str) -> None:
    """A timestamp of another length, or one in the future, is 400."""
    assert Bench().ask("POST", "/api/query_at_ts", {"path": "a:b", "ts": ts}).error == (400, "BadTimestamp")


def test_missing_ts() -> None:
    """``ts`` is required and a string."""
    assert Bench().ask("POST", "/api/query_at_ts", {"path": "a:b"}).error == (400, "BadJsonBody")
    assert Bench().ask("POST", "/api/query_at_ts", {"path": "a:b", "ts": 1}).error == (400, "BadJsonBody")


def test_query_batch() -> None:
    """A batch gives one answer for each query, in order, each in its own format."""
    bench = Bench()
    bench.application.answer = success(ENCODED)
    queries = [{"path": "a:b", "args": {}}, {"path": "c:d", "format": "convex_encoded_json"}]
    answer = bench.ask("POST", "/api/query_batch", {"queries": queries})
    assert [result["value"] for result in answer.json["results"]] == [{"i": str(BIG)}, json.loads(ENCODED)]
    assert [call.path for call in bench.application.calls] == ["a:b", "c:d"]
    assert bench.ask("POST", "/api/query_batch", {"queries": []}).json == {"results": []}


@pytest.mark.parametrize("queries", [None, {}, [1], [{"args": {}}], "x"])
def test_bad_batch(queries: Any) -> None:
    """A batch that is not a list of queries runs none of them."""
    bench = Bench()
    assert bench.ask("POST", "/api/query_batch", {"queries": queries}).error == (400, "BadJsonBody")
    assert bench.application.calls == []


def test_batch_too_long() -> None:
    """A batch is bounded."""
    queries = [{"path": "a:b"}] * 1001
    assert Bench().ask("POST", "/api/query_batch", {"queries": queries}).error == (400, "TooManyQueries")


def test_value_is_not_decoded_needlessly() -> None:
    """A value without wrappers goes out byte for byte, however large its numbers are written."""
    bench = Bench()
    text = b'{"a":1e3,"b":"x"}'
    bench.application.answer = CallResult(text, None, (), TS, "id")
    assert bench.ask("POST", "/api/query", {"path": "a:b"}).body == b'{"status":"success","value":' + text + b"}"
