# ruff: noqa: E501 - JavaScript texts
"""Places where a run can hide state for the next one: for each a module whose query ``f`` answers otherwise once an earlier run has left something.

A case is what stands at the module's top level and the handler of ``f``. Three tables: state of the module itself, state of the realm (builtins, global object,
what the host puts there), and state of what the host keeps behind it.
"""

from __future__ import annotations

from typing import Final

Case = tuple[str, str]

MODULE: Final[dict[str, Case]] = {
    "let": ("let n = 0;", "() => ++n"),
    "object": ("const o = { n: 0 };", "() => ++o.n"),
    "array": ("const a = [];", "() => a.push(1)"),
    "map": ("const m = new Map();", "() => m.set(m.size, 1).size"),
    "set": ("const s = new Set();", "() => s.add(s.size).size"),
    "weak map": ("const w = new WeakMap(), k = {};", "() => { w.set(k, (w.get(k) ?? 0) + 1); return w.get(k); }"),
    "weak set": ("const w = new WeakSet(), k = {};", "() => { const had = w.has(k); w.add(k); return had; }"),
    "closure": ("const next = (() => { let n = 0; return () => ++n; })();", "() => next()"),
    "closure over an object": ("const next = (() => { const o = { n: 0 }; return () => ++o.n; })();", "() => next()"),
    "private field": ("class C { #n = 0; next() { return ++this.#n; } } const c = new C();", "() => c.next()"),
    "static private field": ("class C { static #n = 0; static next() { return ++C.#n; } }", "() => C.next()"),
    "static field": ("class C { static n = 0; }", "() => ++C.n"),
    "class expando": ("class C {}", "() => (C.n = (C.n ?? 0) + 1)"),
    "g regex": ("const r = /a/g;", "() => { r.exec('aaaa'); return r.lastIndex; }"),
    "y regex": ("const r = /a/y;", "() => { r.test('aaaa'); return r.lastIndex; }"),
    "generator": ("function* g() { let n = 0; for (;;) yield ++n; } const i = g();", "() => i.next().value"),
    "async generator": (
        "async function* g() { let n = 0; for (;;) yield ++n; } const i = g();",
        "async () => (await i.next()).value",
    ),
    "array iterator": ("const i = [1, 2, 3, 4][Symbol.iterator]();", "() => i.next().value"),
    "map iterator": ("const i = new Map([[1, 1], [2, 2], [3, 3]]).keys();", "() => i.next().value"),
    "set iterator": ("const i = new Set([1, 2, 3]).values();", "() => i.next().value"),
    "iterator helper": ("const i = [1, 2, 3, 4].values().map((x) => x * 2);", "() => i.next().value"),
    "disguised iterator": (
        "const i = [1, 2, 3].values(), next = i.next; Object.setPrototypeOf(i, null);",
        "() => next.call(i).value",
    ),
    "false tag": (
        "const i = [1, 2, 3].values(); Object.defineProperty(i, Symbol.toStringTag, { value: 'Object' });",
        "() => i.next().value",
    ),
    "date": ("const d = new Date(0);", "() => d.setTime(d.getTime() + 1)"),
    "typed array": ("const t = new Uint8Array(1);", "() => ++t[0]"),
    "data view": (
        "const t = new DataView(new ArrayBuffer(1));",
        "() => { t.setUint8(0, t.getUint8(0) + 1); return t.getUint8(0); }",
    ),
    "resizable buffer": (
        "const b = new ArrayBuffer(1, { maxByteLength: 99 });",
        "() => { b.resize(b.byteLength + 1); return b.byteLength; }",
    ),
    "view over a module's buffer": ("const b = new ArrayBuffer(1);", "() => ++new Uint8Array(b)[0]"),
    "wasm memory": ("const m = new WebAssembly.Memory({ initial: 1 });", "() => m.grow(1)"),
    "function expando": ("function g() {}", "() => (g.n = (g.n ?? 0) + 1)"),
    "own prototype": ("class C {}", "() => (C.prototype.n = (C.prototype.n ?? 0) + 1)"),
    "resolver": (
        "let resolve; const p = new Promise((r) => { resolve = r; });",
        "() => { const now = p.seen ?? 0; p.seen = now + 1; resolve(1); return now; }",
    ),
    "object in a promise": ("const p = Promise.resolve({ n: 0 });", "async () => ++(await p).n"),
    "bound arguments": ("const b = ((o) => ++o.n).bind(null, { n: 0 });", "() => b()"),
    "proxy target": ("const p = new Proxy({ n: 0 }, {});", "() => ++p.n"),
    "proxy trap": ("let n = 0; const p = new Proxy({}, { get: () => ++n });", "() => p.x"),
    "lazy memo": ("let made; const memo = () => (made ??= { n: 0 });", "() => ++memo().n"),
    "reflect set": ("const o = { n: 0 };", "() => { Reflect.set(o, 'n', o.n + 1); return o.n; }"),
    "assign": ("const o = { n: 0 };", "() => Object.assign(o, { n: o.n + 1 }).n"),
    "template object as key": (
        "const w = new WeakMap(), t = (s) => s;",
        "() => { const k = t`a`; w.set(k, (w.get(k) ?? 0) + 1); return w.get(k); }",
    ),
    "template identity": (
        "let last; const t = (s) => s; const g = () => t`a`;",
        "() => { const had = last === g(); last = g(); return had; }",
    ),
    "field array": ("class C { a = []; } const c = new C();", "() => c.a.push(1)"),
    "default parameter": ("const g = ((o = { n: 0 }) => () => ++o.n)();", "() => g()"),
    "memoising getter": (
        "const o = { get a() { Object.defineProperty(this, 'a', { value: [] }); return this.a; } };",
        "() => o.a.push(1)",
    ),
    "freeze observed": ("const o = {};", "() => { const was = Object.isFrozen(o); Object.freeze(o); return was; }"),
    "prevent extensions observed": (
        "const o = { a: 1 };",
        "() => { const was = Object.isExtensible(o); Object.preventExtensions(o); return was; }",
    ),
    "destructuring target": ("const o = { n: 0 };", "() => { [o.n] = [o.n + 1]; return o.n; }"),
    "for-of target": ("const o = { n: 0 };", "() => { for (o.n of [o.n + 1]); return o.n; }"),
    "super target": (
        "class B {} class C extends B { static set() { super.n = (C.n ?? 0) + 1; return C.n; } }",
        "() => C.set()",
    ),
    "array length": ("const a = [1, 2, 3, 4];", "() => --a.length"),
    "private brand": (
        "class B { constructor(o) { return o; } } class C extends B { #n = 0; static has(o) { return #n in o; } } const o = {};",
        "() => { const had = C.has(o); if (!had) new C(o); return had; }",
    ),
    "JSON.parse child": ('const o = JSON.parse(\'{"a":{"n":0}}\');', "() => ++o.a.n"),
    "reviver": (
        "let kept; JSON.parse('{\"a\":1}', function (k, v) { if (k === 'a') kept = this; return v; });",
        "() => ++kept.a",
    ),
    "switch capture": ("let g; switch (1) { case 1: let n = 0; g = () => ++n; }", "() => g()"),
    "class scope": ("let g; { let n = 0; class C { static next = () => ++n; } g = C.next; }", "() => g()"),
    "loop capture": ("const gs = []; for (let n = 0; n < 1; n++) gs.push(() => ++n);", "() => gs[0]()"),
    "arguments object": ("const args = (function () { return arguments; })(0);", "() => ++args[0]"),
    "suspended async function": (
        "let go, n = 0; (async () => { for (;;) { await new Promise((r) => { go = r; }); n++; } })();",
        "async () => { go(); await null; await null; return n; }",
    ),
    "Array.from result": ("const a = Array.from([0]);", "() => ++a[0]"),
    "species": ("class A extends Array {} const a = A.of(0).map((x) => x);", "() => ++a[0]"),
    "captureStackTrace": (
        "const o = {};",
        "() => { const had = 'stack' in o; Error.captureStackTrace(o); return had; }",
    ),
    "stack of a module error": (
        "const e = new Error('a');",
        "() => { const was = e.stack === 'mine'; e.stack = 'mine'; return was; }",
    ),
    "logical assignment": ("const o = { n: null };", "() => { const was = o.n; o.n ??= 1; return was; }"),
    "static block": ("let g; class C { static { let n = 0; g = () => ++n; } }", "() => g()"),
    "Symbol.replace on an object": (
        "const o = { n: 0, [Symbol.replace]() { return String(++o.n); } };",
        "() => 'a'.replace(o, '')",
    ),
    "split species": (
        "class R extends RegExp { static n = 0; static get [Symbol.species]() { return class extends R { constructor(...a) { super(...a); R.n++; } }; } } const r = new R('a');",
        "() => { 'bab'.split(r); return R.n; }",
    ),
    "Intl legacy constructor": (
        "const o = Object.create(Intl.NumberFormat.prototype);",
        "() => { const had = Object.getOwnPropertySymbols(o).length; try { Intl.NumberFormat.call(o); } catch {} return had; }",
    ),
    "private object": (
        "class C { #o = { n: 0 }; next() { return ++this.#o.n; } } const c = new C();",
        "() => c.next()",
    ),
    "private date": (
        "class C { #d = new Date(0); next() { return this.#d.setTime(this.#d.getTime() + 1); } } const c = new C();",
        "() => c.next()",
    ),
    "private array": ("class C { #a = []; next() { return this.#a.push(1); } } const c = new C();", "() => c.next()"),
    "private map": (
        "class C { #m = new Map(); next() { return this.#m.set(this.#m.size, 1).size; } } const c = new C();",
        "() => c.next()",
    ),
    "private regex": (
        "class C { #r = /a/g; next() { this.#r.exec('aaaa'); return this.#r.lastIndex; } } const c = new C();",
        "() => c.next()",
    ),
    "private generator": (
        "class C { #g = (function* () { yield 1; yield 2; yield 3; })(); next() { return this.#g.next().value; } } const c = new C();",
        "() => c.next()",
    ),
    "object as weak map value": ("const k = {}, w = new WeakMap([[k, { n: 0 }]]);", "() => ++w.get(k).n"),
    "buffer as weak map value": (
        "const k = {}, w = new WeakMap([[k, new ArrayBuffer(1)]]);",
        "() => ++new Uint8Array(w.get(k))[0]",
    ),
    "iterator as weak map value": (
        "const k = {}, w = new WeakMap([[k, [1, 2, 3].values()]]);",
        "() => w.get(k).next().value",
    ),
    "weak ref target": ("const r = new WeakRef({ n: 0 });", "() => ++r.deref().n"),
    "revocable proxy": (
        "const r = Proxy.revocable({}, {});",
        "() => { let dead = false; try { r.proxy.x; } catch { dead = true; } r.revoke(); return dead; }",
    ),
    "catch parameter": ("let g; try { throw { n: 0 }; } catch (e) { g = () => ++e.n; }", "() => g()"),
    "destructured parameter": ("const g = (({ a }) => () => ++a.n)({ a: { n: 0 } });", "() => g()"),
    "rest parameter": ("const g = ((...a) => () => a.push(1))();", "() => g()"),
    "constructor parameter": (
        "class C { constructor(o) { this.next = () => ++o.n; } } const c = new C({ n: 0 });",
        "() => c.next()",
    ),
    "for-in capture": ("const gs = []; for (let k in { a: 1 }) gs.push(() => (k += 'x'));", "() => gs[0]()"),
    "named function expression": ("const g = function h() { return (h.n = (h.n ?? 0) + 1); };", "() => g()"),
    "optional-chain push": ("const a = [];", "() => a?.push(1)"),
    "applied push": ("const a = [];", "() => Array.prototype.push.apply(a, [1])"),
    "replaced prototype": (
        "const o = {};",
        "() => { const was = Object.getPrototypeOf(o) === null; Object.setPrototypeOf(o, null); return was; }",
    ),
    "__defineGetter__": (
        "const o = {};",
        "() => { const was = o.a ?? 0; o.__defineGetter__('a', () => was + 1); return was; }",
    ),
    "rest alias": ("const { ...o } = { a: { n: 0 } };", "() => ++o.a.n"),
    "nested map keys": (
        "const k = { n: 0 }, m = new Map([[new Map([[k, 1]]), 1]]);",
        "() => ++[...[...m.keys()][0].keys()][0].n",
    ),
    "accessor pair": ("let n = 0; const o = { get a() { return n; }, set a(v) { n = v; } };", "() => ++o.a"),
    "parenthesised target": ("const o = { n: 0 };", "() => { (o.n) = o.n + 1; return o.n; }"),
    "hole target": ("const o = { n: 0 };", "() => { [, o.n] = [0, o.n + 1]; return o.n; }"),
}
"""State of the module: new in each run because the module is."""

