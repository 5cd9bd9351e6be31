const { base } = host;
test("Request", async () => {
  const request = new Request("http://h/p#frag", { method: "post", body: "hé", headers: { a: "b" } });
  assert.equal(request.method + request.url, "POSThttp://h/p#frag");
  assert.equal(request.headers.get("content-type"), "text/plain;charset=UTF-8");
  const copy = request.clone();
  assert.equal(await request.text(), "hé");
  assert(request.bodyUsed && !copy.bodyUsed);
  await assert.rejects(request.text(), TypeError, "body stream already read");
  assert.equal((await copy.blob()).type, "text/plain;charset=utf-8");
  const next = new Request(new Request("http://h/", { method: "PUT", body: "x" }), { headers: { c: "d" } });
  assert.equal(next.method + next.headers.get("c") + (await next.text()), "PUTdx");
  assert.throws(() => new Request("http://h/", { body: "x" }), TypeError, "GET/HEAD");
  assert.throws(() => new Request("nope"), TypeError, "Invalid URL");
  assert.equal(new Request("http://h/").body, null);
  assert(new Request("http://h/").signal instanceof AbortSignal);
});
test("getters of Request that are left out end the run", () => {
  for (const name of ["destination", "referrer", "referrerPolicy", "mode", "credentials", "cache", "redirect", "integrity", "keepalive"]) {
    assert.throws(() => new Request("http://h/")[name], Error, `Not implemented: get ${name} for Request. Consider calling an action defined in Node.js instead`);
  }
});
test("Response", async () => {
  assert.equal(await new Response("x").text(), "x");
  const response = new Response('{"a":1}', { status: 201, statusText: "Made", headers: [["x", "y"]] });
  assert(response.ok && response.status === 201 && response.statusText === "Made" && response.type === "default" && !response.redirected);
  const copy = response.clone();
  assert.equal((await response.json()).a + (await copy.json()).a, 2);
  const json = Response.json({ b: 2 }, { status: 400 });
  assert.equal(json.headers.get("content-type") + json.status + (await json.text()), 'application/json400{"b":2}');
  assert.equal(Response.redirect("http://h/x", 301).headers.get("location"), "http://h/x");
  assert.equal(Response.error().type, "error");
  assert.throws(() => new Response("x", { status: 204 }), TypeError);
  for (const status of [204, 205, 304]) assert.equal(new Response("", { status }).body, null);
  assert.throws(() => new Response("x", { status: 99 }), RangeError);
  assert.throws(() => new Response({}), Error, "Not implemented: constructor for Response");
  assert.equal(await new Response(new URLSearchParams({ a: "1 2" })).text(), "a=1+2");
  assert.equal((await new Response(new Uint8Array([1, 2])).arrayBuffer()).byteLength, 2);
  assert.equal(await new Response(new Blob(["b"], { type: "x/y" })).text(), "b");
  await assert.rejects(new Response("{").json(), SyntaxError);
});
test("bodies as streams", async () => {
  const response = new Response(ReadableStream.from([new Uint8Array([104]), new Uint8Array([105])]));
  const [one, two] = [response, response.clone()];
  assert.equal((await one.text()) + (await two.text()), "hihi");
  const locked = new Response("abc");
  const reader = locked.body.getReader();
  assert.equal(new TextDecoder().decode((await reader.read()).value), "abc");
  await assert.rejects(locked.text(), TypeError);
  const held = new Response("x");
  held.body.getReader();
  await assert.rejects(held.text(), TypeError, "This stream has already been locked");
  await assert.rejects(new Response(ReadableStream.from(["text"])).text(), TypeError);
});
test("fetch sends and receives", async () => {
  const response = await fetch(`${base}/echo`, { method: "POST", body: "hé", headers: { "X-Own": "v" } });
  assert(response instanceof Response && response.type === "basic" && response.ok && response.url === `${base}/echo`);
  const got = await response.json();
  assert.equal(got.method, "POST");
  assert.equal(got.headers["x-own"], "v");
  assert.equal(got.headers["content-length"], "3");
  assert.equal(got.headers["content-type"], "text/plain;charset=UTF-8");
  assert.throws(() => response.headers.set("a", "b"), TypeError, "immutable");
  const empty = await fetch(`${base}/empty`);
  assert.equal(empty.body, null);
  assert.equal(empty.headers.get("x-latin"), "caf\u00e9");
  const latin = await (await fetch(`${base}/echo`, { method: "POST", body: ReadableStream.from([new Uint8Array([1])]), headers: { "x-l": "caf\u00e9" } })).json();
  assert.equal(latin.headers["x-l"], "caf\u00e9");
  assert.equal((await fetch(new URL(`${base}/nope`))).status, 404);
});
test("redirects", async () => {
  const followed = await fetch(`${base}/redirect?left=2`, { method: "POST", body: "x" });
  assert(followed.redirected && followed.url === `${base}/echo`);
  const got = await followed.json();
  assert.equal(got.method + got.body, "GET");
  const kept = await (await fetch(`${base}/redirect?status=307`, { method: "POST", body: "x" })).json();
  assert.equal(kept.method + kept.body, "POSTx");
  const manual = await fetch(`${base}/redirect`, { redirect: "manual" });
  assert.equal(manual.status + manual.headers.get("location"), "302/echo");
  await assert.rejects(fetch(`${base}/redirect`, { redirect: "error" }), Error, "fetch attempted redirect");
  await assert.rejects(fetch(`${base}/redirect?left=30`), Error, "fetch too many redirects");
  const stream = ReadableStream.from([new Uint8Array([1])]);
  await assert.rejects(fetch(`${base}/redirect?status=307`, { method: "POST", body: stream, duplex: "half" }), Error, "fetch cannot redirect with streamed body");
  const away = await (await fetch(`${base}/elsewhere`, { headers: { authorization: "secret", "x-kept": "1" } })).json();
  assert.equal(String(away.headers.authorization) + away.headers["x-kept"], "undefined1");
});
test("both bodies stream at once", async () => {
  let push;
  const body = new ReadableStream({ start(controller) { push = controller; } });
  const response = await fetch(`${base}/duplex`, { method: "POST", body, duplex: "half" });
  assert.same(response.headers.getSetCookie(), ["a=1", "b=2"]);
  const reader = response.body.getReader();
  for (const text of ["one", "two"]) {
    push.enqueue(new TextEncoder().encode(text));
    assert.equal(new TextDecoder().decode((await reader.read()).value), text);
  }
  push.close();
  assert.equal((await reader.read()).done, true);
});
test("a request body that fails, fails the exchange", async () => {
  const body = new ReadableStream({ pull(controller) { controller.error(new RangeError("no more")); } });
  await assert.rejects(fetch(`${base}/echo`, { method: "POST", body, duplex: "half" }), Error, "no more");
  await assert.rejects(fetch(`${base}/echo`, { method: "POST", body: ReadableStream.from(["text"]), duplex: "half" }), Error, "Received non-Uint8Array chunk");
});
test("a Request is sent once", async () => {
  const request = new Request(`${base}/echo`, { method: "PUT", body: new Blob(["b"], { type: "x/y" }) });
  const got = await (await fetch(request, { headers: { "x-two": "2" } })).json();
  assert.equal(got.method + got.body + got.headers["x-two"], "PUTb2");
  await assert.rejects(fetch(request), TypeError, "body stream already read");
  const form = new FormData();
  form.append("k", "v");
  const sent = await (await fetch(`${base}/echo`, { method: "POST", body: form })).json();
  assert(sent.headers["content-type"].startsWith("multipart/form-data; boundary=") && sent.body.includes('name="k"'));
});
test("abort before the head, and in the body", async () => {
  const before = new AbortController();
  const promise = fetch(`${base}/slow`, { signal: before.signal });
  before.abort();
  await assert.rejects(promise, "AbortError");
  await assert.rejects(fetch(`${base}/echo`, { signal: AbortSignal.abort("mine") }).catch((reason) => { throw new Error(reason); }), Error, "mine");
  const during = new AbortController();
  const response = await fetch(`${base}/hang`, { signal: during.signal });
  const reader = response.body.getReader();
  assert.equal(new TextDecoder().decode((await reader.read()).value), "first");
  during.abort();
  await assert.rejects(reader.read(), "AbortError");
  await assert.rejects(fetch(`${base}/slow`, { signal: AbortSignal.timeout(10) }), "TimeoutError");
});
test("bodies that break off, and content codings", async () => {
  const cut = await fetch(`${base}/cut`);
  assert.equal(cut.status, 200);
  await assert.rejects(cut.text(), Error, "aborted");
  await assert.rejects(fetch(`${base}/refuse`), Error, "socket hang up");
  const squeezed = await fetch(`${base}/gzip`);
  assert.equal(squeezed.headers.get("content-encoding"), null);
  assert.equal(squeezed.headers.get("x-kept"), "1");
  assert.equal((await squeezed.text()).length, 8000);
  await assert.rejects((await fetch(`${base}/badgzip`)).text(), Error, "incorrect header check");
  await assert.rejects((await fetch(`${base}/cutgzip`)).text(), Error);
});
test("a large body arrives whole, one that is cancelled is let go", async () => {
  assert.equal((await (await fetch(`${base}/large`)).arrayBuffer()).byteLength, 64 * 65536);
  const response = await fetch(`${base}/large`);
  await response.body.cancel();
  for (let i = 0; i < 40; i++) assert.equal((await fetch(`${base}/gzip`)).status, 200, "an unread body does not hold up others");
});
test("responses that nobody reads do not break anything", async () => {
  for (const path of ["cut", "badgzip", "cutgzip", "large"]) await fetch(`${base}/${path}`);
  await new Promise((resolve) => { AbortSignal.timeout(50).onabort = resolve; });
  assert.equal((await fetch(`${base}/gzip`)).ok, true);
});
test("what fetch refuses", async () => {
  await assert.rejects(fetch(), TypeError, "Request URL is undefined");
  await assert.rejects(fetch("ftp://h/"), TypeError, "Unsupported URL scheme");
  await assert.rejects(fetch("no url"), TypeError, "Invalid URL");
  await assert.rejects(fetch("http://127.0.0.1:1/"), Error, "ECONNREFUSED");
  host.set("query", "run");
  await assert.rejects(fetch(base), Error, "Can't use fetch() in queries and mutations.");
  host.set("query", "import");
  await assert.rejects(fetch(base), Error, "fetch() unsupported at import time");
  host.set("action", "run");
});
test("tags", () => {
  assert.equal(String(new Request("http://h/")) + String(new Response()), "[object Request][object Response]");
  assert.equal(Request.name + Response.name + fetch.name, "RequestResponsefetch");
});
