"""The pool over scripted children: admission, order, replay, quarantine, watchdog, cancellation, stop."""

from __future__ import annotations

from typing import Any

import orjson
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from convex_backend.errors import BadRequest, OccConflict, Overloaded, Rerun, ServerFault
from convex_backend.functions import frames
from convex_backend.functions.fleet import PoolOptions
from convex_backend.functions.limits import MEMORY_TEXT, SYSCALL_TIMEOUT_TEXT, USER_TIMEOUT_TEXT
from convex_backend.functions.outcome import FunctionFailed
from convex_backend.functions.pool_metrics import PoolMetrics
from convex_backend.functions.runner_pool import RunnerPool
from convex_backend.interfaces import FunctionError, Outcome, SyscallReply
from tests.functions.fakes import FakeChild, FakeHost, Spawner, advance, module_text, spec


class PoolCase(SynchronousTestCase):
    """A pool with one ready child, and helpers."""

    options: dict[str, Any] = {}
    kind = "isolate"

    def setUp(self) -> None:
        self.clock = Clock()
        self.spawner = Spawner()
        self.registry = CollectorRegistry()
        settings = {"kind": self.kind, "size": 1, "calls_per_child": 2, "max_waiting": 3, **self.options}
        self.pool = RunnerPool(
            self.clock, PoolOptions(**settings), self.spawner, module_text, PoolMetrics(self.registry)
        )
        started = Deferred.fromCoroutine(self.pool.start())
        if settings.get("eager", True):
            self.assertNoResult(started)
            self.spawner.children[0].hello()
        self.successResultOf(started)
        self.hosts: list[FakeHost] = []
        self.runs: list[Deferred[Outcome]] = []

    def tearDown(self) -> None:
        # What still runs or waits is ended here and not by the garbage collector.
        stopped = Deferred.fromCoroutine(self.pool.stop())
        for child in list(self.spawner.children):
            if not child.gone:
                child.die(code=0)
        self.successResultOf(stopped)
        for run in self.runs:
            run.addErrback(lambda failure: failure.trap(Overloaded))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @property
    def child(self) -> FakeChild:
        """The newest child."""
        return self.spawner.children[-1]

    def run_call(self, call_spec: Any = None, answer: Any = None) -> Deferred[Outcome]:
        def make_host() -> FakeHost:
            self.hosts.append(FakeHost(answer))
            return self.hosts[-1]

        run = Deferred.fromCoroutine(self.pool.run(call_spec or spec(), make_host))
        self.runs.append(run)
        return run

    def error_of(self, run: Deferred[Outcome]) -> FunctionError:
        error = self.successResultOf(run).error
        assert error is not None
        return error


