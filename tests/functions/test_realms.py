"""Which runs may share a JavaScript context, and what the server makes of what children say of it."""

from __future__ import annotations

from typing import Any

import attrs
import orjson
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from convex_backend.functions.pool_metrics import PoolMetrics
from convex_backend.functions.runner_pool import PoolOptions, RunnerPool
from convex_backend.interfaces import ModuleRef
from tests.functions.fakes import FakeHost, Spawner, module_text, spec

KEPT = {"reused": True, "discard": "", "fresh_only": False}


class RealmTests(SynchronousTestCase):
    """A pool with a scripted child."""

    def start(self, **settings: Any) -> None:
        """Start a pool."""
        self.clock = Clock()
        self.registry = CollectorRegistry()
        self.spawner = Spawner()
        self.pool = RunnerPool(
            self.clock, PoolOptions("isolate", 1, **settings), self.spawner, module_text, PoolMetrics(self.registry)
        )
        started = Deferred.fromCoroutine(self.pool.start())
        self.spawner.children[0].hello()
        self.successResultOf(started)

    def tearDown(self) -> None:
        """End the pool and its child."""
        stopped = Deferred.fromCoroutine(self.pool.stop())
        for child in list(self.spawner.children):
            if not child.gone:
                child.die(code=0)
        self.successResultOf(stopped)

    def run_once(self, realm: bool = True, report: dict[str, Any] | None = None, hash: str = "h1") -> bool:
        """Run a query whose child answers with *report*; returns whether it was allowed to share its context."""
        call = attrs.evolve(spec(hash=hash), realm=realm)
        run = Deferred.fromCoroutine(self.pool.run(call, lambda: FakeHost(None)))
        child = self.spawner.children[-1]
        meta = orjson.loads(child.sent[-1].meta)
        child.result(child.starts[-1], b"1", **({} if report is None else {"realm": report}))
        self.assertEqual(self.successResultOf(run).value, b"1")
        return bool(meta["realm"])

    def value(self, name: str, **labels: str) -> float:
        """A metric of the pool, 0 if it was never counted."""
        return self.registry.get_sample_value(f"convex_functions_{name}", {"pool": "isolate", **labels}) or 0.0

    def test_off_by_default(self) -> None:
        """Without the setting no run may share its context, whatever the push said."""
        self.start()
        self.assertFalse(self.run_once())

    def test_only_modules_that_the_push_allows(self) -> None:
        """With the setting the push's verdict decides."""
        self.start(reuse_realms=True)
        self.assertTrue(self.run_once())
        self.assertFalse(self.run_once(realm=False))

    def test_counters(self) -> None:
        """Runs by what their context was, contexts dropped by reason, modules by verdict."""
        self.start(reuse_realms=True)
        self.run_once(report=KEPT | {"reused": False})
        self.run_once(report=KEPT)
        self.run_once(report=KEPT | {"discard": "ended_badly"})
        self.run_once(report=KEPT | {"discard": "globalThis: keys"})
        self.run_once(report=KEPT, hash="h2")
        self.assertEqual(self.value("realm_runs_total", context="new"), 1)
        self.assertEqual(self.value("realm_runs_total", context="reused"), 4)
        self.assertEqual(self.value("realm_discards_total", reason="ended_badly"), 1)
        self.assertEqual(self.value("realm_discards_total", reason="changed"), 1)
        self.assertEqual(self.value("realm_modules", verdict="realm"), 2)
        self.assertEqual(self.value("realm_modules", verdict="fresh_only"), 0)

    def test_a_marked_module_is_marked_for_all_children(self) -> None:
        """What one child found holds for that version of the module, and for no other."""
        self.start(reuse_realms=True)
        self.run_once(report=KEPT | {"discard": "globalThis: keys", "fresh_only": True})
        self.assertFalse(self.run_once())
        self.assertTrue(self.run_once(hash="h2"))
        self.assertEqual(self.value("realm_modules", verdict="fresh_only"), 1)
        self.assertEqual(self.value("realm_modules", verdict="realm"), 0)

    def test_a_mismatch_switches_the_setting_off(self) -> None:
        """A sample that differs ends sharing for the whole process and is logged."""
        self.start(reuse_realms=True)
        self.run_once(report={"mismatch": "m.js:f, result"})
        self.assertFalse(self.run_once())
        self.assertFalse(self.run_once(hash="h2"))
        self.assertEqual(self.value("realm_runs_total", context="mismatch"), 1)

    def test_the_code_is_named_by_module_and_hash(self) -> None:
        """A closure may hold other modules before the one that is called."""
        self.start(reuse_realms=True)
        call = attrs.evolve(spec(), realm=True, closure=(ModuleRef("a.js", "h9"), ModuleRef("m.js", "h1")))
        run = Deferred.fromCoroutine(self.pool.run(call, lambda: FakeHost(None)))
        child = self.spawner.children[-1]
        child.result(child.starts[-1], b"1", realm=KEPT | {"discard": "x: y", "fresh_only": True})
        self.successResultOf(run)
        self.assertFalse(self.run_once())
