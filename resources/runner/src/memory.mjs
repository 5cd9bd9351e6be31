// When garbage is collected: contexts under load, and what load has left behind in an idle child.
import v8 from "node:v8";
import vm from "node:vm";
import { contextsMade } from "./contexts.mjs";

const CONTEXTS_PER_COLLECTION = 64;
const SMALL_HEAP_BYTES = 96 * 1024 * 1024;

/** V8's own collection function. The flag is set for the one context that hands it out: no other has a global `gc`. */
function collector() {
  v8.setFlagsFromString("--expose-gc");
  const collect = vm.runInNewContext("gc");
  v8.setFlagsFromString("--no-expose-gc");
  return collect;
}

const collect = collector();

let collectedAt = 0; // contextsMade at the last collection

/**
 * Between entries: collects after every so many contexts.
 *
 * A context dies only in a full collection, so what V8 does by itself, frequent collections of the young generation, copies dead contexts about. A heap
 * that user code has made large is left to V8, whose judgement of when a full collection pays is better then.
 */
export function collectContexts() {
  if (contextsMade - collectedAt < CONTEXTS_PER_COLLECTION) return;
  collectedAt = contextsMade;
  if (process.memoryUsage().heapUsed < SMALL_HEAP_BYTES) collect({ type: "major", execution: "sync" });
}

/** Bytes in V8's heap, and in buffers and WebAssembly memories outside of it. Costs less than a microsecond. */
export function memoryInUse() {
  const { used_heap_size: heap, external_memory: buffers } = v8.getHeapStatistics();
  return { heap, buffers };
}

let base = memoryInUse(); // what the child itself holds

const TEXT_FACTOR = 3; // the text of a module, its transformed text, and what V8 makes of it

/** The child has taken a module, or its source map, of so many characters: that is nobody's memory. */
export function holdText(length) {
  base.heap += TEXT_FACTOR * length;
}

/**
 * A full collection; gives what is left beyond the child's own. Buffers that a collection found dead are freed, and taken off the account, by another
 * thread, which may not have come to it: the next collection waits for that.
 */
export function collectGarbage() {
  collectedAt = contextsMade;
  collect({ type: "major", execution: "sync" });
  collect({ type: "minor", execution: "sync" });
  const { heap, buffers } = memoryInUse();
  return { heap: heap - base.heap, buffers: buffers - base.buffers };
}

/** Collects everything that can be collected, and returns pages to the system. Takes some tens of milliseconds. */
export function releaseMemory() {
  collectedAt = contextsMade;
  collect({ type: "major", execution: "sync", flavor: "last-resort" });
  base = memoryInUse();
}
