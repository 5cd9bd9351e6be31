// globalThis.Convex of "use node" code: syscalls of the run that makes them (runtime.md 2.1-2.3 and 11).
import { Blob } from "node:buffer";
import { storageOp } from "../host_ops/storage.mjs";
import { current } from "./store.mjs";

const MAX_CONCURRENT = 1000;
const OUTSIDE = "Cannot invoke syscall during module imports";
const DIRECT = "Invalid syscall. The Convex syscalls are for internal Convex use and should not be called directly.";
const LEFTOVER =
  "Leftover state detected. This typically happens if there are dangling promises from a previous request. Did you forget to await your promises?";
const DATABASE =
  "The Convex database object is being used outside of a Convex query or mutation. Did" +
  "you mean to use `ctx.query` or `ctx.mutation` to access the database?";
const CONCURRENT = "Too many concurrent operations. See https://docs.convex.dev/functions/actions#limits for more information.";
const databaseOperations = new Set([
  ...["1.0/queryStream", "1.0/queryCleanup", "1.0/db/normalizeId", "1.0/getSnapshotTs"],
  ...["queryStream", "queryCleanup", "db/normalizeId"],
]);
/** Syscalls that say which request they belong to. */
const isBound = (op) => op.startsWith("1.0/actions/") || op.startsWith("1.0/storage") || op === "1.0/getUserIdentity";

function runOf(op, requestId, bound) {
  const store = current();
  if (store === undefined || store.importing) throw new Error(OUTSIDE);
  const { run } = store;
  if (bound && requestId === undefined) throw new Error(DIRECT);
  if (run.done || (bound && requestId !== run.requestId)) throw new Error(LEFTOVER);
  if (run.pending.size >= MAX_CONCURRENT) throw new Error(CONCURRENT);
  return run;
}

/** Older packages leave out the version in front of an action's operations. */
const canonical = (op) => (op.startsWith("actions/") ? `1.0/${op}` : op);

async function asyncSyscall(name, jsonArgs) {
  const op = canonical(String(name));
  const bound = isBound(op);
  const run = runOf(op, bound ? JSON.parse(jsonArgs)?.requestId : undefined, bound);
  return await run.syscall(op, jsonArgs);
}

function syscall(op) {
  throw new Error(databaseOperations.has(op) ? DATABASE : `Unknown operation ${op}`);
}

async function storeBlob({ requestId, blob, options }) {
  const run = runOf("storage/storeBlob", requestId, true);
  if (!(blob instanceof Blob)) throw new TypeError("storage.store: the value is not of type 'Blob'.");
  const bytes = Buffer.from(await blob.arrayBuffer());
  const json = JSON.stringify({ contentType: blob.type === "" ? null : blob.type, sha256: options?.sha256 });
  const answer = await run.operation("storage.store", () => storageOp("storage.store", json, [bytes], run.state));
  return JSON.parse(answer.json);
}

async function getBlob({ requestId, storageId }) {
  const run = runOf("storage/getBlob", requestId, true);
  const json = JSON.stringify({ storageId });
  const answer = await run.operation("storage.get", () => storageOp("storage.get", json, [], run.state));
  const found = JSON.parse(answer.json);
  return found === null ? null : new Blob([answer.buffers[0]], { type: found.contentType ?? "" });
}

function jsSyscall(op, args) {
  if (op === "storage/storeBlob") return storeBlob(args);
  if (op === "storage/getBlob") return getBlob(args);
  throw new Error(`Unknown JS syscall: ${op}`);
}

export function installConvex() {
  globalThis.Convex = { syscall, asyncSyscall, jsSyscall };
}
