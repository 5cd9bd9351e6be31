"""Files over HTTP: bodies in pieces both ways, and what is answered before them. Over a real file storage in memory."""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import urlsplit

import pytest
from twisted.internet.defer import Deferred

from convex_backend.application.sealing import Sealer
from convex_backend.errors import BadRequest
from convex_backend.web.content_range import Part, RangeNotSatisfiable, has_tag, parse_range
from convex_backend.web.storage_api import STALL_SECONDS
from tests.application.files_support import make_files
from tests.database.documents import Store, run
from tests.storage.memory_blobs import MemoryBlobs, MemoryReader
from tests.web.support import Bench, Connection

TAG = f'"{hashlib.sha256(b"hello").hexdigest()}"'


class FilesBench(Bench):
    """A site whose application has file storage."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.blobs = MemoryBlobs()
        self.paused: Exception | None = None
        self.files = make_files(self.store, Sealer(bytes(32), "tests"), self.blobs, self._check)
        self.application.files = self.files  # type: ignore[attr-defined]

    def _check(self) -> None:
        if self.paused is not None:
            raise self.paused

    def target(self) -> str:
        """Path and query of a new upload URL."""
        url = urlsplit(self.files.upload_url(0))
        return f"{url.path}?{url.query}"

    def put(self, data: bytes, content_type: str | None = None) -> str:
        """A stored file. :returns: the path of its URL."""
        return urlsplit(run(self.files.url(None, 0, run(self.files.store(None, 0, data, content_type, None))))).path

    def turn(self) -> None:
        self.clock.advance(0.001)


@pytest.fixture
def bench():
    bench = FilesBench()
    yield bench
    run(bench.store.db.stop())


def test_upload(bench: FilesBench) -> None:
    """A body that comes in pieces becomes a file of the type that was sent; the connection goes on with the next request."""
    connection = bench.connect()
    connection.send(bench.head("POST", bench.target(), {"Content-Type": "Text/Plain; charset=UTF-8"}, 5))
    for piece in (b"he", b"l", b"lo"):
        bench.turn()
        connection.send(piece)
    bench.turn()
    answer = connection.answer()
    assert answer is not None and answer.status == 200
    assert set(answer.json) == {"storageId"}
    assert answer.headers["content-type"] == "application/json"
    data, content_type = run(bench.files.load(None, 0, answer.json["storageId"], 100))
    assert (data, content_type) == (b"hello", "Text/Plain; charset=UTF-8")
    connection.send(bench.head("GET", "/version", {}, None))
    following = connection.answer()
    assert following is not None and following.body == b"1.2.3"


def test_an_empty_body_is_a_file(bench: FilesBench) -> None:
    """Without a length, and with one of zero; a chunked body counts by its bytes."""
    for head, body in (
        ({}, b""),
        ({"Content-Length": "0"}, b""),
        ({"Transfer-Encoding": "chunked"}, b"2\r\nhi\r\n0\r\n\r\n"),
    ):
        connection = bench.connect()
        connection.send(bench.head("POST", bench.target(), head, None) + body)
        bench.turn()
        answer = connection.answer()
        assert answer is not None and answer.status == 200, head
        data, content_type = run(bench.files.load(None, 0, answer.json["storageId"], 100))
        assert (data, content_type) == (b"hi" if body else b"", None)


def test_a_body_is_stored_as_it_is_sent(bench: FilesBench) -> None:
    """An encoded body is not unpacked; a client that waits for leave to send its body gets it."""
    connection = bench.connect()
    head = {"Content-Encoding": "gzip", "Content-Type": "text/plain", "Expect": "100-continue"}
    connection.send(bench.head("POST", bench.target(), head, 5))
    assert connection.transport.value() == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.transport.clear()
    bench.turn()
    connection.send(b"hello")
    bench.turn()
    answer = connection.answer()
    assert answer is not None and answer.status == 200
    assert run(bench.files.load(None, 0, answer.json["storageId"], 100)) == (b"hello", "text/plain")


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"Content-Type": "nonsense"}, "content-type"),
        ({"Content-Type": "text/"}, "content-type"),
        ({"Content-Type": "text/plain; x"}, "content-type"),
        ({"Content-Type": "text/plain; x=\xff"}, "content-type"),
        # Neither would be looked at to the end if blanks or parameters could be read in two ways.
        ({"Content-Type": "text/plain" + "; " * 4000 + "("}, "content-type"),
        ({"Content-Type": "text/plain" + "; a = b " * 1000 + "("}, "content-type"),
        ({"Digest": ""}, "digest"),
        ({"Digest": "sha-256=" + "A" * 42 + "=="}, "digest"),
        ({"Digest": "sha-256=" + "A" * 42 + "B="}, "digest"),
        ({"Digest": "sha-512=" + "A" * 43 + "="}, "digest"),
    ],
)
def test_bad_headers(bench: FilesBench, headers: dict[str, str], name: str) -> None:
    """A header that cannot be understood refuses the upload before its body is looked at."""
    connection = bench.connect()
    connection.send(bench.head("POST", bench.target(), headers, 5) + b"hello")
    bench.turn()
    answer = connection.answer()
    assert answer is not None
    assert answer.error == (400, "BadHeader")
    assert answer.json["message"].startswith(f"Bad header for {name}: ")
    assert not bench.blobs.blobs and not bench.blobs.writing


def test_a_bad_token_is_answered_before_the_body(bench: FilesBench) -> None:
    """Who may not store need not send everything first: 401 comes with the body under way. A missing token is a bad query."""
    connection = bench.connect()
    connection.send(bench.head("POST", "/api/storage/upload?token=x", {}, 1 << 30) + bytes(1000))
    bench.turn()
    data = connection.transport.value()
    assert data.startswith(b"HTTP/1.1 401") and b"StorageTokenInvalid" in data
    assert not bench.blobs.writing
    connection.lose()
    assert bench.begin("POST", "/api/storage/upload", b"").answer().error == (400, "BadQueryArgs")  # type: ignore[union-attr]


def test_a_client_that_goes_away(bench: FilesBench) -> None:
    """The upload is given up with its connection; nothing is in flight any more."""
    connection = bench.connect()
    connection.send(bench.head("POST", bench.target(), {}, 100) + b"hello")
    bench.turn()
    assert bench.blobs.writing and bench.in_flight == 1
    connection.lose()
    bench.turn()
    assert not bench.blobs.writing and not bench.blobs.blobs
    assert bench.in_flight == 0


def test_a_long_upload_is_not_timed_out(bench: FilesBench) -> None:
    """As long as bytes come the upload goes on, for longer than other requests may take."""
    connection = bench.connect()
    connection.send(bench.head("POST", bench.target(), {}, 10))
    for _ in range(10):
        bench.clock.advance(200)
        connection.send(b"x")
    bench.turn()
    answer = connection.answer()
    assert answer is not None and answer.status == 200


def test_paused(bench: FilesBench) -> None:
    """Both ways are closed while the deployment is paused."""
    path, target = bench.put(b"hello"), bench.target()
    bench.paused = BadRequest("BackendIsNotRunning", "Cannot perform this operation when the backend is not running")
    assert bench.ask("GET", path).error == (400, "BackendIsNotRunning")
    connection = bench.connect()
    connection.send(bench.head("POST", target, {}, 5) + b"hello")
    bench.turn()
    answer = connection.answer()
    assert answer is not None and answer.error == (400, "BackendIsNotRunning")


def test_whole_file(bench: FilesBench) -> None:
    """Status and headers of a whole file; HEAD has the same without the bytes; a file of unknown type has no type."""
    path = bench.put(b"hello", "image/png")
    answer = bench.ask("GET", path)
    assert (answer.status, answer.body) == (200, b"hello")
    expected = {
        "content-type": "image/png",
        "content-length": "5",
        "digest": "sha-256=LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=",
        "cache-control": "private, max-age=2592000",
        "accept-ranges": "bytes",
        "etag": TAG,
    }
    assert {name: answer.headers.get(name) for name in expected} == expected
    head = bench.ask("HEAD", path)
    assert {name: head.headers.get(name) for name in expected} == expected
    assert (head.status, head.body) == (200, b"")
    assert "content-type" not in bench.ask("GET", bench.put(b"x")).headers
    assert bench.blobs.open_readers == 0


def test_not_found(bench: FilesBench) -> None:
    """A well-formed UUID that is no file's is 404, anything else 400."""
    assert bench.ask("GET", "/api/storage/00000000-0000-4000-8000-000000000000").error == (404, "FileNotFound")
    for path in ("upload", "x", "00000000-0000-4000-8000-00000000000", "a/b", "%C3%A9"):
        answer = bench.ask("GET", f"/api/storage/{path}")
        assert answer.error == (400, "InvalidStoragePath"), path
    assert bench.ask("GET", "/api/storage/a%20b").json["message"].startswith('Invalid storage path: "a b". Please use')


