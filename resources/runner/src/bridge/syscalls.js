// Convex.syscall and Convex.asyncSyscall: the queue, its batches, and rows that Python sent ahead (runtime.md 2, docs/internals.md section 8).

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
let streams = new NativeMap(); // query id -> stream
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
const notice = (op, args, id) => ({ __proto__: null, op, args, seq: 0, notice: true, stream: id, taken: false, nextUnsent: null });
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
      text: "", error: "", data: "", row: null, stream: null, epoch, otherReads, notice: false,
      next: null, previous: null, nextUnsent: null,
    };
    append(node);
    if (op === NEXT && !isLive()) {
      getsLeft = 0;
      otherReads++;
      queueNext(node);
      return;
    }
    const here = answersAhead && answerHere(node);
    if (readOps[op] !== true) epoch++;
    if (!here) toSend(node);
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
  // What the table's name means now is part of what the run depends on: a variable's name has no colon.
  readNames[`table:${table}`] = true;
  tables ??= parseJson(tablesText, (key, found) => (key === "" ? { __proto__: null, ...found } : found));
  const number = table === "_storage" ? 540 : table === "_scheduled_functions" ? 539 : table[0] === "_" ? undefined : tables[table];
  const id = number !== undefined && typeof idString === "string" && tableOfId(idString) === number ? idString : null;
  return `{"id":${id === null ? "null" : quote(id)}}`;
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
      observedTime = observedSnapshot = true;
      return snapshotText;
    case "1.0/componentArgument": {
      const given = parseJson(argumentsText, (key, found) => (key === "" && found !== null ? { __proto__: null, ...found } : found));
      if (given === null) throw new NativeError("Component arguments are not available within the app");
      const argument = given[args.name];
      return argument === undefined ? "{}" : `{"value":${quote(argument)}}`;
    }
    default:
      throw new NativeError(`Unknown operation ${op}`);
  }
}
