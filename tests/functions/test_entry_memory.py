"""The watchdog's look at memory while one entry into JavaScript goes on (``docs/runtime.md``, Memory)."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from twisted.internet.task import Clock

from convex_backend.functions.calls import Call, Slot, SlotState
from convex_backend.functions.limits import MEMORY_TEXT
from convex_backend.functions.runner_process import Announcement
from convex_backend.functions.watchdog import MAX_ENTRY_RESIDENT_BYTES, TICK_SECONDS, Watchdog
from tests.functions.fakes import FakeChild, FakeHost, spec

MIB = 1024 * 1024


class Pool:
    """One child with one call, and what the watchdog did."""

    def __init__(self, kind: str = "query") -> None:
        self.child = FakeChild()
        self.slot = Slot(self.child, SlotState.READY, SlotState.READY)
        self.call = Call(7, spec(kind, timeout=600), FakeHost(), self.slot, None, 0.0)
        self.slot.calls[7] = self.call
        self.condemned: list[tuple[Call, str, str]] = []
        self.clock = Clock()
        self.watchdog = Watchdog(self.clock, self)

    def watched_slots(self) -> Iterable[Slot]:
        return [self.slot]

    def condemn(self, slot: Slot, root: Call, text: str, limit: str) -> None:
        self.condemned.append((root, text, limit))
        slot.kill_reason = limit

    def kill_innocent(self, slot: Slot, reason: str) -> None:
        raise AssertionError(reason)

    def end_root(self, root: Call, text: str, limit: str) -> None:
        raise AssertionError(text)

    def memory_measured(self, slot: Slot) -> None:
        pass

    def ticked(self) -> None:
        pass

    def tick(self, entry: int, resident: int) -> None:
        """One look, at a child that is in its *entry*-th entry and holds *resident* bytes."""
        self.child.now = Announcement(7, entry, 0)
        self.child.rss = resident
        self.clock.advance(TICK_SECONDS)
        self.watchdog.tick()


@pytest.mark.parametrize("kind", ["query", "action"])
def test_growth_within_one_entry_ends_the_call(kind: str) -> None:
    """More than three times the limit in one entry: the memory text, for actions too."""
    pool = Pool(kind)
    pool.tick(1, 100 * MIB)
    pool.tick(1, 100 * MIB)
    pool.tick(1, 100 * MIB + MAX_ENTRY_RESIDENT_BYTES)
    assert pool.condemned == []
    pool.tick(1, 101 * MIB + MAX_ENTRY_RESIDENT_BYTES)
    assert pool.condemned == [(pool.call, MEMORY_TEXT, "memory")]


def test_growth_over_many_entries_is_not_one_entrys() -> None:
    """Each entry is measured from its own beginning; the child itself counts what calls keep between entries."""
    pool = Pool()
    for entry in range(1, 9):
        pool.tick(entry, 100 * MIB * entry)
        pool.tick(entry, 100 * MIB * entry + 50 * MIB)
    assert pool.condemned == []


def test_without_figures_nothing_ends() -> None:
    """Where the system does not tell a process's memory, V8's own limit is left."""
    pool = Pool()
    pool.child.resident_bytes = lambda: None  # type: ignore[method-assign]
    for _ in range(5):
        pool.tick(1, 0)
    assert pool.condemned == []