class RunTests(PoolCase):
    """One call from START to its outcome."""

    def test_modules_then_start_then_result(self) -> None:
        """A child gets the modules that it has not seen, the START, and its RESULT becomes the outcome."""
        run = self.run_call()
        child = self.child
        self.assertEqual([f.kind for f in child.sent], [frames.MODULE, frames.MODULE, frames.START])
        start = orjson.loads(child.sent[-1].meta)
        self.assertEqual((start["kind"], start["module"], start["export"]), ("query", "m.js", "f"))
        self.assertEqual((start["closure"], start["parent"], start["root"]), ({"m.js": "h1"}, None, child.starts[0]))
        child.result(child.starts[0], b'"v"', observed={"time": True, "random": False, "env": ["A"]}, consumed={"0": 2})
        outcome = self.successResultOf(run)
        self.assertEqual((outcome.value, outcome.error, outcome.cpu_seconds), (b'"v"', None, 0.001))
        self.assertEqual(outcome.observed, {"time", "env:A"})
        self.assertEqual(self.hosts[0].reports, [{"0": 2}])
        self.assertEqual((self.hosts[0].completed, self.hosts[0].abandoned), (1, 0))

    def test_module_is_sent_once_per_child(self) -> None:
        """The second call of a module sends only its START."""
        self.run_call()
        self.child.result(self.child.starts[0])
        self.run_call()
        self.assertEqual(len(self.child.of_kind(frames.MODULE)), 2)
        self.assertEqual(len(self.child.starts), 2)

    def test_function_error_has_its_data(self) -> None:
        """A failed function is an outcome with text and data, not an exception."""
        run = self.run_call()
        self.child.failure(self.child.starts[0], "Uncaught ConvexError: x\n", data=b'"x"')
        self.assertEqual(self.error_of(run), FunctionError("Uncaught ConvexError: x\n", b'"x"', False))

    def test_syscalls_of_a_query_are_answered_one_by_one_in_order(self) -> None:
        """While one syscall waits the next ones do not begin, and answers keep the order."""
        first: Deferred[SyscallReply] = Deferred()
        self.run_call(answer=lambda op, args: first if args == b"1" else SyscallReply(args))
        call = self.child.starts[0]
        self.child.syscall(call, 1, body=b"1")
        self.child.syscall(call, 2, body=b"2")
        self.assertEqual([args for _, args in self.hosts[0].calls], [b"1"])
        first.callback(SyscallReply(b"one", {"done": True}))
        replies = self.child.of_kind(frames.SYSRESULT)
        self.assertEqual([(r.seq, r.meta, r.body) for r in replies], [(1, b'{"done":true}', b"one"), (2, b"", b"2")])

    def test_actions_have_eight_syscalls_in_flight(self) -> None:
        """The ninth syscall of an action waits until one of eight has been answered."""
        waiting: list[Deferred[SyscallReply]] = []

        def answer(op: str, args: bytes) -> Deferred[SyscallReply]:
            waiting.append(Deferred())
            return waiting[-1]

        self.run_call(spec("action"), answer)
        call = self.child.starts[0]
        for seq in range(10):
            self.child.syscall(call, seq)
        self.assertEqual(len(waiting), 8)
        waiting[3].callback(SyscallReply(b"null"))
        self.assertEqual(len(waiting), 9)
        self.assertEqual([r.seq for r in self.child.of_kind(frames.SYSRESULT)], [3])

    def test_user_error_is_thrown_into_javascript(self) -> None:
        """A user error becomes an error reply, a failed callee's with its data in the body."""
        errors = iter([BadRequest("Bad", "no such thing"), FunctionFailed(FunctionError("Uncaught x", b"7"))])
        run = self.run_call(answer=lambda op, args: next(errors))
        for seq in (1, 2):
            self.child.syscall(self.child.starts[0], seq)
        replies = [(orjson.loads(r.meta), r.body) for r in self.child.of_kind(frames.SYSRESULT)]
        self.assertEqual(
            replies, [({"error": {"message": "no such thing"}}, b""), ({"error": {"message": "Uncaught x"}}, b"7")]
        )
        self.assertNoResult(run)

    def test_transient_error_ends_the_run_and_reaches_the_caller(self) -> None:
        """A Rerun cannot be caught in JavaScript: the child is told to drop the call and ``run`` raises it."""
        run = self.run_call(answer=lambda op, args: Rerun("moved"))
        call = self.child.starts[0]
        self.child.syscall(call, 1)
        self.failureResultOf(run, Rerun)
        self.assertEqual([f.call for f in self.child.of_kind(frames.CANCEL)], [call])
        self.assertEqual((self.hosts[0].completed, self.hosts[0].abandoned), (0, 1))
        self.child.result(call)

    def test_action_sees_internal_errors_masked(self) -> None:
        """In an action everything can be caught; a fault of ours shows the fixed text, a conflict its own."""
        errors = iter([RuntimeError("secret"), OccConflict("t")])
        run = self.run_call(spec("action"), lambda op, args: next(errors))
        for seq in (1, 2):
            self.child.syscall(self.child.starts[0], seq)
        texts = [orjson.loads(r.meta)["error"]["message"] for r in self.child.of_kind(frames.SYSRESULT)]
        self.assertEqual(texts[0], ServerFault.MESSAGE)
        self.assertIn('the "t" table', texts[1])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertNoResult(run)

    def test_fault_hooks(self) -> None:
        """``throwOcc`` and ``throwOverloaded`` end the run with errors that the caller of ``run`` gets."""
        for kind, error in (("occ", OccConflict), ("overloaded", Overloaded)):
            run = self.run_call()
            self.child.failure(self.child.starts[-1], "x", kind)
            self.failureResultOf(run, error)

    def test_notices_are_not_answered(self) -> None:
        """``queryStream`` and ``queryCleanup`` reach the host in order and get no reply."""
        self.run_call()
        call = self.child.starts[0]
        self.child.syscall(call, 1, "1.0/queryStream", b'{"source":{}}', queryId=0)
        self.child.syscall(call, 2, "1.0/queryStreamNext", b'{"queryId":0}', consumed={"0": 4})
        self.child.syscall(call, 3, "1.0/queryCleanup", b'{"queryId":0}')
        host = self.hosts[0]
        self.assertEqual((host.opened, host.closed, host.reports), ([(0, b'{"source":{}}')], [0], [{"0": 4}]))
        self.assertEqual([r.seq for r in self.child.of_kind(frames.SYSRESULT)], [2])

    def test_cancelling_drops_the_call(self) -> None:
        """Cancelling ``run`` tells the child, abandons the host and frees the slot; late frames are ignored."""
        run = self.run_call()
        call = self.child.starts[0]
        run.addErrback(lambda failure: None)
        run.cancel()
        self.assertEqual([f.call for f in self.child.of_kind(frames.CANCEL)], [call])
        self.assertEqual(self.hosts[0].abandoned, 1)
        self.child.syscall(call, 1)
        self.assertEqual(self.hosts[0].calls, [])
        self.run_call()
        self.run_call()
        self.assertEqual(len(self.child.starts), 3)

    def test_broken_protocol_kills_the_child(self) -> None:
        """A RESULT that is none kills the child, and the call is tried again in another one."""
        self.run_call()
        self.child.frame(frames.RESULT, self.child.starts[0], 0, {"nonsense": 1})
        self.assertEqual(self.child.killed, "protocol")
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)


