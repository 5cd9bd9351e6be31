# ruff: noqa: E501 - JavaScript texts
"""What a run shows to user code and to Python: isolation, batches, pages, nesting, limits, determinism."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.runner.harness import (
    CANCEL,
    LOG,
    RESULT,
    START,
    SYSCALL,
    SYSRESULT,
    Child,
    ChildDied,
    Failure,
    page,
)
from tests.runner.samples import HEAD, REGISTER

FUNCTIONS = (
    HEAD
    + """
let count = 0;
const importTime = Date.now(), importRandom = Math.random(), home = process.env.HOME_TOWN;
const tick = () => Promise.resolve();
export const counter = query(() => { globalThis.seen = (globalThis.seen ?? 0) + 1; Array.prototype.mine = 1; return [++count, globalThis.seen]; });
export const never = query(() => new Promise(() => {}));
export const neverAfter = query(async () => { await call("1.0/get"); await new Promise(() => {}); });
export const spin = query(() => { for (;;); });
export const spinAfterAwait = query(async () => { await tick(); for (;;); });
export const slow = query(() => { const end = 2e9; let x = 0; for (let i = 0; i < end; i++) x += i; return x; });
export const clock = query(async () => { const a = Date.now(); await call("1.0/get"); return [a, Date.now(), new Date().getTime(), +new Date(5), typeof Date(), importTime, performance.now()]; });
export const dice = query(() => [Math.random(), Math.random(), importRandom]);
export const pure = query(() => 1);
export const environment = query(() => [process.env.A, process.env.B ?? null, home, typeof process.env.inspect, Object.keys(process), "A" in process.env]);
export const badName = query(() => process.env["not-a-name"]);
export const parallel = mutation(async () => {
  const order = [];
  const one = (op, n) => call(op, { n }).then(() => order.push(n), (e) => order.push(e.message));
  await Promise.all([one("1.0/get", 1), one("1.0/get", 2), one("1.0/insert", 3), one("1.0/get", 4), one("1.0/storageGetUrl", 5)]);
  return order;
});
export const batches = query(async () => {
  const log = [];
  const one = async (op, n) => { await call(op, { n }); log.push(n); await tick(); await tick(); log.push(-n); };
  await Promise.all([one("1.0/get", 1), one("1.0/get", 2), one("1.0/count", 3)]);
  return log;
});
export const unawaited = mutation(() => { call("1.0/insert", { n: 1 }).then(() => call("1.0/insert", { n: 2 })); return "early"; });
export const unhandled = query(async () => { Promise.reject(new Error("lost")); await call("1.0/get"); return 1; });
export const handledLater = query(async () => { const p = Promise.reject(new Error("kept")); await tick(); return p.catch((e) => e.message); });
export const list = query(async ({ stop = 1e9 }) => { const seen = []; for await (const row of rows({ q: 1 })) { seen.push(row.i); if (seen.length >= stop) break; } return seen; });
export const listThenWrite = mutation(async () => {
  const seen = [];
  for await (const row of rows({ q: 1 })) { seen.push(row.i); if (row.i === 1) await call("1.0/insert", {}); }
  return seen;
});
export const unopened = query(() => { sync("1.0/queryStream", { query: {} }); return sync("1.0/queryCleanup", { queryId: 0 }); });
export const wrongStream = query(() => call("1.0/queryStreamNext", { queryId: 9 }).catch((e) => e.message));
export const twoNexts = query(async () => {
  const { queryId } = sync("1.0/queryStream", { query: {} });
  const next = () => call("1.0/queryStreamNext", { queryId });
  return [...(await Promise.all([next(), next(), next()])), await next(), await next()].map((r) => r.done ? "end" : r.value.i);
});
export const failing = query(async () => { try { await call("1.0/get"); } catch (e) { return [e.message, e.data ?? null, e.constructor === Error]; } });
export const parent = mutation(async () => {
  console.log("before");
  let result;
  try { result = await call("1.0/runUdf", { udfType: "query" }); } catch (e) { result = e.message; }
  console.log("after");
  return [result, Math.random()];
});
export const child = query(async () => { console.log("inside"); return [await call("1.0/get"), Math.random(), Date.now(), ++count]; });
export const busy = query(() => { let x = 0; for (let i = 0; i < 3e8; i++) x += i; return x; });
export const ids = query(({ table, idString }) => sync("1.0/db/normalizeId", { table, idString }).id);
export const idsThrow = query(() => { try { sync("1.0/db/normalizeId", { table: "a-b", idString: "" }); } catch (e) { return e.message; } });
export const snapshot = query(() => sync("1.0/getSnapshotTs").$integer);
export const unknowns = query(async () => { const out = []; try { Convex.syscall("nope", "{}"); } catch (e) { out.push(e.message); } try { Convex.syscall("nope", "{"); } catch (e) { out.push(e.message.slice(0, 22)); } return out; });
export const unknownJs = query(() => { try { Convex.jsSyscall("nope", {}); } catch {} return 1; });
export const occ = mutation(() => { try { Convex.syscall("throwOcc", "{}"); } catch {} return 1; });
export const overloaded = mutation(() => { Convex.syscall("throwOverloaded", "{}"); });
export const timer = query(() => { try { setTimeout(() => {}, 1); } catch { return "caught"; } return 1; });
export const dynamic = query(() => import("./late.js").catch((e) => `${e.name}: ${e.message}`));
export const dynamicAction = action(async () => { const a = await import("./late.js"), b = await import("./late.js"); return [a === b, a.late]; });
export const dynamicMissing = action(() => import("./gone.js").catch((e) => e.message));
export const dynamicThrows = action(() => import("./boom.js").catch((e) => e.message));
export const meta = query(() => { try { return import.meta.url; } catch (e) { return `${e.name}: ${e.message}`; } });
export const evals = query(() => [() => eval("1"), () => new Function("1"), () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)].map((f) => { try { f(); } catch (e) { return `${e.name}: ${e.message}`; } }));
export const absent = query(() => ["window", "global", "require", "Buffer", "queueMicrotask", "setImmediate", "navigator", "Deno"].filter((name) => name in globalThis));
export const waits = action(async () => { console.log("start"); const from = Date.now(); await new Promise((r) => setTimeout(r, 30, 1)); const t = Date.now() - from; let n = 0; await new Promise((r) => { const id = setInterval(() => { if (++n === 3) { clearInterval(id); r(); } }, 1); }); return [t >= 29, n]; });
export const timerThrows = action(() => new Promise(() => { setTimeout(() => { throw new TypeError("late"); }, 1); }));
export const dangling = action(() => { call("1.0/actions/query"); call("1.0/actions/mutation"); setTimeout(() => {}, 60000); return 1; });
export const many = action(async () => { await Promise.all(Array.from({ length: 20 }, (_, n) => call("1.0/actions/query", { n }))); return "all"; });
export const free = action(async () => { const order = []; await Promise.all([1, 2, 3].map((n) => call("1.0/actions/query", { n }).then(() => order.push(n)))); return order; });
export const wasm = query(async () => { const m = await WebAssembly.compile(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0])); const { instance } = await WebAssembly.instantiate(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0])); return [m instanceof WebAssembly.Module, instance instanceof WebAssembly.Instance]; });
export const consoles = query(() => { console.debug("a", 1); console.info({}); console.warn(null); console.error(undefined); console.time(); console.timeLog("default", 5); console.timeEnd(); console.timeEnd("x"); console.log("x".repeat(40000)); for (let i = 0; i < 400; i++) console.log(i); });
export const locals = query(async () => { const als = new AsyncLocalStorage(); return als.run(7, async () => { await tick(); const a = als.getStore(); await call("1.0/get"); return [a, als.getStore()]; }); });
export const digest = query(async () => { const out = []; const d = crypto.subtle.digest("SHA-256", new Uint8Array([1])).then((b) => out.push(b.byteLength)); const g = call("1.0/get").then(() => out.push("get")); await Promise.all([g, d]); return [out, crypto.randomUUID()]; });
export const notAFunction = 5;
export const plain = () => 1;
"""
)


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with Child() as one:
        one.add_module("register.js", REGISTER)
        one.add_module("late.js", "export const late = Math.random;".replace("Math.random", "'late'"))
        one.add_module("boom.js", "throw new Error('boom at import')")
        one.add_module("m.js", FUNCTIONS)
        yield one


def nothing(_op: str, _args: Any, _meta: dict[str, Any]) -> str:
    return "null"


def test_module_state_and_globals_are_fresh_in_every_run(child: Child) -> None:
    """A second run sees neither module variables nor globals nor patched prototypes of the first."""
    for _ in range(3):
        assert child.run("query", "m.js", "counter").value == [1, 1]


@pytest.mark.parametrize("name", ["never", "neverAfter"])
def test_a_promise_that_cannot_settle_ends_the_run(child: Child, name: str) -> None:
    """Blocked without a queued syscall: the fixed text, at once."""
    started = time.monotonic()
    assert child.run("query", "m.js", name, answer=nothing).error == "Returned promise will never resolve"
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("name", ["spin", "spinAfterAwait"])
def test_an_endless_loop_is_announced_and_killed_from_outside(name: str) -> None:
    """A loop that never returns leaves its call in the announcement, and the child can be killed."""
    with Child() as child:
        child.add_module("register.js", REGISTER)
        child.add_module("m.js", FUNCTIONS)
        call = child.start("query", "m.js", name)
        until = time.monotonic() + 5
        while time.monotonic() < until:
            announced, entries, since = (
                int.from_bytes(os.pread(child.announce.fileno(), 8, i), "little") for i in (0, 8, 16)
            )
            if announced == call:
                break
            time.sleep(0.01)
        assert announced == call
        assert entries >= 1
        assert 0 <= time.monotonic_ns() - since < 5e9
        os.kill(child.process.pid, signal.SIGKILL)
        with pytest.raises(ChildDied):
            child.receive()


def test_too_much_javascript_time_is_a_system_error(child: Child) -> None:
    """An entry that came back after more than a second of CPU ends with the time limit's text, and later runs are unharmed."""
    result = child.run("query", "m.js", "slow", timeout=30)
    assert result.error == "Function execution timed out (maximum duration: 1s)"
    assert result.meta["error"]["kind"] == "system"
    assert child.run("query", "m.js", "pure").value == 1


