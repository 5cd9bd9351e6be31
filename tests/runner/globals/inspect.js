const rows = [
  ["myString", "'myString'"], ["it's", "'it\\'s'"], ["a\nb", "'a\\nb'"], [42, "42"], [-0, "-0"], [NaN, "NaN"], [10n, "10n"],
  [undefined, "undefined"], [null, "null"], [true, "true"],
  [{ property: "value", nested_object: {} }, "{\n  property: 'value',\n  nested_object: {}\n}"], [{}, "{}"], [[], "[]"],
  [["string", 42], "[ 'string', 42 ]"], [[{ a: 1 }], "[\n  {\n    a: 1\n  }\n]"],
  [{ "a-b": 1, 3: 4 }, "{\n  3: 4,\n  'a-b': 1\n}"], [{ u: undefined }, "{\n  u: undefined\n}"],
  [function myFunction() {}, "[Function: myFunction]"], [(() => () => {})(), "[Function (anonymous)]"], [(() => async () => {})(), "[Function (anonymous)]"],
  [new (class MyClass { x = 1; })(), "MyClass {\n  x: 1\n}"], [new (class MyClass {})(), "MyClass {}"],
  [new Error("boom"), "[Error: boom]"], [Object.assign(new Error("e"), { code: 1 }), "{ [Error: e] code: 1 }"],
  [new Date(0), "Thu Jan 01 1970 00:00:00 GMT+0000 (Coordinated Universal Time)"],
  [new Map([["k", 1]]), "Map (1) {\n  'k' => 1\n}"], [new Set([1]), "Set (1) {\n  1\n}"], [Symbol("s"), "Symbol(s)"], [/re/g, "/re/g"],
  [new Uint8Array([1, 2]), "Uint8Array [Uint8Array] {\n  0: 1,\n  1: 2\n}"], [new ArrayBuffer(1), "ArrayBuffer [ArrayBuffer] {}"], [Promise.resolve(), "Promise [Promise] {}"],
  [Object.create(null), "[Object: null prototype] {}"], [{ inspect() { return "mine"; } }, "mine"],
  [{ a: { b: { c: { d: { e: {} } } } } }, "{\n  a: {\n    b: {\n      c: {\n        d: {\n          e: [Object]\n        }\n      }\n    }\n  }\n}"],
  [[[[[[[]]]]]], "[ [ [ [ [ [Array] ] ] ] ] ]"],
];
for (const [value, text] of rows) test(JSON.stringify(text), () => assert.equal(host.inspect(value).replace(/\r/g, ""), text));
test("circular", () => { const value = {}; value.self = value; assert.equal(host.inspect(value), "{\n  self: [Circular]\n}"); });
test("a long string is cut", () => {
  const text = host.inspect("x".repeat(32770));
  assert.equal(text, `'${"x".repeat(32768)}'... 2 more characters`);
});
test("a DOMException shows like an error", () => {
  assert.equal(host.inspect([new DOMException("text", "AbortError")]), "[ [AbortError: text] ]");
});
test("what looks like Node's own hook is not called", () => {
  assert.equal(host.inspect({ [Symbol.for("nodejs.util.inspect.custom")]: () => "x" }).includes("nodejs.util.inspect.custom"), true);
});
