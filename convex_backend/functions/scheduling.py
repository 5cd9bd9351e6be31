"""What layer 3 asks of the scheduler: jobs of functions, added and cancelled. Implemented in ``application/scheduling.py``.

Source: ``runtime.md`` section 9.4.
"""

from __future__ import annotations

from typing import Any, Protocol

import attrs

from convex_backend.functions.addresses import Address


@attrs.frozen(slots=True)
class JobRequest:
    """A function that is to run later.

    :param component: internal id of the component whose function schedules; the job's document belongs to it.
    :param target: what shall run.
    :param args: JSON text of the array of arguments, decoded and found to be values.
    :param due_ns: unix nanoseconds; may be past.
    :param parent: id of the scheduled function that this call is part of, if it is part of one.
    """

    component: int
    target: Address
    args: bytes
    due_ns: int
    parent: str | None


class Scheduling(Protocol):
    """Jobs as syscalls see them."""

    async def schedule(self, transaction: Any, request: JobRequest) -> str:
        """Add a job: with the mutation's *transaction* it exists when that commits, with ``None`` it exists when this returns.

        A job whose parent is an action that has been cancelled is cancelled from the start.

        :returns: the id of its ``_scheduled_functions`` document.
        :raises BadRequest: there is no such function.
        """

    async def cancel(self, transaction: Any, component: int, id: str) -> bool:
        """Cancel a job of *component*; one that has ended, or does not exist, is left alone.

        :param transaction: likewise.
        :returns: whether it is the running mutation itself, which then ends as ``canceled`` although its writes are committed.
        :raises BadRequest: that is refused to functions of npm 1.50 and later.
        """
