"""HTTP actions in a real server: streams, slow and vanishing clients, failures, logs (``runtime.md`` 9.10, ``http_api.md`` section 4)."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.harness import ADMIN_KEY, Server, convex, make_app, running
from tests.e2e.raw_http import RawClient, eventually

MIB = 1024 * 1024


def ask(server: Server, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Status and decoded body of a request to the HTTP actions."""
    status, got, data = server.request(method, f"/http{path}", body, headers)
    return status, json.loads(data) if got.get("Content-Type") == "application/json" else data.decode()


def events(server: Server, run: str) -> list[str]:
    found: list[str] = server.value("query", "events:list", {"run": run})
    return found


def entries(server: Server, path: str) -> list[dict[str, Any]]:
    """Everything in the function log about one route."""
    _, _, body = server.request(
        "GET",
        "/api/stream_function_logs?cursor=1",
        None,
        {"Authorization": f"Convex {ADMIN_KEY}", "Convex-Client": "npm-cli-1.48.0"},
    )
    return [one for one in json.loads(body)["entries"] if one["identifier"] == path]


def lines(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(line["level"], line["messages"][0]) for one in found for line in one["logLines"]]


def unchunked(data: bytes) -> bytes:
    """What a chunked body holds."""
    parts = []
    at = 0
    while True:
        line_end = data.index(b"\r\n", at)
        count = int(data[at:line_end], 16)
        if not count:
            return b"".join(parts)
        at = line_end + 2
        parts.append(data[at : at + count])
        at += count + 2


