test("DOMException", () => {
  const error = new DOMException("text", "AbortError");
  assert(error instanceof Error && error instanceof DOMException);
  assert.equal(error.name + error.message + error.code, "AbortErrortext20");
  assert.equal(String(error), "AbortError: text");
  assert.equal(new DOMException().name, "Error");
  assert.equal(new DOMException("x", "Nonesuch").code, 0);
  assert.equal(DOMException.DATA_CLONE_ERR, 25);
  assert.equal(Object.prototype.toString.call(error), "[object DOMException]");
  assert.equal(new DOMException("m", { name: "DataError", cause: 3 }).cause, 3);
  assert.equal(typeof error.stack, "string");
  assert(Error.isError(error));
});
