// One run of one function in one context: entries, deliveries, outcome.
//
// The host enters a context in three ways (start, deliver, timer). Each entry calls one function of the bridge and drains the context's
// microtasks; `after` then looks at what the entry left in the outbox. main.mjs puts at most one entry into a turn of the event loop, so that
// Node has reported unhandled rejections before `after` runs.
import { HTTP, SYSCALL } from "./frames.mjs";
import { clientClosed } from "./host_ops/http.mjs";
import { disposeCall, hostOp } from "./host_ops/index.mjs";
import { Streams } from "./host_ops/streams.mjs";
import { collectGarbage, memoryInUse } from "./memory.mjs";
import { LinkError } from "./modules.mjs";
import { Sample } from "./realm_samples.mjs";
import { RealmPool } from "./realms.mjs";

const CPU_LIMIT_US = 1_000_000;
const MAX_MESSAGE_BYTES = 65536;
const MEMORY_LIMIT_BYTES = 64 * 1024 * 1024; // of the heap, and once more of buffers (runtime.md 8.5)
const MAX_RESULT_UNITS = 60 * 1024 * 1024; // what a frame can carry; the limit of a value is Python's to check

const FIRST_HOST_SEQ = 0x80000000; // of syscalls that host operations make; those of scripts have smaller numbers

export const TIMEOUT_TEXT = "Function execution timed out (maximum duration: 1s)";
export const MEMORY_TEXT = "JavaScript execution ran out of memory (maximum memory usage: 64 MB)";

/** Bytes of a context-made ArrayBuffer, as a host Buffer (a copy). */
const copyOut = (inner) => Buffer.from(new Uint8Array(inner));
/**
 * Likewise without a copy, for bytes that only pass through: the bridge made the buffer and forgets it. Not a Buffer: making one would read a property
 * of the inner buffer, and user code may have replaced that.
 */
const passOut = (inner) => new Uint8Array(inner);

function cutToBytes(text, limit) {
  if (text.length * 3 <= limit) return text;
  const bytes = Buffer.from(text.length > limit ? text.slice(0, limit + 1) : text);
  if (bytes.length <= limit) return text;
  let end = limit;
  while (end > 0 && (bytes[end] & 0xc0) === 0x80) end--;
  return bytes.utf8Slice(0, end);
}

/** Message and frames as callers see them: a line for the message, one for each frame, a newline at the end (runtime.md 8.1). */
export function renderError(message, frames) {
  const text = cutToBytes(message, MAX_MESSAGE_BYTES);
  if (!text.startsWith("Uncaught") && frames === "") return text;
  return frames === "" ? `${text}\n` : `${text}\n${frames}\n`;
}

/** A number between host and context must be one. */
const int = (value) => {
  if (typeof value !== "number") throw new TypeError("The bridge gave no number");
  return value;
};
const string = (value) => {
  if (typeof value !== "string") throw new TypeError("The bridge gave no string");
  return value;
};

export class Run {
  #core;
  #bridge;
  #context;
  #isFresh = true; // the modules are to be evaluated
  #isRestarted = false; // in a checked realm that has served other runs
  #callState;
  #asked = new Map(); // syscalls of host operations, by seq: how their promises settle
  #answered = 0; // of these, how many are no longer there
  #timers = new Map();
  #next = null; // what the next entry does
  #inbox = []; // answers of host operations and timers that wait for an entry
  #operations = 0;
  #key = null; // of the contexts that this run may share with others
  #realm = null; // key of the checked realms that this run may use
  #sample = null; // what this run asks for and is answered, if it is to be run again
  #endedWell = false;

  /**
   * @param {object} core {modules, contexts, roots(), schedule(run), send(kind, call, seq, meta, body), finished(run)}
   * @param {number} call
   * @param {object} meta of the START frame
   * @param {string} args JSON text of the array of arguments
   * @param {Run | null} parent the run that called this one through 1.0/runUdf
   */
  constructor(core, call, meta, args, parent) {
    this.#core = core;
    this.call = call;
    this.meta = meta;
    this.args = args;
    this.parent = parent;
    this.root = parent === null ? this : parent.root;
    this.kind = meta.kind;
    this.isLive = meta.kind === "action" || meta.kind === "httpAction";
    this.cpuUs = 0;
    this.treeCpuUs = 0; // of the root: all runs of the tree
    this.heapBytes = 0; // of the root: by how much the entries of its tree have made the heap, and the buffers, grow
    this.bufferBytes = 0;
    this.done = false;
    this.rejected = false;
    this.queued = false; // main.mjs has it in its list of runs to enter
    this.children = new Set();
    this.#next = () => this.#start();
    if (meta.reuse === true && !this.isLive) {
      this.#key = JSON.stringify([meta.module, meta.component, meta.import_seed, meta.import_ms, meta.closure, meta.env]);
    }
    if (meta.realm === true && this.#key === null && !this.isLive) {
      const key = RealmPool.key(meta);
      if (core.contexts.realms.wants(key)) this.#realm = key;
    }
    parent?.children.add(this);
  }

