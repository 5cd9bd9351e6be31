// A fresh context with the built globals over a scripted bridge.
import { AsyncLocalStorage } from "node:async_hooks";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import vm from "node:vm";

/** Carries the number of bridge.contextGet and bridge.contextSet. */
export const storage = new AsyncLocalStorage();

/** @returns {{context: object, inside: object}} the context, and functions that were made in it */
export function makeContext(dist, kind, phase) {
  const manifest = JSON.parse(readFileSync(join(dist, "globals.json"), "utf8"));
  const names = Object.keys(manifest.groups);
  const groups = names.map((name) => `${JSON.stringify(name)}: ${readFileSync(join(dist, manifest.groups[name].file), "utf8")}`);

  const context = vm.createContext(vm.constants.DONT_CONTEXTIFY, {
    microtaskMode: "afterEvaluate",
    codeGeneration: { strings: false, wasm: true },
  });
  const inside = vm.runInContext(
    `(function (contextGet, contextSet, kind, phase) {
      "use strict";
      const groups = {${groups.join(",\n")}};
      const manifest = ${JSON.stringify(manifest)};
      const exports = new Map();
      const outbox = [];
      const waiting = new Map();
      const timers = new Map();
      const fatal = [];
      const unhandled = [];
      const results = [];
      let last = 0;
      let randomState = 1;
      const use = (name) => {
        if (!exports.has(name)) exports.set(name, groups[name](bridge, use));
        return exports.get(name);
      };
      const allowed = () => phase === "run" && (kind === "action" || kind === "httpAction");
      const bridge = Object.freeze({
        get kind() { return kind; },
        get phase() { return phase; },
        hostOp(name, json, buffers = []) {
          const id = ++last;
          outbox.push([id, name, json, buffers.map((one) => one.slice(0))]);
          return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
        },
        refusal(what) {
          if (allowed()) return null;
          if (phase === "import") return new Error(what === "cryptographic randomness" ? "Cannot use cryptographic randomness at import time" : what + " unsupported at import time");
          return new Error("Can't use " + what + " in queries and mutations. Please consider using an action. See https://docs.convex.dev/functions/actions for more details.");
        },
        refuse(what) { const error = bridge.refusal(what); if (error) throw error; },
        fatal(message) { fatal.push(message); throw new Error(message); },
        random(n) {
          const bytes = new Uint8Array(n);
          for (let i = 0; i < n; i++) bytes[i] = (randomState = (randomState * 1103515245 + 12345) & 0x7fffffff) >> 16;
          return bytes;
        },
        now: () => 1700000000000,
        performanceNow: () => 12.3,
        timeOrigin: () => 1600000000000.16,
        setTimer(callback, ms) { const id = ++last; timers.set(id, { callback, ms, context: contextGet() }); outbox.push([id, "timer", String(ms), []]); return id; },
        clearTimer(id) { timers.delete(id); },
        contextGet: () => contextGet(),
        contextSet: (id) => contextSet(id),
        onRenew() {},
      });
      for (const [group, { globals }] of Object.entries(manifest.groups)) {
        for (const name of globals) {
          Object.defineProperty(globalThis, name, {
            get() {
              const value = use(group)[name];
              for (const one of globals) {
                if (one !== name && Object.getOwnPropertyDescriptor(globalThis, one).get === undefined) continue;
                Object.defineProperty(globalThis, one, { value: use(group)[one], writable: true, configurable: true, enumerable: false });
              }
              return value;
            },
            set(value) { Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false }); },
            configurable: true,
            enumerable: false,
          });
        }
      }
      const show = (value) => (typeof value === "string" ? JSON.stringify(value) : String(value));
      function assert(condition, message = "assertion failed") { if (!condition) throw new Error(message); }
      assert.equal = (got, wanted, message = "") => { if (!Object.is(got, wanted)) throw new Error(message + " got " + show(got) + ", wanted " + show(wanted)); };
      assert.same = (got, wanted) => assert.equal(JSON.stringify(got), JSON.stringify(wanted));
      const check = (error, kind, text) => {
        if (typeof kind === "string") assert.equal(error.name, kind, "error name (" + error.message + ")");
        else if (!(error instanceof kind)) throw new Error("thrown: " + error + ", wanted a " + kind.name);
        if (text !== undefined && !String(error.message).includes(text)) throw new Error("message " + JSON.stringify(error.message) + " lacks " + JSON.stringify(text));
      };
      assert.throws = (call, kind, text) => { let error; try { call(); } catch (caught) { error = caught; } assert(error !== undefined, "nothing was thrown"); check(error, kind, text); };
      assert.rejects = async (promise, kind, text) => { let error; try { await promise; } catch (caught) { error = caught; } assert(error !== undefined, "did not reject"); check(error, kind, text); };
      const cases = [];
      return {
        outbox, fatal, results, timers, waiting,
        test(name, body) { cases.push({ name, body }); },
        assert,
        inspect: (value) => use("inspect").inspect(value),
        syscall: (name) => use(Object.keys(manifest.groups).find((group) => manifest.groups[group].jsSyscalls?.includes(name))).jsSyscalls[name],
        loaded: () => [...exports.keys()],
        set(k, p) { kind = k; phase = p; },
        async run(suite, host) {
          try { await suite(this.test, assert, host); } catch (error) { results.push({ name: "suite", error: String(error) }); }
          for (const { name, body } of cases) {
            try { await body(); results.push({ name, error: null }); }
            catch (error) { results.push({ name, error: error instanceof Error ? error.name + ": " + error.message : String(error) }); }
          }
          outbox.push([0, "finished", "", []]);
        },
        buffer: (size) => new Uint8Array(size),
        deliver(id, json, buffers) { const one = waiting.get(id); waiting.delete(id); one.resolve({ json, buffers: Array.from(buffers, (view) => view.buffer) }); },
        fail(id, message, name) { const one = waiting.get(id); waiting.delete(id); const error = new Error(message); if (name) error.errorName = name; one.reject(error); },
        fire(id) { const timer = timers.get(id); if (!timer) return; timers.delete(id); contextSet(timer.context); timer.callback(); },
        array: () => [],
      };
    })`,
    context,
  )(() => storage.getStore() ?? 0, (id) => storage.enterWith(id), kind, phase);
  return { context, inside };
}
