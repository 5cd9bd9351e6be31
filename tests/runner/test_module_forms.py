# ruff: noqa: E501 - module texts
"""The transform of modules to classic scripts, compared with V8's own modules, and its columns."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.runner.harness import NODE, RUNNER, Child

GRAPHS: dict[str, dict[str, str]] = {
    "declarations": {
        "m.js": "export const a = 1; export let b = 2, c = [3]; export var d = 'x'; export function f(x, y) { return x }\n"
        "export class K {} export async function g() {} export function* h() {}"
    },
    "list and renames": {"m.js": 'const a = 1; let b = 2; export { a as x, b as default, a as "odd name" };'},
    "destructured": {
        "m.js": "export const { a, b: [c, ...d], ...e } = { a: 1, b: [2, 3, 4], z: 5 }; export let [p = 7] = [];"
    },
    "default expression": {"m.js": "export default 40 + 2;"},
    "default arrow": {"m.js": "export default (a) => a;"},
    "default anonymous function": {
        "m.js": "export const early = typeof f0;\nvar f0; export default function (a, b) {}"
    },
    "default async generator": {"m.js": "export default async function* (a) {}"},
    "default anonymous class": {"m.js": "export default class { static x = 1 }"},
    "default named": {"m.js": "export default function named() {} export const again = named.name;"},
    "default object": {"m.js": "export default { a: 1 }\nexport const b = 2"},
    "imports": {
        "m.js": 'import d, { a, b as c } from "./n.js"; import * as n from "./n.js"; export const all = [d, a, c, Object.keys(n)]; export { n };',
        "n.js": "export default 1; export const a = 2; export const b = 3;",
    },
    "reexports": {
        "m.js": 'export { a, default as first } from "./n.js"; export * as ns from "./n.js"; export * from "./o.js"; export { default } from "./o.js";',
        "n.js": "export default 1; export const a = 2;",
        "o.js": "export const b = 3; export default 4; const inner = 5; export { inner as c };",
    },
    "import then export": {
        "m.js": 'import { a } from "./n.js"; import * as ns from "./n.js"; export { a, ns };',
        "n.js": "export const a = 2;",
    },
    "conflicting stars": {
        "m.js": 'export * from "./n.js"; export * from "./o.js"; export const z = 1;',
        "n.js": "export const same = 1, n = 1;",
        "o.js": "export const same = 2, o = 1;",
    },
    "conflicting import": {
        "m.js": 'import { same } from "./s.js";',
        "s.js": 'export * from "./n.js"; export * from "./o.js";',
        "n.js": "export const same = 1;",
        "o.js": "export const same = 2;",
    },
    "same binding through two stars": {
        "m.js": 'import { a } from "./s.js"; export const seen = a;',
        "s.js": 'export * from "./n.js"; export * from "./o.js";',
        "n.js": 'export { a } from "./p.js";',
        "o.js": 'export { a } from "./p.js";',
        "p.js": "export const a = 9;",
    },
    "missing export": {"m.js": 'import { nope } from "./n.js";', "n.js": "export const a = 1;"},
    "live binding": {
        "m.js": 'import { count, inc } from "./n.js"; const before = count; inc(); inc(); export const seen = [before, count];',
        "n.js": "export let count = 0; export function inc() { count++; }",
    },
    "live binding through namespace": {
        "m.js": 'import * as n from "./n.js"; n.set(5); export const seen = n.value;',
        "n.js": "export let value = 1; export const set = (v) => { value = v };",
    },
    "live binding by destructuring": {
        "m.js": 'import { a, go } from "./n.js"; go(); export const seen = a;',
        "n.js": "export let a = 1; export const go = () => { ({ x: a } = { x: 8 }); };",
    },
    "live binding in a loop head": {
        "m.js": 'import { a, go } from "./n.js"; go(); export const seen = a;',
        "n.js": "export let a = 1; export const go = () => { for (a of [4, 6]); };",
    },
    "assigned after evaluation by a reexport": {
        "m.js": 'import { v, set } from "./b.js"; set(3); export const seen = v;',
        "b.js": 'export { v, set } from "./c.js";',
        "c.js": "export let v = 0; export function set(x) { v = x }",
    },
    "cycle with hoisted functions": {
        "m.js": 'import { b } from "./n.js"; export function a() { return 1 } export const sum = a() + b();',
        "n.js": 'import { a } from "./m.js"; export function b() { return a() + 1 } export const early = a();',
    },
    "cycle read too early": {
        "m.js": 'import "./n.js"; export const a = 1;',
        "n.js": 'import { a } from "./m.js"; export const b = a;',
    },
    "cycle of three": {
        "m.js": 'import { b } from "./n.js"; import { c } from "./o.js"; export const a = () => "a"; export const all = [b(), c()];',
        "n.js": 'import { c } from "./o.js"; import { a } from "./m.js"; export const b = () => "b" + typeof a; export { c };',
        "o.js": 'import { b } from "./n.js"; export const c = () => "c" + typeof b;',
    },
    "module that imports itself": {
        "m.js": 'import * as self from "./m.js"; export const a = 1; export const keys = Object.getOwnPropertyNames(self);'
    },
    "evaluated once": {
        "m.js": 'import "./n.js"; import "./o.js"; export const order = globalThis.order;',
        "n.js": 'import "./p.js"; (globalThis.order ??= []).push("n");',
        "o.js": 'import "./p.js"; (globalThis.order ??= []).push("o");',
        "p.js": '(globalThis.order ??= []).push("p");',
    },
    "this and arguments": {
        "m.js": "export const t = typeof this; export const strict = (function () { return this === undefined })();"
    },
    "strict mode": {"m.js": "export let threw = ''; try { undeclared = 1 } catch (e) { threw = e.name }"},
    "shadowed import": {
        "m.js": 'import { a } from "./n.js"; const f = (a) => a; { let a = 3; globalThis.x = a } export const seen = [a, f(2), globalThis.x];',
        "n.js": "export const a = 1;",
    },
    "assignment to an import": {
        "m.js": 'import { a } from "./n.js"; export let threw; try { a = 2 } catch (e) { threw = e.name } export const seen = a;',
        "n.js": "export const a = 1;",
    },
    "html comment": {"m.js": "let x = 2, y = 1; export const less = y<!--x;"},
    "html comment at the start of a line": {"m.js": "let x = 1;\n  --> comment"},
    "goes to": {"m.js": "export let n = 0; let x = 3; while (x --> 0) n++;"},
    "html comment inside strings": {"m.js": "export const s = '<!-- -->', t = `<!--`, r = /<!--/.source;"},
    "no semicolons": {
        "m.js": "const f = (x) => x\nimport { a } from './n.js'\n(f)\nexport { f }\n[1].map(f)\nexport const b = a",
        "n.js": "export const a = 1",
    },
    "hash bang": {"m.js": "#!/usr/bin/env node\nexport const a = 1;"},
    "top-level await": {
        "m.js": "export const a = await Promise.resolve(1); for await (const x of [2]) globalThis.x = x; export const b = x;"
    },
    "top-level await below": {
        "m.js": 'import { a } from "./n.js"; export const b = a + 1;',
        "n.js": "export const a = await new Promise((r) => Promise.resolve().then(() => r(1)));",
    },
    "top-level await forever": {"m.js": "await new Promise(() => {}); export const a = 1;"},
    "top-level await throws": {"m.js": "await Promise.reject(new TypeError('no'));"},
    "await inside functions only": {"m.js": "export const f = async () => { await 1; for await (const x of []) ; };"},
    "throws": {"m.js": "throw new RangeError('stop');"},
    "throws below": {"m.js": 'import "./n.js"; export const a = 1;', "n.js": "throw 'text';"},
    "syntax error": {"m.js": "export const a = ;"},
    "names that look generated": {"m.js": "export const $x = 1, $i0___ = 2, $m0___ = 3, $s = 4, $dd = 5;"},
    "proto name": {"m.js": "const p = 1; export { p as __proto__ }; export const q = 2;"},
    "namespace is read only": {
        "m.js": 'import * as n from "./n.js"; export let threw = []; for (const f of [() => { n.a = 2 }, () => { n.b = 1 }, () => { delete n.a }])'
        " { try { f(); threw.push('') } catch (e) { threw.push(e.name) } } export const tag = Object.prototype.toString.call(n), a = n.a;",
        "n.js": "export const a = 1;",
    },
    "namespace order": {
        "m.js": 'export * as n from "./n.js";',
        "n.js": "export const b = 1, a = 2, Z = 3; export default 4;",
    },
    "class fields and static blocks": {
        "m.js": "export class A { #p = 1; static s = this.name; static { this.t = 2 } get p() { return this.#p } } export const seen = [A.s, A.t, new A().p];"
    },
    "modern syntax": {
        "m.js": "let o = { a: { b: null } }; o.a.b ??= 3; export const x = o?.a?.b; export const big = 10n ** 3n > 5n; export const re = /(?<y>a)/v.source;"
    },
}

# What a module scope cannot be told from outside: V8 calls both an error, with different names or texts.
DIFFERENT_TEXT = {"syntax error", "cycle read too early"}


@pytest.fixture(scope="module")
def compared() -> dict[str, dict[str, str]]:
    graphs = [{"files": files, "root": "m.js"} for files in GRAPHS.values()]
    done = subprocess.run(
        [
            NODE,
            "--no-warnings",
            "--experimental-vm-modules",
            str(__file__).replace("test_module_forms.py", "compare_modules.mjs"),
            str(RUNNER),
        ],
        input=json.dumps(graphs),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(GRAPHS, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("name", GRAPHS)
def test_gives_what_a_module_gives(name: str, compared: dict[str, dict[str, str]]) -> None:
    """A module graph run as classic scripts exports and throws what V8's module loader exports and throws."""
    result = compared[name]
    if name in DIFFERENT_TEXT:
        assert result["native"].split(":")[0] == result["runner"].split(":")[0]
    else:
        assert result["runner"] == result["native"]


def test_keeps_lines_and_columns() -> None:
    """A frame's position in the script is the position in the module text, in the first line as well."""
    source = 'import "./n.js"; export const where = () => new Error("x").stack; export default function () { return where() }\nexport const second = () => where();'
    wrap = (
        "Error.prepareStackTrace = (_, sites) => sites.map((s) => [s.getLineNumber(), s.getColumnNumber()]);"
        "const q = (h) => Object.assign(() => {}, { isQuery: true, invokeQuery: async () => JSON.stringify(h()) });"
    )
    with Child() as child:
        child.add_module("n.js", "export {};")
        child.add_module("w.js", source)
        child.add_module(
            "m.js", f'{wrap} import d, {{ second }} from "./w.js"; export const f = q(() => [d(), second()]);'
        )
        first, second = child.run("query", "m.js", "f").value
    column = source.index("new Error") + 1
    assert first[0] == [1, column]
    assert first[1] == [1, source.index("where() }") + 1 + len("$dd")]
    assert second[1] == [2, len("export const second = () => ") + 1]
