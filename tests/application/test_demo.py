"""When the demo is deployed, and when nothing is touched (``application/demo.py``)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from convex_backend.application.demo import Demo, DemoFiles, DemoState
from convex_backend.application.types import Caller, Identity
from tests.application.push_support import Deployment, function, module, run

SOURCE = json.dumps({"functions": [function("list")]})
NEWER = json.dumps({"functions": [function("list"), function("send", "Mutation")]})


class Deploys:
    """Deploys the modules of a request as they are."""

    def __init__(self, app: Deployment) -> None:
        self.app = app
        self.requests: list[Any] = []

    async def deploy(self, tree: Any, identity: Identity, caller: Caller) -> None:
        self.requests.append(tree)
        modules = [{**module(path), "source": source} for path, source in tree["functions"].items()]
        started = await self.app.deploy.start_push(self.app.request(*modules), identity)
        await self.app.deploy.finish_push({"startPush": started, "message": tree["message"]}, identity, caller)


def start(app: Deployment, source: str = SOURCE) -> tuple[DemoState, Demo, list[Any]]:
    """Start the demo whose one module is *source*. :returns: its state, itself, and what it deployed."""
    deploys = Deploys(app)
    demo = Demo(
        database=app.db,
        store=app.rows,
        history=app.history,
        simple_deploy=deploys,  # type: ignore[arg-type]
        read_files=lambda: DemoFiles({"messages.js": source}, {"": b"page", "page.js": b"script"}),
    )
    return run(demo.start()), demo, deploys.requests


def test_deployed_where_nothing_is() -> None:
    """An empty deployment gets the functions and the page, and the history says who did it."""
    app = Deployment()
    state, demo, requests = start(app)
    assert state is DemoState.DEPLOYED
    assert requests == [{"functions": {"messages.js": SOURCE}, "message": "The demo"}]
    assert app.resolve("messages:list") is not None
    assert (demo.page(""), demo.page("page.js"), demo.page("other")) == (b"page", b"script", None)
    transaction = app.db.begin("query")
    (entry,) = run(app.history.entries(transaction))
    transaction.close()
    assert (entry.client, entry.message) == ("demo", "The demo")


def test_there_again_at_the_next_start() -> None:
    """A second start deploys nothing and offers the page."""
    app = Deployment()
    start(app)
    state, demo, requests = start(app)
    assert (state, requests, demo.page("")) == (DemoState.PRESENT, [], b"page")


def test_an_older_demo_is_replaced() -> None:
    """After an update of the server the page and the functions belong together again."""
    app = Deployment()
    start(app)
    state, _, requests = start(app, NEWER)
    assert (state, len(requests)) == (DemoState.PRESENT, 1)
    assert app.resolve("messages:send") is not None


@pytest.mark.parametrize("what", ["an app", "an app after the demo", "a table"])
def test_nothing_is_touched_where_something_is(what: str) -> None:
    """An app, whatever came before it, or a mere table is left alone; there is no page."""
    app = Deployment()
    if what == "an app after the demo":
        start(app)
    if what == "a table":
        app.store.insert("mine", {"a": 1.0})
    else:
        app.push(module("mine.js", functions=[function("f")]))
    state, demo, requests = start(app)
    assert (state, requests, demo.page("")) == (DemoState.NOT_EMPTY, [], None)
    assert app.resolve("messages:list") is None