def test_an_idle_child_announces_nothing(child: Child) -> None:
    """After a run the announcement names no call."""
    child.run("query", "m.js", "pure")
    time.sleep(0.05)
    assert int.from_bytes(os.pread(child.announce.fileno(), 8, 0), "little") == 0


def test_time_is_frozen_in_a_query(child: Child) -> None:
    """Date gives the run's time everywhere, the import phase the push's, and both are reported as observed."""
    result = child.run("query", "m.js", "clock", answer=nothing)
    now = 1_700_000_000_123
    assert result.value == [now, now, now, 5, "string", 1_600_000_000_000, 0]
    assert result.meta["observed"]["time"]
    assert result.meta["observed"]["import_time"]


def test_randomness_is_seeded(child: Child) -> None:
    """Equal seeds give equal numbers; import-time numbers depend on the push only; untouched randomness is not reported."""
    first = child.run("query", "m.js", "dice")
    again = child.run("query", "m.js", "dice")
    other = child.run("query", "m.js", "dice", seed="08" * 32)
    assert first.value == again.value
    assert first.value[0] != first.value[1]
    assert other.value[:2] != first.value[:2]
    assert other.value[2] == first.value[2]
    assert first.meta["observed"]["random"]
    pure = child.run("query", "m.js", "pure").meta["observed"]
    assert (pure["time"], pure["random"]) == (False, False)