REALM: Final[dict[str, Case]] = {
    "builtin prototype": ("", "() => (Array.prototype.n = (Array.prototype.n ?? 0) + 1)"),
    "Object.prototype by defineProperty": (
        "",
        "() => { const was = {}.n ?? 0; Object.defineProperty(Object.prototype, 'n', { value: was + 1, configurable: true }); return was; }",
    ),
    "globalThis": ("", "() => (globalThis.n = (globalThis.n ?? 0) + 1)"),
    "symbol on Math": ("const s = Symbol.for('n');", "() => (Math[s] = (Math[s] ?? 0) + 1)"),
    "RegExp.$1": ("", "() => { const was = RegExp.$1; /(b)/.exec('abc'); return was; }"),
    "RegExp.input": ("", "() => { const was = RegExp.input; RegExp.input = 'mine'; return was; }"),
    "RegExp.lastMatch": (
        "",
        "() => { const was = [RegExp.lastMatch, RegExp.lastParen, RegExp.leftContext, RegExp.rightContext, RegExp.$_]; /(b)/.exec('abc'); return was; }",
    ),
    "swallowed write": ("", "() => { const was = Math.n ?? 0; try { Math.n = was + 1; } catch {} return was; }"),
    "Reflect.set on Math": ("", "() => { const was = Math.n ?? 0; Reflect.set(Math, 'n', was + 1); return was; }"),
    "name of a builtin function": (
        "",
        "() => { const was = Math.max.name; Object.defineProperty(Math.max, 'name', { value: was + 'x' }); return was; }",
    ),
    "stackTraceLimit": ("", "() => ++Error.stackTraceLimit"),
    "deleted stackTraceLimit": (
        "",
        "() => { const had = 'stackTraceLimit' in Error; delete Error.stackTraceLimit; return had; }",
    ),
    "redefined accessor": (
        "",
        "() => { const d = Object.getOwnPropertyDescriptor(Map.prototype, 'size'); const was = d.get.mine ?? 0; Object.defineProperty(Map.prototype, 'size', { get: Object.assign(() => 1, { mine: was + 1 }), configurable: true }); return was; }",
    ),
    "setPrototypeOf on JSON": (
        "",
        "() => { const was = JSON.n ?? 0; Object.setPrototypeOf(JSON, { n: was + 1 }); return was; }",
    ),
    "array iterator prototype": (
        "",
        "() => { const p = Object.getPrototypeOf([].values()); return (p.n = (p.n ?? 0) + 1); }",
    ),
    "map iterator prototype": (
        "",
        "() => { const p = Object.getPrototypeOf(new Map().values()); return (p.n = (p.n ?? 0) + 1); }",
    ),
    "set iterator prototype": (
        "",
        "() => { const p = Object.getPrototypeOf(new Set().values()); return (p.n = (p.n ?? 0) + 1); }",
    ),
    "string iterator prototype": (
        "",
        "() => { const p = Object.getPrototypeOf(''[Symbol.iterator]()); return (p.n = (p.n ?? 0) + 1); }",
    ),
    "regexp string iterator prototype": (
        "",
        "() => { const p = Object.getPrototypeOf(''.matchAll(/a/g)); return (p.n = (p.n ?? 0) + 1); }",
    ),
    "iterator helper prototype": (
        "",
        "() => { const p = Object.getPrototypeOf([].values().map((x) => x)); return (p.n = (p.n ?? 0) + 1); }",
    ),
    "wrapped iterator prototype": (
        "",
        "() => { const p = Object.getPrototypeOf(Iterator.from({ next() {} })); return (p.n = (p.n ?? 0) + 1); }",
    ),
    "segments prototype": (
        "",
        "() => { const p = Object.getPrototypeOf(new Intl.Segmenter().segment('a')); return (p.n = (p.n ?? 0) + 1); }",
    ),
    "segment iterator prototype": (
        "",
        "() => { const p = Object.getPrototypeOf(new Intl.Segmenter().segment('a')[Symbol.iterator]()); return (p.n = (p.n ?? 0) + 1); }",
    ),
    "iterator prototype": ("", "() => (Iterator.prototype.n = (Iterator.prototype.n ?? 0) + 1)"),
    "async iterator prototype": (
        "",
        "() => { const p = Object.getPrototypeOf(Object.getPrototypeOf(Object.getPrototypeOf((async function* () {})()))); const q = Object.getPrototypeOf(p); return (q.n = (q.n ?? 0) + 1); }",
    ),
    "async function prototype": (
        "",
        "() => { const p = Object.getPrototypeOf(async () => {}); return (p.n = (p.n ?? 0) + 1); }",
    ),
    "generator function prototype": (
        "",
        "() => { const p = Object.getPrototypeOf(function* () {}); return (p.n = (p.n ?? 0) + 1); }",
    ),
    "generator prototype": (
        "",
        "() => { const p = Object.getPrototypeOf(function* () {}).prototype; return (p.n = (p.n ?? 0) + 1); }",
    ),
    "async generator function prototype": (
        "",
        "() => { const p = Object.getPrototypeOf(async function* () {}); return (p.n = (p.n ?? 0) + 1); }",
    ),
    "async generator prototype": (
        "",
        "() => { const p = Object.getPrototypeOf(async function* () {}).prototype; return (p.n = (p.n ?? 0) + 1); }",
    ),
    "AsyncFunction constructor": (
        "",
        "() => { const p = Object.getPrototypeOf(async () => {}).constructor; return (p.n = (p.n ?? 0) + 1); }",
    ),
    "typed array constructor": (
        "",
        "() => { const p = Object.getPrototypeOf(Uint8Array); return (p.n = (p.n ?? 0) + 1); }",
    ),
    "function prototype": ("", "() => (Function.prototype.n = (Function.prototype.n ?? 0) + 1)"),
    "accessor setter of Iterator.prototype": (
        "",
        "() => { const o = Iterator.prototype; const was = String(o[Symbol.toStringTag]); try { Object.defineProperty(o, Symbol.toStringTag, { value: was + 'x' }); } catch {} return was; }",
    ),
    "call site prototype": (
        "",
        "() => { const own = Error.prepareStackTrace; Error.prepareStackTrace = (e, s) => s; const [site] = new Error().stack; const p = Object.getPrototypeOf(site); Error.prepareStackTrace = own; return (p.n = (p.n ?? 0) + 1); }",
    ),
    "call site prototype with the hook removed": (
        "",
        "() => { delete Error.prepareStackTrace; Error.prepareStackTrace = (e, s) => s; const p = Object.getPrototypeOf(new Error().stack[0]); return (p.n = (p.n ?? 0) + 1); }",
    ),
    "prepareStackTrace": (
        "",
        "() => { const was = Error.prepareStackTrace.mine ?? 0; Error.prepareStackTrace = () => 'x'; Error.prepareStackTrace.mine = was + 1; return was; }",
    ),
    "expando on prepareStackTrace": ("", "() => { const p = Error.prepareStackTrace; return (p.n = (p.n ?? 0) + 1); }"),
    "error stack getter": (
        "",
        "() => { const d = Object.getOwnPropertyDescriptor(new Error(), 'stack'); const g = d.get ?? {}; const was = g.n ?? 0; try { g.n = was + 1; } catch {} return was; }",
    ),
    "captured stack getter": (
        "",
        "() => { const o = {}; Error.captureStackTrace(o); const g = Object.getOwnPropertyDescriptor(o, 'stack').get ?? {}; const was = g.n ?? 0; try { g.n = was + 1; } catch {} return was; }",
    ),
    "enumerable bit": (
        "",
        "() => { const was = Object.getOwnPropertyDescriptor(Math, 'abs').enumerable; Object.defineProperty(Math, 'abs', { enumerable: true }); return was; }",
    ),
    "writable bit": (
        "",
        "() => { const was = Object.getOwnPropertyDescriptor(Math, 'abs').writable; Object.defineProperty(Math, 'abs', { writable: false }); return was; }",
    ),
    "configurable bit": (
        "",
        "() => { const was = Object.getOwnPropertyDescriptor(Math, 'abs').configurable; Object.defineProperty(Math, 'abs', { configurable: false }); return was; }",
    ),
    "delete and add again": (
        "",
        "() => { const was = Reflect.ownKeys(Math).indexOf('abs'); const abs = Object.getOwnPropertyDescriptor(Math, 'abs'); delete Math.abs; Object.defineProperty(Math, 'abs', abs); return was; }",
    ),
    "key order of globalThis": (
        "",
        "() => { const was = Reflect.ownKeys(globalThis).indexOf('Map'); const d = Object.getOwnPropertyDescriptor(globalThis, 'Map'); delete globalThis.Map; Object.defineProperty(globalThis, 'Map', d); return was; }",
    ),
    "freezing a builtin": ("", "() => { const was = Object.isFrozen(Math); Object.freeze(Math); return was; }"),
    "sealing a prototype": (
        "",
        "() => { const was = Object.isSealed(Map.prototype); Object.seal(Map.prototype); return was; }",
    ),
    "extensibility of globalThis": (
        "",
        "() => { const was = Object.isExtensible(globalThis); try { Object.preventExtensions(globalThis); } catch {} return was; }",
    ),
    "unscopables": ("", "() => { const u = Array.prototype[Symbol.unscopables]; return (u.n = (u.n ?? 0) + 1); }"),
    "index of Array.prototype": ("", "() => { const was = [][7] ?? 0; Array.prototype[7] = was + 1; return was; }"),
    "length of Array.prototype": ("", "() => ++Array.prototype.length"),
    "expando on a builtin function": (
        "",
        "() => { const f = Array.prototype.push; const was = f.n ?? 0; try { f.n = was + 1; } catch {} return was; }",
    ),
    "expando on a builtin getter": (
        "",
        "() => { const f = Object.getOwnPropertyDescriptor(Map.prototype, 'size').get; const was = f.n ?? 0; try { f.n = was + 1; } catch {} return was; }",
    ),
    "expando on a constructor": ("", "() => (Map.n = (Map.n ?? 0) + 1)"),
    "expando on %ThrowTypeError%": (
        "",
        "() => { const f = Object.getOwnPropertyDescriptor(Function.prototype, 'caller').get; const was = f.n ?? 0; try { f.n = was + 1; } catch {} return was; }",
    ),
    "non-configurable global": (
        "",
        "() => { const had = 'mine' in globalThis; if (!had) Object.defineProperty(globalThis, 'mine', { value: 1 }); return had; }",
    ),
    "swap undone in a microtask": (
        "",
        "() => { const was = Math.n ?? 0; Promise.resolve().then(() => { Math.n = was + 1; }); return was; }",
    ),
    "long chain of microtasks": (
        "",
        "() => { const was = Math.n ?? 0; let p = Promise.resolve(); for (let i = 0; i < 5000; i++) p = p.then(() => {}); p.then(() => { Math.n = was + 1; }); return was; }",
    ),
    "late microtask of the module": (
        "const was = Math.n ?? 0; Promise.resolve().then(() => {}).then(() => { Math.n = was + 1; });",
        "() => [was, (Math.m = (Math.m ?? 0) + 1)]",
    ),
    "write while the module is evaluated": (
        "const was = globalThis.n ?? 0; globalThis.n = was + 1;",
        "() => [was, ++globalThis.n]",
    ),
    "replaced next": (
        "",
        "() => { const p = Object.getPrototypeOf([].values()); const own = p.next; const was = own.n ?? 0; p.next = Object.assign(function () { return own.call(this); }, { n: was + 1 }); return was; }",
    ),
    "array iterator that sees nothing": (
        "",
        "() => { const was = Math.n ?? 0; const p = Object.getPrototypeOf([].values()); p.next = () => ({ done: true, value: undefined }); Math.n = was + 1; return was; }",
    ),
    "replaced then": (
        "",
        "() => { const own = Promise.prototype.then; const was = own.n ?? 0; Promise.prototype.then = Object.assign(function (...a) { return own.apply(this, a); }, { n: was + 1 }); return was; }",
    ),
    "replaced call": (
        "",
        "() => { const own = Function.prototype.call; const was = own.n ?? 0; Function.prototype.call = Object.assign(() => {}, { n: was + 1 }); return was; }",
    ),
    "replaced ownKeys": (
        "",
        "() => { const own = Reflect.ownKeys; const was = own.n ?? 0; Reflect.ownKeys = Object.assign(() => [], { n: was + 1 }); return was; }",
    ),
    "replaced getOwnPropertyDescriptor": (
        "",
        "() => { const own = Reflect.getOwnPropertyDescriptor; const was = own.n ?? 0; Reflect.getOwnPropertyDescriptor = Object.getOwnPropertyDescriptor = Object.assign(() => undefined, { n: was + 1 }); return was; }",
    ),
    "replaced is": (
        "",
        "() => { const own = Object.is; const was = own.n ?? 0; Object.is = Object.assign(() => true, { n: was + 1 }); return was; }",
    ),
    "replaced exec": (
        "",
        "() => { const own = RegExp.prototype.exec; const was = own.n ?? 0; RegExp.prototype.exec = Object.assign(() => null, { n: was + 1 }); return was; }",
    ),
    "poisoned Object.prototype.value": (
        "",
        "() => { const own = Math.abs; const was = Math.abs(-1); Object.defineProperty(Math, 'abs', { get: () => () => was + 1, configurable: true }); Object.prototype.value = own; return was; }",
    ),
    "poisoned Object.prototype.get": (
        "",
        "() => { const own = Object.getOwnPropertyDescriptor(Map.prototype, 'size').get; const was = new Map().size; Object.defineProperty(Map.prototype, 'size', { value: 7, configurable: true }); Object.prototype.get = own; return was; }",
    ),
    "negative zero": (
        "",
        "() => { const was = Object.is(Error.stackTraceLimit, -0) || Object.is(Array.prototype.n, 0); Array.prototype.n = 0; Error.stackTraceLimit = -0; return was; }",
    ),
    "symbol registry on a builtin": (
        "",
        "() => { const s = Symbol.for('x'); const was = Symbol.prototype[s] ?? 0; Symbol.prototype[s] = was + 1; return was; }",
    ),
    "process.env": (
        "",
        "() => { const was = process.env.MINE ?? null; try { process.env.MINE = 'x'; } catch {} return was; }",
    ),
    "process": ("", "() => (process.n = (process.n ?? 0) + 1)"),
    "prototype of process.env": (
        "",
        "() => { const was = Object.getPrototypeOf(process.env)?.n ?? 0; try { Object.setPrototypeOf(process.env, { n: was + 1 }); } catch {} return was; }",
    ),
    "extensibility of process.env": (
        "",
        "() => { const was = Object.isExtensible(process.env); try { Object.preventExtensions(process.env); } catch {} return was; }",
    ),
    "Convex": ("", "() => (Convex.n = (Convex.n ?? 0) + 1)"),
    "Convex.syscall": (
        "",
        "() => { const f = Convex.syscall; const was = f.n ?? 0; try { f.n = was + 1; } catch {} return was; }",
    ),
    "replaced Convex.syscall": (
        "",
        "() => { const was = Convex.syscall.n ?? 0; Convex.syscall = Object.assign(() => '{}', { n: was + 1 }); return was; }",
    ),
    "console": ("", "() => (console.n = (console.n ?? 0) + 1)"),
    "console.log": (
        "",
        "() => { const was = console.log.n ?? 0; try { console.log.n = was + 1; } catch {} return was; }",
    ),
    "replaced console": ("", "() => { const was = console.n ?? 0; globalThis.console = { n: was + 1 }; return was; }"),
    "static of a host class": ("", "() => (WeakRef.n = (WeakRef.n ?? 0) + 1)"),
    "prototype of a host class": (
        "",
        "() => (FinalizationRegistry.prototype.n = (FinalizationRegistry.prototype.n ?? 0) + 1)",
    ),
    "prototype of a host function": (
        "",
        "() => { const p = setTimeout.prototype ?? {}; return (p.n = (p.n ?? 0) + 1); }",
    ),
    "prototype of Date": ("", "() => (Date.prototype.n = (Date.prototype.n ?? 0) + 1)"),
    "Date.now": ("", "() => { const was = Date.now.n ?? 0; try { Date.now.n = was + 1; } catch {} return was; }"),
    "own accessor of a lazy global": (
        "",
        "() => { const f = Object.getOwnPropertyDescriptor(globalThis, 'Headers').get; const was = f.n ?? 0; try { f.n = was + 1; } catch {} return was; }",
    ),
    "late WebAssembly": (
        "",
        "() => { const was = Math.n ?? 0; WebAssembly.compile(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0])).then(() => { Math.n = was + 1; }); return was; }",
    ),
    "Atomics.waitAsync": (
        "const b = new Int32Array(new SharedArrayBuffer(4));",
        "() => { const was = Math.n ?? 0; if (Atomics.waitAsync) Atomics.waitAsync(b, 0, 0, 1).value.then(() => { Math.n = was + 1; }); return was; }",
    ),
    "Array.fromAsync": (
        "",
        "() => { const was = Math.n ?? 0; Array.fromAsync([1, 2, 3]).then(() => { Math.n = was + 1; }); return was; }",
    ),
    "WebAssembly": ("", "() => (WebAssembly.n = (WebAssembly.n ?? 0) + 1)"),
    "WebAssembly.Memory.prototype": (
        "",
        "() => { const p = WebAssembly.Memory.prototype; return (p.n = (p.n ?? 0) + 1); }",
    ),
    "Intl": ("", "() => (Intl.n = (Intl.n ?? 0) + 1)"),
    "Intl.Segmenter.prototype": ("", "() => { const p = Intl.Segmenter.prototype; return (p.n = (p.n ?? 0) + 1); }"),
    "Symbol.prototype.description": (
        "",
        "() => { const d = Object.getOwnPropertyDescriptor(Symbol.prototype, 'description'); const was = d.get.mine ?? 0; Object.defineProperty(Symbol.prototype, 'description', { get: Object.assign(() => 'x', { mine: was + 1 }), configurable: true }); return was; }",
    ),
    "function of Array.prototype swapped for its equal": (
        "",
        "() => { const was = Array.prototype.flat === Array.prototype.flatMap; Array.prototype.flat = Array.prototype.flatMap; return was; }",
    ),
    "toJSON of Object.prototype": (
        "",
        "() => { const was = Object.hasOwn(Object.prototype, 'toJSON'); Object.defineProperty(Object.prototype, 'toJSON', { value: undefined, configurable: true }); return was; }",
    ),
    "stack left in a builtin": (
        "",
        "() => { const d = Object.getOwnPropertyDescriptor(new Error(), 'stack'); const was = String(d.get.call(Math)); Error.captureStackTrace(Math); d.set.call(Math, 'mine'); delete Math.stack; return was; }",
    ),
    "stack left in globalThis": (
        "",
        "() => { const d = Object.getOwnPropertyDescriptor(new Error(), 'stack'); const was = String(d.get.call(globalThis)); Error.captureStackTrace(globalThis); d.set.call(globalThis, 'mine'); delete globalThis.stack; return was; }",
    ),
    "stack left in a prototype, not set": (
        "",
        "() => { const d = Object.getOwnPropertyDescriptor(new Error(), 'stack'); const was = typeof d.get.call(Map.prototype); Error.captureStackTrace(Map.prototype); delete Map.prototype.stack; return was; }",
    ),
    "stack left in a builtin function": (
        "",
        "() => { const d = Object.getOwnPropertyDescriptor(new Error(), 'stack'); const was = String(d.get.call(Math.max)); try { Error.captureStackTrace(Math.max); d.set.call(Math.max, 'mine'); delete Math.max.stack; } catch {} return was; }",
    ),
    "stack left in a host object": (
        "",
        "() => { const d = Object.getOwnPropertyDescriptor(new Error(), 'stack'); const was = String(d.get.call(Convex)); Error.captureStackTrace(Convex); d.set.call(Convex, 'mine'); delete Convex.stack; return was; }",
    ),
    "DisposableStack": ("", "() => (DisposableStack.prototype.n = (DisposableStack.prototype.n ?? 0) + 1)"),
    "WebAssembly.JSTag": ("", "() => (WebAssembly.JSTag.n = (WebAssembly.JSTag.n ?? 0) + 1)"),
    "brand on a builtin": (
        "class B { constructor(o) { return o; } } class C extends B { #n = 0; static has(o) { return #n in o; } }",
        "() => { const had = C.has(Math); if (!had) new C(Math); return had; }",
    ),
}
"""State of the realm: seen by the comparison, impossible (frozen functions), or set back."""

