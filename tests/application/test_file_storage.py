"""File storage over a database in memory: uploads, tokens, deletions, and the collection of contents that no file has."""

from __future__ import annotations

import base64
import hashlib
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from convex_backend.application import file_records
from convex_backend.application.file_collector import GRACE_SECONDS, SWEEP_SECONDS
from convex_backend.application.file_storage import TOKEN_SECONDS, FileStorage
from convex_backend.application.file_uploads import HIGH_BYTES
from convex_backend.application.sealing import Sealer
from convex_backend.deferreds import from_coroutine
from convex_backend.errors import BadRequest, ConvexError, NotFound, Overloaded, Unauthenticated
from convex_backend.values.ids import decode_id, encode_id
from tests.application.files_support import CLOUD, make_files
from tests.database.documents import Store, run
from tests.storage.memory_blobs import MemoryBlobs, MemoryWriter

SHA = base64.b64encode(hashlib.sha256(b"hello").digest()).decode()
NOBODY = "00000000-0000-4000-8000-000000000000"


class World:
    """A server's file storage. :ivar paused: the error that clients get meanwhile."""

    def __init__(self) -> None:
        self.store = Store()
        self.blobs = MemoryBlobs()
        self.sealer = Sealer(bytes(32), "tests")
        self.paused: Exception | None = None
        self.files: FileStorage = make_files(self.store, self.sealer, self.blobs, self._check)

    def _check(self) -> None:
        if self.paused is not None:
            raise self.paused

    def token(self, component: int = 0) -> str:
        return parse_qs(urlsplit(self.files.upload_url(component)).query)["token"][0]

    def upload(
        self, *pieces: bytes, token: str | None = None, sha256: str | None = None, type: str | None = None
    ) -> Any:
        upload = self.files.begin_upload(self.token() if token is None else token, type, sha256)
        for piece in pieces:
            upload.feed(piece)
        return run(upload.finish())

    def metric(self, name: str) -> float:
        return {
            "received": self.files.metrics.received_bytes,
            "sent": self.files.metrics.sent_bytes,
            "stored": self.files.metrics.stored,
            "deleted": self.files.metrics.deleted,
            "collected": self.files.metrics.collected,
            "uploads": self.files.metrics.uploads,
        }[name]._value.get()  # type: ignore[no-any-return]

    def add_component(self, component: int) -> str:
        """:returns: its public id."""
        transaction = self.store.system()
        row = {"component": component, "path": f"c{component}", "parent": 0, "name": f"c{component}", "state": "active"}
        run(transaction.system.insert("_components", row))
        self.store.commit(transaction)
        transaction = self.store.query()
        return run(file_records.component_identifier(transaction, component))


@pytest.fixture
def world():
    world = World()
    yield world
    run(world.files.collector.stop())
    run(world.store.db.stop())


def test_upload_and_download(world: World) -> None:
    """Bytes in pieces become a file with their digest, size and type; its URL's path finds it; equal bytes make another file."""
    file = world.upload(b"he", b"", b"llo", type="text/plain")
    assert decode_id(file.document_id)[0] == 540
    assert (file.sha256, file.size, file.content_type) == (SHA, 5, "text/plain")
    url = run(world.files.url(None, 0, file.document_id))
    assert url == f"{CLOUD}/api/storage/{file.uuid}"
    download = run(world.files.open_download(file.uuid.upper(), None))
    assert run(download.read(0, 100)) == b"hello"
    assert run(download.read(3, 100)) == b"lo"
    download.close()
    assert world.blobs.open_readers == 0
    document = run(world.store.query().virtual.get(0, "_storage", file.document_id))
    assert {name: document[name] for name in ("sha256", "size", "contentType")} == {
        "sha256": SHA,
        "size": 5.0,
        "contentType": "text/plain",
    }
    assert world.upload(b"hello").document_id != file.document_id
    assert (world.metric("received"), world.metric("sent"), world.metric("stored")) == (10, 7, 2)
    assert world.metric("uploads") == 0


