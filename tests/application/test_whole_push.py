"""A push from beginning to end on behalf of somebody who waits for one answer (``application/whole_push.py``)."""

from __future__ import annotations

from typing import Any

import pytest

from convex_backend.application.types import Caller
from convex_backend.application.whole_push import SchemaRefused, push_whole
from convex_backend.errors import BadRequest, Conflict, Overloaded
from tests.application.push_support import ADMIN, Deployment, function, module, run, schema, table

CALLER = Caller("HttpApi", "deploy-api", None, "0" * 16)
APP = module("messages.js", functions=[function("list")])


class Scripted:
    """A deployment whose wait gives one state after the other; it notes the steps."""

    def __init__(self, *states: dict[str, Any]) -> None:
        self.states = list(states)
        self.steps: list[str] = []

    async def start_push(self, tree: Any, identity: Any) -> Any:
        self.steps.append("start")
        return {"schemaChange": {"pushId": "p"}}

    async def wait_for_schema(self, tree: Any, identity: Any) -> Any:
        assert tree["schemaChange"] == {"pushId": "p"}
        self.steps.append("wait")
        return self.states.pop(0)

    async def finish_push(self, tree: Any, identity: Any, caller: Any) -> Any:
        assert tree["startPush"] == {"schemaChange": {"pushId": "p"}}
        assert (tree["message"], caller) == ("why", CALLER)
        self.steps.append("finish")
        return {"done": True}


def push(deploy: Any) -> Any:
    return run(push_whole(deploy, {}, ADMIN, CALLER, "why"))


PROGRESS = {"type": "inProgress", "components": {}}


def test_waits_until_it_is_complete() -> None:
    """Start, as many waits as it takes, finish with the message and the caller."""
    deploy = Scripted(PROGRESS, PROGRESS, {"type": "complete"})
    assert push(deploy) == {"done": True}
    assert deploy.steps == ["start", "wait", "wait", "wait", "finish"]


@pytest.mark.parametrize(
    ("states", "kind", "code", "text"),
    [
        ([{"type": "raceDetected"}], Conflict, "RaceDetected", "Another push came between."),
        (
            [{"type": "failed", "error": "no fit", "componentPath": "", "tableName": "t"}],
            SchemaRefused,
            "SchemaValidationFailed",
            "Schema validation failed: no fit",
        ),
        (
            [{"type": "failed", "error": "no fit", "componentPath": "a/b", "tableName": None}],
            SchemaRefused,
            "SchemaValidationFailed",
            'Schema validation failed in component "a/b": no fit',
        ),
        ([PROGRESS] * 9, Overloaded, "SchemaNotReady", "Checking the stored documents"),
    ],
)
def test_ends_without_finishing(states: list[Any], kind: type[Exception], code: str, text: str) -> None:
    """A schema that does not fit, another push, and work that takes too long each have an error; nothing is finished then."""
    deploy = Scripted(*states)
    with pytest.raises(kind) as caught:
        push(deploy)
    assert caught.value.code == code  # type: ignore[attr-defined]
    assert str(caught.value).startswith(text)
    assert "finish" not in deploy.steps


def test_with_a_real_deployment() -> None:
    """Rows that do not fit the new schema leave the old code serving; the text names table and document."""
    app = Deployment()
    app.push(APP, schema=schema(table("messages")))
    (document,) = app.store.insert("messages", {"body": 1.0})
    strict = schema(table("messages", {"body": {"type": "string"}}))
    request = app.request(module("other.js", functions=[function("f")]), schema=strict)
    with pytest.raises(BadRequest, match=f'"{document}" in table "messages" does not match the schema'):
        app.eventually(lambda: push_whole(app.deploy, request, ADMIN, CALLER, None))
    assert app.resolve("messages:list") is not None
    assert app.resolve("other:f") is None
    good = app.request(module("other.js", functions=[function("f")]))
    app.eventually(lambda: push_whole(app.deploy, good, ADMIN, CALLER, None))
    assert app.resolve("messages:list") is None
    assert app.resolve("other:f") is not None
