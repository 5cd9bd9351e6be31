"""Runs functions in JavaScript children: admits, starts, answers, replays (F1, F6, F7).

The life of one ``run``::

    admission --> a ready child, its missing modules --> START --> syscalls ... --> RESULT --> host.complete --> Outcome
        |                                                  |
     Overloaded                                    child lost: condemned by the watchdog --> its Outcome
                                                               innocent --> again with a fresh host
                                                               suspect  --> again, alone in a quarantine child, at most twice
                                                               action   --> an error, never again
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import attrs
import orjson
from prometheus_client import Counter
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from convex_backend.errors import ConvexError, Overloaded, ServerFault
from convex_backend.functions import frames
from convex_backend.functions.admission import STOPPING_TEXT, Admission
from convex_backend.functions.calls import Call, Link, Lost, Slot, SlotState
from convex_backend.functions.fleet import Fleet, PoolOptions
from convex_backend.functions.frames import Frame, FrameError
from convex_backend.functions.limits import MEMORY_TEXT
from convex_backend.functions.log_lines import MAX_LINES, attribute
from convex_backend.functions.module_text import ModuleText
from convex_backend.functions.outcome import (
    error_reply,
    is_user_error,
    loads_lenient,
    masked,
    read_lines,
    read_result,
    system_failure,
)
from convex_backend.functions.pool_metrics import PoolMetrics
from convex_backend.functions.runner_process import Child, ProcessExit
from convex_backend.functions.watchdog import Watchdog
from convex_backend.interfaces import CallHost, CallSpec, LogLine, ModuleRef, Outcome, SyscallReply

__all__ = ["ModuleText", "PoolOptions", "RunnerPool"]

ACTION_CONCURRENCY = 8
"""Syscalls of one action that are answered at once (``runtime.md`` 2.4)."""
NOTICES = frozenset({"1.0/queryStream", "1.0/queryCleanup"})
MAX_QUEUED_SYSCALLS = 65536
MAX_REPLAYS = 3
"""An innocent call that loses its child more often than this is treated as a suspect."""
MAX_QUARANTINES = 2
MAX_MODULE_BYTES = 96 * 1024 * 1024
"""Sources held by one child; beyond it the least recently used are forgotten."""


class RunnerPool:
    """Runs calls in at most ``options.size`` children.

    :param clock: reactor or test clock.
    :param spawn: makes a child, not started.
    :param module_text: source of a module by hash; asked once for each child and hash.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        options: PoolOptions,
        spawn: Callable[[], Child],
        module_text: Callable[[str], Awaitable[ModuleText]],
        metrics: PoolMetrics,
    ) -> None:
        self._clock = clock
        self._options = options
        self._module_text = module_text
        self._admission = Admission(clock, options.max_waiting, options.max_wait_seconds)
        self._fleet = Fleet(
            clock,
            options,
            spawn,
            metrics,
            self._frame_received,
            self._child_lost,
            self._ready_changed,
            self._start_failed,
        )
        self._watchdog = Watchdog(clock, self)
        self._next_id = 0
        self._quarantine = DeferredLock()
        self._ops: dict[bytes, str] = {}
        self._started = False
        self._stopping = False
        self._metrics = metrics
        self._run_counters: dict[tuple[str, str], Counter] = {}
        self._running_gauge = metrics.running.labels(options.kind)
        self._waiting_gauge = metrics.waiting.labels(options.kind)
        self._resident_gauge = metrics.resident.labels(options.kind)
        self._cpu_counter = metrics.cpu.labels(options.kind)
        self._refused_counter = metrics.refused.labels(options.kind)
        self._replayed_counter = metrics.replayed.labels(options.kind)

    async def start(self) -> None:
        """Start the watchdog and, for an eager pool, the first child.

        :raises ServerFault: the child does not start (missing, crash, other protocol version).
        """
        self._started = True
        self._watchdog.start()
        if self._options.eager:
            await self._fleet.start()

    async def stop(self) -> None:
        """Refuse new calls, end those that run with ``Overloaded``, close the children; returns when all are reaped."""
        self._stopping = True
        self._admission.close()
        self._watchdog.stop()
        stopped = self._fleet.stop()
        for slot in self._fleet.slots:
            for root in _roots(slot):
                self._fail_tree(root, Overloaded("BackendIsNotRunning", STOPPING_TEXT))
        await stopped

    async def run(self, spec: CallSpec, make_host: Callable[[], CallHost]) -> Outcome:
        """Run one exported function.

        :param make_host: called for each try; the host of a try that gives nothing is abandoned.
        :returns: the outcome of the try that ended by itself or was ended by a limit.
        :raises Overloaded: not admitted, or the server is stopping.
        :raises Exception: whatever a host raised that a function may not catch (``Transient`` errors, our own faults).
        Cancelling this drops the call; its host is abandoned.
        """
        mutation = spec.kind == "mutation"
        try:
            waiting = self._admission.enter(mutation, spec.admitted)
        except Overloaded:
            self._refused_counter.inc()
            raise
        if waiting is not None:
            if not self._fleet.ready_count:
                self._fleet.grow()
            await waiting
        try:
            return await self._run_admitted(spec, make_host)
        finally:
            self._admission.leave(mutation)

    async def _run_admitted(self, spec: CallSpec, make_host: Callable[[], CallHost]) -> Outcome:
        for _ in range(MAX_REPLAYS):
            slot = self._fleet.choose()
            while slot is None:
                await self._fleet.wait_ready()
                slot = self._fleet.choose()
            ended = await self._try(slot, spec, make_host)
            if isinstance(ended, Outcome):
                return self._counted(spec, ended)
            if self._stopping:
                raise Overloaded("BackendIsNotRunning", STOPPING_TEXT)
            if ended.suspect:
                break
            self._replayed_counter.inc()
        return self._counted(spec, await self._run_quarantined(spec, make_host))

    def _counted(self, spec: CallSpec, outcome: Outcome) -> Outcome:
        error = outcome.error
        result = "ok" if error is None else "system" if error.system else "error"
        self._count_run(spec.kind, result)
        self._cpu_counter.inc(outcome.cpu_seconds)
        return outcome

    def _count_run(self, kind: str, result: str) -> None:
        counter = self._run_counters.get((kind, result))
        if counter is None:
            counter = self._metrics.runs.labels(self._options.kind, kind, result)
            self._run_counters[kind, result] = counter
        counter.inc()

    async def _run_quarantined(self, spec: CallSpec, make_host: Callable[[], CallHost]) -> Outcome:
        for _ in range(MAX_QUARANTINES):
            await self._quarantine.acquire()
            try:
                slot = await self._fleet.quarantine()
                try:
                    ended = await self._try(slot, spec, make_host)
                finally:
                    slot.child.close()
            finally:
                self._quarantine.release()
            if isinstance(ended, Outcome):
                return ended
            if ended.out_of_memory:
                return system_failure(MEMORY_TEXT)
            self._replayed_counter.inc()
        return system_failure(ServerFault.MESSAGE)

    async def _try(self, slot: Slot, spec: CallSpec, make_host: Callable[[], CallHost]) -> Outcome | Lost:
        # The load is counted from here on: sending modules may wait, and others choose a child meanwhile.
        slot.roots += 1
        try:
            if not self._has_modules(slot, spec.closure):
                await self._send_modules(slot, spec.closure)
            if slot.child not in self._fleet:
                return Lost(False, False)
            call = self._begin(slot, spec, make_host(), None)
            try:
                return await call.done
            except CancelledError:
                if call.alive:
                    slot.child.send(frames.CANCEL, call.id)
                    self._end(call, abandon=True)
                raise
        finally:
            slot.roots -= 1
            self._fleet.call_ended(slot)

    def _has_modules(self, slot: Slot, closure: Iterable[ModuleRef]) -> bool:
        modules = slot.child.modules
        return all(ref.hash in modules for ref in closure)

    async def _send_modules(self, slot: Slot, closure: tuple[ModuleRef, ...]) -> None:
        modules = slot.child.modules
        for ref in closure:
            if ref.hash in modules:
                modules[ref.hash] = modules.pop(ref.hash)
        for ref in closure:
            if ref.hash in modules:
                continue
            text = await self._module_text(ref.hash)
            if ref.hash in modules:
                # Another call that waited for the same module has sent it meanwhile.
                continue
            head = {"hash": ref.hash, "path": text.path, "kind": "script"}
            slot.child.send(frames.MODULE, meta=orjson.dumps(head), body=text.source)
            size = len(text.source)
            if text.source_map is not None:
                head["kind"] = "map"
                slot.child.send(frames.MODULE, meta=orjson.dumps(head), body=text.source_map)
                size += len(text.source_map)
            modules[ref.hash] = size
        self._forget_modules(slot, closure)

    def _forget_modules(self, slot: Slot, closure: tuple[ModuleRef, ...]) -> None:
        modules = slot.child.modules
        total = sum(modules.values())
        if total <= MAX_MODULE_BYTES:
            return
        kept = {ref.hash for ref in closure}
        for call in slot.calls.values():
            kept.update(ref.hash for ref in call.spec.closure)
        forgotten = []
        for hash_, size in list(modules.items()):
            if total <= MAX_MODULE_BYTES:
                break
            if hash_ not in kept:
                del modules[hash_]
                total -= size
                forgotten.append(hash_)
        if forgotten:
            slot.child.send(frames.FORGET, meta=orjson.dumps({"hashes": forgotten}))

    def _begin(self, slot: Slot, spec: CallSpec, host: CallHost, parent: Call | None) -> Call:
        self._next_id = call_id = self._next_id % 0xFFFFFFFF + 1
        call = Call(call_id, spec, host, slot, parent, self._clock.seconds())
        call.done = Deferred()
        slot.calls[call_id] = call
        if parent is not None:
            parent.nested.append(call)
        call.link = Link(call, self.run_nested)
        host.begin(call.link)
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
                "tables": spec.tables,
                "reuse": spec.reuse_context,
            }
        )
        try:
            slot.child.send(frames.START, call_id, 0, meta, spec.args)
        except FrameError:
            self._end(call, abandon=True)
            raise
        return call

    async def run_nested(self, parent: Call, spec: CallSpec, host: CallHost) -> Outcome:
        """See :class:`CallLink`; *parent* is suspended in a syscall."""
        slot = parent.slot
        if not self._has_modules(slot, spec.closure):
            await self._send_modules(slot, spec.closure)
        root = parent.root
        self._stop_syscall_clock(root)
        call = self._begin(slot, spec, host, parent)
        ended = await call.done
        if root.alive:
            root.syscall_since = self._clock.seconds()
        # A tree that loses its child ends as a whole, and this wait with it.
        assert isinstance(ended, Outcome)
        lines = parent.nested_lines.setdefault(parent.current_seq, [])
        lines.extend(attribute(ended.log_lines, spec.component, f"{spec.module}:{spec.export}"))
        parent.nested_observed |= ended.observed
        return ended

    # -- frames ----------------------------------------------------------------------------------------------------------

    def _frame_received(self, slot: Slot, frame: Frame) -> None:
        slot.spoke = True
        call = slot.calls.get(frame.call)
        if call is None:
            # Of a call that has been cancelled or ended by a limit: the child will learn of it.
            return
        try:
            if frame.kind == frames.SYSCALL:
                self._syscall(call, frame)
            elif frame.kind == frames.RESULT:
                self._result(call, frame)
            elif frame.kind == frames.LOG:
                self._lines(call, read_lines(frame.meta))
            else:
                raise ValueError(f"unexpected frame {frame.kind}")
        except (ValueError, KeyError, TypeError, AttributeError, FrameError):
            self._log.failure("runner {pid} broke the protocol", pid=slot.child.pid)
            self.kill_innocent(slot, "protocol")

    def _lines(self, call: Call, lines: list[LogLine]) -> None:
        """Lines of a running action; beyond the limit of a run they are dropped (the cap at the end says so)."""
        del lines[max(0, MAX_LINES + 1 - len(call.streamed)) :]
        if lines:
            call.streamed.extend(lines)
            call.host.log(lines)

    def _syscall(self, call: Call, frame: Frame) -> None:
        if len(call.queue) >= MAX_QUEUED_SYSCALLS:
            self._fail_tree(call.root, ServerFault())
            return
        if call.serving and (not call.action or len(call.serving) >= ACTION_CONCURRENCY):
            call.queue.append(frame)
            return
        call.queue.append(frame)
        key = frame.seq
        # Entered before the coroutine starts, so that syscalls that it makes the child send are queued behind.
        call.serving[key] = None
        served = Deferred.fromCoroutine(self._serve(call, key))
        if key in call.serving and call.alive:
            call.serving[key] = served
        served.addErrback(self._serving_failed, call)

    async def _serve(self, call: Call, key: int) -> None:
        """Answer queued syscalls of *call* until none is left; queries and mutations have one of these, actions up to eight."""
        queue = call.queue
        host = call.host
        root = call.root
        child = call.slot.child
        if not call.action:
            root.syscall_since = self._clock.seconds()
        while queue and call.alive:
            frame = queue.popleft()
            call.current_seq = frame.seq
            op, consumed = self._op(frame.meta)
            if op in NOTICES:
                self._notice(call, op, frame, consumed)
                continue
            try:
                reply: SyscallReply = await host.syscall(op, frame.body, consumed)
            except CancelledError:
                if not call.alive:
                    return
                raise
            except Exception as error:  # noqa: BLE001 - given to the function, or to who called run
                if not call.alive:
                    return
                if not self._throw(call, frame.seq, error):
                    del call.serving[key]
                    self._fail_tree(root, error)
                    return
            else:
                if not call.alive:
                    return
                meta = orjson.dumps(reply.meta) if reply.meta else b""
                child.send(frames.SYSRESULT, call.id, frame.seq, meta, reply.body)
        call.serving.pop(key, None)
        if not call.action:
            self._stop_syscall_clock(root)

    def _notice(self, call: Call, op: str, frame: Frame, consumed: dict[str, int] | None) -> None:
        """A syscall that is not answered (``docs/internals.md`` section 8)."""
        if consumed:
            call.host.consumed(consumed)
        if op == "1.0/queryStream":
            call.host.open_query(int(loads_lenient(frame.meta)["queryId"]), frame.body)
        else:
            call.host.close_query(int(loads_lenient(frame.body)["queryId"]))

    def _throw(self, call: Call, seq: int, error: Exception) -> bool:
        """Throw *error* into JavaScript if it may be caught there. :returns: whether it may."""
        if call.action:
            shown = masked(error)
            if shown is not error and not isinstance(error, ConvexError):
                self._log.failure("a syscall of an action failed", failure=Failure(error))
        elif is_user_error(error):
            shown = error
        else:
            return False
        meta, body = error_reply(shown)
        call.slot.child.send(frames.SYSRESULT, call.id, seq, meta, body)
        return True

    def _serving_failed(self, failure: Failure, call: Call) -> None:
        """The loop itself failed: a cancelled wait is the end of its tree, anything else a fault of ours."""
        if not call.alive:
            return
        error = failure.value if isinstance(failure.value, Exception) else ServerFault()
        if not isinstance(error, CancelledError):
            self._log.failure("answering syscalls failed", failure=failure)
        call.serving.clear()
        self._fail_tree(call.root, error if not isinstance(error, CancelledError) else ServerFault())

    def _op(self, meta: bytes) -> tuple[str, dict[str, int] | None]:
        op = self._ops.get(meta)
        if op is not None:
            return op, None
        tree = loads_lenient(meta)
        op = tree["op"]
        if not isinstance(op, str):
            raise TypeError("op is not text")
        consumed = tree.get("consumed")
        if not consumed and len(self._ops) < 256:
            self._ops[meta] = op
        return op, consumed or None

    def _stop_syscall_clock(self, root: Call) -> None:
        if root.syscall_since is not None:
            root.syscall_seconds += self._clock.seconds() - root.syscall_since
            root.syscall_since = None

    def _result(self, call: Call, frame: Frame) -> None:
        result = read_result(frame.meta, frame.body, call.nested_lines, call.streamed)
        if result.fault is not None:
            self._fail_tree(call.root, result.fault)
            return
        outcome = result.outcome
        if call.nested_observed:
            outcome = attrs.evolve(outcome, observed=outcome.observed | call.nested_observed)
        if outcome.error is not None and outcome.error.system:
            self._end_tree(call.root, outcome)
            return
        try:
            if result.consumed:
                call.host.consumed(result.consumed)
            outcome = call.host.complete(outcome)
        except Exception as error:  # noqa: BLE001 - a consumed report may meet a limit, a complete may refuse: the caller's to judge
            self._fail_tree(call.root, error)
            return
        self._end(call, abandon=False)
        call.done.callback(outcome)

    # -- ends ------------------------------------------------------------------------------------------------------------

    def _end(self, call: Call, *, abandon: bool) -> None:
        """Take *call* and what it still waits for out of everything; ``done`` is the caller's business."""
        call.alive = False
        call.slot.calls.pop(call.id, None)
        if call.link is not None:
            call.link.detach()
        for nested in list(call.nested):
            if nested.alive:
                self._end(nested, abandon=True)
        if call.parent is not None and call in call.parent.nested:
            call.parent.nested.remove(call)
        call.queue.clear()
        serving, call.serving = call.serving, {}
        for served in serving.values():
            if served is not None:
                served.cancel()
        if abandon:
            try:
                call.host.abandon()
            except Exception:  # noqa: BLE001 - an abandoned try has nobody to tell
                self._log.failure("abandoning a call failed")

    def _end_tree(self, root: Call, outcome: Outcome) -> None:
        """End *root* with *outcome*, whatever its tree is doing."""
        if root.alive:
            root.slot.child.send(frames.CANCEL, root.id)
            self._end(root, abandon=True)
            root.done.callback(outcome)

    def _fail_tree(self, root: Call, error: Exception) -> None:
        """Raise *error* to who called ``run``."""
        if root.alive:
            root.slot.child.send(frames.CANCEL, root.id)
            self._end(root, abandon=True)
            self._count_run(root.spec.kind, "aborted")
            root.done.errback(Failure(error))

    def _child_lost(self, slot: Slot, exit: ProcessExit) -> None:
        roots = _roots(slot)
        condemned, outcome = slot.condemned if slot.condemned is not None else (None, None)
        announced = slot.calls.get(exit.announced.call)
        announced_root = announced.root if announced is not None else None
        for root in roots:
            alone = slot.state is SlotState.QUARANTINE or slot.target is SlotState.QUARANTINE
            if root is condemned:
                assert outcome is not None
                self._end(root, abandon=True)
                root.done.callback(outcome)
                continue
            if root.action:
                guilty = root is announced_root or len(roots) == 1
                text = MEMORY_TEXT if exit.out_of_memory and guilty else ServerFault.MESSAGE
                lost: Outcome | Lost = system_failure(text, root.streamed)
            elif slot.kill_reason is not None and not alone:
                lost = Lost(False, False)
            else:
                suspect = announced_root is None or root is announced_root
                lost = Lost(suspect or alone, exit.out_of_memory)
            self._end(root, abandon=True)
            root.done.callback(lost)
        slot.calls.clear()

    def _ready_changed(self) -> None:
        self._admission.set_slots(self._fleet.ready_count * self._options.calls_per_child)

    def _start_failed(self, error: Exception) -> None:
        self._admission.fail_waiting(error)

    # -- for the watchdog ------------------------------------------------------------------------------------------------

    def watched_slots(self) -> Iterable[Slot]:
        """See :class:`Watched`."""
        return self._fleet.slots

    def condemn(self, slot: Slot, root: Call, text: str) -> None:
        """See :class:`Watched`."""
        slot.condemned = (root, system_failure(text, root.streamed))
        slot.kill_reason = "timeout"
        slot.child.kill(f"a call ran too long: {root.spec.module}:{root.spec.export}")

    def kill_innocent(self, slot: Slot, reason: str) -> None:
        """See :class:`Watched`."""
        if slot.kill_reason is None:
            slot.kill_reason = reason
            slot.child.kill(reason)

    def end_root(self, root: Call, text: str) -> None:
        """See :class:`Watched`."""
        self._end_tree(root, system_failure(text, root.streamed))

    def memory_measured(self, slot: Slot) -> None:
        """See :class:`Watched`."""
        if slot.resident > self._options.resident_bytes and slot.state is SlotState.READY:
            self._log.info("runner {pid} uses {resident} bytes: replaced", pid=slot.child.pid, resident=slot.resident)
            self._fleet.drain(slot)

    def ticked(self) -> None:
        """See :class:`Watched`."""
        self._admission.expire()
        self._running_gauge.set(self._admission.running)
        self._waiting_gauge.set(self._admission.waiting)
        self._resident_gauge.set(sum(slot.resident for slot in self._fleet.slots))


def _roots(slot: Slot) -> list[Call]:
    return [call for call in slot.calls.values() if call.parent is None]
