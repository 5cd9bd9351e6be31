"""Begins and ends calls in children: START to RESULT, nested calls, and every way in which a tree ends early (F6).

A *tree* is a root call and what it called through ``1.0/runUdf``. It runs in one child and ends as a whole: a nested call's own failure is its
caller's to catch, but a limit, a lost child or an error that a function may not catch end the root.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import orjson
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from convex_backend.functions import frames
from convex_backend.functions.calls import Call, Link, Slot
from convex_backend.functions.frames import Frame, FrameError
from convex_backend.functions.limits import SYSCALL_TIMEOUT_TEXT
from convex_backend.functions.log_lines import MAX_LINES, attribute
from convex_backend.functions.module_text import ModuleText
from convex_backend.functions.outcome import read_lines, read_result, system_failure
from convex_backend.functions.realms import RealmReuse
from convex_backend.functions.sent_modules import has_modules, send_modules
from convex_backend.functions.serving import SyscallServer
from convex_backend.interfaces import CallHost, CallSpec, LogLine, Outcome
from convex_backend.values.json_codec import dumps

_STREAM_KINDS = frozenset((frames.DATA, frames.WINDOW, frames.HTTP))


class CallTrees:
    """The calls of one pool.

    :param module_text: source of a module by hash.
    :param park: a root waits for another transaction; returns whether its admission slot was given back.
    :param resume: such a root goes on, or ends.
    :param aborted: a tree of this kind has ended with an error for who called ``run``.
    :param limit_hit: a bound was met; its name.
    :param realms: which runs may share their contexts.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        module_text: Callable[[str], Awaitable[ModuleText]],
        park: Callable[[Call], bool],
        resume: Callable[[Call], None],
        aborted: Callable[[str], None],
        limit_hit: Callable[[str], None],
        realms: RealmReuse,
    ) -> None:
        self._clock = clock
        self._module_text = module_text
        self._park = park
        self._resume = resume
        self._aborted = aborted
        self._limit_hit = limit_hit
        self._realms = realms
        self._server = SyscallServer(clock, self.fail, self._flooded, self._result)
        self._next_id = 0

    # -- beginning -------------------------------------------------------------------------------------------------------

    async def ensure_modules(self, slot: Slot, spec: CallSpec) -> None:
        """The child holds the modules of *spec* when this returns."""
        await send_modules(slot, spec.closure, self._module_text)

    def begin(self, slot: Slot, spec: CallSpec, host: CallHost, parent: Call | None) -> Call:
        """Start *spec* in a child that holds its modules. :returns: the call, whose ``done`` fires.

        :raises FrameError: the arguments are too large for a frame.
        """
        self._next_id = call_id = self._next_id % 0xFFFFFFFF + 1
        call = Call(call_id, spec, host, slot, parent, self._clock.seconds())
        call.done = Deferred()
        slot.calls[call_id] = call
        if parent is not None:
            parent.nested.append(call)
        call.link = Link(call, self.run_nested, self.waits)
        meta = orjson.dumps(
            {
                "kind": spec.kind,
                "module": spec.module,
                "export": spec.export,
                "closure": {ref.path: ref.hash for ref in spec.closure},
                "parent": parent.id if parent is not None else None,
                "root": call.root.id,
                "seed": spec.seed.hex(),
                "now_ms": spec.now_ms,
                "import_seed": spec.import_seed.hex(),
                "import_ms": spec.import_ms,
                "env": spec.env,
                "request_id": spec.request_id,
                "component": spec.component,
                **({"arguments": spec.component_arguments} if spec.component else {}),
                "tables": spec.tables,
                "snapshot": None if (ts := host.snapshot_ts()) is None else dumps(ts).decode(),
                "reuse": spec.reuse_context,
                "realm": self._realms.allows(spec),
                **({} if spec.http_route is None else {"route": spec.http_route}),
                "ahead": spec.ahead,
                **({"directory": spec.package} if spec.package else {}),
            }
        )
        try:
            slot.child.send(frames.START, call_id, 0, meta, spec.args)
        except FrameError:
            self._limit_hit("frame")
            self.end(call, abandon=True)
            raise
        # After START: streams may have something to send at once.
        host.begin(call.link)
        return call

    async def run_nested(self, parent: Call, spec: CallSpec, host: CallHost) -> Outcome:
        """See :class:`CallLink`; *parent* is suspended in a syscall."""
        slot = parent.slot
        if not has_modules(slot, spec.closure):
            await self.ensure_modules(slot, spec)
        root = parent.root
        root.stop_syscall_clock(self._clock.seconds())
        call = self.begin(slot, spec, host, parent)
        ended = await call.done
        if root.alive:
            root.syscall_since = self._clock.seconds()
        # A tree that loses its child ends as a whole, and this wait with it.
        assert isinstance(ended, Outcome)
        lines = parent.nested_lines.setdefault(parent.current_seq, [])
        lines.extend(attribute(ended.log_lines, spec.component, f"{spec.module}:{spec.export}"))
        parent.nested_observed |= ended.observed
        return ended

    def waits(self, call: Call, waits: bool) -> None:
        """See :class:`CallLink`."""
        root = call.root
        if waits:
            root.stop_syscall_clock(self._clock.seconds())
            if not root.parked:
                # Set before: giving the slot back may let others in, who may end what this one waits for.
                root.parked = True
                if not self._park(root):
                    root.parked = False
        elif root.alive:
            self._unpark(root)
            root.syscall_since = self._clock.seconds()

    def _unpark(self, root: Call) -> None:
        if root.parked:
            root.parked = False
            self._resume(root)

    # -- frames ----------------------------------------------------------------------------------------------------------

    def receive(self, call: Call, frame: Frame) -> None:
        """A frame of a running call.

        :raises ValueError, KeyError, TypeError, AttributeError, FrameError: the child broke the protocol.
        """
        if frame.kind == frames.SYSCALL:
            self._server.receive(call, frame)
        elif frame.kind == frames.RESULT:
            if not self._server.defer(call, frame):
                self._result(call, frame)
        elif frame.kind == frames.LOG:
            self._lines(call, read_lines(frame.meta))
        elif frame.kind in _STREAM_KINDS and call.action:
            call.host.stream_frame(frame.kind, frame.seq, frame.meta, frame.body)
        else:
            raise ValueError(f"unexpected frame {frame.kind}")

    def _lines(self, call: Call, lines: list[LogLine]) -> None:
        """Lines of a running action; beyond the limit of a run they are dropped (the cap at the end says so)."""
        room = max(0, MAX_LINES + 1 - len(call.streamed))
        if len(lines) > room:
            self._limit_hit("log_lines")
            lines[room:] = [line for line in lines[room:] if line.code is not None]
        if lines:
            call.streamed.extend(lines)
            call.host.log(lines)

    def _result(self, call: Call, frame: Frame) -> None:
        result = read_result(frame.meta, frame.body, call.nested_lines, call.streamed)
        if result.realm is not None:
            self._realms.ended(call.spec, result.realm)
        if result.retire:
            call.slot.tainted = True
        if result.fault is not None:
            self.fail(call.root, result.fault)
            return
        outcome = result.outcome
        if call.nested_observed:
            outcome = attrs.evolve(outcome, observed=outcome.observed | call.nested_observed)
        if outcome.error is not None and outcome.error.system:
            self.end_root(call.root, outcome)
            return
        try:
            if result.consumed:
                call.host.consumed(result.consumed)
            outcome = call.host.complete(outcome)
        except Exception as error:  # noqa: BLE001 - a consumed report may meet a limit, a complete may refuse: the caller's to judge
            self.fail(call.root, error)
            return
        self.end(call, abandon=False)
        call.done.callback(outcome)

    def _flooded(self, call: Call) -> None:
        self._limit_hit("syscall_queue")
        root = call.root
        self.end_root(root, system_failure(SYSCALL_TIMEOUT_TEXT, root.streamed))

    # -- ends ------------------------------------------------------------------------------------------------------------

    def end(self, call: Call, *, abandon: bool) -> None:
        """Take *call* and what it still waits for out of everything; ``done`` is the caller's business."""
        call.alive = False
        call.slot.calls.pop(call.id, None)
        if call.link is not None:
            call.link.detach()
        self._unpark(call)
        for nested in list(call.nested):
            if nested.alive:
                self.end(nested, abandon=True)
        if call.parent is not None and call in call.parent.nested:
            call.parent.nested.remove(call)
        call.queue.clear()
        call.queued_bytes = 0
        call.result = None
        serving, call.serving = call.serving, {}
        for served in serving.values():
            if served is not None:
                served.cancel()
        if abandon:
            try:
                call.host.abandon()
            except Exception:  # noqa: BLE001 - an abandoned try has nobody to tell
                self._log.failure("abandoning a call failed")

    def cancel(self, root: Call) -> None:
        """Who called ``run`` wants nothing any more."""
        if root.alive:
            root.slot.child.send(frames.CANCEL, root.id)
            if root.spec.package:
                # Its code cannot be stopped without its process.
                root.slot.tainted = True
            self.end(root, abandon=True)

    def end_root(self, root: Call, outcome: Outcome) -> None:
        """End *root* with *outcome*, whatever its tree is doing."""
        if root.alive:
            self.cancel(root)
            root.done.callback(outcome)

    def fail(self, root: Call, error: Exception) -> None:
        """Raise *error* to who called ``run``."""
        if root.alive:
            self.cancel(root)
            self._aborted(root.spec.kind)
            root.done.errback(Failure(error))
