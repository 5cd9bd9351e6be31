"""``IBlobStore``: one contract, met by the local directory and by the fake of other tests; and what only the directory has."""

from __future__ import annotations

import hashlib
import os
import stat
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from convex_backend.interfaces import IBlobReader, IBlobStore, IBlobWriter
from convex_backend.storage.blob_store import LocalBlobStore
from tests.storage.memory_blobs import MemoryBlobs
from tests.storage.synchronous import SynchronousReactor, SynchronousThreadPool, result_of

Make = Callable[[], Any]
needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at descriptors in /proc")


class HeldThreadPool(SynchronousThreadPool):
    """Keeps its work until ``release``."""

    def __init__(self, low: int, high: int) -> None:
        super().__init__(low, high)
        self.work: list[tuple[Any, ...]] = []

    def callInThreadWithCallback(self, on_result: Any, function: Any, *args: Any, **kwargs: Any) -> None:
        self.work.append((on_result, function, args, kwargs))

    def release(self) -> None:
        work, self.work = self.work, []
        for on_result, function, args, kwargs in work:
            super().callInThreadWithCallback(on_result, function, *args, **kwargs)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "files"


def local(root: Path, pool: Any = SynchronousThreadPool) -> LocalBlobStore:
    return LocalBlobStore(root, SynchronousReactor(), make_thread_pool=pool)


@pytest.fixture(params=["local", "memory"])
def make(request: pytest.FixtureRequest, root: Path) -> Make:
    """Makes a store; a second one of the directory sees what the first left, as after a restart."""
    memory = MemoryBlobs()

    def build() -> Any:
        store = local(root) if request.param == "local" else memory
        store.start()
        return store

    return build


def all_keys(store: Any) -> list[str]:
    return [key for shard in range(store.shards) for key in result_of(store.keys(shard))]


def put(store: Any, *chunks: bytes) -> Any:
    writer = result_of(store.create())
    result_of(writer.write(chunks))
    return result_of(writer.finish())


def test_interfaces(make: Make) -> None:
    """Both stores, their writers and their readers have what the contract names."""
    store = make()
    verifyObject(IBlobStore, store)
    verifyObject(IBlobWriter, result_of(store.create()))
    verifyObject(IBlobReader, result_of(store.open(put(store, b"x").key)))


def test_write_and_read(make: Make) -> None:
    """A blob has the bytes of all its chunks, their size and digest; any part of it can be read; two of equal bytes have two keys."""
    store = make()
    writer = result_of(store.create())
    for chunks in ((b"ab", b"", b"c"), (), (b"def",)):
        result_of(writer.write(chunks))
    blob = result_of(writer.finish())
    assert (blob.key, blob.size, blob.sha256) == (writer.key, 6, hashlib.sha256(b"abcdef").digest())
    assert str(uuid.UUID(blob.key)) == blob.key
    reader = result_of(store.open(blob.key))
    assert reader.size == 6
    parts = [result_of(reader.read(*part)) for part in ((0, 100), (2, 2), (5, 5), (6, 1))]
    assert parts == [b"abcdef", b"cd", b"f", b""]
    result_of(reader.close())
    result_of(reader.close())
    other = put(store, b"abcdef")
    assert other.key != blob.key
    assert sorted(all_keys(store)) == sorted([blob.key, other.key])


def test_empty(make: Make) -> None:
    """An empty blob is a blob."""
    store = make()
    blob = put(store)
    assert (blob.size, blob.sha256) == (0, hashlib.sha256().digest())
    assert result_of(result_of(store.open(blob.key)).read(0, 10)) == b""


def test_unfinished_and_aborted_blobs_are_not_there(make: Make) -> None:
    """Before ``finish`` there is no blob; after ``abort`` there never will be."""
    store = make()
    writers = [result_of(store.create()) for _ in range(2)]
    for writer in writers:
        result_of(writer.write((b"x",)))
        assert result_of(store.open(writer.key)) is None
    assert all_keys(store) == []
    result_of(writers[0].abort())
    assert result_of(store.open(writers[0].key)) is None
    blob = result_of(writers[1].finish())
    assert all_keys(store) == [blob.key]


