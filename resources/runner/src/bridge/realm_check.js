// Re-instantiation: one context serves many runs of a module, each of which evaluates it anew. What survives a run is the realm (global object,
// builtins, what the bridge put there) and the state of the bridge. The bridge's is made new by `restart`; the realm is compared with its snapshot
// after every run, and a context that differs in anything is dropped.
//
// User code has run when the comparison is made, so it uses functions captured before that, index loops and own properties only: no `for of`, no
// spread, no destructuring, no method calls, no writes to arrays.
const { ownKeys, getOwnPropertyDescriptor: describeProperty, isExtensible } = Reflect;
const mapClear = NativeMap.prototype.clear;
const same = Object.is;
const emptyPattern = /(?:)/;
const emptySubject = [""];

let snapshot = null;
let stackOf = null; // what reads the stack that Error.captureStackTrace has left in an object: it stays there when the property `stack` is deleted
const lazyOriginals = []; // descriptors of the lazy globals, by the index of their names in lazyNames

const isObject = (candidate) => (typeof candidate === "object" && candidate !== null) || typeof candidate === "function";

/** Objects that no path of properties leads to from the global object: syntax and methods make what has them as its prototype. */
function hiddenIntrinsics() {
  const found = [Object.prototype, global];
  const add = (name, object) => {
    found[found.length] = object;
    names[names.length] = name;
  };
  const names = ["Object.prototype", "globalThis"];
  const prototypeOf = (name, made) => add(name, getPrototypeOf(made));
  prototypeOf("%GeneratorFunction.prototype%", function* () {});
  prototypeOf("%AsyncGeneratorFunction.prototype%", async function* () {});
  prototypeOf("%AsyncFunction.prototype%", async () => {});
  prototypeOf("%ArrayIteratorPrototype%", [].values());
  prototypeOf("%MapIteratorPrototype%", new NativeMap().values());
  prototypeOf("%SetIteratorPrototype%", new Set().values());
  prototypeOf("%StringIteratorPrototype%", ""[Symbol.iterator]());
  prototypeOf("%RegExpStringIteratorPrototype%", "".matchAll(/a/g));
  prototypeOf("%IteratorHelperPrototype%", [].values().map((one) => one));
  prototypeOf("%WrapForValidIteratorPrototype%", Iterator.from({ next() {} }));
  const segments = new Intl.Segmenter("en").segment("");
  prototypeOf("%IntlSegmentsPrototype%", segments);
  prototypeOf("%IntlSegmentIteratorPrototype%", segments[Symbol.iterator]());
  // A plain property for a moment: the accessor would take these frames away.
  hidden(NativeError, "prepareStackTrace", (_error, sites) => sites);
  const sites = new NativeError().stack;
  defineProperty(NativeError, "prepareStackTrace", stackHookProperty);
  add("Error.prepareStackTrace", ownHook);
  prototypeOf("%CallSitePrototype%", sites[0]);
  const stack = describeProperty(new NativeError(), "stack");
  if (typeof stack.get === "function") stackOf = stack.get;
  if (isObject(stack.get)) add("%get Error#stack%", stack.get);
  if (isObject(stack.set)) add("%set Error#stack%", stack.set);
  return { found, names };
}

/** A function that has nothing but a name and a length: it is frozen instead of compared. */
function isPlainFunction(target, keys) {
  if (typeof target !== "function" || keys.length > 2) return false;
  for (let i = 0; i < keys.length; i++) if (keys[i] !== "length" && keys[i] !== "name") return false;
  return true;
}

/** Remembers the realm as it is now, before any user code has run in it. Plain functions are frozen from here on. */
function takeSnapshot() {
  for (let i = 0; i < lazyNames.length; i += 2) lazyOriginals[i] = describeProperty(global, lazyNames[i]);
  const { found, names } = hiddenIntrinsics();
  const known = new Set(found);
  const targets = [];
  for (let i = 0; i < found.length; i++) {
    const target = found[i];
    const keys = ownKeys(target);
    const record = {
      __proto__: null,
      target, keys, name: names[i], proto: getPrototypeOf(target), extensible: isExtensible(target),
      values: [], setters: [], flags: [],
    };
    const visit = (child, key) => {
      if (!isObject(child) || known.has(child)) return;
      known.add(child);
      found[found.length] = child;
      names[names.length] = `${names[i]}.${String(key)}`;
    };
    visit(record.proto, "__proto__");
    for (let j = 0; j < keys.length; j++) {
      const property = describeProperty(target, keys[j]);
      const isData = "value" in property;
      visit(isData ? property.value : property.get, keys[j]);
      if (!isData) visit(property.set, keys[j]);
      record.values[j] = isData ? property.value : property.get;
      record.setters[j] = property.set;
      record.flags[j] = (isData ? 8 : 0) | (property.writable ? 4 : 0) | (property.enumerable ? 2 : 0) | (property.configurable ? 1 : 0);
    }
    if (isPlainFunction(target, keys)) freeze(target);
    else targets[targets.length] = record;
  }
  snapshot = targets;
}

