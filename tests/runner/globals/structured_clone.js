test("plain data, cycles and shared parts", () => {
  const shared = { s: 1 };
  const value = { a: [1, , 3], shared, again: shared, n: null, u: undefined, big: 10n, nan: NaN };
  value.self = value;
  const copy = structuredClone(value);
  assert(copy !== value && copy.self === copy && copy.shared === copy.again && copy.shared !== shared);
  assert.equal(copy.a.length, 3);
  assert(!(1 in copy.a));
  assert("u" in copy && Object.is(copy.nan, NaN) && copy.big === 10n);
});
test("builtins", () => {
  const copy = structuredClone({ d: new Date(5), r: /a+/gi, m: new Map([[{ k: 1 }, new Set([1])]]), b: new Uint16Array([1, 2]), v: new DataView(new ArrayBuffer(3), 1), o: Object("s") });
  assert.equal(copy.d.getTime(), 5);
  assert(copy.d instanceof Date && copy.r instanceof RegExp && copy.r.flags === "gi" && copy.r.source === "a+");
  const [[key, set]] = [...copy.m];
  assert(key.k === 1 && set.has(1));
  assert(copy.b instanceof Uint16Array && copy.b[1] === 2 && copy.v.byteLength === 2);
  assert(typeof copy.o === "object" && copy.o.valueOf() === "s");
  const buffer = new Uint8Array([1, 2, 3]).buffer;
  const two = structuredClone([new Uint8Array(buffer), new Uint8Array(buffer, 1)]);
  assert(two[0].buffer === two[1].buffer && two[0].buffer !== buffer && two[1][0] === 2);
});
test("errors", () => {
  const copy = structuredClone(new RangeError("r", { cause: { c: 1 } }));
  assert(copy instanceof RangeError && copy.message === "r" && copy.cause.c === 1 && typeof copy.stack === "string");
  class Odd extends Error { constructor() { super("o"); this.name = "Odd"; } }
  assert.equal(structuredClone(new Odd()).name, "Error");
});
test("class instances become plain objects, getters are read", () => {
  class P { constructor() { this.x = 1; } get y() { return 2; } }
  const copy = structuredClone(new P());
  assert(copy.constructor === Object && copy.x === 1 && !("y" in copy));
  assert.equal(structuredClone({ get z() { return 5; } }).z, 5);
  assert.equal(Object.keys(structuredClone({ [Symbol("s")]: 1 })).length, 0);
});
test("what cannot be cloned", () => {
  for (const bad of [() => 1, Symbol("s"), new WeakMap(), Promise.resolve(), { deep: [class {}] }, new Headers(), new WeakSet()]) {
    assert.throws(() => structuredClone(bad), "DataCloneError", "could not be cloned");
  }
  assert.throws(() => structuredClone(), TypeError);
});
test("blobs and files", async () => {
  const copy = structuredClone({ b: new Blob(["ab"], { type: "x/y" }), f: new File(["c"], "n.txt") });
  assert(copy.b instanceof Blob && (await copy.b.text()) === "ab" && copy.b.type === "x/y" && copy.f instanceof File && copy.f.name === "n.txt");
});
test("transfer ends the run", () => {
  const buffer = new ArrayBuffer(1);
  assert.throws(() => structuredClone(buffer, { transfer: [buffer] }), Error, "structuredClone with transfer not supported");
  assert.same(host.fatal, ["structuredClone with transfer not supported"]);
});
