"""How many of the mutations that are going to wait in one lane are begun at all.

A mutation that waits in a lane has a JavaScript context, which takes memory, and time of every garbage collection. A few that are ready keep a
lane busy; what comes after them waits here, before it is begun, and costs nothing. Which lane a mutation will want is guessed
from the documents that its arguments name: a wrong guess delays it a little and harms nobody.

Nobody can wait for ever: who waits here holds nothing yet, and whoever was let in leaves when its commit is pending, which is when it
leaves its lanes, or when its mutation ends, however it ends.
Measured (benchmark c, 50 clients, Zipf 1.5, two cores): CPU per transfer falls by a fifth.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Gauge
from twisted.internet.defer import Deferred

from convex_backend.database.lanes import Lanes
from convex_backend.database.reads import Point

#: Mutations of one hot key that are begun at once: its lane's owner, and enough that are ready when it leaves.
BEGUN_PER_KEY = 4


class _Door:
    """The mutations of one hot key: how many are begun, and those that wait, first come, first served."""

    __slots__ = ("begun", "waiting")

    def __init__(self) -> None:
        self.begun = 0
        self.waiting: deque[Deferred[None]] = deque()


class StartGate:
    """Counts begun mutations by the hot key that they are expected to want."""

    def __init__(self, lanes: Lanes, registry: CollectorRegistry, begun_per_key: int = BEGUN_PER_KEY) -> None:
        self._lanes = lanes
        self._limit = begun_per_key
        self._doors: dict[Point, _Door] = {}
        waiting = Gauge(
            "convex_database_lane_not_begun", "Mutations that wait to be begun, by a hot key.", registry=registry
        )
        waiting.set_function(lambda: sum(len(door.waiting) for door in self._doors.values()))

    async def enter(self, expected: Iterable[Point]) -> Point | None:
        """Wait until one more mutation that is expected to read *expected* may begin.

        :returns: what to give to :meth:`leave` when it has ended; ``None`` when nothing that it reads is hot.
        Cancelling leaves the queue.
        """
        hot = [point for point in expected if self._lanes.is_hot_point(*point)]
        if not hot:
            return None
        # Of several the most wanted one, whose lane is the longest wait.
        key = max(hot, key=self._wanted)
        door = self._doors.get(key)
        if door is None:
            door = self._doors[key] = _Door()
        if door.begun < self._limit:
            door.begun += 1
            return key
        turn: Deferred[None] = Deferred(lambda _: door.waiting.remove(turn))
        door.waiting.append(turn)
        await turn
        return key

    def _wanted(self, point: Point) -> int:
        door = self._doors.get(point)
        return 0 if door is None else door.begun + len(door.waiting)

    def leave(self, key: Point | None) -> None:
        """The mutation's commit is pending, or it has ended: the next one of its key may begin."""
        if key is None:
            return
        door = self._doors[key]
        if door.waiting:
            # The place passes on.
            door.waiting.popleft().callback(None)
            return
        door.begun -= 1
        if not door.begun:
            del self._doors[key]
