"""New indexes over existing rows, index states, and the check of existing rows against a new schema."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convex_backend.database import background_steps
from convex_backend.database.backfill import SchemaValidation, build_progress
from convex_backend.database.catalog import BACKFILLED, BACKFILLING, ENABLED
from convex_backend.database.system_tables import SCHEMAS
from convex_backend.database.tables import add_index, remove_index, set_index_state
from convex_backend.errors import BadRequest, OccConflict
from convex_backend.values.schema import SchemaDefinition
from tests.database.documents import Store, collect, index_query, run


def numbers(rows):
    return [orjson.loads(row)["n"] for row in rows]


def add(store, name="by_n", fields=("n", "_creationTime"), **options):
    transaction = store.system()
    run(transaction.ensure_begun())
    index = run(add_index(transaction, transaction.catalog.table(0, "t"), name, fields=fields, **options))
    store.commit(transaction)
    return index.row_id


def state(store, row_id):
    return store.db.catalogs.newest.index_rows[row_id].state


def enable(store, row_id, **options):
    transaction = store.system()
    run(transaction.ensure_begun())
    run(set_index_state(transaction, transaction.catalog.index_rows[row_id], ENABLED, **options))
    store.commit(transaction)


def query_text(store, name):
    query = store.query()
    with pytest.raises(BadRequest) as caught:
        run(query.open_stream(index_query(name)).fetch(1))
    query.close()
    return caught.value.code, caught.value.message


@pytest.fixture
def store():
    store = Store()
    store.insert("t", *[{"n": float(n)} for n in (3, 1, 2)])
    yield store
    run(store.db.stop())


def test_states_of_an_index(store):
    """backfilling → backfilled in the background → enabled by a push; a query has a text for each."""
    row_id = add(store)
    assert state(store, row_id) == BACKFILLING
    backfilling = (
        "IndexBackfillingError",
        "Index t.by_n is currently backfilling and not available to query yet.",
    )
    assert query_text(store, "t.by_n") == backfilling
    store.settle(0.5)
    assert state(store, row_id) == BACKFILLED
    assert query_text(store, "t.by_n") == backfilling
    enable(store, row_id)
    assert numbers(collect(store.query(), index_query("t.by_n"))) == [1, 2, 3]
    assert store.db.backfill.building() == []


def test_a_staged_index_is_built_but_not_queryable(store):
    """A staged index says so once it is built, and becomes queryable without a rebuild."""
    row_id = add(store, staged=True)
    store.settle(0.5)
    assert query_text(store, "t.by_n") == (
        "IndexStagedError",
        "Index t.by_n is currently staged and not available to query until it is enabled.",
    )
    enable(store, row_id, staged=False)
    assert numbers(collect(store.query(), index_query("t.by_n"))) == [1, 2, 3]


def test_search_and_vector_indexes_are_recorded_only(store):
    """A text search fails with a clear text; a search index is no database index."""
    row_id = add(store, "by_text", fields=(), kind="search", spec={"searchField": "body", "filterFields": []})
    assert state(store, row_id) == BACKFILLED
    query = store.query()
    search = {"source": {"type": "Search", "indexName": "t.by_text", "filters": []}, "operators": []}
    with pytest.raises(BadRequest) as caught:
        run(query.open_stream(search).fetch(1))
    assert caught.value.message == (
        "Search index t.by_text: text search is not available in this version of convex-backend yet."
    )
    query.close()
    assert query_text(store, "t.by_text")[0] == "IndexNotFoundError"
    store.insert("t", {"n": 4.0, "body": "x"})


def test_a_mutation_that_did_not_know_the_index_runs_again(store):
    """A write that began before the index was added cannot commit without its key."""
    transaction = store.mutation()
    run(transaction.insert("t", {"n": 9.0}))
    add(store)
    with pytest.raises(OccConflict):
        store.commit(transaction)


def test_a_query_of_an_absent_index_depends_on_it(store):
    """A live query that failed because its index is missing is told when the index is enabled."""
    query = store.query()
    with pytest.raises(BadRequest):
        run(query.open_stream(index_query("t.by_n")).fetch(1))
    told: list[int] = []
    store.db.subscribe(query.read_token(), query.snapshot_ts, told.append)
    query.close()
    row_id = add(store)
    store.settle(0.5)
    enable(store, row_id)
    assert len(told) == 1


def test_removed_index_is_gone_and_remembered_for_cleaning(store):
    """After removal a query does not find the index, writes do not keep it, and its id is noted for deletion."""
    row_id = add(store)
    store.settle(0.5)
    enable(store, row_id)
    transaction = store.system()
    run(transaction.ensure_begun())
    index = transaction.catalog.index_rows[row_id]
    run(remove_index(transaction, index))
    store.commit(transaction)
    assert query_text(store, "t.by_n")[0] == "IndexNotFoundError"
    row = run(store.system().system.lookup("_backend_state", "by_key", (f"dropped_index:{index.id}",)))
    assert row[1]["index"] == index.id


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.integers(0, 9), min_size=1, max_size=25),
    writes=st.lists(
        st.tuples(st.sampled_from(["insert", "patch", "delete"]), st.integers(0, 40), st.integers(0, 9)), max_size=20
    ),
    step=st.integers(1, 5),
    restart_at=st.integers(0, 20),
)
def test_backfill_with_concurrent_writes_and_a_restart(rows, writes, step, restart_at):
    """With writes between the steps and a restart in the middle, the built index equals the table."""
    previous, background_steps.STEP_ROWS = background_steps.STEP_ROWS, step
    try:
        store = Store()
        ids = dict(zip(store.insert("t", *[{"n": float(n)} for n in rows]), rows, strict=True))
        before_ts = store.db.committer.durable_ts
        row_id = add(store)
        for position, (kind, target, n) in enumerate(writes):
            if position == restart_at:
                run(store.db.stop())
                store = Store(store.persistence, seed=position + 7)
            store.settle(0.02)
            transaction = store.mutation()
            if kind == "insert" or not ids:
                ids[run(transaction.insert("t", {"n": float(n)}))] = n
            else:
                chosen = sorted(ids)[target % len(ids)]
                if kind == "patch":
                    run(transaction.patch(chosen, {"n": float(n)}))
                    ids[chosen] = n
                else:
                    run(transaction.delete(chosen))
                    del ids[chosen]
            store.commit(transaction)
        store.settle(2)
        assert state(store, row_id) == BACKFILLED
        enable(store, row_id)
        for order in ("asc", "desc"):
            found = numbers(collect(store.query(), index_query("t.by_n", order=order)))
            assert found == sorted(ids.values(), reverse=order == "desc")
        index = store.db.catalogs.newest.index_rows[row_id]
        # The entries carry the timestamps of their documents' versions, so the index also holds at a time before it was made.
        old = store.persistence.scan_index_at(index.id, b"", None, False, 1000, before_ts)
        assert {row.ts for row in old.result} <= {before_ts}
        entries = store.persistence.scan_index(index.id, b"", None, False, 1000)
        assert len(entries) == len(ids)
        assert run(store.system().system.scan("_backend_state", "by_key", (f"backfill:{index.id}",))) == []
        run(store.db.stop())
    finally:
        background_steps.STEP_ROWS = previous


SCHEMA = {
    "tables": [
        {
            "tableName": "t",
            "indexes": [],
            "documentType": {"type": "object", "value": {"n": {"fieldType": {"type": "number"}, "optional": False}}},
        }
    ],
    "schemaValidation": True,
}


def of_type(fields):
    """:data:`SCHEMA` with another type of its table."""
    return {**SCHEMA, "tables": [{**SCHEMA["tables"][0], "documentType": {"type": "object", "value": fields}}]}


def submit(store, tree=SCHEMA, schema_state="pending"):
    transaction = store.system()
    row_id = run(
        transaction.system.insert(
            SCHEMAS.name,
            {
                "component": 0,
                "state": schema_state,
                "schema": SchemaDefinition.parse(tree).to_text(),
                "error": None,
                "table": None,
            },
        )
    )
    store.commit(transaction)
    return row_id


def schema_row(store, row_id):
    return run(store.system().system.get(SCHEMAS.name, row_id))[1]


def test_existing_rows_are_validated(store):
    """Rows that fit make the schema ``validated``; progress says what was done."""
    row_id = submit(store)
    job = SchemaValidation(store.db, row_id)
    job.start()
    assert not job.progress.done
    store.settle(0.5)
    run(job.wait())
    assert schema_row(store, row_id)["state"] == "validated"
    assert (job.progress.tables_done, job.progress.tables_total, job.progress.documents_checked) == (1, 1, 3)


def test_an_existing_row_that_does_not_fit_fails_the_schema(store):
    """The first bad row's id is in the text."""
    (bad,) = store.insert("t", {"n": "x"})
    row_id = submit(store)
    job = SchemaValidation(store.db, row_id)
    job.start()
    store.settle(0.5)
    row = schema_row(store, row_id)
    assert (row["state"], row["table"]) == ("failed", "t")
    assert row["error"] == (
        f'Document with ID "{bad}" in table "t" does not match the schema: Value does not match validator.\n'
        'Path: .n\nValue: "x"\nValidator: v.float64()'
    )


