"""Which subscribers watch an interval that holds a key: a treap of half-open byte intervals (A8).

Nodes are ordered by (lower, upper); equal intervals share a node; each node knows the greatest upper bound below it. ``insert`` and
``remove`` cost O(log n), ``stab`` O(log n + hits) for intervals that nest or lie side by side.
"""

from __future__ import annotations

from collections.abc import Hashable
from random import Random
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)


class _Node(Generic[S]):
    __slots__ = ("left", "lower", "max_upper", "priority", "right", "subscribers", "upper")

    def __init__(self, lower: bytes, upper: bytes | None, priority: float) -> None:
        self.lower = lower
        self.upper = upper
        self.max_upper = upper
        self.priority = priority
        self.left: _Node[S] | None = None
        self.right: _Node[S] | None = None
        self.subscribers: set[S] = set()

    def refresh(self) -> None:
        """Compute ``max_upper`` from the children; ``None`` is greater than every key."""
        greatest = self.upper
        for child in (self.left, self.right):
            if child is not None and greatest is not None:
                reach = child.max_upper
                if reach is None or reach > greatest:
                    greatest = reach
        self.max_upper = greatest

    def compare(self, lower: bytes, upper: bytes | None) -> int:
        """-1 when ``(lower, upper)`` sorts before this node, 0 when it is this interval, 1 after."""
        if lower != self.lower:
            return -1 if lower < self.lower else 1
        if upper == self.upper:
            return 0
        if self.upper is None:
            return -1
        return 1 if upper is None or upper > self.upper else -1


def _rotate_right(node: _Node[S]) -> _Node[S]:
    top = node.left
    assert top is not None
    node.left, top.right = top.right, node
    node.refresh()
    top.refresh()
    return top


def _rotate_left(node: _Node[S]) -> _Node[S]:
    top = node.right
    assert top is not None
    node.right, top.left = top.left, node
    node.refresh()
    top.refresh()
    return top


class IntervalMap(Generic[S]):
    """Half-open intervals ``[lower, upper)`` of one index to subscribers; ``upper`` ``None`` is unbounded.

    :param random: source of the treap's priorities (its shape, never its answers).
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._root: _Node[S] | None = None
        self._size = 0

    def __len__(self) -> int:
        """Number of different intervals."""
        return self._size

    def insert(self, lower: bytes, upper: bytes | None, subscriber: S) -> None:
        """Let *subscriber* watch the interval; doing it twice changes nothing.

        :raises ValueError: the interval is empty.
        """
        if upper is not None and upper <= lower:
            raise ValueError("empty interval")
        self._root = self._insert(self._root, lower, upper, subscriber)

    def _insert(self, node: _Node[S] | None, lower: bytes, upper: bytes | None, subscriber: S) -> _Node[S]:
        if node is None:
            node = _Node(lower, upper, self._random.random())
            node.subscribers.add(subscriber)
            self._size += 1
            return node
        side = node.compare(lower, upper)
        if side == 0:
            node.subscribers.add(subscriber)
            return node
        if side < 0:
            left = node.left = self._insert(node.left, lower, upper, subscriber)
            if left.priority > node.priority:
                return _rotate_right(node)
        else:
            right = node.right = self._insert(node.right, lower, upper, subscriber)
            if right.priority > node.priority:
                return _rotate_left(node)
        reach = node.max_upper
        if reach is not None and (upper is None or upper > reach):
            node.max_upper = upper
        return node

    def remove(self, lower: bytes, upper: bytes | None, subscriber: S) -> None:
        """Undo :meth:`insert`.

        :raises KeyError: the subscriber does not watch this interval.
        """
        self._root = self._remove(self._root, lower, upper, subscriber)

    def _remove(self, node: _Node[S] | None, lower: bytes, upper: bytes | None, subscriber: S) -> _Node[S] | None:
        if node is None:
            raise KeyError((lower, upper))
        side = node.compare(lower, upper)
        if side < 0:
            node.left = self._remove(node.left, lower, upper, subscriber)
        elif side > 0:
            node.right = self._remove(node.right, lower, upper, subscriber)
        else:
            node.subscribers.remove(subscriber)
            if node.subscribers:
                return node
            self._size -= 1
            return _join(node.left, node.right)
        node.refresh()
        return node

    def stab(self, key: bytes) -> set[S]:
        """Every subscriber of an interval that holds *key*."""
        found: set[S] = set()
        node = self._root
        waiting: list[_Node[S]] = []
        while True:
            if node is None:
                if not waiting:
                    return found
                node = waiting.pop()
            reach = node.max_upper
            if reach is not None and reach <= key:
                node = None
                continue
            if node.lower <= key:
                upper = node.upper
                if upper is None or key < upper:
                    found |= node.subscribers
                if node.right is not None:
                    waiting.append(node.right)
            node = node.left


def _join(left: _Node[S] | None, right: _Node[S] | None) -> _Node[S] | None:
    """One treap of two whose keys don't overlap, *left* first."""
    if left is None:
        return right
    if right is None:
        return left
    if left.priority > right.priority:
        left.right = _join(left.right, right)
        left.refresh()
        return left
    right.left = _join(left, right.left)
    right.refresh()
    return right
