// Host operations: what a context asks of the host by `bridge.hostOp(name, json, buffers)`.
import { cryptoOp } from "./crypto.mjs";
import { disposeFetches, fetchOp } from "./fetch.mjs";
import { httpOp } from "./http.mjs";
import { storageOp } from "./storage.mjs";

/**
 * Run one operation.
 * @param {string} op name, "crypto.digest", "fetch", "fetch.read" …
 * @param {string} json arguments
 * @param {Uint8Array[]} buffers bytes that go with them
 * @param {object} callState {kind, keys, streams, syscall}: what the operations of one run share; `disposeCall` ends it
 * @returns {Promise<{json: string, buffers: Uint8Array[]}>}
 * @throws an Error; `errorName`, when present, is the name that the error has inside the context
 */
export async function hostOp(op, json, buffers, callState) {
  if (op.startsWith("crypto.")) return cryptoOp(op, json, buffers, callState);
  if (op === "fetch" || op.startsWith("fetch.")) return fetchOp(op, json, buffers, callState);
  if (op.startsWith("http.")) return httpOp(op, json, buffers, callState);
  if (op.startsWith("storage.")) return storageOp(op, json, buffers, callState);
  throw new Error(`Unknown host operation ${op}`);
}

/** The run ended: drop its keys, end its exchanges. */
export function disposeCall(callState) {
  disposeFetches(callState);
  callState.keys = [];
}