def test_randomness_is_the_chacha12_keystream(child: Child) -> None:
    """Math.random takes 53 bits of each little-endian u64 of the ChaCha12 keystream (zero nonce, counter from 0)."""
    key = bytes([7] * 32)

    def block(counter: int) -> bytes:
        words = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574]
        words += [int.from_bytes(key[i : i + 4], "little") for i in range(0, 32, 4)] + [counter, 0, 0, 0]
        state = list(words)

        def turn(a: int, b: int, c: int, d: int) -> None:
            for x, y, z, shift in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                state[x] = (state[x] + state[y]) & 0xFFFFFFFF
                mixed = state[z] ^ state[x]
                state[z] = ((mixed << shift) | (mixed >> (32 - shift))) & 0xFFFFFFFF

        for _ in range(6):
            for quarter in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)):
                turn(*quarter)
            for quarter in ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
                turn(*quarter)
        return b"".join(((a + b) & 0xFFFFFFFF).to_bytes(4, "little") for a, b in zip(state, words, strict=True))

    stream = block(0)
    expected = [(int.from_bytes(stream[i : i + 8], "little") >> 11) * 2.0**-53 for i in (0, 8)]
    assert child.run("query", "m.js", "dice").value[:2] == expected


def test_environment_variables_are_read_lazily_and_reported(child: Child) -> None:
    """A set variable has its value, an unset one is undefined, and every name read is reported, import time included."""
    result = child.run("query", "m.js", "environment", env={"A": "1", "HOME_TOWN": "x", "UNREAD": "y"})
    assert result.value == ["1", None, "x", "function", ["env"], True]
    assert sorted(result.meta["observed"]["env"]) == ["A", "B", "HOME_TOWN"]
    assert "The environment variable name not-a-name is invalid." in child.run("query", "m.js", "badName").error


