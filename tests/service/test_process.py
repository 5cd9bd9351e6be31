"""Start and stop of a real ``twistd`` child around a scripted engine: exit codes, lines, order, signals."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import threading
from pathlib import Path

import psutil
import pytest

from convex_backend.application.keys import Keys
from convex_backend.service.instance import read_credentials
from tests.service.child import Child

FAKE = str(Path(__file__).with_name("fake_server.py"))


def start(tmp_path: Path, options: str = "--port 0", **environment: str) -> Child:
    """A server with the scripted engine on free ports, in *tmp_path*."""
    return Child(["--pidfile=", "-y", FAKE], tmp_path, {"FAKE_OPTIONS": f"--host 127.0.0.1 {options}", **environment})


def port_of(line: str) -> int:
    """The port in a URL of the banner."""
    match = re.search(r"http://127\.0\.0\.1:(\d+)", line)
    assert match is not None, line
    return int(match[1])


def get(port: int, path: str) -> bytes:
    """The body of a GET."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def test_first_start_prints_the_way_in_and_serves_two_ports(tmp_path: Path) -> None:
    """The banner has the URLs, the place of the data and the two lines; the key in it is valid; both ports answer."""
    with start(tmp_path) as server:
        cloud = port_of(server.wait_for("API "))
        site = port_of(server.wait_for("HTTP actions"))
        assert str(tmp_path / "convex_local_backend.sqlite3") in server.wait_for("Database")
        assert server.wait_for("CONVEX_SELF_HOSTED_URL") == f"CONVEX_SELF_HOSTED_URL='http://127.0.0.1:{cloud}'"
        key_line = server.wait_for("CONVEX_SELF_HOSTED_ADMIN_KEY")
        server.wait_for("convex-backend admin-key")
        assert site == cloud + 1
        assert (get(cloud, "/cloud"), get(site, "/site")) == (b"/cloud", b"/site")
        stored = read_credentials(tmp_path / "convex_local_storage")
        assert stored is not None
        key = re.fullmatch("CONVEX_SELF_HOSTED_ADMIN_KEY='(.*)'", key_line)
        assert key is not None
        keys = Keys(stored.name, stored.secret, lambda size: bytes(size), lambda: 1.0, None)
        assert keys.check_admin(key[1]).is_admin
        server.signal(signal.SIGTERM)
        assert server.wait() == -signal.SIGTERM


def test_later_starts_do_not_print_a_key(tmp_path: Path) -> None:
    """The second start tells how to print a key instead."""
    for first in (True, False):
        with start(tmp_path) as server:
            server.wait_for("listening on")
            server.signal(signal.SIGINT)
            assert server.wait() == -signal.SIGINT
            assert ("CONVEX_SELF_HOSTED_ADMIN_KEY" in server.output) is first
            assert "convex-backend admin-key" in server.output


def test_stop_is_ordered_and_finishes_requests(tmp_path: Path) -> None:
    """A request that is under way is answered; then sockets, requests, children and file end in this order."""
    with start(tmp_path) as server:
        port = port_of(server.wait_for("API "))
        server.wait_for("listening on")
        answers: list[bytes] = []
        client = threading.Thread(target=lambda: answers.append(get(port, "/slow")))
        client.start()
        server.wait_for("fake: slow request began")
        server.signal(signal.SIGTERM)
        assert server.wait() == -signal.SIGTERM
        client.join(10)
        assert answers == [b"slow"]
        told = [line.removeprefix("fake: ") for line in server.lines if line.startswith("fake: ")]
        assert told[-4:] == ["sockets closed", "requests finished", "stopping children", "file closed"]


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    """While a stop hangs, one more signal ends the process by that signal."""
    with start(tmp_path, FAKE_STOP_HANG="1") as server:
        server.wait_for("listening on")
        server.signal(signal.SIGTERM)
        server.wait_for("fake: stopping children")
        server.signal(signal.SIGINT)
        assert server.wait() == -signal.SIGINT
        assert "fake: file closed" not in server.output


def test_a_signal_during_boot_stops_what_had_started(tmp_path: Path) -> None:
    """A server that is still booting ends by the signal, without complaint."""
    with start(tmp_path, FAKE_BOOT_HANG="1") as server:
        server.wait_for("fake: file open")
        server.signal(signal.SIGTERM)
        assert server.wait() == -signal.SIGTERM
        assert "convex-backend: " not in server.output