def test_routes(actions: Server) -> None:
    """An exact route goes before prefixes, the longest prefix before shorter ones; an unknown path is 404 with the official text."""
    assert ask(actions, "GET", "/files/exact") == (200, "exact /files/exact")
    assert ask(actions, "GET", "/files/deep/er") == (200, "long /files/deep/er")
    assert ask(actions, "GET", "/files/deep") == (200, "short /files/deep")
    assert ask(actions, "GET", "/files") == (404, "No matching routes found")
    assert ask(actions, "POST", "/files/exact", b"") == (404, "No matching routes found")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_request_on_both_ports(actions: Server, method: str) -> None:
    """An action sees the same request through either port: method, URL, headers, body; GET and OPTIONS have none."""
    body = None if method in ("GET", "OPTIONS") else b"some \xe2\x82\xac"
    for port, prefix in ((actions.port, "/http"), (actions.site_port, "")):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{prefix}/show?a=1&b=%20x",
            data=body,
            method=method,
            headers={"X-Mine": "yes", "X-Forwarded-Proto": "https"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            seen = json.load(answer)
        assert seen["url"] == f"https://127.0.0.1:{port}/show?a=1&b=%20x"
        assert seen["method"] == method
        assert ["x-mine", "yes"] in seen["headers"]
        assert (seen["hasBody"], seen["text"]) == (body is not None, "some \u20ac" if body else "")


def test_head_is_get_without_its_body(actions: Server) -> None:
    """HEAD runs the action of GET and sends its head, then the connection serves the next request."""
    with RawClient(actions.site_port) as client:
        client.request("HEAD", "/length")
        client.request("GET", "/length")
        data = client.until(b"hello")
    first, second, third = data.split(b"\r\n\r\n")
    assert b"Content-Length: 5" in first
    assert second.startswith(b"HTTP/1.1 200 OK")
    assert third == b"hello"


def test_response_headers(actions: Server) -> None:
    """Cookies stay apart, connection headers are ours, names of ours give way; nothing about CORS is added."""
    with RawClient(actions.site_port) as client:
        client.request("GET", "/cookies", "Origin: http://elsewhere")
        status, headers = client.head()
    assert status == 204
    assert [value for name, value in headers if name == "set-cookie"] == ["a=1", "b=2; Path=/"]
    assert [value for name, value in headers if name == "server"] == ["mine"]
    assert ("x-name", "caf\u00e9") in headers
    names = {name for name, _ in headers}
    assert not names & {"connection", "keep-alive", "transfer-encoding", "access-control-allow-origin"}


def test_request_streams_in_and_response_out_at_once(actions: Server) -> None:
    """Each part that is sent comes back before the next one is sent: neither side waits for the whole."""
    with RawClient(actions.site_port) as client:
        client.request("POST", "/echo", "Transfer-Encoding: chunked")
        status, headers = client.head()
        assert (status, dict(headers)["x-echo"]) == (200, "1")
        for part in (b"first", b"second", b"third"):
            client.send(b"%x\r\n%s\r\n" % (len(part), part))
            client.until(part)
        client.send(b"0\r\n\r\n")
        client.until(b"\r\n0\r\n\r\n")


def test_large_bodies(actions: Server) -> None:
    """19 MiB go in and come back unchanged; 21 MiB are 413, whether declared or not."""
    body = bytes(range(256)) * (19 * MIB // 256)
    with RawClient(actions.site_port) as client:
        client.request("POST", "/echo", f"Content-Length: {len(body)}", "Connection: close")
        sender = threading.Thread(target=client.send, args=(body,))
        sender.start()
        answer = client.read_all()
        sender.join()
    assert unchunked(answer.partition(b"\r\n\r\n")[2]) == body
    with RawClient(actions.site_port) as client:
        client.request("POST", "/count", f"Content-Length: {21 * MIB}")
        assert client.head()[0] == 413
    with RawClient(actions.site_port) as client:
        client.request("POST", "/count", "Transfer-Encoding: chunked")
        for _ in range(21):
            client.send(b"100000\r\n" + bytes(MIB) + b"\r\n")
        client.send(b"0\r\n\r\n")
        assert client.head()[0] == 413


def test_body_that_nobody_reads(actions: Server) -> None:
    """An answer that does not look at the body, or at its beginning only, arrives, and the connection goes on."""
    with RawClient(actions.site_port) as client:
        for path, answer in (("/ignore", b"did not look"), ("/first", b"first true")):
            client.request("POST", path, f"Content-Length: {3 * MIB}", body=b"x" * (3 * MIB))
            client.until(answer)
        client.request("GET", "/length")
        client.until(b"hello")


def test_drip(actions: Server) -> None:
    """A body made over time arrives as it is made, and what the action does beside it happens."""
    with RawClient(actions.site_port) as client:
        client.request("GET", "/drip?run=drip&count=4")
        client.until(b"tick 0\n")
        assert b"tick 3" not in client.data
        client.until(b"tick 3\n")
        client.until(b"0\r\n\r\n")
    assert events(actions, "drip") == [f"tick {i}" for i in range(4)]


def test_promised_length_is_not_kept(actions: Server) -> None:
    """A body shorter than its declared length ends the connection."""
    with RawClient(actions.site_port) as client:
        client.request("GET", "/short")
        assert client.read_all().endswith(b"\r\n\r\nhalf")


def test_failures(actions: Server) -> None:
    """What is thrown before the head is 500 with code, trace and a ConvexError's data; the log has it too."""
    status, answer = ask(actions, "GET", "/throws")
    assert status == 500
    assert re.fullmatch(r"\[Request ID: [0-9a-f]{16}\] Server Error: Uncaught Error: boom", answer["code"])
    assert re.match(r"Uncaught Error: boom\n    at <anonymous> \(\.\./convex/http\.ts:\d+:\d+\)\n", answer["trace"])
    assert set(answer) == {"code", "trace"}
    status, answer = ask(actions, "GET", "/throws-data")
    assert status == 500
    assert answer["code"].endswith('Server Error: Uncaught ConvexError: {"code":"7n"}')
    assert answer["data"] == {"code": {"$integer": "BwAAAAAAAAA="}}
    status, answer = ask(actions, "GET", "/no-response")
    assert answer["code"].endswith("Server Error: Uncaught Error: HTTP actions must return a Response")
    (logged,) = entries(actions, "GET /throws")
    assert (logged["kind"], logged["udfType"], logged["caller"]) == ("Completion", "HttpAction", "HttpEndpoint")
    assert logged["success"] == {"status": "500"}
    assert logged["error"].startswith("Uncaught Error: boom\n    at ")


def test_failure_after_the_head(actions: Server) -> None:
    """A body that breaks off just ends, with the status it has; the error is a line of the log."""
    assert ask(actions, "GET", "/breaks") == (200, "so far")
    found = eventually(
        lambda: entries(actions, "GET /breaks"), lambda got: any(one["kind"] == "Completion" for one in got)
    )
    ((level, text),) = lines(found)
    assert level == "ERROR"
    assert text.startswith("Uncaught Error: broke off\n    at ")
    assert found[-1]["error"] is None
    assert found[-1]["success"] == {"status": "200"}


def test_calls_and_log(actions: Server) -> None:
    """An HTTP action calls mutations, queries and actions, internal ones too; what fails there is its to catch; its lines are logged live."""
    status, answer = ask(actions, "POST", "/calls?run=calls", b"payload")
    assert status == 200, answer
    assert answer.pop("failure").startswith("Uncaught Error: no such thing\n    at handler (../convex/events.ts:")
    assert answer == {"added": 7, "listed": ["payload"], "shouted": "HEY", "hidden": "internal"}
    assert events(actions, "calls") == ["payload"]
    progress, completion = entries(actions, "POST /calls")
    (line,) = progress["logLines"]
    assert (progress["kind"], line["level"], line["messages"]) == ("Progress", "LOG", ["'calling'", "'calls'"])
    assert (completion["kind"], completion["logLines"], completion["success"]) == ("Completion", [], {"status": "200"})
    called = [one for one in entries(actions, "events:add") if one["requestId"] == completion["requestId"]]
    assert [(one["caller"], one["parentExecutionId"]) for one in called] == [("Action", completion["executionId"])]


def test_services(actions: Server) -> None:
    """An HTTP action stores, reads and deletes a file, and schedules a function."""
    status, answer = ask(actions, "POST", "/services?run=services", b"content", **{"Content-Type": "text/x-mine"})
    assert (status, answer["text"], answer["type"], answer["gone"]) == (200, "content", "text/x-mine", None)
    assert "/api/storage/" in answer["url"]
    eventually(lambda: events(actions, "services"), ["scheduled for content"])


def test_dynamic_import(actions: Server) -> None:
    """``import()`` works in HTTP actions."""
    assert ask(actions, "GET", "/lazy") == (200, 42)


def test_forms(actions: Server) -> None:
    """Forms of both kinds are read."""
    body = b"field=a%20b"
    assert ask(actions, "POST", "/form", body, **{"Content-Type": "application/x-www-form-urlencoded"}) == (
        200,
        {"field": "a b", "file": None},
    )
    body = (
        b'--X\r\nContent-Disposition: form-data; name="field"\r\n\r\nvalue\r\n--X\r\nContent-Disposition: form-data; name="file"; '
        b'filename="f.txt"\r\nContent-Type: text/plain\r\n\r\nin it\r\n--X--\r\n'
    )
    assert ask(actions, "POST", "/form", body, **{"Content-Type": "multipart/form-data; boundary=X"}) == (
        200,
        {"field": "value", "file": ["f.txt", "text/plain", "in it"]},
    )


def test_paused(hasty_actions: Server) -> None:
    """While the deployment is paused an HTTP action is 500 with the text, and runs again afterwards."""
    server = hasty_actions
    key = {"Authorization": f"Convex {ADMIN_KEY}"}
    assert server.request("POST", "/api/v1/pause_deployment", {}, key)[0] == 200
    try:
        status, answer = ask(server, "GET", "/length")
        assert status == 500
        assert answer["code"].endswith("Server Error: " + answer["trace"])
        assert answer["trace"].startswith("Cannot run functions while this deployment is paused.")
    finally:
        assert server.request("POST", "/api/v1/unpause_deployment", {}, key)[0] == 200
    assert ask(server, "GET", "/length") == (200, "hello")


def test_logs_command_shows_http_actions(actions: Server) -> None:
    """``convex logs`` prints the lines and the end of an HTTP action under its route."""
    ask(actions, "POST", "/calls?run=cli", b"x")
    printed = convex_logs(actions)
    assert re.search(r"\[CONVEX H\(POST /calls\)\] \[LOG\] 'calling' 'cli'", printed)
    assert re.search(r"\[CONVEX H\(POST /calls\)\] Function executed in", printed)


def convex_logs(server: Server) -> str:
    """The history that ``convex logs`` prints; it goes on until it is stopped."""
    import subprocess

    from tests import npm_cache

    environment = npm_cache.node_environment()
    environment.update(CONVEX_SELF_HOSTED_URL=server.url, CONVEX_SELF_HOSTED_ADMIN_KEY=ADMIN_KEY)
    cli = server.app / "node_modules" / "convex" / "bin" / "main.js"
    command = [npm_cache.NODE, cli, "logs", "--history", "500", "--success"]
    with subprocess.Popen(
        command, cwd=server.app, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        timer = threading.Timer(20, process.kill)
        timer.start()
        printed = ""
        assert process.stdout is not None
        try:
            for raw in process.stdout:
                printed += raw.decode()
                if "H(POST /calls)] Function executed" in printed and "'cli'" in printed:
                    break
        finally:
            timer.cancel()
            process.kill()
    return re.sub(r"\x1b\[[0-9;]*m", "", printed)


def test_unusable_authorization(actions: Server) -> None:
    """The action runs and sees its header; asking who calls throws, in functions that it calls too; without the header nobody calls."""
    assert ask(actions, "GET", "/whoami") == (200, {"own": {"value": None}, "nested": {"value": None}, "header": None})
    for header, text in (("Basic abcdef", "Invalid admin key"), ("x", "Invalid authentication header")):
        status, answer = ask(actions, "GET", "/whoami", Authorization=header)
        assert (status, answer["header"], answer["own"]) == (200, header, {"error": text})
        assert text in answer["nested"]["error"]
    status, answer = ask(actions, "GET", "/whoami", Authorization="Bearer not-a-token")
    assert "Could not parse JWT payload." in answer["own"]["error"]
    status, answer = ask(actions, "GET", "/whoami", Authorization=f"Convex {ADMIN_KEY}")
    assert answer["own"] == {"value": None}


# -- clients that are slow, or go ----------------------------------------------------------------------------------------------


def test_disconnect_before_the_head(actions: Server) -> None:
    """The signal aborts, the action runs on to its end, and the log says that it failed because the client went."""
    with RawClient(actions.site_port) as client:
        client.request("GET", "/slow?run=slow")
        eventually(lambda: events(actions, "slow"), ["begun"])
        client.reset()
    eventually(lambda: events(actions, "slow"), ["begun", "aborted"])
    found = eventually(
        lambda: entries(actions, "GET /slow"), lambda got: any(one["kind"] == "Completion" for one in got)
    )
    assert found[-1]["error"] == "Client disconnected"


def test_disconnect_after_the_head(actions: Server) -> None:
    """The signal aborts, the body goes nowhere, what runs beside it runs on to its end, and the log has a line."""
    with RawClient(actions.site_port) as client:
        client.request("GET", "/background?run=back")
        client.until(b"xxxx")
        client.reset()
    eventually(lambda: events(actions, "back"), ["begun", "aborted", "ended"])
    found = eventually(
        lambda: entries(actions, "GET /background"), lambda got: any(one["kind"] == "Completion" for one in got)
    )
    assert lines(found) == [("INFO", "Client disconnected")]
    assert (found[-1]["error"], found[-1]["success"]) == (None, {"status": "200"})


def test_response_over_the_limit(actions: Server) -> None:
    """A response ends at 20 MiB; the rest is dropped and the log has the error."""
    status, _, body = actions.request("GET", "/http/flood?mb=22")
    assert status == 200
    assert len(body) == 20 * MIB
    found = eventually(
        lambda: entries(actions, "GET /flood"), lambda got: any(one["kind"] == "Completion" for one in got)
    )
    assert ("ERROR", "HttpResponseTooLarge: HTTP actions support responses up to 20 MiB") in lines(found)
    assert found[-1]["returnBytes"] > 20 * MIB


def test_response_near_the_limit(actions: Server) -> None:
    """A response over 80 % of the limit is whole, and the log has the warning."""
    status, _, body = actions.request("GET", "/http/flood?mb=17")
    assert (status, len(body)) == (200, 17 * MIB)

    def warnings() -> list[str]:
        return [text for level, text in lines(entries(actions, "GET /flood")) if level == "WARN"]

    text = f"Large response returned from an HTTP action (actual: {17 * MIB} bytes, limit: {20 * MIB} bytes)."
    assert text in eventually(warnings, bool)


def test_out_of_memory(actions: Server) -> None:
    """An action that holds too much ends with the text, which names the size of the request's body; the next one runs."""
    status, answer = ask(actions, "POST", "/hog", b"four")
    assert status == 500
    text = "JavaScript execution ran out of memory (maximum memory usage: 64 MB): request stream size was 4 bytes"
    assert answer["trace"] == text
    assert answer["code"].endswith(f"Server Error: {text}")
    assert ask(actions, "GET", "/length") == (200, "hello")


def memory(server: Server) -> tuple[int, int]:
    """Resident bytes of the server's own process, and of all that it has started."""
    assert server.process is not None
    root = psutil.Process(server.process.pid)
    children = 0
    for process in root.children(recursive=True):
        try:
            children += process.memory_info().rss
        except psutil.NoSuchProcess:
            # It ended just now.
            continue
    return root.memory_info().rss, children


def test_clients_that_do_not_read(actions: Server) -> None:
    """A hundred clients that ask for 19 MiB each and read nothing cost little memory, others are served meanwhile, and who goes on reading
    gets everything."""
    clients = [RawClient(actions.site_port, receive_bytes=None if one == 50 else 4096) for one in range(100)]
    try:
        before = memory(actions)
        for client in clients:
            client.request("GET", "/flood?mb=19")
        for client in clients:
            client.until(b"\r\n\r\n")
        time.sleep(0.5)
        began = time.monotonic()
        assert ask(actions, "GET", "/files/exact")[0] == 200
        assert time.monotonic() - began < 2
        own, children = (now - then for now, then in zip(memory(actions), before, strict=True))
        # A window each in the server; a context and a window each in the children, one of which may be new.
        assert own < 40 * MIB, f"the server has grown by {own // MIB} MiB"
        assert children < 400 * MIB, f"the children have grown by {children // MIB} MiB"
        reader = clients[50]
        received = len(reader.data)
        while received < 19 * MIB:
            got = reader.socket.recv(1 << 20)
            assert got
            received += len(got)
    finally:
        for client in clients:
            client.reset()
    eventually(lambda: open_actions(actions), 0)


def open_actions(server: Server) -> float:
    _, _, body = server.request("GET", "/metrics")
    found = re.search(rb"^convex_http_actions_open (\S+)$", body, re.MULTILINE)
    assert found is not None
    return float(found[1])


def test_uploader_is_held_back(actions: Server) -> None:
    """A body that the action does not read fills the window and the kernel's buffers, no more: the client is held back."""
    with RawClient(actions.site_port) as client:
        client.request("POST", "/slow-reader?run=held", f"Content-Length: {18 * MIB}")
        client.socket.setblocking(False)
        sent = 0
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline and sent < 18 * MIB:
            try:
                sent += client.socket.send(bytes(65536))
            except BlockingIOError:
                time.sleep(0.02)
        assert sent < 12 * MIB
        client.socket.setblocking(True)
        left = 18 * MIB - sent
        client.send(bytes(left))
        client.until(b"%d" % (18 * MIB))


def test_hundred_streams(actions: Server) -> None:
    """A hundred responses that drip at the same time all arrive whole."""
    clients = [RawClient(actions.site_port) for _ in range(100)]
    try:
        for number, client in enumerate(clients):
            client.request("GET", f"/drip?run=many{number % 7}&count=3", "Connection: close")
        for client in clients:
            data = client.read_all()
            assert [b"tick %d" % i in data for i in range(3)] == [True] * 3
    finally:
        for client in clients:
            client.socket.close()


def test_time_limit(hasty_actions: Server) -> None:
    """A body that is never closed ends with the time limit, which is a line of the log; so does an action, with the text for its caller."""
    server = hasty_actions
    text = "Function execution timed out (maximum duration: 2s)"
    with RawClient(server.port) as client:
        client.request("GET", "/http/never")
        client.until(b"open")
        began = time.monotonic()
        answer = server.call("action", "actions:sleeps", {"run": "limit"})
        assert re.fullmatch(rf"\[Request ID: [0-9a-f]{{16}}\] Server Error\n{re.escape(text)}", answer["errorMessage"])
        assert 1.9 < time.monotonic() - began < 8
        client.until(b"0\r\n\r\n")
    found = eventually(
        lambda: entries(server, "GET /never"), lambda got: any(one["kind"] == "Completion" for one in got)
    )
    assert lines(found) == [("LOG", "'opening'"), ("ERROR", text)]


@pytest.mark.slow
def test_prefix_of_the_app(tmp_path: Path) -> None:
    """With ``httpPrefix`` the app's routes are below it and nowhere else; the URL that an action sees keeps it."""
    app = make_app(tmp_path, "actions")
    (app / "convex" / "convex.config.ts").write_text(
        'import { defineApp } from "convex/server";\nexport default defineApp({ httpPrefix: "/v1/" });\n'
    )
    (tmp_path / "data").mkdir()
    with running(tmp_path / "data") as server:
        convex(app, server, "dev", "--once")
        assert ask(server, "GET", "/v1/length") == (200, "hello")
        assert ask(server, "GET", "/v1/files/deep/x") == (200, "long /v1/files/deep/x")
        assert ask(server, "GET", "/length") == (404, "No matching routes found")
        assert ask(server, "GET", "/v1/nope") == (404, "No matching routes found")
