// Contexts that serve many runs of a module, each of which evaluates the module anew (src/bridge/realm_check.js).

const MAX_KEPT = 24;
const MAX_USES = 1000;
const MAX_ALLOCATED = 512 * 1024 * 1024; // bytes, by all runs of a context: private fields of realm objects may hold on to some, which nothing shows
const MAX_DISCARDS = 2;
const MAX_COUNTED = 4096;
const SAMPLE_EVERY = 1000;

export class RealmPool {
  #kept = []; // {key, hashes, context}; the last was used last
  #seen = new Set(); // keys
  #discards = new Map(); // key -> contexts that runs of this code have changed

  #untilSample = SAMPLE_EVERY;
  #isOff = false;
  #mismatch = null; // what to tell the parent

  /** The name of the code that a run evaluates: nothing else of START reaches a module other than anew. */
  static key({ module, closure }) {
    return JSON.stringify([module, closure]);
  }

  /** Whether contexts of this code are not to be kept: runs have changed two of them. */
  isFreshOnly(key) {
    return (this.#discards.get(key) ?? 0) >= MAX_DISCARDS;
  }

  /** Whether a context for this run shall serve others too. Not the first run's: the snapshot costs more than a context, and pays in later runs only. */
  wants(key) {
    if (this.#isOff || this.isFreshOnly(key)) return false;
    if (this.#seen.has(key)) return true;
    if (this.#seen.size >= MAX_COUNTED) this.#seen.clear();
    this.#seen.add(key);
    return false;
  }

  /** Whether the query that begins now in a used context is to be run again in a fresh one (src/realm_samples.mjs). */
  samples() {
    if (--this.#untilSample > 0) return false;
    this.#untilSample = SAMPLE_EVERY;
    return true;
  }

  /** A used context gave something else than a fresh one: no run shares a context any more. @param {string} text module, function, what differs */
  switchOff(text) {
    this.#isOff = true;
    this.#mismatch = text;
    this.#kept = [];
  }

  /** The text of `switchOff`, once; else null. */
  takeMismatch() {
    const text = this.#mismatch;
    this.#mismatch = null;
    return text;
  }

  /** A context in which an earlier run of the same code has ended, ready for `begin`; null when there is none. */
  take(key) {
    for (;;) {
      const at = this.#kept.findLastIndex((one) => one.key === key);
      if (at < 0) return null;
      const [{ context }] = this.#kept.splice(at, 1);
      context.keys = []; // CryptoKeys, whose handles begin anew
      if (context.bridge.restart() === true) return context;
    }
  }

  /**
   * Keeps a context in which a run has ended well, unless the run has changed the realm.
   * @param {number} allocated bytes that the run has allocated
   * @returns {string} what it has changed, or ""
   */
  keep(key, hashes, context, allocated) {
    const difference = context.bridge.realmDifference();
    if (typeof difference !== "string" || difference !== "") {
      if (this.#discards.size >= MAX_COUNTED) this.#discards.delete(this.#discards.keys().next().value);
      this.#discards.set(key, (this.#discards.get(key) ?? 0) + 1);
      return String(difference);
    }
    context.allocated += allocated;
    if (++context.uses < MAX_USES && context.allocated < MAX_ALLOCATED && !this.#isOff) {
      this.#kept.push({ key, hashes, context });
      if (this.#kept.length > MAX_KEPT) this.#kept.shift();
    }
    return "";
  }

  /** Drops the contexts with modules of these hashes. */
  forget(hashes) {
    const forgotten = new Set(hashes);
    this.#kept = this.#kept.filter((one) => !one.hashes.some((hash) => forgotten.has(hash)));
  }
}
