"""Whether functions run: a deployment can be paused, and resumed.

One row of ``_backend_state``. What it says is decided for every call anew and is part of what a query reads, so that live queries deliver the
error, and recover, by themselves. Source: ``runtime.md`` section 9.5a, ``http_api.md`` section 12.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from convex_backend.application.system_commit import system_commit
from convex_backend.database.backend_state import read_state, write_state
from convex_backend.database.system_tables import BACKEND_STATE
from convex_backend.errors import BadRequest
from convex_backend.functions.outcome import FunctionFailed
from convex_backend.interfaces import FunctionError
from convex_backend.values.json_codec import loads
from convex_backend.values.sort_key import encode_key

if TYPE_CHECKING:
    from convex_backend.database.committer import CommitEvent
    from convex_backend.database.database import Database
    from convex_backend.database.transaction import Transaction

PAUSED_TEXT: Final = (
    "Cannot run functions while this deployment is paused. Resume the deployment in the dashboard settings to allow "
    "functions to run."
)
_KEY: Final = "deployment_state"
_POINT: Final = (BACKEND_STATE.index("by_key").id, encode_key((_KEY,)))
_WRITER: Final = "deployment state"


class DeploymentState:
    """The state as the newest durable commit has it: running, until :meth:`follow` has found something else.

    :ivar paused: whether functions are refused.
    :ivar on_resume: called when a paused deployment goes on.
    """

    def __init__(self) -> None:
        self.paused = False
        self.on_resume: list[Callable[[], None]] = []

    async def follow(self, database: Database) -> None:
        """Read the state and keep up with it from here on. The database has been started."""
        transaction = database.begin("query")
        try:
            self.paused = await is_paused(transaction)
        finally:
            transaction.close()
        # Before whoever runs queries again: they ask this object.
        database.committer.on_durable.insert(0, self._on_durable)

    def check(self, transaction: Any) -> None:
        """Whether a user's function may run.

        :param transaction: the answer is recorded as read there, if there is one.
        :raises FunctionFailed: the deployment is paused.
        """
        if transaction is not None:
            transaction.add_system_point(*_POINT)
        if self.paused:
            raise FunctionFailed(FunctionError(PAUSED_TEXT))

    def check_files(self) -> None:
        """:raises BadRequest: files are neither taken nor given while the deployment is paused."""
        if self.paused:
            raise BadRequest("BackendIsNotRunning", "Cannot perform this operation when the backend is not running")

    def _on_durable(self, events: list[CommitEvent]) -> None:
        was_paused = self.paused
        for event in events:
            for change in event.changes:
                if change.tablet == BACKEND_STATE.tablet and change.new_json is not None:
                    row: Any = loads(change.new_json)
                    if row["key"] == _KEY:
                        self.paused = row["state"] == "paused"
        if was_paused and not self.paused:
            for listener in self.on_resume:
                listener()


async def is_paused(transaction: Transaction) -> bool:
    """What the transaction's snapshot says."""
    row = await read_state(transaction, _KEY)
    return row is not None and row["state"] == "paused"


async def pause(database: Database) -> None:
    """Refuse users' functions from here on. A paused deployment stays so. Cancelling drops the answer only."""
    await system_commit(database, _WRITER, lambda transaction: write_state(transaction, _KEY, state="paused"))


async def resume(database: Database) -> None:
    """Let functions run again.

    :raises BadRequest: ``UnpauseDeploymentFailed``: it was not paused. Cancelling drops the answer only.
    """

    async def work(transaction: Transaction) -> None:
        if not await is_paused(transaction):
            raise BadRequest("UnpauseDeploymentFailed", "Deployment is not currently paused.")
        await write_state(transaction, _KEY, state="running")

    await system_commit(database, _WRITER, work)
