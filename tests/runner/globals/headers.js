test("names are case-insensitive, values joined and trimmed", () => {
  const headers = new Headers({ "X-One": " a ", accept: "b" });
  headers.append("x-one", "c");
  assert.equal(headers.get("X-ONE"), "a, c");
  headers.set("x-one", "d");
  assert.equal(headers.get("x-one"), "d");
  assert.equal(headers.get("nope"), null);
  headers.delete("ACCEPT");
  assert(!headers.has("accept"));
});
test("iteration is sorted, Set-Cookie stays apart", () => {
  const headers = new Headers([["b", "1"], ["Set-Cookie", "x=1"], ["a", "2"], ["set-cookie", "y=2"], ["B", "3"]]);
  assert.same([...headers], [["a", "2"], ["b", "1, 3"], ["set-cookie", "x=1"], ["set-cookie", "y=2"]]);
  assert.same(headers.getSetCookie(), ["x=1", "y=2"]);
  assert.same([...headers.keys()], ["a", "b", "set-cookie", "set-cookie"]);
  assert.same([...headers.values()].length, 4);
  assert.same([...new Headers(headers)], [...headers]);
  const seen = [];
  headers.forEach((value, name) => seen.push(name));
  assert.equal(seen[0], "a");
});
test("bad names and values", () => {
  assert.throws(() => new Headers({ "a b": "1" }), TypeError, "Invalid header name");
  assert.throws(() => new Headers([["x", "a\nb"]]), TypeError, "Invalid header value");
  assert.throws(() => new Headers([["x", "€"]]), TypeError, "ByteString");
  assert.throws(() => new Headers([["x"]]), TypeError);
  assert.throws(() => new Headers(1), TypeError);
  assert.equal(new Headers([["x", "caf\u00e9"]]).get("x"), "caf\u00e9");
  assert.equal(String(new Headers()), "[object Headers]");
});