class NestedTests(PoolCase):
    """Calls inside calls (F6)."""

    options = {"calls_per_child": 1}

    def nest(self, child_host: FakeHost, kind: str = "mutation") -> Deferred[Outcome]:
        async def run_udf(op: str, args: bytes) -> SyscallReply:
            link = self.hosts[0].link
            assert link is not None
            outcome = await link.run_nested(spec("query"), child_host)
            if outcome.error is not None:
                raise FunctionFailed(outcome.error)
            assert outcome.value is not None
            return SyscallReply(outcome.value)

        return self.run_call(spec(kind), run_udf)

    def test_nested_call_runs_in_the_same_full_child(self) -> None:
        """A nested call starts in the parent's child although that has no free slot; logs go where the parent saw the answer."""
        run = self.nest(FakeHost())
        child = self.child
        child.syscall(child.starts[0], 9, "1.0/runUdf")
        parent, nested = child.starts
        start = orjson.loads(child.of_kind(frames.START)[1].meta)
        self.assertEqual((start["parent"], start["root"]), (parent, parent))
        line = {"messages": ["'in'"], "level": "LOG", "timestamp": 1}
        child.result(nested, b"5", logs=[line], observed={"random": True, "env": ["X"]})
        self.assertEqual([(r.seq, r.body) for r in child.of_kind(frames.SYSRESULT)], [(9, b"5")])
        out = {"messages": ["'out'"], "level": "WARN", "timestamp": 2}
        child.result(parent, b"6", logs=[out, {"nested": 9}, out])
        outcome = self.successResultOf(run)
        self.assertEqual(
            [(log.messages, log.udf_path) for log in outcome.log_lines],
            [(("'out'",), None), (("'in'",), "m.js:f"), (("'out'",), None)],
        )
        self.assertEqual(outcome.observed, {"random", "env:X"})

    def test_system_error_ends_the_whole_tree(self) -> None:
        """A nested call out of time fails the root with its text; the parent never gets an answer to catch."""
        nested_host = FakeHost()
        run = self.nest(nested_host)
        child = self.child
        child.syscall(child.starts[0], 1, "1.0/runUdf")
        child.failure(child.starts[1], USER_TIMEOUT_TEXT, "system")
        error = self.error_of(run)
        self.assertEqual((error.message, error.system), (USER_TIMEOUT_TEXT, True))
        self.assertEqual(child.of_kind(frames.SYSRESULT), [])
        self.assertEqual([f.call for f in child.of_kind(frames.CANCEL)], [child.starts[0]])
        self.assertEqual((nested_host.abandoned, self.hosts[0].abandoned), (1, 1))

    def test_transient_error_in_a_nested_call_reaches_the_caller(self) -> None:
        """A conflict inside a nested call ends the tree and is raised by ``run``."""
        run = self.nest(FakeHost(lambda op, args: OccConflict()))
        child = self.child
        child.syscall(child.starts[0], 1, "1.0/runUdf")
        child.syscall(child.starts[1], 1)
        self.failureResultOf(run, OccConflict)

    def test_nested_failure_can_be_caught(self) -> None:
        """A nested function's own error is thrown into the parent, which goes on."""
        run = self.nest(FakeHost())
        child = self.child
        child.syscall(child.starts[0], 1, "1.0/runUdf")
        child.failure(child.starts[1], "Uncaught Error: no\n")
        reply = child.of_kind(frames.SYSRESULT)[0]
        self.assertEqual(orjson.loads(reply.meta), {"error": {"message": "Uncaught Error: no\n"}})
        child.result(child.starts[0], b"2")
        self.assertEqual(self.successResultOf(run).value, b"2")


