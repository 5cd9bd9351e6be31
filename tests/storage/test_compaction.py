"""``convex-backend compact``: smaller, the same, and whole after a death at any point."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convex_backend import cli
from convex_backend.errors import ConvexError
from convex_backend.interfaces import Commit
from convex_backend.storage import compaction
from convex_backend.storage.compaction import compact
from tests.storage.contract import document, insert
from tests.storage.faults import synchronous_store
from tests.storage.synchronous import result_of

ROWS = 3000
IDS = [n.to_bytes(16, "big") for n in range(ROWS)]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A file in which nine documents of ten were deleted and their history pruned."""
    path = str(tmp_path / "db.sqlite3")
    store = synchronous_store(path)
    result_of(store.open())
    result_of(store.write([insert(n + 1, id, b"k" + id, b"x" * 500) for n, id in enumerate(IDS)]))
    doomed = [id for n, id in enumerate(IDS) if n % 10]
    result_of(store.write([Commit(ROWS + 1, tuple(document(id, None, True) for id in doomed))]))
    result_of(store.prune_history(ROWS + 1, 10 * ROWS))
    result_of(store.close())
    return path


def rows(path: str) -> list[object]:
    """Everything in the file that a server would read."""
    store = synchronous_store(path)
    result_of(store.open())
    found = [
        store.last_ts,
        *store.scan_documents(1, b"", None, False, ROWS),
        *store.scan_index(7, b"", None, True, ROWS),
    ]
    result_of(store.close())
    return found


def test_a_compact_file_is_smaller_and_the_same(path: str) -> None:
    """The free space is gone, every row is there, the mode is private and nothing lies about."""
    before = rows(path)
    done = compact(path)
    assert done.after_bytes == os.path.getsize(path) < done.before_bytes / 3
    assert rows(path) == before
    assert len(before) == 1 + 2 * ROWS // 10
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert sorted(os.listdir(os.path.dirname(path))) == ["db.sqlite3", "db.sqlite3.lock"]
    assert compact(path).before_bytes == done.after_bytes


def test_slots_are_not_used_again(path: str) -> None:
    """A document made after a compaction gets a row number that no dropped entry points at."""
    compact(path)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'documents'").fetchone() == (ROWS,)
    connection.close()


def test_what_is_in_the_log_of_a_killed_server_is_kept(path: str, tmp_path: Path) -> None:
    """Commits that are in the write-ahead log only are in the compact file."""
    store = synchronous_store(path)
    result_of(store.open())
    result_of(store.write([insert(ROWS + 9, b"n" * 16, b"new")]))
    (tmp_path / "killed").mkdir()
    copy = str(tmp_path / "killed" / "db.sqlite3")
    for suffix in ("", "-wal"):
        shutil.copy(path + suffix, copy + suffix)
    result_of(store.close())
    assert os.path.getsize(copy + "-wal") > 0
    compact(copy)
    assert not os.path.exists(copy + "-wal")
    assert rows(copy) == rows(path)


def test_a_running_server_is_left_alone(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """While a server holds the file, compaction is refused in one line and exit code 1."""
    store = synchronous_store(path)
    result_of(store.open())
    with pytest.raises(SystemExit) as caught:
        cli.main(["compact", "--persistence", f"sqlite://{path}"])
    assert caught.value.code == 1
    assert capsys.readouterr().err == (
        f"convex-backend: another server is running on {path} (pid {os.getpid()}); stop it first or choose another --persistence\n"
    )
    result_of(store.close())


def test_the_command(path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command says what it gained; its file may come from the environment."""
    monkeypatch.setenv("CONVEX_PERSISTENCE", f"sqlite://{path}")
    assert cli.main(["compact"]) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"compacted {path} in ")
    assert " MB before, 0." in line


@pytest.mark.parametrize("persistence", ["sqlite://:memory:", "postgres://x", "sqlite://"])
def test_a_wrong_name_is_one_line(persistence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be compacted is refused with the option's name."""
    with pytest.raises(SystemExit):
        cli.main(["compact", "--persistence", persistence])
    assert capsys.readouterr().err.startswith("convex-backend: --persistence ")


def test_what_is_not_there_is_not_made(tmp_path: Path) -> None:
    """A file that does not exist is an error, and still does not exist."""
    with pytest.raises(ConvexError, match="there is no database"):
        compact(str(tmp_path / "none"))
    assert list(tmp_path.iterdir()) == []


def test_foreign_newer_and_damaged_files_stay(path: str, tmp_path: Path) -> None:
    """A file that is another program's, of a newer version, or damaged is refused and not touched."""
    foreign = str(tmp_path / "foreign")
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE theirs (n)")
    connection.close()
    damaged = tmp_path / "damaged"
    content = Path(path).read_bytes()
    damaged.write_bytes(content[:8192] + b"\xff" * 4096 * 20 + content[8192 + 4096 * 20 :])
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    for file, code in ((foreign, "NotADatabase"), (str(damaged), "DatabaseUnavailable"), (path, "DatabaseTooNew")):
        before = Path(file).read_bytes()
        with pytest.raises(ConvexError) as caught:
            compact(file)
        assert caught.value.code == code, file
        assert Path(file).read_bytes() == before
        assert not os.path.exists(file + ".compacting")


def test_no_room(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk without room for the copy is noticed before anything is written."""
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(compaction.shutil, "disk_usage", lambda _: type(usage)(usage.total, usage.total, 1000))
    with pytest.raises(ConvexError, match=r"takes up to \d+ MB and the disk has 0 MB left"):
        compact(path)
    assert not os.path.exists(path + ".compacting")


def test_a_killed_compaction(path: str) -> None:
    """``kill -9`` at any moment leaves a file with every row, and the next compaction works."""
    before = rows(path)
    program = f"from convex_backend.storage.compaction import compact\nprint('go', flush=True)\ncompact({path!r})"
    for delay in (0.0, 0.002, 0.005, 0.01, 0.02, 0.04):
        child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"go\n"
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=10)
        assert rows(path) == before
    assert compact(path).after_bytes < 1_000_000
    assert rows(path) == before
