"""What an administrator may do to scheduled functions and to the deployment's running: cancel, delete, pause, resume.

Source: ``http_api.md`` sections 7 and 12, ``runtime.md`` sections 9.4 and 9.5a.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from convex_backend.application import deployment_state
from convex_backend.application.operations import check_operation
from convex_backend.application.scheduling import JobFilter
from convex_backend.application.system_functions.registry import component_of_id, component_of_path
from convex_backend.application.types import Identity
from convex_backend.values.paths import FunctionPath, parse_component_path

if TYPE_CHECKING:
    from convex_backend.application.services import Services


@attrs.frozen(slots=True)
class WantedJobs:
    """Which jobs a request means.

    :param component_id: document id of a component. :param component_path: its path, if there is no id; without either the app.
    :param path: text of a function's path, ``None`` for all.
    :param start_ns: due then or later. :param end_ns: due before then.
    """

    component_id: str | None = None
    component_path: str | None = None
    path: str | None = None
    start_ns: int | None = None
    end_ns: int | None = None


class JobAdmin:
    """See the top of the file. Every method checks what the key of *identity* allows."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def _component(self, id: str | None, path: str | None = None) -> int:
        """:raises BadRequest: there is no such component."""
        transaction = self._services.database.begin("query")
        try:
            if id is not None:
                return await component_of_id(transaction, id)
            return await component_of_path(transaction, parse_component_path(path))
        finally:
            transaction.close()

    async def cancel(self, job: str, component_id: str | None, identity: Identity) -> None:
        """Cancel one job; one that has ended is left alone.

        :raises BadRequest: there is no such job or component. :raises Forbidden: the key does not allow it.
        """
        check_operation(identity, "WriteData")
        await self._services.jobs.cancel_by_admin(await self._component(component_id), job)

    async def cancel_all(self, wanted: WantedJobs, identity: Identity) -> int:
        """Cancel all pending and running jobs that are meant. :returns: how many.

        :raises BadRequest: there is no such component, or the path is malformed. :raises Forbidden: the key does not allow it.
        """
        check_operation(identity, "WriteData")
        component = await self._component(wanted.component_id, wanted.component_path)
        path = None if wanted.path is None else FunctionPath.parse(wanted.path)
        return await self._services.jobs.cancel_all(JobFilter(component, path, wanted.start_ns, wanted.end_ns))

    async def delete_all(self, component_id: str | None, identity: Identity) -> None:
        """Delete all jobs of a component, whatever their state.

        :raises BadRequest: there is no such component. :raises Forbidden: the key does not allow it.
        """
        check_operation(identity, "WriteData")
        await self._services.jobs.delete_all(await self._component(component_id))

    async def pause(self, identity: Identity) -> None:
        """Refuse users' functions from here on. :raises Forbidden: the key does not allow it."""
        check_operation(identity, "PauseDeployment")
        await deployment_state.pause(self._services.database)

    async def resume(self, identity: Identity) -> None:
        """Let functions run again.

        :raises BadRequest: ``UnpauseDeploymentFailed``: it was not paused. :raises Forbidden: the key does not allow it.
        """
        check_operation(identity, "UnpauseDeployment")
        await deployment_state.resume(self._services.database)
