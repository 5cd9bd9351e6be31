"""Children are killed, stopped and made to spin at random under load (F7): nobody else notices, and nothing is applied twice."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from convex_backend.errors import ServerFault
from convex_backend.functions.limits import USER_TIMEOUT_TEXT
from tests.functions.live_world import LiveWorld, live_world
from tests.functions.test_real_child import DIST

pytestmark = pytest.mark.skipif(not (DIST / "main.mjs").exists(), reason="the runner is not built: node build.mjs")

COUNTERS = 6


class Chaos:
    """The callers, the disturbers, and what is known of each key.

    :ivar sure: keys that must have been applied once.
    :ivar never: keys that must not have been applied.
    :ivar maybe: keys of actions that failed, applied once or not at all.
    """

    def __init__(self, world: LiveWorld, counters: list[str], seconds: float, seed: int) -> None:
        from twisted.internet import reactor

        self.reactor = reactor
        self.world = world
        self.counters = counters
        self.dice = random.Random(seed)
        self.end = reactor.seconds() + seconds
        self.keys = 0
        self.sure: list[int] = []
        self.never: list[int] = []
        self.maybe: list[int] = []
        self.done: Counter[str] = Counter()

    @property
    def over(self) -> bool:
        return self.reactor.seconds() >= self.end

    def pause(self, seconds: float) -> Deferred[None]:
        return deferLater(self.reactor, seconds, lambda: None)

    def key(self) -> int:
        self.keys += 1
        return self.keys

    def counter(self) -> str:
        # The first is drawn most: a hot key with a lane.
        return self.counters[min(self.dice.randrange(COUNTERS), self.dice.randrange(COUNTERS))]

    async def reader(self) -> None:
        """An innocent caller of queries: each must succeed."""
        while not self.over:
            name = self.dice.choice(["read", "readInside"])
            outcome = await self.world.query(name, counter=self.counter())
            assert outcome.error is None, (name, outcome.error)
            self.done[name] += 1
            await self.pause(self.dice.random() * 0.05)

    async def writer(self) -> None:
        """An innocent caller of mutations: each must succeed, and be applied once."""
        while not self.over:
            name, key = self.dice.choice(["count", "countInside"]), self.key()
            result = await self.world.mutation(name, counter=self.counter(), key=key)
            assert result.error is None, (name, result.error)
            assert result.value is not None
            assert float(result.value) == key
            self.sure.append(key)
            self.done[name] += 1
            await self.pause(self.dice.random() * 0.05)

    async def actor(self) -> None:
        """A caller of actions: one that loses its child fails with the text, and is not run again."""
        while not self.over:
            keys = [self.key() for _ in range(3)]
            result = await self.world.action(counter=self.counter(), keys=keys)
            if result.error is None:
                self.sure += keys
                self.done["act"] += 1
            else:
                assert result.error.message == ServerFault.MESSAGE, result.error
                self.maybe += keys
                self.done["act lost"] += 1

    async def failer(self) -> None:
        """A caller of a mutation that throws: it gets its own error, and nothing is applied."""
        while not self.over:
            key = self.key()
            result = await self.world.mutation("fail", key=key)
            assert result.error is not None
            assert result.error.message.startswith("Uncaught ConvexError"), result.error
            assert [line.messages for line in result.log_lines] == [("'about to fail'", str(key))]
            self.never.append(key)
            self.done["fail"] += 1
            await self.pause(self.dice.random() * 0.2)

    async def spinner(self) -> None:
        """A guilty caller: it gets the time limit's text, or that of a lost server if something else ended its child twice."""
        while not self.over:
            if self.dice.random() < 0.5:
                error = (await self.world.query("spin", counter=self.counter())).error
            else:
                key = self.key()
                error = (await self.world.mutation("writeAndSpin", key=key)).error
                self.never.append(key)
            assert error is not None
            assert error.message in {USER_TIMEOUT_TEXT, ServerFault.MESSAGE}
            self.done["spin"] += 1
            await self.pause(1.0 + self.dice.random())

    async def killer(self) -> None:
        """Signals to children that serve, those that just start included."""
        while not self.over:
            await self.pause(0.5 + self.dice.random())
            living = self.world.living()
            if living:
                number = self.dice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP, signal.SIGABRT])
                os.kill(self.dice.choice(living), number)
                self.done[number.name] += 1

    async def run(self) -> None:
        """Everybody at once until the time is over; then what is in the database is compared with what was answered."""
        work = [
            *(self.reader() for _ in range(8)),
            *(self.writer() for _ in range(8)),
            *(self.actor() for _ in range(2)),
            self.failer(),
            self.spinner(),
            self.killer(),
        ]
        await gatherResults([Deferred.fromCoroutine(one) for one in work], consumeErrors=True)
        marks = Counter(int(key) for key in await self.rows("marks"))
        assert [key for key, times in marks.items() if times > 1] == []
        assert [key for key in self.sure if key not in marks] == []
        assert [key for key in self.never if key in marks] == []
        assert set(marks) <= {*self.sure, *self.maybe}
        assert sum(await self.rows("counters")) == len(marks)
        assert not self.world.database.committer.lanes._owned

    async def rows(self, name: str) -> list[float]:
        """What a query says when all is quiet."""
        import orjson

        outcome = await self.world.query(name)
        assert outcome.value is not None, outcome.error
        rows: list[float] = orjson.loads(outcome.value)
        return rows


async def chaos(folder: Path, seconds: float, seed: int) -> Chaos:
    """Run for *seconds*."""
    from twisted.internet import reactor

    async with live_world(folder, reactor) as world:
        counters = []
        for _ in range(COUNTERS):
            made = await world.mutation("addCounter")
            assert made.value is not None
            counters.append(made.value.decode().strip('"'))
        one = Chaos(world, counters, seconds, seed)
        await one.run()
        for name in ("running", "parked", "waiting"):
            world.isolates.ticked()
            assert world.figure(f"convex_functions_{name}", pool="isolate") == 0, name
        print(dict(one.done), "replayed", world.figure("convex_functions_replayed_total", pool="isolate"))
        return one


@pytest_twisted.ensureDeferred
async def test_innocent_calls_succeed(tmp_path: Path) -> None:
    """A few seconds of it: every innocent query and mutation succeeds, each mutation once."""
    one = await chaos(tmp_path, 5.0, seed=11)
    assert sum(one.done[name] for name in ("SIGKILL", "SIGSTOP", "SIGABRT")) >= 2
    assert one.done["count"] + one.done["countInside"] > 20


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest_twisted.ensureDeferred
async def test_innocent_calls_succeed_for_long(tmp_path: Path, seed: int) -> None:
    """The same for more than a minute."""
    one = await chaos(tmp_path, 65.0, seed)
    assert one.done["SIGSTOP"] > 3
    assert one.done["spin"] >= 2
    assert one.done["act lost"] > 0
