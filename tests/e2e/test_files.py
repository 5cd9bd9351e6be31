"""File storage with the official clients against a real server."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from convex_backend.values.ids import decode_id, encode_id
from tests.e2e.harness import ADMIN_KEY, Server, convex, make_app, node, running

UUID = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


@pytest.fixture(scope="module")
def files_app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the app of these tests."""
    return make_app(tmp_path_factory.mktemp("apps"), "files")


@pytest.fixture(scope="module")
def files(files_app: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server with that app."""
    with running(tmp_path_factory.mktemp("server")) as server:
        convex(files_app, server, "dev", "--once")
        yield server


def upload(server: Server, data: bytes, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """Post *data* to a new upload URL. :returns: status and decoded answer."""
    url = urlsplit(server.value("mutation", "files:generateUploadUrl"))
    status, _, body = server.request("POST", f"{url.path}?{url.query}", data, headers)
    return status, json.loads(body)


def stored(server: Server, data: bytes, content_type: str = "text/plain") -> tuple[str, str]:
    """A new file. :returns: its id, and the path of its URL."""
    status, answer = upload(server, data, {"Content-Type": content_type})
    assert status == 200, answer
    url = server.value("query", "files:url", {"id": answer["storageId"]})
    return answer["storageId"], urlsplit(url).path


def contents(server: Server) -> list[str]:
    """Names of all files that the server holds, unfinished ones included."""
    root = server.folder / "convex_local_storage" / "files"
    return sorted(path.name for path in root.rglob("*") if path.is_file())


def test_upload_subscribe_fetch_delete(files: Server, files_app: Path) -> None:
    """A client uploads by fetch, sees the file with its URL in a live query, fetches it whole, in part and conditionally; deleting it
    reaches the subscription."""
    data = bytes(i & 255 for i in range(300_000))
    sha256 = base64.b64encode(hashlib.sha256(data).digest()).decode()
    uploaded, fetched, gone = node(files_app, "files.mjs", files)
    assert uploaded == {"status": 200, "id": True, "size": 300_000, "contentType": "image/png", "sha256": sha256}
    assert fetched == {
        "same": True,
        "type": "image/png",
        "digest": f"sha-256={sha256}",
        "part": [206, 0, 1, 2, 3],
        "conditional": 304,
    }
    assert gone == {"url": None, "file": None, "status": 404}


@pytest.mark.parametrize("size", [0, 1, 100_000, 5_000_000])
def test_blobs_of_actions(files: Server, size: int) -> None:
    """``store`` and ``get`` in an action keep bytes and type of empty, small and large blobs; the id, the UUID, metadata and URL agree."""
    answer = files.value("action", "files:roundTrip", {"size": size, "type": "application/x-test"})
    assert (answer["size"], answer["same"], answer["byUuid"]) == (size, True, size)
    assert answer["type"] == answer["metadata"]["contentType"] == "application/x-test"
    assert re.fullmatch(UUID, answer["metadata"]["storageId"])
    assert answer["url"] == f"{files.url}/api/storage/{answer['metadata']['storageId']}"
    assert re.fullmatch("[0-9a-f]{64}", answer["metadata"]["sha256"])
    status, headers, body = files.request("GET", urlsplit(answer["url"]).path)
    assert (status, len(body), headers["Content-Type"]) == (200, size, "application/x-test")
    assert hashlib.sha256(body).hexdigest() == answer["metadata"]["sha256"]
    target = urlsplit(answer["uploadUrl"])
    assert files.request("POST", f"{target.path}?{target.query}", b"again")[0] == 200


def test_many_blobs_at_once(files: Server) -> None:
    """Blobs of one action travel side by side, more of them than may be under way at a time."""
    assert files.value("action", "files:storeMany", {"count": 20, "size": 300_000}) == {
        "different": 20,
        "bytes": 6_000_000,
    }


def test_digest_of_an_action(files: Server) -> None:
    """``store`` verifies the base64 digest; after a mismatch nothing is left."""
    right = base64.b64encode(hashlib.sha256(b"hello").digest()).decode()
    assert decode_id(files.value("action", "files:storeWithDigest", {"text": "hello", "sha256": right}))[0] == 540
    before = contents(files)
    text = files.value("action", "files:storeWithDigest", {"text": "other", "sha256": right})
    actual = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    assert text == f"Sha256 mismatch. Expected: {right} Actual: {actual}"
    assert contents(files) == before


def test_missing_and_malformed_ids(files: Server) -> None:
    """What does not exist is null, or not found when it shall be deleted; what cannot be a storage id is an argument error of the call."""
    for id in (encode_id(540, bytes(16)), "0" * 8 + "-0000-4000-8000-" + "0" * 12):
        assert files.value("action", "files:getMissing", {"id": id}) == [
            None,
            None,
            None,
            f"storage id {id} not found",
        ]
    other = encode_id(10_001, bytes(16))
    texts = files.value("action", "files:bad", {"ids": ["nonsense", other]})
    calls = ["getUrl", "getMetadata", "delete", "get"]
    assert texts[:4] == [
        f'Invalid argument `storageId` for `storage.{call}`: Invalid storage ID: "nonsense". Storage ID should be an '
        "Id of '_storage' table, or a UUID string."
        for call in calls
    ]
    assert texts[4:] == [
        f"Invalid argument `storageId` for `storage.{call}`: Invalid storage ID. Storage ID cannot be an ID on any "
        "table other than '_storage'."
        for call in calls
    ]


def test_the_system_table(files: Server) -> None:
    """``db.system`` lists, orders and pages ``_storage``; ordinary reads and all writes of it are refused, the last by npm; a schema
    may refer to it."""
    first, _ = stored(files, b"one")
    second, _ = stored(files, b"two")
    seen = files.value("query", "files:system")
    assert seen["all"][-2:] == [first, second]
    assert seen["newest"] == seen["normalized"] == second
    page = files.value("query", "files:systemPage", {"cursor": None})
    assert [row["_id"] for row in page["page"]] == seen["all"][:1] and not page["isDone"]
    page = files.value("query", "files:systemPage", {"cursor": page["continueCursor"]})
    assert [row["_id"] for row in page["page"]] == seen["all"][1:2]
    refused = "System tables can only be accessed with db.system."
    assert files.value("mutation", "files:refused", {"file": first}) == [
        refused,
        refused,
        refused,
        "System tables (prefixed with `_`) are read-only.",
    ]
    assert files.value("mutation", "files:add", {"file": first, "caption": "x"})
    answer = files.call("mutation", "files:add", {"file": encode_id(10_001, bytes(16)), "caption": "x"})
    assert answer["status"] == "error" and "_storage" in answer["errorMessage"]


def test_http_actions(files: Server) -> None:
    """An HTTP action stores the body that it was sent and answers with a stored blob; an uncaught digest mismatch is its failure."""
    data = os.urandom(200_000)
    status, _, body = files.request("POST", "/http/store", data, {"Content-Type": "image/webp"})
    assert status == 200, body
    answer = json.loads(body)
    status, headers, body = files.request("GET", f"/http/get?id={answer['id']}")
    assert (status, body, headers["Content-Type"]) == (200, data, "image/webp")
    status, headers, body = files.request("GET", urlsplit(answer["url"]).path)
    assert (status, body, headers["Content-Type"]) == (200, data, "image/webp")
    assert files.request("GET", f"/http/get?id={encode_id(540, bytes(16))}")[0] == 404
    status, _, body = files.request("POST", "/http/mismatch", b"not hello")
    assert status == 500 and b"Sha256 mismatch. Expected: LPJNul" in body


def test_a_file_that_is_too_large_for_an_action(files: Server) -> None:
    """``storage.get`` of more than a function's memory is an error that says what to do, and the action may go on."""
    _, answer = upload(files, bytes(64 * 1024 * 1024 + 1))
    (text,) = files.value("action", "files:getOnly", {"id": answer["storageId"]})
    assert text.startswith("The file has 67108865 bytes: more than the memory of a function holds")
    files.value("mutation", "files:remove", {"id": answer["storageId"]})


def test_contents_count_as_memory_of_their_action(files: Server) -> None:
    """An action may get more than its memory bit by bit; one that keeps it all runs out of memory, and the next one runs as ever."""
    id, _ = stored(files, bytes(20_000_000))
    answer = files.call("action", "files:getOften", {"id": id, "count": 8, "keep": True})
    assert "JavaScript execution ran out of memory (maximum memory usage: 64 MB)" in answer["errorMessage"]
    assert files.value("action", "files:getOften", {"id": id, "count": 8, "keep": False}) == 160_000_000
    files.value("mutation", "files:remove", {"id": id})


def test_a_component_has_files_of_its_own(files: Server) -> None:
    """What a component stores, by an action and by an upload URL, only it can name; its URLs say whose files they are."""
    id = files.value("action", "vaults:put", {"text": "in the vault"})
    target = urlsplit(files.value("mutation", "vaults:generateUploadUrl"))
    status, _, body = files.request("POST", f"{target.path}?{target.query}", b"posted")
    posted = json.loads(body)["storageId"]
    assert status == 200
    seen = files.value("query", "vaults:look", {"id": id})
    assert seen["own"] is None
    assert seen["component"]["all"] == [id, posted]
    url = urlsplit(seen["component"]["url"])
    assert re.fullmatch("component=[0-9a-z]{31,37}", url.query)
    assert files.request("GET", f"{url.path}?{url.query}")[2] == b"in the vault"
    assert files.request("GET", url.path)[0] == 404
    assert id not in files.value("query", "files:system")["all"]
    files.value("mutation", "vaults:remove", {"id": id})
    assert files.request("GET", f"{url.path}?{url.query}")[0] == 404


def test_what_an_action_does_not_wait_for_leaves_nothing(files: Server) -> None:
    """A blob that is under way when its action ends is given up: no file, no bytes."""
    before, listed = contents(files), files.value("query", "files:system")["all"]
    assert files.value("action", "files:storeUnawaited", {"size": 10_000_000}) == "done"
    deadline = time.monotonic() + 10
    while contents(files) != before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert contents(files) == before
    assert files.value("query", "files:system")["all"] == listed


def test_the_cli_shows_files(files: Server, files_app: Path) -> None:
    """``convex data _storage`` prints the documents; the list of tables does not have it."""
    id, _ = stored(files, b"shown")
    assert id in convex(files_app, files, "data", "_storage")
    assert "_storage" not in convex(files_app, files, "data")


def test_store_and_get_in_a_mutation(files: Server) -> None:
    """npm 1.48 stores and reads blobs in mutations: the file comes with the commit, and not at all when the mutation fails."""
    answer = files.value("mutation", "files:storeInMutation", {"text": "kept", "fail": False})
    assert (answer["text"], answer["type"]) == ("kept", "text/plain")
    path = urlsplit(files.value("query", "files:url", {"id": answer["id"]})).path
    assert files.request("GET", path)[2] == b"kept"
    count = len(files.value("query", "files:system")["all"])
    assert files.call("mutation", "files:storeInMutation", {"text": "no", "fail": True})["status"] == "error"
    assert len(files.value("query", "files:system")["all"]) == count


def test_deletion_is_transactional(files: Server) -> None:
    """A mutation that deletes a file and fails has not deleted it; one that succeeds has, for every way to name the file."""
    id, path = stored(files, b"data")
    assert files.call("mutation", "files:removeAndFail", {"id": id})["status"] == "error"
    assert files.request("GET", path)[0] == 200
    files.value("mutation", "files:remove", {"id": path.rpartition("/")[2].upper()})
    status, _, body = files.request("GET", path)
    assert (status, json.loads(body)["code"]) == (404, "FileNotFound")
    assert files.value("query", "files:metadata", {"id": id}) is None
    again = files.call("mutation", "files:remove", {"id": id})
    assert f"storage id {id} not found" in again["errorMessage"]


def test_ranges(files: Server) -> None:
    """Each row of the table of ranges, with its status, headers and bytes."""
    data = bytes(range(100))
    _, path = stored(files, data, "application/octet-stream")
    _, empty = stored(files, b"")

    def ask(path: str, wanted: str | None, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        return files.request(method, path, headers={} if wanted is None else {"Range": wanted})

    status, headers, body = ask(path, None)
    assert (status, body) == (200, data)
    sha256 = hashlib.sha256(data).digest()
    expected = {
        "Content-Type": "application/octet-stream",
        "Content-Length": "100",
        "Digest": f"sha-256={base64.b64encode(sha256).decode()}",
        "Cache-Control": "private, max-age=2592000",
        "Accept-Ranges": "bytes",
        "ETag": f'"{sha256.hex()}"',
    }
    assert {name: headers.get(name, headers.get(name.capitalize())) for name in expected} == expected
    for wanted, part in {
        "bytes=0-9": (0, 10),
        "bytes=90-": (90, 100),
        "bytes=-5": (95, 100),
        "bytes=50-1000": (50, 100),
        "bytes=-1000": (0, 100),
        "Bytes = 7-7": (7, 8),
    }.items():
        status, headers, body = ask(path, wanted)
        assert (status, body) == (206, data[slice(*part)]), wanted
        assert headers["Content-Range"] == f"bytes {part[0]}-{part[1] - 1}/100"
        assert headers["Content-Length"] == str(len(body)) and "Digest" not in headers
    for wanted in ("bytes=100-", "bytes=1-2,4-5", "bytes=-0", "bytes=200-300"):
        status, headers, body = ask(path, wanted)
        assert (status, body, headers["Content-Length"]) == (416, b"", "0"), wanted
    for wanted in ("bytes=9-1", "bytes", "bytes=", "items=0-1", "bytes=a-b", "bytes=--1"):
        assert ask(path, wanted)[::2] == (200, data), wanted
    for wanted in ("bytes=0-", "bytes=-1", "bytes=0-1,3-4"):
        status, headers, body = ask(empty, wanted)
        assert (status, body, headers["Content-Length"]) == (200, b"", "0")
        assert "Content-Range" not in headers
    status, headers, body = ask(path, "bytes=1-3", "HEAD")
    assert (status, headers["Content-Length"], body) == (206, "3", b"")
    status, headers, body = ask(path, None, "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "100", b"")


def test_conditional_requests(files: Server) -> None:
    """A known ETag answers 304; ``If-Range`` with another one sends the whole."""
    _, path = stored(files, b"0123456789")
    tag = f'"{hashlib.sha256(b"0123456789").hexdigest()}"'
    for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        status, headers, body = files.request("GET", path, headers={"If-None-Match": known})
        assert (status, body) == (304, b"") and headers["ETag"] == tag
    assert files.request("GET", path, headers={"If-None-Match": '"other"'})[0] == 200
    assert files.request("GET", path, headers={"If-Range": tag, "Range": "bytes=0-1"})[0] == 206
    assert files.request("GET", path, headers={"If-Range": '"old"', "Range": "bytes=0-1"})[0] == 200


def test_upload_errors_leave_nothing(files: Server) -> None:
    """Bad tokens, headers and digests are refused with their codes; nothing of such an upload is kept."""
    before = contents(files)
    good = base64.b64encode(hashlib.sha256(b"abc").digest()).decode()
    wrong = base64.b64encode(hashlib.sha256(b"xyz").digest()).decode()
    for token in ("", "nonsense", "AQ" * 40):
        status, _, body = files.request("POST", f"/api/storage/upload?token={token}", b"abc")
        assert (status, json.loads(body)["code"]) == (401, "StorageTokenInvalid")
    status, answer = upload(files, b"abc", {"Digest": f"sha-256={wrong}"})
    assert (status, answer) == (
        400,
        {"code": "Sha256Mismatch", "message": f"Sha256 mismatch. Expected: {wrong} Actual: {good}"},
    )
    for name, value in {"Digest": "md5=abc", "digest": "sha-256=zzz", "Content-Type": "no media type"}.items():
        status, answer = upload(files, b"abc", {name: value})
        assert (status, answer["code"]) == (400, "BadHeader"), (name, answer)
        assert answer["message"].startswith(f"Bad header for {name.lower()}: ")
    assert contents(files) == before
    assert upload(files, b"abc", {"Digest": f"SHA-256={good}"})[0] == 200
    assert files.request("GET", "/api/storage/nonsense")[0] == 400


def test_pages_from_elsewhere_may_upload_and_fetch(files: Server) -> None:
    """CORS: another origin's preflight, upload and download are allowed. Documents with scripts get an origin of their own."""
    _, path = stored(files, b"<script>", "text/html")
    headers = {"Origin": "http://elsewhere.example"}
    status, answer, _ = files.request("OPTIONS", "/api/storage/upload?token=x", headers=headers)
    assert status == 200 and answer["Access-Control-Allow-Origin"] == "http://elsewhere.example"
    status, answer, _ = files.request("GET", path, headers=headers)
    assert answer["Access-Control-Allow-Origin"] == "http://elsewhere.example"
    assert answer["Content-Security-Policy"].startswith("sandbox ")
    _, plain = stored(files, b"text")
    assert "Content-Security-Policy" not in files.request("GET", plain)[1]


def test_a_cut_upload_leaves_nothing(files: Server) -> None:
    """A client that goes away in the middle of its body leaves neither a file nor bytes on the disk."""
    before, listed = contents(files), files.value("query", "files:system")["all"]
    url = urlsplit(files.value("mutation", "files:generateUploadUrl"))
    with socket.create_connection(("127.0.0.1", files.port)) as client:
        head = f"POST {url.path}?{url.query} HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n"
        client.sendall(head.encode() + bytes(3_000_000))
        deadline = time.monotonic() + 10
        while contents(files) == before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(contents(files)) == len(before) + 1
    while contents(files) != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert contents(files) == before
    assert files.value("query", "files:system")["all"] == listed


def test_a_download_survives_the_deletion_of_its_file(files: Server) -> None:
    """A reader that is slower than the deletion of the file gets all of it; a new one gets 404."""
    data = os.urandom(8_000_000)
    id, path = stored(files, data)
    with socket.create_connection(("127.0.0.1", files.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        received = client.recv(1000)
        files.value("mutation", "files:remove", {"id": id})
        assert files.request("GET", path)[0] == 404
        while piece := client.recv(1 << 20):
            received += piece
    assert received.partition(b"\r\n\r\n")[2] == data


def test_a_paused_deployment_neither_takes_nor_gives_files(files: Server) -> None:
    """While the deployment is paused uploads and downloads answer 400 ``BackendIsNotRunning``."""
    _, path = stored(files, b"data")
    url = urlsplit(files.value("mutation", "files:generateUploadUrl"))
    admin = {"Authorization": f"Convex {ADMIN_KEY}"}
    assert files.request("POST", "/api/v1/pause_deployment", {}, admin)[0] == 200
    try:
        for method, target, body in (("GET", path, None), ("POST", f"{url.path}?{url.query}", b"x")):
            status, _, answer = files.request(method, target, body)
            assert (status, json.loads(answer)["code"]) == (400, "BackendIsNotRunning")
    finally:
        assert files.request("POST", "/api/v1/unpause_deployment", {}, admin)[0] == 200
    assert files.request("GET", path)[0] == 200


def test_kill_in_an_upload_leaves_nothing(files_app: Path, tmp_path: Path) -> None:
    """After ``kill -9`` in the middle of an upload, the next start has the finished files and no trace of the other."""
    with running(tmp_path) as server:
        convex(files_app, server, "dev", "--once")
        _, path = stored(server, b"finished")
        before = contents(server)
        url = urlsplit(server.value("mutation", "files:generateUploadUrl"))
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            head = f"POST {url.path}?{url.query} HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n"
            client.sendall(head.encode() + bytes(3_000_000))
            deadline = time.monotonic() + 10
            while contents(server) == before and time.monotonic() < deadline:
                time.sleep(0.01)
            assert len(contents(server)) == len(before) + 1
            server.kill()
        # A blob whose commit never came, as a kill between the two leaves it.
        orphan = server.folder / "convex_local_storage" / "files" / "ab" / "abababab-0000-4000-8000-000000000000"
        orphan.parent.mkdir(exist_ok=True)
        orphan.write_bytes(b"orphan")
        server.start()
        deadline = time.monotonic() + 20
        while contents(server) != before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert contents(server) == before
        assert server.request("GET", path)[2] == b"finished"
        server.stop()
