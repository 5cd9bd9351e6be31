"""Runs functions in JavaScript children: admits them, and tries again what lost its child innocently (F1, F6, F7).

The life of one ``run``::

    admission --> a ready child, its missing modules --> START --> syscalls ... --> RESULT --> host.complete --> Outcome
        |                                                  |
     Overloaded                                    child lost: condemned by the watchdog --> its Outcome
                                                               innocent --> again with a fresh host
                                                               suspect  --> again, alone in a quarantine child, at most twice
                                                               action   --> an error, never again

Beside it: ``admission.py`` who may run, ``fleet.py`` the children, ``call_trees.py`` one try in one child, ``serving.py`` its syscalls,
``watchdog.py`` who runs too long.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Iterable

from prometheus_client import Counter
from twisted.internet.defer import CancelledError, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from convex_backend.errors import Overloaded, ServerFault
from convex_backend.functions.admission import STOPPING_TEXT, Admission
from convex_backend.functions.call_trees import CallTrees
from convex_backend.functions.calls import Call, Lost, Slot, SlotState, flow_of
from convex_backend.functions.fleet import Fleet, PoolOptions
from convex_backend.functions.frames import Frame, FrameError
from convex_backend.functions.limits import MEMORY_TEXT
from convex_backend.functions.module_text import ModuleText
from convex_backend.functions.outcome import system_failure
from convex_backend.functions.pool_metrics import PoolMetrics
from convex_backend.functions.realms import RealmReuse
from convex_backend.functions.runner_process import Child, ProcessExit
from convex_backend.functions.sent_modules import has_modules
from convex_backend.functions.watchdog import Watchdog
from convex_backend.interfaces import CallHost, CallSpec, Outcome

__all__ = ["ModuleText", "PoolOptions", "RunnerPool"]

MAX_REPLAYS = 3
"""An innocent call that loses its child more often than this is treated as a suspect."""
MAX_QUARANTINES = 2
MAX_QUARANTINE_TRIES = 6
"""Tries in quarantine, those included that somebody's signal ended, or whose child did not start."""


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
        self._options = options
        self._metrics = metrics.of(options.kind)
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
        self._admission = Admission(
            clock,
            options.max_waiting,
            options.max_wait_seconds,
            self._metrics.waited.observe,
            self._metrics.refused.inc,
            self._fleet.takes_starts,
        )
        self._trees = CallTrees(
            clock,
            module_text,
            lambda root: self._admission.park(flow_of(root.spec)),
            lambda root: self._admission.resume(flow_of(root.spec)),
            lambda kind: self._count_run(kind, "aborted"),
            self._limit_hit,
            RealmReuse(options.reuse_realms, self._metrics),
        )
        self._watchdog = Watchdog(clock, self)
        self._quarantine = DeferredLock()
        self._isolated: Slot | None = None
        self._stopping = False
        self._run_counters: dict[tuple[str, str], Counter] = {}

    async def start(self) -> None:
        """Start the watchdog and, for an eager pool, the first child.

        :raises ServerFault: the child does not start (missing, crash, other protocol version).
        """
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
                self._trees.fail(root, Overloaded("BackendIsNotRunning", STOPPING_TEXT))
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
        flow = flow_of(spec)
        waiting = self._admission.enter(mutation, spec.admitted, flow)
        if waiting is not None:
            if not self._fleet.ready_count:
                self._fleet.grow()
            await waiting
        try:
            return await self._run_admitted(spec, make_host)
        finally:
            self._admission.leave(mutation, flow)

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
            self._metrics.replayed.inc()
        return self._counted(spec, await self._run_quarantined(spec, make_host))

    def _counted(self, spec: CallSpec, outcome: Outcome) -> Outcome:
        error = outcome.error
        result = "ok" if error is None else "system" if error.system else "error"
        self._count_run(spec.kind, result)
        self._metrics.cpu.inc(outcome.cpu_seconds)
        return outcome

    def _count_run(self, kind: str, result: str) -> None:
        counter = self._run_counters.get((kind, result))
        if counter is None:
            counter = self._metrics.runs(kind, result)
            self._run_counters[kind, result] = counter
        counter.inc()

    def _limit_hit(self, limit: str) -> None:
        self._metrics.limits(limit).inc()

    async def _run_quarantined(self, spec: CallSpec, make_host: Callable[[], CallHost]) -> Outcome:
        crashes = 0
        for _ in range(MAX_QUARANTINE_TRIES):
            if crashes >= MAX_QUARANTINES:
                break
            await self._quarantine.acquire()
            try:
                slot = self._isolated
                if slot is None or slot.child not in self._fleet:
                    try:
                        slot = await self._fleet.quarantine()
                    except ServerFault:
                        self._log.failure("a child for a suspect did not start")
                        continue
                self._isolated = None
                ended: Outcome | Lost | None = None
                try:
                    ended = await self._try(slot, spec, make_host)
                finally:
                    # A child that gave an answer is good enough for the next suspect; starting one takes much longer than most runs.
                    if isinstance(ended, Outcome) and self._quarantine.waiting and slot.child in self._fleet:
                        self._isolated = slot
                    else:
                        slot.child.close()
            finally:
                self._release_quarantine()
            if isinstance(ended, Outcome):
                return ended
            if self._stopping:
                raise Overloaded("BackendIsNotRunning", STOPPING_TEXT)
            crashes += ended.suspect
            if ended.out_of_memory:
                self._limit_hit("memory")
                return system_failure(MEMORY_TEXT)
            self._metrics.replayed.inc()
        return system_failure(ServerFault.MESSAGE)

    def _release_quarantine(self) -> None:
        self._quarantine.release()
        if not self._quarantine.locked and self._isolated is not None:
            # Who waited for it has gone.
            self._isolated.child.close()
            self._isolated = None

    async def _try(self, slot: Slot, spec: CallSpec, make_host: Callable[[], CallHost]) -> Outcome | Lost:
        # The load is counted from here on: sending modules may wait, and others choose a child meanwhile.
        slot.roots += 1
        slot.unheard += 1
        call: Call | None = None
        try:
            if not has_modules(slot, spec.closure):
                await self._trees.ensure_modules(slot, spec)
            if slot.child not in self._fleet:
                return Lost(False, False)
            call = self._trees.begin(slot, spec, make_host(), None)
            try:
                return await call.done
            except CancelledError:
                self._trees.cancel(call)
                raise
        finally:
            slot.roots -= 1
            if call is None or not call.heard:
                slot.unheard -= 1
            self._fleet.call_ended(slot)

    # -- for the fleet ---------------------------------------------------------------------------------------------------

    def _frame_received(self, slot: Slot, frame: Frame) -> None:
        slot.spoke = True
        call = slot.calls.get(frame.call)
        if call is None:
            # Of a call that has been cancelled or ended by a limit: the child will learn of it.
            return
        if not call.heard:
            call.heard = True
            if call.parent is None:
                slot.unheard -= 1
                self._admission.admit()
        try:
            self._trees.receive(call, frame)
        except (ValueError, KeyError, TypeError, AttributeError, FrameError):
            self._log.failure("runner {pid} broke the protocol", pid=slot.child.pid)
            self.kill_innocent(slot, "protocol")

    def _child_lost(self, slot: Slot, exit: ProcessExit) -> None:
        roots = _roots(slot)
        condemned, outcome = slot.condemned if slot.condemned is not None else (None, None)
        announced = slot.calls.get(exit.announced.call)
        announced_root = announced.root if announced is not None else None
        # All of them before any is tried again: see the rule of CallHost.lost.
        for root in roots:
            root.host.lost()
        for root in roots:
            if not root.alive:
                continue
            alone = slot.target is SlotState.QUARANTINE
            if root is condemned:
                assert outcome is not None
                self._trees.end(root, abandon=True)
                root.done.callback(outcome)
                continue
            if root.action:
                guilty = root is announced_root or len(roots) == 1
                text = self._options.memory_text if exit.out_of_memory and guilty else ServerFault.MESSAGE
                lost: Outcome | Lost = system_failure(text, root.streamed)
            elif slot.kill_reason is not None and not alone:
                lost = Lost(False, False)
            else:
                suspect = announced_root is None or root is announced_root
                # No function can send a signal: who is alone and is ended by one, or stopped, has met somebody else's.
                signalled = slot.kill_reason == "stopped" or (exit.signal == signal.SIGKILL and exit.reason is None)
                lost = Lost((suspect or alone) and not (alone and signalled), exit.out_of_memory)
            self._trees.end(root, abandon=True)
            root.done.callback(lost)
        slot.calls.clear()

    def _ready_changed(self) -> None:
        ready = self._fleet.ready_count
        self._admission.set_slots(ready * self._options.calls_per_child, ready * self._options.parked_per_child)

    def _start_failed(self, error: Exception) -> None:
        self._admission.fail_waiting(error)

    # -- for the watchdog ------------------------------------------------------------------------------------------------

    def watched_slots(self) -> Iterable[Slot]:
        """See :class:`Watched`."""
        return self._fleet.slots

    def condemn(self, slot: Slot, root: Call, text: str, limit: str) -> None:
        """See :class:`Watched`."""
        self._limit_hit(limit)
        slot.condemned = (root, system_failure(text, root.streamed))
        slot.kill_reason = "timeout"
        slot.child.kill(f"a call ran too long: {root.spec.module}:{root.spec.export}")

    def kill_innocent(self, slot: Slot, reason: str) -> None:
        """See :class:`Watched`."""
        if slot.kill_reason is None:
            slot.kill_reason = reason
            slot.child.kill(reason)

    def end_root(self, root: Call, text: str, limit: str) -> None:
        """See :class:`Watched`."""
        self._limit_hit(limit)
        self._trees.end_root(root, system_failure(text, root.streamed))

    def memory_measured(self, slot: Slot) -> None:
        """See :class:`Watched`."""
        if slot.resident > self._options.resident_bytes and slot.state is SlotState.READY:
            self._log.info("runner {pid} uses {resident} bytes: replaced", pid=slot.child.pid, resident=slot.resident)
            self._limit_hit("resident")
            self._fleet.drain(slot)

    def ticked(self) -> None:
        """See :class:`Watched`."""
        self._admission.expire()
        self._fleet.close_idle()
        slots = self._fleet.slots
        self._metrics.running.set(self._admission.running)
        self._metrics.waiting.set(self._admission.waiting)
        self._metrics.parked.set(self._admission.parked)
        self._metrics.resident.set(sum(slot.resident for slot in slots))
        self._metrics.unsent.set(sum(slot.child.unsent_bytes for slot in slots))


def _roots(slot: Slot) -> list[Call]:
    return [call for call in slot.calls.values() if call.parent is None]
