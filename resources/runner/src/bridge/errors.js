// Frames of errors, mapped in place, and the text of what was thrown (runtime.md 8.1-8.3).

const maps = new NativeMap(); // script name -> {table, sourcesText, sources}: see sourcemaps.mjs; the sources are parsed when the first frame needs them
let frameTexts = new NativeWeakMap(); // error object -> text of its frames
const SEGMENT = 9;

function lookUp(map, line, column) {
  const { table } = map;
  const at = (i) => apply(charCodeAt, table, [i]);
  let low = 0;
  let high = table.length / SEGMENT; // first segment past (line, column)
  while (low < high) {
    const middle = (low + high) >>> 1;
    const base = middle * SEGMENT;
    const segmentLine = at(base) * 65536 + at(base + 1);
    if (segmentLine < line || (segmentLine === line && at(base + 2) * 65536 + at(base + 3) <= column)) low = middle + 1;
    else high = middle;
  }
  if (low === 0) return null;
  const base = (low - 1) * SEGMENT;
  return {
    __proto__: null,
    file: (map.sources ??= freeze(parseJson(map.sourcesText)))[at(base + 4)],
    line: at(base + 5) * 65536 + at(base + 6),
    column: at(base + 7) * 65536 + at(base + 8),
  };
}

function frameName(site) {
  const name = site.getFunctionName();
  if (site.isConstructor()) return `new ${name || "<anonymous>"}`;
  const type = site.getTypeName();
  const method = site.getMethodName();
  if (name) {
    const prefix = type && apply(startsWith, name, [type]) ? `${type}.` : "";
    const suffix = method && apply(endsWith, name, [method]) ? ` [as ${method}]` : "";
    return `${prefix}${name}${suffix}`;
  }
  if (method) return `${type}.${method}`;
  return type ? `${type}.<anonymous>` : "<anonymous>";
}

const isInternalFile = (file) => has(file, "udf-runtime/src") || has(file, "convex/src/server/impl");

function framesOf(sites) {
  const texts = create(null);
  let count = 0;
  let kept = 0; // frames up to the last that is not internal
  for (let i = 0; i < sites.length; i++) {
    const site = sites[i];
    const script = site.getFileName();
    if (typeof script !== "string") continue;
    const map = apply(mapGet, maps, [script]);
    if (map === undefined) continue;
    let file = script;
    // Looked up with the 1-based position as if it were 0-based (runtime.md 8.2).
    let line = site.getLineNumber();
    let column = site.getColumnNumber();
    const found = lookUp(map, line, column);
    if (found !== null && found.file !== undefined) ({ file, line, column } = found);
    const internal = isInternalFile(file);
    if (internal && kept === 0) continue;
    const async = site.isAsync() ? "async " : "";
    const all = site.isPromiseAll() ? `Promise.all (index ${site.getPromiseIndex()})` : "";
    texts[count++] = `    at ${async}${all}${frameName(site)} (${file}:${line}:${column})`;
    if (!internal) kept = count;
  }
  let text = "";
  for (let i = 0; i < kept; i++) text += i === 0 ? texts[i] : `\n${texts[i]}`;
  return text;
}
function ownHook(error, sites) {
  const text = framesOf(sites);
  if ((typeof error === "object" && error !== null) || typeof error === "function") apply(weakMapSet, frameTexts, [error, text]);
  return text;
}
defineProperty(ownHook, "name", { __proto__: null, value: "prepareStackTrace" });

// Node calls whatever `Error.prepareStackTrace` is with all frames. A hook of user code shall not see those of the runner and of Node below and
// between its own: what is assigned is wrapped, and the wrapper is what is read back.
let stackHook = ownHook;
let stackHooks = new NativeWeakMap(); // wrapper -> true

const scriptOf = (site) => guarded(() => site.getFileName());
const isOfRunner = (script) =>
  typeof script === "string" && (apply(startsWith, script, ["runner:"]) || apply(startsWith, script, ["node:"]) || apply(startsWith, script, ["file:"]));
