// Host half of crypto.subtle: runs Node's Web Cryptography. Keys stay here, in `callState.keys`, behind integer handles of one run.
//
// Arguments: JSON array; {"$buffer": n} is the n-th buffer, {"$key": h} a key. Result: JSON in the same manner, with {"$bytes": n} for a Uint8Array, and
// {"$key": h, type, extractable, algorithm, usages} for a new key.
import { createHash, webcrypto } from "node:crypto";

const { subtle } = webcrypto;
const methods = new Set([
  "decrypt",
  "deriveBits",
  "deriveKey",
  "digest",
  "encrypt",
  "exportKey",
  "generateKey",
  "importKey",
  "sign",
  "verify",
]);
/** Digests up to this size are made at once: handing them to a thread costs more. */
const digestAtOnceBytes = 256 * 1024;
const digestNames = { "SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512" };
/** Work that one operation may ask of a thread, about five seconds; the thread cannot be stopped, and it is not the run's own time. */
const maximumIterations = 10_000_000;
const maximumModulusBits = 8192;
/** Keys that one run may hold. */
const maximumKeys = 10_000;

function failure(name, message) {
  return Object.assign(new Error(message), { errorName: name });
}

function keysOf(callState) {
  callState.keys ??= [];
  return callState.keys;
}

function decode(value, buffers, keys) {
  if (Array.isArray(value)) return value.map((item) => decode(item, buffers, keys));
  if (typeof value !== "object" || value === null) return value;
  if (Object.hasOwn(value, "$buffer")) return buffers[value.$buffer];
  if (Object.hasOwn(value, "$key")) {
    const key = keys[value.$key];
    if (key === undefined) throw failure("InvalidAccessError", "The key does not belong to this run");
    return key;
  }
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, decode(item, buffers, keys)]));
}

function encode(value, buffers, keys) {
  if (value instanceof ArrayBuffer) return { $buffer: buffers.push(new Uint8Array(value)) - 1 };
  if (value instanceof Uint8Array) return { $bytes: buffers.push(value) - 1 };
  if (value instanceof CryptoKey) {
    if (keys.length >= maximumKeys) throw failure("QuotaExceededError", "Too many keys in one function execution");
    return {
      $key: keys.push(value) - 1,
      type: value.type,
      extractable: value.extractable,
      algorithm: encode({ ...value.algorithm }, buffers, keys),
      usages: value.usages,
    };
  }
  if (Array.isArray(value)) return value.map((item) => encode(item, buffers, keys));
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, encode(item, buffers, keys)]));
  }
  return value;
}

function checkCost(method, [algorithm]) {
  if ((method === "deriveBits" || method === "deriveKey") && algorithm.iterations > maximumIterations) {
    throw failure("OperationError", `Too many iterations (${algorithm.iterations} > maximum ${maximumIterations})`);
  }
  if (method === "generateKey" && algorithm.modulusLength > maximumModulusBits) {
    throw failure("OperationError", `The modulus is too long (${algorithm.modulusLength} > maximum ${maximumModulusBits} bits)`);
  }
}

function digestAtOnce([algorithm, data]) {
  const name = digestNames[String(algorithm.name).toUpperCase()];
  if (name === undefined || data.byteLength > digestAtOnceBytes) return null;
  return new Uint8Array(createHash(name).update(data).digest());
}

/**
 * One crypto operation.
 * @param {string} op "crypto." and the name of a method of SubtleCrypto
 * @param {string} json arguments
 * @param {Uint8Array[]} buffers
 * @param {{keys?: CryptoKey[]}} callState
 * @returns {Promise<{json: string, buffers: Uint8Array[]}>}
 * @throws an Error whose `errorName` is a DOMException name or "TypeError"
 */
export async function cryptoOp(op, json, buffers, callState) {
  const method = op.slice("crypto.".length);
  if (!methods.has(method)) throw failure("NotSupportedError", `Unknown operation ${op}`);
  const keys = keysOf(callState);
  const args = decode(JSON.parse(json), buffers, keys);
  if (method === "digest") {
    const bytes = digestAtOnce(args);
    if (bytes !== null) return { json: '{"$buffer":0}', buffers: [bytes] };
  }
  checkCost(method, args);
  let result;
  try {
    result = await subtle[method](...args);
  } catch (error) {
    if (error instanceof DOMException) throw failure(error.name, error.message);
    if (error instanceof TypeError) throw failure("TypeError", error.message);
    throw failure("OperationError", error instanceof Error ? error.message : String(error));
  }
  const out = [];
  return { json: JSON.stringify(encode(result, out, keys)), buffers: out };
}
