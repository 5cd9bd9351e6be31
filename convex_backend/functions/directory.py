"""What layer 3 asks of whoever knows the deployed code: the functions, their modules, the environment.

Source: ``runtime.md`` sections 1.4, 2.6, 9.2; A8 for what reading it records.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import attrs

from convex_backend.errors import BadRequest, NotFound
from convex_backend.interfaces import ModuleRef
from convex_backend.values.paths import FunctionPath
from convex_backend.values.validators import Validator

KIND_NAMES = {"query": "Query", "mutation": "Mutation", "action": "Action", "httpAction": "HttpAction"}


@attrs.frozen(slots=True, eq=False)
class ResolvedFunction:
    """An analysed function of a component at some moment.

    :param component: internal id; ``component_path`` its path, ``""`` for the app.
    :param kind: ``query``, ``mutation``, ``action`` or ``httpAction``.
    :param visibility: ``public``, ``internal``, or ``None`` for functions of very old packages.
    :param args: validator of the arguments, ``None`` accepts anything; ``returns`` likewise.
    :param closure: the module and all that static imports reach from it.
    :param import_seed: 32 bytes; ``import_ms``: both fixed at push, for the import phase.
    :param node: whether the module wants the Node executor.
    :param reuse_context: whether the module exports ``experimental_reuseContext``.
    :param realm: whether the push has found that the module may be evaluated anew in a context that served other runs.
    """

    component: int
    component_path: str
    path: FunctionPath
    kind: str
    visibility: str | None
    args: Validator | None
    returns: Validator | None
    closure: tuple[ModuleRef, ...]
    import_seed: bytes
    import_ms: float
    node: bool = False
    reuse_context: bool = False
    realm: bool = False


@attrs.frozen(slots=True, eq=False)
class Environment:
    """Environment variables as one component sees them. ``version`` changes whenever ``variables`` or ``arguments`` do.

    :param arguments: of a component with an older definition, as JSON values by name.
    """

    variables: Mapping[str, str]
    version: str
    arguments: Mapping[str, Any] = attrs.field(factory=dict)


class FunctionDirectory(Protocol):
    """Implemented in layer 4 over the system tables. Reads go through *transaction* when one is given, so that they are part of its read set."""

    async def resolve(self, transaction: Any, component: int, path: FunctionPath) -> ResolvedFunction | None:
        """The function at *path*, whatever its visibility; ``None`` when the module or the export does not exist."""

    async def environment(self, transaction: Any, component: int) -> Environment:
        """The variables of a component, without recording any of them as read."""

    async def child_component(self, transaction: Any, component: int, name: str) -> int | None:
        """The child of *component* that is mounted as *name*."""

    async def component_at(self, transaction: Any, path: str) -> int | None:
        """The component that is mounted at *path*, names joined by ``/``."""

    def component_path(self, component: int) -> str:
        """The path of a component, ``""`` for the app; it never changes. Also of one that is no longer mounted.

        :raises KeyError: there is no such component.
        """

    async def function_handle(self, transaction: Any, component: int, path: FunctionPath) -> str:
        """The id in the handle of a deployed function: the same one for as long as the deployment lives."""

    async def function_of_handle(self, transaction: Any, identifier: str) -> tuple[int, FunctionPath] | None:
        """The component and path behind the id of a handle, deployed or not; ``None`` when there is no such handle."""

    def observed(self, transaction: Any, function: ResolvedFunction, observed: frozenset[str]) -> None:
        """Record what a finished run of *function* has observed (``env:NAME``, ``import_time``, ``import_random``) as read; ``unknown`` stands
        for all that it may have."""


def not_found(path: FunctionPath, component_path: str = "", *, any_kind: bool = False) -> NotFound:
    """The error of a function that does not exist or is not visible.

    :param any_kind: the text of the endpoints that run any kind of function.
    """
    where = f" in '{component_path}'" if component_path else ""
    what = "function" if any_kind else "public function"
    return NotFound(
        "FunctionNotFound",
        f"Could not find {what} for '{path.stripped}'{where}. Did you forget to run `npx convex dev`?",
    )


def check_kind(function: ResolvedFunction, wanted: str) -> None:
    """:raises BadRequest: the function is of another kind than *wanted*."""
    if function.kind != wanted:
        raise BadRequest(
            "FunctionKindMismatch",
            f"Trying to execute {function.path.canonical} as {KIND_NAMES[wanted]}, "
            f"but it is defined as {KIND_NAMES[function.kind]}.",
        )
