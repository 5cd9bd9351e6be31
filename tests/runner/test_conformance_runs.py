# ruff: noqa: E501 - JavaScript texts
"""Statements 36 to 43, 45 and 47 of ``runtime.md`` section 12: time, randomness, refusals, globals, log lines, error texts.

With the real npm package in bundles of the official shape. Statements 44, 46, 48 and 49 belong to Python's side:
``tests/functions/test_conformance.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.runner.bundles import bundle
from tests.runner.harness import Child, Failure, Result

REFUSAL = "Can't use {} in queries and mutations. Please consider using an action. See https://docs.convex.dev/functions/actions for more details."

FILES = {
    "env.ts": """
import { queryGeneric as query, mutationGeneric as mutation, actionGeneric as action } from "convex/server";
const atImport = [Date.now(), new Date().getTime(), performance.now(), performance.timeOrigin, Math.random(), crypto.randomUUID(), Array.from(crypto.getRandomValues(new Uint8Array(4)))];
const clocks = () => [Date.now(), new Date().getTime(), Date(), performance.now(), performance.timeOrigin];
const spin = () => { for (let i = 0; i < 4e6; i++); };
export const imported = query(async () => atImport);
export const clock = query(async (ctx) => { const one = clocks(); spin(); await (ctx as any).db.get("x"); return [one, clocks()]; });
export const mutationClock = mutation(async () => { const one = Date.now(); spin(); return one === Date.now(); });
export const actionClock = action(async () => { const one = Date.now(); await new Promise((r) => setTimeout(r, 20)); return Date.now() - one >= 15 && one > 1.7e12; });
export const zone = query(async () => [new Date(0).toString(), new Date(0).getTimezoneOffset(), Intl.DateTimeFormat().resolvedOptions().timeZone, (1234.5).toLocaleString(), new Date(0).toLocaleString()]);
const draws = async () => [Math.random(), Math.random(), crypto.randomUUID(), Array.from(crypto.getRandomValues(new Uint32Array(3))), [3, 1, 2].sort(() => Math.random() - 0.5)];
export const random = query(async () => draws());
export const mutationRandom = mutation(async () => draws());
export const actionRandom = action(async () => [atImport, await draws()]);
const orders: Record<string, any> = {};
export const order = query(async (ctx: any) => {
  const seen: any[] = [];
  const values = await Promise.all([3, 1, 2, 0].map(async (n) => { const got = await ctx.db.get(String(n)); seen.push(n); await null; seen.push(-n || -5); return got; }));
  console.log("seen", seen, Math.random());
  return [seen, values, Math.random()];
});
const text = async (f: () => any) => { try { const v = await f(); return `fine ${typeof v}`; } catch (e: any) { return `${e.constructor === Error} ${e.message}`; } };
export const refused = query(async () => [await text(() => fetch("https://x")), await text(() => crypto.subtle.generateKey({ name: "Ed25519" }, true, ["sign"])),
  await text(async () => crypto.subtle.generateKey({ name: "HMAC", hash: "SHA-256" }, true, ["sign"])),
  await text(() => new Response("--b--", { headers: { "content-type": "multipart/form-data; boundary=b" } }).formData())]);
