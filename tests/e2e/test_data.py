"""The database as the official clients see it: reactive pages, commit timestamps, cursors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Server, convex, make_app, node, running


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server to which the app of data has been pushed."""
    app = make_app(tmp_path_factory.mktemp("data"), "data")
    with running(tmp_path_factory.mktemp("server")) as server:
        convex(app, server, "dev", "--once")
        server.app = app
        yield server


def test_react_pages_under_changes(data: Server) -> None:
    """``usePaginatedQuery`` shows no row twice and misses none while rows come, go and move; a page that grows is split; the last page goes on."""
    churn, split, end = node(data.app, "react_pages.mjs", data)
    assert churn == {"churn": []}
    assert (split["split"], split["renders"]) == ([], True)
    assert split["rows"] > 40
    assert end == {"end": []}


def test_commit_timestamps(data: Server) -> None:
    """The placeholder reads back as itself, is a bigint in the answer, the documents and live results, and orders commits."""
    (answer,) = node(data.app, "commit_ts.mjs", data)
    assert answer == {
        "read": True,
        "bigints": True,
        "same": True,
        "unique": 6,
        "later": 3,
        "live": True,
        "census": 6,
    }


def test_a_foreign_cursor_is_a_convex_error(data: Server) -> None:
    """The function sees a ``ConvexError`` with the data by which clients know that they have to begin again."""
    expected = {"isConvexSystemError": True, "paginationError": "InvalidCursor"}
    assert data.value("query", "data:cursorError", {"cursor": "no cursor"}) == expected
    page = data.value("query", "data:page", {"paginationOpts": {"numItems": 1, "cursor": None}})
    assert data.value("query", "data:cursorError", {"cursor": page["continueCursor"]}) == expected


@pytest.mark.slow
def test_staged_validators_with_the_cli(data: Server, tmp_path: Path) -> None:
    """``convex deploy`` tells how a staged type stands, asks before it is thrown away, and applies a validated one without a scan."""
    app = make_app(tmp_path, "data")
    schema = app / "convex" / "schema.ts"
    plain = schema.read_text()
    data.value("mutation", "data:add", {"ranks": [1, 2, 3], "label": "staged"})
    proposal = "{ rank: v.number(), label: v.string(), note: v.optional(v.null()) }"
    narrower = "{ label: v.union(...Array.from({ length: 50 }, (_, n) => v.literal(`${n}`)), v.literal('none')) }"

    def deploy(text: str, *options: str, check: bool = True) -> str:
        schema.write_text(text)
        return convex(app, data, "deploy", "-y", *options, check=check)

    def with_staged(fields: str) -> str:
        return plain.replace('.index("by_rank", ["rank"])', f'.index("by_rank", ["rank"]).staged({fields})')

    deploy(with_staged(proposal))
    assert "ranked: validated. Safe to apply the staged schema changes and deploy." in deploy(with_staged(proposal))
    refused = deploy(plain, check=False)
    assert "This push discards staged schema validation for the following table" in refused
    assert "--allow-unstaging-schema" in refused
    assert refused.endswith("[exit 1]")
    deploy(with_staged(narrower), "--allow-unstaging-schema")
    failed = deploy(with_staged(narrower))
    assert re.search(r'ranked: failed: Document with ID "\w+" in table "ranked" does not match the schema: ', failed)
    deploy(plain)
