"""A scripted child, a host and a spec for tests of the pool; no process, no reactor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from convex_backend.functions import frames
from convex_backend.functions.frames import Frame
from convex_backend.functions.proc_stat import ThreadUsage
from convex_backend.functions.runner_pool import ModuleText
from convex_backend.functions.runner_process import Announcement, ChildListener, ProcessExit
from convex_backend.interfaces import CallLink, CallSpec, LogLine, ModuleRef, Outcome, SyscallReply


class FakeChild:
    """Records what it is sent; the test plays its answers."""

    _next_pid = 1000

    def __init__(self) -> None:
        FakeChild._next_pid += 1
        self.pid = FakeChild._next_pid
        self.modules: dict[str, int] = {}
        self.sent: list[Frame] = []
        self.flushed: list[int] = []
        """How many frames had been sent at each flush."""
        self.listener: ChildListener | None = None
        self.now = Announcement(0, 0, 0)
        self.cpu = 0.0
        self.state = "S"
        self.rss = 50_000_000
        self.killed: str | None = None
        self.closed = False
        self.gone = False
        self.greeted = False
        self.answered: set[int] = set()
        self.congested = False
        self.unsent_bytes = 0
        self.reading: Deferred[None] = Deferred()

    def start(self, listener: ChildListener) -> None:
        self.listener = listener

    def send(self, kind: int, call: int = 0, seq: int = 0, meta: bytes = b"", body: bytes = b"") -> None:
        self.sent.append(Frame(kind, call, seq, meta, body))

    def flush(self) -> None:
        self.flushed.append(len(self.sent))

    def drained(self) -> Deferred[None]:
        return self.reading

    def kill(self, reason: str) -> None:
        self.killed = self.killed or reason

    def close(self) -> None:
        self.closed = True

    def announced(self) -> Announcement:
        return self.now

    def usage(self) -> ThreadUsage | None:
        return ThreadUsage(self.cpu, self.state)

    def resident_bytes(self) -> int | None:
        return self.rss

    # -- what the test plays ---------------------------------------------------------------------------------------------

    def hello(self) -> FakeChild:
        self.greeted = True
        assert self.listener is not None
        self.listener.child_ready(self)
        return self

    def die(self, *, stderr: str = "", code: int | None = 1, signal: int | None = None) -> None:
        assert self.listener is not None
        self.gone = self.greeted = True
        reason = "closed" if self.closed and self.killed is None else self.killed
        self.listener.child_lost(self, ProcessExit(code, signal, stderr, reason, self.now))

    def frame(self, kind: int, call: int, seq: int = 0, meta: Any = None, body: bytes = b"") -> None:
        assert self.listener is not None
        self.listener.frame_received(self, Frame(kind, call, seq, orjson.dumps(meta or {}), body))

    def result(self, call: int, value: bytes = b"1", **meta: Any) -> None:
        self.answered.add(call)
        self.frame(frames.RESULT, call, 0, {"ok": True, "cpu_us": 1000, "observed": {}, "logs": [], **meta}, value)

    def failure(self, call: int, message: str, kind: str = "user", data: bytes = b"") -> None:
        self.answered.add(call)
        meta = {"ok": False, "error": {"message": message, "kind": kind}, "cpu_us": 5, "observed": {}, "logs": []}
        self.frame(frames.RESULT, call, 0, meta, data)

    def syscall(self, call: int, seq: int, op: str = "1.0/get", body: bytes = b"{}", **meta: Any) -> None:
        self.frame(frames.SYSCALL, call, seq, {"op": op, **meta}, body)

    def of_kind(self, kind: int) -> list[Frame]:
        return [frame for frame in self.sent if frame.kind == kind]

    @property
    def starts(self) -> list[int]:
        return [frame.call for frame in self.of_kind(frames.START)]

    @property
    def unanswered(self) -> list[int]:
        """Calls without a RESULT yet."""
        return [call for call in self.starts if call not in self.answered]

    def running(self, call: int, entry: int = 1) -> None:
        self.now = Announcement(call, entry, 0)


class FakeHost:
    """Answers syscalls with what ``answer`` gives; remembers everything."""

    def __init__(self, answer: Callable[[str, bytes], Any] | None = None) -> None:
        self.answer = answer or (lambda op, args: SyscallReply(args))
        self.calls: list[tuple[str, bytes]] = []
        self.reports: list[dict[str, int]] = []
        self.opened: list[tuple[int, bytes]] = []
        self.closed: list[int] = []
        self.lines: list[LogLine] = []
        self.link: CallLink | None = None
        self.completed = 0
        self.abandoned = 0
        self.losses = 0
        self.waited_for = False

    def begin(self, link: CallLink) -> None:
        self.link = link

    async def syscall(self, op: str, args: bytes, consumed: dict[str, int] | None) -> SyscallReply:
        self.calls.append((op, args))
        if consumed:
            self.reports.append(consumed)
        answer = self.answer(op, args)
        if isinstance(answer, Deferred) or hasattr(answer, "__await__"):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, SyscallReply)
        return answer

    def consumed(self, consumed: dict[str, int]) -> None:
        self.reports.append(consumed)

    def open_query(self, query_id: int, query: bytes) -> None:
        self.opened.append((query_id, query))

    def snapshot_ts(self) -> int | None:
        return 1_700_000_000_123_456_789

    def close_query(self, query_id: int) -> None:
        self.closed.append(query_id)

    def log(self, lines: Sequence[LogLine]) -> None:
        self.lines.extend(lines)

    def complete(self, outcome: Outcome) -> Outcome:
        self.completed += 1
        return outcome

    def lost(self) -> None:
        self.losses += 1

    def is_waited_for(self) -> bool:
        return self.waited_for

    def abandon(self) -> None:
        self.abandoned += 1


class Spawner:
    """Makes fake children and keeps them in order."""

    def __init__(self) -> None:
        self.children: list[FakeChild] = []

    def __call__(self) -> FakeChild:
        self.children.append(FakeChild())
        return self.children[-1]


def spec(kind: str = "query", *, admitted: bool = False, hash: str = "h1", timeout: float = 600.0) -> CallSpec:
    """A call of ``m.js:f``."""
    return CallSpec(
        kind=kind,
        module="m.js",
        export="f",
        args=b"[{}]",
        closure=(ModuleRef("m.js", hash),),
        seed=bytes(32),
        now_ms=1,
        import_seed=bytes(32),
        import_ms=0,
        env={},
        env_version="0",
        request_id="0" * 16,
        timeout_seconds=timeout,
        admitted=admitted,
    )


async def module_text(hash: str) -> ModuleText:
    """Every module has a short text."""
    return ModuleText(hash, "m.js", b"export const f = 1;", b"{}")


def advance(clock: Clock, seconds: float) -> None:
    """Let *seconds* pass in watchdog ticks."""
    for _ in range(round(seconds / 0.1)):
        clock.advance(0.1)
