"""Pages that are run again while rows come, go and move: together they are always the beginning of the whole result (statements 30 and 31)."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.database.documents import Store, collect, index_query, run
from tests.database.test_pagination import fresh

_CHANGES = st.lists(
    st.tuples(st.sampled_from(["add", "move", "remove", "more", "split"]), st.integers(0, 30), st.integers(0, 9)),
    max_size=25,
)


class Pages:
    """A client's loaded pages, as ``usePaginatedQuery`` keeps them.

    Each has a start cursor and, but for pages that came out of a split, only the journal of its first run for an end.
    """

    def __init__(self, store: Store, query: dict[str, Any], size: int) -> None:
        self.store, self.query, self.size = store, query, size
        self.ranges: list[tuple[str | None, str | None, str | None]] = [(None, None, None)]

    def results(self) -> tuple[list[str], bool, list[dict[str, Any]]]:
        """Ids of all rows, whether the last page is done, and the pages. Journals are kept as a client keeps them."""
        pages = []
        for position, (start, end, journal) in enumerate(self.ranges):
            page = fresh(self.store, self.query, start, self.size, end, journal_end_cursor=journal)
            self.ranges[position] = (start, end, page["continueCursor"])
            pages.append(page)
        ids = [row["_id"] for page in pages for row in page["page"]]
        return ids, pages[-1]["isDone"], pages

    def more(self, pages: list[dict[str, Any]]) -> None:
        if not pages[-1]["isDone"]:
            self.ranges.append((pages[-1]["continueCursor"], None, None))

    def split(self, position: int, pages: list[dict[str, Any]]) -> None:
        page = pages[position]
        if page["splitCursor"] is not None:
            start, _, _ = self.ranges[position]
            middle, end = page["splitCursor"], page["continueCursor"]
            self.ranges[position : position + 1] = [(start, middle, None), (middle, end, None)]


@settings(max_examples=60, deadline=None)
@given(_CHANGES, st.integers(1, 4), st.sampled_from(["asc", "desc"]))
def test_pages_are_the_beginning_of_the_whole(changes: Any, size: int, order: str) -> None:
    """Whatever happens to the rows, no page boundary shows a row twice or loses one; a split changes nothing that is shown."""
    store = Store()
    store.make_index("t", "by_n", "n")
    ids = store.insert("t", *[{"n": float(n)} for n in range(0, 20, 3)])
    query = index_query("t.by_n", order=order)
    pages = Pages(store, query, size)
    for kind, where, rank in changes:
        shown, _, loaded = pages.results()
        if kind == "more":
            pages.more(loaded)
        elif kind == "split":
            pages.split(where % len(pages.ranges), loaded)
            assert pages.results()[0] == shown
        elif kind == "add":
            ids += store.insert("t", {"n": float(rank * 2)})
        elif ids:
            document_id = ids[where % len(ids)]
            transaction = store.mutation()
            if kind == "move":
                run(transaction.patch(document_id, {"n": float(rank * 2 + 1)}))
            else:
                ids.remove(document_id)
                run(transaction.delete(document_id))
            store.commit(transaction)
        shown, done, _ = pages.results()
        whole = [orjson.loads(row)["_id"] for row in collect(store.query(), query)]
        assert shown == whole[: len(shown)]
        assert not done or shown == whole
    run(store.db.stop())


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_page_is_told_of_rows_at_its_borders_only_once(order: str) -> None:
    """A row that is written belongs to the read set of one of two neighbours: the other one is not run again."""
    store = Store()
    store.make_index("t", "by_n", "n")
    store.insert("t", *[{"n": float(n)} for n in range(10)])
    query = index_query("t.by_n", order=order)
    told: list[list[int]] = [[], []]
    cursor = None
    for position in range(2):
        reader = store.query()
        answer = run(
            reader.paginate(
                query,
                cursor=cursor,
                end_cursor=None,
                page_size=3,
                seal=lambda data: data.hex(),
                unseal=bytes.fromhex,
            )
        )
        cursor = answer["continueCursor"]
        store.db.subscribe(reader.read_token(), reader.snapshot_ts or 0, told[position].append)
        reader.close()
    border = 2.0 if order == "asc" else 7.0
    beyond = border + (0.5 if order == "asc" else -0.5)
    store.insert("t", {"n": beyond})
    assert [bool(calls) for calls in told] == [False, True]
    store.insert("t", {"n": border - (0.5 if order == "asc" else -0.5)})
    assert [len(calls) for calls in told] == [1, 1]
    run(store.db.stop())