@pytest.mark.parametrize(
    ("content_type", "active"),
    [
        (None, True),
        ("Text/HTML", True),
        ("image/svg+xml", True),
        ("application/rss+xml; a=b", True),
        ("unknown/unknown", True),
        ("multipart/x-mixed-replace", True),
        ("text/plain", False),
        ("image/png", False),
        ("application/pdf", False),
        ("application/octet-stream", False),
    ],
)
def test_files_run_no_scripts_in_this_origin(bench: FilesBench, content_type: str | None, active: bool) -> None:
    """Whatever a browser would show as a page with scripts is sandboxed; everything else is sent as it is."""
    answer = bench.ask("GET", bench.put(b"<script>1</script>", content_type))
    assert ("content-security-policy" in answer.headers) is active


def test_partial_and_conditional(bench: FilesBench) -> None:
    """A range is 206 with its part, one outside 416 without a body, a known tag 304 without a body."""
    path = bench.put(b"hello", "text/html; charset=utf-8")
    answer = bench.ask("GET", path, headers={"Range": "bytes=1-3"})
    assert (answer.status, answer.body) == (206, b"ell")
    assert answer.headers["content-range"] == "bytes 1-3/5"
    assert "digest" not in answer.headers
    assert answer.headers["content-security-policy"].startswith("sandbox ")
    answer = bench.ask("GET", path, headers={"Range": "bytes=5-"})
    assert (answer.status, answer.body, answer.headers["content-range"]) == (416, b"", "bytes */5")
    connection = bench.begin("GET", path, headers={"If-None-Match": f"{TAG}"})
    assert connection.transport.value().startswith(b"HTTP/1.1 304")
    answer = bench.ask("GET", path, headers={"If-Range": '"other"', "Range": "bytes=1-3"})
    assert (answer.status, answer.body) == (200, b"hello")


