test("a request from the wire", async () => {
  const request = host.syscall("requestFromConvexJson")({ convexJson: { headerPairs: [["x-a", "1"], ["X-A", "2"], ["content-type", "text/plain"]], url: "http://h/p?q", method: "POST", streamId: null, signal: "s" } });
  assert(request instanceof Request);
  assert.equal(request.method + request.url, "POSThttp://h/p?q");
  assert.equal(request.headers.get("x-a"), "1, 2");
  assert.equal(await request.text(), "");
  assert.equal(request.signal.aborted, false);
});
test("the client's disconnect reaches copies of the request", async () => {
  // The scripted host knows no http.closed: its refusal must not abort anything, nor be left unhandled.
  const request = host.syscall("requestFromConvexJson")({ convexJson: { headerPairs: [], url: "http://h/", method: "GET", streamId: null, signal: "s" } });
  const [copy, second] = [request.clone(), new Request(request)];
  assert(!copy.signal.aborted && !second.signal.aborted && !request.signal.aborted);
  const mine = new AbortController();
  const third = new Request(request, { signal: mine.signal });
  mine.abort();
  assert(third.signal.aborted && !request.signal.aborted);
});
test("a response to the wire", () => {
  const toJson = host.syscall("convexJsonFromResponse");
  const empty = toJson({ response: new Response(null, { status: 204, headers: { a: "b" } }) });
  assert.same(empty, { headerPairs: [["a", "b"]], status: 204, streamId: null });
  assert.throws(() => toJson({ response: {} }), Error, "HTTP actions must return a Response");
  assert.throws(() => toJson({}), Error, "HTTP actions must return a Response");
});
test("storage calls are refused in queries", async () => {
  host.set("query", "run");
  await assert.rejects(host.syscall("storage/storeBlob")({ blob: new Blob(["x"]) }), Error, "Can't use storage.store() in queries");
  await assert.rejects(host.syscall("storage/getBlob")({ storageId: "x" }), Error, "Can't use storage.get() in queries");
  host.set("action", "run");
});
