# ruff: noqa: E501 - JavaScript texts
"""Statements 1 to 6, 41 of ``runtime.md`` section 12: modules, registered functions, what a run may not do with code.

Others of that group: 5, 6, 8, 9 at push time in ``test_analysis.py``; the language's module forms in ``test_module_forms.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.runner.bundles import bundle
from tests.runner.harness import Child
from tests.runner.samples import HEAD, REGISTER

FILES = {
    "first.ts": """
import { queryGeneric as query, mutationGeneric as mutation, actionGeneric as action } from "convex/server";
import { shared, bump } from "./lib/shared";
export const get = query(async () => [shared.loads, bump()]);
export const set = mutation(async () => bump());
export const nothing = query(async () => undefined);
export const echo = query(async (_ctx, args) => args);
export const act = action(async (_ctx, args) => args);
export const object = query(async () => [typeof self, globalThis === self]);
export const late = action(async () => { const one = await import("./lib/lazy"); const two = await import("./lib/lazy"); return [one === two, one.value, Object.isExtensible(one), Object.prototype.toString.call(one)]; });
export default query(async () => "default");
""",
    "dir/second.ts": """
import { queryGeneric as query } from "convex/server";
import { shared, bump } from "../lib/shared";
export const get = query(async () => [shared.loads, bump()]);
""",
    "lib/shared.ts": "export const shared = { loads: 0 }; shared.loads++; let n = 0; export const bump = () => ++n;",
    "lib/lazy.ts": "export const value = 7;",
}

EVAL = "EvalError: Code generation from strings disallowed for this context"

BY_HAND = {
    "pending.js": HEAD + "await new Promise(() => 1); export const f = query(() => 1);",
    "awaits.js": HEAD + "const x = await Promise.resolve(5); export const f = query(() => x);",
    "meta.js": HEAD
    + "export const at = (() => { try { return import.meta.url; } catch (e) { return String(e); } })(); export const f = query(() => at);",
    "metaThrows.js": HEAD + "export const u = import.meta.url; export const f = query(() => u);",
    "evaluates.js": HEAD + "eval('1');",
    "imports.js": HEAD
    + "let text = ''; await import('./ok.js').catch((e) => { text = String(e); }); export const f = query(() => text);",
    "throws.js": "function inner() { throw new RangeError('at import'); }\ninner();",
    "throwsText.js": "throw 'text';",
    "throwsData.js": "const s = Symbol.for('ConvexError'); throw Object.assign(new Error('m'), { name: 'ConvexError', ConvexErrorSymbol: s, [s]: true, data: '{\"a\":1}' });",
    "syntax.js": "export const a = ;",
    "duplicate.js": "const a = 1; const a = 2;",
    "noExport.js": HEAD + "import { missing } from './ok.js'; export const f = query(() => missing);",
    "absent.js": HEAD + "import './gone.js'; export const f = query(() => 1);",
    "https.js": HEAD + "import 'https://example.com/x.js';",
    "bare.js": HEAD + "import 'lodash';",
    "ok.js": HEAD
    + """export const plain = async () => 1; export const text = 'x'; export const none = null;
export const f = query(() => 1);
export const evals = query(() => [() => eval('1'), () => (0, eval)('1'), () => new Function('return 1'), () => Function('1'), () => (() => {}).constructor('1'), () => (async () => {}).constructor('1')].map((g) => { try { return g(); } catch (e) { return String(e); } }));
export const waits = query(() => { try { Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1); } catch (e) { return e.message; } });
export const dynamic = query(async () => { const p = import('./lazy.js'); return [p instanceof Promise, await p.catch((e) => [e instanceof TypeError, e.message])]; });
export const dynamicActs = action(async () => { const texts = []; for (const s of ['./gone.js', './throws.js', 'https://x/y.js', { toString() { throw new Error('no text'); } }]) await import(s).then(() => texts.push('imported'), (e) => texts.push(`${e.constructor === Error || e.constructor === TypeError} ${e.message}`)); return texts; });
export const receiver = { isQuery: true, isPublic: true, async invokeQuery() { return String(this === globalThis); } };
export const ambiguous = Object.assign(() => 1, { isQuery: true, isMutation: true });
export const wrong = mutation(() => 1);
export const act = action(() => 1);
""",
}


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with Child() as one:
        for path, (source, source_map) in bundle(FILES).items():
            one.add_module(path, source, source_map)
        one.add_module("register.js", REGISTER)
        for path, source in BY_HAND.items():
            one.add_module(path, source)
        yield one


def test_modules_by_path_each_once(child: Child) -> None:
    """Statements 1 and 41: chunks are shared by relative specifiers, evaluated once per context, and anew in every run."""
    assert any(path.startswith("_deps/") for path in child.closure)
    for module in ("first.js", "dir/second.js", "first.js"):
        assert child.run("query", module, "get").value == [1, 1]
    assert child.run("mutation", "first.js", "set").value == 1
    assert child.run("query", "first.js", "default").value == "default"


def test_the_same_namespace_for_each_dynamic_import(child: Child) -> None:
    """Statement 2, allowed side: an action's import() gives one namespace object per module."""
    assert child.run("action", "first.js", "late").value == [True, 7, False, "[object Module]"]


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("pending.js", "Top-level awaits in source files are unsupported"),
        ("metaThrows.js", "Uncaught TypeError: import.meta unsupported\n"),
        ("evaluates.js", f"Uncaught {EVAL}\n"),
        ("throws.js", "Uncaught RangeError: at import\n"),
        ("throwsText.js", "Uncaught text\n"),
        ("throwsData.js", "Uncaught ConvexError: m\n"),
        ("syntax.js", "Uncaught SyntaxError: Unexpected token"),
        ("duplicate.js", "Uncaught SyntaxError: Identifier 'a' has already been declared\n"),
        (
            "noExport.js",
            "Uncaught SyntaxError: The requested module './ok.js' does not provide an export named 'missing'\n",
        ),
        ("absent.js", "Couldn't find JavaScript module 'gone.js'. Did you forget to run `npx convex dev`?"),
        ("https.js", "convex:/https.js:1:7: Unsupported scheme (https) in https://example.com/x.js"),
        ("bare.js", 'convex:/bare.js:1:7: Relative import path "lodash" not prefixed with /'),
    ],
)
def test_modules_that_cannot_be_evaluated(child: Child, module: str, text: str) -> None:
    """Statements 1 and 2: each way in which loading fails has its text (1.2, 1.3)."""
    error = child.run("query", module, "f").error
    assert error.startswith(text)
    if module == "throwsData.js":
        assert child.run("query", module, "f").body == '{"a":1}'