def test_tables_the_active_schema_vouches_for_are_not_walked(store):
    """A schema equal to the active one is validated without looking at any row."""
    submit(store, schema_state="active")
    row_id = submit(store)
    job = SchemaValidation(store.db, row_id)
    job.start()
    store.settle(0.5)
    assert schema_row(store, row_id)["state"] == "validated"
    assert job.progress.documents_checked == 0


def test_a_wider_type_needs_no_walk(store):
    """Every row that the active schema vouches for fits a type that takes more; a narrower one has to be looked at."""
    submit(store, schema_state="active")
    number, text = {"type": "number"}, {"type": "string"}
    wider = of_type({"n": {"fieldType": {"type": "union", "value": [text, number]}, "optional": True}})
    narrower = of_type({"n": {"fieldType": {"type": "literal", "value": 3.0}, "optional": False}})
    for tree, verdict, checked in ((wider, "validated", False), (narrower, "failed", True)):
        row_id = submit(store, tree)
        job = SchemaValidation(store.db, row_id)
        job.start()
        store.settle(0.5)
        assert schema_row(store, row_id)["state"] == verdict
        assert (job.progress.documents_checked > 0) is checked


def test_steps_read_little_of_large_documents(store):
    """A step over large rows takes few of them, one over small rows many; the index is complete in the end."""
    store.insert("t", *[{"n": float(n), "text": "x" * 100_000} for n in range(30)])
    sizes = []
    before = store.db.committer.persistence.scan_documents

    def watched(tablet, lower, upper, reverse, limit):
        rows = before(tablet, lower, upper, reverse, limit)
        if len(rows) > 1:
            sizes.append(sum(len(row.json) for row in rows))
        return rows

    store.persistence.scan_documents = watched
    row_id = add(store)
    store.settle(2)
    assert state(store, row_id) == BACKFILLED
    # The first step does not know the rows yet.
    assert max(sizes[1:]) <= 2 * background_steps.STEP_BYTES
    enable(store, row_id)
    assert len(collect(store.query(), index_query("t.by_n"))) == 33


