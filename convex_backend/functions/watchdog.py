"""Looks at the children from outside, ten times a second (F7).

Enter untimed, watch from outside: the child announces each entry into JavaScript in its announce file; an entry that burns more CPU time than the
limit is a loop that will not end, and SIGKILL is the only way out of it. The child itself checks the time of entries that do end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from convex_backend.functions.calls import Call, Slot, SlotState
from convex_backend.functions.limits import (
    MEMORY_MEGABYTES,
    MEMORY_TEXT,
    SYSCALL_SECONDS,
    SYSCALL_TIMEOUT_TEXT,
    USER_SECONDS,
    USER_TIMEOUT_TEXT,
    action_timeout_text,
)

TICK_SECONDS = 0.1
STOPPED_SECONDS = 2.0
"""A child that a signal has stopped for so long is dead to us."""
BLOCKED_SECONDS = 0.5
"""A child for Node actions whose event loop has not gone round for so long takes no new calls if others can."""
SILENT_SECONDS = 30.0
"""A child that runs nothing, waits for nothing and says nothing while it has calls is dead to us."""
WALL_FACTOR = 4.0
"""Where CPU time cannot be read: wall time counts as CPU time divided by this."""
MAX_ENTRY_SECONDS = 30.0
"""Wall limit of one entry of a query or mutation, whatever its CPU time."""
RESIDENT_EVERY_TICKS = 10
MAX_ENTRY_RESIDENT_BYTES = 3 * MEMORY_MEGABYTES * 1024 * 1024
"""By how much one entry may make its child grow: heap and buffers, and as much again of garbage. The child itself counts entries that end."""


class Watched(Protocol):
    """The pool, as the watchdog acts on it."""

    def watched_slots(self) -> Iterable[Slot]:
        """The children to look at."""

    def condemn(self, slot: Slot, root: Call, text: str, limit: str) -> None:
        """Kill the child; *root* met *limit* (a metric label) and ends with the system error *text*, its other calls are tried again."""

    def kill_innocent(self, slot: Slot, reason: str) -> None:
        """Kill the child through no fault of its calls."""

    def end_root(self, root: Call, text: str, limit: str) -> None:
        """*root* met *limit*: end it with the system error *text*; the child lives on."""

    def memory_measured(self, slot: Slot) -> None:
        """``slot.resident`` is new."""

    def ticked(self) -> None:
        """One tick has passed."""


class Watchdog:
    """The loop and its rules. :meth:`tick` may be called by hand in tests."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, pool: Watched) -> None:
        self._clock = clock
        self._pool = pool
        self._count = 0
        self._loop = LoopingCall(self._guarded_tick)
        self._loop.clock = clock

    def start(self) -> None:
        """Start to look."""
        self._loop.start(TICK_SECONDS, now=False).addErrback(self._failed)

    def stop(self) -> None:
        """Stop to look."""
        if self._loop.running:
            self._loop.stop()

    def _failed(self, failure: Failure) -> None:
        self._log.failure("the watchdog stopped", failure=failure)

    def _guarded_tick(self) -> None:
        try:
            self.tick()
        except Exception:  # noqa: BLE001 - one bad look must not end the watch
            self._log.failure("a look at the runners failed")

    def tick(self) -> None:
        """Look at every child once."""
        now = self._clock.seconds()
        self._count += 1
        measure = self._count % RESIDENT_EVERY_TICKS == 0
        for slot in list(self._pool.watched_slots()):
            if measure:
                slot.resident = slot.child.resident_bytes() or 0
                self._pool.memory_measured(slot)
            if slot.calls and slot.kill_reason is None:
                self._look(slot, now)
            else:
                slot.entry = None
                slot.stalled = False
                slot.beat = -1
                slot.stopped_since = slot.quiet_since = None
        self._pool.ticked()

    def _look(self, slot: Slot, now: float) -> None:
        usage = slot.child.usage()
        if usage is not None and usage.stopped:
            if slot.stopped_since is None:
                slot.stopped_since = now
            slot.stalled = True
            if now - slot.stopped_since >= STOPPED_SECONDS:
                self._pool.kill_innocent(slot, "stopped")
            return
        slot.stopped_since = None
        announced = slot.child.announced()
        call = slot.calls.get(announced.call)
        if call is None:
            slot.entry = None
            slot.stalled = self._is_blocked(slot, announced.entry, now)
            self._check_silence(slot, now)
        else:
            slot.quiet_since = None
            cpu = usage.cpu_seconds if usage is not None else None
            if self._entry_overran(slot, call, (announced.call, announced.entry), cpu, now):
                return
        for root in [call for call in slot.calls.values() if call.parent is None]:
            self._check_root(root, now)

    @staticmethod
    def _is_blocked(slot: Slot, beat: int, now: float) -> bool:
        """Whether some Node action does not give up control: nobody knows which, so new calls go elsewhere until it does."""
        if beat != slot.beat or not any(call.spec.package for call in slot.calls.values()):
            slot.beat, slot.beat_since = beat, now
        return now - slot.beat_since > BLOCKED_SECONDS

    def _entry_overran(self, slot: Slot, call: Call, entry: tuple[int, int], cpu: float | None, now: float) -> bool:
        if slot.entry != entry:
            slot.entry = entry
            slot.entry_since = now
            slot.entry_cpu = cpu
            slot.entry_resident = slot.child.resident_bytes()
            slot.stalled = False
            return False
        slot.stalled = True
        if self._entry_ran_out_of_memory(slot):
            self._pool.condemn(slot, call.root, MEMORY_TEXT, "memory")
            return True
        wall = now - slot.entry_since
        burned = cpu - slot.entry_cpu if cpu is not None and slot.entry_cpu is not None else wall / WALL_FACTOR
        root = call.root
        if root.action:
            if wall > root.spec.timeout_seconds:
                self._pool.condemn(slot, root, action_timeout_text(root.spec), "action_time")
                return True
            return False
        if burned > USER_SECONDS or wall > MAX_ENTRY_SECONDS:
            self._pool.condemn(slot, root, USER_TIMEOUT_TEXT, "user_time")
            return True
        return False

    @staticmethod
    def _entry_ran_out_of_memory(slot: Slot) -> bool:
        """Counts from when the entry was first seen: what the child took before may be other calls'."""
        resident = slot.child.resident_bytes()
        if resident is None or slot.entry_resident is None:
            return False
        return resident - slot.entry_resident > MAX_ENTRY_RESIDENT_BYTES

    def _check_silence(self, slot: Slot, now: float) -> None:
        waits = any(call.serving or call.action for call in slot.calls.values())
        if slot.spoke or waits or slot.quiet_since is None or slot.state is SlotState.STARTING:
            slot.quiet_since = now
            slot.spoke = False
        elif now - slot.quiet_since >= SILENT_SECONDS:
            self._pool.kill_innocent(slot, "silent")

    def _check_root(self, root: Call, now: float) -> None:
        if root.action:
            if now - root.started > root.spec.timeout_seconds:
                self._pool.end_root(root, action_timeout_text(root.spec), "action_time")
            return
        seconds = root.syscall_seconds
        if root.syscall_since is not None:
            seconds += now - root.syscall_since
        if seconds > SYSCALL_SECONDS:
            self._pool.end_root(root, SYSCALL_TIMEOUT_TEXT, "system_time")