def test_syscalls_leave_in_call_order_and_answers_arrive_in_call_order(child: Child) -> None:
    """All syscalls of a turn are sent at once, in order; results are seen in order although errors are among them."""

    def answer(op: str, args: Any, _meta: dict[str, Any]) -> str:
        if args["n"] == 4:
            raise Failure("no four")
        return "null"

    result = child.run("mutation", "m.js", "parallel", answer=answer)
    assert [args["n"] for _, args in result.calls] == [1, 2, 3, 4, 5]
    assert result.value == [1, 2, 3, "no four", 5]


def test_a_batch_is_delivered_as_a_whole_whatever_the_timing(child: Child) -> None:
    """Both gets of a batch are delivered before any code runs on; the count after them is a batch of its own (2.4)."""
    values = []
    for delay in (0.0, 0.02):

        def answer(_op: str, _args: Any, _meta: dict[str, Any], delay: float = delay) -> str:
            time.sleep(delay)
            return "null"

        values.append(child.run("query", "m.js", "batches", answer=answer).value)
    assert values[0] == values[1] == [1, 2, -1, -2, 3, -3]


def test_unawaited_syscalls_of_a_fulfilled_mutation_run_to_completion(child: Child) -> None:
    """The result is sent after the last queued syscall, including those made by handlers of earlier ones."""
    result = child.run("mutation", "m.js", "unawaited", answer=nothing)
    assert [args["n"] for _, args in result.calls] == [1, 2]
    assert result.value == "early"


def test_an_unhandled_rejection_ends_the_run(child: Child) -> None:
    """Rejected and unhandled when JavaScript blocks: the run ends with that error, before anything is asked."""
    result = child.run("query", "m.js", "unhandled", answer=nothing)
    assert result.error == "Uncaught Error: lost\n"
    assert result.calls == []
    assert child.run("query", "m.js", "handledLater").value == "kept"


def test_rows_of_a_page_are_served_in_the_child_and_reported(child: Child) -> None:
    """One request for a page; rows beyond the first, and the end, are counted in the final report."""
    result = child.run("query", "m.js", "list", answer=lambda *_: page([{"i": i} for i in range(5)], done=True))
    assert result.value == [0, 1, 2, 3, 4]
    assert [op for op, _ in result.calls] == ["1.0/queryStream", "1.0/queryStreamNext"]
    assert result.meta["consumed"] == {"0": 5}


def test_rows_that_nobody_reads_are_not_reported(child: Child) -> None:
    """A loop that breaks after two of five rows reports one row beyond the requested one, and closes the stream."""
    seen: list[Any] = []

    def answer(op: str, _args: Any, meta: dict[str, Any]) -> Any:
        seen.append((op, meta.get("consumed")))
        return page([{"i": i} for i in range(5)], done=True)

    result = child.run("query", "m.js", "list", [{"stop": 2}], answer)
    assert result.value == [0, 1]
    assert seen[-1] in [("1.0/queryCleanup", {"0": 1}), ("1.0/queryStreamNext", None)]
    assert seen[-1][1] == {"0": 1} or result.meta["consumed"] == {"0": 1}