def test_metadata(world: World) -> None:
    """``getMetadata`` tells hex digest, integral size and the UUID, for the id and the UUID alike."""
    file = world.upload(b"hello")
    expected = {
        "storageId": file.uuid,
        "sha256": hashlib.sha256(b"hello").hexdigest(),
        "size": 5,
        "contentType": None,
    }
    for name in (file.document_id, file.uuid, file.uuid.upper()):
        assert run(world.files.metadata(None, 0, name)) == expected
    assert run(world.files.metadata(None, 7, file.document_id)) is None
    for missing in (encode_id(540, bytes(16)), NOBODY):
        assert run(world.files.url(None, 0, missing)) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x", "Invalid storage ID: \"x\". Storage ID should be an Id of '_storage' table, or a UUID string."),
        (
            encode_id(10_001, bytes(16)),
            "Invalid storage ID. Storage ID cannot be an ID on any table other than '_storage'.",
        ),
        (
            encode_id(539, bytes(16)),
            "Invalid storage ID. Storage ID cannot be an ID on any table other than '_storage'.",
        ),
    ],
)
def test_what_is_no_storage_id(world: World, name: str, text: str) -> None:
    """What names no file of any deployment is an error, whatever is asked of it."""
    for ask in (world.files.url, world.files.metadata, world.files.delete):
        with pytest.raises(BadRequest) as caught:
            run(ask(None, 0, name))
        assert caught.value.message == text


def test_tokens(world: World) -> None:
    """A token may be used again for an hour; an old one, one of another deployment and any other text are refused with their codes."""
    token = world.token()
    assert world.upload(b"1", token=token).document_id != world.upload(b"2", token=token).document_id
    other = Sealer(bytes(32), "others").seal("storage-upload", b'{"component":0,"issued_ms":1}')
    purpose = world.sealer.seal("cursor", b'{"component":0,"issued_ms":1}')
    for wrong in ("", "nonsense", token[:-2] + "AA", other, purpose, world.sealer.seal("storage-upload", b"{}")):
        with pytest.raises(Unauthenticated) as caught:
            world.upload(b"1", token=wrong)
        assert (caught.value.code, caught.value.message) == (
            "StorageTokenInvalid",
            "Couldn't decode the StoreFileAuthorization token",
        )
    world.store.clock.ns += (TOKEN_SECONDS - 1) * 10**9
    world.upload(b"3", token=token)
    world.store.clock.ns += 2 * 10**9
    with pytest.raises(Unauthenticated) as caught:
        world.upload(b"4", token=token)
    assert (caught.value.code, caught.value.message) == ("StorageTokenExpired", "Store File Authorization expired")
    assert len(world.blobs.blobs) == 3 and not world.blobs.writing


def test_components_have_files_of_their_own(world: World) -> None:
    """A token carries its component; the URL of a child component's file names it, and only there the file is found."""
    identifier = world.add_component(7)
    file = world.upload(b"hello", token=world.token(7))
    url = run(world.files.url(None, 7, file.document_id))
    assert url == f"{CLOUD}/api/storage/{file.uuid}?component={identifier}"
    assert run(world.files.url(None, 0, file.document_id)) is None
    run(world.files.open_download(file.uuid, identifier)).close()
    for component in (None, encode_id(544, bytes(16)), "nonsense"):
        with pytest.raises(NotFound) as caught:
            run(world.files.open_download(file.uuid, component))
        assert caught.value.code == "FileNotFound"
    transaction = world.store.system()
    row = run(transaction.system.lookup("_components", "by_component", (7,)))
    run(transaction.system.patch("_components", row[0], {"state": "unmounted"}))
    world.store.commit(transaction)
    with pytest.raises(BadRequest, match="unmounted component"):
        world.upload(b"late", token=world.token(7))
    with pytest.raises(BadRequest, match="does not exist any more"):
        world.upload(b"late", token=world.token(8))
    run(world.files.open_download(file.uuid, identifier)).close()
    with pytest.raises(BadRequest) as refused:
        run(world.files.open_download("upload", None))
    assert refused.value.code == "InvalidStoragePath"
    assert refused.value.message.startswith('Invalid storage path: "upload". Please use')