def test_the_progress_of_a_build_is_told(store):
    """While an index is built its progress can be read, and whoever has read it is told of more."""
    store.insert("t", *[{"n": float(n)} for n in range(100)])
    row_id = add(store)
    told = []
    query = store.query()
    run(query.ensure_begun())
    index = query.catalog.index_rows[row_id]
    assert run(build_progress(query, index)) == (0, None)
    store.db.subscribe(query.read_token(), query.snapshot_ts, told.append)
    store.timers.advance(0)
    store.timers.advance(0)
    assert told
    query = store.query()
    done, total = run(build_progress(query, index))
    assert 0 < done < total == 103
    store.settle(1)
    assert state(store, row_id) == BACKFILLED


def test_a_stopped_validation_leaves_the_schema_pending(store):
    """Stopping ends the job without a verdict."""
    row_id = submit(store)
    job = SchemaValidation(store.db, row_id)
    job.start()
    run(job.stop())
    assert job.progress.done
    assert schema_row(store, row_id)["state"] == "pending"


def test_the_active_schema_is_enforced_on_every_write(store):
    """Insert, replace and patch against the active schema fail with the text of section 4.7; other tables take everything."""
    submit(store, schema_state="active")
    (good,) = store.insert("t", {"n": 5.0})
    store.insert("elsewhere", {"anything": True})
    prefix = 'Failed to insert or update a document in table "t" because it does not match the schema: '
    for write in (
        lambda tx: tx.insert("t", {"n": "x"}),
        lambda tx: tx.replace(good, {"n": "x"}),
        lambda tx: tx.patch(good, {"n": "x"}),
    ):
        transaction = store.mutation()
        with pytest.raises(BadRequest) as caught:
            run(write(transaction))
        assert caught.value.code == "SchemaEnforcementError"
        assert caught.value.message == (
            prefix + 'Value does not match validator.\nPath: .n\nValue: "x"\nValidator: v.float64()'
        )
        transaction.close()


