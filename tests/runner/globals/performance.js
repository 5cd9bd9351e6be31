test("clock", () => {
  assert.equal(performance.now(), 12.3);
  assert.equal(performance.timeOrigin, 1600000000000.1);
  assert.same(performance.toJSON(), { timeOrigin: 1600000000000.1 });
});
test("marks and measures", () => {
  const mark = performance.mark("m", { detail: { a: 1 }, startTime: 5 });
  assert(mark instanceof PerformanceMark && mark instanceof PerformanceEntry && mark.detail.a === 1);
  performance.mark("n");
  const measure = performance.measure("x", "m", "n");
  assert(measure instanceof PerformanceMeasure && measure.startTime === 5 && Math.abs(measure.duration - 7.3) < 1e-9);
  assert.equal(performance.measure("y", { start: "m", duration: 2 }).duration, 2);
  assert.equal(performance.getEntriesByType("mark").length, 2);
  assert.equal(performance.getEntriesByName("x").length, 1);
  assert.equal(performance.getEntries()[0].name.length, 1);
  performance.clearMarks("m"); performance.clearMeasures();
  assert.equal(performance.getEntries().length, 1);
  assert.throws(() => performance.measure("z", "gone"), "SyntaxError");
  assert.same(mark.toJSON(), { name: "m", entryType: "mark", startTime: 5, duration: 0, detail: { a: 1 } });
});
test("not to be made, and what is left out", () => {
  assert.throws(() => new Performance(), TypeError, "Illegal constructor");
  assert.throws(() => new PerformanceEntry(), TypeError, "Illegal constructor");
  for (const name of ["eventCounts", "timing", "navigation"]) assert.throws(() => performance[name], Error, `Not implemented: get ${name} for Performance.`);
  assert(performance instanceof Performance);
  assert.equal(String(performance), "[object Performance]");
});
