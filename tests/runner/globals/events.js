test("listeners hear in order, once, and can be removed", () => {
  const target = new EventTarget();
  const seen = [];
  const removed = () => seen.push("removed");
  target.addEventListener("x", (event) => seen.push(event.type + (event.target === target) + (event.currentTarget === target)));
  target.addEventListener("x", { handleEvent() { seen.push("object"); } });
  target.addEventListener("x", () => seen.push("once"), { once: true });
  target.addEventListener("x", removed);
  target.removeEventListener("x", removed);
  target.dispatchEvent(new Event("x"));
  target.dispatchEvent(new Event("x"));
  assert.same(seen, ["xtruetrue", "object", "once", "xtruetrue", "object"]);
});
test("preventDefault, stopImmediatePropagation", () => {
  const target = new EventTarget();
  let late = 0;
  target.addEventListener("x", (event) => { event.preventDefault(); event.stopImmediatePropagation(); });
  target.addEventListener("x", () => late++);
  const event = new Event("x", { cancelable: true });
  assert.equal(target.dispatchEvent(event), false);
  assert(event.defaultPrevented && late === 0 && event.currentTarget === null && event.eventPhase === 0);
  assert.equal(target.dispatchEvent(new Event("x")), true);
});
test("an event is dispatched once at a time", () => {
  const target = new EventTarget();
  target.addEventListener("x", (event) => assert.throws(() => target.dispatchEvent(event), "InvalidStateError"));
  target.dispatchEvent(new Event("x"));
  assert.throws(() => target.dispatchEvent({ type: "x" }), TypeError);
  assert.throws(() => new Event(), TypeError);
});
test("subclasses", () => {
  class Mine extends EventTarget {}
  const mine = new Mine();
  let heard = false;
  mine.addEventListener("x", function () { heard = this === mine; });
  mine.dispatchEvent(new Event("x"));
  assert(heard);
});
test("AbortController", () => {
  const controller = new AbortController();
  const seen = [];
  controller.signal.onabort = (event) => seen.push(event.type);
  controller.signal.addEventListener("abort", () => seen.push("listener"));
  assert.equal(controller.signal.aborted, false);
  controller.signal.throwIfAborted();
  controller.abort();
  controller.abort("again");
  assert.same(seen, ["abort", "listener"]);
  assert(controller.signal.reason instanceof DOMException && controller.signal.reason.name === "AbortError");
  assert.throws(() => controller.signal.throwIfAborted(), "AbortError");
  assert.throws(() => new AbortSignal(), TypeError, "Illegal constructor");
});
test("AbortSignal.abort, any, timeout", async () => {
  assert.equal(AbortSignal.abort(7).reason, 7);
  const one = new AbortController();
  const both = AbortSignal.any([one.signal, AbortSignal.any([new AbortController().signal])]);
  let heard = 0;
  both.addEventListener("abort", () => heard++);
  one.abort("why");
  assert(both.aborted && both.reason === "why" && heard === 1);
  assert.equal(AbortSignal.any([one.signal]).reason, "why");
  const timed = AbortSignal.timeout(5);
  await new Promise((resolve) => timed.addEventListener("abort", resolve));
  assert.equal(timed.reason.name, "TimeoutError");
});
test("a listener that ends with a signal", () => {
  const controller = new AbortController();
  const target = new EventTarget();
  let heard = 0;
  target.addEventListener("x", () => heard++, { signal: controller.signal });
  target.dispatchEvent(new Event("x"));
  controller.abort();
  target.dispatchEvent(new Event("x"));
  assert.equal(heard, 1);
});
test("tags", () => {
  assert.equal(String(new AbortController()), "[object AbortController]");
  assert.equal(String(new AbortController().signal), "[object AbortSignal]");
  assert.equal(String(new Event("x")), "[object Event]");
  assert(new AbortController().signal instanceof EventTarget);
});