class AdmissionTests(PoolCase):
    """The bounded queue."""

    def test_full_queue_refuses(self) -> None:
        """Two run, three wait, the sixth is refused; a free slot goes to the first in line."""
        runs = [self.run_call() for _ in range(5)]
        self.assertEqual(len(self.child.starts), 2)
        refused = self.failureResultOf(self.run_call(), Overloaded)
        self.assertEqual(refused.value.code, "TooManyConcurrentRequests")
        self.child.result(self.child.starts[0])
        self.successResultOf(runs[0])
        self.assertEqual(len(self.child.starts), 3)

    def test_admitted_work_never_waits(self) -> None:
        """A re-run, or a call made by a running action, starts beyond the slots."""
        for _ in range(5):
            self.run_call()
        self.run_call(spec("mutation", admitted=True))
        self.assertEqual(len(self.child.starts), 3)

    def test_mutations_keep_half_of_the_slots(self) -> None:
        """With queries queued before it, a waiting mutation gets the next slot while mutations hold less than half."""
        for _ in range(4):
            self.run_call()
        self.run_call(spec("mutation"))
        self.child.result(self.child.starts[0])
        kinds = [orjson.loads(f.meta)["kind"] for f in self.child.of_kind(frames.START)]
        self.assertEqual(kinds, ["query", "query", "mutation"])
        self.child.result(self.child.starts[1])
        kinds = [orjson.loads(f.meta)["kind"] for f in self.child.of_kind(frames.START)]
        self.assertEqual(kinds[3], "query")

    def test_waiting_has_an_end(self) -> None:
        """A call that waited longer than the limit is refused."""
        for _ in range(2):
            self.run_call()
        waiting = self.run_call()
        advance(self.clock, 29)
        self.assertNoResult(waiting)
        advance(self.clock, 2)
        self.failureResultOf(waiting, Overloaded)

    def test_cancelled_waiter_leaves_the_queue(self) -> None:
        """A caller that goes away while it waits never starts."""
        self.run_call()
        self.run_call()
        gone = self.run_call()
        gone.addErrback(lambda failure: None)
        gone.cancel()
        self.child.result(self.child.starts[0])
        self.assertEqual(len(self.child.starts), 2)


