// Now and then a query that ran in a used context is run again in a fresh one, with the answers that its syscalls got: both must do and give the same.
import { Run } from "./run.mjs";

const SYSCALL = 4;
const RESULT = 6;
const NESTED = "1.0/runUdf";
const MAX_RECORDED_BYTES = 4 * 1024 * 1024;

/** Frames of a run as far as they must be the same in any context. */
const outcomeOf = (meta, body) => {
  const { ok, error, observed, logs } = JSON.parse(meta);
  return { result: JSON.stringify([ok, error, body]), observed: JSON.stringify(observed), logs: JSON.stringify(logs) };
};

/** What a run asked for, what it was answered, and the second run that is given the same. */
export class Sample {
  #core;
  #run;
  #frames = []; // [op, args]
  #answers = []; // [meta, body], in order of the calls
  #places = new Map(); // seq -> index in answers
  #bytes = 0;
  #usable = true;

  constructor(core, run) {
    this.#core = core;
    this.#run = run;
  }

  /** A SYSCALL frame of the run. A notice has no seq and gets no answer. */
  asked(seq, op, args) {
    if (op === NESTED) this.#usable = false;
    this.#frames.push([op, args]);
    if (seq !== 0) this.#places.set(seq, this.#places.size);
  }

  /** A SYSRESULT frame. */
  answered(seq, meta, body) {
    this.#bytes += body.length;
    if (this.#bytes > MAX_RECORDED_BYTES) this.#usable = false;
    const place = this.#places.get(seq);
    if (place !== undefined && this.#usable) this.#answers[place] = [meta, body];
  }

  /**
   * The run has ended by itself: run it again.
   * @param {string} meta and @param {string} body of RESULT
   * @param {(difference: string) => void} report called when something differs
   */
  ended(meta, body, report) {
    if (!this.#usable) return;
    const expected = outcomeOf(meta, body);
    const core = this.#core;
    let asked = 0;
    let replied = 0;
    let over = false;
    const differs = (what) => {
      if (over) return;
      over = true;
      report(`${this.#run.meta.module}:${this.#run.meta.export}, ${what}`);
      again.drop();
    };
    const send = (kind, _call, seq, sentMeta, sentBody) => {
      if (over) return;
      if (kind === RESULT) {
        const outcome = outcomeOf(sentMeta, sentBody);
        if (JSON.parse(sentMeta).error?.kind === "system") return; // a limit that this run met and that one did not
        const part = ["result", "observed", "logs"].find((name) => outcome[name] !== expected[name]);
        if (part !== undefined) differs(part);
        else if (asked !== this.#frames.length) differs("fewer syscalls");
        return;
      }
      if (kind !== SYSCALL) return;
      const { op } = JSON.parse(sentMeta);
      const [expectedOp, expectedArgs] = this.#frames[asked++] ?? [];
      if (op !== expectedOp || sentBody !== expectedArgs) {
        setImmediate(differs, `syscall ${asked}`);
        return;
      }
      if (seq === 0) return;
      const answer = this.#answers[replied++];
      // Not within the run's own turn, and all of one turn together, as answers come.
      if (answer !== undefined) setImmediate(() => again.answer(seq, answer[0], answer[1]));
    };
    const shadow = {
      modules: core.modules,
      contexts: core.contexts,
      resolve: core.resolve,
      roots: () => core.roots(),
      schedule: (run) => core.schedule(run),
      finished: () => {},
      send,
    };
    const again = new Run(shadow, 0, { ...this.#run.meta, realm: false, parent: null }, this.#run.args, null);
    core.schedule(again);
  }
}
