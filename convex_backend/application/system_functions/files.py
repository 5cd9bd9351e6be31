"""Functions of dashboards about stored files: ``_system/frontend/fileStorageV2:…``. Source: ``system_functions.md`` sections 3 and 4."""

from __future__ import annotations

from typing import Any

from convex_backend.application.file_records import STORAGE
from convex_backend.application.system_functions.registry import (
    NUMBER,
    ORDER,
    PAGINATION,
    STRING,
    SystemCall,
    SystemFunction,
    closed,
    empty_page,
    field,
    system_mutation,
    system_query,
)
from convex_backend.errors import BadRequest
from convex_backend.values.kinds import Value

_OPTIONAL_NUMBER = field(NUMBER, optional=True)
_FILTERS = field(
    closed(minCreationTime=_OPTIONAL_NUMBER, maxCreationTime=_OPTIONAL_NUMBER, order=field(ORDER, optional=True)),
    optional=True,
)


async def _with_url(call: SystemCall, component: int, document: Any) -> Value:
    url = await call.services.files.url(call.transaction, component, document["_id"])
    return {**document, "url": url}


@system_query("frontend/fileStorageV2:numFiles", "ViewData", in_component=True)
async def number_of_files(call: SystemCall) -> Value:
    """How many files a component has."""
    await call.component()
    return await call.count(STORAGE)


@system_query(
    "frontend/fileStorageV2:fileMetadata", "ViewData", in_component=True, paginationOpts=PAGINATION, filters=_FILTERS
)
async def list_files(call: SystemCall) -> Value:
    """A page of files with their URLs, by creation, newest first unless the filters say otherwise."""
    component = await call.component()
    if await call.table(STORAGE) is None:
        return empty_page()
    filters = call.args.get("filters", {})
    bounds = [
        {"type": kind, "fieldPath": "_creationTime", "value": filters[name]}
        for kind, name in (("Gte", "minCreationTime"), ("Lte", "maxCreationTime"))
        if name in filters
    ]
    page = await call.paginate(
        {
            "source": {
                "type": "IndexRange",
                "indexName": f"{STORAGE}.by_creation_time",
                "range": bounds,
                "order": filters.get("order", "desc"),
            },
            "operators": [],
        }
    )
    return {**page, "page": [await _with_url(call, component, document) for document in page["page"]]}


@system_query("frontend/fileStorageV2:getFile", "ViewData", in_component=True, storageId=STRING)
async def get_file(call: SystemCall) -> Value:
    """One file with its URL; null when there is none."""
    component = await call.component()
    document = await call.transaction.virtual.get(component, STORAGE, call.args["storageId"])
    return None if document is None else await _with_url(call, component, document)


async def _delete(call: SystemCall, storage_ids: list[str]) -> None:
    component = await call.component()
    for storage_id in storage_ids:
        if not await call.services.files.delete(call.transaction, component, storage_id):
            raise BadRequest("FileNotFound", f"storage id {storage_id} not found")


@system_mutation("frontend/fileStorageV2:deleteFile", "WriteData", in_component=True, storageId=STRING)
async def delete_file(call: SystemCall) -> Value:
    """Delete a file."""
    await _delete(call, [call.args["storageId"]])
    return None


@system_mutation(
    "frontend/fileStorageV2:deleteFiles",
    "WriteData",
    in_component=True,
    storageIds={"type": "array", "value": STRING},
)
async def delete_files(call: SystemCall) -> Value:
    """Delete files, all or none."""
    await _delete(call, call.args["storageIds"])
    return None


@system_mutation("frontend/fileStorageV2:generateUploadUrl", "WriteData", in_component=True)
async def generate_upload_url(call: SystemCall) -> Value:
    """Where a file may be posted."""
    return call.services.files.upload_url(await call.component())


FUNCTIONS: tuple[SystemFunction, ...] = (
    number_of_files,
    list_files,
    get_file,
    delete_file,
    delete_files,
    generate_upload_url,
)
