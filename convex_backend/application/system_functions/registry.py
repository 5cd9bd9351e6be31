"""What a system function is, and what it works with.

Each is a coroutine over a transaction, with the metadata of a user's function: kind, the operation that a key must allow, an arguments validator.
Its reads are recorded, so subscriptions to it follow the rules of user queries. Source: ``system_functions.md`` section 1.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs
import orjson

from convex_backend.application.components import NEW, ROOT, component_with_identifier
from convex_backend.application.directory import Directory
from convex_backend.application.push_store import PushStore
from convex_backend.application.settings import Settings
from convex_backend.application.types import Identity
from convex_backend.database.query.cursor import Seal, Unseal
from convex_backend.database.system_tables import COMPONENTS, VIRTUAL_NUMBERS
from convex_backend.errors import BadRequest
from convex_backend.values.ids import decode_id
from convex_backend.values.json_codec import loads
from convex_backend.values.kinds import InvalidValue, Value
from convex_backend.values.validators import Validator, parse

if TYPE_CHECKING:
    from convex_backend.application.file_storage import FileStorage
    from convex_backend.database.catalog import TableInfo
    from convex_backend.database.database import Database
    from convex_backend.database.transaction import Transaction

STRING: Final = {"type": "string"}
NUMBER: Final = {"type": "number"}
NULL: Final = {"type": "null"}
STRING_OR_NULL: Final = {"type": "union", "value": [STRING, NULL]}

#: The direction of a listing.
ORDER: Final = {"type": "union", "value": [{"type": "literal", "value": "asc"}, {"type": "literal", "value": "desc"}]}

#: Bounds of one page, forced upon every paginated system query.
MAX_ROWS_READ: Final = 10_000
MAX_BYTES_READ: Final = 5_000_000


def field(validator: Mapping[str, Any], *, optional: bool = False) -> dict[str, Any]:
    """A member of an object validator."""
    return {"fieldType": dict(validator), "optional": optional}


def closed(**members: Mapping[str, Any]) -> dict[str, Any]:
    """An object validator; members that are not made by :func:`field` are required."""
    return {
        "type": "object",
        "value": {name: member if "fieldType" in member else field(member) for name, member in members.items()},
    }


PAGINATION: Final = closed(
    cursor=STRING_OR_NULL,
    numItems=NUMBER,
    endCursor=field(STRING_OR_NULL, optional=True),
    id=field(NUMBER, optional=True),
    maximumRowsRead=field(NUMBER, optional=True),
    maximumBytesRead=field(NUMBER, optional=True),
)


@attrs.frozen(slots=True, eq=False)
class SystemServices:
    """What system functions share.

    :param seal: makes cursor text of cursor bytes; ``unseal`` takes it apart again.
    """

    database: Database
    directory: Directory
    store: PushStore
    settings: Settings
    seal: Seal
    unseal: Unseal
    files: FileStorage


@attrs.frozen(slots=True, eq=False)
class SystemCall:
    """One run of a system function.

    :param args: checked. :param end_cursor: end of the page in an earlier run of the same live query.
    :param home: the component that the call names by its path; the transaction reads its tables.
    """

    transaction: Transaction
    services: SystemServices
    identity: Identity
    args: dict[str, Any]
    end_cursor: str | None = None
    home: int = ROOT

    async def component(self) -> int:
        """The component that the argument ``componentId`` means, else the one of the call; the transaction reads its tables from here on.

        :raises BadRequest: there is none of that id.
        """
        given = self.args.get("componentId")
        component = self.home if given is None else await component_of_id(self.transaction, given)
        self.transaction.component = component
        return component

    async def table(self, name: str) -> TableInfo | None:
        """A user table by name; whether it exists is recorded as read."""
        return await self.transaction.table_of_query(name)

    async def get(self, id: str) -> Value:
        """The document with this id, of a user table or a virtual one; ``None`` when there is none.

        :raises BadRequest: not an id.
        """
        try:
            number, _ = decode_id(id)
        except InvalidValue as error:
            raise BadRequest("InvalidArgument", f"Unable to decode ID: {error.message}") from None
        json = await self.transaction.get(id, is_system=number in VIRTUAL_NUMBERS)
        found: Value = loads(json) if json is not None else None
        return found

    def depend_on(self, table: TableInfo) -> None:
        """Run again after every change of a document of *table*."""
        self.transaction.add_system_interval(-table.tablet, b"", None)

    async def count(self, name: str) -> float:
        """Number of documents of a table; 0 when there is none.

        Counted in a worker thread over the newest rows, which may be ahead of the snapshot but never behind it: what came since is a change that
        runs the query again.
        """
        table = await self.table(name)
        if table is None:
            return 0.0
        self.depend_on(table)
        return float(await self.services.database.persistence.count_documents(table.tablet))

    async def paginate(self, query: dict[str, Any]) -> dict[str, Any]:
        """One page of documents, as ``args.paginationOpts`` asks."""
        options = self.args["paginationOpts"]
        page = await self.transaction.paginate(
            query,
            cursor=options["cursor"],
            end_cursor=options.get("endCursor"),
            page_size=options["numItems"],
            max_rows=MAX_ROWS_READ,
            max_bytes=MAX_BYTES_READ,
            journal_end_cursor=self.end_cursor,
            seal=self.services.seal,
            unseal=self.services.unseal,
            in_components=True,
        )
        value: dict[str, Any] = loads(orjson.dumps(page))
        return value


async def component_of_id(transaction: Transaction, given: str) -> int:
    """The component, mounted or not, whose document id is *given*.

    :raises BadRequest: there is none.
    """
    component = await component_with_identifier(transaction, given)
    if component is None:
        raise BadRequest("ComponentNotFound", f"There is no component with ID {given}.")
    return component


async def component_of_path(transaction: Transaction, path: str) -> int:
    """The component, mounted or not, whose path is *path*.

    :raises BadRequest: there is none.
    """
    found = await transaction.system.lookup(COMPONENTS.name, "by_path", (path,))
    if found is None or found[1]["state"] == NEW:
        raise BadRequest("ComponentNotFound", f"There is no component with path '{path}'.")
    component: int = found[1]["component"]
    return component


Run = Callable[[SystemCall], Awaitable[Value]]


@attrs.frozen(slots=True, eq=False)
class SystemFunction:
    """A registered function.

    :param name: stripped path, ``_system/cli/tables``.
    :param operation: what the caller's key must allow; ``None`` for any admin key.
    """

    name: str
    kind: str
    operation: str | None
    args: Validator
    run: Run


def system_query(
    name: str, operation: str | None, /, *, in_component: bool = False, **members: Mapping[str, Any]
) -> Callable[[Run], SystemFunction]:
    """Make a coroutine a system query.

    :param in_component: it takes ``componentId``.
    :param members: validators of its arguments.
    """

    return _system_function("query", name, operation, in_component, members)


def system_mutation(
    name: str, operation: str | None, /, *, in_component: bool = False, **members: Mapping[str, Any]
) -> Callable[[Run], SystemFunction]:
    """Make a coroutine a system mutation; see :func:`system_query`."""
    return _system_function("mutation", name, operation, in_component, members)


def _system_function(
    kind: str, name: str, operation: str | None, in_component: bool, members: Mapping[str, Mapping[str, Any]]
) -> Callable[[Run], SystemFunction]:
    def decorate(run: Run) -> SystemFunction:
        arguments = dict(members)
        if in_component:
            arguments["componentId"] = field(STRING_OR_NULL, optional=True)
        return SystemFunction(f"_system/{name}", kind, operation, parse(closed(**arguments)), run)

    return decorate


def empty_page() -> dict[str, Value]:
    """The page of a table that does not exist."""
    return {"page": [], "isDone": True, "continueCursor": "end"}


def full_scan(table: str, order: str) -> dict[str, Any]:
    """The query of all documents by creation."""
    return {"source": {"type": "FullTableScan", "tableName": table, "order": order}, "operators": []}
