"""The state of calls and children as the pool keeps it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from convex_backend.functions.frames import Frame
from convex_backend.functions.runner_process import Child
from convex_backend.interfaces import CallHost, CallSpec, LogLine, Outcome


@attrs.frozen(slots=True)
class Lost:
    """A try that gave nothing because its child went away.

    :param suspect: this call may be what ended the child.
    :param out_of_memory: the child ended for want of memory.
    """

    suspect: bool
    out_of_memory: bool


def flow_of(spec: CallSpec) -> tuple[str, str, str]:
    """The function that *spec* calls: among these the slots are shared out."""
    return spec.component, spec.module, spec.export


class SlotState(Enum):
    """The life of a child in the pool."""

    STARTING = "starting"
    SPARE = "spare"
    """Said hello, gets no calls: replaces a lost child at once."""
    READY = "ready"
    DRAINING = "draining"
    """Gets no new calls; closed when its last one ends."""
    QUARANTINE = "quarantine"
    """Runs one suspect alone."""


@attrs.define(eq=False, slots=True)
class Slot:
    """One child and what runs in it.

    :param target: what it is for: the state that follows STARTING, or QUARANTINE.
    :param hello: fires when it said hello.
    :param roots: number of root calls, the child's load.
    :param unheard: of the root calls, those of which the child has said nothing yet.
    :param calls: every call by id, nested ones too.
    :param condemned: outcome for the root that the watchdog killed the child for.
    :param tainted: a run has left something behind that others must not meet: no new calls.
    :param beat: of a child for Node actions, the last sign that its event loop goes round; ``beat_since``: when it was first seen.
    :param idle_since: when its last call has ended, while it has none.
    :param stalled: one entry into JavaScript has been running for longer than a watchdog tick.
    """

    child: Child
    state: SlotState
    target: SlotState
    hello: Deferred[Slot] | None = None
    roots: int = 0
    unheard: int = 0
    calls: dict[int, Call] = attrs.field(factory=dict)
    condemned: tuple[Call, Outcome] | None = None
    kill_reason: str | None = None
    tainted: bool = False
    beat: int = -1
    beat_since: float = 0.0
    idle_since: float = 0.0
    stalled: bool = False
    spoke: bool = False
    hello_timer: IDelayedCall | None = None
    entry: tuple[int, int] | None = None
    entry_since: float = 0.0
    entry_cpu: float | None = None
    entry_resident: int | None = None
    stopped_since: float | None = None
    quiet_since: float | None = None
    resident: int = 0


class Link:
    """The pool as one call's host sees it (:class:`convex_backend.interfaces.CallLink`), until the call ends."""

    __slots__ = ("_call", "_run", "_waits")

    def __init__(
        self,
        call: Call,
        run: Callable[[Call, CallSpec, CallHost], Coroutine[Any, Any, Outcome]],
        waits: Callable[[Call, bool], None],
    ) -> None:
        self._call: Call | None = call
        self._run = run
        self._waits = waits

    async def run_nested(self, spec: CallSpec, host: CallHost) -> Outcome:
        """See ``CallLink``."""
        assert self._call is not None, "the call has ended"
        return await self._run(self._call, spec, host)

    def waits(self, waits: bool) -> None:
        """See ``CallLink``."""
        if self._call is not None:
            self._waits(self._call, waits)

    def send_stream(self, kind: int, stream: int, meta: bytes, body: bytes) -> None:
        """See ``CallLink``."""
        if self._call is not None:
            self._call.slot.child.send(kind, self._call.id, stream, meta, body)

    def detach(self) -> None:
        """The call has ended: host and call no longer hold each other."""
        self._call = None


@attrs.define(eq=False, slots=True)
class Call:
    """One try of one call in one child.

    :param done: fires with the outcome, or with :class:`Lost`; fails with what ends the run from outside JavaScript.
    :param queue: syscalls not yet begun, in order.
    :param result: RESULT, while writes that the child has answered before it are carried out.
    :param serving: what answers syscalls now (one for queries and mutations, up to eight for actions).
    :param heard: the child has said something of it.
    :param current_answered: whether the syscall that is being served was answered by the child itself; ``None`` between two.
    :param queued_bytes: of the arguments in ``queue``.
    :param syscall_since: of a root, since when the syscalls of its tree are being answered; ``None`` while JavaScript runs or another
        transaction is waited for. ``syscall_seconds``: what that has taken so far.
    :param parked: of a root, it waits for another transaction and has given its admission slot back.
    :param nested_lines: log lines of finished nested calls by the seq of their syscall.
    """

    id: int
    spec: CallSpec
    host: CallHost
    slot: Slot
    parent: Call | None
    started: float
    done: Deferred[Outcome | Lost] = attrs.field(init=False)
    alive: bool = True
    heard: bool = False
    action: bool = False
    queue: deque[Frame] = attrs.field(factory=deque)
    queued_bytes: int = 0
    serving: dict[int, Deferred[Any] | None] = attrs.field(factory=dict)
    current_seq: int = 0
    current_answered: bool | None = None
    result: Frame | None = None
    syscall_since: float | None = None
    syscall_seconds: float = 0.0
    parked: bool = False
    nested: list[Call] = attrs.field(factory=list)
    nested_lines: dict[int, list[LogLine]] = attrs.field(factory=dict)
    nested_observed: set[str] = attrs.field(factory=set)
    streamed: list[LogLine] = attrs.field(factory=list)
    link: Link | None = None

    @property
    def root(self) -> Call:
        """The call that has no parent. Not stored: a root that held itself would be left to the garbage collector."""
        call = self
        while call.parent is not None:
            call = call.parent
        return call

    def stop_syscall_clock(self, now: float) -> None:
        """Of a root: what is under way is not a system operation of this tree."""
        if self.syscall_since is not None:
            self.syscall_seconds += now - self.syscall_since
            self.syscall_since = None

    def __attrs_post_init__(self) -> None:
        self.action = self.spec.kind not in ("query", "mutation")
