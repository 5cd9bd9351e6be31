// The runner child: frames on fd 3, entries one at a time, the running call announced on fd 4 (docs/internals.md §7).
import { writeSync } from "node:fs";
import { Socket } from "node:net";
import { Analysis } from "./analyze.mjs";
import { ContextPool } from "./contexts.mjs";
import * as frames from "./frames.mjs";
import { harden } from "./harden.mjs";
import { collectContexts, holdText, releaseMemory } from "./memory.mjs";
import { ModuleStore } from "./modules.mjs";
import { Run } from "./run.mjs";
import { resolveSpecifier } from "./specifiers.mjs";

const ANNOUNCE_FD = 4;
const QUIET_MS = 2000;
const MAX_PATIENT_BYTES = 65536;
const MAX_UNREAD_BYTES = 4 * 1024 * 1024; // what the parent has not read, above which no run is entered

class Runner {
  modules = new ModuleStore();
  contexts = new ContextPool();
  resolve = resolveSpecifier;

  #runs = new Map(); // call -> Run or Analysis
  #ready = []; // runs with something to deliver: before new starts, since a mutation among them may hold a lane
  #starts = []; // functions that begin one call or analysis
  #entered = null; // the run of the last entry, until `after`
  #pumping = false;
  #filling = false;
  #quiet = null; // timer that releases memory
  #out = [];
  #outHasBytes = false;
  #outBytes = 0;
  #urgent = false; // somebody waits for what is in #out
  #announced = false;
  #announcement = Buffer.alloc(24);
  #entries = 0n;
  #socket;