def test_delete(make: Make) -> None:
    """A deleted blob is gone for those who come, and goes on for those who read it; deleting nothing says so."""
    store = make()
    blob = put(store, b"abc")
    reader = result_of(store.open(blob.key))
    assert result_of(store.delete(blob.key)) is True
    assert result_of(store.delete(blob.key)) is False
    assert result_of(store.open(blob.key)) is None
    assert all_keys(store) == []
    assert result_of(reader.read(0, 3)) == b"abc"
    result_of(reader.close())


def test_restart(make: Make) -> None:
    """Whole blobs survive the end of a process; what was being written does not."""
    store = make()
    blob = put(store, b"abc")
    left = result_of(store.create())
    result_of(left.write((b"half",)))
    after = make()
    assert all_keys(after) == [blob.key]
    assert result_of(after.open(left.key)) is None


def test_start_leaves_no_files(root: Path) -> None:
    """The directory is made by the first blob; ``incoming`` is emptied at start; nobody else may read contents."""
    store = local(root)
    result_of(store.start())
    assert not root.exists()
    writer = result_of(store.create())
    assert [path.name for path in (root / "incoming").iterdir()] == [writer.key]
    result_of(local(root).start())
    assert not (root / "incoming").exists()
    blob = put(local_started(root), b"x")
    path = root / blob.key[:2] / blob.key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def local_started(root: Path, pool: Any = SynchronousThreadPool) -> LocalBlobStore:
    store = local(root, pool)
    store.start()
    return store


@needs_proc
def test_a_whole_blob_is_on_the_disk_before_it_is_there(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is synced before the rename, the directories after it."""
    done: list[str] = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(
        os, "fsync", lambda fd: (done.append(f"sync {os.readlink(f'/proc/self/fd/{fd}')}"), fsync(fd))[1]
    )
    monkeypatch.setattr(os, "rename", lambda a, b: (rename(a, b), done.append("rename"))[0])
    store = local_started(root)
    blob = put(store, b"x")
    shard = root / blob.key[:2]
    assert done == [f"sync {root / 'incoming' / blob.key}", "rename", f"sync {root}", f"sync {shard}"]


@needs_proc
def test_a_cancelled_open_lets_go_of_the_file(root: Path) -> None:
    """Whoever gives up while a thread opens or begins a blob leaves no descriptor and no file behind."""
    first = local_started(root)
    blob = put(first, b"x")
    pools: list[HeldThreadPool] = []

    def make_pool(low: int, high: int) -> HeldThreadPool:
        pools.append(HeldThreadPool(low, high))
        return pools[0]

    store = local_started(root, make_pool)
    pools[0].release()
    before = len(os.listdir("/proc/self/fd"))
    pending: list[Deferred[Any]] = [store.open(blob.key), store.create()]
    for deferred in pending:
        deferred.addErrback(lambda failure: None)
        deferred.cancel()
    pools[0].release()
    pools[0].release()
    assert len(os.listdir("/proc/self/fd")) == before
    assert list((root / "incoming").iterdir()) == []


def test_stop_waits_for_work(root: Path) -> None:
    """``stop`` fires when the threads have done what they were given."""
    pools: list[HeldThreadPool] = []

    def make_pool(low: int, high: int) -> HeldThreadPool:
        pools.append(HeldThreadPool(low, high))
        return pools[0]

    store = local_started(root, make_pool)
    stopped = store.stop()
    assert not stopped.called
    pools[0].release()
    assert stopped.called and not pools[0].running


def test_a_failed_write_is_raised(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is the writer's error, as the operating system says it; an abort then leaves nothing."""
    store = local_started(root)
    writer = result_of(store.create())

    def full(fd: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            result_of(writer.write((b"x",)))
    result_of(writer.abort())
    assert list((root / "incoming").iterdir()) == []
