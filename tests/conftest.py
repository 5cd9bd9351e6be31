"""What every test may rely on: nothing is left behind, and no setting of the developer's shell changes a result."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import psutil
import pytest

from convex_backend.service.configuration import OPTIONS

_REAP_SECONDS = 5.0


def _children() -> dict[int, str]:
    """Process id and command of each child of this process that has not ended."""
    found = {}
    for child in psutil.Process().children():
        try:
            if child.status() != psutil.STATUS_ZOMBIE:
                found[child.pid] = " ".join(child.cmdline())
        except psutil.NoSuchProcess:
            # It has ended just now.
            continue
    return found


@pytest.fixture(scope="session", autouse=True)
def _no_children_left() -> Iterator[None]:
    """The run fails when a test has left a child process: a server or runner that nobody stops."""
    before = _children()
    yield
    deadline = time.monotonic() + _REAP_SECONDS
    while left := {pid: command for pid, command in _children().items() if pid not in before}:
        if time.monotonic() > deadline:
            pytest.fail("child processes left: " + "; ".join(f"{pid} {command}" for pid, command in left.items()))
        time.sleep(0.05)


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_the_shell() -> None:
    """Variables that configure a server or the CLI are those that a test sets."""
    names = {option.environment for option in OPTIONS if option.environment}
    for name in list(os.environ):
        if name in names or name.startswith("CONVEX_"):
            del os.environ[name]