HOST: Final[dict[str, Case]] = {
    "static of a lazy class": ("", "() => (TextEncoder.n = (TextEncoder.n ?? 0) + 1)"),
    "prototype of a lazy class": ("", "() => (URL.prototype.n = (URL.prototype.n ?? 0) + 1)"),
    "method of a lazy class": ("", "() => { const f = Headers.prototype.get; return (f.n = (f.n ?? 0) + 1); }"),
    "iterator prototype of a lazy class": (
        "",
        "() => { const p = Object.getPrototypeOf(new URLSearchParams('a=b').entries()); return (p.n = (p.n ?? 0) + 1); }",
    ),
    "implementation behind a lazy class": (
        "",
        "() => { const u = new URL('http://a/'); const s = Object.getOwnPropertySymbols(u)[0]; const p = s === undefined ? URL.prototype : Object.getPrototypeOf(u[s]); return (p.n = (p.n ?? 0) + 1); }",
    ),
    "deleted lazy global": (
        "",
        "() => { const had = 'TextDecoder' in globalThis; delete globalThis.TextDecoder; return had; }",
    ),
    "replaced lazy global": (
        "",
        "() => { const was = globalThis.Blob.n ?? 0; globalThis.Blob = { n: was + 1 }; return was; }",
    ),
    "lazy global set to itself": (
        "",
        "() => { const was = Object.getOwnPropertyDescriptor(globalThis, 'URL').get === undefined; const own = URL; Object.defineProperty(globalThis, 'URL', { value: own, enumerable: true }); return was; }",
    ),
    "lazy global touched": (
        "",
        "() => { const was = Object.getOwnPropertyDescriptor(globalThis, 'URL').get === undefined; URL; return was; }",
    ),
    "performance timeline": (
        "const made = performance.mark('at import');",
        "() => { performance.mark('a'); made.n = (made.n ?? 0) + 1; return [performance.getEntries().length, made.n]; }",
    ),
    "listener on a shared target": (
        "",
        "() => { try { performance.n = (performance.n ?? 0) + 1; return performance.n; } catch (e) { return e.message; } }",
    ),
    "AsyncLocalStorage": (
        "",
        "() => { const a = new AsyncLocalStorage(); const was = a.getStore() ?? 0; a.enterWith(was + 1); return [was, (AsyncLocalStorage.prototype.n = (AsyncLocalStorage.prototype.n ?? 0) + 1)]; }",
    ),
    "AsyncLocalStorage of the module": (
        "const a = new AsyncLocalStorage();",
        "() => { const was = a.getStore() ?? 0; a.enterWith(was + 1); a.n = (a.n ?? 0) + 1; return [was, a.n]; }",
    ),
    "builtin patched while a group loads": (
        "",
        "() => { const own = Array.prototype.indexOf; const was = TextEncoder.prototype.n ?? 0; Array.prototype.indexOf = function (...a) { return own.apply(this, a); }; TextEncoder.prototype.n = was + 1; Array.prototype.indexOf = own; return was; }",
    ),
    "regex of the printer": (
        "",
        "() => { const own = RegExp.prototype[Symbol.replace]; let seen = 0; RegExp.prototype[Symbol.replace] = function (s, r) { seen = Math.max(seen, this.n ?? 0); try { this.n = (this.n ?? 0) + 1; } catch {} return own.call(this, s, r); }; console.log({ 'a-b': \"it's\" }); RegExp.prototype[Symbol.replace] = own; return seen; }",
    ),
    "printer loaded while a builtin is patched": (
        "",
        "() => { const own = String.prototype.replace; let n = 0; console.log('x'); String.prototype.replace = function (...a) { n++; return own.apply(this, a); }; console.log(['y']); String.prototype.replace = own; return n; }",
    ),
    "stream ids": ("", "() => JSON.parse(Convex.syscall('1.0/queryStream', '{\"query\":{}}')).queryId"),
    "open stream": (
        "",
        "() => { const had = Convex.syscall('1.0/queryCleanup', '{\"queryId\":0}'); return [had, Convex.syscall('1.0/queryStream', '{\"query\":{}}')]; }",
    ),
    "stopwatches": ("", "() => { console.time('a'); console.timeLog('a'); }"),
    "lines": ("", "() => { console.log('a'); }"),
    "random at import": ("let n = 0; const r = Math.random();", "() => [r, ++n]"),
    "random in the run": ("", "() => Math.random()"),
    "random in both": (
        "let n = 0; const r = [Math.random(), Math.random()];",
        "() => [...r, Math.random(), Math.random(), ++n]",
    ),
    "random while evaluating, then not": ("const r = Date.now();", "() => r"),
    "frames remembered of a realm object": (
        "",
        "() => { try { Error.prepareStackTrace(Math, []); } catch {} return Object.getOwnPropertyNames(Math).includes('stack'); }",
    ),
    "environment at import": ("const e = process.env.A ?? null;", "() => [e, process.env.B ?? null]"),
    "structuredClone": (
        "",
        "() => { structuredClone({}); return (structuredClone.n = (structuredClone.n ?? 0) + 1); }",
    ),
    "DOMException": ("", "() => (DOMException.prototype.n = (DOMException.prototype.n ?? 0) + 1)"),
    "crypto": ("", "() => (crypto.n = (crypto.n ?? 0) + 1)"),
    "crypto.subtle": ("", "() => { const s = crypto.subtle; return (s.n = (s.n ?? 0) + 1); }"),
    "timers": ("", "() => { try { const t = clearTimeout(1); return typeof t; } catch (e) { return e.message; } }"),
    "JavaScript syscalls": (
        "",
        "async () => { try { await Convex.jsSyscall('storage/getBlob', {}); } catch (e) { e.constructor.prototype; return e.message; } }",
    ),
    "handles of keys": (
        "",
        "async () => { const own = JSON.stringify; const seen = []; const k = await crypto.subtle.importKey('raw', new Uint8Array(32), { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']); JSON.stringify = (...a) => { const t = own(...a); seen.push(t); return t; }; try { await crypto.subtle.sign('HMAC', k, new Uint8Array(1)); } finally { JSON.stringify = own; } return seen; }",
    ),
}
"""State behind what the host puts there: made new for each run."""

