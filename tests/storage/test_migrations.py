"""The schema's versions: order, backup, refusal of what is newer or not ours."""

import hashlib
import os
import sqlite3
from pathlib import Path

import pytest

from convex_backend.errors import ConvexError
from convex_backend.interfaces import Row, StoredResult
from convex_backend.storage.migrations import Migration, load_migrations, migrate
from tests.storage.contract import A, B, insert
from tests.storage.faults import synchronous_store
from tests.storage.synchronous import result_of

ONE = Migration(1, "CREATE TABLE one (n INTEGER);\nINSERT INTO one VALUES (1);")
TWO = Migration(2, "CREATE TABLE two (n INTEGER);\nINSERT INTO two SELECT n + 1 FROM one;")


def connect(path):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    return connection


def test_shipped_migrations_load():
    """The shipped scripts are numbered from 1 without a gap."""
    assert [migration.version for migration in load_migrations()][:1] == [1]


def test_gap_and_bad_name_are_refused(tmp_path):
    """A missing number or a strange file name is an error, not a skipped script."""
    (tmp_path / "0001_a.sql").write_text("")
    (tmp_path / "0003_c.sql").write_text("")
    with pytest.raises(ValueError, match="gap"):
        load_migrations(tmp_path)
    (tmp_path / "0003_c.sql").rename(tmp_path / "second.sql")
    with pytest.raises(ValueError, match="second"):
        load_migrations(tmp_path)


def test_new_file_needs_no_backup(tmp_path):
    """A new file gets all scripts and no backup copy."""
    path = str(tmp_path / "db")
    connection = connect(path)
    assert migrate(connection, path, [ONE, TWO]) == 2
    assert connection.execute("SELECT n FROM two").fetchall() == [(2,)]
    assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    connection.close()
    assert not [name for name in os.listdir(tmp_path) if "backup" in name]


def test_existing_file_is_backed_up_then_migrated(tmp_path):
    """An older file is copied to FILE.backup-vN, private and complete with what is in its WAL, before it changes."""
    path = str(tmp_path / "db")
    connection = connect(path)
    migrate(connection, path, [ONE])
    connection.execute("INSERT INTO one VALUES (10)")
    assert migrate(connection, path, [ONE, TWO]) == 2
    assert migrate(connection, path, [ONE, TWO]) == 2
    assert connection.execute("SELECT n FROM two ORDER BY n").fetchall() == [(2,), (11,)]
    connection.close()
    backup = sqlite3.connect(path + ".backup-v1")
    assert backup.execute("SELECT n FROM one").fetchall() == [(1,), (10,)]
    assert backup.execute("PRAGMA user_version").fetchone() == (1,)
    backup.close()
    assert os.stat(path + ".backup-v1").st_mode & 0o777 == 0o600
    assert not os.path.exists(path + ".backup-v1.partial")


def test_failed_script_changes_nothing(tmp_path):
    """A script that fails half-way leaves the file at its old version; the next start tries again."""
    path = str(tmp_path / "db")
    connection = connect(path)
    migrate(connection, path, [ONE])
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, path, [ONE, Migration(2, "DELETE FROM one;\nSELECT * FROM missing;")])
    assert connection.execute("SELECT n FROM one").fetchall() == [(1,)]
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert migrate(connection, path, [ONE, TWO]) == 2
    connection.close()


def test_newer_file_is_refused(tmp_path):
    """A file of a newer version is refused by name and left as it is; afterwards its lock is free."""
    path = str(tmp_path / "db")
    store = synchronous_store(path)
    result_of(store.open())
    result_of(store.write([insert(1, A, b"a")]))
    result_of(store.close())
    connection = connect(path)
    connection.execute("PRAGMA user_version = 99")
    for _ in range(2):
        with pytest.raises(ConvexError) as caught:
            result_of(synchronous_store(path).open())
        assert caught.value.code == "DatabaseTooNew"
        assert "schema 99" in caught.value.message
    connection.execute(f"PRAGMA user_version = {len(load_migrations())}")
    connection.close()
    store = synchronous_store(path)
    result_of(store.open())
    assert store.last_ts == 1
    result_of(store.close())


def test_foreign_database_is_refused(tmp_path):
    """Another program's SQLite file is not taken over."""
    path = str(tmp_path / "db")
    connection = connect(path)
    connection.execute("CREATE TABLE theirs (n)")
    connection.close()
    with pytest.raises(ConvexError) as caught:
        result_of(synchronous_store(path).open())
    assert caught.value.code == "NotADatabase"
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    connection.close()


RECORDED = sorted((Path(__file__).parent / "files").glob("v*.sql"))


def test_every_earlier_version_is_recorded():
    """There is a recorded file of each schema version before the newest."""
    assert [path.stem for path in RECORDED] == [f"v{n}" for n in range(1, len(load_migrations()))]


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda path: path.stem)
def test_files_of_earlier_versions_open(tmp_path, recorded):
    """A file that an earlier version wrote opens with its rows, history, answers and values, and can be written and pruned; its copy is kept."""
    path = str(tmp_path / "db")
    connection = connect(path)
    connection.executescript(recorded.read_text("utf-8"))
    connection.close()
    store = synchronous_store(path)
    result_of(store.open())
    assert store.last_ts == 4
    assert store.get(1, A) == Row(A, A, 3, b'{"n":3}')
    assert store.get(1, B) is None
    assert [row.key for row in store.scan_index(7, b"", None, False, 9)] == [b"a3"]
    past = result_of(store.scan_index_at(7, b"", None, False, 9, 2))
    assert past == [Row(b"a1", A, 1, b'{"n":1}'), Row(b"b1", B, 2, b'{"n":2}')]
    assert store.ledger_get("s", 1) == StoredResult(3, b"r")
    assert store.get_meta("name") == b"x"
    result_of(store.write([insert(5, B, b"b5")]))
    assert result_of(store.prune_history(4, 100)) == 4
    assert result_of(store.prune_ledger(5, 0, 5, 100)) == 1
    result_of(store.close())
    copy = sqlite3.connect(f"{path}.backup-{recorded.stem}")
    assert copy.execute("SELECT count(*) FROM documents").fetchone() == (1,)
    copy.close()


def test_shipped_scripts_are_never_changed():
    """Files out there were made by these very scripts; a change of the schema is a new script."""
    found = {m.version: hashlib.sha256(m.script.encode()).hexdigest()[:16] for m in load_migrations()}
    assert found == {1: "4ee1725535ae7a4d", 2: "03dd130e5ac73dfc"}
