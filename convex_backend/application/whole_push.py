"""A push from beginning to end, for those who do not take its steps themselves: simple deploys and rollbacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from convex_backend.errors import BadRequest, Conflict, Overloaded

if TYPE_CHECKING:
    from convex_backend.application.deploy import Deploy
    from convex_backend.application.types import Caller, Identity

#: How often, and for how long at a time, existing rows and new indexes are waited for: less than an HTTP request may take.
_WAITS: Final = 4
_WAIT_MS: Final = 60_000


class SchemaRefused(BadRequest):
    """Rows that are stored do not fit the pushed schema; the text names table and document."""


async def push_whole(
    deploy: Deploy, tree: Mapping[str, Any], identity: Identity, caller: Caller, message: str | None
) -> dict[str, Any]:
    """Start a push, wait until its schema has been checked and its indexes are built, and finish it.

    :param tree: as for ``start_push`` (``push.md`` section 4). :param message: for the history.
    :returns: the answer of ``finish_push``.
    :raises SchemaRefused: stored rows do not fit; what was deployed still is.
    :raises Conflict: ``RaceDetected``: another push came between.
    :raises Overloaded: ``SchemaNotReady``: checking or building takes longer than a request may.
    Cancelling drops the answer; the push may still be applied.
    """
    started = await deploy.start_push(tree, identity)
    change = {"schemaChange": started["schemaChange"], "timeoutMs": _WAIT_MS}
    for _ in range(_WAITS):
        status = await deploy.wait_for_schema(change, identity)
        if status["type"] == "complete":
            return await deploy.finish_push({"startPush": started, "message": message}, identity, caller)
        if status["type"] == "failed":
            component = status["componentPath"]
            where = f' in component "{component}"' if component else ""
            raise SchemaRefused("SchemaValidationFailed", f"Schema validation failed{where}: {status['error']}")
        if status["type"] == "raceDetected":
            raise Conflict("RaceDetected", "Another push came between. Nothing of this one is deployed: try again.")
    raise Overloaded(
        "SchemaNotReady",
        "Checking the stored documents and building indexes takes longer than a request may. Indexes go on being built; "
        "deploy the same again later, or use the CLI, which waits.",
    )