  get bridge() {
    return this.#bridge;
  }

  /** Runs the pending entry. Called by main.mjs with the call announced; returns false when there was nothing to do. */
  enter() {
    if (this.done) return false;
    const work = this.#next ?? this.#inbox.shift() ?? null;
    this.#next = null;
    if (work === null) {
      if (!this.#bridge.isDeliverable()) return false;
    }
    if (this.#context === undefined) this.#takeContext(); // before the clock starts: making a context is not the user's time
    const memory = memoryInUse();
    const before = process.threadCpuUsage();
    try {
      if (work !== null) work();
      else {
        this.#bridge.deliver();
        this.#context.drain();
      }
    } catch (error) {
      // An error of the context can only be a stack overflow in the bridge itself; one of this realm is a defect of ours, and the call's
      // answer must not depend on it: the parent sees a dead child and decides.
      if (error instanceof Error) throw error;
      this.#finishWith("user", "Uncaught RangeError: Maximum call stack size exceeded\n");
    }
    const used = process.threadCpuUsage(before);
    const spent = used.user + used.system;
    this.cpuUs += spent;
    this.root.treeCpuUs += spent;
    this.root.#countMemory(memory);
    return true;
  }

  #countMemory(before) {
    const now = memoryInUse();
    // What a collection freed meanwhile may have been anybody's.
    this.heapBytes += Math.max(0, now.heap - before.heap);
    this.bufferBytes += Math.max(0, now.buffers - before.buffers);
  }

  /**
   * Whether the tree holds more than it may. What its entries added to the heap may be garbage by now, so what looks like too much is looked at again
   * after a collection: it is not more than what is left when the other calls have theirs.
   */
  #isOutOfMemory() {
    const { root } = this;
    if (root.heapBytes <= MEMORY_LIMIT_BYTES && root.bufferBytes <= MEMORY_LIMIT_BYTES) return false;
    const held = collectGarbage();
    for (const other of this.#core.roots()) {
      if (other === root) continue;
      held.heap -= other.heapBytes;
      held.buffers -= other.bufferBytes;
    }
    root.heapBytes = Math.max(0, Math.min(root.heapBytes, held.heap));
    root.bufferBytes = Math.max(0, Math.min(root.bufferBytes, held.buffers));
    return root.heapBytes > MEMORY_LIMIT_BYTES || root.bufferBytes > MEMORY_LIMIT_BYTES;
  }

  #takeContext() {
    const { contexts } = this.#core;
    if (this.#realm !== null) {
      this.#context = contexts.realms.take(this.#realm);
      this.#isRestarted = this.#context !== null;
      if (this.#isRestarted) {
        if (this.kind === "query" && this.parent === null && contexts.realms.samples()) this.#sample = new Sample(this.#core, this);
        return;
      }
    }
    const kept = this.#key === null ? null : contexts.takeKept(this.#key);
    this.#isFresh = kept === null;
    this.#context = kept ?? contexts.take();
    if (this.#realm !== null) this.#context.bridge.prepareRealm();
  }

  #start() {
    const { meta } = this;
    const { kind, parent } = this;
    const context = this.#context;
    const { bridge } = context;
    this.#bridge = bridge;
    this.nowMs = parent === null ? Number(meta.now_ms) : parent.nowMs;
    const seed = parent === null ? meta.seed : string(parent.bridge.drawSeed());
    const importMs = meta.import_ms ?? -1;
    bridge.begin(
      kind,
      "at import time",
      importMs,
      meta.import_seed ?? "",
      this.nowMs,
      seed,
      JSON.stringify(meta.env ?? {}),
      "run",
      JSON.stringify(meta.tables ?? {}),
      meta.snapshot ?? "null",
      kind === "mutation" && meta.ahead === true,
      JSON.stringify(meta.arguments ?? null),
    );
    if (this.#isFresh && !this.#importModules()) return;
    if (kind === "httpAction") {
      bridge.invokeHttp(meta.module, meta.route[0], meta.route[1], this.args);
    } else {
      const name = `${meta.module}:${meta.export}`;
      bridge.invoke(meta.module, meta.export, name, this.args, meta.request_id ?? "");
    }
    context.drain();
  }