class LossTests(PoolCase):
    """What happens to calls when their child goes away (F7)."""

    def tick(self, seconds: float = 0.1) -> None:
        advance(self.clock, seconds)

    def spare(self) -> FakeChild:
        """Bring the spare up."""
        advance(self.clock, 0.6)
        return self.child.hello()

    def test_only_the_announced_call_times_out(self) -> None:
        """A loop is killed after a second of CPU; the other call is replayed with a fresh host in the spare at once."""
        loop, innocent = self.run_call(spec("mutation")), self.run_call()
        first = self.child
        spare = self.spare()
        first.running(first.starts[0])
        self.tick()
        first.cpu = 0.9
        self.tick()
        self.assertIsNone(first.killed)
        first.cpu = 1.1
        self.tick()
        self.assertIsNotNone(first.killed)
        first.die(code=None, signal=9)
        self.assertEqual(self.error_of(loop), FunctionError(USER_TIMEOUT_TEXT, None, True))
        self.assertNoResult(innocent)
        self.assertEqual(len(spare.starts), 1)
        self.assertEqual(len(self.hosts), 3)
        self.assertEqual([h.abandoned for h in self.hosts], [1, 1, 0])
        spare.result(spare.starts[0], b"3")
        self.assertEqual(self.successResultOf(innocent).value, b"3")

    def test_cpu_of_other_entries_does_not_count(self) -> None:
        """Many short entries that burn seconds together are no loop."""
        self.run_call()
        child = self.child
        for entry in range(50):
            child.running(child.starts[0], entry)
            child.cpu += 0.5
            self.tick()
        self.assertIsNone(child.killed)

    def test_stopped_child_is_replaced_and_nobody_fails(self) -> None:
        """A child stopped by a signal burns no CPU; it is killed after two seconds and its calls are replayed."""
        run = self.run_call()
        first, spare = self.child, self.spare()
        first.running(first.starts[0])
        first.state = "T"
        self.tick(2.3)
        self.assertEqual(first.killed, "stopped")
        first.die(code=None, signal=9)
        spare.result(spare.starts[0])
        self.assertIsNone(self.successResultOf(run).error)

    def test_silent_child_is_replaced(self) -> None:
        """A child that runs nothing and asks nothing for long has forgotten its call."""
        self.run_call()
        first = self.child
        self.spare()
        self.tick(28)
        self.assertIsNone(first.killed)
        self.tick(3)
        self.assertEqual(first.killed, "silent")

    def alone(self) -> FakeChild:
        """The one live child that has a call, once every starting child has said hello."""
        for _ in range(3):
            for child in self.spawner.children:
                if not child.gone and not child.greeted:
                    child.hello()
            advance(self.clock, 0.6)
        busy = [child for child in self.spawner.children if child.unanswered and not child.gone and not child.closed]
        self.assertEqual(len(busy), 1)
        self.assertEqual(len(busy[0].unanswered), 1)
        return busy[0]

    def test_unannounced_death_sends_suspects_to_quarantine_one_by_one(self) -> None:
        """After a crash that nobody announced each call runs alone: the guilty one is tried twice, then the other one succeeds."""
        bad, good = self.run_call(), self.run_call()
        first = self.child
        self.spare()
        first.die(code=134)
        self.alone().die(code=134)
        self.assertNoResult(bad)
        # The queue for the quarantine is fair: the other suspect goes next, the first one's second try after it.
        second = self.alone()
        second.result(second.starts[0], b"2")
        self.assertEqual(self.successResultOf(good).value, b"2")
        # Its child has shown that it is sound, so the next one is not kept waiting for another.
        self.assertFalse(second.closed)
        self.assertIs(self.alone(), second)
        second.die(code=134)
        self.assertEqual(self.error_of(bad), FunctionError(ServerFault.MESSAGE, None, True))
        self.assertEqual([host.losses for host in self.hosts], [1, 1, 1, 0, 1])
        self.assertEqual(len(self.hosts), 5)

    def test_signals_in_quarantine_do_not_count(self) -> None:
        """A suspect whose quarantine children are killed or stopped from outside, or do not start, is tried on, and succeeds."""
        run = self.run_call()
        first = self.child
        first.running(first.starts[0])
        first.die(code=139)
        for _ in range(2):
            self.alone().die(code=None, signal=9)
        stopped = self.alone()
        stopped.state = "T"
        self.tick(2.2)
        self.assertEqual(stopped.killed, "stopped")
        stopped.die(code=None, signal=9)
        self.assertNoResult(run)
        alone = self.alone()
        alone.result(alone.starts[0], b"4")
        self.assertEqual(self.successResultOf(run).value, b"4")

    def test_signals_without_end(self) -> None:
        """Even so it is tried only so often."""
        run = self.run_call()
        first = self.child
        first.running(first.starts[0])
        first.die(code=139)
        for _ in range(6):
            self.assertNoResult(run)
            self.alone().die(code=None, signal=9)
        self.assertEqual(self.error_of(run).message, ServerFault.MESSAGE)

    def test_out_of_memory_in_quarantine_is_the_calls_own(self) -> None:
        """A suspect that runs out of memory alone gets the memory text at once."""
        run = self.run_call()
        first = self.child
        first.running(first.starts[0])
        first.die(stderr="FATAL ERROR: JavaScript heap out of memory", code=134)
        self.alone().die(stderr="FATAL ERROR: JavaScript heap out of memory", code=134)
        self.assertEqual(self.error_of(run), FunctionError(MEMORY_TEXT, None, True))

    def test_announced_suspect_only(self) -> None:
        """In a crash with an announcement only the announced call is quarantined, the other one is simply replayed."""
        self.run_call()
        self.run_call()
        first, spare = self.child, self.spare()
        first.running(first.starts[1])
        first.die(code=139)
        self.assertEqual(len(spare.starts), 1)
        spare.result(spare.starts[0])
        alone = self.alone()
        self.assertIsNot(alone, spare)
        alone.result(alone.starts[0])
        self.assertTrue(alone.closed)
        self.assertFalse(spare.closed)

    def test_too_many_system_operations(self) -> None:
        """A query whose syscalls take 15 s in all ends with the text; the child lives on."""
        run = self.run_call(answer=lambda op, args: Deferred())
        self.child.syscall(self.child.starts[0], 1)
        first = self.child
        self.tick(14.8)
        self.assertNoResult(run)
        self.tick(0.5)
        self.assertEqual(self.error_of(run).message, SYSCALL_TIMEOUT_TEXT)
        self.assertIsNone(first.killed)

    def test_large_child_is_replaced_when_idle(self) -> None:
        """A child over its memory bound gets no new calls, ends its old ones, and is closed."""
        run = self.run_call()
        first, spare = self.child, self.spare()
        first.rss = 10**10
        self.tick(1.1)
        self.run_call()
        self.assertEqual((len(first.starts), len(spare.starts)), (1, 1))
        self.assertFalse(first.closed)
        first.result(first.starts[0])
        self.successResultOf(run)
        self.assertTrue(first.closed)

    def test_restart_backs_off(self) -> None:
        """Children that die before their hello are tried again later and later; who waits gets a system error after the third."""
        self.child.die(code=1)
        self.assertEqual(len(self.spawner.children), 2)
        run = self.run_call()
        self.child.die(code=1, stderr="boom")
        for seconds in (0.1, 0.2):
            count = len(self.spawner.children)
            self.clock.advance(seconds - 0.05)
            self.assertEqual(len(self.spawner.children), count)
            self.assertNoResult(run)
            self.clock.advance(0.1)
            self.assertEqual(len(self.spawner.children), count + 1)
            self.child.die(code=1, stderr="boom")
        self.failureResultOf(run, ServerFault)
        self.clock.advance(0.5)
        self.child.hello()
        run = self.run_call()
        self.child.result(self.child.starts[0])
        self.successResultOf(run)


