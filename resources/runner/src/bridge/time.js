// Date and the clocks.

function currentMs(what) {
  if (phase === "import") {
    if (importMs < 0) throw new NativeError(`${what} unsupported ${where}`);
    importedTime = true;
    return importMs;
  }
  observedTime = true;
  return isLive() ? apply(dateNow, NativeDate, []) : nowMs;
}
const datePrototype = NativeDate.prototype;
const dateToString = datePrototype.toString;
function PatchedDate(...parts) {
  if (new.target === undefined) return apply(dateToString, new NativeDate(currentMs("Date")), []);
  if (parts.length === 0) return construct(NativeDate, [currentMs("Date")], new.target);
  return construct(NativeDate, parts, new.target);
}
defineProperty(PatchedDate, "name", { __proto__: null, value: "Date", configurable: true });
defineProperty(PatchedDate, "length", { __proto__: null, value: 7, configurable: true });
defineProperty(PatchedDate, "prototype", { __proto__: null, value: datePrototype, writable: false });
hidden(datePrototype, "constructor", PatchedDate);
hidden(PatchedDate, "now", { now() { return currentMs("Date"); } }.now);
hidden(PatchedDate, "parse", NativeDate.parse);
hidden(PatchedDate, "UTC", NativeDate.UTC);
hidden(global, "Date", PatchedDate);

function performanceNow() {
  if (phase === "import") {
    if (importMs < 0) throw new NativeError(`performance unsupported ${where}`);
    return 0;
  }
  observedTime = true;
  return kind === "query" ? 0 : apply(dateNow, NativeDate, []) - startedMs;
}
