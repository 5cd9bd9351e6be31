"""Modules that no bundler has touched: npm's library by its own name, erased types, and where a fault is written (``docs/deploy_api.md``)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.runner.harness import ANALYZE, ANALYZED, DIST, Child

GENERATED = 'export { queryGeneric as query } from "convex/server";\n'


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    """A child that has the library and a ``_generated/server``."""
    manifest = json.loads((DIST / "library.json").read_text())
    with Child() as one:
        for path, file in manifest["modules"].items():
            one.add_module(path, (DIST / file).read_text())
        one.add_module("_generated/server.js", GENERATED)
        yield one


def analyze(child: Child, what: str, path: str, *, only: bool = False, **sources: str) -> tuple[bool, Any]:
    """Add modules (``a__b`` is ``a/b.js``) and analyse *path*. :returns: whether it went well, and the result or the error."""
    for name, source in sources.items():
        child.add_module(f"{name.replace('__', '/')}.js", source)
    closure = {path: child.closure[path]} if only else child.closure
    call = child.next_call
    child.next_call += 1
    meta = {"what": what, "path": path, "modules": closure, "import_seed": "09" * 32, "import_ms": 1.0, "env": {}}
    child.send(ANALYZE, call, meta=meta)
    kind, of, _, answer, body = child.receive(20)
    assert (kind, of) == (ANALYZED, call)
    return answer["ok"], json.loads(body) if answer["ok"] else answer["error"]


def test_library_is_found_by_its_own_name(child: Child) -> None:
    """``convex/server`` and ``convex/values`` are the deployment's own modules, the same ones from whatever folder."""
    source = (
        'import { query } from "../../_generated/server";\nimport { v } from "convex/values";\n'
        "export const f = query({ args: { a: v.string() }, handler: () => 1 });\n"
    )
    ok, found = analyze(child, "module", "deep/er/a.js", deep__er__a=source)
    assert ok, found
    assert [function["name"] for function in found["functions"]] == ["f"]
    assert {"_deps/convex/server.js", "_deps/convex/values.js", "_generated/server.js"} <= set(found["closure"])


def test_schema_may_import(child: Child) -> None:
    """A schema finds the library and other modules when they are among those that it may import."""
    source = (
        'import { defineSchema, defineTable } from "convex/server";\nimport { body } from "./fields";\n'
        "export default defineSchema({ t: defineTable({ body }) });\n"
    )
    fields = 'import { v } from "convex/values";\nexport const body = v.string();\n'
    ok, found = analyze(child, "schema", "schema.js", schema=source, fields=fields)
    assert ok, found
    assert found["tables"][0]["tableName"] == "t"


def test_a_bare_specifier_is_as_ever_without_the_library(child: Child) -> None:
    """Where the library is not deployed its name is as wrong as any other."""
    ok, error = analyze(child, "module", "bare.js", only=True, bare='import "convex/server";')
    assert not ok
    assert 'convex:/bare.js:0:7: Relative import path "convex/server" not prefixed with' in error["message"]


@pytest.mark.parametrize(
    ("source", "path", "line"),
    [
        ("const a = 1;\n\nlet x = ;", "fault.js", 3),
        ("// a\r\n// b\r\nimport './missing.js';", "fault.js", 3),
        ("\nimport 'lodash';", "fault.js", 2),
        ("\n\nimport { nope } from './_generated/server.js';", "fault.js", 3),
        ("import './broken.js';", "broken.js", 2),
    ],
)
def test_where_a_fault_is_written(child: Child, source: str, path: str, line: int) -> None:
    """What cannot be parsed or linked comes with the module and the line, counted from 1."""
    ok, error = analyze(child, "module", "fault.js", fault=source, broken="\n}")
    assert not ok
    assert error["location"] == {"path": path, "line": line}


def test_types_become_blanks(child: Child) -> None:
    """Erasing types moves nothing; a module without types stays what it is."""
    source = "type A = { a: string };\nexport const f = (a: A): number => a.a.length as number; // end\n"
    ok, text = analyze(child, "typescript", "typed.js", typed=source)
    assert ok, text
    assert [len(line) for line in text.split("\n")] == [len(line) for line in source.split("\n")]
    assert "string" not in text
    assert text.split("\n")[1].index("// end") == source.split("\n")[1].index("// end")
    plain = "export const g = (a) => a < 1;\n"
    assert analyze(child, "typescript", "plain.js", plain=plain) == (True, plain)


@pytest.mark.parametrize(
    ("source", "message", "line"),
    [
        ("\nenum X { A }", "Uncaught SyntaxError: TypeScript enum is not supported in strip-only mode", 2),
        ("\n\nnamespace N { export const a = 1; }", "Uncaught SyntaxError: ", 3),
        ("const a: number = ;", "Uncaught SyntaxError: Expression expected", 1),
    ],
)
def test_types_that_make_code_are_refused(child: Child, source: str, message: str, line: int) -> None:
    """What cannot simply be erased, or is no TypeScript, is an error with its line."""
    ok, error = analyze(child, "typescript", "typed.js", typed=source)
    assert not ok
    assert error["message"].startswith(message)
    assert error["location"]["line"] == line