def test_a_wrong_digest_leaves_nothing(world: World) -> None:
    """The digest is compared with that of what came; a right one passes."""
    assert world.upload(b"hello", sha256=SHA).sha256 == SHA
    with pytest.raises(BadRequest) as caught:
        world.upload(b"other", sha256=SHA)
    actual = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    assert (caught.value.code, caught.value.message) == (
        "Sha256Mismatch",
        f"Sha256 mismatch. Expected: {SHA} Actual: {actual}",
    )
    assert len(world.blobs.blobs) == 1
    assert run(world.store.query().count("_storage")) == 1


def test_aborted_and_failed_uploads_leave_nothing(world: World) -> None:
    """A sender that goes away, and a disk that is full, leave neither rows nor bytes."""
    upload = world.files.begin_upload(world.token(), None, None)
    upload.feed(b"x")
    assert world.blobs.writing
    assert world.metric("uploads") == 1
    upload.abort()
    upload.abort()
    upload.feed(b"more")
    failures: list[bool] = []
    upload = world.files.begin_upload(world.token(), None, None)
    upload.on_failure = lambda: failures.append(upload.failed)
    world.blobs.failure = OSError(28, "No space left on device")
    upload.feed(b"x")
    assert failures == [True]
    with pytest.raises(OSError, match="No space"):
        run(upload.finish())
    upload = world.files.begin_upload(world.token(), None, None)
    with pytest.raises(OSError, match="No space"):
        run(upload.finish())
    assert not world.blobs.writing and not world.blobs.blobs
    assert world.metric("uploads") == 0
    assert run(world.store.query().count("_storage")) == 0


class SlowWriter(MemoryWriter):
    """Writes when it is told to."""

    gates: list[Deferred[None]]

    def write(self, chunks: Any) -> Deferred[None]:
        gate: Deferred[None] = Deferred()
        self.gates.append(gate)
        return gate.addCallback(lambda _: super(SlowWriter, self).write(chunks))


def slow_disk(world: World, monkeypatch: pytest.MonkeyPatch) -> list[Deferred[None]]:
    """:returns: where each write of the next blob waits."""
    gates: list[Deferred[None]] = []

    def create() -> Deferred[Any]:
        writer = SlowWriter(world.blobs, "slow")
        writer.gates = gates
        made: Deferred[Any] = Deferred()
        made.callback(writer)
        return made

    monkeypatch.setattr(world.blobs, "create", create)
    return gates