CONTROLS: Final[dict[str, Case]] = {
    "text of a function": ("function g(a, b) { return a + b; }", "() => [String(g), g.length, g.name]"),
    "text of a builtin": (
        "",
        "() => [String(Array.prototype.push), Array.prototype.push.length, Array.prototype.push.name]",
    ),
    "default export name": ("export default () => {}; class K { static m() {} }", "() => [K.name, K.m.name]"),
    "error frames": ("function g() { throw new Error('x'); }", "() => { try { g(); } catch (e) { return e.stack; } }"),
    "thrown error": ("", "() => { throw new TypeError('mine'); }"),
    "keys of globalThis": ("", "() => Reflect.ownKeys(globalThis).map(String)"),
    "typeof globals": (
        "",
        "() => [typeof URL, typeof process, typeof Convex, typeof Buffer, typeof require, this === undefined]",
    ),
    "override of an inherited name": (
        "class A { constructor() { this.name = 'n'; this.toString = () => 's'; } }",
        "() => { const f = () => {}; f.toString = () => 'mine'; f.call = 1; return [new A().name, String(new A()), String(f), f.call]; }",
    ),
    "subclasses of builtins": (
        "class E extends Error { name = 'E'; } class A extends Array { static of(...a) { return super.of(...a); } }",
        "() => [String(new E('x')), A.of(1, 2).length]",
    ),
    "zero": ("", "() => [0, -0, NaN].map(String)"),
}
"""Modules that leave nothing: their contexts are kept, and answer as fresh ones do."""