class ActionTests(PoolCase):
    """Actions are executed at most once."""

    kind = "action"
    options = {"eager": False}

    def test_lazy_pool_starts_with_the_first_call(self) -> None:
        """No child before the first action; the action runs when the child has said hello."""
        self.assertEqual(self.spawner.children, [])
        run = self.run_call(spec("action"))
        self.child.hello()
        self.child.frame(
            frames.LOG,
            self.child.starts[0],
            0,
            {"lines": [{"messages": ["'hi'"], "level": "INFO", "timestamp": 3}]},
        )
        self.assertEqual([line.messages for line in self.hosts[0].lines], [("'hi'",)])
        self.child.result(self.child.starts[0])
        self.assertEqual([line.messages for line in self.successResultOf(run).log_lines], [("'hi'",)])

    def test_streamed_lines_are_bounded(self) -> None:
        """An action that logs without end costs 257 lines here, and its outcome has 256."""
        run = self.run_call(spec("action"))
        self.child.hello()
        lines = [{"messages": ["x"], "level": "LOG", "timestamp": 1}] * 200
        for _ in range(3):
            self.child.frame(frames.LOG, self.child.starts[0], 0, {"lines": lines})
        self.assertEqual(len(self.hosts[0].lines), 257)
        self.child.result(self.child.starts[0])
        self.assertEqual(len(self.successResultOf(run).log_lines), 256)

    def test_lost_action_is_not_run_again(self) -> None:
        """An action that loses its child fails with the fixed text, whoever was running."""
        run = self.run_call(spec("action"))
        self.child.hello()
        self.child.die(code=None, signal=9)
        self.assertEqual(self.error_of(run), FunctionError(ServerFault.MESSAGE, None, True))
        self.assertEqual(len(self.hosts), 1)

    def test_action_time_limit_is_wall_time(self) -> None:
        """An action over its limit ends with the text; one that only waits does not cost its child."""
        run = self.run_call(spec("action", timeout=3))
        self.child.hello()
        advance(self.clock, 3.3)
        self.assertEqual(self.error_of(run).message, "Function execution timed out (maximum duration: 3s)")
        self.assertIsNone(self.child.killed)


