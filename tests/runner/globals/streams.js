const collect = async (readable) => { const all = []; for await (const chunk of readable) all.push(chunk); return all; };
test("a readable with backpressure", async () => {
  let pulls = 0;
  const stream = new ReadableStream({ pull(c) { c.enqueue(++pulls); if (pulls === 3) c.close(); } }, { highWaterMark: 0 });
  const reader = stream.getReader();
  assert(reader instanceof ReadableStreamDefaultReader && stream.locked);
  assert.equal(pulls, 0);
  const first = await reader.read();
  assert(first.done === false && first.value === 1);
  reader.releaseLock();
  assert.same(await collect(stream), [2, 3]);
});
test("cancel and errors", async () => {
  let reason;
  await new ReadableStream({ cancel(r) { reason = r; } }).cancel("why");
  assert.equal(reason, "why");
  await assert.rejects(new ReadableStream({ start(c) { c.error(new RangeError("bad")); } }).getReader().read(), RangeError, "bad");
});
test("tee and from", async () => {
  const [a, b] = ReadableStream.from([1, 2]).tee();
  assert.same([await collect(a), await collect(b)], [[1, 2], [1, 2]]);
});
test("bytes with a BYOB reader", async () => {
  const stream = new ReadableStream({ type: "bytes", start(c) { c.enqueue(new Uint8Array([1, 2, 3])); c.close(); } });
  const reader = stream.getReader({ mode: "byob" });
  assert(reader instanceof ReadableStreamBYOBReader);
  const { value } = await reader.read(new Uint8Array(2));
  assert.same([...value], [1, 2]);
  assert.same([...(await reader.read(new Uint8Array(2))).value], [3]);
});
test("pipes", async () => {
  const out = [];
  const double = new TransformStream({ transform(chunk, c) { c.enqueue(chunk * 2); } });
  await ReadableStream.from([1, 2, 3]).pipeThrough(double).pipeTo(new WritableStream({ write(chunk) { out.push(chunk); } }));
  assert.same(out, [2, 4, 6]);
  const controller = new AbortController();
  controller.abort();
  await assert.rejects(ReadableStream.from([1]).pipeTo(new WritableStream(), { signal: controller.signal }), "AbortError");
});
test("a writable", async () => {
  const writer = new WritableStream({ write(chunk) { if (chunk === 2) throw new Error("no"); } }).getWriter();
  assert(writer instanceof WritableStreamDefaultWriter);
  await writer.write(1);
  await assert.rejects(writer.write(2), Error, "no");
  await assert.rejects(writer.closed, Error, "no");
});
test("controllers are not globals; tags", () => {
  for (const name of ["ReadableStreamDefaultController", "ReadableByteStreamController", "TransformStreamDefaultController", "WritableStreamDefaultController", "ByteLengthQueuingStrategy", "CountQueuingStrategy"]) {
    assert.equal(typeof globalThis[name], "undefined", name);
  }
  assert.equal(String(new ReadableStream()), "[object ReadableStream]");
  assert.equal(String(new WritableStream()), "[object WritableStream]");
  assert.equal(String(new TransformStream()), "[object TransformStream]");
});
