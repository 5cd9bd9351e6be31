"""Answers the syscalls of running calls: in order, a few at once for actions, no faster than the child reads (F1).

::

    SYSCALL --> call.queue --> host.syscall --> SYSRESULT        notices: no SYSRESULT
                   |                |
         over its bounds: ends    error: thrown into JavaScript, or ends the tree

A write that the child has answered itself (``docs/internals.md`` section 8) is carried out like any other, without SYSRESULT; when it is refused,
the tree ends with ``RefusedLate``. RESULT waits until all of them are done.
"""

from __future__ import annotations

from collections.abc import Callable

import orjson
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from convex_backend.errors import ConvexError, RefusedLate, ServerFault, Transient
from convex_backend.functions import frames
from convex_backend.functions.calls import Call
from convex_backend.functions.frames import Frame
from convex_backend.functions.outcome import error_reply, is_user_error, loads_lenient, masked
from convex_backend.interfaces import SyscallReply

ACTION_CONCURRENCY = 8
"""Syscalls of one action that are answered at once (``runtime.md`` 2.4)."""
NOTICES = frozenset({"1.0/queryStream", "1.0/queryCleanup"})
MAX_QUEUED_SYSCALLS = 65536
MAX_QUEUED_BYTES = 128 * 1024 * 1024
"""Arguments of one call's syscalls that have not begun. A transaction may write 16 MiB of values, whose JSON text can be several times larger."""
_MAX_KNOWN_METAS = 256


class SyscallServer:
    """The syscalls of a pool's calls.

    :param fail_tree: ends a call tree with an error for who called ``run``.
    :param flooded: a call has more syscalls outstanding than it may.
    :param finish: takes a RESULT frame that was deferred.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        fail_tree: Callable[[Call, Exception], None],
        flooded: Callable[[Call], None],
        finish: Callable[[Call, Frame], None],
    ) -> None:
        self._clock = clock
        self._fail_tree = fail_tree
        self._flooded = flooded
        self._finish = finish
        self._ops: dict[bytes, tuple[str, bool]] = {}

    def receive(self, call: Call, frame: Frame) -> None:
        """A SYSCALL frame of *call*.

        :raises ValueError, KeyError, TypeError, AttributeError: the child broke the protocol.
        """
        queue = call.queue
        if len(queue) >= MAX_QUEUED_SYSCALLS or call.queued_bytes > MAX_QUEUED_BYTES:
            self._flooded(call)
            return
        queue.append(frame)
        call.queued_bytes += len(frame.body)
        if call.serving and (not call.action or len(call.serving) >= ACTION_CONCURRENCY):
            return
        key = frame.seq
        # Entered before the coroutine starts, so that syscalls that it makes the child send are queued behind.
        call.serving[key] = None
        served = Deferred.fromCoroutine(self._serve(call, key))
        if key in call.serving and call.alive:
            call.serving[key] = served
        served.addErrback(self._serving_failed, call)

    def defer(self, call: Call, result: Frame) -> bool:
        """Whether *result* must wait for writes that the child has answered; it is finished when they are done.

        Syscalls behind them that were not answered are dropped: nobody waits for them any more.
        """
        if call.action or not call.serving or call.current_answered is False:
            return False
        queue = call.queue
        count = 0
        while count < len(queue) and self._op(queue[count].meta)[1]:
            count += 1
        if not count and call.current_answered is None:
            return False
        while len(queue) > count:
            queue.pop()
        call.result = result
        return True

    async def _serve(self, call: Call, key: int) -> None:
        """Answer queued syscalls of *call* until none is left; queries and mutations have one of these, actions up to eight."""
        queue = call.queue
        host = call.host
        root = call.root
        child = call.slot.child
        if not call.action:
            root.syscall_since = self._clock.seconds()
        while queue and call.alive:
            if child.congested:
                await self._until_read(call)
                continue
            frame = queue.popleft()
            call.queued_bytes -= len(frame.body)
            call.current_seq = frame.seq
            op, answered, consumed = self._op(frame.meta)
            if op in NOTICES:
                try:
                    self._notice(call, op, frame, consumed)
                except Transient as error:
                    del call.serving[key]
                    self._fail_tree(root, error)
                    return
                continue
            call.current_answered = answered
            try:
                reply: SyscallReply = await host.syscall(op, frame.body, consumed)
            except CancelledError:
                if not call.alive:
                    return
                raise
            except Exception as error:  # noqa: BLE001 - given to the function, or to who called run
                if not call.alive:
                    return
                if answered and is_user_error(error):
                    error = RefusedLate()
                if not self._throw(call, frame.seq, error):
                    del call.serving[key]
                    self._fail_tree(root, error)
                    return
                call.current_answered = None
            else:
                if not call.alive:
                    return
                call.current_answered = None
                if answered:
                    continue
                meta = orjson.dumps(reply.meta) if reply.meta else b""
                child.send(frames.SYSRESULT, call.id, frame.seq, meta, reply.body)
                if host.is_waited_for():
                    # What else this turn has to do can take longer than the child needs.
                    child.flush()
        call.serving.pop(key, None)
        if not call.action:
            root.stop_syscall_clock(self._clock.seconds())
        if call.result is not None and call.alive:
            result, call.result = call.result, None
            self._finish(call, result)

    async def _until_read(self, call: Call) -> None:
        """Wait until the child has taken what was sent to it. That is no system operation of *call*."""
        root = call.root
        root.stop_syscall_clock(self._clock.seconds())
        await call.slot.child.drained()
        if not call.action and root.alive:
            root.syscall_since = self._clock.seconds()

    def _notice(self, call: Call, op: str, frame: Frame, consumed: dict[str, int] | None) -> None:
        """A syscall that is not answered (``docs/internals.md`` section 8)."""
        if consumed:
            call.host.consumed(consumed)
        if op == "1.0/queryStream":
            call.host.open_query(int(loads_lenient(frame.meta)["queryId"]), frame.body)
        else:
            call.host.close_query(int(loads_lenient(frame.body)["queryId"]))

    def _throw(self, call: Call, seq: int, error: Exception) -> bool:
        """Throw *error* into JavaScript if it may be caught there. :returns: whether it may."""
        if call.action:
            shown = masked(error)
            if shown is not error and not isinstance(error, ConvexError):
                self._log.failure("a syscall of an action failed", failure=Failure(error))
        elif is_user_error(error):
            shown = error
        else:
            return False
        meta, body = error_reply(shown)
        call.slot.child.send(frames.SYSRESULT, call.id, seq, meta, body)
        return True

    def _serving_failed(self, failure: Failure, call: Call) -> None:
        """The loop itself failed: a cancelled wait is the end of its tree, anything else a fault of ours."""
        if not call.alive:
            return
        error = failure.value if isinstance(failure.value, Exception) else ServerFault()
        if not isinstance(error, CancelledError):
            self._log.failure("answering syscalls failed", failure=failure)
        call.serving.clear()
        self._fail_tree(call.root, error if not isinstance(error, CancelledError) else ServerFault())

    def _op(self, meta: bytes) -> tuple[str, bool, dict[str, int] | None]:
        """Name of the syscall, whether the child has answered it, and what it reports as consumed."""
        known = self._ops.get(meta)
        if known is not None:
            return known[0], known[1], None
        tree = loads_lenient(meta)
        op = tree["op"]
        if not isinstance(op, str):
            raise TypeError("op is not text")
        answered = tree.get("answered") is True
        consumed = tree.get("consumed")
        if not consumed and len(self._ops) < _MAX_KNOWN_METAS:
            self._ops[meta] = op, answered
        return op, answered, consumed or None
