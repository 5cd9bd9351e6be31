"""The interval map against a list."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convex_backend.database.interval_map import IntervalMap

keys = st.binary(max_size=2)
operations = st.lists(st.tuples(st.booleans(), keys, st.none() | keys, st.integers(0, 3)), max_size=40)


@settings(max_examples=150, deadline=None)
@given(operations, st.lists(keys, max_size=10), st.integers(0, 5))
def test_against_a_list(steps, probes, seed) -> None:
    """After any insertions and removals, a stab finds exactly the subscribers whose interval holds the key."""
    tree: IntervalMap[int] = IntervalMap(Random(seed))
    model: set[tuple[bytes, bytes | None, int]] = set()
    for add, lower, upper, subscriber in steps:
        if upper is not None and upper <= lower:
            with pytest.raises(ValueError, match="empty"):
                tree.insert(lower, upper, subscriber)
        elif add or not model:
            tree.insert(lower, upper, subscriber)
            model.add((lower, upper, subscriber))
        else:
            victim = sorted(model, key=repr)[len(lower) % len(model)]
            tree.remove(*victim)
            model.discard(victim)
        assert len(tree) == len({(low, high) for low, high, _ in model})
    for key in [*probes, *(low for low, _, _ in model), *(high for _, high, _ in model if high is not None)]:
        expected = {who for low, high, who in model if low <= key and (high is None or key < high)}
        assert tree.stab(key) == expected


def test_removing_what_is_not_there() -> None:
    """Removing an unknown interval or subscriber is an error and changes nothing."""
    tree: IntervalMap[int] = IntervalMap(Random(1))
    tree.insert(b"a", b"c", 1)
    with pytest.raises(KeyError):
        tree.remove(b"a", b"d", 1)
    with pytest.raises(KeyError):
        tree.remove(b"a", b"c", 2)
    assert tree.stab(b"b") == {1}


def test_it_stays_shallow() -> None:
    """Inserting in key order does not make a list of it: ten thousand intervals go without deep recursion."""
    tree: IntervalMap[int] = IntervalMap(Random(2))
    for number in range(10_000):
        key = number.to_bytes(4, "big")
        tree.insert(key, key + b"\xff", number)

    def depth(node) -> int:
        deepest, level = 0, [node]
        while level:
            deepest += 1
            level = [child for parent in level for child in (parent.left, parent.right) if child is not None]
        return deepest

    assert depth(tree._root) < 60
    assert tree.stab((777).to_bytes(4, "big")) == {777}
