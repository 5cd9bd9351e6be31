"""Start, stop and what a person at the keyboard sees (issue: graceful shutdown; ``house.md`` section 3e)."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.harness import Server, convex, make_app, running


def _slow_call(server: Server, answers: list[Any]) -> None:
    answers.append(server.call("action", "slow:wait", {"ms": 1500}))


def test_sigterm_finishes_requests_and_leaves_no_process(tmp_path: Path) -> None:
    """SIGTERM stops listening, lets a running action finish, ends every child and exits with 143."""
    app = make_app(tmp_path)
    (app / "convex" / "slow.ts").write_text(
        "import { v } from 'convex/values';\nimport { action } from './_generated/server';\n"
        "export const wait = action({ args: { ms: v.number() }, handler: async (_ctx, { ms }) => {\n"
        "  await new Promise((r) => setTimeout(r, ms));\n  return 'waited';\n} });\n"
    )
    (tmp_path / "server").mkdir()
    with running(tmp_path / "server") as server:
        convex(app, server, "dev", "--once", "--typecheck", "disable")
        server.value("mutation", "channels:create", {"name": "x"})
        answers: list[Any] = []
        caller = threading.Thread(target=_slow_call, args=(server, answers))
        caller.start()
        time.sleep(0.7)
        assert server.process is not None
        children = psutil.Process(server.process.pid).children(recursive=True)
        assert children
        code = server.stop(signal.SIGTERM)
        caller.join(10)
        assert code in (143, -signal.SIGTERM)
        assert answers[0]["value"] == "waited"
        _, alive = psutil.wait_procs(children, timeout=3)
        assert not alive
        wal = tmp_path / "server" / "convex_local_backend.sqlite3-wal"
        assert not wal.exists() or wal.stat().st_size == 0


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    """A second SIGINT does not wait for the requests under way."""
    app = make_app(tmp_path)
    (app / "convex" / "slow.ts").write_text(
        "import { action } from './_generated/server';\n"
        "export const wait = action({ handler: async () => { await new Promise((r) => setTimeout(r, 15000)); } });\n"
    )
    (tmp_path / "server").mkdir()
    with running(tmp_path / "server") as server:
        convex(app, server, "dev", "--once", "--typecheck", "disable")

        def call() -> None:
            try:
                server.call("action", "slow:wait", {})
            except (OSError, AssertionError):
                return

        caller = threading.Thread(target=call)
        caller.start()
        time.sleep(0.7)
        assert server.process is not None
        begun = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGINT)
        server.process.wait(5)
        assert time.monotonic() - begun < 5
        caller.join(10)
