"""The children of one pool: when they start, which one takes the next call, when they go (F1).

::

    STARTING --hello--> READY --too large--> DRAINING --idle--> closed
        |                 ^
        +--hello--> SPARE-+   promoted when a child is lost or all are busy
        +--hello--> QUARANTINE --its one call ends--> closed
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from convex_backend.deferreds import Waiters
from convex_backend.errors import Overloaded, ServerFault
from convex_backend.functions.admission import STOPPING_TEXT
from convex_backend.functions.calls import Slot, SlotState
from convex_backend.functions.frames import Frame
from convex_backend.functions.limits import MEMORY_TEXT
from convex_backend.functions.pool_metrics import PoolMetrics
from convex_backend.functions.runner_process import Child, ProcessExit

HELLO_SECONDS = 10.0
SPARE_DELAY_SECONDS = 0.5
FIRST_BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 5.0
HOPELESS_STARTS = 3
"""Starts in a row that failed, after which those who wait for a child are told so; one may have been somebody's signal."""


@attrs.frozen(slots=True)
class PoolOptions:
    """Sizes and limits of one pool.

    :param kind: ``isolate`` (queries and mutations) or ``action``; a metric label.
    :param size: children at most, the spare not counted.
    :param calls_per_child: root calls in one child at once.
    :param parked_per_child: root calls beyond those that wait for another transaction (their contexts take memory).
    :param starts_per_child: root calls that a child was told to start and that it has not spoken of. What waits in the child waits first come, first
        served, so most shall wait here. Actions may be silent for long: for them no such bound.
    :param max_waiting: calls that may wait for a slot.
    :param resident_bytes: a child whose memory grows over this is replaced when its calls have ended.
    :param eager: start the first child with the server, and keep one spare; else start with the first call.
    :param avoid_stalled: calls rather wait for a child that starts than go to one that is held up.
    :param idle_seconds: a child without calls for so long is closed; ``None``: never.
    :param memory_text: what an action is told that has used up its child's memory.
    :param reuse_realms: queries and mutations of modules that allow it are evaluated in contexts that served other runs.
    """

    kind: str
    size: int
    calls_per_child: int = 16
    parked_per_child: int = 96
    starts_per_child: int = attrs.field(
        default=attrs.Factory(lambda self: 4 if self.kind == "isolate" else self.calls_per_child, takes_self=True)
    )
    max_waiting: int = 4096
    max_wait_seconds: float = 30.0
    resident_bytes: int = 512 * 1024 * 1024
    eager: bool = True
    reuse_realms: bool = False
    avoid_stalled: bool = False
    idle_seconds: float | None = None
    memory_text: str = MEMORY_TEXT


