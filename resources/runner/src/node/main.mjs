// The child that runs "use node" actions of one deployment: frames on fd 3 (docs/internals.md §7), many actions at once, everything of Node.
//
// What an action may break is the process, so a run that calls process.exit, or whose exception nobody catches, ends alone; the process takes no further
// calls and goes when its other runs have ended.
import { writeSync } from "node:fs";
import { Socket } from "node:net";
import * as frames from "../frames.mjs";
import { analyseModule } from "./analysis.mjs";
import { installConsole } from "./console.mjs";
import { installConvex } from "./convex_global.mjs";
import { prepare } from "./modules.mjs";
import { NodeRun } from "./run.mjs";
import { installStackHook } from "./stacks.mjs";
import { current } from "./store.mjs";

const ANNOUNCE_FD = 4;
const BEAT_MS = 100;
const exitNow = process.reallyExit.bind(process);

class Exited extends Error {}

class ActionProcess {
  #socket;
  #runs = new Map();
  #out = [];
  #flushing = false;
  #entries = 0n;
  isBroken = false; // an exception was caught by nobody, after its run had ended: the next run that ends is the last one but for those beside it
  #analyses = Promise.resolve();
  #beat = null; // timer that shows that the event loop goes round, while something runs

  constructor(socket) {
    this.#socket = socket;
    this.#socket.write(
      frames.encodeFrame(frames.HELLO, 0, 0, JSON.stringify({ protocol: frames.PROTOCOL_VERSION, node: process.version, pid: process.pid }), ""),
    );
  }

  receive = (kind, call, seq, meta, body) => {
    switch (kind) {
      case frames.START: {
        prepare(meta.directory, meta.env);
        const run = new NodeRun(this, call, meta, body);
        this.#runs.set(call, run);
        this.#beat ??= setInterval(() => this.#announce(0), BEAT_MS);
        void run.start();
        break;
      }
      case frames.SYSRESULT:
        this.#runs.get(call)?.answer(seq, meta, body);
        break;
      case frames.DATA:
      case frames.WINDOW:
        this.#runs.get(call)?.streamFrame(kind, seq, meta, body);
        break;
      case frames.CANCEL:
        this.#runs.get(call)?.drop();
        break;
      case frames.ANALYZE:
        this.#analyses = this.#analyses.then(() => this.#analyse(call, meta, JSON.parse(body)));
        break;
      default:
        throw new Error(`Unexpected frame kind ${kind}`);
    }
  };

  async #analyse(call, meta, { directory }) {
    prepare(directory, meta.env);
    this.#announce(call);
    const { result, ...answer } = await analyseModule(directory, meta.path);
    this.#announce(0);
    this.send(frames.ANALYZED, call, 0, JSON.stringify(answer), result ?? "");
  }

  /** What runs, for the watchdog of analyses: the code of many actions takes turns, and nobody knows whose it is. */
  #announce(call) {
    const bytes = Buffer.alloc(24);
    bytes.writeBigUInt64LE(BigInt(call), 0);
    bytes.writeBigUInt64LE(++this.#entries, 8);
    bytes.writeBigUInt64LE(process.hrtime.bigint(), 16);
    writeSync(ANNOUNCE_FD, bytes, 0, 24, 0);
  }

  send(kind, call, seq, meta, body) {
    if (typeof body === "string") this.#out.push(frames.encodeFrame(kind, call, seq, meta, body));
    else this.#out.push(frames.encodeHead(kind, call, seq, meta, body.byteLength), body);
    if (this.#flushing) return;
    this.#flushing = true;
    process.nextTick(() => {
      this.#flushing = false;
      const out = this.#out;
      this.#out = [];
      this.#socket.write(out.length === 1 ? out[0] : Buffer.concat(out));
    });
  }

  ended(run) {
    this.#runs.delete(run.call);
    if (this.#runs.size > 0 || this.#beat === null) return;
    clearInterval(this.#beat);
    this.#beat = null;
  }

  /** An error that no code has caught: the run's whose code it was; of all of them when that is not known. */
  escaped(error, name, retires) {
    if (error instanceof Exited) return;
    const run = current()?.run;
    const guilty = run === undefined ? [...this.#runs.values()] : [run];
    this.isBroken ||= retires;
    for (const one of guilty) one.fail(error, name);
  }
}

installStackHook();
installConsole();
installConvex();

// The first two reach the whole process group; the parent decides when a child ends, by the end of the socket. With a handler for the third, a write
// of too large a file fails with EFBIG.
for (const signal of ["SIGINT", "SIGTERM", "SIGXFSZ"]) process.on(signal, () => {});

const socket = new Socket({ fd: 3, readable: true, writable: true });
const server = new ActionProcess(socket);
process.on("unhandledRejection", (reason) => server.escaped(reason, "unhandledRejection", false));
process.on("uncaughtException", (error) => server.escaped(error, "uncaughtException", true));
process.exit = (code) => {
  const status = code ?? process.exitCode ?? 0;
  server.escaped(new Error(`The action called process.exit(${status})`), "process.exit", true);
  throw new Exited("process.exit");
};
const decoder = new frames.FrameDecoder();
socket.on("data", (chunk) => decoder.feed(chunk, server.receive));
for (const event of ["end", "error", "close"]) socket.on(event, () => exitNow(0));
