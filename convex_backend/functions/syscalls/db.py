"""Documents and queries.

=======================  =====  ====================================================  ==========================
name                     kinds  arguments                                             answer
=======================  =====  ====================================================  ==========================
``1.0/get``              Q M    ``{id, isSystem, table?}``                            document or ``null``
``1.0/queryStreamNext``  Q M    ``{queryId}``                                         a page of rows (internals section 8)
``1.0/queryPage``        Q M    ``{query, cursor, endCursor, pageSize, maximum…}``    page object
``1.0/count``            Q M    ``{table}``                                           number
``1.0/insert``           M      ``{table, value}``                                    ``{_id}``
``1.0/shallowMerge``     M      ``{id, value, table?}``                               merged document
``1.0/replace``          M      ``{id, value, table?}``                               new document
``1.0/remove``           M      ``{id, table?}``                                      removed document
=======================  =====  ====================================================  ==========================

``1.0/queryStream`` and ``1.0/queryCleanup`` come as notices (:func:`open_query`). Errors about documents are the transaction's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson

from convex_backend.errors import BadRequest
from convex_backend.functions.context import OpenQuery
from convex_backend.functions.syscalls import (
    NULL,
    Q_M,
    M,
    Syscall,
    invalid_argument,
    missing,
    optional_text,
    parse,
    syscall,
    text_argument,
)
from convex_backend.interfaces import SyscallReply
from convex_backend.values.json_codec import from_json
from convex_backend.values.kinds import InvalidValue

if TYPE_CHECKING:
    from convex_backend.database.hints import NamedDocument
    from convex_backend.functions.context import CallContext, Documents


def _object(tree: dict[str, Any], call: str, *, allow_undefined: bool = False) -> dict[str, Any]:
    if "value" not in tree:
        raise missing(tree, "value", call, "an object")
    try:
        value = from_json(tree["value"], allow_undefined=allow_undefined, allow_commit_ts=True)
    except InvalidValue as error:
        raise invalid_argument("value", call, error) from None
    if type(value) is not dict:
        raise invalid_argument("value", call, "Value must be an Object")
    return value


@syscall("1.0/get", Q_M)
async def get(context: CallContext, args: bytes) -> SyscallReply:
    """One document by id."""
    tree = parse(args)
    is_system = tree.get("isSystem") is True
    call = "db.system.get" if is_system else "db.get"
    document_id = text_argument(tree, "id", call)
    documents = context.documents
    document = await documents.get(document_id, optional_text(tree, "table", call), is_system)
    if context.sends_ahead:
        context.sends_ahead = False
        others = documents.send_ahead()
        if others:
            return _with_others(documents, document, others)
    return NULL if document is None else SyscallReply(document)


def _with_others(
    documents: Documents, document: bytes | None, others: Sequence[tuple[NamedDocument, str, bytes | None]]
) -> SyscallReply:
    """The answer of a get with documents that are likely to be asked for next (``docs/internals.md`` section 8)."""
    texts = [document or b"null", *[json or b"null" for _, _, json in others]]
    count, size = documents.gets_left()
    meta: dict[str, object] = {
        "ahead": [(named.text, table) for named, table, _ in others],
        "left": {"docs": count, "bytes": size},
    }
    return SyscallReply(b"\n".join(texts), meta)


@syscall("1.0/insert", M)
async def insert(context: CallContext, args: bytes) -> SyscallReply:
    """A new document."""
    tree = parse(args)
    table = text_argument(tree, "table", "db.insert")
    document_id = await context.documents.insert(table, _object(tree, "db.insert"))
    return SyscallReply(b'{"_id":"%s"}' % document_id.encode("ascii"))


@syscall("1.0/shallowMerge", M)
async def patch(context: CallContext, args: bytes) -> SyscallReply:
    """Set or delete top-level fields."""
    tree = parse(args)
    document_id = text_argument(tree, "id", "db.patch")
    fields = _object(tree, "db.patch", allow_undefined=True)
    return SyscallReply(await context.documents.patch(document_id, fields, optional_text(tree, "table", "db.patch")))


@syscall("1.0/replace", M)
async def replace(context: CallContext, args: bytes) -> SyscallReply:
    """A new value for a document."""
    tree = parse(args)
    document_id = text_argument(tree, "id", "db.replace")
    value = _object(tree, "db.replace")
    return SyscallReply(await context.documents.replace(document_id, value, optional_text(tree, "table", "db.replace")))


@syscall("1.0/remove", M)
async def remove(context: CallContext, args: bytes) -> SyscallReply:
    """Delete a document."""
    tree = parse(args)
    document_id = text_argument(tree, "id", "db.delete")
    return SyscallReply(await context.documents.delete(document_id, optional_text(tree, "table", "db.delete")))


@syscall("1.0/count", Q_M)
async def count(context: CallContext, args: bytes) -> SyscallReply:
    """How many documents a table has."""
    table = text_argument(parse(args), "table", "db.count")
    return SyscallReply(str(await context.documents.count(table)).encode())


def open_query(context: CallContext, query_id: int, query: bytes) -> None:
    """``1.0/queryStream``: the query's errors come with its first page.

    :param query: JSON text of the query, or of the syscall's whole argument ``{query, version}``.
    """
    tree = parse(query)
    inner = tree.get("query")
    stream = context.documents.open_stream(inner if isinstance(inner, dict) and "source" not in tree else tree)
    context.queries[str(query_id)] = OpenQuery(stream)


@syscall("1.0/queryStreamNext", Q_M)
async def query_stream_next(context: CallContext, args: bytes) -> SyscallReply:
    """The next page of a stream; its first row, or the end, is consumed by asking."""
    tree = parse(args)
    query = context.queries.get(str(tree.get("queryId")))
    if query is None:
        raise BadRequest("QueryNotFound", "in-progress query not found")
    stream = query.stream
    while True:
        rows, done = await stream.fetch(query.page)
        if rows or done:
            break
    query.page = min(query.page * 2, OpenQuery.MAX_PAGE)
    stream.consume(1)
    documents, size = context.documents.left()
    return SyscallReply(
        b"\n".join(rows), {"rows": len(rows), "done": done, "left": {"docs": max(documents, 0), "bytes": max(size, 0)}}
    )


@syscall("1.0/queryPage", Q_M)
async def query_page(context: CallContext, args: bytes) -> SyscallReply:
    """One page of a paginated query; what its numbers may be is the transaction's business."""
    tree = parse(args)
    if "pageSize" not in tree:
        raise missing(tree, "pageSize", "queryPage", "a number")
    services = context.tree.services
    page = await context.documents.paginate(
        tree.get("query"),
        cursor=optional_text(tree, "cursor", "queryPage"),
        end_cursor=optional_text(tree, "endCursor", "queryPage"),
        page_size=tree["pageSize"],
        max_rows=tree.get("maximumRowsRead"),
        max_bytes=tree.get("maximumBytesRead"),
        journal_end_cursor=None if context.depth else context.tree.journal_end_cursor,
        seal=services.seal,
        unseal=services.unseal,
    )
    return SyscallReply(orjson.dumps(page))


SYSCALLS: tuple[Syscall, ...] = (
    get,
    insert,
    patch,
    replace,
    remove,
    count,
    query_stream_next,
    query_page,
)
