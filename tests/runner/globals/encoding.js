test("TextEncoder", () => {
  const encoder = new TextEncoder();
  assert.equal(encoder.encoding, "utf-8");
  assert.same([...encoder.encode("aé€😀")], [97, 195, 169, 226, 130, 172, 240, 159, 152, 128]);
  assert.same([...encoder.encode("\ud800x")], [239, 191, 189, 120]);
  assert.equal(encoder.encode().length, 0);
  assert(encoder.encode("x") instanceof Uint8Array);
  const target = new Uint8Array(4);
  assert.same(encoder.encodeInto("a€€", target), { read: 2, written: 4 });
});
test("TextDecoder of UTF-8", () => {
  assert.equal(new TextDecoder().decode(new Uint8Array([0xef, 0xbb, 0xbf, 0x61, 0xe2, 0x82, 0xac])), "a€");
  assert.equal(new TextDecoder("utf8", { ignoreBOM: true }).decode(new Uint8Array([0xef, 0xbb, 0xbf])), "\ufeff");
  assert.equal(new TextDecoder().decode(new Uint8Array([0x61, 0xff, 0x62])), "a\ufffdb");
  assert.throws(() => new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array([0xff])), TypeError);
  assert.equal(new TextDecoder().decode(new Uint8Array([104, 105]).buffer), "hi");
  assert.equal(new TextDecoder().decode(new DataView(new Uint8Array([104, 105]).buffer, 1)), "i");
  assert.throws(() => new TextDecoder().decode("text"), TypeError);
});
test("TextDecoder streams", () => {
  const decoder = new TextDecoder();
  assert.equal(decoder.decode(new Uint8Array([0xe2, 0x82]), { stream: true }), "");
  assert.equal(decoder.decode(new Uint8Array([0xac]), { stream: true }), "€");
  assert.equal(decoder.decode(new Uint8Array([0xe2]), { stream: true }) + decoder.decode(), "\ufffd");
});
test("every split of a text decodes alike", () => {
  const bytes = new TextEncoder().encode("\ufeffa\ufeffé€😀x");
  for (let i = 0; i <= bytes.length; i++) {
    for (let j = i; j <= bytes.length; j++) {
      const decoder = new TextDecoder("utf-8", { fatal: true });
      const text = decoder.decode(bytes.subarray(0, i), { stream: true }) + decoder.decode(bytes.subarray(i, j), { stream: true }) + decoder.decode(bytes.subarray(j));
      assert.equal(text, "a\ufeffé€😀x", `${i},${j}`);
      assert.equal(decoder.decode(bytes.subarray(0, 4)), "a", "the decoder starts anew");
    }
  }
});
test("a piece that is cut off fails when fatal", () => {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  decoder.decode(new Uint8Array([0xe2, 0x82]), { stream: true });
  assert.throws(() => decoder.decode(), TypeError, "The encoded data is not valid.");
});
test("encodeInto stops before what does not fit", () => {
  for (const [text, room, read, written] of [["😀", 3, 0, 0], ["a😀b", 5, 3, 5], ["\ud800", 3, 1, 3], ["", 1, 0, 0], ["éé", 3, 1, 2]]) {
    assert.same(new TextEncoder().encodeInto(text, new Uint8Array(room)), { read, written });
  }
  assert.throws(() => new TextEncoder().encodeInto("x", []), TypeError);
});
test("labels", () => {
  assert.equal(new TextDecoder("latin1").encoding, "windows-1252");
  assert.equal(new TextDecoder(" UTF-16LE ").decode(new Uint8Array([0x61, 0, 0x3d, 0xd8, 0, 0xde])), "a😀");
  assert.equal(new TextDecoder("utf-16be").decode(new Uint8Array([0, 0x61])), "a");
  assert.equal(new TextDecoder("windows-1252").decode(new Uint8Array([0x80, 0xe9])), "€é");
  assert.equal(new TextDecoder("koi8-r").decode(new Uint8Array([0xc1])), "а");
  assert.equal(new TextDecoder("shift_jis").decode(new Uint8Array([0x82, 0xa0])), "あ");
  assert.equal(new TextDecoder("gbk").decode(new Uint8Array([0xc4, 0xe3])), "你");
  assert.throws(() => new TextDecoder("foo"), RangeError, "The encoding label provided ('foo') is invalid.");
});
test("a long text survives the round trip", () => {
  const text = "añ😀 ".repeat(20000);
  assert.equal(new TextDecoder().decode(new TextEncoder().encode(text)), text);
});
test("tags", () => {
  assert.equal(Object.prototype.toString.call(new TextDecoder()), "[object TextDecoder]");
  assert.equal(Object.prototype.toString.call(new TextEncoder()), "[object TextEncoder]");
});