export const allowed = query(async () => {
  const hmac = await crypto.subtle.importKey("raw", new Uint8Array(16), { name: "HMAC", hash: "SHA-256" }, true, ["sign", "verify"]);
  const aes = await crypto.subtle.importKey("raw", new Uint8Array(16), "AES-GCM", true, ["encrypt", "decrypt"]);
  const signature = await crypto.subtle.sign("HMAC", hmac, new Uint8Array(3));
  const iv = new Uint8Array(12);
  return [(await crypto.subtle.digest("SHA-256", new Uint8Array())).byteLength, signature.byteLength, await crypto.subtle.verify("HMAC", hmac, signature, new Uint8Array(3)),
    (await crypto.subtle.encrypt({ name: "AES-GCM", iv }, aes, new Uint8Array(5))).byteLength, (await crypto.subtle.exportKey("jwk", hmac)).kty];
});
export const timerInTry = query(async () => { let id; try { id = setTimeout(() => 1, 0); clearTimeout(id); } catch { return "caught"; } await Promise.resolve(); return typeof id; });
export const intervalInTry = mutation(async () => { try { setInterval(() => 1, 0); } finally { return "got away"; } });
export const clears = query(async () => { clearTimeout(undefined); clearInterval(5); clearTimeout({} as any); return 1; });
export const hidden = query(async () => ["global", "window", "require", "Buffer", "module", "exports", "setImmediate", "queueMicrotask", "navigator", "localStorage", "XMLHttpRequest", "WebSocket", "MessageChannel", "BroadcastChannel", "CompressionStream", "ReadableStreamDefaultController", "Deno", "Bun", "gc", "v8", "__dirname"].filter((name) => name in globalThis || typeof (globalThis as any)[name] !== "undefined"));
export const processMembers = query(async () => [Reflect.ownKeys(process), typeof (process as any).version, typeof (process as any).versions, typeof (process as any).nextTick]);
export const consoleMembers = query(async () => Reflect.ownKeys(console).sort());
export const weak = query(async () => { const target = {}; const ref = new WeakRef(target); new FinalizationRegistry(() => 1).register(target, 1); return ref.deref() === target; });
export const storage = query(async (ctx: any) => { const one = new AsyncLocalStorage(); return await one.run(5, async () => { const found = [one.getStore()]; await ctx.db.get("a"); found.push(one.getStore()); await Promise.all([1, 2].map(async (n) => one.run(n, async () => { await ctx.db.get("b"); found.push(one.getStore()); }))); found.push(one.getStore()); return found; }); });
declare const AsyncLocalStorage: any;
""",
    "logs.ts": """
import { queryGeneric as query, actionGeneric as action } from "convex/server";
class MyClass { x = 1; }
class Empty {}
function myFunction() {}
const circular: any = {}; circular.self = circular;
const withProps: any = new Error("e"); withProps.code = 1;
export const table = query(async () => { for (const v of [
  "myString", "it's", "a\\nb", 42, -0, NaN, 10n, undefined, null, true, { property: "value", nested_object: {} }, {}, [], ["string", 42], [{ a: 1 }], { "a-b": 1, 3: 4 }, { u: undefined },
  myFunction, () => 1, async () => 1, new MyClass(), new Empty(), circular, new Error("boom"), withProps, new Date(0), new Map([["k", 1]]), new Set([1]), Symbol("s"), /re/g, new Uint8Array([1, 2]),
  new ArrayBuffer(2), Promise.resolve(), Object.create(null), { inspect: () => "mine" }, { a: { b: { c: { d: { e: { f: 1 } } } } } }, "%s", "x".repeat(32770)]) console.log(v); console.log("a", 1, {}); console.log(); console.log("%s is", 5); });
export const levels = query(async () => { console.debug("d"); console.error("e"); console.info("i"); console.log("l"); console.warn("w"); });
export const traced = query(async () => { console.trace("myString", 1); });
export const timers = query(async () => { console.time(); console.time("a"); console.time("a"); console.timeLog("a", "x", 2); console.timeEnd("a"); console.timeEnd("a"); console.timeLog("b"); console.timeEnd(); });
export const streamed = action(async () => { console.log("one"); await new Promise((r) => setTimeout(r, 1)); console.log("two"); throw new Error("end"); });
""",
    "errors.ts": """
