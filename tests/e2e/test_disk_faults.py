"""A disk that is full, read-only or broken under a real server: nothing is acknowledged that is not there, and the server gets well with its disk.

The faults are injected by a small library that is preloaded into the server (``disk_faults.c``) and looks into a control file at each write.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import npm_cache
from tests.e2e.harness import Server, convex, make_app

DATABASE = "convex_local_backend.sqlite3"
TRY_AGAIN = {"code": "InternalServerError", "message": "Your request couldn't be completed. Try again later."}

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler, for the injected faults")


class FaultyServer(Server):
    """A server whose disk does what :attr:`disk` says: ``full``, ``sync``, ``write``, ``readonly`` or nothing."""

    def __init__(self, folder: Path, library: Path) -> None:
        super().__init__(folder)
        self._control = folder / "disk"
        self.environment = {"LD_PRELOAD": str(library), "DISK_FAULTS": str(self._control)}

    def disk(self, fault: str) -> None:
        partial = self._control.with_suffix(".new")
        partial.write_text(fault)
        partial.replace(self._control)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled faults."""
    target = tmp_path_factory.mktemp("faults") / "disk_faults.so"
    source = Path(__file__).parent / "disk_faults.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", target, source, "-ldl"], check=True, timeout=60)
    return target


@pytest.fixture(scope="module")
def server(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyServer]:
    """A server with the chat app and one channel; its disk is well before each use."""
    server = FaultyServer(tmp_path_factory.mktemp("faulty"), library)
    server.app = make_app(tmp_path_factory.mktemp("app"))
    server.start()
    try:
        convex(server.app, server, "deploy", "-y", "--typecheck", "disable")
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.kill()


@pytest.fixture
def channel(server: FaultyServer) -> dict[str, str]:
    """Arguments of a message: a channel of its own, and an author."""
    server.disk("")
    channel = server.value("mutation", "channels:create", {"name": os.urandom(4).hex()})
    return {"channel": channel, "author": server.value("mutation", "users:join", {"name": "a"})}


def send(server: Server, channel: dict[str, str], body: str) -> tuple[int, Any]:
    """Send a message. :returns: status and answer."""
    call = {"path": "messages:send", "format": "json", "args": {**channel, "body": body}}
    status, _, answer = server.request("POST", "/api/mutation", call)
    return status, json.loads(answer)


def bodies(server: Server, channel: dict[str, str]) -> list[str]:
    """The messages that the server shows, sorted."""
    return sorted(m["body"] for m in server.value("query", "messages:list", {"channel": channel["channel"]}))


@pytest.mark.parametrize(
    "fault",
    ["full", "sync", pytest.param("write", marks=pytest.mark.slow), pytest.param("readonly", marks=pytest.mark.slow)],
)
def test_a_fault_passes(server: FaultyServer, channel: dict[str, str], fault: str) -> None:
    """Mutations fail with a text that asks to try again and have not happened; queries go on; afterwards all works, also after kill -9."""
    assert send(server, channel, "before")[0] == 200
    server.disk(fault)
    traces = server.text().count("Traceback")
    for n in range(3):
        status, answer = send(server, channel, f"lost {n}")
        assert (status, answer) == (500, TRY_AGAIN)
        assert bodies(server, channel) == ["before"]
    assert server.text().count("Traceback") == traces + 1, "one trace, however many mutations fail"
    server.disk("")
    status, answer = send(server, channel, "after")
    assert (status, answer["status"]) == (200, "success")
    assert bodies(server, channel) == ["after", "before"]
    server.kill()
    server.start()
    assert bodies(server, channel) == ["after", "before"]
    assert send(server, channel, "later")[0] == 200


