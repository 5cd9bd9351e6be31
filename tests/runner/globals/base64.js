test("btoa", () => {
  assert.equal(btoa("hello"), "aGVsbG8=");
  assert.equal(btoa(""), "");
  assert.equal(btoa("\xff\xfe\xfd"), "//79");
  assert.throws(() => btoa("€"), "InvalidCharacterError");
  assert.throws(() => btoa(), TypeError);
});
test("atob", () => {
  assert.equal(atob("aGVsbG8="), "hello");
  assert.equal(atob(" aGVs\nbG8 "), "hello");
  assert.equal(atob("YQ"), "a");
  for (const bad of ["a", "a===", "YQ=", "Y*Q=", "=YQ"]) assert.throws(() => atob(bad), "InvalidCharacterError");
  try { atob("!"); } catch (error) { assert(error instanceof DOMException && error.code === 5); }
});
test("all bytes, and a long text", () => {
  const text = Array.from({ length: 256 }, (_, i) => String.fromCharCode(i)).join("").repeat(100);
  assert.equal(atob(btoa(text)), text);
});