function sitesOfUser(sites) {
  if (!isArray(sites)) return sites;
  const kept = [];
  let count = 0;
  let length = 0; // up to the last frame that has a script: builtins below it were called by the runner
  for (let i = 0; i < sites.length; i++) {
    const script = scriptOf(sites[i]);
    if (isOfRunner(script)) continue;
    hiddenDescriptor.enumerable = true;
    hidden(kept, count++, sites[i]);
    hiddenDescriptor.enumerable = false;
    if (typeof script === "string") length = count;
  }
  kept.length = length;
  return kept;
}
function wrapped(hook) {
  if (typeof hook !== "function" || hook === ownHook || apply(weakMapGet, stackHooks, [hook]) === true) return hook;
  const { prepareStackTrace } = {
    prepareStackTrace(error, sites) {
      return apply(hook, this, [error, sitesOfUser(sites)]);
    },
  };
  apply(weakMapSet, stackHooks, [prepareStackTrace, true]);
  return prepareStackTrace;
}
const stackHookProperty = {
  __proto__: null,
  get: { prepareStackTrace() { return stackHook; } }.prepareStackTrace,
  set: { prepareStackTrace(hook) { stackHook = wrapped(hook); } }.prepareStackTrace,
  enumerable: false,
  configurable: true,
};
defineProperty(NativeError, "prepareStackTrace", stackHookProperty);

const isErrorObject = (error) => {
  try {
    return isNativeError(error) || (typeof error === "object" && error !== null && error instanceof NativeError);
  } catch {
    return false;
  }
};
const guarded = (get) => {
  try {
    return get();
  } catch {
    return undefined;
  }
};

/** What V8 prints of a thrown value that is no error. */
function thrownText(thrown) {
  if (typeof thrown === "function") return guarded(() => apply(functionToString, thrown, [])) ?? "function";
  if (typeof thrown !== "object" || thrown === null) return NativeString(thrown);
  const toText = guarded(() => thrown.toString);
  if (toText === objectToString) {
    const name = guarded(() => thrown.constructor.name);
    return `#<${typeof name === "string" && name !== "" ? name : "Object"}>`;
  }
  return isArray(thrown) ? "[object Array]" : (guarded(() => apply(objectToString, thrown, [])) ?? "[object Object]");
}

function describe(error) {
  failureFrames = "";
  failureData = "";
  if (!isErrorObject(error)) {
    failureText = `Uncaught ${thrownText(error)}`;
    return;
  }
  guarded(() => error.stack); // formats the frames now, if nobody has yet
  failureFrames = apply(weakMapGet, frameTexts, [error]) ?? "";
  const text = (get) => {
    const found = guarded(get);
    return found === undefined || found === null ? "" : (guarded(() => NativeString(found)) ?? "");
  };
  const named = guarded(() => error.name);
  const name = named === undefined ? "Error" : text(() => named);
  const message = text(() => error.message);
  const symbol = guarded(() => error.ConvexErrorSymbol);
  if (typeof symbol === "symbol" && guarded(() => error[symbol]) === true) {
    const data = guarded(() => error.data);
    const readable = typeof data === "string" && guarded(() => (parseJson(data), true)) === true;
    if (!readable) {
      failureText = `ConvexError with invalid data: ${typeof data === "string" ? data : thrownText(data)}`;
      return;
    }
    failureData = data;
  }
  failureText = name && message ? `Uncaught ${name}: ${message}` : name || message ? `Uncaught ${name || message}` : "Uncaught";
}
function fail(error) {
  settled = 2;
  describe(error);
}
function failPlainly(message) {
  settled = 2;
  failureText = message;
  failureFrames = "";
  failureData = "";
}
function endBySystem(code, message) {
  if (settled !== 3) {
    settled = 3;
    ended = true;
    systemKind = code;
    failureText = message;
  }
  throw new NativeError(message);
}
