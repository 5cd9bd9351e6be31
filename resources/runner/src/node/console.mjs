// console of "use node" code: lines of the run that writes them (runtime.md 7.1-7.3).
import { Console } from "node:console";
import { Writable } from "node:stream";
import { inspect } from "node:util";
import { current } from "./store.mjs";

const MAX_LINES = 256;
const MAX_CHARACTERS = 1_048_576;
const MAX_LINE_UNITS = 40000; // over the byte limit that Python applies, which needs the surplus to see that a line was cut
const OVERFLOW = `Log overflow (maximum ${MAX_LINES}). Remaining log lines omitted.`;
const TOO_MUCH = "Log overflow (maximum 1M characters). Remaining log lines omitted.";

/** The lines of one run: 256 and a megabyte of text at most, then one line that says so. */
export class LineWriter {
  #send;
  #lines = 0;
  #characters = 0;
  #isOver = false;

  /** @param {(line: string) => void} send gets JSON texts */
  constructor(send) {
    this.#send = send;
  }

  write(level, messages) {
    if (this.#isOver) return;
    const kept = [];
    let room = MAX_LINE_UNITS;
    for (const message of messages) {
      if (room <= 0) break;
      kept.push(message.length > room ? message.slice(0, room) : message);
      room -= message.length + 1;
    }
    const size = kept.reduce((total, one) => total + one.length, 0);
    let over = null;
    if (this.#lines >= MAX_LINES) over = OVERFLOW;
    else if (this.#characters + size > MAX_CHARACTERS) over = TOO_MUCH;
    if (over !== null) {
      this.#isOver = true;
      this.#send(JSON.stringify({ messages: [over], level: "ERROR", timestamp: Date.now() }));
      return;
    }
    this.#lines++;
    this.#characters += size;
    this.#send(JSON.stringify({ messages: kept, level, timestamp: Date.now() }));
  }

  /** A line of ours, which is never omitted. */
  warn(text, code) {
    this.#send(JSON.stringify({ messages: [text], level: "WARN", timestamp: Date.now(), code }));
  }
}

function print(level, values) {
  const run = current()?.run;
  if (run === undefined || run.done) return;
  run.lines.write(
    level,
    values.map((value) => inspect(value, { maxStringLength: 32768, customInspect: true })),
  );
}

/** Node's Console over the levels: what it builds on log, warn and error surfaces through them; `dir` and the like are dropped. */
function makeConsole() {
  const nowhere = new Writable({ write: (chunk, encoding, done) => done() });
  const made = new Console({ stdout: nowhere, stderr: nowhere });
  for (const level of ["debug", "error", "info", "log", "warn"]) made[level] = (...values) => print(level.toUpperCase(), values);
  const elapsed = (label) => {
    const started = current()?.run.stopwatches.get(label);
    return started === undefined ? undefined : `${label}: ${Date.now() - started}ms`;
  };
  made.time = (label = "default") => {
    const name = String(label);
    const watches = current()?.run.stopwatches;
    if (watches?.has(name)) print("WARN", [`Timer '${name}' already exists`]);
    else watches?.set(name, Date.now());
  };
  made.timeLog = (label = "default", ...values) => {
    const text = elapsed(String(label));
    if (text === undefined) print("WARN", [`Timer '${label}' does not exist`]);
    else print("INFO", [text, ...values]);
  };
  made.timeEnd = (label = "default") => {
    const name = String(label);
    const text = elapsed(name);
    if (text === undefined) print("WARN", [`Timer '${name}' does not exist`]);
    else print("INFO", [text]);
    current()?.run.stopwatches.delete(name);
  };
  return made;
}

export function installConsole() {
  globalThis.console = makeConsole();
  for (const stream of [process.stdout, process.stderr]) {
    stream.write = (chunk, encoding, done) => {
      const callback = typeof encoding === "function" ? encoding : done;
      if (typeof callback === "function") process.nextTick(callback);
      return true;
    };
  }
}
