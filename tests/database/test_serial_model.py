"""The commit pipeline as a whole against a serial model: concurrent mutations in any interleaving equal some serial order."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from convex_backend.database.committer import CommitRequest, DocumentChange
from convex_backend.database.lanes import claim
from convex_backend.database.reads import ReadSet
from convex_backend.database.snapshot import Snapshot
from convex_backend.errors import OccConflict, Rerun, StorageFailed
from tests.database.commit_support import Outcome, Stack, doc_id

TABLET, INDEX = 1, 10
DOCUMENTS = 5
Step = tuple[str, int, int]
State = dict[int, tuple[int, int]]
"""number -> (group, value)"""


def key_of(group: int, number: int) -> bytes:
    return bytes([group]) + doc_id(number)


def run_serially(program: list[Step], state: State) -> list[object]:
    """The program's reads, one after the other; *state* is changed."""
    seen: list[object] = []
    for op, number, group in program:
        if op == "get":
            seen.append(state.get(number))
        elif op == "scan":
            rows = sorted((g, n, v) for n, (g, v) in state.items() if g >= group)
            seen.append(rows[: number + 1])
        elif op == "add":
            old = state.get(number)
            seen.append(old)
            state[number] = (group, _next_value(seen))
        elif op == "delete":
            seen.append(state.pop(number, None))
    return seen


def _next_value(seen: list[object]) -> int:
    """A value that depends on everything read so far, so that a wrong read shows in the final state."""
    return hash(repr(seen)) % 1_000_003


class Mutation:
    """One mutation with its re-runs, as ``run_mutation`` does it: lanes at reads, own writes visible, re-run on ``Rerun`` and conflict."""

    def __init__(self, world: World, name: int, program: list[Step]) -> None:
        self.world = world
        self.name = name
        self.program = program
        self.runs = 0
        self.ts = 0
        self.read_only = False
        self.seen: list[object] = []
        self.outcome = Outcome(self._main())

    async def _main(self) -> None:
        ticket = self.world.stack.committer.lanes.ticket()
        self.ticket = ticket
        try:
            while True:
                self.runs += 1
                try:
                    await self._run()
                except (OccConflict, Rerun):
                    ticket.keep_for_rerun()
                else:
                    return
        finally:
            ticket.release_all()

    async def _run(self) -> None:
        committer = self.world.stack.committer
        await self.world.turn()
        self.snapshot: Snapshot = committer.snapshots.open(committer.pending_ts)
        # Every third one has told its snapshot's timestamp, so that it must not move.
        self.fixed_ts: int | None = self.snapshot.ts if self.name % 3 == 2 else None
        self.reads = ReadSet()
        self.writes: dict[int, tuple[int, int] | None] = {}
        self.bases: dict[int, tuple[int, bytes] | None] = {}
        seen: list[object] = []
        try:
            for op, number, group in self.program:
                if op == "scan":
                    seen.append(await self._scan(group, number + 1))
                else:
                    old = await self._get(number)
                    seen.append(old)
                    if op == "add":
                        self.writes[number] = (group, _next_value(seen))
                    elif op == "delete" and old is not None:
                        self.writes[number] = None
                await self.world.turn()
            changes = tuple(self._change(number) for number in self.writes)
            changes = tuple(c for c in changes if c.old_json is not None or c.new_json is not None)
            self.read_only = not changes
            assert self.fixed_ts in (None, self.snapshot.ts)
            request = CommitRequest(self.snapshot.ts, self.reads, changes, lane=self.ticket, writer=f"m:{self.name}")
            self.ts = await committer.commit(request)
            self.seen = seen
        finally:
            self.snapshot.close()

    async def _get(self, number: int) -> tuple[int, int] | None:
        lanes = self.world.stack.committer.lanes
        point = (-TABLET, doc_id(number))
        if lanes.is_hot_point(*point):
            await claim(self.ticket, self, self.world.stack.committer, [point])
        self.reads.add_point(*point)
        if number in self.writes:
            return self.writes[number]
        row = self.snapshot.get_now(TABLET, doc_id(number))
        self.bases[number] = (row.ts, row.json) if row else None
        return _decode(row.json) if row else None

    async def _scan(self, group: int, limit: int) -> list[tuple[int, int, int]]:
        lanes = self.world.stack.committer.lanes
        lower = bytes([group])
        if lanes.is_hot_interval(INDEX, lower, None):
            await claim(self.ticket, self, self.world.stack.committer, [(INDEX, lower, None)])
        rows = self.snapshot.scan_now(INDEX, TABLET, lower, None, False, limit + len(self.writes))
        found = {int.from_bytes(row.id, "big"): _decode(row.json) for row in rows}
        merged = {n: value for n, value in found.items() if n not in self.writes}
        merged.update({n: value for n, value in self.writes.items() if value is not None and value[0] >= group})
        result = sorted((g, n, v) for n, (g, v) in merged.items())[:limit]
        upper = key_of(result[-1][0], result[-1][1]) + b"\x00" if len(result) == limit else None
        self.reads.add_interval(INDEX, lower, upper)
        return result

    def _change(self, number: int) -> DocumentChange:
        new, base = self.writes[number], self.bases[number]
        old_key = key_of(_decode(base[1])[0], number) if base else None
        return DocumentChange(
            TABLET,
            doc_id(number),
            base[0] if base else None,
            base[1] if base else None,
            b"%d,%d" % new if new else None,
            ((INDEX, old_key, key_of(new[0], number) if new else None),),
        )


