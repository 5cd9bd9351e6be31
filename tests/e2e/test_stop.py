"""Start, stop and what a person at the keyboard sees (issue: graceful shutdown; ``house.md`` section 3e)."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.e2e.harness import Server, convex, make_app, running

SLOW = """
import { v } from "convex/values";
import { action } from "./_generated/server";
export const wait = action({ args: { ms: v.number() }, handler: async (_ctx, { ms }) => {
  await new Promise((resolve) => setTimeout(resolve, ms));
  return "waited";
} });
"""


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with an action that takes its time; each test stops it and starts it again."""
    app = make_app(tmp_path_factory.mktemp("apps"))
    (app / "convex" / "slow.ts").write_text(SLOW)
    with running(tmp_path_factory.mktemp("server")) as server:
        convex(app, server, "dev", "--once", "--typecheck", "disable")
        yield server


def _call(server: Server, milliseconds: int) -> tuple[threading.Thread, list[Any]]:
    """Call the slow action in a thread. :returns: the thread, and a list that gets its answer or its error."""
    answers: list[Any] = []

    def call() -> None:
        try:
            answers.append(server.call("action", "slow:wait", {"ms": milliseconds}))
        except (OSError, AssertionError) as error:
            answers.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    return thread, answers


def test_sigterm_finishes_requests_and_leaves_no_process(slow: Server) -> None:
    """SIGTERM stops listening, lets a running action finish, ends every child, checkpoints, and exits by the signal."""
    slow.value("mutation", "channels:create", {"name": "x"})
    caller, answers = _call(slow, 1500)
    time.sleep(0.5)
    assert slow.process is not None
    children = psutil.Process(slow.process.pid).children(recursive=True)
    assert children
    code = slow.stop(signal.SIGTERM)
    caller.join(10)
    assert code == -signal.SIGTERM
    assert answers[0]["value"] == "waited"
    _, alive = psutil.wait_procs(children, timeout=3)
    assert not alive
    wal = slow.folder / "convex_local_backend.sqlite3-wal"
    assert not wal.exists() or wal.stat().st_size == 0
    slow.start()


def test_sigterm_to_the_whole_group_finishes_requests(slow: Server) -> None:
    """``timeout`` and systemd send SIGTERM to the JavaScript processes too: they finish what runs, and end with the server."""
    caller, answers = _call(slow, 1500)
    time.sleep(0.5)
    assert slow.process is not None
    children = psutil.Process(slow.process.pid).children(recursive=True)
    os.killpg(slow.process.pid, signal.SIGTERM)
    code = slow.process.wait(25)
    caller.join(10)
    assert code == -signal.SIGTERM
    assert answers[0]["value"] == "waited"
    _, alive = psutil.wait_procs(children, timeout=3)
    assert not alive
    slow.start()


def test_a_second_signal_ends_at_once(slow: Server) -> None:
    """A second SIGINT does not wait for the requests under way."""
    caller, answers = _call(slow, 15000)
    time.sleep(0.5)
    assert slow.process is not None
    begun = time.monotonic()
    slow.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert slow.process.poll() is None
    slow.process.send_signal(signal.SIGINT)
    slow.process.wait(5)
    assert time.monotonic() - begun < 5
    caller.join(10)
    assert isinstance(answers[0], Exception)
    slow.start()