def test_left_bounds_what_is_served_ahead(child: Child) -> None:
    """With two documents left the child asks again for the third row, so that Python's limit error arrives there."""
    asked = 0

    def answer(op: str, _args: Any, _meta: dict[str, Any]) -> Any:
        nonlocal asked
        if op != "1.0/queryStreamNext":
            return ""
        asked += 1
        if asked == 2:
            raise Failure("Too many documents read")
        return page([{"i": i} for i in range(5)], done=True, docs=2)

    result = child.run("query", "m.js", "list", answer=answer)
    assert asked == 2
    assert result.error == "Uncaught Error: Too many documents read\n"


def test_a_write_makes_the_child_ask_again(child: Child) -> None:
    """Rows fetched before a write are dropped; the report that travels with the write covers every row before it."""
    log: list[Any] = []

    def answer(op: str, _args: Any, meta: dict[str, Any]) -> Any:
        log.append((op, meta.get("consumed")))
        if op == "1.0/insert":
            return "{}"
        return page([{"i": i} for i in range(4)], done=False) if len(log) <= 2 else page([{"i": 7}], done=len(log) > 3)

    result = child.run("mutation", "m.js", "listThenWrite", answer=answer)
    assert result.value == [0, 1, 7]
    assert log[2] == ("1.0/insert", {"0": 1})
    assert log[3] == ("1.0/queryStreamNext", None)


def test_several_requests_of_one_stream_at_once(child: Child) -> None:
    """Three calls at once take the first row of three successive pages; later calls are served from the last one."""
    pages = iter([page([{"i": 0}], False), page([{"i": 1}], False), page([{"i": 2}, {"i": 3}], True)])
    result = child.run("query", "m.js", "twoNexts", answer=lambda op, *_: next(pages) if op.endswith("Next") else "")
    assert result.value == [0, 1, 2, 3, "end"]


def test_a_stream_that_is_never_read_costs_nothing(child: Child) -> None:
    """queryStream and queryCleanup alone send no frame; an unknown stream is a catchable error."""
    result = child.run("query", "m.js", "unopened")
    assert (result.value, result.calls) == (True, [])
    assert child.run("query", "m.js", "wrongStream").value == "in-progress query not found"


def test_an_error_of_a_syscall_is_an_error_of_the_context(child: Child) -> None:
    """A user error rejects with Error, with ``data`` as a JSON value when the cause was a ConvexError."""

    def fail(data: str) -> Any:
        def answer(*_: Any) -> str:
            raise Failure("refused", data)

        return answer

    assert child.run("query", "m.js", "failing", answer=fail('{"a":[1]}')).value == ["refused", {"a": [1]}, True]
    assert child.run("query", "m.js", "failing", answer=fail("")).value == ["refused", None, True]


def test_a_fatal_answer_ends_the_run_uncatchably(child: Child) -> None:
    """``fatal`` cannot be caught by user code."""

    def answer(*_: Any) -> str:
        raise Failure("conflict", fatal=True)

    result = child.run("query", "m.js", "failing", answer=answer)
    assert result.meta["error"] == {"message": "conflict", "kind": "fatal"}


def run_nested(child: Child, export: str, kind: str = "query") -> tuple[dict[str, Any], str, dict[str, Any]]:
    """Runs ``parent`` and, inside its runUdf, *export*; gives the parent's RESULT and the nested one's meta."""
    outer = child.start("mutation", "m.js", "parent")
    inner = 0
    seq = 0
    inner_meta: dict[str, Any] = {}
    while True:
        frame, call, number, meta, body = child.receive(20)
        if frame == RESULT and call == outer:
            return meta, body, inner_meta
        if frame == RESULT:
            assert call == inner
            inner_meta = meta
            if meta["ok"]:
                child.send(SYSRESULT, outer, seq, None, body)
            else:
                fatal = {"fatal": True} if meta["error"]["kind"] == "system" else {}
                child.send(SYSRESULT, outer, seq, {"error": {"message": meta["error"]["message"]}} | fatal)
        elif meta["op"] == "1.0/runUdf":
            seq = number
            inner = child.start(kind, "m.js", export, parent=outer, root=outer, seed=None, now_ms=None)
        else:
            child.send(SYSRESULT, call, number, None, '"got"')