  /** @returns {boolean} whether the function can be called; if not, the run has ended or `after` reports the error */
  #importModules() {
    if (this.#isRestarted) this.program = this.#context.program;
    else if (!this.#load(this.meta.module, this.meta.closure)) return false;
    const bridge = this.#bridge;
    this.#context.program = this.program;
    const state = int(bridge.importModules(this.program));
    this.#context.drain();
    if (state === 1 && bridge.importState() === 1) {
      this.#finishWith("user", "Top-level awaits in source files are unsupported");
      return false;
    }
    return int(bridge.importState()) !== 3;
  }

  #load(path, closure) {
    let plan;
    try {
      plan = this.#core.modules.plan(path, closure, (one) => this.#bridge.isEvaluated(one) === true);
    } catch (error) {
      if (!(error instanceof LinkError) && !(error instanceof SyntaxError)) throw error;
      const text = error instanceof LinkError ? error.message : `Uncaught SyntaxError: ${error.message}`;
      this.#finishWith("user", text.startsWith("Uncaught") ? `${text}\n` : text);
      return false;
    }
    this.#addPlan(plan);
    return true;
  }

  #addPlan(plan) {
    this.#bridge.resetFactories();
    for (const { name, map, script } of plan.modules) {
      if (map !== null) this.#bridge.addMap(name, map.table, map.sources);
      this.#bridge.addFactory(this.#context.run(script));
    }
    this.program = this.#context.run(plan.program);
  }

  /** Called in a later turn than the entry: what it did. */
  after() {
    if (this.done) return;
    const bridge = this.#bridge;
    if (this.root.treeCpuUs > CPU_LIMIT_US && !this.isLive) {
      this.#finishWith("system", TIMEOUT_TEXT);
      return;
    }
    if (this.#isOutOfMemory()) {
      this.#finishWith("system", MEMORY_TEXT);
      return;
    }
    const settled = int(bridge.settled());
    if (settled === 3) {
      this.#finishWith(string(bridge.systemKind()), string(bridge.failure()));
      return;
    }
    if (settled === 2) {
      this.#endedWell = true; // as far as the context is concerned
      this.#finishWith("user", renderError(string(bridge.failure()), string(bridge.frames())), string(bridge.data()));
      return;
    }
    if (this.isLive) {
      if (this.kind === "httpAction") this.#sendHttp();
      this.#sendLines();
    }
    if (settled === 1 && (this.isLive || !bridge.hasQueue())) {
      this.#endedWell = true;
      this.#succeed();
      return;
    }
    this.#sendSyscalls();
    this.#startOperations();
    this.#startTimers();
    this.#startImports();
    if (this.#inbox.length > 0 || bridge.isDeliverable() === true) {
      this.#core.schedule(this);
    } else if (bridge.isWaiting() !== true && this.#operations === 0) {
      this.#finishWith("user", "Returned promise will never resolve");
    }
  }

  #sendSyscalls() {
    const bridge = this.#bridge;
    for (;;) {
      const op = string(bridge.nextSyscall());
      if (op === "") return;
      const consumed = string(bridge.consumed());
      const stream = int(bridge.syscallStream());
      const meta =
        `{"op":${JSON.stringify(op)}` +
        `${consumed === "" ? "" : `,"consumed":${consumed}`}${stream >= 0 ? `,"queryId":${stream}` : stream === -2 ? ',"answered":true' : ""}}`;
      const seq = int(bridge.syscallSeq());
      const args = string(bridge.syscallArgs());
      this.#sample?.asked(seq, op, args);
      // What is answered already is in no hurry: it travels with what comes next.
      this.#core.send(4, this.call, seq, meta, args, stream === -2);
    }
  }

  #lines() {
    let text = "";
    for (;;) {
      const line = string(this.#bridge.nextLine());
      if (line === "") return text;
      text += text === "" ? line : `,${line}`;
    }
  }

  #sendLines() {
    const lines = this.#lines();
    if (lines !== "") this.#core.send(7, this.call, 0, `{"lines":[${lines}]}`, "");
  }

  /** What the host operations of this run share. */
  #state() {
    if (this.#callState === undefined) {
      const streams = new Streams((kind, stream, meta, body) => {
        if (!this.done) this.#core.send(kind, this.call, stream, meta, body);
      });
      const syscall = (op, args) =>
        new Promise((resolve, reject) => {
          const seq = FIRST_HOST_SEQ + this.#asked.size + this.#answered;
          this.#asked.set(seq, { resolve, reject });
          if (!this.done) this.#core.send(SYSCALL, this.call, seq, JSON.stringify({ op }), args);
        });
      this.#callState = { kind: this.kind, keys: this.#context?.keys, streams, syscall };
    }
    return this.#callState;
  }

  /** A frame of kind DATA, WINDOW or HTTP. */
  streamFrame(kind, stream, meta, body) {
    if (this.done || !this.isLive) return;
    if (kind !== HTTP) this.#state().streams.receive(kind, stream, meta, body);
    else if (meta.closed === true) clientClosed(this.#state());
  }

  /** What an HTTP action has to tell the client: its route, then the head of its response. */
  #sendHttp() {
    const bridge = this.#bridge;
    const route = string(bridge.takeHttpRoute());
    if (route !== "") this.#core.send(HTTP, this.call, 0, JSON.stringify({ route }), "");
    const head = string(bridge.takeHttpHead());
    if (head !== "") this.#core.send(HTTP, this.call, 0, "", head);
  }

  #startOperations() {
    const bridge = this.#bridge;
    for (;;) {
      const name = string(bridge.nextOperation());
      if (name === "") return;
      const state = this.#state();
      const id = int(bridge.operationId());
      const json = string(bridge.operationJson());
      const buffers = [];
      const count = int(bridge.operationBuffers());
      const take = name.endsWith(".write") ? passOut : copyOut;
      for (let i = 0; i < count; i++) buffers.push(take(bridge.operationBuffer(i)));
      this.#operations++;
      const answer = (result, error) => {
        this.#operations--;
        if (this.done) return;
        if (error === undefined) {
          for (const bytes of result.buffers ?? []) {
            const view = bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes);
            new Uint8Array(bridge.makeBuffer(view.byteLength)).set(view);
            this.root.bufferBytes += view.byteLength; // made between entries, and the run's all the same
          }
          bridge.answerOperation(id, String(result.json ?? ""), "", "");
        } else {
          const message = error instanceof Error ? error.message : String(error);
          bridge.answerOperation(id, "", message === "" ? "Operation failed" : message, String(error?.errorName ?? ""));
        }
        if (bridge.isDeliverable() === true) this.#core.schedule(this);
      };
      let promise;
      try {
        promise = Promise.resolve(hostOp(name, json, buffers, state));
      } catch (error) {
        promise = Promise.reject(error);
      }
      promise.then(
        (result) => answer(result),
        (error) => answer(null, error),
      );
    }
  }

  #startTimers() {
    const bridge = this.#bridge;
    for (;;) {
      const id = int(bridge.nextTimer());
      if (id === 0) return;
      const handle = setTimeout(() => {
        this.#timers.delete(id);
        if (this.done) return;
        this.#inbox.push(() => {
          bridge.fireTimer(id);
          this.#context.drain();
        });
        this.#core.schedule(this);
      }, int(bridge.timerWait()));
      this.#timers.set(id, handle);
    }
  }

  #startImports() {
    const bridge = this.#bridge;
    for (;;) {
      const specifier = string(bridge.nextImport());
      if (specifier === "") return;
      const id = int(bridge.importId());
      const from = string(bridge.importFrom());
      this.#inbox.push(() => {
        try {
          const path = this.#core.resolve(specifier, from, (one) => Object.hasOwn(this.meta.closure, one));
          const plan = this.#core.modules.plan(path, this.meta.closure, (one) => bridge.isEvaluated(one) === true);
          this.#addPlan(plan);
          bridge.finishImport(id, path, this.program);
        } catch (error) {
          bridge.failImport(id, error instanceof Error ? error.message : String(error));
        }
        this.#context.drain();
      });
    }
  }

  /** A SYSRESULT frame. */
  answer(seq, meta, body) {
    if (this.done) return;
    if (seq >= FIRST_HOST_SEQ) {
      const { resolve, reject } = this.#asked.get(seq);
      this.#asked.delete(seq);
      this.#answered++;
      if (meta.error === undefined) resolve(body);
      else reject(new Error(meta.error.message));
      return;
    }
    this.#sample?.answered(seq, meta, body);
    const bridge = this.#bridge;
    if (meta.tables !== undefined) bridge.setTables(JSON.stringify(meta.tables));
    if (meta.error !== undefined) {
      if (meta.fatal === true || meta.error.fatal === true) {
        this.#finishWith("fatal", meta.error.message);
        return;
      }
      bridge.answerError(seq, meta.error.message, body);
    } else if (meta.rows !== undefined) {
      bridge.answerPage(seq, body, meta.rows, meta.done === true, meta.left?.docs ?? Infinity, meta.left?.bytes ?? Infinity);
    } else if (meta.ahead !== undefined) {
      const [text, ...others] = body.split("\n");
      if (bridge.answerGet(seq, text, meta.left.docs, meta.left.bytes) === true) {
        for (let i = 0; i < others.length; i++) bridge.addDocument(meta.ahead[i][0], meta.ahead[i][1], others[i]);
      }
    } else {
      bridge.answer(seq, body);
    }
    if (bridge.isDeliverable() === true) this.#core.schedule(this);
  }

  /** An unhandled rejection that Node reported after this run's entry. `reason` is a value of the context. */
  unhandled(reason) {
    if (!this.done && this.#bridge !== undefined) this.#bridge.reject(reason);
  }

  #warnUnawaited() {
    const names = string(this.#bridge.unawaited());
    if (names === "") return;
    const list = names.split(",");
    const text =
      `${list.length} unawaited operation${list.length === 1 ? "" : "s"}: [${list.join(", ")}]. Async operations should be awaited or they might not run. ` +
      "See https://docs.convex.dev/functions/actions#dangling-promises for more information.";
    const line = JSON.stringify({ messages: [text], level: "WARN", timestamp: Date.now(), code: "warning:UnawaitedOperations" });
    this.#core.send(7, this.call, 0, `{"lines":[${line}]}`, "");
  }

  #succeed() {
    const value = string(this.#bridge.value());
    if (value.length > MAX_RESULT_UNITS) {
      this.#finishWith("system", MEMORY_TEXT);
      return;
    }
    if (this.isLive) this.#warnUnawaited();
    this.#report(`"ok":true`, value);
  }

  #finishWith(kind, message, data = "") {
    if (this.isLive && kind === "user" && this.#bridge !== undefined) this.#warnUnawaited();
    this.#report(`"ok":false,"error":${JSON.stringify({ message, kind })}`, data);
  }

  #report(head, body) {
    const bridge = this.#bridge;
    const lines = bridge === undefined ? "" : this.#lines();
    if (this.isLive && lines !== "") this.#core.send(7, this.call, 0, `{"lines":[${lines}]}`, "");
    const consumed = bridge === undefined ? "" : string(bridge.consumed());
    const flags = bridge === undefined ? 0 : int(bridge.observed());
    const names = bridge === undefined ? "[]" : string(bridge.readNames());
    this.parent?.bridge?.observe(flags, names);
    const meta =
      `{${head},${consumed === "" ? "" : `"consumed":${consumed},`}"observed":{"time":${(flags & 1) !== 0},"random":${(flags & 2) !== 0},` +
      `"import_time":${(flags & 4) !== 0},"import_random":${(flags & 8) !== 0},"snapshot":${(flags & 16) !== 0},"env":${names}},` +
      `"cpu_us":${this.cpuUs},${this.#leaveRealm()}"logs":[${this.isLive ? "" : lines}]}`;
    this.#core.send(6, this.call, 0, meta, body);
    this.drop();
    if (this.#endedWell) this.#sample?.ended(meta, body, (text) => this.#core.contexts.realms.switchOff(text));
  }

  /** Gives a checked realm back. @returns {string} what RESULT says of it */
  #leaveRealm() {
    const { realms } = this.#core.contexts;
    const mismatch = this.meta.realm === true ? realms.takeMismatch() : null;
    if (mismatch !== null) return `"realm":{"mismatch":${JSON.stringify(mismatch)}},`;
    const key = this.#realm;
    if (key === null || this.#context === undefined) return "";
    let discard = "ended_badly";
    if (this.#endedWell && this.#bridge?.isReusable() === true) {
      discard = realms.keep(key, Object.values(this.meta.closure), this.#context, this.heapBytes + this.bufferBytes);
    }
    return `"realm":{"reused":${this.#isRestarted},"discard":${JSON.stringify(discard)},"fresh_only":${realms.isFreshOnly(key)}},`;
  }

  /** Ends the run without a report; its nested runs too. */
  drop() {
    if (this.done) return;
    this.done = true;
    const bridge = this.#bridge;
    if (bridge !== undefined) {
      const reusable = this.#key !== null && this.#endedWell && bridge.isReusable() === true;
      bridge.stop();
      if (reusable) this.#core.contexts.keep(this.#key, Object.values(this.meta.closure), this.#context);
    }
    for (const handle of this.#timers.values()) clearTimeout(handle);
    this.#timers.clear();
    this.#inbox.length = 0;
    if (this.#callState !== undefined) disposeCall(this.#callState);
    for (const child of this.children) child.drop();
    this.parent?.children.delete(this);
    this.#core.finished(this);
  }
}
