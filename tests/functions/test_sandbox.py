"""What a hostile script can do from inside a child: the launcher and the flags are those of the server, the script is ours.

Two rounds. With node's permission model, as a server runs; and without it, as if a bundle had broken node itself: then the operating
system alone stands in the way.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_twisted
from prometheus_client import CollectorRegistry
from twisted.web.resource import Resource
from twisted.web.server import Site

from convex_backend.functions import guards
from convex_backend.functions.fleet import PoolOptions
from convex_backend.functions.guards import GuardReport
from convex_backend.functions.pool_metrics import PoolMetrics
from convex_backend.functions.runner_pool import ModuleText, RunnerPool
from convex_backend.functions.runner_process import RunnerProcess, find_node, runner_command
from tests.functions.fakes import FakeHost, spec
from tests.functions.test_real_child import DIST, SOURCE, number

HOSTILE = Path(__file__).with_name("hostile.mjs")
ROOT = os.geteuid() == 0
WORKS = ["ownSignal", "threads", "wasm", "atomics", "collect", "localName"]

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the guards need Linux"),
    pytest.mark.skipif(not (DIST / "main.mjs").exists(), reason="the runner is not built: node build.mjs"),
]


@attrs.frozen
class Outcome:
    """What the script reported, and the launcher."""

    results: dict[str, dict[str, Any]]
    report: GuardReport

    def error(self, name: str) -> str:
        """The code that the attempt was refused with. It must have been."""
        assert "error" in self.results[name], f"{name} succeeded: {self.results[name]}"
        return str(self.results[name]["error"])

    def done(self, name: str) -> Any:
        assert "done" in self.results[name], f"{name} failed: {self.results[name]}"
        return self.results[name]["done"]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that every user can read, which pytest's own is not."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        (place / "script").mkdir()
        (place / "script" / "hostile.mjs").write_bytes(HOSTILE.read_bytes())
        (place / "data").mkdir()
        (place / "data" / "secret").write_text("the secret")
        yield place


@pytest.fixture(scope="module")
def targets(place: Path) -> Iterator[None]:
    """A TCP and a UDP port of this machine that answer to whoever gets there."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        names = {
            "port": tcp.getsockname()[1],
            "udpPort": udp.getsockname()[1],
            "secret": str(place / "data" / "secret"),
        }
        (place / "script" / "targets.json").write_text(json.dumps(names))
        yield


def attempt(
    place: Path,
    *,
    network: bool = False,
    permission: bool = True,
    guarded: bool = True,
    as_user: int | None = None,
    timeout: float = 40,
) -> Outcome:
    """Run the script behind the guards, started as the server starts its children."""
    # One attempt is node's signal to make its parent listen for a debugger.
    handler = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        return run(place, network=network, permission=permission, guarded=guarded, as_user=as_user, timeout=timeout)
    finally:
        signal.signal(signal.SIGUSR1, handler)


def run(place: Path, *, network: bool, permission: bool, guarded: bool, as_user: int | None, timeout: float) -> Outcome:
    """One run, whose parent ignores the signal."""
    script = place / "script"
    flags = runner_command(DIST, memory_megabytes=64).flags
    flags = tuple(f"--allow-fs-read={script}" if "allow-fs-read" in flag else flag for flag in flags)
    if not permission:
        flags = tuple(flag for flag in flags if flag != "--permission" and "allow-fs" not in flag)
    targets = script / "targets.json"
    # A second isolate runs into the limit of memory, which ends the process; only node's permission model refuses it in good order.
    skip = ["worker"] if guarded and not permission else []
    targets.write_text(json.dumps({**json.loads(targets.read_text()), "skip": skip}))
    announce = os.memfd_create("announce")
    os.ftruncate(announce, 24)
    with tempfile.TemporaryFile() as out:
        try:
            command = [find_node(), *flags, str(script / "hostile.mjs")]
            if guarded:
                command = guards.launch(command, network=network)
            # Not by pass_fds: fd 4 is the report's in the child, and anybody's here.
            done = subprocess.run(
                command,
                env=guards.launch_environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                close_fds=False,
                preexec_fn=lambda: os.dup2(announce, 4),
                user=as_user,
                timeout=timeout,
                check=False,
            )
            report = guards.read_report(announce, 24, network=network)
        finally:
            os.close(announce)
        out.seek(0)
        text = out.read()
        assert done.returncode == 0, (done, text)
        return Outcome(json.loads(text), report)


def missing(outcome: Outcome) -> dict[str, str]:
    """Guards that this machine does not have."""
    return {name: reason for name, reason in outcome.report.missing.items() if name != "other_user"}


@pytest.fixture(scope="module")
def isolate(place: Path, targets: None) -> Outcome:
    return attempt(place)