def test_a_nested_call_runs_in_its_own_context_of_the_same_child(child: Child) -> None:
    """Own module state, own log, the parent's time, a seed drawn from the parent; observations reach the parent."""
    meta, body, inner = run_nested(child, "child")
    (got, number, now, count), own = json.loads(body)
    assert (got, now, count) == ("got", 1_700_000_000_123, 1)
    assert own != number
    assert [" ".join(line.get("messages", ["?"])) for line in meta["logs"]] == ["'before'", "?", "'after'"]
    assert meta["logs"][1] == {"nested": 1}
    assert [line["messages"] for line in inner["logs"]] == [["'inside'"]]
    assert meta["observed"]["time"]
    again = json.loads(run_nested(child, "child")[1])
    assert again == [[got, number, now, count], own]


def test_a_nested_failure_reaches_the_parent_as_text(child: Child) -> None:
    """The parent catches an Error whose message is the child's whole text."""
    meta, body, _ = run_nested(child, "unknownJs")
    assert meta["ok"]
    assert json.loads(body)[0] == "Uncaught Error: Unknown JS syscall: nope\n"


def test_nested_time_counts_for_the_whole_tree(child: Child) -> None:
    """A nested loop over the limit ends the child as a system error and thereby the parent."""
    meta, _, inner = run_nested(child, "slow")
    assert inner["error"]["kind"] == "system"
    assert meta["error"]["kind"] == "fatal"


def test_normalize_id_is_answered_in_the_child(child: Child) -> None:
    """Test vectors of runtime.md 5.2 against the table map of START; non-canonical spellings are refused."""

    def normalize(table: str, text: str) -> Any:
        return child.run(
            "query", "m.js", "ids", [{"table": table, "idString": text}], tables={"t": 10001, "u": 4294967295}
        ).value

    good = "j57000820c20a1g7104gm2rc1m70ynr8"
    assert normalize("t", good) == good
    assert normalize("u", "zzzzzzrfzzzzzzzzzzzzzzzzzzzzzzzzzzxjj") == "zzzzzzrfzzzzzzzzzzzzzzzzzzzzzzzzzzxjj"
    assert normalize("_storage", "kg2000820c20a1g7104gm2rc1m70y674") == "kg2000820c20a1g7104gm2rc1m70y674"
    for table, text in [
        ("u", good),
        ("absent", good),
        ("t", good.upper()),
        ("t", good[:-1] + "9"),
        ("t", ""),
        ("toString", good),
        ("t", "mz1xn7tymdnktmmzqy5xxhn7tjs2nkkfmtjjr"),
    ]:
        assert normalize(table, text) is None
    assert child.run("query", "m.js", "idsThrow").value.startswith("Invalid argument `table` for `db.normalizeId`: ")


def test_snapshot_timestamp(child: Child) -> None:
    """getSnapshotTs gives what START brought, and the run says that it has looked, as at the clock."""
    run = child.run("query", "m.js", "snapshot", snapshot='{"$integer":"FcGH8Ah0lxc="}')
    assert run.value == "FcGH8Ah0lxc="
    assert (run.meta["observed"]["snapshot"], run.meta["observed"]["time"]) == (True, True)
    assert child.run("query", "m.js", "unopened").meta["observed"]["snapshot"] is False


def test_unknown_operations(child: Child) -> None:
    """Unknown synchronous names and bad JSON are catchable; an unknown JS syscall is not."""
    assert child.run("query", "m.js", "unknowns").value == ["Unknown operation nope", "Received invalid json: "[:22]]
    assert child.run("query", "m.js", "unknownJs").error == "Uncaught Error: Unknown JS syscall: nope\n"


def test_fault_hooks_end_the_run(child: Child) -> None:
    """throwOcc and throwOverloaded cannot be caught and have kinds of their own."""
    assert child.run("mutation", "m.js", "occ").meta["error"]["kind"] == "occ"
    assert child.run("mutation", "m.js", "overloaded").meta["error"] == {
        "message": "I'm a bit busy.",
        "kind": "overloaded",
    }


