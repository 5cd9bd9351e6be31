"""``_system/frontend/fileStorageV2:…``: what a dashboard asks about files and does with them."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from convex_backend.application.calls import Target
from convex_backend.application.types import Identity
from convex_backend.errors import BadRequest, Forbidden
from convex_backend.values.ids import encode_id
from convex_backend.values.json_codec import dumps
from convex_backend.values.paths import FunctionPath
from tests.application.push_support import ADMIN, Deployment
from tests.database.documents import run

FIRST = {"cursor": None, "numItems": 2.0}
NAME = "_system/frontend/fileStorageV2"


@pytest.fixture
def app() -> Deployment:
    return Deployment()


def stored(app: Deployment, *contents: bytes) -> list[str]:
    return [run(app.files.store(None, 0, content, "text/plain", None)) for content in contents]


def change(app: Deployment, function: str, args: dict[str, object], identity: Identity = ADMIN) -> object:
    """Run a system mutation and commit it."""
    transaction = app.db.begin("mutation")
    wanted = Target(FunctionPath.parse(f"{NAME}:{function}"), "", True)
    try:
        value = run(app.system.run_mutation(transaction, wanted, dumps(args), identity))
        run(app.db.commit(transaction))
        return value
    finally:
        transaction.close()


def test_lists_files_with_their_urls(app: Deployment) -> None:
    """Files by creation, newest first by default, in pages, within inclusive times, each with its URL; a count beside."""
    assert app.ask(f"{NAME}:numFiles") == 0
    assert app.ask(f"{NAME}:fileMetadata", {"paginationOpts": FIRST})["page"] == []
    ids = stored(app, b"a", b"bb", b"ccc")
    assert app.ask(f"{NAME}:numFiles") == 3
    page = app.ask(f"{NAME}:fileMetadata", {"paginationOpts": FIRST})
    assert [row["_id"] for row in page["page"]] == ids[:0:-1]
    assert not page["isDone"]
    rest = app.ask(f"{NAME}:fileMetadata", {"paginationOpts": {**FIRST, "cursor": page["continueCursor"]}})
    assert [row["_id"] for row in rest["page"]] == ids[:1]
    row = rest["page"][0]
    assert (row["size"], row["contentType"]) == (1.0, "text/plain")
    assert row["url"] == run(app.files.url(None, 0, ids[0]))
    times = {row["_id"]: row["_creationTime"] for row in [*page["page"], *rest["page"]]}
    bounded = {"order": "asc", "minCreationTime": times[ids[0]], "maxCreationTime": times[ids[1]]}
    found = app.ask(f"{NAME}:fileMetadata", {"paginationOpts": FIRST, "filters": bounded})
    assert [row["_id"] for row in found["page"]] == ids[:2]
    assert app.ask(f"{NAME}:getFile", {"storageId": ids[0]}) == row
    assert app.ask(f"{NAME}:getFile", {"storageId": encode_id(540, bytes(16))}) is None


def test_the_system_table_in_the_data_view(app: Deployment) -> None:
    """``_storage`` is no user table, but its documents can be paged and fetched."""
    (file,) = stored(app, b"a")
    names = app.ask("_system/cli/tables", {"paginationOpts": FIRST})["page"]
    assert names == []
    page = app.ask("_system/cli/tableData", {"table": "_storage", "order": "asc", "paginationOpts": FIRST})
    assert [row["_id"] for row in page["page"]] == [file]
    assert app.ask("_system/frontend/getById", {"id": file})["_id"] == file
    listed = app.ask("_system/frontend/listById", {"ids": [{"id": file, "tableName": "_file_storage"}]})
    assert [row["_id"] for row in listed] == [file]
    assert app.ask("_system/frontend/tableSize:sizeOfAllTables") == 0


def test_deletes_all_or_none(app: Deployment) -> None:
    """One missing file fails the whole deletion; a read-only key deletes nothing."""
    ids = stored(app, b"a", b"b", b"c")
    missing = encode_id(540, bytes(16))
    with pytest.raises(BadRequest, match=f"storage id {missing} not found"):
        change(app, "deleteFiles", {"storageIds": [ids[0], missing]})
    assert app.ask(f"{NAME}:numFiles") == 3
    assert change(app, "deleteFiles", {"storageIds": ids[:2]}) is None
    assert change(app, "deleteFile", {"storageId": ids[2]}) is None
    assert app.ask(f"{NAME}:numFiles") == 0
    with pytest.raises(Forbidden):
        change(app, "deleteFile", {"storageId": ids[2]}, Identity("admin", read_only=True))


def test_makes_upload_urls(app: Deployment) -> None:
    """The URL's token takes a file."""
    url = change(app, "generateUploadUrl", {})
    assert isinstance(url, str)
    token = parse_qs(urlsplit(url).query)["token"][0]
    upload = app.files.begin_upload(token, None, None)
    upload.feed(b"x")
    assert run(upload.finish()).size == 1
