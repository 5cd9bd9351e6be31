"""Windows of subject and baseline in turn (A B A B), medians, and tables of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from benchmarks.processes import Cpu, settle

_WARM_SECONDS = 0.5
_COLUMNS = ("per s", "p50 ms", "p99 ms", "Python µs", "Node µs", "failed", "ratio")


@attrs.define(eq=False)
class Subject:
    """Something that is measured in windows.

    :param run: runs it for so many seconds. :returns: figures of the load generator.
    :param cpu: CPU time of its server so far.
    :param against: name of the subject that its throughput is compared with.
    """

    name: str
    run: Callable[[float], dict[str, Any]]
    cpu: Callable[[], Cpu]
    against: str | None = None
    windows: list[dict[str, Any]] = attrs.field(factory=list)

    def median(self, key: str) -> float:
        """The median of a figure over all windows."""
        return statistics.median(window[key] for window in self.windows)

    def total(self, key: str) -> int:
        """The sum of a figure over all windows."""
        return sum(window[key] for window in self.windows)

    @property
    def failure(self) -> str:
        """The text of a failed call, if there was one."""
        return next((window["failure"] for window in self.windows if window["failure"]), "")


def measure(subjects: Sequence[Subject], seconds: float, rounds: int = 3) -> dict[str, Subject]:
    """Measure *subjects* in turn, *rounds* windows each, within about *seconds* together."""
    length = max(seconds / (rounds * len(subjects)), 0.3)
    for subject in subjects:
        subject.run(min(_WARM_SECONDS, length))
    for _ in range(rounds):
        for subject in subjects:
            settle()
            before = subject.cpu()
            window = subject.run(length)
            used = subject.cpu() - before
            count = max(window["count"], 1)
            subject.windows.append(
                {**window, "python_us": used.python / count * 1e6, "node_us": used.node / count * 1e6}
            )
    return {subject.name: subject for subject in subjects}


def row(label: str, *cells: str) -> None:
    """One line of a table."""
    print(f"  {label:<44}" + "".join(f"{cell:>11}" for cell in cells), flush=True)


def heading(title: str, *columns: str) -> None:
    """The head of a table."""
    print(f"\n{title}", flush=True)
    if columns:
        row("", *columns)


def table(title: str, subjects: dict[str, Subject]) -> None:
    """A table of measured subjects."""
    heading(title, *_COLUMNS)
    for subject in subjects.values():
        ratio = ""
        if subject.against is not None:
            ratio = f"{subject.median('rate') / subjects[subject.against].median('rate'):.2f}x"
        row(
            subject.name,
            f"{subject.median('rate'):.0f}",
            f"{subject.median('p50_ms'):.2f}",
            f"{subject.median('p99_ms'):.2f}",
            f"{subject.median('python_us'):.0f}",
            f"{subject.median('node_us'):.0f}",
            str(subject.total("failed")),
            ratio,
        )
    for subject in subjects.values():
        if subject.failure:
            print(f"    {subject.name}: {subject.failure}")


def target(text: str, met: bool) -> None:
    """A line that says whether a target is reached; nothing depends on it."""
    print(f"  {'reached' if met else 'MISSED '}  {text}", flush=True)