def test_timers_are_refused_in_queries_by_an_unhandled_rejection(child: Child) -> None:
    """try/catch around setTimeout does not help."""
    error = child.run("query", "m.js", "timer").error
    assert error.startswith(
        "Uncaught Error: Can't use setTimeout in queries and mutations. Please consider using an action."
    )


def test_dynamic_import(child: Child) -> None:
    """Refused in queries, works in actions with one namespace per module, and rejects for missing and throwing modules."""
    assert child.run("query", "m.js", "dynamic").value == "TypeError: dynamic module import unsupported"
    assert child.run("action", "m.js", "dynamicAction").value == [True, "late"]
    assert child.run("action", "m.js", "dynamicMissing").value.startswith("Couldn't find JavaScript module 'gone.js'.")
    assert child.run("action", "m.js", "dynamicThrows").value.startswith("Uncaught Error: boom at import")


def test_refused_language_features(child: Child) -> None:
    """import.meta, eval, Function and Atomics.wait have their texts."""
    assert child.run("query", "m.js", "meta").value == "TypeError: import.meta unsupported"
    eval_text = "EvalError: Code generation from strings disallowed for this context"
    assert child.run("query", "m.js", "evals").value == [
        eval_text,
        eval_text,
        "TypeError: Atomics.wait cannot be called in this context",
    ]
    assert child.run("query", "m.js", "absent").value == []


def test_timers_of_actions(child: Child) -> None:
    """Timeouts and intervals fire; an exception of a callback ends the action; lines are streamed and not repeated."""
    result = child.run("action", "m.js", "waits")
    assert result.value == [True, 3]
    assert [line["messages"] for line in result.streamed] == [["'start'"]]
    assert result.meta["logs"] == []
    assert child.run("action", "m.js", "timerThrows").error == "Uncaught TypeError: late\n"


def test_operations_that_an_action_does_not_wait_for_are_dropped_and_named(child: Child) -> None:
    """The action ends at once, its timers do not hold it, and a warning lists the operations."""
    call = child.start("action", "m.js", "dangling")
    lines: list[Any] = []
    while True:
        kind, _, _, meta, body = child.receive()
        if kind == LOG:
            lines += meta["lines"]
        if kind == RESULT:
            break
        assert kind in (LOG, SYSCALL)
    assert (call, body) == (call, "1")
    assert lines[0]["code"] == "warning:UnawaitedOperations"
    assert lines[0]["messages"][0].startswith(
        "2 unawaited operations: [query, mutation]. Async operations should be awaited"
    )


def test_actions_have_eight_operations_in_flight_and_complete_freely(child: Child) -> None:
    """Never more than eight unanswered syscalls; answers in another order are seen in that order."""
    call = child.start("action", "m.js", "many")
    pending: list[int] = []
    served = most = 0
    while True:
        kind, _, seq, _, body = child.receive()
        if kind == RESULT:
            break
        pending.append(seq)
        most = max(most, len(pending))
        if len(pending) == 8 or served + len(pending) == 20:
            while pending:
                child.send(SYSRESULT, call, pending.pop(), None, "null")
                served += 1
    assert (json.loads(body), most) == ("all", 8)

    call = child.start("action", "m.js", "free")
    seqs = [child.receive()[2] for _ in range(3)]
    for seq in reversed(seqs):
        child.send(SYSRESULT, call, seq, None, "null")
        time.sleep(0.02)
    assert json.loads(child.receive()[4]) == [3, 2, 1]


def test_cancel_drops_the_run(child: Child) -> None:
    """No RESULT after CANCEL; an answer that was on its way is ignored; the child goes on."""
    call = child.start("query", "m.js", "neverAfter")
    kind, _, seq, _, _ = child.receive()
    assert kind == SYSCALL
    child.send(CANCEL, call)
    child.send(SYSRESULT, call, seq, None, "null")
    assert child.run("query", "m.js", "pure").value == 1


def test_web_assembly_compiles_within_the_run(child: Child) -> None:
    """Asynchronous compilation settles without leaving the run's turns."""
    assert child.run("query", "m.js", "wasm").value == [True, True]


