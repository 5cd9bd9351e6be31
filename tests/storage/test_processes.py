"""What needs real threads and real processes: the pool under a reactor, the lock, and death by SIGKILL."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from convex_backend.errors import ConvexError
from tests.storage.child import commit
from tests.storage.faults import synchronous_store
from tests.storage.synchronous import result_of


def start(mode, path):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.storage.child", mode, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def end(child):
    child.kill()
    child.communicate()


def test_reads_in_threads_beside_writes(tmp_path):
    """With real threads, as-of reads are right beside a writer, and close waits for reads under way."""
    child = start("read", tmp_path / "db")
    try:
        out, err = child.communicate(timeout=30)
    finally:
        end(child)
    assert out == b"done\n", err.decode()
    assert child.returncode == 0
    assert not os.path.exists(tmp_path / "db-wal")


def test_second_process_is_refused_until_the_first_is_killed(tmp_path):
    """Another server's file is refused with its process id; after kill -9 it opens at once."""
    path = str(tmp_path / "db")
    child = start("hold", path)
    try:
        assert child.stdout.readline() == b"open\n"
        with pytest.raises(ConvexError) as caught:
            result_of(synchronous_store(path).open())
        assert caught.value.code == "DatabaseInUse"
        assert caught.value.message == (
            f"another server is running on {path} (pid {child.pid}); stop it first or choose another --persistence"
        )
    finally:
        end(child)
    store = synchronous_store(path)
    result_of(store.open())
    result_of(store.close())


def test_second_store_in_one_process_is_refused(tmp_path):
    """The lock also keeps two stores of one process apart; closing frees it."""
    path = str(tmp_path / "db")
    first, second = synchronous_store(path), synchronous_store(path)
    result_of(first.open())
    with pytest.raises(ConvexError, match=f"pid {os.getpid()}"):
        result_of(second.open())
    result_of(first.close())
    result_of(second.open())
    result_of(second.close())


@pytest.mark.slow
def test_acknowledged_groups_outlive_sigkill(tmp_path):
    """Whatever moment SIGKILL comes: every acknowledged group is there, and no group is there in part."""
    path = str(tmp_path / "db")
    moments = random.Random(7)
    for _ in range(8):
        child = start("write", path)
        try:
            assert child.stdout.readline(), child.stderr.read()
            time.sleep(moments.uniform(0, 0.3))
            os.kill(child.pid, signal.SIGKILL)
            out, _ = child.communicate(timeout=10)
        finally:
            end(child)
        # The kill may cut the last line; a line without its end is no acknowledgement.
        acknowledged = [int(line) for line in out.split(b"\n")[:-1]]
        store = synchronous_store(path)
        result_of(store.open())
        last = store.last_ts
        assert last % 7 == 0
        assert not acknowledged or last >= acknowledged[-1]
        assert [row.ts for row in store.scan_index(1, b"", None, False, 10**6)] == list(range(1, last + 1))
        assert store.get(2, b"c" * 16).json == b"%d" % last
        for ts in moments.sample(range(1, last + 1), 5):
            assert result_of(store.get_at(2, b"c" * 16, ts)).json == commit(ts).documents[1].json
        result_of(store.close())
