"""Errors and frames of a real bundle: the texts that callers receive."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.runner.bundles import bundle
from tests.runner.harness import Child, Failure, page

SOURCE = """\
import { queryGeneric as query, mutationGeneric as mutation, actionGeneric as action } from "convex/server";
import { ConvexError, v } from "convex/values";

function throwsTheError(): never {
  throw new Error("Oh bother!");
}

class FooError extends ConvexError<any> {
  name = "FooError";
}

export const boom = query({
  args: {},
  handler: async () => {
    const unused = 1;
    throwsTheError();
  },
});
export const typed = query(async () => { throw new TypeError(""); });
export const text = query(async () => { throw "just text"; });
export const object = query(async () => { throw { a: 1 }; });
export const nothing = query(async () => { throw null; });
export const array = query(async () => { throw [1, 2]; });
export const hostile = query(async () => { throw new Proxy({}, { get() { throw 1; }, getPrototypeOf() { throw 2; } }); });
export const custom = query(async () => { const e = new Error("m"); e.name = "Mine"; throw e; });
export const long = query(async () => { throw new Error("é".repeat(100000)); });
export const convexError = query(async () => { throw new FooError({ code: 1n, msg: "x" }); });
export const convexText = query(async () => { throw new ConvexError("plain"); });
export const stack = query(async () => { return new Error("q").stack; });
export const captured = query(async () => { const holder: any = {}; (Error as any).captureStackTrace(holder); return holder.stack; });
export const limited = query(async () => { (Error as any).stackTraceLimit = 0; throw new Error("no frames"); });
export const replaced = query(async () => { (Error as any).prepareStackTrace = () => "mine"; throw new Error("no hook"); });
export const overflow = query(async () => { const f = (): number => 1 + f(); return f(); });
export const traced = query(async () => { console.trace("hi"); });
export const rethrown = query(async (ctx) => { await ctx.runQuery("a:b" as any, {}); });
export const caught = query(async (ctx) => {
  try { await ctx.runQuery("a:b" as any, {}); } catch (e: any) { return [e instanceof ConvexError, e.name, e.message, e.data]; }
});
export const queryObject = query(async (ctx) => ctx.db.query("t") as any);
export const list = query(async (ctx) => (await ctx.db.query("t").collect()).length);
export const first = query(async (ctx) => await ctx.db.query("t").first());
export const insert = mutation({ args: { a: v.number() }, handler: async (ctx, { a }) => await ctx.db.insert("t", { a }) });
export const act = action(async (ctx): Promise<any> => await ctx.runQuery("a:b" as any, { x: 1n } as any));
"""


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    modules = bundle({"errors.ts": SOURCE})
    with Child() as one:
        for path, (source, source_map) in modules.items():
            one.add_module(path, source, source_map)
        yield one


def failing(message: str, data: str = "") -> Any:
    def answer(*_: Any) -> str:
        raise Failure(message, data)

    return answer


def test_an_error_is_rendered_with_mapped_frames(child: Child) -> None:
    """Message, then a line per frame of the user's files, then a newline; frames of the npm package are cut off."""
    lines = child.run("query", "errors.js", "boom").error.split("\n")
    assert lines[0] == "Uncaught Error: Oh bother!"
    assert lines[1].startswith("    at throwsTheError (../convex/errors.ts:5:")
    assert lines[2].startswith("    at handler (../convex/errors.ts:")
    assert lines[3:] == [""]


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("typed", "Uncaught TypeError\n    at "),
        ("custom", "Uncaught Mine: m\n    at "),
        ("overflow", "Uncaught RangeError: Maximum call stack size exceeded\n    at f (../convex/errors.ts"),
        ("convexText", "Uncaught ConvexError: plain\n    at "),
    ],
)
def test_heads_of_errors(child: Child, name: str, head: str) -> None:
    """Name and message in front, empty pieces dropped."""
    assert child.run("query", "errors.js", name).error.startswith(head)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("text", "Uncaught just text\n"),
        ("object", "Uncaught #<Object>\n"),
        ("nothing", "Uncaught null\n"),
        ("array", "Uncaught [object Array]\n"),
        ("limited", "Uncaught Error: no frames\n"),
        ("replaced", "Uncaught Error: no hook\n"),
    ],
)
def test_thrown_values_without_frames(child: Child, name: str, text: str) -> None:
    """What is no error is printed as V8 prints it; without frames there is the message alone."""
    assert child.run("query", "errors.js", name).error == text


def test_a_hostile_thrown_value_is_harmless(child: Child) -> None:
    """A proxy whose traps throw gives some text, and the child goes on."""
    assert child.run("query", "errors.js", "hostile").error.startswith("Uncaught ")
    assert child.run("query", "errors.js", "stack").ok


def test_a_long_message_is_cut(child: Child) -> None:
    """65536 bytes at a character boundary, frames kept."""
    error = child.run("query", "errors.js", "long").error
    assert len(error.split("\n", 1)[0].encode()) in (65535, 65536)
    assert "    at " in error


def test_a_convex_error_carries_its_data_as_text(child: Child) -> None:
    """The body of RESULT is the JSON text of the data; the name of the subclass stays."""
    result = child.run("query", "errors.js", "convexError")
    assert result.error.startswith('Uncaught FooError: {"code":"1n","msg":"x"}\n    at ')
    assert json.loads(result.body) == {"code": {"$integer": "AQAAAAAAAAA="}, "msg": "x"}


