"""One server for one database file: an advisory lock that dies with its process."""

from __future__ import annotations

import fcntl
import os

from convex_backend.errors import ConvexError


class FileLock:
    """``flock`` on ``FILE.lock``; the file holds the owner's process id. The kernel releases it, even at ``kill -9``.

    :param path: the database file that the lock protects.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock without waiting.

        :raises ConvexError: ``DatabaseInUse`` when another process (or another lock object) holds it.
        :raises OSError: the lock file cannot be made.
        """
        descriptor = os.open(self._path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            if not isinstance(error, BlockingIOError):
                raise
            who = f" (pid {owner})" if owner else ""
            raise ConvexError(
                "DatabaseInUse",
                f"another server is running on {self._path}{who}; stop it first or choose another --persistence",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back. The file stays: removing it would let two later owners lock two different files."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.ftruncate(descriptor, 0)
            os.close(descriptor)
