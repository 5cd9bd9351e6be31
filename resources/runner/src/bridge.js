(function bridge(hostContextGet, hostContextSet, groups, groupOf) {
  "use strict";
  // Compiled inside each context and run before any other code there. `host*` are the only host functions that exist in a context: they take and return
  // numbers, never leave this closure, and are called directly. Everything that user code could replace is captured here first, and
  // internal lists are linked nodes or null-prototype objects, so that patched prototypes see and change nothing.
  const { apply, construct, defineProperty, getPrototypeOf } = Reflect;
  const { create, freeze, preventExtensions } = Object;
  const objectToString = Object.prototype.toString;
  const functionToString = Function.prototype.toString;
  const NativePromise = Promise;
  const promiseReject = Promise.reject;
  const promiseResolve = Promise.resolve;
  const promiseThen = Promise.prototype.then;
  const NativeError = Error;
  const NativeTypeError = TypeError;
  const NativeRangeError = RangeError;
  const NativeString = String;
  const NativeNumber = Number;
  const { floor } = Math;
  const { isArray } = Array;
  const isNativeError = Error.isError;
  const parseJson = JSON.parse;
  const quote = JSON.stringify;
  const NativeDate = Date;
  const dateNow = Date.now;
  const NativeMap = Map;
  const mapGet = Map.prototype.get;
  const mapSet = Map.prototype.set;
  const mapDelete = Map.prototype.delete;
  const NativeWeakMap = WeakMap;
  const weakMapGet = WeakMap.prototype.get;
  const weakMapSet = WeakMap.prototype.set;
  const NativeUint8Array = Uint8Array;
  const NativeUint32Array = Uint32Array;
  const NativeArrayBuffer = ArrayBuffer;
  const arrayBufferSlice = ArrayBuffer.prototype.slice;
  const charCodeAt = String.prototype.charCodeAt;
  const indexOf = String.prototype.indexOf;
  const startsWith = String.prototype.startsWith;
  const endsWith = String.prototype.endsWith;
  const slice = String.prototype.slice;
  const regExpExec = RegExp.prototype.exec;
  const global = globalThis;

  const has = (text, part) => apply(indexOf, text, [part]) >= 0;
  const hidden = (target, name, value) => {
    defineProperty(target, name, { __proto__: null, value, writable: true, enumerable: false, configurable: true });
  };

  // A host function that runs out of stack throws an error of the host's realm: it must not get past here.
  const contextGet = () => {
    try {
      return hostContextGet();
    } catch {
      throw new NativeRangeError("Maximum call stack size exceeded");
    }
  };
  const contextSet = (id) => {
    try {
      hostContextSet(id >>> 0);
    } catch {
      throw new NativeRangeError("Maximum call stack size exceeded");
    }
  };

  // ------------------------------------------------------------------ state of the run

  let kind = "query";
  let phase = "import";
  let where = "at import time"; // what texts of refused things end with while phase is "import"
  let environment = null; // lazily parsed from environmentText
  let environmentText = "{}";
  let environmentRule = "run"; // "run" | "auth" | "refuse"
  let importMs = 0;
  let importSeed = "";
  let nowMs = 0;
  let seed = "";
  let startedMs = 0;
  let observedTime = false;
  let observedRandom = false;
  let importedTime = false;
  let importedRandom = false;
  let readNames = create(null);
  let ended = false; // fatal: nothing that user code still does counts
  let settled = 0; // 0 running, 1 value, 2 error, 3 system error
  let value = "";
  let failureText = "";
  let failureFrames = "";
  let failureData = "";
  let systemKind = "";
  let tables = null;
  let tablesText = "{}";

  const isLive = () => kind === "action" || kind === "httpAction";

  // ------------------------------------------------------------------ randomness: ChaCha12 keystream

  function makeGenerator(hex) {
    const state = new NativeUint32Array(16);
    const block = new NativeUint32Array(16);
    state[0] = 0x61707865; state[1] = 0x3320646e; state[2] = 0x79622d32; state[3] = 0x6b206574;
    const digit = (i) => {
      const code = apply(charCodeAt, hex, [i]);
      return code <= 57 ? code - 48 : (code | 32) - 87;
    };
    for (let word = 0; word < 8; word++) {
      let sum = 0;
      for (let byte = 3; byte >= 0; byte--) sum = (sum << 8) | (digit(word * 8 + byte * 2) << 4) | digit(word * 8 + byte * 2 + 1);
      state[4 + word] = sum;
    }
    let used = 16;
    function refill() {
      for (let i = 0; i < 16; i++) block[i] = state[i];
      const turn = (a, b, c, d) => {
        block[a] += block[b]; let x = block[d] ^ block[a]; block[d] = (x << 16) | (x >>> 16);
        block[c] += block[d]; x = block[b] ^ block[c]; block[b] = (x << 12) | (x >>> 20);
        block[a] += block[b]; x = block[d] ^ block[a]; block[d] = (x << 8) | (x >>> 24);
        block[c] += block[d]; x = block[b] ^ block[c]; block[b] = (x << 7) | (x >>> 25);
      };
      for (let round = 0; round < 6; round++) {
        turn(0, 4, 8, 12); turn(1, 5, 9, 13); turn(2, 6, 10, 14); turn(3, 7, 11, 15);
        turn(0, 5, 10, 15); turn(1, 6, 11, 12); turn(2, 7, 8, 13); turn(3, 4, 9, 14);
      }
      for (let i = 0; i < 16; i++) block[i] += state[i];
      if (++state[12] === 0) ++state[13];
      used = 0;
    }
    const next32 = () => {
      if (used === 16) refill();
      return block[used++];
    };
    return {
      __proto__: null,
      next32,
      float() {
        const low = next32();
        const high = next32();
        return (high * 2097152 + (low >>> 11)) * 1.1102230246251565e-16;
      },
    };
  }

  let importGenerator = null;
  let runGenerator = null;
  function generator() {
    if (phase === "import") {
      if (importSeed === "") throw new NativeError(`Math.random unsupported ${where}`);
      importedRandom = true;
      return (importGenerator ??= makeGenerator(importSeed));
    }
    observedRandom = true;
    return (runGenerator ??= makeGenerator(seed));
  }
  const random = () => generator().float();
  defineProperty(Math, "random", { __proto__: null, value: { random() { return random(); } }.random, writable: true, enumerable: false, configurable: true });

  // ------------------------------------------------------------------ time

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

  // ------------------------------------------------------------------ refusals

  const refusalInFunctions = (what) =>
    new NativeError(`Can't use ${what} in queries and mutations. Please consider using an action. See https://docs.convex.dev/functions/actions for more details.`);
  function refusal(what) {
    if (phase === "import") {
      if (what === "cryptographic randomness") return new NativeError(`Cannot use ${what} ${where}`);
      return new NativeError(`${what} unsupported ${where}`);
    }
    return isLive() ? null : refusalInFunctions(what);
  }

  /** Ends the run with `error`, whatever user code does with the exception that this throws. */
  function fatal(message) {
    const error = new NativeError(message);
    if (!ended) {
      ended = true;
      fail(error);
    }
    throw error;
  }

  // ------------------------------------------------------------------ stack traces

  const maps = new NativeMap(); // script name -> {table, sources}: see sourcemaps.mjs
  const frameTexts = new NativeWeakMap(); // error object -> text of its frames
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
      file: map.sources[at(base + 4)],
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
  hidden(NativeError, "prepareStackTrace", function prepareStackTrace(error, sites) {
    const text = framesOf(sites);
    if ((typeof error === "object" && error !== null) || typeof error === "function") apply(weakMapSet, frameTexts, [error, text]);
    return text;
  });

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

  // ------------------------------------------------------------------ syscalls

  // A queue of nodes in call order. Queries and mutations take batches from its head (runtime.md 2.4); actions take whatever is answered.
  let head = null;
  let tail = null;
  let unsent = null; // first node that the host has not taken yet
  let sent = null; // node that the host is looking at
  let nextSeq = 1;
  const nodes = new NativeMap(); // seq -> node
  let inFlight = 0;
  let epoch = 0; // counts writes: rows fetched ahead before one are stale after it
  let leftDocs = 0;
  let leftBytes = 0;
  const streams = new NativeMap(); // query id -> stream
  let nextStream = 0;
  let dirty = null; // streams with unreported rows

  const NEXT = "1.0/queryStreamNext";
  const GET = "1.0/get";
  const readOps = {
    __proto__: null,
    "1.0/get": true, "1.0/queryStreamNext": true, "1.0/queryPage": true, "1.0/count": true, "1.0/getUserIdentity": true,
    "1.0/storageGetUrl": true, "1.0/storageGetMetadata": true, "1.0/storageGet": true, "1.0/createFunctionHandle": true,
    "1.0/getFunctionMetadata": true, "1.0/getTransactionMetrics": true, "1.0/getDeploymentMetadata": true, "1.0/getRequestMetadata": true,
  };
  const batchClass = (op) => (op === GET || op === NEXT ? 1 : op === "1.0/storageGetUrl" ? 2 : 0);

  function append(node) {
    if (tail === null) head = node;
    else tail.next = node;
    node.previous = tail;
    tail = node;
  }
  function unlink(node) {
    if (node.previous === null) head = node.next;
    else node.previous.next = node.next;
    if (node.next === null) tail = node.previous;
    else node.next.previous = node.previous;
  }
  function toSend(node) {
    node.seq = nextSeq++;
    apply(mapSet, nodes, [node.seq, node]);
    if (unsent === null) unsent = node;
    else lastUnsent.nextUnsent = node;
    lastUnsent = node;
  }
  let lastUnsent = null;
  const notice = (op, args, id) => ({ __proto__: null, op, args, seq: 0, notice: true, stream: id, nextUnsent: null });
  function toNotify(node) {
    if (unsent === null) unsent = node;
    else lastUnsent.nextUnsent = node;
    lastUnsent = node;
  }

  function countConsumed(stream) {
    if (stream.consumed++ === 0) {
      stream.nextDirty = dirty;
      dirty = stream;
    }
  }

  function queueNext(node) {
    const parsed = guarded(() => parseJson(node.args));
    const id = typeof parsed === "object" && parsed !== null ? parsed.queryId : undefined;
    const stream = apply(mapGet, streams, [id]);
    node.stream = stream ?? null;
    if (stream === undefined) {
      node.state = 2;
      node.error = "in-progress query not found";
      return;
    }
    if (!stream.started) {
      stream.started = true;
      toNotify(notice("1.0/queryStream", stream.query, stream.id));
    } else if (stream.epoch === epoch && stream.pending === 0) {
      // Served from the page at hand; counted now so that the report of a later write includes it.
      if (stream.row !== null && leftDocs > 0 && leftBytes > 0) {
        node.row = stream.row;
        stream.row = stream.row.next;
        leftDocs--;
        leftBytes -= node.row.text.length;
        node.state = 1;
        countConsumed(stream);
        return;
      }
      if (stream.row === null && stream.done) {
        node.state = 1;
        if (!stream.over) {
          stream.over = true;
          countConsumed(stream);
        }
        return;
      }
    }
    stream.pending++;
    node.epoch = epoch;
    toSend(node);
  }

  const importTexts = (op) => {
    if (where !== "at import time") return `Syscall ${op} unsupported ${where}`;
    if (op === "1.0/runUdf" || apply(startsWith, op, ["1.0/actions/"])) return "Cannot call another function at import time";
    if (op === GET || op === NEXT || op === "1.0/queryPage" || op === "1.0/count" || op === "1.0/insert" || op === "1.0/shallowMerge" || op === "1.0/replace" || op === "1.0/remove") {
      return "Can't use database at import time";
    }
    return `Syscall ${op} unsupported at import time`;
  };

  function asyncSyscall(op, args) {
    op = NativeString(op);
    args = NativeString(args);
    if (phase === "import") return apply(promiseReject, NativePromise, [new NativeError(importTexts(op))]);
    return new NativePromise((resolve, reject) => {
      if (ended) return; // never settles: the run is over
      const node = {
        __proto__: null,
        op, args, resolve, reject,
        seq: 0, state: 0, // 0 waits for Python, 1 has its answer, 2 failed
        text: "", error: "", data: "", row: null, stream: null, epoch: 0, notice: false,
        next: null, previous: null, nextUnsent: null,
      };
      append(node);
      if (op === NEXT && !isLive()) {
        queueNext(node);
        return;
      }
      if (readOps[op] !== true) epoch++;
      toSend(node);
    });
  }

  /** Turns a page (rows joined by newlines) into a list; keeps only what its own request consumed if a write came after it. */
  function takePage(node, text, rows, done) {
    const stream = node.stream;
    stream.pending--;
    let first = null;
    let last = null;
    let at = 0;
    for (let i = 0; i < rows; i++) {
      let end = i === rows - 1 ? text.length : apply(indexOf, text, ["\n", at]);
      if (end < 0) end = text.length;
      const row = { __proto__: null, text: apply(slice, text, [at, end]), next: null };
      at = end + 1;
      if (last === null) first = row;
      else last.next = row;
      last = row;
    }
    node.state = 1;
    node.row = first;
    if (first !== null) {
      leftDocs--;
      leftBytes -= first.text.length;
    }
    // Several requests of one stream may be on their way (they were not answered from a page): each page goes on where the one before
    // ended, and only the last page's rest may be served ahead.
    stream.row = stream.pending === 0 && node.epoch === epoch && first !== null ? first.next : null;
    stream.done = done;
    stream.epoch = node.epoch;
    stream.over = first === null && done;
  }

  function isReady() {
    if (operations > 0 && !isLive()) return false;
    if (isLive()) {
      for (let node = head; node !== null; node = node.next) if (node.state !== 0) return true;
      return false;
    }
    if (head === null) return false;
    const group = batchClass(head.op);
    let count = 0;
    for (let node = head; node !== null && count < (group === 0 ? 1 : 16) && (count === 0 || batchClass(node.op) === group); node = node.next, count++) {
      if (node.state === 0) return false;
    }
    return true;
  }

  function settleNode(node) {
    unlink(node);
    if (node.seq !== 0) {
      apply(mapDelete, nodes, [node.seq]);
      if (node.op === "1.0/runUdf") pushLine(`{"nested":${node.seq}}`);
    }
    if (node.state === 2) {
      const error = new NativeError(node.error);
      if (node.data !== "") {
        const data = guarded(() => parseJson(node.data));
        defineProperty(error, "data", { __proto__: null, value: data, writable: true, enumerable: true, configurable: true });
      }
      node.reject(error);
    } else if (node.op === NEXT) {
      node.resolve(node.row === null ? '{"value":null,"done":true}' : `{"value":${node.row.text},"done":false}`);
    } else {
      node.resolve(node.text);
    }
  }

  function deliver() {
    if (isLive()) {
      for (let node = head; node !== null; ) {
        const { next } = node;
        if (node.state !== 0) settleNode(node);
        node = next;
      }
      return;
    }
    const group = batchClass(head.op);
    const limit = group === 0 ? 1 : 16;
    let node = head;
    for (let count = 0; node !== null && count < limit && (count === 0 || batchClass(node.op) === group); count++) {
      const { next } = node;
      settleNode(node);
      node = next;
    }
  }

  // Ids: decode of runtime.md 5.1, for normalizeId.
  const alphabet = "0123456789abcdefghjkmnpqrstvwxyz";
  function tableOfId(text) {
    if (text.length < 31 || text.length > 37) return 0;
    const size = floor((text.length * 5) / 8);
    const bytes = new NativeUint8Array(size);
    let bits = 0;
    let buffer = 0;
    let length = 0;
    for (let i = 0; i < text.length; i++) {
      const digit = apply(indexOf, alphabet, [text[i]]);
      if (digit < 0) return 0;
      buffer = ((buffer << 5) | digit) & 0xffff;
      bits += 5;
      if (bits >= 8) {
        bits -= 8;
        bytes[length++] = (buffer >>> bits) & 255;
      }
    }
    if ((buffer & ((1 << bits) - 1)) !== 0 || bits >= 5) return 0;
    let number = 0;
    let scale = 1;
    let used = 0;
    for (;;) {
      const byte = bytes[used++];
      number += (byte & 127) * scale;
      if ((byte & 128) === 0) {
        if (byte === 0 && used > 1) return 0;
        break;
      }
      scale *= 128;
      if (used === 5) return 0;
    }
    if (number === 0 || number > 4294967295 || length !== used + 18) return 0;
    let c0 = 0;
    let c1 = 0;
    for (let i = 0; i < used + 16; i++) {
      c0 = (c0 + bytes[i]) & 255;
      c1 = (c1 + c0) & 255;
    }
    return bytes[used + 16] === c0 && bytes[used + 17] === c1 ? number : 0;
  }

  const tableName = /^[A-Za-z_][A-Za-z0-9_]*$/;
  function normalizeId(args) {
    const { table, idString } = args;
    if (typeof table !== "string" || table.length > 64 || apply(regExpExec, tableName, [table]) === null) {
      throw new NativeError(`Invalid argument \`table\` for \`db.normalizeId\`: Invalid table name: ${quote(NativeString(table))}`);
    }
    tables ??= parseJson(tablesText, (key, found) => (key === "" ? { __proto__: null, ...found } : found));
    const number = table === "_storage" ? 540 : table === "_scheduled_functions" ? 539 : table[0] === "_" ? undefined : tables[table];
    const id = number !== undefined && typeof idString === "string" && tableOfId(idString) === number ? idString : null;
    return `{"id":${id === null ? "null" : quote(id)}}`;
  }

  function int64Json(ms) {
    // Little-endian bytes of ms * 10^6 ns, in base64: two 32-bit halves are enough for any date.
    const low = ms % 4294967296;
    const high = floor(ms / 4294967296);
    const lowProduct = low * 15625; // 10^6 = 15625 * 64; the factor 64 is applied by shifting
    const carry = floor(lowProduct / 4294967296);
    const words = [lowProduct % 4294967296, high * 15625 + carry];
    const bytes = new NativeUint8Array(9);
    let rest = words[0] * 64;
    for (let i = 0; i < 4; i++) {
      bytes[i] = rest % 256;
      rest = floor(rest / 256);
    }
    rest += words[1] * 64;
    for (let i = 4; i < 8; i++) {
      bytes[i] = rest % 256;
      rest = floor(rest / 256);
    }
    const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = "";
    for (let i = 0; i < 9; i += 3) {
      const triple = (bytes[i] << 16) | (bytes[i + 1] << 8) | bytes[i + 2];
      text += digits[triple >>> 18] + digits[(triple >>> 12) & 63] + digits[(triple >>> 6) & 63] + digits[triple & 63];
    }
    return `{"$integer":${quote(`${apply(slice, text, [0, 11])}=`)}}`;
  }

  const databaseOps = { __proto__: null, "1.0/queryStream": true, "1.0/queryCleanup": true, "1.0/db/normalizeId": true, "1.0/getSnapshotTs": true };

  function syscall(op, argsText) {
    op = NativeString(op);
    argsText = NativeString(argsText);
    if (op === "throwOcc") return endBySystem("occ", "OptimisticConcurrencyControlFailure");
    if (op === "throwOverloaded") return endBySystem("overloaded", "I'm a bit busy.");
    if (phase === "import") {
      if (where !== "at import time") throw new NativeError(`Syscall ${op} unsupported ${where}`);
      throw new NativeError(databaseOps[op] === true ? "Can't use database at import time" : `Syscall ${op} unsupported at import time`);
    }
    let args;
    try {
      args = parseJson(argsText);
    } catch (error) {
      throw new NativeError(`Received invalid json: ${error.message}`);
    }
    if (databaseOps[op] === true && isLive()) {
      throw new NativeError(
        "The Convex database object is being used outside of a Convex query or mutation. Did you mean to use `ctx.query` or `ctx.mutation` to access the database?",
      );
    }
    switch (op) {
      case "1.0/queryStream": {
        const id = nextStream++;
        const stream = {
          __proto__: null,
          id, query: argsText, started: false, row: null, done: false, over: false, epoch: -1, pending: 0, consumed: 0, nextDirty: null,
        };
        apply(mapSet, streams, [id, stream]);
        return `{"queryId":${id}}`;
      }
      case "1.0/queryCleanup": {
        const id = args.queryId;
        const stream = apply(mapGet, streams, [id]);
        if (stream === undefined) return "false";
        apply(mapDelete, streams, [id]);
        if (stream.started && !stream.over) toNotify(notice("1.0/queryCleanup", `{"queryId":${stream.id}}`, stream.id));
        return "true";
      }
      case "1.0/db/normalizeId":
        return normalizeId(args);
      case "1.0/getSnapshotTs":
        observedTime = true;
        return int64Json(nowMs);
      case "1.0/componentArgument":
        throw new NativeError("Component arguments are not available within the app");
      default:
        throw new NativeError(`Unknown operation ${op}`);
    }
  }

  // ------------------------------------------------------------------ host operations (crypto, fetch, bodies)

  let operations = 0; // not delivered yet
  let firstOperation = null;
  let lastOperation = null;
  let unsentOperation = null;
  let nextOperation = 1;
  let incoming = create(null); // buffers of the result that is being handed in
  let incomingCount = 0;

  function hostOp(name, json, buffers) {
    return new NativePromise((resolve, reject) => {
      if (ended) return;
      const operation = {
        __proto__: null,
        id: nextOperation++, name: NativeString(name), json: NativeString(json), count: 0, resolve, reject,
        buffers: create(null), state: 0, resultJson: "", resultBuffers: null, error: "", errorName: "", next: null, nextUnsent: null,
      };
      if (buffers !== undefined) {
        for (let i = 0; i < buffers.length; i++) operation.buffers[operation.count++] = apply(arrayBufferSlice, buffers[i], [0]);
      }
      if (lastOperation === null) firstOperation = operation;
      else lastOperation.next = operation;
      lastOperation = operation;
      operations++;
      if (unsentOperation === null) unsentOperation = operation;
      else lastUnsentOperation.nextUnsent = operation;
      lastUnsentOperation = operation;
    });
  }
  let lastUnsentOperation = null;

  function operationsReady() {
    if (isLive()) {
      for (let one = firstOperation; one !== null; one = one.next) if (one.state !== 0) return true;
      return false;
    }
    // Queries and mutations see results in the order of the calls, all of a turn together.
    if (firstOperation === null) return false;
    for (let one = firstOperation; one !== null; one = one.next) if (one.state === 0) return false;
    return true;
  }

  function deliverOperations() {
    let kept = null;
    let lastKept = null;
    for (let one = firstOperation; one !== null; ) {
      const { next } = one;
      one.next = null;
      if (one.state === 0) {
        if (lastKept === null) kept = one;
        else lastKept.next = one;
        lastKept = one;
      } else {
        operations--;
        if (one.state === 1) {
          one.resolve({ json: one.resultJson, buffers: one.resultBuffers });
        } else {
          const error = new NativeError(one.error);
          if (one.errorName !== "") hidden(error, "errorName", one.errorName);
          one.reject(error);
        }
      }
      one = next;
    }
    firstOperation = kept;
    lastOperation = lastKept;
  }

  // ------------------------------------------------------------------ timers

  const timers = new NativeMap();
  let timerCount = 0;
  let nextTimer = 1;
  let newTimers = null;
  let lastNewTimer = null;

  function addTimer(what, callback, delay, parameters, repeat) {
    const id = nextTimer++;
    const refused = refusal(what);
    if (refused !== null) {
      apply(promiseReject, NativePromise, [refused]); // nobody can handle it: it ends the run (runtime.md 6.1)
      return id;
    }
    let wait = NativeNumber(delay);
    if (!(wait >= 1)) wait = repeat ? 1 : 0;
    if (wait > 2147483647) wait = 1;
    const timer = { __proto__: null, id, callback, parameters, repeat, wait, context: contextGet(), next: null };
    apply(mapSet, timers, [id, timer]);
    timerCount++;
    announceTimer(timer);
    return id;
  }
  function announceTimer(timer) {
    const entry = { __proto__: null, id: timer.id, wait: timer.wait, next: null };
    if (newTimers === null) newTimers = entry;
    else lastNewTimer.next = entry;
    lastNewTimer = entry;
  }
  function clearTimer(id) {
    if (apply(mapDelete, timers, [NativeNumber(id)])) timerCount--;
  }
  const scheduler = (what, repeat) => (callback, delay, parameters) => {
    if (typeof callback !== "function") {
      return fatal(`Not implemented: string code for ${what}. Consider calling an action defined in Node.js instead (https://docs.convex.dev/functions/actions).`);
    }
    return addTimer(what, callback, delay, parameters, repeat);
  };
  const startTimeout = scheduler("setTimeout", false);
  const startInterval = scheduler("setInterval", true);
  hidden(global, "setTimeout", function setTimeout(callback, delay = 0, ...parameters) {
    return startTimeout(callback, delay, parameters);
  });
  hidden(global, "setInterval", function setInterval(callback, delay = 0, ...parameters) {
    return startInterval(callback, delay, parameters);
  });
  hidden(global, "clearTimeout", function clearTimeout(id) {
    clearTimer(id);
  });
  hidden(global, "clearInterval", function clearInterval(id) {
    clearTimer(id);
  });

  // ------------------------------------------------------------------ groups of lazy globals

  const loaded = create(null);
  function use(name) {
    const found = loaded[name];
    if (found !== undefined) return found;
    const make = groups[name];
    if (make === undefined) throw new NativeError(`There is no group of globals named ${name}`);
    return (loaded[name] = make(api, use));
  }

  const endCallbacks = { __proto__: null, count: 0 };
  const jsHandlers = create(null);
  const api = freeze({
    __proto__: null,
    get kind() {
      return kind;
    },
    get phase() {
      return phase;
    },
    hostOp,
    refusal,
    refuse(what) {
      const error = refusal(what);
      if (error !== null) throw error;
    },
    fatal,
    random(count) {
      const source = generator();
      const bytes = new NativeUint8Array(count);
      let word = 0;
      for (let i = 0; i < count; i++) {
        if ((i & 3) === 0) word = source.next32();
        bytes[i] = (word >>> ((i & 3) * 8)) & 255;
      }
      return bytes;
    },
    now: () => currentMs("Date"),
    performanceNow,
    timeOrigin: () => (importMs < 0 ? 0 : importMs),
    setTimer: (callback, ms) => addTimer("setTimeout", callback, ms, [], false),
    clearTimer,
    contextGet,
    contextSet,
    onEnd(callback) {
      endCallbacks[endCallbacks.count++] = callback;
    },
    defineJsSyscall(name, handler) {
      jsHandlers[name] = handler;
    },
  });

  for (const name in groupOf) {
    const group = groupOf[name];
    defineProperty(global, name, {
      __proto__: null,
      configurable: true,
      enumerable: false,
      get() {
        const made = use(group)[name];
        hidden(global, name, made);
        return made;
      },
      set(replacement) {
        hidden(global, name, replacement);
      },
    });
  }

  // ------------------------------------------------------------------ console

  const MAX_LINES = 256;
  const MAX_LINE_UNITS = 40000; // over the byte limit that Python applies (7.3), which needs the surplus to see that a line was cut
  let lines = null;
  let lastLine = null;
  let lineCount = 0;
  function pushLine(text) {
    const entry = { __proto__: null, text, next: null };
    if (lines === null) lines = entry;
    else lastLine.next = entry;
    lastLine = entry;
  }
  function writeLine(level, messages, count) {
    if (++lineCount > MAX_LINES + 1) return;
    let room = MAX_LINE_UNITS;
    let text = "";
    for (let i = 0; i < count && room > 0; i++) {
      const message = messages[i].length > room ? apply(slice, messages[i], [0, room]) : messages[i];
      room -= message.length + 1;
      text += i === 0 ? quote(message) : `,${quote(message)}`;
    }
    const at = isLive() && phase === "run" ? apply(dateNow, NativeDate, []) : phase === "run" ? nowMs : importMs < 0 ? 0 : importMs;
    pushLine(`{"messages":[${text}],"level":"${level}","timestamp":${at}}`);
  }
  function print(level, values, first) {
    const { inspect } = use("inspect");
    const messages = create(null);
    let count = 0;
    if (first !== undefined) messages[count++] = first;
    for (let i = 0; i < values.length; i++) messages[count++] = NativeString(inspect(values[i]));
    return [messages, count];
  }
  function say(level, values, first) {
    const printed = print(level, values, first);
    writeLine(level, printed[0], printed[1]);
  }
  const stopwatches = new NativeMap();
  const elapsed = (label) => {
    const started = apply(mapGet, stopwatches, [label]);
    return started === undefined ? undefined : `${label}: ${clockForConsole() - started}ms`;
  };
  const clockForConsole = () => (phase === "run" ? (isLive() ? apply(dateNow, NativeDate, []) : nowMs) : 0);
  const consoleObject = {
    debug(...values) {
      say("DEBUG", values);
    },
    error(...values) {
      say("ERROR", values);
    },
    info(...values) {
      say("INFO", values);
    },
    log(...values) {
      say("LOG", values);
    },
    warn(...values) {
      say("WARN", values);
    },
    trace(...values) {
      const printed = print("LOG", values);
      const holder = { __proto__: null };
      NativeError.captureStackTrace(holder, consoleObject.trace);
      const frames = guarded(() => holder.stack);
      printed[0][printed[1]] = `\n${typeof frames === "string" ? frames : ""}`;
      writeLine("LOG", printed[0], printed[1] + 1);
    },
    time(label = "default") {
      label = NativeString(label);
      if (apply(mapGet, stopwatches, [label]) !== undefined) writeLine("WARN", [`Timer '${label}' already exists`], 1);
      else apply(mapSet, stopwatches, [label, clockForConsole()]);
    },
    timeLog(label = "default", ...values) {
      label = NativeString(label);
      const text = elapsed(label);
      if (text === undefined) writeLine("WARN", [`Timer '${label}' does not exist`], 1);
      else say("INFO", values, text);
    },
    timeEnd(label = "default") {
      label = NativeString(label);
      const text = elapsed(label);
      if (text === undefined) writeLine("WARN", [`Timer '${label}' does not exist`], 1);
      else writeLine("INFO", [text], 1);
      apply(mapDelete, stopwatches, [label]);
    },
  };
  hidden(global, "console", consoleObject);

  // ------------------------------------------------------------------ process.env

  const environmentName = /^[A-Za-z_]+[A-Za-z0-9_]*$/;
  function readEnvironment(name) {
    if (name === "inspect") return () => "[process.env]";
    if (apply(regExpExec, environmentName, [name]) === null || name.length > 256) {
      throw new NativeError(
        `The environment variable name ${name} is invalid. Environment variable names must start with a letter or underscore, contain only letters, digits and underscores, and be at most 256 characters long.`,
      );
    }
    if (environmentRule === "refuse") throw new NativeError(`Environment variables unsupported ${where}`);
    readNames[name] = true;
    environment ??= { __proto__: null, ...parseJson(environmentText) };
    const found = environment[name];
    if (found === undefined && environmentRule === "auth") {
      throw new NativeError(`Environment variable ${name} is used in auth config file but its value was not set`);
    }
    return found;
  }
  hidden(global, "process", {
    env: new Proxy(
      {},
      {
        __proto__: null,
        get: (_target, name) => (typeof name === "symbol" ? undefined : readEnvironment(name)),
        has: (_target, name) => typeof name !== "symbol" && readEnvironment(name) !== undefined,
        getOwnPropertyDescriptor(_target, name) {
          const found = typeof name === "symbol" ? undefined : readEnvironment(name);
          return found === undefined ? undefined : { value: found, writable: true, enumerable: true, configurable: true };
        },
        set: () => false,
        defineProperty: () => false,
        deleteProperty: () => false,
      },
    ),
  });

  // ------------------------------------------------------------------ the rest of the global object

  function jsSyscall(name, args) {
    name = NativeString(name);
    if (jsHandlers[name] === undefined) {
      const group = groupOfJsSyscall[name];
      if (group !== undefined) jsHandlers[name] = use(group).jsSyscalls[name];
    }
    const handler = jsHandlers[name];
    if (typeof handler !== "function") return fatal(`Unknown JS syscall: ${name}`);
    if (phase === "import") throw new NativeError(`Syscall ${name} unsupported ${where}`);
    return handler(args);
  }
  const groupOfJsSyscall = create(null);
  hidden(global, "Convex", { syscall, asyncSyscall, jsSyscall });
  hidden(global, "self", global);

  hidden(
    global,
    "WeakRef",
    class WeakRef {
      #target;
      constructor(target) {
        if ((typeof target !== "object" || target === null) && typeof target !== "function" && typeof target !== "symbol") {
          throw new NativeTypeError("WeakRef: target must be an object");
        }
        this.#target = target;
      }
      deref() {
        return this.#target;
      }
      get [Symbol.toStringTag]() {
        return "WeakRef";
      }
    },
  );
  hidden(
    global,
    "FinalizationRegistry",
    class FinalizationRegistry {
      constructor(cleanup) {
        if (typeof cleanup !== "function") throw new NativeTypeError("FinalizationRegistry: cleanup must be callable");
      }
      register() {}
      unregister() {
        return false;
      }
      get [Symbol.toStringTag]() {
        return "FinalizationRegistry";
      }
    },
  );
  hidden(Atomics, "wait", { wait() { throw new NativeTypeError("Atomics.wait cannot be called in this context"); } }.wait);
  delete Atomics.waitAsync;

  // Asynchronous compilation would finish outside of every entry, at a time of its own: done synchronously behind a promise instead.
  const { Module: WasmModule, Instance: WasmInstance } = WebAssembly;
  const isModule = (candidate) => typeof candidate === "object" && candidate !== null && getPrototypeOf(candidate) === WasmModule.prototype;
  hidden(WebAssembly, "compile", { async compile(bytes) { return new WasmModule(bytes); } }.compile);
  hidden(
    WebAssembly,
    "instantiate",
    {
      async instantiate(source, imports) {
        if (isModule(source)) return new WasmInstance(source, imports);
        const module = new WasmModule(source);
        return { module, instance: new WasmInstance(module, imports) };
      },
    }.instantiate,
  );
  delete WebAssembly.compileStreaming;
  delete WebAssembly.instantiateStreaming;

  // ------------------------------------------------------------------ modules

  const modules = new NativeMap(); // path -> record
  const factories = create(null);
  let factoryCount = 0;
  let importing = 0; // 0 not begun, 1 pending, 2 done, 3 failed
  let pendingImports = null; // dynamic imports that the host has not taken
  let lastImport = null;
  const dynamicImports = new NativeMap(); // id -> import
  let nextImport = 1;
  let importsInFlight = 0;

  function record(path) {
    let found = apply(mapGet, modules, [path]);
    if (found === undefined) {
      let names = null;
      let namespace = null;
      found = {
        __proto__: null,
        thunks: null, // export name -> function that reads the local binding
        state: 0, // 0 not evaluated, 1 evaluated, 2 failed
        failure: undefined,
        register(thunks) {
          found.thunks = thunks;
        },
        /** All exports with their origins; given as a function because origins of a cycle do not exist yet. */
        resolve(make) {
          names = make;
        },
        find: (name) => (names === null ? undefined : names()[name]),
        namespace() {
          if (namespace === null) {
            namespace = create(null);
            const all = names();
            for (const name in all) defineProperty(namespace, name, { __proto__: null, get: all[name], enumerable: true, configurable: false });
            defineProperty(namespace, Symbol.toStringTag, { __proto__: null, value: "Module" });
            preventExtensions(namespace);
          }
          return namespace;
        },
        scope(getters) {
          const scope = create(null);
          for (const name in getters) defineProperty(scope, name, { __proto__: null, get: getters[name], enumerable: true });
          return scope;
        },
        dynamic(specifier) {
          const text = guarded(() => `${specifier}`);
          if (phase === "import" || !isLive() || text === undefined) {
            return apply(promiseReject, NativePromise, [new NativeTypeError("dynamic module import unsupported")]);
          }
          return new NativePromise((resolve, reject) => {
            const one = { __proto__: null, id: nextImport++, specifier: text, from: path, resolve, reject, next: null };
            if (pendingImports === null) pendingImports = one;
            else lastImport.next = one;
            lastImport = one;
            apply(mapSet, dynamicImports, [one.id, one]);
            importsInFlight++;
          });
        },
        meta() {
          throw new NativeTypeError("import.meta unsupported");
        },
      };
      apply(mapSet, modules, [path, found]);
    }
    return found;
  }

  /** Default exports without a name of their own are called "default". */
  const nameDefault = (exported, local) => {
    if (typeof exported === "function") {
      const own = guarded(() => Object.getOwnPropertyDescriptor(exported, "name"));
      if (own !== undefined && own.configurable && own.value === local) defineProperty(exported, "name", { __proto__: null, value: "default", configurable: true });
    }
    return exported;
  };

  async function finishImport(promise) {
    try {
      await promise;
      importing = 2;
    } catch (error) {
      importing = 3;
      fail(error);
    }
  }

  // ------------------------------------------------------------------ running

  const kindNames = { __proto__: null, query: "Query", mutation: "Mutation", action: "Action" };
  async function settle(promise, resultName) {
    try {
      const result = await promise;
      if (ended) return;
      if (typeof result !== "string") {
        failPlainly(`Function ${resultName} returned a result that is not text. Did you forget to wrap it with \`query\`, \`mutation\` or \`action\`?`);
        return;
      }
      value = result;
      settled = 1;
      if (head === null && operations === 0) runEndCallbacks();
    } catch (error) {
      if (!ended) fail(error);
    }
  }
  function runEndCallbacks() {
    for (let i = 0; i < endCallbacks.count; i++) guarded(endCallbacks[i]);
    endCallbacks.count = 0;
  }

  function mismatch(name, exported) {
    const is = (flag) => guarded(() => exported[flag]) === true;
    const registered = is("isQuery") ? "query" : is("isMutation") ? "mutation" : is("isAction") ? "action" : is("isHttp") ? "HTTP action" : null;
    if (kind === "action") {
      if (registered === null) return `Function ${name} is not an action. Did you forget to wrap it with \`action\`?`;
    } else if (registered === null || registered === "action" || registered === "HTTP action") {
      return `Function ${name} is neither a query or mutation. Did you forget to wrap it with \`query\` or \`mutation\`?`;
    }
    if (registered === kind) return null;
    return `Function ${name} is registered as a ${registered} but is being run as ${kind === "action" ? "an action" : `a ${kind}`}.`;
  }

  // What the host may call. Arguments and results are primitives, except where a function or buffer made in this context goes back into it.
  return freeze({
    __proto__: null,

    begin(newKind, newWhere, newImportMs, newImportSeed, newNowMs, newSeed, newEnvironment, newRule, newTables) {
      kind = newKind;
      where = newWhere;
      importMs = newImportMs;
      importSeed = newImportSeed;
      nowMs = newNowMs;
      seed = newSeed;
      environmentText = newEnvironment;
      environmentRule = newRule;
      tablesText = newTables;
    },
    setJsSyscallGroup(name, group) {
      groupOfJsSyscall[name] = group;
    },
    setTables(text) {
      tablesText = text;
      tables = null;
    },
    addMap(script, table, sources) {
      apply(mapSet, maps, [script, { __proto__: null, table, sources: parseJson(sources) }]);
    },
    addFactory(factory) {
      factories[factoryCount++] = factory;
    },

    /** Evaluates modules through a program of modules.mjs. 2: done, 1: waits for a promise, 3: failed. */
    importModules(program) {
      contextSet(0);
      importing = 1;
      try {
        const promise = program(record, factories, nameDefault);
        if (promise === undefined) importing = 2;
        else finishImport(promise);
      } catch (error) {
        importing = 3;
        fail(error);
      }
      return importing;
    },
    importState: () => importing,

    invoke(path, exportName, displayName, argsText, requestId) {
      contextSet(0);
      phase = "run";
      startedMs = apply(dateNow, NativeDate, []);
      try {
        const read = record(path).find(exportName);
        if (read === undefined) {
          failPlainly(`Couldn't find ${quote(exportName)} in module ${quote(path)}.`);
          return;
        }
        const exported = read();
        if ((typeof exported !== "object" && typeof exported !== "function") || exported === null) {
          failPlainly(mismatch(displayName, create(null)));
          return;
        }
        const wrong = mismatch(displayName, exported);
        if (wrong !== null) {
          failPlainly(wrong);
          return;
        }
        const promise = kind === "action" ? exported.invokeAction(requestId, argsText) : exported[`invoke${kindNames[kind]}`](argsText);
        settle(promise, displayName);
      } catch (error) {
        if (!ended) fail(error);
      }
    },

    // Outbox. The host asks for one thing at a time; an empty name means that there is no more.
    nextSyscall() {
      const node = unsent;
      if (node === null || ended) return "";
      if (isLive() && !node.notice && inFlight >= 8) return "";
      unsent = node.nextUnsent;
      node.nextUnsent = null;
      if (!node.notice) inFlight++;
      sent = node;
      return node.op;
    },
    syscallArgs: () => sent.args,
    syscallSeq: () => sent.seq,
    syscallStream: () => (sent.notice ? sent.stream : -1),
    /** JSON of rows served without asking since the last report, or "". */
    consumed() {
      let text = "";
      while (dirty !== null) {
        const stream = dirty;
        dirty = stream.nextDirty;
        stream.nextDirty = null;
        text += `${text === "" ? "{" : ","}"${stream.id}":${stream.consumed}`;
        stream.consumed = 0;
      }
      return text === "" ? "" : `${text}}`;
    },
    nextLine() {
      if (lines === null) return "";
      const { text } = lines;
      lines = lines.next;
      return text;
    },
    nextTimer() {
      if (newTimers === null) return 0;
      return newTimers.id;
    },
    timerWait() {
      const { wait } = newTimers;
      newTimers = newTimers.next;
      return wait;
    },
    nextOperation() {
      if (unsentOperation === null || ended) return "";
      sent = unsentOperation;
      unsentOperation = sent.nextUnsent;
      return sent.name;
    },
    operationId: () => sent.id,
    operationJson: () => sent.json,
    operationBuffers: () => sent.count,
    operationBuffer: (i) => sent.buffers[i],
    nextImport() {
      if (pendingImports === null || ended) return "";
      sent = pendingImports;
      pendingImports = sent.next;
      return sent.specifier;
    },
    importId: () => sent.id,
    importFrom: () => sent.from,

    // Inbox.
    answer(seq, text) {
      const node = apply(mapGet, nodes, [seq]);
      if (node === undefined || node.state !== 0) return;
      inFlight--;
      node.state = 1;
      node.text = text;
    },
    answerPage(seq, text, rows, done, docs, bytes) {
      const node = apply(mapGet, nodes, [seq]);
      if (node === undefined || node.state !== 0) return;
      inFlight--;
      leftDocs = docs;
      leftBytes = bytes;
      takePage(node, text, rows, done);
    },
    answerError(seq, message, data) {
      const node = apply(mapGet, nodes, [seq]);
      if (node === undefined || node.state !== 0) return;
      inFlight--;
      if (node.stream !== null) {
        node.stream.pending--;
        node.stream.row = null;
        node.stream.done = false;
      }
      node.state = 2;
      node.error = message;
      node.data = data;
    },
    isDeliverable: () => !ended && (operationsReady() || isReady()),
    deliver() {
      contextSet(0);
      // One or the other: answers that happen to be here together must not be seen closer together than answers that are not.
      if (operationsReady()) deliverOperations();
      else if (isReady()) deliver();
    },
    makeBuffer(size) {
      return (incoming[incomingCount++] = new NativeArrayBuffer(size));
    },
    answerOperation(id, json, error, errorName) {
      let one = firstOperation;
      while (one !== null && one.id !== id) one = one.next;
      const buffers = [];
      for (let i = 0; i < incomingCount; i++) {
        defineProperty(buffers, i, { __proto__: null, value: incoming[i], writable: true, enumerable: true, configurable: true });
      }
      incoming = create(null);
      incomingCount = 0;
      if (one === null || one.state !== 0) return;
      one.resultJson = json;
      one.resultBuffers = buffers;
      one.error = error;
      one.errorName = errorName;
      one.state = error === "" ? 1 : 2;
    },
    fireTimer(id) {
      const timer = apply(mapGet, timers, [id]);
      if (timer === undefined || ended) return;
      contextSet(timer.context);
      if (timer.repeat) {
        announceTimer(timer);
      } else {
        apply(mapDelete, timers, [id]);
        timerCount--;
      }
      try {
        apply(timer.callback, undefined, timer.parameters);
      } catch (error) {
        if (!ended && settled === 0) {
          ended = true;
          fail(error);
        }
      }
    },
    /** A dynamic import: evaluate `program`, then give the namespace of `path`. */
    finishImport(id, path, program) {
      const one = apply(mapGet, dynamicImports, [id]);
      if (one === undefined) return;
      apply(mapDelete, dynamicImports, [id]);
      importsInFlight--;
      contextSet(0);
      const resolve = async () => {
        try {
          await program(record, factories, nameDefault);
          one.resolve(record(path).namespace());
        } catch (error) {
          const kept = [settled, failureText, failureFrames, failureData];
          describe(error);
          const text = `${failureText}\n${failureFrames}${failureFrames === "" ? "" : "\n"}`;
          failureText = kept[1];
          failureFrames = kept[2];
          failureData = kept[3];
          one.reject(new NativeError(text));
        }
      };
      resolve();
    },
    failImport(id, message) {
      const one = apply(mapGet, dynamicImports, [id]);
      if (one === undefined) return;
      apply(mapDelete, dynamicImports, [id]);
      importsInFlight--;
      one.reject(new NativeError(message));
    },
    isEvaluated: (path) => {
      const found = apply(mapGet, modules, [path]);
      return found !== undefined && found.thunks !== null;
    },
    resetFactories() {
      factoryCount = 0;
    },

    // Outcome.
    /** 0 running, 1 value, 2 error, 3 ended by the system. */
    settled: () => settled,
    hasQueue: () => head !== null || operations > 0,
    isWaiting: () => head !== null || operations > 0 || importsInFlight > 0 || (timerCount > 0 && settled === 0),
    endCallbacks: runEndCallbacks,
    value: () => value,
    failure: () => failureText,
    frames: () => failureFrames,
    data: () => failureData,
    systemKind: () => systemKind,
    reject(reason) {
      if (ended || settled === 2) return;
      ended = true;
      fail(reason);
    },
    stop() {
      ended = true;
    },
    /** Names of operations that an action has not waited for, comma separated; "" if none. */
    unawaited() {
      let text = "";
      const add = (name) => {
        text += text === "" ? name : `,${name}`;
      };
      for (let one = firstOperation; one !== null; one = one.next) if (apply(startsWith, one.name, ["fetch"])) add("fetch");
      for (let node = head; node !== null; node = node.next) {
        const from = apply(startsWith, node.op, ["1.0/actions/"]) ? 12 : apply(startsWith, node.op, ["1.0/"]) ? 4 : 0;
        add(apply(slice, node.op, [from]));
      }
      return text;
    },
    observed: () => (observedTime ? 1 : 0) | (observedRandom ? 2 : 0) | (importedTime ? 4 : 0) | (importedRandom ? 8 : 0),
    /** What a nested run observed counts for this one. */
    observe(flags, names) {
      const list = parseJson(names);
      for (let i = 0; i < list.length; i++) readNames[list[i]] = true;
      if (flags & 1) observedTime = true;
      if (flags & 2) observedRandom = true;
      if (flags & 4) importedTime = true;
      if (flags & 8) importedRandom = true;
    },
    /** JSON array of the names of environment variables read so far. */
    readNames() {
      let text = "";
      for (const name in readNames) text += `${text === "" ? "" : ","}${quote(name)}`;
      return `[${text}]`;
    },
    /** 32 bytes in hex for a nested call, drawn from this run's generator. */
    drawSeed() {
      runGenerator ??= makeGenerator(seed);
      let text = "";
      for (let i = 0; i < 8; i++) {
        const word = runGenerator.next32();
        for (let shift = 0; shift < 32; shift += 4) text += "0123456789abcdef"[(word >>> (shift ^ 4)) & 15];
      }
      return text;
    },
    /** For analyze.mjs: calls the program of analysis.js, made in this context. Text of JSON, or "" when it failed (see `settled`). */
    analyze(what, path, program) {
      phase = "import";
      try {
        const functionText = (callable) => apply(functionToString, callable, []);
        return program(record(path), { __proto__: null, parseJson, quote, functionText }, what, path);
      } catch (error) {
        fail(error);
        return "";
      }
    },
  });
})
