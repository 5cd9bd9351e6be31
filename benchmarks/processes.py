"""Children of a benchmark, and what the kernel says about them (``/proc``)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

ROOT = Path(__file__).resolve().parents[1]
_TICKS = os.sysconf("SC_CLK_TCK")


@attrs.frozen
class Cpu:
    """CPU seconds used so far, by the server's Python process and by its Node children."""

    python: float
    node: float

    def __sub__(self, other: Cpu) -> Cpu:
        return Cpu(self.python - other.python, self.node - other.node)


def descendants(pid: int) -> list[int]:
    """All children of a process and theirs."""
    found = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
        for task in tasks:
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                found += [int(child), *descendants(int(child))]
    except OSError:
        return found
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, 0 for one that is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    fields = text[text.rindex(")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def reaped_seconds(pid: int) -> float:
    """User and system time of the children of a process that have ended, and of theirs."""
    text = Path(f"/proc/{pid}/stat").read_text()
    fields = text[text.rindex(")") + 2 :].split()
    return (int(fields[13]) + int(fields[14])) / _TICKS


def cpu_of(pid: int) -> Cpu:
    """What a server used so far."""
    return Cpu(cpu_seconds(pid), sum(cpu_seconds(child) for child in descendants(pid)))


def memory(pid: int) -> tuple[int, int]:
    """:returns: resident and proportional set size of a process in KB."""
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split()[:2]
        fields[name] = int(value)
    return fields["Rss:"], fields["Pss:"]


def command_of(pid: int) -> str:
    """The command line of a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@contextmanager
def baseline(module: str) -> Iterator[tuple[int, int]]:
    """A child of ``benchmarks/baselines``. :returns: its process id and its port."""
    command = [sys.executable, "-m", f"benchmarks.baselines.{module}"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, env=_environment(), cwd=ROOT)
    try:
        assert child.stdout is not None
        yield child.pid, int(child.stdout.readline())
    finally:
        child.kill()
        child.wait(10)
        if child.stdout is not None:
            child.stdout.close()


class LoadGenerator:
    """A ``loadgen`` child. Its commands are methods' arguments; see there.

    :param folder: where files for it are written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = 0
        command = [sys.executable, "-m", "benchmarks.loadgen"]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment(), cwd=ROOT
        )

    def file(self, texts: list[str]) -> str:
        """*texts*, each without a line end, in a file."""
        self._files += 1
        path = self._folder / f"texts-{os.getpid()}-{self._files}"
        path.write_text("".join(text + "\n" for text in texts))
        return str(path)

    def __call__(self, do: str, **arguments: Any) -> Any:
        """Carry out a command. :raises RuntimeError: it failed."""
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError("the load generator has ended")
        result = json.loads(line)
        if isinstance(result, dict) and "error" in result:
            raise RuntimeError(f"{do}: {result['error']}")
        return result

    def stop(self) -> None:
        """End the child."""
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.close()
        try:
            self._child.wait(10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait(10)
        self._child.stdout.close()


@contextmanager
def load_generator(folder: Path) -> Iterator[LoadGenerator]:
    """A running load generator."""
    generator = LoadGenerator(folder)
    try:
        yield generator
    finally:
        generator.stop()


def settle(seconds: float = 0.3) -> None:
    """Let what runs after an answer come to its end."""
    time.sleep(seconds)
