"""A ``twistd`` child for tests: started in a directory of its own, read line by line, always ended."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 30.0

# A test run in the background of a shell ignores SIGINT, and a child would inherit that.
_BOOTSTRAP = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from twisted.scripts.twistd import run
run()
"""


class Child:
    """One server process. Used as a context manager, which kills what is left.

    :param arguments: after ``twistd -n``.
    :param directory: its current directory.
    :param environment: added to ours.
    """

    def __init__(self, arguments: list[str], directory: Path, environment: dict[str, str] | None = None) -> None:
        self.started = time.monotonic()
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CONVEX", "INSTANCE"))}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _BOOTSTRAP, "-n", *arguments],
            cwd=directory,
            env={**inherited, "PYTHONPATH": str(ROOT), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def wait_for(self, text: str) -> str:
        """The first line not yet read that contains *text*.

        :raises AssertionError: the output ended or nothing came in time.
        """
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            try:
                line = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line with {text!r}; output so far:\n{self.output}") from None
            if line is None:
                raise AssertionError(f"the output ended without {text!r}:\n{self.output}")
            self.lines.append(line)
            if text in line:
                return line

    @property
    def output(self) -> str:
        """What has been read so far."""
        return "\n".join(self.lines)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end and read what is left.

        :returns: the exit code, negative for a signal.
        """
        code = self.process.wait(TIMEOUT_SECONDS)
        self._reader.join(TIMEOUT_SECONDS)
        while (line := self._queue.get_nowait()) is not None:
            self.lines.append(line)
        return code

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(TIMEOUT_SECONDS)
        self._reader.join(TIMEOUT_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()
