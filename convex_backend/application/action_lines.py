"""Console lines of one running action: into the function log as they come, capped over the whole run (``runtime.md`` section 7.3)."""

from __future__ import annotations

from collections.abc import Sequence

from convex_backend.application.function_log import FunctionLog
from convex_backend.functions.log_lines import cap
from convex_backend.interfaces import LogLine


class ActionLines:
    """The lines of one execution.

    :param kind: ``action`` or ``httpAction``.
    :param path: stripped function path, or route; lines are kept back until it is known.
    """

    def __init__(
        self, log: FunctionLog, kind: str, component_path: str, path: str | None, request_id: str, execution_id: str
    ) -> None:
        self._log = log
        self._kind = kind
        self._component_path = component_path
        self._path = path
        self._request_id = request_id
        self._execution_id = execution_id
        self._shown: list[LogLine] = []
        self._kept: list[LogLine] = []

    def named(self, path: str) -> None:
        """The path is known now."""
        self._path = path
        kept, self._kept = self._kept, []
        self._record(kept)

    def running(self, lines: Sequence[LogLine]) -> None:
        """Lines that were printed while it runs."""
        new = cap([*self._shown, *lines])[len(self._shown) :]
        self._shown.extend(new)
        if self._path is None:
            self._kept.extend(new)
        else:
            self._record(new)

    def ended(self, lines: Sequence[LogLine]) -> None:
        """*lines* are all of the run, those that came with its end last."""
        new = lines[len(self._shown) :]
        self._shown.extend(new)
        self._record([*self._kept, *new])
        self._kept = []

    def add(self, line: LogLine) -> None:
        """A line of ours about the run."""
        self._record([line])

    def _record(self, lines: Sequence[LogLine]) -> None:
        if lines and self._path is not None:
            self._log.record_progress(
                kind=self._kind,
                component_path=self._component_path,
                path=self._path,
                log_lines=lines,
                request_id=self._request_id,
                execution_id=self._execution_id,
            )
