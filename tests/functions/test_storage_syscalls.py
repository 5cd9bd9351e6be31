"""Syscalls of file storage: what they answer, their limits in mutations, and contents on streams of a call."""

from __future__ import annotations

import base64
import random
from typing import Any

import orjson
import pytest
from twisted.internet.defer import Deferred

from convex_backend.application.sealing import Sealer
from convex_backend.deferreds import from_coroutine
from convex_backend.errors import BadRequest, ConvexError, PaginationLimit
from convex_backend.functions import frames
from convex_backend.functions.context import CallContext, CallServices, CallTree, DeploymentInfo, RequestInfo
from convex_backend.functions.directory import Environment
from convex_backend.functions.streams import WINDOW_BYTES, CallStreams
from convex_backend.functions.syscalls import full_table
from convex_backend.functions.syscalls.storage import FIRST_STREAM, MAX_GET_BYTES
from convex_backend.interfaces import Outcome
from tests.application.files_support import CLOUD, make_files
from tests.database.documents import Store, run
from tests.functions.test_syscalls import Directory, function
from tests.storage.memory_blobs import MemoryBlobs

TABLE = full_table()


class StreamLink:
    """A call's child: notes what it is sent on streams."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int, bytes, bytes]] = []

    def send_stream(self, kind: int, stream: int, meta: bytes, body: bytes) -> None:
        self.sent.append((kind, stream, meta, body))

    def content(self, stream: int) -> bytes:
        return b"".join(body for kind, number, _, body in self.sent if kind == frames.DATA and number == stream)

    def granted(self, stream: int) -> int:
        return sum(
            orjson.loads(meta).get("bytes", 0)
            for kind, number, meta, _ in self.sent
            if kind == frames.WINDOW and number == stream
        )


class World:
    """One running call with files behind it."""

    def __init__(self, kind: str) -> None:
        self.store = Store()
        self.blobs = MemoryBlobs()
        self.files = make_files(self.store, Sealer(bytes(32), "tests"), self.blobs)
        self.link = StreamLink()
        self.streams = CallStreams()
        self.transaction: Any = self.store.db.begin(kind) if kind in ("query", "mutation") else None
        services = CallServices(
            directory=Directory(),
            deployment=DeploymentInfo("tests"),
            random_bytes=random.Random(1).randbytes,
            now_ms=lambda: 0,
            seal=lambda data: data.hex(),
            unseal=bytes.fromhex,
            files=self.files,
        )
        names = self.store.db.catalogs.newest.names
        tree = CallTree(services, self.transaction, RequestInfo("id"), names, lambda component: {})
        tree.streams = self.streams
        self.context = CallContext(tree, function(kind=kind), Environment({}, "1"), TABLE)
        self.context.begin(self.link)  # type: ignore[arg-type]

    def start(self, op: str, **args: Any) -> Deferred[Any]:
        made: Deferred[Any] = from_coroutine(self.context.syscall(op, orjson.dumps(args), None))
        return made.addCallback(lambda reply: orjson.loads(reply.body))

    def call(self, op: str, **args: Any) -> Any:
        return orjson.loads(run(self.context.syscall(op, orjson.dumps(args), None)).body)

    def error(self, op: str, **args: Any) -> str:
        with pytest.raises(ConvexError) as caught:
            run(self.context.syscall(op, orjson.dumps(args), None))
        return caught.value.message

    def send(self, stream: int, data: bytes, **meta: Any) -> None:
        """A DATA frame of the child."""
        self.context.stream_frame(frames.DATA, stream, orjson.dumps(meta) if meta else b"", data)

    def grant(self, stream: int, size: int) -> None:
        """The child has read so much."""
        self.context.stream_frame(frames.WINDOW, stream, orjson.dumps({"bytes": size}), b"")


def test_answers() -> None:
    """Each call answers in its official form; missing files are null or an error of ``delete``."""
    world = World("mutation")
    blob = base64.b64encode(b"hello").decode()
    id = world.call("1.0/storageStore", blob=blob, contentType="", requestId="r")
    metadata = world.call("1.0/storageGetMetadata", storageId=id)
    assert set(metadata) == {"storageId", "sha256", "size", "contentType"}
    assert (metadata["size"], metadata["contentType"]) == (5, None)
    assert world.call("1.0/storageGetUrl", storageId=id) == f"{CLOUD}/api/storage/{metadata['storageId']}"
    assert world.call("1.0/storageGet", storageId=id) == {"blob": blob, "contentType": None}
    assert world.call("1.0/storageGenerateUploadUrl").startswith(f"{CLOUD}/api/storage/upload?token=")
    assert world.call("1.0/storageDelete", storageId=id) is None
    assert world.call("1.0/storageGet", storageId=id) is None
    assert world.error("1.0/storageDelete", storageId=id) == f"storage id {id} not found"
    assert world.error("1.0/storageGetUrl") == "Invalid arguments for `storage.getUrl`: missing field `storageId`"
    assert world.error("1.0/storageStore", blob="?") == "Invalid argument `blob` for `storage.store`: expected base64"
    text = world.error("1.0/storageStore", blob=blob, sha256="x")
    assert text == "Sha256 mismatch. Expected: x Actual: LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="


@pytest.mark.parametrize(
    ("kind", "allowed"),
    [
        ("query", {"1.0/storageGetUrl", "1.0/storageGetMetadata"}),
        (
            "mutation",
            {
                "1.0/storageGetUrl",
                "1.0/storageGetMetadata",
                "1.0/storageGenerateUploadUrl",
                "1.0/storageDelete",
                "1.0/storageStore",
                "1.0/storageGet",
            },
        ),
        (
            "action",
            {
                "1.0/storageGetUrl",
                "1.0/storageGetMetadata",
                "1.0/storageGenerateUploadUrl",
                "1.0/storageDelete",
                "storage/store",
                "storage/get",
            },
        ),
    ],
)
def test_kinds(kind: str, allowed: set[str]) -> None:
    """Which kinds of functions may do what."""
    assert {name for name in TABLE.names(kind) if "torage" in name} == allowed
    assert TABLE.names("action") == TABLE.names("httpAction")


def test_limits_of_a_mutation() -> None:
    """Files count with their bytes in the metrics that npm 1.48 names; over a ceiling the call fails, and is counted."""
    world = World("mutation")
    world.transaction.counters.lower({"filesWritten": 2, "fileWriteBytes": 10, "filesRead": 2, "fileReadBytes": 8})
    blob = base64.b64encode(b"12345").decode()
    id = world.call("1.0/storageStore", blob=blob)
    assert world.call("1.0/storageStore", blob=blob)
    assert world.error("1.0/storageStore", blob="").startswith("Too many files stored")
    assert world.call("1.0/storageGet", storageId=id)
    with pytest.raises(PaginationLimit, match="Too many bytes of files read"):
        run(world.context.syscall("1.0/storageGet", orjson.dumps({"storageId": id}), None))
    metrics = world.call("1.0/getTransactionMetrics")
    assert metrics["filesWritten"] == {"used": 3, "remaining": -1}
    assert metrics["fileWriteBytes"] == {"used": 10, "remaining": 0}
    assert metrics["filesRead"] == {"used": 2, "remaining": 0}
    assert metrics["fileReadBytes"] == {"used": 10, "remaining": -2}
    assert metrics["documentsWritten"]["used"] == 0
    assert "maximum: 8 bytes" in _too_large(world)


def _too_large(world: World) -> str:
    world.transaction.counters.lower({"fileWriteBytes": 100, "filesWritten": 100})
    id = run(world.files.store(None, 0, b"123456789", None, None))
    fresh = World("mutation")
    fresh.files = world.files
    fresh.context.tree.services = world.context.tree.services
    fresh.transaction = world.store.db.begin("mutation")
    fresh.context.transaction = fresh.transaction
    fresh.transaction.counters.lower({"fileReadBytes": 8})
    return fresh.error("1.0/storageGet", storageId=id)


def test_a_blob_comes_by_a_stream() -> None:
    """The content is stored as it comes, the child gets room as it is taken, and the answer is the id."""
    world = World("action")
    answer = world.start("storage/store", stream=FIRST_STREAM, contentType="text/plain")
    for _ in range(10):
        world.send(FIRST_STREAM, bytes(32 * 1024))
    assert not answer.called
    assert world.link.granted(FIRST_STREAM) == 10 * 32 * 1024
    world.send(FIRST_STREAM, b"", end=True)
    data, content_type = run(world.files.load(None, 0, answer.result, 1 << 20))
    assert (data, content_type) == (bytes(10 * 32 * 1024), "text/plain")


def test_a_blob_goes_by_a_stream() -> None:
    """The content goes as the child grants room, and the answer follows it."""
    world = World("action")
    content = random.Random(2).randbytes(WINDOW_BYTES * 2 + 17)
    id = run(world.files.store(None, 0, content, "image/png", None))
    answer = world.start("storage/get", stream=FIRST_STREAM, storageId=id)
    assert not answer.called
    assert world.link.content(FIRST_STREAM) == content[:WINDOW_BYTES]
    world.grant(FIRST_STREAM, WINDOW_BYTES)
    world.grant(FIRST_STREAM, WINDOW_BYTES)
    assert answer.result == {"size": len(content), "contentType": "image/png"}
    assert world.link.content(FIRST_STREAM) == content
    assert world.link.sent[-1][2] == b'{"end":true}'
    assert world.blobs.open_readers == 0
    assert world.call("storage/get", stream=FIRST_STREAM + 1, storageId="0" * 8 + "-0000-4000-8000-" + "0" * 12) is None
    text = world.error("storage/get", stream=FIRST_STREAM + 2, storageId="x")
    assert text.startswith('Invalid argument `storageId` for `storage.get`: Invalid storage ID: "x".')


def test_a_file_larger_than_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not even begun to be sent; the content is let go of."""
    world = World("action")
    monkeypatch.setattr("convex_backend.functions.syscalls.storage.MAX_GET_BYTES", 4)
    id = run(world.files.store(None, 0, b"hello", None, None))
    assert world.error("storage/get", stream=FIRST_STREAM, storageId=id).startswith("The file has 5 bytes: more than")
    assert world.link.content(FIRST_STREAM) == b"" and world.blobs.open_readers == 0
    assert MAX_GET_BYTES == 64 << 20