class SlowReader(MemoryReader):
    """Gives each piece when it is asked to."""

    gates: list[Deferred[None]]

    def read(self, offset: int, count: int) -> Deferred[bytes]:
        gate: Deferred[None] = Deferred()
        self.gates.append(gate)
        return gate.addCallback(lambda _: super(SlowReader, self).read(offset, count))


def downloading(
    bench: FilesBench, monkeypatch: pytest.MonkeyPatch, size: int
) -> tuple[Connection, list[Deferred[None]]]:
    """A download of *size* bytes whose reads wait for their gates."""
    path = bench.put(bytes(size))
    gates: list[Deferred[None]] = []
    (data,) = bench.blobs.blobs.values()

    def open_blob(key: str) -> Deferred[Any]:
        reader = SlowReader(bench.blobs, data)
        reader.gates = gates
        made: Deferred[Any] = Deferred()
        made.callback(reader)
        return made

    monkeypatch.setattr(bench.blobs, "open", open_blob)
    return bench.begin("GET", path), gates


def test_a_slow_reader_holds_the_disk(bench: FilesBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read ahead of a client that does not take what was sent; it goes on when the client does."""
    connection, gates = downloading(bench, monkeypatch, 1 << 20)
    connection.transport.producer.pauseProducing()
    gates.pop().callback(None)
    assert not gates
    bench.clock.advance(STALL_SECONDS - 1)
    connection.transport.producer.resumeProducing()
    total = 0
    while gates:
        gates.pop().callback(None)
        total += 1
    assert total == 3
    answer = connection.answer()
    assert answer is not None and len(answer.body) == 1 << 20
    assert bench.blobs.open_readers == 0 and bench.in_flight == 0


def test_a_stalled_reader_is_cut_off(bench: FilesBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that takes nothing for long loses its connection."""
    connection, gates = downloading(bench, monkeypatch, 1 << 20)
    connection.transport.producer.pauseProducing()
    gates.pop().callback(None)
    bench.clock.advance(STALL_SECONDS)
    assert connection.transport.disconnecting or connection.transport.disconnected or connection.transport.aborting
    assert bench.blobs.open_readers == 0 and bench.in_flight == 0


def test_a_client_that_leaves_in_a_download(bench: FilesBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is let go of."""
    connection, gates = downloading(bench, monkeypatch, 1 << 20)
    gates.pop().callback(None)
    assert bench.blobs.open_readers == 1
    connection.lose()
    assert bench.blobs.open_readers == 0 and bench.in_flight == 0


@pytest.mark.parametrize(
    ("header", "size", "part"),
    [
        (None, 10, None),
        ("", 10, None),
        ("bytes=0-0", 10, Part(0, 1)),
        ("bytes=3-", 10, Part(3, 10)),
        ("bytes=-3", 10, Part(7, 10)),
        ("bytes=-30", 10, Part(0, 10)),
        ("bytes=3-99", 10, Part(3, 10)),
        (" BYTES = 3-4 ", 10, Part(3, 5)),
        ("bytes=3-4,", 10, Part(3, 5)),
        ("bytes=4-3", 10, None),
        ("bytes=-", 10, None),
        ("bytes=1", 10, None),
        ("bytes=1-2-3", 10, None),
        ("bytes=x-2", 10, None),
        ("lines=1-2", 10, None),
        ("bytes=1-2,x", 10, None),
        ("bytes=0-", 0, None),
        ("bytes=0-1,2-3", 0, None),
        ("bytes=9-", 10, Part(9, 10)),
        ("bytes=10-", 10, RangeNotSatisfiable),
        ("bytes=-0", 10, RangeNotSatisfiable),
        ("bytes=0-1,2-3", 10, RangeNotSatisfiable),
    ],
)
def test_parse_range(header: str | None, size: int, part: Any) -> None:
    """One satisfiable range, the whole file, or a refusal."""
    if part is RangeNotSatisfiable:
        with pytest.raises(RangeNotSatisfiable):
            parse_range(header, size)
    else:
        assert parse_range(header, size) == part


def test_has_tag() -> None:
    """Tags in a list, weak ones too, and the star."""
    for header in ('"a"', 'W/"a"', '"b", "a"', '"b",W/"a"', "*", " * "):
        assert has_tag(header, '"a"'), header
    for header in (None, "", '"b"', "a", '"aa"'):
        assert not has_tag(header, '"a"'), header
