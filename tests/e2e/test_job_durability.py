"""``kill -9`` while scheduled functions run: each mutation is applied exactly once, each action at most once."""

from __future__ import annotations

import time
import urllib.error
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Server, convex, make_app

JOBS = 500
EVERY_NTH_IS_ACTION = 5
SPREAD_MS = 12_000
TRANSIENT = "Transient error while executing action"


def _read_all(server: Server) -> tuple[list[Any], list[Any]]:
    """The documents of the jobs that were planned, and what they have applied."""
    jobs = [one for one in server.value("query", "jobs:scheduled") if one["name"] in ("jobs.js:apply", "jobs.js:act")]
    return jobs, server.value("query", "jobs:applied")


@pytest.mark.slow
def test_five_hundred_jobs_and_kills(tmp_path: Path) -> None:
    """Over 500 jobs, a fifth of them actions, the server is killed about every second: no mutation is lost or doubled, no action runs twice,
    and those that a kill cut off say so."""
    app = make_app(tmp_path, "jobs")
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server")
    server.start()
    try:
        convex(app, server, "deploy", "-y", "--typecheck", "disable")
        plan = {"count": JOBS / 10, "everyNthIsAction": EVERY_NTH_IS_ACTION, "spreadMs": SPREAD_MS}
        for part in range(10):
            server.value("mutation", "jobs:plan", {**plan, "from": part * JOBS / 10})
        kills = 0
        deadline = time.monotonic() + 240
        while True:
            time.sleep(0.4 + (kills % 7) * 0.15)
            server.kill()
            server.start()
            kills += 1
            try:
                jobs, _ = _read_all(server)
            except (OSError, urllib.error.URLError):
                continue
            if all(job["state"]["kind"] not in ("pending", "inProgress") for job in jobs) and kills >= 8:
                break
            assert time.monotonic() < deadline, Counter(job["state"]["kind"] for job in jobs)
        jobs, applied = _read_all(server)
        assert len(jobs) == JOBS
        times = Counter((one["kind"], int(one["key"])) for one in applied)
        cut_off = 0
        for job in jobs:
            key = int(job["args"][0]["key"])
            state = job["state"]
            if key % EVERY_NTH_IS_ACTION:
                assert state == {"kind": "success"}, (key, state)
                assert times["mutation", key] == 1, f"mutation {key} was applied {times['mutation', key]} times"
            elif state == {"kind": "success"}:
                assert times["action", key] == 1, f"action {key} ran {times['action', key]} times"
            else:
                assert state == {"kind": "failed", "error": TRANSIENT}, (key, state)
                assert times["action", key] <= 1, f"action {key} ran {times['action', key]} times"
                cut_off += 1
        assert sum(times.values()) <= JOBS
        print(f"{kills} kills, {cut_off} actions cut off")
    finally:
        if server.process is not None:
            server.process.kill()


@pytest.mark.slow
def test_a_stop_cuts_long_actions_off(tmp_path: Path) -> None:
    """A stop waits a little for running jobs: a short action ends well, a long one is failed at the next start, and what is not due yet runs then."""
    app = make_app(tmp_path, "jobs")
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server")
    server.start()
    try:
        convex(app, server, "deploy", "-y", "--typecheck", "disable")
        server.value("mutation", "jobs:scheduleSleep", {"ms": 1})
        short = server.value("mutation", "jobs:scheduleSleep", {"ms": 2500})
        long = server.value("mutation", "jobs:scheduleSleep", {"ms": 120_000})
        later = server.value("mutation", "jobs:later", {"ms": 12_000, "text": "after the stop"})

        def state(job: str) -> Any:
            return server.value("query", "jobs:get", {"id": job})["state"]

        deadline = time.monotonic() + 10
        while state(short)["kind"] != "inProgress" or state(long)["kind"] != "inProgress":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        began = time.monotonic()
        assert server.stop() in (0, -15, 143)
        assert time.monotonic() - began < 15
        server.start()
        while state(later)["kind"] == "pending":
            assert time.monotonic() < began + 60
            time.sleep(0.1)
        assert state(short) == {"kind": "success"}
        assert state(long) == {"kind": "failed", "error": TRANSIENT}
        assert state(later) == {"kind": "success"}
    finally:
        if server.process is not None:
            server.process.kill()
