"""The function directory (A8)."""

from __future__ import annotations

import pytest

from tests.application.push_support import CLOUD, Deployment, function, module, run

A1 = module("a.js", functions=[function("f"), function("act", "Action", "internal")], dynamic=["lazy.js"])
LAZY = module("lazy.js", functions=[])


@pytest.fixture
def app() -> Deployment:
    return Deployment()


def test_an_older_snapshot_sees_its_own_code(app: Deployment) -> None:
    """A run at a timestamp resolves the code of that time, from memory and from history alike."""
    app.push(A1, LAZY)
    old = app.resolve("a:f")
    ts = app.db.committer.durable_ts
    transaction = app.db.begin("query", ts=ts)
    run(transaction.ensure_begun())
    app.push(module("a.js", functions=[function("g")]))
    assert app.resolve("a:f") is None
    assert app.resolve("a:f", transaction) is old
    transaction.close()
    app.directory.start()  # as after a restart: the window is empty
    transaction = app.db.begin("query", ts=ts)
    run(transaction.ensure_begun())
    found = app.resolve("a:f", transaction)
    transaction.close()
    assert found is not None
    assert old is not None
    assert found.closure == old.closure


def test_only_actions_carry_dynamic_imports(app: Deployment) -> None:
    """The closure of a query is what static imports reach; an action's takes in dynamic ones."""
    app.push(A1, LAZY)
    query, action = app.resolve("a:f"), app.resolve("a:act")
    assert query is not None
    assert action is not None
    assert [ref.path for ref in query.closure] == ["a.js"]
    assert [ref.path for ref in action.closure] == ["a.js", "lazy.js"]
    assert action.visibility == "internal"


def test_import_clock_and_seed_belong_to_those_who_look(app: Deployment) -> None:
    """A push with another seed makes new functions only of modules whose import phase looks at it."""
    clock = module("clock.js", functions=[function("f")], importTime=True)
    app.push(A1, LAZY, clock)
    plain, timed = app.resolve("a:f"), app.resolve("clock:f")
    app.push(module("b.js", functions=[]), unchanged=[A1, LAZY, clock])
    assert app.resolve("a:f") is plain
    again = app.resolve("clock:f")
    assert again is not timed
    assert again is not None
    assert timed is not None
    assert again.import_seed != timed.import_seed


def test_observed_names_are_read(app: Deployment) -> None:
    """A variable that a run looked at is a point of its reads, set or not; others are not."""
    app.push(A1, LAZY)
    hits: dict[str, list[int]] = {"SEEN": [], "OTHER": [], "config": []}
    function_ = app.resolve("a:f")
    assert function_ is not None
    for observed, calls in (("env:SEEN", hits["SEEN"]), ("env:OTHER", hits["OTHER"]), ("import_time", hits["config"])):
        transaction = app.db.begin("query")
        run(transaction.ensure_begun())
        app.directory.observed(transaction, function_, frozenset((observed, "time")))
        app.db.subscribe(transaction.read_token(), transaction.snapshot.ts, calls.append)
        transaction.close()
    run(app.environment.update([("SEEN", "1")]))
    assert [len(calls) for calls in hits.values()] == [1, 0, 0]
    app.push(module("b.js"), unchanged=[A1, LAZY])
    assert [len(calls) for calls in hits.values()] == [1, 0, 1]
    app.directory.observed(None, function_, frozenset(("env:X",)))


def test_environment_versions(app: Deployment) -> None:
    """The environment has the built-in variables; its version changes with the variables and only then."""
    first = run(app.directory.environment(None, 0))
    assert first.variables["CONVEX_CLOUD_URL"] == CLOUD
    run(app.environment.update([("A", "1")]))
    second = run(app.directory.environment(None, 0))
    assert (second.variables["A"], second.version == first.version) == ("1", False)
    app.push(A1, LAZY)
    assert run(app.directory.environment(None, 0)) is second
    run(app.environment.update([("A", None)]))
    assert run(app.directory.environment(None, 0)).version == first.version


def test_unused_texts_are_kept_for_a_while(app: Deployment) -> None:
    """A text that no module uses any more can still be loaded, until its grace is over."""
    app.rows.texts_in_use = None  # the history of pushes would keep it
    app.push(A1, LAZY)
    old = app.resolve("a:f")
    assert old is not None
    digest = old.closure[0].hash
    app.push(LAZY)
    assert run(app.rows.module_text(digest)).path == "a.js"
    app.store.clock.ns += 4 * 86_400 * 10**9
    app.push(LAZY, module("b.js"))
    with pytest.raises(KeyError):
        run(app.rows.module_text(digest))


def test_a_failed_commit_is_forgotten(app: Deployment) -> None:
    """A5: states of commits that did not become durable are dropped."""
    app.push(A1, LAZY)
    kept = app.directory.newest
    app.push(LAZY)
    app.directory._drop_after(kept.ts)
    assert app.directory.newest is kept
    assert app.resolve("a:f") is not None
