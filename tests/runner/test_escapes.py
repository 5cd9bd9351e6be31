# ruff: noqa: E501 - JavaScript texts
"""Attempts to reach the host from user code, and to confuse the bridge. None may find anything, and the child must survive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.runner.harness import Child, page
from tests.runner.samples import HEAD, REGISTER

# Walks everything that can be reached from a set of roots and reports what does not belong to this context.
WALK = """
const own = Object.prototype, ownFunction = Function.prototype;
const foreign = (value) => {
  for (let at = value, n = 0; at !== null && at !== undefined && n < 20; n++) {
    if (at === own || at === ownFunction) return false;
    const next = Object.getPrototypeOf(at);
    if (next === null) return at !== own && Object.getOwnPropertyNames(at).includes("hasOwnProperty");
    at = next;
  }
  return false;
};
const walk = (roots) => {
  const seen = new Set(), found = [], queue = roots.map((r, i) => [r, "root" + i]);
  while (queue.length && seen.size < 40000) {
    const [value, path] = queue.pop();
    if (value === null || (typeof value !== "object" && typeof value !== "function") || seen.has(value)) continue;
    seen.add(value);
    if (foreign(value)) found.push(path);
    const next = (child, name) => queue.push([child, path + "." + String(name)]);
    next(Object.getPrototypeOf(value), "__proto__");
    for (const key of Reflect.ownKeys(value)) {
      const d = Object.getOwnPropertyDescriptor(value, key);
      if (!d) continue;
      if ("value" in d) next(d.value, key);
      else { next(d.get, key); next(d.set, key); if (value === globalThis) next(value[key], key); }
    }
  }
  return [found.slice(0, 20), seen.size];
};
const code = (value) => { try { return value.constructor.constructor("return typeof process.exit")(); } catch (e) { return e.name; } };
"""

FUNCTIONS = (
    HEAD
    + WALK
    + """
export const reach = query(async () => {
  const sites = [];
  Error.prepareStackTrace = (e, s) => { for (const one of s) { sites.push(one, one.getThis?.(), one.getFunction?.()); } return ""; };
  new Error("x").stack;
  await null;
  new Error("y").stack;
  delete Error.prepareStackTrace;
  const promise = call("1.0/get");
  const rejected = call("1.0/bad").catch((e) => e);
  return walk([globalThis, sites, promise, await promise, await rejected, Convex, process, console, (function* () {})(), (async () => {})(), import("./none.js").catch((e) => e), await import("./none.js").catch((e) => e)]);
});
export const thrown = query(async () => {
  const errors = [];
  for (const f of [() => Convex.syscall(Symbol()), () => Convex.syscall({ toString() { throw null; } }), () => Convex.syscall("1.0/queryStream", "{"), () => Convex.jsSyscall(), () => process.env[""], () => eval("1"), () => import.meta, () => new WeakRef(1), () => setTimeout("x")]) {
    try { f(); } catch (e) { errors.push(e); }
  }
  const [found] = walk(errors);
  return [found, errors.map(code)];
});
export const deep = query(() => {
  const odd = [];
  const probes = [() => Convex.syscall("1.0/queryStream", "{}"), () => process.env.X, () => console.log({}), () => new Error("x").stack, () => Math.random(), () => Date.now(), () => Convex.asyncSyscall("1.0/get", "{}"), () => structuredClone({}), () => new AsyncLocalStorage().run(1, () => 1)];
  for (const probe of probes) {
    let left = 300;
    const recurse = () => { try { recurse(); } catch (e) { if (!(e instanceof Error)) odd.push("deep"); } if (left-- > 0) try { probe(); } catch (e) { if (!(e instanceof Error) && typeof e === "object") odd.push(code(e)); } };
    try { recurse(); } catch (e) { if (!(e instanceof Error)) odd.push(code(e)); }
  }
  throw new Error("odd " + odd.join());
});
export const poisoned = query(async () => {
  let stolen = "";
  const steal = (where) => function (...args) { stolen += where; throw new Error(where); };
  for (const proto of [Array.prototype, Map.prototype, WeakMap.prototype, Promise.prototype, String.prototype, RegExp.prototype, Function.prototype, Object.prototype]) {
    for (const key of Object.getOwnPropertyNames(proto)) {
      if (key === "constructor" || key === "__proto__" || key === "valueOf" || key === "toString") continue;
      const d = Object.getOwnPropertyDescriptor(proto, key);
      if (d.configurable && typeof d.value === "function" && proto !== Function.prototype) Object.defineProperty(proto, key, { value: steal(key), writable: true, configurable: true });
    }
  }
  Object.defineProperty(Array.prototype, "0", { set(v) { stolen += "index"; }, get() { stolen += "index get"; }, configurable: true });
  Object.defineProperty(Object.prototype, "next", { get() { stolen += "next"; return null; }, set() { stolen += "set next"; }, configurable: true });
  Object.defineProperty(Object.prototype, "notice", { get() { stolen += "notice"; return true; }, configurable: true });
  globalThis.JSON = globalThis.Reflect = globalThis.Map = globalThis.Promise = undefined;
  const answer = await Convex.asyncSyscall("1.0/get", "{}");
  const stream = Convex.syscall("1.0/queryStream", "{}");
  const row = await Convex.asyncSyscall("1.0/queryStreamNext", '{"queryId":0}');
  const again = await Convex.asyncSyscall("1.0/queryStreamNext", '{"queryId":0}');
  delete Array.prototype[0];
  throw "" + answer + stream + row + again + "|" + stolen;
});
export const replacedConvex = query(() => { delete globalThis.Convex; globalThis.console = null; return typeof Convex; });
export const thenable = query(() => ({ then(resolve) { resolve({ toJSON() { return "given"; } }); } }));
export const argumentsOf = query(function () { try { return typeof argumentsOf.caller; } catch (e) { return e.name; } });
export const dates = query(() => { const D = new Date().constructor; return [D === Date, new D().getTime() === Date.now(), Reflect.construct(Object.getPrototypeOf(new Date()).constructor, []).getTime() === Date.now()]; });
export const lateLoop = query(async () => { Promise.reject(new Proxy(new Error("p"), { get(t, k) { if (k === "stack" || k === "message") for (;;); return t[k]; } })); });
export const logsThrow = query(() => { try { console.log({ get a() { throw new Error("getter"); } }); } catch (e) { return e.message; } return "none"; });
"""
)


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with Child() as one:
        one.add_module("register.js", REGISTER)
        one.add_module("m.js", FUNCTIONS)
        yield one


def answer(op: str, _args: Any, _meta: dict[str, Any]) -> Any:
    return page([{"i": 1}, {"i": 2}], True) if op == "1.0/queryStreamNext" else '"got"'


def test_nothing_reachable_belongs_to_the_host(child: Child) -> None:
    """A walk over every property and prototype from the global object, call sites, promises and errors meets one realm only."""
    found, size = child.run("query", "m.js", "reach", answer=answer, timeout=30).value
    assert found == []
    assert size > 1000


def test_errors_thrown_by_the_bridge_are_of_this_realm(child: Child) -> None:
    """Every error that an API throws leads to this context's constructors, which compile nothing."""
    result = child.run("query", "m.js", "thrown", answer=answer)
    # Unknown JS syscalls and string timers end the run, whatever the code catches: then the last word is theirs.
    assert result.ok or result.error.startswith("Uncaught Error: ")
    if result.ok:
        found, names = result.value
        assert found == []
        assert set(names) <= {"EvalError", "TypeError"}