import { queryGeneric as query, actionGeneric as action } from "convex/server";
import { ConvexError } from "convex/values";
import { deeper } from "./lib/deeper";
class FooError extends ConvexError<any> { name = "FooError"; }
function throwsTheError(): never {
  throw new Error("Oh bother!");
}
class Thing { method() { throwsTheError(); } constructor(public now?: boolean) { if (now) throwsTheError(); } }
export const nested = query(async () => { throwsTheError(); });
export const method = query(async () => { new Thing().method(); });
export const constructed = query(async () => { new Thing(true); });
export const library = query(async () => { await deeper(() => throwsTheError()); });
export const all = query(async () => { await Promise.all([1, 2].map(async (n) => { await null; if (n === 2) throwsTheError(); })); });
export const foo = query(async () => { throw new FooError({ code: 1n, msg: "x" }); });
export const viaParent = action(async (ctx: any) => { await ctx.runQuery("a:b", {}); });
export const parentCatches = action(async (ctx: any) => { try { await ctx.runQuery("a:b", {}); } catch (e: any) { return [e instanceof ConvexError, e.name, e.message, e.data ?? null]; } });
""",
    "lib/deeper.ts": "export async function deeper(f: () => void) {\n  await null;\n  f();\n}\n",
}


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with Child() as one:
        for path, (source, source_map) in bundle(FILES).items():
            one.add_module(path, source, source_map)
        yield one


def gives(_op: str, args: Any, _meta: dict[str, Any]) -> str:
    return json.dumps({"_id": args["id"]})


def run(child: Child, kind: str, module: str, name: str, **more: Any) -> Result:
    return child.run(kind, module, name, answer=more.pop("answer", gives), **more)


def test_time_stands_still_in_queries_and_mutations(child: Child) -> None:
    """Statement 36: one time for the run, across work and awaits; actions have the real one; UTC and a fixed locale."""
    one, two = run(child, "query", "env.js", "clock").value
    assert one == two
    assert one[:2] == [1_700_000_000_123] * 2
    assert one[3] == 0
    assert run(child, "mutation", "env.js", "mutationClock").value is True
    assert run(child, "action", "env.js", "actionClock").value is True
    zone = run(child, "query", "env.js", "zone").value
    assert zone == [
        "Thu Jan 01 1970 00:00:00 GMT+0000 (Coordinated Universal Time)", 0, "UTC", "1,234.5", "1/1/1970, 12:00:00 AM",
    ]  # fmt: skip


def test_the_import_phase_is_the_same_in_every_run(child: Child) -> None:
    """Statement 37: what modules draw and see while they load depends on the push alone, in every kind of run."""
    first = run(child, "query", "env.js", "imported", seed="11" * 32, now_ms=5).value
    assert first == run(child, "query", "env.js", "imported", seed="22" * 32, now_ms=6).value
    assert first == run(child, "action", "env.js", "actionRandom").value[0]
    assert first[:4] == [1_600_000_000_000, 1_600_000_000_000, 0, 1_600_000_000_000]
    assert first[4:] != run(child, "query", "env.js", "imported", import_seed="33" * 32).value[4:]


@pytest.mark.parametrize(("kind", "name"), [("query", "random"), ("mutation", "mutationRandom"), ("query", "order")])
def test_the_same_call_gives_the_same_bytes(child: Child, kind: str, name: str) -> None:
    """Statement 37: value, lines and syscalls of two runs at one timestamp and seed are equal; another seed gives others."""
    one, two, other = (run(child, kind, "env.js", name, seed=seed) for seed in ("11" * 32, "11" * 32, "12" * 32))
    assert (one.body, one.meta["logs"], one.calls) == (two.body, two.meta["logs"], two.calls)
    assert one.body != other.body
    assert one.meta["observed"]["random"] is True


def test_concurrent_branches_go_on_in_the_order_of_their_calls(child: Child) -> None:
    """Statement 37 and 2.4: results of a batch arrive together, in call order, whatever Promise.all makes of them."""
    seen, values, _ = run(child, "query", "env.js", "order").value
    assert [one["_id"] for one in values] == ["3", "1", "2", "0"]
    assert seen == [3, 1, 2, 0, -3, -1, -2, -5]


def test_refusals_that_code_can_catch(child: Child) -> None:
    """Statement 38: fetch, random keys and multipart parsing reject with the text of 6.1."""
    assert run(child, "query", "env.js", "refused").value == [
        "true " + REFUSAL.format(what)
        for what in ("fetch()", "cryptographic randomness", "cryptographic randomness", "formData()")
    ]


def test_deterministic_cryptography_is_allowed(child: Child) -> None:
    """Statement 38: digest, HMAC, AES, import and export."""
    assert run(child, "query", "env.js", "allowed").value == [32, 32, True, 21, "oct"]


@pytest.mark.parametrize(
    ("kind", "name", "what"), [("query", "timerInTry", "setTimeout"), ("mutation", "intervalInTry", "setInterval")]
)
def test_timers_end_the_run(child: Child, kind: str, name: str, what: str) -> None:
    """Statement 38: no try and no finally stops the refusal; clearing never fails."""
    assert run(child, kind, "env.js", name).error.startswith(f"Uncaught Error: {REFUSAL.format(what)}\n")
    assert run(child, "query", "env.js", "clears").value == 1


def test_what_must_be_hidden_is_hidden(child: Child) -> None:
    """Statement 39: nothing of the host, only ``env`` in process, nine methods in console, strong WeakRefs."""
    assert run(child, "query", "env.js", "hidden").value == []
    assert run(child, "query", "env.js", "processMembers").value == [["env"], "undefined", "undefined", "undefined"]
    assert run(child, "query", "env.js", "consoleMembers").value == sorted(
        ["debug", "error", "info", "log", "warn", "trace", "time", "timeLog", "timeEnd"]
    )
    assert run(child, "query", "env.js", "weak").value is True


def test_stores_follow_the_code(child: Child) -> None:
    """Statement 40: across syscalls, and apart in branches."""
    assert run(child, "query", "env.js", "storage").value == [5, 5, 1, 2, 5]


TABLE = [
    "'myString'", r"'it\'s'", r"'a\nb'", "42", "-0", "NaN", "10n", "undefined", "null", "true",
    "{\n  property: 'value',\n  nested_object: {}\n}", "{}", "[]", "[ 'string', 42 ]", "[\n  {\n    a: 1\n  }\n]",
    "{\n  3: 4,\n  'a-b': 1\n}", "{\n  u: undefined\n}", "[Function: myFunction]", "[Function (anonymous)]", "[Function (anonymous)]",
    "MyClass {\n  x: 1\n}", "Empty {}", "{\n  self: [Circular]\n}", "[Error: boom]", "{ [Error: e] code: 1 }",
    "Thu Jan 01 1970 00:00:00 GMT+0000 (Coordinated Universal Time)", "Map (1) {\n  'k' => 1\n}", "Set (1) {\n  1\n}", "Symbol(s)", "/re/g",
    "Uint8Array [Uint8Array] {\n  0: 1,\n  1: 2\n}", "ArrayBuffer [ArrayBuffer] {}", "Promise [Promise] {}", "[Object: null prototype] {}", "mine",
    "{\n  a: {\n    b: {\n      c: {\n        d: {\n          e: [Object]\n        }\n      }\n    }\n  }\n}",
    "'%s'", "'" + "x" * 32768 + "'... 2 more characters", "'a' 1 {}", "", "'%s is' 5",
]  # fmt: skip


def test_rendering_of_console_arguments(child: Child) -> None:
    """Statement 42: the table of 7.1, a space between arguments, no substitution."""
    assert run(child, "query", "logs.js", "table").logs == TABLE


def test_levels_of_lines(child: Child) -> None:
    """Statement 42: five methods, five levels."""
    lines = run(child, "query", "logs.js", "levels").meta["logs"]
    assert [(line["level"], line["messages"]) for line in lines] == [
        ("DEBUG", ["'d'"]), ("ERROR", ["'e'"]), ("INFO", ["'i'"]), ("LOG", ["'l'"]), ("WARN", ["'w'"]),
    ]  # fmt: skip


def test_trace_and_stopwatches(child: Child) -> None:
    """Statement 42: mapped frames as a last message; labels, milliseconds, and the two warnings without quotes."""
    [line] = run(child, "query", "logs.js", "traced").meta["logs"]
    assert line["level"] == "LOG"
    assert line["messages"][:2] == ["'myString'", "1"]
    assert line["messages"][2].startswith("\n    at <anonymous> (../convex/logs.ts:13:")
    lines = run(child, "query", "logs.js", "timers").meta["logs"]
    assert [(one["level"], " ".join(one["messages"])) for one in lines] == [
        ("WARN", "Timer 'a' already exists"),
        ("INFO", "a: 0ms 'x' 2"),
        ("INFO", "a: 0ms"),
        ("WARN", "Timer 'a' does not exist"),
        ("WARN", "Timer 'b' does not exist"),
        ("INFO", "default: 0ms"),
    ]


def test_lines_of_actions_come_before_their_end(child: Child) -> None:
    """Statement 43 and 7.3: in frames of their own while the action runs, and not again with its error."""
    result = run(child, "action", "logs.js", "streamed")
    assert result.error.startswith("Uncaught Error: end\n")
    assert [line["messages"] for line in result.streamed] == [["'one'"], ["'two'"]]
    assert result.meta["logs"] == []


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("nested", ["throwsTheError (../convex/errors.ts:7:"]),
        ("method", ["throwsTheError (../convex/errors.ts:7:", "method [as method] (../convex/errors.ts:8:"]),
        ("constructed", ["throwsTheError (../convex/errors.ts:7:", "new Thing (../convex/errors.ts:8:"]),
        ("library", ["throwsTheError (../convex/errors.ts:7:", "<anonymous> (../convex/errors.ts:13:", "deeper (../../convex/lib/deeper.ts:3:"]),
        ("all", ["throwsTheError (../convex/errors.ts:7:", "<anonymous> (../convex/errors.ts:13:"]),
    ],
)  # fmt: skip
def test_frames_of_uncaught_errors(child: Child, name: str, frames: list[str]) -> None:
    """Statement 45: the message, mapped frames in ``../convex/``, none of the platform's, a newline at the end."""
    lines = run(child, "query", "errors.js", name).error.split("\n")
    assert lines[0] == "Uncaught Error: Oh bother!"
    assert lines[-1] == ""
    for line, expected in zip(lines[1:], frames, strict=False):
        assert line.removeprefix("    at ").removeprefix("async ").startswith(expected)
    assert not [
        line
        for line in lines[1:-1]
        if "../convex/" not in line or "udf-runtime" in line or "impl" in line or "_deps" in line
    ]