class Fleet:
    """The children and their states.

    :param spawn: makes a child, not started.
    :param on_frame: a frame of a child that said hello.
    :param on_lost: a child has ended; its calls are in the slot.
    :param on_ready: the number of ready children changed.
    :param on_start_failure: no child is ready, and one has just failed to start.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        options: PoolOptions,
        spawn: Callable[[], Child],
        metrics: PoolMetrics,
        on_frame: Callable[[Slot, Frame], None],
        on_lost: Callable[[Slot, ProcessExit], None],
        on_ready: Callable[[], None],
        on_start_failure: Callable[[Exception], None],
    ) -> None:
        self._clock = clock
        self._options = options
        self._spawn = spawn
        self._metrics = metrics
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._on_ready = on_ready
        self._on_start_failure = on_start_failure
        self._by_child: dict[Child, Slot] = {}
        self._ready: list[Slot] = []
        self._ready_waiters: Waiters[None] = Waiters()
        self._all_gone: Waiters[None] = Waiters()
        self._backoff_seconds = 0.0
        self._failed_starts = 0
        self._retry: IDelayedCall | None = None
        self._spare_call: IDelayedCall | None = None
        self._stopping = False
        self._children_gauge = metrics.children.labels(options.kind)

    @property
    def slots(self) -> list[Slot]:
        """Every child that has not ended."""
        return list(self._by_child.values())

    def __contains__(self, child: Child) -> bool:
        """Whether *child* has not ended."""
        return child in self._by_child

    @property
    def ready_count(self) -> int:
        """How many children take calls."""
        return len(self._ready)

    def start(self) -> Deferred[Slot]:
        """Start the first child. :returns: fires when it said hello; fails when it does not start."""
        return self._launch(SlotState.READY)

    def stop(self) -> Deferred[None]:
        """Close every child. :returns: fires when all are reaped."""
        self._stopping = True
        for timer in (self._retry, self._spare_call):
            if timer is not None and timer.active():
                timer.cancel()
        self._ready_waiters.fail(Overloaded("BackendIsNotRunning", STOPPING_TEXT))
        for slot in self.slots:
            self._set_state(slot, SlotState.DRAINING)
            slot.child.close()
        return self._all_gone.wait() if self._by_child else succeed(None)

    def choose(self) -> Slot | None:
        """The least loaded ready child, one that is not held up by a long entry if there is any; starts another when all are busy."""
        ready = self._ready
        if not ready:
            self.grow()
            return self._ready[0] if self._ready else None
        best = ready[0]
        if len(ready) > 1:
            best = min(ready, key=self._load)
        if (best.roots or best.stalled) and len(ready) < self._options.size:
            self.grow()
            best = min(self._ready, key=self._load)
            if best.stalled and self._options.avoid_stalled and self._is_starting():
                return None
        return best

    def _is_starting(self) -> bool:
        return any(
            slot.state is SlotState.STARTING and slot.target is SlotState.READY for slot in self._by_child.values()
        )

    def _load(self, slot: Slot) -> tuple[bool, bool, int]:
        held_up = slot.stalled or slot.child.congested or slot.unheard >= self._options.starts_per_child
        # A start takes a child a few milliseconds, in which the owner of a contended lane gets no answers.
        hurried = any(call.parent is None and call.host.is_waited_for() for call in slot.calls.values())
        return (held_up, hurried, slot.roots)

    def takes_starts(self) -> bool:
        """Whether a ready child has begun most of what it was told to start."""
        limit = self._options.starts_per_child
        for slot in self._ready:  # noqa: SIM110 - asked for each call, any() takes three times as long
            if slot.unheard < limit:
                return True
        return False

    def wait_ready(self) -> Deferred[None]:
        """Fires when a child has become ready; fails when starting fails."""
        return self._ready_waiters.wait()

    def grow(self) -> None:
        """Make one more child ready: the spare at once, else a new one in a moment. Does nothing at the full size."""
        if self._stopping or (self._retry is not None and self._retry.active()):
            return
        active = starting = 0
        spare: Slot | None = None
        for slot in self._by_child.values():
            if slot.state is SlotState.SPARE:
                spare = slot
            elif slot.state is SlotState.READY:
                active += 1
            elif slot.state is SlotState.STARTING and slot.target is SlotState.READY:
                starting += 1
        if active + starting >= self._options.size:
            return
        if spare is not None:
            self._set_state(spare, SlotState.READY)
            self._plan_spare()
        elif not starting:
            self._launch(SlotState.READY).addErrback(self._start_failed)

    def quarantine(self) -> Deferred[Slot]:
        """A child of its own for one suspect; the caller closes it."""
        for slot in self._by_child.values():
            if slot.state is SlotState.SPARE:
                slot.target = SlotState.QUARANTINE
                self._set_state(slot, SlotState.QUARANTINE)
                self._plan_spare()
                return succeed(slot)
        return self._launch(SlotState.QUARANTINE)

    def drain(self, slot: Slot) -> None:
        """Give *slot* no new calls; close it when the last one has ended."""
        if slot.state is SlotState.READY:
            self._set_state(slot, SlotState.DRAINING)
            self.grow()
            self.call_ended(slot)

    def call_ended(self, slot: Slot) -> None:
        """A root call has left *slot*."""
        slot.idle_since = self._clock.seconds()
        if slot.tainted and slot.state is SlotState.READY:
            self._set_state(slot, SlotState.DRAINING)
            if not self._ready:
                self.grow()
        if slot.state is SlotState.DRAINING and not slot.roots:
            slot.child.close()

    def close_idle(self) -> None:
        """Close the children that have had no calls for long."""
        limit = self._options.idle_seconds
        if limit is None:
            return
        for slot in list(self._ready):
            if not slot.roots and self._clock.seconds() - slot.idle_since >= limit:
                self._set_state(slot, SlotState.DRAINING)
                slot.child.close()

    def _launch(self, target: SlotState) -> Deferred[Slot]:
        if self._stopping:
            raise Overloaded("BackendIsNotRunning", STOPPING_TEXT)
        child = self._spawn()
        hello: Deferred[Slot] = Deferred()
        slot = Slot(child, SlotState.STARTING, target, hello)
        self._by_child[child] = slot
        self._children_gauge.set(len(self._by_child))
        slot.hello_timer = self._clock.callLater(
            HELLO_SECONDS, child.kill, f"the runner said no hello within {HELLO_SECONDS:g} s"
        )
        try:
            child.start(self)
        except ServerFault as error:
            slot.hello_timer.cancel()
            slot.hello = None
            self._forget(slot)
            hello.errback(Failure(error))
        return hello

    def child_ready(self, child: Child) -> None:
        """See :class:`ChildListener`."""
        slot = self._by_child[child]
        if slot.hello_timer is not None:
            slot.hello_timer.cancel()
        self._backoff_seconds = 0.0
        self._failed_starts = 0
        if slot.state is not SlotState.STARTING:
            return
        hello, slot.hello = slot.hello, None
        self._set_state(slot, slot.target)
        if slot.target is SlotState.READY:
            self._plan_spare()
        if hello is not None:
            hello.callback(slot)

    def frame_received(self, child: Child, frame: Frame) -> None:
        """See :class:`ChildListener`."""
        self._on_frame(self._by_child[child], frame)

    def child_lost(self, child: Child, exit: ProcessExit) -> None:
        """See :class:`ChildListener`."""
        slot = self._by_child[child]
        if slot.hello_timer is not None and slot.hello_timer.active():
            slot.hello_timer.cancel()
        wanted = slot.state
        self._set_state(slot, SlotState.DRAINING)
        reason = slot.kill_reason or ("closed" if exit.reason == "closed" else "killed" if exit.reason else "crashed")
        if exit.out_of_memory:
            reason = "out_of_memory"
        self._metrics.lost.labels(self._options.kind, reason).inc()
        if reason != "closed":
            self._log.warn(
                "runner {pid} of the {kind} pool ended ({exit}) with {calls} calls",
                pid=child.pid,
                kind=self._options.kind,
                exit=str(exit),
                calls=len(slot.calls),
            )
        self._forget(slot)
        hello, slot.hello = slot.hello, None
        if hello is not None:
            text = f"The JavaScript runner did not start: {exit}. {exit.stderr}".rstrip()
            hello.errback(
                Failure(Overloaded("BackendIsNotRunning", STOPPING_TEXT) if self._stopping else ServerFault(text))
            )
        # A child that takes calls is replaced before its calls are tried again.
        if not self._stopping:
            if wanted is SlotState.READY:
                self.grow()
            elif wanted is SlotState.SPARE:
                self._plan_spare()
        self._on_lost(slot, exit)

    def _forget(self, slot: Slot) -> None:
        self._by_child.pop(slot.child, None)
        self._children_gauge.set(len(self._by_child))
        if self._stopping and not self._by_child:
            self._all_gone.fire(None)

    def _set_state(self, slot: Slot, state: SlotState) -> None:
        was = slot.state
        slot.state = state
        if state is SlotState.READY:
            slot.idle_since = self._clock.seconds()
            self._ready.append(slot)
            self._on_ready()
            self._ready_waiters.fire(None)
        elif was is SlotState.READY:
            self._ready.remove(slot)
            self._on_ready()

    def _start_failed(self, failure: Failure) -> None:
        if self._stopping:
            return
        self._log.error("cannot start a runner: {error}", error=failure.getErrorMessage())
        self._failed_starts += 1
        if not self._ready and self._failed_starts >= HOPELESS_STARTS:
            error = ServerFault()
            self._ready_waiters.fail(error)
            self._on_start_failure(error)
        self._backoff_seconds = min(max(FIRST_BACKOFF_SECONDS, self._backoff_seconds * 2), MAX_BACKOFF_SECONDS)
        if self._retry is None or not self._retry.active():
            self._retry = self._clock.callLater(self._backoff_seconds, self._grow_again)
        if self._ready:
            # Who waited for it must do with what there is.
            self._ready_waiters.fire(None)

    def _grow_again(self) -> None:
        self._retry = None
        if not self._ready:
            self.grow()

    def _plan_spare(self) -> None:
        if self._options.eager and not self._stopping and (self._spare_call is None or not self._spare_call.active()):
            self._spare_call = self._clock.callLater(SPARE_DELAY_SECONDS, self._start_spare)

    def _start_spare(self) -> None:
        self._spare_call = None
        for slot in self._by_child.values():
            if slot.state is SlotState.SPARE or (slot.state is SlotState.STARTING and slot.target is SlotState.SPARE):
                return
        self._launch(SlotState.SPARE).addErrback(self._start_failed)