  constructor(socket) {
    this.#socket = socket;
    process.on("unhandledRejection", (reason, promise) => this.#unhandled(reason, promise));
    this.#sendNow(frames.encodeFrame(frames.HELLO, 0, 0, JSON.stringify({ protocol: frames.PROTOCOL_VERSION, node: process.version, pid: process.pid }), ""));
    this.#fillSoon();
  }

  receive = (kind, call, seq, meta, body) => {
    switch (kind) {
      case frames.SYSRESULT:
        this.#runs.get(call)?.answer(seq, meta, body);
        break;
      case frames.START: {
        const parent = meta.parent === null || meta.parent === undefined ? null : (this.#runs.get(meta.parent) ?? null);
        const run = new Run(this, call, meta, body, parent);
        this.#admit(run);
        // A nested call belongs to work that has begun.
        if (parent !== null) this.schedule(run);
        else this.#starts.push(run);
        this.#pumpSoon();
        break;
      }
      case frames.MODULE:
        holdText(body.length);
        if (meta.kind === "map") this.modules.addMap(meta.hash, body);
        else this.modules.add(meta.hash, meta.path, body);
        break;
      case frames.DATA:
      case frames.WINDOW:
      case frames.HTTP:
        this.#runs.get(call)?.streamFrame(kind, seq, meta, body);
        break;
      case frames.CANCEL:
        this.#runs.get(call)?.drop();
        break;
      case frames.ANALYZE:
        this.#starts.push(this.#admit(new Analysis(this, call, meta)));
        this.#pumpSoon();
        break;
      case frames.FORGET:
        this.modules.forget(meta.hashes);
        this.contexts.forget(meta.hashes);
        break;
      default:
        throw new Error(`Unknown frame kind ${kind}`);
    }
  };

  #admit(run) {
    this.#runs.set(run.call, run);
    return run;
  }

  /** `run` has something to deliver. */
  schedule(run) {
    if (!run.queued) {
      run.queued = true;
      this.#ready.push(run);
    }
    this.#pumpSoon();
  }

  finished(run) {
    this.#runs.delete(run.call);
  }

  /** The calls that no other call made. */
  *roots() {
    for (const run of this.#runs.values()) if (run instanceof Run && run.parent === null) yield run;
  }

  /** `patient`: nobody waits for it, it may travel with later frames. */
  send(kind, call, seq, meta, body, patient = false) {
    if (typeof body === "string") {
      const frame = frames.encodeFrame(kind, call, seq, meta, body);
      this.#out.push(frame);
      this.#outBytes += frame.length;
    } else {
      // Bytes of a stream, which nobody changes any more.
      this.#out.push(frames.encodeHead(kind, call, seq, meta, body.byteLength), body);
      this.#outBytes += body.byteLength;
      this.#outHasBytes = true;
    }
    if (!patient || this.#outBytes > MAX_PATIENT_BYTES) this.#urgent = true;
    this.#pumpSoon();
  }

  #sendNow(buffer) {
    this.#socket.write(buffer);
  }

  #flush() {
    if (this.#out.length === 0) return;
    if (this.#outHasBytes) {
      // One write of many parts: bodies of streams are not copied.
      this.#socket.cork();
      for (const part of this.#out) this.#sendNow(part);
      this.#socket.uncork();
      this.#outHasBytes = false;
    } else {
      this.#sendNow(this.#out.length === 1 ? this.#out[0] : Buffer.concat(this.#out));
    }
    this.#out = [];
    this.#outBytes = 0;
    this.#urgent = false;
  }

  #pumpSoon() {
    if (this.#pumping) return;
    this.#pumping = true;
    setImmediate(this.#pump);
  }

  /** One turn: look at the last entry's outcome, make the next entry, start at most one new call. */
  #pump = () => {
    const last = this.#entered;
    if (last !== null) {
      this.#entered = null;
      last.after();
      // Before the next entry, which may take long.
      if (this.#urgent) this.#flush();
    }
    if (this.#socket.writableLength > MAX_UNREAD_BYTES) {
      this.#announce(0);
      this.#flush();
      this.#socket.once("drain", this.#pump);
      return;
    }
    let entered = false;
    while (!entered && this.#ready.length > 0) {
      const run = this.#ready.shift();
      run.queued = false;
      entered = this.#enter(run);
    }
    if (!entered && this.#starts.length > 0) entered = this.#enter(this.#starts.shift());
    if (!entered) this.#announce(0);
    if (!entered) this.#flush();
    if (entered || this.#ready.length > 0 || this.#starts.length > 0) {
      setImmediate(this.#pump);
    } else {
      this.#pumping = false;
      this.#fillSoon();
    }
  };

  #enter(run) {
    if (run.done) return false;
    // Before what begins, not before a delivery: a mutation under way may hold a lane, and a collection takes some tens of milliseconds.
    if (run.bridge === undefined) collectContexts();
    this.#announce(run.call);
    if (!run.enter()) return false;
    this.#entered = run;
    return true;
  }

  #announce(call) {
    if (call === 0 && !this.#announced) return;
    this.#announced = call !== 0;
    this.#announcement.writeBigUInt64LE(BigInt(call), 0);
    this.#announcement.writeBigUInt64LE(++this.#entries, 8);
    this.#announcement.writeBigUInt64LE(process.hrtime.bigint(), 16);
    try {
      writeSync(ANNOUNCE_FD, this.#announcement, 0, 24, 0);
    } catch (error) {
      if (error.code !== "EBADF") throw error; // started by hand, without a watchdog
    }
  }

  #unhandled(reason, promise) {
    // A promise of this realm was rejected by our own code: a defect, not a user's error.
    if (promise instanceof Promise) throw reason;
    this.#entered?.unhandled(reason);
  }

  /** Builds contexts ahead, one for each idle turn. */
  #fillSoon() {
    if (this.#filling) return;
    this.#filling = true;
    setImmediate(() => {
      this.#filling = false;
      if (this.#pumping) return;
      if (this.contexts.fill()) this.#fillSoon();
      else this.#releaseLater();
    });
  }

  /** After a while without work. The timer is pushed back by work, not replaced: this is on the path of every call. */
  #releaseLater() {
    if (this.#quiet === null) this.#quiet = setTimeout(this.#release, QUIET_MS);
    else this.#quiet.refresh();
  }

  #release = () => {
    if (this.#runs.size > 0 || this.#pumping) {
      this.#quiet.refresh();
      return;
    }
    this.contexts.shrink();
    releaseMemory();
  };
}

// Both reach the whole process group: SIGINT from a terminal, SIGTERM from `timeout` and systemd. Calls that run must end well; the parent
// decides when a child ends, by the end of the socket.
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => {});

const socket = new Socket({ fd: 3, readable: true, writable: true });
const runner = new Runner(socket);
const decoder = new frames.FrameDecoder();
harden();
socket.on("data", (chunk) => decoder.feed(chunk, runner.receive));
socket.on("end", () => process.exit(0));
socket.on("error", () => process.exit(0));
socket.on("close", () => process.exit(0));