class StopTests(PoolCase):
    """An orderly end."""

    def test_stop_ends_everything(self) -> None:
        """Running and waiting calls get ``Overloaded``, children are closed, and stop returns when they are reaped."""
        runs = [self.run_call() for _ in range(3)]
        stopped = Deferred.fromCoroutine(self.pool.stop())
        for run in runs:
            self.failureResultOf(run, Overloaded)
        self.assertTrue(all(child.closed for child in self.spawner.children))
        self.assertNoResult(stopped)
        for child in list(self.spawner.children):
            child.die(code=0)
        self.successResultOf(stopped)
        self.failureResultOf(self.run_call(), Overloaded)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class StartTests(SynchronousTestCase):
    """The first child."""

    def test_start_fails_when_the_first_child_does(self) -> None:
        """A child that exits before its hello is a start-up error that shows what it said."""
        clock, spawner = Clock(), Spawner()
        pool = RunnerPool(clock, PoolOptions("isolate", 1), spawner, module_text, PoolMetrics(CollectorRegistry()))
        started = Deferred.fromCoroutine(pool.start())
        spawner.children[0].die(code=1, stderr="node: bad option")
        self.assertIn("node: bad option", str(self.failureResultOf(started, ServerFault).value))

    def test_silent_start_is_killed(self) -> None:
        """No hello within ten seconds: killed."""
        clock, spawner = Clock(), Spawner()
        pool = RunnerPool(clock, PoolOptions("isolate", 1), spawner, module_text, PoolMetrics(CollectorRegistry()))
        started = Deferred.fromCoroutine(pool.start())
        clock.advance(10.1)
        self.assertIn("no hello", spawner.children[0].killed or "")
        spawner.children[0].die(code=None, signal=9)
        self.failureResultOf(started, ServerFault)

    def test_stop_during_start(self) -> None:
        """A server that stops while its first child starts says so, and does not blame the child."""
        clock, spawner = Clock(), Spawner()
        pool = RunnerPool(clock, PoolOptions("isolate", 1), spawner, module_text, PoolMetrics(CollectorRegistry()))
        started = Deferred.fromCoroutine(pool.start())
        stopped = Deferred.fromCoroutine(pool.stop())
        spawner.children[0].die(code=0)
        self.failureResultOf(started, Overloaded)
        self.successResultOf(stopped)
        self.assertEqual(clock.getDelayedCalls(), [])