def test_stack_inside_user_code_is_the_mapped_frames(child: Child) -> None:
    """No header line, no trailing newline; captureStackTrace gives the same form."""
    for name in ("stack", "captured"):
        stack = child.run("query", "errors.js", name).value
        assert stack.startswith("    at <anonymous> (../convex/errors.ts:")
        assert "\n" not in stack
    line = child.run("query", "errors.js", "traced").meta["logs"][0]
    assert line["messages"][0] == "'hi'"
    assert line["messages"][1].startswith("\n    at <anonymous> (../convex/errors.ts:")


def test_a_child_error_is_nested_in_the_parents(child: Child) -> None:
    """The child's whole text is the message of the parent's error, and the parent's frames follow."""
    error = child.run(
        "query", "errors.js", "rethrown", answer=failing("Uncaught Error: boom\n    at handler (x)\n")
    ).error
    assert error.startswith(
        "Uncaught Error: Uncaught Error: boom\n    at handler (x)\n\n    at async <anonymous> (../convex/errors.ts:"
    )
    assert error.endswith(")\n")
    caught = child.run(
        "query",
        "errors.js",
        "caught",
        answer=failing("Uncaught FooError: {}\n", '{"code":{"$integer":"AQAAAAAAAAA="}}'),
    )
    assert caught.value[:3] == [True, "ConvexError", "Uncaught FooError: {}\n"]


def test_a_query_object_cannot_be_returned(child: Child) -> None:
    """The npm package's own check arrives as an error."""
    assert child.run("query", "errors.js", "queryObject").error.startswith("Uncaught Error: Return value is a Query.")


def test_database_calls_of_the_npm_package(child: Child) -> None:
    """collect, first and insert of the real package work against pages and answers."""
    rows = [{"_id": str(i), "_creationTime": i} for i in range(120)]
    assert child.run("query", "errors.js", "list", answer=lambda *_: page(rows, True)).value == 120
    assert child.run("query", "errors.js", "first", answer=lambda *_: page(rows[:1], True)).value == rows[0]
    result = child.run("mutation", "errors.js", "insert", [{"a": 1}], lambda *_: '{"_id":"x"}')
    assert result.value == "x"
    assert result.calls == [("1.0/insert", {"table": "t", "value": {"a": 1}})]


def test_actions_of_the_npm_package(child: Child) -> None:
    """runQuery of an action passes the request id back, and values in their encoding."""
    result = child.run("action", "errors.js", "act", answer=lambda *_: '{"$integer":"AQAAAAAAAAA="}')
    assert result.value == {"$integer": "AQAAAAAAAAA="}
    op, args = result.calls[0]
    assert op == "1.0/actions/query"
    assert args["requestId"] == "0123456789abcdef"
    assert args["args"] == {"x": {"$integer": "AQAAAAAAAAA="}}


HOOKS = """\
import { queryGeneric as query } from "convex/server";
const E = Error as any;
function names(make: () => any): any {
  E.prepareStackTrace = (error: any, sites: any[]) => sites.map((s) => [s.getFunctionName(), s.getFileName()]);
  try { return make().stack; } finally { E.prepareStackTrace = undefined; }
}
const sort = (make: () => any) => { let made: any; [2, 1].sort(() => { made ??= make(); return 0; }); return made; };
const inGetter = (make: () => any) => {
  let made: any;
  console.log({ get a() { made = make(); return 1; } });
  JSON.stringify({ toJSON() { made ??= make(); } });
  return made;
};
export const seen = query(async () => {
  const plain = names(() => new Error("x"));
  await null;
  return [plain, names(() => new Error("y")), names(() => sort(() => new Error("z"))), names(() => inGetter(() => new Error("g")))];
});
export const captured = query(() => {
  const holder: any = {};
  E.prepareStackTrace = (e: any, s: any[]) => s.length;
  E.captureStackTrace(holder);
  return holder.stack >= 1 && holder.stack < 12; });
export const restored = query(() => {
  const before = new Error("q").stack;
  const own = E.prepareStackTrace;
  E.prepareStackTrace = (e: any, s: any[]) => s;
  const sites = new Error("q").stack as any;
  const mine = E.prepareStackTrace;
  E.prepareStackTrace = own;
  const after = new Error("q").stack;
  E.prepareStackTrace = mine;
  const plain = (text: any) => text.replace(/:\\d+:\\d+/g, "");
  return [Array.isArray(sites), typeof before, plain(before) === plain(after), E.prepareStackTrace === mine, Array.isArray(new Error("q").stack)];
});
export const odd = query(() => {
  const out = [];
  for (const value of [undefined, null, 1, "text", {}]) { E.prepareStackTrace = value; out.push(E.prepareStackTrace === value); }
  E.prepareStackTrace = (e: any, s: any) => s;
  out.push(E.prepareStackTrace(new Error("q"), "mine"));
  out.push(E.prepareStackTrace(1, [null, { getFileName() { throw 1; } }, { getFileName: () => "own.js" }]).length);
  return out;
});
"""


def test_a_hook_of_user_code_sees_the_frames_of_user_code_alone() -> None:
    """``Error.prepareStackTrace`` gets no frame of the runner or of Node, neither below the function nor between its own."""
    with Child() as child:
        for path, (source, source_map) in bundle({"hooks.ts": HOOKS}).items():
            child.add_module(path, source, source_map)
        stacks = child.run("query", "hooks.js", "seen").value
        assert [stack[0][1] for stack in stacks[:2]] == ["convex:/hooks.js"] * 2
        assert any(name == "names" for name, _ in stacks[0])
        for stack in stacks:
            assert stack
            for _, script in stack:
                assert script is None or script.startswith("convex:/"), stack
        assert child.run("query", "hooks.js", "captured").value is True
        assert child.run("query", "hooks.js", "restored").value == [True, "string", True, True, True]
        assert child.run("query", "hooks.js", "odd").value == [True] * 5 + ["mine", 3]