def test_a_write_that_only_the_pending_schema_refuses_marks_it_failed(store):
    """The write succeeds; the pending schema fails in the same commit, with the text about a new document."""
    row_id = submit(store)
    transaction = store.mutation()
    run(transaction.insert("t", {"n": "x"}))
    assert schema_row(store, row_id)["state"] == "pending"
    store.commit(transaction)
    row = schema_row(store, row_id)
    assert (row["state"], row["table"]) == ("failed", "t")
    assert row["error"].startswith(
        'New document in table "t" does not match the schema: Value does not match validator.'
    )
    assert store.db.catalogs.newest.pending == {}


def test_a_rolled_back_write_does_not_fail_the_pending_schema(store):
    """When the write is undone, so is the verdict."""
    row_id = submit(store)
    transaction = store.mutation()
    savepoint = transaction.savepoint()
    run(transaction.insert("t", {"n": "x"}))
    transaction.rollback_to(savepoint)
    run(transaction.insert("t", {"n": 1.0}))
    store.commit(transaction)
    assert schema_row(store, row_id)["state"] == "pending"


def test_a_mutation_that_did_not_know_the_schema_runs_again(store):
    """A write that began before the schema became pending conflicts with it."""
    transaction = store.mutation()
    run(transaction.insert("t", {"n": "x"}))
    submit(store)
    with pytest.raises(OccConflict):
        store.commit(transaction)


def test_ids_in_schemas_are_checked_by_table(store):
    """``v.id("other")`` takes an id of that table, and of a table made in the same transaction."""
    tree = {
        "tables": [
            {
                "tableName": "t",
                "indexes": [],
                "documentType": {
                    "type": "object",
                    "value": {"o": {"fieldType": {"type": "id", "tableName": "o"}, "optional": False}},
                },
            }
        ],
        "schemaValidation": True,
    }
    submit(store, tree, "active")
    transaction = store.mutation()
    other = run(transaction.insert("o", {}))
    mine = run(transaction.insert("t", {"o": other}))
    with pytest.raises(BadRequest) as caught:
        run(transaction.insert("t", {"o": mine}))
    assert f'Found ID "{mine}" from table `t`' in caught.value.message
    store.commit(transaction)
