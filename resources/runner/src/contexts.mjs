// Fresh contexts, one per run (F2), built ahead while the child is idle.
import { AsyncLocalStorage } from "node:async_hooks";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import vm from "node:vm";
import { RealmPool } from "./realms.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const AHEAD = 6;
const AHEAD_WHEN_IDLE = 2;
const MAX_KEPT = 8;
const MAX_USES = 1000;
const MAX_KEPT_KEYS = 1000;

const asyncContext = new AsyncLocalStorage();
const contextGet = () => asyncContext.getStore() ?? 0;
const contextSet = (id) => {
  asyncContext.enterWith(id);
};

/** The empty script: running it in a context drains that context's microtasks (microtaskMode "afterEvaluate"). */
const drainScript = new vm.Script("0", { filename: "runner:drain" });

function loadScripts() {
  const manifest = JSON.parse(readFileSync(join(here, "globals.json"), "utf8"));
  const lazyNames = []; // global, its group, … : flat, because array literals of strings cost a new context next to nothing
  const jsSyscallNames = [];
  const texts = [];
  for (const [group, { file, globals = [], jsSyscalls: handled = [] }] of Object.entries(manifest.groups)) {
    texts.push(`${JSON.stringify(group)}:${readFileSync(join(here, file), "utf8").trim()}`);
    for (const name of globals) lazyNames.push(name, group);
    for (const name of handled) jsSyscallNames.push(name, group);
  }
  return {
    bridge: new vm.Script(readFileSync(join(here, "bridge.js"), "utf8"), { filename: "runner:bridge" }),
    groups: new vm.Script(`({__proto__:null,${texts.join(",\n")}})`, { filename: "runner:globals" }),
    lazyNames: new vm.Script(JSON.stringify(lazyNames), { filename: "runner:names" }),
    jsSyscallNames: new vm.Script(JSON.stringify(jsSyscallNames), { filename: "runner:syscalls" }),
  };
}

/** One context and the bridge inside it. The host calls the bridge's functions with primitives only. */
/** Contexts made by this process so far. */
export let contextsMade = 0;

export class Context {
  #context;
  uses = 0;
  allocated = 0;
  /** The program that evaluates the modules again, of a context that serves runs in a checked realm. */
  program = null;
  /** CryptoKeys by the handles that user code has. They are the context's: a module may keep one for later runs. */
  keys = [];

  constructor(scripts) {
    contextsMade++;
    this.#context = vm.createContext(vm.constants.DONT_CONTEXTIFY, {
      microtaskMode: "afterEvaluate",
      codeGeneration: { strings: false, wasm: true },
    });
    const make = scripts.bridge.runInContext(this.#context);
    this.bridge = make(contextGet, contextSet, this.run(scripts.groups), this.run(scripts.lazyNames), this.run(scripts.jsSyscallNames));
  }

  /** Evaluates a script; returns an object of the context that must only be handed back into it. */
  run(script) {
    return script.runInContext(this.#context);
  }

  drain() {
    drainScript.runInContext(this.#context);
  }

  /** The raw context, for vm.SourceTextModule. */
  get raw() {
    return this.#context;
  }
}

export class ContextPool {
  realms = new RealmPool();
  #scripts = loadScripts();
  #ready = [];
  #ahead = AHEAD_WHEN_IDLE;
  #kept = []; // {key, hashes, context} of modules that allow reuse; the last was used last

  take() {
    if (this.#ready.length === 0) this.#ahead = AHEAD; // calls come faster than one by one
    return this.#ready.pop() ?? new Context(this.#scripts);
  }

  /** A context that an earlier run of the same code left, ready for the next run; null when there is none. */
  takeKept(key) {
    for (;;) {
      const at = this.#kept.findLastIndex((one) => one.key === key);
      if (at < 0) return null;
      const [{ context }] = this.#kept.splice(at, 1);
      if (context.bridge.renew() === true) return context;
    }
  }

  /**
   * Keeps a context in which a run has ended well for later runs of the same code. The one that has waited longest makes room.
   * @param {string} key names all that the context's state depends on
   * @param {string[]} hashes of its modules
   */
  keep(key, hashes, context) {
    if (++context.uses >= MAX_USES || context.keys.length > MAX_KEPT_KEYS) return;
    this.#kept.push({ key, hashes, context });
    if (this.#kept.length > MAX_KEPT) this.#kept.shift();
  }

  /** Drops the contexts with modules of these hashes. */
  forget(hashes) {
    this.realms.forget(hashes);
    const forgotten = new Set(hashes);
    this.#kept = this.#kept.filter((one) => !one.hashes.some((hash) => forgotten.has(hash)));
  }

  /** Gives up contexts that were built ahead for more calls than an idle child expects. */
  shrink() {
    this.#ready.length = Math.min(this.#ready.length, AHEAD_WHEN_IDLE);
    this.#ahead = AHEAD_WHEN_IDLE;
  }

  /** Builds one context if fewer than wanted are ready. @returns {boolean} whether more are wanted */
  fill() {
    if (this.#ready.length >= this.#ahead) return false;
    this.#ready.push(new Context(this.#scripts));
    return this.#ready.length < this.#ahead;
  }
}