def test_a_taken_port_is_told_before_anything_is_created(tmp_path: Path) -> None:
    """The server does not run on deaf: one line, exit code 1, and the directory stays empty."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with start(tmp_path, f"--port {port} --site-port 0") as server:
            assert server.wait() == 1
            assert f"convex-backend: 127.0.0.1 port {port} is taken by another program" in server.output
            assert "fake: file open" not in server.output
    assert list(tmp_path.iterdir()) == []


def test_a_database_in_use_is_one_line(tmp_path: Path) -> None:
    """An error of a part that has a text for the operator is printed as one line, without a trace, exit code 1."""
    with start(tmp_path, FAKE_FAIL="another server is running on x (pid 1)") as server:
        assert server.wait() == 1
        assert "convex-backend: another server is running on x (pid 1)" in server.lines
        assert "Traceback" not in server.output
    assert list(tmp_path.iterdir()) == []


def test_a_fatal_error_stops_the_server_with_code_1(tmp_path: Path) -> None:
    """When the engine cannot go on the server stops in order and says why."""
    with start(tmp_path, FAKE_FATAL="the disk is gone") as server:
        assert server.wait() == 1
        assert "convex-backend: the disk is gone" in server.lines
        assert "fake: file closed" in server.lines


@pytest.mark.parametrize(
    ("options", "origins"),
    [
        ("--port 0 --site-port 0 --cloud-origin https://c.example", "https://c.example https://c.example/http"),
        (
            "--port 0 --cloud-origin https://c.example --site-origin https://s.example/",
            "https://c.example https://s.example",
        ),
    ],
)
def test_public_origins(tmp_path: Path, options: str, origins: str) -> None:
    """Given origins win; without a second port HTTP actions are below the first."""
    with start(tmp_path, options) as server:
        assert server.wait_for("fake: origins") == f"fake: origins {origins}"


def test_an_endpoint_string(tmp_path: Path) -> None:
    """A Twisted endpoint string is listened on as it is."""
    path = tmp_path / "api.sock"
    with Child(
        ["--pidfile=", "-y", FAKE],
        tmp_path,
        {"FAKE_OPTIONS": f"--port unix:{path} --cloud-origin https://c.example"},
    ) as server:
        server.wait_for("listening on")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /unix HTTP/1.0\r\n\r\n")
            answer = b""
            while received := client.recv(4096):
                answer += received
        assert answer.endswith(b"/unix")


@pytest.fixture(scope="module")
def built_runner() -> None:
    """The real engine needs the bundle."""
    if not (Path(__file__).resolve().parents[2] / "resources" / "runner" / "dist" / "main.mjs").exists():
        pytest.fail("resources/runner/dist is missing: run npm ci --ignore-scripts && node build.mjs there")


def children_of(pid: int) -> set[int]:
    """Process ids of the children of *pid*."""
    return {child.pid for child in psutil.Process(pid).children()}


@pytest.mark.usefixtures("built_runner")
def test_real_engine_starts_once_per_file_and_leaves_nothing(tmp_path: Path) -> None:
    """Two servers never share a file; a stop reaps the runners, folds the log into the file and lets a next server start."""
    with start(tmp_path, FAKE_REAL_ENGINE="1") as server:
        first_ts = int(server.wait_for("fake: durable at").rpartition(" ")[2])
        server.wait_for("listening on")
        runners = children_of(server.process.pid)
        assert runners
        with start(tmp_path, FAKE_REAL_ENGINE="1") as second:
            assert second.wait() == 1
            line = next(line for line in second.lines if line.startswith("convex-backend: "))
            assert f"pid {server.process.pid}" in line
            assert "CONVEX_SELF_HOSTED_ADMIN_KEY" not in second.output
        server.signal(signal.SIGTERM)
        assert server.wait() == -signal.SIGTERM
        assert not [pid for pid in runners if psutil.pid_exists(pid)]
        assert not (tmp_path / "convex_local_backend.sqlite3-wal").exists()
    with start(tmp_path, FAKE_REAL_ENGINE="1") as server:
        assert int(server.wait_for("fake: durable at").rpartition(" ")[2]) > first_ts


@pytest.mark.usefixtures("built_runner")
def test_runners_end_with_a_server_that_is_killed(tmp_path: Path) -> None:
    """``kill -9`` leaves no runner behind, and the next server starts on the same file."""
    with start(tmp_path, FAKE_REAL_ENGINE="1") as server:
        server.wait_for("listening on")
        runners = [psutil.Process(pid) for pid in children_of(server.process.pid)]
        server.signal(signal.SIGKILL)
        assert server.wait() == -signal.SIGKILL
        assert psutil.wait_procs(runners, timeout=20)[1] == []
    with start(tmp_path, FAKE_REAL_ENGINE="1") as server:
        server.wait_for("listening on")


def test_a_file_from_nowhere_is_one_line(tmp_path: Path) -> None:
    """A file that is no database stops the start with one line."""
    (tmp_path / "convex_local_backend.sqlite3").write_bytes(b"this is not a database, whatever its name says" * 100)
    with start(tmp_path, FAKE_REAL_ENGINE="1") as server:
        assert server.wait() == 1
        assert [line for line in server.lines if line.startswith("convex-backend: ")]
        assert "Traceback" not in server.output


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--port", "99999"], "--port must be a port number from 0 to 65535 or a Twisted endpoint string, not '99999'"),
        (["--no-such-option"], "option --no-such-option not recognized"),
        (
            ["--port", "nonsense:1", "--cloud-origin", "https://c.example"],
            "--port 'nonsense:1' is not a usable endpoint string: ",
        ),
        (
            ["--persistence", "sqlite://nowhere/x.sqlite3"],
            "--persistence names a file in a directory that does not exist",
        ),
    ],
)
def test_plug_in_tells_a_mistake_in_one_line(tmp_path: Path, options: list[str], line: str) -> None:
    """``twistd convex-backend`` with a bad value prints one line of ours, exits with 1 and creates nothing."""
    with Child(["convex-backend", *options], tmp_path) as server:
        assert server.wait() == 1
        assert len(server.lines) == 1
        assert server.lines[0].startswith(f"convex-backend: {line}")
    assert list(tmp_path.iterdir()) == []


def test_plug_in_helps(tmp_path: Path) -> None:
    """twistd lists the plug-in, and its own help ends with code 0."""
    with Child(["--help"], tmp_path) as listing:
        assert listing.wait() == 0
        assert "convex-backend" in listing.output
    with Child(["convex-backend", "--help"], tmp_path) as server:
        assert server.wait() == 0
        assert "--instance-secret" in server.output


def test_a_missing_bundle_names_the_command_that_makes_it(tmp_path: Path) -> None:
    """A checkout whose JavaScript was never built does not start, and says what to run."""
    with start(tmp_path, FAKE_REAL_ENGINE="1", FAKE_NO_BUNDLE="1") as server:
        assert server.wait() == 1
        assert "npm ci --ignore-scripts && node build.mjs" in server.output
    assert list(tmp_path.iterdir()) == []
