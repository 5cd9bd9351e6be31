"""Functions of the CLI: ``_system/cli/…``. Source: ``system_functions.md`` section 2, ``http_api.md`` section 9."""

from __future__ import annotations

from convex_backend.application.code_state import variable_point
from convex_backend.application.components import ROOT
from convex_backend.application.system_functions.modules import api_spec
from convex_backend.application.system_functions.registry import (
    ORDER,
    PAGINATION,
    STRING,
    SystemCall,
    SystemFunction,
    empty_page,
    full_scan,
    system_query,
)
from convex_backend.database.system_tables import ENVIRONMENT_VARIABLES, TABLES, VIRTUAL_TABLES
from convex_backend.values.kinds import Value


async def environment_rows(call: SystemCall) -> list[Value]:
    """``[{_id, _creationTime, name, value}]`` of the user's variables, by name."""
    # Loaded here: no start needs what changes variables.
    from convex_backend.application.environment import read_rows

    return [
        {"_id": row["_id"], "_creationTime": row["_creationTime"], "name": name, "value": row["value"]}
        for name, (_, row) in (await read_rows(call.transaction)).items()
    ]


async def table_names(call: SystemCall, component: int) -> list[tuple[str, int]]:
    """Names and numbers of a component's user tables, by name; which there are is recorded as read."""
    rows = await call.transaction.system.scan(TABLES.name, "by_name", (component,))
    return [(row["name"], row["number"]) for _, row in rows if row["hidden"] is None and row["name"][0] != "_"]


@system_query("cli/convexUrl:cloudUrl", "ViewData")
async def cloud_url(call: SystemCall) -> Value:
    """The API's origin."""
    return call.services.settings.cloud_origin


@system_query("cli/modules:apiSpec", "ViewData", in_component=True)
async def modules_api_spec(call: SystemCall) -> Value:
    """Every function with its validators, and every HTTP route."""
    return api_spec(await call.services.store.modules(call.transaction, await call.component()))


@system_query("cli/queryEnvironmentVariables", "ViewEnvironmentVariables")
async def environment_variables(call: SystemCall) -> Value:
    """The user's variables."""
    return await environment_rows(call)


@system_query("cli/queryEnvironmentVariables:get", "ViewEnvironmentVariables", name=STRING)
async def environment_variable(call: SystemCall) -> Value:
    """One variable, built-in ones included."""
    name = call.args["name"]
    built_in = call.services.directory.built_in_variables.get(name)
    if built_in is not None:
        return {"name": name, "value": built_in}
    call.transaction.add_system_point(*variable_point(ROOT, name))
    found = await call.transaction.system.lookup(ENVIRONMENT_VARIABLES.name, "by_name", (ROOT, name))
    return {"name": name, "value": found[1]["value"]} if found is not None else None


@system_query("cli/tables", "ViewData", in_component=True, paginationOpts=PAGINATION)
async def tables(call: SystemCall) -> Value:
    """All user tables, in one page."""
    names = await table_names(call, await call.component())
    return {"page": [{"name": name} for name, _ in names], "isDone": True, "continueCursor": "end"}


@system_query("cli/tableData", "ViewData", in_component=True, table=STRING, order=ORDER, paginationOpts=PAGINATION)
async def table_data(call: SystemCall) -> Value:
    """A page of a table's documents by creation; an unknown table is empty."""
    await call.component()
    table = call.args["table"]
    if (table.startswith("_") and table not in VIRTUAL_TABLES) or await call.table(table) is None:
        return empty_page()
    return await call.paginate(full_scan(table, call.args["order"]))


@system_query("cli/tableSize", "ViewData", in_component=True, tableName=STRING)
async def table_size(call: SystemCall) -> Value:
    """Number of documents of a table."""
    await call.component()
    return await call.count(call.args["tableName"])


@system_query("cli/queryTable", "ViewData", in_component=True, tableName=STRING)
async def query_table(call: SystemCall) -> Value:
    """A number that is another one after every change of the table."""
    await call.component()
    table = await call.table(call.args["tableName"])
    if table is not None:
        call.depend_on(table)
    return float(int.from_bytes(call.services.database.random_bytes(6), "big"))


@system_query("cli/exports:getLatest", "ViewBackups")
async def latest_export(call: SystemCall) -> Value:
    """The newest snapshot export: none, since exports are not available yet."""
    return None


@system_query("cli/queryImport", "ViewBackups", importId=STRING)
async def query_import(call: SystemCall) -> Value:
    """An import: none, since imports are not available yet."""
    return None


@system_query("cli/queryImport:list", "ViewBackups")
async def list_imports(call: SystemCall) -> Value:
    """The newest imports: likewise."""
    return []


FUNCTIONS: tuple[SystemFunction, ...] = (
    cloud_url,
    modules_api_spec,
    environment_variables,
    environment_variable,
    tables,
    table_data,
    table_size,
    query_table,
    latest_export,
    query_import,
    list_imports,
)
