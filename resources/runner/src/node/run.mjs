// One run of one action in this process.
import { randomUUID } from "node:crypto";
import { LOG, RESULT, SYSCALL } from "../frames.mjs";
import { Streams } from "../host_ops/streams.mjs";
import { LineWriter } from "./console.mjs";
import { describeFailure, PlainFailure } from "./failures.mjs";
import { load } from "./modules.mjs";
import { within } from "./store.mjs";

const FIRST_HOST_SEQ = 0x80000000; // of syscalls that storage operations make; those of scripts have smaller numbers
const MAX_RESULT_BYTES = 5 * 1024 * 1024;
const TOO_LARGE =
  "Node actions return value size is too large. The maximum size is 5 MiB. Reduce the size of the return value or consider using Convex runtime actions " +
  "instead, which have a 16 MiB limit. See https://docs.convex.dev/functions/runtimes";

export class NodeRun {
  #process;
  #asked = new Map(); // seq -> how its promise settles
  #seq = 0;
  #hostSeq = FIRST_HOST_SEQ;

  done = false;
  requestId = randomUUID();
  pending = new Map(); // what the action has begun and was not answered -> its name
  stopwatches = new Map();

  /**
   * @param {{isBroken: boolean, ended: (run: NodeRun) => void,
   *   send: (kind: number, call: number, seq: number, meta: string, body: string | Uint8Array) => void}} process
   * @param {number} call
   * @param {{module: string, export: string}} meta of the START frame
   * @param {string} args JSON text of the array of arguments
   */
  constructor(process, call, meta, args) {
    this.#process = process;
    this.call = call;
    this.meta = meta;
    this.args = args;
    this.lines = new LineWriter((line) => this.#send(LOG, 0, `{"lines":[${line}]}`, ""));
    this.state = {
      kind: "action",
      streams: new Streams((kind, stream, text, body) => this.#send(kind, stream, text, body)),
      syscall: (op, text) => this.#ask(this.#hostSeq++, op, text),
    };
  }

  #send(kind, seq, meta, body) {
    if (!this.done) this.#process.send(kind, this.call, seq, meta, body);
  }

  async start() {
    // Says that it has begun: until then the parent would rather give further calls to another process.
    this.#send(LOG, 0, '{"lines":[]}', "");
    try {
      const namespace = await within(this, true, () => load(this.meta.module));
      const value = await within(this, false, () => this.#invoke(namespace));
      this.#succeed(value);
    } catch (error) {
      this.fail(error);
    }
  }

  async #invoke(namespace) {
    const { module, export: name } = this.meta;
    const exported = namespace[name];
    if (exported === undefined || exported === null) throw new PlainFailure(`Couldn't find action \`${name}\` in \`${module}\``);
    if (exported.isAction !== true || typeof exported.invokeAction !== "function") {
      throw new PlainFailure(`\`${name}\` wasn't registered as a Convex action in \`${module}\``);
    }
    return await exported.invokeAction(this.requestId, this.args);
  }

  /** An async syscall of the action. */
  syscall(op, args) {
    return this.operation(op, () => this.#ask(++this.#seq, op, args));
  }

  /** Something that the action should wait for. */
  async operation(name, work) {
    const key = {};
    this.pending.set(key, name);
    try {
      return await work();
    } finally {
      this.pending.delete(key);
    }
  }

  #ask(seq, op, args) {
    return new Promise((resolve, reject) => {
      this.#asked.set(seq, { resolve, reject });
      this.#send(SYSCALL, seq, JSON.stringify({ op }), args);
    });
  }

  /** A SYSRESULT frame. */
  answer(seq, meta, body) {
    const asked = this.#asked.get(seq);
    if (this.done || asked === undefined) return;
    this.#asked.delete(seq);
    if (meta.error === undefined) {
      asked.resolve(body);
      return;
    }
    const error = new Error(meta.error.message);
    if (body !== "") error.data = JSON.parse(body);
    asked.reject(error);
  }

  streamFrame(kind, stream, meta, body) {
    if (!this.done) this.state.streams.receive(kind, stream, meta, body);
  }

  #warnOutstanding() {
    const names = new Set(this.pending.values());
    for (const op of names) {
      const name = op.replace(/^1\.0\/(actions\/)?/, "");
      this.lines.warn(
        `You have an outstanding ${name} call. Operations should be awaited or they might not run. Not awaiting promises might result in unexpected ` +
          "failures. See https://docs.convex.dev/functions/actions#dangling-promises for more information.",
        "warning:UnawaitedOperations",
      );
    }
  }

  #succeed(value) {
    if (this.done) return;
    if (typeof value !== "string") {
      this.fail(new PlainFailure("The action's result is no JSON text: its convex package is of another version."));
      return;
    }
    if (Buffer.byteLength(value) > MAX_RESULT_BYTES) {
      this.fail(new PlainFailure(TOO_LARGE));
      return;
    }
    this.#end('"ok":true', value);
  }

  /**
   * @param {unknown} error
   * @param {string} [as] how it got away, in place of the error's name
   */
  fail(error, as) {
    if (this.done) return;
    const { message, data } = describeFailure(error, as);
    this.#end(`"ok":false,"error":${JSON.stringify({ message, kind: "user" })}`, data);
  }

  #end(head, body) {
    this.#warnOutstanding();
    this.#send(RESULT, 0, `{${head},"observed":{},"cpu_us":0,"logs":[]${this.#process.isBroken ? ',"retire":true' : ""}}`, body);
    this.drop();
  }

  /** Ends without a report: its code may go on, heard by nobody. */
  drop() {
    this.done = true;
    this.#asked.clear();
    this.#process.ended(this);
  }
}
