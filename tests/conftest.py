"""What every test may rely on: nothing is left behind, and no setting of the developer's shell changes a result."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from convex_backend.service.configuration import OPTIONS

_REAP_SECONDS = 5.0


def _children() -> set[int]:
    """Process ids of the direct children of this process; an empty set where the kernel does not tell (macOS)."""
    found: set[int] = set()
    for task in Path("/proc/self/task").glob("*/children"):
        try:
            found.update(int(pid) for pid in task.read_text().split())
        except OSError:
            # The thread has just ended.
            continue
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "?"


@pytest.fixture(scope="session", autouse=True)
def _no_children_left() -> Iterator[None]:
    """The run fails when a test has left a child process: a server or runner that nobody stops."""
    before = _children()
    yield
    deadline = time.monotonic() + _REAP_SECONDS
    while left := {pid for pid in _children() - before if _command(pid)}:
        if time.monotonic() > deadline:
            pytest.fail("child processes left: " + "; ".join(f"{pid} {_command(pid)}" for pid in sorted(left)))
        time.sleep(0.05)


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_the_shell() -> None:
    """Variables that configure a server or the CLI are those that a test sets."""
    names = {option.environment for option in OPTIONS if option.environment}
    for name in list(os.environ):
        if name in names or name.startswith("CONVEX_"):
            del os.environ[name]
