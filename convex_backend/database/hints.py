"""Which documents a mutation is likely to read: those whose ids its arguments name, as far as its function has read them in earlier runs.

Only ever a hint: for lanes (A6), for how many mutations are begun at once, and for documents that are sent to the child before it asks
(``docs/internals.md`` section 8).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from typing import Final, NamedTuple

from convex_backend.database.catalog import Catalog
from convex_backend.database.reads import Point, ReadSet
from convex_backend.values.ids import decode_id
from convex_backend.values.kinds import InvalidValue

_ID_TEXT: Final = re.compile(rb'"([0-9a-z]{31,37})"')
_HINT_BYTES: Final = 4096
_MAX_NAMED: Final = 32
_MAX_FUNCTIONS: Final = 2048
_WEIGHT: Final = 0.125
_STRICT_RUNS: Final = 500


class NamedDocument(NamedTuple):
    """A document that arguments name: its id's text, table number and internal id."""

    text: str
    number: int
    id: bytes


def named_documents(text: bytes) -> list[NamedDocument]:
    """The documents whose ids occur in the start of *text*, JSON of arguments.

    :returns: at most 32, in order of appearance.
    """
    found: list[NamedDocument] = []
    for match in islice(_ID_TEXT.finditer(text, 0, _HINT_BYTES), _MAX_NAMED):
        document_id = match[1].decode()
        try:
            found.append(NamedDocument(document_id, *decode_id(document_id)))
        except InvalidValue:
            continue
    return found


def points_of(named: Sequence[NamedDocument], catalog: Catalog, component: int) -> list[Point]:
    """Point reads of the ``by_id`` indexes of *named*; those of no table are left out."""
    points: list[Point] = []
    for document in named:
        table = catalog.by_number.get((component, document.number))
        if table is not None:
            points.append((-table.tablet, document.id))
    return points


class _Habits:
    """What one function's runs did. ``read[n]``: how often, of late, it has read the nth document that its arguments name."""

    __slots__ = ("read", "strict_runs")

    def __init__(self) -> None:
        self.read: list[float] = []
        self.strict_runs = 0


class FunctionHabits:
    """Remembers of functions what their arguments tell. A function that was never seen is taken to read whatever its arguments name."""

    def __init__(self) -> None:
        self._functions: dict[str, _Habits] = {}

    def likely(self, function: str, named: Sequence[NamedDocument]) -> Sequence[NamedDocument]:
        """Those of *named* that a run of *function* is likely to read."""
        habits = self._functions.get(function)
        if habits is None or not named:
            return named
        read = habits.read
        known = len(read)
        return [document for place, document in enumerate(named) if place >= known or read[place] >= 0.5]

    def learn(
        self, function: str, named: Sequence[NamedDocument], reads: ReadSet, catalog: Catalog, component: int
    ) -> None:
        """A run of *function*, whose arguments named *named*, has read *reads*."""
        if not named:
            return
        read = self._of(function).read
        points = reads.points
        for place, document in enumerate(named):
            table = catalog.by_number.get((component, document.number))
            was_read = table is not None and (-table.tablet, document.id) in points
            if place >= len(read):
                read.append(1.0 if was_read else 0.5)
            else:
                read[place] += (was_read - read[place]) * _WEIGHT

    def refused(self, function: str) -> None:
        """A write of *function* was answered before it was carried out, and then refused: for a while none shall be."""
        self._of(function).strict_runs = _STRICT_RUNS

    def is_strict(self, function: str) -> bool:
        """Whether all operations of the run of *function* that begins now shall be carried out before they are answered."""
        habits = self._functions.get(function)
        if habits is None or not habits.strict_runs:
            return False
        habits.strict_runs -= 1
        return True

    def _of(self, function: str) -> _Habits:
        habits = self._functions.get(function)
        if habits is None:
            if len(self._functions) >= _MAX_FUNCTIONS:
                del self._functions[next(iter(self._functions))]
            habits = self._functions[function] = _Habits()
        return habits
