"""Analysis over a scripted child, and module hashes."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from convex_backend.errors import Overloaded, ServerFault
from convex_backend.functions import frames
from convex_backend.functions.analyze import (
    Analysis,
    AnalysisFailed,
    AnalysisSpec,
    AnalyzedFunction,
    Analyzer,
    SourcePosition,
    read_module,
)
from convex_backend.functions.modules import closure_refs, module_text, runnable_hash, upload_hash
from convex_backend.interfaces import ModuleRef
from tests.functions.fakes import FakeChild, Spawner, advance

MODULE = module_text("foo.js", "export const f = 1;", "{}")
RESULT = {
    "functions": [
        {
            "name": "f",
            "udfType": "Query",
            "visibility": {"kind": "public"},
            "args": '{"type":"any"}',
            "returns": None,
            "pos": {"path": "foo.ts", "start_lineno": 3, "start_col": 7},
        },
        {"name": "g", "udfType": "Mutation", "visibility": None, "args": None, "returns": None, "pos": None},
    ],
    "httpRoutes": None,
    "cronSpecs": None,
    "reuseContext": False,
    "closure": ["foo.js", "_deps/A.js"],
}


def spec(path: str = "foo.js") -> AnalysisSpec:
    """Analyse one module."""
    return AnalysisSpec("module", path, {"foo.js": MODULE.hash}, {"A": "b"}, bytes(32), 5.0)


class AnalysisCase(SynchronousTestCase):
    """One open analysis."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.spawner = Spawner()
        self.analyzer = Analyzer(self.clock, self.spawner)

    def open(self) -> Analysis:
        opened = Deferred.fromCoroutine(self.analyzer.open_analysis([MODULE]))
        self.assertNoResult(opened)
        self.child.hello()
        return self.successResultOf(opened)

    @property
    def child(self) -> FakeChild:
        return self.spawner.children[-1]

    def answer(self, call: int, result: Any = None, error: str | None = None) -> None:
        meta = {"ok": True} if error is None else {"ok": False, "error": {"message": error}}
        assert self.child.listener is not None
        body = orjson.dumps(result) if error is None else b""
        self.child.listener.frame_received(self.child, frames.Frame(frames.ANALYZED, call, 0, orjson.dumps(meta), body))

    def test_module(self) -> None:
        """The modules are sent first, then the question; the answer is typed."""
        analysis = self.open()
        asked = Deferred.fromCoroutine(analysis.module(spec()))
        self.assertEqual([f.kind for f in self.child.sent], [frames.MODULE, frames.MODULE, frames.ANALYZE])
        meta = orjson.loads(self.child.sent[-1].meta)
        self.assertEqual((meta["what"], meta["path"], meta["modules"]), ("module", "foo.js", {"foo.js": MODULE.hash}))
        self.answer(self.child.sent[-1].call, RESULT)
        module = self.successResultOf(asked)
        self.assertEqual(
            module.functions,
            (
                AnalyzedFunction("f", "query", "public", '{"type":"any"}', None, SourcePosition("foo.ts", 3, 7)),
                AnalyzedFunction("g", "mutation", None, None, None, None),
            ),
        )
        self.assertEqual((module.closure, module.http_routes), (("foo.js", "_deps/A.js"), None))

    def test_failure_is_the_developers(self) -> None:
        """A module that cannot be loaded fails with the child's text."""
        analysis = self.open()
        asked = Deferred.fromCoroutine(analysis.module(spec()))
        self.answer(1, error="Failed to analyze foo.js: Uncaught Error: x")
        failure = self.failureResultOf(asked, AnalysisFailed)
        self.assertEqual(str(failure.value), "Failed to analyze foo.js: Uncaught Error: x")

    def test_time_limit(self) -> None:
        """An analysis that burns more than four seconds is killed and named; the others end with a fault."""
        analysis = self.open()
        loop = Deferred.fromCoroutine(analysis.module(spec()))
        other = Deferred.fromCoroutine(analysis.module(spec("bar.js")))
        self.child.running(1)
        advance(self.clock, 0.2)
        self.child.cpu = 3.9
        advance(self.clock, 0.2)
        self.assertIsNone(self.child.killed)
        self.child.cpu = 4.2
        advance(self.clock, 0.2)
        self.assertIsNotNone(self.child.killed)
        self.child.die(code=None, signal=9)
        failure = self.failureResultOf(loop, AnalysisFailed)
        self.assertEqual(str(failure.value), "Function execution timed out (maximum duration: 4s)")
        self.failureResultOf(other, ServerFault)
        self.failureResultOf(Deferred.fromCoroutine(analysis.module(spec())), ServerFault)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_and_stop(self) -> None:
        """Closing ends what waits and returns when the child is reaped; stop closes what is open."""
        analysis = self.open()
        asked = Deferred.fromCoroutine(analysis.module(spec()))
        closed = analysis.close()
        stopped = Deferred.fromCoroutine(self.analyzer.stop())
        self.failureResultOf(asked, Overloaded)
        self.assertNoResult(closed)
        self.child.die(code=0)
        self.successResultOf(closed)
        self.successResultOf(stopped)
        self.successResultOf(analysis.close())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_child_that_does_not_start(self) -> None:
        """A child that exits before its hello is a fault of ours, with what it said."""
        opened = Deferred.fromCoroutine(self.analyzer.open_analysis([MODULE]))
        self.child.die(code=1, stderr="bad flag")
        self.assertIn("bad flag", str(self.failureResultOf(opened, ServerFault).value))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_malformed_answers(self) -> None:
        """An answer without its members is a fault of ours."""
        for broken in ({}, {"functions": [{}], "closure": []}, {"functions": None}):
            self.assertRaises(ServerFault, read_module, broken)


def test_upload_hash_is_the_clis() -> None:
    """The CLI's hash is over source and source map, joined."""
    assert upload_hash("ab", "c") == hashlib.sha256(b"abc").hexdigest()
    assert upload_hash("ab", None) == hashlib.sha256(b"ab").hexdigest()


def test_runnable_hash_tells_paths_and_borders_apart() -> None:
    """What a child runs differs by path, and text cannot move between source and map unnoticed."""
    hashes = {
        runnable_hash("a.js", "xy", None),
        runnable_hash("b.js", "xy", None),
        runnable_hash("a.js", "x", "y"),
        runnable_hash("a.js", "", "xy"),
    }
    assert len(hashes) == 4


def test_closure_refs() -> None:
    """A closure becomes refs in path order, each once."""
    refs = closure_refs(["b.js", "a.js", "b.js"], {"a.js": "1", "b.js": "2", "c.js": "3"})
    assert refs == (ModuleRef("a.js", "1"), ModuleRef("b.js", "2"))