@pytest.fixture(scope="module")
def broken_isolate(place: Path, targets: None) -> Outcome:
    outcome = attempt(place, permission=False)
    if missing(outcome):
        pytest.skip(f"this machine lacks guards: {missing(outcome)}")
    return outcome


@pytest.fixture(scope="module")
def broken_action(place: Path, targets: None) -> Outcome:
    outcome = attempt(place, permission=False, network=True)
    if missing(outcome):
        pytest.skip(f"this machine lacks guards: {missing(outcome)}")
    return outcome


NETWORK = ["tcp", "udp", "http", "unixSocket", "abstractSocket", "listen", "listenUnix"]
FILES = ["readSecret", "readPasswords", "parentEnvironment", "parentMemory", "list"]
CHANGES = ["writeTemporary", "writeBesideScript", "removeSecret", "makeDirectory"]
SIGNALS = ["signalParent", "signalAll", "signalGroup", "debugParent"]


def test_attempts_are_real(targets: None, place: Path, tmp_path: Path) -> None:
    """Without any guard the same script does all of it: a refusal in the tests below is the work of a guard."""
    (tmp_path / "script").mkdir()
    secret = tmp_path / "secret"
    secret.write_text("the secret")
    names = json.loads((place / "script" / "targets.json").read_text())
    (tmp_path / "script" / "targets.json").write_text(json.dumps({**names, "secret": str(secret)}))
    (tmp_path / "script" / "hostile.mjs").write_bytes(HOSTILE.read_bytes())
    try:
        outcome = attempt(tmp_path, permission=False, guarded=False)
    finally:
        Path("/tmp/convex-test-written").unlink(missing_ok=True)
        Path("/tmp/convex-test-directory").rmdir()
    for name in ["tcp", "udp", "http", "listen", "listenUnix", "readSecret", "list", *CHANGES, *SIGNALS, *WORKS]:
        outcome.done(name)
    assert (outcome.done("spawn"), outcome.done("spawnSync"), outcome.done("worker")) == (0, 0, 0)
    assert outcome.error("abstractSocket") == "ECONNREFUSED"
    assert outcome.error("unixSocket") == "ENOENT"
    assert not secret.exists()
    assert list(outcome.report.active) == ["permission_model"]


def test_permission_model_refuses_files_processes_threads_and_addons(isolate: Outcome) -> None:
    """By node itself: everything that is not the script's own directory."""
    for name in [*FILES, *CHANGES, "spawn", "spawnSync", "worker", "inspector"]:
        assert isolate.error(name) == "ERR_ACCESS_DENIED", name
    assert isolate.error("addon") == "ERR_DLOPEN_DISABLED"


def test_isolate_has_no_network(isolate: Outcome) -> None:
    """No TCP, no UDP, no name servers, no Unix sockets, no server: node has no such rule, the system calls are refused."""
    if "no_network" in isolate.report.missing:
        pytest.skip(isolate.report.missing["no_network"])
    for name in NETWORK:
        assert isolate.error(name) in {"EPERM", "EACCES"}, name
    assert isolate.error("dnsQuery") in {"ECONNREFUSED", "ETIMEOUT"}  # what c-ares says when it gets no socket


def test_environment_is_empty_and_directory_neutral(isolate: Outcome) -> None:
    """Nothing of the server's environment is there, whatever it holds, and not even its working directory."""
    identity = isolate.done("identity")
    assert identity["env"] == {"TZ": "UTC"}
    assert identity["cwd"] == "/"


def test_nobody_can_be_signalled(isolate: Outcome) -> None:
    """Neither parent, nor group, nor all processes; the permission model has no rule for that either."""
    for name in SIGNALS:
        assert isolate.error(name) == "EPERM", name


@pytest.mark.parametrize("name", WORKS)
def test_the_engine_works(isolate: Outcome, name: str) -> None:
    """Collector and crypto threads, WebAssembly, Atomics, the process's own signals, names from the hosts file."""
    isolate.done(name)


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_root_becomes_nobody(isolate: Outcome, broken_isolate: Outcome) -> None:
    """A server that runs as root has children without a user, without groups, without a way back."""
    for outcome in (isolate, broken_isolate):
        identity = outcome.done("identity")
        assert identity["uid"] != 0
        assert 0 not in identity["groups"]
        assert outcome.error("becomeRoot") == "EPERM"
        assert "other_user" in outcome.report.active


def test_without_node_the_system_refuses_files(broken_isolate: Outcome, place: Path) -> None:
    """Even when node's permission model is broken nothing can be written, and data of the server cannot be read."""
    for name in [*FILES, *CHANGES]:
        assert broken_isolate.error(name) in {"EACCES", "EPERM"}, name
    assert (place / "data" / "secret").read_text() == "the secret"
    assert not (place / "script" / "written").exists()