def test_console_lines(child: Child) -> None:
    """Levels, rendering, timers; the number and length of lines sent are bounded."""
    result = child.run("query", "m.js", "consoles")
    lines = result.meta["logs"]
    assert [(line["level"], " ".join(line["messages"])) for line in lines[:7]] == [
        ("DEBUG", "'a' 1"),
        ("INFO", "{}"),
        ("WARN", "null"),
        ("ERROR", "undefined"),
        ("INFO", "default: 0ms 5"),
        ("INFO", "default: 0ms"),
        ("WARN", "Timer 'x' does not exist"),
    ]
    assert 32768 < len(lines[7]["messages"][0]) <= 40000
    assert len(lines) == 257


def test_async_local_storage_survives_awaits_and_syscalls(child: Child) -> None:
    """The store is there after a microtask and after an answer of Python."""
    assert child.run("query", "m.js", "locals", answer=nothing).value == [7, 7]


def test_crypto_answers_come_before_syscalls_in_a_query(child: Child) -> None:
    """A digest, though answered by another thread, is delivered before the answer of the syscall: deterministic order."""
    values = [child.run("query", "m.js", "digest", answer=nothing).value for _ in range(3)]
    assert values[0][0] == [32, "get"]
    assert values[0] == values[1] == values[2]


def test_what_cannot_be_called(child: Child) -> None:
    """Texts for missing exports, missing modules, wrong kinds and plain functions."""
    run = child.run
    assert run("query", "m.js", "absent_export").error == 'Couldn\'t find "absent_export" in module "m.js".'
    assert (
        run("query", "gone.js", "x").error
        == "Couldn't find JavaScript module 'gone.js'. Did you forget to run `npx convex dev`?"
    )
    assert (
        run("mutation", "m.js", "pure").error
        == "Function m.js:pure is registered as a query but is being run as a mutation."
    )
    neither = "is neither a query or mutation. Did you forget to wrap it with `query` or `mutation`?"
    assert run("query", "m.js", "plain").error == f"Function m.js:plain {neither}"
    assert run("query", "m.js", "notAFunction").error == f"Function m.js:notAFunction {neither}"
    assert run("query", "m.js", "waits").error == f"Function m.js:waits {neither}"


def test_many_calls_in_flight_are_kept_apart(child: Child) -> None:
    """Forty calls at once, answered in reverse, each get their own answer."""
    calls = {child.start("query", "m.js", "child"): None for _ in range(40)}
    asked: list[tuple[int, int]] = []
    done: dict[int, Any] = {}
    while len(done) < 40:
        kind, call, seq, _, body = child.receive()
        if kind == RESULT:
            done[call] = json.loads(body)[0]
            continue
        asked.append((call, seq))
        if len(asked) == 40:
            for one, number in reversed(asked):
                child.send(SYSRESULT, one, number, None, json.dumps(one))
    assert done == {call: call for call in calls}


def test_ctrl_c_does_not_end_a_child_but_end_of_file_does() -> None:
    """SIGINT is ignored; a closed socket ends the process with exit code 0."""
    child = Child()
    os.kill(child.process.pid, signal.SIGINT)
    child.add_module("register.js", REGISTER)
    child.add_module("m.js", HEAD + "export const f = query(() => 1);")
    assert child.run("query", "m.js", "f").value == 1
    child.close()
    assert child.process.returncode == 0
    assert child.stderr == ""


def test_frames_may_arrive_in_pieces(child: Child) -> None:
    """A START frame sent byte by byte is one frame."""
    import struct

    meta = json.dumps(
        {
            "kind": "query",
            "module": "m.js",
            "export": "pure",
            "closure": child.closure,
            "seed": "00" * 32,
            "now_ms": 1,
            "import_ms": 1,
            "import_seed": "00" * 32,
        }
    ).encode()
    call = child.next_call
    child.next_call += 1
    frame = struct.pack("<B3xIIII", START, call, 0, len(meta), 4) + meta + b"[{}]"
    for i in range(0, len(frame), 7):
        child.sock.sendall(frame[i : i + 7])
    assert child.finish(call).value == 1
