"""Functions of dashboards: ``_system/frontend/…``. Source: ``system_functions.md`` section 3."""

from __future__ import annotations

from typing import Any

from convex_backend.application.components import NEW, ROOT
from convex_backend.application.push_diff import present_indexes
from convex_backend.application.system_functions.cli import environment_rows, table_names
from convex_backend.application.system_functions.modules import find_function, listed
from convex_backend.application.system_functions.registry import (
    NUMBER,
    PAGINATION,
    STRING,
    STRING_OR_NULL,
    SystemCall,
    SystemFunction,
    closed,
    component_of_id,
    empty_page,
    field,
    full_scan,
    system_query,
)
from convex_backend.application.system_functions.table_filters import FilterMistakes, read_filters
from convex_backend.database.backfill import build_progress
from convex_backend.database.catalog import BACKFILLED, BACKFILLING, ENABLED, IndexInfo, schemas_interval
from convex_backend.database.schema_check import ACTIVE, PENDING, VALIDATED
from convex_backend.database.system_tables import AUTH, COMPONENTS
from convex_backend.errors import BadRequest
from convex_backend.values.ids import decode_id
from convex_backend.values.json_codec import loads
from convex_backend.values.kinds import InvalidValue, Value
from convex_backend.values.paths import FunctionPath

_VIRTUAL_MAPPING = {"539": "_scheduled_jobs", "540": "_file_storage"}
#: What the tables behind the virtual ones are called where documents are asked for by table.
_PHYSICAL_NAMES = {"_scheduled_jobs": "_scheduled_functions", "_file_storage": "_storage"}
_MAX_MAPPING = 1000


@system_query("frontend/components:list", "ViewData")
async def list_components(call: SystemCall) -> Value:
    """All components, the app (without a name) first."""
    rows = await call.transaction.system.scan(COMPONENTS.name, "by_component")
    return [
        {
            "id": row["_id"],
            "name": row["name"],
            "path": row["path"],
            "args": {},
            "state": row["state"],
            "httpPrefix": row.get("httpPrefix"),
        }
        for _, row in rows
        if row["state"] != NEW
    ]


@system_query("frontend/getSchemas", "ViewData", in_component=True)
async def get_schemas(call: SystemCall) -> Value:
    """JSON texts of the active schema and of the one that waits."""
    component = await call.component()
    transaction = call.transaction
    await transaction.ensure_begun()
    transaction.add_system_interval(*schemas_interval(component))
    found: dict[str, Value] = {}
    for info in transaction.catalog.schemas.values():
        if info.component == component and info.state in (ACTIVE, PENDING, VALIDATED):
            found["active" if info.state == ACTIVE else "inProgress"] = info.text
    return found


@system_query("frontend/getTableMapping", "ViewData", in_component=True)
async def get_table_mapping(call: SystemCall) -> Value:
    """Table names by table number."""
    names = await table_names(call, await call.component())
    mapping: dict[str, Value] = {str(number): name for name, number in names[:_MAX_MAPPING]}
    return mapping | _VIRTUAL_MAPPING


@system_query("frontend/getVersion", None)
async def get_version(call: SystemCall) -> Value:
    """The npm package's version of the last push."""
    config = await call.services.store.udf_config(call.transaction, ROOT)
    return config.server_version if config is not None else None


@system_query("frontend/convexCloudUrl", "ViewData")
async def convex_cloud_url(call: SystemCall) -> Value:
    """The API's origin."""
    return call.services.settings.cloud_origin


@system_query("frontend/convexSiteUrl", "ViewData")
async def convex_site_url(call: SystemCall) -> Value:
    """The origin of HTTP actions."""
    return call.services.settings.site_origin


@system_query("frontend/listEnvironmentVariables", "ViewEnvironmentVariables")
async def list_environment_variables(call: SystemCall) -> Value:
    """The user's variables."""
    return await environment_rows(call)


@system_query("frontend/listAuthProviders", "ViewData")
async def list_auth_providers(call: SystemCall) -> Value:
    """The providers of ``auth.config.ts``; the algorithm is shown in quotes."""
    rows = await call.transaction.system.scan(AUTH.name, "by_component", (ROOT,))
    found: list[Value] = []
    for _, row in rows:
        provider: dict[str, Any] = loads(row["provider"].encode())
        if "algorithm" in provider:
            provider["algorithm"] = f'"{provider["algorithm"]}"'
        found.append({"_id": row["_id"], "_creationTime": row["_creationTime"], **provider})
    return found


@system_query("frontend/modules:listForAllComponents", "ViewData")
async def list_modules_everywhere(call: SystemCall) -> Value:
    """``[[component id, modules]…]``; the app's id is null."""
    found: list[Value] = []
    for _, row in await call.transaction.system.scan(COMPONENTS.name, "by_component"):
        if row["state"] != NEW:
            identifier = None if row["component"] == ROOT else row["_id"]
            found.append([identifier, listed(await call.services.store.modules(call.transaction, row["component"]))])
    return found


@system_query("frontend/modules:list", "ViewData", in_component=True)
async def list_modules(call: SystemCall) -> Value:
    """The modules of one component."""
    return listed(await call.services.store.modules(call.transaction, await call.component()))


@system_query("frontend/modules:argsValidator", "ViewData", in_component=True, function=STRING)
async def args_validator(call: SystemCall) -> Value:
    """JSON text of a function's arguments validator; null for an unknown function."""
    try:
        path = FunctionPath.parse(call.args["function"])
    except BadRequest:
        return None
    modules = await call.services.store.modules(call.transaction, await call.component())
    function = find_function(modules, path)
    if function is None:
        return None
    text: str = function["args"] or '{"type":"any"}'
    return text


