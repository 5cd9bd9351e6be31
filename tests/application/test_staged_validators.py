"""Staged validators: checked in the background, kept by writes, promoted without a walk (``push.md`` section 13)."""

from __future__ import annotations

from typing import Any

import pytest

from convex_backend.database.background_steps import STEP_ROWS
from tests.application.push_support import Deployment, run, schema, table

NUMBER: Any = {"type": "number"}
STRING: Any = {"type": "string"}
EITHER: Any = {"type": "union", "value": [NUMBER, STRING]}


def of(**fields: Any) -> Any:
    """An object type of required *fields*."""
    return {
        "type": "object",
        "value": {name: {"fieldType": kind, "optional": False} for name, kind in fields.items()},
    }


def staged(proposed: Any, kind: Any = NUMBER) -> dict[str, Any]:
    """A schema whose table ``t`` has one field, of type *kind*, for which *proposed* is staged."""
    return schema({**table("t", {"a": kind}), "stagedDocumentType": proposed})


def plain(kind: Any) -> dict[str, Any]:
    """The schema without the staged type."""
    return schema(table("t", {"a": kind}))


@pytest.fixture
def app() -> Deployment:
    app = Deployment()
    app.push(schema=plain(EITHER))
    app.store.insert("t", {"a": 1.0}, {"a": 2.0})
    return app


def evaluation(app: Deployment, wanted: dict[str, Any]) -> dict[str, Any]:
    [one] = run(app.deploy.evaluate_schema(app.request(schema=wanted)))["componentSchemaEvaluations"].values()
    return one


def told(app: Deployment, wanted: dict[str, Any]) -> Any:
    """What the CLI is told of table ``t`` when *wanted* is about to be pushed."""
    return evaluation(app, wanted)["tables"][0].get("staged")


def settle(app: Deployment, seconds: float = 2.0) -> None:
    app.store.settle(seconds)


def test_existing_documents_are_checked_in_the_background(app: Deployment) -> None:
    """The push finishes at once; the verdict comes later; the type in force stays in force."""
    wanted = staged(of(a=NUMBER), EITHER)
    app.push(schema=wanted)
    assert told(app, wanted)["state"] in ("pending", "valid")
    settle(app)
    assert told(app, wanted) == {"state": "valid"}
    app.store.insert("t", {"a": "text"})


def test_a_document_that_does_not_fit_fails_it(app: Deployment) -> None:
    """The error names the document; a push tries again, and succeeds when the document is mended."""
    (bad,) = app.store.insert("t", {"a": "text"})
    wanted = staged(of(a=NUMBER), EITHER)
    app.push(schema=wanted)
    settle(app)
    verdict = told(app, wanted)
    assert verdict["state"] == "failed"
    assert verdict["error"].startswith(f'Document with ID "{bad}" in table "t" does not match the schema: Value does')
    transaction = app.store.mutation()
    run(transaction.patch(bad, {"a": 5.0}))
    app.store.commit(transaction)
    app.push(schema=wanted)
    settle(app)
    assert told(app, wanted) == {"state": "valid"}


def test_a_write_that_does_not_fit_succeeds_and_fails_it(app: Deployment) -> None:
    """While it is staged every write is checked against it, also after the walk."""
    wanted = staged(of(a=NUMBER), EITHER)
    app.push(schema=wanted)
    settle(app)
    app.store.insert("t", {"a": 3.0})
    assert told(app, wanted) == {"state": "valid"}
    app.store.insert("t", {"a": "text"})
    verdict = told(app, wanted)
    assert verdict["error"].startswith('New document in table "t" does not match the schema: Value does not match')
    assert evaluation(app, plain(EITHER))["discardedStagedValidators"] == []


def test_promotion_needs_no_walk(app: Deployment) -> None:
    """The staged type becomes the enforced one: the CLI is told so, and no document is read."""
    app.push(schema=staged(of(a=NUMBER), EITHER))
    settle(app)
    wanted = plain(NUMBER)
    found = evaluation(app, wanted)
    assert found["tables"][0]["outcome"] == "supersetOfStagedValidated"
    assert found["discardedStagedValidators"] == []
    started = app.start(schema=wanted)
    assert app.wait(started) == {"type": "complete"}
    [push] = [one for one in app.deploy._pushes.values() if one.id == started["schemaChange"]["pushId"]]
    assert [one.progress.documents_checked for one in push.validations] == [0]
    app.finish(started)
    assert run(app.db.begin("query").system.scan("_staged_validators")) == []
    with pytest.raises(Exception, match="does not match the schema"):
        app.store.insert("t", {"a": "text"})


def test_promotion_before_the_verdict_walks(app: Deployment) -> None:
    """Until the walk has ended the table must be walked, and the CLI may say that waiting would spare it."""
    app.push(schema=staged(of(a=NUMBER), EITHER))
    [one] = evaluation(app, plain(NUMBER))["tables"]
    assert (one["outcome"], one["canSkipAfterStagedValidation"], one["staged"]["totalDocs"]) == ("mustWalk", True, 2)
    app.push(schema=plain(NUMBER))


def test_what_a_push_would_discard(app: Deployment) -> None:
    """Removing or replacing a staged type that was not promoted is told with what it had come to."""
    app.push(schema=staged(of(a=NUMBER), EITHER))
    settle(app)
    removed = evaluation(app, plain(EITHER))["discardedStagedValidators"]
    assert removed == [{"tableName": "t", "state": {"state": "valid"}, "replaced": False}]
    other = staged(of(a=STRING), EITHER)
    [replaced] = evaluation(app, other)["discardedStagedValidators"]
    assert replaced["replaced"] is True
    app.push(schema=other)
    settle(app)
    assert told(app, other)["state"] == "failed"
    app.push()
    assert run(app.db.begin("query").system.scan("_staged_validators")) == []


def test_the_walk_goes_on_after_a_restart(app: Deployment) -> None:
    """How far it is stands in the row; another server goes on there."""
    app.store.insert("t", *[{"a": float(n)} for n in range(3 * STEP_ROWS)])
    wanted = staged(of(a=NUMBER), EITHER)
    app.push(schema=wanted)
    for _ in range(3):
        app.store.timers.advance(0.002)
    before = told(app, wanted)
    assert before["state"] == "pending"
    assert 0 < before["numDocsValidated"] < before["totalDocs"]
    run(app.db.stop())
    again = Deployment(app.store.persistence)
    assert told(again, wanted)["numDocsValidated"] == before["numDocsValidated"]
    settle(again)
    assert told(again, wanted) == {"state": "valid"}
    row = run(again.db.begin("query").system.lookup("_staged_validators", "by_table", (0, "t")))
    assert row is not None
    assert row[1]["checked"] == 3 * STEP_ROWS + 2


def test_nothing_is_staged_without_validation(app: Deployment) -> None:
    """``schemaValidation: false`` checks nothing, staged types included."""
    wanted = schema({**table("t", {"a": NUMBER}), "stagedDocumentType": of(a=STRING)}, validation=False)
    app.push(schema=wanted)
    settle(app)
    assert told(app, wanted) is None
    app.store.insert("t", {"anything": True})
