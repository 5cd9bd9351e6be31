"""Read sets."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from convex_backend.database.reads import ReadSet

keys = st.binary(max_size=2)
intervals = st.tuples(st.integers(1, 2), keys, st.none() | keys)


def model_holds(spans: list[tuple[int, bytes, bytes | None]], index: int, key: bytes) -> bool:
    return any(i == index and low <= key and (high is None or key < high) for i, low, high in spans)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(intervals, max_size=12),
    st.lists(st.tuples(st.integers(1, 2), keys), max_size=4),
    st.lists(keys, max_size=20),
)
def test_overlaps_is_membership(spans, points, probes) -> None:
    """A key overlaps exactly when it was read as a point or lies in one of the intervals; the frozen form agrees."""
    reads = ReadSet()
    for span in spans:
        reads.add_interval(*span)
    for point in points:
        reads.add_point(*point)
    token = reads.freeze()
    for index in (1, 2):
        for key in [*probes, *(span[1] for span in spans), *(span[2] for span in spans if span[2] is not None)]:
            expected = (index, key) in points or model_holds(spans, index, key)
            assert reads.overlaps(index, key) == token.overlaps(index, key) == expected
            found = reads.interval_of(index, key)
            assert (found is not None) == model_holds(spans, index, key)
            if found is not None:
                assert found[0] == index and found[1] <= key and (found[2] is None or key < found[2])


@settings(max_examples=100, deadline=None)
@given(st.lists(intervals, max_size=12))
def test_intervals_stay_merged(spans) -> None:
    """Whatever the order of additions, the intervals are disjoint, sorted and do not touch, so equal reads give equal tokens."""
    reads, other = ReadSet(), ReadSet()
    for span in spans:
        reads.add_interval(*span)
    for span in reversed(spans):
        other.add_interval(*span)
    assert reads.freeze() == other.freeze()
    assert hash(reads.freeze()) == hash(other.freeze())
    for _, lowers, uppers in reads.freeze().intervals:
        for number in range(1, len(lowers)):
            before = uppers[number - 1]
            assert before is not None and before < lowers[number]


@settings(max_examples=60, deadline=None)
@given(st.lists(intervals, max_size=8), st.lists(intervals, max_size=8))
def test_union(mine, theirs) -> None:
    """A union reads what either reads, and leaves the other alone."""
    first, second, both = ReadSet(), ReadSet(), ReadSet()
    for span in mine:
        first.add_interval(*span)
        both.add_interval(*span)
    for span in theirs:
        second.add_interval(*span)
        both.add_interval(*span)
    before = second.freeze()
    first.union(second)
    first.add_interval(9, b"", None)
    both.add_interval(9, b"", None)
    assert first.freeze() == both.freeze()
    assert second.freeze() == before


def test_interval_count_counts_merged_intervals_and_points() -> None:
    """Touching pages of one scan are one interval; a point read twice is one."""
    reads = ReadSet()
    reads.add_interval(1, b"a", b"c")
    reads.add_interval(1, b"c", b"e")
    reads.add_interval(1, b"x", None)
    reads.add_point(-1, b"p")
    reads.add_point(-1, b"p")
    assert reads.interval_count == 3


def test_copy_is_independent() -> None:
    """A copy does not see later reads of the original."""
    reads = ReadSet()
    reads.add_interval(1, b"a", b"c")
    copy = reads.copy()
    reads.add_interval(1, b"c", None)
    reads.add_point(1, b"z")
    assert not copy.overlaps(1, b"z")


def test_an_empty_interval_reads_nothing() -> None:
    """``[x, x)`` and reversed bounds are ignored."""
    reads = ReadSet()
    reads.add_interval(1, b"b", b"b")
    reads.add_interval(1, b"b", b"a")
    assert reads.interval_count == 0


def test_a_thawed_token_reads_the_same() -> None:
    """Freezing and thawing keep points and intervals."""
    reads = ReadSet()
    reads.add_interval(1, b"a", None)
    reads.add_interval(2, b"a", b"b")
    reads.add_point(-3, b"id")
    assert reads.freeze().thaw().freeze() == reads.freeze()