LATER: Final[dict[str, Case]] = {
    "frozen fn brand": (
        "class B { constructor(o) { return o; } } class C extends B { #n = 0; static has(o) { return #n in o; } }",
        "() => { const had = C.has(Math.max); if (!had) new C(Math.max); return had; }",
    ),
    "weakref class static": (
        "",
        "() => { class X extends WeakRef {}; return Object.getPrototypeOf(X) === WeakRef && (X.n = (X.n ?? 0) + 1); }",
    ),
    "intl default": (
        "",
        "() => { const d = new Intl.DateTimeFormat(); const k = Reflect.ownKeys(d); return [k.length, d.resolvedOptions().timeZone]; }",
    ),
    "thenable job": (
        "",
        "() => { const was = Math.n ?? 0; return { then(r) { r('\"x\"'); Promise.resolve().then(() => 0).then(() => { Math.n = was + 1; }); } }; }",
    ),
    "async gen return": (
        "let n = 0;",
        "async () => { const g = (async function* () { try { yield 1; } finally { n++; Math.n = (Math.n ?? 0) + 1; } })(); await g.next(); g.return(); return Math.n ?? 0; }",
    ),
    "error in stack prep": (
        "",
        "() => { Error.prepareStackTrace = () => { Math.n = (Math.n ?? 0) + 1; return Math.n; }; const e = new Error(); return e.stack; }",
    ),
    "lazy via descriptor getter": (
        "",
        "() => { const d = Object.getOwnPropertyDescriptor(globalThis, 'Headers'); const H = d.get.call(undefined); return (H.n = (H.n ?? 0) + 1); }",
    ),
    "lazy setter": (
        "",
        "() => { const d = Object.getOwnPropertyDescriptor(globalThis, 'Headers'); const was = typeof globalThis.Headers; d.set.call(undefined, 5); return was; }",
    ),
    "patch before group load": (
        "",
        "() => { const own = Object.defineProperty; let n = 0; Object.defineProperty = (...a) => { n++; return own(...a); }; try { new Headers(); } finally { Object.defineProperty = own; } return n; }",
    ),
    "group load twice": (
        "",
        "() => { const own = Array.prototype.map; let n = 0; Array.prototype.map = function (...a) { n++; return own.apply(this, a); }; try { structuredClone([1]); new URL('http://a/b'); } finally { Array.prototype.map = own; } return n; }",
    ),
    "date to locale": ("", "() => new Date(0).toLocaleString('de', { timeZone: 'Europe/Berlin' })"),
    "symbol iterator of arguments": (
        "",
        "() => { const a = (function () { return arguments; })(1); return a[Symbol.iterator] === Array.prototype.values; }",
    ),
    "proto of global": ("", "() => { const p = Object.getPrototypeOf(globalThis); return (p.n = (p.n ?? 0) + 1); }"),
    "set proto global": (
        "",
        "() => { const was = globalThis.q ?? 0; try { Object.setPrototypeOf(globalThis, { q: was + 1 }); } catch (e) { return e.message; } return was; }",
    ),
    "toStringTag date": (
        "",
        "() => { const was = String(new WeakRef({})); try { Object.defineProperty(WeakRef.prototype, Symbol.toStringTag, { value: 'x' }); } catch (e) { return e.message } return was; }",
    ),
    "atob": ("", "() => { const was = atob.n ?? 0; atob.n = was + 1; return was; }"),
    "AbortSignal static": (
        "",
        "() => { const s = AbortSignal.abort(); const was = s.n ?? 0; s.n = 1; return [was, (AbortSignal.abort.n = (AbortSignal.abort.n ?? 0) + 1)]; }",
    ),
    "fetch fn": ("", "() => (fetch.n = (fetch.n ?? 0) + 1)"),
    "wasm instance": (
        "",
        "() => { const was = Math.n ?? 0; const b = new Uint8Array([0,97,115,109,1,0,0,0,1,4,1,96,0,0,2,7,1,1,97,1,98,0,0,8,1,0]); const m = new WebAssembly.Module(b); new WebAssembly.Instance(m, { a: { b: () => { Math.n = was + 1; } } }); return was; }",
    ),
    "setTimeout throws": ("", "() => { try { setTimeout(() => {}, 0); } catch (e) { return e.message; } return 1; }"),
    "queue then error": (
        "",
        "async () => { Promise.resolve().then(() => { Math.n = (Math.n ?? 0) + 1; }); throw new Error(String(Math.n ?? 0)); }",
    ),
    "getter on Object.prototype for deliver": (
        "",
        "() => { const was = Object.prototype.n ?? 0; Object.defineProperty(Object.prototype, 'n', { get() { return was + 1; }, configurable: true }); return was; }",
    ),
    "iterator concat/other intrinsics": (
        "",
        "() => { let p = [].values().flatMap((x) => [x]); p = Object.getPrototypeOf(p); const q = Object.getPrototypeOf(new Intl.Segmenter().segment('a').containing(0)); return [(p.n = (p.n ?? 0) + 1), q === Object.prototype]; }",
    ),
    "regexp d flag groups": (
        "",
        "() => { const m = /(?<a>x)/d.exec('x'); const p = Object.getPrototypeOf(m.indices); return p === Array.prototype && Object.getPrototypeOf(m.groups) === null; }",
    ),
    "suppressed error": ("", "() => (SuppressedError.prototype.n = (SuppressedError.prototype.n ?? 0) + 1)"),
    "escape fn": ("", "() => { const was = escape.n ?? 0; try { escape.n = was + 1 } catch {} return was; }"),
}
"""Written when the mechanism was finished; some hold nothing even without any care."""
