"""How old a timestamp is, by a clock that is never set (A10, A11).

Commit timestamps follow the wall clock, which may jump: after a jump ahead and back they creep on nanosecond by nanosecond for as long as
the jump was. What is kept for two days must be kept for two days all the same, and must go after them. So retention notes now and then
which timestamp was the newest, by a count of seconds that only grows (*steady* seconds), and looks up the one that was the newest so long ago.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from convex_backend.database.timestamps import seconds_to_ns

_MARKS_PER_AGE = 48


class AgeMarks:
    """Which timestamp was the newest one *age* ago.

    :param age_seconds: the one age that is asked for. Marks are kept at least a 48th of it apart, so answers are up to that much too old,
        never too young.
    :param marks: (steady seconds, timestamp), ascending in both, as :attr:`rows` gave them before a restart.
    """

    def __init__(self, age_seconds: float, marks: Iterable[tuple[float, int]] = ()) -> None:
        self._age_seconds = age_seconds
        self._gap_seconds = age_seconds / _MARKS_PER_AGE
        self._marks: deque[tuple[float, int]] = deque(marks)

    @classmethod
    def assumed(cls, age_seconds: float, steady_seconds: float, newest_ts: int) -> AgeMarks:
        """Of a file without marks: its timestamps are taken to be a regular past that ends now."""
        gap = age_seconds / _MARKS_PER_AGE
        marks = [(steady_seconds - back * gap, newest_ts - seconds_to_ns(back * gap)) for back in range(49, 0, -1)]
        return cls(age_seconds, [mark for mark in marks if mark[1] > 0])

    @property
    def rows(self) -> list[tuple[float, int]]:
        """The marks, oldest first."""
        return list(self._marks)

    def add(self, steady_seconds: float, newest_ts: int) -> bool:
        """Note that *newest_ts* is the newest timestamp now. :returns: whether it was worth a mark."""
        if self._marks:
            last_seconds, last_ts = self._marks[-1]
            if newest_ts <= last_ts or steady_seconds < last_seconds + self._gap_seconds:
                return False
        self._marks.append((steady_seconds, newest_ts))
        return True

    def at_age(self, steady_seconds: float) -> int:
        """The newest timestamp that is known to have been there one age before *steady_seconds*; 0 when none is."""
        marks, horizon = self._marks, steady_seconds - self._age_seconds
        while len(marks) > 1 and marks[1][0] <= horizon:
            marks.popleft()
        return marks[0][1] if marks and marks[0][0] <= horizon else 0