def _decode(json: bytes) -> tuple[int, int]:
    group, value = json.split(b",")
    return int(group), int(value)


class World:
    """A scheduler that decides at random who takes the next step: a mutation, or the disk."""

    def __init__(self, seed: int, programs: list[list[Step]], failures: bool) -> None:
        self.random = Random(seed)
        self.stack = Stack(hold=True, ahead=self.random)
        self.failures = failures
        self.ready: list[Deferred[None]] = []
        self.mutations = [Mutation(self, name, program) for name, program in enumerate(programs)]

    def turn(self) -> Deferred[None]:
        """Wait until the scheduler picks this mutation."""
        deferred: Deferred[None] = Deferred()
        self.ready.append(deferred)
        return deferred

    def run(self) -> None:
        """Until every mutation has ended. Fails if nobody can go on."""
        for _ in range(20_000):
            moves: list[Callable[[], None]] = [self._step] * len(self.ready)
            if self.stack.held:
                moves.append(self._disk)
            if not moves:
                break
            self.random.choice(moves)()
        stuck = [mutation.name for mutation in self.mutations if not mutation.outcome.done]
        assert not stuck, f"mutations {stuck} never ended"

    def _step(self) -> None:
        self.ready.pop(self.random.randrange(len(self.ready))).callback(None)

    def _disk(self) -> None:
        if self.failures and self.random.random() < 0.2:
            self.stack.fail_write()
        else:
            self.stack.finish_write()

    def check(self) -> None:
        """Replay what was acknowledged in timestamp order: every read and the final state are equal."""
        state: State = {}
        acknowledged = [m for m in self.mutations if m.outcome.error is None]
        for mutation in self.mutations:
            if mutation.outcome.error is not None:
                assert self.failures and isinstance(mutation.outcome.error, StorageFailed), mutation.outcome.error
        for mutation in sorted(acknowledged, key=lambda m: (m.ts, m.read_only)):
            assert run_serially(mutation.program, state) == mutation.seen, mutation.name
        snapshot = self.stack.committer.snapshots.open(self.stack.committer.durable_ts)
        rows = snapshot.scan_now(-TABLET, TABLET, b"", None, False, 100)
        assert {int.from_bytes(row.id, "big"): _decode(row.json) for row in rows} == state


steps = st.tuples(
    st.sampled_from(["get", "scan", "add", "add", "delete"]), st.integers(0, DOCUMENTS - 1), st.integers(0, 2)
)
programs = st.lists(st.lists(steps, min_size=1, max_size=5), min_size=2, max_size=7)


@settings(max_examples=150, deadline=None)
@given(programs, st.integers(0, 2**32))
def test_concurrent_mutations_are_serialisable(mutations, seed) -> None:
    """Every mutation ends, and what they read and wrote equals running them one by one in timestamp order."""
    world = World(seed, mutations, failures=False)
    world.run()
    world.check()


@settings(max_examples=80, deadline=None)
@given(programs, st.integers(0, 2**32))
def test_with_failing_groups(mutations, seed) -> None:
    """The same when groups fail: the failed mutations have not happened, the others are serialisable."""
    world = World(seed, mutations, failures=True)
    world.run()
    world.check()


@pytest.mark.parametrize("seed", range(8))
def test_one_hot_counter(seed) -> None:
    """Fifty mutations of one document: each ends, after at most a few runs each, and every increment counts."""
    world = World(seed, [[("get", 0, 0), ("add", 1, 0)]] * 50, failures=False)
    world.run()
    world.check()
    runs = sum(mutation.runs for mutation in world.mutations)
    assert runs < 50 * 4, f"{runs} runs"


@pytest.mark.parametrize("seed", range(8))
def test_opposite_orders(seed) -> None:
    """Mutations that take two hot documents in opposite order neither deadlock nor starve."""
    ab: list[Step] = [("add", 0, 0), ("add", 1, 0)]
    world = World(seed, [ab, ab[::-1]] * 12, failures=False)
    world.run()
    world.check()
    assert max(mutation.runs for mutation in world.mutations) < 20


@pytest.mark.slow
@settings(max_examples=3000, deadline=None)
@given(programs, st.integers(0, 2**32), st.booleans())
def test_many_interleavings(mutations, seed, failures) -> None:
    """A longer search of the two properties above."""
    world = World(seed, mutations, failures=failures)
    world.run()
    world.check()
