"""Functions under ``_system/``: native coroutines over the same transactions as users' functions (F9).

Open to admins only: for everyone else, as for names that do not exist, there is no such function. Source: ``system_functions.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from convex_backend.application import calls
from convex_backend.application.components import ROOT
from convex_backend.application.directory import Directory
from convex_backend.application.operations import check_operation
from convex_backend.application.push_store import PushStore
from convex_backend.application.settings import Settings
from convex_backend.application.system_functions import cli, frontend, jobs
from convex_backend.application.system_functions import files as file_functions
from convex_backend.application.system_functions.registry import (
    SystemCall,
    SystemFunction,
    SystemServices,
    component_of_path,
)
from convex_backend.application.types import Identity
from convex_backend.database.query.cursor import Seal, Unseal
from convex_backend.errors import BadRequest
from convex_backend.functions.directory import not_found
from convex_backend.functions.invocation import normalise_args
from convex_backend.functions.outcome import FunctionFailed
from convex_backend.interfaces import FunctionError
from convex_backend.values.json_codec import loads
from convex_backend.values.kinds import Value
from convex_backend.values.paths import ROOT_COMPONENT
from convex_backend.values.validators import validate_args

if TYPE_CHECKING:
    from convex_backend.application.file_storage import FileStorage
    from convex_backend.database.database import Database
    from convex_backend.database.transaction import Transaction

__all__ = ["SystemFunctions"]


class SystemFunctions:
    """The registry, as the use cases call it.

    :param seal: makes cursor text of cursor bytes; *unseal* takes it apart again.
    """

    def __init__(
        self,
        *,
        database: Database,
        directory: Directory,
        store: PushStore,
        settings: Settings,
        seal: Seal,
        unseal: Unseal,
        files: FileStorage,
    ) -> None:
        self._services = SystemServices(database, directory, store, settings, seal, unseal, files)
        families = (cli.FUNCTIONS, frontend.FUNCTIONS, file_functions.FUNCTIONS, jobs.FUNCTIONS)
        self._functions = {function.name: function for family in families for function in family}

    @property
    def names(self) -> list[str]:
        """Stripped paths of all functions."""
        return sorted(self._functions)

    def kind(self, wanted: calls.Target, identity: Identity) -> str:
        """The kind of a function. :raises NotFound: there is none, or not for *identity*."""
        return self._find(wanted, identity).kind

    async def run_query(
        self,
        transaction: Transaction,
        wanted: calls.Target,
        args: bytes,
        identity: Identity,
        end_cursor: str | None = None,
    ) -> Value:
        """Run a query.

        :param args: JSON text of an object or of an array of one.
        :param end_cursor: end of the page in an earlier run of the same live query.
        :raises NotFound: there is none, or not for *identity*. :raises ConvexError: its own failure.
        """
        return await self._run("query", transaction, wanted, args, identity, end_cursor)

    async def run_mutation(
        self, transaction: Transaction, wanted: calls.Target, args: bytes, identity: Identity
    ) -> Value:
        """Run a mutation; the caller commits *transaction*. See :meth:`run_query`."""
        return await self._run("mutation", transaction, wanted, args, identity, None)

    def _find(self, wanted: calls.Target, identity: Identity) -> SystemFunction:
        function = self._functions.get(wanted.path.stripped) if identity.is_admin else None
        if function is None:
            raise not_found(wanted.path, wanted.component_path, any_kind=wanted.any_kind)
        return function

    async def _run(
        self,
        kind: str,
        transaction: Transaction,
        wanted: calls.Target,
        args: bytes,
        identity: Identity,
        end_cursor: str | None,
    ) -> Value:
        function = self._find(wanted, identity)
        if function.kind != kind:
            names = {"query": "Query", "mutation": "Mutation"}
            raise BadRequest(
                "FunctionKindMismatch",
                f"Trying to execute {wanted.path.canonical} as {names[kind]}, "
                f"but it is defined as {names[function.kind]}.",
            )
        if function.operation is not None:
            check_operation(identity, function.operation)
        try:
            values = loads(normalise_args(args))
        except BadRequest as error:
            raise FunctionFailed(
                FunctionError(f"Invalid arguments for {wanted.path.stripped}: {error.message}")
            ) from None
        await transaction.ensure_begun()
        text = validate_args(function.args, values, transaction.names(0))
        if text is not None:
            raise FunctionFailed(FunctionError(text))
        home = ROOT
        if wanted.component_path != ROOT_COMPONENT:
            home = transaction.component = await component_of_path(transaction, wanted.component_path)
        return await function.run(SystemCall(transaction, self._services, identity, values[0], end_cursor, home))