def test_stack_overflows_inside_apis_give_errors_of_this_realm(child: Child) -> None:
    """Running out of stack inside the bridge or inside Node's stack formatting hands out no host error."""
    result = child.run("query", "m.js", "deep", answer=answer, timeout=30)
    assert not result.ok
    assert result.error.split("\n")[0] in {
        "Uncaught Error: odd ",
        "Uncaught RangeError: Maximum call stack size exceeded",
    }
    assert child.run("query", "m.js", "dates").value == [True, True, True]


def test_patched_prototypes_are_not_called_by_the_bridge(child: Child) -> None:
    """With every builtin method replaced, syscalls still work and the replacements see nothing of the bridge."""
    result = child.run("query", "m.js", "poisoned", answer=answer)
    assert (
        result.error == 'Uncaught "got"{"queryId":0}{"value":{"i": 1},"done":false}{"value":{"i": 2},"done":false}|\n'
    )


def test_user_code_may_drop_its_globals(child: Child) -> None:
    """`Convex` and `console` are ordinary properties."""
    assert child.run("query", "m.js", "replacedConvex").value == "undefined"


def test_thenables_and_callers(child: Child) -> None:
    """A thenable result is awaited; a function's caller is not visible."""
    assert child.run("query", "m.js", "thenable").value == "given"
    assert child.run("query", "m.js", "argumentsOf").value in ("TypeError", "object")


def test_a_throwing_getter_in_a_logged_value_is_the_callers_problem(child: Child) -> None:
    """console.log of such a value throws into the caller or prints something; the child goes on."""
    assert child.run("query", "m.js", "logsThrow").value in ("getter", "none")


def test_a_loop_inside_error_rendering_is_announced() -> None:
    """User code that runs while its error is rendered still runs under its call's announcement."""
    import os
    import time

    with Child() as child:
        child.add_module("register.js", REGISTER)
        child.add_module("m.js", FUNCTIONS)
        call = child.start("query", "m.js", "lateLoop")
        time.sleep(0.7)
        announced = int.from_bytes(os.pread(child.announce.fileno(), 8, 0), "little")
        child.process.kill()
        assert announced == call
