# ruff: noqa: E501 - JavaScript texts
"""A hostile bundle against one child: each attack ends with its specified result, and a later run of the same child shows nothing of it.

What needs a watchdog (loops) or ends the child (memory) is in ``tests/functions/test_isolation.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.runner.harness import RESULT, SYSRESULT, Child, Failure, page
from tests.runner.samples import HEAD, REGISTER

# What a fresh context looks like; anything that an earlier run could have changed is compared as text.
CANARY = """
const look = () => {
  const texts = [];
  for (const holder of [Object, Array, Function, Promise, Map, String, RegExp, Error, JSON, Reflect, Math, Date, Symbol, Convex, console, process, crypto, URL, Headers, Response, AbortSignal, Blob]) {
    for (const one of [holder, holder.prototype]) {
      if (one === undefined) continue;
      for (const key of Reflect.ownKeys(one)) {
        const { value, get, set } = Object.getOwnPropertyDescriptor(one, key);
        texts.push([String(key), ...[value, get, set].map((f) => (typeof f === "function" ? `${f.name}${f.length}${Function.prototype.toString.call(f).length}` : typeof f === "object" ? "o" : String(f)))].join());
      }
    }
  }
  return [Object.getOwnPropertyNames(globalThis).sort().join(), texts.join("\\n"), Error.stackTraceLimit, new Error("x").stack];
};
export const canary = query(() => look());
"""

ATTACKS: dict[str, tuple[str, Any]] = {
    # -- state, prototypes, globals
    "keepsState": (
        "query(() => { globalThis.kept = 1; globalThis.Object.kept = 1; Convex.kept = console.kept = process.kept = crypto.kept = 1; return typeof kept; })",
        "number",
    ),
    "poisonsPrototypes": (
        "query(() => { for (const p of [Object.prototype, Array.prototype, Function.prototype, Promise.prototype, String.prototype, RegExp.prototype, Map.prototype, Error.prototype]) { p.kept = 1; for (const k of Object.getOwnPropertyNames(p)) { const d = Object.getOwnPropertyDescriptor(p, k); if (d.configurable && typeof d.value === 'function' && k !== 'constructor') Object.defineProperty(p, k, { value: () => 'poison' }); } } throw 'done'; })",
        "Uncaught done\n",
    ),
    "poisonsLazyGlobals": (
        "query(() => { URL.prototype.kept = Headers.kept = Response.kept = Blob.prototype.kept = 1; globalThis.AbortSignal = null; crypto.subtle.digest = null; return 1; })",
        1,
    ),
    "freezesEverything": (
        "query(() => { for (const k of Object.getOwnPropertyNames(globalThis)) { try { Object.freeze(globalThis[k]); Object.freeze(globalThis[k].prototype); } catch {} } Object.freeze(globalThis); return 1; })",
        1,
    ),
    "changesErrors": (
        "query(() => { Error.stackTraceLimit = 0; Error.prepareStackTrace = () => 'mine'; delete Error.captureStackTrace; throw new Error('x'); })",
        "Uncaught Error: x\n",
    ),
    "stealsFromIterators": (
        "query(() => { Array.prototype[Symbol.iterator] = function* () { yield 'stolen'; }; Object.getPrototypeOf([][Symbol.iterator]()).next = () => ({ value: 'stolen', done: true }); Array.prototype.push = () => { throw 'push'; }; try { console.log('a', 'b'); } catch {} return 1; })",
        1,
    ),
    "promiseSubclass": (
        "query(() => { Promise.prototype.then = () => { throw 'then'; }; Object.defineProperty(Promise, Symbol.species, { get() { throw 'species'; } }); return 1; })",
        1,
    ),
    # -- escapes
    "constructorChain": (
        "query(() => [Convex.syscall, Convex.asyncSyscall, console.log, setTimeout, process.env.inspect, fetch, crypto.subtle.digest, Math.random, Date, URL, Error.prepareStackTrace].map((f) => { try { return typeof f.constructor.constructor('return process')(); } catch (e) { return [e.name, e instanceof EvalError]; } }))",
        [["EvalError", True]] * 11,
    ),
    "generatorConstructors": (
        "query(() => [function* () {}, async () => {}, async function* () {}].map((f) => { try { f.constructor('return 1'); return 'made'; } catch (e) { return e instanceof EvalError; } }))",
        [True, True, True],
    ),
    "errorsOfEngine": (
        "query(async () => { const found = []; const probes = [() => null.x, () => new Array(-1), () => 'x'.repeat(2 ** 30), () => JSON.parse('{'), () => decodeURIComponent('%'), () => new RegExp('('), () => BigInt(1.5), () => new Uint8Array(2 ** 40), () => Symbol() + '', () => new WebAssembly.Module(new Uint8Array(3)), () => structuredClone(() => 1), () => new URL('x'), () => atob('*'), () => new Proxy({}, null), () => Reflect.construct(1), () => crypto.getRandomValues(new Uint8Array(70000)), () => new TextDecoder('nope'), () => new Headers([['\\n', '']]), () => new Response('', { status: 1 }), () => new AsyncLocalStorage().run(), () => Atomics.wait()]; for (const p of probes) { try { await p(); found.push('none ' + p); } catch (e) { if (!(e instanceof Error) && !(e instanceof DOMException) || e.constructor.constructor !== Function) found.push(String(p)); } } return found; })",
        [],
    ),
    "rejectionsOfHost": (
        "query(async () => { const found = []; const key = await crypto.subtle.importKey('raw', new Uint8Array(16), { name: 'HMAC', hash: 'SHA-256' }, true, ['sign']).catch((e) => e); for (const p of [() => call('1.0/bad'), () => crypto.subtle.digest('nope', new Uint8Array(1)), () => crypto.subtle.importKey('spki', new Uint8Array(3), { name: 'Ed25519' }, true, ['verify']), () => fetch('http://x'), () => crypto.subtle.generateKey({ name: 'Ed25519' }, true, ['sign']), () => import('./x.js')]) { try { await p(); found.push('none'); } catch (e) { if (e.constructor.constructor !== Function || !(e instanceof Error || e instanceof DOMException)) found.push(String(e)); } } return [found, key instanceof CryptoKey]; })",
        [[], True],
    ),
    "callSites": (
        "query(async () => { let sites = []; Error.prepareStackTrace = (e, s) => { sites.push(...s); return s; }; const provoke = [() => null.x, () => Convex.syscall({ toString() { throw new Error('in'); } }, ''), () => console.log({ inspect() { throw new Error('in'); } }), () => [1].map(() => { throw new Error('in'); }), () => JSON.stringify({ toJSON() { throw new Error('in'); } }), () => structuredClone({ get a() { throw new Error('in'); } })]; for (const p of provoke) { try { p(); } catch (e) { e.stack; } } await null; new Error('after').stack; const found = []; for (const s of sites) for (const k of ['getThis', 'getFunction', 'getTypeName', 'getEvalOrigin', 'getMethodName']) { let v; try { v = s[k](); } catch (e) { v = e; } if (v !== null && (typeof v === 'object' || typeof v === 'function') && v !== globalThis && !(v instanceof Object)) found.push(k); if (Object.getPrototypeOf(Object.getPrototypeOf(s)) !== Object.prototype) found.push('proto'); } return [found, sites.length > 0]; })",
        [[], True],
    ),
    "thenablesToBridge": (
        "query(async () => { const evil = { then(f, r) { f(Convex); r(1); throw 2; } }; await evil; return { then(f) { f('once'); f('twice'); throw 3; } }; })",
        "once",
    ),
    "proxiedArguments": (
        "query(() => { const log = []; const spy = new Proxy(function () {}, { get(t, k) { log.push(String(k)); if (k === Symbol.toPrimitive) return () => '1.0/get'; return undefined; }, apply() { log.push('apply'); }, getPrototypeOf() { log.push('proto'); return null; } }); for (const f of [() => Convex.syscall(spy, spy), () => Convex.asyncSyscall(spy, '{}'), () => clearTimeout(spy), () => process.env[spy], () => new URL(spy), () => console.time(spy)]) { try { const p = f(); p?.catch?.(() => 1); } catch {} } return log.includes('apply'); })",
        False,
    ),
    "detachedBuffers": (
        "query(async () => { class Sly extends ArrayBuffer { static get [Symbol.species]() { return function (n) { return held; }; } } const held = new ArrayBuffer(8); const sly = new Sly(8); const p = crypto.subtle.digest('SHA-256', sly); try { held.transfer(); } catch {} try { sly.transfer(); } catch {} const given = await p.then((b) => b.byteLength, (e) => e.name); const plain = new ArrayBuffer(8); const q = crypto.subtle.digest('SHA-256', plain); plain.transfer(); return [typeof given, await q.then((b) => b.byteLength, (e) => e.name)]; })",
        ["number", 32],
    ),
    "resizableAndSharedBuffers": (
        "query(async () => { const r = new ArrayBuffer(8, { maxByteLength: 64 }); const s = new SharedArrayBuffer(8); const out = []; for (const b of [r, new Uint8Array(r), s, new Uint8Array(s)]) { const p = (async () => crypto.subtle.digest('SHA-256', b))(); if (b === r) r.resize(0); out.push(await p.then((x) => x.byteLength, (e) => e.name)); } return out.every((x) => x === 32 || x === 'TypeError'); })",
        True,
    ),
    "hostileKeyHandles": (
        "query(async () => { const key = await crypto.subtle.importKey('raw', new Uint8Array(16), { name: 'HMAC', hash: 'SHA-256' }, true, ['sign']); const forged = Object.create(CryptoKey.prototype); const cloned = Object.assign(Object.create(Object.getPrototypeOf(key)), key); const out = []; for (const k of [forged, cloned, new Proxy(key, {}), {}, null]) out.push(await crypto.subtle.sign('HMAC', k, new Uint8Array(1)).then(() => 'signed', (e) => e.name)); return out.includes('signed'); })",
        False,
    ),
    "hostileAlgorithms": (
        "query(async () => { const out = []; for (const a of [{ get name() { throw new Error('getter'); } }, new Proxy({}, { get() { throw new Error('trap'); } }), { name: { toString() { throw new Error('text'); } } }, { name: 'PBKDF2', iterations: -1, salt: {} }, null, 1, Symbol()]) out.push(await (async () => crypto.subtle.digest(a, new Uint8Array(1)))().then(() => 'done', (e) => typeof e)); return out; })",
        ["object"] * 7,
    ),
    "jsSyscalls": (
        "query(() => { const out = []; for (const n of ['__proto__', 'constructor', 'toString', 'hasOwnProperty']) { try { Convex.jsSyscall(n, {}); out.push('ran'); } catch (e) { out.push(e.message); } } return out; })",
        "Uncaught Error: Unknown JS syscall: __proto__\n",
    ),
    "syscallNames": (
        "query(() => ['__proto__', 'constructor', 'toString', ''].map((n) => { try { return Convex.syscall(n, '{}'); } catch (e) { return e.message; } }))",
        [
            "Unknown operation __proto__",
            "Unknown operation constructor",
            "Unknown operation toString",
            "Unknown operation ",
        ],
    ),
    "syscallArgumentShapes": (
        "query(async () => { const out = []; for (const a of ['null', '1', '[]', '\"x\"', '{\"queryId\":{}}', '{\"queryId\":1e99}', '{\"__proto__\":1}']) for (const o of ['1.0/queryCleanup', '1.0/db/normalizeId', '1.0/queryStream']) { try { Convex.syscall(o, a); } catch (e) { if (!(e instanceof Error)) out.push(o + a); } } for (const a of ['null', '[]', '{\"queryId\":\"0\"}', '1']) await Convex.asyncSyscall('1.0/queryStreamNext', a).catch((e) => { if (!(e instanceof Error)) out.push(a); }); return out; })",
        [],
    ),
    "environmentTricks": (
        "query(() => { const out = []; for (const k of ['__proto__', 'constructor', 'toString', 'A'.repeat(256)]) out.push(typeof process.env[k]); process.env.SET = 1; delete process.env.SET; Object.setPrototypeOf(process.env, { X: 1 }); return [out, Object.keys(process.env), 'SET' in process.env]; })",
        [["undefined"] * 4, [], False],
    ),
    "callers": (
        "query(function f() { try { return [typeof f.caller, typeof f.arguments, typeof arguments.callee]; } catch (e) { return e instanceof TypeError; } })",
        True,
    ),
    # -- values that come back
    "returnsProxy": (
        "query(() => new Proxy({}, { ownKeys() { return ['a']; }, getOwnPropertyDescriptor() { return { value: 1, enumerable: true, configurable: true }; }, get(t, k) { return k === 'a' ? 7 : undefined; } }))",
        {"a": 7},
    ),
    "returnsToJson": (
        "query(() => ({ toJSON() { return { toJSON: 1, b: [undefined, () => 1] }; } }))",
        {"toJSON": 1, "b": [None, None]},
    ),
    "returnsCycle": (
        "query(() => { const a = {}; a.a = a; return a; })",
        "Uncaught TypeError: Converting circular structure to JSON",
    ),
    "returnsDeep": (
        "query(() => { let a = 1; for (let i = 0; i < 200000; i++) a = [a]; return a; })",
        "Uncaught RangeError: Maximum call stack size exceeded",
    ),
    "returnsSurrogates": (
        "query(() => ['\\ud800', 'a\\udc00b', { '\\ud800': 1 }])",
        ["\ud800", "a\udc00b", {"\ud800": 1}],
    ),
    "returnsBigInt": ("query(() => 1n)", "Uncaught TypeError: Do not know how to serialize a BigInt"),
    "throwsWhileRendered": (
        "query(() => { const e = new Error('m'); Object.defineProperty(e, 'message', { get() { throw 1; } }); Object.defineProperty(e, 'name', { get() { throw 1; } }); throw e; })",
        "Uncaught ",
    ),
    "throwsNonText": (
        "query(() => { const e = new Error(); e.message = { toString() { throw 1; } }; e.name = Symbol('n'); throw e; })",
        "Uncaught ",
    ),
    "throwsNested": (
        "query(() => { throw Object.assign(new Error('outer'), { cause: new Proxy({}, { get() { throw 1; } }), errors: [1] }); })",
        "Uncaught Error: outer\n",
    ),
    "throwsForgedConvexError": (
        "query(() => { const s = Symbol.for('ConvexError'); throw Object.assign(new Error('m'), { ConvexErrorSymbol: s, [s]: true, data: '{' }); })",
        "ConvexError with invalid data: {",
    ),
    "throwsUndefined": ("query(() => { throw undefined; })", "Uncaught undefined\n"),
    "throwsSymbol": ("query(() => { throw Symbol('s'); })", "Uncaught Symbol(s)\n"),
    "throwsHuge": ("query(() => { throw new Error('x'.repeat(50_000_000)); })", "Uncaught Error: xxx"),
    # -- logs
    "logsHostile": (
        "query(() => { const out = []; for (const v of [new Proxy({}, { get() { throw new Error('trap'); }, ownKeys() { throw new Error('keys'); }, getPrototypeOf() { throw new Error('proto'); } }), { inspect() { throw new Error('own'); } }, { get a() { throw new Error('getter'); } }, { [Symbol.toStringTag]: { toString() { throw new Error('tag'); } } }, Object.create({ constructor: { get name() { throw new Error('name'); } } })]) { try { console.log(v); out.push(true); } catch (e) { out.push(e instanceof Error); } } return out; })",
        [True] * 5,
    ),
    "logsFlood": ("query(() => { for (let i = 0; i < 5000; i++) console.log(i); return 1; })", 1),
    "logsHuge": (
        "query(() => { const s = 'x'.repeat(100_000_000); for (let i = 0; i < 5; i++) console.log(s, s); return 1; })",
        1,
    ),
    "logsReplaceNatives": (
        "query(() => { globalThis.String = () => { throw 1; }; Array.prototype.join = Map.prototype.forEach = String.prototype.replace = RegExp.prototype.test = () => { throw new Error('replaced'); }; try { console.log({ a: [1, new Map([[1, 2]])] }); } catch (e) { return e.message; } return 'ok'; })",
        "Uncaught TypeError: ",
    ),
    # -- left behind
    "leavesPromises": (
        "query(() => { for (let i = 0; i < 1000; i++) new Promise(() => 1); (async () => { await new Promise(() => 1); })(); return 1; })",
        1,
    ),
    "leavesTimers": (
        "action(() => { setInterval(() => { globalThis.late = 1; console.log('late'); }, 1); setTimeout(() => { throw new Error('late'); }, 5); return 1; })",
        1,
    ),
    "leavesRejection": (
        "query(async () => { Promise.reject(new Error('left')); await call('1.0/get'); return 1; })",
        "Uncaught Error: left\n",
    ),
    "neverSettles": ("query(() => new Promise(() => 1))", "Returned promise will never resolve"),
    "callsAfterEnd": (
        "query(() => { const p = call('1.0/get'); p.then(() => { globalThis.after = 1; console.log('after'); }); return 1; })",
        1,
    ),
    # -- uncatchable ends cannot be turned into success
    "catchesTimer": (
        "query(async () => { try { setTimeout(() => 1, 0); } catch {} try { await 1; } finally { return 'got away'; } })",
        "Uncaught Error: Can't use setTimeout in queries and mutations.",
    ),
    "catchesFatal": (
        "query(async () => { try { new Request('http://x').mode; } catch {} for (;;) { try { await call('1.0/get'); return 'got away'; } catch {} } })",
        "Uncaught Error: Not implemented: get mode for Request.",
    ),
    "catchesFault": (
        "mutation(() => { try { Convex.syscall('throwOverloaded', '{}'); } catch {} return 'got away'; })",
        "I'm a bit busy.",
    ),
    "replacesInvoke": (
        "Object.assign(() => 1, { isQuery: true, isPublic: true, invokeQuery: () => ({ then(r) { r({ toString: () => '1' }); } }) })",
        "Function m.js:replacesInvoke returned a result that is not text.",
    ),
    "throwingInvoke": (
        "({ isQuery: true, isPublic: true, get invokeQuery() { throw new Error('getter'); } })",
        "Uncaught Error: getter\n",
    ),
    "proxyExport": (
        "new Proxy(() => 1, { get(t, k) { throw new Error('trap ' + String(k)); }, has() { throw new Error('has'); } })",
        "Function m.js:proxyExport is neither a query or mutation.",
    ),
    # -- APIs with a host half, in actions
    "fetchArguments": (
        "action(async () => { const out = []; const evil = new Proxy({}, { get(t, k) { throw new Error('trap'); } }); const iterator = { [Symbol.iterator]() { throw new Error('iterator'); } }; for (const args of [[evil], [{ toString() { throw new Error('text'); } }], [Symbol()], ['http://127.0.0.1:1/', evil], ['http://127.0.0.1:1/', { headers: iterator }], ['http://127.0.0.1:1/', { get method() { throw new Error('getter'); } }], ['http://127.0.0.1:1/', { method: 'POST', body: new ReadableStream({ pull() { throw new Error('pull'); } }) }], ['http://127.0.0.1:1/', { method: 'POST', body: new ReadableStream({ start(c) { c.enqueue({}); c.close(); } }) }], ['http://127.0.0.1:1/', { signal: {} }], ['file:///etc/passwd'], ['data:,x'], ['http://127.0.0.1:1/', { method: 'G\\r\\nX: y' }], ['http://127.0.0.1:1/', { headers: { 'a': 'b\\r\\nc: d' } }]]) out.push(await (async () => fetch(...args))().then((r) => 'answered', (e) => e instanceof Error && e.constructor.constructor === Function)); return out; })",
        [True] * 13,
    ),
    "timerFlood": ("action(async () => { for (let i = 0; i < 50000; i++) setTimeout(() => 1, 1e6); return 1; })", 1),
    "timerArguments": (
        "action(async () => { const ids = [NaN, -1, Infinity, '5', {}, null, 2 ** 40].map((d) => setTimeout(() => 1, d)); for (const id of [NaN, -1, 2 ** 53, '1', {}, null]) clearTimeout(id); return ids.every((id) => typeof id === 'number'); })",
        True,
    ),
    "timerThrowsHostile": (
        "action(() => new Promise(() => { setTimeout(() => { throw new Proxy({}, { get() { throw 1; }, getPrototypeOf() { throw 2; } }); }); }))",
        "Uncaught ",
    ),
    "importFlood": (
        "action(async () => { const all = []; for (let i = 0; i < 3000; i++) all.push(import('./none' + (i % 7) + '.js').catch((e) => e.message.length > 10)); return (await Promise.all(all)).every(Boolean); })",
        True,
    ),
    "rejectsInTimer": (
        "action(() => new Promise(() => { setTimeout(() => { Promise.reject(new Error('from timer')); }); }))",
        "Uncaught Error: from timer\n",
    ),
    # -- classes of the platform with hostile arguments
    "platformArguments": (
        "query(async () => { const out = []; const evil = () => new Proxy(function () {}, { get(t, k) { throw new Error('trap'); }, apply() { throw new Error('apply'); }, getPrototypeOf() { throw new Error('proto'); } }); const detached = () => { const b = new ArrayBuffer(8); const v = new Uint8Array(b); b.transfer(); return v; }; const probes = { url: () => new URL(evil()), params: () => new URLSearchParams(evil()), headers: () => new Headers(evil()), blob: () => new Blob(evil()), file: () => new File([], evil()), form: () => new FormData().append(evil(), 1), request: () => new Request(evil()), init: () => new Request('http://x', evil()), response: () => new Response('', evil()), event: () => new Event(evil()), dispatch: () => new EventTarget().dispatchEvent(evil()), listen: () => new EventTarget().addEventListener('x', evil(), evil()), signal: () => AbortSignal.any([evil()]), clone: () => structuredClone(evil()), random: () => crypto.getRandomValues(evil()), detachedRandom: () => crypto.getRandomValues(detached()), decode: () => new TextDecoder().decode(evil()), detachedDecode: () => new TextDecoder().decode(detached()), into: () => new TextEncoder().encodeInto('x', evil()), atob: () => atob(evil()), store: () => new AsyncLocalStorage().run(1, evil()), bind: () => AsyncResource.bind(evil()), mark: () => performance.mark(evil()), stream: () => new ReadableStream(evil()), transform: () => new TransformStream(evil()), ref: () => new WeakRef(evil()).deref(), exception: () => new DOMException(evil()) }; for (const [name, probe] of Object.entries(probes)) { try { await probe(); } catch (e) { let own = false; try { own = Object.getPrototypeOf(e).constructor.constructor === Function; } catch {} if (!own) out.push(name); } } return out; })",
        [],
    ),
    "bodiesOfHostileStreams": (
        "query(async () => { const out = []; for (const source of [{ pull() { throw new Error('pull'); } }, { start(c) { c.enqueue('text'); c.close(); } }, { start(c) { c.error(Symbol('s')); } }, { start(c) { c.enqueue(new Proxy(new Uint8Array(1), {})); c.close(); } }, { start(c) { const v = new Uint8Array(4); c.enqueue(v); v.buffer.transfer(); c.close(); } }]) out.push(await new Response(new ReadableStream(source)).arrayBuffer().then((b) => b.byteLength, (e) => typeof e)); return out; })",
        ["object", "object", "symbol", "object", "object"],
    ),
    "structuredCloneBomb": (
        "query(() => { let a = {}; for (let i = 0; i < 50000; i++) a = { a }; try { structuredClone(a); return true; } catch (e) { return e instanceof Error || e instanceof DOMException; } })",
        True,
    ),
    "wasmRuns": (
        "query(() => { const m = new WebAssembly.Module(new Uint8Array([0,97,115,109,1,0,0,0,1,4,1,96,0,0,2,7,1,1,97,1,98,0,0,3,2,1,0,7,5,1,1,99,0,1,10,6,1,4,0,16,0,11])); let seen = 0; const i = new WebAssembly.Instance(m, { a: { b() { seen++; try { new Error().stack; } catch {} throw new Error('through wasm'); } } }); try { i.exports.c(); } catch (e) { return [seen, e.message, e.constructor.constructor === Function, i.exports.c.constructor === Function]; } })",
        [1, "through wasm", True, True],
    ),
}

MEMORY = """
const hold = [];
const megabytes = async (n, make) => { for (let i = 0; i < n; i++) { hold.push(make()); await call("1.0/get"); } return hold.length; };
export const holdsHeap = query(({ n }) => megabytes(n, () => new Array(131072).fill(0.5)));
export const holdsBuffers = query(({ n }) => megabytes(n, () => new Uint8Array(1 << 20)));
export const churns = query(async ({ n }) => { for (let i = 0; i < n; i++) { new Uint8Array(1 << 20); new Array(131072).fill(i); if (i % 8 === 0) await call("1.0/get"); } return n; });
export const actionHolds = action(({ n }) => megabytes(n, () => new Uint8Array(1 << 20)));
"""

MODULE = HEAD + CANARY + MEMORY + "".join(f"export const {name} = {text};\n" for name, (text, _) in ATTACKS.items())


def answer(op: str, _args: Any, _meta: dict[str, Any]) -> Any:
    if op == "1.0/bad":
        raise Failure("bad")
    return page([{"i": 1}, {"i": 2}], True) if op == "1.0/queryStreamNext" else '"got"'


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with Child() as one:
        one.add_module("register.js", REGISTER)
        one.add_module("m.js", MODULE)
        yield one


@pytest.fixture(scope="module")
def clean(child: Child) -> list[Any]:
    """What the canary of a child that has run nothing else says."""
    with Child() as one:
        one.add_module("register.js", REGISTER)
        one.add_module("m.js", MODULE)
        found: list[Any] = one.run("query", "m.js", "canary").value
    return found


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_has_its_end_and_leaves_nothing(child: Child, clean: list[Any], name: str) -> None:
    """The given value or error in bounded time; the next run in the same child finds a context as new."""
    text, expected = ATTACKS[name]
    kind = text.split("(", 1)[0] if text.startswith(("query", "mutation", "action")) else "query"
    result = child.run(kind, "m.js", name, answer=answer, timeout=5)
    if result.ok:
        assert expected is None or result.value == expected
    else:
        assert isinstance(expected, str), result.error[:500]
        assert result.error.startswith(expected)
    assert len(result.meta["logs"]) <= 257
    assert all(len(" ".join(line["messages"])) <= 40100 for line in result.meta["logs"])
    assert child.run("query", "m.js", "canary").value == clean


MEMORY_TEXT = "JavaScript execution ran out of memory (maximum memory usage: 64 MB)"


@pytest.mark.parametrize(
    ("kind", "name"), [("query", "holdsHeap"), ("query", "holdsBuffers"), ("action", "actionHolds")]
)
def test_a_call_that_holds_more_than_it_may_ends(child: Child, kind: str, name: str) -> None:
    """Over 64 MiB of heap, or of buffers, kept between two entries: the memory text as a system error, and the child lives on."""
    result = child.run(kind, "m.js", name, [{"n": 90}], answer=answer)
    assert (result.error, result.meta["error"]["kind"]) == (MEMORY_TEXT, "system")
    assert child.run("query", "m.js", "returnsProxy").value == {"a": 7}


def test_memory_within_the_limits_is_fine(child: Child) -> None:
    """50 MiB of heap, 50 MiB of buffers, and much more that is garbage at once."""
    assert child.run("query", "m.js", "holdsHeap", [{"n": 50}], answer=answer).value == 50
    assert child.run("query", "m.js", "holdsBuffers", [{"n": 50}], answer=answer).value == 50
    assert child.run("query", "m.js", "churns", [{"n": 300}], answer=answer).value == 300


def test_only_the_call_that_holds_memory_ends(child: Child) -> None:
    """Calls that interleave with one that holds too much are not charged for it."""
    small = [child.start("query", "m.js", "holdsBuffers", [{"n": 12}]) for _ in range(3)]
    large = child.start("query", "m.js", "holdsBuffers", [{"n": 90}])
    ended: dict[int, Any] = {}
    while len(ended) < 4:
        kind, call, seq, meta, body = child.receive()
        if kind == RESULT:
            ended[call] = body if meta["ok"] else meta["error"]["message"]
        else:
            child.send(SYSRESULT, call, seq, None, "null")
    assert ended == {**dict.fromkeys(small, "12"), large: MEMORY_TEXT}
