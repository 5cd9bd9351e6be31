const collect = async (readable) => { const all = []; for await (const chunk of readable) all.push(chunk); return all; };
test("TextEncoderStream joins surrogate pairs across chunks", async () => {
  const stream = new TextEncoderStream();
  const writer = stream.writable.getWriter();
  void writer.write("a\ud83d"); void writer.write("\ude00"); void writer.close();
  const bytes = (await collect(stream.readable)).flatMap((chunk) => [...chunk]);
  assert.same(bytes, [97, 240, 159, 152, 128]);
  assert.equal(stream.encoding, "utf-8");
});
test("TextDecoderStream joins sequences across chunks", async () => {
  const source = new ReadableStream({ start(c) { c.enqueue(new Uint8Array([0xe2, 0x82])); c.enqueue(new Uint8Array([0xac, 0x21])); c.close(); } });
  assert.equal((await collect(source.pipeThrough(new TextDecoderStream()))).join(""), "€!");
});
test("TextDecoderStream fails on malformed data when fatal", async () => {
  const source = new ReadableStream({ start(c) { c.enqueue(new Uint8Array([0xff])); c.close(); } });
  await assert.rejects(collect(source.pipeThrough(new TextDecoderStream("utf-8", { fatal: true }))), TypeError);
});