def test_streams_of_other_things_are_not_taken() -> None:
    """A script that makes these calls itself cannot reach streams that carry HTTP bodies."""
    world = World("action")
    for stream in (0, 1, FIRST_STREAM - 1, 1 << 32, "x", None, True, 1.5):
        for op in ("storage/store", "storage/get"):
            assert "Invalid argument `stream`" in world.error(op, stream=stream, storageId="x")
    assert "missing field `stream`" in world.error("storage/store")


def test_the_end_of_a_call_ends_its_transfers() -> None:
    """A call that ends, whichever way, cancels its syscalls: nothing is stored, no content is held."""
    world = World("action")
    id = run(world.files.store(None, 0, bytes(WINDOW_BYTES * 3), None, None))
    storing = world.start("storage/store", stream=FIRST_STREAM)
    world.send(FIRST_STREAM, b"half")
    getting = world.start("storage/get", stream=FIRST_STREAM, storageId=id)
    assert world.blobs.writing and world.blobs.open_readers == 1
    for pending in (storing, getting):
        pending.addErrback(lambda failure: None)
        pending.cancel()
    assert not world.blobs.writing and world.blobs.open_readers == 0
    assert list(world.blobs.blobs.values()) == [bytes(WINDOW_BYTES * 3)]


def test_a_stream_that_breaks_off_stores_nothing() -> None:
    """What the child could not read is no file."""
    world = World("action")
    answer = world.start("storage/store", stream=FIRST_STREAM)
    world.send(FIRST_STREAM, b"half")
    failures: list[Any] = []
    answer.addErrback(failures.append)
    world.send(FIRST_STREAM, b"", error="no more")
    assert failures[0].check(BadRequest) and failures[0].value.message == "no more"
    assert not world.blobs.writing and not world.blobs.blobs


def test_outcomes_do_not_depend_on_files() -> None:
    """A query that asked for a URL depends on the file's rows, and on nothing else of file storage."""
    world = World("query")
    assert world.call("1.0/storageGetUrl", storageId="0" * 8 + "-0000-4000-8000-" + "0" * 12) is None
    outcome = world.context.complete(Outcome(b"null", None, (), frozenset(), 0.0))
    assert outcome.error is None
    since = world.store.db.committer.durable_ts
    world.store.insert("messages", {})
    ts = world.store.db.committer.durable_ts
    assert world.store.db.committer.write_log.conflict(world.transaction.read_token(), since, ts) is None
