"""Many mixed calls with failures, timeouts and kills over a :class:`tests.functions.live_world.LiveWorld`, and what memory does meanwhile."""

from __future__ import annotations

import gc
import os
import random
import signal
from collections import Counter

import attrs
import psutil
from twisted.internet.defer import Deferred, gatherResults

from convex_backend.errors import ServerFault
from convex_backend.functions.limits import USER_TIMEOUT_TEXT
from tests.functions.live_world import LiveWorld

IN_FLIGHT = 32
COUNTERS = 40
MIX = {"read": 50, "readInside": 8, "bump": 30, "fail": 9, "act": 3}
CALLS_PER_SPIN = 12_500
CALLS_PER_KILL = 8_000


@attrs.frozen
class Sample:
    """Memory at some point.

    :param calls: that have ended so far.
    :param python: resident megabytes of this process.
    :param children: resident megabytes of each child, largest first.
    """

    calls: int
    python: float
    children: tuple[float, ...]


def resident(pid: int) -> float:
    """Resident megabytes of a process, 0 for one that is gone."""
    try:
        size: int = psutil.Process(pid).memory_info().rss
    except psutil.NoSuchProcess:
        return 0.0
    return size / 1e6


def slope(points: list[tuple[float, float]]) -> float:
    """Least squares slope of ``(x, y)``."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


class Soak:
    """One run.

    :param calls: how many in all; *samples* of memory are taken on the way.
    :ivar done: calls that ended, by what they were.
    """

    def __init__(self, world: LiveWorld, calls: int, samples: int, seed: int = 5) -> None:
        self.world = world
        self.calls = calls
        self.every = max(1, calls // samples)
        self.dice = random.Random(seed)
        self.started = 0
        self.ended = 0
        self.bumps = 0
        self.done: Counter[str] = Counter()
        self.samples: list[Sample] = []
        self.counters: list[str] = []

    async def run(self) -> None:
        """Make all calls. :raises AssertionError: one did not end as it must, or an increment was lost or doubled."""
        for _ in range(COUNTERS):
            made = await self.world.mutation("addCounter")
            assert made.value is not None
            self.counters.append(made.value.decode().strip('"'))
        await gatherResults([Deferred.fromCoroutine(self._caller()) for _ in range(IN_FLIGHT)], consumeErrors=True)
        outcome = await self.world.query("counters")
        assert outcome.value is not None
        import orjson

        assert sum(orjson.loads(outcome.value)) == self.bumps
        self._sample()

    def stop(self) -> None:
        """Make no more calls."""
        self.calls = 0

    async def _caller(self) -> None:
        names, weights = list(MIX), list(MIX.values())
        while self.started < self.calls:
            self.started += 1
            number = self.started
            if number % CALLS_PER_KILL == 0:
                os.kill(self.dice.choice(self.world.living()), self.dice.choice([signal.SIGKILL, signal.SIGSTOP]))
                self.done["signals"] += 1
            name = "spin" if number % CALLS_PER_SPIN == 0 else self.dice.choices(names, weights)[0]
            await self._call(name, number)
            self.done[name] += 1
            self.ended += 1
            if self.ended % self.every == 0:
                self._sample()

    async def _call(self, name: str, number: int) -> None:
        world, counter = self.world, self.dice.choice(self.counters)
        if name in ("read", "readInside"):
            outcome = await world.query(name, counter=counter)
            assert outcome.error is None, (name, outcome.error)
        elif name == "spin":
            outcome = await world.query("spin", counter=counter)
            assert outcome.error is not None
            assert outcome.error.message == USER_TIMEOUT_TEXT, outcome.error
        elif name == "bump":
            result = await world.mutation("bump", counter=counter)
            assert result.error is None, result.error
            self.bumps += 1
        elif name == "fail":
            result = await world.mutation("fail", key=number)
            assert result.error is not None
            assert result.error.message.startswith("Uncaught ConvexError"), result.error
        else:
            result = await world.action(counter=counter, keys=[])
            if result.error is not None:
                assert result.error.message == ServerFault.MESSAGE, result.error
                self.done["actions lost"] += 1

    def _sample(self) -> None:
        gc.collect()
        children = sorted((resident(pid) for pid in self.world.living()), reverse=True)
        self.samples.append(Sample(self.ended, resident(os.getpid()), tuple(children)))

    def slopes(self) -> tuple[float, float]:
        """Growth over the second half, in megabytes per 10,000 calls: of this process, and of the largest child."""
        half = self.samples[len(self.samples) // 2 :]
        python = slope([(sample.calls / 10_000, sample.python) for sample in half])
        child = slope([(sample.calls / 10_000, max(sample.children)) for sample in half])
        return python, child