def test_a_client_rides_over_faults(server: FaultyServer) -> None:
    """A ConvexClient sends its mutations again until the disk is well: each is applied exactly once, in order."""
    server.disk("")
    script = server.app / "reconnect.mjs"
    script.write_bytes((Path(__file__).parent / "clients" / "reconnect.mjs").read_bytes())
    client = subprocess.Popen(
        [npm_cache.NODE, script, server.url, "30"],
        cwd=server.app,
        env=npm_cache.node_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert client.stdout is not None
    faults, last = 0, ""
    for line in client.stdout:
        if not line.startswith("{"):
            continue
        last = line
        if '"sent"' in line and faults < 2:
            faults += 1
            server.disk(("full", "sync")[faults - 1])
            time.sleep(0.4)
            server.disk("")
    assert client.wait(60) == 0, client.stderr.read() if client.stderr else ""
    assert faults == 2
    assert json.loads(last) == {"acknowledged": 30, "shown": 30, "equal": True}


def test_a_kill_while_the_disk_is_full(server: FaultyServer, channel: dict[str, str]) -> None:
    """A server that is killed on a full disk does not start on it, says why, and starts when there is room, with all that was acknowledged."""
    assert send(server, channel, "kept")[0] == 200
    server.disk("full")
    assert send(server, channel, "lost")[0] == 500
    server.kill()
    server.start(wait=False)
    assert server.process is not None
    assert server.process.wait(20) == 1
    last = server.text().splitlines()[-1]
    assert last.startswith("convex-backend: ")
    assert "full" in last
    server.disk("")
    server.start()
    assert bodies(server, channel) == ["kept"]
    assert send(server, channel, "again")[0] == 200


def test_a_stop_while_the_disk_is_full(server: FaultyServer, channel: dict[str, str]) -> None:
    """SIGTERM on a full disk ends the server as always; what was acknowledged is in the log and is read at the next start."""
    assert send(server, channel, "kept")[0] == 200
    server.disk("full")
    assert send(server, channel, "lost")[0] == 500
    assert server.stop() == -15
    server.disk("")
    server.start()
    assert bodies(server, channel) == ["kept"]


def refused(folder: Path, *prefix: str) -> str:
    """Start a server that must not start. :returns: its line on standard error."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("CONVEX", "INSTANCE"))}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    command = [*prefix, str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile=", "convex-backend"]
    command += ["--port", "0", "--site-port", "0", "--host", "127.0.0.1"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("convex-backend: ")]
    return line


@pytest.fixture
def stopped(server: FaultyServer, tmp_path: Path) -> Path:
    """A folder with a copy of a stopped server's database."""
    server.disk("")
    folder = tmp_path / "copy"
    folder.mkdir()
    source, target = folder / "source.sqlite3", folder / DATABASE
    for suffix in ("", "-wal"):
        if (file := server.folder / (DATABASE + suffix)).exists():
            shutil.copy(file, f"{source}{suffix}")
    connection = sqlite3.connect(source)
    connection.execute("VACUUM INTO ?", (str(target),))
    connection.close()
    connection = sqlite3.connect(target)
    connection.execute("PRAGMA journal_mode = WAL").fetchone()
    connection.close()
    for file in folder.glob("source*"):
        file.unlink()
    return folder


@pytest.mark.parametrize("damage", ["header", "half", "catalog", "text"])
def test_a_damaged_file(stopped: Path, damage: str) -> None:
    """A file whose damage shows at the start is refused in one line that names it and what to do, and is left as it is."""
    path = stopped / DATABASE
    content = bytearray(path.read_bytes())
    if damage == "header":
        content[:100] = b"\x00" * 100
    elif damage == "half":
        del content[len(content) // 2 :]
    elif damage == "catalog":
        content[4096:40960] = os.urandom(36864)
    else:
        content = bytearray(b"Dear diary, " * 1000)
    path.write_bytes(content)
    line = refused(stopped)
    assert DATABASE in line
    assert "restore a backup" in line
    assert path.read_bytes() == bytes(content)


def test_a_file_that_may_not_be_written(stopped: Path) -> None:
    """A file that its user may only read is refused in one line; likewise one on a read-only file system."""
    path = stopped / DATABASE
    path.chmod(0o400)
    if os.getuid() == 0:
        if shutil.which("unshare") is None:
            pytest.skip("root may write any file, and there is no unshare")
        prefix = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            'mount --bind . . && mount -o remount,ro,bind . && cd "$PWD" && exec "$@"',
            "sh",
        ]
        probe = subprocess.run([*prefix, "true"], cwd=stopped, capture_output=True, timeout=30)
        if probe.returncode != 0:
            pytest.skip("root may write any file, and mounts are not allowed")
        # Its other files have a place of their own, so that it is the database that cannot be written.
        line = refused(stopped, *prefix)
    else:
        line = refused(stopped)
    assert "ermission denied" in line or "ead-only" in line or "may not write" in line