def test_without_node_the_system_refuses_network_processes_and_signals(broken_isolate: Outcome) -> None:
    """The same for sockets, children and signals."""
    for name in NETWORK:
        assert broken_isolate.error(name) in {"EPERM", "EACCES"}, name
    for name in ("spawn", "spawnSync", *SIGNALS):
        assert broken_isolate.error(name) == "EPERM", name
    for name in WORKS:
        broken_isolate.done(name)


def test_action_may_connect_and_nothing_else(broken_action: Outcome) -> None:
    """An action's child reaches TCP and UDP ports and looks names up; it does not serve, and the rest is refused as for queries."""
    assert broken_action.done("tcp") == "connected"
    assert broken_action.done("udp") == "sent"
    for name in ("listen", "listenUnix", "unixSocket", "abstractSocket", "spawn", "spawnSync", *SIGNALS):
        assert broken_action.error(name) in {"EPERM", "EACCES"}, name
    for name in [*FILES, *CHANGES]:
        assert broken_action.error(name) in {"EACCES", "EPERM"}, name
    for name in WORKS:
        broken_action.done(name)


def readable_python(user: int) -> str | None:
    """A Python that this user may run; that of a virtual environment may lie in a home directory."""
    for python in (sys.executable, "/usr/bin/python3"):
        probe = [python, "-I", "-S", "-c", "import ctypes, resource"]
        try:
            if subprocess.run(probe, user=user, check=False, capture_output=True, timeout=20).returncode == 0:
                return python
        except OSError:
            continue
    return None


@pytest.mark.skipif(not ROOT, reason="without root every other test of this file is this one")
def test_without_root_all_other_guards_hold(place: Path, targets: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server without root cannot change the user, says so, and is guarded otherwise: its own data is out of reach."""
    user = 61000
    python = readable_python(user)
    if python is None:
        pytest.skip("no Python that another user may run")
    monkeypatch.setattr(sys, "executable", python)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    outcome = attempt(place, permission=False, as_user=user)
    assert outcome.report.missing["other_user"] == "the server does not run as root"
    if missing(outcome):
        pytest.skip(f"this machine lacks guards: {missing(outcome)}")
    assert not outcome.report.weakened
    assert outcome.done("identity")["uid"] == user
    for name in [*FILES, *CHANGES, *NETWORK, "spawn", *SIGNALS]:
        assert outcome.error(name) in {"EACCES", "EPERM"}, name


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_root_stays_when_another_user_could_not_read(targets: None, place: Path, tmp_path: Path) -> None:
    """A runner in a directory that is root's alone runs as root, and the report says which file was in the way."""
    script = tmp_path / "script"
    script.mkdir()
    for source in (place / "script").iterdir():
        (script / source.name).write_bytes(source.read_bytes())
    tmp_path.chmod(0o700)
    outcome = attempt(tmp_path)
    assert outcome.done("identity")["uid"] == 0
    assert outcome.report.missing["other_user"].endswith(f"may not read {script / 'hostile.mjs'}")
    assert outcome.report.weakened
    for name in [*FILES, *CHANGES, *SIGNALS]:
        outcome.error(name)


def test_missing_filter_is_reported_and_the_child_runs(
    targets: None, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a system call filter cannot be had the child runs behind the other guards, and the report has the reason."""
    monkeypatch.setattr(guards, "_filter", lambda network: "-not here")
    outcome = attempt(place)
    assert outcome.report.missing["system_calls"] == outcome.report.missing["no_network"] == "not here"
    assert outcome.report.weakened
    assert outcome.done("tcp") == "connected"
    for name in [*FILES, *CHANGES, "spawn"]:
        assert outcome.error(name) == "ERR_ACCESS_DENIED", name


def test_filter_that_the_kernel_refuses_is_reported(
    targets: None, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that does not end in a return is none to the kernel; its word for that is the reason."""
    monkeypatch.setattr(guards, "_filter", lambda network: "2000000004000000")
    outcome = attempt(place)
    assert outcome.report.missing["system_calls"] == os.strerror(errno.EINVAL)


def test_limits_are_set(place: Path) -> None:
    """No core file, no file over 4 KB, few descriptors; the kernel prefers the child when memory runs out."""
    script = place / "script" / "wait.mjs"
    script.write_text("setInterval(() => {}, 1000);")
    announce = os.memfd_create("announce")
    child = subprocess.Popen(
        guards.launch([find_node(), str(script)], network=False),
        stdin=subprocess.DEVNULL,
        close_fds=False,
        preexec_fn=lambda: os.dup2(announce, 4),
    )
    try:
        wait_until(lambda: os.readlink(f"/proc/{child.pid}/exe") == os.path.realpath(find_node()))
        limits = Path(f"/proc/{child.pid}/limits").read_text()
        bounds = {line[:26].strip(): line[26:].split()[:2] for line in limits.splitlines()}
        assert bounds["Max core file size"] == ["0", "0"]
        assert bounds["Max file size"] == ["4096", "4096"]
        assert bounds["Max open files"] == ["256", "256"]
        assert int(Path(f"/proc/{child.pid}/oom_score_adj").read_text()) >= 500
        assert os.getsid(child.pid) == child.pid
    finally:
        child.kill()
        child.wait(10)
        os.close(announce)


def test_child_of_a_parent_that_is_gone_does_not_start(place: Path) -> None:
    """Should the server end before the launcher has tied itself to it, the child ends at once."""
    command = guards.launch([find_node(), str(place / "script" / "hostile.mjs")], network=False)
    parent = command.index(str(os.getpid()))
    command[parent] = "1"
    done = subprocess.run(command, check=False, capture_output=True, timeout=20)
    assert (done.returncode, done.stdout) == (1, b"")


ORPHANING = """
import os, subprocess, sys, time
child = subprocess.Popen(sys.argv[1].split("\t")[:4] + [str(os.getpid())] + sys.argv[1].split("\t")[5:], stdin=subprocess.DEVNULL,
    close_fds=False, preexec_fn=lambda: os.dup2(int(sys.argv[2]), 4))
print(child.pid, flush=True)
time.sleep(60)
"""


def test_child_ends_with_its_parent(place: Path) -> None:
    """When the server is killed, with no time to close anything, the kernel kills the child: even one that is stuck in a loop."""
    script = place / "script" / "loop.mjs"
    script.write_text("for (;;);")
    announce = os.memfd_create("announce")
    command = guards.launch([find_node(), str(script)], network=False)
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHANING, "\t".join(command), str(announce)],
        stdout=subprocess.PIPE,
        pass_fds=[announce],
    )
    assert parent.stdout is not None
    try:
        pid = int(parent.stdout.readline())
        wait_until(lambda: bool(os.pread(announce, 100, 24)))
        assert Path(f"/proc/{pid}").exists()
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
        wait_until(lambda: ended(pid))
    finally:
        parent.kill()
        parent.wait(10)
        parent.stdout.close()
        os.close(announce)