@system_query("frontend/node:version", "ViewData")
async def node_version(call: SystemCall) -> Value:
    """The runtime of the Node executor, which is not available yet."""
    return None


@system_query(
    "frontend/indexes", "ViewData", tableName=field(STRING_OR_NULL, optional=True), tableNamespace=STRING_OR_NULL
)
async def indexes(call: SystemCall) -> Value:
    """A table's indexes and how far those are that are being built."""
    name = call.args.get("tableName")
    namespace = call.args["tableNamespace"]
    if namespace is not None:
        call.transaction.component = await component_of_id(call.transaction, namespace)
    table = await call.table(name) if name is not None else None
    if table is None:
        return None
    call.transaction.add_system_interval(*table.indexes_interval)
    return [await _index(call, index) for index in present_indexes(table)]


async def _index(call: SystemCall, index: IndexInfo) -> Value:
    fields: Value = list(index.fields)
    if index.kind != "database":
        spec = dict(index.spec)
        if "dimensions" in spec:
            spec["dimensions"] = float(spec["dimensions"])
        fields = spec
    state = {BACKFILLING: "backfilling", BACKFILLED: "backfilled", ENABLED: "done"}[index.state]
    backfill: dict[str, Value] = {"state": state}
    if index.state == BACKFILLING:
        done, total = await build_progress(call.transaction, index)
        backfill["stats"] = {"numDocsIndexed": float(done), "totalDocs": None if total is None else float(total)}
    return {"name": index.name, "staged": index.staged, "fields": fields, "backfill": backfill}


@system_query("frontend/tableSize", "ViewData", in_component=True, tableName=STRING)
async def table_size(call: SystemCall) -> Value:
    """Number of documents of a table."""
    await call.component()
    return await call.count(call.args["tableName"])


@system_query("frontend/tableSize:sizeOfAllTables", "ViewData", in_component=True)
async def size_of_all_tables(call: SystemCall) -> Value:
    """Number of documents of all user tables."""
    names = await table_names(call, await call.component())
    return sum([await call.count(name) for name, _ in names], 0.0)


@system_query(
    "frontend/paginatedTableDocuments",
    "ViewData",
    in_component=True,
    paginationOpts=PAGINATION,
    table=STRING,
    filters=STRING_OR_NULL,
)
async def paginated_table_documents(call: SystemCall) -> Value:
    """A page of documents, or of what is wrong with the filters; newest first unless they say otherwise."""
    await call.component()
    table = await call.table(call.args["table"])
    if table is None:
        return empty_page()
    text = call.args["filters"]
    if text is None:
        return await call.paginate(full_scan(table.name, "desc"))
    call.transaction.add_system_interval(*table.indexes_interval)
    try:
        wanted = read_filters(text, table)
    except FilterMistakes as error:
        return {"page": error.mistakes, "isDone": True, "continueCursor": ""}
    if wanted.point is not None:
        number, _ = decode_id(wanted.point)
        document = await call.get(wanted.point) if number == table.number else None
        found: list[Value] = [document] if document is not None else []
        return {"page": found, "isDone": True, "continueCursor": ""}
    page: dict[str, Any] = await call.paginate(wanted.query)
    shown = [document for document in page["page"] if all(check(document) for check in wanted.checks)]
    return {**page, "page": shown}


@system_query("frontend/listTableScan", "ViewData", in_component=True, table=STRING, limit=NUMBER)
async def list_table_scan(call: SystemCall) -> Value:
    """The newest documents of a table."""
    await call.component()
    if await call.table(call.args["table"]) is None:
        return []
    stream = call.transaction.open_stream(full_scan(call.args["table"], "desc"))
    rows: list[Value] = []
    done = False
    try:
        while not done and len(rows) < call.args["limit"]:
            page, done = await stream.fetch(min(256, int(call.args["limit"]) - len(rows)))
            stream.consume(len(page) + done)
            rows.extend(loads(row) for row in page)
    finally:
        call.transaction.close_stream(stream)
    return rows


@system_query("frontend/getById", "ViewData", in_component=True, id=STRING)
async def get_by_id(call: SystemCall) -> Value:
    """A document by its id."""
    await call.component()
    return await call.get(call.args["id"])


_WANTED = {"type": "array", "value": closed(id=STRING, tableName=STRING)}


@system_query("frontend/listById", "ViewData", in_component=True, ids=_WANTED)
async def list_by_id(call: SystemCall) -> Value:
    """Documents by id, null for one that does not exist or belongs to another table."""
    await call.component()
    found: list[Value] = []
    for wanted in call.args["ids"]:
        name = wanted["tableName"]
        table = await call.table(_PHYSICAL_NAMES.get(name, name))
        try:
            number, _ = decode_id(wanted["id"])
        except InvalidValue:
            number = None
        found.append(await call.get(wanted["id"]) if table is not None and number == table.number else None)
    return found


@system_query("frontend/listConfiguredSinks", "ViewIntegrations")
async def list_configured_sinks(call: SystemCall) -> Value:
    """Log sinks: none are offered."""
    return []


FUNCTIONS: tuple[SystemFunction, ...] = (
    list_components,
    get_schemas,
    get_table_mapping,
    get_version,
    convex_cloud_url,
    convex_site_url,
    list_environment_variables,
    list_auth_providers,
    list_modules_everywhere,
    list_modules,
    args_validator,
    node_version,
    indexes,
    table_size,
    size_of_all_tables,
    paginated_table_documents,
    list_table_scan,
    get_by_id,
    list_by_id,
    list_configured_sinks,
)
