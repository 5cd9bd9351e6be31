"""How scheduled functions and cron jobs are run. Source of the defaults: ``runtime.md`` section 9.4."""

from __future__ import annotations

import attrs

from convex_backend.errors import ConvexError, OccConflict


@attrs.frozen(slots=True)
class Backoff:
    """How long to wait after the n-th failure: twice as long each time, between two bounds, and a random part of that."""

    first_seconds: float
    most_seconds: float

    def seconds(self, failures: int, random: float) -> float:
        """:param failures: those before this one. :param random: from 0 to 1."""
        full = self.first_seconds * 2.0 ** min(failures, 60)
        return max(self.first_seconds, min(full, self.most_seconds) * (0.5 + random / 2))


@attrs.frozen(slots=True)
class SchedulerOptions:
    """How scheduled functions are run.

    :param parallelism: of scheduled functions at once, and of cron jobs.
    :param backoff: after a failure of ours. :param conflict_backoff: after a mutation that kept conflicting with others.
    :param keep_seconds: a job that has ended is kept so long.
    :param cleanup_seconds: between two turns of the clean-up.
    """

    parallelism: int = 8
    backoff: Backoff = Backoff(0.5, 7200.0)
    conflict_backoff: Backoff = Backoff(0.1, 60.0)
    keep_seconds: float = 7 * 86_400.0
    cleanup_seconds: float = 60.0

    def seconds_after(self, error: ConvexError, failures: int, random: float) -> float:
        """How long to wait after *error*; see :meth:`Backoff.seconds`."""
        backoff = self.conflict_backoff if isinstance(error, OccConflict) else self.backoff
        return backoff.seconds(failures, random)