def test_what_the_import_phase_may_do(child: Child) -> None:
    """Statement 2: settled top-level awaits work; import.meta and import() fail in a way that code can catch."""
    assert child.run("query", "awaits.js", "f").value == 5
    assert child.run("query", "meta.js", "f").value == "TypeError: import.meta unsupported"
    assert child.run("query", "imports.js", "f").value == "TypeError: dynamic module import unsupported"


def test_code_from_text_is_refused(child: Child) -> None:
    """Statement 2: every door to the compiler, and Atomics.wait."""
    assert child.run("query", "ok.js", "evals").value == [EVAL] * 6
    assert child.run("query", "ok.js", "waits").value == "Atomics.wait cannot be called in this context"


def test_dynamic_import_rejects(child: Child) -> None:
    """Statement 2: in a query with the TypeError; in an action with a text for each cause, never by a throw."""
    assert child.run("query", "ok.js", "dynamic").value == [True, [True, "dynamic module import unsupported"]]
    texts = child.run("action", "ok.js", "dynamicActs").value
    assert texts[0].startswith("true Couldn't find JavaScript module 'gone.js'.")
    assert texts[1].startswith("true Uncaught RangeError: at import")
    assert "Unsupported scheme (https) in https://x/y.js" in texts[2]
    assert texts[3].startswith("true ")


@pytest.mark.parametrize("args", [[{}], [{"a": 1, "b": [None, "é"]}], [{"n": {"$integer": "AQAAAAAAAAA="}}]])
def test_arguments_and_results_are_texts(child: Child, args: Any) -> None:
    """Statements 3 and 4: one object in an array goes in, JSON text comes out; both kinds of invoke method."""
    assert child.run("query", "first.js", "echo", args).value == args[0]
    assert child.run("action", "first.js", "act", args).value == args[0]


def test_undefined_becomes_null_and_this_is_the_global(child: Child) -> None:
    """Statements 3 and 4."""
    assert child.run("query", "first.js", "nothing").body == "null"
    assert child.run("query", "first.js", "object").value == ["object", True]
    assert child.run("query", "ok.js", "receiver").value is True


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("query", "gone", """Couldn't find "gone" in module "ok.js"."""),
        (
            "query",
            "plain",
            "Function ok.js:plain is neither a query or mutation. Did you forget to wrap it with `query` or `mutation`?",
        ),
        (
            "query",
            "text",
            "Function ok.js:text is neither a query or mutation. Did you forget to wrap it with `query` or `mutation`?",
        ),
        (
            "mutation",
            "none",
            "Function ok.js:none is neither a query or mutation. Did you forget to wrap it with `query` or `mutation`?",
        ),
        (
            "query",
            "act",
            "Function ok.js:act is neither a query or mutation. Did you forget to wrap it with `query` or `mutation`?",
        ),
        ("query", "wrong", "Function ok.js:wrong is registered as a mutation but is being run as a query."),
        ("mutation", "f", "Function ok.js:f is registered as a query but is being run as a mutation."),
    ],
)
def test_what_cannot_be_called(child: Child, kind: str, name: str, text: str) -> None:
    """Statement 5 at run time: the value of the flags decides, with the texts of 1.4."""
    assert child.run(kind, "ok.js", name).error == text
