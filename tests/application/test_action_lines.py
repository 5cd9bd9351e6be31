"""Console lines of actions in the function log: there while the action runs, each once (``runtime.md`` 7.3)."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import Deferred

from convex_backend.application.run_action import run_action
from convex_backend.application.types import Identity
from convex_backend.functions.log_lines import OVERFLOW_TEXT
from convex_backend.interfaces import LogLine
from tests.application.support import CALLER, World
from tests.database.documents import run


def line(text: str) -> LogLine:
    return LogLine((text,), "LOG", 1.0)


def shown(world: World) -> list[tuple[str, list[str]]]:
    """Kind and lines of each entry so far."""
    entries, _ = run(world.log.read(0.0, 0.0, structured=False))
    return [(entry["kind"], entry["logLines"]) for entry in entries]


def start(world: World, script: Any) -> Deferred[Any]:
    world.define("a:act", "action", script)
    return Deferred.fromCoroutine(run_action(world, "a:act", b"{}", Identity("anonymous"), CALLER))  # type: ignore[arg-type]


def test_lines_are_there_while_the_action_runs() -> None:
    """A reader sees each line when it is printed; the end adds none of them again."""
    world = World()

    async def script(function: Any, args: Any) -> None:
        function.host.log([line("one"), line("two")])
        await function.pause()
        function.host.log([line("three")])

    play = world.pool.play

    async def with_lines(spec: Any, host: Any) -> Any:
        # What a real child's outcome holds: what was streamed, and the warnings.
        warning = LogLine(("slow",), "WARN", 1.0, code="warning:X")
        return attrs.evolve(await play(spec, host), log_lines=(line("one"), line("two"), line("three"), warning))

    world.pool.play = with_lines  # type: ignore[method-assign]
    running = start(world, script)
    assert shown(world) == [("Progress", ["[LOG] one", "[LOG] two"])]
    world.go_on()
    assert shown(world) == [
        ("Progress", ["[LOG] one", "[LOG] two"]),
        ("Progress", ["[LOG] three"]),
        ("Progress", ["[WARN] slow"]),
        ("Completion", []),
    ]
    assert running.called


def test_the_overflow_is_told_once_while_it_runs() -> None:
    """The 256th line says that the rest is left out, whatever pieces the lines come in."""
    world = World()

    async def script(function: Any, args: Any) -> None:
        for start in range(0, 270, 9):
            function.host.log([line(str(number)) for number in range(start, start + 9)])

    start(world, script)
    lines = [one for kind, some in shown(world) if kind == "Progress" for one in some]
    assert lines == [*(f"[LOG] {number}" for number in range(255)), f"[ERROR] {OVERFLOW_TEXT}"]


def test_an_action_without_lines_makes_one_entry() -> None:
    """Nothing but its completion."""
    world = World()

    async def script(function: Any, args: Any) -> int:
        return 1

    start(world, script)
    assert shown(world) == [("Completion", [])]
