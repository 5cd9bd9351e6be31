"""A committer over a memory store whose writes end when the test says so."""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine, Sequence
from random import Random
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from convex_backend.database.committer import CommitRequest, Committer, CommitterLimits, DocumentChange
from convex_backend.database.reads import ReadSet
from convex_backend.deferreds import from_coroutine
from convex_backend.interfaces import Commit
from convex_backend.storage.memory_persistence import MemoryPersistence

T = TypeVar("T")
SECOND = 1_000_000_000


def result_of(coroutine: Coroutine[Any, Any, T] | Deferred[T]) -> T:
    """The result of what ends without waiting; its error is raised."""
    found: list[Any] = []
    deferred = coroutine if isinstance(coroutine, Deferred) else from_coroutine(coroutine)
    deferred.addBoth(found.append)
    assert found, "still waiting"
    if hasattr(found[0], "raiseException"):
        found[0].raiseException()
    return found[0]


class Outcome:
    """Follows one coroutine: ``done``, ``value``, ``error``."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.deferred = from_coroutine(coroutine)
        self.deferred.addCallbacks(self._succeeded, self._failed)

    def _succeeded(self, value: Any) -> None:
        self.done, self.value = True, value

    def _failed(self, failure: Any) -> None:
        self.done, self.error = True, failure.value


def doc_id(number: int) -> bytes:
    """A 16-byte id."""
    return number.to_bytes(16, "big")


def change(
    number: int,
    new: bytes | None,
    *,
    old: tuple[int, bytes] | None = None,
    tablet: int = 1,
    keys: tuple[tuple[int, bytes | None, bytes | None], ...] = (),
) -> DocumentChange:
    """A document change; ``old`` = (ts, json) of the version replaced."""
    return DocumentChange(tablet, doc_id(number), old[0] if old else None, old[1] if old else None, new, keys)


def reads_of(*points: tuple[int, bytes], intervals: Sequence[tuple[int, bytes, bytes | None]] = ()) -> ReadSet:
    """A read set."""
    reads = ReadSet()
    for index, key in points:
        reads.add_point(index, key)
    for index, lower, upper in intervals:
        reads.add_interval(index, lower, upper)
    return reads


class Stack:
    """A running committer, its store and its clocks. With ``hold`` each group waits for :meth:`finish_write`.

    :param ahead: decides for each held group whether it is in the file while it is held, unknown to the committer.
    """

    def __init__(
        self,
        *,
        hold: bool = False,
        ahead: Random | None = None,
        limits: CommitterLimits | None = None,
        **options: Any,
    ) -> None:
        self.clock = Clock()
        self.registry = CollectorRegistry()
        self.persistence = MemoryPersistence()
        result_of(self.persistence.open())
        self.fatal: list[str] = []
        self.held: deque[tuple[list[Commit], Deferred[None]]] = deque()
        self.groups: list[list[int]] = []
        self.wall_ns = 1000 * SECOND
        self._options = {"limits": limits, **options}
        self.committer = self._make_committer()
        result_of(self.committer.start())
        self.hold = hold
        self.ahead = ahead
        self._hold_after = False
        self.persistence.before_write = self._before_write
        self.persistence.after_write = self._after_write

    def _make_committer(self) -> Committer:
        return Committer(
            self.persistence,
            self,
            self.clock,
            self.registry,
            fatal=self.fatal.append,
            name_document=lambda tablet, document: (f"t{tablet}", f"doc{int.from_bytes(document, 'big')}"),
            **self._options,
        )

    def restart(self) -> None:
        """Another process over the same store."""
        result_of(self.persistence.close())
        result_of(self.persistence.open())
        self.registry = CollectorRegistry()
        self.committer = self._make_committer()
        result_of(self.committer.start())

    def now_ns(self) -> int:
        """Wall time that moves a little with each look."""
        self.wall_ns += 1000
        return self.wall_ns

    def _before_write(self, commits: Sequence[Commit]) -> Deferred[None] | None:
        self.groups.append([commit.ts for commit in commits])
        if not self.hold:
            return None
        self._hold_after = self.ahead is not None and self.ahead.random() < 0.5
        return None if self._hold_after else self._held(commits)

    def _after_write(self, commits: Sequence[Commit]) -> Deferred[None] | None:
        return self._held(commits) if self.hold and self._hold_after else None

    def _held(self, commits: Sequence[Commit]) -> Deferred[None]:
        deferred: Deferred[None] = Deferred()
        self.held.append((list(commits), deferred))
        return deferred

    def finish_write(self) -> None:
        """The group under way becomes durable."""
        self.held.popleft()[1].callback(None)

    def fail_write(self, error: Exception | None = None) -> None:
        """The group under way fails; unless it is ahead nothing of it is in the file."""
        self.held.popleft()[1].errback(error or OSError("disk on fire"))

    def commit(
        self, *changes: DocumentChange, reads: ReadSet | None = None, ts: int | None = None, **more: Any
    ) -> Outcome:
        """Begin a commit; reads are the written documents unless given."""
        if reads is None:
            reads = reads_of(*((-c.tablet, c.id) for c in changes))
        snapshot_ts = self.committer.pending_ts if ts is None else ts
        return Outcome(self.committer.commit(CommitRequest(snapshot_ts, reads, tuple(changes), **more)))
