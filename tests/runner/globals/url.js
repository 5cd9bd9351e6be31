test("parses the parts of a URL", () => {
  const url = new URL("https://user:pw@Example.COM:8080/a/../b%20c?x=1&y=2#frag");
  assert.equal(url.href, "https://user:pw@example.com:8080/b%20c?x=1&y=2#frag");
  assert.equal(url.host, "example.com:8080");
  assert.equal(url.origin, "https://example.com:8080");
  assert.equal(url.username + url.password, "userpw");
  assert.equal(url.pathname, "/b%20c");
  assert.equal(url.search, "?x=1&y=2");
  assert.equal(url.hash, "#frag");
  assert.equal(String(url), JSON.parse(JSON.stringify(url)));
});
test("resolves against a base", () => {
  assert.equal(new URL("../x?y", "http://h/a/b/c").href, "http://h/a/x?y");
  assert.equal(new URL("//other/p", "https://h/").href, "https://other/p");
});
test("normalizes IPv4, IPv6, default ports and international names", () => {
  assert.equal(new URL("http://0x7f.1/").host, "127.0.0.1");
  assert.equal(new URL("http://[::0:1]:80/").host, "[::1]");
  assert.equal(new URL("http://münchen.de/ä?ö").href, "http://xn--mnchen-3ya.de/%C3%A4?%C3%B6");
  assert.equal(new URL("http://EXAMPLE.com").hostname, "example.com");
});
test("refuses what is not a URL", () => {
  assert.throws(() => new URL("nope"), TypeError, "Invalid URL");
  assert.throws(() => new URL("http://a b/"), TypeError, "Invalid URL");
  assert.throws(() => new URL("/x", "nope"), TypeError);
  assert.throws(() => URL("http://x/"), TypeError);
  assert.equal(URL.canParse("nope"), false);
  assert.equal(URL.canParse("x", "http://h/"), true);
  assert.equal(URL.parse("nope"), null);
});
test("setters change the parts, searchParams stay in step", () => {
  const url = new URL("http://h/p?a=1");
  url.searchParams.append("b", "2 3");
  assert.equal(url.search, "?a=1&b=2+3");
  url.search = "?c=4";
  assert.equal(url.searchParams.get("c"), "4");
  url.protocol = "https";
  url.hostname = "x.y";
  url.port = "99";
  url.pathname = "/q r";
  url.hash = "z";
  assert.equal(url.href, "https://x.y:99/q%20r?c=4#z");
  url.href = "http://new/";
  assert.equal(url.host, "new");
});
test("setters that the runtime leaves out end the run", () => {
  for (const name of ["host", "username", "password"]) {
    assert.throws(() => { new URL("http://h/")[name] = "x"; }, Error, `Not implemented: set ${name} for URL. Consider calling an action`);
  }
  assert.equal(host.fatal.length, 3);
});
test("URLSearchParams", () => {
  const params = new URLSearchParams("?a=1&b=2&a=3&c=%20+x");
  assert.same(params.getAll("a"), ["1", "3"]);
  assert.equal(params.get("c"), "  x");
  assert.equal(params.size, 4);
  params.delete("a", "1");
  params.sort();
  assert.equal(params.toString(), "a=3&b=2&c=++x");
  assert.same([...params.entries()], [["a", "3"], ["b", "2"], ["c", "  x"]]);
  assert.equal(new URLSearchParams({ k: "ü" }).toString(), "k=%C3%BC");
  assert.equal(new URLSearchParams([["x", "1"], ["x", "2"]]).toString(), "x=1&x=2");
  assert(params.has("a", "3") && !params.has("a", "9"));
  params.set("a", "z");
  let seen = "";
  params.forEach((value, key) => { seen += key + value; });
  assert.equal(seen, "azb2c  x");
});
test("classes and tags", () => {
  assert.equal(URL.name + URLSearchParams.name, "URLURLSearchParams");
  assert.equal(Object.prototype.toString.call(new URL("http://h/")), "[object URL]");
  assert.equal(Object.prototype.toString.call(new URLSearchParams()), "[object URLSearchParams]");
  assert(new URL("http://h/").searchParams instanceof URLSearchParams);
  assert(Object.keys(Object.getOwnPropertyDescriptors(URL.prototype)).includes("href"));
});