def test_a_slow_disk_holds_the_sender(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the mark the feeder is asked to hold, and to go on when the disk has caught up; writes come one at a time and in order."""
    gates = slow_disk(world, monkeypatch)
    upload = world.files.begin_upload(world.token(), None, None)
    asked: list[bool] = []
    upload.hold = asked.append
    piece = bytes(128 * 1024)
    count = 0
    while not asked:
        upload.feed(piece)
        count += 1
    assert count == HIGH_BYTES // len(piece) + 1
    finished = from_coroutine(upload.finish())
    while not finished.called:
        assert len(gates) == 1, "one write at a time"
        gates.pop().callback(None)
    assert asked == [True, False]
    assert finished.result.size == count * len(piece)


def test_a_writer_that_waits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """``write`` returns when little enough waits for the disk."""
    gates = slow_disk(world, monkeypatch)
    upload = world.files.begin_store(0, None, None)
    assert from_coroutine(upload.write(b"x")).called
    waiting = from_coroutine(upload.write(bytes(HIGH_BYTES)))
    assert not waiting.called
    while gates:
        gates.pop().callback(None)
    assert waiting.called
    assert run(upload.finish()).size == HIGH_BYTES + 1


def test_too_many_uploads(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a further upload is told to come again; when others have ended it is taken."""
    monkeypatch.setattr("convex_backend.application.file_storage.MAX_UPLOADS", 2)
    others = [world.files.begin_upload(world.token(), None, None) for _ in range(2)]
    with pytest.raises(Overloaded) as caught:
        world.upload(b"x")
    assert caught.value.code == "TooManyUploads"
    others[0].abort()
    assert world.upload(b"x").size == 1
    assert run(others[1].finish()).size == 0


def test_a_paused_deployment(world: World) -> None:
    """Clients get the pause's error for uploads and downloads; functions go on."""
    file = world.upload(b"hello")
    world.paused = BadRequest("BackendIsNotRunning", "paused")
    with pytest.raises(BadRequest, match="paused"):
        world.upload(b"x")
    with pytest.raises(BadRequest, match="paused"):
        run(world.files.open_download(file.uuid, None))
    assert run(world.files.url(None, 0, file.document_id)) is not None
    assert len(world.blobs.blobs) == 1


def test_deletion_in_a_transaction(world: World) -> None:
    """A function's deletion is part of its transaction: seen by itself, by others after the commit; readers of the URL are invalidated."""
    file = world.upload(b"hello")
    reader = world.store.query()
    assert run(world.files.url(reader, 0, file.document_id))
    since = world.store.db.committer.durable_ts
    transaction = world.store.mutation()
    before = transaction.metrics()
    assert run(world.files.delete(transaction, 0, file.uuid)) is True
    assert run(world.files.url(transaction, 0, file.document_id)) is None
    assert run(world.files.delete(transaction, 0, file.document_id)) is False
    assert transaction.metrics() == before, "files count nothing against the limits of documents"
    assert run(world.files.url(None, 0, file.document_id)) is not None
    ts = world.store.commit(transaction)
    assert run(world.files.url(None, 0, file.document_id)) is None
    assert world.store.db.committer.write_log.conflict(reader.read_token(), since, ts) is not None


def test_a_missing_file_is_depended_upon(world: World) -> None:
    """A query that found no file is told when it comes to be."""
    reader = world.store.query()
    assert run(world.files.url(reader, 0, NOBODY)) is None
    since = world.store.db.committer.durable_ts
    world.upload(b"hello")
    # Another file's row is of no concern; the first document of all is, since the table was not there.
    assert run(world.files.metadata(reader, 0, NOBODY)) is None
    transaction = world.store.system()
    run(
        transaction.system.insert(
            "_file_storage", {"component": 0, "document": encode_id(540, bytes(16)), "uuid": NOBODY, "blob": "b"}
        )
    )
    ts = world.store.commit(transaction)
    assert world.store.db.committer.write_log.conflict(reader.read_token(), since, ts) is not None


def test_actions_store_and_delete_in_commits_of_their_own(world: World) -> None:
    """Without a transaction each operation is durable when it returns, and conflicts are tried again."""
    first = world.store.system()
    run(first.virtual.insert(0, "_storage", {"sha256": SHA, "size": 0.0, "contentType": None}))
    document_id = run(world.files.store(None, 0, b"hello", None, SHA))
    assert run(world.files.load(None, 0, document_id, 5)) == (b"hello", None)
    with pytest.raises(BadRequest, match="maximum: 4 bytes"):
        run(world.files.load(None, 0, document_id, 4))
    assert run(world.files.load(None, 0, NOBODY, 4)) is None
    assert run(world.files.delete(None, 0, document_id)) is True
    assert run(world.files.load(None, 0, document_id, 5)) is None
    with pytest.raises(ConvexError):
        world.store.commit(first)
    assert world.metric("deleted") == 1


def test_contents_of_deleted_files_go_after_a_while(world: World) -> None:
    """The blob stays for the time that an older snapshot's reader may need it, then it goes, once."""
    world.files.collector.start()
    file = world.upload(b"hello")
    world.store.timers.advance(GRACE_SECONDS + 30)
    reader = run(world.files.open_download(file.uuid, None))
    run(world.files.delete(None, 0, file.document_id))
    world.store.timers.advance(GRACE_SECONDS - 1)
    assert list(world.blobs.blobs) == [file.blob]
    world.store.timers.advance(31)
    assert not world.blobs.blobs
    assert run(reader.read(0, 5)) == b"hello"
    reader.close()
    assert world.metric("collected") == 1


def test_a_sweep_removes_what_no_file_has(world: World) -> None:
    """At start, and now and then, contents without rows go, also those that nobody saw being left; all others stay."""
    kept = [world.upload(b"hello").blob for _ in range(3)]
    world.blobs.blobs.update({f"{digit:x}0000000-lost": b"x" for digit in range(16)})
    world.files.collector.start()
    world.store.timers.pump([0.1] * 100)
    assert sorted(world.blobs.blobs) == sorted(kept)
    world.blobs.blobs["00000000-lost"] = b"y"
    world.store.timers.advance(60)
    assert "00000000-lost" in world.blobs.blobs
    world.store.timers.pump([20.0] * int(SWEEP_SECONDS / 20 + 5))
    assert sorted(world.blobs.blobs) == sorted(kept)
    assert world.metric("collected") == 17


def test_a_sweep_spares_what_is_in_use(world: World) -> None:
    """Contents that are being written, or whose rows are in a transaction that has yet to commit, stay; once the transaction has failed
    and the time is over they go."""
    upload = world.files.begin_upload(world.token(), None, None)
    upload.feed(b"x")
    deleted = world.upload(b"deleted")
    transaction = world.store.mutation()
    document_id = run(world.files.store(transaction, 0, b"in a mutation", None, None))
    deleting = world.store.mutation()
    run(world.files.delete(deleting, 0, deleted.document_id))
    world.files.collector.start()
    world.store.timers.pump([0.1] * 100)
    assert sorted(world.blobs.blobs.values()) == [b"deleted", b"in a mutation"]
    deleting.close()
    store_ts = world.store.commit(transaction)
    assert store_ts and run(world.files.load(None, 0, document_id, 100)) == (b"in a mutation", None)
    failed = world.store.mutation()
    run(world.files.store(failed, 0, b"failed", None, None))
    failed.close()
    world.store.timers.pump([15.0] * int(SWEEP_SECONDS / 15 + 5))
    assert sorted(world.blobs.blobs.values()) == [b"deleted", b"in a mutation"]
    assert run(upload.finish()).size == 1


def test_the_collector_stops(world: World) -> None:
    """After a stop nothing is looked at any more, and commits are not listened to."""
    collector = world.files.collector
    listeners = len(world.store.db.committer.on_durable)
    collector.start()
    assert len(world.store.db.committer.on_durable) == listeners + 1
    run(collector.stop())
    assert len(world.store.db.committer.on_durable) == listeners
    world.blobs.blobs["00000000-lost"] = b"x"
    world.store.timers.advance(SWEEP_SECONDS)
    assert world.blobs.blobs


def test_a_lost_content_is_reported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose content is gone answers like a missing one; a shorter content is an error, not a short file."""
    file = world.upload(b"hello")
    download = run(world.files.open_download(file.uuid, None))
    world.blobs.blobs.clear()
    with pytest.raises(NotFound):
        run(world.files.open_download(file.uuid, None))
    monkeypatch.setattr(download._reader, "_data", b"he")
    assert run(download.read(0, 5)) == b"he"
    failure: list[Failure] = []
    from_coroutine(download.read(2, 3)).addErrback(failure.append)
    assert failure[0].check(OSError)
    download.close()
