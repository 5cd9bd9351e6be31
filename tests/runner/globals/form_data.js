test("entries", async () => {
  const form = new FormData();
  form.append("a", "1"); form.append("a", 2); form.append("f", new Blob(["x"]), "x.txt"); form.append("g", new File(["y"], "y.bin"));
  assert.same(form.getAll("a"), ["1", "2"]);
  assert(form.get("f") instanceof File && form.get("f").name === "x.txt" && (await form.get("f").text()) === "x");
  form.set("a", "z");
  assert.same([...form.keys()], ["a", "f", "g"]);
  form.delete("f");
  assert(form.has("g") && !form.has("f") && form.get("f") === null);
  assert.equal(String(form), "[object FormData]");
  assert.throws(() => form.append("x", "text", "name"), TypeError);
});
test("multipart there and back", async () => {
  const form = new FormData();
  form.append("text", "line\nnext é");
  form.append('odd"name', new File([new Uint8Array([0, 13, 10, 45, 45, 255])], 'a"b.bin', { type: "x/y" }));
  const response = new Response(form);
  assert(response.headers.get("content-type").startsWith("multipart/form-data; boundary="));
  const back = await response.formData();
  assert.equal(back.get("text"), "line\r\nnext é");
  const file = back.get('odd"name');
  assert.equal(file.name + file.type, 'a"b.binx/y');
  assert.same([...new Uint8Array(await file.arrayBuffer())], [0, 13, 10, 45, 45, 255]);
});
test("bodies of other clients", async () => {
  const text = '--b\r\nContent-Disposition: form-data; name=plain\r\n\r\nv\r\n--b\r\nContent-Disposition: form-data; name="e"; filename=""\r\nContent-Type: application/octet-stream\r\n\r\n\r\n--b--\r\n';
  const form = await new Response(text, { headers: { "content-type": 'multipart/form-data; boundary="b"' } }).formData();
  assert.equal(form.get("plain"), "v");
  assert.equal(form.get("e").size, 0);
  const coded = await new Response("a=1&b=x+y%C3%A9", { headers: { "content-type": "application/x-www-form-urlencoded" } }).formData();
  assert.same([...coded], [["a", "1"], ["b", "x yé"]]);
});
test("bodies that are not forms", async () => {
  await assert.rejects(new Response("x").formData(), TypeError, "Body cannot be decoded as form data");
  await assert.rejects(new Response("junk", { headers: { "content-type": "multipart/form-data; boundary=b" } }).formData(), TypeError, "Body cannot be decoded as form data");
});
test("multipart parsing is refused outside actions", async () => {
  host.set("query", "run");
  const promise = new Response("x", { headers: { "content-type": "multipart/form-data; boundary=b" } }).formData();
  await assert.rejects(promise, Error, "Can't use formData() in queries and mutations.");
  host.set("action", "run");
});
