"""``storage/backup.py``: copies of a database and of files that are in use."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from convex_backend.errors import ConvexError
from convex_backend.storage.backup import copy_blobs, copy_database
from tests.storage.contract import insert
from tests.storage.faults import synchronous_store
from tests.storage.synchronous import result_of


def test_the_copy_of_an_open_database_has_what_is_in_its_log(tmp_path: Path) -> None:
    """Commits that are in the write-ahead log only are in the copy; later ones are not, and the store goes on."""
    path, copy = str(tmp_path / "db.sqlite3"), tmp_path / "copy.sqlite3"
    store = synchronous_store(path)
    result_of(store.open())
    result_of(store.write([insert(1, b"a" * 16, b"k1", b"one")]))
    assert os.path.getsize(path + "-wal") > 0
    assert copy_database(path, copy) == copy.stat().st_size > 0
    result_of(store.write([insert(2, b"b" * 16, b"k2", b"two")]))
    result_of(store.close())
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    for file, last in ((str(copy), 1), (path, 2)):
        store = synchronous_store(file)
        result_of(store.open())
        assert store.last_ts == last
        assert len(list(store.scan_documents(1, b"", None, False, 10))) == last
        result_of(store.close())


def test_what_is_no_database_of_ours_is_refused(tmp_path: Path) -> None:
    """Nothing there, another program's file, a damaged file: one line each."""
    with pytest.raises(ConvexError, match="there is no database"):
        copy_database(str(tmp_path / "none"), tmp_path / "copy1")
    foreign = tmp_path / "foreign"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE t (x)")
    with pytest.raises(ConvexError, match="is not a convex-backend database"):
        copy_database(str(foreign), tmp_path / "copy2")
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"not SQLite" * 1000)
    with pytest.raises(ConvexError, match=r"cannot back up .*not a database"):
        copy_database(str(damaged), tmp_path / "copy3")


def test_a_second_pass_copies_what_is_new(tmp_path: Path) -> None:
    """Contents are copied once; uploads that are not finished are left out; what goes meanwhile is no failure."""
    root, target = tmp_path / "files", tmp_path / "copy"
    assert copy_blobs(root, target) == (0, 0)
    for shard, name, content in (("aa", "aa-1", b"one"), ("bb", "bb-1", b"three"), ("incoming", "cc-1", b"half")):
        (root / shard).mkdir(parents=True, exist_ok=True)
        (root / shard / name).write_bytes(content)
    (root / "bb" / "bb-gone").symlink_to(root / "nowhere")
    assert copy_blobs(root, target) == (2, 8)
    (root / "aa" / "aa-2").write_bytes(b"later")
    assert copy_blobs(root, target) == (1, 5)
    copied = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    assert copied == ["aa/aa-1", "aa/aa-2", "bb/bb-1"]
    assert (target / "aa" / "aa-2").read_bytes() == b"later"
    assert stat.S_IMODE((target / "aa" / "aa-2").stat().st_mode) == 0o600
    assert stat.S_IMODE((target / "aa").stat().st_mode) == 0o700
