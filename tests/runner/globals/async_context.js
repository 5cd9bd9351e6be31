const tick = (ms) => new Promise((resolve) => { const signal = AbortSignal.timeout(ms); signal.onabort = resolve; });
test("a store lives across awaits, of promises and of host operations", async () => {
  const storage = new AsyncLocalStorage();
  const seen = [];
  const job = async (name) => {
    await null; seen.push(storage.getStore() === name);
    await Promise.resolve(); seen.push(storage.getStore() === name);
    await crypto.subtle.digest("SHA-256", new Uint8Array(1)); seen.push(storage.getStore() === name);
    await tick(2); seen.push(storage.getStore() === name);
    await Promise.all([Promise.resolve().then(() => seen.push(storage.getStore() === name))]);
  };
  await Promise.all([storage.run("a", job, "a"), storage.run("b", job, "b")]);
  assert.equal(storage.getStore(), undefined);
  assert.equal(seen.length, 10);
  assert(seen.every(Boolean), JSON.stringify(seen));
});
test("async generators keep the store of their callers", async () => {
  const storage = new AsyncLocalStorage();
  async function* items() { yield storage.getStore(); await null; yield storage.getStore(); }
  const got = [];
  await storage.run(1, async () => { for await (const item of items()) got.push(item); });
  assert.same(got, [1, 1]);
});
test("run nests, exit leaves, enterWith and disable", async () => {
  const storage = new AsyncLocalStorage();
  const other = new AsyncLocalStorage();
  storage.run(1, () => {
    other.run(2, () => {
      assert.same([storage.getStore(), other.getStore()], [1, 2]);
      storage.exit(() => assert.equal(storage.getStore(), undefined));
    });
    assert.equal(other.getStore(), undefined);
  });
  await storage.run(8, async () => { storage.enterWith(9); await null; assert.equal(storage.getStore(), 9); storage.disable(); assert.equal(storage.getStore(), undefined); });
  assert.throws(() => storage.run(1, () => { throw new RangeError("x"); }), RangeError);
  assert.equal(storage.getStore(), undefined);
  assert.equal(new AsyncLocalStorage({ defaultValue: 5 }).getStore(), 5);
});
test("bind, snapshot and AsyncResource", () => {
  const storage = new AsyncLocalStorage();
  const { bound, snapshot, resource } = storage.run("s", () => ({
    bound: AsyncLocalStorage.bind(() => storage.getStore()),
    snapshot: AsyncLocalStorage.snapshot(),
    resource: new AsyncResource("T"),
  }));
  assert.equal(bound(), "s");
  assert.equal(snapshot(() => storage.getStore()), "s");
  assert.equal(resource.runInAsyncScope((x) => storage.getStore() + x, null, "!"), "s!");
  assert.equal(resource.bind(() => storage.getStore())(), "s");
  assert.equal(resource.type, "T");
  assert.throws(() => new AsyncResource(), TypeError);
  assert.equal(AsyncLocalStorage.name + AsyncResource.name, "AsyncLocalStorageAsyncResource");
});