def test_errors_of_callees(child: Child) -> None:
    """Statement 47 and 8.3: the callee's whole text is the message, its data the data; a subclass arrives as ConvexError."""
    text = "Uncaught FooError: x\n    at handler (../convex/a.ts:1:1)\n"

    def fails(data: str) -> Any:
        def answer(*_: Any) -> str:
            raise Failure(text, data)

        return answer

    data = '{"code":{"$integer":"AQAAAAAAAAA="}}'
    plain = run(child, "action", "errors.js", "viaParent", answer=fails(""))
    assert plain.error.startswith(f"Uncaught Error: {text}\n    at async <anonymous> (../convex/errors.ts:15:")
    assert plain.body == ""
    typed = run(child, "action", "errors.js", "viaParent", answer=fails(data))
    assert typed.error.startswith(f"Uncaught ConvexError: {text}\n    at async <anonymous> (../convex/errors.ts:15:")
    assert typed.body == data
    assert run(child, "action", "errors.js", "parentCatches", answer=fails("")).value == [False, "Error", text, None]
    caught = run(child, "action", "errors.js", "parentCatches", answer=fails('"why"')).value
    assert caught == [True, "ConvexError", text, "why"]
    own = run(child, "query", "errors.js", "foo")
    assert own.error.startswith('Uncaught FooError: {"code":"1n","msg":"x"}\n    at ')
    assert json.loads(own.body) == {"code": {"$integer": "AQAAAAAAAAA="}, "msg": "x"}