def ended(pid: int) -> bool:
    try:
        return ") Z" in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


FETCHING = (
    SOURCE
    + """
export const get = registered("Action", async ({ url }) => {
  try { return (await fetch(url)).status; } catch (error) { return String(error); }
});
"""
)


async def fetched(*, network: bool) -> tuple[Any, GuardReport]:
    """What an action of a bundle gets from a server of this machine, by ``fetch``; and the guards of its child."""
    from twisted.internet import reactor

    page = Resource()
    page.isLeaf = True
    page.render_GET = lambda request: b"hello"  # type: ignore[attr-defined]
    port = reactor.listenTCP(0, Site(page), interface="127.0.0.1")  # type: ignore[attr-defined]
    reports: list[GuardReport] = []
    command = runner_command(DIST, memory_megabytes=128, network=network)

    async def source(hash: str) -> ModuleText:
        return ModuleText(hash, "m.js", FETCHING.encode())

    pool = RunnerPool(
        reactor,
        PoolOptions("action", 1, 4),
        lambda: RunnerProcess(reactor, command, reports.append),
        source,
        PoolMetrics(CollectorRegistry()),
    )
    await pool.start()
    try:
        url = f"http://127.0.0.1:{port.getHost().port}/"
        args = json.dumps([{"url": url}]).encode()
        call = attrs.evolve(spec("action", hash="src"), export="get", args=args, seed=os.urandom(32), now_ms=1000)
        outcome = await pool.run(call, lambda: FakeHost(number))
    finally:
        await pool.stop()
        await port.stopListening()
    return json.loads(outcome.value), reports[0]


@pytest_twisted.ensureDeferred
async def test_action_of_a_bundle_fetches() -> None:
    """``fetch`` works from an action, behind all guards."""
    value, report = await fetched(network=True)
    assert value == 200
    assert "permission_model" in report.active


@pytest_twisted.ensureDeferred
async def test_bundle_in_a_child_without_network_cannot_fetch() -> None:
    """The same bundle in a child of queries: were ``fetch`` not refused there by the runtime, the system would."""
    value, report = await fetched(network=False)
    if "no_network" in report.missing:
        pytest.skip(report.missing["no_network"])
    assert isinstance(value, str), value
    assert "EPERM" in value, value
