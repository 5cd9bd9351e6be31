"""Memory of a child under load and at rest."""

from __future__ import annotations

import time

from tests.runner.harness import Child
from tests.runner.samples import HEAD, REGISTER

FUNCTIONS = (
    HEAD
    + """
export const some = query(() => { globalThis.kept = Array.from({ length: 2000 }, (_, i) => ({ i, text: "x" + i })); return kept.length; });
export const globals = query(() => [typeof gc, Object.getOwnPropertyNames(globalThis).includes("gc")]);
"""
)


def resident_megabytes(child: Child) -> float:
    """Resident memory of the child."""
    with open(f"/proc/{child.process.pid}/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6


def test_contexts_do_not_pile_up_and_an_idle_child_is_small() -> None:
    """Memory stays bounded over many runs, and two seconds after the last one the child has given most of it back."""
    with Child() as child:
        child.add_module("register.js", REGISTER)
        child.add_module("m.js", FUNCTIONS)
        most = 0.0
        for _ in range(40):
            calls = [child.start("query", "m.js", "some") for _ in range(10)]
            finished = {child.receive()[1] for _ in calls}
            assert finished == set(calls)
            most = max(most, resident_megabytes(child))
        assert most < 180
        until = time.monotonic() + 10
        while resident_megabytes(child) > 90 and time.monotonic() < until:
            time.sleep(0.25)
        assert resident_megabytes(child) <= 90
        assert child.run("query", "m.js", "some").value == 2000
    assert child.stderr == ""


def test_no_context_has_the_collection_function() -> None:
    """The function that collects garbage is the host's: neither contexts built ahead nor later ones have it as a global."""
    with Child() as child:
        child.add_module("register.js", REGISTER)
        child.add_module("m.js", FUNCTIONS)
        for _ in range(20):
            assert child.run("query", "m.js", "globals").value == ["undefined", False]
