"""A command that goes on until it is told to end, and what it prints meanwhile: ``convex dev``, ``logs``, ``run --watch``."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

WAIT_SECONDS = 30.0
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Watched:
    """A running command.

    :ivar printed: stdout and stderr so far, without colours.
    """

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.printed = ""
        self._seen = 0
        self._more = threading.Condition()
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, pipe: IO[bytes]) -> None:
        while data := os.read(pipe.fileno(), 65536):
            with self._more:
                self.printed += _COLOURS.sub("", data.decode(errors="replace"))
                self._more.notify_all()

    def expect(self, pattern: str, seconds: float = WAIT_SECONDS) -> str:
        """Wait until something is printed, after what the last call found, that matches *pattern*.

        :returns: what was printed up to the end of the match.
        :raises AssertionError: it did not come, or the command ended.
        """
        deadline = time.monotonic() + seconds
        with self._more:
            while True:
                found = re.compile(pattern).search(self.printed, self._seen)
                if found:
                    between = self.printed[self._seen : found.end()]
                    self._seen = found.end()
                    return between
                left = deadline - time.monotonic()
                if left <= 0 or not (self._reader.is_alive() or self._process.poll() is None):
                    raise AssertionError(f"{pattern!r} did not come after what was seen:\n{self._text()}")
                self._more.wait(min(left, 0.5))

    def rest(self) -> str:
        """What was printed after what the last :meth:`expect` found."""
        with self._more:
            return self.printed[self._seen :]

    def _text(self) -> str:
        return f"{self.printed[: self._seen]}\n-- seen so far --\n{self.printed[self._seen :]}"

    def stop(self, sig: int = signal.SIGINT, seconds: float = 10) -> int:
        """Send *sig*, as Ctrl-C does, and wait for the end. :returns: the exit code."""
        if self._process.poll() is None:
            self._process.send_signal(sig)
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the command did not end:\n{self.printed}") from None
        self._reader.join(seconds)
        return code

    def close(self) -> None:
        """Kill the command and what it has started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
        self._reader.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def watched(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Iterator[Watched]:
    """A running command, killed at the end."""
    running = Watched(command, folder, environment)
    try:
        yield running
    finally:
        running.close()
