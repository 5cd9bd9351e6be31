test("parts, size, type, slices", async () => {
  const blob = new Blob(["añ", new Uint8Array([33]).buffer, new Blob(["?"]), new Uint8Array([1, 65, 66]).subarray(1)], { type: "Text/Plain" });
  assert.equal(blob.size, 7);
  assert.equal(blob.type, "text/plain");
  assert.equal(await blob.text(), "añ!?AB");
  assert.equal(await blob.slice(-2).text(), "AB");
  assert.equal(await blob.slice(0, 1, "x/y").text(), "a");
  assert.equal(blob.slice(0, 1, "x/y").type, "x/y");
  assert.same([...new Uint8Array(await new Blob(["hi"]).arrayBuffer())], [104, 105]);
  assert.equal(new Blob([], { type: "\u00e9" }).type, "");
  assert.equal((await new Blob(["x"]).bytes())[0], 120);
});
test("the bytes are a copy", async () => {
  const bytes = new Uint8Array([65]);
  const blob = new Blob([bytes]);
  bytes[0] = 66;
  assert.equal(await blob.text(), "A");
});
test("stream", async () => {
  const chunks = [];
  for await (const chunk of new Blob(["x".repeat(100000)]).stream()) chunks.push(chunk.length);
  assert.equal(chunks.reduce((a, b) => a + b), 100000);
});
test("File", async () => {
  const file = new File(["abc"], "a.txt", { type: "text/plain", lastModified: 42 });
  assert(file instanceof Blob && file.name === "a.txt" && file.lastModified === 42 && (await file.text()) === "abc");
  assert.equal(new File([], "x").lastModified, 1700000000000);
  assert.throws(() => new File([]), TypeError);
  assert.equal(String(file) + String(new Blob()), "[object File][object Blob]");
});
test("other parts end the run", () => {
  assert.throws(() => new Blob([{}]), Error, "Not implemented: constructor for Blob");
  assert.throws(() => new Blob("abc"), TypeError);
});