/** Whether the property `keys[j]` of a record is as it was. Reads of descriptors see own properties only: Object.prototype was looked at first. */
function isAsBefore(record, j) {
  const flags = record.flags[j];
  if ((flags & 13) === 8) return true; // neither writable nor configurable: nothing but its presence can change
  const property = describeProperty(record.target, record.keys[j]);
  if (property === undefined) return false;
  if (property.enumerable !== ((flags & 2) !== 0) || property.configurable !== ((flags & 1) !== 0)) return false;
  if ((flags & 8) === 0) return property.writable === undefined && property.get === record.values[j] && property.set === record.setters[j];
  return property.writable === ((flags & 4) !== 0) && same(property.value, record.values[j]);
}

/** The lazy globals that the run has touched become lazy again: the next run gets groups of its own. */
function forgetGroups() {
  let any = false;
  for (const name in loaded) if (loaded[name] !== undefined) any = true;
  if (any) {
    for (let i = 0; i < lazyNames.length; i += 2) {
      const exports = loaded[lazyNames[i + 1]];
      if (exports === undefined) continue;
      const property = describeProperty(global, lazyNames[i]);
      if (property === undefined || property.writable !== true || property.enumerable || !property.configurable) continue;
      if (property.value === exports[lazyNames[i]]) defineProperty(global, lazyNames[i], lazyOriginals[i]);
    }
    for (const name in loaded) loaded[name] = undefined;
  }
  for (const name in jsHandlers) jsHandlers[name] = undefined;
  renewCallbacks.count = 0;
  endCallbacks.count = 0;
}

/** What differs from the snapshot, as text for an operator; "" when nothing does. */
function realmDifference() {
  forgetGroups();
  apply(regExpExec, emptyPattern, emptySubject); // RegExp.$1 and its like
  for (let i = 0; i < snapshot.length; i++) {
    const record = snapshot[i];
    const { target, keys } = record;
    const now = ownKeys(target);
    if (now.length !== keys.length) return `${record.name}: keys`;
    for (let j = 0; j < keys.length; j++) if (now[j] !== keys[j]) return `${record.name}: keys`;
    if (getPrototypeOf(target) !== record.proto) return `${record.name}: prototype`;
    if (isExtensible(target) !== record.extensible) return `${record.name}: extensibility`;
    for (let j = 0; j < keys.length; j++) {
      if (!isAsBefore(record, j)) return `${record.name}.${typeof keys[j] === "symbol" ? "symbol" : keys[j]}`;
    }
  }
  // Only now, since it may call Error.prepareStackTrace. No stack can be left in what is frozen.
  if (stackOf !== null) {
    for (let i = 0; i < snapshot.length; i++) {
      if (apply(stackOf, snapshot[i].target, []) !== undefined) return `${snapshot[i].name}: captured stack`;
    }
  }
  return "";
}

/** Everything that belongs to one run or to the evaluation of its modules is as in a context just made; their functions and maps stay. */
function restart() {
  apply(mapClear, modules, []);
  apply(mapClear, nodes, []);
  apply(mapClear, timers, []);
  apply(mapClear, dynamicImports, []);
  importing = 0;
  phase = "import";
  importGenerator = null;
  importedTime = importedRandom = false;
  importNames = create(null);
  frameTexts = new NativeWeakMap();
  stackHook = ownHook;
  stackHooks = new NativeWeakMap();
  head = tail = sent = null;
  firstOperation = lastOperation = unsentOperation = lastUnsentOperation = waitingFetch = lastWaitingFetch = null;
  operations = 0;
  pendingImports = lastImport = null;
  importsInFlight = 0;
  newTimers = lastNewTimer = null;
  timerCount = 0;
  nextTimer = 1;
  nextStream = 0;
  epoch = 0;
  httpRoute = httpHead = "";
  httpStream = null;
  endedStreams = create(null);
}
