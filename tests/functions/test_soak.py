"""Memory stays flat over many mixed calls with errors, timeouts and kills."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import pytest_twisted

from tests.functions.live_world import live_world
from tests.functions.soak import Soak
from tests.functions.test_real_child import DIST

pytestmark = [
    pytest.mark.skipif(not (DIST / "main.mjs").exists(), reason="the runner is not built: node build.mjs"),
    pytest.mark.slow,
]

CALLS = int(os.environ.get("SOAK_CALLS", "200000"))
MAX_PYTHON_SLOPE = 0.3
"""Megabytes per 10,000 calls over the second half. A leak of 30 bytes a call would be more."""
MAX_CHILD_SLOPE = 3.0


@pytest_twisted.ensureDeferred
async def test_memory_stays_flat(tmp_path: Path) -> None:
    """Every call ends as it must, no increment is lost or doubled, and neither this process nor the largest child keeps growing.

    The number of calls is in ``SOAK_CALLS``; the slope is judged from 40,000 on. SQLite's page caches (96 MiB), the write log (300 s) and the
    function log (10,000 entries) have small bounds here: with the usual ones they fill for longer than any test lasts.
    """
    from twisted.internet import reactor

    async with live_world(tmp_path, reactor, small=True) as world:
        soak = Soak(world, CALLS, samples=40)
        await soak.run()
        assert soak.ended == CALLS
        assert soak.done["fail"] > 0
        assert max(max(sample.children) for sample in soak.samples) < 512
        if CALLS >= 40_000:
            assert soak.done["spin"] > 0
            python, child = soak.slopes()
            assert python < MAX_PYTHON_SLOPE, soak.samples
            assert child < MAX_CHILD_SLOPE, soak.samples
