"""One file on its way in: bytes are fed as they come, hashed and written in threads, and become a file with one commit.

::

    feed ─► queue (bounded by the feeder, who is told when to hold) ─► writer thread ─► finish: sync, digest, rows, commit ─► FileRecord
                                                                          └─ abort, a wrong digest, a failed write: nothing is left
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from twisted.logger import Logger

from convex_backend.application.file_records import FileRecord
from convex_backend.deferreds import Waiters, run_detached
from convex_backend.interfaces import IBlobWriter, StoredBlob

#: Bytes that wait for the writer thread, above which the feeder is asked to hold, and below which to go on.
HIGH_BYTES: Final = 1024 * 1024
LOW_BYTES: Final = 256 * 1024
#: What one piece of work for a thread has at most: others want the threads too.
_WORK_BYTES: Final = 512 * 1024


class Upload:
    """See the top of the file.

    :param begin: makes the writer, after whatever has to be checked first; its error is that of the whole upload.
    :param store: makes the file of the finished blob, or removes the blob and raises.
    :param received: told how many bytes came.
    :param ended: called once, when nothing more happens.
    :ivar on_failure: called when it has failed, so that nobody need send the rest; :attr:`failed` says so too.
    :ivar hold: called with ``True`` when too much waits for the disk, with ``False`` when more may come.
    """

    _log = Logger()

    def __init__(
        self,
        begin: Callable[[], Awaitable[IBlobWriter]],
        store: Callable[[StoredBlob], Awaitable[FileRecord]],
        received: Callable[[int], None],
        ended: Callable[[], None],
    ) -> None:
        self.hold: Callable[[bool], None] | None = None
        self.on_failure: Callable[[], None] | None = None
        self._begin = begin
        self._store = store
        self._received = received
        self._ended = ended
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._held = False
        self._pumping = True
        self._aborted = False
        self._finishing = False
        self._over = False
        self._error: Exception | None = None
        self._writer: IBlobWriter | None = None
        self._idle: Waiters[None] = Waiters()
        run_detached("an upload", self._pump())

    @property
    def failed(self) -> bool:
        """Whether :meth:`finish` will raise, whatever comes."""
        return self._error is not None

    def feed(self, data: bytes) -> None:
        """More bytes. What comes after a failure is dropped."""
        self._received(len(data))
        if self._error is not None or self._aborted:
            return
        self._queue.append(data)
        self._queued += len(data)
        if self._queued > HIGH_BYTES and not self._held:
            self._held = True
            if self.hold is not None:
                self.hold(True)
        if not self._pumping:
            self._pumping = True
            run_detached("an upload", self._pump())

    async def write(self, data: bytes) -> None:
        """:meth:`feed`, and wait while too much waits for the disk; for a feeder that can wait."""
        self.feed(data)
        while self._queued > HIGH_BYTES:
            await self._idle.wait()

    async def finish(self) -> FileRecord:
        """All bytes have come.

        :raises ConvexError: what was wrong with the request or the bytes. :raises OSError: they could not be written.
        Cancelling this drops the answer; run it shielded, else it may be left half done.
        """
        self._finishing = True
        while self._pumping:
            await self._idle.wait()
        if self._error is not None:
            error, self._error = self._error, None
            await self._drop()
            raise error
        assert self._writer is not None
        try:
            try:
                blob = await self._writer.finish()
            except OSError:
                await self._writer.abort()
                raise
            return await self._store(blob)
        finally:
            self._end()

    def abort(self) -> None:
        """The sender is gone: leave nothing behind. Once :meth:`finish` has been called this does nothing."""
        if not self._finishing and not self._aborted:
            self._aborted = True
            if not self._pumping:
                run_detached("the end of an upload", self._drop())

    async def _pump(self) -> None:
        try:
            if self._writer is None:
                self._writer = await self._begin()
            while self._queue and not self._aborted:
                work: list[bytes] = []
                size = 0
                while self._queue and size < _WORK_BYTES:
                    work.append(self._queue.popleft())
                    size += len(work[-1])
                await self._writer.write(work)
                self._queued -= size
                if self._queued < LOW_BYTES:
                    self._go_on()
        except Exception as error:  # noqa: BLE001 - whoever finishes the upload gets it
            self._error = error
            self._queue.clear()
            self._queued = 0
            if self.on_failure is not None:
                self.on_failure()
        if self._aborted:
            await self._drop()
        self._pumping = False
        self._go_on()

    def _go_on(self) -> None:
        """Whoever waits may go on: there is room, or all work is done."""
        if self._held:
            self._held = False
            if self.hold is not None:
                self.hold(False)
        self._idle.fire(None)

    async def _drop(self) -> None:
        if self._over:
            return
        self._end()
        self._queue.clear()
        if self._writer is not None:
            await self._writer.abort()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._ended()
