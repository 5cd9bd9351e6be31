"""Snapshots: the overlay and the file together always show one moment."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convex_backend.database.snapshot import BelowFloor, Snapshot
from convex_backend.errors import OutOfRetention, Rerun
from tests.database.commit_support import Stack, change, doc_id, result_of

TABLET, INDEX = 1, 10


def key_of(group: int, number: int) -> bytes:
    return bytes([group]) + doc_id(number)


class History:
    """A brute-force multi-version store of documents ``number -> (group, ts, json)`` beside the real one."""

    def __init__(self, stack: Stack, random: Random) -> None:
        self.stack = stack
        self.random = random
        self.states: list[tuple[int, dict[int, tuple[int, int, bytes]]]] = [(stack.committer.pending_ts, {})]

    def commit(self) -> None:
        """Insert, update, move or delete up to three documents."""
        state = dict(self.states[-1][1])
        changes = []
        for number in self.random.sample(range(8), self.random.randint(1, 3)):
            old = state.get(number)
            json = b"%d" % self.random.randrange(10**6)
            old_key = key_of(old[0], number) if old else None
            if old and self.random.random() < 0.3:
                del state[number]
                changes.append(change(number, None, old=old[1:], keys=((INDEX, old_key, None),)))
                continue
            group = old[0] if old and self.random.random() < 0.5 else self.random.randrange(4)
            state[number] = (group, -1, json)
            changes.append(
                change(number, json, old=old[1:] if old else None, keys=((INDEX, old_key, key_of(group, number)),))
            )
        outcome = self.stack.commit(*changes)
        assert outcome.error is None
        ts = self.stack.committer.pending_ts
        self.states.append((ts, {n: (g, ts if t == -1 else t, j) for n, (g, t, j) in state.items()}))

    def at(self, ts: int) -> dict[int, tuple[int, int, bytes]]:
        return next(state for when, state in reversed(self.states) if when <= ts)

    def check(self, snapshot: Snapshot, bounds: tuple[int, int], reverse: bool, limit: int) -> None:
        """Every read of *snapshot* equals the model at its timestamp."""
        state = self.at(snapshot.ts)
        for number in range(8):
            row = result_of(snapshot.get(TABLET, doc_id(number)))
            assert (row and (row.ts, row.json)) == (state[number][1:] if number in state else None)
        lower, upper = bytes([min(bounds)]), bytes([max(bounds)]) if max(bounds) < 4 else None
        rows = result_of(snapshot.scan(INDEX, TABLET, lower, upper, reverse, limit))
        expected = sorted((key_of(group, n), doc_id(n), ts, json) for n, (group, ts, json) in state.items())
        expected = [e for e in expected if e[0] >= lower and (upper is None or e[0] < upper)]
        expected = (expected[::-1] if reverse else expected)[:limit]
        assert [(row.key, row.id, row.ts, row.json) for row in rows] == expected
        by_id = result_of(snapshot.scan(-TABLET, TABLET, doc_id(2), doc_id(7), reverse, limit))
        numbers = sorted((n for n in state if 2 <= n < 7), reverse=reverse)[:limit]
        assert [(row.id, row.json) for row in by_id] == [(doc_id(n), state[n][2]) for n in numbers]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(
        st.tuples(
            st.sampled_from("ccccwwoouxf"),
            st.tuples(st.integers(0, 4), st.integers(0, 4)),
            st.booleans(),
            st.integers(1, 9),
        ),
        max_size=45,
    ),
)
def test_every_snapshot_shows_its_moment(seed, steps) -> None:
    """Whatever commits, finishes, fails, opens and closes around it, a snapshot reads the state at its timestamp; one above a failed
    group raises ``Rerun``."""
    random = Random(seed)
    stack = Stack(hold=True, ahead=random)
    committer = stack.committer
    model = History(stack, random)
    snapshots: list[Snapshot] = []
    for step, bounds, reverse, limit in steps:
        if step == "c":
            model.commit()
        elif step == "w" and stack.held:
            stack.finish_write()
        elif step == "f" and stack.held:
            stack.fail_write()
            model.states = [state for state in model.states if state[0] <= committer.pending_ts]
            for snapshot in snapshots:
                if snapshot.ts > committer.pending_ts:
                    with pytest.raises(Rerun):
                        snapshot.get_now(TABLET, doc_id(1))
                    snapshot.close()
            snapshots = [s for s in snapshots if s.ts <= committer.pending_ts]
        elif step == "o":
            snapshots.append(committer.snapshots.open(random.choice([committer.pending_ts, committer.durable_ts])))
        elif step == "u" and len(model.states) > 1:
            old = random.choice(model.states)[0]
            snapshots.append(committer.snapshots.open(old))
        elif step == "x" and snapshots:
            snapshots.pop(random.randrange(len(snapshots))).close()
        for snapshot in snapshots:
            model.check(snapshot, bounds, reverse, limit)
    while stack.held:
        stack.finish_write()
    for snapshot in snapshots:
        model.check(snapshot, (0, 4), False, 100)
        snapshot.close()
    model.commit()
    stack.finish_write()
    assert committer.snapshots.overlay.size == 0, "nothing stays when nobody looks back"
    assert committer.snapshots.overlay.indexes == {}


def test_pending_is_not_durable() -> None:
    """A snapshot at ``durable_ts`` does not see a pending commit; one at ``pending_ts`` does; both keep that after it is durable."""
    stack = Stack(hold=True)
    committer = stack.committer
    before = committer.snapshots.open(committer.durable_ts)
    stack.commit(change(1, b"1"))
    after = committer.snapshots.open(committer.pending_ts)
    for _ in range(2):
        assert before.get_now(TABLET, doc_id(1)) is None
        row = after.get_now(TABLET, doc_id(1))
        assert row is not None and row.json == b"1"
        while stack.held:
            stack.finish_write()


def test_a_scan_at_the_newest_time_does_not_pay_for_dead_rows() -> None:
    """Rows deleted while an old snapshot is open are not stepped over by a scan at the newest time."""
    stack = Stack()
    committer = stack.committer
    for number in range(200):
        stack.commit(change(number, b"x", keys=((INDEX, None, key_of(1, number)),)))
    pinned = committer.snapshots.open(committer.durable_ts)
    for number in range(199):
        row = pinned.get_now(TABLET, doc_id(number))
        assert row is not None
        stack.commit(change(number, None, old=(row.ts, row.json), keys=((INDEX, key_of(1, number), None),)))
    entries = committer.snapshots.overlay.indexes[INDEX]
    assert len(entries.pinned) == 199 and entries.fresh == []
    newest = committer.snapshots.open(committer.durable_ts)
    asked: list[int] = []
    scan = stack.persistence.scan_index
    stack.persistence.scan_index = lambda *args: asked.append(args[4]) or scan(*args)
    assert [row.id for row in newest.scan_now(INDEX, TABLET, b"", None, False, 1)] == [doc_id(199)]
    assert asked == [1]
    assert len(pinned.scan_now(INDEX, TABLET, b"", None, False, 1000)) == 200


def test_an_old_snapshot_goes_to_history() -> None:
    """A snapshot held longer than the overlay keeps versions is read from history, and only asynchronously."""
    stack = Stack()
    committer = stack.committer
    stack.commit(change(1, b"1"))
    old = committer.snapshots.open(committer.durable_ts)
    ts = committer.durable_ts
    stack.wall_ns += 60 * 1_000_000_000
    stack.commit(change(1, b"2", old=(ts, b"1")))
    stack.commit(change(2, b"3"))
    with pytest.raises(BelowFloor):
        old.get_now(TABLET, doc_id(1))
    with pytest.raises(BelowFloor):
        old.scan_now(-TABLET, TABLET, b"", None, False, 10)
    row = result_of(old.get(TABLET, doc_id(1)))
    assert row is not None and row.json == b"1"
    assert [row.json for row in result_of(old.scan(-TABLET, TABLET, b"", None, False, 10))] == [b"1"]


def test_too_many_overlay_keys_stop_pinning() -> None:
    """Above the bound an open snapshot keeps nothing in memory."""
    stack = Stack()
    snapshots = stack.committer.snapshots
    snapshots._max_overlay_keys = 10
    pinned = snapshots.open(stack.committer.durable_ts)
    for number in range(12):
        stack.commit(change(number, b"x"))
    assert snapshots.overlay.size <= 10
    assert result_of(pinned.scan(-TABLET, TABLET, b"", None, False, 100)) == []


def test_below_the_watermark() -> None:
    """History that was pruned is refused, at the opening and in a running read."""
    stack = Stack()
    stack.commit(change(1, b"1"))
    snapshots = stack.committer.snapshots
    old = snapshots.open(stack.committer.durable_ts - 1)
    snapshots.watermark_ts = stack.committer.durable_ts
    with pytest.raises(OutOfRetention):
        snapshots.open(stack.committer.durable_ts - 1)
    with pytest.raises(OutOfRetention):
        result_of(old.get(TABLET, doc_id(1)))


def test_moving_forward_only() -> None:
    """A snapshot moves to a newer timestamp and then reads there; it does not move back."""
    stack = Stack(hold=True)
    snapshot = stack.committer.snapshots.open(stack.committer.pending_ts)
    start = snapshot.ts
    stack.commit(change(1, b"1"))
    snapshot.move_to(stack.committer.pending_ts)
    assert snapshot.get_now(TABLET, doc_id(1)) is not None
    assert stack.committer.snapshots.oldest() == snapshot.ts
    with pytest.raises(ValueError, match="forward"):
        snapshot.move_to(start)
    snapshot.close()
    snapshot.close()
    assert stack.committer.snapshots.oldest() is None
